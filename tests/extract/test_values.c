/* What texts mean: money in cents, days, numbers with check digits. Official example numbers come from the Australian
 * Business Register, ASIC and the ATO's published test numbers. */
#include "tests/extract/words.h"

#include "extract/value.h"

static rv_pool pool;

static rv_value read_as(rv_value_kind kind, const char *text) {
    rv_value v;
    rv_value_read(&pool, kind, text, strlen(text), NULL, &v);
    return v;
}

static void reads(int line, rv_value_kind kind, const char *text, const char *want, int64_t number) {
    rv_value v = read_as(kind, text);
    if (v.state != RV_VALUE_VALID || strcmp(v.text, want) || v.number != number)
        fail_msg("line %d: \"%s\": state %d, \"%s\", %lld; wanted \"%s\", %lld (%s)", line, text, (int)v.state, v.text, (long long)v.number,
                 want, (long long)number, v.why ? v.why : "");
    if (strcmp(v.raw, text)) fail_msg("line %d: raw is \"%s\"", line, v.raw);
}

static void refuses(int line, rv_value_kind kind, const char *text, const char *why) {
    rv_value v = read_as(kind, text);
    if (v.state != RV_VALUE_INVALID || !v.why || !strstr(v.why, why))
        fail_msg("line %d: \"%s\": state %d, \"%s\", why: %s", line, text, (int)v.state, v.text, v.why ? v.why : "");
}

#define READS(kind, text, want, number) reads(__LINE__, kind, text, want, number)
#define REFUSES(kind, text, why) refuses(__LINE__, kind, text, why)

static void money_is_read_in_cents_however_it_is_written(void **state) {
    (void)state;
    READS(RV_KIND_MONEY, "$1,234.56", "$1,234.56", 123456);
    READS(RV_KIND_MONEY, "AUD 1,234.56", "$1,234.56", 123456);
    READS(RV_KIND_MONEY, "A$12", "$12.00", 1200);
    READS(RV_KIND_MONEY, " Nil ", "$0.00", 0);
    READS(RV_KIND_MONEY, "AU$0.05", "$0.05", 5);
    READS(RV_KIND_MONEY, "$$7.00", "$7.00", 700);
    READS(RV_KIND_MONEY, "1 234.56", "$1,234.56", 123456);
    READS(RV_KIND_MONEY, "1234.5", "$1,234.50", 123450);
    READS(RV_KIND_MONEY, "-$5.00", "-$5.00", -500);
    READS(RV_KIND_MONEY, "\xe2\x88\x92$5.00", "-$5.00", -500);
    READS(RV_KIND_MONEY, "$-5.00", "-$5.00", -500);
    READS(RV_KIND_MONEY, "$5.00-", "-$5.00", -500);
    READS(RV_KIND_MONEY, "($5.00)", "-$5.00", -500);
    READS(RV_KIND_MONEY, "5.00 CR", "$5.00", 500);
    READS(RV_KIND_MONEY, "5.00DR", "-$5.00", -500);
    READS(RV_KIND_MONEY, ".50", "$0.50", 50);
    READS(RV_KIND_MONEY, "12,00", "$12.00", 1200);
    READS(RV_KIND_MONEY, "12,000", "$12,000.00", 1200000);
    READS(RV_KIND_MONEY, "$3.50 each", "$3.50", 350);
    READS(RV_KIND_MONEY, "$3.50*", "$3.50", 350);
    READS(RV_KIND_MONEY, "$33.00 inc GST", "$33.00", 3300);
    READS(RV_KIND_MONEY, "$12.00 GST", "$12.00", 1200);
    READS(RV_KIND_MONEY, "$5.00 (AUD)", "$5.00", 500);
    READS(RV_KIND_MONEY, "5.00 (USD)", "USD 5.00", 500);
    READS(RV_KIND_MONEY, "US$9.99", "USD 9.99", 999);
    READS(RV_KIND_MONEY, "RM 10.60", "MYR 10.60", 1060);
    READS(RV_KIND_MONEY, "999999999999999.99", "$999,999,999,999,999.99", 99999999999999999);
    READS(RV_KIND_MONEY, "$1.899", "$1.899", 190);
    assert_true(read_as(RV_KIND_MONEY, "$1.899").inexact);
    READS(RV_KIND_MONEY, "-0.004", "-$0.004", 0);
    assert_true(read_as(RV_KIND_MONEY, "5").currency_assumed);
    assert_false(read_as(RV_KIND_MONEY, "$5").currency_assumed);
    assert_int_equal(read_as(RV_KIND_MONEY, "5.00 CR").sign_by, RV_SIGN_CR);
    assert_int_equal(read_as(RV_KIND_MONEY, "(5.00)").sign_by, RV_SIGN_BRACKETS);
}

