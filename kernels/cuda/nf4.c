/* nf4.c - weights of 4 bits: their size, their way to the device, and what products with many rows do with them.
 *
 * The one idea: a part's pieces land as they are in the file and are quantised or repacked there; absmaxes that are to
 * be quantised themselves need the whole part, and wait in one of a few rooms that parts take in turn.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/four.h"
#include "kernels/cuda/open.h"

/* More parts than this rarely wait at once: the loader's readers have one each, and one may lie between its pieces. */
enum { ROOMS = 15, ALIGN = 256 };
#define ROOM_BYTES (UINT64_C(4) << 20)

/* `left`: when the device has done with what the part before kept there. */
typedef struct room { char *memory; uint64_t bytes; cudaEvent_t left; bool taken; } room;
struct rv_four_rooms { pthread_mutex_t lock; pthread_cond_t given_back; room of[ROOMS]; };

typedef struct part_load {
    rv_cuda        *cuda;
    rv_weight      *weight;
    rv_four         q;
    const rv_codes *codes;               /* NULL: data                                           */
    int32_t         part;
    room           *room;                /* while it lands                                       */
} part_load;
struct rv_four_weight { rv_four q; part_load load[RV_WEIGHT_PARTS]; };

/* ---- what lies where ---- */

static uint64_t aligned(uint64_t n) { return (n + ALIGN - 1) / ALIGN * ALIGN; }

rv_four rv_four_of(const rv_weight_spec *s, void *memory) {
    rv_four q = { .memory = memory, .rows = s->rows, .cols = s->cols, .n_parts = s->n_parts, .mixed = s->order == RV_ORDER_GATE_UP,
                  .nested = s->format != RV_FORMAT_PLAIN && s->nested };
    q.blocks = s->cols / RV_BLOCK4;
    q.steps = (s->cols + RV_FOUR_COLS - 1) / RV_FOUR_COLS;
    q.record = q.nested ? RV_FOUR_NESTED_RECORD : RV_FOUR_FLOAT_RECORD;
    uint64_t at = aligned(sizeof(rv_four_head));
    for (int32_t i = 0; i < s->n_parts; i++) {
        q.part_rows[i] = s->part[i].rows;
        q.scales[i] = (int32_t)at;
        if (q.nested) at += aligned((uint64_t)rv_four_runs(&q, i) * sizeof(float));
    }
    q.records = at;
    q.bytes = at + (uint64_t)((s->rows + RV_FOUR_ROWS - 1) / RV_FOUR_ROWS) * (uint64_t)q.steps * (uint64_t)q.record;
    return q;
}

/* ---- rooms ---- */

static uint64_t room_bytes(const rv_four *q, int32_t part) {
    return aligned((uint64_t)q->part_rows[part] * (uint64_t)q->blocks * sizeof(float)) + (uint64_t)rv_four_runs(q, part) * sizeof(double);
}

static double *sums_in(const part_load *l) {
    return (double *)(void *)(l->room->memory + aligned((uint64_t)l->q.part_rows[l->part] * (uint64_t)l->q.blocks * sizeof(float)));
}

static room *free_room(struct rv_four_rooms *r) {
    for (int i = 0; i < ROOMS; i++)
        if (!r->of[i].taken) return &r->of[i];
    return NULL;
}

static cudaError_t enlarge(room *r, uint64_t bytes) {
    void *memory = NULL;
    cudaError_t e = r->left ? cudaSuccess : cudaEventCreateWithFlags(&r->left, cudaEventDisableTiming);
    cudaFree(r->memory);                 /* waits for the device                                 */
    r->memory = NULL;
    r->bytes = bytes > ROOM_BYTES ? bytes : ROOM_BYTES;
    if (!e) e = cudaMalloc(&memory, r->bytes);
    if (e) r->bytes = 0;
    r->memory = memory;
    return e;
}

