/* test_cli_answers.c - the main job: text from receipts, by every way of asking. The expected answers
 * are those of an independent implementation (tools/demo/README.md). */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

enum { FIRST = 0, LARGEST_FILE = 1 << 20 };

/* Line i of expected.jsonl. */
static json_t *expected(int i) {
    FILE *file = fopen(RV_TEST_DEMO "/receipts/expected.jsonl", "r");
    assert_non_null(file);
    json_t *line = NULL;
    for (int at = 0; at <= i; at++) {
        json_decref(line);
        line = json_loadf(file, JSON_DISABLE_EOF_CHECK, NULL);
    }
    fclose(file);
    return line;
}

static json_t *run_json(const char *const *args) {
    outcome o = run_with(NULL, args);
    if (o.code != 0) fail_msg("exit code %d: %s", o.code, o.err);
    json_t *root = json_loads(o.out, 0, NULL);
    if (!root) fail_msg("not JSON: %s", o.out);
    outcome_free(&o);
    return root;
}

static void answer_is(const char *text, const json_t *line) {
    const char *answer = json_string_value(json_object_get(line, "answer"));
    size_t n = strlen(answer);
    if (strncmp(text, answer, n) != 0 || strcmp(text + n, "\n") != 0) fail_msg("got\n%s\nexpected\n%s", text, answer);
}

static void answers_receipt_0(const setting *how, const char *const *args) {
    json_t *line = expected(FIRST);
    outcome o = run_with(how, args);
    if (o.code != 0) fail_msg("exit code %d: %s", o.code, o.err);
    answer_is(o.out, line);
    json_decref(line);
    outcome_free(&o);
}

static void the_eight_receipts_give_the_reference_ids(void **state) {
    (void)state;
    int i = 0;
    for (json_t *line; (line = expected(i)); i++, json_decref(line)) {
        char image[1024];
        snprintf(image, sizeof image, "%s/receipts/%s", RV_TEST_DEMO, json_string_value(json_object_get(line, "image")));
        json_t *root = run_json(ARGS("run", "-m", MODEL, "-i", image, "--backend", "cpu", "--compute", "f32", "--json",
                                     "-p",
                                     json_string_value(json_object_get(line, "prompt"))));
        assert_true(json_equal(json_object_get(root, "prompt_tokens"), json_object_get(line, "prompt_ids")));
        assert_true(json_equal(json_object_get(root, "tokens"), json_object_get(line, "answer_ids")));
        assert_true(json_equal(json_object_get(root, "text"), json_object_get(line, "answer")));
        assert_string_equal(json_string_value(json_object_get(root, "finish_reason")), "stop");
        json_decref(root);
    }
    assert_int_equal(i, 8);
}

static void every_way_of_asking_gives_the_same_answer(void **state) {
    (void)state;
    answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT));
    answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--stream"));
    answers_receipt_0(NULL, ARGS("run", "--model=" MODEL, "--image=" RECEIPT, "--verbose", "--threads", "1"));
    answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--prompt-file",
                                 file_write("prompt.txt", "Extract the receipt as KEY: VALUE lines.\n", 41)));
    answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--raw",
                                 "<|start_header_id|>user<|end_header_id|>\n\n<|image|>Extract the receipt as KEY: VALUE "
                                 "lines.<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n"));
}

static void image_from_stdin_gives_the_same_answer(void **state) {
    (void)state;
    size_t bytes;
    char *png = file_read(RECEIPT, &bytes);
    setting how = { .input = png, .input_bytes = bytes };
    answers_receipt_0(&how, ARGS("run", "-m", MODEL, "-i", "-"));
    free(png);
}

static void append_base64(char *to, const char *data, size_t bytes) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    to += strlen(to);
    for (size_t i = 0; i < bytes; i += 3) {
        uint32_t word = 0;
        for (size_t j = 0; j < 3; j++) word = word << 8 | (i + j < bytes ? (unsigned char)data[i + j] : 0u);
        for (size_t j = 0; j < 4; j++) *to++ = i + j <= bytes ? digits[word >> (18 - 6 * j) & 63] : '=';
    }
    *to = '\0';
}

static void messages_give_the_same_answer(void **state) {
    static const char part[] = "{\"type\": \"text\", \"text\": \"Extract the receipt as KEY: VALUE lines.\"}]}]";
    static const char *const images[] = {
        "{\"type\": \"image\"}", "{\"type\": \"image\", \"path\": \"" RECEIPT "\"}",
        "{\"type\": \"image_url\", \"image_url\": {\"url\": \"" RECEIPT "\", \"detail\": \"high\"}}", NULL };
    (void)state;
    char *text = malloc(LARGEST_FILE);
    assert_non_null(text);
    for (int i = 0; i < 4; i++) {
        strcpy(text, "[{\"role\": \"user\", \"content\": [");
        if (images[i]) strcat(text, images[i]);
        else {
            size_t bytes;
            char *png = file_read(RECEIPT, &bytes);
            strcat(text, "{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,");
            append_base64(text, png, bytes);
            strcat(text, "\"}}");
            free(png);
        }
        strcat(strcat(text, ", "), part);
        const char *path = file_write("talk.json", text, strlen(text));
        if (i == 0) answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "--messages", path, "-i", RECEIPT));
        else answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "--messages", path));
    }
    free(text);
}

static void text_alone_gets_an_answer(void **state) {
    (void)state;
    prints(".", "run", "-m", MODEL, "-p", "What is the total?", "-n", "10");
    prints(".", "run", "-m", MODEL, "--raw", "DOCUMENT_TYPE:", "-n", "10");
}

