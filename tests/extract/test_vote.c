/* test_vote.c - several readings of one cell: which is believed. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "extract/vote.h"

static rv_error err;

/* A reading as text, with how sure the recogniser was of every word. */
typedef struct heard { const char *text; float sure; } heard;

static rv_page pages[RV_MOST_OPINIONS];
static rv_opinion opinions[RV_MOST_OPINIONS];

static void hear(const heard *all, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        char copy[128], *rest = NULL;
        rv_page_free(&pages[i]);
        snprintf(copy, sizeof copy, "%s", all[i].text);
        for (char *word = strtok_r(copy, " ", &rest); word; word = strtok_r(NULL, " ", &rest))
            assert_int_equal(rv_page_add(&pages[i], word, (rv_box){ 0 }, all[i].sure, 0, &err), RV_OK);
        opinions[i] = (rv_opinion){ pages[i].words, pages[i].n_words };
    }
}

static void forget(void) {
    for (uint32_t i = 0; i < RV_MOST_OPINIONS; i++) rv_page_free(&pages[i]);
}

#define VOTE(...) vote((const heard[]){ __VA_ARGS__ }, sizeof((const heard[]){ __VA_ARGS__ }) / sizeof(heard))
static rv_verdict vote(const heard *all, uint32_t n) {
    rv_verdict v;
    hear(all, n);
    assert_int_equal(rv_vote(opinions, n, &v, &err), RV_OK);
    forget();
    return v;
}

#define assert_verdict(v, who, how_many) do { rv_verdict v_ = (v); assert_int_equal(v_.chosen, who); assert_int_equal(v_.agree, how_many); } while (0)

static void two_readings_with_the_same_date_outvote_a_surer_one(void **state) {
    (void)state;
    assert_verdict(VOTE({ "Date: 14/02/2016 09:14", 0.99f }, { "Dafe: 11/02/2016 O9:14", 0.3f }, { "11-02-16", 0.4f }), 2, 2);
    assert_verdict(VOTE({ "29 Mar 2018", 0.5f }, { "29 Mar 2015", 0.9f }, { "29/03/2018", 0.6f }, { "2018-03-29", 0.4f }), 2, 3);
}

static void amounts_are_compared_in_cents_wherever_words_end(void **state) {
    (void)state;
    assert_verdict(VOTE({ "RM1,204.50", 0.4f }, { "RM 1204.50", 0.5f }), 1, 2);
    assert_verdict(VOTE({ "B5.20", 0.9f }, { "85.20", 0.5f }, { "85.20", 0.6f }), 2, 2);
    assert_verdict(VOTE({ "2 x 4.50 9.00", 0.4f }, { "2 x 4.50 9.60", 0.8f }, { "2 x 4.50 9.00", 0.3f }), 0, 2);
}

static void where_all_differ_the_surest_is_taken_and_nobody_agrees(void **state) {
    (void)state;
    assert_verdict(VOTE({ "14.10", 0.5f }, { "11.10", 0.8f }, { "13.10", 0.6f }), 1, 1);
}

/* No such day, a year that no document has, and a third decimal: nothing was said. */
static void what_cannot_be_is_not_said(void **state) {
    (void)state;
    assert_verdict(VOTE({ "92/02/2018", 0.9f }, { "92/02/2018", 0.9f }), 0, 0);
    assert_verdict(VOTE({ "22/03/2078", 0.9f }, { "22/03/2078", 0.9f }, { "22/03/2018", 0.1f }), 2, 1);
    assert_verdict(VOTE({ "1.899", 0.9f }, { "1.899", 0.9f }), 0, 0);
    assert_verdict(VOTE({ "Thank you", 0.1f }, { "Thank you", 0.9f }), 0, 0);
    assert_verdict(VOTE({ "", 0 }, { "", 0 }), 0, 0);
}

static void more_dates_and_amounts_count_only_where_another_reading_has_them(void **state) {
    (void)state;
    assert_verdict(VOTE({ "33.00", 0.5f }, { "1.11 2.22 3.33", 0.6f }, { "33.00", 0.2f }), 0, 2);
}

static bool says(const char *text) {
    hear(&(heard){ text, 0.5f }, 1);
    const bool may = rv_may_say(&opinions[0]);
    forget();
    return may;
}

static void cells_that_may_be_a_misread_date_or_amount_are_looked_at_again(void **state) {
    (void)state;
    assert_true(says("1I/09/2@17") && says("1,4O0") && says("RH41.45") && says("171012018"));
    assert_false(says("TOTAL") || says("4u") || says("9556404118038"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_readings_with_the_same_date_outvote_a_surer_one),
        cmocka_unit_test(amounts_are_compared_in_cents_wherever_words_end),
        cmocka_unit_test(where_all_differ_the_surest_is_taken_and_nobody_agrees),
        cmocka_unit_test(what_cannot_be_is_not_said),
        cmocka_unit_test(more_dates_and_amounts_count_only_where_another_reading_has_them),
        cmocka_unit_test(cells_that_may_be_a_misread_date_or_amount_are_looked_at_again),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
