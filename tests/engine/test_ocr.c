/* test_ocr.c - pages that Tesseract alone does not read: faded on a dark floor, very large, very small.  Exit code 77: no Tesseract here. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "engine/base/file.h"
#include "engine/image.h"
#include "engine/ocr.h"
#include "engine/reader.h"

enum { FLOOR = 12 };

static rv_error err;

static rv_pixels receipt(const char *name) {
    char path[512];
    rv_pixels p;
    char *data;
    size_t bytes;
    snprintf(path, sizeof path, RV_TEST_DEMO "/receipts/%s", name);
    if (rv_file_read(path, 1 << 24, &data, &bytes, &err) || rv_image_decode(data, bytes, false, &p, &err)) fail_msg("%s", err.message);
    free(data);
    return p;
}

/* "date, total" as rules read them from the pixels. */
static const char *read_pixels(const rv_pixels *p) {
    static char out[128];
    rv_image image = { .size = sizeof image, .data = p->rgb, .bytes = (size_t)p->width * p->height * 3, .width = p->width, .height = p->height };
    rv_read_options how = { .size = sizeof how, .ocr = RV_OCR_ONLY };
    rv_schema *schema;
    rv_reader *reader;
    rv_record *record;
    if (rv_schema_open("sroie", &schema, &err)) fail_msg("%s", err.message);
    how.schema = schema;
    if (rv_reader_new(NULL, &reader, &err) || rv_read(reader, &image, &how, &record, NULL, &err)) fail_msg("%s", err.message);
    out[0] = 0;
    rv_result r = { .size = sizeof r };
    for (uint32_t i = 0; rv_record_get(record, i, &r, &err) == RV_OK; i++)
        if (!strcmp(r.key, "DATE") || !strcmp(r.key, "TOTAL")) snprintf(out + strlen(out), sizeof out - strlen(out), "%s%s", out[0] ? ", " : "", r.text);
    rv_record_free(record);
    rv_reader_free(reader);
    rv_schema_free(schema);
    return out;
}

/* `share` of the contrast that the receipt has, its right side in the shade. */
static void lay_on_a_dark_floor(rv_pixels *p, float share) {
    const uint32_t width = p->width + 200, height = p->height + 400;
    uint8_t *rgb = malloc((size_t)width * height * 3);
    assert_non_null(rgb);
    memset(rgb, FLOOR, (size_t)width * height * 3);
    for (uint32_t y = 0; y < p->height; y++)
        for (uint32_t i = 0; i < p->width * 3; i++) {
            const float v = 225 - (float)(255 - p->rgb[(size_t)y * p->width * 3 + i]) * share;
            rgb[((size_t)(y + 40) * width + 60) * 3 + i] = (uint8_t)(v * (1 - 0.25f * (float)(i / 3) / (float)p->width));
        }
    free(p->rgb);
    p->rgb = rgb;
    p->width = width;
    p->height = height;
}

static void faded_print_on_a_dark_floor_is_read(void **state) {
    (void)state;
    static const float shares[] = { 1, 0.5f, 0.25f };
    for (size_t i = 0; i < sizeof shares / sizeof *shares; i++) {
        rv_pixels p = receipt("r7000.png");
        lay_on_a_dark_floor(&p, shares[i]);
        assert_string_equal(read_pixels(&p), "16/09/2018, $152.39");
        rv_pixels_free(&p);
    }
}

static void the_size_of_a_scan_does_not_matter(void **state) {
    (void)state;
    static const float times[] = { 0.35f, 0.5f, 1, 3, 8 };
    for (size_t i = 0; i < sizeof times / sizeof *times; i++) {
        rv_pixels p = receipt("r7000.png"), large = { .width = (uint32_t)((float)p.width * times[i]), .height = (uint32_t)((float)p.height * times[i]) };
        large.rgb = malloc((size_t)large.width * large.height * 3);
        assert_non_null(large.rgb);
        assert_int_equal(rv_resize_rgb(p.rgb, p.width, p.height, large.rgb, large.width, large.height, RV_RESIZE_PIL, &err), RV_OK);
        const char *got = read_pixels(&large);
        if (strcmp(got, "16/09/2018, $152.39")) fail_msg("%g times as large: %s", (double)times[i], got);
        rv_pixels_free(&large);
        rv_pixels_free(&p);
    }
}

static const rv_word *word_with(const rv_page *page, const char *text) {
    for (uint32_t i = 0; i < page->n_words; i++)
        if (strstr(page->words[i].text, text)) return &page->words[i];
    fail_msg("%s is not on the page", text);
    return NULL;
}

static bool overlap(const rv_box *a, const rv_box *b) { return a->x < b->x + b->width && b->x < a->x + a->width && a->y < b->y + b->height && b->y < a->y + a->height; }

