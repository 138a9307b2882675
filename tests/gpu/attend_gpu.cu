/* attend_gpu.cu - the attention kernels on a GPU: against f64, against each other, bit for bit, and timed.
 *
 * The one idea: a case is a random call (heads, ranges, pages, slots, biases) whose inputs are
 * column views of wider matrices, whose unused cache rows are NaN and whose output is NaN before the call.
 * The error against f64 may be at most twice that of the plain kernel in the same types.
 *
 *     attend_gpu            checks, then times
 *     attend_gpu check      only checks        (exit code 1: something failed; 77: no GPU)
 *     attend_gpu small      a few of them, for compute-sanitizer
 *     attend_gpu sm70       those of V100's kernels
 *     attend_gpu time       only times
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "tests/gpu/gpu.h"

static int failures = 0, arch = 0, multiprocessors = 0;
static bool small = false, only70 = false;

/* ---- random numbers and 16-bit types on the host ---- */

static int random_below(int n) { return (int)(random32() % (uint32_t)n); }
static float random_normal() {               /* a sum of 4 uniform numbers, variance 1         */
    float s = 0;
    for (int i = 0; i < 4; i++) s += (float)(random32() >> 8) / 16777216.f - 0.5f;
    return s * 1.7320508f;
}
static double unpack(uint16_t bits, rv_dtype type) {
    if (type == RV_F16) {
        __half h;
        memcpy(&h, &bits, 2);
        return (double)__half2float(h);
    }
    __nv_bfloat16 b;
    memcpy(&b, &bits, 2);
    return (double)__bfloat162float(b);
}

template <typename V> static V *device_or_null(const std::vector<V> &x) { return x.empty() ? nullptr : to_device(x); }

/* ---- a case ---- */

enum range { ALL, CAUSAL, RANDOM };
struct spec {
    int head_dim, heads, kv_heads, rows, keys;
    range ranges;
    int page_rows, slots;                    /* page_rows 0: contiguous                        */
    int bias;                                /* 0: none; 1: half of all keys, n: every nth     */
    bool mixed;                              /* every row of another slot than the last        */
    rv_dtype type;
    float climb;                             /* scores rise by about climb * sqrt(head_dim) over the keys, and fall for odd rows */
};

struct call {
    spec c;
    rv_attention a;
    std::vector<uint16_t> q, k, v;
    std::vector<int32_t> first, last, slot, pages, pos;
    std::vector<float> bias;
    int q_ld, kv_ld;
    void *d_q, *d_kv, *d_out;
    size_t out_bytes;
    std::vector<void *> owned;
};

static int row_of(const call &t, int slot, int key) {
    if (!t.c.page_rows) return key;
    int per = (int)t.pages.size() / t.c.slots;
    return t.pages[(size_t)(slot * per + key / t.c.page_rows)] * t.c.page_rows + key % t.c.page_rows;
}

static void make_ranges(call &t) {
    const spec &c = t.c;
    for (int r = 0; r < c.rows; r++) {
        int first = 0, last = c.keys - 1, slot = 0;
        if (c.slots > 1) slot = c.mixed ? r % c.slots : r * c.slots / c.rows;
        if (c.ranges == CAUSAL) last = c.keys - c.rows + r;
        if (c.ranges == RANDOM) {
            first = random_below(c.keys);
            last = first + random_below(c.keys - first);
            if (random_below(3) == 0) first = 0;
            if (random_below(6) == 0) last = first - 1;
        }
        t.first.push_back(first);
        t.last.push_back(last);
        t.slot.push_back(slot);
    }
}

/* Pages in a random order; rows that no page holds, and keys beyond the last, are NaN. */
static void make_cache(call &t) {
    const spec &c = t.c;
    int per = c.page_rows ? (c.keys - 1) / c.page_rows + 1 : 0, total = c.page_rows ? (per * c.slots + 3) * c.page_rows : c.keys + 70;
    for (int i = 0; i < per * c.slots + 3 && c.page_rows; i++) t.pages.push_back(i);
    for (int i = (int)t.pages.size() - 1; i > 0; i--) std::swap(t.pages[(size_t)i], t.pages[(size_t)random_below(i + 1)]);
    if (c.page_rows) t.pages.resize((size_t)(per * c.slots));
    int width = c.kv_heads * c.head_dim;
    t.kv_ld = 2 * width + 8;
    t.k.assign((size_t)total * (size_t)t.kv_ld, 0xffff);
    t.v.assign(8, 0);
    for (int s = 0; s < c.slots; s++)
        for (int i = 0; i < c.keys; i++) {
            size_t at = (size_t)row_of(t, s, i) * (size_t)t.kv_ld;
            for (int j = 0; j < 2 * width; j++)
                t.k[at + (size_t)j] = pack(random_normal() + (j < width ? c.climb * (float)i / (float)c.keys : 0.f), c.type);
        }
    for (int i = 0; i < total && c.bias; i++)
        t.bias.push_back((c.bias == 1 ? random_below(2) : i % c.bias != c.bias - 1) ? 0.f : 3.f * random_normal());
}

