/* Checks: what is found, what is not, and that nothing is changed. */
#include "tests/extract/records.h"

#include "extract/balance.h"
#include "extract/expr.h"

#define GOOD_INVOICE                                                                                                                                      \
    "DOCUMENT_TYPE: INVOICE\nTAX_INVOICE_WORDS: true\nSUPPLIER_NAME: Acme Pty Ltd\nBUSINESS_ABN: 51 824 753 556\nINVOICE_DATE: 20/03/2024\n"              \
    "LINE_ITEM_DESCRIPTIONS: Desk | Chair\nLINE_ITEM_QUANTITIES: 1 | 2\nLINE_ITEM_PRICES: $300.00 | $100.00\nLINE_ITEM_TOTAL_PRICES: $300.00 | $200.00\n" \
    "LINE_ITEM_GST_AMOUNTS: NOT_FOUND\nDUE_DATE: NOT_FOUND\n" \
    "SUBTOTAL_AMOUNT: $500.00\nGST_AMOUNT: $50.00\nPRICES_INCLUDE_GST: false\nTOTAL_AMOUNT: $550.00\n"

static void a_good_tax_invoice_has_no_findings(void **state) {
    rv_schema *s = schema_of("tax_invoice");
    rv_record *r = checked(s, GOOD_INVOICE);
    (void)state;
    for (uint32_t i = 0; i < r->n_findings; i++) print_error("%s: %s\n", r->findings[i].id, r->findings[i].message);
    assert_int_equal(r->n_findings, 0);
    assert_true(r->compliance.score >= 99.999);
    assert_int_equal(r->compliance.tax_invoice_valid, RV_YES);
    assert_int_equal(r->compliance.gst_credit_claimable, RV_YES);
    assert_int_equal(r->compliance.deduction_evidence, RV_YES);
    assert_int_equal(r->compliance.gst_class, RV_GST_FULLY_TAXABLE);
    assert_false(r->compliance.needs_review);
    rv_record_free(r);
    rv_schema_free(s);
}

/* The good invoice with a line replaced, or (to NULL) left out. */
static rv_record *spoilt(const rv_schema *s, const char *key, const char *to) {
    char text[2048] = "";
    for (const char *line = GOOD_INVOICE; *line;) {
        const char *end = strchr(line, '\n');
        size_t n = strlen(key);
        if (strncmp(line, key, n) == 0 && line[n] == ':') {
            if (to) snprintf(text + strlen(text), sizeof text - strlen(text), "%s: %s\n", key, to);
        } else strncat(text, line, (size_t)(end - line) + 1);
        line = end + 1;
    }
    if (to && !strstr(text, key)) snprintf(text + strlen(text), sizeof text - strlen(text), "%s: %s\n", key, to);
    return checked(s, text);
}

