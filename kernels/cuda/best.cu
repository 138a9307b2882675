/* best.cu - a row's most likely token, among those that its guide allows.
 *
 * The one idea: one pass over the row finds the best logit, the best allowed one, and both sums of exp(logit - best), so that a mask
 * costs a class a token and a bit in shared memory, and no pass of its own.  Where sample.cu draws from the row next, that pass leaves it
 * what the lookups said, a bit a token, and which token has the best score after the penalty.
 */
#include "kernels/cuda/choice.cuh"
#include "kernels/cuda/launch.cuh"

enum { THREADS = BEST_THREADS, CLASS_WORDS = (UINT16_MAX + 1) / 32 };

struct rows_of { const float *data; int32_t cols; int64_t ld; };

static __device__ __forceinline__ seen nothing_seen() { return { -INFINITY, 0.f, INT32_MAX, 0, -INFINITY, 0.f, -INFINITY, INT32_MAX }; }

/* The sum for the higher of two bests, of sums for each: the lower one's shrinks. */
static __device__ __forceinline__ float join_sums(float best_a, float sum_a, float best_b, float sum_b) {
    const bool second = best_b > best_a;
    const float high = second ? sum_b : sum_a, low = second ? sum_a : sum_b, by = expf(second ? best_a - best_b : best_b - best_a);
    return __fadd_rn(high > 0 ? high : 0.f, low > 0 ? __fmul_rn(low, by) : 0.f);
}

/* Of a and b alike: the order does not matter. guided: a row with a guide; top: with a penalty. */
static __device__ __forceinline__ seen join(const seen &a, const seen &b, bool guided, bool top) {
    const bool better = b.allowed > a.allowed || (b.allowed == a.allowed && b.id < a.id);
    seen r = a;
    r.best = b.best > a.best ? b.best : a.best;
    r.id = better ? b.id : a.id;
    r.allowed = better ? b.allowed : a.allowed;
    r.sum = join_sums(a.best, a.sum, b.best, b.sum);
    if (guided) r.allowed_sum = join_sums(a.allowed, a.allowed_sum, b.allowed, b.allowed_sum);
    r.bad = a.bad | b.bad;
    if (top && (b.top > a.top || (b.top == a.top && b.top_id < a.top_id))) r.top = b.top, r.top_id = b.top_id;
    return r;
}

static __device__ seen join_warp(seen s, bool guided, bool top) {
#pragma unroll 1
    for (int m = 16; m; m >>= 1) {
        seen o = { __shfl_xor_sync(~0u, s.best, m), __shfl_xor_sync(~0u, s.sum, m), __shfl_xor_sync(~0u, s.id, m), __shfl_xor_sync(~0u, s.bad, m),
                   __shfl_xor_sync(~0u, s.allowed, m), 0.f, -INFINITY, INT32_MAX };
        if (guided) o.allowed_sum = __shfl_xor_sync(~0u, s.allowed_sum, m);
        if (top) o.top = __shfl_xor_sync(~0u, s.top, m), o.top_id = __shfl_xor_sync(~0u, s.top_id, m);
        s = join(s, o, guided, top);
    }
    return s;
}

/* Which classes of tokens may come, a bit each, by the whole block: a state's row of them is looked up once, and tokens find theirs in shared memory. */
static __device__ void allow_classes(uint32_t *allowed, const rv_guide_row &g) {
    enum { LOADS = 4 };
    const uint16_t *next = g.guide.next + (int64_t)g.state * g.guide.n_classes;
    const uint32_t denied = rv_guide_denied(&g);
    for (int32_t from = (int32_t)threadIdx.x; from - from % 32 < g.guide.n_classes; from += LOADS * THREADS) {
        uint32_t entry[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) entry[k] = from + k * THREADS < g.guide.n_classes ? __ldg(next + from + k * THREADS) : 0;
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            const uint32_t bits = __ballot_sync(~0u, entry[k] && !(entry[k] & denied));
            const int32_t word = (from + k * THREADS) / 32;
            if (from % 32 == 0 && word < CLASS_WORDS) allowed[word] = bits;
        }
    }
    __syncthreads();
}

