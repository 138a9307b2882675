/* inspect.c - facts about a model folder, without loading it. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/model.h"
#include "engine/modules.h"
#include "loader/bnb.h"

enum { MAX_FACTS = 40, FACT_BYTES = 160 };

struct rv_model_info {
    rv_part_info parts[RV_PARTS];
    const char  *keys[MAX_FACTS];
    char         values[MAX_FACTS][FACT_BYTES];
    uint32_t     n_facts;
};

static void fact(rv_model_info *info, const char *key, const char *format, ...) __attribute__((format(printf, 3, 4)));

static void fact(rv_model_info *info, const char *key, const char *format, ...) {
    va_list args;
    if (info->n_facts == MAX_FACTS) return;
    va_start(args, format);
    vsnprintf(info->values[info->n_facts], FACT_BYTES, format, args);
    va_end(args);
    info->keys[info->n_facts++] = key;
}

/* ---- parts ---- */

typedef struct sum { rv_model_info *info; const rv_checkpoint *c; uint64_t tables; } sum;      /* tables: what --embedding host moves */

/* bitsandbytes' NF4 with double quantisation: 4 bits a weight, a byte for every 64, an f32 for every 256 of those,
 * and one f32 offset. int8: a byte a weight and an f32 a row. Source: spec quantisation.md. */
static uint64_t nf4_bytes(uint64_t n) { return (n + 1) / 2 + (n + 63) / 64 + ((n + 63) / 64 + 255) / 256 * 4 + 4; }

static rv_status add(void *user, const rv_tensor_want *want, rv_error *err) {
    sum *s = user;
    rv_part_info *p = &s->info->parts[want->row->part];
    const rv_tensor *t = rv_checkpoint_find(s->c, want->name);
    uint64_t n = (uint64_t)want->elements, bytes16 = n * (want->row->kind == RV_KIND_WEIGHT ? 2 : 4);
    bool quantised = want->row->part == RV_IN_TEXT && want->row->use == RV_USE_TEXT;
    (void)err;
    p->tensors++;
    p->parameters += n;
    p->file_bytes += t ? t->bytes : 0;
    p->bytes_16bit += bytes16;
    if (rv_weights_large_table(want->row)) s->tables += bytes16;
    p->bytes_int8 += quantised ? n + 4 * (uint64_t)want->shape[0] : bytes16;
    p->bytes_nf4 += quantised && want->shape[1] % RV_BLOCK4 == 0 ? nf4_bytes(n) : bytes16;
    return RV_OK;
}

/* Scales and the like count with the part whose weights need them. */
static void add_companions(rv_model_info *info, const rv_checkpoint *c) {
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        const rv_tensor *t = rv_checkpoint_at(c, i), *weight;
        if (!rv_checkpoint_companion(c, t, &weight)) continue;
        for (int p = 0; p < RV_PARTS; p++) {
            const size_t n = strlen(info->parts[p].name);
            if (!strncmp(t->name, info->parts[p].name, n) && t->name[n] == '.') info->parts[p].file_bytes += t->bytes;
        }
    }
}

/* ---- facts ---- */

static void layers_text(const rv_text_config *t, char *out, size_t n) {
    size_t at = 0;
    out[0] = '\0';
    for (int32_t i = 0; i < t->layers && at < n; i++)
        if (t->cross[i]) at += (size_t)snprintf(out + at, n - at, "%s%d", at ? "," : "", i);
}

static void taps_text(const rv_vision_config *v, char *out, size_t n) {
    size_t at = 0;
    for (int32_t i = 0; i < v->n_taps && at < n; i++) at += (size_t)snprintf(out + at, n - at, "%s%d", i ? "," : "", v->taps[i]);
}

