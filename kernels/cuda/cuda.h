/* cuda.h - the CUDA backend from the inside.
 *
 * The one idea: host code is C and only knows launchers, plain C functions declared here; the .cu files hold kernels and
 * their launchers and know no policy.  Launchers queue on `stream`, whose GPU must be the thread's current one, and return
 * the launch's error.
 *
 * Types: "act" is the 16-bit type of matrix operands, bf16 or f16; a launcher takes it as rv_dtype.
 */
#ifndef RV_KERNELS_CUDA_CUDA_H
#define RV_KERNELS_CUDA_CUDA_H
#include <cuda_runtime_api.h>
#include "kernels/backend.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RV_CUDA_GATE_BLOCK = 8,           /* GATE_UP weights: 8 rows of gate, 8 of up, and so on */
       RV_CUDA_SPLIT_KEYS = 256,         /* of a split of decode attention, but for long rows  */
       RV_CUDA_NORM_THREADS = 256,       /* of a whole row's norm, here and inside a product    */
       RV_CUDA_NORM_MOST = 8192,         /* the widest that it norms                            */
       RV_CUDA_NORM_ROWS = 2,            /* a product norms its rows itself up to this many     */
       RV_CUDA_COUNTERS = 1 << 14,       /* int32s that `partial` begins with, zero between launches */
       RV_CUDA_TURNS = 64,               /* the last of them, in pairs: rv_few's turn           */
       RV_CUDA_GATE = 64,                /* before those: rv_cuda_stream's                      */
       RV_CUDA_ATTEND_COUNTERS = RV_CUDA_COUNTERS - 2 * RV_CUDA_TURNS - RV_CUDA_GATE };  /* attention's, and the choice of a token's */

#define RV_CUDA_PARTIAL_BYTES (UINT64_C(64) << 20)     /* what attention that is cut along the keys leaves in between */
#define RV_CUDA_MARKS_BYTES   (UINT64_C(16) << 10)     /* behind it: rv_int8's marks, zero between products */

/* context.c: a function of the driver's, which is no library that a build links with. */
cudaError_t rv_cuda_driver_entry(const char *name, void **out);

/* ---- rows.cu: one row at a time; all memory-bound ---- */
cudaError_t rv_cuda_zero(rv_mat x, cudaStream_t stream);
cudaError_t rv_cuda_copy(rv_mat dst, rv_mat src, cudaStream_t stream);
cudaError_t rv_cuda_patches(rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch, cudaStream_t stream);
cudaError_t rv_cuda_embed(rv_mat out, rv_mat table, const int32_t *ids, bool overlap, cudaStream_t stream);
cudaError_t rv_cuda_add_rows(rv_mat x, rv_mat table, const int32_t *ids, float scale, cudaStream_t stream);
cudaError_t rv_cuda_norm(rv_mat out, rv_mat x, rv_norm n, bool overlap, cudaStream_t stream);
cudaError_t rv_cuda_swiglu(rv_mat out, rv_mat gate_up, bool overlap, cudaStream_t stream);
cudaError_t rv_cuda_rope(rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim, cudaStream_t stream);
cudaError_t rv_cuda_kv_store(rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos, cudaStream_t stream);
cudaError_t rv_cuda_concat_taps(rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps, cudaStream_t stream);
/* In place on what a large GEMM left: out = act(x + bias), x and out of any type. */
cudaError_t rv_cuda_bias_act(rv_mat out, rv_mat x, const float *bias, rv_act act, cudaStream_t stream);
/* x f32 += scale * row_scale[r] * (y + bias); y act or f32. */
cudaError_t rv_cuda_add_scaled(rv_mat x, rv_mat y, const float *bias, float scale, const float *row_scale, cudaStream_t stream);
/* best.cu.  partial: decode attention's, RV_CUDA_PARTIAL_BYTES. */
cudaError_t rv_cuda_best(rv_best *out, rv_mat logits, void *partial, bool overlap, cudaStream_t stream);