/* Which of a thread's tokens may come, a bit each. */
static __device__ uint32_t allowed_of(const rv_guide_row &g, int32_t first, uint32_t *of_classes) {
    uint16_t classes[EACH];
    uint32_t allowed = 0;
#pragma unroll
    for (int k = 0; k < EACH; k++) classes[k] = first + k * THREADS < g.guide.vocab ? __ldg(g.guide.classes + first + k * THREADS) : 0;
    allow_classes(of_classes, g);
#pragma unroll
    for (int k = 0; k < EACH; k++)
        allowed |= (uint32_t)(first + k * THREADS < g.guide.vocab && of_classes[classes[k] / 32] >> classes[k] % 32 & 1) << k;
    return allowed;
}

/* The best score of a thread's allowed tokens, of a row with a penalty. Its logits are read again: the others' loops need the registers. */
struct scored { float score; int32_t id; };
static __device__ __noinline__ scored look_for_top(const float *row, uint32_t allowed, int32_t first, int32_t cols, const rv_choice *how, const uint8_t *before) {
    scored top = { -INFINITY, INT32_MAX };
    for (int k = 0; k < EACH; k++) {
        const int32_t id = first + k * THREADS;
        if (id >= cols) break;
        const float score = score_of(__ldcg(row + id), before[id], how->repetition_penalty, how->temperature);
        if (score > top.score && allowed >> k & 1) top = { score, id };
    }
    return top;
}

/* One block's part of a row. how: NULL, or how the row draws, with room for its bits of allowed tokens; before: NULL,
 * or its flags of tokens that the penalty is for. */
static __device__ seen look(const float *row, int32_t cols, const rv_choice *how, const uint8_t *before, uint16_t *bits, seen *warps, uint32_t *of_classes) {
    const int32_t first = (int32_t)blockIdx.x * PART + (int32_t)threadIdx.x;
    const bool guided = how && rv_guide_on(&how->guide);
    const rv_guide_row g = guided ? how->guide : rv_guide_row{};
    seen s = nothing_seen();
    float v[EACH];
    uint32_t allowed = ~0u;
#pragma unroll
    for (int k = 0; k < EACH; k++) v[k] = first + k * THREADS < cols ? __ldcg(row + first + k * THREADS) : -INFINITY;
    if (guided) {
        allowed = allowed_of(g, first, of_classes);
        if (how->temperature > 0) bits[threadIdx.x] = (uint16_t)allowed;
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        s.bad |= !(v[k] < INFINITY);                           /* NaN and +inf */
        if (v[k] > s.best) s.best = v[k];
        if (v[k] > s.allowed && allowed >> k & 1) s.allowed = v[k], s.id = first + k * THREADS;
    }
    const float best = s.best > -INFINITY ? s.best : 0.f, best_allowed = s.allowed > -INFINITY ? s.allowed : 0.f;      /* exp(-inf) is 0 */
#pragma unroll
    for (int k = 0; k < EACH; k++) s.sum += expf(v[k] - best);
    if (guided) {
#pragma unroll
        for (int k = 0; k < EACH; k++) s.allowed_sum += expf((allowed >> k & 1 ? v[k] : -INFINITY) - best_allowed);
    }
    if (before) {
        const scored top = look_for_top(row, allowed, first, cols, how, before);
        s.top = top.score, s.top_id = top.id;
    }
    s = join_warp(s, guided, before);
    if (threadIdx.x % 32 == 0) warps[threadIdx.x / 32] = s;
    __syncthreads();
    if (threadIdx.x < 32) s = join_warp(threadIdx.x < THREADS / 32 ? warps[threadIdx.x] : nothing_seen(), guided, before);
    return s;
}

static __device__ void leave(seen *to, seen s) {
    __stcg((float4 *)to, make_float4(s.best, s.sum, __int_as_float(s.id), __int_as_float(s.bad)));
    __stcg((float4 *)to + 1, make_float4(s.allowed, s.allowed_sum, s.top, __int_as_float(s.top_id)));
}
static __device__ seen take(const seen *from) {
    const float4 o = __ldcg((const float4 *)from), p = __ldcg((const float4 *)from + 1);
    return { o.x, o.y, __float_as_int(o.z), __float_as_int(o.w), p.x, p.y, p.z, __float_as_int(p.w) };
}

