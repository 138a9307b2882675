/* evaluate_report.c - an evaluation as text, Markdown, CSV and JSON. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json_tree.h"
#include "engine/base/text.h"
#include "extract/documents.h"
#include "extract/evaluate.h"
#include "extract/write.h"

/* ---- tables for people ------------------------------------------------------------------------------- */

/* A rate in percent; "-" where there is nothing to count. */
static const char *percent(double rate, char out[16]) {
    if (rate < 0) return "-";
    rv_print(out, 16, "%.1f", 100 * rate);
    return out;
}

static void add_row(rv_string *s, bool md, const char *name, double n, const rv_tallied *t) {
    char c[6][16], cell[31];
    const size_t bytes = strlen(name), fits = rv_utf8_check(name, bytes < 30 ? bytes : 30);
    for (size_t i = 0; i <= fits; i++) cell[i] = i == fits ? '\0' : md && name[i] == '|' ? '/' : name[i];        /* types are the truth's own words */
    const char *form = md ? "| %s | %.0f | %s | %s | %s | %s | %s | %s |\n" : "%-30s %6.0f %8s %8s %8s %8s %9s %8s\n";
    rv_string_addf(s, form, cell, n, percent(rv_rate_exact(t), c[0]), percent(rv_rate_same(t), c[1]), percent(rv_f1(t), c[2]),
                   percent(rv_rate_anls(t), c[3]), percent(rv_rate_invented(t), c[4]), percent(rv_rate_missed(t), c[5]));
}

static void add_head(rv_string *s, bool md, const char *first, const char *count) {
    if (md)
        rv_string_addf(
            s, "\n| %s | %s | exact %% | meaning %% | F1 %% | ANLS %% | invented %% | missed %% |\n|---|---|---|---|---|---|---|---|\n",
            first, count);
    else rv_string_addf(s, "\n%-30s %6s %8s %8s %8s %8s %9s %8s\n", first, count, "exact", "meaning", "F1", "ANLS", "invented", "missed");
}

static void add_overall(rv_string *s, const rv_evaluation *e, int which) {
    const rv_scores *r = which ? &e->b : &e->a;
    rv_string_addf(s, "%s: %u documents", r->name, r->documents);
    if (r->missing)
        rv_string_addf(s, e->options.ignore_missing ? ", %u more without an answer left out" : ", %u of them without an answer",
                       r->missing);
    if (r->extra) rv_string_addf(s, ", %u answers without truth left out", r->extra);
    rv_string_addf(s, "; %u (%.1f %%) right in every field\n", r->perfect, 100.0 * r->perfect / (r->documents ? r->documents : 1));
    rv_string_addf(s, "  exact   %5.2f %% (95 %%: %.2f to %.2f)\n", 100 * rv_rate_exact(&r->all), 100 * e->exact[which].low,
                   100 * e->exact[which].high);
    rv_string_addf(s, "  meaning %5.2f %% (95 %%: %.2f to %.2f)\n", 100 * rv_rate_same(&r->all), 100 * e->same[which].low,
                   100 * e->same[which].high);
    rv_string_addf(s, "  F1      %5.2f %% (95 %%: %.2f to %.2f)\n", 100 * rv_f1(&r->all), 100 * e->f1[which].low, 100 * e->f1[which].high);
    rv_string_addf(s, "  ANLS    %5.2f %% (95 %%: %.2f to %.2f)\n", 100 * rv_rate_anls(&r->all), 100 * e->anls[which].low,
                   100 * e->anls[which].high);
    char c[2][16];
    rv_string_addf(s, "  invented %s %% of what is not there, missed %s %% of what is\n", percent(rv_rate_invented(&r->all), c[0]),
                   percent(rv_rate_missed(&r->all), c[1]));
}

static void add_unknown(rv_string *s, const rv_documents *d) {
    if (*d->unknown) rv_string_addf(s, "%s: no field of the schema, left out: %s\n", d->name, d->unknown);
}

static void add_paired(rv_string *s, const rv_evaluation *e) {
    const rv_paired *p = &e->paired;
    rv_string_addf(s, "\n%s against %s, on the same documents:\n", e->b.name, e->a.name);
    rv_string_addf(s, "  meaning %+.2f points (95 %%: %+.2f to %+.2f), exact %+.2f (%+.2f to %+.2f)\n",
                   100 * (rv_rate_same(&e->b.all) - rv_rate_same(&e->a.all)), 100 * p->same.low, 100 * p->same.high,
                   100 * (rv_rate_exact(&e->b.all) - rv_rate_exact(&e->a.all)), 100 * p->exact.low, 100 * p->exact.high);
    rv_string_addf(s, "  documents: %u better, %u worse, %u equal (sign test p = %.3g)\n", p->better, p->worse, p->equal, p->p);
}

