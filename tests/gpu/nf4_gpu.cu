/* nf4_gpu.cu - on a GPU: weights of 4 bits, loaded, repacked, read back and multiplied with.
 *
 * The one idea: everything that ends up in memory is held against engine/base/quant.c, bit for bit, through a plain
 * reading of kernels/cuda/four.h's layout; products are held against f64, where their error may be at most twice that of a
 * naive kernel in the same types, and against themselves with other numbers of rows, bit for bit.
 *
 *     nf4_gpu [check | small | sm70]     small: a few cases, for compute-sanitizer; sm70: V100's kernels alone
 *     exit code 1: something failed; 77: no GPU
 */
#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <algorithm>
#include <string>
#include <vector>
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/four.h"
#include "tests/gpu/check.h"
#include "tests/gpu/four_weights.h"
#include "tests/gpu/naive.cuh"

/* ---- memory ---- */

/* Codes, absmaxes, scales and offsets lie where four.h says, and are quant.c's. */
static void expect_memory(const weight &w, const char *how) {
    rv_four q = rv_four_of(&w.spec, w.memory);
    std::vector<char> m = from_device<char>(w.memory, q.bytes);
    const rv_four_head &head = *(const rv_four_head *)m.data();
    int wrong_codes = 0, wrong_absmax = 0, wrong_scales = 0;
    for (size_t i = 0; i < w.parts.size(); i++) {
        const part &p = w.parts[i];
        for (int32_t r = 0; r < w.s.parts[i]; r++)
            for (int32_t b = 0; b < q.blocks; b++) {
                const int32_t row = row_of(w, i, r), g = row % 8, h = row / 8 % 2, in = b % 4;
                const char *record = m.data() + q.records + ((size_t)(row / 16) * (size_t)q.steps + (size_t)(b / 4)) * (size_t)q.record;
                const size_t at = (size_t)r * (size_t)q.blocks + (size_t)b;
                for (int32_t j = 0; j < 32; j++) {
                    const int32_t lane = g * 4 + in;
                    wrong_codes += (uint8_t)record[512 * (h * 2 + j / 16) + 16 * lane + j % 16] != p.packed[at * 32 + (size_t)j];
                }
                const int32_t absmax = (g * 4 + in) * 2 + h;
                if (w.s.nested) wrong_absmax += (uint8_t)record[2048 + absmax] != p.nested[at];
                else wrong_absmax += memcmp(record + 2048 + absmax * 4, &p.absmax[at], 4) != 0;
            }
        if (!w.s.nested) continue;
        for (size_t j = 0; j < p.nested_scale.size(); j++) wrong_scales += memcmp(m.data() + q.scales[i] + j * 4, &p.nested_scale[j], 4) != 0;
        EXPECT(!memcmp(&head.offset[i], &p.codes.offset, 4), "%s, %s: offset of part %zu is %.9g, not %.9g", name(w).c_str(), how, i, head.offset[i], p.codes.offset);
    }
    EXPECT(!wrong_codes && !wrong_absmax && !wrong_scales, "%s, %s: %d codes, %d absmaxes, %d scales differ", name(w).c_str(), how, wrong_codes, wrong_absmax, wrong_scales);
}

/* Every weight in 16 bit, in the order of the weight's rows. */
static std::vector<uint16_t> sixteen(const weight &w, rv_dtype act) {
    std::vector<uint16_t> all((size_t)w.rows * (size_t)w.s.cols);
    std::vector<float> row((size_t)w.s.cols);
    for (size_t i = 0; i < w.parts.size(); i++)
        for (int32_t r = 0; r < w.s.parts[i]; r++) {
            rv_codes_read(row.data(), &w.parts[i].codes, w.s.cols, (int64_t)r * w.s.cols, w.s.cols);
            for (int32_t c = 0; c < w.s.cols; c++) all[(size_t)row_of(w, i, r) * (size_t)w.s.cols + (size_t)c] = rounded(row[(size_t)c], act);
        }
    return all;
}
static int differences(const std::vector<uint16_t> &a, const std::vector<uint16_t> &b, rv_dtype act) {
    int n = 0;
    for (size_t i = 0; i < a.size(); i++) n += a[i] != b[i] && !(isnan(unpack(a[i], act)) && isnan(unpack(b[i], act)));
    return n;
}
static void expect_read(const weight &w) {
    rv_four q = rv_four_of(&w.spec, w.memory);
    for (rv_dtype act : { RV_BF16, RV_F16 })
        for (int32_t from : { 0, 16 }) {
            const int32_t n = std::min(w.rows - from, from ? 21 : w.rows);
            if (n < 1) continue;
            std::vector<uint16_t> want = sixteen(w, act);
            want = std::vector<uint16_t>(want.begin() + (ptrdiff_t)from * w.s.cols, want.begin() + (ptrdiff_t)(from + n) * w.s.cols);
            void *out;
            MUST(cudaMalloc(&out, want.size() * 2));
            MUST(rv_cuda_four_read(&q, out, act, from, n, cuda->multiprocessors, cuda->stream));
            int wrong = differences(from_device<uint16_t>(out, want.size()), want, act);
            EXPECT(!wrong, "%s: %d of %zu weights read back as %s differ", name(w).c_str(), wrong, want.size(), act == RV_F16 ? "f16" : "bf16");
            MUST(cudaFree(out));
        }
}

