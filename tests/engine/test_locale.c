/* test_locale.c - what the library writes and reads as data is the same in every locale that a program sets. */
#include "tests/support/comma.h"

#include <math.h>

#include "engine/base/json_tree.h"
#include "engine/base/locale.h"
#include "engine/base/text.h"
#include "engine/rvengine.h"
#include "engine/rvextract.h"

static const char *const languages[] = { "de_DE", "ps_AF" };
enum { LANGUAGES = sizeof languages / sizeof *languages };

static int in_c(void **state) {
    (void)state;
    setlocale(LC_ALL, "C");
    return 0;
}

typedef void writer(rv_string *out);

/* The texts must be equal, byte for byte. */
static void same_in_every_locale(writer *write) {
    rv_string wanted = { 0 };
    write(&wanted);
    assert_true(wanted.bytes > 0 && !wanted.failed);
    for (int i = 0; i < LANGUAGES; i++) {
        rv_string got = { 0 };
        if (!locale_set(languages[i])) {
            print_message("%s: skipped: there is no such locale, and localedef makes none\n", languages[i]);
            continue;
        }
        write(&got);
        assert_false(got.failed);
        if (got.bytes != wanted.bytes || memcmp(got.data, wanted.data, got.bytes)) {
            size_t at = 0;
            while (at < got.bytes && at < wanted.bytes && got.data[at] == wanted.data[at]) at++;
            fail_msg("%s: byte %zu: \"%.60s\", in C \"%.60s\"", languages[i], at, got.data + at, wanted.data + at);
        }
        rv_string_free(&got);
        setlocale(LC_ALL, "C");
    }
    rv_string_free(&wanted);
}

/* ---- texts ---- */

static void numbers_of_all_kinds(rv_string *out) {
    char text[32], *end;
    json_error_t why;
    bool no_memory;
    static const char json[] = "{\"a\": 0.125, \"b\": [1e-05, -2.5E+3], \"c\": 1234567890.5}";
    rv_string_addf(out, "%.17g %g %f %e %.2f\n", 0.032750003039836884, 1.5, 1234567.25, 6.25e-9, -0.5);
    rv_print(text, sizeof text, "%.3f", 2.75);
    rv_string_addz(out, text);
    const double a = rv_number("1.5e3,", &end), b = rv_number("0.0625", NULL);
    rv_string_addf(out, " %d %d %c\n", a == 1500, b == 0.0625, *end);
    json_t *root = rv_json_load(json, sizeof json - 1, 0, &why, &no_memory);
    assert_non_null(root);
    assert_true(json_real_value(json_object_get(root, "a")) == 0.125);
    char *dumped = rv_json_dump(root, JSON_COMPACT);
    assert_non_null(dumped);
    rv_string_addz(out, dumped);
    free(dumped);
    json_decref(root);
}

static void numbers_are_written_and_read_as_in_c(void **state) {
    (void)state;
    same_in_every_locale(numbers_of_all_kinds);
}

/* The program's own locale is what it was. */
static void the_program_keeps_its_locale(void **state) {
    (void)state;
    char text[32];
    rv_string s = { 0 };
    if (!locale_set("de_DE")) skip();
    numbers_of_all_kinds(&s);
    snprintf(text, sizeof text, "%.1f", 1.5);
    assert_string_equal(text, "1,5");
    rv_string_free(&s);
}

/* ---- folders ---- */

static void add_file(rv_string *out, const char *dir, const char *name) {
    char path[2048], *data;
    size_t bytes;
    rv_error err;
    snprintf(path, sizeof path, "%s/%s", dir, name);
    expect_ok(rv_file_read(path, 1 << 28, &data, &bytes, &err), &err);
    rv_string_add(out, data, bytes);
    free(data);
}

