/* read_merge.c - which of several answers a field gets, and how sure that is. */
#include <math.h>
#include <string.h>

#include "engine/reader.h"

#define LEAST 1e-4                       /* no probability is nearer to 0 or 1              */

static double odds(double p) {
    p = p < LEAST ? LEAST : p > 1 - LEAST ? 1 - LEAST : p;
    return log(p / (1 - p));
}

static bool has_form(rv_value_kind kind) { return kind != RV_KIND_TEXT && kind != RV_KIND_NAME && kind != RV_KIND_ADDRESS; }

static bool all_valid(const rv_slot *slot) {
    for (uint32_t i = 0; i < slot->n_items; i++)
        if (slot->items[i].state == RV_VALUE_INVALID) return false;
    return true;
}

/* What speaks for a value besides the model, in log-odds. */
static double evidence(const rv_record *record, uint32_t field) {
    const rv_slot *slot = &record->slots[field];
    double e = 0;
    if (!all_valid(slot)) e -= 1.5;
    else if (has_form(record->schema->fields[field].kind)) e += 0.5;
    if (slot->grounding >= 0.9f) e += 1;
    else if (slot->grounding >= 0 && slot->grounding < 0.5f) e -= 1;
    for (uint32_t i = 0; i < record->n_findings; i++)
        for (uint32_t k = 0; k < record->findings[i].n_fields; k++)
            if (record->findings[i].fields[k] == field && record->findings[i].severity == RV_SEVERITY_ERROR && record->findings[i].layer == RV_LAYER_CONSISTENCY) e -= 0.5;
    return e;
}

void rv_weigh(rv_record *record) {
    for (uint32_t i = 0; i < record->schema->n_fields; i++) {
        rv_slot *slot = &record->slots[i];
        if (slot->n_items && slot->confidence >= 0) slot->confidence = (float)(1 / (1 + exp(-odds((double)slot->confidence) - evidence(record, i))));
    }
}

/* ---- one answer ---- */

typedef struct candidate { const char *text; size_t bytes; float presence, confidence; } candidate;

static candidate candidate_of(const rv_key_value *v) {
    bool absent = v->bytes == strlen(RV_NOT_FOUND) && !memcmp(v->value, RV_NOT_FOUND, v->bytes);
    float sure = expf((v->logprob + v->lowest) / 2);
    return (candidate){ v->value, v->bytes, v->presence, absent ? 1 - v->presence : sure };
}

static rv_status add_alternative(rv_record *record, rv_slot *slot, const char *text, rv_error *err) {
    for (uint32_t i = 0; i < slot->n_alternatives; i++)
        if (!strcmp(slot->alternatives[i], text)) return RV_OK;
    const char **all = rv_pool_take(&record->pool, (slot->n_alternatives + 1) * sizeof *all);
    char *copy = rv_pool_text(&record->pool, text, strlen(text));
    if (!all || !copy) return rv_fail_memory(err, "record");
    if (slot->n_alternatives) memcpy(all, slot->alternatives, slot->n_alternatives * sizeof *all);
    all[slot->n_alternatives++] = copy;
    slot->alternatives = all;
    return RV_OK;
}

static rv_status fill(const rv_read_work *w, rv_record *record, uint32_t field, const candidate *c, const char *source, rv_error *err) {
    rv_slot *slot = &record->slots[field], before = *slot;
    rv_status st = rv_record_set_cells(record, field, c->text, c->bytes, source, err);
    if (st) return st;
    slot->alternatives = before.alternatives;
    slot->n_alternatives = before.n_alternatives;
    slot->answered = true;
    slot->presence = c->presence;
    slot->confidence = c->confidence;
    if (!slot->n_items || c->presence >= w->options.presence) return RV_OK;
    const char *raw = slot->raw;                                 /* rather not there than wrong          */
    if ((st = rv_record_set(record, field, RV_NOT_FOUND, strlen(RV_NOT_FOUND), source, err))) return st;
    slot->presence = c->presence;
    slot->confidence = 1 - c->presence;
    return add_alternative(record, slot, raw, err);
}

static bool same(const rv_slot *a, const rv_slot *b) {
    if (a->n_items != b->n_items) return false;
    for (uint32_t i = 0; i < a->n_items; i++)
        if (!rv_value_same(&a->items[i], &b->items[i])) return false;
    return true;
}

/* A value that two answers agree on is surer than either; of two that differ the one with the better odds stays, the earlier one where they are
 * equal. */
static rv_status weigh_against(const rv_read_work *w, rv_record *record, uint32_t field, const candidate *c, const char *source, rv_error *err) {
    rv_slot *slot = &record->slots[field], before = *slot;
    double odds_before = odds((double)before.confidence) + (before.n_items ? evidence(record, field) : 0);
    rv_status st = fill(w, record, field, c, source, err);
    if (st) return st;
    rv_slot after = *slot;
    double odds_after = odds((double)after.confidence) + (after.n_items ? evidence(record, field) : 0);
    if (same(&before, &after)) {
        *slot = before;
        slot->confidence = 1 - (1 - before.confidence) * (1 - after.confidence);
        return RV_OK;
    }
    if (odds_after > odds_before) return before.n_items ? add_alternative(record, slot, before.raw, err) : RV_OK;
    *slot = before;
    return after.n_items ? add_alternative(record, slot, after.raw, err) : RV_OK;
}

/* Columns of a table come from one answer, never cell by cell: where the table is there already, it stays. */
static bool has_table(const rv_record *record, int32_t group, const char *source) {
    for (uint32_t i = 0; i < record->schema->n_fields; i++)
        if (record->schema->fields[i].list && record->schema->fields[i].group == group && record->slots[i].n_items && strcmp(record->slots[i].source, source)) return true;
    return false;
}

rv_status rv_merge_answer(rv_read_work *w, rv_record *record, const rv_job *job, const char *source, rv_error *err) {
    const rv_key_value *values;
    uint32_t n = rv_job_values(job, &values);
    for (uint32_t i = 0; i < n; i++) {
        int32_t at = rv_schema_field(record->schema, values[i].key);
        if (at < 0) continue;
        const rv_field *f = &record->schema->fields[at];
        candidate c = candidate_of(&values[i]);
        w->reading.looped += (values[i].flags & RV_VALUE_LOOPED) != 0;
        if (f->list && f->group >= 0 && has_table(record, f->group, source)) continue;
        rv_status st = record->slots[at].answered ? weigh_against(w, record, (uint32_t)at, &c, source, err) : fill(w, record, (uint32_t)at, &c, source, err);
        if (st) return st;
    }
    return RV_OK;
}
