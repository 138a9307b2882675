/* evaluate.c - runs against the truth, and how sure the difference is: see evaluate.h. */
#include "extract/evaluate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "extract/documents.h"

/* ---- documents ------------------------------------------------------------------------------------- */

static rv_status keep(void *user, rv_record *record, uint32_t line, rv_error *err) {
    rv_documents *d = user;
    if (d->n == d->capacity) {
        uint32_t capacity = d->capacity ? 2 * d->capacity : 64;
        rv_record **records = realloc(d->records, capacity * sizeof *records);
        if (!records) {
            rv_record_free(record);
            return rv_fail_memory(err, d->name);
        }
        d->records = records;
        d->capacity = capacity;
    }
    d->records[d->n++] = record;
    if (!*record->file)
        return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: the document has no name (image_file, filename, image_name, image, file or id)",
                       d->name, line);
    return RV_OK;
}

/* A misspelt column would be a field that every document misses. */
static void note_unknown(void *user, const char *key, uint32_t line) {
    rv_documents *d = user;
    rv_pool pool = { 0 };
    const char *name = rv_tidy(&pool, key, strlen(key));
    const size_t at = strlen(d->unknown), n = name ? strlen(name) : 0;
    bool known = n == 0 || at + n + 3 > sizeof d->unknown;
    (void)line;
    for (const char *same = d->unknown; !known && (same = strstr(same, name)); same++)
        known = (same == d->unknown || same[-1] == ' ') && (same[n] == ',' || !same[n]);
    if (!known) snprintf(d->unknown + at, sizeof d->unknown - at, "%s%s", at ? ", " : "", name);
    rv_pool_free(&pool);
}

/* By the last part of the path, then by all of it. */
static int by_name(const void *a, const void *b) {
    const rv_record *const *x = a, *const *y = b;
    const int order = strcmp(rv_base_name((*x)->file), rv_base_name((*y)->file));
    return order ? order : strcmp((*x)->file, (*y)->file);
}

rv_status rv_documents_load(const rv_schema *schema, const rv_run *run, rv_documents *out, rv_error *err) {
    rv_record_setup setup = { 0 };
    *out = (rv_documents){ .name = run->name };
    rv_status st =
        rv_documents_read(&(rv_document_reader){ .schema = schema, .setup = &setup, .file = run->name, .each = keep, .unknown = note_unknown, .user = out },
                          run->text, run->bytes, err);
    if (st == RV_OK && out->n == 0) st = rv_fail(err, RV_ERR_FORMAT, "%s: no documents", run->name);
    if (st == RV_OK) qsort(out->records, out->n, sizeof *out->records, by_name);
    for (uint32_t i = 1; i < out->n && st == RV_OK; i++)
        if (by_name(&out->records[i - 1], &out->records[i]) == 0)
            st = rv_fail(err, RV_ERR_FORMAT, "%s: %s is there twice (eval lint says where)", run->name, out->records[i]->file);
    if (st) rv_documents_free(out);
    return st;
}

void rv_documents_free(rv_documents *d) {
    for (uint32_t i = 0; i < d->n; i++) rv_record_free(d->records[i]);
    free(d->records);
    *d = (rv_documents){ 0 };
}

const char *rv_documents_label(const rv_documents *d, uint32_t i) {
    const char *file = d->records[i]->file, *name = rv_base_name(file);
    const bool repeated = (i > 0 && !strcmp(rv_base_name(d->records[i - 1]->file), name)) || (i + 1 < d->n && !strcmp(rv_base_name(d->records[i + 1]->file), name));
    return repeated ? file : name;
}

/* ---- which document is which ------------------------------------------------------------------------- */

/* How many parts of two paths are equal, from the last one on; paths that are equal count most. */
static uint32_t common_tail(const char *a, const char *b) {
    size_t i = strlen(a), j = strlen(b);
    uint32_t parts = 0;
    if (strcmp(a, b) == 0) return UINT32_MAX;
    for (; i && j && a[i - 1] == b[j - 1]; i--, j--) parts += a[i - 1] == '/';
    return parts + ((!i || a[i - 1] == '/') && (!j || b[j - 1] == '/'));
}

/* Where the documents begin that are called like `name`, and how many those are. */
static uint32_t called(const rv_documents *d, const char *name, uint32_t *n) {
    uint32_t low = 0, high = d->n;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (strcmp(rv_base_name(d->records[middle]->file), name) < 0) low = middle + 1;
        else high = middle;
    }
    for (*n = 0; low + *n < d->n && strcmp(rv_base_name(d->records[low + *n]->file), name) == 0;) ++*n;
    return low;
}

static rv_status ambiguous(const rv_documents *one, const char *file, const rv_documents *other, const char *a, const char *b, rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "%s: %.100s could be %.100s or %.100s of %s: name documents with their folders in both", one->name, file, a, b, other->name);
}

