/* sample.cu - choosing the next token on the device, and moving the row to it.
 *
 * The one idea: tokens are ranked by one 64-bit number (score from the best down, then id from 0 up), and
 * everything that sampling asks is "at which rank does a running sum pass q": of counts for top-k, of weights
 * exp(score - best) for top-p and for the draw.  A row's blocks put its tokens into bins of 1/64 nat below the best and add up
 * what each bin holds; the last of them finds the bin, and among its few tokens the rank.  No sorting, and the row is read once.
 * Weights are integers (fixed point), so that their sums do not depend on any order.
 *
 * The rules are those of engine/sample.c, and so are the outcomes, unless a sum comes within some 1e-11 of q.
 */
#include "kernels/cuda/choice.cuh"
#include "kernels/cuda/launch.cuh"

enum { THREADS = SHARE / EACH, WARPS = THREADS / 32,
       OWN = BINS / THREADS,             /* neighbouring bins of a thread                       */
       LIST = THREADS,                   /* most tokens that are compared with one another      */
       STEPS_A_NAT = 64,                 /* first histogram: 32 nats below the best; less is weight 0 */
       NEVER = BINS - 1 };               /* its last bin, of tokens that no sum counts          */

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
    float penalty, temperature;
    int32_t n;
    int id_bits;                         /* n <= 1 << id_bits                                   */
    float best;                          /* the highest score                                   */
    int32_t shares;
    uint32_t *counts;                    /* of the row's room (choice.cuh)                      */
    u64 *weights;
    uint16_t *ends, *order;
    float *scores;
};

/* Smaller is better: the score's bits, turned so that they fall as it rises, then the id. */
static __device__ __forceinline__ u64 rank_of(const row &r, float score, int32_t i) {
    uint32_t bits = __float_as_uint(score);
    uint32_t down = bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
    return (u64)down << r.id_bits | (u64)i;
}

static __device__ __forceinline__ int bin_of(const row &r, float score) {
    float steps = __fmul_rn(__fsub_rn(r.best, score), (float)STEPS_A_NAT);
    return steps < (float)NEVER ? (int)steps : NEVER;                /* NaN and infinite, too */
}

/* exp(score - best) in fixed point; the sum of a row stays below 2^62. */
static __device__ __forceinline__ u64 fixed_exp(float score, float best, int id_bits) {
    int bits = 62 - id_bits < 45 ? 62 - id_bits : 45;
    return __double2ull_rn(exp((double)score - (double)best) * (double)(1ull << bits));
}
/* A function where few tokens need it: code has to come from memory, too. */
static __device__ __noinline__ u64 called_exp(float score, float best, int id_bits) { return fixed_exp(score, best, id_bits); }
static __device__ __forceinline__ u64 weight_of(const row &r, float score) { return called_exp(score, r.best, r.id_bits); }

/* ---- sums over a block ---- */

struct tables {
    alignas(16) uint32_t count[BINS];
    alignas(16) uint32_t low[BINS], high[BINS];         /* weights' halves                     */
    union {
        ulonglong2 list[LIST];                          /* ranks and weights of gathered tokens */
        uint16_t order[SHARE];                          /* before: a share's tokens             */
    };
    u64 warps[WARPS], total, before, rank, upto;
    int bin;
    uint32_t in_bin, listed, last_block, in_order;
    row r;                                              /* and what the search's registers have no room for */
    rv_choice how;
    rv_best best;
};

static __device__ u64 shuffle(u64 v, int up) {
    return (u64)__shfl_up_sync(~0u, (uint32_t)(v >> 32), (unsigned)up) << 32 | __shfl_up_sync(~0u, (uint32_t)v, (unsigned)up);
}

static __device__ u64 shuffle_xor(u64 v, int m) {
    return (u64)__shfl_xor_sync(~0u, (uint32_t)(v >> 32), m) << 32 | __shfl_xor_sync(~0u, (uint32_t)v, m);
}

/* The sum over all threads before this one, and over all in t.total. */
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
        u64 all = lane < WARPS ? t.warps[lane] : 0;
        for (int up = 1; up < WARPS; up *= 2) {
            u64 other = shuffle(all, up);
            if (lane >= up) all += other;
        }
        if (lane < WARPS) t.warps[lane] = all;
        if (lane == WARPS - 1) t.total = all;
    }
    __syncthreads();
    return sum - own + (warp ? t.warps[warp - 1] : 0);
}

