/* decode.cuh - attention for a few rows against many keys, as a block's work: what decode.cu launches by itself and stream90.cu between products.
 *
 * The one idea: a block owns one row, one K/V head with up to 8 of its query heads, and one split of the row's
 * keys (key_cut); each of its 4 warps takes 32 keys at a time, the next ones on their way.  Blocks
 * of several splits leave (maximum, sum, values) in `partial`, and the last to finish merges them in
 * order.  Nothing depends on how many rows the call has, nor on `longest`: a row's result is always the same
 * bits.
 *
 * A product sums over head columns in any order, so lane (g, t) (g = lane / 4, t = lane % 4) takes the 8
 * columns from 8 (4c + t) of query head g and of key g for two k-steps: 16 bytes at a time.  Scores are
 * [heads x keys], sums of values [columns x heads], so that scores turn into operands in place.
 *
 * With one row there is one warp a scheduler and nothing hides an instruction's latency, so a tile is large
 * enough for many products at once, and the code small: between two launches gigabytes of weights pass
 * through the caches, and its instructions come from memory every time.
 */
#ifndef RV_KERNELS_CUDA_DECODE_CUH
#define RV_KERNELS_CUDA_DECODE_CUH
#include "kernels/cuda/absent.cuh"
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/checked.cuh"

enum { DECODE_WARPS = 4, DECODE_THREADS = 32 * DECODE_WARPS, DECODE_TILE = 32, HEADS = 8,
       SPLIT = RV_CUDA_SPLIT_KEYS, LONG_SPLIT = 2 * SPLIT, FEW_SPLITS = 16,
       WARP_KEYS = LONG_SPLIT / DECODE_WARPS,      /* a warp's keys of a split: tiles w, w + DECODE_WARPS, .. */
#ifdef RV_CUDA_VOLTA
       MOST_SPLITS = 1024,                 /* of one row: what merging has room for                */
       TURNS = 1,                          /* places that a block has looked up                   */
#else
       MOST_SPLITS = 2048,
       TURNS = 2,
#endif
       COUNTERS = RV_CUDA_COUNTERS };      /* at the start of `partial`: one per row and block of heads */

/* What the fused forms add: rotate q, rotate and store k, store v; or norm q. */
template <typename T> struct rope_args {
    const T *k = nullptr, *v = nullptr;
    T *to_k = nullptr, *to_v = nullptr;
    int64_t ld_k = 0, ld_v = 0;
    const float *cos_sin = nullptr;
    const int32_t *pos = nullptr;          /* NULL: no rotation                                   */
    const float *norm = nullptr;           /* NULL: no norm                                       */
    float eps = 0;
};

/* A tile's keys: those that are copied, as bits; where the first is, or would be, if they follow one another; else SCATTERED. */
struct tile_rows { int32_t first; uint32_t valid; };
enum { SCATTERED = -(1 << 30) };

/* Under 99 KB, for SM86 and SM89, and three times in an SM80's or SM90's memory; Volta's under 48, as its keys make room for the values. */
template <int D> struct decode_room {
#ifdef RV_CUDA_VOLTA
    struct tile { union { uint4 k[DECODE_TILE][D / 8], v[DECODE_TILE][D / 8]; }; };
    struct tile_sums { float o[HEADS][D + 4]; };
#else
    struct tile { uint4 k[DECODE_TILE][D / 8], v[DECODE_TILE][D / 8]; };
    struct tile_sums { uint4 k[DECODE_TILE][D / 8]; float o[HEADS][D + 4]; };       /* a warp's follow its values: keys of its next place may come */
#endif
    union {
        union { tile x; tile_sums sums; } warp[DECODE_WARPS];
        float weight[HEADS][MOST_SPLITS];                          /* merging splits: theirs follow */
    };
    uint4 own_k[D / 8], own_v[D / 8];      /* the fused form's own key and value                  */
    float4 table[DECODE_WARPS][D / 4];            /* the row's cos and sin, or the weights of the queries' norm */
    int32_t key_rows[TURNS][DECODE_WARPS][WARP_KEYS];  /* of a place, and of the next one       */
    tile_rows tiles[TURNS][DECODE_WARPS][WARP_KEYS / DECODE_TILE];
    float m[DECODE_WARPS][HEADS], l[DECODE_WARPS][HEADS], sum[HEADS];
#ifdef RV_CUDA_VOLTA
    uint4 q[DECODE_WARPS][HEADS][D / 8];   /* as operands                                        */
    uint2 weights[DECODE_WARPS][HEADS][DECODE_TILE / 4 + 2];
#endif
    bool merge;
};

