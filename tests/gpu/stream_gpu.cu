/* stream_gpu.cu - on a GPU: decoder layers in one launch, held against the same layers one after the other, bit for bit.
 *
 * The one idea: both ways are recorded as steps of a small model and played over the same numbers; the residual stream, every key
 * and every value must agree, step after step, and the launch's counters be zero again.
 *
 *     stream_gpu [check | small] [WORD]     small: a few cases, for compute-sanitizer; WORD: those that have it in their name
 *     exit code 1: something failed; 77: no GPU
 */
#include <algorithm>
#include <string>
#include <vector>
#include "kernels/cuda/four.h"
#include "kernels/cuda/open.h"
#include "tests/gpu/gpu.h"

enum { PAGE = 64, TABLE_ROWS = 64, STEPS = 4, IMAGE_PAGE = 401 };

/* layers: s and x, one a layer.  pos: the first step's, a row each; first, last: image keys that it sees.  gain: what quantised weights are larger by;
 * outliers: how many the last rows of `down` have at least (int8).  nested: of 4 bits, absmaxes are quantised themselves. */
struct model_case {
    const char *name;
    rv_dtype act;
    int32_t hidden, heads, kv_heads, dim, ffn;
    const char *layers;
    int32_t n, pos[2], first[2], last[2];
    float on[2];
    bool bias;
    rv_format format;
    float gain;
    int32_t outliers;
    bool nested;
};

static bool is_four(const model_case &c) { return c.format == RV_FORMAT_NF4 || c.format == RV_FORMAT_FP4; }

static int failures = 0;
static rv_backend *be;
static rv_cuda *cuda;

static void done() {
    rv_error err = {};
    if (rv_finish(be, &err)) {
        printf("FAILED: %s\n", err.message);
        exit(1);
    }
}

/* ---- memory ---- */

static __global__ void fill_kernel(void *p, size_t n, uint64_t salt, float scale, int type) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + salt) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        z ^= z >> 27;
        float x = ((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f * scale;
        if (type == RV_F32) ((float *)p)[i] = x;
        else if (type == RV_F16) ((__half *)p)[i] = __float2half_rn(x);
        else ((__nv_bfloat16 *)p)[i] = __float2bfloat16_rn(x);
    }
}
/* Codes of both signs alike. */
static __global__ void fill_codes_kernel(int8_t *p, size_t n, uint64_t salt) {
    for (size_t i = blockIdx.x * (size_t)blockDim.x + threadIdx.x; i < n; i += (size_t)gridDim.x * blockDim.x) {
        uint64_t z = (i + salt) * 0x9e3779b97f4a7c15ull;
        z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
        p[i] = (int8_t)((int32_t)((z >> 32) % 255) - 127);
    }
}
struct room {                            /* device memory, and weights that point there, given back at the end */
    std::vector<void *> all;
    std::vector<rv_weight *> weights;
    uint64_t salt = 1;
    ~room() {
        for (rv_weight *w : weights) rv_weight_free(be, w);
        for (void *p : all) cudaFree(p);
    }
    void *take(size_t bytes) {
        void *p;
        MUST(cudaMalloc(&p, bytes));
        all.push_back(p);
        return p;
    }
    rv_mat random(int32_t rows, int32_t cols, rv_dtype type, float scale) {
        rv_mat m = rv_mat_of(take((size_t)rows * (size_t)cols * rv_dtype_size(type)), rows, cols, type);
        fill_kernel<<<528, 256, 0, cuda->stream>>>(m.data, (size_t)rows * (size_t)cols, salt += 1u << 30, scale, type);
        MUST(cudaGetLastError());
        return m;
    }
    template <typename V> V *copy(const std::vector<V> &x) {
        V *p = (V *)take(x.size() * sizeof(V));
        MUST(put(p, x.data(), x.size() * sizeof(V)));
        return p;
    }
};
static std::vector<uint8_t> bytes_of(rv_mat m) {
    std::vector<uint8_t> x((size_t)m.rows * (size_t)m.ld * rv_dtype_size(m.type));
    MUST(cudaStreamSynchronize(cuda->stream));
    MUST(cudaMemcpy(x.data(), m.data, x.size(), cudaMemcpyDeviceToHost));
    return x;
}

