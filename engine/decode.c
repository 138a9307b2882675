/* decode.c - the answering jobs' pass: one row each, recorded once where the backend can.
 *
 * The one idea: a decode step differs from the one before only in numbers that lie in device memory (ids,
 * positions, key ranges, how to choose), and its last operation moves those numbers to the next step.  So it is
 * recorded once per row count and played again and again, and the host reads a step's tokens while the next one
 * runs.  Row counts are rounded up to a power of two with rows that see nothing and store nothing.
 *
 * A row whose job has just ended computes one step more, unseen.  That is harmless: it stores one key in its own
 * slot's pages and one flag in its slot's `seen`, and whoever gets the slot next writes both later on the same stream.
 */
#include <string.h>

#include "engine/session.h"

static int32_t size_index(int32_t n) {
    int32_t i = 0;
    while (1 << i < n) i++;
    return i;
}

/* Rows of a recorded step for n jobs. */
static int32_t padded(const rv_session *s, int32_t n) {
    int32_t size = 1 << size_index(n);
    return size < s->cache.slots ? size : s->cache.slots;
}

/* A row that changes nothing: no key, no position, no image. */
static void pad_rows(rv_text_rows *rows, int32_t n) {
    for (int32_t r = rows->n; r < n; r++) {
        rows->ids[r] = rows->slot[r] = rows->image_first[r] = 0;
        rows->pos[r] = rows->image_last[r] = -1;
        rows->row_on[r] = 0;
    }
    rows->n = n;
}

static int32_t all_keys(const rv_session *s) { return s->cache.tile_pages * s->model->files.config.vision.tokens; }

static int32_t share_keys(const rv_session *s) { return (s->cache.images + s->cache.slots - 1) / s->cache.slots * (all_keys(s) / s->cache.images); }

static rv_sees sees_of(const rv_session *s, const rv_text_rows *rows) {
    return !rows->images ? RV_SEES_NONE : rows->longest_image <= share_keys(s) ? RV_SEES_SHARE : RV_SEES_ALL;
}

static void set_bounds(const rv_session *s, rv_text_rows *rows, rv_sees sees) {
    rows->images = sees != RV_SEES_NONE;
    rows->apart = true;
    rows->longest_self = s->cache.context;
    rows->longest_image = sees == RV_SEES_SHARE ? share_keys(s) : all_keys(s);
}

static void choose(rv_session *s, const rv_text *t, const rv_text_rows *rows, int32_t from, int32_t n, rv_choice *how) {
    rv_answering a = { .how = how, .seen = s->ahead.seen, .best = s->text_scratch.best };
    rv_text_answering(t, rows, from, &a);
    rv_choose(s->model->be, &a, rv_rows(s->text_scratch.logits, 0, n));
}

/* ---- with the session ---- */

void rv_decode_place(rv_session *s, const rv_config *config, const rv_backend *be, rv_arena *scratch) {
    uint64_t slots = (uint64_t)s->cache.slots;
    s->runs_ahead = rv_can_run_ahead(be) && !s->streams;         /* a recorded step could not wait for copies across its end */
    if (!s->runs_ahead) return;
    s->ahead.rows.device = rv_arena_take(scratch, slots * RV_ROW_ARRAYS * sizeof(int32_t));
    s->ahead.device_how = rv_arena_take(scratch, 2 * slots * sizeof *s->ahead.device_how);
    s->ahead.constraint_room = rv_arena_take(scratch, s->options.constraints * s->options.constraint_bytes);
    s->ahead.seen = rv_arena_take(scratch, slots * (uint64_t)config->text.vocab);
}

static rv_status record(rv_session *s, int32_t n, rv_sees sees, rv_error *err) {
    rv_backend *be = s->model->be;
    rv_text_rows rows = { .n = n, .device = s->ahead.rows.device };
    set_bounds(s, &rows, sees);
    rv_record_tape(be);
    rv_text_queue(&s->text, &rows, 0, n);
    choose(s, &s->text, &rows, 0, n, s->ahead.device_how);
    s->ahead.tapes[size_index(n)][sees] = rv_recorded(be);
    return rv_finish(be, err);
}

