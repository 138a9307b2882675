/* stream90.cu - decoder layers of one or two rows, many in one launch: weights never stop coming.
 *
 * The one idea: a block per multiprocessor stays for the whole run, and one thread of it asks for weights, which depend on nothing: tile after
 * tile, product after product, as far ahead as shared memory has room.  Between products blocks wait for one another at a gate, and
 * meanwhile the room fills, 140 KB a multiprocessor, six microseconds of the whole memory's speed: whoever multiplies is faster than
 * memory, so that it is empty when they come to a gate, and full when they leave.
 *
 * Eight warps multiply, to the order of few.cu's sums.  Four attend (decode.cuh): they ask for a layer's keys while its queries
 * are still being computed, and the first of them keeps the gate, so that nobody who multiplies waits for a fence.  The copies are the tensor
 * memory accelerator's: cp.async, which a warp issues like any load, waits in line where memory is slow and with it whatever that warp wants next.
 */
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/few.cuh"
#include "kernels/cuda/hopper.cuh"

enum { ATTENDING = DECODE_THREADS, ASKING = 128, ALL_THREADS = THREADS + ATTENDING + ASKING, ROWS = RV_CUDA_NORM_ROWS,
       PIECE = TILE * DEPTH * 2 / 16 /* uint4: a warp's 16 rows of 128 bytes */, STAGE = WARPS * PIECE, MOST_AHEAD = 10,
       IN = 0, O, GATE_UP, DOWN, PRODUCTS };

template <typename T> struct stream_args {
    CUtensorMap map[RV_STREAM_LAYERS][PRODUCTS];
    float *x;
    T *qkv, *ff;
    int64_t x_ld, qkv_ld, ff_ld;
    attend_args<T> attend[2];            /* self, cross                                         */
    int32_t most_splits[2];
    const float *cos_sin, *row_on;
    const int32_t *pos;
    void *partial;
    int32_t *gate;                       /* who has come to the gates so far; who has left; tiles drawn */
    float eps, q_eps;
    int32_t n, layers, hidden, q_width, kv_width, ffn;
    int32_t narrow, wide;                /* bytes of shared memory for rows of hidden or q_width; of ffn, or for attention */
    rv_stream_layer layer[RV_STREAM_LAYERS];
};

/* What lies between the thread that asks and those who multiply, in shared memory.
 * All tiles of the run stand in one line, product after product; blocks draw from it as they come to ask for weights, since memory does not serve
 * all multiprocessors alike. */
struct alignas(16) hand {
    enum { SLOTS = 16 };                 /* more than there are stages, plus one that another may lag behind */
    uint64_t full[MOST_AHEAD], empty[MOST_AHEAD];
    int32_t of[SLOTS];                   /* the k-th tile: its place in the line, marked with the round */
};

/* The warps' sums of a tile, two of these in turn. */
struct tile_sums {
    float2 of[WARPS][TILE];
    __device__ __forceinline__ float sum(int32_t row, int32_t n) const {
        float v = 0;
#pragma unroll
        for (int32_t k = 0; k < WARPS; k++) v += n ? of[k][row].y : of[k][row].x;
        return v;
    }
};

/* What attention is told, in shared memory, each warp for itself: registers have no room for it. */
template <typename T> struct attention_told {
    attend_args<T> args;
    rope_args<T> rope;
    int32_t most_splits;
};
template <typename T, int D> struct attention_room {
    decode_room<D> keys;
    attention_told<T> told[DECODE_WARPS];
    uint32_t last;                       /* of the block's places: those after which their rows can be joined */
};

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
/* ---- between warps ---- */

/* WORKED: products are done (those who multiply to the gate's keeper); GO: the gate is open (back); FREE: attention may
 * have its room again. */
