/* check_format.c - values by themselves: kinds, patterns, what is required, columns of equal length; then row by row. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"
#include "extract/balance.h"
#include "extract/check.h"

enum { MATCH_LIMIT = 100000, MOST_ROW_FINDINGS = 20 };

/* ---- repairs that a checksum can suggest --------------------------------------------------------- */

static bool on_page(const char *page, const char *digits) {
    for (; *page; page++) {
        const char *p = page, *d = digits;
        if (page[0] != *d) continue;
        while (*d && *p) {
            if (*p == *d) p++, d++;
            else if (*p == ' ' && d != digits) p++;
            else break;
        }
        if (!*d) return true;
    }
    return false;
}

/* A random number of 11 digits passes with chance 1/89, so a repair must be the only one whose digits stand on the page. */
static bool suggest_abn(const rv_record *r, const char *text, char out[80]) {
    char digits[12], found[12] = "";
    size_t n = 0;
    int hits = 0;
    for (; *text; text++)
        if (isdigit((uint8_t)*text)) {
            if (n == 11) return false;
            digits[n++] = *text;
        }
    digits[n] = '\0';
    if (n != 11 || !r->text) return false;
    for (int i = 0; i < 11; i++) {
        char old = digits[i];
        for (char c = '0'; c <= '9'; c++) {
            digits[i] = c;
            if (c == old || !rv_abn_valid(digits, 11) || !on_page(r->text, digits)) continue;
            hits++;
            memcpy(found, digits, 12);
        }
        digits[i] = old;
    }
    if (hits != 1) return false;
    snprintf(out, 80, "Is it %.2s %.3s %.3s %.3s, which stands on the page?", found, found + 2, found + 5, found + 8);
    return true;
}

/* Letters that are read for digits: "S12.00", "$l2.00", "O5/03/2024".  What they would be, if it then fits its kind. */
static bool suggest_digits(const rv_value *v, char out[80]) {
    static const char letters[] = "OoQDlIi|ZSsBGg", digits[] = "00001111255866";
    char text[40];
    size_t n = strlen(v->text);
    if (n == 0 || n >= sizeof text) return false;
    memcpy(text, v->text, n + 1);
    bool dollar = v->kind == RV_KIND_MONEY && text[0] == 'S';
    for (size_t i = 0; i < n; i++) {
        const char *letter = text[i] ? strchr(letters, text[i]) : NULL;
        if (letter) text[i] = digits[letter - letters];
    }
    if (dollar) text[0] = '$';
    rv_pool scratch = { 0 };
    rv_value fixed;
    rv_value_read(&scratch, v->kind, text, n, NULL, &fixed);
    bool fits = fixed.state == RV_VALUE_VALID && strcmp(text, v->text) != 0;
    if (fits) snprintf(out, 80, "Is it %.45s, a digit read as a letter?", fixed.text);
    rv_pool_free(&scratch);
    return fits;
}

static void suggest(const rv_record *r, const rv_value *v, char out[80]) {
    if (v->kind == RV_KIND_ABN && suggest_abn(r, v->text, out)) return;
    if (v->kind == RV_KIND_MONEY || v->kind == RV_KIND_DATE || v->kind == RV_KIND_ABN || v->kind == RV_KIND_QUANTITY) suggest_digits(v, out);
}

/* ---- one field ------------------------------------------------------------------------------------- */

/* 1: fits; 0: does not; -1: the pattern gave up. */
static int matches(const rv_field *field, const char *text) {
    pcre2_match_data *data = pcre2_match_data_create(1, NULL);
    pcre2_match_context *context = pcre2_match_context_create(NULL);
    int result = -1;
    if (data && context) {
        pcre2_set_match_limit(context, MATCH_LIMIT);
        pcre2_set_heap_limit(context, 1024);               /* KiB */
        int n = pcre2_match(field->pattern_code, (PCRE2_SPTR)text, PCRE2_ZERO_TERMINATED, 0, PCRE2_ANCHORED | PCRE2_ENDANCHORED, data, context);
        result = n >= 0 ? 1 : n == PCRE2_ERROR_NOMATCH ? 0 : -1;
    }
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    return result;
}

/* For %.*s: as much of the title as fits, whole characters only. */
static int title_bytes(const rv_field *field, size_t most) {
    const size_t bytes = strlen(field->title);
    return (int)rv_utf8_check(field->title, bytes < most ? bytes : most);
}

static rv_status check_item(rv_check *c, uint32_t i, int32_t row, const rv_value *v, bool *pass) {
    const rv_field *field = &c->record->schema->fields[i];
    char id[32], message[200], suggestion[80] = "";
    rv_severity severity = field->critical || field->required ? RV_SEVERITY_ERROR : RV_SEVERITY_WARNING;
    if (v->state == RV_VALUE_INVALID) {
        *pass = false;
        snprintf(id, sizeof id, "format.%s", rv_kind_name(field->kind));
        snprintf(message, sizeof message, "%.*s: %s.", title_bytes(field, 100), field->title, v->why);
        suggest(c->record, v, suggestion);
        return rv_check_add(c, id, severity, RV_LAYER_FORMAT, &i, 1, row, message, "", v->text, suggestion, "");
    }
    int fits = v->state == RV_VALUE_VALID && field->pattern_code ? matches(field, v->text) : 1;
    if (fits > 0) return RV_OK;
    *pass = false;
    snprintf(message, sizeof message,
             fits ? "%.*s: its pattern takes too long on this value." : "%.*s: does not have the form that the schema asks for.",
             title_bytes(field, 100), field->title);
    return rv_check_add(c, "format.pattern", severity, RV_LAYER_FORMAT, &i, 1, row, message, field->pattern, v->text, "", "");
}

