/* codes.c - products with int8 and 4-bit weights at every level, against the rules of engine/base/quant.h. */
#include "tests/kernels/codes.h"

/* ---- LLM.int8 ---- */

typedef struct int8_model { double y; float largest; bool exact; } int8_model;

/* Row r, output o by spec 1.2 to 1.5. mask: the call's outlier columns, or NULL. */
static int8_model int8_row(const problem *p, const data *d, int32_t r, int32_t o, const bool *mask) {
    int32_t n = p->cols, part = 0, at = o, sum = 0;
    float *x = malloc((size_t)n * 4), *w = malloc((size_t)n * 4);
    int8_t *codes = malloc((size_t)n);
    rv_dtype act = d->x.type;
    while (at >= d->part[part].rows) at -= d->part[part++].rows;
    for (int32_t k = 0; k < n; k++) x[k] = f16(get(d->x.data, act, r * d->x.ld + k));
    float sca = rv_int8_activations(codes, x, n, p->threshold), scb;
    memcpy(&scb, (const char *)d->codes[part].scale + at * 4, 4);
    weight_row(p, d, o, w);
    const int8_t *cb = (const int8_t *)d->codes[part].codes + (int64_t)at * n;
    int8_model m = { .exact = true };
    double more = 0;
    for (int32_t k = 0; k < n; k++) {
        if (mask ? mask[k] : p->threshold > 0 && fabsf(x[k]) >= p->threshold) {
            double term = (double)get(d->x.data, act, r * d->x.ld + k) * as(act, w[k]);
            more += term;
            m.largest = fmaxf(m.largest, fabsf((float)more));
            m.exact = false;
        } else sum += cb[k] * codes[k];
    }
    float y8 = as(act, f16(rv_int8_scaled(sum, sca, scb)));
    m.largest = fmaxf(m.largest, fabsf(y8));
    m.y = m.exact ? y8 : y8 + more;
    free(x);
    free(w);
    free(codes);
    return m;
}

static bool *call_columns(const problem *p, const data *d) {
    if (!p->by_call || p->rows == 1) return NULL;
    bool *mask = calloc((size_t)p->cols, 1);
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t k = 0; k < p->cols; k++) mask[k] |= fabsf(f16(get(d->x.data, d->x.type, r * d->x.ld + k))) >= p->threshold;
    return mask;
}

/* Which rows are checked. */
static int32_t every(const problem *p) { return p->rows > 16 ? 5 : 1; }

/* Of every checked row and output its value, and the largest sum on the way to it, 0 where it is exact. */
static void work_out_int8(expected *want, const problem *p, const data *d) {
    bool *mask = call_columns(p, d);
    for (int32_t r = 0; r < p->rows; r += every(p))
        for (int32_t o = 0; o < p->outs; o++) {
            int8_model m = int8_row(p, d, r, o, mask);
            double *to = want->values + ((int64_t)r * p->outs + o) * 2;
            to[0] = after(p, d, m.y, o, get(d->out.data, d->out.type, r * d->out.ld + o));
            to[1] = m.exact ? 0 : m.largest;
        }
    want->there = true;
    free(mask);
}

static void check_int8(setup s, const problem *p) {
    rv_backend *be = open_rules(s, 2, p->threshold, p->by_call);
    data d = make(be, p);
    expected *want = expected_of(p, sizeof *p, s.act, (int64_t)p->rows * p->outs * 2);
    if (!want->there) work_out_int8(want, p, &d);
    compute(be, p, &d, d.out, d.x);
    for (int32_t r = 0; r < p->rows; r += every(p))
        for (int32_t o = 0; o < p->outs; o++) {
            const double *of = want->values + ((int64_t)r * p->outs + o) * 2, e = of[0];
            double got = get(d.out.data, d.out.type, r * d.out.ld + o), allowed = 2 * of[1] * (s.act == RV_BF16 ? 0x1p-8 : 0x1p-11);
            if (p->bias || p->gelu || p->add) allowed += unit_of(d.out.type) * (fabs(e) + 1e-3) + 1e-6;
            if (!(fabs(got - e) <= allowed))
                fail_msg("%s rows %d outs %d cols %d outliers %d by call %d at %d,%d: got %.9g, by the rules %.9g, allowed %.3g", setup_name(s),
                         p->rows, p->outs, p->cols, p->outliers, p->by_call, r, o, got, e, allowed);
        }
    drop(be, &d);
    rv_backend_close(be);
}

