/* tape.c - a recorded run of operations: a CUDA graph of what was queued on the stream. */
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
    if (!e && graph && tape) e = cudaGraphInstantiate(&tape->run, graph, 0);
    if (!e && tape && tape->run) e = cudaGraphUpload(tape->run, c->stream);
    if (graph) cudaGraphDestroy(graph);
    if (e) rv_cuda_failed(c, e, "recording");
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
    (void)be;
    if (tape->run) cudaGraphExecDestroy(tape->run);
    free(tape);
}
