/* attend.c - attention at every level, against f64. */
#include "tests/kernels/helpers.h"

typedef struct problem {
    int32_t rows, heads, kv_heads, head_dim, slots, longest;
    int32_t page_rows;           /* 0: contiguous                                              */
    bool bias, causal;
} problem;

typedef struct data {
    rv_attention a;
    int32_t *pages, *slot, *first, *last;
    float *bias;
} data;

static data make(rv_backend *be, const problem *p) {
    data d = { 0 };
    uint32_t state = 5;
    int32_t per_slot = p->page_rows ? (p->longest + p->page_rows - 1) / p->page_rows : 1;
    int32_t keys = p->page_rows ? p->slots * per_slot * p->page_rows : p->longest, cols = p->heads * p->head_dim;
    int32_t kv_cols = p->kv_heads * p->head_dim;
    d.a = (rv_attention){ .heads = p->heads, .kv_heads = p->kv_heads, .longest = p->longest, .scale = 0.7f };
    d.a.q = rv_mat_of(odd_memory((int64_t)p->rows * (cols + 1), be->act), p->rows, cols, be->act);
    d.a.q.ld = cols + 1;
    d.a.out = rv_mat_of(odd_memory((int64_t)p->rows * cols, be->act), p->rows, cols, be->act);
    d.a.kv.k = rv_mat_of(odd_memory((int64_t)keys * (kv_cols + 2), be->act), keys, kv_cols, be->act);
    d.a.kv.v = rv_mat_of(odd_memory((int64_t)keys * (kv_cols + 2), be->act), keys, kv_cols, be->act);
    d.a.kv.k.ld = d.a.kv.v.ld = kv_cols + 2;
    fill(d.a.q.data, be->act, (int64_t)p->rows * (cols + 1), false, 1);
    fill(d.a.kv.k.data, be->act, (int64_t)keys * (kv_cols + 2), false, 2);
    fill(d.a.kv.v.data, be->act, (int64_t)keys * (kv_cols + 2), false, 3);
    d.slot = calloc((size_t)p->rows, 4);
    d.first = calloc((size_t)p->rows, 4);
    d.last = calloc((size_t)p->rows, 4);
    d.bias = calloc((size_t)keys, 4);
    d.pages = calloc((size_t)(p->slots * per_slot), 4);
    for (int32_t r = 0; r < p->rows; r++) {
        d.slot[r] = p->slots > 1 ? r * p->slots / p->rows : 0;
        d.first[r] = p->causal ? 0 : (int32_t)(next_random(&state) % (uint32_t)p->longest);
        d.last[r] = p->causal ? (int32_t)((int64_t)(r + 1) * p->longest / p->rows) - 1
                              : d.first[r] + (int32_t)(next_random(&state) % (uint32_t)(p->longest - d.first[r]));
        if (r % 11 == 4) d.last[r] = d.first[r] - 1;         /* sees nothing */
    }
    for (int32_t i = 0; i < keys; i++)
        d.bias[i] = i % 9 == 0 ? -1e30f : i % 13 == 0 ? -INFINITY : 2 * random_float(&state);
    for (int32_t i = 0; i < p->slots * per_slot; i++) d.pages[i] = (i * 7 + 3) % (p->slots * per_slot);
    if (p->slots * per_slot % 7 == 0) for (int32_t i = 0; i < p->slots * per_slot; i++) d.pages[i] = p->slots * per_slot - 1 - i;
    if (p->page_rows) {
        d.a.kv.pages = d.pages;
        d.a.kv.page_rows = p->page_rows;
        d.a.kv.max_pages = per_slot;
        d.a.slot = d.slot;
    }
    if (p->bias) d.a.kv.bias = d.bias;
    d.a.first = d.first;
    d.a.last = d.last;
    return d;
}

