/* Canvas, resize, tiles and normalised values equal Pillow's, torchvision's and Hugging Face's. */
#include "tests/image/pictures.h"
#include "engine/resize.h"

static rv_config published(int32_t tile) {
    rv_config c;
    rv_config_published(&c);
    c.vision.tile = tile;
    return c;
}

static void canvas_as_hf(const char *line) {
    int w, h, tile, most, rows, cols, id, nw, nh;
    assert_int_equal(sscanf(line, "%d %d %d %d %d %d %d %d %d", &w, &h, &tile, &most, &rows, &cols, &id, &nw, &nh), 9);
    rv_config config = published(tile);
    rv_canvas c = rv_canvas_choose((uint32_t)w, (uint32_t)h, &config.vision, most);
    if (c.rows != rows || c.cols != cols || c.aspect_ratio_id != id || c.width != nw || c.height != nh)
        fail_msg("%dx%d, id %d, %dx%d, expected %s", c.rows, c.cols, c.aspect_ratio_id, c.width, c.height, line);
}

static void canvases_are_those_of_hugging_face(void **state) {
    (void)state;
    assert_in_range(lines_of("canvas.txt", canvas_as_hf), 1600, 100000);
}

static void canvases_are_those_of_the_specification(void **state) {
    (void)state;
    static const int32_t table[][7] = {                  /* width, height, rows, cols, id, resized width, height */
        { 1, 1, 1, 1, 1, 560, 560 },        { 100, 60, 1, 1, 1, 560, 336 },     { 560, 560, 1, 1, 1, 560, 560 },
        { 561, 560, 1, 2, 2, 561, 560 },    { 561, 561, 2, 2, 6, 561, 561 },    { 700, 500, 1, 2, 2, 700, 500 },
        { 640, 480, 1, 2, 2, 640, 480 },    { 800, 600, 2, 2, 6, 800, 600 },    { 1920, 1080, 2, 2, 6, 1120, 630 },
        { 2480, 3508, 2, 2, 6, 791, 1120 }, { 2000, 300, 1, 4, 4, 2000, 300 },  { 300, 2000, 4, 1, 8, 300, 2000 },
        { 1121, 1120, 2, 2, 6, 1120, 1119 }, { 4000, 1000, 1, 4, 4, 2240, 560 }, { 1000, 3000, 3, 1, 7, 560, 1680 },
        { 9999, 1, 1, 4, 4, 2240, 1 },
    };
    rv_config config = published(560);
    for (size_t i = 0; i < sizeof table / sizeof *table; i++) {
        const int32_t *t = table[i];
        rv_canvas c = rv_canvas_choose((uint32_t)t[0], (uint32_t)t[1], &config.vision, 4);
        assert_memory_equal(((int32_t[]){ c.rows, c.cols, c.aspect_ratio_id, c.width, c.height }), t + 2, 5 * sizeof *t);
    }
}

/* ---- resize ---------------------------------------------------------------------------- */

/* make_images.py: hashed(); seed 0 is its field of extremes. */
static uint8_t *source_of(uint32_t width, uint32_t height, uint32_t seed) {
    uint8_t *rgb = malloc((size_t)width * height * 3);           /* exact: the sanitizer sees a read past the end */
    assert_non_null(rgb);
    for (uint32_t i = 0; i < width * height * 3; i++) {
        uint32_t n = (i + seed * 0x9e3779b9u) * 2654435761u, pixel = i / 3;
        rgb[i] = seed ? (uint8_t)((n ^ n >> 15) * 2246822519u >> 24)
                      : (uint8_t)((pixel % width / 3 + pixel / width / 2) % 2 * 255);
    }
    return rgb;
}

