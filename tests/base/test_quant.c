/* test_quant.c - the two weight formats against the golden vectors of spec quantisation.md, and at their edges. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "engine/base/quant.h"

static float f16(float f) { return rv_f16_to_f32(rv_f32_to_f16(f)); }

static void halves_of(uint16_t *out, const float *in, int n) {
    for (int i = 0; i < n; i++) out[i] = rv_f32_to_f16(in[i]);
}

/* ---- what has a code ---- */

static void one_number_that_is_none_is_seen_wherever_it_stands(void **state) {
    (void)state;
    static const uint32_t bits[][4] = { { 0x7f800000, 0xff800000, 0x7fc00000, 0xff800001 }, { 0x7c00, 0xfc00, 0x7e00, 0xfc01 }, { 0x7f80, 0xff80, 0x7fc0, 0xff81 } };
    static const uint32_t most[] = { 0xff7fffff, 0xfbff, 0xff7f };               /* the largest finite ones, negative */
    static const rv_dtype types[] = { RV_F32, RV_F16, RV_BF16 };
    char data[4 * 23 + 1];
    for (int t = 0; t < 3; t++)
        for (int64_t n = 0; n <= 22; n++)
            for (int64_t at = 0; at <= n; at++)                                  /* at == n: behind them, where nobody looks */
                for (int k = 0; k < 4; k++) {
                    const size_t step = rv_dtype_size(types[t]);
                    char *from = data + k % 2;                                   /* not aligned either */
                    for (int64_t i = 0; i <= n; i++) memcpy(from + (size_t)i * step, i == at ? &bits[t][k] : &most[t], step);
                    assert_int_equal(rv_all_finite(from, types[t], n), at == n);
                }
}

/* ---- section 1.6 ---- */

static const float A[3][8] = { { .5f, -1.25f, 3, 7, 0, -2.5f, .125f, 1 }, { 2, .25f, -6, 1.5f, 0, -.5f, 5.996f, -3 } };
static const float W[2][8] = { { .1f, -.2f, .3f, -.45f, .05f, .6f, -.7f, .8f }, { 1, .5f, -.25f, .125f, -1.5f, .7f, .3f, -.9f } };
static const int8_t CA[3][8] = { { 21, -53, 0, 0, 0, -106, 5, 42 }, { 42, 5, 0, 0, 0, -11, 127, -64 } };
static const int8_t CB[2][8] = { { 16, -32, 48, -71, 8, 95, -111, 127 }, { 85, 42, -21, 11, -127, 59, 25, -76 } };
static const float SCA[3] = { 3, 5.99609375f, 0 }, SCB[2] = { 0.7998046875f, 1.5f };

static void golden_int8_weights(void **state) {
    (void)state;
    for (int n = 0; n < 2; n++) {
        uint16_t w[8];
        int8_t codes[8];
        halves_of(w, W[n], 8);
        assert_true(rv_int8_weights(codes, w, RV_F16, 8) == SCB[n]);
        assert_memory_equal(codes, CB[n], 8);
        assert_true(rv_int8_weights(codes, W[n], RV_F32, 8) == SCB[n]);          /* rounded to f16 first */
        assert_memory_equal(codes, CB[n], 8);
    }
}

static void golden_int8_activations(void **state) {
    (void)state;
    for (int m = 0; m < 3; m++) {
        float x[8];
        int8_t codes[8];
        for (int k = 0; k < 8; k++) x[k] = f16(A[m][k]);
        assert_true(rv_int8_activations(codes, x, 8, 6) == SCA[m]);
        if (m == 0) assert_int_equal(codes[2], 127);      /* 3.0, in a column that another row makes an outlier's */
        if (m == 1) assert_int_equal(codes[3], 32);
        codes[2] = codes[3] = 0;                          /* bitsandbytes' union over the call        */
        assert_memory_equal(codes, CA[m], 8);
    }
}

