/* gemm_gpu.cu - the large products on a GPU (gemm90.cu): every epilogue against f64, and bit for bit where it must be.
 *
 * The one idea: every output is computed three times on the GPU: by the kernel under test, by a naive loop of m16n8k16
 * products in the same types (the matrix unit truncates sums where an f32 loop rounds, so that it must be the
 * same unit), and by one in f64; the kernel's error may be at most twice the naive loop's.  Inputs are column views of
 * wider matrices whose other columns are NaN; what surrounds the output, and the output itself, is poisoned before.
 *
 *     gemm_gpu              all checks         (exit code 1: something failed; 77: no GPU, or none of capability 9.0)
 *     gemm_gpu small        the small ones, for compute-sanitizer
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
#include "tests/gpu/naive.cuh"

static int failures = 0, checks = 0, multiprocessors = 0;

typedef decltype(rv_few::how) how_t;
static const how_t STORE = rv_few::RV_FEW_STORE, GELU = rv_few::RV_FEW_GELU, ADD = rv_few::RV_FEW_ADD;
enum values { NORMAL, INTEGERS, HUGE_VALUES };

struct spec {
    int rows, n, k;
    how_t how;
    rv_dtype act;
    bool f32, bias, some_rows_off;
    values of;
};

static const char *name_of(const spec &s) {
    static char text[160];
    static const char *const hows[] = { "store", "gelu", "swiglu", "add" };        /* rv_few's order */
    snprintf(text, sizeof text, "%s%s%s, %s, %d x %d x %d%s%s", hows[s.how], s.f32 && s.how != ADD ? " f32" : "", s.bias ? " + bias" : "",
             s.act == RV_F16 ? "f16" : "bf16", s.rows, s.n, s.k, s.some_rows_off ? ", rows off" : "", s.of == INTEGERS ? ", integers" : s.of == HUGE_VALUES ? ", huge" : "");
    return text;
}
static void expect(bool ok, const spec &s, const char *sentence, double a = 0, double b = 0) {
    checks++;
    if (ok) return;
    failures++;
    printf("FAILED %s: %s (%g, %g)\n", name_of(s), sentence, a, b);
}

/* ---- inputs, made on the device ---- */

static __device__ float value_of(uint64_t i, uint32_t salt, int of, float scale) {
    uint64_t z = (i + ((uint64_t)salt << 40)) * 0x9e3779b97f4a7c15ull;
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    z ^= z >> 31;
    if (of == INTEGERS) return (float)((int)(z % 5) - 2);
    float normal = ((float)(z & 0xffff) + (float)(z >> 16 & 0xffff) + (float)(z >> 32 & 0xffff) - 98304.f) / 32768.f;
    return normal * scale * (of == HUGE_VALUES ? 200.f : 1.f);
}
/* Columns beyond `cols` are NaN. */
template <typename V> static __global__ void fill_kernel(V *p, int64_t rows, int64_t cols, int64_t ld, uint32_t salt, int of, float scale) {
    for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < rows * ld; i += (int64_t)gridDim.x * blockDim.x)
        p[i] = i % ld < cols ? to_act<V>(value_of((uint64_t)i, salt, of, scale)) : to_act<V>(NAN);
}
template <typename V> static V *filled(int64_t rows, int64_t cols, int64_t ld, int of, float scale) {
    static uint32_t salt = 1;
    V *p;
    MUST(cudaMalloc(&p, (size_t)(rows * ld) * sizeof(V)));
    fill_kernel<V><<<528, 256>>>(p, rows, cols, ld, salt++, of, scale);
    MUST(cudaGetLastError());
    return p;
}

/* ---- the naive loops: F is float or double ---- */

static __device__ float gelu_of(float x) { return 0.5f * x * (1.f + erff(x * 0.70710678118654752f)); }
static __device__ double gelu_of(double x) { return 0.5 * x * (1. + erf(x * 0.70710678118654752440)); }

