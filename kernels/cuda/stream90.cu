/* stream90.cu - decoder layers of one or two rows in one launch, their weights in 16 bit.
 *
 * The one idea: stream90.cuh's, with few.cu's sums; a step is 64 columns of each of 8 slices, 16 rows of them.
 */
#include "kernels/cuda/stream90_launch.cuh"

template <typename A> struct plain_format {
    typedef A T;
    typedef tile_sums sums;
    enum { STEP = WARPS * TILE * DEPTH * 2, BESIDE = 0, ASKED = 4, EARLY = 3, DRAWN = true, ROWS_FIRST = false, IN_PARTS = false };
    struct weights { CUtensorMap map[RV_STREAM_LAYERS][PRODUCTS]; };
    static int32_t narrow_bytes(int32_t n, int32_t hidden, int32_t q_width, int32_t) { return n * (hidden > q_width ? hidden : q_width) * 2; }
    static int32_t wide_bytes(int32_t n, int32_t ffn) { return n * ffn * 2; }
    static cudaError_t describe(const rv_stream *p, stream_args<plain_format> &a) {
        return describe_slices(p, a, p->qkv.type == RV_F16 ? CU_TENSOR_MAP_DATA_TYPE_FLOAT16 : CU_TENSOR_MAP_DATA_TYPE_BFLOAT16, 2, a.weights.map);
    }

#ifdef __CUDA_ARCH_FEAT_SM90_ALL
    static __device__ __forceinline__ int32_t steps(int32_t cols) { return cols / DEPTH / WARPS; }
    static __device__ __forceinline__ void copy(const weights &w, int32_t layer, int32_t kind, int32_t tile, int32_t step, char *to, char *, uint64_t *bar, uint64_t policy) {
        barrier_expect(bar, STEP);
        copy_slices(to, &w.map[layer][kind], step * DEPTH, tile * TILE, bar, policy);
    }

    /* Once the block has done its part of what makes them. */
    template <typename R> static __device__ __forceinline__ void bring(const stream_args<plain_format> &a, int32_t i, const stream_rooms<plain_format> &rooms, R ready) {
        const int32_t kind = i % PRODUCTS;
        const args e = rows_of(a, i);
        if (e.norm && e.cols == HELD * THREADS) bring_normed<multipliers, true, T>(e, (T *)rooms.narrow, (float *)rooms.sums, ready);
        else if (e.norm) bring_normed<multipliers, false, T>(e, (T *)rooms.narrow, (float *)rooms.sums, ready);
        else {
            ready();
            for (int32_t r = 0; r < e.n; r++) bring_pieces<multipliers>((const uint4 *)((const T *)e.x + r * e.x_ld), (kind == O ? rooms.narrow : rooms.wide) + r * (e.cols / 8), 0, e.cols / 8);
        }
        meet();
    }

    struct product : tile_product<T> {
        __device__ __forceinline__ product(const stream_args<plain_format> &a, int32_t i, int32_t cols, const stream_rooms<plain_format> &rooms)
            : tile_product<T>(i % PRODUCTS == DOWN ? rooms.wide : rooms.narrow, a.n == 2 ? cols * 2 : 0, cols / WARPS * 2) {}
        template <typename E> __device__ __forceinline__ void multiply(const char *stage, const char *, int32_t, E emptied) { tile_product<T>::multiply(shared_address(stage), emptied); }
    };

    typedef float_finisher<plain_format> finisher;
#endif
};

/* ---- which layers, and launching ---- */

static bool kind_fits(const rv_stream *p, const rv_attention *a) {
    const int32_t d = a->q.rows ? a->q.cols / a->heads : 0, group = a->q.rows ? a->heads / a->kv_heads : 0;
    const int64_t part = (int64_t)(group < HEADS ? group : (int32_t)HEADS) * (d + 4) * (int64_t)sizeof(float), places = (int64_t)a->kv_heads * ((group + HEADS - 1) / HEADS) * a->q.rows;
    return !a->q.rows || (decode_takes(a) && splits_of(a->longest) <= MOST_SPLITS && PARTS_AT + 2 * places * splits_of(a->longest) * part <= (int64_t)(RV_CUDA_PARTIAL_BYTES - FRESH_BYTES) - ff_bytes(p) &&
                          rows_are_aligned(a->out) && a->q.rows == p->x.rows && d * a->kv_heads == a->kv.k.cols);
}

static bool is_four(const rv_stream *p) { return p->format == RV_FORMAT_NF4 || p->format == RV_FORMAT_FP4; }

bool rv_cuda_stream_takes(const rv_stream *p) {
    const rv_attention *a = p->self.q.rows ? &p->self : &p->cross;
    if (p->n < 1 || p->n > RV_STREAM_LAYERS || p->x.rows < 1 || p->x.rows > STREAM_ROWS || !kind_fits(p, &p->self) || !kind_fits(p, &p->cross)) return false;
    if ((uintptr_t)p->x.data % 16 || p->x.ld % 4 || p->x.cols <= RV_CUDA_NORM_THREADS || p->x.cols > RV_CUDA_NORM_MOST || !rows_are_aligned(p->ff) || !rows_are_aligned(p->qkv)) return false;
    if ((int64_t)p->x.rows * (p->x.cols + a->q.cols + p->ff.cols) * (int64_t)sizeof(int32_t) > PARTS_AT - COUNTERS * (int64_t)sizeof(int32_t)) return false;      /* int8's lists end before */
    const int32_t whole = WARPS * (is_four(p) ? 256 : p->format == RV_FORMAT_INT8 ? 128 : (int32_t)DEPTH);     /* slices of equal, whole steps */
    if (p->x.cols % whole || a->q.cols % whole || p->ff.cols % whole || a->kv.k.cols % TILE) return false;
    if (is_four(p)) return rv_cuda_stream4_takes(p);
    return p->format == RV_FORMAT_INT8 ? rv_cuda_stream8_takes(p) : has_room<plain_format<__half>>(p);
}

cudaError_t rv_cuda_stream(const rv_stream *p, cudaStream_t stream) {
    if (is_four(p)) return rv_cuda_stream4(p, stream);
    if (p->format == RV_FORMAT_INT8) return rv_cuda_stream8(p, stream);
    return p->qkv.type == RV_F16 ? launch_of<plain_format<__half>>(p, stream) : launch_of<plain_format<__nv_bfloat16>>(p, stream);
}

RV_CUDA_CLAMPED(stream90)
