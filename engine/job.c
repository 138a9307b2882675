/* job.c - a request becomes a job; a job collects its answer. */
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/session.h"
#include "extract/guide.h"

/* ---- from request to job ---- */

typedef rv_status (*image_fn)(void *user, const rv_image *image, rv_picture *picture, rv_error *err);

/* Every image of the request, in the order of its <|image|> tokens. */
static rv_status each_image(const rv_request *r, image_fn each, void *user, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; st == RV_OK && i < r->n_images; i++)
        if ((st = each(user, rv_abi_at(r->images, i), NULL, err))) rv_fail_in(err, st, "image %u", i + 1);
    for (uint32_t m = 0; st == RV_OK && m < r->n_messages; m++) {
        rv_message message;
        st = rv_abi_read(&message, sizeof message, rv_abi_at(r->messages, m), "rv_message", err);
        for (uint32_t i = 0; st == RV_OK && i < message.n_parts; i++) {
            rv_part part;
            st = rv_abi_read(&part, sizeof part, rv_abi_at(message.parts, i), "rv_part", err);
            if (st == RV_OK && (part.image || part.picture) && (st = each(user, part.image, part.picture, err)))
                rv_fail_in(err, st, "message %u, part %u", m + 1, i + 1);
        }
    }
    return st;
}

static rv_status count_image(void *user, const rv_image *image, rv_picture *picture, rv_error *err) {
    (void)image, (void)picture, (void)err;
    ++*(uint32_t *)user;
    return RV_OK;
}

static rv_status add_picture(void *user, const rv_image *image, rv_picture *picture, rv_error *err) {
    rv_job *job = user;
    rv_status st = RV_OK;
    if (!picture) {
        st = rv_picture_open(job->session, image, &picture, err);
        if (st == RV_OK) job->stats.image_ms += picture->image_ms;
    } else if (picture->session != job->session)
        st = rv_fail(err, RV_ERR_ARGUMENT, "rv_part.picture: belongs to another session");
    else rv_picture_retain(picture);
    if (st) return st;
    job->pictures[job->n_pictures++] = picture;
    job->stats.images++;
    job->stats.tiles += (uint32_t)picture->work.layout.tiles;
    job->stats.image_tokens += (uint32_t)(picture->work.layout.tiles * job->session->model->files.config.vision.tokens);
    return RV_OK;
}

static rv_status take_pictures(rv_job *job, const rv_request *r, rv_error *err) {
    uint32_t n = 0;
    rv_status st = each_image(r, count_image, &n, err);
    if (st || n == 0) return st;
    job->pictures = calloc(n, sizeof *job->pictures);
    if (!job->pictures) return rv_fail_memory(err, "images");
    if ((st = each_image(r, add_picture, job, err))) return st;
    int32_t pages = 0, pool = job->session->cache.tile_pages;
    for (uint32_t i = 0; i < n; i++) pages += job->pictures[i]->n_pages;
    if (pages > pool)
        return rv_fail(err, RV_ERR_TOO_LONG, "the request's %u images take %d tiles, the session holds %d: make the session with "
                       "more images, or lower max_tiles", n, pages, pool);
    return RV_OK;
}

static rv_status take_sampling(rv_job *job, const rv_request *r, rv_error *err) {
    const rv_generation *g = &job->session->model->files.config.generation;
    rv_sampling *s = &job->sampling;
    *s = (rv_sampling){ r->temperature, r->top_k ? r->top_k : (uint32_t)g->top_k, r->top_p != 0 ? r->top_p : g->top_p,
                        r->repetition_penalty != 0 ? r->repetition_penalty : g->repetition_penalty, r->seed };
    if (s->top_k == 0) s->top_k = UINT32_MAX;
    if (!(s->temperature >= 0 && s->temperature <= 100)) return rv_fail(err, RV_ERR_ARGUMENT, "temperature: must be from 0 to 100, is %g", (double)s->temperature);
    if (s->temperature > 0 && s->temperature < 1e-4f) s->temperature = 0;
    if (!(s->top_p > 0 && s->top_p <= 1)) return rv_fail(err, RV_ERR_ARGUMENT, "top_p: must be above 0 and at most 1, is %g", (double)s->top_p);
    if (!(s->repetition_penalty > 0 && s->repetition_penalty <= 100)) return rv_fail(err, RV_ERR_ARGUMENT, "repetition_penalty: must be above 0 and at most 100, is %g", (double)s->repetition_penalty);
    return RV_OK;
}