static void folders_and_an_answer(rv_string *out) {
    char source[1024], dir[1024];
    rv_error err;
    rv_model *m;
    const rv_synth_options synth = { .size = sizeof synth, .shape = "tiny" };
    const rv_quantise_options quantise = { .size = sizeof quantise, .weights = RV_WEIGHTS_NF4 };
    const rv_load_options load = { .size = sizeof load, .backend = RV_BACKEND_CPU, .compute = RV_COMPUTE_F32 };
    const rv_request ask = { .size = sizeof ask, .raw = "GST", .max_tokens = 6, .flags = RV_REQUEST_IGNORE_STOP };
    expect_ok(rv_synthesise(folder_new(source, "source"), &synth, NULL, &err), &err);
    expect_ok(rv_quantise(source, folder_new(dir, "nf4"), &quantise, NULL, &err), &err);
    add_file(out, source, "config.json");
    add_file(out, dir, "config.json");
    add_file(out, dir, "model.safetensors");
    expect_ok(rv_model_load(dir, &load, &m, &err), &err);
    rv_session *s;
    rv_job *job;
    const int32_t *ids;
    const float *logprobs;
    expect_ok(rv_session_new(m, NULL, &s, &err), &err);
    expect_ok(rv_generate(s, &ask, &job, &err), &err);
    const uint32_t n = rv_job_tokens(job, &ids, &logprobs);
    rv_string_add(out, (const char *)logprobs, n * sizeof *logprobs);
    rv_job_free(job);
    rv_session_free(s);
    rv_model_free(m);
}

static void model_folders_are_written_and_read_as_in_c(void **state) {
    (void)state;
    same_in_every_locale(folders_and_an_answer);
}

/* ---- fields ---- */

#define PAGES "[{\"image_file\": \"a.png\", \"TOTAL\": 12.5, \"SHOP\": \"Acme\"}, {\"image_file\": \"b.png\", \"TOTAL\": 1234.75, \"SHOP\": \"Bolt\"}]"
#define OTHER "[{\"image_file\": \"a.png\", \"TOTAL\": \"12.50\", \"SHOP\": \"Acme\"}, {\"image_file\": \"b.png\", \"TOTAL\": \"9.75\", \"SHOP\": \"Bolt\"}]"

typedef struct forms { rv_string *out; } forms;

static int32_t write_record(void *user, rv_record *record) {
    const forms *f = user;
    rv_error err;
    char *text;
    size_t bytes;
    expect_ok(rv_record_check(record, &err), &err);
    for (rv_form form = RV_FORM_KV; form <= RV_FORM_HTML; form++) {
        expect_ok(rv_record_write(record, form, NULL, &text, &bytes, &err), &err);
        rv_string_add(f->out, text, bytes);
        rv_text_free(text);
    }
    return 0;
}

static void reports_of_fields(rv_string *out) {
    static const char source[] =
        "{\"title\": \"Slip\", \"x-doctype\": \"SLIP\", \"x-prompt\": \"Read this slip.\", \"type\": \"object\", \"properties\": {"
        "\"SHOP\": {\"type\": \"string\", \"x-min-confidence\": 0.85}, \"TOTAL\": {\"type\": \"string\", \"x-kind\": \"money\", \"x-min-confidence\": 0.625}}}";
    char dir[1024], path[2048];
    rv_error err;
    rv_schema *schema;
    forms f = { out };
    folder_write_text(folder_new(dir, "schema"), "slip.json", source);
    snprintf(path, sizeof path, "%s/slip.json", dir);
    expect_ok(rv_schema_open(path, &schema, &err), &err);
    const rv_record_options options = { .size = sizeof options, .page_text = "Acme total $12.50", .today = "2026-07-26", .page_width = 300, .page_height = 700 };
    expect_ok(rv_records_read(schema, &options, "pages.json", PAGES, sizeof PAGES - 1, write_record, &f, &err), &err);
    const rv_run truth = { "truth", PAGES, sizeof PAGES - 1 }, run = { "run", OTHER, sizeof OTHER - 1 };
    for (rv_report_form form = RV_REPORT_TEXT; form <= RV_REPORT_MARKDOWN; form++) {
        const rv_eval_options o = { .size = sizeof o, .form = form, .list_wrong = 5 };
        char *text;
        expect_ok(rv_evaluate(schema, &truth, &run, &run, &o, &text, &err), &err);
        rv_string_addz(out, text);
        rv_text_free(text);
    }
    rv_schema_free(schema);
}

static void fields_and_reports_are_written_and_read_as_in_c(void **state) {
    (void)state;
    same_in_every_locale(reports_of_fields);
}

int main(void) {
    locale_make(languages, LANGUAGES);
    if (!locale_set("de_DE")) {
        print_message("skipped: there is no locale with a decimal comma, and localedef makes none\n");
        return 77;
    }
    setlocale(LC_ALL, "C");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(numbers_are_written_and_read_as_in_c, in_c),
        cmocka_unit_test_setup(the_program_keeps_its_locale, in_c),
        cmocka_unit_test_setup(model_folders_are_written_and_read_as_in_c, in_c),
        cmocka_unit_test_setup(fields_and_reports_are_written_and_read_as_in_c, in_c),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
