/* run_stages.c - requests, and how long each of their stages takes.
 *
 * The one idea: times of stages are the library's own (rv_stats); what a caller waits for, the first token and
 * the pace of the following ones, is measured here, where the caller stands.
 */
#include <stdio.h>
#include <stdlib.h>

#include "bench/run.h"

/* ---- one request ------------------------------------------------------------------------------ */

typedef struct answer {
    double  *at, submitted;              /* when each token came                                */
    uint32_t n, most;
    rv_job  *job;
    rv_stats stats;
} answer;

static int32_t on_token(void *user, rv_job *job, const rv_token *token) {
    answer *a = user;
    (void)job, (void)token;
    if (a->n < a->most) a->at[a->n++] = now_ms();
    return 0;
}

static rv_status submit(rv_session *s, rv_picture *picture, const char *text, uint32_t tokens, answer *a, rv_error *err) {
    question q;
    *a = (answer){ .most = tokens, .at = malloc(tokens * sizeof *a->at), .stats = { .size = sizeof a->stats } };
    if (!a->at) return fail(err, RV_ERR_MEMORY, "answer: out of memory");
    question_of(&q, picture, text, tokens);
    q.request.on_token = on_token;
    q.request.user = a;
    a->submitted = now_ms();
    return rv_submit(s, &q.request, &a->job, err);
}

static rv_status step_to_end(rv_session *s, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t active = 1; st == RV_OK && active;) {
        if (interrupted()) return fail(err, RV_ERR_CANCELLED, "interrupted");
        st = rv_step(s, &active, err);
    }
    return st;
}

/* The job has ended well, and its answer has the length that was asked for. */
static rv_status finish(answer *a, rv_error *err) {
    rv_status st = rv_job_get_error(a->job, err);
    if (st == RV_OK) st = rv_job_get_stats(a->job, &a->stats);
    if (st == RV_OK && a->n != a->most) st = fail(err, RV_ERR_INTERNAL, "an answer of %u tokens came, %u were asked for", a->n, a->most);
    return st;
}

static void drop(answer *a) {
    rv_job_free(a->job);
    free(a->at);
    *a = (answer){ 0 };
}

static rv_status ask(rv_session *s, rv_picture *picture, const char *text, uint32_t tokens, answer *a, rv_error *err) {
    rv_status st = submit(s, picture, text, tokens, a, err);
    if (st == RV_OK) st = step_to_end(s, err);
    if (st == RV_OK) st = finish(a, err);
    return st;
}

/* ---- what the stages need ---------------------------------------------------------------------- */

static rv_cost cost_of(const run *r, uint32_t tiles, uint32_t tokens) {
    rv_cost cost = { .size = sizeof cost };
    rv_error err;
    if (rv_model_cost(r->model, tiles, tokens, &cost, &err)) cost = (rv_cost){ 0 };
    return cost;
}

static void add_vision(run *r, const rv_stats *s, double first_token) {
    rv_cost cost = cost_of(r, s->tiles, s->prompt_tokens);
    const char *plural = s->tiles == 1 ? "" : "s";
    need tower = { cost.tower_flop, (double)cost.tower_bytes };
    need vision = { cost.vision_flop, (double)cost.vision_bytes }, prefill = { cost.prefill_flop, (double)cost.prefill_bytes };
    char name[40];
    snprintf(name, sizeof name, "vision_%u", s->tiles);
    result *to = run_result(r, "ms", name, "vision, %u tile%s", s->tiles, plural);
    series_add(&to->values, (double)s->vision_ms);
    to->needs[0] = vision;
    snprintf(name, sizeof name, "tower_%u", s->tiles);
    to = run_result(r, "ms", name, "its tower alone, %u tile%s", s->tiles, plural);
    series_add(&to->values, (double)s->tower_ms);
    to->needs[0] = tower;
    snprintf(name, sizeof name, "first_token_%u", s->tiles);
    to = run_result(r, "ms", name, "first token, %u tile%s, %u tokens", s->tiles, plural, s->prompt_tokens);
    series_add(&to->values, first_token);
    to->needs[0] = vision;
    to->needs[1] = prefill;
}

