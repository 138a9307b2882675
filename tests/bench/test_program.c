/* test_program.c - rvbench as a user sees it: what it prints, what it writes, what it refuses. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/rvengine.h"
#include "tests/cli/program.h"

/* Short enough for a sanitizer. */
#define RUN "run", "-m", MODEL, "--backend", "cpu", "--repeat", "2", "-n", "6", "--prompt-tokens", "40", "--long-prompt", "90"

static const char *const stages[] = { "load", "load_files", "load_device", "load_plan", "load_place", "load_warm", "load_wait", "session",
                                      "vision_first", "prefill_first", "image_png", "image_jpeg", "image_pixels", "vision_4", "tower_4",
                                      "first_token_4", "prefill_40_image", "decode_1", "decode_2", "vision_1", "tower_1", "first_token_1", "prefill_40", "prefill_90" };
enum { STAGES = sizeof stages / sizeof *stages };

static json_t *parsed(const char *text, size_t bytes) {
    json_error_t why;
    json_t *root = json_loadb(text, bytes, 0, &why);
    if (!root) fail_msg("not JSON: %s: %.300s", why.text, text);
    return root;
}

static json_t *json_of(const char *path) {
    size_t bytes;
    char *text = file_read(path, &bytes);
    json_t *root = parsed(text, bytes);
    free(text);
    return root;
}

static json_t *row_of(const json_t *root, const char *name) {
    size_t i;
    json_t *row;
    json_array_foreach(json_object_get(root, "results"), i, row)
        if (strcmp(json_string_value(json_object_get(row, "name")), name) == 0) return row;
    return NULL;
}

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

static void spread_holds_the_median(const json_t *row, size_t repeats) {
    const json_t *values = json_object_get(row, "values");
    size_t i, inside = 0;
    json_t *value;
    assert_int_equal(json_array_size(values), repeats);
    assert_true(number(row, "min") > 0);
    assert_true(number(row, "min") <= number(row, "median") && number(row, "median") <= number(row, "max"));
    json_array_foreach(values, i, value) inside += json_number_value(value) >= number(row, "min") && json_number_value(value) <= number(row, "max");
    assert_int_equal(inside, repeats);
}

/* A line of the table, and in JSON every repeat and what it is compared with. */
static void every_stage_has_its_line(void **state) {
    static const char *const lines[] = {
        "rvbench run: rvengine [0-9.]+, .*products", "model .*model: .* in 3 files, [0-9]+ % of them in the page cache",
        "ceilings   read [0-9.]+ GB/s, copy [0-9.]+ GB/s, product of side [0-9]+ [0-9.]+ [GT]FLOP/s",
        "libraries  oneDNN bf16 ([0-9.]+ [GT]FLOP/s|absent), oneDNN f32 ([0-9.]+ [GT]FLOP/s|absent), OpenBLAS f32 ([0-9.]+ [GT]FLOP/s|absent)",
        "load  .* ms", "session  .* ms", "vision, first image of the process .* ms", "prefill, first prompt of the process .* ms", "its tower alone, 4 tiles .* ms .*% of product", "image, 448 x 448 PNG to tiles .* ms",
        "image, 448 x 448 JPEG to tiles .* ms", "image, pixels to tiles .* ms", "vision, 4 tiles .* ms .*% of product",
        "first token, 4 tiles, 40 tokens .* ms .*% of", "prefill of 40 tokens, image .* ms .*% of", "decode, 1 sequence, 4 tiles .* tok/s .*% of",
        "vision, 1 tile .* ms .*% of", "first token, 1 tile, 40 tokens .* ms .*% of", "prefill of 40 tokens, text only .* ms .*% of",
        "prefill of 90 tokens, text only .* ms .*% of", "decode, 2 sequences, 4 tiles .* tok/s .*% of",
        "memory     planned [0-9.]+ MiB: weights 30.4 MiB",
    };
    (void)state;
    const char *path = scratch("run.json");
    outcome o = run_with(NULL, ARGS(RUN, "--batch", "1,2", "--json", path));
    assert_int_equal(o.code, 0);
    for (size_t i = 0; i < sizeof lines / sizeof *lines; i++)
        if (!matches(o.out, lines[i])) fail_msg("no line like \"%s\" in\n%s", lines[i], o.out);
    outcome_free(&o);
    json_t *root = json_of(path);
    for (size_t i = 0; i < STAGES; i++) {
        json_t *row = row_of(root, stages[i]);
        if (!row) fail_msg("no result \"%s\"", stages[i]);
        spread_holds_the_median(row, strstr(stages[i], "_first") ? 1 : 2);
    }
    assert_int_equal(json_array_size(json_object_get(root, "results")), STAGES);
    json_t *decode = row_of(root, "decode_1"), *vision = row_of(root, "vision_4"), *settings = json_object_get(root, "settings");
    assert_true(number(decode, "floor") > 0 && number(decode, "percent_of_floor") > 0);
    assert_true(number(vision, "percent_of_floor") > 0 && number(vision, "percent_of_floor") < 200);
    assert_true(number(row_of(root, "first_token_4"), "min") > number(vision, "min"));
    assert_true(number(row_of(root, "tower_4"), "max") < number(vision, "max") && number(row_of(root, "tower_4"), "floor") < number(vision, "floor"));
    assert_true(number(row_of(root, "first_token_4"), "floor") > number(vision, "floor"));
    assert_true(number(json_object_get(root, "ceilings"), "read_bytes_s") > 1e6);
    assert_int_equal(number(settings, "tiles"), 4);
    assert_int_equal(number(settings, "prompt_tokens"), 40);
    assert_int_equal(number(settings, "long_tokens"), 90);
    assert_int_equal(number(settings, "answer_tokens"), 6);
    assert_true(number(json_object_get(root, "memory"), "planned") > number(json_object_get(root, "memory"), "weights"));
    assert_string_equal(json_string_value(json_object_get(json_object_get(root, "device"), "backend")), "cpu");
    json_decref(root);
}