/* By a part's first piece; the others find it.  `stream` may use it then. */
static cudaError_t take_room(part_load *l, cudaStream_t stream) {
    struct rv_four_rooms *r = l->cuda->four_rooms;
    const uint64_t bytes = room_bytes(&l->q, l->part);
    cudaError_t e = cudaSuccess;
    pthread_mutex_lock(&r->lock);
    while (!l->room && !e) {
        room *free = free_room(r);
        if (!free) {
            pthread_cond_wait(&r->given_back, &r->lock);
            continue;
        }
        if (free->bytes < bytes) e = enlarge(free, bytes);
        if (!e) free->taken = true, l->room = free;
    }
    if (!e) e = cudaStreamWaitEvent(stream, l->room->left, 0);
    pthread_mutex_unlock(&r->lock);
    return e;
}

/* Whatever reads it is queued on `stream`, or before what that has waited for. */
static cudaError_t give_room_back(part_load *l, cudaStream_t stream) {
    struct rv_four_rooms *r = l->cuda->four_rooms;
    pthread_mutex_lock(&r->lock);
    const cudaError_t e = cudaEventRecord(l->room->left, stream);
    l->room->taken = false;
    l->room = NULL;
    pthread_cond_signal(&r->given_back);
    pthread_mutex_unlock(&r->lock);
    return e;
}

static bool open_rooms(rv_cuda *c) {
    if (c->four_rooms) return true;
    c->four_rooms = calloc(1, sizeof *c->four_rooms);
    if (!c->four_rooms) return rv_fail_memory(&c->be.error, "loader"), false;
    pthread_mutex_init(&c->four_rooms->lock, NULL);
    pthread_cond_init(&c->four_rooms->given_back, NULL);
    return true;
}

void rv_cuda_four_loaded(rv_cuda *c) {
    if (!c->four_rooms) return;
    for (int i = 0; i < ROOMS; i++) {
        cudaFree(c->four_rooms->of[i].memory);
        if (c->four_rooms->of[i].left) cudaEventDestroy(c->four_rooms->of[i].left);
    }
    pthread_cond_destroy(&c->four_rooms->given_back);
    pthread_mutex_destroy(&c->four_rooms->lock);
    free(c->four_rooms);
    c->four_rooms = NULL;
}

/* ---- landing ---- */

static cudaError_t land_data(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    part_load *l = item->user;
    cudaError_t e = l->q.nested ? take_room(l, stream) : cudaSuccess;
    return e ? e : rv_cuda_four_quantise(&l->q, l->part, staging, item->type_from, from, rows, l->q.nested ? (float *)(void *)l->room->memory : NULL, stream);
}

static cudaError_t landed_data(const rv_load_item *item, cudaStream_t stream) {
    part_load *l = item->user;
    cudaError_t e = rv_cuda_four_nest(&l->q, l->part, (const float *)(const void *)l->room->memory, sums_in(l), stream);
    const cudaError_t given = give_room_back(l, stream);
    return e ? e : given;
}

/* The absmaxes of blocks [first, first + n) in f32, wherever they come from. */
static cudaError_t send_absmax(const part_load *l, int64_t first, int64_t n, cudaStream_t stream) {
    float *const to = (float *)(void *)l->room->memory + first;
    if (!l->codes->nested) return cudaMemcpyAsync(to, (const float *)l->codes->scale + first, (size_t)n * sizeof *to, cudaMemcpyHostToDevice, stream);
    float *absmax = malloc((size_t)n * sizeof *absmax);
    if (!absmax) return cudaErrorMemoryAllocation;
    for (int64_t i = 0; i < n; i++) absmax[i] = rv_codes_absmax(l->codes, first + i);
    cudaError_t e = cudaMemcpyAsync(to, absmax, (size_t)n * sizeof *to, cudaMemcpyHostToDevice, stream);     /* pageable: read when this returns */
    free(absmax);
    return e;
}

