/* image_file.h - image files to upright 8-bit RGB.
 *
 * The one idea: the numbers are those of Hugging Face's processor (Pillow): JPEG through libjpeg-turbo
 * with its slow integer DCT and fancy upsampling, CMYK inverted as Adobe writes it; PNG through libpng,
 * GIF (first frame) through giflib; BMP and binary PNM are read here.  Alpha is composited over white,
 * EXIF orientation applied.
 * Three places differ on purpose: see image_png.c (16-bit grey, grey colour keys) and image_pnm.c.
 */
#ifndef RV_LOADER_IMAGE_FILE_H
#define RV_LOADER_IMAGE_FILE_H
#include <stdbool.h>
#include "engine/base/status.h"

typedef struct rv_pixels {
    uint8_t *rgb;                /* width * height * 3, top row first; NULL from rv_image_probe */
    uint32_t width, height;      /* upright                                                    */
    uint32_t orientation;        /* EXIF 1..8 that was (or would be) applied; 1: none           */
    char     format[16];         /* "jpeg", "png", "bmp", "gif", ..                            */
} rv_pixels;

enum { RV_IMAGE_MAX_EDGE = 65500 };
#define RV_IMAGE_MAX_PIXELS UINT64_C(178956970)     /* Pillow's own bomb limit, 2 * 89478485   */

/* Decodes a file in memory; never reads past it.  Sizes are checked from the header, before
 * anything is allocated.  Damaged or truncated data is RV_ERR_FORMAT (never a half image), too
 * large is RV_ERR_TOO_LONG, a format we do not read RV_ERR_UNSUPPORTED (HEIC, WebP, TIFF, PDF are
 * named in the message, with what to do).  out->rgb is the caller's: rv_pixels_free. */
rv_status rv_image_decode(const void *data, size_t bytes, bool ignore_exif, rv_pixels *out, rv_error *err);
/* The same checks from the header alone; out->rgb is NULL. */
rv_status rv_image_probe(const void *data, size_t bytes, bool ignore_exif, rv_pixels *out, rv_error *err);
void      rv_pixels_free(rv_pixels *p);
#endif
