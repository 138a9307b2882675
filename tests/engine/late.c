/* late.c - a CPU backend whose operations run at the last moment.
 *
 * The one idea: whatever the engine reads too early, or lets another use too early, is still as it was, so a
 * missing wait or a step too many shows in the answers.
 */
#include "tests/engine/late.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/sample.h"

enum { MOST = 16, TAPS = 16 };

typedef enum { UPLOAD, ZERO, COPY, PATCHES, EMBED, ADD_ROWS, NORM, LINEAR, LINEAR_ADD, SWIGLU, ROPE, KV_STORE, ATTEND, CONCAT, CHOOSE, FETCH, MARK } op;

typedef struct call {                    /* an operation with its arguments                     */
    op op;
    rv_mat out, a, b;
    const rv_weight *w;
    void *to;
    const void *from;
    const int32_t *ids, *slot;
    const float *f, *g;
    float scale;
    int32_t n, k;
    uint64_t bytes;
    rv_norm norm;
    rv_kv kv;
    rv_attention attention;
    rv_mat taps[TAPS];
    rv_answering answering;
    rv_tray *tray;
} call;

typedef struct calls { call *of; size_t n, room; } calls;
struct rv_tape { calls run; };
struct rv_tray { void *bytes; int on_their_way; };

typedef struct late { rv_backend *be; const rv_backend_ops *inner; calls queue, recording; bool records; } late;
static late all[MOST];

static late *late_of(const rv_backend *be) {
    for (int i = 0; i < MOST; i++)
        if (all[i].be == be) return &all[i];
    fail_msg("a backend that was not wrapped");
    return NULL;
}

static void add(calls *c, const call *one) {
    if (c->n == c->room) {
        c->room = c->room ? 2 * c->room : 256;
        c->of = realloc(c->of, c->room * sizeof *c->of);
        assert_non_null(c->of);
    }
    c->of[c->n++] = *one;
}

static void queue(rv_backend *be, call one) {
    late *l = late_of(be);
    assert_true(!l->records || (one.op != UPLOAD && one.op != FETCH));
    add(l->records ? &l->recording : &l->queue, &one);
}

/* ---- running ---- */

static void choose_row(const rv_answering *a, int32_t r, const float *logits, int32_t vocab) {
    const rv_choice *how = &a->how[r];
    rv_sampling sampling = { how->temperature, how->top_k, how->top_p, how->repetition_penalty, how->seed };
    uint8_t *seen = a->seen + (size_t)a->slot[r] * (size_t)vocab;
    float *copy = malloc((size_t)vocab * sizeof *copy);
    rv_candidate *room = malloc(2 * (size_t)vocab * sizeof *room);
    rv_error err;
    if (a->pos[r] < 0) goto done;
    memcpy(copy, logits, (size_t)vocab * sizeof *copy);
    if (rv_sample(&sampling, &how->guide, copy, vocab, seen, how->index, room, &a->best[r], &err)) a->best[r].id = -1;
    else {
        a->ids[r] = a->best[r].id;
        if (rv_guide_on(&how->guide)) rv_guide_move(&a->how[r].guide, a->ids[r]);
        if (how->repetition_penalty != 1.0f) seen[a->ids[r]] = 1;
    }
    a->how[r].index++;
    a->pos[r] = a->best[r].id >= 0 && a->pos[r] < how->last ? a->pos[r] + 1 : -1;
done:
    free(copy);
    free(room);
}