static rv_status take_stops(rv_job *job, const rv_request *r, rv_error *err) {
    if (r->n_stop == 0) return RV_OK;
    if (!r->stop) return rv_fail(err, RV_ERR_ARGUMENT, "rv_request.stop: is NULL, n_stop is %u", r->n_stop);
    job->stop = calloc(r->n_stop, sizeof *job->stop);
    if (!job->stop) return rv_fail_memory(err, "stop strings");
    for (; job->n_stop < r->n_stop; job->n_stop++) {
        const char *text = r->stop[job->n_stop];
        if (!text || !*text) return rv_fail(err, RV_ERR_ARGUMENT, "rv_request.stop[%u]: is %s", job->n_stop, text ? "empty" : "NULL");
        if (!(job->stop[job->n_stop] = strdup(text))) return rv_fail_memory(err, "stop strings");
    }
    return RV_OK;
}

static rv_status take_prompt(rv_job *job, const rv_request *r, rv_error *err) {
    const rv_files *f = &job->session->model->files;
    rv_status st = rv_prompt_ids(&f->style, f->tokenizer, &f->config, r, &job->prompt, err);
    if (st) return st;
    uint32_t context = job->session->options.context;
    if (job->prompt.count == 0) return rv_fail(err, RV_ERR_ARGUMENT, "the prompt is empty");
    if (job->prompt.count >= context)
        return rv_fail(err, RV_ERR_TOO_LONG, "the prompt has %zu tokens; the session's context is %u, answer included: "
                       "shorten it or make the session with more context", job->prompt.count, context);
    job->limit = (int32_t)(context - job->prompt.count);
    if (r->max_tokens && r->max_tokens < (uint32_t)job->limit) job->limit = (int32_t)r->max_tokens;
    job->sight = malloc(job->prompt.count * sizeof *job->sight);
    job->answer.data = malloc((size_t)job->limit * sizeof *job->answer.data);
    job->answer.capacity = (size_t)job->limit;
    job->logprobs = malloc((size_t)job->limit * sizeof *job->logprobs);
    if (!job->sight || !job->answer.data || !job->logprobs) return rv_fail_memory(err, "answer");
    rv_text_sight(job->prompt.data, (int32_t)job->prompt.count, f->config.image_token, job->sight);
    job->stats.prompt_tokens = (uint32_t)job->prompt.count;
    return RV_OK;
}

/* Before anything has run, the answer begins with the first key: it is read with the prompt. */
static rv_status take_constraint(rv_job *job, const rv_request *r, rv_error *err) {
    rv_session *s = job->session;
    if (!r->constraint) return RV_OK;
    if (s->runs_ahead && rv_guide_bytes(&r->constraint->guide) > s->options.constraint_bytes)
        return rv_fail(err, RV_ERR_TOO_LONG, "rv_request.constraint: its tables have %llu bytes, the session has room for %llu: make it with more constraint_bytes",
                       (unsigned long long)rv_guide_bytes(&r->constraint->guide), (unsigned long long)s->options.constraint_bytes);
    if (r->n_stop) return rv_fail(err, RV_ERR_ARGUMENT, "rv_request.stop: a constrained answer ends by itself");
    return rv_guided_new(r->constraint, s->model->files.tokenizer, &job->guided, err);
}

