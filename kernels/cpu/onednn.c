/* onednn.c - large bf16 products through oneDNN.
 *
 * The one idea: oneDNN computes blocks at fixed bounds, each on one thread of our pool, so it
 * shares our threads and a result does not depend on their number.  Vision weights are packed
 * once into oneDNN's own layout; text weights are read in place, row-major as in the file, or decoded from 4 bit block by
 * block, in the order of weight4, which the rows of x then take too.
 *
 * oneDNN (Debian's build) runs on OpenMP: inside an item the thread's OpenMP width is set to 1,
 * and put back after.
 */
#ifdef RV_ONEDNN
#include <dlfcn.h>
#include <stdlib.h>
#include "kernels/cpu/cpu.h"
#include "kernels/cpu/dnnl_calls.h"

enum { BLOCK_ROWS = 256, BLOCK_COLS = 1024, DECODED_COLS = 256, BLOCK_STEP = 64, CACHED = 96, LAYOUTS = 16, ALIGN = 256 };

/* What distinguishes one primitive from another; no padding, compared as bytes.  Source and sums
 * are dense: with any other row length oneDNN 2.6 falls back to plain loops. */
typedef struct shape { int32_t rows, cols, depth, packed; } shape;

typedef struct entry {
    shape            key;
    uint64_t         used;       /* the call that used it last; 0: empty                       */
    dnnl_primitive_t primitive;  /* NULL: oneDNN has plain loops only for this shape           */
    dnnl_memory_t   *memory;     /* [threads x ARGS]                                           */
} entry;

/* How oneDNN wants a block of packed weights. */
typedef struct layout { int32_t depth, cols; dnnl_memory_desc_t md; } layout;

enum { SRC, WEIGHTS, DST, SCRATCH, ARGS };
static const int ARGUMENT[ARGS] = { DNNL_ARG_SRC, DNNL_ARG_WEIGHTS, DNNL_ARG_DST, DNNL_ARG_SCRATCHPAD };

struct rv_onednn {
    rv_cpu       *cpu;
    dnnl_engine_t engine;
    dnnl_stream_t *stream;       /* [threads]                                                  */
    void        **scratch;       /* [threads] oneDNN's own                                     */
    void        **rows;          /* [threads] BLOCK_ROWS rows of x, dense                      */
    void        **decoded;       /* [threads] DECODED_COLS rows of 4-bit weights as bf16, their absmaxes */
    size_t        scratch_bytes, rows_bytes, decoded_bytes;
    float        *sums;          /* [threads x BLOCK_ROWS x BLOCK_COLS]                        */
    entry         cache[CACHED];
    uint64_t      calls;
    layout        layouts[LAYOUTS];                  /* a tower has a few shapes, and each is asked for by every layer, plan and block */
    uint32_t      n_layouts;                         /* ever found: the oldest is replaced     */
    void        (*set_width)(int);                   /* OpenMP's, NULL if it is not there      */
    int         (*get_width)(void);
};

const char *rv_onednn_version(void) {
#define TEXT_OF(x) #x
#define VERSION(a, b, c) "oneDNN " TEXT_OF(a) "." TEXT_OF(b) "." TEXT_OF(c)
    return VERSION(DNNL_VERSION_MAJOR, DNNL_VERSION_MINOR, DNNL_VERSION_PATCH);
}

static rv_status fail(rv_error *err, dnnl_status_t status, const char *what) {
    return rv_fail(err, status == dnnl_out_of_memory ? RV_ERR_MEMORY : RV_ERR_INTERNAL, "oneDNN: %s: status %d", what,
                   (int)status);
}

/* As TRY, for oneDNN's own status. */
#define DNN(call, what)                             \
    do {                                            \
        dnnl_status_t status_ = (call);             \
        if (status_) {                              \
            st = fail(err, status_, what);          \
            goto done;                              \
        }                                           \
    } while (0)

static int narrow(const rv_onednn *o) {
    int before = o->get_width ? o->get_width() : 1;
    if (before != 1 && o->set_width) o->set_width(1);
    return before;
}

static void widen(const rv_onednn *o, int before) {
    if (before != 1 && o->set_width) o->set_width(before);
}

