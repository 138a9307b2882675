/* parse_sentence.c - "the total was $45.20": values out of sentences, where an answer has no lines.
 *
 * The one idea: a field's own words (key, aliases, labels) followed by words that only connect, then text that fits the field's kind.
 * Kinds without a shape are left out, but for names in capitals: a wrong value is worse than none.
 */
#include <ctype.h>
#include <string.h>

#include "extract/parse.h"

enum { MOST_CONNECTORS = 6, MOST_VALUE = 60, MOST_PLACES = 20 };

static bool is_word(char c) { return isalnum((uint8_t)c) || (uint8_t)c >= 0x80; }

/* Length of `name` ("TOTAL_AMOUNT" is "total amount") at `at`, as whole words; 0: not there. */
static size_t match_name(const char *at, size_t bytes, const char *name) {
    size_t n = 0;
    for (; *name; name++) {
        if (*name == '_' || *name == ' ') {
            if (n >= bytes || !strchr(" _-", at[n])) return 0;
            n++;
            continue;
        }
        if (n >= bytes || tolower((uint8_t)at[n]) != tolower((uint8_t)*name)) return 0;
        n++;
    }
    return n < bytes && is_word(at[n]) ? 0 : n;
}

/* "amount of", "was", "is listed as", ":" ..: how many bytes connect to the value. */
static size_t skip_connectors(const char *text, size_t bytes) {
    static const char *const words[] = { "amount", "price",  "number", "is",       "was",     "of",       "for",      "the",
                                         "as",     "listed", "shown",  "came",     "comes",   "to",       "at",       "on",
                                         "be",     "equals", "paid",   "payable",  "charged", "included", "includes", "given",
                                         "dated",  "a",      "due",    "due date", "name",    "named",    "called" };
    size_t at = 0;
    for (int i = 0; i < MOST_CONNECTORS; i++) {
        while (at < bytes && strchr(" :=(\t*-", text[at])) {
            if (text[at] == '-' && at + 1 < bytes && (isdigit((uint8_t)text[at + 1]) || text[at + 1] == '$')) return at;
            at++;
        }
        size_t n = 0;
        for (size_t w = 0; w < sizeof words / sizeof *words && !n; w++) n = match_name(text + at, bytes - at, words[w]);
        if (!n) break;
        at += n;
    }
    return at;
}

/* ---- a value of a kind at the start of a text: how long it is, 0 for none --------------------------- */

static size_t money_length(const char *text, size_t bytes) {
    static const char *const marks[] = { "AUD", "AU$", "A$", "US$", "USD", "NZ$", "NZD", "-", "$" };
    size_t at = 0, digits = 0;
    bool marked = false;
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < sizeof marks / sizeof *marks && !again; i++) {
            size_t n = strlen(marks[i]);
            if (bytes - at < n || strncasecmp(text + at, marks[i], n)) continue;
            at += n;
            again = true;
            marked = marked || marks[i][0] != '-';
        }
        while (at < bytes && text[at] == ' ' && again) at++;
    }
    while (at < bytes &&
           (isdigit((uint8_t)text[at]) || (digits && strchr(",.", text[at]) && at + 1 < bytes && isdigit((uint8_t)text[at + 1]))))
        digits++, at++;
    if (at < bytes && text[at] == '%') return 0;
    bool cents = at >= 3 && text[at - 3] == '.';
    return digits && (marked || cents) ? at : 0;           /* a bare "5" is no amount */
}

static size_t digits_length(const char *text, size_t bytes, size_t least) {
    size_t at = 0, digits = 0, end = 0;
    for (; at < bytes; at++) {
        if (isdigit((uint8_t)text[at])) digits++, end = at + 1;
        else if (!digits || !strchr(" -", text[at])) break;
    }
    return digits >= least ? end : 0;
}

/* Capitalised words: "Acme Pty Ltd", "Joe's & Sons". */
static size_t name_length(const char *text, size_t bytes) {
    size_t at = 0, end = 0;
    if (bytes && (uint8_t)text[0] == 0xe2) return 0;       /* a dash or a quotation mark */
    while (at < bytes && (isupper((uint8_t)text[at]) || isdigit((uint8_t)text[at]) || text[at] == '&' || (uint8_t)text[at] >= 0x80)) {
        while (at < bytes &&
               (is_word(text[at]) || strchr("'&-/", text[at]) || (text[at] == '.' && at + 1 < bytes && is_word(text[at + 1]))))
            at++;
        end = at;
        if (at < bytes && text[at] == ' ') at++;
    }
    return end;
}

