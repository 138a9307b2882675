/* picture.c - one image's tiles, and its pages in the pool. */
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"

rv_status rv_picture_open(rv_session *s, const rv_image *image, rv_picture **out, rv_error *err) {
    const rv_config *config = &s->model->files.config;
    const int32_t tile = config->vision.tile;
    double start = rv_now_ms();
    int32_t max_tiles;
    rv_pixels pixels = { 0 };
    rv_picture *p = NULL;
    rv_status st = RV_OK;
    TRY(rv_image_read(image, false, &pixels, &max_tiles, err));
    p = calloc(1, sizeof *p);
    if (!p) TRY(rv_fail_memory(err, "picture"));
    atomic_init(&p->refs, 1);
    p->canvas = rv_canvas_choose(pixels.width, pixels.height, &config->vision,
                                 max_tiles ? max_tiles : config->vision.max_tiles);
    size_t tiles = (size_t)p->canvas.rows * (size_t)p->canvas.cols;
    p->tiles = malloc(tiles * RV_CHANNELS * (size_t)tile * (size_t)tile);
    if (!p->tiles) TRY(rv_fail_memory(err, "tiles of an image"));
    TRY(rv_image_cut(&pixels, &p->canvas, tile, s->model->options.resize, p->tiles, err));
    p->work.layout = rv_vision_layout_of(&config->vision, (int32_t)tiles, p->canvas.aspect_ratio_id, s->model->weights.pads_are_equal);
    p->work.tiles = p->tiles;
    p->work.pages = p->pages;
    p->n_pages = rv_vision_pages(&p->work.layout, s->model->options.reference);
    p->image_ms = (float)(rv_now_ms() - start);
    p->session = s;
    rv_session_retain(s);
    *out = p;
done:
    rv_pixels_free(&pixels);
    if (st && p) {
        free(p->tiles);
        free(p);
    }
    return st;
}

void rv_picture_retain(rv_picture *p) { atomic_fetch_add(&p->refs, 1); }

static void give_pages_back(rv_picture *p) {
    rv_session *s = p->session;
    if (p->state == RV_PICTURE_NEW) return;
    for (int32_t i = 0; i < p->n_pages; i++) s->free_pages[s->n_free++] = p->pages[i];
    if (p->previous) p->previous->next = p->next;
    else s->held = p->next;
    if (p->next) p->next->previous = p->previous;
    p->previous = p->next = NULL;
    p->state = RV_PICTURE_NEW;
    p->work.step = 0;
}

static void hold(rv_picture *p) {
    rv_session *s = p->session;
    for (int32_t i = 0; i < p->n_pages; i++) p->pages[i] = s->free_pages[--s->n_free];
    p->state = RV_PICTURE_HELD;
    p->next = s->held;
    if (s->held) s->held->previous = p;
    s->held = p;
}

/* Pages that the job's pictures still lack; one picture may stand in a request twice. */
static int32_t pages_lacking(const rv_job *job) {
    int32_t n = 0;
    for (uint32_t i = 0; i < job->n_pictures; i++) {
        bool counted = job->pictures[i]->state != RV_PICTURE_NEW;
        for (uint32_t j = 0; j < i; j++) counted |= job->pictures[j] == job->pictures[i];
        if (!counted) n += job->pictures[i]->n_pages;
    }
    return n;
}

static bool belongs_to(const rv_picture *p, const rv_job *job) {
    for (uint32_t i = 0; i < job->n_pictures; i++)
        if (job->pictures[i] == p) return true;
    return false;
}

bool rv_pictures_hold(rv_session *s, rv_job *job) {
    int32_t lacking = pages_lacking(job);
    /* Pictures that callers keep but nobody uses now make room; they are computed again when asked for. */
    for (rv_picture *p = s->held, *next; p && s->n_free < lacking; p = next) {
        next = p->next;
        if (p->users == 0 && !belongs_to(p, job)) give_pages_back(p);
    }
    if (s->n_free < lacking) return false;
    for (uint32_t i = 0; i < job->n_pictures; i++) {
        if (job->pictures[i]->state == RV_PICTURE_NEW) hold(job->pictures[i]);
        job->pictures[i]->users++;
    }
    return true;
}

void rv_picture_release_locked(rv_picture *p) {
    if (!p || atomic_fetch_sub(&p->refs, 1) > 1) return;
    if (!p->session->closed) give_pages_back(p);
    rv_session *s = p->session;
    free(p->tiles);
    free(p);
    atomic_fetch_sub(&s->refs, 1);               /* never the last: whoever holds the lock has one too */
}

rv_status rv_picture_new(rv_session *session, const rv_image *image, rv_picture **out, rv_error *err) {
    if (!session || !image || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_picture_new: an argument is NULL");
    return rv_picture_open(session, image, out, err);
}

void rv_picture_free(rv_picture *p) {
    if (!p) return;
    rv_session *s = p->session;
    rv_session_retain(s);
    pthread_mutex_lock(&s->lock);
    rv_picture_release_locked(p);
    pthread_mutex_unlock(&s->lock);
    rv_session_release(s);
}
