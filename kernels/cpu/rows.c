/* rows.c - the operations that treat one row at a time.
 *
 * The one idea: each is a function of one row; a few thousand elements make an item, so small
 * calls stay on the caller's thread.
 */
#include <math.h>
#include "kernels/cpu/cpu.h"

enum { ITEM_ELEMENTS = 16384 };

typedef struct rows_job rows_job;
struct rows_job {
    void (*row)(rows_job *, int32_t r);
    rv_cpu *cpu;
    const char *name;
    int32_t rows, per_item;
    rv_mat out, x, v;            /* v: the second input of kv_store                            */
    const rv_weight *table;
    const int32_t *ids, *slot;
    float scale;
    const rv_norm *norm;
    const float *cos_sin, *values;
    const rv_kv *kv;
    const rv_mat *taps;
    int32_t n;                   /* channels, head_dim or taps                                 */
    int32_t patch;
    _Atomic int32_t bad_row;     /* a row whose id or position is out of range, plus one       */
};

static void rows_item(void *context, int32_t item, int32_t thread) {
    rows_job *j = context;
    (void)thread;
    int32_t from = item * j->per_item, left = j->rows - from, n = left < j->per_item ? left : j->per_item;
    for (int32_t r = from; r < from + n; r++) j->row(j, r);
}

static void run(rv_backend *be, const char *name, rows_job *j, int32_t rows, int32_t cols) {
    j->cpu = (rv_cpu *)be;
    j->rows = rows;
    if (rows <= 0 || cols <= 0) return;
    j->per_item = cols >= ITEM_ELEMENTS ? 1 : ITEM_ELEMENTS / cols;
    rv_pool_run(j->cpu->pool, (rows - 1) / j->per_item + 1, rows_item, j);
    int32_t bad = atomic_load(&j->bad_row);
    if (bad) rv_fail(&be->error, RV_ERR_INTERNAL, "%s: row %d names a position outside its table", name, (int)bad - 1);
}

static void zero_row(rows_job *j, int32_t r) {
    memset(rv_cpu_row(j->out, r), 0, (size_t)j->out.cols * rv_dtype_size(j->out.type));
}

static void zero(rv_backend *be, rv_mat x) {
    rows_job j = { .row = zero_row, .out = x };
    run(be, "zero", &j, x.rows, x.cols);
}

static void copy_row(rows_job *j, int32_t r) {
    j->cpu->kernels->convert(rv_cpu_row(j->out, r), j->out.type, rv_cpu_row(j->x, r), j->x.type, j->x.cols);
}

static void copy(rv_backend *be, rv_mat dst, rv_mat src) {
    rows_job j = { .row = copy_row, .out = dst, .x = src };
    run(be, "copy", &j, dst.rows, dst.cols);
}

/* A patch's run of bytes, as the values they stand for. */
static void look_up_values(const rows_job *j, char *out, const uint8_t *pixels, const float *values) {
    float run[64];
    for (int32_t from = 0; from < j->patch; from += 64) {
        int32_t n = j->patch - from < 64 ? j->patch - from : 64;
        for (int32_t i = 0; i < n; i++) run[i] = values[pixels[from + i]];
        j->cpu->kernels->convert(out + (size_t)from * rv_dtype_size(j->out.type), j->out.type, run, RV_F32, n);
    }
}

static void patch_row(rows_job *j, int32_t r) {
    int32_t edge = (int32_t)lround(sqrt((double)(j->x.cols / j->n))), grid = edge / j->patch, in_tile = r % (grid * grid);
    int32_t py = in_tile / grid, px = in_tile % grid;
    const char *tile = rv_cpu_row(j->x, r / (grid * grid));
    char *out = rv_cpu_row(j->out, r);
    size_t step = (size_t)j->patch * rv_dtype_size(j->out.type);
    for (int32_t c = 0; c < j->n; c++)
        for (int32_t ky = 0; ky < j->patch; ky++, out += step) {
            int64_t at = ((int64_t)c * edge + py * j->patch + ky) * edge + px * j->patch;
            if (!j->values) j->cpu->kernels->convert(out, j->out.type, (const float *)(const void *)tile + at, RV_F32, j->patch);
            else look_up_values(j, out, (const uint8_t *)tile + at, j->values + c * 256);
        }
}

static void patches(rv_backend *be, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch) {
    rows_job j = { .row = patch_row, .out = out, .x = pixels, .values = values, .n = channels, .patch = patch };
    run(be, "patches", &j, out.rows, out.cols);
}

/* Row ids[r] of the table, or NULL. */
static const void *look_up(rows_job *j, int32_t r, rv_dtype *type) {
    int32_t id = j->ids[r];
    if (id < 0 || id >= j->table->head.rows) {
        atomic_store(&j->bad_row, r + 1);
        return NULL;
    }
    return rv_cpu_weight_row(j->table, id, type);
}

static void embed_row(rows_job *j, int32_t r) {
    rv_dtype type;
    const void *row = look_up(j, r, &type);
    if (row) j->cpu->kernels->convert(rv_cpu_row(j->out, r), RV_F32, row, type, j->out.cols);
}

static void embed(rv_backend *be, rv_mat out, const rv_weight *table, const int32_t *ids) {
    rows_job j = { .row = embed_row, .out = out, .table = table, .ids = ids };
    run(be, "embed", &j, out.rows, out.cols);
}

