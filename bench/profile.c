/* profile.c - the phases of a profile, measured: see profile.h. */
#include "bench/profile.h"

#include <stdlib.h>
#include <string.h>

enum { LEAST_PAGES = 6, PAGES_A_SLOT = 3, SAMPLE_MS = 10 };

/* ---- how much of the device is in use ---- */

static uint64_t device_used(const profile_run *p) {
    uint64_t used = 0;
    rv_device d = { .size = sizeof d };
    rv_error err;
    if (power_used(p->power, &used)) return used > p->used_before ? used - p->used_before : 0;
    if (rv_device_get(RV_BACKEND_CUDA, (uint32_t)p->r->device.index, &d, &err)) return 0;
    return d.memory_total - d.memory_free;
}

static void sample(const profile_run *p, phase *f) {
    uint64_t used = device_used(p);
    if (used > f->peak) f->peak = used;
}

typedef struct watcher { const profile_run *p; phase *f; double last; } watcher;

/* While weights are loaded more of the device is in use than afterwards. */
static int32_t on_progress(void *user, float done) {
    watcher *w = user;
    (void)done;
    if (now_ms() - w->last > SAMPLE_MS) sample(w->p, w->f), w->last = now_ms();
    return interrupted();
}

/* ---- pages ---- */

typedef struct reading {
    double   submitted, first, last;     /* ms                                                  */
    uint32_t n;
    rv_job  *job;
} reading;

static int32_t on_token(void *user, rv_job *job, const rv_token *token) {
    reading *a = user;
    (void)job, (void)token;
    a->last = now_ms();
    if (a->n++ == 0) a->first = a->last;
    return 0;
}

/* A page of its own, image and all: nothing is shared with another. */
static rv_status submit_page(run *r, uint32_t tokens, reading *a, rv_error *err) {
    question q;
    rv_picture *picture;
    *a = (reading){ .submitted = now_ms() };
    rv_status st = rv_picture_new(r->session, &r->image, &picture, err);
    if (st) return st;
    question_of(&q, picture, r->prompt, tokens);
    q.request.on_token = on_token;
    q.request.user = a;
    st = rv_submit(r->session, &q.request, &a->job, err);
    rv_picture_free(picture);
    return st;
}

/* The job has ended well, and its answer has the length that was asked for. */
static rv_status finish(const reading *a, uint32_t tokens, rv_error *err) {
    rv_status st = rv_job_get_error(a->job, err);
    if (st == RV_OK && a->n != tokens) st = fail(err, RV_ERR_INTERNAL, "an answer of %u tokens came, %u were asked for", a->n, tokens);
    return st;
}

static rv_status step_to_end(run *r, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t active = 1; st == RV_OK && active;) {
        if (interrupted()) return fail(err, RV_ERR_CANCELLED, "interrupted");
        st = rv_step(r->session, &active, err);
    }
    return st;
}

static rv_status one_page(profile_run *p, phase *f, bool keep, rv_error *err) {
    run *r = p->r;
    reading a;
    rv_stats s = { .size = sizeof s };
    rv_status st = submit_page(r, (uint32_t)r->o.tokens, &a, err);
    if (st == RV_OK) st = step_to_end(r, err);
    if (st == RV_OK) st = finish(&a, (uint32_t)r->o.tokens, err);
    if (st == RV_OK) st = rv_job_get_stats(a.job, &s);
    if (st == RV_OK && keep) {
        series_add(&f->page, a.last - a.submitted);
        series_add(&f->vision, (double)s.vision_ms);
        series_add(&f->prefill, (double)s.prefill_ms);
        series_add(&f->first_token, a.first - a.submitted);
        series_add(&f->decode, (a.n - 1) * 1e3 / (a.last - a.first));
    }
    rv_job_free(a.job);
    return st;
}

static rv_status many_pages(profile_run *p, phase *f, rv_error *err) {
    run *r = p->r;
    reading *a = calloc(f->pages, sizeof *a);
    rv_status st = a ? RV_OK : fail(err, RV_ERR_MEMORY, "pages: out of memory");
    double before = 0, after = 0, start = now_ms();
    bool counted = power_joules(p->power, &before);
    for (uint32_t i = 0; st == RV_OK && i < f->pages; i++) st = submit_page(r, (uint32_t)r->o.tokens, &a[i], err);
    if (st == RV_OK) st = step_to_end(r, err);
    f->batch_ms = now_ms() - start;
    if (counted && power_joules(p->power, &after)) f->joules = after - before, f->watts = f->joules / f->batch_ms * 1e3;
    for (uint32_t i = 0; a && i < f->pages; i++) {
        if (st == RV_OK) st = finish(&a[i], (uint32_t)r->o.tokens, err);
        rv_job_free(a[i].job);
    }
    free(a);
    return st;
}

