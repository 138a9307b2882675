/* stream.cu - decoder layers of one or two rows, many in one launch: weights never stop coming.
 *
 * The one idea: a block per multiprocessor stays for the whole run.  Its warps' rings of weights (few.cu) do not end with a
 * product: what is asked for while the last tiles of one are multiplied belongs to the next one already, since weights depend on
 * nothing.  Between products blocks wait for one another at a gate, and meanwhile the rings fill: 140 KB a multiprocessor, six
 * microseconds of the whole memory's speed.
 *
 * Two kinds of warps.  The first eight multiply, to the order of few.cu's sums.  The last four attend (decode.cuh): they ask for a layer's
 * keys while its queries are still being computed, and the first of them keeps the gate, so that nobody who multiplies waits for
 * a fence.  Tiles, and attention's places, are dealt out in one round from product to product: who has one more of this has one
 * less of the next.
 */
#include "kernels/cuda/decode.cuh"
#include "kernels/cuda/few.cuh"

enum { ALL_THREADS = THREADS + DECODE_THREADS, ROWS = RV_CUDA_NORM_ROWS,
       STAGE = TILE * DEPTH * 2 / 16 /* uint4: a warp's 16 rows of 128 bytes */,
       IN = 0, O, GATE_UP, DOWN, PRODUCTS };

template <typename T> struct stream_args {
    float *x;
    T *qkv, *ff;
    int64_t x_ld, qkv_ld, ff_ld;
    attend_args<T> attend[2];            /* self, cross                                         */
    int32_t most_splits[2];
    const float *cos_sin, *row_on;
    const int32_t *pos;
    void *partial;
    int32_t *gate;                       /* who has come to the gates so far; who has left       */
    float eps, q_eps;
    int32_t n, layers, hidden, q_width, kv_width, ffn;
    int32_t narrow, wide;                /* bytes of shared memory for rows of hidden or q_width; of ffn, or for attention */
    rv_stream_layer layer[RV_STREAM_LAYERS];
};

/* ---- between warps ---- */

/* WORKED: products are done (those who multiply to the gate's keeper); GO: the gate is open (back); FREE: attention may
 * have its room again. */
enum { WORKED = 3, GO, FREE, GATE_THREADS = THREADS + 32 };
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
    /* The last to leave leaves both counters zero. */
    __device__ __forceinline__ void leave() {
        if (threadIdx.x % 32 == 0 && atomicAdd(gate + 1, 1) == (int32_t)gridDim.x - 1) gate[0] = gate[1] = 0;
    }
};

/* ---- products ---- */

struct product { const void *w; int32_t tiles, cols; };

/* Number i of the run. */
template <typename T> static __device__ __forceinline__ product product_of(const stream_args<T> &a, int32_t i) {
    const rv_stream_layer &l = a.layer[i / PRODUCTS];
    switch (i % PRODUCTS) {
    case IN: return { l.in, (a.q_width + (l.q_norm ? 0 : 2 * a.kv_width)) / TILE, a.hidden };
    case O: return { l.o, a.hidden / TILE, a.q_width };
    case GATE_UP: return { l.gate_up, 2 * a.ffn / TILE, a.hidden };
    default: return { l.down, a.hidden / TILE, a.ffn };
    }
}

/* A block's turn in the round: `before` tiles have been dealt out. */
static __device__ __forceinline__ int32_t first_of(int32_t before) {
    int32_t i = (int32_t)blockIdx.x - before;
    return i < 0 ? i + (int32_t)gridDim.x : i;
}
static __device__ __forceinline__ int32_t dealt(int32_t before, int32_t tiles) { return (before + tiles) % (int32_t)gridDim.x; }

