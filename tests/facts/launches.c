/* launches.c - which kernels the backend launches, with how many threads and how much shared memory; needs no GPU.
 *
 * The one idea: the linker puts this file between the backend and the runtime (--wrap): launches are written down instead
 * of run, so the backend's own operations, on matrices that do not exist, tell what they would ask of a GPU.
 * Prints a line a launch: launch KERNEL THREADS DYNAMIC_BYTES ALLOWED_BYTES GPU, the latter 70, 75, 80, 86 or 90.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cuda/open.h"

enum { KERNELS = 4096, MOST_SEEN = 256, KIB = 1024 };

/* The GPUs that are played: 8.6 stands for 8.9 too, which has as much shared memory. */
typedef struct gpu { int capability, arch, multiprocessors, shared_all, shared_block; } gpu;
static const gpu gpus[] = { { 70, 70, 80, 96 * KIB, 96 * KIB }, { 75, 70, 40, 64 * KIB, 64 * KIB }, { 80, 70, 108, 164 * KIB, 163 * KIB },
                            { 86, 70, 84, 100 * KIB, 99 * KIB }, { 90, 70, 132, 228 * KIB, 227 * KIB }, { 80, 80, 108, 164 * KIB, 163 * KIB }, { 86, 80, 84, 100 * KIB, 99 * KIB }, { 90, 80, 132, 228 * KIB, 227 * KIB },
                            { 90, 90, 132, 228 * KIB, 227 * KIB } };
static const gpu *played;
static struct kernel { const void *host; const char *name; int allowed, n; struct { unsigned threads; size_t bytes; int gpu; } seen[MOST_SEEN]; } kernels[KERNELS];
static int n_kernels;

static struct kernel *kernel_of(const void *host) {
    for (int i = 0; i < n_kernels; i++)
        if (kernels[i].host == host) return &kernels[i];
    fprintf(stderr, "an unknown kernel was launched\n");
    exit(1);
}

static cudaError_t launched(const void *host, dim3 grid, dim3 block, size_t bytes) {
    struct kernel *k = kernel_of(host);
    unsigned threads = block.x * block.y * block.z;
    if (!grid.x || !grid.y || !grid.z || grid.y > 65535 || grid.z > 65535) {
        fprintf(stderr, "%s: a grid of %u x %u x %u\n", k->name, grid.x, grid.y, grid.z);
        exit(1);
    }
    for (int i = 0; i < k->n; i++)
        if (k->seen[i].threads == threads && k->seen[i].bytes == bytes && k->seen[i].gpu == played->capability) return cudaSuccess;
    if (k->n < MOST_SEEN) {
        k->seen[k->n].gpu = played->capability;
        k->seen[k->n].threads = threads;
        k->seen[k->n++].bytes = bytes;
        printf("launch %s %u %zu %d %d\n", k->name, threads, bytes, k->allowed, played->capability);
    } else {
        fprintf(stderr, "%s: more than %d different launches\n", k->name, MOST_SEEN);
        exit(1);
    }
    return cudaSuccess;
}

/* ---- between backend and runtime ---- */

