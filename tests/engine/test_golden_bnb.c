/* test_golden_bnb.c - folders that bitsandbytes wrote, read and run: the answers of Hugging Face with bitsandbytes.
 *
 * Their f16 arithmetic is noisy: how far it may be from ours is measured by the goldens themselves.  tests/data/golden/bnb/README.md has
 * the file layout.
 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/engine/rig.h"
#include "tests/support/golden.h"
#include "tests/support/hash_checkpoint.h"

typedef struct folder {
    rig            r;
    rv_checkpoint *golden;
    hash_spec      spec;                 /* of the picture                                       */
    const char    *name;
} folder;

static folder *open_folder(const char *name, const char *base) {
    char path[512];
    rv_error err = { 0 };
    folder *f = calloc(1, sizeof *f);
    assert_non_null(f);
    f->name = name;
    snprintf(path, sizeof path, "%s/golden/bnb/%s", RV_TEST_DATA, base);
    if (hash_spec_load(path, &f->spec, &err)) fail_msg("%s", err.message);
    snprintf(path, sizeof path, "golden/bnb/%s/golden.safetensors", name);
    f->golden = golden_open(path);
    assert_int_equal(golden_i64(golden_get(f->golden, "a_leaving", RV_I64, NULL), 0), 1);
    snprintf(path, sizeof path, "%s/golden/bnb/%s", RV_TEST_DATA, name);
    rig_open(&f->r, &(rig_options){ .dir = path, .taps = RV_TAPS_LEAVING });
    return f;
}

static void close_folder(folder *f) {
    rig_close(&f->r);
    rv_checkpoint_close(f->golden);
    free(f);
}

/* Sees the picture and reads the prompt; returns the prompt's length. */
static int32_t read_prompt(folder *f) {
    const rv_vision_config *v = &f->r.config.vision;
    int64_t n;
    int32_t ids[RIG_CONTEXT];
    const void *image = golden_get(f->golden, "a_image", RV_I64, NULL), *ratio = golden_get(f->golden, "a_ar", RV_I64, NULL);
    const void *given = golden_get(f->golden, "a_ids", RV_I64, &n);
    const int32_t id = (int32_t)golden_i64(ratio, 0), tiles = v->ratios[id - 1][0] * v->ratios[id - 1][1];
    const size_t bytes = (size_t)tiles * RV_CHANNELS * (size_t)v->tile * (size_t)v->tile;
    uint8_t *picture = malloc(bytes);
    float *pixels = malloc(bytes * sizeof *pixels);
    assert_true(picture && pixels);
    hash_image(&f->spec, (int32_t)golden_i64(image, 0), tiles, v->tile, picture);
    rv_image_normalise(picture, (size_t)tiles, v->tile, &f->r.config.preprocess, pixels);
    rig_see(&f->r, pixels, tiles, id);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)golden_i64(given, i);
    rig_read(&f->r, ids, (int32_t)n, 0, (int32_t)n);
    free(picture);
    free(pixels);
    return (int32_t)n;
}

static double rms_of_ours(const folder *f, int32_t rows, const char *golden) {
    int64_t n;
    const void *x = golden_get(f->golden, golden, RV_F32, &n);
    const int32_t vocab = f->r.config.text.vocab;
    double sum = 0;
    assert_int_equal(n, (int64_t)rows * vocab);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < vocab; c++) sum += pow((double)rig_logits(&f->r, r)[c] - (double)golden_f32(x, (int64_t)r * vocab + c), 2);
    return sqrt(sum / (double)n);
}

static double rms_between(const folder *f, const char *a, const char *b) {
    int64_t n;
    const void *x = golden_get(f->golden, a, RV_F32, &n), *y = golden_get(f->golden, b, RV_F32, NULL);
    double sum = 0;
    for (int64_t i = 0; i < n; i++) sum += pow((double)golden_f32(x, i) - (double)golden_f32(y, i), 2);
    return sqrt(sum / (double)n);
}

/* Weights of 4 bits are numbers like others: f32 arithmetic with the same ones gives the same answer to f32's last digits, and is as
 * far from Hugging Face's as f16 alone explains. */
static void check_4bit(const char *name, const char *base) {
    folder *f = open_folder(name, base);
    const int32_t rows = read_prompt(f);
    const double exact = rms_of_ours(f, rows, "a_exact_logits"), theirs = rms_of_ours(f, rows, "a_logits"), f16 = rms_between(f, "a_exact_logits", "a_logits");
    printf("  %s: logits %.1e from f32 arithmetic, %.1e from Hugging Face's f16 (whose own error is %.1e); quantising moved them by %.1e\n", name, exact,
           theirs, f16, rms_between(f, "a_exact_logits", "a_base_logits"));
    assert_true(exact < 1e-5);
    assert_true(theirs < 1.01 * f16);
    assert_true(rms_of_ours(f, rows, "a_base_logits") > 100 * f16);
    close_folder(f);
}

static void nf4_with_double_quantisation_answers_as_in_hugging_face(void **state) { (void)state, check_4bit("nf4", "base"); }
static void nf4_with_plain_scales_answers_as_in_hugging_face(void **state) { (void)state, check_4bit("nf4_plain", "base"); }
static void fp4_answers_as_in_hugging_face(void **state) { (void)state, check_4bit("fp4", "base"); }
static void a_mixed_model_with_a_quantised_tower_answers_as_in_hugging_face(void **state) { (void)state, check_4bit("dynamic", "base_dynamic"); }

/* LLM.int8 rounds activations: a last bit upstream moves a code by a whole step. So two right computations differ by about as much as each differs
 * from exact activations, no more; rows, one at a time, are the nearest to ours. */
static void int8_answers_within_its_own_noise(void **state) {
    (void)state;
    folder *f = open_folder("int8", "base");
    const int32_t rows = read_prompt(f);
    const double noise = rms_between(f, "a_exact_logits", "a_row_logits"), exact = rms_of_ours(f, rows, "a_exact_logits"), row = rms_of_ours(f, rows, "a_row_logits");
    printf("  int8: logits %.1e from exact activations and %.1e from Hugging Face's, row by row; rounding them moves Hugging Face's by %.1e\n", exact, row, noise);
    assert_true(exact < 1.2 * noise && exact > 0.5 * noise);
    assert_true(row < 1.2 * noise);
    close_folder(f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nf4_with_double_quantisation_answers_as_in_hugging_face),
        cmocka_unit_test(nf4_with_plain_scales_answers_as_in_hugging_face),
        cmocka_unit_test(fp4_answers_as_in_hugging_face),
        cmocka_unit_test(a_mixed_model_with_a_quantised_tower_answers_as_in_hugging_face),
        cmocka_unit_test(int8_answers_within_its_own_noise),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
