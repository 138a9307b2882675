/* few_gpu.cu - on a GPU: products of 1 to 64 rows, sums of more with a bias, whole decoder layers and the most likely token.
 *
 * The one idea: a product is held against f64, where its error may be at most twice that of a naive kernel in the same
 * types, against itself with other numbers of rows, bit for bit, and on small integers, where it must be exact; a
 * layer's five launches are held against the operations they stand for, bit for bit.
 *
 *     few_gpu [check | small | sm70]     small: a few cases, for compute-sanitizer; sm70: V100's kernels alone
 *     exit code 1: something failed; 77: no GPU
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"
#include "tests/gpu/check.h"

/* ---- numbers ---- */

static std::vector<uint16_t> random_act(size_t n, float scale, rv_dtype type, bool integers = false) {
    std::vector<uint16_t> some(std::min(n, (size_t)1 << 16)), x(n);      /* conversions are slow on the host: drawn from */
    for (auto &v : some) v = pack(integers ? (float)(random32() % 5) - 2.f : scale * random_normal(), type);
    for (auto &v : x) v = some[random32() % some.size()];
    return x;
}

/* ---- products ---- */

struct product {
    int32_t n, rows, cols, how;
    rv_dtype type;
    bool norm, f32_out, with_bias, integers;
    int32_t multiprocessors;             /* tiles are shared out as if there were so many; 0: as many as there are */
};
static const char *const how_name[] = { "store", "gelu", "swiglu", "add" };
static void name(const product &p, char *to, size_t size) {
    snprintf(to, size, "%s %s%s%s %d rows, %d x %d%s", p.type == RV_F16 ? "f16" : "bf16", p.norm ? "norm " : "", how_name[p.how], p.f32_out ? " f32" : "", p.n,
             p.rows, p.cols, p.integers ? ", integers" : "");
}

/* A product's operands on host and device; out begins as `start`, and is NaN beyond the rows and columns in use. */
struct operands {
    std::vector<uint16_t> x, w;
    std::vector<float> x32, weight, bias, row_scale, start;
    void *d_x, *d_w, *d_out;
    float *d_weight, *d_bias, *d_row_scale;
    int32_t out_cols, x_ld, out_ld;
};
enum { MOST_N = 64 };

static operands make(const product &p) {
    operands o;
    o.out_cols = p.how == rv_few::RV_FEW_SWIGLU ? p.rows / 2 : p.rows;
    o.x_ld = p.cols + 8;
    o.out_ld = o.out_cols + 3;
    o.x = random_act((size_t)MOST_N * (size_t)o.x_ld, 1, p.type, p.integers);
    for (size_t i = 0; i < o.x.size(); i++) o.x32.push_back(3 * random_normal());
    for (size_t i = 0; i < o.x.size(); i++)
        if ((int32_t)(i % (size_t)o.x_ld) >= p.cols) o.x[i] = 0x7fff, o.x32[i] = NAN;      /* never to be read */
    o.w = random_act((size_t)p.rows * (size_t)p.cols, 1 / sqrtf((float)p.cols), p.type, p.integers);
    for (int32_t c = 0; c < p.cols; c++) o.weight.push_back(1 + 0.3f * random_normal());
    for (int32_t r = 0; r < p.rows; r++) o.bias.push_back(p.integers ? (float)(r % 7) : random_normal());
    for (int32_t n = 0; n < MOST_N; n++) o.row_scale.push_back(n % 3 == 1 ? 0.f : p.integers ? 1.f : 0.5f + 0.25f * (float)(n % 4));
    for (int32_t i = 0; i < MOST_N * o.out_ld; i++) o.start.push_back(p.integers ? (float)(random32() % 9) : random_normal());
    o.d_x = p.norm ? (void *)to_device(o.x32) : (void *)to_device(o.x);
    o.d_w = to_device(o.w);
    o.d_weight = to_device(o.weight);
    o.d_bias = to_device(o.bias);
    o.d_row_scale = to_device(o.row_scale);
    MUST(cudaMalloc(&o.d_out, (size_t)MOST_N * (size_t)o.out_ld * 4));
    return o;
}
static void drop(operands &o) {
    for (void *p : { o.d_x, o.d_w, o.d_out, (void *)o.d_weight, (void *)o.d_bias, (void *)o.d_row_scale }) MUST(cudaFree(p));
}

