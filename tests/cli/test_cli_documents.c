/* extract, classify and batch as a user sees them.  `test_cli_documents full` kills a batch of 200 receipts with all their fields, not
 * of 16 with one. */
#include "tests/cli/program.h"

#include <fcntl.h>
#include <jansson.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SMALL RV_TEST_DEMO "/receipts/r7001.png"      /* one tile */
#define READ "--model", MODEL, "--schema", "demo_receipt", "--ocr", "off", "--backend", "cpu"

static int full;

static void a_receipt_comes_as_lines_and_as_json(void **state) {
    (void)state;
    prints("^DOCUMENT_TYPE: INVOICE\nSUPPLIER: Little Books Co\nABN: 15 055 479 870\n.*TOTAL: .101\\.57\nPAYMENT: CASH\n$", "extract", READ, "--format", "kv", SMALL);
    prints("ITEMS: Hex Bolts \\| Jabude \\| Unleaded 91\n.*TOTAL: .152\\.39\n", "extract", READ, "--format", "kv", RECEIPT);      /* of four tiles */
    prints("\"TOTAL\".*\"confidence\": 0\\.9.*\"source\": \"constrained\"", "extract", READ, SMALL);
}

static void two_passes_and_parts_serve_the_same_fields(void **state) {
    (void)state;
    prints("SUPPLIER: Little Books Co\n.*TOTAL: .101\\.57\n", "extract", READ, "--strategy", "two-pass", "--format", "kv", SMALL);
    prints("SUPPLIER: Little Books Co\n.*TOTAL: .101\\.57\n", "extract", READ, "--grammar", "off", "--format", "kv", SMALL);
}

static void run_answers_in_json_of_a_schema(void **state) {
    (void)state;
    static const char schema[] = "{\"type\": \"object\", \"required\": [\"total\", \"paid\"], \"properties\": {\"total\": {\"type\": \"number\"}, \"paid\": {\"type\": \"boolean\"}}}";
    static const char wrong[] = "{\"type\": \"object\", \"patternProperties\": {}}";
    char path[4096];
    snprintf(path, sizeof path, "%s", file_write("schema.json", schema, sizeof schema - 1));
    prints("^\\{[ \n]*\"total\": ?-?[0-9.eE+-]+,[ \n]*\"paid\": ?(true|false)[ \n]*\\}\n$", "run", "--model", MODEL, "--backend", "cpu", "--prompt", "What is the total?", "--json-schema", path);
    prints("^\\{.*\\}\n$", "run", "--model", MODEL, "--backend", "cpu", "--image", RECEIPT, "--json-schema", "any");
    snprintf(path, sizeof path, "%s", file_write("wrong.json", wrong, sizeof wrong - 1));
    refuses(5, "patternProperties", "run", "--model", MODEL, "--prompt", "x", "--json-schema", path);
}

/* That page makes the demo model, which never learnt this form, repeat itself. */
static void half_an_object_is_not_taken_for_a_whole_one(void **state) {
    (void)state;
    const char *path = file_write("half.json", "old", 3);
    size_t bytes;
    const struct { const char *most, *note, *reason; } cut[] = { { "1024", "cut short because the model repeated itself: it is not whole JSON", "repetition" },
                                                                 { "9", "cut short by --max-tokens or --context: it is not whole JSON", "length" } };
    for (size_t i = 0; i < sizeof cut / sizeof *cut; i++) {
        char reason[64];
        outcome o = run_with(NULL, ARGS("run", "--model", MODEL, "--backend", "cpu", "--image", SMALL, "--json-schema", "any", "-n", cut[i].most));
        assert_int_equal(o.code, 1);
        assert_non_null(strstr(o.err, cut[i].note));
        assert_true(o.out_bytes > 0);
        outcome_free(&o);
        o = run_with(NULL, ARGS("run", "--model", MODEL, "--backend", "cpu", "--image", SMALL, "--json-schema", "any", "--json", "-n", cut[i].most));
        assert_int_equal(o.code, 1);
        snprintf(reason, sizeof reason, "\"finish_reason\": ?\"%s\"", cut[i].reason);
        assert_true(matches(o.out, reason));
        outcome_free(&o);
    }
    outcome o = run_with(NULL, ARGS("run", "--model", MODEL, "--backend", "cpu", "--image", SMALL, "--json-schema", "any", "-n", "9", "-o", path));
    assert_int_equal(o.code, 1);
    assert_non_null(strstr(o.err, "nothing was written"));
    outcome_free(&o);
    char *text = file_read(path, &bytes);
    assert_string_equal(text, "old");
    free(text);
}