static call make(const spec &c) {
    call t;
    t.c = c;
    make_ranges(t);
    make_cache(t);
    int width = c.heads * c.head_dim;
    t.q_ld = width + 16;
    for (size_t i = 0; i < (size_t)c.rows * (size_t)t.q_ld; i++) {
        float lean = c.climb == 0 ? 0.f : i / (size_t)t.q_ld % 2 ? -1.f : 1.f;
        t.q.push_back(pack(lean + (c.climb == 0 ? 1.5f : 0.5f) * random_normal(), c.type));
    }
    t.out_bytes = (size_t)c.rows * (size_t)t.q_ld * 2;
    t.d_q = device_or_null(t.q);
    t.d_kv = device_or_null(t.k);
    MUST(cudaMalloc(&t.d_out, t.out_bytes));
    memset(&t.a, 0, sizeof t.a);
    int total = (int)(t.k.size() / (size_t)t.kv_ld);
    t.a.q = rv_mat{ (char *)t.d_q + 32, c.rows, width, t.q_ld, c.type };
    t.a.q.data = (char *)t.d_q + 16;
    t.a.out = rv_mat{ (char *)t.d_out + 16, c.rows, width, t.q_ld, c.type };
    t.a.kv.k = rv_mat{ t.d_kv, total, c.kv_heads * c.head_dim, t.kv_ld, c.type };
    t.a.kv.v = rv_mat{ (char *)t.d_kv + 2 * c.kv_heads * c.head_dim, total, c.kv_heads * c.head_dim, t.kv_ld, c.type };
    t.a.kv.pages = device_or_null(t.pages);
    t.a.kv.page_rows = c.page_rows;
    t.a.kv.max_pages = c.page_rows ? (int)t.pages.size() / c.slots : 0;
    t.a.kv.bias = device_or_null(t.bias);
    t.a.slot = c.slots > 1 ? device_or_null(t.slot) : nullptr;
    t.a.first = c.ranges == RANDOM ? device_or_null(t.first) : nullptr;
    t.a.last = device_or_null(t.last);
    t.a.heads = c.heads;
    t.a.kv_heads = c.kv_heads;
    t.a.longest = c.keys;
    t.a.scale = 1.f / sqrtf((float)c.head_dim);
    t.owned = { t.d_q, t.d_kv, t.d_out, (void *)t.a.kv.pages, (void *)t.a.kv.bias, (void *)t.a.slot, (void *)t.a.first, (void *)t.a.last };
    return t;
}

static void drop(call &t) {
    for (void *p : t.owned) MUST(cudaFree(p));
}

/* ---- the reference: f64, one row and head ---- */

static void reference(const call &t, int r, int h, std::vector<double> &out) {
    const spec &c = t.c;
    int d = c.head_dim, kv = h / (c.heads / c.kv_heads) * d, slot = t.slot[(size_t)r];
    const uint16_t *q = &t.q[(size_t)r * (size_t)t.q_ld + 8 + (size_t)(h * d)];
    std::vector<double> s;
    double top = -INFINITY, sum = 0;
    out.assign((size_t)d, 0);
    for (int i = t.first[(size_t)r]; i <= t.last[(size_t)r]; i++) {
        int row = row_of(t, slot, i);
        const uint16_t *k = &t.k[(size_t)row * (size_t)t.kv_ld + (size_t)kv];
        double x = 0;
        for (int j = 0; j < d; j++) x += unpack(q[j], c.type) * unpack(k[j], c.type);
        x = x * (double)t.a.scale + (c.bias ? (double)t.bias[(size_t)row] : 0);
        s.push_back(x);
        top = std::max(top, x);
    }
    for (size_t i = 0; i < s.size(); i++) {
        const uint16_t *v = &t.k[(size_t)row_of(t, slot, t.first[(size_t)r] + (int)i) * (size_t)t.kv_ld + (size_t)(c.kv_heads * d + kv)];
        double p = exp(s[i] - top);
        sum += p;
        for (int j = 0; j < d; j++) out[(size_t)j] += p * unpack(v[j], c.type);
    }
    for (int j = 0; j < d && sum > 0; j++) out[(size_t)j] /= sum;
}

