/* batch as a user sees it: which documents, with which settings, and what is told at the end.  (Kills: test_cli_documents.) */
#include "tests/cli/program.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL RV_TEST_DEMO "/receipts/r7001.png"      /* one tile */
#define QUICK "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu", "--compute", "f32"
#define BATCH "batch", QUICK, "--output", output

static char schema[4096], output[4096];

/* A name in the scratch folder to write results to, with nothing there. */
static void begin(const char *name) {
    static const char *const endings[] = { "", ".journal", ".run.json" };
    snprintf(output, sizeof output, "%s", scratch(name));
    for (size_t i = 0; i < 3; i++) {
        char path[4200];
        snprintf(path, sizeof path, "%s%s", output, endings[i]);
        unlink(path);
    }
}

static int is_there(const char *path, const char *ending) {
    char whole[4200];
    snprintf(whole, sizeof whole, "%s%s", path, ending);
    return access(whole, F_OK) == 0;
}

static int lines_of(const char *path) {
    size_t bytes;
    int n = 0;
    char *text = file_read(path, &bytes);
    for (size_t i = 0; i < bytes; i++) n += text[i] == '\n';
    free(text);
    return n;
}

/* ---- what is wrong with the command ---- */

static void a_wrong_option_is_no_documents_failure(void **state) {
    (void)state;
    begin("today.jsonl");
    refuses(2, "--today \"2026/1/1\": must be a day as 2026-07-26", BATCH, "--today", "2026/1/1", SMALL);
    refuses(2, "--today .*must be a day", "extract", QUICK, "--today", "tomorrow", SMALL);
    refuses(2, "batch: --context: must be at most", BATCH, "--context", "900000", SMALL);
    assert_false(is_there(output, "") || is_there(output, ".journal"));
    prints("^$", BATCH, "--today", "2026-01-01", SMALL);
    assert_int_equal(lines_of(output), 1);
}

/* ---- which documents ---- */

static const char *list(const char *text) { return file_write("named.jsonl", text, strlen(text)); }

static void every_line_of_a_list_is_a_document_or_an_error(void **state) {
    (void)state;
    char small[2000], path[4096];
    begin("named.out");
    snprintf(small, sizeof small, "{\"image\": \"%s\", \"id\": 7}\n\n{\"image\": \"%s\", \"id\": 7}\n", SMALL, RECEIPT);
    snprintf(path, sizeof path, "%s", list(small));
    refuses(2, "named.jsonl: line 3: \"7\" is there twice, for .*r7001.png and for .*r7000.png", BATCH, "--any-path", path);
    refuses(4, "named.jsonl: line 2: names no \"image\"", BATCH, "--any-path", list("{\"image\": \"a.png\"}\n{\"image\": \"\"}\n"));
    refuses(4, "named.jsonl: line 1: \"id\" must be", BATCH, "--any-path", list("{\"image\": \"a.png\", \"id\": \"\"}\n"));
    refuses(4, "named.jsonl: line 1: \"id\" must be", BATCH, "--any-path", list("{\"image\": \"a.png\", \"id\": [1]}\n"));
    snprintf(small, sizeof small, "{\"image\": \"%s\", \"id\": 7}\n{\"image\": \"%s\", \"id\": 7}\n", SMALL, SMALL);
    prints("^$", BATCH, "--any-path", list(small));          /* the same document */
    assert_int_equal(lines_of(output), 1);
}

static void pages_beyond_the_limit_are_told(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    char file[4096], path[4200];
    size_t bytes;
    begin("long.out");
    snprintf(file, sizeof file, "%s", pdf_file("long.pdf", 3, ""));
    outcome o = run_with(NULL, ARGS(BATCH, "--pages", "2", "--dpi", "36", file));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "batch: .*long.pdf has more pages than the 2 that are read: raise --pages"));
    outcome_free(&o);
    snprintf(path, sizeof path, "%s.journal", output);
    char *text = file_read(path, &bytes);
    assert_non_null(strstr(text, "\"pages\":2,\"more_pages\":true"));
    free(text);
    o = run_with(NULL, ARGS("classify", "--model", MODEL, "--backend", "cpu", "--ocr", "off", "--pages", "2", "--dpi", "36", file));
    assert_int_equal(o.code, 0);
    assert_true(matches(o.err, "classify: .*long.pdf has more pages than the 2"));
    assert_true(matches(o.out, "long.pdf#1\".*[}]\n.*long.pdf#2\".*\"more_pages\":true"));
    outcome_free(&o);
}