/* sums NULL: summed here, in F. */
template <typename T, typename F> static __global__ void naive_kernel(F *out, const float *sums, const T *x, int64_t x_ld, const T *w, const float *bias,
                                                                      const float *old, float scale,
                                                                      const float *row_scale, int n, int k, int how) {
    int c = (int)(blockIdx.x * blockDim.x + threadIdx.x), r = (int)blockIdx.y;
    int64_t at = (int64_t)r * n + c;
    if (c >= n) return;
    F v = sums ? (F)sums[at] : (F)0;
    for (int i = 0; i < k && !sums; i++) v += (F)to_f32(x[r * x_ld + i]) * (F)to_f32(w[(int64_t)c * k + i]);
    v += bias ? (F)bias[c] : (F)0;
    if (how == GELU) v = gelu_of(v);
    if (how == ADD) v = row_scale && row_scale[r] == 0 ? (F)old[at] : (F)old[at] + (F)(row_scale ? scale * row_scale[r] : scale) * v;
    out[at] = v;
}

/* ---- a case ---- */

struct result { std::vector<double> got, naive, exact; };

template <typename O> static void read_out(const spec &s, const uint8_t *d_out, int64_t ld, int cols, int guard, std::vector<double> &got) {
    const size_t all = (size_t)(s.rows + 2 * guard) * (size_t)ld;
    std::vector<O> host(all);
    MUST(cudaMemcpy(host.data(), d_out, all * sizeof(O), cudaMemcpyDeviceToHost));
    size_t touched = 0;
    O poison;
    memset(&poison, 0xff, sizeof poison);
    got.resize((size_t)s.rows * (size_t)cols);
    for (int r = -guard; r < s.rows + guard; r++)
        for (int64_t c = 0; c < ld; c++) {
            const O &v = host[(size_t)(r + guard) * (size_t)ld + (size_t)c];
            if (r >= 0 && r < s.rows && c < cols) got[(size_t)r * (size_t)cols + (size_t)c] = (double)(float)v;
            else touched += memcmp(&v, &poison, sizeof v) != 0;
        }
    expect(touched == 0, s, "nothing outside the output is written", (double)touched);
}

template <typename F> static void to_host(std::vector<double> &to, const F *d, size_t n) {
    std::vector<F> h(n);
    MUST(cudaMemcpy(h.data(), d, n * sizeof(F), cudaMemcpyDeviceToHost));
    to.assign(h.begin(), h.end());
}

template <typename T> static result run_as(const spec &s) {
    const int guard = 3, cols = s.n;
    const int64_t x_ld = s.k + 8, out_ld = cols + 8;
    const bool f32 = s.f32 || s.how == ADD;
    const size_t size = f32 ? 4 : 2, bytes = (size_t)(s.rows + 2 * guard) * (size_t)out_ld * size;
    const float scale = s.of == INTEGERS ? 2.f : 0.7f;
    T *x = filled<T>(s.rows, s.k, x_ld, s.of, 1), *w = filled<T>(s.n, s.k, s.k, s.of, s.of == INTEGERS ? 1 : 1 / sqrtf((float)s.k));
    float *bias = s.bias ? filled<float>(1, s.n, s.n, s.of, 1) : NULL, *old = filled<float>(s.rows, cols, cols, s.of, 1), *row_scale = NULL;
    uint8_t *out;
    MUST(cudaMalloc(&out, bytes));
    MUST(set(out, 0xff, bytes));
    uint8_t *inside = out + (size_t)guard * (size_t)out_ld * size;
    if (s.some_rows_off) {
        std::vector<float> h((size_t)s.rows);
        for (int r = 0; r < s.rows; r++) {
            h[(size_t)r] = r % 3 == 1 ? 0.f : 1.f + (float)(r % 2);
            if (r % 3 == 1) MUST(set(x + r * x_ld, 0xff, (size_t)s.k * sizeof(T)));       /* whatever h holds: NaN */
        }
        MUST(cudaMalloc(&row_scale, h.size() * 4));
        MUST(put(row_scale, h.data(), h.size() * 4));
    }
    if (s.how == ADD) MUST(cudaMemcpy2D(inside, (size_t)out_ld * 4, old, (size_t)cols * 4, (size_t)cols * 4, (size_t)s.rows, cudaMemcpyDeviceToDevice));
    rv_few p = {};
    p.x = rv_mat_of(x, s.rows, s.k, s.act);
    p.x.ld = x_ld;
    p.act = s.act;
    p.multiprocessors = multiprocessors;
    p.w = w;
    p.rows = s.n;
    p.cols = s.k;
    p.bias = bias;
    p.out = rv_mat_of(inside, s.rows, cols, f32 ? RV_F32 : s.act);
    p.out.ld = out_ld;
    p.how = s.how;
    p.scale = scale;
    p.row_scale = row_scale;
    expect(rv_cuda_gemm90_fits(&p), s, "the product fits");
    MUST(rv_cuda_gemm90(&p, false, NULL));
    const size_t n = (size_t)s.rows * (size_t)cols;
    float *naive;
    double *exact;
    MUST(cudaMalloc(&naive, n * 4));
    MUST(cudaMalloc(&exact, n * 8));
    dim3 grid((unsigned)(cols + 127) / 128, (unsigned)s.rows);
    naive_sums(naive, x, x_ld, w, s.rows, s.n, s.k);
    naive_kernel<T, float><<<grid, 128>>>(naive, naive, x, x_ld, w, bias, old, scale, row_scale, s.n, s.k, s.how);
    naive_kernel<T, double><<<grid, 128>>>(exact, NULL, x, x_ld, w, bias, old, scale, row_scale, s.n, s.k, s.how);
    MUST(cudaDeviceSynchronize());
    result r;
    to_host(r.naive, naive, n);
    to_host(r.exact, exact, n);
    if (f32) read_out<float>(s, out, out_ld, cols, guard, r.got);
    else read_out<T>(s, out, out_ld, cols, guard, r.got);
    for (void *d : { (void *)x, (void *)w, (void *)bias, (void *)old, (void *)row_scale, (void *)out, (void *)naive, (void *)exact }) MUST(cudaFree(d));
    return r;
}
static result run(const spec &s) { return s.act == RV_F16 ? run_as<__half>(s) : run_as<__nv_bfloat16>(s); }