static void every_fault_has_its_finding(void **state) {
    static const struct { const char *key, *to, *id; rv_tristate valid; } cases[] = {
        { "BUSINESS_ABN", "51 824 753 557", "format.abn", RV_NO },
        { "BUSINESS_ABN", NULL, "tax_invoice.abn", RV_NO },
        { "BUSINESS_ABN", NULL, "required", RV_NO },
        { "BUSINESS_ABN", NULL, "abn.withholding", RV_NO },
        { "SUPPLIER_NAME", NULL, "tax_invoice.seller", RV_NO },
        { "INVOICE_DATE", NULL, "tax_invoice.date", RV_NO },
        { "INVOICE_DATE", "01/07/2024", "date.ambiguous", RV_YES },
        { "INVOICE_DATE", "02/07/2024", "date.future", RV_YES },
        { "INVOICE_DATE", "20/03/2014", "date.old", RV_YES },
        { "DUE_DATE", "19/03/2024", "date.order", RV_YES },
        { "TAX_INVOICE_WORDS", "false", "tax_invoice.words", RV_NO },
        { "GST_AMOUNT", NULL, "tax_invoice.gst", RV_NO },
        { "GST_AMOUNT", "$60.00", "gst.range", RV_NO },
        { "GST_AMOUNT", "$49.00", "gst.exclusive", RV_UNKNOWN },
        { "GST_AMOUNT", "-$1.00", "gst.range", RV_NO },
        { "TOTAL_AMOUNT", "$555.00", "total.sum", RV_UNKNOWN },
        { "LINE_ITEM_TOTAL_PRICES", "$300.00 | $260.00", "lines.sum", RV_YES },
        { "TOTAL_AMOUNT", "$5,550.00", "tax_invoice.buyer", RV_NO },
        { "TOTAL_AMOUNT", "S550", "format.money", RV_UNKNOWN },
        { "LINE_ITEM_TOTAL_PRICES", "$300.00 | $250.00", "line.product", RV_YES },
        { "LINE_ITEM_QUANTITIES", "1", "list.aligned", RV_YES },
        { "LINE_ITEM_DESCRIPTIONS", NULL, "tax_invoice.goods", RV_NO },
        { "LINE_ITEM_DESCRIPTIONS", NULL, "deduction.goods", RV_NO },
        { "PAYER_ABN", "51 824 753 556", "abn.parties", RV_YES },
        { "BUSINESS_ACN", "004 085 616", "abn.acn_match", RV_YES },
        { "BUSINESS_ADDRESS", "1 High St Sydney NSW 3000", "postcode.supplier", RV_YES },
        { "BALANCE_OF_PAYMENT", "$100.00", NULL, RV_YES },
    };
    rv_schema *s = schema_of("tax_invoice");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_record *r = spoilt(s, cases[i].key, cases[i].to);
        if (cases[i].id && !finding(r, cases[i].id))
            fail_msg("%s %s: no finding %s", cases[i].key, cases[i].to ? cases[i].to : "left out", cases[i].id);
        if (!cases[i].id && r->n_findings) fail_msg("%s %s: finding %s", cases[i].key, cases[i].to, r->findings[0].id);
        if (r->compliance.tax_invoice_valid != cases[i].valid)
            fail_msg("%s %s: tax_invoice_valid is %d", cases[i].key, cases[i].to ? cases[i].to : "left out",
                     (int)r->compliance.tax_invoice_valid);
        rv_record_free(r);
    }
    rv_schema_free(s);
}

static void a_date_of_more_than_seven_years_ago_is_a_warning(void **state) {
    rv_schema *s = schema_of("tax_invoice");
    rv_record *r = spoilt(s, "INVOICE_DATE", "20/03/2014");
    (void)state;
    assert_int_equal(finding(r, "date.old")->severity, RV_SEVERITY_WARNING);
    rv_record_free(r);
    rv_schema_free(s);
}

static void findings_say_what_was_expected_and_recommend(void **state) {
    rv_schema *s = schema_of("tax_invoice");
    rv_record *r = spoilt(s, "GST_AMOUNT", "$60.00");
    const rv_finding *f = finding(r, "gst.range");
    (void)state;
    assert_string_equal(f->expected, "$50.00");
    assert_string_equal(f->actual, "$60.00");
    assert_int_equal(f->severity, RV_SEVERITY_ERROR);
    assert_non_null(strstr(f->source, "GST Act"));
    assert_true(r->compliance.needs_review);
    assert_int_equal(r->compliance.gst_class, RV_GST_IMPOSSIBLE);
    assert_string_equal(text_of(r, "GST_AMOUNT"), "$60.00");           /* nothing is changed */
    rv_record_free(r);
    r = spoilt(s, "BUSINESS_ABN", NULL);
    assert_true(r->compliance.n_recommendations > 0);
    assert_string_equal(r->compliance.recommendations[0], "Ask the supplier for a tax invoice showing their ABN: the sale is over $82.50.");
    rv_record_free(r);
    rv_schema_free(s);
}

