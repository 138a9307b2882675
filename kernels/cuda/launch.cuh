/* launch.cuh - launching a kernel so that it may begin while the one before still ends (sm_90). */
#ifndef RV_KERNELS_CUDA_LAUNCH_CUH
#define RV_KERNELS_CUDA_LAUNCH_CUH
#include <cuda_runtime.h>

/* Bytes of shared memory that a block can have. */
[[maybe_unused]] static cudaError_t most_of_block(int *bytes) {
    int device = 0;
    cudaError_t e = cudaGetDevice(&device);
    return e ? e : cudaDeviceGetAttribute(bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, device);
}

/* Where launches of one kernel ask for different amounts of shared memory: it may have all that a block can have, since what a thread allows another one, which launches
 * it too, could take back before the launch. */
template <typename K> static cudaError_t allow_all(K kernel) {
    int most = 0;
    cudaError_t e = most_of_block(&most);
    return e ? e : cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
}

/* overlap: with programmatic dependent launch; the kernel must call wait_for_previous() before it reads
 * or writes anything that earlier kernels touch. */
template <typename... P, typename... A>
static cudaError_t launch_kernel(void (*kernel)(P...), dim3 grid, unsigned threads, size_t shared_bytes, bool overlap, cudaStream_t stream, A... args) {
    cudaLaunchAttribute early;
    early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    early.val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = shared_bytes;
    config.stream = stream;
    config.attrs = &early;
    config.numAttrs = overlap ? 1 : 0;
    /* A multiprocessor must be empty to change its share of shared memory: launches that overlap all ask for the same. */
    cudaError_t e = overlap ? cudaFuncSetAttribute(kernel, cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared) : cudaSuccess;
    return e ? e : cudaLaunchKernelEx(&config, kernel, P(args)...);
}

/* The same in clusters of `cluster` blocks, on Hopper. */
template <typename... P, typename... A>
static cudaError_t launch_cluster(void (*kernel)(P...), unsigned blocks, unsigned cluster, unsigned threads, int shared_bytes, bool overlap, cudaStream_t stream, const A &...given) {
    cudaError_t e = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, shared_bytes);
    if (e) return e;
    cudaLaunchAttribute wanted[2];
    wanted[0].id = cudaLaunchAttributeClusterDimension;
    wanted[0].val.clusterDim.x = cluster;
    wanted[0].val.clusterDim.y = wanted[0].val.clusterDim.z = 1;
    wanted[1].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    wanted[1].val.programmaticStreamSerializationAllowed = 1;
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3(blocks);
    config.blockDim = dim3(threads);
    config.dynamicSmemBytes = (size_t)shared_bytes;
    config.stream = stream;
    config.attrs = wanted;
    config.numAttrs = overlap ? 2 : 1;
    return cudaLaunchKernelEx(&config, kernel, given...);
}
#endif
