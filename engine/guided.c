/* guided.c - what a constraint appends to an answer, and what it learns of each value. */
#include "engine/guided.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/session.h"

enum { PERIODS = 64, REPEATS = 4, REPEATED_TOKENS = 16, LIST_REPEATS = 12, PATIENCE = 16 };

rv_status rv_guided_new(rv_constraint *c, const rv_tokenizer *t, rv_guided **out, rv_error *err) {
    rv_status st = rv_constraint_check(c, t, err);
    if (st) return st;
    rv_guided *g = calloc(1, sizeof *g);
    size_t n = (size_t)c->n_lines;
    if (!g) return rv_fail_memory(err, "constraint of a request");
    rv_constraint_retain(c);
    g->constraint = c;
    g->place = -1;
    g->cells = calloc(n, sizeof *g->cells);
    g->values = calloc(n, sizeof *g->values);
    g->starts = calloc(n, sizeof *g->starts);
    if (g->cells && g->values && g->starts) return *out = g, RV_OK;
    rv_guided_free(g);
    return rv_fail_memory(err, "constraint of a request");
}

void rv_guided_free(rv_guided *g) {
    if (!g) return;
    rv_constraint_free(g->constraint);
    free(g->cells);
    free(g->values);
    free(g->starts);
    free(g);
}

/* ---- lines ---- */

static const rv_line *line_of(const rv_guided *g) { return &g->constraint->lines[g->line]; }
static bool is_last(const rv_guided *g) { return g->line + 1 == g->constraint->n_lines; }

/* How many cells the columns before this one have; 0: none has any. */
static int32_t cells_wanted(const rv_guided *g) {
    const rv_line *line = line_of(g);
    for (int32_t i = 0; line->list && line->group && i < g->line; i++)
        if (g->constraint->lines[i].list && g->constraint->lines[i].group == line->group && g->cells[i] > 0) return g->cells[i];
    return 0;
}

static void begin_value(rv_job *job) {
    rv_guided *g = job->guided;
    const rv_line *line = line_of(g);
    int32_t wanted = cells_wanted(g);
    g->row = (rv_guide_row){ .guide = g->constraint->guide, .state = line->state, .cells = line->list, .least = line->list ? wanted : 0,
                             .most = !line->list ? 0 : wanted ? wanted : line->max_items, .last = is_last(g),
                             .watched = line->required ? -1 : g->constraint->absent };
    g->first_token = job->answer.count;
    g->first_byte = job->text.bytes;
    g->now = (rv_key_value){ .size = sizeof g->now, .key = line->key, .presence = 1 };
}

/* Of a value that has ended: what is between its blank and its newline. */
static void end_value(rv_job *job) {
    rv_guided *g = job->guided;
    rv_key_value *v = &g->values[g->n_values];
    const char *text = rv_string_text(&job->text);
    size_t from = g->first_byte, to = job->text.bytes;
    if (from < to && text[from] == ' ') from++;
    if (to > from && text[to - 1] == '\n') to--;
    while (to > from && text[to - 1] == ' ') to--;
    *v = g->now;
    v->bytes = to - from;
    if (v->tokens) v->logprob /= (float)v->tokens;
    g->starts[g->n_values++] = from;
    bool absent = v->bytes == strlen(RV_ABSENT) && !memcmp(text + from, RV_ABSENT, v->bytes);
    g->cells[g->line] = absent ? 0 : g->row.cells;
}

static void note(rv_guided *g, rv_best best) {
    rv_key_value *v = &g->now;
    if (v->tokens == 0 && v->forced == 0 && g->row.watched >= 0) v->presence = (float)-expm1((double)best.watched);
    if (v->tokens == 0 || best.logprob < v->lowest) v->lowest = best.logprob;
    if (-best.allowed > v->lost) v->lost = -best.allowed;
    v->logprob += best.logprob;
    v->tokens++;
}

/* ---- when enough is enough ---- */

/* Whether the end of the value repeats a run of at most PERIODS tokens again and again. */
static bool loops(const rv_job *job) {
    const rv_guided *g = job->guided;
    const int32_t *end = job->answer.data + job->answer.count;
    size_t n = job->answer.count - g->first_token;
    bool list = line_of(g)->list;
    if (list && g->row.least > 0) return false;                  /* its cells are counted: it ends anyway */
    for (size_t p = 1; p <= PERIODS && REPEATS * p <= n; p++) {
        size_t repeats = list ? LIST_REPEATS : REPEATS, all = p * repeats, same = 0;
        if (all < REPEATED_TOKENS) all = REPEATED_TOKENS;
        if (all > n) continue;
        while (same < all - p && end[-1 - (ptrdiff_t)same] == end[-1 - (ptrdiff_t)(same + p)]) same++;
        if (same == all - p) return true;
    }
    return false;
}

/* Whether the line should end here, and why. */
static rv_value_flags should_end(const rv_job *job) {
    const rv_guided *g = job->guided;
    int32_t n = (int32_t)(job->answer.count - g->first_token), most = line_of(g)->max_tokens;
    rv_value_flags why = (n >= most ? RV_VALUE_CUT : 0u) | (loops(job) ? RV_VALUE_LOOPED : 0u);
    bool whole = g->constraint->json || rv_guide_entry(&g->row, g->constraint->newline) != 0 || n >= most + PATIENCE;
    return whole ? why : 0;
}

