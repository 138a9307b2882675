/* bnb.c - the rules of engine/base/quant.h and the CPU's products against what bitsandbytes computed on a GPU. */
#include "tests/kernels/helpers.h"
#include "tests/support/golden.h"

static float value(const void *p, rv_dtype type, int64_t i) { return rv_cpu_load(p, type, i); }
static float f16(float f) { return rv_cpu_through_f16(f); }
static bool same(float a, float b) { return (isnan(a) && isnan(b)) || a == b; }

static const void *of(const rv_checkpoint *c, rv_dtype type, int64_t *n, const char *format, ...) __attribute__((format(printf, 4, 5)));
static const void *of(const rv_checkpoint *c, rv_dtype type, int64_t *n, const char *format, ...) {
    char name[96];
    va_list args;
    va_start(args, format);
    vsnprintf(name, sizeof name, format, args);
    va_end(args);
    return golden_get(c, name, type, n);
}

/* Equal, or one step apart where x * 127 / most lies within 2^-21 of halfway: there the GPU's reciprocal decides. */
static void check_codes(const char *what, const int8_t *got, const int8_t *want, const float *x, float most, int64_t n) {
    for (int64_t k = 0; k < n; k++) {
        if (got[k] == want[k]) continue;
        double exact = (double)x[k] * 127 / (double)most, off = fabs(fabs(exact - trunc(exact)) - 0.5);
        if (abs(got[k] - want[k]) > 1 || !(off <= fabs(exact) * 0x1p-21)) fail_msg("%s: element %lld: code %d, bitsandbytes' is %d (%.9g)", what,
            (long long)k, got[k], want[k], exact);
    }
}

/* ---- LLM.int8 ---- */

static void int8_weights_are_bitsandbytes(void **state) {
    (void)state;
    static const struct { const char *name; rv_dtype type; int64_t cols; } all[] = {
        { "w", RV_F16, 512 }, { "edge_w", RV_F16, 512 }, { "bf16_w", RV_BF16, 512 }, { "f32_w", RV_F32, 512 }, { "big_w", RV_F16, 1152 },
    };
    rv_checkpoint *c = golden_open("golden/bnb/int8.safetensors");
    for (size_t i = 0; i < 5; i++) {
        int64_t n, cols = all[i].cols;
        const char *w = of(c, all[i].type, &n, "%s", all[i].name);
        const int8_t *cb = of(c, RV_I8, NULL, "%s.cb", all[i].name);
        const void *scb = of(c, RV_F32, NULL, "%s.scb", all[i].name);
        for (int64_t r = 0; r < n / cols; r++) {
            int8_t codes[1152];
            float row[1152];
            for (int64_t k = 0; k < cols; k++) row[k] = f16(value(w, all[i].type, r * cols + k));
            float most = rv_int8_weights(codes, w + (size_t)(r * cols) * rv_dtype_size(all[i].type), all[i].type, cols);
            if (!same(most, golden_f32(scb, r))) fail_msg("%s: row %lld: %.9g, bitsandbytes' is %.9g", all[i].name, (long long)r, (double)most,
                (double)golden_f32(scb, r));
            check_codes(all[i].name, codes, cb + r * cols, row, most, cols);
        }
    }
    rv_checkpoint_close(c);
}

typedef struct layer_case { const char *name, *w; rv_dtype type; int32_t rows, cols, outs; } layer_case;
static const layer_case CASES[] = {
    { "x0_f16", "w", RV_F16, 4, 512, 48 }, { "x3_f16", "w", RV_F16, 4, 512, 48 }, { "x30_f16", "w", RV_F16, 4, 512, 48 }, { "x300_f16", "w", RV_F16,
        4, 512, 48 },
    { "x3_bf16", "w", RV_BF16, 4, 512, 48 }, { "x300_bf16", "w", RV_BF16, 4, 512, 48 }, { "edge_f16", "w", RV_F16, 7, 512, 48 },
    { "edge_bf16", "w", RV_BF16, 7, 512, 48 }, { "big_f16", "big_w", RV_F16, 2, 1152, 4 },
};
enum { N_CASES = sizeof CASES / sizeof *CASES };

