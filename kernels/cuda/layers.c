/* layers.c - whether decoder layers can run in one launch, and that launch.
 *
 * The one idea: what stream90.cu takes is a run of layers that differ in weights, gates and where keys lie, and in nothing
 * else; whoever hands over others gets `false` and goes layer by layer.
 */
#include <string.h>

#include "kernels/cuda/four.h"
#include "kernels/cuda/open.h"

static bool same_mat(rv_mat a, rv_mat b) { return a.data == b.data && a.rows == b.rows && a.cols == b.cols && a.ld == b.ld && a.type == b.type; }

/* But for keys and values themselves. */
static bool same_attention(const rv_attention *a, const rv_attention *b) {
    return same_mat(a->q, b->q) && same_mat(a->out, b->out) && a->kv.k.ld == b->kv.k.ld && a->kv.v.ld == b->kv.v.ld && a->kv.k.cols == b->kv.k.cols &&
           a->kv.pages == b->kv.pages && a->kv.page_rows == b->kv.page_rows && a->kv.max_pages == b->kv.max_pages && a->kv.bias == b->kv.bias &&
           a->slot == b->slot && a->first == b->first && a->last == b->last && a->heads == b->heads && a->kv_heads == b->kv_heads &&
           a->longest == b->longest && a->scale == b->scale;
}

static bool is_aligned(const void *p) { return (uintptr_t)p % 16 == 0; }

/* Kept as `like` is. */
static bool is_weight(const rv_cuda *c, const rv_weight *w, int32_t rows, int32_t cols, rv_weight_order order, const rv_weight *like) {
    const rv_format format = like->head.format;
    const rv_four *four = rv_cuda_four(w), *like_four = rv_cuda_four(like);
    if (w->head.rows != rows || w->head.cols != cols || w->head.order != order || w->head.format != format) return false;
    if (four || like_four) return four && like_four && four->nested == like_four->nested && is_aligned(four->memory);
    if (format == RV_FORMAT_INT8) return w->pitch == cols && is_aligned(w->codes) && is_aligned(w->scale);
    return format == RV_FORMAT_PLAIN && w->w.type == c->be.act && w->w.ld == cols && is_aligned(w->w.data);
}

static bool is_rms(rv_norm n, int32_t width, float eps) { return n.weight && !n.bias && n.width == width && n.eps == eps; }

/* b's own shapes, and what it shares with the first block of its kind and with the first of all. */
static bool belongs(const rv_cuda *c, const rv_decoder_block *b, const rv_decoder_block *kin, const rv_decoder_block *first) {
    const rv_attention *a = &b->attention;
    const int32_t hidden = b->x.cols, q = a->q.cols, kv = a->kv.k.cols, dim = q / a->heads;
    if (!same_mat(b->x, first->x) || !same_mat(b->qkv, first->qkv) || !same_mat(b->ff, first->ff) || !same_mat(a->out, first->attention.out) ||
        a->q.data != b->qkv.data || q != first->attention.q.cols || kv != first->attention.kv.k.cols || a->heads != first->attention.heads) return false;
    if (!is_rms(b->norm1, hidden, first->norm1.eps) || !is_rms(b->norm2, hidden, first->norm1.eps)) return false;
    if (!same_attention(a, &kin->attention) || b->pos != kin->pos || b->cos_sin != kin->cos_sin || b->row_on != kin->row_on) return false;
    if (b->cos_sin ? !is_aligned(b->cos_sin) || b->row_on || !b->pos : !is_rms(b->q_norm, dim, kin->q_norm.eps) || !is_aligned(b->q_norm.weight)) return false;
    return is_weight(c, b->in, b->cos_sin ? q + 2 * kv : q, hidden, RV_ORDER_STACKED, first->in) && is_weight(c, b->o, hidden, q, RV_ORDER_STACKED, first->in) &&
           is_weight(c, b->gate_up, 2 * b->ff.cols, hidden, RV_ORDER_GATE_UP, first->in) && is_weight(c, b->down, hidden, b->ff.cols, RV_ORDER_STACKED, first->in) &&
           rv_cuda_decode_bytes(a->q.rows, a->heads, dim, a->longest) <= RV_CUDA_PARTIAL_BYTES;
}

static rv_stream_layer layer_of(const rv_decoder_block *b) {
    const rv_weight *w[] = { b->in, b->o, b->gate_up, b->down };
    rv_stream_layer l = { .norm1 = b->norm1.weight, .norm2 = b->norm2.weight, .q_norm = b->cos_sin ? NULL : b->q_norm.weight, .k = b->attention.kv.k.data,
                          .v = b->attention.kv.v.data, .attn_gate = b->attn_gate, .mlp_gate = b->mlp_gate };
    for (int32_t i = 0; i < 4; i++) {
        const rv_four *four = rv_cuda_four(w[i]);
        l.w[i] = four ? four : w[i]->codes ? (const void *)w[i]->codes : w[i]->w.data;
        l.scale[i] = w[i]->scale;
    }
    return l;
}

bool rv_cuda_layers(rv_backend *be, const rv_decoder_block *b, int32_t n) {
    rv_cuda *c = (rv_cuda *)be;
    const rv_decoder_block *kin[2] = { NULL, NULL };
    rv_stream s = { .x = b->x, .qkv = b->qkv, .ff = b->ff, .eps = b->norm1.eps, .multiprocessors = c->multiprocessors, .n = n, .partial = c->partial,
                    .format = b->in->head.format, .rules = c->int8 };
    if (c->arch != 90 || c->plain_attention || b->x.rows > RV_CUDA_NORM_ROWS || (s.format == RV_FORMAT_INT8 && c->int8.by_call && b->x.rows > 1)) return false;
    for (int32_t i = 0; i < n; i++) {
        const bool cross = !b[i].cos_sin;
        if (!kin[cross]) kin[cross] = &b[i];
        if (!belongs(c, &b[i], kin[cross], b)) return false;
        s.layer[i] = layer_of(&b[i]);
    }
    if (kin[0]) {
        s.self = kin[0]->attention;
        s.cos_sin = kin[0]->cos_sin;
        s.pos = kin[0]->pos;
    }
    if (kin[1]) {
        s.cross = kin[1]->attention;
        s.q_eps = kin[1]->q_norm.eps;
        s.row_on = kin[1]->row_on;
    }
#if RV_CUDA_SM90
    if (!rv_cuda_stream_takes(&s)) return false;
    cudaError_t e = rv_cuda_stream(&s, c->stream);
    if (e) rv_cuda_failed(c, e, "decoder layers");
    return true;
#else
    (void)s;
    return false;
#endif
}
