/* constraint.c - keys and patterns become automata, automata a guide. */
#include "engine/constraint.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "extract/guide.h"

enum { MOST_KEYS = 200, KEY_BYTES = 64, ITEMS = 100, TOKENS = 96, LIST_TOKENS = 512, RUN = 3, SURE_BYTES = 128 };
#define FILLERS ".-_*=~#:,;|+/\\ "

/* What is being made: one automaton for all keys whose values look alike. */
typedef struct maker {
    const rv_tokenizer *t;
    rv_constraint      *c;
    rv_automaton       *automata;
    char              **patterns;
    int32_t             n;
} maker;

/* ---- patterns ---- */

static void add_literal(rv_string *out, const char *text) {
    for (; *text; text++) {
        if ((unsigned char)*text < 128 && !isalnum((unsigned char)*text)) rv_string_add(out, "\\", 1);
        rv_string_add(out, text, 1);
    }
}

static rv_status add_choices(rv_string *out, const rv_key *k, rv_error *err) {
    for (uint32_t i = 0; i < k->n_choices; i++) {
        const char *text = k->choices ? k->choices[i] : NULL;
        if (!text || !*text || *text == ' ' || strpbrk(text, "\n\r|") || rv_utf8_check(text, strlen(text)) != strlen(text))
            return rv_fail(err, RV_ERR_ARGUMENT, "key %s: choice %u must be one line of UTF-8 without '|' that does not begin with a blank", k->key, i + 1);
        rv_string_addz(out, i ? "|" : "");
        add_literal(out, text);
    }
    return RV_OK;
}

/* Anchors say what is so anyway. */
static void add_pattern(rv_string *out, const char *pattern) {
    size_t n = strlen(pattern), first = n && pattern[0] == '^';
    bool anchored = n > first && pattern[n - 1] == '$' && (n < 2 || pattern[n - 2] != '\\');
    rv_string_addz(out, "(?:");
    rv_string_add(out, pattern + first, n - first - anchored);
    rv_string_addz(out, ")");
}

/* A newline ends a value and '|' a cell, so neither may be part of one. */
static rv_status check_pattern(const rv_key *k, rv_error *err) {
    rv_dfa d;
    rv_status st = rv_dfa_pattern(k->pattern, &d, err);
    if (st) return rv_fail_in(err, st, "key %s", k->key);
    for (int32_t s = 1; s < d.states && st == RV_OK; s++)
        if (d.next[s]['\n'] || (k->list && d.next[s]['|']))
            st = rv_fail(err, RV_ERR_UNSUPPORTED, "key %s: the pattern matches %s, which ends %s", k->key, d.next[s]['\n'] ? "a newline" : "'|'",
                         d.next[s]['\n'] ? "a value" : "an item");
    if (st == RV_OK && d.next[1][' ']) st = rv_fail(err, RV_ERR_UNSUPPORTED, "key %s: the pattern matches a blank at its beginning", k->key);
    rv_dfa_free(&d);
    return st;
}

/* Of the value and the blank before it. */
static rv_status value_pattern(const rv_key *k, rv_string *out, rv_error *err) {
    rv_string one = { 0 };
    rv_status st = RV_OK;
    if (k->pattern) TRY(check_pattern(k, err));
    rv_string_addz(&one, "(?:");
    if (!k->required && (k->pattern || k->n_choices || k->list)) rv_string_addz(&one, RV_ABSENT "|");
    if (k->n_choices) TRY(add_choices(&one, k, err));
    else if (k->pattern) add_pattern(&one, k->pattern);
    else rv_string_addz(&one, k->list ? "[^ |][^|]*" : "[^ ].*");
    rv_string_addz(&one, ")");
    rv_string_addf(out, " %s", rv_string_text(&one));
    if (k->list) rv_string_addf(out, "(?: \\| %s)*", rv_string_text(&one));
    if (one.failed || out->failed) TRY(rv_fail_memory(err, "constraint"));
done:
    rv_string_free(&one);
    return st;
}

