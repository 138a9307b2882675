/* rows.cu - operations that touch each row once: norms, lookups, rotations, copies.
 *
 * All are bound by memory or launch time; the one idea is one thread block (or warp) a row, f32 inside.  Where
 * widths and addresses allow, a thread moves eight neighbours at once; which kernel runs depends on those alone,
 * never on the number of rows.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

enum { THREADS = 256, HELD = 16,
       HEAD_MOST = 256,                  /* the widest head that a warp norms                       */
       LAYER_MOST = 1280,                /* the widest row whose LayerNorm stays in registers       */
       LAYER_THREADS = 64, MOST_TAPS = 16, SHARED_MOST = 48 << 10 };

/* A matrix view as kernels see it; T is in the template. */
template <typename T> struct view {
    T *data;
    int32_t rows, cols;
    int64_t ld;
    __device__ T &at(int32_t r, int32_t c) const { return data[r * ld + c]; }
};
template <typename T> static view<T> as(rv_mat m) { return { (T *)m.data, m.rows, m.cols, m.ld }; }

/* Calls f with a value of the C++ type that `type` names; false for any other. */
template <typename F> static bool with_type(rv_dtype type, F f) {
    switch (type) {
    case RV_F32: return f(float()), true;
    case RV_F16: return f(__half()), true;
    case RV_BF16: return f(__nv_bfloat16()), true;
    default: return false;
    }
}
template <typename F> static cudaError_t with_types(rv_dtype a, rv_dtype b, F f) {
    bool ok = false;
    with_type(a, [&](auto x) { ok = with_type(b, [&](auto y) { f(x, y); }); });
    return ok ? cudaGetLastError() : cudaErrorInvalidValue;
}
template <typename F> static cudaError_t with_one(rv_dtype a, F f) {
    return with_type(a, f) ? cudaGetLastError() : cudaErrorInvalidValue;
}

static dim3 grid_of(int32_t rows, int32_t cols) {
    return dim3((unsigned)((cols + THREADS - 1) / THREADS), (unsigned)(rows < 65535 ? rows : 65535));
}

/* Eight neighbours at once, as 16 bytes of act or 32 of f32. */
template <typename T> struct alignas(sizeof(T) * 8 < 16 ? sizeof(T) * 8 : 16) eight { T of[8]; };

/* Four, as 8 or 16 bytes. */
template <typename T> struct alignas(sizeof(T) * 4) four { T of[4]; };

static bool fits_eight(rv_mat m) { return m.cols % 8 == 0 && m.ld % 8 == 0 && (uintptr_t)m.data % 16 == 0; }

/* Threads of a matrix in eights: thread i has row i / (cols / 8). */
static unsigned blocks_of_eights(rv_mat m) { return (unsigned)(((int64_t)m.rows * (m.cols / 8) + THREADS - 1) / THREADS); }

/* ---- copies ---- */

template <typename D, typename S> static __global__ void copy_kernel(view<D> dst, view<S> src) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (c >= src.cols) return;
    for (int32_t r = (int32_t)blockIdx.y; r < src.rows; r += (int32_t)gridDim.y) dst.at(r, c) = to_act<D>(to_f32(src.at(r, c)));
}

template <typename D, typename S> static __global__ void copy_eight_kernel(view<D> dst, view<S> src) {
    const uint32_t a_row = (uint32_t)src.cols / 8, i = blockIdx.x * THREADS + threadIdx.x;
    const int32_t r = (int32_t)(i / a_row), c = (int32_t)(i % a_row) * 8;
    if (r >= src.rows) return;
    eight<S> from = *(const eight<S> *)&src.at(r, c);
    eight<D> to;
#pragma unroll
    for (int k = 0; k < 8; k++) to.of[k] = to_act<D>(to_f32(from.of[k]));
    *(eight<D> *)&dst.at(r, c) = to;
}

