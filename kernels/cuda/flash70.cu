/* flash70.cu - attention with many rows for Volta.
 *
 * The one idea: a quad pair has eight rows of its own and all pairs of a warp take the same keys, so that queries stay in
 * registers, an operand of keys or values is one 16-byte load for two products, and two lanes share a row: a row's
 * maximum is one shuffle, and weights become operands by one more.  A block of 128 threads owns an item (parts.cuh), 128
 * rows of one head, and walks the blocks of 64 keys that any of them sees; a second block on the multiprocessor multiplies
 * while one loads.
 *
 * Weights are relative to a maximum that a row takes anew only when scores leave it behind by 2^LAG, so that sums are
 * seldom scaled; whether they are depends on the row alone.
 */
#include "kernels/cuda/flash.cuh"
#include "kernels/cuda/volta.cuh"

enum { THREADS = 128, KEYS = 64, LAG = 8, BLOCKS = 2 /* on a multiprocessor */ };

/* Rows of K lie an odd number of 16 bytes apart, of V two more than a multiple of eight: neither 8 keys of K nor 4 of V, two
 * columns each, meet in a bank. */
template <int D> struct room70 {
    enum { ROWS = 128, K_LD = D + 8, V_LD = D == 80 ? D : D + 16 };
    __half k[KEYS][K_LD], v[KEYS][V_LD];
    float bias[KEYS];
    int32_t key_rows[2][KEYS];
    int32_t first[ROWS], last[ROWS], slot[ROWS];
    flash_run run;
    bool merge;
};

/* A lane's two rows (2 h on) of its pair's eight: all of D / 2 columns, maxima, and sums of the weights that it had. */
template <int D> struct sums70 { float o[D], m[2], l[2]; };

template <int D>
static __device__ __forceinline__ void load_keys(const attend_args<__half> &a, room70<D> &room, int32_t kv_column, int32_t turn) {
    enum { EACH = KEYS * (D / 8) / THREADS, AT_ONCE = D == 128 ? 4 : EACH };
    const int32_t thread = (int32_t)threadIdx.x;
#pragma unroll
    for (int32_t v = 0; v < 2; v++)
#pragma unroll 1
        for (int32_t j0 = 0; j0 < EACH; j0 += AT_ONCE) {
            uint4 x[AT_ONCE];
#pragma unroll
            for (int32_t j = 0; j < AT_ONCE; j++) {
                const int32_t i = thread + (j0 + j) * THREADS, row = room.key_rows[turn][i / (D / 8)];
                const __half *from = (v ? a.v : a.k) + kv_column + (int64_t)(row < 0 ? 0 : row) * (v ? a.v_ld : a.k_ld) + i % (D / 8) * 8;
                x[j] = row < 0 ? make_uint4(0, 0, 0, 0) : *(const uint4 *)from;
            }
#pragma unroll
            for (int32_t j = 0; j < AT_ONCE; j++) {
                const int32_t i = thread + (j0 + j) * THREADS, key = i / (D / 8), c = i % (D / 8) * 8;
                *(uint4 *)(v ? &room.v[key][c] : &room.k[key][c]) = x[j];
            }
        }
    if (thread < KEYS) {
        const int32_t row = room.key_rows[turn][thread];
        room.bias[thread] = a.bias && row >= 0 ? a.bias[row] : 0.f;
    }
}

/* s[8 keys][]: of the P keys from key0 on. */
template <int P, int D> static __device__ __forceinline__ void score(const room70<D> &room, const uint4 (&q)[D / 8], int32_t key0, float (&s)[P / 8][8]) {
    const __half *k = room.k[key0 + seat_of((int32_t)threadIdx.x % 32)];
#pragma unroll
    for (int32_t g = 0; g < P / 8; g++)
#pragma unroll
        for (int32_t i = 0; i < 8; i++) s[g][i] = 0;
#pragma unroll
    for (int32_t c = 0; c < D / 8; c++)
#pragma unroll
        for (int32_t g = 0; g < P / 8; g++) {
            const uint4 b = *(const uint4 *)(k + 8 * g * room.K_LD + 8 * c);
            mma4(s[g], q[c].x, q[c].y, b.x, b.y);
            mma4(s[g], q[c].z, q[c].w, b.z, b.w);
        }
}

