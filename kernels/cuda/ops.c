/* ops.c - the backend's table: each operation picks a kernel by its shape and queues it. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/four.h"
#include "kernels/cuda/open.h"

enum { CHUNK_ROWS = 1024 };

static rv_cuda *cuda_of(rv_backend *be) { return (rv_cuda *)be; }

static void check(rv_backend *be, cudaError_t e, const char *what) {
    if (e) rv_cuda_failed(cuda_of(be), e, what);
}

/* ---- memory and order ---- */

static void op_enter(rv_backend *be) { rv_cuda_push(&cuda_of(be)->context); }
static void op_leave(rv_backend *be) { rv_cuda_pop(&cuda_of(be)->context); }

static void *op_alloc(rv_backend *be, uint64_t bytes) { return rv_cuda_take(cuda_of(be), bytes, "a model or session"); }
static void  op_release(rv_backend *be, void *p) { rv_cuda_give_back(cuda_of(be), p); }
static void *op_host_alloc(rv_backend *be, uint64_t bytes) { return rv_cuda_take_host(cuda_of(be), bytes); }
static void  op_host_release(rv_backend *be, void *p) { rv_cuda_give_back_host(cuda_of(be), p); }

/* Pageable memory: the call returns once the host bytes are read, so the caller may reuse them. */
static void op_upload(rv_backend *be, void *dst, const void *host, uint64_t bytes) {
    check(be, cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, cuda_of(be)->stream), "upload");
}

static void op_download(rv_backend *be, void *host, const void *src, uint64_t bytes) {
    cudaError_t e = cudaMemcpyAsync(host, src, bytes, cudaMemcpyDeviceToHost, cuda_of(be)->stream);
    check(be, e ? e : cudaStreamSynchronize(cuda_of(be)->stream), "download");
}

static void op_finish(rv_backend *be) {
    rv_cuda *c = cuda_of(be);
    if (c->loader) {                     /* readers and their pinned memory are wanted while loading only */
        rv_loader_finish(c->loader);
        rv_loader_close(c->loader);
        c->loader = NULL;
        rv_cuda_four_loaded(c);
    }
    check(be, cudaStreamSynchronize(c->stream), "running the model");
}

static void op_mark(rv_backend *be, rv_mark which) { check(be, cudaEventRecord(cuda_of(be)->marks[which], cuda_of(be)->stream), "marking a time"); }

static double op_marked_ms(rv_backend *be, rv_mark from, rv_mark to) {
    float ms = 0;
    check(be, cudaEventElapsedTime(&ms, cuda_of(be)->marks[from], cuda_of(be)->marks[to]), "reading a time");
    return (double)ms;
}

static uint64_t op_saturated(rv_backend *be) {
    rv_cuda *c = cuda_of(be);
    uint64_t sum = 0;
    if (be->act == RV_F16) check(be, rv_cuda_clamped(&sum, c->capability, c->side), "counting clamped values");
    return be->error.code || be->act != RV_F16 ? 0 : sum - c->clamped_before;
}

static void op_fill(rv_backend *be, void *dst, const rv_fill *from) {
    rv_cuda *c = cuda_of(be);
    if (!c->loader && !(c->loader = rv_loader_open(c, true))) return;
    rv_loader_fill(c->loader, dst, from);
}

static bool op_loading(rv_backend *be) { return cuda_of(be)->loader && rv_loader_busy(cuda_of(be)->loader); }

/* ---- weights ---- */

/* What this backend cannot keep a weight as. */
static bool refuses(rv_backend *be, const rv_weight_spec *s) {
    if (s->format == RV_FORMAT_INT8 && (s->use == RV_USE_ROWS || s->cols > RV_CUDA_INT8_MOST))
        rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: the GPU backend keeps weights of products with up to %d columns in int8, not a table, nor %d columns", s->name,
                RV_CUDA_INT8_MOST, s->cols);
    return be->error.code != RV_OK;
}

