/* rig.c - the engine without sessions. */
#include "tests/engine/rig.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

static void must(rv_status st, const rv_error *err) {
    if (st) fail_msg("%s: %s", rv_status_name(st), err->message);
}

/* Brings device rows to the host as f32. */
static void read_back(rig *r, float *out, rv_mat rows) {
    rv_mat room = rv_mat_of(r->row.data, rows.rows, rows.cols, RV_F32);
    assert_true((int64_t)rows.rows * rows.cols <= (int64_t)r->row.rows * r->row.cols);
    rv_copy(r->be, room, rows);
    rv_download(r->be, out, room.data, (uint64_t)rows.rows * (uint64_t)rows.cols * sizeof *out);
}

static void keep_hidden(void *user, int32_t layer, rv_mat x) {
    rig *r = user;
    read_back(r, r->hidden + (size_t)layer * RIG_ROWS * (size_t)r->config.text.hidden, x);
}

static void open_backend(rig *r, const rig_options *o) {
    rv_error err;
    rv_cpu_options cpu = { .threads = 2, .act = o->act, .reference = o->plain_loops };
#ifdef RV_CUDA
    rv_cuda_options cuda = { .act = o->act, .arch = o->arch, .plain_attention = o->plain_attention };
    if (o->gpu) {
        must(rv_cuda_open(&cuda, &r->be, &err), &err);
        return;
    }
#endif
    must(rv_cpu_open(&cpu, &r->be, &err), &err);
}

void rig_open(rig *r, const rig_options *o) {
    rv_error err;
    uint64_t mapped;
    const rv_placing how = { .as_stored = true };
    memset(r, 0, sizeof *r);
    must(rv_config_load(o->dir, &r->config, &err), &err);
    must(rv_checkpoint_open(o->dir, &r->checkpoint, &err), &err);
    must(rv_weights_check(&r->config, r->checkpoint, &err), &err);
    open_backend(r, o);
    rv_arena plan = { 0 };
    must(rv_weights_place(&r->config, r->checkpoint, r->be, &plan, &how, &r->weights, &mapped, &err), &err);
    r->weights_memory = rv_device_alloc(r->be, plan.used);
    rv_arena real = { r->weights_memory, 0, plan.used };
    must(rv_weights_place(&r->config, r->checkpoint, r->be, &real, &how, &r->weights, &mapped, &err), &err);
    assert_int_equal(real.used, plan.used);

    r->cache = (rv_cache){ .slots = 1, .context = RIG_CONTEXT, .images = RIG_IMAGES };
    for (int pass = 0; pass < 2; pass++) {
        rv_arena cache = { r->cache_memory, 0, 0 }, scratch = { r->scratch_memory, 0, 0 };
        cache.capacity = scratch.capacity = UINT64_MAX;
        rv_cache_place(&r->cache, &r->config, r->be->act, &cache);
        rv_vision_place(&r->vision_scratch, &r->config, r->be->act, &scratch);
        rv_text_place(&r->text_scratch, &r->config, r->be->act, RIG_ROWS, RIG_ROWS, RIG_CONTEXT, &scratch);
        if (pass) break;
        r->cache_memory = rv_device_alloc(r->be, cache.used);
        r->scratch_memory = rv_device_alloc(r->be, scratch.used);
    }
    must(rv_text_rows_new(&r->rows, RIG_ROWS, &err), &err);
    r->vision_scratch.host = malloc((rv_vision_host_ints(&r->config) + RIG_CONTEXT) * sizeof(int32_t));
    r->hidden = malloc((size_t)(r->config.text.layers + 1) * RIG_ROWS * (size_t)r->config.text.hidden * sizeof(float));
    r->logits = malloc((size_t)RIG_ROWS * (size_t)r->config.text.vocab * sizeof(float));
    int32_t widest = r->config.text.hidden > r->config.vision.output_dim ? r->config.text.hidden : r->config.vision.output_dim;
    r->row = rv_mat_of(rv_device_alloc(r->be, (uint64_t)RIG_ROWS * (uint64_t)widest * sizeof(float)), RIG_ROWS, widest, RV_F32);
    rv_cache_start(&r->cache, r->be, r->vision_scratch.host);
    size_t floats = (size_t)RIG_CONTEXT * (size_t)r->config.text.head_dim;
    float *rotary = malloc(floats * sizeof *rotary);
    rv_text_rotary(&r->config.text, RIG_CONTEXT, rotary);
    rv_upload(r->be, r->text_scratch.cos_sin, rotary, floats * sizeof *rotary);
    must(rv_finish(r->be, &err), &err);
    free(rotary);
    r->vision = (rv_vision){ &r->config, &r->weights, r->be, &r->vision_scratch, &r->cache, o->taps, o->reference };
    r->text = (rv_text){ &r->config, &r->weights, r->be, &r->text_scratch, &r->cache, o->reference, keep_hidden, r, NULL };
    if (o->full_padding) r->weights.pads_are_equal = false;
    must(rv_finish(r->be, &err), &err);
}

