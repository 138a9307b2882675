/* flash.cu - attention with many rows: the tensor-core kernel for SM80 and newer.
 *
 * The one idea: a block of 128 threads owns an item (parts.cuh), 64 or 128 rows of one head, and walks the key blocks that
 * any of them sees, scores in registers, softmax as it goes; the next key block is copied
 * meanwhile.  Key blocks are taken by halves, so that the products of one and the weighing of the other have nothing to wait for in
 * each other.  Only halves with a bias that is not 0 add it.  Weights are relative to the largest score of the
 * row's first half, and of later ones only where they would leave the range: then the half is scored again.
 *
 * Rows of different sequences in one tile: the tile's keys are walked once for each run of rows of
 * one sequence, the others masked.  Slow, and never the case in a prefill.
 */
#include "kernels/cuda/flash.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, KEYS = 64, HALF = KEYS / 2,
       BLOCKS = 2 };                       /* on a multiprocessor at a time                      */

/* threadIdx.x, as the compiler has not seen it before: it keeps no address that it has made of it. */
static __device__ __forceinline__ int32_t thread_again() {
    int32_t t;
    asm volatile("mov.u32 %0, %%tid.x;" : "=r"(t));
    return t;
}

/* ---- shared memory of one block ---- */

/* Rows are padded by 16 bytes: an odd number of 16-byte columns, so 8 rows never meet in a bank. */
template <typename T, int D, int MT> struct flash_room {
    enum { ROWS = 16 * MT * WARPS, LD = D + 8 };
    T q[ROWS][LD], k[2][KEYS][LD], v[2][KEYS][LD];
    float bias[2][KEYS];
    int32_t key_rows[2][KEYS];
    int32_t first[ROWS], last[ROWS], slot[ROWS];
    flash_run run;
    bool merge;
};

template <typename T, int D, int MT>
static __device__ __forceinline__ void copy_keys(const attend_args<T> &a, flash_room<T, D, MT> &room, int32_t kv_column, int32_t stage) {
    const T *k = a.k + kv_column, *v = a.v + kv_column;
    int32_t thread = thread_again();
#pragma unroll
    for (int32_t j = 0; j < KEYS * (D / 8) / THREADS; j++) {
        int32_t i = thread + j * THREADS, key = i / (D / 8), c = i % (D / 8) * 8;
        int32_t row = room.key_rows[stage][key];
        int64_t at = row < 0 ? 0 : row;
        copy16(shared_address(&room.k[stage][key][c]), k + at * a.k_ld + c, row >= 0);
        copy16(shared_address(&room.v[stage][key][c]), v + at * a.v_ld + c, row >= 0);
    }
    if (a.bias && threadIdx.x < KEYS) {
        int32_t row = room.key_rows[stage][threadIdx.x];
        copy4(shared_address(&room.bias[stage][threadIdx.x]), a.bias + (row < 0 ? 0 : row), row >= 0);
    }
    copies_commit();
}

/* ---- one warp's part: 16 MT rows ---- */

template <int D, int MT> struct flash_sums { float o[MT][D / 8][4], m[MT][2], l[MT][2]; };

