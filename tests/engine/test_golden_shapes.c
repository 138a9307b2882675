/* test_golden_shapes.c - the forward pass against Hugging Face on models with the real heads, groups and grids.
 *
 * Vision heads of 80, text heads of 64 and 128, four query heads a key head, tiles of 448 and 560 pixels, f32, bf16
 * and f16 checkpoints.  The checkpoints are made from a hash; tests/data/golden/README.md has the file layout.
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

#ifndef RV_TEST_GPU
static const double tolerance = 1e-4;
#endif

/* How far results are from Hugging Face's. */
typedef struct error { double max, squares, n; } error;

static void add_error(error *e, double is, double wanted) {
    double d = fabs(is - wanted);
    if (!(d <= e->max)) e->max = d;                      /* NaN stays */
    e->squares += d * d;
    e->n++;
}

static double rms(error e) { return sqrt(e.squares / e.n); }

typedef struct shapes {
    rig            r;
    rv_checkpoint *golden;
    hash_spec      spec;
    const char    *name;                                 /* of the case */
    error          vision, hidden, logits;
    int32_t        prompt;
} shapes;

static const void *array(const shapes *g, const char *what, rv_dtype type, int64_t *elements) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", g->name, what);
    return golden_get(g->golden, name, type, elements);
}

static bool has(const shapes *g, const char *what) {
    char name[32];
    snprintf(name, sizeof name, "%s_%s", g->name, what);
    return rv_checkpoint_find(g->golden, name) != NULL;
}

static void *room(size_t n, size_t size) {
    void *p = calloc(n, size);
    assert_non_null(p);
    return p;
}

/* How the engine runs: rig.h's options, less what the golden says. */
static shapes *open_case(const char *folder, const char *name, rig_options how) {
    char dir[512], file[512], model[512];
    rv_error err = { 0 };
    shapes *g = room(1, sizeof *g);
    snprintf(dir, sizeof dir, "%s/golden/%s", RV_TEST_DATA, folder);
    snprintf(file, sizeof file, "golden/%s/golden.safetensors", folder);
    snprintf(model, sizeof model, "%s/shapes_%s", RV_TEST_TMP, folder);
    if (hash_spec_load(dir, &g->spec, &err) || hash_checkpoint_write(dir, model, &err)) fail_msg("%s", err.message);
    g->name = name;
    g->golden = golden_open(file);
    bool leaving = golden_i64(array(g, "leaving", RV_I64, NULL), 0) != 0;
    how.dir = model;
    how.taps = leaving ? RV_TAPS_LEAVING : RV_TAPS_ENTERING;
    rig_open(&g->r, &how);
    assert_int_equal(g->r.weights.pads_are_equal, g->spec.zero_unused && !how.full_padding);
    return g;
}

static void close_case(shapes *g) {
    rig_close(&g->r);
    rv_checkpoint_close(g->golden);
    free(g);
}

static void compare_features(shapes *g, int64_t image) {
    int64_t n_at, n_vis, width = g->r.config.vision.output_dim, compared = 0;
    const void *at = array(g, "vis_at", RV_I64, &n_at), *vis = array(g, "vis", RV_F32, &n_vis);
    float *row = room((size_t)width, sizeof *row);
    assert_int_equal(n_at / 3 * width, n_vis);
    for (int64_t i = 0; i < n_at / 3; i++) {
        if (golden_i64(at, 3 * i) != image) continue;
        rig_feature(&g->r, (int32_t)golden_i64(at, 3 * i + 1), (int32_t)golden_i64(at, 3 * i + 2), row);
        for (int64_t c = 0; c < width; c++)
            add_error(&g->vision, (double)row[c], (double)golden_f32(vis, i * width + c));
        compared++;
    }
    assert_true(compared > 0);
    free(row);
}