/* The place up to which a warp has asked for weights: product after product, in each its tiles, in each the steps of its slice. */
template <typename T, int STAGES> struct weights_ahead {
    const stream_args<T> &a;
    uint4 *ring;
    int32_t warp, lane, i, before, tiles, tile, step, from, to, stage;
    int64_t four_rows;
    const char *w, *next;                /* of this lane: the product's, of the step's first 4 rows */
    uint64_t policy;

    __device__ __forceinline__ weights_ahead(const stream_args<T> &g, uint4 *memory)
        : a(g), warp((int32_t)threadIdx.x / 32), lane((int32_t)threadIdx.x % 32), i(-1), before(0), tiles(0), stage(0), policy(read_once()) {
        ring = memory + warp * STAGES * STAGE;
        next_product();
#pragma unroll 1
        for (int32_t k = 0; k < STAGES; k++) fetch();
    }
    __device__ __forceinline__ void next_product() {
        do {
            before = dealt(before, tiles);
            if (++i == a.layers * PRODUCTS) return;
            const product p = product_of(a, i);
            const int32_t steps = p.cols / DEPTH;
            tiles = p.tiles;
            tile = first_of(before);
            from = step = steps * warp / WARPS;
            to = steps * (warp + 1) / WARPS;
            four_rows = (int64_t)p.cols * 8;
            w = (const char *)p.w + (int64_t)(lane / 8) * p.cols * 2 + (from * DEPTH + lane % 8 * 8) * 2;
        } while (tile >= tiles || from == to);
        next = w + tile * 4 * four_rows;
    }
    /* Starts the copies of the next step into the stage that was read last; a group even when there is none. */
    __device__ __forceinline__ void fetch() {
        if (i < a.layers * PRODUCTS) {
            const int32_t c = lane % 8, r = lane / 8;
            const uint32_t at = shared_address(ring + stage * STAGE + r * 8 + w_column(r, c));
#pragma unroll
            for (int32_t k = 0; k < TILE / 4; k++) copy16_once(at + (uint32_t)k * 512, next + k * four_rows, true, policy);
            next += DEPTH * 2;
            if (++step == to) {
                step = from;
                tile += (int32_t)gridDim.x;
                next = w + tile * 4 * four_rows;
                if (tile >= tiles) next_product();
            }
        }
        copies_commit();
        if (++stage == STAGES) stage = 0;
    }
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
        e.x = a.x;
        e.x_ld = a.x_ld;
        e.cols = a.hidden;
        e.norm = kind == IN ? l.norm1 : l.norm2;
        e.eps = a.eps;
        norm_rows(e, (T *)narrow, shared, ready);
        return (const T *)narrow;
    }
    e.x = kind == O ? a.attend[0].out : a.ff;
    e.x_ld = kind == O ? a.attend[0].out_ld : a.ff_ld;
    e.cols = kind == O ? a.q_width : a.ffn;
    share_rows<T>(e, kind == O ? narrow : wide, ready);
    return (const T *)(kind == O ? narrow : wide);
}

template <typename T, int STAGES>
static __device__ __forceinline__ void multiply(const stream_args<T> &a, uint4 *ring, tile_sums *sums, uint4 *narrow, uint4 *wide) {
    const int32_t warp = (int32_t)threadIdx.x / 32, lane = (int32_t)threadIdx.x % 32, g = lane / 4, t = lane % 4;
    weights_ahead<T, STAGES> w(a, ring);
    int32_t before = 0, turn = 0;
#pragma unroll 1
    for (int32_t i = 0; i < a.layers * PRODUCTS; i++) {
        const int32_t kind = i % PRODUCTS;
        const rv_stream_layer &l = a.layer[i / PRODUCTS];
        const product p = product_of(a, i);
        const int32_t from = p.cols / DEPTH * warp / WARPS, to = p.cols / DEPTH * (warp + 1) / WARPS;
        const T *x = bring_rows(a, l, kind, narrow, wide, (float *)sums, [i] { if (i) await<GO, GATE_THREADS>(); }) + g * p.cols + t * 8;
#pragma unroll 1
        for (int32_t tile = first_of(before); tile < p.tiles; tile += (int32_t)gridDim.x, turn ^= 1) {
            float acc[4] = {}, old = 0;
            if (warp == 0 && (kind == O || kind == DOWN) && lane / TILE < a.n) old = __ldcg(a.x + lane / TILE * a.x_ld + tile * TILE + lane % TILE);
#pragma unroll 1
            for (int32_t step = from; step < to; step++) {
                copies_wait<STAGES - 1>();
                __syncwarp();
                uint4 b[2], p16[2][2];
#pragma unroll
                for (int32_t c = 0; c < 2; c++) {
                    b[c] = make_uint4(0, 0, 0, 0);
                    if (g < a.n) b[c] = *(const uint4 *)(x + step * DEPTH + c * 32);
#pragma unroll
                    for (int32_t h = 0; h < 2; h++) p16[c][h] = w.ring[w.stage * STAGE + (h * 8 + g) * 8 + w_column(g, c * 4 + t)];
                }
                __syncwarp();            /* every lane has read the stage: fill it again */
                w.fetch();
#pragma unroll
                for (int32_t c = 0; c < 2; c++) {
                    mma(acc, p16[c][0].x, p16[c][1].x, p16[c][0].y, p16[c][1].y, b[c].x, b[c].y, T());
                    mma(acc, p16[c][0].z, p16[c][1].z, p16[c][0].w, p16[c][1].w, b[c].z, b[c].w, T());
                }
            }
            if (t == 0) {
                sums[turn].of[warp][g] = make_float2(acc[0], acc[1]);
                sums[turn].of[warp][g + 8] = make_float2(acc[2], acc[3]);
            }
            meet();                      /* whoever still reads the other sums has not come to its next one */
            if (warp == 0) finish(a, l, kind, sums[turn], tile, old);
        }
        before = dealt(before, p.tiles);
        if (i + 1 == a.layers * PRODUCTS) break;
        arrive<WORKED, GATE_THREADS>();
        if (kind == DOWN) arrive<FREE, ALL_THREADS>();
    }
    copies_wait<0>();
}

/* ---- attention ---- */

/* What attention is told, in shared memory: registers have no room for it. */
template <typename T, int D> struct attention_room {
    decode_room<D> keys;
    attend_args<T> args;
    rope_args<T> rope;
    int32_t most_splits;
};