/* Of the keys from key0 on, of a stage. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void score(const flash_room<T, D, MT> &room, const uint32_t (&q)[MT][D / 16][4], int32_t stage, int32_t key0,
                                             float (&s)[MT][HALF / 8][4]) {
    int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t n = 0; n < HALF / 8; n++) s[t][n][0] = s[t][n][1] = s[t][n][2] = s[t][n][3] = 0;
    uint32_t at = shared_address(&room.k[stage][key0 + lane % 8 + lane / 16 * 8][lane / 8 % 2 * 8]);
#pragma unroll
    for (int32_t c = 0; c < D / 16; c++)
#pragma unroll
        for (int32_t n = 0; n < HALF / 16; n++) {
            uint32_t b[4];
            load_matrices(b, at + (uint32_t)((16 * n * room.LD + 16 * c) * 2));
#pragma unroll
            for (int32_t t = 0; t < MT; t++) {
                mma(s[t][2 * n], q[t][c][0], q[t][c][1], q[t][c][2], q[t][c][3], b[0], b[1], T());
                mma(s[t][2 * n + 1], q[t][c][0], q[t][c][1], q[t][c][2], q[t][c][3], b[2], b[3], T());
            }
        }
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void add_bias(const flash_room<T, D, MT> &room, int32_t stage, int32_t key0, float by,
                                                float (&s)[MT][HALF / 8][4]) {
#pragma unroll
    for (int32_t n = 0; n < HALF / 8; n++) {
        float2 b = *reinterpret_cast<const float2 *>(&room.bias[stage][key0 + 8 * n + (int32_t)threadIdx.x % 4 * 2]);
#pragma unroll
        for (int32_t t = 0; t < MT; t++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) s[t][n][e] = fmaf(e % 2 ? b.y : b.x, by, s[t][n][e]);
    }
}

/* key: the first of the half. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void mask(const flash_room<T, D, MT> &room, int32_t key, float (&s)[MT][HALF / 8][4]) {
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t r = (warp * MT + t) * 16 + 8 * h + lane / 4;
            bool in = r >= room.run.from && r < room.run.to;
            int32_t base = key + lane % 4 * 2, first = in ? room.first[r] - base : 0, last = in ? room.last[r] - base : -1;
#pragma unroll
            for (int32_t n = 0; n < HALF / 8; n++)
#pragma unroll
                for (int32_t e = 0; e < 2; e++)
                    if (8 * n + e < first || 8 * n + e > last) s[t][n][2 * h + e] = minus_infinity();
        }
}

/* s becomes exp2(scale s - shift), l its sum in the thread: row h of 16. */
static __device__ __forceinline__ void weigh(float scale, float shift, int32_t h, float (&s)[HALF / 8][4], float &l) {
    float sum[2] = { 0, 0 };
#pragma unroll
    for (int32_t n = 0; n < HALF / 8; n++)
#pragma unroll
        for (int32_t e = 0; e < 2; e++) {
            float &x = s[n][2 * h + e];
            x = exp2_fast(fmaf(x, scale, -shift));
            sum[e] += x;
        }
    l = sum[0] + sum[1];
}

/* With the maxima of before; false where a row wants a new one, and then sums are as they were. */
template <typename T, int D, int MT>
static __device__ __forceinline__ bool softmax(flash_sums<D, MT> &f, float scale, float (&s)[MT][HALF / 8][4], bool (&anew)[MT][2], T) {
    float l[MT][2];
    bool any = false;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            weigh(scale, __fmul_rn(f.m[t][h], scale), h, s[t], l[t][h]);
            anew[t][h] = !(l[t][h] <= most_weight(T()));
            any = any || anew[t][h];
        }
    if (__any_sync(~0u, any)) return false;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) f.l[t][h] += l[t][h];
    return true;
}

/* The rows `anew` (in a thread that has a part of one) take the maximum they have come to; sums follow. */
template <int D, int MT>
static __device__ __forceinline__ void softmax_anew(flash_sums<D, MT> &f, float scale, float (&s)[MT][HALF / 8][4], const bool (&anew)[MT][2]) {
#pragma unroll
    for (int32_t t = 0; t < MT; t++) {
        float by[2];
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            float m = f.m[t][h], l;
            int32_t row_anew = anew[t][h];
            row_anew |= __shfl_xor_sync(~0u, row_anew, 1);
            row_anew |= __shfl_xor_sync(~0u, row_anew, 2);
#pragma unroll
            for (int32_t n = 0; n < HALF / 8; n++) m = fmaxf(m, fmaxf(s[t][n][2 * h], s[t][n][2 * h + 1]));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
            m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
            if (!row_anew) m = f.m[t][h];
            float shift = m == minus_infinity() ? 0.f : __fmul_rn(m, scale);
            by[h] = row_anew ? exp2_fast(__fmul_rn(f.m[t][h], scale) - shift) : 1.f;
            weigh(scale, shift, h, s[t], l);
            f.m[t][h] = m;
            f.l[t][h] = fmaf(f.l[t][h], by[h], l);
        }
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) f.o[t][n][e] *= by[e / 2];
    }
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void add_values(const flash_room<T, D, MT> &room, const float (&s)[MT][HALF / 8][4], int32_t stage, int32_t key0,
                                                  flash_sums<D, MT> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    uint32_t at = shared_address(&room.v[stage][key0 + lane % 16][lane / 16 * 8]);
#pragma unroll
    for (int32_t c = 0; c < HALF / 16; c++) {
        uint32_t p[MT][4];
#pragma unroll
        for (int32_t t = 0; t < MT; t++) {
            p[t][0] = pack2(s[t][2 * c][0], s[t][2 * c][1], T());
            p[t][1] = pack2(s[t][2 * c][2], s[t][2 * c][3], T());
            p[t][2] = pack2(s[t][2 * c + 1][0], s[t][2 * c + 1][1], T());
            p[t][3] = pack2(s[t][2 * c + 1][2], s[t][2 * c + 1][3], T());
        }
#pragma unroll
        for (int32_t n = 0; n < D / 16; n++) {
            uint32_t b[4];
            load_matrices_transposed(b, at + (uint32_t)((16 * c * room.LD + 16 * n) * 2));
#pragma unroll
            for (int32_t t = 0; t < MT; t++) {
                mma(f.o[t][2 * n], p[t][0], p[t][1], p[t][2], p[t][3], b[0], b[1], T());
                mma(f.o[t][2 * n + 1], p[t][0], p[t][1], p[t][2], p[t][3], b[2], b[3], T());
            }
        }
    }
}