static void two_images_get_an_answer(void **state) {
    (void)state;
    json_t *root = run_json(ARGS("run", "-m", MODEL, "-i", RECEIPT, "-i", RV_TEST_DEMO "/receipts/r7001.png", "--json",
                                 "-n", "20"));
    assert_int_equal(json_array_size(json_object_get(root, "images")), 2);
    assert_int_equal(json_integer_value(json_object_get(json_object_get(root, "stats"), "tiles")), 5);
    json_decref(root);
}

static void json_has_what_help_promises(void **state) {
    (void)state;
    json_t *root = run_json(ARGS("run", "-m", MODEL, "-i", RECEIPT, "--backend", "cpu", "--json", "--logprobs", "-n", "7"));
    json_t *stats = json_object_get(root, "stats"), *image = json_array_get(json_object_get(root, "images"), 0);
    assert_string_equal(json_string_value(json_object_get(root, "finish_reason")), "length");
    assert_int_equal(json_array_size(json_object_get(root, "tokens")), 7);
    assert_int_equal(json_array_size(json_object_get(root, "logprobs")), 7);
    for (size_t i = 0; i < 7; i++) {
        double logprob = json_number_value(json_array_get(json_object_get(root, "logprobs"), i));
        assert_true(logprob <= 0 && logprob > -1.5);         /* it was trained for this: no surprise */
    }
    assert_int_equal(json_integer_value(json_object_get(stats, "answer_tokens")), 7);
    assert_int_equal(json_integer_value(json_object_get(stats, "tiles")), 4);
    assert_true(json_number_value(json_object_get(stats, "vision_ms")) > 0);
    assert_int_equal(json_integer_value(json_object_get(image, "width")), 448);
    assert_string_equal(json_string_value(json_object_get(image, "file")), RECEIPT);
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "model"), "backend")), "cpu");
    json_decref(root);
}

static void stop_text_ends_the_answer_and_is_no_part_of_it(void **state) {
    (void)state;
    prints("^DOCUMENT_TYPE: RECEIPT\n$", "run", "-m", MODEL, "-i", RECEIPT, "--stop", "\nSUPPLIER");
    prints("^DOCUMENT_TYPE: RECEIPT\n$", "run", "-m", MODEL, "-i", RECEIPT, "--stop", "\nSUPPLIER", "--stream");
}

static void a_cut_answer_is_said_to_be_cut(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "-n", "3"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "cut short by --max-tokens"));
    outcome_free(&o);
}

static void the_same_seed_gives_the_same_sample(void **state) {
    (void)state;
    char *texts[3];
    static const char *const seeds[] = { "5", "5", "6" };
    for (int i = 0; i < 3; i++) {
        outcome o = run_with(NULL, ARGS("run", "-m", MODEL, "-p", "Read all the text.", "--temperature", "3", "--top-k",
                                        "0", "--top-p", "1", "-n", "30", "--seed", seeds[i]));
        assert_int_equal(o.code, 0);
        texts[i] = strdup(o.out);
        outcome_free(&o);
    }
    assert_string_equal(texts[0], texts[1]);
    assert_string_not_equal(texts[0], texts[2]);
    for (int i = 0; i < 3; i++) free(texts[i]);
    answers_receipt_0(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--sample", "--top-k", "1"));
}

static void verbose_tells_times_on_stderr(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--verbose", "-n", "20"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "memory +weights .*vision +[0-9.]+ ms.*prefill +[0-9.]+ ms.*decode .* tok/s"));
    assert_false(matches(o.out, " ms"));
    outcome_free(&o);
}

/* A folder's own penalty counts as if it had been asked for, and can be switched off. */
static void the_folders_repetition_penalty_is_the_default(void **state) {
    (void)state;
    const char *folder = model_copy("penalty", "generation_config.json");
    char path[1400];
    snprintf(path, sizeof path, "%s/generation_config.json", folder);
    file_replace(path, "{", "{ \"repetition_penalty\": 5.0, \"min_p\": 0.1,");
    outcome own = run_with(NULL, ARGS("run", "-m", folder, "-p", "What is the total?", "-n", "12")), asked = run_with(NULL, ARGS("run", "-m", MODEL, "-p", "What is the total?", "-n", "12", "--repetition-penalty", "5"));
    outcome off = run_with(NULL, ARGS("run", "-m", folder, "-p", "What is the total?", "-n", "12", "--repetition-penalty", "1")), plain = run_with(NULL, ARGS("run", "-m", MODEL, "-p", "What is the total?", "-n", "12"));
    assert_string_equal(own.out, asked.out);
    assert_string_equal(off.out, plain.out);
    assert_string_not_equal(own.out, plain.out);
    assert_non_null(strstr(own.err, "generation_config.json: not applied: min_p"));
    assert_null(strstr(plain.err, "not applied"));
    outcome_free(&own), outcome_free(&asked), outcome_free(&off), outcome_free(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_eight_receipts_give_the_reference_ids),
        cmocka_unit_test(every_way_of_asking_gives_the_same_answer),
        cmocka_unit_test(image_from_stdin_gives_the_same_answer),
        cmocka_unit_test(messages_give_the_same_answer),
        cmocka_unit_test(text_alone_gets_an_answer),
        cmocka_unit_test(the_folders_repetition_penalty_is_the_default),
        cmocka_unit_test(two_images_get_an_answer),
        cmocka_unit_test(json_has_what_help_promises),
        cmocka_unit_test(stop_text_ends_the_answer_and_is_no_part_of_it),
        cmocka_unit_test(a_cut_answer_is_said_to_be_cut),
        cmocka_unit_test(the_same_seed_gives_the_same_sample),
        cmocka_unit_test(verbose_tells_times_on_stderr),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