rv_status rv_decode_open(rv_session *s, rv_error *err) {
    rv_backend *be = s->model->be;
    rv_status st = RV_OK;
    int32_t *device = s->ahead.rows.device;
    if (!s->runs_ahead) return RV_OK;
    rv_model_lock(s->model);
    TRY(rv_text_rows_new(&s->ahead.rows, s->cache.slots, err));
    TRY(rv_places_new(s, err));
    s->ahead.rows.device = device;
    for (int i = 0; i < 2; i++) s->ahead.flights[i].tray = rv_tray_new(be, (uint64_t)s->cache.slots * sizeof(rv_best));
    TRY(rv_finish(be, err));
    for (int32_t i = 0; i <= size_index(s->cache.slots); i++)
        for (rv_sees sees = RV_SEES_NONE; sees < RV_SIGHTS; sees++)
            if (sees != RV_SEES_ALL || share_keys(s) < all_keys(s)) TRY(record(s, padded(s, 1 << i), sees, err));
done:
    if (st) rv_forgive(be);              /* the model's other sessions go on                     */
    rv_model_unlock(s->model);
    return st;
}

void rv_decode_close(rv_session *s) {
    rv_backend *be = s->model->be;
    if (!s->runs_ahead) return;
    rv_finish(be, NULL);                 /* a step that nobody waits for may still run           */
    for (int32_t i = 0; i < RV_TAPE_SIZES; i++)
        for (rv_sees sees = RV_SEES_NONE; sees < RV_SIGHTS; sees++) rv_erase(be, s->ahead.tapes[i][sees]);
    for (int i = 0; i < 2; i++) rv_tray_free(be, s->ahead.flights[i].tray);
    rv_text_rows_free(&s->ahead.rows);
    rv_places_free(s);
    s->ahead = (rv_ahead){ 0 };
}

/* ---- flights ---- */

static rv_guide_row guide_of(const rv_job *job) {
    rv_guide_row row = { 0 };
    if (!job->guided) return row;
    row = job->guided->row;
    row.guide = job->session->ahead.placed[job->guided->place].guide;
    return row;
}

static rv_choice choice_of(const rv_job *job) {
    const rv_sampling *g = &job->sampling;
    return (rv_choice){ .seed = g->seed, .index = (uint32_t)job->answer.count, .top_k = g->top_k, .temperature = g->temperature, .top_p = g->top_p,
                        .repetition_penalty = g->repetition_penalty, .last = (int32_t)job->prompt.count + job->limit - 2, .guide = guide_of(job) };
}

/* model->device is held. */
static rv_status play(rv_session *s, rv_job *const *jobs, int32_t n, rv_error *err) {
    rv_backend *be = s->model->be;
    rv_flight *f = &s->ahead.flights[s->ahead.flying];
    rv_play(be, s->ahead.tapes[size_index(n)][s->ahead.sees]);
    rv_fetch(be, f->tray, s->text_scratch.best, (uint64_t)n * sizeof(rv_best));
    if (be->error.code) {
        *err = be->error;
        return err->code;
    }
    f->n = n;
    memcpy(f->jobs, jobs, (size_t)n * sizeof *jobs);
    s->ahead.flying++;
    return RV_OK;
}

rv_status rv_decode_launch(rv_session *s, rv_job *const *jobs, rv_error *err) {
    rv_ahead *a = &s->ahead;
    int32_t n = a->rows.n;
    for (int32_t r = 0; r < n; r++) a->how[r] = choice_of(jobs[r]);
    a->sees = sees_of(s, &a->rows);
    pad_rows(&a->rows, padded(s, n));
    set_bounds(s, &a->rows, a->sees);
    rv_model_lock(s->model);
    rv_text_upload(&s->text, &a->rows);
    rv_upload(s->model->be, a->device_how, a->how, (uint64_t)n * sizeof *a->how);
    rv_status st = play(s, jobs, n, err);
    rv_model_unlock(s->model);
    return st;
}