/* The automaton of a pattern, new or known; its index, or -1 after an error. */
static int32_t automaton_of(maker *m, const char *pattern, rv_automaton like, bool text, rv_error *err) {
    for (int32_t i = 0; i < m->n; i++)
        if (m->automata[i].list == like.list && !strcmp(m->patterns[i], pattern)) return i;
    rv_automaton *a = &m->automata[m->n];
    *a = like;
    if (rv_dfa_pattern(pattern, &a->dfa, err)) return -1;
    if (!(m->patterns[m->n] = strdup(pattern))) {
        rv_dfa_free(&a->dfa);
        return rv_fail_memory(err, "constraint"), -1;
    }
    m->n++;
    if (text && rv_dfa_limit_runs(&a->dfa, FILLERS, RUN, err)) return -1;
    if (like.absent && rv_dfa_single_out(&a->dfa, " " RV_ABSENT, strlen(" " RV_ABSENT), err)) return -1;
    return m->n - 1;
}

/* ---- keys ---- */

static rv_status check_key(const maker *m, const rv_key *k, uint32_t index, rv_error *err) {
    size_t n = k->key ? strlen(k->key) : 0;
    bool ok = n > 0 && n <= KEY_BYTES && isalpha((unsigned char)k->key[0]);
    for (size_t i = 0; i < n && ok; i++) ok = isalnum((unsigned char)k->key[i]) || k->key[i] == '_';
    if (!ok) return rv_fail(err, RV_ERR_ARGUMENT, "key %u: must be a letter, then letters, digits and '_', at most %d in all", index + 1, KEY_BYTES);
    for (uint32_t i = 0; i < index; i++)
        if (!strcmp(m->c->lines[i].key, k->key)) return rv_fail(err, RV_ERR_ARGUMENT, "key %s: stands there twice", k->key);
    if (k->pattern && k->n_choices) return rv_fail(err, RV_ERR_ARGUMENT, "key %s: has a pattern and choices: give one of them", k->key);
    if (k->max_items > UINT16_MAX || k->max_tokens > 1u << 20) return rv_fail(err, RV_ERR_ARGUMENT, "key %s: max_items or max_tokens is out of range", k->key);
    return RV_OK;
}

static rv_status add_key(maker *m, const rv_key *k, uint32_t index, rv_error *err) {
    rv_line *line = &m->c->lines[index];
    rv_string pattern = { 0 };
    rv_status st = check_key(m, k, index, err);
    if (st) return st;
    line->list = k->list != 0;
    line->required = k->required != 0;
    line->group = k->group;
    line->max_items = k->max_items ? (int32_t)k->max_items : ITEMS;
    line->max_tokens = k->max_tokens ? (int32_t)k->max_tokens : line->list ? LIST_TOKENS : TOKENS;
    if (!(line->key = strdup(k->key))) return rv_fail_memory(err, "constraint");
    TRY(value_pattern(k, &pattern, err));
    rv_automaton like = { .list = line->list, .absent = line->list && !line->required, .line = true };
    line->state = automaton_of(m, rv_string_text(&pattern), like, !k->pattern && !k->n_choices, err);
    if (line->state < 0) {
        st = err ? err->code : RV_ERR_FORMAT;
        goto done;
    }
    pattern.bytes = 0;
    rv_string_addf(&pattern, "%s:", k->key);
    TRY(rv_tokenizer_append(m->t, pattern.data, pattern.bytes, 0, &line->forced, err));
done:
    rv_string_free(&pattern);
    return st;
}

/* ---- making one ---- */

static rv_status single_id(const rv_tokenizer *t, const char *text, int32_t *id, rv_error *err) {
    rv_ids ids = { 0 };
    rv_status st = rv_tokenizer_append(t, text, strlen(text), 0, &ids, err);
    if (st == RV_OK) *id = ids.data[0];
    rv_ids_free(&ids);
    return st;
}

static rv_status start(maker *m, const rv_tokenizer *t, int32_t n_lines, rv_error *err) {
    rv_status st = RV_OK;
    m->t = t;
    m->c = calloc(1, sizeof *m->c);
    m->automata = calloc((size_t)n_lines, sizeof *m->automata);
    m->patterns = calloc((size_t)n_lines, sizeof *m->patterns);
    if (m->c) m->c->lines = calloc((size_t)n_lines, sizeof *m->c->lines);
    if (!m->c || !m->automata || !m->patterns || !m->c->lines) return rv_fail_memory(err, "constraint");
    atomic_init(&m->c->refs, 1);
    m->c->n_lines = n_lines;
    m->c->tokenizer_size = rv_tokenizer_size(t);
    TRY(single_id(t, "\n", &m->c->newline, err));
    TRY(single_id(t, " " RV_ABSENT, &m->c->absent, err));
    TRY(rv_tokenizer_append(t, " | " RV_ABSENT, strlen(" | " RV_ABSENT), 0, &m->c->cell, err));
done:
    return st;
}