static uint64_t op_weight_bytes(rv_backend *be, const rv_weight_spec *s) {
    if (refuses(be, s)) return 0;
    if (s->format == RV_FORMAT_INT8) return rv_cuda_int8_bytes(s);
    if (s->format >= RV_FORMAT_NF4) return rv_cuda_four_bytes(be, s);
    return (uint64_t)s->rows * (uint64_t)s->cols * 2;
}

static rv_weight *op_weight_new(rv_backend *be, const rv_weight_spec *s, void *memory) {
    rv_cuda *c = cuda_of(be);
    if (refuses(be, s)) return NULL;
    if (s->format >= RV_FORMAT_NF4) return rv_cuda_four_new(be, s, memory);
    rv_weight *w = calloc(1, sizeof *w);
    if (!w) return rv_fail_memory(&be->error, s->name), NULL;
    if (!c->loader && !(c->loader = rv_loader_open(c, false))) return free(w), NULL;
    w->head = (rv_weight_head){ s->rows, s->cols, s->use, s->order, s->format };
    w->w = rv_mat_of(memory, s->rows, s->cols, be->act);
    if (s->format == RV_FORMAT_INT8) rv_cuda_int8_place(w, memory);
    bool mixed = s->order == RV_ORDER_GATE_UP;
    if (mixed && s->part[0].rows % RV_CUDA_GATE_BLOCK)
        rv_fail(&be->error, RV_ERR_UNSUPPORTED, "%s: %d rows; the GPU needs a multiple of %d", s->name, s->part[0].rows, RV_CUDA_GATE_BLOCK);
    int64_t row = 0;
    for (int32_t i = 0; i < s->n_parts && !be->error.code && !s->filled; i++, row += s->part[i - 1].rows) {
        int64_t first = mixed ? i * RV_CUDA_GATE_BLOCK : row;
        if (rv_cuda_int8_part(c, w, s, i, (int32_t)first) || rv_cuda_four_part(c, w, s, i)) continue;
        rv_load_item item = { .from = s->part[i].data, .type_from = s->part[i].type, .to = (char *)memory + (uint64_t)first * (uint64_t)s->cols * 2,
                              .rows = s->part[i].rows, .cols = s->cols, .block = mixed ? RV_CUDA_GATE_BLOCK : 0, .stride = mixed ? s->n_parts * RV_CUDA_GATE_BLOCK : 0,
                              .on_host = s->on_host, .name = rv_part_name(s, i) };
        rv_loader_add(c->loader, &item);
    }
    return w;
}

static void op_weight_free(rv_backend *be, rv_weight *w) {
    rv_cuda *c = cuda_of(be);
    if (w->landing && c->loader) rv_loader_finish(c->loader);      /* its callbacks look at it */
    free(w->landing);
    rv_cuda_four_drop(c, w);
    free(w);
}

/* ---- products ---- */

/* Few rows stream the weights once; both operands are read in 16-byte pieces. */
static bool is_few(rv_mat x, const rv_weight *w) {
    return x.rows <= RV_FEW_ROWS && w->head.cols % 8 == 0 && x.ld % 8 == 0 && (uintptr_t)x.data % 16 == 0;
}

/* Few rows, whatever the weight is kept as. */
static cudaError_t few(rv_cuda *c, const rv_few *p, const rv_weight *w) {
    const rv_four *four = rv_cuda_four(w);
    if (w->head.format == RV_FORMAT_INT8) return rv_cuda_int8_product(c, p, w);
    if (four) return rv_cuda_four_few(c, p, four);
    return c->arch == 70 ? rv_cuda_few70(p, c->stream) : rv_cuda_few(p, c->overlap, c->stream);
}

/* The kernels that do all of it at once take the same description; false: neither suits. */
static bool at_once(rv_cuda *c, const rv_few *p, const rv_weight *w) {
    if (w->head.format == RV_FORMAT_INT8) return check(&c->be, rv_cuda_int8_product(c, p, w), "int8 product"), true;
    if (is_few(p->x, w)) return check(&c->be, few(c, p, w), "product"), true;
    if (rv_cuda_four(w)) return rv_cuda_four_many(c, p, w);
#if RV_CUDA_SM90
    if (c->arch == 90 && rv_cuda_gemm90_fits(p) && rv_cuda_gemm90_pays(p))
        return check(&c->be, rv_cuda_gemm90(p, c->overlap, c->stream), "product"), true;
#endif
    return false;
}

