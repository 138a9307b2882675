/* int8_gpu.cu - on a GPU: LLM.int8 weights as they are loaded, and their products.
 *
 * The one idea: engine/base/quant.h says what every code and every sum is, so codes, scales and results without outliers
 * must be those to the bit; with outliers, which are added up in f32, a result may be two steps of its type away from
 * an f64 sum, at the larger of the two addends; and a row's bits never depend on the rows beside it.
 *
 *     int8_gpu [check | small | sm70 | many] [FILE]     small: a few cases, for compute-sanitizer; sm70: V100's kernels alone; many: Hopper's products of many rows alone;
 *                                         FILE: bitsandbytes' own numbers (tests/data/golden/bnb/int8.safetensors)
 *     int8_gpu check FILE bf16 | f16 80 | 90     one type and kernel set of the four
 *     exit code 1: something failed; 77: no GPU
 */
#include <float.h>
#include <math.h>
#include <algorithm>
#include <string>
#include <vector>
#include "kernels/cuda/int8_many.h"
#include "tests/gpu/check.h"

/* ---- numbers ---- */

static float rounded(float x, rv_dtype type) { return type == RV_F32 ? x : unpack(type == RV_BF16 ? rv_f32_to_bf16(x) : rv_f32_to_f16(x), type); }
/* As torch casts to f16. */
static float cast16(float x) { return fabsf(x) >= 65520.f ? copysignf(INFINITY, x) : rounded(x, RV_F16); }
/* The step between neighbours of a type at x. */
static double step_at(double x, rv_dtype type) {
    const int bits = type == RV_BF16 ? 8 : 11, least = type == RV_BF16 ? -133 : -24;
    int e = 0;
    frexp(fabs(x), &e);
    return ldexp(1, std::max(e - bits, least));
}

/* ---- weights ---- */

struct part {
    int32_t rows, cols;
    rv_dtype type;
    std::vector<uint8_t> data;
    std::vector<int8_t> codes;           /* as they must become                                 */
    std::vector<float> scale;
    rv_codes quantised;
};

static part make_part(int32_t rows, int32_t cols, rv_dtype type) {
    part p = { rows, cols, type, {}, {}, {}, {} };
    const size_t n = (size_t)rows * (size_t)cols, size = rv_dtype_size(type);
    p.data.resize(n * size);
    p.codes.resize(n);
    p.scale.resize((size_t)rows);
    for (size_t i = 0; i < n; i++) {
        float x = 0.05f * random_normal();
        const size_t r = i / (size_t)cols;
        if (r % 61 == 7) x = 0;
        if (r % 61 == 9) x = i % 3 ? 0.5f : -1.f;                             /* halves of the largest: ties */
        if (r % 61 == 11) x *= 1e-6f;                                         /* f16's subnormals */
        const uint16_t bits = type == RV_F32 ? 0 : pack(x, type);
        memcpy(&p.data[i * size], type == RV_F32 ? (const void *)&x : (const void *)&bits, size);
    }
    for (int32_t r = 0; r < rows; r++)
        p.scale[(size_t)r] = rv_int8_weights(&p.codes[(size_t)r * (size_t)cols], &p.data[(size_t)r * (size_t)cols * size], type, cols);
    p.quantised.format = RV_FORMAT_INT8;
    return p;
}

/* Codes and scales in the order of the weight's rows. */
struct expected { std::vector<int8_t> codes; std::vector<float> scale; };
static expected in_order(const std::vector<part> &parts, rv_weight_order order) {
    expected e;
    const size_t cols = (size_t)parts[0].cols;
    auto add = [&](const part &p, int32_t from, int32_t n) {
        e.codes.insert(e.codes.end(), p.codes.begin() + (ptrdiff_t)(from * (int32_t)cols), p.codes.begin() + (ptrdiff_t)((from + n) * (int32_t)cols));
        e.scale.insert(e.scale.end(), p.scale.begin() + from, p.scale.begin() + from + n);
    };
    if (order == RV_ORDER_STACKED)
        for (const part &p : parts) add(p, 0, p.rows);
    else
        for (int32_t r = 0; r < parts[0].rows; r += RV_CUDA_GATE_BLOCK)
            for (const part &p : parts) add(p, r, RV_CUDA_GATE_BLOCK);
    return e;
}

struct loaded { rv_weight *w; void *memory; uint64_t bytes; };
/* coded: parts come as codes. */
static loaded load(std::vector<part> &parts, rv_weight_order order, rv_format format, bool coded, void *filled = NULL) {
    rv_weight_spec s = {};
    s.name = "a weight";
    s.cols = parts[0].cols;
    s.n_parts = (int32_t)parts.size();
    for (size_t i = 0; i < parts.size(); i++) {
        part &p = parts[i];
        p.quantised.codes = p.codes.data();
        p.quantised.scale = p.scale.data();
        s.rows += p.rows;
        s.part[i] = { coded || filled ? NULL : p.data.data(), p.type, p.rows, coded && !filled ? &p.quantised : NULL };
    }
    s.order = order;
    s.format = format;
    s.filled = filled != NULL;
    loaded l = {};
    l.bytes = rv_weight_bytes(be, &s);
    l.memory = filled ? filled : rv_device_alloc(be, l.bytes);
    l.w = rv_weight_new(be, &s, l.memory);
    rv_error err = {};
    if (rv_finish(be, &err)) {
        printf("FAILED: %s\n", err.message);
        exit(1);
    }
    return l;
}
static void drop(loaded &l) {
    rv_weight_free(be, l.w);
    rv_device_release(be, l.memory);
}

