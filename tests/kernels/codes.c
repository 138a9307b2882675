/* codes.c - products with int8 and 4-bit weights at every level, against the rules of engine/base/quant.h. */
#include "tests/kernels/helpers.h"

typedef struct problem {
    int32_t rows, outs, cols, n_parts;
    rv_format format;
    bool nested, in_place, bias, gelu, add, by_call;
    float threshold;
    int32_t outliers;            /* a row, about                                               */
} problem;

typedef struct data {
    rv_mat x, out;
    rv_weight_part part[RV_WEIGHT_PARTS];
    rv_codes codes[RV_WEIGHT_PARTS];             /* by the rules                               */
    void *room[RV_WEIGHT_PARTS][4];
    float *bias;
    rv_weight_spec spec;
    void *memory;
    rv_weight *w;
} data;

static rv_backend *open_rules(setup s, int threads, float threshold, bool by_call) {
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options o = { .threads = threads, .act = s.act, .int8 = { threshold, by_call } };
    if (rv_cpu_open_level(&o, s.level, s.onednn, &be, &err)) fail_msg("%s", err.message);
    return be;
}

static void finish(rv_backend *be) {
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
}

/* The codes of part i by the rules; nothing aligned beyond its element. */
static void quantise_part(const problem *p, data *d, int i, int32_t rows) {
    int64_t n = (int64_t)rows * p->cols, blocks = n / RV_BLOCK4, runs = (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK;
    rv_dtype type = d->part[i].type;
    rv_codes *q = &d->codes[i];
    q->format = p->format;
    char *codes = odd_weights(n, RV_U8), *scale = odd_weights(p->format == RV_FORMAT_INT8 ? rows : blocks, RV_F32);
    q->codes = d->room[i][0] = codes;
    d->room[i][1] = scale;
    for (int32_t r = 0; r < rows && p->format == RV_FORMAT_INT8; r++) {
        float scb = rv_int8_weights((int8_t *)codes + (int64_t)r * p->cols,
            (const char *)d->part[i].data + (size_t)r * (size_t)p->cols * rv_dtype_size(type), type, p->cols);
        memcpy(scale + r * 4, &scb, 4);
    }
    q->scale = scale;
    if (p->format == RV_FORMAT_INT8) return;
    float *absmax = malloc((size_t)blocks * 4);
    rv_nf4_quantise((uint8_t *)codes, absmax, d->part[i].data, type, n);
    memcpy(scale, absmax, (size_t)blocks * 4);
    for (int c = 0; c < 16; c++) q->map[c] = p->format == RV_FORMAT_FP4 ? (float)(c * 5 % 16 - 7) / 9 : rv_nf4_map[c];
    if (p->nested) {
        float *scales = malloc((size_t)runs * 4);
        q->scale = NULL;
        q->nested = d->room[i][2] = odd_weights(blocks, RV_U8);
        q->nested_scale = d->room[i][3] = odd_weights(runs, RV_F32);
        memcpy(q->nested_map, rv_nested_map, sizeof q->nested_map);
        q->offset = rv_nested_quantise(d->room[i][2], scales, absmax, blocks);
        memcpy(d->room[i][3], scales, (size_t)runs * 4);
        free(scales);
    }
    free(absmax);
}

static const rv_dtype TYPES[] = { RV_BF16, RV_F16, RV_F32 };

static void make_weight(rv_backend *be, const problem *p, data *d) {
    int32_t left = p->outs;
    d->spec = (rv_weight_spec){ .name = "test", .rows = p->outs, .cols = p->cols, .n_parts = p->n_parts, .use = RV_USE_TEXT, .format = p->format,
        .nested = p->nested };
    for (int i = 0; i < p->n_parts; i++) {
        int32_t rows = i == p->n_parts - 1 ? left : p->outs / 3 + i;
        int64_t n = (int64_t)rows * p->cols;
        void *values = odd_weights(n, TYPES[i]);
        left -= rows;
        fill(values, TYPES[i], n, false, 10 + (uint32_t)i);
        d->part[i] = (rv_weight_part){ values, TYPES[i], rows, NULL };
        quantise_part(p, d, i, rows);
        d->spec.part[i] = p->in_place ? (rv_weight_part){ .rows = rows, .codes = &d->codes[i] } : d->part[i];
    }
    d->memory = rv_device_alloc(be, rv_weight_bytes(be, &d->spec));
    d->w = rv_weight_new(be, &d->spec, d->memory);
    finish(be);
}

static data make(rv_backend *be, const problem *p) {
    data d = { 0 };
    int32_t ld = p->cols + 3, out_ld = p->outs + 5;
    d.x = rv_mat_of(odd_memory((int64_t)p->rows * ld + 2, be->act), p->rows, p->cols, be->act);
    d.x.ld = ld;
    fill(d.x.data, be->act, (int64_t)p->rows * ld, false, 1);
    uint32_t random = 77;
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t i = 0; i < p->outliers + r % 2 && p->outliers; i++)
            put(d.x.data, be->act, r * d.x.ld + (int64_t)(next_random(&random) % (uint32_t)p->cols),
                random_float(&random) < 0 ? -6.f - (float)i : 6.f + (float)i);
    rv_dtype out = p->add ? RV_F32 : be->act;
    d.out = rv_mat_of(odd_memory((int64_t)p->rows * out_ld, out), p->rows, p->outs, out);
    d.out.ld = out_ld;
    fill(d.out.data, out, (int64_t)p->rows * out_ld, false, 2);
    d.bias = malloc((size_t)p->outs * sizeof(float));
    fill(d.bias, RV_F32, p->outs, false, 3);
    make_weight(be, p, &d);
    return d;
}