/* Two documents belong together when each is the other's nearest by the end of its path.  out[truth's]: the run's, or NULL; *extra: how many
 * of the run belong to none.  best: room for run->n, of: for run->n. */
static rv_status pair_up(const rv_documents *truth, const rv_documents *run, uint32_t *best, rv_record **of, rv_record **out, uint32_t *extra, rv_error *err) {
    uint32_t n, first;
    for (uint32_t p = 0; p < run->n; p++) {
        first = called(truth, rv_base_name(run->records[p]->file), &n);
        for (uint32_t t = first; t < first + n; t++) {
            const uint32_t tail = common_tail(truth->records[t]->file, run->records[p]->file);
            if (tail > best[p]) best[p] = tail;
        }
    }
    *extra = run->n;
    for (uint32_t t = 0; t < truth->n; t++) {
        const char *file = truth->records[t]->file;
        uint32_t most = 0;
        first = called(run, rv_base_name(file), &n);
        for (uint32_t p = first; p < first + n; p++) {
            const uint32_t tail = common_tail(file, run->records[p]->file);
            if (tail > most) most = tail;
        }
        for (uint32_t p = first; p < first + n; p++) {
            if (best[p] != most || common_tail(file, run->records[p]->file) != most) continue;
            if (out[t]) return ambiguous(truth, file, run, out[t]->file, run->records[p]->file, err);
            if (of[p]) return ambiguous(run, run->records[p]->file, truth, of[p]->file, file, err);
            out[t] = run->records[p];
            of[p] = truth->records[t];
            --*extra;
        }
    }
    return RV_OK;
}

static rv_status match(const rv_documents *truth, const rv_documents *run, rv_record **out, uint32_t *extra, rv_error *err) {
    uint32_t *best = calloc(run->n, sizeof *best);
    rv_record **of = calloc(run->n, sizeof *of);
    rv_status st = best && of ? pair_up(truth, run, best, of, out, extra, err) : rv_fail_memory(err, "evaluation");
    free(best);
    free(of);
    return st;
}

/* ---- scoring ---------------------------------------------------------------------------------------- */

static const char *type_of(const rv_record *truth) {
    int32_t i = rv_schema_field(truth->schema, "DOCUMENT_TYPE");
    return i >= 0 && truth->slots[i].n_items ? truth->slots[i].items[0].text : "-";
}

static void add_type(rv_scores *s, const char *type, const rv_tallied *tally) {
    uint32_t i = 0;
    while (i < s->n_types && strcmp(s->types[i], type)) i++;
    if (i == sizeof s->types / sizeof *s->types) i--;                      /* the last takes the rest */
    else if (i == s->n_types) s->types[s->n_types++] = type;
    rv_tally_add(&s->by_type[i], tally);
    s->type_documents[i]++;
}

static rv_status score(const rv_documents *truth, const rv_documents *run, const rv_schema *schema, const rv_eval_options *o,
                       rv_scores *out, rv_error *err) {
    *out = (rv_scores){ .name = run->name, .answers = run };
    out->fields = calloc(schema->n_fields, sizeof *out->fields);
    out->by_document = calloc(truth->n, sizeof *out->by_document);
    out->matches = calloc(truth->n, sizeof *out->matches);
    if (!out->fields || !out->by_document || !out->matches) return rv_fail_memory(err, "evaluation");
    rv_status st = match(truth, run, out->matches, &out->extra, err);
    if (st) return st;
    for (uint32_t d = 0; d < truth->n; d++) {
        const rv_record *t = truth->records[d], *p = out->matches[d];
        out->missing += !p;
        if (!p && o->ignore_missing) continue;
        for (uint32_t f = 0; f < schema->n_fields; f++) {
            rv_tallied cell;
            rv_compare_field(t, p, f, o->substitutions != 0, &cell);
            rv_tally_add(&out->fields[f], &cell);
            rv_tally_add(&out->by_document[d], &cell);
        }
        const rv_tallied *all = &out->by_document[d];
        out->documents++;
        out->perfect += all->cells > 0 && all->same >= all->cells;
        add_type(out, type_of(t), all);
        rv_tally_add(&out->all, all);
    }
    if (out->documents == out->missing && !o->ignore_missing)
        return rv_fail(err, RV_ERR_FORMAT, "%s: none of its documents is in %s: are they named alike?", run->name, truth->name);
    if (out->all.cells <= 0) return rv_fail(err, RV_ERR_FORMAT, "%s: nothing to compare with %s", run->name, truth->name);
    return RV_OK;
}

/* ---- chance ------------------------------------------------------------------------------------------ */