static void weights_become_what_the_rules_say(std::vector<part> parts, rv_weight_order order, bool coded) {
    loaded l = load(parts, order, RV_FORMAT_INT8, coded);
    const expected e = in_order(parts, order);
    const size_t rows = e.scale.size(), cols = (size_t)parts[0].cols, pitch = (cols + 15) / 16 * 16;
    EXPECT(l.bytes <= rows * pitch + 256 + 4 * rows, "%zu x %zu: %llu bytes", rows, cols, (unsigned long long)l.bytes);
    for (int again = 0; again < 2; again++) {
        loaded f = again ? load(parts, order, RV_FORMAT_INT8, false, l.memory) : l;
        std::vector<int8_t> codes = from_device<int8_t>(f.w->codes, rows * pitch);
        std::vector<float> scale = from_device<float>(f.w->scale, rows);
        int32_t wrong = 0;
        for (size_t r = 0; r < rows; r++) {
            wrong += memcmp(&scale[r], &e.scale[r], 4) != 0;
            for (size_t k = 0; k < pitch; k++) wrong += codes[r * pitch + k] != (k < cols ? e.codes[r * cols + k] : 0);
        }
        EXPECT(!wrong, "%zu x %zu%s: %d codes or scales differ", rows, cols, again ? ", filled" : coded ? ", from codes" : "", wrong);
        if (again) rv_weight_free(be, f.w);
    }
    drop(l);
}

static void codes_become_16_bit_where_that_is_asked_for(std::vector<part> parts, rv_weight_order order) {
    loaded l = load(parts, order, RV_FORMAT_PLAIN, true);
    const expected e = in_order(parts, order);
    std::vector<uint16_t> got = from_device<uint16_t>(l.memory, e.codes.size());
    rv_codes q = {};
    q.format = RV_FORMAT_INT8;
    q.codes = e.codes.data();
    q.scale = e.scale.data();
    std::vector<float> want(e.codes.size());
    rv_codes_read(want.data(), &q, parts[0].cols, 0, (int64_t)want.size());
    int32_t wrong = 0;
    for (size_t i = 0; i < want.size(); i++) wrong += got[i] != (be->act == RV_BF16 ? rv_f32_to_bf16(want[i]) : rv_f32_to_f16(want[i]));
    EXPECT(!wrong, "%zu weights: %d differ", want.size(), wrong);
    drop(l);
}

/* ---- products ---- */

enum kind { QUIET, THREE, MANY, ALL, ODD, UNEVEN, NINE, KINDS };
static const char *const kind_name[] = { "no outliers", "3 outlier columns", "300 outlier columns", "nothing but outliers", "NaN, infinite and zero rows", "few outliers in most rows, many in some", "9 outlier columns" };

static std::vector<uint16_t> make_x(int32_t n, int32_t cols, int64_t ld, kind kind, rv_dtype type) {
    std::vector<uint16_t> x((size_t)(n * ld), pack(NAN, type));
    std::vector<int32_t> columns;
    for (int32_t i = 0; i < (kind == THREE || kind == ODD ? 3 : kind == NINE ? 9 : kind == MANY ? 300 : 0); i++) columns.push_back((int32_t)(random32() % (uint32_t)cols));
    for (int32_t r = 0; r < n; r++) {
        uint16_t *row = &x[(size_t)(r * ld)];
        for (int32_t k = 0; k < cols; k++) {
            float v = random_normal();
            const bool out = kind == ALL || (kind == UNEVEN && random32() % 100 < (r % 9 == 4 ? 70 : r % 9 ? 2 : 0));
            row[k] = pack(out ? copysignf(6.f + fabsf(v), v) : v, type);
        }
        for (int32_t k : columns)
            if (random32() % 4) row[k] = pack((k % 2 ? -7.f : 6.f) * (1 + 20 * fabsf(random_normal())), type);
        if (kind != ODD) continue;
        if (r % 5 == 1) std::fill(row, row + cols, pack(0, type));
        if (r % 5 == 2) row[cols / 2] = pack(NAN, type);
        if (r % 5 == 3) row[cols / 3] = pack(type == RV_BF16 ? 80000.f : INFINITY, type);
        if (r % 5 == 4) row[0] = row[cols - 1] = pack(-6.f, type), row[1] = pack(5.96875f, type);
    }
    return x;
}