static void gst_of_mixed_supplies_is_no_fault(void **state) {
    static const struct { const char *total, *gst; rv_gst_class class; bool finding;
    } cases[] = {
        { "$11.00", "$1.00", RV_GST_FULLY_TAXABLE, false },   { "$11.05", "$1.01", RV_GST_FULLY_TAXABLE, false },
        { "$94.87", "$2.15", RV_GST_MIXED, false },           { "$94.87", "$0.00", RV_GST_FREE, false },
        { "$94.87", "NOT_FOUND", RV_GST_NOT_SHOWN, false },   { "$94.87", "$9.49", RV_GST_IMPOSSIBLE, true },
        { "-$11.00", "-$1.00", RV_GST_FULLY_TAXABLE, false },  { "-$110.00", "$10.00", RV_GST_FULLY_TAXABLE, false },
        { "-$110.00", "$10.02", RV_GST_IMPOSSIBLE, true },     { "-$110.00", "-$10.02", RV_GST_IMPOSSIBLE, true },
        { "$110.00\nLINE_ITEM_DESCRIPTIONS: a", "$10.01", RV_GST_FULLY_TAXABLE, false },
        { "$110.00\nLINE_ITEM_DESCRIPTIONS: a", "$10.02", RV_GST_IMPOSSIBLE, true },
        { "$110.00\nLINE_ITEM_DESCRIPTIONS: a | b", "$10.02", RV_GST_FULLY_TAXABLE, false },
    };
    rv_schema *s = schema_of("receipt");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text, "SUPPLIER_NAME: A\nINVOICE_DATE: 20/03/2024\nTOTAL_AMOUNT: %s\nGST_AMOUNT: %s", cases[i].total,
                 cases[i].gst);
        rv_record *r = checked(s, text);
        if (r->compliance.gst_class != cases[i].class || (finding(r, "gst.range") != NULL) != cases[i].finding)
            fail_msg("%s, %s: %s", cases[i].total, cases[i].gst, rv_gst_class_name(r->compliance.gst_class));
        rv_record_free(r);
    }
    rv_schema_free(s);
}

static void cash_is_rounded_and_cards_are_not(void **state) {
    static const struct { const char *text, *id; } cases[] = {
        { "TOTAL_AMOUNT: $9.98\nTOTAL_AMOUNT_PAID: $10.00\nPAYMENT_METHOD: CASH", NULL },
        { "TOTAL_AMOUNT: $9.98\nTOTAL_AMOUNT_PAID: $20.00\nPAYMENT_METHOD: Cash", NULL },
        { "TOTAL_AMOUNT: $9.98\nTOTAL_AMOUNT_PAID: $9.90\nPAYMENT_METHOD: CASH", "paid.cash" },
        { "TOTAL_AMOUNT: $9.98\nTOTAL_AMOUNT_PAID: $10.00\nPAYMENT_METHOD: VISA", "paid.card" },
        { "TOTAL_AMOUNT: $9.98\nTOTAL_AMOUNT_PAID: $9.98\nPAYMENT_METHOD: VISA", NULL },
        { "TOTAL_AMOUNT: $20.02\nTOTAL_AMOUNT_PAID: $15.00\nPAYMENT_METHOD: VISA\nROUNDING_AMOUNT: $0.00", "paid.card" },
        { "TOTAL_AMOUNT: $20.02\nTOTAL_AMOUNT_PAID: $15.00\nPAYMENT_METHOD: VISA\nROUNDING_AMOUNT: -$0.02", "paid.card" },
        { "TOTAL_AMOUNT: $20.02\nTOTAL_AMOUNT_PAID: $20.00\nROUNDING_AMOUNT: -$0.02", NULL },
        { "TOTAL_AMOUNT: $20.02\nTOTAL_AMOUNT_PAID: $15.00", "paid.card" },
        { "TOTAL_AMOUNT: $20.02\nTOTAL_AMOUNT_PAID: $20.00\nPAYMENT_METHOD: Cashless - Visa", "paid.card" },
        { "SUBTOTAL_AMOUNT: $9.98\nROUNDING_AMOUNT: $0.02\nTOTAL_AMOUNT: $10.00\nTOTAL_AMOUNT_PAID: $10.00\nPAYMENT_METHOD: CASH", NULL },
        { "TOTAL_AMOUNT: $10.00\nROUNDING_AMOUNT: $0.03", "rounding.size" },
    };
    rv_schema *s = schema_of("receipt");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_record *r = checked(s, cases[i].text);
        static const char *const ids[] = { "paid.cash", "paid.card", "rounding.size", "total.sum" };
        for (int k = 0; k < 4; k++)
            if ((finding(r, ids[k]) != NULL) != (cases[i].id && strcmp(cases[i].id, ids[k]) == 0)) fail_msg("%s: %s", cases[i].text, ids[k]);
        rv_record_free(r);
    }
    rv_schema_free(s);
}