static void int8_products_follow_the_rules(void **state) {
    (void)state;
    static const int32_t rows[] = { 1, 2, 3, 7, 64, 65, 130 }, cols[] = { 64, 100, 33, 256, 8, 1000, 61 }, outliers[] = { 0, 3, 30 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 7; r++)
            for (int t = 0; t < 3; t++) {
                problem p = { .rows = rows[r], .outs = r % 2 ? 83 : 31, .cols = cols[r], .n_parts = 1 + (r + t) % 3, .format = RV_FORMAT_INT8,
                              .in_place = (r + t) % 2, .threshold = 6, .outliers = outliers[t] };
                check_int8(setups[i], &p);
                p.by_call = true;
                check_int8(setups[i], &p);
                p.by_call = false;
                p.threshold = 0;
                check_int8(setups[i], &p);
                p.threshold = 6;
                p.bias = p.gelu = true;
                check_int8(setups[i], &p);
                p.gelu = false;
                p.add = true;
                check_int8(setups[i], &p);
            }
}

static void wide_int8_products_are_exact(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int32_t rows = 1; rows < 6; rows += 4) {
            problem p = { .rows = rows, .outs = 20, .cols = 14336, .n_parts = 1, .format = RV_FORMAT_INT8, .threshold = 6 };
            check_int8(setups[i], &p);
            p.outliers = 300;
            check_int8(setups[i], &p);
        }
}

/* Spec 1.6 through the backend: f32 in place of f16, so the outliers' weights are not rounded; within two f16 units. */
static void the_golden_layer_comes_out(void **state) {
    (void)state;
    static const float a[3][8] = { { .5f, -1.25f, 3, 7, 0, -2.5f, .125f, 1 }, { 2, .25f, -6, 1.5f, 0, -.5f, 5.99609375f, -3 } };
    static const float weight[2][8] = { { .1f, -.2f, .3f, -.45f, .05f, .6f, -.7f, .8f }, { 1, .5f, -.25f, .125f, -1.5f, .7f, .3f, -.9f } };
    static const float y[3][2] = { { -2.70703125f, -2.55859375f }, { -9.25f, 7.9140625f }, { 0, 0 } };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++) {
        if (setups[i].act != RV_F32) continue;
        rv_backend *be = open_rules(setups[i], 1, 6, true);
        rv_weight_spec spec = { .name = "golden", .rows = 2, .cols = 8, .n_parts = 1, .part = { { weight, RV_F32, 2, NULL } }, .format = RV_FORMAT_INT8 };
        void *memory = rv_device_alloc(be, rv_weight_bytes(be, &spec));
        rv_weight *w = rv_weight_new(be, &spec, memory);
        float out[3][2];
        rv_linear(be, rv_mat_of(out, 3, 2, RV_F32), rv_mat_of((void *)(uintptr_t)a, 3, 8, RV_F32), w, NULL, RV_ACT_NONE);
        finish(be);
        for (int r = 0; r < 3; r++)
            for (int o = 0; o < 2; o++)
                if (fabsf(out[r][o] - y[r][o]) > 2 * 0x1p-11f * fmaxf(8, fabsf(y[r][o])))
                    fail_msg("%s: %d,%d: %g, golden %g", setup_name(setups[i]), r, o, (double)out[r][o], (double)y[r][o]);
        assert_true(out[2][0] == 0 && out[2][1] == 0);
        rv_weight_free(be, w);
        rv_device_release(be, memory);
        rv_backend_close(be);
    }
}

