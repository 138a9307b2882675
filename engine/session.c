/* session.c - the life of a session: its memory, its waiters, its end. */
#include "engine/session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/abi.h"
#include "engine/base/text.h"

double rv_now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

void rv_session_place(rv_session *s, const rv_config *config, const rv_backend *be, rv_arena *cache, rv_arena *scratch) {
    const rv_session_options *o = &s->options;
    s->cache.slots = (int32_t)o->slots;
    s->cache.context = (int32_t)o->context;
    s->cache.images = (int32_t)o->images;
    rv_cache_place(&s->cache, config, be->act, cache);
    rv_text_place(&s->text_scratch, config, be->act, RV_FEW_ROWS, (int32_t)o->slots, (int32_t)o->context, scratch);
    rv_decode_place(s, config, be, scratch);
    /* A prefill pass and the tower take turns (step.c: `seeing`), so they share; decode steps come in between. */
    rv_arena reader = *scratch;
    s->chunk_scratch = s->text_scratch;
    rv_text_place_rows(&s->chunk_scratch, config, be->act, be->chunk_rows, &reader);
    rv_vision_place(&s->vision_scratch, config, be->act, scratch);
    if (reader.used > scratch->used) scratch->used = reader.used;
}

/* ---- making one ---- */

static rv_status take_host(rv_session *s, rv_error *err) {
    const rv_config *config = &s->model->files.config;
    size_t slots = s->options.slots, vocab = (size_t)config->text.vocab;
    size_t ints = rv_vision_host_ints(config), pages = (size_t)s->cache.slots * (size_t)s->cache.self_max_pages;
    s->slots = calloc(slots, sizeof *s->slots);
    s->seen = malloc(s->runs_ahead ? vocab : slots * vocab);
    if (!s->runs_ahead) {
        s->logits = malloc(slots * vocab * sizeof *s->logits);
        s->room = malloc(2 * vocab * sizeof *s->room);
    }
    s->free_pages = malloc((size_t)s->cache.tile_pages * sizeof *s->free_pages);
    s->vision_scratch.host = malloc((ints > pages ? ints : pages) * sizeof(int32_t));
    if (!s->slots || !s->seen || (!s->runs_ahead && (!s->logits || !s->room)) || !s->free_pages || !s->vision_scratch.host)
        return rv_fail_memory(err, "session");
    int32_t chunk = s->chunk_scratch.x.rows, few = s->text_scratch.x.rows;
    return rv_text_rows_new(&s->rows, chunk > few ? chunk : few, err);
}

/* Counts the session against the model's memory limit; several sessions may be made at once. */
static rv_status reserve(rv_model *m, uint64_t bytes, rv_error *err) {
    uint64_t limit = m->options.memory_limit, before = atomic_load(&m->taken);
    do {
        /* Without a limit what is free now decides, and what was taken is no longer in it. */
        uint64_t counted = limit ? before : 0, available = limit ? limit : rv_load_available(&m->options);
        if (bytes > available || counted > available - bytes)
            return rv_fail(err, RV_ERR_DEVICE_MEMORY, "the session takes %s, %s are left: ask for fewer slots, "
                           "less context or fewer images", rv_size_in_words(bytes).text,
                           rv_size_in_words(available > counted ? available - counted : 0).text);
    } while (!atomic_compare_exchange_weak(&m->taken, &before, before + bytes));
    return RV_OK;
}

static rv_status take_device(rv_session *s, rv_error *err) {
    rv_model *m = s->model;
    rv_status st = RV_OK;
    rv_model_lock(m);
    s->cache_memory = rv_device_alloc(m->be, s->cache_bytes);
    s->scratch_memory = rv_device_alloc(m->be, s->scratch_bytes);
    TRY(rv_finish(m->be, err));
    if (!s->cache_memory || !s->scratch_memory) TRY(rv_fail_memory(err, "session"));
    rv_arena cache = { s->cache_memory, 0, s->cache_bytes }, scratch = { s->scratch_memory, 0, s->scratch_bytes };
    rv_session_place(s, &m->files.config, m->be, &cache, &scratch);
    TRY(take_host(s, err));
    rv_cache_start(&s->cache, m->be, s->vision_scratch.host);
    size_t floats = s->options.context * (size_t)m->files.config.text.head_dim;
    float *rotary = malloc(floats * sizeof *rotary);
    if (!rotary) TRY(rv_fail_memory(err, "rotary tables"));
    rv_text_rotary(&m->files.config.text, (int32_t)s->options.context, rotary);
    rv_upload(m->be, s->text_scratch.cos_sin, rotary, floats * sizeof *rotary);
    st = rv_finish(m->be, err);
    free(rotary);
done:
    if (st) rv_forgive(m->be);           /* the model's other sessions go on                     */
    rv_model_unlock(m);
    return st;
}