template <typename T, int D> static __device__ __forceinline__ void tell(const stream_args<T> &a, const rv_stream_layer &l, attention_room<T, D> &room) {
    const int32_t cross = l.q_norm != NULL;
    room.args = a.attend[cross];
    room.args.k = (const T *)l.k;
    room.args.v = (const T *)l.v;
    room.most_splits = a.most_splits[cross];
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
    room.rope = o;
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

/* A block's places of a layer. */
template <typename T, int D, typename R>
static __device__ __forceinline__ void attend_layer(const stream_args<T> &a, const rv_stream_layer &l, attention_room<T, D> &room, int32_t before, R ready) {
    const attend_args<T> &t = room.args;
    const rope_args<T> &o = room.rope;
    bool waited = false;
    auto once = [&] {
        if (!waited) ready();
        waited = true;
    };
    int32_t row, y, split;
    if (decode_thread() == 0) tell(a, l, room);
    decode_meet();
#pragma unroll 1
    for (int32_t u = first_of(before); place_of(t, u, &row, &y, &split); u += (int32_t)gridDim.x) {
        decode_place p;
        if (find_place(t, o, row, y, split, p)) attend_place(t, o, room.keys, p, a.partial, room.most_splits, once);
        else attend_nothing<T, D>(t, p);
        decode_meet();                   /* the room is free again */
    }
    once();
}

template <typename T, int D> static __device__ __forceinline__ void attend_and_keep(const stream_args<T> &a, attention_room<T, D> &room) {
    const bool keeps = decode_warp() == 0;
    gate_keeper gate = { a.gate, 0 };
    int32_t before = 0;
    auto next_product = [&] {
        await<WORKED, GATE_THREADS>();
        gate.pass();
        arrive<GO, GATE_THREADS>();
    };
#pragma unroll 1
    for (int32_t i = 0; i < a.layers; i++) {
        if (i) await<FREE, ALL_THREADS>();
        before = dealt(before, product_of(a, i * PRODUCTS).tiles);
        attend_layer<T, D>(a, a.layer[i], room, before, [&] {
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
        for (int32_t k = O; k < PRODUCTS; k++) before = dealt(before, product_of(a, i * PRODUCTS + k).tiles);
    }
    if (keeps) gate.leave();
}

/* ---- the kernel ---- */

/* Attention wants more registers than an equal share (sm_90a). */
static __device__ __forceinline__ void fewer_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.dec.sync.aligned.u32 128;");
#endif
}
static __device__ __forceinline__ void more_registers() {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    asm volatile("setmaxnreg.inc.sync.aligned.u32 240;");
#endif
}

/* Shared memory: rings, sums, narrow rows, wide rows or attention's room. */
template <typename T, int D, int STAGES> static __global__ void __launch_bounds__(ALL_THREADS, 1) stream_kernel(const __grid_constant__ stream_args<T> a) {
    extern __shared__ uint4 memory[];
    tile_sums *sums = (tile_sums *)(memory + WARPS * STAGES * STAGE);
    uint4 *narrow = (uint4 *)(sums + 2), *wide = narrow + a.narrow / 16;
    if (threadIdx.x < THREADS) {
        fewer_registers();
        multiply<T, STAGES>(a, memory, sums, narrow, wide);
    } else {
        more_registers();
        attend_and_keep<T, D>(a, *(attention_room<T, D> *)wide);
    }
}

/* ---- launching ---- */

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
    return 2 * (int32_t)sizeof(tile_sums) + a->narrow + a->wide;
}
static int32_t stages_of(int32_t fixed) {
    int32_t room = 0;
    int device = 0, together = 0;
    if (room_of(false, &room) || cudaGetDevice(&device) || cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, device) || !together) return 0;
    const int32_t fit = (room - fixed) / (WARPS * STAGE * 16);
    return fit >= 9 ? 9 : fit >= 8 ? 8 : fit >= 4 ? 4 : 0;
}

template <typename T, int D, int STAGES> static cudaError_t launch(const stream_args<T> &a, int32_t fixed, int32_t multiprocessors, cudaStream_t stream) {
    auto kernel = stream_kernel<T, D, STAGES>;
    const int32_t bytes = fixed + WARPS * STAGES * STAGE * 16;
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
    return d == 64 ? launch_stages<T, 64>(a, fixed, p->multiprocessors, stream) : launch_stages<T, 128>(a, fixed, p->multiprocessors, stream);
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
    if (p->x.cols % DEPTH || a->q.cols % DEPTH || a->kv.k.cols % DEPTH || p->ff.cols % DEPTH) return false;
    stream_args<__half> g = args_of<__half>(p);
    return stages_of(fixed_bytes(&g, a->q.cols / a->heads)) > 0;
}

cudaError_t rv_cuda_stream(const rv_stream *p, cudaStream_t stream) {
    return p->qkv.type == RV_F16 ? launch_of<__half>(p, stream) : launch_of<__nv_bfloat16>(p, stream);
}

RV_CUDA_CLAMPED(stream)