static bool is_letter(int c) { return c >= 128 || isalpha(c); }

/* Follows what has one way to go on from a state of the automaton, to the newline that ends the value. The text stops only
 * where the tokenizer always cuts: behind a newline, or between a letter and what is none. */
static bool sure_text(const rv_automaton *a, int32_t at, char text[SURE_BYTES], size_t *bytes) {
    for (*bytes = 0; *bytes < SURE_BYTES;) {
        int ways = a->dfa.accept[at] != 0, letters = 0, byte = '\n';
        for (int b = 0; b < 256; b++)
            if (a->dfa.next[at][b]) ways++, letters += is_letter(b), byte = b;
        if (ways != 1) return *bytes > 0 && is_letter((unsigned char)text[*bytes - 1]) && letters == 0;
        text[(*bytes)++] = (char)byte;
        if (byte == '\n') return true;
        at = a->dfa.next[at][byte];
    }
    return false;
}

static rv_status keep_sure(maker *m, rv_error *err) {
    char text[SURE_BYTES];
    size_t n;
    m->c->sure = calloc((size_t)m->c->guide.states, sizeof *m->c->sure);
    if (!m->c->sure) return rv_fail_memory(err, "constraint");
    for (int32_t i = 0; i < m->n; i++)
        for (int32_t s = 1; m->automata[i].line && s < m->automata[i].dfa.states; s++)
            if (sure_text(&m->automata[i], s, text, &n) && !(m->c->sure[m->automata[i].start + s - 1] = strndup(text, n))) return rv_fail_memory(err, "constraint");
    return RV_OK;
}

/* Marks states from which a token may lead to where something can be appended. */
static rv_status keep_waits(rv_constraint *c, rv_error *err) {
    const rv_guide *g = &c->guide;
    c->waits = calloc((size_t)g->states, sizeof *c->waits);
    if (!c->waits) return rv_fail_memory(err, "constraint");
    for (int32_t s = 2; s < g->states; s++)
        for (int32_t k = 0; k < g->n_classes && !c->waits[s]; k++) {
            int32_t to = g->next[s * g->n_classes + k] & RV_GUIDE_STATE;
            c->waits[s] = to == RV_GUIDE_DONE || (to && c->sure[to]);
        }
    return RV_OK;
}

static rv_status make_guide(maker *m, rv_error *err) {
    static const char *const names[] = { "<|eot_id|>", "<|end_of_text|>", "<|eom_id|>" };
    int32_t stops[3], n = 0;
    for (size_t i = 0; i < 3; i++)
        if ((stops[n] = rv_tokenizer_control(m->t, names[i])) >= 0) n++;
    rv_status st = rv_guide_new(m->t, (int32_t)rv_tokenizer_size(m->t), stops, n, m->automata, m->n, &m->c->guide, err);
    for (int32_t i = 0; i < m->c->n_lines && st == RV_OK; i++) m->c->lines[i].state = m->automata[m->c->lines[i].state].start;
    if (st == RV_OK) st = keep_sure(m, err);
    return st ? st : keep_waits(m->c, err);
}

static rv_status finish(maker *m, rv_status st, rv_constraint **out) {
    for (int32_t i = 0; i < m->n; i++) {
        rv_dfa_free(&m->automata[i].dfa);
        free(m->patterns[i]);
    }
    free(m->automata);
    free(m->patterns);
    if (st == RV_OK) *out = m->c;
    else rv_constraint_free(m->c);
    return st;
}

