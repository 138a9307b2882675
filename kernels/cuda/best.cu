/* best.cu - a row's most likely token, among those that its guide allows.
 *
 * The one idea: one pass over the row finds the best logit, the best allowed one, and both sums of exp(logit - best), so that a mask
 * costs two lookups a token in tables that stay in the cache, and no pass of its own.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

enum { THREADS = 256, EACH = 16, PART = EACH * THREADS };       /* logits of a thread and of a block  */

struct rows_of { const float *data; int32_t cols; int64_t ld; };

/* What a thread, a warp or a block has seen: the best logit and the sum of exp(logit - best); of tokens that the row's guide
 * allows, the best one, and their sum of exp(logit - allowed) (without a guide: 0). */
struct alignas(16) seen { float best, sum; int32_t id, bad; float allowed, allowed_sum; };
static __device__ __forceinline__ seen nothing_seen() { return { -INFINITY, 0.f, INT32_MAX, 0, -INFINITY, 0.f }; }

static __device__ __forceinline__ seen join(seen a, seen b) {
    bool second = b.allowed > a.allowed || (b.allowed == a.allowed && b.id < a.id);
    float top = b.best > a.best ? b.best : a.best, of_a = a.sum > 0 ? expf(a.best - top) : 0.f, of_b = b.sum > 0 ? expf(b.best - top) : 0.f;
    seen r;
    r.best = top;
    r.id = second ? b.id : a.id;
    r.allowed = second ? b.allowed : a.allowed;
    r.sum = (a.sum > 0 ? a.sum * of_a : 0.f) + (b.sum > 0 ? b.sum * of_b : 0.f);
    r.allowed_sum = (a.allowed_sum > 0 ? a.allowed_sum * expf(a.allowed - r.allowed) : 0.f) + (b.allowed_sum > 0 ? b.allowed_sum * expf(b.allowed - r.allowed) : 0.f);
    r.bad = a.bad | b.bad;
    return r;
}

static __device__ seen join_warp(seen s) {
    for (int m = 16; m; m >>= 1) {
        seen o = { __shfl_xor_sync(~0u, s.best, m), __shfl_xor_sync(~0u, s.sum, m), __shfl_xor_sync(~0u, s.id, m), __shfl_xor_sync(~0u, s.bad, m),
                   __shfl_xor_sync(~0u, s.allowed, m), __shfl_xor_sync(~0u, s.allowed_sum, m) };
        s = threadIdx.x & (unsigned)m ? join(o, s) : join(s, o);       /* both lanes sum in the same order */
    }
    return s;
}

/* Which of a thread's tokens may come, a bit each. */
static __device__ uint32_t allowed_of(const rv_guide_row &g, uint32_t denied, int32_t first) {
    const uint16_t *next = g.guide.next + (int64_t)g.state * g.guide.n_classes;
    uint16_t classes[EACH];
    uint32_t allowed = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) classes[k] = first + k * THREADS < g.guide.vocab ? __ldg(g.guide.classes + first + k * THREADS) : 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        uint32_t entry = __ldg(next + classes[k]);
        allowed |= (uint32_t)(entry && !(entry & denied) && first + k * THREADS < g.guide.vocab) << k;
    }
    return allowed;
}

/* One block's part of a row. */
static __device__ seen look(const float *row, int32_t cols, const rv_guide_row *guide, seen *warps) {
    const int32_t first = (int32_t)blockIdx.x * PART + (int32_t)threadIdx.x;
    const bool guided = guide && rv_guide_on(guide);
    const rv_guide_row g = guided ? *guide : rv_guide_row{};
    const uint32_t denied = rv_guide_denied(&g);
    seen s = nothing_seen();
    float v[EACH];
    uint32_t allowed = ~0u;
#pragma unroll
    for (int k = 0; k < EACH; k++) v[k] = first + k * THREADS < cols ? __ldcg(row + first + k * THREADS) : -INFINITY;
    if (guided) allowed = allowed_of(g, denied, first);
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        s.bad |= !(v[k] < INFINITY);                           /* NaN and +inf */
        if (v[k] > s.best) s.best = v[k];
        if (v[k] > s.allowed && allowed >> k & 1) s.allowed = v[k], s.id = first + k * THREADS;
    }
