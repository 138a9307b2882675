/* int8_held.cuh - short rows of activations, held in the registers of the 256 threads that norm them and make codes of them.
 *
 * The one idea: a thread's columns are THREADS apart, as the norm's order of sums wants them, and stay in registers until they are codes;
 * the block meets once for the norm, once for the maximum and once for the codes.
 */
#ifndef RV_KERNELS_CUDA_INT8_HELD_CUH
#define RV_KERNELS_CUDA_INT8_HELD_CUH
#include "kernels/cuda/absent.cuh"
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/int8.cuh"

enum { SHORT = HELD * THREADS };         /* columns of such a row, at most                      */

/* Outliers of a row in the order in which they were found. */
struct alignas(16) found_outliers { int32_t n; uint32_t entry[NEAR]; };

/* What the block's warps leave for one another: of two rows by turns, so that one barrier a use is enough. */
struct alignas(16) held_meeting {
    float sum[2][WARPS];
    uint32_t top[2][WARPS], most[2][WARPS];
    union {
        found_outliers found;
        struct { uint32_t marks[HELD * WARPS]; int32_t base[HELD * WARPS + 1]; } many;
    };
};

/* Whether a thread has an i-th column.  WHOLE: cols is a multiple of 4 * THREADS, so that it is all the same for four of them. */
template <bool WHOLE> static __device__ __forceinline__ bool has_column(int32_t i, int32_t cols) {
    return (WHOLE ? 0 : (int32_t)threadIdx.x) + (WHOLE ? i / 4 * 4 : i) * THREADS < cols;
}

/* What a thread's columns are multiplied with where there is a norm. */
template <bool WHOLE> static __device__ __forceinline__ void hold_weights(const args &a, float (&weight)[HELD]) {
    const float *const from = a.norm + threadIdx.x;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) weight[i] = a.norm && has_column<WHOLE>(i, a.cols) ? from[i * THREADS] : 0.f;
}

/* Row r as it is: columns 2 j and 2 j + 1 of the thread's are x[j].  TELLS: its values tell whether they have come. */
template <typename T, bool WHOLE, bool TELLS = false> static __device__ __forceinline__ void hold_row(const args &a, int32_t r, uint32_t (&x)[HELD / 2]) {
    const uint16_t *const from = (const uint16_t *)a.x + r * a.x_ld + threadIdx.x;
    uint16_t bits[HELD] = {};
    if (TELLS) take_when_come(bits, [&](int32_t i) { return from + i * THREADS; }, [&](int32_t i) { return has_column<WHOLE>(i, a.cols); });
    else
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) bits[i] = has_column<WHOLE>(i, a.cols) ? __ldcg(from + i * THREADS) : (uint16_t)0;
#pragma unroll
    for (int32_t j = 0; j < HELD / 2; j++) x[j] = bits[2 * j] | (uint32_t)bits[2 * j + 1] << 16;
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

/* A thread's i-th column: its 16 bits, and what becomes of them in f16. */
static __device__ __forceinline__ uint32_t bits_held(const uint32_t (&x)[HELD / 2], int32_t i) { return x[i / 2] >> i % 2 * 16 & 0xffff; }
template <typename T> static __device__ __forceinline__ float value_held(const uint32_t (&x)[HELD / 2], int32_t i) {
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

/* The list of a row that has many: each of a thread's finds its place by counting those before it. */
template <typename T> static __device__ __forceinline__ int32_t list_held(const uint32_t (&x)[HELD / 2], float threshold, list_place place, held_meeting &m) {
    const int32_t first = (int32_t)threadIdx.x, warp = first / 32, lane = first % 32;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) {
        const uint32_t marks = __ballot_sync(~0u, fabsf(value_held<T>(x, i)) >= threshold);
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
        const uint32_t marks = m.many.marks[i * WARPS + warp];
        uint32_t bits = 0;
#pragma unroll
        for (int32_t j = 0; j < HELD; j++)
            if (j == i) bits = bits_held(x, j);
        if (marks >> lane & 1) list[m.many.base[i * WARPS + warp] + __popc(marks & ((1u << lane) - 1))] = (uint32_t)(first + i * THREADS) | bits << 16;
    }
    if (first == 0) list[all] = ~0u;
    quantisers_meet();
    return all;
}

/* Largest over the block of two numbers that are not negative, which order as integers. */
static __device__ __forceinline__ void block_tops(uint32_t &a, uint32_t &b, uint32_t (&of_a)[WARPS], uint32_t (&of_b)[WARPS]) {
    a = __reduce_max_sync(~0u, a);
    b = __reduce_max_sync(~0u, b);
    if (threadIdx.x % 32 == 0) of_a[threadIdx.x / 32] = a, of_b[threadIdx.x / 32] = b;
    quantisers_meet();
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) a = max(a, of_a[w]), b = max(b, of_b[w]);
}

/* quantise_row's codes of row r, held in x: [pitch], seen by all when it returns.  Rows without outliers, infinities and NaN are found by their largest
 * magnitude, and take a shorter way.  unlisted: fewer than a warp's outliers stay in m.found, as they were found, and are no list. */
