/* tape.c - a recorded run of operations: a CUDA graph of what was queued on the stream; and trays, in which its
 * outcome comes to the host while the next run is already on its way. */
#include <stdlib.h>

#include "kernels/cuda/open.h"

struct rv_tape { cudaGraphExec_t run; };

void rv_cuda_record(rv_backend *be) {
    rv_cuda *c = (rv_cuda *)be;
    cudaError_t e = cudaStreamBeginCapture(c->stream, cudaStreamCaptureModeThreadLocal);
    if (e) rv_cuda_failed(c, e, "recording");
    c->recording = !e;
}

rv_tape *rv_cuda_recorded(rv_backend *be) {
    rv_cuda *c = (rv_cuda *)be;
    cudaGraph_t graph = NULL;
    rv_tape *tape = calloc(1, sizeof *tape);
    if (!tape) rv_fail_memory(&be->error, "tape");
    cudaError_t e = c->recording ? cudaStreamEndCapture(c->stream, &graph) : cudaSuccess;
    c->recording = false;
    if (!e && graph && tape) e = cudaGraphInstantiateWithFlags(&tape->run, graph, 0);
    if (!e && tape && tape->run) e = cudaGraphUpload(tape->run, c->stream);
    if (graph) cudaGraphDestroy(graph);
    if (e) {
        cudaGetLastError();              /* else the next launch reports it as its own, once this is forgiven */
        rv_cuda_failed(c, e, "recording");
    }
    if (tape && (be->error.code || !tape->run)) {
        rv_cuda_erase(be, tape);
        tape = NULL;
    }
    return tape;
}

void rv_cuda_play(rv_backend *be, rv_tape *tape) {
    rv_cuda *c = (rv_cuda *)be;
    cudaError_t e = cudaGraphLaunch(tape->run, c->stream);
    if (e) rv_cuda_failed(c, e, "running the recorded step");
}

void rv_cuda_erase(rv_backend *be, rv_tape *tape) {
    if (tape->run) {
        cudaStreamSynchronize(((rv_cuda *)be)->stream);      /* it may be running */
        cudaGraphExecDestroy(tape->run);
    }
    free(tape);
}

/* ---- trays ---- */

struct rv_tray {
    void       *bytes;                   /* pinned                                              */
    cudaEvent_t arrived;
};

rv_tray *rv_cuda_tray_new(rv_backend *be, uint64_t bytes) {
    rv_tray *tray = calloc(1, sizeof *tray);
    if (!tray) return rv_fail_memory(&be->error, "tray"), NULL;
    cudaError_t e = cudaMallocHost(&tray->bytes, bytes);
    if (!e) e = cudaEventCreateWithFlags(&tray->arrived, cudaEventDisableTiming);
    if (!e) return tray;
    if (e == cudaErrorMemoryAllocation) {
        cudaGetLastError();              /* else the next launch reports it as its own            */
        rv_fail(&be->error, RV_ERR_MEMORY, "tray: cannot take %llu bytes of pinned memory: %s", (unsigned long long)bytes, cudaGetErrorString(e));
    } else rv_cuda_failed((rv_cuda *)be, e, "making a tray");
    rv_cuda_tray_free(be, tray);
    return NULL;
}

void rv_cuda_tray_free(rv_backend *be, rv_tray *tray) {
    cudaStreamSynchronize(((rv_cuda *)be)->stream);          /* a copy may be on its way */
    if (tray->arrived) cudaEventDestroy(tray->arrived);
    cudaFreeHost(tray->bytes);
    free(tray);
}

void rv_cuda_fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes) {
    rv_cuda *c = (rv_cuda *)be;
    cudaError_t e = cudaMemcpyAsync(tray->bytes, src, bytes, cudaMemcpyDeviceToHost, c->stream);
    if (!e) e = cudaEventRecord(tray->arrived, c->stream);
    if (e) rv_cuda_failed(c, e, "fetching");
}

const void *rv_cuda_fetched(rv_backend *be, rv_tray *tray) {
    rv_cuda *c = (rv_cuda *)be;
    cudaError_t e = cudaEventSynchronize(tray->arrived);
    if (e) rv_cuda_failed(c, e, "running the model");
    return tray->bytes;
}
