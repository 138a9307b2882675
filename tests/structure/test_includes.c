/* test_includes.c - the rooms' borders: reads every #include "..." of the project and fails on one that
 * points up.
 *
 *     tools  bench  tests        tools and bench see the public headers (bench/ops* kernels too); tests look inside
 *            engine
 *     extract  tokenizer  loader  kernels      none knows another, except extract -> tokenizer
 *            base (engine/base)
 */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <dirent.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

enum { MAX_LINES = 600 };

typedef struct rule { const char *from, *may[10]; } rule;

/* Besides itself, the public headers engine/rv*.h (everybody) and, for rooms of the library, base. */
static const rule rules[] = {
    { "base", { 0 } },
    { "loader", { "base" } },
    { "tokenizer", { "base" } },
    { "kernels", { "base" } },
    { "extract", { "base", "tokenizer" } },
    { "engine", { "base", "loader", "tokenizer", "kernels", "extract" } },
    { "tools", { 0 } },
    { "bench", { "tools" } },              /* what every program needs: rv_program */
    { "bench/ops", { "bench", "tools", "kernels" } },
    { "bench/ops_page", { "bench", "bench/ops", "tools", "engine" } },   /* pixels to tiles are no kernel */
    { "tests", { "base", "loader", "tokenizer", "kernels", "extract", "engine", "tools", "bench" } },
};

/* "engine/base/text.h": base; "loader/index.h": loader. NULL: no room. Files bench/ops* time single operations,
 * which no public function shows, and are a room of their own. */
static const rule *room_of(const char *path) {
    if (strncmp(path, "bench/ops_page", 14) == 0) path = "bench/ops_page/";
    else if (strncmp(path, "bench/ops", 9) == 0) path = "bench/ops/";
    const char *name = strncmp(path, "engine/base/", 12) == 0 ? "base/" : path;
    for (size_t i = sizeof rules / sizeof *rules; i-- > 0;) {       /* bench/ops before bench */
        size_t n = strlen(rules[i].from);
        if (strncmp(name, rules[i].from, n) == 0 && name[n] == '/') return &rules[i];
    }
    return NULL;
}

static bool is_public(const char *file) { return strncmp(file, "engine/rv", 9) == 0; }

/* NULL, or what is wrong with `file` including `target`, both relative to the root. */
static const char *judge(const char *file, const char *target) {
    const rule *from = room_of(file), *to = room_of(target);
    if (strncmp(target, "engine/rv", 9) == 0)                   /* the public headers */
        return is_public(file) ? "a public header names its sister alone, so that both work wherever they are installed" : NULL;
    if (is_public(file) && !strchr(target, '/') && strncmp(target, "rv", 2) == 0) return NULL;
    if (!from) return "the file is in no known room";
    if (!to) return "not a path from the root into a known room";
    if (is_public(file)) return "a public header needs nothing but its sisters";
    if (from == to) return NULL;
    for (size_t i = 0; from->may[i]; i++)
        if (strcmp(from->may[i], to->from) == 0) return NULL;
    return "this arrow points up or across";
}

typedef struct tally { int files, includes, wrong; } tally;

static void read_source(const char *file, tally *t) {
    char path[8192], line[4096], target[256];
    struct stat st;
    int number = 0;
    snprintf(path, sizeof path, "%s/%s", RV_TEST_ROOT, file);
    FILE *source = fopen(path, "r");
    if (!source) fail_msg("cannot read %s", path);
    t->files++;
    while (fgets(line, sizeof line, source)) {
        number++;
        if (sscanf(line, " # include \"%255[^\"]\"", target) != 1) continue;
        t->includes++;
        const char *why = judge(file, target);
        snprintf(path, sizeof path, "%s/%s%s", RV_TEST_ROOT, is_public(file) && !strchr(target, '/') ? "engine/" : "", target);
        if (!why && stat(path, &st) != 0) why = "no such file";
        if (!why) continue;
        t->wrong++;
        print_error("%s:%d: #include \"%s\": %s\n", file, number, target, why);
    }
    fclose(source);
    if (number > MAX_LINES && strncmp(file, "tests/", 6) != 0) {
        t->wrong++;
        print_error("%s: %d lines, more than %d: the idea is probably two\n", file, number, MAX_LINES);
    }
}

