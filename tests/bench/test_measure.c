/* test_measure.c - rv_measure_ceilings and rv_model_cost, against numbers worked out by hand for the demo model:
 * text 8 layers (4 of them cross) of 256, 4 heads and 2 K/V heads of 64, ffn 768, vocabulary 1016; vision 6 + 2 layers of
 * 256, ffn 1024, 257 tokens a tile (264 with padding), 4 tile slots, all of them computed; bf16 files. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>

#include "engine/rvengine.h"

static rv_model *model;

static int load_model(void **state) {
    rv_load_options options = { .size = sizeof options, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32 };
    rv_error err;
    (void)state;
    return rv_model_load(RV_TEST_DEMO "/model", &options, &model, &err);
}

static int free_model(void **state) {
    (void)state;
    rv_model_free(model);
    return 0;
}

static rv_cost cost(uint32_t tiles, uint32_t tokens) {
    rv_cost c = { .size = sizeof c };
    rv_error err;
    assert_int_equal(rv_model_cost(model, tiles, tokens, &c, &err), RV_OK);
    return c;
}

static void expect(double got, double want) {
    if (fabs(got - want) > 1e-9 * want) fail_msg("%.0f, expected %.0f", got, want);
}

/* A self layer reads q, k, v, o and three of the MLP, and two norms in f32; a cross layer no k and v, but a q norm. */
enum { SELF_ELEMENTS = (256 + 2 * 128 + 256 + 3 * 768) * 256, CROSS_ELEMENTS = (256 + 256 + 3 * 768) * 256, HEAD_ELEMENTS = 1016 * 256 };
enum { TEXT_ONLY_BYTES = 4 * (2 * SELF_ELEMENTS + 2 * 256 * 4) + 2 * HEAD_ELEMENTS + 256 * 4,
       IMAGE_BYTES = TEXT_ONLY_BYTES + 4 * (2 * CROSS_ELEMENTS + (2 * 256 + 64) * 4) };
enum { TOKEN_BYTES = 4 * 2 * 128 * 4, TILE_BYTES = 4 * 2 * 128 * 4 * 257 };      /* keys and values in f32 */

static void decode_reads_weights_once_and_the_keys(void **state) {
    (void)state;
    rv_cost text = cost(0, 100), image = cost(2, 100);
    assert_int_equal(text.decode_weight_bytes, TEXT_ONLY_BYTES);
    assert_int_equal(text.decode_bytes, TEXT_ONLY_BYTES + 100 * TOKEN_BYTES);
    assert_int_equal(image.decode_weight_bytes, IMAGE_BYTES);
    assert_int_equal(image.decode_bytes, IMAGE_BYTES + 100 * TOKEN_BYTES + 2 * TILE_BYTES);
    expect(text.decode_flop, 2.0 * (4 * SELF_ELEMENTS + HEAD_ELEMENTS) + 4 * 4.0 * 101 * 256);
    expect(image.decode_flop, text.decode_flop + 2.0 * 4 * CROSS_ELEMENTS + 4 * 4.0 * 2 * 257 * 256);
}

static void prefill_counts_every_row_and_one_row_of_logits(void **state) {
    (void)state;
    rv_cost text = cost(0, 10), image = cost(1, 10);
    expect(text.prefill_flop, 2.0 * (10.0 * 4 * SELF_ELEMENTS + HEAD_ELEMENTS) + 4 * 4.0 * 55 * 256);
    expect(image.prefill_flop, text.prefill_flop + 10 * (2.0 * 4 * CROSS_ELEMENTS + 4 * 4.0 * 257 * 256));
    assert_int_equal(text.prefill_bytes, TEXT_ONLY_BYTES);
    assert_int_equal(image.prefill_bytes, IMAGE_BYTES + TILE_BYTES);
    assert_true(cost(0, 0).prefill_flop == 0 && cost(0, 0).prefill_bytes == 0);
}