/* ---- the kernel ---- */

/* A half of a stage. */
struct flash_half { int32_t stage, key0, key; bool masked; };

static __device__ __forceinline__ flash_half half_of(const flash_run &run, bool whole, int32_t tile, int32_t from, int32_t key0) {
    int32_t key = tile * KEYS + key0;
    flash_half h = { (tile - from) % 2, key0, key, !whole || key < run.full_from || key + HALF - 1 > run.full_to };
    return h;
}

/* Scores `next` (in `later`) while it weighs `half`, whose scores s are, and adds that one's values.  No branch lies between the two,
 * so that the compiler mixes them. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void step(const attend_args<T> &a, flash_room<T, D, MT> &room, const flash_half &half, const flash_half &next,
                                            const uint32_t (&q)[MT][D / 16][4], float (&s)[MT][HALF / 8][4],
                                            float (&later)[MT][HALF / 8][4], flash_sums<D, MT> &f) {
    bool anew[MT][2], biased = a.bias && __any_sync(~0u, room.bias[half.stage][half.key0 + (int32_t)threadIdx.x % 32] != 0);
    if (biased) add_bias(room, half.stage, half.key0, 1.f / a.scale, s);
    if (half.masked) mask(room, half.key, s);
    score(room, q, next.stage, next.key0, later);
    if (!softmax(f, a.scale * RV_LOG2E, s, anew, T())) {
        score(room, q, half.stage, half.key0, s);
        if (biased) add_bias(room, half.stage, half.key0, 1.f / a.scale, s);
        if (half.masked) mask(room, half.key, s);
        softmax_anew(f, a.scale * RV_LOG2E, s, anew);
    }
    add_values(room, s, half.stage, half.key0, f);
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void walk(const attend_args<T> &a, flash_room<T, D, MT> &room, const flash_place &p, bool whole,
                                            int32_t kv_column, const uint32_t (&q)[MT][D / 16][4], flash_sums<D, MT> &f) {
    const flash_run &run = room.run;
    int32_t from = max(run.lowest / KEYS, p.from), n = min(run.highest / KEYS + 1, p.to) - from, t = (int32_t)threadIdx.x;
    float s[MT][HALF / 8][4], later[MT][HALF / 8][4];
    if (n <= 0) return;
    if (t < KEYS) {
        room.key_rows[0][t] = key_row_of(a, run, from * KEYS + t);
        room.key_rows[1][t] = key_row_of(a, run, (from + 1) * KEYS + t);
    }
    __syncthreads();
    copy_keys(a, room, kv_column, 0);
    copy_keys(a, room, kv_column, 1);      /* zeros where there is no second block               */
    copies_wait<1>();
    __syncthreads();
    score(room, q, 0, 0, s);