static void drop(rv_backend *be, data *d) {
    rv_weight_free(be, d->w);
    rv_device_release(be, d->memory);
    free_odd(d->x.data);
    free_odd(d->out.data);
    for (int i = 0; i < RV_WEIGHT_PARTS; i++) {
        free_weights((void *)(uintptr_t)d->part[i].data);
        for (int k = 0; k < 4; k++) free_weights(d->room[i][k]);
    }
    free(d->bias);
}

static void compute(rv_backend *be, const problem *p, data *d, rv_mat out, rv_mat x) {
    if (p->add) rv_linear_add(be, out, x, d->w, p->bias ? d->bias : NULL, 0.5f, NULL);
    else rv_linear(be, out, x, d->w, p->bias ? d->bias : NULL, p->gelu ? RV_ACT_GELU : RV_ACT_NONE);
    finish(be);
}

static float f16(float f) { return fabsf(f) >= 65520.f ? copysignf(INFINITY, f) : rv_f16_to_f32(rv_f32_to_f16(f)); }
static float as(rv_dtype type, float f) {
    if (type == RV_F32) return f;
    return type == RV_BF16 ? rv_bf16_to_f32(rv_f32_to_bf16(f)) : rv_f16_to_f32(rv_f32_to_f16(f));
}

/* Row o of the weight, by the rules, not yet rounded. */
static void weight_row(const problem *p, const data *d, int32_t o, float *out) {
    int i = 0;
    while (o >= d->part[i].rows) o -= d->part[i++].rows;
    rv_codes_read(out, &d->codes[i], p->cols, (int64_t)o * p->cols, p->cols);
}

static double after(const problem *p, const data *d, double sum, int32_t o, float before) {
    if (p->bias) sum += d->bias[o];
    if (p->gelu) sum = 0.5 * sum * (1 + erf(sum * 0.70710678118654752));
    return p->add ? before + 0.5 * sum : sum;
}

/* The same in plain f32. */
static float plain_after(const problem *p, const data *d, float sum, int32_t o, float before) {
    if (p->bias) sum += d->bias[o];
    if (p->gelu) sum = 0.5f * sum * (1 + erff(sum * 0.70710678f));
    return p->add ? before + 0.5f * sum : sum;
}

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

