/* program.c - runs the rvengine program as a user does: see program.h. */
#include "tests/cli/program.h"

#include <errno.h>
#include <fcntl.h>
#include <regex.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "tests/support/folder.h"

enum { MAX_ARGS = 64, LIMIT_S = 300 };

/* ---- files --------------------------------------------------------------------------------- */

/* One scratch folder a test program, so that they may run at the same time. */
static const char *scratch_folder(void) {
    static char folder[1024];
    if (!*folder) {
        snprintf(folder, sizeof folder, "%s/%s", RV_TEST_TMP, CLI_SCRATCH);
        mkdir(folder, 0777);
    }
    return folder;
}

const char *scratch(const char *name) {
    static char paths[4][1280];
    static int next;
    char *path = paths[next++ % 4];
    snprintf(path, sizeof paths[0], "%s/%s", scratch_folder(), name);
    return path;
}

const char *fresh(const char *name) {
    const char *path = scratch(name);
    folder_empty(path);
    return path;
}

char *file_read(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    if (!file) fail_msg("%s: %s", path, strerror(errno));
    size_t capacity = 1 << 16, n = 0, got;
    char *data = malloc(capacity);
    assert_non_null(data);
    while ((got = fread(data + n, 1, capacity - n - 1, file)) > 0) {
        n += got;
        if (capacity - n > 1) continue;
        data = realloc(data, capacity *= 2);
        assert_non_null(data);
    }
    fclose(file);
    data[n] = '\0';
    *bytes = n;
    return data;
}

static void write_path(const char *path, const void *data, size_t bytes) {
    unlink(path);                                       /* may be a link into the demo model */
    FILE *file = fopen(path, "wb");
    if (!file) fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

const char *file_write(const char *name, const void *data, size_t bytes) {
    const char *path = scratch(name);
    write_path(path, data, bytes);
    return path;
}

void file_put(const char *path, long offset, const void *data, size_t bytes) {
    FILE *file = fopen(path, "r+b");
    if (!file) fail_msg("%s: %s", path, strerror(errno));
    assert_int_equal(fseek(file, offset, offset < 0 ? SEEK_END : SEEK_SET), 0);
    assert_int_equal(fwrite(data, 1, bytes, file), bytes);
    assert_int_equal(fclose(file), 0);
}

void file_cut(const char *path, long bytes) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(truncate(path, bytes < 0 ? st.st_size + bytes : bytes), 0);
}

void file_replace(const char *path, const char *from, const char *to) {
    size_t bytes;
    char *text = file_read(path, &bytes), *at = strstr(text, from);
    if (!at) fail_msg("%s: does not contain %s", path, from);
    size_t head = (size_t)(at - text), tail = bytes - head - strlen(from);
    char *changed = malloc(bytes + strlen(to) + 1);
    assert_non_null(changed);
    memcpy(changed, text, head);
    memcpy(changed + head, to, strlen(to));
    memcpy(changed + head + strlen(to), at + strlen(from), tail);
    write_path(path, changed, head + strlen(to) + tail);
    free(text);
    free(changed);
}

const char *model_copy(const char *name, const char *file) {
    static const char *const files[] = {
        "config.json", "generation_config.json", "preprocessor_config.json", "tokenizer.json", "tokenizer_config.json",
        "model.safetensors.index.json", "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    };
    static char folder[1280];
    char from[1400], to[1400];
    snprintf(folder, sizeof folder, "%s/%s", scratch_folder(), name);
    mkdir(folder, 0777);
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        snprintf(from, sizeof from, "%s/%s", MODEL, files[i]);
        snprintf(to, sizeof to, "%s/%s", folder, files[i]);
        unlink(to);
        if (strcmp(files[i], file) == 0) {
            size_t bytes;
            char *data = file_read(from, &bytes);
            write_path(to, data, bytes);
            free(data);
        } else assert_int_equal(symlink(from, to), 0);
    }
    return folder;
}

const char *quick_schema(void) {
    static const char text[] = "{\"title\": \"Type\", \"version\": \"1.0.0\", \"x-doctype\": \"RECEIPT\", \"x-prompt\": \"Extract the receipt as KEY: VALUE lines.\", \"x-prompt-alone\": true,"
                               "\"type\": \"object\", \"properties\": {\"DOCUMENT_TYPE\": {\"title\": \"Type\", \"enum\": [\"RECEIPT\", \"INVOICE\"]}}, \"additionalProperties\": false}";
    return file_write("quick.json", text, sizeof text - 1);
}

const char *pdf_file(const char *name, int n, const char *extra) {
    char *text = malloc((size_t)n * 400 + 2000);
    long *places = calloc((size_t)n + 3, sizeof *places);
    int at = sprintf(text, "%%PDF-1.4\n");
    places[1] = at;
    at += sprintf(text + at, "1 0 obj <</Type /Catalog /Pages 2 0 R>> endobj\n");
    places[2] = at;
    at += sprintf(text + at, "2 0 obj <</Type /Pages /Count %d /Kids [", n);
    for (int i = 0; i < n; i++) at += sprintf(text + at, "%d 0 R ", i + 3);
    at += sprintf(text + at, "]>> endobj\n");
    for (int i = 0; i < n; i++) {
        places[i + 3] = at;
        at += sprintf(text + at, "%d 0 obj <</Type /Page /Parent 2 0 R /MediaBox [0 0 100 100]>> endobj\n", i + 3);
    }
    int table = at;
    at += sprintf(text + at, "xref\n0 %d\n0000000000 65535 f \n", n + 3);
    for (int i = 1; i < n + 3; i++) at += sprintf(text + at, "%010ld 00000 n \n", places[i]);
    at += sprintf(text + at, "trailer <</Size %d /Root 1 0 R %s>>\nstartxref\n%d\n%%%%EOF\n", n + 3, extra, table);
    const char *path = file_write(name, text, (size_t)at);
    free(places);
    free(text);
    return path;
}

