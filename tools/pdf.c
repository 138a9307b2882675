/* pdf.c - PDF pages as images, through poppler's pdftoppm in a process of its own.
 *
 * The one idea: a PDF is a program that somebody else wrote.  It is drawn in a child that has limited memory, time and output, sees an
 * empty environment, and whose failure is one document's failure.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tools/read.h"

enum { ADDRESS_SPACE_MIB = 2048, ALL_MIB = 1024, WHY_BYTES = 300, MARK_WITHIN = 1024 /* as readers of PDFs do: mail puts bytes before it */ };

bool is_pdf(const input *file) { return file->bytes > 5 && memmem(file->data, file->bytes < MARK_WITHIN ? file->bytes : MARK_WITHIN, "%PDF-", 5); }

/* ---- the child ---- */

typedef struct child { pid_t pid; int in, out, err; } child;

static void limit(int what, rlim_t most) {
    struct rlimit l = { most, most };
    setrlimit(what, &l);
}

static void run_child(const int in[2], const int out[2], const int err[2], uint32_t first, uint32_t last, uint32_t seconds, uint32_t dpi) {
    char first_text[16], last_text[16], dpi_text[16];
    snprintf(first_text, sizeof first_text, "%u", first);
    snprintf(last_text, sizeof last_text, "%u", last);
    snprintf(dpi_text, sizeof dpi_text, "%u", dpi);
    char *const argv[] = { "pdftoppm", "-r", dpi_text, "-f", first_text, "-l", last_text, "-", NULL };
    char *const environment[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C", NULL };
    dup2(in[0], 0);
    dup2(out[1], 1);
    dup2(err[1], 2);
    for (int fd = 3; fd < 256; fd++) close(fd);
    limit(RLIMIT_AS, (rlim_t)ADDRESS_SPACE_MIB << 20);
    limit(RLIMIT_CPU, seconds);
    limit(RLIMIT_FSIZE, 0);
    limit(RLIMIT_CORE, 0);
    signal(SIGXFSZ, SIG_DFL);                            /* ignored by this program: see files.h */
    setpgid(0, 0);
    execvpe("pdftoppm", argv, environment);
    _exit(127);
}

static void close_pair(int pair[2]) {
    close(pair[0]);
    close(pair[1]);
}

static rv_status start(child *c, const char *name, uint32_t first, uint32_t last, uint32_t seconds, uint32_t dpi, rv_error *err) {
    int in[2], out[2], why[2];
    if (pipe2(in, O_CLOEXEC)) return fail(err, RV_ERR_IO, "%s: %s", name, strerror(errno));
    if (pipe2(out, O_CLOEXEC)) return close_pair(in), fail(err, RV_ERR_IO, "%s: %s", name, strerror(errno));
    if (pipe2(why, O_CLOEXEC)) return close_pair(in), close_pair(out), fail(err, RV_ERR_IO, "%s: %s", name, strerror(errno));
    c->pid = fork();
    if (c->pid == 0) run_child(in, out, why, first, last, seconds, dpi);
    close(in[0]);
    close(out[1]);
    close(why[1]);
    *c = (child){ c->pid, in[1], out[0], why[0] };
    if (c->pid > 0) return RV_OK;
    close(c->in);
    close(c->out);
    close(c->err);
    return fail(err, RV_ERR_IO, "%s: cannot start pdftoppm: %s", name, strerror(errno));
}

/* ---- what it writes ---- */

typedef struct collected { char *data; size_t bytes, room; char why[WHY_BYTES + 1]; size_t why_bytes; } collected;

/* 0: the end. */
static ssize_t take(int fd, collected *c) {
    if (c->room - c->bytes < 1 << 16) {
        size_t room = 2 * c->room + (1 << 20);
        char *more = room <= (size_t)ALL_MIB << 20 ? realloc(c->data, room) : NULL;
        if (!more) return -1;
        c->data = more;
        c->room = room;
    }
    ssize_t n = read(fd, c->data + c->bytes, c->room - c->bytes);
    if (n > 0) c->bytes += (size_t)n;
    return n;
}

static ssize_t take_why(int fd, collected *c) {
    char scrap[512];
    ssize_t n = read(fd, scrap, sizeof scrap);
    for (ssize_t i = 0; i < n && c->why_bytes < WHY_BYTES; i++) c->why[c->why_bytes++] = scrap[i] == '\n' ? ' ' : scrap[i];
    return n;
}

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

typedef enum { DRAWN, TOO_SLOW, TOO_LARGE, STOPPED } outcome;

/* Feeds the file and reads what comes, until all of it has come or enough is enough. */
static outcome talk(child *p, const input *file, uint32_t seconds, collected *c) {
    size_t sent = 0;
    double until = seconds_now() + seconds;
    bool out = true, why = true;
    fcntl(p->in, F_SETFL, O_NONBLOCK);
    while (out || why) {
        struct pollfd fds[] = { { out ? p->out : -1, POLLIN, 0 }, { why ? p->err : -1, POLLIN, 0 }, { p->in, POLLOUT, 0 } };
        double left = until - seconds_now();
        if (left <= 0) return TOO_SLOW;
        if (interrupted()) return STOPPED;
        if (poll(fds, 3, left > 0.2 ? 200 : (int)(left * 1000) + 1) < 0 && errno != EINTR) return STOPPED;
        if (fds[2].revents) {
            ssize_t n = sent < file->bytes ? write(p->in, file->data + sent, file->bytes - sent) : 0;
            if (n > 0) sent += (size_t)n;
            if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR)) close(p->in), p->in = -1;
        }
        if (fds[0].revents) {
            ssize_t n = take(p->out, c);
            if (n < 0 && errno != EINTR) return TOO_LARGE;
            out = n != 0;
        }
        if (fds[1].revents && take_why(p->err, c) == 0) why = false;
    }
    return DRAWN;
}

