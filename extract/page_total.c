/* page_total.c - which amount on the page is to be paid.
 *
 * The one idea: a line that says "total" is a claim, not a proof; anybody can print one.  What the rest of the page says is the proof:
 * items, subtotal with GST, GST as its eleventh, cash less change.  The amount that lines claim is taken as long as no other has
 * more proofs; where lines disagree and nothing settles it, or proofs speak against them, the others are kept as alternatives and the
 * field is unsure, so that somebody looks.
 */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "engine/base/text.h"
#include "extract/page.h"

enum { MOST_CENTS = 100000000, MARK = 3, MOST_AMOUNTS = 256, MOST_ALTERNATIVES = 4, ROUNDING = 5, PROOFS = 2 };

/* An amount, and what its line speaks of. */
typedef struct amount {
    const char *text;
    int64_t     cents;
    int         line;
    bool        last;                    /* of its line                                         */
    bool        claimed, rounded;        /* the line, or the one above, says that it is the total; after rounding */
    bool        other;                   /* the line speaks of another sum                      */
    bool        tax, net, given, change;
    float       sure;                    /* confidence of the recogniser                        */
    bool        unsure;                  /* hardly read, and nowhere else                       */
} amount;

typedef struct sums { amount *all; uint32_t n; const rv_field *field; bool rounds; } sums;

static bool says(const char *text, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcasestr(text, words[i])) return true;
    return false;
}
#define SAYS(text, ...) says(text, (const char *const[]){ __VA_ARGS__ }, sizeof((const char *const[]){ __VA_ARGS__ }) / sizeof(char *))

static bool is_other_sum(const char *text) {
    if (strcasestr(text, "incl")) return strcasestr(text, "sub") != NULL;        /* "Total incl. GST" is one */
    return SAYS(text, "sub", "qty", "quantity", "item", "discount", "saving", "gst", "tax", "rounding", "round", "cash", "tender", "change", "paid", "accept", "receiv", "balance", "points",
                "excl");
}

static bool reads_as(rv_record *record, const rv_field *f, const char *text, int64_t *cents) {
    const rv_value_context context = { f->choices, f->choice_aliases, record->today };
    size_t digits = 0;
    rv_value v;
    for (const char *c = text; *c; c++) digits += isdigit((unsigned char)*c) != 0;
    if (digits < 3 || !strchr(text, '.')) return false;                          /* a count or a year is no amount */
    rv_value_read(&record->pool, f->kind, text, strlen(text), &context, &v);
    *cents = v.number;
    return v.state == RV_VALUE_VALID && !v.inexact && v.number >= 0 && v.number < MOST_CENTS;      /* nobody pays $29.685 */
}

/* ---- what is there ---- */

static void describe(amount *a, const sums *s, const char *line, bool above) {
    a->rounded = SAYS(line, "rounded", "after round");
    bool here = (SAYS(line, "total", "amount incl") || rv_label_length(s->field, line)) && (a->rounded || !is_other_sum(line));
    a->other = !a->rounded && is_other_sum(line);
    a->claimed = (here || above) && !a->other;
    a->rounded &= here;
    a->tax = SAYS(line, "gst", "tax", "service", "surcharge", "tip", "freight", "delivery", "rounding");
    a->net = SAYS(line, "sub", "net", "excl");
    a->change = SAYS(line, "change");
    a->given = !a->change && SAYS(line, "cash", "tender", "paid", "visa", "master", "card", "eftpos", "amex", "debit", "receiv");
}

/* The word's amount as text: without what is glued to it, of "RM_41.45" or a misread "S41.45" the number, "29." and "70" put together. */
static const char *amount_at(const sums *s, const rv_page *p, uint32_t at, rv_record *record, int64_t *cents) {
    const rv_word *w = &p->words[at], *next = at + 1 < p->n_words && w[1].line == w->line ? w + 1 : NULL;
    const char *word = rv_unglued(w->text);
    size_t n = rv_unglued_end(RV_KIND_MONEY, word, strlen(word)), digits = strcspn(word, "0123456789");
    char *text = rv_pool_text(&record->pool, word, n);
    if (text && reads_as(record, s->field, text, cents)) return text;
    if (n && word[n - 1] == '.' && !word[n] && next && strspn(next->text, "0123456789") == 2 && !next->text[2] && next->box.x - w->box.x - w->box.width <= w->box.height) {
        char both[32];
        if (snprintf(both, sizeof both, "%.*s%s", (int)n, word, next->text) < (int)sizeof both && (text = rv_pool_text(&record->pool, both, strlen(both))) &&
            reads_as(record, s->field, text, cents)) return text;
    }
    for (size_t i = 0; i < digits; i++)
        if (!isalpha((unsigned char)word[i]) && word[i] != '_') return NULL;
    text = digits && digits <= MARK && digits < n ? rv_pool_text(&record->pool, word + digits, n - digits) : NULL;
    return text && reads_as(record, s->field, text, cents) ? text : NULL;
}

