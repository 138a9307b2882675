/* choice.cuh - what best.cu leaves for sample.cu, and what both make of a logit.
 *
 * The one idea: a row is looked at twice, each time by many blocks: first for its best token and for which tokens its guide
 * allows, then for how its scores lie below the best one.  What the blocks leave lies in `partial`, which is planned for attention.
 */
#ifndef RV_KERNELS_CUDA_CHOICE_CUH
#define RV_KERNELS_CUDA_CHOICE_CUH
#include "kernels/cuda/act.cuh"
#include "kernels/cuda/cuda.h"

enum { BEST_THREADS = 256, EACH = 16, PART = EACH * BEST_THREADS,    /* logits of a thread and of a block of best.cu */
       SHARE = 2 * PART,                                             /* and of a block of sample.cu                  */
       BINS = 2048 };                                                /* of a histogram                               */

/* What a thread, a warp or a block has seen: the best logit and the sum of exp(logit - best); of tokens that the row's guide
 * allows, the best one, and their sum of exp(logit - allowed) (without a guide: 0); with a penalty the best score among them. */
struct alignas(16) seen { float best, sum; int32_t id, bad; float allowed, allowed_sum, top; int32_t top_id; };

/* Per row.  allowed: bit k of thread t of part p is token PART * p + BEST_THREADS * k + t (of guided rows that draw); top: the id of the best score (of rows with a
 * penalty); counts, weights: of the row's first histogram, zero when sample.cu begins; order: of a share the tokens that count, best bins first, as ids less
 * SHARE times its number; ends: where each bin ends in there; scores: theirs, by that id. */
struct choice_room { seen *parts; uint16_t *allowed; int32_t *top; uint32_t *counts; unsigned long long *weights; uint16_t *ends, *order; float *scores; };

static __host__ __device__ inline int32_t parts_of(int32_t cols, int32_t size) { return cols > 0 ? (cols - 1) / size + 1 : 1; }

/* In `partial`, behind its counters; *bytes: what all of it takes. */
static inline choice_room choice_room_of(void *partial, int32_t rows, int32_t cols, uint64_t *bytes) {
    const uint64_t n = (uint64_t)rows, parts = (uint64_t)parts_of(cols, PART), shares = (uint64_t)parts_of(cols, SHARE);
    uint64_t at = RV_CUDA_COUNTERS * sizeof(int32_t);
    auto take = [&](uint64_t size) {
        char *p = (char *)partial + at;
        at += (size + 255) / 256 * 256;
        return p;
    };
    choice_room r;
    r.parts = (seen *)take(n * parts * sizeof(seen));
    r.allowed = (uint16_t *)take(n * parts * BEST_THREADS * sizeof(uint16_t));
    r.top = (int32_t *)take(n * sizeof(int32_t));
    r.counts = (uint32_t *)take(n * BINS * sizeof(uint32_t));
    r.weights = (unsigned long long *)take(n * BINS * sizeof(unsigned long long));
    r.ends = (uint16_t *)take(n * shares * BINS * sizeof(uint16_t));
    r.order = (uint16_t *)take(n * shares * SHARE * sizeof(uint16_t));
    r.scores = (float *)take(n * shares * SHARE * sizeof(float));
    *bytes = at;
    return r;
}

/* best.cu: each row's best token to a->best, and the rest of it to `room`. */
cudaError_t rv_cuda_best_for_choice(const rv_answering *a, rv_mat logits, void *partial, const choice_room *room, bool overlap, cudaStream_t stream);

/* By one thread of a block, behind a barrier of the block: whether it is the last of a row's blocks, which then sees what all have left.  The counter is zero
 * again for the next launch. */
static __device__ __forceinline__ bool comes_last(int32_t *counter, int32_t blocks) {
    int32_t before;
    asm volatile("atom.acq_rel.gpu.global.add.s32 %0, [%1], 1;" : "=r"(before) : "l"(counter) : "memory");
    if (before == blocks - 1) *counter = 0;
    return before == blocks - 1;
}

/* A token's score, operation by operation as engine/sample.c has it. temperature 0: not divided. -0 becomes 0, so that equal scores have equal bits. */
static __device__ __forceinline__ float penalised(float logit, float penalty) { return logit < 0 ? __fmul_rn(logit, penalty) : __fdiv_rn(logit, penalty); }
static __device__ __forceinline__ bool divides(float temperature) { return temperature > 0 && temperature != 1; }
static __device__ __forceinline__ float score_of(float logit, bool seen, float penalty, float temperature) {
    if (seen) logit = penalised(logit, penalty);
    if (divides(temperature)) logit = __fdiv_rn(logit, temperature);
    return __fadd_rn(logit, 0.f);
}
#endif
