/* decode.cu - attention for a few rows against many keys: at the memory's speed.
 *
 * The one idea: a block owns one row, one K/V head with up to 8 of its query heads, and one split of
 * 512 keys at a fixed multiple; a warp takes 16 keys at a time straight from memory into tensor-core
 * operands, no shared memory on the way.  Blocks of several splits leave (maximum, sum, values) in
 * `partial`, and the last to finish merges them in order.  Nothing depends on how many rows the
 * call has, nor on `longest`: a row's result is always the same bits.
 *
 * How 16-byte loads become operands: a product sums over head columns in any order, so lane (g, t)
 * (g = lane / 4, t = lane % 4) takes the 8 columns from 8 (4c + t) of key g and of query head g for two
 * k-steps.  For the values it takes columns 8g .. 8g + 7 of keys 2t, 2t + 1, 2t + 8 and 2t + 9: byte
 * permutes pair up neighbouring keys, and output row g of a product is column 8g + j.
 */
#include "kernels/cuda/attend.cuh"

enum { WARPS = 4, THREADS = 32 * WARPS, SPLIT = RV_CUDA_SPLIT_KEYS, TILE = 16, TILES = SPLIT / TILE, HEADS = 8,
       COUNTERS = 1 << 14 };               /* at the start of `partial`: one per row and block of heads */

/* What the fused form adds: rotate q, rotate and store k, store v, then attend. */
template <typename T> struct rope_args {
    const T *k = nullptr, *v = nullptr;
    T *to_k = nullptr, *to_v = nullptr;
    int64_t ld_k = 0, ld_v = 0;
    const float *cos_sin = nullptr;
    const int32_t *pos = nullptr;          /* NULL: not fused                                     */
};

template <int D> struct decode_room {
    int32_t key_rows[SPLIT];
    float o[WARPS][HEADS][D + 4], m[WARPS][HEADS], l[WARPS][HEADS];
    uint4 k[D / 8], v[D / 8];              /* the fused form's own key and value                  */
    bool merge;
};

/* A block's place in the call. */
struct decode_place {
    int32_t row, slot, kv_head, head, heads;           /* heads: query heads here, 1 to 8         */
    int32_t split, splits, first, last;                /* split: its number among the row's; keys it sees */
    int32_t own;                                       /* fused: the row's own key, if it is here; else NO_KEY */
};

/* What a lane holds of 16 keys. */
template <int D> struct tile_data {
    uint4 k[2][D / 32], v[D / 64][4];
    float bias[2][2];
};

static __device__ __forceinline__ uint4 load16(const void *p, bool valid) {
    uint4 x = make_uint4(0, 0, 0, 0);
    if (valid) x = __ldcg(reinterpret_cast<const uint4 *>(p));
    return x;
}

/* The number within a tile of the lane's i-th value key. */
static __device__ __forceinline__ int32_t value_key(int32_t lane, int32_t i) { return lane % 4 * 2 + i % 2 + i / 2 * 8; }

template <typename T, int D>
static __device__ __forceinline__ void load_tile(const attend_args<T> &a, const decode_room<D> &room, const decode_place &p, int32_t key0,
                                                 int32_t tile, tile_data<D> &x) {
    int32_t lane = (int32_t)threadIdx.x % 32, own = p.own - key0 - tile * TILE;
    const int32_t *rows = room.key_rows + tile * TILE;
    const T *k = a.k + p.kv_head * D + lane % 4 * 8, *v = a.v + p.kv_head * D + lane / 4 * 8;
#pragma unroll
    for (int32_t i = 0; i < 2; i++) {
        int32_t key = lane / 4 + 8 * i, row = key == own ? (int32_t)NO_KEY : rows[key];
#pragma unroll
        for (int32_t c = 0; c < D / 32; c++) x.k[i][c] = load16(k + row * a.k_ld + 32 * c, row >= 0);
    }
#pragma unroll
    for (int32_t i = 0; i < 4; i++) {
        int32_t key = value_key(lane, i), row = key == own ? (int32_t)NO_KEY : rows[key];
#pragma unroll
        for (int32_t c = 0; c < D / 64; c++) x.v[c][i] = load16(v + row * a.v_ld + 64 * c, row >= 0);
        if (a.bias) x.bias[i / 2][i % 2] = rows[key] >= 0 ? a.bias[rows[key]] * RV_LOG2E : 0.f;
    }
}

