/* rows.c - the row by row operations at every level, against f64. */
#include "tests/kernels/helpers.h"

static void finish(rv_backend *be) {
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
}

/* A matrix with unaligned rows, filled. */
static rv_mat matrix(int32_t rows, int32_t cols, rv_dtype type, uint32_t seed) {
    rv_mat m = rv_mat_of(odd_memory((int64_t)rows * (cols + 3), type), rows, cols, type);
    m.ld = cols + 3;
    fill(m.data, type, (int64_t)rows * (cols + 3), false, seed);
    return m;
}
static float at(rv_mat m, int32_t r, int32_t c) { return get(rv_cpu_row(m, r), m.type, c); }

typedef void per_setup(rv_backend *be, setup s, int32_t rows, int32_t cols);

static void each(per_setup *f) {
    static const int32_t rows[] = { 1, 3, 64, 130 }, cols[] = { 4, 30, 160, 1282 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++) {
        rv_backend *be = open_setup(setups[i], 3);
        for (int k = 0; k < 4; k++) f(be, setups[i], rows[k], cols[3 - k]);
        f(be, setups[i], 0, 16);                 /* nothing to do is no error                      */
        rv_backend_close(be);
    }
}

static void norm_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    int32_t heads = cols % 2 ? 1 : 2, width = cols / heads;
    float *weight = malloc((size_t)width * 4 + 4), *bias = malloc((size_t)width * 4 + 4);
    fill(weight, RV_F32, width, false, 8);
    fill(bias, RV_F32, width, false, 9);
    for (int mode = 0; mode < 4; mode++) {
        rv_norm n = { weight, mode & 1 ? bias : NULL, 1e-5f, width };
        rv_mat x = matrix(rows, cols, mode & 2 ? RV_F32 : s.act, 3), out = matrix(rows, cols, s.act, 4);
        rv_norm_rows(be, out, x, n);
        finish(be);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t h = 0; h < heads; h++) {
                double mean = 0, square = 0;
                for (int32_t c = 0; c < width && n.bias; c++) mean += at(x, r, h * width + c) / (double)width;
                for (int32_t c = 0; c < width; c++) square += pow(at(x, r, h * width + c) - mean, 2) / width;
                for (int32_t c = 0; c < width; c++) {
                    double e = (at(x, r, h * width + c) - mean) / sqrt(square + 1e-5) * weight[c] + (n.bias ? bias[c] : 0);
                    check_error(setup_name(s), at(out, r, h * width + c), 0, e, 2e-6, unit_of(s.act));
                }
            }
        if (x.type == out.type) {                /* in place                                       */
            rv_norm_rows(be, x, x, n);
            finish(be);
            for (int32_t r = 0; r < rows; r++)
                assert_memory_equal(rv_cpu_row(x, r), rv_cpu_row(out, r), (size_t)cols * rv_dtype_size(x.type));
        }
        free_odd(x.data);
        free_odd(out.data);
    }
    free(weight);
    free(bias);
}

static void swiglu_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    rv_mat x = matrix(rows, 2 * cols, s.act, 3), out = matrix(rows, cols, s.act, 4);
    static const float special[] = { 0, -0.0f, 1e-30f, -100, 100, -88, 3e38f, -3e38f };
    for (int32_t c = 0; c < 8 && c < cols && rows; c++) put(x.data, s.act, c, special[c]);
    rv_swiglu(be, out, x);
    finish(be);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < cols; c++) {
            double g = at(x, r, c), e = g / (1 + exp(-g)) * at(x, r, cols + c);
            if (fabs(e) < 1e38) check_error(setup_name(s), at(out, r, c), 0, e, 1e-7, unit_of(s.act));
        }
    rv_swiglu(be, rv_cols(x, 0, cols), x);       /* over its own gate                              */
    finish(be);
    for (int32_t r = 0; r < rows; r++)
        assert_memory_equal(rv_cpu_row(x, r), rv_cpu_row(out, r), (size_t)cols * rv_dtype_size(x.type));
    free_odd(x.data);
    free_odd(out.data);
}

