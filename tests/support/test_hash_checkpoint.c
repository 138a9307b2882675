/* The C and Python generators of hashed weights write the same bits, and what C writes loads. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <cmocka.h>
#include <jansson.h>

#include "tests/support/hash_checkpoint.h"

static const char *const FOLDERS[] = { "g448", "g448_bf16", "g448_f16", "g560" };
enum { N_FOLDERS = sizeof FOLDERS / sizeof *FOLDERS };

/* zlib's CRC-32. */
static uint32_t crc32_of(const void *data, uint64_t bytes) {
    uint32_t table[256], crc = UINT32_MAX;
    const uint8_t *p = data;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] & 1u ? table[i] >> 1 ^ 0xedb88320u : table[i] >> 1;
    }
    for (uint64_t i = 0; i < bytes; i++) crc = table[(crc ^ p[i]) & 0xffu] ^ crc >> 8;
    return ~crc;
}

static json_t *sums_load(const char *golden) {
    char path[512];
    json_error_t why;
    snprintf(path, sizeof path, "%s/checksums.json", golden);
    json_t *sums = json_load_file(path, 0, &why);
    if (!sums) fail_msg("%s: %s", path, why.text);
    return sums;
}

static void assert_sum(json_t *sums, const char *folder, const char *name, const void *data, uint64_t bytes) {
    const char *wanted = json_string_value(json_object_get(sums, name));
    char is[16];
    if (!wanted) fail_msg("%s: Python has no tensor %s", folder, name);
    snprintf(is, sizeof is, "%08x", crc32_of(data, bytes));
    if (strcmp(is, wanted)) fail_msg("%s: %s: crc32 is %s, Python's is %s", folder, name, is, wanted);
}

static void written_checkpoints_hold_the_bits_that_python_wrote(void **state) {
    (void)state;
    for (size_t i = 0; i < N_FOLDERS; i++) {
        char golden[512], out[512];
        rv_error err = { 0 };
        rv_checkpoint *c = NULL;
        hash_spec spec;
        snprintf(golden, sizeof golden, "%s/golden/%s", RV_TEST_DATA, FOLDERS[i]);
        snprintf(out, sizeof out, "%s/hash_%s", RV_TEST_TMP, FOLDERS[i]);
        json_t *sums = sums_load(golden);
        if (hash_checkpoint_write(golden, out, &err)) fail_msg("%s", err.message);
        if (hash_spec_load(golden, &spec, &err)) fail_msg("%s", err.message);
        if (rv_checkpoint_open(out, &c, &err)) fail_msg("%s", err.message);
        assert_int_equal(rv_checkpoint_layout(c), spec.layout);
        assert_int_equal(rv_checkpoint_files(c), spec.shards);
        size_t pixels = 0;
        const char *key;
        json_t *value;
        json_object_foreach(sums, key, value) pixels += !strncmp(key, "pixels.", 7);
        assert_int_equal(rv_checkpoint_count(c) + pixels, json_object_size(sums));
        for (uint32_t k = 0; k < rv_checkpoint_count(c); k++) {
            const rv_tensor *t = rv_checkpoint_at(c, k);
            assert_int_equal(t->type, spec.type);
            assert_sum(sums, FOLDERS[i], t->name, t->data, t->bytes);
        }
        rv_checkpoint_close(c);
        json_decref(sums);
    }
}

static void written_checkpoints_have_what_the_config_asks_for(void **state) {
    (void)state;
    rv_config *config = malloc(sizeof *config);
    assert_non_null(config);
    for (size_t i = 0; i < N_FOLDERS; i++) {
        char golden[512], out[512];
        rv_error err = { 0 };
        rv_checkpoint *c = NULL;
        hash_spec spec;
        snprintf(golden, sizeof golden, "%s/golden/%s", RV_TEST_DATA, FOLDERS[i]);
        snprintf(out, sizeof out, "%s/hash_%s", RV_TEST_TMP, FOLDERS[i]);
        if (hash_spec_load(golden, &spec, &err) || hash_checkpoint_write(golden, out, &err) ||
            rv_config_load(out, config, &err) || rv_checkpoint_open(out, &c, &err) || rv_weights_check(config, c, &err))
            fail_msg("%s", err.message);
        assert_int_equal(rv_weights_pads_equal(config, c), spec.zero_unused);
        rv_checkpoint_close(c);
    }
    free(config);
}

static void image_pixels_are_those_that_python_drew(void **state) {
    (void)state;
    static const struct { const char *folder; int32_t image, tiles, tile; } images[] = {
        { "g448", 0, 4, 448 }, { "g448", 1, 1, 448 }, { "g448_bf16", 0, 1, 448 },
        { "g448_f16", 0, 3, 448 }, { "g560", 0, 2, 560 }, { "g560", 1, 1, 560 } };
    for (size_t i = 0; i < sizeof images / sizeof *images; i++) {
        char golden[512], name[32];
        rv_error err = { 0 };
        hash_spec spec;
        size_t bytes = (size_t)images[i].tiles * RV_CHANNELS * (size_t)images[i].tile * (size_t)images[i].tile;
        uint8_t *pixels = malloc(bytes);
        assert_non_null(pixels);
        snprintf(golden, sizeof golden, "%s/golden/%s", RV_TEST_DATA, images[i].folder);
        snprintf(name, sizeof name, "pixels.%d", images[i].image);
        json_t *sums = sums_load(golden);
        if (hash_spec_load(golden, &spec, &err)) fail_msg("%s", err.message);
        hash_image(&spec, images[i].image, images[i].tiles, images[i].tile, pixels);
        assert_sum(sums, images[i].folder, name, pixels, bytes);
        json_decref(sums);
        free(pixels);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(written_checkpoints_hold_the_bits_that_python_wrote),
        cmocka_unit_test(written_checkpoints_have_what_the_config_asks_for),
        cmocka_unit_test(image_pixels_are_those_that_python_drew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