enum { WORKED = 3, GO, FREE, GATE_THREADS = THREADS + 32, FREE_THREADS = THREADS + ATTENDING };
template <int ID, int N> static __device__ __forceinline__ void arrive() { asm volatile("bar.arrive %0, %1;" ::"n"(ID), "n"(N) : "memory"); }
template <int ID, int N> static __device__ __forceinline__ void await() { asm volatile("bar.sync %0, %1;" ::"n"(ID), "n"(N) : "memory"); }

/* One warp of each block.  What any thread of a block wrote before its keeper came is seen behind the gate in all blocks; all are there at
 * once, since the launch is a cooperative one. */
struct gate_keeper {
    int32_t *gate, target;
    __device__ __forceinline__ void pass() {
        target += (int32_t)gridDim.x;
        if (threadIdx.x % 32 == 0) {
            int32_t come;
            asm volatile("fence.acq_rel.gpu;" ::: "memory");
            asm volatile("red.relaxed.gpu.global.add.s32 [%0], 1;" ::"l"(gate) : "memory");
            do asm volatile("ld.acquire.gpu.global.s32 %0, [%1];" : "=r"(come) : "l"(gate) : "memory");
            while (come < target);
        }
        __syncwarp();
    }
};

/* ---- products ---- */

struct work { int32_t tiles, cols; };

/* Number i of the run. */
template <typename T> static __device__ __forceinline__ work work_of(const stream_args<T> &a, int32_t i) {
    const rv_stream_layer &l = a.layer[i / PRODUCTS];
    switch (i % PRODUCTS) {
    case IN: return { (a.q_width + (l.q_norm ? 0 : 2 * a.kv_width)) / TILE, a.hidden };
    case O: return { a.hidden / TILE, a.q_width };
    case GATE_UP: return { 2 * a.ffn / TILE, a.hidden };
    default: return { a.hidden / TILE, a.ffn };
    }
}

static __device__ __forceinline__ int32_t mark(int32_t k) { return (k / hand::SLOTS + 1 & 127) << 24; }
static __device__ __forceinline__ void begin(hand &h, int32_t stages) {
    for (int32_t k = 0; k < hand::SLOTS; k++) h.of[k] = 0;
    for (int32_t s = 0; s < stages; s++) {
        barrier_open(&h.full[s], 1);
        barrier_open(&h.empty[s], WARPS);
    }
    barriers_opened();
}
static __device__ __forceinline__ void say(hand &h, int32_t k, int32_t place) { atomicExch(&h.of[k % hand::SLOTS], mark(k) | place); }
/* The place of a block's k-th tile, once it is known. */
static __device__ __forceinline__ int32_t known(hand &h, int32_t k) {
    int32_t v = 0;
    if (threadIdx.x % 32 == 0)
        do v = atomicOr(&h.of[k % hand::SLOTS], 0);
        while ((v & 127 << 24) != mark(k));
    return __shfl_sync(~0u, v, 0) & ((1 << 24) - 1);
}

/* All warps' pieces of a step: 64 columns of each of 8 slices, 16 rows of them, slice after slice. */
static __device__ __forceinline__ void copy_step(void *to, const CUtensorMap *map, int32_t column, int32_t row, uint64_t *bar, uint64_t policy) {
    asm volatile("cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, {%2, %3, %4}], [%5], %6;"
                 ::"r"(shared_address(to)), "l"(map), "r"(column), "r"(row), "r"(0), "r"(shared_address(bar)), "l"(policy) : "memory");
}

