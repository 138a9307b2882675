/* image_jpeg.c - JPEG through libjpeg-turbo, with Pillow's numbers.
 *
 * The one idea: libjpeg repairs what it can and goes on; here its warnings about the data are errors,
 * because half a receipt must never look like a whole one.
 */
#include "loader/image_formats.h"

#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <jpeglib.h>
#include <jerror.h>

enum {
    MAX_SCANS = 100,            /* progressive files have about ten; each costs a pass over the picture  */
    EXTRANEOUS_ALLOWED = 64,    /* some cameras pad before the end marker; more is a damaged scan        */
    EXIF_HEADER_BYTES = 6,      /* "Exif\0\0"                                                            */
    ROWS_AT_ONCE = 16
};

typedef struct decoder {
    struct jpeg_decompress_struct jpeg;
    struct jpeg_error_mgr         errors;
    struct jpeg_progress_mgr      progress;
    jmp_buf                       failed;
    rv_status                     code;                      /* set before the jump */
    char                          message[JMSG_LENGTH_MAX];
    uint8_t                      *row;                       /* CMYK only */
} decoder;

static rv_status code_of(int message) {
    switch (message) {
    case JERR_OUT_OF_MEMORY:                            return RV_ERR_MEMORY;
    case JERR_IMAGE_TOO_BIG: case JERR_WIDTH_OVERFLOW:  return RV_ERR_TOO_LONG;
    case JERR_SOF_UNSUPPORTED: case JERR_BAD_PRECISION: case JERR_CONVERSION_NOTIMPL: case JERR_ARITH_NOTIMPL:
    case JERR_NOT_COMPILED: case JERR_CCIR601_NOTIMPL:  return RV_ERR_UNSUPPORTED;
    default:                                            return RV_ERR_FORMAT;
    }
}

static void on_error(j_common_ptr jpeg) {
    decoder *d = jpeg->client_data;
    jpeg->err->format_message(jpeg, d->message);
    d->code = code_of(jpeg->err->msg_code);
    longjmp(d->failed, 1);
}

/* Level -1 is a warning, 0 and up are traces. */
static void on_message(j_common_ptr jpeg, int level) {
    if (level >= 0) return;
    switch (jpeg->err->msg_code) {
    case JWRN_ADOBE_XFORM: case JWRN_JFIF_MAJOR: return;     /* about the header, not the picture */
#ifdef JWRN_BOGUS_ICC
    case JWRN_BOGUS_ICC: return;
#endif
    case JWRN_EXTRANEOUS_DATA:                               /* parameters: bytes skipped, marker found */
        if (jpeg->err->msg_parm.i[1] == JPEG_EOI && jpeg->err->msg_parm.i[0] <= EXTRANEOUS_ALLOWED) return;
        break;
    default: break;
    }
    on_error(jpeg);
}

static void on_output(j_common_ptr jpeg) { (void)jpeg; }

static void on_progress(j_common_ptr jpeg) {
    decoder *d = jpeg->client_data;
    if (!jpeg->is_decompressor || d->jpeg.input_scan_number <= MAX_SCANS) return;
    snprintf(d->message, sizeof d->message, "more than %d scans", MAX_SCANS);
    d->code = RV_ERR_TOO_LONG;
    longjmp(d->failed, 1);
}

static uint32_t orientation_of(const struct jpeg_decompress_struct *jpeg) {
    for (jpeg_saved_marker_ptr m = jpeg->marker_list; m; m = m->next)
        if (m->data_length > EXIF_HEADER_BYTES && memcmp(m->data, "Exif\0\0", EXIF_HEADER_BYTES) == 0)
            return rv_exif_orientation(m->data + EXIF_HEADER_BYTES, m->data_length - EXIF_HEADER_BYTES);
    return 1;
}

static rv_status read_header(decoder *d, rv_bytes file, rv_pixels *out, rv_error *err) {
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    jpeg_mem_src(jpeg, file.data, (unsigned long)file.bytes);
    jpeg_save_markers(jpeg, JPEG_APP0 + 1, 0xffff);
    jpeg_read_header(jpeg, TRUE);
    rv_status st = rv_image_check_size("JPEG", jpeg->image_width, jpeg->image_height, err);
    if (st) return st;
    if (jpeg->num_components == 2 || jpeg->num_components > 4)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "JPEG: %d components; convert it to PNG or RGB JPEG first",
                       jpeg->num_components);
    /* An 8x8 block takes at least one bit, so a short file with a large header is known to be cut (or a
     * bomb) before anything is allocated for it. */
    uint64_t blocks = ((uint64_t)jpeg->image_width + 7) / 8 * (((uint64_t)jpeg->image_height + 7) / 8);
    if (!jpeg->arith_code && blocks / 8 > file.bytes)
        return rv_fail(err, RV_ERR_FORMAT, "JPEG: truncated: %zu bytes cannot hold %ux%u pixels; get the whole file",
                       file.bytes, jpeg->image_width, jpeg->image_height);
    out->width = jpeg->image_width;
    out->height = jpeg->image_height;
    out->orientation = orientation_of(jpeg);
    return RV_OK;
}

