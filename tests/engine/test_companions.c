/* test_companions.c - model folders in bitsandbytes' form whose companions are not as they should be, and what inspecting and loading say. */
#include "tests/support/model_file.h"

#include <jansson.h>
#include <math.h>

#include "engine/model.h"
#include "engine/modules.h"
#include "engine/synth.h"
#include "loader/bnb.h"

static char source[1024], dir[1024];
static const float zeros[4096];

static void synthesise(const char *name, const char *shape) {
    rv_error err = { 0 };
    const rv_synth_options o = { .size = sizeof o, .shape = shape };
    expect_ok(rv_synthesise(folder_new(source, name), &o, NULL, &err), &err);
}

static int set_up(void **state) {
    (void)state;
    synthesise("source", "tiny");
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(source, "source");
    return rmdir(source);
}

static void quantise(rv_weight_format weights, int32_t single) {
    rv_error err = { 0 };
    const rv_quantise_options o = { .size = sizeof o, .weights = weights, .nf4_single = single };
    expect_ok(rv_quantise(source, folder_new(dir, "quantised"), &o, NULL, &err), &err);
}

/* A fresh quantised copy of the model, laid open. */
static model_file *quantised(rv_weight_format weights, int32_t single) {
    quantise(weights, single);
    return model_file_open(dir);
}

static rv_status load(rv_weight_format weights, rv_error *err) {
    const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .weights = weights };
    rv_model *m = NULL;
    rv_status st = rv_model_load(dir, &o, &m, err);
    rv_model_free(m);
    return st;
}

/* As stored, in 16 bit, and looked through without loading: one sentence. */
static void all_refuse(const char *part) {
    rv_error err = { 0 };
    expect_error(load(RV_WEIGHTS_AUTO, &err), &err, RV_ERR_FORMAT, part);
    expect_error(load(RV_WEIGHTS_16BIT, &err), &err, RV_ERR_FORMAT, part);
    expect_error(rv_check_weights(dir, NULL, NULL, &err), &err, RV_ERR_FORMAT, part);
}

static void all_accept(void) {
    rv_error err = { 0 };
    expect_ok(load(RV_WEIGHTS_AUTO, &err), &err);
    expect_ok(load(RV_WEIGHTS_16BIT, &err), &err);
    expect_ok(rv_check_weights(dir, NULL, NULL, &err), &err);
}

/* ---- beside what ---- */

