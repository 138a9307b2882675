/* test_cli_tokenize.c - text to ids and back, with the demo model's vocabulary. The chat string's ids
 * are those of expected.jsonl, which Hugging Face's tokenizer made. */
#include <stdlib.h>
#include <string.h>

#include "tests/cli/program.h"

#define PROMPT                                                                                                     \
    "<|start_header_id|>user<|end_header_id|>\n\n<|image|>Extract the receipt as KEY: VALUE lines.<|eot_id|>"      \
    "<|start_header_id|>assistant<|end_header_id|>\n\n"
#define IDS                                                                                                        \
    "1000 1006 438 424 1007 198 198 1016 322 279 333 284 318 25 315 332 13 1009 1006 271 82 640 378 83 1007 198 198"

static void chat_string_gives_the_reference_ids(void **state) {
    (void)state;
    prints("^" IDS "\n$", "tokenize", "-m", MODEL, "--bos", "--control", PROMPT);
    prints("^" IDS "\n$", "tokenize", "-m", MODEL "/tokenizer.json", "--bos", "--control", PROMPT);
}

static void control_tokens_in_text_are_text_unless_asked(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS("tokenize", "-m", MODEL, "<|eot_id|>"));
    assert_int_equal(o.code, 0);
    assert_false(matches(o.out, "(^| )1009( |\n)"));
    outcome_free(&o);
    prints("^1009\n$", "tokenize", "-m", MODEL, "--control", "<|eot_id|>");
}

static void ids_give_the_text_back(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS("tokenize", "-m", MODEL, "--ids", IDS));
    assert_int_equal(o.code, 0);
    assert_string_equal(o.out, "<|begin_of_text|>" PROMPT);
    outcome_free(&o);
    setting how = { .input = "[322, 279,333]\n" };
    check_prints(__LINE__, "^Extract the receipt", &how, ARGS("tokenize", "-m", MODEL, "--ids"));
    prints("^receipt\n$|^ receipt\n$", "tokenize", "-m", MODEL, "--ids", "--skip-control", "1000", "333", "1009");
}

static void stdin_is_taken_to_the_last_byte(void **state) {
    (void)state;
    setting how = { .input = "\n\n" };
    check_prints(__LINE__, "^198 198\n$", &how, ARGS("tokenize", "-m", MODEL));
}

static void jsonl_answers_line_by_line(void **state) {
    (void)state;
    setting how = { .input = "\"Extract the receipt\"\n\"\"\n\"\\n\\n\"\n" };
    check_prints(__LINE__, "^\\[322,279,333\\]\n\\[\\]\n\\[198,198\\]\n$", &how, ARGS("tokenize", "-m", MODEL, "--jsonl"));
    check_prints(__LINE__, "^\\[1000,322,279,333\\]\n\\[1000\\]\n", &how, ARGS("tokenize", "-m", MODEL, "--jsonl", "--bos"));
    how.input = "[322, 279, 333]\n[]\n[198,198]";
    check_prints(__LINE__, "^\"Extract the receipt\"\n\"\"\n\"\\\\n\\\\n\"\n$", &how,
                 ARGS("tokenize", "-m", MODEL, "--jsonl", "--ids"));
}

static void jsonl_text_survives_the_round_trip(void **state) {
    static const char lines[] = "\"caf\\u00e9 \xe2\x82\xac 12,50 \\ud83d\\ude00\"\n\"a\\u0000b\"\n";
    (void)state;
    setting how = { .input = lines };
    outcome o = run_with(&how, ARGS("tokenize", "-m", MODEL, "--jsonl"));
    assert_int_equal(o.code, 0);
    setting back = { .input = o.out };
    outcome again = run_with(&back, ARGS("tokenize", "-m", MODEL, "--jsonl", "--ids"));
    assert_int_equal(again.code, 0);
    assert_string_equal(again.out, "\"caf\xc3\xa9 \xe2\x82\xac 12,50 \xf0\x9f\x98\x80\"\n\"a\\u0000b\"\n");
    outcome_free(&o);
    outcome_free(&again);
}

static void wrong_lines_are_named_by_number(void **state) {
    static const char *const cases[][2] = {
        { "\"a\"\n5\n", "line 2: must be a JSON string" },
        { "\"a\"\n\n", "line 2: not JSON" },
        { "\"a\"\n\"b\"\n\"c\n", "line 3: not JSON" },
        { "\"\xff\"\n", "line 1: not JSON: unable to decode byte 0xff" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        setting how = { .input = cases[i][0] };
        outcome o = run_with(&how, ARGS("tokenize", "-m", MODEL, "--jsonl"));
        assert_int_equal(o.code, 4);
        if (!matches(o.err, cases[i][1])) fail_msg("%s: %s", cases[i][1], o.err);
        outcome_free(&o);
    }
    setting how = { .input = "[1, \"x\"]\n" };
    check_refuses(__LINE__, 4, "line 1: value 2 of the array is not a token id", &how,
                  ARGS("tokenize", "-m", MODEL, "--jsonl", "--ids"));
}

static void ids_nobody_has_are_refused(void **state) {
    (void)state;
    refuses(2, "\"x\": not a token id", "tokenize", "-m", MODEL, "--ids", "x");
    refuses(2, "\"99999999999\": not a token id", "tokenize", "-m", MODEL, "--ids", "5 99999999999");
    refuses(2, "5000", "tokenize", "-m", MODEL, "--ids", "5000");
    refuses(4, "UTF-8", "tokenize", "-m", MODEL, "caf\xe9");
    refuses(2, "--model is missing", "tokenize", "x");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chat_string_gives_the_reference_ids),
        cmocka_unit_test(control_tokens_in_text_are_text_unless_asked),
        cmocka_unit_test(ids_give_the_text_back),
        cmocka_unit_test(stdin_is_taken_to_the_last_byte),
        cmocka_unit_test(jsonl_answers_line_by_line),
        cmocka_unit_test(jsonl_text_survives_the_round_trip),
        cmocka_unit_test(wrong_lines_are_named_by_number),
        cmocka_unit_test(ids_nobody_has_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