static bool is_source(const char *name) {
    static const char *const ends[] = { ".c", ".h", ".inl", ".cu", ".cuh", ".cpp" };
    const char *dot = strrchr(name, '.');
    for (size_t i = 0; dot && i < sizeof ends / sizeof *ends; i++)
        if (strcmp(dot, ends[i]) == 0) return true;
    return false;
}

static void walk(const char *folder, tally *t) {
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", RV_TEST_ROOT, folder);
    DIR *dir = opendir(path);
    if (!dir) return;                      /* a room that is not there yet */
    for (struct dirent *entry; (entry = readdir(dir));) {
        struct stat st;
        if (entry->d_name[0] == '.') continue;
        snprintf(path, sizeof path, "%s/%s/%s", RV_TEST_ROOT, folder, entry->d_name);
        const char *relative = path + strlen(RV_TEST_ROOT) + 1;
        char copy[4096];
        snprintf(copy, sizeof copy, "%s", relative);
        if (stat(path, &st) == 0 && S_ISDIR(st.st_mode)) walk(copy, t);
        else if (is_source(copy)) read_source(copy, t);
    }
    closedir(dir);
}

static void no_include_points_up(void **state) {
    static const char *const folders[] = { "engine", "kernels", "loader", "tokenizer", "extract", "tools", "bench", "tests" };
    tally t = { 0 };
    (void)state;
    for (size_t i = 0; i < sizeof folders / sizeof *folders; i++) walk(folders[i], &t);
    print_message("%d files, %d includes\n", t.files, t.includes);
    assert_int_equal(t.wrong, 0);
    assert_true(t.files > 50 && t.includes > 100);      /* it did look */
}

static void the_judge_knows_up_from_down(void **state) {
    (void)state;
    assert_null(judge("engine/model.c", "loader/checkpoint.h"));
    assert_null(judge("engine/model.c", "engine/base/file.h"));
    assert_null(judge("loader/index.c", "engine/base/json.h"));
    assert_null(judge("loader/index.c", "engine/rvengine.h"));
    assert_null(judge("engine/rvextract.h", "rvengine.h"));
    assert_non_null(judge("engine/rvextract.h", "engine/rvengine.h"));
    assert_non_null(judge("engine/rvextract.h", "engine/model.h"));
    assert_non_null(judge("engine/model.c", "rvengine.h"));
    assert_null(judge("extract/parse.c", "tokenizer/tokenizer.h"));
    assert_null(judge("extract/schema.h", "engine/rvextract.h"));
    assert_null(judge("tools/cmd_schema.c", "engine/rvextract.h"));
    assert_non_null(judge("tools/cmd_schema.c", "extract/schema.h"));
    assert_non_null(judge("extract/parse.c", "engine/model.h"));
    assert_null(judge("tests/engine/rig.c", "engine/session.h"));
    assert_non_null(judge("loader/index.c", "engine/config.h"));
    assert_non_null(judge("loader/index.c", "tokenizer/tokenizer.h"));
    assert_non_null(judge("kernels/cpu/pool.c", "engine/model.h"));
    assert_non_null(judge("engine/base/file.c", "engine/config.h"));
    assert_non_null(judge("tools/main.c", "engine/config.h"));
    assert_non_null(judge("tools/main.c", "engine/base/file.h"));
    assert_non_null(judge("engine/model.c", "tools/options.h"));
    assert_non_null(judge("engine/model.c", "model.h"));
    assert_null(judge("bench/cmd_run.c", "tools/options.h"));
    assert_null(judge("bench/ops_cases.c", "kernels/backend.h"));
    assert_null(judge("bench/ops_cases.c", "bench/series.h"));
    assert_non_null(judge("bench/cmd_run.c", "kernels/backend.h"));
    assert_non_null(judge("bench/ops_cases.c", "engine/model.h"));
    assert_null(judge("bench/ops_page.c", "engine/image.h"));
    assert_non_null(judge("tools/main.c", "bench/series.h"));
    assert_non_null(judge("tokenizer/bpe.c", "extract/parse.h"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_include_points_up),
        cmocka_unit_test(the_judge_knows_up_from_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
