/* absent.c - see absent.h. */
#include "kernels/absent.h"

#include <stdlib.h>

enum { PITCH = 16, FOUR_ROWS = 16, FOUR_COLS = 256, CHUNK_ROWS = 1024 };
static const uint64_t OWN_BYTES = (UINT64_C(112) * 1024 + 16) * 1024;     /* the matrix library's room, attention's, sums */
static const uint64_t LOAD_BYTES = UINT64_C(128) << 20;                              /* the loader's pinned ring      */

static uint64_t up(uint64_t n, uint64_t to) { return (n + to - 1) / to * to; }

static uint64_t weight_bytes(rv_backend *be, const rv_weight_spec *s) {
    const uint64_t rows = (uint64_t)s->rows, cols = (uint64_t)s->cols;
    (void)be;
    if (s->format == RV_FORMAT_PLAIN) return rows * cols * 2;
    if (s->format == RV_FORMAT_INT8) return up(rows * up(cols, PITCH), 256) + rows * sizeof(float);
    /* Whole records of 16 rows and 256 columns, and what rv_codes_bytes has besides codes. */
    return rv_codes_bytes(s->format, s->nested, (int64_t)up(rows, FOUR_ROWS), (int64_t)up(cols, FOUR_COLS));
}

static void *no_memory(rv_backend *be, uint64_t bytes) {
    (void)be, (void)bytes;
    return NULL;
}

static void nothing_to_release(rv_backend *be, void *memory) { (void)be, (void)memory; }
static void no_copy(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes) { (void)be, (void)lane, (void)dst, (void)host, (void)bytes; }
static void no_event(rv_backend *be, int32_t lane) { (void)be, (void)lane; }
static void no_record(rv_backend *be) { (void)be; }
static void no_choice(rv_backend *be, const rv_answering *a, rv_mat logits) { (void)be, (void)a, (void)logits; }
static void no_fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes) { (void)be, (void)tray, (void)src, (void)bytes; }
static void close_it(rv_backend *be) { free(be); }

rv_status rv_absent_open(rv_dtype act, rv_backend **out, rv_error *err) {
    static const rv_backend_ops ops = { .name = "absent GPU", .weight_bytes = weight_bytes, .close = close_it, .host_alloc = no_memory,
                                        .host_release = nothing_to_release, .bring = no_copy, .brought = no_event, .spent = no_event,
                                        .record = no_record, .choose = no_choice, .fetch = no_fetch };   /* steps run ahead: that takes memory */
    rv_backend *be = calloc(1, sizeof *be);
    if (!be) return rv_fail_memory(err, "memory plan");
    *be = (rv_backend){ .ops = &ops, .act = act, .own_bytes = OWN_BYTES, .load_bytes = LOAD_BYTES, .chunk_rows = CHUNK_ROWS };
    *out = be;
    return RV_OK;
}