/* What every product with few rows begins with. */
static rv_few few_of(rv_cuda *c, rv_mat out, rv_mat x, const rv_weight *w) {
    return (rv_few){ .x = x, .act = c->be.act, .multiprocessors = c->multiprocessors, .w = w->w.data, .rows = w->head.rows, .cols = w->head.cols,
                     .out = out, .turn = rv_cuda_turn(c->partial, c->turn++) };
}

static void op_linear(rv_backend *be, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act) {
    rv_cuda *c = cuda_of(be);
    rv_few p = few_of(c, out, x, w);
    p.bias = bias;
    p.how = act == RV_ACT_GELU ? RV_FEW_GELU : RV_FEW_STORE;
    if (at_once(c, &p, w)) return;
    if (rv_cuda_four(w)) {
        rv_cuda_four_linear(c, out, x, w, bias, act);
        return;
    }
    rv_cuda_gemm(c, out, x, w, 1, false, NULL);
    if (out.type == RV_F16 && (!bias || act == RV_ACT_GELU)) check(be, rv_cuda_clamp(out, c->stream), "clamping");     /* GELU of -inf is NaN */
    if (bias || act != RV_ACT_NONE) check(be, rv_cuda_bias_act(out, out, bias, act, c->stream), "bias");
}

static void op_linear_add(rv_backend *be, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale, const float *row_scale) {
    rv_cuda *c = cuda_of(be);
    const rv_mat none = { NULL, x.rows, x.cols, x.ld, RV_F32 };
    rv_few p = few_of(c, x, h, w);
    p.bias = bias;
    p.how = RV_FEW_ADD;
    p.scale = scale;
    p.row_scale = row_scale;
    if (at_once(c, &p, w)) return;
    if (rv_cuda_four(w)) {
        rv_cuda_four_linear_add(c, x, h, w, bias, scale, row_scale);
        return;
    }
    if (!row_scale) {
        const bool inside = scale == 1 && c->arch != 70;     /* cuBLASLt does not scale a bias, and need not have one for Volta */
        rv_cuda_gemm(c, x, h, w, scale, true, inside ? bias : NULL);
        if (bias && !inside) check(be, rv_cuda_add_scaled(x, none, bias, scale, NULL, c->stream), "bias");
        return;
    }
    /* Rows may be switched off: their product goes to scratch, as many rows at a time as fit. */
    uint64_t row = (uint64_t)x.cols * sizeof(float);
    int32_t most = (int32_t)(RV_CUDA_SUMS_BYTES / row);
    for (int32_t from = 0; from < x.rows; from += most) {
        int32_t n = x.rows - from < most ? x.rows - from : most;
        rv_mat sums = rv_mat_of(c->sums, n, x.cols, RV_F32);
        rv_cuda_gemm(c, sums, rv_rows(h, from, n), w, 1, false, NULL);
        check(be, rv_cuda_add_scaled(rv_rows(x, from, n), sums, bias, scale, row_scale + from, c->stream), "sum");
    }
}

/* Whether a product of so few rows norms them itself (int8: codes are made then, unless a call's rows decide together). */
static bool norms_itself(const rv_cuda *c, int32_t rows, int32_t width, const rv_weight *w) {
    const int32_t most = w->head.format != RV_FORMAT_INT8 ? (int32_t)RV_CUDA_NORM_ROWS : c->int8.by_call ? 1 : (int32_t)RV_FEW_ROWS;
    return rows <= most && width > RV_CUDA_NORM_THREADS && width <= RV_CUDA_NORM_MOST;
}

