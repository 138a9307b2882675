/* read_bank.c - bank statements in turns: the headings of the table, then its rows by those names.
 *
 * The one idea: a model that has just read "Withdrawals | Deposits | Balance" copies three columns; one that is asked for debits and
 * credits of a page without such words makes them up.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/reader.h"
#include "extract/statement.h"

#define HEADINGS "Look at the table of transactions on this page. Answer with one line and nothing else.\n" \
                 "COLUMNS: its column headings exactly as printed, from left to right, with \" | \" between them, or NOT_FOUND if there is no table"
enum { MOST = 12, ROWS = 100, HEADING_TOKENS = 80, COLUMN_TOKENS = 1200 };

typedef struct heading { char text[44]; const char *role; } heading;

/* One column a role; "Value Date" and what nobody knows are not asked for. */
static uint32_t read_headings(const rv_key_value *v, heading out[MOST]) {
    const char *at = v->value, *end = v->value + v->bytes;
    uint32_t n = 0;
    while (at < end && n < MOST) {
        const char *bar = memchr(at, '|', (size_t)(end - at)), *to = bar ? bar : end, *last = to;
        while (at < last && *at == ' ') at++;
        while (last > at && last[-1] == ' ') last--;
        const char *role = rv_column_role(at, (size_t)(last - at));
        bool wanted = *role != '\0' && (!strcmp(role, "date") || !strcmp(role, "description") || !strcmp(role, "debit") || !strcmp(role, "credit") ||
                                        !strcmp(role, "balance") || !strcmp(role, "amount"));
        for (uint32_t i = 0; i < n; i++) wanted &= strcmp(out[i].role, role) != 0;
        if (wanted) {
            memcpy(out[n].text, at, (size_t)(last - at));        /* a role has headings of at most 40 bytes */
            out[n].text[last - at] = '\0';
            out[n++].role = role;
        }
        at = to + 1;
    }
    return n;
}

static bool has(const heading *h, uint32_t n, const char *role) {
    for (uint32_t i = 0; i < n; i++)
        if (!strcmp(h[i].role, role)) return true;
    return false;
}

/* A key a column, in the page's own order. */
static const char *key_of(const char *role) {
    static const char *const keys[][2] = { { "date", "DATES" }, { "description", "DESCRIPTIONS" }, { "debit", "DEBITS" }, { "credit", "CREDITS" }, { "balance", "BALANCES" } };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!strcmp(role, keys[i][0])) return keys[i][1];
    return "AMOUNTS";
}

static void rows_question(const heading *h, uint32_t n, rv_string *out) {
    rv_string_addf(out, "Copy the table of transactions on this page, row by row from the top, every row%s. Answer with these %u lines and nothing else, "
                        "\" | \" between the rows, NOT_FOUND for an empty cell:", has(h, n, "balance") ? " that has a balance" : "", n);
    for (uint32_t i = 0; i < n; i++) {
        rv_string_addf(out, "\n%s: what stands under \"%s\"", key_of(h[i].role), h[i].text);
        if (!strcmp(h[i].role, "description")) rv_string_addz(out, ", its lines joined by blanks");
        if (!strcmp(h[i].role, "amount")) rv_string_addz(out, ", with its sign");
    }
}

static rv_status make_rows(rv_read_work *w, const heading *h, uint32_t n, rv_ask *out, rv_string *question, rv_error *err) {
    rv_key keys[MOST];
    for (uint32_t i = 0; i < n; i++) keys[i] = (rv_key){ .size = sizeof *keys, .key = key_of(h[i].role), .list = 1, .group = 1, .max_items = ROWS, .max_tokens = COLUMN_TOKENS };
    rows_question(h, n, question);
    if (question->failed) return rv_fail_memory(err, "question");
    *out = (rv_ask){ .question = question->data };
    return rv_constraint_keys(w->reader->tokenizer, keys, n, &out->form, err);
}

/* The part of the schema that holds no column of the table: whose account it is; -1: none. */
static int32_t account_part(const rv_schema *schema) {
    for (uint32_t p = 0; p < schema->n_parts; p++) {
        bool lists = false;
        for (uint32_t i = 0; i < schema->parts[p].n_fields; i++) lists |= schema->fields[schema->parts[p].fields[i]].list;
        if (!lists) return (int32_t)p;
    }
    return -1;
}

static rv_status fill_rows(rv_record *record, const rv_ask *ask, const heading *h, rv_error *err) {
    const rv_key_value *v;
    rv_statement_column columns[MOST];
    float sure = 1;
    uint32_t n = ask->job ? rv_job_values(ask->job, &v) : 0;
    for (uint32_t i = 0; i < n; i++) {
        columns[i] = (rv_statement_column){ h[i].role, v[i].value, v[i].bytes };
        if (v[i].logprob < 0 && v[i].logprob + 1 < sure) sure = v[i].logprob + 1;
    }
    rv_status st = rv_statement_fill(record, columns, n, "constrained", err);
    for (uint32_t i = 0; i < record->schema->n_fields && st == RV_OK; i++)
        if (record->slots[i].answered && record->schema->fields[i].list && record->slots[i].confidence < 0) record->slots[i].confidence = sure > 0.01f ? sure : 0.01f;
    return st;
}

/* Whose account it is, and the rows: side by side. */
static rv_status ask_rows(rv_read_work *w, const rv_schema *schema, rv_record *record, const heading *h, uint32_t n, rv_error *err) {
    rv_ask asks[2] = { 0 };
    rv_string question = { 0 };
    char *account = NULL;
    int32_t part = account_part(schema);
    uint32_t n_asks = 1;
    rv_constraint *rows = NULL;
    rv_status st = RV_OK;
    TRY(make_rows(w, h, n, &asks[0], &question, err));
    rows = asks[0].form;
    if (part >= 0) {
        if (!(account = rv_schema_prompt(schema, part))) TRY(rv_fail_memory(err, "question"));
        asks[1].question = account;
        TRY(rv_reader_form(w->reader, schema, part, w->options.form == RV_ANSWER_STRICT, &asks[1].form, err));
        n_asks = 2;
    }
    TRY(rv_ask_all(w, asks, n_asks, err));
    if (part >= 0 && asks[1].job) TRY(rv_merge_answer(w, record, asks[1].job, "constrained", err));
    TRY(fill_rows(record, &asks[0], h, err));
done:
    rv_asks_free(asks, n_asks);
    rv_constraint_free(rows);
    rv_string_free(&question);
    free(account);
    return st;
}

rv_status rv_read_bank(rv_read_work *w, const rv_schema *schema, rv_record *record, rv_error *err) {
    const rv_key key = { .size = sizeof key, .key = "COLUMNS", .list = 1, .max_items = MOST, .max_tokens = HEADING_TOKENS };
    heading headings[MOST];
    const rv_key_value *v;
    uint32_t n = 0;
    rv_ask one = { .question = HEADINGS };
    rv_constraint *form;
    rv_status st = rv_constraint_keys(w->reader->tokenizer, &key, 1, &form, err);
    if (st) return st;
    one.form = form;
    st = rv_ask_all(w, &one, 1, err);
    if (st == RV_OK && one.job && rv_job_values(one.job, &v) == 1) n = read_headings(v, headings);
    rv_asks_free(&one, 1);
    rv_constraint_free(form);
    bool usable = has(headings, n, "date") && (has(headings, n, "balance") || has(headings, n, "amount") || has(headings, n, "debit"));
    return st || !usable ? st : ask_rows(w, schema, record, headings, n, err);
}
