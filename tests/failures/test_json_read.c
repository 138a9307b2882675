/* test_json_read.c - the program's own JSON (conversations, journals, lists) when memory runs out: the tree, or the end with the exit code
 * for it; never good text called bad, nor a crash. */
#include <stdbool.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/failures/inject.h"
#include "tests/support/folder.h"
#include "tools/json_read.h"
#include "tools/report.h"

static char text[16384];
static char *wanted;
static size_t bytes;

/* Long strings, keys and numbers, escapes, and a list of many. */
static void write_text(void) {
    size_t n = (size_t)sprintf(text, "[{\"role\": \"user\", \"content\": \"");
    for (int i = 0; i < 3000; i++) text[n++] = (char)('a' + i % 26);
    n += (size_t)sprintf(text + n, "\\u00e9\\n\\ud83d\\ude00\"}, 123456789012345678, -1.5e10, true, null, \"");
    for (int i = 0; i < 200; i++) n += (size_t)sprintf(text + n, "\", \"%d", i);
    n += (size_t)sprintf(text + n, "\", {");
    for (int i = 0; i < 40; i++) n += (size_t)sprintf(text + n, "%s\"a_key_of_some_length_%d\": [%d, [], {}]", i ? ", " : "", i, i);
    bytes = n + (size_t)sprintf(text + n, "}]");
}

enum { SAME = 0, OTHER = 42, REFUSED = 43 };

/* In a process of its own, whose n-th malloc fails while the text is read. Returns its exit code. */
static int read_with_failure(uint64_t n, bool *hit) {
    int pipes[2], status;
    assert_int_equal(pipe(pipes), 0);
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        int failed = INJECT_MISSED;
        json_error_t why;
        dup2(pipes[1], STDERR_FILENO);
        inject_begin(INJECT_MALLOC, n);
        json_t *root = json_read(text, bytes, JSON_REJECT_DUPLICATES, &why);
        inject_end(&failed);
        char *is = root ? json_dumps(root, 0) : NULL;
        const char mark = failed == INJECT_MISSED ? '-' : '+';
        if (write(STDERR_FILENO, &mark, 1) != 1) _exit(OTHER);
        _exit(!root ? REFUSED : is && !strcmp(is, wanted) ? SAME : OTHER);
    }
    char said[256] = "";
    close(pipes[1]);
    size_t at = 0;
    for (ssize_t got; (got = read(pipes[0], said + at, sizeof said - 1 - at)) > 0; at += (size_t)got) {}
    close(pipes[0]);
    assert_int_equal(waitpid(pid, &status, 0), pid);
    if (!WIFEXITED(status)) fail_msg("malloc %d: signal %d: %s", (int)n, WTERMSIG(status), said);
    *hit = said[0] != '-';
    if (WEXITSTATUS(status) == EXIT_MEMORY && !strstr(said, "out of memory")) fail_msg("malloc %d: says \"%s\"", (int)n, said);
    return WEXITSTATUS(status);
}

static void memory_that_runs_out_ends_the_program_or_changes_nothing(void **state) {
    json_error_t why;
    bool hit = true;
    int ended = 0, same = 0;
    (void)state;
    write_text();
    json_t *root = json_read(text, bytes, JSON_REJECT_DUPLICATES, &why);
    if (!root) fail_msg("%s", why.text);
    wanted = json_dumps(root, 0);
    json_decref(root);
    for (uint64_t n = 1; hit; n += n < 60 ? 1 : 7) {
        const int code = read_with_failure(n, &hit);
        if (code != EXIT_MEMORY && code != SAME) fail_msg("malloc %d: code %d", (int)n, code);
        ended += code == EXIT_MEMORY;
        same += code == SAME;
    }
    print_message("%d ended, %d were as before\n", ended, same);
    assert_true(ended > 60 && same >= 1);
    free(wanted);
}

/* What jansson's limits are: nothing of it ends the program. */
static void text_at_the_limits_is_refused_with_a_reason(void **state) {
    static const struct { const char *text, *says; } rows[] = {
        { "{\"a\": 1, \"a\": 2}", "duplicate" }, { "[1e999]", "overflow" }, { "[123456789012345678901234567890]", "too big" }, { "[\"\xff\"]", "unable to decode" }, { "[1,]", "unexpected" },
        { "", "expected" }, { "[\"a", "end of input" } };
    json_error_t why;
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        assert_null(json_read(rows[i].text, strlen(rows[i].text), JSON_REJECT_DUPLICATES, &why));
        if (!strstr(why.text, rows[i].says)) fail_msg("%s: %s", rows[i].text, why.text);
    }
    memset(text, '[', sizeof text);
    assert_null(json_read(text, sizeof text, 0, &why));
    assert_non_null(strstr(why.text, "depth"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_that_runs_out_ends_the_program_or_changes_nothing),
        cmocka_unit_test(text_at_the_limits_is_refused_with_a_reason),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
