/* Strict forms: what they allow the readers take, and what Australian paper shows they allow. */
#include "tests/extract/records.h"

#include "engine/form.h"
#include "extract/pattern.h"

static uint64_t seed = 1;

static uint32_t below(uint32_t n) {
    seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)((seed >> 33) % n);
}

/* A text that the automaton accepts. */
static size_t draw_text(const rv_dfa *d, char *out, size_t capacity) {
    size_t n = 0;
    for (int32_t state = 1;;) {
        int bytes[256], count = 0;
        for (int b = 0; b < 256; b++)
            if (d->next[state][b]) bytes[count++] = b;
        if (d->accept[state] && (count == 0 || below(3) == 0)) break;
        if (n + 1 == capacity) fail_msg("longer than %zu bytes", capacity);
        const int byte = bytes[below((uint32_t)count)];
        out[n++] = (char)byte;
        state = d->next[state][byte];
    }
    out[n] = '\0';
    return n;
}

/* What the checks say, not the forms: sums, orders, how many days a month has. */
static bool is_for_checks(const char *why) { return strstr(why, "check digit") || strstr(why, "ends before it begins") || strstr(why, "no such day"); }

/* Whether a day of the text may not exist: a period says no more than that there are no two dates. */
static bool has_late_days(const char *text) { return strstr(text, "29") || strstr(text, "30") || strstr(text, "31"); }

static void what_a_form_allows_its_reader_takes(void **state) {
    (void)state;
    for (int kind = 0; kind < RV_KINDS; kind++) {
        const char *pattern = rv_form_pattern((rv_value_kind)kind);
        rv_dfa d;
        rv_error err;
        if (!pattern) continue;
        if (rv_dfa_pattern(pattern, &d, &err)) fail_msg("%s: %s", rv_kind_name((rv_value_kind)kind), err.message);
        printf("%-10s %4d states\n", rv_kind_name((rv_value_kind)kind), d.states);
        for (int i = 0; i < 20000; i++) {
            char text[8000];
            rv_pool pool = { 0 };
            rv_value v;
            size_t n = draw_text(&d, text, sizeof text);
            if (kind == RV_KIND_DATE_RANGE && has_late_days(text)) continue;
            rv_value_read(&pool, (rv_value_kind)kind, text, n, NULL, &v);
            if (v.state != RV_VALUE_VALID && !(v.why && is_for_checks(v.why)))
                fail_msg("%s: \"%s\": %s", rv_kind_name((rv_value_kind)kind), text, v.why ? v.why : "absent");
            rv_pool_free(&pool);
        }
        rv_dfa_free(&d);
    }
}

static void what_paper_shows_the_forms_allow(void **state) {
    static const struct { rv_value_kind kind; const char *texts[40]; } cases[] = {
        { RV_KIND_DATE, { "05/03/2024", "5/3/24", "05-03-2024", "5.3.24", "05 03 2024", "2024-03-05", "5 March 2024", "5 MAR 2024", "5 Mar 24", "Tue 5 Mar 2024", "TUE 5 MAR 2024", "Tuesday, 5 March 2024",
                          "5th March 2024", "5th of March, 2024", "March 5, 2024", "Sept 5 2024", "05MAR24", "5MAR2024", "20240305", "05032024", "5-Mar-24", "5 Mar '24", "29 Dec", "5/3",
                          "29/02/2024", "29 Feb 2024", "20240229", "31/12/1999",
                          "1 January 2024", "1 February 2024", "1 April 2024", "1 May 2024", "1 June 2024", "1 July 2024", "1 August 2024", "1 September 2024", "1 October 2024",
                          "1 NOVEMBER 2024", "1 Dec 2024" } },
        { RV_KIND_DATE_RANGE, { "1 Jul 2024 to 31 Jul 2024", "01/07/2024 - 31/07/2024", "1 Dec - 5 Jan 2024", "1 - 28 February 2024", "1 Jul 2024 \xe2\x80\x93 31 Jul 2024", "1 July 2024 through 31 July 2024" } },
        { RV_KIND_MONEY, { "$1,234.56", "-$5.00", "$-5.00", "$5.00-", "($5.00)", "5.00 CR", "5.00DR", ".50", "$.50", "$12", "1234.5", "AUD 1,234.56", "A$5.00", "AU$5.00", "1 234.56",
                           "$1.899", "$1234567.89" } },
        { RV_KIND_QUANTITY, { "3", "1.25", "-1", "1,000", "0.375" } },
        { RV_KIND_TIME, { "14:05", "2:05 PM", "2pm", "14:05:33", "9:30am" } },
        { RV_KIND_EMAIL, { "a.b@example.com.au", "accounts+ap@acme.net" } },
    };
    static const struct { rv_value_kind kind; const char *text; } wrong[] = {
        { RV_KIND_DATE, "32/04/2024" }, { RV_KIND_DATE, "0 March 2024" }, { RV_KIND_DATE, "5/19/2024" }, { RV_KIND_DATE, "5 March 1824" }, { RV_KIND_DATE_RANGE, "1 July 2024" },
        { RV_KIND_QUANTITY, "1.2345" }, { RV_KIND_TIME, "25:00" }, { RV_KIND_MONEY, "-$-5.00" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_dfa d;
        rv_error err;
        if (rv_dfa_pattern(rv_form_pattern(cases[i].kind), &d, &err)) fail_msg("%s", err.message);
        for (int k = 0; k < 40 && cases[i].texts[k]; k++) {
            int32_t end = rv_dfa_walk(&d, cases[i].texts[k], strlen(cases[i].texts[k]));
            if (!end || !d.accept[end]) fail_msg("%s: \"%s\" is refused", rv_kind_name(cases[i].kind), cases[i].texts[k]);
        }
        for (size_t k = 0; k < sizeof wrong / sizeof *wrong; k++) {
            if (wrong[k].kind != cases[i].kind) continue;
            int32_t end = rv_dfa_walk(&d, wrong[k].text, strlen(wrong[k].text));
            if (end && d.accept[end]) fail_msg("%s: \"%s\" is allowed", rv_kind_name(cases[i].kind), wrong[k].text);
        }
        rv_dfa_free(&d);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_a_form_allows_its_reader_takes),
        cmocka_unit_test(what_paper_shows_the_forms_allow),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
