/* vision.h - the vision tower: tiles of one picture to cross-attention keys and values.
 *
 * The one idea: the sequence is ordered [real tiles | padding tiles | padding tokens], so that the
 * reference's mask (only padding does not see padding) is one key range a row.  Padding tiles of
 * a picture are all alike when the tile tables' unused slots are zero; then each kind of padding is
 * computed once, and its keys get a bias of ln(how many there are), which softmax cannot tell from
 * the real thing.  Source: spec mllama.md section 5 and 5.A.
 */
#ifndef RV_ENGINE_VISION_H
#define RV_ENGINE_VISION_H
#include "engine/cache.h"
#include "engine/image.h"
#include "engine/weights.h"

/* How many rows of each kind the tower runs on. */
typedef struct rv_vision_layout {
    int32_t tiles, aspect_ratio_id;
    int32_t pad_tiles;                   /* lanes computed: max_tiles - tiles, or at most 1     */
    int32_t pad_tile_copies;             /* real padding tiles that each lane stands for        */
    int32_t local_pads, global_pads;     /* padding tokens computed in the two stages           */
    int32_t real_rows, state_rows;       /* real tiles' tokens; those and padding tiles' tokens */
    int32_t local_rows, global_rows;     /* all                                                */
} rv_vision_layout;

rv_vision_layout rv_vision_layout_of(const rv_vision_config *v, int32_t tiles, int32_t aspect_ratio_id, bool pads_once);

/* What a layout says about each row, and what a byte of a picture means: filled on the host, one upload. */
typedef struct rv_vision_tables {
    int32_t *class_ids, *pre_ids, *position_ids, *tile_ids, *post_ids;
    int32_t *last_local, *last_global, *key_pos;
    float   *bias_local, *bias_global;
    float   *values;                     /* [channels][256]                                     */
} rv_vision_tables;

/* Placed once a session.  What is never alive at once shares memory: pixels and patches | h and (qkv | ff) |
 * features; taps | states and kv. */
typedef struct rv_vision_scratch {
    rv_mat   x, h, qkv, ff, taps[RV_MAX_TAPS], features, states, kv;
    rv_mat   pixels, patches;            /* pixels: f32, or u8 in the same memory               */
    int32_t *block;                      /* device: the tables' memory                          */
    rv_vision_tables tables;             /* device, inside block                                */
    int32_t *host;                       /* host: rv_vision_host_ints, like block               */
} rv_vision_scratch;

/* Device part; `host` is allocated by the caller. */
void   rv_vision_place(rv_vision_scratch *s, const rv_config *config, rv_dtype act, rv_arena *arena);
size_t rv_vision_host_ints(const rv_config *config);

/* One picture on its way through the tower. */
typedef struct rv_vision_job {
    rv_vision_layout layout;
    const uint8_t   *tiles;              /* u8 [tiles][3][tile][tile] (engine/image.h)          */
    const float     *pixels;             /* the same, normalised: used instead when not NULL    */
    const int32_t   *pages;              /* host: cache tile pages, real tiles first, then the
                                            padding lanes that rv_vision_pages counts           */
    int32_t          step;               /* next step; rv_vision_steps() when done              */
} rv_vision_job;

typedef struct rv_vision {               /* what every run needs                                */
    const rv_config  *config;
    const rv_weights *weights;
    rv_backend       *be;
    rv_vision_scratch*scratch;
    rv_cache         *cache;
    rv_taps           taps;
    rv_reference      reference;
} rv_vision;

/* Cache pages the picture takes: its tiles, and with RV_REFERENCE_HF its padding lanes. */
int32_t rv_vision_pages(const rv_vision_layout *l, rv_reference reference);
int32_t rv_vision_steps(const rv_config *config);
/* Queues up to n further steps (a step is about one layer). Errors are the backend's, sticky. Marks RV_MARK_TOWER in the
 * last step, before the projector. */
void    rv_vision_run(const rv_vision *v, rv_vision_job *job, int32_t n);
#endif
