/* int8_held.cuh - rows of activations, held in the registers of the 256 threads that norm them and make codes of them.
 *
 * The one idea: a thread's columns are THREADS apart, as the norm's order of sums wants them, or pieces of eight neighbours where there is no norm, and stay in registers until
 * they are codes; the block meets once for the norm, once for the maximum and once for the codes.
 */
#ifndef RV_KERNELS_CUDA_INT8_HELD_CUH
#define RV_KERNELS_CUDA_INT8_HELD_CUH
#include "kernels/cuda/absent.cuh"
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"

enum { SHORT = HELD * THREADS, LONG = PIECES_HELD * PIECE * THREADS };        /* columns of such a row, at most; of one of pieces */

/* Outliers of a row in the order in which they were found. */
struct alignas(16) found_outliers { int32_t n; uint32_t entry[NEAR]; };

/* What the block's warps leave for one another: of two rows by turns, so that one barrier a use is enough. */
struct alignas(16) held_meeting {
    float sum[2][WARPS];
    uint32_t most[2][WARPS];
    union {
        found_outliers found;
        struct { uint32_t marks[HELD * WARPS]; int32_t base[HELD * WARPS + 1]; } many;
    };
};

/* Whether a thread has an i-th column.  WHOLE: cols is a multiple of 4 * THREADS, so that it is all the same for four of them. */
template <bool WHOLE> static __device__ __forceinline__ bool has_column(int32_t i, int32_t cols) {
    return (WHOLE ? 0 : (int32_t)threadIdx.x) + (WHOLE ? i / 4 * 4 : i) * THREADS < cols;
}

/* The same of its pieces of eight neighbours, and which column its i-th one is: in pieces, or THREADS apart. */
static __device__ __forceinline__ bool has_piece(int32_t p, int32_t cols) { return ((int32_t)threadIdx.x + p * THREADS) * PIECE < cols; }
template <bool PIECES> static __device__ __forceinline__ int32_t column_held(int32_t i) {
    return PIECES ? ((int32_t)threadIdx.x + i / PIECE * THREADS) * PIECE + i % PIECE : (int32_t)threadIdx.x + i * THREADS;
}

/* What a thread's columns are multiplied with where there is a norm. */
template <bool WHOLE> static __device__ __forceinline__ void hold_weights(const args &a, float (&weight)[HELD]) {
    const float *const from = a.norm + threadIdx.x;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) weight[i] = a.norm && has_column<WHOLE>(i, a.cols) ? from[i * THREADS] : 0.f;
}

/* Row r as it is: columns 2 j and 2 j + 1 of the thread's are x[j]. */
static __device__ __forceinline__ void hold_row(const args &a, int32_t r, uint32_t (&x)[HELD / 2]) {
    const uint16_t *const from = (const uint16_t *)a.x + r * a.x_ld + threadIdx.x;
    uint16_t bits[HELD] = {};
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) bits[i] = has_column<false>(i, a.cols) ? __ldcg(from + i * THREADS) : (uint16_t)0;
#pragma unroll
    for (int32_t j = 0; j < HELD / 2; j++) x[j] = bits[2 * j] | (uint32_t)bits[2 * j + 1] << 16;
}

/* The same of a row whose values tell whether they have come, aligned to 16 bytes, its columns a multiple of 8: neighbours, eight at a time. */
template <int N> static __device__ __forceinline__ void hold_pieces(const args &a, int32_t r, uint32_t (&x)[N]) {
    enum { PIECES = N / (PIECE / 2) };
    const uint4 *const from = (const uint4 *)((const uint16_t *)a.x + r * a.x_ld) + threadIdx.x;
    uint4 v[PIECES] = {};
    take_when_come(v, [&](int32_t p) { return from + p * THREADS; }, [&](int32_t p) { return has_piece(p, a.cols); });
#pragma unroll
    for (int32_t p = 0; p < PIECES; p++) x[p * 4] = v[p].x, x[p * 4 + 1] = v[p].y, x[p * 4 + 2] = v[p].z, x[p * 4 + 3] = v[p].w;
}

/* norm_rows' very operations on row r. */
template <typename T, bool WHOLE, bool TELLS = false>
static __device__ __forceinline__ void norm_held(const args &a, int32_t r, const float (&weight)[HELD], uint32_t (&x)[HELD / 2], held_meeting &m) {
    const int32_t first = (int32_t)threadIdx.x;
    const float *const from = (const float *)a.x + r * a.x_ld + first;
    float v[HELD] = {}, square = 0;
    if (TELLS) take_when_come(v, [&](int32_t i) { return from + i * THREADS; }, [&](int32_t i) { return has_column<WHOLE>(i, a.cols); });
    else
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) v[i] = has_column<WHOLE>(i, a.cols) ? __ldcg(from + i * THREADS) : 0.f;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) square += v[i] * v[i];
    for (int d = 16; d; d >>= 1) square += __shfl_xor_sync(~0u, square, d);
    if (first % 32 == 0) m.sum[r % 2][first / 32] = square;
    quantisers_meet();
    square = 0;
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) square += m.sum[r % 2][w];
    const float scale = rsqrtf(square / (float)a.cols + a.eps);
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) v[i] = v[i] * scale * weight[i];
    pack_counted<HELD>(x, v, T());
}

