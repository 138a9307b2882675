/* int8.c - LLM.int8 weights on the device, and which kernels their products get.
 *
 * The one idea: codes lie row by row as the checkpoint has them (GATE_UP: blocks of both in turn), so that one copy
 * serves one row and thousands; a weight is INT8 as a whole, while a 16-bit one may be made of parts that come as codes.
 */
#include <stdlib.h>

#include "kernels/cuda/int8_many.h"
#include "kernels/cuda/open.h"

/* ---- weights ---- */

static int32_t pitch_of(int32_t cols) { return (cols + 15) / 16 * 16; }
static uint64_t codes_bytes(int32_t rows, int32_t cols) { return ((uint64_t)rows * (uint64_t)pitch_of(cols) + 255) / 256 * 256; }

uint64_t rv_cuda_int8_bytes(const rv_weight_spec *s) { return codes_bytes(s->rows, s->cols) + (uint64_t)s->rows * sizeof(float); }

void rv_cuda_int8_place(rv_weight *w, void *memory) {
    w->codes = memory;
    w->scale = (float *)(void *)((char *)memory + codes_bytes(w->head.rows, w->head.cols));
    w->pitch = pitch_of(w->head.cols);
    w->w = rv_mat_of(memory, w->head.rows, w->head.cols, RV_I8);
}

/* What a part's pieces become. */
typedef struct landing { const rv_weight *w; rv_int8_place place; const void *scales; } landing;

static cudaError_t make(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    const landing *l = item->user;
    return rv_cuda_int8_make(l->w->codes, l->w->scale, l->w->pitch, l->place, staging, item->type_from, from, rows, item->cols, stream);
}

static cudaError_t copy(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    const landing *l = item->user;
    return rv_cuda_int8_copy(l->w->codes, l->w->pitch, l->place, staging, from, rows, item->cols, stream);
}

static cudaError_t copy_scales(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    const landing *l = item->user;
    return rv_cuda_int8_scales(l->w->scale, l->place, staging, from, rows, stream);
}

static cudaError_t make_plain(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream) {
    const landing *l = item->user;
    return rv_cuda_int8_plain(l->w->w.data, l->w->w.type, l->place, staging, l->scales, from, rows, item->cols, stream);
}

bool rv_cuda_int8_part(rv_cuda *c, rv_weight *w, const rv_weight_spec *s, int32_t i, int32_t first) {
    const rv_weight_part *p = &s->part[i];
    const bool codes = p->codes && p->codes->format == RV_FORMAT_INT8, mixed = s->order == RV_ORDER_GATE_UP;
    if (s->format != RV_FORMAT_INT8 && !codes) return false;
    if (!w->landing && !(w->landing = calloc(RV_WEIGHT_PARTS, sizeof(landing)))) return rv_fail_memory(&c->be.error, s->name), true;
    landing *l = (landing *)w->landing + i;
    *l = (landing){ w, { first, mixed ? RV_CUDA_GATE_BLOCK : 0, mixed ? s->n_parts * RV_CUDA_GATE_BLOCK : 0 }, codes ? p->codes->scale : NULL };
    rv_load_item item = { .from = codes ? p->codes->codes : p->data, .type_from = codes ? RV_I8 : p->type, .rows = p->rows, .cols = s->cols,
                          .land = !codes ? make : s->format == RV_FORMAT_INT8 ? copy : make_plain, .in_f16 = !codes, .name = rv_part_name(s, i), .user = l };
    rv_loader_add(c->loader, &item);
    if (codes && s->format == RV_FORMAT_INT8) {
        item.from = p->codes->scale;
        item.type_from = RV_F32;
        item.cols = 1;
        item.land = copy_scales;
        rv_loader_add(c->loader, &item);
    }
    return true;
}

/* ---- products ---- */

/* Rows [from, from + n) of what p describes. */
static rv_int8 rows_of(rv_cuda *c, const rv_few *p, const rv_weight *w, int32_t from, int32_t n) {
    rv_int8 q = { .p = *p, .w_scale = w->scale, .pitch = w->pitch, .fused = RV_CUDA_INT8_FUSED, .rules = c->int8, .call = p->x,
                  .room = (char *)c->partial + RV_CUDA_COUNTERS * sizeof(int32_t), .marks = (char *)c->partial + RV_CUDA_PARTIAL_BYTES };
    q.p.x = rv_rows(p->x, from, n);
    q.p.out = rv_rows(p->out, from, n);
    if (p->row_scale) q.p.row_scale = p->row_scale + from;
    q.p.w = w->codes;
    q.p.turn = rv_cuda_turn(c->partial, c->turn++);
    return q;
}

/* ---- how many rows' products are cut ---- */

enum { WEIGHTS = 128, LINE = 128 };      /* rows of weights of a tile; codes of a line          */

const rv_int8_cut rv_cuda_int8_cuts[RV_CUDA_INT8_CUTS] = { { 128, 1, 1 }, { 128, 1, 2 }, { 128, 1, 3 }, { 208, 1, 1 }, { 208, 1, 2 }, { 208, 1, 3 }, { 208, 2, 1 }, { 256, 1, 1 }, { 256, 1, 2 }, { 256, 1, 3 } };

static int32_t parts(int32_t n, int32_t of) { return (n + of - 1) / of; }

