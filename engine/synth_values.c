/* synth_values.c - numbers of a synthetic checkpoint; see synth.h for how they are defined. */
#include <math.h>

#include "engine/synth.h"

enum { NORMAL_MEAN = 131070 };

uint64_t rv_synth_key(uint64_t seed, const char *name) {              /* FNV-1a */
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name; name++) h = (h ^ (uint8_t)*name) * UINT64_C(0x100000001b3);
    return seed ^ h;
}

static inline uint64_t hash_at(uint64_t key, uint64_t i) {            /* splitmix64 */
    uint64_t z = key + (i + 1) * UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ z >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ z >> 27) * UINT64_C(0x94d049bb133111eb);
    return z ^ z >> 31;
}

uint64_t rv_synth_hash(uint64_t key, uint64_t i) { return hash_at(key, i); }

/* Near-normal: the sum of four 16-bit numbers about its mean; exact in f32. */
static inline float normal_at(uint64_t key, uint64_t i) {
    uint64_t h = hash_at(key, i), pairs = (h & UINT64_C(0x0000ffff0000ffff)) + (h >> 16 & UINT64_C(0x0000ffff0000ffff));
    return (float)((int32_t)((pairs & 0xffffffffu) + (pairs >> 32)) - NORMAL_MEAN);
}

static float gate_at(uint64_t key, uint64_t i) {
    uint64_t h = hash_at(key, i);
    float v = (float)(22938 + (int32_t)(h & 0x7fff)) * 0x1p-16f;
    return h >> 63 ? -v : v;
}

static void fill(uint64_t key, rv_spread spread, rv_dtype type, uint64_t from, uint64_t n, void *out) {
    const float scale = spread.scale, mean = spread.mean;
    float *f32 = out;
    uint16_t *h16 = out;
    if (spread.gate) {
        for (uint64_t i = 0; i < n; i++) {
            float v = gate_at(key, from + i);
            if (type == RV_F32) f32[i] = v;
            else h16[i] = type == RV_BF16 ? rv_f32_to_bf16(v) : rv_f32_to_f16(v);
        }
    } else if (type == RV_F32) {
        for (uint64_t i = 0; i < n; i++) f32[i] = normal_at(key, from + i) * scale + mean;
    } else if (type == RV_BF16) {
        for (uint64_t i = 0; i < n; i++) h16[i] = rv_f32_to_bf16(normal_at(key, from + i) * scale + mean);
    } else {
        for (uint64_t i = 0; i < n; i++) h16[i] = rv_f32_to_f16(normal_at(key, from + i) * scale + mean);
    }
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && !strcmp(text + n - m, end);
}

static bool is_tile_table(const rv_tensor_want *want) {
    return ends_with(want->name, "tile_positional_embedding.embedding.weight") ||
           ends_with(want->name, "gated_positional_embedding.tile_embedding.weight");
}

static bool is_text_norm(const rv_tensor_want *want) {
    return want->row->part == RV_IN_TEXT && want->row->kind == RV_KIND_VECTOR && ends_with(want->name, "layernorm.weight");
}

/* Elements of an aspect ratio's row that are in use, as the published checkpoints have it. */
static uint64_t used_of_row(const rv_vision_config *v, uint64_t row, uint64_t row_elements) {
    if (row == 0) return 0;
    uint64_t tiles = (uint64_t)v->ratios[row - 1][0] * (uint64_t)v->ratios[row - 1][1];
    return row_elements / (uint64_t)v->max_tiles * tiles;
}

/* A tile table with its unused slots zero. */
static void fill_table(const rv_synth_spec *spec, const rv_config *config, const rv_tensor_want *want, uint64_t key,
                       rv_spread spread, uint64_t from, uint64_t n, char *out) {
    const uint64_t cols = (uint64_t)(want->elements / want->shape[0]);
    const size_t size = rv_dtype_size(spec->type);
    for (uint64_t end = from + n, to; from < end; from = to) {
        uint64_t row = from / cols, zero = row * cols + used_of_row(&config->vision, row, cols);
        bool used = from < zero;
        to = used ? zero : (row + 1) * cols;
        if (to > end) to = end;
        if (used) fill(key, spread, spec->type, from, to - from, out);
        else memset(out, 0, (size_t)(to - from) * size);
        out += (size_t)(to - from) * size;
    }
}

void rv_synth_tensor(const rv_synth_spec *spec, const rv_config *config, const rv_tensor_want *want, uint64_t from,
                     uint64_t n, void *out) {
    const uint64_t key = rv_synth_key(spec->seed, want->name);
    rv_spread spread = spec->spread(config, want);
    if (spec->zero_unused && is_tile_table(want)) fill_table(spec, config, want, key, spread, from, n, out);
    else fill(key, spread, spec->type, from, n, out);
    if (!spec->n_outliers || !is_text_norm(want)) return;
    spread.scale *= spec->outlier_gain;
    spread.mean *= spec->outlier_gain;
    for (int32_t k = 0; k < spec->n_outliers; k++) {
        uint64_t i = (uint64_t)spec->outlier[k];
        if (i >= from && i - from < n)
            fill(key, spread, spec->type, i, 1, (char *)out + (size_t)(i - from) * rv_dtype_size(spec->type));
    }
}

/* ---- spreads ---- */

static rv_spread spread_of(double sigma, float mean) { return (rv_spread){ false, (float)(sigma / RV_SYNTH_SIGMA), mean }; }

/* A linear whose inputs have variance 1 gives outputs of standard deviation `gain`. */
static rv_spread linear(double gain, const rv_tensor_want *want) {
    return spread_of(gain / sqrt((double)(want->elements / want->shape[0])), 0);
}

/* What a layer adds to the residual stream has a variance of about `total` / layers, so that the stream reaches a
 * standard deviation of about sqrt(total) however many layers there are: growth as in trained models, and no layer's
 * 16-bit operand comes near f16's 65504.  Queries and keys are a little wider than 1, so that attention picks. */
rv_spread rv_synth_spread(const rv_config *config, const rv_tensor_want *want) {
    const rv_vision_config *v = &config->vision;
    const char *name = want->name;
    const bool vision = want->row->part == RV_IN_VISION;
    const double layers = vision ? v->layers + v->global_layers : config->text.layers;
    if (want->row->kind == RV_KIND_GATE) return (rv_spread){ .gate = true };
    if (ends_with(name, ".bias")) return spread_of(0.02, 0);
    if (want->row->kind == RV_KIND_VECTOR) return spread_of(0.05, 1);                  /* norms */
    if (want->row->use == RV_USE_ROWS) return spread_of(vision ? 0.1 : 0.02, 0);       /* tables */
    if (ends_with(name, "q_proj.weight") || ends_with(name, "k_proj.weight")) return linear(1.5, want);
    if (ends_with(name, "o_proj.weight") || ends_with(name, "down_proj.weight") || ends_with(name, "fc2.weight"))
        return linear(4 / sqrt(layers), want);
    return linear(want->row->part == RV_IN_HEAD ? 2 : 1, want);
}
