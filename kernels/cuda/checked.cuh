/* checked.cuh - what kernels say otherwise when compute-sanitizer looks on (RV_COMPUTE_SANITIZER; docs/hardening.md).
 *
 * Both forms are right by PTX, but its tools follow only the second: racecheck who arrives at a barrier, not whom that lane's warp had met
 * before; synccheck only barriers that all come to at one instruction, or that are not `aligned`.
 */
#ifndef RV_KERNELS_CUDA_CHECKED_CUH
#define RV_KERNELS_CUDA_CHECKED_CUH

/* A barrier of some of a block's warps: followed by its number and its threads.  WARP_ARRIVALS: lanes of a warp that say at an mbarrier what
 * all of them have done. */
#ifdef RV_COMPUTE_SANITIZER
#define RV_BAR "barrier"
enum { WARP_ARRIVALS = 32 };
#else
#define RV_BAR "bar"                     /* each warp as a whole              */
enum { WARP_ARRIVALS = 1 };
#endif

#endif