/* What a lane's two rows see. */
struct range70 { int32_t first[2], last[2]; };

template <int P> static __device__ __forceinline__ void mask(const range70 &rows, int32_t key, float (&s)[P / 8][8]) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t g = 0; g < P / 8; g++)
#pragma unroll
        for (int32_t i = 0; i < 8; i++) {
            const int32_t at = key + 8 * g + sum_column(lane, i), h = i / 2 % 2;
            if (at < rows.first[h] || at > rows.last[h]) s[g][i] = minus_infinity();
        }
}

/* s becomes weights; sums follow where a row takes a new maximum. */
template <int P, int D> static __device__ __forceinline__ void weigh(float scale, float (&s)[P / 8][8], sums70<D> &f) {
    float by[2];
    bool anew[2];
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        float top = minus_infinity();
#pragma unroll
        for (int32_t g = 0; g < P / 8; g++)
#pragma unroll
            for (int32_t i = 0; i < 8; i++)
                if (i / 2 % 2 == h) top = fmaxf(top, s[g][i]);
        top = fmaxf(top, __shfl_xor_sync(~0u, top, 2));
        anew[h] = (top - f.m[h]) * scale > LAG;
        by[h] = 1;
        if (anew[h]) {
            by[h] = exp2_fast((f.m[h] - top) * scale);         /* the first time 2^-inf */
            f.m[h] = top;
        }
        const float shift = f.m[h] == minus_infinity() ? 0.f : __fmul_rn(f.m[h], scale);
        float sum = 0;
#pragma unroll
        for (int32_t g = 0; g < P / 8; g++)
#pragma unroll
            for (int32_t i = 0; i < 8; i++)
                if (i / 2 % 2 == h) sum += s[g][i] = exp2_fast(fmaf(s[g][i], scale, -shift));
        f.l[h] = fmaf(f.l[h], by[h], sum);
    }
    if (!__any_sync(~0u, anew[0] || anew[1])) return;
#pragma unroll
    for (int32_t i = 0; i < D; i++) f.o[i] *= by[i / 2 % 2];
}

/* Weights of 8 keys as operands: keys 0 .. 3 of the lane's own row to a[0] and a[1], 4 .. 7 to a[2] and a[3]. */
static __device__ __forceinline__ void turn_weights(const float (&s)[8], uint32_t (&a)[4]) {
    const bool upper = threadIdx.x & 2;    /* whose own row is the second of the two that it has scores of */
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
        const uint32_t x = pack2(s[4 * i], s[4 * i + 1], __half()), y = pack2(s[4 * i + 2], s[4 * i + 3], __half());
        const uint32_t own = upper ? y : x, other = __shfl_xor_sync(~0u, upper ? x : y, 2);
        a[2 * i] = upper ? other : own;
        a[2 * i + 1] = upper ? own : other;
    }
}

template <int P, int D> static __device__ __forceinline__ void add_values(const room70<D> &room, const float (&s)[P / 8][8], int32_t key0, sums70<D> &f) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    const __half *v = &room.v[key0 + lane % 4][lane / 16 * 8];
#pragma unroll
    for (int32_t g = 0; g < P / 8; g++) {
        uint32_t a[4];
        turn_weights(s[g], a);
#pragma unroll
        for (int32_t k = 0; k < 2; k++)
#pragma unroll
            for (int32_t c = 0; c < D / 16; c++) {
                const uint4 b = *(const uint4 *)(v + (8 * g + 4 * k) * room.V_LD + 16 * c);
                mma4_rows(*(float (*)[8])&f.o[16 * c], a[2 * k], a[2 * k + 1], b.x, b.y);
                mma4_rows(*(float (*)[8])&f.o[16 * c + 8], a[2 * k], a[2 * k + 1], b.z, b.w);
            }
    }
}