/* The row's own key and value, which memory may not hold yet. */
template <int D>
static __device__ __forceinline__ void take_own(const decode_room<D> &room, int32_t own, tile_data<D> &x) {
    int32_t lane = (int32_t)threadIdx.x % 32;
#pragma unroll
    for (int32_t i = 0; i < 2; i++)
        if (lane / 4 + 8 * i == own)
#pragma unroll
            for (int32_t c = 0; c < D / 32; c++) x.k[i][c] = room.k[4 * c + lane % 4];
#pragma unroll
    for (int32_t i = 0; i < 4; i++)
        if (value_key(lane, i) == own)
#pragma unroll
            for (int32_t c = 0; c < D / 64; c++) x.v[c][i] = room.v[8 * c + lane / 4];
}

/* ---- one warp's sums over its tiles: scores of head g, values of heads 2t and 2t + 1 ---- */

template <int D> struct decode_sums { float o[D / 16][4], m, l; };

template <typename T, int D>
static __device__ __forceinline__ void add_tile(const attend_args<T> &a, const decode_room<D> &room, int32_t tile,
                                                const uint4 (&q)[D / 32], const tile_data<D> &x, decode_sums<D> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    const int32_t *rows = room.key_rows + tile * TILE;
    float s[2][4] = { { 0, 0, 0, 0 }, { 0, 0, 0, 0 } }, scale = a.scale * RV_LOG2E, m = f.m;
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++)
#pragma unroll
        for (int32_t i = 0; i < 2; i++) {
            mma(s[i], q[c].x, 0u, q[c].y, 0u, x.k[i][c].x, x.k[i][c].y, T());
            mma(s[i], q[c].z, 0u, q[c].w, 0u, x.k[i][c].z, x.k[i][c].w, T());
        }
#pragma unroll
    for (int32_t i = 0; i < 2; i++)
#pragma unroll
        for (int32_t e = 0; e < 2; e++) {
            s[i][e] = a.bias ? fmaf(s[i][e], scale, x.bias[i][e]) : s[i][e] * scale;
            if (rows[value_key(lane, 2 * i + e)] < 0) s[i][e] = minus_infinity();
            m = fmaxf(m, s[i][e]);
        }
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 1));
    m = fmaxf(m, __shfl_xor_sync(~0u, m, 2));
    float base = m == minus_infinity() ? 0.f : m, by = exp2_fast(f.m - base);
    f.m = m;
    f.l *= by;
#pragma unroll
    for (int32_t i = 0; i < 2; i++)
#pragma unroll
        for (int32_t e = 0; e < 2; e++) {
            s[i][e] = exp2_fast(s[i][e] - base);
            f.l += s[i][e];
        }
    if (__any_sync(~0u, by != 1.f)) {
        float by0 = __shfl_sync(~0u, by, lane % 4 * 8), by1 = __shfl_sync(~0u, by, lane % 4 * 8 + 4);
#pragma unroll
        for (int32_t n = 0; n < D / 16; n++)
#pragma unroll
            for (int32_t e = 0; e < 4; e++) f.o[n][e] *= e % 2 ? by1 : by0;
    }
    uint32_t p0 = pack2(s[0][0], s[0][1], T()), p1 = pack2(s[1][0], s[1][1], T());
#pragma unroll
    for (int32_t c = 0; c < D / 64; c++) {
        const uint32_t *v0 = &x.v[c][0].x, *v1 = &x.v[c][1].x, *v2 = &x.v[c][2].x, *v3 = &x.v[c][3].x;
#pragma unroll
        for (int32_t j = 0; j < 4; j++)
            mma(f.o[4 * c + j], __byte_perm(v0[j], v1[j], 0x5410), __byte_perm(v0[j], v1[j], 0x7632),
                __byte_perm(v2[j], v3[j], 0x5410), __byte_perm(v2[j], v3[j], 0x7632), p0, p1, T());
    }
}