static void golden_int8_outputs(void **state) {
    (void)state;
    static const int32_t sums[3][2] = { { -3259, -9762 }, { -22758, 11170 }, { 0, 0 } };
    static const float y8[3][2] = { { -.48486328125f, -2.72265625f }, { -6.765625f, 6.23046875f }, { 0, 0 } };
    static const float sub[2][2] = { { .30224609375f, -.447021484375f }, { -.248046875f, .1298828125f } };
    static const float y[3][2] = { { -2.70703125f, -2.55859375f }, { -9.25f, 7.9140625f }, { 0, 0 } };
    for (int n = 0; n < 2; n++) {
        float w[8];
        rv_codes q = { .format = RV_FORMAT_INT8, .codes = CB, .scale = SCB };
        rv_codes_read(w, &q, 8, n * 8, 8);
        assert_true(f16(w[2]) == sub[n][0] && f16(w[3]) == sub[n][1]);
        for (int m = 0; m < 3; m++) {
            int32_t sum = 0;
            for (int k = 0; k < 8; k++) sum += CA[m][k] * CB[n][k];
            assert_int_equal(sum, sums[m][n]);
            float scaled = f16(rv_int8_scaled(sum, SCA[m], SCB[n]));
            assert_true(scaled == y8[m][n]);
            assert_true(f16(scaled + f16(A[m][2]) * f16(w[2]) + f16(A[m][3]) * f16(w[3])) == y[m][n]);
        }
    }
}

static void the_constants_have_the_published_bits(void **state) {
    (void)state;
    float both = RV_INT8_BOTH, one = RV_INT8_ONE;
    uint32_t bits;
    memcpy(&bits, &both, 4);
    assert_int_equal(bits, 0x38820610);
    memcpy(&bits, &one, 4);
    assert_int_equal(bits, 0x3c010204);
}

/* ---- int8's edges ---- */

static void int8_ties_go_to_even(void **state) {
    (void)state;
    static const float w[8] = { 127, 2.5f, 3.5f, -2.5f, -3.5f, .5f, -.5f, 126.5f };
    static const int8_t want[8] = { 127, 2, 4, -2, -4, 0, 0, 126 };
    int8_t codes[8];
    assert_true(rv_int8_weights(codes, w, RV_F32, 8) == 127);
    assert_memory_equal(codes, want, 8);
    static const float half[2] = { 1, -.5f };                    /* 63.5: where an approximate reciprocal may differ */
    rv_int8_weights(codes, half, RV_F32, 2);
    assert_int_equal(codes[1], -64);
}

static void int8_takes_zero_rows_nan_and_infinity(void **state) {
    (void)state;
    int8_t codes[4] = { 1, 1, 1, 1 };
    static const int8_t none[4];
    static const float zero[4] = { 0, -0.f, 0, 0 }, nan_row[4] = { NAN, 1, -2, 0 }, infinite[4] = { INFINITY, 1, -70000, 65504 };
    assert_true(rv_int8_weights(codes, zero, RV_F32, 4) == 0);
    assert_memory_equal(codes, none, 4);
    assert_true(rv_int8_weights(codes, nan_row, RV_F32, 4) == 2);
    assert_true(codes[0] == 0 && codes[1] == 64 && codes[2] == -127);
    assert_true(isinf(rv_int8_weights(codes, infinite, RV_F32, 4)));             /* as is -70000 in f16 */
    assert_memory_equal(codes, none, 4);
}

static void int8_weights_are_f16_first(void **state) {
    (void)state;
    static const uint16_t w[3] = { 0x3f80, 0x3300, 0x3280 };     /* bf16: 1, 2^-25 (0 in f16), 2^-26 */
    static const float near_half[2] = { 1, 0.003938f };           /* 0.50013 / 127, in f16 0.49997 / 127 */
    int8_t codes[3];
    assert_true(rv_int8_weights(codes, w, RV_BF16, 3) == 1 && codes[1] == 0 && codes[2] == 0);
    assert_true(rv_int8_weights(codes, w + 1, RV_BF16, 2) == 0);                  /* all of it vanishes */
    rv_int8_weights(codes, near_half, RV_F32, 2);
    assert_int_equal(codes[1], 0);
}

static void activations_at_the_threshold_are_outliers(void **state) {
    (void)state;
    static const float x[6] = { 6, -6, 5.99609375f, NAN, INFINITY, 3 };
    int8_t codes[6];
    assert_true(rv_int8_activations(codes, x, 6, 6) == 5.99609375f);
    static const int8_t want[6] = { 0, 0, 127, 0, 0, 64 };
    assert_memory_equal(codes, want, 6);
    static const float plain[4] = { 60, -12, NAN, 0 };
    assert_true(rv_int8_activations(codes, plain, 4, 0) == 60);                   /* off */
    assert_true(codes[0] == 127 && codes[1] == -25 && codes[2] == 0 && codes[3] == 0);
    static const float all[2] = { 7, -8 };
    assert_true(rv_int8_activations(codes, all, 2, 6) == 0 && codes[0] == 0 && codes[1] == 0);
}