static cudaError_t land_codes(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    part_load *l = item->user;
    const int64_t first = (int64_t)from * l->q.blocks, n = (int64_t)rows * l->q.blocks;
    cudaError_t e = take_room(l, stream);
    if (e) return e;
    if (!l->q.nested) {
        e = send_absmax(l, first, n, stream);
        const float *absmax = (const float *)(const void *)l->room->memory + first;
        if (!e && l->weight->head.format != RV_FORMAT_PLAIN) return rv_cuda_four_place(&l->q, l->part, staging, absmax, from, rows, stream);
        return e ? e : rv_cuda_four_unpack(&l->q, l->part, l->weight->w.data, l->cuda->be.act, staging, absmax, l->codes->map, from, rows, stream);
    }
    e = cudaMemcpyAsync(l->room->memory + first, l->codes->nested + first, (size_t)n, cudaMemcpyHostToDevice, stream);
    return e ? e : rv_cuda_four_place(&l->q, l->part, staging, l->room->memory + first, from, rows, stream);
}

static cudaError_t landed_codes(const rv_load_item *item, cudaStream_t stream) { return give_room_back(item->user, stream); }

/* ---- weights ---- */

/* What this backend cannot keep in 4 bits, as an error. */
static bool refuses(rv_backend *be, const rv_weight_spec *s) {
    const rv_codes *first = NULL;
    for (int32_t i = 0; i < s->n_parts; i++) {
        const rv_codes *codes = s->part[i].codes;
        const float *map = codes ? codes->map : s->format == RV_FORMAT_NF4 ? rv_nf4_map : NULL;
        if (!map && s->part[i].data)
            rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: fp4 is only read: quantise to nf4", s->name);
        else if (codes && s->nested && !codes->nested)
            rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: part %d has absmaxes in f32 where nested ones are asked for", s->name, i);
        else if (codes && first && memcmp(first->map, map, sizeof first->map))
            rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: part %d has another table of 16 values than the first", s->name, i);
        else if (s->order == RV_ORDER_GATE_UP && s->part[i].rows % RV_CUDA_GATE_BLOCK)
            rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: %d rows; the GPU needs a multiple of %d", s->name, s->part[i].rows, RV_CUDA_GATE_BLOCK);
        if (codes && !first) first = codes;
    }
    return be->error.code != RV_OK;
}

uint64_t rv_cuda_four_bytes(rv_backend *be, const rv_weight_spec *s) {
    return refuses(be, s) ? 0 : rv_four_of(s, NULL).bytes;
}

/* Maps, and offsets and nested scales of parts that are quantised already. */
static void send_head(rv_cuda *c, const rv_weight_spec *s, const rv_four *q) {
    rv_four_head head;
    cudaError_t e = cudaSuccess;
    memset(&head, 0, sizeof head);
    memcpy(head.map, s->part[0].codes ? s->part[0].codes->map : rv_nf4_map, sizeof head.map);
    for (int32_t i = 0; i < s->n_parts; i++)
        memcpy(head.nested_map[i], s->part[i].codes && s->nested ? s->part[i].codes->nested_map : rv_nested_map, sizeof head.nested_map[i]);
    e = cudaMemcpyAsync(q->memory, &head, offsetof(rv_four_head, offset), cudaMemcpyHostToDevice, c->stream);
    for (int32_t i = 0; i < s->n_parts && !e && q->nested; i++) {
        const rv_codes *codes = s->part[i].codes;
        if (!codes) continue;
        e = cudaMemcpyAsync(&((rv_four_head *)(void *)q->memory)->offset[i], &codes->offset, sizeof codes->offset, cudaMemcpyHostToDevice, c->stream);
        if (!e) e = cudaMemcpyAsync(q->memory + q->scales[i], codes->nested_scale, (size_t)rv_four_runs(q, i) * sizeof(float), cudaMemcpyHostToDevice, c->stream);
    }
    if (e) rv_cuda_failed(c, e, "copying the scales of 4-bit weights");
}

static void load_part(rv_cuda *c, rv_weight *w, const rv_weight_spec *s, int32_t part) {
    if (s->cols % RV_BLOCK4)
        rv_fail(&c->be.error, RV_ERR_UNSUPPORTED, "%s: codes of 4 bits with %d columns; the GPU needs a multiple of %d", s->name, s->cols, RV_BLOCK4);
    if (c->be.error.code || !open_rooms(c)) return;
    part_load *l = &w->four->load[part];
    const rv_codes *codes = s->part[part].codes;
    *l = (part_load){ c, w, rv_four_of(s, w->w.data), codes, part, NULL };
    rv_load_item item = { .from = codes ? codes->codes : s->part[part].data, .type_from = codes ? RV_U8 : s->part[part].type, .rows = s->part[part].rows,
                          .cols = codes ? s->cols / 2 : s->cols, .land = codes ? land_codes : land_data, .name = rv_part_name(s, part), .user = l };
    item.landed = codes ? landed_codes : l->q.nested ? landed_data : NULL;
    rv_loader_add(c->loader, &item);
}

