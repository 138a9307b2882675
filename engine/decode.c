/* decode.c - the answering jobs' pass: one row each, recorded once where the backend can.
 *
 * The one idea: a decode step differs from the one before only in numbers that lie in device memory (ids,
 * positions, key ranges), so its operations are recorded once per row count and played back; row counts
 * are rounded up to a power of two with rows that see nothing and store nothing.
 */
#include "engine/session.h"

static int32_t size_index(int32_t n) {
    int32_t i = 0;
    while (1 << i < n) i++;
    return i;
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

static void set_bounds(const rv_session *s, rv_text_rows *rows, bool images) {
    rows->images = images;
    rows->longest_self = s->cache.context;
    rows->longest_image = s->cache.tile_pages * s->model->files.config.vision.tokens;
}

rv_status rv_decode_record(rv_session *s, rv_error *err) {
    rv_backend *be = s->model->be;
    rv_status st = RV_OK;
    if (!rv_can_record(be)) return RV_OK;
    pthread_mutex_lock(&s->model->device);
    for (int32_t i = 0; st == RV_OK && i <= size_index(s->cache.slots); i++)
        for (int images = 0; st == RV_OK && images < 2; images++) {
            rv_text_rows rows = { .n = 1 << i, .apart = true };
            if (rows.n > s->cache.slots) rows.n = s->cache.slots;        /* the last one: as many as there are slots */
            set_bounds(s, &rows, images);
            rv_record(be);
            rv_text_queue(&s->text, &rows, 0, rows.n);
            rv_best_rows(be, s->text_scratch.best, rv_rows(s->text_scratch.logits, 0, rows.n));
            s->tapes[i][images] = rv_recorded(be);
            st = rv_finish(be, err);
        }
    pthread_mutex_unlock(&s->model->device);
    return st;
}

void rv_decode_erase(rv_session *s) {
    for (int32_t i = 0; i < RV_TAPE_SIZES; i++)
        for (int images = 0; images < 2; images++) rv_erase(s->model->be, s->tapes[i][images]);
}

rv_status rv_decode_run(rv_session *s, rv_text_rows *rows, bool all_greedy, rv_best *best, bool *has_best, rv_error *err) {
    rv_backend *be = s->model->be;
    int32_t n = rows->n, size = size_index(n);
    rv_tape *tape = s->tapes[size][rows->images];
    pthread_mutex_lock(&s->model->device);
    if (tape) {
        pad_rows(rows, 1 << size < s->cache.slots ? 1 << size : s->cache.slots);
        rv_text_upload(&s->text, rows);
        rv_play(be, tape);
        rows->n = n;
    } else rv_text_run(&s->text, rows, 0, n);
    *has_best = tape && all_greedy;
    if (*has_best) rv_download(be, best, s->text_scratch.best, (uint64_t)n * sizeof *best);
    else rv_download(be, s->logits, s->text_scratch.logits.data, (uint64_t)n * (uint64_t)s->model->files.config.text.vocab * sizeof(float));
    rv_status st = rv_finish(be, err);
    pthread_mutex_unlock(&s->model->device);
    return st;
}