int has_pdftoppm(void) {
    const int has = access("/usr/bin/pdftoppm", X_OK) == 0;
    if (!has) print_message("no /usr/bin/pdftoppm: PDFs are drawn where poppler-utils is installed\n");
    return has;
}

/* ---- running ------------------------------------------------------------------------------- */

static void move_fd(int from, int to) {
    if (from == to) return;
    dup2(from, to);
    close(from);
}

/* In the child: stdin from a file, stdout as asked, stderr to a file; then the program. */
static void become(const setting *how, const char *const *args, const char *in, const char *out, const char *err) {
    const char *argv[MAX_ARGS] = { RV_TEST_PROGRAM };
    int n = 1, ends[2];
    for (; args[n - 1] && n < MAX_ARGS - 1; n++) argv[n] = args[n - 1];
    move_fd(open(in, O_RDONLY), STDIN_FILENO);
    move_fd(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666), STDERR_FILENO);
    if (how->out == OUT_FILE) move_fd(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666), STDOUT_FILENO);
    else if (how->out == OUT_FULL) move_fd(open("/dev/full", O_WRONLY), STDOUT_FILENO);
    else if (how->out == OUT_CLOSED) close(STDOUT_FILENO);
    else if (pipe(ends) == 0) {
        close(ends[0]);
        move_fd(ends[1], STDOUT_FILENO);
    }
    signal(SIGPIPE, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGXFSZ, SIG_DFL);
    if (how->file_limit) setrlimit(RLIMIT_FSIZE, &(struct rlimit){ (rlim_t)how->file_limit, (rlim_t)how->file_limit });
    execv(RV_TEST_PROGRAM, (char *const *)(uintptr_t)argv);
    _exit(126);
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

/* Waits for the end; sends a signal when its time has come, if asked. */
static int wait_for(pid_t pid, const setting *how, const char *out) {
    int status, sent = 0;
    struct stat st;
    for (double start = now(); waitpid(pid, &status, WNOHANG) != pid;) {
        struct timespec pause = { .tv_nsec = 2000000 };
        nanosleep(&pause, NULL);
        if (how->interrupt && !sent && stat(how->watch ? how->watch : out, &st) == 0 && st.st_size > how->watch_bytes) sent = kill(pid, SIGINT) == 0;
        if (how->stop_signal && !sent && access(how->stop_at, F_OK) == 0) sent = kill(pid, how->stop_signal) == 0;
        if (now() - start < LIMIT_S) continue;
        kill(pid, SIGKILL);
        waitpid(pid, &status, 0);
        fail_msg("the program still ran after %d s", LIMIT_S);
    }
    return status;
}

outcome run_with(const setting *how, const char *const *args) {
    static const setting plain = { 0 };
    char in[1300], out[1300], err[1300];
    snprintf(in, sizeof in, "%s/stdin", scratch_folder());
    snprintf(out, sizeof out, "%s/stdout", scratch_folder());
    snprintf(err, sizeof err, "%s/stderr", scratch_folder());
    if (!how) how = &plain;
    size_t n = how->input ? how->input_bytes ? how->input_bytes : strlen(how->input) : 0;
    write_path(in, how->input ? how->input : "", n);
    write_path(out, "", 0);
    fflush(NULL);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) become(how, args, in, out, err);
    int status = wait_for(pid, how, out);
    outcome o = { .signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0 };
    o.code = o.signal ? 128 + o.signal : WEXITSTATUS(status);
    size_t bytes;
    o.out = file_read(out, &o.out_bytes);
    o.err = file_read(err, &bytes);
    return o;
}

void outcome_free(outcome *o) {
    free(o->out);
    free(o->err);
    *o = (outcome){ 0 };
}

int matches(const char *text, const char *regex) {
    regex_t compiled;
    if (regcomp(&compiled, regex, REG_EXTENDED | REG_NOSUB)) fail_msg("not a regular expression: %s", regex);
    int found = regexec(&compiled, text, 0, NULL, 0) == 0;
    regfree(&compiled);
    return found;
}

static void show(int line, const char *why, const outcome *o, const char *const *args) {
    print_error("line %d: %s\n  command: rvengine", line, why);
    for (; *args; args++) print_error(" '%.300s'", *args);
    print_error("\n  exit code %d, signal %d\n  stderr: %.2000s\n  stdout: %.500s\n", o->code, o->signal, o->err, o->out);
    fail();
}

void check_refuses(int line, int code, const char *regex, const setting *how, const char *const *args) {
    outcome o = run_with(how, args);
    if (o.signal) show(line, "was killed by a signal", &o, args);
    if (o.code != code) show(line, "another exit code was expected", &o, args);
    if (!matches(o.err, regex)) show(line, regex, &o, args);
    if (o.out_bytes) show(line, "stdout must stay empty", &o, args);
    outcome_free(&o);
}

void check_prints(int line, const char *regex, const setting *how, const char *const *args) {
    outcome o = run_with(how, args);
    if (o.code != 0) show(line, "exit code 0 was expected", &o, args);
    if (!matches(o.out, regex)) show(line, regex, &o, args);
    outcome_free(&o);
}
