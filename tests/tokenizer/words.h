/* words.h - the tokenizers that the tests open, and random text to feed them. */
#ifndef RV_TESTS_WORDS_H
#define RV_TESTS_WORDS_H
#include "tests/support/folder.h"
#include "tokenizer/parts.h"

#define REAL_TOKENIZER RV_TEST_SHARED "/tokenizer/tokenizer.json"
#define DEMO_TOKENIZER RV_TEST_DEMO "/model/tokenizer.json"

static inline rv_tokenizer *open_tokenizer(const char *path) {
    rv_tokenizer *t = NULL;
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_open(path, &t, &err), &err);
    assert_non_null(t);
    return t;
}

/* NULL, with a word about it, where the real vocabulary is not at hand (it is not ours to ship). */
static inline rv_tokenizer *open_real(void) {
    if (rv_file_exists(REAL_TOKENIZER)) return open_tokenizer(REAL_TOKENIZER);
    print_message("SKIPPED: " REAL_TOKENIZER " is not there\n");
    return NULL;
}

static inline uint64_t random_next(uint64_t *state) {          /* xorshift64* */
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    return *state * UINT64_C(2685821657736338717);
}

static inline uint32_t random_below(uint64_t *state, uint32_t n) {
    return (uint32_t)((random_next(state) >> 32) * n >> 32);
}

/* Characters at which the pattern's alternatives part. */
static inline uint32_t random_code(uint64_t *state) {
    static const uint32_t odd[] = {
        '\'', '\'', '\n', '\r', '\t', ' ', ' ', ' ', 0x0b, 0x0c, 0x1c, 0x85, 0xa0, 0x1680, 0x2003, 0x200b, 0x2028,
        0x2029, 0x202f, 0x205f, 0x3000, 0xfeff, 0x200d, 0x17f, 0x212a, 's', 'S', 't', 'T', 'r', 'e', 'E', 'v', 'V',
        'm', 'l', 'L', 'd', 'D', 'a', 'Z', '0', '9', '5', '.', ',', '!', '_', '<', '|', '>', 0xe9, 0xdf, 0x130,
        0x1c5, 0x2b0, 0x300, 0x301, 0x903, 0x915, 0x93f, 0x416, 0x3b1, 0x5d0, 0x627, 0x661, 0x967, 0xb2, 0xbd,
        0x2160, 0x2167, 0x3007, 0x4e2d, 0x6587, 0x3042, 0x30ab, 0xac00, 0x1f600, 0x1f1e6, 0x1f3fd, 0xfe0f, 0x20ac,
        0xa3, 0x2014, 0x2026, 0xad, 0x10000, 0x1d400, 0x1d7ce, 0x20000, 0xe0001, 0xfffd, 0xfb05, 0xfb06, 0, 0x7f };
    uint32_t kind = random_below(state, 16), code;
    if (kind < 10) return odd[random_below(state, sizeof odd / sizeof *odd)];
    if (kind < 13) return 0x20 + random_below(state, 0x5f);
    do code = kind < 15 ? random_below(state, 0x3000) : random_below(state, 0x110000);
    while (code >= 0xd800 && code <= 0xdfff);
    return code;
}

/* Up to `most` characters of valid UTF-8; returns the bytes. */
static inline size_t random_text(uint64_t *state, uint32_t most, char *out) {
    size_t bytes = 0;
    for (uint32_t n = random_below(state, most + 1); n > 0; n--)
        bytes += rv_utf8_write(random_code(state), out + bytes);
    return bytes;
}
#endif
