/* batch_settings.c - what results depend on: see batch.h.
 *
 * The one idea: results of two settings in one file cannot be told apart later.  What changes no result is left out: threads, slots, progress, and memory, but for
 * what it makes of weights.  Where an option leaves something to the machine, what came of it is noted, as text; not which of several kernels computes it.
 */
#include <stdio.h>
#include <string.h>

#include "engine/rvprofile.h"
#include "tools/batch.h"

/* "receipt 0123456789abcdef"; without --schema all that are built in serve: a number of all of them. */
static rv_status schema_text(const char *asked, char out[200], rv_error *err) {
    uint64_t hash = 0;
    rv_schema_info info = { .size = sizeof info };
    rv_status st = RV_OK;
    for (uint32_t i = 0; st == RV_OK && i < (asked ? 1 : rv_schema_count()); i++) {
        rv_schema *schema = NULL;
        st = rv_schema_open(asked ? asked : rv_schema_name(i), &schema, err);
        if (st == RV_OK) st = rv_schema_get_info(schema, &info, err);
        if (st == RV_OK) hash = hash * UINT64_C(0x100000001b3) + info.hash, snprintf(out, 200, "%.150s %016llx", asked ? info.name : "by type", (unsigned long long)(asked ? info.hash : hash));
        rv_schema_free(schema);
    }
    return st;
}

static bool add(json_t *to, json_t *more) {
    const bool good = to && more && json_object_update(to, more) == 0;
    json_decref(more);
    return good;
}

/* What the machine decides. */
static const char *const decided[] = { "backend", "compute", "weights" };

static json_t *decided_by(const rv_memory *model) {
    char weights[40];
    snprintf(weights, sizeof weights, "%s%s", weights_name(model->weights_format), model->steps & RV_STEP_HEAD ? ", lm_head int8" : "");
    return json_pack("{s:s, s:s, s:s}", "backend", backend_name(model->backend), "compute", compute_name(model->compute), "weights", weights);
}

rv_status batch_settings_with(const json_t *settings, const rv_memory *model, json_t **out, rv_error *err) {
    json_t *all = json_copy((json_t *)(uintptr_t)settings);
    if (add(all, decided_by(model))) return *out = all, RV_OK;
    json_decref(all);
    return fail(err, RV_ERR_MEMORY, "settings: out of memory");
}

rv_status batch_settings(const read_choice *c, const rv_memory *model, int32_t format, json_t **out, rv_error *err) {
    const load_choice *l = &c->load;
    char schema[200] = "";
    rv_status st = schema_text(c->schema, schema, err);
    if (st) return st;
    json_t *all = json_object();
    bool good = add(all, json_pack("{s:o, s:s, s:i, s:i, s:i, s:i, s:f, s:o, s:I, s:o, s:b}", "model", json_textz(l->model), "schema", schema, "classify", c->classify, "strategy", c->strategy,
                                   "grammar", c->form, "ocr", c->ocr, "presence-threshold", c->presence, "question", json_textz(c->question), "max-tokens", (json_int_t)c->max_tokens, "today",
                                   json_textz(c->today), "allow-tfn", c->allow_tfn)) &&
                add(all, decided_by(model)) &&
                add(all, json_pack("{s:b, s:i, s:b, s:I, s:I, s:i, s:I}", "allow-account", c->allow_account, "max-tiles", c->max_tiles, "no-exif", c->no_exif, "pages", (json_int_t)c->pages, "dpi", (json_int_t)c->dpi, "format", format,
                                   "context", (json_int_t)l->context)) &&
                add(all, json_pack("{s:o, s:i, s:i, s:o, s:o, s:o, s:i, s:b}", "gpu-profile", json_textz(l->profile), "kernels", l->kernels,
                                   "modules", l->modules, "skip", json_textz(l->skip), "keep", json_textz(l->keep), "int8-threshold",
                                   l->threshold_given ? json_real(l->threshold) : json_null(), "int8-parity", l->parity, "nf4-single", l->nf4_single)) &&
                add(all, json_pack("{s:i, s:i, s:i, s:i}", "attention", l->attention, "taps", l->taps, "reference", l->reference, "resize", l->resize));
    if (good) return *out = all, RV_OK;
    json_decref(all);
    return fail(err, RV_ERR_MEMORY, "settings: out of memory");
}

/* Appends ", --name" for each of a's that b has otherwise, or not at all; what the machine decided with b's text, as nobody may have given it. */
static void differing(const json_t *a, const json_t *b, bool absent_only, char *text, size_t room) {
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)a, key, value) {
        const json_t *other = json_object_get(b, key);
        const size_t at = strlen(text);
        bool by_machine = false;
        if (absent_only ? other != NULL : other && json_equal(value, (json_t *)(uintptr_t)other)) continue;
        for (size_t i = 0; i < sizeof decided / sizeof *decided; i++) by_machine |= !strcmp(key, decided[i]);
        snprintf(text + at, room - at, "%s --%.40s", at ? "," : "", key);
        const size_t end = strlen(text);
        if (by_machine && json_is_string(other)) snprintf(text + end, room - end, " (%.40s)", json_string_value(other));
    }
}

rv_status batch_settings_check(const json_t *begun, const json_t *now, const char *path, rv_error *err) {
    char text[400] = "";
    if (json_is_string(begun) || (json_is_object(begun) && !json_is_string(json_object_get(begun, "weights"))))
        return fail(err, RV_ERR_ARGUMENT, "%s: was begun by an earlier version, which did not note all that results depend on: finish it with that, or use another --output (--fresh discards it)",
                    path);
    if (!json_is_object(begun)) return fail(err, RV_ERR_FORMAT, "%s: is no journal of a batch: remove it, or say --fresh", path);
    differing(now, begun, false, text, sizeof text);
    differing(begun, now, true, text, sizeof text);
    return *text ? fail(err, RV_ERR_ARGUMENT, "%s: was begun with other settings of%s: use those, another --output, or --fresh", path, text) : RV_OK;
}