static void json_to_stdout_is_nothing_but_json(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS(RUN, "--json", "-", "--long-prompt", "0", "--tiles", "1"));
    assert_int_equal(o.code, 0);
    json_t *root = parsed(o.out, o.out_bytes);
    assert_null(row_of(root, "prefill_90"));
    assert_null(row_of(root, "vision_4"));
    spread_holds_the_median(row_of(root, "vision_1"), 2);        /* once a repeat, not twice */
    json_decref(root);
    outcome_free(&o);
}

static void other_side_stands_beside_ours(void **state) {
    static const char text[] = "{\"results\": [{\"name\": \"decode_1\", \"median\": 0.001}, {\"name\": \"vision_4\", \"median\": 1e6}, "
                               "{\"name\": \"nobody\", \"median\": 1}], \"memory\": {\"peak_bytes\": 1048576}}";
    const char *path = file_write("hf.json", text, sizeof text - 1);
    (void)state;
    outcome o = run_with(NULL, ARGS(RUN, "--hf", path, "--repeat", "1"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.out, "HF  faster"));
    assert_true(matches(o.out, "decode, 1 sequence, .* 0\\.001 +[0-9]{3,}\\.[0-9]x"));
    assert_true(matches(o.out, "vision, 4 tiles .* 1000000 +[0-9]+\\.[0-9]x"));
    outcome_free(&o);
}

/* In one run, which takes a sanitizer long enough. */
static void an_image_of_the_users_own_and_a_cold_load_are_measured(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS(RUN, "--repeat", "1", "--image", RECEIPT, "--cold"));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.out, "image, file to tiles .* ms"));
    assert_false(matches(o.out, "PNG to tiles"));
    /* A system that keeps files in memory says so instead. */
    assert_true(matches(o.out, "raw read of its files, cold .* ms") ? matches(o.out, "load, cold .*% of raw read") : matches(o.err, "nothing here can be cold"));
    outcome_free(&o);
}