/* A page as Tesseract read it, and its pixels made ready for a second look, not scaled. */
typedef struct reading { rv_reader *reader; rv_page page; rv_sheet sheet; } reading;

static reading read_page(const rv_pixels *p) {
    reading r = { .sheet = { .shrink = 1 } };
    rv_image image = { .size = sizeof image, .data = p->rgb, .bytes = (size_t)p->width * p->height * 3, .width = p->width, .height = p->height };
    if (rv_reader_new(NULL, &r.reader, &err) || rv_ocr_page(r.reader, &image, &r.page, &err)) fail_msg("%s", err.message);
    if (rv_grey_of(p, 1, &r.sheet.plain, &err) || rv_grey_flatten(&r.sheet.plain, &r.sheet.flat, &err)) fail_msg("%s", err.message);
    return r;
}

static void look_again(reading *r) {
    if (rv_ocr_cells(r->reader->ocr, &r->sheet, &r->page, &err)) fail_msg("%s", err.message);
}

static void reading_free(reading *r) {
    rv_page_free(&r->page);
    rv_grey_free(&r->sheet.plain);
    rv_grey_free(&r->sheet.flat);
    rv_reader_free(r->reader);
}

/* The date's word is exchanged for what a bad reading might have said: as sure as can be, it is outvoted, and the box is where the date stands; a date
 * that the page does not show is not kept, and words without digits are left alone. */
static void what_a_page_was_misread_for_is_read_again_cell_by_cell(void **state) {
    (void)state;
    static const char *const misread[] = { "1b/0g/2018", "15/09/2013", "16/09/2078" };
    for (size_t i = 0; i < sizeof misread / sizeof *misread; i++) {
        rv_pixels p = receipt("r7000.png");
        reading r = read_page(&p);
        rv_word *date = &r.page.words[word_with(&r.page, "16/09/2018") - r.page.words];
        const rv_box was = date->box;
        date->text = misread[i];
        date->confidence = 1;
        look_again(&r);
        assert_true(overlap(&word_with(&r.page, "16/09/2018")->box, &was));
        for (uint32_t k = 0; k < r.page.n_words; k++) assert_string_not_equal(r.page.words[k].text, misread[i]);
        assert_string_equal(word_with(&r.page, "Tabude")->text, "Tabude");
        reading_free(&r);
        rv_pixels_free(&p);
    }
}

/* Of a date where the paper is blank no look says anything: it stays, and nobody is sure of it. */
static void what_no_second_look_confirms_is_unsure(void **state) {
    (void)state;
    rv_pixels p = { .rgb = malloc(400 * 200 * 3), .width = 400, .height = 200 };
    assert_non_null(p.rgb);
    memset(p.rgb, 240, 400 * 200 * 3);
    reading r = read_page(&p);
    assert_int_equal(r.page.n_words, 0);
    assert_int_equal(rv_page_add(&r.page, "16/09/2018", (rv_box){ 40, 50, 150, 20 }, 1, 0, &err), RV_OK);
    assert_int_equal(rv_page_add(&r.page, "Tabude", (rv_box){ 40, 90, 100, 20 }, 1, 1, &err), RV_OK);
    look_again(&r);
    assert_true(word_with(&r.page, "16/09/2018")->confidence < RV_SURE);
    assert_true(word_with(&r.page, "Tabude")->confidence == 1);  /* nobody asked */
    reading_free(&r);
    rv_pixels_free(&p);
}

static void a_page_without_words_has_no_fields(void **state) {
    (void)state;
    static const uint32_t sizes[][2] = { { 3, 3 }, { 300, 300 }, { 4000, 5 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        rv_pixels p = { .rgb = malloc((size_t)sizes[i][0] * sizes[i][1] * 3), .width = sizes[i][0], .height = sizes[i][1] };
        assert_non_null(p.rgb);
        memset(p.rgb, 200, (size_t)p.width * p.height * 3);
        assert_string_equal(read_pixels(&p), "NOT_FOUND, NOT_FOUND");
        rv_pixels_free(&p);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(faded_print_on_a_dark_floor_is_read),
        cmocka_unit_test(the_size_of_a_scan_does_not_matter),
        cmocka_unit_test(what_a_page_was_misread_for_is_read_again_cell_by_cell),
        cmocka_unit_test(what_no_second_look_confirms_is_unsure),
        cmocka_unit_test(a_page_without_words_has_no_fields),
    };
    if (!rv_ocr_version()) {
        puts("SKIPPED: Tesseract is not installed: apt-get install libtesseract5 tesseract-ocr-eng");
        return 77;
    }
    return cmocka_run_group_tests(tests, NULL, NULL);
}