/* The longest start that reads as a valid value, cut at word ends. */
static size_t longest_valid(rv_value_kind kind, const char *text, size_t bytes) {
    size_t most = bytes < MOST_VALUE ? bytes : MOST_VALUE;
    for (size_t n = most; n > 0; n--) {
        if (n < bytes && is_word(text[n]) && is_word(text[n - 1])) continue;
        if (!is_word(text[n - 1]) || memchr(text, '\n', n)) continue;
        rv_pool scratch = { 0 };
        rv_value v;
        rv_value_read(&scratch, kind, text, n, NULL, &v);
        bool valid = v.state == RV_VALUE_VALID;
        rv_pool_free(&scratch);
        if (valid) return n;
    }
    return 0;
}

static size_t value_length(rv_value_kind kind, const char *text, size_t bytes) {
    const char *line = memchr(text, '\n', bytes);
    if (line) bytes = (size_t)(line - text);
    switch (kind) {
    case RV_KIND_MONEY: return money_length(text, bytes);
    case RV_KIND_DATE: case RV_KIND_DATE_RANGE: return longest_valid(kind, text, bytes);
    case RV_KIND_ABN: return digits_length(text, bytes, 11);
    case RV_KIND_ACN: return digits_length(text, bytes, 9);
    case RV_KIND_BSB: return digits_length(text, bytes, 6);
    case RV_KIND_PERCENT: case RV_KIND_EMAIL: case RV_KIND_PHONE: return longest_valid(kind, text, bytes);
    case RV_KIND_NAME: return name_length(text, bytes);
    default: return 0;
    }
}

/* ---- fields ---------------------------------------------------------------------------------------- */

static rv_status try_name(rv_parse *p, uint32_t field, const char *text, size_t bytes, const char *name) {
    const rv_field *f = &p->record->schema->fields[field];
    for (size_t at = 0, places = 0; at < bytes && places < MOST_PLACES; at++) {
        if (at && is_word(text[at - 1])) continue;
        size_t n = match_name(text + at, bytes - at, name);
        if (!n) continue;
        places++;
        size_t begin = at + n + skip_connectors(text + at + n, bytes - at - n);
        size_t length = value_length(f->kind, text + begin, bytes - begin);
        if (length) return rv_parse_offer(p, field, text + begin, length);
    }
    return RV_OK;
}

static rv_status try_field(rv_parse *p, uint32_t field, const char *text, size_t bytes) {
    const rv_field *f = &p->record->schema->fields[field];
    rv_status st = try_name(p, field, text, bytes, f->key);
    for (uint32_t i = 0; st == RV_OK && i < f->aliases.count && !rv_slot_found(p->record, field); i++)
        st = try_name(p, field, text, bytes, f->aliases.items[i]);
    for (uint32_t i = 0; st == RV_OK && i < f->labels.count && !rv_slot_found(p->record, field); i++)
        st = try_name(p, field, text, bytes, f->labels.items[i]);
    if (st == RV_OK && !rv_slot_found(p->record, field) && f->kind == RV_KIND_DATE && f->critical) {
        static const char *const words[] = { "dated", "issued", "on", "date" };
        for (size_t i = 0; st == RV_OK && i < 4 && !rv_slot_found(p->record, field); i++) st = try_name(p, field, text, bytes, words[i]);
    }
    if (st == RV_OK && !rv_slot_found(p->record, field) && f->kind == RV_KIND_NAME && f->critical) st = try_name(p, field, text, bytes, "from");
    return st;
}

rv_status rv_parse_sentences(rv_parse *p, const char *text, size_t bytes) {
    const rv_schema *schema = p->record->schema;
    rv_status st = RV_OK;
    if (bytes > 1 << 16) bytes = 1 << 16;                  /* sentences about one page are short */
    for (uint32_t i = 0; st == RV_OK && i < schema->n_fields; i++)
        if (!schema->fields[i].list && !p->record->slots[i].answered) st = try_field(p, i, text, bytes);
    return st;
}