/* NaN is dropped, infinity makes its row infinite or NaN, a row of outliers alone is a 16-bit product: each in its own row. */
static void odd_values_stay_in_their_row(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int32_t rows = 5; rows < 80; rows += 65) {
            problem p = { .rows = rows, .outs = 19, .cols = 72, .n_parts = 1, .format = RV_FORMAT_INT8, .threshold = 6 };
            rv_backend *be = open_rules(setups[i], 2, 6, false);
            data d = make(be, &p);
            rv_mat plain = rv_mat_of(calloc((size_t)rows * 19, 4), rows, 19, be->act);
            compute(be, &p, &d, plain, d.x);
            put(d.x.data, d.x.type, d.x.ld + 7, NAN);
            put(d.x.data, d.x.type, 2 * d.x.ld + 7, INFINITY);
            for (int32_t k = 0; k < 72; k++) put(d.x.data, d.x.type, 3 * d.x.ld + k, (float)(k % 2 ? 6 + k : -6 - k));
            compute(be, &p, &d, d.out, d.x);
            for (int32_t r = 0; r < rows; r++)
                for (int32_t o = 0; o < 19; o++) {
                    float got = get(d.out.data, d.out.type, r * d.out.ld + o), was = get(plain.data, plain.type, r * 19 + o);
                    if (r == 2) assert_true(!isfinite(got));
                    else if (r != 1 && r != 3) assert_true(got == was);
                    else {
                        int8_model m = int8_row(&p, &d, r, o, NULL);
                        if (!(fabs(got - m.y) <= (m.exact ? 0 : 2 * m.largest * (be->act == RV_BF16 ? 0x1p-8 : 0x1p-11))))
                            fail_msg("%s: row %d: %g, by the rules %g", setup_name(setups[i]), r, (double)got, m.y);
                    }
                }
            free(plain.data);
            drop(be, &d);
            rv_backend_close(be);
        }
}

/* One row's outlier moves another row's 16-bit columns only where the call is asked to be one. */
static void by_call_a_row_depends_on_its_neighbours(void **state) {
    (void)state;
    for (int by_call = 0; by_call < 2; by_call++) {
        problem p = { .rows = 2, .outs = 40, .cols = 128, .n_parts = 1, .format = RV_FORMAT_INT8, .threshold = 6, .by_call = by_call };
        rv_backend *be = open_rules((setup){ CPU_REFERENCE, RV_F32, false }, 1, 6, by_call);
        data d = make(be, &p);
        float alone[40];
        put(d.x.data, RV_F32, d.x.ld + 9, 50);                   /* row 1 */
        compute(be, &p, &d, rv_mat_of(alone, 1, 40, RV_F32), rv_rows(d.x, 0, 1));
        compute(be, &p, &d, d.out, d.x);
        assert_int_equal(memcmp(alone, d.out.data, sizeof alone) != 0, by_call);
        drop(be, &d);
        rv_backend_close(be);
    }
}

/* ---- 4 bit ---- */

/* In f64, and how far the same in plain f32 is from it. */
static void work_out_4bit(expected *want, const problem *p, const data *d, rv_dtype kept) {
    float *w = malloc((size_t)p->cols * 4);
    float *x = malloc((size_t)p->rows * (size_t)p->cols * sizeof *x);        /* read once: the loop passes over them often */
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t k = 0; k < p->cols; k++) x[(int64_t)r * p->cols + k] = get(d->x.data, d->x.type, r * d->x.ld + k);
    for (int32_t o = 0; o < p->outs; o++) {
        weight_row(p, d, o, w);
        for (int32_t k = 0; k < p->cols; k++) w[k] = as(kept, w[k]);
        for (int32_t r = 0; r < p->rows; r++) {
            const float *row = x + (int64_t)r * p->cols;
            double sum = 0, *to = want->values + (int64_t)r * p->outs + o;
            float plain = 0, before = get(d->out.data, d->out.type, r * d->out.ld + o);
            for (int32_t k = 0; k < p->cols; k++) {
                sum += (double)row[k] * w[k];
                plain += row[k] * w[k];
            }
            *to = after(p, d, sum, o, before);
            want->worst = fmax(want->worst, fabs(plain_after(p, d, plain, o, before) - *to));
        }
    }
    want->there = true;
    free(x);
    free(w);
}

