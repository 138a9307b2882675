/* picture.c - see picture.h. */
#include "tools/picture.h"

#include <png.h>
#include <stdlib.h>
#include <string.h>

typedef struct pnm { char kind; uint32_t width, height, most; const unsigned char *samples; size_t bytes; } pnm;

static bool is_space(unsigned char c) { return c == ' ' || (c >= '\t' && c <= '\r'); }

/* A whole number behind white space and comments. */
static bool read_number(const unsigned char **at, const unsigned char *end, uint32_t *out) {
    const unsigned char *c = *at;
    for (bool comment = false; c < end && (comment || is_space(*c) || *c == '#'); c++) comment = *c == '#' || (comment && *c != '\n' && *c != '\r');
    const unsigned char *start = c;
    for (*out = 0; c < end && *c >= '0' && *c <= '9' && *out < 1000000; c++) *out = *out * 10 + (uint32_t)(*c - '0');
    *at = c;
    return c > start && *out > 0 && *out <= 65535;
}

static size_t row_bytes(const pnm *p) {
    return p->kind == '4' ? ((size_t)p->width + 7) / 8 : (size_t)p->width * (p->kind == '6' ? 3 : 1) * (p->most > 255 ? 2 : 1);
}

/* The reader of images has looked already: what is wrong here is a bug or a file that it does not read either. */
static bool read_head(const input *file, pnm *p) {
    const unsigned char *at = (const unsigned char *)file->data + 2, *end = (const unsigned char *)file->data + file->bytes;
    *p = (pnm){ .kind = file->data[1], .most = 1 };
    if (!read_number(&at, end, &p->width) || !read_number(&at, end, &p->height) || (p->kind != '4' && !read_number(&at, end, &p->most))) return false;
    if (at == end || !is_space(*at)) return false;
    p->samples = at + 1;
    p->bytes = (size_t)(end - p->samples);
    return p->bytes >= row_bytes(p) * p->height;
}

/* All samples in 8 bit, one or three a pixel. */
static void spread(const pnm *p, unsigned char *out) {
    const size_t row = row_bytes(p), samples = (size_t)p->width * (p->kind == '6' ? 3 : 1);
    for (uint32_t y = 0; y < p->height; y++) {
        const unsigned char *in = p->samples + row * y;
        for (size_t i = 0; i < samples; i++, out++) {
            if (p->kind == '4') *out = in[i / 8] >> (7 - i % 8) & 1 ? 0 : 255;
            else {
                const uint32_t value = p->most > 255 ? (uint32_t)in[2 * i] << 8 | in[2 * i + 1] : in[i];
                *out = (unsigned char)(value >= p->most ? 255 : (value * 255 + p->most / 2) / p->most);
            }
        }
    }
}

static rv_status write_png(const pnm *p, const char *name, const unsigned char *pixels, input *out, rv_error *err) {
    png_image image = { .version = PNG_IMAGE_VERSION, .width = p->width, .height = p->height, .format = p->kind == '6' ? PNG_FORMAT_RGB : PNG_FORMAT_GRAY,
                        .flags = PNG_IMAGE_FLAG_FAST };
    png_alloc_size_t room = PNG_IMAGE_PNG_SIZE_MAX(image);
    char *data = malloc(room);
    if (!data) return fail(err, RV_ERR_MEMORY, "%s: out of memory", name);
    if (!png_image_write_to_memory(&image, data, &room, 0, pixels, 0, NULL)) {
        free(data);
        return fail(err, RV_ERR_MEMORY, "%s: cannot be made a PNG: %s", name, image.message);
    }
    *out = (input){ data, room, name };
    return RV_OK;
}

rv_status picture_png(const input *file, input *out, rv_error *err) {
    pnm p;
    *out = (input){ 0 };
    if (file->bytes < 3 || file->data[0] != 'P' || file->data[1] < '4' || file->data[1] > '6') return RV_OK;
    if (!read_head(file, &p)) return fail(err, RV_ERR_FORMAT, "%s: PNM: the file is damaged: get it again", file->name);
    unsigned char *pixels = malloc((size_t)p.width * p.height * 3);
    if (!pixels) return fail(err, RV_ERR_MEMORY, "%s: out of memory", file->name);
    spread(&p, pixels);
    rv_status st = write_png(&p, file->name, pixels, out, err);
    free(pixels);
    return st;
}