/* How the keys first .. last of a row are cut: up to 16 splits of 256, and where those would not do, 16, 32, .. of one length up to 512.  So a row that sees
 * an image has as many as a GPU has multiprocessors for each of 8 K/V heads, and none has to take two. */
struct key_cut {
    int32_t start, keys, splits;           /* the first split's first key; of a split; 0 splits: the row sees no key */
    __device__ __forceinline__ key_cut(int32_t first, int32_t last) : start(first / DECODE_TILE * DECODE_TILE), keys(SPLIT) {
        const int32_t n = last - start;    /* but one                                             */
        if (n >= FEW_SPLITS * SPLIT) keys = (n / ((n / (FEW_SPLITS * LONG_SPLIT) + 1) * FEW_SPLITS) / DECODE_TILE + 1) * DECODE_TILE;
        splits = last < first ? 0 : n / keys + 1;
    }
};
/* At most, of rows that see no key at or beyond `longest`. */
static inline int32_t splits_of(int32_t longest) {
    return longest <= 0 ? 1 : longest <= FEW_SPLITS * SPLIT ? (longest - 1) / SPLIT + 1 : ((longest - 1) / (FEW_SPLITS * LONG_SPLIT) + 1) * FEW_SPLITS;
}

/* Where 16-byte column c of a key lies in its tile's row, so that no two lanes meet in a bank (Volta's: four at most). */
#ifdef RV_CUDA_VOLTA
static __device__ __forceinline__ int32_t k_column(int32_t key, int32_t c) { return c ^ (key & 7); }
#else
static __device__ __forceinline__ int32_t k_column(int32_t key, int32_t c) { return c ^ (key & 1) * 4; }
#endif
static __device__ __forceinline__ int32_t v_column(int32_t key, int32_t c) { return c ^ (key & 7); }

/* A block's place in the call. */
struct decode_place {
    int32_t start, counter;                            /* the split's first key; of `partial`: of the row and these heads */
    int32_t turn;                                      /* which key_rows                        */
    bool asked;                                        /* this warp's first keys are on their way */
    int32_t row, slot, kv_head, head, heads;           /* heads: query heads here, 1 to 8         */
    int32_t split, splits, first, last;                /* split: its number among the row's; keys it sees */
    int32_t pos, own;                                  /* fused: the row's own key, if any; if it is here; else NO_KEY */
    bool stores;                                       /* fused: of a K/V head's blocks, the one that stores */
};

/* The block's threads, or those of its warps that attend: the last ones, and as many. */
static __device__ __forceinline__ int32_t decode_thread() { return (int32_t)threadIdx.x % DECODE_THREADS; }
static __device__ __forceinline__ int32_t decode_warp() { return decode_thread() / 32; }
static __device__ __forceinline__ void decode_meet() { asm volatile(RV_BAR ".sync 2, %0;" ::"n"((int)DECODE_THREADS) : "memory"); }

/* The number of a warp's i-th tile's first key. */
static __device__ __forceinline__ int32_t tile_key(const decode_place &p, int32_t warp, int32_t i) {
    return p.start + (i * DECODE_WARPS + warp) * DECODE_TILE;
}

/* Starts the copies of a warp's i-th tile, of K or of V; keys outside the range, and the row's own, become zeros.  Keys mostly follow one another: to find each one's row
 * takes longer than its copy. */