/* One launch for rows from .. from + n - 1; what it left, as f32, rows tight. */
static std::vector<float> run(const product &p, const operands &o, int32_t from, int32_t n, bool take = true) {
    const bool add = p.how == rv_few::RV_FEW_ADD;
    const rv_dtype out_type = add || p.f32_out ? RV_F32 : p.type;
    const size_t size = rv_dtype_size(out_type), cells = (size_t)MOST_N * (size_t)o.out_ld;
    std::vector<char> bytes(cells * size, (char)0xff);
    if (add) memcpy(bytes.data(), o.start.data(), cells * 4);
    MUST(put(o.d_out, bytes.data(), bytes.size()));
    rv_few f = {};
    f.x = rv_rows({ o.d_x, MOST_N, p.cols, o.x_ld, p.norm ? RV_F32 : p.type }, from, n);
    f.norm = p.norm ? o.d_weight : NULL;
    f.eps = 1e-5f;
    f.act = p.type;
    f.multiprocessors = p.multiprocessors ? p.multiprocessors : cuda->multiprocessors;
    f.w = o.d_w;
    f.rows = p.rows;
    f.cols = p.cols;
    f.bias = p.with_bias ? o.d_bias : NULL;
    f.out = rv_rows({ o.d_out, MOST_N, o.out_cols, o.out_ld, out_type }, from, n);
    f.how = (decltype(f.how))p.how;
    f.scale = p.integers ? 2.f : 0.7f;
    f.row_scale = add ? o.d_row_scale + from : NULL;
    f.turn = take ? rv_cuda_turn(cuda->partial, cuda->turn++) : NULL;
    MUST(cuda->arch == 70 ? rv_cuda_few70(&f, cuda->stream) : rv_cuda_few(&f, cuda->overlap, cuda->stream));
    std::vector<char> after = from_device<char>(o.d_out, bytes.size());
    std::vector<float> out;
    for (int32_t r = 0; r < MOST_N; r++)
        for (int32_t c = 0; c < o.out_ld; c++) {
            size_t at = ((size_t)r * (size_t)o.out_ld + (size_t)c) * size;
            bool used = r >= from && r < from + n && c < o.out_cols;
            if (!used) {
                if (memcmp(&after[at], &bytes[at], size)) {
                    failures++;
                    printf("FAILED: wrote outside its rows and columns\n");
                    return out;
                }
                continue;
            }
            float v;
            uint16_t b;
            memcpy(&v, &after[at], size == 4 ? 4 : 0);
            memcpy(&b, &after[at], 2);
            out.push_back(size == 4 ? v : unpack(b, p.type));
        }
    return out;
}

template <typename R> static R finish(const product &p, const operands &o, int32_t n, int32_t c, R v, R up) {
    auto rounded = [&](R y) { return sizeof(R) == 8 ? y : (R)unpack(pack((float)y, p.type), p.type); };
    if (p.how == rv_few::RV_FEW_SWIGLU) {
        R g = rounded(v), u = rounded(up);
        return rounded(g / (1 + exp(-g)) * u);
    }
    if (p.with_bias) v += o.bias[(size_t)c];
    if (p.how == rv_few::RV_FEW_GELU) return rounded((R)0.5 * v * (1 + erf(v * (R)0.70710678118654752)));
    if (p.how == rv_few::RV_FEW_STORE) return p.f32_out ? v : rounded(v);
    return (R)o.start[(size_t)n * (size_t)o.out_ld + (size_t)c] + (p.integers ? 2 : (R)0.7f) * o.row_scale[(size_t)n] * v;
}

