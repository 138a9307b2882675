/* config.c - config.json, generation_config.json and the preprocessor's file, checked.
 *
 * The one idea: a key that is absent has the default of HF's MllamaConfig, since transformers leaves
 * out what equals its default; a key that is there must make sense, alone and beside the others.
 * Sources: spec section 1, transformers 4.45 and 5.x configuration_mllama.py.
 */
#include "engine/config.h"

#include <assert.h>
#include <math.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "engine/config_json.h"

enum { MAX_HIDDEN = 65536, MAX_HEADS = 1024, MAX_FFN = 1 << 20, MAX_VOCAB = 1 << 24, MAX_POSITIONS = 1 << 24,
       MAX_TILE = 4096, EXTRA_EMBEDDINGS = 8 };

typedef struct whole_key { const char *key; size_t offset; int32_t low, high, fallback; } whole_key;

static const whole_key text_keys[] = {
    { "hidden_size", offsetof(rv_text_config, hidden), 1, MAX_HIDDEN, 4096 },
    { "num_hidden_layers", offsetof(rv_text_config, layers), 1, RV_MAX_LAYERS, 40 },
    { "num_attention_heads", offsetof(rv_text_config, heads), 1, MAX_HEADS, 32 },
    { "num_key_value_heads", offsetof(rv_text_config, kv_heads), 1, MAX_HEADS, 8 },
    { "intermediate_size", offsetof(rv_text_config, ffn), 1, MAX_FFN, 14336 },
    { "vocab_size", offsetof(rv_text_config, vocab), 1, MAX_VOCAB, 128256 },
    { "max_position_embeddings", offsetof(rv_text_config, max_positions), 1, MAX_POSITIONS, 131072 },
};

static const whole_key vision_keys[] = {
    { "hidden_size", offsetof(rv_vision_config, hidden), 1, MAX_HIDDEN, 1280 },
    { "num_hidden_layers", offsetof(rv_vision_config, layers), 1, RV_MAX_LAYERS, 32 },
    { "num_global_layers", offsetof(rv_vision_config, global_layers), 0, RV_MAX_LAYERS, 8 },
    { "intermediate_size", offsetof(rv_vision_config, ffn), 1, MAX_FFN, 5120 },
    { "vision_output_dim", offsetof(rv_vision_config, output_dim), 1, MAX_HIDDEN * (RV_MAX_TAPS + 1), 7680 },
    { "image_size", offsetof(rv_vision_config, tile), 1, MAX_TILE, 448 },
    { "patch_size", offsetof(rv_vision_config, patch), 1, MAX_TILE, 14 },
    { "max_num_tiles", offsetof(rv_vision_config, max_tiles), 1, RV_MAX_TILES, 4 },
};

static void read_keys(const rv_section *s, const whole_key *keys, size_t count, void *out) {
    for (size_t i = 0; i < count; i++) {
        int32_t value = rv_section_whole(s, keys[i].key, keys[i].low, keys[i].high, keys[i].fallback);
        memcpy((char *)out + keys[i].offset, &value, sizeof value);
    }
}

/* The one string that we can run; anything else is a model of another kind. */
static void need_text(const rv_section *s, const char *key, const char *only) {
    const char *is = rv_section_text(s, key, only);
    if (strcmp(is, only))
        rv_section_no(s, key, "is \"%.60s\"; only \"%s\" is supported", is, only);
}

/* ---- text ------------------------------------------------------------------------------ */