#define WRAP(result, name, parameters) result __wrap_##name parameters; result __wrap_##name parameters
WRAP(void, __cudaRegisterFunction, (void **module, const char *host, char *device, const char *name, int limit, uint3 *a, uint3 *b, dim3 *c, dim3 *d, int *e)) {
    (void)module, (void)device, (void)limit, (void)a, (void)b, (void)c, (void)d, (void)e;
    if (n_kernels < KERNELS) kernels[n_kernels++] = (struct kernel){ .host = host, .name = name };
}
WRAP(cudaError_t, __cudaGetKernel, (const void **kernel, const void *host)) { return *kernel = host, cudaSuccess; }
WRAP(cudaError_t, __cudaLaunchKernel, (const void *kernel, dim3 grid, dim3 block, void **args, size_t bytes, cudaStream_t s)) {
    (void)args, (void)s;
    return launched(kernel, grid, block, bytes);
}
WRAP(cudaError_t, cudaLaunchKernel, (const void *host, dim3 grid, dim3 block, void **args, size_t bytes, cudaStream_t s)) {
    (void)args, (void)s;
    return launched(host, grid, block, bytes);
}
WRAP(cudaError_t, cudaLaunchKernelExC, (const cudaLaunchConfig_t *config, const void *host, void **args)) {
    (void)args;
    return launched(host, config->gridDim, config->blockDim, config->dynamicSmemBytes);
}
WRAP(cudaError_t, cudaFuncSetAttribute, (const void *host, enum cudaFuncAttribute what, int value)) {
    if (what == cudaFuncAttributeMaxDynamicSharedMemorySize) kernel_of(host)->allowed = value;
    return cudaSuccess;
}
WRAP(cudaError_t, cudaGetLastError, (void)) { return cudaSuccess; }
WRAP(cudaError_t, cudaMemsetAsync, (void *p, int value, size_t n, cudaStream_t s)) { return (void)p, (void)value, (void)n, (void)s, cudaSuccess; }
WRAP(cudaError_t, cudaMemset2DAsync, (void *p, size_t pitch, int value, size_t w, size_t h, cudaStream_t s)) {
    return (void)p, (void)pitch, (void)value, (void)w, (void)h, (void)s, cudaSuccess;
}
WRAP(cublasStatus_t, cublasLtMatmulAlgoGetHeuristic, (cublasLtHandle_t lt, cublasLtMatmulDesc_t op, cublasLtMatrixLayout_t a, cublasLtMatrixLayout_t b,
     cublasLtMatrixLayout_t c, cublasLtMatrixLayout_t d, cublasLtMatmulPreference_t p, int most, cublasLtMatmulHeuristicResult_t *found, int *n)) {
    return (void)lt, (void)op, (void)a, (void)b, (void)c, (void)d, (void)p, (void)most, (void)found, (void)n, CUBLAS_STATUS_NOT_INITIALIZED;
}
WRAP(cudaError_t, cudaGetDevice, (int *device)) { return *device = 0, cudaSuccess; }
WRAP(cudaError_t, cudaDeviceGetAttribute, (int *value, enum cudaDeviceAttr what, int device)) {
    (void)device;
    switch ((int)what) {
    case cudaDevAttrMaxSharedMemoryPerMultiprocessor: *value = played->shared_all; break;
    case cudaDevAttrMaxSharedMemoryPerBlockOptin: *value = played->shared_block; break;
    case cudaDevAttrReservedSharedMemoryPerBlock: *value = KIB; break;
    case cudaDevAttrCooperativeLaunch: *value = 1; break;
    case cudaDevAttrMultiProcessorCount: *value = played->multiprocessors; break;
    default: fprintf(stderr, "device attribute %d is not played\n", (int)what); exit(1);
    }
    return cudaSuccess;
}
/* The driver's functions, of which tensor maps are the only ones asked for. */
static int do_nothing(void) { return 0; }
WRAP(cudaError_t, cudaGetDriverEntryPoint, (const char *name, void **f, unsigned long long flags, int *how)) {
    void (*nothing)(void) = (void (*)(void))do_nothing;
    (void)name, (void)flags;
    memcpy(f, &nothing, sizeof *f);
    if (how) *how = 0;
    return cudaSuccess;
}
WRAP(cudaError_t, cudaGetDriverEntryPointByVersion, (const char *name, void **f, unsigned version, unsigned long long flags, int *how)) {
    (void)version;
    return __wrap_cudaGetDriverEntryPoint(name, f, flags, how);
}

/* ---- a model's operations on memory that is not there ---- */

static char *const nowhere = (char *)(uintptr_t)(1 << 20);
static rv_mat mat(int32_t rows, int32_t cols, rv_dtype type) { return rv_mat_of(nowhere, rows, cols, type); }

typedef struct shape { int32_t hidden, heads, kv_heads, head, ff; } shape;

/* Large products want cuBLASLt, which does not start here: what is launched beside them counts. */
static void go_on(rv_backend *be, const char *what) {
    if (be->error.code && !strstr(be->error.message, "cuBLASLt")) {
        fprintf(stderr, "%s: %s\n", what, be->error.message);
        exit(1);
    }
    be->error = (rv_error){ 0 };
}

static rv_format format;                 /* of the weights; 4 bits where the columns allow it    */