static void rope_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    int32_t head_dim = cols % 10 == 0 ? cols / 10 * 2 : 2, half = head_dim / 2, positions = 40;
    float *table = malloc((size_t)(positions * head_dim) * 4);
    int32_t *pos = calloc((size_t)rows + 1, 4);
    for (int32_t p = 0; p < positions; p++)
        for (int32_t j = 0; j < half; j++) {
            table[p * head_dim + j] = cosf((float)p * powf(10, -(float)j / (float)half));
            table[p * head_dim + half + j] = sinf((float)p * powf(10, -(float)j / (float)half));
        }
    for (int32_t r = 0; r < rows; r++) pos[r] = r * 7 % positions;
    rv_mat x = matrix(rows, cols, s.act, 3), before = matrix(rows, cols, s.act, 3);
    rv_rope(be, x, table, pos, head_dim);
    finish(be);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < cols; c++) {
            int32_t j = c % head_dim % half, base = c / head_dim * head_dim + j;
            double a = at(before, r, base), b = at(before, r, base + half), co = table[pos[r] * head_dim + j];
            double si = table[pos[r] * head_dim + half + j];
            check_error(setup_name(s), at(x, r, c), 0, c % head_dim < half ? a * co - b * si : b * co + a * si, 2e-7, unit_of(s.act));
        }
    free(table);
    free(pos);
    free_odd(x.data);
    free_odd(before.data);
}

static void copy_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    static const rv_dtype from[] = { RV_F32, RV_F16, RV_BF16 };
    for (int t = 0; t < 3; t++) {
        rv_mat x = matrix(rows, cols, from[t], 3), out = matrix(rows, cols, s.act, 4);
        if (rows && cols > 6) {
            put(x.data, from[t], 0, -0.0f);
            put(x.data, from[t], 1, from[t] == RV_F16 ? 0 : NAN);
            put(x.data, from[t], 2, from[t] == RV_F16 ? 0 : INFINITY);
            put(x.data, from[t], 3, from[t] == RV_F32 ? 1.00390625f : 1);            /* a tie: to even */
            put(x.data, from[t], 4, from[t] == RV_F32 ? 3.4e38f : 1);                /* rounds to infinity */
        }
        rv_copy(be, out, x);
        finish(be);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < cols; c++) {
                float e = at(x, r, c), got = at(out, r, c);
                if (s.act == RV_BF16) e = rv_bf16_to_f32(rv_f32_to_bf16(e));
                if (memcmp(&e, &got, 4)) fail_msg("%s: %g became %g", setup_name(s), (double)e, (double)got);
            }
        rv_zero(be, out);
        finish(be);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < cols; c++) assert_true(at(out, r, c) == 0);
        free_odd(x.data);
        free_odd(out.data);
    }
}

static void table_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    static const rv_dtype types[] = { RV_F32, RV_F16, RV_BF16 };
    for (int t = 0; t < 3; t++) {
        void *data = odd_weights(20 * (int64_t)cols, types[t]);
        fill(data, types[t], 20 * (int64_t)cols, false, 7);
        rv_weight_spec spec = { .name = "table", .rows = 20, .cols = cols, .n_parts = 1, .part = { { data, types[t], 20 } },
                                .use = RV_USE_ROWS };
        assert_int_equal(rv_weight_bytes(be, &spec), 0);
        rv_weight *w = rv_weight_new(be, &spec, NULL);
        int32_t *ids = calloc((size_t)rows + 1, 4);
        for (int32_t r = 0; r < rows; r++) ids[r] = r * 3 % 20;
        rv_mat x = matrix(rows, cols, RV_F32, 3);
        rv_embed(be, x, w, ids);
        finish(be);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < cols; c++)
                assert_true(at(x, r, c) == get(data, types[t], (int64_t)ids[r] * cols + c));
        for (int32_t r = 0; r < rows; r++) ids[r] = r % 4 == 2 ? -1 : (r + 1) % 20;
        rv_add_rows(be, x, w, ids, 0.25f);
        finish(be);
        for (int32_t r = 0; r < rows; r++)
            for (int32_t c = 0; c < cols; c++) {
                double e = get(data, types[t], (int64_t)(r * 3 % 20) * cols + c);
                if (ids[r] >= 0) e += 0.25 * get(data, types[t], (int64_t)ids[r] * cols + c);
                check_error(setup_name(s), at(x, r, c), 0, e, 0, 1e-7);
            }
        rv_weight_free(be, w);
        free(ids);
        free_odd(x.data);
        free_weights(data);
    }
}