bool rv_cuda_four_part(rv_cuda *c, rv_weight *w, const rv_weight_spec *s, int32_t i) {
    const rv_codes *codes = s->part[i].codes;
    if (!codes || codes->format == RV_FORMAT_INT8) return false;
    if (!w->four && !(w->four = calloc(1, sizeof *w->four))) rv_fail_memory(&c->be.error, s->name);
    else load_part(c, w, s, i);
    return true;
}

rv_weight *rv_cuda_four_new(rv_backend *be, const rv_weight_spec *s, void *memory) {
    rv_cuda *c = (rv_cuda *)be;
    if (refuses(be, s)) return NULL;
    rv_weight *w = calloc(1, sizeof *w);
    if (!w || !(w->four = calloc(1, sizeof *w->four))) return rv_fail_memory(&be->error, s->name), free(w), NULL;
    w->head = (rv_weight_head){ s->rows, s->cols, s->use, s->order, s->format };
    w->w = rv_mat_of(memory, s->rows, s->cols, be->act);       /* its rows are not 16 bit: `four` says what they are */
    w->four->q = rv_four_of(s, memory);
    if (s->filled) return w;
    if (!c->loader && !(c->loader = rv_loader_open(c, false))) return rv_cuda_four_drop(c, w), free(w), NULL;
    send_head(c, s, &w->four->q);
    for (int32_t i = 0; i < s->n_parts && !be->error.code; i++) load_part(c, w, s, i);
    return w;
}

void rv_cuda_four_drop(rv_cuda *c, rv_weight *w) {
    if (!w->four) return;
    if (c->loader) rv_loader_finish(c->loader);                /* what is on its way looks at it            */
    free(w->four);
}

/* ---- products ---- */

const rv_four *rv_cuda_four(const rv_weight *w) { return w->four && w->four->q.memory ? &w->four->q : NULL; }

/* Rows of a weight at a time that fit into `partial`, which nothing else uses while a product runs. */
void *rv_cuda_four_room(const rv_cuda *c) { return (char *)c->partial + RV_CUDA_COUNTERS * sizeof(int32_t); }
#define ROOM_FOR_ROWS (RV_CUDA_PARTIAL_BYTES - RV_CUDA_COUNTERS * sizeof(int32_t))
static int32_t rows_at_once(const rv_weight *w) {
    const uint64_t rows = ROOM_FOR_ROWS / ((uint64_t)w->head.cols * 2);
    return rows > 128 ? (int32_t)(rows - rows % 128) : (int32_t)(rows - rows % RV_FOUR_ROWS);
}

/* Calls work(rows [from, ..) of w in 16 bit) for all of w. Nothing may begin early: the rows are just being made. */
typedef void (*some_rows)(rv_backend *be, const rv_weight *part, int32_t from, const void *user);
static void each_rows(rv_cuda *c, const rv_weight *w, some_rows work, const void *user) {
    const bool overlap = c->overlap;
    c->overlap = false;
    for (int32_t from = 0, most = rows_at_once(w); from < w->head.rows && !c->be.error.code; from += most) {
        const int32_t n = w->head.rows - from < most ? w->head.rows - from : most;
        rv_weight part = { .head = { n, w->head.cols, w->head.use, RV_ORDER_STACKED, RV_FORMAT_PLAIN }, .w = rv_mat_of(rv_cuda_four_room(c), n, w->head.cols, c->be.act) };
        cudaError_t e = rv_cuda_four_read(&w->four->q, part.w.data, c->be.act, from, n, c->multiprocessors, c->stream);
        if (e) rv_cuda_failed(c, e, "reading 4-bit weights");
        else work(&c->be, &part, from, user);
    }
    c->overlap = overlap;
}