static bool stands_elsewhere(const sums *s, uint32_t i) {
    for (uint32_t k = 0; k < s->n; k++)
        if (s->all[k].cents == s->all[i].cents && s->all[k].line != s->all[i].line) return true;
    return false;
}

/* An amount that was hardly read and stands nowhere else claims less than one that lines claim and that is there twice. */
static void doubt(sums *s) {
    bool twice = false;
    for (uint32_t i = 0; i < s->n; i++) twice = twice || (s->all[i].claimed && stands_elsewhere(s, i));
    for (uint32_t i = 0; i < s->n; i++) s->all[i].unsure = twice && s->all[i].sure < RV_SURE && !stands_elsewhere(s, i);
}

static bool gather(sums *s, const rv_page *p, rv_record *record) {
    rv_string line = { 0 };
    bool above = false;
    for (uint32_t from = 0, to; from < p->n_words; from = to) {
        uint32_t before = s->n;
        line.bytes = 0;
        for (to = from; to < p->n_words && p->words[to].line == p->words[from].line; to++) rv_string_addf(&line, "%s%s", to > from ? " " : "", p->words[to].text);
        const char *text = rv_string_text(&line);
        s->rounds = s->rounds || strcasestr(text, "round");
        for (uint32_t i = from; i < to && s->n < MOST_AMOUNTS; i++) {
            amount a = { .line = p->words[i].line, .sure = p->words[i].confidence };
            if (!(a.text = amount_at(s, p, i, record, &a.cents))) continue;
            describe(&a, s, text, above);
            s->all[s->n++] = a;
        }
        if (s->n > before) s->all[s->n - 1].last = true;
        above = s->n == before && (SAYS(text, "total", "amount incl") || rv_label_length(s->field, text)) && (SAYS(text, "rounded", "after round") || !is_other_sum(text));
    }
    doubt(s);
    bool failed = line.failed;
    rv_string_free(&line);
    return !failed;
}

/* ---- proofs ---- */

static bool near(int64_t a, int64_t b) { return llabs(a - b) <= 1; }

/* The items add up to it: the last amounts of all lines that speak of no sum, its own lines left out. */
static bool items_prove(const sums *s, int64_t cents) {
    int64_t all = 0;
    uint32_t n = 0;
    for (uint32_t i = 0; i < s->n; i++) {
        const amount *a = &s->all[i];
        if (!a->last || a->claimed || a->other || a->given || a->change || a->net || a->tax || a->cents == cents) continue;
        all += a->cents;
        n++;
    }
    return n > 1 && all == cents;
}

/* Subtotal and tax, or the totals of goods with and without it, add up to it. */
static bool sum_proves(const sums *s, int64_t cents) {
    const int64_t slack = s->rounds ? 2 : 0;
    for (uint32_t i = 0; i < s->n; i++)
        for (uint32_t k = 0; k < s->n; k++) {
            const amount *a = &s->all[i], *b = &s->all[k];
            const bool parts = (a->net && b->tax) || (a->claimed && b->claimed && i < k);
            if (parts && a->cents && b->cents && a->line != b->line && llabs(a->cents + b->cents - cents) <= slack) return true;
        }
    return false;
}

static bool tax_proves(const sums *s, int64_t cents) {
    for (uint32_t i = 0; i < s->n; i++)
        if (s->all[i].tax && !s->all[i].net && cents >= 11 && near(s->all[i].cents, cents / 11 + (cents % 11 * 2 >= 11))) return true;
    return false;
}

/* Paid to the cent, or cash less change. */
static bool payment_proves(const sums *s, int64_t cents) {
    bool change = false;
    for (uint32_t i = 0; i < s->n; i++) change = change || s->all[i].change;
    for (uint32_t i = 0; i < s->n; i++) {
        if (!s->all[i].given || s->all[i].claimed) continue;
        if (!change && s->all[i].cents == cents) return true;
        for (uint32_t k = 0; k < s->n; k++)
            if (s->all[k].change && s->all[i].cents - s->all[k].cents == cents) return true;
    }
    return false;
}

