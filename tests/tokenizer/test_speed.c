/* How fast: the numbers are printed, and held to bounds that only a mistake in kind would miss. */
#include <time.h>

#include "tests/tokenizer/words.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { SLOWER = 40 };
#else
enum { SLOWER = 1 };
#endif

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Ordinary text, four megabytes: this project's own sources and pages. */
static size_t read_corpus(char **out) {
    static const char *const files[] = { "engine/rvengine.h", "tokenizer/bpe.c", "tokenizer/vocabulary.c",
                                         "engine/prompt.c",
                                         "tools/demo/README.md", "tests/CMakeLists.txt" };
    enum { WANTED = 4 << 20 };
    char *text = malloc(WANTED);
    size_t used = 0;
    assert_non_null(text);
    for (size_t i = 0; used < WANTED; i = (i + 1) % (sizeof files / sizeof *files)) {
        char path[1024], *file;
        size_t bytes;
        rv_error err = { 0 };
        snprintf(path, sizeof path, "%s/../../%s", RV_TEST_DATA, files[i]);
        expect_ok(rv_file_read(path, WANTED, &file, &bytes, &err), &err);
        bytes = rv_utf8_check(file, bytes < WANTED - used ? bytes : WANTED - used);
        memcpy(text + used, file, bytes);
        free(file);
        used += bytes;
        if (WANTED - used < 4) break;
    }
    *out = text;
    return used;
}

static void ordinary_text_is_tokenized_at_megabytes_a_second(void **state) {
    (void)state;
    rv_tokenizer *t = open_real();
    if (!t) t = open_tokenizer(DEMO_TOKENIZER);
    char *text;
    size_t bytes = read_corpus(&text);
    double best = 1e9;
    for (int round = 0; round < 3; round++) {
        rv_ids ids = { 0 };
        rv_error err = { 0 };
        double begin = seconds();
        expect_ok(rv_tokenizer_append(t, text, bytes, 0, &ids, &err), &err);
        double took = seconds() - begin;
        if (took < best) best = took;
        rv_ids_free(&ids);
    }
    print_message("tokenizing: %.1f MB/s on one core\n", 1e-6 * (double)bytes / best);
    assert_true(best < (double)bytes / 2e6 * SLOWER);
    free(text);
    rv_tokenizer_free(t);
}

static void opening_takes_milliseconds(void **state) {
    (void)state;
    static const struct { const char *path; double limit_s; } files[] = {
        { DEMO_TOKENIZER, 0.1 }, { REAL_TOKENIZER, 2 } };
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        if (!rv_file_exists(files[i].path)) continue;
        double best = 1e9;
        for (int round = 0; round < 3; round++) {
            double begin = seconds();
            rv_tokenizer *t = open_tokenizer(files[i].path);
            double took = seconds() - begin;
            if (took < best) best = took;
            rv_tokenizer_free(t);
        }
        print_message("opening %s: %.2f ms\n", files[i].path, 1e3 * best);
        assert_true(best < files[i].limit_s * SLOWER);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ordinary_text_is_tokenized_at_megabytes_a_second),
        cmocka_unit_test(opening_takes_milliseconds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