/* Words of the page that claim another value: nothing but a look at it settles which is meant. */
static rv_status check_claims(rv_check *c, uint32_t i) {
    const rv_field *field = &c->record->schema->fields[i];
    const rv_slot *slot = &c->record->slots[i];
    char message[160], suggestion[200] = "Look at the page, which also says ";
    if (slot->n_items == 0 || slot->n_alternatives == 0 || strcmp(slot->source, "ocr")) return RV_OK;
    snprintf(message, sizeof message, "%.*s: the page names more than one.", title_bytes(field, 100), field->title);
    for (uint32_t k = 0; k < slot->n_alternatives; k++) {
        const size_t at = strlen(suggestion), n = strlen(slot->alternatives[k]);
        if (at + n + 4 < sizeof suggestion) snprintf(suggestion + at, sizeof suggestion - at, "%s%s", k ? ", " : "", slot->alternatives[k]);
    }
    const size_t at = strlen(suggestion);
    snprintf(suggestion + at, sizeof suggestion - at, ".");
    rv_check_count(c, field->weight, false);
    return rv_check_add(c, "value.claims", RV_SEVERITY_WARNING, RV_LAYER_CONSISTENCY, &i, 1, -1, message, "", slot->items[0].text, suggestion, "");
}

static rv_status check_field(rv_check *c, uint32_t i) {
    const rv_field *field = &c->record->schema->fields[i];
    const rv_slot *slot = &c->record->slots[i];
    rv_status st = RV_OK;
    bool pass = true;
    char message[160];
    if (slot->n_items == 0) {
        if (!field->required) return RV_OK;
        rv_check_count(c, field->weight, false);
        snprintf(message, sizeof message, "%.*s is missing.", title_bytes(field, 100), field->title);
        return rv_check_add(c, "required", RV_SEVERITY_ERROR, RV_LAYER_FORMAT, &i, 1, -1, message, "", "", "", "");
    }
    for (uint32_t row = 0; row < slot->n_items && st == RV_OK; row++)
        st = check_item(c, i, field->list ? (int32_t)row : -1, &slot->items[row], &pass);
    rv_check_count(c, field->weight, pass);
    if (st == RV_OK) st = check_claims(c, i);
    if (st == RV_OK && slot->n_items > field->max_items) {
        snprintf(message, sizeof message, "%.*s has %u items, more than the %u that are allowed.", title_bytes(field, 60), field->title, slot->n_items,
                 field->max_items);
        st = rv_check_add(c, "list.length", RV_SEVERITY_WARNING, RV_LAYER_FORMAT, &i, 1, -1, message, "", "", "", "");
    }
    return st;
}

/* Columns of one table that are there have the same number of rows. */
static rv_status check_group(rv_check *c, int32_t group) {
    const rv_schema *schema = c->record->schema;
    uint32_t fields[64], n = 0, rows = 0;
    bool equal = true;
    rv_string actual = { 0 };
    for (uint32_t i = 0; i < schema->n_fields && n < 64; i++) {
        uint32_t items = c->record->slots[i].n_items;
        if (schema->fields[i].group != group || items == 0) continue;
        equal = equal && (n == 0 || items == rows);
        rows = items;
        rv_string_addf(&actual, "%s%s %u", n ? ", " : "", schema->fields[i].key, items);
        fields[n++] = i;
    }
    rv_status st = RV_OK;
    if (n > 1) rv_check_count(c, 2, equal);
    if (!equal)
        st = rv_check_add(c, "list.aligned", RV_SEVERITY_ERROR, RV_LAYER_CONSISTENCY, fields, n, -1,
                          "The columns of the table have different numbers of rows.", "", rv_string_text(&actual),
                          "A cell is missing or was split: compare the table with the document.", "");
    rv_string_free(&actual);
    return st;
}

/* ---- day and month -------------------------------------------------------------------------------------- */

/* One date of which the order is certain settles the others, unless there is one of either order.  *day_first, *month_first: seen. */
static void see_orders(const rv_record *r, bool *day_first, bool *month_first) {
    for (uint32_t i = 0; i < r->schema->n_fields; i++)
        for (uint32_t k = 0; k < r->slots[i].n_items; k++) {
            const rv_value *v = &r->slots[i].items[k];
            if (v->kind != RV_KIND_DATE || v->state != RV_VALUE_VALID || v->date_by != RV_DATE_BY_ONLY_VALID) continue;
            *month_first = *month_first || v->month_first;
            *day_first = *day_first || !v->month_first;
        }
}