template <bool V, typename T, int D>
static __device__ __forceinline__ void copy_tile(const attend_args<T> &a, decode_room<D> &room, const decode_place &p, int32_t warp, int32_t i) {
    enum { COLUMNS = D / 8, ROWS = 32 / COLUMNS };
    const int32_t lane = (int32_t)threadIdx.x % 32, c = lane % COLUMNS, r = lane / COLUMNS, apart = (int32_t)((V ? a.v_ld : a.k_ld) * (int64_t)sizeof(T));
    const tile_rows tile = room.tiles[p.turn][warp][i];
    const uint32_t valid = tile.valid >> r;
    const char *from = (const char *)((V ? a.v : a.k) + p.kv_head * D + c * 8), *at = from + (int64_t)(tile.first + r) * apart;
    auto copy = [&](int32_t j, const char *row, bool is) {
        const int32_t key = r + j * ROWS;
        copy16(shared_address(V ? &room.warp[warp].x.v[key][v_column(key, c)] : &room.warp[warp].x.k[key][k_column(key, c)]), row, is);
    };
    if (tile.valid == ~0u && tile.first != SCATTERED) {
#pragma unroll
        for (int32_t j = 0; j < DECODE_TILE / ROWS; j++) copy(j, at + (int64_t)j * (ROWS * apart), true);
    } else if (tile.first != SCATTERED) {
#pragma unroll
        for (int32_t j = 0; j < DECODE_TILE / ROWS; j++) copy(j, at + (int64_t)j * (ROWS * apart), valid >> j * ROWS & 1);
    } else
#pragma unroll 4
        for (int32_t j = 0; j < DECODE_TILE / ROWS; j++) {
            const bool is = valid >> j * ROWS & 1;
            copy(j, from + (int64_t)(is ? room.key_rows[p.turn][warp][i * DECODE_TILE + r + j * ROWS] : 0) * apart, is);
        }
}

#ifdef RV_CUDA_VOLTA
#include "kernels/cuda/decode70.cuh"
#else
#include "kernels/cuda/decode80.cuh"
#endif

/* ---- the fused form ---- */

/* Asks for what the queries are rotated or normed by: older than any launch, and far away by now. */
template <typename T, int D>
static __device__ __forceinline__ void copy_table(const rope_args<T> &o, const decode_place &p, decode_room<D> &room) {
    const float *from = o.norm ? o.norm : o.pos && p.pos >= 0 ? o.cos_sin + (int64_t)p.pos * D : nullptr;
    int32_t lane = (int32_t)threadIdx.x % 32;
    if (from && lane < D / 4) copy16(shared_address(&room.table[decode_warp()][lane]), from + 4 * lane, true);
}

template <typename T, int D> static __device__ __forceinline__ void rotate_queries(const float *cos_sin, uint4 (&q)[D / 32]) {
    int32_t at = (int32_t)threadIdx.x % 4 * 8;
#pragma unroll
    for (int32_t c = 0; c < D / 64; c++)
        rotate8<T>(q[c], q[c + D / 64], cos_sin + 32 * c + at, cos_sin + D / 2 + 32 * c + at);
}

/* RMS norm of every head: the sums of rows.cu's norm for this width, whose thread 8t + e has the columns that lane t
 * has as its e-th, added in the same order. */
template <typename T, int D> static __device__ __forceinline__ void norm_queries(const float *weight, float eps, uint4 (&q)[D / 32]) {
    int32_t at = (int32_t)threadIdx.x % 4 * 8;
    float square[8] = {};
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++)
#pragma unroll
        for (int32_t e = 0; e < 8; e++) {
            float v = to_f32(reinterpret_cast<T *>(&q[c])[e]);
            square[e] += v * v;
        }
#pragma unroll
    for (int32_t m = 2; m > 0; m /= 2)
#pragma unroll
        for (int32_t e = 0; e < 8; e++) square[e] += __shfl_xor_sync(~0u, square[e], m);
#pragma unroll
    for (int32_t m = 4; m > 0; m /= 2)
#pragma unroll
        for (int32_t e = 0; e < m; e++) square[e] += square[e + m];
    float scale = rsqrtf(square[0] / (float)D + eps);
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++) {
        float normed[8];
#pragma unroll
        for (int32_t e = 0; e < 8; e++) normed[e] = to_f32(reinterpret_cast<const T *>(&q[c])[e]) * scale * weight[32 * c + at + e];
        uint32_t pairs[4];
        pack_counted<8>(pairs, normed, T());
        q[c] = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }
}

