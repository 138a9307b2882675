/* image_png.c - PNG to RGB: chunks checked here, inflated by stb_image, unfiltered here.
 *
 * The one idea: stb_image's own PNG reader checks no CRC and grows its output as the data asks; here every
 * chunk is verified, the picture's raw size is known from the header, and inflating must give exactly that.
 * Numbers are those of Hugging Face's processor (Pillow): alpha over white, 16 bit cut to the high byte.
 * Two deliberate differences: 16-bit grey is cut too (Pillow clips it at 255, which turns a scan white), and
 * a grey tRNS key is compared before scaling to 8 bit, as the PNG standard says.  As in Pillow, a tRNS key
 * of an RGB picture changes nothing: the processor leaves RGB as it is.
 */
#include "loader/image_formats.h"

#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include <stb/stb_image.h>

enum { GREY = 0, RGB = 2, PALETTE = 3, GREY_ALPHA = 4, RGBA = 6 };
enum { PASSES = 7, SIGNATURE_BYTES = 8, CHUNK_OVERHEAD = 12, INFLATE_MAX_RATIO = 1032 };

typedef struct png {
    uint32_t  width, height;
    uint32_t  depth, color, channels;         /* bits a sample, PNG colour type, samples a pixel */
    bool      interlaced;
    uint8_t   palette[256][3], alpha[256];
    uint32_t  n_palette;
    bool      has_palette, has_key;
    uint32_t  key;                            /* grey tRNS */
    uint8_t   grey[256];                      /* what a grey sample of at most 8 bits becomes, over white */
    uint32_t  n_idat;
    size_t    idat_bytes;
    rv_bytes  idat;                           /* the only IDAT, in the file; or `joined` */
    uint8_t  *joined;
    uint32_t  orientation;
} png;

typedef struct chunk { uint32_t bytes; const uint8_t *name, *data; } chunk;

static rv_status damaged(rv_error *err, const char *why) {
    return rv_fail(err, RV_ERR_FORMAT, "PNG: %s; the file is damaged: get it again", why);
}

static rv_status truncated(rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "PNG: truncated: it ends before its IEND chunk; get the whole file");
}

/* ---- chunks ---------------------------------------------------------------------------- */

static void crc_tables(uint32_t table[4][256]) {
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t c = i;
        for (int k = 0; k < 8; k++) c = c & 1 ? c >> 1 ^ 0xedb88320u : c >> 1;
        table[0][i] = c;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 4; k++) table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 255];
}

static uint32_t crc_of(uint32_t table[4][256], const uint8_t *p, size_t bytes) {
    uint32_t c = 0xffffffffu;
    for (; bytes >= 4; bytes -= 4, p += 4) {
        c ^= rv_le32(p);
        c = table[3][c & 255] ^ table[2][c >> 8 & 255] ^ table[1][c >> 16 & 255] ^ table[0][c >> 24];
    }
    for (; bytes > 0; bytes--) c = table[0][(c ^ *p++) & 255] ^ c >> 8;
    return ~c;
}

static bool is_named(const chunk *c, const char *name) { return memcmp(c->name, name, 4) == 0; }

static rv_status next_chunk(rv_bytes file, size_t *at, chunk *c, rv_error *err) {
    if (file.bytes - *at < CHUNK_OVERHEAD) return truncated(err);
    c->bytes = rv_be32(file.data + *at);
    c->name = file.data + *at + 4;
    c->data = c->name + 4;
    for (int i = 0; i < 4; i++)
        if ((c->name[i] | 32) < 'a' || (c->name[i] | 32) > 'z') return damaged(err, "a chunk's name is not letters");
    if (c->bytes > INT32_MAX) return damaged(err, "a chunk's length is beyond 2^31");
    if (c->bytes > file.bytes - *at - CHUNK_OVERHEAD) return truncated(err);
    *at += (size_t)c->bytes + CHUNK_OVERHEAD;
    return RV_OK;
}

