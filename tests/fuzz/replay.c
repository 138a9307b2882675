/* replay.c - a target's kept inputs, and mutations of each, without a fuzzer: short, and the same every time.
 *
 *   replay TARGET CORPUS [FILE..]     FILE: these alone, as they are (what a fuzzer has found)
 *
 * RV_TEST_FUZZ=N in the environment makes N times as many mutations.
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "tests/fuzz/target.h"

enum { MOST_FILES = 256, MOST_BYTES = 1 << 20 };

static uint64_t seed = 20261128;

static uint32_t draw(uint32_t below) {                   /* xorshift64*                          */
    seed ^= seed >> 12;
    seed ^= seed << 25;
    seed ^= seed >> 27;
    return (uint32_t)((seed * UINT64_C(2685821657736338717) >> 32) * below >> 32);
}

static const char *const words[] = { "null", "true", "-1", "0", "1e999", "99999999999999999999", "\"", "\\u0000", "\\ud800", "{", "[", "}", "]", ",",
                                     "\xff\xfe", "\xef\xbb\xbf", "18446744073709551615", "<|image|>", "[[[[[[[[" };

/* Returns the new length; `text` has room for MOST_BYTES. */
static size_t mutate(uint8_t *text, size_t n) {
    for (uint32_t changes = 1 + draw(4); changes; changes--) {
        const size_t at = n ? draw((uint32_t)n) : 0, left = n - at, run = left ? draw((uint32_t)(left < 64 ? left : 64)) : 0;
        const char *word = words[draw(sizeof words / sizeof *words)];
        const size_t bytes = strlen(word);
        switch (draw(7)) {
        case 0: if (n) text[at] = (uint8_t)draw(256); break;
        case 1: if (n) text[at] ^= (uint8_t)(1u << draw(8)); break;
        case 2: memmove(text + at, text + at + run, left - run), n -= run; break;
        case 3: if (n + bytes < MOST_BYTES) memmove(text + at + bytes, text + at, left), memcpy(text + at, word, bytes), n += bytes; break;
        case 4: if (n + run < MOST_BYTES) memmove(text + at + run, text + at, left), n += run; break;
        case 5: if (draw(4) == 0) n = at; break;
        default: if (n && text[at] >= '0' && text[at] <= '9') text[at] = (uint8_t)('0' + draw(10)); break;
        }
    }
    return n;
}

static void run(const fuzz_target *t, const uint8_t *data, size_t bytes) {
    uint8_t *exact = fuzz_exact(data, bytes);
    t->run(exact, bytes);
    free(exact);
}

/* The path and its mutations; returns how many. */
static long replay(const fuzz_target *t, const char *path, uint32_t rounds) {
    static uint8_t text[MOST_BYTES];
    char *data;
    size_t bytes;
    rv_error err;
    if (rv_file_read(path, MOST_BYTES - 1, &data, &bytes, &err)) {
        fprintf(stderr, "replay: %s\n", err.message);
        exit(2);
    }
    run(t, (const uint8_t *)data, bytes);
    for (uint32_t i = 0; i < rounds; i++) {
        memcpy(text, data, bytes);
        run(t, text, mutate(text, bytes));
    }
    free(data);
    return 1 + (long)rounds;
}

static int by_name(const void *a, const void *b) { return strcmp(*(char *const *)a, *(char *const *)b); }

static int list(const char *folder, char *names[MOST_FILES]) {
    int n = 0;
    DIR *d = opendir(folder);
    for (struct dirent *e; d && n < MOST_FILES && (e = readdir(d));)
        if (e->d_name[0] != '.') names[n++] = rv_path_join(folder, e->d_name);
    if (d) closedir(d);
    qsort(names, (size_t)n, sizeof *names, by_name);
    return n;
}

int main(int argc, char **argv) {
    const fuzz_target *t = argc > 2 ? fuzz_find(argv[1]) : NULL;
    const char *times = getenv("RV_TEST_FUZZ");
    char *names[MOST_FILES];
    long inputs = 0;
    if (!t) return fprintf(stderr, "replay TARGET CORPUS [FILE..]\n"), 2;
    for (int i = 3; i < argc; i++) inputs += replay(t, argv[i], 0);
    const int n = argc > 3 ? 0 : list(argv[2], names);
    if (argc == 3 && n == 0) return fprintf(stderr, "replay: %s: no files\n", argv[2]), 2;
    for (int i = 0; i < n; i++) {
        inputs += replay(t, names[i], t->rounds * (uint32_t)(times ? atoi(times) : 1));
        free(names[i]);
    }
    return printf("%s: %d files, %ld inputs: each an error with a message, or a good result\n", t->name, argc > 3 ? argc - 3 : n, inputs), 0;
}
