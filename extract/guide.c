/* guide.c - one walk over all tokens through all states. */
#include "extract/guide.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"

/* A start state and the entry that a token's bytes so far lead to. */
typedef struct outcome { uint16_t start, entry; } outcome;

typedef struct token { const char *text; size_t bytes; int32_t id; } token;

typedef struct walk {
    const rv_automaton *automata;
    const int16_t *owner;                /* per state of the guide: its automaton, -1 for DEAD and DONE */
    const int32_t *absent;               /* per automaton: of a list, the state after NOT_FOUND alone; 0: none */
    const bool    *committed;            /* per state of the guide: of a list, which cannot end any more without another cell */
    int32_t   states;
    outcome **levels;                    /* what is alive after so many bytes of the token      */
    int32_t  *alive;
    outcome  *classes;                   /* their outcomes, one behind the other                */
    size_t    used, room, *begins;
    uint64_t *hashes;
    int32_t   n_classes;
} walk;

enum { MOST_CLASSES = UINT16_MAX };

/* What reading `byte` makes of an entry; 0: it may not come. */
static uint16_t move(const walk *w, uint16_t entry, uint8_t byte) {
    int32_t state = entry & RV_GUIDE_STATE;
    if (state <= RV_GUIDE_DONE) return 0;                        /* nothing comes after the newline that ends a value */
    int16_t owner = w->owner[state];
    const rv_automaton *a = &w->automata[owner];
    uint32_t flags = entry & ~(uint32_t)RV_GUIDE_STATE, at = (uint32_t)(state - a->start + 1);
    if (a->line && byte == '\n') {
        bool counted = a->list && at != (uint32_t)w->absent[owner];
        return a->dfa.accept[at] ? (uint16_t)(flags | RV_GUIDE_DONE | (counted ? RV_GUIDE_LIST_END : 0)) : 0;
    }
    uint32_t next = a->dfa.next[at][byte], to = (uint32_t)a->start + next - 1;
    if (next == 0) return 0;
    if (a->list && !w->committed[state] && (byte == '|' || w->committed[to])) {
        if (flags & RV_GUIDE_CELL) return 0;                     /* two cells in one token: they could not be counted */
        flags |= RV_GUIDE_CELL;
    }
    return (uint16_t)(flags | to);
}

/* Nothing may follow this state. */
static bool is_end(const walk *w, int32_t state) {
    const rv_automaton *a = &w->automata[w->owner[state]];
    int32_t at = state - a->start + 1;
    if (a->line || !a->dfa.accept[at]) return false;
    for (int b = 0; b < 256; b++)
        if (a->dfa.next[at][b]) return false;
    return true;
}

static uint16_t by_stop(const walk *w, int32_t state) {
    int16_t owner = w->owner[state];
    const rv_automaton *a = &w->automata[owner];
    int32_t at = state - a->start + 1;
    if (!a->dfa.accept[at]) return 0;
    return (uint16_t)(RV_GUIDE_DONE | RV_GUIDE_BY_STOP | (a->list && at != w->absent[owner] ? RV_GUIDE_LIST_END : 0));
}