rv_status rv_constraint_keys(const rv_tokenizer *t, const rv_key *keys, uint32_t n_keys, rv_constraint **out, rv_error *err) {
    if (!t || !keys || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_constraint_keys: %s is NULL", !t ? "tokenizer" : !keys ? "keys" : "out");
    if (n_keys == 0 || n_keys > MOST_KEYS) return rv_fail(err, RV_ERR_ARGUMENT, "rv_constraint_keys: n_keys is %u, must be from 1 to %d", n_keys, MOST_KEYS);
    rv_status st = RV_OK;
    rv_error local;
    maker m = { 0 };
    if (!err) err = &local;
    TRY(start(&m, t, (int32_t)n_keys, err));
    for (uint32_t i = 0; i < n_keys; i++) {
        rv_key key;
        TRY(rv_abi_read(&key, sizeof key, rv_abi_at(keys, i), "rv_key", err));
        TRY(add_key(&m, &key, i, err));
    }
    TRY(make_guide(&m, err));
done:
    return finish(&m, st, out);
}

static rv_status of_json(const rv_tokenizer *t, const char *pattern, rv_constraint **out, rv_error *err) {
    rv_status st = RV_OK;
    maker m = { 0 };
    TRY(start(&m, t, 1, err));
    m.c->json = true;
    m.c->lines[0].max_tokens = INT32_MAX / 2;
    m.c->lines[0].required = true;
    if ((m.c->lines[0].state = automaton_of(&m, pattern, (rv_automaton){ 0 }, false, err)) < 0) TRY(err->code);
    TRY(make_guide(&m, err));
done:
    return finish(&m, st, out);
}

rv_status rv_constraint_json(const rv_tokenizer *t, const char *schema, size_t bytes, rv_constraint **out, rv_error *err) {
    if (!t || !schema || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_constraint_json: %s is NULL", !t ? "tokenizer" : !schema ? "schema" : "out");
    char *pattern;
    rv_error local;
    if (!err) err = &local;
    rv_status st = rv_json_pattern(schema, bytes, &pattern, err);
    if (st) return st;
    st = of_json(t, pattern, out, err);
    free(pattern);
    return st;
}

rv_status rv_constraint_any_json(const rv_tokenizer *t, rv_constraint **out, rv_error *err) {
    if (!t || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_constraint_any_json: %s is NULL", !t ? "tokenizer" : "out");
    char *pattern = rv_any_json_pattern();
    rv_error local;
    if (!err) err = &local;
    if (!pattern) return rv_fail_memory(err, "constraint");
    rv_status st = of_json(t, pattern, out, err);
    free(pattern);
    bool ours = st == RV_ERR_FORMAT || st == RV_ERR_UNSUPPORTED;      /* nobody else wrote that pattern */
    return ours ? rv_fail(err, RV_ERR_INTERNAL, "rv_constraint_any_json: the built-in form of any JSON is too large for this tokenizer") : st;
}

/* ---- handles ---- */

void rv_constraint_retain(rv_constraint *c) { atomic_fetch_add(&c->refs, 1); }

void rv_constraint_free(rv_constraint *c) {
    if (!c || atomic_fetch_sub(&c->refs, 1) > 1) return;
    for (int32_t i = 0; c->lines && i < c->n_lines; i++) {
        free(c->lines[i].key);
        rv_ids_free(&c->lines[i].forced);
    }
    free(c->lines);
    rv_ids_free(&c->cell);
    for (int32_t s = 0; c->sure && s < c->guide.states; s++) free(c->sure[s]);
    free(c->sure);
    free(c->waits);
    rv_guide_free(&c->guide);
    free(c);
}

rv_status rv_constraint_check(const rv_constraint *c, const rv_tokenizer *t, rv_error *err) {
    rv_status st = RV_OK;
    rv_ids ids = { 0 };
    bool same = c->tokenizer_size == rv_tokenizer_size(t);
    for (int32_t i = 0; i < c->n_lines && same && !c->json && st == RV_OK; i++) {
        char text[KEY_BYTES + 2];
        size_t n = strlen(c->lines[i].key);
        memcpy(text, c->lines[i].key, n);
        text[n] = ':';
        ids.count = 0;
        st = rv_tokenizer_append(t, text, n + 1, 0, &ids, err);
        same = ids.count == c->lines[i].forced.count && !memcmp(ids.data, c->lines[i].forced.data, ids.count * sizeof *ids.data);
    }
    rv_ids_free(&ids);
    if (st == RV_OK && !same) st = rv_fail(err, RV_ERR_ARGUMENT, "rv_request.constraint: was made for another tokenizer: use rv_model_tokenizer of this model");
    return st;
}

rv_status rv_constraint_get_info(const rv_constraint *c, rv_constraint_info *out, rv_error *err) {
    if (!c) return rv_fail(err, RV_ERR_ARGUMENT, "rv_constraint_get_info: constraint is NULL");
    rv_constraint_info is = { .keys = c->json ? 0 : (uint32_t)c->n_lines, .states = (uint32_t)c->guide.states, .classes = (uint32_t)c->guide.n_classes,
                              .bytes = rv_guide_bytes(&c->guide) };
    return rv_abi_write(out, &is, sizeof is, "rv_constraint_info", err);
}