/* ---- sample.cu and best.cu ---- partial: the same; as many rows at a time as rv_cuda_choose_bytes fit into it. */
cudaError_t rv_cuda_choose(const rv_answering *a, rv_mat logits, void *partial, bool overlap, cudaStream_t stream);
uint64_t    rv_cuda_choose_bytes(int32_t rows, int32_t cols);

/* ---- saturate.cu: f16 values beyond +-65504 ----
 * Counted are casts of f32 results where they are stored (products, norms, SwiGLU, rotations, copies) and infinities that
 * large products leave.  Not counted: attention's weights and means, which stay in range, and weights while loading. */
/* x f16, as a product stored it: infinities become +-65504. */
cudaError_t rv_cuda_clamp(rv_mat x, cudaStream_t stream);
/* *sum: clamped by this process on this GPU. Waits for `stream`, which may be any. capability: of the GPU, which may have no
 * code of a set's files. */
cudaError_t rv_cuda_clamped(uint64_t *sum, int32_t capability, cudaStream_t stream);
void *rv_cuda_clamped_few(void);         /* a file's counter (device), NULL on an error         */
void *rv_cuda_clamped_few8(void);
void *rv_cuda_clamped_int8(void);
void *rv_cuda_clamped_few4(void);
void *rv_cuda_clamped_rows(void);
void *rv_cuda_clamped_decode(void);
void *rv_cuda_clamped_few70(void);
void *rv_cuda_clamped_few8_70(void);
void *rv_cuda_clamped_many8_70(void);
void *rv_cuda_clamped_few4_70(void);
void *rv_cuda_clamped_decode70(void);
void *rv_cuda_clamped_gemm90(void);      /* where these are built                               */
void *rv_cuda_clamped_int8_90(void);
void *rv_cuda_clamped_four90(void);
void *rv_cuda_clamped_few4_90(void);
void *rv_cuda_clamped_few8_90(void);
void *rv_cuda_clamped_outliers90(void);
void *rv_cuda_clamped_stream90(void);
void *rv_cuda_clamped_stream8_90(void);
void *rv_cuda_clamped_stream4_90(void);

/* ---- land.cu: rows [from, from + rows) of a matrix, as a file has them, lie in `staging` (f32, f16 or bf16) ----
 * To act, row r to row r of `to`, or with `block` to block r / block of every `stride` rows.  f16 saturates, which is not counted. */
cudaError_t rv_cuda_convert(void *to, rv_dtype act, int32_t block, int32_t stride, const void *staging, rv_dtype type, int32_t from, int32_t rows, int32_t cols,
                            cudaStream_t stream);
/* *first = min(*first, index) if one of `rows` runs of `cols` numbers (f32, f16 or bf16; the runs `pitch` of them apart) is NaN, infinite
 * or, `in_f16`, would be so as an f16. All on the device. */
cudaError_t rv_cuda_find_bad(const void *data, rv_dtype type, int64_t rows, int64_t cols, int64_t pitch, bool in_f16, int32_t index, int32_t *first, cudaStream_t stream);

/* ---- few.cu: products with 1 to 64 rows, at the memory's speed ----
 * w: act [rows x cols] row-major, 16-byte aligned, cols a multiple of 8.  Sums in an order fixed by
 * (rows, cols) alone, so that a row's result never depends on how many rows there are. */
typedef struct rv_few {
    rv_mat       x;                      /* act [n x cols], n 1..64; f32 with a norm            */
    const float *norm;                   /* NULL, or f32[cols]: x is RMS-normed first, to the bits of
                                            rv_cuda_norm; n at most RV_CUDA_NORM_ROWS           */
    float        eps;
    rv_dtype     act;                    /* the type of w                                       */
    int32_t      multiprocessors;        /* of the GPU                                          */
    const void  *w;
    int32_t      rows, cols;
    const float *bias;
    rv_mat       out;                    /* STORE: act or f32 [n x rows]; SWIGLU: act [n x rows / 2];
                                            ADD: f32 [n x rows], added to                       */
    enum { RV_FEW_STORE, RV_FEW_GELU, RV_FEW_SWIGLU, RV_FEW_ADD } how;
    float        scale;                  /* ADD: out += scale * row_scale * (x W^T + bias)      */
    const float *row_scale;
    int32_t     *turn;                   /* NULL, or two zeros, left so: blocks take tiles as they come to need them
                                            (which leaves the sums alone).  No launch that may run at the same time
                                            has the same: rv_cuda_turn, with a number of its own each */
} rv_few;
cudaError_t rv_cuda_few(const rv_few *p, bool overlap, cudaStream_t stream);
static inline int32_t *rv_cuda_turn(void *partial, uint32_t number) {
    return (int32_t *)partial + RV_CUDA_COUNTERS - 2 * RV_CUDA_TURNS + number % RV_CUDA_TURNS * 2;
}

