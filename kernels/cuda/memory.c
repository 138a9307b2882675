/* memory.c - device memory, and the host's that a device reads: taking it, giving it back, and saying by how much it did not fit.
 *
 * The one idea: memory is taken when a backend is opened, a model loaded or a session made, here, and at no other time.
 */
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>

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

/* ---- the host's ---- */

enum { TOUCHERS = 8, HEAD_BYTES = 4096 };       /* before what is given out: how long it is      */

typedef struct span { char *at; uint64_t bytes; } span;

static void *touch(void *user) {
    const span *s = user;
#ifdef MADV_POPULATE_WRITE
    madvise(s->at, s->bytes, MADV_POPULATE_WRITE);
#else
    (void)s;
#endif
    return NULL;
}

/* Pages are made by several threads, and large where the system has such: pinning them one by one takes four times as long. */
static void touch_all(char *map, uint64_t bytes) {
    pthread_t threads[TOUCHERS];
    span spans[TOUCHERS];
    bool started[TOUCHERS];
    const uint64_t each = (bytes / TOUCHERS + HEAD_BYTES) / HEAD_BYTES * HEAD_BYTES;
    for (uint64_t i = 0; i < TOUCHERS; i++) {
        uint64_t from = i * each < bytes ? i * each : bytes;
        spans[i] = (span){ map + from, bytes - from < each ? bytes - from : each };
        started[i] = pthread_create(&threads[i], NULL, touch, &spans[i]) == 0;
    }
    for (int i = 0; i < TOUCHERS; i++)
        if (started[i]) pthread_join(threads[i], NULL);
}

static char *map_pages(uint64_t bytes) {
    void *map = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (map == MAP_FAILED) return NULL;
    madvise(map, bytes, MADV_HUGEPAGE);
    return map;
}

/* Pins pages that are there; where that fails they are given back. */
static cudaError_t pin(char *map, uint64_t bytes, unsigned flags) {
    cudaError_t e = cudaHostRegister(map, bytes, flags);
    if (!e) return e;
    cudaGetLastError();                  /* else the next launch reports it as its own            */
    munmap(map, bytes);
    return e;
}

cudaError_t rv_cuda_pin(uint64_t bytes, char **out) {
    char *map = map_pages(bytes);
    if (!map) return cudaErrorMemoryAllocation;
    touch(&(span){ map, bytes });
    const cudaError_t e = pin(map, bytes, cudaHostRegisterDefault);
    if (!e) *out = map;
    return e;
}

void rv_cuda_unpin(char *p, uint64_t bytes) {
    if (!p) return;
    cudaHostUnregister(p);
    munmap(p, bytes);
}

void *rv_cuda_take_host(rv_cuda *c, uint64_t bytes) {
    const uint64_t whole = (HEAD_BYTES + bytes + HEAD_BYTES - 1) / HEAD_BYTES * HEAD_BYTES;
    void *there = NULL;
    char *map = map_pages(whole);
    if (map) touch_all(map, whole);
    cudaError_t e = map ? pin(map, whole, cudaHostRegisterMapped) : cudaErrorMemoryAllocation;
    const bool pinned = !e;
    if (!e && !(e = cudaHostGetDevicePointer(&there, map, 0)) && there == map) {
        memcpy(map, &whole, sizeof whole);
        return map + HEAD_BYTES;
    }
    if (pinned) rv_cuda_unpin(map, whole);
    if (e == cudaErrorMemoryAllocation)
        rv_fail(&c->be.error, RV_ERR_MEMORY, "GPU %d: out of memory: %.1f MB of pinned host memory are not to be had: keep the embedding on the device, or "
                "free memory of the host", c->device, (double)bytes / 1e6);
    else rv_cuda_failed(c, e ? e : cudaErrorNotSupported, "pinning host memory");
    return NULL;
}

void rv_cuda_give_back_host(rv_cuda *c, void *p) {
    uint64_t whole;
    if (!p) return;
    char *map = (char *)p - HEAD_BYTES;
    memcpy(&whole, map, sizeof whole);
    cudaStreamSynchronize(c->stream);
    rv_cuda_unpin(map, whole);
}
