/* places.c - constraints on the device: a few places, each as large as the largest constraint may be. */
#include "engine/session.h"

#include <stdlib.h>

rv_status rv_places_new(rv_session *s, rv_error *err) {
    s->ahead.placed = calloc(s->options.constraints, sizeof *s->ahead.placed);
    return s->ahead.placed ? RV_OK : rv_fail_memory(err, "session");
}

void rv_places_free(rv_session *s) {
    for (uint32_t i = 0; s->ahead.placed && i < s->options.constraints; i++) rv_constraint_free(s->ahead.placed[i].constraint);
    free(s->ahead.placed);
    s->ahead.placed = NULL;
}

/* The place that holds it, else a free one, else one that nobody uses now; -1: all are in use. */
static int32_t find(const rv_session *s, const rv_constraint *c) {
    int32_t best = -1;
    for (uint32_t i = 0; i < s->options.constraints; i++) {
        const rv_placed *p = &s->ahead.placed[i];
        if (p->constraint == c) return (int32_t)i;
        if (p->users == 0 && (best < 0 || !p->constraint)) best = (int32_t)i;
    }
    return best;
}

bool rv_place_hold(rv_session *s, rv_job *job) {
    if (!s->runs_ahead || !job->guided) return true;
    int32_t at = find(s, job->guided->constraint);
    if (at < 0) return false;
    rv_placed *p = &s->ahead.placed[at];
    if (p->constraint != job->guided->constraint) {
        rv_constraint_free(p->constraint);
        rv_constraint_retain(job->guided->constraint);
        *p = (rv_placed){ .constraint = job->guided->constraint };
    }
    p->users++;
    job->guided->place = at;
    return true;
}

void rv_place_release(rv_session *s, rv_job *job) {
    if (!job->guided || job->guided->place < 0) return;
    s->ahead.placed[job->guided->place].users--;
    job->guided->place = -1;
}

void rv_place_fill(rv_session *s, const rv_job *job) {
    rv_placed *p = job->guided && job->guided->place >= 0 ? &s->ahead.placed[job->guided->place] : NULL;
    if (!p || p->guide.classes) return;
    const rv_guide *host = &p->constraint->guide;
    uint64_t classes = (uint64_t)host->vocab * sizeof(uint16_t), next = (uint64_t)host->states * (uint64_t)host->n_classes * sizeof(uint16_t);
    char *room = (char *)s->ahead.constraint_room + (uint64_t)job->guided->place * s->options.constraint_bytes;
    p->guide = *host;
    p->guide.classes = (const uint16_t *)(const void *)room;
    p->guide.next = (const uint16_t *)(const void *)(room + classes);
    rv_model_lock(s->model);
    rv_upload(s->model->be, room, host->classes, classes);
    rv_upload(s->model->be, room + classes, host->next, next);
    rv_model_unlock(s->model);
}