/* On a device that is lost nothing fits either: that is not what the caller should hear. */
static rv_status check_alive(rv_model *m, rv_error *err) {
    rv_model_lock(m);
    rv_status st = rv_finish(m->be, err);
    rv_model_unlock(m);
    return st;
}

static void start(rv_session *s) {
    rv_model *m = s->model;
    for (int32_t i = 0; i < s->cache.tile_pages; i++) s->free_pages[s->n_free++] = s->cache.tile_pages - 1 - i;
    s->text = (rv_text){ .streamed = s->streams ? &m->streamed : NULL, .config = &m->files.config, .weights = &m->weights, .be = m->be, .scratch = &s->text_scratch,
                         .cache = &s->cache, .reference = m->options.reference };
    s->reader = s->text;
    s->reader.scratch = &s->chunk_scratch;
    s->vision = (rv_vision){ .config = &m->files.config, .weights = &m->weights, .be = m->be, .scratch = &s->vision_scratch,
                             .cache = &s->cache, .taps = m->options.taps, .reference = m->options.reference };
}

static void give_back(rv_session *s) {
    rv_model *m = s->model;
    rv_model_lock(m);
    rv_decode_close(s);
    rv_device_release(m->be, s->cache_memory);
    rv_device_release(m->be, s->scratch_memory);
    rv_model_unlock(m);
    atomic_fetch_sub(&m->taken, s->cache_bytes + s->scratch_bytes);
    free(s->slots);
    free(s->logits);
    free(s->seen);
    free(s->room);
    free(s->free_pages);
    free(s->vision_scratch.host);
    rv_text_rows_free(&s->rows);
    s->cache_memory = s->scratch_memory = NULL;
    s->cache_bytes = s->scratch_bytes = 0;
    s->slots = NULL;
    s->logits = NULL;
    s->seen = NULL;
    s->room = NULL;
    s->free_pages = NULL;
    s->n_free = 0;
    s->vision_scratch.host = NULL;
}

/* Cache and scratch for the options as they are now, and everything else that a session needs. */
static rv_status take(rv_session *s, rv_error *err) {
    rv_model *m = s->model;
    rv_arena cache = { 0 }, scratch = { 0 };
    rv_status st = RV_OK;
    rv_session_place(s, &m->files.config, m->be, &cache, &scratch);
    TRY(reserve(m, cache.used + scratch.used, err));
    s->cache_bytes = cache.used;
    s->scratch_bytes = scratch.used;
    TRY(take_device(s, err));
    start(s);
    TRY(rv_decode_open(s, err));
done:
    return st;
}

/* What can be had now: of the limit, or of what is free and usable. */
static uint64_t room_of(rv_model *m) {
    uint64_t room = rv_load_room(&m->options, &m->profile), taken = atomic_load(&m->taken);
    if (!m->options.memory_limit && m->profile.usable) {
        uint64_t available = rv_load_available(&m->options), left = m->profile.usable > taken ? m->profile.usable - taken : 0;
        return available < left ? available : left;
    }
    return room > taken ? room - taken : 0;
}

/* As many slots as were asked for; where their number is open, or may be reduced, as many as there is memory for. */
static rv_status take_slots(rv_session *s, rv_error *err) {
    rv_model *m = s->model;
    const rv_session_options asked = s->options;
    const bool open = rv_has_host_memory(m->be) && m->options.on_oom != RV_OOM_FAIL && (!asked.slots || m->options.on_oom == RV_OOM_DEGRADE);
    rv_status st = RV_OK;
    rv_slots_settle(&m->files.config, m->be, &m->options, &m->profile, &s->options, s->streams, room_of(m), &s->steps);
    for (uint32_t slots = s->options.slots;; slots /= 2) {
        s->options = asked;
        s->options.slots = slots;
        TRY(rv_session_resolve(&m->files.config, &s->options, err));
        if (asked.slots && s->options.slots < asked.slots) s->steps |= RV_STEP_SLOTS;
        st = take(s, err);
        if ((st != RV_ERR_DEVICE_MEMORY && st != RV_ERR_MEMORY) || !open || s->options.slots < 2) break;
        rv_model_log(m, RV_LOG_WARNING, "memory: a session of %u slots was refused, one of %u is tried: %s", s->options.slots, slots / 2, err ? err->message : "");
        give_back(s);
        s->steps |= RV_STEP_SLOTS;
    }
    if (st == RV_OK && s->steps & RV_STEP_SLOTS)
        rv_model_log(m, RV_LOG_WARNING, "memory: fewer slots, so that the session fits: %u", s->options.slots);
done:
    return st;
}