/* What becomes of a thread's i-th column in f16. */
template <typename T, int N> static __device__ __forceinline__ float value_held(const uint32_t (&x)[N], int32_t i) {
    const float2 f = through_f16(x[i / 2], T());
    return i % 2 ? f.y : f.x;
}

static __device__ __forceinline__ bool is_unlisted(int32_t outliers) { return outliers < 32; }

/* What was found, fewer than NEAR, as a list.  The caller's threads meet before and after. */
static __device__ __forceinline__ void list_found(const found_outliers &found, uint32_t *list) {
    const int32_t n = found.n, me = (int32_t)threadIdx.x;
    if (me < n) {
        const uint32_t mine = found.entry[me];
        int32_t before = 0;
        for (int32_t i = 0; i < n; i++) before += column_of(found.entry[i]) < column_of(mine);
        list[before] = mine;
    }
    if (me == 0) list[n] = ~0u;
}
static __device__ __forceinline__ void find_outlier(found_outliers &found, int32_t column, uint32_t bits) {
    const int32_t at = atomicAdd(&found.n, 1);
    if (at < NEAR) found.entry[at] = (uint32_t)column | bits << 16;
}

/* x[i], of registers: an index would put x on the stack, and so would comparisons that the compiler sees through. */
template <int N> static __device__ __forceinline__ uint32_t picked(const uint32_t (&x)[N], int32_t i) {
    uint32_t v = 0;
#pragma unroll
    for (int32_t j = 0; j < N; j++) asm("{.reg .pred here; setp.eq.s32 here, %1, %2; @here mov.b32 %0, %3;}" : "+r"(v) : "r"(i), "r"(j), "r"(x[j]));
    return v;
}

/* The list of a row that has many: each of a thread's finds its place by counting those before it. */
template <typename T, bool PIECES> static __device__ __forceinline__ int32_t list_held(const uint32_t (&x)[HELD / 2], float threshold, list_place place, held_meeting &m) {
    const int32_t first = (int32_t)threadIdx.x, warp = first / 32, lane = first % 32;
    auto is = [&](int32_t i) { return fabsf(value_held<T>(x, i)) >= threshold; };
    if (PIECES)
#pragma unroll
        for (int32_t p = 0; p < HELD / PIECE; p++) {
            uint32_t marks = 0;
#pragma unroll
            for (int32_t k = 0; k < PIECE; k++) marks |= (uint32_t)is(p * PIECE + k) << k;
            ((uint8_t *)m.many.marks)[first + p * THREADS] = (uint8_t)marks;
        }
    else
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) {
            const uint32_t marks = __ballot_sync(~0u, is(i));
            if (lane == 0) m.many.marks[i * WARPS + warp] = marks;
        }
    quantisers_meet();
    if (warp == 0) {
        int32_t mine[HELD * WARPS / 32], all = 0;
#pragma unroll
        for (int32_t j = 0; j < HELD * WARPS / 32; j++) mine[j] = __popc(m.many.marks[lane * (HELD * WARPS / 32) + j]), all += mine[j];
        int32_t before = all;
#pragma unroll
        for (int d = 1; d < 32; d *= 2) {
            const int32_t other = __shfl_up_sync(~0u, before, d);
            if (lane >= d) before += other;
        }
        if (lane == 31) m.many.base[HELD * WARPS] = before;
        before -= all;
#pragma unroll
        for (int32_t j = 0; j < HELD * WARPS / 32; j++) m.many.base[lane * (HELD * WARPS / 32) + j] = before, before += mine[j];
    }
    quantisers_meet();
    const int32_t all = m.many.base[HELD * WARPS];
    uint32_t *list = place(all, 0);
#pragma unroll 1
    for (int32_t i = 0; i < HELD; i++) {
        const int32_t column = column_held<PIECES>(i);
        const uint32_t marks = m.many.marks[column / 32], before = (1u << column % 32) - 1;
        const uint32_t bits = picked(x, i / 2) >> i % 2 * 16 & 0xffff;
        if (marks >> column % 32 & 1) list[m.many.base[column / 32] + __popc(marks & before)] = (uint32_t)column | bits << 16;
    }
    if (first == 0) list[all] = ~0u;
    quantisers_meet();
    return all;
}

/* Of eight values of f16, all of which are coded. */
static __device__ __forceinline__ uint2 codes_of_eight(const uint32_t *pairs, float scale) {
    uint32_t two[4];
#pragma unroll
    for (int32_t j = 0; j < 4; j++) {
        const float2 f = __half22float2(*(const __half2 *)&pairs[j]);
        two[j] = __byte_perm(code_bits(f.x, scale), code_bits(f.y, scale), 0x0040);
    }
    return make_uint2(__byte_perm(two[0], two[1], 0x5410), __byte_perm(two[2], two[3], 0x5410));
}