/* As the output's type holds it. */
static double rounded(double v, const spec &s) {
    if (s.f32 || s.how == ADD) return (double)(float)v;
    float f = (float)v;
    if (s.act == RV_F16) return (double)__half2float(__float2half_rn(f > 65504.f ? 65504.f : f < -65504.f ? -65504.f : f));
    return (double)__bfloat162float(__float2bfloat16_rn(f));
}

static void check(const spec &s) {
    result r = run(s);
    double worst = 0, naive_worst = 0, square = 0, naive_square = 0;
    size_t wrong = 0, missing = 0;
    for (size_t i = 0; i < r.got.size(); i++) {
        double want = s.of == HUGE_VALUES ? rounded(r.exact[i], s) : r.exact[i], got = r.got[i], naive = rounded(r.naive[i], s);
        if (got != got) {
            missing++;
            continue;
        }
        wrong += got != rounded(r.exact[i], s);
        worst = std::max(worst, fabs(got - want)), naive_worst = std::max(naive_worst, fabs(naive - want));
        square += (got - want) * (got - want), naive_square += (naive - want) * (naive - want);
    }
    expect(missing == 0, s, "every element is written, and no NaN", (double)missing);
    if (s.of == INTEGERS && s.how != GELU) expect(wrong == 0, s, "small integers are exact", (double)wrong);
    expect(worst <= 2 * naive_worst, s, "the worst error is at most twice the naive loop's", worst, naive_worst);
    const double n = (double)r.got.size(), rms = sqrt(square / n), naive_rms = sqrt(naive_square / n);
    expect(rms <= 2 * naive_rms, s, "the error is at most twice the naive loop's", rms, naive_rms);
    if (getenv("GEMM_GPU_ERRORS")) printf("%s: worst %.2e (naive %.2e), rms %.2e (naive %.2e)\n", name_of(s), worst, naive_worst, rms, naive_rms);
}

/* ---- bits ---- */

struct bits_case { int rows, n, k; };

template <typename V> static size_t differing(const void *a, const void *b, size_t n) {
    std::vector<V> x(n), y(n);
    MUST(cudaMemcpy(x.data(), a, n * sizeof(V), cudaMemcpyDeviceToHost));
    MUST(cudaMemcpy(y.data(), b, n * sizeof(V), cudaMemcpyDeviceToHost));
    size_t d = 0;
    for (size_t i = 0; i < n; i++) d += memcmp(&x[i], &y[i], sizeof(V)) != 0;
    return d;
}