/* ---- shapes of blocks ---- */

/* Output columns of block i of n columns: all of one width, `most` or less, but the last. */
static int32_t block_width(int32_t n, int32_t most) {
    int32_t blocks = (n - 1) / most + 1, width = (n - 1) / blocks + 1;
    return (width + BLOCK_STEP - 1) / BLOCK_STEP * BLOCK_STEP;
}

static int32_t block_count(int32_t n, int32_t most) { return (n - 1) / block_width(n, most) + 1; }

static int32_t block_size(int32_t n, int32_t block, int32_t most) {
    int32_t width = block_width(n, most), left = n - block * width;
    return left < width ? left : width;
}

static bool is_coded(const rv_weight *w) { return w->head.format != RV_FORMAT_PLAIN; }
static int32_t most_cols(const rv_weight *w) { return is_coded(w) ? DECODED_COLS : BLOCK_COLS; }

static dnnl_status_t matrix(dnnl_memory_desc_t *md, int64_t rows, int64_t cols, int64_t row_stride, int64_t col_stride,
                            dnnl_data_type_t type) {
    dnnl_dims_t dims = { rows, cols }, strides = { row_stride, col_stride };
    return dnnl_memory_desc_init_by_strides(md, 2, dims, type, strides);
}

/* The layout oneDNN likes best for a block of weights. */
static rv_status find_layout(rv_onednn *o, int32_t depth, int32_t cols, dnnl_memory_desc_t *out, rv_error *err) {
    rv_status st = RV_OK;
    dnnl_primitive_desc_t pd = NULL;
    dnnl_memory_desc_t src, weights, dst;
    dnnl_matmul_desc_t op;
    dnnl_dims_t dims = { depth, cols };
    DNN(matrix(&src, BLOCK_ROWS, depth, depth, 1, dnnl_bf16), "layout");
    DNN(matrix(&dst, BLOCK_ROWS, cols, cols, 1, dnnl_f32), "layout");
    DNN(dnnl_memory_desc_init_by_tag(&weights, 2, dims, dnnl_bf16, dnnl_format_tag_any), "layout");
    DNN(dnnl_matmul_desc_init(&op, &src, &weights, NULL, &dst), "layout");
    DNN(rv_dnnl_primitive_desc_create(&pd, &op, NULL, o->engine, NULL), "layout");
    *out = *dnnl_primitive_desc_query_md(pd, dnnl_query_weights_md, 0);
done:
    dnnl_primitive_desc_destroy(pd);
    return st;
}

static rv_status packed_layout(rv_onednn *o, int32_t depth, int32_t cols, dnnl_memory_desc_t *out, rv_error *err) {
    for (layout *l = o->layouts; l < o->layouts + LAYOUTS; l++)
        if (l->depth == depth && l->cols == cols) return *out = l->md, RV_OK;
    rv_status st = find_layout(o, depth, cols, out, err);
    if (!st) o->layouts[o->n_layouts++ % LAYOUTS] = (layout){ depth, cols, *out };
    return st;
}

/* ---- the cache of primitives ---- */

static void entry_clear(rv_onednn *o, entry *e) {
    for (int32_t i = 0; e->memory && i < o->cpu->threads * ARGS; i++) dnnl_memory_destroy(e->memory[i]);
    free(e->memory);
    if (e->primitive) dnnl_primitive_destroy(e->primitive);
    memset(e, 0, sizeof *e);
}

static rv_status grow(rv_onednn *o, void **buffers, size_t *have, size_t bytes, rv_error *err) {
    if (bytes <= *have) return RV_OK;
    bytes = (bytes + ALIGN - 1) / ALIGN * ALIGN;
    for (int32_t t = 0; t < o->cpu->threads; t++) {
        void *p = aligned_alloc(ALIGN, bytes);
        if (!p) return rv_fail_memory(err, "oneDNN scratch");
        free(buffers[t]);
        buffers[t] = p;
    }
    *have = bytes;
    return RV_OK;
}