/* Largest over the block of a number that is not negative, as integers order them, and whether any thread says so. */
static __device__ __forceinline__ uint32_t block_most(uint32_t mine, bool *any, uint32_t (&of)[WARPS]) {
    uint32_t most = __reduce_max_sync(~0u, mine);
    if (threadIdx.x % 32 == 0) of[threadIdx.x / 32] = most;
    *any = quantisers_any(*any);
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) most = max(most, of[w]);
    return most;
}

/* quantise_row's codes of row r, held in x (PIECES: by hold_pieces): [pitch], seen by all when it returns.  Outliers, infinities and NaN are told from what is coded two values
 * at a time, and looked at once more by those who have some.  unlisted: fewer than a warp's outliers stay in m.found, as they were found, and are no list.  NEAR or more of more
 * than SHORT columns: their number, and no list. */
template <typename T, bool WHOLE, bool PIECES = false, int N = HELD / 2>
static __device__ __forceinline__ int8_row quantise_held(const uint32_t (&x)[N], float threshold, int32_t pitch, int8_t *codes, list_place place, held_meeting &m, int32_t r,
                                                   bool unlisted = false) {
    enum { INFINITE = 0x7c00, EIGHT = PIECE / 2 };
    static_assert(N <= 32 && (PIECES || N == HELD / 2), "a bit a pair; columns that are apart are HELD");
    const int8_limit is = { threshold, NULL };
    /* A value of f16 is below the threshold where it is below the next one of f16. */
    uint32_t limit = 0x10001u * __half_as_ushort(threshold == 0.f ? __ushort_as_half(INFINITE) : __float2half_ru(threshold)), counted = 0;
    uint32_t kept[N];
    bool odd = false;
#pragma unroll
    for (int32_t j = 0; j < N; j++) {
        const uint32_t pair = half_pair(x[j], T());
        kept[j] = pair & below_pair(pair, limit);
        odd = odd || kept[j] != pair;    /* zero is below any                                   */
        counted = most_pair(counted, kept[j]);
    }
    /* What is coded is found once more, in two instructions: it is not worth registers while the block meets.  Of bf16 it is. */
    asm volatile("" : "+r"(limit));
    auto coded = [&](int32_t j) {
        if constexpr (std::is_same<T, __half>::value) return x[j] & below_pair(x[j], limit);
        else return kept[j];
    };
    counted = max(counted & 0xffff, counted >> 16);
    if (odd && threshold == 0.f)         /* infinities count, if nothing is an outlier            */
#pragma unroll
        for (int32_t i = 0; i < 2 * N; i++)
            if (isinf(value_held<T>(x, i))) counted = INFINITE;
    if (threadIdx.x == 0) m.found.n = 0;
    bool any = odd;
    const float most = __half2float(__ushort_as_half((unsigned short)block_most(counted, &any, m.most[r % 2]))), scale = most > 0 ? __fdiv_rn(127.f, most) : 0.f;
    if (PIECES)
#pragma unroll
        for (int32_t p = 0; p < N / EIGHT; p++) {
            const uint32_t pairs[EIGHT] = { coded(p * EIGHT), coded(p * EIGHT + 1), coded(p * EIGHT + 2), coded(p * EIGHT + 3) };
            if (has_piece(p, pitch)) *(uint2 *)(codes + column_held<true>(p * PIECE)) = codes_of_eight(pairs, scale);
        }
    else
#pragma unroll
        for (int32_t i = 0; i < 2 * N; i++) {
            const uint32_t pair = coded(i / 2);
            const float2 f = __half22float2(*(const __half2 *)&pair);
            if (has_column<WHOLE>(i, pitch)) codes[column_held<false>(i)] = (int8_t)code_bits(i % 2 ? f.y : f.x, scale);
        }
    if (odd) {
        uint32_t mine = 0;               /* a bit a pair of which not all is coded              */
#pragma unroll
        for (int32_t j = 0; j < N; j++) mine |= (uint32_t)(half_pair(x[j], T()) != coded(j)) << j;
#pragma unroll 1
        for (; mine; mine &= mine - 1) {
            const int32_t j = __ffs((int32_t)mine) - 1;
            const uint32_t pair = picked(x, j);
            const float2 f = through_f16(pair, T());
            if (is.outlier(fabsf(f.x))) find_outlier(m.found, column_held<PIECES>(2 * j), pair & 0xffff);
            if (is.outlier(fabsf(f.y))) find_outlier(m.found, column_held<PIECES>(2 * j + 1), pair >> 16);
        }
    }
    quantisers_meet();
    if (!any) return { most, 0 };
    int32_t n = m.found.n;
    if (unlisted && is_unlisted(n)) return { most, n };
    if (n < NEAR && n) list_found(m.found, place(n, 0));
    quantisers_meet();                   /* all have read how many; marks lie where they are    */
    if constexpr (N == HELD / 2)
        if (n >= NEAR) n = list_held<T, PIECES>(x, threshold, place, m);
    return { most, n };
}
#endif
