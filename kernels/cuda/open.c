/* open.c - opening a GPU: which kernels fit, streams, memory, errors. */
#include "kernels/cuda/open.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void rv_cuda_failed(rv_cuda *c, cudaError_t e, const char *doing) {
    if (c->be.error.code) return;
    if (e == cudaErrorMemoryAllocation)
        rv_fail(&c->be.error, RV_ERR_DEVICE_MEMORY, "GPU %d: %s: out of device memory: ask for less (fewer slots, less context) or free the GPU", c->device, doing);
    else
        rv_fail(&c->be.error, RV_ERR_DEVICE, "GPU %d: %s: %s (%s): restart the process to use the GPU again", c->device, doing,
                cudaGetErrorString(e), cudaGetErrorName(e));
}

int32_t rv_cuda_count(void) {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

/* The newest kernel set that this GPU runs, or 0. */
static int32_t kernel_set(const struct cudaDeviceProp *p) {
    int32_t cc = p->major * 10 + p->minor;
    return cc >= 90 ? 90 : cc >= 80 ? 80 : 0;
}

rv_status rv_cuda_device(int32_t i, rv_cuda_device_info *out, rv_error *err) {
    struct cudaDeviceProp p;
    size_t unused = 0, total = 0;
    cudaError_t e = cudaGetDeviceProperties(&p, i);
    if (!e) e = cudaSetDevice(i);
    if (!e) e = cudaMemGetInfo(&unused, &total);
    if (e) return rv_fail(err, RV_ERR_DEVICE, "GPU %d: %s", i, cudaGetErrorString(e));
    *out = (rv_cuda_device_info){ .capability = p.major * 10 + p.minor, .arch = kernel_set(&p), .multiprocessors = p.multiProcessorCount,
                                  .memory_total = total, .memory_free = unused };
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    return RV_OK;
}

static rv_status check_driver(rv_error *err) {
    int n = 0, driver = 0, runtime = 0;
    cudaError_t e = cudaGetDeviceCount(&n);
    cudaDriverGetVersion(&driver);
    cudaRuntimeGetVersion(&runtime);
    if (e == cudaErrorInsufficientDriver)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "the NVIDIA driver supports CUDA %d.%d, this build needs %d.%d: update the driver", driver / 1000,
                       driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e || n == 0)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "no NVIDIA GPU: %s; use the cpu backend", e ? cudaGetErrorString(e) : "the driver lists none");
    return RV_OK;
}

static cudaError_t take(rv_cuda *c) {
    cudaError_t e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    if (!e && c->be.act == RV_F16) e = cudaStreamCreateWithFlags(&c->side, cudaStreamNonBlocking);
    if (!e && c->be.act == RV_F16) e = rv_cuda_clamped(&c->clamped_before, c->side);
    if (!e) e = cudaMalloc(&c->workspace, RV_CUDA_WORKSPACE_BYTES);
    if (!e) e = cudaMalloc(&c->partial, RV_CUDA_PARTIAL_BYTES);
    if (!e) e = cudaMalloc(&c->sums, RV_CUDA_SUMS_BYTES);
    if (!e) e = cudaMemset(c->partial, 0, RV_CUDA_PARTIAL_BYTES);
    return e;
}

rv_status rv_cuda_open(const rv_cuda_options *o, rv_backend **out, rv_error *err) {
    rv_cuda_device_info info;
    rv_status st = check_driver(err);
    if (st || (st = rv_cuda_device(o->device, &info, err))) return st;
    int32_t arch = o->arch ? o->arch : info.arch;
    if (info.arch == 0 || arch > info.arch)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "GPU %d (%s) has compute capability %d.%d; %s", o->device, info.name, info.capability / 10,
                       info.capability % 10, info.arch == 0 ? "this build runs on 8.0 and newer" : "it cannot run the kernels that were asked for");
    rv_cuda *c = calloc(1, sizeof *c);
    if (!c) return rv_fail_memory(err, "GPU");
    c->device = o->device;
    c->arch = arch;
    c->multiprocessors = info.multiprocessors;
    c->overlap = arch >= 90;
    c->plain_attention = o->plain_attention;
    rv_cuda_fill(&c->be, o->act);
    cudaError_t e = take(c);
    if (e) rv_cuda_failed(c, e, "opening");
    else if (cublasLtCreate(&c->lt)) rv_fail(&c->be.error, RV_ERR_DEVICE, "GPU %d: cuBLASLt does not start", o->device);
    if (c->be.error.code) {
        *err = c->be.error;
        st = err->code;
        rv_backend_close(&c->be);
        return st;
    }
    *out = &c->be;
    return RV_OK;
}

void rv_cuda_close(rv_backend *be) {
    rv_cuda *c = (rv_cuda *)be;
    rv_loader_close(c->loader);
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->lt) cublasLtDestroy(c->lt);
    cudaFree(c->sums);
    cudaFree(c->partial);
    cudaFree(c->workspace);
    if (c->side) cudaStreamDestroy(c->side);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c);
}