static void read_cross_layers(const rv_section *s, rv_text_config *t) {
    static const int32_t published[] = { 3, 8, 13, 18, 23, 28, 33, 38 };
    int32_t layers[RV_MAX_LAYERS];
    int32_t count = rv_section_wholes(s, "cross_attention_layers", 0, t->layers - 1, 1, t->layers, layers);
    if (s->file->st) return;
    if (count == 0) {
        count = sizeof published / sizeof *published;
        memcpy(layers, published, sizeof published);
        if (layers[count - 1] >= t->layers) {
            rv_section_bad(s, "cross_attention_layers", "is missing, and its default [3, 8, .. 38] does not fit "
                            "num_hidden_layers %d", t->layers);
            return;
        }
    }
    for (int32_t i = 0; i < count; i++) {
        if (t->cross[layers[i]])
            rv_section_bad(s, "cross_attention_layers", "layer %d is given twice", layers[i]);
        t->cross[layers[i]] = true;
    }
    t->n_cross = count;
    if (count == t->layers)
        rv_section_no(s, "cross_attention_layers", "leaves no self-attention layer");
}

/* 4.45: rope_theta and rope_scaling (null: none); 5.x: both in rope_parameters. */
static void read_rope(const rv_section *s, rv_text_config *t) {
    rv_section scaling = rv_section_open(s, "rope_scaling", "text_config.rope_scaling.");
    rv_section all = rv_section_open(s, "rope_parameters", "text_config.rope_parameters.");
    const rv_section *rope = scaling.object ? &scaling : &all;
    const rv_section *theta = rv_section_has(&all, "rope_theta") ? &all : s;
    t->rope_theta = rv_section_real(theta, "rope_theta", 1, 1e15, 500000);

    const char *old_name = rv_section_text(rope, "type", rope == &all ? "default" : NULL);
    const char *type = rv_section_text(rope, "rope_type", old_name);
    if (s->file->st) return;
    if (!type) {
        rv_section_bad(rope, "rope_type", "is missing");
        return;
    }
    if (strcmp(type, "default") == 0) return;
    if (strcmp(type, "llama3")) {
        rv_section_no(rope, "rope_type", "is \"%.60s\"; only \"llama3\" and \"default\" are supported",
                        type);
        return;
    }
    static const char *const keys[] = {
        "factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings" };
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        if (!rv_section_has(rope, keys[i])) rv_section_bad(rope, keys[i], "is missing (rope_type is llama3)");
    t->rope_scaled = true;
    t->rope_factor = rv_section_real(rope, keys[0], 1, 1e6, 1);
    t->rope_low = rv_section_real(rope, keys[1], 1e-6, 1e6, 1);
    t->rope_high = rv_section_real(rope, keys[2], 1e-6, 1e6, 2);
    t->rope_original = rv_section_whole(rope, keys[3], 1, MAX_POSITIONS, 1);
    if (t->rope_high <= t->rope_low)
        rv_section_bad(rope, "high_freq_factor", "must be greater than low_freq_factor %g, is %g", t->rope_low,
                        t->rope_high);
}

static void read_text(const rv_section *s, rv_text_config *t) {
    need_text(s, "model_type", "mllama_text_model");
    need_text(s, "hidden_act", "silu");
    read_keys(s, text_keys, sizeof text_keys / sizeof *text_keys, t);
    t->norm_eps = (float)rv_section_real(s, "rms_norm_eps", 1e-12, 1, 1e-5);
    if (rv_section_bool(s, "tie_word_embeddings", false))
        rv_section_no(s, "tie_word_embeddings", "is true; this model family keeps lm_head apart");
    if (s->file->st) return;

    if (rv_section_value(s, "head_dim")) t->head_dim = rv_section_whole(s, "head_dim", 1, MAX_HEADS, 1);
    else if (t->hidden % t->heads == 0) t->head_dim = t->hidden / t->heads;
    else rv_section_bad(s, "hidden_size", "%d is not a multiple of num_attention_heads %d", t->hidden, t->heads);
    if (t->head_dim % 2)
        rv_section_bad(s, rv_section_value(s, "head_dim") ? "head_dim" : "hidden_size",
                        "heads are %d wide; rotary positions need an even width", t->head_dim);
    if (t->heads % t->kv_heads)
        rv_section_bad(s, "num_key_value_heads", "%d does not divide num_attention_heads %d", t->kv_heads,
                        t->heads);
    read_cross_layers(s, t);
    read_rope(s, t);
}

/* ---- vision ---------------------------------------------------------------------------- */

