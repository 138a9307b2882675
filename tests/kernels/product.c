/* product.c - linear and linear_add at every level, against f64. */
#include "tests/kernels/helpers.h"

typedef struct problem {
    int32_t rows, outs, cols, n_parts, part_rows[RV_WEIGHT_PARTS];
    rv_dtype weight_type, out_type;
    rv_weight_use use;
    bool integers, bias, gelu, add;
} problem;

typedef struct data {
    rv_mat x, out;
    void *parts[RV_WEIGHT_PARTS];
    float *bias, *row_scale;
    rv_weight_spec spec;
    void *memory;
    rv_weight *w;
} data;

static data make(rv_backend *be, const problem *p) {
    data d = { 0 };
    int32_t ld = p->cols + 3, out_ld = p->outs + 5;
    d.x = rv_mat_of(odd_memory((int64_t)p->rows * ld + 2, be->act), p->rows, p->cols, be->act);
    d.x.ld = ld;
    fill(d.x.data, be->act, (int64_t)p->rows * ld, p->integers, 1);
    d.out = rv_mat_of(odd_memory((int64_t)p->rows * out_ld, p->out_type), p->rows, p->outs, p->out_type);
    d.out.ld = out_ld;
    fill(d.out.data, p->out_type, (int64_t)p->rows * out_ld, p->integers, 2);
    d.bias = malloc((size_t)p->outs * sizeof(float));
    d.row_scale = malloc((size_t)p->rows * sizeof(float));
    fill(d.bias, RV_F32, p->outs, p->integers, 3);
    for (int32_t i = 0; i < p->rows; i++) d.row_scale[i] = i % 3 == 1 ? 0.0f : 1.0f;
    d.spec = (rv_weight_spec){ .name = "test", .rows = p->outs, .cols = p->cols, .n_parts = p->n_parts, .use = p->use };
    for (int i = 0; i < p->n_parts; i++) {
        int64_t n = (int64_t)p->part_rows[i] * p->cols;
        d.parts[i] = odd_weights(n, p->weight_type);
        fill(d.parts[i], p->weight_type, n, p->integers, 10 + (uint32_t)i);
        d.spec.part[i] = (rv_weight_part){ d.parts[i], p->weight_type, p->part_rows[i], NULL };
    }
    d.memory = rv_device_alloc(be, rv_weight_bytes(be, &d.spec));
    d.w = rv_weight_new(be, &d.spec, d.memory);
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
    return d;
}

static void drop(rv_backend *be, data *d) {
    rv_weight_free(be, d->w);
    rv_device_release(be, d->memory);
    free_odd(d->x.data);
    free_odd(d->out.data);
    for (int i = 0; i < RV_WEIGHT_PARTS; i++) free_weights(d->parts[i]);
    free(d->bias);
    free(d->row_scale);
}

static void compute(rv_backend *be, const problem *p, data *d, rv_mat out, rv_mat x, const float *row_scale) {
    rv_error err = { 0 };
    if (p->add) rv_linear_add(be, out, x, d->w, p->bias ? d->bias : NULL, 0.5f, row_scale);
    else rv_linear(be, out, x, d->w, p->bias ? d->bias : NULL, p->gelu ? RV_ACT_GELU : RV_ACT_NONE);
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
}

/* Packed vision weights are bf16. */
static bool rounds_weights(const setup *s, const problem *p) {
    return s->act == RV_BF16 && (s->onednn || s->level == CPU_AMX) && p->use == RV_USE_VISION && p->rows > RV_FEW_ROWS;
}

/* Weight element as the product is meant to see it. */
static float weight_at(const setup *s, const problem *p, const data *d, int32_t o, int32_t k) {
    int part = 0;
    while (o >= p->part_rows[part]) o -= p->part_rows[part++];
    float w = get(d->parts[part], p->weight_type, (int64_t)o * p->cols + k);
    return rounds_weights(s, p) ? rv_bf16_to_f32(rv_f32_to_bf16(w)) : w;
}

/* Both operands in f32, read once: the loop below passes over them a million times. */
typedef struct operands { float *x, *w; } operands;

static operands read_operands(const setup *s, const problem *p, const data *d) {
    operands all = { malloc((size_t)p->rows * (size_t)p->cols * sizeof(float)), malloc((size_t)p->outs * (size_t)p->cols * sizeof(float)) };
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t k = 0; k < p->cols; k++) all.x[(int64_t)r * p->cols + k] = get(d->x.data, d->x.type, r * d->x.ld + k);
    for (int32_t o = 0; o < p->outs; o++)
        for (int32_t k = 0; k < p->cols; k++) all.w[(int64_t)o * p->cols + k] = weight_at(s, p, d, o, k);
    return all;
}

