/* test_grey.c - grey pages: paper and print, the height of letters, scaling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/grey.h"

static rv_error err;

static rv_grey page_of(uint32_t width, uint32_t height, uint8_t paper) {
    rv_grey g = { malloc((size_t)width * height), width, height };
    assert_non_null(g.at);
    memset(g.at, paper, (size_t)width * height);
    return g;
}

static void fill(rv_grey *g, uint32_t x, uint32_t y, uint32_t width, uint32_t height, uint8_t v) {
    for (uint32_t j = y; j < y + height; j++) memset(g->at + (size_t)j * g->width + x, v, width);
}

static void luma_is_that_of_itu_601_and_blocks_are_averaged(void **state) {
    (void)state;
    uint8_t rgb[] = { 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255, /* row */ 255, 0, 0, 0, 255, 0, 0, 0, 255, 255, 255, 255 };
    rv_pixels p = { .rgb = rgb, .width = 4, .height = 2 };
    rv_grey g;
    assert_int_equal(rv_grey_of(&p, 1, &g, &err), RV_OK);
    assert_memory_equal(g.at, ((uint8_t[]){ 76, 150, 29, 255 }), 4);
    rv_grey_free(&g);
    assert_int_equal(rv_grey_of(&p, 2, &g, &err), RV_OK);
    assert_true(g.width == 2 && g.height == 1);
    assert_memory_equal(g.at, ((uint8_t[]){ 113, 142 }), 2);
    rv_grey_free(&g);
}

enum { EDGE = 600, FROM = 150, TO = 500, STEP = 14 };      /* a page of 350 x 350 on a dark floor */

static uint8_t paper_at(uint32_t x) { return (uint8_t)(230 - 110 * (x - FROM) / (TO - FROM)); }

static bool is_bar(uint32_t x, uint32_t y) { return (x - FROM) % STEP < 3 && (y - FROM) % STEP > 2 && x >= FROM + STEP && x < TO - STEP && y >= FROM + STEP && y < TO - STEP; }

/* Its right side in the shade, and print that is only a fifth darker than the paper beside it. */
static void faded_print_becomes_black_on_white_in_the_shade_and_beside_a_dark_floor(void **state) {
    (void)state;
    rv_grey in = page_of(EDGE, EDGE, 10), out;
    for (uint32_t y = FROM; y < TO; y++)
        for (uint32_t x = FROM; x < TO; x++) in.at[y * EDGE + x] = (uint8_t)(is_bar(x, y) ? paper_at(x) * 4 / 5 : paper_at(x));
    assert_int_equal(rv_grey_flatten(&in, &out, &err), RV_OK);
    uint32_t wrong = 0, n = 0;
    for (uint32_t y = FROM + STEP; y < TO - STEP; y++)
        for (uint32_t x = FROM + STEP; x < TO - STEP; x++, n++) wrong += is_bar(x, y) ? out.at[y * EDGE + x] > 100 : out.at[y * EDGE + x] < 190;
    if (wrong * 100 > n) fail_msg("%u of %u pixels are neither white paper nor black print", wrong, n);
    rv_grey_free(&in);
    rv_grey_free(&out);
}

/* Three prongs, joined below: one mark of 9 x 14 pixels only for who joins them. */
static void comb(rv_grey *g, uint32_t x, uint32_t y) {
    for (uint32_t i = 0; i < 3; i++) fill(g, x + 4 * i, y, 2, 8, 0);
    fill(g, x, y + 8, 10, 6, 0);
}

static void letters_are_as_high_as_most_marks_and_rules_and_specks_are_none(void **state) {
    (void)state;
    rv_grey g = page_of(400, 400, 255);
    float height;
    for (uint32_t i = 0; i < 60; i++) comb(&g, 10 + i % 15 * 20, 20 + i / 15 * 30);
    for (uint32_t i = 0; i < 40; i++) fill(&g, 10 + i % 20 * 12, 150 + i / 20 * 15, 6, 9, 0);      /* without ascenders */
    for (uint32_t i = 0; i < 300; i++) fill(&g, 5 + i % 100 * 3, 200 + i / 100 * 5, 1, 2, 0);
    fill(&g, 10, 300, 380, 6, 0);
    fill(&g, 380, 10, 10, 280, 0);
    assert_int_equal(rv_grey_letters(&g, &height, &err), RV_OK);
    assert_true(height == 14);
    fill(&g, 0, 0, 400, 400, 255);
    for (uint32_t i = 0; i < 10; i++) comb(&g, 10 + i * 20, 20);
    assert_int_equal(rv_grey_letters(&g, &height, &err), RV_OK);
    assert_true(height == 0);                                    /* too few to say */
    rv_grey_free(&g);
}

