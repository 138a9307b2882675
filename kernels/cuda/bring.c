/* bring.c - weights that stream: copies from pinned host memory beside what is computed.
 *
 * The one idea: one copy stream, so that copies follow one another at the full rate of the bus; and for each lane two events,
 * "its bytes are there" and "nobody reads them any more", which are all that the two streams tell each other.
 */
#include <stdlib.h>

#include "kernels/cuda/open.h"

typedef struct rv_lanes { cudaStream_t stream; cudaEvent_t there[RV_LANES], spent[RV_LANES]; } rv_lanes;

void rv_cuda_lanes_close(rv_cuda *c) {
    rv_lanes *l = c->lanes;
    if (!l) return;
    if (l->stream) cudaStreamSynchronize(l->stream);
    for (int i = 0; i < RV_LANES; i++) {
        if (l->there[i]) cudaEventDestroy(l->there[i]);
        if (l->spent[i]) cudaEventDestroy(l->spent[i]);
    }
    if (l->stream) cudaStreamDestroy(l->stream);
    free(l);
    c->lanes = NULL;
}

static rv_lanes *lanes_of(rv_cuda *c) {
    if (c->lanes) return c->lanes;
    rv_lanes *l = c->lanes = calloc(1, sizeof *l);
    if (!l) return rv_fail_memory(&c->be.error, "streamed weights"), NULL;
    cudaError_t e = cudaStreamCreateWithFlags(&l->stream, cudaStreamNonBlocking);
    for (int i = 0; !e && i < RV_LANES; i++) {
        e = cudaEventCreateWithFlags(&l->there[i], cudaEventDisableTiming);
        if (!e) e = cudaEventCreateWithFlags(&l->spent[i], cudaEventDisableTiming);
    }
    if (!e) return l;
    rv_cuda_failed(c, e, "opening a copy stream");
    rv_cuda_lanes_close(c);
    return NULL;
}

void rv_cuda_bring(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes) {
    rv_cuda *c = (rv_cuda *)be;
    rv_lanes *l = lanes_of(c);
    if (!l) return;
    cudaError_t e = cudaStreamWaitEvent(l->stream, l->spent[lane], 0);       /* an event never recorded counts as past */
    if (!e) e = cudaMemcpyAsync(dst, host, bytes, cudaMemcpyHostToDevice, l->stream);
    if (!e) e = cudaEventRecord(l->there[lane], l->stream);
    if (e) rv_cuda_failed(c, e, "streaming weights");
}

void rv_cuda_brought(rv_backend *be, int32_t lane) {
    rv_cuda *c = (rv_cuda *)be;
    rv_lanes *l = lanes_of(c);
    cudaError_t e = l ? cudaStreamWaitEvent(c->stream, l->there[lane], 0) : cudaSuccess;
    if (e) rv_cuda_failed(c, e, "waiting for streamed weights");
}

void rv_cuda_spent(rv_backend *be, int32_t lane) {
    rv_cuda *c = (rv_cuda *)be;
    rv_lanes *l = lanes_of(c);
    cudaError_t e = l ? cudaEventRecord(l->spent[lane], c->stream) : cudaSuccess;
    if (e) rv_cuda_failed(c, e, "streaming weights");
}
