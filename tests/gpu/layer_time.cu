/* layer_time.cu - how fast decoder layers, their launches and the choice of a token are, beside this GPU's read bandwidth.
 *
 * The one idea: layers of the 11B shape, each with weights and caches of its own, are recorded and played as the engine
 * does, through the backend's coarse entry; what a row costs is the median over plays.
 *
 *     layer_time [int8 | outliers | nf4] [-k KEYS] [ROWS ..]      a table; without arguments for 1, 2, 8, 16, 32 and 64 rows that see 700 keys
 *     layer_time sm70 [int8 | outliers | nf4] [ROWS ..]           the products of V100's kernels, in f16: f16 and int8 ones run on any GPU as they do there,
 *                                 those of nf4 do not, for newer GPUs have no such tensor cores
 *     layer_time ways [f16] ROWS ..     products of a layer with nf4 weights and up to 64 rows: the kernel of few rows, that of GPUs of 8.x, that of
 *                                 many rows, and by way of 16 bit weights with few rows' kernel and cuBLASLt
 *     layer_time many [f16] ROWS ..     products of a layer with many rows, 16 bit, nf4, int8 without and with outliers such as synth makes; int8 launch by launch, and with every cut
 *     int8, nf4: the layers' weights in int8 or nested nf4, the head in 16 bit; outliers: int8 with outliers such as synth makes, eight channels of what is normed, and some dozens that
 *                                 `down` reads
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"
#include "kernels/cuda/int8_many.h"
#include "kernels/cuda/open.h"
#include "tests/gpu/layer_weights.cuh"

enum { SELF = 8, CROSS = 2, LAYERS = SELF + CROSS, HIDDEN = 4096, HEADS = 32, KV_HEADS = 8, DIM = 128, KV = KV_HEADS * DIM, FFN = 14336,
       VOCAB = 128256, CONTEXT = 2048, PAGE = 64, TILE_TOKENS = 1601, IMAGE_KEYS = 4 * TILE_TOKENS, MOST_ROWS = 64 };

static double read_rate;                 /* bytes a microsecond */
static int32_t self_keys = 700;
static bool planted;                     /* channels that every norm makes outliers of          */

static void done() {
    rv_error err = {};
    if (rv_finish(be, &err)) {
        printf("FAILED: %s\n", err.message);
        exit(1);
    }
}

/* Median microseconds of one call of `work`. */
template <typename F> static double median_us(int repeats, F work) {
    static cudaEvent_t begun, ended;
    std::vector<float> ms;
    if (!begun) {
        MUST(cudaEventCreate(&begun));
        MUST(cudaEventCreate(&ended));
    }
    for (int i = 0; i < repeats + 2; i++) {
        float x;
        MUST(cudaEventRecord(begun, cuda->stream));
        work();
        MUST(cudaEventRecord(ended, cuda->stream));
        MUST(cudaEventSynchronize(ended));
        MUST(cudaEventElapsedTime(&x, begun, ended));
        if (i >= 2) ms.push_back(x);
    }
    std::sort(ms.begin(), ms.end());
    return 1e3 * ms[ms.size() / 2];
}

template <typename F> static double played_us(F record) {
    rv_record_tape(be);
    record();
    rv_tape *tape = rv_recorded(be);
    done();
    double us = median_us(15, [&] { rv_play(be, tape); });
    done();
    rv_erase(be, tape);
    return us;
}

static __global__ void read_kernel(const uint4 *p, size_t n, uint32_t *sink) {
    uint32_t s = 0;
    size_t step = (size_t)gridDim.x * blockDim.x, i = blockIdx.x * (size_t)blockDim.x + threadIdx.x;
    for (; i + 7 * step < n; i += 8 * step) {
        uint4 x[8];
#pragma unroll
        for (int j = 0; j < 8; j++) x[j] = __ldcs(p + i + (size_t)j * step);
#pragma unroll
        for (int j = 0; j < 8; j++) s ^= x[j].x ^ x[j].y ^ x[j].z ^ x[j].w;
    }
    if (s == 0x12345678) *sink = s;
}