static void check_4bit(setup s, const problem *p) {
    rv_backend *be = open_rules(s, 2, 6, false);
    data d = make(be, p);
    expected *want = expected_of(p, sizeof *p, s.act, (int64_t)p->rows * p->outs);
    if (!want->there) work_out_4bit(want, p, &d, s.act == RV_BF16 ? RV_BF16 : RV_F16);
    compute(be, p, &d, d.out, d.x);
    char what[160];
    for (int32_t r = 0; r < p->rows; r++) {
        snprintf(what, sizeof what, "%s format %d nested %d rows %d outs %d cols %d at row %d", setup_name(s), p->format, p->nested, p->rows, p->outs, p->cols, r);
        for (int32_t o = 0; o < p->outs; o++)
            check_error(what, get(d.out.data, d.out.type, r * d.out.ld + o), 0, want->values[(int64_t)r * p->outs + o], want->worst,
                        unit_of(d.out.type) + (p->gelu ? 1e-6 : 0));
    }
    drop(be, &d);
    rv_backend_close(be);
}

static void four_bit_products_err_at_most_twice_a_plain_loop(void **state) {
    (void)state;
    static const int32_t rows[] = { 1, 2, 3, 7, 64, 65, 130 }, cols[] = { 64, 128, 192, 640, 64, 576, 256 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 7; r++)
            for (int t = 0; t < 4; t++) {
                problem p = { .rows = rows[r], .outs = r % 2 ? 83 : 53, .cols = cols[r], .n_parts = 1 + (r + t) % 3,
                    .format = t == 3 ? RV_FORMAT_FP4 : RV_FORMAT_NF4,
                              .nested = t != 1, .in_place = t > 1 };
                check_4bit(setups[i], &p);
                p.bias = p.gelu = true;
                check_4bit(setups[i], &p);
                p.gelu = false;
                p.add = true;
                check_4bit(setups[i], &p);
            }
}

static void wide_4bit_products_are_right(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int32_t rows = 1; rows < 80; rows += 69) {
            problem p = { .rows = rows, .outs = 20, .cols = 14336, .n_parts = 1, .format = RV_FORMAT_NF4, .nested = true };
            check_4bit(setups[i], &p);
        }
}

/* Wide enough that items are 32 outputs, and the second of them ends one part and begins the next: absmaxes from any block on. */
static void items_begin_anywhere_in_a_part(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int nested = 0; nested < 2; nested++) {
            problem p = { .rows = 1, .outs = 101, .cols = 2112, .n_parts = 2, .format = RV_FORMAT_NF4, .nested = nested };
            check_4bit(setups[i], &p);
        }
}

/* Rows of the unit matrix bring out the weights themselves: rounded once, to the bit, in any format. */
static void weights_are_decoded_to_the_bit(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < 8; t++)
            for (int32_t rows = 1; rows < 400; rows += rows == 1 ? 63 : 256) {
                problem p = { .rows = rows, .outs = 41, .cols = 320, .n_parts = 2, .format = t % 2 ? RV_FORMAT_NF4 : RV_FORMAT_FP4, .nested = t & 2,
                    .in_place = t % 2 == 0 };
                if (t > 5) p.format = t > 6 ? RV_FORMAT_INT8 : RV_FORMAT_NF4, p.in_place = true, p.nested = false;
                rv_backend *be = open_rules(setups[i], 2, 6, false);
                data d = make(be, &p);
                float w[320];
                if (t > 5) {                                     /* kept as 16 bit */
                    rv_weight_free(be, d.w);
                    rv_device_release(be, d.memory);
                    d.spec.format = RV_FORMAT_PLAIN;
                    for (int k = 0; k < p.n_parts; k++) d.spec.part[k].codes = &d.codes[k];      /* where they are since make returned */
                    d.memory = rv_device_alloc(be, rv_weight_bytes(be, &d.spec));
                    d.w = rv_weight_new(be, &d.spec, d.memory);
                    finish(be);
                }
                for (int32_t r = 0; r < rows; r++)
                    for (int32_t k = 0; k < 320; k++) put(d.x.data, d.x.type, r * d.x.ld + k, k == r * 7 % 320);
                compute(be, &p, &d, d.out, d.x);
                for (int32_t o = 0; o < 41; o++) {
                    weight_row(&p, &d, o, w);
                    for (int32_t r = 0; r < rows; r++) {
                        float e = as(be->act == RV_BF16 ? RV_BF16 : RV_F16, w[r * 7 % 320]), got = get(d.out.data, d.out.type, r * d.out.ld + o);
                        if (e != got) fail_msg("%s: %d rows, case %d: row %d, output %d: %.9g instead of %.9g", setup_name(setups[i]), rows, t, r, o,
                            (double)got, (double)e);
                    }
                }
                drop(be, &d);
                rv_backend_close(be);
            }
}