static void a_page_at_its_own_size_stays_as_it_is(void **state) {
    (void)state;
    rv_grey g = page_of(37, 23, 0), out;
    for (uint32_t i = 0; i < 37 * 23; i++) g.at[i] = (uint8_t)(i * 97 % 256);
    const rv_grey_part all = { 0, 0, 37, 23 };
    assert_int_equal(rv_grey_scaled(&g, &all, 1, 1, 0, &out, &err), RV_OK);
    assert_true(out.width == 37 && out.height == 23);
    assert_memory_equal(g.at, out.at, 37 * 23);
    rv_grey_free(&out);
    rv_grey_free(&g);
}

/* A slope keeps its values at whatever size; beyond the page its edge goes on; a border is paper. */
static void parts_are_scaled_from_where_they_lie(void **state) {
    (void)state;
    rv_grey g = page_of(200, 200, 0), out;
    for (uint32_t i = 0; i < 200 * 200; i++) g.at[i] = (uint8_t)(i % 200 + 20);
    static const float scales[] = { 0.25f, 0.5f, 2, 3.5f };
    for (size_t s = 0; s < sizeof scales / sizeof *scales; s++) {
        const rv_grey_part part = { 40, 60, 80, 20 };
        assert_int_equal(rv_grey_scaled(&g, &part, scales[s], 1, 5, &out, &err), RV_OK);
        assert_true(out.width == (uint32_t)(80 * scales[s]) + 10 && out.height == (uint32_t)(20 * scales[s]) + 10);
        for (uint32_t x = 5; x < out.width - 5; x++) {
            const float want = 20 + 40 + ((float)x - 5 + 0.5f) / scales[s] - 0.5f;
            assert_in_range(out.at[6 * out.width + x] + 1, (uint32_t)want, (uint32_t)want + 3);
        }
        const uint8_t paper = out.at[0];
        assert_in_range(paper, 20 + 40 + 66, 20 + 40 + 80);      /* lighter than most of the part */
        for (uint32_t x = 0; x < out.width; x++) assert_true(out.at[x] == paper && out.at[(size_t)(out.height - 1) * out.width + x] == paper);
        rv_grey_free(&out);
    }
    const rv_grey_part beyond = { 190, -5, 30, 10 };
    assert_int_equal(rv_grey_scaled(&g, &beyond, 1, 1, 0, &out, &err), RV_OK);
    assert_true(out.at[0] == 210 && out.at[29] == 219 && out.at[9 * 30 + 15] == 219);
    rv_grey_free(&out);
    rv_grey_free(&g);
}

static void blur_spreads_a_point_and_keeps_its_sum(void **state) {
    (void)state;
    rv_grey g = page_of(31, 31, 0), out;
    const rv_grey_part all = { 0, 0, 31, 31 };
    g.at[15 * 31 + 15] = 255;
    assert_int_equal(rv_grey_scaled(&g, &all, 1, 3, 0, &out, &err), RV_OK);
    uint32_t sum = 0;
    for (uint32_t i = 0; i < 31 * 31; i++) sum += out.at[i];
    assert_in_range(sum, 240, 270);
    assert_in_range(out.at[15 * 31 + 15], 26, 30);               /* 255 / 9 */
    assert_true(out.at[15 * 31 + 13] > 0 && out.at[15 * 31 + 12] == 0);
    rv_grey_free(&out);
    rv_grey_free(&g);
}

static void pages_of_one_pixel_are_pages(void **state) {
    (void)state;
    rv_grey g = page_of(1, 1, 77), out;
    float height;
    assert_int_equal(rv_grey_flatten(&g, &out, &err), RV_OK);
    assert_int_equal(rv_grey_letters(&out, &height, &err), RV_OK);
    assert_true(height == 0);
    rv_grey_free(&out);
    rv_grey_free(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(luma_is_that_of_itu_601_and_blocks_are_averaged),
        cmocka_unit_test(faded_print_becomes_black_on_white_in_the_shade_and_beside_a_dark_floor),
        cmocka_unit_test(letters_are_as_high_as_most_marks_and_rules_and_specks_are_none),
        cmocka_unit_test(a_page_at_its_own_size_stays_as_it_is),
        cmocka_unit_test(parts_are_scaled_from_where_they_lie),
        cmocka_unit_test(blur_spreads_a_point_and_keeps_its_sum),
        cmocka_unit_test(pages_of_one_pixel_are_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