static void what_is_wrong_is_said_before_the_model_is_loaded(void **state) {
    (void)state;
    refuses(2, "which file", "extract", READ);
    refuses(2, "--model is missing", "extract", "--schema", "receipt", SMALL);
    refuses(2, "leave --model out", "extract", "--model", MODEL, "--ocr", "only", SMALL);
    refuses(2, "--question goes with --schema", "extract", "--model", MODEL, "--question", "What?", SMALL);
    refuses(2, "--output is missing", "batch", READ, SMALL);
    refuses(2, "csv needs --schema", "batch", "--model", MODEL, "--output", scratch("x.csv"), "--format", "csv", SMALL);
    refuses(2, "says the type already", "classify", READ, SMALL);
    refuses(3, "no such file", "batch", READ, "--output", scratch("none.jsonl"), scratch("nothing-*.png"));
}

static void a_direct_choice_of_type_is_one_of_the_types(void **state) {
    (void)state;
    prints("\"type\":\"(RECEIPT|INVOICE|BANK_STATEMENT|TRAVEL|LOGBOOK|OTHER)\".*\"rule\":\"direct\"", "classify", "--model", MODEL, "--backend", "cpu", "--ocr", "off",
           "--classify", "direct", SMALL);
    prints("\"rule\":\"evidence: ", "classify", "--model", MODEL, "--backend", "cpu", "--ocr", "off", SMALL);
}

/* ---- batch ---- */

/* Every fifth is not there; the full run has receipts of all sizes. */
static const char *list_of(int n) {
    char *text = malloc((size_t)n * 512 + 512);
    int at = 0;
    assert_non_null(text);
    for (int i = 0; i < n; i++) {
        char image[400];
        snprintf(image, sizeof image, RV_TEST_DEMO "/receipts/r700%d.png", full ? i % 8 : 1);
        at += sprintf(text + at, "{\"image\": \"%s\", \"id\": \"doc %d\"}\n", i % 5 == 3 ? "/nowhere.png" : image, i);
    }
    at += sprintf(text + at, "{\"image\": \"%s\", \"id\": \"doc 0\"}\n", SMALL);            /* named twice */
    const char *path = file_write("list.jsonl", text, (size_t)at);
    free(text);
    return path;
}

static pid_t start_batch(const char *schema, const char *list, const char *output) {
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid) return pid;
    int null = open("/dev/null", O_RDWR);
    dup2(null, 0), dup2(null, 1), dup2(null, 2);
    execl(RV_TEST_PROGRAM, "rvengine", "batch", "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu", "--any-path", "--output", output, list, (char *)NULL);
    _exit(127);
}

static void sleep_ms(long ms) { nanosleep(&(struct timespec){ ms / 1000, ms % 1000 * 1000000 }, NULL); }