/* ---- section 2 ---- */

static void golden_nf4_codes(void **state) {
    (void)state;
    static const uint16_t first[8] = { 0xb800, 0x2d26, 0xb592, 0x330d, 0xb252, 0x35c9, 0x0000, 0xb800 };
    float w[64], absmax, read[64];
    uint16_t halves[64];
    uint8_t codes[32];
    for (int i = 0; i < 64; i++) w[i] = (float)(37 * i % 64 - 31) / 64;
    halves_of(halves, w, 64);
    rv_nf4_quantise(codes, &absmax, halves, RV_F16, 64);
    assert_true(absmax == .5f);
    char text[65];
    for (int i = 0; i < 32; i++) snprintf(text + 2 * i, 3, "%02x", codes[i]);
    assert_string_equal(text, "091c3e70a2d4f81b2e5f91c3e60a2d4f71b2e5f91c3e60a1d4e71b2d5f81c3e6");
    rv_codes q = { .format = RV_FORMAT_NF4, .codes = codes, .scale = &absmax };
    memcpy(q.map, rv_nf4_map, sizeof q.map);
    rv_codes_read(read, &q, 64, 0, 64);
    for (int i = 0; i < 8; i++) assert_int_equal(rv_f32_to_f16(read[i]), first[i]);
}

static void a_value_on_a_threshold_takes_the_lower_code(void **state) {
    (void)state;
    for (int t = 0; t < 15; t++) {
        float w[64] = { 1, rv_nf4_threshold[t], nextafterf(rv_nf4_threshold[t], 2) }, absmax;
        uint8_t codes[32];
        rv_nf4_quantise(codes, &absmax, w, RV_F32, 64);
        assert_true(absmax == 1);
        assert_int_equal(codes[0] & 15, t);
        assert_int_equal(codes[1] >> 4, t + 1);
        double middle = ((double)rv_nf4_map[t] + (double)rv_nf4_map[t + 1]) / 2;     /* or a unit in the last place off */
        assert_true(fabs((double)rv_nf4_threshold[t] - middle) <= fabs(middle) * 0x1p-23);
    }
}

static void a_zero_block_is_code_0_and_reads_as_minus_zero(void **state) {
    (void)state;
    float w[64] = { 0 }, absmax = 1, read[64];
    uint8_t codes[32];
    memset(codes, 0xff, sizeof codes);
    rv_nf4_quantise(codes, &absmax, w, RV_F32, 64);
    assert_true(absmax == 0);
    rv_codes q = { .format = RV_FORMAT_NF4, .codes = codes, .scale = &absmax };
    memcpy(q.map, rv_nf4_map, sizeof q.map);
    rv_codes_read(read, &q, 64, 0, 64);
    for (int i = 0; i < 64; i++) assert_true(codes[i / 2] == 0 && read[i] == 0 && signbit(read[i]));
}

static void nf4_takes_nan_and_infinity(void **state) {
    (void)state;
    float w[64] = { NAN, -2, 1 }, absmax;
    uint8_t codes[32];
    rv_nf4_quantise(codes, &absmax, w, RV_F32, 64);
    assert_true(absmax == 2);
    assert_int_equal(codes[0], 0x00);                            /* NaN: 0; -2 / 2: 0 */
    assert_int_equal(codes[1], 0xc7);                            /* 0.5 lies below the 13th threshold */
    w[0] = INFINITY;
    rv_nf4_quantise(codes, &absmax, w, RV_F32, 64);
    assert_true(isinf(absmax) && codes[1] == 0x77);              /* everything else is 0 beside it */
}