static const char *dtypes_text(const rv_checkpoint *c) {
    bool f32 = false, f16 = false, bf16 = false;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        const rv_tensor *t = rv_checkpoint_at(c, i), *weight;
        const rv_dtype type = t->type;
        if (rv_checkpoint_format(c, t) || rv_checkpoint_companion(c, t, &weight)) continue;
        f32 |= type == RV_F32, f16 |= type == RV_F16, bf16 |= type == RV_BF16;
    }
    if (f32 + f16 + bf16 > 1) return "mixed";
    return f32 ? "F32" : f16 ? "F16" : "BF16";
}

/* How many linear layers' weights are stored as what, where any is quantised. */
static void quantised_text(const rv_checkpoint *c, char *out, size_t n) {
    uint32_t found[RV_FORMATS] = { 0 };
    size_t at = 0;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        const rv_tensor *t = rv_checkpoint_at(c, i);
        if (rv_modules_linear(t->name)) found[rv_checkpoint_format(c, t)]++;
    }
    for (int f = RV_FORMAT_INT8; f < RV_FORMATS; f++)
        if (found[f] && at < n) at += (size_t)snprintf(out + at, n - at, "%s%u %s", at ? ", " : "", found[f], rv_format_name((rv_format)f));
    if (!at) snprintf(out, n, "none");
    else if (found[RV_FORMAT_PLAIN] && at < n) snprintf(out + at, n - at, ", %u plain", found[RV_FORMAT_PLAIN]);
}

static void add_facts(rv_model_info *info, const rv_files *f) {
    const rv_text_config *t = &f->config.text;
    const rv_vision_config *v = &f->config.vision;
    char cross[FACT_BYTES], taps[FACT_BYTES], quantised[FACT_BYTES];
    layers_text(t, cross, sizeof cross);
    taps_text(v, taps, sizeof taps);
    fact(info, "architecture", "MllamaForConditionalGeneration");
    fact(info, "layout", "%s", rv_checkpoint_layout(f->checkpoint) == RV_LAYOUT_NEW ? "new" : "old");
    fact(info, "dtype", "%s", dtypes_text(f->checkpoint));
    quantised_text(f->checkpoint, quantised, sizeof quantised);
    fact(info, "files", "%u", rv_checkpoint_files(f->checkpoint));
    fact(info, "quantised", "%s", quantised);
    fact(info, "layers", "%d", t->layers);
    fact(info, "cross_layers", "%s", cross);
    fact(info, "hidden", "%d", t->hidden);
    fact(info, "heads", "%d", t->heads);
    fact(info, "kv_heads", "%d", t->kv_heads);
    fact(info, "head_dim", "%d", t->head_dim);
    fact(info, "vocab", "%d", t->vocab);
    fact(info, "context", "%d", t->max_positions);
    fact(info, "vision_layers", "%d+%d", v->layers, v->global_layers);
    fact(info, "vision_hidden", "%d", v->hidden);
    fact(info, "vision_heads", "%d", v->heads);
    fact(info, "tile", "%d", v->tile);
    fact(info, "patch", "%d", v->patch);
    fact(info, "taps", "%s", taps);
    fact(info, "prompt_form", "%s", f->style.form == RV_FORM_CHAT ? "chat" : "plain");
    fact(info, "prompt_form_reason", "%s", f->style.reason);
    fact(info, "template", "%s", f->style.form != RV_FORM_CHAT ? "none" : f->style.revision == RV_TEMPLATE_A ? "A" : "B");
    fact(info, "padding_tiles", "%s", rv_weights_pads_equal(&f->config, f->checkpoint) ? "once" : "full");
}

