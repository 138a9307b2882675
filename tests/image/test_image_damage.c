/* Cut, flipped and lying files: an error or the whole picture, never a half one, a crash or a flood of memory. */
#include "tests/image/pictures.h"

#include <sys/resource.h>

#include <jpeglib.h>

static const char *const samples[] = {
    "rgb.png", "rgba_interlaced.png", "palette4_trns.png", "grey1.png", "rgb16.png", "exif6.png", "every_alpha.png",
    "rgb_420.jpg", "progressive_422.jpg", "cmyk.jpg", "grey.jpg", "restart.jpg", "exif6.jpg", "exif6_little.jpg",
    "rgb24.bmp", "rgba32.bmp", "palette4.bmp", "rle8.bmp", "rle4.bmp", "core.bmp",
    "palette.gif", "interlaced.gif", "animated.gif", "part_of_screen.gif", "rgb.ppm", "bits.pbm", "rgb16.ppm",
};
enum { SAMPLES = sizeof samples / sizeof *samples };

static uint8_t *copy_of(const uint8_t *data, size_t bytes) {
    uint8_t *copy = malloc(bytes ? bytes : 1);
    assert_non_null(copy);
    memcpy(copy, data, bytes);
    return copy;
}

/* Every prefix is an error with a message, or the same picture (a cut last row's padding, an end mark that
 * the format allows to be missing). */
static void a_file_cut_anywhere_is_an_error_or_the_whole_picture(void **state) {
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t bytes, whole = 0;
        rv_error err = { 0 };
        rv_pixels full = { 0 };
        uint8_t *file = picture_read(samples[i], &bytes);
        expect_ok(rv_image_decode(file, bytes, false, &full, &err), &err);
        for (size_t n = 0; n < bytes; n += n < 700 || bytes - n < 200 ? 1 : 37) {
            rv_pixels p = { 0 };
            uint8_t *cut = copy_of(file, n);
            memset(&err, 0, sizeof err);
            rv_status st = rv_image_decode(cut, n, false, &p, &err);
            free(cut);
            if (st) {
                assert_int_equal(err.code, st);
                assert_true(strlen(err.message) > 10);
                assert_null(p.rgb);
                continue;
            }
            whole++;
            if (p.width != full.width || p.height != full.height ||
                memcmp(p.rgb, full.rgb, (size_t)full.width * full.height * 3) != 0)
                fail_msg("%s: the first %zu of %zu bytes give another picture", samples[i], n, bytes);
            rv_pixels_free(&p);
        }
        if (whole > 4) fail_msg("%s: %zu prefixes count as whole", samples[i], whole);
        rv_pixels_free(&full);
        free(file);
    }
}

static uint32_t next_random(uint64_t *seed) {
    *seed = *seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    return (uint32_t)(*seed >> 33);
}

static void flipped_bytes_never_crash(void **state) {
    (void)state;
    uint64_t seed = 20240926;
    for (size_t i = 0; i < SAMPLES; i++) {
        size_t bytes;
        uint8_t *file = picture_read(samples[i], &bytes);
        for (int round = 0; round < 300; round++) {
            uint8_t *bent = copy_of(file, bytes);
            /* Half the rounds aim at the header, where sizes and offsets are. */
            size_t range = round % 2 && bytes > 80 ? 80 : bytes;
            for (uint32_t n = next_random(&seed) % 4 + 1; n > 0; n--)
                bent[next_random(&seed) % range] ^= (uint8_t)(1u << next_random(&seed) % 8);
            rv_error err = { 0 };
            rv_pixels p = { 0 };
            rv_status st = rv_image_decode(bent, bytes, round % 3 == 0, &p, &err);
            if (st) assert_true(strlen(err.message) > 10);
            else assert_non_null(p.rgb);
            rv_pixels_free(&p);
            free(bent);
        }
        free(file);
    }
}