static void concat_case(rv_backend *be, setup s, int32_t rows, int32_t cols) {
    rv_mat last = matrix(rows, cols, RV_F32, 1), taps[3], out = matrix(rows, 4 * cols, s.act, 2);
    for (uint32_t i = 0; i < 3; i++) taps[i] = matrix(rows, cols, i == 1 ? s.act : RV_F32, 10 + i);
    rv_concat_taps(be, out, last, taps, 3);
    finish(be);
    for (int32_t r = 0; r < rows; r++)
        for (int32_t c = 0; c < 4 * cols; c++) {
            float e = c < cols ? at(last, r, c) : at(taps[(c - cols) % 3], r, (c - cols) / 3);
            if (s.act == RV_BF16) e = rv_bf16_to_f32(rv_f32_to_bf16(e));
            assert_true(at(out, r, c) == e);
        }
    for (int i = 0; i < 3; i++) free_odd(taps[i].data);
    free_odd(last.data);
    free_odd(out.data);
}

static void norms_match_f64_also_in_place_and_per_head(void **state) { (void)state; each(norm_case); }
static void swiglu_matches_f64_also_over_its_gate(void **state) { (void)state; each(swiglu_case); }
static void rope_turns_half_rotation_pairs(void **state) { (void)state; each(rope_case); }
static void copies_round_to_nearest_even_and_keep_nan(void **state) { (void)state; each(copy_case); }
static void table_rows_are_looked_up_and_added(void **state) { (void)state; each(table_case); }
static void taps_are_interleaved_by_channel(void **state) { (void)state; each(concat_case); }

static void patches_are_cut_row_by_row(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    enum { TILES = 2, CHANNELS = 3, EDGE = 28, PATCH = 7, GRID = EDGE / PATCH };
    for (int i = 0; i < n; i++) {
        rv_backend *be = open_setup(setups[i], 2);
        rv_mat pixels = matrix(TILES, CHANNELS * EDGE * EDGE, RV_F32, 1);
        rv_mat out = matrix(TILES * GRID * GRID, CHANNELS * PATCH * PATCH, setups[i].act, 2);
        rv_patches(be, out, pixels, NULL, CHANNELS, PATCH);
        finish(be);
        for (int32_t r = 0; r < out.rows; r++)
            for (int32_t c = 0; c < out.cols; c++) {
                int32_t tile = r / (GRID * GRID), py = r / GRID % GRID, px = r % GRID, ch = c / (PATCH * PATCH);
                int32_t y = py * PATCH + c / PATCH % PATCH, x = px * PATCH + c % PATCH;
                float e = at(pixels, tile, (ch * EDGE + y) * EDGE + x);
                if (setups[i].act == RV_BF16) e = rv_bf16_to_f32(rv_f32_to_bf16(e));
                assert_true(at(out, r, c) == e);
            }
        free_odd(pixels.data);
        free_odd(out.data);
        rv_backend_close(be);
    }
}