static void wrong_options_are_usage_errors(void **state) {
    (void)state;
    refuses(2, "run: --model is missing", "run");
    refuses(2, "rvbench run: unknown option --modle: did you mean --model", "run", "--modle", "x");
    refuses(2, "see rvbench run --help", "run", "extra");
    refuses(2, "--batch: must be up to 8 numbers from 1 to 64", "run", "-m", MODEL, "--batch", "1,,2");
    refuses(2, "--batch: must be", "run", "-m", MODEL, "--batch", "65");
    refuses(2, "--batch: must be", "run", "-m", MODEL, "--batch", "-1");
    refuses(2, "--batch: must be", "run", "-m", MODEL, "--batch", "1,2,3,4,5,6,7,8,9");
    refuses(2, "--tokens: must be a whole number from 2", "run", "-m", MODEL, "--tokens", "1");
    refuses(2, "--tiles: must be one of 1", "run", "-m", MODEL, "--tiles", "3");
    refuses(2, "this model's template alone takes more", RUN, "--prompt-tokens", "3");
    refuses(2, "--rows: must be", "ops", "--rows", "0");
    refuses(2, "--price goes with --gpu-profile", RUN, "--price", "2");
    refuses(2, "--price: must be a number from 0.001 to 1000", "--gpu-profile", "v100", "--price", "0");
    refuses(2, "--batch: has no meaning with --gpu-profile", "--gpu-profile", "v100", "--batch", "1,8");
    refuses(2, "--long-prompt: has no meaning with --gpu-profile", "--gpu-profile", "v100", "--long-prompt", "100");
    refuses(2, "--cold: has no meaning with --gpu-profile", "--gpu-profile", "v100", "--cold");
    refuses(2, "--hf: has no meaning with --gpu-profile", "--gpu-profile", "v100", "--hf", "/no/such.json");
    refuses(2, "unknown command \"rum\": did you mean run", "rum");
}

static void a_missing_model_or_image_is_an_io_error(void **state) {
    (void)state;
    refuses(3, "run: .*is missing", "run", "-m", "/no/such/model");
    refuses(3, "/no/such.png: cannot open", "run", "-m", MODEL, "--image", "/no/such.png");
    refuses(3, "/no/such.json: cannot open", "run", "-m", MODEL, "--hf", "/no/such.json");
}

static void a_damaged_comparison_is_a_format_error(void **state) {
    (void)state;
    refuses(4, "not JSON", "run", "-m", MODEL, "--hf", file_write("hf_bad.json", "{\"results\"", 10));
    refuses(4, "has no \"results\"", "run", "-m", MODEL, "--hf", file_write("hf_none.json", "{}", 2));
    static const char peak[] = "{\"results\": [], \"memory\": {\"peak_bytes\": 1e30}}", median[] = "{\"results\": [{\"name\": \"load\", \"median\": -1}]}";
    refuses(4, "hf_peak.json: \"peak_bytes\": must be 0 or from 1 to 1e.18, is 1e.30", "run", "-m", MODEL, "--hf", file_write("hf_peak.json", peak, sizeof peak - 1));
    refuses(4, "hf_median.json: \"median\": must be 0 or from", "run", "-m", MODEL, "--hf", file_write("hf_median.json", median, sizeof median - 1));
}

static void more_than_the_context_is_an_error(void **state) {
    (void)state;
    refuses(9, "the context is 2048", "run", "-m", MODEL, "--prompt-tokens", "2040", "--tokens", "20");
    refuses(9, "the context is 100", "run", "-m", MODEL, "--context", "100");
}

static void json_file_is_whole_or_left_alone(void **state) {
    (void)state;
    size_t bytes;
    const char *path = file_write("kept.json", "old", 3);
    refuses(2, "template alone", RUN, "--prompt-tokens", "3", "--json", path);
    char *text = file_read(path, &bytes);
    assert_string_equal(text, "old");
    free(text);
    refuses(3, "/no/such/x.json: cannot write", "run", "-m", MODEL, "--json", "/no/such/x.json");
}

static void stdout_that_nobody_reads_is_an_error(void **state) {
    setting closed = { .out = OUT_CLOSED }, full = { .out = OUT_FULL };
    (void)state;
    check_refuses(__LINE__, 3, "stdout: cannot write", &closed, ARGS(RUN, "--repeat", "1"));
    check_refuses(__LINE__, 3, "stdout: cannot write", &full, ARGS(RUN, "--repeat", "1"));
}

static void every_operation_is_timed(void **state) {
    static const char *const names[] = { "few_1_qkv", "few_1_o", "few_1_gate_up", "few_1_down", "few_1_head", "few_1_attend_self_100",
                                         "few_1_attend_image_68", "few_1_norm", "many_70_qkv", "many_70_attend_causal", "many_70_attend_image_68",
                                         "many_70_swiglu", "many_70_rope", "many_70_kv_store", "vision_4_patches", "vision_69_qkv", "vision_69_fc1",
                                         "vision_69_fc2", "vision_69_attend", "vision_69_norm", "vision_68_projector", "vision_68_kv", "vision_35_attend" };
    const char *path = scratch("ops.json");
    (void)state;
    prints("few_1_qkv .*q, k and v, 1 row .* us .*% of .*B/s .*FLOP/s", "ops", "--shape", "tiny", "--backend", "cpu", "--rows", "1", "--prefill-rows", "70", "--repeat",
           "2", "--json", path);
    json_t *root = json_of(path);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        json_t *row = row_of(root, names[i]);
        if (!row) fail_msg("no operation \"%s\"", names[i]);
        spread_holds_the_median(row, 2);
        assert_true(number(row, "percent_of_floor") > 0 && number(row, "bytes") > 0);
    }
    json_decref(root);
}