static void any_changed_byte_of_a_png_is_an_error(void **state) {
    (void)state;
    size_t bytes;
    uint8_t *file = picture_read("palette4.png", &bytes);
    for (size_t i = 8; i < bytes; i++) {
        uint8_t *bent = copy_of(file, bytes);
        bent[i] ^= 0x10;
        rv_error err = { 0 };
        rv_pixels p = { 0 };
        if (!rv_image_decode(bent, bytes, false, &p, &err)) fail_msg("byte %zu changed, and nobody noticed", i);
        free(bent);
    }
    free(file);
}

/* ---- PNG files made by hand -------------------------------------------------------------- */

typedef struct bytes { uint8_t data[4096]; size_t n; } builder;

static void put32(uint8_t *p, uint32_t v) {
    for (int i = 0; i < 4; i++) p[i] = (uint8_t)(v >> (24 - 8 * i));
}

static void add_chunk(builder *b, const char *name, const void *data, size_t n) {
    put32(b->data + b->n, (uint32_t)n);
    memcpy(b->data + b->n + 4, name, 4);
    if (n) memcpy(b->data + b->n + 8, data, n);
    put32(b->data + b->n + 8 + n, crc_of(b->data + b->n + 4, n + 4));
    b->n += n + 12;
}

static void begin_png(builder *b, uint32_t width, uint32_t height, uint8_t depth, uint8_t color) {
    uint8_t header[13] = { 0 };
    put32(header, width);
    put32(header + 4, height);
    header[8] = depth;
    header[9] = color;
    memcpy(b->data, "\x89PNG\r\n\x1a\n", 8);
    b->n = 8;
    add_chunk(b, "IHDR", header, sizeof header);
}

/* A zlib stream of one stored block. */
static void add_stored(builder *b, const uint8_t *raw, uint16_t n) {
    uint8_t z[1024] = { 0x78, 0x01, 0x01, (uint8_t)n, (uint8_t)(n >> 8), (uint8_t)~n, (uint8_t)(~n >> 8) };
    uint32_t a = 1, s = 0;
    memcpy(z + 7, raw, n);
    for (size_t i = 0; i < n; i++) {
        a = (a + raw[i]) % 65521;
        s = (s + a) % 65521;
    }
    put32(z + 7 + n, s << 16 | a);
    add_chunk(b, "IDAT", z, n + 11u);
}

static void a_picture_built_by_hand_decodes(void **state) {
    (void)state;
    builder b;
    rv_error err = { 0 };
    rv_pixels p = { 0 };
    begin_png(&b, 2, 1, 8, 2);
    add_stored(&b, (const uint8_t[]){ 0, 1, 2, 3, 4, 5, 6 }, 7);
    add_chunk(&b, "IEND", NULL, 0);
    expect_ok(rv_image_decode(b.data, b.n, false, &p, &err), &err);
    assert_memory_equal(p.rgb, ((const uint8_t[]){ 1, 2, 3, 4, 5, 6 }), 6);
    rv_pixels_free(&p);
}

static void png_with_too_little_or_too_much_data_is_an_error(void **state) {
    (void)state;
    static const uint8_t raw[16] = { 0 };
    for (uint16_t n = 0; n < 16; n++) {
        if (n == 7) continue;
        builder b;
        begin_png(&b, 2, 1, 8, 2);
        add_stored(&b, raw, n);
        add_chunk(&b, "IEND", NULL, 0);
        expect_refused(b.data, b.n, RV_ERR_FORMAT, n < 7 ? "Not enough image data" : "Too much image data");
    }
}

static void png_chunks_out_of_order_are_errors(void **state) {
    (void)state;
    static const uint8_t raw[7] = { 0 };
    builder b;
    begin_png(&b, 2, 1, 8, 2);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "IEND: out of place");
    begin_png(&b, 2, 1, 8, 3);
    add_stored(&b, raw, 3);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "Missing PLTE");
    begin_png(&b, 2, 1, 8, 2);
    add_stored(&b, raw, 7);
    add_chunk(&b, "teXt", "a", 1);
    add_stored(&b, raw, 7);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "Too many IDATs");
    begin_png(&b, 2, 1, 8, 2);
    add_chunk(&b, "NEWS", "a", 1);
    expect_refused(b.data, b.n, RV_ERR_UNSUPPORTED, "NEWS: unhandled critical chunk");
    begin_png(&b, 2, 1, 8, 2);
    add_stored(&b, raw, 7);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "truncated");
    begin_png(&b, 2, 1, 8, 3);
    add_chunk(&b, "PLTE", "abcd", 4);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "PLTE: invalid");
}

