/* write_json.c - the whole record as JSON.
 *
 *     { "schema": "receipt@1.0.0#0123456789abcdef", "document": {..}, "fields": { "TOTAL_AMOUNT": { "value": "$94.87", "cents": 9487, "raw": ..,
 *       "valid": true, .. } }, "tables": { "lines": [{..}] }, "findings": [..], "compliance": {..} }
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "extract/check.h"
#include "extract/write.h"

static json_t *text(const char *s) { return json_string(s ? s : ""); }

static json_t *date(rv_date d) {
    char iso[40];
    if (!d.year) return json_null();
    snprintf(iso, sizeof iso, "%04d-%02d-%02d", d.year, d.month, d.day);
    return json_string(iso);
}

/* JSON keeps six decimals: what is smaller is noise. */
static json_t *share(float p) { return json_real((double)(int)(p * 1e6f + 0.5f) / 1e6); }

/* ---- one value ------------------------------------------------------------------------------------- */

static json_t *plain(const rv_value *v) {
    if (v->state == RV_VALUE_ABSENT) return json_null();
    if (v->kind == RV_KIND_BOOL && v->state == RV_VALUE_VALID) return json_boolean(v->number);
    return text(v->text);
}

static json_t *exact(int64_t thousandths) {
    return json_sprintf("%s%" PRId64 ".%03d", thousandths < 0 ? "-" : "", thousandths < 0 ? -thousandths / 1000 : thousandths / 1000,
                        (int)((thousandths < 0 ? -thousandths : thousandths) % 1000));
}

static void add_sign(json_t *to, const rv_value *v) {
    static const char *const names[] = { NULL, "minus", "brackets", "CR", "DR" };
    if (v->sign_by) json_object_set_new(to, "sign", text(names[v->sign_by]));
}

/* What the kind knows beyond the text. */
static void add_typed(json_t *to, const rv_value *v) {
    static const char *const by[] = { "locale", "month_name", "iso", "only_valid", "document" };
    if (v->state != RV_VALUE_VALID) return;
    switch (v->kind) {
    case RV_KIND_MONEY:
        json_object_set_new(to, "cents", json_integer(v->number));
        json_object_set_new(to, "currency", text(v->currency));
        if (v->currency_assumed) json_object_set_new(to, "currency_assumed", json_true());
        if (v->inexact) json_object_set_new(to, "inexact", json_true());
        add_sign(to, v);
        break;
    case RV_KIND_QUANTITY: case RV_KIND_PERCENT: json_object_set_new(to, "number", exact(v->number)); break;
    case RV_KIND_DATE:
        json_object_set_new(to, "iso", date(v->first));
        json_object_set_new(to, "resolved_by", text(by[v->date_by]));
        if (v->ambiguous) json_object_set_new(to, "ambiguous", json_true());
        break;
    case RV_KIND_DATE_RANGE:
        json_object_set_new(to, "from", date(v->first));
        json_object_set_new(to, "to", date(v->last));
        break;
    default: break;
    }
}

static json_t *boxes(const rv_slot *slot) {
    json_t *all = json_array();
    for (uint32_t i = 0; i < slot->n_boxes; i++) {
        const rv_box *b = &slot->boxes[i];
        json_array_append_new(all, json_pack("[f,f,f,f]", (double)b->x, (double)b->y, (double)b->width, (double)b->height));
    }
    return all;
}

/* ---- one field -------------------------------------------------------------------------------------- */

static json_t *list_values(const rv_slot *slot) {
    json_t *all = json_array();
    for (uint32_t i = 0; i < slot->n_items; i++) json_array_append_new(all, plain(&slot->items[i]));
    return all;
}

static json_t *list_cents(const rv_slot *slot) {
    json_t *all = json_array();
    for (uint32_t i = 0; i < slot->n_items; i++)
        json_array_append_new(all, slot->items[i].state == RV_VALUE_VALID ? json_integer(slot->items[i].number) : json_null());
    return all;
}

static bool all_valid(const rv_slot *slot) {
    for (uint32_t i = 0; i < slot->n_items; i++)
        if (slot->items[i].state == RV_VALUE_INVALID) return false;
    return true;
}

static json_t *findings_of(const rv_record *r, uint32_t field) {
    json_t *ids = json_array();
    for (uint32_t i = 0; i < r->n_findings; i++)
        for (uint32_t f = 0; f < r->findings[i].n_fields; f++)
            if (r->findings[i].fields[f] == field) json_array_append_new(ids, text(r->findings[i].id));
    return ids;
}

static void add_evidence(json_t *to, const rv_slot *slot) {
    if (slot->presence >= 0) json_object_set_new(to, "presence", share(slot->presence));
    if (slot->confidence >= 0) json_object_set_new(to, "confidence", share(slot->confidence));
    if (slot->grounding >= 0) json_object_set_new(to, "grounding", share(slot->grounding));
    if (*slot->source) json_object_set_new(to, "source", text(slot->source));
    if (slot->n_boxes) json_object_set_new(to, "boxes", boxes(slot));
    if (slot->n_alternatives) {
        json_t *all = json_array();
        for (uint32_t i = 0; i < slot->n_alternatives; i++) json_array_append_new(all, text(slot->alternatives[i]));
        json_object_set_new(to, "alternatives", all);
    }
}