/* The f64 result, and the same in plain f32. */
static double model(const problem *p, const data *d, const operands *all, int32_t r, int32_t o, float before, float *naive) {
    const float *x = all->x + (int64_t)r * p->cols, *w = all->w + (int64_t)o * p->cols;
    double sum = 0;
    float plain = 0;
    for (int32_t k = 0; k < p->cols; k++) {
        sum += (double)x[k] * w[k];
        plain += x[k] * w[k];
    }
    if (p->bias) sum += d->bias[o], plain += d->bias[o];
    if (p->gelu) {
        sum = 0.5 * sum * (1 + erf(sum * 0.70710678118654752));
        plain = 0.5f * plain * (1 + erff(plain * 0.70710678f));
    }
    if (p->add) {
        sum = before + 0.5 * d->row_scale[r] * sum;
        plain = before + 0.5f * d->row_scale[r] * plain;
    }
    *naive = plain;
    return sum;
}

/* In f64, and how far the same in plain f32 is from it. */
static void work_out(expected *want, const setup *s, const problem *p, const data *d) {
    operands all = read_operands(s, p, d);
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t o = 0; o < p->outs; o++) {
            float naive;
            double e = model(p, d, &all, r, o, get(d->out.data, p->out_type, r * d->out.ld + o), &naive);
            want->values[(int64_t)r * p->outs + o] = e;
            want->worst = fmax(want->worst, fabs(e - naive));
        }
    want->there = true;
    free(all.x);
    free(all.w);
}

static void check_problem(setup s, const problem *p) {
    rv_backend *be = open_setup(s, 2);
    data d = make(be, p);
    expected *want = expected_of(p, sizeof *p, (int)s.act * 2 + rounds_weights(&s, p), (int64_t)p->rows * p->outs);
    if (!want->there) work_out(want, &s, p, &d);
    float guard = get(d.out.data, p->out_type, p->outs);
    compute(be, p, &d, d.out, d.x, d.row_scale);
    char what[160];
    for (int32_t r = 0; r < p->rows; r++) {
        snprintf(what, sizeof what, "%s rows %d outs %d cols %d weights %d use %d gelu %d add %d at row %d", setup_name(s), p->rows, p->outs, p->cols,
                 p->weight_type, p->use, p->gelu, p->add, r);
        for (int32_t o = 0; o < p->outs; o++) {
            double got = get(d.out.data, p->out_type, r * d.out.ld + o), e = want->values[(int64_t)r * p->outs + o];
            if (p->integers && p->out_type == RV_F32 && !p->gelu) {
                if (got != e) fail_msg("%s, output %d: integers: got %g, exact %g", what, o, got, e);
            } else {
                check_error(what, got, 0, e, want->worst, unit_of(p->out_type) + (p->gelu ? 1e-6 : 0));
            }
        }
    }
    if (p->rows > 1) assert_true(get(d.out.data, p->out_type, p->outs) == guard);   /* between the rows */
    drop(be, &d);
    rv_backend_close(be);
}

static const int32_t ROWS[] = { 1, 2, 3, 7, 63, 64, 65, 300 };
static const rv_dtype WEIGHTS[] = { RV_F32, RV_F16, RV_BF16 };

static void each_problem(bool integers) {
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < 3; t++)
            for (int r = 0; r < 8; r++) {
                int32_t outs = r % 2 ? 83 : 96, cols = r % 3 == 0 ? 100 : r % 3 == 1 ? 64 : 33;
                problem p = { ROWS[r], outs, cols, 1 + r % 3, { outs }, WEIGHTS[t], r % 2 ? setups[i].act : RV_F32,
                              (r + t) % 2 ? RV_USE_TEXT : RV_USE_VISION, integers, r % 4 > 1, false, false };
                if (p.n_parts > 1) p.part_rows[0] = 40, p.part_rows[1] = outs - 40;
                if (p.n_parts > 2) p.part_rows[1] = 21, p.part_rows[2] = outs - 61;
                check_problem(setups[i], &p);
                p.gelu = true;
                check_problem(setups[i], &p);
                p.gelu = false;
                p.add = true;
                p.out_type = RV_F32;
                check_problem(setups[i], &p);
            }
}

static void products_of_small_integers_are_exact(void **state) { (void)state; each_problem(true); }
static void products_err_at_most_twice_a_plain_loop(void **state) { (void)state; each_problem(false); }

static void long_and_wide_products_are_right(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int rows = 5; rows < 80; rows += 65) {
            problem p = { rows, 1100, 650, 1, { 1100 }, RV_BF16, RV_F32, rows > 64 ? RV_USE_VISION : RV_USE_TEXT, false,
                          true, false, false };
            check_problem(setups[i], &p);
        }
}

/* More rows, outputs and columns than an item of tiles takes at a time, packed and as they lie. */
static void products_of_several_items_are_right(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int use = 0; setups[i].level >= CPU_AVX512_BF16 && setups[i].act == RV_BF16 && use < 2; use++) {
            problem p = { 530, 530, 290, 2, { 300, 230 }, RV_BF16, use ? RV_BF16 : RV_F32, use ? RV_USE_VISION : RV_USE_TEXT, false, true, false, false };
            check_problem(setups[i], &p);
            p.rows = 100, p.cols = 1330;         /* columns in two parts */
            check_problem(setups[i], &p);
        }
}