/* ---- the fused form ---- */

template <typename T> static __device__ __forceinline__ float element(const uint4 &x, int32_t i) {
    return to_f32(reinterpret_cast<const T *>(&x)[i]);
}

/* Rotates 8 columns and the 8 half a head further, at column j < head_dim / 2. */
template <typename T> static __device__ __forceinline__ void rotate8(uint4 &low, uint4 &high, const float *cos, const float *sin) {
    T *a = reinterpret_cast<T *>(&low), *b = reinterpret_cast<T *>(&high);
#pragma unroll
    for (int32_t i = 0; i < 8; i++) {
        float x = to_f32(a[i]), y = to_f32(b[i]);
        rotate_pair(x, y, cos[i], sin[i]);
        a[i] = to_act<T>(x);
        b[i] = to_act<T>(y);
    }
}

template <typename T, int D>
static __device__ __forceinline__ void rotate_queries(const rope_args<T> &o, int32_t row, uint4 (&q)[D / 32]) {
    int32_t pos = o.pos[row], at = (int32_t)threadIdx.x % 4 * 8;
    if (pos < 0) return;
    const float *cos_sin = o.cos_sin + (int64_t)pos * D;
#pragma unroll
    for (int32_t c = 0; c < D / 64; c++)
        rotate8<T>(q[c], q[c + D / 64], cos_sin + 32 * c + at, cos_sin + D / 2 + 32 * c + at);
}

/* Rotates the row's k, keeps it and v for this block and stores both. Threads 0 .. D / 8 - 1. */
template <typename T, int D>
static __device__ __forceinline__ void store_own(const attend_args<T> &a, const rope_args<T> &o, const decode_place &p, int32_t pos,
                                                 bool stores, decode_room<D> &room) {
    int32_t t = (int32_t)threadIdx.x;
    if (t >= D / 8) return;
    int64_t row = key_row(a, p.slot, pos);
    const uint4 *k = reinterpret_cast<const uint4 *>(o.k + p.row * o.ld_k + p.kv_head * D);
    uint4 *to_k = reinterpret_cast<uint4 *>(o.to_k + row * a.k_ld + p.kv_head * D);
    uint4 *to_v = reinterpret_cast<uint4 *>(o.to_v + row * a.v_ld + p.kv_head * D);
    room.v[t] = reinterpret_cast<const uint4 *>(o.v + p.row * o.ld_v + p.kv_head * D)[t];
    if (stores) to_v[t] = room.v[t];
    if (t >= D / 16) return;
    uint4 low = k[t], high = k[t + D / 16];
    const float *cos_sin = o.cos_sin + (int64_t)pos * D + 8 * t;
    rotate8<T>(low, high, cos_sin, cos_sin + D / 2);
    room.k[t] = low;
    room.k[t + D / 16] = high;
    if (!stores) return;
    to_k[t] = low;
    to_k[t + D / 16] = high;
}

/* ---- from warps to a block, from blocks to a row ---- */

template <int D> static __device__ __forceinline__ void keep_sums(decode_room<D> &room, const decode_sums<D> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32;
    float l = f.l;
    l += __shfl_xor_sync(~0u, l, 1);
    l += __shfl_xor_sync(~0u, l, 2);
    if (lane % 4 == 0) {
        room.m[warp][lane / 4] = f.m;
        room.l[warp][lane / 4] = l;
    }
#pragma unroll
    for (int32_t n = 0; n < D / 16; n++)
#pragma unroll
        for (int32_t e = 0; e < 4; e++)
            room.o[warp][lane % 4 * 2 + e % 2][n / 4 * 64 + lane / 4 * 8 + n % 4 * 2 + e / 2] = f.o[n][e];
}