/* ---- checks ---- */

typedef std::vector<uint16_t> bits;

static bits result(const call &t) {
    bits out(t.out_bytes / 2);
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemcpy(out.data(), t.d_out, t.out_bytes, cudaMemcpyDeviceToHost));
    return out;
}
static void poison(const call &t) { MUST(set(t.d_out, 0xff, t.out_bytes)); }

struct sample { int r, h; std::vector<double> ref; };

/* Some rows and heads, or all, with their results in f64. */
static std::vector<sample> sampled(const call &t, int samples) {
    const spec &c = t.c;
    bool every = (long)c.rows * c.heads <= samples;
    std::vector<sample> all((size_t)(every ? c.rows * c.heads : samples));
    for (int i = 0; i < (int)all.size(); i++) {
        sample &x = all[(size_t)i];
        x.r = every ? i / c.heads : i == 0 ? c.rows - 1 : random_below(c.rows);
        x.h = every ? i % c.heads : random_below(c.heads);
        reference(t, x.r, x.h, x.ref);
    }
    return all;
}

/* ||out - ref|| / ||ref|| over the samples; NaN or a nonzero empty row: infinity. */
static double error_of(const call &t, const bits &out, const std::vector<sample> &samples) {
    const spec &c = t.c;
    double diff = 0, norm = 0;
    for (const sample &s : samples)
        for (int j = 0; j < c.head_dim; j++) {
            double x = unpack(out[(size_t)s.r * (size_t)t.q_ld + 8 + (size_t)(s.h * c.head_dim + j)], c.type), y = s.ref[(size_t)j];
            if (!(fabs(x) < 1e9) || (t.last[(size_t)s.r] < t.first[(size_t)s.r] && x != 0)) return INFINITY;
            diff += (x - y) * (x - y);
            norm += y * y;
        }
    return norm > 0 ? sqrt(diff / norm) : sqrt(diff);
}

/* Every element was written and close to the plain kernel's; nothing beside the view was. */
static bool close_to(const call &t, const bits &a, const bits &b) {
    double limit = t.c.type == RV_F16 ? 0.01 : 0.06;
    int width = t.c.heads * t.c.head_dim;
    for (size_t i = 0; i < a.size(); i++) {
        int column = (int)(i % (size_t)t.q_ld) - 8;
        if (column < 0 || column >= width) {
            if (a[i] != 0xffff) return false;
        } else if (!(fabs(unpack(a[i], t.c.type) - unpack(b[i], t.c.type)) < limit)) {
            return false;
        }
    }
    return true;
}

static void describe(const spec &c) {
    static const char *const names[] = { "all", "causal", "random" };
    printf("%-4s d%-3d %2d/%-2d rows %-4d keys %-4d %-6s page %-4d slots %d%s%s", c.type == RV_F16 ? "f16" : "bf16", c.head_dim, c.heads,
           c.kv_heads, c.rows, c.keys, names[c.ranges], c.page_rows, c.slots, c.mixed ? " mixed" : "", c.bias ? " bias" : "");
    if (c.bias > 1) printf(" every %d", c.bias);
    if (c.climb != 0) printf(" climb %g", (double)c.climb);
}

static void judge(bool ok, const char *what) {
    if (ok) return;
    failures++;
    printf("FAILED: %s\n", what);
}

static void *partial = nullptr;
static const uint64_t PARTIAL_BYTES = 64ull << 20;

/* A many-row kernel of a set, for so many multiprocessors (what it cuts along the keys follows from them); or decode. */
enum { DECODE = 0, DECODE70 = 1 };
struct kernel { const char *name; int arch, multiprocessors; };