static uint64_t next_random(uint64_t *seed) {              /* splitmix64 */
    uint64_t z = (*seed += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

rv_status rv_bootstrap(const rv_tallied *a, const rv_tallied *b, uint32_t n, rv_rate_fn rate, uint32_t resamples, uint64_t seed,
                       rv_interval *out, rv_error *err) {
    double *values = malloc(resamples * sizeof *values);
    uint32_t *scored = malloc((n ? n : 1) * sizeof *scored), n_scored = 0, drawn = 0;
    for (uint32_t i = 0; scored && i < n; i++)
        if (a[i].cells > 0) scored[n_scored++] = i;
    for (uint32_t r = 0; values && scored && n_scored && r < resamples; r++) {
        rv_tallied x = { 0 }, y = { 0 };
        for (uint32_t i = 0; i < n_scored; i++) {
            uint32_t pick = scored[next_random(&seed) % n_scored];
            rv_tally_add(&x, &a[pick]);
            if (b) rv_tally_add(&y, &b[pick]);
        }
        double of_a = rate(&x), of_b = b ? rate(&y) : 0;
        if (of_a >= 0 && of_b >= 0) values[drawn++] = b ? of_b - of_a : of_a;
    }
    const bool failed = !values || !scored;
    if (drawn) qsort(values, drawn, sizeof *values, by_value);
    uint32_t cut = (uint32_t)(0.025 * drawn);
    *out = drawn ? (rv_interval){ values[cut], values[drawn - 1 - cut] } : (rv_interval){ -1, -1 };
    free(values);
    free(scored);
    return failed ? rv_fail_memory(err, "bootstrap") : RV_OK;
}

double rv_sign_test(uint32_t better, uint32_t worse) {
    uint32_t n = better + worse, least = better < worse ? better : worse;
    double sum = 0;
    if (n == 0) return 1;
    for (uint32_t k = 0; k <= least; k++) sum += exp(lgamma(n + 1.0) - lgamma(k + 1.0) - lgamma(n - k + 1.0) - n * log(2.0));
    return sum * 2 < 1 ? sum * 2 : 1;
}

static rv_status intervals(rv_evaluation *e, int which, const rv_scores *s, uint32_t n, rv_error *err) {
    rv_status st;
    const rv_eval_options *o = &e->options;
    TRY(rv_bootstrap(s->by_document, NULL, n, rv_rate_exact, o->resamples, o->seed, &e->exact[which], err));
    TRY(rv_bootstrap(s->by_document, NULL, n, rv_rate_same, o->resamples, o->seed, &e->same[which], err));
    TRY(rv_bootstrap(s->by_document, NULL, n, rv_f1, o->resamples, o->seed, &e->f1[which], err));
    TRY(rv_bootstrap(s->by_document, NULL, n, rv_rate_anls, o->resamples, o->seed, &e->anls[which], err));
done:
    return st;
}

static rv_status pair(rv_evaluation *e, uint32_t n, rv_error *err) {
    rv_paired *p = &e->paired;
    rv_status st;
    for (uint32_t d = 0; d < n; d++) {
        double a = e->a.by_document[d].same, b = e->b.by_document[d].same;
        if (b > a) p->better++;
        else if (b < a) p->worse++;
        else p->equal++;
    }
    p->p = rv_sign_test(p->better, p->worse);
    TRY(rv_bootstrap(e->a.by_document, e->b.by_document, n, rv_rate_same, e->options.resamples, e->options.seed, &p->same, err));
    TRY(rv_bootstrap(e->a.by_document, e->b.by_document, n, rv_rate_exact, e->options.resamples, e->options.seed, &p->exact, err));
done:
    return st;
}

static void scores_free(rv_scores *s) {
    free(s->fields);
    free(s->by_document);
    free(s->matches);
}

rv_status rv_eval_run(const rv_schema *schema, const rv_run *truth, const rv_run *run, const rv_run *other, const rv_eval_options *options,
                      char **report, rv_error *err) {
    rv_documents t = { 0 }, a = { 0 }, b = { 0 };
    rv_evaluation e = { .schema = schema, .truth = &t, .has_b = other != NULL, .options = *options };
    rv_status st;
    if (other && options->ignore_missing)
        return rv_fail(err, RV_ERR_ARGUMENT, "two runs are compared on all documents: ignore_missing makes no sense");
    TRY(rv_documents_load(schema, truth, &t, err));
    TRY(rv_documents_load(schema, run, &a, err));
    TRY(score(&t, &a, schema, options, &e.a, err));
    TRY(intervals(&e, 0, &e.a, t.n, err));
    if (other) {
        TRY(rv_documents_load(schema, other, &b, err));
        TRY(score(&t, &b, schema, options, &e.b, err));
        TRY(intervals(&e, 1, &e.b, t.n, err));
        TRY(pair(&e, t.n, err));
    }
    TRY(rv_eval_report(&e, report, err));
done:
    scores_free(&e.a);
    scores_free(&e.b);
    rv_documents_free(&t);
    rv_documents_free(&a);
    rv_documents_free(&b);
    return st;
}