cudaError_t rv_cuda_four_few(rv_cuda *c, const rv_few *p, const rv_four *q) {
    if (c->arch == 70) return rv_cuda_few4_70(p, q, c->stream);
#if RV_CUDA_SM90
    if (c->arch == 90 && rv_cuda_few4_90_takes(p, q)) return rv_cuda_few4_90(p, q, rv_cuda_four_room(c), false, false, c->overlap, c->stream);
#endif
    return rv_cuda_few4(p, q, rv_cuda_four_room(c), c->overlap, c->stream);
}

bool rv_cuda_four_layer(const rv_cuda *c, const rv_decoder_block *b) {
#if RV_CUDA_SM90
    const rv_weight *w[] = { b->in, b->gate_up, b->down };
    const rv_few like = { .x = b->x, .multiprocessors = c->multiprocessors };
    for (int i = 0; i < 3; i++)
        if (!rv_cuda_four(w[i]) || !rv_cuda_few4_90_takes(&like, rv_cuda_four(w[i]))) return false;
    if (b->norm1.bias || b->norm2.bias || b->norm1.width != b->x.cols || b->norm2.width != b->x.cols) return false;
    return c->arch == 90 && rv_cuda_four_norms(b->x.cols) && b->ff.cols % RV_FOUR_COLS == 0 && b->ff.ld == b->ff.cols && (uintptr_t)b->ff.data % 16 == 0;
#else
    (void)c, (void)b;
    return false;
#endif
}

cudaError_t rv_cuda_four_in_layer(rv_cuda *c, const rv_few *p, const rv_weight *w) {
#if RV_CUDA_SM90
    rv_few q = *p;
    cudaError_t e = cudaSuccess;
    if (p->norm) {
        e = rv_cuda_four_norm(p->x, p->norm, p->eps, p->act, rv_cuda_four_room(c), c->overlap, c->stream);
        q.x = rv_mat_of(rv_cuda_four_room(c), p->x.rows, p->x.cols, p->act);
        q.norm = NULL;
    }
    return e ? e : rv_cuda_few4_90(&q, rv_cuda_four(w), NULL, true, p->how == RV_FEW_SWIGLU, c->overlap, c->stream);
#else
    (void)c, (void)p, (void)w;
    return cudaErrorNotSupported;
#endif
}

bool rv_cuda_four_many(rv_cuda *c, const rv_few *p, const rv_weight *w) {
#if RV_CUDA_SM90
    if (c->arch != 90 || !rv_cuda_four90_fits(p)) return false;
    cudaError_t e = rv_cuda_four90(p, &w->four->q, rv_cuda_four_room(c), ROOM_FOR_ROWS, c->overlap, c->stream);
    if (e) rv_cuda_failed(c, e, "product of 4-bit weights");
    return true;
#else
    (void)c, (void)p, (void)w;
    return false;
#endif
}

typedef struct linear { rv_mat out, x; const float *bias, *row_scale; rv_act act; float scale; } linear;

static void linear_rows(rv_backend *be, const rv_weight *part, int32_t from, const void *user) {
    const linear *l = user;
    be->ops->linear(be, rv_cols(l->out, from, part->head.rows), l->x, part, l->bias ? l->bias + from : NULL, l->act);
}
static void add_rows(rv_backend *be, const rv_weight *part, int32_t from, const void *user) {
    const linear *l = user;
    be->ops->linear_add(be, rv_cols(l->out, from, part->head.rows), l->x, part, l->bias ? l->bias + from : NULL, l->scale, l->row_scale);
}

void rv_cuda_four_linear(rv_cuda *c, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act) {
    const linear l = { .out = out, .x = x, .bias = bias, .act = act };
    each_rows(c, w, linear_rows, &l);
}

void rv_cuda_four_linear_add(rv_cuda *c, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale, const float *row_scale) {
    const linear l = { .out = x, .x = h, .bias = bias, .scale = scale, .row_scale = row_scale };
    each_rows(c, w, add_rows, &l);
}