/* ---- a small model ---- */

struct model {
    room memory;
    std::vector<rv_weight> weights;      /* in, o, gate_up, down of every layer                 */
    std::vector<rv_mat> keys, values;
    rv_mat x, h, qkv, heads, ff;
    rv_weight table;
    int32_t *ids, *pos, *slot, *first, *last, *self_pages, *image_pages;
    float *norm, *q_norm, *cos_sin, *row_on, *bias;
    int32_t context, image_keys;
    std::vector<rv_decoder_block> blocks;
};

static const float fp4_map[16] = { 0, 0.0052083333f, 0.6666667f, 1, 0.33333333f, 0.5f, 0.16666667f, 0.25f, -0.f, -0.0052083333f, -0.6666667f, -1, -0.33333333f, -0.5f, -0.16666667f, -0.25f };

/* Of 4 bits, part by part from random numbers; FP4: what became codes of NF4, with another map. */
static rv_weight weight_of_four(model &m, const std::vector<int32_t> &parts, int32_t cols, rv_weight_order order, const model_case &c) {
    rv_weight_spec s = {};
    rv_four_head head = {};
    for (int32_t rows : parts) {
        s.part[s.n_parts++].rows = rows;
        s.rows += rows;
    }
    s.cols = cols;
    s.order = order;
    s.format = c.format;
    s.nested = c.nested;
    s.filled = true;
    void *memory = m.memory.take(rv_weight_bytes(be, &s));
    memcpy(head.map, c.format == RV_FORMAT_FP4 ? fp4_map : rv_nf4_map, sizeof head.map);
    for (auto &map : head.nested_map) memcpy(map, rv_nested_map, sizeof map);
    MUST(put(memory, &head, sizeof head));
    const rv_four q = rv_four_of(&s, memory);
    for (int32_t i = 0; i < s.n_parts; i++) {
        const int32_t rows = parts[(size_t)i];
        const size_t absmaxes = (size_t)rows * (size_t)q.blocks;
        float *absmax = (float *)m.memory.take(absmaxes * 8);
        const rv_mat data = m.memory.random(rows, cols, c.act, (float)(i + 1) / sqrtf((float)cols));
        MUST(rv_cuda_four_quantise(&q, i, data.data, c.act, 0, rows, c.nested ? absmax : NULL, cuda->stream));
        if (c.nested) MUST(rv_cuda_four_nest(&q, i, absmax, (double *)(void *)(absmax + absmaxes), cuda->stream));
    }
    m.memory.weights.push_back(rv_weight_new(be, &s, memory));
    done();
    return *m.memory.weights.back();
}

static rv_weight weight(model &m, int32_t rows, int32_t cols, rv_weight_order order, rv_dtype act, rv_format format = RV_FORMAT_PLAIN, float gain = 1) {
    rv_weight w = {};
    w.head.rows = rows;
    w.head.cols = cols;
    w.head.order = order;
    w.head.format = format;
    if (format == RV_FORMAT_INT8) {
        std::vector<float> scale;
        for (int32_t r = 0; r < rows; r++) scale.push_back(gain * (1 + (float)(r * 7 % 13) / 13) / sqrtf((float)cols));
        w.codes = (int8_t *)m.memory.take((size_t)rows * (size_t)cols);
        fill_codes_kernel<<<528, 256, 0, cuda->stream>>>(w.codes, (size_t)rows * (size_t)cols, m.memory.salt += 1u << 30);
        MUST(cudaGetLastError());
        w.scale = m.memory.copy(scale);
        w.pitch = cols;
    } else w.w = m.memory.random(rows, cols, act, 1 / sqrtf((float)cols));
    return w;
}