static void read_taps(const rv_section *s, rv_vision_config *v) {
    static const int32_t published[] = { 3, 7, 15, 23, 30 };
    static const char key[] = "intermediate_layers_indices";
    v->n_taps = rv_section_wholes(s, key, 0, v->layers - 1, 1, RV_MAX_TAPS, v->taps);
    if (s->file->st) return;
    if (v->n_taps == 0) {
        v->n_taps = sizeof published / sizeof *published;
        memcpy(v->taps, published, sizeof published);
        if (v->taps[v->n_taps - 1] >= v->layers)
            rv_section_bad(s, key, "is missing, and its default [3, 7, 15, 23, 30] does not fit "
                            "num_hidden_layers %d", v->layers);
    }
    for (int32_t i = 1; i < v->n_taps; i++)
        if (v->taps[i] <= v->taps[i - 1])
            rv_section_bad(s, key, "must ascend, but %d follows %d", v->taps[i], v->taps[i - 1]);
    if (v->output_dim != v->hidden * (1 + v->n_taps))
        rv_section_bad(s, "vision_output_dim", "must be hidden_size %d times (1 + %d %s) = %d, is %d", v->hidden,
                        v->n_taps, key, v->hidden * (1 + v->n_taps), v->output_dim);
}

static void check_ratios(const rv_section *s, const char *key, const rv_vision_config *v) {
    bool single = false;
    for (int32_t i = 0; i < v->n_ratios; i++) {
        const int32_t *r = v->ratios[i];
        single |= r[0] == 1 && r[1] == 1;
        if (r[0] * r[1] > v->max_tiles)
            rv_section_bad(s, key, "[%d, %d] needs more tiles than max_num_tiles %d", r[0], r[1], v->max_tiles);
        for (int32_t k = 0; k < i; k++)
            if (v->ratios[k][0] == r[0] && v->ratios[k][1] == r[1])
                rv_section_bad(s, key, "[%d, %d] is given twice", r[0], r[1]);
    }
    if (!single) rv_section_bad(s, key, "must have [1, 1], or there is no canvas for a single tile");
}

static void read_ratios(const rv_section *s, rv_vision_config *v) {
    static const int32_t published[8][2] = {
        { 1, 1 }, { 1, 2 }, { 1, 3 }, { 1, 4 }, { 2, 1 }, { 2, 2 }, { 3, 1 }, { 4, 1 } };
    static const char key[] = "supported_aspect_ratios";
    char shown[48];
    const json_t *list = rv_section_value(s, key);
    size_t count = json_array_size(list);
    if (list && (!json_is_array(list) || count < 1 || count > RV_MAX_RATIOS)) {
        rv_section_bad(s, key, "must be a list of 1 to %d pairs [height, width], is %s", RV_MAX_RATIOS,
                        rv_json_show(list, shown));
        return;
    }
    if (!list) {
        count = sizeof published / sizeof *published;
        memcpy(v->ratios, published, sizeof published);
        if (v->max_tiles != 4)
            rv_section_bad(s, key, "is missing, and its default needs max_num_tiles 4, not %d", v->max_tiles);
    }
    for (size_t i = 0; list && i < count; i++) {
        const json_t *pair = json_array_get(list, i);
        for (size_t k = 0; k < 2; k++) {
            const json_t *x = json_array_get(pair, k);
            json_int_t value = json_integer_value(x);
            if (json_array_size(pair) != 2 || !json_is_integer(x) || value < 1 || value > RV_MAX_TILES) {
                rv_section_bad(s, key, "item %zu must be a pair of whole numbers from 1 to %d", i + 1,
                                RV_MAX_TILES);
                return;
            }
            v->ratios[i][k] = (int32_t)value;
        }
    }
    v->n_ratios = (int32_t)count;
    check_ratios(s, key, v);
}

static void set_grid(rv_vision_config *v) {
    v->grid = v->tile / v->patch;
    v->tokens = v->grid * v->grid + 1;
    v->padded_tokens = (v->tokens + 7) / 8 * 8;
}

