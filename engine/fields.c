/* fields.c - the public functions of rvextract.h that need a caller's structs read; what they do is in extract/. */
#include <stdlib.h>
#include <string.h>

#include "engine/abi.h"
#include "engine/base/json_tree.h"
#include "engine/base/text.h"
#include "engine/rvextract.h"
#include "extract/documents.h"
#include "extract/check.h"
#include "extract/evaluate.h"
#include "extract/write.h"

void rv_text_free(char *text) { free(text); }

/* ---- schemas ------------------------------------------------------------------------------------ */

static const rv_data_file *schema_file(uint32_t i) {
    for (size_t k = 0; k < rv_data_files_count; k++)
        if (strncmp(rv_data_files[k].name, "schemas/", 8) == 0 && i-- == 0) return &rv_data_files[k];
    return NULL;
}

uint32_t rv_schema_count(void) {
    uint32_t n = 0;
    while (schema_file(n)) n++;
    return n;
}

/* The names are constants: "schemas/receipt.json" has its stem in a table of its own. */
const char *rv_schema_name(uint32_t i) {
    const rv_data_file *file = schema_file(i);
    return file ? file->stem : NULL;
}

const char *rv_schema_source(const char *name, size_t *bytes) {
    for (uint32_t i = 0; name && schema_file(i); i++) {
        const rv_data_file *file = schema_file(i);
        if (strcmp(file->stem, name)) continue;
        if (bytes) *bytes = file->bytes;
        return file->data;
    }
    return NULL;
}

rv_status rv_schema_get_info(const rv_schema *schema, rv_schema_info *out, rv_error *err) {
    if (!schema) return rv_fail(err, RV_ERR_ARGUMENT, "rv_schema_get_info: schema is NULL");
    rv_schema_info info = { .name = schema->name,
                            .title = schema->title,
                            .version = schema->version,
                            .description = schema->description,
                            .doctype = schema->doctype,
                            .fields = schema->n_fields,
                            .parts = schema->n_parts,
                            .strategy = schema->strategies.items[0],
                            .hash = schema->hash };
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        info.required += schema->fields[i].required;
        info.lists += schema->fields[i].list;
    }
    return rv_abi_write(out, &info, sizeof info, "rv_schema_info", err);
}

rv_status rv_schema_get_field(const rv_schema *schema, uint32_t i, rv_field_info *out, rv_error *err) {
    if (!schema) return rv_fail(err, RV_ERR_ARGUMENT, "rv_schema_get_field: schema is NULL");
    if (i >= schema->n_fields) return rv_fail(err, RV_ERR_ARGUMENT, "field %u: schema %s has %u", i, schema->name, schema->n_fields);
    const rv_field *f = &schema->fields[i];
    rv_field_info info = { .key = f->key,
                           .title = f->title,
                           .prompt = f->prompt,
                           .kind = rv_kind_name(f->kind),
                           .group = f->group < 0 ? "" : schema->groups[f->group],
                           .list = f->list,
                           .required = f->required,
                           .critical = f->critical,
                           .aliases = f->aliases.count,
                           .choices = f->choices.count };
    return rv_abi_write(out, &info, sizeof info, "rv_field_info", err);
}

