/* targets_model.c - the files of a model folder: safetensors, shard index, config.json and its neighbours, tokenizer.json,
 * chat templates, bitsandbytes' companions. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "engine/config.h"
#include "engine/image.h"
#include "engine/prompt.h"
#include "loader/bnb.h"
#include "loader/index.h"
#include "loader/safetensors.h"
#include "tests/fuzz/target.h"
#include "tokenizer/tokenizer.h"

/* ---- safetensors ---- */

/* Names are sorted, ranges cover the data: what reading the tensors relies on. */
static void judge_header(const rv_safetensors *s, const uint8_t *file, size_t bytes) {
    uint64_t sum = 0;
    FUZZ_HOLDS(s->data >= file && s->data + s->data_bytes == file + bytes);
    for (uint32_t i = 0; i < s->count; i++) {
        const rv_safetensors_tensor *t = &s->tensors[i];
        FUZZ_HOLDS(t->begin <= t->end && t->end <= s->data_bytes);
        FUZZ_HOLDS(i == 0 || strcmp(s->tensors[i - 1].name, t->name) < 0);
        FUZZ_HOLDS(t->n_dims >= 0 && t->n_dims <= RV_SAFETENSORS_MAX_DIMS);
        sum += t->end - t->begin;
    }
    FUZZ_HOLDS(sum == s->data_bytes);
}

static void judge_checkpoint(const rv_checkpoint *c) {
    const rv_tensor *of;
    rv_hash key;
    rv_error err = { 0 };
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        const rv_tensor *t = rv_checkpoint_at(c, i);
        rv_codes codes;
        float w[RV_BLOCK4];
        FUZZ_HOLDS(rv_checkpoint_find(c, t->name) == t);
        rv_checkpoint_companion(c, t, &of);
        const int64_t rows = t->n_dims > 0 ? t->shape[0] : 1, cols = t->n_dims > 1 ? t->shape[1] : 1;
        if (rows < 1 || cols < 1 || rows > 1 << 16 || cols > 1 << 16) continue;      /* what a config can ask for */
        if (rv_checkpoint_codes(c, t, rows, cols, &codes, &err) || codes.format == RV_FORMAT_PLAIN) continue;
        if (rv_checkpoint_check_scales(t, &codes, rows, cols, &err)) continue;
        if (rows * cols >= RV_BLOCK4) rv_codes_read(w, &codes, cols, rows * cols / RV_BLOCK4 * RV_BLOCK4 - RV_BLOCK4, RV_BLOCK4);
    }
    rv_status st = rv_checkpoint_key(c, &key, &err);
    if (st) fuzz_error(st, &err);
}

void fuzz_safetensors(const uint8_t *data, size_t bytes) {
    rv_safetensors s = { 0 };
    rv_checkpoint *c = NULL;
    rv_error err = { 0 };
    uint8_t *exact = fuzz_exact(data, bytes);
    rv_status st = rv_safetensors_read(exact, bytes, "fuzz", &s, &err);
    if (st) fuzz_error(st, &err);
    else judge_header(&s, exact, bytes);
    rv_safetensors_free(&s);
    free(exact);
    rv_status opened = rv_checkpoint_open(fuzz_file(0, data, bytes), &c, &err);
    if (opened) fuzz_error(opened, &err);
    else judge_checkpoint(c);
    FUZZ_HOLDS(!st || opened);           /* no file is good as a model and bad by itself         */
    rv_checkpoint_close(c);
}

/* ---- the index: with two shards beside it ---- */

static void write_shard(int slot, const char *name) {
    char file[256];
    uint64_t n = (uint64_t)snprintf(file + 8, sizeof file - 8, "{\"%s\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", name);
    memcpy(file, &n, 8);
    memcpy(file + 8 + n, "\0\0\200\77", 4);
    fuzz_file(slot, file, 8 + (size_t)n + 4);
}

void fuzz_index(const uint8_t *data, size_t bytes) {
    static const char *const names[] = { "model.safetensors.index.json", "a.safetensors", "b.safetensors" };
    const char *folder = fuzz_folder(names, 3), *path = fuzz_file(0, data, bytes);
    rv_index index = { 0 };
    rv_checkpoint *c = NULL;
    rv_error err = { 0 };
    rv_status st = rv_index_read(path, &index, &err);
    if (st) fuzz_error(st, &err);
    for (uint32_t i = 0; i < index.count; i++) {
        const rv_index_entry *e = &index.entries[i];
        FUZZ_HOLDS(e->file < index.n_files && !strchr(index.files[e->file], '/'));
        FUZZ_HOLDS(rv_index_find(&index, e->name) == e);
    }
    rv_index_free(&index);
    write_shard(1, "model.a");
    write_shard(2, "model.b");
    rv_status opened = rv_checkpoint_open(folder, &c, &err);
    if (opened) fuzz_error(opened, &err);
    FUZZ_HOLDS(!st || opened);
    rv_checkpoint_close(c);
}