static void png_header_values_out_of_range_are_errors(void **state) {
    (void)state;
    static const uint8_t wrong[][2] = { { 3, 0 }, { 16, 3 }, { 4, 2 }, { 8, 1 }, { 8, 5 }, { 8, 7 }, { 1, 6 }, { 0, 0 }, { 32, 2 } };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        builder b;
        begin_png(&b, 2, 1, wrong[i][0], wrong[i][1]);
        expect_refused(b.data, b.n, RV_ERR_FORMAT, "IHDR");
    }
    builder b;
    begin_png(&b, 0, 1, 8, 2);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "0x1 pixels");
}

static void palette_index_beyond_the_palette_is_an_error(void **state) {
    (void)state;
    builder b;
    begin_png(&b, 2, 1, 8, 3);
    add_chunk(&b, "PLTE", "abcdef", 6);
    add_stored(&b, (const uint8_t[]){ 0, 1, 2 }, 3);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "beyond the palette");
}

/* The chunk's checksum is right, that of what is inside it is not. */
static void a_wrong_checksum_of_the_compressed_data_is_an_error(void **state) {
    (void)state;
    builder b;
    begin_png(&b, 2, 1, 8, 2);
    size_t chunk = b.n;
    add_stored(&b, (const uint8_t[]){ 0, 1, 2, 3, 4, 5, 6 }, 7);
    b.data[b.n - 5] ^= 1;
    put32(b.data + b.n - 4, crc_of(b.data + chunk + 4, b.n - chunk - 8));
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "incorrect data check");
}

static void a_critical_chunk_behind_the_picture_is_not_passed_over(void **state) {
    (void)state;
    builder b;
    begin_png(&b, 2, 1, 8, 2);
    add_stored(&b, (const uint8_t[7]){ 0 }, 7);
    add_chunk(&b, "NEWS", "a", 1);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_UNSUPPORTED, "NEWS: unhandled critical chunk");
}

static void a_checksum_is_verified_in_chunks_that_are_not_used(void **state) {
    (void)state;
    for (int behind = 0; behind < 2; behind++) {
        builder b;
        begin_png(&b, 2, 1, 8, 2);
        if (behind) add_stored(&b, (const uint8_t[7]){ 0 }, 7);
        add_chunk(&b, "tEXt", "k\0v", 3);
        b.data[b.n - 1] ^= 1;
        if (!behind) add_stored(&b, (const uint8_t[7]){ 0 }, 7);
        add_chunk(&b, "IEND", NULL, 0);
        expect_refused(b.data, b.n, RV_ERR_FORMAT, "tEXt: CRC error");
    }
}

static void chunks_that_change_nothing_may_hold_anything(void **state) {
    (void)state;
    builder b;
    rv_error err = { 0 };
    rv_pixels p = { 0 };
    begin_png(&b, 2, 1, 8, 2);
    add_chunk(&b, "iCCP", "nonsense", 8);
    add_chunk(&b, "gAMA", "\0\0\0\0", 4);
    add_chunk(&b, "tRNS", "\xff\xff\xff\xff\xff\xff", 6);
    add_stored(&b, (const uint8_t[]){ 0, 255, 255, 255, 4, 5, 6 }, 7);
    add_chunk(&b, "IEND", NULL, 0);
    expect_ok(rv_image_decode(b.data, b.n, false, &p, &err), &err);
    assert_memory_equal(p.rgb, ((const uint8_t[]){ 255, 255, 255, 4, 5, 6 }), 6);
    rv_pixels_free(&p);
}

