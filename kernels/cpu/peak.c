/* peak.c - what this CPU can do at most: reading and copying memory with all threads, and a large product.
 *
 * The one idea: the best of several runs, over a buffer that no cache holds: servers have last caches of hundreds of megabytes; read
 * in order, and in eight places side by side, as products read rows of weights: of one stream some CPUs have too few lines on their way.
 */
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "kernels/cpu/cpu.h"

enum { RUNS = 4, MOST_SIDE = 2048, FIRST_SIDE = 256 };
enum { ITEM_BYTES = 1 << 20 };
static const uint64_t MOST_BYTES = UINT64_C(2) << 30, LEAST_BYTES = UINT64_C(64) << 20, COPY_BYTES = UINT64_C(512) << 20;
static const double LONGEST_S = 0.1;     /* of one product */

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef struct region { char *data; uint64_t half, *sums; } region;

static void fill_item(void *context, int32_t item, int32_t thread) {
    region *r = context;
    (void)thread;
    memset(r->data + (uint64_t)item * ITEM_BYTES, item & 127, ITEM_BYTES);
}

/* An item in `streams` places side by side. */
__attribute__((no_sanitize("address", "thread", "undefined"), always_inline))  /* else it is the sanitizer that is measured */
static inline void read_in(region *r, int32_t item, size_t streams) {
    const uint64_t *p = (const uint64_t *)(const void *)(r->data + (uint64_t)item * ITEM_BYTES);
    const size_t words = ITEM_BYTES / streams / sizeof *p;
    uint64_t sums[8] = { 0 };
    for (size_t i = 0; i < words; i += 8)
        for (size_t s = 0; s < streams; s++)
            for (size_t k = 0; k < 8; k++) sums[k] += p[s * words + i + k];
    for (size_t k = 0; k < 8; k++) r->sums[item] += sums[k];     /* kept, so that the reads are */
}

__attribute__((no_sanitize("address", "thread", "undefined")))
static void read_item(void *context, int32_t item, int32_t thread) {
    (void)thread;
    read_in(context, item, 1);
}

__attribute__((no_sanitize("address", "thread", "undefined")))
static void read_streams_item(void *context, int32_t item, int32_t thread) {
    (void)thread;
    read_in(context, item, 8);
}

static void copy_item(void *context, int32_t item, int32_t thread) {
    region *r = context;
    char *from = r->data + (uint64_t)item * ITEM_BYTES;
    (void)thread;
    memcpy(from + r->half, from, ITEM_BYTES);
}

static double best_seconds(rv_pool *pool, int32_t items, rv_pool_work *work, region *r) {
    double best = 1e30;
    for (int i = 0; i < RUNS; i++) {
        double start = now();
        rv_pool_run(pool, items, work, r);
        double s = now() - start;
        if (s < best) best = s;
    }
    return best;
}

/* 2 GiB, or half of what is free or allowed. */
static uint64_t buffer_bytes(uint64_t limit) {
    long pages = sysconf(_SC_AVPHYS_PAGES), page = sysconf(_SC_PAGESIZE);
    uint64_t unused = pages > 0 && page > 0 ? (uint64_t)pages * (uint64_t)page : 2 * MOST_BYTES;
    uint64_t half = (limit && limit < unused ? limit : unused) / 2 / ITEM_BYTES * ITEM_BYTES;
    return half < LEAST_BYTES ? LEAST_BYTES : half < MOST_BYTES ? half : MOST_BYTES;
}

static rv_status measure_memory(rv_cpu *cpu, uint64_t limit, rv_peak *out, rv_error *err) {
    uint64_t bytes = buffer_bytes(limit), taken = 0, copied = bytes < COPY_BYTES ? bytes : COPY_BYTES;
    int32_t items = (int32_t)(bytes / ITEM_BYTES);
    region r = { rv_cpu_huge(bytes, &taken), copied / 2, calloc((size_t)items, sizeof *r.sums) };
    rv_status st = r.data && r.sums ? RV_OK : rv_fail_memory(err, "measuring memory");
    if (st == RV_OK) {
        rv_pool_run(cpu->pool, items, fill_item, &r);
        out->bytes = bytes;
        double in_order = best_seconds(cpu->pool, items, read_item, &r), in_streams = best_seconds(cpu->pool, items, read_streams_item, &r);
        out->read = (double)bytes / (in_order < in_streams ? in_order : in_streams);
        out->copy = (double)copied / best_seconds(cpu->pool, (int32_t)(copied / 2 / ITEM_BYTES), copy_item, &r);
    }
    if (r.data) munmap(r.data, (size_t)taken);
    free(r.sums);
    return st;
}

/* Values of both signs around 1 in any of the operands' types. */
static void fill_values(void *data, rv_dtype type, int64_t n) {
    uint32_t state = 12345;
    for (int64_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        rv_cpu_store(data, type, i, (float)(int32_t)state * 0x1p-31f);
    }
}

/* Seconds of the best of several products of that side; 0 after an error. */
static double product_seconds(rv_backend *be, int32_t side) {
    int64_t n = (int64_t)side * side;
    uint64_t each = (uint64_t)n * rv_dtype_size(be->act);
    char *data = rv_device_alloc(be, 3 * each);
    if (!data) return 0;
    fill_values(data, be->act, 2 * n);
    rv_weight_spec spec = { .name = "square", .rows = side, .cols = side, .n_parts = 1, .part = { { data, be->act, side } },
                            .use = RV_USE_VISION };
    void *packed = rv_device_alloc(be, rv_weight_bytes(be, &spec) + 1);
    rv_weight *w = rv_weight_new(be, &spec, packed);
    double best = 1e30;
    for (int i = 0; i <= RUNS && best > 0 && (i < 2 || best < LONGEST_S); i++) {
        double start = now();
        rv_linear(be, rv_mat_of(data + 2 * each, side, side, be->act), rv_mat_of(data + each, side, side, be->act), w, NULL, RV_ACT_NONE);
        double s = rv_finish(be, NULL) ? 0 : now() - start;
        if (s < best) best = s;
    }
    rv_weight_free(be, w);
    rv_device_release(be, packed);
    rv_device_release(be, data);
    return best;
}

rv_status rv_cpu_peak(rv_backend *be, uint64_t limit, rv_peak *out, rv_error *err) {
    rv_peak peak = { 0 };
    rv_status st = measure_memory((rv_cpu *)be, limit, &peak, err);
    if (st) return st;
    double s = 0;
    for (int32_t side = FIRST_SIDE; side <= MOST_SIDE && 8 * s < LONGEST_S; side *= 2) {
        s = product_seconds(be, side);
        if ((st = rv_finish(be, err))) return st;
        double flop = 2.0 * side * side * side / s;
        if (flop > peak.flop) peak.flop = flop, peak.side = side;
    }
    *out = peak;
    return RV_OK;
}