static void read_vision(const rv_section *s, rv_vision_config *v) {
    need_text(s, "model_type", "mllama_vision_model");
    need_text(s, "hidden_act", "gelu");
    read_keys(s, vision_keys, sizeof vision_keys / sizeof *vision_keys, v);
    const char *heads_key = rv_section_has(s, "attention_heads") ? "attention_heads" : "num_attention_heads";
    v->heads = rv_section_whole(s, heads_key, 1, MAX_HEADS, 16);
    v->norm_eps = (float)rv_section_real(s, "norm_eps", 1e-12, 1, 1e-5);
    int32_t channels = rv_section_whole(s, "num_channels", 1, 1024, RV_CHANNELS);
    if (channels != RV_CHANNELS)
        rv_section_no(s, "num_channels", "is %d; only %d (RGB) is supported", channels, RV_CHANNELS);
    if (s->file->st) return;

    if (v->hidden % v->heads)
        rv_section_bad(s, "hidden_size", "%d is not a multiple of %s %d", v->hidden, heads_key, v->heads);
    if (v->tile % v->patch)
        rv_section_bad(s, "image_size", "%d is not a multiple of patch_size %d", v->tile, v->patch);
    v->head_dim = v->hidden / v->heads;
    set_grid(v);
    read_taps(s, v);
    read_ratios(s, v);
}

/* ---- top level ------------------------------------------------------------------------- */

static void check_model_type(const rv_section *top) {
    const char *type = rv_section_text(top, "model_type", NULL);
    if (top->file->st || !top->object) return;
    if (!type) rv_section_bad(top, "model_type", "is missing; \"mllama\" was expected");
    else if (strcmp(type, "mllama_text_model") == 0)
        rv_section_no(top, "model_type", "is \"%s\", the text half alone: the whole model (\"mllama\") is "
                        "needed", type);
    else if (strcmp(type, "mllama"))
        rv_section_no(top, "model_type", "is \"%.60s\"; only \"mllama\" (Llama 3.2 Vision) is supported",
                        type);
}

/* Which tensors bitsandbytes has quantised, the files themselves say (loader/bnb.h). */
static void check_quantised(const rv_section *top) {
    rv_section q = rv_section_open(top, "quantization_config", "quantization_config.");
    if (!q.object) return;
    const char *method = rv_section_text(&q, "quant_method", "an unnamed method");
    if (strcmp(method, "bitsandbytes"))
        rv_section_no(top, "quantization_config", "the weights are quantised by %.60s; use bitsandbytes' 8 or 4 bits, or a 16-bit or "
                        "32-bit checkpoint", method);
}

/* transformers writes the type at the top (torch_dtype, since 4.56 dtype) and often in text_config too. */
static rv_dtype read_dtype(const rv_section *top, const rv_section *text) {
    static const struct { const char *name; rv_dtype type; } types[] = {
        { "float32", RV_F32 }, { "float16", RV_F16 }, { "bfloat16", RV_BF16 } };
    const rv_section *places[] = { top, text };
    static const char *const keys[] = { "dtype", "torch_dtype" };
    for (int p = 0; p < 2; p++)
        for (int k = 0; k < 2; k++) {
            const char *name = rv_section_text(places[p], keys[k], NULL);
            if (!name) continue;
            for (size_t i = 0; i < sizeof types / sizeof *types; i++)
                if (strcmp(name, types[i].name) == 0) return types[i].type;
            rv_section_no(places[p], keys[k], "is \"%.60s\"; float32, float16 and bfloat16 are supported",
                            name);
        }
    return RV_F32;
}

/* A token id: at the top level if it is there (fine-tuning tools put it there), else in text_config. -1: none. */
static int32_t read_id(const rv_section *top, const rv_section *text, const char *key, int32_t vocab,
                       int32_t fallback) {
    const rv_section *place = rv_section_value(top, key) ? top : text;
    if (rv_section_has(place, key) && !rv_section_value(place, key)) return -1;
    return rv_section_whole(place, key, 0, vocab + EXTRA_EMBEDDINGS - 1, fallback);
}

