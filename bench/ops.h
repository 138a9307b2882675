/* ops.h - single operations of the backend, at the shapes of a model, without a model.
 *
 * The one idea: a case is an operation with its arguments; where arguments are read from memory once (weights, keys), it
 * has several copies of them and goes round, so that no cache flatters it. These files, alone in bench/,
 * look at kernels/backend.h: what they time is not visible through the public interface.
 */
#ifndef RV_BENCH_OPS_H
#define RV_BENCH_OPS_H
#include "bench/products.h"
#include "bench/series.h"
#include "kernels/backend.h"

enum { MOST_COPIES = 8, MOST_HELD = 64 };

typedef struct shape {
    const char *name;
    int32_t hidden, heads, kv_heads, head_dim, ffn, vocab, context, n_cross;
    int32_t v_hidden, v_heads, v_ffn, v_out, patch, tile, max_tiles;
    int32_t self_keys;                           /* of a sequence that is answering             */
} shape;

typedef struct ops {                             /* one run of `rvbench ops`                     */
    rv_backend  *be;
    const shape *s;
    bool         on_host;                        /* weights are read where they lie             */
    uint64_t     beyond_caches;                  /* bytes that no cache holds                   */
    char        *random;                         /* host: bf16 values, weights are made of them */
    uint64_t     random_bytes;
    const char  *only;                           /* --only: part of a name                      */
    uint64_t     repeat;
    double       batch_ms;                       /* how long one measurement lasts, about       */
    result      *results;
    size_t       n_results, room;
    rv_status    status;
    library_products libraries;                  /* a CPU's: before and after, the better        */
    uint64_t     threads;                        /* as asked for; 0: one a core                  */
} ops;

typedef struct op op;
struct op {
    char      name[40], title[56];
    need      what;                              /* of one call                                 */
    void    (*call)(ops *o, op *c, int32_t copy);
    int32_t   copies;
    /* arguments, each operation its own */
    rv_mat    x, out, more;
    rv_weight *w[MOST_COPIES];
    float    *bias, *weight, *cos_sin;
    rv_act    act;
    int32_t  *ids, *pos;
    rv_best  *best;
    rv_kv     kv[MOST_COPIES];
    rv_attention     attention;
    rv_decoder_block block[MOST_COPIES];
    rv_norm   norm;
    int32_t   width;
    product_size beside;                         /* what oneDNN does on a CPU after each time; rows 0: nothing */
    const char *beside_name;                     /* "here": the same matrices; "on a square"     */
    bool      cannot;                            /* this backend has no such operation          */
    void     *held[MOST_HELD];                   /* device memory                               */
    size_t    n_held;
};

/* ops_room.c: arguments. All go with op_drop; errors are the backend's, sticky. */
void      *op_take(ops *o, op *c, uint64_t bytes);
rv_mat     op_matrix(ops *o, op *c, int32_t rows, int32_t cols, rv_dtype type);          /* random  */
float     *op_floats(ops *o, op *c, int32_t n, float value);
int32_t   *op_counting(ops *o, op *c, int32_t n, int32_t first, int32_t step);           /* first, first + step, .. */
rv_weight *op_weight(ops *o, op *c, int32_t rows, int32_t cols, rv_weight_use use, bool gate_up, rv_format format, int32_t copy);
rv_mat     op_room(ops *o, op *c, int32_t rows, int32_t cols, rv_dtype type);            /* zeros   */
/* Cache of `slots` sequences of `keys` keys, in pages of `page`, with page tables for `context` keys. */
rv_kv      op_cache(ops *o, op *c, int32_t slots, int32_t keys, int32_t page, int32_t context);
/* How many copies of so many bytes are beyond the caches. */
int32_t    op_copies(const ops *o, double bytes);
void       op_drop(ops *o, op *c);

/* ops_cases.c: every case, one after the other, through op_time. */
void ops_few(ops *o, int32_t rows);              /* decode: rows of different sequences         */
void ops_many(ops *o, int32_t rows);             /* prefill: rows of one                        */
void ops_vision(ops *o, int32_t tiles);          /* a tower layer, and what goes around it      */
void ops_page(ops *o);                           /* ops_page.c: a scanned page's way to tiles    */

/* ops.c: whether --only asks for a case of this name, and its measurement. */
bool ops_wanted(const ops *o, const char *name);
void op_time(ops *o, op *c);
#endif
