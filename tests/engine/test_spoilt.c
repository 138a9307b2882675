/* test_spoilt.c - NaN and infinity among weights: an error that names the tensor.
 *
 * int8 products drop NaN, as bitsandbytes' do, so that no answer would show it. A GPU looks through every weight while loading; a CPU,
 * which maps those of 16 bit, where any weight is int8.
 */
#include "tests/support/spoil.h"

#include "tests/engine/demo.h"

static rv_status load(const char *dir, rv_weight_format weights, const char *keep, rv_model **m, rv_error *err) {
    const rv_load_options o = { .size = sizeof o, .backend = DEMO_BACKEND, .weights = weights, .keep = keep };
    return rv_model_load(dir, &o, m, err);
}

static void not_loaded(const char *dir, rv_weight_format weights, const char *keep, const char *part) {
    rv_model *m = NULL;
    rv_error err = { 0 };
    rv_status st = load(dir, weights, keep, &m, &err);
    expect_error(st, &err, RV_ERR_FORMAT, part);
    assert_null(m);
}

typedef struct spoilt { const char *name, *part; size_t element; uint16_t value; rv_weight_format formats[2]; const char *keep; } spoilt;

static void none_is_loaded(const spoilt *rows, size_t n) {
    char dir[1024];
    for (size_t i = 0; i < n; i++) {
        model_spoil(dir, rows[i].name, rows[i].element, rows[i].value);
        for (size_t k = 0; k < 2 && rows[i].formats[k]; k++) not_loaded(dir, rows[i].formats[k], rows[i].keep, rows[i].part);
    }
}
#define NONE_IS_LOADED(rows) none_is_loaded(rows, sizeof(rows) / sizeof *(rows))

static void vectors_of_all_formats_are_looked_at(void **state) {
    static const spoilt rows[] = {
        { "text.layers.0.input_layernorm.weight", "layers.0.input_layernorm.weight: holds NaN or Inf", 7, 0x7fc0, { RV_WEIGHTS_INT8, RV_WEIGHTS_16BIT }, NULL },
        { "vision.layernorm_pre.bias", "layernorm_pre.bias: holds NaN or Inf", 0, 0xff80, { RV_WEIGHTS_INT8, RV_WEIGHTS_16BIT }, NULL } };
    (void)state;
    NONE_IS_LOADED(rows);
}

static void weights_that_get_codes_are_looked_at(void **state) {
    static const spoilt rows[] = { { "text.layers.0.mlp.down_proj.weight", "down_proj.weight: holds NaN, Inf", 60000, 0x7fc0, { RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 }, NULL },
                                   { "text.layers.1.cross_attn.v_proj.weight", "holds NaN, Inf", 1, 0xff80, { RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 }, NULL },
                                   { "text.layers.0.mlp.up_proj.weight", "layers.0.mlp.up_proj.weight: holds NaN, Inf", 99, 0x7fc0, { RV_WEIGHTS_INT8 }, NULL } };
    (void)state;
    NONE_IS_LOADED(rows);
}

static void numbers_beyond_f16_have_no_int8_code(void **state) {
    char dir[1024];
    rv_model *m = NULL;
    rv_error err = { 0 };
    (void)state;
    model_spoil(dir, "text.layers.0.mlp.down_proj.weight", 60000, 0x4780 /* 65536 */);
    not_loaded(dir, RV_WEIGHTS_INT8, NULL, "numbers beyond 65504");
    expect_ok(load(dir, RV_WEIGHTS_NF4, NULL, &m, &err), &err);
    rv_model_free(m);
}

static void what_stays_in_16_bit_beside_codes_is_looked_at(void **state) {
    static const spoilt rows[] = {
        { "vision.transformer.layers.0.mlp.fc1.weight", "vision_model.transformer.layers.0.mlp.fc1.weight: holds NaN or Inf", 99, 0x7fc0, { RV_WEIGHTS_INT8 }, NULL },
        { "text.embed_tokens.weight", "embed_tokens.weight: holds NaN or Inf", 99, 0xff80, { RV_WEIGHTS_INT8 }, NULL },
        { "text.layers.1.cross_attn.k_proj.weight", "k_proj.weight: holds NaN or Inf", 99, 0x7fc0, { RV_WEIGHTS_INT8 }, "cross_attn=16bit" } };
    (void)state;
    NONE_IS_LOADED(rows);
}

static void large_and_finite_numbers_are_loaded(void **state) {
    char dir[1024];
    rv_model *m = NULL;
    rv_error err = { 0 };
    (void)state;
    model_spoil(dir, "vision.transformer.layers.0.mlp.fc1.weight", 99, 0x7f7f);
    expect_ok(load(dir, RV_WEIGHTS_INT8, NULL, &m, &err), &err);
    rv_model_free(m);
}

int main(void) {
    if (rv_device_count(DEMO_BACKEND) == 0) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_all_formats_are_looked_at),
        cmocka_unit_test(weights_that_get_codes_are_looked_at),
        cmocka_unit_test(numbers_beyond_f16_have_no_int8_code),
        cmocka_unit_test(what_stays_in_16_bit_beside_codes_is_looked_at),
        cmocka_unit_test(large_and_finite_numbers_are_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