/* The sum of n parts' values at 4 columns; part i's are at o + i D. */
template <int D>
static __device__ __forceinline__ float4 merge_parts(const float *o, const float *m, const float *l, int32_t n, float &top, float &sum) {
    float4 x = make_float4(0, 0, 0, 0);
    top = minus_infinity();
    sum = 0;
    for (int32_t i = 0; i < n; i++) top = fmaxf(top, __ldcg(m + i));
    if (top == minus_infinity()) return x;
#pragma unroll 4
    for (int32_t i = 0; i < n; i++) {
        float by = exp2_fast(__ldcg(m + i) - top);
        float4 y = __ldcg(reinterpret_cast<const float4 *>(o + i * D));
        sum = fmaf(by, __ldcg(l + i), sum);
        x.x = fmaf(by, y.x, x.x);
        x.y = fmaf(by, y.y, x.y);
        x.z = fmaf(by, y.z, x.z);
        x.w = fmaf(by, y.w, x.w);
    }
    return x;
}

template <int D> static __device__ __forceinline__ float4 merge_warps(const decode_room<D> &room, int32_t head, int32_t c, float &top, float &sum) {
    float4 x = make_float4(0, 0, 0, 0);
    top = minus_infinity();
    sum = 0;
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) top = fmaxf(top, room.m[w][head]);
    if (top == minus_infinity()) return x;
#pragma unroll
    for (int32_t w = 0; w < WARPS; w++) {
        float by = exp2_fast(room.m[w][head] - top);
        float4 y = *reinterpret_cast<const float4 *>(&room.o[w][head][c]);
        sum = fmaf(by, room.l[w][head], sum);
        x.x = fmaf(by, y.x, x.x);
        x.y = fmaf(by, y.y, x.y);
        x.z = fmaf(by, y.z, x.z);
        x.w = fmaf(by, y.w, x.w);
    }
    return x;
}

template <typename T> static __device__ __forceinline__ void store4(T *to, float4 x, float sum) {
    float by = sum == 0 ? 0.f : 1.f / sum;
    uint2 y = make_uint2(0, 0);
    if (sum != 0) y = make_uint2(pack2(x.x * by, x.y * by, T()), pack2(x.z * by, x.w * by, T()));
    *reinterpret_cast<uint2 *>(to) = y;
}

/* `partial`: counters, then D values of every row, head and split, then their maxima, then their sums. */
template <typename T, int D>
static __device__ __forceinline__ void finish_row(const attend_args<T> &a, decode_room<D> &room, const decode_place &p, void *partial,
                                                  int32_t most_splits) {
    int64_t parts = (int64_t)a.rows * a.heads * most_splits;
    float *o = reinterpret_cast<float *>(reinterpret_cast<int32_t *>(partial) + COUNTERS), *m = o + parts * D, *l = m + parts;
    int32_t *counter = reinterpret_cast<int32_t *>(partial) + (int32_t)(blockIdx.z * gridDim.y + blockIdx.y);
    for (int32_t i = (int32_t)threadIdx.x; i < p.heads * (D / 4); i += THREADS) {
        int32_t h = i / (D / 4), c = i % (D / 4) * 4;
        int64_t at = ((int64_t)p.row * a.heads + p.head + h) * most_splits + p.split;
        float top, sum;
        float4 x = merge_warps(room, h, c, top, sum);
        if (p.splits == 1) {
            store4(a.out + p.row * a.out_ld + (p.head + h) * D + c, x, sum);
            continue;
        }
        __stcg(reinterpret_cast<float4 *>(o + at * D + c), x);
        if (c == 0) {
            __stcg(m + at, top);
            __stcg(l + at, sum);
        }
    }
    if (p.splits == 1) return;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        room.merge = atomicAdd(counter, 1) == p.splits - 1;
        if (room.merge) *counter = 0;      /* ready for the next launch                           */
        __threadfence();
    }
    __syncthreads();
    if (!room.merge) return;
    for (int32_t i = (int32_t)threadIdx.x; i < p.heads * (D / 4); i += THREADS) {
        int32_t h = i / (D / 4), c = i % (D / 4) * 4;
        int64_t at = ((int64_t)p.row * a.heads + p.head + h) * most_splits;
        float top, sum;
        float4 x = merge_parts<D>(o + at * D + c, m + at, l + at, p.splits, top, sum);
        store4(a.out + p.row * a.out_ld + (p.head + h) * D + c, x, sum);
    }
}

/* ---- the kernel ---- */