static void run(late *l, const call *c) {
    rv_backend *be = l->be;
    const rv_backend_ops *o = l->inner;
    switch (c->op) {
    case UPLOAD: o->upload(be, c->to, c->from, c->bytes); free((void *)(uintptr_t)c->from); break;
    case ZERO: o->zero(be, c->out); break;
    case COPY: o->copy(be, c->out, c->a); break;
    case PATCHES: o->patches(be, c->out, c->a, c->f, c->n, c->k); break;
    case EMBED: o->embed(be, c->out, c->w, c->ids); break;
    case ADD_ROWS: o->add_rows(be, c->out, c->w, c->ids, c->scale); break;
    case NORM: o->norm(be, c->out, c->a, c->norm); break;
    case LINEAR: o->linear(be, c->out, c->a, c->w, c->f, (rv_act)c->n); break;
    case LINEAR_ADD: o->linear_add(be, c->out, c->a, c->w, c->f, c->scale, c->g); break;
    case SWIGLU: o->swiglu(be, c->out, c->a); break;
    case ROPE:                           /* the CPU refuses rows without a position              */
        for (int32_t r = 0; r < c->out.rows; r++)
            if (c->ids[r] >= 0) o->rope(be, rv_rows(c->out, r, 1), c->f, c->ids + r, c->n);
        break;
    case KV_STORE: o->kv_store(be, c->kv, c->a, c->b, c->slot, c->ids); break;
    case ATTEND: o->attend(be, &c->attention); break;
    case CONCAT: o->concat_taps(be, c->out, c->a, c->taps, c->n); break;
    case CHOOSE:
        for (int32_t r = 0; r < c->a.rows; r++) choose_row(&c->answering, r, (const float *)c->a.data + r * c->a.ld, c->a.cols);
        break;
    case FETCH:
        memcpy(c->tray->bytes, c->from, c->bytes);
        c->tray->on_their_way--;
        break;
    case MARK: o->mark(be, (rv_mark)c->n); break;
    }
}

/* Runs what is queued, until the tray has all its copies (NULL: all). */
static void drain(late *l, const rv_tray *tray) {
    size_t i = 0;
    for (; i < l->queue.n && (!tray || tray->on_their_way); i++)
        if (!l->be->error.code || l->queue.of[i].op == UPLOAD) run(l, &l->queue.of[i]);
    l->queue.n -= i;
    if (i) memmove(l->queue.of, l->queue.of + i, l->queue.n * sizeof *l->queue.of);
}

/* ---- the table ---- */

static void *alloc(rv_backend *be, uint64_t bytes) { return late_of(be)->inner->alloc(be, bytes); }
static void release(rv_backend *be, void *p) {
    drain(late_of(be), NULL);
    late_of(be)->inner->release(be, p);
}
static void upload(rv_backend *be, void *dst, const void *host, uint64_t bytes) {
    void *copy = malloc((size_t)bytes);
    assert_non_null(copy);
    memcpy(copy, host, (size_t)bytes);
    queue(be, (call){ .op = UPLOAD, .to = dst, .from = copy, .bytes = bytes });
}
static void download(rv_backend *be, void *host, const void *src, uint64_t bytes) {
    drain(late_of(be), NULL);
    late_of(be)->inner->download(be, host, src, bytes);
}
static void finish(rv_backend *be) { drain(late_of(be), NULL); }
static uint64_t weight_bytes(rv_backend *be, const rv_weight_spec *s) { return late_of(be)->inner->weight_bytes(be, s); }
static rv_weight *weight_new(rv_backend *be, const rv_weight_spec *s, void *memory) { return late_of(be)->inner->weight_new(be, s, memory); }
static void weight_free(rv_backend *be, rv_weight *w) {
    drain(late_of(be), NULL);
    late_of(be)->inner->weight_free(be, w);
}
static void zero(rv_backend *be, rv_mat x) { queue(be, (call){ .op = ZERO, .out = x }); }
static void copy(rv_backend *be, rv_mat dst, rv_mat src) { queue(be, (call){ .op = COPY, .out = dst, .a = src }); }
static void patches(rv_backend *be, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch) {
    queue(be, (call){ .op = PATCHES, .out = out, .a = pixels, .f = values, .n = channels, .k = patch });
}
static void embed(rv_backend *be, rv_mat out, const rv_weight *w, const int32_t *ids) {
    queue(be, (call){ .op = EMBED, .out = out, .w = w, .ids = ids });
}
static void add_rows(rv_backend *be, rv_mat x, const rv_weight *w, const int32_t *ids, float scale) {
    queue(be, (call){ .op = ADD_ROWS, .out = x, .w = w, .ids = ids, .scale = scale });
}
static void norm(rv_backend *be, rv_mat out, rv_mat x, rv_norm n) { queue(be, (call){ .op = NORM, .out = out, .a = x, .norm = n }); }
static void linear(rv_backend *be, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act) {
    queue(be, (call){ .op = LINEAR, .out = out, .a = x, .w = w, .f = bias, .n = (int32_t)act });
}
static void linear_add(rv_backend *be, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale, const float *row_scale) {
    queue(be, (call){ .op = LINEAR_ADD, .out = x, .a = h, .w = w, .f = bias, .scale = scale, .g = row_scale });
}
static void swiglu(rv_backend *be, rv_mat out, rv_mat gate_up) { queue(be, (call){ .op = SWIGLU, .out = out, .a = gate_up }); }
static void rope(rv_backend *be, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    queue(be, (call){ .op = ROPE, .out = qk, .f = cos_sin, .ids = pos, .n = head_dim });
}
static void kv_store(rv_backend *be, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos) {
    queue(be, (call){ .op = KV_STORE, .kv = kv, .a = k, .b = v, .slot = slot, .ids = pos });
}
static void attend(rv_backend *be, const rv_attention *a) { queue(be, (call){ .op = ATTEND, .attention = *a }); }
static void concat_taps(rv_backend *be, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n) {
    call c = { .op = CONCAT, .out = out, .a = last, .n = n };
    assert_true(n <= TAPS);
    memcpy(c.taps, taps, (size_t)n * sizeof *taps);
    queue(be, c);
}
static void choose(rv_backend *be, const rv_answering *a, rv_mat logits) { queue(be, (call){ .op = CHOOSE, .answering = *a, .a = logits }); }