static void make(model &m, const model_case &c) {
    const int32_t q = c.heads * c.dim, kv = c.kv_heads * c.dim, n = c.n, layers = (int32_t)strlen(c.layers);
    m.context = (std::max(c.pos[0], c.pos[1]) + STEPS + PAGE) / PAGE * PAGE;
    m.image_keys = std::max(std::max(c.last[0], c.last[1]), 0) / IMAGE_PAGE * IMAGE_PAGE + IMAGE_PAGE;
    m.x = m.memory.random(n, c.hidden, RV_F32, 1);
    m.h = m.memory.random(n, c.hidden, c.act, 1);
    m.qkv = m.memory.random(n, q + 2 * kv, c.act, 1);
    m.heads = m.memory.random(n, q, c.act, 1);
    m.ff = m.memory.random(n, c.ffn, c.act, 1);
    m.table = weight(m, TABLE_ROWS, c.hidden, RV_ORDER_STACKED, c.act);
    m.norm = (float *)m.memory.random(1, c.hidden, RV_F32, 1).data;
    m.q_norm = (float *)m.memory.random(1, c.dim, RV_F32, 1).data;
    m.cos_sin = (float *)m.memory.random(m.context, c.dim, RV_F32, 1).data;
    m.bias = (float *)m.memory.random(1, n * m.image_keys, RV_F32, 1).data;
    m.row_on = m.memory.copy(std::vector<float>(c.on, c.on + n));
    std::vector<int32_t> self_pages, image_pages, slots;
    for (int32_t r = 0; r < n; r++) slots.push_back(n - 1 - r);
    for (int32_t i = 0; i < n * m.context / PAGE; i++) self_pages.push_back(n * m.context / PAGE - 1 - i);
    for (int32_t i = 0; i < n * m.image_keys / IMAGE_PAGE; i++) image_pages.push_back(i);
    m.ids = m.memory.copy(std::vector<int32_t>(2, 0));
    m.pos = m.memory.copy(std::vector<int32_t>(c.pos, c.pos + n));
    m.slot = m.memory.copy(slots);
    m.first = m.memory.copy(std::vector<int32_t>(c.first, c.first + n));
    m.last = m.memory.copy(std::vector<int32_t>(c.last, c.last + n));
    m.self_pages = m.memory.copy(self_pages);
    m.image_pages = m.memory.copy(image_pages);
    for (int32_t i = 0; i < layers; i++) {
        const bool self = c.layers[i] == 's';
        auto add = [&](const std::vector<int32_t> &parts, int32_t cols, rv_weight_order order, float gain) {
            int32_t rows = 0;
            for (int32_t n : parts) rows += n;
            m.weights.push_back(is_four(c) ? weight_of_four(m, parts, cols, order, c) : weight(m, rows, cols, order, c.act, c.format, gain));
        };
        add(self ? std::vector<int32_t>{ q, kv, kv } : std::vector<int32_t>{ q }, c.hidden, RV_ORDER_STACKED, 1);
        add({ c.hidden }, q, RV_ORDER_STACKED, 1);
        add({ c.ffn, c.ffn }, c.hidden, RV_ORDER_GATE_UP, c.gain);
        add({ c.hidden }, c.ffn, RV_ORDER_STACKED, 1);
        m.keys.push_back(m.memory.random(n * (self ? m.context : m.image_keys), kv, c.act, 1));
        m.values.push_back(m.memory.random(n * (self ? m.context : m.image_keys), kv, c.act, 1));
    }
    for (int32_t i = 0; i < layers; i++) {
        const bool self = c.layers[i] == 's';
        rv_decoder_block b = {};
        b.x = m.x;
        b.h = m.h;
        b.qkv = m.qkv;
        b.ff = m.ff;
        b.in = &m.weights[(size_t)i * 4];
        b.o = b.in + 1;
        b.gate_up = b.in + 2;
        b.down = b.in + 3;
        b.norm1 = b.norm2 = { m.norm, NULL, 1e-5f, c.hidden };
        b.q_norm = { m.q_norm, NULL, 1e-6f, c.dim };
        b.attn_gate = self ? 1 : 0.75f;
        b.mlp_gate = self ? 1 : -0.5f;
        rv_attention &a = b.attention;
        a.q = rv_cols(m.qkv, 0, q);
        a.out = m.heads;
        a.kv.k = m.keys[(size_t)i];
        a.kv.v = m.values[(size_t)i];
        a.kv.pages = self ? m.self_pages : m.image_pages;
        a.kv.page_rows = self ? PAGE : IMAGE_PAGE;
        a.kv.max_pages = self ? m.context / PAGE : m.image_keys / IMAGE_PAGE;
        a.kv.bias = !self && c.bias ? m.bias : NULL;
        a.slot = m.slot;
        a.first = self ? NULL : m.first;
        a.last = self ? m.pos : m.last;
        a.heads = c.heads;
        a.kv_heads = c.kv_heads;
        a.longest = self ? m.context : m.image_keys;
        a.scale = 1 / sqrtf((float)c.dim);
        if (self) b.cos_sin = m.cos_sin, b.pos = m.pos;
        else b.row_on = m.row_on;
        m.blocks.push_back(b);
    }
}