/* The product in plain loops, sums and all in R (f32: the naive kernel in the same types). */
template <typename R> static std::vector<R> plain(const product &p, const operands &o) {
    std::vector<R> out, x((size_t)p.cols), w, products((size_t)p.rows);
    for (uint16_t v : o.w) w.push_back((R)unpack(v, p.type));
    for (int32_t n = 0; n < p.n; n++) {
        R square = 0;
        for (int32_t c = 0; c < p.cols; c++) {
            size_t at = (size_t)n * (size_t)o.x_ld + (size_t)c;
            x[(size_t)c] = p.norm ? (R)o.x32[at] : (R)unpack(o.x[at], p.type);
            square += x[(size_t)c] * x[(size_t)c];
        }
        if (p.norm)
            for (int32_t c = 0; c < p.cols; c++) {
                R v = x[(size_t)c] / sqrt(square / (R)p.cols + (R)1e-5f) * o.weight[(size_t)c];
                x[(size_t)c] = sizeof(R) == 8 ? v : (R)unpack(pack((float)v, p.type), p.type);
            }
        for (int32_t r = 0; r < p.rows; r++) {
            R s = 0;
            for (int32_t c = 0; c < p.cols; c++) s += x[(size_t)c] * w[(size_t)r * (size_t)p.cols + (size_t)c];
            products[(size_t)r] = s;
        }
        for (int32_t c = 0; c < o.out_cols; c++) {
            bool pairs = p.how == rv_few::RV_FEW_SWIGLU;
            size_t row = (size_t)(pairs ? c / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + c % RV_CUDA_GATE_BLOCK : c);
            out.push_back(finish<R>(p, o, n, c, products[row], pairs ? products[row + RV_CUDA_GATE_BLOCK] : (R)0));
        }
    }
    return out;
}

static void a_product_is_as_exact_as_a_naive_one(const product &p) {
    char what[128];
    name(p, what, sizeof what);
    operands o = make(p);
    std::vector<float> got = run(p, o, 0, p.n), naive = plain<float>(p, o);
    std::vector<double> exact = plain<double>(p, o);
    double ours = 0, theirs = 0;
    if (got.size() != exact.size()) return drop(o);
    for (size_t i = 0; i < exact.size(); i++) {
        if (!(fabs(got[i] - exact[i]) <= ours)) ours = fabs(got[i] - exact[i]);
        theirs = std::max(theirs, fabs(naive[i] - exact[i]));
    }
    if (p.integers) EXPECT(ours == 0, "%s: not exact: off by %g", what, ours);
    else EXPECT(ours <= 2 * theirs + 4 * FLT_EPSILON, "%s: error %g, naive %g", what, ours, theirs);
    drop(o);
}

static bool same(const std::vector<float> &a, const std::vector<float> &b, size_t from_b) {
    for (size_t i = 0; i < a.size(); i++)
        if (memcmp(&a[i], &b[from_b + i], 4)) return false;
    return !a.empty();
}

static void a_row_does_not_depend_on_its_neighbours(product p) {
    char what[128];
    p.n = p.norm ? (int32_t)RV_CUDA_NORM_ROWS : (int32_t)MOST_N;
    name(p, what, sizeof what);
    operands o = make(p);
    std::vector<float> all = run(p, o, 0, p.n);
    for (int32_t multiprocessors : { 0, 32 })         /* with fewer, blocks have many tiles each, and activations come another way */
        for (int32_t n : { 1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 64 })
            for (int32_t from : { 0, 1, 5 })
                if (from + n <= p.n) {
                    product some = p;
                    some.multiprocessors = multiprocessors;
                    EXPECT(same(run(some, o, from, n, n % 2), all, (size_t)from * (size_t)o.out_cols), "%s: %d rows from %d, %d multiprocessors: other bits", what, n, from, multiprocessors);
                }
    drop(o);
}

/* Rows that are switched off hold NaN, and stay as they were. */
static void a_row_switched_off_stays_whatever_it_holds(rv_dtype type) {
    product p = { 7, 40, 264, rv_few::RV_FEW_ADD, type, false, true, true, false };
    operands o = make(p);
    for (int32_t n = 0; n < MOST_N; n++)
        for (int32_t c = 0; c < p.cols; c++)
            if (o.row_scale[(size_t)n] == 0) o.x[(size_t)n * (size_t)o.x_ld + (size_t)c] = 0x7fff;
    MUST(put(o.d_x, o.x.data(), o.x.size() * 2));
    std::vector<float> got = run(p, o, 0, p.n);
    for (int32_t n = 0; n < p.n; n++)
        for (int32_t c = 0; c < p.rows; c++) {
            float v = got[(size_t)(n * p.rows + c)], was = o.start[(size_t)(n * o.out_ld + c)];
            if (o.row_scale[(size_t)n] == 0) EXPECT(v == was, "row %d switched off: %g became %g", n, was, v);
            else EXPECT(isfinite(v), "row %d: %g", n, v);
        }
    drop(o);
}