static std::vector<kernel> kernels() {
    std::vector<kernel> k;
    if (!only70) k = { { "flash80", 80, multiprocessors }, { "of 5", 80, 5 }, { "of 997", 80, 997 } };
    if (!only70 && arch > 80) k.insert(k.end(), { { "flash90", arch, multiprocessors }, { "of 5", arch, 5 }, { "of 997", arch, 997 } });
    if (!only70) k.push_back({ "decode", DECODE, 0 });
    k.insert(k.end(), { { "flash70", 70, multiprocessors }, { "of 5", 70, 5 }, { "of 997", 70, 997 }, { "decode70", DECODE70, 0 } });
    return k;
}
/* Volta's know f16 alone; decode few rows. */
static bool takes(const kernel &k, const spec &c) {
    const bool decode = k.arch == DECODE || k.arch == DECODE70, volta = k.arch == 70 || k.arch == DECODE70;
    return (!decode || c.rows <= RV_FEW_ROWS) && (!volta || c.type == RV_F16);
}

static cudaError_t run(const call &t, const kernel &k) {
    if (k.arch == DECODE) return rv_cuda_decode(&t.a, partial, RV_CUDA_APART, 0);
    if (k.arch == DECODE70) return rv_cuda_decode70(&t.a, partial, RV_CUDA_APART, 0);
    if (k.arch == 70) return rv_cuda_flash70(&t.a, partial, k.multiprocessors, 0);
    return rv_cuda_flash(&t.a, partial, k.multiprocessors, k.arch, 0);
}

static void check(const spec &c) {
    call t = make(c);
    poison(t);
    MUST(rv_cuda_attend_plain(&t.a, 0));
    bits plain = result(t);
    std::vector<sample> samples = sampled(t, 60);
    double e_plain = error_of(t, plain, samples), limit = c.type == RV_F16 ? 2e-3 : 1.2e-2;
    describe(c);
    printf("  plain %.2e", e_plain);
    bool ok = e_plain < limit;
    for (const kernel &k : kernels()) {
        if (!takes(k, c)) continue;
        /* A lane arrives at a barrier for the biases that its warp has left, behind __syncwarp: racecheck does not follow that. */
        if (small && k.arch >= 90 && c.bias) continue;
        poison(t);
        MUST(run(t, k));
        bits out = result(t);
        double e = error_of(t, out, samples);
        bool good = e <= 2 * e_plain + 1e-6 && close_to(t, out, plain);
        printf("  %s %.2e%s", k.name, e, good ? "" : " WRONG");
        poison(t);
        MUST(run(t, k));
        if (result(t) != out) {
            printf(" UNSTEADY");
            good = false;
        }
        ok = ok && good;
    }
    printf("\n");
    judge(ok, "error against f64, the same bits twice");
    drop(t);
}

/* Rows keep their bits when every second row comes to maxima of its own, tile after tile. */
static void check_neighbours(const spec &c) {
    call t = make(c);
    std::vector<uint16_t> other = t.q;
    for (size_t i = 0; i < other.size(); i++)
        if (i / (size_t)t.q_ld % 2) other[i] = pack(40.f + random_normal(), c.type);
    void *given = t.a.q.data, *d_other = device_or_null(other);
    for (const kernel &k : kernels()) {
        if (k.arch == DECODE || !takes(k, c)) continue;
        poison(t);
        MUST(run(t, k));
        bits alone = result(t);
        t.a.q.data = (char *)d_other + 16;
        poison(t);
        MUST(run(t, k));
        t.a.q.data = given;
        bits beside = result(t);
        bool same = true, changed = false;
        for (size_t i = 0; i < alone.size(); i++)
            if (i / (size_t)t.q_ld % 2) changed = changed || alone[i] != beside[i];
            else same = same && alone[i] == beside[i];
        describe(c);
        printf("  %s: rows beside others %s\n", k.name, same ? "same" : "DIFFERENT");
        judge(same && changed, "a row's bits do not depend on its neighbours");
    }
    MUST(cudaFree(d_other));
    drop(t);
}

/* What attention leaves in `partial` for the next call: zeroed counters, as decode.cu wants them. */
static void check_counters() {
    std::vector<int32_t> counters(1 << 14);
    MUST(cudaDeviceSynchronize());
    MUST(cudaMemcpy(counters.data(), partial, counters.size() * 4, cudaMemcpyDeviceToHost));
    judge(std::count(counters.begin(), counters.end(), 0) == (long)counters.size(), "counters are left zeroed");
}

