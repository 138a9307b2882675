/* What rv_count_outliers says of the demo model's inputs: counts that follow from the request, and from the threshold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/rvengine.h"

enum { MOST = 64, TOKENS = 4 };

typedef struct seen { uint32_t n; rv_outliers of[MOST]; char name[MOST][128]; } seen;

static void keep(void *user, const rv_outliers *of) {
    seen *s = user;
    assert_true(s->n < MOST);
    s->of[s->n] = *of;
    snprintf(s->name[s->n++], sizeof *s->name, "%s", of->module);
}

static const rv_outliers *find(const seen *s, const char *end) {
    for (uint32_t i = 0; i < s->n; i++) {
        size_t a = strlen(s->name[i]), b = strlen(end);
        if (a >= b && !strcmp(s->name[i] + a - b, end)) return &s->of[i];
    }
    fail_msg("no module %s", end);
    return NULL;
}

static rv_model *model(void) {
    rv_error err;
    rv_model *m;
    const rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32 };
    if (rv_model_load(RV_TEST_DEMO "/model", &o, &m, &err)) fail_msg("%s", err.message);
    return m;
}

/* The answer's tokens may be fewer than asked for only when the model ends; this prompt's does not. */
static void count(rv_model *m, float threshold, seen *s) {
    rv_error err;
    const rv_request ask = { .size = sizeof ask, .raw = "Total due", .max_tokens = TOKENS, .flags = RV_REQUEST_IGNORE_STOP };
    memset(s, 0, sizeof *s);
    if (rv_count_outliers(m, &ask, threshold, keep, s, &err)) fail_msg("%s", err.message);
}

static void every_row_is_counted_and_each_module_once(void **state) {
    (void)state;
    rv_model *m = model();
    seen s;
    count(m, 6, &s);
    const rv_outliers *first = find(&s, "layers.0.self_attn.q_proj"), *down = find(&s, "layers.0.mlp.down_proj"), *head = find(&s, "lm_head");
    assert_true(first->rows >= TOKENS + 1 && first->rows == down->rows);       /* the prompt, and each token but the last */
    assert_int_equal(head->rows, TOKENS);
    assert_true(down->columns == 768 && first->columns == 256);
    for (uint32_t i = 0; i < s.n; i++) {
        const rv_outliers *o = &s.of[i];
        for (uint32_t k = 0; k < i; k++) assert_string_not_equal(s.name[i], s.name[k]);
        if (strstr(s.name[i], "cross_attn")) assert_int_equal(o->rows, 0);     /* no picture: its layers do not run */
        assert_true((o->largest >= 6) == (o->values > 0));
        assert_true(o->outlier_columns <= o->columns && o->most_in_a_row <= o->outlier_columns && o->values >= o->outlier_columns);
    }
    rv_model_free(m);
}

static void a_lower_threshold_finds_more_and_the_largest_is_the_same(void **state) {
    (void)state;
    rv_model *m = model();
    seen high, low, usual, none;
    uint64_t more = 0;
    count(m, 3, &high);
    count(m, 0.5f, &low);
    count(m, 6, &usual);
    count(m, 0, &none);                                    /* 0: the usual one                     */
    for (uint32_t i = 0; i < high.n; i++) {
        assert_true(low.of[i].values >= high.of[i].values && low.of[i].outlier_columns >= high.of[i].outlier_columns);
        assert_true(low.of[i].largest == high.of[i].largest);
        assert_true(usual.of[i].values == none.of[i].values);
        more += low.of[i].values - high.of[i].values;
    }
    assert_true(more > 0);
    rv_model_free(m);
}

static void a_model_in_use_and_a_wrong_threshold_are_refused(void **state) {
    (void)state;
    rv_model *m = model();
    rv_session *session;
    rv_error err;
    seen s = { 0 };
    const rv_session_options room = { .size = sizeof room };
    const rv_request ask = { .size = sizeof ask, .raw = "x", .max_tokens = 1 };
    assert_int_equal(rv_count_outliers(m, &ask, -1, keep, &s, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_count_outliers(NULL, &ask, 6, keep, &s, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_session_new(m, &room, &session, &err), RV_OK);
    assert_int_equal(rv_count_outliers(m, &ask, 6, keep, &s, &err), RV_ERR_BUSY);
    assert_int_equal(s.n, 0);
    rv_session_free(session);
    assert_int_equal(rv_count_outliers(m, &ask, 6, keep, &s, &err), RV_OK);
    rv_model_free(m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_row_is_counted_and_each_module_once),
        cmocka_unit_test(a_lower_threshold_finds_more_and_the_largest_is_the_same),
        cmocka_unit_test(a_model_in_use_and_a_wrong_threshold_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
