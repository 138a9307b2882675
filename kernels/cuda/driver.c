/* driver.c - what the machine has to offer, and what to say where that is not enough.
 *
 * The one idea: the verdict (rv_cuda_verdict, rv_cuda_set) is a pure function of what the runtime reports, so that
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

int32_t rv_cuda_set(int32_t capability, bool has_sm90) {
    /* 9.0's own instructions run nowhere else; what is newer runs the sm80 set. */
    return capability == 90 && has_sm90 ? 90 : capability >= 80 ? 80 : 0;
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
    e = cudaGetDeviceProperties(&p, i);
    if (!e) e = cudaSetDevice(i);
    if (!e) e = cudaMemGetInfo(&unused, &total);
    if (e)
        return rv_fail(err, e == cudaErrorMemoryAllocation ? RV_ERR_DEVICE_MEMORY : RV_ERR_DEVICE, "GPU %d: %s: %s", i, cudaGetErrorString(e), advice(e) ? advice(e) :
                       e == cudaErrorMemoryAllocation ? "other processes have taken nearly all of its memory: free it, or use another GPU" :
                       "restart the process to use the GPU again");
    *out = (rv_cuda_device_info){ .capability = p.major * 10 + p.minor, .arch = rv_cuda_set(p.major * 10 + p.minor, RV_CUDA_SM90), .driver = driver,
                                  .multiprocessors = p.multiProcessorCount, .memory_total = total, .memory_free = unused };
    snprintf(out->name, sizeof out->name, "%.*s", (int)sizeof out->name - 1, p.name);
    return RV_OK;
}
