/* What must hold for every number, amount and day, tried on a million of them. */
#include "tests/extract/words.h"

#include "extract/value.h"

static void every_changed_digit_of_an_abn_is_caught(void **state) {
    uint64_t seed = 89;
    long mutations = 0, valid = 0;
    (void)state;
    while (mutations < 1000000) {
        char digits[12];
        snprintf(digits, sizeof digits, "%011llu", (unsigned long long)(UINT64_C(10000000000) + draw(&seed) % UINT64_C(90000000000)));
        bool fits = false;                 /* the last two digits decide: 19 and 17 times d reach every remainder but a few */
        for (int last = 0; last < 100 && !fits; last++) {
            digits[9] = (char)('0' + last / 10);
            digits[10] = (char)('0' + last % 10);
            fits = rv_abn_valid(digits, 11);
        }
        if (!fits) continue;
        valid++;
        for (int i = 0; i < 11; i++) {
            char old = digits[i];
            for (char c = '0'; c <= '9'; c++) {
                if (c == old) continue;
                digits[i] = c;
                if (rv_abn_valid(digits, 11)) fail_msg("%s passes with digit %d changed from %c", digits, i, old);
                mutations++;
            }
            digits[i] = old;
        }
    }
    assert_true(valid > 9000);
}

static void every_changed_digit_of_an_acn_or_card_is_caught(void **state) {
    uint64_t seed = 7;
    (void)state;
    for (int round = 0; round < 5000; round++) {
        char acn[10], card[17];
        snprintf(acn, sizeof acn, "%08llu0", (unsigned long long)(draw(&seed) % 100000000));
        snprintf(card, sizeof card, "%015llu0", (unsigned long long)(draw(&seed) % UINT64_C(1000000000000000)));
        while (!rv_acn_valid(acn, 9)) acn[8]++;
        while (!rv_luhn_valid(card, 16)) card[15]++;
        assert_true(acn[8] <= '9' && card[15] <= '9');
        for (int i = 0; i < 16; i++) {
            for (int step = 1; step < 10; step++) {
                char old = card[i];
                card[i] = (char)('0' + (card[i] - '0' + step) % 10);
                if (rv_luhn_valid(card, 16)) fail_msg("%s passes with digit %d changed", card, i);
                card[i] = old;
                if (i >= 9) continue;
                old = acn[i];
                acn[i] = (char)('0' + (acn[i] - '0' + step) % 10);
                /* Weights 8, 6, 5, 4 and 2 share a factor with 10: those positions let some changes through, as the law's algorithm does. */
                bool coprime = i == 1 || i == 5 || i == 7 || i == 8;
                if (coprime && rv_acn_valid(acn, 9)) fail_msg("%s passes with digit %d changed", acn, i);
                acn[i] = old;
            }
        }
    }
}

/* Every weight is prime to 11: no change of one digit gets through, in the eight digits of old numbers either. */
static void every_changed_digit_of_a_tfn_is_caught(void **state) {
    uint64_t seed = 13;
    long mutations = 0;
    (void)state;
    while (mutations < 500000) {
        char tfn[10];
        size_t n = draw(&seed) & 1 ? 9 : 8;
        snprintf(tfn, sizeof tfn, "%0*llu", (int)n, (unsigned long long)(draw(&seed) % (n == 9 ? 1000000000 : 100000000)));
        if (!rv_tfn_valid(tfn, n)) continue;
        for (size_t i = 0; i < n; i++) {
            char old = tfn[i];
            for (char c = '0'; c <= '9'; c++) {
                if (c == old) continue;
                tfn[i] = c;
                if (rv_tfn_valid(tfn, n)) fail_msg("%s passes with digit %zu changed from %c", tfn, i, old);
                mutations++;
            }
            tfn[i] = old;
        }
    }
}