static void measure_reading() {
    const size_t bytes = 3ull << 30;
    void *p = random_device(bytes / 2, 1);
    double best = 1e9;
    for (unsigned blocks : { 264u, 528u, 1056u, 2112u })
        best = std::min(best, median_us(5, [&] { read_kernel<<<blocks, 512, 0, cuda->stream>>>((const uint4 *)p, bytes / 16, (uint32_t *)cuda->sums); }));
    read_rate = (double)bytes / best;
    MUST(cudaFree(p));
}

/* ---- a model's piece ---- */

static rv_weight in[LAYERS], o[LAYERS], gate_up[LAYERS], down[LAYERS], head, table;
static rv_mat self_k[SELF], self_v[SELF], cross_k[CROSS], cross_v[CROSS], x, h, qkv, heads, ff, logits;
static float *norm_weight, *cos_sin, *row_on;
static int32_t *ids, *pos, *slot, *zero, *image_last, *self_pages, *image_pages;
static rv_best *best;

static rv_mat scratch(int32_t cols, rv_dtype type) {
    void *p;
    MUST(cudaMalloc(&p, (size_t)MOST_ROWS * (size_t)cols * rv_dtype_size(type)));
    return rv_mat_of(p, MOST_ROWS, cols, type);
}

static void make_model(int32_t most) {
    const int32_t self_rows = most * ((self_keys - 1) / PAGE + 1) * PAGE, image_rows = most * IMAGE_KEYS;
    for (int i = 0; i < LAYERS; i++) {
        in[i] = weight(i < SELF ? HIDDEN + 2 * KV : HIDDEN, HIDDEN, RV_ORDER_STACKED, false);
        o[i] = weight(HIDDEN, HIDDEN, RV_ORDER_STACKED, false);
        gate_up[i] = weight(2 * FFN, HIDDEN, RV_ORDER_GATE_UP, false);
        down[i] = weight(HIDDEN, FFN, RV_ORDER_STACKED, false);
        rv_mat *k = i < SELF ? &self_k[i] : &cross_k[i - SELF], *v = i < SELF ? &self_v[i] : &cross_v[i - SELF];
        int32_t rows = i < SELF ? self_rows : image_rows;
        *k = rv_mat_of(random_device((size_t)rows * KV, 1), rows, KV, act);
        *v = rv_mat_of(random_device((size_t)rows * KV, 1), rows, KV, act);
    }
    head = weight(VOCAB, HIDDEN, RV_ORDER_STACKED, true);
    table = weight(64, HIDDEN, RV_ORDER_STACKED, true);
    x = scratch(HIDDEN, RV_F32);
    h = scratch(HIDDEN, act);
    qkv = scratch(HIDDEN + 2 * KV, act);
    heads = scratch(HIDDEN, act);
    ff = scratch(FFN, act);
    logits = scratch(VOCAB, RV_F32);
    std::vector<float> norm(HIDDEN, 1.f);
    for (int32_t i = 0; planted && i < 8; i++) norm[(size_t)(300 + 490 * i)] = 16;
    norm_weight = to_device(norm);
    cos_sin = to_device(std::vector<float>((size_t)CONTEXT * DIM, 0.7f));
    row_on = to_device(std::vector<float>(MOST_ROWS, 1.f));
    std::vector<int32_t> number, self, image;
    for (int32_t r = 0; r < MOST_ROWS; r++) {
        number.push_back(r);
        for (int32_t i = 0; i < CONTEXT / PAGE; i++) self.push_back(i <= (self_keys - 1) / PAGE ? r * ((self_keys - 1) / PAGE + 1) + i : 0);
        for (int32_t i = 0; i < 4; i++) image.push_back(r * 4 + i);
    }
    ids = to_device(number);
    slot = to_device(number);
    pos = to_device(std::vector<int32_t>(MOST_ROWS, self_keys - 1));
    zero = to_device(std::vector<int32_t>(MOST_ROWS, 0));
    image_last = to_device(std::vector<int32_t>(MOST_ROWS, IMAGE_KEYS - 1));
    self_pages = to_device(self);
    image_pages = to_device(image);
    MUST(cudaMalloc(&best, MOST_ROWS * sizeof *best));
}

