/* image_formats.h - what the image decoders share; only image_*.c include it.
 *
 * The one idea: a decoder sees a whole file in memory, checks everything the container allows to be
 * checked, and either fills out with a complete picture or returns an error.
 */
#ifndef RV_LOADER_IMAGE_FORMATS_H
#define RV_LOADER_IMAGE_FORMATS_H
#include "loader/image_file.h"

typedef struct rv_bytes { const uint8_t *data; size_t bytes; } rv_bytes;

/* One decoder a format.  `out` comes in zeroed.  Sets width and height as stored (before EXIF),
 * orientation as the file says (1 when it says nothing), and, unless `header_only`, rgb. */
typedef rv_status rv_image_read_fn(rv_bytes file, bool header_only, rv_pixels *out, rv_error *err);
rv_image_read_fn rv_jpeg_read, rv_png_read, rv_gif_read, rv_bmp_read, rv_pnm_read;

/* RV_IMAGE_MAX_EDGE and RV_IMAGE_MAX_PIXELS; 0 is RV_ERR_FORMAT.  `format` names the kind: "PNG". */
rv_status rv_image_check_size(const char *format, uint64_t width, uint64_t height, rv_error *err);
/* After the check: sets out->width, height and rgb (not initialised). */
rv_status rv_image_allocate(uint32_t width, uint32_t height, rv_pixels *out, rv_error *err);
/* The orientation 1..8 in an EXIF block (a TIFF header and its first directory); 1 when absent or damaged. */
uint32_t  rv_exif_orientation(const uint8_t *tiff, size_t bytes);

static inline uint32_t rv_le16(const uint8_t *p) { return (uint32_t)p[0] | (uint32_t)p[1] << 8; }
static inline uint32_t rv_le32(const uint8_t *p) { return rv_le16(p) | rv_le16(p + 2) << 16; }
static inline uint32_t rv_be16(const uint8_t *p) { return (uint32_t)p[0] << 8 | (uint32_t)p[1]; }
static inline uint32_t rv_be32(const uint8_t *p) { return rv_be16(p) << 16 | rv_be16(p + 2); }

/* Alpha over white, as Pillow's alpha_composite: round((s*a + 255*(255-a)) / 255), in integers. */
static inline uint8_t rv_over_white(uint32_t sample, uint32_t alpha) {
    return (uint8_t)((sample * alpha + 255 * (255 - alpha) + 127) / 255);
}
#endif
