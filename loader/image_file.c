/* image_file.c - which format a file is, limits, and turning the picture upright.
 *
 * The one idea: the first bytes decide, never the name; each decoder either gives a whole picture or an
 * error, and a format that is known but not read is named together with what to do about it.
 */
#include "loader/image_formats.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct format { const char *name, *magic; size_t magic_bytes; rv_image_read_fn *read; } format;

static const format readable[] = {
    { "jpeg", "\xff\xd8\xff", 3, rv_jpeg_read },
    { "png", "\x89PNG\r\n\x1a\n", 8, rv_png_read },
    { "gif", "GIF87a", 6, rv_gif_read },
    { "gif", "GIF89a", 6, rv_gif_read },
    { "pnm", "P4", 2, rv_pnm_read },
    { "pnm", "P5", 2, rv_pnm_read },
    { "pnm", "P6", 2, rv_pnm_read },
    { "bmp", "BM", 2, rv_bmp_read },
};

typedef struct stranger { const char *name; size_t at; const char *magic; size_t magic_bytes; } stranger;

static const stranger strangers[] = {
    { "WebP", 8, "WEBP", 4 },           { "AVIF", 4, "ftypavif", 8 },         { "AVIF", 4, "ftypavis", 8 },
    { "HEIC", 4, "ftyphe", 6 },         { "HEIC", 4, "ftypmif1", 8 },         { "HEIC", 4, "ftypmsf1", 8 },
    { "TIFF", 0, "II*\0", 4 },          { "TIFF", 0, "MM\0*", 4 },            { "TIFF", 0, "II+\0", 4 },
    { "TIFF", 0, "MM\0+", 4 },          { "Photoshop", 0, "8BPS", 4 },        { "Windows icon", 0, "\0\0\1\0", 4 },
    { "JPEG XL", 0, "\xff\x0a", 2 },    { "JPEG XL", 4, "JXL ", 4 },          { "JPEG 2000", 4, "jP  ", 4 },
    { "JPEG 2000", 0, "\xff\x4f\xff\x51", 4 },                                { "SVG", 0, "<svg", 4 },
    { "text PNM", 0, "P1", 2 },         { "text PNM", 0, "P2", 2 },           { "text PNM", 0, "P3", 2 },
};

static bool begins(rv_bytes file, size_t at, const char *magic, size_t bytes) {
    return file.bytes >= at + bytes && memcmp(file.data + at, magic, bytes) == 0;
}

static bool looks_like_text(rv_bytes file) {
    for (size_t i = 0; i < file.bytes && i < 64; i++)
        if (file.data[i] < 32 && !memchr("\t\n\r\f", file.data[i], 4)) return false;
    return true;
}

static rv_status unknown(rv_bytes file, rv_error *err) {
    if (begins(file, 0, "%PDF-", 5))
        return rv_fail(err, RV_ERR_UNSUPPORTED, "image: PDF is not read; render a page first, "
                       "e.g. pdftoppm -r 150 -png -singlefile FILE page");
    for (size_t i = 0; i < sizeof strangers / sizeof *strangers; i++)
        if (begins(file, strangers[i].at, strangers[i].magic, strangers[i].magic_bytes))
            return rv_fail(err, RV_ERR_UNSUPPORTED, "image: %s is not read; convert it to PNG or JPEG first",
                           strangers[i].name);
    char start[3 * 8 + 1] = "";
    for (size_t i = 0; i < file.bytes && i < 8; i++) snprintf(start + 3 * i, 4, "%02x ", file.data[i]);
    return rv_fail(err, RV_ERR_UNSUPPORTED, "image: not a picture this program reads: %s (%zu bytes, beginning %s); "
                   "give it a JPEG, PNG, GIF, BMP or PNM file",
                   looks_like_text(file) ? "it looks like text" : "unknown kind of file", file.bytes, start);
}

static const format *format_of(rv_bytes file) {
    for (size_t i = 0; i < sizeof readable / sizeof *readable; i++) {
        const format *f = &readable[i];
        if (!begins(file, 0, f->magic, f->magic_bytes)) continue;
        /* "P5" and "BM" begin many things: a number follows the one, two reserved zeros are in the other. */
        if (f->read == rv_pnm_read && (file.bytes < 3 || !strchr(" \t\r\n#", file.data[2]) || !file.data[2])) continue;
        if (f->read == rv_bmp_read && file.bytes >= 18 && rv_le32(file.data + 14) > 256) continue;
        return f;
    }
    return NULL;
}