/* *out is set under the lock: the job may run, end and be freed by its on_done before this returns. */
static rv_status enqueue(rv_job *job, rv_job **out, rv_error *err) {
    rv_session *s = job->session;
    rv_status st = RV_OK;
    pthread_mutex_lock(&s->lock);
    if (atomic_load(&s->doomed))         /* an on_done that asks again and again must not keep it alive */
        st = rv_fail(err, RV_ERR_CANCELLED, "the session is being freed");
    else if (s->queued >= s->options.queue)
        st = rv_fail(err, RV_ERR_FULL, "%u requests are waiting already: step the session, then submit again", s->queued);
    else {
        *out = job;
        atomic_fetch_add(&job->refs, 1);
        *s->queue_end = job;
        s->queue_end = &job->next;
        s->queued++;
        pthread_cond_broadcast(&s->work);
    }
    pthread_mutex_unlock(&s->lock);
    return st;
}

rv_status rv_submit(rv_session *session, const rv_request *request, rv_job **out, rv_error *err) {
    if (!session || !request || !out)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_submit: %s is NULL", !session ? "session" : !request ? "request" : "out");
    rv_status st = RV_OK;
    rv_request r;
    if ((st = rv_abi_read(&r, sizeof r, request, "rv_request", err))) return st;
    rv_job *job = calloc(1, sizeof *job);
    if (!job) return rv_fail_memory(err, "job");
    job->session = session;
    rv_session_retain(session);
    job->submitted_ms = rv_now_ms();
    atomic_init(&job->refs, 1);
    job->flags = r.flags;
    job->on_token = r.on_token;
    job->on_done = r.on_done;
    job->user = r.user;
    job->slot = -1;
    TRY(take_prompt(job, &r, err));
    TRY(take_sampling(job, &r, err));
    TRY(take_stops(job, &r, err));
    TRY(take_pictures(job, &r, err));
    TRY(take_constraint(job, &r, err));
    TRY(enqueue(job, out, err));
done:
    if (st) rv_job_release(job);
    return st;
}

/* ---- the answer ---- */

/* Where in text[from..] the first stop string begins, or SIZE_MAX. */
static size_t find_stop(const rv_job *job, size_t from) {
    size_t first = SIZE_MAX;
    for (uint32_t i = 0; i < job->n_stop; i++) {
        const char *at = memmem(job->text.data + from, job->text.bytes - from, job->stop[i], strlen(job->stop[i]));
        if (at && (size_t)(at - job->text.data) < first) first = (size_t)(at - job->text.data);
    }
    return first;
}

/* Bytes at the end of the text that may be the beginning of a stop string. */
static size_t held_back(const rv_job *job) {
    size_t most = 0;
    for (uint32_t i = 0; i < job->n_stop; i++) {
        size_t n = strlen(job->stop[i]) - 1, unsent = job->text.bytes - job->sent;
        for (n = n < unsent ? n : unsent; n > most; n--)
            if (!memcmp(job->text.data + job->text.bytes - n, job->stop[i], n)) most = n;
    }
    return most;
}

static bool ends_with_id(const rv_job *job, int32_t id) {
    const rv_generation *g = &job->session->model->files.config.generation;
    for (int32_t i = 0; !(job->flags & RV_REQUEST_IGNORE_STOP) && i < g->n_eos; i++)
        if (g->eos[i] == id) return true;
    return false;
}