static rv_status read_header(png *p, const chunk *c, rv_error *err) {
    static const uint8_t channels[7] = { 1, 0, 3, 1, 2, 0, 4 };
    if (!is_named(c, "IHDR") || c->bytes != 13) return damaged(err, "it does not begin with a 13-byte IHDR chunk");
    p->width = rv_be32(c->data);
    p->height = rv_be32(c->data + 4);
    p->depth = c->data[8];
    p->color = c->data[9];
    if (p->color > RGBA || !channels[p->color]) return damaged(err, "IHDR has an unknown colour type");
    bool small = p->depth == 1 || p->depth == 2 || p->depth == 4;
    bool ok = p->depth == 8 || (p->depth == 16 && p->color != PALETTE) ||
              (small && (p->color == GREY || p->color == PALETTE));
    if (!ok) return damaged(err, "IHDR has a bit depth that its colour type does not allow");
    if (c->data[10] || c->data[11] || c->data[12] > 1)
        return damaged(err, "IHDR has an unknown compression, filter or interlace method");
    p->channels = channels[p->color];
    p->interlaced = c->data[12] == 1;
    return rv_image_check_size("PNG", p->width, p->height, err);
}

static rv_status read_palette(png *p, const chunk *c, rv_error *err) {
    if (p->has_palette || p->n_idat || p->color == GREY || p->color == GREY_ALPHA)
        return damaged(err, "a PLTE chunk where none may be");
    if (c->bytes % 3 || c->bytes == 0 || c->bytes > sizeof p->palette) return damaged(err, "PLTE has a wrong length");
    memcpy(p->palette, c->data, c->bytes);
    p->n_palette = c->bytes / 3;
    p->has_palette = true;
    return RV_OK;
}

static rv_status read_transparency(png *p, const chunk *c, rv_error *err) {
    if (p->n_idat) return damaged(err, "a tRNS chunk after the picture");
    if (p->color == PALETTE) {
        if (!p->has_palette || c->bytes > p->n_palette) return damaged(err, "tRNS does not fit the palette");
        memcpy(p->alpha, c->data, c->bytes);
    } else if (p->color == GREY) {
        if (c->bytes != 2) return damaged(err, "tRNS has a wrong length");
        p->has_key = true;
        p->key = rv_be16(c->data);
    }
    return RV_OK;
}

static rv_status read_chunk(png *p, const chunk *c, bool *idat_ended, rv_error *err) {
    if (is_named(c, "IDAT")) {
        if (*idat_ended) return damaged(err, "its IDAT chunks are not together");
        p->idat = (rv_bytes){ c->data, c->bytes };
        p->idat_bytes += c->bytes;
        p->n_idat++;
        return RV_OK;
    }
    if (p->n_idat) *idat_ended = true;
    if (is_named(c, "PLTE")) return read_palette(p, c, err);
    if (is_named(c, "tRNS")) return read_transparency(p, c, err);
    if (is_named(c, "eXIf")) p->orientation = rv_exif_orientation(c->data, c->bytes);
    if (is_named(c, "CgBI"))
        return rv_fail(err, RV_ERR_UNSUPPORTED, "PNG: Apple's CgBI variant; convert it to a standard PNG or JPEG first");
    if (c->name[0] & 32 || is_named(c, "IEND")) return RV_OK;
    if (is_named(c, "IHDR")) return damaged(err, "a second IHDR chunk");
    return rv_fail(err, RV_ERR_UNSUPPORTED, "PNG: unknown critical chunk %.4s; convert it to a standard PNG or JPEG first",
                   (const char *)c->name);
}

/* Every chunk to IEND; what follows IEND is not looked at. */
static rv_status read_chunks(png *p, rv_bytes file, bool check_crc, rv_error *err) {
    uint32_t table[4][256];
    size_t at = SIGNATURE_BYTES;
    bool idat_ended = false;
    chunk c = { 0 };
    crc_tables(table);
    for (uint32_t i = 0;; i++) {
        rv_status st = next_chunk(file, &at, &c, err);
        if (st) return st;
        if ((check_crc || c.bytes < 65536) && crc_of(table, c.name, (size_t)c.bytes + 4) != rv_be32(c.data + c.bytes))
            return rv_fail(err, RV_ERR_FORMAT, "PNG: chunk %.4s fails its checksum; the file is damaged: get it again",
                           (const char *)c.name);
        st = i == 0 ? read_header(p, &c, err) : read_chunk(p, &c, &idat_ended, err);
        if (st) return st;
        if (is_named(&c, "IEND")) break;
    }
    if (!p->n_idat) return damaged(err, "it has no IDAT chunk");
    if (p->color == PALETTE && !p->has_palette) return damaged(err, "it has no palette");
    return RV_OK;
}

