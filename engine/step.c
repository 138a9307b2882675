/* step.c - one turn of a session: admit, decode, see, read.
 *
 * The one idea: every turn first gives each answering job its next token, all in one pass, and
 * then one slice of work to jobs that are still looking at pictures or reading their prompt; so
 * a long document never stalls the answers of others.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/quant.h"
#include "engine/session.h"

enum { SLICE_STEPS = 4,                  /* vision steps a turn while somebody is answering      */
       SLICE_STEPS_ALONE = 16 };

typedef enum { SEEING, READING, ANSWERING } stage;

/* Whoever answers may have several ids to run: what a constraint has appended. */
static stage stage_of(const rv_job *job) {
    if (job->in_cache >= (int32_t)job->prompt.count) return ANSWERING;
    for (uint32_t i = 0; i < job->n_pictures; i++)
        if (job->pictures[i]->state != RV_PICTURE_READY) return SEEING;
    return READING;
}

/* ---- the end of a job ---- */

static void end_job(rv_job *job, rv_job_state state) {
    rv_session *s = job->session;
    if (state == RV_JOB_CANCELLED) rv_fail(&job->error, RV_ERR_CANCELLED, "the request was cancelled");
    job->stats.total_ms = (float)(rv_now_ms() - job->submitted_ms);
    job->stats.device_bytes = s->cache_bytes + s->scratch_bytes;
    rv_model_lock(s->model);
    job->stats.saturated = rv_saturated(s->model->be);
    rv_model_unlock(s->model);
    job->stats.reduced = s->steps;
    rv_decode_forget(s, job);
    rv_guided_end(job);
    pthread_mutex_lock(&s->lock);
    if (job->slot >= 0) {
        rv_place_release(s, job);
        for (uint32_t i = 0; i < job->n_pictures; i++) job->pictures[i]->users--;
        s->slots[job->slot] = NULL;
        s->running--;
    }
    /* The job may be kept for long; its pictures' pages are wanted now. */
    for (uint32_t i = 0; i < job->n_pictures; i++) rv_picture_release_locked(job->pictures[i]);
    job->n_pictures = 0;
    atomic_store(&job->state, state);
    pthread_cond_broadcast(&s->done);
    pthread_mutex_unlock(&s->lock);
    if (job->on_done) job->on_done(job->user, job);
    rv_job_release(job);
}

static void fail_job(rv_job *job, const rv_error *error) {
    job->error = *error;
    end_job(job, RV_JOB_FAILED);
}

/* ---- admission ---- */

static rv_job *unlink_first(rv_session *s) {
    rv_job *job = s->queue;
    s->queue = job->next;
    if (!s->queue) s->queue_end = &s->queue;
    job->next = NULL;
    s->queued--;
    return job;
}

static void start_job(rv_session *s, rv_job *job, int32_t slot) {
    job->slot = slot;
    s->slots[slot] = job;
    s->running++;
    job->stats.queue_ms = (float)(rv_now_ms() - job->submitted_ms) - job->stats.image_ms;
    if (!s->runs_ahead) {
        const rv_config *config = &s->model->files.config;
        uint8_t *seen = s->seen + (size_t)slot * (size_t)config->text.vocab;
        memset(seen, 0, (size_t)config->text.vocab);
        for (size_t i = 0; i < job->prompt.count; i++)
            if (job->prompt.data[i] < config->text.vocab) seen[job->prompt.data[i]] = 1;
    }
    atomic_store(&job->state, RV_JOB_RUNNING);
}

/* Moves waiting jobs into free slots, first come first served. Returns a cancelled job that must be ended (without the
 * lock), or NULL when all is done. */
static rv_job *admit(rv_session *s) {
    rv_job *dead = NULL;
    pthread_mutex_lock(&s->lock);
    for (rv_job **at = &s->queue; *at && !dead; at = &(*at)->next)      /* cancelled jobs leave from anywhere */
        if (atomic_load(&(*at)->cancel)) {
            dead = *at;
            *at = dead->next;
            if (!*at) s->queue_end = at;
            dead->next = NULL;
            s->queued--;
            break;
        }
    for (int32_t slot = 0; !dead && s->queue && slot < s->cache.slots; slot++) {
        if (s->slots[slot]) continue;
        if (!rv_place_hold(s, s->queue)) break;
        if (!rv_pictures_hold(s, s->queue)) {
            rv_place_release(s, s->queue);
            break;
        }
        start_job(s, unlink_first(s), slot);
    }
    pthread_mutex_unlock(&s->lock);
    return dead;
}

