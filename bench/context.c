/* context.c - what a CUDA context takes: see context.h. */
#include "bench/context.h"

#include <errno.h>
#include <sys/wait.h>
#include <unistd.h>

static ssize_t read_again(int fd, void *to, size_t bytes) {
    ssize_t n;
    do n = read(fd, to, bytes);
    while (n < 0 && errno == EINTR);
    return n;
}

/* The second process: waits to be asked for a GPU, answers with its free bytes, and ends. */
static void answer_once(int ask, int answer) {
    uint32_t index;
    rv_device d = { .size = sizeof d };
    rv_error err;
    if (read_again(ask, &index, sizeof index) == (ssize_t)sizeof index) {
        if (rv_device_get(RV_BACKEND_CUDA, index, &d, &err)) d.memory_free = 0;
        (void)!write(answer, &d.memory_free, sizeof d.memory_free);
        (void)!read_again(ask, &index, sizeof index);        /* the context lives until the other side has looked */
    }
    _exit(0);
}

void second_process_start(second_process *p) {
    int ask[2], answer[2];
    *p = (second_process){ .ask = -1, .answer = -1 };
    if (pipe(ask)) return;
    if (pipe(answer)) {
        close(ask[0]), close(ask[1]);
        return;
    }
    p->pid = fork();
    if (p->pid == 0) {
        close(ask[1]), close(answer[0]);
        answer_once(ask[0], answer[1]);
    }
    close(ask[0]), close(answer[1]);
    p->ask = ask[1];
    p->answer = answer[0];
}

uint64_t second_process_context(second_process *p, uint32_t index, uint64_t free_now) {
    uint64_t free_then = 0;
    if (p->pid <= 0 || write(p->ask, &index, sizeof index) != (ssize_t)sizeof index) return 0;
    if (read_again(p->answer, &free_then, sizeof free_then) != (ssize_t)sizeof free_then) return 0;
    return free_then && free_then < free_now ? free_now - free_then : 0;
}

void second_process_end(second_process *p) {
    if (p->ask >= 0) close(p->ask);
    if (p->answer >= 0) close(p->answer);
    if (p->pid > 0) waitpid((pid_t)p->pid, NULL, 0);
    *p = (second_process){ .ask = -1, .answer = -1 };
}
