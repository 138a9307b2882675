/* Mutated inputs: whatever a file or an answer holds, there is a result or an error, soon, and nothing else. Under the address
 * sanitizer this is a short fuzz run; RV_TEST_MUTATIONS=N in the environment makes it N rounds long. */
#include "tests/extract/records.h"

#include <jansson.h>

#include "extract/documents.h"
#include "extract/expr.h"

enum { ROUNDS = 1500, MOST = 8192 };

static long rounds(void) {
    const char *text = getenv("RV_TEST_MUTATIONS");
    return text ? atol(text) : ROUNDS;
}

/* Changes a few bytes, cuts, doubles or joins pieces; `words` are worth inserting. */
static size_t mutate(uint64_t *seed, char *text, size_t n, const char *const *words, size_t n_words) {
    for (uint64_t changes = 1 + draw(seed) % 6; changes; changes--) {
        size_t at = n ? draw(seed) % n : 0, length = n - at ? draw(seed) % (n - at) % 64 : 0;
        const char *word = words[draw(seed) % n_words];
        size_t bytes = strlen(word);
        switch (draw(seed) % 6) {
        case 0: if (n) text[at] = (char)draw(seed); break;
        case 1: memmove(text + at, text + at + length, n - at - length); n -= length; break;
        case 2:
            if (n + bytes < MOST) memmove(text + at + bytes, text + at, n - at), memcpy(text + at, word, bytes), n += bytes;
            break;
        case 3:
            if (n + length < MOST) memmove(text + at + length, text + at, n - at), n += length;
            break;
        case 4: if (draw(seed) % 8 == 0) n = at; break;
        default: if (n) text[at] = "\"{}[]:,|\n-\\$0."[draw(seed) % 14]; break;
        }
    }
    return n;
}

static const char *const words[] = {
    "TOTAL_AMOUNT: ", "KEY: ", "\n- ", " | ", "NOT_FOUND", "```json\n{", "\"total\": ", "[{\"description\": \"", "\\u00e9",
    "\\ud800", "$1,234.56", "99999999999999999999", "31/02/2024", "\xe2\x80\xae", "\xff\xfe",
    "4111 1111 1111 1111", "TFN 123 456 782", "<|eot_id|>", "true", "null", "\"$ref\": \"#/$defs/A\"", "\"x-kind\": ",
    "\"enum\": [\"a\"]", "{", "[", "(", "not ", "and ", "sum(", "GST_AMOUNT", "$82.50", "\"pattern\": \"(a+)+$\"",
    "the total was ", "balance_breaks()", "((((((((", "--------", "\r\n\r\n", "1 Dec - 5 Jan 2024",
};
enum { WORDS = sizeof words / sizeof *words };

static void free_answers_never_break_a_record(void **state) {
    static const char *const seeds[] = {
        "DOCUMENT_TYPE: RECEIPT\nSUPPLIER_NAME: Acme\nBUSINESS_ABN: 51 824 753 556\nINVOICE_DATE: 5 March 2024\nLINE_ITEM_DESCRIPTIONS: a | b\nLINE_ITEM_QUANTITIES: 1 | 2\n"
        "LINE_ITEM_TOTAL_PRICES: $1.00 | $2.00\nGST_AMOUNT: $0.27\nTOTAL_AMOUNT: $3.00\nPAYMENT_METHOD: CASH\nTOTAL_AMOUNT_PAID: $3.00",
        "```json\n{\"store\": \"Acme\", \"total\": 45.20, \"items\": [{\"description\": \"Milk\", \"quantity\": 2, \"total\": 3.00}, {\"description\": \"Bag\"}], \"supplier\": {\"abn\": \"51824753556\"}}\n```",
        "This is a receipt from Acme Pty Ltd dated 5 March 2024. GST of $4.11 was added and the total was $45.20.",
        "STATEMENT_DATE_RANGE: 1 Dec - 5 Jan 2024\nACCOUNT_OPENING_BALANCE: $100.00\nTRANSACTION_DATES: 2 Dec | 3 Dec\nTRANSACTION_AMOUNTS_PAID: $30.00 | NOT_FOUND\nTRANSACTION_AMOUNTS_RECEIVED: "
        "NOT_FOUND | $5.00\nTRANSACTION_BALANCES: $70.00 | $75.00",
    };
    rv_schema *schemas[] = { schema_of("receipt"), schema_of("universal"), schema_of("bank_statement"), schema_of("tax_invoice") };
    static char text[MOST + 1];
    uint64_t seed = 17;
    (void)state;
    for (long round = 0; round < rounds(); round++) {
        const char *from = seeds[draw(&seed) % 4];
        size_t n = strlen(from);
        memcpy(text, from, n);
        n = mutate(&seed, text, n, words, WORDS);
        text[n] = '\0';
        rv_record *r;
        rv_error err;
        rv_record_options options = { .size = sizeof options,
                                      .today = "2024-06-30",
                                      .page_text = round % 3 ? NULL : "TAX INVOICE 51 824 753 556" };
        if (rv_record_new(schemas[draw(&seed) % 4], &options, &r, &err)) fail_msg("%s", err.message);
        char *exact = malloc(n ? n : 1);                   /* so that the sanitizer sees a byte too many */
        memcpy(exact, text, n);
        if (rv_record_parse(r, exact, n, "free", NULL, &err) || rv_record_check(r, &err)) fail_msg("round %ld: %s", round, err.message);
        free(exact);
        char *json = written(r, RV_FORM_JSONL), *other = written(r, (rv_form)(round % 6));
        json_t *root = json_loads(json, JSON_REJECT_DUPLICATES, NULL);
        if (!root) fail_msg("round %ld: no JSON", round);
        json_decref(root);
        rv_text_free(json);
        rv_text_free(other);
        rv_record_free(r);
    }
    for (int i = 0; i < 4; i++) rv_schema_free(schemas[i]);
}

