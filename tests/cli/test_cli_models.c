/* test_cli_models.c - damaged and foreign model folders: what is wrong, in which file, and exit codes. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"

#define SHARD "model-00002-of-00003.safetensors"

/* Each way in must refuse in the same way. */
static void all_refuse(int line, int code, const char *regex, const char *model) {
    check_refuses(line, code, regex, NULL, ARGS("run", "-m", model, "-i", RECEIPT));
    check_refuses(line, code, regex, NULL, ARGS("inspect", model));
    check_refuses(line, code, regex, NULL, ARGS("plan", "-m", model));
}

static const char *in(const char *folder, const char *name) {
    static char path[2048];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

static void missing_model_folder_is_an_error(void **state) {
    (void)state;
    refuses(3, "/no/such/model", "run", "-m", "/no/such/model", "-p", "x");
    refuses(3, "/no/such/model", "inspect", "--model", "/no/such/model");
    refuses(3, "/no/such/model", "plan", "/no/such/model");
    refuses(3, "/no/such/model", "tokenize", "-m", "/no/such/model", "x");
}

static void empty_folder_is_an_error(void **state) {
    (void)state;
    mkdir(scratch("empty"), 0777);
    all_refuse(__LINE__, 3, "config\\.json", scratch("empty"));
}

static void image_given_as_model_is_an_error(void **state) {
    (void)state;
    refuses(3, "r7000\\.png", "run", "-m", RECEIPT, "-p", "x");
}

static void truncated_shard_is_an_error(void **state) {
    (void)state;
    const char *model = model_copy("truncated", SHARD);
    file_cut(in(model, SHARD), -1);
    all_refuse(__LINE__, 4, SHARD, model);
    file_cut(in(model, SHARD), 1000);
    all_refuse(__LINE__, 4, SHARD, model);
    file_cut(in(model, SHARD), 4);
    all_refuse(__LINE__, 4, SHARD, model);
    file_cut(in(model, SHARD), 0);
    all_refuse(__LINE__, 4, SHARD, model);
}

static void header_of_2_to_the_60_bytes_is_an_error(void **state) {
    static const unsigned char length[8] = { 0, 0, 0, 0, 0, 0, 0, 0x10 };
    (void)state;
    const char *model = model_copy("header", SHARD);
    file_put(in(model, SHARD), 0, length, sizeof length);
    all_refuse(__LINE__, 4, "header.*1152921504606846976.*" SHARD "|" SHARD ".*header.*1152921504606846976", model);
}

static void index_naming_a_missing_file_is_an_error(void **state) {
    (void)state;
    const char *model = model_copy("missing", SHARD);
    unlink(in(model, SHARD));
    all_refuse(__LINE__, 3, SHARD, model);
}

static void index_that_is_no_json_is_an_error(void **state) {
    (void)state;
    const char *model = model_copy("index", "model.safetensors.index.json");
    file_cut(in(model, "model.safetensors.index.json"), 100);
    all_refuse(__LINE__, 4, "model\\.safetensors\\.index\\.json", model);
}

static void config_values_of_the_wrong_kind_name_the_key(void **state) {
    static const char *const values[] = { "\"256\"", "null", "-256", "0", "2.5", "1e300", "[]", "{}", "true",
                                          "99999999999999999999999" };
    char to[64];
    (void)state;
    for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
        const char *model = model_copy("config", "config.json");
        snprintf(to, sizeof to, "\"hidden_size\": %s,", values[i]);
        file_replace(in(model, "config.json"), "\"hidden_size\": 256,", to);
        if (strcmp(values[i], "null") == 0) all_refuse(__LINE__, 4, "hidden_size|text\\.", model);
        else if (values[i][0] == '9') all_refuse(__LINE__, 4, "config\\.json.*too big integer at line 19", model);
        else all_refuse(__LINE__, 4, "config\\.json.*text_config\\.hidden_size", model);
    }
}

