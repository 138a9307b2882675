/* products.c - oneDNN and OpenBLAS, on square matrices and on those of a case: see products.h.
 *
 * The one idea: oneDNN is part of the build and called as it is; OpenBLAS is not needed for anything else, so it is looked for at run time.
 */
#include "bench/products.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#ifdef RV_ONEDNN
#include <dnnl.h>
#endif

#include "bench/series.h"

enum { RUNS = 5, ALIGN = 4096 };

/* Values of both signs between 1/128 and 1. */
static void fill(uint16_t *to, size_t n) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        to[i] = (uint16_t)((state >> 16 & 0x83ffu) | 0x3c00u);
    }
}

/* The number of threads of a library that has such a function; looked up, so that none has to be linked. */
static void set_threads(void *library, const char *name, uint64_t threads) {
    void *found = dlsym(library, name);
    void (*set)(int);
    if (!found || !threads) return;
    memcpy(&set, &found, sizeof set);            /* ISO C has no cast from void * to a function  */
    set((int)threads);
}

/* ---- oneDNN ---- */

#ifdef RV_ONEDNN
enum { SRC, WEIGHTS, DST, ARGS };

struct library_product {
    product_size          size;
    dnnl_engine_t         engine;
    dnnl_stream_t         stream;
    dnnl_primitive_desc_t pd;
    dnnl_primitive_t      product;
    dnnl_memory_t         memory[ARGS];
    void                 *data[ARGS];
};

static dnnl_status_t describe(library_product *s, dnnl_data_type_t type) {
    const product_size p = s->size;
    const dnnl_dims_t dims[ARGS] = { { p.rows, p.inner }, { p.inner, p.cols }, { p.rows, p.cols } };
    dnnl_memory_desc_t md[ARGS];
    dnnl_matmul_desc_t op;
    dnnl_status_t st = dnnl_success;
    for (int i = 0; !st && i < ARGS; i++) st = dnnl_memory_desc_init_by_tag(&md[i], 2, dims[i], type, i == WEIGHTS ? dnnl_format_tag_any : dnnl_ab);
    if (!st) st = dnnl_matmul_desc_init(&op, &md[SRC], &md[WEIGHTS], NULL, &md[DST]);
    if (!st) st = dnnl_primitive_desc_create(&s->pd, &op, NULL, s->engine, NULL);
    return st ? st : dnnl_primitive_create(&s->product, s->pd);
}

static dnnl_status_t make(library_product *s, dnnl_data_type_t type) {
    static const dnnl_query_t what[ARGS] = { dnnl_query_src_md, dnnl_query_weights_md, dnnl_query_dst_md };
    dnnl_status_t st = dnnl_engine_create(&s->engine, dnnl_cpu, 0);
    if (!st) st = dnnl_stream_create(&s->stream, s->engine, dnnl_stream_default_flags);
    if (!st) st = describe(s, type);
    for (int i = 0; !st && i < ARGS; i++) {
        const dnnl_memory_desc_t *md = dnnl_primitive_desc_query_md(s->pd, what[i], 0);
        size_t bytes = (dnnl_memory_desc_get_size(md) + ALIGN - 1) / ALIGN * ALIGN;
        if (!(s->data[i] = aligned_alloc(ALIGN, bytes))) return dnnl_out_of_memory;
        fill(s->data[i], bytes / 2);             /* f32: two of them are one                     */
        st = dnnl_memory_create(&s->memory[i], md, s->engine, s->data[i]);
    }
    return st;
}

double library_product_run(library_product *s) {
    dnnl_exec_arg_t args[ARGS] = { { DNNL_ARG_SRC, s->memory[SRC] }, { DNNL_ARG_WEIGHTS, s->memory[WEIGHTS] }, { DNNL_ARG_DST, s->memory[DST] } };
    double start = now_ms();
    if (dnnl_primitive_execute(s->product, s->stream, ARGS, args) || dnnl_stream_wait(s->stream)) return 0;
    double ms = now_ms() - start;
    return ms > 0 ? 2e3 * s->size.rows * s->size.cols * s->size.inner / ms : 0;
}

void library_product_free(library_product *s) {
    for (int i = 0; s && i < ARGS; i++) {
        if (s->memory[i]) dnnl_memory_destroy(s->memory[i]);
        free(s->data[i]);
    }
    if (s && s->product) dnnl_primitive_destroy(s->product);
    if (s && s->pd) dnnl_primitive_desc_destroy(s->pd);
    if (s && s->stream) dnnl_stream_destroy(s->stream);
    if (s && s->engine) dnnl_engine_destroy(s->engine);
    free(s);
}