bool rv_job_push(rv_job *job, int32_t id, float logprob, uint32_t how, rv_job_state *state) {
    size_t index = job->answer.count;
    job->answer.data[index] = id;
    job->logprobs[index] = logprob;
    job->answer.count++;
    job->stats.answer_tokens++;
    job->stats.forced_tokens += how & RV_PUSH_FORCED;
    rv_text_stream_push(&job->stream, job->session->model->files.tokenizer, id, true, &job->text);
    bool ended = how & RV_PUSH_LAST || ends_with_id(job, id), full = !ended && job->answer.count == (size_t)job->limit;
    if (ended || full) rv_text_stream_end(&job->stream, &job->text);
    size_t stop = job->text.bytes > job->sent ? find_stop(job, job->sent) : SIZE_MAX;
    if (stop != SIZE_MAX) {
        job->text.bytes = stop;
        job->text.data[stop] = '\0';
        ended = true;
    }
    *state = ended ? RV_JOB_COMPLETE : RV_JOB_CUT_SHORT;
    size_t upto = job->text.bytes - (ended || full ? 0 : held_back(job));
    rv_token token = { .size = sizeof token, .id = id, .index = (uint32_t)index, .text = rv_string_text(&job->text) + job->sent,
                       .bytes = upto - job->sent, .logprob = logprob, .forced = how & RV_PUSH_FORCED };
    job->sent = upto;
    if (job->text.failed) {
        rv_fail_memory(&job->error, "text of the answer");
        *state = RV_JOB_FAILED;
        return false;
    }
    if (job->on_token && job->on_token(job->user, job, &token) && !ended && !full) {
        *state = RV_JOB_CANCELLED;
        return false;
    }
    return !ended && !full;
}

bool rv_job_take(rv_job *job, rv_best best, rv_job_state *state) {
    return job->guided ? rv_guided_take(job, best, state) : rv_job_push(job, best.id, best.logprob, 0, state);
}

/* ---- handles and getters ---- */

void rv_job_release(rv_job *job) {
    if (atomic_fetch_sub(&job->refs, 1) > 1) return;
    rv_session *s = job->session;
    pthread_mutex_lock(&s->lock);
    for (uint32_t i = 0; i < job->n_pictures; i++) rv_picture_release_locked(job->pictures[i]);
    pthread_mutex_unlock(&s->lock);
    for (uint32_t i = 0; i < job->n_stop; i++) free(job->stop[i]);
    free(job->stop);
    rv_guided_free(job->guided);
    free(job->pictures);
    free(job->sight);
    free(job->logprobs);
    rv_ids_free(&job->prompt);
    rv_ids_free(&job->answer);
    rv_string_free(&job->text);
    free(job);
    rv_session_release(s);
}

void rv_cancel(rv_job *job) {
    if (!job) return;
    atomic_store(&job->cancel, true);
}

void rv_job_free(rv_job *job) {
    if (!job) return;
    atomic_store(&job->cancel, true);
    rv_job_release(job);
}

rv_job_state rv_job_get_state(const rv_job *job) { return job ? atomic_load(&job->state) : RV_JOB_FAILED; }

rv_status rv_job_get_error(const rv_job *job, rv_error *err) {
    if (!job) return rv_fail(err, RV_ERR_ARGUMENT, "rv_job_get_error: job is NULL");
    if (atomic_load(&job->state) <= RV_JOB_RUNNING) return rv_fail(err, RV_ERR_BUSY, "the job has not ended");
    if (err) *err = job->error;
    return job->error.code;
}

const char *rv_job_text(const rv_job *job, size_t *bytes) {
    if (bytes) *bytes = job ? job->text.bytes : 0;
    return job ? rv_string_text(&job->text) : "";
}

uint32_t rv_job_tokens(const rv_job *job, const int32_t **ids, const float **logprobs) {
    if (ids) *ids = job ? job->answer.data : NULL;
    if (logprobs) *logprobs = job ? job->logprobs : NULL;
    return job ? (uint32_t)job->answer.count : 0;
}

uint32_t rv_job_prompt(const rv_job *job, const int32_t **ids) {
    if (ids) *ids = job ? job->prompt.data : NULL;
    return job ? (uint32_t)job->prompt.count : 0;
}

rv_status rv_job_get_stats(const rv_job *job, rv_stats *out) {
    if (!job) return RV_ERR_ARGUMENT;
    return rv_abi_write(out, &job->stats, sizeof job->stats, "rv_stats", NULL);
}