static void an_orientation_behind_the_picture_counts(void **state) {
    (void)state;
    static const uint8_t exif[] = { 'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 6, 0, 0, 0, 0, 0, 0, 0 };
    builder b;
    rv_error err = { 0 };
    rv_pixels p = { 0 }, header = { 0 };
    begin_png(&b, 2, 1, 8, 2);
    add_stored(&b, (const uint8_t[]){ 0, 1, 2, 3, 4, 5, 6 }, 7);
    add_chunk(&b, "eXIf", exif, sizeof exif);
    add_chunk(&b, "IEND", NULL, 0);
    expect_ok(rv_image_decode(b.data, b.n, false, &p, &err), &err);
    expect_ok(rv_image_probe(b.data, b.n, false, &header, &err), &err);
    assert_int_equal(p.orientation, 6);
    assert_int_equal(header.orientation, 6);
    assert_int_equal(p.height, 2);
    assert_int_equal(header.height, 2);
    rv_pixels_free(&p);
}

/* Clear, 0, 7, end: 6 is the largest code that can be there. */
static void a_gif_code_that_stands_for_nothing_is_an_error(void **state) {
    (void)state;
    uint8_t gif[] = { 'G', 'I', 'F', '8', '9', 'a', 3, 0, 1, 0, 0, 0, 0, ',', 0, 0, 0, 0, 3, 0, 1, 0, 0,
                      2, 2, 0xc4, 0x0b, 0, ';' };
    expect_refused(gif, sizeof gif, RV_ERR_FORMAT, "a code that stands for nothing");
    rv_error err = { 0 };
    rv_pixels p = { 0 };
    gif[25] = 0x84;                                              /* clear, 0, 6 (0 0), end */
    expect_ok(rv_image_decode(gif, sizeof gif, false, &p, &err), &err);
    assert_memory_equal(p.rgb, ((const uint8_t[9]){ 0 }), 9);
    rv_pixels_free(&p);
    gif[6] = gif[18] = 4;                                        /* one pixel more than there is */
    expect_refused(gif, sizeof gif, RV_ERR_FORMAT, "incomplete");
    gif[23] = 9;
    expect_refused(gif, sizeof gif, RV_ERR_FORMAT, "GIF");
    gif[23] = 0;
    expect_refused(gif, sizeof gif, RV_ERR_FORMAT, "code size");
}

/* ---- bombs --------------------------------------------------------------------------------- */

static long peak_kib(void) {
    struct rusage u;
    getrusage(RUSAGE_SELF, &u);
    return u.ru_maxrss;
}

static void a_small_png_that_claims_60000x60000_is_refused_before_allocating(void **state) {
    (void)state;
    builder b;
    begin_png(&b, 60000, 60000, 8, 2);
    add_stored(&b, (const uint8_t[7]){ 0 }, 7);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_TOO_LONG, "60000x60000 pixels: a picture may have 178956970 in all");
    begin_png(&b, 70000, 1, 8, 2);
    expect_refused(b.data, b.n, RV_ERR_TOO_LONG, "an edge may have 65500");
    begin_png(&b, 0x7fffffff, 0x7fffffff, 16, 6);
    expect_refused(b.data, b.n, RV_ERR_TOO_LONG, "an edge may have 65500");
}

static void small_files_that_claim_an_allowed_size_take_no_memory(void **state) {
    (void)state;
    static const uint8_t jpeg[] = { 0xff, 0xd8, 0xff, 0xc2, 0, 17, 8, 0x30, 0, 0x30, 0, 3, 1, 0x22, 0, 2, 0x11, 1, 3, 0x11, 1,
                                    0xff, 0xda, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 0, 0, 0, 0, 0xff, 0xd9 };
    static const uint8_t gif[] = { 'G', 'I', 'F', '8', '9', 'a', 0, 0x30, 0, 0x30, 0, 0, 0, ',', 0, 0, 0, 0, 0, 0x30, 0, 0x30, 0,
                                   8, 1, 0, 0, ';' };
    uint8_t bmp[58] = { 'B', 'M', 58, 0, 0, 0, 0, 0, 0, 0, 54, 0, 0, 0, 40, 0, 0, 0, 0, 0x30, 0, 0, 0, 0x30, 0, 0, 1, 0, 24 };
    builder b;
    long before = peak_kib();
    begin_png(&b, 13000, 13000, 16, 6);
    add_stored(&b, (const uint8_t[7]){ 0 }, 7);
    add_chunk(&b, "IEND", NULL, 0);
    expect_refused(b.data, b.n, RV_ERR_FORMAT, "less data than the picture needs");
    expect_refused(jpeg, sizeof jpeg, RV_ERR_FORMAT, "truncated");
    expect_refused(gif, sizeof gif, RV_ERR_FORMAT, "incomplete");
    expect_refused(bmp, sizeof bmp, RV_ERR_FORMAT, "truncated");
    expect_refused("P6 13000 13000 255\n123", 22, RV_ERR_FORMAT, "truncated");
    assert_in_range(peak_kib() - before, 0, 20000);
}

