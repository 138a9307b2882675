/* image_bmp.c - Windows and OS/2 bitmaps: 1 to 32 bits, bit masks, run-length coding.
 *
 * The one idea: where every pixel's bytes lie follows from the header, so a file that is too short is
 * known before anything is allocated.  Numbers are Pillow's: a mask of n bits becomes v * 255 / (2^n - 1),
 * and 32-bit pixels have alpha only when the header gives it a mask.
 */
#include "loader/image_formats.h"

#include <stdlib.h>
#include <string.h>

enum { PLAIN = 0, RLE8 = 1, RLE4 = 2, MASKS = 3 };
enum { FILE_HEADER_BYTES = 14, CORE_BYTES = 12, INFO_BYTES = 40 };

typedef struct bmp {
    uint32_t width, height, bits, compression;
    bool     top_down;
    uint32_t masks[4];                           /* red, green, blue, alpha (0: none) */
    uint8_t  palette[256][3];
    uint32_t n_palette;
    size_t   at, stride;                         /* of the pixels */
} bmp;

static rv_status truncated(rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "BMP: truncated: it is shorter than its header says; get the whole file");
}

static rv_status damaged(rv_error *err, const char *why) {
    return rv_fail(err, RV_ERR_FORMAT, "BMP: %s; the file is damaged: get it again", why);
}

static rv_status unsupported(rv_error *err, const char *what, uint32_t n) {
    return rv_fail(err, RV_ERR_UNSUPPORTED, "BMP: %s %u; convert it to PNG or JPEG first", what, n);
}

static rv_status read_palette(bmp *b, rv_bytes file, size_t at, uint32_t entry, uint32_t colours, rv_error *err) {
    if (colours == 0 || colours > 1u << b->bits) colours = 1u << b->bits;
    if (file.bytes < at || (file.bytes - at) / entry < colours) return truncated(err);
    for (uint32_t i = 0; i < colours; i++)
        for (uint32_t c = 0; c < 3; c++) b->palette[i][c] = file.data[at + (size_t)i * entry + 2 - c];
    b->n_palette = colours;
    return RV_OK;
}

static void read_masks(bmp *b, rv_bytes file, uint32_t header) {
    const uint8_t *p = file.data + FILE_HEADER_BYTES;
    uint32_t n = header >= 56 && header != 64 ? 4 : 3;
    for (uint32_t i = 0; i < n; i++) b->masks[i] = rv_le32(p + 40 + 4 * i);
    if (b->bits == 32 && !(b->masks[0] | b->masks[1] | b->masks[2] | b->masks[3])) {
        static const uint32_t usual[4] = { 0xff0000, 0xff00, 0xff, 0xff000000 };
        memcpy(b->masks, usual, sizeof usual);
    }
}

static bool masks_are_runs(const bmp *b) {
    uint32_t all = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t m = b->masks[i];
        if (!m && i < 3) return false;
        if (!m) continue;
        while (!(m & 1)) m >>= 1;
        if (m & (m + 1) || m > 0xffff || all & b->masks[i]) return false;
        all |= b->masks[i];
    }
    return b->bits == 32 || all <= 0xffff || (b->bits == 24 && all <= 0xffffff);
}