static rv_decoder_block block_of(int32_t i, int32_t n) {
    const bool self = i < SELF;
    rv_decoder_block b = {};
    b.x = rv_rows(x, 0, n);
    b.h = rv_rows(h, 0, n);
    b.qkv = rv_rows(qkv, 0, n);
    b.ff = rv_rows(ff, 0, n);
    b.in = &in[i];
    b.o = &o[i];
    b.gate_up = &gate_up[i];
    b.down = &down[i];
    b.norm1 = b.norm2 = { norm_weight, NULL, 1e-5f, HIDDEN };
    b.q_norm = { norm_weight, NULL, 1e-5f, DIM };
    b.attn_gate = b.mlp_gate = 0.5f;
    rv_attention &a = b.attention;
    a.q = rv_cols(b.qkv, 0, HIDDEN);
    a.out = rv_rows(heads, 0, n);
    a.kv.k = self ? self_k[i] : cross_k[i - SELF];
    a.kv.v = self ? self_v[i] : cross_v[i - SELF];
    a.kv.pages = self ? self_pages : image_pages;
    a.kv.page_rows = self ? PAGE : TILE_TOKENS;
    a.kv.max_pages = self ? CONTEXT / PAGE : 4;
    a.slot = slot;
    a.first = self ? NULL : zero;
    a.last = self ? pos : image_last;
    a.heads = HEADS;
    a.kv_heads = KV_HEADS;
    a.longest = self ? CONTEXT : IMAGE_KEYS;
    a.scale = 0.0884f;
    if (self) b.cos_sin = cos_sin, b.pos = pos;
    else b.row_on = row_on;
    return b;
}

/* Layer after layer, or many in a launch. */
static void queue_layers(int32_t first, int32_t last, int32_t count, int32_t n, bool at_once) {
    std::vector<rv_decoder_block> blocks;
    bool taken = true;
    for (int32_t i = 0; i < count; i++) blocks.push_back(block_of(first + i % (last - first), n));
    for (int32_t i = 0; i < count && taken; i += at_once ? RV_BLOCKS_AT_ONCE : 1)
        taken = at_once ? rv_decoder_layers(be, &blocks[(size_t)i], std::min(count - i, (int32_t)RV_BLOCKS_AT_ONCE)) : rv_decoder_layer(be, &blocks[(size_t)i]);
    if (!taken) {
        puts("FAILED: the coarse entry does not take these rows");
        exit(1);
    }
}

static double weight_bytes(const rv_weight &w) {
    return rv_cuda_four(&w) ? (double)rv_cuda_four(&w)->bytes : (w.codes ? 1.0 : 2.0) * w.head.rows * w.head.cols;
}
static double layer_bytes(int32_t i, int32_t n) {
    return weight_bytes(in[i]) + weight_bytes(o[i]) + weight_bytes(gate_up[i]) + weight_bytes(down[i]) +
           4.0 * KV * n * (i < SELF ? self_keys : IMAGE_KEYS);
}

static double print(const char *what, int32_t n, double us, double bytes) {
    printf("%-22s %2d rows  %8.2f us  %7.1f MB  %5.2f TB/s  %3.0f %% of reading\n", what, n, us, bytes / 1e6, bytes / us / 1e6, 100 * bytes / us / read_rate);
    return us;
}

/* Layers first .. last - 1 over and over, a recorded chain of `count`. */
static double layers_us(int32_t first, int32_t last, int32_t count, int32_t n, bool at_once) {
    return played_us([&] {
        rv_embed(be, rv_rows(x, 0, n), &table, ids);
        queue_layers(first, last, count, n, at_once);
    });
}

static double head_us(int32_t n) {
    return played_us([&] {
        rv_embed(be, rv_rows(x, 0, n), &table, ids);
        for (int32_t i = 0; i < 4; i++) {
            rv_norm_rows(be, rv_rows(h, 0, n), rv_rows(x, 0, n), rv_norm{ norm_weight, NULL, 1e-5f, HIDDEN });
            rv_linear(be, rv_rows(logits, 0, n), rv_rows(h, 0, n), &head, NULL, RV_ACT_NONE);
            rv_best_rows(be, best, rv_rows(logits, 0, n));
        }
    }) / 4;
}