static void drop(data *d) {
    free_odd(d->a.q.data);
    free_odd(d->a.out.data);
    free_odd(d->a.kv.k.data);
    free_odd(d->a.kv.v.data);
    free(d->pages);
    free(d->slot);
    free(d->first);
    free(d->last);
    free(d->bias);
}

static int32_t physical(const rv_attention *a, int32_t r, int32_t key) {
    if (!a->kv.pages) return key;
    return a->kv.pages[a->slot[r] * a->kv.max_pages + key / a->kv.page_rows] * a->kv.page_rows + key % a->kv.page_rows;
}

/* out[head_dim] in f64, and the largest error of the same in plain f32. */
static double model(const rv_attention *a, int32_t r, int32_t h, double *out) {
    int32_t dim = a->q.cols / a->heads, kv = h / (a->heads / a->kv_heads), first = a->first ? a->first[r] : 0;
    int32_t n = a->last[r] - first + 1;
    for (int32_t c = 0; c < dim; c++) out[c] = 0;
    if (n <= 0) return 0;
    double *s = malloc((size_t)n * sizeof *s), top = -INFINITY, sum = 0, worst = 0;
    float *t = malloc((size_t)n * sizeof *t), ttop = -INFINITY, tsum = 0;
    for (int32_t j = 0; j < n; j++) {
        int32_t row = physical(a, r, first + j);
        s[j] = 0;
        t[j] = 0;
        for (int32_t c = 0; c < dim; c++) {
            float q = get(rv_cpu_row(a->q, r), a->q.type, h * dim + c), k = get(rv_cpu_row(a->kv.k, row), a->kv.k.type, kv * dim + c);
            s[j] += (double)q * k;
            t[j] += q * k;
        }
        s[j] = s[j] * a->scale + (a->kv.bias ? a->kv.bias[row] : 0);
        t[j] = t[j] * a->scale + (a->kv.bias ? a->kv.bias[row] : 0);
        top = fmax(top, s[j]);
        ttop = fmaxf(ttop, t[j]);
    }
    for (int32_t j = 0; j < n && top > -INFINITY; j++) sum += s[j] = exp(s[j] - top), tsum += t[j] = expf(t[j] - ttop);
    for (int32_t c = 0; c < dim && top > -INFINITY; c++) {
        float plain = 0;
        for (int32_t j = 0; j < n; j++) {
            float v = get(rv_cpu_row(a->kv.v, physical(a, r, first + j)), a->kv.v.type, kv * dim + c);
            out[c] += s[j] * v;
            plain += t[j] * v;
        }
        out[c] /= sum;
        worst = fmax(worst, fabs(out[c] - plain / tsum));
    }
    free(s);
    free(t);
    return worst;
}

static void run(rv_backend *be, const rv_attention *a) {
    rv_error err = { 0 };
    rv_attend(be, a);
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
}

static void check_problem(setup s, const problem *p) {
    rv_backend *be = open_setup(s, 2);
    data d = make(be, p);
    const int32_t cols = p->heads * p->head_dim;
    expected *want = expected_of(p, sizeof *p, s.act, (int64_t)p->rows * cols);
    for (int32_t r = 0; r < p->rows && !want->there; r++)
        for (int32_t h = 0; h < p->heads; h++)
            want->worst = fmax(want->worst, model(&d.a, r, h, want->values + (int64_t)r * cols + h * p->head_dim));
    want->there = true;
    run(be, &d.a);
    char what[160];
    for (int32_t r = 0; r < p->rows; r++) {
        snprintf(what, sizeof what, "%s rows %d heads %d/%d of %d, %d keys, pages of %d, at row %d", setup_name(s), p->rows, p->heads, p->kv_heads,
                 p->head_dim, p->longest, p->page_rows, r);
        for (int32_t i = 0; i < cols; i++) {
            double got = get(rv_cpu_row(d.a.out, r), d.a.out.type, i);
            if (d.last[r] < d.first[r]) assert_true(got == 0);
            else check_error(what, got, 0, want->values[(int64_t)r * cols + i], want->worst, unit_of(be->act) + 2e-6);
        }
    }
    drop(&d);
    rv_backend_close(be);
}