/* A row's blocks leave what they saw in the room's parts; the last joins them, in order. a.how NULL: the most likely tokens alone. */
static __global__ void __launch_bounds__(THREADS, 4) best_kernel(rv_best *out, rows_of logits, rv_answering a, int32_t *counters, choice_room room) {
    __shared__ seen warps[THREADS / 32];
    __shared__ uint32_t of_classes[CLASS_WORDS];
    const int32_t parts = (int32_t)gridDim.x, row = (int32_t)blockIdx.y, mine = row * parts + (int32_t)blockIdx.x;
    wait_for_previous();
    const rv_choice *how = a.how ? a.how + row : nullptr;
    const uint8_t *before = how && how->repetition_penalty != 1.f ? a.seen + (int64_t)a.slot[row] * logits.cols : nullptr;
    seen s = look(logits.data + row * logits.ld, logits.cols, how, before, room.allowed + (int64_t)mine * THREADS, warps, of_classes);
    if (how && how->temperature > 0)
        for (int32_t i = (int32_t)(blockIdx.x * THREADS + threadIdx.x); i < BINS; i += parts * THREADS)
            room.counts[row * BINS + i] = 0, room.weights[row * BINS + i] = 0;
    if (threadIdx.x >= 32) return;
    int32_t last = 0;
    if (threadIdx.x == 0) {
        leave(room.parts + mine, s);
        last = comes_last(counters + row, parts);
    }
    if (!__shfl_sync(~0u, last, 0)) return;
    const bool by_guide = how && rv_guide_on(&how->guide);
    s = nothing_seen();
    for (int32_t i = (int32_t)threadIdx.x; i < parts; i += 32) s = join(s, take(room.parts + row * parts + i), by_guide, before);
    s = join_warp(s, by_guide, before);
    if (threadIdx.x) return;
    const bool none = s.bad || s.id == INT32_MAX, guided = !none && by_guide;
    const int32_t watched = guided ? how->guide.watched : -1;
    rv_best best = { none ? -1 : s.id, none ? 0.f : -logf(s.sum), 0.f, 0.f };
    if (guided) {
        best.allowed = s.allowed - s.best + logf(s.allowed_sum) + best.logprob;
        if (watched >= 0 && watched < logits.cols) best.watched = __ldcg(logits.data + row * logits.ld + watched) - s.best + best.logprob;
        best.logprob += s.allowed - s.best;
    }
    out[row] = best;
    if (how) room.top[row] = s.top_id;
}

uint64_t rv_cuda_choose_bytes(int32_t rows, int32_t cols) {
    uint64_t bytes;
    choice_room_of(NULL, rows, cols, &bytes);
    return bytes;
}

static cudaError_t launch(rv_best *out, rv_mat logits, const rv_answering &a, void *partial, const choice_room &room, bool overlap, cudaStream_t stream) {
    return launch_kernel(best_kernel, dim3((unsigned)parts_of(logits.cols, PART), (unsigned)logits.rows), THREADS, 0, overlap, stream, out,
                         rows_of{ (const float *)logits.data, logits.cols, logits.ld }, a, (int32_t *)partial, room);
}

cudaError_t rv_cuda_best_for_choice(const rv_answering *a, rv_mat logits, void *partial, const choice_room *room, bool overlap, cudaStream_t stream) {
    return launch(a->best, logits, *a, partial, *room, overlap, stream);
}

cudaError_t rv_cuda_best(rv_best *out, rv_mat logits, void *partial, bool overlap, cudaStream_t stream) {
    uint64_t bytes;
    if (logits.rows > RV_CUDA_ATTEND_COUNTERS) return cudaErrorInvalidValue;
    return launch(out, logits, rv_answering{}, partial, choice_room_of(partial, logits.rows, logits.cols, &bytes), overlap, stream);
}
