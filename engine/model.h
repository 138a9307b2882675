/* model.h - a loaded model: config, tokenizer, weights on a device.
 *
 * The one idea: a model never changes after loading, except `taken` and `refs`; sessions take
 * turns on its backend under `device`.
 */
#ifndef RV_ENGINE_MODEL_H
#define RV_ENGINE_MODEL_H
#include <pthread.h>
#include <stdatomic.h>
#include "engine/config.h"
#include "engine/ladder.h"
#include "engine/modules.h"
#include "engine/prompt.h"
#include "engine/weights.h"
#include "kernels/backend.h"
#include "loader/checkpoint.h"

typedef struct rv_files {                /* a model folder, opened and checked                  */
    rv_config       config;
    rv_checkpoint  *checkpoint;
    rv_tokenizer   *tokenizer;           /* NULL when the folder has none and none was asked for */
    rv_prompt_style style;
} rv_files;

/* Opens and checks every file of a model folder.  `with_tokenizer` false: only config and tensors. */
rv_status rv_files_open(const char *dir, bool with_tokenizer, rv_files *out, rv_error *err);
void      rv_files_close(rv_files *f);

struct rv_model {
    rv_files         files;
    rv_load_options  options;            /* as resolved: backend, compute, weights, memory_limit are set */
    rv_backend      *be;
    void            *memory, *host_memory;    /* the weights' arenas                            */
    uint64_t         memory_bytes, mapped_bytes, table_bytes;    /* table_bytes: of large tables in host memory */
    rv_streamed      streamed;           /* layers in host memory                               */
    rv_profile       profile;            /* GPU backends                                        */
    rv_rung          rung;               /* of the ladder, GPU backends                         */
    rv_steps         steps;              /* what the model was reduced by                       */
    rv_weights       weights;
    struct rv_weight_cache *cache;       /* the file that is being written; NULL: none          */
    pthread_mutex_t  device;             /* held while a session uses `be`: rv_model_lock       */
    _Atomic uint64_t taken;              /* bytes of memory_limit: weights and all sessions     */
    atomic_int       refs;               /* the caller's, and one a session                     */
    rv_load_times    times;
    double           since_ms;           /* while loading: when the part that runs began         */
};

void rv_model_retain(rv_model *m);
/* The calling thread, alone, uses `be` between these two. */
void rv_model_lock(rv_model *m);
void rv_model_unlock(rv_model *m);
void rv_model_log(const rv_model *m, rv_log_level level, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* engine/warm.c: while weights are being read, queues a pass through every kind of layer, for a backend whose code
 * loads late.  Returns the memory it works on, to be released when the weights have arrived; NULL when the backend
 * needs no such pass or there is no room for it (which is no error). */
void *rv_model_warm(rv_model *m);

/* ---- the plan (engine/plan.c) ---- */

/* Fills AUTO fields: backend, compute, weights format; RV_ERR_UNSUPPORTED for what this build lacks, RV_ERR_ARGUMENT for
 * module names that cannot be.  files NULL: of a usual model in 16 bit. */
rv_status rv_load_resolve(const rv_files *files, rv_load_options *options, rv_error *err);
/* Warns of module lists and the like that change nothing, once the weights' format is settled (by size, or by the ladder). */
void      rv_load_warn_of_idle(const rv_files *files, const rv_load_options *options);
/* How the weights of resolved options are placed. *modules is filled for it, and points into the options. */
rv_placing rv_load_placing(const rv_files *files, const rv_load_options *options, rv_modules *modules);
/* Opens the backend that resolved options name; `plans`: one that only knows sizes, and takes nothing of a GPU. */
rv_status rv_load_backend(const rv_load_options *options, bool plans, rv_backend **out, rv_error *err);
/* Bytes that the options' device can give now: memory_limit, or what is free less 5 %. */
uint64_t  rv_load_available(const rv_load_options *options);
/* What the weights take: device bytes, host bytes and (*mapped) bytes read in place, in `available` bytes of the device;
 * `embedding` is settled by it. */
rv_status rv_load_measure(const rv_files *files, rv_backend *be, rv_load_options *options, uint64_t available,
                          uint64_t *device, uint64_t *host, uint64_t *mapped, rv_error *err);
/* Compute once more, after the weights' format has changed. */
rv_status rv_load_settle_compute(const rv_files *files, const rv_load_options *asked, rv_load_options *options, bool plans, rv_error *err);
/* Whether the checkpoint holds quantised weights already. */
bool      rv_files_quantised(const rv_files *files);
/* Whether they name a profile; "" is none. */
bool      rv_load_names_profile(const rv_load_options *options);
/* A memory limit above what there is becomes that: what a named profile calls usable, else the GPU's memory. */
void      rv_load_cap(rv_load_options *options, const rv_profile *profile);
/* The profile that options name, else of the GPU they choose. */
rv_status rv_load_profile(const rv_load_options *options, rv_profile *out, rv_error *err);
rv_status rv_session_check(const rv_config *config, const rv_session_options *options, rv_error *err);
/* Fills AUTO fields of session options (slots: 1) and checks their ranges. */
rv_status rv_session_resolve(const rv_config *config, rv_session_options *options, rv_error *err);
#endif