/* One thread: the weights of all tiles that this block draws. */
template <typename T, int STAGES> static __device__ __forceinline__ void ask(const stream_args<T> &a, hand &h, uint4 *ring) {
    enum { LATE = 2,                     /* steps before a tile's end: when the next one is drawn */
           TOGETHER = 2 };               /* steps asked for at once                             */
    const uint64_t policy = read_once();
    int32_t i = 0, first = 0, stage = 0, place = (int32_t)blockIdx.x;
    uint32_t parity = 1;
    work p = work_of(a, 0);
    say(h, 0, place);
#pragma unroll 1
    for (int32_t k = 0;; k++) {
        while (place - first >= p.tiles) {
            first += p.tiles;
            if (++i == a.layers * PRODUCTS) return;
            p = work_of(a, i);
        }
        const CUtensorMap *map = &a.map[i / PRODUCTS][i % PRODUCTS];
        const int32_t steps = p.cols / DEPTH / WARPS, row = (place - first) * TILE;
        int32_t drawn = 0;
#pragma unroll 1
        for (int32_t step = 0; step < steps; step++) {
            if (step == (steps > LATE ? steps - LATE : 0)) drawn = (int32_t)gridDim.x + atomicAdd(a.gate + 2, 1);
            if (step % TOGETHER == 0)        /* neighbours in memory are asked for one after the other */
                for (int32_t j = 0, s = stage, next = (int32_t)parity; j < TOGETHER && step + j < steps; j++) {
                    barrier_wait(&h.empty[s], (uint32_t)next);
                    if (++s == STAGES) s = 0, next ^= 1;
                }
            barrier_expect(&h.full[stage], STAGE * 16);
            copy_step(ring + stage * STAGE, map, step * DEPTH, row, &h.full[stage], policy);
            if (++stage == STAGES) {
                stage = 0;
                parity ^= 1;
            }
        }
        place = drawn;
        say(h, k + 1, place);
    }
}

/* One warp: adds up the warps' sums and writes what becomes of them. */
template <typename T> static __device__ __forceinline__ void finish(const stream_args<T> &a, const rv_stream_layer &l, int32_t kind, const tile_sums &sums, int32_t tile, float old) {
    const int32_t lane = (int32_t)threadIdx.x;
    args e = {};
    if (kind == GATE_UP) {
        const int32_t r = lane % RV_CUDA_GATE_BLOCK, n = lane / RV_CUDA_GATE_BLOCK;
        e.out = a.ff;
        e.out_ld = a.ff_ld;
        if (n < a.n) finish_one<T, T, rv_few::RV_FEW_SWIGLU>(e, tile * TILE + r, n, sums.sum(r, n), sums.sum(r + RV_CUDA_GATE_BLOCK, n), 0);
        return;
    }
    const int32_t r = lane % TILE, n = lane / TILE;
    if (n >= a.n) return;
    const float v = sums.sum(r, n);
    if (kind == IN) {
        e.out = a.qkv;
        e.out_ld = a.qkv_ld;
        finish_one<T, T, rv_few::RV_FEW_STORE>(e, tile * TILE + r, n, v, 0, 0);
        return;
    }
    e.out = a.x;
    e.out_ld = a.x_ld;
    e.scale = kind == O ? l.attn_gate : l.mlp_gate;
    e.row_scale = kind == DOWN && l.q_norm ? a.row_on : NULL;
    finish_one<T, float, rv_few::RV_FEW_ADD>(e, tile * TILE + r, n, v, 0, old);
}

/* The rows that a product multiplies, in shared memory; behind the gate. */
template <typename T, typename R>
static __device__ __forceinline__ const T *bring_rows(const stream_args<T> &a, const rv_stream_layer &l, int32_t kind, uint4 *narrow, uint4 *wide, float *shared, R ready) {
    args e = {};
    e.n = a.n;
    if (kind == IN || kind == GATE_UP) {
        e.x = anew(a.x);
        e.x_ld = a.x_ld;
        e.cols = a.hidden;
        e.norm = kind == IN ? l.norm1 : l.norm2;
        e.eps = a.eps;
        norm_rows<T>(e, (T *)narrow, shared, ready);
        return (const T *)narrow;
    }
    e.x = anew(kind == O ? a.attend[0].out : a.ff);
    e.x_ld = kind == O ? a.attend[0].out_ld : a.ff_ld;
    e.cols = kind == O ? a.q_width : a.ffn;
    share_rows<T>(e, kind == O ? narrow : wide, ready);
    return (const T *)(kind == O ? narrow : wide);
}