static void end(child *p, bool kill_it, int *status) {
    if (kill_it) kill(-p->pid, SIGKILL), kill(p->pid, SIGKILL);
    if (p->in >= 0) close(p->in);
    close(p->out);
    close(p->err);
    while (waitpid(p->pid, status, 0) < 0 && errno == EINTR) continue;
}

/* ---- pages ---- */

/* The length of the PPM image at data; 0: there is none. */
static size_t ppm_bytes(const char *data, size_t bytes) {
    unsigned width, height, most;
    int header = 0;
    char head[64] = { 0 };
    memcpy(head, data, bytes < sizeof head - 1 ? bytes : sizeof head - 1);
    if (sscanf(head, "P6 %u %u %u%n", &width, &height, &most, &header) != 3 || most != 255) return 0;
    size_t all = (size_t)header + 1 + (size_t)width * height * 3;
    return width && height && width < 1 << 16 && height < 1 << 16 && all <= bytes ? all : 0;
}

static rv_status cut_pages(const char *name, const collected *c, uint32_t most, page_list *out, rv_error *err) {
    for (size_t at = 0, n; (n = ppm_bytes(c->data + at, c->bytes - at)); at += n) {
        if (out->count == most) {                                /* one more was drawn, to know */
            out->left_out++;
            break;
        }
        input *pages = realloc(out->pages, (out->count + 1) * sizeof *pages);
        if (!pages) return fail(err, RV_ERR_MEMORY, "%s: out of memory", name);
        out->pages = pages;
        char *copy = malloc(n + 1);
        if (!copy) return fail(err, RV_ERR_MEMORY, "%s: out of memory", name);
        memcpy(copy, c->data + at, n);
        copy[n] = '\0';
        pages[out->count++] = (input){ copy, n, name };
    }
    return RV_OK;
}

static rv_status explain(const char *name, outcome how, int status, const collected *c, uint32_t seconds, rv_error *err) {
    if (how == STOPPED) return fail(err, RV_ERR_CANCELLED, "%s: interrupted", name);
    if (how == TOO_SLOW || (WIFSIGNALED(status) && (WTERMSIG(status) == SIGXCPU || (WTERMSIG(status) == SIGKILL && how == DRAWN))))
        return fail(err, RV_ERR_TOO_LONG, "%s: drawing the PDF takes more than %u s: raise --page-seconds, or lower --dpi or --pages", name, seconds);
    if (how == TOO_LARGE) return fail(err, RV_ERR_TOO_LONG, "%s: its drawn pages have more than %d MiB: lower --dpi or --pages", name, ALL_MIB);
    if (WIFEXITED(status) && WEXITSTATUS(status) == 127) return fail(err, RV_ERR_UNSUPPORTED, "%s: PDFs are drawn by pdftoppm, which is not installed: apt-get install poppler-utils", name);
    if (strcasestr(c->why, "password")) return fail(err, RV_ERR_UNSUPPORTED, "%s: the PDF asks for a password: save it without one (qpdf --decrypt), then read that", name);
    return fail(err, RV_ERR_FORMAT, "%s: the PDF cannot be drawn: %s", name, c->why_bytes ? c->why : WIFSIGNALED(status) ? "pdftoppm was stopped by a limit" : "it has no pages");
}

rv_status pdf_draw(const char *name, const input *file, uint32_t pages, uint32_t seconds, uint32_t dpi, page_list *out, rv_error *err) {
    child p = { 0 };
    collected c = { 0 };
    int status = 0;
    rv_status st = start(&p, name, 1, pages + 1, seconds, dpi, err);
    if (st) return st;
    outcome how = talk(&p, file, seconds, &c);
    end(&p, how != DRAWN, &status);
    if (how == DRAWN && WIFEXITED(status) && WEXITSTATUS(status) == 0 && c.bytes) st = cut_pages(name, &c, pages, out, err);
    if (st == RV_OK && out->count == 0) st = explain(name, how, status, &c, seconds, err);
    if (st) pages_free(out);
    free(c.data);
    return st;
}