/* All four slots are computed whatever the tiles; padding does not see padding; text may look at all slots. */
static double tower_flop(double tiles) {
    const double d = 256, rows = 4 * 264, real = tiles * 257, pairs = real * rows + (rows - real) * real;
    const double layer = 2 * rows * d * (3 * d + d + 2 * 1024) + 4 * pairs * d;
    return 2 * tiles * 256 * d * 3 * 14 * 14 + 8 * layer;
}
static double vision_flop(double tiles) { return tower_flop(tiles) + 2 * 4 * 257.0 * 256 * 768 + 4 * 2 * 4 * 257.0 * 2 * 128 * 256; }

static void vision_counts_what_the_tower_computes(void **state) {
    (void)state;
    expect(cost(4, 1).vision_flop, vision_flop(4));
    expect(cost(1, 1).vision_flop, vision_flop(1));
    expect(cost(4, 1).tower_flop, tower_flop(4));
    expect(cost(1, 1).tower_flop, tower_flop(1));
    assert_true(cost(0, 1).vision_flop == 0 && cost(0, 1).vision_bytes == 0);
    assert_true(cost(1, 1).tower_bytes > 2 * 8 * 256 * (4 * 256 + 2 * 1024));      /* the layers alone */
    assert_true(cost(1, 1).vision_bytes > cost(1, 1).tower_bytes + 2 * 256 * 768);  /* and the projector */
    assert_true(cost(1, 1).vision_bytes == cost(4, 1).vision_bytes);
}

static void what_makes_no_sense_is_an_error(void **state) {
    rv_cost c = { .size = sizeof c };
    rv_ceilings none = { 0 };
    rv_load_options f16 = { .size = sizeof f16, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F16 };
    rv_error err;
    (void)state;
    assert_int_equal(rv_model_cost(model, 5, 1, &c, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_model_cost(NULL, 1, 1, &c, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_model_cost(model, 1, 1, NULL, NULL), RV_ERR_ARGUMENT);
    assert_int_equal(rv_measure_ceilings(NULL, NULL, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_measure_ceilings(&f16, &none, &err), RV_ERR_UNSUPPORTED);
}

static void ceilings_are_those_of_a_real_machine(void **state) {
    rv_load_options options = { .size = sizeof options, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32 };
    rv_ceilings c = { .size = sizeof c };
    rv_error err;
    (void)state;
    assert_int_equal(rv_measure_ceilings(&options, &c, &err), RV_OK);
    assert_int_equal(c.backend, RV_BACKEND_CPU);
    assert_int_equal(c.compute, RV_COMPUTE_F32);
    assert_true(c.read_bytes_s > 1e7 && c.read_bytes_s < 1e13);
    assert_true(c.copy_bytes_s > 1e7 && c.copy_bytes_s < 1e13);
    assert_true(c.flop_s > 1e6 && c.flop_s < 1e15);
    assert_true(c.buffer_bytes >= UINT64_C(256) << 20);
    assert_true(c.product_side >= 256);
}

static void ceilings_take_half_of_a_limit(void **state) {
    rv_load_options options = { .size = sizeof options, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32, .memory_limit = UINT64_C(200) << 20 };
    rv_ceilings c = { .size = sizeof c };
    rv_error err;
    (void)state;
    assert_int_equal(rv_measure_ceilings(&options, &c, &err), RV_OK);
    assert_int_equal(c.buffer_bytes, UINT64_C(100) << 20);
    assert_true(c.read_bytes_s > 1e7 && c.read_bytes_s < 1e13);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(decode_reads_weights_once_and_the_keys),
        cmocka_unit_test(prefill_counts_every_row_and_one_row_of_logits),
        cmocka_unit_test(vision_counts_what_the_tower_computes),
        cmocka_unit_test(what_makes_no_sense_is_an_error),
        cmocka_unit_test(ceilings_are_those_of_a_real_machine),
        cmocka_unit_test(ceilings_take_half_of_a_limit),
    };
    return cmocka_run_group_tests(tests, load_model, free_model);
}
