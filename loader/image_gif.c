/* image_gif.c - the first frame of a GIF through giflib, as Pillow shows it.
 *
 * The one idea: giflib shows colours for codes that cannot be, so the codes are checked first, which costs no
 * memory however large the picture claims to be.  What the frame leaves undrawn is the transparent colour
 * (white), or colour 0.
 */
#include "loader/image_formats.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <gif_lib.h>

enum { MAX_CODES = 4096 };

typedef struct gif {
    rv_bytes     file;
    size_t       at;
    GifFileType *lib;
    int          transparent;                    /* index, or NO_TRANSPARENT_COLOR */
} gif;

static rv_status damaged(rv_error *err, const char *why) {
    return rv_fail(err, RV_ERR_FORMAT, "GIF: %s; the file is damaged: get it again", why);
}

static rv_status failed(const gif *g, int error, rv_error *err) {
    /* giflib calls a screen without memory for its palette missing: what malloc said is still there. */
    if (error == D_GIF_ERR_NOT_ENOUGH_MEM || errno == ENOMEM) return rv_fail_memory(err, "GIF");
    if (g->at == g->file.bytes)
        return rv_fail(err, RV_ERR_FORMAT, "GIF: truncated: it ends before its end mark; get the whole file");
    const char *why = GifErrorString(error);
    return damaged(err, why ? why : "it cannot be read");
}

static int on_read(GifFileType *lib, GifByteType *to, int bytes) {
    gif   *g = lib->UserData;
    size_t left = g->file.bytes - g->at, n = (size_t)bytes < left ? (size_t)bytes : left;
    memcpy(to, g->file.data + g->at, n);
    g->at += n;
    return (int)n;
}

/* To the data of the next image, or to the end mark: *image says which. */
static rv_status next_image(gif *g, bool *image, rv_error *err) {
    GifRecordType type;
    GifByteType  *block;
    int           code, ok;
    while ((ok = DGifGetRecordType(g->lib, &type)) && type == EXTENSION_RECORD_TYPE) {
        for (ok = DGifGetExtension(g->lib, &code, &block); ok && block; ok = DGifGetExtensionNext(g->lib, &block))
            if (code == GRAPHICS_EXT_FUNC_CODE && block[0] >= 4 && block[1] & 1) g->transparent = block[4];
        if (!ok) break;
    }
    *image = ok && type == IMAGE_DESC_RECORD_TYPE;
    if (*image) ok = DGifGetImageHeader(g->lib);
    return ok ? RV_OK : failed(g, g->lib->Error, err);
}

/* Opens the file (again) and goes to its first image. */
static rv_status open_first(gif *g, rv_error *err) {
    int  error = 0;
    bool image;
    if (g->lib) DGifCloseFile(g->lib, NULL);
    g->at = 0;
    g->transparent = NO_TRANSPARENT_COLOR;
    errno = 0;
    if (!(g->lib = DGifOpen(g, on_read, &error))) return failed(g, error, err);
    rv_status st = next_image(g, &image, err);
    if (st) return st;
    if (!image) return damaged(err, "it holds no picture");
    if (!g->lib->Image.Width || !g->lib->Image.Height) return damaged(err, "its first frame is empty");
    return RV_OK;
}

/* Every code of the image's data stands for a colour or for what the codes before have made, and together they
 * are the whole frame. */
static rv_status check_codes(gif *g, rv_error *err) {
    uint16_t length[MAX_CODES];                  /* of what a code stands for */
    int clear = 1 << g->file.data[g->at - 1], next = clear + 2, previous = -1, code;
    if (clear < 2) return damaged(err, "its code size is not 1 to 8");
    for (int i = 0; i < clear; i++) length[i] = 1;
    for (int64_t left = (int64_t)g->lib->Image.Width * g->lib->Image.Height; left > 0;) {
        bool got = DGifGetLZCodes(g->lib, &code);
        if (!got && g->at == g->file.bytes) return failed(g, g->lib->Error, err);
        if (!got || code < 0) return damaged(err, "its first frame is incomplete");
        if (code == clear) {
            next = clear + 2;
            previous = -1;
            continue;
        }
        if (code > (previous < 0 ? clear - 1 : next)) return damaged(err, "a code that stands for nothing");
        if (previous >= 0 && next < MAX_CODES) length[next++] = (uint16_t)(length[previous] + 1);
        left -= length[code];
        previous = code;
    }
    return RV_OK;
}

