/* test_lifecycle.c - handles made, freed and freed in the wrong moment: a small random model, many times. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <dirent.h>
#include <malloc.h>
#include <unistd.h>

#include "engine/rvconstraint.h"
#include "engine/rvdocument.h"
#include "extract/schema.h"

#define TINY RV_TEST_TMP "/lifecycle_tiny"

static uint8_t grey[64 * 64 * 3];
static const rv_image page = { .size = sizeof page, .data = grey, .bytes = sizeof grey, .width = 64, .height = 64 };

static int set_up(void **state) {
    rv_error err;
    rv_synth_options shape = { .size = sizeof shape, .shape = "tiny", .outliers = -1 };
    (void)state;
    memset(grey, 128, sizeof grey);
    if (access(TINY "/config.json", R_OK) && rv_synthesise(TINY, &shape, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

static rv_model *tiny(void) {
    rv_error err;
    rv_model *model;
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .threads = 2 };
    if (rv_model_load(TINY, &load, &model, &err)) fail_msg("%s", err.message);
    return model;
}

static rv_session *session_of(rv_model *model, uint32_t slots) {
    rv_error err;
    rv_session *s;
    rv_session_options room = { .size = sizeof room, .slots = slots, .queue = 16, .context = 512, .images = 2 };
    if (rv_session_new(model, &room, &s, &err)) fail_msg("%s", err.message);
    return s;
}

/* A session of a model that nobody else holds. */
static rv_session *lone_session(uint32_t slots) {
    rv_model *model = tiny();
    rv_session *s = session_of(model, slots);
    rv_model_free(model);
    return s;
}

static rv_schema *schema_of(const char *name) {
    rv_error err;
    rv_schema *schema;
    if (rv_schema_open(name, &schema, &err)) fail_msg("%s", err.message);
    return schema;
}

/* ---- fields ---- */

static void a_record_holds_its_schema(void **state) {
    rv_error err;
    rv_record *record;
    char *text;
    rv_schema *schema = schema_of("receipt");
    (void)state;
    if (rv_record_new(schema, NULL, &record, &err)) fail_msg("%s", err.message);
    rv_schema_free(schema);
    assert_int_equal(rv_record_put(record, "TOTAL", "$1.20", 5, "given", &err), RV_OK);
    assert_int_equal(rv_record_check(record, &err), RV_OK);
    assert_int_equal(rv_record_write(record, RV_FORM_KV, NULL, &text, NULL, &err), RV_OK);
    assert_non_null(strstr(text, "1.20"));
    rv_text_free(text);
    rv_record_free(record);
}

static void write_schema(const char *path, const char *key) {
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fprintf(f, "{\"title\": \"T\", \"version\": \"1.0.0\", \"x-doctype\": \"RECEIPT\", \"x-prompt\": \"Read.\", \"type\": \"object\", "
            "\"required\": [\"%s\"], \"properties\": {\"%s\": {\"type\": \"string\", \"x-kind\": \"bool\", \"description\": \"paid or not\"}}}", key, key);
    fclose(f);
}

static rv_record *read_page(rv_reader *reader, const rv_schema *schema) {
    rv_error err;
    rv_record *record;
    rv_read_options how = { .size = sizeof how, .schema = schema, .strategy = RV_STRATEGY_SINGLE, .ocr = RV_OCR_OFF };
    if (rv_read(reader, &page, &how, &record, NULL, &err)) fail_msg("%s", err.message);
    return record;
}

static void a_reader_holds_the_schemas_whose_forms_it_keeps(void **state) {
    rv_error err;
    rv_reader *reader;
    rv_session *s = lone_session(1);
    rv_result result = { .size = sizeof result };
    (void)state;
    if (rv_reader_new(s, &reader, &err)) fail_msg("%s", err.message);
    write_schema(RV_TEST_TMP "/lifecycle.json", "PAID");
    rv_schema *schema = schema_of(RV_TEST_TMP "/lifecycle.json");
    rv_record_free(read_page(reader, schema));
    assert_int_equal(schema->refs, 2);                           /* else a new schema at its address would be taken for it */
    rv_record *record = read_page(reader, schema);
    rv_schema_free(schema);
    assert_int_equal(rv_record_get(record, 0, &result, &err), RV_OK);
    assert_string_equal(result.key, "PAID");
    assert_string_equal(result.source, "constrained");
    rv_record_free(record);
    rv_reader_free(reader);
    rv_session_free(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_holds_its_schema),
        cmocka_unit_test(a_reader_holds_the_schemas_whose_forms_it_keeps),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