/* ---- appending ---- */

static bool append(rv_job *job, const rv_ids *ids, rv_job_state *state) {
    for (size_t i = 0; i < ids->count; i++) {
        if (job->guided->first_token <= job->answer.count) job->guided->now.forced++;
        if (!rv_job_push(job, ids->data[i], 0, RV_PUSH_FORCED, state)) return false;
    }
    return true;
}

/* Ends a line whose model does not: a column's missing cells, and the newline. */
static bool cut_line(rv_job *job, rv_value_flags why, rv_job_state *state) {
    rv_guided *g = job->guided;
    const rv_constraint *c = g->constraint;
    g->now.flags |= why;
    for (; g->row.cells < g->row.least; g->row.cells++) {
        g->now.flags |= RV_VALUE_FILLED;
        if (!append(job, &c->cell, state)) return false;
    }
    g->now.forced++;
    return rv_job_push(job, c->newline, 0, RV_PUSH_FORCED | (is_last(g) ? RV_PUSH_LAST : 0), state);
}

/* The text that alone can follow here, as ids behind those of the value so far.  Nothing where the model has begun the
 * value in tokens of which that text would not be the tokenizer's own continuation. */
static rv_status sure_ids(const rv_job *job, const char *sure, rv_ids *out, rv_error *err) {
    const rv_guided *g = job->guided;
    const int32_t *so_far = job->answer.data + g->first_token;
    size_t n = job->answer.count - g->first_token;
    rv_string whole = { 0 };
    rv_string_add(&whole, job->text.data + g->first_byte, job->text.bytes - g->first_byte);
    rv_string_addz(&whole, sure);
    rv_status st = whole.failed ? rv_fail_memory(err, "answer") : rv_tokenizer_append(job->session->model->files.tokenizer, whole.data, whole.bytes, 0, out, err);
    rv_string_free(&whole);
    bool fits = st == RV_OK && out->count > n && !memcmp(out->data, so_far, n * sizeof *so_far);
    if (fits) memmove(out->data, out->data + n, (out->count - n) * sizeof *out->data);
    out->count = fits ? out->count - n : 0;
    return st;
}

/* Appends what must follow; *ended: the value has. */
static bool append_sure(rv_job *job, bool *ended, rv_job_state *state) {
    rv_guided *g = job->guided;
    const char *sure = g->row.state > RV_GUIDE_DONE ? g->constraint->sure[g->row.state] : NULL;
    rv_ids ids = { 0 };
    bool go_on = true;
    if (!sure) return true;
    if (sure_ids(job, sure, &ids, &job->error)) {
        *state = RV_JOB_FAILED;
        go_on = false;
    }
    for (size_t i = 0; i < ids.count && go_on; i++) {
        rv_guide_move(&g->row, ids.data[i]);
        *ended = g->row.state == RV_GUIDE_DONE;
        g->now.forced++;
        go_on = rv_job_push(job, ids.data[i], 0, RV_PUSH_FORCED | (*ended && is_last(g) ? RV_PUSH_LAST : 0), state);
    }
    rv_ids_free(&ids);
    return go_on;
}

/* From the beginning of a line to where the model has to be asked.  *state of a job that has ended: its last token said so. */
bool rv_guided_start(rv_job *job, rv_job_state *state) {
    rv_guided *g = job->guided;
    g->begun = true;
    for (;; g->line++) {
        bool ended = false;
        g->first_token = SIZE_MAX;
        if (!append(job, &line_of(g)->forced, state)) return false;
        begin_value(job);
        bool go_on = append_sure(job, &ended, state);
        if (ended) end_value(job);
        if (!go_on || !ended) return go_on;
    }
}

bool rv_guided_take(rv_job *job, rv_best best, rv_job_state *state) {
    rv_guided *g = job->guided;
    note(g, best);
    rv_guide_move(&g->row, best.id);
    bool ended = g->row.state == RV_GUIDE_DONE, last = ended && is_last(g);
    bool go_on = rv_job_push(job, best.id, best.logprob, last ? RV_PUSH_LAST : 0, state);
    if (go_on && !ended) {
        rv_value_flags why = should_end(job);
        job->stats.looped += (why & RV_VALUE_LOOPED) != 0;
        if (why && g->constraint->json) return *state = RV_JOB_CUT_SHORT, false;
        ended = why != 0;
        go_on = why ? cut_line(job, why, state) : append_sure(job, &ended, state);
    }
    if (ended) end_value(job);
    if (!ended || !go_on) return go_on;
    g->line++;
    return rv_guided_start(job, state);
}

bool rv_guided_waits(const rv_guided *g) { return g->constraint->waits[g->row.state]; }

void rv_guided_end(rv_job *job) {
    rv_guided *g = job->guided;
    for (int32_t i = 0; g && i < g->n_values; i++) g->values[i].value = rv_string_text(&job->text) + g->starts[i];
}

uint32_t rv_job_values(const rv_job *job, const rv_key_value **out) {
    const rv_guided *g = job ? job->guided : NULL;
    bool keys = g && !g->constraint->json;
    if (out) *out = keys ? g->values : NULL;
    return keys ? (uint32_t)g->n_values : 0;
}