template <typename T, int STAGES>
static __device__ __forceinline__ void multiply(const stream_args<T> &a, hand &h, const uint4 *ring, tile_sums *sums, uint4 *narrow, uint4 *wide) {
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    int32_t first = 0, k = 0, turn = 0, stage = 0, place = known(h, 0);
    uint32_t parity = 0;
    ring += warp * PIECE + g * 8;
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const int32_t kind = i % PRODUCTS;
        const rv_stream_layer &l = a.layer[i / PRODUCTS];
        const work p = work_of(a, i);
        const int32_t steps = p.cols / DEPTH / WARPS;
        const T *const x = bring_rows(a, l, kind, narrow, wide, (float *)sums, [i] { if (i) await<GO, GATE_THREADS>(); }) + g * p.cols + warp * steps * DEPTH + t * 8;
#pragma unroll 1
        for (; place - first < p.tiles; place = known(h, ++k), turn ^= 1) {
            const int32_t tile = place - first;
            float acc[4] = {}, old = 0;
            if (warp == 0 && (kind == O || kind == DOWN) && lane / TILE < a.n) old = __ldcg(a.x + lane / TILE * a.x_ld + tile * TILE + lane % TILE);
#pragma unroll 1
            for (int32_t step = 0; step < steps; step++) {
                uint4 b[2], w[2][2];
#pragma unroll
                for (int32_t c = 0; c < 2; c++) {
                    b[c] = make_uint4(0, 0, 0, 0);
                    if (g < a.n) b[c] = *(const uint4 *)(x + step * DEPTH + c * 32);
                }
                barrier_wait(&h.full[stage], parity);
#pragma unroll
                for (int32_t c = 0; c < 2; c++)
#pragma unroll
                    for (int32_t r = 0; r < 2; r++) w[c][r] = ring[stage * STAGE + r * 64 + ((c * 4 + t) ^ g)];
                __syncwarp();            /* every lane has read the stage: it may be filled again */
                if (lane == 0) barrier_arrive(&h.empty[stage]);
                if (++stage == STAGES) {
                    stage = 0;
                    parity ^= 1;
                }
#pragma unroll
                for (int32_t c = 0; c < 2; c++) {
                    mma(acc, w[c][0].x, w[c][1].x, w[c][0].y, w[c][1].y, b[c].x, b[c].y, T());
                    mma(acc, w[c][0].z, w[c][1].z, w[c][0].w, w[c][1].w, b[c].z, b[c].w, T());
                }
            }
            if (t == 0) {
                sums[turn].of[warp][g] = make_float2(acc[0], acc[1]);
                sums[turn].of[warp][g + 8] = make_float2(acc[2], acc[3]);
            }
            meet();                      /* whoever still reads the other sums has not come to its next one */
            if (warp == 0) finish(a, l, kind, sums[turn], tile, old);
        }
        first += p.tiles;
        if (i + 1 == a.layers * PRODUCTS) break;
        arrive<WORKED, GATE_THREADS>();
        if (kind == DOWN) arrive<FREE, FREE_THREADS>();
    }
    meet();                              /* the last block to leave, for which nobody waits any more, leaves all counters zero */
    if (threadIdx.x == 0 && atomicAdd(a.gate + 1, 1) == (int32_t)gridDim.x - 1) a.gate[0] = a.gate[1] = a.gate[2] = 0;
}

/* ---- attention ---- */

/* One thread of each warp. */
template <typename T> static __device__ __forceinline__ void tell(const stream_args<T> &a, const rv_stream_layer &l, attention_told<T> &to) {
    const int32_t cross = l.q_norm != NULL;
    to.args = a.attend[cross];
    to.args.k = (const T *)l.k;
    to.args.v = (const T *)l.v;
    to.most_splits = a.most_splits[cross];
    rope_args<T> o;
    o.norm = l.q_norm;
    o.eps = a.q_eps;
    if (!cross) {
        o.k = a.qkv + a.q_width;
        o.v = o.k + a.kv_width;
        o.to_k = (T *)l.k;
        o.to_v = (T *)l.v;
        o.ld_k = o.ld_v = a.qkv_ld;
        o.cos_sin = a.cos_sin;
        o.pos = a.pos;
    }
    to.rope = o;
}