/* A normed product is rv_cuda_norm and the product, bit for bit. */
static void a_norm_inside_is_the_norm_before(rv_dtype type, int32_t cols, int32_t n) {
    product p = { n, 48, cols, rv_few::RV_FEW_STORE, type, true, true, false, false };
    operands o = make(p);
    std::vector<float> inside = run(p, o, 0, n);
    void *h;
    MUST(cudaMalloc(&h, (size_t)MOST_N * (size_t)o.x_ld * 2));
    rv_norm norm = { o.d_weight, NULL, 1e-5f, cols };
    MUST(rv_cuda_norm({ h, n, cols, o.x_ld, type }, { o.d_x, n, cols, o.x_ld, RV_F32 }, norm, cuda->overlap, cuda->stream));
    MUST(cudaStreamSynchronize(cuda->stream));
    std::swap(h, o.d_x);
    p.norm = false;
    EXPECT(same(run(p, o, 0, n), inside, 0), "norm of %d rows of %d: other bits inside the product", n, cols);
    MUST(cudaFree(h));
    drop(o);
}

/* ---- decoder layers ---- */

struct layer {
    int32_t n, heads, kv_heads, dim, hidden, ffn, keys, page;
    bool cross;
    rv_format format;
};
static const char *kept_as(rv_format f) { return f == RV_FORMAT_INT8 ? "int8 " : f == RV_FORMAT_NF4 ? "nf4 " : ""; }

/* Nested, of random numbers. */
static rv_weight weight_of_four(int32_t rows, int32_t cols, rv_weight_order order) {
    rv_weight_spec s = {};
    rv_four_head head = {};
    s.n_parts = order == RV_ORDER_GATE_UP ? 2 : 1;
    for (int32_t i = 0; i < s.n_parts; i++) s.part[i].rows = rows / s.n_parts;
    s.rows = rows;
    s.cols = cols;
    s.order = order;
    s.format = RV_FORMAT_NF4;
    s.nested = s.filled = true;
    memcpy(head.map, rv_nf4_map, sizeof head.map);
    for (auto &map : head.nested_map) memcpy(map, rv_nested_map, sizeof map);
    void *memory;
    MUST(cudaMalloc(&memory, rv_weight_bytes(be, &s)));
    MUST(put(memory, &head, sizeof head));
    const rv_four q = rv_four_of(&s, memory);
    for (int32_t i = 0; i < s.n_parts; i++) {
        const size_t n = (size_t)s.part[i].rows, absmaxes = n * (size_t)q.blocks;
        void *data = to_device(random_act(n * (size_t)cols, (float)(i + 1) / sqrtf((float)cols), be->act));
        float *absmax;
        MUST(cudaMalloc(&absmax, absmaxes * 16));
        MUST(rv_cuda_four_quantise(&q, i, data, be->act, 0, s.part[i].rows, absmax, cuda->stream));
        MUST(rv_cuda_four_nest(&q, i, absmax, (double *)(void *)(absmax + (absmaxes + 1) / 2 * 2), cuda->stream));
        MUST(cudaStreamSynchronize(cuda->stream));
        MUST(cudaFree(data));
        MUST(cudaFree(absmax));
    }
    return *rv_weight_new(be, &s, memory);
}
static rv_weight weight(int32_t rows, int32_t cols, rv_weight_order order, rv_format format) {
    if (format == RV_FORMAT_NF4) return weight_of_four(rows, cols, order);
    if (format == RV_FORMAT_INT8) {
        rv_weight w = { { rows, cols, RV_USE_TEXT, order, RV_FORMAT_INT8 } };
        std::vector<int8_t> codes((size_t)rows * (size_t)cols);
        for (auto &c : codes) c = (int8_t)((int32_t)(random32() % 255) - 127);
        std::vector<float> scale((size_t)rows);
        for (auto &v : scale) v = (1.5f + random_normal() / 4) / sqrtf((float)cols);
        w.codes = to_device(codes);
        w.scale = to_device(scale);
        w.pitch = cols;
        w.w.data = w.codes;
        return w;
    }
    void *p = to_device(random_act((size_t)rows * (size_t)cols, 1 / sqrtf((float)cols), be->act));
    return { { rows, cols, RV_USE_TEXT, order, RV_FORMAT_PLAIN }, rv_mat_of(p, rows, cols, be->act) };
}
static rv_mat matrix(int32_t rows, int32_t cols, rv_dtype type) {
    return rv_mat_of(rv_device_alloc(be, (uint64_t)rows * (uint64_t)cols * rv_dtype_size(type)), rows, cols, type);
}

