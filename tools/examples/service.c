/* service.c - how a server embeds the engine: many threads submit, one thread steps.
 *
 * The one idea: rv_submit may be called from any thread at any time; a single thread owns the loop
 * "rv_wait, then rv_step" and is the only one that computes.  Eight workers send every image at
 * once through a queue that is too small on purpose, half of them as a picture whose work is shared;
 * each answer must equal what one rv_generate alone gives.  Each worker also gives one request up.
 *
 *     service MODEL_DIR IMAGE..      exit code 0: every answer was the same
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/rvengine.h"

enum { WORKERS = 8, SLOTS = 4, QUEUE = 4, MAX_IMAGES = 64 };

typedef struct service {
    rv_session *session;
    rv_image    images[MAX_IMAGES];
    rv_picture *pictures[MAX_IMAGES];      /* the same images; seen once, whoever asks about them */
    char       *expected[MAX_IMAGES];      /* what rv_generate says */
    int         n_images;
    atomic_int  stop, answers, wrong, waited;
} service;

typedef struct worker { service *s; pthread_t thread; int number; } worker;

static const char PROMPT[] = "Extract the receipt as KEY: VALUE lines.";

/* ---- the thread that computes --------------------------------------------------------------- */

static void *step_loop(void *user) {
    service *s = user;
    rv_error err;
    uint32_t active;
    while (!s->stop) {
        if (!rv_wait(s->session, 100)) continue;             /* the limit: a wake between the two lines is lost */
        if (rv_step(s->session, &active, &err) == RV_OK) continue;
        fprintf(stderr, "service: the device is lost: %s\n", err.message);
        exit(1);
    }
    return NULL;
}

/* ---- the threads that serve ----------------------------------------------------------------- */

static void check(service *s, int i, rv_job *job) {
    rv_error err;
    const char *text = rv_job_text(job, NULL);
    s->answers++;
    if (rv_job_get_error(job, &err) == RV_OK && strcmp(text, s->expected[i]) == 0) return;
    s->wrong++;
    fprintf(stderr, "service: image %d: %s\n--- got\n%s\n--- expected\n%s\n", i + 1,
            rv_job_get_error(job, &err) ? err.message : "another answer", text, s->expected[i]);
}

/* Tries again while the queue is full (a server would answer 503). */
static rv_status submit(service *s, const rv_request *request, rv_job **job, rv_error *err) {
    rv_status st;
    while ((st = rv_submit(s->session, request, job, err)) == RV_ERR_FULL) {
        struct timespec pause = { .tv_nsec = 2000000 };
        s->waited++;
        nanosleep(&pause, NULL);
    }
    return st;
}