static void what_loads_is_what_quant_c_says(const shape &s) {
    weight w = make(s);
    load(w, false);
    expect_memory(w, "quantised while loading");
    expect_read(w);
    std::vector<char> ours = from_device<char>(w.memory, rv_four_of(&w.spec, w.memory).bytes);
    unload(w);
    load(w, true);
    expect_memory(w, "loaded as codes");
    expect_read(w);
    std::vector<char> ready = from_device<char>(w.memory, ours.size());
    EXPECT(ours == ready, "%s: memory of codes and of data differ", name(w).c_str());
    unload(w);
    load(w, true, RV_FORMAT_PLAIN);
    int wrong = differences(from_device<uint16_t>(w.memory, (size_t)w.rows * (size_t)w.s.cols), sixteen(w, be->act), be->act);
    EXPECT(!wrong, "%s: %d weights loaded as 16 bit differ", name(w).c_str(), wrong);
    unload(w);
}

static void an_fp4_checkpoint_is_read_by_its_own_map() {
    const float fp4[16] = { 0, 0.005208333333f, 0.66666667f, 1, 0.33333333f, 0.5f, 0.16666667f, 0.25f, 0, -0.005208333333f, -0.66666667f, -1, -0.33333333f, -0.5f, -0.16666667f, -0.25f };
    weight w = make({ { 40 }, 320, false, true, RV_F32, false });
    for (part &p : w.parts) {
        p.codes.format = RV_FORMAT_FP4;
        memcpy(p.codes.map, fp4, sizeof fp4);
    }
    load(w, true, RV_FORMAT_FP4);
    expect_memory(w, "fp4");
    expect_read(w);
    unload(w);
    w.spec.part[0].codes = NULL;
    w.spec.part[0].data = w.parts[0].data.data();
    rv_error err = {};
    EXPECT(rv_weight_bytes(be, &w.spec) == 0 && rv_finish(be, &err) == RV_ERR_UNSUPPORTED, "data is quantised to fp4");
    be->error = {};
}

/* ---- products ---- */

enum { MOST_N = 64 };
struct product { int32_t how; bool norm, f32_out, with_bias; };
static const char *const how_name[] = { "store", "gelu", "swiglu", "add" };