static void composed(const rv_decoder_block *b, rv_mat gate_up) {
    const rv_attention *a = &b->attention;
    int32_t dim = a->q.cols / a->heads, kv = a->kv.k.cols;
    rv_norm_rows(be, b->h, b->x, b->norm1);
    rv_linear(be, b->cos_sin ? b->qkv : a->q, b->h, b->in, NULL, RV_ACT_NONE);
    if (b->cos_sin) {
        rv_rope(be, rv_cols(b->qkv, 0, a->q.cols + kv), b->cos_sin, b->pos, dim);
        rv_kv_store(be, a->kv, rv_cols(b->qkv, a->q.cols, kv), rv_cols(b->qkv, a->q.cols + kv, kv), a->slot, b->pos);
    } else rv_norm_rows(be, a->q, a->q, b->q_norm);
    rv_attend(be, a);
    rv_linear_add(be, b->x, a->out, b->o, NULL, b->attn_gate, NULL);
    rv_norm_rows(be, b->h, b->x, b->norm2);
    rv_linear(be, gate_up, b->h, b->gate_up, NULL, RV_ACT_NONE);
    rv_swiglu(be, b->ff, gate_up);
    rv_linear_add(be, b->x, b->ff, b->down, NULL, b->mlp_gate, b->row_on);
}

static void a_layer_is_the_operations_it_stands_for(const layer &l) {
    const int32_t q = l.heads * l.dim, kv = l.kv_heads * l.dim, per = (l.keys - 1) / l.page + 1, cache_rows = l.n * per * l.page;
    rv_weight in = weight(l.cross ? q : q + 2 * kv, l.hidden, RV_ORDER_STACKED, l.format), o = weight(l.hidden, q, RV_ORDER_STACKED, l.format);
    rv_weight gate_up = weight(2 * l.ffn, l.hidden, RV_ORDER_GATE_UP, l.format), down = weight(l.hidden, l.ffn, RV_ORDER_STACKED, l.format);
    std::vector<float> norm, x0, table, on;
    std::vector<int32_t> pages, slot, pos, first, last;
    for (int32_t i = 0; i < std::max(l.hidden, l.dim); i++) norm.push_back(1 + 0.3f * random_normal());
    for (int32_t i = 0; i < l.n * l.hidden; i++) x0.push_back(2 * random_normal());
    for (int32_t i = 0; i < l.keys * l.dim; i++) {
        float angle = (float)(i / l.dim) * powf(0.1f, (float)(i % (l.dim / 2)) / 8);
        table.push_back(i % l.dim < l.dim / 2 ? cosf(angle) : sinf(angle));
    }
    for (int32_t r = 0; r < l.n; r++) {
        int32_t key = (int32_t)(random32() % (uint32_t)l.keys);
        if (r == 0) key = l.keys - 1;
        slot.push_back(l.n - 1 - r);
        pos.push_back(r == 3 ? -1 : key);                                  /* row 3 pads: sees and stores nothing */
        first.push_back(l.cross ? key / 3 : 0);
        last.push_back(r == 3 ? -1 : key);
        on.push_back(r == 2 ? 0.f : 1.f);
    }
    for (int32_t i = 0; i < l.n * per; i++) pages.push_back(l.n * per - 1 - i);
    std::vector<uint16_t> keys0 = random_act((size_t)cache_rows * (size_t)kv, 1, be->act), values0 = random_act(keys0.size(), 1, be->act);
    float *d_norm = to_device(norm), *d_table = to_device(table), *d_on = to_device(on);
    int32_t *d_pages = to_device(pages), *d_slot = to_device(slot), *d_pos = to_device(pos), *d_first = to_device(first), *d_last = to_device(last);
    rv_mat gu = matrix(l.n, 2 * l.ffn, be->act);
    rv_decoder_block b = {};
    b.x = matrix(l.n, l.hidden, RV_F32);
    b.h = matrix(l.n, l.hidden, be->act);
    b.qkv = matrix(l.n, q + 2 * kv, be->act);
    b.ff = matrix(l.n, l.ffn, be->act);
    b.in = &in, b.o = &o, b.gate_up = &gate_up, b.down = &down;
    b.norm1 = b.norm2 = { d_norm, NULL, 1e-5f, l.hidden };
    b.q_norm = { d_norm, NULL, 1e-5f, l.dim };
    b.attn_gate = l.cross ? 0.7f : 1.f;
    b.mlp_gate = l.cross ? -0.4f : 1.f;
    b.row_on = l.cross ? d_on : NULL;
    b.cos_sin = l.cross ? NULL : d_table;
    b.pos = l.cross ? NULL : d_pos;
    b.attention.q = rv_cols(b.qkv, 0, q);
    b.attention.out = matrix(l.n, q, be->act);
    b.attention.kv.k = matrix(cache_rows, kv, be->act);
    b.attention.kv.v = matrix(cache_rows, kv, be->act);
    b.attention.kv.pages = d_pages;
    b.attention.kv.page_rows = l.page;
    b.attention.kv.max_pages = per;
    b.attention.slot = d_slot;
    b.attention.first = l.cross ? d_first : NULL;
    b.attention.last = l.cross ? d_last : d_pos;
    b.attention.heads = l.heads;
    b.attention.kv_heads = l.kv_heads;
    b.attention.longest = l.keys;
    b.attention.scale = 1 / sqrtf((float)l.dim);
    std::vector<float> x[2];
    std::vector<uint16_t> k[2];
    for (int pass = 0; pass < 2; pass++) {
        MUST(put(b.x.data, x0.data(), x0.size() * 4));
        MUST(put(b.attention.kv.k.data, keys0.data(), keys0.size() * 2));
        MUST(put(b.attention.kv.v.data, values0.data(), values0.size() * 2));
        for (int twice = 0; twice < 2; twice++)
            if (pass) composed(&b, gu);
            else EXPECT(rv_decoder_layer(be, &b), "the coarse entry does not take %d rows", l.n);
        x[pass] = from_device<float>(b.x.data, x0.size());
        k[pass] = from_device<uint16_t>(b.attention.kv.k.data, keys0.size());
    }
    EXPECT(!be->error.code, "%s", be->error.message);
    EXPECT(same(x[0], x[1], 0), "%s%s layer, %d rows, %d heads of %d: other bits than the operations", kept_as(l.format), l.cross ? "cross" : "self", l.n, l.heads, l.dim);
    EXPECT(!memcmp(k[0].data(), k[1].data(), k[0].size() * 2), "self layer, %d rows: other keys than the operations", l.n);
    for (void *p : { b.x.data, b.h.data, b.qkv.data, b.ff.data, b.attention.out.data, b.attention.kv.k.data, b.attention.kv.v.data, gu.data })
        rv_device_release(be, p);
    for (void *p : { in.w.data, o.w.data, gate_up.w.data, down.w.data, (void *)in.scale, (void *)o.scale, (void *)gate_up.scale, (void *)down.scale, (void *)d_norm, (void *)d_table, (void *)d_on, (void *)d_pages, (void *)d_slot,
                     (void *)d_pos, (void *)d_first, (void *)d_last })
        MUST(cudaFree(p));
}

