/* test_profile.c - rvbench --gpu-profile where there is no GPU: plans, projections, and what is refused. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/cli/program.h"

static json_t *json_of(const char *path) {
    size_t bytes;
    json_error_t why;
    char *text = file_read(path, &bytes);
    json_t *root = json_loadb(text, bytes, 0, &why);
    if (!root) fail_msg("not JSON: %s: %.300s", why.text, text);
    free(text);
    return root;
}

static double number(const json_t *object, const char *key) { return json_number_value(json_object_get(object, key)); }

/* Without a GPU nothing is measured, and that is said; what can be known without one is told. */
static void a_profile_without_a_gpu_is_a_plan_and_a_projection(void **state) {
    (void)state;
    const char *v100 = scratch("v100.json"), *h100 = scratch("h100.json");
    prints("profile v100 .*no GPU is usable here: .*so nothing is measured.*phase 1: .*int8 weights.*projection for Tesla V100 SXM2 16 GB \\(nothing was measured.*decode step .*bound by "
           "memory.*dollars for 1,000 pages .*phase 2: ", "--gpu-profile", "v100", "--json", v100);
    prints("dollars for 1,000 pages +[0-9.]+ +at 2.00 dollars an hour", "run", "--gpu-profile", "h100", "-m", MODEL, "--price", "2", "--json", h100);
    refuses(2, "must be one of v100, a10g", "--gpu-profile", "v9");
    json_t *root = json_of(v100), *phase = json_array_get(json_object_get(root, "phases"), 0), *projected = json_object_get(phase, "projection");
    assert_true(json_is_null(json_object_get(phase, "measured")));
    assert_true(json_is_null(json_object_get(root, "device")));
    assert_true(number(projected, "page_ms") > 100 && number(projected, "page_ms") < 60000);
    assert_true(number(projected, "dollars_1000_pages") > 0);
    json_decref(root);
    const char *page = scratch("report.html"), *csv = scratch("report.csv");
    size_t bytes;
    prints("Tesla V100 SXM2 16 GB . v100 . projection . same . int8 .*Break-even: ", "report", v100, h100, "-o", page, "--csv", csv, "--markdown", "-");
    char *html = file_read(page, &bytes), *table = file_read(csv, &bytes);
    assert_non_null(strstr(html, "prefers-color-scheme:dark"));
    assert_null(strstr(html, "http:"));                  /* no network: no addresses at all         */
    assert_null(strstr(html, "https:"));
    assert_null(strstr(html, "<script"));
    assert_null(strstr(html, "nan"));
    assert_true(matches(html, "Phase 1.*Phase 2.*Phase 3.*stroke-dasharray"));
    assert_true(matches(table, "^file,profile,gpu,kind.*\"projection\",\"same\",\"int8\",sm70,1,[0-9.]+"));
    free(html);
    free(table);
}

static void pages_that_differ_are_not_compared(void **state) {
    (void)state;
    const char *some = scratch("some.json"), *more = scratch("more.json");
    prints("an answer of 24", "--gpu-profile", "v100", "-n", "24", "--json", some);
    prints("an answer of 48", "--gpu-profile", "h100", "-n", "48", "--json", more);
    refuses(4, "some.json has pages of 4 tiles with 200 tokens asked and 24 answered, .*more.json has .* 48 answered: measure both with the same --tiles", "report", some, more);
}

/* Layers that stream from host memory come over PCIe in every step: 8.66 GB at 12 GB/s. */
static void streamed_layers_take_the_bus_time(void **state) {
    const char *path = scratch("streams.json");
    (void)state;
    prints("decode step +72[0-9]\\.[0-9] ms +bound by host bus", "--gpu-profile", "v100", "--gpu-layers", "0", "--host-memory", "40G", "--weights", "int8", "--json", path);
    json_t *root = json_of(path), *phase = json_array_get(json_object_get(root, "phases"), 0), *projected = json_object_get(phase, "projection");
    assert_true(number(phase, "streamed_bytes") > 8.6e9);
    assert_true(json_is_true(json_object_get(phase, "fits")));
    assert_string_equal(json_string_value(json_object_get(projected, "decode_bound")), "host bus");
    assert_string_equal(json_string_value(json_object_get(projected, "prefill_bound")), "host bus");
    assert_true(number(projected, "decode_tokens_s") < 1.45);
    assert_true(number(projected, "page_ms") > 128 * 720);
    json_decref(root);
}