/* out = norm(x) w^T, or what `how` makes of it: the norm inside the product while there are few rows (int8: or before it, with
 * the codes, unless a call's rows decide together), else through h or, arranged, a room of its own. */
static cudaError_t few_normed(rv_cuda *c, rv_mat out, rv_mat x, rv_mat h, rv_norm n, const rv_weight *w, int how, bool arranged) {
    rv_few p = few_of(c, out, x, w);
    p.norm = n.weight;
    p.eps = n.eps;
    p.how = how;
    if (arranged) return rv_cuda_four_in_layer(c, &p, w);
    if (!norms_itself(c, x.rows, n.width, w)) {
        cudaError_t e = rv_cuda_norm(h, x, n, c->overlap, c->stream);
        if (e) return e;
        p.x = h;
        p.norm = NULL;
    }
    return few(c, &p, w);
}

/* One or two rows, as logits are made of.  With int8 weights and many rows: norm and codes are one launch, and gate and up meet in registers. */
static bool op_linear_normed(rv_backend *be, rv_mat out, rv_mat x, rv_norm n, const rv_weight *w, bool swiglu) {
    rv_cuda *c = cuda_of(be);
    cudaError_t e = cudaSuccess;
    if (n.bias || n.width != x.cols) return false;
    if (x.rows <= RV_CUDA_NORM_ROWS && !swiglu && is_few(x, w) && norms_itself(c, x.rows, n.width, w)) {
        check(be, few_normed(c, out, x, x, n, w, RV_FEW_STORE, false), "normed product");
        return true;
    }
    if (w->head.format != RV_FORMAT_INT8 || x.rows <= RV_FEW_ROWS || n.width <= RV_CUDA_NORM_THREADS || n.width > RV_CUDA_NORM_MOST) return false;
    rv_few p = few_of(c, out, x, w);
    p.norm = n.weight;
    p.eps = n.eps;
    p.how = swiglu ? RV_FEW_SWIGLU : RV_FEW_STORE;
    if (!rv_cuda_int8_normed(c, &p, w, &e)) return false;
    check(be, e, "int8 product");
    return true;
}

/* ---- attention ---- */

static void op_attend(rv_backend *be, const rv_attention *a) {
    rv_cuda *c = cuda_of(be);
    int32_t dim = a->q.cols / a->heads;
    bool fast = (dim == 64 || dim == 80 || dim == 128) && !c->plain_attention;
    uint64_t partial = rv_cuda_decode_bytes(a->q.rows, a->heads, dim, a->longest);
    if (fast && a->q.rows <= RV_FEW_ROWS && partial <= RV_CUDA_PARTIAL_BYTES)
        check(be, c->arch == 70 ? rv_cuda_decode70(a, c->partial, RV_CUDA_APART, c->stream)
                                : rv_cuda_decode(a, c->partial, c->overlap ? RV_CUDA_OVERLAP : RV_CUDA_APART, c->stream), "attention");
    else if (fast) check(be, c->arch == 70 ? rv_cuda_flash70(a, c->partial, c->multiprocessors, c->stream)
                                           : rv_cuda_flash(a, c->partial, c->multiprocessors, c->arch, c->stream), "attention");
    else check(be, rv_cuda_attend_plain(a, c->stream), "attention");
}

/* ---- a decoder layer of few rows: five launches (more rows: two more; NF4 on Hopper: three, and products of more than 32 rows are two), each reading its weights while the one before ends ---- */

/* x += scale * row_scale * from w^T. */
static cudaError_t few_added(rv_cuda *c, rv_mat x, rv_mat from, const rv_weight *w, float scale, const float *row_scale, bool arranged) {
    rv_few p = few_of(c, x, from, w);
    p.how = RV_FEW_ADD;
    p.scale = scale;
    p.row_scale = row_scale;
    return arranged ? rv_cuda_four_in_layer(c, &p, w) : few(c, &p, w);
}