static void golden_nested_codes(void **state) {
    (void)state;
    static const uint8_t first[16] = { 0, 16, 32, 48, 67, 193, 209, 225, 242, 2, 18, 35, 51, 81, 196, 212 };
    float absmax[256], scale;
    uint8_t codes[256];
    for (int j = 0; j < 256; j++) absmax[j] = (float)(0.02 + 0.0001 * (29 * j % 256));
    float offset = rv_nested_quantise(codes, &scale, absmax, 256);
    assert_true(fabsf(offset - 0.032750003f) <= 0x1p-28f);      /* torch adds up in f32: its last bit is its own */
    assert_true(fabsf(scale - 0.0127500035f) <= 0x1p-28f);
    assert_memory_equal(codes, first, 16);
    rv_codes q = { .format = RV_FORMAT_NF4, .nested = codes, .nested_scale = &scale, .offset = offset };
    memcpy(q.nested_map, rv_nested_map, sizeof q.nested_map);
    for (int j = 0; j < 256; j++) assert_true(fabsf(rv_codes_absmax(&q, j) - absmax[j]) <= 0.0071f * scale);
}

/* The table by its formula, in f64: at most a unit in the last place off (section 2.4). */
static void the_dynamic_code_follows_its_formula(void **state) {
    (void)state;
    int at = 128;
    assert_true(rv_nested_map[127] == 0 && rv_nested_map[255] == 1);
    for (int e = 0; e < 7; e++)
        for (int j = 0; j < 1 << e; j++, at++) {
            double v = pow(10, e - 6) * (0.1 + 0.9 * (j + 0.5) / (1 << e));
            assert_true(fabs((double)rv_nested_map[at] - v) <= v * 0x1p-22);
            assert_true(rv_nested_map[254 - at] == -rv_nested_map[at]);
        }
    assert_int_equal(at, 255);
}

static void every_nested_code_is_the_nearest(void **state) {
    (void)state;
    enum { N = 1000 };
    float absmax[N], scale[(N + 255) / 256];
    uint8_t codes[N];
    uint32_t random = 7;
    for (int i = 0; i < N; i++) {
        random = random * 1664525u + 1013904223u;
        absmax[i] = 0.03f + (float)(random >> 8) * 0x1p-30f;
    }
    float offset = rv_nested_quantise(codes, scale, absmax, N);
    for (int i = 0; i < N; i++) {
        float x = (absmax[i] - offset) / scale[i / 256], best = 3;
        for (int c = 0; c < 256; c++) best = fminf(best, fabsf(rv_nested_map[c] - x));
        assert_true(fabsf(rv_nested_map[codes[i]] - x) <= best + 1e-7f);
    }
}

static void equal_absmaxes_nest_without_a_scale(void **state) {
    (void)state;
    float absmax[300], scale[2];
    uint8_t codes[300];
    for (int i = 0; i < 300; i++) absmax[i] = 0.25f;
    assert_true(rv_nested_quantise(codes, scale, absmax, 300) == 0.25f);
    for (int i = 0; i < 300; i++) assert_int_equal(codes[i], 127);
    assert_true(scale[0] == 0 && scale[1] == 0);
}

/* Whatever the table says: FP4, and any other that a checkpoint brings; from any place, in any pieces. */
static void codes_are_read_through_the_table_given(void **state) {
    (void)state;
    static const float fp4[8] = { 0, 0.0052083333f, 0.6666667f, 1, 0.33333333f, 0.5f, 0.16666667f, 0.25f };
    rv_codes q = { .format = RV_FORMAT_FP4 };
    unsigned char room[4 * 4 + 1];
    float absmax[4] = { 1, 2, 0.5f, 3 }, read[256], part[5];
    uint8_t codes[128];
    for (int i = 0; i < 16; i++) q.map[i] = i < 8 ? fp4[i] : -fp4[i - 8];
    for (int i = 0; i < 128; i++) codes[i] = (uint8_t)(i * 37);
    memcpy(room + 1, absmax, sizeof absmax);                     /* no alignment is promised */
    q.codes = codes;
    q.scale = room + 1;
    rv_codes_read(read, &q, 128, 0, 256);
    for (int i = 0; i < 256; i++) {
        int code = i % 2 ? codes[i / 2] & 15 : codes[i / 2] >> 4;
        assert_true(read[i] == q.map[code] * absmax[i / 64]);
    }
    for (int from = 0; from + 5 <= 256; from += 3) {
        rv_codes_read(part, &q, 128, from, 5);
        assert_memory_equal(part, read + from, sizeof part);
    }
}