static void config_sections_of_the_wrong_kind_name_the_key(void **state) {
    static const char *const changes[][3] = {
        { "\"cross_attention_layers\": [", "\"cross_attention_layers\": [ \"1\",", "cross_attention_layers" },
        { "\"cross_attention_layers\": [", "\"cross_attention_layers\": [ 8,", "cross_attention_layers" },
        { "\"rms_norm_eps\": 1e-05", "\"rms_norm_eps\": \"small\"", "rms_norm_eps" },
        { "\"rope_parameters\": {", "\"rope_parameters\": 5, \"x\": {", "rope_parameters" },
        { "\"vision_config\": {", "\"vision_config\": [], \"x\": {", "vision_config" },
        { "\"patch_size\": 14", "\"patch_size\": 15", "patch_size|image_size" },
        { "\"image_token_index\": 1016", "\"image_token_index\": 5000", "image_token_index" },
        { "\"num_attention_heads\": 4", "\"num_attention_heads\": 3", "num_attention_heads" },
        { "\"intermediate_layers_indices\": [", "\"intermediate_layers_indices\": [ 6,", "intermediate_layers_indices" },
        { "\"text_config\": {", "\"text_config\": {{", "config\\.json" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const char *model = model_copy("sections", "config.json");
        file_replace(in(model, "config.json"), changes[i][0], changes[i][1]);
        all_refuse(__LINE__, 4, changes[i][2], model);
    }
}

static void other_architecture_is_unsupported(void **state) {
    (void)state;
    const char *model = model_copy("other", "config.json");
    file_replace(in(model, "config.json"), "\"model_type\": \"mllama\"", "\"model_type\": \"llava\"");
    all_refuse(__LINE__, 5, "llava", model);
}

static void config_of_another_size_names_tensor_and_file(void **state) {
    (void)state;
    const char *model = model_copy("shape", "config.json");
    file_replace(in(model, "config.json"), "\"intermediate_size\": 768", "\"intermediate_size\": 512");
    all_refuse(__LINE__, 4, "mlp\\.(gate|up|down)_proj.*safetensors", model);
    model = model_copy("layers", "config.json");
    file_replace(in(model, "config.json"), "\"num_hidden_layers\": 8", "\"num_hidden_layers\": 9");
    all_refuse(__LINE__, 4, "layers\\.8", model);
}

static void tokenizer_of_another_model_is_an_error(void **state) {
    (void)state;
    static const char *const changes[][3] = {
        { "\"id\": 1016", "\"id\": 128256", "wrong tokenizer: its ids go up to 128256" },
        { "\"id\": 1016", "\"id\": 1017", "wrong tokenizer: its <\\|image\\|> is 1017" },
        { "\"<|eot_id|>\"", "\"<|eot_xx|>\"", "wrong tokenizer: it has no <\\|eot_id\\|>" },
        { "\"<|begin_of_text|>\"", "\"<s>\"", "<\\|begin_of_text\\|>" },
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        const char *model = model_copy("tokenizer", "tokenizer.json");
        file_replace(in(model, "tokenizer.json"), changes[i][0], changes[i][1]);
        refuses(4, changes[i][2], "run", "-m", model, "-i", RECEIPT);
    }
}

static void damaged_tokenizer_is_an_error(void **state) {
    (void)state;
    const char *model = model_copy("tokens", "tokenizer.json");
    file_cut(in(model, "tokenizer.json"), 5000);
    refuses(4, "tokenizer\\.json", "run", "-m", model, "-p", "x");
    refuses(4, "tokenizer\\.json", "tokenize", "-m", model, "x");
    unlink(in(model, "tokenizer.json"));
    refuses(3, "tokenizer\\.json", "run", "-m", model, "-p", "x");
    refuses(3, "tokenizer\\.json", "tokenize", "-m", model, "x");
}

static void check_finds_a_weight_that_is_no_number(void **state) {
    static const unsigned char nan_bf16[2] = { 0xc0, 0x7f };
    (void)state;
    prints("every weight is a finite number", "inspect", MODEL, "--check");
    const char *model = model_copy("nan", SHARD);
    file_put(in(model, SHARD), -2, nan_bf16, sizeof nan_bf16);
    outcome o = run_with(NULL, ARGS("inspect", model, "--check"));
    assert_int_equal(o.code, 4);
    assert_true(matches(o.out, ": 1 NaN, 0 Inf \\(.*" SHARD "\\)"));
    assert_true(matches(o.err, "NaN"));
    outcome_free(&o);
}

static void inspect_tells_parts_and_prompt_form(void **state) {
    (void)state;
    prints("prompt_form +chat\n.*part .*\n.*text .*vision .*total ", "inspect", MODEL);
    prints("\"parts\": \\[.*\"parameters\": [1-9]", "inspect", MODEL, "--json");
}

static void plan_says_whether_it_fits(void **state) {
    (void)state;
    prints("weights .*total .*It fits", "plan", MODEL);
    prints("\"fits\": true", "plan", "-m", MODEL, "--json");
    outcome o = run_with(NULL, ARGS("plan", "-m", MODEL, "--memory-limit", "1M"));
    assert_int_equal(o.code, 7);
    assert_true(matches(o.out, "It does not fit: .* too much"));
    outcome_free(&o);
    refuses(7, "memory_limit|memory limit|memory-limit|fit", "run", "-m", MODEL, "-i", RECEIPT, "--memory-limit", "1M");
}

static void unsupported_weights_and_devices_are_refused(void **state) {
    (void)state;
    refuses(2, "weights nf4: the checkpoint holds int8 weights already: leave it out, or ask for 16bit", "plan", "-m",
            RV_TEST_DATA "/golden/bnb/int8", "--backend", "cpu", "--weights", "nf4");
    refuses(2, "\"lm_head=int9\" is not NAME=16bit, NAME=int8 or NAME=nf4", "plan", "-m", MODEL, "--weights", "int8", "--keep", "lm_head=int9");
    refuses(5, "attention plain: the CPU backend has one kind of attention; leave it out", "run", "-m", MODEL, "-p", "x", "--backend", "cpu",
            "--attention", "plain");
    refuses(5, "embedding host: the CPU backend reads its tables where they lie", "plan", "-m", MODEL, "--backend", "cpu", "--embedding", "host");
    refuses(5, "kernels sm70: the CPU backend has no such sets", "plan", "-m", MODEL, "--backend", "cpu", "--kernels", "sm70");
    refuses(5, "attention plain", "plan", "-m", MODEL, "--backend", "cpu", "--attention", "plain");
#ifndef RV_CUDA
    refuses(5, "backend cuda", "run", "-m", MODEL, "-p", "x", "--backend", "cuda");
#endif
}

/* What could not be found out is left out, not empty. */
static void json_of_an_inspection_that_failed_has_no_empty_lists(void **state) {
    (void)state;
    static const struct { int code; const char *absent, *args[12]; } rows[] = {
        { 7, "\"outliers\"", { "inspect", MODEL, "--outliers", "-p", "GST", "--memory-limit", "1M", "--backend", "cpu", "--json" } },
        { 3, "\"outliers\"", { "inspect", MODEL, "--outliers", "-i", "/no/such.png", "--json" } } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        outcome o = run_with(NULL, rows[i].args);
        assert_int_equal(o.code, rows[i].code);
        if (strstr(o.out, rows[i].absent) || !strstr(o.out, "\"facts\"")) fail_msg("%s", o.out);
        outcome_free(&o);
    }
    prints("\"outliers\": \\{[^}]*\"modules\": \\[\n *\\{", "inspect", MODEL, "--outliers", "-p", "GST", "-n", "2", "--backend", "cpu", "--json");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_model_folder_is_an_error),
        cmocka_unit_test(empty_folder_is_an_error),
        cmocka_unit_test(image_given_as_model_is_an_error),
        cmocka_unit_test(truncated_shard_is_an_error),
        cmocka_unit_test(header_of_2_to_the_60_bytes_is_an_error),
        cmocka_unit_test(index_naming_a_missing_file_is_an_error),
        cmocka_unit_test(index_that_is_no_json_is_an_error),
        cmocka_unit_test(config_values_of_the_wrong_kind_name_the_key),
        cmocka_unit_test(config_sections_of_the_wrong_kind_name_the_key),
        cmocka_unit_test(other_architecture_is_unsupported),
        cmocka_unit_test(config_of_another_size_names_tensor_and_file),
        cmocka_unit_test(tokenizer_of_another_model_is_an_error),
        cmocka_unit_test(damaged_tokenizer_is_an_error),
        cmocka_unit_test(check_finds_a_weight_that_is_no_number),
        cmocka_unit_test(inspect_tells_parts_and_prompt_form),
        cmocka_unit_test(plan_says_whether_it_fits),
        cmocka_unit_test(unsupported_weights_and_devices_are_refused),
        cmocka_unit_test(json_of_an_inspection_that_failed_has_no_empty_lists),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
