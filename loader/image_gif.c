/* image_gif.c - the first frame of a GIF, as Pillow shows it.
 *
 * The one idea: indices are unpacked into the canvas first (undrawn parts hold the transparent index, or
 * 0), then the palette turns all of them into colours; a stream that ends early is an error.
 */
#include "loader/image_formats.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_CODES = 4096, SCREEN_BYTES = 13, IMAGE_BYTES = 10, NOT_TRANSPARENT = 256 };

typedef struct gif {
    rv_bytes file;
    size_t   at;
    uint32_t width, height;                      /* of the canvas: the screen, grown to hold the frame */
    uint32_t left, top, frame_width, frame_height;
    uint32_t transparent;
    bool     interlaced;
    const uint8_t *palette;                      /* NULL: grey */
    uint32_t n_palette;
} gif;

static rv_status truncated(rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "GIF: truncated: it ends before its end mark; get the whole file");
}

static rv_status damaged(rv_error *err, const char *why) {
    return rv_fail(err, RV_ERR_FORMAT, "GIF: %s; the file is damaged: get it again", why);
}

/* Moves over `bytes`; NULL when they are not all there. */
static const uint8_t *take(gif *g, size_t bytes) {
    if (bytes > g->file.bytes - g->at) return NULL;
    const uint8_t *p = g->file.data + g->at;
    g->at += bytes;
    return p;
}

static bool skip_blocks(gif *g) {
    for (;;) {
        const uint8_t *length = take(g, 1);
        if (!length) return false;
        if (*length == 0) return true;
        if (!take(g, *length)) return false;
    }
}

static bool read_palette(gif *g, uint32_t flags) {
    if (!(flags & 0x80)) return true;
    g->n_palette = 2u << (flags & 7);
    return (g->palette = take(g, (size_t)g->n_palette * 3)) != NULL;
}

/* To the first image's data.  Only the first graphic control before it matters; the last one wins. */
static rv_status read_header(gif *g, rv_error *err) {
    const uint8_t *p = take(g, SCREEN_BYTES);
    if (!p) return truncated(err);
    g->width = rv_le16(p + 6);
    g->height = rv_le16(p + 8);
    g->transparent = NOT_TRANSPARENT;
    if (!read_palette(g, p[10])) return truncated(err);
    for (;;) {
        if (!(p = take(g, 1))) return truncated(err);
        if (*p == ',') break;
        if (*p == ';') return damaged(err, "it holds no picture");
        if (*p != '!') return damaged(err, "an unknown block");
        if (!(p = take(g, 2))) return truncated(err);
        if (p[0] == 0xf9 && p[1] >= 4) {
            if (g->file.bytes - g->at < 4) return truncated(err);
            const uint8_t *control = g->file.data + g->at;
            if (control[0] & 1) g->transparent = control[3];
        }
        g->at--;                                                /* back to the first block's length */
        if (!skip_blocks(g)) return truncated(err);
    }
    if (!(p = take(g, IMAGE_BYTES - 1))) return truncated(err);
    g->left = rv_le16(p);
    g->top = rv_le16(p + 2);
    g->frame_width = rv_le16(p + 4);
    g->frame_height = rv_le16(p + 6);
    g->interlaced = p[8] & 0x40;
    if (!read_palette(g, p[8])) return truncated(err);
    if (!g->frame_width || !g->frame_height) return damaged(err, "its first frame is empty");
    if (g->left + g->frame_width > g->width) g->width = g->left + g->frame_width;
    if (g->top + g->frame_height > g->height) g->height = g->top + g->frame_height;
    return rv_image_check_size("GIF", g->width, g->height, err);
}

/* ---- LZW ------------------------------------------------------------------------------- */

typedef struct bits { const uint8_t *data, *end; uint32_t left_in_block, buffer, held; } bits;

/* The next `n` bits across sub-blocks; -1 at the end of the data. */
static int32_t next_code(bits *b, uint32_t n) {
    while (b->held < n) {
        if (b->left_in_block == 0) {
            if (b->data == b->end || *b->data == 0) return -1;
            b->left_in_block = *b->data++;
        }
        if (b->data == b->end) return -1;
        b->buffer |= (uint32_t)*b->data++ << b->held;
        b->held += 8;
        b->left_in_block--;
    }
    int32_t code = (int32_t)(b->buffer & ((1u << n) - 1));
    b->buffer >>= n;
    b->held -= n;
    return code;
}

typedef struct lzw {                             /* code i stands for code prefix[i], then last[i] */
    uint16_t prefix[MAX_CODES], length[MAX_CODES];
    uint8_t  last[MAX_CODES], first[MAX_CODES];
} lzw;

