/* inspect_image.c - what would become of an image, from its header alone. */
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/image.h"

static rv_status config_of(const char *model_dir, rv_config *config, rv_error *err) {
    if (model_dir) return rv_config_load(model_dir, config, err);
    rv_config_published(config);
    return RV_OK;
}

rv_status rv_inspect_image(const rv_image *image, const char *model_dir, rv_image_info *out, rv_error *err) {
    if (!image || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_inspect_image: image and out must not be NULL");
    rv_pixels pixels;
    int32_t   max_tiles;
    rv_status st;
    rv_config *config = malloc(sizeof *config);
    if (!config) return rv_fail_memory(err, "rv_inspect_image");
    TRY(rv_image_read(image, true, &pixels, &max_tiles, err));
    TRY(config_of(model_dir, config, err));
    const rv_vision_config *v = &config->vision;
    rv_canvas c = rv_canvas_choose(pixels.width, pixels.height, v,
                                   max_tiles && max_tiles < v->max_tiles ? max_tiles : v->max_tiles);
    rv_image_info info = {
        .size = sizeof info, .width = pixels.width, .height = pixels.height, .orientation = pixels.orientation,
        .rows = (uint32_t)c.rows, .cols = (uint32_t)c.cols, .tile = (uint32_t)v->tile,
        .aspect_ratio_id = (uint32_t)c.aspect_ratio_id,
        .resized_width = (uint32_t)c.width, .resized_height = (uint32_t)c.height,
    };
    memcpy(info.format, pixels.format, sizeof info.format);
    TRY(rv_abi_write(out, &info, sizeof info, "rv_image_info", err));
done:
    free(config);
    return st;
}
