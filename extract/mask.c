/* mask.c - card numbers, tax file numbers and account numbers are never stored whole.
 *
 * The one idea: a text is cut into groups of digits and the gaps between them; a number is some groups in a row, so whatever stands
 * beside it (a date, another number) does not hide it.  What passes its check is masked in place, and the text around it stays
 * as it was.  PCI DSS allows the last four digits of a card to be shown; the Privacy (Tax File Number) Rule 2015 allows a tax
 * file number to be kept for purposes of tax law only.
 */
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "engine/base/text.h"
#include "extract/value.h"

enum { NEAR_BYTES = 48, MOST_GAP = 3, FEWEST_CARD = 13, MOST_CARD = 19, BROKEN = 'x', MIXED = 'm' };

/* Digits side by side; the first of them is digits[at]. */
typedef struct group { size_t begin, end, at, n; char gap; } group;      /* gap: what parts it from the group before; BROKEN: no number goes on */

typedef struct cut {
    const char *text;
    size_t      bytes, n;
    group      *groups;
    char       *digits;
    bool        is_file;
} cut;

/* ---- characters ------------------------------------------------------------------------------------ */

/* The character at `at`, full-width forms and digits of other widths as ASCII; how many bytes it has.  0: none, or no UTF-8. */
static uint32_t fold(const char *text, size_t bytes, size_t at, size_t *n) {
    utf8proc_int32_t c;
    utf8proc_ssize_t length = utf8proc_iterate((const utf8proc_uint8_t *)text + at, (utf8proc_ssize_t)(bytes - at), &c);
    *n = length > 0 ? (size_t)length : 1;
    if (length <= 0) return 0;
    if (c >= 0xff01 && c <= 0xff5e) return (uint32_t)c - 0xff01 + '!';
    if (c >= 0x1d7ce && c <= 0x1d7ff) return '0' + ((uint32_t)c - 0x1d7ce) % 10;
    return (uint32_t)c;
}

static bool is_digit(uint32_t c) { return c >= '0' && c <= '9'; }

/* Which separator a character is: a blank, a mark; BROKEN: none. */
static char separator(uint32_t c) {
    if (c < 128) return c == '\t' ? ' ' : c && strchr(" -./_,:", (int)c) ? (char)c : BROKEN;
    if (c == 0x2212) return '-';
    if (c == 0xb7 || c == 0x2022 || c == 0x2027 || c == 0x22c5 || c == 0x30fb) return '.';
    switch (utf8proc_category((utf8proc_int32_t)c)) {
    case UTF8PROC_CATEGORY_ZS: case UTF8PROC_CATEGORY_CF: return ' ';
    case UTF8PROC_CATEGORY_PD: return '-';
    default: return BROKEN;
    }
}

/* What stands between two groups, as one character.  A comma and a blank part the items of a list. */
static char gap_of(const char *text, size_t begin, size_t end) {
    char kind = ' ';
    size_t count = 0, n;
    bool blank = false;
    for (size_t at = begin; at < end; at += n, count++) {
        char is = separator(fold(text, end, at, &n));
        if (is == BROKEN || count == MOST_GAP) return BROKEN;
        if (is == ' ') blank = true;
        else kind = kind == ' ' || kind == is ? is : MIXED;
    }
    return kind == ',' && blank ? BROKEN : kind;
}

static bool cut_text(cut *c) {
    size_t n = 0, digits = 0;
    c->groups = malloc((c->bytes / 2 + 1) * sizeof *c->groups);
    c->digits = malloc(c->bytes + 1);
    if (!c->groups || !c->digits) return false;
    for (size_t at = 0; at < c->bytes; at += n) {
        uint32_t is = fold(c->text, c->bytes, at, &n);
        if (!is_digit(is)) continue;
        group *last = c->n ? &c->groups[c->n - 1] : NULL;
        if (!last || last->end != at) {
            c->groups[c->n++] = (group){ .begin = at, .at = digits, .gap = last ? gap_of(c->text, last->end, at) : BROKEN };
            last = &c->groups[c->n - 1];
        }
        c->digits[digits++] = (char)is;
        last->n++;
        last->end = at + n;
    }
    return true;
}

/* ---- what is no such number --------------------------------------------------------------------------- */

static int number_of(const char *digits, size_t n) {
    int number = 0;
    for (size_t i = 0; i < n; i++) number = 10 * number + digits[i] - '0';
    return number;
}

static bool is_day(int year, int month, int day) {
    return year >= 1900 && year < 2100 && rv_date_exists((rv_date){ (int16_t)year, (int8_t)month, (int8_t)day });
}

static bool begins_with_day(const char *d, size_t n) { return n >= 8 && is_day(number_of(d, 4), number_of(d + 4, 2), number_of(d + 6, 2)); }

