/* test_cli_usage.c - options, help, and the commands that load nothing. */
#include <stdio.h>

#include "tests/cli/program.h"

static void no_command_names_the_commands(void **state) {
    (void)state;
    check_refuses(__LINE__, 2, "run, inspect, plan, doctor, tokenize, synth, quantise, extract, classify, batch, schema, validate or eval", NULL, (const char *const[]){ NULL });
    refuses(2, "unknown command \"rum\": did you mean run", "rum");
    refuses(2, "unknown option \"--frobnicate\"", "--frobnicate");
    refuses(2, "unknown command \"xyzzyx\": see rvengine --help", "help", "xyzzyx");
}

static void unknown_option_names_the_nearest(void **state) {
    (void)state;
    refuses(2, "run: unknown option --iamge: did you mean --image\\?", "run", "--iamge", "x.png");
    refuses(2, "did you mean --max-tokens\\?", "run", "--max-token=5");
    refuses(2, "did you mean --temperature\\?", "run", "--temp", "1");
    refuses(2, "unknown option --qqqqqqqq: see rvengine run --help", "run", "--qqqqqqqq");
    refuses(2, "unknown option -Z", "run", "-Z");
    refuses(2, "inspect: unknown option --chek: did you mean --check", "inspect", "--chek", MODEL);
}

static void bad_option_values_say_what_is_allowed(void **state) {
    (void)state;
    refuses(2, "--max-tokens: must be a whole number from 0 to 1048576, is \"abc\"", "run", "--max-tokens", "abc");
    refuses(2, "--max-tokens: must be .* is \"-1\"", "run", "--max-tokens", "-1");
    refuses(2, "--max-tokens: must be .* is \"99999999999999999999\"", "run", "--max-tokens", "99999999999999999999");
    refuses(2, "--temperature: must be a number from 0 to 100, is \"nan\"", "run", "--temperature", "nan");
    refuses(2, "--top-p: must be a number from 1e-06 to 1, is \"1.5\"", "run", "--top-p", "1.5");
    refuses(2, "--max-tiles: must be one of 1\\|2\\|4, is \"3\"", "run", "--max-tiles", "3");
    refuses(2, "--attention: must be one of flash\\|plain, is \"fast\"", "run", "--attention", "fast");
    refuses(2, "--max-tiles: must be one of 1\\|2\\|4, is \"\"", "run", "--max-tiles", "");
    refuses(2, "--backend: must be one of auto\\|cpu\\|cuda, is \"gpu\"", "run", "--backend", "gpu");
    refuses(2, "--memory-limit: must be a size such as 12G", "plan", "--memory-limit", "12X");
    refuses(2, "--threads: must be a whole number from 1", "run", "--threads", "0");
    refuses(2, "--model needs a value: --model DIR", "run", "--model");
    refuses(2, "--stream takes no value, was given \"yes\"", "run", "--stream=yes");
    refuses(2, "unexpected argument \"receipt.png\"", "run", "receipt.png");
}

static void options_that_exclude_each_other_are_refused(void **state) {
    (void)state;
    refuses(2, "--model is missing", "run", "-i", RECEIPT);
    refuses(2, "nothing to do: give --image, --prompt", "run", "-m", MODEL);
    refuses(2, "--prompt, --messages and --raw exclude", "run", "-m", MODEL, "-p", "x", "--raw", "y");
    refuses(2, "--stream and --json exclude", "run", "-m", MODEL, "-p", "x", "--stream", "--json");
    refuses(2, "--logprobs needs --json", "run", "-m", MODEL, "-p", "x", "--logprobs");
    refuses(2, "change nothing without sampling", "run", "-m", MODEL, "-p", "x", "--seed", "4");
    refuses(2, "stdin \\(-\\) can be read only once", "run", "-m", MODEL, "-i", "-", "-i", "-");
    refuses(2, "stdin \\(-\\) can be read only once", "run", "-m", MODEL, "-i", "-", "--prompt-file", "-");
    refuses(2, "stdin \\(-\\) can be read only once", "run", "-m", MODEL, "-i", "-", "--json-schema", "-");
    refuses(2, "stdin \\(-\\) can be read only once", "run", "-m", MODEL, "-i", "-", "--env-file", "-");
    refuses(2, "--system goes with --prompt", "run", "-m", MODEL, "--raw", "x", "--system", "y");
    refuses(2, "--stop: must not be empty", "run", "-m", MODEL, "-p", "x", "--stop", "");
    refuses(2, "--check needs a model folder", "inspect", RECEIPT, "--check");
    refuses(2, "--outliers needs a model folder", "inspect", RECEIPT, "--outliers");
    refuses(2, "--outliers needs something to answer", "inspect", MODEL, "--outliers");
    refuses(2, "--prompt goes with --outliers", "inspect", MODEL, "-p", "x");
}

static void every_command_has_help(void **state) {
    static const char *const commands[] = { "run", "inspect", "plan", "doctor", "tokenize", "synth", "quantise", "extract", "classify", "batch", "schema", "validate", "eval" };
    (void)state;
    prints("usage: rvengine COMMAND", "--help");
    prints("help exit-codes", "help");
    prints("  130  interrupted", "help", "exit-codes");
    prints("  1  .*documents of a batch could not be read", "help", "exit-codes");
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        prints("^usage: rvengine ", commands[i], "--help");
        prints("^usage: rvengine ", "help", commands[i]);
        prints("-h, --help", commands[i], "-h");
    }
}

static void no_help_line_is_wider_than_a_terminal(void **state) {
    static const char *const commands[] = { "run", "inspect", "plan", "doctor", "tokenize", "synth", "extract", "classify", "batch", "schema", "validate", "eval" };
    (void)state;
    for (size_t i = 0; i < sizeof commands / sizeof *commands; i++) {
        outcome o = run_with(NULL, ARGS(commands[i], "--help"));
        size_t width = 0;
        for (const char *c = o.out; *c; c++) {
            width = *c == '\n' ? 0 : width + 1;
            if (width > 110) fail_msg("%s --help: a line of more than 110 columns", commands[i]);
        }
        outcome_free(&o);
    }
}

static void version_comes_with_what_it_was_built_with(void **state) {
    (void)state;
    prints("^rvengine [0-9]+\\.[0-9]+\\.[0-9]+\nabi: [0-9]+\ncompiler: (gcc|clang) [0-9].*\nbackends: cpu.*\ncpu matrix library: .*\nimages: .*\n$", "--version");
}

static void doctor_finds_a_cpu(void **state) {
    (void)state;
    prints("devices\n  cpu 0 .*checks\n.*ok +memory", "doctor");
    prints("\"backend\": \"cpu\"", "doctor", "--json");
    refuses(2, "unexpected argument", "doctor", "x");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_command_names_the_commands),
        cmocka_unit_test(unknown_option_names_the_nearest),
        cmocka_unit_test(bad_option_values_say_what_is_allowed),
        cmocka_unit_test(options_that_exclude_each_other_are_refused),
        cmocka_unit_test(every_command_has_help),
        cmocka_unit_test(no_help_line_is_wider_than_a_terminal),
        cmocka_unit_test(version_comes_with_what_it_was_built_with),
        cmocka_unit_test(doctor_finds_a_cpu),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
