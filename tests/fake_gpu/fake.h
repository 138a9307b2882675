/* fake.h - GPUs that are not there: CUDA's runtime and cuBLASLt as far as the library calls them, for tests.
 *
 * The one idea: all that host code can get wrong, and nothing else, is played: whose GPU is current on a thread, which code a GPU
 * can run, what is taken and given back, errors that stay behind.  Device memory is the host's, copies are made, kernels do nothing:
 * answers are made of token 0.  Programs that link runtime.c and cublaslt.c call these instead of NVIDIA's.
 *
 * Stricter than CUDA: whatever is queued on a stream must be queued while the stream's GPU is current (CUDA lets copies pass), and a
 * launch must find no older error (CUDA lets it report that error as its own).  Both are misuse: fake_misuse says what and where.
 */
#ifndef RV_TESTS_FAKE_GPU_FAKE_H
#define RV_TESTS_FAKE_GPU_FAKE_H
#include <stddef.h>
#include <stdint.h>

typedef struct fake_gpu {
    int32_t  capability;                 /* 80: 8.0                                              */
    uint64_t memory;                     /* bytes                                                */
} fake_gpu;

enum { FAKE_GPUS = 4 };

/* The machine has these n GPUs from now on, at most FAKE_GPUS; GPU 0 is current on every thread again, nothing is refused, and what was
 * misused is forgotten. Nothing may be alive. */
void fake_gpus(const fake_gpu *gpus, int32_t n);

/* Call number `nth` from now on of those that take memory or make streams, events and graphs is out of memory, alone; 0: none. */
void fake_refuse(int64_t nth);
/* Whether that call has come. */
int  fake_refused(void);

/* The calling thread makes a context of its own current, in which nothing of the library's may be made or queued; 0: and gives it up again, which must
 * be current then. */
void fake_own_context(int is);

/* Launches of kernels so far. */
uint64_t fake_launches(void);

/* How much is alive, 0: nothing; `what` says it in words. */
uint64_t fake_alive(char *what, size_t n);

/* The first misuse, or NULL. */
const char *fake_misuse(void);
#endif
