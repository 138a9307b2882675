/* memory.c - device memory, and the host's that a device reads: taking it, giving it back, and saying by how much it did not fit.
 *
 * The one idea: memory is taken when a backend is opened, a model loaded or a session made, here, and at no other time.
 */
#include "kernels/cuda/open.h"

void rv_cuda_no_memory(rv_cuda *c, uint64_t bytes, const char *what) {
    size_t unused = 0, total = 0;
    cudaGetLastError();                  /* else the next launch reports it as its own            */
    if (c->be.error.code) return;
    if (cudaMemGetInfo(&unused, &total)) unused = 0;
    rv_fail(&c->be.error, RV_ERR_DEVICE_MEMORY, "GPU %d: out of memory: %s wants %.1f MB, %.1f of %.1f MB are free: ask for less (fewer slots, "
            "less context), or free the GPU", c->device, what, (double)bytes / 1e6, (double)unused / 1e6, (double)total / 1e6);
}

void *rv_cuda_take(rv_cuda *c, uint64_t bytes, const char *what) {
    void *p = NULL;
    cudaError_t e = cudaMalloc(&p, bytes ? bytes : 1);
    if (e == cudaErrorMemoryAllocation) return rv_cuda_no_memory(c, bytes, what), NULL;
    if (!e) e = cudaMemsetAsync(p, 0, bytes, c->stream);
    if (!e) e = cudaStreamSynchronize(c->stream);        /* weights arrive on other streams           */
    if (!e) return p;
    rv_cuda_failed(c, e, what);
    cudaFree(p);
    return NULL;
}

void rv_cuda_give_back(rv_cuda *c, void *p) {
    if (!p) return;
    cudaStreamSynchronize(c->stream);
    cudaFree(p);
}

void *rv_cuda_take_host(rv_cuda *c, uint64_t bytes) {
    void *p = NULL;
    cudaError_t e = cudaHostAlloc(&p, bytes ? bytes : 1, cudaHostAllocMapped);
    if (!e) return p;
    cudaGetLastError();                  /* else the next launch reports it as its own            */
    if (e != cudaErrorMemoryAllocation) rv_cuda_failed(c, e, "taking pinned host memory");
    else rv_fail(&c->be.error, RV_ERR_MEMORY, "GPU %d: out of memory: %.1f MB of pinned host memory are not to be had: keep the embedding on the device, or "
                 "free memory of the host", c->device, (double)bytes / 1e6);
    return NULL;
}

void rv_cuda_give_back_host(rv_cuda *c, void *p) {
    if (!p) return;
    cudaStreamSynchronize(c->stream);
    cudaFreeHost(p);
}