/* Rows [from, from + few) of a call with many rows, and a call with these rows alone. */
static void a_row_does_not_know_its_place(const bits_case &b, int from, int few) {
    const spec s = { b.rows, b.n, b.k, STORE, RV_BF16, true, false, false, NORMAL };
    using T = __nv_bfloat16;
    T *x = filled<T>(b.rows, b.k, b.k, NORMAL, 1), *w = filled<T>(b.n, b.k, b.k, NORMAL, 1 / sqrtf((float)b.k));
    float *all = filled<float>(b.rows, b.n, b.n, NORMAL, 1), *part = filled<float>(few, b.n, b.n, NORMAL, 1);
    rv_few p = {};
    p.x = rv_mat_of(x, b.rows, b.k, RV_BF16);
    p.act = RV_BF16;
    p.multiprocessors = multiprocessors;
    p.w = w;
    p.rows = b.n;
    p.cols = b.k;
    p.out = rv_mat_of(all, b.rows, b.n, RV_F32);
    p.how = STORE;
    MUST(rv_cuda_gemm90(&p, false, NULL));
    p.x = rv_rows(p.x, from, few);
    p.out = rv_mat_of(part, few, b.n, RV_F32);
    MUST(rv_cuda_gemm90(&p, false, NULL));
    MUST(cudaDeviceSynchronize());
    size_t d = differing<uint32_t>(all + (size_t)from * (size_t)b.n, part, (size_t)few * (size_t)b.n);
    expect(d == 0, s, "a row has the same bits wherever it stands", (double)d, from);
    for (void *q : { (void *)x, (void *)w, (void *)all, (void *)part }) MUST(cudaFree(q));
}

static void every_epilogue(int rows, int n, int k, rv_dtype act, values of) {
    check({ rows, n, k, STORE, act, false, false, false, of });
    check({ rows, n, k, STORE, act, true, true, false, of });
    check({ rows, n, k, GELU, act, false, true, false, of });
    check({ rows, n, k, ADD, act, true, true, false, of });
    check({ rows, n, k, ADD, act, true, false, true, of });
}

static void check_all(bool small) {
    for (rv_dtype act : { RV_BF16, RV_F16 })
        for (int rows : { 65, 129, 300 })
            for (int n : { 16, 40, 272 })
                for (int k : { 8, 64, 1176 })
                    if (!small || (rows != 129 && n != 16 && k != 64)) every_epilogue(rows, n, k, act, (rows + n + k) % 2 ? INTEGERS : NORMAL);
    if (small) return;
    for (rv_dtype act : { RV_BF16, RV_F16 }) {
        every_epilogue(202, 6144, 4096, act, NORMAL);
        every_epilogue(202, 1280, 1280, act, INTEGERS);
        every_epilogue(1601, 1280, 1176, act, NORMAL);
        every_epilogue(1601, 3840, 64, act, INTEGERS);
        every_epilogue(6405, 1280, 1280, act, NORMAL);
    }
    every_epilogue(6405, 3840, 1280, RV_BF16, NORMAL);
    check({ 300, 1280, 1280, STORE, RV_F16, false, false, false, HUGE_VALUES });
    check({ 3203, 1280, 1280, STORE, RV_F16, false, true, false, HUGE_VALUES });
    a_row_does_not_know_its_place({ 6405, 1280, 1280 }, 77, 3203);
    a_row_does_not_know_its_place({ 2048, 4096, 1024 }, 1001, 1024);
}

int main(int argc, char **argv) {
    cudaDeviceProp prop;
    int devices = 0;
    if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return puts("skipped: no GPU"), 77;
    MUST(cudaGetDeviceProperties(&prop, 0));
    multiprocessors = prop.multiProcessorCount;
    if (prop.major != 9 || prop.minor != 0) return puts("skipped: not a GPU of capability 9.0"), 77;
    check_all(argc > 1 && !strcmp(argv[1], "small"));
    printf("%d checks, %d failed\n", checks, failures);
    return failures != 0;
}