static int by_bytes(const void *a, const void *b) {
    const token *x = a, *y = b;
    int order = memcmp(x->text, y->text, x->bytes < y->bytes ? x->bytes : y->bytes);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* The class of these outcomes, new or known; negative: out of memory or too many. */
static int32_t class_of(walk *w, const outcome *of, int32_t n) {
    size_t bytes = (size_t)n * sizeof *of;
    uint64_t hash = rv_hash64(of, bytes);
    if (n == 0) return 0;
    for (int32_t c = 1; c < w->n_classes; c++)
        if (w->hashes[c] == hash && w->begins[c + 1] - w->begins[c] == (size_t)n && !memcmp(w->classes + w->begins[c], of, bytes)) return c;
    if (w->n_classes == MOST_CLASSES) return -2;
    if (w->used + (size_t)n > w->room) {
        size_t room = 2 * w->room + (size_t)n;
        outcome *more = realloc(w->classes, room * sizeof *more);
        if (!more) return -1;
        w->classes = more;
        w->room = room;
    }
    memcpy(w->classes + w->used, of, bytes);
    w->used += (size_t)n;
    w->hashes[w->n_classes] = hash;
    w->begins[w->n_classes + 1] = w->used;
    return w->n_classes++;
}

/* Levels 0 .. bytes of the token, of which the first `shared` + 1 are as the token before left them. */
static void descend(walk *w, const token *t, size_t shared) {
    for (size_t i = shared; i < t->bytes; i++) {
        int32_t n = 0;
        for (int32_t k = 0; k < w->alive[i]; k++) {
            outcome o = w->levels[i][k];
            o.entry = move(w, o.entry, (uint8_t)t->text[i]);
            if (o.entry) w->levels[i + 1][n++] = o;
        }
        w->alive[i + 1] = n;
    }
}

static size_t common(const token *a, const token *b) {
    size_t n = 0;
    while (n < a->bytes && n < b->bytes && a->text[n] == b->text[n]) n++;
    return n;
}

/* A token that leaves nothing to be written has ended the value. */
static int32_t class_at(walk *w, size_t level, outcome *room) {
    int32_t n = w->alive[level];
    memcpy(room, w->levels[level], (size_t)n * sizeof *room);
    for (int32_t i = 0; i < n; i++) {
        int32_t state = room[i].entry & RV_GUIDE_STATE;
        if (state > RV_GUIDE_DONE && is_end(w, state)) room[i].entry = (uint16_t)(RV_GUIDE_DONE | (room[i].entry & RV_GUIDE_CELL));
    }
    return class_of(w, room, n);
}

static rv_status classify(walk *w, const token *tokens, size_t n, const int32_t *stops, int32_t n_stops, uint16_t *classes, rv_error *err) {
    outcome *room = calloc((size_t)w->states, sizeof *room);
    int32_t class = 0, ends = 0;
    if (!room) return rv_fail_memory(err, "guide");
    for (size_t i = 0; i < n && class >= 0; i++) {
        descend(w, &tokens[i], i ? common(&tokens[i - 1], &tokens[i]) : 0);
        class = class_at(w, tokens[i].bytes, room);
        if (class >= 0) classes[tokens[i].id] = (uint16_t)class;
    }
    for (int32_t s = 2; s < w->states; s++) {
        uint16_t entry = by_stop(w, s);
        if (entry) room[ends++] = (outcome){ (uint16_t)s, entry };
    }
    if (class >= 0) class = class_of(w, room, ends);
    for (int32_t i = 0; i < n_stops && class >= 0; i++) classes[stops[i]] = (uint16_t)class;
    free(room);
    if (class == -2) return rv_fail(err, RV_ERR_UNSUPPORTED, "the constraint sorts tokens into more than %d classes: use fewer or simpler patterns", MOST_CLASSES);
    return class < 0 ? rv_fail_memory(err, "guide") : RV_OK;
}

/* Every token that text can become, by its bytes. */
static rv_status collect(const rv_tokenizer *t, int32_t vocab, token **out, size_t *count, size_t *longest, rv_error *err) {
    int32_t size = (int32_t)rv_tokenizer_size(t) < vocab ? (int32_t)rv_tokenizer_size(t) : vocab;
    token *tokens = calloc((size_t)size + 1, sizeof *tokens);
    if (!tokens) return rv_fail_memory(err, "guide");
    for (int32_t id = 0; id < size; id++) {
        token one = { .id = id };
        one.text = rv_tokenizer_bytes(t, id, &one.bytes);
        if (!one.text || one.bytes == 0 || rv_tokenizer_is_control(t, id)) continue;
        if (one.bytes > *longest) *longest = one.bytes;
        tokens[(*count)++] = one;
    }
    qsort(tokens, *count, sizeof *tokens, by_bytes);
    *out = tokens;
    return RV_OK;
}

/* From its blank on, the separator behind a cell that holds none is sure to come: there the next cell is counted, while ending the
 * list is still a choice. */
static void find_committed(const rv_automaton *a, bool *committed) {
    bool *of = committed + a->start - 1;                         /* by the automaton's own states */
    for (int32_t s = 1; s < a->dfa.states; s++) of[s] = !a->dfa.accept[s];
    for (bool changed = true; changed;) {
        changed = false;
        for (int32_t s = 1; s < a->dfa.states; s++)
            for (int b = 0; b < 256 && of[s]; b++)
                if (b != '|' && a->dfa.next[s][b] && !of[a->dfa.next[s][b]]) of[s] = false, changed = true;
    }
}

static rv_status lay_out(walk *w, rv_automaton *automata, int32_t n, int16_t **owner, int32_t **absent, bool **committed, rv_error *err) {
    int32_t states = 2;
    for (int32_t i = 0; i < n; i++) {
        automata[i].start = states;
        states += automata[i].dfa.states - 1;                    /* state 0 of each is DEAD     */
        if (states > RV_GUIDE_STATE) return rv_fail(err, RV_ERR_UNSUPPORTED, "the constraint needs more than %d states: use fewer or simpler patterns", RV_GUIDE_STATE);
    }
    *owner = malloc((size_t)states * sizeof **owner);
    *absent = calloc((size_t)n + 1, sizeof **absent);
    *committed = calloc((size_t)states, sizeof **committed);
    if (!*owner || !*absent || !*committed) return rv_fail_memory(err, "guide");
    memset(*owner, -1, 2 * sizeof **owner);
    for (int32_t i = 0; i < n; i++) {
        for (int32_t s = 0; s < automata[i].dfa.states - 1; s++) (*owner)[automata[i].start + s] = (int16_t)i;
        if (automata[i].list) find_committed(&automata[i], *committed);
        if (automata[i].list && automata[i].absent) (*absent)[i] = rv_dfa_walk(&automata[i].dfa, " NOT_FOUND", 10);
    }
    *w = (walk){ .automata = automata, .owner = *owner, .absent = *absent, .committed = *committed, .states = states, .n_classes = 1 };
    return RV_OK;
}

static rv_status take_room(walk *w, size_t longest, rv_error *err) {
    w->levels = calloc(longest + 2, sizeof *w->levels);
    w->alive = calloc(longest + 2, sizeof *w->alive);
    w->begins = calloc(MOST_CLASSES + 2, sizeof *w->begins);
    w->hashes = calloc(MOST_CLASSES + 1, sizeof *w->hashes);
    if (!w->levels || !w->alive || !w->begins || !w->hashes) return rv_fail_memory(err, "guide");
    for (size_t i = 0; i <= longest; i++)
        if (!(w->levels[i] = malloc((size_t)w->states * sizeof **w->levels))) return rv_fail_memory(err, "guide");
    for (int32_t s = 2; s < w->states; s++) w->levels[0][w->alive[0]++] = (outcome){ (uint16_t)s, (uint16_t)s };
    return RV_OK;
}

static rv_status fill_next(const walk *w, uint16_t **out, rv_error *err) {
    uint16_t *next = calloc((size_t)w->states * (size_t)w->n_classes, sizeof *next);
    if (!next) return rv_fail_memory(err, "guide");
    for (int32_t c = 1; c < w->n_classes; c++)
        for (size_t i = w->begins[c]; i < w->begins[c + 1]; i++) next[(size_t)w->classes[i].start * (size_t)w->n_classes + (size_t)c] = w->classes[i].entry;
    *out = next;
    return RV_OK;
}

rv_status rv_guide_new(const rv_tokenizer *t, int32_t vocab, const int32_t *stops, int32_t n_stops, rv_automaton *automata, int32_t n,
                       rv_guide *out, rv_error *err) {
    rv_status st = RV_OK;
    walk w = { 0 };
    token *tokens = NULL;
    size_t count = 0, longest = 0;
    int16_t *owner = NULL;
    int32_t *absent = NULL;
    bool *committed = NULL;
    uint16_t *classes = calloc((size_t)vocab, sizeof *classes), *next = NULL;
    if (!classes) TRY(rv_fail_memory(err, "guide"));
    TRY(collect(t, vocab, &tokens, &count, &longest, err));
    TRY(lay_out(&w, automata, n, &owner, &absent, &committed, err));
    TRY(take_room(&w, longest, err));
    TRY(classify(&w, tokens, count, stops, n_stops, classes, err));
    TRY(fill_next(&w, &next, err));
    *out = (rv_guide){ classes, next, vocab, w.states, w.n_classes };
done:
    for (size_t i = 0; w.levels && i <= longest; i++) free(w.levels[i]);
    free(w.levels);
    free(w.alive);
    free(w.begins);
    free(w.hashes);
    free(w.classes);
    free(tokens);
    free(owner);
    free(absent);
    free(committed);
    if (st) free(classes);
    return st;
}

void rv_guide_free(rv_guide *guide) {
    free((void *)(uintptr_t)guide->classes);
    free((void *)(uintptr_t)guide->next);
    *guide = (rv_guide){ 0 };
}

uint64_t rv_guide_bytes(const rv_guide *guide) {
    return ((uint64_t)guide->vocab + (uint64_t)guide->states * (uint64_t)guide->n_classes) * sizeof(uint16_t);
}
