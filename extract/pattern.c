/* pattern.c - patterns to automata: Thompson's construction, then subsets. */
#include "extract/pattern.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/hash.h"
#include "engine/base/text.h"

enum { MOST_NODES = 200000, MOST_DEPTH = 200, MOST_REPEATS = 1000, NONE = -1 };

/* A byte in [low, high] leads to `a`; low > high: no byte is needed, and it leads to `a` and `b`. */
typedef struct node { int32_t a, b; uint8_t low, high; } node;
typedef struct part { int32_t in, out; } part;   /* `out` leads nowhere yet                      */

typedef struct parser {
    const char *text;
    size_t      bytes, at;
    node       *nodes;
    int32_t     n, room, depth;
    rv_error   *err;
    rv_status   st;
} parser;

static part refuse(parser *p, rv_status code, const char *why) {
    if (p->st == RV_OK) p->st = rv_fail(p->err, code, "pattern \"%.200s\": %s (at byte %zu)", p->text, why, p->at);
    return (part){ 0, 0 };
}

static int32_t add(parser *p, int32_t a, int32_t b, uint8_t low, uint8_t high) {
    if (p->st) return 0;
    if (p->n == MOST_NODES) return refuse(p, RV_ERR_UNSUPPORTED, "is too large").in;
    if (p->n == p->room) {
        int32_t room = p->room ? 2 * p->room : 256;
        node *more = realloc(p->nodes, (size_t)room * sizeof *more);
        if (!more) return p->st = rv_fail_memory(p->err, "pattern"), 0;
        p->nodes = more;
        p->room = room;
    }
    p->nodes[p->n] = (node){ a, b, low, high };
    return p->n++;
}

static int32_t fork_to(parser *p, int32_t a, int32_t b) { return add(p, a, b, 1, 0); }

static part nothing(parser *p) {
    int32_t at = fork_to(p, NONE, NONE);
    return (part){ at, at };
}

static part range(parser *p, uint8_t low, uint8_t high) {
    int32_t out = fork_to(p, NONE, NONE);
    return (part){ add(p, out, NONE, low, high), out };
}

static part then(parser *p, part a, part b) {
    if (p->st) return a;
    p->nodes[a.out].a = b.in;
    return (part){ a.in, b.out };
}

static part either(parser *p, part a, part b) {
    int32_t out = fork_to(p, NONE, NONE), in = fork_to(p, a.in, b.in);
    if (p->st) return a;
    p->nodes[a.out].a = p->nodes[b.out].a = out;
    return (part){ in, out };
}

static part optional(parser *p, part a) { return either(p, a, nothing(p)); }

static part star(parser *p, part a) {
    int32_t out = fork_to(p, NONE, NONE), in = fork_to(p, a.in, out);
    if (p->st) return a;
    p->nodes[a.out].a = in;
    return (part){ in, out };
}

/* ---- characters ---- */

/* What a class holds: ASCII by flags, and single characters or all beyond ASCII. */
typedef struct class { uint8_t ascii[128]; part beyond; bool any_beyond, some_beyond; } class;

static part sequence(parser *p, const uint8_t (*ranges)[2], int32_t n) {
    part all = range(p, ranges[0][0], ranges[0][1]);
    for (int32_t i = 1; i < n; i++) all = then(p, all, range(p, ranges[i][0], ranges[i][1]));
    return all;
}