struct operands {
    std::vector<uint16_t> x;
    std::vector<float> x32, weight, bias, row_scale, start;
    void *d_x, *d_x32, *d_out;
    float *d_weight, *d_bias, *d_row_scale;
    int32_t out_cols, x_ld, out_ld;
};
static operands operands_for(const weight &w, const product &p) {
    operands o;
    o.out_cols = p.how == rv_few::RV_FEW_SWIGLU ? w.rows / 2 : w.rows;
    o.x_ld = w.s.cols + 8;
    o.out_ld = o.out_cols + 3;
    for (size_t i = 0; i < (size_t)MOST_N * (size_t)o.x_ld; i++) {
        const bool used = (int32_t)(i % (size_t)o.x_ld) < w.s.cols;
        o.x.push_back(used ? rounded(random_normal(), be->act) : (uint16_t)0x7fff);
        o.x32.push_back(used ? 3 * random_normal() : NAN);
    }
    for (int32_t c = 0; c < w.s.cols; c++) o.weight.push_back(1 + 0.3f * random_normal());
    for (int32_t r = 0; r < w.rows; r++) o.bias.push_back(random_normal());
    for (int32_t n = 0; n < MOST_N; n++) o.row_scale.push_back(n % 3 == 1 ? 0.f : 0.5f + 0.25f * (float)(n % 4));
    for (int32_t i = 0; i < MOST_N * o.out_ld; i++) o.start.push_back(random_normal());
    o.d_x = to_device(o.x);
    o.d_x32 = to_device(o.x32);
    o.d_weight = to_device(o.weight);
    o.d_bias = to_device(o.bias);
    o.d_row_scale = to_device(o.row_scale);
    MUST(cudaMalloc(&o.d_out, (size_t)MOST_N * (size_t)o.out_ld * 4));
    return o;
}
static void drop(operands &o) {
    for (void *p : { o.d_x, o.d_x32, o.d_out, (void *)o.d_weight, (void *)o.d_bias, (void *)o.d_row_scale }) MUST(cudaFree(p));
}

/* One launch for rows from .. from + n - 1; what it left, as f32, rows tight. */
static std::vector<float> run(const weight &w, const product &p, const operands &o, int32_t from, int32_t n, bool take = true) {
    const bool add = p.how == rv_few::RV_FEW_ADD;
    const rv_dtype type = add || p.f32_out ? RV_F32 : be->act;
    const size_t size = rv_dtype_size(type), cells = (size_t)MOST_N * (size_t)o.out_ld;
    std::vector<char> bytes(cells * size, (char)0xff);
    if (add) memcpy(bytes.data(), o.start.data(), cells * 4);
    MUST(put(o.d_out, bytes.data(), bytes.size()));
    rv_few f = {};
    f.x = rv_rows({ p.norm ? o.d_x32 : o.d_x, MOST_N, w.s.cols, o.x_ld, p.norm ? RV_F32 : be->act }, from, n);
    f.norm = p.norm ? o.d_weight : NULL;
    f.eps = 1e-5f;
    f.act = be->act;
    f.multiprocessors = cuda->multiprocessors;
    f.rows = w.rows;
    f.cols = w.s.cols;
    f.bias = p.with_bias ? o.d_bias : NULL;
    f.out = rv_rows({ o.d_out, MOST_N, o.out_cols, o.out_ld, type }, from, n);
    f.how = (decltype(f.how))p.how;
    f.scale = 0.7f;
    f.row_scale = add ? o.d_row_scale + from : NULL;
    f.turn = take ? rv_cuda_turn(cuda->partial, cuda->turn++) : NULL;
    rv_four q = rv_four_of(&w.spec, w.memory);
    MUST(rv_cuda_four_few(cuda, &f, &q));
    std::vector<char> after = from_device<char>(o.d_out, bytes.size());
    std::vector<float> out;
    for (int32_t r = 0; r < MOST_N; r++)
        for (int32_t c = 0; c < o.out_ld; c++) {
            const size_t at = ((size_t)r * (size_t)o.out_ld + (size_t)c) * size;
            if (r < from || r >= from + n || c >= o.out_cols) {
                if (memcmp(&after[at], &bytes[at], size)) {
                    failures++;
                    printf("FAILED: wrote outside its rows and columns\n");
                    return out;
                }
                continue;
            }
            float v = 0;
            uint16_t b;
            memcpy(&v, &after[at], size == 4 ? 4 : 0);
            memcpy(&b, &after[at], 2);
            out.push_back(size == 4 ? v : unpack(b, be->act));
        }
    return out;
}

/* x [n x cols] times the weight as 16 bit, in R: f64 in plain loops, f32 by the naive kernel. */
static std::vector<double> sums_of(const weight &w, const std::vector<double> &x, const std::vector<uint16_t> &bits, int32_t n) {
    std::vector<double> wide, sums;
    const size_t cols = (size_t)w.s.cols;
    for (uint16_t b : bits) wide.push_back(unpack(b, be->act));
    for (size_t i = 0; i < (size_t)n; i++)
        for (size_t r = 0; r < (size_t)w.rows; r++) {
            double s = 0;
            for (size_t c = 0; c < cols; c++) s += x[i * cols + c] * wide[r * cols + c];
            sums.push_back(s);
        }
    return sums;
}
static std::vector<float> sums_of(const weight &w, const std::vector<float> &x, const std::vector<uint16_t> &bits, int32_t n) {
    std::vector<uint16_t> packed;
    for (float v : x) packed.push_back(rounded(v, be->act));
    return naive_sums(packed, bits, be->act, n, w.rows, w.s.cols);
}