static void end_cancelled(rv_session *s) {
    for (int32_t i = 0; i < s->cache.slots; i++)
        if (s->slots[i] && atomic_load(&s->slots[i]->cancel)) end_job(s->slots[i], RV_JOB_CANCELLED);
    for (rv_job *dead; (dead = admit(s));) end_job(dead, RV_JOB_CANCELLED);
}

/* Constrained answers begin with a key, which is read with the prompt. */
static void begin_constrained(rv_session *s) {
    for (int32_t i = 0; i < s->cache.slots; i++) {
        rv_job *job = s->slots[i];
        rv_job_state state;
        if (job && job->guided && !job->guided->begun && !rv_guided_start(job, &state)) end_job(job, state);
    }
}

static rv_job *take_first(rv_session *s) {
    pthread_mutex_lock(&s->lock);
    rv_job *job = s->queue ? unlink_first(s) : NULL;
    pthread_mutex_unlock(&s->lock);
    return job;
}

/* The device is lost: nobody waits for what cannot come. What callbacks submit meanwhile is left to the next step. */
static void fail_all(rv_session *s, const rv_error *error) {
    pthread_mutex_lock(&s->lock);
    uint32_t waiting = s->queued;
    pthread_mutex_unlock(&s->lock);
    for (int32_t i = 0; i < s->cache.slots; i++)
        if (s->slots[i]) fail_job(s->slots[i], error);
    for (rv_job *job; waiting > 0 && (job = take_first(s)); waiting--) fail_job(job, error);
}

void rv_session_cancel_all(rv_session *s) {
    for (int32_t i = 0; i < s->cache.slots; i++)
        if (s->slots[i]) end_job(s->slots[i], RV_JOB_CANCELLED);
    for (rv_job *job; (job = take_first(s));) end_job(job, RV_JOB_CANCELLED);
}

/* ---- rows of a pass ---- */

static void clear_rows(rv_text_rows *rows) {
    rows->n = rows->longest_self = rows->longest_image = 0;
    rows->images = rows->apart = false;
}

static void add_row(rv_text_rows *rows, const rv_job *job, int32_t id, int32_t pos) {
    int32_t r = rows->n++;
    rows->ids[r] = id;
    rows->pos[r] = pos;
    rows->slot[r] = job->slot;
    rows->image_first[r] = job->first_key;
    rows->image_last[r] = job->last_key;
    rows->row_on[r] = job->row_on;
    if (pos + 1 > rows->longest_self) rows->longest_self = pos + 1;
    if (job->image_keys > rows->longest_image) rows->longest_image = job->image_keys;
    rows->images |= job->n_pictures > 0;
}

/* Sets which image keys the job's rows see from prompt token `i` on. */
static void set_sight(rv_job *job, int32_t i) {
    const rv_model *m = job->session->model;
    const rv_sight sight = job->sight[i];
    int32_t tokens = m->files.config.vision.tokens, keys = 0;
    job->row_on = sight.last >= sight.first && job->n_pictures ? 1 : 0;
    job->first_key = 0;
    job->last_key = m->options.reference == RV_REFERENCE_HF ? job->image_keys - 1 : -1;
    if (job->row_on == 0) return;
    for (int32_t k = 0; k <= sight.last; k++) {
        if (k == sight.first) job->first_key = keys;
        keys += job->pictures[k]->work.layout.tiles * tokens;
    }
    job->last_key = keys - 1;
}

/* The slot's list of image pages: all real tiles in order, then all padding lanes. */
static void upload_pages(rv_session *s, rv_job *job) {
    rv_model_lock(s->model);
    int32_t *list = s->vision_scratch.host, n = 0;
    for (int32_t pads = 0; pads < 2; pads++)
        for (uint32_t k = 0; k < job->n_pictures; k++) {
            const rv_picture *p = job->pictures[k];
            int32_t tiles = p->work.layout.tiles, from = pads ? tiles : 0, to = pads ? p->n_pages : tiles;
            for (int32_t i = from; i < to; i++) list[n++] = p->pages[i];
        }
    rv_upload(s->model->be, s->cache.cross_pages + (size_t)job->slot * (size_t)s->cache.tile_pages, list, (uint64_t)n * sizeof *list);
    rv_model_unlock(s->model);
    job->image_keys = n * s->model->files.config.vision.tokens;
}

/* ---- the three kinds of work ---- */

static void take_token(rv_job *job, rv_best best) {
    rv_job_state state;
    if (!rv_job_take(job, best, &state)) end_job(job, state);
}

