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
    static const size_t bytes[] = { 30, 12, 17, 8 };
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

/* ---- what is a PDF, what is text ---- */

static void a_pdf_may_begin_late(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    size_t bytes;
    char *pdf = file_read(pdf_file("late.pdf", 1, ""), &bytes), *mail = calloc(bytes + 2000, 1);
    assert_non_null(mail);
    memset(mail, '\n', 900);
    memcpy(mail + 900, pdf, bytes);
    prints("late.pdf", "extract", QUICK, "--dpi", "36", "--format", "jsonl", file_write("late.pdf", mail, bytes + 900));
    memset(mail, '\n', 1100);
    memcpy(mail + 1100, pdf, bytes);
    refuses(5, "late.pdf: image: not a picture", "extract", QUICK, file_write("late.pdf", mail, bytes + 1100));
    free(mail);
    free(pdf);
    prints("remark.ppm", "extract", QUICK, "--format", "jsonl", file_write("remark.ppm", "P6 # %PDF-1.4\n1 1 255\nabc", 25));
}

static void validate_wants_text(void **state) {
    (void)state;
    refuses(4, "r7001.png: no text .a NUL byte at offset 8.: .*rvengine extract reads images", "validate", "--schema", "receipt", SMALL);
}

/* ---- what is written of several pages ---- */

static json_t *json_of(const outcome *o) {
    json_error_t why;
    json_t *root = json_loadb(o->out, o->out_bytes, 0, &why);
    if (!root) fail_msg("line %d: %s", why.line, why.text);
    return root;
}

static const char *file_of(const json_t *record) { return json_string_value(json_object_get(json_object_get(record, "document"), "file")); }

static void several_pages_are_an_array_and_one_is_an_object(void **state) {
    (void)state;
    for (int n = 1; n <= 3; n++) {
        const char *args[] = { "extract", QUICK, SMALL, n > 1 ? SMALL : NULL, n > 2 ? SMALL : NULL, NULL };
        outcome got = run_with(NULL, args);
        assert_int_equal(got.code, 0);
        json_t *root = json_of(&got);
        assert_int_equal(json_is_array(root), n > 1);
        assert_int_equal(json_array_size(root), n > 1 ? n : 0);
        assert_string_equal(file_of(n > 1 ? json_array_get(root, (size_t)n - 1) : root), SMALL);
        json_decref(root);
        outcome_free(&got);
    }
}

static void pages_that_were_read_before_an_error_are_written(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    char damaged[4096], output[4096];
    size_t bytes;
    snprintf(damaged, sizeof damaged, "%s", file_write("damaged.pdf", "%PDF-1.4\nnothing here\n", 22));
    snprintf(output, sizeof output, "%s", scratch("before.json"));
    outcome got = run_with(NULL, ARGS("extract", QUICK, SMALL, SMALL, damaged, SMALL));
    assert_int_equal(got.code, 4);
    assert_true(matches(got.err, "damaged.pdf: the PDF cannot be drawn"));
    json_t *root = json_of(&got);
    assert_int_equal(json_array_size(root), 2);
    json_decref(root);
    outcome_free(&got);
    got = run_with(NULL, ARGS("extract", QUICK, "--output", output, SMALL, damaged));
    assert_int_equal(got.code, 4);
    outcome_free(&got);
    char *text = file_read(output, &bytes);
    assert_non_null(strstr(text, "\"INVOICE\""));
    free(text);
    got = run_with(NULL, ARGS("extract", QUICK, "--format", "html", SMALL, damaged));
    assert_true(matches(got.out, "</article>.*</html>\n$"));
    outcome_free(&got);
    refuses(4, "damaged.pdf: the PDF", "extract", QUICK, damaged, SMALL);
    got = run_with(NULL, ARGS("extract", QUICK, "--output", "/dev/full", SMALL, damaged));      /* both are said; the code is the first one's */
    assert_int_equal(got.code, 4);
    assert_true(matches(got.err, "/dev/full: cannot write: No space left") && matches(got.err, "damaged.pdf: the PDF"));
    outcome_free(&got);
}

/* ---- what is wrong is said before the model is loaded ---- */

static void refused_unloaded(int line, int code, const char *regex, const char *const *args) {
    outcome o = run_with(NULL, args);
    if (o.code != code || !matches(o.err, regex) || o.out_bytes || matches(o.err, "loaded"))
        fail_msg("line %d: exit code %d, stderr: %.500s, stdout: %.100s", line, o.code, o.err, o.out);
    outcome_free(&o);
}
#define refuses_unloaded(code, regex, ...) refused_unloaded(__LINE__, code, regex, ARGS(__VA_ARGS__, "--verbose"))

static void files_are_looked_at_before_the_model_is_loaded(void **state) {
    (void)state;
    char text[4096], picture[4096];
    snprintf(text, sizeof text, "%s", file_write("text.png", "no image", 8));
    snprintf(picture, sizeof picture, "%s", RV_TEST_DATA "/images/rgb.ppm");
    refuses_unloaded(3, "nope.png: cannot open: No such file", "extract", QUICK, SMALL, "nope.png");
    refuses_unloaded(5, "text.png: image: not a picture", "extract", QUICK, SMALL, text);
    refuses_unloaded(3, "nope.png: cannot open: No such file", "classify", "--model", MODEL, "--backend", "cpu", SMALL, "nope.png");
    refuses_unloaded(2, "extract: stdin .-. can be read only once", "extract", QUICK, "-", "-");
    refuses_unloaded(2, "classify: stdin .-. can be read only once", "classify", "--model", MODEL, "--backend", "cpu", "-", SMALL, "-");
    refuses_unloaded(2, "run: --context: must be at most", "run", "-m", MODEL, "-p", "x", "--context", "300000");
    prints("A FILE that is - is read from stdin", "help", "extract");
    outcome o = run_with(NULL, ARGS("extract", QUICK, "--verbose", picture));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "loaded"));                   /* what the tests above look for */
    outcome_free(&o);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_report_shows_the_page_of_a_pdf),
        cmocka_unit_test(a_report_shows_scans_in_pnm),
        cmocka_unit_test(a_pdf_may_begin_late),
        cmocka_unit_test(validate_wants_text),
        cmocka_unit_test(several_pages_are_an_array_and_one_is_an_object),
        cmocka_unit_test(pages_that_were_read_before_an_error_are_written),
        cmocka_unit_test(files_are_looked_at_before_the_model_is_loaded),
    };
    snprintf(schema, sizeof schema, "%s", quick_schema());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
