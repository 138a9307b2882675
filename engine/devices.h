/* devices.h - the machine's CPU and GPUs, as planning asks for them; rv_device_count and rv_device_get are made of it. */
#ifndef RV_ENGINE_DEVICES_H
#define RV_ENGINE_DEVICES_H
#include "engine/rvengine.h"

#ifdef RV_CUDA
enum { RV_HAS_CUDA = 1 };
#else
enum { RV_HAS_CUDA = 0 };
#endif

/* Bytes of host memory; a container's limit counts, where it is the smaller one. */
void      rv_cpu_memory(uint64_t *total, uint64_t *unused);
uint32_t  rv_gpu_count(void);            /* GPUs that the driver lists, kernels or none          */
rv_status rv_gpu_get(uint32_t i, rv_device *out, rv_error *err);
#endif