/* The product with all around it in R (f32: the naive kernel in the same types). */
template <typename R> static std::vector<R> plain(const weight &w, const product &p, const operands &o, int32_t rows) {
    auto rounds = [](R y) { return sizeof(R) == 8 ? y : (R)unpack(rounded((float)y, be->act), be->act); };
    std::vector<R> out, x;
    for (int32_t n = 0; n < rows; n++) {
        R square = 0;
        const size_t first = x.size();
        for (int32_t c = 0; c < w.s.cols; c++) {
            const size_t at = (size_t)n * (size_t)o.x_ld + (size_t)c;
            x.push_back(p.norm ? (R)o.x32[at] : (R)unpack(o.x[at], be->act));
            square += x.back() * x.back();
        }
        for (int32_t c = 0; c < w.s.cols && p.norm; c++) x[first + (size_t)c] = rounds(x[first + (size_t)c] / sqrt(square / (R)w.s.cols + (R)1e-5f) * o.weight[(size_t)c]);
    }
    const std::vector<R> sums = sums_of(w, x, sixteen(w, be->act), rows);
    for (int32_t n = 0; n < rows; n++) {
        const R *products = &sums[(size_t)n * (size_t)w.rows];
        for (int32_t c = 0; c < o.out_cols; c++) {
            const bool pairs = p.how == rv_few::RV_FEW_SWIGLU;
            const int32_t row = pairs ? c / 8 * 16 + c % 8 : c;
            R v = products[row];
            if (pairs) {
                R g = rounds(v), u = rounds(products[row + 8]);
                out.push_back(rounds(g / (1 + exp(-g)) * u));
                continue;
            }
            if (p.with_bias) v += o.bias[(size_t)c];
            if (p.how == rv_few::RV_FEW_GELU) v = rounds((R)0.5 * v * (1 + erf(v * (R)0.70710678118654752)));
            else if (p.how == rv_few::RV_FEW_STORE) v = p.f32_out ? v : rounds(v);
            else v = (R)o.start[(size_t)n * (size_t)o.out_ld + (size_t)c] + (R)0.7f * o.row_scale[(size_t)n] * v;
            out.push_back(v);
        }
    }
    return out;
}

static bool same(const std::vector<float> &a, const std::vector<float> &b, size_t from_b) {
    for (size_t i = 0; i < a.size(); i++)
        if (memcmp(&a[i], &b[from_b + i], 4)) return false;
    return !a.empty();
}

static void a_product_is_as_exact_as_a_naive_one(const weight &w, const product &p, int32_t n) {
    operands o = operands_for(w, p);
    std::vector<float> got = run(w, p, o, 0, n), naive = plain<float>(w, p, o, n);
    std::vector<double> exact = plain<double>(w, p, o, n);
    double ours = 0, theirs = 0, largest = 1;
    for (size_t i = 0; i < exact.size() && got.size() == exact.size(); i++) {
        largest = std::max(largest, fabs(exact[i]));
        if (!(fabs(got[i] - exact[i]) <= ours)) ours = fabs(got[i] - exact[i]);
        theirs = std::max(theirs, fabs(naive[i] - exact[i]));
    }
    /* What follows the sums rounds in f32 on both sides, in orders of their own. */
    EXPECT(ours <= 2 * theirs + 4 * FLT_EPSILON * largest, "%s, %s%s, %d rows: error %g, naive %g", name(w).c_str(), p.norm ? "norm " : "", how_name[p.how], n, ours, theirs);
    drop(o);
}

static void a_row_does_not_depend_on_its_neighbours(const weight &w, const product &p) {
    const int32_t most = p.norm ? (int32_t)RV_CUDA_NORM_ROWS : (int32_t)MOST_N;
    operands o = operands_for(w, p);
    std::vector<float> all = run(w, p, o, 0, most);
    for (int32_t n : { 1, 2, 3, 7, 8, 9, 16, 17, 32, 33, 64 })
        for (int32_t from : { 0, 1, 5 })
            if (from + n <= most)
                EXPECT(same(run(w, p, o, from, n, n % 2), all, (size_t)from * (size_t)o.out_cols), "%s, %s: %d rows from %d: other bits", name(w).c_str(),
                       how_name[p.how], n, from);
    drop(o);
}