static __device__ void clear(tables &t) {
    const uint4 zero = make_uint4(0, 0, 0, 0);
    ((uint4 *)t.count)[threadIdx.x] = ((uint4 *)t.low)[threadIdx.x] = ((uint4 *)t.high)[threadIdx.x] = zero;
    __syncthreads();
}

static __device__ __forceinline__ void add_weight(tables &t, int b, u64 weight) {
    uint32_t low = (uint32_t)weight, high = (uint32_t)(weight >> 32);
    if (low && atomicAdd(&t.low[b], low) + low < low) high++;        /* carries, in whatever order, add up */
    if (high) atomicAdd(&t.high[b], high);
}

/* Of a thread's tokens, a bit each, several at once: what each takes is time, not instructions. */
static __device__ __forceinline__ void add_weights(tables &t, const row &r, const float *scores, uint32_t mine) {
    enum { TOGETHER = 2 };
#pragma unroll 1
    while (mine) {
        float score[TOGETHER];
        uint32_t low[TOGETHER], high[TOGETHER];
        int bin[TOGETHER];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++, mine &= mine - 1) score[i] = mine ? scores[(__ffs((int)mine) - 1) * BEST_THREADS] : -INFINITY;
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) {
            const u64 weight = fixed_exp(score[i], r.best, r.id_bits);
            low[i] = (uint32_t)weight, high[i] = (uint32_t)(weight >> 32);
            bin[i] = bin_of(r, score[i]);
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) high[i] += low[i] && atomicAdd(&t.low[bin[i]], low[i]) + low[i] < low[i];
#pragma unroll
        for (int i = 0; i < TOGETHER; i++)
            if (high[i]) atomicAdd(&t.high[bin[i]], high[i]);
    }
}

static __device__ u64 weight_in(const tables &t, int b) { return (u64)t.high[b] << 32 | t.low[b]; }

/* ---- a block's share of a row: into bins ---- */

/* How many of the best tokens the answer depends on. */
static __device__ uint32_t wanted_tokens(const row &r, const rv_choice &how) { return how.top_k && how.top_k < (uint32_t)r.n ? how.top_k : UINT32_MAX; }

/* allowed: bits of the thread's tokens. Only what is among the share's best tokens that the answer may depend on is kept in order. */
static __device__ void spread(tables &t, const row &r, uint32_t most, uint32_t allowed) {
    const int32_t within = (int32_t)threadIdx.x / BEST_THREADS * PART + (int32_t)threadIdx.x % BEST_THREADS, from = (int32_t)blockIdx.x * SHARE + within;
    uint16_t *const ends = r.ends + (int64_t)blockIdx.x * BINS, *const order = r.order + (int64_t)blockIdx.x * SHARE;
    float *const scores = r.scores + (int64_t)blockIdx.x * SHARE;
    float score[EACH];
    uint32_t at[EACH];                   /* bin, and how many of the bin came before            */
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const int32_t id = from + k * BEST_THREADS;
        score[k] = id < r.n ? __ldcg(r.logits + id) : -INFINITY;
    }
    clear(t);
    if (r.seen) {                        /* score_of, a step at a time                           */
#pragma unroll
        for (int k = 0; k < EACH; k++)
            if (from + k * BEST_THREADS < r.n && r.seen[from + k * BEST_THREADS]) score[k] = penalised(score[k], r.penalty);
    }
    if (divides(r.temperature)) {
#pragma unroll
        for (int k = 0; k < EACH; k++) score[k] = __fdiv_rn(score[k], r.temperature);
    }
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        score[k] = allowed >> k & 1 ? __fadd_rn(score[k], 0.f) : -INFINITY;
        const int bin = bin_of(r, score[k]);
        at[k] = bin == NEVER ? ~0u : (uint32_t)bin << 16 | atomicAdd(&t.count[bin], 1u);
    }
    __syncthreads();
    uint4 &own = ((uint4 *)t.count)[threadIdx.x];
    const uint4 n = own;
    const uint32_t start = (uint32_t)scan(t, n.x + n.y + n.z + n.w), end = start + n.x + n.y + n.z + n.w;
    own = make_uint4(start, start + n.x, start + n.x + n.y, end - n.w);
    if (start < most) {
        __stcg((ushort4 *)ends + threadIdx.x, make_ushort4((uint16_t)own.y, (uint16_t)own.z, (uint16_t)own.w, (uint16_t)end));
        uint32_t *counts = r.counts + OWN * threadIdx.x;
        if (n.x) atomicAdd(counts, n.x);
        if (n.y) atomicAdd(counts + 1, n.y);
        if (n.z) atomicAdd(counts + 2, n.z);
        if (n.w) atomicAdd(counts + 3, n.w);
        if (end >= most || threadIdx.x == THREADS - 1) t.in_order = end;
    }
    __syncthreads();
    const uint32_t kept = t.in_order;
    uint32_t mine = 0;                   /* a bit for each of the thread's tokens that is kept  */
