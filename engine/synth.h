/* synth.h - synthetic checkpoints: a model folder of any shape, filled from a hash.
 *
 * The one idea: element i of a tensor is a function of (seed, canonical name, i), made of integer operations, one
 * correctly rounded multiplication and one addition.  So any thread may write any piece, the same seed gives the
 * same bits on every machine, and nothing is ever held in memory but the piece being written.
 */
#ifndef RV_ENGINE_SYNTH_H
#define RV_ENGINE_SYNTH_H
#include "engine/base/text.h"
#include "engine/shards.h"
#include "engine/weights.h"

/* ---- numbers (engine/synth_values.c) ---- */

/* value = near-normal * RV_SYNTH_SIGMA * scale + mean; a gate is uniform in +-[0.35, 0.85). */
typedef struct rv_spread { bool gate; float scale, mean; } rv_spread;
/* Standard deviation of the near-normal numbers: the sum of four uniform 16-bit ones. */
#define RV_SYNTH_SIGMA 37837.2

typedef rv_spread (*rv_spread_fn)(const rv_config *config, const rv_tensor_want *want);

enum { RV_SYNTH_MAX_OUTLIERS = 64 };

typedef struct rv_synth_spec {
    uint64_t     seed;
    rv_dtype     type;                   /* RV_F32, RV_F16 or RV_BF16                           */
    rv_layout    layout;                 /* RV_LAYOUT_OLD or RV_LAYOUT_NEW                      */
    bool         zero_unused;            /* unused slots of the tile tables are zero, as published */
    rv_spread_fn spread;
    int32_t      outlier[RV_SYNTH_MAX_OUTLIERS], n_outliers;   /* channels of the text norms     */
    float        outlier_gain;           /* what their norm weights are multiplied with         */
    uint32_t     shards;                 /* cut into as many runs of tensors; 0: by shard_bytes */
    uint64_t     shard_bytes;
    int32_t      threads;                /* 0: one a core                                       */
} rv_synth_spec;

uint64_t rv_synth_key(uint64_t seed, const char *name);
uint64_t rv_synth_hash(uint64_t key, uint64_t i);
/* Elements from .. from + n - 1 of a tensor as stored, n numbers of spec->type. */
void     rv_synth_tensor(const rv_synth_spec *spec, const rv_config *config, const rv_tensor_want *want, uint64_t from,
                         uint64_t n, void *out);
/* Spreads under which a random model of this shape stays sane in f16 through all of its layers. */
rv_spread rv_synth_spread(const rv_config *config, const rv_tensor_want *want);

/* ---- shards (engine/synth_files.c) ---- */

/* Every tensor of a config and the file it goes to. */
typedef struct rv_synth_set {
    const rv_config *config;
    rv_synth_spec    spec;
    rv_tensor_want  *want;
    size_t           room;               /* of `want`, while it grows                           */
    rv_shards        files;              /* tensor i is that of want[i]                         */
    uint64_t         parameters;
} rv_synth_set;

/* Touches no disk.  config stays the caller's and must live as long.  Free in any case. */
rv_status rv_synth_set_plan(const rv_config *config, const rv_synth_spec *spec, rv_synth_set *out, rv_error *err);
/* Writes every shard into a folder that knows of them (rv_shards_name). */
rv_status rv_synth_set_write(rv_synth_set *set, const rv_folder *folder, rv_progress_fn progress, void *user, rv_error *err);
void      rv_synth_set_free(rv_synth_set *set);

/* ---- the JSON files (engine/synth_config.c, engine/synth_tokenizer.c) ---- */

typedef struct rv_synth_model {
    rv_config config;
    bool      chat;                      /* has a chat template                                 */
    char     *config_json;               /* malloc'ed, as it will be written                    */
} rv_synth_model;

/* `shape`: "11b", "11b-base", "90b", "tiny", or a config.json's path.  *type RV_DTYPE_COUNT is replaced by the
 * config's own type, any other replaces the config's. */
rv_status rv_synth_model_open(const char *shape, rv_dtype *type, rv_synth_model *out, rv_error *err);
void      rv_synth_model_close(rv_synth_model *m);
/* Tells the folder of all the files below. */
void      rv_synth_name_configs(const rv_synth_model *m, rv_folder *folder);
/* config.json, generation_config.json, preprocessor_config.json, tokenizer_config.json (and chat_template.json). */
rv_status rv_synth_write_configs(const rv_synth_model *m, const rv_folder *folder, rv_error *err);
/* tokenizer.json: a byte-pair vocabulary of random letters that fills every id below the control tokens. */
rv_status rv_synth_write_tokenizer(const rv_synth_model *m, uint64_t seed, const rv_folder *folder, rv_error *err);
/* RV_ERR_UNSUPPORTED when no Llama 3 tokenizer has this config's ids. */
rv_status rv_synth_check_ids(const rv_config *config, rv_error *err);
/* Text of control token `id`, "" for an id that is none. */
const char *rv_synth_control(const rv_config *config, int32_t id, char out[48]);
#endif