#pragma unroll 1
    for (int32_t tile = from; tile < from + n; tile++) {
        flash_half low = half_of(run, whole, tile, from, 0), high = half_of(run, whole, tile, from, HALF), next = { low.stage ^ 1, 0, 0, false };
        bool more = tile + 2 < from + n;
        if (more && t < KEYS) room.key_rows[low.stage][t] = key_row_of(a, run, (tile + 2) * KEYS + t);      /* read when all have met */
        step(a, room, low, high, q, s, later, f);
        copies_wait<0>();
        __syncthreads();
        step(a, room, high, next, q, later, s, f);      /* after the last block of whatever lies there, for nothing */
        if (!more) continue;
        __syncthreads();
        copy_keys(a, room, kv_column, low.stage);
    }
}

/* f.l: of whole rows. */
template <typename T, int D, int MT>
static __device__ __forceinline__ void store(const attend_args<T> &a, const flash_room<T, D, MT> &room, const flash_sums<D, MT> &f,
                                             const flash_place &p) {
    int32_t thread = thread_again(), lane = thread % 32, warp = thread / 32;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            int32_t r = (warp * MT + t) * 16 + 8 * h + lane / 4;
            float by = f.l[t][h] == 0 || room.last[r] < room.first[r] ? 0.f : 1.f / f.l[t][h];
            if (r >= p.rows) continue;
            T *to = a.out + (int64_t)(p.row0 + r) * a.out_ld + p.head * D + lane % 4 * 2;
#pragma unroll
            for (int32_t n = 0; n < D / 8; n++) {
                float x = by == 0 ? 0.f : f.o[t][n][2 * h] * by, y = by == 0 ? 0.f : f.o[t][n][2 * h + 1] * by;
                *reinterpret_cast<uint32_t *>(to + 8 * n) = pack2(x, y, T());
            }
        }
}

/* The block's item, found again by who needs it, so that no register holds it meanwhile. */
template <typename T> static __device__ __forceinline__ flash_place place_again(const attend_args<T> &a, const flash_plan &plan, int32_t tile_rows) {
    int32_t item;
    asm volatile("mov.u32 %0, %%ctaid.x;" : "=r"(item));
    return place_of(plan, item, a.rows, a.heads, tile_rows);
}

template <typename T, int D, int MT>
static __device__ __forceinline__ void finish(const attend_args<T> &a, const flash_plan &plan, flash_room<T, D, MT> &room, flash_sums<D, MT> &f) {
    flash_place p = place_again(a, plan, room.ROWS);
    int32_t thread = (int32_t)threadIdx.x, tile = p.part / plan.splits;
#pragma unroll
    for (int32_t t = 0; t < MT; t++)
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {
            f.l[t][h] += __shfl_xor_sync(~0u, f.l[t][h], 1);
            f.l[t][h] += __shfl_xor_sync(~0u, f.l[t][h], 2);
        }
    if (p.part >= 0) {
#pragma unroll
        for (int32_t t = 0; t < MT; t++) leave_sums<D / 8>(part_of<D / 8>(plan, p.part, MT, t, thread), f.o[t], f.m[t], f.l[t]);
        __syncthreads();
        if (thread == 0) room.merge = last_part(plan, tile);
        __syncthreads();
        if (!room.merge) return;
#pragma unroll
        for (int32_t t = 0; t < MT; t++)
            merge_sums<D / 8>(part_of<D / 8>(plan, tile * plan.splits, MT, t, thread), (int64_t)MT * (D / 8 + 1) * THREADS, plan.splits,
                              a.scale * RV_LOG2E, f.o[t], f.l[t]);
    }
    store(a, room, f, place_again(a, plan, room.ROWS));
}