static void tax_invoices_without_gst_with_too_much_or_with_unmarked_lines_are_no_valid_ones(void **state) {
    static const struct { const char *text; rv_tristate valid; } cases[] = {
        { "GST_AMOUNT: $109.09\nPAYER_NAME: B", RV_YES },
        { "GST_AMOUNT: $0.00\nPAYER_NAME: B", RV_UNKNOWN },                /* nothing to claim */
        { "GST_AMOUNT: $0.00", RV_UNKNOWN },
        { "GST_AMOUNT: $500.00\nPAYER_NAME: B", RV_NO },
        { "GST_AMOUNT: $50.00\nPAYER_NAME: B", RV_UNKNOWN },               /* mixed: which line is taxable? */
        { "GST_AMOUNT: $50.00\nPAYER_NAME: B\nLINE_ITEM_GST_AMOUNTS: $50.00 | $0.00", RV_YES },
        { "GST_AMOUNT: $50.00\nPAYER_NAME: B\nLINE_ITEM_DESCRIPTIONS: * Desk | Rice", RV_YES },
    };
    rv_schema *s = schema_of("tax_invoice");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[400];
        snprintf(text, sizeof text, "TAX_INVOICE_WORDS: true\nSUPPLIER_NAME: A\nBUSINESS_ABN: 51 824 753 556\nINVOICE_DATE: 20/03/2024\n%sTOTAL_AMOUNT: $1,200.00\n%s\n",
                 strstr(cases[i].text, "DESCRIPTIONS") ? "" : "LINE_ITEM_DESCRIPTIONS: Desk | Rice\n", cases[i].text);
        rv_record *r = checked(s, text);
        if (r->compliance.tax_invoice_valid != cases[i].valid || r->compliance.gst_credit_claimable != cases[i].valid)
            fail_msg("%s: %d, %d", cases[i].text, (int)r->compliance.tax_invoice_valid, (int)r->compliance.gst_credit_claimable);
        if (finding(r, "tax_invoice.buyer")) fail_msg("%s: tax_invoice.buyer", cases[i].text);
        rv_record_free(r);
    }
    rv_schema_free(s);
}

static void an_invoice_below_82_50_needs_no_tax_invoice(void **state) {
    rv_schema *s = schema_of("receipt");
    rv_record *r = checked(s, "SUPPLIER_NAME: A\nINVOICE_DATE: 20/03/2024\nTOTAL_AMOUNT: $82.50");
    (void)state;
    assert_int_equal(r->compliance.tax_invoice_valid, RV_UNKNOWN);
    rv_record_free(r);
    r = checked(s, "SUPPLIER_NAME: A\nINVOICE_DATE: 20/03/2024\nTOTAL_AMOUNT: $82.51");
    assert_int_equal(r->compliance.tax_invoice_valid, RV_NO);
    rv_record_free(r);
    r = checked(s, "SUPPLIER_NAME: A\nINVOICE_DATE: 20/03/1999\nTOTAL_AMOUNT: $82.51");        /* before there was a GST */
    assert_int_equal(r->compliance.tax_invoice_valid, RV_UNKNOWN);
    assert_null(strstr(r->compliance.rules, "au-gst"));
    rv_record_free(r);
    rv_schema_free(s);
}

