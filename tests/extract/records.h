/* records.h - records for tests: from KEY: VALUE text, checked or not, and written. */
#ifndef RV_TESTS_EXTRACT_RECORDS_H
#define RV_TESTS_EXTRACT_RECORDS_H
#include "tests/extract/words.h"

#include "engine/rvextract.h"
#include "extract/check.h"
#include "extract/record.h"

static inline rv_schema *schema_of(const char *name) {
    rv_schema *schema = NULL;
    rv_error err;
    if (rv_schema_open(name, &schema, &err)) fail_msg("%s", err.message);
    return schema;
}

static inline rv_record *record_of(const rv_schema *schema, const char *text) {
    rv_record *record = NULL;
    rv_error err;
    rv_record_options options = { .size = sizeof options, .file = "page.jpg", .today = "2024-06-30" };
    if (rv_record_new(schema, &options, &record, &err) || rv_record_parse(record, text, strlen(text), "free", NULL, &err))
        fail_msg("%s", err.message);
    return record;
}

static inline rv_record *checked(const rv_schema *schema, const char *text) {
    rv_record *record = record_of(schema, text);
    rv_error err;
    if (rv_record_check(record, &err)) fail_msg("%s", err.message);
    return record;
}

/* The field's normal form; a static buffer, good until the next call. */
static inline const char *text_of(rv_record *record, const char *key) {
    static char text[4096];
    rv_result result = { .size = sizeof result };
    int32_t i = rv_schema_field(record->schema, key);
    if (i < 0 || rv_record_get(record, (uint32_t)i, &result, NULL)) fail_msg("no field %s", key);
    snprintf(text, sizeof text, "%s", result.text);
    return text;
}

static inline const rv_finding *finding(const rv_record *record, const char *id) {
    for (uint32_t i = 0; i < record->n_findings; i++)
        if (strcmp(record->findings[i].id, id) == 0) return &record->findings[i];
    return NULL;
}

static __attribute__((noinline, unused)) char *written(const rv_record *record, rv_form form) {
    char *text = NULL;
    rv_error err;
    if (rv_record_write(record, form, NULL, &text, NULL, &err)) fail_msg("%s", err.message);
    return text;
}
#endif