/* Bytes through a table give the very bits that their values give as f32 pixels. */
static void patches_of_bytes_are_those_of_their_values(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    enum { TILES = 2, CHANNELS = 3, EDGE = 140, PATCH = 70, GRID = EDGE / PATCH, PIXELS = CHANNELS * EDGE * EDGE };
    float *values = malloc(CHANNELS * 256 * sizeof *values);
    fill(values, RV_F32, CHANNELS * 256, false, 5);
    for (int i = 0; i < n; i++) {
        rv_backend *be = open_setup(setups[i], 2);
        uint8_t *data = malloc((size_t)TILES * PIXELS);
        rv_mat bytes = rv_mat_of(data, TILES, PIXELS, RV_U8), pixels = matrix(TILES, PIXELS, RV_F32, 1);
        rv_mat out[2] = { matrix(TILES * GRID * GRID, CHANNELS * PATCH * PATCH, setups[i].act, 2),
                          matrix(TILES * GRID * GRID, CHANNELS * PATCH * PATCH, setups[i].act, 3) };
        for (int32_t t = 0; t < TILES; t++)
            for (int32_t p = 0; p < PIXELS; p++) {
                uint8_t byte = (uint8_t)(p * 7 + t * 31 + p / 251);
                data[t * PIXELS + p] = byte;
                put(rv_cpu_row(pixels, t), RV_F32, p, values[p / (EDGE * EDGE) * 256 + byte]);
            }
        rv_patches(be, out[0], bytes, values, CHANNELS, PATCH);
        rv_patches(be, out[1], pixels, NULL, CHANNELS, PATCH);
        finish(be);
        for (int32_t r = 0; r < out[0].rows; r++)
            assert_memory_equal(rv_cpu_row(out[0], r), rv_cpu_row(out[1], r), (size_t)out[0].cols * rv_dtype_size(out[0].type));
        free(data);
        free_odd(pixels.data);
        free_odd(out[0].data);
        free_odd(out[1].data);
        rv_backend_close(be);
    }
    free(values);
}

static void a_row_is_copied_to_many(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++) {
        rv_backend *be = open_setup(setups[i], 2);
        rv_mat x = matrix(1, 30, RV_F32, 1), out = matrix(5, 30, RV_F32, 2);
        x.rows = 5;
        x.ld = 0;
        rv_copy(be, out, x);
        finish(be);
        for (int32_t r = 0; r < 5; r++) assert_memory_equal(rv_cpu_row(out, r), x.data, 30 * sizeof(float));
        free_odd(x.data);
        free_odd(out.data);
        rv_backend_close(be);
    }
}

static void stored_keys_land_in_their_pages(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++) {
        rv_dtype act = setups[i].act;
        rv_backend *be = open_setup(setups[i], 2);
        static const int32_t pages[] = { 4, 0, 2, 1 }, slot[] = { 0, 1, 1, 0, 1 }, pos[] = { 7, 0, 15, -1, 8 };
        static const int32_t lands[] = { 4 * 8 + 7, 2 * 8, 8 + 7, -1, 8 };
        rv_kv kv = { matrix(40, 20, act, 1), matrix(40, 20, act, 2), pages, 8, 2, NULL };
        rv_mat k0 = matrix(40, 20, act, 1), k = matrix(5, 20, RV_F32, 3), v = matrix(5, 20, act, 4);
        rv_kv_store(be, kv, k, v, slot, pos);
        finish(be);
        for (int32_t row = 0; row < 40; row++) {
            int from = -1;
            for (int r = 0; r < 5; r++) if (lands[r] == row) from = r;
            for (int32_t c = 0; c < 20; c++) {
                float e = from < 0 ? at(k0, row, c) : at(k, from, c);
                if (act == RV_BF16) e = rv_bf16_to_f32(rv_f32_to_bf16(e));
                assert_true(at(kv.k, row, c) == e);
                if (from >= 0) assert_true(at(kv.v, row, c) == at(v, from, c));
            }
        }
        rv_mat all[] = { kv.k, kv.v, k0, k, v };
        for (int m = 0; m < 5; m++) free_odd(all[m].data);
        rv_backend_close(be);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(norms_match_f64_also_in_place_and_per_head),
        cmocka_unit_test(swiglu_matches_f64_also_over_its_gate),
        cmocka_unit_test(rope_turns_half_rotation_pairs),
        cmocka_unit_test(copies_round_to_nearest_even_and_keep_nan),
        cmocka_unit_test(table_rows_are_looked_up_and_added),
        cmocka_unit_test(taps_are_interleaved_by_channel),
        cmocka_unit_test(patches_are_cut_row_by_row),
        cmocka_unit_test(patches_of_bytes_are_those_of_their_values),
        cmocka_unit_test(a_row_is_copied_to_many),
        cmocka_unit_test(stored_keys_land_in_their_pages),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