template <int D>
static __device__ __forceinline__ void walk(const attend_args<__half> &a, room70<D> &room, const flash_place &p, bool whole, int32_t kv_column,
                                            const uint4 (&q)[D / 8], sums70<D> &f) {
    enum { P = D == 128 ? 16 : 32 };       /* keys at a time: what registers have room for       */
    const flash_run run = room.run;
    const int32_t from = max(run.lowest / KEYS, p.from), to = min(run.highest / KEYS + 1, p.to), t = (int32_t)threadIdx.x, lane = t % 32;
    range70 rows;
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        const int32_t r = t / 32 * 32 + pair_of(lane) * 8 + sum_row(lane, 2 * h);
        const bool in = r >= run.from && r < run.to;
        rows.first[h] = in ? room.first[r] : 0;
        rows.last[h] = in ? room.last[r] : -1;
    }
    if (t < KEYS) room.key_rows[from & 1][t] = key_row_of(a, run, from * KEYS + t);
#pragma unroll 1
    for (int32_t tile = from; tile < to; tile++) {
        __syncthreads();                   /* all have looked keys up, and are done with those before */
        load_keys(a, room, kv_column, tile & 1);
        __syncthreads();
        if (t < KEYS) room.key_rows[(tile + 1) & 1][t] = key_row_of(a, run, (tile + 1) * KEYS + t);
#pragma unroll 1
        for (int32_t key0 = 0; key0 < KEYS; key0 += P) {
            const int32_t key = tile * KEYS + key0;
            const bool masked = !whole || key < run.full_from || key + P - 1 > run.full_to;
            bool sees = false;
#pragma unroll
            for (int32_t h = 0; h < 2; h++) sees = sees || (rows.first[h] < key + P && rows.last[h] >= key);
            if (masked && !__any_sync(~0u, sees)) continue;
            float s[P / 8][8];
            score<P>(room, q, key0, s);
            if (a.bias && __any_sync(~0u, room.bias[key0 + lane % P] != 0)) {
#pragma unroll
                for (int32_t g = 0; g < P / 8; g++)
#pragma unroll
                    for (int32_t i = 0; i < 8; i++) s[g][i] = fmaf(room.bias[key0 + 8 * g + sum_column(lane, i)], 1.f / a.scale, s[g][i]);
            }
            if (masked) mask<P>(rows, key, s);
            weigh<P>(a.scale * RV_LOG2E, s, f);
            add_values<P>(room, s, key0, f);
        }
    }
}

/* f.l: of whole rows. */
template <int D> static __device__ __forceinline__ void store(const attend_args<__half> &a, const room70<D> &room, const sums70<D> &f, const flash_place &p) {
    const int32_t t = (int32_t)threadIdx.x, lane = t % 32;
#pragma unroll
    for (int32_t h = 0; h < 2; h++) {
        const int32_t r = t / 32 * 32 + pair_of(lane) * 8 + sum_row(lane, 2 * h);
        const float by = f.l[h] == 0 || room.last[r] < room.first[r] ? 0.f : 1.f / f.l[h];
        if (r >= p.rows) continue;
        __half *to = a.out + (int64_t)(p.row0 + r) * a.out_ld + p.head * D + (lane & 2);
#pragma unroll
        for (int32_t c = 0; c < D / 4; c++) {
            const float x = by == 0 ? 0.f : f.o[4 * c + 2 * h] * by, y = by == 0 ? 0.f : f.o[4 * c + 2 * h + 1] * by;
            *(uint32_t *)(to + c / 4 * 16 + c / 2 % 2 * 4 + c % 2 * 8) = pack2(x, y, __half());
        }
    }
}

