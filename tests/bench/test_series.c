/* test_series.c - medians, floors and percents (bench/series.h), and bytes that are gone (bench/device.h). */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <math.h>
#include <string.h>

#include "bench/device.h"
#include "bench/series.h"

static bool near(double a, double b) { return fabs(a - b) <= 1e-9 * fabs(b); }

static void median_is_the_middle_whatever_the_order(void **state) {
    series s = { 0 };
    (void)state;
    assert_true(series_median(&s) == 0 && series_least(&s) == 0 && series_most(&s) == 0);
    for (int i = 0; i < 5; i++) series_add(&s, (double[]){ 9, 1, 5, 100, 2 }[i]);
    assert_true(series_median(&s) == 5 && series_least(&s) == 1 && series_most(&s) == 100);
    assert_true(s.value[0] == 9 && s.value[4] == 2);             /* as they came */
    series_add(&s, 6);
    assert_true(near(series_median(&s), 5.5));
}

static void values_beyond_the_room_are_left_out(void **state) {
    series s = { 0 };
    (void)state;
    for (int i = 0; i < MOST_REPEATS + 10; i++) series_add(&s, i);
    assert_int_equal(s.n, MOST_REPEATS);
    assert_true(series_most(&s) == MOST_REPEATS - 1);
}

static result of(const char *unit, double median) {
    result r = { .unit = unit };
    series_add(&r.values, median);
    return r;
}

static void floor_is_the_slower_of_reading_and_computing(void **state) {
    result reads = of("ms", 4), computes = of("us", 4e6);
    (void)state;
    reads.needs[0] = (need){ .flop = 10, .bytes = 200 };
    set_floor(&reads, 100e3, 100e3);                             /* 2 ms of reading, 0.1 ms of products */
    assert_true(near(reads.floor, 2) && reads.by == BOUND_READ && near(percent_of_floor(&reads), 50));
    computes.needs[0] = (need){ .flop = 300, .bytes = 100 };
    set_floor(&computes, 100, 100);                              /* 3 s against 1 s */
    assert_true(near(computes.floor, 3e6) && computes.by == BOUND_PRODUCT && near(percent_of_floor(&computes), 75));
}

static void stages_one_after_the_other_add_up(void **state) {
    result r = of("ms", 10000);
    (void)state;
    r.needs[0] = (need){ .flop = 200, .bytes = 1 };
    r.needs[1] = (need){ .flop = 1, .bytes = 300 };
    set_floor(&r, 100, 100);
    assert_true(near(r.floor, 5000) && r.by == BOUND_BOTH && near(percent_of_floor(&r), 50));
}

static void floor_of_a_rate_is_the_most_that_can_be(void **state) {
    result r = of("tok/s", 9);
    (void)state;
    r.rows = 2;
    r.needs[0] = (need){ .bytes = 20 };
    set_floor(&r, 100, 100);                                     /* a step of two tokens takes 0.2 s */
    assert_true(near(r.floor, 10) && near(percent_of_floor(&r), 90));
}

static void without_needs_there_is_no_floor(void **state) {
    result r = of("ms", 1);
    (void)state;
    set_floor(&r, 100, 100);
    assert_true(r.floor == 0 && r.by == BOUND_NONE && percent_of_floor(&r) == 0);
}

static void faster_means_less_time_and_a_higher_rate(void **state) {
    result ms = of("ms", 2), rate = of("tok/s", 120);
    (void)state;
    assert_true(times_faster(&ms) == 0);
    ms.other = 3, rate.other = 12;
    assert_true(near(times_faster(&ms), 1.5) && near(times_faster(&rate), 10));
}

static void json_says_floor_and_other_side_only_where_there_is_one(void **state) {
    result r = of("ms", 2);
    (void)state;
    strcpy(r.name, "x");
    json_t *plain = result_json(&r);
    assert_non_null(plain);
    assert_null(json_object_get(plain, "floor"));
    assert_null(json_object_get(plain, "hf"));
    r.floor = 1, r.by = BOUND_READ, r.other = 4;
    json_t *full = result_json(&r);
    assert_true(near(json_number_value(json_object_get(full, "percent_of_floor")), 50));
    assert_string_equal(json_string_value(json_object_get(full, "floor_by")), "read");
    assert_true(near(json_number_value(json_object_get(full, "times_faster")), 2));
    json_decref(plain);
    json_decref(full);
}

/* Another process may end while this one loads. */
static void memory_that_others_give_back_is_not_a_huge_number(void **state) {
    (void)state;
    assert_int_equal(bytes_gone(1000, 400), 600);
    assert_int_equal(bytes_gone(1000, 1000), 0);
    assert_int_equal(bytes_gone(1000, 1200), 0);
    assert_int_equal(bytes_gone(1000, 0), 0);
    assert_int_equal(bytes_gone(0, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(median_is_the_middle_whatever_the_order),
        cmocka_unit_test(values_beyond_the_room_are_left_out),
        cmocka_unit_test(floor_is_the_slower_of_reading_and_computing),
        cmocka_unit_test(stages_one_after_the_other_add_up),
        cmocka_unit_test(floor_of_a_rate_is_the_most_that_can_be),
        cmocka_unit_test(without_needs_there_is_no_floor),
        cmocka_unit_test(faster_means_less_time_and_a_higher_rate),
        cmocka_unit_test(memory_that_others_give_back_is_not_a_huge_number),
        cmocka_unit_test(json_says_floor_and_other_side_only_where_there_is_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