static rv_status read_header(bmp *b, rv_bytes file, rv_error *err) {
    if (file.bytes < FILE_HEADER_BYTES + CORE_BYTES) return truncated(err);
    const uint8_t *p = file.data + FILE_HEADER_BYTES;
    uint32_t header = rv_le32(p), colours = 0;
    b->at = rv_le32(file.data + 10);
    if (header == CORE_BYTES) {
        b->width = rv_le16(p + 4);
        b->height = rv_le16(p + 6);
        b->bits = rv_le16(p + 10);
    } else if (header == 40 || header == 52 || header == 56 || header == 64 || header == 108 || header == 124) {
        if (file.bytes - FILE_HEADER_BYTES < header) return truncated(err);
        b->width = rv_le32(p + 4);
        b->height = rv_le32(p + 8);
        b->top_down = b->height >> 31;
        if (b->top_down) b->height = 0 - b->height;
        b->bits = rv_le16(p + 14);
        b->compression = rv_le32(p + 16);
        colours = rv_le32(p + 32);
    } else return unsupported(err, "header of bytes", header);
    rv_status st = rv_image_check_size("BMP", b->width, b->height, err);
    if (st) return st;
    if (b->compression > MASKS || (b->compression == MASKS && header == 64)) return unsupported(err, "compression", b->compression);
    size_t after = FILE_HEADER_BYTES + (size_t)header;
    static const uint32_t masks15[4] = { 0x7c00, 0x3e0, 0x1f, 0 }, masks24[4] = { 0xff0000, 0xff00, 0xff, 0 };
    memcpy(b->masks, b->bits == 16 ? masks15 : masks24, sizeof b->masks);
    bool packed = b->bits == 1 || b->bits == 4 || b->bits == 8, wide = b->bits == 16 || b->bits == 24 || b->bits == 32;
    if (!packed && !wide) return unsupported(err, "bits a pixel", b->bits);
    if ((b->compression == RLE8 && b->bits != 8) || (b->compression == RLE4 && b->bits != 4) ||
        (b->compression == MASKS && !wide))
        return damaged(err, "a compression that its bits a pixel do not allow");
    if (b->compression == MASKS) {
        if (header == INFO_BYTES) after += 12;
        if (file.bytes < after) return truncated(err);
        read_masks(b, file, header);
        if (!masks_are_runs(b)) return damaged(err, "its colour masks are not runs of bits");
    }
    b->stride = (size_t)(((uint64_t)b->width * b->bits + 31) / 32 * 4);
    if (b->at < after) return damaged(err, "its pixels begin inside its header");
    return packed ? read_palette(b, file, after, header == CORE_BYTES ? 3 : 4, colours, err) : RV_OK;
}

/* ---- pixels ---------------------------------------------------------------------------- */

typedef struct field { uint32_t mask, shift, top; } field;

static field field_of(uint32_t mask) {
    field f = { mask, 0, 0 };
    if (!mask) return f;
    while (!(mask >> f.shift & 1)) f.shift++;
    f.top = mask >> f.shift;
    return f;
}

static uint32_t byte_of(uint32_t pixel, field f) { return ((pixel & f.mask) >> f.shift) * 255 / f.top; }

static void wide_row(const bmp *b, const field fields[4], const uint8_t *row, uint8_t *out) {
    size_t step = b->bits / 8;
    for (uint32_t x = 0; x < b->width; x++, row += step, out += 3) {
        uint32_t pixel = rv_le16(row);
        if (step > 2) pixel |= (uint32_t)row[2] << 16;
        if (step > 3) pixel |= (uint32_t)row[3] << 24;
        uint32_t alpha = fields[3].mask ? byte_of(pixel, fields[3]) : 255;
        for (int c = 0; c < 3; c++) out[c] = rv_over_white(byte_of(pixel, fields[c]), alpha);
    }
}

static bool packed_row(const bmp *b, const uint8_t *row, uint8_t *out) {
    for (uint32_t x = 0; x < b->width; x++, out += 3) {
        uint32_t bit = x % (8 / b->bits) * b->bits;
        uint32_t index = (uint32_t)row[(size_t)x * b->bits / 8] >> (8 - b->bits - bit) & ((1u << b->bits) - 1);
        if (index >= b->n_palette) return false;
        memcpy(out, b->palette[index], 3);
    }
    return true;
}