/* ---- config.json; generation_config.json and preprocessor_config.json behind NUL bytes ---- */

static void judge_config(const rv_config *c) {
    const rv_text_config *t = &c->text;
    const rv_vision_config *v = &c->vision;
    FUZZ_HOLDS(t->layers > 0 && t->layers <= RV_MAX_LAYERS && t->hidden > 0 && t->heads > 0 && t->kv_heads > 0 && t->heads % t->kv_heads == 0);
    FUZZ_HOLDS(v->tile > 0 && v->patch > 0 && v->grid == v->tile / v->patch && v->n_taps >= 0 && v->n_taps <= RV_MAX_TAPS);
    FUZZ_HOLDS(v->max_tiles > 0 && v->max_tiles <= RV_MAX_TILES && v->n_ratios > 0 && v->n_ratios <= RV_MAX_RATIOS);
    for (int32_t i = 0; i < v->n_taps; i++) FUZZ_HOLDS(v->taps[i] >= 0 && v->taps[i] < v->layers);
    for (int32_t i = 0; i < RV_CHANNELS; i++) FUZZ_HOLDS(isfinite(c->preprocess.mean[i]) && c->preprocess.std[i] > 0);
    FUZZ_HOLDS(c->image_token >= 0 && c->image_token < t->vocab + 8);
    static const uint32_t sides[][2] = { { 1, 1 }, { 65500, 1 }, { 1, 65500 }, { 640, 480 } };
    for (size_t i = 0; i < 4; i++) {
        rv_canvas canvas = rv_canvas_choose(sides[i][0], sides[i][1], v, v->max_tiles);
        FUZZ_HOLDS(canvas.rows > 0 && canvas.cols > 0 && canvas.rows * canvas.cols <= v->max_tiles);
        FUZZ_HOLDS(canvas.width > 0 && canvas.width <= canvas.cols * v->tile && canvas.height > 0 && canvas.height <= canvas.rows * v->tile);
    }
}

void fuzz_config(const uint8_t *data, size_t bytes) {
    static const char *const names[] = { "config.json", "generation_config.json", "preprocessor_config.json" };
    const char *folder = fuzz_folder(names, 3);
    rv_config config;
    rv_error err = { 0 };
    char path[128];
    for (int i = 0; i < 3; i++) {
        const fuzz_piece p = fuzz_piece_at(data, bytes, i);
        fuzz_file(i, i && !p.bytes ? "{}" : (const char *)p.data, i && !p.bytes ? 2 : p.bytes);
    }
    rv_status st = rv_config_load(folder, &config, &err);
    if (st) fuzz_error(st, &err);
    else judge_config(&config);
    /* Every size that follows from it, without a disk. */
    snprintf(path, sizeof path, "%s/config.json", folder);
    rv_synth_options o = { .size = sizeof o, .shape = path };
    rv_synth_info info = { .size = sizeof info };
    st = rv_synthesise(NULL, &o, &info, &err);
    if (st) fuzz_error(st, &err);
}

/* ---- tokenizer.json ---- */

static void judge_tokenizer(const rv_tokenizer *t) {
    static const char text[] = "Total: $1,234.50\n\n  caf\xc3\xa9 \xe2\x82\xac \xf0\x9f\x98\x80 don't<|eot_id|> 12345 end";
    rv_ids ids = { 0 };
    rv_error err = { 0 };
    char back[4096];
    size_t n;
    for (rv_encode_flags flags = 0; flags < 4; flags++) {
        ids.count = 0;
        rv_status st = rv_tokenizer_append(t, text, sizeof text - 1, flags, &ids, &err);
        if (st) {
            fuzz_error(st, &err);
            continue;
        }
        for (size_t i = 0; i < ids.count; i++) FUZZ_HOLDS(ids.data[i] >= 0 && (uint32_t)ids.data[i] < rv_tokenizer_size(t));
        st = rv_tokenizer_decode(t, ids.data, ids.count, 0, back, sizeof back, &n, &err);
        if (st) fuzz_error(st, &err);
        if (!flags && !st && (n != sizeof text - 1 || memcmp(back, text, n))) fuzz_broken("tokenizer", "a text comes back as another one");
    }
    rv_ids_free(&ids);
}

void fuzz_tokenizer(const uint8_t *data, size_t bytes) {
    rv_tokenizer *t = NULL;
    rv_error err = { 0 };
    rv_status st = rv_tokenizer_open(fuzz_file(0, data, bytes), &t, &err);
    if (st) fuzz_error(st, &err);
    else judge_tokenizer(t);
    rv_tokenizer_free(t);
}