/* A row's bits do not depend on how many rows the call has, nor on `longest`. */
static void check_decode_bits(const spec &c, bool volta = false) {
    const auto decode = volta ? rv_cuda_decode70 : rv_cuda_decode;
    call t = make(c);
    static const int counts[] = { 1, 2, 7, 16, 33 };
    poison(t);
    MUST(decode(&t.a, partial, RV_CUDA_APART, 0));
    bits all = result(t);
    bool ok = true;
    for (int n : counts) {
        poison(t);
        for (int from = 0; from < c.rows; from += n) {
            rv_attention a = t.a;
            int rows = std::min(n, c.rows - from);
            a.q = rv_rows(a.q, from, rows);
            a.out = rv_rows(a.out, from, rows);
            if (a.slot) a.slot += from;
            if (a.first) a.first += from;
            a.last += from;
            a.longest += n * 700;
            MUST(decode(&a, partial, RV_CUDA_APART, 0));
        }
        if (result(t) != all) ok = false;
    }
    describe(c);
    printf("  bits at 1, 2, 7, 16, 33 rows: %s\n", ok ? "same" : "DIFFERENT");
    judge(ok, "decode bits");
    drop(t);
}

/* decode_rope = rope, kv_store, decode: output and cache, bit for bit. */
static void check_fused(spec c, bool volta = false) {
    const auto decode = volta ? rv_cuda_decode70 : rv_cuda_decode;
    const auto decode_rope = volta ? rv_cuda_decode_rope70 : rv_cuda_decode_rope;
    c.ranges = ALL;
    c.slots = c.rows;
    c.mixed = true;
    call t = make(c);
    int d = c.head_dim, width = (c.heads + 2 * c.kv_heads) * d;
    std::vector<uint16_t> qkv;
    std::vector<float> cos_sin;
    std::vector<int32_t> pos, last;
    for (int r = 0; r < c.rows; r++) {
        pos.push_back(r % 9 == 8 ? -1 : random_below(c.keys));
        last.push_back(pos.back());
        for (int i = 0; i < width; i++) qkv.push_back(pack(random_normal(), c.type));
    }
    for (int p = 0; p < c.keys; p++)
        for (int j = 0; j < d; j++) {
            double x = p * pow(500000.0, -2.0 * (j % (d / 2)) / d);
            cos_sin.push_back((float)(j < d / 2 ? cos(x) : sin(x)));
        }
    void *d_qkv = device_or_null(qkv);
    float *d_cs = device_or_null(cos_sin);
    int32_t *d_pos = device_or_null(pos), *d_last = device_or_null(last);
    rv_mat all = rv_mat_of(d_qkv, c.rows, width, c.type);
    rv_mat q = rv_cols(all, 0, c.heads * d), k = rv_cols(all, c.heads * d, c.kv_heads * d),
           v = rv_cols(all, (c.heads + c.kv_heads) * d, c.kv_heads * d);
    rv_attention a = t.a;
    a.q = q;
    a.last = d_last;
    bits out[2], cache[2];
    for (int pass = 0; pass < 3; pass++) {
        MUST(put(d_qkv, qkv.data(), qkv.size() * 2));
        MUST(put(t.d_kv, t.k.data(), t.k.size() * 2));
        poison(t);
        if (pass == 0) {
            MUST(rv_cuda_rope(q, d_cs, d_pos, d, 0));
            MUST(rv_cuda_rope(k, d_cs, d_pos, d, 0));
            MUST(rv_cuda_kv_store(a.kv, k, v, a.slot, d_pos, 0));
            MUST(decode(&a, partial, RV_CUDA_APART, 0));
        } else {
            MUST(decode_rope(&a, k, v, d_cs, d_pos, partial, pass == 2 && arch >= 90 && !volta ? RV_CUDA_EARLY : RV_CUDA_APART, 0));
        }
        bits o = result(t), kv(t.k.size());
        MUST(cudaMemcpy(kv.data(), t.d_kv, kv.size() * 2, cudaMemcpyDeviceToHost));
        if (pass == 0) {
            out[0] = o;
            cache[0] = kv;
            continue;
        }
        describe(c);
        printf("  decode_rope: output %s, cache %s\n", o == out[0] ? "same" : "DIFFERENT", kv == cache[0] ? "same" : "DIFFERENT");
        judge(o == out[0] && kv == cache[0], "decode_rope bits");
    }
    drop(t);
    for (void *p : { d_qkv, (void *)d_cs, (void *)d_pos, (void *)d_last }) MUST(cudaFree(p));
}