void rig_close(rig *r) {
    rv_weights_free(&r->config, r->be, &r->weights);
    rv_device_release(r->be, r->weights_memory);
    rv_device_release(r->be, r->cache_memory);
    rv_device_release(r->be, r->scratch_memory);
    rv_device_release(r->be, r->row.data);
    rv_backend_close(r->be);
    rv_checkpoint_close(r->checkpoint);
    rv_text_rows_free(&r->rows);
    free(r->vision_scratch.host);
    free(r->hidden);
    free(r->logits);
}

void rig_forget(rig *r) { r->n_pictures = r->used_pages = r->image_keys = 0; }

static void see(rig *r, const float *pixels, const uint8_t *bytes, int32_t tiles, int32_t aspect_ratio_id) {
    rv_error err;
    int32_t *pages = r->pages[r->n_pictures];
    rv_vision_job *job = &r->pictures[r->n_pictures++];
    *job = (rv_vision_job){ .layout = rv_vision_layout_of(&r->config.vision, tiles, aspect_ratio_id, r->weights.pads_are_equal),
                            .pixels = pixels, .tiles = bytes, .pages = pages };
    /* Pages from the far end, so that a mixed-up page table shows. */
    for (int32_t i = 0, n = rv_vision_pages(&job->layout, r->vision.reference); i < n; i++)
        pages[i] = r->cache.tile_pages - 1 - r->used_pages++;
    while (job->step < rv_vision_steps(&r->config)) rv_vision_run(&r->vision, job, 3);
    must(rv_finish(r->be, &err), &err);
}

void rig_see(rig *r, const float *pixels, int32_t tiles, int32_t aspect_ratio_id) { see(r, pixels, NULL, tiles, aspect_ratio_id); }

void rig_see_bytes(rig *r, const uint8_t *bytes, int32_t tiles, int32_t aspect_ratio_id) { see(r, NULL, bytes, tiles, aspect_ratio_id); }

void rig_feature(rig *r, int32_t slot, int32_t token, float *out) {
    const rv_vision_layout *l = &r->pictures[r->n_pictures - 1].layout;
    if (slot >= l->tiles + l->pad_tiles) slot = l->tiles;            /* padding tiles computed once */
    rv_mat row = rv_rows(r->vision_scratch.features, slot * r->config.vision.tokens + token, 1);
    read_back(r, out, row);
}

static void upload_pages(rig *r) {
    int32_t list[RIG_IMAGES * RV_MAX_TILES], n = 0;
    for (int32_t pads = 0; pads < 2; pads++)
        for (int32_t k = 0; k < r->n_pictures; k++) {
            const rv_vision_layout *l = &r->pictures[k].layout;
            int32_t all = rv_vision_pages(l, r->vision.reference);
            for (int32_t i = pads ? l->tiles : 0; i < (pads ? all : l->tiles); i++) list[n++] = r->pages[k][i];
        }
    rv_upload(r->be, r->cache.cross_pages, list, (uint64_t)n * sizeof *list);
    r->image_keys = n * r->config.vision.tokens;
}

void rig_read(rig *r, const int32_t *ids, int32_t prompt, int32_t from, int32_t to) {
    rv_error err;
    rv_sight sight[RIG_CONTEXT];
    int32_t tokens = r->config.vision.tokens;
    assert_int_equal(rv_text_sight(ids, prompt, r->config.image_token, sight), r->n_pictures);
    if (from == 0) upload_pages(r);
    rv_text_rows *rows = &r->rows;
    rows->n = to - from;
    rows->images = r->n_pictures > 0;
    rows->apart = to - from == 1;
    rows->longest_self = to;
    rows->longest_image = r->image_keys;
    for (int32_t i = from; i < to; i++) {
        rv_sight s = sight[i < prompt ? i : prompt - 1];
        int32_t row = i - from, keys = 0, first = 0;
        for (int32_t k = 0; k <= s.last; k++) {
            if (k == s.first) first = keys;
            keys += r->pictures[k].layout.tiles * tokens;
        }
        bool on = s.last >= s.first;
        rows->ids[row] = ids[i];
        rows->pos[row] = i;
        rows->slot[row] = 0;
        rows->image_first[row] = first;
        rows->image_last[row] = on ? keys - 1 : r->text.reference == RV_REFERENCE_HF ? r->image_keys - 1 : -1;
        rows->row_on[row] = on;
    }
    rv_text_run(&r->text, rows, 0, rows->n);
    rv_download(r->be, r->logits, r->text_scratch.logits.data, (uint64_t)rows->n * (uint64_t)r->config.text.vocab * sizeof(float));
    must(rv_finish(r->be, &err), &err);
}

const float *rig_logits(const rig *r, int32_t row) {
    return r->logits + (size_t)row * (size_t)r->config.text.vocab;
}

const float *rig_hidden(const rig *r, int32_t layer, int32_t row) {
    return r->hidden + ((size_t)layer * RIG_ROWS + (size_t)row) * (size_t)r->config.text.hidden;
}