static void resize_as_golden(const char *line) {
    unsigned w, h, seed, nw, nh, crc;
    char how[8];
    assert_int_equal(sscanf(line, "%u %u %u %u %u %7s %x", &w, &h, &seed, &nw, &nh, how, &crc), 7);
    rv_error err = { 0 };
    uint8_t *rgb = source_of(w, h, seed), *out = malloc((size_t)nw * nh * 3);
    expect_ok(rv_resize_rgb(rgb, w, h, out, nw, nh, strcmp(how, "tv") ? RV_RESIZE_PIL : RV_RESIZE_TV, &err), &err);
    uint32_t got = crc_of(out, (size_t)nw * nh * 3);
    if (got != crc) fail_msg("crc %08x, expected %s", got, line);
    free(rgb);
    free(out);
}

static void resizing_equals_pillow_and_torchvision(void **state) {
    (void)state;
    assert_in_range(lines_of("resize.txt", resize_as_golden), 80, 1000);
}

static rv_status resize_plain(const uint8_t *rgb, uint32_t w, uint32_t h, uint8_t *out, uint32_t nw, uint32_t nh, rv_error *err);

static void every_kernel_gives_the_same_bytes(void **state) {
    (void)state;
    if (rv_resize_fastest() == &rv_resize_plain) {
        print_message("this CPU has only the plain kernels: nothing to compare\n");
        skip();
    }
    uint64_t seed = 5;
    for (int round = 0; round < 60; round++) {
        uint32_t v[4];
        for (int i = 0; i < 4; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            v[i] = (uint32_t)(seed >> 33) % (i < 2 ? 300 : 130) + 1;
        }
        rv_error err = { 0 };
        uint8_t *rgb = source_of(v[0], v[1], (uint32_t)round + 1);
        size_t n = (size_t)v[2] * v[3] * 3;
        uint8_t *fast = malloc(n), *plain = malloc(n);
        expect_ok(rv_resize_rgb(rgb, v[0], v[1], fast, v[2], v[3], RV_RESIZE_PIL, &err), &err);
        expect_ok(resize_plain(rgb, v[0], v[1], plain, v[2], v[3], &err), &err);
        assert_memory_equal(fast, plain, n);
        free(rgb);
        free(fast);
        free(plain);
    }
}

typedef struct rows { uint8_t *out; size_t bytes; } rows;
static void keep_row(void *user, uint32_t y, const uint8_t *row) {
    rows *r = user;
    memcpy(r->out + y * r->bytes, row, r->bytes);
}
static rv_status resize_plain(const uint8_t *rgb, uint32_t w, uint32_t h, uint8_t *out, uint32_t nw, uint32_t nh, rv_error *err) {
    rows r = { out, (size_t)nw * 3 };
    return rv_resize_rows_with(&rv_resize_plain, rgb, w, h, nw, nh, RV_RESIZE_PIL, keep_row, &r, err);
}

static void a_resize_without_sense_is_an_error(void **state) {
    (void)state;
    uint8_t rgb[3] = { 0 }, out[3];
    rv_error err = { 0 };
    expect_error(rv_resize_rgb(rgb, 1, 1, out, 0, 1, RV_RESIZE_PIL, &err), &err, RV_ERR_ARGUMENT, "1 to 65500");
    expect_error(rv_resize_rgb(rgb, 1, 65501, out, 1, 1, RV_RESIZE_PIL, &err), &err, RV_ERR_ARGUMENT, "1 to 65500");
    expect_error(rv_resize_rgb(rgb, 1, 1, out, 1, 1, 7, &err), &err, RV_ERR_ARGUMENT, "unknown arithmetic 7");
    expect_error(rv_resize_rgb(rgb, 1, 1, NULL, 1, 1, RV_RESIZE_PIL, &err), &err, RV_ERR_ARGUMENT, "NULL");
}

/* ---- the whole way --------------------------------------------------------------------- */

/* make_images.py: synthetic(), the pictures of the golden img.npz. */
static rv_pixels synthetic(uint32_t width, uint32_t height) {
    rv_pixels p = { .rgb = malloc((size_t)width * height * 3), .width = width, .height = height };
    assert_non_null(p.rgb);
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++)
            for (uint32_t c = 0; c < 3; c++)
                p.rgb[((size_t)y * width + x) * 3 + c] =
                    (uint8_t)(7 * x + 13 * y + x * y % 31 + 29 * c + 5 * (x / 37) * (y / 23));
    return p;
}

