/* cpu.h - what the files of the CPU backend share.
 *
 * The one idea: every operation is cut into items at bounds fixed by its shape (pool.h), and an
 * item's inner loops come from a table of kernels chosen once for this CPU (rv_cpu_kernels).
 * The same source (kernels.inl) makes that table for each vector width; reference.c makes it
 * from plain loops.
 */
#ifndef RV_KERNELS_CPU_H
#define RV_KERNELS_CPU_H
#include <stdatomic.h>
#include "kernels/backend.h"
#include "kernels/cpu/pool.h"

enum {
    CPU_KEYS      = 512,         /* attention treats keys in runs of this many, at fixed multiples */
    CPU_HEAD_DIM  = 256,         /* the widest head                                            */
    CPU_GROUP     = 4,           /* query heads of one K/V head treated at a time (few rows)   */
    CPU_PAIRS     = 256,         /* (row, head) pairs of an attention item (many rows)         */
    CPU_MANY_ROWS = 1024,        /* rows of a product item (many rows, own kernel)             */
    CPU_DEPTH     = 512,         /* input columns packed at a time (many rows, own kernel)     */
    CPU_PARTIALS  = 256,         /* a thread's share of attention's intermediate results       */
    CPU_PANEL     = 48,          /* the widest panel of output columns, any level              */
    CPU_TILE_ROWS = 8,           /* the most rows of a micro-kernel, any level                 */
    CPU_OUTPUTS   = 8,           /* weight rows treated at a time (few rows)                   */
    /* ---- kernels on tiles (AMX) ---- */
    CPU_TILE_STEP  = 32,         /* columns of a tile instruction                              */
    CPU_TILE_PANEL = 32,         /* rows and outputs of a block of sums                        */
    CPU_TILE_DEPTH  = 256,       /* input columns packed at a time: a panel of them is a third of a core's first cache */
    CPU_TILED_DEPTH = 2048,      /* .. and of the rows of an item, of which 256 are half of its second cache */
    CPU_TILED_ROWS  = 256,       /* rows of a product item, and its outputs                    */
    CPU_TILED_COLS  = 640,
    CPU_DECODED4_BYTES = 16384,  /* 4-bit weights decoded at a time (few rows)                 */
    CPU_TILE_KEYS  = 128,        /* attention: keys of a run, at fixed multiples               */
    CPU_TILE_PAIRS = 512         /* (row, head) pairs of an attention item                     */
};

typedef enum { CPU_REFERENCE, CPU_BASE, CPU_AVX2, CPU_AVX512, CPU_AVX512_BF16, CPU_AMX, CPU_LEVELS } rv_cpu_level;

struct rv_weight {
    rv_weight_head  head;        /* first: backend.c reads it                                  */
    rv_weight_part  part[RV_WEIGHT_PARTS];
    int32_t         n_parts;
    const void     *packed;      /* in panels of tiles or in oneDNN's layout, or NULL          */
    rv_codes        codes[RV_WEIGHT_PARTS];      /* where format is not PLAIN; map and absmaxes as they are read */
};

/* out = act(x W^T + bias), or out += scale * row_scale[r] * (x W^T + bias). */
typedef struct rv_cpu_product {
    rv_mat           out, x;
    const rv_weight *w;
    const float     *bias;
    rv_act           act;
    bool             add;
    float            scale;
    const float     *row_scale;
} rv_cpu_product;

/* Up to RV_FEW_ROWS rows of x as products with int8 weights take them. */
typedef struct rv_cpu_int8_rows {
    int8_t  *codes;              /* [rows x cols]                                              */
    float   *sca;                /* [rows]                                                     */
    int32_t *outliers;           /* [rows] how many                                            */
    int32_t *column;             /* [rows x cols] whose columns these are, ascending           */
    float   *value;              /* [rows x cols] and x there                                  */
    rv_mat   spread;             /* x at outliers, else 0: of rows with many (rv_cpu_many_outliers) */
} rv_cpu_int8_rows;