/* Codes, statistics, sums and y8 of a case, step by step, each from bitsandbytes' result of the step before. */
static void check_steps(const rv_checkpoint *c, const layer_case *l, const char *prefix, float threshold, bool by_call) {
    const void *x = of(c, l->type, NULL, "%s.x", l->name), *scb = of(c, RV_F32, NULL, "%s.scb", l->w), *sca = of(c, RV_F32, NULL, "%s.%ssca", l->name,
        prefix);
    const int8_t *cb = of(c, RV_I8, NULL, "%s.cb", l->w), *ca = of(c, RV_I8, NULL, "%s.%sca", l->name, prefix);
    const void *sums = of(c, RV_I32, NULL, "%s.%ssum", l->name, prefix), *y8 = of(c, RV_F16, NULL, "%s.%sy8", l->name, prefix);
    const uint8_t *outlier = by_call ? of(c, RV_U8, NULL, "%s.cols", l->name) : NULL;
    for (int64_t r = 0; r < l->rows; r++) {
        int8_t codes[1152];
        float row[1152];
        for (int64_t k = 0; k < l->cols; k++) row[k] = f16(value(x, l->type, r * l->cols + k));
        float most = rv_int8_activations(codes, row, l->cols, threshold);
        for (int64_t k = 0; k < l->cols && by_call; k++)
            if (outlier[k]) codes[k] = 0;
        if (!same(most, golden_f32(sca, r))) fail_msg("%s.%s row %lld: %g, bitsandbytes' is %g", l->name, prefix, (long long)r, (double)most,
            (double)golden_f32(sca, r));
        check_codes(l->name, codes, ca + r * l->cols, row, most, l->cols);
        for (int64_t o = 0; o < l->outs; o++) {
            int32_t sum = 0, want;
            for (int64_t k = 0; k < l->cols; k++) sum += ca[r * l->cols + k] * cb[o * l->cols + k];
            memcpy(&want, (const char *)sums + (r * l->outs + o) * 4, 4);
            assert_int_equal(sum, want);
            if (!same(f16(rv_int8_scaled(sum, golden_f32(sca, r), golden_f32(scb, o))), value(y8, RV_F16, r * l->outs + o)))
                fail_msg("%s.%s %lld,%lld: y8 differs", l->name, prefix, (long long)r, (long long)o);
        }
    }
}

static void every_step_of_int8_is_bitsandbytes(void **state) {
    (void)state;
    rv_checkpoint *c = golden_open("golden/bnb/int8.safetensors");
    for (int i = 0; i < N_CASES; i++) {
        check_steps(c, &CASES[i], "", 6, true);
        check_steps(c, &CASES[i], "row_", 6, false);
    }
    check_steps(c, &CASES[1], "t0_", 0, false);
    rv_checkpoint_close(c);
}

static rv_backend *open_rules(setup s, float threshold, bool by_call) {
    rv_backend *be = NULL;
    rv_error err;
    rv_cpu_options o = { .threads = 2, .act = s.act, .int8 = { threshold, by_call } };
    if (rv_cpu_open_level(&o, s.level, s.onednn, &be, &err)) fail_msg("%s", err.message);
    return be;
}

/* What outliers add to output o of row r: the largest of the sums on the way, and what rounding the weights may move it by. */
static void outlier_terms(const rv_checkpoint *c, const layer_case *l, int64_t r, int64_t o, const uint8_t *outlier, double *largest, double *sizes) {
    const void *x = of(c, l->type, NULL, "%s.x", l->name), *scb = of(c, RV_F32, NULL, "%s.scb", l->w);
    const int8_t *cb = of(c, RV_I8, NULL, "%s.cb", l->w);
    double sum = 0;
    *largest = *sizes = 0;
    for (int64_t k = 0; k < l->cols; k++) {
        float v = value(x, l->type, r * l->cols + k);
        if (outlier ? !outlier[k] : !(fabsf(f16(v)) >= 6)) continue;
        double term = (double)v * cb[o * l->cols + k] * (double)golden_f32(scb, o) / 127;
        sum += term;
        *sizes += fabs(term);
        *largest = fmax(*largest, fabs(sum));
    }
}