static bool takes_block(const rv_cuda *c, const rv_decoder_block *b) {
    const rv_attention *a = &b->attention;
    int32_t dim = a->q.cols / a->heads;
    return (dim == 64 || dim == 128) && !c->plain_attention && is_few(b->h, b->in) && is_few(a->out, b->o) && is_few(b->ff, b->down) &&
           rv_cuda_decode_bytes(a->q.rows, a->heads, dim, a->longest) <= RV_CUDA_PARTIAL_BYTES && b->x.rows <= RV_FEW_ROWS;
}

/* Attention reads keys early.  Launches overlap in chains; in one, x is first written by `embed`, which lets nothing
 * start before all that was queued earlier has ended.  So keys, pages, positions and ranges are older than the chain
 * as long as no other operation writes them between embed and the layers: the contract of rv_decoder_layer. */
static bool op_decoder_block(rv_backend *be, const rv_decoder_block *b) {
    rv_cuda *c = cuda_of(be);
    const rv_attention *a = &b->attention;
    const rv_cuda_order order = c->overlap ? RV_CUDA_EARLY : RV_CUDA_APART;
    cudaStream_t s = c->stream;
    if (!takes_block(c, b)) return false;
    const bool arranged = rv_cuda_four_layer(c, b);
    cudaError_t e;
    if (b->cos_sin) {
        rv_mat k = rv_cols(b->qkv, a->q.cols, a->kv.k.cols), v = rv_cols(b->qkv, a->q.cols + a->kv.k.cols, a->kv.v.cols);
        e = few_normed(c, b->qkv, b->x, b->h, b->norm1, b->in, RV_FEW_STORE, arranged);
        if (!e) e = (c->arch == 70 ? rv_cuda_decode_rope70 : rv_cuda_decode_rope)(a, k, v, b->cos_sin, b->pos, c->partial, order, s);
    } else {
        e = few_normed(c, a->q, b->x, b->h, b->norm1, b->in, RV_FEW_STORE, arranged);
        if (!e) e = (c->arch == 70 ? rv_cuda_decode_norm70 : rv_cuda_decode_norm)(a, b->q_norm, c->partial, order, s);
    }
    if (!e) e = few_added(c, b->x, a->out, b->o, b->attn_gate, NULL, false);
    if (!e) e = few_normed(c, b->ff, b->x, b->h, b->norm2, b->gate_up, RV_FEW_SWIGLU, arranged);
    if (!e) e = few_added(c, b->x, b->ff, b->down, b->mlp_gate, b->row_on, arranged);
    check(be, e, "decoder layer");
    return true;
}

/* ---- rows ---- */

#define QUEUE(call, what) check(be, call, what)
static void op_zero(rv_backend *be, rv_mat x) { QUEUE(rv_cuda_zero(x, cuda_of(be)->stream), "zero"); }
static void op_copy(rv_backend *be, rv_mat dst, rv_mat src) { QUEUE(rv_cuda_copy(dst, src, cuda_of(be)->stream), "copy"); }
static void op_patches(rv_backend *be, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch) {
    QUEUE(rv_cuda_patches(out, pixels, values, channels, patch, cuda_of(be)->stream), "patches");
}
static void op_embed(rv_backend *be, rv_mat out, const rv_weight *table, const int32_t *ids) {
    QUEUE(rv_cuda_embed(out, table->w, ids, cuda_of(be)->overlap, cuda_of(be)->stream), "embed");
}
static void op_add_rows(rv_backend *be, rv_mat x, const rv_weight *table, const int32_t *ids, float scale) {
    QUEUE(rv_cuda_add_rows(x, table->w, ids, scale, cuda_of(be)->stream), "add_rows");
}
static void op_norm(rv_backend *be, rv_mat out, rv_mat x, rv_norm n) { QUEUE(rv_cuda_norm(out, x, n, cuda_of(be)->overlap, cuda_of(be)->stream), "norm"); }
static void op_swiglu(rv_backend *be, rv_mat out, rv_mat gate_up) { QUEUE(rv_cuda_swiglu(out, gate_up, cuda_of(be)->overlap, cuda_of(be)->stream), "swiglu"); }
static void op_rope(rv_backend *be, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    QUEUE(rv_cuda_rope(qk, cos_sin, pos, head_dim, cuda_of(be)->stream), "rope");
}
static void op_kv_store(rv_backend *be, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos) {
    QUEUE(rv_cuda_kv_store(kv, k, v, slot, pos, cuda_of(be)->stream), "kv_store");
}
static void op_concat_taps(rv_backend *be, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps) {
    QUEUE(rv_cuda_concat_taps(out, last, taps, n_taps, cuda_of(be)->stream), "concat_taps");
}

