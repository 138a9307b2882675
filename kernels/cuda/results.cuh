/* results.cuh - what a product makes of its sums, from an rv_few to what the compiler knows: the type O of results, and HOW. */
#ifndef RV_KERNELS_CUDA_RESULTS_CUH
#define RV_KERNELS_CUDA_RESULTS_CUH
#include "kernels/cuda/cuda.h"

template <typename O_, int HOW_> struct result_kind {
    using O = O_;
    static constexpr int HOW = HOW_;
};

/* launch: called with the result_kind that p describes.  T: act. */
template <typename T, typename F> static cudaError_t by_results(const rv_few *p, F launch) {
    switch (p->how) {
    case rv_few::RV_FEW_STORE: return p->out.type == RV_F32 ? launch(result_kind<float, rv_few::RV_FEW_STORE>()) : launch(result_kind<T, rv_few::RV_FEW_STORE>());
    case rv_few::RV_FEW_GELU: return launch(result_kind<T, rv_few::RV_FEW_GELU>());
    case rv_few::RV_FEW_SWIGLU: return launch(result_kind<T, rv_few::RV_FEW_SWIGLU>());
    case rv_few::RV_FEW_ADD: return launch(result_kind<float, rv_few::RV_FEW_ADD>());
    }
    return cudaErrorInvalidValue;
}
#endif
