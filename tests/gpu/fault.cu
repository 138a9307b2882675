/* fault.cu - a kernel that breaks the context it runs in. */
#include <cuda_runtime.h>
#include <stdint.h>

#include "tests/gpu/fault.h"

static __global__ void write_to(int *p) { *p = 1; }

cudaError_t fault_launch(cudaStream_t stream) {
    write_to<<<1, 1, 0, stream>>>((int *)(uintptr_t)256);
    return cudaGetLastError();
}