/* How far output o may lie off because codes of row r lie a step from a GPU's: check_codes. */
static double code_steps(const rv_checkpoint *c, const layer_case *l, int64_t r, int64_t o, bool by_call) {
    const void *x = of(c, l->type, NULL, "%s.x", l->name), *scb = of(c, RV_F32, NULL, "%s.scb", l->w);
    const int8_t *ca = of(c, RV_I8, NULL, "%s.%s", l->name, by_call ? "ca" : "row_ca"), *cb = of(c, RV_I8, NULL, "%s.cb", l->w);
    const uint8_t *outlier = by_call ? of(c, RV_U8, NULL, "%s.cols", l->name) : NULL;
    int8_t codes[1152];
    float row[1152];
    int32_t sum = 0;
    for (int64_t k = 0; k < l->cols; k++) row[k] = f16(value(x, l->type, r * l->cols + k));
    float sca = rv_int8_activations(codes, row, l->cols, 6);
    for (int64_t k = 0; k < l->cols; k++)
        if (!outlier || !outlier[k]) sum += abs((codes[k] - ca[r * l->cols + k]) * cb[o * l->cols + k]);
    return fabs((double)rv_int8_scaled(sum, sca, golden_f32(scb, o)));
}

/* The layer as bitsandbytes computed it.  Its f16 is f32 here: the outliers' weights are then not rounded, nor the result. */
static void check_layer(const rv_checkpoint *c, const layer_case *l, setup s, bool by_call) {
    if ((l->type == RV_BF16) != (s.act == RV_BF16)) return;
    rv_backend *be = open_rules(s, 6, by_call);
    const void *x = of(c, l->type, NULL, "%s.x", l->name), *y = of(c, l->type, NULL, "%s.%s", l->name, by_call ? "y" : "row_y");
    const uint8_t *outlier = by_call ? of(c, RV_U8, NULL, "%s.cols", l->name) : NULL;
    rv_codes q = { .format = RV_FORMAT_INT8, .codes = of(c, RV_I8, NULL, "%s.cb", l->w), .scale = of(c, RV_F32, NULL, "%s.scb", l->w) };
    rv_weight_spec spec = { .name = l->name, .rows = l->outs, .cols = l->cols, .n_parts = 1, .part = { { .rows = l->outs, .codes = &q } },
        .format = RV_FORMAT_INT8 };
    rv_weight *w = rv_weight_new(be, &spec, NULL);
    float in[7 * 1152], out[7 * 48];
    for (int64_t i = 0; i < (int64_t)l->rows * l->cols; i++) rv_cpu_store(in, s.act, i, value(x, l->type, i));
    rv_linear(be, rv_mat_of(out, l->rows, l->outs, s.act), rv_mat_of(in, l->rows, l->cols, s.act), w, NULL, RV_ACT_NONE);
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
    for (int64_t r = 0; r < l->rows; r++)
        for (int64_t o = 0; o < l->outs; o++) {
            double got = value(out, s.act, r * l->outs + o), want = value(y, l->type, r * l->outs + o), largest, sizes,
                unit = s.act == RV_BF16 ? 0x1p-8 : 0x1p-11;
            outlier_terms(c, l, r, o, outlier, &largest, &sizes);
            double allowed = 2 * fmax(unit * fmax(largest, fabs(want)), 0x1p-24) + (s.act == RV_F32 ? sizes * 0x1p-12 : 0) + code_steps(c, l, r, o, by_call);
            if (isfinite(want) ? !(fabs(got - want) <= allowed) : isfinite(got))
                fail_msg("%s %s %lld,%lld: %.9g, bitsandbytes' is %.9g, allowed %.3g", setup_name(s), l->name, (long long)r, (long long)o, got, want,
                    allowed);
        }
    rv_weight_free(be, w);
    rv_backend_close(be);
}