/* 01/07/2023 or 2023-07-01. */
static bool is_date(const cut *c, size_t i, size_t n) {
    const group *g = c->groups + i;
    const char *d = c->digits + g->at;
    if (n != 3 || g[1].gap != g[2].gap || g[1].gap == MIXED) return false;
    if (g[0].n == 4 && g[1].n == 2 && g[2].n == 2) return begins_with_day(d, 8);
    return g[0].n == 2 && g[1].n == 2 && g[2].n == 4 && is_day(number_of(d + 4, 4), number_of(d + 2, 2), number_of(d, 2));
}

/* Groups of the ABN that begins here; 0: none does. */
static size_t abn_at(const cut *c, size_t i) {
    static const size_t form[] = { 2, 3, 3, 3 };
    const char *d = c->digits + c->groups[i].at;
    if (c->groups[i].n == 11) return rv_abn_valid(d, 11);
    for (size_t k = 0; k < 4; k++)
        if (i + k >= c->n || c->groups[i + k].n != form[k] || (k && c->groups[i + k].gap == BROKEN)) return 0;
    return rv_abn_valid(d, 11) ? 4 : 0;
}

/* ---- cards ---------------------------------------------------------------------------------------------- */

static bool begins_as_a_scheme(const char *d) { return *d >= '2' && *d <= '6'; }

/* 4-4-4-4 and longer, 4-6-5, 4-6-4, parted all alike. */
static bool is_printed_as_card(const group *g, size_t n) {
    for (size_t k = 2; k < n; k++)
        if (g[k].gap != g[1].gap) return false;
    if (n == 3 && g[0].n == 4 && g[1].n == 6) return g[2].n == 4 || g[2].n == 5;
    for (size_t k = 0; k + 1 < n; k++)
        if (g[k].n != 4) return false;
    return g[n - 1].n <= 4;
}

/* Digits that pass Luhn may still be years, time stamps, or an ABN beside something else. */
static bool may_be_card(const cut *c, const group *g, size_t n) {
    const char *d = c->digits + g->at;
    bool years = true;
    if (begins_with_day(d, g->n)) return false;
    for (size_t k = 0; k < n; k++) {
        const char *at = c->digits + g[k].at;
        if (g[k].n == 11 && rv_abn_valid(at, 11)) return false;
        years = years && (g[k].n == 4 || (g[k].n == 8 && begins_with_day(at, 8))) && is_day(number_of(at, 4), 1, 1);
    }
    return !years && (begins_as_a_scheme(d) || (!c->is_file && (n == 1 || is_printed_as_card(g, n))));
}

/* Groups of four or more but for the last (a BSB and an account side by side are none): how many make a card number. */
static size_t long_groups(const cut *c, size_t i) {
    const group *g = c->groups + i;
    size_t total = 0, best = 0;
    for (size_t k = 0; i + k < c->n && (k == 0 || g[k].gap != BROKEN); k++) {
        total += g[k].n;
        if (total > MOST_CARD) break;
        if (total >= FEWEST_CARD && rv_luhn_valid(c->digits + g->at, total) && may_be_card(c, g, k + 1)) best = k + 1;
        if (g[k].n < 4) break;
    }
    return best;
}

/* Digits one by one or in pairs, all parted alike, as many as the cards of a scheme have. */
static size_t short_groups(const cut *c, size_t i) {
    const group *g = c->groups + i;
    size_t total = 0, best = 0, size = g->n;
    if (size > 2 || c->is_file || !begins_as_a_scheme(c->digits + g->at)) return 0;
    for (size_t k = 0; i + k < c->n && g[k].n <= size && total <= MOST_CARD; k++) {
        if (k && (g[k].gap != g[1].gap || g[k].gap == BROKEN || g[k].gap == MIXED || g[k].gap == ',')) break;
        total += g[k].n;
        bool usual = (total >= 14 && total <= 16) || total == MOST_CARD;
        if (usual && rv_luhn_valid(c->digits + g->at, total)) best = k + 1;
        if (g[k].n < size) break;
    }
    return best;
}

static size_t card_at(const cut *c, size_t i) {
    size_t n = long_groups(c, i);
    return n ? n : short_groups(c, i);
}

/* ---- tax file numbers ----------------------------------------------------------------------------------- */

static bool is_alnum(char c) { return is_digit((uint32_t)(unsigned char)c) || (c >= 'a' && c <= 'z'); }

/* The bytes of `words`, one after the other ("tax file" with up to three marks between); where it ends, or 0. */
static size_t spaced(const char *at, const char *const *words, size_t n) {
    size_t end = 0;
    for (size_t k = 0; k < n; k++) {
        for (size_t marks = 0; k && marks < 3 && at[end] && !is_alnum(at[end]); marks++) end++;
        size_t length = strlen(words[k]);
        if (strncmp(at + end, words[k], length)) return 0;
        end += length;
    }
    return end;
}