/* The u-th place of all rows'; false: there are not so many. */
template <typename T> static __device__ __forceinline__ bool place_of(const attend_args<T> &a, int32_t u, int32_t *row, int32_t *y, int32_t *split) {
    const int32_t blocks = head_blocks(a);
    for (*row = 0; *row < a.rows; ++*row) {
        const int32_t first = a.first ? a.first[*row] : 0, last = a.last[*row];
        const int32_t places = blocks * (last < first ? 1 : last / SPLIT - first / SPLIT + 1);
        if (u < places) {
            *y = u % blocks;
            *split = first / SPLIT + u / blocks;
            return true;
        }
        u -= places;
    }
    return false;
}

/* A block's u-th place; false: it has not so many.  *keys: whether it has any. */
template <typename T> static __device__ __forceinline__ bool block_place(const attention_told<T> &t, int32_t u, decode_place *p, bool *keys) {
    int32_t row, y, split;
    if (!place_of(t.args, (int32_t)blockIdx.x + u * (int32_t)gridDim.x, &row, &y, &split)) return false;
    *keys = find_place(t.args, t.rope, row, y, split, *p);
    return true;
}

/* Asks the L2 cache for all keys and values of a block's places, while queries are still being computed: later they would stand in
 * line behind the weights of the next product. */
template <typename T, int D> static __device__ __forceinline__ void bring_near(const attention_told<T> &t) {
    const int32_t lane = decode_thread() % 32, warp = decode_warp();
    decode_place p;
    bool keys;
#pragma unroll 1
    for (int32_t u = 0; block_place(t, u, &p, &keys); u++)
#pragma unroll 1
        for (int32_t j = 0; keys && j < WARP_KEYS / 32; j++) {
            const int32_t key = tile_key(p, warp, j * 32 / DECODE_TILE) + lane;
            if (key < p.first || key > p.last) continue;
            const int64_t row = key_row(t.args, p.slot, key);
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.args.k + row * t.args.k_ld + p.kv_head * D), "n"(D * (int)sizeof(T)) : "memory");
            asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(t.args.v + row * t.args.v_ld + p.kv_head * D), "n"(D * (int)sizeof(T)) : "memory");
        }
}

/* Joins the rows whose last place was one of the block's: as many at once as a warp has lanes. */
template <typename T, int D>
static __device__ __forceinline__ void join_rows(const stream_args<T> &a, const attention_told<T> &t, attention_room<T, D> &room, int32_t places) {
    const int32_t lane = decode_thread() % 32;
    decode_place p;
    bool keys;
#pragma unroll 1
    for (int32_t from = 0; from < places; from += 32) {
        decode_meet();
        if (decode_warp() == 0) {
            bool last = from + lane < places && block_place(t, from + lane, &p, &keys) && p.splits > 1 && is_last(p, a.partial);
            const uint32_t all = __ballot_sync(~0u, last);
            if (lane == 0) atomicExch(&room.last, all);
        }
        decode_meet();
#pragma unroll 1
        for (uint32_t left = atomicOr(&room.last, 0u); left; left &= left - 1) {
            block_place(t, from + __ffs((int32_t)left) - 1, &p, &keys);
            merge_splits(room.keys, p, parts_of<D>(t.args, p, a.partial, t.most_splits), t.most_splits);
            decode_meet();               /* the room is free again */
        }
    }
}

