/* test_projection.c - what projections count of the published shape, against its arithmetic (docs/v100.md). */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "tools/projection.h"

static model_work work;

static void is_near(double value, double wanted, double percent) {
    if (!(fabs(value - wanted) <= wanted * percent / 100)) fail_msg("%.6g, not %.6g", value, wanted);
}

/* 32 + 8 layers of 6,405 rows: linears 10.07, attention 8.40 TFLOP; the projector 0.40, the keys of 8 text layers 0.86. */
static void vision_has_all_of_its_layers(void **state) {
    (void)state;
    is_near(work.vision_flop[4], 19.74e12, 0.05);
    assert_true(work.vision_flop[1] < work.vision_flop[2] && work.vision_flop[2] < work.vision_flop[4]);
}

/* 32 self layers of 2 x 1,024 numbers of 2 bytes; 8 layers look at the 1,601 rows of a tile. */
static void keys_are_those_of_32_and_of_8_layers(void **state) {
    (void)state;
    is_near(work.token_bytes, 131072, 1e-6);
    is_near(work.tile_bytes, 52461568, 1e-6);
}

/* 8.72 G numbers in the decoder's linears, 67 M of which make an image's keys and are not read by text. */
static void text_reads_its_linears_and_lm_head(void **state) {
    (void)state;
    is_near(work.text_weights, 8.657e9, 0.02);
    is_near(work.head_weights, 525.3e6, 0.02);
    is_near(work.text_bytes[RV_WEIGHTS_INT8], 8.66e9, 0.2);
    is_near(work.head_bytes, 1.0507e9, 0.01);
    const page_work page = { .tiles = 4, .prompt = 200, .answer = 100, .rows = 1 };
    is_near(stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_PREFILL).flop, 3.464e12, 0.02);
    is_near(stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_DECODE).flop, 18.37e9, 0.1);
}

/* A prompt passes over the layers once for every 1,024 of its rows. */
static void every_pass_streams_all_that_streams(void **state) {
    page_work page = { .tiles = 4, .prompt = 1024, .answer = 100, .rows = 3, .streamed = 6000000000 };
    const rv_profile p = { .host_bytes_s = 12e9 };
    (void)state;
    stage_work w = stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_PREFILL);
    is_near(bus_ms(&p, &w), 500, 1e-6);
    page.prompt = 1025;
    w = stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_PREFILL);
    is_near(bus_ms(&p, &w), 1000, 1e-6);
    w = stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_DECODE);
    is_near(bus_ms(&p, &w), 500, 1e-6);
    w = stage_work_of(&work, RV_WEIGHTS_INT8, &page, STAGE_VISION);
    assert_true(bus_ms(&p, &w) <= 0);
}

static int read_shape(void **state) {
    static const char folder[] = RV_TEST_TMP "/projection11";
    const rv_synth_options o = { .size = sizeof o, .shape = "11b", .sparse = 1 };
    rv_error err;
    (void)state;
    if (system("rm -rf '" RV_TEST_TMP "/projection11'")) return -1;
    if (rv_synthesise(folder, &o, NULL, &err) || model_work_read(folder, &work, &err)) return print_error("%s\n", err.message), -1;
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vision_has_all_of_its_layers),
        cmocka_unit_test(keys_are_those_of_32_and_of_8_layers),
        cmocka_unit_test(text_reads_its_linears_and_lm_head),
        cmocka_unit_test(every_pass_streams_all_that_streams),
    };
    return cmocka_run_group_tests(tests, read_shape, NULL);
}
