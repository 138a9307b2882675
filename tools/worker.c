/* worker.c - see worker.h. */
#include "tools/worker.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tools/files.h"
#include "tools/report.h"

enum { TRIES = 2, READ_BYTES = 1 << 16 };

/* What the worker has printed so far in this try, and how much of that the user has already seen. */
typedef struct printed { char *text; size_t bytes, room, seen; } printed;

typedef struct ended { int code; bool by_signal, again; } ended;

bool worker_pays(int32_t backend) {
    return backend != RV_BACKEND_CPU && strstr(rv_build_info(), "cuda toolkit") && (access("/dev/nvidiactl", F_OK) == 0 || access("/dev/dxg", F_OK) == 0);
}

/* ---- stdin, for more than one try ---- */

static int keep_stdin(const char *command) {
    input in;
    rv_error err;
    int fd = memfd_create("stdin", MFD_CLOEXEC);
    if (fd < 0) return say_error("%s: stdin: cannot be kept: %s", command, strerror(errno)), -1;
    if (input_read("-", &in, &err)) return report(command, &err), close(fd), -1;
    for (size_t at = 0; at < in.bytes;) {
        ssize_t n = write(fd, in.data + at, in.bytes - at);
        if (n <= 0) return say_error("%s: stdin: cannot be kept: %s", command, strerror(errno)), input_free(&in), close(fd), -1;
        at += (size_t)n;
    }
    input_free(&in);
    return fd;
}

/* ---- the worker's side ---- */

_Noreturn static void be_worker(const worker *w, int out, int in, int restarts) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signals_worker();
    dup2(out, STDOUT_FILENO);
    close(out);
    if (in >= 0) {
        lseek(in, 0, SEEK_SET);
        dup2(in, STDIN_FILENO);
    }
    int code = w->work(w->user, restarts);
    if (!stdout_flush() && code == EXIT_OK) code = EXIT_IO;
    exit(code);
}

/* ---- this side ---- */

/* Prints what the user has not seen; false: stdout is gone, or a second try says something else. */
static bool pass_on(const worker *w, printed *p, const char *text, size_t bytes, size_t before) {
    size_t known = before < p->seen ? p->seen - before : 0;
    if (known > bytes) known = bytes;
    if (known && memcmp(p->text + before, text, known)) {
        say_error("%s: the second try's answer differs from what was printed already: ask again", w->command);
        return false;
    }
    if (bytes == known) return true;
    fwrite(text + known, 1, bytes - known, stdout);
    return stdout_flush();
}

static bool keep(printed *p, const char *text, size_t bytes) {
    if (p->bytes + bytes > p->room) {
        size_t room = 2 * (p->bytes + bytes);
        char *more = realloc(p->text, room);
        if (!more) return false;
        p->text = more;
        p->room = room;
    }
    memcpy(p->text + p->bytes, text, bytes);
    p->bytes += bytes;
    return true;
}

/* Until the worker closes its end; Ctrl-C is passed on. */
static bool listen(const worker *w, pid_t pid, int fd, printed *p) {
    char text[READ_BYTES];
    bool good = true, told = false;
    for (;;) {
        if (interrupted() && !told) kill(pid, SIGUSR1), told = true;
        ssize_t n = read(fd, text, sizeof text);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return good;
        if (good && w->streams) good = pass_on(w, p, text, (size_t)n, p->bytes);
        if (good) good = keep(p, text, (size_t)n);
        if (!good) kill(pid, SIGKILL);
    }
}

static ended wait_for(pid_t pid) {
    int status = 0;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {}
    if (WIFSIGNALED(status)) return (ended){ EXIT_DEVICE, true, !interrupted() };
    return (ended){ WEXITSTATUS(status), false, WEXITSTATUS(status) == EXIT_DEVICE };
}

static int try_once(const worker *w, int in, int restarts, printed *p, ended *how) {
    int ends[2];
    if (pipe(ends)) return say_error("%s: a worker process cannot be started: %s", w->command, strerror(errno)), EXIT_MEMORY;
    pid_t pid = fork();
    if (pid < 0) return say_error("%s: a worker process cannot be started: %s", w->command, strerror(errno)), close(ends[0]), close(ends[1]), EXIT_MEMORY;
    if (pid == 0) {
        close(ends[0]);
        be_worker(w, ends[1], in, restarts);
    }
    close(ends[1]);
    p->seen = w->streams && p->bytes > p->seen ? p->bytes : p->seen;
    p->bytes = 0;
    bool good = listen(w, pid, ends[0], p);
    close(ends[0]);
    *how = wait_for(pid);
    if (!good) return how->again = false, ferror(stdout) ? stdout_finish(w->command) : EXIT_DEVICE;
    return how->code;
}

int worker_run(const worker *w) {
    printed p = { 0 };
    ended how = { 0 };
    int code = EXIT_OK, in = w->reads_stdin ? keep_stdin(w->command) : -1;
    if (w->reads_stdin && in < 0) return EXIT_IO;
    for (int restarts = 0; restarts < TRIES; restarts++) {
        code = try_once(w, in, restarts, &p, &how);
        if (!how.again) break;
        if (restarts + 1 < TRIES) say("%s %s: the worker process %s: it is started again, and the request tried once more", program_name, w->command, how.by_signal ? "was killed" : "lost the GPU");
        else say("%s %s: the worker process %s a second time", program_name, w->command, how.by_signal ? "was killed" : "lost the GPU");
    }
    if (!w->streams && p.bytes) {
        fwrite(p.text, 1, p.bytes, stdout);
        int finished = stdout_finish(w->command);
        if (finished && !code) code = finished;
    }
    if (interrupted() && how.by_signal) code = EXIT_INTERRUPTED;
    free(p.text);
    if (in >= 0) close(in);
    return code;
}