/* ---- chat templates: chat_template.json, chat_template.jinja, tokenizer_config.json, parted by NUL bytes ---- */

void fuzz_template(const uint8_t *data, size_t bytes) {
    static const char *const names[] = { "chat_template.json", "chat_template.jinja", "tokenizer_config.json" };
    const char *folder = fuzz_folder(names, 3);
    rv_prompt_style style;
    rv_error err = { 0 };
    for (int i = 0; i < 3; i++) {
        const fuzz_piece p = fuzz_piece_at(data, bytes, i);
        fuzz_file(i, i != 1 && !p.bytes ? "{}" : (const char *)p.data, i != 1 && !p.bytes ? 2 : p.bytes);
    }
    rv_status st = rv_prompt_style_load(folder, NULL, &style, &err);
    if (st) fuzz_error(st, &err);
    else FUZZ_HOLDS(strnlen(style.reason, sizeof style.reason) < sizeof style.reason && style.reason[0]);
}

/* ---- quant_state: the JSON beside a 4-bit weight, nested or not, and the tensors that belong to it ---- */

enum { ROWS = 4, COLS = 128, N = ROWS * COLS, BLOCKS = N / RV_BLOCK4 };
#define W "language_model.model.layers.0.mlp.up_proj.weight"

static size_t state_file(uint8_t *out, const uint8_t *state, size_t bytes, bool nested) {
    static const float map[16] = { -1, -0.7f, -0.5f, -0.4f, -0.3f, -0.2f, -0.1f, 0, 0.1f, 0.2f, 0.3f, 0.4f, 0.5f, 0.6f, 0.7f, 1 };
    const size_t absmax = nested ? BLOCKS : BLOCKS * 4, at = N / 2 + absmax;
    uint64_t n = (uint64_t)sprintf((char *)out + 8,
                                   "{\"" W "\":{\"dtype\":\"U8\",\"shape\":[%d,1],\"data_offsets\":[0,%d]},\"" W ".absmax\":{\"dtype\":\"%s\",\"shape\":[%d],"
                                   "\"data_offsets\":[%d,%zu]},\"" W ".quant_map\":{\"dtype\":\"F32\",\"shape\":[16],\"data_offsets\":[%zu,%zu]},"
                                   "\"" W ".nested_absmax\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%zu,%zu]},\"" W ".nested_quant_map\":{\"dtype\":"
                                   "\"F32\",\"shape\":[256],\"data_offsets\":[%zu,%zu]},\"" W ".quant_state.bitsandbytes__nf4\":{\"dtype\":\"U8\",\"shape\":[%zu],"
                                   "\"data_offsets\":[%zu,%zu]}}",
                                   N / 2, N / 2, nested ? "U8" : "F32", BLOCKS, N / 2, at, at, at + 64, at + 64, at + 68, at + 68, at + 1092, bytes, at + 1092,
                                   at + 1092 + bytes);
    memcpy(out, &n, 8);
    uint8_t *const tensors = out + 8 + n;
    memset(tensors, 0, at + 1092);
    memcpy(tensors + at, map, sizeof map);
    if (bytes) memcpy(tensors + at + 1092, state, bytes);
    return 8 + (size_t)n + at + 1092 + bytes;
}

void fuzz_quant_state(const uint8_t *data, size_t bytes) {
    enum { MOST = 1 << 16 };
    static uint8_t file[MOST + 8192];
    if (bytes > MOST) return;
    for (int nested = 0; nested < 2; nested++) {
        rv_checkpoint *c = NULL;
        rv_codes codes;
        rv_error err = { 0 };
        float w[N];
        if (rv_checkpoint_open(fuzz_file(0, file, state_file(file, data, bytes, nested)), &c, &err)) fuzz_broken("quant_state", err.message);
        const rv_tensor *t = rv_checkpoint_find(c, "text.layers.0.mlp.up_proj.weight");
        FUZZ_HOLDS(t != NULL);
        rv_status st = rv_checkpoint_codes(c, t, ROWS, COLS, &codes, &err);
        if (!st) st = rv_checkpoint_check_scales(t, &codes, ROWS, COLS, &err);
        if (st) fuzz_error(st, &err);
        else {
            FUZZ_HOLDS(codes.format == RV_FORMAT_NF4 && (codes.nested != NULL) == (nested == 1));
            rv_codes_read(w, &codes, COLS, 0, N);
            for (int i = 0; i < N; i++) FUZZ_HOLDS(isfinite(w[i]));
        }
        rv_checkpoint_close(c);
    }
}