static void schema_and_rule_files_are_read_or_refused(void **state) {
    static char text[2 * MOST + 1];
    uint64_t seed = 23;
    long good = 0;
    (void)state;
    for (long round = 0; round < rounds(); round++) {
        const rv_data_file *file = &rv_data_files[draw(&seed) % rv_data_files_count];
        if (file->bytes > MOST / 2 || strstr(file->name, ".css")) continue;
        size_t n = file->bytes;
        memcpy(text, file->data, n);
        n = mutate(&seed, text, n, words, WORDS);
        text[n] = '\0';
        rv_schema *schema = NULL;
        rv_error err = { 0 };
        rv_status st = strncmp(file->name, "rules/", 6) ? rv_schema_parse(file->name, text, n, &schema, &err)
                                                        : rv_rules_check(file->name, text, n, &err);
        if (st != RV_OK && (st != RV_ERR_FORMAT || !strstr(err.message, "line "))) fail_msg("round %ld: %d, %s", round, st, err.message);
        good += st == RV_OK;
        if (schema) {
            rv_record *r = record_of(schema, "TOTAL_AMOUNT: $5.00\nSUPPLIER_NAME: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaab");
            if (rv_record_check(r, &err)) fail_msg("round %ld: %s", round, err.message);
            free(rv_schema_prompt(schema, -1));
            rv_record_free(r);
        }
        rv_schema_free(schema);
    }
    assert_true(good > 0);
}

static rv_status drop(void *user, rv_record *record, uint32_t line, rv_error *err) {
    (void)user, (void)line, (void)err;
    rv_record_free(record);
    return RV_OK;
}

static void files_of_fields_and_expressions_are_read_or_refused(void **state) {
    static const char *const seeds[] = {
        "file,TOTAL_AMOUNT,LINE_ITEM_DESCRIPTIONS\na.png,$5.00,\"x | y\"\nb.png,\"1,5\"\"\",z\n",
        "{\"file\":\"a.png\",\"fields\":{\"TOTAL_AMOUNT\":\"$5.00\",\"LINE_ITEM_DESCRIPTIONS\":[\"x\",null,3]}}\n{\"file\":\"b\",\"text\":\"TOTAL: 5\"}\n",
        "abs(SUBTOTAL_AMOUNT + or_zero(GST_AMOUNT) - TOTAL_AMOUNT) <= max(2c, lines() / 2 + 1) or not (present(GST_AMOUNT) and contains(PAYMENT_METHOD, \"cash\"))",
    };
    rv_schema *s = schema_of("receipt");
    rv_record_setup setup = { 0 };
    rv_document_reader reader = { .schema = s, .setup = &setup, .file = "x", .each = drop };
    static char text[MOST + 1];
    uint64_t seed = 29;
    rv_record *r = record_of(s, "TOTAL_AMOUNT: $5.00");
    (void)state;
    for (long round = 0; round < rounds(); round++) {
        const char *from = seeds[round % 3];
        size_t n = strlen(from);
        rv_error err;
        rv_answer answer;
        memcpy(text, from, n);
        n = mutate(&seed, text, n, words, WORDS);
        text[n] = '\0';
        rv_status st = round % 3 == 2 ? rv_expr_run(r, text, &answer, &err) : rv_documents_read(&reader, text, n, &err);
        if (st != RV_OK && st != RV_ERR_FORMAT && st != RV_ERR_TOO_LONG) fail_msg("round %ld: %d, %s", round, st, err.message);
    }
    rv_record_free(r);
    rv_schema_free(s);
}

static void inputs_of_one_kind_of_byte_take_no_long_time(void **state) {
    enum { MEGABYTE = 1 << 20 };
    char *text = malloc(MEGABYTE + 1);
    rv_schema *s = schema_of("universal");
    (void)state;
    static const char *const fills[] = { "{",       "[",    "\"",    ":",  "|",   "\n", "TOTAL: ",     "KEY: ",  "a:\n", "- x\n",
                                         "{\"a\":", "[{\"", "date ", "1 ", "$1 ", "\\", "PRODUCTS:\n", "total ", "<|" };
    for (size_t f = 0; f < sizeof fills / sizeof *fills; f++) {
        size_t n = strlen(fills[f]);
        for (size_t i = 0; i < MEGABYTE; i++) text[i] = fills[f][i % n];
        rv_record *r;
        rv_error err;
        if (rv_record_new(s, NULL, &r, &err)) fail_msg("%s", err.message);
        rv_status st = rv_record_parse(r, text, MEGABYTE / 32, "free", NULL, &err);
        if (st != RV_OK && st != RV_ERR_TOO_LONG) fail_msg("%s: %s", fills[f], err.message);
        rv_record_free(r);
    }
    free(text);
    rv_schema_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(free_answers_never_break_a_record),
        cmocka_unit_test(schema_and_rule_files_are_read_or_refused),
        cmocka_unit_test(files_of_fields_and_expressions_are_read_or_refused),
        cmocka_unit_test(inputs_of_one_kind_of_byte_take_no_long_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