static void a_document_that_fails_is_named_once(void **state) {
    (void)state;
    char bad[4096];
    snprintf(bad, sizeof bad, "%s", file_write("bad.png", "no image", 8));
    begin("bad.csv");
    outcome o = run_with(NULL, ARGS(BATCH, "--format", "csv", bad, SMALL));
    assert_int_equal(o.code, 1);
    assert_true(matches(o.err, "batch: [^ ]*bad.png: image: not a picture"));
    outcome_free(&o);
}

/* ---- the journal ---- */

static void a_command_that_reads_nothing_leaves_nothing(void **state) {
    (void)state;
    char folder[4096], wrong[4096];
    begin("typo.jsonl");
    refuses(2, "receit", "batch", "--model", MODEL, "--schema", "demo_receit", "--output", output, SMALL);
    refuses(3, "", "batch", "--model", "/no/model", "--schema", schema, "--output", output, SMALL);
    refuses(3, "no such file", BATCH, "/no/such.png");
    assert_false(is_there(output, "") || is_there(output, ".journal"));
    snprintf(folder, sizeof folder, "%s", model_copy("as_output", "config.json"));
    refuses(3, "is a folder", "batch", QUICK, "--output", folder, SMALL);
    assert_false(is_there(folder, ".journal"));
    file_write("mine.txt", "notes", 5);
    snprintf(wrong, sizeof wrong, "%s", scratch("mine.txt"));
    refuses(2, "not from a batch", "batch", QUICK, "--output", wrong, SMALL);
    assert_false(is_there(wrong, ".journal"));
    prints("^$", BATCH, SMALL);
    assert_int_equal(lines_of(output), 1);
}

/* As after a power cut before the first document. */
static void a_journal_without_documents_binds_nobody(void **state) {
    (void)state;
    begin("empty.jsonl");
    file_write("empty.jsonl", "{\"document\": half a resu", 24);
    file_write("empty.jsonl.journal", "{\"settings\":\"model elsewhere\"}\n", 31);
    prints("^$", BATCH, SMALL);
    assert_int_equal(lines_of(output), 1);
}

static void results_that_go_to_stdout_have_no_journal(void **state) {
    static const char *const names[] = { "-", "/dev/stdout" };
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        prints("^[{]\"schema\":[^\n]*[}]\n$", "batch", QUICK, "--output", names[i], SMALL);
        assert_false(is_there(names[i], ".journal") || is_there(names[i], ".run.json"));
    }
    check_refuses(__LINE__, 3, "stdout: cannot write: No space left", &(setting){ .out = OUT_FULL }, ARGS("batch", QUICK, "--output", "-", SMALL));
    refuses(3, "/dev/full: cannot write: No space left", "batch", QUICK, "--output", "/dev/full", SMALL);
    assert_false(is_there("/dev/full", ".journal"));
}

static void results_of_two_settings_are_not_mixed(void **state) {
    static const char *const others[][2] = { { "--max-tokens", "9" }, { "--today", "2026-01-01" }, { "--dpi", "80" }, { "--no-exif", NULL }, { "--allow-tfn", NULL }, { "--allow-account", NULL }, { "--keep", "lm_head=int8" },
                                             { "--pages", "3" }, { "--context", "1000" }, { "--modules", "hf-literal" }, { "--skip", "lm_head" }, { "--int8-threshold", "5" },
                                             { "--int8-parity", "bnb" }, { "--nf4-single", NULL }, { "--taps", "leaving" }, { "--reference", "meta" }, { "--resize", "tv" } };
    (void)state;
    begin("mixed.jsonl");
    prints("^$", BATCH, SMALL);
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        char want[200];
        const char *args[] = { BATCH, SMALL, "--weights", "auto", others[i][0], others[i][1], NULL };
        snprintf(want, sizeof want, "begun with other settings of %s: use those", others[i][0]);
        check_refuses(__LINE__, 2, want, NULL, args);
    }
    refuses(2, "other settings of --weights \\(16bit\\): use", BATCH, "--memory-limit", "77M", SMALL);      /* which leaves room for another format */
    refuses(2, "other settings of --dpi, --int8-threshold: use", BATCH, "--int8-threshold", "5", "--dpi", "80", SMALL);
    prints("^$", BATCH, "--threads", "1", "--quiet", "--verbose", "--page-seconds", "9", SMALL);      /* no result depends on these */
    assert_int_equal(lines_of(output), 1);
    file_replace(schema, "1.0.0", "1.0.1");
    refuses(2, "other settings of --schema: use", BATCH, SMALL);
    quick_schema();
}