static void sample_row(rv_session *s, rv_job *job, float *logits) {
    int32_t vocab = s->model->files.config.text.vocab;
    uint8_t *seen = s->seen + (size_t)job->slot * (size_t)vocab;
    rv_best best;
    rv_error error;
    rv_status st = rv_all_finite(logits, RV_F32, vocab) ? RV_OK : rv_sample_fail(&error);        /* -Inf too: a token that cannot be chosen */
    if (st || rv_sample(&job->sampling, job->guided ? &job->guided->row : NULL, logits, vocab, seen, (uint32_t)job->answer.count, s->room, &best, &error)) {
        fail_job(job, &error);
        return;
    }
    seen[best.id] = 1;
    take_token(job, best);
}

/* A token that the device chose. */
static void take_best(rv_job *job, rv_best best) {
    rv_error error;
    if (best.id >= 0) take_token(job, best);
    else {
        rv_sample_fail(&error);
        fail_job(job, &error);
    }
}

/* The answering jobs, by slot; how many. */
static int32_t answering_jobs(const rv_session *s, rv_job *jobs[RV_FEW_ROWS]) {
    int32_t n = 0;
    for (int32_t i = 0; i < s->cache.slots; i++)
        if (s->slots[i] && stage_of(s->slots[i]) == ANSWERING) jobs[n++] = s->slots[i];
    return n;
}

static void answer_rows(rv_text_rows *rows, rv_job *const *jobs, int32_t n) {
    clear_rows(rows);
    for (int32_t i = 0; i < n; i++) add_row(rows, jobs[i], jobs[i]->answer.data[jobs[i]->answer.count - 1], jobs[i]->in_cache);
    rows->apart = true;
}

/* Whether a constraint has appended ids that wait to be run. */
static bool is_behind(rv_job *const *jobs, int32_t n) {
    for (int32_t i = 0; i < n; i++)
        if (rv_job_waiting(jobs[i]) > 1) return true;
    return false;
}

/* The same, with all ids of these jobs that are waiting, as far as a pass of few rows goes: first those from which nothing is to be
 * chosen, then the last one of each job that has caught up.  Moves `jobs` so that these come first; returns how many they are. */
static int32_t catch_up_rows(rv_session *s, rv_job **jobs, int32_t n) {
    rv_job *rest[RV_FEW_ROWS];
    int32_t room = RV_FEW_ROWS - n, ready = 0, left = 0;
    clear_rows(&s->rows);
    for (int32_t i = 0; i < n; i++) {
        rv_job *job = jobs[i];
        int32_t waiting = rv_job_waiting(job), extra = waiting - 1 < room ? waiting - 1 : room;
        bool all = extra == waiting - 1;
        room -= extra;
        for (int32_t k = 0; k < extra + !all; k++) add_row(&s->rows, job, rv_job_id(job, job->in_cache + k), job->in_cache + k);
        job->in_cache += extra + !all;
        if (all) jobs[ready++] = job;
        else rest[left++] = job;
    }
    for (int32_t i = 0; i < ready; i++) add_row(&s->rows, jobs[i], rv_job_id(jobs[i], jobs[i]->in_cache), jobs[i]->in_cache);
    for (int32_t i = 0; i < ready; i++) jobs[i]->in_cache++;
    for (int32_t i = 0; i < left; i++) jobs[ready + i] = rest[i];
    s->rows.apart = s->rows.n == n;
    return ready;
}

static void count_step(rv_job *job, double start) {
    job->stats.decode_ms += (float)(rv_now_ms() - start);
    job->stats.steps++;
}

/* One step, its tokens chosen on the host.  Here and below the device is not held while callbacks run: they may make or
 * free sessions of this model. */
static bool decode(rv_session *s, rv_error *err) {
    rv_job *jobs[RV_FEW_ROWS];
    double start = rv_now_ms();
    int32_t n = answering_jobs(s, jobs);
    if (n == 0) return true;
    int32_t ready = catch_up_rows(s, jobs, n);
    if (rv_decode_run(s, &s->text, s->rows.n - ready, ready, err)) return false;
    for (int32_t i = 0; i < n; i++) count_step(jobs[i], start);
    for (int32_t i = 0; i < ready; i++) sample_row(s, jobs[i], s->logits + (size_t)i * (size_t)s->model->files.config.text.vocab);
    return true;
}

/* ---- steps ahead of the host ---- */

static bool launch(rv_session *s, rv_job *const *jobs, int32_t n, rv_error *err) {
    answer_rows(&s->ahead.rows, jobs, n);
    return rv_decode_launch(s, jobs, err) == RV_OK;
}

