/* test_golden.c - the forward pass against Hugging Face, on the tiny checkpoints of tests/data/golden. */
#include <setjmp.h>
#include <stdarg.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

#include "tests/engine/rig.h"

static const double tolerance = 1e-4;

typedef struct golden { rig r; rv_checkpoint *data; } golden;

static const void *array(const golden *g, char which, const char *what, int64_t *shape) {
    char name[32];
    snprintf(name, sizeof name, "%c_%s", which, what);
    const rv_tensor *t = rv_checkpoint_find(g->data, name);
    if (!t) return NULL;
    if (shape) memcpy(shape, t->shape, sizeof *shape * (size_t)t->n_dims);
    return t->data;
}

static double worst(const float *a, const float *b, size_t n, double so_far) {
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        if (!(d <= so_far)) so_far = d;
    }
    return so_far;
}

static void open_golden(golden *g, const char *folder, rv_taps taps, bool plain, bool full) {
    char dir[512], file[600];
    rv_error err;
    snprintf(dir, sizeof dir, "%s/golden/%s", RV_TEST_DATA, folder);
    snprintf(file, sizeof file, "%s/golden.safetensors", dir);
    rig_open(&g->r, &(rig_options){ .dir = dir, .taps = taps, .plain_loops = plain, .full_padding = full });
    if (rv_checkpoint_open(file, &g->data, &err)) fail_msg("%s", err.message);
}

static void close_golden(golden *g) {
    rig_close(&g->r);
    rv_checkpoint_close(g->data);
}

static void see_images(golden *g, char which) {
    const rv_vision_config *v = &g->r.config.vision;
    int64_t shape[8];
    const float *pixels = array(g, which, "pv", shape);
    const int64_t *ratios = array(g, which, "ar", NULL);
    const float *expected = array(g, which, "vis", NULL);
    size_t slot = (size_t)RV_CHANNELS * (size_t)v->tile * (size_t)v->tile, width = (size_t)v->output_dim;
    float row[1024];
    double error = 0;
    if (!pixels) return;
    for (int64_t image = 0; image < shape[1]; image++) {
        const int32_t *ratio = v->ratios[ratios[image] - 1];
        rig_see(&g->r, pixels + (size_t)image * (size_t)v->max_tiles * slot, ratio[0] * ratio[1], (int32_t)ratios[image]);
        for (int32_t t = 0; t < v->max_tiles; t++)
            for (int32_t n = 0; n < v->tokens; n++, expected += width) {
                rig_feature(&g->r, t, n, row);
                error = worst(row, expected, width, error);
            }
    }
    printf("  case %c: vision output within %.1e\n", which, error);
    assert_true(error <= tolerance);
}

static void check_case(golden *g, char which) {
    const rv_text_config *t = &g->r.config.text;
    int64_t shape[8];
    const int64_t *ids64 = array(g, which, "gen", shape);
    int32_t ids[RIG_CONTEXT], all = (int32_t)shape[1], prompt;
    array(g, which, "ids", shape);
    prompt = (int32_t)shape[1];
    for (int32_t i = 0; i < all; i++) ids[i] = (int32_t)ids64[i];
    rig_forget(&g->r);
    see_images(g, which);
    rig_read(&g->r, ids, prompt, 0, prompt);
    double hidden = 0, logits = 0;
    /* HF 5 lists no state for a layer that a text-only prompt skips. */
    bool skips = !array(g, which, "pv", NULL) && !array(g, which, "h5", NULL);
    for (int32_t layer = 0, k = 0; layer <= t->layers; layer++) {
        char name[16];
        if (skips && layer && t->cross[layer - 1]) continue;
        snprintf(name, sizeof name, "h%d", k++);
        const float *expected = array(g, which, name, NULL);
        assert_non_null(expected);
        for (int32_t i = 0; i < prompt; i++)
            hidden = worst(rig_hidden(&g->r, layer, i), expected + (size_t)i * (size_t)t->hidden, (size_t)t->hidden, hidden);
    }
    const float *expected = array(g, which, "logits", NULL), *steps = array(g, which, "glog", NULL);
    logits = worst(rig_logits(&g->r, 0), expected, (size_t)prompt * (size_t)t->vocab, logits);
    const float *row = rig_logits(&g->r, prompt - 1);
    for (int32_t i = prompt; i < all; i++) {
        int32_t best = 0;
        for (int32_t k = 1; k < t->vocab; k++)
            if (row[k] > row[best]) best = k;
        assert_int_equal(best, ids[i]);
        logits = worst(row, steps + (size_t)(i - prompt) * (size_t)t->vocab, (size_t)t->vocab, logits);
        rig_read(&g->r, ids, prompt, i, i + 1);
        row = rig_logits(&g->r, 0);
    }
    printf("  case %c: hidden states within %.1e, logits within %.1e, %d tokens equal\n", which, hidden, logits, all - prompt);
    assert_true(hidden <= tolerance);
    assert_true(logits <= tolerance);
}

static void check_all(const char *folder, rv_taps taps, const char *cases, bool plain, bool full) {
    golden g;
    open_golden(&g, folder, taps, plain, full);
    for (; *cases; cases++) check_case(&g, *cases);
    close_golden(&g);
}

static void hf_4_48_with_entering_taps_is_reproduced(void **state) {
    (void)state;
    check_all("hf4.48", RV_TAPS_ENTERING, "abcde", false, false);
}
static void hf_5_17_with_leaving_taps_is_reproduced(void **state) {
    (void)state;
    check_all("hf5.17", RV_TAPS_LEAVING, "abcd", false, false);
}
static void hf_5_17_with_shifted_taps_equals_entering(void **state) {
    (void)state;
    check_all("hf5.17", RV_TAPS_ENTERING, "e", false, false);
}
static void plain_loops_reproduce_hf_4_48(void **state) {
    (void)state;
    check_all("hf4.48", RV_TAPS_ENTERING, "abcde", true, false);
}
static void padding_in_full_reproduces_hf_4_48(void **state) {
    (void)state;
    check_all("hf4.48", RV_TAPS_ENTERING, "abcde", false, true);
}

/* The goldens discriminate: the other reading of the reference is far off. */
static void leaving_taps_differ_from_hf_4_48(void **state) {
    (void)state;
    golden g;
    open_golden(&g, "hf4.48", RV_TAPS_LEAVING, false, false);
    int64_t shape[8];
    const float *pixels = array(&g, 'e', "pv", shape), *expected = array(&g, 'e', "vis", NULL);
    float row[1024];
    rig_see(&g.r, pixels, 4, (int32_t)((const int64_t *)array(&g, 'e', "ar", NULL))[0]);
    rig_feature(&g.r, 0, 0, row);
    assert_true(worst(row, expected, (size_t)g.r.config.vision.output_dim, 0) > 0.1);
    close_golden(&g);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hf_4_48_with_entering_taps_is_reproduced),
        cmocka_unit_test(hf_5_17_with_leaving_taps_is_reproduced),
        cmocka_unit_test(hf_5_17_with_shifted_taps_equals_entering),
        cmocka_unit_test(plain_loops_reproduce_hf_4_48),
        cmocka_unit_test(padding_in_full_reproduces_hf_4_48),
        cmocka_unit_test(leaving_taps_differ_from_hf_4_48),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