static uint8_t times(uint32_t a, uint32_t b) {      /* a * b / 255, rounded: Pillow's MULDIV255 */
    uint32_t t = a * b + 128;
    return (uint8_t)(((t >> 8) + t) >> 8);
}

/* Every CMYK JPEG is taken as inverted, as Adobe writes them and Pillow reads them; then Pillow's
 * Convert.c cmyk2rgb with c' = 255 - c. */
static void rgb_from_cmyk(const uint8_t *cmyk, uint32_t width, uint8_t *rgb) {
    for (uint32_t x = 0; x < width; x++, cmyk += 4, rgb += 3) {
        int white = cmyk[3];
        for (int c = 0; c < 3; c++) {
            int v = white - times(255u - cmyk[c], (uint32_t)white);
            rgb[c] = (uint8_t)(v < 0 ? 0 : v);
        }
    }
}

static void read_rows(decoder *d, rv_pixels *out) {
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    size_t stride = (size_t)out->width * 3;
    while (jpeg->output_scanline < jpeg->output_height) {
        uint8_t *at = out->rgb + jpeg->output_scanline * stride, *rows[ROWS_AT_ONCE];
        if (d->row) {
            rows[0] = d->row;
            if (jpeg_read_scanlines(jpeg, rows, 1) == 1) rgb_from_cmyk(d->row, out->width, at);
            continue;
        }
        uint32_t n = jpeg->output_height - jpeg->output_scanline;
        if (n > ROWS_AT_ONCE) n = ROWS_AT_ONCE;
        for (uint32_t i = 0; i < n; i++) rows[i] = at + i * stride;
        jpeg_read_scanlines(jpeg, rows, n);
    }
}

/* Everything that may jump; d lives in the caller, so no local is lost. */
static rv_status decode(decoder *d, rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    struct jpeg_decompress_struct *jpeg = &d->jpeg;
    if (setjmp(d->failed)) {
        const char *help = d->code == RV_ERR_UNSUPPORTED ? "convert it to PNG or baseline JPEG first"
                         : d->code == RV_ERR_FORMAT      ? "the file is damaged or truncated: get it again"
                                                         : "it cannot be decoded here: scale it down or convert it to PNG";
        return rv_fail(err, d->code, "JPEG: %s; %s", d->message, help);
    }
    rv_status st = RV_OK;
    TRY(read_header(d, file, out, err));
    if (header_only) goto done;
    bool cmyk = jpeg->jpeg_color_space == JCS_CMYK || jpeg->jpeg_color_space == JCS_YCCK;
    jpeg->out_color_space = cmyk ? JCS_CMYK : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg->do_fancy_upsampling = TRUE;
    d->progress.progress_monitor = on_progress;
    jpeg->progress = &d->progress;
    TRY(rv_image_allocate(out->width, out->height, out, err));
    if (cmyk && !(d->row = malloc((size_t)out->width * 4))) {
        st = rv_fail_memory(err, "JPEG");
        goto done;
    }
    jpeg_start_decompress(jpeg);
    read_rows(d, out);
    jpeg_finish_decompress(jpeg);                   /* reads on to the end marker */
done:
    return st;
}

rv_status rv_jpeg_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    decoder *d = calloc(1, sizeof *d);
    if (!d) return rv_fail_memory(err, "JPEG");
    d->jpeg.err = jpeg_std_error(&d->errors);
    d->errors.error_exit = on_error;
    d->errors.emit_message = on_message;
    d->errors.output_message = on_output;
    d->jpeg.client_data = d;
    rv_status st;
    if (setjmp(d->failed)) st = rv_fail(err, RV_ERR_MEMORY, "JPEG: %s", d->message);   /* only creating may land here */
    else {
        jpeg_create_decompress(&d->jpeg);
        st = decode(d, file, header_only, out, err);
    }
    jpeg_destroy_decompress(&d->jpeg);
    free(d->row);
    free(d);
    return st;
}
