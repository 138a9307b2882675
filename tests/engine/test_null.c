/* test_null.c - every function of rvextract.h, rvdocument.h and rvprofile.h without each of its pointers in turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include <unistd.h>

#include "engine/rvdocument.h"
#include "engine/rvprofile.h"

#define TINY RV_TEST_TMP "/null_tiny"

enum { MOST = 7, SOME = 99 };

static rv_error error;
static rv_schema *schema, *schema_out;
static rv_record *record, *record_out;
static rv_session *session;
static rv_reader *reader, *reader_out;
static char *text_out;
static size_t bytes_out;
static uint32_t count_out;
static const char *why_out;
static uint8_t grey[64 * 64 * 3];
static rv_image page = { .size = sizeof page, .data = grey, .bytes = sizeof grey, .width = 64, .height = 64 };
static char answer[] = "TOTAL: $1.00\n", key[] = "TOTAL", source[] = "given", name[] = "demo_receipt", gpu[] = "v100";
static rv_run truth = { "truth", "file,TOTAL\na.png,$1.00\n", 23 };
static rv_record_options record_options = { .size = sizeof record_options };
static rv_write_options write_options = { .size = sizeof write_options };
static rv_eval_options eval_options = { .size = sizeof eval_options, .resamples = 10 };
static rv_read_options read_options = { .size = sizeof read_options, .ocr = RV_OCR_OFF, .max_tokens = 4 };
static rv_read_options class_options = { .size = sizeof class_options, .ocr = RV_OCR_OFF, .classify = RV_CLASSIFY_DIRECT };
static rv_schema_info schema_info = { .size = sizeof schema_info };
static rv_field_info field_info = { .size = sizeof field_info };
static rv_result result = { .size = sizeof result };
static rv_summary summary = { .size = sizeof summary };
static rv_reading reading = { .size = sizeof reading };
static rv_class class = { .size = sizeof class };
static rv_profile profile = { .size = sizeof profile }, profile_out = { .size = sizeof profile_out };
static rv_device device = { .size = sizeof device, .backend = RV_BACKEND_CUDA, .name = "Tesla V100", .features = "compute_70", .memory_total = 16u << 20 };
static rv_sizes sizes = { .size = sizeof sizes, .weights = { 0, 3, 2, 1 } };
static rv_precision precision = { .size = sizeof precision };

static int32_t go_on(void *user, rv_record *r) { return (void)user, (void)r, 0; }

/* p: what is handed over; the last one is the rv_error.  What was given to the caller is freed. */
typedef rv_status (*call_fn)(void **p);

static rv_status schema_open(void **p) {
    rv_status st = rv_schema_open(p[0], p[1], p[2]);
    return st ? st : (rv_schema_free(schema_out), RV_OK);
}
static rv_status schema_get_info(void **p) { return rv_schema_get_info(p[0], p[1], p[2]); }
static rv_status schema_get_field(void **p) { return rv_schema_get_field(p[0], 0, p[1], p[2]); }
static rv_status text(rv_status st) { return st ? st : (rv_text_free(text_out), RV_OK); }
static rv_status schema_question(void **p) { return text(rv_schema_question(p[0], -1, p[1], p[2])); }
static rv_status schema_source(void **p) { return rv_schema_source(p[0], p[1]) ? RV_OK : RV_ERR_ARGUMENT; }
static rv_status made(rv_status st) { return st ? st : (rv_record_free(record_out), RV_OK); }
static rv_status record_new(void **p) { return made(rv_record_new(p[0], p[1], p[2], p[3])); }
static rv_status record_put(void **p) { return rv_record_put(p[0], p[1], p[2], strlen(answer), p[3], p[4]); }
static rv_status record_parse(void **p) { return rv_record_parse(p[0], p[1], strlen(answer), p[2], p[3], p[4]); }
static rv_status record_check(void **p) { return rv_record_check(p[0], p[1]); }
static rv_status record_get(void **p) { return rv_record_get(p[0], 0, p[1], p[2]); }
static rv_status record_get_summary(void **p) { return rv_record_get_summary(p[0], p[1], p[2]); }
static rv_status record_write(void **p) { return text(rv_record_write(p[0], RV_FORM_JSON, p[1], p[2], p[3], p[4])); }
static rv_status records_read(void **p) { return rv_records_read(p[0], p[1], p[2], p[3], strlen(answer), p[4] ? go_on : NULL, p[5], p[6]); }
static rv_status evaluate(void **p) { return text(rv_evaluate(p[0], p[1], p[2], p[3], p[4], p[5], p[6])); }
static rv_status lint(void **p) { return text(rv_lint(p[0], p[1], RV_REPORT_TEXT, p[2], p[3], p[4])); }
static rv_status reader_new(void **p) {
    rv_status st = rv_reader_new(session, p[0], p[1]);
    return st ? st : (rv_reader_free(reader_out), RV_OK);
}
static rv_status read_page(void **p) { return made(rv_read(p[0], p[1], p[2] ? p[2] : &read_options, p[3], p[4], p[5])); }
static rv_status classify(void **p) { return rv_classify(p[0], p[1], p[2] ? p[2] : &class_options, p[3], p[4]); }
static rv_status profile_at(void **p) { return rv_profile_at(0, p[0], p[1]); }
static rv_status profile_find(void **p) { return rv_profile_find(p[0], p[1], p[2]); }
static rv_status profile_of(void **p) { return rv_profile_of(p[0], p[1], p[2]); }
static rv_status profile_decide(void **p) { return rv_profile_decide(p[0], 1, 0, p[1], p[2], p[3]); }
static rv_status package_for(void **p) { return rv_package_for(80, (const char **)p[0]) && !rv_package_for(60, (const char **)p[0]) ? RV_OK : RV_ERR_ARGUMENT; }