/* To be dropped. */
static const rv_weight *weight(rv_backend *be, struct rv_weight *w, int32_t rows, int32_t cols, rv_weight_order order) {
    const int32_t parts = order == RV_ORDER_GATE_UP ? 2 : 1;
    rv_weight_spec s = { .name = "a weight", .rows = rows, .cols = cols, .n_parts = parts, .part = { { .rows = rows / parts }, { .rows = rows / parts } }, .use = RV_USE_TEXT,
                         .order = order, .format = RV_FORMAT_NF4, .nested = true, .filled = true };
    const bool four = format == RV_FORMAT_NF4;
    *w = (struct rv_weight){ .head = { rows, cols, RV_USE_TEXT, order, four ? RV_FORMAT_PLAIN : format }, .w = mat(rows, cols, be->act), .codes = (int8_t *)nowhere,
                             .scale = (float *)(void *)nowhere, .pitch = (cols + 15) / 16 * 16 };
    if (!four || cols % RV_BLOCK4) return w;
    rv_weight *made = rv_weight_new(be, &s, nowhere);
    if (!made) go_on(be, "a weight of 4 bits"), exit(1);
    *w = *made;
    free(made);
    return w;
}
static void drop(rv_backend *be, struct rv_weight *w) { rv_cuda_four_drop((rv_cuda *)be, w); }

static void attention(rv_backend *be, shape s, int32_t rows, int32_t longest) {
    const int32_t *ints = (const int32_t *)(void *)nowhere;
    rv_attention a = { .q = mat(rows, s.heads * s.head, be->act), .out = mat(rows, s.heads * s.head, be->act), .slot = ints, .first = ints, .last = ints,
                       .heads = s.heads, .kv_heads = s.kv_heads, .longest = longest, .scale = 0.1f };
    a.kv = (rv_kv){ .k = mat(longest, s.kv_heads * s.head, be->act), .v = mat(longest, s.kv_heads * s.head, be->act), .bias = (const float *)(void *)nowhere };
    rv_attend(be, &a);
    go_on(be, "attend");
}

static void products(rv_backend *be, shape s, int32_t rows) {
    struct rv_weight w;
    const float *floats = (const float *)(void *)nowhere;
    rv_mat x = mat(rows, s.hidden, be->act), residual = mat(rows, s.hidden, RV_F32);
    rv_linear(be, mat(rows, s.ff, be->act), x, weight(be, &w, s.ff, s.hidden, RV_ORDER_STACKED), floats, RV_ACT_GELU);
    go_on(be, "linear");
    rv_linear(be, mat(rows, s.ff, RV_F32), x, &w, NULL, RV_ACT_NONE);
    go_on(be, "linear");
    drop(be, &w);
    rv_linear_add(be, residual, mat(rows, s.ff, be->act), weight(be, &w, s.hidden, s.ff, RV_ORDER_STACKED), floats, 1, NULL);
    go_on(be, "linear_add");
    rv_linear_add(be, residual, mat(rows, s.ff, be->act), &w, NULL, 1, floats);
    go_on(be, "linear_add");
    drop(be, &w);
    const rv_mat taps[] = { x, x, x, x, x };
    rv_concat_taps(be, mat(rows, 6 * s.hidden, be->act), x, taps, 5);
    go_on(be, "concat_taps");
    rv_norm_rows(be, x, residual, (rv_norm){ floats, NULL, 1e-5f, s.hidden });
    rv_norm_rows(be, x, residual, (rv_norm){ floats, floats, 1e-5f, s.hidden });
    go_on(be, "norm");
}

/* As the decoder asks for many rows: a norm inside, gate and up together; where there is no such kernel, nothing is launched. */
static void normed(rv_backend *be, shape s, int32_t rows) {
    struct rv_weight w;
    const rv_norm n = { (const float *)(void *)nowhere, NULL, 1e-5f, s.hidden };
    rv_mat x = mat(rows, s.hidden, RV_F32);
    weight(be, &w, 2 * s.ff, s.hidden, RV_ORDER_GATE_UP);
    rv_linear_normed(be, mat(rows, s.ff, be->act), x, n, &w, true);
    rv_linear_normed(be, mat(rows, 2 * s.ff, be->act), x, n, &w, false);
    go_on(be, "linear_normed");
    rv_linear(be, mat(rows, 2 * s.ff, be->act), mat(rows, s.hidden, be->act), &w, NULL, RV_ACT_NONE);
    go_on(be, "linear");
    drop(be, &w);
}

