/* open.c - opening and closing a GPU, and what its errors are called. */
#include "kernels/cuda/open.h"

#include <stdlib.h>

void rv_cuda_failed(rv_cuda *c, cudaError_t e, const char *doing) {
    if (e == cudaErrorMemoryAllocation) cudaGetLastError();      /* else the next launch reports it as its own */
    if (c->be.error.code) return;
    if (e == cudaErrorMemoryAllocation)
        rv_fail(&c->be.error, RV_ERR_DEVICE_MEMORY, "GPU %d: %s: out of device memory: ask for less (fewer slots, less context) or free the GPU", c->device, doing);
    else if (e == cudaErrorNoKernelImageForDevice || e == cudaErrorUnsupportedPtxVersion || e == cudaErrorInvalidPtx)
        rv_fail(&c->be.error, RV_ERR_UNSUPPORTED, "GPU %d: %s: this build has no kernels that GPU and driver can run (%s): update the driver, or build with "
                "RV_CUDA_ARCHS for this GPU", c->device, doing, cudaGetErrorName(e));
    else
        rv_fail(&c->be.error, RV_ERR_DEVICE, "GPU %d: %s: %s (%s): restart the process to use the GPU again", c->device, doing,
                cudaGetErrorString(e), cudaGetErrorName(e));
}

static void take(rv_cuda *c) {
    cudaError_t e = cudaStreamCreateWithFlags(&c->stream, cudaStreamNonBlocking);
    for (int i = 0; !e && i < RV_MARKS; i++) e = cudaEventCreate(&c->marks[i]);
    if (!e && c->be.act == RV_F16) e = cudaStreamCreateWithFlags(&c->side, cudaStreamNonBlocking);
    if (!e && c->be.act == RV_F16) e = rv_cuda_clamped(&c->clamped_before, c->capability, c->side);
    if (e) rv_cuda_failed(c, e, "opening");
    if (!c->be.error.code) c->workspace = rv_cuda_take(c, RV_CUDA_WORKSPACE_BYTES, "the matrix library's workspace");
    if (!c->be.error.code) c->partial = rv_cuda_take(c, RV_CUDA_PARTIAL_BYTES + RV_CUDA_MARKS_BYTES, "attention's workspace");
    if (!c->be.error.code) c->sums = rv_cuda_take(c, RV_CUDA_SUMS_BYTES, "room for sums");
    cublasStatus_t s = c->be.error.code ? CUBLAS_STATUS_SUCCESS : cublasLtCreate(&c->lt);
    if (s == CUBLAS_STATUS_ALLOC_FAILED) rv_cuda_failed(c, cudaErrorMemoryAllocation, "starting cuBLASLt");
    else if (s) rv_fail(&c->be.error, RV_ERR_DEVICE, "GPU %d: cuBLASLt does not start (%s): does its library come from the toolkit of this build?",
                        c->device, cublasLtGetStatusString(s));
}

rv_status rv_cuda_open(const rv_cuda_options *o, rv_backend **out, rv_error *err) {
    const bool absent = o->plans && o->arch && !o->there;    /* planning for a GPU that need not be there    */
    rv_cuda_device_info info = { .arch = o->arch };
    rv_status st = absent ? RV_OK : rv_cuda_device(o->device, &info, err);
    if (st) return st;
    int32_t arch = o->arch;
    rv_error why;
    if (!absent) st = rv_cuda_choose_set(info.capability, o->arch, rv_cuda_this_build, &arch, &why);
    if (st) return rv_fail(err, st, "GPU %d (%s): %s", o->device, info.name, why.message);
    if (arch == 70 && o->act != RV_F16)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "GPU %d (%s): the sm70 kernels compute in f16, Volta has no bf16: ask for compute f16", o->device, info.name);
    rv_cuda *c = calloc(1, sizeof *c);
    if (!c) return rv_fail_memory(err, "GPU");
    c->device = o->device;
    c->arch = arch;
    c->capability = info.capability;
    c->multiprocessors = info.multiprocessors;
    c->overlap = arch >= 90;
    c->plain_attention = o->plain_attention;
    c->int8 = o->int8;
    rv_cuda_fill(&c->be, o->act);
    cudaError_t e = o->plans ? cudaSuccess : rv_cuda_context_of(c->device, &c->context);
    rv_cuda_push(&c->context);
    if (e) rv_cuda_failed(c, e, "opening");
    else if (!o->plans) take(c);
    rv_cuda_pop(&c->context);
    if (c->be.error.code) {
        st = c->be.error.code;
        if (err) *err = c->be.error;
        rv_backend_close(&c->be);
        return st;
    }
    *out = &c->be;
    return RV_OK;
}

void rv_cuda_close(rv_backend *be) {
    rv_cuda *c = (rv_cuda *)be;
    const rv_cuda_context context = c->context;
    rv_cuda_push(&context);
    rv_loader_close(c->loader);
    rv_cuda_four_loaded(c);
    rv_cuda_lanes_close(c);
    if (c->stream) cudaStreamSynchronize(c->stream);
    if (c->lt) cublasLtDestroy(c->lt);
    rv_cuda_give_back(c, c->sums);
    rv_cuda_give_back(c, c->partial);
    rv_cuda_give_back(c, c->workspace);
    for (int i = 0; i < RV_MARKS; i++)
        if (c->marks[i]) cudaEventDestroy(c->marks[i]);
    if (c->side) cudaStreamDestroy(c->side);
    if (c->stream) cudaStreamDestroy(c->stream);
    free(c);
    rv_cuda_pop(&context);
}
