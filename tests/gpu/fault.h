/* fault.h - breaking a GPU's context on purpose. */
#ifndef RV_TESTS_GPU_FAULT_H
#define RV_TESTS_GPU_FAULT_H
#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif
/* Queues a write to an illegal address: every later call that waits fails with cudaErrorIllegalAddress, in the whole process. */
cudaError_t fault_launch(cudaStream_t stream);
#ifdef __cplusplus
}
#endif
#endif