cudaError_t rv_cuda_copy(rv_mat dst, rv_mat src, cudaStream_t stream) {
    const bool by_eight = fits_eight(dst) && fits_eight(src);
    return with_types(dst.type, src.type, [&](auto d, auto s) {
        using D = decltype(d);
        using S = decltype(s);
        if (by_eight) copy_eight_kernel<D, S><<<blocks_of_eights(src), THREADS, 0, stream>>>(as<D>(dst), as<S>(src));
        else copy_kernel<D, S><<<grid_of(src.rows, src.cols), THREADS, 0, stream>>>(as<D>(dst), as<S>(src));
    });
}

cudaError_t rv_cuda_zero(rv_mat x, cudaStream_t stream) {
    size_t size = rv_dtype_size(x.type);
    return cudaMemset2DAsync(x.data, (size_t)x.ld * size, 0, (size_t)x.cols * size, (size_t)x.rows, stream);
}

static __device__ __forceinline__ float value_of(float pixel, const float *) { return pixel; }
static __device__ __forceinline__ float value_of(uint8_t pixel, const float *values) { return values[pixel]; }

/* pixels [tiles][channels][T][T], f32 or bytes that stand for values -> rows of patches */
template <typename D, typename P>
static __global__ void patches_kernel(view<D> out, const P *pixels, const float *values, int32_t channels, int32_t patch, int32_t grid) {
    int32_t tile = grid * patch, r = (int32_t)blockIdx.x, in_tile = r % (grid * grid);
    const P *from = pixels + (int64_t)(r / (grid * grid)) * channels * tile * tile;
    int32_t y0 = in_tile / grid * patch, x0 = in_tile % grid * patch;
    for (int32_t c = (int32_t)threadIdx.x; c < out.cols; c += THREADS) {
        int32_t plane = c / (patch * patch), y = c / patch % patch, x = c % patch;
        out.at(r, c) = to_act<D>(value_of(from[((int64_t)plane * tile + y0 + y) * tile + x0 + x], values + plane * 256));
    }
}

cudaError_t rv_cuda_patches(rv_mat out, rv_mat pixels, const float *values, int32_t channels, int32_t patch, cudaStream_t stream) {
    int32_t grid = 1;
    while (channels * (grid * patch) * (grid * patch) < pixels.cols) grid++;
    return with_one(out.type, [&](auto d) {
        using D = decltype(d);
        unsigned rows = (unsigned)out.rows;
        if (values) patches_kernel<D, uint8_t><<<rows, THREADS, 0, stream>>>(as<D>(out), (const uint8_t *)pixels.data, values, channels, patch, grid);
        else patches_kernel<D, float><<<rows, THREADS, 0, stream>>>(as<D>(out), (const float *)pixels.data, NULL, channels, patch, grid);
    });
}

/* ---- lookups ---- */

template <typename S> static __global__ void embed_kernel(view<float> out, view<S> table, const int32_t *ids) {
    wait_for_previous();
    let_next_start();
    int32_t r = (int32_t)blockIdx.x, id = ids[r];
    for (int32_t c = (int32_t)threadIdx.x; c < out.cols; c += THREADS) out.at(r, c) = id < 0 ? 0.f : to_f32(table.at(id, c));
}

/* Four neighbours a thread, all of a row on their way at once: the table may lie beyond the bus. */
template <typename S> static __global__ void embed_four_kernel(view<float> out, view<S> table, const int32_t *ids) {
    wait_for_previous();
    let_next_start();
    const int32_t r = (int32_t)blockIdx.x, id = ids[r], from = 4 * (int32_t)threadIdx.x;
    for (int32_t c = from; c < out.cols; c += 16 * THREADS) {
        four<S> row[4];
#pragma unroll
        for (int32_t i = 0; i < 4; i++)
            if (id >= 0 && c + i * 4 * THREADS < out.cols) row[i] = *(const four<S> *)&table.at(id, c + i * 4 * THREADS);
#pragma unroll
        for (int32_t i = 0; i < 4; i++) {
            if (c + i * 4 * THREADS >= out.cols) break;
            float4 v = make_float4(0, 0, 0, 0);
            if (id >= 0) v = make_float4(to_f32(row[i].of[0]), to_f32(row[i].of[1]), to_f32(row[i].of[2]), to_f32(row[i].of[3]));
            *(float4 *)&out.at(r, c + i * 4 * THREADS) = v;
        }
    }
}

