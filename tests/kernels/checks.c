/* checks.c - calls that do not fit are caught, named, and stop all that follows. */
#include "tests/kernels/helpers.h"

static rv_backend *open_f32(void) {
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options o = { .threads = 2, .act = RV_F32 };
    if (rv_cpu_open(&o, &be, &err)) fail_msg("%s", err.message);
    return be;
}

static void expect_error(rv_backend *be, rv_status code, const char *part) {
    rv_error err = { 0 };
    assert_int_equal(rv_finish(be, &err), code);
    if (!strstr(err.message, part)) fail_msg("\"%s\" does not say \"%s\"", err.message, part);
    rv_backend_close(be);
}

static float space[4096];
static rv_mat mat(int32_t rows, int32_t cols) { return rv_mat_of(space, rows, cols, RV_F32); }
static const rv_weight_spec SPEC = { .name = "w", .rows = 8, .cols = 16, .n_parts = 1, .part = { { space, RV_F32, 8 } } };

static void a_wrong_shape_is_sticky_and_names_the_operation(void **state) {
    (void)state;
    rv_backend *be = open_f32();
    rv_weight *w = rv_weight_new(be, &SPEC, NULL);
    float out[64];
    for (int i = 0; i < 64; i++) out[i] = 7;
    rv_mat fits = rv_mat_of(out, 2, 8, RV_F32);
    rv_linear(be, fits, mat(2, 17), w, NULL, RV_ACT_NONE);
    assert_int_equal(be->error.code, RV_ERR_INTERNAL);
    rv_linear(be, fits, mat(2, 16), w, NULL, RV_ACT_NONE);   /* right, but too late */
    for (int i = 0; i < 64; i++) assert_true(out[i] == 7);
    assert_null(rv_device_alloc(be, 10));
    rv_weight_free(be, w);
    expect_error(be, RV_ERR_INTERNAL, "linear: the weight is [8 x 16], the matrices want [8 x 17]");
}

static void every_operation_refuses_shapes_that_do_not_fit(void **state) {
    (void)state;
    int32_t ids[8] = { 0 };
    rv_norm norm = { space, NULL, 1e-5f, 5 };
    rv_kv kv = { mat(8, 8), mat(8, 8), NULL, 0, 0, NULL };
    rv_attention a = { .q = mat(2, 16), .out = mat(2, 16), .kv = kv, .last = ids, .heads = 4, .kv_heads = 1, .longest = 8 };
    rv_mat tap = mat(2, 9), bf16 = rv_mat_of(space, 2, 8, RV_BF16), narrow = mat(2, 8);
    narrow.ld = 7;
    for (int i = 0; i < 18; i++) {
        rv_backend *be = open_f32();
        rv_weight *w = rv_weight_new(be, &SPEC, NULL);
        static const char *const says[] = { "zero", "copy", "patches", "embed", "add_rows", "norm", "linear", "linear_add",
                                            "swiglu", "rope", "kv_store", "attend", "concat_taps", "attend", "linear", "copy",
                                            "patches", "patches" };
        switch (i) {
        case 0: rv_zero(be, narrow); break;
        case 1: rv_copy(be, mat(2, 3), mat(3, 2)); break;
        case 2: rv_patches(be, mat(4, 12), mat(1, 3 * 5 * 5), NULL, 3, 2); break;
        case 3: rv_embed(be, mat(2, 15), w, ids); break;
        case 4: rv_add_rows(be, rv_mat_of(space, 2, 16, RV_BF16), w, ids, 1); break;
        case 5: rv_norm_rows(be, mat(2, 12), mat(2, 12), norm); break;
        case 6: rv_linear(be, mat(3, 8), mat(2, 16), w, NULL, RV_ACT_NONE); break;
        case 7: rv_linear_add(be, mat(2, 9), mat(2, 16), w, NULL, 1, NULL); break;
        case 8: rv_swiglu(be, mat(2, 8), mat(2, 15)); break;
        case 9: rv_rope(be, mat(2, 12), space, ids, 5); break;
        case 10: rv_kv_store(be, kv, mat(2, 8), mat(3, 8), NULL, ids); break;
        case 11: rv_attend(be, &a); break;
        case 12: rv_concat_taps(be, mat(2, 16), mat(2, 8), &tap, 1); break;
        case 13: a.kv_heads = 3; rv_attend(be, &a); break;
        case 14: rv_linear(be, mat(2, 8), rv_mat_of(space, 2, 16, RV_BF16), w, NULL, RV_ACT_NONE); break;
        case 15: rv_copy(be, bf16, mat(2, 8)); break;        /* bf16 is not this backend's type */
        case 16: rv_patches(be, mat(4, 12), mat(1, 3 * 4 * 4), space, 3, 2); break;      /* values are of bytes */
        default: rv_patches(be, mat(4, 12), rv_mat_of(space, 1, 3 * 4 * 4, RV_U8), NULL, 3, 2); break;
        }
        rv_weight_free(be, w);
        expect_error(be, RV_ERR_INTERNAL, says[i]);
    }
}