rv_status rv_decode_launch_next(rv_session *s, rv_error *err) {
    const rv_flight *last = &s->ahead.flights[s->ahead.flying - 1];
    rv_model_lock(s->model);
    rv_status st = play(s, last->jobs, last->n, err);
    rv_model_unlock(s->model);
    return st;
}

/* The oldest flight is over: its tray is free for the flight after the next. */
static void pop(rv_ahead *a) {
    rv_flight oldest = a->flights[0];
    a->flights[0] = a->flights[1];
    a->flights[1] = oldest;
    a->flying--;
}

rv_status rv_decode_land(rv_session *s, rv_flight *flight, rv_best best[RV_FEW_ROWS], rv_error *err) {
    rv_model_lock(s->model);
    *flight = s->ahead.flights[0];
    const rv_best *tokens = rv_fetched(s->model->be, flight->tray, err);
    if (tokens) memcpy(best, tokens, (size_t)flight->n * sizeof *best);
    pop(&s->ahead);
    rv_model_unlock(s->model);
    return tokens ? RV_OK : s->model->be->error.code;
}

void rv_decode_forget(rv_session *s, const rv_job *job) {
    rv_ahead *a = &s->ahead;
    for (int32_t i = a->flying - 1; i >= 0; i--) {
        bool wanted = false;
        for (int32_t r = 0; r < a->flights[i].n; r++) {
            if (a->flights[i].jobs[r] == job) a->flights[i].jobs[r] = NULL;
            wanted |= a->flights[i].jobs[r] != NULL;
        }
        if (!wanted && i == a->flying - 1) a->flying--;
    }
}

/* ---- prompts ---- */

void rv_decode_prompt(rv_session *s, const rv_job *job) {
    size_t vocab = (size_t)s->model->files.config.text.vocab;
    if (!s->runs_ahead || job->sampling.repetition_penalty == 1.0f) return;
    memset(s->seen, 0, vocab);
    for (size_t i = 0; i < job->prompt.count; i++)
        if ((size_t)job->prompt.data[i] < vocab) s->seen[job->prompt.data[i]] = 1;
    rv_model_lock(s->model);
    rv_upload(s->model->be, s->ahead.seen + (size_t)job->slot * vocab, s->seen, vocab);
    rv_model_unlock(s->model);
}

rv_status rv_decode_now(rv_session *s, const rv_text *t, rv_job *const *jobs, int32_t n, rv_best *best, rv_error *err) {
    rv_backend *be = s->model->be;
    rv_choice how[RV_FEW_ROWS], *device = s->ahead.device_how + s->cache.slots;
    for (int32_t i = 0; i < n; i++) how[i] = choice_of(jobs[i]);
    rv_model_lock(s->model);
    rv_text_run(t, &s->rows, s->rows.n - n, n);
    if (n) {
        rv_upload(be, device, how, (uint64_t)n * sizeof *how);
        choose(s, t, &s->rows, s->rows.n - n, n, device);
        rv_download(be, best, s->text_scratch.best, (uint64_t)n * sizeof *best);
    }
    rv_status st = rv_finish(be, err);
    rv_model_unlock(s->model);
    return st;
}

rv_status rv_decode_run(rv_session *s, const rv_text *t, int32_t from, int32_t n, rv_error *err) {
    rv_backend *be = s->model->be;
    uint64_t bytes = (uint64_t)n * (uint64_t)s->model->files.config.text.vocab * sizeof(float);
    rv_model_lock(s->model);
    rv_text_run(t, &s->rows, from, n);
    if (n) rv_download(be, s->logits, s->text_scratch.logits.data, bytes);
    rv_status st = rv_finish(be, err);
    rv_model_unlock(s->model);
    return st;
}