cudaError_t rv_cuda_embed(rv_mat out, rv_mat table, const int32_t *ids, bool overlap, cudaStream_t stream) {
    const bool by_four = fits_eight(out) && fits_eight(table);
    return with_one(table.type, [&](auto s) {
        using S = decltype(s);
        launch_kernel(by_four ? embed_four_kernel<S> : embed_kernel<S>, dim3((unsigned)out.rows), THREADS, 0, overlap, stream, as<float>(out), as<S>(table), ids);
    });
}

template <typename S> static __global__ void add_rows_kernel(view<float> x, view<S> table, const int32_t *ids, float scale) {
    int32_t r = (int32_t)blockIdx.x, id = ids[r];
    if (id < 0) return;
    for (int32_t c = (int32_t)threadIdx.x; c < x.cols; c += THREADS) x.at(r, c) += scale * to_f32(table.at(id, c));
}

template <typename S> static __global__ void add_rows_eight_kernel(view<float> x, view<S> table, const int32_t *ids, float scale) {
    const uint32_t a_row = (uint32_t)x.cols / 8, i = blockIdx.x * THREADS + threadIdx.x;
    const int32_t r = (int32_t)(i / a_row), c = (int32_t)(i % a_row) * 8;
    if (r >= x.rows || ids[r] < 0) return;
    eight<S> add = *(const eight<S> *)&table.at(ids[r], c);
    eight<float> to = *(const eight<float> *)&x.at(r, c);
#pragma unroll
    for (int k = 0; k < 8; k++) to.of[k] += scale * to_f32(add.of[k]);
    *(eight<float> *)&x.at(r, c) = to;
}

cudaError_t rv_cuda_add_rows(rv_mat x, rv_mat table, const int32_t *ids, float scale, cudaStream_t stream) {
    const bool by_eight = fits_eight(x) && fits_eight(table);
    return with_one(table.type, [&](auto s) {
        using S = decltype(s);
        if (by_eight) add_rows_eight_kernel<S><<<blocks_of_eights(x), THREADS, 0, stream>>>(as<float>(x), as<S>(table), ids, scale);
        else add_rows_kernel<S><<<(unsigned)x.rows, THREADS, 0, stream>>>(as<float>(x), as<S>(table), ids, scale);
    });
}

/* ---- norms ---- */

/* A thread keeps the first HELD of its elements, so that their loads do not wait for one another. */
template <typename D, typename S, bool LAYER>
static __global__ void norm_kernel(view<D> out, view<S> x, const float *weight, const float *bias, float eps, int32_t width) {
    __shared__ float shared[32];
    const int32_t r = (int32_t)blockIdx.x, from = (int32_t)blockIdx.y * width, threads = (int32_t)blockDim.x, first = (int32_t)threadIdx.x;
    let_next_start();
    for (int32_t c = first * 32; c < width; c += threads * 32) fetch_far(weight + c);
    wait_for_previous();
    float held[HELD], mean = 0, square = 0;
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) held[i] = first + i * threads < width ? to_f32(x.at(r, from + first + i * threads)) : 0.f;
    if (LAYER) {
#pragma unroll
        for (int32_t i = 0; i < HELD; i++) mean += held[i];
        for (int32_t c = first + HELD * threads; c < width; c += threads) mean += to_f32(x.at(r, from + c));
        mean = block_sum(mean, shared) / (float)width;
    }
#pragma unroll
    for (int32_t i = 0; i < HELD; i++) {
        float v = first + i * threads < width ? held[i] - mean : 0.f;
        square += v * v;
    }
    for (int32_t c = first + HELD * threads; c < width; c += threads) {
        float v = to_f32(x.at(r, from + c)) - mean;
        square += v * v;
    }
    float scale = rsqrtf(block_sum(square, shared) / (float)width + eps);
    auto put = [&](int32_t c, float value) {
        float v = (value - mean) * scale * weight[c];
        out.at(r, from + c) = to_act<D>(LAYER ? v + bias[c] : v);
    };
#pragma unroll
    for (int32_t i = 0; i < HELD; i++)
        if (first + i * threads < width) put(first + i * threads, held[i]);
    for (int32_t c = first + HELD * threads; c < width; c += threads) put(c, to_f32(x.at(r, from + c)));
}

