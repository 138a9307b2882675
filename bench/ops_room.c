/* ops_room.c - arguments of single operations: see ops.h. */
#include <stdlib.h>
#include <string.h>

#include "bench/ops.h"

void *op_take(ops *o, op *c, uint64_t bytes) {
    if (c->n_held == MOST_HELD) {
        rv_fail(&o->be->error, RV_ERR_INTERNAL, "%s: more arguments than there is room for", c->name);
        return NULL;
    }
    void *p = rv_device_alloc(o->be, bytes);
    if (p) c->held[c->n_held++] = p;
    return p;
}

/* Of the run's random values, as `type`. */
static void upload_values(ops *o, void *to, uint64_t n, rv_dtype type) {
    enum { PIECE = 1 << 16 };
    const uint16_t *from = (const uint16_t *)(const void *)o->random;
    uint64_t have = o->random_bytes / 2;
    uint32_t room[PIECE];
    for (uint64_t done = 0; done < n;) {
        uint64_t at = done % have, k = n - done < PIECE ? n - done : PIECE;
        if (k > have - at) k = have - at;
        for (uint64_t i = 0; i < k; i++) {
            if (type == RV_F32) room[i] = (uint32_t)from[at + i] << 16;
            else ((uint16_t *)room)[i] = type == RV_BF16 ? from[at + i] : rv_f32_to_f16(rv_bf16_to_f32(from[at + i]));
        }
        rv_upload(o->be, (char *)to + done * rv_dtype_size(type), room, k * rv_dtype_size(type));
        done += k;
    }
}

rv_mat op_matrix(ops *o, op *c, int32_t rows, int32_t cols, rv_dtype type) {
    uint64_t n = (uint64_t)rows * (uint64_t)cols;
    void *data = op_take(o, c, n * rv_dtype_size(type));
    if (data) upload_values(o, data, n, type);
    return rv_mat_of(data, rows, cols, type);
}

float *op_floats(ops *o, op *c, int32_t n, float value) {
    uint64_t bytes = (uint64_t)n * sizeof(float);
    float *to = op_take(o, c, bytes), *host = malloc(bytes);
    if (!host) rv_fail_memory(&o->be->error, c->name);
    for (int32_t i = 0; host && i < n; i++) host[i] = value;
    if (to && host) rv_upload(o->be, to, host, bytes);
    free(host);
    return to;
}

int32_t *op_counting(ops *o, op *c, int32_t n, int32_t first, int32_t step) {
    uint64_t bytes = (uint64_t)n * sizeof(int32_t);
    int32_t *to = op_take(o, c, bytes), *host = malloc(bytes);
    if (!host) rv_fail_memory(&o->be->error, c->name);
    for (int32_t i = 0; host && i < n; i++) host[i] = first + i * step;
    if (to && host) rv_upload(o->be, to, host, bytes);
    free(host);
    return to;
}

/* Parts point into the random values; copies at other places, for a backend that reads them there. */
rv_weight *op_weight(ops *o, op *c, int32_t rows, int32_t cols, rv_weight_use use, bool gate_up, rv_format format, int32_t copy) {
    uint64_t all = (uint64_t)rows * (uint64_t)cols * 2;
    rv_weight_spec spec = { .name = c->name, .rows = rows, .cols = cols, .use = use, .order = gate_up ? RV_ORDER_GATE_UP : RV_ORDER_STACKED,
                            .format = format, .nested = true };
    spec.n_parts = gate_up ? 2 : all > o->random_bytes && rows % 3 == 0 ? 3 : 1;
    uint64_t each = all / (uint64_t)spec.n_parts, room = each < o->random_bytes ? o->random_bytes - each : 0;
    if (each > o->random_bytes) {
        rv_fail(&o->be->error, RV_ERR_INTERNAL, "%s: larger than the random values", c->name);
        return NULL;
    }
    for (int32_t i = 0; i < spec.n_parts; i++) {
        uint64_t at = room ? ((uint64_t)(copy * spec.n_parts + i) * each) % room / 256 * 256 : 0;
        spec.part[i] = (rv_weight_part){ o->random + at, RV_BF16, rows / spec.n_parts, NULL };
    }
    uint64_t bytes = rv_weight_bytes(o->be, &spec);
    if (o->be->error.code == RV_ERR_UNSUPPORTED) {               /* a format this backend does not have */
        o->be->error = (rv_error){ 0 };
        c->cannot = true;
        return NULL;
    }
    return rv_weight_new(o->be, &spec, bytes ? op_take(o, c, bytes) : NULL);
}

/* Page tables are as long as a session's; what lies beyond the keys points at the last page. */
static int32_t *page_table(ops *o, op *c, int32_t slots, int32_t pages, int32_t most) {
    uint64_t bytes = (uint64_t)slots * (uint64_t)most * sizeof(int32_t);
    int32_t *to = op_take(o, c, bytes), *host = malloc(bytes);
    if (!host) rv_fail_memory(&o->be->error, c->name);
    for (int32_t i = 0; host && i < slots * most; i++) host[i] = i / most * pages + (i % most < pages ? i % most : pages - 1);
    if (to && host) rv_upload(o->be, to, host, bytes);
    free(host);
    return to;
}

rv_kv op_cache(ops *o, op *c, int32_t slots, int32_t keys, int32_t page, int32_t context) {
    int32_t pages = (keys + page - 1) / page, most = (context + page - 1) / page, width = o->s->kv_heads * o->s->head_dim;
    rv_mat k = op_matrix(o, c, slots * pages * page, width, o->be->act), v = op_matrix(o, c, slots * pages * page, width, o->be->act);
    return (rv_kv){ .k = k, .v = v, .pages = page_table(o, c, slots, pages, most), .page_rows = page, .max_pages = most };
}

rv_mat op_room(ops *o, op *c, int32_t rows, int32_t cols, rv_dtype type) {
    return rv_mat_of(op_take(o, c, (uint64_t)rows * (uint64_t)cols * rv_dtype_size(type)), rows, cols, type);
}

int32_t op_copies(const ops *o, double bytes) {
    double n = bytes > 0 ? (double)o->beyond_caches / bytes + 1 : 1;
    return n > MOST_COPIES ? MOST_COPIES : (int32_t)n;
}

void op_drop(ops *o, op *c) {
    rv_finish(o->be, NULL);
    for (int32_t i = 0; i < MOST_COPIES; i++) rv_weight_free(o->be, c->w[i]);
    for (size_t i = 0; i < c->n_held; i++) rv_device_release(o->be, c->held[i]);
}