static void companions_of_what_is_never_quantised_are_unexpected(void **state) {
    (void)state;
    static const struct { const char *of, *tail, *type, *shape; size_t bytes; } rows[] = {
        { "model.norm.weight", ".quant_state.bitsandbytes__nf4", "I64", "1", 8 }, { "model.norm.weight", ".quant_state.bitsandbytes__nf4", "I64", "2048", 16384 },
        { "model.norm.weight", ".quant_state.bitsandbytes__fp4", "U8", "2", 2 }, { "model.norm.weight", ".quant_state.bitsandbytes__nf4", "F64", "4", 32 },
        { "embed_tokens.weight", ".quant_state.bitsandbytes__nf4", "F32", "4", 16 }, { "cross_attn_attn_gate", ".quant_state.bitsandbytes__nf4", "I64", "1", 8 },
        { "multi_modal_projector.bias", ".quant_state.bitsandbytes__nf4", "I64", "1", 8 }, { "mlp.fc1.bias", ".quant_state.bitsandbytes__nf4", "I64", "1", 8 },
        { "patch_embedding.weight", ".quant_state.bitsandbytes__nf4", "I64", "1", 8 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char name[512];
        model_file *f = quantised(RV_WEIGHTS_INT8, 0);
        snprintf(name, sizeof name, "%s%s", model_file_get(f, rows[i].of)->name, rows[i].tail);
        model_file_add(f, (stored){ name, rows[i].type, rows[i].shape, zeros, rows[i].bytes });
        model_file_save(f);
        all_refuse("unexpected");
        all_refuse(name);
    }
}

static void every_companion_beside_such_a_state_is_unexpected_too(void **state) {
    (void)state;
    char state_name[512], name[512];
    model_file *f = quantised(RV_WEIGHTS_NF4, 0);
    snprintf(state_name, sizeof state_name, "%s.quant_state.bitsandbytes__nf4", model_file_get(f, "model.norm.weight")->name);
    snprintf(name, sizeof name, "%s.absmax", model_file_get(f, "model.norm.weight")->name);
    model_file_add(f, (stored){ state_name, "F64", "4", zeros, 32 });
    model_file_add(f, (stored){ name, "F64", "2", zeros, 16 });
    model_file_save(f);
    all_refuse("unexpected");
}

static void a_state_does_not_hide_nan_in_the_tensor_beside_it(void **state) {
    (void)state;
    static uint16_t norm[4096];
    char name[512];
    model_file *f = quantised(RV_WEIGHTS_INT8, 0);
    stored *t = model_file_get(f, "model.norm.weight");
    assert_true(t->bytes <= sizeof norm);
    memcpy(norm, t->data, t->bytes);
    norm[3] = 0x7fc0;
    t->data = norm;
    snprintf(name, sizeof name, "%s.quant_state.bitsandbytes__nf4", t->name);
    model_file_add(f, (stored){ name, "U8", "2", "{}", 2 });
    model_file_save(f);
    all_refuse("unexpected");
}

/* ---- scales ---- */

/* `value` over number `at` of the companion that ends so. */
static void spoil(rv_weight_format weights, int32_t single, const char *tail, size_t at, float value) {
    model_file *f = quantised(weights, single);
    stored *t = model_file_get(f, tail);
    float *numbers = malloc(t->bytes);
    assert_non_null(numbers);
    assert_true((at + 1) * sizeof value <= t->bytes);
    memcpy(numbers, t->data, t->bytes);
    numbers[at] = value;
    t->data = numbers;
    model_file_save(f);
    free(numbers);
}

static void scales_that_loading_refuses_are_found_without_loading(void **state) {
    (void)state;
    static const struct { rv_weight_format weights; int32_t single; const char *tail; float value; const char *part; } rows[] = {
        { RV_WEIGHTS_INT8, 0, "layers.0.self_attn.q_proj.SCB", -1.f, "q_proj.weight: scale 1 (SCB) is -1" },
        { RV_WEIGHTS_INT8, 0, "layers.0.self_attn.q_proj.SCB", 3e38f, "q_proj.weight: scale 1 (SCB) is 3e+38" },
        { RV_WEIGHTS_INT8, 0, "layers.1.mlp.down_proj.SCB", 65536.f, "down_proj.weight: scale 1 (SCB) is 65536" },
        { RV_WEIGHTS_NF4, 1, "layers.0.mlp.up_proj.weight.absmax", -1.f, "up_proj.weight: scale 1 (absmax) is -1" },
        { RV_WEIGHTS_NF4, 1, "layers.0.mlp.up_proj.weight.absmax", 3.4e38f, "up_proj.weight: scale 1 (absmax) is 3.4e+38" },
        { RV_WEIGHTS_NF4, 0, "layers.0.mlp.up_proj.weight.nested_absmax", 3.4e38f, "up_proj.weight: scale 1 (nested_absmax) is 3.4e+38" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        spoil(rows[i].weights, rows[i].single, rows[i].tail, 1, rows[i].value);
        all_refuse(rows[i].part);
    }
}

static void nan_among_scales_is_counted(void **state) {
    (void)state;
    rv_error err = { 0 };
    spoil(RV_WEIGHTS_INT8, 0, "layers.0.self_attn.q_proj.SCB", 1, (float)NAN);
    expect_error(load(RV_WEIGHTS_AUTO, &err), &err, RV_ERR_FORMAT, "scale 1 (SCB) is nan");
    expect_error(rv_check_weights(dir, NULL, NULL, &err), &err, RV_ERR_FORMAT, "1 tensor of the model holds NaN or Inf");
}

static void scales_that_bitsandbytes_can_write_are_read(void **state) {
    (void)state;
    spoil(RV_WEIGHTS_INT8, 0, "layers.0.self_attn.q_proj.SCB", 1, 65504.f);
    all_accept();
    spoil(RV_WEIGHTS_NF4, 1, "layers.0.mlp.up_proj.weight.absmax", 1, 1e30f);      /* of a bf16 row: f16 saturates */
    all_accept();
}

/* ---- rows that are no whole blocks ---- */

/* The same shape, but that down_proj has 160 columns: 256 rows of them are whole blocks together, none is alone. */
static void synthesise_narrow(void) {
    char path[2048], folder[1024];
    snprintf(path, sizeof path, "%s/config.json", source);
    json_t *root = json_load_file(path, 0, NULL);
    assert_non_null(root);
    json_object_set_new(json_object_get(root, "text_config"), "intermediate_size", json_integer(160));
    snprintf(path, sizeof path, "%s/narrow.json", folder_new(folder, "shape"));
    assert_int_equal(json_dump_file(root, path, 0), 0);
    json_decref(root);
    synthesise("narrow", path);
}

static void leave_narrow(void) { folder_path(source, "source"); }

static uint32_t count_format(rv_format format) {
    rv_files f;
    rv_error err = { 0 };
    uint32_t n = 0;
    expect_ok(rv_files_open(dir, false, &f, &err), &err);
    for (uint32_t i = 0; i < rv_checkpoint_count(f.checkpoint); i++) {
        const rv_tensor *t = rv_checkpoint_at(f.checkpoint, i);
        n += rv_modules_linear(t->name) && strstr(t->name, "down_proj") && rv_checkpoint_format(f.checkpoint, t) == format;
    }
    rv_files_close(&f);
    return n;
}

static void rows_that_are_no_whole_blocks_are_not_quantised_to_4_bit(void **state) {
    (void)state;
    char path[2048], *config;
    size_t bytes;
    rv_error err = { 0 };
    synthesise_narrow();
    quantise(RV_WEIGHTS_NF4, 0);
    assert_int_equal(count_format(RV_FORMAT_PLAIN), 5);
    snprintf(path, sizeof path, "%s/config.json", dir);
    expect_ok(rv_file_read(path, 1 << 20, &config, &bytes, &err), &err);
    assert_non_null(strstr(config, "layers.4.mlp.down_proj\""));
    assert_null(strstr(config, "layers.4.mlp.up_proj"));
    free(config);
    all_accept();
    quantise(RV_WEIGHTS_INT8, 0);
    assert_int_equal(count_format(RV_FORMAT_INT8), 5);
    all_accept();
    leave_narrow();
}

typedef struct answer { int32_t ids[8]; float logprobs[8]; } answer;

static answer ask(void) {
    const rv_load_options load_options = { .size = sizeof load_options, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32 };
    const rv_session_options session_options = { .size = sizeof session_options, .context = 128 };
    const rv_request r = { .size = sizeof r, .raw = "GST", .max_tokens = 8, .flags = RV_REQUEST_IGNORE_STOP };
    rv_error err = { 0 };
    rv_model *m = NULL;
    rv_session *s = NULL;
    rv_job *job = NULL;
    const int32_t *ids;
    const float *logprobs;
    answer a;
    expect_ok(rv_model_load(dir, &load_options, &m, &err), &err);
    expect_ok(rv_session_new(m, &session_options, &s, &err), &err);
    expect_ok(rv_generate(s, &r, &job, &err), &err);
    assert_int_equal(rv_job_tokens(job, &ids, &logprobs), 8);
    memcpy(a.ids, ids, sizeof a.ids);
    memcpy(a.logprobs, logprobs, sizeof a.logprobs);
    rv_job_free(job);
    rv_session_free(s);
    rv_model_free(m);
    return a;
}

enum { NARROW = 256 * 160, NARROW_BLOCKS = NARROW / RV_BLOCK4 };
static uint8_t narrow_codes[NARROW / 2];
static float narrow_absmax[NARROW_BLOCKS];

/* Layer 0's down_proj in 4 bit as bitsandbytes would have it, or the numbers that this is, in f16. */
static void put_narrow(bool decoded) {
    static uint16_t numbers[NARROW];
    static char names[4][512];
    static const char json[] = "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [256, 160]}";
    model_file *f = quantised(RV_WEIGHTS_NF4, 0);
    stored *t = model_file_get(f, "layers.0.mlp.down_proj.weight");
    assert_int_equal(t->bytes, NARROW * 2);
    rv_nf4_quantise(narrow_codes, narrow_absmax, t->data, RV_BF16, NARROW);
    if (decoded) {
        rv_codes q = { .format = RV_FORMAT_NF4, .codes = narrow_codes, .scale = narrow_absmax };
        memcpy(q.map, rv_nf4_map, sizeof q.map);
        for (int i = 0; i < NARROW; i++) {
            const float w = q.map[narrow_codes[i / 2] >> (i % 2 ? 0 : 4) & 15] * narrow_absmax[i / RV_BLOCK4];
            numbers[i] = rv_f32_to_f16(w);
        }
        t->type = "F16", t->data = numbers;
    } else {
        static const char *const tails[] = { ".absmax", ".quant_map", ".quant_state.bitsandbytes__nf4" };
        for (int i = 0; i < 3; i++) snprintf(names[i], sizeof names[i], "%s%s", t->name, tails[i]);
        *t = (stored){ t->name, "U8", "20480,1", narrow_codes, sizeof narrow_codes };
        model_file_add(f, (stored){ names[0], "F32", "640", narrow_absmax, sizeof narrow_absmax });
        model_file_add(f, (stored){ names[1], "F32", "16", rv_nf4_map, 64 });
        snprintf(names[3], sizeof names[3], "%zu", sizeof json - 1);
        model_file_add(f, (stored){ names[2], "U8", names[3], json, sizeof json - 1 });
    }
    model_file_save(f);
}

static void blocks_that_cross_rows_are_read_as_16_bit(void **state) {
    (void)state;
    synthesise_narrow();
    put_narrow(true);
    const answer wanted = ask();
    put_narrow(false);
    assert_int_equal(count_format(RV_FORMAT_NF4), 1);
    all_accept();
    const answer got = ask();
    assert_memory_equal(got.ids, wanted.ids, sizeof got.ids);
    assert_memory_equal(got.logprobs, wanted.logprobs, sizeof got.logprobs);
    leave_narrow();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(companions_of_what_is_never_quantised_are_unexpected),
        cmocka_unit_test(every_companion_beside_such_a_state_is_unexpected_too),
        cmocka_unit_test(a_state_does_not_hide_nan_in_the_tensor_beside_it),
        cmocka_unit_test(scales_that_loading_refuses_are_found_without_loading),
        cmocka_unit_test(nan_among_scales_is_counted),
        cmocka_unit_test(scales_that_bitsandbytes_can_write_are_read),
        cmocka_unit_test(rows_that_are_no_whole_blocks_are_not_quantised_to_4_bit),
        cmocka_unit_test(blocks_that_cross_rows_are_read_as_16_bit),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