static void int8_layers_are_bitsandbytes_within_two_units(void **state) {
    (void)state;
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    rv_checkpoint *c = golden_open("golden/bnb/int8.safetensors");
    for (int i = 0; i < n; i++)
        for (int k = 0; k < N_CASES; k++) {
            check_layer(c, &CASES[k], setups[i], true);
            check_layer(c, &CASES[k], setups[i], false);
        }
    rv_checkpoint_close(c);
}

/* ---- 4 bit ---- */

static const struct { const char *name; rv_dtype type; int64_t cols; } WEIGHTS[] = { { "f16", RV_F16, 768 }, { "bf16", RV_BF16, 384 }, { "f32",
    RV_F32, 384 } };

static void check_nf4(const rv_checkpoint *c, const char *w_name, const char *codes_name, const char *absmax_name, rv_dtype type) {
    int64_t n;
    const void *w = of(c, type, &n, "%s", w_name), *want_absmax = of(c, RV_F32, NULL, "%s", absmax_name);
    const uint8_t *want = of(c, RV_U8, NULL, "%s", codes_name);
    uint8_t *codes = malloc((size_t)n / 2);
    float *absmax = malloc((size_t)n / 64 * 4);
    rv_nf4_quantise(codes, absmax, w, type, n);
    for (int64_t b = 0; b < n / 64; b++) {
        /* a GPU's reciprocal takes subnormals for zero; exact arithmetic keeps them */
        if (fabsf(absmax[b]) < 0x1p-126f && golden_f32(want_absmax, b) == 0) continue;
        if (absmax[b] != golden_f32(want_absmax, b)) fail_msg("%s: block %lld: absmax %.9g, bitsandbytes' is %.9g", w_name, (long long)b,
            (double)absmax[b], (double)golden_f32(want_absmax, b));
        if (memcmp(codes + b * 32, want + b * 32, 32)) fail_msg("%s: block %lld: codes differ", w_name, (long long)b);
    }
    free(codes);
    free(absmax);
}

static void nf4_codes_are_bitsandbytes(void **state) {
    (void)state;
    rv_checkpoint *c = golden_open("golden/bnb/4bit.safetensors");
    check_nf4(c, "f16.w", "f16.nf4.codes", "f16.absmax", RV_F16);
    check_nf4(c, "bf16.w", "bf16.nf4.codes", "bf16.absmax", RV_BF16);
    check_nf4(c, "f32.w", "f32.nf4.codes", "f32.absmax", RV_F32);
    check_nf4(c, "edge.w", "edge.nf4.codes", "edge.nf4.absmax", RV_F32);
    check_nf4(c, "near_nf4.w", "near_nf4.nf4.codes", "near_nf4.nf4.absmax", RV_F32);
    rv_checkpoint_close(c);
}

static void tables_are_bitsandbytes(void **state) {
    (void)state;
    rv_checkpoint *c = golden_open("golden/bnb/4bit.safetensors");
    assert_memory_equal(of(c, RV_F32, NULL, "nf4.table"), rv_nf4_map, sizeof rv_nf4_map);
    assert_memory_equal(of(c, RV_F32, NULL, "dynamic.table"), rv_nested_map, sizeof rv_nested_map);
    rv_checkpoint_close(c);
}

static void nested_absmaxes_are_bitsandbytes(void **state) {
    (void)state;
    rv_checkpoint *c = golden_open("golden/bnb/4bit.safetensors");
    for (int i = 0; i < 3; i++) {
        int64_t n;
        const char *name = WEIGHTS[i].name;
        const void *given = of(c, RV_F32, &n, "%s.absmax", name), *scale = of(c, RV_F32, NULL, "%s.nested_absmax", name), *back = of(c, RV_F32, NULL,
            "%s.nested_back", name);
        float absmax[288], scales[2], want = golden_f32(of(c, RV_F32, NULL, "%s.nested_offset", name), 0);
        uint8_t codes[288];
        memcpy(absmax, given, (size_t)n * 4);
        float offset = rv_nested_quantise(codes, scales, absmax, n);
        assert_true(fabsf(offset - want) <= fabsf(want) * 0x1p-23f);             /* torch's own order of adding */
        rv_codes q = { .format = RV_FORMAT_NF4, .nested = of(c, RV_U8, NULL, "%s.nested_q", name), .nested_scale = scale, .offset = want };
        memcpy(q.nested_map, rv_nested_map, sizeof q.nested_map);
        for (int64_t b = 0; b < n; b++) {
            if (codes[b] != q.nested[b]) fail_msg("%s: block %lld: code %d, bitsandbytes' is %d", name, (long long)b, codes[b], q.nested[b]);
            if (rv_codes_absmax(&q, b) != golden_f32(back, b)) fail_msg("%s: block %lld reads as %.9g, bitsandbytes' as %.9g", name, (long long)b,
                (double)rv_codes_absmax(&q, b), (double)golden_f32(back, b));
        }
        for (int64_t b = 0; b < (n + 255) / 256; b++) assert_true(fabsf(scales[b] - golden_f32(scale, b)) <= fabsf(want) * 0x1p-23f);
    }
    rv_checkpoint_close(c);
}

