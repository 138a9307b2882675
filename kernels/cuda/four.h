/* four.h - weights of 4 bits on the GPU: where everything lies, who puts it there, who multiplies with it.
 *
 * The one idea: a record is 16 rows of 256 columns, as one warp reads it with 16-byte loads that land in the right
 * lanes of the tensor core's operands; its absmaxes follow its codes.  All that the kernels need lies in the weight's
 * memory, so that memory kept in a file needs nothing else.
 *
 *     memory   head | nested scales, part by part | records, [tile of 16 rows][256 columns]
 *     record   codes: piece p of lane l at 512 p + 16 l | absmaxes: u8 (nested) or f32, [lane][row g, row g + 8]
 *
 * A lane (g, t) = (l / 4, l % 4) has block t (64 columns) of the record in rows g and g + 8, with both absmaxes: piece p
 * holds of row g + p / 2 * 8 the columns from 32 (p % 2) on, two a byte, the even one in the high nibble (as in checkpoints).
 * Source: spec quantisation.md, section 2; engine/base/quant.h.
 */
#ifndef RV_KERNELS_CUDA_FOUR_H
#define RV_KERNELS_CUDA_FOUR_H
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RV_FOUR_ROWS = 16, RV_FOUR_COLS = 256, RV_FOUR_CODES = RV_FOUR_ROWS * RV_FOUR_COLS / 2, RV_FOUR_BLOCKS = RV_FOUR_COLS / RV_BLOCK4,
       RV_FOUR_ABSMAXES = RV_FOUR_ROWS * RV_FOUR_BLOCKS /* a record's */, RV_FOUR_NESTED_RECORD = RV_FOUR_CODES + RV_FOUR_ABSMAXES,
       RV_FOUR_FLOAT_RECORD = RV_FOUR_CODES + RV_FOUR_ABSMAXES * 4 };

/* What memory begins with. */
typedef struct rv_four_head { float map[16], nested_map[RV_WEIGHT_PARTS][256], offset[RV_WEIGHT_PARTS]; } rv_four_head;

typedef struct rv_four {
    char    *memory;                     /* rv_four_head first                                   */
    int32_t  rows, cols, n_parts, part_rows[RV_WEIGHT_PARTS];
    bool     mixed, nested;              /* mixed: rows of the parts in turns of RV_CUDA_GATE_BLOCK */
    int32_t  blocks, steps, record;      /* a row's blocks and records; a record's bytes         */
    int32_t  scales[RV_WEIGHT_PARTS];    /* bytes from `memory` on to a part's nested scales     */
    uint64_t records, bytes;             /* to the first record; of all                          */
} rv_four;
rv_four rv_four_of(const rv_weight_spec *s, void *memory);
const rv_four *rv_cuda_four(const rv_weight *w);       /* NULL: w is not kept in 4 bits       */
static inline int32_t rv_four_runs(const rv_four *q, int32_t part) {        /* nested scales of a part */
    return (q->part_rows[part] * q->blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
}

/* ---- four.cu: making them, part by part; rows [from, from + n) of a part ---- */

/* in [n x cols] f32, f16 or bf16: codes to their place; absmaxes too, or where nested to absmax [rows of the part x blocks]. */
cudaError_t rv_cuda_four_quantise(const rv_four *q, int32_t part, const void *in, rv_dtype type, int32_t from, int32_t n, float *absmax, cudaStream_t stream);
/* absmax of the whole part: offset, nested scales and codes to their places. sums: rv_four_runs doubles. */
cudaError_t rv_cuda_four_nest(const rv_four *q, int32_t part, const float *absmax, double *sums, cudaStream_t stream);
/* Codes of a checkpoint [n x cols / 2], and the absmaxes of these rows: u8 where q is nested, else f32. */
cudaError_t rv_cuda_four_place(const rv_four *q, int32_t part, const void *codes, const void *absmax, int32_t from, int32_t n, cudaStream_t stream);
/* The same codes with f32 absmaxes, to rows of 16 bit in the order of q's rows; out is row 0's. */
cudaError_t rv_cuda_four_unpack(const rv_four *q, int32_t part, void *out, rv_dtype act, const void *codes, const float *absmax, const float map[16],
                                int32_t from, int32_t n, cudaStream_t stream);
/* Rows [from, from + n) of the weight as 16 bit, row-major and tight: rn(map * absmax); from is a multiple of RV_FOUR_ROWS. */
cudaError_t rv_cuda_four_read(const rv_four *q, void *out, rv_dtype act, int32_t from, int32_t n, int32_t multiprocessors, cudaStream_t stream);

/* ---- rows of activations, as products read them ---- */

/* Of each record's columns, in pieces of 8, those of the four blocks by turns; or in pairs, in the order of Hopper's products of
 * 16 columns: place 16 j + 8 i + 2 t + c has column 4 j + 2 i + c of block t. */
typedef enum rv_four_order { RV_FOUR_BY_EIGHT, RV_FOUR_BY_TWO } rv_four_order;
/* x [n x cols] of 16 bit to `to` [n x steps of q x RV_FOUR_COLS], aligned to 16 bytes; what lies beyond the last block is zero. */
cudaError_t rv_cuda_four_arrange(const rv_four *q, rv_mat x, void *to, rv_four_order order, int32_t multiprocessors, bool overlap, cudaStream_t stream);

/* ---- few4.cu: products with 1 to 64 rows; p->w does not count ---- */
/* room: for rows of x in another order. */
cudaError_t rv_cuda_few4(const rv_few *p, const rv_four *q, void *room, bool overlap, cudaStream_t stream);

/* ---- few4_90.cu: the same, to the bit, with more than RV_CUDA_NORM_ROWS rows and no norm, on Hopper ---- */
bool rv_cuda_few4_90_takes(const rv_few *p, const rv_four *q);
/* x [n x cols] f32 arranged by two, RMS-normed to the bits of rv_cuda_norm; false: it does not take so many columns. */
bool        rv_cuda_four_norms(int32_t cols);
cudaError_t rv_cuda_four_norm(rv_mat x, const float *weight, float eps, rv_dtype act, void *to, bool overlap, cudaStream_t stream);
/* arranged: p->x is, by two, its rows tight; arranges: so becomes p->out, of SWIGLU, its columns some records. */
cudaError_t rv_cuda_few4_90(const rv_few *p, const rv_four *q, void *room, bool arranged, bool arranges, bool overlap, cudaStream_t stream);

/* ---- four90.cu: with more rows, on Hopper: out = store(x W^T + bias) or add; p->w, p->norm and p->turn do not count ---- */

bool rv_cuda_four90_fits(const rv_few *p);
/* room: for rows of x in another order, as many at a time as fit. */
cudaError_t rv_cuda_four90(const rv_few *p, const rv_four *q, void *room, uint64_t room_bytes, bool overlap, cudaStream_t stream);
cudaError_t rv_cuda_few4_70(const rv_few *p, const rv_four *q, cudaStream_t stream);       /* few4_70.cu: the same for Volta, with act f16 */

#ifdef __cplusplus
}
#endif
#endif