/* Several units of 64 rows, and columns for all sums of each: without a norm, whatever becomes of them. */
static void rows_by_turns_are_rows_alone(const shape &s) {
    weight w = make(s);
    load(w, false);
    for (const product &p : std::vector<product>{ { rv_few::RV_FEW_STORE, false, false, true }, { rv_few::RV_FEW_ADD, false, true, true }, { rv_few::RV_FEW_SWIGLU, false, false, false } })
        a_row_does_not_depend_on_its_neighbours(w, p);
    unload(w);
}

/* More rows than the few, stored and added: as exact as a naive product in the same types. */
static void many_rows_are_as_exact_as_naive_ones(const shape &s, int32_t n) {
    weight w = make(s);
    load(w, false);
    const int32_t x_ld = s.cols + 8, out_ld = w.rows + 8;
    std::vector<uint16_t> x, bits = sixteen(w, be->act);
    std::vector<float> bias, row_scale, start, wide;
    for (int32_t i = 0; i < n * x_ld; i++) x.push_back(i % x_ld < s.cols ? rounded(random_normal(), be->act) : (uint16_t)0x7fff);
    for (uint16_t b : bits) wide.push_back(unpack(b, be->act));
    for (int32_t r = 0; r < w.rows; r++) bias.push_back(random_normal());
    for (int32_t i = 0; i < n; i++) row_scale.push_back(i % 3 == 1 ? 0.f : 0.5f + 0.25f * (float)(i % 4));
    for (int32_t i = 0; i < n * out_ld; i++) start.push_back(random_normal());
    void *d_x = to_device(x), *d_sum = to_device(start), *d_out = to_device(start);
    float *d_bias = to_device(bias), *d_row_scale = to_device(row_scale);
    const rv_mat from = { d_x, n, s.cols, x_ld, be->act };
    rv_linear(be, { d_out, n, w.rows, out_ld, be->act }, from, w.w, d_bias, RV_ACT_NONE);
    rv_linear_add(be, { d_sum, n, w.rows, out_ld, RV_F32 }, from, w.w, d_bias, 0.7f, d_row_scale);
    const std::vector<uint16_t> out = from_device<uint16_t>(d_out, start.size());
    const std::vector<float> sum = from_device<float>(d_sum, start.size());
    double ours[2] = {}, naive[2] = {}, largest = 1;
    int outside = 0;
    for (int32_t i = 0; i < n; i++)
        for (int32_t r = 0; r < out_ld; r++) {
            const size_t at = (size_t)i * (size_t)out_ld + (size_t)r;
            if (r >= w.rows) {
                outside += sum[at] != start[at] || out[at] != ((const uint16_t *)start.data())[at];
                continue;
            }
            double exact = 0;
            float plain = 0;
            for (int32_t c = 0; c < s.cols; c++) {
                const float a = unpack(x[(size_t)i * (size_t)x_ld + (size_t)c], be->act), b = wide[(size_t)r * (size_t)s.cols + (size_t)c];
                exact += (double)a * b;
                plain += a * b;
            }
            const double added = start[at] + (double)0.7f * row_scale[(size_t)i] * (exact + bias[(size_t)r]);
            const float added_plain = start[at] + 0.7f * row_scale[(size_t)i] * (plain + bias[(size_t)r]);
            exact += bias[(size_t)r];
            plain = unpack(rounded(plain + bias[(size_t)r], be->act), be->act);
            const double off[2] = { fabs(unpack(out[at], be->act) - exact), fabs(sum[at] - added) };
            for (int k = 0; k < 2; k++)
                if (!(off[k] <= ours[k])) ours[k] = off[k];
            largest = std::max({ largest, fabs(exact), fabs(added) });
            naive[0] = std::max(naive[0], fabs(plain - exact));
            naive[1] = std::max(naive[1], fabs(added_plain - added));
        }
    for (int k = 0; k < 2; k++)
        EXPECT(ours[k] <= 2 * naive[k] + 4 * FLT_EPSILON * largest, "%s, %d rows, %s: error %g, naive %g", name(w).c_str(), n, k ? "add" : "store", ours[k], naive[k]);
    EXPECT(!outside, "%s, %d rows: wrote outside its columns", name(w).c_str(), n);
    for (void *p : { d_x, d_sum, d_out, (void *)d_bias, (void *)d_row_scale }) MUST(cudaFree(p));
    unload(w);
}