/* ---- both ways ---- */

struct outcome { std::vector<std::vector<uint8_t>> x, keys, values; };

static rv_tape *record(model &m, bool at_once) {
    bool taken = true;
    rv_record_tape(be);
    rv_embed(be, m.x, &m.table, m.ids);
    if (at_once) taken = rv_decoder_layers(be, m.blocks.data(), (int32_t)m.blocks.size());
    else
        for (const rv_decoder_block &b : m.blocks) taken = taken && rv_decoder_layer(be, &b);
    rv_tape *tape = rv_recorded(be);
    done();
    if (!taken) {
        printf("FAILED: these layers are not taken %s\n", at_once ? "at once" : "one by one");
        exit(1);
    }
    return tape;
}

static outcome run(model &m, const model_case &c, bool at_once) {
    outcome o;
    rv_tape *tape = record(m, at_once);
    for (int32_t step = 0; step < STEPS; step++) {
        int32_t ids[2] = { step * 2, step * 2 + 1 }, pos[2];
        for (int32_t r = 0; r < 2; r++) pos[r] = c.pos[r] < 0 ? -1 : c.pos[r] + step;
        rv_upload(be, m.ids, ids, sizeof ids);
        rv_upload(be, m.pos, pos, (size_t)c.n * sizeof *pos);
        rv_play(be, tape);
        done();
        o.x.push_back(bytes_of(m.x));
    }
    for (size_t i = 0; i < m.keys.size(); i++) {
        o.keys.push_back(bytes_of(m.keys[i]));
        o.values.push_back(bytes_of(m.values[i]));
    }
    rv_erase(be, tape);
    return o;
}

static size_t differing(const std::vector<uint8_t> &a, const std::vector<uint8_t> &b) {
    size_t n = 0;
    for (size_t i = 0; i < a.size(); i++) n += a[i] != b[i];
    return n;
}

static bool counters_are_zero() {
    std::vector<int32_t> x(RV_CUDA_COUNTERS);
    MUST(cudaMemcpy(x.data(), cuda->partial, x.size() * sizeof x[0], cudaMemcpyDeviceToHost));
    return std::all_of(x.begin(), x.end(), [](int32_t v) { return v == 0; });
}

static bool finite(const std::vector<uint8_t> &x) {
    const float *f = (const float *)(const void *)x.data();
    return std::all_of(f, f + x.size() / 4, [](float v) { return isfinite(v); });
}