static void record(rv_backend *be) { late_of(be)->records = true; }
static rv_tape *recorded(rv_backend *be) {
    late *l = late_of(be);
    rv_tape *tape = malloc(sizeof *tape);
    assert_non_null(tape);
    *tape = (rv_tape){ l->recording };
    l->recording = (calls){ 0 };
    l->records = false;
    return tape;
}
static void play(rv_backend *be, rv_tape *tape) {
    for (size_t i = 0; i < tape->run.n; i++) queue(be, tape->run.of[i]);
}
static void erase(rv_backend *be, rv_tape *tape) {
    (void)be;
    free(tape->run.of);
    free(tape);
}
static rv_tray *tray_new(rv_backend *be, uint64_t bytes) {
    rv_tray *tray = calloc(1, sizeof *tray);
    (void)be;
    assert_non_null(tray);
    tray->bytes = malloc((size_t)bytes);
    assert_non_null(tray->bytes);
    return tray;
}
static void tray_free(rv_backend *be, rv_tray *tray) {
    drain(late_of(be), NULL);
    free(tray->bytes);
    free(tray);
}
static void fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes) {
    tray->on_their_way++;
    queue(be, (call){ .op = FETCH, .tray = tray, .from = src, .bytes = bytes });
}
static const void *fetched(rv_backend *be, rv_tray *tray) {
    drain(late_of(be), tray);
    return tray->bytes;
}

static void mark(rv_backend *be, rv_mark which) { queue(be, (call){ .op = MARK, .n = (int32_t)which }); }
static double marked_ms(rv_backend *be, rv_mark from, rv_mark to) {
    drain(late_of(be), NULL);
    return late_of(be)->inner->marked_ms(be, from, to);
}

static void close_late(rv_backend *be) {
    late *l = late_of(be);
    drain(l, NULL);
    free(l->queue.of);
    be->ops = l->inner;
    *l = (late){ 0 };
    be->ops->close(be);
}

void late_wrap(rv_backend *be) {
    static const rv_backend_ops ops = {
        .name = "late", .alloc = alloc, .release = release, .upload = upload, .download = download, .finish = finish,
        .weight_bytes = weight_bytes, .weight_new = weight_new, .weight_free = weight_free, .zero = zero, .copy = copy, .patches = patches,
        .embed = embed, .add_rows = add_rows, .norm = norm, .linear = linear, .linear_add = linear_add, .swiglu = swiglu, .rope = rope,
        .kv_store = kv_store, .attend = attend, .concat_taps = concat_taps, .close = close_late, .record = record, .recorded = recorded,
        .play = play, .erase = erase, .choose = choose, .tray_new = tray_new, .tray_free = tray_free, .fetch = fetch, .fetched = fetched,
        .mark = mark, .marked_ms = marked_ms,
    };
    late *l = late_of(NULL);
    *l = (late){ .be = be, .inner = be->ops };
    be->ops = &ops;
}
