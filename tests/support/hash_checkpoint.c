/* hash_checkpoint.c - twin of tools/reference/hash_weights.py; test_hash_checkpoint.c holds the two together. */
#include "tests/support/hash_checkpoint.h"

#include <errno.h>
#include <inttypes.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "engine/base/file.h"
#include "engine/base/text.h"

enum { NORMAL_MEAN = 131070, MAX_SHARDS = 64, CONFIG_LIMIT = 1 << 20 };

/* ---- the hash ---- */

static uint64_t name_key(uint64_t seed, const char *name) {          /* FNV-1a */
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++) h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return seed ^ h;
}

static uint64_t hash_at(uint64_t key, uint64_t i) {                  /* splitmix64 */
    uint64_t z = key + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

/* Near-normal: the sum of four 16-bit numbers about its mean; exact in f32. */
static float normal_of(uint64_t h) {
    uint64_t sum = (h & 0xffff) + (h >> 16 & 0xffff) + (h >> 32 & 0xffff) + (h >> 48);
    return (float)((int32_t)sum - NORMAL_MEAN);
}

/* value = normal * scale + mean; a gate is uniform in +-[0.35, 0.85). */
typedef struct shape_of_values { bool gate; float scale, mean; } shape_of_values;

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static float linear_scale(double gain2, int64_t cols) {
    return (float)sqrt(3.0 * gain2 / (double)cols) * 0x1p-16f;
}

static shape_of_values shape_of(const rv_tensor_want *want) {
    const char *name = want->name;
    int64_t cols = want->elements / want->shape[0];
    if (want->row->kind == RV_KIND_GATE) return (shape_of_values){ .gate = true };
    if (strstr(name, ".q_norm.") || strstr(name, ".k_norm.")) return (shape_of_values){ false, 0x1p-18f, 1.5f };
    if (ends_with(name, ".bias")) return (shape_of_values){ false, 0x1p-19f, 0 };
    if (strstr(name, "norm")) return (shape_of_values){ false, 0x1p-18f, 1 };
    if (want->row->use == RV_USE_ROWS) return (shape_of_values){ false, 0x1p-16f, 0 };
    if (ends_with(name, "q_proj.weight") || ends_with(name, "k_proj.weight"))
        return (shape_of_values){ false, linear_scale(2.25, cols), 0 };
    return (shape_of_values){ false, linear_scale(want->row->part == RV_IN_HEAD ? 4 : 1, cols), 0 };
}

static float value_of(shape_of_values shape, uint64_t h) {
    if (!shape.gate) return normal_of(h) * shape.scale + shape.mean;
    float v = (float)(22938 + (int32_t)(h & 0x7fff)) * 0x1p-16f;
    return h >> 63 ? -v : v;
}

/* Round to nearest even; finite values below 65520 only. */
static uint16_t f16_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
    if (magnitude < 0x38800000u)                                     /* subnormal: a multiple of 2^-24 */
        return (uint16_t)(sign | (uint32_t)lrintf(fabsf(f) * 0x1p24f));
    magnitude += 0xfffu + (magnitude >> 13 & 1u);
    return (uint16_t)(sign | (magnitude - 0x38000000u) >> 13);
}

static void store(void *out, rv_dtype type, int64_t i, float f) {
    if (type == RV_F32) ((float *)out)[i] = f;
    else ((uint16_t *)out)[i] = type == RV_BF16 ? rv_f32_to_bf16(f) : f16_of(f);
}

/* Elements of an aspect ratio's row that are in use, as the published checkpoints have it. */
static int64_t used_of_row(const rv_vision_config *v, int64_t row, int64_t row_elements) {
    if (row == 0) return 0;
    int64_t tiles = (int64_t)v->ratios[row - 1][0] * v->ratios[row - 1][1];
    return row_elements / v->max_tiles * tiles;
}

static bool is_tile_table(const rv_tensor_want *want) {
    return ends_with(want->name, "tile_positional_embedding.embedding.weight") ||
           ends_with(want->name, "gated_positional_embedding.tile_embedding.weight");
}

