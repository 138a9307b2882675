/* backend.h - everything the model asks of the hardware.
 *
 * The one idea: the forward pass (engine/vision.c, engine/text.c) is written once over this
 * table; a backend is one stream of work on one device.  Operations are queued in call order
 * and return at once; `download` and `finish` wait.  Matrices are row-major views that own
 * nothing.  Row r is always token r.
 *
 * Errors are sticky: the first failure is kept in be->error and every later operation does
 * nothing, so the forward pass reads as arithmetic and checks once, at its end.
 *
 * Call the rv_* functions below, not the table: they check shapes for every backend at once
 * (a wrong shape is a bug: RV_ERR_INTERNAL).  Backends may trust their arguments.
 *
 * A row's result never depends on its neighbours: for up to RV_FEW_ROWS rows, `linear` sums in
 * an order fixed by the weight's shape alone, and `attend` splits a row's keys by their range alone.
 *
 * Threads: one thread at a time per backend, any of them, between rv_enter and rv_leave.
 */
#ifndef RV_KERNELS_BACKEND_H
#define RV_KERNELS_BACKEND_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include "engine/base/dtype.h"
#include "engine/base/guide.h"
#include "engine/base/quant.h"
#include "engine/base/status.h"

#ifdef __cplusplus                 /* kernels and their tests are compiled as C++ by nvcc */
extern "C" {
#endif

enum { RV_FEW_ROWS = 64,         /* the decode kernels' most rows                             */
       RV_WEIGHT_PARTS = 3,
       RV_LANES = 2,
       RV_BLOCKS_AT_ONCE = 40 };

typedef enum { RV_ACT_NONE, RV_ACT_GELU /* exact, with erf */ } rv_act;

/* ld: elements from row to row. */
typedef struct rv_mat { void *data; int32_t rows, cols; int64_t ld; rv_dtype type; } rv_mat;

/* ---- weights: opaque, a backend owns their layout ---- */

typedef enum {
    RV_USE_TEXT,                 /* products with 1 to thousands of rows                       */
    RV_USE_VISION,               /* products with hundreds of rows and more, always            */
    RV_USE_ROWS                  /* a table whose rows are looked up (embed, add_rows)         */
} rv_weight_use;

typedef enum {
    RV_ORDER_STACKED,            /* output columns: part 0's, then part 1's, ..                */
    RV_ORDER_GATE_UP             /* parts are gate and up; columns in an order only swiglu knows */
} rv_weight_order;

/* A weight [rows x cols] (output x input features), made of up to three tensors one below the
 * other (q, k, v).  data: host memory, F32, F16 or BF16, row-major, no alignment promised; NULL
 * while planning.  It stays valid and unchanged until weight_free, so that the CPU backend can
 * read it in place.  A part that the checkpoint holds quantised has codes instead (which stay as valid).
 *
 * format: what the weight is kept as and computed with.  PLAIN: 16 bit (or the CPU's f32); quantised parts are read
 * as rn(code * scale).  INT8 and the 4-bit ones: parts with data are quantised while loading, by the rules of
 * engine/base/quant.h; parts with codes have that very format.  A weight's absmaxes are nested part by part. */
typedef struct rv_weight_part { const void *data; rv_dtype type; int32_t rows; const rv_codes *codes; } rv_weight_part;
typedef struct rv_weight_spec {
    const char     *name;        /* for messages                                               */
    int32_t         rows, cols, n_parts;
    rv_weight_part  part[RV_WEIGHT_PARTS];
    const char     *part_name[RV_WEIGHT_PARTS];      /* for messages; NULL: `name` */
    rv_weight_use   use;
    rv_weight_order order;
    rv_format       format;
    bool            nested;      /* 4 bit: the absmaxes are themselves quantised               */
    bool            on_host;     /* ROWS: `memory` is rv_host_alloc's                           */
    bool            filled;      /* `memory` already holds what weight_new made of such a spec in another process:
                                    parts have no data                                         */
    bool            finite;      /* NaN or Inf in parts with data that stay PLAIN are RV_ERR_FORMAT too: int8 products drop NaN
                                    among activations, and nothing would show them.  A GPU always looks              */
} rv_weight_spec;
static inline const char *rv_part_name(const rv_weight_spec *s, int32_t i) { return s->part_name[i] ? s->part_name[i] : s->name; }

typedef struct rv_weight rv_weight;
/* What every backend's own struct rv_weight begins with, for the checks. */
typedef struct rv_weight_head { int32_t rows, cols; rv_weight_use use; rv_weight_order order; rv_format format; } rv_weight_head;

/* ---- attention ---- */

/* Keys and values, [physical rows x kv_heads * head_dim].  Key i of sequence s is physical row
 *   pages == NULL:  i                                                (one sequence, contiguous)
 *   else            pages[s * max_pages + i / page_rows] * page_rows + i % page_rows.
 * bias: f32 per physical row, added to the scaled score; NULL: none. */
typedef struct rv_kv {
    rv_mat         k, v;
    const int32_t *pages;        /* device                                                     */
    int32_t        page_rows, max_pages;
    const float   *bias;         /* device                                                     */
} rv_kv;

/* Row r of q sees keys first[r]..last[r] (inclusive) of sequence slot[r], softmax over
 * scale * q.k + bias; no keys (last < first): its output is zero.  Query head h reads K/V head
 * h / (heads / kv_heads).  These ranges express the causal mask, the cross-attention mask, image
 * groups and the vision tower's padding (tokens ordered so that padding comes last). */
typedef struct rv_attention {
    rv_mat         q, out;       /* [rows x heads * head_dim]                                  */
    rv_kv          kv;
    const int32_t *slot;         /* device, per row of q; NULL: all 0                          */
    const int32_t *first, *last; /* device, per row of q; first NULL: all 0                    */
    int32_t        heads, kv_heads;
    int32_t        longest;      /* host: no row sees keys at or beyond this                   */
    float          scale;
} rv_attention;

/* A row is normed in runs of `width`: the whole row, or each head.  weight: f32[width], device.
 * bias NULL: RMS norm, x / rms(x) * weight.  Else LayerNorm. */
typedef struct rv_norm { const float *weight, *bias; float eps; int32_t width; } rv_norm;

typedef struct rv_backend rv_backend;
typedef struct rv_tape    rv_tape;       /* a recorded run of operations (a CUDA graph)         */

/* A row's chosen token (of rv_best_rows: the most likely one), and the natural logarithms of its probability, of that of all
 * tokens that its guide allows, and of the token's that the guide watches (0 without a guide). */
typedef struct rv_best { int32_t id; float logprob, allowed, watched; } rv_best;

/* How a row's next token is chosen, by the rules of engine/sample.h; device memory. */
typedef struct rv_choice {
    uint64_t seed;
    uint32_t index;              /* of the token in its answer; `choose` counts it up           */
    uint32_t top_k;              /* UINT32_MAX: off                                             */
    float    temperature;        /* 0: greedy; then top_k and top_p do not count                */
    float    top_p;              /* 1: off                                                      */
    float    repetition_penalty; /* 1: off                                                      */
    int32_t  last;               /* the highest pos that this row ever has to run               */
    rv_guide_row guide;          /* only tokens that it allows; `choose` moves it on. All zero: none */
} rv_choice;

/* Rows that answer, as `choose` finds them and leaves them: one step on.  All of it is device memory. */
typedef struct rv_answering {
    int32_t       *ids, *pos;    /* per row; pos < 0: the row is off, nothing is chosen         */
    const int32_t *slot;
    rv_choice     *how;          /* per row                                                     */
    uint8_t       *seen;         /* [slots x vocab]: ids in prompt and answer, for the penalty  */
    rv_best       *best;         /* per row, out                                                */
} rv_answering;

/* Places in the queue between which time is measured. */
typedef enum { RV_MARK_SLICE, RV_MARK_TOWER, RV_MARKS } rv_mark;

/* Pinned host memory into which one copy at a time is on its way. */
typedef struct rv_tray rv_tray;

/* A decoder layer's rows, weights and scratch: what the coarse entry takes.  It does just what the engine's
 * composition of fine operations does (engine/text.c), to the same bits. */
typedef struct rv_decoder_block {
    rv_mat           x, h, qkv, ff;      /* f32 residual; act scratch; ff [n x f]               */
    const rv_weight *in, *o, *gate_up, *down;      /* in: [q; k; v], or q alone                 */
    rv_norm          norm1, norm2, q_norm;         /* q_norm: cross layers                      */
    rv_attention     attention;          /* q and out inside the scratch                        */
    const float     *cos_sin;            /* self layers: rotary table; NULL: a cross layer      */
    const int32_t   *pos;                /* self layers                                         */
    float            attn_gate, mlp_gate;
    const float     *row_on;             /* NULL: all                                           */
} rv_decoder_block;

/* The same of a layer of the vision tower (engine/vision.c). */
typedef struct rv_vision_block {
    rv_mat           x, h, qkv, ff;      /* f32 residual; act scratch                           */
    const rv_weight *in, *o, *fc1, *fc2; /* in: [q; k; v]                                       */
    const float     *fc1_bias, *fc2_bias;
    rv_norm          norm1, norm2;
    rv_attention     attention;          /* q inside qkv, out is h                              */
    float            attn_gate, ffn_gate;
} rv_vision_block;

/* A file's bytes on their way to the device, in pieces of RV_FILL_PIECE (the last may be shorter). Each is read by one of several
 * threads and shown to `seen` on that thread, where it was read and before it is sent; data NULL: it could not be read. */
enum { RV_FILL_PIECE = 4 << 20 };
typedef struct rv_fill {
    int      fd;
    uint64_t at, bytes;          /* in the file                                                 */
    void   (*seen)(void *user, uint64_t piece, const void *data, uint64_t bytes);
    void    *user;               /* valid until finish                                          */
} rv_fill;

typedef struct rv_backend_ops {
    const char *name;            /* "cpu", "cuda"                                              */
    /* memory and order */
    void *(*alloc)   (rv_backend *, uint64_t bytes);               /* 256-byte aligned, zeroed; NULL: sticky error */
    void  (*release) (rv_backend *, void *);
    void  (*upload)  (rv_backend *, void *dst, const void *host, uint64_t bytes);
    void  (*download)(rv_backend *, void *host, const void *src, uint64_t bytes);
    void  (*finish)  (rv_backend *);
    /* weights: bytes of device memory a spec takes beyond what stays mapped (no data needed),
     * then the same spec with data, and that many bytes */
    uint64_t   (*weight_bytes)(rv_backend *, const rv_weight_spec *);
    rv_weight *(*weight_new)  (rv_backend *, const rv_weight_spec *, void *memory);
    void       (*weight_free) (rv_backend *, rv_weight *);
    /* arithmetic; `out` never overlaps an input except where said */
    void  (*zero)       (rv_backend *, rv_mat x);
    void  (*copy)       (rv_backend *, rv_mat dst, rv_mat src);    /* converts the type too     */
    void  (*patches)    (rv_backend *, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch);
    void  (*embed)      (rv_backend *, rv_mat out, const rv_weight *table, const int32_t *ids);
    void  (*add_rows)   (rv_backend *, rv_mat x, const rv_weight *table, const int32_t *ids, float scale);
    void  (*norm)       (rv_backend *, rv_mat out, rv_mat x, rv_norm n);
    void  (*linear)     (rv_backend *, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act);
    void  (*linear_add) (rv_backend *, rv_mat x, rv_mat h, const rv_weight *w, const float *bias,
                         float scale, const float *row_scale);
    void  (*swiglu)     (rv_backend *, rv_mat out, rv_mat gate_up);
    void  (*rope)       (rv_backend *, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim);
    void  (*kv_store)   (rv_backend *, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos);
    void  (*attend)     (rv_backend *, const rv_attention *);
    void  (*concat_taps)(rv_backend *, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps);
    void  (*close)      (rv_backend *);
    /* optional, both or neither */
    void  (*mark)       (rv_backend *, rv_mark which);
    double (*marked_ms) (rv_backend *, rv_mark from, rv_mark to);
    /* optional, both or neither: host memory that operations read as if it were the device's */
    void *(*host_alloc) (rv_backend *, uint64_t bytes);            /* 256-byte aligned; NULL: sticky error */
    void  (*host_release)(rv_backend *, void *);
    /* optional: NULL where a backend has none, and the engine does without */
    bool  (*linear_normed)(rv_backend *, rv_mat out, rv_mat x, rv_norm, const rv_weight *w, bool swiglu);
    bool  (*decoder_block)(rv_backend *, const rv_decoder_block *);      /* false: not these rows, compose */
    bool  (*decoder_blocks)(rv_backend *, const rv_decoder_block *, int32_t n);     /* the same, one layer after the other */
    void  (*vision_block)(rv_backend *, const rv_vision_block *);
    void  (*best)       (rv_backend *, rv_best *out, rv_mat logits);
    void  (*record)     (rv_backend *);
    rv_tape *(*recorded)(rv_backend *);
    void  (*play)       (rv_backend *, rv_tape *);
    void  (*erase)      (rv_backend *, rv_tape *);
    void  (*choose)     (rv_backend *, const rv_answering *, rv_mat logits);
    rv_tray *(*tray_new)(rv_backend *, uint64_t bytes);              /* NULL: sticky error      */
    void  (*tray_free)  (rv_backend *, rv_tray *);
    void  (*fetch)      (rv_backend *, rv_tray *, const void *src, uint64_t bytes);
    const void *(*fetched)(rv_backend *, rv_tray *);
    void  (*fill)       (rv_backend *, void *dst, const rv_fill *);
    bool  (*loading)    (rv_backend *);
    uint64_t (*saturated)(rv_backend *);                              /* values clamped by what has run        */
    /* optional, all or none: copies of host_alloc's memory beside what is queued, on one of RV_LANES lanes.  bring: behind the last `spent`
     * of the lane; brought: what is queued next waits for it; spent: what was queued needs the lane's bytes no longer. */
    void  (*bring)      (rv_backend *, int32_t lane, void *dst, const void *host, uint64_t bytes);
    void  (*brought)    (rv_backend *, int32_t lane);
    void  (*spent)      (rv_backend *, int32_t lane);
    /* optional, both or neither */
    void  (*enter)      (rv_backend *);
    void  (*leave)      (rv_backend *);
} rv_backend_ops;

/* Where the threads that load weights spent their time, a mean over them. */
typedef struct rv_load_parts {
    double start_ms;             /* taking pinned memory                                        */
    double read_ms, check_ms;    /* reading and copying; rv_fill.seen                           */
    double queue_ms, bus_ms;     /* asking the device; waiting until it has taken what was sent */
} rv_load_parts;

struct rv_backend {
    const rv_backend_ops *ops;
    rv_error error;              /* code RV_OK until something failed                          */
    rv_dtype act;                /* type of matrix operands and K/V: F32, BF16 or F16          */
    uint64_t own_bytes;          /* device memory the backend took for itself when it was opened */
    uint64_t load_bytes;         /* pinned host memory that loading takes for a while           */
    rv_load_parts load_parts;    /* of the loading that finish ended last                       */
    int32_t  chunk_rows;         /* rows of a prefill pass that suit it                         */
    bool     fine_only;          /* coarse entries are not used: for comparison, in tests       */
    bool     loads_late;         /* code is loaded when first used: a pass made in advance pays */
    /* Called with every product's input before it is queued (download waits for it); while it is set coarse entries and
     * steps ahead of the host are not used.  NULL: nobody looks. */
    void   (*watch)(void *user, rv_mat x, const rv_weight *w);
    void    *watch_user;
    char     layout[96];         /* names how weights lie in memory: memory filled by a backend of the same layout may be
                                    used by another (rv_weight_spec.filled); "": by none         */
};

/* How products with int8 weights treat activations: values of at least `threshold` (0: off) are outliers, left out of
 * the row's scale and multiplied in 16 bit.  by_call: a column that is an outlier in any row of a call is one in all of
 * them, as in bitsandbytes; else a row's result never depends on its neighbours. */
typedef struct rv_int8_rules { float threshold; bool by_call; } rv_int8_rules;

/* ---- the CPU ---- */
typedef struct rv_cpu_options {
    int32_t threads;             /* 0: one a core this process may use                          */
    rv_dtype act;                /* RV_F32 or RV_BF16                                           */
    bool reference;              /* plain loops only: no SIMD, no library; for tests            */
    rv_int8_rules int8;
} rv_cpu_options;

/* RV_ERR_UNSUPPORTED for BF16 on a CPU without AVX512-BF16 (unless reference). */
rv_status rv_cpu_open(const rv_cpu_options *options, rv_backend **out, rv_error *err);

typedef struct rv_cpu_features { bool f16c, avx2, fma, avx512, avx512_bf16, avx512_vnni, avx512_vbmi, amx_bf16, amx_int8; } rv_cpu_features;
rv_cpu_features rv_cpu_detect(void);
/* rv_int8_weights and rv_nf4_quantise (engine/base/quant.h) with the best instructions of this CPU: the same bits, several times faster. */
typedef struct rv_quantisers {
    float (*int8_weights)(int8_t *codes, const void *row, rv_dtype type, int64_t n);
    void (*nf4_quantise)(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n);
} rv_quantisers;
rv_quantisers rv_cpu_quantisers(void);
const char *rv_cpu_library(void);  /* the matrix library, "oneDNN 2.6.3", or "none"             */

/* ---- CUDA (only in builds that have it: RV_CUDA) ---- */
typedef struct rv_cuda_options {
    int32_t  device;
    int32_t  arch;               /* kernel set 70, 80 or 90; 0: the newest that the GPU runs    */
    rv_dtype act;                /* RV_BF16 or RV_F16; with set 70 RV_F16                       */
    bool     plain_attention;    /* for comparison: simple attention kernels                    */
    bool     plans;              /* nothing is taken of the GPU: only for rv_weight_bytes and what the struct says */
    bool     there;              /* with plans and arch: the GPU is there and has to run them   */
    rv_int8_rules int8;
} rv_cuda_options;

typedef struct rv_cuda_device_info {
    char     name[64];
    int32_t  capability, arch, multiprocessors;   /* arch 0: this build has no kernels for it, and `problem` says why */
    char     problem[256];
    int32_t  driver;             /* the newest CUDA it supports: 13000 is 13.0                  */
    uint64_t memory_total, memory_free;
} rv_cuda_device_info;

int32_t   rv_cuda_count(void);   /* GPUs; 0 without a driver                                    */
rv_status rv_cuda_device(int32_t i, rv_cuda_device_info *out, rv_error *err);
/* RV_ERR_UNSUPPORTED: no driver, one too old, no GPU, or one without a kernel set. */
rv_status rv_cuda_open(const rv_cuda_options *options, rv_backend **out, rv_error *err);

void rv_backend_close(rv_backend *be);                               /* NULL is fine            */

/* ---- what the device itself can do: benchmarks divide by it ---- */
typedef struct rv_peak {
    double   read, copy;         /* bytes a second of device memory; a copy counts both ways    */
    double   flop;               /* a second, of square products of the operands' type          */
    uint64_t bytes;              /* read a time                                                 */
    int32_t  side;               /* of the matrices                                             */
} rv_peak;
/* Of an idle backend of that kind; takes up to 2 GiB, half of what is free, or half of `limit` (0: none), and gives it back. */
rv_status rv_cpu_peak(rv_backend *be, uint64_t limit, rv_peak *out, rv_error *err);
rv_status rv_cuda_peak(rv_backend *be, uint64_t limit, rv_peak *out, rv_error *err);

/* ---- views: a run of rows or columns of m ---- */
static inline rv_mat rv_rows(rv_mat m, int32_t from, int32_t n) {
    m.data = (char *)m.data + (size_t)from * (size_t)m.ld * rv_dtype_size(m.type);
    m.rows = n;
    return m;
}
static inline rv_mat rv_cols(rv_mat m, int32_t from, int32_t n) {
    m.data = (char *)m.data + (size_t)from * rv_dtype_size(m.type);
    m.cols = n;
    return m;
}
static inline rv_mat rv_mat_of(void *data, int32_t rows, int32_t cols, rv_dtype type) {
    return (rv_mat){ data, rows, cols, cols, type };
}

/* ---- the checked calls, one per operation ---- */
/* A thread that is about to use an open backend makes its device the thread's, and afterwards gives the thread back what it had
 * chosen before.  In pairs, which may be nested.  Opening, closing and rv_weight_bytes need neither. */
void rv_enter(rv_backend *be);
void rv_leave(rv_backend *be);
void *rv_device_alloc(rv_backend *be, uint64_t bytes);
void  rv_device_release(rv_backend *be, void *memory);               /* also after an error      */
/* Host memory for tables of rows (rv_weight_spec.on_host); only where rv_has_host_memory. */
bool  rv_has_host_memory(const rv_backend *be);
void *rv_host_alloc(rv_backend *be, uint64_t bytes);
void  rv_host_release(rv_backend *be, void *memory);                 /* also after an error      */
void  rv_upload(rv_backend *be, void *dst, const void *host, uint64_t bytes);
void  rv_download(rv_backend *be, void *host, const void *src, uint64_t bytes);
rv_status rv_finish(rv_backend *be, rv_error *err);                  /* waits; returns the sticky error */
/* Forgets a sticky error that left the device as it was, out of memory: for who gives back what was taken before it. */
void  rv_forgive(rv_backend *be);
/* Whether weights are still being read: finish would wait for them. */
bool      rv_loading(rv_backend *be);
/* f16: values that were clamped to +-65504 by what has run since the backend was opened; asks the device, and waits for nothing queued. */
uint64_t  rv_saturated(rv_backend *be);
/* Notes when the queue gets here. rv_marked_ms, after rv_finish: the milliseconds between two such places; 0: not known. */
void   rv_mark_time(rv_backend *be, rv_mark which);
double rv_marked_ms(rv_backend *be, rv_mark from, rv_mark to);
uint64_t   rv_weight_bytes(rv_backend *be, const rv_weight_spec *spec);
rv_weight *rv_weight_new(rv_backend *be, const rv_weight_spec *spec, void *memory);
void       rv_weight_free(rv_backend *be, rv_weight *w);             /* NULL is fine             */

void rv_zero(rv_backend *be, rv_mat x);
/* src with ld 0 is one row, copied to every row of dst. */
void rv_copy(rv_backend *be, rv_mat dst, rv_mat src);
/* im2col: pixels [tiles x channels*T*T] (planes) -> out [tiles*g*g x channels*patch*patch],
 * g = T / patch; patch (py,px) is row py*g+px, column c*patch*patch + ky*patch + kx.
 * pixels are f32 (values NULL), or u8 that stand for values[c * 256 + pixel] (f32, device). */
void rv_patches(rv_backend *be, rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch);
/* out f32: row r = table[ids[r]]. */
void rv_embed(rv_backend *be, rv_mat out, const rv_weight *table, const int32_t *ids);
/* x f32: row r += scale * table[ids[r]]; ids[r] < 0: nothing. */
void rv_add_rows(rv_backend *be, rv_mat x, const rv_weight *table, const int32_t *ids, float scale);
/* statistics in f32; out may be x. */
void rv_norm_rows(rv_backend *be, rv_mat out, rv_mat x, rv_norm n);
/* out = act(x W^T + bias), accumulated in f32; x in be->act, out be->act or f32. bias: f32, device. */
void rv_linear(rv_backend *be, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act);
/* x f32: row r += scale * row_scale[r] * (h W^T + bias); row_scale NULL: 1. A row whose
 * row_scale is 0 is left as it is, whatever h holds. */
void rv_linear_add(rv_backend *be, rv_mat x, rv_mat h, const rv_weight *w, const float *bias,
                   float scale, const float *row_scale);
/* out [n x f] = silu(gate) * up, gate_up [n x 2f] from a GATE_UP weight. */
void rv_swiglu(rv_backend *be, rv_mat out, rv_mat gate_up);
/* In place, each head of head_dim columns, half-rotation pairs (j, j + head_dim/2).  cos_sin f32
 * [positions x head_dim]: cos of j = 0..head_dim/2-1, then sin. */
void rv_rope(rv_backend *be, rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim);
/* Row r of k and v becomes key pos[r] of sequence slot[r] (NULL: 0). pos[r] < 0: not stored. */
void rv_kv_store(rv_backend *be, rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos);
void rv_attend(rv_backend *be, const rv_attention *a);
/* out row = [last (d) | column d + c*n_taps + i = tap i's column c]: HF's channel-major order. */
void rv_concat_taps(rv_backend *be, rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps);

/* ---- optional ones ---- */
/* out = norm(x) w^T, x f32, or (swiglu) what rv_swiglu makes of that; false: nothing was done, compose it of the operations above. */
bool rv_linear_normed(rv_backend *be, rv_mat out, rv_mat x, rv_norm n, const rv_weight *w, bool swiglu);
/* The whole layer in few launches, for rows of different sequences; false: nothing was done, compose it of the operations above. */
bool rv_decoder_layer(rv_backend *be, const rv_decoder_block *b);
/* The same of n layers, at most RV_BLOCKS_AT_ONCE, one after the other. */
bool rv_decoder_layers(rv_backend *be, const rv_decoder_block *b, int32_t n);
/* The same of the tower's; false: the backend has no such entry. */
bool rv_tower_layer(rv_backend *be, const rv_vision_block *b);
/* Whether all of the following are there, so that steps run ahead of the host. */
bool rv_can_run_ahead(const rv_backend *be);
/* out (device) per row of logits f32; first id on ties; id -1 when a logit is NaN or +inf. */
void rv_best_rows(rv_backend *be, rv_best *out, rv_mat logits);
/* Between the two, operations on device memory (no upload, download or alloc) are recorded, not run.
 * NULL when recording failed (the sticky error says why). */
void     rv_record_tape(rv_backend *be);
rv_tape *rv_recorded(rv_backend *be);
void     rv_play(rv_backend *be, rv_tape *tape);
void     rv_erase(rv_backend *be, rv_tape *tape);                    /* NULL is fine             */
/* Chooses the next token of every row that is on (pos >= 0) and moves the row to it, so that the same pass can
 * run again before the host has seen anything: best = the token, id -1 when a logit is NaN or +inf; then ids = id,
 * pos + 1 (-1: off, after `last` or a bad logit), index + 1, seen (where there is a penalty). A row's choice depends
 * on nothing but its logits, `how` and `seen`. */
void     rv_choose(rv_backend *be, const rv_answering *a, rv_mat logits);
/* fetch begins a copy to the tray behind what is queued and returns at once; fetched waits for the tray's last copy,
 * not for what was queued since, and returns its bytes, valid until the next fetch (NULL after an error). */
rv_tray    *rv_tray_new(rv_backend *be, uint64_t bytes);
void        rv_tray_free(rv_backend *be, rv_tray *tray);             /* NULL is fine             */
void        rv_fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes);
const void *rv_fetched(rv_backend *be, rv_tray *tray, rv_error *err);
/* Queued like weight_new, one at a time: all of it is there, and every piece was seen, after finish. */
void        rv_fill_memory(rv_backend *be, void *dst, const rv_fill *from);
bool        rv_can_fill(const rv_backend *be);
/* Weights that come when they are needed: see the table. */
void        rv_bring(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes);
void        rv_brought(rv_backend *be, int32_t lane);
void        rv_spent(rv_backend *be, int32_t lane);
bool        rv_can_bring(const rv_backend *be);

#ifdef __cplusplus
}
#endif
#endif
