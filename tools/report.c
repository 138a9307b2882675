/* report.c - what the program says: see report.h. */
#include "tools/report.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/files.h"

const char *program_name = "rvengine";

static const char REPLACEMENT[] = "\xef\xbf\xbd";      /* U+FFFD */

/* ---- exit codes and stderr ---------------------------------------------------------------- */

int exit_code(rv_status status) {
    switch (status) {
    case RV_OK: return EXIT_OK;
    case RV_ERR_ARGUMENT: return EXIT_USAGE;
    case RV_ERR_ABI: return EXIT_INTERNAL;              /* program and library do not belong together */
    case RV_ERR_CANCELLED: return EXIT_INTERRUPTED;
    default: return status < 0 && status >= RV_ERR_INTERNAL ? -status : EXIT_INTERNAL;
    }
}

const char *exit_codes_text(void) {
    return "  0    it worked\n"
           "  1    it worked, and found what it was asked to look for (validate --fail-on, eval lint);\n"
           "       documents of a batch could not be read; run --json-schema: the answer was cut\n"
           "       short, and is not whole JSON\n"
           "  2    usage: an unknown option, a bad value, options that exclude each other,\n"
           "       or a request that makes no sense (an <|image|> without an image)\n"
           "  3    a file is missing, cannot be read or written; stdout is closed or full\n"
           "  4    a model, image, messages file or text is damaged (inspect --check: NaN, Inf, or scales\n"
           "       that make them, were found)\n"
           "  5    well formed, but not something this build can run\n"
           "  6    the machine is out of memory\n"
           "  7    it does not fit: on the device or in --memory-limit (plan and rvbench --gpu-profile too)\n"
           "  8    the device failed\n"
           "  9    prompt or images are longer or larger than what can be held\n"
           "  10   the queue is full\n"
           "  11   the session is busy\n"
           "  13   a bug in rvengine\n"
           "  130  interrupted (Ctrl-C)";
}

static void say_line(const char *prefix, const char *format, va_list args) {
    char line[8192];                                     /* a path alone may have 4096 bytes     */
    vsnprintf(line, sizeof line, format, args);
    for (char *c = line; *c; c++)
        if (((unsigned char)*c < 0x20 && *c != '\t') || *c == 0x7f) *c = '?';     /* names come from outside */
    fprintf(stderr, "%s%s\n", prefix, line);
}

void say_error(const char *format, ...) {
    va_list args;
    char prefix[32];
    snprintf(prefix, sizeof prefix, "%s ", program_name);
    va_start(args, format);
    say_line(prefix, format, args);
    va_end(args);
}

void say(const char *format, ...) {
    va_list args;
    va_start(args, format);
    say_line("", format, args);
    va_end(args);
}

int report(const char *command, const rv_error *err) {
    const bool by_user = err->code == RV_ERR_CANCELLED && interrupted();      /* the library knows of callbacks only */
    say_error("%s: %s", command, by_user ? "interrupted" : err->message);
    return exit_code(err->code);
}

static bool on_terminal;      /* where a worker's output ends, too: its own stdout is a pipe */

/* ---- stdout ------------------------------------------------------------------------------- */

void stdout_prepare(void) {
    for (int fd = 0; fd < 3; fd++) {
        if (fcntl(fd, F_GETFD) != -1) continue;
        int got = open("/dev/null", fd == 1 ? O_RDONLY : O_RDWR);     /* stdout: writing must fail */
        if (got != -1 && got != fd) {
            dup2(got, fd);
            close(got);
        }
    }
    on_terminal = isatty(STDOUT_FILENO);
}

int stdout_check(const char *command) {
    int mode = fcntl(STDOUT_FILENO, F_GETFL);
    if (mode != -1 && (mode & O_ACCMODE) != O_RDONLY) return EXIT_OK;
    say_error("%s: stdout: cannot write: it is closed (redirect it, or use --output)", command);
    return EXIT_IO;
}

static int failed_with;       /* errno of the first write that failed: a stream remembers only that one did */

static void note_failure(void) {
    if (ferror(stdout) && !failed_with) failed_with = errno;
}

bool stdout_flush(void) {
    errno = 0;
    fflush(stdout);
    note_failure();
    return !ferror(stdout);
}

int stdout_finish(const char *command) {
    if (stdout_flush()) return EXIT_OK;
    say_error("%s: stdout: cannot write the answer: %s", command, failed_with ? strerror(failed_with) : "write error");
    return EXIT_IO;
}

void print_text(const char *text, size_t bytes) {
    if (!on_terminal) {
        fwrite(text, 1, bytes, stdout);
        note_failure();
        return;
    }
    for (size_t i = 0; i < bytes; i++) {
        unsigned char c = (unsigned char)text[i];
        if ((c < 0x20 && c != '\n' && c != '\t') || c == 0x7f) fputs(REPLACEMENT, stdout);
        else putchar(c);
    }
    note_failure();
}

/* ---- numbers and names -------------------------------------------------------------------- */

short_text bytes_text(uint64_t bytes) {
    static const char *const units[] = { "B", "KiB", "MiB", "GiB", "TiB" };
    double v = (double)bytes;
    size_t unit = 0;
    while (v >= 1024 && unit + 1 < sizeof units / sizeof *units) v /= 1024, unit++;
    short_text s;
    snprintf(s.text, sizeof s.text, unit == 0 ? "%.0f %s" : v < 10 ? "%.2f %s" : "%.1f %s", v, units[unit]);
    return s;
}