/* Its settings were one text, then options alone. */
static void a_journal_of_an_older_build_is_kept(void **state) {
    (void)state;
    static const char results[] = "{\"schema\":\"x\"}\n", *const settings[] = { "\"model m, schema s\"", "{\"model\":\"m\",\"weights\":0}" };
    for (size_t i = 0; i < 2; i++) {
        char lines[200];
        const int n = snprintf(lines, sizeof lines, "{\"settings\":%s}\n{\"id\":\"a\",\"bytes\":15,\"failed\":false,\"ms\":1.0}\n", settings[i]);
        begin("older.jsonl");
        file_write("older.jsonl", results, sizeof results - 1);
        file_write("older.jsonl.journal", lines, (size_t)n);
        refuses(2, "begun by an earlier version.*finish it with that, or use another --output", BATCH, SMALL);
        assert_int_equal(lines_of(output), 1);
        assert_int_equal(lines_of(scratch("older.jsonl.journal")), 2);
    }
}

/* ---- what is counted ---- */

static json_t *report_of(void) {
    char path[4200];
    snprintf(path, sizeof path, "%s.run.json", output);
    json_t *report = json_load_file(path, 0, NULL);
    assert_non_null(report);
    return report;
}

static int number(const json_t *report, const char *key) { return (int)json_integer_value(json_object_get(report, key)); }

/* n names for one receipt. */
static const char *list_of(const char *name, int n) {
    char text[64 * 256];
    int at = 0;
    for (int i = 0; i < n; i++) at += sprintf(text + at, "{\"image\": \"%s\", \"id\": \"%s %d\"}\n", SMALL, name, i);
    return file_write(name, text, (size_t)at);
}

static void a_batch_that_is_interrupted_says_how_many_of_its_own_are_done(void **state) {
    (void)state;
    begin("stopped.jsonl");
    char first[4096], second[4096];
    snprintf(first, sizeof first, "%s", list_of("first.jsonl", 12));
    snprintf(second, sizeof second, "%s", list_of("second.jsonl", 10));
    prints("^$", BATCH, "--any-path", first);
    size_t bytes;
    free(file_read(output, &bytes));
    outcome o = run_with(&(setting){ .interrupt = 1, .watch = output, .watch_bytes = (long)bytes }, ARGS(BATCH, "--any-path", second));
    assert_int_equal(o.code, 130);
    assert_true(matches(o.err, "stopped after [1-9] of 10 documents"));
    outcome_free(&o);
    json_t *report = report_of();
    assert_true(json_is_false(json_object_get(report, "complete")));
    assert_true(number(report, "done") >= 1 && number(report, "done") < 10);
    json_decref(report);
    prints("^$", BATCH, "--any-path", second);
    assert_int_equal(lines_of(output), 22);
}

static void a_batch_counts_the_documents_of_its_own_list(void **state) {
    (void)state;
    begin("counts.jsonl");
    char list[4096];
    snprintf(list, sizeof list, "%s", file_write("gone.jsonl", "{\"image\": \"gone.png\"}\n", 22));
    outcome failing = run_with(NULL, ARGS(BATCH, list));
    assert_int_equal(failing.code, 1);
    assert_true(matches(failing.err, "1 of 1 documents could not be read"));
    outcome_free(&failing);
    prints("^$", BATCH, SMALL);                              /* the failure is another list's */
    json_t *report = report_of();
    assert_true(json_is_true(json_object_get(report, "complete")));
    assert_int_equal(number(report, "documents"), 1);
    assert_int_equal(number(report, "done"), 1);
    assert_int_equal(number(report, "failed"), 0);
    assert_int_equal(number(report, "pages"), 1);
    json_decref(report);
    outcome both = run_with(NULL, ARGS(BATCH, list, SMALL));
    assert_int_equal(both.code, 1);
    assert_true(matches(both.err, "1 of 2 documents could not be read"));
    outcome_free(&both);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_option_is_no_documents_failure),
        cmocka_unit_test(every_line_of_a_list_is_a_document_or_an_error),
        cmocka_unit_test(a_document_that_fails_is_named_once),
        cmocka_unit_test(pages_beyond_the_limit_are_told),
        cmocka_unit_test(a_command_that_reads_nothing_leaves_nothing),
        cmocka_unit_test(a_journal_without_documents_binds_nobody),
        cmocka_unit_test(results_that_go_to_stdout_have_no_journal),
        cmocka_unit_test(results_of_two_settings_are_not_mixed),
        cmocka_unit_test(a_journal_of_an_older_build_is_kept),
        cmocka_unit_test(a_batch_that_is_interrupted_says_how_many_of_its_own_are_done),
        cmocka_unit_test(a_batch_counts_the_documents_of_its_own_list),
    };
    snprintf(schema, sizeof schema, "%s", quick_schema());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
