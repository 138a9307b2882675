/* codes_kept.c - int8 and 4-bit weights at every level: how they are made, what they take, and what is refused. */
#include "tests/kernels/codes.h"

static uint32_t bits_of(float f) {
    uint32_t bits;
    memcpy(&bits, &f, 4);
    return bits;
}

/* Random values, ties, values on thresholds, and in later rounds NaN, infinity or nothing but zeros. */
static void odd_row(void *out, rv_dtype type, int32_t n, int round) {
    uint32_t random = 5 + (uint32_t)round;
    for (int32_t i = 0; i < n; i++) {
        float f = random_float(&random) * 4;
        if (round == 1) f = i % 5 ? (float)(i % 127) + 0.5f : 127;
        if (round == 2) f = i % 16 == 15 ? 1 : rv_nf4_threshold[i % 16];
        if (round == 3 && i % 9 == 4) f = NAN;
        if (round == 4 && i % 70 == 4) f = type == RV_F16 ? 65504 : 1e30f;
        if (round == 5) f = 0;
        if (round == 6) f *= 8;
        if (type == RV_F16 && isnan(f)) {
            uint16_t h = 0x7e00;
            memcpy((char *)out + 2 * i, &h, 2);
        } else put(out, type, i, f);
    }
}

static void every_level_makes_the_same_codes(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++) {
        rv_backend *be = open_rules(setups[i], 1, 6, false);
        const rv_cpu_kernels *k = ((rv_cpu *)be)->kernels;
        for (int t = 0; t < 3; t++)
            for (int round = 0; round < 7; round++)
                for (int32_t cols = 1; cols < 700; cols += 33) {
                    int8_t a[720], b[720];
                    int32_t column[720], other[720];
                    float sa, sb, absmax[12], other_absmax[12];
                    void *row = odd_weights(720, TYPES[t]);
                    odd_row(row, TYPES[t], 704, round);
                    sa = k->int8_weights(a, row, TYPES[t], cols);
                    sb = rv_int8_weights(b, row, TYPES[t], cols);
                    assert_int_equal(bits_of(sa), bits_of(sb));
                    assert_memory_equal(a, b, (size_t)cols);
                    for (int limit = 0; limit < 7 && TYPES[t] == be->act; limit += 6) {
                        int32_t some = k->int8_row(a, &sa, column, row, TYPES[t], cols, (float)limit);
                        assert_int_equal(some, rv_cpu_int8_row(b, &sb, other, row, TYPES[t], cols, (float)limit));
                        assert_int_equal(bits_of(sa), bits_of(sb));
                        assert_memory_equal(a, b, (size_t)cols);
                        assert_memory_equal(column, other, (size_t)some * 4);
                    }
                    int32_t whole = cols / 64 * 64;
                    k->nf4_quantise((uint8_t *)a, absmax, row, TYPES[t], whole);
                    rv_nf4_quantise((uint8_t *)b, other_absmax, row, TYPES[t], whole);
                    assert_memory_equal(a, b, (size_t)whole / 2);
                    assert_memory_equal(absmax, other_absmax, (size_t)whole / 64 * 4);
                    free_weights(row);
                }
        rv_backend_close(be);
    }
}

/* The plain loop is the rules' own, over values rounded to f16. */
static void activations_are_quantised_by_the_rules(void **state) {
    (void)state;
    for (int round = 0; round < 7; round++)
        for (int limit = 0; limit < 7; limit += 6) {
            float x[300], sca;
            int8_t a[300], b[300];
            int32_t column[300], n = 0;
            odd_row(x, RV_F32, 300, round);
            int32_t some = rv_cpu_int8_row(a, &sca, column, x, RV_F32, 300, (float)limit);
            for (int k = 0; k < 300; k++) {
                x[k] = f16(x[k]);
                if (limit && fabsf(x[k]) >= 6) assert_int_equal(column[n++], k);
            }
            assert_int_equal(n, some);
            assert_int_equal(bits_of(rv_int8_activations(b, x, 300, (float)limit)), bits_of(sca));
            assert_memory_equal(a, b, 300);
        }
}