/* Every character of two to four bytes (Unicode 15, table 3-7). */
static part beyond_ascii(parser *p) {
    static const uint8_t forms[][4][2] = {
        { { 0xc2, 0xdf }, { 0x80, 0xbf } },
        { { 0xe0, 0xe0 }, { 0xa0, 0xbf }, { 0x80, 0xbf } }, { { 0xe1, 0xec }, { 0x80, 0xbf }, { 0x80, 0xbf } },
        { { 0xed, 0xed }, { 0x80, 0x9f }, { 0x80, 0xbf } }, { { 0xee, 0xef }, { 0x80, 0xbf }, { 0x80, 0xbf } },
        { { 0xf0, 0xf0 }, { 0x90, 0xbf }, { 0x80, 0xbf }, { 0x80, 0xbf } }, { { 0xf1, 0xf3 }, { 0x80, 0xbf }, { 0x80, 0xbf }, { 0x80, 0xbf } },
        { { 0xf4, 0xf4 }, { 0x80, 0x8f }, { 0x80, 0xbf }, { 0x80, 0xbf } },
    };
    static const uint8_t length[] = { 2, 3, 3, 3, 3, 4, 4, 4 };
    part all = sequence(p, forms[0], length[0]);
    for (size_t i = 1; i < sizeof length; i++) all = either(p, all, sequence(p, forms[i], length[i]));
    return all;
}

static part of_class(parser *p, const class *c) {
    part all = { NONE, NONE };
    for (int i = 0; i < 128; i++) {
        if (!c->ascii[i]) continue;
        int from = i;
        while (i + 1 < 128 && c->ascii[i + 1]) i++;
        part one = range(p, (uint8_t)from, (uint8_t)i);
        all = all.in == NONE ? one : either(p, all, one);
    }
    if (c->any_beyond || c->some_beyond) {
        part one = c->any_beyond ? beyond_ascii(p) : c->beyond;
        all = all.in == NONE ? one : either(p, all, one);
    }
    return all.in == NONE ? refuse(p, RV_ERR_FORMAT, "this class is empty") : all;
}

static void add_shorthand(class *c, char which) {
    bool inside[128] = { false }, negated = which == 'D' || which == 'W' || which == 'S';
    for (int i = 0; i < 128; i++) {
        bool digit = i >= '0' && i <= '9', word = digit || (i >= 'a' && i <= 'z') || (i >= 'A' && i <= 'Z') || i == '_';
        char low = (char)(which | 0x20);
        inside[i] = low == 'd' ? digit : low == 'w' ? word : i == ' ' || i == '\t' || i == '\n' || i == '\r' || i == '\f' || i == '\v';
    }
    for (int i = 0; i < 128; i++) c->ascii[i] |= negated ? !inside[i] && i >= 0x20 && i != 0x7f : inside[i];
    c->any_beyond |= negated;
}