static rv_status describe(rv_onednn *o, const shape *s, dnnl_memory_desc_t md[ARGS], dnnl_matmul_desc_t *op, rv_error *err) {
    rv_status st = RV_OK;
    memset(md, 0, ARGS * sizeof *md);
    DNN(matrix(&md[SRC], s->rows, s->depth, s->depth, 1, dnnl_bf16), "product");
    if (s->packed) TRY(packed_layout(o, s->depth, s->cols, &md[WEIGHTS], err));
    else DNN(matrix(&md[WEIGHTS], s->depth, s->cols, 1, s->depth, dnnl_bf16), "product");
    DNN(matrix(&md[DST], s->rows, s->cols, s->cols, 1, dnnl_f32), "product");
    DNN(dnnl_matmul_desc_init(op, &md[SRC], &md[WEIGHTS], NULL, &md[DST]), "product");
done:
    return st;
}

static rv_status entry_make(rv_onednn *o, entry *e, const shape *s, rv_error *err) {
    rv_status st = RV_OK;
    dnnl_memory_desc_t md[ARGS];
    dnnl_matmul_desc_t op;
    dnnl_primitive_attr_t attr = NULL;
    dnnl_primitive_desc_t pd = NULL;
    const char *kind = NULL;
    entry_clear(o, e);
    TRY(describe(o, s, md, &op, err));
    DNN(rv_dnnl_primitive_attr_create(&attr), "attributes");
    DNN(dnnl_primitive_attr_set_scratchpad_mode(attr, dnnl_scratchpad_mode_user), "attributes");
    DNN(rv_dnnl_primitive_desc_create(&pd, &op, attr, o->engine, NULL), "product");
    e->key = *s;
    DNN(dnnl_primitive_desc_query(pd, dnnl_query_impl_info_str, 0, &kind), "product");
    if (strncmp(kind, "ref", 3) == 0) goto done;
    md[SCRATCH] = *dnnl_primitive_desc_query_md(pd, dnnl_query_scratchpad_md, 0);
    TRY(grow(o, o->scratch, &o->scratch_bytes, dnnl_memory_desc_get_size(&md[SCRATCH]), err));
    TRY(grow(o, o->rows, &o->rows_bytes, (size_t)BLOCK_ROWS * (size_t)s->depth * 2, err));
    if (!(e->memory = calloc((size_t)o->cpu->threads * ARGS, sizeof *e->memory))) {
        st = rv_fail_memory(err, "oneDNN");
        goto done;
    }
    for (int32_t i = 0; i < o->cpu->threads * ARGS; i++)
        DNN(rv_dnnl_memory_create(&e->memory[i], &md[i % ARGS], o->engine, DNNL_MEMORY_NONE), "memory");
    DNN(rv_dnnl_primitive_create(&e->primitive, pd), "product");
done:
    dnnl_primitive_attr_destroy(attr);
    dnnl_primitive_desc_destroy(pd);
    if (st) entry_clear(o, e);
    return st;
}

/* The entry of a shape, made if need be; the one unused for longest makes room.  Never one of
 * the same call. */
static entry *entry_of(rv_onednn *o, const shape *s, rv_error *err) {
    entry *oldest = &o->cache[0];
    for (entry *e = o->cache; e < o->cache + CACHED; e++) {
        if (e->used && memcmp(&e->key, s, sizeof *s) == 0) {
            e->used = o->calls;
            return e;
        }
        if (e->used < oldest->used) oldest = e;
    }
    int before = narrow(o);
    rv_status st = entry_make(o, oldest, s, err);
    widen(o, before);
    if (st) return NULL;
    oldest->used = o->calls;
    return oldest;
}

/* ---- products ---- */


typedef struct product_job {
    rv_onednn *o;
    const rv_cpu_product *p;
    entry     *kinds[RV_WEIGHT_PARTS][2][2];     /* [part][last rows][last columns]            */
    int32_t    row_blocks, col_blocks;
    _Atomic int32_t status;
} product_job;

/* Block `index` of the weight's columns: which part, which of its rows, which columns, where its weights are. */
typedef struct block { int32_t part, row, from, cols; bool last; const void *weights; } block;