/* Where no kernel does all of it, they go by way of 16 bit: as the same weights kept in 16 bit. */
static void many_rows_are_those_of_16_bit(weight &w, int32_t n) {
    load(w, true, RV_FORMAT_PLAIN);
    weight four = w;
    load(four, true);
    std::vector<uint16_t> x;
    for (size_t i = 0; i < (size_t)n * (size_t)w.s.cols; i++) x.push_back(rounded(random_normal(), be->act));
    void *d_x = to_device(x), *out[2];
    const size_t bytes = (size_t)n * (size_t)w.rows * 4;
    for (int i = 0; i < 2; i++) {
        MUST(cudaMalloc(&out[i], bytes));
        MUST(set(out[i], 0, bytes));
    }
    const rv_mat mx = rv_mat_of(d_x, n, w.s.cols, be->act);
    const int32_t arch = cuda->arch;
    cuda->arch = 80;
    for (int add = 0; add < 2; add++) {
        for (int i = 0; i < 2; i++) {
            rv_mat to = rv_mat_of(out[i], n, w.rows, RV_F32);
            if (add) rv_linear_add(be, to, mx, i ? four.w : w.w, NULL, 0.5f, NULL);
            else rv_linear(be, to, mx, i ? four.w : w.w, NULL, RV_ACT_NONE);
        }
        EXPECT(from_device<float>(out[0], bytes / 4) == from_device<float>(out[1], bytes / 4), "%s, %d rows%s: not the products of 16 bit", name(w).c_str(), n, add ? ", added" : "");
    }
    cuda->arch = arch;
    for (void *p : { d_x, out[0], out[1] }) MUST(cudaFree(p));
    unload(four);
    unload(w);
}

/* Memory that another process left holds all there is. */
static void filled_memory_needs_nothing_else() {
    weight w = make({ { 48, 16, 16 }, 512, false, true, RV_BF16, false });
    load(w, false);
    rv_weight_spec filled = w.spec;
    filled.filled = true;
    for (rv_weight_part &p : filled.part) p.data = NULL;
    const uint64_t bytes = rv_weight_bytes(be, &filled);
    void *copy = rv_device_alloc(be, bytes);
    MUST(cudaMemcpy(copy, w.memory, bytes, cudaMemcpyDeviceToDevice));
    rv_weight *again = rv_weight_new(be, &filled, copy);
    std::vector<uint16_t> x;
    for (int32_t i = 0; i < 3 * w.s.cols; i++) x.push_back(rounded(random_normal(), be->act));
    void *d_x = to_device(x), *out[2];
    for (int i = 0; i < 2; i++) {
        MUST(cudaMalloc(&out[i], 3 * 80 * 4));
        rv_linear(be, rv_mat_of(out[i], 3, 80, RV_F32), rv_mat_of(d_x, 3, w.s.cols, be->act), i ? again : w.w, NULL, RV_ACT_NONE);
    }
    EXPECT(from_device<float>(out[0], 240) == from_device<float>(out[1], 240), "memory of another process gives another product");
    for (void *p : { d_x, out[0], out[1] }) MUST(cudaFree(p));
    rv_weight_free(be, again);
    rv_device_release(be, copy);
    unload(w);
}

static void products(const shape &s, bool few) {
    weight w = make(s);
    load(w, false);
    std::vector<product> all = { { rv_few::RV_FEW_STORE, true, true, false }, { rv_few::RV_FEW_ADD, false, true, true } };
    if (s.gate_up) all.push_back({ rv_few::RV_FEW_SWIGLU, true, false, false });
    if (!few) all.push_back({ rv_few::RV_FEW_STORE, false, false, true });
    if (!few) all.push_back({ rv_few::RV_FEW_GELU, false, false, true });
    for (const product &p : all) {
        if (p.norm && s.cols > RV_CUDA_NORM_MOST) continue;
        for (int32_t n : { 1, 2, 5, 8, 13, 27, 64 })
            if (n <= (p.norm ? 2 : few ? 13 : 64) && (n < 9 || w.rows * w.s.cols < 1 << 18)) a_product_is_as_exact_as_a_naive_one(w, p, n);
        a_row_does_not_depend_on_its_neighbours(w, p);
    }
    unload(w);
}