/* Unpacks exactly `total` indices; `out` NULL: only counts.  false: the data is damaged or ends early. */
static bool unpack(lzw *t, bits b, uint32_t root_bits, uint8_t *out, uint64_t total) {
    uint32_t clear = 1u << root_bits, next = clear + 2, width = root_bits + 1;
    int32_t previous = -1;
    uint64_t done = 0;
    for (uint32_t i = 0; i < clear; i++) {
        t->last[i] = t->first[i] = (uint8_t)i;
        t->length[i] = 1;
    }
    while (done < total) {
        int32_t read = next_code(&b, width);
        if (read < 0 || read == (int32_t)clear + 1) return false;
        uint32_t code = (uint32_t)read;
        if (code == clear) {
            next = clear + 2;
            width = root_bits + 1;
            previous = -1;
            continue;
        }
        if (code > next || (code == next && (previous < 0 || next == MAX_CODES)) || (previous < 0 && code > clear))
            return false;
        if (previous >= 0 && next < MAX_CODES) {
            uint32_t before = (uint32_t)previous;
            t->prefix[next] = (uint16_t)before;
            t->first[next] = t->first[before];
            t->last[next] = code == next ? t->first[before] : t->first[code];
            t->length[next] = (uint16_t)(t->length[before] + 1);
            next++;
            if (next == 1u << width && width < 12) width++;
        }
        uint64_t end = done + t->length[code];
        if (out) {
            uint32_t c = code;
            for (uint64_t i = end; i-- > done; c = t->prefix[c])
                if (i < total) out[i] = t->last[c];
        }
        done = end;
        previous = read;
    }
    return true;
}

/* ---- pixels ---------------------------------------------------------------------------- */

/* Row y of the data is this row of the frame. */
static uint32_t frame_row(const gif *g, uint32_t y) {
    if (!g->interlaced) return y;
    static const uint8_t start[4] = { 0, 4, 2, 1 }, step[4] = { 8, 8, 4, 2 };
    for (int i = 0; i < 4; i++) {
        uint32_t rows = g->frame_height > start[i] ? (g->frame_height - start[i] + step[i] - 1) / step[i] : 0;
        if (y < rows) return start[i] + y * step[i];
        y -= rows;
    }
    return 0;
}

static rv_status colour(const gif *g, const uint8_t *indices, rv_pixels *out, rv_error *err) {
    uint8_t table[256][3];
    bool    known[256];
    for (uint32_t i = 0; i < 256; i++) {
        known[i] = i == g->transparent || !g->palette || i < g->n_palette;
        for (int c = 0; c < 3; c++)
            table[i][c] = (uint8_t)(i == g->transparent ? 255 : g->palette && i < g->n_palette ? g->palette[i * 3 + (uint32_t)c] : i);
    }
    const uint8_t *around = table[g->transparent < NOT_TRANSPARENT ? g->transparent : 0];
    size_t canvas = (size_t)g->width * g->height;
    if (g->frame_width < g->width || g->frame_height < g->height)
        for (size_t i = 0; i < canvas; i++) memcpy(out->rgb + i * 3, around, 3);
    for (uint32_t y = 0; y < g->frame_height; y++) {
        const uint8_t *row = indices + (size_t)y * g->frame_width;
        uint8_t *to = out->rgb + ((size_t)(g->top + frame_row(g, y)) * g->width + g->left) * 3;
        for (uint32_t x = 0; x < g->frame_width; x++, to += 3) {
            if (!known[row[x]]) return damaged(err, "a pixel's index is beyond the palette");
            memcpy(to, table[row[x]], 3);
        }
    }
    return RV_OK;
}

/* After the first frame nothing is decoded, but the blocks must go on to the end mark. */
static rv_status check_rest(gif *g, rv_error *err) {
    if (!skip_blocks(g)) return truncated(err);
    for (;;) {
        const uint8_t *p = take(g, 1);
        if (!p) return truncated(err);
        if (*p == ';') return RV_OK;
        if (*p == '!') {
            if (!take(g, 1)) return truncated(err);
        } else if (*p == ',') {
            if (!(p = take(g, IMAGE_BYTES - 1))) return truncated(err);
            if (p[8] & 0x80 && !take(g, (size_t)3 * (2u << (p[8] & 7)))) return truncated(err);
            if (!take(g, 1)) return truncated(err);
        } else return damaged(err, "an unknown block");
        if (!skip_blocks(g)) return truncated(err);
    }
}

static rv_status read_frame(gif *g, rv_pixels *out, rv_error *err) {
    rv_status st = RV_OK;
    uint8_t *indices = NULL;
    uint64_t total = (uint64_t)g->frame_width * g->frame_height;
    lzw *table = malloc(sizeof *table);
    if (!table) return rv_fail_memory(err, "GIF");
    const uint8_t *root = take(g, 1);
    if (!root) { st = truncated(err); goto done; }
    if (*root < 1 || *root > 8) { st = damaged(err, "its code size is not 1 to 8"); goto done; }
    bits b = { .data = g->file.data + g->at, .end = g->file.data + g->file.bytes };
    TRY(check_rest(g, err));
    /* Counting first costs no memory: a small file that claims a large picture ends here. */
    if (!unpack(table, b, *root, NULL, total)) { st = damaged(err, "its first frame is incomplete"); goto done; }
    if (!(indices = malloc((size_t)total))) { st = rv_fail_memory(err, "GIF"); goto done; }
    unpack(table, b, *root, indices, total);
    TRY(rv_image_allocate(g->width, g->height, out, err));
    TRY(colour(g, indices, out, err));
done:
    free(indices);
    free(table);
    return st;
}

rv_status rv_gif_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    gif g = { .file = file };
    rv_status st = read_header(&g, err);
    if (st) return st;
    out->width = g.width;
    out->height = g.height;
    out->orientation = 1;
    return header_only ? RV_OK : read_frame(&g, out, err);
}
