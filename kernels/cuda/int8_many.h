/* int8_many.h - products of int8 weights with many rows, on Hopper: what lies where in between, and how they are cut.
 *
 * The one idea: one launch makes codes and marks where outliers are, one adds up what lists of them add, and the product takes both.  Which way a row's
 * outliers go, it alone decides; which ways there are to go at all in a launch, the device finds from marks, and the host never asks.
 */
#ifndef RV_KERNELS_CUDA_INT8_MANY_H
#define RV_KERNELS_CUDA_INT8_MANY_H
#include "kernels/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RV_CUDA_INT8_CUTS = 10,
       RV_CUDA_INT8_BESIDE = 16 };       /* columns with outliers that a product has beside its tiles, at most */

/* rv_cuda_int8_room for more rows.  A row's outliers are listed, as long as they are no more than
 * rv_cuda_int8_listed (none, where all rows have the same); a row of more is `dense`: then `outliers` has its values, zeros where it has no outlier.
 * `more` is for what listed outliers add, where that is found before the
 * product: f32 [n x the weight's rows].  h: act [n x pitch], of rows that are normed first, else NULL. */
static inline int32_t rv_cuda_int8_listed(int32_t pitch) {
    const int32_t n = (int32_t)((int64_t)pitch * pitch >> 18);       /* 64 of 4096, 784 of 14336: what one dense row costs its tile grows with the columns */
    return n < 32 ? 32 : n > 1024 ? 1024 : n;
}
typedef struct rv_int8_many {
    void *rows;
    uint32_t *columns, *list;            /* columns with outliers, where all rows have the same; list: [n x rv_cuda_int8_listed] */
    void *outliers;                      /* act [n x pitch], of dense rows                      */
    int8_t *codes;
    void *h;
    float *more;
    uint64_t bytes;                      /* all of it                                           */
} rv_int8_many;
static inline rv_int8_many rv_cuda_int8_many(void *room, int32_t n, int32_t w_rows, int32_t pitch, bool normed, bool before) {
    const uint64_t rows = (uint64_t)n, of[] = { rows * 8, (uint64_t)pitch * 4, rows * (uint64_t)rv_cuda_int8_listed(pitch) * 4,
                                                rows * (uint64_t)pitch, rows * (uint64_t)pitch * 2, normed ? rows * (uint64_t)pitch * 2 : 0,
                                                before ? rows * (uint64_t)w_rows * 4 : 0 };
    char *at[8] = { (char *)room };
    for (int32_t i = 0; i < 7; i++) at[i + 1] = at[i] + (of[i] + 255) / 256 * 256;
    return (rv_int8_many){ at[0], (uint32_t *)at[1], (uint32_t *)at[2], at[4], (int8_t *)at[3], normed ? at[5] : NULL, (float *)at[6], (uint64_t)(at[7] - at[0]) };
}

/* Marks, which whoever makes codes sets and the last launch of a product wipes (of few rows, where a call decides, whoever makes codes): a bit a column that holds outliers, and behind those words how many blocks have read all, whether there is
 * a listed row, and a bit a dense row. */
enum { RV_CUDA_MARKS_DONE, RV_CUDA_MARKS_LISTED, RV_CUDA_MARKS_DENSE };
/* outliers90.cu.  Whether it is; elsewhere results are stored without, and what outliers add is put to them. */
bool rv_cuda_int8_before(const rv_int8 *q);
cudaError_t rv_cuda_quantise_many(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream);
/* What listed outliers add, where they are in more than RV_CUDA_INT8_BESIDE columns: to `more`, or to p.out as it is stored without. */
cudaError_t rv_cuda_outliers90(const rv_int8 *q, const rv_int8_many *room, bool overlap, cudaStream_t stream);
void *rv_cuda_clamped_int8_f16_90(void);          /* where these are built                               */
/* int8.c.  All cuts there are; the one that a product of many rows takes; whether it may have some other; how many blocks of so large clusters are there
 * at once. */
extern const rv_int8_cut rv_cuda_int8_cuts[RV_CUDA_INT8_CUTS];
rv_int8_cut rv_cuda_int8_cut(const rv_int8 *q);
bool        rv_cuda_int8_may_cut(const rv_int8 *q, rv_int8_cut c);
int32_t     rv_cuda_int8_blocks(int32_t multiprocessors, int32_t cluster);
/* STORE, GELU to act, SWIGLU, ADD; a norm unless a call's rows decide together.  room: not what the launch before left there, nor what another product may still read. */
bool rv_cuda_int8_90_fits(const rv_int8 *q);
int32_t rv_cuda_int8_90_rows(const rv_int8 *q);  /* of x: how many have room together          */
cudaError_t rv_cuda_int8_90(const rv_int8 *q, bool overlap, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