/* The colours of the 256 indices; false in *known: there is none. */
static void colour_table(const gif *g, uint8_t table[256][3], bool known[256]) {
    const ColorMapObject *map = g->lib->Image.ColorMap ? g->lib->Image.ColorMap : g->lib->SColorMap;
    for (int i = 0; i < 256; i++) {
        uint8_t grey = i == g->transparent ? 255 : (uint8_t)i;
        known[i] = i == g->transparent || !map || i < map->ColorCount;
        memset(table[i], grey, 3);
        if (i != g->transparent && map && i < map->ColorCount)
            memcpy(table[i], (const uint8_t[]){ map->Colors[i].Red, map->Colors[i].Green, map->Colors[i].Blue }, 3);
    }
}

static rv_status read_frame(gif *g, uint8_t *row, rv_pixels *out, rv_error *err) {
    static const int start[4] = { 0, 4, 2, 1 }, step[4] = { 8, 8, 4, 2 };
    const GifImageDesc *frame = &g->lib->Image;
    uint8_t table[256][3];
    bool    known[256];
    rv_status st = rv_image_allocate(out->width, out->height, out, err);
    if (st) return st;
    colour_table(g, table, known);
    size_t canvas = (size_t)out->width * out->height;
    const uint8_t *around = table[g->transparent == NO_TRANSPARENT_COLOR ? 0 : g->transparent];
    for (size_t i = 0; i < canvas; i++) memcpy(out->rgb + i * 3, around, 3);
    for (int pass = 0; pass < (frame->Interlace ? 4 : 1); pass++)
        for (int y = start[pass]; y < frame->Height; y += frame->Interlace ? step[pass] : 1) {
            if (!DGifGetLine(g->lib, row, frame->Width)) return failed(g, g->lib->Error, err);
            uint8_t *to = out->rgb + ((size_t)(frame->Top + y) * out->width + (size_t)frame->Left) * 3;
            for (int x = 0; x < frame->Width; x++, to += 3) {
                if (!known[row[x]]) return damaged(err, "a pixel's index is beyond the palette");
                memcpy(to, table[row[x]], 3);
            }
        }
    return RV_OK;
}

/* After the first frame nothing is decoded, but the blocks must go on to the end mark. */
static rv_status check_rest(gif *g, rv_error *err) {
    for (;;) {
        bool image;
        GifByteType *block;
        rv_status st = next_image(g, &image, err);
        if (st || !image) return st;
        do
            if (!DGifGetCodeNext(g->lib, &block)) return failed(g, g->lib->Error, err);
        while (block);
    }
}

rv_status rv_gif_read(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err) {
    gif g = { .file = file };
    uint8_t *row = NULL;
    rv_status st;
    TRY(open_first(&g, err));
    uint32_t right = (uint32_t)(g.lib->Image.Left + g.lib->Image.Width), width = (uint32_t)g.lib->SWidth;
    uint32_t bottom = (uint32_t)(g.lib->Image.Top + g.lib->Image.Height), height = (uint32_t)g.lib->SHeight;
    out->width = right > width ? right : width;              /* the canvas: the screen, grown to hold the frame */
    out->height = bottom > height ? bottom : height;
    out->orientation = 1;
    TRY(rv_image_check_size("GIF", out->width, out->height, err));
    if (header_only) goto done;
    TRY(check_codes(&g, err));
    TRY(open_first(&g, err));
    if (!(row = malloc((size_t)g.lib->Image.Width))) {
        st = rv_fail_memory(err, "GIF");
        goto done;
    }
    TRY(read_frame(&g, row, out, err));
    TRY(check_rest(&g, err));
done:
    if (g.lib) DGifCloseFile(g.lib, NULL);
    free(row);
    return st;
}
