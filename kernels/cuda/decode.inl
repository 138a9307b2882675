/* decode.inl - attention for a few rows against many keys, a launch by itself: decode.cuh explains it.  Compiled by each decode*.cu
 * for its kernel set. */
#include "kernels/cuda/decode.cuh"

/* The set's entries are named by RV_DECODE, its kernel by RV_DECODE_KERNEL; Volta knows f16 alone. */
#ifdef RV_CUDA_VOLTA
#define OF_TYPE(a, of, ...) ((a)->q.type == RV_F16 ? of(__half, __VA_ARGS__) : cudaErrorInvalidValue)
#else
#define OF_TYPE(a, of, ...) ((a)->q.type == RV_F16 ? of(__half, __VA_ARGS__) : of(__nv_bfloat16, __VA_ARGS__))
#endif

/* ---- the kernel ---- */

/* early: keys, tables and ranges are older than the launches before; q (and the fused form's k and v) are not.
 * hold: blocks without a key stay until the launch before has ended, so that each multiprocessor has one block of this launch and then one
 * of the next; where there are more blocks than multiprocessors they make room instead (but for the first, since the launch as a
 * whole must not end before the one before it). */
template <typename T, int D>
static __global__ void __launch_bounds__(DECODE_THREADS, 3) RV_DECODE_KERNEL(attend_args<T> a, rope_args<T> o, void *partial, int32_t most_splits, bool early, bool hold) {
    extern __shared__ uint4 memory[];
    decode_room<D> &room = *reinterpret_cast<decode_room<D> *>(memory);
    decode_place p;
    let_next_start();
    if (!early) wait_for_previous();
    if (!find_place(a, o, (int32_t)blockIdx.z, (int32_t)blockIdx.y, (int32_t)blockIdx.x, p)) {
        if (early && (hold || blockIdx.x == 0)) wait_for_previous();
        if (p.splits == 0 && blockIdx.x == 0) attend_nothing<T, D>(a, p);
        return;
    }
    look_up(a, room, p, 0);
    attend_place(a, o, room, p, [early] { if (early) wait_for_previous(); }, [] {}, [&] { return parts_of<D>(a, p, partial, most_splits, p.split); });
    if (p.splits == 1) return;
    decode_meet();
    if (decode_thread() == 0) room.merge = is_last(p, partial);
    decode_meet();
    if (room.merge) merge_splits(room, p, parts_of<D>(a, p, partial, most_splits, 0));
}

template <typename T, int D>
static cudaError_t decode(const rv_attention *a, const rope_args<T> &o, void *partial, rv_cuda_order order,
                          cudaStream_t stream) {
    int32_t group = a->heads / a->kv_heads, splits = splits_of(a->longest);
    cudaLaunchAttribute attribute;
    cudaLaunchConfig_t config = {};
    int device = 0, multiprocessors = 0;
    cudaError_t e = cudaGetDevice(&device);
    if (!e) e = cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, device);
    if (e) return e;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.gridDim = dim3((unsigned)splits, (unsigned)(a->kv_heads * ((group + HEADS - 1) / HEADS)), (unsigned)a->q.rows);
    unsigned rest = config.gridDim.y * config.gridDim.z, all = (unsigned)multiprocessors;
    bool hold = config.gridDim.x * rest <= all;
    if (hold && order == RV_CUDA_EARLY) config.gridDim.x = all / rest;
    config.blockDim = dim3(DECODE_THREADS);
    config.dynamicSmemBytes = sizeof(decode_room<D>);
    config.stream = stream;
    config.attrs = &attribute;
    config.numAttrs = order == RV_CUDA_APART ? 0 : 1;
    if ((int64_t)config.gridDim.y * config.gridDim.z > RV_CUDA_ATTEND_COUNTERS || splits > MOST_SPLITS) return cudaErrorInvalidValue;
    e = cudaFuncSetAttribute(RV_DECODE_KERNEL<T, D>, cudaFuncAttributeMaxDynamicSharedMemorySize, (int)sizeof(decode_room<D>));
    if (!e) e = cudaFuncSetAttribute(RV_DECODE_KERNEL<T, D>, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
    return e != cudaSuccess ? e : cudaLaunchKernelEx(&config, RV_DECODE_KERNEL<T, D>, args_of<T>(a), o, partial, splits, order == RV_CUDA_EARLY, hold);
}

template <typename T>
static cudaError_t decode_of(const rv_attention *a, const rope_args<T> &o, void *partial, rv_cuda_order order, cudaStream_t stream) {
    return a->q.cols / a->heads == 64 ? decode<T, 64>(a, o, partial, order, stream) : decode<T, 128>(a, o, partial, order, stream);
}

cudaError_t RV_DECODE(decode)(const rv_attention *a, void *partial, rv_cuda_order order, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (!decode_takes(a)) return rv_cuda_attend_plain(a, stream);
#define PLAIN_OF(T, order) decode_of(a, rope_args<T>(), partial, order, stream)
    return OF_TYPE(a, PLAIN_OF, order);
}

template <typename T> static rope_args<T> norm_of(rv_norm n) {
    rope_args<T> o;
    o.norm = n.weight;
    o.eps = n.eps;
    return o;
}

cudaError_t RV_DECODE(decode_norm)(const rv_attention *a, rv_norm n, void *partial, rv_cuda_order order, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (!decode_takes(a) || n.bias || n.width != a->q.cols / a->heads || (uintptr_t)n.weight % 16 != 0) {
        cudaError_t e = rv_cuda_norm(a->q, a->q, n, false, stream);
        return e == cudaSuccess ? RV_DECODE(decode)(a, partial, RV_CUDA_APART, stream) : e;
    }
#define NORM_OF(T, n) decode_of(a, norm_of<T>(n), partial, order, stream)
    return OF_TYPE(a, NORM_OF, n);
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

cudaError_t RV_DECODE(decode_rope)(const rv_attention *a, rv_mat k, rv_mat v, const float *cos_sin, const int32_t *pos, void *partial,
                                rv_cuda_order order, cudaStream_t stream) {
    if (a->q.rows == 0) return cudaSuccess;
    if (!decode_takes(a) || !rows_are_aligned(k) || !rows_are_aligned(v) || (uintptr_t)cos_sin % 16 != 0) {
        int32_t d = a->q.cols / a->heads;
        cudaError_t e = rv_cuda_rope(a->q, cos_sin, pos, d, stream);
        if (e == cudaSuccess) e = rv_cuda_rope(k, cos_sin, pos, d, stream);
        if (e == cudaSuccess) e = rv_cuda_kv_store(a->kv, k, v, a->slot, pos, stream);
        return e == cudaSuccess ? RV_DECODE(decode)(a, partial, RV_CUDA_APART, stream) : e;
    }
#define ROPE_OF(T, pos) decode_of(a, rope_of<T>(a, k, v, cos_sin, pos), partial, order, stream)
    return OF_TYPE(a, ROPE_OF, pos);
}