/* One request: the image itself, or a message with the picture that others share. */
static void serve(service *s, int i, int shared) {
    rv_part parts[2] = { { .size = sizeof(rv_part), .picture = s->pictures[i] },
                         { .size = sizeof(rv_part), .text = PROMPT } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request alone = { .size = sizeof alone, .images = &s->images[i], .n_images = 1, .prompt = PROMPT };
    rv_request sharing = { .size = sizeof sharing, .messages = &message, .n_messages = 1 };
    rv_error err;
    rv_job *job;
    if (submit(s, shared ? &sharing : &alone, &job, &err)) {
        s->answers++;
        s->wrong++;
        fprintf(stderr, "service: image %d: %s\n", i + 1, err.message);
        return;
    }
    rv_job_wait(job, -1);
    check(s, i, job);
    rv_job_free(job);
}

/* A client that goes away: its request ends early (or just in time), and nobody else notices. */
static void hang_up(service *s) {
    rv_part parts[2] = { { .size = sizeof(rv_part), .picture = s->pictures[0] },
                         { .size = sizeof(rv_part), .text = PROMPT } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request request = { .size = sizeof request, .messages = &message, .n_messages = 1 };
    rv_error err;
    rv_job *job;
    rv_status st = submit(s, &request, &job, &err);
    if (st == RV_OK) {
        rv_job_wait(job, 5);
        rv_cancel(job);
        rv_job_wait(job, -1);
        st = rv_job_get_error(job, &err);
        rv_job_free(job);
    }
    if (st == RV_OK || st == RV_ERR_CANCELLED) return;
    s->wrong++;
    fprintf(stderr, "service: a cancelled request: %s\n", err.message);
}

static void *work(void *user) {
    worker *w = user;
    hang_up(w->s);
    for (int i = 0; i < w->s->n_images; i++) serve(w->s, (i + w->number) % w->s->n_images, w->number % 2);
    return NULL;
}

/* ---- setting up ------------------------------------------------------------------------------ */

static int read_image(const char *path, rv_image *out) {
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    long end = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end > 0 && fseek(file, 0, SEEK_SET) == 0 && (data = malloc((size_t)end)) &&
        fread(data, 1, (size_t)end, file) == (size_t)end)
        *out = (rv_image){ .size = sizeof *out, .data = data, .bytes = (size_t)end };
    else free(data), data = NULL;
    if (file) fclose(file);
    return data != NULL;
}

/* One request after the other, with nothing else running. */
static rv_status answer_alone(service *s, rv_error *err) {
    for (int i = 0; i < s->n_images; i++) {
        rv_request request = { .size = sizeof request, .images = &s->images[i], .n_images = 1, .prompt = PROMPT };
        rv_job *job;
        rv_status st = rv_generate(s->session, &request, &job, err);
        if (st) return st;
        s->expected[i] = strdup(rv_job_text(job, NULL));
        rv_job_free(job);
        if (!s->expected[i]) return RV_ERR_MEMORY;
        if ((st = rv_picture_new(s->session, &s->images[i], &s->pictures[i], err))) return st;
    }
    return RV_OK;
}

static int answer_together(service *s) {
    worker workers[WORKERS];
    pthread_t stepper;
    int started = 0;
    if (pthread_create(&stepper, NULL, step_loop, s)) return 0;
    for (; started < WORKERS; started++) {
        workers[started] = (worker){ .s = s, .number = started };
        if (pthread_create(&workers[started].thread, NULL, work, &workers[started])) break;
    }
    for (int i = 0; i < started; i++) pthread_join(workers[i].thread, NULL);
    s->stop = 1;
    rv_wake(s->session);
    pthread_join(stepper, NULL);
    return started == WORKERS;
}

int main(int argc, char **argv) {
    service s = { 0 };
    rv_error err = { RV_OK, "out of memory" };
    rv_model *model = NULL;
    rv_load_options load = { .size = sizeof load, .slots = SLOTS };     /* room for them beside the weights */
    s.n_images = argc - 2;
    if (s.n_images < 1 || s.n_images > MAX_IMAGES) return fputs("usage: service MODEL_DIR IMAGE..\n", stderr), 2;
    for (int i = 0; i < s.n_images; i++)
        if (!read_image(argv[i + 2], &s.images[i])) return fprintf(stderr, "service: cannot read %s\n", argv[i + 2]), 1;

    rv_session_options room = { .size = sizeof room, .slots = SLOTS, .queue = QUEUE, .images = (uint32_t)s.n_images + SLOTS };
    rv_status st = rv_model_load(argv[1], &load, &model, &err);
    if (st == RV_OK) st = rv_session_new(model, &room, &s.session, &err);
    if (st == RV_OK) st = answer_alone(&s, &err);
    int complete = st == RV_OK && answer_together(&s);
    if (st) fprintf(stderr, "service: %s\n", err.message);
    else printf("%d answers from %d threads, %d wrong (%d times the queue was full)\n", s.answers, WORKERS, s.wrong, s.waited);

    for (int i = 0; i < s.n_images; i++) rv_picture_free(s.pictures[i]);
    rv_session_free(s.session);
    rv_model_free(model);
    for (int i = 0; i < s.n_images; i++) {
        free((void *)s.images[i].data);
        free(s.expected[i]);
    }
    return complete && s.wrong == 0 && s.answers == WORKERS * s.n_images ? 0 : 1;
}