/* Room for products with weights in codes, up to `cols` wide. */
typedef struct rv_cpu_quant_room {
    int32_t          cols;
    rv_cpu_int8_rows int8;
    uint8_t         *by_call;    /* [cols] whether any row of the call has an outlier there    */
    void            *x;          /* [RV_FEW_ROWS x cols] in the order of weight4, or `spread`  */
    char            *weights;    /* [threads x rv_cpu_decode_bytes()]                          */
    void            *whole;      /* all of it                                                  */
} rv_cpu_quant_room;

/* Softmax over a run of keys, not yet divided: l = sum e^(s - m), o = sum e^(s - m) v. */
typedef struct rv_cpu_partial { float m, l, o[CPU_HEAD_DIM]; } rv_cpu_partial;

/* Keys and values that are wanted next: columns [column, column + columns) of n physical rows. */
typedef struct rv_cpu_bring { const int32_t *rows; int32_t n, column, columns; } rv_cpu_bring;

/* One thread's memory for attention over many rows (taken in attend.c). */
typedef struct rv_cpu_attend_room {
    float   *keys;               /* packed K of a run: panels of [head_dim x panel]            */
    float   *values;             /* packed V of a run: panels of [CPU_KEYS x panel]            */
    float   *queries;            /* [CPU_PAIRS x head_dim]                                     */
    float   *sums;               /* [CPU_PAIRS x CPU_HEAD_DIM + CPU_PANEL]                     */
    float   *scores;             /* [CPU_TILE_ROWS x CPU_KEYS + CPU_PANEL]                     */
    float   *m, *l;              /* [CPU_PAIRS]                                                */
    float   *bias;               /* [CPU_KEYS]                                                 */
    int32_t *rows;               /* [CPU_KEYS] physical rows of a run of keys                  */
} rv_cpu_attend_room;

/* One thread's memory for attention over many bf16 rows (attend_runs.inl), and products on tiles; in bytes what lies as tiles (tiles.inl). */
typedef struct rv_cpu_tiles_room {
    char    *rows;               /* rows of x, or of q                                         */
    char    *panel;              /* CPU_TILE_PANEL outputs of a weight                         */
    float   *sums;
    char    *keys, *values, *some_values;        /* of a run                                   */
    char    *high, *low;         /* weights of CPU_TILE_PANEL pairs                            */
    float   *scores, *one;       /* of twice as many; sums of as many while one is computed    */
    float   *m, *l, *bias;       /* [CPU_TILE_PAIRS], [CPU_TILE_PAIRS x 16], [CPU_TILE_KEYS]   */
    int32_t *key_rows;           /* [2 x CPU_TILE_KEYS] physical rows, of this run and the next */
    uint64_t taken;              /* bytes from `rows` on (rv_cpu_huge)                         */
} rv_cpu_tiles_room;

/* Query rows [row, row + n_rows) of one sequence against one K/V head. */
typedef struct rv_cpu_attend_item { int32_t row, n_rows, kv_head; } rv_cpu_attend_item;