#pragma unroll
    for (int k = 0; k < EACH; k++) {
        const int32_t id = within + k * BEST_THREADS;
        const uint32_t first = at[k] == ~0u ? ~0u : t.count[at[k] >> 16];
        if (first >= kept) continue;
        t.order[first + (at[k] & 0xffff)] = (uint16_t)id;
        scores[id] = score[k];
        mine |= 1u << k;
    }
    add_weights(t, r, scores + within, mine);
    __syncthreads();
    for (uint32_t i = threadIdx.x; i < kept; i += THREADS) order[i] = t.order[i];
    for (int b = (int)threadIdx.x; b < BINS; b += THREADS) {
        const u64 weight = weight_in(t, b);
        if (weight) atomicAdd(r.weights + b, weight);
    }
}

/* ---- the search, by the last block ---- */

/* f(score, id) for the thread's tokens of bins [low, high]; several loads in flight. Shares have several warps each, or warps several shares. */
template <typename F> static __device__ __forceinline__ void each(const row &r, int low, int high, F f) {
    const int32_t lane = (int32_t)threadIdx.x % 32, warp = (int32_t)threadIdx.x / 32, together = r.shares < WARPS ? WARPS / r.shares : 1;
#pragma unroll 1
    for (int32_t share = warp / together; share < r.shares; share += WARPS) {
        const uint16_t *ends = r.ends + (int64_t)share * BINS, *order = r.order + (int64_t)share * SHARE;
        const float *scores = r.scores + (int64_t)share * SHARE;
        const int32_t begin = low ? __ldcg(ends + low - 1) : 0, end = __ldcg(ends + high);
#pragma unroll 4
        for (int32_t i = begin + warp % together * 32 + lane; i < end; i += 32 * together) {
            const int32_t id = __ldcg(order + i);
            f(__ldcg(scores + id), share * SHARE + id);
        }
    }
}

enum what { TOP_K, TOP_P, DRAW };

/* The sum that must be passed, given that of all ranks: as in sample.c's cut_top_k, cut_top_p and draw. */
static __device__ u64 wanted(what w, const rv_choice &how, u64 total) {
    if (w == TOP_K) return how.top_k - 1;
    if (w == DRAW) return __umul64hi(total, (u64)random24(how.seed, how.index) << 40);       /* u * total, rounded down */
    u64 dropped = (u64)((1.0 - (double)how.top_p) * (double)total);
    return dropped + 1 < total ? total - dropped - 1 : 0;
}

/* The thread's bins of a histogram: how many tokens they hold, and what is summed. */
struct bins { uint32_t count[OWN]; u64 sum[OWN]; };

static __device__ u64 sum_of(const bins &b) { return b.sum[0] + b.sum[1] + b.sum[2] + b.sum[3]; }

/* Sets t.bin to the bin in which the running sum passes q, t.before to the sum before it and t.in_bin to its count; false: it never does. */
static __device__ bool pass_point(tables &t, const bins &b, u64 before, u64 q) {
#pragma unroll
    for (int i = 0; i < OWN; before += b.sum[i], i++)
        if (before <= q && q - before < b.sum[i]) t.bin = OWN * (int)threadIdx.x + i, t.before = before, t.in_bin = b.count[i];
    __syncthreads();
    return q < t.total;
}