/* Of the row with fewest, of rows that `down` multiplied last, layer by layer: many layers in a launch have two places for such rows. */
static int32_t outliers_of(const model &m) {
    int32_t least = m.ff.cols;
    const std::vector<uint8_t> bytes = bytes_of(m.ff);
    for (int32_t r = 0; r < m.ff.rows; r++) {
        int32_t n = 0;
        for (int32_t c = 0; c < m.ff.cols; c++) {
            uint16_t bits;
            memcpy(&bits, &bytes[2 * ((size_t)r * (size_t)m.ff.ld + (size_t)c)], 2);
            n += fabsf(m.ff.type == RV_BF16 ? rv_bf16_to_f32(bits) : rv_f16_to_f32(bits)) >= cuda->int8.threshold;
        }
        least = std::min(least, n);
    }
    return least;
}

static void many_layers_in_a_launch_give_the_bits_of_single_ones(const model_case &c) {
    model a, b;
    make(a, c);
    make(b, c);
    outcome one = run(a, c, false), many = run(b, c, true);
    bool zero = counters_are_zero();
    size_t x = 0, k = 0, v = 0;
    bool good = true;
    for (size_t i = 0; i < one.x.size(); i++) {
        size_t d = differing(one.x[i], many.x[i]);
        if (d) printf("  step %zu: %zu bytes of x differ\n", i, d);
        x += d;
        good = good && finite(one.x[i]) && one.x[i] != one.x[(i + 1) % one.x.size()];
    }
    for (size_t i = 0; i < one.keys.size(); i++) {
        k += differing(one.keys[i], many.keys[i]);
        v += differing(one.values[i], many.values[i]);
    }
    const int32_t outliers = c.format == RV_FORMAT_INT8 ? outliers_of(a) : 0;
    const bool few = outliers < c.outliers;
    bool ok = !x && !k && !v && zero && good && !few;
    failures += !ok;
    printf("%s %s: %zu layers, %d rows, %d outliers%s\n", ok ? "ok" : "FAILED", c.name, one.keys.size(), (int)c.n, (int)outliers,
           ok ? "" : few ? ": fewer outliers than the case is about" : !good ? ": x is not finite, or the same in two steps" : !zero ? ": counters are left" : ": x, keys or values differ");
    if (k || v) printf("  %zu bytes of keys, %zu of values\n", k, v);
}

/* A value that has not come yet is told from others by all its bits: no NaN may look like it, or blocks would wait for ever. */
static void values_that_are_no_numbers_come_through(const model_case &c) {
    model a, b;
    const uint16_t ones = 0xffff;
    make(a, c);
    make(b, c);
    done();                              /* tables are filled: what is put there stays          */
    for (model *m : { &a, &b }) MUST(put((uint16_t *)m->table.w.data + 5, &ones, sizeof ones));
    const outcome one = run(a, c, false), many = run(b, c, true);
    size_t x = 0, numbers = 0;
    for (size_t i = 0; i < one.x.size(); i++) {
        const size_t d = differing(one.x[i], many.x[i]);
        x += d;
        for (size_t k = 0, shown = 0; d && shown < 4 && k < one.x[i].size(); k += 4) {
            uint32_t v[2];
            memcpy(&v[0], &one.x[i][k], 4);
            memcpy(&v[1], &many.x[i][k], 4);
            if (v[0] == v[1]) continue;
            printf("  step %zu, x[%zu]: %08x in single launches, %08x in one\n", i, k / 4, v[0], v[1]);
            shown++;
        }
    }
    for (size_t i = 0; i < many.x[0].size(); i += 4) {
        float v;
        memcpy(&v, &many.x[0][i], 4);
        numbers += !isnan(v);
    }
    failures += x || numbers;
    printf("%s %s, without numbers%s\n", x || numbers ? "FAILED" : "ok", c.name, x ? ": x differs" : numbers ? ": there are some" : "");
}