static void weights_dequantise_as_bitsandbytes(void **state) {
    (void)state;
    static const char *const formats[] = { "nf4", "fp4" }, *const kinds[] = { "deq_f16", "deq_bf16", "nested_deq_f16", "nested_deq_bf16" };
    rv_checkpoint *c = golden_open("golden/bnb/4bit.safetensors");
    for (int i = 0; i < 24; i++) {
        int w = i % 3, f = i / 3 % 2, k = i / 6;
        int64_t n, cols = WEIGHTS[w].cols;
        const char *name = WEIGHTS[w].name;
        rv_dtype type = k % 2 ? RV_BF16 : RV_F16;
        rv_codes q = { .format = f ? RV_FORMAT_FP4 : RV_FORMAT_NF4, .codes = of(c, RV_U8, NULL, "%s.%s.codes", name, formats[f]), .scale = of(c,
            RV_F32, NULL, "%s.absmax", name) };
        memcpy(q.map, of(c, RV_F32, NULL, "%s.table", formats[f]), sizeof q.map);
        memcpy(q.nested_map, rv_nested_map, sizeof q.nested_map);
        if (k > 1) {
            q.nested = of(c, RV_U8, NULL, "%s.nested_q", name);
            q.nested_scale = of(c, RV_F32, NULL, "%s.nested_absmax", name);
            q.offset = golden_f32(of(c, RV_F32, NULL, "%s.nested_offset", name), 0);
        }
        const void *rows = of(c, RV_I64, &n, "%s.rows", name), *want = of(c, type, NULL, "%s.%s.%s", name, formats[f], kinds[k]);
        for (int64_t r = 0; r < n; r++) {
            float row[768];
            rv_codes_read(row, &q, cols, golden_i64(rows, r) * cols, cols);
            for (int64_t x = 0; x < cols; x++) {
                uint16_t got = type == RV_BF16 ? rv_f32_to_bf16(row[x]) : rv_f32_to_f16(row[x]), given;
                memcpy(&given, (const char *)want + (r * cols + x) * 2, 2);
                if (((got | given) & 0x7fff) == 0) continue;     /* the table of FP4 has no -0, the GPU's decoder does */
                if (got != given) fail_msg("%s %s %s %lld,%lld: %04x, bitsandbytes' is %04x", name, formats[f], kinds[k], (long long)r, (long long)x,
                    got, given);
            }
        }
    }
    rv_checkpoint_close(c);
}

/* ---- layers ---- */

