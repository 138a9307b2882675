/* image.h - pixels to the tiles that the vision tower reads.
 *
 * The one idea: every step is the reference's arithmetic, bit for bit: the canvas in doubles, the
 * resize in Pillow's (or torchvision's) fixed point, padding before normalisation.
 * Source: spec mllama.md section 3.
 */
#ifndef RV_ENGINE_IMAGE_H
#define RV_ENGINE_IMAGE_H
#include "engine/config.h"
#include "loader/image_file.h"

/* A caller's rv_image, of any ABI, checked and as upright pixels of the library's own; with
 * header_only rgb stays NULL.  max_tiles receives what was asked for, 0 when nothing was. */
rv_status rv_image_read(const rv_image *image, bool header_only, rv_pixels *out, int32_t *max_tiles, rv_error *err);

typedef struct rv_canvas {
    int32_t rows, cols;                  /* tiles                                               */
    int32_t aspect_ratio_id;             /* 1-based                                             */
    int32_t width, height;               /* of the resized image, top left in the canvas        */
} rv_canvas;

/* The reference's choice among the config's aspect ratios with at most max_tiles tiles.  Width
 * and height at least 1; max_tiles at least 1 (a 1x1 canvas is in every config). */
rv_canvas rv_canvas_choose(uint32_t width, uint32_t height, const rv_vision_config *v, int32_t max_tiles);

/* Bilinear with antialias, 8 bit in and out; out is [new_height x new_width x 3], the caller's.
 * Exact to Pillow (PIL) or torchvision's CPU kernel (TV). */
rv_status rv_resize_rgb(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out,
                        uint32_t new_width, uint32_t new_height, rv_resize how, rv_error *err);

/* Resizes, pads with zeros, and cuts the canvas: out is u8 [rows*cols][3][tile][tile]. */
rv_status rv_image_cut(const rv_pixels *pixels, const rv_canvas *canvas, int32_t tile, rv_resize how,
                       uint8_t *out, rv_error *err);
/* What a byte stands for: ((double)p * rescale - mean) / std per channel, in the processor's order
 * of rounding. */
void rv_image_values(const rv_preprocess *p, float out[RV_CHANNELS][256]);
/* f32 of the same shape, each byte as its value. */
void rv_image_normalise(const uint8_t *tiles, size_t n_tiles, int32_t tile, const rv_preprocess *p, float *out);
#endif