/* What the search knows: of a row's ranks those up to `last` count, which are bins before `bin`, and `weight` in that one. */
struct kept {
    u64 last, weight;
    int bin;
    bool listed;                         /* all that counts is in t.list                        */
};

/* The tokens of bins [low, high] with ranks up to `last` in [base, base + range), not more than LIST, into t.list. */
static __device__ void gather(tables &t, const row &r, int low, int high, u64 last, u64 base, u64 range) {
    if (threadIdx.x == 0) t.listed = 0;
    __syncthreads();
    each(r, low, high, [&](float score, int32_t id) {
        const u64 rank = rank_of(r, score, id);
        if (rank <= last && rank - base < range) t.list[atomicAdd(&t.listed, 1u)] = make_ulonglong2(rank, weight_of(r, score));
    });
    __syncthreads();
}

/* In the list, of ranks up to `last`: t.rank is where the running sum passes q (whole: what is wanted of the list's total), t.upto the sum with it;
 * false: it never does.  Eight lanes compare a token with all others. */
static __device__ bool find_listed(tables &t, what w, const rv_choice &how, u64 last, bool whole, u64 q) {
    enum { LANES = 8, TOKENS = THREADS / LANES };
    const uint32_t n = t.listed, lane = threadIdx.x % LANES;
    bool found = false;
    __syncthreads();                     /* all have read t.rank of the time before             */
#pragma unroll 1
    for (uint32_t i = threadIdx.x / LANES; i < (n + TOKENS - 1) / TOKENS * TOKENS; i += TOKENS) {
        const ulonglong2 own = i < n ? t.list[i] : make_ulonglong2(~0ull, 0);
        u64 before = 0, total = 0;
        for (uint32_t k = lane; k < n; k += LANES) {
            const ulonglong2 other = t.list[k];
            const u64 x = other.x > last ? 0 : w == TOP_K ? 1 : other.y;
            total += x;
            if (other.x < own.x) before += x;
        }
#pragma unroll
        for (int m = LANES / 2; m; m >>= 1) {
            before += shuffle_xor(before, m);
            total += shuffle_xor(total, m);
        }
        if (whole) q = wanted(w, how, total);
        const u64 x = i >= n || own.x > last ? 0 : w == TOP_K ? 1 : own.y;
        if (lane == 0 && before <= q && q - before < x) t.rank = own.x, t.upto = before + x, found = true;
    }
    return __syncthreads_or(found);
}

/* The range of ranks whose scores may fall into a bin of the first histogram: its edges, and what rounding may move them. */
static __device__ void bin_range(const row &r, int bin, u64 *base, u64 *range) {
    float slack = 1e-5f + 1e-6f * fabsf(r.best), step = 1.f / (float)STEPS_A_NAT;
    float high = r.best - (float)bin * step + slack, low = r.best - (float)(bin + 1) * step - slack;
    *base = rank_of(r, high, 0);
    *range = rank_of(r, low, 0) - *base + (1ull << r.id_bits);
}

/* In bin `bin` of the first histogram, which holds t.in_bin tokens, cut to a range of ranks with LIST of them at most: *q is what is still to be passed there, *base and
 * *range say where; false: q is never passed. */
static __device__ bool narrow(tables &t, const row &r, what w, u64 last, int bin, u64 *q, u64 *base, u64 *range) {
    bin_range(r, bin, base, range);
    do {
        int shift = 64 - __clzll((long long)(*range - 1)) - 11;
        if (shift < 0) shift = 0;
        clear(t);
        each(r, bin, bin, [&](float score, int32_t id) {
            const u64 rank = rank_of(r, score, id);
            if (rank > last || rank - *base >= *range) return;
            const int b = (int)((rank - *base) >> shift);
            atomicAdd(&t.count[b], 1u);
            if (w != TOP_K) add_weight(t, b, weight_of(r, score));
        });
        __syncthreads();
        bins b;
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            b.count[i] = t.count[OWN * threadIdx.x + i];
            b.sum[i] = w == TOP_K ? b.count[i] : weight_in(t, OWN * (int)threadIdx.x + i);
        }
        const u64 before = scan(t, sum_of(b));
        if (!pass_point(t, b, before, *q)) return false;             /* never: the bin's own sum passes it */
        *q -= t.before;
        *base += (u64)t.bin << shift;
        *range = 1ull << shift;
    } while (t.in_bin > LIST);
    return true;
}