static void the_words_may_stand_on_the_page(void **state) {
    rv_schema *s = schema_of("receipt_14");
    rv_record_options options = { .size = sizeof options, .page_text = "ACME\nTAX INVOICE\nABN 82 138 594 886\nTotal includes GST" };
    rv_record *r;
    rv_error err;
    (void)state;
    assert_int_equal(rv_record_new(s, &options, &r, &err), RV_OK);
    assert_int_equal(rv_record_put(r, "ABN", "82 138 594 836", 14, "free", &err), RV_OK);
    assert_int_equal(rv_record_check(r, &err), RV_OK);
    assert_non_null(finding(r, "format.abn"));
    assert_string_equal(finding(r, "format.abn")->suggestion, "Is it 82 138 594 886, which stands on the page?");
    assert_non_null(strstr(r->compliance.rules, "au-gst@2000-07-01"));       /* without any date, today's rules hold */
    rv_record_free(r);
    rv_schema_free(s);
}

static void one_certain_date_settles_the_order_of_the_others(void **state) {
    rv_schema *s = schema_of("tax_invoice");
    rv_record *r = checked(s, "INVOICE_DATE: 05/03/2024\nDUE_DATE: 19/03/2024");
    (void)state;
    assert_null(finding(r, "date.ambiguous"));
    assert_int_equal(rv_record_value(r, "INVOICE_DATE")->date_by, RV_DATE_BY_DOCUMENT);
    rv_record_free(r);
    r = checked(s, "INVOICE_DATE: 05/03/2024\nDUE_DATE: 05/19/2024");
    assert_non_null(finding(r, "date.ambiguous"));
    assert_string_equal(finding(r, "date.month_first")->suggestion, "Is it 03/05/2024?");
    assert_string_equal(text_of(r, "INVOICE_DATE"), "05/03/2024");
    rv_record_free(r);
    rv_schema_free(s);
}

static void letters_read_for_digits_are_suggested_not_repaired(void **state) {
    static const struct { const char *key, *text, *id, *suggestion;
    } cases[] = {
        { "TOTAL_AMOUNT", "S12.00", "format.money", "Is it $12.00, a digit read as a letter?" },
        { "TOTAL_AMOUNT", "$l2.0O", "format.money", "Is it $12.00, a digit read as a letter?" },
        { "INVOICE_DATE", "O5/l3/2024", "format.date", "Is it 13/05/2024, a digit read as a letter?" },
        { "BUSINESS_ABN", "5l 824 753 556", "format.abn", "Is it 51 824 753 556, a digit read as a letter?" },
        { "TOTAL_AMOUNT", "about ten", "format.money", "" },
    };
    rv_schema *s = schema_of("receipt");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[100];
        snprintf(text, sizeof text, "%s: %s", cases[i].key, cases[i].text);
        rv_record *r = checked(s, text);
        const rv_finding *f = finding(r, cases[i].id);
        if (!f || strcmp(f->suggestion, cases[i].suggestion)) fail_msg("%s: \"%s\"", text, f ? f->suggestion : "no finding");
        assert_string_equal(text_of(r, cases[i].key), cases[i].text);
        rv_record_free(r);
    }
    rv_schema_free(s);
}

#define STATEMENT                                                                                                                                                     \
    "STATEMENT_DATE_RANGE: 15/12/2023 - 14/01/2024\nACCOUNT_OPENING_BALANCE: $100.00\nACCOUNT_CLOSING_BALANCE: $120.00\nTRANSACTION_DATES: 20 Dec | 24 Dec | 2 Jan\n" \
    "TRANSACTION_DESCRIPTIONS: a | b | c\nTRANSACTION_AMOUNTS_PAID: $30.00 | NOT_FOUND | $50.00\nTRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND | $100.00 | NOT_FOUND\n"

