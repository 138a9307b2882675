/* context.h - what a process's CUDA context takes of a GPU's memory before it allocates anything.
 *
 * The one idea: a second process opens the GPU and says how much is free; the difference to what this one saw is
 * that process's context, and ours is alike. (Inside one process it cannot be seen: asking makes the context.)
 */
#ifndef RV_BENCH_CONTEXT_H
#define RV_BENCH_CONTEXT_H
#include "engine/rvengine.h"

typedef struct second_process { int ask, answer; long pid; } second_process;

/* Starts the process, asleep; before this one touches the GPU. On failure it is simply not there. */
void     second_process_start(second_process *p);
/* Bytes of its context on GPU `index`, while this process holds `free_now`; 0: not known. */
uint64_t second_process_context(second_process *p, uint32_t index, uint64_t free_now);
void     second_process_end(second_process *p);
#endif