struct case_ {
    int32_t n, how;
    enum kind kind;
    bool f32_out, with_bias;
    rv_int8_rules rules;
    int32_t cut;                         /* of many rows: one of rv_cuda_int8_cuts, from 1 on; 0: the backend's choice */
    int32_t multiprocessors;             /* of few rows, or with a cut: tiles are shared out as if there were so many; 0: as many as there are */
    int32_t wide;                        /* of few rows: rv_int8's cut; OLDER: by few8.cu       */
};
enum { OLDER = -1 };

/* Products of rows x W before anything is made of them: y8 and what outliers add. */
struct model { std::vector<double> y8, more, size; std::vector<bool> has; };      /* size: of all that is added */

static model model_of(const case_ &c, const std::vector<uint16_t> &x, int64_t ld, const expected &w, int32_t cols, const std::vector<float> &bias) {
    const rv_dtype act = be->act;
    const size_t rows = w.scale.size();
    const float t = c.rules.threshold;
    model m;
    std::vector<char> call((size_t)cols, 0);
    std::vector<float> weights(w.codes.size());                               /* as outliers meet them */
    for (size_t i = 0; i < weights.size(); i++) {
        const float s = (float)w.codes[i] * w.scale[i / (size_t)cols];
        weights[i] = rounded(s * RV_INT8_ONE, act);
    }
    std::vector<float> values((size_t)cols), cast((size_t)cols);
    std::vector<int8_t> codes((size_t)cols);
    for (int32_t r = 0; r < c.n; r++)
        for (int32_t k = 0; k < cols; k++) call[(size_t)k] |= t != 0 && fabsf(cast16(unpack(x[(size_t)(r * ld + k)], act))) >= t;
    for (int32_t r = 0; r < c.n; r++) {
        std::vector<int32_t> outliers;
        for (int32_t k = 0; k < cols; k++) values[(size_t)k] = unpack(x[(size_t)(r * ld + k)], act), cast[(size_t)k] = cast16(values[(size_t)k]);
        const float sca = rv_int8_activations(codes.data(), cast.data(), cols, t);
        for (int32_t k = 0; k < cols; k++)
            if (c.rules.by_call ? call[(size_t)k] != 0 : t != 0 && fabsf(cast[(size_t)k]) >= t) outliers.push_back(k), codes[(size_t)k] = 0;
        for (size_t o = 0; o < rows; o++) {
            const int8_t *row = &w.codes[o * (size_t)cols];
            int32_t sum = 0;
            double more = 0, size = 0;
            for (int32_t k = 0; k < cols; k++) sum += codes[(size_t)k] * row[k];
            for (int32_t k : outliers) {
                const double term = (double)values[(size_t)k] * (double)weights[o * (size_t)cols + (size_t)k];
                more += term;
                size += fabs(term);
            }
            float scaled = (float)sum * sca;
            scaled *= w.scale[o];
            float y8 = rv_int8_scaled(sum, sca, w.scale[o]);
            if (c.with_bias && act == RV_F16) y8 = fmaf(scaled, RV_INT8_BOTH, bias[o]);
            y8 = rounded(y8, RV_F16);
            if (c.with_bias && act == RV_BF16) y8 = rounded(y8 + bias[o], RV_F16);
            m.y8.push_back(rounded(y8, act));
            m.more.push_back(more);
            m.size.push_back(size);
            m.has.push_back(!outliers.empty());
        }
    }
    return m;
}

static void as_many(std::vector<float> &v, size_t n) {
    for (size_t i = v.size(); i < n; i++) v.push_back(rounded(random_normal(), be->act));
}

