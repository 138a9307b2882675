/* driver.c - what the machine has to offer, and what to say where that is not enough.
 *
 * The one idea: the verdict (rv_cuda_verdict, rv_cuda_choose_set) is a pure function of what the runtime reports, so that
 * old drivers and foreign GPUs can be tested on a machine that has none.
 */
#include "kernels/cuda/open.h"

#include <stdio.h>

/* What a user can do about it; NULL: nothing better is known than to report it. */
static const char *advice(cudaError_t e) {
    switch ((int)e) {
    case cudaErrorNoDevice:
        return "the driver lists none: is it hidden (CUDA_VISIBLE_DEVICES), or not passed into this container? Or use the cpu backend";
    case cudaErrorStubLibrary: return "libcuda.so is the toolkit's stub: put the driver's own in front of it, or use the cpu backend";
    case cudaErrorSystemDriverMismatch:
        return "the driver's kernel module and its libraries are of different versions: reload the module or restart the machine";
    case cudaErrorSystemNotReady: return "the GPUs' fabric manager is not running: start nvidia-fabricmanager";
    case cudaErrorCompatNotSupportedOnDevice: return "this GPU does not allow the forward compatibility package: update the driver itself";
    case cudaErrorDevicesUnavailable: return "another process has the GPU for itself (compute mode): end it, or choose another --device";
    case cudaErrorInitializationError: case cudaErrorOperatingSystem: case cudaErrorUnknown:
        return "the driver does not start: see dmesg and nvidia-smi; a process that used CUDA must not use it again after fork";
    default: return NULL;
    }
}

rv_status rv_cuda_verdict(cudaError_t e, int32_t count, int32_t driver, int32_t runtime, rv_error *err) {
    if (!e && count > 0) return RV_OK;
    if (!e) e = cudaErrorNoDevice;
    const char *what = advice(e);
    if (e == cudaErrorInsufficientDriver && driver == 0)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "no NVIDIA driver on this machine: install one that supports CUDA %d.%d or newer, or use the cpu backend",
                       runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorInsufficientDriver || e == cudaErrorCallRequiresNewerDriver)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "the NVIDIA driver supports CUDA %d.%d, this build needs %d.%d: update the driver, build with "
                       "an older toolkit (11.8 or newer), or use the cpu backend", driver / 1000, driver % 1000 / 10, runtime / 1000, runtime % 1000 / 10);
    if (e == cudaErrorNoDevice) return rv_fail(err, RV_ERR_UNSUPPORTED, "no NVIDIA GPU: %s", what);
    return rv_fail(err, RV_ERR_UNSUPPORTED, "no usable NVIDIA GPU: %s (%s): %s", cudaGetErrorString(e), cudaGetErrorName(e), what ? what : "use the cpu backend");
}

const rv_cuda_built rv_cuda_this_build = { RV_CUDA_OLDEST, RV_CUDA_SM90 };

rv_status rv_cuda_choose_set(int32_t capability, int32_t wanted, rv_cuda_built built, int32_t *set, rv_error *err) {
    const int32_t major = capability / 10, minor = capability % 10;
    *set = 0;
    if (capability < 70)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "a GPU of compute capability %d.%d has no tensor cores, which all kernels need: use one of 7.0 (V100) or newer, "
                       "or the cpu backend", major, minor);
    if (capability < built.oldest)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "this package has no code for a GPU of compute capability %d.%d, only for %d.%d and newer: install the package for "
                       "V100 and newer, built with CUDA 11.8 or 12.x (RV_CUDA_ARCHS=\"70;80;86;89\"), or use the cpu backend", major, minor, built.oldest / 10, built.oldest % 10);
    /* 9.0's own instructions run nowhere else; a set runs on its own GPUs and all newer ones. */
    const int32_t newest = capability == 90 && built.sm90 ? 90 : capability >= 80 ? 80 : 70;
    if (wanted == 90 && newest < 90)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "kernels sm90: %s; leave it out for sm%d", capability == 90 ? "this package was built without them (CUDA 12.1 or newer, 90a in RV_CUDA_ARCHS)" :
                       "they run on compute capability 9.0 alone", newest);
    if (wanted > newest)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "kernels sm%d: this GPU is of compute capability %d.%d; leave it out for sm%d", wanted, major, minor, newest);
    *set = wanted ? wanted : newest;
    return RV_OK;
}

int32_t rv_cuda_count(void) {
    int n = 0;
    return cudaGetDeviceCount(&n) == cudaSuccess ? n : 0;
}

rv_status rv_cuda_device(int32_t i, rv_cuda_device_info *out, rv_error *err) {
    int n = 0, driver = 0;
    size_t unused = 0, total = 0;
    struct cudaDeviceProp p;
    cudaError_t e = cudaGetDeviceCount(&n);
    cudaDriverGetVersion(&driver);
    rv_status st = rv_cuda_verdict(e, n, driver, CUDART_VERSION, err);
    if (st) return st;
    if (i < 0 || i >= n) return rv_fail(err, RV_ERR_UNSUPPORTED, "GPU %d: there %s %d, counted from 0", i, n == 1 ? "is" : "are", n);
    rv_cuda_context context = { 0 };
    e = cudaGetDeviceProperties(&p, i);
    if (!e) e = rv_cuda_context_of(i, &context);
    rv_cuda_push(&context);
    if (!e) e = cudaMemGetInfo(&unused, &total);
    rv_cuda_pop(&context);
    if (e) {
        cudaGetLastError();              /* else the thread's next launch reports it as its own  */
        return rv_fail(err, e == cudaErrorMemoryAllocation ? RV_ERR_DEVICE_MEMORY : RV_ERR_DEVICE, "GPU %d: %s: %s", i, cudaGetErrorString(e), advice(e) ? advice(e) :
                       e == cudaErrorMemoryAllocation ? "other processes have taken nearly all of its memory: free it, or use another GPU" :
                       "restart the process to use the GPU again");
    }
    *out = (rv_cuda_device_info){ .capability = p.major * 10 + p.minor, .driver = driver,
                                  .multiprocessors = p.multiProcessorCount, .memory_total = total, .memory_free = unused };
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    rv_error why;
    if (rv_cuda_choose_set(out->capability, 0, rv_cuda_this_build, &out->arch, &why)) snprintf(out->problem, sizeof out->problem, "%.*s", (int)sizeof out->problem - 1, why.message);
    return RV_OK;
}
