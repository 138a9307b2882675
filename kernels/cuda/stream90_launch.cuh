/* stream90_launch.cuh - the kernel of decoder layers in one launch, for any format (stream90.cuh), and its launch. */
#ifndef RV_KERNELS_CUDA_STREAM90_LAUNCH_CUH
#define RV_KERNELS_CUDA_STREAM90_LAUNCH_CUH
#include <algorithm>
#include "kernels/cuda/stream90_attend.cuh"

/* ---- the kernel ---- */

enum { RING_LINES = 1024 };              /* bytes: stages begin at multiples of it, as the swizzle has them */

/* Shared memory: weights, of which the last stages are where attention begins; sums, what lies between warps, narrow and wide rows. */
template <typename F> struct stream_places {
    stream_rooms<F> rooms;
    char *ring, *attention, *beside;
    __device__ __forceinline__ stream_places(const stream_args<F> &a, uint4 *memory) {
        ring = (char *)memory + (F::ROWS_FIRST ? a.narrow : 0);
        ring += (RING_LINES - shared_address(ring) % RING_LINES) % RING_LINES;
        attention = ring + (a.stages - a.lent) * F::STEP;
        beside = attention + a.attention;
        rooms.sums = (typename F::sums *)(beside + a.stages * F::BESIDE);
        rooms.h = (hand *)(rooms.sums + SUMS);
        rooms.narrow = F::ROWS_FIRST ? memory : (uint4 *)(rooms.h + 1);
        rooms.wide = a.lent ? rooms.narrow + a.narrow / 16 : (uint4 *)attention;
    }
};

template <typename F, int D> static __global__ void __launch_bounds__(ALL_THREADS, 1) stream90_kernel(const __grid_constant__ stream_args<F> a) {
#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    extern __shared__ uint4 memory[];
    if (shared_address(memory) % RING_LINES) __trap();     /* as share_out_for takes it            */
    auto places = [&] {                  /* anew for everyone: they are not worth anybody's registers before he begins */
        int32_t none = 0;
        asm volatile("" : "+r"(none));
        return stream_places<F>(a, memory + none);
    };
    {
        const stream_places<F> at = places();
        if (threadIdx.x == 0) begin(*at.rooms.h, a.stages);
        if (threadIdx.x < 2) {
            int32_t row, y, split;
            at.rooms.h->attends[threadIdx.x] = place_of(a.attend[threadIdx.x], (int32_t)blockIdx.x, &row, &y, &split);
            tell_rows(a.attend[threadIdx.x], threadIdx.x ? NULL : a.pos, at.rooms.h->rows[threadIdx.x]);
        }
        __syncthreads();
        for (int32_t i = 0; i < 4; i++) {
            const int32_t after = at.rooms.h->rows[i / 2].parts - 1 - (int32_t)blockIdx.x, floats = part_floats(a.attend[0], D);
            if (after >= 0) forget_parts(a, i % 2, after / (int32_t)gridDim.x + 1, floats, (int32_t)threadIdx.x, ALL_THREADS);
        }
        prepare(a, at.rooms);
    }
    __syncthreads();
    if (threadIdx.x < THREADS) {
        give_registers<120>();
        const stream_places<F> at = places();
        multiply(a, at.ring, at.beside, at.rooms);
    } else if (threadIdx.x < THREADS + ATTENDING) {
        take_registers<224>();
        const stream_places<F> at = places();
        attend(a, at.rooms, *(attention_room<typename F::T, D> *)at.attention);
    } else {
        give_registers<48>();
        const stream_places<F> at = places();
        if (threadIdx.x < THREADS + ATTENDING + 32) finish(a, at.rooms);
        else if (threadIdx.x < THREADS + ATTENDING + 64) ask(a, *at.rooms.h, at.ring, at.beside);
        else help(a, at.ring, at.rooms);
    }
#endif
}

/* ---- launching ---- */

/* Of the second place of rows of ffn, which lies before stream_args::fresh. */
static int64_t ff_bytes(const rv_stream *p) { return (int64_t)p->x.rows * p->ff.cols * 2; }