static void add_tables(rv_string *s, const rv_evaluation *e, const rv_scores *r, bool md) {
    if (e->has_b) rv_string_addf(s, "\n%s\n", r->name);
    add_head(s, md, "field", "fields");
    for (uint32_t f = 0; f < e->schema->n_fields; f++)
        if (r->fields[f].cells > 0) add_row(s, md, e->schema->fields[f].key, r->fields[f].cells, &r->fields[f]);
    add_row(s, md, "all", r->all.cells, &r->all);
    if (r->n_types > 1) {
        add_head(s, md, "document type", "docs");
        for (uint32_t i = 0; i < r->n_types; i++) add_row(s, md, r->types[i], r->type_documents[i], &r->by_type[i]);
    }
}

/* ---- wrong fields -------------------------------------------------------------------------------------- */

typedef void (*wrong_fn)(void *to, const char *document, const char *key, const char *truth, const char *answer);

/* Calls `each` for the first options.list_wrong fields that are wrong by meaning, document by document. */
static void each_wrong(const rv_evaluation *e, const rv_scores *r, wrong_fn each, void *to) {
    uint32_t left = e->options.list_wrong;
    for (uint32_t d = 0; d < e->truth->n && left; d++) {
        const rv_record *t = e->truth->records[d], *p = r->matches[d];
        for (uint32_t f = 0; f < e->schema->n_fields && left && (p || !e->options.ignore_missing); f++) {
            rv_tallied cell;
            rv_string truth = { 0 }, answer = { 0 };
            rv_compare_field(t, p, f, false, &cell);
            if (cell.cells <= cell.same) continue;
            rv_slot_text(t, f, &truth);
            if (p) rv_slot_text(p, f, &answer);
            each(to, rv_documents_label(e->truth, d), e->schema->fields[f].key, rv_string_text(&truth), p ? rv_string_text(&answer) : "(no answer)");
            rv_string_free(&truth);
            rv_string_free(&answer);
            left--;
        }
    }
}

static void add_wrong(void *to, const char *document, const char *key, const char *truth, const char *answer) {
    rv_string_addf(to, "%s %s\n  truth:  %s\n  answer: %s\n", document, key, truth, answer);
}

static void add_wrong_json(void *to, const char *document, const char *key, const char *truth, const char *answer) {
    json_array_append_new(to, json_pack("{s:s,s:s,s:s,s:s}", "document", document, "field", key, "truth", truth, "answer", answer));
}

static void write_wrong(rv_string *s, const rv_evaluation *e, const rv_scores *r, bool md) {
    if (!e->options.list_wrong) return;
    rv_string_addf(s, "\nwrong in %s:\n%s", r->name, md ? "```\n" : "");
    each_wrong(e, r, add_wrong, s);
    if (md) rv_string_addz(s, "```\n");
}

static void write_text(rv_string *s, const rv_evaluation *e, bool md) {
    if (md) rv_string_addz(s, "```\n");
    add_unknown(s, e->truth);
    add_unknown(s, e->a.answers);
    if (e->has_b) add_unknown(s, e->b.answers);
    add_overall(s, e, 0);
    if (e->has_b) {
        add_overall(s, e, 1);
        add_paired(s, e);
    }
    if (md) rv_string_addz(s, "```\n");
    add_tables(s, e, &e->a, md);
    if (e->has_b) add_tables(s, e, &e->b, md);
    write_wrong(s, e, &e->a, md);
    if (e->has_b) write_wrong(s, e, &e->b, md);
}

/* ---- tables for programs -------------------------------------------------------------------------------- */

static void add_number(rv_string *s, double rate) {
    if (rate >= 0) rv_string_addf(s, ",%.6f", rate);
    else rv_string_addz(s, ",");
}

static void write_csv(rv_string *s, const rv_evaluation *e) {
    rv_string_addz(s, "run,field,precision,recall,f1,support,exact,same,anls,invented,missed\r\n");
    for (int which = 0; which <= e->has_b; which++) {
        const rv_scores *r = which ? &e->b : &e->a;
        for (uint32_t f = 0; f <= e->schema->n_fields; f++) {
            const rv_tallied *t = f < e->schema->n_fields ? &r->fields[f] : &r->all;
            if (t->cells <= 0) continue;
            rv_csv_cell(s, r->name);
            rv_string_addf(s, ",%s", f < e->schema->n_fields ? e->schema->fields[f].key : "all");
            add_number(s, rv_precision(t));
            add_number(s, rv_recall(t));
            add_number(s, rv_f1(t));
            rv_string_addf(s, ",%.0f", t->present);
            add_number(s, rv_rate_exact(t));
            add_number(s, rv_rate_same(t));
            add_number(s, rv_rate_anls(t));
            add_number(s, rv_rate_invented(t));
            add_number(s, rv_rate_missed(t));
            rv_string_addz(s, "\r\n");
        }
    }
}