static void see_images(shapes *g) {
    const rv_vision_config *v = &g->r.config.vision;
    int64_t n;
    const void *image = array(g, "image", RV_I64, &n), *ratio = array(g, "ar", RV_I64, NULL);
    size_t most = (size_t)v->max_tiles * RV_CHANNELS * (size_t)v->tile * (size_t)v->tile;
    uint8_t *tiles = room(most, 1);
    float *pixels = room(most, sizeof *pixels);
    for (int64_t k = 0; k < n; k++) {
        int32_t id = (int32_t)golden_i64(ratio, k), count = v->ratios[id - 1][0] * v->ratios[id - 1][1];
        hash_image(&g->spec, (int32_t)golden_i64(image, k), count, v->tile, tiles);
        rv_image_normalise(tiles, (size_t)count, v->tile, &g->r.config.preprocess, pixels);
        rig_see(&g->r, pixels, count, id);
        compare_features(g, k);
    }
    free(pixels);
    free(tiles);
}

/* A picture's bytes give the very features that its normalised pixels give: sees the last image again, both ways. */
static void compare_bytes_with_pixels(shapes *g) {
    const rv_vision_config *v = &g->r.config.vision;
    size_t most = (size_t)v->max_tiles * RV_CHANNELS * (size_t)v->tile * (size_t)v->tile, width = (size_t)v->output_dim;
    const int32_t count = g->r.pictures[0].layout.tiles, id = g->r.pictures[0].layout.aspect_ratio_id, step = 97;
    uint8_t *tiles = room(most, 1);
    float *pixels = room(most, sizeof *pixels), *rows[2];
    hash_image(&g->spec, 0, count, v->tile, tiles);
    rv_image_normalise(tiles, (size_t)count, v->tile, &g->r.config.preprocess, pixels);
    for (int bytes = 0; bytes < 2; bytes++) {
        rig_forget(&g->r);
        if (bytes) rig_see_bytes(&g->r, tiles, count, id);
        else rig_see(&g->r, pixels, count, id);
        rows[bytes] = room((size_t)(v->tokens / step + 1) * width, sizeof(float));
        for (int32_t i = 0; i * step < v->tokens; i++) rig_feature(&g->r, count - 1, i * step, rows[bytes] + (size_t)i * width);
    }
    assert_memory_equal(rows[0], rows[1], (size_t)(v->tokens / step + 1) * width * sizeof(float));
    free(rows[0]);
    free(rows[1]);
    free(pixels);
    free(tiles);
}

/* HF's image mask says what rv_text_sight says. */
static void compare_sight(const shapes *g, const int32_t *ids) {
    int64_t n_mask;
    const void *mask = array(g, "cm", RV_I64, &n_mask);
    const int32_t tiles = g->r.config.vision.max_tiles;
    rv_sight sight[RIG_CONTEXT];
    int32_t images = rv_text_sight(ids, g->prompt, g->r.config.image_token, sight);
    assert_int_equal(images, g->r.n_pictures);
    assert_int_equal(n_mask, (int64_t)g->prompt * images * tiles);
    for (int32_t r = 0; r < g->prompt; r++)
        for (int32_t c = 0; c < images * tiles; c++) {
            int32_t i = c / tiles;
            bool sees = i >= sight[r].first && i <= sight[r].last && c % tiles < g->r.pictures[i].layout.tiles;
            assert_int_equal(golden_i64(mask, (int64_t)r * images * tiles + c), sees);
        }
}

static void compare_hidden(shapes *g) {
    int64_t n, n_wanted, width = g->r.config.text.hidden;
    const void *rows = array(g, "rows", RV_I64, &n);
    for (int32_t layer = 0; layer <= g->r.config.text.layers; layer++) {
        char name[16];
        snprintf(name, sizeof name, "h%d", layer);
        const void *wanted = array(g, name, RV_F32, &n_wanted);
        assert_int_equal(n_wanted, n * width);
        for (int64_t i = 0; i < n; i++) {
            const float *is = rig_hidden(&g->r, layer, (int32_t)golden_i64(rows, i));
            for (int64_t c = 0; c < width; c++)
                add_error(&g->hidden, (double)is[c], (double)golden_f32(wanted, i * width + c));
        }
    }
}