typedef struct rv_cpu_kernels {
    const char *name;
    /* n elements; F32, BF16 and F16 to F32 or BF16 */
    void (*convert)(void *to, rv_dtype to_type, const void *from, rv_dtype from_type, int64_t n);
    void (*norm)(void *out, rv_dtype out_type, const void *x, rv_dtype x_type, const rv_norm *n);
    void (*swiglu)(void *out, rv_dtype out_type, const void *gate, const void *up, rv_dtype type, int64_t n);
    /* one row of heads */
    void (*rope)(void *row, rv_dtype type, const float *cos_sin, int32_t heads, int32_t head_dim);
    void (*add_scaled)(float *x, const void *row, rv_dtype type, float scale, int64_t n);
    /* output columns [from, to), all rows */
    void (*product_few)(const rv_cpu_product *p, int32_t from, int32_t to);
    /* output columns [from, from + n), n <= panel, rows [row, row + n_rows); NULL in the reference */
    void (*product_many)(const rv_cpu_product *p, int32_t from, int32_t n, int32_t row, int32_t n_rows, float *scratch);
    /* row_sums[j] of rows [row, row + n_rows) [x n], not finished: for oneDNN's f32 results */
    void (*finish_row)(const rv_cpu_product *p, int32_t row, int32_t from, int32_t n, float *sums);
    /* heads [head, head + n_heads) of query row r over the n keys in physical rows[] */
    void (*attend_few)(const rv_attention *a, int32_t r, int32_t head, int32_t n_heads, const int32_t *rows, int32_t n,
                       const rv_cpu_bring *next, rv_cpu_partial *out);
    int32_t few_keys;            /* n it likes best where all is bf16, and then it brings what is next; 0: CPU_KEYS */
    /* one item; false when a key lies outside the cache; NULL in the reference */
    bool (*attend_many)(const rv_attention *a, const rv_cpu_attend_item *item, rv_cpu_attend_room *room);
    /* the same, q, k and v all bf16; NULL where it is no faster */
    bool (*attend_pairs)(const rv_attention *a, const rv_cpu_attend_item *item, rv_cpu_tiles_room *room);
    int32_t panel;               /* output columns of product_many                             */
    /* ---- on tiles, all of it bf16; NULL where there are none ---- */
    /* Outputs [from, from + CPU_TILE_PANEL) of a weight of any type, those that there are: rv_cpu_tiles_panel_bytes(). */
    void (*tiles_pack)(const rv_weight *w, int32_t from, char *out);
    /* As product_many; the weight packed, or all bf16. */
    void (*product_tiles)(const rv_cpu_product *p, int32_t from, int32_t n, int32_t row, int32_t n_rows, rv_cpu_tiles_room *room);
    /* ---- weights in codes ---- */
    /* Weights as rv_int8_weights and rv_nf4_quantise make them. */
    float (*int8_weights)(int8_t *codes, const void *row, rv_dtype type, int64_t n);
    void (*nf4_quantise)(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n);
    /* One row of activations: rounded to f16, then as rv_int8_activations; how many outliers, in which columns. */
    int32_t (*int8_row)(int8_t *codes, float *sca, int32_t *column, const void *x, rv_dtype type, int64_t n, float threshold);
    /* Blocks of 4-bit weights, rounded to `type` (F16 or BF16): the even elements of each block first, then the odd ones;
     * and a row of x in that order.  NULL in the reference, which keeps the order. */
    void (*weight4)(void *out, rv_dtype type, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks);
    void (*order4)(void *out, const void *x, rv_dtype type, int64_t blocks);
    /* Output columns [from, to), all rows; x of product4 in that order; room: rv_cpu_decode_bytes(). */
    void (*product8)(const rv_cpu_product *p, const rv_cpu_int8_rows *q, int32_t from, int32_t to, void *room);
    void (*product4)(const rv_cpu_product *p, int32_t from, int32_t to, void *room);
    /* The same on tiles, all of it bf16; NULL where there are none. x as pack4 has put it, row by row, each row r by a call. */
    void (*pack4)(rv_mat out, rv_mat x, int32_t r);
    void (*product4_tiles)(const rv_cpu_product *p, int32_t from, int32_t to, void *room);
} rv_cpu_kernels;

typedef struct rv_onednn rv_onednn;

typedef struct rv_cpu {
    rv_backend            be;    /* first                                                      */
    rv_cpu_level          level;
    const rv_cpu_kernels *kernels;
    rv_pool              *pool;
    int32_t               threads;
    rv_onednn            *onednn;                /* NULL: own kernels only                     */
    float                *product_scratch;       /* [threads x rv_cpu_product_floats()]        */
    rv_cpu_attend_room   *attend_room;           /* [threads]                                  */
    rv_cpu_tiles_room    *tiles_room;            /* [threads], or NULL: neither has kernels, or f32 */
    rv_cpu_partial       *partials;              /* [threads x CPU_PARTIALS]                   */
    rv_int8_rules         int8;
    rv_cpu_quant_room     quant;                 /* grows when weights are made                */
    double                marks[RV_MARKS];       /* milliseconds of the clock                  */
} rv_cpu;

