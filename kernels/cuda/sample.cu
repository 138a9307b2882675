/* sample.cu - choosing the next token on the device, and moving the row to it.
 *
 * The one idea: tokens are ranked by one 64-bit number (score from the best down, then id from 0 up), and
 * everything that sampling asks is "at which rank does a running sum pass q": of counts for top-k, of weights
 * exp(score - best) for top-p and for the draw.  Such a rank is found in a few passes over the row, each a
 * histogram that narrows the range 2,048 times; no sorting.  Weights are integers (fixed point), so that their
 * sums do not depend on any order.  Once a cut leaves few tokens, they are gathered and the rest of the row is not
 * read again.  One block a row; a greedy row costs nothing but the block.
 *
 * The rules are those of engine/sample.c, and so are the outcomes, unless a sum comes within some 1e-11 of q.
 */
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/launch.cuh"

enum { THREADS = 1024, BINS = 2048, LOADS = 4,
       LIST = 2048,                      /* most tokens that are gathered                        */
       STEPS_A_NAT = 64 };               /* first histogram: 32 nats below the best; less is weight 0 */

typedef unsigned long long u64;

/* Uniform in [0, 1), times 2^24: rv_random of engine/sample.c. */
static __device__ uint32_t random24(uint64_t seed, uint32_t index) {
    uint32_t c0 = index, c1 = 0, c2 = 0, c3 = 0, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
        uint32_t a_low = 0xd2511f53u * c0, a_high = __umulhi(0xd2511f53u, c0), b_low = 0xcd9e8d57u * c2, b_high = __umulhi(0xcd9e8d57u, c2);
        c0 = b_high ^ c1 ^ k0;
        c1 = b_low;
        c2 = a_high ^ c3 ^ k1;
        c3 = a_low;
    }
    return c0 >> 8;
}

/* ---- a row ---- */

struct row {
    const float *logits;
    const uint8_t *seen;                 /* NULL: no penalty                                    */
    float penalty, temperature;          /* temperature 0: scores are not divided               */
    int32_t n;
    int id_bits;                         /* n <= 1 << id_bits                                   */
    const uint16_t *classes, *next;      /* of the guide, and its state's row; NULL: every token may come */
    int32_t vocab;
    uint32_t denied;
    float best;                          /* the highest score                                   */
    const float *scores;                 /* of what was gathered, with                          */
    const int32_t *ids;
    int32_t listed;                      /* how many they are; -1: nothing was gathered          */
};

/* Operation by operation as on the host. -0 becomes 0, so that equal scores have equal bits. */
static __device__ __forceinline__ float score_of(const row &r, float logit, bool seen) {
    if (seen) logit = logit < 0 ? __fmul_rn(logit, r.penalty) : __fdiv_rn(logit, r.penalty);
    if (r.temperature > 0 && r.temperature != 1) logit = __fdiv_rn(logit, r.temperature);
    return __fadd_rn(logit, 0.f);
}

/* Smaller is better: the score's bits, turned so that they fall as it rises, then the id. */
static __device__ __forceinline__ u64 rank_of(const row &r, float score, int32_t i) {
    uint32_t bits = __float_as_uint(score);
    uint32_t down = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    return (u64)down << r.id_bits | (u64)i;
}

static __device__ __forceinline__ int bin_of(const row &r, float score) {
    float steps = __fmul_rn(__fsub_rn(r.best, score), (float)STEPS_A_NAT);
    return steps < (float)(BINS - 1) ? (int)steps : BINS - 1;        /* NaN and infinite: the last */
}

/* exp(score - best) in fixed point; the sum of a row stays below 2^62. 0 for all of the last bin. */
static __device__ __forceinline__ u64 weight_of(const row &r, float score) {
    int bits = 62 - r.id_bits < 45 ? 62 - r.id_bits : 45;
    return __double2ull_rn(exp((double)score - (double)r.best) * (double)(1ull << bits));
}

static __device__ __forceinline__ bool may_come(const row &r, int32_t id) {
    const uint32_t entry = id < r.vocab ? __ldg(r.next + __ldg(r.classes + id)) : 0;
    return entry && !(entry & r.denied);
}