template <typename F> static stream_args<F> args_of(const rv_stream *p) {
    typedef typename F::T T;
    const rv_attention *any = p->self.q.rows ? &p->self : &p->cross;
    stream_args<F> a;
    a.x = (float *)p->x.data;
    a.fresh = (float *)((char *)p->partial + RV_CUDA_PARTIAL_BYTES - FRESH_BYTES);
    a.qkv = (T *)p->qkv.data;
    a.ff[0] = (T *)p->ff.data;
    a.ff[1] = (T *)((char *)a.fresh - ff_bytes(p));
    a.x_ld = p->x.ld;
    a.fresh_ld = RV_CUDA_NORM_MOST;
    a.qkv_ld = p->qkv.ld;
    a.ff_ld[0] = p->ff.ld;
    a.ff_ld[1] = p->ff.cols;
    a.attend[0] = args_of<T>(p->self.q.rows ? &p->self : any);
    a.attend[1] = args_of<T>(p->cross.q.rows ? &p->cross : any);
    const int32_t longest = p->self.longest > p->cross.longest ? p->self.longest : p->cross.longest, d = a.attend[0].head_dim;
    a.parts_bytes = p->x.rows * head_blocks(a.attend[0]) * splits_of(longest) * part_floats(a.attend[0], d) * (int32_t)sizeof(float);
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

/* Shares shared memory out: rows and rooms, and as many stages as then fit (a.stages; 0: too few).  Attention's keys and sums lie in stages, where
 * rows of ffn have a room besides; else such rows lie in attention's.  Bytes of all. */
template <typename F, int D> static int32_t share_out_for(stream_args<F> *a) {
    const int32_t attention = (int32_t)((sizeof(attention_room<typename F::T, D>) + 15) / 16 * 16), wide = (F::wide_bytes(a->n, a->ffn) + 15) / 16 * 16;
    const int32_t stage = F::STEP + F::BESIDE, fixed = (F::ROWS_FIRST ? (int32_t)RING_LINES : 0) + (int32_t)sizeof(hand) + SUMS * (int32_t)sizeof(typename F::sums);
    int32_t room = 0;
    int device = 0, together = 0;
    a->stages = 0;
    a->narrow = (F::narrow_bytes(a->n, a->hidden, a->q_width, a->ffn) + 15) / 16 * 16;
    if (room_of(false, &room) || cudaGetDevice(&device) || cudaDeviceGetAttribute(&together, cudaDevAttrCooperativeLaunch, device) || !together) return 0;
    for (int32_t lend = !F::ROWS_FIRST; lend >= 0; lend--) {
        a->lent = lend ? (int32_t)offsetof(decode_room<D>, own_k) / F::STEP : 0;
        a->attention = lend || attention > wide ? attention : wide;
        const int32_t rest = fixed + a->narrow + (lend ? wide : 0) + a->attention - a->lent * F::STEP, fit = (room - rest) / stage;
        a->stages = fit < MOST_AHEAD ? fit : (int32_t)MOST_AHEAD;
        if (a->stages - a->lent >= LEAST_AHEAD) {
            a->asked = std::min((int32_t)F::ASKED, std::min(a->stages - a->lent, a->lent ? a->lent + 1 : a->stages));      /* no stage twice among those on their way */
            a->early = std::min((int32_t)F::EARLY, a->asked);
            return rest + a->stages * stage;
        }
    }
    a->stages = 0;
    return 0;
}
template <typename F> static int32_t share_out(stream_args<F> *a) { return a->attend[0].head_dim == 64 ? share_out_for<F, 64>(a) : share_out_for<F, 128>(a); }

/* Weights as copy_slices sees them: columns of a slice, rows, slices. */
static cudaError_t describe_one(encode_function encode, CUtensorMap *map, CUtensorMapDataType type, int32_t element, const void *w, int32_t rows, int32_t cols) {
    const cuuint64_t slice = (cuuint64_t)cols / WARPS, size[3] = { slice, (cuuint64_t)rows, WARPS };
    const cuuint64_t stride[2] = { (cuuint64_t)(cols * element), slice * (cuuint64_t)element };
    const cuuint32_t box[3] = { (cuuint32_t)(128 / element), TILE, WARPS }, steps[3] = { 1, 1, 1 };
    CUresult r = encode(map, type, 3, (void *)w, size, stride, box, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                        CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
    return r == CUDA_SUCCESS ? cudaSuccess : cudaErrorInvalidValue;
}
template <typename F>
static cudaError_t describe_slices(const rv_stream *p, const stream_args<F> &a, CUtensorMapDataType type, int32_t element, CUtensorMap (*map)[PRODUCTS]) {
    encode_function encode;
    cudaError_t e = find_encode(&encode);
    for (int32_t i = 0; i < p->n * PRODUCTS && !e; i++) {
        const rv_stream_layer *l = &p->layer[i / PRODUCTS];
        const int32_t kind = i % PRODUCTS, in = a.q_width + (l->q_norm ? 0 : 2 * a.kv_width);
        e = describe_one(encode, &map[i / PRODUCTS][kind], type, element, l->w[kind], kind == IN ? in : kind == GATE_UP ? 2 * a.ffn : a.hidden,
                         kind == O ? a.q_width : kind == DOWN ? a.ffn : a.hidden);
    }
    return e;
}

template <typename F, int D> static cudaError_t launch(const stream_args<F> &a, int32_t bytes, int32_t multiprocessors, cudaStream_t stream) {
    static_assert(sizeof a <= 32764, "a kernel's parameters");
    auto kernel = stream90_kernel<F, D>;
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

template <typename F> static cudaError_t launch_of(const rv_stream *p, cudaStream_t stream) {
    stream_args<F> a = args_of<F>(p);
    const int32_t bytes = share_out(&a);
    cudaError_t e = F::describe(p, a);
    if (!e && !a.stages) e = cudaErrorInvalidValue;
    return e ? e : a.attend[0].head_dim == 64 ? launch<F, 64>(a, bytes, p->multiprocessors, stream) : launch<F, 128>(a, bytes, p->multiprocessors, stream);
}

template <typename F> static bool has_room(const rv_stream *p) {
    stream_args<F> a = args_of<F>(p);
    return share_out(&a) && a.stages;
}
#endif
