/* test_cli_output.c - where the answer goes: it arrives whole, or the exit code says that it did not. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"

static void stdout_that_is_closed_is_an_error(void **state) {
    setting how = { .out = OUT_CLOSED };
    (void)state;
    check_refuses(__LINE__, 3, "run: stdout: cannot write", &how, ARGS("run", "-m", MODEL, "-i", RECEIPT));
    check_refuses(__LINE__, 3, "inspect: stdout: cannot write", &how, ARGS("inspect", MODEL));
    check_refuses(__LINE__, 3, "tokenize: stdout: cannot write", &how, ARGS("tokenize", "-m", MODEL, "x"));
    check_refuses(__LINE__, 3, "stdout: cannot write", &how, ARGS("--version"));
}

static void stdout_that_is_full_is_an_error(void **state) {
    setting how = { .out = OUT_FULL };
    static const char *const commands[][4] = {
        { "inspect", MODEL }, { "inspect", RECEIPT, "--json" }, { "plan", MODEL }, { "doctor" }, { "run", "--help" },
        { "--help" }, { "--version" },
    };
    (void)state;
    check_refuses(__LINE__, 3, "run: stdout: cannot write .*No space left", &how, ARGS("run", "-m", MODEL, "-i", RECEIPT));
    check_refuses(__LINE__, 3, "run: stdout: cannot write .*No space left", &how, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--stream"));
    check_refuses(__LINE__, 3, "run: stdout: cannot write ", &how, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--json"));
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++)
        check_refuses(__LINE__, 3, "stdout: cannot write .*No space left", &how, commands[i]);
}

static void reader_that_went_away_is_an_error(void **state) {
    setting how = { .out = OUT_BROKEN_PIPE };
    (void)state;
    check_refuses(__LINE__, 3, "Broken pipe", &how, ARGS("run", "-m", MODEL, "-p", "x", "-n", "5"));
    check_refuses(__LINE__, 3, "Broken pipe", &how, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--stream"));
    how.input = "\"a\"\n\"b\"\n\"c\"\n";
    check_refuses(__LINE__, 3, "stdout: cannot write", &how, ARGS("tokenize", "-m", MODEL, "--jsonl"));
}

static void output_file_has_the_answer(void **state) {
    (void)state;
    size_t bytes;
    const char *path = file_write("answer.txt", "old", 3);
    outcome to_stdout = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT));
    outcome to_file = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--output", path));
    assert_int_equal(to_file.code, 0);
    assert_int_equal(to_file.out_bytes, 0);
    char *text = file_read(path, &bytes);
    assert_string_equal(text, to_stdout.out);
    free(text);
    outcome_free(&to_stdout);
    outcome_free(&to_file);
    to_file = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--json", "-o", path, "-n", "3"));
    assert_int_equal(to_file.code, 0);
    text = file_read(path, &bytes);
    assert_true(matches(text, "^\\{\n.*\"finish_reason\": \"length\".*\\}\n$"));
    free(text);
    outcome_free(&to_file);
}

static void failed_run_leaves_the_output_file_alone(void **state) {
    (void)state;
    size_t bytes;
    const char *path = file_write("kept.txt", "old", 3);
    refuses(9, "", "run", "-m", MODEL, "-i", RECEIPT, "--context", "10", "--output", path);
    char *text = file_read(path, &bytes);
    assert_string_equal(text, "old");
    free(text);
}

static void output_that_cannot_be_written_is_known_before_the_work(void **state) {
    (void)state;
    refuses(3, "/no/such/x\\.txt: cannot write: No such file", "run", "-m", "/no/model", "-p", "x", "-o", "/no/such/x.txt");
    refuses(3, "is a folder", "run", "-m", "/no/model", "-p", "x", "-o", "/tmp");
    refuses(3, "/dev/full: cannot write: No space left", "run", "-m", MODEL, "-p", "x", "-n", "3", "-o", "/dev/full");
}

static void output_through_a_link_replaces_the_file_not_the_link(void **state) {
    (void)state;
    struct stat st;
    char link[1300];
    const char *path = file_write("real.txt", "old", 3);
    snprintf(link, sizeof link, "%s", scratch("link.txt"));
    remove(link);
    assert_int_equal(symlink(path, link), 0);
    outcome o = run_with(NULL, ARGS("run", "-m", MODEL, "-p", "x", "-n", "3", "-o", link));
    assert_int_equal(o.code, 0);
    outcome_free(&o);
    assert_int_equal(lstat(link, &st), 0);
    assert_true(S_ISLNK(st.st_mode));
    size_t bytes;
    char *text = file_read(path, &bytes);
    assert_string_not_equal(text, "old");
    free(text);
}

/* What a shell makes of the command; RV is the program. */
static char *shell(const char *format, const char *argument) {
    static char text[4096];
    char line[4096];
    setenv("RV", RV_TEST_PROGRAM, 1);
    setenv("M", MODEL, 1);
    snprintf(line, sizeof line, format, argument);
    FILE *from = popen(line, "r");
    assert_non_null(from);
    text[fread(text, 1, sizeof text - 1, from)] = '\0';
    assert_int_equal(pclose(from), 0);
    return text;
}