/* "TFN", "T.F.N.", "tax file", "tax-file", "taxfile". */
static bool says_tfn(const char *folded) {
    static const char *const letters[] = { "t", "f", "n" }, *const words[] = { "tax", "file" };
    for (const char *at = folded; *at; at++) {
        size_t end = spaced(at, letters, 3);
        bool whole = end == 3 || (end && (at == folded || !is_alnum(at[-1])) && !is_alnum(at[end]));
        if (whole || spaced(at, words, 2)) return true;
    }
    return false;
}

/* Whether the text just before (or just behind) speaks of tax file numbers. */
static bool near_tfn(const cut *c, size_t begin, size_t end) {
    char folded[2 * NEAR_BYTES + 64];
    size_t from = begin > NEAR_BYTES ? begin - NEAR_BYTES : 0, to = end + NEAR_BYTES / 2 < c->bytes ? end + NEAR_BYTES / 2 : c->bytes, n, bytes = 0;
    for (size_t at = from; at < to && bytes + 1 < sizeof folded; at += n) {
        uint32_t is = fold(c->text, c->bytes, at, &n);
        folded[bytes++] = is >= 'A' && is <= 'Z' ? (char)(is - 'A' + 'a') : is && is < 128 ? (char)is : ' ';
    }
    folded[bytes] = '\0';
    return says_tfn(folded);
}

static size_t tfn_at(const cut *c, size_t i) {
    const group *g = c->groups + i;
    size_t total = 0, best = 0;
    for (size_t k = 0; i + k < c->n && (k == 0 || g[k].gap != BROKEN) && total < 9; k++) {
        total += g[k].n;
        if ((total == 8 || total == 9) && rv_tfn_valid(c->digits + g->at, total) && !is_date(c, i, k + 1) && near_tfn(c, g->begin, g[k].end)) best = k + 1;
    }
    return best;
}

/* ---- masking -------------------------------------------------------------------------------------------- */

/* The bytes from `begin` to `end`, in which all digits but the last `keep` are stars, each as long as its digit was. */
static void add_masked(rv_string *out, const char *text, size_t begin, size_t end, size_t keep) {
    static const char *const stars[] = { "", "*", "", "\xef\xbc\x8a", "\xf0\x9f\x9e\xb6" };
    size_t digits = 0, seen = 0, n;
    for (size_t at = begin; at < end; at += n) digits += is_digit(fold(text, end, at, &n));
    for (size_t at = begin; at < end; at += n) {
        bool digit = is_digit(fold(text, end, at, &n));
        if (digit) seen++;
        rv_string_add(out, digit && seen + keep <= digits ? stars[n] : text + at, n);
    }
}

/* How many numbers were masked. */
static uint32_t mask_numbers(const cut *c, rv_string *out) {
    uint32_t masked = 0;
    size_t at = 0;
    for (size_t i = 0; i < c->n;) {
        size_t abn = abn_at(c, i), tfn = abn ? 0 : tfn_at(c, i), n = tfn ? tfn : card_at(c, i);
        if (!n) {
            i += abn ? abn : 1;
            continue;
        }
        const size_t begin = c->groups[i].begin, end = c->groups[i + n - 1].end;
        rv_string_add(out, c->text + at, begin - at);
        add_masked(out, c->text, begin, end, tfn ? 3 : 4);
        at = end;
        i += n;
        masked++;
    }
    rv_string_add(out, c->text + at, c->bytes - at);
    return masked;
}

/* As long as the text was. */
static char *mask_once(const char *text, size_t bytes, rv_sensitivity what, uint32_t *n_masked) {
    rv_string out = { 0 };
    cut c = { .text = text, .bytes = bytes, .is_file = what == RV_SENSITIVE_FILE };
    bool good = cut_text(&c);
    size_t digits = 0, keep = what == RV_SENSITIVE_CARD ? 4 : 3;
    *n_masked = 0;
    for (size_t i = 0; good && i < c.n; i++) digits += c.groups[i].n;
    if (!good || what == RV_SENSITIVE_NOT || what == RV_SENSITIVE_FILE) *n_masked = good ? mask_numbers(&c, &out) : 0;
    else {                                                  /* the field holds one: whatever it looks like */
        add_masked(&out, text, 0, bytes, keep);
        *n_masked = digits > keep;
    }
    free(c.groups);
    free(c.digits);
    rv_string_add(&out, "", 0);
    if (!good || out.failed) {
        rv_string_free(&out);
        return NULL;
    }
    return out.data;
}

/* The digits that a masked number keeps may begin another one with those behind it: until nothing is left. */
char *rv_mask(const char *text, size_t bytes, rv_sensitivity what, uint32_t *n_masked) {
    uint32_t masked, all = 0;
    char *out = mask_once(text, bytes, what, &masked);
    while (out && masked) {
        all += masked;
        char *before = out;
        out = mask_once(before, bytes, what, &masked);
        free(before);
    }
    if (n_masked) *n_masked = all;
    return out;
}