static void balances_follow_from_their_rows(void **state) {
    rv_schema *s = schema_of("bank_statement");
    rv_record *r = checked(s, STATEMENT "TRANSACTION_BALANCES: $70.00 | $170.00 | $120.00");
    (void)state;
    rv_chain chain = rv_balance_chain(r);
    assert_int_equal(chain.checked, 3);
    assert_int_equal(chain.breaks, 0);
    assert_null(finding(r, "balance.chain"));
    assert_null(finding(r, "balance.total"));
    assert_null(finding(r, "period.covers"));                          /* 2 Jan is of 2024 */
    rv_record_free(r);
    r = checked(s, "STATEMENT_DATE_RANGE: 01/01/2024 - 31/01/2024\nACCOUNT_OPENING_BALANCE: $100.00\nACCOUNT_CLOSING_BALANCE: $20.00\n"
                   "TOTAL_DEBITS: $80.00\nTRANSACTION_DATES: 2 Jan | 3 Jan\nTRANSACTION_AMOUNTS_PAID: -$30.00 | -$50.00\n"
                   "TRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND\nTRANSACTION_BALANCES: $70.00 | $20.00");
    assert_int_equal(r->n_findings, 0);                                /* debits may have a sign, and a page no credits */
    rv_record_free(r);
    r = checked(s, "ACCOUNT_OPENING_BALANCE: $100.00\nACCOUNT_CLOSING_BALANCE: $25.00\nTRANSACTION_AMOUNTS_PAID: $30.00 | $50.00\n"
                   "TRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND");
    assert_string_equal(finding(r, "balance.total")->actual, "$20.00");
    rv_record_free(r);
    r = checked(s, STATEMENT "TRANSACTION_BALANCES: $70.00 | $160.00 | $120.00");
    assert_int_equal(rv_balance_chain(r).breaks, 2);
    assert_non_null(finding(r, "balance.chain"));
    const rv_finding *row = finding(r, "balance.row");
    assert_int_equal(row->row, 1);
    assert_string_equal(row->expected, "$170.00");
    assert_string_equal(row->actual, "$160.00");
    rv_record_free(r);
    r = checked(
        s,
        "TRANSACTION_DATES: 2 Jan | 24 Dec | 20 Dec\nTRANSACTION_AMOUNTS_PAID: $50.00 | NOT_FOUND | $30.00\nTRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND | $100.00 | NOT_FOUND\n"
        "TRANSACTION_BALANCES: $120.00 | $170.00 | $70.00");
    chain = rv_balance_chain(r);
    assert_true(chain.newest_first);
    assert_int_equal(chain.checked, 2);
    assert_int_equal(chain.breaks, 0);
    rv_record_free(r);
    rv_schema_free(s);
}

static void what_is_owed_on_a_card_grows_by_what_is_paid_with_it(void **state) {
    rv_schema *s = schema_of("bank_statement");
    rv_record *r = checked(s, "ACCOUNT_OPENING_BALANCE: $500.00\nTRANSACTION_AMOUNTS_PAID: $200.00 | NOT_FOUND\nTRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND | $300.00\n"
                              "TRANSACTION_BALANCES: $700.00 | $400.00");
    (void)state;
    rv_chain chain = rv_balance_chain(r);
    assert_true(chain.owed && chain.checked == 2 && chain.breaks == 0);
    assert_null(finding(r, "balance.chain"));
    assert_null(finding(r, "balance.row"));
    rv_record_free(r);
    r = checked(s, "ACCOUNT_OPENING_BALANCE: $500.00\nTRANSACTION_AMOUNTS_PAID: $200.00 | NOT_FOUND | $50.00\n"
                   "TRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND | $300.00 | NOT_FOUND\nTRANSACTION_BALANCES: $700.00 | $400.00 | $350.00");
    assert_non_null(finding(r, "balance.chain"));                      /* two rows one way and one the other */
    rv_record_free(r);
    r = checked(s, "ACCOUNT_OPENING_BALANCE: $500.00\nTRANSACTION_AMOUNTS_PAID: $200.00\nTRANSACTION_AMOUNTS_RECEIVED: NOT_FOUND\nTRANSACTION_BALANCES: $700.00");
    assert_non_null(finding(r, "balance.chain"));                      /* one row says nothing about the others */
    rv_record_free(r);
    rv_schema_free(s);
}