/* A block's places of a layer. */
template <typename T, int D, typename R>
static __device__ __forceinline__ void attend_layer(const stream_args<T> &a, const rv_stream_layer &l, attention_room<T, D> &room, R ready) {
    bool waited = false, keys = false, more_keys = false;
    auto once = [&] {
        if (!waited) ready();
        waited = true;
    };
    attention_told<T> &t = room.told[decode_warp()];
    decode_place p, more;
    int32_t places = 0;
    if (decode_thread() % 32 == 0) tell(a, l, t);
    __syncwarp();
    bring_near<T, D>(t);
    bool here = block_place(t, 0, &p, &keys);
    if (here && keys) look_up(t.args, room.keys, p, 0);
#pragma unroll 1
    while (here) {
        here = block_place(t, ++places, &more, &more_keys);
        if (here && more_keys) look_up(t.args, room.keys, more, places % 2);
        if (keys) attend_place(t.args, t.rope, room.keys, p, a.partial, t.most_splits, once, [&] { if (here && more_keys) ask_keys(t.args, room.keys, more); });
        else attend_nothing<T, D>(t.args, p);
        decode_meet();                   /* but for keys, the room is free again */
        p = more;
        keys = more_keys;
    }
    once();
    if (places) join_rows(a, t, room, places);
}

template <typename T, int D> static __device__ __forceinline__ void attend_and_keep(const stream_args<T> &a, attention_room<T, D> &room) {
    const bool keeps = decode_warp() == 0;
    gate_keeper gate = { a.gate, 0 };
    auto next_product = [&] {
        await<WORKED, GATE_THREADS>();
        gate.pass();
        arrive<GO, GATE_THREADS>();
    };
#pragma unroll 1
    for (int32_t i = 0; i < a.layers; i++) {
        if (i) await<FREE, FREE_THREADS>();
        attend_layer<T, D>(a, a.layer[i], room, [&] {
            if (keeps) {
                await<WORKED, GATE_THREADS>();
                gate.pass();
            }
            decode_meet();
        });
        decode_meet();                   /* all have stored what they computed */
        if (keeps) {
            gate.pass();
            arrive<GO, GATE_THREADS>();
            if (i + 1 == a.layers) let_next_start();
            next_product();
            next_product();
            if (i + 1 < a.layers) next_product();
        }
    }
}

#endif

/* ---- the kernel ---- */

/* Shared memory: weights, sums, what lies between warps, narrow rows, wide rows or attention's room. */
template <typename T, int D, int STAGES> static __global__ void __launch_bounds__(ALL_THREADS, 1) stream90_kernel(const __grid_constant__ stream_args<T> a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    uint4 *ring = memory + (1024 - shared_address(memory) % 1024) % 1024 / 16;
    tile_sums *sums = (tile_sums *)(ring + STAGES * STAGE);
    hand *h = (hand *)(sums + 2);
    uint4 *narrow = (uint4 *)(h + 1), *wide = narrow + a.narrow / 16;
    if (threadIdx.x == 0) begin(*h, STAGES);
    __syncthreads();
    if (threadIdx.x < THREADS) {
        give_registers<120>();
        multiply<T, STAGES>(a, *h, ring, sums, narrow, wide);
    } else if (threadIdx.x < THREADS + ATTENDING) {
        take_registers<232>();
        attend_and_keep<T, D>(a, *(attention_room<T, D> *)wide);
    } else {
        give_registers<32>();
        if (threadIdx.x == THREADS + ATTENDING) ask<T, STAGES>(a, *h, ring);
    }
#endif
}

/* ---- launching ---- */

static_assert(sizeof(stream_args<__half>) <= 32764, "a kernel's parameters");

typedef CUresult (*encode_function)(CUtensorMap *, CUtensorMapDataType, cuuint32_t, void *, const cuuint64_t *, const cuuint64_t *, const cuuint32_t *,
                                    const cuuint32_t *, CUtensorMapInterleave, CUtensorMapSwizzle, CUtensorMapL2promotion, CUtensorMapFloatOOBfill);

