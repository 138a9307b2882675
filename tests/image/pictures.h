/* pictures.h - the golden pictures of tests/data/images, checksums, and PNG files built by hand. */
#ifndef RV_TESTS_PICTURES_H
#define RV_TESTS_PICTURES_H
#include "tests/support/folder.h"
#include "engine/image.h"

static inline uint32_t crc_of(const void *data, size_t bytes) {
    uint32_t table[256], c = 0xffffffffu;
    for (uint32_t i = 0; i < 256; i++) {
        table[i] = i;
        for (int k = 0; k < 8; k++) table[i] = table[i] >> 1 ^ (0xedb88320u & (0u - (table[i] & 1)));
    }
    for (size_t i = 0; i < bytes; i++) c = table[(c ^ ((const uint8_t *)data)[i]) & 255] ^ c >> 8;
    return ~c;
}

static inline void picture_path(char path[1024], const char *name) { snprintf(path, 1024, "%s/images/%s", RV_TEST_DATA, name); }

/* In a block of exactly its size, so that the sanitizer sees a read past the end. */
static inline uint8_t *picture_read(const char *name, size_t *bytes) {
    char path[1024], *text;
    rv_error err = { 0 };
    picture_path(path, name);
    expect_ok(rv_file_read(path, 1 << 24, &text, bytes, &err), &err);
    uint8_t *exact = malloc(*bytes ? *bytes : 1);
    assert_non_null(exact);
    memcpy(exact, text, *bytes);
    free(text);
    return exact;
}

/* Calls `each` with every line of a list that is not a comment, and counts them. */
static inline size_t lines_of(const char *name, void (*each)(const char *line)) {
    char path[1024], line[512];
    size_t n = 0;
    picture_path(path, name);
    FILE *f = fopen(path, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f))
        if (line[0] != '#') {
            each(line);
            n++;
        }
    fclose(f);
    return n;
}

/* What a decode must answer about broken data: an error with a message, and nothing to free. */
static inline void expect_refused(const void *data, size_t bytes, rv_status code, const char *part) {
    rv_error err = { 0 };
    rv_pixels p = { 0 };
    rv_status st = rv_image_decode(data, bytes, false, &p, &err);
    if (!st) rv_pixels_free(&p);
    expect_error(st, &err, code, part);
    assert_null(p.rgb);
}
#endif
