/* worker.h - a command's work in a process of its own, started once more when a GPU fails under it.
 *
 * The one idea: CUDA works again only in a new process, so the process that talks to the user is not the one that talks to the
 * GPU.  What the worker prints is held (or, streaming, passed on and remembered) here, so that a second try prints nothing twice.
 */
#ifndef RV_TOOLS_WORKER_H
#define RV_TOOLS_WORKER_H
#include <stdbool.h>
#include <stdint.h>

typedef struct worker {
    const char *command;              /* for messages                                           */
    bool        streams;              /* pass output on as it comes                             */
    bool        reads_stdin;          /* "-" is among its files: each try gets stdin from its beginning */
    int       (*work)(void *user, int restarts);      /* in the worker; returns an exit code; restarts: 0, then 1 */
    void       *user;
} worker;

/* Returns the worker's exit code.  It is started again, once, when it ended with EXIT_DEVICE or by a signal that was not the user's.
 * Nothing of this process may have used CUDA before. */
int worker_run(const worker *w);

/* Whether a GPU may be used by a build and on a machine like this: asks nothing of CUDA. */
bool worker_pays(int32_t backend);
#endif
