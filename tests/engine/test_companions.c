/* test_companions.c - model folders in bitsandbytes' form whose companions are not as they should be, and what inspecting and loading say. */
#include "tests/support/model_file.h"

#include <math.h>

#include "engine/model.h"
#include "engine/synth.h"

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

/* A fresh quantised copy of the model, laid open. */
static model_file *quantised(rv_weight_format weights, int32_t single) {
    rv_error err = { 0 };
    const rv_quantise_options o = { .size = sizeof o, .weights = weights, .nf4_single = single };
    expect_ok(rv_quantise(source, folder_new(dir, "quantised"), &o, NULL, &err), &err);
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(companions_of_what_is_never_quantised_are_unexpected),
        cmocka_unit_test(every_companion_beside_such_a_state_is_unexpected_too),
        cmocka_unit_test(a_state_does_not_hide_nan_in_the_tensor_beside_it),
        cmocka_unit_test(scales_that_loading_refuses_are_found_without_loading),
        cmocka_unit_test(nan_among_scales_is_counted),
        cmocka_unit_test(scales_that_bitsandbytes_can_write_are_read),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