static void process_as_hf(const char *line) {
    unsigned w, h, n, id, tiles_crc, values_crc;
    char how[8];
    assert_int_equal(sscanf(line, "%u %u %7s %u %u %x %x", &w, &h, how, &n, &id, &tiles_crc, &values_crc), 7);
    rv_error err = { 0 };
    rv_config config = published(560);
    rv_pixels p = synthetic(w, h);
    rv_canvas c = rv_canvas_choose(w, h, &config.vision, 4);
    assert_int_equal(c.rows * c.cols, n);
    assert_int_equal(c.aspect_ratio_id, id);
    size_t samples = (size_t)n * 3 * 560 * 560;
    uint8_t *tiles = malloc(samples);
    bool pil = strcmp(how, "tv") != 0;
    expect_ok(rv_image_cut(&p, &c, 560, pil ? RV_RESIZE_PIL : RV_RESIZE_TV, tiles, &err), &err);
    if (crc_of(tiles, samples) != tiles_crc) fail_msg("tiles: crc %08x, expected %s", crc_of(tiles, samples), line);
    if (pil) {                   /* the torchvision processor folds the two scales into one: last bit differs */
        float *values = malloc(samples * sizeof *values);
        rv_image_normalise(tiles, n, 560, &config.preprocess, values);
        uint32_t crc = crc_of(values, samples * sizeof *values);
        if (crc != values_crc) fail_msg("values: crc %08x, expected %s", crc, line);
        free(values);
    }
    free(tiles);
    rv_pixels_free(&p);
}

static void tiles_and_values_are_those_of_the_hf_processors(void **state) {
    (void)state;
    assert_in_range(lines_of("process.txt", process_as_hf), 16, 100);
}

static void a_canvas_too_small_for_its_image_is_an_error(void **state) {
    (void)state;
    rv_error err = { 0 };
    uint8_t out[3 * 28 * 28];
    rv_pixels p = synthetic(28, 28);
    rv_canvas wide = { 1, 1, 1, 29, 28 }, none = { 0, 1, 1, 28, 28 };
    expect_error(rv_image_cut(&p, &wide, 28, RV_RESIZE_PIL, out, &err), &err, RV_ERR_ARGUMENT, "do not fit");
    expect_error(rv_image_cut(&p, &none, 28, RV_RESIZE_PIL, out, &err), &err, RV_ERR_ARGUMENT, "do not fit");
    rv_pixels_free(&p);
}

static void extreme_shapes_become_tiles(void **state) {
    (void)state;
    static const uint32_t sizes[][2] = { { 1, 1 }, { 65500, 1 }, { 1, 65500 }, { 30000, 100 }, { 100, 30000 } };
    rv_config config = published(560);
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int32_t most = 1; most <= 4; most *= 2) {
            rv_error err = { 0 };
            rv_pixels p = synthetic(sizes[i][0], sizes[i][1]);
            rv_canvas c = rv_canvas_choose(p.width, p.height, &config.vision, most);
            size_t samples = (size_t)c.rows * (size_t)c.cols * 3 * 560 * 560;
            uint8_t *tiles = malloc(samples);
            assert_in_range(c.rows * c.cols, 1, most);
            expect_ok(rv_image_cut(&p, &c, 560, RV_RESIZE_PIL, tiles, &err), &err);
            assert_int_equal(tiles[2 * 560 * 560] >= 50, 1);     /* blue begins at 58 in every one */
            free(tiles);
            rv_pixels_free(&p);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(canvases_are_those_of_the_specification),
        cmocka_unit_test(canvases_are_those_of_hugging_face),
        cmocka_unit_test(resizing_equals_pillow_and_torchvision),
        cmocka_unit_test(every_kernel_gives_the_same_bytes),
        cmocka_unit_test(a_resize_without_sense_is_an_error),
        cmocka_unit_test(tiles_and_values_are_those_of_the_hf_processors),
        cmocka_unit_test(a_canvas_too_small_for_its_image_is_an_error),
        cmocka_unit_test(extreme_shapes_become_tiles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