rv_status rv_schema_question(const rv_schema *schema, int32_t part, char **out, rv_error *err) {
    if (!schema || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_schema_question: %s is NULL", !schema ? "schema" : "out");
    if (part >= 0 && (uint32_t)part >= schema->n_parts)
        return rv_fail(err, RV_ERR_ARGUMENT, "part %d: schema %s has %u", part, schema->name, schema->n_parts);
    char *text = rv_schema_prompt(schema, part);
    if (!text) return rv_fail_memory(err, "question");
    *out = text;
    return RV_OK;
}

/* ---- records --------------------------------------------------------------------------------------- */

/* The caller's options in full, and what of them a record needs. */
static rv_status read_setup(const rv_record_options *options, rv_record_options *full, rv_record_setup *out, rv_error *err) {
    rv_status st = options ? rv_abi_read(full, sizeof *full, options, "rv_record_options", err) : RV_OK;
    if (st) return st;
    rv_record_options o = *full;
    *out = (rv_record_setup){
        .file = o.file, .page_text = o.page_text, .page_width = o.page_width, .page_height = o.page_height, .allow_tfn = o.allow_tfn != 0,
        .allow_account = o.allow_account != 0
    };
    if (o.today && !rv_date_parse_iso(o.today, &out->today))
        return rv_fail(err, RV_ERR_ARGUMENT, "today \"%.40s\": must be a day as 2026-07-26", o.today);
    return RV_OK;
}

rv_status rv_record_new(const rv_schema *schema, const rv_record_options *options, rv_record **out, rv_error *err) {
    rv_record_options full = { 0 };
    rv_record_setup setup;
    if (!schema || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_new: %s is NULL", !schema ? "schema" : "out");
    rv_status st = read_setup(options, &full, &setup, err);
    return st ? st : rv_record_make(schema, &setup, out, err);
}

rv_status rv_record_put(rv_record *record, const char *key, const char *text, size_t bytes, const char *source, rv_error *err) {
    bool no_text = !text && bytes > 0;
    if (!record || !key || no_text) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_put: %s is NULL", !record ? "record" : !key ? "key" : "text");
    int32_t i = rv_schema_find(record->schema, key, strlen(key));
    if (i < 0) return rv_fail(err, RV_ERR_ARGUMENT, "%.80s: schema %s has no such field", key, record->schema->name);
    rv_status st = rv_record_enter(record, "rv_record_put", err);
    if (st) return st;
    st = rv_record_set(record, (uint32_t)i, text ? text : "", bytes, source, err);
    rv_record_leave(record);
    return st;
}

/* Texts that it hands out are the record's. */
static rv_status get(rv_record *record, uint32_t field, rv_result *out, rv_error *err) {
    if (field >= record->schema->n_fields)
        return rv_fail(err, RV_ERR_ARGUMENT, "field %u: schema %s has %u", field, record->schema->name, record->schema->n_fields);
    const rv_slot *slot = &record->slots[field];
    const rv_field *f = &record->schema->fields[field];
    rv_string text = { 0 };
    rv_slot_text(record, field, &text);
    const char *copy = text.failed ? NULL : rv_pool_text(&record->pool, text.data, text.bytes);
    rv_string_free(&text);
    if (!copy) return rv_fail_memory(err, f->key);
    rv_result result = { .key = f->key, .kind = rv_kind_name(f->kind), .text = copy, .raw = slot->raw, .items = slot->n_items, .valid = 1,
                         .presence = slot->presence, .confidence = slot->confidence, .grounding = slot->grounding, .source = slot->source };
    for (uint32_t i = 0; i < slot->n_items; i++) result.valid = result.valid && slot->items[i].state != RV_VALUE_INVALID;
    return rv_abi_write(out, &result, sizeof result, "rv_result", err);
}

rv_status rv_record_get(rv_record *record, uint32_t field, rv_result *out, rv_error *err) {
    if (!record) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_get: record is NULL");
    rv_status st = rv_record_enter(record, "rv_record_get", err);
    if (st) return st;
    st = get(record, field, out, err);
    rv_record_leave(record);
    return st;
}

static int32_t known(rv_tristate t) { return t == RV_UNKNOWN ? -1 : t == RV_YES; }

static rv_status summarise(const rv_record *record, rv_summary *out, rv_error *err) {
    const rv_compliance *c = &record->compliance;
    rv_summary s = { .score = c->score,
                     .findings = record->n_findings,
                     .tax_invoice_valid = known(c->tax_invoice_valid),
                     .gst_credit_claimable = known(c->gst_credit_claimable),
                     .deduction_evidence = known(c->deduction_evidence),
                     .needs_review = c->needs_review,
                     .gst = rv_gst_class_name(c->gst_class),
                     .masked = record->masked,
                     .fields = record->schema->n_fields };
    if (!c->checked) return rv_fail(err, RV_ERR_ARGUMENT, "the record was not checked: call rv_record_check first");
    for (uint32_t i = 0; i < record->n_findings; i++) {
        s.warnings += record->findings[i].severity == RV_SEVERITY_WARNING;
        s.errors += record->findings[i].severity == RV_SEVERITY_ERROR;
    }
    for (uint32_t i = 0; i < record->schema->n_fields; i++) s.found += record->slots[i].n_items > 0;
    return rv_abi_write(out, &s, sizeof s, "rv_summary", err);
}

rv_status rv_record_get_summary(const rv_record *record, rv_summary *out, rv_error *err) {
    if (!record) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_get_summary: record is NULL");
    rv_status st = rv_record_enter(record, "rv_record_get_summary", err);
    if (st) return st;
    st = summarise(record, out, err);
    rv_record_leave(record);
    return st;
}

/* ---- reports ------------------------------------------------------------------------------------------ */

static rv_status write_json(const rv_record *record, bool lines, rv_string *out, rv_error *err) {
    json_t *root = rv_record_json(record);
    char *text = root ? rv_json_dump(root, (lines ? JSON_COMPACT : JSON_INDENT(2)) | JSON_REAL_PRECISION(9)) : NULL;
    json_decref(root);
    if (!text) return rv_fail_memory(err, "report");
    rv_string_addz(out, text);
    rv_string_addz(out, "\n");
    free(text);
    return RV_OK;
}

static rv_status write_html(const rv_record *record, const rv_write_options *o, rv_string *out, rv_error *err) {
    rv_page_image image = { o->image, o->image_bytes, o->image_link };
    rv_status st = RV_OK;
    if (o->parts & RV_WRITE_HEAD) rv_write_html_head(out);
    if (o->parts & RV_WRITE_RECORD) st = rv_write_html(record, &image, out, err);
    if (o->parts & RV_WRITE_TAIL) rv_write_html_tail(out);
    return st;
}

static rv_status write_form(const rv_record *record, rv_form form, const rv_write_options *o, rv_string *out, rv_error *err) {
    rv_status st = RV_OK;
    switch (form) {
    case RV_FORM_KV: rv_write_kv(record, out); break;
    case RV_FORM_JSON: case RV_FORM_JSONL: st = write_json(record, form == RV_FORM_JSONL, out, err); break;
    case RV_FORM_CSV:
        if (o->parts & RV_WRITE_HEAD) rv_write_csv_head(record->schema, out);
        if (o->parts & RV_WRITE_RECORD) rv_write_csv_row(record, out);
        break;
    case RV_FORM_MARKDOWN: rv_write_markdown(record, out); break;
    case RV_FORM_HTML: st = write_html(record, o, out, err); break;
    default: return rv_fail(err, RV_ERR_ARGUMENT, "form %d: there is none of that number", form);
    }
    return st;
}

rv_status rv_record_write(const rv_record *record, rv_form form, const rv_write_options *options, char **text, size_t *bytes, rv_error *err) {
    rv_write_options o = { 0 };
    rv_string out = { 0 };
    if (!record || !text) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_write: %s is NULL", !record ? "record" : "text");
    rv_status st = options ? rv_abi_read(&o, sizeof o, options, "rv_write_options", err) : RV_OK;
    if (st == RV_OK && !o.image && o.image_bytes) st = rv_fail(err, RV_ERR_ARGUMENT, "rv_write_options.image: is NULL, and image_bytes is not 0");
    if (st == RV_OK) st = rv_record_enter(record, "rv_record_write", err);
    if (st) return st;
    if (!o.parts) o.parts = RV_WRITE_HEAD | RV_WRITE_RECORD | RV_WRITE_TAIL;
    st = write_form(record, form, &o, &out, err);
    rv_record_leave(record);
    rv_string_add(&out, "", 0);
    if (st == RV_OK && out.failed) st = rv_fail_memory(err, "report");
    if (st) {
        rv_string_free(&out);
        return st;
    }
    *text = out.data;
    if (bytes) *bytes = out.bytes;
    return RV_OK;
}

/* ---- files of fields ------------------------------------------------------------------------------------ */

typedef struct caller { rv_record_fn each; void *user; rv_unknown_fn unknown; void *unknown_user; } caller;

static rv_status call_each(void *user, rv_record *record, uint32_t line, rv_error *err) {
    const caller *c = user;
    (void)line;
    int32_t stop = c->each(c->user, record);
    rv_record_free(record);
    return stop ? rv_fail(err, RV_ERR_CANCELLED, "stopped by the caller") : RV_OK;
}

static void call_unknown(void *user, const char *key, uint32_t line) {
    const caller *c = user;
    if (c->unknown) c->unknown(c->unknown_user, key, line);
}

rv_status rv_records_read(const rv_schema *schema, const rv_record_options *options, const char *file, const char *text, size_t bytes,
                          rv_record_fn each, void *user, rv_error *err) {
    rv_record_options o = { 0 };
    rv_record_setup setup;
    bool no_text = !text && bytes > 0;
    if (!schema || no_text || !each) return rv_fail(err, RV_ERR_ARGUMENT, "rv_records_read: %s is NULL", !schema ? "schema" : no_text ? "text" : "each");
    rv_status st = read_setup(options, &o, &setup, err);
    if (st) return st;
    caller c = { each, user, o.unknown, o.unknown_user };
    rv_document_reader reader = { .schema = schema, .setup = &setup, .file = file ? file : "fields", .each = call_each, .unknown = call_unknown, .user = &c };
    return rv_documents_read(&reader, text, bytes, err);
}

/* ---- evaluation -------------------------------------------------------------------------------------------- */

/* *run with a name in any case. */
static rv_status read_run(const rv_run *run, const char *function, const char *what, rv_run *out, rv_error *err) {
    if (!run || (!run->text && run->bytes > 0)) return rv_fail(err, RV_ERR_ARGUMENT, "%s: %s%s is NULL", function, what, run ? ".text" : "");
    *out = *run;
    if (!out->name) out->name = what;
    return RV_OK;
}

rv_status rv_evaluate(const rv_schema *schema, const rv_run *truth, const rv_run *run, const rv_run *other, const rv_eval_options *options,
                      char **report, rv_error *err) {
    rv_eval_options o = { 0 };
    rv_run t, a, b;
    if (!schema || !report) return rv_fail(err, RV_ERR_ARGUMENT, "rv_evaluate: %s is NULL", !schema ? "schema" : "report");
    rv_status st = options ? rv_abi_read(&o, sizeof o, options, "rv_eval_options", err) : RV_OK;
    if (st == RV_OK) st = read_run(truth, "rv_evaluate", "truth", &t, err);
    if (st == RV_OK) st = read_run(run, "rv_evaluate", "run", &a, err);
    if (st == RV_OK && other) st = read_run(other, "rv_evaluate", "other", &b, err);
    if (st) return st;
    if (!o.resamples) o.resamples = 2000;
    if (o.resamples > 1000000) return rv_fail(err, RV_ERR_ARGUMENT, "resamples: at most 1000000");
    return rv_eval_run(schema, &t, &a, other ? &b : NULL, &o, report, err);
}

rv_status rv_lint(const rv_schema *schema, const rv_run *truth, rv_report_form form, char **report, uint32_t *problems, rv_error *err) {
    rv_run t;
    if (!schema || !report || !problems) return rv_fail(err, RV_ERR_ARGUMENT, "rv_lint: %s is NULL", !schema ? "schema" : !report ? "report" : "problems");
    if (form < RV_REPORT_TEXT || form > RV_REPORT_MARKDOWN) return rv_fail(err, RV_ERR_ARGUMENT, "report form %d: there is none of that number", form);
    rv_status st = read_run(truth, "rv_lint", "truth", &t, err);
    return st ? st : rv_lint_run(schema, &t, form, report, problems, err);
}