/* An id or a list of them; 0 when absent or null. */
static int32_t read_eos(const rv_section *s, int32_t vocab, int32_t *out) {
    static const char key[] = "eos_token_id";
    if (json_is_array(rv_section_value(s, key)))
        return rv_section_wholes(s, key, 0, vocab + EXTRA_EMBEDDINGS - 1, 0, RV_MAX_EOS, out);
    if (!rv_section_value(s, key)) return 0;
    *out = rv_section_whole(s, key, 0, vocab + EXTRA_EMBEDDINGS - 1, 0);
    return 1;
}

static void read_top(const rv_section *top, rv_config *c) {
    check_model_type(top);
    check_quantised(top);
    rv_section text = rv_section_open(top, "text_config", "text_config.");
    rv_section vision = rv_section_open(top, "vision_config", "vision_config.");
    read_text(&text, &c->text);
    read_vision(&vision, &c->vision);
    if (top->file->st) return;
    const char *image_key = rv_section_has(top, "image_token_index") ? "image_token_index" : "image_token_id";
    int32_t rows = c->text.vocab + EXTRA_EMBEDDINGS;
    c->image_token = rv_section_whole(top, image_key, 0, rows - 1, 128256);
    if (c->image_token >= rows)
        rv_section_bad(top, "image_token_index", "is missing, and its default 128256 is no row of an embedding "
                        "for vocab_size %d", c->text.vocab);
    c->bos = read_id(top, &text, "bos_token_id", c->text.vocab, 128000);
    c->pad = read_id(top, &text, "pad_token_id", c->text.vocab, 128004);
    c->dtype = read_dtype(top, &text);

    rv_generation *g = &c->generation;
    g->n_eos = read_eos(top, c->text.vocab, g->eos);
    if (g->n_eos == 0) g->n_eos = read_eos(&text, c->text.vocab, g->eos);
    if (g->n_eos == 0 && !rv_section_has(&text, "eos_token_id")) g->eos[g->n_eos++] = 128001;
    if (c->bos >= rows) c->bos = -1;                /* HF's defaults are for its own vocabulary */
    if (c->pad >= rows) c->pad = -1;
    if (g->n_eos == 1 && g->eos[0] >= rows) g->n_eos = 0;
}

/* ---- the other files ------------------------------------------------------------------- */

/* Whether a key says something else than to do nothing: null, an empty list, or the number that is neutral. */
static bool has_effect(const json_t *value, double neutral) {
    if (!value || json_is_false(value)) return false;
    if (json_is_array(value)) return json_array_size(value) > 0;
    return !json_is_number(value) || json_number_value(value) != neutral;
}

/* What generate does to scores, or instead of sampling, besides what engine/sample.h has. */
static void list_ignored(const rv_section *s, char *out, size_t room) {
    static const struct { const char *key; double neutral; } keys[] = {
        { "min_p", 0 }, { "typical_p", 1 }, { "epsilon_cutoff", 0 }, { "eta_cutoff", 0 }, { "no_repeat_ngram_size", 0 }, { "encoder_repetition_penalty", 1 }, { "min_length", 0 },
        { "min_new_tokens", 0 }, { "bad_words_ids", 0 }, { "suppress_tokens", 0 }, { "begin_suppress_tokens", 0 }, { "sequence_bias", 0 }, { "forced_bos_token_id", -1 },
        { "forced_eos_token_id", -1 }, { "exponential_decay_length_penalty", 0 }, { "num_beams", 1 }, { "penalty_alpha", 0 }, { "guidance_scale", 1 }, { "stop_strings", 0 } };
    size_t at = 0;
    for (size_t i = 0; i < sizeof keys / sizeof *keys && at < room; i++)
        if (has_effect(rv_section_value(s, keys[i].key), keys[i].neutral)) at += (size_t)snprintf(out + at, room - at, "%s%s", at ? ", " : "", keys[i].key);
}