/* A weight as copy_step sees it: columns of a slice, rows, slices. */
static cudaError_t describe(encode_function encode, CUtensorMap *map, rv_dtype type, const void *w, int32_t rows, int32_t cols) {
    const cuuint64_t slice = (cuuint64_t)cols / WARPS, size[3] = { slice, (cuuint64_t)rows, WARPS }, stride[2] = { (cuuint64_t)cols * 2, slice * 2 };
    const cuuint32_t box[3] = { DEPTH, TILE, WARPS }, steps[3] = { 1, 1, 1 };
    CUresult r = encode(map, type == RV_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 3, (void *)w, size, stride, box, steps,
                        CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}

template <typename T> static cudaError_t describe_all(const rv_stream *p, stream_args<T> *a) {
    void *found = NULL;
    cudaDriverEntryPointQueryResult how;
#if CUDART_VERSION >= 12050
    cudaError_t e = cudaGetDriverEntryPointByVersion("cuTensorMapEncodeTiled", &found, 12000, cudaEnableDefault, &how);
#else
    cudaError_t e = cudaGetDriverEntryPoint("cuTensorMapEncodeTiled", &found, cudaEnableDefault, &how);
#endif
    if (!e && !found) e = cudaErrorNotSupported;
    for (int32_t i = 0; i < p->n; i++) {
        const rv_stream_layer *l = &p->layer[i];
        const int32_t in = a->q_width + (l->q_norm ? 0 : 2 * a->kv_width);
        encode_function encode = (encode_function)found;
        if (!e) e = describe(encode, &a->map[i][IN], p->qkv.type, l->in, in, a->hidden);
        if (!e) e = describe(encode, &a->map[i][O], p->qkv.type, l->o, a->hidden, a->q_width);
        if (!e) e = describe(encode, &a->map[i][GATE_UP], p->qkv.type, l->gate_up, 2 * a->ffn, a->hidden);
        if (!e) e = describe(encode, &a->map[i][DOWN], p->qkv.type, l->down, a->hidden, a->ffn);
    }
    return e;
}

template <typename T> static stream_args<T> args_of(const rv_stream *p) {
    const rv_attention *any = p->self.q.rows ? &p->self : &p->cross;
    stream_args<T> a;
    a.x = (float *)p->x.data;
    a.qkv = (T *)p->qkv.data;
    a.ff = (T *)p->ff.data;
    a.x_ld = p->x.ld;
    a.qkv_ld = p->qkv.ld;
    a.ff_ld = p->ff.ld;
    a.attend[0] = args_of<T>(p->self.q.rows ? &p->self : any);
    a.attend[1] = args_of<T>(p->cross.q.rows ? &p->cross : any);
    a.most_splits[0] = splits_of(p->self.longest);
    a.most_splits[1] = splits_of(p->cross.longest);
    a.cos_sin = p->cos_sin;
    a.row_on = p->row_on;
    a.pos = p->pos;
    a.partial = p->partial;
    a.gate = (int32_t *)p->partial + RV_CUDA_ATTEND_COUNTERS;
    a.eps = p->eps;
    a.q_eps = p->q_eps;
    a.n = p->x.rows;
    a.layers = p->n;
    a.hidden = p->x.cols;
    a.q_width = any->q.cols;
    a.kv_width = any->kv.k.cols;
    a.ffn = p->ff.cols;
    memcpy(a.layer, p->layer, sizeof a.layer);
    return a;
}

/* Bytes of shared memory beside the rings. */
template <typename T> static int32_t fixed_bytes(stream_args<T> *a, int32_t d) {
    const int32_t room = d == 64 ? (int32_t)sizeof(attention_room<T, 64>) : (int32_t)sizeof(attention_room<T, 128>), row = a->n * (int32_t)sizeof(T);
    a->narrow = row * (a->hidden > a->q_width ? a->hidden : a->q_width);
    a->wide = row * a->ffn > room ? row * a->ffn : room;
    return 1024 + (int32_t)sizeof(hand) + 2 * (int32_t)sizeof(tile_sums) + a->narrow + a->wide;
}
static int32_t stages_of(int32_t fixed) {
    int32_t room = 0;
    int device = 0, together = 0;
    if (room_of(false, &room) || cudaGetDevice(&device) || cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, device) || !together) return 0;
    const int32_t fit = (room - fixed) / (STAGE * 16);
    return fit >= 9 ? 9 : fit >= 8 ? 8 : fit >= 4 ? 4 : 0;
}