static rv_status read_rows(const bmp *b, rv_bytes file, rv_pixels *out, rv_error *err) {
    size_t last = (size_t)(((uint64_t)b->width * b->bits + 7) / 8);        /* the last row's padding may be missing */
    uint64_t bytes = (uint64_t)b->stride * (b->height - 1) + last;
    if (file.bytes < b->at || file.bytes - b->at < bytes) return truncated(err);
    rv_status st = rv_image_allocate(b->width, b->height, out, err);
    if (st) return st;
    field fields[4];
    for (int i = 0; i < 4; i++) fields[i] = field_of(b->masks[i]);
    for (uint32_t y = 0; y < b->height; y++) {
        const uint8_t *row = file.data + b->at + y * b->stride;
        uint8_t *to = out->rgb + (size_t)(b->top_down ? y : b->height - 1 - y) * b->width * 3;
        if (b->bits >= 16) wide_row(b, fields, row, to);
        else if (!packed_row(b, row, to)) return damaged(err, "a pixel's index is beyond the palette");
    }
    return RV_OK;
}

/* Run-length data to one index a pixel, rows as stored; pixels skipped stay 0.  `out` NULL: only walks,
 * so that a small file with a large header is found out before anything is allocated. */
static bool unpack_runs(const bmp *b, rv_bytes data, uint8_t *out) {
    const uint8_t *p = data.data, *end = p + data.bytes;
    uint64_t x = 0, y = 0;
    while (end - p >= 2) {
        uint32_t count = p[0], value = p[1];
        p += 2;
        if (count == 0 && value == 1) return true;
        if (count == 0 && value == 0) { x = 0; y++; continue; }
        if (count == 0 && value == 2) {
            if (end - p < 2) return false;
            x += p[0];
            y += p[1];
            p += 2;
            continue;
        }
        bool run = count > 0;
        uint32_t n = run ? count : value;
        size_t bytes = run ? 0 : b->bits == 8 ? n : (n + 1) / 2;
        if ((size_t)(end - p) < bytes || y >= b->height || x + n > b->width) return false;
        for (uint32_t i = 0; out && i < n; i++) {
            uint32_t two = run ? value : b->bits == 8 ? p[i] : p[i / 2];
            out[y * b->width + x + i] = (uint8_t)(b->bits == 8 ? two : i % 2 ? two & 15 : two >> 4);
        }
        x += n;
        p += bytes + (bytes & 1 && (size_t)(end - p) > bytes);
    }
    return y >= b->height || (y == b->height - 1u && x == b->width);      /* all rows, end mark left out */
}

static rv_status read_runs(const bmp *b, rv_bytes file, rv_pixels *out, rv_error *err) {
    if (file.bytes < b->at) return truncated(err);
    rv_bytes data = { file.data + b->at, file.bytes - b->at };
    size_t pixels = (size_t)b->width * b->height;
    if (pixels / 1024 / 64 > data.bytes) return damaged(err, "there is less data than the picture needs");
    if (!unpack_runs(b, data, NULL)) return damaged(err, "its run-length data is cut or leaves the picture");
    uint8_t *indices = calloc(pixels, 1);
    if (!indices) return rv_fail_memory(err, "BMP");
    unpack_runs(b, data, indices);
    rv_status st = rv_image_allocate(b->width, b->height, out, err);
    for (size_t i = 0; !st && i < pixels; i++) {
        if (indices[i] >= b->n_palette) { st = damaged(err, "a pixel's index is beyond the palette"); break; }
        size_t y = i / b->width, x = i % b->width;
        memcpy(out->rgb + ((b->top_down ? y : b->height - 1 - y) * b->width + x) * 3, b->palette[indices[i]], 3);
    }
    free(indices);
    return st;
}

rv_status rv_bmp_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    bmp *b = calloc(1, sizeof *b);
    if (!b) return rv_fail_memory(err, "BMP");
    rv_status st;
    TRY(read_header(b, file, err));
    out->width = b->width;
    out->height = b->height;
    out->orientation = 1;
    if (header_only) goto done;
    TRY(b->compression == RLE8 || b->compression == RLE4 ? read_runs(b, file, out, err) : read_rows(b, file, out, err));
done:
    free(b);
    return st;
}