/* The row's own k and v: a lane's pieces, asked for before the queries are waited for: 8 columns of v, 2 of each half of k. */
struct own_pieces {
    uint4 v[1];
    uint32_t k[2];
};
template <typename T, int D> static __device__ __forceinline__ const uint4 *own_v_piece(const rope_args<T> &o, const decode_place &p) {
    return reinterpret_cast<const uint4 *>(o.v + p.row * o.ld_v + p.kv_head * D) + (int32_t)threadIdx.x % (D / 8);
}
template <typename T, int D> static __device__ __forceinline__ const uint32_t *own_k_piece(const rope_args<T> &o, const decode_place &p, int32_t half) {
    return reinterpret_cast<const uint32_t *>(o.k + p.row * o.ld_k + p.kv_head * D) + (int32_t)threadIdx.x % 32 % (D / 4) + half * (D / 4);
}
template <typename T, int D> static __device__ __forceinline__ void await_own(const rope_args<T> &o, const decode_place &p, own_pieces &own) {
    take_missing(own.v, [&](int32_t) { return own_v_piece<T, D>(o, p); });
    take_missing(own.k, [&](int32_t half) { return own_k_piece<T, D>(o, p, half); });
}
/* Rotates the row's k, keeps it and v for this block and, in one block of a K/V head's, stores both.
 * One warp. */
template <typename T, int D>
static __device__ __forceinline__ void store_own(const attend_args<T> &a, const rope_args<T> &o, const decode_place &p, decode_room<D> &room, own_pieces own) {
    const int32_t t = (int32_t)threadIdx.x % 32, at = p.own - p.start;
    const int64_t row = room.key_rows[p.turn][decode_warp()][at / (DECODE_WARPS * DECODE_TILE) * DECODE_TILE + at % DECODE_TILE];
    if (t < D / 8) {
        room.own_v[t] = own.v[0];
        if (p.stores) reinterpret_cast<uint4 *>(o.to_v + row * a.v_ld + p.kv_head * D)[t] = own.v[0];
    }
    if (t < D / 4) {
        uint32_t *keep = reinterpret_cast<uint32_t *>(room.own_k) + t, *to = reinterpret_cast<uint32_t *>(o.to_k + row * a.k_ld + p.kv_head * D) + t;
        const float *cos_sin = reinterpret_cast<const float *>(room.table[decode_warp()]) + 2 * t;
        rotate2<T>(own.k[0], own.k[1], cos_sin, cos_sin + D / 2);
#pragma unroll
        for (int32_t half = 0; half < 2; half++) {
            keep[half * (D / 4)] = own.k[half];
            if (p.stores) to[half * (D / 4)] = own.k[half];
        }
    }
    __syncwarp();
}

/* ---- from warps to a block, from blocks to a row ---- */

static __device__ __forceinline__ void add_scaled(float4 &to, float by, float4 x) {
    to.x = fmaf(by, x.x, to.x);
    to.y = fmaf(by, x.y, to.y);
    to.z = fmaf(by, x.z, to.z);
    to.w = fmaf(by, x.w, to.w);
}

/* 4 columns of a head: the warps' sums, with their maximum and sum of weights. */
template <int D>
static __device__ __forceinline__ float4 merge_warps(const decode_room<D> &room, int32_t head, int32_t c, float &top, float &sum) {
    float4 x = make_float4(0, 0, 0, 0);
    top = fmaxf(fmaxf(room.m[0][head], room.m[1][head]), fmaxf(room.m[2][head], room.m[3][head]));
    sum = 0;
    float base = top == minus_infinity() ? 0.f : top;
#pragma unroll
    for (int32_t w = 0; w < DECODE_WARPS; w++) {
        float by = exp2_fast(room.m[w][head] - base);
        sum = fmaf(by, room.l[w][head], sum);
        add_scaled(x, by, *reinterpret_cast<const float4 *>(&room.warp[w].sums.o[head][c]));
    }
    return x;
}

