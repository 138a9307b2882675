/* made.h - what runtime.c and cublaslt.c share of the fake GPU. */
#ifndef RV_TESTS_FAKE_GPU_MADE_H
#define RV_TESTS_FAKE_GPU_MADE_H
#include <cuda.h>
#include <cuda_runtime_api.h>
#include <stdbool.h>
#include "tests/fake_gpu/fake.h"

typedef enum { FAKE_MEMORY, FAKE_PINNED, FAKE_STREAM, FAKE_EVENT, FAKE_GRAPH, FAKE_RUNNABLE, FAKE_CUBLASLT, FAKE_KINDS } fake_kind;

/* Something that is alive on the current GPU until fake_end; NULL: refused, or no memory. */
struct fake_made *fake_make(fake_kind kind, uint64_t bytes, bool may_refuse);
cudaError_t fake_end(void *what, fake_kind kind);
cudaError_t fake_fail(cudaError_t e);    /* e, which the thread's next cudaGetLastError returns  */
void fake_misused(const char *format, ...) __attribute__((format(printf, 1, 2)));
#endif
