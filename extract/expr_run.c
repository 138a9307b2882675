/* expr_run.c - what the steps of a rule's program do: see expr.h. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "extract/balance.h"
#include "extract/expr_program.h"

static const rv_answer unknown = { false, 0 };
static rv_answer number(int64_t value) { return (rv_answer){ true, value }; }

/* ---- of fields ----------------------------------------------------------------------------------- */

static const rv_slot *slot_of(const rv_record *r, int32_t field) { return field < 0 ? NULL : &r->slots[field]; }

static rv_answer day(rv_date d) { return d.year ? number(rv_date_days(d)) : unknown; }

static rv_answer value_of(const rv_value *v) {
    if (!v || v->state != RV_VALUE_VALID || v->inexact) return unknown;
    switch (v->kind) {
    case RV_KIND_MONEY: return strcmp(v->currency, "AUD") ? unknown : number(v->number);       /* what rules say is in dollars of Australia */
    case RV_KIND_QUANTITY: case RV_KIND_PERCENT: case RV_KIND_BOOL: case RV_KIND_TIME: return number(v->number);
    case RV_KIND_DATE: return day(v->first);
    default: return unknown;
    }
}

static const rv_value *single(const rv_record *r, int32_t field) {
    const rv_slot *s = slot_of(r, field);
    return s && s->n_items && !r->schema->fields[field].list ? &s->items[0] : NULL;
}

static uint32_t filled(const rv_slot *s) {
    uint32_t n = 0;
    for (uint32_t i = 0; s && i < s->n_items; i++) n += s->items[i].state != RV_VALUE_ABSENT;
    return n;
}

static bool all_valid(const rv_slot *s) {
    for (uint32_t i = 0; i < s->n_items; i++)
        if (s->items[i].state == RV_VALUE_INVALID) return false;
    return true;
}

static rv_answer sum(const rv_slot *s, bool filled_only) {
    int64_t total = 0;
    if (!s || (filled_only ? !s->answered : s->n_items == 0)) return unknown;
    for (uint32_t i = 0; i < s->n_items; i++) {
        if (filled_only && s->items[i].state == RV_VALUE_ABSENT) continue;
        rv_answer item = value_of(&s->items[i]);
        if (!item.known || __builtin_add_overflow(total, item.value, &total)) return unknown;
    }
    return number(total);
}

static int64_t half_up(int64_t value, int64_t by) {
    int64_t size = value < 0 ? -value : value, whole = size / by + (size % by * 2 >= by);
    return value < 0 ? -whole : whole;
}

/* Quantities are thousandths, prices cents: each row is rounded to the cent. */
static rv_answer sum_product(const rv_slot *a, const rv_slot *b) {
    int64_t total = 0;
    if (!a || !b || a->n_items == 0 || a->n_items != b->n_items) return unknown;
    for (uint32_t i = 0; i < a->n_items; i++) {
        rv_answer x = value_of(&a->items[i]), y = value_of(&b->items[i]);
        int64_t product;
        if (!x.known || !y.known || __builtin_mul_overflow(x.value, y.value, &product) ||
            __builtin_add_overflow(total, half_up(product, 1000), &total))
            return unknown;
    }
    return number(total);
}

/* A date of a statement's row; without a year it is in the period, which may run over New Year: a day before the period's first is of the next
 * year, and 29 February of the one that has it. */
static rv_answer row_day(const rv_record *r, const rv_value *v) {
    const rv_value *period = rv_record_value(r, "STATEMENT_DATE_RANGE");
    rv_date d = v->first;
    if (v->state != RV_VALUE_VALID || v->kind != RV_KIND_DATE) return unknown;
    if (!d.year && period && period->kind == RV_KIND_DATE_RANGE && period->first.year) {
        const bool over = period->last.year > period->first.year;
        d.year = period->first.year;
        if (over && (rv_date_compare(d, period->first) < 0 || !rv_date_exists(d))) d.year++;
        if (!rv_date_exists(d)) return unknown;
    }
    return day(d);
}

static rv_answer extreme_day(const rv_record *r, const rv_slot *s, bool latest) {
    rv_answer found = unknown;
    for (uint32_t i = 0; s && i < s->n_items; i++) {
        if (s->items[i].state == RV_VALUE_ABSENT) continue;
        rv_answer d = row_day(r, &s->items[i]);
        if (!d.known) return unknown;
        if (!found.known || (latest ? d.value > found.value : d.value < found.value)) found = d;
    }
    return found;
}