static int32_t outliers_in(rv_mat row) {
    std::vector<uint16_t> bits((size_t)row.cols);
    int32_t all = 0;
    MUST(cudaMemcpy(bits.data(), row.data, bits.size() * 2, cudaMemcpyDeviceToHost));
    for (uint16_t b : bits) all += (b & 0x7fff) >= (act == RV_F16 ? 0x4600 : 0x40c0);       /* 6 */
    return all;
}

static void time_layers(int32_t n) {
    const double mixed_bytes = SELF * layer_bytes(0, n) + CROSS * layer_bytes(SELF, n), step_bytes = 4 * mixed_bytes + weight_bytes(head);
    const double token = print("norm, head, best", n, head_us(n), weight_bytes(head));
    for (int at_once = 0; at_once < (n <= RV_CUDA_NORM_ROWS ? 2 : 1); at_once++) {
        puts(at_once ? "many layers a launch:" : "layer by layer:");
        print("self layer", n, layers_us(0, SELF, 4 * SELF, n, at_once) / (4 * SELF), layer_bytes(0, n));
        print("cross layer", n, layers_us(SELF, LAYERS, 16 * CROSS, n, at_once) / (16 * CROSS), layer_bytes(SELF, n));
        const double mixed = print("32 self, 8 cross", n, layers_us(0, LAYERS, 4 * LAYERS, n, at_once), 4 * mixed_bytes);
        print("the model, added up", n, mixed + token, step_bytes);
        print("a step", n, played_us([&] {
            rv_embed(be, rv_rows(x, 0, n), &table, ids);
            queue_layers(0, LAYERS, 4 * LAYERS, n, at_once);
            rv_norm_rows(be, rv_rows(h, 0, n), rv_rows(x, 0, n), rv_norm{ norm_weight, NULL, 1e-5f, HIDDEN });
            rv_linear(be, rv_rows(logits, 0, n), rv_rows(h, 0, n), &head, NULL, RV_ACT_NONE);
            rv_best_rows(be, best, rv_rows(logits, 0, n));
        }), step_bytes);
    }
    if (int8) printf("%d outliers in the last row of `down`\n", outliers_in(rv_rows(ff, n - 1, 1)));
    double choice = played_us([&] { for (int32_t i = 0; i < 16; i++) rv_best_rows(be, best, rv_rows(logits, 0, n)); }) / 16;
    print("best alone", n, choice, 4.0 * VOCAB * n);
}

/* One kind of product over and over, every one with weights of its own. */
static double time_product(const char *what, rv_weight *w, int32_t n, bool normed, rv_mat from, rv_mat to, int how) {
    double us = played_us([&] {
        rv_embed(be, rv_rows(x, 0, n), &table, ids);
        for (int32_t i = 0; i < 2 * SELF; i++) {
            rv_few p = {};
            p.x = rv_rows(normed ? x : from, 0, n);
            p.norm = normed ? norm_weight : NULL;
            p.eps = 1e-5f;
            p.act = act;
            p.multiprocessors = cuda->multiprocessors;
            p.w = w[i % SELF].w.data;
            p.rows = w[i % SELF].head.rows;
            p.cols = w[i % SELF].head.cols;
            p.out = rv_rows(to, 0, n);
            p.how = (decltype(p.how))how;
            p.scale = 1e-3f;
            p.turn = rv_cuda_turn(cuda->partial, cuda->turn++);
            if (int8) MUST(rv_cuda_int8_product(cuda, &p, &w[i % SELF]));
            else if (four) MUST(rv_cuda_four_few(cuda, &p, rv_cuda_four(&w[i % SELF])));
            else if (cuda->arch == 70) MUST(rv_cuda_few70(&p, cuda->stream));
            else MUST(rv_cuda_few(&p, cuda->overlap, cuda->stream));
        }
    }) / (2 * SELF);
    return print(what, n, us, weight_bytes(w[0]));
}