template <typename T, int D, int MT> static __global__ void __launch_bounds__(THREADS, BLOCKS) flash_kernel(attend_args<T> a, flash_plan plan) {
    extern __shared__ uint4 memory[];
    typedef flash_room<T, D, MT> room_type;
    room_type &room = *reinterpret_cast<room_type *>(memory);
    flash_place p = place_of(plan, (int32_t)blockIdx.x, a.rows, a.heads, room_type::ROWS);
    int32_t row0 = p.row0, rows = p.rows, head = p.head, t = (int32_t)threadIdx.x, lane = t % 32, warp = t / 32;
    for (int32_t i = t; i < room_type::ROWS * (D / 8); i += THREADS) {
        int32_t r = i / (D / 8), c = i % (D / 8) * 8;
        copy16(shared_address(&room.q[r][c]), a.q + (int64_t)(row0 + (r < rows ? r : 0)) * a.q_ld + head * D + c, r < rows);
    }
    copies_commit();
    if (t < room_type::ROWS) {
        int32_t row = row0 + t;
        room.first[t] = t < rows ? a.first ? a.first[row] : 0 : 0;
        room.last[t] = t < rows ? a.last[row] : -1;
        room.slot[t] = t < rows && a.slot ? a.slot[row] : 0;
    }
    copies_wait<0>();
    __syncthreads();

    uint32_t q[MT][D / 16][4];
    flash_sums<D, MT> f;
#pragma unroll
    for (int32_t m = 0; m < MT; m++) {
#pragma unroll
        for (int32_t c = 0; c < D / 16; c++)
            load_matrices(q[m][c], shared_address(&room.q[(warp * MT + m) * 16 + lane % 16][16 * c + lane / 16 * 8]));
#pragma unroll
        for (int32_t n = 0; n < D / 8; n++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) f.o[m][n][e] = 0;
#pragma unroll
        for (int32_t h = 0; h < 2; h++) {      /* rows without keys have a maximum: nobody waits for their first */
            int32_t r = (warp * MT + m) * 16 + 8 * h + lane / 4;
            f.m[m][h] = room.last[r] < room.first[r] ? 0.f : minus_infinity();
            f.l[m][h] = 0;
        }
    }
    for (int32_t from = 0; from < rows;) {
        int32_t to = next_run(room, a.slot != nullptr, from, rows);
        if (room.run.highest >= 0) walk(a, room, p, from == 0 && to == rows, head / a.group * D, q, f);
        from = to;
    }
    finish(a, plan, room, f);
}

template <typename T, int D, int MT>
static cudaError_t flash(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    int bytes = (int)sizeof(flash_room<T, D, MT>);
    cudaError_t e = cudaFuncSetAttribute(flash_kernel<T, D, MT>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e != cudaSuccess) return e;
    flash_plan plan = plan_of(a, flash_room<T, D, MT>::ROWS, KEYS, multiprocessors * BLOCKS, partial);
    flash_kernel<T, D, MT><<<(unsigned)plan.items, THREADS, (size_t)bytes, stream>>>(args_of<T>(a), plan);
    return cudaGetLastError();
}

template <typename T> static cudaError_t flash_of(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    switch (a->q.cols / a->heads) {
    case 64: return flash<T, 64, 2>(a, partial, multiprocessors, stream);
    case 80: return flash<T, 80, 2>(a, partial, multiprocessors, stream);
    case 128: return flash<T, 128, 1>(a, partial, multiprocessors, stream);
    default: return rv_cuda_attend_plain(a, stream);
    }
}

#if RV_CUDA_SM90
/* Whether flash90.cu takes the call: all heads it knows, for it has been the faster one at every number of rows and keys. */
static bool has_flash90(const rv_attention *a, int32_t arch) {
    int32_t d = a->q.cols / a->heads;
    return arch == 90 && (d == 64 || d == 80 || d == 128);
}
#endif

cudaError_t rv_cuda_flash(const rv_attention *a, void *partial, int32_t multiprocessors, int32_t arch, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    /* A scale of 0 or less would turn masks or the order of scores around. */
    if (!(a->scale > 0) || !rows_are_aligned(a->q) || !rows_are_aligned(a->kv.k) || !rows_are_aligned(a->kv.v) || a->out.ld % 2 != 0 ||
        (uintptr_t)a->out.data % 4 != 0)
        return rv_cuda_attend_plain(a, stream);
#if RV_CUDA_SM90
    if (has_flash90(a, arch)) return rv_cuda_flash90(a, partial, multiprocessors, stream);
#else
    (void)arch;
#endif
    return a->q.type == RV_F16 ? flash_of<__half>(a, partial, multiprocessors, stream)
                               : flash_of<__nv_bfloat16>(a, partial, multiprocessors, stream);
}