rv_status rv_check_dates(rv_check *c) {
    rv_record *r = c->record;
    bool day_first = false, month_first = false;
    see_orders(r, &day_first, &month_first);
    for (uint32_t i = 0; i < r->schema->n_fields; i++)
        for (uint32_t k = 0; k < r->slots[i].n_items; k++) {
            rv_value *v = &r->slots[i].items[k];
            if (!v->ambiguous || v->kind != RV_KIND_DATE) continue;
            if (day_first && !month_first) {
                v->ambiguous = false;
                v->date_by = RV_DATE_BY_DOCUMENT;
            } else if (month_first && !day_first) {
                char text[80];
                snprintf(text, sizeof text, "Is it %02d/%02d/%04d?", v->first.month, v->first.day, v->first.year);
                rv_status st = rv_check_add(c, "date.month_first", RV_SEVERITY_WARNING, RV_LAYER_CONSISTENCY, &i, 1,
                                            r->schema->fields[i].list ? (int32_t)k : -1,
                                            "Another date of this document can only have the month first; this one was read day first.", "",
                                            v->text, v->first.year ? text : "", "");
                if (st) return st;
            }
        }
    return RV_OK;
}

rv_status rv_check_format(rv_check *c) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < c->record->schema->n_fields && st == RV_OK; i++) st = check_field(c, i);
    for (uint32_t g = 0; g < c->record->schema->n_groups && st == RV_OK; g++) st = check_group(c, (int32_t)g);
    return st;
}

/* ---- rows ---------------------------------------------------------------------------------------------- */

static const rv_value *cell(const rv_record *r, int32_t field, uint32_t row) {
    if (field < 0 || row >= r->slots[field].n_items || r->slots[field].items[row].state != RV_VALUE_VALID) return NULL;
    return &r->slots[field].items[row];
}

static int64_t size_of(int64_t v) { return v < 0 ? -v : v; }

/* Quantity x price is the line's total, within one percent or two cents. */
static rv_status check_products(rv_check *c) {
    const rv_record *r = c->record;
    int32_t quantity = rv_schema_field(r->schema, "LINE_ITEM_QUANTITIES"), price = rv_schema_field(r->schema, "LINE_ITEM_PRICES"),
            total = rv_schema_field(r->schema, "LINE_ITEM_TOTAL_PRICES");
    if (quantity < 0 || price < 0 || total < 0 || r->slots[quantity].n_items != r->slots[total].n_items ||
        r->slots[price].n_items != r->slots[total].n_items)
        return RV_OK;
    rv_status st = RV_OK;
    uint32_t fields[] = { (uint32_t)quantity, (uint32_t)price, (uint32_t)total }, found = 0, applied = 0;
    for (uint32_t row = 0; row < r->slots[total].n_items && st == RV_OK; row++) {
        const rv_value *q = cell(r, quantity, row), *p = cell(r, price, row), *t = cell(r, total, row);
        int64_t product, expected;
        if (!q || !p || !t || p->inexact || t->inexact || __builtin_mul_overflow(q->number, p->number, &product)) continue;
        expected = product / 1000;
        applied++;
        int64_t tolerance = size_of(expected) / 100 > 2 ? size_of(expected) / 100 : 2;
        if (size_of(expected - t->number) <= tolerance || found++ >= MOST_ROW_FINDINGS) continue;
        char text[40];
        rv_money_text(expected, t->currency, text);
        st = rv_check_add(c, "line.product", RV_SEVERITY_WARNING, RV_LAYER_CONSISTENCY, fields, 3, (int32_t)row,
                          "Quantity times price is not the line's total.", text, t->text, "Compare the row with the document.", "");
    }
    if (applied) rv_check_count(c, 1, found == 0);
    return st;
}

/* The rows at which the balance chain breaks; the rule balance.chain counts them in the score. */
static rv_status mark_balances(rv_check *c) {
    rv_record *r = c->record;
    rv_chain chain = rv_balance_chain(r);
    int32_t balance = rv_schema_field(r->schema, "TRANSACTION_BALANCES");
    rv_status st = RV_OK;
    uint32_t field = (uint32_t)balance, found = 0;
    for (uint32_t row = 0; balance >= 0 && chain.breaks && row < r->slots[balance].n_items && st == RV_OK && found < MOST_ROW_FINDINGS; row++) {
        int64_t expected, actual;
        char text[2][40];
        if (!rv_balance_row(r, row, chain.newest_first, &expected, &actual) || expected == actual) continue;
        found++;
        rv_money_text(expected, "", text[0]);
        rv_money_text(actual, "", text[1]);
        st = rv_check_add(c, "balance.row", RV_SEVERITY_WARNING, RV_LAYER_CONSISTENCY, &field, 1, (int32_t)row,
                          "The balance does not follow from the row before it.", text[0], text[1],
                          "Debit and credit may be exchanged, or a row is missing.", "");
    }
    return st;
}

rv_status rv_check_rows(rv_check *c) {
    rv_status st = check_products(c);
    return st ? st : mark_balances(c);
}