#pragma unroll
    for (int k = 0; k < EACH; k++)
        if (v[k] > -INFINITY) s.sum += expf(v[k] - s.best);
    if (guided) {
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (v[k] > -INFINITY && allowed >> k & 1) s.allowed_sum += expf(v[k] - s.allowed);
    }
    s = join_warp(s);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x < 32) s = join_warp(threadIdx.x < THREADS / 32 ? warps[threadIdx.x] : nothing_seen());
    return s;
}

/* A row's blocks leave what they saw in `partial`; the last joins them, in order. */
static __global__ void __launch_bounds__(THREADS) best_kernel(rv_best *out, rows_of logits, const rv_choice *how, void *partial) {
    __shared__ seen warps[THREADS / 32];
    const int32_t parts = (int32_t)gridDim.x, row = (int32_t)blockIdx.y;
    int32_t *counter = (int32_t *)partial + row;
    seen *mine = (seen *)((int32_t *)partial + RV_CUDA_COUNTERS) + row * parts;
    wait_for_previous();
    const rv_guide_row *guide = how ? &how[row].guide : nullptr;
    seen s = look(logits.data + row * logits.ld, logits.cols, guide, warps);
    if (threadIdx.x >= 32) return;
    int32_t last = 0;
    if (threadIdx.x == 0) {
        __stcg((float4 *)(mine + blockIdx.x), make_float4(s.best, s.sum, __int_as_float(s.id), __int_as_float(s.bad)));
        __stcg((float4 *)(mine + blockIdx.x) + 1, make_float4(s.allowed, s.allowed_sum, 0.f, 0.f));
        __threadfence();
        last = atomicAdd(counter, 1) == parts - 1;
        if (last) *counter = 0;                                /* ready for the next launch */
        __threadfence();
    }
    if (!__shfl_sync(~0u, last, 0)) return;
    s = nothing_seen();
    for (int32_t i = (int32_t)threadIdx.x; i < parts; i += 32) {
        float4 o = __ldcg((const float4 *)(mine + i)), p = __ldcg((const float4 *)(mine + i) + 1);
        s = join(s, seen{ o.x, o.y, __float_as_int(o.z), __float_as_int(o.w), p.x, p.y });
    }
    s = join_warp(s);
    if (threadIdx.x) return;
    const bool none = s.bad || s.id == INT32_MAX, guided = !none && guide && rv_guide_on(guide);
    const int32_t watched = guided ? guide->watched : -1;
    rv_best best = { none ? -1 : s.id, none ? 0.f : -logf(s.sum), 0.f, 0.f };
    if (guided) {
        best.allowed = s.allowed - s.best + logf(s.allowed_sum) + best.logprob;
        if (watched >= 0 && watched < logits.cols) best.watched = __ldcg(logits.data + row * logits.ld + watched) - s.best + best.logprob;
        best.logprob += s.allowed - s.best;
    }
    out[row] = best;
}

static int32_t best_parts(int32_t cols) { return cols > 0 ? (cols - 1) / PART + 1 : 1; }

uint64_t rv_cuda_best_bytes(int32_t rows, int32_t cols) {
    return RV_CUDA_COUNTERS * sizeof(int32_t) + (uint64_t)rows * (uint64_t)best_parts(cols) * sizeof(seen);
}

cudaError_t rv_cuda_best(rv_best *out, rv_mat logits, const rv_choice *how, void *partial, bool overlap, cudaStream_t stream) {
    if (logits.rows > RV_CUDA_ATTEND_COUNTERS) return cudaErrorInvalidValue;
    return launch_kernel(best_kernel, dim3((unsigned)best_parts(logits.cols), (unsigned)logits.rows), THREADS, 0, overlap, stream, out, rows_of{ (const float *)logits.data, logits.cols, logits.ld },
                         how, partial);
}