static void what_is_no_amount_is_kept_and_marked(void **state) {
    (void)state;
    REFUSES(RV_KIND_MONEY, "S12.00", "no amount");
    REFUSES(RV_KIND_MONEY, "$l2.00", "no amount");
    REFUSES(RV_KIND_MONEY, "$1,23,456", "more than one");
    REFUSES(RV_KIND_MONEY, "$1.00 $2.00", "more than one");
    REFUSES(RV_KIND_MONEY, "1.234,56", "more than one");
    REFUSES(RV_KIND_MONEY, "(5.00", "never closes");
    REFUSES(RV_KIND_MONEY, "0,500", "more than one");
    REFUSES(RV_KIND_MONEY, "$5.00 (net)", "more than one");
    REFUSES(RV_KIND_MONEY, "9999999999999999", "too many digits");
    REFUSES(RV_KIND_MONEY, "=HYPERLINK(\"http://x\")", "no amount");
}

static void quantities_need_a_digit_and_nothing_more(void **state) {
    (void)state;
    READS(RV_KIND_QUANTITY, "3", "3", 3000);
    READS(RV_KIND_QUANTITY, "3x", "3", 3000);
    READS(RV_KIND_QUANTITY, "x3", "3", 3000);
    READS(RV_KIND_QUANTITY, "3 EACH", "3", 3000);
    READS(RV_KIND_QUANTITY, "1.250 kg", "1.25", 1250);
    READS(RV_KIND_QUANTITY, "2 @", "2", 2000);
    READS(RV_KIND_QUANTITY, "Qty: 4", "4", 4000);
    READS(RV_KIND_QUANTITY, "-1", "-1", -1000);
    READS(RV_KIND_QUANTITY, "12,000", "12000", 12000000);
    READS(RV_KIND_QUANTITY, "12,345 km", "12345", 12345000);
    REFUSES(RV_KIND_QUANTITY, "0,750 kg", "bare");
    REFUSES(RV_KIND_QUANTITY, "each", "no number");
    REFUSES(RV_KIND_QUANTITY, "3 cats", "bare");
    READS(RV_KIND_PERCENT, "10 %", "10%", 10000);
    READS(RV_KIND_PERCENT, "62.5", "62.5%", 62500);
}

static void date_reads(int line, const char *text, const char *want, rv_date_by by, bool ambiguous) {
    rv_value v = read_as(RV_KIND_DATE, text);
    if (v.state != RV_VALUE_VALID || strcmp(v.text, want) || v.date_by != by || v.ambiguous != ambiguous)
        fail_msg("line %d: \"%s\": state %d, \"%s\", by %d, ambiguous %d; wanted \"%s\" (%s)", line, text, (int)v.state, v.text,
                 (int)v.date_by, v.ambiguous, want, v.why ? v.why : "");
}
#define DATE(text, want, by, ambiguous) date_reads(__LINE__, text, want, by, ambiguous)

