/* ladder.c - rungs, their sizes, and the first that fits: see ladder.h. */
#include "engine/ladder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"

/* ---- which rungs there are ---- */

static bool given(const char *list) { return list && *list; }

/* lm_head may be quantised only where nobody said which modules are. */
static bool head_is_open(const rv_load_options *asked) {
    const bool named = asked->on_oom == RV_OOM_FAIL || (asked->weights != RV_WEIGHTS_AUTO && asked->on_oom != RV_OOM_DEGRADE);
    return !named && !given(asked->skip) && !given(asked->keep) && asked->modules == RV_MODULES_INTENDED;
}

static void add(rv_rung *out, int32_t *n, rv_rung r) {
    if (*n < RV_MOST_RUNGS) out[(*n)++] = r;
}

static rv_steps step_of(const rv_load_options *asked, const rv_rung *r) {
    rv_steps steps = 0;
    if (r->embedding == RV_EMBEDDING_HOST && asked->embedding != RV_EMBEDDING_HOST) steps |= RV_STEP_TABLES;
    if (r->head_int8) steps |= RV_STEP_HEAD;
    if (r->weights != asked->weights && r->weights == RV_WEIGHTS_INT8) steps |= RV_STEP_INT8;
    if (r->weights != asked->weights && r->weights >= RV_WEIGHTS_NF4) steps |= RV_STEP_NF4;
    if (r->streams && asked->gpu_layers == 0) steps |= RV_STEP_STREAM;
    return steps;
}

/* All of one format: as asked, tables on the host, lm_head in int8. */
static void add_format(const rv_load_options *asked, rv_weight_format weights, bool stored, rv_rung *out, int32_t *n) {
    const bool open = asked->on_oom == RV_OOM_DEGRADE, move = asked->embedding == RV_EMBEDDING_AUTO || (open && asked->embedding == RV_EMBEDDING_DEVICE);
    rv_rung r = { .weights = weights, .embedding = asked->embedding == RV_EMBEDDING_HOST ? RV_EMBEDDING_HOST : RV_EMBEDDING_DEVICE, .streams = asked->gpu_layers != 0 };
    add(out, n, r);
    if (move) r.embedding = RV_EMBEDDING_HOST, add(out, n, r);
    if (!stored && head_is_open(asked)) r.head_int8 = true, add(out, n, r);
}

void rv_ladder_rungs(const rv_files *files, const rv_load_options *asked, const rv_load_options *resolved, rv_rung out[RV_MOST_RUNGS], int32_t *n) {
    const bool stored = rv_files_quantised(files), fails = asked->on_oom == RV_OOM_FAIL;
    const bool named = fails || (asked->weights != RV_WEIGHTS_AUTO && asked->on_oom != RV_OOM_DEGRADE);
    rv_weight_format from = resolved->weights, to = resolved->weights;
    *n = 0;
    if (!stored && !named) {
        from = asked->weights == RV_WEIGHTS_AUTO ? RV_WEIGHTS_16BIT : asked->weights;
        to = RV_WEIGHTS_NF4;
    }
    for (rv_weight_format w = from; w <= to; w++) add_format(asked, w, stored, out, n);
    rv_rung last = out[*n - 1];
    if (asked->gpu_layers == 0 && !fails) last.streams = true, add(out, n, last);
    for (int32_t i = 0; i < *n; i++) out[i].steps = step_of(asked, &out[i]);
}

void rv_rung_apply(const rv_rung *rung, rv_load_options *o) {
    o->weights = rung->weights;
    o->embedding = rung->embedding;
    o->gpu_layers = rung->gpu_layers;
}

/* ---- what they take ---- */

static rv_status measure(const rv_files *files, rv_backend *be, const rv_load_options *options, const rv_rung *rung, rv_taking *out, rv_error *err) {
    rv_load_options o = *options;
    rv_modules modules;
    rv_arena weights = { 0 }, tables = { 0 };
    const int32_t layers = files->config.text.layers;
    rv_weights *unused = calloc(1, sizeof *unused);
    if (!unused) return rv_fail_memory(err, "memory plan");
    rv_rung_apply(rung, &o);
    *out = (rv_taking){ 0 };
    rv_streamed_begin(&out->streamed, rung->streams ? rung->gpu_layers : layers, layers);
    rv_placing how = rv_load_placing(files, &o, &modules);
    how.host = o.embedding == RV_EMBEDDING_HOST ? &tables : NULL;
    how.head_int8 = rung->head_int8;
    how.streamed = &out->streamed;
    rv_status st = rv_weights_place(&files->config, files->checkpoint, be, &weights, &how, unused, &out->mapped, err);
    out->device = (weights.used + RV_ARENA_ALIGN - 1) / RV_ARENA_ALIGN * RV_ARENA_ALIGN;
    if (out->streamed.host_bytes) out->device += 2 * out->streamed.buffer_bytes;
    else out->device = weights.used;
    out->host = tables.used + out->streamed.host_bytes;
    free(unused->codes);
    free(unused);
    return st;
}

rv_status rv_rung_measure(const rv_files *files, rv_backend *be, const rv_load_options *options, rv_rung *rung, uint64_t room, rv_taking *out,
                          rv_error *err) {
    const int32_t layers = files->config.text.layers;
    if (!rung->streams || options->gpu_layers) {
        const int32_t asked = options->gpu_layers < 0 ? 0 : options->gpu_layers;
        rung->gpu_layers = rung->streams && asked < layers ? asked : layers;
        return measure(files, be, options, rung, out, err);
    }
    rv_status st = RV_OK;
    int32_t few = 0, many = layers - 1;                  /* fewer layers on the device always take less of it, but for the buffers */
    while (few < many && st == RV_OK) {
        rung->gpu_layers = (few + many + 1) / 2;
        st = measure(files, be, options, rung, out, err);
        if (out->device + out->mapped <= room) few = rung->gpu_layers;
        else many = rung->gpu_layers - 1;
    }
    rung->gpu_layers = few;
    if (st == RV_OK) st = measure(files, be, options, rung, out, err);
    return st;
}

