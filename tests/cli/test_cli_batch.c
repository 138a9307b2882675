/* test_cli_batch.c - tools/examples/batch: many images in, one JSON line each out. RV_TEST_PROGRAM is batch here. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cli/program.h"
#include "tests/engine/demo.h"

#define RECEIPTS RV_TEST_DEMO "/receipts/"
#define SMALL RECEIPTS "r7001.png"                   /* of one tile */
#define ON_CPU "--model", MODEL, "--backend", "cpu", "--compute", "f32"

enum { MAX_LINES = 16 };

static int read_lines(const char *text, json_t *lines[MAX_LINES]) {
    int n = 0;
    for (const char *end; (end = strchr(text, '\n')); text = end + 1, n++) {
        json_error_t error;
        assert_true(n < MAX_LINES);
        lines[n] = json_loadb(text, (size_t)(end - text), 0, &error);
        if (!lines[n]) fail_msg("line %d: %s: %.300s", n + 1, error.text, text);
    }
    assert_string_equal(text, "");                   /* the last line ends too */
    return n;
}

static void free_lines(json_t *lines[], int n) {
    for (int i = 0; i < n; i++) json_decref(lines[i]);
}

static const char *text_of(const json_t *line, const char *key) {
    const char *text = json_string_value(json_object_get(line, key));
    return text ? text : "";
}

static const char *error_of(const json_t *line, const char *key) { return text_of(json_object_get(line, "error"), key); }

static void eight_receipts_in_four_slots_give_the_expected_answers(void **state) {
    (void)state;
    static demo_receipt demo[DEMO_RECEIPTS];
    json_t *lines[MAX_LINES];
    demo_read(demo);
    outcome o = run_with(NULL, ARGS(ON_CPU, "--slots", "4", RECEIPTS "r7000.png", RECEIPTS "r7001.png", RECEIPTS "r7002.png", RECEIPTS "r7003.png",
                                    RECEIPTS "r7004.png", RECEIPTS "r7005.png", RECEIPTS "r7006.png", RECEIPTS "r7007.png"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "batch: 8 images, 0 errors, [0-9.]+ s \\(cpu, 16bit weights, f32 products, 4 slots\\)"));
    assert_int_equal(read_lines(o.out, lines), DEMO_RECEIPTS);
    for (int i = 0; i < DEMO_RECEIPTS; i++) {
        json_t *tokens = json_object_get(lines[i], "tokens");
        assert_string_equal(text_of(lines[i], "file") + strlen(RECEIPTS), demo[i].image);
        assert_string_equal(text_of(lines[i], "text"), demo[i].answer);
        assert_string_equal(text_of(lines[i], "finish"), "stop");
        assert_int_equal(json_array_size(tokens), demo[i].n_answer);
        for (int k = 0; k < demo[i].n_answer; k++)
            assert_int_equal(json_integer_value(json_array_get(tokens, (size_t)k)), demo[i].answer_ids[k]);
    }
    free_lines(lines, DEMO_RECEIPTS);
    outcome_free(&o);
    demo_free(demo);
}

static void number_of_slots_changes_no_byte(void **state) {
    (void)state;
    outcome one = run_with(NULL, ARGS(ON_CPU, "--slots", "1", SMALL, RECEIPTS "r7002.png", RECEIPTS "r7004.png", SMALL));
    outcome three = run_with(NULL, ARGS(ON_CPU, "--slots", "3", SMALL, RECEIPTS "r7002.png", RECEIPTS "r7004.png", SMALL));
    assert_int_equal(one.code, 0);
    assert_int_equal(three.code, 0);
    assert_true(one.out_bytes > 0);
    assert_string_equal(one.out, three.out);
    outcome_free(&one);
    outcome_free(&three);
}

static void image_that_cannot_be_read_is_an_error_line_and_the_others_are_answered(void **state) {
    (void)state;
    json_t *lines[MAX_LINES];
    const char *text = file_write("no picture \"1\".png", "hello", 5), *empty = file_write("empty.png", "", 0);
    outcome o = run_with(NULL, ARGS(ON_CPU, "--slots", "2", "/no/such.png", SMALL, text, empty, RV_TEST_DEMO, SMALL));
    assert_int_equal(o.code, 1);
    assert_true(matches(o.err, "batch: 6 images, 4 errors"));
    assert_int_equal(read_lines(o.out, lines), 6);
    assert_string_equal(error_of(lines[0], "code"), "RV_ERR_IO");
    assert_string_equal(error_of(lines[0], "message"), "/no/such.png: No such file or directory");
    assert_string_equal(text_of(lines[0], "file"), "/no/such.png");
    assert_string_equal(text_of(lines[2], "file"), text);
    assert_true(matches(error_of(lines[2], "message"), "not a picture"));
    assert_true(*error_of(lines[3], "message") && *error_of(lines[4], "message"));
    assert_string_equal(text_of(lines[0], "text"), "");
    assert_true(matches(text_of(lines[1], "text"), "SUPPLIER: Little Books Co"));
    assert_string_equal(text_of(lines[5], "text"), text_of(lines[1], "text"));
    free_lines(lines, 6);
    outcome_free(&o);
}