/* Every document once, in order, each a whole line of JSON. */
static void check_results(const char *output, int n) {
    size_t bytes;
    char *text = file_read(output, &bytes), *at = text;
    for (int i = 0; i < n; i++) {
        char *newline = strchr(at, '\n'), want[64];
        if (!newline) fail_msg("line %d is missing", i + 1);
        json_t *line = json_loadb(at, (size_t)(newline - at), 0, NULL);
        assert_non_null(line);
        const char *file = i % 5 == 3 ? json_string_value(json_object_get(line, "file")) : json_string_value(json_object_get(json_object_get(line, "document"), "file"));
        snprintf(want, sizeof want, "doc %d", i);
        assert_string_equal(file, want);
        if (i % 5 == 3) assert_string_equal(json_string_value(json_object_get(json_object_get(line, "error"), "code")), "RV_ERR_IO");
        json_decref(line);
        at = newline + 1;
    }
    assert_int_equal(*at, '\0');
    free(text);
}

/* Documents that a journal says are done. */
static int done_in(const char *journal) {
    size_t bytes;
    int lines = -1;                                              /* the first one has the settings          */
    if (access(journal, R_OK)) return 0;
    char *text = file_read(journal, &bytes);
    for (size_t i = 0; i < bytes; i++) lines += text[i] == '\n';
    free(text);
    return lines < 0 ? 0 : lines;
}

/* Runs the batch until `more` documents are done and some time of the next has passed, then sends the signal; returns waitpid's status. */
static int end_batch(const char *schema, const char *list, const char *output, int more, int signal) {
    char journal[4200];
    int status = 0, before, ended = 0;
    snprintf(journal, sizeof journal, "%s.journal", output);
    before = done_in(journal);
    pid_t pid = start_batch(schema, list, output);
    while (!(ended = waitpid(pid, &status, WNOHANG) == pid) && done_in(journal) < before + more) sleep_ms(2);
    if (!ended) sleep_ms(rand() % (full ? 400 : 60)), kill(pid, signal);
    if (!ended) waitpid(pid, &status, 0);
    return status;
}