static bool fits(const rv_taking *t, uint64_t room, uint64_t host_room) { return t->device + t->mapped <= room && t->host <= host_room; }

rv_status rv_ladder_first(const rv_files *files, rv_backend *be, const rv_load_options *options, rv_rung *rungs, int32_t n, uint64_t room, uint64_t host_room,
                          uint64_t rest, int32_t *at, rv_taking *out, rv_error *err) {
    const int32_t from = *at < n ? *at : n;
    *out = (rv_taking){ 0 };
    for (int with_session = 1; with_session >= 0; with_session--) {
        const uint64_t left = !with_session ? room : room > rest ? room - rest : 0;
        for (*at = from; *at < n; ++*at) {
            rv_status st = rv_rung_measure(files, be, options, &rungs[*at], left, out, err);
            if (st || fits(out, left, host_room)) return st;
        }
    }
    *at = RV_MOST_RUNGS;
    return RV_OK;
}

/* ---- sessions ---- */

uint64_t rv_session_bytes(const rv_config *config, const rv_backend *be, const rv_session_options *options, uint32_t slots, bool streams) {
    rv_arena cache = { 0 }, scratch = { 0 };
    rv_session *s = calloc(1, sizeof *s);
    if (!s) return UINT64_MAX;
    s->options = *options;
    s->options.slots = slots;
    s->streams = streams;
    bool good = rv_session_resolve(config, &s->options, NULL) == RV_OK;
    if (good) rv_session_place(s, config, be, &cache, &scratch);
    free(s);
    return good ? cache.used + scratch.used : UINT64_MAX;
}

uint32_t rv_session_carried(const rv_config *config, const rv_backend *be, const rv_session_options *options, uint32_t most, bool streams, uint64_t room) {
    uint32_t few = 0, many = most;
    while (few < many) {                                 /* more slots take more */
        uint32_t n = (few + many + 1) / 2;
        if (rv_session_bytes(config, be, options, n, streams) <= room) few = n;
        else many = n - 1;
    }
    return few;
}

/* ---- from options to a rung, and to slots ---- */

uint64_t rv_load_room(const rv_load_options *o, const rv_profile *p) {
    uint64_t available = rv_load_available(o);
    return o->memory_limit || o->on_oom == RV_OOM_FAIL || !p->usable || p->usable > available ? available : p->usable;
}

rv_session_options rv_load_session(const rv_load_options *o) {
    return (rv_session_options){ .size = sizeof(rv_session_options), .slots = o->slots, .context = o->context, .images = o->images, .constraints = o->constraints,
                                 .constraint_bytes = o->constraint_bytes };
}

uint64_t rv_load_session_bytes(const rv_config *config, const rv_backend *be, const rv_load_options *o) {
    const rv_session_options session = rv_load_session(o);
    const bool fixed = session.slots && (o->on_oom != RV_OOM_DEGRADE || !rv_has_host_memory(be));
    if (o->on_oom == RV_OOM_FAIL) return 0;
    return rv_session_bytes(config, be, &session, fixed ? session.slots : 1, false);
}

rv_status rv_load_climb(const rv_files *files, rv_backend *be, const rv_load_options *asked, rv_load_options *o, const rv_profile *p,
                        bool opened, int32_t *at, rv_rung *rung, rv_taking *taking, rv_error *err) {
    rv_rung rungs[RV_MOST_RUNGS];
    int32_t n;
    uint64_t room = rv_load_room(o, p);
    if (!opened || o->memory_limit || room == p->usable) room -= be->own_bytes < room ? be->own_bytes : room;
    rv_ladder_rungs(files, asked, o, rungs, &n);
    rv_status st = rv_ladder_first(files, be, o, rungs, n, room, rv_host_room(o), rv_load_session_bytes(&files->config, be, o), at, taking, err);
    if (st) return st;
    *rung = rungs[*at < n ? *at : n - 1];
    rv_rung_apply(rung, o);
    return rv_load_settle_compute(files, asked, o, !opened, err);
}

void rv_slots_settle(const rv_config *config, const rv_backend *be, const rv_load_options *load, const rv_profile *p, rv_session_options *o, bool streams,
                          uint64_t room, rv_steps *steps) {
    const uint32_t asked = o->slots, most = asked ? asked : p->most_slots ? p->most_slots : RV_FEW_ROWS;
    if (!rv_has_host_memory(be) || (asked && load->on_oom != RV_OOM_DEGRADE)) return;
    uint32_t n = rv_session_carried(config, be, o, most, streams, room);
    o->slots = n ? n : 1;                                /* which is then refused, with numbers          */
    if (asked && o->slots < asked) *steps |= RV_STEP_SLOTS;
}

/* ---- words ---- */

const char *rv_step_name(rv_steps step) {
    static const char *const names[] = { "large tables in host memory", "lm_head in int8", "fewer slots", "int8 weights", "NF4 weights",
                                         "layers streamed from host memory", "on the CPU" };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (step == UINT32_C(1) << i) return names[i];
    return NULL;
}

void rv_steps_text(rv_steps steps, char *out, size_t bytes) {
    const char *name;
    size_t at = 0;
    if (bytes) *out = '\0';
    for (rv_steps one = 1; at < bytes && (name = rv_step_name(one)); one <<= 1)
        if (steps & one) at += (size_t)snprintf(out + at, bytes - at, "%s%s", at ? ", " : "", name);
}
