/* rows_gpu.cu - the row by row kernels of a picture's way on a GPU: against plain loops on the host, and timed.
 *
 * The one idea: memory that both sides see (managed), rows that are views of wider ones, and widths that take
 * every variant of a kernel.  What only moves or converts must be exact; a norm's error against f64 is bounded, and
 * its bits must be those of the row alone.
 *
 *     rows_gpu              checks, then times
 *     rows_gpu check        only checks        (exit code 1: something failed; 77: no GPU)
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

static int failures = 0;

static const char *name_of(rv_dtype t) { return t == RV_F32 ? "f32" : t == RV_BF16 ? "bf16" : "f16"; }

/* ---- matrices that host and device see ---- */

static std::vector<void *> taken;
static void *take(size_t bytes) {
    void *p = NULL;
    MUST(cudaMallocManaged(&p, bytes + 64));
    taken.push_back(p);
    return p;
}
static void drop_all() {
    for (void *p : taken) MUST(cudaFree(p));
    taken.clear();
}

static uint32_t random_state = 1;
static float random_float() {
    random_state = random_state * 1664525u + 1013904223u;
    return (float)(random_state >> 8) / 8388608.f - 1.f;
}
static void put(rv_mat m, int r, int c, float v) {
    char *p = (char *)m.data + ((size_t)r * (size_t)m.ld + (size_t)c) * rv_dtype_size(m.type);
    __half h = __float2half_rn(v > 65504.f ? 65504.f : v < -65504.f ? -65504.f : v);
    __nv_bfloat16 b = __float2bfloat16_rn(v);
    memcpy(p, m.type == RV_F32 ? (void *)&v : m.type == RV_F16 ? (void *)&h : (void *)&b, rv_dtype_size(m.type));
}
static float get(rv_mat m, int r, int c) {
    const char *p = (const char *)m.data + ((size_t)r * (size_t)m.ld + (size_t)c) * rv_dtype_size(m.type);
    if (m.type == RV_F32) return *(const float *)p;
    return m.type == RV_F16 ? __half2float(*(const __half *)p) : __bfloat162float(*(const __nv_bfloat16 *)p);
}
/* f32 as `type` holds it. */
static float rounded(float v, rv_dtype type) {
    char room[8];
    rv_mat m = rv_mat_of(room, 1, 1, type);
    put(m, 0, 0, v);
    return get(m, 0, 0);
}
static rv_mat matrix(int rows, int cols, int more, rv_dtype type) {
    rv_mat m = rv_mat_of(take((size_t)rows * (size_t)(cols + more) * rv_dtype_size(type)), rows, cols + more, type);
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols + more; c++) put(m, r, c, random_float());
    m.cols = cols;
    return m;
}
static float *vector_of(int n) { return (float *)matrix(1, n, 0, RV_F32).data; }

static bool same(float a, float b) { return !memcmp(&a, &b, sizeof a) || (a != a && b != b); }
static void fail(const char *what, rv_dtype type, int r, int c, double got, double wanted) {
    if (++failures < 20) printf("FAILED %s %s: row %d, column %d is %.9g, should be %.9g\n", what, name_of(type), r, c, got, wanted);
}

/* ---- checks ---- */

