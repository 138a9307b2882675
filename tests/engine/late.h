/* late.h - a CPU backend that is as late as a GPU may be, for tests of what runs ahead of the host. */
#ifndef RV_TESTS_ENGINE_LATE_H
#define RV_TESTS_ENGINE_LATE_H
#include "kernels/backend.h"

/* From now on `be` queues every operation and runs it only when somebody waits for something behind it; and it can
 * record, choose and fetch.  Not to be called twice; `be` may be closed as before. */
void late_wrap(rv_backend *be);
#endif
