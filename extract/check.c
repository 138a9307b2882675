/* check.c - all checks of a record, and the summary: see check.h. */
#include "extract/check.h"

#include <string.h>

enum { READY_SCORE = 80 };

static const char *const severities[] = { "info", "warning", "error" }, *const layers[] = { "format", "consistency", "legal" };

const char *rv_severity_name(rv_severity s) { return (unsigned)s < 3 ? severities[s] : "?"; }
const char *rv_layer_name(rv_layer l) { return (unsigned)l < 3 ? layers[l] : "?"; }

static bool find(const char *name, const char *const names[3], int *out) {
    for (*out = 0; name && *out < 3; ++*out)
        if (strcmp(names[*out], name) == 0) return true;
    return false;
}

bool rv_severity_find(const char *name, rv_severity *out) {
    int i;
    bool found = find(name, severities, &i);
    if (found) *out = (rv_severity)i;
    return found;
}

bool rv_layer_find(const char *name, rv_layer *out) {
    int i;
    bool found = find(name, layers, &i);
    if (found) *out = (rv_layer)i;
    return found;
}

const char *rv_gst_class_name(rv_gst_class c) {
    static const char *const names[] = { "unknown", "fully_taxable", "mixed", "gst_free", "not_shown", "impossible" };
    return (unsigned)c < 6 ? names[c] : "?";
}

/* ---- findings --------------------------------------------------------------------------------- */

static const char *keep(rv_record *r, const char *text) {
    const char *copy = text && *text ? rv_pool_text(&r->pool, text, strlen(text)) : "";
    return copy ? copy : "";
}

rv_status rv_check_add(rv_check *c, const char *id, rv_severity severity, rv_layer layer, const uint32_t *fields, uint32_t n_fields, int32_t row,
                       const char *message, const char *expected, const char *actual, const char *suggestion, const char *source) {
    rv_record *r = c->record;
    if (r->n_findings == r->findings_capacity) {
        uint32_t capacity = r->findings_capacity ? 2 * r->findings_capacity : 16;
        rv_finding *larger = rv_pool_take(&r->pool, capacity * sizeof *larger);
        if (!larger) return rv_fail_memory(c->err, "findings");
        if (r->n_findings) memcpy(larger, r->findings, r->n_findings * sizeof *larger);
        r->findings = larger;
        r->findings_capacity = capacity;
    }
    uint32_t *copy = n_fields ? rv_pool_take(&r->pool, n_fields * sizeof *copy) : NULL;
    if (copy) memcpy(copy, fields, n_fields * sizeof *copy);
    r->findings[r->n_findings++] = (rv_finding){ .id = keep(r, id),
                                                 .severity = severity,
                                                 .layer = layer,
                                                 .fields = copy,
                                                 .n_fields = copy ? n_fields : 0,
                                                 .row = row,
                                                 .message = keep(r, message),
                                                 .expected = keep(r, expected),
                                                 .actual = keep(r, actual),
                                                 .suggestion = keep(r, suggestion),
                                                 .source = keep(r, source) };
    return r->pool.failed ? rv_fail_memory(c->err, "findings") : RV_OK;
}

rv_status rv_check_recommend(rv_check *c, const char *text) {
    rv_compliance *to = &c->record->compliance;
    if (!text || !*text) return RV_OK;
    for (uint32_t i = 0; i < to->n_recommendations; i++)
        if (strcmp(to->recommendations[i], text) == 0) return RV_OK;
    const char **larger = rv_pool_take(&c->record->pool, (to->n_recommendations + 1) * sizeof *larger);
    if (!larger) return rv_fail_memory(c->err, "findings");
    for (uint32_t i = 0; i < to->n_recommendations; i++) larger[i] = to->recommendations[i];
    larger[to->n_recommendations++] = keep(c->record, text);
    to->recommendations = larger;
    return RV_OK;
}

/* ---- GST ---------------------------------------------------------------------------------------- */

static const rv_value *amount(const rv_record *r, const char *key, const char *other) {
    const rv_value *v = rv_record_value(r, key);
    if (!v) v = rv_record_value(r, other);
    return v && v->kind == RV_KIND_MONEY && !v->inexact ? v : NULL;
}

/* Rounding line by line or on the total may differ: the tolerance is 1 cent and half of one a line, as in the rule gst.range. */
rv_gst_class rv_gst_classify(const rv_record *record) {
    const rv_value *total = amount(record, "TOTAL_AMOUNT", "TOTAL"), *gst = amount(record, "GST_AMOUNT", "GST");
    if (!total) return RV_GST_UNKNOWN;
    if (!gst) return RV_GST_NOT_SHOWN;
    int64_t lines = rv_record_rows(record, 0), t = total->number, g = gst->number;
    if (t < 0) t = -t, g = g < 0 ? -g : g;                 /* a refund mirrors a sale; its GST may be printed without a sign */
    int64_t beyond = g - (t / 11 + (t % 11 * 2 >= 11));
    if (g < 0 || 2 * beyond > lines + 2) return RV_GST_IMPOSSIBLE;
    if (g == 0) return RV_GST_FREE;
    return -2 * beyond <= lines + 2 ? RV_GST_FULLY_TAXABLE : RV_GST_MIXED;
}

/* ---- summary ------------------------------------------------------------------------------------ */

/* No invoice for GST is good that shows an amount which cannot be. */
static rv_tristate gate_of(const rv_check *c, rv_gate gate) {
    const bool impossible = gate != RV_GATE_DEDUCTION && c->record->compliance.gst_class == RV_GST_IMPOSSIBLE;
    if (c->gates[gate] == RV_NO || (impossible && c->gates[gate] == RV_YES)) return RV_NO;
    return c->gate_open[gate] ? RV_UNKNOWN : c->gates[gate];
}

static bool doubtful(const rv_record *r) {
    for (uint32_t i = 0; i < r->n_findings; i++)
        if (r->findings[i].severity == RV_SEVERITY_ERROR) return true;
    for (uint32_t i = 0; i < r->schema->n_fields; i++) {
        const rv_slot *slot = &r->slots[i];
        if (slot->n_items && slot->confidence >= 0 && (double)slot->confidence < r->schema->fields[i].min_confidence) return true;
    }
    return false;
}

static void summarise(rv_check *c) {
    rv_compliance *to = &c->record->compliance;
    to->checked = true;
    to->score = c->tally.applied > 0 ? 100 * c->tally.passed / c->tally.applied : -1;
    to->gst_class = rv_gst_classify(c->record);
    to->tax_invoice_valid = gate_of(c, RV_GATE_TAX_INVOICE);
    to->gst_credit_claimable = gate_of(c, RV_GATE_GST_CREDIT);
    to->deduction_evidence = gate_of(c, RV_GATE_DEDUCTION);
    to->needs_review = doubtful(c->record) || (to->score >= 0 && to->score < READY_SCORE);
}

rv_status rv_record_check(rv_record *record, rv_error *err) {
    rv_check c = { .record = record, .err = err };
    if (!record) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_check: record is NULL");
    rv_status st = rv_record_enter(record, "rv_record_check", err);
    if (st) return st;
    record->n_findings = 0;
    record->compliance = (rv_compliance){ .score = -1, .rules = "" };
    TRY(rv_check_dates(&c));
    TRY(rv_check_format(&c));
    TRY(rv_check_rows(&c));
    TRY(rv_check_rules(&c));
    summarise(&c);
done:
    rv_record_leave(record);
    return st;
}