static void dates_are_day_first_and_say_when_they_could_be_otherwise(void **state) {
    (void)state;
    DATE("05/03/2024", "05/03/2024", RV_DATE_BY_LOCALE, true);
    DATE("5.3.24", "05/03/2024", RV_DATE_BY_LOCALE, true);
    DATE("05-05-2024", "05/05/2024", RV_DATE_BY_LOCALE, false);
    DATE("25/12/2023", "25/12/2023", RV_DATE_BY_ONLY_VALID, false);
    DATE("12/25/2023", "25/12/2023", RV_DATE_BY_ONLY_VALID, false);
    DATE("2024-03-05", "05/03/2024", RV_DATE_BY_ISO, false);
    DATE("2024-03-05T14:05:00Z", "05/03/2024", RV_DATE_BY_ISO, false);
    DATE("20240305", "05/03/2024", RV_DATE_BY_ISO, false);
    DATE("05032024", "05/03/2024", RV_DATE_BY_LOCALE, true);
    DATE("5 March 2024", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("5th of March, 2024", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("March 5, 2024", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("Tue 5 Mar 24", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("Tuesday, 05 March 2024 14:05", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("05MAR24", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("5-Mar-2024", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("1 Sept 2023", "01/09/2023", RV_DATE_BY_MONTH_NAME, false);
    DATE("Invoice Date: 16/09/2018", "16/09/2018", RV_DATE_BY_ONLY_VALID, false);
    DATE("16/09/18 2:05 PM", "16/09/2018", RV_DATE_BY_ONLY_VALID, false);
    DATE("18/04/2018 5:18:08 P", "18/04/2018", RV_DATE_BY_ONLY_VALID, false);
    DATE("18/04/2018 5:18 p.m.", "18/04/2018", RV_DATE_BY_ONLY_VALID, false);
    DATE("18/04/2018 5:18PM AEST", "18/04/2018", RV_DATE_BY_ONLY_VALID, false);
    DATE("25/3/2024 14:05 AEST", "25/03/2024", RV_DATE_BY_ONLY_VALID, false);
    DATE("5 Mar 2024 at 2:05pm", "05/03/2024", RV_DATE_BY_MONTH_NAME, false);
    DATE("2024-03-05T14:05:00+10:00", "05/03/2024", RV_DATE_BY_ISO, false);
    DATE("5 Mar", "05/03", RV_DATE_BY_MONTH_NAME, false);
    DATE("29/02/2024", "29/02/2024", RV_DATE_BY_ONLY_VALID, false);
    DATE("15/06/85", "15/06/1985", RV_DATE_BY_ONLY_VALID, false);
    REFUSES(RV_KIND_DATE, "29/02/2023", "calendar");
    REFUSES(RV_KIND_DATE, "31/04/2023", "calendar");
    REFUSES(RV_KIND_DATE, "00/00/0000", "date");
    REFUSES(RV_KIND_DATE, "13/13/2023", "calendar");
    REFUSES(RV_KIND_DATE, "yesterday", "date");
    REFUSES(RV_KIND_DATE, "1/2/3/4", "date");
    REFUSES(RV_KIND_DATE, "March 2024", "not a date");
}

static void two_digit_years_turn_on_the_year_after_today(void **state) {
    rv_value_context context = { .today = { 2026, 6, 1 } };
    rv_value v;
    (void)state;
    rv_value_read(&pool, RV_KIND_DATE, "20/01/27", 8, &context, &v);
    assert_int_equal(v.first.year, 2027);
    rv_value_read(&pool, RV_KIND_DATE, "20/01/28", 8, &context, &v);
    assert_int_equal(v.first.year, 1928);
}

static void periods_are_read_with_all_their_dashes(void **state) {
    static const struct { const char *text, *want; } cases[] = {
        { "01/02/2024 - 29/02/2024", "01/02/2024 - 29/02/2024" },  { "01/02/2024-29/02/2024", "01/02/2024 - 29/02/2024" },
        { "1 Feb 2024 to 29 Feb 2024", "01/02/2024 - 29/02/2024" }, { "01-02-2024 - 29-02-2024", "01/02/2024 - 29/02/2024" },
        { "1 \xe2\x80\x93 29 February 2024", "01/02/2024 - 29/02/2024" }, { "15 Dec - 14 Jan 2024", "15/12/2023 - 14/01/2024" },
        { "15 Dec - 14 Jan", "15/12 - 14/01" }, { "1 Dec 2023 - 5 Jan", "01/12/2023 - 05/01/2024" }, { "1 July 2023 to 30 June", "01/07/2023 - 30/06/2024" },
        { "15 Jan - 14 Jan 2024", "15/01/2023 - 14/01/2024" }, { "1 Jan 2024 - 31 Jan", "01/01/2024 - 31/01/2024" }, { "1-28 February 2023", "01/02/2023 - 28/02/2023" },
        { "29 Feb 2024 - 28 Feb", "29/02/2024 - 28/02/2025" }, { "1-2-24-5-3-24", "01/02/2024 - 05/03/2024" },
        { "Period: 1 Feb to 29 Feb 2024", "01/02/2024 - 29/02/2024" }, { "from 2024-02-01 through 2024-02-29", "01/02/2024 - 29/02/2024" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_value v = read_as(RV_KIND_DATE_RANGE, cases[i].text);
        if (v.state != RV_VALUE_VALID || strcmp(v.text, cases[i].want))
            fail_msg("\"%s\": \"%s\" (%s)", cases[i].text, v.text, v.why ? v.why : "");
    }
    REFUSES(RV_KIND_DATE_RANGE, "29/02/2024 - 01/02/2024", "before it begins");
    REFUSES(RV_KIND_DATE_RANGE, "29/02/2024", "two dates");
    REFUSES(RV_KIND_DATE_RANGE, "5-3-24", "two dates");
    REFUSES(RV_KIND_DATE_RANGE, "05-03-24", "two dates");
    REFUSES(RV_KIND_DATE_RANGE, "1-7-12", "two dates");
    REFUSES(RV_KIND_DATE_RANGE, "29 Feb - 28 Feb 2024", "two dates");
    REFUSES(RV_KIND_DATE_RANGE, "15 - 14 Jan", "two dates");
    READS(RV_KIND_TIME, "2:05 PM", "14:05", 845);
    READS(RV_KIND_TIME, "14:05:59", "14:05", 845);
    READS(RV_KIND_TIME, "12:00 am", "00:00", 0);
    REFUSES(RV_KIND_TIME, "25:00", "time");
}

static void official_numbers_pass_their_checks(void **state) {
    static const char *const abns[] = { "51 824 753 556", "53 004 085 616", "33 051 775 556", "57 104 012 893" };
    static const char *const acns[] = { "004 085 616", "000 000 019", "000 250 000", "000 500 005" };
    static const char *const wrong[] = { "06 082 698 025", "29 466 483 258", "66 658 925 499", "73 154 562 747" };
    (void)state;
    for (int i = 0; i < 4; i++) {
        READS(RV_KIND_ABN, abns[i], abns[i], 0);
        READS(RV_KIND_ACN, acns[i], acns[i], 0);
        REFUSES(RV_KIND_ABN, wrong[i], "do not fit");
    }
    READS(RV_KIND_ABN, "A.B.N. No: 51824753556", "51 824 753 556", 0);
    READS(RV_KIND_ABN, "ABN 51-824-753-556", "51 824 753 556", 0);
    READS(RV_KIND_ACN, "ACN: 004085616", "004 085 616", 0);
    assert_string_equal(read_as(RV_KIND_ABN, "51824753557").text, "51 824 753 557");
    REFUSES(RV_KIND_ABN, "51 824 753 55", "fewer");
    REFUSES(RV_KIND_ABN, "51 824 753 5566", "more");
    REFUSES(RV_KIND_ABN, "51 824 753 55O", "nothing but digits");
    assert_true(rv_tfn_valid("123456782", 9));
    assert_false(rv_tfn_valid("123456783", 9));
    assert_true(rv_tfn_valid("876543210", 9) && rv_tfn_valid("459599230", 9) && rv_tfn_valid("37118629", 8));
    assert_true(rv_luhn_valid("4111111111111111", 16));
    READS(RV_KIND_BSB, "BSB: 062 000", "062-000", 0);
    READS(RV_KIND_BSB, "033-547", "033-547", 0);
    READS(RV_KIND_BSB, "BSB 734001", "734-001", 0);
    REFUSES(RV_KIND_BSB, "062-0000", "6 digits");
    REFUSES(RV_KIND_BSB, "06200", "6 digits");
    READS(RV_KIND_CARD, "XXXX-XXXX-XXXX-2707", "**** 2707", 0);
    READS(RV_KIND_CARD, "....1234", "**** 1234", 0);
    READS(RV_KIND_CARD, "Card xx5678", "**** 5678", 0);
    READS(RV_KIND_PHONE, "(02) 9876 5432", "02 9876 5432", 0);
    READS(RV_KIND_PHONE, "+61 2 9876 5432", "02 9876 5432", 0);
    READS(RV_KIND_PHONE, "Ph: 0412345678", "0412 345 678", 0);
    READS(RV_KIND_PHONE, "13 12 34", "13 12 34", 0);
    READS(RV_KIND_PHONE, "1300-123-456", "1300 123 456", 0);
    REFUSES(RV_KIND_PHONE, "555-1234-99999", "Australian");
}

static void texts_are_tidied_and_keep_their_raw_form(void **state) {
    (void)state;
    READS(RV_KIND_TEXT, "  Caf\x65\xcc\x81  \t No\xc2\xa0" "5 ", "Caf\xc3\xa9 No 5", 0);
    READS(RV_KIND_TEXT, "pay \xe2\x80\xae" "00.5$", "pay 00.5$", 0);
    READS(RV_KIND_ADDRESS, "1 / 92 High St", "1/92 High St", 0);
    READS(RV_KIND_ID, "Invoice", "Invoice", 0);
    READS(RV_KIND_ID, "No. 0042", "0042", 0);
    READS(RV_KIND_ID, "#A-17", "A-17", 0);
    READS(RV_KIND_ID, "Number: 1234 5678", "1234 5678", 0);
    READS(RV_KIND_ID, "No 1234 5678", "1234 5678", 0);
    READS(RV_KIND_ID, "No #A17", "A17", 0);
    READS(RV_KIND_ID, "NO-77", "NO-77", 0);
    READS(RV_KIND_ID, "Number 9 Dream", "Number 9 Dream", 0);
    READS(RV_KIND_EMAIL, "Joe@Acme.COM.au", "joe@acme.com.au", 0);
    REFUSES(RV_KIND_EMAIL, "joe at acme", "e-mail");
    READS(RV_KIND_URL, "https://WWW.Acme.com.au/Shop", "www.acme.com.au/Shop", 0);
    READS(RV_KIND_BOOL, "Yes", "true", 1);
    REFUSES(RV_KIND_BOOL, "maybe", "true or false");
}

static void every_way_to_say_nothing_is_absent(void **state) {
    static const char *const words[] = { "",  "  ", "NOT_FOUND",   "not found",      "N/A",           "n.a.",   "None", "null",
                                         "-", "--", "Not visible", "[not provided]", "\"NOT_FOUND\"", "**N/A**" };
    (void)state;
    for (size_t i = 0; i < sizeof words / sizeof *words; i++)
        for (int kind = 0; kind < RV_KINDS; kind++)
            if (kind != RV_KIND_ENUM && read_as((rv_value_kind)kind, words[i]).state != RV_VALUE_ABSENT)
                fail_msg("\"%s\" as %s is there", words[i], rv_kind_name((rv_value_kind)kind));
    assert_int_equal(read_as(RV_KIND_NAME, "Nando's").state, RV_VALUE_VALID);
    assert_int_equal(read_as(RV_KIND_TEXT, "Not found at the scene").state, RV_VALUE_VALID);
}

static void a_choice_that_says_nothing_is_a_choice(void **state) {
    static const char *const choices[] = { "NONE", "PARTIAL", "FULL" };
    const rv_value_context context = { .choices = { choices, 3 } };
    rv_value v;
    (void)state;
    rv_value_read(&pool, RV_KIND_ENUM, "none", 4, &context, &v);
    assert_int_equal(v.state, RV_VALUE_VALID);
    assert_string_equal(v.text, "NONE");
    rv_value_read(&pool, RV_KIND_ENUM, "NOT_FOUND", 9, &context, &v);
    assert_int_equal(v.state, RV_VALUE_ABSENT);
}

static void numbers_that_must_not_be_kept_are_masked_in_place(void **state) {
    static const struct { const char *text, *want; uint32_t n; } cases[] = {
        { "VISA 4111 1111 1111 1111 APPROVED", "VISA **** **** **** 1111 APPROVED", 1 },
        { "4111-1111-1111-1111", "****-****-****-1111", 1 },
        { "4111111111111111 5500005555555559", "************1111 ************5559", 2 },
        { "378282246310005", "***********0005", 1 },
        { "4111 1111 1111 1112", "4111 1111 1111 1112", 0 },
        { "TFN 123 456 782", "TFN *** *** 782", 1 },
        { "Tax File Number: 123456782.", "Tax File Number: ******782.", 1 },
        { "Order 123456782", "Order 123456782", 0 },
        { "TFN 123 456 783", "TFN 123 456 783", 0 },
        { "ABN 51 824 753 556", "ABN 51 824 753 556", 0 },
        { "BSB 062-000 Account 1234 5678", "BSB 062-000 Account 1234 5678", 0 },
        { "", "", 0 },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        uint32_t n;
        char *masked = rv_mask(cases[i].text, strlen(cases[i].text), RV_SENSITIVE_NOT, &n);
        if (strcmp(masked, cases[i].want) || n != cases[i].n) fail_msg("\"%s\": \"%s\", %u", cases[i].text, masked, n);
        free(masked);
    }
}

static void masks(rv_sensitivity what, const char *text, const char *want) {
    char *masked = rv_mask(text, strlen(text), what, NULL);
    if (strcmp(masked, want)) fail_msg("\"%s\": \"%s\"", text, masked);
    free(masked);
}

static void digits_beside_a_tax_file_number_do_not_hide_it(void **state) {
    static const char *const cases[][2] = {
        { "TFN 123 456 782 01/07/2023", "TFN *** *** 782 01/07/2023" },
        { "TFN: 123456782 1 July 2024", "TFN: ******782 1 July 2024" },
        { "2024 123 456 782 TFN", "2024 *** *** 782 TFN" },
        { "TFN 123 456 782 987 654 321", "TFN *** *** 782 987 654 321" },
        { "TFN 123 - 456 - 782", "TFN *** - *** - 782" },
        { "TFN 123/456/782", "TFN ***/***/782" },
        { "tax-file number 123456782", "tax-file number ******782" },
        { "T.F.N. 123.456.782", "T.F.N. ***.***.782" },
        { "TFN \xef\xbc\x91\xef\xbc\x92\xef\xbc\x93 456 782", "TFN \xef\xbc\x8a\xef\xbc\x8a\xef\xbc\x8a *** 782" },
        { "ABN 51 824 753 556, TFN 123 456 782", "ABN 51 824 753 556, TFN *** *** 782" },
        { "TFN declared 17/01/2023", "TFN declared 17/01/2023" },      /* passes the check of eight digits */
        { "Platform 123 456 782", "Platform 123 456 782" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) masks(RV_SENSITIVE_NOT, cases[i][0], cases[i][1]);
}

static void card_numbers_are_found_however_they_are_grouped(void **state) {
    static const char *const cases[][2] = {
        { "4111 - 1111 - 1111 - 1111", "**** - **** - **** - 1111" },
        { "4111\xe2\x80\x93" "1111\xe2\x80\x93" "1111\xe2\x80\x93" "1111", "****\xe2\x80\x93****\xe2\x80\x93****\xe2\x80\x93" "1111" },
        { "4111\xe2\x80\x91" "1111\xe2\x80\x91" "1111\xe2\x80\x91" "1111", "****\xe2\x80\x91****\xe2\x80\x91****\xe2\x80\x91" "1111" },
        { "4111/1111/1111/1111", "****/****/****/1111" },
        { "4111_1111_1111_1111", "****_****_****_1111" },
        { "4111,1111,1111,1111", "****,****,****,1111" },
        { "4111\xc2\xb7" "1111\xc2\xb7" "1111\xc2\xb7" "1111", "****\xc2\xb7****\xc2\xb7****\xc2\xb7" "1111" },
        { "4111:1111:1111:1111", "****:****:****:1111" },
        { "4111 -1111 -1111 1111", "**** -**** -**** 1111" },
        { "41 11 11 11 11 11 11 11", "** ** ** ** ** ** 11 11" },
        { "4 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1", "* * * * * * * * * * * * 1 1 1 1" },
        { "3782 822463 10005", "**** ****** *0005" },
        { "9111 1111 1111 1169", "**** **** **** 1169" },
        { "\xef\xbc\x94" "111 1111 1111 1111", "\xef\xbc\x8a*** **** **** 1111" },
        { "Exp 12/27 4111 1111 1111 1111 99", "Exp 12/27 **** **** **** 1111 99" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) masks(RV_SENSITIVE_NOT, cases[i][0], cases[i][1]);
}

/* All of these, without their separators, are 13 to 19 digits that pass Luhn. */
static void what_only_looks_like_a_card_number_stays_readable(void **state) {
    static const char *const texts[] = {
        "45.00 54.95 32.50 26.25", "1100, 2100, 3150, 4915", "1,297.50 2,318.75 3,147.00", "01/01/2023 15/08/2024", "2023-01-15 to 2024-05-20",
        "2023-09-14 2024-07-21", "24/12/23 25/12/23 26/12/23", "10:15 10:20 10:25 19:37", "2021 2022 2023 2014", "0412 354 261 0413 119",
        "(02) 9374 4719 9374", "9374 4488, 9374 4946", "51824753556 2054", "51 824 753 556 26.70 45.50", "12, 24, 36, 48, 12, 24, 35, 49",
        "20240305_101162", "20240305_123456759",
    };
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) masks(RV_SENSITIVE_NOT, texts[i], texts[i]);
    masks(RV_SENSITIVE_FILE, "1699999999947.jpg", "1699999999947.jpg");      /* a camera's milliseconds */
    masks(RV_SENSITIVE_FILE, "scans/4111111111111111.jpg", "scans/************1111.jpg");
}

static void a_field_that_holds_a_number_shows_its_last_digits_only(void **state) {
    (void)state;
    masks(RV_SENSITIVE_TFN, "123 456 789", "*** *** 789");
    masks(RV_SENSITIVE_TFN, "123 456 782 01", "*** *** **2 01");
    masks(RV_SENSITIVE_TFN, "123/456/782", "***/***/782");
    masks(RV_SENSITIVE_TFN, "782", "782");
    masks(RV_SENSITIVE_CARD, "4111 1111 1111 1112", "**** **** **** 1112");
    masks(RV_SENSITIVE_CARD, "XXXX-XXXX-XXXX-2707", "XXXX-XXXX-XXXX-2707");
    masks(RV_SENSITIVE_ACCOUNT, "062-000 1234 5678", "***-*** **** *678");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(money_is_read_in_cents_however_it_is_written),
        cmocka_unit_test(what_is_no_amount_is_kept_and_marked),
        cmocka_unit_test(quantities_need_a_digit_and_nothing_more),
        cmocka_unit_test(dates_are_day_first_and_say_when_they_could_be_otherwise),
        cmocka_unit_test(two_digit_years_turn_on_the_year_after_today),
        cmocka_unit_test(periods_are_read_with_all_their_dashes),
        cmocka_unit_test(official_numbers_pass_their_checks),
        cmocka_unit_test(texts_are_tidied_and_keep_their_raw_form),
        cmocka_unit_test(every_way_to_say_nothing_is_absent),
        cmocka_unit_test(a_choice_that_says_nothing_is_a_choice),
        cmocka_unit_test(numbers_that_must_not_be_kept_are_masked_in_place),
        cmocka_unit_test(digits_beside_a_tax_file_number_do_not_hide_it),
        cmocka_unit_test(card_numbers_are_found_however_they_are_grouped),
        cmocka_unit_test(what_only_looks_like_a_card_number_stays_readable),
        cmocka_unit_test(a_field_that_holds_a_number_shows_its_last_digits_only),
    };
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    rv_pool_free(&pool);
    return failed;
}
