/* rv_inspect_image and the reading of rv_image: files, bare pixels, and wrong arguments. */
#include "tests/image/pictures.h"

static rv_image_info inspect(const rv_image *image) {
    rv_error err = { 0 };
    rv_image_info info = { .size = sizeof info };
    expect_ok(rv_inspect_image(image, NULL, &info, &err), &err);
    assert_int_equal(info.size, sizeof info);
    return info;
}

static void refuses(const rv_image *image, rv_status code, const char *part) {
    rv_error err = { 0 };
    rv_image_info info = { .size = sizeof info };
    expect_error(rv_inspect_image(image, NULL, &info, &err), &err, code, part);
}

static void a_photo_on_its_side_is_inspected_upright(void **state) {
    (void)state;
    size_t bytes;
    uint8_t *file = picture_read("exif6.jpg", &bytes);
    rv_image image = { .size = sizeof image, .data = file, .bytes = bytes };
    rv_image_info info = inspect(&image);
    assert_string_equal(info.format, "jpeg");
    assert_int_equal(info.width, 27);
    assert_int_equal(info.height, 41);
    assert_int_equal(info.orientation, 6);
    assert_int_equal(info.tile, 560);
    assert_int_equal(info.rows * info.cols, 1);
    assert_int_equal(info.resized_height, 560);
    assert_int_equal(info.resized_width, 368);
    image.ignore_exif = 1;
    info = inspect(&image);
    assert_int_equal(info.width, 41);
    assert_int_equal(info.orientation, 1);
    free(file);
}

static void bare_pixels_are_inspected_without_being_read(void **state) {
    (void)state;
    uint8_t one;
    rv_image image = { .size = sizeof image, .data = &one, .bytes = (size_t)1920 * 1080 * 3, .width = 1920, .height = 1080 };
    rv_image_info info = inspect(&image);
    assert_string_equal(info.format, "pixels");
    assert_int_equal(info.aspect_ratio_id, 6);
    assert_int_equal(info.resized_width, 1120);
    assert_int_equal(info.resized_height, 630);
    image.max_tiles = 1;
    info = inspect(&image);
    assert_int_equal(info.aspect_ratio_id, 1);
    assert_int_equal(info.resized_height, 315);
}

static void bare_pixels_are_copied_row_by_row(void **state) {
    (void)state;
    uint8_t data[2 * 8 + 6];
    for (size_t i = 0; i < sizeof data; i++) data[i] = (uint8_t)i;
    rv_error err = { 0 };
    rv_pixels p = { 0 };
    int32_t most;
    rv_image image = { .size = sizeof image, .data = data, .bytes = sizeof data, .width = 2, .height = 3, .stride = 8 };
    expect_ok(rv_image_read(&image, false, &p, &most, &err), &err);
    static const uint8_t expected[] = { 0, 1, 2, 3, 4, 5, 8, 9, 10, 11, 12, 13, 16, 17, 18, 19, 20, 21 };
    assert_memory_equal(p.rgb, expected, sizeof expected);
    rv_pixels_free(&p);
    image.bytes--;
    expect_error(rv_image_read(&image, false, &p, &most, &err), &err, RV_ERR_ARGUMENT, "rv_image.bytes: 21 are too few");
    image.stride = SIZE_MAX;
    expect_error(rv_image_read(&image, false, &p, &most, &err), &err, RV_ERR_ARGUMENT, "rv_image.bytes");
    image.stride = 5;
    expect_error(rv_image_read(&image, false, &p, &most, &err), &err, RV_ERR_ARGUMENT, "rv_image.stride");
}

static void wrong_arguments_are_errors(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_image_info info = { .size = sizeof info };
    rv_image image = { .size = sizeof image, .data = "x", .bytes = 1 };
    expect_error(rv_inspect_image(NULL, NULL, &info, &err), &err, RV_ERR_ARGUMENT, "NULL");
    expect_error(rv_inspect_image(&image, NULL, NULL, &err), &err, RV_ERR_ARGUMENT, "NULL");
    refuses(&image, RV_ERR_UNSUPPORTED, "not a picture");
    image.data = NULL;
    refuses(&image, RV_ERR_ARGUMENT, "rv_image.data: is NULL");
    image = (rv_image){ .size = sizeof image, .data = "x", .bytes = 1, .max_tiles = 3 };
    refuses(&image, RV_ERR_ARGUMENT, "must be 1, 2 or 4");
    image.max_tiles = 0;
    image.width = 5;
    refuses(&image, RV_ERR_ARGUMENT, "5x0 pixels: neither may be 0, or both");
    image.width = 0;
    image.height = 8;
    refuses(&image, RV_ERR_ARGUMENT, "0x8 pixels: neither may be 0, or both");
    image.width = 70000;
    refuses(&image, RV_ERR_TOO_LONG, "70000x8 pixels");
    image = (rv_image){ .data = "x", .bytes = 1 };
    refuses(&image, RV_ERR_ARGUMENT, "rv_image.size");
}

static void a_missing_model_folder_is_an_error(void **state) {
    (void)state;
    size_t bytes;
    uint8_t *file = picture_read("rgb.png", &bytes);
    rv_error err = { 0 };
    rv_image_info info = { .size = sizeof info };
    rv_image image = { .size = sizeof image, .data = file, .bytes = bytes };
    expect_error(rv_inspect_image(&image, "/nowhere", &info, &err), &err, RV_ERR_IO, "/nowhere");
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_photo_on_its_side_is_inspected_upright),
        cmocka_unit_test(bare_pixels_are_inspected_without_being_read),
        cmocka_unit_test(bare_pixels_are_copied_row_by_row),
        cmocka_unit_test(wrong_arguments_are_errors),
        cmocka_unit_test(a_missing_model_folder_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
