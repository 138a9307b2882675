/* batch_report.c - see batch.h. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "tools/batch.h"

enum { SECONDS_BETWEEN_LINES = 30 };

double batch_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

void batch_progress(batch_state *s) {
    bool terminal = isatty(STDERR_FILENO);
    double now = batch_now(), spent = now - s->start;
    size_t read = s->done, here = read - s->before;
    if (s->quiet || (!terminal && now - s->shown < SECONDS_BETWEEN_LINES)) return;
    s->shown = now;
    double rate = spent > 0 && here ? (double)here / spent : 0, left = rate > 0 ? (double)(s->documents - read) / rate : 0;
    fprintf(stderr, "%s%zu of %zu documents (%.0f %%), %.2f a second, %.0f s left, %zu failed%s", terminal ? "\r" : "rvengine batch: ", read, s->documents,
            100 * (double)read / (double)s->documents, rate, left, s->failed, terminal ? "\033[K" : "\n");
}

void batch_progress_end(const batch_state *s) {
    if (!s->quiet && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
}

static int by_size(const void *a, const void *b) { return (*(const double *)a > *(const double *)b) - (*(const double *)a < *(const double *)b); }

/* The time within which this share of the documents was read. */
static double percentile(const double *sorted, size_t n, double share) { return n ? sorted[(size_t)(share * (double)(n - 1) + 0.5)] : 0; }

static json_t *memory_json(const read_model *m) {
    rv_memory model = { .size = sizeof model }, session = { .size = sizeof session };
    struct rusage use;
    getrusage(RUSAGE_SELF, &use);
    if (m->model) rv_model_memory(m->model, &model, NULL);
    if (m->session) rv_session_memory(m->session, &session, NULL);
    return json_pack("{s:I, s:I, s:I, s:I, s:s}", "weights_bytes", (json_int_t)model.weights, "cache_bytes", (json_int_t)session.cache, "scratch_bytes",
                     (json_int_t)session.scratch, "peak_host_bytes", (json_int_t)use.ru_maxrss * 1024, "reduced",
                     steps_text(model.steps | session.steps).text);
}

static json_t *report_json(const batch_state *s, const read_choice *c, const read_model *m, bool complete, const double *times) {
    const journal *j = s->journal;
    json_int_t chosen = 0, forced = 0, steps = 0, pages = 0, more = 0;
    double spent = batch_now() - s->start, sum = 0;
    size_t failed = s->failed, here = s->done - s->before;
    for (size_t i = 0; i < j->count; i++) {
        if (!j->items[i].ours) continue;
        chosen += j->items[i].chosen, forced += j->items[i].forced, steps += j->items[i].steps, pages += j->items[i].pages;
        sum += j->items[i].ms;
        more += j->items[i].more_pages;
    }
    return json_pack("{s:b, s:I, s:I, s:I, s:f, s:I, s:I, s:f, s:f, s:o, s:o, s:o, s:o, s:o, s:s?, s:s?, s:s}", "complete", complete, "documents", (json_int_t)s->documents, "done",
                     (json_int_t)s->done, "failed", (json_int_t)failed, "success_rate", s->done ? 1 - (double)failed / (double)s->done : 0, "pages", pages, "documents_with_more_pages", more,
                     "seconds_this_run", spent, "documents_a_second_this_run", spent > 0 ? (double)here / spent : 0, "mean_ms", json_ms(s->done ? sum / (double)s->done : 0),
                     "p50_ms", json_ms(percentile(times, s->done, 0.5)), "p95_ms", json_ms(percentile(times, s->done, 0.95)), "tokens",
                     json_pack("{s:I, s:I, s:I}", "chosen", chosen, "appended", forced, "steps", steps), "memory", memory_json(m), "model", c->load.model, "schema", c->schema,
                     "version", rv_version());
}

rv_status batch_report(const batch_state *s, const read_choice *c, const read_model *m, bool complete, rv_error *err) {
    if (s->journal->log < 0) return RV_OK;
    double *times = calloc(s->journal->count + 1, sizeof *times);
    size_t n = 0;
    char *path = NULL, *text = NULL;
    rv_status st = RV_OK;
    for (size_t i = 0; times && i < s->journal->count; i++)
        if (s->journal->items[i].ours) times[n++] = s->journal->items[i].ms;
    if (times) qsort(times, n, sizeof *times, by_size);
    json_t *root = times ? report_json(s, c, m, complete, times) : NULL;
    if (root) text = json_dumps(root, JSON_INDENT(2));
    if (!text || asprintf(&path, "%s.run.json", s->output) < 0) path = NULL, st = fail(err, RV_ERR_MEMORY, "%s.run.json: out of memory", s->output);
    if (st == RV_OK) st = output_write(path, text, strlen(text), err);
    json_decref(root);
    free(text);
    free(path);
    free(times);
    return st;
}