static json_t *rate(double r) { return r < 0 ? json_null() : json_real(r); }

static json_t *tally_json(const rv_tallied *t) {
    return json_pack("{s:f,s:f,s:o,s:o,s:o,s:o,s:o,s:o,s:o,s:o}", "fields", t->cells, "support", t->present, "exact",
                     rate(rv_rate_exact(t)), "same", rate(rv_rate_same(t)), "precision", rate(rv_precision(t)), "recall",
                     rate(rv_recall(t)), "f1", rate(rv_f1(t)), "anls", rate(rv_rate_anls(t)), "invented", rate(rv_rate_invented(t)),
                     "missed", rate(rv_rate_missed(t)));
}

static json_t *interval_json(rv_interval i) { return json_pack("[f,f]", i.low, i.high); }

static json_t *scores_json(const rv_evaluation *e, int which) {
    const rv_scores *r = which ? &e->b : &e->a;
    json_t *to = json_object(), *fields = json_object(), *types = json_object();
    for (uint32_t f = 0; f < e->schema->n_fields; f++)
        if (r->fields[f].cells > 0) json_object_set_new(fields, e->schema->fields[f].key, tally_json(&r->fields[f]));
    for (uint32_t i = 0; i < r->n_types; i++) json_object_set_new(types, r->types[i], tally_json(&r->by_type[i]));
    json_object_set_new(to, "name", json_string(r->name));
    if (*r->answers->unknown) json_object_set_new(to, "unknown", json_string(r->answers->unknown));
    json_object_set_new(to, "documents", json_integer(r->documents));
    json_object_set_new(to, "missing", json_integer(r->missing));
    json_object_set_new(to, "extra", json_integer(r->extra));
    json_object_set_new(to, "perfect", json_integer(r->perfect));
    json_object_set_new(to, "all", tally_json(&r->all));
    json_object_set_new(to, "interval_95",
                        json_pack("{s:o,s:o,s:o,s:o}", "exact", interval_json(e->exact[which]), "same", interval_json(e->same[which]), "f1",
                                  interval_json(e->f1[which]), "anls", interval_json(e->anls[which])));
    json_object_set_new(to, "by_field", fields);
    json_object_set_new(to, "by_type", types);
    if (e->options.list_wrong) {
        json_t *wrong = json_array();
        each_wrong(e, r, add_wrong_json, wrong);
        json_object_set_new(to, "wrong", wrong);
    }
    return to;
}

static void write_json(rv_string *s, const rv_evaluation *e) {
    json_t *to = json_object(), *runs = json_array();
    for (int which = 0; which <= e->has_b; which++) json_array_append_new(runs, scores_json(e, which));
    json_object_set_new(to, "schema", json_string(e->schema->name));
    json_object_set_new(to, "resamples", json_integer(e->options.resamples));
    json_object_set_new(to, "runs", runs);
    if (e->has_b)
        json_object_set_new(to, "paired",
                            json_pack("{s:f,s:o,s:f,s:o,s:i,s:i,s:i,s:f}", "same", rv_rate_same(&e->b.all) - rv_rate_same(&e->a.all),
                                      "same_interval_95", interval_json(e->paired.same), "exact",
                                      rv_rate_exact(&e->b.all) - rv_rate_exact(&e->a.all), "exact_interval_95",
                                      interval_json(e->paired.exact), "better", (int)e->paired.better, "worse", (int)e->paired.worse,
                                      "equal", (int)e->paired.equal, "sign_test_p", e->paired.p));
    char *text = rv_json_dump(to, JSON_INDENT(2) | JSON_REAL_PRECISION(9));
    json_decref(to);
    s->failed = s->failed || !text;
    if (text) rv_string_addf(s, "%s\n", text);
    free(text);
}

rv_status rv_eval_report(const rv_evaluation *e, char **report, rv_error *err) {
    rv_string s = { 0 };
    switch (e->options.form) {
    case RV_REPORT_TEXT: write_text(&s, e, false); break;
    case RV_REPORT_MARKDOWN: write_text(&s, e, true); break;
    case RV_REPORT_CSV: write_csv(&s, e); break;
    case RV_REPORT_JSON: write_json(&s, e); break;
    default: return rv_fail(err, RV_ERR_ARGUMENT, "report form %d: there is none of that number", e->options.form);
    }
    if (s.failed) {
        rv_string_free(&s);
        return rv_fail_memory(err, "report");
    }
    *report = s.data;
    return RV_OK;
}