/* Runs rows [from, from + n) of x. */
struct operands { uint16_t *x; int64_t ld; float *bias, *row_scale; std::vector<float> start; };
static std::vector<float> run(const case_ &c, const operands &o, const loaded &l, int32_t from, int32_t n, int32_t fused = RV_CUDA_INT8_FUSED) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols, out_cols = c.how == rv_few::RV_FEW_SWIGLU ? rows / 2 : rows;
    const rv_dtype type = c.how == rv_few::RV_FEW_ADD || c.f32_out ? RV_F32 : be->act;
    std::vector<float> start(o.start.begin() + (ptrdiff_t)(from * out_cols), o.start.begin() + (ptrdiff_t)((from + n) * out_cols));
    float *d_start = to_device(start);
    rv_mat x = { o.x + (int64_t)from * o.ld, n, cols, o.ld, be->act }, out = rv_mat_of(d_start, n, out_cols, type);
    const float *bias = c.with_bias ? o.bias : NULL;
    cuda->int8 = c.rules;
    if (n <= RV_FEW_ROWS || c.cut) {
        rv_int8 q = {};
        q.p.x = x, q.p.act = be->act, q.p.multiprocessors = c.multiprocessors ? c.multiprocessors : cuda->multiprocessors, q.p.w = l.w->codes, q.p.rows = rows, q.p.cols = cols, q.p.bias = bias;
        q.p.out = out, q.p.how = (decltype(q.p.how))c.how, q.p.scale = 0.5f, q.p.row_scale = o.row_scale + from;
        q.p.turn = rv_cuda_turn(cuda->partial, cuda->turn++);
        q.w_scale = l.w->scale, q.pitch = l.w->pitch, q.fused = fused, q.rules = c.rules, q.call = x;
        q.room = (char *)cuda->partial + RV_CUDA_COUNTERS * sizeof(int32_t);
        q.marks = (char *)cuda->partial + RV_CUDA_PARTIAL_BYTES;
#if RV_CUDA_SM90
        if (c.cut) q.cut = rv_cuda_int8_cuts[c.cut - 1];
        if (c.cut && !rv_cuda_int8_may_cut(&q, q.cut)) q.cut.split = 1;
        if (c.cut) MUST(rv_cuda_int8_90(&q, cuda->overlap, cuda->stream));
        else
#endif
        {
            q.cut = { c.wide, 1, 1 };
            MUST(c.wide == OLDER ? rv_cuda_few8(&q, cuda->overlap, cuda->stream) : rv_cuda_int8_few(cuda, &q));
        }
    } else if (c.how == rv_few::RV_FEW_ADD) rv_linear_add(be, out, x, l.w, bias, 0.5f, o.row_scale + from);
    else rv_linear(be, out, x, l.w, bias, c.how == rv_few::RV_FEW_GELU ? RV_ACT_GELU : RV_ACT_NONE);
    const size_t all = (size_t)n * (size_t)out_cols;
    std::vector<float> got(all);
    if (type == RV_F32) got = from_device<float>(d_start, all);
    else {
        std::vector<uint16_t> bits = from_device<uint16_t>(d_start, all);
        for (size_t i = 0; i < all; i++) got[i] = unpack(bits[i], type);
    }
    EXPECT(!be->error.code, "%s", be->error.message);
    MUST(cudaFree(d_start));
    return got;
}

static operands operands_of(const case_ &c, std::vector<uint16_t> &x, int32_t n, int32_t cols, int64_t ld, int32_t rows, std::vector<float> &bias, std::vector<float> &row_scale) {
    operands o = {};
    x = make_x(n, cols, ld, c.kind, be->act);
    as_many(bias, (size_t)rows);
    for (int32_t r = 0; r < n; r++) row_scale.push_back(r % 7 == 6 ? 0.f : 1 + 0.25f * (float)(r % 3));
    as_many(o.start, (size_t)n * (size_t)rows);
    o.x = to_device(x);
    o.ld = ld;
    o.bias = to_device(bias);
    o.row_scale = to_device(row_scale);
    return o;
}
static void drop(operands &o) { for (void *p : { (void *)o.x, (void *)o.bias, (void *)o.row_scale }) MUST(cudaFree(p)); }

static bool is_near(double got, double want, double off) { return isnan(want) ? isnan(got) : isinf(want) ? got == want : fabs(got - want) <= off; }
/* The backend's f16 never holds an infinity. */
static double saturated(double x) { return be->act != RV_F16 || isnan(x) ? x : std::min(std::max(x, -65504.), 65504.); }
static double gelu(double x) { return 0.5 * x * (1 + erf(x / sqrt(2.0))); }

static void a_product_is_what_the_rules_say(const case_ &c, loaded &l, const expected &w) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols;
    const rv_dtype act = be->act;
    std::vector<uint16_t> x;
    std::vector<float> bias, row_scale;
    operands o = operands_of(c, x, c.n, cols, cols + (c.n % 2 ? 8 : 3), rows, bias, row_scale);
    const std::vector<float> got = run(c, o, l, 0, c.n);
    const model m = model_of(c, x, o.ld, w, cols, bias);
    const bool pairs = c.how == rv_few::RV_FEW_SWIGLU;
    int32_t wrong = 0;
    double first[3] = {};
    for (int32_t n = 0; n < c.n; n++)
        for (int32_t out = 0; out < (pairs ? rows / 2 : rows); out++) {
            const int32_t row = pairs ? out / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + out % RV_CUDA_GATE_BLOCK : out;
            const size_t at = (size_t)(n * rows + row), to = (size_t)(n * (pairs ? rows / 2 : rows) + out), up = at + RV_CUDA_GATE_BLOCK;
            auto y = [&](size_t i) {
                double v = m.y8[i] + m.more[i];
                if (!m.has[i]) v = m.y8[i];
                return saturated(v);
            };
            auto off = [&](size_t i) {
                if (!m.has[i] || !isfinite(m.more[i])) return 0.;
                return 2 * step_at(std::max(fabs(m.y8[i]), fabs(m.more[i])), act) + FLT_EPSILON * m.size[i];
            };
            double want = y(at), most = off(at);
            if (c.how == rv_few::RV_FEW_GELU) most = 1.2 * most + 3e-7 * fabs(want), want = gelu(want), most += step_at(want, act);
            if (c.how == rv_few::RV_FEW_ADD) {
                const double by = 0.5 * (double)row_scale[(size_t)n], old = o.start[to];
                want = by == 0 ? old : old + by * want;
                most = by * most + 3e-7 * (fabs(old) + fabs(want));
            }
            if (pairs) {
                const double g = want, s = g / (1 + exp(-g));
                want = s * y(up);
                most = 1.2 * most * fabs(y(up)) + fabs(s) * off(up) + 1.2 * most * off(up) + step_at(want, act) + 1e-6 * fabs(want);
            }
            if (c.how != rv_few::RV_FEW_ADD) want = saturated(want);
            if (is_near(got[to], want, most)) continue;
            if (!wrong++) first[0] = got[to], first[1] = want, first[2] = most;
        }
    EXPECT(!wrong, "%d rows x [%d x %d], how %d, %s, threshold %g%s: %d wrong, the first %g, not %g +- %g", c.n, rows, cols, c.how, kind_name[c.kind],
           (double)c.rules.threshold, c.rules.by_call ? " by call" : "", wrong, first[0], first[1], first[2]);
    drop(o);
}

