/* synth_files.c - the safetensors files of a synthetic checkpoint: which tensors, and their numbers, in pieces of two million. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/synth.h"

enum { PIECE = 1 << 21 };

static rv_status want_add(void *user, const rv_tensor_want *want, rv_error *err) {
    static const char *const types[] = { [RV_F32] = "F32", [RV_F16] = "F16", [RV_BF16] = "BF16" };
    static const char *const prefix[2][RV_PARTS] = {
        { [RV_IN_TEXT] = "language_model.model", [RV_IN_HEAD] = "language_model.lm_head",
          [RV_IN_VISION] = "vision_model", [RV_IN_PROJECTOR] = "multi_modal_projector" },
        { [RV_IN_TEXT] = "model.language_model", [RV_IN_HEAD] = "lm_head",
          [RV_IN_VISION] = "model.vision_model", [RV_IN_PROJECTOR] = "model.multi_modal_projector" } };
    rv_synth_set *set = user;
    char name[2 * RV_NAME_BYTES];
    if (set->files.n == set->room) {
        size_t more = set->room ? set->room * 2 : 256;
        rv_tensor_want *at = realloc(set->want, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "tensor list");
        set->want = at;
        set->room = more;
    }
    snprintf(name, sizeof name, "%s%s", prefix[set->spec.layout == RV_LAYOUT_NEW][want->row->part], strchr(want->name, '.'));
    rv_shard_tensor t = { .name = name, .type = types[set->spec.type], .n_dims = want->n_dims,
                          .bytes = (uint64_t)want->elements * rv_dtype_size(set->spec.type) };
    memcpy(t.shape, want->shape, sizeof t.shape);
    set->want[set->files.n] = *want;
    set->parameters += (uint64_t)want->elements;
    return rv_shards_add(&set->files, &t, err);
}

rv_status rv_synth_set_plan(const rv_config *config, const rv_synth_spec *spec, rv_synth_set *out, rv_error *err) {
    rv_status st = RV_OK;
    *out = (rv_synth_set){ .config = config, .spec = *spec };
    TRY(rv_weights_each(config, want_add, out, err));
    TRY(rv_shards_cut(&out->files, spec->shard_bytes, spec->shards, err));
done:
    return st;
}

void rv_synth_set_free(rv_synth_set *set) {
    rv_shards_free(&set->files);
    free(set->want);
    set->want = NULL;
}

static uint32_t units_of(void *user, size_t i) {
    const rv_synth_set *set = user;
    return set->files.sparse ? 0 : (uint32_t)((set->want[i].elements + PIECE - 1) / PIECE);
}

static rv_status run(void *user, rv_shards *files, size_t i, uint32_t unit, void *memory, rv_error *err) {
    const rv_synth_set *set = user;
    const uint64_t size = rv_dtype_size(set->spec.type), from = (uint64_t)unit * PIECE;
    uint64_t n = (uint64_t)set->want[i].elements - from;
    if (n > PIECE) n = PIECE;
    rv_synth_tensor(&set->spec, set->config, &set->want[i], from, n, memory);
    return rv_shards_put(files, i, from * size, memory, n * size, err);
}

rv_status rv_synth_set_write(rv_synth_set *set, const rv_folder *folder, rv_progress_fn progress, void *user, rv_error *err) {
    const rv_shard_work work = { .units = units_of, .run = run, .user = set, .memory_bytes = PIECE * rv_dtype_size(set->spec.type),
                                 .threads = set->spec.threads, .progress = progress, .progress_user = user };
    return rv_shards_write(&set->files, folder, &work, err);
}