static void compare_logits(shapes *g, const float *is, const void *wanted, int64_t row) {
    const int64_t vocab = g->r.config.text.vocab;
    for (int64_t c = 0; c < vocab; c++)
        add_error(&g->logits, (double)is[c], (double)golden_f32(wanted, row * vocab + c));
}

static void read_prompt(shapes *g, int32_t *ids) {
    int64_t n, n_logits;
    const void *given = array(g, "ids", RV_I64, &n), *logits = array(g, "logits", RV_F32, &n_logits);
    assert_true(n < RIG_ROWS);
    assert_int_equal(n_logits, n * g->r.config.text.vocab);
    g->prompt = (int32_t)n;
    for (int32_t i = 0; i < g->prompt; i++) ids[i] = (int32_t)golden_i64(given, i);
    compare_sight(g, ids);
    rig_read(&g->r, ids, g->prompt, 0, g->prompt);
    for (int32_t i = 0; i < g->prompt; i++) compare_logits(g, rig_logits(&g->r, i), logits, i);
    if (has(g, "rows")) compare_hidden(g);
}

/* Greedy steps: the tokens are HF's, and so are the logits. */
#ifndef RV_TEST_GPU
static void continue_prompt(shapes *g, int32_t *ids) {
    int64_t steps, n_glog;
    const void *gen = array(g, "gen", RV_I64, &steps), *glog = array(g, "glog", RV_F32, &n_glog);
    const float *row = rig_logits(&g->r, g->prompt - 1);
    assert_int_equal(n_glog, steps * g->r.config.text.vocab);
    for (int32_t s = 0; s < (int32_t)steps; s++) {
        int32_t best = 0, at = g->prompt + s;
        for (int32_t k = 1; k < g->r.config.text.vocab; k++)
            if (row[k] > row[best]) best = k;
        assert_int_equal(best, golden_i64(gen, s));
        compare_logits(g, row, glog, s);
        ids[at] = best;
        rig_read(&g->r, ids, g->prompt, at, at + 1);
        row = rig_logits(&g->r, 0);
    }
}

static void check_f32(const char *folder, const char *name, bool full_padding) {
    int32_t ids[RIG_CONTEXT];
    shapes *g = open_case(folder, name, (rig_options){ .act = RV_F32, .full_padding = full_padding });
    see_images(g);
    read_prompt(g, ids);
    continue_prompt(g, ids);
    printf("  %s %s: vision within %.1e, logits within %.1e", folder, name, g->vision.max, g->logits.max);
    if (g->hidden.n > 0) printf(", hidden states within %.1e", g->hidden.max);
    printf("\n");
    assert_true(g->vision.max <= tolerance);
    assert_true(g->hidden.max <= tolerance);
    assert_true(g->logits.max <= tolerance);
    close_case(g);
}
#endif

/* The golden's own continuation, token by token: rounding may choose another where two are close. */
static void follow_prompt(shapes *g, int32_t *ids) {
    int64_t steps, n_glog;
    const void *gen = array(g, "gen", RV_I64, &steps), *glog = array(g, "glog", RV_F32, &n_glog);
    for (int32_t s = 0; s + 1 < (int32_t)steps; s++) {
        int32_t at = g->prompt + s;
        ids[at] = (int32_t)golden_i64(gen, s);
        rig_read(&g->r, ids, g->prompt, at, at + 1);
        compare_logits(g, rig_logits(&g->r, 0), glog, s + 1);
    }
}