/* ---- a layer of the tower: as composed, without the checks between ---- */

static void op_vision_block(rv_backend *be, const rv_vision_block *b) {
    op_norm(be, b->h, b->x, b->norm1);
    op_linear(be, b->qkv, b->h, b->in, NULL, RV_ACT_NONE);
    op_attend(be, &b->attention);
    op_linear_add(be, b->x, b->h, b->o, NULL, b->attn_gate, NULL);
    op_norm(be, b->h, b->x, b->norm2);
    op_linear(be, b->ff, b->h, b->fc1, b->fc1_bias, RV_ACT_GELU);
    op_linear_add(be, b->x, b->ff, b->fc2, b->fc2_bias, b->ffn_gate, NULL);
}

static void op_best(rv_backend *be, rv_best *out, rv_mat logits) { QUEUE(rv_cuda_best(out, logits, cuda_of(be)->partial, cuda_of(be)->overlap, cuda_of(be)->stream), "best"); }

static void op_choose(rv_backend *be, const rv_answering *a, rv_mat logits) {
    QUEUE(rv_cuda_choose(a, logits, cuda_of(be)->partial, cuda_of(be)->overlap, cuda_of(be)->stream), "choose");
}

void rv_cuda_fill(rv_backend *be, rv_dtype act) {
    static const rv_backend_ops ops = {
        .name = "cuda", .alloc = op_alloc, .release = op_release, .upload = op_upload, .download = op_download, .finish = op_finish,
        .weight_bytes = op_weight_bytes, .weight_new = op_weight_new, .weight_free = op_weight_free,
        .zero = op_zero, .copy = op_copy, .patches = op_patches, .embed = op_embed, .add_rows = op_add_rows, .norm = op_norm,
        .linear = op_linear, .linear_add = op_linear_add, .linear_normed = op_linear_normed, .swiglu = op_swiglu, .rope = op_rope, .kv_store = op_kv_store,
        .attend = op_attend, .concat_taps = op_concat_taps, .close = rv_cuda_close,
        .mark = op_mark, .marked_ms = op_marked_ms, .host_alloc = op_host_alloc, .host_release = op_host_release,
        .decoder_block = op_decoder_block, .decoder_blocks = rv_cuda_layers, .vision_block = op_vision_block, .best = op_best,
        .record = rv_cuda_record, .recorded = rv_cuda_recorded, .play = rv_cuda_play, .erase = rv_cuda_erase,
        .choose = op_choose, .tray_new = rv_cuda_tray_new, .tray_free = rv_cuda_tray_free, .fetch = rv_cuda_fetch, .fetched = rv_cuda_fetched, .fill = op_fill,
        .loading = op_loading, .saturated = op_saturated,
        .bring = rv_cuda_bring, .brought = rv_cuda_brought, .spent = rv_cuda_spent, .enter = op_enter, .leave = op_leave,
    };
    be->ops = &ops;
    be->act = act;
    be->chunk_rows = CHUNK_ROWS;
    /* Counts up whenever any weight's memory changes its meaning. */
    snprintf(be->layout, sizeof be->layout, "cuda 2 sm%d", cuda_of(be)->arch);
    be->loads_late = true;
    be->load_bytes = rv_loader_bytes();
    be->own_bytes = RV_CUDA_WORKSPACE_BYTES + RV_CUDA_PARTIAL_BYTES + RV_CUDA_MARKS_BYTES + RV_CUDA_SUMS_BYTES;
}
