/* test_spoilt.c - NaN and infinity among weights: an error that names the tensor, or at the latest one instead of an answer.
 *
 * int8 products drop NaN, as bitsandbytes' do, so that no answer would show it. A GPU looks through every weight while loading; a CPU
 * maps those of 16 bit and looks at what the vision tower makes of an image.
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

typedef struct spoilt { const char *name, *part; size_t element; uint16_t value; } spoilt;

static void vectors_of_all_formats_are_looked_at(void **state) {
    (void)state;
    static const spoilt rows[] = { { "text.layers.0.input_layernorm.weight", "layers.0.input_layernorm.weight: holds NaN or Inf", 7, 0x7fc0 },
                                   { "vision.layernorm_pre.bias", "layernorm_pre.bias: holds NaN or Inf", 0, 0xff80 } };
    char dir[1024];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_spoil(dir, rows[i].name, rows[i].element, rows[i].value);
        not_loaded(dir, RV_WEIGHTS_INT8, NULL, rows[i].part);
        not_loaded(dir, RV_WEIGHTS_16BIT, NULL, rows[i].part);
    }
}

static void weights_that_get_codes_are_looked_at(void **state) {
    (void)state;
    static const spoilt rows[] = { { "text.layers.0.mlp.down_proj.weight", "down_proj.weight: holds NaN, Inf", 60000, 0x7fc0 },
                                   { "text.layers.1.cross_attn.v_proj.weight", "holds NaN, Inf", 1, 0xff80 } };
    char dir[1024];
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        model_spoil(dir, rows[i].name, rows[i].element, rows[i].value);
        not_loaded(dir, RV_WEIGHTS_INT8, NULL, rows[i].part);
        not_loaded(dir, RV_WEIGHTS_NF4, NULL, rows[i].part);
    }
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

static void what_stays_in_16_bit_between_codes_is_looked_at(void **state) {
    char dir[1024];
    (void)state;
    model_spoil(dir, "text.layers.1.cross_attn.k_proj.weight", 99, 0x7fc0);
    not_loaded(dir, RV_WEIGHTS_INT8, "cross_attn=16bit", "k_proj.weight: holds NaN or Inf");
}

static void a_vision_tower_with_nan_answers_nothing(void **state) {
    char *page = NULL;
    rv_image image = { .size = sizeof image };
    rv_job *job = NULL;
    char dir[1024];
    rv_model *m = NULL;
    rv_session *s = NULL;
    rv_error err = { 0 };
    (void)state;
    model_spoil(dir, "vision.transformer.layers.0.mlp.fc1.weight", 99, 0x7fc0);
    rv_status st = load(dir, RV_WEIGHTS_INT8, NULL, &m, &err);
    if ((int)DEMO_BACKEND == RV_BACKEND_CUDA) {
        expect_error(st, &err, RV_ERR_FORMAT, "fc1.weight: holds NaN or Inf");
        return;
    }
    expect_ok(st, &err);
    const rv_session_options so = { .size = sizeof so, .context = 128, .images = 1 };
    expect_ok(rv_session_new(m, &so, &s, &err), &err);
    expect_ok(rv_file_read(RV_TEST_DATA "/images/rgb_420.jpg", 1 << 20, &page, &image.bytes, &err), &err);
    image.data = page;
    const rv_request r = { .size = sizeof r, .prompt = "What is the total?", .images = &image, .n_images = 1, .max_tokens = 4 };
    st = rv_generate(s, &r, &job, &err);
    expect_error(st, &err, RV_ERR_FORMAT, "what the vision tower made of the image holds NaN or Inf");
    rv_job_free(job);
    free(page);
    rv_session_free(s);
    rv_model_free(m);
}

int main(void) {
    if (rv_device_count(DEMO_BACKEND) == 0) return 77;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors_of_all_formats_are_looked_at),
        cmocka_unit_test(weights_that_get_codes_are_looked_at),
        cmocka_unit_test(numbers_beyond_f16_have_no_int8_code),
        cmocka_unit_test(what_stays_in_16_bit_between_codes_is_looked_at),
        cmocka_unit_test(a_vision_tower_with_nan_answers_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