/* Rounding operands to 16 bits costs at most twice what bf16 costs Hugging Face. */
static void check_16bit(const char *folder, const char *name, rig_options how) {
    int32_t ids[RIG_CONTEXT];
    if (!how.gpu && !rv_cpu_detect().avx512_bf16) {
        print_message("skipped: this CPU has no AVX512-BF16\n");
        skip();
    }
    shapes *g = open_case(folder, name, how);
    const void *hf = array(g, "bf16", RV_F32, NULL);
    see_images(g);
    read_prompt(g, ids);
    follow_prompt(g, ids);
    printf("  %s %s: vision rms %.4f (Hugging Face in bf16: %.4f), logits rms %.4f (%.4f)\n", folder, name,
           rms(g->vision), (double)golden_f32(hf, 1), rms(g->logits), (double)golden_f32(hf, 3));
    for (int i = 0; i < 4; i++) {
        error e = i < 2 ? g->vision : g->logits;
        assert_true((i % 2 ? rms(e) : e.max) <= 2 * (double)golden_f32(hf, i));
    }
    close_case(g);
}

static void bytes_of_an_image_give_the_features_of_its_pixels(void **state) {
    (void)state;
#ifdef RV_TEST_GPU
    shapes *g = open_case("g448_bf16", "a", (rig_options){ .gpu = true, .act = RV_BF16 });
#else
    shapes *g = open_case("g448_bf16", "a", (rig_options){ .act = RV_F32 });
#endif
    see_images(g);
    compare_bytes_with_pixels(g);
    close_case(g);
}

#ifdef RV_TEST_GPU
static void check_gpu(const char *folder, const char *name, rv_dtype act, int32_t arch, bool full, bool plain) {
    check_16bit(folder, name, (rig_options){ .gpu = true, .act = act, .arch = arch, .full_padding = full, .plain_attention = plain });
}

static void bf16_with_the_newest_kernels_is_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g560", "a", RV_BF16, 0, false, false);
    check_gpu("g448", "a", RV_BF16, 0, false, false);
    check_gpu("g448_bf16", "a", RV_BF16, 0, false, false);
    check_gpu("g448_f16", "a", RV_BF16, 0, false, false);
}
static void f16_is_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g560", "a", RV_F16, 0, false, false);
    check_gpu("g448_f16", "a", RV_F16, 0, false, false);
}
static void the_sm80_kernels_are_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g560", "a", RV_BF16, 80, false, false);
    check_gpu("g448", "a", RV_F16, 80, false, false);
}
static void the_sm70_kernels_are_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g560", "a", RV_F16, 70, false, false);
    check_gpu("g448", "a", RV_F16, 70, false, false);
    check_gpu("g448_f16", "a", RV_F16, 70, true, false);
}
static void padding_computed_in_full_is_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g560", "a", RV_BF16, 0, true, false);
}
static void plain_attention_is_as_exact_as_hfs(void **state) {
    (void)state;
    check_gpu("g448_bf16", "a", RV_BF16, 0, false, true);
}

/* One layer as few launches, and composed of the fine operations: the same bits, with 1 row. */
static void coarse_layers_equal_composed_ones_bit_for_bit(void **state) {
    (void)state;
    static const char *const folders[] = { "g560", "g448" };
    for (int f = 0; f < 2; f++) {
        float *logits[2];
        for (int fine = 0; fine < 2; fine++) {
            int32_t ids[RIG_CONTEXT];
            shapes *g = open_case(folders[f], "a", (rig_options){ .gpu = true, .act = RV_BF16 });
            size_t bytes = (size_t)g->r.config.text.vocab * sizeof(float);
            see_images(g);
            read_prompt(g, ids);
            g->r.be->fine_only = fine;
            follow_prompt(g, ids);
            logits[fine] = room(1, bytes);
            memcpy(logits[fine], rig_logits(&g->r, 0), bytes);
            if (fine) assert_memory_equal(logits[0], logits[1], bytes);
            close_case(g);
        }
        free(logits[0]);
        free(logits[1]);
    }
}