/* f(score, id) for the thread's share of what was gathered, or of the row; several loads in flight. */
template <typename F> static __device__ __forceinline__ void each(const row &r, F f) {
    if (r.listed >= 0) {
        for (int32_t i = (int32_t)threadIdx.x; i < r.listed; i += THREADS) f(r.scores[i], r.ids[i]);
        return;
    }
    for (int32_t from = (int32_t)threadIdx.x; from < r.n; from += LOADS * THREADS) {
        float v[LOADS];
        bool seen[LOADS];
#pragma unroll
        for (int k = 0; k < LOADS; k++) {
            bool in = from + k * THREADS < r.n;
            v[k] = !in ? 0.f : !r.classes || may_come(r, from + k * THREADS) ? r.logits[from + k * THREADS] : -INFINITY;
            seen[k] = in && r.seen && r.seen[from + k * THREADS];
        }
#pragma unroll
        for (int k = 0; k < LOADS; k++)
            if (from + k * THREADS < r.n) f(score_of(r, v[k], seen[k]), from + k * THREADS);
    }
}

/* ---- the search ---- */

struct tables {
    uint32_t count[BINS], low[BINS], high[BINS];        /* low and high: the weights' halves    */
    u64 warps[THREADS / 32], total, before, rank;
    int bin;
    uint32_t in_bin, listed;
    float scores[LIST];
    int32_t ids[LIST];
};

static __device__ u64 shuffle(u64 v, int up) {
    return (u64)__shfl_up_sync(~0u, (uint32_t)(v >> 32), (unsigned)up) << 32 | __shfl_up_sync(~0u, (uint32_t)v, (unsigned)up);
}

/* Sums of all bins before each thread's two, and t.total. */
static __device__ u64 scan(tables &t, u64 own) {
    int lane = (int)threadIdx.x % 32, warp = (int)threadIdx.x / 32;
    u64 sum = own;
    for (int up = 1; up < 32; up *= 2) {
        u64 other = shuffle(sum, up);
        if (lane >= up) sum += other;
    }
    if (lane == 31) t.warps[warp] = sum;
    __syncthreads();
    if (warp == 0) {
        u64 all = t.warps[lane];
        for (int up = 1; up < 32; up *= 2) {
            u64 other = shuffle(all, up);
            if (lane >= up) all += other;
        }
        t.warps[lane] = all;
        if (lane == 31) t.total = all;
    }
    __syncthreads();
    return sum - own + (warp ? t.warps[warp - 1] : 0);
}

enum what { TOP_K, TOP_P, DRAW };

/* The sum that must be passed, given that of all ranks: as in sample.c's cut_top_k, cut_top_p and draw. */
static __device__ u64 wanted(what w, const rv_choice &how, u64 total) {
    if (w == TOP_K) return how.top_k - 1;
    if (w == DRAW) return __umul64hi(total, (u64)random24(how.seed, how.index) << 40);       /* u * total, rounded down */
    u64 dropped = (u64)((1.0 - (double)how.top_p) * (double)total);
    return dropped + 1 < total ? total - dropped - 1 : 0;
}

/* Counts (TOP_K) or weights of the ranks in [base, base + range) of first-histogram bin `bin` (-1: of all), in bins of
 * 1 << shift ranks. */
static __device__ void histogram(tables &t, const row &r, what w, u64 last, int bin, u64 base, u64 range, int shift) {
    for (int i = (int)threadIdx.x; i < BINS; i += THREADS) t.count[i] = t.low[i] = t.high[i] = 0;
    __syncthreads();
    const bool whole = bin < 0, any = last == ~0ull;
    each(r, [&](float score, int32_t id) {
        int b = bin_of(r, score);
        if (b == BINS - 1 || (!whole && b != bin)) return;
        if (!whole || !any) {
            u64 rank = rank_of(r, score, id);
            if (rank > last || (!whole && rank - base >= range)) return;
            if (!whole) b = (int)((rank - base) >> shift);
        }
        if (w != DRAW || !whole) atomicAdd(&t.count[b], 1u);
        if (w == TOP_K) return;
        u64 weight = weight_of(r, score);
        uint32_t low = (uint32_t)weight, high = (uint32_t)(weight >> 32);
        if (low && atomicAdd(&t.low[b], low) + low < low) high++;            /* carries, in whatever order, add up */
        if (high) atomicAdd(&t.high[b], high);
    });
    __syncthreads();
}