/* ---- few70.cu: the same for Volta, with act f16; `turn` and `w`'s alignment as there ---- */
cudaError_t rv_cuda_few70(const rv_few *p, cudaStream_t stream);

/* ---- LLM.int8 (engine/base/quant.h says what the numbers are) ----
 * int8.cu: weights and activations as codes.  few8.cu, few8_90.cu: products with 1 to 64 rows.  int8_90.cu: with more, on 9.0.
 * p.w: codes int8 [rows x pitch], pitch = cols rounded up to a multiple of 16, zeros behind cols.  x of any alignment. */
enum { RV_CUDA_INT8_FUSED = 2,           /* a product of few rows quantises up to this many itself */
       RV_CUDA_INT8_MOST = 1 << 15 };    /* columns                                             */
/* Tiles of 128 rows of weights and `rows` of x (128, 208 or 256); clusters of `share` of them with the same rows of x, each of `split` parts of the columns. */
typedef struct rv_int8_cut { int32_t rows, share, split; } rv_int8_cut;
typedef struct rv_int8 {
    rv_few        p;                     /* as rv_cuda_few, with n from 1 on and a norm of any number of rows */
    const float  *w_scale;               /* f32 [rows]: the rows' absmax                        */
    int32_t       pitch, fused;          /* fused: RV_CUDA_INT8_FUSED, but in tests             */
    rv_int8_rules rules;
    rv_mat        call;                  /* by_call: the rows that decide, x among them         */
    rv_int8_cut   cut;                   /* of int8_90.cu; of few8_90.cu: rows of weights of a tile (32, 48, 112), 0, but in tests: its choice */
    void         *room, *marks;          /* device: RV_CUDA_PARTIAL_BYTES, RV_CUDA_MARKS_BYTES  */
} rv_int8;
cudaError_t rv_cuda_few8(const rv_int8 *q, bool overlap, cudaStream_t stream);
cudaError_t rv_cuda_few8_70(const rv_int8 *q, cudaStream_t stream);          /* few8_70.cu: the same for Volta, with act f16 */
/* few8_90.cu: the same as few8.cu, to the bit, on Hopper.  takes: more rows than q->fused, and whole 16-byte pieces of weights, scales and results. */
bool        rv_cuda_few8_90_takes(const rv_int8 *q);
cudaError_t rv_cuda_few8_90(const rv_int8 *q, bool overlap, cudaStream_t stream);

/* What lies in `room` for n rows of few8.cu, few8_90.cu and few8_70.cu: of each a list with room for RV_CUDA_INT8_CLOSE entries more than columns, and (starts) which of its entries
 * begins each of RV_CUDA_INT8_SLICES slices of columns, if there are any. */
enum { RV_CUDA_INT8_CLOSE = 8, RV_CUDA_INT8_SLICES = 8 };
typedef struct rv_int8_room { void *rows; uint16_t *starts; uint32_t *list; int8_t *codes; } rv_int8_room;
static inline rv_int8_room rv_cuda_int8_room(void *room, int32_t n, int32_t pitch) {
    const uint64_t rows = ((uint64_t)n * 8 + 255) / 256 * 256, starts = (uint64_t)n * RV_CUDA_INT8_SLICES * sizeof(uint16_t),
                   list = (uint64_t)n * ((uint64_t)pitch + RV_CUDA_INT8_CLOSE) * sizeof(uint32_t);
    char *const at = (char *)room + rows, *const codes = at + starts + list;
    return (rv_int8_room){ room, (uint16_t *)at, (uint32_t *)(at + starts), (int8_t *)codes };
}
/* x (normed first where p.norm is) to codes, scales and outliers in `room`. */
cudaError_t rv_cuda_quantise(const rv_int8 *q, bool overlap, cudaStream_t stream);