static void answer_that_reaches_max_tokens_says_so(void **state) {
    (void)state;
    json_t *lines[MAX_LINES];
    outcome o = run_with(NULL, ARGS(ON_CPU, "--max-tokens", "3", "--prompt", "What is the total?", SMALL));
    assert_int_equal(o.code, 0);
    assert_int_equal(read_lines(o.out, lines), 1);
    assert_string_equal(text_of(lines[0], "finish"), "length");
    assert_int_equal(json_array_size(json_object_get(lines[0], "tokens")), 3);
    assert_true(matches(text_of(lines[0], "text"), "^\\$"));
    free_lines(lines, 1);
    outcome_free(&o);
}

static void output_file_is_whole_or_untouched(void **state) {
    (void)state;
    size_t bytes;
    char partial[1400];
    const char *path = file_write("answers.jsonl", "old", 3);
    snprintf(partial, sizeof partial, "%s.partial", path);
    refuses(3, "config.json: is missing", "--model", "/no/model", "-o", path, SMALL);
    char *text = file_read(path, &bytes);
    assert_string_equal(text, "old");
    assert_int_not_equal(access(partial, F_OK), 0);
    free(text);
    outcome to_stdout = run_with(NULL, ARGS(ON_CPU, SMALL, "/no/such.png"));
    outcome to_file = run_with(NULL, ARGS(ON_CPU, "--output", path, SMALL, "/no/such.png"));
    assert_int_equal(to_file.code, 1);
    assert_int_equal(to_file.out_bytes, 0);
    text = file_read(path, &bytes);
    assert_true(bytes > 0);
    assert_string_equal(text, to_stdout.out);
    assert_int_not_equal(access(partial, F_OK), 0);
    free(text);
    outcome_free(&to_stdout);
    outcome_free(&to_file);
}

static void output_that_cannot_be_written_is_an_error(void **state) {
    setting full = { .out = OUT_FULL };
    (void)state;
    refuses(3, "/no/such/x: No such file or directory", ON_CPU, "-o", "/no/such/x", SMALL);
    refuses(3, "cannot write: not a file", ON_CPU, "-o", "/dev/null", SMALL);
    check_refuses(__LINE__, 3, "stdout: No space left", &full, ARGS(ON_CPU, "--max-tokens", "2", SMALL));
}

static void bad_command_lines_get_the_usage(void **state) {
    (void)state;
    refuses(2, "usage: batch", SMALL);
    refuses(2, "usage: batch", "--model", MODEL);
    refuses(2, "usage: batch", ON_CPU, "--no-such-option", SMALL);
    refuses(2, "usage: batch", ON_CPU, "--slots", "0", SMALL);
    refuses(2, "usage: batch", ON_CPU, "--slots", "65", SMALL);
    refuses(2, "usage: batch", ON_CPU, "--slots", "4x", SMALL);
    refuses(2, "usage: batch", ON_CPU, "--max-tokens", "-1", SMALL);
    refuses(2, "usage: batch", "--model", MODEL, "--compute", "f64", SMALL);
    refuses(2, "usage: batch", "--model", MODEL, "--backend", "gpu", SMALL);
    refuses(2, "usage: batch", "--model", MODEL, "--weights", "int4", SMALL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(eight_receipts_in_four_slots_give_the_expected_answers),
        cmocka_unit_test(number_of_slots_changes_no_byte),
        cmocka_unit_test(image_that_cannot_be_read_is_an_error_line_and_the_others_are_answered),
        cmocka_unit_test(answer_that_reaches_max_tokens_says_so),
        cmocka_unit_test(output_file_is_whole_or_untouched),
        cmocka_unit_test(output_that_cannot_be_written_is_an_error),
        cmocka_unit_test(bad_command_lines_get_the_usage),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
