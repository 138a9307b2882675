/* The hash: XXH3's published values, and the same from every CPU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "engine/base/hash.h"

static uint8_t bytes[1 << 16];

static int set_up(void **state) {
    (void)state;
    uint32_t x = 1;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)((x = x * 1664525u + 1013904223u) >> 24);
    return 0;
}

static void empty_input_has_the_published_hash(void **state) {
    (void)state;
    assert_int_equal(rv_hash64(bytes, 0), UINT64_C(0x2d06800538d394c2));
    rv_hash h = rv_hash128(bytes, 0);
    assert_int_equal(h.low, UINT64_C(0x6001c324468d497f));
    assert_int_equal(h.high, UINT64_C(0x99aa06d3014798d8));
}

static void every_cpu_has_the_same_hash(void **state) {
    (void)state;
    for (size_t n = 0; n < sizeof bytes; n = n < 1100 ? n + 1 : n * 3 / 2 + 7) {
        assert_int_equal(rv_hash64(bytes + 1, n), rv_hash64_plain(bytes + 1, n));
#if defined(__x86_64__)
        if (__builtin_cpu_supports("avx2")) assert_int_equal(rv_hash64_avx2(bytes + 1, n), rv_hash64_plain(bytes + 1, n));
#endif
    }
}

static void any_bit_changes_the_hash(void **state) {
    (void)state;
    const uint64_t before = rv_hash64(bytes, sizeof bytes);
    for (size_t i = 0; i < sizeof bytes; i += 977)
        for (int bit = 0; bit < 8; bit++) {
            bytes[i] ^= (uint8_t)(1 << bit);
            assert_true(rv_hash64(bytes, sizeof bytes) != before);
            bytes[i] ^= (uint8_t)(1 << bit);
        }
    assert_int_equal(rv_hash64(bytes, sizeof bytes), before);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(empty_input_has_the_published_hash),
        cmocka_unit_test(every_cpu_has_the_same_hash),
        cmocka_unit_test(any_bit_changes_the_hash),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
