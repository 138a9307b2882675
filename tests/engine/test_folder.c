/* test_folder.c - a model folder that is being written is one process's own, and a run that was killed at whatever moment never blocks the next.
 *
 * The one idea: the linker puts this file in front of the calls that open, rename and delete the folder's files (--wrap), and a child
 * process kills itself before or behind one of them, each in its turn.
 */
#include "tests/support/folder.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>

#include "engine/model.h"

static char source_dir[1024];            /* a small synthetic model                             */
static long steps_left;                  /* the step at which this process dies; 0: none        */

static void step(void) {
    if (steps_left && --steps_left == 0) raise(SIGKILL);
}

int __real_openat(int at, const char *path, int flags, mode_t mode);
int __wrap_openat(int at, const char *path, int flags, mode_t mode);
int __wrap_openat(int at, const char *path, int flags, mode_t mode) {
    step();
    const int fd = __real_openat(at, path, flags, mode);
    step();
    return fd;
}

int __real_renameat(int from_at, const char *from, int to_at, const char *to);
int __wrap_renameat(int from_at, const char *from, int to_at, const char *to);
int __wrap_renameat(int from_at, const char *from, int to_at, const char *to) {
    step();
    const int result = __real_renameat(from_at, from, to_at, to);
    step();
    return result;
}

int __real_unlinkat(int at, const char *path, int flags);
int __wrap_unlinkat(int at, const char *path, int flags);
int __wrap_unlinkat(int at, const char *path, int flags) {
    step();
    const int result = __real_unlinkat(at, path, flags);
    step();
    return result;
}

static int set_up(void **state) {
    (void)state;
    rv_error err;
    rv_synth_options o = { .size = sizeof o, .shape = "tiny" };
    if (rv_synthesise(folder_new(source_dir, "source"), &o, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(source_dir, "source");
    return rmdir(source_dir);
}

static rv_status quantise(const char *dir, rv_error *err) {
    const rv_quantise_options o = { .size = sizeof o, .weights = RV_WEIGHTS_INT8, .threads = 1, .shard_bytes = 4000000 };
    return rv_quantise(source_dir, dir, &o, NULL, err);
}

static rv_status synthesise(const char *dir, rv_error *err) {
    const rv_synth_options o = { .size = sizeof o, .shape = "tiny", .sparse = 1, .threads = 1 };
    return rv_synthesise(dir, &o, NULL, err);
}

/* Names of all files, sorted, a blank between. */
static void list(const char *dir, char out[2048]) {
    struct dirent **entries;
    const int n = scandir(dir, &entries, NULL, alphasort);
    assert_true(n >= 2);
    out[0] = '\0';
    for (int i = 0; i < n; i++) {
        if (entries[i]->d_name[0] != '.') snprintf(out + strlen(out), 2048 - strlen(out), "%s ", entries[i]->d_name);
        free(entries[i]);
    }
    free(entries);
}

static bool is_model(const char *dir) {
    rv_files f;
    rv_error err;
    if (rv_files_open(dir, true, &f, &err)) return false;
    rv_files_close(&f);
    return true;
}

/* Whether the run came to its end before the step. */
static bool killed_at(long k, rv_status (*write)(const char *, rv_error *), const char *dir) {
    int status;
    fflush(NULL);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        rv_error err;
        steps_left = k;
        _exit(write(dir, &err) ? 1 : 0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (WIFEXITED(status)) assert_int_equal(WEXITSTATUS(status), 0);
    else assert_int_equal(WTERMSIG(status), SIGKILL);
    return WIFSIGNALED(status);
}

static void kill_everywhere(rv_status (*write)(const char *, rv_error *)) {
    char dir[1024], wanted[2048], is[2048];
    rv_error err = { 0 };
    expect_ok(write(folder_new(dir, "whole"), &err), &err);
    list(dir, wanted);
    assert_null(strstr(wanted, "partial"));
    folder_new(dir, "killed");
    long k = 1, whole = 0;
    for (; killed_at(k, write, dir); k++) {
        const bool ended = is_model(dir);
        if (ended) whole++, expect_error(write(dir, &err), &err, RV_ERR_IO, "is not empty");
        else expect_ok(write(dir, &err), &err);
        list(dir, is);
        assert_string_equal(is, wanted);
        assert_true(is_model(dir));
        folder_new(dir, "killed");
    }
    print_message("killed at %ld steps, %ld of them behind the last name\n", k - 1, whole);
    assert_true(k > 30 && whole > 0 && whole < 6);
}

static void a_run_that_was_killed_never_blocks_the_next(void **state) {
    (void)state;
    kill_everywhere(quantise);
    kill_everywhere(synthesise);
}

static void what_builds_without_a_list_left_is_removed(void **state) {
    (void)state;
    char dir[1024], is[2048];
    rv_error err;
    folder_new(dir, "older");
    folder_write_text(dir, "model-00001-of-00009.safetensors.partial", "half");
    folder_write_text(dir, "model.safetensors.partial", "half");
    expect_ok(quantise(dir, &err), &err);
    list(dir, is);
    assert_null(strstr(is, "partial"));
}

static void only_what_is_listed_is_removed(void **state) {
    (void)state;
    char dir[1024], victim[1024], text[2048], is[2048];
    struct stat info;
    rv_error err = { 0 };
    folder_new(dir, "listed");
    folder_write_text(dir, "rvengine.partial", "mine");
    expect_error(quantise(dir, &err), &err, RV_ERR_IO, "is not empty, it holds rvengine.partial");
    FILE *f = fopen(folder_path(victim, "victim"), "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    const int n = snprintf(text, sizeof text, "files of a run of rvengine that has not ended\nmodel.safetensors%c..%s%ctokenizer.json%c", 0, strrchr(victim, '/'), 0, 0);
    folder_write(dir, "rvengine.partial", text, (size_t)n + 1);
    folder_write_text(dir, "tokenizer.json.partial", "half");
    folder_write_text(dir, "letter.txt", "dear");
    expect_error(quantise(dir, &err), &err, RV_ERR_IO, "is not empty, it holds letter.txt");
    list(dir, is);
    assert_string_equal(is, "letter.txt ");
    assert_int_equal(stat(victim, &info), 0);
    unlink(victim);
}

/* ---- two at a time ---- */

typedef struct second { const char *dir; bool asked; } second;

static int32_t try_the_same(void *user, float done) {
    second *s = user;
    rv_error err = { 0 };
    (void)done;
    if (s->asked) return 0;
    s->asked = true;
    expect_error(quantise(s->dir, &err), &err, RV_ERR_IO, "another process is writing there");
    expect_error(synthesise(s->dir, &err), &err, RV_ERR_IO, "another process is writing there");
    return 0;
}

static void a_second_run_into_the_folder_is_refused_and_the_first_ends_well(void **state) {
    (void)state;
    char dir[1024], is[2048];
    rv_error err;
    second s = { .dir = dir };
    rmdir(folder_new(dir, "two"));
    const rv_quantise_options o = { .size = sizeof o, .weights = RV_WEIGHTS_NF4, .progress = try_the_same, .progress_user = &s };
    expect_ok(rv_quantise(source_dir, dir, &o, NULL, &err), &err);
    assert_true(s.asked && is_model(dir));
    list(dir, is);
    assert_null(strstr(is, "partial"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_run_that_was_killed_never_blocks_the_next),
        cmocka_unit_test(what_builds_without_a_list_left_is_removed),
        cmocka_unit_test(only_what_is_listed_is_removed),
        cmocka_unit_test(a_second_run_into_the_folder_is_refused_and_the_first_ends_well),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