static __device__ __forceinline__ float warp_sum(float v) {
    for (int m = 16; m; m >>= 1) v += __shfl_xor_sync(~0u, v, m);
    return v;
}

/* RMS norm of heads: norm_kernel's very operations, several heads a block and each read once. */
template <typename D, typename S>
static __global__ void head_norm_kernel(view<D> out, view<S> x, const float *weight, float eps, int32_t width) {
    wait_for_previous();
    let_next_start();
    const uint32_t heads = (uint32_t)(x.cols / width), i = blockIdx.x * (THREADS / 32) + threadIdx.x / 32;
    const int32_t r = (int32_t)(i / heads), from = (int32_t)(i % heads) * width, lane = (int32_t)threadIdx.x % 32;
    if (r >= x.rows) return;
    float v[HEAD_MOST / 32], square = 0;
#pragma unroll
    for (int k = 0; k < HEAD_MOST / 32; k++) v[k] = lane + 32 * k < width ? to_f32(x.at(r, from + lane + 32 * k)) : 0.f;
#pragma unroll
    for (int k = 0; k < HEAD_MOST / 32; k++) square += v[k] * v[k];
    const float scale = rsqrtf(warp_sum(square) / (float)width + eps);
#pragma unroll
    for (int k = 0; k < HEAD_MOST / 32; k++)
        if (lane + 32 * k < width) out.at(r, from + lane + 32 * k) = to_act<D>(v[k] * scale * weight[lane + 32 * k]);
}


/* LayerNorm of whole rows of f32: two warps a row, which they hold in registers.  (One warp a row starts all rows of an SM in
 * step, so that loading and computing do not overlap; ten spend their time on meeting.)  A lane sums its own numbers first. */
template <typename D>
static __global__ void __launch_bounds__(LAYER_THREADS)
layer_norm_kernel(view<D> out, view<float> x, const float *weight, const float *bias, float eps) {
    enum { STEP = LAYER_THREADS * 4, STEPS = LAYER_MOST / STEP };
    __shared__ float shared[32];
    wait_for_previous();
    let_next_start();
    const int32_t r = (int32_t)blockIdx.x, first = (int32_t)threadIdx.x * 4, width = x.cols;
    float4 v[STEPS];
    float sum = 0, square = 0;
#pragma unroll
    for (int k = 0; k < STEPS; k++)
        v[k] = first + STEP * k < width ? *(const float4 *)&x.at(r, first + STEP * k) : make_float4(0, 0, 0, 0);
#pragma unroll
    for (int k = 0; k < STEPS; k++) sum += (v[k].x + v[k].y) + (v[k].z + v[k].w);
    const float mean = block_sum(sum, shared) / (float)width;
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        if (first + STEP * k >= width) break;
        v[k] = make_float4(v[k].x - mean, v[k].y - mean, v[k].z - mean, v[k].w - mean);
        square += (v[k].x * v[k].x + v[k].y * v[k].y) + (v[k].z * v[k].z + v[k].w * v[k].w);
    }
    const float scale = rsqrtf(block_sum(square, shared) / (float)width + eps);
#pragma unroll
    for (int k = 0; k < STEPS; k++) {
        const int32_t c = first + STEP * k;
        if (c >= width) break;
        const float4 w = *(const float4 *)&weight[c], b = *(const float4 *)&bias[c];
        const float normed[4] = { v[k].x * scale * w.x + b.x, v[k].y * scale * w.y + b.y, v[k].z * scale * w.z + b.z, v[k].w * scale * w.w + b.w };
        if constexpr (sizeof(D) == 4) *(float4 *)&out.at(r, c) = make_float4(normed[0], normed[1], normed[2], normed[3]);
        else {
            uint32_t packed[2];
            pack_counted(packed, normed, D());
            *(uint2 *)&out.at(r, c) = make_uint2(packed[0], packed[1]);
        }
    }
}

static bool fits_four(rv_mat m) { return m.cols % 4 == 0 && m.ld % 4 == 0 && (uintptr_t)m.data % 16 == 0; }

