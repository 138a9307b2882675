/* extract and classify as a user sees them: which files are read, and what is written of them. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "loader/image_file.h"
#include "tests/cli/program.h"

#define SMALL RV_TEST_DEMO "/receipts/r7001.png"      /* one tile */
#define QUICK "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu"

static char schema[4096];

/* ---- the page in a report ---- */

static size_t base64(const char *text, unsigned char *out) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t n = 0;
    unsigned word = 0, bits = 0;
    for (const char *at; *text && (at = strchr(digits, *text)); text++) {
        word = word << 6 | (unsigned)(at - digits);
        if ((bits += 6) >= 8) out[n++] = (unsigned char)(word >> (bits -= 8));
    }
    return n;
}

/* The image that a report carries, decoded. */
static rv_pixels image_of(const char *html) {
    static const char mark[] = "src=\"data:image/png;base64,";
    const char *at = strstr(html, mark);
    rv_pixels pixels = { 0 };
    rv_error err;
    assert_non_null(at);
    unsigned char *png = malloc(strlen(at));
    assert_non_null(png);
    size_t bytes = base64(at + strlen(mark), png);
    if (rv_image_decode(png, bytes, false, &pixels, &err)) fail_msg("%s", err.message);
    free(png);
    return pixels;
}

static void a_report_shows_the_page_of_a_pdf(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    outcome got = run_with(NULL, ARGS("extract", QUICK, "--dpi", "72", "--format", "html", pdf_file("page.pdf", 1, "")));
    assert_int_equal(got.code, 0);
    rv_pixels page = image_of(got.out);
    assert_int_equal(page.width, 100);
    assert_int_equal(page.height, 100);
    for (int i = 0; i < 30000; i++) assert_int_equal(page.rgb[i], 255);
    rv_pixels_free(&page);
    outcome_free(&got);
}

static void a_report_shows_scans_in_pnm(void **state) {
    (void)state;
    static const char *const scans[] = { "P6\n# red, green\n2 1\n255\n\xff\0\0\0\xff\0", "P5 2 1 15\n\x0f\0", "P5\n2 1\n65535\n\xff\xff\0\0", "P4\n2 1\n\x40" };
    static const size_t bytes[] = { 32, 12, 19, 8 };
    static const unsigned char want[][6] = { { 255, 0, 0, 0, 255, 0 }, { 255, 255, 255, 0, 0, 0 }, { 255, 255, 255, 0, 0, 0 }, { 255, 255, 255, 0, 0, 0 } };
    char answer[4096];
    snprintf(answer, sizeof answer, "%s", file_write("answer.txt", "DOCUMENT_TYPE: RECEIPT\n", 23));
    for (size_t i = 0; i < 4; i++) {
        const char *scan = file_write("scan.pnm", scans[i], bytes[i]);
        outcome got = run_with(NULL, ARGS("validate", "--schema", schema, "--format", "html", "--image", scan, answer));
        assert_int_equal(got.code, 0);
        rv_pixels page = image_of(got.out);
        assert_int_equal(page.width, 2);
        assert_int_equal(page.height, 1);
        assert_memory_equal(page.rgb, want[i], 6);
        rv_pixels_free(&page);
        outcome_free(&got);
    }
    prints("src=\"data:image/png;base64,", "extract", QUICK, "--format", "html", RV_TEST_DATA "/images/rgb.ppm");
    refuses(4, "scan.pnm: PNM: the file is damaged", "validate", "--schema", schema, "--format", "html", "--image", file_write("scan.pnm", scans[0], 20), answer);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_shows_the_page_of_a_pdf),
        cmocka_unit_test(a_report_shows_scans_in_pnm),
    };
    snprintf(schema, sizeof schema, "%s", quick_schema());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