/* A real one: 20000 x 20000 one-bit pixels, the data as dense as deflate can be. */
static void a_real_bomb_is_refused_from_its_header(void **state) {
    (void)state;
    size_t n;
    uint8_t *file = picture_read("bomb_20000x20000.png", &n);
    long before = peak_kib();
    expect_refused(file, n, RV_ERR_TOO_LONG, "20000x20000 pixels");
    assert_in_range(peak_kib() - before, 0, 20000);
    free(file);
}

/* Inflating to far more than the header's picture stops at the picture's size. */
static void a_png_that_inflates_to_more_than_its_picture_is_an_error(void **state) {
    (void)state;
    size_t n;
    uint8_t *file = picture_read("bomb_inflates.png", &n);
    long before = peak_kib();
    expect_refused(file, n, RV_ERR_FORMAT, "Too much image data");
    assert_in_range(peak_kib() - before, 0, 20000);
    free(file);
}

/* A well-formed file, for every coefficient comes in two scans of its own: 127 passes over the picture. */
static void a_progressive_jpeg_with_more_than_a_hundred_scans_is_refused(void **state) {
    (void)state;
    struct jpeg_compress_struct jpeg = { 0 };
    struct jpeg_error_mgr errors;
    jpeg_scan_info scans[127] = { { .comps_in_scan = 1 } };
    unsigned char *file = NULL;
    unsigned long bytes = 0;
    uint8_t row[32];
    for (int i = 1; i < 127; i++)
        scans[i] = (jpeg_scan_info){ 1, { 0 }, (i + 1) / 2, (i + 1) / 2, i % 2 ? 0 : 1, i % 2 ? 1 : 0 };
    jpeg.err = jpeg_std_error(&errors);
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &file, &bytes);
    jpeg.image_width = jpeg.image_height = sizeof row;
    jpeg.input_components = 1;
    jpeg.in_color_space = JCS_GRAYSCALE;
    jpeg_set_defaults(&jpeg);
    jpeg.scan_info = scans;
    jpeg.num_scans = 99;
    for (int pass = 0; pass < 2; pass++) {
        jpeg_start_compress(&jpeg, TRUE);
        for (uint8_t y = 0; y < sizeof row; y++) {
            memset(row, y * 7, sizeof row);
            row[y] = 255;
            jpeg_write_scanlines(&jpeg, (JSAMPROW[]){ row }, 1);
        }
        jpeg_finish_compress(&jpeg);
        if (pass == 0) {
            rv_error err = { 0 };
            rv_pixels p = { 0 };
            expect_ok(rv_image_decode(file, bytes, false, &p, &err), &err);
            rv_pixels_free(&p);
        } else expect_refused(file, bytes, RV_ERR_TOO_LONG, "more than 100 scans");
        free(file);
        file = NULL;
        bytes = 0;
        jpeg_mem_dest(&jpeg, &file, &bytes);
        jpeg.num_scans = 127;
    }
    jpeg_destroy_compress(&jpeg);
    free(file);
}