static uint64_t packed_block_bytes(rv_onednn *o, int32_t depth, int32_t cols, rv_error *err) {
    dnnl_memory_desc_t md;
    if (packed_layout(o, depth, cols, &md, err)) return 0;
    return (dnnl_memory_desc_get_size(&md) + ALIGN - 1) / ALIGN * ALIGN;
}

static block block_of(const rv_weight *w, int32_t index) {
    block b = { 0 };
    int32_t n = w->head.rows, most = most_cols(w);
    if (w->packed) {
        /* full blocks have one size: it stands before the first (see rv_onednn_pack) */
        uint64_t bytes;
        memcpy(&bytes, w->packed, sizeof bytes);
        b.weights = (const char *)w->packed + ALIGN + (uint64_t)index * bytes;
    } else {
        n = w->part[0].rows;
        while (index >= block_count(n, most)) {
            index -= block_count(n, most);
            b.from += n;
            n = w->part[++b.part].rows;
        }
        b.row = index * block_width(n, most);
        if (!is_coded(w)) b.weights = (const char *)w->part[b.part].data + (uint64_t)b.row * (uint64_t)w->head.cols * 2;
    }
    b.from += index * block_width(n, most);
    b.cols = block_size(n, index, most);
    b.last = index == block_count(n, most) - 1;
    return b;
}

/* A block of 4-bit weights as bf16. */
static const void *decode(rv_onednn *o, const rv_weight *w, const block *b, int32_t thread) {
    const rv_codes *q = &w->codes[b->part];
    int64_t cols = w->head.cols, blocks = cols / RV_BLOCK4 * b->cols;
    char *to = o->decoded[thread];
    float *absmax = (float *)(void *)(to + (uint64_t)DECODED_COLS * (uint64_t)cols * 2);
    rv_cpu_absmaxes(q, b->row * (cols / RV_BLOCK4), blocks, absmax);
    o->cpu->kernels->weight4(to, RV_BF16, (const uint8_t *)q->codes + b->row * cols / 2, absmax, q->map, blocks);
    return to;
}

/* BLOCK_ROWS rows of x, dense: in place where they are. */
static void *dense_rows(rv_onednn *o, const rv_cpu_product *p, int32_t row, int32_t rows, int32_t thread) {
    rv_mat x = p->x;
    if (x.ld == x.cols && !is_coded(p->w)) return rv_cpu_row(x, row);
    size_t bytes = (size_t)x.cols * 2;
    for (int32_t r = 0; r < rows; r++) {
        char *to = (char *)o->rows[thread] + (size_t)r * bytes;
        if (is_coded(p->w)) o->cpu->kernels->order4(to, rv_cpu_row(x, row + r), RV_BF16, x.cols / RV_BLOCK4);
        else memcpy(to, rv_cpu_row(x, row + r), bytes);
    }
    return o->rows[thread];
}

static void product_item(void *context, int32_t item, int32_t thread) {
    product_job *j = context;
    const rv_cpu_product *p = j->p;
    rv_onednn *o = j->o;
    int32_t row = item % j->row_blocks * BLOCK_ROWS, rows = p->x.rows - row;
    bool last = rows <= BLOCK_ROWS;
    if (!last) rows = BLOCK_ROWS;
    block b = block_of(p->w, item / j->row_blocks);
    entry *e = j->kinds[b.part][last][b.last];
    dnnl_memory_t *m = e->memory + thread * ARGS;
    float *sums = o->sums + (int64_t)thread * BLOCK_ROWS * BLOCK_COLS;
    if (is_coded(p->w)) b.weights = decode(o, p->w, &b, thread);
    void *handles[ARGS] = { dense_rows(o, p, row, rows, thread), (void *)(uintptr_t)b.weights, sums, o->scratch[thread] };
    dnnl_exec_arg_t args[ARGS];
    int before = narrow(o);
    for (int i = 0; i < ARGS; i++) {
        dnnl_memory_set_data_handle(m[i], handles[i]);
        args[i] = (dnnl_exec_arg_t){ ARGUMENT[i], m[i] };
    }
    dnnl_status_t status = rv_dnnl_primitive_execute(e->primitive, o->stream[thread], ARGS, args);
    if (!status) status = rv_dnnl_stream_wait(o->stream[thread]);
    widen(o, before);
    if (status) atomic_store(&j->status, (int32_t)status);
    for (int32_t r = 0; r < rows; r++) o->cpu->kernels->finish_row(p, row + r, b.from, b.cols, sums + (int64_t)r * b.cols);
}