/* Layers that differ in more than stream.cu takes must be left to the engine. */
static void what_is_no_run_of_alike_layers_is_refused(const model_case &c) {
    model m;
    make(m, c);
    std::vector<rv_decoder_block> b = m.blocks;
    auto refused = [&](const char *what) {
        bool taken = rv_decoder_layers(be, b.data(), (int32_t)b.size());
        failures += taken;
        if (taken) printf("FAILED: taken although %s\n", what);
        b = m.blocks;
    };
    b[1].attention.scale *= 2;
    refused("one layer scales its scores otherwise");
    b[0].norm2.eps *= 2;
    refused("two norms have another epsilon");
    b[1].x = m.memory.random(c.n, c.hidden, RV_F32, 1);
    refused("one layer has rows of its own");
    b[3].attention.kv.pages = m.image_pages;
    refused("layers of a kind have their keys' pages apart");
    be->fine_only = true;
    refused("the backend is to compose");
    be->fine_only = false;
    m.weights[5].head.format = RV_FORMAT_INT8;
    refused("one weight is kept otherwise");
    done();
}

/* Nothing is an outlier then, however large. */
static void the_same_without_a_threshold(model_case c) {
    const float threshold = cuda->int8.threshold;
    char name[128];
    snprintf(name, sizeof name, "%s, without a threshold", c.name);
    c.name = name;
    c.outliers = 0;
    cuda->int8.threshold = 0;
    many_layers_in_a_launch_give_the_bits_of_single_ones(c);
    cuda->int8.threshold = threshold;
}

static void weights_of_4_bits_that_are_not_alike_are_refused(const model_case &c) {
    model m;
    make(m, c);
    const rv_weight kept = m.weights[5];
    auto refused = [&](rv_weight other, const char *what) {
        m.weights[5] = other;
        bool taken = rv_decoder_layers(be, m.blocks.data(), (int32_t)m.blocks.size());
        m.weights[5] = kept;
        failures += taken;
        if (taken) printf("FAILED: taken although %s\n", what);
    };
    model_case otherwise = c;
    otherwise.nested = !c.nested;
    refused(weight(m, kept.head.rows, kept.head.cols, kept.head.order, c.act), "one weight is kept in 16 bit");
    refused(weight(m, kept.head.rows, kept.head.cols, kept.head.order, c.act, RV_FORMAT_INT8), "one weight is kept in int8");
    refused(weight_of_four(m, { kept.head.rows }, kept.head.cols, kept.head.order, otherwise), "the absmaxes of one weight are kept otherwise");
    done();
}

static void rows_that_decide_together_are_refused(const model_case &c) {
    model m;
    make(m, c);
    cuda->int8.by_call = true;
    bool taken = rv_decoder_layers(be, m.blocks.data(), (int32_t)m.blocks.size());
    cuda->int8.by_call = false;
    failures += taken;
    if (taken) puts("FAILED: taken although a call's rows decide together what an outlier is");
    done();
}