#include "tests/gpu/int8_bits.h"

/* A normed product is rv_cuda_norm and the product, bit for bit. */
static void a_norm_inside_is_the_norm_before(int32_t cols, int32_t n, bool spiked) {
    std::vector<part> parts = { make_part(48, cols, RV_F16) };
    loaded l = load(parts, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
    std::vector<float> x, weight;
    for (int32_t i = 0; i < n * cols; i++) x.push_back((spiked && i % 97 == 5 ? 9 : 2) * random_normal());
    for (int32_t i = 0; i < cols; i++) weight.push_back(1 + 0.3f * random_normal());
    float *d_x = to_device(x), *d_weight = to_device(weight), *out[2];
    void *h;
    MUST(cudaMalloc(&h, (size_t)n * (size_t)cols * 2));
    const rv_norm norm = { d_weight, NULL, 1e-5f, cols };
    MUST(rv_cuda_norm(rv_mat_of(h, n, cols, be->act), rv_mat_of(d_x, n, cols, RV_F32), norm, cuda->overlap, cuda->stream));
    std::vector<float> got[2];
    cuda->int8 = { 1.5f, false };
    for (int i = 0; i < 2; i++) {
        MUST(cudaMalloc(&out[i], (size_t)n * 48 * 4));
        rv_few p = {};
        p.x = i ? rv_mat_of(h, n, cols, be->act) : rv_mat_of(d_x, n, cols, RV_F32);
        p.norm = i ? NULL : d_weight;
        p.eps = 1e-5f, p.act = be->act, p.multiprocessors = cuda->multiprocessors, p.rows = 48, p.cols = cols, p.out = rv_mat_of(out[i], n, 48, RV_F32);
        MUST(rv_cuda_int8_product(cuda, &p, l.w));
        got[i] = from_device<float>(out[i], (size_t)n * 48);
    }
    EXPECT(same(got[0], got[1], 0), "norm of %d rows of %d: other bits inside the product", n, cols);
    for (void *p : { (void *)d_x, (void *)d_weight, h, (void *)out[0], (void *)out[1] }) MUST(cudaFree(p));
    drop(l);
}

/* Gate and up of a normed product, and what becomes of them, are as in three launches, bit for bit. */
static void gate_and_up_meet_inside(int32_t cols, int32_t n, float threshold) {
    const int32_t half = 144;
    std::vector<part> parts = { make_part(half, cols, RV_F16), make_part(half, cols, RV_F16) };
    loaded l = load(parts, RV_ORDER_GATE_UP, RV_FORMAT_INT8, false);
    std::vector<float> x, weight;
    for (int32_t i = 0; i < n * cols; i++) x.push_back((i % cols % 311 == 5 ? 20 : 1) * random_normal());
    for (int32_t i = 0; i < cols; i++) weight.push_back(1 + 0.3f * random_normal());
    float *d_x = to_device(x), *d_weight = to_device(weight);
    uint16_t *room = to_device(std::vector<uint16_t>((size_t)n * (size_t)(cols + 4 * half)));
    const rv_mat from = rv_mat_of(d_x, n, cols, RV_F32), h = rv_mat_of(room, n, cols, be->act), both = rv_mat_of(room + (size_t)n * (size_t)cols, n, 2 * half, be->act),
                 ff[2] = { rv_mat_of(room + (size_t)n * (size_t)(cols + 2 * half), n, half, be->act), rv_mat_of(room + (size_t)n * (size_t)(cols + 3 * half), n, half, be->act) };
    const rv_norm norm = { d_weight, NULL, 1e-5f, cols };
    cuda->int8 = { threshold, false };
    const bool taken = rv_linear_normed(be, ff[0], from, norm, l.w, true);
    EXPECT(taken == (cuda->arch == 90 && RV_CUDA_SM90 && n > RV_FEW_ROWS), "%d rows of %d: taken %d", n, cols, taken);
    if (taken) {
        rv_norm_rows(be, h, from, norm);
        rv_linear(be, both, h, l.w, NULL, RV_ACT_NONE);
        rv_swiglu(be, ff[1], both);
        EXPECT(from_device<uint16_t>(ff[0].data, (size_t)(n * half)) == from_device<uint16_t>(ff[1].data, (size_t)(n * half)), "%d rows of %d, threshold %g: other bits inside",
               n, cols, (double)threshold);
        EXPECT(rv_linear_normed(be, both, from, norm, l.w, false), "%d rows of %d: the norm alone is not taken", n, cols);
        rv_swiglu(be, ff[0], both);
        EXPECT(from_device<uint16_t>(ff[0].data, (size_t)(n * half)) == from_device<uint16_t>(ff[1].data, (size_t)(n * half)), "%d rows of %d, threshold %g: other bits normed inside",
               n, cols, (double)threshold);
    }
    for (void *p : { (void *)d_x, (void *)d_weight, (void *)room }) MUST(cudaFree(p));
    drop(l);
}

/* Section 1.6 of the specification: no tie anywhere, so every implementation agrees. */
static void the_published_example_comes_out() {
    if (be->act != RV_F16) return;
    const float a[3][8] = { { .5f, -1.25f, 3, 7, 0, -2.5f, .125f, 1 }, { 2, .25f, -6, 1.5f, 0, -.5f, 5.996f, -3 }, { 0 } };
    const float w[2][8] = { { .1f, -.2f, .3f, -.45f, .05f, .6f, -.7f, .8f }, { 1, .5f, -.25f, .125f, -1.5f, .7f, .3f, -.9f } };
    const float want[3][2] = { { -2.70703125f, -2.55859375f }, { -9.25f, 7.9140625f }, { 0, 0 } };
    part p = { 2, 8, RV_F16, {}, {}, {}, {} };
    std::vector<uint16_t> x;
    for (auto &row : w)
        for (float v : row) {
            uint16_t bits = pack(v, RV_F16);
            p.data.insert(p.data.end(), (uint8_t *)&bits, (uint8_t *)&bits + 2);
        }
    for (auto &row : a)
        for (float v : row) x.push_back(pack(v, RV_F16));
    p.codes.resize(16), p.scale.resize(2);
    std::vector<part> parts = { p };
    loaded l = load(parts, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
    operands o = {};
    o.x = to_device(x), o.ld = 8, o.start.resize(6), o.row_scale = to_device(std::vector<float>(3, 1.f)), o.bias = to_device(std::vector<float>(2, 0.f));
    const case_ c = { 3, rv_few::RV_FEW_STORE, QUIET, false, false, { 6, true } };
    const std::vector<float> got = run(c, o, l, 0, 3);
    for (int i = 0; i < 6; i++)
        EXPECT(fabs(got[(size_t)i] - want[i / 2][i % 2]) <= step_at(want[i / 2][i % 2], RV_F16), "row %d, output %d: %g, not %g", i / 2, i % 2, (double)got[(size_t)i],
               (double)want[i / 2][i % 2]);
    drop(o);
    drop(l);
}

#include "tests/gpu/int8_goldens.h"

/* ---- all of it ---- */

static void check_weights(bool small) {
    if (small) return weights_become_what_the_rules_say({ make_part(131, 264, RV_F16), make_part(40, 264, RV_BF16) }, RV_ORDER_STACKED, false);
    for (rv_dtype type : { RV_F32, RV_F16, RV_BF16 })
        for (int32_t cols : { 4096, 264, 24, 7 }) {
            weights_become_what_the_rules_say({ make_part(131, cols, type), make_part(40, cols, RV_BF16), make_part(9, cols, type) }, RV_ORDER_STACKED, false);
            weights_become_what_the_rules_say({ make_part(64, cols, type), make_part(64, cols, type) }, RV_ORDER_GATE_UP, false);
        }
    weights_become_what_the_rules_say({ make_part(2100, 4096, RV_BF16), make_part(1048, 4096, RV_F16) }, RV_ORDER_STACKED, false);
    for (int32_t cols : { 4096, 264, 40 }) {
        weights_become_what_the_rules_say({ make_part(67, cols, RV_F16), make_part(1000, cols, RV_F16) }, RV_ORDER_STACKED, true);
        weights_become_what_the_rules_say({ make_part(128, cols, RV_F16), make_part(128, cols, RV_F16) }, RV_ORDER_GATE_UP, true);
        codes_become_16_bit_where_that_is_asked_for({ make_part(60, cols, RV_F16), make_part(999, cols, RV_F16) }, RV_ORDER_STACKED);
        codes_become_16_bit_where_that_is_asked_for({ make_part(64, cols, RV_F16), make_part(64, cols, RV_F16) }, RV_ORDER_GATE_UP);
    }
}

/* Integer sums have no order, and outliers are added in one that does not depend on the other rows, nor on how the product is cut: lists in ascending order,
 * as columns beside a tile are; those of a row of very many by tensor cores, if it is alone too. */
static void a_row_is_the_same_among_many(kind kind, loaded &l) {
    const int32_t rows = l.w->head.rows, cols = l.w->head.cols;
    for (int32_t how : { rv_few::RV_FEW_STORE, rv_few::RV_FEW_ADD })
        for (bool f32 : { false, true }) {
            case_ c = { 300, how, kind, f32, how == rv_few::RV_FEW_STORE, { 6, false } };
            std::vector<uint16_t> x;
            std::vector<float> bias, row_scale, first;
            operands o = operands_of(c, x, 300, cols, cols, rows, bias, row_scale);
            for (c.cut = 1; c.cut <= RV_CUDA_INT8_CUTS; c.cut++) {
                const std::vector<float> many = run(c, o, l, 0, 300);
                if (c.cut == 1) first = many;
                EXPECT(same(first, many, 0), "%d x %d, how %d, %s, cut %d: other bits than with the first", rows, cols, how, kind_name[kind], c.cut);
                for (int32_t from : { 0, 4, 8, 211 })
                    for (int32_t n : { 1, 2, 80 })
                        EXPECT(same(run(c, o, l, from, n), many, (size_t)from * (size_t)rows), "%d x %d, how %d, %s, cut %d: other bits among many rows than %d from %d", rows, cols, how,
                               kind_name[kind], c.cut, n, from);
            }
            drop(o);
        }
}

/* Every cut, of shapes that fill none of its tiles and several of them; with more outlier columns than can be gathered too. */
static void check_cuts(bool small) {
    const int32_t store = rv_few::RV_FEW_STORE, gelu = rv_few::RV_FEW_GELU, add = rv_few::RV_FEW_ADD;
    const int32_t shapes[][2] = { { 136, 144 }, { 264, 1040 }, { 2048, 40 } };
    for (auto &s : shapes) {
        if (small && s[0] != 136) continue;
        std::vector<part> parts = { make_part(s[0], s[1], RV_F16) };
        loaded l = load(parts, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
        const expected w = in_order(parts, RV_ORDER_STACKED);
        for (int32_t cut = 1; cut <= RV_CUDA_INT8_CUTS; cut++)
            for (int32_t k = 0; k < KINDS; k++) {
                if (s[0] != 2048 && cut == 1 && !small) a_row_is_the_same_among_many((kind)k, l);
                if (cut > 2 && k != cut % KINDS) continue;
                a_product_is_what_the_rules_say({ s[0] == 2048 ? 777 : 65, store, (kind)k, k == THREE, k == ODD, { 6, k == MANY }, cut }, l, w);
                a_product_is_what_the_rules_say({ 130, add, (kind)k, false, k % 2 == 0, { 6, false }, cut }, l, w);
                a_product_is_what_the_rules_say({ 71, gelu, (kind)k, false, true, { k == QUIET ? 0.f : 2.5f, false }, cut }, l, w);
                if (s[0] == 264) a_product_is_what_the_rules_say({ 130, k % 2 ? add : store, (kind)k, false, false, { 6, false }, cut, 2 }, l, w);      /* a second tile, too */
            }
        drop(l);
    }
}

static void check_many(bool small) {
    for (float threshold : { 0.f, 6.f, 1.5f })
        for (int32_t n : { 8, 70, 300 }) gate_and_up_meet_inside(n == 300 ? 4096 : 528, n, threshold);
    if (cuda->arch == 90 && RV_CUDA_SM90) check_cuts(small);
}

static void check_products(bool small) {
    const int32_t store = rv_few::RV_FEW_STORE, gelu = rv_few::RV_FEW_GELU, swiglu = rv_few::RV_FEW_SWIGLU, add = rv_few::RV_FEW_ADD;
    const int32_t shapes[][2] = { { 80, 1024 }, { 50, 264 }, { 4, 4112 }, { 17, 20 }, { 48, 40 }, { 56, 264 } };
    for (auto &s : shapes) {
        std::vector<part> parts = { make_part(s[0], s[1], RV_F16) };
        loaded l = load(parts, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
        const expected w = in_order(parts, RV_ORDER_STACKED);
        for (int32_t n : { 1, 2, 3, 9, 30, 64, 65, 200 })
            for (int32_t k = 0; k < KINDS; k++) {
                if (k == UNEVEN) continue;
                if (small && n != 1 && n != 3 && (n != 200 || s[0] != 50)) continue;
                a_product_is_what_the_rules_say({ n, store, (kind)k, n % 2 == 0, false, { 6, false } }, l, w);
                a_product_is_what_the_rules_say({ n, add, (kind)k, false, k % 2 == 0, { 6, false } }, l, w);
                if (s[0] > 56 || s[0] < 17) continue;
                a_product_is_what_the_rules_say({ n, store, (kind)k, false, true, { 6, true } }, l, w);
                a_product_is_what_the_rules_say({ n, gelu, (kind)k, false, true, { 2.5f, false } }, l, w);
                a_product_is_what_the_rules_say({ n, store, (kind)k, true, false, { 0, k % 2 == 0 } }, l, w);
            }
        drop(l);
    }
    check_many(small);
    std::vector<part> parts = { make_part(160, 528, RV_F16), make_part(160, 528, RV_F16) };
    loaded l = load(parts, RV_ORDER_GATE_UP, RV_FORMAT_INT8, false);
    for (int32_t n : { 1, 2, 7, 64 })
        for (int32_t k = 0; k < ALL; k++) a_product_is_what_the_rules_say({ n, swiglu, (kind)k, false, false, { 6, false } }, l, in_order(parts, RV_ORDER_GATE_UP));
    for (int32_t cut = 1; cut <= RV_CUDA_INT8_CUTS && cuda->arch == 90 && RV_CUDA_SM90 && !small; cut++)
        for (int32_t k : { QUIET, THREE, MANY, UNEVEN, NINE })
            for (int32_t multiprocessors : { 0, 2 }) a_product_is_what_the_rules_say({ 130, swiglu, (kind)k, false, false, { 6, false }, cut, multiprocessors }, l, in_order(parts, RV_ORDER_GATE_UP));
    for (int32_t n : { 1, 2, 3, 7, 8 })
        for (int32_t k : { QUIET, THREE, MANY, NINE })
            for (bool by_call : { false, true }) a_product_is_what_the_rules_say({ n, swiglu, (kind)k, false, false, { 6, by_call }, 0, 2 }, l, in_order(parts, RV_ORDER_GATE_UP));
    drop(l);
    for (int32_t cols : { 264, 1032, 4096, 8192 })
        for (int32_t n : { 1, 2, 5, 64, 101 })
            if (n <= RV_FEW_ROWS || cols % 16 == 0) a_norm_inside_is_the_norm_before(cols, n, n % 2);        /* else the norm is a launch of its own */
    if (small) return;
    const int32_t hoppers[][2] = { { 464, 1040 }, { 144, 4096 }, { 240, 200 } };         /* odd numbers of lines, fewer than the ring has stages */
    for (auto &s : hoppers) {
        if (cuda->arch != 90 || !RV_CUDA_SM90) break;
        std::vector<part> one = { make_part(s[0], s[1], RV_F16) };
        loaded k = load(one, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
        for (int32_t kind = 0; kind < KINDS; kind++)
            for (int32_t how : { store, add, swiglu }) hopper_has_the_same_bits(how, (enum kind)kind, kind == NINE && how == add ? 0.f : 6.f, k);
        drop(k);
    }
    const int32_t more[][2] = { { 8640, 1024 }, { 208, 14336 }, { 4320, 4096 }, { 144, 1000 } };
    for (auto &s : more) {
        std::vector<part> one = { make_part(s[0], s[1], RV_F16) };
        loaded k = load(one, RV_ORDER_STACKED, RV_FORMAT_INT8, false);
        for (int32_t how : { store, gelu, add, swiglu }) a_row_does_not_depend_on_its_neighbours(how, how == gelu ? QUIET : how == add ? MANY : how == swiglu ? NINE : THREE, k);
        drop(k);
    }
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    const bool small = argc > 1 && !strcmp(argv[1], "small"), volta = argc > 1 && !strcmp(argv[1], "sm70"), many_alone = argc > 1 && !strcmp(argv[1], "many");
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    for (rv_dtype type : { RV_BF16, RV_F16 })
        for (int32_t arch : { 70, 80, 0 }) {
            if (argc > 4 && (strcmp(argv[3], type == RV_BF16 ? "bf16" : "f16") || (atoi(argv[4]) == 80) != (arch == 80))) continue;
            rv_cuda_options options = {};
            rv_error err = {};
            options.act = type;
            options.arch = arch;
            options.int8.threshold = 6;
            if (arch == 70 ? type != RV_F16 : volta || (small && (arch == 80 || type == RV_F16))) continue;
            if (rv_cuda_open(&options, &be, &err)) return printf("FAILED: %s\n", err.message), 1;
            cuda = (rv_cuda *)be;
            if (many_alone && (arch || cuda->arch != 90 || !RV_CUDA_SM90)) {
                rv_backend_close(be);
                continue;
            }
            if (arch == 0 && !many_alone) check_weights(small);
            if (many_alone) check_many(small);
            else check_products(small || arch == 80);
            the_published_example_comes_out();
            if (argc > 2) check_goldens(argv[2]);
            EXPECT(!be->error.code, "%s", be->error.message);
            rv_backend_close(be);
        }
    printf(failures ? "%d checks failed\n" : "all int8 weights and products are right\n", failures);
    return failures != 0;
}