static void check_norm(int rows, int cols, int width, int more, rv_dtype in, rv_dtype to, bool layer) {
    rv_mat x = matrix(rows, cols, more, in), out = matrix(rows, cols, more, to), alone = matrix(1, cols, more, to);
    rv_norm n = { vector_of(width), layer ? vector_of(width) : NULL, 1e-5f, width };
    for (int r = 0; r < rows; r++) put(x, r, 1, 40.f);                  /* an outlier channel, and a mean that is not 0 */
    MUST(rv_cuda_norm(out, x, n, false, 0));
    MUST(rv_cuda_norm(alone, rv_rows(x, rows - 1, 1), n, false, 0));
    MUST(cudaDeviceSynchronize());
    const double unit = to == RV_F32 ? 1e-6 : to == RV_F16 ? 6e-4 : 4.1e-3;
    for (int r = 0; r < rows; r++)
        for (int from = 0; from < cols; from += width) {
            double mean = 0, square = 0;
            for (int c = 0; c < width && layer; c++) mean += (double)get(x, r, from + c) / width;
            for (int c = 0; c < width; c++) square += pow((double)get(x, r, from + c) - mean, 2) / width;
            for (int c = 0; c < width; c++) {
                double v = ((double)get(x, r, from + c) - mean) / sqrt(square + 1e-5) * (double)n.weight[c] + (layer ? (double)n.bias[c] : 0);
                double got = (double)get(out, r, from + c);
                if (!(fabs(got - v) <= unit * (fabs(v) + 0.5))) fail(layer ? "LayerNorm" : "RMS norm", to, r, from + c, got, v);
            }
        }
    for (int c = 0; c < cols; c++)
        if (!same(get(out, rows - 1, c), get(alone, 0, c)))
            fail("norm of a row alone", to, rows - 1, c, (double)get(alone, 0, c), (double)get(out, rows - 1, c));
    if (in == to) {                                                     /* in place */
        MUST(rv_cuda_norm(x, x, n, false, 0));
        MUST(cudaDeviceSynchronize());
        for (int r = 0; r < rows; r++)
            for (int c = 0; c < cols; c++)
                if (!same(get(x, r, c), get(out, r, c))) fail("norm in place", to, r, c, (double)get(x, r, c), (double)get(out, r, c));
    }
    drop_all();
}

static void check_copy(int rows, int cols, int more, rv_dtype from, rv_dtype to, bool broadcast) {
    static const float special[] = { -0.f, NAN, INFINITY, 1.00390625f, 70000.f, 1e-30f };
    rv_mat x = matrix(broadcast ? 1 : rows, cols, more, from), out = matrix(rows, cols, more, to);
    for (int c = 0; c < 6 && c < cols; c++) put(x, 0, c, special[c]);
    x.rows = rows;
    if (broadcast) x.ld = 0;
    MUST(rv_cuda_copy(out, x, 0));
    MUST(cudaDeviceSynchronize());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++)
            if (!same(get(out, r, c), rounded(get(x, r, c), to))) fail("copy", to, r, c, (double)get(out, r, c), (double)get(x, r, c));
    drop_all();
}

static void check_concat(int rows, int d, int n, int more, rv_dtype type, rv_dtype of_last) {
    rv_mat last = matrix(rows, d, more, of_last), out = matrix(rows, (n + 1) * d, more, type), taps[16];
    for (int i = 0; i < n; i++) taps[i] = matrix(rows, d, more, type);
    MUST(rv_cuda_concat_taps(out, last, taps, n, 0));
    MUST(cudaDeviceSynchronize());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < out.cols; c++) {
            float v = c < d ? rounded(get(last, r, c), type) : get(taps[(c - d) % n], r, (c - d) / n);
            if (!same(get(out, r, c), v)) fail("taps", type, r, c, (double)get(out, r, c), (double)v);
        }
    drop_all();
}

/* Rows by eight, and the same one by one where they do not lie for it. */
static void check_swiglu(int rows, int cols, int more, rv_dtype type) {
    rv_mat in = matrix(rows, 2 * cols, 2 * more, type), out = matrix(rows, cols, more, type), odd = matrix(rows, cols, more | 1, type);
    static const float special[] = { -0.f, NAN, INFINITY, -INFINITY, 60000.f, -30.f, 1e-30f };
    for (int i = 0; i < 7; i++) put(in, 0, i, special[i]), put(in, rows - 1, 8 + i, special[i]);
    for (int c = 0; c < 2 * cols; c++) put(in, rows / 2, c, 9 * get(in, rows / 2, c));
    MUST(rv_cuda_swiglu(out, in, false, 0));
    MUST(rv_cuda_swiglu(odd, in, false, 0));
    MUST(cudaDeviceSynchronize());
    const double unit = type == RV_F32 ? 1e-5 : type == RV_F16 ? 6e-4 : 4.1e-3;
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            const double g = (double)get(in, r, c / 8 * 16 + c % 8), u = (double)get(in, r, c / 8 * 16 + 8 + c % 8), v = g / (1 + exp(-g)) * u, got = (double)get(out, r, c);
            const double most = type == RV_F16 ? 65504 : 3.3e38;
            if (isfinite(v) && fabs(g) < 80 && !(fabs(got - fmin(fmax(v, -most), most)) <= unit * (fabs(v) + 1e-3))) fail("SwiGLU", type, r, c, got, v);
            if (!same(get(odd, r, c), get(out, r, c))) fail("SwiGLU one by one", type, r, c, (double)get(odd, r, c), got);
        }
    drop_all();
}