static bool contains(const char *text, const char *word, size_t bytes) {
    for (; *text; text++)
        if (strncasecmp(text, word, bytes) == 0) return true;
    return false;
}

static rv_answer digits_end(const rv_value *a, const rv_value *b) {
    char digits[2][32];
    const rv_value *v[2] = { a, b };
    size_t n[2] = { 0, 0 };
    if (!a || !b || a->state != RV_VALUE_VALID || b->state != RV_VALUE_VALID) return unknown;
    for (int i = 0; i < 2; i++)
        for (const char *at = v[i]->text; *at && n[i] < sizeof digits[i]; at++)
            if (isdigit((uint8_t)*at)) digits[i][n[i]++] = *at;
    if (n[1] == 0 || n[1] > n[0]) return unknown;
    return number(memcmp(digits[0] + n[0] - n[1], digits[1], n[1]) == 0);
}

/* "NSW 2000" in an address: whether the postcode is one of that state.  Border towns may differ. */
static rv_answer postcode_state(const rv_value *v) {
    static const struct { const char *state; int first, last; } ranges[] = {
        { "ACT", 200, 299 }, { "ACT", 2600, 2618 }, { "ACT", 2900, 2920 }, { "NSW", 1000, 2599 }, { "NSW", 2619, 2899 }, { "NSW", 2921, 2999 },
        { "VIC", 3000, 3999 }, { "VIC", 8000, 8999 }, { "QLD", 4000, 4999 }, { "QLD", 9000, 9999 }, { "SA", 5000, 5999 }, { "WA", 6000, 6999 },
        { "TAS", 7000, 7999 }, { "NT", 800, 999 },
    };
    bool named = false;
    if (!v || v->state == RV_VALUE_ABSENT) return unknown;
    for (const char *at = v->text; *at; at++) {
        if (at != v->text && isalnum((uint8_t)at[-1])) continue;
        for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
            size_t n = strlen(ranges[i].state);
            if (strncasecmp(at, ranges[i].state, n) || at[n] != ' ' || strspn(at + n + 1, "0123456789") != 4) continue;
            int code = atoi(at + n + 1);
            if (code >= ranges[i].first && code <= ranges[i].last) return number(true);
            named = true;
        }
    }
    return named ? number(false) : unknown;
}

static rv_answer words(const rv_record *r, const rv_expr_step *s) { return r->text ? number(contains(r->text, s->text, s->bytes)) : unknown; }

static rv_answer field_step(const rv_record *r, const rv_expr_step *s) {
    const rv_slot *slot = slot_of(r, s->field[0]);
    const rv_value *v = single(r, s->field[0]);
    switch (s->op) {
    case RV_OP_FIELD: return value_of(v);
    case RV_OP_PRESENT: return slot ? number(filled(slot) > 0) : unknown;
    case RV_OP_ABSENT: return number(filled(slot) == 0);
    case RV_OP_VALID: return slot && filled(slot) ? number(all_valid(slot)) : unknown;
    case RV_OP_COUNT: return number(slot ? slot->n_items : 0);
    case RV_OP_FILLED: return number(filled(slot));
    case RV_OP_SUM: return sum(slot, false);
    case RV_OP_SUM_FILLED: return sum(slot, true);
    case RV_OP_OR_ZERO: return slot && filled(slot) ? value_of(v) : number(0);
    case RV_OP_EARLIEST: case RV_OP_LATEST: return extreme_day(r, slot, s->op == RV_OP_LATEST);
    case RV_OP_SUM_PRODUCT: return sum_product(slot, slot_of(r, s->field[1]));
    case RV_OP_FIRST: return v && v->state == RV_VALUE_VALID ? day(v->first) : unknown;
    case RV_OP_LAST: return v && v->state == RV_VALUE_VALID ? day(v->kind == RV_KIND_DATE_RANGE ? v->last : v->first) : unknown;
    case RV_OP_AMBIGUOUS: return v && v->state == RV_VALUE_VALID ? number(v->ambiguous) : unknown;
    case RV_OP_IS:
        return v && v->state != RV_VALUE_ABSENT ? number(strlen(v->text) == s->bytes && strncasecmp(v->text, s->text, s->bytes) == 0)
                                                : unknown;
    case RV_OP_CONTAINS: return slot && filled(slot) ? number(contains(slot->raw, s->text, s->bytes)) : unknown;
    case RV_OP_DIGITS_END: return digits_end(v, single(r, s->field[1]));
    case RV_OP_POSTCODE_STATE: return postcode_state(v);
    default: return unknown;
    }
}