static void a_jpeg_that_repeats_a_scan_is_an_error(void **state) {
    (void)state;
    size_t n, scan_at = 0;
    uint8_t *file = picture_read("progressive_444.jpg", &n);
    for (size_t i = 2; i + 1 < n; i++)                       /* the last scan, up to the end mark */
        if (file[i] == 0xff && file[i + 1] == 0xda) scan_at = i;
    assert_true(scan_at > 0);
    size_t length = n - 2 - scan_at;
    uint8_t *twice = malloc(n + length);
    memcpy(twice, file, n - 2);
    memcpy(twice + n - 2, file + scan_at, length + 2);
    expect_refused(twice, n + length, RV_ERR_FORMAT, "progression");
    free(twice);
    free(file);
}

static void jpeg_with_truncated_scan_is_an_error(void **state) {
    (void)state;
    size_t n;
    uint8_t *file = picture_read("rgb_420.jpg", &n), *cut = copy_of(file, n - n / 3);
    expect_refused(cut, n - n / 3, RV_ERR_FORMAT, "Premature end of JPEG file");
    free(cut);
    /* the same with an end mark put behind the cut, so that only the missing blocks tell */
    cut = copy_of(file, n - n / 3);
    memcpy(cut + n - n / 3 - 2, "\xff\xd9", 2);
    expect_refused(cut, n - n / 3, RV_ERR_FORMAT, "damaged or truncated");
    free(cut);
    free(file);
}

static void a_few_bytes_before_the_end_mark_of_a_jpeg_are_no_damage(void **state) {
    (void)state;
    size_t n;
    rv_error err = { 0 };
    rv_pixels a = { 0 }, b = { 0 };
    uint8_t *file = picture_read("rgb_420.jpg", &n), *padded = calloc(1, n + 4);
    memcpy(padded, file, n - 2);
    memcpy(padded + n + 2, "\xff\xd9", 2);
    expect_ok(rv_image_decode(file, n, false, &a, &err), &err);
    expect_ok(rv_image_decode(padded, n + 4, false, &b, &err), &err);
    assert_memory_equal(a.rgb, b.rgb, (size_t)a.width * a.height * 3);
    rv_pixels_free(&a);
    rv_pixels_free(&b);
    free(padded);
    free(file);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        /* first: they look at the process's peak */
        cmocka_unit_test(a_small_png_that_claims_60000x60000_is_refused_before_allocating),
        cmocka_unit_test(small_files_that_claim_an_allowed_size_take_no_memory),
        cmocka_unit_test(a_real_bomb_is_refused_from_its_header),
        cmocka_unit_test(a_png_that_inflates_to_more_than_its_picture_is_an_error),
        cmocka_unit_test(a_progressive_jpeg_with_more_than_a_hundred_scans_is_refused),
        cmocka_unit_test(a_jpeg_that_repeats_a_scan_is_an_error),
        cmocka_unit_test(jpeg_with_truncated_scan_is_an_error),
        cmocka_unit_test(a_few_bytes_before_the_end_mark_of_a_jpeg_are_no_damage),
        cmocka_unit_test(a_picture_built_by_hand_decodes),
        cmocka_unit_test(png_with_too_little_or_too_much_data_is_an_error),
        cmocka_unit_test(png_chunks_out_of_order_are_errors),
        cmocka_unit_test(png_header_values_out_of_range_are_errors),
        cmocka_unit_test(palette_index_beyond_the_palette_is_an_error),
        cmocka_unit_test(a_wrong_checksum_of_the_compressed_data_is_an_error),
        cmocka_unit_test(a_critical_chunk_behind_the_picture_is_not_passed_over),
        cmocka_unit_test(a_checksum_is_verified_in_chunks_that_are_not_used),
        cmocka_unit_test(chunks_that_change_nothing_may_hold_anything),
        cmocka_unit_test(an_orientation_behind_the_picture_counts),
        cmocka_unit_test(a_gif_code_that_stands_for_nothing_is_an_error),
        cmocka_unit_test(any_changed_byte_of_a_png_is_an_error),
        cmocka_unit_test(a_file_cut_anywhere_is_an_error_or_the_whole_picture),
        cmocka_unit_test(flipped_bytes_never_crash),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