static void all_of_it(bool small) {
    std::vector<shape> loads = { { { 16 }, 64, false, true, RV_F32, false },       { { 40 }, 320, false, false, RV_BF16, true },
                                 { { 48, 16, 8 }, 512, false, true, RV_F16, true }, { { 24, 24 }, 192, true, true, RV_BF16, true },
                                 { { 33 }, 256, false, true, RV_F32, true } };
    if (!small) {
        loads.push_back({ { 300, 77 }, 1280, false, true, RV_BF16, false });
        loads.push_back({ { 640, 640 }, 4096, true, true, RV_BF16, false });
        loads.push_back({ { 96 }, 14336, false, false, RV_F16, true });
        loads.push_back({ { 96 }, 14336, false, true, RV_F32, true });
    }
    for (const shape &s : loads) what_loads_is_what_quant_c_says(s);
    an_fp4_checkpoint_is_read_by_its_own_map();
    filled_memory_needs_nothing_else();
    products({ { 48, 16, 8 }, 320, false, true, RV_BF16, false }, small);
    products({ { 40, 40 }, 512, true, true, RV_F32, false }, small);
    if (!small) {
        products({ { 2400 }, 64, false, false, RV_BF16, false }, true);
        products({ { 4504, 616 }, 64, false, true, RV_BF16, false }, true);       /* more pairs of tiles than multiprocessors */
        products({ { 17336, 72 }, 576, false, true, RV_BF16, false }, true);        /* up to five units of 64 rows a pair of multiprocessors, one of which has no columns */
        for (bool nested : { false, true }) rows_by_turns_are_rows_alone({ { 10600, 10600 }, 2368, true, nested, RV_BF16, false });
        products({ { 64 }, 4096, false, true, RV_BF16, false }, true);
        products({ { 48 }, 14336, false, true, RV_BF16, false }, true);
        products({ { 2304, 16 }, 2048, false, true, RV_BF16, false }, true);
    }
    if (cuda->arch == 80) return;          /* what follows has no kernels of its own there        */
    weight many = make({ { 256, 128 }, small ? 256 : 1024, false, true, RV_BF16, false });
    many_rows_are_those_of_16_bit(many, 65);
    if (!small) many_rows_are_those_of_16_bit(many, 200);
    many_rows_are_as_exact_as_naive_ones({ { 40, 96 }, 320, false, false, RV_BF16, false }, 65);
    many_rows_are_as_exact_as_naive_ones({ { 264 }, 64, false, true, RV_F32, false }, 70);
    if (small) return;
    many_rows_are_as_exact_as_naive_ones({ { 128, 128 }, 1088, true, true, RV_BF16, false }, 200);
    many_rows_are_as_exact_as_naive_ones({ { 1000, 48 }, 512, false, true, RV_BF16, false }, 300);
    many_rows_are_as_exact_as_naive_ones({ { 160 }, 2048, false, true, RV_BF16, false }, 129);
}

int main(int argc, char **argv) {
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    for (int32_t i = argc > 1 && !strcmp(argv[1], "sm70") ? 3 : 0; i < 4; i++) {        /* the GPU's own kernels in both types, those of 8.0, and Volta's */
        rv_cuda_options options = {};
        options.act = i % 2 == 0 ? RV_BF16 : RV_F16;
        options.arch = i == 3 ? 70 : i == 2 ? 80 : 0;
        rv_error err = {};
        if (rv_cuda_open(&options, &be, &err)) return printf("FAILED: %s\n", err.message), 1;
        cuda = (rv_cuda *)be;
        all_of_it(argc > 1 && !strcmp(argv[1], "small"));
        if (rv_finish(be, &err)) return printf("FAILED: %s\n", err.message), 1;
        rv_backend_close(be);
    }
    if (failures) printf("%d failures\n", failures);
    else puts("4-bit weights: all as they should be");
    return failures ? 1 : 0;
}
