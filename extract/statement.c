/* statement.c - see statement.h. */
#include "extract/statement.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

enum { COLUMNS = 8 };

typedef struct cell { const char *text; size_t bytes; } cell;
typedef struct table { cell *cells[COLUMNS]; const char *roles[COLUMNS]; uint32_t n_columns, n_rows; } table;

int32_t rv_statement_field(const rv_schema *schema, const char *role) {
    static const char *const keys[][3] = { { "date", "TRANSACTION_DATES" }, { "description", "TRANSACTION_DESCRIPTIONS", "LINE_ITEM_DESCRIPTIONS" },
        { "debit", "TRANSACTION_AMOUNTS_PAID" }, { "credit", "TRANSACTION_AMOUNTS_RECEIVED" }, { "balance", "TRANSACTION_BALANCES", "ACCOUNT_BALANCE" } };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        for (int k = 1; k < 3 && !strcmp(role, keys[i][0]); k++)
            if (keys[i][k] && rv_schema_field(schema, keys[i][k]) >= 0) return rv_schema_field(schema, keys[i][k]);
    return -1;
}

/* ---- cells ---- */

static cell trimmed(const char *from, const char *to) {
    while (from < to && *from == ' ') from++;
    while (to > from && to[-1] == ' ') to--;
    return (cell){ from, (size_t)(to - from) };
}

static rv_status split(const char *text, size_t bytes, cell **out, uint32_t *count, rv_error *err) {
    const char *end = text + bytes, *bar;
    uint32_t n = 1, i = 0;
    for (size_t k = 0; k < bytes; k++) n += text[k] == '|';
    cell *cells = calloc(n, sizeof *cells);
    if (!cells) return rv_fail_memory(err, "rows of a statement");
    for (const char *at = text; i < n; at = bar + 1) {
        bar = memchr(at, '|', (size_t)(end - at));
        if (!bar) bar = end;
        cells[i++] = trimmed(at, bar);
    }
    *out = cells;
    *count = n;
    return RV_OK;
}

static bool is(cell c, const char *text) { return c.bytes == strlen(text) && !memcmp(c.text, text, c.bytes); }
static bool is_absent(cell c) { return c.bytes == 0 || is(c, RV_NOT_FOUND); }

static bool contains(cell c, const char *words) {
    char low[200];
    size_t n = c.bytes < sizeof low - 1 ? c.bytes : sizeof low - 1;
    memcpy(low, c.text, n);
    low[n] = '\0';
    return strcasestr(low, words) != NULL;
}

static const cell *column(const table *t, const char *role) {
    for (uint32_t i = 0; i < t->n_columns; i++)
        if (!strcmp(t->roles[i], role)) return t->cells[i];
    return NULL;
}

static bool has_amount(const table *t, uint32_t row) {
    static const char *const roles[] = { "debit", "credit", "amount" };
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) {
        const cell *amounts = column(t, roles[i]);
        if (amounts && !is_absent(amounts[row])) return true;
    }
    return false;
}

/* "Opening balance transfer to savings" moved money: a row with an amount is a transaction, unless nothing but those words is there. */
static bool only_carries(const table *t, uint32_t row) {
    static const char *const words[] = { "opening balance",     "closing balance",     "balance brought forward", "balance carried forward",
                                         "balance brought fwd", "balance carried fwd", "brought forward",         "carried forward",
                                         "brought fwd",         "carried fwd",         "balance b/f",             "balance c/f" };
    const cell *descriptions = column(t, "description");
    for (size_t i = 0; descriptions && i < sizeof words / sizeof *words; i++)
        if (contains(descriptions[row], words[i])) return descriptions[row].bytes == strlen(words[i]) || !has_amount(t, row);
    return false;
}

/* ---- amounts ---- */

/* As rv_value_read understands it; `scratch` owns its texts. */
static rv_value amount_of(rv_pool *scratch, cell c) {
    rv_value v;
    rv_value_read(scratch, RV_KIND_MONEY, c.text, c.bytes, NULL, &v);
    return v;
}

/* A sign that is seen even where the digits cannot be read. */
static bool looks_paid(cell c) {
    size_t n = c.bytes;
    return n && (c.text[0] == '-' || c.text[0] == '(' || c.text[n - 1] == '-' || (n > 2 && !strncasecmp(c.text + n - 2, "DR", 2)));
}

static bool was_paid(cell c, rv_pool *scratch) {
    const rv_value v = amount_of(scratch, c);
    if (v.state != RV_VALUE_VALID) return looks_paid(c);
    return v.sign_by == RV_SIGN_MINUS || v.sign_by == RV_SIGN_BRACKETS || v.sign_by == RV_SIGN_DR;
}