static const problem PROBLEMS[] = {
    { 1, 4, 4, 4, 1, 9, 0, false, false },      { 3, 4, 2, 16, 1, 700, 0, true, true },
    { 7, 8, 2, 64, 3, 333, 64, true, false },   { 64, 4, 1, 128, 4, 130, 64, false, true },
    { 65, 4, 4, 4, 1, 70, 0, true, false },     { 70, 2, 2, 80, 1, 1100, 0, false, false },
    { 130, 8, 2, 64, 3, 600, 64, true, true },  { 300, 4, 1, 16, 1, 300, 0, false, true },
    { 90, 6, 1, 128, 2, 1601, 1601, true, false }, { 66, 3, 3, 96, 1, 40, 16, true, false },
    { 5, 3, 1, 33, 1, 90, 0, true, false },     { 66, 2, 2, 33, 1, 70, 0, true, false },
    { 4, 8, 2, 256, 4, 700, 64, false, false }, { 67, 2, 1, 256, 2, 200, 64, true, true },
    { 530, 1, 1, 80, 1, 150, 0, true, false },  { 9, 6, 1, 64, 1, 1300, 0, false, false },
};
enum { N_PROBLEMS = sizeof PROBLEMS / sizeof *PROBLEMS };

static void attention_errs_at_most_twice_a_plain_loop(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int p = 0; p < N_PROBLEMS; p++) check_problem(setups[i], &PROBLEMS[p]);
}

/* Rows alone, in parts of several sizes, and all at once: the same bits. `from` rows a call. */
static void check_parts(setup s, const problem *p, const int32_t *batch, int n_batch) {
    rv_backend *be = open_setup(s, 2);
    data d = make(be, p);
    run(be, &d.a);
    size_t row_bytes = (size_t)d.a.out.cols * rv_dtype_size(be->act);
    rv_mat part = rv_mat_of(calloc((size_t)p->rows, row_bytes), p->rows, d.a.out.cols, be->act);
    for (int b = 0; b < n_batch; b++)
        for (int32_t from = 0; from + batch[b] <= p->rows; from += batch[b] + 2) {
            rv_attention a = d.a;
            a.q = rv_rows(a.q, from, batch[b]);
            a.out = rv_rows(part, 0, batch[b]);
            a.first += from;
            a.last += from;
            if (a.slot) a.slot += from;
            run(be, &a);
            for (int32_t r = 0; r < batch[b]; r++)
                if (memcmp(rv_cpu_row(part, r), rv_cpu_row(d.a.out, from + r), row_bytes))
                    fail_msg("%s: heads of %d: row %d differs among %d rows", setup_name(s), p->head_dim, from + r, batch[b]);
        }
    free(part.data);
    drop(&d);
    rv_backend_close(be);
}

static void a_row_has_the_same_bits_among_1_to_64_rows(void **state) {
    (void)state;
    static const int32_t batch[] = { 1, 2, 7, 16, 63 };
    static const problem p[] = { { 64, 4, 1, 128, 4, 1300, 64, true, true }, { 64, 2, 2, 80, 1, 600, 0, false, false } };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) check_parts(setups[i], &p[k], batch, 5);
}

static void a_row_has_the_same_bits_among_65_rows_and_more(void **state) {
    (void)state;
    static const int32_t batch[] = { 65, 66, 100, 129 };
    static const problem p[] = { { 200, 4, 1, 128, 4, 1300, 64, true, true }, { 200, 2, 2, 80, 1, 600, 0, false, false } };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 2; k++) check_parts(setups[i], &p[k], batch, 4);
}