static void read_generation(const rv_section *s, int32_t vocab, rv_generation *g) {
    static const double least_top_p = 1e-6;
    int32_t eos[RV_MAX_EOS], n_eos = read_eos(s, vocab, eos);
    if (n_eos) {
        g->n_eos = n_eos;
        memcpy(g->eos, eos, (size_t)n_eos * sizeof *eos);
    }
    g->do_sample = rv_section_bool(s, "do_sample", false);
    g->temperature = 1;
    g->top_p = 1;
    g->top_k = rv_section_has(s, "top_k") ? 0 : 50;          /* HF: 50 unless the file says otherwise; null is off */
    if (rv_section_value(s, "temperature")) g->temperature = (float)rv_section_real(s, "temperature", 0, 100, 1);
    if (rv_section_value(s, "top_p")) g->top_p = (float)fmax(rv_section_real(s, "top_p", 0, 1, 1), least_top_p);
    g->repetition_penalty = 1;
    if (rv_section_value(s, "repetition_penalty")) g->repetition_penalty = (float)rv_section_real(s, "repetition_penalty", 0.01, 100, 1);
    list_ignored(s, g->ignored, sizeof g->ignored);
    if (rv_section_value(s, "top_k")) g->top_k = rv_section_whole(s, "top_k", 0, INT32_MAX, 0);
}

static const float published_mean[] = { 0.48145466f, 0.4578275f, 0.40821073f };
static const float published_std[] = { 0.26862954f, 0.26130258f, 0.27577711f };

/* Three numbers; absent or null: HF's own default 0.5. */
static void read_channels(const rv_section *s, const char *key, double low, double high, float out[RV_CHANNELS]) {
    char shown[48];
    const json_t *list = rv_section_value(s, key);
    for (size_t i = 0; i < RV_CHANNELS; i++) out[i] = 0.5f;
    if (!list) return;
    if (!json_is_array(list) || json_array_size(list) != RV_CHANNELS) {
        rv_section_bad(s, key, "must be a list of %d numbers, is %s", RV_CHANNELS, rv_json_show(list, shown));
        return;
    }
    for (size_t i = 0; i < RV_CHANNELS; i++) {
        const json_t *x = json_array_get(list, i);
        double value = json_number_value(x);
        if (!json_is_number(x) || value < low || value > high)
            rv_section_bad(s, key, "item %zu must be a number from %g to %g, is %s", i + 1, low, high,
                            rv_json_show(x, shown));
        out[i] = (float)value;
    }
}

static void read_preprocess(const rv_section *s, const char *size_prefix, const rv_vision_config *v, rv_preprocess *p) {
    static const char *const steps[] = { "do_convert_rgb", "do_resize", "do_rescale", "do_normalize", "do_pad" };
    for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
        if (!rv_section_bool(s, steps[i], true))
            rv_section_no(s, steps[i], "is false; images are always converted, resized, rescaled, "
                            "normalised and padded");
    const char *type = rv_section_text(s, "image_processor_type", "MllamaImageProcessor");
    if (strncmp(type, "MllamaImageProcessor", strlen("MllamaImageProcessor")))
        rv_section_no(s, "image_processor_type", "is \"%.60s\"; only MllamaImageProcessor is supported",
                        type);
    if (rv_section_value(s, "resample") && rv_section_whole(s, "resample", 0, 5, 2) != 2)
        rv_section_no(s, "resample", "only 2 (bilinear) is supported");
    rv_section size = rv_section_open(s, "size", size_prefix);
    static const char *const edges[] = { "height", "width" };
    for (size_t i = 0; size.object && i < 2; i++) {
        if (!rv_section_has(&size, edges[i])) rv_section_bad(&size, edges[i], "is missing");
        int32_t edge = rv_section_whole(&size, edges[i], 1, MAX_TILE, 0);
        if (edge != v->tile)
            rv_section_bad(&size, edges[i], "is %d, but the model's vision_config.image_size is %d", edge,
                            v->tile);
    }
    int32_t tiles = rv_section_whole(s, "max_image_tiles", 1, RV_MAX_TILES, v->max_tiles);
    if (tiles != v->max_tiles)
        rv_section_bad(s, "max_image_tiles", "is %d, but the model's vision_config.max_num_tiles is %d", tiles,
                        v->max_tiles);
    p->rescale = rv_section_real(s, "rescale_factor", 1e-9, 1e3, 1.0 / 255);
    read_channels(s, "image_mean", -1e6, 1e6, p->mean);
    read_channels(s, "image_std", 1e-6, 1e6, p->std);
}