static json_t *field_json(const rv_record *r, uint32_t i) {
    const rv_field *field = &r->schema->fields[i];
    const rv_slot *slot = &r->slots[i];
    json_t *to = json_object();
    if (slot->n_items == 0) json_object_set_new(to, "value", json_null());
    else if (field->list) {
        json_object_set_new(to, "value", list_values(slot));
        if (field->kind == RV_KIND_MONEY) json_object_set_new(to, "cents", list_cents(slot));
        json_object_set_new(to, "valid", json_boolean(all_valid(slot)));
    } else {
        json_object_set_new(to, "value", plain(slot->items));
        add_typed(to, slot->items);
        json_object_set_new(to, "valid", json_boolean(slot->items->state == RV_VALUE_VALID));
        if (slot->items->why) json_object_set_new(to, "why", text(slot->items->why));
    }
    if (slot->n_items) json_object_set_new(to, "raw", text(slot->raw));
    add_evidence(to, slot);
    json_t *ids = findings_of(r, i);
    if (json_array_size(ids)) json_object_set(to, "findings", ids);
    json_decref(ids);
    return to;
}

/* ---- the record ---------------------------------------------------------------------------------------- */

/* Rows of a group as objects: what a program wants to loop over. */
static json_t *table_json(const rv_record *r, int32_t group) {
    json_t *rows = json_array();
    uint32_t n = rv_record_rows(r, group);
    for (uint32_t row = 0; row < n; row++) {
        json_t *cells = json_object();
        for (uint32_t i = 0; i < r->schema->n_fields; i++) {
            if (r->schema->fields[i].group != group) continue;
            json_object_set_new(cells, r->schema->fields[i].key, row < r->slots[i].n_items ? plain(&r->slots[i].items[row]) : json_null());
        }
        json_array_append_new(rows, cells);
    }
    return rows;
}

static json_t *finding_json(const rv_record *r, const rv_finding *f) {
    json_t *to = json_object(), *fields = json_array();
    for (uint32_t i = 0; i < f->n_fields; i++) json_array_append_new(fields, text(r->schema->fields[f->fields[i]].key));
    json_object_set_new(to, "id", text(f->id));
    json_object_set_new(to, "severity", text(rv_severity_name(f->severity)));
    json_object_set_new(to, "layer", text(rv_layer_name(f->layer)));
    json_object_set_new(to, "fields", fields);
    if (f->row >= 0) json_object_set_new(to, "row", json_integer(f->row + 1));
    json_object_set_new(to, "message", text(f->message));
    if (*f->expected) json_object_set_new(to, "expected", text(f->expected));
    if (*f->actual) json_object_set_new(to, "actual", text(f->actual));
    if (*f->suggestion) json_object_set_new(to, "suggestion", text(f->suggestion));
    if (*f->source) json_object_set_new(to, "source", text(f->source));
    return to;
}

static json_t *tristate(rv_tristate t) { return t == RV_UNKNOWN ? json_null() : json_boolean(t == RV_YES); }

static json_t *compliance_json(const rv_record *r) {
    const rv_compliance *c = &r->compliance;
    json_t *to = json_object(), *advice = json_array();
    for (uint32_t i = 0; i < c->n_recommendations; i++) json_array_append_new(advice, text(c->recommendations[i]));
    json_object_set_new(to, "score", c->score >= 0 ? json_real((double)(int)(c->score * 10 + 0.5) / 10) : json_null());
    json_object_set_new(to, "gst", text(rv_gst_class_name(c->gst_class)));
    json_object_set_new(to, "tax_invoice_valid", tristate(c->tax_invoice_valid));
    json_object_set_new(to, "gst_credit_claimable", tristate(c->gst_credit_claimable));
    json_object_set_new(to, "deduction_evidence", tristate(c->deduction_evidence));
    json_object_set_new(to, "needs_review", json_boolean(c->needs_review));
    json_object_set_new(to, "recommendations", advice);
    json_object_set_new(to, "rules", text(c->rules));
    return to;
}

static json_t *document_json(const rv_record *r) {
    json_t *to = json_object();
    json_object_set_new(to, "file", text(r->file));
    if (r->page_width) json_object_set_new(to, "width", json_integer(r->page_width));
    if (r->page_height) json_object_set_new(to, "height", json_integer(r->page_height));
    if (*r->doctype) json_object_set_new(to, "type", text(r->doctype));
    if (r->doctype_confidence >= 0) json_object_set_new(to, "type_confidence", share(r->doctype_confidence));
    if (r->masked) json_object_set_new(to, "masked_numbers", json_integer(r->masked));
    return to;
}

json_t *rv_record_json(const rv_record *r) {
    json_t *to = json_object(), *fields = json_object(), *tables = json_object(), *findings = json_array();
    for (uint32_t i = 0; i < r->schema->n_fields; i++) json_object_set_new(fields, r->schema->fields[i].key, field_json(r, i));
    for (uint32_t g = 0; g < r->schema->n_groups; g++) json_object_set_new(tables, r->schema->groups[g], table_json(r, (int32_t)g));
    for (uint32_t i = 0; i < r->n_findings; i++) json_array_append_new(findings, finding_json(r, &r->findings[i]));
    json_object_set_new(to, "schema", json_sprintf("%s@%s#%016" PRIx64, r->schema->name, r->schema->version, r->schema->hash));
    json_object_set_new(to, "document", document_json(r));
    json_object_set_new(to, "fields", fields);
    if (r->schema->n_groups) json_object_set(to, "tables", tables);
    json_decref(tables);
    if (r->compliance.checked) {
        json_object_set(to, "findings", findings);
        json_object_set_new(to, "compliance", compliance_json(r));
    }
    json_decref(findings);
    return to;
}
