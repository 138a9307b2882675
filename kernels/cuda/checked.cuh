/* checked.cuh - what kernels say otherwise when compute-sanitizer looks on (RV_COMPUTE_SANITIZER; docs/hardening.md).
 *
 * Both forms are right by PTX, but its tools follow only the second: racecheck who arrives at a barrier, not whom that lane's warp had met
 * before, and of words that warps tell one another by only atomics; synccheck only barriers that all come to at one instruction, or that are not `aligned`.
 */
#ifndef RV_KERNELS_CUDA_CHECKED_CUH
#define RV_KERNELS_CUDA_CHECKED_CUH
#include <stdint.h>

/* A barrier of some of a block's warps: followed by its number and its threads.  WARP_ARRIVALS: lanes of a warp that say at an mbarrier what
 * all of them have done. */
#ifdef RV_COMPUTE_SANITIZER
#define RV_BAR "barrier"
enum { WARP_ARRIVALS = 32 };
static __device__ __forceinline__ void post(int32_t &word, int32_t v) { atomicExch(&word, v); }
static __device__ __forceinline__ int32_t posted(const int32_t &word) { return atomicOr(const_cast<int32_t *>(&word), 0); }
#else
#define RV_BAR "bar"                     /* each warp as a whole              */
enum { WARP_ARRIVALS = 1 };
/* A word of shared memory that one thread writes and others look at again and again. */
static __device__ __forceinline__ void post(int32_t &word, int32_t v) { *(volatile int32_t *)&word = v; }
static __device__ __forceinline__ int32_t posted(const int32_t &word) { return *(const volatile int32_t *)&word; }
#endif

#endif