rv_status rv_session_new(rv_model *model, const rv_session_options *options, rv_session **out, rv_error *err) {
    if (!model || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_new: %s is NULL", model ? "out" : "model");
    rv_status st = RV_OK;
    pthread_condattr_t clock;
    rv_session *s = calloc(1, sizeof *s);
    if (!s) return rv_fail_memory(err, "session");
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->work, &clock);
    pthread_cond_init(&s->done, &clock);
    pthread_condattr_destroy(&clock);
    atomic_init(&s->refs, 1);
    s->queue_end = &s->queue;
    s->model = model;
    rv_model_retain(model);
    TRY(rv_abi_read(&s->options, sizeof s->options, options, "rv_session_options", err));
    TRY(rv_session_check(&model->files.config, &s->options, err));
    TRY(check_alive(model, err));
    s->streams = model->streamed.host_bytes > 0;
    s->steps = model->steps;
    TRY(take_slots(s, err));
done:
    if (st) rv_session_free(s);
    else *out = s;
    return st;
}

/* ---- the end ---- */

void rv_session_retain(rv_session *s) { atomic_fetch_add(&s->refs, 1); }

void rv_session_release(rv_session *s) {
    if (atomic_fetch_sub(&s->refs, 1) > 1) return;
    pthread_cond_destroy(&s->done);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void rv_session_end(rv_session *s) {
    if (s->slots) rv_session_cancel_all(s);
    pthread_mutex_lock(&s->lock);
    s->closed = true;                    /* pictures that live on have no pages to give back */
    free(s->free_pages);
    s->free_pages = NULL;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
    give_back(s);
    rv_model_free(s->model);
    rv_session_release(s);
}

/* Inside a callback, or while another thread steps, the step ends it when it is done (step.c: leave). */
void rv_session_free(rv_session *s) {
    if (!s) return;
    rv_session_retain(s);                /* once it is doomed, the step may be the first to end it */
    atomic_store(&s->doomed, true);
    if (!atomic_exchange(&s->stepping, true)) rv_session_end(s);
    rv_session_release(s);
}

rv_status rv_session_memory(const rv_session *s, rv_memory *out, rv_error *err) {
    if (!s) return rv_fail(err, RV_ERR_ARGUMENT, "rv_session_memory: session is NULL");
    const rv_config *config = &s->model->files.config;
    rv_memory is = { .cache = s->cache_bytes, .scratch = s->scratch_bytes, .total = s->cache_bytes + s->scratch_bytes,
                     .available = rv_load_available(&s->model->options), .fits = 1,
                     .weights_format = s->model->options.weights, .compute = s->model->options.compute,
                     .backend = s->model->options.backend,
                     .cache_per_token = rv_cache_bytes_per_token(config, s->model->be->act),
                     .cache_per_tile = rv_cache_bytes_per_tile(config, s->model->be->act),
                     .slots = s->options.slots, .context = s->options.context, .images = s->options.images, .steps = s->steps };
    return rv_abi_write(out, &is, sizeof is, "rv_memory", err);
}

/* ---- waiting ---- */

static struct timespec deadline(int32_t timeout_ms) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    t.tv_sec += timeout_ms / 1000;
    t.tv_nsec += (long)(timeout_ms % 1000) * 1000000;
    if (t.tv_nsec >= 1000000000) t.tv_sec++, t.tv_nsec -= 1000000000;
    return t;
}

/* One sleep; false when the deadline has passed. */
static bool sleep_on(pthread_cond_t *cond, pthread_mutex_t *lock, int32_t timeout_ms, const struct timespec *until) {
    return (timeout_ms < 0 ? pthread_cond_wait(cond, lock) : pthread_cond_timedwait(cond, lock, until)) != ETIMEDOUT;
}

int32_t rv_wait(rv_session *s, int32_t timeout_ms) {
    if (!s) return 0;
    struct timespec until = deadline(timeout_ms < 0 ? 0 : timeout_ms);
    rv_session_retain(s);                /* it may be freed meanwhile                            */
    pthread_mutex_lock(&s->lock);
    uint32_t wakes = s->wakes;
    while (!s->queued && !s->running && s->wakes == wakes && !s->closed)
        if (!sleep_on(&s->work, &s->lock, timeout_ms, &until)) break;
    int32_t work = s->queued || s->running;
    pthread_mutex_unlock(&s->lock);
    rv_session_release(s);
    return work;
}

void rv_wake(rv_session *s) {
    if (!s) return;
    pthread_mutex_lock(&s->lock);
    s->wakes++;
    pthread_cond_broadcast(&s->work);
    pthread_mutex_unlock(&s->lock);
}

int32_t rv_job_wait(rv_job *job, int32_t timeout_ms) {
    if (!job) return 0;
    rv_session *s = job->session;
    struct timespec until = deadline(timeout_ms < 0 ? 0 : timeout_ms);
    pthread_mutex_lock(&s->lock);
    while (atomic_load(&job->state) <= RV_JOB_RUNNING)
        if (!sleep_on(&s->done, &s->lock, timeout_ms, &until)) break;
    int32_t ended = atomic_load(&job->state) > RV_JOB_RUNNING;
    pthread_mutex_unlock(&s->lock);
    return ended;
}
