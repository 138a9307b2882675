/* mask.c - card numbers and tax file numbers are never stored whole.
 *
 * The one idea: a run of digits is judged with its separators taken out; what passes its check is masked in place, so that the
 * text around it stays as it was.  PCI DSS allows the last four digits of a card to be shown; the Privacy (Tax File
 * Number) Rule 2015 allows a tax file number to be kept for purposes of tax law only.
 */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "extract/value.h"

enum { MOST_RUN = 24, NEAR_BYTES = 48 };

typedef struct run { size_t begin, end; char digits[MOST_RUN]; size_t n; } run;

/* The next run of digits with single blanks, points or hyphens between them. False: none. A longer run than any number has comes in full
 * but is cut in `digits`. */
static bool next_run(const char *text, size_t bytes, size_t from, run *r) {
    size_t at = from;
    while (at < bytes && !isdigit((uint8_t)text[at])) at++;
    if (at == bytes) return false;
    *r = (run){ .begin = at };
    for (; at < bytes; at++) {
        if (isdigit((uint8_t)text[at])) {
            if (r->n < MOST_RUN) r->digits[r->n] = text[at];
            r->n++;
            r->end = at + 1;
        } else if (!strchr(" -.", text[at]) || text[at] == '\0' || at + 1 == bytes || !isdigit((uint8_t)text[at + 1])) break;
    }
    return true;
}

static bool has_word(const char *text, size_t bytes, const char *word) {
    size_t n = strlen(word);
    for (size_t i = 0; i + n <= bytes; i++)
        if (strncasecmp(text + i, word, n) == 0) return true;
    return false;
}

/* Whether the text just before (or just behind) speaks of tax file numbers. */
static bool near_tfn(const char *text, size_t bytes, const run *r) {
    size_t begin = r->begin > NEAR_BYTES ? r->begin - NEAR_BYTES : 0, end = r->end + NEAR_BYTES / 2 < bytes ? r->end + NEAR_BYTES / 2 : bytes;
    const char *at = text + begin;
    return has_word(at, end - begin, "tfn") || has_word(at, end - begin, "t.f.n") || has_word(at, end - begin, "tax file") ||
           has_word(at, end - begin, "taxfile");
}

/* The end of the card number that begins at `begin`, or 0: 13 to 19 digits that pass Luhn, beginning with 2 to 6 as all schemes
 * do, in groups of four or more but for the last (a BSB and an account side by side are none). */
static size_t card_end(const char *text, const run *r, size_t begin) {
    char digits[20];
    size_t n = 0, group = 0, best = 0;
    if (text[begin] < '2' || text[begin] > '6') return 0;
    for (size_t at = begin; at < r->end; at++) {
        if (!isdigit((uint8_t)text[at])) {
            if (group < 4) break;
            group = 0;
            continue;
        }
        if (n == 19) return best;
        digits[n++] = text[at];
        group++;
        bool group_ends = at + 1 == r->end || !isdigit((uint8_t)text[at + 1]);
        if (group_ends && n >= 13 && rv_luhn_valid(digits, n)) best = at + 1;
    }
    return best;
}

static void add_masked(rv_string *out, const char *text, size_t begin, size_t end, size_t keep) {
    size_t digits = 0, seen = 0;
    for (size_t i = begin; i < end; i++) digits += isdigit((uint8_t)text[i]) != 0;
    for (size_t i = begin; i < end; i++) {
        bool digit = isdigit((uint8_t)text[i]) != 0;
        if (digit) seen++;
        rv_string_add(out, digit && seen + keep <= digits ? "*" : text + i, 1);
    }
}

/* Masks what is in the run; how many numbers. */
static uint32_t mask_run(rv_string *out, const char *text, size_t bytes, const run *r, rv_sensitivity what) {
    bool field = what == RV_SENSITIVE_TFN;
    if ((r->n == 8 || r->n == 9) && (field || (near_tfn(text, bytes, r) && rv_tfn_valid(r->digits, r->n)))) {
        add_masked(out, text, r->begin, r->end, 3);
        return 1;
    }
    uint32_t masked = 0;
    size_t at = r->begin;
    while (at < r->end) {
        size_t end = card_end(text, r, at);
        if (end) {
            add_masked(out, text, at, end, 4);
            at = end;
            masked++;
            continue;
        }
        do rv_string_add(out, text + at++, 1);
        while (at < r->end && (isdigit((uint8_t)text[at - 1]) || !isdigit((uint8_t)text[at])));     /* to the next group */
    }
    return masked;
}

/* As long as the text was. */
static char *mask_once(const char *text, size_t bytes, rv_sensitivity what, uint32_t *n_masked) {
    rv_string out = { 0 };
    run r;
    size_t at = 0;
    uint32_t masked = 0;
    while (next_run(text, bytes, at, &r)) {
        rv_string_add(&out, text + at, r.begin - at);
        masked += mask_run(&out, text, bytes, &r, what);
        at = r.end;
    }
    rv_string_add(&out, text + at, bytes - at);
    rv_string_add(&out, "", 0);
    if (out.failed) {
        rv_string_free(&out);
        return NULL;
    }
    if (!out.data) out.data = calloc(1, 1);
    *n_masked = masked;
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
