/* batch as a user sees it: which documents, with which settings, and what is told at the end.  (Kills: test_cli_documents.) */
#include "tests/cli/program.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SMALL RV_TEST_DEMO "/receipts/r7001.png"      /* one tile */
#define QUICK "--model", MODEL, "--schema", schema, "--ocr", "off", "--backend", "cpu"
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

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_option_is_no_documents_failure),
    };
    snprintf(schema, sizeof schema, "%s", quick_schema());
    return cmocka_run_group_tests(tests, NULL, NULL);
}