static __device__ u64 sum_of(const tables &t, what w, int b) { return w == TOP_K ? t.count[b] : (u64)t.high[b] << 32 | t.low[b]; }

/* Sets t.bin to the bin in which the running sum passes q, t.before to the sum before it; false: it never does. */
static __device__ bool pass_point(tables &t, what w, u64 first_sums, u64 q) {
    int b = 2 * (int)threadIdx.x;
    u64 a = sum_of(t, w, b), both = a + sum_of(t, w, b + 1);
    if (first_sums <= q && q < first_sums + both) {
        bool second = q >= first_sums + a;
        t.bin = b + second;
        t.before = first_sums + (second ? a : 0);
        t.in_bin = t.count[b + second];
    }
    __syncthreads();
    return q < t.total;
}

/* The range of ranks whose scores may fall into a bin of the first histogram: its edges, and what rounding may move them. */
static __device__ void bin_range(const row &r, int bin, u64 *base, u64 *range) {
    float slack = 1e-5f + 1e-6f * fabsf(r.best), step = 1.f / (float)STEPS_A_NAT;
    float high = r.best - (float)bin * step + slack, low = r.best - (float)(bin + 1) * step - slack;
    *base = rank_of(r, high, 0);
    *range = rank_of(r, low, 0) - *base + (1ull << r.id_bits);
}

/* Gathers the tokens up to `last` in the first histogram's bins up to `bin`, behind which a cut will be, if they are few. */
static __device__ void gather(tables &t, row &r, u64 last, int bin) {
    int b = 2 * (int)threadIdx.x;
    if (r.listed >= 0) return;
    scan(t, (b <= bin ? t.count[b] : 0) + (b + 1 <= bin ? t.count[b + 1] : 0));
    const u64 most = t.total;
    if (most > LIST) return;
    if (threadIdx.x == 0) t.listed = 0;
    __syncthreads();
    each(r, [&](float score, int32_t id) {
        if (bin_of(r, score) > bin || rank_of(r, score, id) > last) return;
        uint32_t at = atomicAdd(&t.listed, 1u);
        t.scores[at] = score;
        t.ids[at] = id;
    });
    __syncthreads();
    r.listed = (int32_t)most;
}

/* The first rank, of those up to `last`, at which the running sum passes what `w` wants, in *rank; false: it never does. */
static __device__ bool find(tables &t, row &r, what w, const rv_choice &how, u64 last, u64 *rank) {
    u64 base, range, q;
    histogram(t, r, w, last, -1, 0, 0, 0);
    u64 own = sum_of(t, w, 2 * (int)threadIdx.x) + sum_of(t, w, 2 * (int)threadIdx.x + 1), before = scan(t, own);
    q = wanted(w, how, t.total);
    if (!pass_point(t, w, before, q)) return false;
    const int bin = t.bin;
    q -= t.before;
    if (w != DRAW) gather(t, r, last, bin);
    bin_range(r, bin, &base, &range);
    while (range > 1) {
        int shift = 64 - __clzll((long long)(range - 1)) - 11;
        if (shift < 0) shift = 0;
        histogram(t, r, w, last, bin, base, range, shift);
        own = sum_of(t, w, 2 * (int)threadIdx.x) + sum_of(t, w, 2 * (int)threadIdx.x + 1);
        before = scan(t, own);
        if (!pass_point(t, w, before, q)) return false;              /* never: the bin's own sum passes it */
        q -= t.before;
        base += (u64)t.bin << shift;
        range = 1ull << shift;
        if (t.in_bin == 1 && range > 1) {                            /* a single token: look it up */
            each(r, [&](float score, int32_t id) {
                u64 own_rank = rank_of(r, score, id);
                if (own_rank <= last && own_rank - base < range && bin_of(r, score) == bin) t.rank = own_rank;
            });
            __syncthreads();
            base = t.rank;
            range = 1;
        }
    }
    *rank = base;
    return true;
}