static void time_products(int32_t n) {
    const bool normed = n <= RV_CUDA_NORM_ROWS;
    double us = time_product("q, k, v", in, n, normed, h, qkv, rv_few::RV_FEW_STORE);
    us += time_product("o", o, n, false, heads, x, rv_few::RV_FEW_ADD);
    us += time_product("gate, up", gate_up, n, normed, h, ff, rv_few::RV_FEW_SWIGLU);
    us += time_product("down", down, n, false, ff, x, rv_few::RV_FEW_ADD);
    print("a layer's products", n, us, weight_bytes(in[0]) + weight_bytes(o[0]) + weight_bytes(gate_up[0]) + weight_bytes(down[0]));
}

/* ---- a layer's products with many rows, 16 bit and int8 ---- */

#if RV_CUDA_SM90
static rv_int8 product_of(const rv_weight &w, int how, rv_mat from, rv_mat to) {
    rv_int8 q = {};
    q.p.x = from, q.p.act = act, q.p.multiprocessors = cuda->multiprocessors, q.p.w = w.codes, q.p.rows = w.head.rows, q.p.cols = w.head.cols;
    q.p.out = to, q.p.how = (decltype(q.p.how))how, q.p.scale = 0.5f;
    q.w_scale = w.scale, q.pitch = w.pitch, q.rules = cuda->int8, q.call = from;
    q.room = (char *)cuda->partial + RV_CUDA_COUNTERS * sizeof(int32_t), q.marks = (char *)cuda->partial + RV_CUDA_PARTIAL_BYTES;
    q.cut = rv_cuda_int8_cut(&q);
    return q;
}

/* The launches of a product one by one, each over and over; and the whole with each of int8_90.cu's cuts. */
static void print_launches(const rv_weight *w, int how, rv_mat from, rv_mat to) {
    auto of_all = [&](auto launch) {
        return played_us([&] {
            for (int32_t i = 0; i < SELF; i++) MUST(launch(product_of(w[i], how, from, to)));
        }) / SELF;
    };
    const rv_int8 one = product_of(w[0], how, from, to);
    if (rv_cuda_int8_90_rows(&one) < from.rows) return;
    const rv_int8_many room = rv_cuda_int8_many(one.room, from.rows, one.p.rows, one.pitch, false, rv_cuda_int8_before(&one));
    /* With outliers these find marks that are set already: nobody wipes them between. */
    printf("  codes %.1f", of_all([&](const rv_int8 &q) { return rv_cuda_quantise_many(&q, &room, cuda->overlap, cuda->stream); }));
    if (rv_cuda_int8_before(&one)) printf(", lists %.1f ", of_all([&](const rv_int8 &q) { return rv_cuda_outliers90(&q, &room, cuda->overlap, cuda->stream); }));
    for (const rv_int8_cut &cut : rv_cuda_int8_cuts)
        if (rv_cuda_int8_may_cut(&one, cut))
            printf(" %d/%d/%d%s %.1f", cut.rows, cut.share, cut.split, memcmp(&cut, &one.cut, sizeof cut) ? "" : "*",
                   of_all([&](rv_int8 q) { q.cut = cut; return rv_cuda_int8_90(&q, cuda->overlap, cuda->stream); }));
}
#endif

/* Outliers: `share` of a million of all values, wherever. */
static __global__ void scatter_kernel(uint16_t *p, size_t n, uint32_t share, uint16_t value) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + 77) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 29;
        if ((z >> 20) % 1000000 < share) p[i] = value;
    }
}

/* A product of many rows: what `synth` gives it is `share` outliers of a million, or `planted` columns.  normed: as the engine does it, norm and all. */
struct many_case { const char *what; int32_t rows, cols; rv_weight_order order; int how; uint32_t share; int32_t planted; bool normed; };