static bool holds_layer_rows(rv_mat out, rv_mat x, const rv_norm *n) {
    return n->bias && x.type == RV_F32 && n->width == x.cols && n->width <= LAYER_MOST && fits_four(x) && fits_four(out) &&
           (uintptr_t)n->weight % 16 == 0 && (uintptr_t)n->bias % 16 == 0;
}

cudaError_t rv_cuda_norm(rv_mat out, rv_mat x, rv_norm n, bool overlap, cudaStream_t stream) {
    dim3 grid((unsigned)x.rows, (unsigned)(x.cols / n.width));
    unsigned threads = n.width <= HEAD_MOST ? 32 : RV_CUDA_NORM_THREADS;
    if (holds_layer_rows(out, x, &n))
        return with_one(out.type, [&](auto d) {
            using D = decltype(d);
            launch_kernel(layer_norm_kernel<D>, dim3(grid.x), LAYER_THREADS, 0, overlap, stream, as<D>(out), as<float>(x), n.weight, n.bias, n.eps);
        });
    if (!n.bias && n.width <= HEAD_MOST)
        return with_types(out.type, x.type, [&](auto d, auto s) {
            using D = decltype(d);
            using S = decltype(s);
            unsigned warps = grid.x * grid.y, a_block = THREADS / 32;
            launch_kernel(head_norm_kernel<D, S>, dim3((warps + a_block - 1) / a_block), THREADS, 0, overlap, stream, as<D>(out), as<S>(x), n.weight,
                          n.eps, n.width);
        });
    return with_types(out.type, x.type, [&](auto d, auto s) {
        using D = decltype(d);
        using S = decltype(s);
        launch_kernel(n.bias ? norm_kernel<D, S, true> : norm_kernel<D, S, false>, grid, threads, 0, overlap, stream, as<D>(out), as<S>(x),
                      n.weight, n.bias, n.eps, n.width);
    });
}

/* ---- between products ---- */

/* To 32-byte (f32) or 16-byte aligned places. */
template <typename D> static __device__ __forceinline__ void store_eight(D *to, const float (&v)[8]) {
    if constexpr (sizeof(D) == 4) {
        ((float4 *)to)[0] = make_float4(v[0], v[1], v[2], v[3]);
        ((float4 *)to)[1] = make_float4(v[4], v[5], v[6], v[7]);
    } else {
        uint32_t packed[4];
        pack_counted(packed, v, D());
        *(uint4 *)to = make_uint4(packed[0], packed[1], packed[2], packed[3]);
    }
}

template <typename T> static __global__ void swiglu_kernel(view<T> out, view<T> in) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (c >= out.cols) return;
    int32_t at = c / RV_CUDA_GATE_BLOCK * 2 * RV_CUDA_GATE_BLOCK + c % RV_CUDA_GATE_BLOCK;
    for (int32_t r = (int32_t)blockIdx.y; r < out.rows; r += (int32_t)gridDim.y)
        out.at(r, c) = to_act<T>(silu(to_f32(in.at(r, at))) * to_f32(in.at(r, at + RV_CUDA_GATE_BLOCK)));
}

/* A thread has eight neighbours, whose gates and what these are for lie side by side. */
template <typename T> static __global__ void swiglu_eight_kernel(view<T> out, view<T> in) {
    static_assert(RV_CUDA_GATE_BLOCK == 8, "a block of gates is a thread's");
    const int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x) * 8;
    let_next_start();
    wait_for_previous();
    if (c >= out.cols) return;
    for (int32_t r = (int32_t)blockIdx.y; r < out.rows; r += (int32_t)gridDim.y) {
        const T *const at = &in.at(r, 2 * c);
        const eight<T> gates = *(const eight<T> *)at, ups = *(const eight<T> *)(at + 8);
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) v[i] = silu(to_f32(gates.of[i])) * to_f32(ups.of[i]);
        store_eight(&out.at(r, c), v);
    }
}

