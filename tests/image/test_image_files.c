/* Every kind of picture file gives the pixels that Pillow and the processor's convert_to_rgb give. */
#include "tests/image/pictures.h"

static void decodes_as_pillow(const char *line) {
    char name[128], flags[8], format[16];
    unsigned width, height, orientation, crc;
    assert_int_equal(sscanf(line, "%127s %7s %u %u %u %15s %x", name, flags, &width, &height, &orientation, format, &crc), 7);
    size_t bytes;
    uint8_t *file = picture_read(name, &bytes);
    rv_error err = { 0 };
    rv_pixels p = { 0 }, header = { 0 };
    bool ignore = strchr(flags, 'e') != NULL;
    rv_status st = rv_image_decode(file, bytes, ignore, &p, &err);
    if (st) fail_msg("%s: %s", name, err.message);
    if (p.width != width || p.height != height || p.orientation != orientation || strcmp(p.format, format) ||
        crc_of(p.rgb, (size_t)width * height * 3) != crc)
        fail_msg("%s: %s %ux%u orientation %u crc %08x, expected %s", name, p.format, p.width, p.height, p.orientation,
                 crc_of(p.rgb, (size_t)p.width * p.height * 3), line);
    expect_ok(rv_image_probe(file, bytes, ignore, &header, &err), &err);
    assert_null(header.rgb);
    assert_int_equal(header.width, width);
    assert_int_equal(header.height, height);
    assert_int_equal(header.orientation, orientation);
    assert_string_equal(header.format, format);
    rv_pixels_free(&p);
    free(file);
}

static void every_kind_of_file_decodes_as_in_pillow(void **state) {
    (void)state;
    assert_in_range(lines_of("files.txt", decodes_as_pillow), 96, 1000);
}

static void bytes_behind_the_end_of_a_picture_are_ignored(void **state) {
    (void)state;
    static const char *const names[] = { "rgb.png", "rgb_420.jpg", "palette.gif", "rgb.ppm" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        size_t bytes;
        rv_error err = { 0 };
        rv_pixels a = { 0 }, b = { 0 };
        uint8_t *file = picture_read(names[i], &bytes), *longer = calloc(1, bytes + 100);
        memcpy(longer, file, bytes);
        memset(longer + bytes, 0xa5, 100);
        expect_ok(rv_image_decode(file, bytes, false, &a, &err), &err);
        expect_ok(rv_image_decode(longer, bytes + 100, false, &b, &err), &err);
        assert_memory_equal(a.rgb, b.rgb, (size_t)a.width * a.height * 3);
        rv_pixels_free(&a);
        rv_pixels_free(&b);
        free(file);
        free(longer);
    }
}

static void an_empty_file_is_an_error(void **state) {
    (void)state;
    expect_refused("", 0, RV_ERR_FORMAT, "empty (0 bytes)");
    expect_refused(NULL, 0, RV_ERR_FORMAT, "empty (0 bytes)");
    expect_refused(NULL, 5, RV_ERR_ARGUMENT, "NULL");
}

static void a_text_file_is_named_as_text(void **state) {
    (void)state;
    expect_refused("Dear sir,\nplease find", 21, RV_ERR_UNSUPPORTED, "looks like text");
    expect_refused("BMW is a car, not a bitmap", 26, RV_ERR_UNSUPPORTED, "looks like text");
    expect_refused("P5X", 3, RV_ERR_UNSUPPORTED, "looks like text");
    expect_refused("x", 1, RV_ERR_UNSUPPORTED, "(1 bytes, beginning 78 )");
    expect_refused("\0\0\0", 3, RV_ERR_UNSUPPORTED, "unknown kind of file (3 bytes");      /* a NUL is in no text */
}

static void an_unknown_kind_of_file_shows_its_first_bytes(void **state) {
    (void)state;
    expect_refused("\x7f""ELF\2\1\1\0\0\0", 10, RV_ERR_UNSUPPORTED, "beginning 7f 45 4c 46 02 01 01 00 ");
}

static void formats_that_are_not_read_are_named_with_what_to_do(void **state) {
    (void)state;
    static const struct { const char *magic; size_t bytes; const char *part; } files[] = {
        { "RIFF\x10\0\0\0WEBPVP8 ", 16, "WebP is not read; convert it to PNG or JPEG first" },
        { "\0\0\0\x18""ftypheic\0\0\0\0", 16, "HEIC is not read; convert" },
        { "\0\0\0\x18""ftypheix\0\0\0\0", 16, "HEIC is not read; convert" },
        { "\0\0\0\x18""ftypmif1\0\0\0\0", 16, "HEIC is not read; convert" },
        { "\0\0\0\x18""ftypavif\0\0\0\0", 16, "AVIF is not read; convert" },
        { "II*\0\x08\0\0\0", 8, "TIFF is not read; convert" },
        { "MM\0*\0\0\0\x08", 8, "TIFF is not read; convert" },
        { "%PDF-1.7\n", 9, "PDF is not read; render a page first, e.g. pdftoppm" },
        { "8BPS\0\1", 6, "Photoshop is not read; convert" },
        { "\xff\x0a\0\0", 4, "JPEG XL is not read; convert" },
        { "P3\n2 2\n255\n", 11, "text PNM is not read; convert" },
    };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++)
        expect_refused(files[i].magic, files[i].bytes, RV_ERR_UNSUPPORTED, files[i].part);
}

static void freeing_no_pixels_is_fine(void **state) {
    (void)state;
    rv_pixels p = { 0 };
    rv_pixels_free(NULL);
    rv_pixels_free(&p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_kind_of_file_decodes_as_in_pillow),
        cmocka_unit_test(bytes_behind_the_end_of_a_picture_are_ignored),
        cmocka_unit_test(an_empty_file_is_an_error),
        cmocka_unit_test(a_text_file_is_named_as_text),
        cmocka_unit_test(an_unknown_kind_of_file_shows_its_first_bytes),
        cmocka_unit_test(formats_that_are_not_read_are_named_with_what_to_do),
        cmocka_unit_test(freeing_no_pixels_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