/* One row of a 64-row product, and the same row alone or among others. */
static void a_row_has_the_same_bits_among_1_to_64_rows(void **state) {
    (void)state;
    static const int32_t batch[] = { 1, 2, 3, 5, 7, 16, 63, 64 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int t = 0; t < 3; t++) {
            problem p = { 64, 100, 357, 1, { 100 }, WEIGHTS[t], RV_F32, RV_USE_TEXT, false, true, false, false };
            rv_backend *be = open_setup(setups[i], 2);
            data d = make(be, &p);
            compute(be, &p, &d, d.out, d.x, NULL);
            rv_mat part = rv_mat_of(malloc(64 * 100 * 4), 64, 100, RV_F32);
            for (int b = 0; b < 8; b++)
                for (int32_t from = 0; from + batch[b] <= 64; from += batch[b] + 3) {
                    compute(be, &p, &d, rv_rows(part, 0, batch[b]), rv_rows(d.x, from, batch[b]), NULL);
                    for (int32_t r = 0; r < batch[b]; r++)
                        if (memcmp(rv_cpu_row(part, r), rv_cpu_row(d.out, from + r), 400))
                            fail_msg("%s: row %d differs in a batch of %d", setup_name(setups[i]), from + r, batch[b]);
                }
            free(part.data);
            drop(be, &d);
            rv_backend_close(be);
        }
}

static void thread_counts_do_not_change_a_bit(void **state) {
    (void)state;
    static const int counts[] = { 1, 2, 3, 5 }, rows[] = { 1, 7, 64, 65, 300 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 5; r++) {
            problem p = { rows[r], 331, 257, 1, { 331 }, RV_BF16, RV_F32, rows[r] > 64 ? RV_USE_VISION : RV_USE_TEXT, false,
                          true, r == 2, false };
            size_t bytes = (size_t)rows[r] * 336 * 4;
            void *first = NULL;
            for (int t = 0; t < 4; t++) {
                rv_backend *be = open_setup(setups[i], counts[t]);
                data d = make(be, &p);
                compute(be, &p, &d, d.out, d.x, NULL);
                if (!first) {
                    first = malloc(bytes);
                    memcpy(first, d.out.data, bytes);
                } else if (memcmp(first, d.out.data, bytes)) {
                    fail_msg("%s: %d rows: %d threads differ from 1", setup_name(setups[i]), rows[r], counts[t]);
                }
                drop(be, &d);
                rv_backend_close(be);
            }
            free(first);
        }
}

static void nan_in_a_row_stays_in_that_row(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int rows = 5; rows < 200; rows += 95) {
            problem p = { rows, 70, 130, 1, { 70 }, RV_BF16, RV_F32, RV_USE_TEXT, false, false, true, false };
            rv_backend *be = open_setup(setups[i], 2);
            data d = make(be, &p);
            put(d.x.data, d.x.type, 3 * d.x.ld + 129, NAN);
            compute(be, &p, &d, d.out, d.x, NULL);
            for (int32_t r = 0; r < rows; r++)
                for (int32_t o = 0; o < 70; o++)
                    if (isnan(get(d.out.data, RV_F32, r * d.out.ld + o)) != (r == 3))
                        fail_msg("%s: %d rows: row %d column %d", setup_name(setups[i]), rows, r, o);
            drop(be, &d);
            rv_backend_close(be);
        }
}

static void a_row_scaled_by_zero_is_left_alone_whatever_its_input(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int rows = 5; rows < 200; rows += 95) {
            problem p = { rows, 70, 130, 1, { 70 }, RV_BF16, RV_F32, RV_USE_TEXT, false, true, false, true };
            rv_backend *be = open_setup(setups[i], 2);
            data d = make(be, &p);
            float before = get(d.out.data, RV_F32, d.out.ld + 5);
            put(d.x.data, d.x.type, d.x.ld + 9, NAN);                        /* row_scale[1] is 0 */
            compute(be, &p, &d, d.out, d.x, d.row_scale);
            assert_true(get(d.out.data, RV_F32, d.out.ld + 5) == before);
            drop(be, &d);
            rv_backend_close(be);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_of_small_integers_are_exact),
        cmocka_unit_test(products_err_at_most_twice_a_plain_loop),
        cmocka_unit_test(long_and_wide_products_are_right),
        cmocka_unit_test(products_of_several_items_are_right),
        cmocka_unit_test(a_row_has_the_same_bits_among_1_to_64_rows),
        cmocka_unit_test(thread_counts_do_not_change_a_bit),
        cmocka_unit_test(nan_in_a_row_stays_in_that_row),
        cmocka_unit_test(a_row_scaled_by_zero_is_left_alone_whatever_its_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
