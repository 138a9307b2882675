/* targets_extract.c - what documents and their readers say: a model's answers, values, words on a page, rows of a statement, files of
 * fields, schemas and rules, forms of answers. */
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/rvconstraint.h"
#include "engine/rvextract.h"
#include "extract/check.h"
#include "extract/page.h"
#include "extract/statement.h"
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

/* ---- values ---- */

static void judge_valid(rv_pool *pool, const rv_value *v, const rv_value_context *context) {
    rv_value again;
    rv_value_read(pool, v->kind, v->text, strlen(v->text), context, &again);
    if (again.state != RV_VALUE_VALID || !rv_value_same(v, &again) || strcmp(v->text, again.text)) fuzz_broken("a normal form is read as another value", v->text);
    FUZZ_HOLDS(v->why == NULL && v->text[0]);
    if (v->kind == RV_KIND_DATE || v->kind == RV_KIND_DATE_RANGE) {
        FUZZ_HOLDS(rv_date_exists(v->first));
        if (v->first.year) FUZZ_HOLDS(!rv_date_compare(rv_date_of_days(rv_date_days(v->first)), v->first));
    }
    if (v->kind != RV_KIND_MONEY) return;
    char text[40];
    rv_money_text(v->number, v->currency, text);
    rv_value_read(pool, RV_KIND_MONEY, text, strlen(text), NULL, &again);
    if (again.state != RV_VALUE_VALID || again.number != v->number || strcmp(again.currency, v->currency)) fuzz_broken("an amount is written as another", text);
}

/* The first byte is the kind, the second what is known of the document; the rest is the text. */
void fuzz_value(const uint8_t *data, size_t bytes) {
    static const char *const choices[] = { "CASH", "EFTPOS", "BANK_TRANSFER" }, *const other_words[] = { "notes and coins", "debit card" };
    static const rv_texts aliases[] = { { other_words, 1 }, { other_words + 1, 1 }, { NULL, 0 } };
    if (bytes < 2) return;
    rv_value_context context = { .choices = { choices, 3 }, .choice_aliases = data[1] & 1 ? aliases : NULL };
    if (data[1] & 2) context.today = (rv_date){ 2024, 6, 30 };
    char *exact = (char *)fuzz_exact(data + 2, bytes - 2);
    rv_pool pool = { 0 };
    rv_value v;
    rv_value_read(&pool, (rv_value_kind)(data[0] % RV_KINDS), exact, bytes - 2, &context, &v);
    FUZZ_HOLDS(v.raw && v.text && !pool.failed);
    judge_utf8(v.text, strlen(v.text));
    if (v.state == RV_VALUE_VALID) judge_valid(&pool, &v, &context);
    else FUZZ_HOLDS((v.state == RV_VALUE_INVALID) == (v.why != NULL));

    uint32_t left;
    char *once = rv_mask(exact, bytes - 2, (rv_sensitivity)(data[1] / 4 % 4), NULL), *twice = once ? rv_mask(once, strlen(once), RV_SENSITIVE_NOT, &left) : NULL;
    FUZZ_HOLDS(twice != NULL);
    if (left) fuzz_broken("a number is still there when all were masked", once);
    free(once);
    free(twice);
    rv_pool_free(&pool);
    free(exact);
}

/* ---- pages without a model ---- */

enum { MOST_WORDS = 300 };               /* places are looked for from every word                */

/* Lines of words, as a recogniser gives them. */
static void put_words(rv_page *page, const char *text) {
    rv_error err;
    int32_t line = 0;
    for (float x = 0; *text && page->n_words < MOST_WORDS; x += 10) {
        const size_t n = strcspn(text, " \n");
        char *word = rv_tidy(&page->pool, text, n);
        FUZZ_HOLDS(word != NULL);
        if (*word && rv_page_add(page, word, (rv_box){ x, (float)line * 20, 9, 10 }, 0.9f, line, &err)) fuzz_broken("a word", err.message);
        text += n;
        if (*text == '\n') line++, x = 0;
        if (*text) text++;
    }
}

/* Whether a value stands on a page; "$29." and "70" are "$29.70" (page_total.c). */
static bool stands(const char *page, const char *raw) {
    for (; *page; page++) {
        const char *at = page, *of = raw;
        for (; *of && *at; at++) {
            if (*at == *of) of++;
            else if (*at != ' ' || of == raw || of[-1] != '.') break;
        }
        if (!*of) return true;
    }
    return false;
}

/* Nothing is made up: what a rule has read stands on the page, in one line. */
static void judge_from_page(const rv_record *record) {
    for (uint32_t i = 0; i < record->schema->n_fields; i++) {
        const rv_slot *slot = &record->slots[i];
        if (!slot->n_items || record->schema->fields[i].kind == RV_KIND_ENUM || strchr(slot->raw, '*')) continue;
        if (!stands(record->text, slot->raw)) fuzz_broken("a value that is not on the page", slot->raw);
    }
}

/* The first byte chooses schema and report; the rest are the words of a page. */
void fuzz_page(const uint8_t *data, size_t bytes) {
    if (bytes < 1) return;
    const rv_record_options options = { .size = sizeof options, .file = "page.jpg", .today = "2024-06-30" };
    rv_page page = { .width = 1000, .height = 1000 };
    rv_record *record;
    rv_error err;
    uint32_t filled, n = 0;
    char *text = strndup((const char *)data + 1, bytes - 1);
    FUZZ_HOLDS(text != NULL);
    put_words(&page, text);
    if (rv_record_new(built_in(data[0]), &options, &record, &err) || rv_page_rules(&page, record, &filled, &err) || rv_page_ground(&page, record, &err))
        fuzz_broken("rules", err.message);
    for (uint32_t i = 0; i < record->schema->n_fields; i++) n += record->slots[i].n_items > 0;
    FUZZ_HOLDS(n == filled);
    judge_from_page(record);
    judge_written(record->schema, record, (rv_form)(data[0] / 8 % 6));
    judge_private(record);
    rv_record_free(record);
    rv_page_free(&page);
    free(text);
}

/* The first byte chooses the schema; the rest are a statement's columns, as a model read them, parted by NUL bytes. */
void fuzz_rows(const uint8_t *data, size_t bytes) {
    static const char *const roles[] = { "date", "description", "debit", "credit", "balance", "amount" };
    if (bytes < 1) return;
    rv_statement_column columns[6];
    rv_record *record;
    rv_error err;
    uint32_t n = 0, rows = 0;
    uint8_t *exact = fuzz_exact(data + 1, bytes - 1);
    for (uint32_t i = 0; i < 6; i++) {
        const fuzz_piece piece = fuzz_piece_at(exact, bytes - 1, (int)i);
        if (piece.bytes) columns[n++] = (rv_statement_column){ roles[i], (const char *)piece.data, piece.bytes };
    }
    if (rv_record_new(built_in(data[0] & 1 ? 1 : 2), NULL, &record, &err) || rv_statement_fill(record, columns, n, "constrained", &err)) fuzz_broken("rows", err.message);
    for (uint32_t i = 0; i < n; i++) {
        const int32_t field = rv_statement_field(record->schema, columns[i].role);
        const uint32_t items = field < 0 ? 0 : record->slots[field].n_items;
        FUZZ_HOLDS(!items || !rows || items == rows);
        if (items) rows = items;
    }
    judge_written(record->schema, record, (rv_form)(data[0] / 8 % 6));
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
