/* image.c - pixels to the tiles that the vision tower reads. */
#include "engine/image.h"

#include <assert.h>
#include <math.h>
#include <string.h>

#include "engine/resize.h"

static double smaller(double a, double b) { return a < b ? a : b; }

/* The scale at which the image fills a candidate canvas (int divided by int, as numpy does). */
static double scale_for(const int32_t ratio[2], int32_t tile, uint32_t width, uint32_t height) {
    return smaller((double)(ratio[0] * tile) / height, (double)(ratio[1] * tile) / width);
}

static uint32_t clamp(uint32_t v, uint32_t low, uint32_t high) { return v < low ? low : v > high ? high : v; }

/* HF get_image_size_fit_to_canvas (spec 3.3). */
static void fit(rv_canvas *c, uint32_t width, uint32_t height, uint32_t tile) {
    uint32_t w = clamp(width, tile, (uint32_t)c->cols * tile), h = clamp(height, tile, (uint32_t)c->rows * tile);
    double sh = (double)h / height, sw = (double)w / width;
    uint32_t nw = w, nh = h;
    if (sw < sh) {
        nh = (uint32_t)floor(height * sw);
        if (nh == 0) nh = 1;
        if (nh > h) nh = h;
    } else {
        nw = (uint32_t)floor(width * sh);
        if (nw == 0) nw = 1;
        if (nw > w) nw = w;
    }
    c->width = (int32_t)nw;
    c->height = (int32_t)nh;
}

/* HF get_optimal_tiled_canvas (spec 3.2): the smallest upscale, else the largest downscale; among equal
 * scales the smallest canvas, in list order. */
rv_canvas rv_canvas_choose(uint32_t width, uint32_t height, const rv_vision_config *v, int32_t max_tiles) {
    bool   up = false;
    double pick = 0.0;
    for (int32_t i = 0; i < v->n_ratios; i++) {
        if (v->ratios[i][0] * v->ratios[i][1] > max_tiles) continue;
        double s = scale_for(v->ratios[i], v->tile, width, height);
        if (s >= 1.0) {
            if (!up || s < pick) pick = s;
            up = true;
        } else if (!up && s > pick) pick = s;
    }
    rv_canvas best = { 0 };
    for (int32_t i = 0; i < v->n_ratios; i++) {
        int32_t rows = v->ratios[i][0], cols = v->ratios[i][1];
        if (rows * cols > max_tiles || scale_for(v->ratios[i], v->tile, width, height) != pick) continue;
        if (!best.rows || rows * cols < best.rows * best.cols) best = (rv_canvas){ rows, cols, i + 1, 0, 0 };
    }
    assert(best.rows > 0);                       /* every config has 1x1 */
    fit(&best, width, height, (uint32_t)v->tile);
    return best;
}

/* ---- tiles ----------------------------------------------------------------------------- */

typedef struct cutter { uint8_t *out; uint32_t cols, tile, width; } cutter;

/* Row y of the resized image into the planes of the tiles it crosses. */
static void cut_row(void *user, uint32_t y, const uint8_t *row) {
    const cutter *c = user;
    size_t plane = (size_t)c->tile * c->tile;
    for (uint32_t tx = 0; tx * c->tile < c->width; tx++) {
        uint32_t n = c->width - tx * c->tile < c->tile ? c->width - tx * c->tile : c->tile;
        uint8_t *restrict r = c->out + ((size_t)(y / c->tile) * c->cols + tx) * 3 * plane + (size_t)(y % c->tile) * c->tile;
        uint8_t *restrict g = r + plane, *restrict b = g + plane;
        const uint8_t *restrict p = row + (size_t)tx * c->tile * 3;
        for (uint32_t x = 0; x < n; x++) {
            r[x] = p[3 * x];
            g[x] = p[3 * x + 1];
            b[x] = p[3 * x + 2];
        }
    }
}

rv_status rv_image_cut(const rv_pixels *pixels, const rv_canvas *canvas, int32_t tile, rv_resize how, uint8_t *out,
                       rv_error *err) {
    if (tile < 1 || canvas->rows < 1 || canvas->cols < 1 || canvas->width < 1 || canvas->height < 1 ||
        canvas->width > canvas->cols * tile || canvas->height > canvas->rows * tile)
        return rv_fail(err, RV_ERR_ARGUMENT, "image: %dx%d pixels do not fit a canvas of %dx%d tiles of %d pixels",
                       canvas->width, canvas->height, canvas->cols, canvas->rows, tile);
    cutter c = { out, (uint32_t)canvas->cols, (uint32_t)tile, (uint32_t)canvas->width };
    memset(out, 0, (size_t)canvas->rows * (size_t)canvas->cols * 3 * (size_t)tile * (size_t)tile);
    return rv_resize_rows(pixels->rgb, pixels->width, pixels->height, (uint32_t)canvas->width, (uint32_t)canvas->height,
                          how, cut_row, &c, err);
}

void rv_image_values(const rv_preprocess *p, float out[RV_CHANNELS][256]) {
    for (int c = 0; c < RV_CHANNELS; c++)
        for (int v = 0; v < 256; v++) out[c][v] = ((float)(v * p->rescale) - p->mean[c]) / p->std[c];
}

void rv_image_normalise(const uint8_t *tiles, size_t n_tiles, int32_t tile, const rv_preprocess *p, float *out) {
    float table[RV_CHANNELS][256];
    rv_image_values(p, table);
    size_t plane = (size_t)tile * (size_t)tile;
    for (size_t t = 0; t < n_tiles * RV_CHANNELS; t++) {
        const float *row = table[t % RV_CHANNELS];
        for (size_t i = 0; i < plane; i++) out[t * plane + i] = row[tiles[t * plane + i]];
    }
}
