/* files.c - whole files in, whole files out: see files.h. */
#include "tools/files.h"

#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

rv_status fail(rv_error *err, rv_status code, const char *format, ...) {
    va_list args;
    va_start(args, format);
    err->code = code;
    vsnprintf(err->message, sizeof err->message, format, args);
    va_end(args);
    return code;
}

/* ---- signals ------------------------------------------------------------------------------ */

static volatile sig_atomic_t stop_asked;

static void on_signal(int number) { stop_asked = number; }

void signals_prepare(void) {
    struct sigaction stop = { .sa_handler = on_signal, .sa_flags = (int)SA_RESETHAND };   /* no SA_RESTART: read() returns */
    struct sigaction ignore = { .sa_handler = SIG_IGN };
    struct sigaction now;
    sigemptyset(&stop.sa_mask);
    sigemptyset(&ignore.sa_mask);
    if (sigaction(SIGINT, NULL, &now) == 0 && now.sa_handler != SIG_IGN) sigaction(SIGINT, &stop, NULL);   /* nohup, & */
    sigaction(SIGTERM, &stop, NULL);
    sigaction(SIGPIPE, &ignore, NULL);
    sigaction(SIGXFSZ, &ignore, NULL);
}

void signals_worker(void) {
    struct sigaction stop = { .sa_handler = on_signal }, ignore = { .sa_handler = SIG_IGN };
    sigemptyset(&stop.sa_mask);
    sigemptyset(&ignore.sa_mask);
    sigaction(SIGUSR1, &stop, NULL);
    sigaction(SIGINT, &ignore, NULL);                    /* a terminal sends it to all of its processes */
    sigaction(SIGTERM, &ignore, NULL);
}

bool interrupted(void) { return stop_asked != 0; }

/* ---- in ------------------------------------------------------------------------------------ */

static rv_status fail_system(rv_error *err, const char *name, const char *doing) {
    int code = errno;
    return fail(err, code == ENOMEM ? RV_ERR_MEMORY : RV_ERR_IO, "%s: cannot %s: %s", name, doing, strerror(code));
}

/* Reads to the end; *data grows by doubling and belongs to the caller in every case. */
static rv_status read_all(int fd, input *in, rv_error *err) {
    const size_t limit = (size_t)INPUT_LIMIT_MIB << 20;
    size_t capacity = 1 << 16;
    struct stat st;
    if (fstat(fd, &st) == 0 && S_ISREG(st.st_mode) && st.st_size >= 0 && (uint64_t)st.st_size < limit)
        capacity = (size_t)st.st_size + 2;
    for (;;) {
        if (!in->data || in->bytes + 1 >= capacity) {
            if (in->data) capacity *= 2;
            char *data = realloc(in->data, capacity);
            if (!data) return fail(err, RV_ERR_MEMORY, "%s: out of memory", in->name);
            in->data = data;
        }
        ssize_t n = read(fd, in->data + in->bytes, capacity - 1 - in->bytes);
        if (n < 0 && errno == EINTR && !interrupted()) continue;
        if (n < 0 && errno == EINTR) return fail(err, RV_ERR_CANCELLED, "interrupted");
        if (n < 0) return fail_system(err, in->name, "read");
        in->bytes += (size_t)n;
        in->data[in->bytes] = '\0';
        if (n == 0) return RV_OK;
        if (in->bytes > limit) return fail(err, RV_ERR_FORMAT, "%s: too large: more than %d MiB", in->name, INPUT_LIMIT_MIB);
    }
}

rv_status input_read(const char *path, input *out, rv_error *err) {
    bool from_stdin = strcmp(path, "-") == 0;
    input in = { .name = from_stdin ? "stdin" : path };
    int fd = from_stdin ? STDIN_FILENO : open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_system(err, path, "open");
    rv_status st = read_all(fd, &in, err);
    if (!from_stdin) close(fd);
    if (st) free(in.data);
    else *out = in;
    return st;
}

void input_free(input *in) {
    free(in->data);
    *in = (input){ 0 };
}