/* The splits' weights of one head, by one warp. */
template <int D> static __device__ __forceinline__ void weigh_splits(decode_room<D> &room, int32_t head, const float *m, const float *l, int32_t n) {
    const int32_t lane = (int32_t)threadIdx.x % 32;
    float top = minus_infinity(), sum = 0;
    const float first = lane < n ? __ldcg(l + lane) : 0.f;       /* asked for along with its maximum */
    for (int32_t i = lane; i < n; i += 32) top = fmaxf(top, room.weight[head][i] = __ldcg(m + i));
#pragma unroll
    for (int32_t d = 16; d > 0; d /= 2) top = fmaxf(top, __shfl_xor_sync(~0u, top, d));
    if (top == minus_infinity()) top = 0;
    for (int32_t i = lane; i < n; i += 32) {
        float by = exp2_fast(room.weight[head][i] - top);
        room.weight[head][i] = by;
        sum = fmaf(by, i == lane ? first : __ldcg(l + i), sum);
    }
#pragma unroll
    for (int32_t d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(~0u, sum, d);
    if (lane == 0) room.sum[head] = sum;
}

template <typename T> static __device__ __forceinline__ void store4(T *to, float4 x, float sum) {
    float by = sum == 0 ? 0.f : 1.f / sum;
    uint2 bits = make_uint2(0, 0);
    if (sum != 0) bits = make_uint2(pack2(x.x * by, x.y * by, T()), pack2(x.z * by, x.w * by, T()));
    *reinterpret_cast<uint2 *>(to) = bits;
}

/* Where a split's part of a row's heads is left, so many parts from head to head; where the heads belong. */
template <typename T> struct row_parts {
    float *o, *m, *l;
    T *out;
    int32_t apart;
};

/* `partial`: counters, then D values of every row, head and split, then their maxima, then their sums. */
template <int D, typename T>
static __device__ __forceinline__ row_parts<T> parts_of(const attend_args<T> &a, const decode_place &p, void *partial, int32_t most_splits, int32_t split) {
    int64_t parts = (int64_t)a.rows * a.heads * most_splits, row_part = ((int64_t)p.row * a.heads + p.head) * most_splits + split;
    float *o = reinterpret_cast<float *>(reinterpret_cast<int32_t *>(partial) + COUNTERS), *m = o + parts * D, *l = m + parts;
    return { o + row_part * D, m + row_part, l + row_part, a.out + p.row * a.out_ld + p.head * D, most_splits };
}

/* What the row's blocks left, in order of splits, r being the first one's; the first of it is asked for before its weights are known. */
template <typename T, int D>
static __device__ __forceinline__ void merge_splits(decode_room<D> &room, const decode_place &p, const row_parts<T> &r) {
    enum { AT_ONCE = 16 };
    const int32_t all = p.heads * (D / 4);
    float4 x[AT_ONCE];
    auto ask = [&](int32_t i, int32_t from) {
        const float *o = r.o + ((int64_t)(i / (D / 4)) * r.apart + from) * D + i % (D / 4) * 4;
#pragma unroll
        for (int32_t j = 0; j < AT_ONCE; j++)
            if (i < all && from + j < p.splits) x[j] = __ldcg(reinterpret_cast<const float4 *>(o + j * D));
    };
    ask(decode_thread(), 0);
    for (int32_t h = decode_warp(); h < p.heads; h += DECODE_WARPS)
        weigh_splits(room, h, r.m + h * r.apart, r.l + h * r.apart, p.splits);
    decode_meet();
#pragma unroll 1
    for (int32_t i = decode_thread(); i < all; i += DECODE_THREADS) {
        const int32_t h = i / (D / 4);
        float4 sum = make_float4(0, 0, 0, 0);
        if (i != decode_thread()) ask(i, 0);
#pragma unroll 1
        for (int32_t s = 0; s < p.splits; s += AT_ONCE) {
            if (s) ask(i, s);
#pragma unroll
            for (int32_t j = 0; j < AT_ONCE; j++)
                if (s + j < p.splits) add_scaled(sum, room.weight[h][s + j], x[j]);
        }
        store4(r.out + h * D + i % (D / 4) * 4, sum, room.sum[h]);
    }
}

template <typename T, int D>
static __device__ __forceinline__ void leave_parts(const decode_room<D> &room, const decode_place &p, const row_parts<T> &r) {
#pragma unroll 1
    for (int32_t i = decode_thread(); i < p.heads * (D / 4); i += DECODE_THREADS) {
        int32_t h = i / (D / 4), c = i % (D / 4) * 4;
        int64_t at = (int64_t)h * r.apart;
        float top, sum;
        float4 x = merge_warps(room, h, c, top, sum);
        if (p.splits == 1) {
            store4(r.out + h * D + c, x, sum);
            continue;
        }
        __stcg(reinterpret_cast<float4 *>(r.o + at * D + c), x);
        if (c == 0) {
            __stcg(r.m + at, top);
            __stcg(r.l + at, sum);
        }
    }
}

/* One thread, after all of the block's have left their parts and met: whether the block is the row's last, which joins them. */
static __device__ __forceinline__ bool is_last(const decode_place &p, void *partial) {
    int32_t *counter = reinterpret_cast<int32_t *>(partial) + p.counter;
    int32_t before;                        /* behind the whole block's parts, and before others' are read */
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    if (before == p.splits - 1) *counter = 0;      /* ready for the next launch                   */
    return before == p.splits - 1;
}

/* ---- a block's work ---- */

/* How many blocks share a row's heads. */
template <typename T> static __host__ __device__ __forceinline__ int32_t head_blocks(const attend_args<T> &a) {
    return a.heads / a.group * ((a.group + HEADS - 1) / HEADS);
}

/* The y-th of them, and a split.  False: no key of this split is seen by the row. */
template <typename T>
static __device__ __forceinline__ bool find_place(const attend_args<T> &a, const rope_args<T> &o, int32_t row, int32_t y, int32_t split, decode_place &p) {
    int32_t blocks = (a.group + HEADS - 1) / HEADS, part = y % blocks;
    p.counter = row * head_blocks(a) + y;
    p.row = row;
    p.kv_head = y / blocks;
    p.head = p.kv_head * a.group + part * HEADS;
    p.heads = a.group - part * HEADS < HEADS ? a.group - part * HEADS : (int32_t)HEADS;
    p.stores = part == 0;
    p.slot = a.slot ? a.slot[p.row] : 0;
    p.first = a.first ? a.first[p.row] : 0;
    p.last = a.last[p.row];
    p.pos = o.pos ? o.pos[p.row] : (int32_t)NO_KEY;
    const key_cut cut(p.first, p.last);
    p.start = cut.start + split * cut.keys;
    p.own = p.pos >= p.start && p.pos < p.start + cut.keys ? p.pos : (int32_t)NO_KEY;
    p.split = split;
    p.splits = cut.splits;
    if (p.first < p.start) p.first = p.start;
    if (p.last > p.start + cut.keys - 1) p.last = p.start + cut.keys - 1;
    return p.first <= p.last;
}

/* Queries and, where `owner`, own pieces.  After copy_table, whose copies are the third newest group.  TELLS: they tell whether they have come. */
template <bool TELLS, typename T, int D>
static __device__ __forceinline__ own_pieces load_queries(const attend_args<T> &a, const rope_args<T> &o, const decode_room<D> &room, const decode_place &p, bool owner, uint4 (&q)[D / 32]) {
    int32_t lane = (int32_t)threadIdx.x % 32;
    const T *from = a.q + p.row * a.q_ld + (p.head + lane / 4) * D + lane % 4 * 8;
    auto query = [&](int32_t c) { return reinterpret_cast<const uint4 *>(from + 32 * c); };
    auto own_v = [&](int32_t) { return own_v_piece<T, D>(o, p); };
    auto own_k = [&](int32_t half) { return own_k_piece<T, D>(o, p, half); };
    own_pieces own = {};
    if (owner) {
        own.v[0] = TELLS ? look(own_v(0)) : __ldcg(own_v(0));
#pragma unroll
        for (int32_t half = 0; half < 2; half++) own.k[half] = TELLS ? look(own_k(half)) : __ldcg(own_k(half));
    }
#pragma unroll
    for (int32_t c = 0; c < D / 32; c++) {
        q[c] = make_uint4(0, 0, 0, 0);
        if (!TELLS && lane / 4 < p.heads) q[c] = __ldcg(query(c));
    }
    if (TELLS) {
        take_when_come(q, query, [&](int32_t) { return lane / 4 < p.heads; });
        if (owner) {                       /* waited for where it is needed                       */
            look_again(own.v, own_v);
            look_again(own.k, own_k);
        }
    }
    copies_wait<2>();
    __syncwarp();
    const float *table = reinterpret_cast<const float *>(room.table[decode_warp()]);
    if (o.norm) norm_queries<T, D>(table, o.eps, q);
    else if (p.pos >= 0) rotate_queries<T, D>(table, q);
    return own;
}

/* The tiles of a warp that have keys, which start at 0, 128, ..: from .. to - 1. */
static __device__ __forceinline__ void find_tiles(const decode_place &p, int32_t warp, int32_t *from, int32_t *to) {
    int32_t first = p.first - tile_key(p, warp, 0), last = p.last - tile_key(p, warp, 0);
    *from = first < DECODE_TILE ? 0 : (first - DECODE_TILE) / (DECODE_WARPS * DECODE_TILE) + 1;
    *to = last < 0 ? 0 : last / (DECODE_WARPS * DECODE_TILE) + 1;
}

/* Looks the warp's keys up.  turn: 0 and 1 for places in turn. */
template <typename T, int D> static __device__ __forceinline__ void look_up(const attend_args<T> &a, decode_room<D> &room, decode_place &p, int32_t turn) {
    int32_t lane = decode_thread() % 32, warp = decode_warp();
#pragma unroll
    for (int32_t j = 0; j < WARP_KEYS / 32; j++) {
        int32_t key = tile_key(p, warp, j * 32 / DECODE_TILE) + lane;
        if (key - lane > p.last) break;
        const int32_t row = (key >= p.first && key <= p.last) || key == p.own ? key_row(a, p.slot, key) : (int32_t)NO_KEY;
        const bool is = row != NO_KEY && key != p.own;
        const uint32_t valid = __ballot_sync(~0u, is);
        const int32_t one = __ffs((int32_t)valid) - 1, first = __shfl_sync(~0u, row, one < 0 ? 0 : one) - one;
        const bool follow = __all_sync(~0u, !is || row == first + lane);
        room.key_rows[turn][warp][32 * j + lane] = row;
        if (lane == 0) room.tiles[turn][warp][j] = { follow ? first : (int32_t)SCATTERED, valid };
    }
    p.turn = turn;
    p.asked = false;
    __syncwarp();
}

/* Asks for a place's first keys while the one before is being finished. */
template <typename T, int D> static __device__ __forceinline__ void ask_keys(const attend_args<T> &a, decode_room<D> &room, decode_place &p) {
    int32_t from, to;
    find_tiles(p, decode_warp(), &from, &to);
    p.asked = from < to;
    if (p.asked) copy_tile<false>(a, room, p, decode_warp(), from);
    copies_commit();
}

/* Volta copies a tile's keys last, when values have been added, others their values: theirs have places of their own. */
#ifdef RV_CUDA_VOLTA
enum { KEYS_LAST = true };
#else
enum { KEYS_LAST = false };
#endif

/* One warp's tiles of the block's split.  ready: called once by every warp, before it reads what the launch or phase before wrote. */
template <bool TELLS, typename T, int D, typename R>
static __device__ __forceinline__ void walk_tiles(const attend_args<T> &a, const rope_args<T> &o, decode_room<D> &room,
                                                  const decode_place &p, int32_t warp, R ready, decode_sums<D> &f) {
    int32_t lane = (int32_t)threadIdx.x % 32, from, to;
    find_tiles(p, warp, &from, &to);
    const bool owner = p.own != NO_KEY && (p.own - p.start) / DECODE_TILE % DECODE_WARPS == warp;
    bool owes = owner;
    uint4 q[D / 32];
    own_pieces pieces = {};
    if (from >= to) {
        ready();
        return;
    }
    copy_table(o, p, room);
    copies_commit();
#pragma unroll 1
    for (int32_t i = from - 1; i < to; i++) {
        typename decode_room<D>::tile &x = room.warp[warp].x;
        decode_scores s;
        float bias[BIASES];
        int32_t own = p.own - tile_key(p, warp, i);
        const bool here = i >= from && owner && own >= 0 && own < DECODE_TILE && lane < D / 8;
        if (owes && i >= from && (own < DECODE_TILE || i + 1 == to)) {
            if (TELLS) await_own<T, D>(o, p, pieces);
            store_own(a, o, p, room, pieces);
            owes = false;
        }
        if (i >= from) {
            copies_wait<1>();
            __syncwarp();                  /* another lane's copy made zeros of the row's own key */
            if (here) x.k[own][k_column(own, lane)] = room.own_k[lane];
            __syncwarp();
            score<T, D>(room, x, q, s);
            __syncwarp();
#pragma unroll
            for (int32_t e = 0; e < BIASES; e++) bias[e] = 0;
            if (a.bias)                    /* before the next keys are asked for: scores leave no registers for them any earlier */
#pragma unroll
                for (int32_t e = 0; e < BIASES; e++) {
                    int32_t row = room.key_rows[p.turn][warp][i * DECODE_TILE + bias_key(lane, e)];
                    if (row >= 0) bias[e] = a.bias[row] * RV_LOG2E;
                }
        }
        if (KEYS_LAST ? i >= from : i + 1 < to && (i >= from || !p.asked)) copy_tile<KEYS_LAST>(a, room, p, warp, KEYS_LAST ? i : i + 1);
        copies_commit();
        if (i >= from) {
            const decode_by by = weigh(a.scale * RV_LOG2E, bias, p.first - tile_key(p, warp, i), p.last - tile_key(p, warp, i), f, s);
            copies_wait<1>();
            __syncwarp();
            if (here) x.v[own][v_column(own, lane)] = room.own_v[lane];
            __syncwarp();
            add_values<T, D>(room, x, s, by, f);
            __syncwarp();
        }
        if (i + 1 < to) copy_tile<!KEYS_LAST>(a, room, p, warp, i + 1);
        copies_commit();
        if (i < from) {
            ready();
            pieces = load_queries<TELLS>(a, o, room, p, owner, q);
            keep_queries(room, q);
        }
    }
    copies_wait<0>();
}

/* All of a place that has keys, looked up, but for joining the splits.  next: called once a warp, when its keys have been read; parts: where its part is left. */
template <bool TELLS = false, typename T, int D, typename R, typename N, typename P>
static __device__ __forceinline__ void attend_place(const attend_args<T> &a, const rope_args<T> &o, decode_room<D> &room, const decode_place &p, R ready, N next, P parts) {
    int32_t warp = decode_warp();
    decode_sums<D> f;
    walk_tiles<TELLS>(a, o, room, p, warp, ready, f);
    next();
    keep_sums(room, warp, f);
    decode_meet();
    leave_parts(room, p, parts());
}

/* A place without keys, of a row that sees none at all. */
template <typename T, int D> static __device__ __forceinline__ void attend_nothing(const attend_args<T> &a, const decode_place &p) {
    for (int32_t i = decode_thread(); i < p.heads * (D / 4); i += DECODE_THREADS)
        store4(a.out + p.row * a.out_ld + p.head * D + 4 * i, make_float4(0, 0, 0, 0), 0);
}

/* Rows that the kernels here take. */
static inline bool decode_takes(const rv_attention *a) {
    int32_t d = a->q.cols / a->heads;
    return (d == 64 || d == 128) && rows_are_aligned(a->q) && rows_are_aligned(a->kv.k) && rows_are_aligned(a->kv.v) &&
           a->out.ld % 4 == 0 && (uintptr_t)a->out.data % 8 == 0;
}
#endif