/* A normed product, SwiGLU with it: at once, or operation by operation. */
static void queue_normed(rv_mat to, rv_mat from, rv_mat h, rv_mat wide, const rv_weight *w, bool swiglu) {
    const rv_norm norm = { norm_weight, NULL, 1e-5f, HIDDEN };
    if (rv_linear_normed(be, to, from, norm, w, swiglu)) return;
    rv_norm_rows(be, h, from, norm);
    rv_linear(be, swiglu ? wide : to, h, w, NULL, RV_ACT_NONE);
    if (swiglu) rv_swiglu(be, to, wide);
}

static double time_case(const many_case &c, int32_t n, const char *kept, bool outliers, void *out) {
    std::vector<rv_weight> w;
    for (int i = 0; i < SELF; i++) w.push_back(weight(c.rows, c.cols, c.order, false));
    uint16_t *x = (uint16_t *)random_device((size_t)n * (size_t)c.cols, 1);
    for (int i = 0; outliers && i < c.planted; i++) MUST(set2d((char *)x + 2 * (100 + 490 * i), (size_t)c.cols * 2, act == RV_BF16 ? 0x41 : 0x4a, 2, (size_t)n));       /* 12 */
    if (outliers && c.share) scatter_kernel<<<1056, 256, 0, cuda->stream>>>(x, (size_t)n * (size_t)c.cols, c.share, act == RV_BF16 ? 0x4110 : 0x4880);     /* 9 */
    const bool swiglu = c.how == rv_few::RV_FEW_SWIGLU;
    const rv_mat from = rv_mat_of(x, n, c.cols, act), to = rv_mat_of(out, n, swiglu ? c.rows / 2 : c.rows, c.how == rv_few::RV_FEW_ADD ? RV_F32 : act);
    const rv_mat wide = rv_mat_of((char *)out + (size_t)n * (size_t)c.rows * 2, n, c.rows, act), rows = rv_mat_of((char *)out + (size_t)n * 2 * FFN * 4, n, c.cols, RV_F32);
    if (c.normed) rv_copy(be, rows, from);
    const double us = played_us([&] {
        for (int32_t i = 0; i < SELF; i++)
            if (c.normed) queue_normed(to, rows, from, wide, &w[(size_t)i], swiglu);
            else if (c.how == rv_few::RV_FEW_ADD) rv_linear_add(be, to, from, &w[(size_t)i], NULL, 0.5f, NULL);
            else rv_linear(be, to, from, &w[(size_t)i], NULL, RV_ACT_NONE);
    }) / SELF;
    printf("%-16s %-14s %5d rows  %8.2f us  %6.0f Tops", kept, c.what, n, us, 2e-6 * n * c.rows * c.cols / us);
#if RV_CUDA_SM90
    if (int8 && cuda->arch == 90 && !c.normed) print_launches(w.data(), c.how, from, to);
#endif
    puts("");
    done();
    MUST(cudaFree(x));
    for (rv_weight &one : w)
        if (!four) MUST(cudaFree(int8 ? (void *)one.codes : one.w.data));
    return us;
}

static void time_many(int32_t n) {
    const int store = rv_few::RV_FEW_STORE, add = rv_few::RV_FEW_ADD;
    const many_case cases[] = { { "norm; q, k, v", HIDDEN + 2 * KV, HIDDEN, RV_ORDER_STACKED, store, 0, 8, true }, { "o", HIDDEN, HIDDEN, RV_ORDER_STACKED, add, 0, 0, false },
                                { "norm to SwiGLU", 2 * FFN, HIDDEN, RV_ORDER_GATE_UP, rv_few::RV_FEW_SWIGLU, 0, 8, true },
                                { "down", HIDDEN, FFN, RV_ORDER_STACKED, add, 2500, 0, false }, { "q, k, v", HIDDEN + 2 * KV, HIDDEN, RV_ORDER_STACKED, store, 0, 8, false },
                                { "gate, up", 2 * FFN, HIDDEN, RV_ORDER_GATE_UP, store, 0, 8, false }, { "image keys", 2 * KV, HIDDEN, RV_ORDER_STACKED, store, 27000, 0, false } };
    static const char *const kept[] = { "16 bit", "nf4", "int8", "int8, outliers" };
    void *out;
    MUST(cudaMalloc(&out, (size_t)n * 3 * FFN * 4));              /* results, and rows before a norm */
    MUST(set(out, 0, (size_t)n * 3 * FFN * 4));
    if (!norm_weight) norm_weight = to_device(std::vector<float>(HIDDEN, 1.f));
    double plain = 0;
    for (int kind = 0; kind < 4; kind++) {
        four = kind == 1;
        int8 = kind > 1;
        double all = 0;
        for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
            const double us = time_case(cases[i], n, kept[kind], kind == 3, out);
            if (i < 4) all += us;
        }
        if (!kind) plain = all;
        printf("%-16s a layer's      %5d rows  %8.2f us  %.2f times 16 bit\n", kept[kind], n, all, plain / all);
    }
    MUST(cudaFree(out));
}