/* ---- a phase ---- */

static rv_load_options options_of(profile_run *p, phase *f, watcher *w) {
    rv_load_options o = load_options(&p->r->o.load);
    o.context = p->r->context;                           /* as the session below                 */
    o.slots = f->slots_asked;
    if (f->asked != RV_WEIGHTS_AUTO) o.weights = f->asked;
    o.progress = on_progress;
    o.progress_user = w;
    return o;
}

/* The plan of the profile's own GPU, then the same on this one. */
static rv_status load(profile_run *p, phase *f, rv_error *err) {
    run *r = p->r;
    watcher w = { p, f, 0 };
    rv_load_options o = options_of(p, f, &w);
    uint32_t most = f->slots_asked ? f->slots_asked : 64;
    rv_session_options room = { .size = sizeof room, .slots = f->slots_asked, .queue = PAGES_A_SLOT * most + LEAST_PAGES, .context = r->context };
    f->plan.size = f->model.size = f->session.size = sizeof f->plan;
    rv_load_options silent = o;
    silent.log = NULL;                                   /* loading says the same                */
    rv_status st = rv_memory_plan(r->o.load.model, &silent, &room, &f->plan, err);
    if (st) return st;
    double start = now_ms();
    if ((st = rv_model_load(r->o.load.model, &o, &r->model, err))) return st;
    f->load_ms = now_ms() - start;
    start = now_ms();
    room.slots = f->plan.slots;
    room.images = f->plan.images;
    if ((st = rv_session_new(r->model, &room, &r->session, err))) return st;
    f->session_ms = now_ms() - start;
    sample(p, f);
    if ((st = rv_model_memory(r->model, &f->model, err))) return st;
    return rv_session_memory(r->session, &f->session, err);
}

static rv_status make_prompt(run *r, rv_error *err) {
    rv_picture *picture = NULL;
    rv_status st = rv_picture_new(r->session, &r->image, &picture, err);
    free(r->prompt);
    r->prompt = NULL;
    if (st == RV_OK) st = prompt_of(r->session, picture, (uint32_t)r->o.prompt, &r->prompt, &r->prompt_tokens, err);
    rv_picture_free(picture);
    return st;
}

static rv_status measure(profile_run *p, phase *f, rv_error *err) {
    run *r = p->r;
    rv_cost cost = { .size = sizeof cost };
    rv_status st = load(p, f, err);
    if (st == RV_OK) st = make_prompt(r, err);
    if (st == RV_OK) st = one_page(p, f, false, err);
    for (uint64_t i = 0; st == RV_OK && i < r->o.repeat; i++) st = one_page(p, f, true, err);
    sample(p, f);
    uint32_t pages = PAGES_A_SLOT * f->session.slots;
    if (pages < LEAST_PAGES) pages = LEAST_PAGES;
    f->pages = pages > MOST_PAGES ? MOST_PAGES : pages;
    if (st == RV_OK) st = many_pages(p, f, err);
    sample(p, f);
    if (st == RV_OK) st = rv_model_cost(r->model, r->tiles, r->prompt_tokens + (uint32_t)r->o.tokens / 2, &cost, err);
    f->decode_bytes = (double)cost.decode_bytes;
    f->measured = st == RV_OK;
    return st;
}

/* What is there can do at most; before the phases, so that nothing else is on it. */
static rv_status measure_device(run *r, rv_error *err) {
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CUDA, .device = (int32_t)r->o.load.device };
    r->before.size = sizeof r->before;
    return rv_measure_ceilings(&load, &r->before, err);
}

rv_status profile_measure(profile_run *p, rv_error *err) {
    rv_status st = measure_device(p->r, err);
    for (int i = 0; st == RV_OK && i < PHASES; i++) {
        say("rvbench: %s ..", p->phases[i].title);
        st = measure(p, &p->phases[i], err);
        rv_session_free(p->r->session);
        rv_model_free(p->r->model);
        p->r->session = NULL;
        p->r->model = NULL;
    }
    return st;
}