static void a_weight_takes_its_codes_and_no_more(void **state) {
    (void)state;
    for (int t = 0; t < 4; t++)
        for (int in_place = 0; in_place < 2; in_place++) {
            problem p = { .rows = 1, .outs = 300, .cols = 512, .n_parts = 3, .format = t ? RV_FORMAT_NF4 : RV_FORMAT_INT8, .nested = t > 1,
                .in_place = in_place };
            rv_backend *be = open_rules((setup){ CPU_BASE, RV_F32, false }, 1, 6, false);
            data d = make(be, &p);
            uint64_t bytes = rv_weight_bytes(be, &d.spec), codes = rv_codes_bytes(p.format, p.nested, 300, 512);
            for (int i = 0; i < 3; i++) d.spec.part[i].data = NULL;              /* planning */
            assert_true(rv_weight_bytes(be, &d.spec) == bytes);
            if (in_place) assert_true(bytes == 0);
            else assert_true(bytes >= codes && bytes < codes + 9 * 72);          /* nine arrays, each on a line of its own */
            drop(be, &d);
            rv_backend_close(be);
        }
}

/* What one process made, another finds in memory. */
static void memory_that_is_filled_is_the_weight(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < 3; t++) {
            problem p = { .rows = 3, .outs = 300, .cols = 576, .n_parts = 3, .format = t ? RV_FORMAT_NF4 : RV_FORMAT_INT8, .nested = t > 1 };
            rv_backend *be = open_rules(setups[i], 2, 6, false);
            data d = make(be, &p);
            uint64_t bytes = rv_weight_bytes(be, &d.spec);
            float out[900];
            compute(be, &p, &d, d.out, d.x);
            void *memory = rv_device_alloc(be, bytes);
            memcpy(memory, d.memory, bytes);
            memset(d.memory, 0, bytes);
            rv_weight_spec spec = d.spec;
            spec.filled = true;
            for (int k = 0; k < 3; k++) spec.part[k].data = NULL;
            rv_weight *w = rv_weight_new(be, &spec, memory);
            rv_linear(be, rv_mat_of(out, 3, 300, be->act), d.x, w, NULL, RV_ACT_NONE);
            finish(be);
            for (int r = 0; r < 3; r++)
                assert_memory_equal((char *)out + (size_t)r * 300 * rv_dtype_size(be->act), rv_cpu_row(d.out, r), 300 * rv_dtype_size(be->act));
            rv_weight_free(be, w);
            rv_device_release(be, memory);
            drop(be, &d);
            rv_backend_close(be);
        }
}

static void what_cannot_be_kept_is_an_error(void **state) {
    (void)state;
    static const float values[64 * 65];
    for (int t = 0; t < 3; t++) {
        rv_backend *be = open_rules((setup){ CPU_BASE, RV_F32, false }, 1, 6, false);
        rv_weight_spec spec = { .name = "odd", .rows = 64, .cols = t == 0 ? 65 : 64, .n_parts = 1, .part = { { values, RV_F32, 64, NULL } },
                                .format = t == 1 ? RV_FORMAT_FP4 : RV_FORMAT_NF4, .use = t == 2 ? RV_USE_ROWS : RV_USE_TEXT };
        rv_error err = { 0 };
        assert_true(rv_weight_bytes(be, &spec) == 0);
        assert_int_equal(rv_finish(be, &err), t == 1 ? RV_ERR_UNSUPPORTED : RV_ERR_INTERNAL);
        assert_non_null(strstr(err.message, t == 0 ? "multiple of 64" : t == 1 ? "not quantised to fp4" : "table of rows"));
        assert_null(rv_weight_new(be, &spec, NULL));
        rv_backend_close(be);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_level_makes_the_same_codes),
        cmocka_unit_test(activations_are_quantised_by_the_rules),
        cmocka_unit_test(a_weight_takes_its_codes_and_no_more),
        cmocka_unit_test(memory_that_is_filled_is_the_weight),
        cmocka_unit_test(what_cannot_be_kept_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