static void decoder_layer(rv_backend *be, shape s, int32_t rows, bool self) {
    struct rv_weight in, o, gate_up, down;
    const int32_t *ints = (const int32_t *)(void *)nowhere;
    const float *floats = (const float *)(void *)nowhere;
    const rv_norm n = { floats, NULL, 1e-5f, s.hidden };
    int32_t q = s.heads * s.head, kv = s.kv_heads * s.head, wide = self ? q + 2 * kv : q;
    rv_decoder_block b = { .x = mat(rows, s.hidden, RV_F32), .h = mat(rows, s.hidden, be->act), .qkv = mat(rows, wide, be->act), .ff = mat(rows, s.ff, be->act),
                           .norm1 = n, .norm2 = n, .q_norm = { floats, NULL, 1e-5f, s.head }, .attn_gate = 1, .mlp_gate = 1, .row_on = self ? NULL : floats,
                           .cos_sin = self ? floats : NULL, .pos = self ? ints : NULL };
    b.in = weight(be, &in, wide, s.hidden, RV_ORDER_STACKED);
    b.o = weight(be, &o, s.hidden, q, RV_ORDER_STACKED);
    b.gate_up = weight(be, &gate_up, 2 * s.ff, s.hidden, RV_ORDER_GATE_UP);
    b.down = weight(be, &down, s.hidden, s.ff, RV_ORDER_STACKED);
    b.attention = (rv_attention){ .q = rv_cols(b.qkv, 0, q), .out = mat(rows, q, be->act), .slot = ints, .first = self ? NULL : ints, .last = ints,
                                  .heads = s.heads, .kv_heads = s.kv_heads, .longest = 4096, .scale = 0.1f };
    b.attention.kv = (rv_kv){ .k = mat(64 * 64, kv, be->act), .v = mat(64 * 64, kv, be->act), .pages = ints, .page_rows = 64, .max_pages = 64 };
    rv_decoder_layer(be, &b);
    go_on(be, "decoder layer");
    rv_decoder_layers(be, &b, 1);
    go_on(be, "decoder layers");
    struct rv_weight *all[] = { &in, &o, &gate_up, &down };
    for (int i = 0; i < 4; i++) drop(be, all[i]);
}

static void launch_all(const gpu *g, rv_dtype act, bool plain) {
    played = g;
    /* The text decoders of 11B and 90B, heads of 64, the vision tower, heads that only the plain kernel takes. */
    static const shape shapes[] = { { 4096, 32, 8, 128, 14336 }, { 8192, 64, 8, 128, 28672 }, { 512, 8, 2, 64, 1536 }, { 1280, 16, 16, 80, 5120 }, { 160, 5, 5, 32, 320 } };
    static const int32_t rows[] = { 1, 2, 3, 4, 8, 16, 17, 32, 64, 65, 512, 1024, 1601, 6404 };
    rv_cuda c = { .arch = g->arch, .int8 = { 6, plain }, .overlap = g->arch >= 90, .plain_attention = plain, .multiprocessors = g->multiprocessors, .workspace = nowhere, .partial = nowhere, .sums = nowhere };
    rv_cuda_fill(&c.be, act);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        for (size_t r = 0; r < sizeof rows / sizeof *rows; r++) {
            attention(&c.be, shapes[i], rows[r], 6404);
            products(&c.be, shapes[i], rows[r]);
            normed(&c.be, shapes[i], rows[r]);
            if (rows[r] <= RV_FEW_ROWS) {
                decoder_layer(&c.be, shapes[i], rows[r], true);
                decoder_layer(&c.be, shapes[i], rows[r], false);
            }
        }
}

int main(void) {
    for (size_t i = 0; i < sizeof gpus / sizeof *gpus; i++)
        for (int how = 0; how < 12; how++) {
            format = how < 4 ? RV_FORMAT_PLAIN : how < 8 ? RV_FORMAT_INT8 : RV_FORMAT_NF4;
            if (gpus[i].arch == 70 && !(how & 1)) continue;          /* no bf16 */
            launch_all(&gpus[i], how & 1 ? RV_F16 : RV_BF16, how & 2);
        }
    return 0;
}