static const model_case cases[] = {
    { "bf16, heads of 64, a new sequence", RV_BF16, 512, 8, 2, 64, 1536, "ssxs", 1, { 0 }, { 0 }, { 99 }, { 1 }, false },
    { "f16, heads of 128, a key into the second split", RV_F16, 1024, 8, 4, 128, 2560, "sxs", 1, { 254 }, { 0 }, { 400 }, { 1 }, false },
    { "bf16, two rows, one that sees no picture", RV_BF16, 512, 8, 2, 64, 1536, "sxsx", 2, { 126, 300 }, { 0, 0 }, { 700, -1 }, { 1, 0 }, true },
    { "f16, two rows, one of them off", RV_F16, 512, 8, 8, 64, 1536, "xssx", 2, { 700, -1 }, { 300, 0 }, { 802, -1 }, { 1, 0 }, true },
    { "bf16, 16 heads a key head, a range of image keys", RV_BF16, 1024, 16, 1, 64, 1024, "sxs", 2, { 255, 256 }, { 257, 10 }, { 1203, 600 }, { 1, 1 }, true },
    { "bf16, two rows, more splits than a warp has lanes", RV_BF16, 512, 8, 2, 64, 1536, "sxs", 2, { 8190, 17000 }, { 0, 0 }, { 99, 4500 }, { 1, 1 }, true },
    { "f16, heads of 128, where splits become longer", RV_F16, 1024, 8, 4, 128, 1024, "sxs", 2, { 4094, 9000 }, { 0, 1 }, { 4100, 4100 }, { 1, 1 }, false },
    { "bf16, no pictures", RV_BF16, 512, 4, 4, 128, 1536, "sss", 2, { 31, 511 }, {}, {}, {}, false },
    { "bf16, 40 layers", RV_BF16, 512, 8, 2, 64, 512, "sssxssssxssssxssssxssssxssssxssssxssssxs", 1, { 200 }, { 0 }, { 99 }, { 1 }, false },
    { "bf16, two layers of the 11B model", RV_BF16, 4096, 32, 8, 128, 14336, "sx", 1, { 254 }, { 0 }, { 6403 }, { 1 }, false },
    { "bf16, the same, two rows", RV_BF16, 4096, 32, 8, 128, 14336, "xs", 2, { 700, 2047 }, { 0, 1601 }, { 6403, 3201 }, { 1, 1 }, true },
    { "f16, a layer of the 90B model, two rows", RV_F16, 8192, 64, 8, 128, 28672, "sx", 2, { 512, 90 }, { 0, 0 }, { 801, 801 }, { 1, 1 }, false },
    { "int8 for bf16, heads of 64", RV_BF16, 1024, 16, 4, 64, 2048, "ssxs", 1, { 0 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_INT8, 1, 0 },
    { "int8 for f16, two rows, many outliers", RV_F16, 1024, 16, 4, 64, 3072, "sxs", 2, { 254, 3 }, { 0, 0 }, { 400, 99 }, { 1, 1 }, true, RV_FORMAT_INT8, 3, 20 },
    { "int8 for bf16, more outliers than shared memory has room for", RV_BF16, 1024, 8, 2, 128, 3072, "sx", 2, { 5, 6 }, { 0, 0 }, { 99, 99 }, { 1, 1 }, false, RV_FORMAT_INT8, 12, 600 },
    { "int8 for f16, longer rows", RV_F16, 1024, 8, 2, 128, 6144, "sxs", 1, { 5 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_INT8, 1.5, 0 },
    { "int8 for f16, longer rows, a larger gain", RV_F16, 1024, 8, 2, 128, 6144, "sx", 1, { 5 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_INT8, 2, 0 },
    { "int8 for f16, longer rows with too many to be listed as they are found", RV_F16, 1024, 8, 2, 128, 6144, "sxs", 1, { 5 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_INT8, 12, 600 },
    { "int8 for bf16, the same, two rows", RV_BF16, 1024, 8, 2, 128, 6144, "sx", 2, { 5, 6 }, { 0, 0 }, { 99, 99 }, { 1, 1 }, false, RV_FORMAT_INT8, 12, 600 },
    { "int8 for bf16, 40 layers", RV_BF16, 1024, 16, 4, 64, 1024, "sssxssssxssssxssssxssssxssssxssssxssssxs", 1, { 200 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_INT8, 1, 0 },
    { "int8 for bf16, layers that attend in all blocks and in some", RV_BF16, 2048, 16, 4, 128, 5120, "ssxssxxsss", 1, { 300 }, { 0 }, { 6403 }, { 1 }, false, RV_FORMAT_INT8, 2, 1 },
    { "int8 for f16, rows of one step a slice", RV_F16, 1024, 8, 8, 128, 1024, "sxss", 1, { 511 }, { 0 }, { 1200 }, { 1 }, false, RV_FORMAT_INT8, 4, 5 },
    { "int8 for bf16, two layers of the 11B model", RV_BF16, 4096, 32, 8, 128, 14336, "sx", 1, { 254 }, { 0 }, { 6403 }, { 1 }, false, RV_FORMAT_INT8, 2, 1 },
    { "int8 for f16, the same, two rows", RV_F16, 4096, 32, 8, 128, 14336, "xs", 2, { 700, 2047 }, { 0, 1601 }, { 6403, 3201 }, { 1, 1 }, true, RV_FORMAT_INT8, 2, 1 },
    { "int8 for bf16, a layer of the 90B model, two rows", RV_BF16, 8192, 64, 8, 128, 28672, "sx", 2, { 512, 90 }, { 0, 0 }, { 801, 801 }, { 1, 1 }, false, RV_FORMAT_INT8, 2, 1 },
    { "nf4 for bf16, nested, heads of 64", RV_BF16, 2048, 32, 8, 64, 4096, "ssxs", 1, { 0 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_NF4, 1, 0, true },
    { "nf4 for f16, absmaxes in f32, two rows", RV_F16, 2048, 16, 4, 128, 6144, "sxs", 2, { 254, 3 }, { 0, 0 }, { 400, 99 }, { 1, 1 }, true, RV_FORMAT_NF4, 1, 0, false },
    { "fp4 for bf16, nested, two rows", RV_BF16, 2048, 32, 4, 64, 6144, "sx", 2, { 5, 6 }, { 0, 0 }, { 99, 99 }, { 1, 0 }, false, RV_FORMAT_FP4, 1, 0, true },
    { "nf4 for bf16, 40 layers", RV_BF16, 2048, 32, 4, 64, 2048, "sssxssssxssssxssssxssssxssssxssssxssssxs", 1, { 200 }, { 0 }, { 99 }, { 1 }, false, RV_FORMAT_NF4, 1, 0, true },
    { "nf4 for bf16, two layers of the 11B model", RV_BF16, 4096, 32, 8, 128, 14336, "sx", 1, { 254 }, { 0 }, { 6403 }, { 1 }, false, RV_FORMAT_NF4, 1, 0, true },
    { "nf4 for f16, the same, two rows", RV_F16, 4096, 32, 8, 128, 14336, "xs", 2, { 700, 2047 }, { 0, 1601 }, { 6403, 3201 }, { 1, 1 }, true, RV_FORMAT_NF4, 1, 0, true },
    { "nf4 for bf16, absmaxes in f32, a layer of the 90B model", RV_BF16, 8192, 64, 8, 128, 28672, "sx", 1, { 512 }, { 0 }, { 801 }, { 1 }, false, RV_FORMAT_NF4, 1, 0, false },
};

int main(int argc, char **argv) {
    const bool small = argc > 1 && !strcmp(argv[1], "small");
    const char *word = argc > 2 ? argv[2] : "";
    setvbuf(stdout, NULL, _IOLBF, 0);
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    for (rv_dtype act : { RV_BF16, RV_F16 }) {
        rv_cuda_options options = {};
        rv_error err = {};
        options.act = act;
        options.int8.threshold = 6;
        if (rv_cuda_open(&options, &be, &err)) return printf("FAILED: %s\n", err.message), 1;
        cuda = (rv_cuda *)be;
        for (const model_case &c : cases) {
            if (c.act != act || !strstr(c.name, word) || (small && (strlen(c.layers) > 4 || c.hidden > (is_four(c) ? 2048 : c.format == RV_FORMAT_PLAIN ? 512 : 1024)))) continue;
            many_layers_in_a_launch_give_the_bits_of_single_ones(c);
            if (c.format == RV_FORMAT_INT8 && c.n > 1 && c.hidden <= 1024) the_same_without_a_threshold(c);
            if (c.n == 1 && c.hidden <= 2048 && c.format != RV_FORMAT_INT8) values_that_are_no_numbers_come_through(c);
        }
        if (act == RV_BF16) {
            what_is_no_run_of_alike_layers_is_refused(cases[0]);
            for (const model_case &c : cases)
                if (c.format == RV_FORMAT_INT8 && c.n > 1 && c.act == act && c.hidden <= 1024) rows_that_decide_together_are_refused(c);
                else if (is_four(c) && c.act == act && c.hidden <= 2048 && strlen(c.layers) == 4) weights_of_4_bits_that_are_not_alike_are_refused(c);
        }
        rv_backend_close(be);
    }
    puts(failures ? "FAILED" : "all the same");
    return failures > 0;
}
