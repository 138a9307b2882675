/* image_read.c - the public rv_image, a file or bare pixels, to pixels of our own. */
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/image.h"

static rv_status read_bare(const rv_image *image, bool header_only, rv_pixels *out, rv_error *err) {
    uint32_t width = image->width, height = image->height;
    if (!width || !height) return rv_fail(err, RV_ERR_ARGUMENT, "rv_image: %ux%u pixels: neither may be 0, or both (data is a file then)", width, height);
    if (width > RV_IMAGE_MAX_EDGE || height > RV_IMAGE_MAX_EDGE ||
        (uint64_t)width * height > RV_IMAGE_MAX_PIXELS)
        return rv_fail(err, RV_ERR_TOO_LONG, "rv_image: %ux%u pixels: each edge must be 1 to %d, and all together at most %"
                       PRIu64 "; scale it down first", width, height, RV_IMAGE_MAX_EDGE, RV_IMAGE_MAX_PIXELS);
    size_t row = (size_t)width * 3, stride = image->stride ? image->stride : row;
    if (stride < row)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_image.stride: %zu bytes are less than a row of %u pixels, %zu", stride, width, row);
    if (image->bytes < row || (height > 1 && (image->bytes - row) / (height - 1) < stride))
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_image.bytes: %zu are too few for %u rows, %zu bytes apart, of %u pixels",
                       image->bytes, height, stride, width);
    *out = (rv_pixels){ .width = width, .height = height, .orientation = 1, .format = "pixels" };
    if (header_only) return RV_OK;
    if (!(out->rgb = malloc(row * height)))
        return rv_fail(err, RV_ERR_MEMORY, "image: out of memory for %ux%u pixels", width, height);
    for (uint32_t y = 0; y < height; y++) memcpy(out->rgb + y * row, (const uint8_t *)image->data + y * stride, row);
    return RV_OK;
}

rv_status rv_image_read(const rv_image *given, bool header_only, rv_pixels *out, int32_t *max_tiles, rv_error *err) {
    if (!given) return rv_fail(err, RV_ERR_ARGUMENT, "rv_image: is NULL");
    rv_image image;
    rv_status st = rv_abi_read(&image, sizeof image, given, "rv_image", err);
    if (st) return st;
    if (image.max_tiles == 3 || image.max_tiles > 4)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_image.max_tiles: must be 1, 2 or 4 (0: as the model), is %u", image.max_tiles);
    if (!image.data) return rv_fail(err, RV_ERR_ARGUMENT, "rv_image.data: is NULL");
    if (image.width || image.height) st = read_bare(&image, header_only, out, err);
    else if (header_only) st = rv_image_probe(image.data, image.bytes, image.ignore_exif != 0, out, err);
    else st = rv_image_decode(image.data, image.bytes, image.ignore_exif != 0, out, err);
    if (!st) *max_tiles = (int32_t)image.max_tiles;
    return st;
}
