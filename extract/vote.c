/* vote.c - dates and amounts in cells, and which reading of a cell is believed. */
#include "extract/vote.h"

#include <ctype.h>
#include <string.h>

#include "engine/base/text.h"

enum { FIRST_LIKELY = 1990, LAST_LIKELY = 2049, MOST_SAID = 6, LONGEST_NUMBER = 10 };

typedef struct said { rv_value_kind kind; int64_t value; } said;
typedef struct saying { said all[MOST_SAID]; uint32_t n; } saying;

bool rv_likely_year(int year) { return year >= FIRST_LIKELY && year <= LAST_LIKELY; }

static bool is_digit(char c) { return isdigit((unsigned char)c) != 0; }
static size_t digits_at(const char *c) { return strspn(c, "0123456789"); }

/* ---- forms ---- */

static size_t month_name(const char *c) {
    size_t n = 0;
    while (isalpha((unsigned char)c[n])) n++;
    return rv_month_of(c, n) ? n : 0;
}

/* The length of "31/12/2017", "31 Dec 17", "2017-12-31", .. there; 0: none.  Whether such a day exists is asked later. */
static size_t date_form(const char *c) {
    size_t at = digits_at(c), n;
    if (at != 1 && at != 2 && at != 4) return 0;
    const bool year_first = at == 4, gap = c[at] && strchr(" -/.", c[at]);
    if (!year_first && (n = month_name(c + at + gap))) {
        at += gap + n;
        if (c[at] && strchr(" -/.,'", c[at])) at++;
        n = digits_at(c + at);
        return n == 2 || n == 4 ? at + n : 0;
    }
    if (!gap || c[at] == ' ') return 0;
    n = digits_at(c + ++at);
    if (n != 1 && n != 2) return 0;
    at += n;
    if (!c[at] || !strchr("-/.", c[at])) return 0;
    n = digits_at(c + ++at);
    return (year_first ? n == 1 || n == 2 : n == 2 || n == 4) ? at + n : 0;
}

/* The length of "1,234.50" there; 0: none. */
static size_t amount_form(const char *c) {
    size_t at = is_digit(*c) ? strspn(c, "0123456789,") : 0;
    return at && c[at] == '.' && digits_at(c + at + 1) == 2 ? at + 3 : 0;
}

static void add(saying *s, rv_value_kind kind, int64_t value) {
    if (s->n < MOST_SAID) s->all[s->n++] = (said){ kind, value };
}

static void listen(const char *text, saying *out) {
    rv_pool pool = { 0 };
    for (const char *c = text; *c;) {
        rv_value v = { 0 };
        size_t n;
        if (!is_digit(*c)) { c++; continue; }
        if ((n = date_form(c))) {
            rv_value_read(&pool, RV_KIND_DATE, c, n, NULL, &v);
            if (v.state == RV_VALUE_VALID && rv_likely_year(v.first.year)) add(out, RV_KIND_DATE, rv_date_days(v.first));
        } else if ((n = amount_form(c))) {
            rv_value_read(&pool, RV_KIND_MONEY, c, n, NULL, &v);
            if (v.state == RV_VALUE_VALID && !v.inexact) add(out, RV_KIND_MONEY, v.number);
        } else n = strspn(c, "0123456789");
        c += n;
    }
    rv_pool_free(&pool);
}

/* ---- the vote ---- */

static bool has(const saying *s, said what) {
    for (uint32_t i = 0; i < s->n; i++)
        if (s->all[i].kind == what.kind && s->all[i].value == what.value) return true;
    return false;
}

static bool same(const saying *a, const saying *b) {
    if (a->n != b->n) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (a->all[i].kind != b->all[i].kind || a->all[i].value != b->all[i].value) return false;
    return true;
}

/* Everything said counts by how many others say it too; to have said anything counts a little. */
static float weight(const saying *all, uint32_t n, uint32_t which) {
    float sum = all[which].n ? 0.5f : 0;
    for (uint32_t i = 0; i < all[which].n; i++)
        for (uint32_t k = 0; k < n; k++) sum += k != which && has(&all[k], all[which].all[i]);
    return sum;
}

/* Of a letter, on average. */
static float sureness(const rv_opinion *v) {
    float sum = 0, letters = 0;
    for (uint32_t i = 0; i < v->n_words; i++) {
        sum += v->words[i].confidence * (float)strlen(v->words[i].text);
        letters += (float)strlen(v->words[i].text);
    }
    return letters > 0 ? sum / letters : 0;
}

static rv_status text_of(const rv_opinion *v, rv_string *out, rv_error *err) {
    out->bytes = 0;
    for (uint32_t i = 0; i < v->n_words; i++) rv_string_addf(out, "%s%s", i ? " " : "", v->words[i].text);
    return out->failed ? rv_fail_memory(err, "words of a page") : RV_OK;
}

rv_status rv_vote(const rv_opinion *opinions, uint32_t n, rv_verdict *out, rv_error *err) {
    saying all[RV_MOST_OPINIONS] = { 0 };
    rv_string text = { 0 };
    float best = 0, surest = 0;
    rv_status st = RV_OK;
    *out = (rv_verdict){ 0 };
    for (uint32_t i = 0; i < n; i++) {
        TRY(text_of(&opinions[i], &text, err));
        listen(rv_string_text(&text), &all[i]);
    }
    for (uint32_t i = 0; i < n; i++) {
        const float w = weight(all, n, i), sure = sureness(&opinions[i]);
        if (w < best || w <= 0 || (w <= best && sure <= surest)) continue;
        best = w;
        surest = sure;
        out->chosen = i;
    }
    for (uint32_t i = 0; i < n && best > 0; i++) out->agree += same(&all[i], &all[out->chosen]);
done:
    rv_string_free(&text);
    return st;
}

uint32_t rv_opinion_digits(const rv_opinion *v) {
    uint32_t digits = 0;
    for (uint32_t i = 0; i < v->n_words; i++)
        for (const char *c = v->words[i].text; *c; c++) digits += is_digit(*c);
    return digits;
}

bool rv_may_say(const rv_opinion *v) {
    const uint32_t digits = rv_opinion_digits(v);
    bool number = true;
    for (uint32_t i = 0; i < v->n_words; i++) number = number && v->words[i].text[digits_at(v->words[i].text)] == 0;
    return digits >= 2 && !(number && digits >= LONGEST_NUMBER);
}

bool rv_may_be_date(const rv_opinion *v) {
    for (uint32_t i = 0; i < v->n_words; i++)
        if (strchr(v->words[i].text, '/') || strcasestr(v->words[i].text, "date")) return true;
    return false;
}