static void what_does_not_fit_is_not_projected(void **state) {
    const char *path = scratch("too_much.json");
    size_t i;
    json_t *phase;
    (void)state;
    outcome o = run_with(NULL, ARGS("--gpu-profile", "v100", "--memory-limit", "3G", "--host-memory", "30G", "--json", path));
    assert_int_equal(o.code, 7);
    assert_true(matches(o.out, "it does not fit: [0-9.]+ GB too much, so nothing is projected"));
    assert_false(matches(o.out, "time per page|dollars for"));
    outcome_free(&o);
    json_t *root = json_of(path);
    json_array_foreach(json_object_get(root, "phases"), i, phase) {
        assert_true(json_is_false(json_object_get(phase, "fits")));
        assert_true(json_is_null(json_object_get(phase, "projection")));
    }
    assert_int_equal(i, 2);
    json_decref(root);
    refuses(4, "hold no numbers", "report", path);
}

static void an_answer_that_the_context_would_cut_is_refused(void **state) {
    (void)state;
    refuses(9, "--prompt-tokens and --tokens take 7[0-9]{4} tokens together, the context is 100", "--gpu-profile", "v100", "--context", "100", "--tokens", "65536", "--prompt-tokens", "9000");
    refuses(9, "the context is 2048", "--gpu-profile", "v100", "-m", MODEL, "--tokens", "2040");
    prints("1 sequence of 4096 tokens", "--gpu-profile", "v100");
    prints("1 sequence of 6202 tokens", "--gpu-profile", "h100", "--tokens", "6000");
}

/* 200 rows through 8.66 G weights and one through lm_head are 3.46 TFLOP; at 125 TFLOP/s and 60 % of that 46.2 ms. */
static void only_the_last_row_of_a_prompt_goes_through_lm_head(void **state) {
    (void)state;
    prints("prefill +46\\.2 ms +bound by tensor cores", "--gpu-profile", "v100");
}

/* A path of slashes is as good as one, so cut anywhere it still leads to the folder. */
static void a_temporary_folder_with_too_long_a_path_is_left_alone(void **state) {
    char path[4400], file[1300], command[1400];
    const char *folder = scratch("somebodys");
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s' && mkdir '%s' && touch '%s/precious'", folder, folder, folder);
    assert_int_equal(system(command), 0);
    memset(path, '/', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    memcpy(path, folder, strlen(folder));
    assert_int_equal(setenv("TMPDIR", path, 1), 0);
    refuses(3, "TMPDIR: its path is too long", "--gpu-profile", "v100");
    unsetenv("TMPDIR");
    snprintf(file, sizeof file, "%s/precious", folder);
    assert_int_equal(access(file, F_OK), 0);
}

/* On a GPU these runs would be measured, which takes a model. */
int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_profile_without_a_gpu_is_a_plan_and_a_projection),
        cmocka_unit_test(pages_that_differ_are_not_compared),
        cmocka_unit_test(streamed_layers_take_the_bus_time),
        cmocka_unit_test(what_does_not_fit_is_not_projected),
        cmocka_unit_test(a_temporary_folder_with_too_long_a_path_is_left_alone),
        cmocka_unit_test(only_the_last_row_of_a_prompt_goes_through_lm_head),
        cmocka_unit_test(an_answer_that_the_context_would_cut_is_refused),
    };
    setenv("CUDA_VISIBLE_DEVICES", "", 1);               /* projections are of machines without a GPU: none is seen */
    return cmocka_run_group_tests(tests, NULL, NULL);
}