static void days_without_a_year_take_the_one_of_the_period_that_has_them(void **state) {
    static const struct { const char *period, *days; bool outside;
    } cases[] = {
        { "15/01/2023 - 14/01/2024", "20 Jan | 3 Mar | 10 Jan", false }, { "15/12/2023 - 14/01/2024", "20 Dec | 2 Jan", false },
        { "01/01/2023 - 31/03/2024", "29 Feb", false },                  { "01/02/2023 - 28/02/2023", "1 Feb | 29 Feb", false },
        { "01/02/2024 - 28/02/2024", "1 Feb | 29 Feb", true },           { "15/12/2023 - 14/01/2024", "20 Dec | 20 Jan", true },
    };
    rv_schema *s = schema_of("bank_statement");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char text[200];
        snprintf(text, sizeof text, "STATEMENT_DATE_RANGE: %s\nTRANSACTION_DATES: %s\nTRANSACTION_DESCRIPTIONS: a | b | c", cases[i].period, cases[i].days);
        rv_record *r = checked(s, text);
        if (!finding(r, "period.covers") == cases[i].outside) fail_msg("%s in %s", cases[i].days, cases[i].period);
        rv_record_free(r);
    }
    rv_schema_free(s);
}

static void amounts_of_another_currency_are_unknown_to_rules(void **state) {
    rv_schema *s = schema_of("receipt");
    rv_record *r = record_of(s, "TOTAL_AMOUNT: USD 90.00\nSUBTOTAL_AMOUNT: $80.00\nLINE_ITEM_TOTAL_PRICES: $1.00 | USD 2.00\nGST_AMOUNT: 8.00");
    static const char *const unknowns[] = { "TOTAL_AMOUNT > $82.50", "TOTAL_AMOUNT - SUBTOTAL_AMOUNT", "sum(LINE_ITEM_TOTAL_PRICES)", "or_zero(TOTAL_AMOUNT)" };
    rv_answer a;
    rv_error err;
    (void)state;
    for (size_t i = 0; i < sizeof unknowns / sizeof *unknowns; i++)
        if (rv_expr_run(r, unknowns[i], &a, &err) || a.known) fail_msg("%s", unknowns[i]);
    assert_true(rv_expr_run(r, "present(TOTAL_AMOUNT) and SUBTOTAL_AMOUNT + GST_AMOUNT = $88.00", &a, &err) == RV_OK && a.known && a.value);
    rv_record_free(r);
    rv_schema_free(s);
}

/* ---- expressions ----------------------------------------------------------------------------------- */

