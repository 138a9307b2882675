/* few8_70.cuh - what the sm70 set's int8 products share: what they are told, outliers, and what becomes of a sum.
 *
 * Source: engine/base/quant.h says what the numbers are, int8.cuh how activations become codes.
 */
#ifndef RV_KERNELS_CUDA_FEW8_70_CUH
#define RV_KERNELS_CUDA_FEW8_70_CUH
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"
#include "kernels/cuda/volta.cuh"

enum { AT_ONCE = 8 };                    /* outliers whose weights are asked for together       */

struct args8_70 {
    args a;                              /* w: codes; no bias                                   */
    const float *w_scale, *bias;
    int8_t *codes;                       /* of the activations [n x pitch], where they come quantised */
    int8_row *rows;
    uint32_t *list;                      /* [n x (pitch + RV_CUDA_INT8_CLOSE)]                           */
    float threshold;
    int32_t pitch, shared_pitch;
};

/* The outliers of an activation row times a row of weights, in ascending order of columns. */
static __device__ __forceinline__ float outliers70(const uint32_t *list, int32_t outliers, const int8_t *w, float scb) {
    float sum = 0;
#pragma unroll 1
    for (int32_t i = 0; i < outliers; i += AT_ONCE) {
        uint32_t entry[AT_ONCE];
        int32_t code[AT_ONCE];
#pragma unroll
        for (int32_t j = 0; j < AT_ONCE; j++) entry[j] = i + j < outliers ? list[i + j] : 0u;
#pragma unroll
        for (int32_t j = 0; j < AT_ONCE; j++) code[j] = w[column_of(entry[j])];
#pragma unroll
        for (int32_t j = 0; j < AT_ONCE; j++) sum = __fmaf_rn(value_of<__half>(entry[j]), to_f32(int8_weight<__half>((float)code[j], scb)), sum);
    }
    return sum;
}

/* A result before it is stored.  rows: of the activations. */
static __device__ __forceinline__ float value70(const args8_70 &g, const int8_row *rows, int32_t row, int32_t n, int32_t sum, float scb) {
    const int8_row x = rows[n];
    int32_t clamped = 0;
    float y = int8_value<__half>(sum, x.scale, scb, g.bias ? g.bias[row] : 0.f, clamped);
    count_clamped(clamped);
    if (x.outliers)
        y = to_f32(to_act<__half>(y + outliers70(g.list + (int64_t)n * (g.pitch + RV_CUDA_INT8_CLOSE), x.outliers, (const int8_t *)g.a.w + (int64_t)row * g.pitch, scb)));
    return y;
}

/* many8_70.cu: 17 to 64 rows. */
cudaError_t many8_70(const rv_few *p, const args8_70 &g, cudaStream_t stream);
#endif