/* A cluster's blocks are of one GPC, of whose multiprocessors clusters of more than two may not be able to use all: a cluster that begins late would double
 * the time (32 of four were too many for 132). */
int32_t rv_cuda_int8_blocks(int32_t multiprocessors, int32_t cluster) { return cluster > 2 ? multiprocessors / 16 * 15 / cluster * cluster : multiprocessors / cluster * cluster; }

static int32_t cluster_of(rv_int8_cut c) { return c.share * c.split; }
static int32_t tiles_of(const rv_int8 *q, rv_int8_cut c) { return parts(q->p.x.rows, c.rows) * parts(q->p.rows, WEIGHTS * c.share) * c.share; }

/* Parts are of a cluster's only tiles: they meet in what else the next ones' codes come through. */
bool rv_cuda_int8_may_cut(const rv_int8 *q, rv_int8_cut c) {
    const bool there = (c.rows == 128 || c.rows == 208 || c.rows == 256) && (c.share == 1 || c.share == 2) && c.split >= 1 && c.split <= 4 && cluster_of(c) <= 4;
    if (!there) return false;
    const int32_t blocks = rv_cuda_int8_blocks(q->p.multiprocessors, cluster_of(c));
    return blocks > 0 && (c.split == 1 || (parts(q->pitch, LINE) >= c.split && (int64_t)tiles_of(q, c) * c.split <= blocks));
}

/* In clocks, fitted to what an H200 took (bench/LOG.md): lines of a tile, one in eight more where all multiprocessors are at it; its end; parts that meet. */
static int64_t cost_of(const rv_int8 *q, rv_int8_cut c) {
    enum { A_LINE = 390, OF_FIVE_ROWS = 16, END_OF_ROW = 66, MEETING = 5000, ALL = 100 };
    const int64_t most = rv_cuda_int8_blocks(q->p.multiprocessors, cluster_of(c)), tiles = (int64_t)tiles_of(q, c) * c.split, at_once = tiles < most ? tiles : most;
    const int64_t rounds = (tiles + most - 1) / most, lines = parts(parts(q->pitch, LINE), c.split), line = A_LINE + c.rows * OF_FIVE_ROWS / 5;
    return rounds * (lines * (at_once > ALL ? line * 9 / 8 : line) + c.rows * END_OF_ROW / c.split) + (c.split > 1 ? MEETING * c.split : 0);
}

rv_int8_cut rv_cuda_int8_cut(const rv_int8 *q) {
    rv_int8_cut best = rv_cuda_int8_cuts[0];
    for (int32_t i = 1; i < RV_CUDA_INT8_CUTS; i++)
        if (rv_cuda_int8_may_cut(q, rv_cuda_int8_cuts[i]) && cost_of(q, rv_cuda_int8_cuts[i]) < cost_of(q, best)) best = rv_cuda_int8_cuts[i];
    return best;
}

#if RV_CUDA_SM90
static bool by_many(rv_cuda *c, const rv_few *p, const rv_weight *w, cudaError_t *e) {
    rv_int8 q = rows_of(c, p, w, 0, p->x.rows);
    if (p->x.rows <= RV_FEW_ROWS || c->arch != 90 || !rv_cuda_int8_90_fits(&q)) return false;
    const int32_t most = rv_cuda_int8_90_rows(&q);
    if (most == 0) return false;
    *e = cudaSuccess;
    for (int32_t from = 0; !*e && from < p->x.rows; from += most) {
        q = rows_of(c, p, w, from, p->x.rows - from < most ? p->x.rows - from : most);
        q.cut = rv_cuda_int8_cut(&q);
        *e = rv_cuda_int8_90(&q, c->overlap, c->stream);
    }
    return true;
}
#endif

bool rv_cuda_int8_normed(rv_cuda *c, const rv_few *p, const rv_weight *w, cudaError_t *e) {
#if RV_CUDA_SM90
    const rv_int8 q = rows_of(c, p, w, 0, p->x.rows);
    /* What outliers add to gate and up is large: not a few rows at a time for the sake of it. */
    if (p->how == RV_FEW_SWIGLU && rv_cuda_int8_90_rows(&q) < p->x.rows) return false;
    return by_many(c, p, w, e);
#else
    (void)c, (void)p, (void)w, (void)e;
    return false;
#endif
}

cudaError_t rv_cuda_int8_few(rv_cuda *c, const rv_int8 *q) {
    if (c->arch == 70) return rv_cuda_few8_70(q, c->stream);
#if RV_CUDA_SM90
    if (c->arch == 90 && rv_cuda_few8_90_takes(q)) return rv_cuda_few8_90(q, c->overlap, c->stream);
#endif
    return rv_cuda_few8(q, c->overlap, c->stream);
}

cudaError_t rv_cuda_int8_product(rv_cuda *c, const rv_few *p, const rv_weight *w) {
    cudaError_t e = cudaSuccess;
#if RV_CUDA_SM90
    if (by_many(c, p, w, &e)) return e;
#endif
    for (int32_t from = 0; !e && from < p->x.rows; from += RV_FEW_ROWS) {
        const int32_t n = p->x.rows - from < RV_FEW_ROWS ? p->x.rows - from : RV_FEW_ROWS;
        const rv_int8 q = rows_of(c, p, w, from, n);
        e = rv_cuda_int8_few(c, &q);
    }
    return e;
}