/* Where row r of a part goes: block 0: to row first + r; else blocks of `block` rows, one every `stride`. */
typedef struct rv_int8_place { int32_t first, block, stride; } rv_int8_place;
/* Rows [from, from + rows) of a part lie in `staging`: f32, f16 or bf16 weights that become codes and scales; ready codes; their
 * scales; codes that become act weights [.. x cols], their scales (host, of the whole part) copied before it returns. */
cudaError_t rv_cuda_int8_make(int8_t *codes, float *scale, int32_t pitch, rv_int8_place place, const void *staging, rv_dtype type, int32_t from,
                              int32_t rows, int32_t cols, cudaStream_t stream);
cudaError_t rv_cuda_int8_copy(int8_t *codes, int32_t pitch, rv_int8_place place, const void *staging, int32_t from, int32_t rows, int32_t cols, cudaStream_t stream);
cudaError_t rv_cuda_int8_scales(float *scale, rv_int8_place place, const void *staging, int32_t from, int32_t rows, cudaStream_t stream);
cudaError_t rv_cuda_int8_plain(void *to, rv_dtype act, rv_int8_place place, const void *staging, const void *scales, int32_t from, int32_t rows, int32_t cols,
                               cudaStream_t stream);

/* ---- gemm90.cu: the same products with more rows, on a GPU of capability 9.0 exactly; STORE, GELU to act, ADD; no norm ----
 * Sums in ascending order of k, whatever the number of rows. */
bool rv_cuda_gemm90_fits(const rv_few *p);       /* whole 16-byte pieces everywhere             */
bool rv_cuda_gemm90_pays(const rv_few *p);       /* faster than cuBLASLt and what must follow it, by its shape */
cudaError_t rv_cuda_gemm90(const rv_few *p, bool overlap, cudaStream_t stream);

/* ---- attention ----
 * flash.cu: many rows; head_dim 64, 80, 128 on tensor cores, any other (<= 256) by plain.cu's loops.  flash70.cu: the same for Volta, in f16.
 * flash90.cu: many rows on a GPU of kernel set 90, called by rv_cuda_flash where it is the faster one.  Without pages all keys below
 * `longest` must hold numbers, whether a row sees them or not.
 * It cuts what does not fill a round of the GPU's multiprocessors along the keys, through `partial`
 * (RV_CUDA_PARTIAL_BYTES, counters as decode.cu's).
 * decode.cu: few rows, the keys of each split by their range alone (decode.cuh, key_cut); `partial` holds
 * rv_cuda_decode_bytes(rows, heads, head_dim, longest) bytes, zeroed before its first use (the
 * kernel leaves its counters zeroed, so one buffer serves any sequence of calls on one stream).
 * decode_rope: rope of q and k, kv_store of k and v (row r becomes key pos[r]) and decode in one launch, to
 * the same bits.  a->q and k hold the rows before rope and may be rotated in place; pos[r] < 0:
 * nothing stored.  Rows must be of different sequences: a row does not wait for another's key. */
typedef enum {
    RV_CUDA_APART,                       /* begins when the launch before has ended             */
    RV_CUDA_OVERLAP,                     /* programmatic dependent launch (sm_90)               */
    RV_CUDA_EARLY                        /* also reads keys before that end: keys and values (but for decode_rope's
                                            own), pages, bias, slot, first, last and pos were written by none of
                                            the launches that overlap one another up to this one */
} rv_cuda_order;
cudaError_t rv_cuda_flash(const rv_attention *a, void *partial, int32_t multiprocessors, int32_t arch, cudaStream_t stream);
cudaError_t rv_cuda_flash90(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream);
cudaError_t rv_cuda_flash70(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream);
cudaError_t rv_cuda_attend_plain(const rv_attention *a, cudaStream_t stream);
cudaError_t rv_cuda_decode(const rv_attention *a, void *partial, rv_cuda_order order, cudaStream_t stream);
cudaError_t rv_cuda_decode_rope(const rv_attention *a, rv_mat k, rv_mat v, const float *cos_sin, const int32_t *pos, void *partial,
                                rv_cuda_order order, cudaStream_t stream);