/* Each kernel at least once: plain, whole, cut along the keys, few rows, fused. */
static void check_small() {
    check({ 80, 1, 1, 70, 650, ALL, 0, 1, false, false, RV_BF16 });
    check({ 80, 2, 2, 130, 333, RANDOM, 0, 1, true, false, RV_BF16 });
    check({ 64, 1, 1, 66, 260, CAUSAL, 64, 1, false, false, RV_BF16 });
    check({ 128, 2, 1, 65, 300, RANDOM, 64, 3, true, true, RV_F16 });
    check({ 128, 2, 1, 3, 600, RANDOM, 64, 2, false, false, RV_BF16 });
    check({ 16, 2, 1, 3, 40, RANDOM, 16, 2, true, true, RV_BF16 });
    check_fused({ 128, 4, 1, 3, 600, ALL, 64, 1, false, false, RV_BF16 });
    for (bool volta : { false, true }) check_fused({ 64, 2, 1, 2, 300, ALL, 64, 1, true, false, RV_F16 }, volta);
}

static void check_all() {
    const rv_dtype types[] = { RV_BF16, RV_F16 };
    for (rv_dtype y : types) {
        check({ 80, 16, 16, 500, 500, ALL, 0, 1, true, false, y });
        check({ 80, 4, 4, 321, 1283, ALL, 0, 1, false, false, y });
        check({ 80, 4, 2, 130, 777, RANDOM, 0, 1, true, false, y });
        check({ 64, 8, 2, 200, 333, CAUSAL, 64, 1, false, false, y });
        check({ 64, 4, 4, 129, 515, RANDOM, 64, 3, true, true, y });
        check({ 128, 8, 2, 200, 700, CAUSAL, 64, 2, false, false, y });
        check({ 128, 4, 1, 77, 3300, ALL, 1601, 2, true, false, y });
        check({ 128, 4, 4, 300, 300, RANDOM, 0, 1, true, false, y });
        check({ 128, 8, 4, 65, 1, ALL, 64, 1, false, false, y });
        check({ 80, 2, 2, 1, 1, ALL, 0, 1, false, false, y });
        check({ 4, 4, 2, 100, 50, RANDOM, 64, 2, true, true, y });
        check({ 16, 4, 4, 3, 300, ALL, 0, 1, false, false, y });
        check({ 128, 32, 8, 7, 6404, ALL, 1601, 7, false, true, y });
        check({ 128, 32, 8, 16, 1500, RANDOM, 64, 16, true, true, y });
        check({ 128, 16, 1, 5, 1100, RANDOM, 64, 2, false, false, y });
        check({ 64, 8, 8, 33, 700, CAUSAL, 64, 1, true, false, y });
        check({ 64, 8, 4, 64, 513, RANDOM, 0, 1, true, false, y });
        /* Around where splits of decode's change their length; keys that follow one another in pages of no whole tiles, and that do not. */
        for (int keys : { 4096, 4097, 8192, 8193 }) check({ 64, 4, 2, 2, keys, ALL, keys % 2 ? 64 : 48, 1, 3 * (keys % 2), false, y });
        check({ 128, 16, 4, 9, 6404, RANDOM, 1601, 3, true, true, y });
        check({ 128, 10, 1, 5, 9000, RANDOM, 64, 2, false, true, y });
        /* Odd numbers of rows around tiles of 64, 128 and 192; keys around tiles of 128; long enough to be cut along the keys. */
        check({ 80, 16, 16, 389, 2565, ALL, 0, 1, true, false, y });
        check({ 80, 3, 3, 257, 1025, RANDOM, 64, 1, true, false, y });
        check({ 80, 2, 1, 193, 1151, CAUSAL, 64, 1, false, false, y });
        check({ 80, 4, 4, 66, 2048, ALL, 0, 1, true, false, y });
        check({ 64, 12, 3, 191, 1537, ALL, 64, 2, false, false, y });
        check({ 64, 6, 6, 385, 4097, RANDOM, 0, 1, true, false, y });
        check({ 64, 2, 2, 399, 399, CAUSAL, 64, 1, false, false, y });
        check({ 128, 32, 8, 200, 3204, ALL, 1601, 1, false, false, y });
        check({ 128, 32, 8, 127, 6404, RANDOM, 1601, 1, false, false, y });
        check({ 128, 4, 2, 333, 1280, CAUSAL, 64, 3, true, false, y });
        check({ 128, 8, 1, 131, 1409, RANDOM, 16, 5, true, true, y });
        check({ 128, 6, 2, 400, 127, RANDOM, 7, 4, false, false, y });
        /* Keys around pairs of steps (32) and tiles of 32 and 64; biases that tiles are without, and on a tile's first and last keys. */
        for (int keys : { 31, 32, 33, 63, 64, 65, 95, 96, 97, 128, 161, 193 }) check({ 80, 2, 2, 127, keys, ALL, 0, 1, keys % 2, false, y });
        for (int every : { 32, 33, 63, 64, 97, 1607 }) check({ 80, 2, 2, 129, 1607, ALL, 0, 1, every, false, y });
        check({ 80, 4, 4, 1607, 1607, ALL, 0, 1, 1607, false, y });
        check({ 64, 4, 2, 130, 700, RANDOM, 0, 1, 97, false, y });
        check({ 64, 4, 4, 255, 1000, CAUSAL, 48, 2, 64, false, y });
        check({ 80, 4, 4, 140, 900, ALL, 24, 1, 0, false, y });
        check({ 128, 4, 2, 66, 800, ALL, 40, 2, 33, false, y });
        check({ 128, 4, 2, 65, 97, RANDOM, 32, 1, 0, false, y });
        /* Scores that outgrow the maximum of the tiles before: seldom, often, and further than exp2 reaches. */
        for (float climb : { 3.f, 40.f, 300.f }) {
            check({ 80, 4, 4, 389, 2565, ALL, 0, 1, true, false, y, climb });
            check({ 80, 2, 2, 193, 1151, CAUSAL, 0, 1, false, false, y, climb });
            check({ 64, 4, 2, 200, 1537, RANDOM, 64, 2, true, false, y, climb });
            check({ 128, 4, 2, 333, 1280, CAUSAL, 64, 3, true, false, y, climb });
        }
        check_neighbours({ 80, 4, 4, 389, 2565, ALL, 0, 1, true, false, y, 40.f });
        check_neighbours({ 128, 8, 2, 200, 700, CAUSAL, 64, 1, false, false, y, 40.f });
        check_neighbours({ 64, 4, 4, 193, 900, RANDOM, 0, 1, true, false, y, 3.f });
    }
    check_counters();
    check_decode_bits({ 128, 32, 8, 64, 1300, RANDOM, 64, 8, false, true, RV_BF16 });
    check_decode_bits({ 128, 32, 8, 64, 1300, RANDOM, 64, 8, false, true, RV_F16 }, true);
    for (bool volta : { false, true }) check_decode_bits({ 64, 8, 4, 64, 2100, RANDOM, 64, 8, true, true, RV_F16 }, volta);
    for (bool volta : { false, true }) check_decode_bits({ 128, 4, 1, 64, 6404, RANDOM, 1601, 3, false, true, RV_F16 }, volta);
    check_decode_bits({ 64, 4, 2, 64, 9000, RANDOM, 64, 3, true, true, RV_BF16 });
    check_decode_bits({ 16, 4, 2, 64, 300, RANDOM, 64, 8, true, true, RV_BF16 });
    check_fused({ 128, 32, 8, 20, 1200, ALL, 64, 1, false, false, RV_BF16 });
    for (bool volta : { false, true }) {
        check_fused({ 128, 16, 1, 5, 700, ALL, 64, 1, false, false, RV_F16 }, volta);
        check_fused({ 64, 8, 2, 64, 600, ALL, 64, 1, true, false, RV_F16 }, volta);
        check_fused({ 128, 8, 1, 5, 5000, ALL, 64, 1, false, false, RV_F16 }, volta);
        check_fused({ 64, 4, 1, 4, 9000, ALL, 40, 1, false, false, RV_F16 }, volta);
    }
    check_fused({ 16, 4, 2, 10, 100, ALL, 64, 1, false, false, RV_BF16 });
}

int main(int argc, char **argv) {
    const char *only = argc > 1 ? argv[1] : "";
    rv_cuda_device_info info;
    rv_error err;
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    if (rv_cuda_device(0, &info, &err)) return puts(err.message), 1;
    arch = info.arch;
    multiprocessors = info.multiprocessors;
    MUST(cudaMalloc(&partial, PARTIAL_BYTES));
    MUST(set(partial, 0, PARTIAL_BYTES));
    small = !strcmp(only, "small");
    only70 = !strcmp(only, "sm70");
    if (small) check_small();
    else check_all();
    MUST(cudaFree(partial));
    printf("%d failed\n", failures);
    return failures > 0;
}