/* Whether the flight's rows are all that answer now, and each will surely want a token after the flight's own.  Where a
 * constraint may append something to that, waiting is cheaper than a step: all of it can then run together. */
static bool goes_on(const rv_flight *f, rv_job *const *jobs, int32_t n) {
    if (f->n != n || memcmp(f->jobs, jobs, (size_t)n * sizeof *jobs)) return false;
    for (int32_t i = 0; i < n; i++)
        if ((int32_t)jobs[i]->answer.count + 2 > jobs[i]->limit || (jobs[i]->guided && rv_guided_waits(jobs[i]->guided))) return false;
    return !is_behind(jobs, n);
}

/* One step that is waited for: what constraints have appended, and one row of everybody else. */
static bool catch_up(rv_session *s, rv_job **jobs, int32_t n, double start, rv_error *err) {
    rv_best best[RV_FEW_ROWS];
    int32_t ready = catch_up_rows(s, jobs, n);
    if (rv_decode_now(s, &s->text, jobs, ready, best, err)) return false;
    for (int32_t i = 0; i < n; i++) count_step(jobs[i], start);
    for (int32_t i = 0; i < ready; i++) take_best(jobs[i], best[i]);
    return true;
}

static bool land(rv_session *s, double start, rv_error *err) {
    rv_flight f;
    rv_best best[RV_FEW_ROWS];
    if (rv_decode_land(s, &f, best, err)) return false;
    for (int32_t i = 0; i < f.n; i++) {
        if (!f.jobs[i]) continue;
        f.jobs[i]->in_cache++;
        count_step(f.jobs[i], start);
        if (rv_job_waiting(f.jobs[i]) == 0) take_best(f.jobs[i], best[i]);       /* else a constraint had said already what comes */
    }
    return true;
}

/* Takes one step's tokens.  The next step is already running then, unless the set of answering jobs has changed or is about
 * to (`joins`: a job's prompt ends in this turn); a changed set starts anew as soon as the old one's last step is read. */
static bool decode_ahead(rv_session *s, bool joins, rv_error *err) {
    rv_job *jobs[RV_FEW_ROWS];
    double start = rv_now_ms();
    int32_t n = answering_jobs(s, jobs);
    if (!s->ahead.flying && n == 0) return true;
    if (!s->ahead.flying && is_behind(jobs, n)) {
        if (!catch_up(s, jobs, n, start, err)) return false;
    } else {
        if (!s->ahead.flying && !launch(s, jobs, n, err)) return false;
        if (!joins && goes_on(&s->ahead.flights[0], jobs, n) && rv_decode_launch_next(s, err)) return false;
        if (!land(s, start, err)) return false;
    }
    n = answering_jobs(s, jobs);
    return s->ahead.flying || joins || n == 0 || is_behind(jobs, n) || launch(s, jobs, n, err);
}

static bool see(rv_session *s, rv_job *job, int32_t steps, rv_error *err) {
    double start = rv_now_ms();
    rv_picture *p = NULL;
    for (uint32_t i = 0; !p && i < job->n_pictures; i++)
        if (job->pictures[i]->state != RV_PICTURE_READY) p = job->pictures[i];
    if (s->seeing != p) p->work.step = 0;        /* others have used the tower since this picture's job was cancelled */
    s->seeing = p;
    rv_model_lock(s->model);
    rv_mark_time(s->model->be, RV_MARK_SLICE);
    rv_vision_run(&s->vision, &p->work, steps);
    rv_status st = rv_finish(s->model->be, err);
    bool ready = p->work.step == rv_vision_steps(&s->model->files.config);
    float ms = (float)(rv_now_ms() - start), tower = ready ? (float)rv_marked_ms(s->model->be, RV_MARK_SLICE, RV_MARK_TOWER) : ms;
    rv_model_unlock(s->model);
    if (st) return false;
    job->stats.vision_ms += ms;
    job->stats.tower_ms += tower;
    if (ready) {
        pthread_mutex_lock(&s->lock);
        p->state = RV_PICTURE_READY;
        pthread_mutex_unlock(&s->lock);
    }
    return true;
}

/* Where the job's next chunk of prompt ends. */
static int32_t chunk_end(const rv_session *s, const rv_job *job) {
    int32_t chunk = s->model->be->chunk_rows, to = job->in_cache + chunk - job->in_cache % chunk, end = job->in_cache + rv_job_waiting(job);
    return to < end ? to : end;
}