template <typename T, int D, int STAGES> static cudaError_t launch(const stream_args<T> &a, int32_t fixed, int32_t multiprocessors, cudaStream_t stream) {
    auto kernel = stream90_kernel<T, D, STAGES>;
    const int32_t bytes = fixed + STAGES * STAGE * 16;
    cudaLaunchAttribute together;
    cudaLaunchConfig_t config = {};
    together.id = cudaLaunchAttributeCooperative;
    together.val.cooperative = 1;
    config.gridDim = dim3((unsigned)multiprocessors);
    config.blockDim = dim3(ALL_THREADS);
    config.dynamicSmemBytes = (size_t)bytes;
    config.stream = stream;
    config.attrs = &together;
    config.numAttrs = 1;
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (!e) e = cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    return e ? e : cudaLaunchKernelEx(&config, kernel, a);
}

template <typename T, int D> static cudaError_t launch_stages(const stream_args<T> &a, int32_t fixed, int32_t multiprocessors, cudaStream_t stream) {
    switch (stages_of(fixed)) {
    case 9: return launch<T, D, 9>(a, fixed, multiprocessors, stream);
    case 8: return launch<T, D, 8>(a, fixed, multiprocessors, stream);
    case 4: return launch<T, D, 4>(a, fixed, multiprocessors, stream);
    }
    return cudaErrorInvalidValue;
}

template <typename T> static cudaError_t launch_of(const rv_stream *p, cudaStream_t stream) {
    stream_args<T> a = args_of<T>(p);
    const int32_t d = a.attend[0].head_dim, fixed = fixed_bytes(&a, d);
    cudaError_t e = describe_all(p, &a);
    return e ? e : d == 64 ? launch_stages<T, 64>(a, fixed, p->multiprocessors, stream) : launch_stages<T, 128>(a, fixed, p->multiprocessors, stream);
}

static bool kind_fits(const rv_stream *p, const rv_attention *a) {
    const int32_t d = a->q.rows ? a->q.cols / a->heads : 0, group = a->q.rows ? a->heads / a->kv_heads : 0;
    return !a->q.rows || (decode_takes(a) && (int64_t)a->kv_heads * ((group + HEADS - 1) / HEADS) * a->q.rows <= RV_CUDA_ATTEND_COUNTERS &&
                          splits_of(a->longest) <= MOST_SPLITS && rows_are_aligned(a->out) && a->q.rows == p->x.rows && d * a->kv_heads == a->kv.k.cols);
}

bool rv_cuda_stream_takes(const rv_stream *p) {
    const rv_attention *a = p->self.q.rows ? &p->self : &p->cross;
    if (p->n < 1 || p->n > RV_STREAM_LAYERS || p->x.rows < 1 || p->x.rows > ROWS || !kind_fits(p, &p->self) || !kind_fits(p, &p->cross)) return false;
    if (p->x.cols <= RV_CUDA_NORM_THREADS || p->x.cols > RV_CUDA_NORM_MOST || !rows_are_aligned(p->ff) || !rows_are_aligned(p->qkv)) return false;
    if (p->x.cols % (WARPS * DEPTH) || a->q.cols % (WARPS * DEPTH) || p->ff.cols % (WARPS * DEPTH) || a->kv.k.cols % TILE) return false;   /* slices of equal, whole steps */
    stream_args<__half> g = args_of<__half>(p);
    return stages_of(fixed_bytes(&g, a->q.cols / a->heads)) > 0;
}

cudaError_t rv_cuda_stream(const rv_stream *p, cudaStream_t stream) {
    return p->qkv.type == RV_F16 ? launch_of<__half>(p, stream) : launch_of<__nv_bfloat16>(p, stream);
}

RV_CUDA_CLAMPED(stream90)
