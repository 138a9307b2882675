/* test_cli_quantise.c - rvengine quantise, and where quantised weights are kept for the next start. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"
#include "tests/support/folder.h"

static void quantised_folders_are_models(void **state) {
    (void)state;
    static const struct { const char *weights, *quantised; } rows[] = { { "int8", "56 int8, 50 plain" }, { "nf4", "56 nf4, 50 plain" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char facts[200];
        const char *dir = fresh(rows[i].weights);
        snprintf(facts, sizeof facts, "quantised +%s\n.*every weight is a finite number", rows[i].quantised);
        prints(": 56 linear layers quantised, .* in 1 file, written in ", "quantise", "-m", MODEL, "-o", dir, "--weights", rows[i].weights);
        prints(facts, "inspect", dir, "--check");
        prints("SUPPLIER: ", "run", "--backend", "cpu", "-m", dir, "-i", RECEIPT, "--cache", "off");
        refuses(3, "is not empty", "quantise", "-m", MODEL, "-o", dir, "--weights", "int8");
        refuses(5, "is quantised already", "quantise", "-m", dir, "-o", scratch("again"), "--weights", "int8");
    }
}

static void options_choose_what_is_written(void **state) {
    (void)state;
    prints("\"quantised\": 105,.*\"bytes\": ", "quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--modules", "hf-literal", "--json");
    prints("^48 linear layers quantised", "quantise", "-m", MODEL, "--dry-run", "--weights", "int8", "--keep", "down_proj=16bit");
    prints("^105 linear layers .* in [1-9][0-9] files\n$", "quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--nested", "off", "--skip", "multi_modal_projector",
           "--shard-size", "1M");
    outcome nested = run_with(NULL, ARGS("quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--nested", "off"));
    outcome single = run_with(NULL, ARGS("quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--nf4-single"));      /* as other commands call it */
    assert_string_equal(nested.out, single.out);
    outcome_free(&nested);
    outcome_free(&single);
    outcome o = run_with(NULL, ARGS("quantise", "-m", MODEL, "--dry-run", "--weights", "int8", "--skip", "vision_tower"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "warning: skip list: \"vision_tower\" matches no linear layer of this model"));
    outcome_free(&o);
}

static void wrong_options_are_refused(void **state) {
    (void)state;
    refuses(2, "quantise: --model DIR is missing", "quantise", "-o", "x", "--weights", "int8");
    refuses(2, "quantise: --output DIR is missing", "quantise", "-m", MODEL, "--weights", "int8");
    refuses(2, "quantise: --weights int8.nf4 is missing", "quantise", "-m", MODEL, "-o", "x");
    refuses(2, "--weights: must be one of int8.nf4", "quantise", "-m", MODEL, "-o", "x", "--weights", "fp4");
    refuses(2, "is not NAME=16bit", "quantise", "-m", MODEL, "--dry-run", "--weights", "int8", "--keep", "lm_head");
    refuses(2, "modules hf-literal: is a skip list already", "quantise", "-m", MODEL, "--dry-run", "--weights", "int8", "--modules", "hf-literal", "--skip", "mlp");
    refuses(5, "hold one format; only 16bit can be kept", "quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--keep", "cross_attn=int8");
    for (int i = 0; i < 3; i++) {
        static const char *const names[] = { "-o", "--output", "--out" };
        refuses(3, "cannot make the folder: No such file", "quantise", "-m", MODEL, names[i], "/no/such/place/x", "--weights", "int8");
    }
    refuses(2, "--nf4-single and --nested on exclude each other", "quantise", "-m", MODEL, "--dry-run", "--weights", "nf4", "--nf4-single", "--nested", "on");
}

/* ---- what is said about options that change nothing ---- */

static int times(const char *text, const char *part) {
    int n = 0;
    for (const char *at = text; (at = strstr(at, part)); at += strlen(part)) n++;
    return n;
}

/* Each of `parts` (up to a NULL) once, and no other warning. */
static void expect_warnings(const char *const *parts, const char *const *args) {
    outcome o = run_with(NULL, args);
    int n = 0;
    if (o.code) fail_msg("exit code %d: %s", o.code, o.err);
    for (; parts[n]; n++)
        if (times(o.err, parts[n]) != 1) fail_msg("\"%s\" is not there once:\n%s", parts[n], o.err);
    if (times(o.err, "warning: ") != n) fail_msg("expected %d warnings:\n%s", n, o.err);
    outcome_free(&o);
}

#define RUN(dir, ...) ARGS("run", "--backend", "cpu", "-m", dir, "--raw", "GST", "-n", "2", "--cache", "off", __VA_ARGS__)