/* ---- section 3 ---- */

static void the_text_layers_of_the_11b_model_take_what_the_format_says(void **state) {
    (void)state;
    static const int64_t shape[7][2] = { { 4096, 4096 }, { 1024, 4096 }, { 1024, 4096 }, { 4096, 4096 }, { 14336, 4096 }, { 14336, 4096 }, { 4096, 14336 } };
    const uint64_t rest = UINT64_C(10670220835) - UINT64_C(8724152320);          /* stays 16 bit */
    uint64_t plain = 0, int8 = 0, nf4 = 0, nested = 0;
    for (int i = 0; i < 7; i++) {
        plain += 40 * rv_codes_bytes(RV_FORMAT_PLAIN, false, shape[i][0], shape[i][1]);
        int8 += 40 * rv_codes_bytes(RV_FORMAT_INT8, false, shape[i][0], shape[i][1]);
        nf4 += 40 * rv_codes_bytes(RV_FORMAT_NF4, false, shape[i][0], shape[i][1]);
        nested += 40 * rv_codes_bytes(RV_FORMAT_NF4, true, shape[i][0], shape[i][1]);
    }
    assert_true(plain == 2 * UINT64_C(8724152320));
    assert_true(int8 == UINT64_C(8724152320) + 4 * 40 * UINT64_C(43008));
    assert_true(nf4 == UINT64_C(8724152320) / 16 * 9);
    assert_true(nested == UINT64_C(8724152320) / 2 + UINT64_C(8724152320) / 64 + UINT64_C(8724152320) / 16384 * 4 + 4 * 280);
    assert_true(fabs((double)(int8 + 2 * rest) / 1e9 - 12.62) < 0.01);
    assert_true(fabs((double)(nf4 + 2 * rest) / 1e9 - 8.80) < 0.01);
    assert_true(fabs((double)(nested + 2 * rest) / 1e9 - 8.39) < 0.01);
}

static void formats_have_names(void **state) {
    (void)state;
    assert_string_equal(rv_format_name(RV_FORMAT_PLAIN), "16bit");
    assert_string_equal(rv_format_name(RV_FORMAT_INT8), "int8");
    assert_string_equal(rv_format_name(RV_FORMAT_NF4), "nf4");
    assert_string_equal(rv_format_name(RV_FORMAT_FP4), "fp4");
    assert_string_equal(rv_format_name(RV_FORMATS), "?");
}

static void only_types_with_arithmetic_have_a_size(void **state) {
    (void)state;
    assert_int_equal(rv_dtype_size(RV_F32), 4);
    assert_int_equal(rv_dtype_size(RV_I64), 8);
    assert_int_equal(rv_dtype_size(RV_DTYPE_COUNT), 0);
    assert_int_equal(rv_dtype_size((rv_dtype)99), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_number_that_is_none_is_seen_wherever_it_stands),
        cmocka_unit_test(golden_int8_weights),
        cmocka_unit_test(golden_int8_activations),
        cmocka_unit_test(golden_int8_outputs),
        cmocka_unit_test(the_constants_have_the_published_bits),
        cmocka_unit_test(int8_ties_go_to_even),
        cmocka_unit_test(int8_takes_zero_rows_nan_and_infinity),
        cmocka_unit_test(int8_weights_are_f16_first),
        cmocka_unit_test(activations_at_the_threshold_are_outliers),
        cmocka_unit_test(golden_nf4_codes),
        cmocka_unit_test(a_value_on_a_threshold_takes_the_lower_code),
        cmocka_unit_test(a_zero_block_is_code_0_and_reads_as_minus_zero),
        cmocka_unit_test(nf4_takes_nan_and_infinity),
        cmocka_unit_test(golden_nested_codes),
        cmocka_unit_test(the_dynamic_code_follows_its_formula),
        cmocka_unit_test(every_nested_code_is_the_nearest),
        cmocka_unit_test(equal_absmaxes_nest_without_a_scale),
        cmocka_unit_test(codes_are_read_through_the_table_given),
        cmocka_unit_test(the_text_layers_of_the_11b_model_take_what_the_format_says),
        cmocka_unit_test(formats_have_names),
        cmocka_unit_test(only_types_with_arithmetic_have_a_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