short_text count_text(uint64_t count) {
    static const char *const units[] = { "", " k", " M", " G", " T" };
    double v = (double)count;
    size_t unit = 0;
    while (v >= 1000 && unit + 1 < sizeof units / sizeof *units) v /= 1000, unit++;
    short_text s;
    snprintf(s.text, sizeof s.text, unit == 0 ? "%.0f%s" : v < 10 ? "%.2f%s" : "%.1f%s", v, units[unit]);
    return s;
}

steps_words steps_text(uint32_t steps) {
    steps_words w = { "" };
    const char *name;
    size_t at = 0;
    for (rv_steps one = 1; at < sizeof w.text && (name = rv_step_name(one)); one <<= 1)
        if (steps & one) at += (size_t)snprintf(w.text + at, sizeof w.text - at, "%s%s", at ? ", " : "", name);
    return w;
}

const char *backend_name(rv_backend_id id) {
    return id == RV_BACKEND_CPU ? "cpu" : id == RV_BACKEND_CUDA ? "cuda" : "auto";
}

const char *weights_name(rv_weight_format format) {
    static const char *const names[] = { "auto", "16bit", "int8", "nf4", "fp4" };
    return format >= 0 && format <= RV_WEIGHTS_FP4 ? names[format] : "unknown";
}

const char *embedding_name(rv_embedding embedding) {
    static const char *const names[] = { "auto", "device", "host" };
    return embedding >= 0 && embedding <= RV_EMBEDDING_HOST ? names[embedding] : "unknown";
}

const char *compute_name(rv_compute compute) {
    static const char *const names[] = { "auto", "f32", "bf16", "f16" };
    return compute >= 0 && compute <= RV_COMPUTE_F16 ? names[compute] : "unknown";
}

/* ---- JSON --------------------------------------------------------------------------------- */

/* Bytes of the character at text[0..n), 0 when it is none (jansson's own check has the last word). */
static size_t character(const unsigned char *s, size_t n) {
    if (s[0] < 0x80) return 1;
    size_t want = s[0] >= 0xc2 && s[0] <= 0xdf ? 2 : s[0] >= 0xe0 && s[0] <= 0xef ? 3 : s[0] >= 0xf0 && s[0] <= 0xf4 ? 4 : 0;
    if (want == 0 || want > n) return 0;
    json_t *check = json_stringn((const char *)s, want);
    json_decref(check);
    return check ? want : 0;
}

json_t *json_text(const char *text, size_t bytes) {
    json_t *value = json_stringn(text, bytes);
    if (value) return value;
    if (bytes > SIZE_MAX / 3 - 1) return NULL;
    char *clean = malloc(bytes * 3 + 1);
    size_t n = 0;
    if (!clean) return NULL;
    for (size_t i = 0; i < bytes;) {
        size_t width = character((const unsigned char *)text + i, bytes - i);
        memcpy(clean + n, width ? text + i : REPLACEMENT, width ? width : 3);
        n += width ? width : 3;
        i += width ? width : 1;
    }
    value = json_stringn(clean, n);
    free(clean);
    return value;
}

json_t *json_textz(const char *text) { return text ? json_text(text, strlen(text)) : json_null(); }

json_t *json_ms(double ms) { return json_real(round(ms * 1000.0) / 1000.0); }

json_t *json_build(void) {
    json_t *build = json_object();
    const char *line = rv_build_info();
    while (*line) {
        size_t n = strcspn(line, "\n"), name = strcspn(line, ":\n");
        if (name < n) {
            char key[64];
            snprintf(key, sizeof key, "%.*s", (int)name, line);
            const char *value = line + name + 1;
            while (value < line + n && *value == ' ') value++;
            json_object_set_new(build, key, json_text(value, (size_t)(line + n - value)));
        }
        line += n + (line[n] == '\n');
    }
    return build;
}

json_t *json_device(const rv_device *d) {
    return json_pack("{s:s, s:i, s:o, s:i, s:i, s:o, s:I, s:I}", "backend", backend_name(d->backend), "index", d->index, "name",
                     json_textz(d->name), "arch", d->arch, "cores", d->cores, "features", json_textz(d->features), "memory_total",
                     (json_int_t)d->memory_total, "memory_free", (json_int_t)d->memory_free);
}

int json_print(const char *command, json_t *root, int compact) {
    if (!root) {
        say_error("%s: out of memory", command);
        return EXIT_MEMORY;
    }
    size_t layout = compact ? JSON_COMPACT : JSON_INDENT(2);
    const bool whole = json_dumpf(root, stdout, layout | JSON_ENCODE_ANY | JSON_REAL_PRECISION(9)) == 0;
    if (whole) putchar('\n');
    json_decref(root);
    const int printed = stdout_finish(command);
    return printed || whole ? printed : json_print(command, NULL, 0);       /* nothing is wrong with stdout: memory */
}

int json_write(const char *command, const char *path, json_t *root) {
    char *text = root ? json_dumps(root, JSON_INDENT(2) | JSON_REAL_PRECISION(9)) : NULL;
    rv_error err;
    json_decref(root);
    if (!text) {
        say_error("%s: out of memory", command);
        return EXIT_MEMORY;
    }
    size_t bytes = strlen(text);
    text[bytes] = '\n';                            /* the terminator's place: only `bytes` are written */
    int code = output_write(path, text, bytes + 1, &err) ? report(command, &err) : EXIT_OK;
    free(text);
    return code;
}