cudaError_t rv_cuda_swiglu(rv_mat out, rv_mat gate_up, bool overlap, cudaStream_t stream) {
    const bool by_eight = fits_eight(out) && fits_eight(gate_up);
    return with_one(out.type, [&](auto t) {
        using T = decltype(t);
        if (by_eight) launch_kernel(swiglu_eight_kernel<T>, grid_of(out.rows, out.cols / 8), THREADS, 0, overlap, stream, as<T>(out), as<T>(gate_up));
        else swiglu_kernel<<<grid_of(out.rows, out.cols), THREADS, 0, stream>>>(as<T>(out), as<T>(gate_up));
    });
}

template <typename D, typename S> static __global__ void bias_act_kernel(view<D> out, view<S> x, const float *bias, bool is_gelu) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x) * 8;
    if (c >= x.cols) return;
    float b[8];
#pragma unroll
    for (int i = 0; i < 8; i++) b[i] = bias ? bias[c + i] : 0.f;
    for (int32_t r = (int32_t)blockIdx.y; r < x.rows; r += (int32_t)gridDim.y) {
        eight<S> in = *(const eight<S> *)&x.at(r, c);
        float v[8];
#pragma unroll
        for (int i = 0; i < 8; i++) {
            const float sum = to_f32(in.of[i]) + b[i];
            v[i] = is_gelu ? gelu(sum) : sum;
        }
        store_eight(&out.at(r, c), v);
    }
}

/* The same for widths and addresses that eight neighbours do not fit. */
template <typename D, typename S> static __global__ void bias_act_any_kernel(view<D> out, view<S> x, const float *bias, bool is_gelu) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (c >= x.cols) return;
    float b = bias ? bias[c] : 0.f;
    for (int32_t r = (int32_t)blockIdx.y; r < x.rows; r += (int32_t)gridDim.y) {
        float v = to_f32(x.at(r, c)) + b;
        out.at(r, c) = to_act<D>(is_gelu ? gelu(v) : v);
    }
}

cudaError_t rv_cuda_bias_act(rv_mat out, rv_mat x, const float *bias, rv_act act, cudaStream_t stream) {
    const bool by_eight = fits_eight(out) && fits_eight(x), is_gelu = act == RV_ACT_GELU;
    return with_types(out.type, x.type, [&](auto d, auto s) {
        using D = decltype(d);
        using S = decltype(s);
        if (by_eight) bias_act_kernel<D, S><<<grid_of(x.rows, x.cols / 8), THREADS, 0, stream>>>(as<D>(out), as<S>(x), bias, is_gelu);
        else bias_act_any_kernel<D, S><<<grid_of(x.rows, x.cols), THREADS, 0, stream>>>(as<D>(out), as<S>(x), bias, is_gelu);
    });
}

template <typename S>
static __global__ void add_scaled_kernel(view<float> x, view<S> y, const float *bias, float scale, const float *row_scale) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x);
    if (c >= x.cols) return;
    for (int32_t r = (int32_t)blockIdx.y; r < x.rows; r += (int32_t)gridDim.y) {
        float by = row_scale ? scale * row_scale[r] : scale;
        if (row_scale && row_scale[r] == 0.f) continue;
        float v = (y.data ? to_f32(y.at(r, c)) : 0.f) + (bias ? bias[c] : 0.f);
        x.at(r, c) += by * v;
    }
}

cudaError_t rv_cuda_add_scaled(rv_mat x, rv_mat y, const float *bias, float scale, const float *row_scale, cudaStream_t stream) {
    return with_one(y.type, [&](auto s) {
        add_scaled_kernel<<<grid_of(x.rows, x.cols), THREADS, 0, stream>>>(as<float>(x), as<decltype(s)>(y), bias, scale, row_scale);
    });
}

/* ---- positions and caches ---- */

template <typename T> static __global__ void rope_kernel(view<T> qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    int32_t r = (int32_t)blockIdx.x, half = head_dim / 2, p = pos[r];
    if (p < 0) return;
    const float *row = cos_sin + (int64_t)p * head_dim;
    for (int32_t i = (int32_t)threadIdx.x; i < qk.cols / 2; i += THREADS) {
        int32_t j = i % half, c = i / half * head_dim + j;
        float a = to_f32(qk.at(r, c)), b = to_f32(qk.at(r, c + half)), co = row[j], si = row[half + j];
        qk.at(r, c) = to_act<T>(a * co - b * si);
        qk.at(r, c + half) = to_act<T>(b * co + a * si);
    }
}

