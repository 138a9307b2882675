/* image_png.c - PNG through libpng, with Pillow's numbers.
 *
 * The one idea: libpng warns about damaged data and goes on; here every warning about what the picture is
 * made of is an error, checksums of all chunks included.  Chunks about other things (colour profiles, text)
 * are not looked into.  Numbers are those of Hugging Face's processor (Pillow): alpha over white, 16 bit cut
 * to the high byte.  Two deliberate differences: 16-bit grey is cut too (Pillow clips it at 255, which turns
 * a scan white), and a grey tRNS key is compared before scaling to 8 bit, as the PNG standard says.  As in
 * Pillow, a tRNS key of an RGB picture changes nothing: the processor leaves RGB as it is.
 */
#include "loader/image_formats.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <png.h>

enum { SIGNATURE_BYTES = 8, COLOR_TYPE_AT = 25, HEADER_END = 33, CHUNK_OVERHEAD = 12, INFLATE_MAX_RATIO = 1032 };

typedef struct decoder {
    png_structp png;
    png_infop   info;
    rv_bytes    file;
    size_t      at;
    char        message[160];
    uint8_t     palette[256][3];              /* over white */
    uint32_t    n_palette;
    uint8_t    *rows;                         /* one row, or all when interlaced; NULL: straight into the picture */
} decoder;

static rv_status damaged(rv_error *err, const char *why) {
    return rv_fail(err, RV_ERR_FORMAT, "PNG: %s; the file is damaged: get it again", why);
}

static rv_status truncated(rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "PNG: truncated: it ends before its IEND chunk; get the whole file");
}

/* For errors and warnings alike. */
static PNG_NORETURN void on_error(png_structp png, png_const_charp why) {
    decoder *d = png_get_error_ptr(png);
    snprintf(d->message, sizeof d->message, "%s", why);
    png_longjmp(png, 1);
}

static void on_warning(png_structp png, png_const_charp why) { on_error(png, why); }

static void on_read(png_structp png, png_bytep to, size_t bytes) {
    decoder *d = png_get_io_ptr(png);
    if (bytes > d->file.bytes - d->at) png_error(png, "truncated: it ends before its IEND chunk");
    memcpy(to, d->file.data + d->at, bytes);
    d->at += bytes;
}

static rv_status failure(const decoder *d, rv_error *err) {
    if (strstr(d->message, "unhandled critical chunk"))
        return rv_fail(err, RV_ERR_UNSUPPORTED, "PNG: %s; convert it to a standard PNG or JPEG first", d->message);
    if (strstr(d->message, "memory")) return rv_fail(err, RV_ERR_MEMORY, "PNG: %s", d->message);
    return damaged(err, d->message);
}

/* What must be known before libpng sees the file: it names the limits in its own way.  libpng itself checks
 * the bytes behind the size. */
static rv_status check_start(rv_bytes file, rv_error *err) {
    if (file.bytes < HEADER_END) return truncated(err);
    const uint8_t *header = file.data + SIGNATURE_BYTES;
    if (memcmp(header + 4, "CgBI", 4) == 0)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "PNG: Apple's CgBI variant; convert it to a standard PNG or JPEG "
                       "first");
    if (memcmp(header, "\0\0\0\15IHDR", 8) != 0) return damaged(err, "it does not begin with a 13-byte IHDR chunk");
    return rv_image_check_size("PNG", rv_be32(header + 8), rv_be32(header + 12), err);
}

/* The chunks are all there, to IEND, and one of them may say which way is up: before or behind the picture,
 * and a probe must know without inflating it. */
static rv_status walk_chunks(rv_bytes file, uint32_t *orientation, rv_error *err) {
    for (size_t at = SIGNATURE_BYTES, bytes;; at += bytes + CHUNK_OVERHEAD) {
        if (file.bytes - at < CHUNK_OVERHEAD) return truncated(err);
        const uint8_t *chunk = file.data + at;
        bytes = rv_be32(chunk);
        if (bytes > file.bytes - at - CHUNK_OVERHEAD) return truncated(err);
        if (memcmp(chunk + 4, "eXIf", 4) == 0) *orientation = rv_exif_orientation(chunk + 8, bytes);
        if (memcmp(chunk + 4, "IEND", 4) == 0) return RV_OK;
    }
}