/* False: no key of this split is seen by the row. */
template <typename T>
static __device__ __forceinline__ bool find_place(const attend_args<T> &a, const rope_args<T> &o, decode_place &p) {
    int32_t blocks = (a.group + HEADS - 1) / HEADS, split = (int32_t)blockIdx.x, part = (int32_t)blockIdx.y % blocks;
    p.row = (int32_t)blockIdx.z;
    p.kv_head = (int32_t)blockIdx.y / blocks;
    p.head = p.kv_head * a.group + part * HEADS;
    p.heads = a.group - part * HEADS < HEADS ? a.group - part * HEADS : (int32_t)HEADS;
    p.slot = a.slot ? a.slot[p.row] : 0;
    p.first = a.first ? a.first[p.row] : 0;
    p.last = a.last[p.row];
    int32_t pos = o.pos ? o.pos[p.row] : -1;
    p.own = pos >= 0 && pos / SPLIT == split ? pos : (int32_t)NO_KEY;
    if (p.last < p.first) {
        p.splits = 0;
        return false;
    }
    p.split = split - p.first / SPLIT;
    p.splits = p.last / SPLIT - p.first / SPLIT + 1;
    if (p.first < split * SPLIT) p.first = split * SPLIT;
    if (p.last > split * SPLIT + SPLIT - 1) p.last = split * SPLIT + SPLIT - 1;
    return p.first <= p.last;
}

template <typename T, int D>
static __device__ __forceinline__ void walk_tiles(const attend_args<T> &a, const decode_room<D> &room, const decode_place &p,
                                                  const uint4 (&q)[D / 32], decode_sums<D> &f) {
    int32_t warp = (int32_t)threadIdx.x / 32, key0 = (int32_t)blockIdx.x * SPLIT;
    int32_t from = (p.first - key0) / TILE, to = (p.last - key0) / TILE;
    int32_t tile = (from - warp + WARPS - 1) / WARPS * WARPS + warp;      /* the warp's first at or after from */
    if (tile > to) return;
    tile_data<D> now, next;
    load_tile(a, room, p, key0, tile, now);
#pragma unroll 2
    for (; tile <= to; tile += WARPS) {
        if (tile + WARPS <= to) load_tile(a, room, p, key0, tile + WARPS, next);
        if (p.own != NO_KEY && (p.own - key0) / TILE == tile) take_own(room, (p.own - key0) % TILE, now);
        add_tile(a, room, tile, q, now, f);
        now = next;
    }
}

template <typename T, int D>
static __global__ void __launch_bounds__(THREADS) decode_kernel(attend_args<T> a, rope_args<T> o, void *partial, int32_t most_splits) {
    __shared__ __align__(16) decode_room<D> room;
    int32_t t = (int32_t)threadIdx.x, lane = t % 32, key0 = (int32_t)blockIdx.x * SPLIT;
    decode_place p;
    let_next_start();
    wait_for_previous();
    bool sees = find_place(a, o, p);
    bool stores = p.head % a.group == 0;   /* one block of a K/V head's stores                    */
    if (!sees) {
        if (p.own != NO_KEY && stores) store_own(a, o, p, p.own, true, room);
        if (p.splits == 0 && blockIdx.x == 0)
            for (int32_t i = t; i < p.heads * (D / 4); i += THREADS)
                store4(a.out + p.row * a.out_ld + (p.head + i / (D / 4)) * D + i % (D / 4) * 4, make_float4(0, 0, 0, 0), 0);
        return;
    }
    uint4 q[D / 32];
    const T *from = a.q + p.row * a.q_ld + (p.head + lane / 4) * D + lane % 4 * 8;
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++) q[c] = load16(from + 32 * c, lane / 4 < p.heads);
    for (int32_t i = t; i < SPLIT; i += THREADS)
        room.key_rows[i] = key0 + i >= p.first && key0 + i <= p.last ? key_row(a, p.slot, key0 + i) : (int32_t)NO_KEY;
    if (p.own != NO_KEY) store_own(a, o, p, p.own, stores, room);
    if (o.pos) rotate_queries<T, D>(o, p.row, q);
    __syncthreads();

    decode_sums<D> f;
