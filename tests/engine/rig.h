/* rig.h - the engine without sessions: a model folder's forward pass, laid open for comparison.
 *
 * One slot, `images` images; every prompt row's logits and every layer's hidden states are kept.
 */
#ifndef RV_TESTS_ENGINE_RIG_H
#define RV_TESTS_ENGINE_RIG_H
#include "engine/model.h"
#include "engine/text.h"
#include "engine/vision.h"

enum { RIG_ROWS = 256, RIG_CONTEXT = 512, RIG_IMAGES = 4 };

typedef struct rig {
    rv_config config;
    rv_checkpoint *checkpoint;
    rv_backend *be;
    rv_weights weights;
    rv_cache cache;
    rv_vision_scratch vision_scratch;
    rv_text_scratch text_scratch;
    rv_text_rows rows;
    rv_vision vision;
    rv_text text;
    void *weights_memory, *cache_memory, *scratch_memory;
    float *hidden;                       /* [layers + 1][RIG_ROWS][hidden], of the last pass    */
    float *logits;                       /* [RIG_ROWS][vocab], of the last pass                 */
    rv_mat row;                          /* device f32: room for reading back                   */
    rv_vision_job pictures[RIG_IMAGES];
    int32_t pages[RIG_IMAGES][RV_MAX_TILES], n_pictures, used_pages, image_keys;
} rig;

typedef struct rig_options {
    const char  *dir;
    rv_dtype     act;                    /* RV_F32 when zero                                    */
    rv_taps      taps;
    rv_reference reference;
    bool         plain_loops, full_padding;
    bool         gpu;                    /* the CUDA backend, in `act` BF16 or F16              */
    int32_t      arch;                   /* its kernel set, 0: the newest                       */
    bool         plain_attention;
} rig_options;

/* All fail the running cmocka test on an error. */
void rig_open(rig *r, const rig_options *o);
void rig_close(rig *r);
void rig_forget(rig *r);                 /* before the next conversation                        */

/* Runs the tower on normalised pixels f32 [tiles][3][tile][tile]. Features of slot t, token n, as HF
 * gives them, are then rig_feature(r, t, n). */
void rig_see(rig *r, const float *pixels, int32_t tiles, int32_t aspect_ratio_id);
/* The same of tiles as they come from an image, u8 [tiles][3][tile][tile]. */
void rig_see_bytes(rig *r, const uint8_t *bytes, int32_t tiles, int32_t aspect_ratio_id);
/* f32 [output_dim] into out; slot may be a padding tile. */
void rig_feature(rig *r, int32_t slot, int32_t token, float *out);
/* Feeds tokens [from, to) of ids (all of the conversation so far); logits of all rows are in
 * rig_logits. */
void rig_read(rig *r, const int32_t *ids, int32_t prompt, int32_t from, int32_t to);
const float *rig_logits(const rig *r, int32_t row);
const float *rig_hidden(const rig *r, int32_t layer, int32_t row);
#endif