/* ---- a layer's products with nf4 weights and few rows, every way there is ---- */

/* x w^T as p says, by kernels that do not know SwiGLU: into `wide` first. */
template <typename F> static void then_gates(const rv_few &p, rv_mat wide, F product) {
    rv_few plain = p;
    if (p.how == rv_few::RV_FEW_SWIGLU) plain.how = rv_few::RV_FEW_STORE, plain.out = wide;
    product(plain);
    if (p.how == rv_few::RV_FEW_SWIGLU) rv_swiglu(be, p.out, wide);
}

static void by_16_bit(const rv_few &p, const rv_weight *w) {
    if (p.how == rv_few::RV_FEW_ADD) rv_cuda_four_linear_add(cuda, p.out, p.x, w, NULL, p.scale, NULL);
    else rv_cuda_four_linear(cuda, p.out, p.x, w, NULL, RV_ACT_NONE);
}

static void by_16_bit_and_cublas(const rv_few &p, const rv_weight *w) {
    const int32_t most = (int32_t)((RV_CUDA_PARTIAL_BYTES - RV_CUDA_COUNTERS * sizeof(int32_t)) / ((size_t)p.cols * 2)) / 128 * 128;
    for (int32_t from = 0; from < p.rows; from += most) {
        const int32_t n = std::min(most, p.rows - from);
        const rv_weight part = { { n, p.cols, w->head.use, RV_ORDER_STACKED, RV_FORMAT_PLAIN }, rv_mat_of(rv_cuda_four_room(cuda), n, p.cols, act) };
        MUST(rv_cuda_four_read(rv_cuda_four(w), part.w.data, act, from, n, cuda->multiprocessors, cuda->stream));
        rv_cuda_gemm(cuda, rv_cols(p.out, from, n), p.x, &part, p.how == rv_few::RV_FEW_ADD ? p.scale : 1, p.how == rv_few::RV_FEW_ADD, NULL);
    }
}