/* A thread turns eight neighbours of either half of a head. */
template <typename T> static __global__ void rope_eight_kernel(view<T> qk, const float *cos_sin, const int32_t *pos, int32_t head_dim) {
    const int32_t r = (int32_t)blockIdx.x, half = head_dim / 2, p = pos[r];
    if (p < 0) return;
    const float *const row = cos_sin + (int64_t)p * head_dim;
    for (int32_t i = (int32_t)threadIdx.x * 8; i < qk.cols / 2; i += THREADS * 8) {
        const int32_t j = i % half;
        T *const at = &qk.at(r, i / half * head_dim + j);
        eight<T> a = *(const eight<T> *)at, b = *(const eight<T> *)(at + half);
        const eight<float> co = *(const eight<float> *)(row + j), si = *(const eight<float> *)(row + half + j);
        float low[8], high[8];
#pragma unroll
        for (int k = 0; k < 8; k++) {
            const float x = to_f32(a.of[k]), y = to_f32(b.of[k]);
            low[k] = x * co.of[k] - y * si.of[k];
            high[k] = y * co.of[k] + x * si.of[k];
        }
        round_counted(a.of, low);
        round_counted(b.of, high);
        *(eight<T> *)at = a;
        *(eight<T> *)(at + half) = b;
    }
}

cudaError_t rv_cuda_rope(rv_mat qk, const float *cos_sin, const int32_t *pos, int32_t head_dim, cudaStream_t stream) {
    const bool by_eight = fits_eight(qk) && head_dim % 16 == 0 && (uintptr_t)cos_sin % 16 == 0;
    return with_one(qk.type, [&](auto t) {
        using T = decltype(t);
        if (by_eight) rope_eight_kernel<T><<<(unsigned)qk.rows, THREADS, 0, stream>>>(as<T>(qk), cos_sin, pos, head_dim);
        else rope_kernel<<<(unsigned)qk.rows, THREADS, 0, stream>>>(as<T>(qk), cos_sin, pos, head_dim);
    });
}

template <typename T>
static __global__ void kv_store_kernel(view<T> to_k, view<T> to_v, view<T> k, view<T> v, const int32_t *pages, int32_t page_rows,
                                       int32_t max_pages, const int32_t *slot, const int32_t *pos) {
    int32_t r = (int32_t)blockIdx.x, p = pos[r], s = slot ? slot[r] : 0;
    if (p < 0) return;
    int32_t row = pages ? pages[s * max_pages + p / page_rows] * page_rows + p % page_rows : p;
    for (int32_t c = (int32_t)threadIdx.x; c < k.cols; c += THREADS) {
        to_k.at(row, c) = k.at(r, c);
        to_v.at(row, c) = v.at(r, c);
    }
}

template <typename T>
static __global__ void kv_store_eight_kernel(view<T> to_k, view<T> to_v, view<T> k, view<T> v, const int32_t *pages, int32_t page_rows,
                                             int32_t max_pages, const int32_t *slot, const int32_t *pos) {
    const int32_t r = (int32_t)blockIdx.x, p = pos[r], s = slot ? slot[r] : 0;
    if (p < 0) return;
    const int32_t row = pages ? pages[s * max_pages + p / page_rows] * page_rows + p % page_rows : p;
    for (int32_t c = (int32_t)threadIdx.x * 8; c < k.cols; c += (int32_t)blockDim.x * 8) {
        const eight<T> a = *(const eight<T> *)&k.at(r, c), b = *(const eight<T> *)&v.at(r, c);
        *(eight<T> *)&to_k.at(row, c) = a;
        *(eight<T> *)&to_v.at(row, c) = b;
    }
}