/* As rv_cpu_open, at a given level; for tests.  RV_ERR_UNSUPPORTED if this CPU lacks it.
 * onednn false: own kernels only. */
rv_status rv_cpu_open_level(const rv_cpu_options *options, rv_cpu_level level, bool onednn, rv_backend **out,
                            rv_error *err);
bool rv_cpu_has_level(rv_cpu_level level);
/* Zeros, in huge pages where the system has them; munmap gives *taken bytes back.  NULL: out of memory. */
void *rv_cpu_huge(uint64_t bytes, uint64_t *taken);

extern const rv_cpu_kernels rv_cpu_reference, rv_cpu_base;
#if defined(__x86_64__)
extern const rv_cpu_kernels rv_cpu_avx2, rv_cpu_avx512, rv_cpu_avx512_bf16, rv_cpu_amx;
#endif

/* Whether a row's outliers are looked up one by one, or multiplied as a row: it is the row's own choice. */
static inline bool rv_cpu_many_outliers(int32_t outliers, int32_t cols) { return outliers > cols / 32; }

/* The 16-bit type that 4-bit weights are rounded to. */
static inline rv_dtype rv_cpu_decoded(rv_dtype act) { return act == RV_BF16 ? RV_BF16 : RV_F16; }

/* The elements of row r of m. */
static inline void *rv_cpu_row(rv_mat m, int64_t r) {
    return (char *)m.data + (uint64_t)(r * m.ld) * rv_dtype_size(m.type);
}

/* The row of the weight that makes output column o, and its type. */
static inline const void *rv_cpu_weight_row(const rv_weight *w, int32_t o, rv_dtype *type) {
    int32_t i = 0;
    while (o >= w->part[i].rows) o -= w->part[i++].rows;
    *type = w->part[i].type;
    return (const char *)w->part[i].data + (uint64_t)o * (uint64_t)w->head.cols * rv_dtype_size(*type);
}

/* The part that makes output column *o; *o becomes its row there. */
static inline int32_t rv_cpu_part_of(const rv_weight *w, int32_t *o) {
    int32_t i = 0;
    while (*o >= w->part[i].rows) *o -= w->part[i++].rows;
    return i;
}

static inline float rv_cpu_load(const void *p, rv_dtype type, int64_t i) {
    if (type == RV_F32) {
        float f;
        memcpy(&f, (const char *)p + i * 4, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)p + i * 2, 2);
    return type == RV_BF16 ? rv_bf16_to_f32(h) : rv_f16_to_f32(h);
}

static inline void rv_cpu_store(void *p, rv_dtype type, int64_t i, float f) {
    if (type == RV_F32) {
        memcpy((char *)p + i * 4, &f, 4);
    } else {
        uint16_t h = rv_f32_to_bf16(f);
        memcpy((char *)p + i * 2, &h, 2);
    }
}

/* Physical rows of keys [key, key + n) of a sequence; false when one lies outside the cache. */
bool rv_cpu_keys(const rv_kv *kv, int32_t slot, int32_t key, int32_t n, int32_t *rows);