static rv_status read_header(decoder *d, rv_pixels *out, rv_error *err) {
    png_set_read_fn(d->png, d, on_read);
    png_set_crc_action(d->png, PNG_CRC_ERROR_QUIT, PNG_CRC_ERROR_QUIT);
    png_set_benign_errors(d->png, 0);
    png_set_chunk_malloc_max(d->png, 0);                      /* what is skipped may be long */
    png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, NULL, -1);
    uint8_t color = d->file.data[COLOR_TYPE_AT];
    if (color != PNG_COLOR_TYPE_GRAY && color != PNG_COLOR_TYPE_PALETTE)       /* it would change nothing */
        png_set_keep_unknown_chunks(d->png, PNG_HANDLE_CHUNK_NEVER, (const png_byte *)"tRNS", 1);
    png_read_info(d->png, d->info);
    out->width = png_get_image_width(d->png, d->info);
    out->height = png_get_image_height(d->png, d->info);
    out->orientation = 1;
    rv_status st = walk_chunks(d->file, &out->orientation, err);
    if (st) return st;
    /* Deflate cannot do better than this, so nothing large is allocated for a picture that is not there. */
    uint64_t raw_bytes = (uint64_t)png_get_rowbytes(d->png, d->info) * out->height;
    if (raw_bytes / INFLATE_MAX_RATIO > d->file.bytes) return damaged(err, "there is less data than the picture needs");
    return RV_OK;
}

static void read_palette(decoder *d) {
    png_colorp colours = NULL;
    png_bytep  alpha = NULL;
    int        n = 0, n_alpha = 0;
    png_get_PLTE(d->png, d->info, &colours, &n);
    png_get_tRNS(d->png, d->info, &alpha, &n_alpha, NULL);
    for (int i = 0; i < n && i < 256; i++) {
        uint32_t a = i < n_alpha ? alpha[i] : 255;
        d->palette[i][0] = rv_over_white(colours[i].red, a);
        d->palette[i][1] = rv_over_white(colours[i].green, a);
        d->palette[i][2] = rv_over_white(colours[i].blue, a);
        d->n_palette++;
    }
}

/* Rows become palette indices, RGB or RGBA, a byte each. */
static void ask_for_bytes(decoder *d) {
    int color = png_get_color_type(d->png, d->info);
    png_set_strip_16(d->png);
    png_set_packing(d->png);
    if (color == PNG_COLOR_TYPE_PALETTE) {
        read_palette(d);
        png_set_check_for_invalid_index(d->png, -1);          /* rgb_from_row does; libpng is one off */
    } else if (!(color & PNG_COLOR_MASK_COLOR)) {
        png_set_expand_gray_1_2_4_to_8(d->png);
        if (png_get_valid(d->png, d->info, PNG_INFO_tRNS)) png_set_tRNS_to_alpha(d->png);
        png_set_gray_to_rgb(d->png);
    }
}

static void rgb_from_row(decoder *d, const uint8_t *row, uint32_t width, uint8_t *rgb) {
    if (d->n_palette)
        for (uint32_t x = 0; x < width; x++, rgb += 3) {
            if (row[x] >= d->n_palette) png_error(d->png, "a pixel's index is beyond the palette");
            memcpy(rgb, d->palette[row[x]], 3);
        }
    else
        for (uint32_t x = 0; x < width; x++, rgb += 3, row += 4)
            for (int c = 0; c < 3; c++) rgb[c] = rv_over_white(row[c], row[3]);
}

static rv_status read_rows(decoder *d, rv_pixels *out, rv_error *err) {
    ask_for_bytes(d);
    int passes = png_set_interlace_handling(d->png);
    png_read_update_info(d->png, d->info);
    rv_status st = rv_image_allocate(out->width, out->height, out, err);
    if (st) return st;
    size_t stride = png_get_rowbytes(d->png, d->info), rgb_stride = (size_t)out->width * 3;
    bool   direct = png_get_channels(d->png, d->info) == 3;
    if (!direct && !(d->rows = malloc(stride * (passes > 1 ? out->height : 1)))) return rv_fail_memory(err, "PNG");
    for (int pass = 1; pass <= passes; pass++)
        for (uint32_t y = 0; y < out->height; y++) {
            uint8_t *rgb = out->rgb + y * rgb_stride, *row = direct ? rgb : d->rows + (passes > 1 ? y * stride : 0);
            png_read_row(d->png, row, NULL);
            if (!direct && pass == passes) rgb_from_row(d, row, out->width, rgb);
        }
    png_read_end(d->png, d->info);                            /* nothing left over, and on to IEND */
    return RV_OK;
}

/* Everything that may jump; d lives in the caller, so no local is lost. */
static rv_status decode(decoder *d, bool header_only, rv_pixels *out, rv_error *err) {
    if (setjmp(png_jmpbuf(d->png))) return failure(d, err);
    rv_status st = read_header(d, out, err);
    return st || header_only ? st : read_rows(d, out, err);
}

rv_status rv_png_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    rv_status st = check_start(file, err);
    if (st) return st;
    decoder *d = calloc(1, sizeof *d);
    if (!d) return rv_fail_memory(err, "PNG");
    d->file = file;
    d->png = png_create_read_struct(PNG_LIBPNG_VER_STRING, d, on_error, on_warning);
    d->info = d->png ? png_create_info_struct(d->png) : NULL;
    st = d->info ? decode(d, header_only, out, err) : rv_fail_memory(err, "PNG");
    png_destroy_read_struct(&d->png, &d->info, NULL);
    free(d->rows);
    free(d);
    return st;
}
