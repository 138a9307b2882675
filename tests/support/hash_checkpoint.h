/* hash_checkpoint.h - model folders whose weights come from a hash, as tools/reference/hash_weights.py makes them.
 *
 * The one idea: element i of a tensor is a function of (seed, canonical name, i) made of integer operations
 * and one correctly rounded multiplication or addition, so C and Python write identical bits and a golden
 * folder holds config.json and weights.json instead of a checkpoint.
 */
#ifndef RV_TESTS_HASH_CHECKPOINT_H
#define RV_TESTS_HASH_CHECKPOINT_H
#include "engine/weights.h"

/* weights.json */
typedef struct hash_spec {
    uint64_t  seed;
    rv_dtype  type;              /* RV_F32, RV_F16 or RV_BF16                                   */
    rv_layout layout;            /* names as RV_LAYOUT_OLD or RV_LAYOUT_NEW                     */
    int32_t   shards;            /* 1: model.safetensors, no index                              */
    bool      zero_unused;       /* unused slots of the tile tables are zero, as published      */
} hash_spec;

rv_status hash_spec_load(const char *golden_dir, hash_spec *out, rv_error *err);

/* One tensor as stored: want->elements numbers of spec->type. */
void hash_tensor(const hash_spec *spec, const rv_config *config, const rv_tensor_want *want, void *out);

/* Pixels of image number `image`: u8 [n_tiles][3][tile][tile]; fewer tiles are the start of more. */
void hash_image(const hash_spec *spec, int32_t image, int32_t n_tiles, int32_t tile, uint8_t *out);

/* Makes out_dir (its parent must exist) with a copy of golden_dir's config.json and the checkpoint that
 * golden_dir's weights.json describes. */
rv_status hash_checkpoint_write(const char *golden_dir, const char *out_dir, rv_error *err);
#endif
