/* image_pnm.c - binary PBM, PGM and PPM (P4, P5, P6), as pdftoppm and scanners write them. */
#include "loader/image_formats.h"

#include <math.h>

typedef struct cursor { const uint8_t *at, *end; } cursor;

static bool is_space(uint8_t c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A whole number after white space and comments; false when there is none or it exceeds `limit`. */
static bool read_number(cursor *c, uint32_t limit, uint32_t *out) {
    while (c->at < c->end && (is_space(*c->at) || *c->at == '#')) {
        if (*c->at == '#')
            while (c->at < c->end && *c->at != '\n' && *c->at != '\r') c->at++;
        else c->at++;
    }
    const uint8_t *start = c->at;
    uint64_t value = 0;
    for (; c->at < c->end && *c->at >= '0' && *c->at <= '9'; c->at++) {
        value = value * 10 + (uint64_t)(*c->at - '0');
        if (value > limit) return false;
    }
    *out = (uint32_t)value;
    return c->at > start;
}

/* Pillow's scaling to 8 bit, in doubles, half to even.  (It keeps 16-bit grey as 16 bits; here that is
 * scaled like 16-bit colour.) */
static uint8_t to_byte(uint32_t value, uint32_t maxval) {
    return value >= maxval ? 255 : (uint8_t)lrint((double)value / maxval * 255.0);
}

static void rgb_from_pnm(char kind, const uint8_t *data, uint32_t maxval, rv_pixels *out) {
    size_t pixels = (size_t)out->width * out->height;
    uint8_t *rgb = out->rgb;
    if (kind == '4') {
        size_t stride = ((size_t)out->width + 7) / 8;
        for (uint32_t y = 0; y < out->height; y++)
            for (uint32_t x = 0; x < out->width; x++, rgb += 3)
                rgb[0] = rgb[1] = rgb[2] = data[y * stride + x / 8] >> (7 - x % 8) & 1 ? 0 : 255;
        return;
    }
    for (size_t i = 0, at = 0; i < pixels; i++, rgb += 3)
        for (int c = 0; c < 3; c++) {
            if (c > 0 && kind == '5') { rgb[c] = rgb[0]; continue; }
            uint32_t value = maxval > 255 ? rv_be16(data + at) : data[at];
            at += maxval > 255 ? 2 : 1;
            rgb[c] = maxval == 255 ? (uint8_t)value : to_byte(value, maxval);
        }
}

rv_status rv_pnm_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    cursor c = { file.data + 2, file.data + file.bytes };
    char kind = (char)file.data[1];
    uint32_t width, height, maxval = 1;
    if (!read_number(&c, UINT32_MAX, &width) || !read_number(&c, UINT32_MAX, &height) ||
        (kind != '4' && (!read_number(&c, 65535, &maxval) || maxval == 0)) || c.at == c.end || !is_space(*c.at))
        return rv_fail(err, RV_ERR_FORMAT, "PNM: the header does not say width, height and maximum; "
                       "the file is damaged: get it again");
    c.at++;
    rv_status st = rv_image_check_size("PNM", width, height, err);
    if (st) return st;
    uint64_t samples = (uint64_t)width * height * (kind == '6' ? 3 : 1) * (maxval > 255 ? 2 : 1);
    if (kind == '4') samples = ((uint64_t)width + 7) / 8 * height;
    if (samples > (uint64_t)(c.end - c.at))
        return rv_fail(err, RV_ERR_FORMAT, "PNM: truncated: %ux%u pixels need %llu bytes, %zu are there; get the whole file",
                       width, height, (unsigned long long)samples, (size_t)(c.end - c.at));
    out->width = width;
    out->height = height;
    if (header_only) return RV_OK;
    if ((st = rv_image_allocate(width, height, out, err))) return st;
    rgb_from_pnm(kind, c.at, maxval, out);
    return RV_OK;
}