static void check_add_rows(int rows, int cols, int more, rv_dtype type) {
    rv_mat x = matrix(rows, cols, more, RV_F32), table = matrix(9, cols, more, type);
    std::vector<float> before((size_t)rows * (size_t)cols);
    int32_t *ids = (int32_t *)take((size_t)rows * 4);
    for (int r = 0; r < rows; r++) {
        ids[r] = r % 4 == 2 ? -1 : r * 5 % 9;
        for (int c = 0; c < cols; c++) before[(size_t)r * (size_t)cols + (size_t)c] = get(x, r, c);
    }
    MUST(rv_cuda_add_rows(x, table, ids, 0.3f, 0));
    MUST(cudaDeviceSynchronize());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            double v = (double)before[(size_t)r * (size_t)cols + (size_t)c] + (ids[r] < 0 ? 0 : (double)0.3f * (double)get(table, ids[r], c));
            if (!(fabs((double)get(x, r, c) - v) <= 1.3e-7)) fail("added row", type, r, c, (double)get(x, r, c), v);
        }
    drop_all();
}

/* On the device, and as it is on the host: pinned, read over the bus. */
static void check_embed(int rows, int cols, int more, rv_dtype type, bool on_host) {
    rv_mat out = matrix(rows, cols, more, RV_F32), table = matrix(9, cols, more, type), from = table;
    const size_t bytes = 9 * (size_t)table.ld * rv_dtype_size(type);
    int32_t *ids = (int32_t *)take((size_t)rows * 4);
    for (int r = 0; r < rows; r++) ids[r] = r % 4 == 2 ? -1 : r * 5 % 9;
    if (on_host) {
        MUST(cudaHostAlloc(&from.data, bytes, cudaHostAllocMapped));
        memcpy(from.data, table.data, bytes);
    }
    MUST(rv_cuda_embed(out, from, ids, false, 0));
    MUST(cudaDeviceSynchronize());
    for (int r = 0; r < rows; r++)
        for (int c = 0; c < cols; c++) {
            float v = ids[r] < 0 ? 0.f : get(table, ids[r], c);
            if (!same(get(out, r, c), v)) fail("looked up row", type, r, c, (double)get(out, r, c), (double)v);
        }
    if (on_host) MUST(cudaFreeHost(from.data));
    drop_all();
}

static void check_patches(int tiles, int grid, int patch, rv_dtype type, bool bytes) {
    const int edge = grid * patch, a_tile = 3 * edge * edge;
    rv_mat out = matrix(tiles * grid * grid, 3 * patch * patch, 5, type);
    rv_mat pixels = rv_mat_of(take((size_t)tiles * (size_t)a_tile * 4), tiles, a_tile, bytes ? RV_U8 : RV_F32);
    float *values = vector_of(3 * 256);
    for (int i = 0; i < tiles * a_tile; i++)
        if (bytes) ((uint8_t *)pixels.data)[i] = (uint8_t)(i * 7 + i / 251);
        else ((float *)pixels.data)[i] = random_float();
    MUST(rv_cuda_patches(out, pixels, bytes ? values : NULL, 3, patch, 0));
    MUST(cudaDeviceSynchronize());
    for (int r = 0; r < out.rows; r++)
        for (int c = 0; c < out.cols; c++) {
            int plane = c / (patch * patch), y = r / grid % grid * patch + c / patch % patch, x = r % grid * patch + c % patch;
            size_t at = (size_t)(r / (grid * grid)) * (size_t)a_tile + (size_t)((plane * edge + y) * edge + x);
            float v = bytes ? values[plane * 256 + ((uint8_t *)pixels.data)[at]] : ((float *)pixels.data)[at];
            if (!same(get(out, r, c), rounded(v, type))) fail("patch", type, r, c, (double)get(out, r, c), (double)v);
        }
    drop_all();
}

