/* balance.c - the balance chain of a statement: see balance.h. */
#include "extract/balance.h"

typedef struct columns { const rv_slot *paid, *received, *balance; const rv_value *opening; } columns;

static const rv_slot *slot(const rv_record *r, const char *key) {
    int32_t i = rv_schema_field(r->schema, key);
    return i < 0 ? NULL : &r->slots[i];
}

static columns find(const rv_record *r) {
    return (columns){ slot(r, "TRANSACTION_AMOUNTS_PAID"), slot(r, "TRANSACTION_AMOUNTS_RECEIVED"), slot(r, "TRANSACTION_BALANCES"),
                      rv_record_value(r, "ACCOUNT_OPENING_BALANCE") };
}

/* The cell of a column; NULL: no such column or row. */
static const rv_value *cell(const rv_slot *column, uint32_t row) { return column && row < column->n_items ? &column->items[row] : NULL; }

/* An empty cell counts as nothing paid or received; one that cannot be read leaves the row unknown. */
static bool amount(const rv_value *v, int64_t *cents, bool *any) {
    *cents = 0;
    if (!v || v->state == RV_VALUE_ABSENT) return true;
    if (v->state != RV_VALUE_VALID || v->inexact) return false;
    *cents = v->number < 0 ? -v->number : v->number;
    *any = true;
    return true;
}

static bool known(const rv_value *v) { return v && v->state == RV_VALUE_VALID && !v->inexact; }

static bool row_expected(const columns *c, uint32_t row, bool newest_first, bool owed, int64_t *expected, int64_t *actual) {
    const rv_value *balance = cell(c->balance, row), *before = newest_first ? cell(c->balance, row + 1)
                                                               : row        ? cell(c->balance, row - 1)
                                                                            : c->opening;
    int64_t paid, received;
    bool any = false;
    if (newest_first && c->balance && row + 1 == c->balance->n_items) before = c->opening;
    if (!known(balance) || !known(before) || !amount(cell(c->paid, row), &paid, &any) || !amount(cell(c->received, row), &received, &any) ||
        !any)
        return false;
    *actual = balance->number;
    *expected = before->number + (owed ? paid - received : received - paid);
    return true;
}

bool rv_balance_row(const rv_record *record, uint32_t row, bool newest_first, int64_t *expected, int64_t *actual) {
    columns c = find(record);
    return row_expected(&c, row, newest_first, false, expected, actual);
}

static rv_chain walk(const columns *c, bool newest_first, bool owed) {
    rv_chain chain = { .newest_first = newest_first, .owed = owed };
    for (uint32_t row = 0; c->balance && row < c->balance->n_items; row++) {
        int64_t expected, actual;
        if (!row_expected(c, row, newest_first, owed, &expected, &actual)) continue;
        chain.checked++;
        chain.breaks += expected != actual;
    }
    return chain;
}

rv_chain rv_balance_chain(const rv_record *record) {
    enum { ROWS_THAT_TELL = 2 };                           /* one row is as well a debit that should be a credit */
    columns c = find(record);
    rv_chain forward = walk(&c, false, false), backward = walk(&c, true, false);
    const rv_chain best = backward.checked && (!forward.checked || backward.breaks < forward.breaks) ? backward : forward;
    for (int newest = 0; newest < 2 && best.breaks; newest++) {
        const rv_chain owed = walk(&c, newest, true);
        if (owed.checked >= ROWS_THAT_TELL && owed.breaks == 0) return owed;
    }
    return best;
}