/* ---- a row's token ---- */

/* The first id that has the highest score. */
static __device__ int32_t find_best(tables &t, row &r) {
    u64 best = ~0ull;
    each(r, [&](float score, int32_t id) {
        u64 rank = rank_of(r, score, id);
        best = rank < best ? rank : best;
    });
    for (int m = 16; m; m >>= 1) {
        u64 other = (u64)__shfl_xor_sync(~0u, (uint32_t)(best >> 32), m) << 32 | __shfl_xor_sync(~0u, (uint32_t)best, m);
        best = other < best ? other : best;
    }
    if (threadIdx.x % 32 == 0) t.warps[threadIdx.x / 32] = best;
    __syncthreads();
    for (int i = 0; i < THREADS / 32; i++) best = t.warps[i] < best ? t.warps[i] : best;
    __syncthreads();
    return (int32_t)(best & ((1ull << r.id_bits) - 1));
}

/* best: the row's most likely token; a penalty may make it another. */
static __device__ int32_t sample(tables &t, row &r, const rv_choice &how, int32_t best) {
    if (r.seen) best = find_best(t, r);
    if (how.temperature <= 0) return best;
    r.best = score_of(r, r.logits[best], r.seen && r.seen[best]);
    u64 last = ~0ull, rank;
    if (how.top_k < (uint32_t)r.n && find(t, r, TOP_K, how, last, &rank)) last = rank | ((1ull << r.id_bits) - 1);     /* ties stay */
    if (how.top_p < 1 && find(t, r, TOP_P, how, last, &rank)) last = rank;
    return find(t, r, DRAW, how, last, &rank) ? (int32_t)(rank & ((1ull << r.id_bits) - 1)) : best;
}

static __device__ void move_on(const rv_answering &a, int r, const row &logits, rv_best best) {
    rv_choice &how = a.how[r];
    bool on = best.id >= 0 && a.pos[r] < how.last;
    if (best.id >= 0) {
        a.ids[r] = best.id;
        if (rv_guide_on(&how.guide)) rv_guide_move(&how.guide, best.id);
        if (how.repetition_penalty != 1.f) a.seen[(int64_t)a.slot[r] * logits.n + best.id] = 1;
    }
    how.index++;
    a.pos[r] = on ? a.pos[r] + 1 : -1;
}

/* a.best holds each row's most likely token. */
static __global__ void __launch_bounds__(THREADS) choose_kernel(rv_answering a, const float *logits, int64_t ld, int32_t n, int id_bits) {
    __shared__ tables t;
    wait_for_previous();
    const int i = (int)blockIdx.x;
    if (a.pos[i] < 0) return;
    const rv_choice how = a.how[i];
    rv_best best = a.best[i];
    row r = { logits + i * ld, how.repetition_penalty != 1.f ? a.seen + (int64_t)a.slot[i] * n : nullptr, how.repetition_penalty, how.temperature, n,
              id_bits, nullptr, nullptr, how.guide.guide.vocab, rv_guide_denied(&how.guide), 0.f, t.scores, t.ids, -1 };
    if (rv_guide_on(&how.guide)) r.classes = how.guide.guide.classes, r.next = how.guide.guide.next + (int64_t)how.guide.state * how.guide.guide.n_classes;
    if (best.id >= 0 && (how.temperature > 0 || r.seen)) {
        int32_t id = sample(t, r, how, best.id);
        best.logprob = (float)((double)r.logits[id] - (double)r.logits[best.id] + (double)best.logprob);
        best.id = id;
    }
    __syncthreads();                     /* all have read the flags that change now              */
    if (threadIdx.x) return;
    a.best[i] = best;
    move_on(a, i, r, best);
}

cudaError_t rv_cuda_choose(const rv_answering *a, rv_mat logits, bool overlap, cudaStream_t stream) {
    int id_bits = 1;
    while (1ll << id_bits < logits.cols) id_bits++;
    return launch_kernel(choose_kernel, dim3((unsigned)logits.rows), THREADS, 0, overlap, stream, *a, (const float *)logits.data, logits.ld, logits.cols,
                         id_bits);
}