template <int D>
static __device__ __forceinline__ void finish(const attend_args<__half> &a, const flash_plan &plan, const flash_place &p, room70<D> &room, sums70<D> &f) {
    const int32_t thread = (int32_t)threadIdx.x;
#pragma unroll
    for (int32_t h = 0; h < 2; h++) f.l[h] += __shfl_xor_sync(~0u, f.l[h], 2);
    if (p.part >= 0) {
        const int32_t tile = p.part / plan.splits;
        leave_sums<D / 4>(part_of<D / 4>(plan, p.part, 1, 0, thread), f.o, f.m, f.l);
        __syncthreads();
        if (thread == 0) room.merge = last_part(plan, tile);
        __syncthreads();
        if (!room.merge) return;
        merge_sums<D / 4>(part_of<D / 4>(plan, tile * plan.splits, 1, 0, thread), (int64_t)(D / 4 + 1) * THREADS, plan.splits, a.scale * RV_LOG2E, f.o, f.l);
    }
    store(a, room, f, p);
}

template <int D> static __global__ void __launch_bounds__(THREADS, BLOCKS) flash70_kernel(const attend_args<__half> a, const flash_plan plan) {
    extern __shared__ uint4 memory[];
    room70<D> &room = *reinterpret_cast<room70<D> *>(memory);
    const flash_place p = place_of(plan, (int32_t)blockIdx.x, a.rows, a.heads, room.ROWS);
    const int32_t t = (int32_t)threadIdx.x, lane = t % 32, mine = t / 32 * 32 + pair_of(lane) * 8 + seat_of(lane);
    const bool in = t < p.rows;
    room.first[t] = in && a.first ? a.first[p.row0 + t] : 0;
    room.last[t] = in ? a.last[p.row0 + t] : -1;
    room.slot[t] = in && a.slot ? a.slot[p.row0 + t] : 0;
    uint4 q[D / 8];
    const __half *from = a.q + (int64_t)(p.row0 + (mine < p.rows ? mine : 0)) * a.q_ld + p.head * D;
#pragma unroll
    for (int32_t c = 0; c < D / 8; c++) q[c] = mine < p.rows ? *(const uint4 *)(from + 8 * c) : make_uint4(0, 0, 0, 0);
    sums70<D> f;
#pragma unroll
    for (int32_t i = 0; i < D; i++) f.o[i] = 0;
    f.m[0] = f.m[1] = minus_infinity();
    f.l[0] = f.l[1] = 0;
    __syncthreads();
    for (int32_t first = 0; first < p.rows;) {
        const int32_t to = next_run(room, a.slot != nullptr, first, p.rows);
        if (room.run.highest >= 0) walk(a, room, p, first == 0 && to == p.rows, p.head / a.group * D, q, f);
        first = to;
    }
    finish(a, plan, p, room, f);
}

template <int D> static cudaError_t flash(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    const int bytes = (int)sizeof(room70<D>);
    cudaError_t e = cudaFuncSetAttribute(flash70_kernel<D>, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (e) return e;
    const flash_plan plan = plan_of(a, room70<D>::ROWS, KEYS, multiprocessors * BLOCKS, partial);
    flash70_kernel<D><<<(unsigned)plan.items, THREADS, (size_t)bytes, stream>>>(args_of<__half>(a), plan);
    return cudaGetLastError();
}

cudaError_t rv_cuda_flash70(const rv_attention *a, void *partial, int32_t multiprocessors, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    /* A scale of 0 or less would turn masks or the order of scores around. */
    if (a->q.type == RV_F16 && a->scale > 0 && rows_are_aligned(a->q) && rows_are_aligned(a->kv.k) && rows_are_aligned(a->kv.v) && a->out.ld % 2 == 0 &&
        (uintptr_t)a->out.data % 4 == 0)
        switch (a->q.cols / a->heads) {
        case 64: return flash<64>(a, partial, multiprocessors, stream);
        case 80: return flash<80>(a, partial, multiprocessors, stream);
        case 128: return flash<128>(a, partial, multiprocessors, stream);
        }
    return rv_cuda_attend_plain(a, stream);
}