static void a_warning_about_a_list_is_said_once(void **state) {
    (void)state;
    expect_warnings(ARGS("skip list: \"a\" matches no linear layer", "skip list: \"b\" matches no linear layer"), RUN(MODEL, "--weights", "int8", "--skip", "a,b,"));
    expect_warnings(ARGS("keep list: \"a\" matches no text layer"), RUN(MODEL, "--weights", "nf4", "--keep", "a=int8"));
    expect_warnings(ARGS("skip list: \"a\" matches no linear layer"), ARGS("plan", "--backend", "cpu", "-m", MODEL, "--weights", "int8", "--skip", "a"));
}

static void options_that_change_nothing_are_said_once(void **state) {
    (void)state;
    const char *dir = fresh("idle");
    expect_warnings(ARGS("keep list: changes nothing: the weights are 16 bit"), RUN(MODEL, "--weights", "16bit", "--keep", "lm_head=int8"));
    expect_warnings(ARGS("keep list: changes nothing: the weights are 16 bit"), RUN(MODEL, "--keep", "lm_head=int8"));
    expect_warnings(ARGS("skip list: changes nothing", "nf4_single: changes nothing"), RUN(MODEL, "--skip", "lm_head", "--nf4-single"));
    expect_warnings(ARGS("modules hf-literal: changes nothing"), RUN(MODEL, "--weights", "16bit", "--modules", "hf-literal"));
    expect_warnings(ARGS("nf4_single: changes nothing: no weights become 4 bit"), RUN(MODEL, "--weights", "int8", "--nf4-single"));
    expect_warnings(ARGS("nf4_single: changes nothing: no weights become 4 bit"), ARGS("plan", "--backend", "cpu", "-m", MODEL, "--weights", "int8", "--nf4-single"));
    expect_warnings(ARGS(NULL), RUN(MODEL, "--weights", "int8", "--keep", "mlp.down_proj=nf4", "--nf4-single"));
    expect_warnings(ARGS(NULL), RUN(MODEL, "--weights", "nf4", "--nf4-single", "--modules", "hf-literal", "--keep", "lm_head=int8"));
    prints("", "quantise", "-m", MODEL, "-o", dir, "--weights", "nf4");
    expect_warnings(ARGS("keep list: changes nothing: the folder's weights are quantised already", "modules hf-literal: changes nothing", "nf4_single: changes nothing"),
                    RUN(dir, "--keep", "lm_head=int8", "--modules", "hf-literal", "--nf4-single"));
    expect_warnings(ARGS("skip list: changes nothing: the folder's weights are quantised already"), RUN(dir, "--weights", "nf4", "--skip", "lm_head"));
    expect_warnings(ARGS(NULL), RUN(dir, "--weights", "nf4"));
}

static void a_limit_on_file_sizes_is_an_error_and_leaves_nothing(void **state) {
    (void)state;
    const char *dir = fresh("limited");
    const setting small = { .file_limit = 4 << 20 };
    check_refuses(__LINE__, 3, "model.safetensors: cannot write: File too large", &small, ARGS("quantise", "-m", MODEL, "-o", dir, "--weights", "int8"));
    assert_int_equal(folder_count(dir, NULL), 0);
    check_refuses(__LINE__, 3, "model.safetensors: cannot write: File too large", &small, ARGS("synth", dir, "--shape", "tiny"));
    assert_int_equal(folder_count(dir, NULL), 0);
}

static void a_folder_that_another_process_writes_is_refused_and_left_alone(void **state) {
    (void)state;
    char dir[4096];
    snprintf(dir, sizeof dir, "%s", fresh("shared"));
    file_write("shared/model.safetensors.partial", "half", 4);
    const int fd = open(dir, O_RDONLY | O_DIRECTORY);
    assert_true(fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0);
    refuses(3, "shared: another process is writing there", "quantise", "-m", MODEL, "-o", dir, "--weights", "int8");
    refuses(3, "shared: another process is writing there", "synth", dir, "--shape", "tiny");
    assert_int_equal(folder_count(dir, NULL), 1);
    close(fd);
    prints("written in", "quantise", "-m", MODEL, "-o", dir, "--weights", "int8");
    fresh("shared");
}

/* A model of holes, large enough to be at work for a second. */
static const char *slow_model(void) {
    static char dir[4096];
    char shape[4096];
    snprintf(shape, sizeof shape, "%s/config.json", fresh("shape"));
    prints("written in", "synth", fresh("shape"), "--shape", "tiny", "--sparse");
    file_replace(shape, "\"intermediate_size\": 768", "\"intermediate_size\": 96000");
    snprintf(dir, sizeof dir, "%s", fresh("slow"));
    prints("written in", "synth", dir, "--shape", shape, "--sparse");
    return dir;
}