#pragma unroll
    for (int32_t n = 0; n < D / 16; n++) f.o[n][0] = f.o[n][1] = f.o[n][2] = f.o[n][3] = 0;
    f.m = minus_infinity();
    f.l = 0;
    walk_tiles(a, room, p, q, f);
    keep_sums(room, f);
    __syncthreads();
    finish_row(a, room, p, partial, most_splits);
}

static int32_t splits_of(int32_t longest) { return longest > 0 ? (longest - 1) / SPLIT + 1 : 1; }

uint64_t rv_cuda_decode_bytes(int32_t rows, int32_t heads, int32_t head_dim, int32_t longest) {
    uint64_t parts = (uint64_t)rows * (uint64_t)heads * (uint64_t)splits_of(longest);
    return COUNTERS * sizeof(int32_t) + parts * ((uint64_t)head_dim + 2) * sizeof(float);
}

template <typename T, int D>
static cudaError_t decode(const rv_attention *a, const rope_args<T> &o, void *partial, bool overlap, cudaStream_t stream) {
    int32_t group = a->heads / a->kv_heads, splits = splits_of(a->longest);
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = {};
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = dim3((unsigned)splits, (unsigned)(a->kv_heads * ((group + HEADS - 1) / HEADS)), (unsigned)a->q.rows);
    config.blockDim = dim3(THREADS);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = overlap ? 1 : 0;
    if ((int64_t)config.gridDim.y * config.gridDim.z > COUNTERS) return cudaErrorInvalidValue;
    return cudaLaunchKernelEx(&config, decode_kernel<T, D>, args_of<T>(a), o, partial, splits);
}

template <typename T>
static cudaError_t decode_of(const rv_attention *a, const rope_args<T> &o, void *partial, bool overlap, cudaStream_t stream) {
    return a->q.cols / a->heads == 64 ? decode<T, 64>(a, o, partial, overlap, stream) : decode<T, 128>(a, o, partial, overlap, stream);
}

static bool takes(const rv_attention *a) {
    int32_t d = a->q.cols / a->heads;
    return (d == 64 || d == 128) && rows_are_aligned(a->q) && rows_are_aligned(a->kv.k) && rows_are_aligned(a->kv.v) &&
           a->out.ld % 4 == 0 && (uintptr_t)a->out.data % 8 == 0;
}

cudaError_t rv_cuda_decode(const rv_attention *a, void *partial, bool overlap, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (!takes(a)) return rv_cuda_attend_plain(a, stream);
    if (a->q.type == RV_F16) return decode_of(a, rope_args<__half>(), partial, overlap, stream);
    return decode_of(a, rope_args<__nv_bfloat16>(), partial, overlap, stream);
}

template <typename T> static rope_args<T> rope_of(const rv_attention *a, rv_mat k, rv_mat v, const float *cos_sin, const int32_t *pos) {
    rope_args<T> o;
    o.k = (const T *)k.data;
    o.v = (const T *)v.data;
    o.to_k = (T *)a->kv.k.data;
    o.to_v = (T *)a->kv.v.data;
    o.ld_k = k.ld;
    o.ld_v = v.ld;
    o.cos_sin = cos_sin;
    o.pos = pos;
    return o;
}

cudaError_t rv_cuda_decode_rope(const rv_attention *a, rv_mat k, rv_mat v, const float *cos_sin, const int32_t *pos, void *partial,
                                bool overlap, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (!takes(a) || !rows_are_aligned(k) || !rows_are_aligned(v)) {
        int32_t d = a->q.cols / a->heads;
        cudaError_t e = rv_cuda_rope(a->q, cos_sin, pos, d, stream);
        if (e == cudaSuccess) e = rv_cuda_rope(k, cos_sin, pos, d, stream);
        if (e == cudaSuccess) e = rv_cuda_kv_store(a->kv, k, v, a->slot, pos, stream);
        return e == cudaSuccess ? rv_cuda_decode(a, partial, false, stream) : e;
    }
    if (a->q.type == RV_F16) return decode_of(a, rope_of<__half>(a, k, v, cos_sin, pos), partial, overlap, stream);
    return decode_of(a, rope_of<__nv_bfloat16>(a, k, v, cos_sin, pos), partial, overlap, stream);
}