/* ---- of the record and of operands ------------------------------------------------------------------ */

static rv_answer record_step(const rv_record *r, const rv_expr_step *s) {
    rv_chain chain;
    switch (s->op) {
    case RV_OP_NUMBER: return number(s->value);
    case RV_OP_WORDS: return words(r, s);
    case RV_OP_TEXT_KNOWN: return number(r->text != NULL);
    case RV_OP_BALANCE_BREAKS:
        chain = rv_balance_chain(r);
        return chain.checked ? number(chain.breaks) : unknown;
    case RV_OP_BALANCE_ROWS: return number(rv_balance_chain(r).checked);
    case RV_OP_TODAY: return day(r->today);
    case RV_OP_LINES: return number(rv_record_rows(r, 0));
    default: return field_step(r, s);
    }
}

static rv_answer unary_step(rv_op op, rv_answer a) {
    if (!a.known || a.value == INT64_MIN) return unknown;
    switch (op) {
    case RV_OP_NEGATE: return number(-a.value);
    case RV_OP_NOT: return number(!a.value);
    case RV_OP_ABS: return number(a.value < 0 ? -a.value : a.value);
    default: return number(half_up(a.value, 11));
    }
}

static rv_answer logic_step(rv_op op, rv_answer a, rv_answer b) {
    bool settles = op == RV_OP_OR;             /* the value that decides alone */
    if ((a.known && !!a.value == settles) || (b.known && !!b.value == settles)) return number(settles);
    return a.known && b.known ? number(!settles) : unknown;
}

static rv_answer binary_step(rv_op op, rv_answer a, rv_answer b) {
    int64_t x = a.value, y = b.value, z = 0;
    if (op == RV_OP_AND || op == RV_OP_OR) return logic_step(op, a, b);
    if (!a.known || !b.known) return unknown;
    switch (op) {
    case RV_OP_ADD: return __builtin_add_overflow(x, y, &z) ? unknown : number(z);
    case RV_OP_SUBTRACT: return __builtin_sub_overflow(x, y, &z) ? unknown : number(z);
    case RV_OP_MULTIPLY: return __builtin_mul_overflow(x, y, &z) ? unknown : number(z);
    case RV_OP_DIVIDE:
        if (y == 0 || x == INT64_MIN || y == INT64_MIN || y > INT64_MAX / 4 || y < -(INT64_MAX / 4)) return unknown;
        return number(y < 0 ? -half_up(x, -y) : half_up(x, y));
    case RV_OP_MIN: return number(x < y ? x : y);
    case RV_OP_MAX: return number(x > y ? x : y);
    case RV_OP_LESS: return number(x < y);
    case RV_OP_LESS_EQUAL: return number(x <= y);
    case RV_OP_GREATER: return number(x > y);
    case RV_OP_GREATER_EQUAL: return number(x >= y);
    case RV_OP_EQUAL: return number(x == y);
    default: return number(x != y);
    }
}

rv_status rv_expr_run(const rv_record *record, const char *text, rv_answer *out, rv_error *err) {
    rv_program program;
    rv_answer stack[RV_PROGRAM_STEPS];
    uint32_t n = 0;
    rv_status st = rv_expr_compile(record->schema, text, false, &program, NULL, err);
    if (st) return st;
    for (uint32_t i = 0; i < program.n; i++) {
        const rv_expr_step *step = &program.steps[i];
        if (step->op < RV_OP_NEGATE) stack[n++] = record_step(record, step);
        else if (step->op < RV_OP_ADD) stack[n - 1] = unary_step(step->op, stack[n - 1]);
        else {
            n--;
            stack[n - 1] = binary_step(step->op, stack[n - 1], stack[n]);
        }
    }
    *out = stack[0];
    return RV_OK;
}