static void check_all() {
    static const rv_dtype acts[] = { RV_BF16, RV_F16 };
    static const int widths[] = { 1280, 1024, 132, 4, 1284, 30 };
    for (rv_dtype act : acts) {
        for (int width : widths)
            for (int rows : { 1, 3, 67 })
                for (int more : { 0, 4, 3 })
                    for (rv_dtype to : { act, RV_F32 }) check_norm(rows, width, width, more, RV_F32, to, true);
        for (int width : { 128, 64, 80, 30, 256, 512 })
            for (int more : { 0, 1024, 3 })
                for (rv_dtype in : { act, RV_F32 }) {
                    check_norm(67, 8 * width, width, more, in, act, false);
                    check_norm(5, 3 * width, width, more, in, act, true);
                }
        for (int cols : { 1280, 40, 33 })
            for (int more : { 0, 8, 3 })
                for (int broadcast = 0; broadcast < 2; broadcast++) {
                    check_copy(19, cols, more, RV_F32, act, broadcast);
                    check_copy(19, cols, more, act, RV_F32, broadcast);
                    check_copy(19, cols, more, act, act, broadcast);
                    check_copy(19, cols, more, RV_F32, RV_F32, broadcast);
                }
        for (int n : { 5, 1, 3, 16 })
            for (int d : { 1280, 256, 30, 2048 })
                for (int more : { 0, 8, 1 })
                    for (rv_dtype last : { act, RV_F32 }) check_concat(7, d, n, more, act, last);
        for (int cols : { 14336, 1032, 8 })
            for (int more : { 0, 8, 3 })
                for (int rows : { 1, 2, 67 })
                    for (rv_dtype type : { act, RV_F32 }) check_swiglu(rows, cols, more, type);
        for (int cols : { 1280, 36 })
            for (int more : { 0, 3 }) check_add_rows(29, cols, more, act);
        for (int cols : { 4096, 5120, 8, 36, 30 })
            for (int more : { 0, 8, 3 })
                for (bool on_host : { false, true }) check_embed(11, cols, more, act, on_host);
        for (int bytes = 0; bytes < 2; bytes++) {
            check_patches(2, 40, 14, act, bytes);
            check_patches(1, 3, 7, act, bytes);
        }
    }
    puts("checks done");
}

/* ---- times ---- */

enum { SETS = 6 };                                   /* together more than the L2 cache holds    */

template <typename F> static double median_us(F work) {
    cudaEvent_t a, b;
    std::vector<float> all;
    MUST(cudaEventCreate(&a));
    MUST(cudaEventCreate(&b));
    for (int i = 0; i < 12; i++) {
        float ms;
        MUST(cudaEventRecord(a));
        for (int set = 0; set < SETS; set++) MUST(work(set));
        MUST(cudaEventRecord(b));
        MUST(cudaEventSynchronize(b));
        MUST(cudaEventElapsedTime(&ms, a, b));
        if (i >= 2) all.push_back(ms * 1000 / SETS);
    }
    std::sort(all.begin(), all.end());
    return (double)all[all.size() / 2];
}

static double ceiling;
static void line(const char *what, double us, double bytes) {
    printf("  %-58s %7.1f us %6.0f GB/s  %3.0f %% of a copy\n", what, us, bytes / us * 1e-3, bytes / us * 0.1 / ceiling);
}

static rv_mat plain(int rows, int cols, int more, rv_dtype type) {
    void *p;
    size_t bytes = (size_t)rows * (size_t)(cols + more) * rv_dtype_size(type);
    MUST(cudaMalloc(&p, bytes + 64));
    MUST(set(p, 0, bytes));
    taken.push_back(p);
    rv_mat m = rv_mat_of(p, rows, cols + more, type);
    m.cols = cols;
    return m;
}