template <typename T, bool WHOLE>
static __device__ __forceinline__ int8_row quantise_held(const uint32_t (&x)[HELD / 2], float threshold, int32_t pitch, int8_t *codes, list_place place, held_meeting &m, int32_t r,
                                                   bool unlisted = false) {
    const float limit = threshold == 0.f ? __int_as_float(0x7f800000) : threshold;
    const int8_limit is = { threshold, NULL };
    int8_t *const to = codes + threadIdx.x;
    float f[HELD], counted = 0;
    uint32_t pair = 0;
#pragma unroll
    for (int32_t j = 0; j < HELD / 2; j++) pair = most_pair(pair, half_pair(x[j], T()));
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) {
        f[i] = value_held<T>(x, i);
        if (is.counts(fabsf(f[i]))) counted = fmaxf(counted, fabsf(f[i]));
    }
    if (threadIdx.x == 0) m.found.n = 0;
    uint32_t top = max(pair & 0xffff, pair >> 16), bits = __float_as_uint(counted);
    block_tops(top, bits, m.top[r % 2], m.most[r % 2]);
    const float most = __uint_as_float(bits), scale = most > 0 ? __fdiv_rn(127.f, most) : 0.f;
    auto store = [&](int32_t i, float v) {
        if (has_column<WHOLE>(i, pitch)) to[i * THREADS] = (int8_t)code_bits(v, scale);
    };
    if (__half2float(__ushort_as_half((unsigned short)top)) < limit) {
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) store(i, f[i]);
        quantisers_meet();
        return { most, 0 };
    }
    uint32_t odd = 0;                    /* a bit an outlier: a branch for each of a thread's columns costs more than all else here */
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) {
        store(i, fabsf(f[i]) < limit ? f[i] : 0.f);
        odd |= (uint32_t)is.outlier(fabsf(f[i])) << i;
    }
    if (odd) {
        int32_t at = atomicAdd(&m.found.n, __popc(odd));
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) {
            const uint32_t entry = (uint32_t)((int32_t)threadIdx.x + i * THREADS) | bits_held(x, i) << 16;
            if (odd >> i & 1 && at < NEAR) m.found.entry[at] = entry;
            at += (int32_t)(odd >> i & 1);
        }
    }
    quantisers_meet();
    const int32_t n = m.found.n;
    if (unlisted && is_unlisted(n)) return { most, n };
    if (n < NEAR && n) list_found(m.found, place(n, 0));
    quantisers_meet();                   /* all have read how many; marks lie where they are    */
    return { most, n < NEAR ? n : list_held<T>(x, threshold, place, m) };
}

/* What is known of a longer row: the largest of what counts, and how many are outliers or not finite. */
struct known_row { float most; int32_t odd; };

/* Codes of a longer row, given as pieces, of which find() tells what is known once they have been asked for.  What is found of outliers, as far as it has room,
 * goes to `found`, whose n is 0 before; NEAR odd ones or more: nothing is done.  The caller's threads meet. */
template <typename T, typename P, typename M>
static __device__ __forceinline__ known_row quantise_known(P piece, M find, const int8_limit &l, int32_t pieces, int8_t *codes, found_outliers &found) {
    const float limit = l.threshold == 0.f ? __int_as_float(0x7f800000) : l.threshold;
    known_row row = {};
    float scale = 0;
#pragma unroll 1
    for (int32_t from = (int32_t)threadIdx.x, turn = 0; turn < pieces; from += PIECES_HELD * QUANTISERS, turn += PIECES_HELD * QUANTISERS) {
        uint4 held[PIECES_HELD];
#pragma unroll
        for (int32_t i = 0; i < PIECES_HELD; i++) held[i] = from + i * QUANTISERS < pieces ? piece(from + i * QUANTISERS) : make_uint4(0, 0, 0, 0);
        if (!turn) {
            row = find();
            if (row.odd >= NEAR) break;
            scale = row.most > 0 ? __fdiv_rn(127.f, row.most) : 0.f;
        }
        auto store = [&](int32_t i, auto value) {
            const uint32_t pairs[4] = { held[i].x, held[i].y, held[i].z, held[i].w };
            uint32_t two[4];
#pragma unroll
            for (int32_t j = 0; j < 4; j++) {
                const float2 f = through_f16(pairs[j], T());
                two[j] = __byte_perm(code_bits(value(f.x, 2 * j, pairs[j] & 0xffff), scale), code_bits(value(f.y, 2 * j + 1, pairs[j] >> 16), scale), 0x0040);
            }
            if (from + i * QUANTISERS < pieces)
                *(uint2 *)(codes + (from + i * QUANTISERS) * PIECE) = make_uint2(__byte_perm(two[0], two[1], 0x5410), __byte_perm(two[2], two[3], 0x5410));
        };
        if (!row.odd) {
#pragma unroll
            for (int32_t i = 0; i < PIECES_HELD; i++) store(i, [](float f, int32_t, uint32_t) { return f; });
            continue;
        }
#pragma unroll
        for (int32_t i = 0; i < PIECES_HELD; i++)
            store(i, [&](float f, int32_t k, uint32_t bits) {
                if (fabsf(f) < limit) return f;
                if (l.outlier(fabsf(f))) find_outlier(found, (from + i * QUANTISERS) * PIECE + k, bits);
                return 0.f;
            });
    }
    return row;
}
#endif