static void expressions_compute_with_integers_and_unknowns(void **state) {
    static const struct { const char *text; bool known; int64_t value;
    } cases[] = {
        { "1 + 2 * 3", true, 7 },
        { "(1 + 2) * 3", true, 9 },
        { "-2 - -3", true, 1 },
        { "7 / 2", true, 4 },
        { "-7 / 2", true, -4 },
        { "5 / 0", false, 0 },
        { "$82.50", true, 8250 },
        { "2c", true, 2 },
        { "gst_of($11.05)", true, 100 },
        { "gst_of($1.00)", true, 9 },
        { "abs(-5) + min(1, 2) + max(1, 2)", true, 8 },
        { "TOTAL_AMOUNT", true, 15239 },
        { "SUBTOTAL_AMOUNT", false, 0 },
        { "SUBTOTAL_AMOUNT > 1 or true", true, 1 },
        { "SUBTOTAL_AMOUNT > 1 and false", true, 0 },
        { "SUBTOTAL_AMOUNT > 1 and true", false, 0 },
        { "not SUBTOTAL_AMOUNT", false, 0 },
        { "or_zero(SUBTOTAL_AMOUNT)", true, 0 },
        { "sum(LINE_ITEM_TOTAL_PRICES)", true, 15239 },
        { "sum_product(LINE_ITEM_QUANTITIES, LINE_ITEM_PRICES)", false, 0 },
        { "count(LINE_ITEM_DESCRIPTIONS)", true, 3 },
        { "present(TOTAL_AMOUNT) and absent(SUBTOTAL_AMOUNT)", true, 1 },
        { "present(NO_SUCH_KEY)", false, 0 },
        { "absent(NO_SUCH_KEY)", true, 1 },
        { "is(DOCUMENT_TYPE, \"receipt\")", true, 1 },
        { "contains(SUPPLIER_NAME, \"ELECTRIC\")", true, 1 },
        { "words(\"x\")", false, 0 },
        { "lines()", true, 3 },
        { "today() - INVOICE_DATE", true, 102 },
        { "9223372036 * 9223372036", false, 0 },
        { "1 < 2 and 2 <= 2 and 3 != 4 and 5 = 5", true, 1 },
    };
    rv_schema *s = schema_of("receipt");
    rv_record *r = record_of(
        s,
        "DOCUMENT_TYPE: receipt\nSUPPLIER_NAME: Northern Electrical\nINVOICE_DATE: 20/03/2024\nLINE_ITEM_DESCRIPTIONS: a | b | c\nLINE_ITEM_TOTAL_PRICES: $11.77 | $137.80 | "
        "$2.82\nTOTAL_AMOUNT: $152.39");
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        rv_answer a;
        rv_error err;
        if (rv_expr_run(r, cases[i].text, &a, &err)) fail_msg("%s: %s", cases[i].text, err.message);
        if (a.known != cases[i].known || (a.known && a.value != cases[i].value))
            fail_msg("%s: %s %lld", cases[i].text, a.known ? "is" : "unknown", (long long)a.value);
    }
    rv_record_free(r);
    rv_schema_free(s);
}

static void expressions_that_make_no_sense_are_refused(void **state) {
    static const char *const cases[] = {
        "",       "1 +",           "(1",   "1 2",     "foo(A)", "TOTAL_AMOUNT >", "is(TOTAL_AMOUNT)", "is(TOTAL_AMOUNT, \"x)",
        "sum(1)", "9999999999999", "$1.5", "count()", "a = b"
    };
    char deep[300];
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        if (rv_expr_check(NULL, cases[i], false, NULL) != RV_ERR_FORMAT) fail_msg("\"%s\" compiles", cases[i]);
    memset(deep, '(', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    assert_int_equal(rv_expr_check(NULL, deep, false, NULL), RV_ERR_FORMAT);
    memset(deep, '-', sizeof deep - 1);
    assert_int_equal(rv_expr_check(NULL, deep, false, NULL), RV_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_tax_invoice_has_no_findings),
        cmocka_unit_test(every_fault_has_its_finding),
        cmocka_unit_test(a_date_of_more_than_seven_years_ago_is_a_warning),
        cmocka_unit_test(findings_say_what_was_expected_and_recommend),
        cmocka_unit_test(gst_of_mixed_supplies_is_no_fault),
        cmocka_unit_test(cash_is_rounded_and_cards_are_not),
        cmocka_unit_test(tax_invoices_without_gst_with_too_much_or_with_unmarked_lines_are_no_valid_ones),
        cmocka_unit_test(an_invoice_below_82_50_needs_no_tax_invoice),
        cmocka_unit_test(the_words_may_stand_on_the_page),
        cmocka_unit_test(one_certain_date_settles_the_order_of_the_others),
        cmocka_unit_test(letters_read_for_digits_are_suggested_not_repaired),
        cmocka_unit_test(balances_follow_from_their_rows),
        cmocka_unit_test(what_is_owed_on_a_card_grows_by_what_is_paid_with_it),
        cmocka_unit_test(days_without_a_year_take_the_one_of_the_period_that_has_them),
        cmocka_unit_test(amounts_of_another_currency_are_unknown_to_rules),
        cmocka_unit_test(expressions_compute_with_integers_and_unknowns),
        cmocka_unit_test(expressions_that_make_no_sense_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