static void time_ways(int32_t n) {
    static const struct { const char *what; int32_t rows, cols; rv_weight_order order; int how; } cases[] = {
        { "q, k, v", HIDDEN + 2 * KV, HIDDEN, RV_ORDER_STACKED, rv_few::RV_FEW_STORE }, { "o", HIDDEN, HIDDEN, RV_ORDER_STACKED, rv_few::RV_FEW_ADD },
        { "gate, up", 2 * FFN, HIDDEN, RV_ORDER_GATE_UP, rv_few::RV_FEW_SWIGLU }, { "down", HIDDEN, FFN, RV_ORDER_STACKED, rv_few::RV_FEW_ADD } };
    enum { WAYS = 5 };
    double all[WAYS] = { 0 };
    printf("%2d rows, us          few rows, of 8.x  many rows     16 bit, few  16 bit, cuBLASLt\n", n);
    for (const auto &c : cases) {
        static std::vector<rv_weight> kept[4];                          /* the same for all numbers of rows */
        std::vector<rv_weight> &w = kept[&c - cases];
        while (w.size() < SELF) w.push_back(weight_of_four(c.rows, c.cols, c.order));
        const bool add = c.how == rv_few::RV_FEW_ADD;
        const rv_mat from = rv_mat_of(random_device((size_t)n * (size_t)c.cols, 1), n, c.cols, act), wide = rv_mat_of(random_device((size_t)n * (size_t)c.rows, 1), n, c.rows, act),
                     to = rv_mat_of(random_device((size_t)n * (size_t)c.rows * 2, 0), n, c.how == rv_few::RV_FEW_SWIGLU ? c.rows / 2 : c.rows, add ? RV_F32 : act);
        printf("%-20s", c.what);
        for (int way = 0; way < WAYS; way++) {
            if (way == 2 && cuda->arch != 90) {
                printf("  %10s", "-");
                continue;
            }
            const double us = played_us([&] {
                for (int i = 0; i < 2 * SELF; i++) {
                    const rv_weight *one = &w[(size_t)i % SELF];
                    rv_few p = {};
                    p.x = from, p.act = act, p.multiprocessors = cuda->multiprocessors, p.rows = c.rows, p.cols = c.cols, p.out = to;
                    p.how = (decltype(p.how))c.how, p.scale = 1e-3f, p.turn = rv_cuda_turn(cuda->partial, cuda->turn++);
                    if (way == 0) MUST(rv_cuda_four_few(cuda, &p, rv_cuda_four(one)));
                    else if (way == 1) MUST(rv_cuda_few4(&p, rv_cuda_four(one), rv_cuda_four_room(cuda), cuda->overlap, cuda->stream));
                    else then_gates(p, wide, [&](const rv_few &plain) {
                        if (way == 2 && !rv_cuda_four_many(cuda, &plain, one)) exit((puts("FAILED: no kernel of many rows"), 1));
                        if (way == 3) by_16_bit(plain, one);
                        if (way == 4) by_16_bit_and_cublas(plain, one);
                    });
                }
            }) / (2 * SELF);
            all[way] += us;
            printf("  %10.1f", us);
        }
        puts("");
        for (const rv_mat &m : { from, wide, to }) MUST(cudaFree(m.data));
    }
    printf("%-20s", "a layer's");
    for (double us : all) printf("  %10.1f", us);
    puts("");
}

int main(int argc, char **argv) {
    rv_cuda_options options = {};
    options.int8.threshold = 6;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "sm70")) options.arch = 70, act = RV_F16;
        else if (!strcmp(argv[i], "f16")) act = RV_F16;
    options.act = act;
    setvbuf(stdout, NULL, _IOLBF, 0);
    rv_error err = {};
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    if (rv_cuda_open(&options, &be, &err)) return printf("FAILED: %s\n", err.message), 1;
    cuda = (rv_cuda *)be;
    std::vector<int32_t> rows;
    bool many = false, ways = false;
    for (int i = 1; i < argc; i++)
        if (!strcmp(argv[i], "-k") && i + 1 < argc) self_keys = std::min(std::max(atoi(argv[++i]), 1), (int)CONTEXT);
        else if (!strcmp(argv[i], "int8")) int8 = true;
        else if (!strcmp(argv[i], "nf4")) four = true;
        else if (!strcmp(argv[i], "sm70") || !strcmp(argv[i], "f16")) continue;
        else if (!strcmp(argv[i], "many")) many = true;
        else if (!strcmp(argv[i], "ways")) ways = true;
        else if (!strcmp(argv[i], "outliers")) int8 = planted = true, code_scale = 0.024f;
        else rows.push_back(std::min(std::max(atoi(argv[i]), 1), many ? 8192 : (int)MOST_ROWS));
    if (rows.empty()) rows = { 1, 2, 8, 16, 32, 64 };
    measure_reading();
    printf("reading %.2f TB/s\n", read_rate / 1e6);
    if (many) {
        for (int32_t n : rows) time_many(n);
        return 0;
    }
    if (ways) {
        for (int32_t n : rows) time_ways(n);
        return 0;
    }
    make_model(*std::max_element(rows.begin(), rows.end()));
    done();
    for (int32_t n : rows) {
        if (cuda->arch == 70) print("norm, head, best", n, head_us(n), weight_bytes(head));
        else time_layers(n);
        if (n == 1 || n == 8 || n == 16 || n == 32 || n == 64 || cuda->arch == 70) time_products(n);
    }
    rv_backend_close(be);
    return 0;
}