static void time_all() {
    enum { ROWS = 6405, D = 1280 };
    rv_mat x[SETS], h[SETS], kv[SETS], features[SETS], patches[SETS], bytes[SETS], taps[5], odd[SETS];
    for (int i = 0; i < SETS; i++) {
        x[i] = plain(ROWS, D, 0, RV_F32);
        odd[i] = plain(ROWS, D, 1, RV_F32);
        h[i] = plain(ROWS, D, 0, RV_BF16);
        kv[i] = plain(6404, 2048, 0, RV_BF16);
        features[i] = plain(6404, 6 * D, 0, RV_BF16);
        patches[i] = plain(6400, 588, 0, RV_BF16);
        bytes[i] = plain(4, 3 * 560 * 560, 0, RV_U8);
    }
    for (int i = 0; i < 5; i++) taps[i] = plain(6404, D, 0, RV_BF16);
    rv_mat table = plain(6404, D, 0, RV_BF16), big[2] = { plain(1 << 14, 1 << 14, 0, RV_F32), plain(1 << 14, 1 << 14, 0, RV_F32) };
    int32_t *ids = (int32_t *)take(6404 * 4);
    for (int i = 0; i < 6404; i++) ids[i] = i;
    rv_norm layer = { vector_of(D), vector_of(D), 1e-5f, D }, head = { vector_of(128), NULL, 1e-5f, 128 };
    float *values = vector_of(768);
    const double row = (double)ROWS * D, big_bytes = 8.0 * (1 << 28);
    double us = median_us([&](int i) { return cudaMemcpyAsync(big[i % 2].data, big[1 - i % 2].data, (size_t)4 << 28, cudaMemcpyDeviceToDevice, 0); });
    ceiling = big_bytes / us * 1e-3;
    printf("copy %.0f GB/s (read + written)\n", ceiling);
    line("LayerNorm 6405 x 1280, f32 to bf16", median_us([&](int i) { return rv_cuda_norm(h[i], x[i], layer, false, 0); }), row * 6);
    line("  .. overlapping", median_us([&](int i) { return rv_cuda_norm(h[i], x[i], layer, true, 0); }), row * 6);
    line("  .. the same rows again and again (cache)", median_us([&](int) { return rv_cuda_norm(h[0], x[0], layer, false, 0); }), row * 6);
    line("  .. f32 in place", median_us([&](int i) { return rv_cuda_norm(x[i], x[i], layer, false, 0); }), row * 8);
    line("  .. by the kernel for any shape", median_us([&](int i) { return rv_cuda_norm(h[i], odd[i], layer, false, 0); }), row * 6);
    line("RMS norm of keys, 6404 x 8 heads of 128, in place",
         median_us([&](int i) { rv_mat k = rv_cols(kv[i], 0, 1024); return rv_cuda_norm(k, k, head, false, 0); }), 6404.0 * 1024 * 4);
    line("tap copied, 6404 x 1280, f32 to bf16", median_us([&](int i) { return rv_cuda_copy(h[i], x[i], 0); }), row * 6);
    line("table rows added, 6404 x 1280", median_us([&](int i) { return rv_cuda_add_rows(rv_rows(x[i], 0, 6404), table, ids, 0.5f, 0); }), row * 10);
    line("five taps and the last state, f32, put together",
         median_us([&](int i) { return rv_cuda_concat_taps(features[i], rv_rows(x[i], 0, 6404), taps, 5, 0); }), row * (4 + 10 + 12));
    for (int rows : { 200, 2048 }) {
        char name[64];
        rv_mat wide[2] = { plain(rows, 28672, 0, RV_BF16), plain(rows, 28672, 0, RV_BF16) }, gated = plain(rows, 14336, 0, RV_BF16), odd_gated = plain(rows, 14336, 1, RV_BF16);
        snprintf(name, sizeof name, "SwiGLU, %d x 14336", rows);
        line(name, median_us([&](int i) { return rv_cuda_swiglu(gated, wide[i % 2], false, 0); }), rows * 14336.0 * 6);
        line("  .. one by one", median_us([&](int i) { return rv_cuda_swiglu(odd_gated, wide[i % 2], false, 0); }), rows * 14336.0 * 6);
    }
    line("patches of four tiles of bytes", median_us([&](int i) { return rv_cuda_patches(patches[i], bytes[i], values, 3, 14, 0); }), 4 * 940800.0 * 3);
    drop_all();
}

int main(int argc, char **argv) {
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    check_all();
    if (argc < 2 || strcmp(argv[1], "check")) time_all();
    printf("%d failed\n", failures);
    return failures > 0;
}
