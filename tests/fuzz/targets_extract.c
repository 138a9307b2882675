/* targets_extract.c - what documents and their readers say: a model's answers, files of fields, schemas and rules, forms of answers. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/rvconstraint.h"
#include "engine/rvextract.h"
#include "extract/check.h"
#include "extract/record.h"
#include "tests/fuzz/target.h"

static const rv_schema *built_in(unsigned which) {
    static const char *const names[] = { "receipt", "universal", "bank_statement", "tax_invoice", "travel", "logbook", "sroie", "demo_receipt" };
    static rv_schema *open[8];
    rv_error err;
    which %= 8;
    if (!open[which] && rv_schema_open(names[which], &open[which], &err)) fuzz_broken(names[which], err.message);
    return open[which];
}

/* ---- what is written about a record ---- */

static void judge_utf8(const char *text, size_t bytes) {
    FUZZ_HOLDS(strlen(text) == bytes);
    for (size_t i = 0; i < bytes;) {
        utf8proc_int32_t c;
        const utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text + i, (utf8proc_ssize_t)(bytes - i), &c);
        FUZZ_HOLDS(n > 0);
        if (c < 0x20 && c != '\n') fuzz_broken("a report holds a control character", text);
        i += (size_t)n;
    }
}

static char *write_form(const rv_record *record, rv_form form) {
    char *text;
    size_t bytes;
    rv_error err;
    rv_status st = rv_record_write(record, form, NULL, &text, &bytes, &err);
    if (st) fuzz_broken("a record cannot be written", err.message);
    if (form != RV_FORM_CSV) judge_utf8(text, bytes);            /* whose lines end as RFC 4180 has them */
    return text;
}

/* Each key is there once, on a line of its own, in order. */
static void judge_lines(const rv_schema *schema, const char *text) {
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        const size_t key = strlen(schema->fields[i].key), line = strcspn(text, "\n");
        if (strncmp(text, schema->fields[i].key, key) || strncmp(text + key, ": ", 2)) fuzz_broken("a key is missing", text);
        text += line + (text[line] == '\n');
    }
    FUZZ_HOLDS(*text == '\0');
}

static void judge_written(const rv_schema *schema, rv_record *record, rv_form form) {
    rv_error err;
    rv_summary summary = { .size = sizeof summary };
    rv_status st = rv_record_check(record, &err);
    if (st) fuzz_broken("a record cannot be checked", err.message);
    char *text = write_form(record, form);
    if (form == RV_FORM_JSON || form == RV_FORM_JSONL) {
        json_t *root = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
        FUZZ_HOLDS(root && json_object_size(json_object_get(root, "fields")) == schema->n_fields);
        json_decref(root);
    }
    if (form == RV_FORM_KV) judge_lines(schema, text);
    if (form == RV_FORM_HTML && strstr(text, "<script")) fuzz_broken("a page for review has a script", text);
    rv_text_free(text);
    FUZZ_HOLDS(!rv_record_get_summary(record, &summary, &err) && summary.errors + summary.warnings <= summary.findings && summary.score <= 100);
}

static rv_record *parsed(const rv_schema *schema, const char *text, size_t bytes, const char *page) {
    const rv_record_options options = { .size = sizeof options, .file = "page.jpg", .today = "2024-06-30", .page_text = page };
    rv_record *record;
    rv_error err;
    if (rv_record_new(schema, &options, &record, &err)) fuzz_broken("a record", err.message);
    const rv_status st = rv_record_parse(record, text, bytes, "free", NULL, &err);
    if (st) {
        FUZZ_HOLDS(st == RV_ERR_TOO_LONG);
        fuzz_error(st, &err);
    }
    return record;
}

/* No value holds a whole card number, nor a tax file number that is called one. */
static void judge_private(const rv_record *record) {
    for (uint32_t i = 0; i < record->schema->n_fields; i++)
        for (uint32_t k = 0; k < record->slots[i].n_items; k++) {
            const char *text = record->slots[i].items[k].text;
            uint32_t masked = 0;
            char *safe = rv_mask(text, strlen(text), RV_SENSITIVE_NOT, &masked);
            FUZZ_HOLDS(safe != NULL);
            if (masked) fuzz_broken("a number that should be masked was kept", text);
            free(safe);
        }
}

/* The first byte chooses schema and report; the rest is what a model said. */
void fuzz_answer(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return;
    const rv_schema *schema = built_in(data[0]);
    char *exact = (char *)fuzz_exact(data + 1, bytes - 1);
    rv_record *record = parsed(schema, exact, bytes - 1, data[0] & 64 ? "TAX INVOICE ABN 51 824 753 556 TOTAL $45.20" : NULL);
    judge_written(schema, record, (rv_form)(data[0] / 8 % 6));
    judge_private(record);
    rv_record_free(record);
    free(exact);
}