/* ---- more rows: a bias is added inside the product or after it ---- */

static void a_sum_of_many_rows_has_its_bias_once(int32_t rows, int32_t cols, float scale) {
    const int32_t n = 200;
    std::vector<uint16_t> w = random_act((size_t)rows * (size_t)cols, 1, be->act, true), h = random_act((size_t)n * (size_t)cols, 1, be->act, true);
    std::vector<float> bias, x;
    for (int32_t i = 0; i < rows; i++) bias.push_back((float)(random32() % 17) - 8.f);
    for (int32_t i = 0; i < n * rows; i++) x.push_back((float)(random32() % 33) - 16.f);
    rv_weight weight = { { rows, cols, RV_USE_VISION, RV_ORDER_STACKED }, rv_mat_of(to_device(w), rows, cols, be->act) };
    float *d_bias = to_device(bias), *d_x = to_device(x);
    void *d_h = to_device(h);
    rv_linear_add(be, rv_mat_of(d_x, n, rows, RV_F32), rv_mat_of(d_h, n, cols, be->act), &weight, d_bias, scale, NULL);
    std::vector<float> got = from_device<float>(d_x, x.size());
    int32_t wrong = 0;
    for (int32_t r = 0; r < n; r++)
        for (int32_t o = 0; o < rows; o++) {
            float sum = bias[(size_t)o];
            for (int32_t k = 0; k < cols; k++)
                sum += unpack(h[(size_t)r * (size_t)cols + (size_t)k], be->act) * unpack(w[(size_t)o * (size_t)cols + (size_t)k], be->act);
            wrong += got[(size_t)r * (size_t)rows + (size_t)o] != x[(size_t)r * (size_t)rows + (size_t)o] + scale * sum;
        }
    EXPECT(wrong == 0, "%d rows, %d x %d, scale %g: %d sums are wrong", n, rows, cols, (double)scale, wrong);
    for (void *p : { weight.w.data, (void *)d_bias, (void *)d_x, d_h }) MUST(cudaFree(p));
}

