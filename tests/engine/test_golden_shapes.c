/* The forward pass against Hugging Face on models with the real heads, groups and grids: vision heads of 80, text
 * heads of 64 and 128, four query heads a key head, 448 and 560 pixel tiles, f32, bf16 and f16 checkpoints.
 * tests/data/golden/README.md has the file layout. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/support/forward.h"
#include "tests/support/hash_checkpoint.h"

enum { SLOTS = 4 };              /* tile slots of an image mask                                 */
static const double TOLERANCE = 1e-4;

typedef struct golden_case {
    const char    *folder, *name;
    rv_checkpoint *golden;
    hash_spec      spec;
    char           model[512];
} golden_case;

static void check(rv_status st, const rv_error *err) {
    if (st) fail_msg("%s", err->message);
}

/* A tensor of this case, its size checked by dims; NULL when the case has none of that name. */
static const void *tensor(const golden_case *g, const char *what, rv_dtype type, int64_t *rows, int64_t *cols) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", g->name, what);
    const rv_tensor *t = rv_checkpoint_find(g->golden, name);
    if (!t) return NULL;
    assert_int_equal(t->type, type);
    *rows = t->shape[0];
    *cols = 1;
    for (int32_t d = 1; d < t->n_dims; d++) *cols *= t->shape[d];
    return t->data;
}

static const void *must(const golden_case *g, const char *what, rv_dtype type, int64_t *rows, int64_t *cols) {
    const void *data = tensor(g, what, type, rows, cols);
    if (!data) fail_msg("%s: no tensor %s_%s", g->folder, g->name, what);
    return data;
}

/* Numbers of a tensor may lie anywhere in the file. */
static int64_t int_at(const void *data, int64_t i) {
    int64_t v;
    memcpy(&v, (const char *)data + i * (int64_t)sizeof v, sizeof v);
    return v;
}

static float float_at(const void *data, int64_t i) {
    float v;
    memcpy(&v, (const char *)data + i * (int64_t)sizeof v, sizeof v);
    return v;
}

static void assert_row(const golden_case *g, const char *what, int64_t row, const float *is, const void *wanted,
                       int64_t wanted_row, int64_t n) {
    for (int64_t c = 0; c < n; c++) {
        double w = (double)float_at(wanted, wanted_row * n + c);
        if (!(fabs((double)is[c] - w) <= TOLERANCE))
            fail_msg("%s case %s: %s row %lld column %lld is %.7g, Hugging Face has %.7g", g->folder, g->name, what,
                     (long long)row, (long long)c, (double)is[c], w);
    }
}

static void *room(size_t n, size_t size) {
    void *p = calloc(n, size);
    assert_non_null(p);
    return p;
}

static void run_pictures(const golden_case *g, forward *f) {
    int64_t n, one, n_at, n_vis, cols;
    rv_error err = { 0 };
    const void *image = must(g, "image", RV_I64, &n, &one), *ratio = must(g, "ar", RV_I64, &n, &one);
    const void *at = must(g, "vis_at", RV_I64, &n_at, &one), *vis = must(g, "vis", RV_F32, &n_vis, &cols);
    const rv_vision_config *v = &f->config.vision;
    size_t pixels = (size_t)v->max_tiles * RV_CHANNELS * (size_t)v->tile * (size_t)v->tile;
    uint8_t *tiles = room(pixels, 1);
    float *features = room((size_t)v->max_tiles * (size_t)v->tokens * (size_t)v->output_dim, sizeof *features);
    int64_t compared = 0;
    assert_int_equal(n_at, n_vis);
    assert_int_equal(cols, v->output_dim);
    for (int64_t k = 0; k < n; k++) {
        int32_t id = (int32_t)int_at(ratio, k), count = v->ratios[id - 1][0] * v->ratios[id - 1][1];
        hash_image(&g->spec, (int32_t)int_at(image, k), count, v->tile, tiles);
        check(forward_picture(f, tiles, count, id, features, &err), &err);
        for (int64_t r = 0; r < n_at; r++) {
            if (int_at(at, 3 * r) != k) continue;
            int64_t row = int_at(at, 3 * r + 1) * v->tokens + int_at(at, 3 * r + 2);
            assert_row(g, "vision output", row, features + row * cols, vis, r, cols);
            compared++;
        }
    }
    assert_int_equal(compared, n_at);
    free(features);
    free(tiles);
}

/* HF's image mask says what rv_text_sight says. */
static void assert_sight(const golden_case *g, const forward *f, const int32_t *ids, int64_t n) {
    int64_t rows, cols;
    const void *mask = must(g, "cm", RV_I64, &rows, &cols);
    rv_sight *sight = room((size_t)n, sizeof *sight);
    int32_t images = rv_text_sight(ids, (int32_t)n, f->config.image_token, sight);
    assert_int_equal(rows, n);
    assert_int_equal(cols, images * SLOTS);
    for (int64_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < images * SLOTS; c++) {
            int32_t i = c / SLOTS;
            bool sees = i >= sight[r].first && i <= sight[r].last && c % SLOTS < f->layout[i].tiles;
            assert_int_equal(int_at(mask, r * cols + c), sees);
        }
    free(sight);
}