static rv_status join_idat(png *p, rv_bytes file, rv_error *err) {
    if (p->n_idat == 1) return RV_OK;
    if (!(p->joined = malloc(p->idat_bytes ? p->idat_bytes : 1))) return rv_fail_memory(err, "PNG");
    size_t at = SIGNATURE_BYTES, filled = 0;
    for (;;) {
        chunk c;
        rv_status st = next_chunk(file, &at, &c, err);
        if (st) return st;
        if (is_named(&c, "IEND")) break;
        if (!is_named(&c, "IDAT")) continue;
        memcpy(p->joined + filled, c.data, c.bytes);
        filled += c.bytes;
    }
    p->idat = (rv_bytes){ p->joined, filled };
    return RV_OK;
}

/* ---- rows ------------------------------------------------------------------------------ */

typedef struct pass { uint32_t x, y, dx, dy, width, height; } pass;      /* a pass covers x, x+dx, ..; y, y+dy, .. */

static pass pass_of(const png *p, int i) {
    static const uint8_t adam7[PASSES][4] = { { 0, 0, 8, 8 }, { 4, 0, 8, 8 }, { 0, 4, 4, 8 }, { 2, 0, 4, 4 },
                                              { 0, 2, 2, 4 }, { 1, 0, 2, 2 }, { 0, 1, 1, 2 } };
    if (!p->interlaced) return (pass){ 0, 0, 1, 1, p->width, p->height };
    pass s = { adam7[i][0], adam7[i][1], adam7[i][2], adam7[i][3], 0, 0 };
    s.width = p->width > s.x ? (p->width - s.x + s.dx - 1) / s.dx : 0;
    s.height = p->height > s.y ? (p->height - s.y + s.dy - 1) / s.dy : 0;
    return s;
}

static size_t row_bytes(const png *p, uint32_t width) {
    return (size_t)(((uint64_t)width * p->channels * p->depth + 7) / 8);
}

static uint64_t raw_bytes(const png *p) {
    uint64_t total = 0;
    for (int i = 0; i < (p->interlaced ? PASSES : 1); i++) {
        pass s = pass_of(p, i);
        if (s.width) total += (uint64_t)s.height * (row_bytes(p, s.width) + 1);
    }
    return total;
}

static uint8_t paeth(int left, int up, int corner) {
    int to_left = abs(up - corner), to_up = abs(left - corner), to_corner = abs(left + up - 2 * corner);
    return (uint8_t)(to_left <= to_up && to_left <= to_corner ? left : to_up <= to_corner ? up : corner);
}

/* In place; `up` is the unfiltered row above, NULL for the first; step: bytes a whole pixel. */
static bool unfilter(uint8_t filter, uint8_t *restrict row, const uint8_t *restrict up, size_t bytes, size_t step) {
    size_t first = bytes < step ? bytes : step;
    switch (filter) {
    case 0: return true;
    case 1:
        for (size_t i = step; i < bytes; i++) row[i] = (uint8_t)(row[i] + row[i - step]);
        return true;
    case 2:
        for (size_t i = 0; up && i < bytes; i++) row[i] = (uint8_t)(row[i] + up[i]);
        return true;
    case 3:
        for (size_t i = 0; i < bytes; i++)
            row[i] = (uint8_t)(row[i] + ((i < step ? 0 : row[i - step]) + (up ? up[i] : 0)) / 2);
        return true;
    case 4:
        if (!up) return unfilter(1, row, NULL, bytes, step);
        for (size_t i = 0; i < first; i++) row[i] = (uint8_t)(row[i] + up[i]);
        for (size_t i = step; i < bytes; i++) row[i] = (uint8_t)(row[i] + paeth(row[i - step], up[i], up[i - step]));
        return true;
    default: return false;
    }
}

static uint32_t sample_at(const uint8_t *row, uint32_t x, uint32_t depth) {
    if (depth == 8) return row[x];
    uint32_t bit = (x % (8 / depth)) * depth;
    return (uint32_t)row[(size_t)x * depth / 8] >> (8 - depth - bit) & ((1u << depth) - 1);
}