/* ---- the most likely token ---- */

static void the_best_token_is_the_first_of_the_largest(int32_t rows, int32_t cols) {
    std::vector<float> logits((size_t)rows * (size_t)cols);
    std::vector<int32_t> want;
    for (int32_t r = 0; r < rows; r++) {
        float *row = &logits[(size_t)r * (size_t)cols];
        for (int32_t c = 0; c < cols; c++) row[c] = r % 8 == 5 ? -INFINITY : 4 * random_normal();
        int32_t a = (int32_t)(random32() % (uint32_t)cols), b = (int32_t)(random32() % (uint32_t)cols);
        if (r % 8 == 1) row[a] = row[b] = 50;                              /* a tie, often between two blocks */
        if (r % 8 == 2) row[a] = NAN;
        if (r % 8 == 3) row[a] = INFINITY;
        if (r % 8 == 4) row[a] = -INFINITY;
        if (r % 8 == 6)
            for (int32_t c = 0; c < cols; c++) row[c] = c == a ? -3.f : -INFINITY;
        if (r % 8 == 7)
            for (int32_t c = 0; c < cols; c++) row[c] = 0.25f;
        int32_t best = -1;
        for (int32_t c = 0; c < cols; c++)
            if (row[c] > (best < 0 ? -INFINITY : row[best])) best = c;
        want.push_back(r % 8 == 2 || r % 8 == 3 || r % 8 == 5 ? -1 : best);
    }
    float *d_logits = to_device(logits);
    rv_best *d_best = (rv_best *)rv_device_alloc(be, (uint64_t)rows * sizeof(rv_best));
    for (int twice = 0; twice < 2; twice++) rv_best_rows(be, d_best, rv_mat_of(d_logits, rows, cols, RV_F32));
    std::vector<rv_best> got = from_device<rv_best>(d_best, (size_t)rows);
    for (int32_t r = 0; r < rows; r++) {
        double sum = 0, top = want[(size_t)r] < 0 ? 0 : logits[(size_t)r * (size_t)cols + (size_t)want[(size_t)r]];
        for (int32_t c = 0; c < cols; c++) sum += exp((double)logits[(size_t)r * (size_t)cols + (size_t)c] - top);
        EXPECT(got[(size_t)r].id == want[(size_t)r], "%d logits, row %d: token %d, not %d", cols, r, got[(size_t)r].id, want[(size_t)r]);
        double logprob = want[(size_t)r] < 0 ? 0 : -log(sum);
        EXPECT(fabs(got[(size_t)r].logprob - logprob) <= 2e-6 * (1 + fabs(logprob)), "%d logits, row %d: log-probability %g, not %g", cols, r,
               (double)got[(size_t)r].logprob, logprob);
    }
    rv_device_release(be, d_best);
    MUST(cudaFree(d_logits));
}

/* ---- all of it ---- */

/* How much of it: everything, what may differ between kernel sets, a few cases for compute-sanitizer. */
enum amount { EVERYTHING, LESS, LITTLE };

