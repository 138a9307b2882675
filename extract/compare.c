/* compare.c - one field against the truth: see evaluate.h. */
#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "extract/evaluate.h"
#include "extract/similar.h"

void rv_tally_add(rv_tallied *to, const rv_tallied *what) {
    to->cells += what->cells;
    to->exact += what->exact;
    to->same += what->same;
    to->anls += what->anls;
    to->hits += what->hits;
    to->inventions += what->inventions;
    to->misses += what->misses;
    to->absent += what->absent;
    to->invented += what->invented;
    to->present += what->present;
    to->missed += what->missed;
}

static double ratio(double a, double b) { return b > 0 ? a / b : -1; }

double rv_precision(const rv_tallied *t) { return ratio(t->hits, t->hits + t->inventions); }
double rv_recall(const rv_tallied *t) { return ratio(t->hits, t->hits + t->misses); }

/* The harmonic mean of both; no items at all: nothing to count. */
double rv_f1(const rv_tallied *t) {
    double p = rv_precision(t), r = rv_recall(t);
    if (t->hits + t->inventions + t->misses <= 0) return -1;
    return p > 0 && r > 0 ? 2 * p * r / (p + r) : 0;
}

double rv_rate_exact(const rv_tallied *t) { return ratio(t->exact, t->cells); }
double rv_rate_same(const rv_tallied *t) { return ratio(t->same, t->cells); }
double rv_rate_anls(const rv_tallied *t) { return ratio(t->anls, t->cells); }
double rv_rate_invented(const rv_tallied *t) { return ratio(t->invented, t->absent); }
double rv_rate_missed(const rv_tallied *t) { return ratio(t->missed, t->present); }

/* ---- one value ------------------------------------------------------------------------------------- */

/* Case and blanks do not matter. */
static bool same_as_printed(const char *a, const char *b) {
    for (;;) {
        while (isspace((uint8_t)*a)) a++;
        while (isspace((uint8_t)*b)) b++;
        if (tolower((uint8_t)*a) != tolower((uint8_t)*b)) return false;
        if (!*a) return true;
        a++, b++;
    }
}

static bool counts(char c) { return isalnum((uint8_t)c) || (uint8_t)c >= 0x80; }

/* Case, blanks and punctuation do not matter. */
static bool same_letters(const char *a, const char *b) {
    for (;;) {
        while (*a && !counts(*a)) a++;
        while (*b && !counts(*b)) b++;
        if (tolower((uint8_t)*a) != tolower((uint8_t)*b)) return false;
        if (!*a) return true;
        a++, b++;
    }
}

enum { MOST_WORDS = 64 };

static size_t words_of(const char *text, const char *words[MOST_WORDS], size_t lengths[MOST_WORDS]) {
    size_t n = 0;
    while (*text && n < MOST_WORDS) {
        while (*text && !counts(*text)) text++;
        size_t length = 0;
        while (counts(text[length])) length++;
        if (!length) break;
        bool seen = false;
        for (size_t i = 0; i < n && !seen; i++) seen = lengths[i] == length && strncasecmp(words[i], text, length) == 0;
        if (!seen) words[n] = text, lengths[n++] = length;
        text += length;
    }
    return n;
}

static double jaccard(const char *a, const char *b) {
    const char *aw[MOST_WORDS], *bw[MOST_WORDS];
    size_t al[MOST_WORDS], bl[MOST_WORDS], n = words_of(a, aw, al), m = words_of(b, bw, bl), both = 0;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) both += al[i] == bl[j] && strncasecmp(aw[i], bw[j], al[i]) == 0;
    return n + m ? (double)both / (double)(n + m - both) : 1;
}

static double similarity(const char *a, const char *b) {
    char *x = strdup(a), *y = strdup(b);
    double s = -1;
    if (x && y) {
        for (char *at = x; *at; at++) *at = (char)tolower((uint8_t)*at);
        for (char *at = y; *at; at++) *at = (char)tolower((uint8_t)*at);
        s = rv_similarity(x, y);
    }
    free(x);
    free(y);
    return s;
}

double rv_anls(const char *a, const char *b) {
    double s = similarity(a, b);
    return s < 0.5 ? 0 : s;
}

static bool is_text(rv_value_kind kind) { return kind == RV_KIND_TEXT || kind == RV_KIND_NAME || kind == RV_KIND_ADDRESS || kind == RV_KIND_ID; }

bool rv_same_meaning(const rv_value *a, const rv_value *b, bool loose) {
    if (a->state == RV_VALUE_ABSENT || b->state == RV_VALUE_ABSENT) return a->state == b->state;
    if (rv_value_same(a, b)) return true;
    if (a->kind == RV_KIND_MONEY && a->state == RV_VALUE_VALID && b->state == RV_VALUE_VALID)      /* a currency that one text leaves out */
        return a->number == b->number && !a->inexact && !b->inexact && (a->currency_assumed || b->currency_assumed);
    if (!is_text(a->kind) && (a->state == RV_VALUE_VALID || b->state == RV_VALUE_VALID)) return false;      /* what nobody can read is no amount */
    if (same_letters(a->text, b->text)) return true;
    return loose && (similarity(a->text, b->text) >= 0.90 || jaccard(a->text, b->text) >= 0.75);
}

/* ---- one field ---------------------------------------------------------------------------------------- */

static const rv_value nothing = { .state = RV_VALUE_ABSENT, .raw = "", .text = RV_NOT_FOUND };

/* What is at place i of both lists. */
static void compare_item(const rv_value *t, const rv_value *p, bool loose, bool substitutions, rv_tallied *out, bool *exact, bool *same) {
    bool there = t->state != RV_VALUE_ABSENT, given = p->state != RV_VALUE_ABSENT;
    if (!there && !given) {
        out->anls += 1;
        return;
    }
    bool right = rv_same_meaning(t, p, loose);
    *same = *same && right;
    *exact = *exact && there && given && same_as_printed(t->raw, p->raw);
    if (there && given) out->anls += rv_anls(t->text, p->text);
    if (right) out->hits++;
    else {
        out->misses += there;
        out->inventions += given && (!there || substitutions);
    }
}

void rv_compare_field(const rv_record *truth, const rv_record *run, uint32_t field, bool substitutions, rv_tallied *out) {
    const rv_slot *t = &truth->slots[field], *p = run ? &run->slots[field] : NULL;
    uint32_t n = t->n_items, m = p ? p->n_items : 0, most = n > m ? n : m;
    int32_t group = truth->schema->fields[field].group;
    bool loose = group >= 0 && strcmp(truth->schema->groups[group], "transactions") == 0, exact = true, same = true;
    *out = (rv_tallied){ 0 };
    if (!t->answered || !truth->schema->fields[field].scored) return;
    for (uint32_t i = 0; i < most; i++)
        compare_item(i < n ? &t->items[i] : &nothing, i < m ? &p->items[i] : &nothing, loose, substitutions, out, &exact, &same);
    out->cells = 1;
    out->anls = most ? out->anls / most : 1;
    out->exact = exact;
    out->same = same;
    out->absent = n == 0;
    out->invented = n == 0 && m > 0;
    out->present = n > 0;
    out->missed = n > 0 && m == 0;
}