static void add_prefill(run *r, const rv_stats *s) {
    rv_cost cost = cost_of(r, s->tiles, s->prompt_tokens);
    char name[40];
    snprintf(name, sizeof name, "prefill_%u%s", s->prompt_tokens, s->tiles ? "_image" : "");
    result *to = run_result(r, "ms", name, "prefill of %u tokens, %s", s->prompt_tokens, s->tiles ? "image" : "text only");
    series_add(&to->values, (double)s->prefill_ms);
    to->needs[0] = (need){ cost.prefill_flop, (double)cost.prefill_bytes };
}

/* A step reads the weights once and every sequence's keys; half of the answer stands behind the prompt. */
static void add_decode(run *r, const rv_stats *s, uint32_t batch, uint32_t tokens, double tokens_s) {
    rv_cost cost = cost_of(r, s->tiles, s->prompt_tokens + tokens / 2);
    double weights = (double)cost.decode_weight_bytes;
    char name[40];
    snprintf(name, sizeof name, "decode_%u", batch);
    result *to = run_result(r, "tok/s", name, "decode, %u sequence%s, %u tile%s", batch, batch == 1 ? "" : "s", s->tiles, s->tiles == 1 ? "" : "s");
    series_add(&to->values, tokens_s);
    to->rows = batch;
    to->needs[0] = (need){ batch * cost.decode_flop, weights + batch * ((double)cost.decode_bytes - weights) };
}

/* ---- stages ------------------------------------------------------------------------------------ */

static rv_status read_image(run *r, const rv_image *image, const char *name, const char *title, rv_picture **out, rv_error *err) {
    double start = now_ms();
    rv_picture *picture;
    rv_status st = rv_picture_new(r->session, image, &picture, err);
    double ms = now_ms() - start;
    if (st) return st;
    if (name) series_add(&run_result(r, "ms", name, "%s", title)->values, ms);
    if (out) *out = picture;
    else rv_picture_free(picture);
    return RV_OK;
}

static rv_status read_images(run *r, rv_error *err) {
    const page *p = &r->page;
    rv_image png = { .size = sizeof png, .data = p->png, .bytes = p->png_bytes };
    rv_image jpeg = { .size = sizeof jpeg, .data = p->jpeg, .bytes = p->jpeg_bytes };
    char title[56];
    rv_status st = RV_OK;
    if (r->o.image) return read_image(r, &r->image, "image_file", "image, file to tiles", NULL, err);
    snprintf(title, sizeof title, "image, %u x %u PNG to tiles", p->width, p->height);
    st = read_image(r, &png, "image_png", title, NULL, err);
    snprintf(title, sizeof title, "image, %u x %u JPEG to tiles", p->width, p->height);
    if (st == RV_OK) st = read_image(r, &jpeg, "image_jpeg", title, NULL, err);
    if (st == RV_OK) st = read_image(r, &r->image, "image_pixels", "image, pixels to tiles", NULL, err);
    return st;
}

/* A picture that is decoded already, a question about it, and `tokens` tokens of answer. */
static rv_status see(run *r, const rv_image *image, uint32_t tokens, bool keep, rv_error *err) {
    rv_picture *picture = NULL;
    answer a = { 0 };
    rv_status st = read_image(r, image, NULL, NULL, &picture, err);
    if (st == RV_OK) st = ask(r->session, picture, r->prompt, tokens, &a, err);
    if (st == RV_OK && keep) {
        add_vision(r, &a.stats, a.at[0] - a.submitted);
        if (tokens > 1) {
            add_prefill(r, &a.stats);
            add_decode(r, &a.stats, 1, tokens, (tokens - 1) * 1e3 / (a.at[tokens - 1] - a.at[0]));
        }
    } else if (st == RV_OK && tokens > 1) {                /* what loading did not see to */
        series_add(&run_result(r, "ms", "vision_first", "vision, first image of the process")->values, (double)a.stats.vision_ms);
        series_add(&run_result(r, "ms", "prefill_first", "prefill, first prompt of the process")->values, (double)a.stats.prefill_ms);
    }
    drop(&a);
    rv_picture_free(picture);
    return st;
}

static rv_status read_text(run *r, const char *text, bool keep, rv_error *err) {
    answer a = { 0 };
    rv_status st = text ? ask(r->session, NULL, text, 1, &a, err) : RV_OK;
    if (st == RV_OK && text && keep) add_prefill(r, &a.stats);
    drop(&a);
    return st;
}