/* The amount without what says which way it went; one without such a sign, or that is none, stays as it was read. */
static cell bare(cell c, rv_pool *scratch) {
    const rv_value v = amount_of(scratch, c);
    if (v.state != RV_VALUE_VALID || (v.sign_by == RV_SIGN_NONE && *c.text != '+')) return c;
    const char *text = v.text + (*v.text == '-');
    text += v.currency_assumed && *text == '$';
    return (cell){ text, strlen(text) };
}

static void add_cell(rv_string *out, cell c) {
    rv_string_addz(out, out->bytes ? " | " : "");
    if (is_absent(c)) rv_string_addz(out, RV_NOT_FOUND);
    else rv_string_add(out, c.text, c.bytes);
}

/* ---- columns ---- */

/* The cells of a role over all rows that are transactions. */
static void write_column(const table *t, const char *role, rv_string *out) {
    const cell *own = column(t, role), *amounts = column(t, "amount");
    bool money = !strcmp(role, "debit") || !strcmp(role, "credit");
    cell last = { "", 0 };
    rv_pool scratch = { 0 };
    for (uint32_t r = 0; r < t->n_rows; r++) {
        cell c = own ? own[r] : (cell){ "", 0 };
        if (!strcmp(role, "date") && is_absent(c)) c = last;
        last = c;
        if (only_carries(t, r)) continue;
        if (!own && amounts && money) c = was_paid(amounts[r], &scratch) == !strcmp(role, "debit") ? amounts[r] : (cell){ "", 0 };
        add_cell(out, money ? bare(c, &scratch) : c);
    }
    out->failed = out->failed || scratch.failed;
    rv_pool_free(&scratch);
}

static rv_status set_column(rv_record *record, const table *t, const char *role, const char *source, rv_error *err) {
    int32_t field = rv_statement_field(record->schema, role);
    bool split_amounts = column(t, "amount") && (!strcmp(role, "debit") || !strcmp(role, "credit"));
    rv_string text = { 0 };
    if (field < 0 || (!column(t, role) && !split_amounts)) return RV_OK;
    write_column(t, role, &text);
    rv_status st = text.failed ? rv_fail_memory(err, "rows of a statement") : RV_OK;
    if (st == RV_OK && text.bytes) st = rv_record_set_cells(record, (uint32_t)field, text.data, text.bytes, source, err);
    if (st == RV_OK) record->slots[field].answered = true;
    rv_string_free(&text);
    return st;
}

/* From the first to the last day of all rows, the earlier one first. */
static rv_status set_period(rv_record *record, const char *source, rv_error *err) {
    int32_t period = rv_schema_field(record->schema, "STATEMENT_DATE_RANGE"), dates = rv_statement_field(record->schema, "date");
    const rv_value *first = NULL, *last = NULL;
    char text[64];
    if (period < 0 || dates < 0 || record->slots[period].n_items) return RV_OK;
    for (uint32_t i = 0; i < record->slots[dates].n_items; i++) {
        const rv_value *v = &record->slots[dates].items[i];
        if (v->state != RV_VALUE_VALID || v->first.year == 0) continue;
        if (!first || rv_date_compare(v->first, first->first) < 0) first = v;
        if (!last || rv_date_compare(v->first, last->first) > 0) last = v;
    }
    if (!first) return RV_OK;
    int n = snprintf(text, sizeof text, "%s - %s", first->text, last->text);
    return rv_record_set(record, (uint32_t)period, text, (size_t)n, source, err);
}

rv_status rv_statement_fill(rv_record *record, const rv_statement_column *columns, uint32_t n, const char *source, rv_error *err) {
    static const char *const roles[] = { "date", "description", "debit", "credit", "balance" };
    table t = { .n_rows = UINT32_MAX };
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < n && t.n_columns < COLUMNS; i++) {
        uint32_t rows = 0;
        if (columns[i].bytes == strlen(RV_NOT_FOUND) && !memcmp(columns[i].text, RV_NOT_FOUND, columns[i].bytes)) continue;
        TRY(split(columns[i].text, columns[i].bytes, &t.cells[t.n_columns], &rows, err));
        t.roles[t.n_columns++] = columns[i].role;
        if (rows < t.n_rows) t.n_rows = rows;
    }
    if (t.n_columns == 0) return RV_OK;
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++) TRY(set_column(record, &t, roles[i], source, err));
    TRY(set_period(record, source, err));
done:
    for (uint32_t i = 0; i < t.n_columns; i++) free(t.cells[i]);
    return st;
}