static void check_products(rv_dtype type, amount of) {
    const int32_t store = rv_few::RV_FEW_STORE, gelu = rv_few::RV_FEW_GELU, swiglu = rv_few::RV_FEW_SWIGLU, add = rv_few::RV_FEW_ADD;
    const int32_t shapes[][2] = { { 272, 1024 }, { 50, 264 }, { 17, 8 }, { 5, 4104 }, { 3000, 72 } };
    for (auto &s : shapes)
        for (int32_t n : { 1, 3, 7, 16, 20, 64 })
            for (int32_t how : { store, gelu, add }) {
                if (of != EVERYTHING && (n == 3 || n == 7 || s[0] > 100)) continue;
                if (of == LITTLE && (n == 16 || n == 64 || s[0] == 17)) continue;
                a_product_is_as_exact_as_a_naive_one({ n, s[0], s[1], how, type, false, how == store && n % 2, true, false });
                if (how == gelu) continue;
                a_product_is_as_exact_as_a_naive_one({ n, s[0], s[1], how, type, false, true, true, true });
            }
    for (int32_t n : { 1, 2, 7, 64 })
        if (of != LITTLE || n != 2) a_product_is_as_exact_as_a_naive_one({ n, 544, 520, swiglu, type, false, false, false, false });
    for (int32_t n : { 1, 2 })
        for (int32_t how : { store, swiglu }) a_product_is_as_exact_as_a_naive_one({ n, 320, 1032, how, type, true, false, false, false });
    a_row_switched_off_stays_whatever_it_holds(type);
    for (int32_t cols : { 264, 1032, 4096, 8192 })
        for (int32_t n : { 1, 2 })
            if (of != LITTLE || cols == 1032) a_norm_inside_is_the_norm_before(type, cols, n);
    if (of != EVERYTHING) return;
    for (int32_t how : { store, gelu, swiglu, add }) {
        a_row_does_not_depend_on_its_neighbours({ 0, 4320, 1024, how, type, false, false, how != swiglu, false });
        a_row_does_not_depend_on_its_neighbours({ 0, 208, 14336, how, type, false, false, how != swiglu, false });
        a_row_does_not_depend_on_its_neighbours({ 0, 144, 1000, how, type, false, false, how != swiglu, false });
        a_row_does_not_depend_on_its_neighbours({ 0, 640, 4096, how, type, true, false, how != swiglu, false });
    }
}

static void check_layers(bool small) {
    for (int32_t n : { 1, 2, 7, 16, 33 })
        for (bool cross : { false, true }) {
            if (small && n != 1 && n != 7) continue;
            a_layer_is_the_operations_it_stands_for({ n, 8, 2, 128, 1024, 512, 300, 64, cross, RV_FORMAT_PLAIN });
            if (!small) a_layer_is_the_operations_it_stands_for({ n, 16, 4, 64, 1024, 1504, 700, 16, cross, RV_FORMAT_PLAIN });
            a_layer_is_the_operations_it_stands_for({ n, 8, 2, 128, 1024, 768, 300, 64, cross, RV_FORMAT_NF4 });
            if (!small) a_layer_is_the_operations_it_stands_for({ n, 16, 4, 64, 1024, 1472, 300, 64, cross, RV_FORMAT_NF4 });
            if (!small) a_layer_is_the_operations_it_stands_for({ n, 16, 4, 128, 2048, 9216, 300, 64, cross, RV_FORMAT_NF4 });
            for (float threshold : { 0.f, 2.5f })
                for (bool by_call : { false, true }) {
                    cuda->int8 = { threshold, by_call };
                    a_layer_is_the_operations_it_stands_for({ n, 8, 2, 128, 1024, 512, 300, 64, cross, RV_FORMAT_INT8 });
                }
        }
}

int main(int argc, char **argv) {
    const bool small = argc > 1 && !strcmp(argv[1], "small"), volta = argc > 1 && !strcmp(argv[1], "sm70");
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    for (rv_dtype type : { RV_BF16, RV_F16 })
        for (int32_t arch : { 70, 80, 0 }) {
            rv_cuda_options options = {};
            rv_error err = {};
            options.act = type;
            options.arch = arch;
            if (arch == 70 ? type != RV_F16 : volta || (small && (arch == 80 || type == RV_F16))) continue;
            if (rv_cuda_open(&options, &be, &err)) return printf("FAILED: %s\n", err.message), 1;
            cuda = (rv_cuda *)be;
            check_products(type, small ? LITTLE : arch == 80 ? LESS : EVERYTHING);
            check_layers(small);
            for (float scale : { 1.f, 0.5f })
                if (!small) a_sum_of_many_rows_has_its_bias_once(160, 1312, scale);
            if (type == RV_BF16)
                for (int32_t cols : { 1, 5, 4096, 4097, 128256 }) the_best_token_is_the_first_of_the_largest(small ? 3 : 40, cols);
            EXPECT(!be->error.code, "%s", be->error.message);
            rv_backend_close(be);
        }
    printf(failures ? "%d checks failed\n" : "all products, layers and choices are right\n", failures);
    return failures != 0;
}