static void an_interrupted_run_says_so_and_leaves_an_empty_folder(void **state) {
    (void)state;
    char dir[4096], begun[4200];
    const char *model = slow_model();
    snprintf(dir, sizeof dir, "%s", fresh("interrupted"));
    snprintf(begun, sizeof begun, "%s/rvengine.partial", dir);
    for (int i = 0; i < 2; i++) {
        const setting stop = { .stop_signal = i ? SIGTERM : SIGINT, .stop_at = begun };
        check_refuses(__LINE__, 130, "^rvengine quantise: interrupted\n$", &stop, ARGS("quantise", "-m", model, "-o", dir, "--weights", "nf4", "--threads", "1"));
        assert_int_equal(folder_count(dir, NULL), 0);
    }
}

/* ---- the cache of `run` ---- */

#define READ(...) "run", "--backend", "cpu", "-m", MODEL, "--raw", "GST", "-n", "3", "-v", __VA_ARGS__

static void expect_cache(const char *regex, const char *const *args) {
    outcome o = run_with(NULL, args);
    assert_int_equal(o.code, 0);
    if (regex ? !matches(o.err, regex) : matches(o.err, "cache /|cache [a-z]*:")) fail_msg("stderr:\n%s", o.err);
    outcome_free(&o);
}

static void quantised_weights_are_kept_where_the_user_keeps_caches(void **state) {
    (void)state;
    char xdg[4096], home[4096], below[4200];
    snprintf(xdg, sizeof xdg, "%s", fresh("xdg"));
    snprintf(home, sizeof home, "%s", fresh("home"));
    setenv("XDG_CACHE_HOME", xdg, 1);
    setenv("HOME", home, 1);
    snprintf(below, sizeof below, "%s/rvengine", xdg);
    mkdir(below, 0777);
    fresh("xdg/rvengine");
    expect_cache("weights written to the cache .*xdg/rvengine/model-int8-[0-9a-f]{16}.rvcache", ARGS(READ("--weights", "int8")));
    expect_cache("weights read from the cache", ARGS(READ("--weights", "int8")));
    expect_cache(NULL, ARGS(READ("--weights", "int8", "--cache", "off")));
    expect_cache(NULL, ARGS(READ("--weights", "16bit")));
    assert_int_equal(folder_count(below, NULL), 1);
    unsetenv("XDG_CACHE_HOME");
    snprintf(below, sizeof below, "%s/.cache/rvengine", home);
    expect_cache("written to the cache .*home/.cache/rvengine/", ARGS(READ("--weights", "nf4")));
    assert_int_equal(folder_count(below, NULL), 1);
    fresh("home/.cache/rvengine");
    setenv("XDG_CACHE_HOME", "relative", 1);             /* the standard: such a one does not count */
    expect_cache("written to the cache .*home/.cache/rvengine/", ARGS(READ("--weights", "nf4")));
    fresh("home/.cache/rvengine");
    expect_cache("written to the cache .*given/model-nf4", ARGS(READ("--weights", "nf4", "--cache", fresh("given"))));
    assert_int_equal(folder_count(below, NULL), 0);
}

static void a_cache_that_grows_beyond_the_limit_on_files_is_a_warning_beside_the_answer(void **state) {
    (void)state;
    const char *dir = fresh("limited-cache");
    const setting small = { .file_limit = 1 << 20 };
    outcome o = run_with(&small, ARGS(READ("--weights", "int8", "--cache", dir)));
    assert_int_equal(o.code, 0);
    assert_true(o.out_bytes > 0);
    if (!matches(o.err, "warning: weights cache .*not written: cannot be written: File too large")) fail_msg("stderr:\n%s", o.err);
    assert_int_equal(folder_count(dir, NULL), 0);
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(quantised_folders_are_models),
        cmocka_unit_test(options_choose_what_is_written),
        cmocka_unit_test(wrong_options_are_refused),
        cmocka_unit_test(a_warning_about_a_list_is_said_once),
        cmocka_unit_test(options_that_change_nothing_are_said_once),
        cmocka_unit_test(a_limit_on_file_sizes_is_an_error_and_leaves_nothing),
        cmocka_unit_test(an_interrupted_run_says_so_and_leaves_an_empty_folder),
        cmocka_unit_test(a_folder_that_another_process_writes_is_refused_and_left_alone),
        cmocka_unit_test(quantised_weights_are_kept_where_the_user_keeps_caches),
        cmocka_unit_test(a_cache_that_grows_beyond_the_limit_on_files_is_a_warning_beside_the_answer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