rv_status input_read_text(const char *path, input *out, rv_error *err) {
    input in;
    rv_status st = input_read(path, &in, err);
    if (st) return st;
    size_t length = strlen(in.data);
    if (length < in.bytes) {
        st = fail(err, RV_ERR_FORMAT, "%s: not a text file: a NUL byte at offset %zu", in.name, length);
        input_free(&in);
        return st;
    }
    if (length && in.data[length - 1] == '\n') in.data[--length] = '\0';
    in.bytes = length;
    *out = in;
    return RV_OK;
}

bool is_folder(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

bool is_stdout(const char *path) {
    static const char *const names[] = { "-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (!strcmp(path, names[i])) return true;
    return false;
}

bool is_special(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && !S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode);
}

/* ---- out ----------------------------------------------------------------------------------- */

/* Where a write to `path` would land: links followed, so that renaming replaces the file and not
 * the link. *special: exists and is no regular file; such a path is opened as it is, since what
 * /dev/fd/3 leads to may have no name. The result is the caller's to free. */
static rv_status resolve(const char *path, char **real, bool *special, rv_error *err) {
    struct stat st;
    bool there = stat(path, &st) == 0;
    if (there && S_ISDIR(st.st_mode)) return fail(err, RV_ERR_IO, "%s: cannot write: it is a folder", path);
    *special = there && !S_ISREG(st.st_mode);
    *real = there && !*special ? realpath(path, NULL) : strdup(path);
    return *real ? RV_OK : fail_system(err, path, "write");
}

rv_status output_check(const char *path, rv_error *err) {
    char *real = NULL;
    bool special = false;
    rv_status st = resolve(path, &real, &special, err);
    if (st) return st;
    if (special || access(real, F_OK) == 0) {
        if (access(real, W_OK) != 0) st = fail_system(err, path, "write");
    }
    if (st == RV_OK && !special && access(dirname(real), W_OK | X_OK) != 0) st = fail_system(err, path, "write");
    free(real);
    return st;
}

static rv_status write_all(int fd, const char *name, const char *data, size_t bytes, rv_error *err) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR && !interrupted()) continue;
        if (n < 0 && errno == EINTR) return fail(err, RV_ERR_CANCELLED, "interrupted");
        if (n < 0) return fail_system(err, name, "write");
        data += n;
        bytes -= (size_t)n;
    }
    return RV_OK;
}

static rv_status write_directly(const char *path, const char *real, const char *data, size_t bytes, rv_error *err) {
    int fd = open(real, O_WRONLY | O_CLOEXEC);
    if (fd < 0) return fail_system(err, path, "open");
    rv_status st = write_all(fd, path, data, bytes, err);
    if (close(fd) != 0 && st == RV_OK) st = fail_system(err, path, "write");
    return st;
}

static rv_status write_and_rename(const char *path, const char *real, const char *data, size_t bytes, rv_error *err) {
    size_t n = strlen(real) + 32;
    char *temporary = malloc(n);
    if (!temporary) return fail(err, RV_ERR_MEMORY, "%s: out of memory", path);
    snprintf(temporary, n, "%s.tmp-%ld", real, (long)getpid());
    int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    rv_status st = RV_OK;
    if (fd < 0) st = fail_system(err, path, "create a file beside it");
    else {
        struct stat old;
        if (stat(real, &old) == 0) (void)!fchmod(fd, old.st_mode & 07777);      /* a replaced file keeps its mode */
        st = write_all(fd, path, data, bytes, err);
        if (st == RV_OK && fsync(fd) != 0) st = fail_system(err, path, "write");
        if (close(fd) != 0 && st == RV_OK) st = fail_system(err, path, "write");
        if (st == RV_OK && rename(temporary, real) != 0) st = fail_system(err, path, "replace");
        if (st) unlink(temporary);
    }
    free(temporary);
    return st;
}

rv_status output_write(const char *path, const char *data, size_t bytes, rv_error *err) {
    char *real = NULL;
    bool special = false;
    rv_status st = resolve(path, &real, &special, err);
    if (st) return st;
    st = special ? write_directly(path, real, data, bytes, err) : write_and_rename(path, real, data, bytes, err);
    free(real);
    return st;
}