static void weights_that_contradict_themselves_are_refused(void **state) {
    (void)state;
    for (int i = 0; i < 7; i++) {
        rv_backend *be = open_f32();
        rv_weight_spec s = SPEC;
        if (i == 0) s.rows = 9;
        if (i == 1) s.n_parts = 4;
        if (i == 2) s.part[0].type = RV_I8;
        if (i == 3) s.part[0].data = NULL;
        if (i == 4) s.order = RV_ORDER_GATE_UP;
        if (i == 5) s.cols = 0;
        if (i == 6) s.part[0].rows = -8;
        assert_null(rv_weight_new(be, &s, NULL));
        expect_error(be, RV_ERR_INTERNAL, "weight w");
    }
}

static void ids_and_keys_out_of_range_are_errors(void **state) {
    (void)state;
    int32_t ids[2] = { 0, 8 }, minus[2] = { 0, -1 }, pages[2] = { 0, 9 };
    rv_kv kv = { mat(8, 8), mat(8, 8), NULL, 0, 0, NULL };
    rv_attention a = { .q = mat(2, 8), .out = rv_mat_of(space + 2048, 2, 8, RV_F32), .kv = kv, .last = ids, .heads = 1,
                       .kv_heads = 1, .longest = 9 };
    static const char *const says[] = { "embed: row 1", "kv_store: row 1", "outside the cache", "sees keys 0..8",
                                        "embed: row 1", "rope: row 1", "kv_store: row 1" };
    for (int i = 0; i < 7; i++) {
        rv_backend *be = open_f32();
        rv_weight *w = rv_weight_new(be, &SPEC, NULL);
        if (i == 0) rv_embed(be, mat(2, 16), w, ids);
        if (i == 1) rv_kv_store(be, kv, mat(2, 8), mat(2, 8), NULL, ids);
        if (i == 2) rv_attend(be, &a);
        if (i == 3) {
            rv_attention b = a;
            b.longest = 8;
            rv_attend(be, &b);
        }
        if (i == 4) rv_embed(be, mat(2, 16), w, minus);
        if (i == 5) rv_rope(be, mat(2, 16), space, minus, 4);
        if (i == 6) {
            kv.pages = pages;
            kv.page_rows = 4;
            kv.max_pages = 2;
            ids[1] = 5;
            rv_kv_store(be, kv, mat(2, 8), mat(2, 8), NULL, ids);
        }
        rv_weight_free(be, w);
        expect_error(be, RV_ERR_INTERNAL, says[i]);
    }
}

static void too_wide_a_head_is_unsupported_by_name(void **state) {
    (void)state;
    int32_t last[1] = { 0 };
    rv_backend *be = open_f32();
    rv_kv kv = { mat(1, 512), mat(1, 512), NULL, 0, 0, NULL };
    rv_attention a = { .q = mat(1, 512), .out = mat(1, 512), .kv = kv, .last = last, .heads = 1, .kv_heads = 1, .longest = 1 };
    rv_attend(be, &a);
    expect_error(be, RV_ERR_UNSUPPORTED, "heads of 512 columns");
}

static void memory_is_zeroed_and_aligned_and_too_much_is_an_error(void **state) {
    (void)state;
    rv_backend *be = open_f32();
    char *p = rv_device_alloc(be, 1000), *none = rv_device_alloc(be, 0);
    assert_int_equal((uintptr_t)p % 256, 0);
    assert_non_null(none);
    for (int i = 0; i < 1000; i++) assert_int_equal(p[i], 0);
    rv_upload(be, p, "abc", 4);
    char back[4];
    rv_download(be, back, p, 4);
    assert_string_equal(back, "abc");
    const size_t large = 5 << 20;                            /* in huge pages                              */
    char *q = rv_device_alloc(be, large);
    assert_non_null(q);
    assert_int_equal((uintptr_t)q % 256, 0);
    for (size_t i = 0; i < large; i++)
        if (q[i]) fail_msg("byte %zu of fresh memory is %d", i, q[i]);
    q[large - 1] = 1;
    rv_device_release(be, q);
    assert_null(rv_device_alloc(be, UINT64_MAX - 3));
    rv_device_release(be, p);
    rv_device_release(be, none);
    rv_device_release(be, NULL);
    expect_error(be, RV_ERR_MEMORY, "out of memory");
}

static void options_out_of_range_are_errors(void **state) {
    (void)state;
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options minus = { .threads = -1 }, crowd = { .threads = 5000 }, f16 = { .act = RV_F16 };
    assert_int_equal(rv_cpu_open(&minus, &be, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_cpu_open(&crowd, &be, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_cpu_open(&f16, &be, &err), RV_ERR_UNSUPPORTED);
    assert_null(be);
    rv_backend_close(NULL);
    rv_cpu_options bf16 = { .act = RV_BF16 };
    rv_status st = rv_cpu_open(&bf16, &be, &err);
    assert_int_equal(st, rv_cpu_detect().avx512_bf16 ? RV_OK : RV_ERR_UNSUPPORTED);
    rv_backend_close(be);
    bf16.reference = true;
    assert_int_equal(rv_cpu_open(&bf16, &be, &err), RV_OK);
    rv_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_wrong_shape_is_sticky_and_names_the_operation),
        cmocka_unit_test(every_operation_refuses_shapes_that_do_not_fit),
        cmocka_unit_test(weights_that_contradict_themselves_are_refused),
        cmocka_unit_test(ids_and_keys_out_of_range_are_errors),
        cmocka_unit_test(too_wide_a_head_is_unsupported_by_name),
        cmocka_unit_test(memory_is_zeroed_and_aligned_and_too_much_is_an_error),
        cmocka_unit_test(options_out_of_range_are_errors),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
