/* config.h - a model folder's JSON files as one checked struct.
 *
 * The one idea: after rv_config_load every number is in range and consistent with the others, so
 * that no code behind it checks again.  Reads config.json (transformers 4.45 and 5.x forms),
 * generation_config.json and preprocessor_config.json (both optional).
 */
#ifndef RV_ENGINE_CONFIG_H
#define RV_ENGINE_CONFIG_H
#include <stdbool.h>
#include "engine/base/dtype.h"
#include "engine/base/status.h"

enum { RV_MAX_LAYERS = 256, RV_MAX_TAPS = 16, RV_MAX_RATIOS = 64, RV_MAX_TILES = 16, RV_MAX_EOS = 16,
       RV_CHANNELS = 3 };

typedef struct rv_text_config {
    int32_t hidden, layers, heads, kv_heads, head_dim, ffn, vocab;   /* embed has vocab + 8 rows */
    int32_t max_positions;
    bool    cross[RV_MAX_LAYERS];        /* layer i is a cross-attention layer                 */
    int32_t n_cross;
    float   norm_eps;
    double  rope_theta;
    bool    rope_scaled;                 /* rope_type llama3; false: default                   */
    double  rope_factor, rope_low, rope_high, rope_original;
} rv_text_config;

typedef struct rv_vision_config {
    int32_t hidden, layers, global_layers, heads, head_dim, ffn, output_dim;
    int32_t tile, patch, grid, tokens;   /* grid = tile / patch; tokens = grid*grid + 1         */
    int32_t padded_tokens;               /* tokens rounded up to a multiple of 8                */
    int32_t max_tiles;
    int32_t taps[RV_MAX_TAPS], n_taps;   /* intermediate_layers_indices, ascending              */
    int32_t ratios[RV_MAX_RATIOS][2], n_ratios;   /* (rows, cols); aspect ratio id = index + 1 */
    float   norm_eps;
} rv_vision_config;

typedef struct rv_preprocess {
    double  rescale;                     /* 1/255                                              */
    float   mean[RV_CHANNELS], std[RV_CHANNELS];
} rv_preprocess;

typedef struct rv_generation {           /* generation_config.json, HF's defaults filled in     */
    int32_t eos[RV_MAX_EOS], n_eos;      /* n_eos 0: answers end at their length limit only    */
    float   temperature, top_p;          /* top_p above 0: HF keeps the best token with 0, too */
    float   repetition_penalty;          /* 1: none                                            */
    int32_t top_k;                       /* 0: off                                             */
    bool    do_sample;
    char    ignored[128];                /* keys that change HF's answers and are not ours, with commas; "": none */
} rv_generation;

typedef struct rv_config {
    rv_text_config   text;
    rv_vision_config vision;
    rv_preprocess    preprocess;
    rv_generation    generation;
    int32_t  image_token, bos, pad;      /* rows of the embedding; bos, pad -1: none           */
    rv_dtype dtype;                      /* what config.json says the weights are (RV_F32 if silent) */
} rv_config;

/* Errors name file and key: "config.json: text_config.hidden_size: must be a whole number from 1
 * to 65536, is \"abc\" (/models/x)". */
rv_status rv_config_load(const char *model_dir, rv_config *out, rv_error *err);
/* The published 560-pixel preprocessing, for use without a model. */
void      rv_config_published(rv_config *out);
#endif