/* The primitives that the blocks of a product need; false when oneDNN has none worth using, or
 * failed (sticky). */
static bool find_kinds(product_job *j) {
    const rv_cpu_product *p = j->p;
    for (int32_t i = 0; i < j->col_blocks; i++) {
        block b = block_of(p->w, i);
        for (int last = j->row_blocks == 1; last < 2; last++) {
            entry **e = &j->kinds[b.part][last][b.last];
            if (*e) continue;
            shape s = { .rows = last ? p->x.rows - (j->row_blocks - 1) * BLOCK_ROWS : BLOCK_ROWS, .cols = b.cols,
                        .depth = p->x.cols, .packed = p->w->packed != NULL };
            if (!(*e = entry_of(j->o, &s, &j->o->cpu->be.error)) || !(*e)->primitive) return false;
        }
    }
    return true;
}

bool rv_onednn_product(rv_onednn *o, const rv_cpu_product *p) {
    product_job j = { .o = o, .p = p, .row_blocks = (p->x.rows - 1) / BLOCK_ROWS + 1 };
    if (p->w->packed) j.col_blocks = block_count(p->w->head.rows, BLOCK_COLS);
    else for (int32_t i = 0; i < p->w->n_parts; i++) j.col_blocks += block_count(p->w->part[i].rows, most_cols(p->w));
    o->calls++;
    if (is_coded(p->w) && grow(o, o->decoded, &o->decoded_bytes, (size_t)DECODED_COLS * (size_t)(p->x.cols / RV_BLOCK4) * (128 + 4),
        &o->cpu->be.error)) return true;
    if (!find_kinds(&j)) return o->cpu->be.error.code != RV_OK;
    rv_pool_run(o->cpu->pool, j.row_blocks * j.col_blocks, product_item, &j);
    int32_t status = atomic_load(&j.status);
    if (status) fail(&o->cpu->be.error, (dnnl_status_t)status, "product");
    return true;
}

/* ---- packing: 256 bytes that hold the size of a full block, then the blocks ---- */

uint64_t rv_onednn_packed_bytes(rv_onednn *o, int32_t rows, int32_t cols, rv_error *err) {
    int32_t blocks = block_count(rows, BLOCK_COLS);
    uint64_t full = packed_block_bytes(o, cols, block_size(rows, 0, BLOCK_COLS), err);
    return ALIGN + full * (uint64_t)(blocks - 1) + packed_block_bytes(o, cols, block_size(rows, blocks - 1, BLOCK_COLS), err);
}

static rv_status pack_block(rv_onednn *o, const uint16_t *plain, int32_t depth, int32_t cols, void *out, rv_error *err) {
    rv_status st = RV_OK;
    dnnl_memory_desc_t md[2];
    dnnl_memory_t memory[2] = { NULL, NULL };
    dnnl_primitive_desc_t pd = NULL;
    dnnl_primitive_t primitive = NULL;
    DNN(matrix(&md[0], depth, cols, 1, depth, dnnl_bf16), "packing");
    TRY(packed_layout(o, depth, cols, &md[1], err));
    DNN(rv_dnnl_memory_create(&memory[0], &md[0], o->engine, (void *)(uintptr_t)plain), "packing");
    DNN(rv_dnnl_memory_create(&memory[1], &md[1], o->engine, out), "packing");
    DNN(rv_dnnl_reorder_primitive_desc_create(&pd, &md[0], o->engine, &md[1], o->engine, NULL), "packing");
    DNN(rv_dnnl_primitive_create(&primitive, pd), "packing");
    dnnl_exec_arg_t args[2] = { { DNNL_ARG_FROM, memory[0] }, { DNNL_ARG_TO, memory[1] } };
    DNN(rv_dnnl_primitive_execute(primitive, o->stream[0], 2, args), "packing");
    DNN(rv_dnnl_stream_wait(o->stream[0]), "packing");
done:
    dnnl_memory_destroy(memory[0]);
    dnnl_memory_destroy(memory[1]);
    if (primitive) dnnl_primitive_destroy(primitive);
    dnnl_primitive_desc_destroy(pd);
    return st;
}