static int hex(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* One character or escape at p->at, consumed. Returns its code point, or -1 after adding a shorthand to *c. */
static int32_t read_character(parser *p, class *c) {
    uint32_t code;
    if (p->text[p->at] != '\\') {
        size_t n = rv_utf8_read(p->text + p->at, p->bytes - p->at, &code);
        if (n == 0) return refuse(p, RV_ERR_FORMAT, "is not valid UTF-8").in;
        p->at += n;
        return (int32_t)code;
    }
    if (++p->at == p->bytes) return refuse(p, RV_ERR_FORMAT, "ends with a backslash").in;
    char e = p->text[p->at++];
    switch (e) {
    case 'd': case 'w': case 's': case 'D': case 'W': case 'S': add_shorthand(c, e); return -1;
    case 'n': return '\n';
    case 't': return '\t';
    case 'r': return '\r';
    case 'x':
        if (p->bytes - p->at < 2 || hex(p->text[p->at]) < 0 || hex(p->text[p->at + 1]) < 0 || hex(p->text[p->at]) > 7)
            return refuse(p, RV_ERR_FORMAT, "\\x takes two digits, 00 to 7f").in;
        p->at += 2;
        return hex(p->text[p->at - 2]) * 16 + hex(p->text[p->at - 1]);
    default:
        if ((e >= '0' && e <= '9') || (e >= 'a' && e <= 'z') || (e >= 'A' && e <= 'Z'))
            return refuse(p, RV_ERR_UNSUPPORTED, "this escape is not supported (those are: \\d \\w \\s \\D \\W \\S \\n \\t \\r \\xHH)").in;
        return (uint8_t)e;
    }
}

static part literal(parser *p, uint32_t code) {
    char bytes[4];
    size_t n = rv_utf8_write(code, bytes);
    part all = range(p, (uint8_t)bytes[0], (uint8_t)bytes[0]);
    for (size_t i = 1; i < n; i++) all = then(p, all, range(p, (uint8_t)bytes[i], (uint8_t)bytes[i]));
    return all;
}

static void negate(parser *p, class *c) {
    for (int i = 0; i < 128; i++) c->ascii[i] = !c->ascii[i] && i >= 0x20 && i != 0x7f;
    if (c->some_beyond) refuse(p, RV_ERR_UNSUPPORTED, "a negated class may hold only ASCII characters");
    c->any_beyond = !c->any_beyond;
}

static void add_range(parser *p, class *c, int32_t low, int32_t high) {
    if (low > high) refuse(p, RV_ERR_FORMAT, "this range runs backwards");
    if (high >= 128 && low != high) refuse(p, RV_ERR_UNSUPPORTED, "ranges beyond ASCII are not supported");
    for (int32_t i = low; i <= high && i < 128; i++) c->ascii[i] = 1;
    if (high < 128 || p->st) return;
    part one = literal(p, (uint32_t)high);
    c->beyond = c->some_beyond ? either(p, c->beyond, one) : one;
    c->some_beyond = true;
}

static part read_class(parser *p) {
    class c = { 0 };
    bool negated = p->at < p->bytes && p->text[p->at] == '^';
    p->at += negated;
    for (bool first = true; p->st == RV_OK; first = false) {
        if (p->at == p->bytes) return refuse(p, RV_ERR_FORMAT, "'[' is not closed");
        if (p->text[p->at] == ']' && !first) break;
        int32_t low = read_character(p, &c), high = low;
        bool dash = low >= 0 && p->bytes - p->at > 1 && p->text[p->at] == '-' && p->text[p->at + 1] != ']';
        if (dash) {
            p->at++;
            high = read_character(p, &c);
            if (high < 0) return refuse(p, RV_ERR_FORMAT, "a range must end with a character");
        }
        if (low >= 0) add_range(p, &c, low, high);
    }
    p->at++;
    if (negated) negate(p, &c);
    return of_class(p, &c);
}

/* ---- the grammar ---- */

static part alternatives(parser *p);

static part read_group(parser *p) {
    if (p->bytes - p->at > 1 && p->text[p->at] == '?') {
        if (p->text[p->at + 1] != ':') return refuse(p, RV_ERR_UNSUPPORTED, "only plain groups and (?: ) are supported");
        p->at += 2;
    }
    if (++p->depth > MOST_DEPTH) return refuse(p, RV_ERR_UNSUPPORTED, "groups are nested too deep");
    part inside = alternatives(p);
    p->depth--;
    if (p->st) return inside;
    if (p->at == p->bytes) return refuse(p, RV_ERR_FORMAT, "'(' is not closed");
    p->at++;
    return inside;
}

static part atom(parser *p) {
    class c = { 0 };
    switch (p->text[p->at]) {
    case '(': p->at++; return read_group(p);
    case '[': p->at++; return read_class(p);
    case '.': p->at++; negate(p, &c); return of_class(p, &c);
    case '*': case '+': case '?': case '{': return refuse(p, RV_ERR_FORMAT, "there is nothing to repeat");
    case '^': case '$': return refuse(p, RV_ERR_UNSUPPORTED, "^ and $ are supported at the ends only: the whole text must match anyway");
    default: break;
    }
    int32_t code = read_character(p, &c);
    return p->st ? (part){ 0, 0 } : code < 0 ? of_class(p, &c) : literal(p, (uint32_t)code);
}

static int32_t number(parser *p) {
    int32_t n = 0;
    size_t from = p->at;
    for (; p->at < p->bytes && p->text[p->at] >= '0' && p->text[p->at] <= '9'; p->at++)
        if ((n = 10 * n + p->text[p->at] - '0') > MOST_REPEATS) return refuse(p, RV_ERR_UNSUPPORTED, "repetition counts beyond 1000 are not supported").in;
    if (p->at == from) refuse(p, RV_ERR_FORMAT, "a count is missing in { }");
    return n;
}

/* most NONE: no limit.  False: no repetition stands here. */
static bool counts(parser *p, int32_t *least, int32_t *most) {
    char c = p->at < p->bytes ? p->text[p->at] : '\0';
    if (c != '*' && c != '+' && c != '?' && c != '{') return false;
    p->at++;
    *least = c == '+';
    *most = c == '?' ? 1 : NONE;
    if (c == '{') {
        *least = *most = number(p);
        if (p->at < p->bytes && p->text[p->at] == ',') {
            p->at++;
            *most = p->at < p->bytes && p->text[p->at] == '}' ? NONE : number(p);
        }
        if (p->at == p->bytes || p->text[p->at] != '}') refuse(p, RV_ERR_FORMAT, "'{' is not closed");
        p->at++;
        if (*most != NONE && *most < *least) refuse(p, RV_ERR_FORMAT, "{m,n} runs backwards");
    }
    char after = p->at < p->bytes ? p->text[p->at] : '\0';
    if (after == '?' || after == '+' || after == '*' || after == '{') refuse(p, RV_ERR_UNSUPPORTED, "lazy, possessive and doubled repetition is not supported");
    return p->st == RV_OK;
}

/* Copies of an atom are made by reading it again. */
static part repeated(parser *p) {
    size_t from = p->at;
    int32_t least, most;
    part one = atom(p), all = nothing(p);
    if (p->st || !counts(p, &least, &most)) return one;
    size_t after = p->at;
    int32_t copies = most == NONE ? least + 1 : most;
    for (int32_t i = 0; i < copies && p->st == RV_OK; i++) {
        if (i > 0) p->at = from, one = atom(p);
        all = then(p, all, i < least ? one : most == NONE ? star(p, one) : optional(p, one));
    }
    p->at = after;
    return all;
}

static part alternatives(parser *p) {
    part all = { NONE, NONE };
    do {
        if (all.in != NONE) p->at++;
        part one = nothing(p);
        while (p->st == RV_OK && p->at < p->bytes && p->text[p->at] != '|' && p->text[p->at] != ')') one = then(p, one, repeated(p));
        all = all.in == NONE ? one : either(p, all, one);
    } while (p->st == RV_OK && p->at < p->bytes && p->text[p->at] == '|');
    return all;
}

/* ---- subsets ---- */

/* A deterministic state is a set of nodes that read a byte, and perhaps the last one. */
typedef struct sets {
    const node *nodes;
    int32_t     n_nodes, last;
    int32_t    *all;                     /* the sets, one behind the other, each in rising order */
    size_t      used, room;
    size_t     *begins;                  /* [states + 1]                                        */
    uint64_t   *hashes;
    int32_t    *marks, mark;             /* per node: in the set that is being made              */
    int32_t    *stack, *made, n_made;
    rv_dfa      dfa;
} sets;

static void close_over(sets *s, int32_t from) {
    int32_t n = 0;
    s->stack[n++] = from;
    while (n > 0) {
        int32_t at = s->stack[--n];
        if (at == NONE || s->marks[at] == s->mark) continue;
        s->marks[at] = s->mark;
        const node *k = &s->nodes[at];
        if (k->low <= k->high || at == s->last) s->made[s->n_made++] = at;
        if (k->low > k->high) s->stack[n++] = k->a, s->stack[n++] = k->b;
    }
}

static int by_number(const void *a, const void *b) { return *(const int32_t *)a - *(const int32_t *)b; }

/* The state of the set in s->made, new or known; 0: the empty one; -1: out of memory; -2: too many. */
static int32_t state_of(sets *s) {
    if (s->n_made == 0) return 0;
    size_t bytes = (size_t)s->n_made * sizeof *s->made;
    qsort(s->made, (size_t)s->n_made, sizeof *s->made, by_number);
    uint64_t hash = rv_hash64(s->made, bytes);
    for (int32_t i = 1; i < s->dfa.states; i++)
        if (s->hashes[i] == hash && s->begins[i + 1] - s->begins[i] == (size_t)s->n_made && !memcmp(s->all + s->begins[i], s->made, bytes)) return i;
    if (s->dfa.states == RV_DFA_MOST_STATES) return -2;
    if (s->used + (size_t)s->n_made > s->room) {
        size_t room = 2 * s->room + (size_t)s->n_made;
        int32_t *more = realloc(s->all, room * sizeof *more);
        if (!more) return -1;
        s->all = more;
        s->room = room;
    }
    memcpy(s->all + s->used, s->made, bytes);
    s->used += (size_t)s->n_made;
    s->hashes[s->dfa.states] = hash;
    s->begins[s->dfa.states + 1] = s->used;
    s->dfa.accept[s->dfa.states] = s->marks[s->last] == s->mark;
    return s->dfa.states++;
}

/* Where `state` goes by bytes up to the next border of any of its ranges. */
static int32_t step(sets *s, int32_t state, int byte, int *upto) {
    s->mark++;
    s->n_made = 0;
    *upto = 255;
    for (size_t i = s->begins[state]; i < s->begins[state + 1]; i++) {
        const node *k = &s->nodes[s->all[i]];
        if (k->low > k->high) continue;
        if (byte < k->low && k->low - 1 < *upto) *upto = k->low - 1;
        if (byte < k->low || byte > k->high) continue;
        if (k->high < *upto) *upto = k->high;
        close_over(s, k->a);
    }
    return state_of(s);
}

static rv_status subsets(sets *s, int32_t start, const char *pattern, rv_error *err) {
    s->dfa.states = 1;
    s->mark = 1;
    close_over(s, start);
    int32_t to = state_of(s);
    for (int32_t i = 1; i < s->dfa.states && to >= 0; i++)
        for (int byte = 0, upto; byte < 256 && to >= 0; byte = upto + 1) {
            to = step(s, i, byte, &upto);
            for (int b = byte; to >= 0 && b <= upto; b++) s->dfa.next[i][b] = (uint16_t)to;
        }
    if (to == -1) return rv_fail_memory(err, "pattern");
    if (to == -2) return rv_fail(err, RV_ERR_UNSUPPORTED, "pattern \"%.200s\": needs more than %d states: use fewer or smaller repetitions", pattern, RV_DFA_MOST_STATES);
    return RV_OK;
}

static rv_status dfa_new(rv_dfa *d, rv_error *err) {
    *d = (rv_dfa){ .next = calloc(RV_DFA_MOST_STATES, sizeof *d->next), .accept = calloc(RV_DFA_MOST_STATES, 1) };
    return d->next && d->accept ? RV_OK : rv_fail_memory(err, "pattern");
}

/* Gives back what lies beyond the states there are. */
static void shrink(rv_dfa *d) {
    void *next = realloc(d->next, (size_t)d->states * sizeof *d->next);
    if (next) d->next = next;
}

static rv_status determine(const parser *p, part whole, rv_dfa *out, rv_error *err) {
    rv_status st = RV_OK;
    size_t n = (size_t)p->n;
    sets s = { .nodes = p->nodes, .n_nodes = p->n, .last = whole.out };
    s.begins = calloc(RV_DFA_MOST_STATES + 2, sizeof *s.begins);
    s.hashes = calloc(RV_DFA_MOST_STATES, sizeof *s.hashes);
    s.marks = calloc(n, sizeof *s.marks);
    s.made = calloc(n, sizeof *s.made);
    s.stack = calloc(2 * n + 2, sizeof *s.stack);
    if (!s.begins || !s.hashes || !s.marks || !s.made || !s.stack) TRY(rv_fail_memory(err, "pattern"));
    TRY(dfa_new(&s.dfa, err));
    TRY(subsets(&s, whole.in, p->text, err));
    shrink(&s.dfa);
    *out = s.dfa;
done:
    if (st) rv_dfa_free(&s.dfa);
    free(s.all);
    free(s.begins);
    free(s.hashes);
    free(s.marks);
    free(s.made);
    free(s.stack);
    return st;
}

rv_status rv_dfa_pattern(const char *pattern, rv_dfa *out, rv_error *err) {
    parser p = { .text = pattern, .bytes = strlen(pattern), .err = err };
    rv_status st = RV_OK;
    if (p.bytes && p.text[0] == '^') p.at = 1;
    if (p.bytes > p.at && p.text[p.bytes - 1] == '$' && (p.bytes < 2 || p.text[p.bytes - 2] != '\\')) p.bytes--;
    part whole = alternatives(&p);
    if (p.st == RV_OK && p.at < p.bytes) refuse(&p, RV_ERR_FORMAT, "')' without '('");
    TRY(p.st);
    TRY(determine(&p, whole, out, err));
done:
    free(p.nodes);
    return st;
}

void rv_dfa_free(rv_dfa *d) {
    free(d->next);
    free(d->accept);
    *d = (rv_dfa){ 0 };
}

int32_t rv_dfa_walk(const rv_dfa *d, const char *text, size_t bytes) {
    int32_t state = 1;
    for (size_t i = 0; i < bytes && state; i++) state = d->next[state][(uint8_t)text[i]];
    return state;
}

rv_status rv_dfa_single_out(rv_dfa *d, const char *text, size_t bytes, rv_error *err) {
    int32_t before = rv_dfa_walk(d, text, bytes - 1), n = d->states;
    uint16_t from = d->next[before][(uint8_t)text[bytes - 1]];
    if (before == 0 || from == 0) return RV_OK;
    if (n == RV_DFA_MOST_STATES) return rv_fail(err, RV_ERR_UNSUPPORTED, "a pattern needs more than %d states", RV_DFA_MOST_STATES);
    uint16_t (*next)[256] = realloc(d->next, (size_t)(n + 1) * sizeof *next);
    if (!next) return rv_fail_memory(err, "pattern");
    d->next = next;
    next[before][(uint8_t)text[bytes - 1]] = (uint16_t)n;
    memcpy(next[n], next[from], sizeof *next);
    d->accept[n] = d->accept[from];      /* has room for all there can be */
    d->states++;
    return RV_OK;
}

/* ---- runs ---- */

/* A state of the product: one of *d, and which limited byte came last how often (0: none). */
typedef struct place { int32_t state, byte, run; } place;

static int32_t place_of(rv_dfa *made, place *places, place at) {
    for (int32_t i = 1; i < made->states; i++)
        if (places[i].state == at.state && places[i].byte == at.byte && places[i].run == at.run) return i;
    if (made->states == RV_DFA_MOST_STATES) return -1;
    places[made->states] = at;
    return made->states++;
}

rv_status rv_dfa_limit_runs(rv_dfa *d, const char *bytes, int32_t most, rv_error *err) {
    rv_status st = RV_OK;
    rv_dfa made = { 0 };
    place *places = calloc(RV_DFA_MOST_STATES, sizeof *places);
    if (!places) return rv_fail_memory(err, "pattern");
    TRY(dfa_new(&made, err));
    made.states = 1;
    place_of(&made, places, (place){ 1, 0, 0 });
    for (int32_t i = 1; i < made.states; i++) {
        made.accept[i] = d->accept[places[i].state];
        for (int b = 0; b < 256; b++) {
            place to = { d->next[places[i].state][b], 0, 0 };
            if (b && strchr(bytes, b)) to.byte = b, to.run = places[i].byte == b ? places[i].run + 1 : 1;
            if (to.state == 0 || to.run > most) continue;
            int32_t k = place_of(&made, places, to);
            if (k < 0) TRY(rv_fail(err, RV_ERR_UNSUPPORTED, "a pattern with limited runs needs more than %d states", RV_DFA_MOST_STATES));
            made.next[i][b] = (uint16_t)k;
        }
    }
    shrink(&made);
    rv_dfa_free(d);
    *d = made;
done:
    if (st) rv_dfa_free(&made);
    free(places);
    return st;
}