cudaError_t rv_cuda_kv_store(rv_kv kv, rv_mat k, rv_mat v, const int32_t *slot, const int32_t *pos, cudaStream_t stream) {
    const bool by_eight = fits_eight(k) && fits_eight(v) && fits_eight(kv.k) && fits_eight(kv.v);
    return with_one(k.type, [&](auto t) {
        using T = decltype(t);
        if (by_eight) kv_store_eight_kernel<T><<<(unsigned)k.rows, THREADS / 2, 0, stream>>>(as<T>(kv.k), as<T>(kv.v), as<T>(k), as<T>(v), kv.pages, kv.page_rows,
                                                                                            kv.max_pages, slot, pos);
        else kv_store_kernel<<<(unsigned)k.rows, THREADS, 0, stream>>>(as<T>(kv.k), as<T>(kv.v), as<T>(k), as<T>(v), kv.pages, kv.page_rows,
                                                                  kv.max_pages, slot, pos);
    });
}

template <typename T> struct taps_view { view<T> of[MOST_TAPS]; };

template <typename T, typename L> static __global__ void concat_kernel(view<T> out, view<L> last, taps_view<T> taps, int32_t n) {
    int32_t c = (int32_t)(blockIdx.x * THREADS + threadIdx.x), d = last.cols;
    if (c >= out.cols) return;
    for (int32_t r = (int32_t)blockIdx.y; r < out.rows; r += (int32_t)gridDim.y)
        out.at(r, c) = c < d ? to_act<T>(to_f32(last.at(r, c))) : taps.of[(c - d) % n].at(r, (c - d) / n);
}

/* A row's taps go through shared memory, so that reads and writes of the device's are whole eights; a tap's row there is
 * eight longer, so that taps do not meet in a bank. */
template <typename T, typename L> static __global__ void concat_eight_kernel(view<T> out, view<L> last, taps_view<T> taps, int32_t n) {
    extern __shared__ uint4 memory[];
    T *room = (T *)memory;
    const int32_t r = (int32_t)blockIdx.x, d = last.cols, a_tap = d + 8;
    for (int32_t c = (int32_t)threadIdx.x * 8; c < d; c += THREADS * 8) {
        eight<L> from = *(const eight<L> *)&last.at(r, c);
        eight<T> to;
#pragma unroll
        for (int k = 0; k < 8; k++) to.of[k] = to_act<T>(to_f32(from.of[k]));
        *(eight<T> *)&out.at(r, c) = to;
    }
    for (int32_t i = 0; i < n; i++)
        for (int32_t c = (int32_t)threadIdx.x * 8; c < d; c += THREADS * 8) *(eight<T> *)&room[i * a_tap + c] = *(const eight<T> *)&taps.of[i].at(r, c);
    __syncthreads();
    for (int32_t o = (int32_t)threadIdx.x * 8; o < n * d; o += THREADS * 8) {
        int32_t c = o / n, i = o % n;
        eight<T> to;
#pragma unroll
        for (int k = 0; k < 8; k++) {
            to.of[k] = room[i * a_tap + c];
            if (++i == n) i = 0, c++;
        }
        *(eight<T> *)&out.at(r, d + o) = to;
    }
}

cudaError_t rv_cuda_concat_taps(rv_mat out, rv_mat last, const rv_mat *taps, int32_t n_taps, cudaStream_t stream) {
    bool by_eight = fits_eight(out) && fits_eight(last), same = n_taps <= MOST_TAPS;
    for (int32_t i = 0; i < n_taps && same; i++) {
        by_eight &= fits_eight(taps[i]);
        same &= taps[i].type == out.type;
    }
    if (!same) return cudaErrorInvalidValue;
    return with_types(out.type, last.type, [&](auto t, auto l) {
        using T = decltype(t);
        using L = decltype(l);
        taps_view<T> all = {};
        size_t bytes = (size_t)n_taps * (size_t)(last.cols + 8) * sizeof(T);
        for (int32_t i = 0; i < n_taps; i++) all.of[i] = as<T>(taps[i]);
        if (by_eight && bytes <= SHARED_MOST) concat_eight_kernel<T, L><<<(unsigned)out.rows, THREADS, bytes, stream>>>(as<T>(out), as<L>(last), all, n_taps);
        else concat_kernel<T, L><<<grid_of(out.rows, out.cols), THREADS, 0, stream>>>(as<T>(out), as<L>(last), all, n_taps);
    });
}

RV_CUDA_CLAMPED(rows)