rv_status rv_image_check_size(const char *name, uint64_t width, uint64_t height, rv_error *err) {
    if (width == 0 || height == 0)
        return rv_fail(err, RV_ERR_FORMAT, "%s: it says %" PRIu64 "x%" PRIu64 " pixels; the file is damaged: get it again",
                       name, width, height);
    if (width > RV_IMAGE_MAX_EDGE || height > RV_IMAGE_MAX_EDGE)
        return rv_fail(err, RV_ERR_TOO_LONG, "%s: %" PRIu64 "x%" PRIu64 " pixels: an edge may have %d; scale it down first",
                       name, width, height, RV_IMAGE_MAX_EDGE);
    if (width * height > RV_IMAGE_MAX_PIXELS)
        return rv_fail(err, RV_ERR_TOO_LONG, "%s: %" PRIu64 "x%" PRIu64 " pixels: a picture may have %" PRIu64
                       " in all; scale it down first", name, width, height, RV_IMAGE_MAX_PIXELS);
    return RV_OK;
}

rv_status rv_image_allocate(uint32_t width, uint32_t height, rv_pixels *out, rv_error *err) {
    out->width = width;
    out->height = height;
    out->rgb = malloc((size_t)width * height * 3);
    return out->rgb ? RV_OK : rv_fail(err, RV_ERR_MEMORY, "image: out of memory for %ux%u pixels", width, height);
}

/* ---- upright --------------------------------------------------------------------------- */

enum { BLOCK = 32 };               /* pixels; both sides of a block stay in the cache when rows become columns */

static rv_status turn_upright(rv_pixels *p, rv_error *err) {
    uint32_t o = p->orientation, w = p->width, h = p->height;
    if (o == 1) return RV_OK;
    bool swap = o >= 5, from_right, from_bottom;                 /* where the new top left pixel was */
    from_right = o == 2 || o == 3 || o == 7 || o == 8;
    from_bottom = o == 3 || o == 4 || o == 6 || o == 7;
    uint32_t new_w = swap ? h : w, new_h = swap ? w : h;
    ptrdiff_t along = from_right ? -1 : 1, down = from_bottom ? -(ptrdiff_t)w : (ptrdiff_t)w;   /* old x+1, old y+1 */
    ptrdiff_t step_x = swap ? down : along, step_y = swap ? along : down;
    const uint8_t *from = p->rgb + 3 * ((from_right ? w - 1 : 0) + (from_bottom ? (size_t)(h - 1) * w : 0));
    uint8_t *to = malloc((size_t)w * h * 3);
    if (!to) return rv_fail_memory(err, "image: turning it upright");
    for (uint32_t y0 = 0; y0 < new_h; y0 += BLOCK)
        for (uint32_t x0 = 0; x0 < new_w; x0 += BLOCK)
            for (uint32_t y = y0; y < new_h && y < y0 + BLOCK; y++) {
                uint8_t *d = to + ((size_t)y * new_w + x0) * 3;
                const uint8_t *s = from + ((ptrdiff_t)y * step_y + (ptrdiff_t)x0 * step_x) * 3;
                for (uint32_t x = x0; x < new_w && x < x0 + BLOCK; x++, d += 3, s += step_x * 3) {
                    d[0] = s[0];
                    d[1] = s[1];
                    d[2] = s[2];
                }
            }
    free(p->rgb);
    p->rgb = to;
    return RV_OK;
}

static rv_status read_image(rv_bytes file, bool ignore_exif, bool header_only, rv_pixels *out, rv_error *err) {
    if (!out || (!file.data && file.bytes)) return rv_fail(err, RV_ERR_ARGUMENT, "image: NULL where data is needed");
    if (file.bytes == 0) return rv_fail(err, RV_ERR_FORMAT, "image: the file is empty (0 bytes)");
    rv_status st;
    rv_pixels p = { .orientation = 1 };
    const format *f = format_of(file);
    if (!f) return unknown(file, err);
    snprintf(p.format, sizeof p.format, "%s", f->name);
    TRY(f->read(file, header_only, &p, err));
    if (ignore_exif) p.orientation = 1;
    if (!header_only) TRY(turn_upright(&p, err));
    if (p.orientation >= 5) {
        uint32_t width = p.width;
        p.width = p.height;
        p.height = width;
    }
done:
    if (st) rv_pixels_free(&p);
    else *out = p;
    return st;
}

rv_status rv_image_decode(const void *data, size_t bytes, bool ignore_exif, rv_pixels *out, rv_error *err) {
    return read_image((rv_bytes){ data, bytes }, ignore_exif, false, out, err);
}

rv_status rv_image_probe(const void *data, size_t bytes, bool ignore_exif, rv_pixels *out, rv_error *err) {
    return read_image((rv_bytes){ data, bytes }, ignore_exif, true, out, err);
}

void rv_pixels_free(rv_pixels *p) {
    if (!p) return;
    free(p->rgb);
    p->rgb = NULL;
}