/* Its few-row kernels round a table, a scale and each product to f16: three roundings a term that this does not have. */
static void check_4bit_layer(const rv_checkpoint *c, setup s, const char *layer, bool nested, bool fp4, bool bias, int32_t rows) {
    rv_backend *be = open_rules(s, 6, false);
    const void *x = of(c, RV_F16, NULL, "x"), *y = of(c, RV_F16, NULL, "%s.y%d", layer, rows), *b = of(c, RV_F16, NULL, "bias");
    rv_codes q = { .format = fp4 ? RV_FORMAT_FP4 : RV_FORMAT_NF4, .codes = of(c, RV_U8, NULL, fp4 ? "fp4.codes" : "nf4.codes"), .scale = of(c, RV_F32,
        NULL, "absmax") };
    rv_checkpoint *tables = golden_open("golden/bnb/4bit.safetensors");
    memcpy(q.map, of(tables, RV_F32, NULL, fp4 ? "fp4.table" : "nf4.table"), sizeof q.map);
    rv_checkpoint_close(tables);
    memcpy(q.nested_map, rv_nested_map, sizeof q.nested_map);
    if (nested) {
        q.nested = of(c, RV_U8, NULL, "nested_q");
        q.nested_scale = of(c, RV_F32, NULL, "nested_absmax");
        q.offset = golden_f32(of(c, RV_F32, NULL, "nested_offset"), 0);
    }
    rv_weight_spec spec = { .name = layer, .rows = 32, .cols = 256, .n_parts = 1, .part = { { .rows = 32, .codes = &q } }, .format = q.format,
        .nested = nested };
    rv_weight *w = rv_weight_new(be, &spec, NULL);
    float *in = malloc(64 * 256 * 4), out[64 * 32], add[32], weight[256];
    for (int64_t i = 0; i < rows * 256; i++) rv_cpu_store(in, s.act, i, value(x, RV_F16, i));
    for (int64_t i = 0; i < 32; i++) add[i] = value(b, RV_F16, i);
    rv_linear(be, rv_mat_of(out, rows, 32, s.act), rv_mat_of(in, rows, 256, s.act), w, bias ? add : NULL, RV_ACT_NONE);
    rv_error err = { 0 };
    if (rv_finish(be, &err)) fail_msg("%s", err.message);
    for (int64_t o = 0; o < 32; o++) {
        rv_codes_read(weight, &q, 256, o * 256, 256);
        for (int64_t r = 0; r < rows; r++) {
            double squares = 0, unit = s.act == RV_BF16 ? 0x1p-8 : 0x1p-11, got = value(out, s.act, r * 32 + o), want = value(y, RV_F16, r * 32 + o);
            for (int64_t k = 0; k < 256; k++) squares += pow((double)value(x, RV_F16, r * 256 + k) * (double)weight[k], 2);
            double allowed = 2 * unit * fabs(want) + 3 * unit * sqrt(squares);
            if (!(fabs(got - want) <= allowed)) fail_msg("%s %s %lld,%lld of %d: %.9g, bitsandbytes' is %.9g, allowed %.3g", setup_name(s), layer,
                (long long)r, (long long)o, rows, got, want, allowed);
        }
    }
    free(in);
    rv_weight_free(be, w);
    rv_backend_close(be);
}

static void four_bit_layers_are_bitsandbytes_within_their_rounding(void **state) {
    (void)state;
    static const int32_t rows[] = { 1, 4, 64 };
    setup setups[3 * CPU_LEVELS];
    int n = all_setups(setups);
    rv_checkpoint *c = golden_open("golden/bnb/layers.safetensors");
    for (int i = 0; i < n; i++)
        for (int r = 0; r < 3; r++) {
            if (setups[i].act == RV_BF16) {
                check_4bit_layer(c, setups[i], "nf4_nested_bf16", true, false, false, rows[r]);
                continue;
            }
            check_4bit_layer(c, setups[i], "nf4", false, false, false, rows[r]);
            check_4bit_layer(c, setups[i], "fp4", false, true, false, rows[r]);
            check_4bit_layer(c, setups[i], "nf4_nested", true, false, false, rows[r]);
            check_4bit_layer(c, setups[i], "nf4_nested_bias", true, false, true, rows[r]);
        }
    rv_checkpoint_close(c);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(int8_weights_are_bitsandbytes),
        cmocka_unit_test(every_step_of_int8_is_bitsandbytes),
        cmocka_unit_test(int8_layers_are_bitsandbytes_within_two_units),
        cmocka_unit_test(nf4_codes_are_bitsandbytes),
        cmocka_unit_test(tables_are_bitsandbytes),
        cmocka_unit_test(nested_absmaxes_are_bitsandbytes),
        cmocka_unit_test(weights_dequantise_as_bitsandbytes),
        cmocka_unit_test(four_bit_layers_are_bitsandbytes_within_their_rounding),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