static void publish_preprocess(rv_preprocess *p) {
    p->rescale = 1.0 / 255;
    memcpy(p->mean, published_mean, sizeof published_mean);
    memcpy(p->std, published_std, sizeof published_std);
}

/* transformers 5 may keep the image processor inside processor_config.json, which then wins. */
static rv_status load_preprocess(const char *folder, rv_config *c, rv_error *err) {
    rv_json_file f = { .err = err };
    rv_json_file_open(&f, folder, "processor_config.json", false);
    rv_section top = { &f, f.root, "" }, nested = rv_section_open(&top, "image_processor", "image_processor.");
    if (nested.object) read_preprocess(&nested, "image_processor.size.", &c->vision, &c->preprocess);
    bool done = nested.object || f.st;
    rv_json_file_close(&f);
    if (done) return f.st;

    rv_json_file_open(&f, folder, "preprocessor_config.json", false);
    rv_section s = { &f, f.root, "" };
    if (f.root && !f.st) read_preprocess(&s, "size.", &c->vision, &c->preprocess);
    else publish_preprocess(&c->preprocess);
    rv_json_file_close(&f);
    return f.st;
}

rv_status rv_config_of_json(rv_json_file *f, rv_config *out) {
    rv_config c = { 0 };
    rv_section top = { f, f->root, "" }, nothing = { f, NULL, "" };
    if (!f->st) read_top(&top, &c);
    if (f->st) return f->st;
    read_generation(&nothing, c.text.vocab, &c.generation);
    publish_preprocess(&c.preprocess);
    *out = c;
    return RV_OK;
}

rv_status rv_config_load(const char *model_dir, rv_config *out, rv_error *err) {
    rv_config c = { 0 };
    rv_json_file f = { .err = err };
    rv_json_file_open(&f, model_dir, "config.json", true);
    rv_config_of_json(&f, &c);
    rv_json_file_close(&f);
    if (!f.st) {
        rv_json_file_open(&f, model_dir, "generation_config.json", false);
        rv_section s = { &f, f.root, "" };
        read_generation(&s, c.text.vocab, &c.generation);
        rv_json_file_close(&f);
    }
    if (f.st) return f.st;
    rv_status st = load_preprocess(model_dir, &c, err);
    if (st) return st;
    *out = c;
    return RV_OK;
}

void rv_config_published(rv_config *out) {
    static const int32_t eos[] = { 128001, 128008, 128009 };
    rv_config c = { 0 };
    rv_json_file f = { .folder = "", .name = "" };
    rv_section nothing = { &f, NULL, "" };               /* every key absent: HF's defaults .. */
    read_top(&nothing, &c);
    c.text.rope_scaled = true;                           /* .. and where the published files differ */
    c.text.rope_factor = 8;
    c.text.rope_low = 1;
    c.text.rope_high = 4;
    c.text.rope_original = 8192;
    c.vision.tile = 560;
    set_grid(&c.vision);
    c.generation = (rv_generation){ .n_eos = 3, .temperature = 0.6f, .top_p = 0.9f, .repetition_penalty = 1, .top_k = 50, .do_sample = true };
    memcpy(c.generation.eos, eos, sizeof eos);
    publish_preprocess(&c.preprocess);
    c.dtype = RV_BF16;
    assert(f.st == RV_OK);
    *out = c;
}