static void thread_counts_do_not_change_a_bit(void **state) {
    (void)state;
    static const int counts[] = { 1, 2, 3, 5, 40 };
    static const problem problems[] = { { 1, 4, 1, 64, 1, 3000, 0, true, true }, { 3, 8, 2, 128, 3, 1200, 64, true, false },
                                        { 100, 4, 2, 80, 2, 700, 64, false, true } };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int k = 0; k < 3; k++) {
            void *first = NULL;
            for (int t = 0; t < 5; t++) {
                rv_backend *be = open_setup(setups[i], counts[t]);
                data d = make(be, &problems[k]);
                size_t bytes = (size_t)d.a.out.rows * (size_t)d.a.out.cols * rv_dtype_size(be->act);
                run(be, &d.a);
                if (!first) memcpy(first = malloc(bytes), d.a.out.data, bytes);
                else if (memcmp(first, d.a.out.data, bytes)) fail_msg("%s: problem %d: %d threads", setup_name(setups[i]), k, counts[t]);
                drop(&d);
                rv_backend_close(be);
            }
            free(first);
        }
}

/* NaN in key and value `at`, everywhere else finite: rows that see it are NaN, the others as before. */
static void check_nan(setup s, const problem *p, int32_t at) {
    rv_backend *be = open_setup(s, 2);
    data d = make(be, p);
    int32_t cols = d.a.out.cols;
    run(be, &d.a);
    rv_mat before = rv_mat_of(malloc((size_t)p->rows * (size_t)cols * 4), p->rows, cols, be->act);
    memcpy(before.data, d.a.out.data, (size_t)p->rows * (size_t)cols * rv_dtype_size(be->act));
    for (int32_t c = 0; c < d.a.kv.k.cols; c++) {
        put(rv_cpu_row(d.a.kv.k, at), be->act, c, NAN);
        put(rv_cpu_row(d.a.kv.v, at), be->act, c, NAN);
    }
    run(be, &d.a);
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t c = 0; c < cols; c++) {
            float now = get(rv_cpu_row(d.a.out, r), be->act, c), then = get(rv_cpu_row(before, r), be->act, c);
            bool sees = d.first[r] <= at && at <= d.last[r];
            if (sees ? !isnan(now) : now != then)
                fail_msg("%s: %d rows: row %d (%s the key): %g, was %g", setup_name(s), p->rows, r, sees ? "sees" : "does not see",
                         (double)now, (double)then);
        }
    free(before.data);
    drop(&d);
    rv_backend_close(be);
}

static void nan_in_a_key_reaches_only_rows_that_see_it(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int32_t rows = 10; rows < 200; rows += 100) {
            problem p = { rows, 4, 2, 80, 1, 600, 0, false, true };
            check_nan(setups[i], &p, 300);
            check_nan(setups[i], &p, 599);
        }
}

static void keys_with_minus_infinity_alone_give_zero(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    for (int i = 0; i < n; i++)
        for (int32_t rows = 10; rows < 200; rows += 100) {
            problem p = { rows, 4, 2, 16, 1, 600, 0, true, true };
            rv_backend *be = open_setup(setups[i], 2);
            data d = make(be, &p);
            for (int32_t k = 0; k < 600; k++) d.bias[k] = -INFINITY;
            run(be, &d.a);
            for (int32_t r = 0; r < rows; r++)
                for (int32_t c = 0; c < d.a.out.cols; c++) assert_true(get(rv_cpu_row(d.a.out, r), be->act, c) == 0);
            drop(&d);
            rv_backend_close(be);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(attention_errs_at_most_twice_a_plain_loop),
        cmocka_unit_test(a_row_has_the_same_bits_among_1_to_64_rows),
        cmocka_unit_test(a_row_has_the_same_bits_among_65_rows_and_more),
        cmocka_unit_test(thread_counts_do_not_change_a_bit),
        cmocka_unit_test(nan_in_a_key_reaches_only_rows_that_see_it),
        cmocka_unit_test(keys_with_minus_infinity_alone_give_zero),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
