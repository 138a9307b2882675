/* helpers.h - what the kernel tests share: levels, random numbers, the error rule.
 *
 * The one idea: a kernel is right when its error against f64 is at most twice that of a plain
 * f32 loop over the same inputs, plus a floor of a few units in the last place of the output.
 */
#ifndef RV_TESTS_KERNELS_HELPERS_H
#define RV_TESTS_KERNELS_HELPERS_H
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "kernels/cpu/cpu.h"

/* One way to run the CPU backend. */
typedef struct setup { rv_cpu_level level; rv_dtype act; bool onednn; } setup;

static inline const char *setup_name(setup s) {
    static const char *const names[CPU_LEVELS] = { "reference", "base", "avx2", "avx512", "avx512-bf16", "amx" };
    static char text[64];
    snprintf(text, sizeof text, "%s %s%s", names[s.level], s.act == RV_F32 ? "f32" : "bf16", s.onednn ? " oneDNN" : "");
    return text;
}

/* Every setup this CPU and build can run; returns how many. With RV_TEST_SCOPES only bf16 by kernels of one's own where base and avx2 have none. */
static inline int all_setups(setup out[3 * CPU_LEVELS]) {
    int n = 0;
    for (rv_cpu_level level = CPU_REFERENCE; level < CPU_LEVELS; level++) {
        if (!rv_cpu_has_level(level)) continue;
#ifdef RV_TEST_SCOPES
        if (level >= CPU_AVX512_BF16) out[n++] = (setup){ level, RV_BF16, false };
        continue;
#endif
        out[n++] = (setup){ level, RV_F32, false };
        out[n++] = (setup){ level, RV_BF16, false };
        if (level >= CPU_AVX512_BF16 && strcmp(rv_cpu_library(), "none")) out[n++] = (setup){ level, RV_BF16, true };
    }
    return n;
}

static inline rv_backend *open_setup(setup s, int threads) {
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options o = { .threads = threads, .act = s.act };
    if (rv_cpu_open_level(&o, s.level, s.onednn, &be, &err)) fail_msg("%s", err.message);
    return be;
}

static inline uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}
static inline float random_float(uint32_t *state) { return (float)next_random(state) / 8388608.0f - 1.0f; }
static inline float random_integer(uint32_t *state) { return (float)(int)(next_random(state) % 7) - 3.0f; }

/* A value as an element of a type, and back. */
static inline void put(void *p, rv_dtype type, int64_t i, float f) {
    if (type != RV_F16) {
        rv_cpu_store(p, type, i, f);
        return;
    }
    uint32_t bits;                               /* f16: normal numbers only, cut                  */
    uint16_t h = 0;
    memcpy(&bits, &f, 4);
    int e = (int)(bits >> 23 & 0xff) - 112;
    if (e > 0) h = (uint16_t)((bits >> 16 & 0x8000) | (uint32_t)e << 10 | (bits >> 13 & 0x3ff));
    memcpy((char *)p + 2 * i, &h, 2);
}
static inline float get(const void *p, rv_dtype type, int64_t i) { return rv_cpu_load(p, type, i); }

/* Memory of n elements aligned to an element only. */
static inline void *odd_memory(int64_t n, rv_dtype type) {
    char *p = calloc(1, (size_t)n * rv_dtype_size(type) + 4);
    assert_non_null(p);
    return p + 4;
}
static inline void free_odd(void *p) { if (p) free((char *)p - 4); }

/* The same for weights, aligned to nothing: safetensors promise no more. */
static inline void *odd_weights(int64_t n, rv_dtype type) {
    char *p = calloc(1, (size_t)n * rv_dtype_size(type) + 3);
    assert_non_null(p);
    return p + 3;
}
static inline void free_weights(void *p) { if (p) free((char *)p - 3); }

static inline void fill(void *p, rv_dtype type, int64_t n, bool integers, uint32_t seed) {
    uint32_t state = seed * 2654435761u + 1;
    for (int64_t i = 0; i < n; i++) put(p, type, i, integers ? random_integer(&state) : random_float(&state));
}

/* The rule above.  `naive` and `got` against `exact`, `unit` the rounding of the output's type. */
static inline void check_error(const char *what, double got, double naive, double exact, double worst_naive, double unit) {
    (void)naive;
    double error = fabs(got - exact), allowed = 2 * worst_naive + unit * (fabs(exact) + 1e-3);
    if (!(error <= allowed)) fail_msg("%s: got %.9g, exact %.9g: error %.3g, allowed %.3g", what, got, exact, error, allowed);
}
/* What a problem's results should be: n values, which its check fills where `there` is not yet set. Levels share them, since a problem's
 * data depend on its fields and the operands' type alone; kept until the program ends. */
typedef struct expected {
    struct expected *next;
    double *values, worst;                       /* worst: the largest error of a plain f32 loop   */
    bool    there;
    int     variant;                             /* of the data: the operands' type                */
    size_t  bytes;
    char    problem[];
} expected;

static inline expected *expected_of(const void *problem, size_t bytes, int variant, int64_t n) {
    static expected *all;
    for (expected *e = all; e; e = e->next)
        if (e->bytes == bytes && e->variant == variant && memcmp(e->problem, problem, bytes) == 0) return e;
    expected *e = calloc(1, sizeof *e + bytes);
    assert_non_null(e);
    *e = (expected){ .next = all, .values = malloc((size_t)n * sizeof *e->values), .variant = variant, .bytes = bytes };
    memcpy(e->problem, problem, bytes);
    return all = e;
}
static inline double unit_of(rv_dtype type) { return type == RV_F32 ? 2e-7 : 4.1e-3; }
#endif