static void add_row(rows_job *j, int32_t r) {
    rv_dtype type;
    if (j->ids[r] < 0) return;
    const void *row = look_up(j, r, &type);
    if (row) j->cpu->kernels->add_scaled(rv_cpu_row(j->out, r), row, type, j->scale, j->out.cols);
}

static void add_rows(rv_backend *be, rv_mat x, const rv_weight *table, const int32_t *ids, float scale) {
    rows_job j = { .row = add_row, .out = x, .table = table, .ids = ids, .scale = scale };
    run(be, "add_rows", &j, x.rows, x.cols);
}

static void norm_row(rows_job *j, int32_t r) {
    int32_t width = j->norm->width;
    char *out = rv_cpu_row(j->out, r), *x = rv_cpu_row(j->x, r);
    size_t out_step = (size_t)width * rv_dtype_size(j->out.type), step = (size_t)width * rv_dtype_size(j->x.type);
    for (int32_t c = 0; c < j->x.cols; c += width, out += out_step, x += step)
        j->cpu->kernels->norm(out, j->out.type, x, j->x.type, j->norm);
}

static void norm(rv_backend *be, rv_mat out, rv_mat x, rv_norm n) {
    rows_job j = { .row = norm_row, .out = out, .x = x, .norm = &n };
    run(be, "norm", &j, x.rows, x.cols);
}

static void swiglu_row(rows_job *j, int32_t r) {
    char *gate = rv_cpu_row(j->x, r), *up = gate + (size_t)j->out.cols * rv_dtype_size(j->x.type);
    j->cpu->kernels->swiglu(rv_cpu_row(j->out, r), j->out.type, gate, up, j->x.type, j->out.cols);
}

static void swiglu(rv_backend *be, rv_mat out, rv_mat gate_up) {
    rows_job j = { .row = swiglu_row, .out = out, .x = gate_up };
    run(be, "swiglu", &j, out.rows, out.cols);
}

static void rope_row(rows_job *j, int32_t r) {
    if (j->ids[r] < 0) {
        atomic_store(&j->bad_row, r + 1);
        return;
    }
    const float *cos_sin = j->cos_sin + (int64_t)j->ids[r] * j->n;
    j->cpu->kernels->rope(rv_cpu_row(j->out, r), j->out.type, cos_sin, j->out.cols / j->n, j->n);
}

static void rope(rv_backend *be, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    rows_job j = { .row = rope_row, .out = qk, .cos_sin = cos_sin, .ids = pos, .n = head_dim };
    run(be, "rope", &j, qk.rows, qk.cols);
}

bool rv_cpu_keys(const rv_kv *kv, int32_t slot, int32_t key, int32_t n, int32_t *rows) {
    for (int32_t left = n; left > 0;) {          /* a page at a time */
        int32_t take = left;
        int64_t row = key;
        if (kv->pages) {
            int32_t page = key / kv->page_rows, at = key % kv->page_rows;
            if (slot < 0 || page >= kv->max_pages) return false;
            row = (int64_t)kv->pages[(int64_t)slot * kv->max_pages + page] * kv->page_rows + at;
            if (take > kv->page_rows - at) take = kv->page_rows - at;
        }
        if (row < 0 || row + take > kv->k.rows) return false;
        for (int32_t i = 0; i < take; i++) *rows++ = (int32_t)row + i;
        key += take;
        left -= take;
    }
    return true;
}

static void store_row(rows_job *j, int32_t r) {
    int32_t row;
    if (j->ids[r] < 0) return;
    if (!rv_cpu_keys(j->kv, j->slot ? j->slot[r] : 0, j->ids[r], 1, &row)) {
        atomic_store(&j->bad_row, r + 1);
        return;
    }
    rv_mat k = j->kv->k, v = j->kv->v;
    j->cpu->kernels->convert(rv_cpu_row(k, row), k.type, rv_cpu_row(j->x, r), j->x.type, k.cols);
    j->cpu->kernels->convert(rv_cpu_row(v, row), v.type, rv_cpu_row(j->v, r), j->v.type, v.cols);
}

static void kv_store(rv_backend *be, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos) {
    rows_job j = { .row = store_row, .kv = &kv, .x = k, .v = v, .slot = slot, .ids = pos };
    run(be, "kv_store", &j, k.rows, k.cols);
}

static void concat_row(rows_job *j, int32_t r) {
    char *out = rv_cpu_row(j->out, r);
    int32_t d = j->x.cols;
    j->cpu->kernels->convert(out, j->out.type, rv_cpu_row(j->x, r), j->x.type, d);
    for (int32_t i = 0; i < j->n; i++) {
        const void *tap = rv_cpu_row(j->taps[i], r);
        for (int32_t c = 0; c < d; c++)
            rv_cpu_store(out, j->out.type, d + (int64_t)c * j->n + i, rv_cpu_load(tap, j->taps[i].type, c));
    }
}

static void concat_taps(rv_backend *be, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps) {
    rows_job j = { .row = concat_row, .out = out, .x = last, .taps = taps, .n = n_taps };
    run(be, "concat_taps", &j, out.rows, out.cols);
}

void rv_cpu_rows_table(rv_backend_ops *ops) {
    ops->zero = zero;
    ops->copy = copy;
    ops->patches = patches;
    ops->embed = embed;
    ops->add_rows = add_rows;
    ops->norm = norm;
    ops->swiglu = swiglu;
    ops->rope = rope;
    ops->kv_store = kv_store;
    ops->concat_taps = concat_taps;
}
