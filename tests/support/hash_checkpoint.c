/* hash_checkpoint.c - twin of tools/reference/hash_weights.py; test_hash_checkpoint.c holds the two together. */
#include "tests/support/hash_checkpoint.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/synth.h"

enum { MAX_SHARDS = 64, CONFIG_LIMIT = 1 << 20 };

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static float linear_scale(double gain2, int64_t cols) {
    return (float)sqrt(3.0 * gain2 / (double)cols) * 0x1p-16f;
}

static rv_spread spread_of(const rv_config *config, const rv_tensor_want *want) {
    const char *name = want->name;
    int64_t cols = want->elements / want->shape[0];
    (void)config;
    if (want->row->kind == RV_KIND_GATE) return (rv_spread){ .gate = true };
    if (strstr(name, ".q_norm.") || strstr(name, ".k_norm.")) return (rv_spread){ false, 0x1p-18f, 1.5f };
    if (ends_with(name, ".bias")) return (rv_spread){ false, 0x1p-19f, 0 };
    if (strstr(name, "norm")) return (rv_spread){ false, 0x1p-18f, 1 };
    if (want->row->use == RV_USE_ROWS) return (rv_spread){ false, 0x1p-16f, 0 };
    if (ends_with(name, "q_proj.weight") || ends_with(name, "k_proj.weight"))
        return (rv_spread){ false, linear_scale(2.25, cols), 0 };
    return (rv_spread){ false, linear_scale(want->row->part == RV_IN_HEAD ? 4 : 1, cols), 0 };
}

static rv_synth_spec synth_of(const hash_spec *spec) {
    return (rv_synth_spec){ .seed = spec->seed, .type = spec->type, .layout = spec->layout, .zero_unused = spec->zero_unused,
                            .spread = spread_of, .shards = (uint32_t)spec->shards };
}

void hash_tensor(const hash_spec *spec, const rv_config *config, const rv_tensor_want *want, void *out) {
    rv_synth_spec synth = synth_of(spec);
    rv_synth_tensor(&synth, config, want, 0, (uint64_t)want->elements, out);
}

void hash_image(const hash_spec *spec, int32_t image, int32_t n_tiles, int32_t tile, uint8_t *out) {
    char name[32];
    snprintf(name, sizeof name, "pixels.%d", image);
    uint64_t key = rv_synth_key(spec->seed, name), n = (uint64_t)n_tiles * RV_CHANNELS * (uint64_t)tile * (uint64_t)tile;
    for (uint64_t i = 0; i < n; i++) out[i] = (uint8_t)(rv_synth_hash(key, i) >> 56);
}

/* ---- weights.json ---- */

static rv_status spec_read(json_t *root, const char *path, hash_spec *out, rv_error *err) {
    static const char *const types[] = { [RV_F32] = "F32", [RV_F16] = "F16", [RV_BF16] = "BF16" };
    const char *type, *layout, *unused;
    json_int_t seed, shards;
    if (json_unpack(root, "{s:I,s:s,s:s,s:I,s:s}", "seed", &seed, "dtype", &type, "layout", &layout, "shards", &shards,
                    "unused_slots", &unused) || seed < 0 || shards < 1 || shards > MAX_SHARDS)
        return rv_fail(err, RV_ERR_FORMAT, "%s: wants seed, dtype, layout, shards and unused_slots", path);
    *out = (hash_spec){ .seed = (uint64_t)seed, .shards = (int32_t)shards, .type = RV_DTYPE_COUNT };
    for (rv_dtype t = RV_F32; t <= RV_BF16; t++)
        if (!strcmp(type, types[t])) out->type = t;
    out->layout = strcmp(layout, "new") ? RV_LAYOUT_OLD : RV_LAYOUT_NEW;
    out->zero_unused = !strcmp(unused, "zero");
    if (out->type == RV_DTYPE_COUNT || (out->layout == RV_LAYOUT_OLD && strcmp(layout, "old")) ||
        (!out->zero_unused && strcmp(unused, "random")))
        return rv_fail(err, RV_ERR_FORMAT,
                       "%s: dtype is F32, F16 or BF16, layout old or new, unused_slots zero or random", path);
    return RV_OK;
}

rv_status hash_spec_load(const char *golden_dir, hash_spec *out, rv_error *err) {
    rv_status st = RV_OK;
    json_error_t why;
    json_t *root = NULL;
    char *path = rv_path_join(golden_dir, "weights.json");
    if (!path) return rv_fail_memory(err, "weights.json");
    root = json_load_file(path, 0, &why);
    if (!root) st = rv_fail(err, RV_ERR_FORMAT, "%s: %s", path, why.text);
    else st = spec_read(root, path, out, err);
    json_decref(root);
    free(path);
    return st;
}

/* ---- files ---- */

static rv_status copy_config(const char *golden_dir, const char *out_dir, rv_error *err) {
    char *from = rv_path_join(golden_dir, "config.json"), *to = rv_path_join(out_dir, "config.json"), *text = NULL;
    size_t bytes;
    rv_status st = RV_OK;
    if (!from || !to) TRY(rv_fail_memory(err, "config.json"));
    TRY(rv_file_read(from, CONFIG_LIMIT, &text, &bytes, err));
    TRY(rv_file_write(to, text, bytes, err));
done:
    free(from);
    free(to);
    free(text);
    return st;
}

rv_status hash_checkpoint_write(const char *golden_dir, const char *out_dir, rv_error *err) {
    rv_status st = RV_OK;
    hash_spec spec;
    rv_synth_set set = { 0 };
    rv_folder folder = { .dir = out_dir, .fd = -1 };     /* not taken: what an earlier test left is replaced */
    rv_config *config = malloc(sizeof *config);
    if (!config) TRY(rv_fail_memory(err, golden_dir));
    TRY(hash_spec_load(golden_dir, &spec, err));
    TRY(rv_config_load(golden_dir, config, err));
    if (mkdir(out_dir, 0777) && errno != EEXIST) TRY(rv_fail(err, RV_ERR_IO, "%s: %s", out_dir, strerror(errno)));
    if ((folder.fd = open(out_dir, O_RDONLY | O_DIRECTORY)) < 0) TRY(rv_fail(err, RV_ERR_IO, "%s: %s", out_dir, strerror(errno)));
    TRY(copy_config(golden_dir, out_dir, err));
    rv_synth_spec synth = synth_of(&spec);
    TRY(rv_synth_set_plan(config, &synth, &set, err));
    rv_shards_name(&set.files, &folder);
    TRY(rv_synth_set_write(&set, &folder, NULL, NULL, err));
    TRY(rv_folder_publish(&folder, err));
done:
    if (folder.fd >= 0) close(folder.fd);
    rv_string_free(&folder.names);
    rv_synth_set_free(&set);
    free(config);
    return st;
}