rv_status rv_onednn_pack(rv_onednn *o, const rv_weight *w, void *memory, rv_error *err) {
    rv_status st = RV_OK;
    int32_t n = w->head.rows, depth = w->head.cols, width = block_width(n, BLOCK_COLS);
    uint64_t full = packed_block_bytes(o, depth, block_size(n, 0, BLOCK_COLS), err);
    uint16_t *plain = malloc((size_t)width * (size_t)depth * sizeof *plain);
    int before = narrow(o);
    if (!plain) {
        st = rv_fail_memory(err, "oneDNN packing");
        goto done;
    }
    memcpy(memory, &full, sizeof full);
    for (int32_t i = 0; i < block_count(n, BLOCK_COLS); i++) {
        for (int32_t r = 0; r < block_size(n, i, BLOCK_COLS); r++) {
            rv_dtype type;
            const void *row = rv_cpu_weight_row(w, i * width + r, &type);
            o->cpu->kernels->convert(plain + (size_t)r * (size_t)depth, RV_BF16, row, type, depth);
        }
        TRY(pack_block(o, plain, depth, block_size(n, i, BLOCK_COLS), (char *)memory + ALIGN + (uint64_t)i * full, err));
    }
done:
    widen(o, before);
    free(plain);
    return st;
}

/* ---- opening ---- */

/* OpenMP's width is looked up at run time: the library must not link OpenMP itself. */
static void find_openmp(rv_onednn *o) {
    void *set = dlsym(RTLD_DEFAULT, "omp_set_num_threads"), *get = dlsym(RTLD_DEFAULT, "omp_get_max_threads");
    if (!set || !get) return;
    memcpy(&o->set_width, &set, sizeof set);     /* ISO C has no cast from void * to a function    */
    memcpy(&o->get_width, &get, sizeof get);
}

rv_status rv_onednn_open(rv_cpu *cpu, rv_onednn **out, rv_error *err) {
    rv_status st = RV_OK;
    size_t threads = (size_t)cpu->threads;
    rv_onednn *o = calloc(1, sizeof *o);
    if (!o) return rv_fail_memory(err, "oneDNN");
    o->cpu = cpu;
    find_openmp(o);
    o->stream = calloc(threads, sizeof *o->stream);
    o->scratch = calloc(threads, sizeof *o->scratch);
    o->rows = calloc(threads, sizeof *o->rows);
    o->decoded = calloc(threads, sizeof *o->decoded);
    o->sums = aligned_alloc(ALIGN, threads * BLOCK_ROWS * BLOCK_COLS * sizeof *o->sums);
    if (!o->stream || !o->scratch || !o->rows || !o->decoded || !o->sums) {
        st = rv_fail_memory(err, "oneDNN");
        goto done;
    }
    DNN(rv_dnnl_engine_create(&o->engine, dnnl_cpu, 0), "engine");
    for (size_t t = 0; t < threads; t++) DNN(rv_dnnl_stream_create(&o->stream[t], o->engine, dnnl_stream_default_flags), "stream");
done:
    if (st) rv_onednn_close(o);
    else *out = o;
    return st;
}

void rv_onednn_close(rv_onednn *o) {
    if (!o) return;
    for (entry *e = o->cache; e < o->cache + CACHED; e++) entry_clear(o, e);
    for (int32_t t = 0; t < o->cpu->threads; t++) {
        if (o->stream && o->stream[t]) dnnl_stream_destroy(o->stream[t]);
        if (o->scratch) free(o->scratch[t]);
        if (o->rows) free(o->rows[t]);
        if (o->decoded) free(o->decoded[t]);
    }
    if (o->engine) dnnl_engine_destroy(o->engine);
    free(o->stream);
    free(o->scratch);
    free(o->rows);
    free(o->decoded);
    free(o->sums);
    free(o);
}
#else
typedef int rv_nothing;                          /* built without oneDNN: an empty file is no C  */
#endif