/* One row of samples to RGB, `step` bytes from pixel to pixel of `out`; false: an index beyond the palette. */
static bool expand_row(const png *p, const uint8_t *row, uint32_t width, uint8_t *out, size_t step) {
    size_t wide = p->depth == 16 ? 2 : 1, pixel = p->channels * wide;
    if (p->color == RGB && step == 3 && wide == 1) {
        memcpy(out, row, (size_t)width * 3);
        return true;
    }
    for (uint32_t x = 0; x < width; x++, out += step) {
        const uint8_t *s = row + x * pixel;
        switch (p->color) {
        case GREY:
            if (wide == 2) out[0] = p->has_key && rv_be16(s) == p->key ? 255 : s[0];
            else out[0] = p->grey[sample_at(row, x, p->depth)];
            out[1] = out[2] = out[0];
            break;
        case PALETTE: {
            uint32_t index = sample_at(row, x, p->depth);
            if (index >= p->n_palette) return false;
            memcpy(out, p->palette[index], 3);
            break;
        }
        case GREY_ALPHA:
            out[0] = out[1] = out[2] = rv_over_white(s[0], s[wide]);
            break;
        case RGBA:
            for (size_t c = 0; c < 3; c++) out[c] = rv_over_white(s[c * wide], s[3 * wide]);
            break;
        default:
            for (size_t c = 0; c < 3; c++) out[c] = s[c * wide];
        }
    }
    return true;
}

/* Palette and grey values as they will be written: scaled to 8 bit, over white. */
static void prepare_values(png *p) {
    uint32_t top = p->depth < 8 ? (1u << p->depth) - 1 : 255;
    for (uint32_t i = 0; i < p->n_palette; i++)
        for (int c = 0; c < 3; c++) p->palette[i][c] = rv_over_white(p->palette[i][c], p->alpha[i]);
    for (uint32_t i = 0; i <= top; i++) p->grey[i] = (uint8_t)(p->has_key && i == p->key ? 255 : i * 255 / top);
}

static rv_status rgb_from_raw(const png *p, uint8_t *raw, uint8_t *rgb, rv_error *err) {
    size_t step = p->channels * p->depth < 8 ? 1 : p->channels * p->depth / 8;
    for (int i = 0; i < (p->interlaced ? PASSES : 1); i++) {
        pass s = pass_of(p, i);
        if (!s.width) continue;
        size_t bytes = row_bytes(p, s.width);
        const uint8_t *up = NULL;
        for (uint32_t y = 0; y < s.height; y++, raw += bytes + 1) {
            if (!unfilter(raw[0], raw + 1, up, bytes, step)) return damaged(err, "a row has an unknown filter");
            size_t at = ((size_t)(s.y + y * s.dy) * p->width + s.x) * 3;
            if (!expand_row(p, raw + 1, s.width, rgb + at, (size_t)s.dx * 3))
                return damaged(err, "a pixel's index is beyond the palette");
            up = raw + 1;
        }
    }
    return RV_OK;
}

static rv_status read_picture(png *p, rv_bytes file, rv_pixels *out, rv_error *err) {
    rv_status st = RV_OK;
    uint8_t *raw = NULL;
    uint64_t bytes = raw_bytes(p);
    if (bytes > INT_MAX || p->idat_bytes > INT_MAX)
        return rv_fail(err, RV_ERR_TOO_LONG, "PNG: %ux%u pixels of %u bits are more than 2 GiB; convert it to 8 bit first",
                       p->width, p->height, p->depth * p->channels);
    /* Deflate cannot do better than this, so nothing large is allocated for a picture that is not there. */
    if (bytes / INFLATE_MAX_RATIO > p->idat_bytes)
        return damaged(err, "there is less data than the picture needs");
    TRY(join_idat(p, file, err));
    if (!(raw = malloc((size_t)bytes))) {
        st = rv_fail_memory(err, "PNG");
        goto done;
    }
    int got = stbi_zlib_decode_buffer((char *)raw, (int)bytes, (const char *)p->idat.data, (int)p->idat.bytes);
    if (got < 0 || (uint64_t)got != bytes) {
        st = damaged(err, "its compressed data does not give the picture's size");
        goto done;
    }
    TRY(rv_image_allocate(p->width, p->height, out, err));
    prepare_values(p);
    TRY(rgb_from_raw(p, raw, out->rgb, err));
done:
    free(raw);
    return st;
}

rv_status rv_png_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    png *p = calloc(1, sizeof *p);
    if (!p) return rv_fail_memory(err, "PNG");
    p->orientation = 1;
    memset(p->alpha, 255, sizeof p->alpha);
    rv_status st;
    TRY(read_chunks(p, file, !header_only, err));
    out->width = p->width;
    out->height = p->height;
    out->orientation = p->orientation;
    if (!header_only) TRY(read_picture(p, file, out, err));
done:
    free(p->joined);
    free(p);
    return st;
}