/* What the tokens of a bin with ranks up to `last` weigh. */
static __device__ u64 weigh(tables &t, const row &r, int bin, u64 last) {
    u64 sum = 0;
    each(r, bin, bin, [&](float score, int32_t id) { sum += rank_of(r, score, id) <= last ? weight_of(r, score) : 0; });
    scan(t, sum);
    sum = t.total;
    __syncthreads();                     /* before the next scan                                 */
    return sum;
}

/* Cuts k to what w keeps, or finds what is drawn: t.rank is the last rank that is kept, or the one drawn; false: there is nothing to cut, or to draw. */
static __device__ bool find(tables &t, const row &r, kept &k, what w, const rv_choice &how) {
    int bin = 0;
    u64 q = 0, wanted_there = 0;
    const bool listed = k.listed;
    if (!listed) {
        const uint4 n = __ldcg((const uint4 *)r.counts + threadIdx.x);
        const ulonglong2 first = __ldcg((const ulonglong2 *)r.weights + 2 * threadIdx.x), second = __ldcg((const ulonglong2 *)r.weights + 2 * threadIdx.x + 1);
        bins b = { { n.x, n.y, n.z, n.w }, { first.x, first.y, second.x, second.y } };
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            const int own = OWN * (int)threadIdx.x + i;
            b.sum[i] = w == TOP_K ? b.count[i] : own < k.bin ? b.sum[i] : own == k.bin ? k.weight : 0;
        }
        const u64 before = scan(t, sum_of(b));
        q = wanted(w, how, t.total);
        if (!pass_point(t, b, before, q)) return false;
        bin = t.bin;
        wanted_there = q - t.before;
        k.listed = w == TOP_K && t.before + t.in_bin <= LIST;        /* all that will ever count     */
        u64 base = 0, range = ~0ull, rest = wanted_there;
        if (!k.listed && t.in_bin > LIST && !narrow(t, r, w, k.last, bin, &rest, &base, &range)) return false;
        gather(t, r, k.listed ? 0 : bin, bin, k.last, base, range);
        if (!k.listed) q = rest;
    }
    if (!find_listed(t, w, how, k.last, listed, q)) return false;
    k.last = t.rank | (w == TOP_K ? (1ull << r.id_bits) - 1 : 0);    /* ties stay */
    if (k.listed) return true;
    k.bin = bin;
    k.weight = w == TOP_K ? weigh(t, r, bin, k.last) : wanted_there - q + t.upto;
    return true;
}

/* The row's token; best: the one with the highest score. */
static __device__ int32_t search(tables &t, const row &r, const rv_choice &how, int32_t best) {
    kept k = { ~0ull, 0, BINS, false };
    bool found = false;
#pragma unroll 1
    for (int w = wanted_tokens(r, how) == UINT32_MAX; w <= DRAW; w++)
        if (w != TOP_P || how.top_p < 1) found = find(t, r, k, (what)w, how);
    return found ? (int32_t)(t.rank & ((1ull << r.id_bits) - 1)) : best;
}

/* ---- a row's token ---- */

/* The row gets its token: by one thread. Everything is asked for before anything is written. */
static __device__ void move_on(const rv_answering &a, int r, const float *logits, int32_t n, const rv_choice &how, rv_best best, int32_t id) {
    const int32_t pos = a.pos[r], slot = a.slot[r];
    const bool moves = best.id >= 0, on = moves && pos < how.last, penalty = how.repetition_penalty != 1.f, chosen = moves && (how.temperature > 0 || penalty);
    rv_guide_row guide = how.guide;
    if (moves && rv_guide_on(&guide)) rv_guide_move(&guide, id);
    if (chosen) best.logprob = (float)((double)logits[id] - (double)logits[best.id] + (double)best.logprob);
    if (chosen) best.id = id, a.best[r] = best;
    if (moves) {
        a.ids[r] = id;
        a.how[r].guide.state = guide.state;
        a.how[r].guide.cells = guide.cells;
        if (penalty) a.seen[(int64_t)slot * n + id] = 1;
    }
    a.how[r].index = how.index + 1;
    a.pos[r] = on ? pos + 1 : -1;
}

