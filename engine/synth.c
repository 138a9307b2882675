/* synth.c - rv_synthesise: options, the folder, and the order in which its files appear.
 *
 * The one idea: what makes a folder a model gets its name last (engine/folder.h), so that nobody can load half a checkpoint.
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/abi.h"
#include "engine/synth.h"

enum { CHANNELS_AN_OUTLIER = 512, MOST_THREADS = 1024 };
#define OUTLIER_GAIN 16.0f               /* |x| > 6 in two of three rows                        */
#define SHARD_BYTES UINT64_C(5000000000)

/* ---- options ---- */

static rv_status check_options(const rv_synth_options *o, rv_error *err) {
    const struct { const char *name; int32_t value, low, high; } ranges[] = {
        { "type", o->type, RV_STORED_AUTO, RV_STORED_F32 }, { "names", o->names, RV_NAMES_OLD, RV_NAMES_NEW },
        { "outliers", o->outliers, -1, RV_SYNTH_MAX_OUTLIERS }, { "threads", o->threads, 0, MOST_THREADS } };
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++)
        if (ranges[i].value < ranges[i].low || ranges[i].value > ranges[i].high)
            return rv_fail(err, RV_ERR_ARGUMENT, "rv_synth_options.%s: must be from %d to %d, is %d", ranges[i].name,
                           ranges[i].low, ranges[i].high, ranges[i].value);
    return RV_OK;
}

/* Different channels of the residual stream, the same in every layer. */
static void plant_outliers(rv_synth_spec *spec, int32_t wanted, int32_t hidden) {
    const uint64_t key = rv_synth_key(spec->seed, "outliers");
    if (wanted < 0) return;
    if (wanted == 0) wanted = hidden / CHANNELS_AN_OUTLIER;
    if (wanted == 0) wanted = 1;
    if (wanted > hidden) wanted = hidden;
    if (wanted > RV_SYNTH_MAX_OUTLIERS) wanted = RV_SYNTH_MAX_OUTLIERS;
    for (uint64_t i = 0; spec->n_outliers < wanted; i++) {
        int32_t channel = (int32_t)(rv_synth_hash(key, i) % (uint64_t)hidden);
        bool taken = false;
        for (int32_t k = 0; k < spec->n_outliers; k++) taken |= spec->outlier[k] == channel;
        if (!taken) spec->outlier[spec->n_outliers++] = channel;
    }
    spec->outlier_gain = OUTLIER_GAIN;
}

/* ---- the folder ---- */

static rv_status write_folder(const char *dir, const rv_synth_model *model, rv_synth_set *set,
                              const rv_synth_options *o, rv_error *err) {
    rv_folder folder;
    rv_status st = rv_folder_take(dir, &folder, err);
    if (st) return st;
    rv_shards_name(&set->files, &folder);
    rv_synth_name_configs(model, &folder);
    if (!o->sparse) TRY(rv_folder_check_room(dir, set->files.file_bytes, err));
    TRY(rv_folder_begin(&folder, err));
    TRY(rv_synth_set_write(set, &folder, o->progress, o->progress_user, err));
    TRY(rv_synth_write_configs(model, &folder, err));
    TRY(rv_synth_write_tokenizer(model, o->seed, &folder, err));
    TRY(rv_folder_publish(&folder, err));
done:
    rv_folder_leave(&folder, st);
    return st;
}

rv_status rv_synthesise(const char *out_dir, const rv_synth_options *options, rv_synth_info *out, rv_error *err) {
    static const rv_dtype types[] = { [RV_STORED_AUTO] = RV_DTYPE_COUNT, [RV_STORED_BF16] = RV_BF16,
                                      [RV_STORED_F16] = RV_F16, [RV_STORED_F32] = RV_F32 };
    rv_synth_options o;
    rv_synth_set set = { 0 };
    rv_status st = RV_OK;
    rv_synth_model *model = calloc(1, sizeof *model);
    if (!model) return rv_fail_memory(err, "synthetic checkpoint");
    TRY(rv_abi_read(&o, sizeof o, options, "rv_synth_options", err));
    TRY(check_options(&o, err));
    if (out) TRY(rv_abi_fillable(out, "rv_synth_info", err));
    rv_synth_spec spec = { .seed = o.seed, .type = types[o.type], .zero_unused = !o.padding_nonzero, .spread = rv_synth_spread,
                           .layout = o.names == RV_NAMES_NEW ? RV_LAYOUT_NEW : RV_LAYOUT_OLD, .threads = o.threads,
                           .shard_bytes = o.shard_bytes ? o.shard_bytes : SHARD_BYTES };
    TRY(rv_synth_model_open(o.shape ? o.shape : "11b", &spec.type, model, err));
    plant_outliers(&spec, o.outliers, model->config.text.hidden);
    TRY(rv_synth_set_plan(&model->config, &spec, &set, err));
    set.files.sparse = o.sparse;
    if (out_dir) TRY(write_folder(out_dir, model, &set, &o, err));
    if (out) {
        rv_synth_info info = { .tensors = (uint32_t)set.files.n, .files = (uint32_t)set.files.n_files, .parameters = set.parameters,
                               .bytes = set.files.bytes, .file_bytes = set.files.file_bytes };
        TRY(rv_abi_write(out, &info, sizeof info, "rv_synth_info", err));
    }
done:
    rv_synth_set_free(&set);
    rv_synth_model_close(model);
    free(model);
    return st;
}