/* ---- files of fields ---- */

static int32_t judge_document(void *user, rv_record *record) {
    int *left = user;
    if (*left > 0) judge_written(record->schema, record, (rv_form)(*left % 6));
    return --*left < -1000;
}

/* Read, looked through, and compared with itself: nothing can be better or worse. */
void fuzz_fields(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return;
    const rv_schema *schema = built_in(data[0]);
    const rv_run run = { "answers", (char *)fuzz_exact(data + 1, bytes - 1), bytes - 1 };
    const rv_eval_options options = { .size = sizeof options, .form = (rv_report_form)(data[0] / 8 % 4), .resamples = 2, .list_wrong = 3 };
    rv_error err;
    char *report = NULL;
    uint32_t problems;
    int left = 6;
    rv_status st = rv_records_read(schema, NULL, "x", run.text, run.bytes, judge_document, &left, &err);
    if (st && st != RV_ERR_CANCELLED) fuzz_error(st, &err);
    if ((st = rv_lint(schema, &run, options.form, &report, &problems, &err))) fuzz_error(st, &err);
    else if (options.form != RV_REPORT_CSV) judge_utf8(report, strlen(report));
    if (!st) rv_text_free(report);
    if ((st = rv_evaluate(schema, &run, &run, &run, &options, &report, &err))) fuzz_error(st, &err);
    else {
        if (options.form != RV_REPORT_CSV) judge_utf8(report, strlen(report));
        rv_text_free(report);
    }
    free((void *)(uintptr_t)run.text);
}

/* ---- schemas and rules ---- */

/* The first byte: even, a schema; odd, a file of rules. */
void fuzz_schema(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return;
    rv_schema *schema = NULL;
    rv_error err;
    char *exact = (char *)fuzz_exact(data + 1, bytes - 1);
    const rv_status st = data[0] & 1 ? rv_rules_check("my.json", exact, bytes - 1, &err) : rv_schema_parse("my.json", exact, bytes - 1, &schema, &err);
    if (st) {
        FUZZ_HOLDS(st == RV_ERR_FORMAT && strstr(err.message, "line "));
        fuzz_error(st, &err);
    }
    if (schema) {
        char *prompt = rv_schema_prompt(schema, -1);
        FUZZ_HOLDS(prompt && *prompt);
        free(prompt);
        static const char answer[] = "TOTAL_AMOUNT: $5.00\nSUPPLIER_NAME: aaaaaaaaaaaaaaaaaaaaaaab\nINVOICE_DATE: 5 March 2024";
        rv_record *record = parsed(schema, answer, sizeof answer - 1, "TOTAL $5.00");
        judge_written(schema, record, RV_FORM_JSONL);
        rv_record_free(record);
    }
    rv_schema_free(schema);
    free(exact);
}

/* ---- forms of answers: a request's JSON Schema, a key's pattern ---- */

static rv_tokenizer *words(void) {
    static rv_tokenizer *tokenizer;
    rv_error err;
    if (!tokenizer && rv_tokenizer_open(RV_TEST_DEMO "/model", &tokenizer, &err)) fuzz_broken("demo model", err.message);
    return tokenizer;
}

/* The first byte: even, a JSON Schema; odd, a regular expression. */
void fuzz_form(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return;
    rv_constraint *form;
    rv_error err;
    char *exact = (char *)fuzz_exact(data, bytes), *pattern = strndup((const char *)data + 1, bytes - 1);
    const rv_key key = { .size = sizeof key, .key = "TOTAL", .pattern = pattern, .max_items = 4, .list = data[0] & 2 ? 1 : 0 };
    FUZZ_HOLDS(pattern != NULL);
    const rv_status st = data[0] & 1 ? rv_constraint_keys(words(), &key, 1, &form, &err) : rv_constraint_json(words(), exact + 1, bytes - 1, &form, &err);
    if (st == RV_OK) {
        rv_constraint_info info = { .size = sizeof info };
        FUZZ_HOLDS(!rv_constraint_get_info(form, &info, &err) && info.states > 0 && info.classes > 0);
        rv_constraint_free(form);
    } else FUZZ_HOLDS(err.code == st && strlen(err.message) > 5 && st != RV_ERR_INTERNAL && st != RV_ERR_MEMORY);
    free(pattern);
    free(exact);
}