/* ---- operations, linear.c, tiles.c, attend.c and rows.c ---- */
void rv_cpu_product_run(rv_cpu *cpu, const rv_cpu_product *p);
void rv_cpu_product_panels(rv_cpu *cpu, const rv_cpu_product *p);    /* many rows, by the own kernel, whatever the weight is kept as */
uint64_t rv_cpu_product_floats(void);            /* scratch of one thread                      */
static inline uint64_t rv_cpu_tiles_panel_bytes(int32_t cols) {
    return (uint64_t)((cols + CPU_TILE_STEP - 1) / CPU_TILE_STEP) * CPU_TILE_STEP * CPU_TILE_PANEL * 2;
}
uint64_t rv_cpu_tiles_bytes(int32_t rows, int32_t cols);     /* of a packed weight             */
void rv_cpu_tiles_pack(rv_cpu *cpu, const rv_weight *w, void *memory);
void rv_cpu_product_tiles(rv_cpu *cpu, const rv_cpu_product *p);
rv_status rv_cpu_tiles_open(rv_cpu *cpu, rv_error *err);
void rv_cpu_tiles_close(rv_cpu *cpu);
void rv_cpu_attend(rv_backend *be, const rv_attention *a);
bool rv_cpu_attend_few(rv_cpu *cpu, const rv_attention *a);  /* false: a key outside the cache */
rv_status rv_cpu_attend_open(rv_cpu *cpu, rv_error *err);
void rv_cpu_attend_close(rv_cpu *cpu);
void rv_cpu_rows_table(rv_backend_ops *ops);     /* fills in the row by row operations         */

/* ---- quant.c: weights in codes ---- */
/* Bytes that the parts of a spec take which are not read where they are, or a sticky error. */
uint64_t rv_cpu_quant_bytes(rv_cpu *cpu, const rv_weight_spec *spec);
/* Whether the spec's parts with data are finite, by all threads; false: a sticky error. */
bool rv_cpu_quant_check(rv_cpu *cpu, const rv_weight_spec *s);
/* Makes those parts, quantised or (PLAIN) read as 16 bit; the others stay where they are.  A sticky error: false. */
bool rv_cpu_quant_make(rv_cpu *cpu, const rv_weight_spec *spec, rv_weight *w, void *memory);
/* The absmaxes of blocks [block, block + n). */
void rv_cpu_absmaxes(const rv_codes *q, int64_t block, int64_t n, float *out);
/* To f16 and back as torch casts: beyond 65504 it is infinite. */
float rv_cpu_through_f16(float f);
/* int8_row as a plain loop. */
int32_t rv_cpu_int8_row(int8_t *codes, float *sca, int32_t *column, const void *x, rv_dtype type, int64_t n, float threshold);

/* ---- linear_quant.c: products with them ---- */
void rv_cpu_product_codes(rv_cpu *cpu, const rv_cpu_product *p);
bool rv_cpu_quant_grow(rv_cpu *cpu, int32_t cols);           /* false: a sticky error          */
void rv_cpu_quant_close(rv_cpu *cpu);
/* What an item needs: CPU_OUTPUTS rows of weights, decoded, and their absmaxes; or on tiles those decoded at a time and the absmaxes of twice
 * CPU_TILE_PANEL rows, each time with room for what is no multiple of 16. */
static inline uint64_t rv_cpu_decode_bytes(int32_t cols) {
    const uint64_t blocks = (uint64_t)((cols + 63) / 64), rows = CPU_OUTPUTS * blocks * (64 * 4 + 4);
    const uint64_t tiles = CPU_DECODED4_BYTES + 2 * (CPU_TILE_PANEL * blocks + 32) * sizeof(float);
    return rows > tiles ? rows : tiles;
}

/* ---- onednn.c (with RV_ONEDNN) ---- */
const char *rv_onednn_version(void);          /* "oneDNN 2.6.3"                             */
rv_status rv_onednn_open(rv_cpu *cpu, rv_onednn **out, rv_error *err);
void      rv_onednn_close(rv_onednn *o);
uint64_t  rv_onednn_packed_bytes(rv_onednn *o, int32_t rows, int32_t cols, rv_error *err);
/* bf16, from parts of any type */
rv_status rv_onednn_pack(rv_onednn *o, const rv_weight *w, void *memory, rv_error *err);
/* x bf16, the weight packed, its parts all bf16, or in 4 bit.  False: not worth it, nothing was done */
bool      rv_onednn_product(rv_onednn *o, const rv_cpu_product *p);
#endif