/* Its floor is nobody's: no percentage. */
static void a_scanned_page_is_read_on_one_core(void **state) {
    (void)state;
    prints("page_jpeg_2480x3508 +JPEG to tiles, one core +[0-9.]+ .* us +\n", "ops", "--shape", "tiny", "--backend", "cpu", "--only", "page_", "--repeat", "1");
}

static void only_what_is_asked_for_is_timed(void **state) {
    (void)state;
    outcome o = run_with(NULL, ARGS("ops", "--shape", "tiny", "--backend", "cpu", "--only", "attend", "--rows", "2", "--prefill-rows", "65", "--repeat", "1", "--json", "-"));
    assert_int_equal(o.code, 0);
    json_t *root = parsed(o.out, o.out_bytes);
    assert_int_equal(json_array_size(json_object_get(root, "results")), 6);
    assert_non_null(row_of(root, "few_2_attend_self_100"));
    assert_null(row_of(root, "few_2_qkv"));
    json_decref(root);
    outcome_free(&o);
}

static void operations_take_settings_too(void **state) {
    static const char *const wrong[][2] = { { "RV_BACKEND", "gpu" }, { "RV_THREADS", "many" }, { "RV_DEVICE", "first" }, { "RV_COMPUTE", "f8" } };
    char regex[64];
    (void)state;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        assert_int_equal(setenv(wrong[i][0], wrong[i][1], 1), 0);
        snprintf(regex, sizeof regex, "ops: %s: must be .* \\(environment\\)", wrong[i][0]);
        refuses(2, regex, "ops", "--shape", "tiny");
        unsetenv(wrong[i][0]);
    }
    const char *path = file_write("ops.env", "RV_COMPUTE=f32\nRV_BACKEND=cpu\n", 30);
    prints("shape tiny, f32 products, backend cpu", "ops", "--shape", "tiny", "--only", "few_1_o", "--rows", "1", "--prefill-rows", "8", "--repeat", "1", "--env-file", path);
}

static void help_names_both_commands(void **state) {
    (void)state;
    prints("usage: rvbench COMMAND", "--help");
    prints("usage: rvbench run --model DIR", "help", "run");
    prints("usage: rvbench ops", "ops", "--help");
    prints("^rvbench [0-9]+\\.[0-9]+\\.[0-9]+\nabi: [0-9]+\ncompiler: (gcc|clang) [0-9].*\nbackends: cpu.*\ncpu matrix library: .*\nimages: .*\n$", "--version");
    check_refuses(__LINE__, 2, "a command is missing: run, report or ops", NULL, (const char *const[]){ NULL });
}

/* Ceilings are measured dozens of times here: over little memory. */
static int limit_memory(void **state) {
    (void)state;
    return setenv("RV_MEMORY_LIMIT", "100M", 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_stage_has_its_line),
        cmocka_unit_test(json_to_stdout_is_nothing_but_json),
        cmocka_unit_test(other_side_stands_beside_ours),
        cmocka_unit_test(an_image_of_the_users_own_and_a_cold_load_are_measured),
        cmocka_unit_test(wrong_options_are_usage_errors),
        cmocka_unit_test(a_missing_model_or_image_is_an_io_error),
        cmocka_unit_test(a_damaged_comparison_is_a_format_error),
        cmocka_unit_test(more_than_the_context_is_an_error),
        cmocka_unit_test(json_file_is_whole_or_left_alone),
        cmocka_unit_test(stdout_that_nobody_reads_is_an_error),
        cmocka_unit_test(every_operation_is_timed),
        cmocka_unit_test(a_scanned_page_is_read_on_one_core),
        cmocka_unit_test(only_what_is_asked_for_is_timed),
        cmocka_unit_test(operations_take_settings_too),
        cmocka_unit_test(help_names_both_commands),
    };
    return cmocka_run_group_tests(tests, limit_memory, NULL);
}