static void output_to_a_pipe_arrives(void **state) {
    (void)state;
    char want[4096];
    snprintf(want, sizeof want, "%s", shell("$RV run -m $M -p x -n 5%s", ""));
    assert_string_equal(shell("$RV run -m $M -p x -n 5 -o %s | cat", "/dev/stdout"), want);
    assert_string_equal(shell("$RV run -m $M -p x -n 5 -o %s 3>&1 >/dev/null | cat", "/dev/fd/3"), want);
    assert_string_equal(shell("$RV run -m $M -p x -n 5 -o %s 3>&1 >/dev/null | cat", "/proc/self/fd/3"), want);
}

static void a_dash_as_output_is_stdout(void **state) {
    (void)state;
    char answer[4096];
    unlink("-");
    snprintf(answer, sizeof answer, "%s", file_write("answer.txt", "DOCUMENT_TYPE: RECEIPT\n", 23));
    prints("^.+\n$", "run", "-m", MODEL, "-p", "x", "-n", "5", "-o", "-");
    prints("^[{]\n", "run", "-m", MODEL, "-p", "x", "-n", "5", "--json", "-o", "-");
    prints("^.+\n$", "run", "-m", MODEL, "-p", "x", "-n", "5", "--stream", "-o", "-");
    prints("^DOCUMENT_TYPE: INVOICE\n", "extract", "-m", MODEL, "-s", "demo_receipt", "--ocr", "off", "--backend", "cpu", "-f", "kv", "-o", "-", RV_TEST_DEMO "/receipts/r7001.png");
    prints("RECEIPT", "validate", "-s", "receipt", "-o", "-", answer);
    assert_int_equal(access("-", F_OK), -1);
}

static void ctrl_c_cancels_with_130(void **state) {
    setting how = { .interrupt = 1 };
    (void)state;
    outcome o = run_with(&how, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--stream", "--ignore-stop", "-n", "0"));
    assert_int_equal(o.signal, 0);
    assert_int_equal(o.code, 130);
    assert_true(matches(o.err, "run: interrupted"));
    assert_true(o.out_bytes > 0);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(stdout_that_is_closed_is_an_error),
        cmocka_unit_test(stdout_that_is_full_is_an_error),
        cmocka_unit_test(reader_that_went_away_is_an_error),
        cmocka_unit_test(output_file_has_the_answer),
        cmocka_unit_test(failed_run_leaves_the_output_file_alone),
        cmocka_unit_test(output_that_cannot_be_written_is_known_before_the_work),
        cmocka_unit_test(output_through_a_link_replaces_the_file_not_the_link),
        cmocka_unit_test(output_to_a_pipe_arrives),
        cmocka_unit_test(a_dash_as_output_is_stdout),
        cmocka_unit_test(ctrl_c_cancels_with_130),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
