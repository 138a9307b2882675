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

/* Bytes of a mark between a name and its value: a blank, a colon, a dash that no amount follows.  0: what stands there may be the value's. */
static size_t mark_length(const char *text, size_t bytes) {
    if (bytes > 3 && (!memcmp(text, "\xe2\x80\x93", 3) || !memcmp(text, "\xe2\x80\x94", 3))) return text[3] == ' ' ? 3 : 0;
    if (bytes > 1 && *text == '-') return text[1] == ' ' || text[1] == '-';
    return bytes && *text && strchr(" :=\t*", *text) ? 1 : 0;
}

/* "amount of", "was", "is listed as", ":" ..: how many bytes connect to the value.  A bracket right behind the name, "the total ($45.20)", is
 * the sentence's; one behind a word or a colon is an amount's own: "was ($45.20)". */
static size_t skip_connectors(const char *text, size_t bytes, bool money) {
    static const char *const words[] = { "amount", "price",  "number", "is",       "was",     "of",       "for",      "the",
                                         "as",     "listed", "shown",  "came",     "comes",   "to",       "at",       "on",
                                         "be",     "equals", "paid",   "payable",  "charged", "included", "includes", "given",
                                         "dated",  "a",      "due",    "due date", "name",    "named",    "called" };
    size_t at = 0;
    bool bare = true;
    for (int i = 0; i < MOST_CONNECTORS; i++) {
        for (size_t n; at < bytes; at += n) {
            n = text[at] == '(' && (bare || !money) ? 1 : mark_length(text + at, bytes - at);
            if (!n) break;
            bare = bare && text[at] == ' ';
        }
        size_t n = 0;
        for (size_t w = 0; w < sizeof words / sizeof *words && !n; w++) n = match_name(text + at, bytes - at, words[w]);
        if (!n) break;
        at += n;
        bare = false;
    }
    return at;
}

/* The word in front of text[at], an article left out: *bytes long. */
static const char *word_before(const char *text, size_t at, size_t *bytes) {
    for (int i = 0; i < 2; i++) {
        while (at && strchr(" \t.*", text[at - 1])) at--;
        size_t end = at;
        while (at && is_word(text[at - 1])) at--;
        *bytes = end - at;
        if (*bytes != 3 || (strncasecmp(text + at, "the", 3) && strncasecmp(text + at, "any", 3))) break;
    }
    return text + at;
}

/* "The total excluding GST was $40.00": the name only says which total; "including GST of $4.00" has a value of its own. */
static bool only_qualifies(const char *text, size_t at, size_t behind, size_t bytes) {
    static const char *const words[] = { "excluding", "excl", "ex", "exclusive", "before", "without", "plus", "including", "incl", "inc", "with" };
    enum { NEVER_ITS_OWN = 6 };
    size_t n;
    const char *word = word_before(text, at, &n);
    for (size_t i = 0; i < sizeof words / sizeof *words; i++) {
        if (n != strlen(words[i]) || strncasecmp(word, words[i], n)) continue;
        while (behind < bytes && text[behind] == ' ') behind++;
        return i < NEVER_ITS_OWN || !match_name(text + behind, bytes - behind, "of");
    }
    return false;
}

/* ---- a value of a kind at the start of a text: how long it is, 0 for none --------------------------- */

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

static bool reads(rv_value_kind kind, const char *text, size_t bytes, rv_value *v) {
    rv_pool scratch = { 0 };
    rv_value_read(&scratch, kind, text, bytes, NULL, v);
    const bool valid = v->state == RV_VALUE_VALID;
    rv_pool_free(&scratch);
    return valid;
}

/* The longest start that reads as a valid value, cut at word ends. */
static size_t longest_valid(rv_value_kind kind, const char *text, size_t bytes) {
    size_t most = bytes < MOST_VALUE ? bytes : MOST_VALUE;
    rv_value v;
    for (size_t n = most; n > 0; n--) {
        if (n < bytes && is_word(text[n]) && is_word(text[n - 1])) continue;
        if (!is_word(text[n - 1]) || memchr(text, '\n', n)) continue;
        if (reads(kind, text, n, &v)) return n;
    }
    return 0;
}

/* Whether an amount may end in front of text[n]: not inside a number, a rate or a range; a minus behind is one only when glued. */
static bool ends_amount(const char *text, size_t n, size_t bytes) {
    const char last = text[n - 1], next = n < bytes ? text[n] : ' ';
    if (last == '-' ? n < 2 || !isdigit((uint8_t)text[n - 2]) || is_word(next) : !isalnum((uint8_t)last) && last != ')' && last != '$') return false;
    if (is_word(last) && is_word(next) && (uint8_t)next < 0x80) return false;
    if (isdigit((uint8_t)last) && strchr(".,", next) && n + 1 < bytes && isdigit((uint8_t)text[n + 1])) return false;
    while (n < bytes && text[n] == ' ') n++;
    return n == bytes || (text[n] != '%' && !match_name(text + n, bytes - n, "percent") && !match_name(text + n, bytes - n, "per cent"));
}

/* The longest start that is an amount: with a currency or with cents, since a bare "5" is none. */
static size_t money_length(const char *text, size_t bytes) {
    size_t most = bytes < MOST_VALUE ? bytes : MOST_VALUE;
    rv_value v;
    for (size_t n = most; n > 0; n--)
        if (ends_amount(text, n, bytes) && reads(RV_KIND_MONEY, text, n, &v) && (!v.currency_assumed || memchr(text, '.', n))) return n;
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
        if (only_qualifies(text, at, at + n, bytes)) continue;
        size_t begin = at + n + skip_connectors(text + at + n, bytes - at - n, f->kind == RV_KIND_MONEY);
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