/* ---- all formats ---- */

static void a_row_has_the_same_bits_among_1_to_64_rows(void **state) {
    (void)state;
    static const int32_t batch[] = { 1, 2, 3, 7, 16, 17, 33, 64 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < 3; t++) {
            problem p = { .rows = 64, .outs = 101, .cols = t ? 448 : 357, .n_parts = 2, .format = t ? RV_FORMAT_NF4 : RV_FORMAT_INT8, .nested = t > 1,
                .outliers = 20, .threshold = 6 };
            rv_backend *be = open_rules(setups[i], 2, 6, false);
            size_t size = rv_dtype_size(be->act);
            data d = make(be, &p);
            compute(be, &p, &d, d.out, d.x);
            rv_mat part = rv_mat_of(malloc(64 * 101 * 4), 64, 101, be->act);
            for (size_t b = 0; b < sizeof batch / sizeof *batch; b++)
                for (int32_t from = 0; from + batch[b] <= 64; from += batch[b] + 3) {
                    compute(be, &p, &d, rv_rows(part, 0, batch[b]), rv_rows(d.x, from, batch[b]));
                    for (int32_t r = 0; r < batch[b]; r++)
                        if (memcmp(rv_cpu_row(part, r), rv_cpu_row(d.out, from + r), 101 * size))
                            fail_msg("%s: format %d: row %d differs in a batch of %d", setup_name(setups[i]), p.format, from + r, batch[b]);
                }
            free(part.data);
            drop(be, &d);
            rv_backend_close(be);
        }
}

static void thread_counts_do_not_change_a_bit(void **state) {
    (void)state;
    static const int counts[] = { 1, 2, 5 }, rows[] = { 1, 7, 64, 200 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int c = 0; c < 8; c++) {
            problem p = { .rows = rows[c / 2], .outs = 331, .cols = 256, .n_parts = 1, .format = c % 2 ? RV_FORMAT_NF4 : RV_FORMAT_INT8,
                .outliers = 4, .nested = true, .threshold = 6 };
            size_t bytes = (size_t)p.rows * 336 * rv_dtype_size(setups[i].act);
            void *first = NULL;
            for (int t = 0; t < 3; t++) {
                rv_backend *be = open_rules(setups[i], counts[t], 6, false);
                data d = make(be, &p);
                compute(be, &p, &d, d.out, d.x);
                if (!first) memcpy(first = malloc(bytes), d.out.data, bytes);
                else if (memcmp(first, d.out.data, bytes)) fail_msg("%s: format %d, %d rows: %d threads differ from 1", setup_name(setups[i]),
                    p.format, p.rows, counts[t]);
                drop(be, &d);
                rv_backend_close(be);
            }
            free(first);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_products_follow_the_rules),
        cmocka_unit_test(wide_int8_products_are_exact),
        cmocka_unit_test(the_golden_layer_comes_out),
        cmocka_unit_test(odd_values_stay_in_their_row),
        cmocka_unit_test(by_call_a_row_depends_on_its_neighbours),
        cmocka_unit_test(four_bit_products_err_at_most_twice_a_plain_loop),
        cmocka_unit_test(wide_4bit_products_are_right),
        cmocka_unit_test(items_begin_anywhere_in_a_part),
        cmocka_unit_test(weights_are_decoded_to_the_bit),
        cmocka_unit_test(a_row_has_the_same_bits_among_1_to_64_rows),
        cmocka_unit_test(thread_counts_do_not_change_a_bit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
