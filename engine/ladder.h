/* ladder.h - what is given up, and in which order, when a model and a session do not fit on a GPU.
 *
 * The one idea: a list of rungs, from what was asked for down to what takes the least; the first that fits is taken, and
 * when the driver refuses memory in spite of the plan, the next.  Each rung is measured by the code that loads it.
 */
#ifndef RV_ENGINE_LADDER_H
#define RV_ENGINE_LADDER_H
#include "engine/rvprofile.h"
#include "engine/weights.h"

struct rv_files;

typedef struct rv_rung {
    rv_weight_format weights;
    rv_embedding     embedding;
    bool             head_int8;
    bool             streams;            /* layers leave the device: as many as must, unless gpu_layers says */
    int32_t          gpu_layers;         /* text layers that stay; measured where it was left open */
    rv_steps         steps;              /* from what was asked for                             */
} rv_rung;

enum { RV_MOST_RUNGS = 16 };

/* What a rung takes: device bytes (buffers of streamed layers included), pinned host bytes (streamed ones included). */
typedef struct rv_taking { uint64_t device, host, mapped; rv_streamed streamed; } rv_taking;

/* The rungs that resolved options allow, as `asked` left them open; *n of them, at least one. */
void rv_ladder_rungs(const struct rv_files *files, const rv_load_options *asked, const rv_load_options *resolved, rv_rung out[RV_MOST_RUNGS],
                     int32_t *n);

/* Measures a rung in `room` device bytes, which decide how many layers have to stream. */
rv_status rv_rung_measure(const struct rv_files *files, rv_backend *be, const rv_load_options *options, rv_rung *rung, uint64_t room, rv_taking *out,
                          rv_error *err);

/* The first of `rungs` from *at on that leaves `rest` bytes of the room for a session; else, if none does, the first that fits without one.
 * *at: which; RV_MOST_RUNGS: none fits, and *out is the last one's. */
rv_status rv_ladder_first(const struct rv_files *files, rv_backend *be, const rv_load_options *options, rv_rung *rungs, int32_t n, uint64_t room, uint64_t host_room,
                          uint64_t rest, int32_t *at, rv_taking *out, rv_error *err);

/* Options as the rung has them. */
void rv_rung_apply(const rv_rung *rung, rv_load_options *options);

/* What load options tell of sessions to come, and the device bytes of the smallest of them: one sequence, or as many as are asked for by number
 * and may not become fewer; none where nothing may be chosen for it. */
rv_session_options rv_load_session(const rv_load_options *options);
uint64_t rv_load_session_bytes(const rv_config *config, const rv_backend *be, const rv_load_options *options);
/* Device bytes of a session of that many slots (options resolved but for slots). */
uint64_t rv_session_bytes(const rv_config *config, const rv_backend *be, const rv_session_options *options, uint32_t slots, bool streams);
/* The most slots, at most `most`, that fit in `room`; 0: not one. */
uint32_t rv_session_carried(const rv_config *config, const rv_backend *be, const rv_session_options *options, uint32_t most, bool streams, uint64_t room);

/* Bytes that a GPU's options let a model and its sessions have: memory_limit, else what is free less 5 %, and no more than the profile calls usable
 * (but for RV_OOM_FAIL). */
uint64_t rv_load_room(const rv_load_options *options, const rv_profile *profile);
/* From the rung *at on: the first that fits, its measures, and *options settled by it; none: *at is RV_MOST_RUNGS, the rest is the last one's.
 * A session as the options tell of it has to fit beside.  opened: what the backend takes for itself is gone from what is free. */
rv_status rv_load_climb(const struct rv_files *files, rv_backend *be, const rv_load_options *asked, rv_load_options *options, const rv_profile *profile,
                        bool opened, int32_t *at, rv_rung *rung, rv_taking *taking, rv_error *err);
/* Slots that were left open, or may become fewer: as many as fit in `room`, at least one. */
void rv_slots_settle(const rv_config *config, const rv_backend *be, const rv_load_options *load, const rv_profile *profile, rv_session_options *options, bool streams,
                     uint64_t room, rv_steps *steps);

/* "lm_head in int8, int8 weights": the steps of a set as text. */
void rv_steps_text(rv_steps steps, char *out, size_t bytes);
/* Pinned host bytes that tables and streamed layers may take. */
uint64_t rv_host_room(const rv_load_options *options);
#endif