static void assert_states(const golden_case *g, forward *f) {
    int64_t n, one, rows, cols;
    const void *at = tensor(g, "rows", RV_I64, &n, &one);
    for (int32_t i = 0; at && i <= f->config.text.layers; i++) {
        char name[16];
        snprintf(name, sizeof name, "h%d", i);
        const void *wanted = must(g, name, RV_F32, &rows, &cols);
        assert_int_equal(rows, n);
        assert_int_equal(cols, f->config.text.hidden);
        for (int64_t r = 0; r < n; r++)
            assert_row(g, name, int_at(at, r), f->states[i] + int_at(at, r) * cols, wanted, r, cols);
    }
}

static int64_t best_of(const float *x, int64_t n) {
    int64_t best = 0;
    for (int64_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static void run_text(const golden_case *g, forward *f) {
    int64_t n, one, rows, vocab, steps;
    rv_error err = { 0 };
    const void *given = must(g, "ids", RV_I64, &n, &one), *wanted = must(g, "logits", RV_F32, &rows, &vocab);
    const void *gen = must(g, "gen", RV_I64, &steps, &one), *glog = must(g, "glog", RV_F32, &rows, &vocab);
    int32_t *ids = room((size_t)n, sizeof *ids);
    float *logits = room((size_t)(n * vocab), sizeof *logits), *row = logits + (n - 1) * vocab;
    assert_int_equal(vocab, f->config.text.vocab);
    for (int64_t i = 0; i < n; i++) ids[i] = (int32_t)int_at(given, i);
    for (int32_t i = 0; i <= f->config.text.layers; i++)
        f->states[i] = room((size_t)n * (size_t)f->config.text.hidden, sizeof **f->states);
    assert_sight(g, f, ids, n);
    check(forward_prompt(f, ids, (int32_t)n, logits, &err), &err);
    assert_states(g, f);
    for (int64_t r = 0; r < n; r++) assert_row(g, "logits", r, logits + r * vocab, wanted, r, vocab);
    for (int64_t s = 0; s < steps; s++) {
        assert_row(g, "logits of the continuation", s, row, glog, s, vocab);
        assert_int_equal(best_of(row, vocab), int_at(gen, s));
        if (s + 1 < steps) check(forward_next(f, (int32_t)best_of(row, vocab), row, &err), &err);
    }
    for (int32_t i = 0; i <= f->config.text.layers; i++) free(f->states[i]);
    free(logits);
    free(ids);
}

static void compare(const char *folder, const char *name) {
    char dir[512], file[640];
    rv_error err = { 0 };
    golden_case g = { .folder = folder, .name = name };
    forward *f = room(1, sizeof *f);
    rv_cpu_options cpu = { .act = RV_F32 };
    int64_t n, images, one;
    snprintf(dir, sizeof dir, "%s/golden/%s", RV_TEST_DATA, folder);
    snprintf(file, sizeof file, "%s/golden.safetensors", dir);
    snprintf(g.model, sizeof g.model, "%s/shapes_%s", RV_TEST_TMP, folder);
    check(hash_spec_load(dir, &g.spec, &err), &err);
    check(hash_checkpoint_write(dir, g.model, &err), &err);
    check(rv_checkpoint_open(file, &g.golden, &err), &err);
    must(&g, "ids", RV_I64, &n, &one);
    must(&g, "image", RV_I64, &images, &one);
    bool leaving = int_at(must(&g, "leaving", RV_I64, &one, &one), 0) != 0;
    check(forward_open(f, g.model, &cpu, leaving ? RV_TAPS_LEAVING : RV_TAPS_ENTERING, RV_REFERENCE_HF, (int32_t)n + 16,
                       (int32_t)images, &err), &err);
    assert_int_equal(f->weights.pads_are_equal, g.spec.zero_unused);
    run_pictures(&g, f);
    run_text(&g, f);
    forward_close(f);
    free(f);
    rv_checkpoint_close(g.golden);
}

static void two_images_of_560_pixel_tiles_equal_hf(void **state) { (void)state; compare("g560", "a"); }
static void taps_leaving_the_layers_equal_hf(void **state) { (void)state; compare("g560", "b"); }
static void four_448_pixel_tiles_and_text_heads_of_64_equal_hf(void **state) { (void)state; compare("g448", "a"); }
static void padding_tiles_with_filled_tables_equal_hf(void **state) { (void)state; compare("g448", "b"); }
static void a_bf16_checkpoint_and_three_padding_tiles_equal_hf(void **state) { (void)state; compare("g448_bf16", "a"); }
static void an_f16_checkpoint_and_three_tiles_in_a_row_equal_hf(void **state) { (void)state; compare("g448_f16", "a"); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_images_of_560_pixel_tiles_equal_hf),
        cmocka_unit_test(taps_leaving_the_layers_equal_hf),
        cmocka_unit_test(four_448_pixel_tiles_and_text_heads_of_64_equal_hf),
        cmocka_unit_test(padding_tiles_with_filled_tables_equal_hf),
        cmocka_unit_test(a_bf16_checkpoint_and_three_padding_tiles_equal_hf),
        cmocka_unit_test(an_f16_checkpoint_and_three_tiles_in_a_row_equal_hf),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