void hash_tensor(const hash_spec *spec, const rv_config *config, const rv_tensor_want *want, void *out) {
    uint64_t key = name_key(spec->seed, want->name);
    shape_of_values shape = shape_of(want);
    int64_t cols = want->elements / want->shape[0];
    bool cut = spec->zero_unused && is_tile_table(want);
    for (int64_t row = 0; row < want->shape[0]; row++) {
        int64_t used = cut ? used_of_row(&config->vision, row, cols) : cols;
        for (int64_t c = 0; c < cols; c++) {
            int64_t i = row * cols + c;
            store(out, spec->type, i, c < used ? value_of(shape, hash_at(key, (uint64_t)i)) : 0.0f);
        }
    }
}

void hash_image(const hash_spec *spec, int32_t image, int32_t n_tiles, int32_t tile, uint8_t *out) {
    char name[32];
    snprintf(name, sizeof name, "pixels.%d", image);
    uint64_t key = name_key(spec->seed, name), n = (uint64_t)n_tiles * RV_CHANNELS * (uint64_t)tile * (uint64_t)tile;
    for (uint64_t i = 0; i < n; i++) out[i] = (uint8_t)(hash_at(key, i) >> 56);
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

typedef struct wants { rv_tensor_want *at; size_t n, capacity; } wants;

static rv_status wants_add(void *user, const rv_tensor_want *want, rv_error *err) {
    wants *w = user;
    if (w->n == w->capacity) {
        size_t more = w->capacity ? w->capacity * 2 : 256;
        rv_tensor_want *at = realloc(w->at, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "tensor list");
        w->at = at;
        w->capacity = more;
    }
    w->at[w->n++] = *want;
    return RV_OK;
}

static void add_file_name(rv_string *s, rv_layout layout, const rv_tensor_want *want) {
    static const char *const prefix[2][RV_PARTS] = {
        { [RV_IN_TEXT] = "language_model.model", [RV_IN_HEAD] = "language_model.lm_head",
          [RV_IN_VISION] = "vision_model", [RV_IN_PROJECTOR] = "multi_modal_projector" },
        { [RV_IN_TEXT] = "model.language_model", [RV_IN_HEAD] = "lm_head",
          [RV_IN_VISION] = "model.vision_model", [RV_IN_PROJECTOR] = "model.multi_modal_projector" } };
    rv_string_addf(s, "%s%s", prefix[layout == RV_LAYOUT_NEW][want->row->part], strchr(want->name, '.'));
}

static uint64_t bytes_of(const hash_spec *spec, const rv_tensor_want *want) {
    return (uint64_t)want->elements * rv_dtype_size(spec->type);
}

static void add_header(rv_string *s, const hash_spec *spec, const rv_tensor_want *want, size_t n) {
    static const char *const types[] = { [RV_F32] = "F32", [RV_F16] = "F16", [RV_BF16] = "BF16" };
    uint64_t at = 0;
    for (size_t i = 0; i < n; i++) {
        rv_string_addz(s, i ? ",\"" : "{\"");
        add_file_name(s, spec->layout, &want[i]);
        rv_string_addf(s, "\":{\"dtype\":\"%s\",\"shape\":[", types[spec->type]);
        for (int32_t d = 0; d < want[i].n_dims; d++) rv_string_addf(s, "%s%" PRId64, d ? "," : "", want[i].shape[d]);
        rv_string_addf(s, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", at, at + bytes_of(spec, &want[i]));
        at += bytes_of(spec, &want[i]);
    }
    rv_string_addz(s, "}");
    while (s->bytes % 8 && !s->failed) rv_string_addz(s, " ");
}

static rv_status write_shard(const char *path, const hash_spec *spec, const rv_config *config,
                             const rv_tensor_want *want, size_t n, rv_error *err) {
    rv_status st = RV_OK;
    rv_string header = { 0 };
    void *data = NULL;
    FILE *f = NULL;
    uint64_t most = 0;
    uint8_t length[8];
    add_header(&header, spec, want, n);
    for (size_t i = 0; i < n; i++)
        if (bytes_of(spec, &want[i]) > most) most = bytes_of(spec, &want[i]);
    data = malloc(most);
    if (header.failed || !data) TRY(rv_fail_memory(err, path));
    for (int i = 0; i < 8; i++) length[i] = (uint8_t)((uint64_t)header.bytes >> 8 * i);
    f = fopen(path, "wb");
    bool good = f && fwrite(length, 8, 1, f) == 1 && fwrite(header.data, header.bytes, 1, f) == 1;
    for (size_t i = 0; good && i < n; i++) {
        hash_tensor(spec, config, &want[i], data);
        good = fwrite(data, bytes_of(spec, &want[i]), 1, f) == 1;
    }
    if (f && fclose(f)) good = false;
    if (!good) TRY(rv_fail(err, RV_ERR_IO, "%s: %s", path, strerror(errno)));
done:
    free(data);
    rv_string_free(&header);
    return st;
}

static rv_status write_in(const char *dir, const char *name, const void *data, size_t bytes, rv_error *err) {
    char *path = rv_path_join(dir, name);
    rv_status st = path ? rv_file_write(path, data, bytes, err) : rv_fail_memory(err, name);
    free(path);
    return st;
}

static rv_status write_shards(const char *dir, const hash_spec *spec, const rv_config *config, const wants *w,
                              rv_error *err) {
    rv_status st = RV_OK;
    rv_string index = { 0 };
    size_t shards = (size_t)spec->shards;
    char *path = NULL;
    uint64_t total = 0;
    for (size_t i = 0; i < w->n; i++) total += bytes_of(spec, &w->at[i]);
    rv_string_addf(&index, "{\"metadata\":{\"total_size\":%" PRIu64 "},\"weight_map\":{", total);
    for (size_t k = 0; k < shards; k++) {
        size_t from = w->n * k / shards, to = w->n * (k + 1) / shards;
        char name[64];
        snprintf(name, sizeof name, "model-%05zu-of-%05zu.safetensors", k + 1, shards);
        if (shards == 1) snprintf(name, sizeof name, "model.safetensors");
        for (size_t i = from; i < to; i++) {
            rv_string_addz(&index, i ? ",\n\"" : "\n\"");
            add_file_name(&index, spec->layout, &w->at[i]);
            rv_string_addf(&index, "\":\"%s\"", name);
        }
        free(path);
        path = rv_path_join(dir, name);
        if (!path) TRY(rv_fail_memory(err, name));
        TRY(write_shard(path, spec, config, w->at + from, to - from, err));
    }
    rv_string_addz(&index, "}}\n");
    if (index.failed) TRY(rv_fail_memory(err, "shard index"));
    if (shards > 1) TRY(write_in(dir, "model.safetensors.index.json", index.data, index.bytes, err));
done:
    free(path);
    rv_string_free(&index);
    return st;
}

rv_status hash_checkpoint_write(const char *golden_dir, const char *out_dir, rv_error *err) {
    rv_status st = RV_OK;
    hash_spec spec;
    wants w = { 0 };
    char *path = NULL, *text = NULL;
    size_t bytes;
    rv_config *config = malloc(sizeof *config);
    path = rv_path_join(golden_dir, "config.json");
    if (!config || !path) TRY(rv_fail_memory(err, golden_dir));
    TRY(hash_spec_load(golden_dir, &spec, err));
    TRY(rv_config_load(golden_dir, config, err));
    TRY(rv_file_read(path, CONFIG_LIMIT, &text, &bytes, err));
    if (mkdir(out_dir, 0777) && errno != EEXIST) TRY(rv_fail(err, RV_ERR_IO, "%s: %s", out_dir, strerror(errno)));
    TRY(write_in(out_dir, "config.json", text, bytes, err));
    TRY(rv_weights_each(config, wants_add, &w, err));
    TRY(write_shards(out_dir, &spec, config, &w, err));
done:
    free(w.at);
    free(config);
    free(path);
    free(text);
    return st;
}