static void check_int8(setup s, const problem *p) {
    rv_backend *be = open_rules(s, 2, p->threshold, p->by_call);
    data d = make(be, p);
    rv_mat before = rv_mat_of(malloc((size_t)p->rows * (size_t)d.out.ld * 4), p->rows, p->outs, d.out.type);
    before.ld = d.out.ld;
    memcpy(before.data, d.out.data, (size_t)p->rows * (size_t)d.out.ld * rv_dtype_size(d.out.type));
    compute(be, p, &d, d.out, d.x);
    bool *mask = call_columns(p, &d);
    for (int32_t r = 0; r < p->rows; r += p->rows > 16 ? 5 : 1)
        for (int32_t o = 0; o < p->outs; o++) {
            int8_model m = int8_row(p, &d, r, o, mask);
            double got = get(d.out.data, d.out.type, r * d.out.ld + o), e = after(p, &d, m.y, o, get(before.data, d.out.type, r * d.out.ld + o));
            double ulp = m.largest * (s.act == RV_BF16 ? 0x1p-8 : 0x1p-11), allowed = m.exact ? 0 : 2 * ulp;
            if (p->bias || p->gelu || p->add) allowed += unit_of(d.out.type) * (fabs(e) + 1e-3) + 1e-6;
            if (!(fabs(got - e) <= allowed))
                fail_msg("%s rows %d outs %d cols %d outliers %d by call %d at %d,%d: got %.9g, by the rules %.9g, allowed %.3g", setup_name(s),
                    p->rows, p->outs,
                         p->cols, p->outliers, p->by_call, r, o, got, e, allowed);
        }
    free(mask);
    free(before.data);
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

static void check_4bit(setup s, const problem *p) {
    rv_backend *be = open_rules(s, 2, 6, false);
    data d = make(be, p);
    rv_dtype kept = s.act == RV_BF16 ? RV_BF16 : RV_F16;
    float *w = malloc((size_t)p->cols * 4);
    double *exact = malloc((size_t)p->rows * (size_t)p->outs * sizeof *exact), worst = 0;
    for (int32_t o = 0; o < p->outs; o++) {
        weight_row(p, &d, o, w);
        for (int32_t r = 0; r < p->rows; r++) {
            double sum = 0;
            float plain = 0, before = get(d.out.data, d.out.type, r * d.out.ld + o);
            for (int32_t k = 0; k < p->cols; k++) {
                float x = get(d.x.data, d.x.type, r * d.x.ld + k), v = as(kept, w[k]);
                sum += (double)x * v;
                plain += x * v;
            }
            exact[r * p->outs + o] = after(p, &d, sum, o, before);
            worst = fmax(worst, fabs(plain_after(p, &d, plain, o, before) - exact[r * p->outs + o]));
        }
    }
    compute(be, p, &d, d.out, d.x);
    char what[160];
    for (int32_t r = 0; r < p->rows; r++)
        for (int32_t o = 0; o < p->outs; o++) {
            snprintf(what, sizeof what, "%s format %d nested %d rows %d outs %d cols %d at %d,%d", setup_name(s), p->format, p->nested, p->rows,
                p->outs, p->cols, r, o);
            check_error(what, get(d.out.data, d.out.type, r * d.out.ld + o), 0, exact[r * p->outs + o], worst, unit_of(d.out.type) + (p->gelu ? 1e-6 : 0));
        }
    free(exact);
    free(w);
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
    static const int32_t batch[] = { 1, 2, 3, 7, 16, 64 };
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
            for (int b = 0; b < 6; b++)
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

/* ---- making and keeping them ---- */

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
        cmocka_unit_test(int8_products_follow_the_rules),
        cmocka_unit_test(wide_int8_products_are_exact),
        cmocka_unit_test(the_golden_layer_comes_out),
        cmocka_unit_test(odd_values_stay_in_their_row),
        cmocka_unit_test(by_call_a_row_depends_on_its_neighbours),
        cmocka_unit_test(four_bit_products_err_at_most_twice_a_plain_loop),
        cmocka_unit_test(wide_4bit_products_are_right),
        cmocka_unit_test(weights_are_decoded_to_the_bit),
        cmocka_unit_test(a_row_has_the_same_bits_among_1_to_64_rows),
        cmocka_unit_test(thread_counts_do_not_change_a_bit),
        cmocka_unit_test(every_level_makes_the_same_codes),
        cmocka_unit_test(activations_are_quantised_by_the_rules),
        cmocka_unit_test(a_weight_takes_its_codes_and_no_more),
        cmocka_unit_test(memory_that_is_filled_is_the_weight),
        cmocka_unit_test(what_cannot_be_kept_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
