/* context.c - whose GPU a thread uses.
 *
 * The one idea: the runtime takes the context that is current on the calling thread, which is the caller's business, not ours: a service may use CUDA
 * itself, in contexts of its own too, or hold a model on each of several GPUs.  So a GPU's primary context is pushed on the thread's stack while something of it is
 * used, and popped afterwards.  cudaSetDevice could not be taken back: to choose GPU 0 again makes a context there, which takes
 * half a gigabyte of a GPU that nobody asked for.
 * Source: CUDA Driver API, context management; CUDA Runtime API, interactions with the driver API.
 */
#include <string.h>

#include "kernels/cuda/open.h"

cudaError_t rv_cuda_driver_entry(const char *name, void **out) {
    *out = NULL;
#if CUDART_VERSION >= 12050
    enum cudaDriverEntryPointQueryResult how;
    cudaError_t e = cudaGetDriverEntryPointByVersion(name, out, 12000, cudaEnableDefault, &how);
#elif CUDART_VERSION >= 12000
    enum cudaDriverEntryPointQueryResult how;
    cudaError_t e = cudaGetDriverEntryPoint(name, out, cudaEnableDefault, &how);
#else
    cudaError_t e = cudaGetDriverEntryPoint(name, out, cudaEnableDefault);
#endif
    return e || *out ? e : cudaErrorNotSupported;
}

/* `function`: a pointer to a pointer to a function. */
static cudaError_t find(const char *name, void *function) {
    void *found;
    cudaError_t e = rv_cuda_driver_entry(name, &found);
    if (!e) memcpy(function, &found, sizeof found);
    return e;
}

cudaError_t rv_cuda_context_of(int32_t device, rv_cuda_context *out) {
    CUresult (*get)(CUdevice *, int), (*retain)(CUcontext *, CUdevice);
    CUdevice ordinal;
    rv_cuda_context c;
    *out = (rv_cuda_context){ 0 };
    cudaError_t e = find("cuDeviceGet", &get);
    if (!e) e = find("cuDevicePrimaryCtxRetain", &retain);
    if (!e) e = find("cuCtxPushCurrent", &c.push);
    if (!e) e = find("cuCtxPopCurrent", &c.pop);
    if (e) return e;
    /* It stays until the process ends, as it does with the runtime. */
    CUresult r = get(&ordinal, device);
    if (!r) r = retain(&c.is, ordinal);
    if (r) return r == CUDA_ERROR_OUT_OF_MEMORY ? cudaErrorMemoryAllocation : r == CUDA_ERROR_DEVICE_UNAVAILABLE ? cudaErrorDevicesUnavailable : cudaErrorUnknown;
    *out = c;
    return cudaSuccess;
}

void rv_cuda_push(const rv_cuda_context *c) {
    if (c->is) c->push(c->is);
}

void rv_cuda_pop(const rv_cuda_context *c) {
    CUcontext ours;
    if (c->is) c->pop(&ours);
}