static bool read_chunk(rv_session *s, rv_job *job, rv_error *err) {
    double start = rv_now_ms();
    int32_t from = job->in_cache, to = chunk_end(s, job), end = from + rv_job_waiting(job);
    if (from == 0 && job->n_pictures) upload_pages(s, job);
    if (from == 0) rv_decode_prompt(s, job);
    if (from == 0) rv_place_fill(s, job);
    s->seeing = NULL;                            /* the pass overwrites what a picture may have left half done */
    clear_rows(&s->rows);
    for (int32_t i = from; i < to; i++) {
        if (i < (int32_t)job->prompt.count) set_sight(job, i);
        add_row(&s->rows, job, rv_job_id(job, i), i);
    }
    bool last = to == end;
    rv_best best;
    if (last && s->runs_ahead ? rv_decode_now(s, &s->reader, &job, 1, &best, err) : rv_decode_run(s, &s->reader, to - from - 1, last ? 1 : 0, err)) return false;
    job->in_cache = to;
    job->stats.prefill_ms += (float)(rv_now_ms() - start);
    if (last && s->runs_ahead) take_best(job, best);
    else if (last) sample_row(s, job, s->logits);
    return true;
}

/* A picture half way through the tower must be finished first: the tower has one set of buffers. */
static rv_job *next_reader(rv_session *s) {
    rv_job *found = NULL;
    uint32_t slots = (uint32_t)s->cache.slots, at = 0;
    for (uint32_t k = 0; k < slots; k++) {
        rv_job *job = s->slots[(s->turn + k) % slots];
        if (!job || stage_of(job) == ANSWERING) continue;
        for (uint32_t i = 0; i < job->n_pictures; i++)
            if (job->pictures[i]->state == RV_PICTURE_HELD && job->pictures[i]->work.step > 0) return job;
        if (!found) found = job, at = (s->turn + k + 1) % slots;
    }
    if (found && stage_of(found) == READING) s->turn = at;
    return found;
}

static bool turn(rv_session *s, rv_error *err) {
    rv_job *jobs[RV_FEW_ROWS], *job = next_reader(s);
    bool answering = answering_jobs(s, jobs) > 0, reads = job && stage_of(job) == READING;
    bool joins = reads && chunk_end(s, job) == job->in_cache + rv_job_waiting(job);
    if (!(s->runs_ahead ? decode_ahead(s, joins, err) : decode(s, err))) return false;
    if (!job) return true;
    if (reads) return read_chunk(s, job, err);
    return see(s, job, answering ? SLICE_STEPS : SLICE_STEPS_ALONE, err);
}

/* One thread at a time is inside. It holds the session, which may be freed by a callback or by another thread. */
static rv_status enter(rv_session *s, const char *what, rv_error *err) {
    if (!s) return rv_fail(err, RV_ERR_ARGUMENT, "%s: session is NULL", what);
    if (atomic_exchange(&s->stepping, true))
        return rv_fail(err, RV_ERR_BUSY, "another thread is stepping this session (or a callback called %s)", what);
    rv_session_retain(s);
    return RV_OK;
}

/* Who frees a session sets `doomed` before it looks at `stepping`; so one of the two sees the other, and ends it. */
static void leave(rv_session *s) {
    atomic_store(&s->stepping, false);
    if (atomic_load(&s->doomed) && !atomic_exchange(&s->stepping, true)) rv_session_end(s);
    rv_session_release(s);
}

static rv_status step(rv_session *s, uint32_t *active, rv_error *err) {
    rv_error error = {0};
    end_cancelled(s);
    begin_constrained(s);
    if (s->running && !turn(s, &error)) fail_all(s, &error);
    pthread_mutex_lock(&s->lock);
    if (active) *active = atomic_load(&s->doomed) ? 0 : s->queued + s->running;
    pthread_mutex_unlock(&s->lock);
    if (error.code && err) *err = error;
    return error.code;
}

rv_status rv_step(rv_session *s, uint32_t *active, rv_error *err) {
    rv_status st = enter(s, "rv_step", err);
    if (st) return st;
    st = step(s, active, err);
    leave(s);
    return st;
}

/* Nobody else gets in between: a request that cannot be stepped is not queued. */
rv_status rv_generate(rv_session *s, const rv_request *request, rv_job **out, rv_error *err) {
    rv_job *job = NULL;
    if (!out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_generate: out is NULL");
    rv_status st = enter(s, "rv_generate", err);
    if (st) return st;
    st = rv_submit(s, request, &job, err);
    while (st == RV_OK && atomic_load(&job->state) <= RV_JOB_RUNNING && !atomic_load(&s->doomed))
        st = step(s, NULL, err);
    leave(s);
    if (st == RV_OK) st = rv_job_get_error(job, err);
    if (st) rv_job_free(job);
    else *out = job;
    return st;
}