rv_status rv_inspect(const char *model_dir, rv_model_info **out, rv_error *err) {
    static const char *const names[RV_PARTS] = { "text", "lm_head", "vision", "projector" };
    if (!model_dir || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_inspect: %s is NULL", model_dir ? "out" : "model_dir");
    rv_files files = { 0 };
    rv_status st = RV_OK;
    rv_model_info *info = calloc(1, sizeof *info);
    if (!info) return rv_fail_memory(err, "inspect");
    TRY(rv_files_open(model_dir, true, &files, err));
    TRY(rv_checkpoint_recheck(files.checkpoint, err));
    for (int i = 0; i < RV_PARTS; i++) info->parts[i] = (rv_part_info){ .size = sizeof *info->parts, .name = names[i] };
    sum s = { info, files.checkpoint, 0 };
    TRY(rv_weights_each(&files.config, add, &s, err));
    add_companions(info, files.checkpoint);
    add_facts(info, &files);
    fact(info, "table_bytes", "%llu", (unsigned long long)s.tables);
done:
    rv_files_close(&files);
    if (st) free(info);
    else *out = info;
    return st;
}

void rv_model_info_free(rv_model_info *info) { free(info); }

uint32_t rv_model_info_parts(const rv_model_info *info, const rv_part_info **out) {
    if (out) *out = info ? info->parts : NULL;
    return info ? RV_PARTS : 0;
}

const char *rv_model_info_key(const rv_model_info *info, uint32_t i) { return info && i < info->n_facts ? info->keys[i] : NULL; }

const char *rv_model_info_get(const rv_model_info *info, const char *key) {
    for (uint32_t i = 0; info && key && i < info->n_facts; i++)
        if (!strcmp(info->keys[i], key)) return info->values[i];
    return NULL;
}

/* ---- NaN and Inf ---- */

static void count_bad(const rv_tensor *t, uint64_t *nans, uint64_t *infs) {
    const size_t step = rv_dtype_size(t->type), n = t->bytes / step;
    const uint32_t exponent = t->type == RV_F16 ? 0x7c00u : t->type == RV_BF16 ? 0x7f80u : 0x7f800000u;
    const uint32_t magnitude = step == 2 ? 0x7fffu : 0x7fffffffu;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = 0;
        memcpy(&bits, (const char *)t->data + i * step, step);       /* little endian, as the file */
        bits &= magnitude;
        *nans += bits > exponent;
        *infs += bits == exponent;
    }
}

/* A quantised weight's numbers are made of codes, which are all good, and scales, which are looked at as loading does. */
static rv_status check_codes(void *user, const rv_tensor_want *want, rv_error *err) {
    const rv_checkpoint *c = user;
    const rv_tensor *t = rv_checkpoint_find(c, want->name);
    rv_codes codes;
    if (!rv_modules_linear(want->name) || rv_checkpoint_format(c, t) == RV_FORMAT_PLAIN) return RV_OK;
    rv_status st = rv_checkpoint_codes(c, t, want->shape[0], want->shape[1], &codes, err);
    return st ? st : rv_checkpoint_check_scales(t, &codes, want->shape[0], want->shape[1], err);
}

rv_status rv_check_weights(const char *model_dir, rv_bad_tensor_fn bad, void *user, rv_error *err) {
    if (!model_dir) return rv_fail(err, RV_ERR_ARGUMENT, "rv_check_weights: model_dir is NULL");
    rv_files files = { 0 };
    rv_status st = RV_OK;
    uint32_t tensors = 0;
    TRY(rv_files_open(model_dir, false, &files, err));
    TRY(rv_checkpoint_recheck(files.checkpoint, err));
    for (uint32_t i = 0; i < rv_checkpoint_count(files.checkpoint); i++) {
        const rv_tensor *t = rv_checkpoint_at(files.checkpoint, i);
        uint64_t nans = 0, infs = 0;
        if (!rv_dtype_is_float(t->type)) continue;
        if (rv_modules_linear(t->name) && rv_checkpoint_format(files.checkpoint, t)) continue;      /* codes, whatever type they are stored as */
        count_bad(t, &nans, &infs);
        if (!nans && !infs) continue;
        tensors++;
        if (bad && bad(user, t->file_name, t->file, nans, infs)) break;
    }
    if (tensors) st = rv_fail(err, RV_ERR_FORMAT, "%u tensor%s of the model hold%s NaN or Inf (%s)", tensors, tensors == 1 ? "" : "s", tensors == 1 ? "s" : "", model_dir);
    else st = rv_weights_each(&files.config, check_codes, files.checkpoint, err);
done:
    rv_files_close(&files);
    return st;
}