static rv_status repeat_once(run *r, bool keep, rv_error *err) {
    rv_status st = keep ? read_images(r, err) : RV_OK;
    if (st == RV_OK) st = see(r, &r->image, keep ? (uint32_t)r->o.tokens : 2, keep, err);
    if (st == RV_OK && r->tiles > 1) st = see(r, &r->single, 1, keep, err);
    if (st == RV_OK) st = read_text(r, r->text_prompt, keep, err);
    if (st == RV_OK) st = read_text(r, r->long_prompt, keep, err);
    return st;
}

/* ---- several sequences -------------------------------------------------------------------------- */

/* Tokens a second while all of them answer: from the last one's first token to the first one's last. */
static double common_pace(const answer *a, uint32_t batch) {
    double from = 0, to = 1e300;
    uint32_t tokens = 0;
    for (uint32_t i = 0; i < batch; i++) {
        if (a[i].at[0] > from) from = a[i].at[0];
        if (a[i].at[a[i].n - 1] < to) to = a[i].at[a[i].n - 1];
    }
    for (uint32_t i = 0; i < batch; i++)
        for (uint32_t k = 0; k < a[i].n; k++) tokens += a[i].at[k] > from && a[i].at[k] <= to;
    return to > from ? tokens * 1e3 / (to - from) : 0;
}

/* While one sequence after the other reads its prompt, those before it answer already: they get that much more to say. */
static rv_status answer_together(run *r, rv_session *s, uint32_t batch, bool keep, rv_error *err) {
    answer a[64] = { { 0 } };
    rv_picture *picture = NULL;
    uint32_t tokens = (uint32_t)r->o.tokens + 2 * batch;
    rv_status st = rv_picture_new(s, &r->image, &picture, err);
    for (uint32_t i = 0; st == RV_OK && i < batch; i++) st = submit(s, picture, r->prompt, tokens, &a[i], err);
    if (st == RV_OK) st = step_to_end(s, err);
    for (uint32_t i = 0; st == RV_OK && i < batch; i++) st = finish(&a[i], err);
    if (st == RV_OK && keep) add_decode(r, &a[0].stats, batch, tokens, common_pace(a, batch));
    for (uint32_t i = 0; i < batch; i++) drop(&a[i]);
    rv_picture_free(picture);
    return st;
}

static rv_status measure_batch(run *r, uint32_t batch, rv_error *err) {
    rv_session_options room = run_room(r, batch);
    rv_session *s;
    rv_status st = rv_session_new(r->model, &room, &s, err);
    if (st) return st;
    for (uint64_t i = 0; st == RV_OK && i <= r->o.repeat; i++) st = answer_together(r, s, batch, i > 0, err);
    rv_session_free(s);
    return st;
}

/* ---- all of it ---------------------------------------------------------------------------------- */

static rv_status make_prompts(run *r, rv_error *err) {
    rv_picture *picture = NULL;
    rv_status st = rv_picture_new(r->session, &r->single, &picture, err);
    if (st) return st;
    uint32_t most = r->context - 2, longest = r->o.long_prompt < most ? (uint32_t)r->o.long_prompt : most;
    st = prompt_of(r->session, picture, (uint32_t)r->o.prompt, &r->prompt, &r->prompt_tokens, err);
    if (st == RV_OK) st = prompt_of(r->session, NULL, (uint32_t)r->o.prompt, &r->text_prompt, &r->text_tokens, err);
    if (st == RV_OK && longest) st = prompt_of(r->session, NULL, longest, &r->long_prompt, &r->long_tokens, err);
    rv_picture_free(picture);
    return st;
}

rv_status run_stages(run *r, rv_error *err) {
    rv_device now = { .size = sizeof now };
    rv_error unused;
    rv_status st = make_prompts(r, err);
    if (st == RV_OK) st = repeat_once(r, false, err);
    for (uint64_t i = 0; st == RV_OK && i < r->o.repeat; i++) st = repeat_once(r, true, err);
    if (r->device.backend == RV_BACKEND_CUDA && !rv_device_get(RV_BACKEND_CUDA, (uint32_t)r->device.index, &now, &unused))
        r->memory.free_after = now.memory_free;
    rv_session_free(r->session);
    r->session = NULL;
    for (size_t i = 0; st == RV_OK && i < r->batches.count; i++)
        if (r->batches.n[i] > 1) st = measure_batch(r, r->batches.n[i], err);
    return st;
}