/* RMS norm of q, a head at a time, and decode in one launch, to the bits of rv_cuda_norm and rv_cuda_decode.  a->q holds
 * the rows before the norm and may be normed in place. */
cudaError_t rv_cuda_decode_norm(const rv_attention *a, rv_norm n, void *partial, rv_cuda_order order, cudaStream_t stream);
/* decode70.cu: the three for Volta, in f16. */
cudaError_t rv_cuda_decode70(const rv_attention *a, void *partial, rv_cuda_order order, cudaStream_t stream);
cudaError_t rv_cuda_decode_rope70(const rv_attention *a, rv_mat k, rv_mat v, const float *cos_sin, const int32_t *pos, void *partial,
                                  rv_cuda_order order, cudaStream_t stream);
cudaError_t rv_cuda_decode_norm70(const rv_attention *a, rv_norm n, void *partial, rv_cuda_order order, cudaStream_t stream);
uint64_t    rv_cuda_decode_bytes(int32_t rows, int32_t heads, int32_t head_dim, int32_t longest);

/* ---- stream90.cu, stream8_90.cu, stream4_90.cu: decoder layers of one or two rows, many in one launch ----
 * To the bits of rv_cuda_few (few8, few4), rv_cuda_decode_rope and rv_cuda_decode_norm, layer by layer; all weights in one format.  Begins when the launch before has
 * ended; keys, pages, bias, slot, first, last and pos are those of before the launch, as in RV_CUDA_EARLY. */
enum { RV_STREAM_LAYERS = RV_BLOCKS_AT_ONCE };   /* of one launch: what a kernel's parameters have room for */
typedef struct rv_stream_layer {
    const void  *w[4];                           /* in, o, gate_up, down: as rv_few's w, codes, or an rv_four on the host */
    const float *scale[4];                       /* int8: of their rows                         */
    const float *norm1, *norm2, *q_norm;         /* q_norm NULL: a self layer                   */
    void        *k, *v;                          /* the layer's keys and values                 */
    float        attn_gate, mlp_gate;
} rv_stream_layer;
typedef struct rv_stream {
    rv_mat       x, qkv, ff;
    float        eps, q_eps;                     /* of the norms                                */
    rv_attention self, cross;                    /* but for kv.k.data and kv.v.data; a kind that is not there: q.rows 0 */
    const float *cos_sin;                        /* self layers                                 */
    const int32_t *pos;
    const float *row_on;                         /* cross layers                                */
    int32_t      multiprocessors, n;             /* n: layers                                   */
    rv_format    format;                         /* of every weight                             */
    rv_int8_rules rules;                         /* each row by itself                          */
    void        *partial;                        /* as rv_cuda_decode's                         */
    rv_stream_layer layer[RV_STREAM_LAYERS];
} rv_stream;
/* Whether the format, shapes, and what a block and the GPU have, allow it; no launch is tried. */
bool        rv_cuda_stream_takes(const rv_stream *p);
cudaError_t rv_cuda_stream(const rv_stream *p, cudaStream_t stream);
bool        rv_cuda_stream8_takes(const rv_stream *p);           /* theirs for int8              */
cudaError_t rv_cuda_stream8(const rv_stream *p, cudaStream_t stream);
bool        rv_cuda_stream4_takes(const rv_stream *p);           /* .. and for 4 bits            */
cudaError_t rv_cuda_stream4(const rv_stream *p, cudaStream_t stream);

/* ---- ceiling.cu: for rv_cuda_peak ---- */
cudaError_t rv_cuda_fill_random(void *data, uint64_t bytes, rv_dtype act, cudaStream_t stream);   /* 16-bit values of both signs */
/* Reads all of it in 16-byte pieces with `blocks` blocks; `sink`: 4 bytes that may be overwritten. */
cudaError_t rv_cuda_read_all(const void *data, uint64_t bytes, void *sink, int32_t blocks, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