library_product *library_product_new(uint64_t threads, product_size p, rv_compute compute) {
    if (compute != RV_COMPUTE_BF16 && compute != RV_COMPUTE_F32) return NULL;
    library_product *s = calloc(1, sizeof *s);
    if (!s) return NULL;
    s->size = p;
    set_threads(RTLD_DEFAULT, "omp_set_num_threads", threads);
    if (!make(s, compute == RV_COMPUTE_BF16 ? dnnl_bf16 : dnnl_f32) && library_product_run(s) > 0) return s;
    library_product_free(s);
    return NULL;
}

/* FLOP a second, the best of several; 0 where it cannot. */
static double onednn_rate(uint64_t threads, int side, rv_compute compute) {
    library_product *s = library_product_new(threads, (product_size){ side, side, side }, compute);
    double best = 0;
    for (int i = 0; s && i < RUNS; i++) {
        double rate = library_product_run(s);
        if (rate > best) best = rate;
    }
    library_product_free(s);
    return best;
}

static void measure_onednn(uint64_t threads, library_products *best) {
    static const int sides[] = { 1024, 2048 };
    for (size_t i = 0; i < sizeof sides / sizeof *sides; i++) {
        double rate = onednn_rate(threads, sides[i], RV_COMPUTE_BF16);
        if (rate > best->onednn_bf16) best->onednn_bf16 = rate, best->side = sides[i];
    }
    double rate = onednn_rate(threads, 1024, RV_COMPUTE_F32);
    if (rate > best->onednn_f32) best->onednn_f32 = rate;
}
#else
library_product *library_product_new(uint64_t threads, product_size p, rv_compute compute) { return (void)threads, (void)p, (void)compute, NULL; }
double library_product_run(library_product *p) { return (void)p, 0; }
void library_product_free(library_product *p) { (void)p; }
static void measure_onednn(uint64_t threads, library_products *best) { (void)threads, (void)best; }
#endif

/* ---- OpenBLAS ---- */

typedef void sgemm_fn(int order, int ta, int tb, int m, int n, int k, float alpha, const float *a, int lda, const float *b, int ldb,
                      float beta, float *c, int ldc);
enum { ROW_MAJOR = 101, AS_IT_IS = 111, SIDE = 1024 };

static double sgemm_rate(sgemm_fn *sgemm) {
    const size_t bytes = (size_t)SIDE * SIDE * sizeof(float);
    float *data = aligned_alloc(ALIGN, 3 * bytes), *a = data, *b = data + bytes / 4, *c = data + bytes / 2;
    double best = 0;
    if (!data) return 0;
    fill((uint16_t *)(void *)data, 3 * bytes / 2);
    for (int i = 0; i <= RUNS; i++) {
        double start = now_ms();
        sgemm(ROW_MAJOR, AS_IT_IS, AS_IT_IS, SIDE, SIDE, SIDE, 1, a, SIDE, b, SIDE, 0, c, SIDE);
        double rate = 2e3 * SIDE * SIDE * SIDE / (now_ms() - start);
        if (i > 0 && rate > best) best = rate;
    }
    free(data);
    return best;
}

static void measure_openblas(uint64_t threads, library_products *best) {
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL), *found = library ? dlsym(library, "cblas_sgemm") : NULL;
    sgemm_fn *sgemm;
    if (!found) return;                          /* not closed again where it was: its threads live on */
    set_threads(library, "openblas_set_num_threads", threads);
    memcpy(&sgemm, &found, sizeof sgemm);
    double rate = sgemm_rate(sgemm);
    if (rate > best->openblas_f32) best->openblas_f32 = rate;
}

void measure_libraries(uint64_t threads, library_products *best) {
    measure_onednn(threads, best);
    measure_openblas(threads, best);
}

/* ---- what is told ---- */

void libraries_are_the_ceiling(const library_products *l, rv_ceilings *c) {
    double f32 = l->onednn_f32 > l->openblas_f32 ? l->onednn_f32 : l->openblas_f32;
    double rate = c->compute == RV_COMPUTE_BF16 ? l->onednn_bf16 : c->compute == RV_COMPUTE_F32 ? f32 : 0;
    if (rate > 0) c->flop_s = rate;
}

void print_libraries(const library_products *l) {
    const struct { const char *name; double rate; } all[] = { { "oneDNN bf16", l->onednn_bf16 }, { "oneDNN f32", l->onednn_f32 }, { "OpenBLAS f32", l->openblas_f32 } };
    printf("libraries  ");
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        printf("%s%s %s", i ? ", " : "", all[i].name, all[i].rate > 0 ? rate_text(all[i].rate, "FLOP").text : "absent");
    printf(": %% of product below is of the library's, in the operands' type\n\n");
}

json_t *libraries_json(const library_products *l) {
    return json_pack("{s:f, s:f, s:f}", "onednn_bf16_flop_s", l->onednn_bf16, "onednn_f32_flop_s", l->onednn_f32, "openblas_f32_flop_s", l->openblas_f32);
}