static void money_survives_the_way_to_text_and_back(void **state) {
    uint64_t seed = 11;
    (void)state;
    for (int round = 0; round < 200000; round++) {
        rv_pool pool = { 0 };
        rv_value v;
        char text[40];
        int64_t cents = (int64_t)(draw(&seed) % UINT64_C(100000000000000000));
        cents >>= draw(&seed) % 50;
        if (draw(&seed) & 1) cents = -cents;
        rv_money_text(cents, round % 3 ? "AUD" : "NZD", text);
        rv_value_read(&pool, RV_KIND_MONEY, text, strlen(text), NULL, &v);
        if (v.state != RV_VALUE_VALID || v.number != cents || strcmp(v.text, text) || strcmp(v.currency, round % 3 ? "AUD" : "NZD"))
            fail_msg("%lld: \"%s\" reads as \"%s\", %lld (%s)", (long long)cents, text, v.text, (long long)v.number, v.why ? v.why : "");
        rv_pool_free(&pool);
    }
}

static void days_count_up_one_by_one_and_read_back(void **state) {
    rv_date before = rv_date_of_days(-25568);
    (void)state;
    assert_int_equal(rv_date_days((rv_date){ 1970, 1, 1 }), 0);
    assert_int_equal(rv_date_days((rv_date){ 2000, 3, 1 }), 11017);
    for (int32_t days = -25567; days < 84006; days++) {            /* 1900 to 2199 */
        rv_date d = rv_date_of_days(days);
        if (rv_date_days(d) != days || !rv_date_exists(d) || rv_date_compare(before, d) >= 0)
            fail_msg("day %d is %d-%d-%d", days, d.year, d.month, d.day);
        before = d;
        if (days % 7) continue;
        static const char *const forms[] = { "%02d/%02d/%04d", "%d.%d.%d", "%02d-%02d-%04d" };
        rv_pool pool = { 0 };
        rv_value v;
        char text[40];
        snprintf(text, sizeof text, forms[(days / 7 % 3 + 3) % 3], d.day, d.month, d.year);
        rv_value_read(&pool, RV_KIND_DATE, text, strlen(text), NULL, &v);
        if (v.state != RV_VALUE_VALID || rv_date_compare(v.first, d)) fail_msg("\"%s\" reads as \"%s\"", text, v.text);
        if (v.ambiguous != (d.day <= 12 && d.day != d.month)) fail_msg("\"%s\": ambiguous is %d", text, v.ambiguous);
        rv_pool_free(&pool);
    }
}

/* Whatever a reader makes of a text, reading its normal form again gives the same value. */
static void normal_forms_are_fixed_points(void **state) {
    static const char alphabet[] = "0123456789 $.,-/()ABNacmrdTo%:x#@'*\n|";
    uint64_t seed = 5;
    long valid = 0;
    (void)state;
    for (int round = 0; round < 150000; round++) {
        rv_pool pool = { 0 };
        rv_value v, again;
        char text[24];
        size_t n = draw(&seed) % (sizeof text - 1);
        for (size_t i = 0; i < n; i++) {
            size_t letters = draw(&seed) & 1 ? 10 : sizeof alphabet - 1;
            text[i] = alphabet[draw(&seed) % letters];
        }
        text[n] = '\0';
        rv_value_kind kind = (rv_value_kind)(draw(&seed) % RV_KINDS);
        if (kind == RV_KIND_ENUM) kind = RV_KIND_MONEY;
        rv_value_read(&pool, kind, text, n, NULL, &v);
        rv_value_read(&pool, kind, v.text, strlen(v.text), NULL, &again);
        valid += v.state == RV_VALUE_VALID;
        if (v.state == RV_VALUE_VALID && !(again.state == RV_VALUE_VALID && rv_value_same(&v, &again) && strcmp(v.text, again.text) == 0))
            fail_msg("%s \"%s\": \"%s\", then \"%s\" (%s)", rv_kind_name(kind), text, v.text, again.text, again.why ? again.why : "");
        rv_pool_free(&pool);
    }
    assert_true(valid > 20000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_changed_digit_of_an_abn_is_caught),
        cmocka_unit_test(every_changed_digit_of_an_acn_or_card_is_caught),
        cmocka_unit_test(every_changed_digit_of_a_tfn_is_caught),
        cmocka_unit_test(money_survives_the_way_to_text_and_back),
        cmocka_unit_test(days_count_up_one_by_one_and_read_back),
        cmocka_unit_test(normal_forms_are_fixed_points),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
