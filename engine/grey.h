/* grey.h - a page as a recogniser likes it: grey, its paper white and its print black, letters of one size.
 *
 * The one idea: a threshold for a whole page fails where a scan has a dark edge, a shadow or faded print, so paper and print are
 * measured block by block and stretched to white and black; and the height of its letters, not the page's size, says how it is scaled.
 * Pure functions: any thread.
 */
#ifndef RV_ENGINE_GREY_H
#define RV_ENGINE_GREY_H
#include "loader/image_file.h"

typedef struct rv_grey {
    uint8_t *at;                         /* width * height, top row first; 0 is black           */
    uint32_t width, height;
} rv_grey;

void rv_grey_free(rv_grey *g);

/* ITU-R 601 luma of the pixels, blocks of `shrink` x `shrink` averaged (1: none; what is left over at the right and below goes with
 * the last block).  *out is the caller's. */
rv_status rv_grey_of(const rv_pixels *pixels, uint32_t shrink, rv_grey *out, rv_error *err);

/* The same page with its paper at 255 and its print near 0, wherever it stands.  *out is the caller's. */
rv_status rv_grey_flatten(const rv_grey *in, rv_grey *out, rv_error *err);

/* The height of capitals and digits in pixels, on a flattened page: what three of four marks of a letter's shape do not exceed.  0: there
 * are hardly any. */
rv_status rv_grey_letters(const rv_grey *flat, float *height, rv_error *err);

/* A part of a page, in its pixels; it may lie partly outside, where the page's edge goes on. */
typedef struct rv_grey_part { float x, y, width, height; } rv_grey_part;

/* The part, `scale` times as large, through a tent of `blur` pixels of the result to either side (at least one of the page, so that
 * 1 is the usual bilinear resize with antialias), in a border of `border` pixels of its own paper.  *out is the caller's. */
rv_status rv_grey_scaled(const rv_grey *in, const rv_grey_part *part, float scale, float blur, uint32_t border, rv_grey *out, rv_error *err);
#endif