static int set_up(void **state) {
    rv_error err;
    rv_model *model;
    rv_synth_options shape = { .size = sizeof shape, .shape = "tiny", .outliers = -1 };
    rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .threads = 2 };
    rv_session_options room = { .size = sizeof room, .slots = 1, .queue = 16, .context = 512, .images = 2 };
    (void)state;
    if (access(TINY "/config.json", R_OK) && rv_synthesise(TINY, &shape, NULL, &err)) fail_msg("%s", err.message);
    if (rv_model_load(TINY, &load, &model, &err) || rv_session_new(model, &room, &session, &err)) fail_msg("%s", err.message);
    rv_model_free(model);
    if (rv_schema_open(name, &schema, &err) || rv_record_new(schema, NULL, &record, &err) || rv_reader_new(session, &reader, &err)) fail_msg("%s", err.message);
    read_options.schema = schema;
    if (rv_record_check(record, &err) || rv_profile_find("v100", &profile, &err)) fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    rv_reader_free(reader);
    rv_record_free(record);
    rv_schema_free(schema);
    rv_session_free(session);
    return 0;
}

/* `given` ends with &error where there is one; bit i of `optional`: given[i] may be NULL. */
typedef struct row { const char *name; call_fn call; uint32_t optional; void *given[MOST]; } row;

static const row rows[] = {
    { "rv_schema_open", schema_open, 0, { name, &schema_out, &error } },
    { "rv_schema_get_info", schema_get_info, 0, { &schema, &schema_info, &error } },
    { "rv_schema_get_field", schema_get_field, 0, { &schema, &field_info, &error } },
    { "rv_schema_question", schema_question, 0, { &schema, &text_out, &error } },
    { "rv_schema_source", schema_source, 1 << 1, { name, &bytes_out } },
    { "rv_record_new", record_new, 1 << 1, { &schema, &record_options, &record_out, &error } },
    { "rv_record_put", record_put, 1 << 3, { &record, key, answer, source, &error } },
    { "rv_record_parse", record_parse, 1 << 2 | 1 << 3, { &record, answer, source, &count_out, &error } },
    { "rv_record_check", record_check, 0, { &record, &error } },
    { "rv_record_get", record_get, 0, { &record, &result, &error } },
    { "rv_record_get_summary", record_get_summary, 0, { &record, &summary, &error } },
    { "rv_record_write", record_write, 1 << 1 | 1 << 3, { &record, &write_options, &text_out, &bytes_out, &error } },
    { "rv_records_read", records_read, 1 << 1 | 1 << 2 | 1 << 5, { &schema, &record_options, name, answer, &count_out, &count_out, &error } },
    { "rv_evaluate", evaluate, 1 << 3 | 1 << 4, { &schema, &truth, &truth, &truth, &eval_options, &text_out, &error } },
    { "rv_lint", lint, 0, { &schema, &truth, &text_out, &count_out, &error } },
    { "rv_reader_new", reader_new, 0, { &reader_out, &error } },
    { "rv_read", read_page, 1 << 2 | 1 << 4, { &reader, &page, &read_options, &record_out, &reading, &error } },
    { "rv_classify", classify, 1 << 2, { &reader, &page, &class_options, &class, &error } },
    { "rv_profile_at", profile_at, 0, { &profile_out, &error } },
    { "rv_profile_find", profile_find, 0, { gpu, &profile_out, &error } },
    { "rv_profile_of", profile_of, 0, { &device, &profile_out, &error } },
    { "rv_profile_decide", profile_decide, 0, { &profile, &sizes, &precision, &error } },
    { "rv_package_for", package_for, 1, { &why_out } },
};