/* a.best holds each row's most likely token, `room` what best.cu left besides.  A row that draws nothing needs one thread; what its other
 * blocks ask for may be changing, and they do not look at it. */
static __global__ void __launch_bounds__(THREADS, 2) choose_kernel(rv_answering a, const float *logits, int64_t ld, int32_t n, int id_bits, int32_t *counters, choice_room room) {
    __shared__ tables t;
    wait_for_previous();
    const int i = (int)blockIdx.y;
    const int32_t shares = (int32_t)gridDim.x;
    logits += i * ld;
    const rv_choice how = a.how[i];      /* all at once: each is a trip to L2                    */
    const rv_best best = a.best[i];
    const int32_t pos = a.pos[i], slot = a.slot[i], top = room.top[i];
    const bool draws = best.id >= 0 && how.temperature > 0, penalty = how.repetition_penalty != 1.f;
    if ((blockIdx.x || threadIdx.x) && !draws) return;
    if (pos < 0) return;
    int32_t id = penalty && top < n ? top : best.id;         /* the penalty may leave -inf alone */
    if (threadIdx.x == 0) t.how = how, t.best = best;
    if (draws) {
        row r = { logits, penalty ? a.seen + (int64_t)slot * n : nullptr, how.repetition_penalty, how.temperature, n, id_bits, 0.f, shares,
                  room.counts + i * BINS, room.weights + i * BINS, room.ends + (int64_t)i * shares * BINS, room.order + (int64_t)i * shares * SHARE,
                  room.scores + (int64_t)i * shares * SHARE };
        const int32_t parts = parts_of(n, PART), part = (int32_t)blockIdx.x * (SHARE / PART) + (int32_t)threadIdx.x / BEST_THREADS;
        uint32_t allowed = ~0u;
        if (rv_guide_on(&how.guide) && part < parts) allowed = __ldcg(room.allowed + ((int64_t)i * parts + part) * BEST_THREADS + threadIdx.x % BEST_THREADS);
        r.best = score_of(__ldcg(logits + id), r.seen && r.seen[id], r.penalty, r.temperature);
        spread(t, r, wanted_tokens(r, how), allowed);
        __syncthreads();
        if (threadIdx.x == 0) t.r = r, t.last_block = comes_last(counters + i, shares);
        __syncthreads();
        if (!t.last_block) return;
        id = search(t, t.r, t.how, id);
        if (threadIdx.x) return;
    }
    move_on(a, i, logits, n, t.how, t.best, id);
}

cudaError_t rv_cuda_choose(const rv_answering *a, rv_mat logits, void *partial, bool overlap, cudaStream_t stream) {
    uint64_t bytes;
    int id_bits = 1;
    int32_t most = logits.rows < RV_CUDA_ATTEND_COUNTERS ? logits.rows : RV_CUDA_ATTEND_COUNTERS;
    while (1ll << id_bits < logits.cols) id_bits++;
    while (most && rv_cuda_choose_bytes(most, logits.cols) > RV_CUDA_PARTIAL_BYTES) most /= 2;
    cudaError_t e = most ? cudaSuccess : cudaErrorInvalidValue;
    for (int32_t from = 0; from < logits.rows && !e; from += most) {
        const rv_mat some = rv_rows(logits, from, logits.rows - from < most ? logits.rows - from : most);
        const rv_answering of = { a->ids + from, a->pos + from, a->slot + from, a->how + from, a->seen, a->best + from };
        const choice_room room = choice_room_of(partial, some.rows, some.cols, &bytes);
        e = rv_cuda_best_for_choice(&of, some, partial, &room, overlap, stream);
        if (!e) e = launch_kernel(choose_kernel, dim3((unsigned)parts_of(some.cols, SHARE), (unsigned)some.rows), THREADS, 0, overlap, stream, of, (const float *)some.data,
                                  some.ld, some.cols, id_bits, (int32_t *)partial, room);
    }
    return e;
}