static int run_batch_to_its_end(const char *schema, const char *list, const char *output) {
    int status;
    waitpid(start_batch(schema, list, output), &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_same(const char *a, const char *b) {
    size_t n, m;
    char *one = file_read(a, &n), *other = file_read(b, &m);
    assert_int_equal(n, m);
    assert_memory_equal(one, other, n);
    free(one);
    free(other);
}

static void a_batch_that_is_killed_five_times_has_every_document_once(void **state) {
    (void)state;
    int n = full ? 200 : 16, status;
    char schema[4096], list[4096], output[4096], whole[4096], run[4200];
    snprintf(schema, sizeof schema, "%s", full ? "demo_receipt" : quick_schema());
    snprintf(list, sizeof list, "%s", list_of(n));
    snprintf(output, sizeof output, "%s", scratch("killed.jsonl"));
    snprintf(whole, sizeof whole, "%s", scratch("whole.jsonl"));
    snprintf(run, sizeof run, "%s.journal", output);
    unlink(output);
    unlink(run);
    srand(5);
    for (int kills = 0; kills < 5; kills++) {
        status = end_batch(schema, list, output, 1 + (full ? rand() % 40 : 0), SIGKILL);
        if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGKILL) fail_msg("kill %d came too late", kills + 1);
        if (full) printf("killed with %d of %d done\n", done_in(run), n);
    }
    status = end_batch(schema, list, output, 1, SIGINT);         /* and once asked to stop */
    assert_true(WIFEXITED(status) && (WEXITSTATUS(status) == 130 || WEXITSTATUS(status) == 1));
    assert_int_equal(run_batch_to_its_end(schema, list, output), 1);              /* some documents are not there */
    check_results(output, n);
    snprintf(run, sizeof run, "%s.run.json", output);
    json_t *report = json_load_file(run, 0, NULL);
    assert_true(json_is_true(json_object_get(report, "complete")));
    assert_int_equal(json_integer_value(json_object_get(report, "done")), n);
    assert_string_equal(json_string_value(json_object_get(json_object_get(report, "memory"), "reduced")), "");        /* nothing was given up to fit */
    json_decref(report);
    if (!full) return;
    unlink(whole);
    snprintf(run, sizeof run, "%s.journal", whole);
    unlink(run);
    assert_int_equal(run_batch_to_its_end(schema, list, whole), 1);
    check_same(output, whole);
}

static void a_batch_goes_on_only_with_the_same_settings(void **state) {
    (void)state;
    char schema[4096], output[4096];
    snprintf(schema, sizeof schema, "%s", quick_schema());
    snprintf(output, sizeof output, "%s", scratch("settings.csv"));
    const setting quiet = { 0 };
    outcome first = run_with(&quiet, ARGS("batch", "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu", "--fresh", "--format", "csv", "--output", output, SMALL));
    assert_int_equal(first.code, 0);
    outcome_free(&first);
    refuses(2, "begun with other settings", "batch", "--model", MODEL, "--schema", schema, "--ocr", "off", "--grammar", "strict", "--format", "csv", "--output", output, SMALL);
    size_t bytes;
    char *text = file_read(output, &bytes);
    assert_true(strncmp(text, "file,", 5) == 0 && strstr(text, ",INVOICE"));
    free(text);
    refuses(2, "not from a batch", "batch", "--model", MODEL, "--schema", schema, "--output", schema, SMALL);
}

static void a_list_may_not_leave_its_folder(void **state) {
    (void)state;
    char list[4096];
    snprintf(list, sizeof list, "%s", file_write("out.jsonl", "{\"image\": \"../../etc/passwd\"}\n", 30));
    refuses(2, "line 1: .*outside the list's folder", "batch", READ, "--output", scratch("out.res"), list);
}

/* ---- PDF ---- */

static void pages_of_a_pdf_are_documents_up_to_a_limit(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    char schema[4096];
    snprintf(schema, sizeof schema, "%s", quick_schema());
    const setting quiet = { 0 };
    outcome got = run_with(&quiet, ARGS("extract", "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu", "--pages", "2", "--dpi", "50", "--format", "jsonl",
                                        pdf_file("thousand.pdf", 1000, "")));
    assert_int_equal(got.code, 0);
    assert_non_null(strstr(got.out, "thousand.pdf#1\""));
    assert_non_null(strstr(got.out, "thousand.pdf#2\""));
    assert_null(strstr(got.out, "#3\""));
    assert_true(matches(got.err, "more pages than the 2 that are read"));
    outcome_free(&got);
}

static void a_pdf_that_cannot_be_drawn_says_why(void **state) {
    (void)state;
    if (!has_pdftoppm()) skip();
    refuses(5, "asks for a password", "extract", READ,
            pdf_file("locked.pdf", 1, "/Encrypt <</Filter /Standard /V 1 /R 2 /P -4 /O (aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa) /U (bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb)>> "
                                  "/ID [(aaaaaaaaaaaaaaaa) (aaaaaaaaaaaaaaaa)]"));
    refuses(4, "cannot be drawn", "extract", READ, file_write("damaged.pdf", "%PDF-1.4\nnothing here\n", 22));
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_receipt_comes_as_lines_and_as_json),
        cmocka_unit_test(two_passes_and_parts_serve_the_same_fields),
        cmocka_unit_test(run_answers_in_json_of_a_schema),
        cmocka_unit_test(half_an_object_is_not_taken_for_a_whole_one),
        cmocka_unit_test(what_is_wrong_is_said_before_the_model_is_loaded),
        cmocka_unit_test(a_direct_choice_of_type_is_one_of_the_types),
        cmocka_unit_test(a_batch_that_is_killed_five_times_has_every_document_once),
        cmocka_unit_test(a_batch_goes_on_only_with_the_same_settings),
        cmocka_unit_test(a_list_may_not_leave_its_folder),
        cmocka_unit_test(pages_of_a_pdf_are_documents_up_to_a_limit),
        cmocka_unit_test(a_pdf_that_cannot_be_drawn_says_why),
    };
    full = argc > 1 && !strcmp(argv[1], "full");
    return cmocka_run_group_tests(tests, NULL, NULL);
}