/* Of row r, all but the pointers in the set `without`; returns how many there are. */
static int hand_over(const row *r, uint32_t without, void *p[MOST]) {
    int n = 0;
    for (; n < MOST && r->given[n]; n++) {
        void *is = r->given[n];
        if (is == &schema) is = schema;
        if (is == &record) is = record;
        if (is == &reader) is = reader;
        p[n] = without >> n & 1 ? NULL : is;
    }
    return n;
}

static void check(const row *r, uint32_t without) {
    void *p[MOST] = { 0 };
    uint32_t optional = r->optional;
    int n = hand_over(r, without, p);
    if (r->given[n - 1] == &error) optional |= 1u << (n - 1);
    error = (rv_error){ .code = SOME };
    rv_status st = r->call(p), want = without & ~optional ? RV_ERR_ARGUMENT : RV_OK;
    if (st != want) fail_msg("%s without %#x: %s (%s)", r->name, without, rv_status_name(st), error.code == SOME ? "" : error.message);
    if (st && p[n - 1] == &error && (error.code != st || !error.message[0])) fail_msg("%s without %#x: says nothing", r->name, without);
    if (st == RV_OK && error.code != SOME) fail_msg("%s without %#x: says %s", r->name, without, error.message);
}

static void a_null_is_refused_or_stands_for_nothing(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        void *p[MOST];
        int n = hand_over(&rows[i], 0, p);
        check(&rows[i], 0);
        for (int k = 0; k < n; k++) check(&rows[i], 1u << k);
        check(&rows[i], (1u << n) - 1);
    }
}

static void texts_of_no_bytes_may_be_null(void **state) {
    (void)state;
    uint32_t found = 7;
    const rv_run nothing = { 0 };
    assert_int_equal(rv_record_put(record, "TOTAL", NULL, 0, NULL, &error), RV_OK);
    assert_int_equal(rv_record_parse(record, NULL, 0, NULL, &found, &error), RV_OK);
    assert_int_equal(found, 0);
    assert_int_equal(rv_records_read(schema, NULL, NULL, NULL, 0, go_on, NULL, &error), RV_ERR_FORMAT);
    assert_int_equal(rv_lint(schema, &nothing, RV_REPORT_TEXT, &text_out, &count_out, &error), RV_ERR_FORMAT);
    assert_string_equal(error.message, "truth: is empty");
    write_options.image_bytes = 5;
    assert_int_equal(rv_record_write(record, RV_FORM_HTML, &write_options, &text_out, NULL, &error), RV_ERR_ARGUMENT);
    write_options.image_bytes = 0;
}

static void handles_that_are_null_are_freed_for_nothing(void **state) {
    (void)state;
    rv_text_free(NULL);
    rv_schema_free(NULL);
    rv_record_free(NULL);
    rv_reader_free(NULL);
}

static void forms_that_there_are_not_are_refused(void **state) {
    (void)state;
    const int32_t none[] = { -1, 4, 99 };
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        rv_eval_options o = { .size = sizeof o, .form = none[i], .resamples = 10 };
        assert_int_equal(rv_lint(schema, &truth, none[i], &text_out, &count_out, &error), RV_ERR_ARGUMENT);
        assert_int_equal(rv_evaluate(schema, &truth, &truth, NULL, &o, &text_out, &error), RV_ERR_ARGUMENT);
    }
    assert_int_equal(rv_record_write(record, 6, NULL, &text_out, NULL, &error), RV_ERR_ARGUMENT);
    assert_int_equal(rv_record_write(record, -1, NULL, &text_out, NULL, &error), RV_ERR_ARGUMENT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_null_is_refused_or_stands_for_nothing),
        cmocka_unit_test(texts_of_no_bytes_may_be_null),
        cmocka_unit_test(handles_that_are_null_are_freed_for_nothing),
        cmocka_unit_test(forms_that_there_are_not_are_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