static int proofs(const sums *s, int64_t cents) {
    return items_prove(s, cents) + sum_proves(s, cents) + tax_proves(s, cents) + payment_proves(s, cents);
}

/* ---- the choice ---- */

static int rank_of(const amount *a) { return 2 * (a->rounded ? 2 : a->claimed) + !a->unsure; }

/* The amount after rounding, else the largest one of the lines that claim it, else of all lines: a total is printed more than once, its parts
 * are smaller. */
static const amount *claimed(const sums *s) {
    const amount *best = NULL;
    for (uint32_t i = 0; i < s->n; i++) {
        const amount *a = &s->all[i];
        if (a->other || a->cents == 0) continue;
        const int rank = rank_of(a), than = best ? rank_of(best) : -1;
        if (rank > than || (rank == than && a->cents > best->cents)) best = a;
    }
    if (!best || !s->rounds || best->cents % 5 == 0) return best;
    for (uint32_t i = 0; i < s->n; i++)          /* cash is rounded to five cents: where that is printed too, it is to be paid */
        if (s->all[i].cents % 5 == 0 && llabs(s->all[i].cents - best->cents) <= 2) return &s->all[i];
    return best;
}

static const amount *proven(const sums *s, const amount *claim) {
    const amount *best = claim;
    int most = claim->rounded ? INT32_MAX : proofs(s, claim->cents);
    for (uint32_t i = 0; i < s->n; i++) {
        const amount *a = &s->all[i];
        if (a->other || a->cents == 0 || llabs(a->cents - claim->cents) <= ROUNDING) continue;
        const int n = proofs(s, a->cents);
        if (n > most && n >= PROOFS) best = a, most = n;
    }
    return best;
}

/* A claim that the chosen amount does not account for: neither rounded nor short of it by what the page adds. */
static bool contradicts(const sums *s, const amount *a, const amount *chosen) {
    if (!a->claimed || llabs(a->cents - chosen->cents) <= ROUNDING) return false;
    for (uint32_t i = 0; i < s->n; i++)
        if (s->all[i].tax && s->all[i].line != a->line && llabs(llabs(chosen->cents - a->cents) - s->all[i].cents) <= ROUNDING) return false;
    return true;
}

static rv_status keep_others(const sums *s, const amount *chosen, const amount *claim, rv_record *record, uint32_t field, rv_error *err) {
    rv_slot *slot = &record->slots[field];
    const char **others = rv_pool_take(&record->pool, MOST_ALTERNATIVES * sizeof *others);
    if (!others) return rv_fail_memory(err, "record");
    slot->n_alternatives = 0;
    for (uint32_t i = 0; i < s->n && slot->n_alternatives < MOST_ALTERNATIVES; i++) {
        bool known = s->all[i].cents == chosen->cents || (&s->all[i] != claim && !contradicts(s, &s->all[i], chosen));
        for (uint32_t k = 0; k < slot->n_alternatives && !known; k++) known = !strcmp(others[k], s->all[i].text);
        if (known) continue;
        const char *copy = rv_tidy(&record->pool, s->all[i].text, strlen(s->all[i].text));
        if (!copy) return rv_fail_memory(err, "record");
        others[slot->n_alternatives++] = copy;
    }
    if (slot->n_alternatives) slot->alternatives = others;
    return RV_OK;
}

rv_status rv_page_total(const rv_page *page, rv_record *record, uint32_t field, bool *found, int *proven_by, rv_error *err) {
    sums s = { .field = &record->schema->fields[field] };
    *found = false;
    if (proven_by) *proven_by = 0;
    if (!(s.all = calloc(MOST_AMOUNTS, sizeof *s.all)) || !gather(&s, page, record)) {
        free(s.all);
        return rv_fail_memory(err, "rules");
    }
    rv_status st = RV_OK;
    const amount *claim = claimed(&s), *chosen = claim ? proven(&s, claim) : NULL;
    if (chosen) st = rv_record_set(record, field, chosen->text, strlen(chosen->text), "ocr", err);
    if (chosen && st == RV_OK) {
        *found = true;
        if (proven_by) *proven_by = proofs(&s, chosen->cents) + stands_elsewhere(&s, (uint32_t)(chosen - s.all));
        record->slots[field].confidence = rv_rules_confidence(chosen->sure);
        if (chosen != claim || proofs(&s, chosen->cents) == 0) st = keep_others(&s, chosen, claim, record, field, err);
        if (record->slots[field].n_alternatives) record->slots[field].confidence = 0.05f;      /* whatever speaks for its form */
    }
    free(s.all);
    return st;
}
