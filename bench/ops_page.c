/* ops_page.c - a scanned A4 page at 300 dpi, as JPEG, to tiles: one core's work, whatever the backend is. Like ops*.c it looks inside. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/inputs.h"
#include "bench/ops.h"
#include "engine/image.h"
#include "tools/files.h"

enum { WIDTH = 2480, HEIGHT = 3508 };

/* The published model's tiles. */
static const rv_vision_config tiles_of_11b = { .tile = 560, .max_tiles = 4, .n_ratios = 8,
                                               .ratios = { { 1, 1 }, { 1, 2 }, { 1, 3 }, { 1, 4 }, { 2, 1 }, { 2, 2 }, { 3, 1 }, { 4, 1 } } };

static rv_status read_page(const page *p, uint8_t *tiles, rv_error *err) {
    const rv_vision_config *v = &tiles_of_11b;
    rv_pixels pixels = { 0 };
    rv_status st = rv_image_decode(p->jpeg, p->jpeg_bytes, false, &pixels, err);
    if (st) return st;
    rv_canvas canvas = rv_canvas_choose(pixels.width, pixels.height, v, v->max_tiles);
    st = rv_image_cut(&pixels, &canvas, v->tile, RV_RESIZE_PIL, tiles, err);
    rv_pixels_free(&pixels);
    return st;
}

void ops_page(ops *o) {
    const int32_t tile = tiles_of_11b.tile, most = tiles_of_11b.max_tiles;
    result r = { .name = "page_jpeg_2480x3508", .title = "JPEG to tiles, one core", .unit = "us" };
    page p = { 0 };
    rv_error err = { 0 };
    if (o->status != RV_OK || !ops_wanted(o, r.name)) return;
    uint8_t *tiles = malloc((size_t)most * RV_CHANNELS * (size_t)tile * (size_t)tile);
    rv_status st = tiles ? page_draw(WIDTH, HEIGHT, &p, &err) : RV_ERR_MEMORY;
    if (st == RV_OK) page_encode_jpeg(&p);
    for (uint64_t i = 0; st == RV_OK && i <= o->repeat; i++) {
        double start = now_ms();
        st = read_page(&p, tiles, &err);
        if (i > 0) series_add(&r.values, (now_ms() - start) * 1e3);
    }
    page_free(&p);
    free(tiles);
    if (st) o->status = st;
    else if (o->n_results < o->room) o->results[o->n_results++] = r;
}
