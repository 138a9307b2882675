/* reader.c - asking questions about a page; what is made once for all pages. */
#include "engine/reader.h"

#include <stdlib.h>
#include <string.h>

#include "engine/form.h"
#include "engine/session.h"

rv_status rv_reader_new(rv_session *session, rv_reader **out, rv_error *err) {
    if (!out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_reader_new: out is NULL");
    if (!session && !rv_ocr_version())
        return rv_fail(err, RV_ERR_UNSUPPORTED, "without a model pages are read by Tesseract, and " RV_OCR_MISSING);
    rv_reader *r = calloc(1, sizeof *r);
    if (!r) return rv_fail_memory(err, "reader");
    r->session = session;
    if (session) r->tokenizer = rv_model_tokenizer(session->model);
    *out = r;
    return RV_OK;
}

void rv_reader_free(rv_reader *r) {
    if (!r) return;
    for (uint32_t i = 0; i < r->n_forms; i++) {
        rv_constraint_free(r->forms[i].form);
        rv_schema_free(r->forms[i].schema);
    }
    for (uint32_t i = 0; i < r->n_schemas; i++) rv_schema_free(r->schemas[i]);
    free(r->forms);
    free(r->schemas);
    rv_ocr_free(r->ocr);
    free(r);
}

rv_status rv_reader_form(rv_reader *r, const rv_schema *schema, int32_t part, bool strict, rv_constraint **out, rv_error *err) {
    for (uint32_t i = 0; i < r->n_forms; i++)
        if (r->forms[i].schema == schema && r->forms[i].part == part && r->forms[i].strict == strict) return *out = r->forms[i].form, RV_OK;
    rv_made_form *forms = realloc(r->forms, (r->n_forms + 1) * sizeof *forms);
    if (!forms) return rv_fail_memory(err, "reader");
    r->forms = forms;
    rv_made_form *made = &forms[r->n_forms];
    *made = (rv_made_form){ NULL, part, strict, NULL };
    rv_status st = rv_form_new(r->tokenizer, schema, part, strict, &made->form, err);
    if (st) return st;
    made->schema = rv_schema_retain(schema);         /* nobody else may get its address meanwhile */
    r->n_forms++;
    *out = made->form;
    return RV_OK;
}

static rv_status keep_schema(rv_reader *r, rv_schema *schema, rv_error *err) {
    rv_schema **schemas = realloc(r->schemas, (r->n_schemas + 1) * sizeof(rv_schema *));
    if (!schemas) return rv_schema_free(schema), rv_fail_memory(err, "reader");
    r->schemas = schemas;
    schemas[r->n_schemas++] = schema;
    return RV_OK;
}

/* Those that take part in classification stand for their type; "universal" for all others. */
rv_status rv_reader_schema(rv_reader *r, const char *doctype, const rv_schema **out, rv_error *err) {
    rv_status st = RV_OK;
    if (r->n_schemas == 0)
        for (uint32_t i = 0; i < rv_schema_count() && st == RV_OK; i++) {
            rv_schema *schema;
            if ((st = rv_schema_open(rv_schema_name(i), &schema, err))) break;
            if (schema->evidence.rank || !strcmp(schema->name, "universal")) st = keep_schema(r, schema, err);
            else rv_schema_free(schema);
        }
    *out = NULL;
    for (uint32_t i = 0; i < r->n_schemas && st == RV_OK; i++)
        if (doctype && !strcmp(r->schemas[i]->doctype, doctype)) *out = r->schemas[i];
    return st;
}

/* ---- asking ---- */

static rv_status submit(rv_read_work *w, rv_ask *ask, rv_error *err) {
    rv_part parts[] = { { .size = sizeof(rv_part), .picture = w->picture }, { .size = sizeof(rv_part), .text = ask->question } };
    rv_message message = { .size = sizeof message, .role = "user", .parts = parts, .n_parts = 2 };
    rv_request request = { .size = sizeof request, .messages = &message, .n_messages = 1, .constraint = ask->form, .max_tokens = ask->max_tokens };
    rv_status st;
    while ((st = rv_submit(w->reader->session, &request, &ask->job, &ask->error)) == RV_ERR_FULL)
        if ((st = rv_step(w->reader->session, NULL, err))) return st;
    w->reading.prompts++;
    if (st == RV_ERR_MEMORY) return *err = ask->error, st;
    return RV_OK;
}

static bool all_ended(const rv_ask *asks, uint32_t n) {
    for (uint32_t i = 0; i < n; i++)
        if (asks[i].job && rv_job_get_state(asks[i].job) <= RV_JOB_RUNNING) return false;
    return true;
}

static void count(rv_read_work *w, rv_ask *ask) {
    rv_stats s = { .size = sizeof s };
    if (!ask->job || rv_job_get_stats(ask->job, &s)) return;
    w->reading.prompt_tokens += s.prompt_tokens;
    w->reading.chosen_tokens += s.answer_tokens - s.forced_tokens;
    w->reading.forced_tokens += s.forced_tokens;
    w->reading.steps += s.steps;
    w->reading.vision_ms += s.vision_ms;
    w->reading.cut += rv_job_get_state(ask->job) == RV_JOB_CUT_SHORT;
    if (rv_job_get_state(ask->job) == RV_JOB_COMPLETE || rv_job_get_state(ask->job) == RV_JOB_CUT_SHORT) return;
    rv_job_get_error(ask->job, &ask->error);
    rv_job_free(ask->job);
    ask->job = NULL;
}

rv_status rv_ask_all(rv_read_work *w, rv_ask *asks, uint32_t n, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < n; i++) {
        if (!asks[i].max_tokens) asks[i].max_tokens = w->options.max_tokens;
        TRY(submit(w, &asks[i], err));
    }
    while (!all_ended(asks, n)) {
        if (w->options.stop && w->options.stop(w->options.user)) TRY(rv_fail(err, RV_ERR_CANCELLED, "reading was stopped"));
        TRY(rv_step(w->reader->session, NULL, err));
    }
    for (uint32_t i = 0; i < n; i++) count(w, &asks[i]);
done:
    if (st) rv_asks_free(asks, n);
    return st;
}

void rv_asks_free(rv_ask *asks, uint32_t n) {
    for (uint32_t i = 0; i < n; i++) {
        rv_job_free(asks[i].job);
        asks[i].job = NULL;
    }
}