/* The tower with its layers as one call each, and composed: every feature, also with padding computed in full. */
static void coarse_vision_layers_equal_composed_ones_bit_for_bit(void **state) {
    (void)state;
    for (int full = 0; full < 2; full++) {
        float *rows[2];
        size_t count = 0;
        for (int fine = 0; fine < 2; fine++) {
            shapes *g = open_case("g560", "a", (rig_options){ .gpu = true, .act = RV_BF16, .full_padding = full });
            const size_t tokens = (size_t)g->r.config.vision.tokens, width = (size_t)g->r.config.vision.output_dim;
            g->r.be->fine_only = fine;
            see_images(g);
            count = tokens * width;
            rows[fine] = room(count, sizeof(float));
            for (size_t i = 0; i < tokens; i++) rig_feature(&g->r, 0, (int32_t)i, rows[fine] + i * width);
            close_case(g);
        }
        assert_memory_equal(rows[0], rows[1], count * sizeof(float));
        free(rows[0]);
        free(rows[1]);
    }
}

/* An argument is a pattern of names: one test is enough for compute-sanitizer. */
int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_an_image_give_the_features_of_its_pixels),
        cmocka_unit_test(coarse_layers_equal_composed_ones_bit_for_bit),
        cmocka_unit_test(coarse_vision_layers_equal_composed_ones_bit_for_bit),
        cmocka_unit_test(bf16_with_the_newest_kernels_is_as_exact_as_hfs),
        cmocka_unit_test(f16_is_as_exact_as_hfs),
        cmocka_unit_test(the_sm80_kernels_are_as_exact_as_hfs),
        cmocka_unit_test(the_sm70_kernels_are_as_exact_as_hfs),
        cmocka_unit_test(padding_computed_in_full_is_as_exact_as_hfs),
        cmocka_unit_test(plain_attention_is_as_exact_as_hfs),
    };
    if (rv_cuda_count() == 0) return puts("skipped: no GPU"), 77;
    if (argc > 1) cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#else
static void two_images_of_560_pixel_tiles_equal_hf(void **state) { (void)state; check_f32("g560", "a", false); }
static void padding_computed_in_full_equals_hf(void **state) { (void)state; check_f32("g560", "a", true); }
static void taps_leaving_the_layers_equal_hf(void **state) { (void)state; check_f32("g560", "b", false); }
static void four_tiles_and_text_heads_of_64_equal_hf(void **state) { (void)state; check_f32("g448", "a", false); }
static void padding_tiles_with_filled_tables_equal_hf(void **state) { (void)state; check_f32("g448", "b", false); }
static void a_bf16_checkpoint_equals_hf(void **state) { (void)state; check_f32("g448_bf16", "a", false); }
static void an_f16_checkpoint_and_three_tiles_equal_hf(void **state) { (void)state; check_f32("g448_f16", "a", false); }
static void bf16_arithmetic_is_as_exact_as_hfs(void **state) { (void)state; check_16bit("g448_bf16", "a", (rig_options){ .act = RV_BF16 }); }
static void bf16_arithmetic_on_two_images_is_as_exact_as_hfs(void **state) { (void)state; check_16bit("g560", "a", (rig_options){ .act = RV_BF16 }); }

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(bytes_of_an_image_give_the_features_of_its_pixels),
        cmocka_unit_test(two_images_of_560_pixel_tiles_equal_hf),
        cmocka_unit_test(padding_computed_in_full_equals_hf),
        cmocka_unit_test(taps_leaving_the_layers_equal_hf),
        cmocka_unit_test(four_tiles_and_text_heads_of_64_equal_hf),
        cmocka_unit_test(padding_tiles_with_filled_tables_equal_hf),
        cmocka_unit_test(a_bf16_checkpoint_equals_hf),
        cmocka_unit_test(an_f16_checkpoint_and_three_tiles_equal_hf),
        cmocka_unit_test(bf16_arithmetic_is_as_exact_as_hfs),
        cmocka_unit_test(bf16_arithmetic_on_two_images_is_as_exact_as_hfs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
#endif
