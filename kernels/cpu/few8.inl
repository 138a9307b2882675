/* few8.inl - LLM.int8: part of kernels.inl.
 *
 * The one idea: integer sums are exact in any order, so rows and outputs are tiled freely; what is left of a row, its
 * outliers, is summed apart: lane i takes outliers i modulo RV_LANES, the same whatever stands beside the row.
 */

/* As torch casts to f16 and back: beyond 65504 it is infinite. */
ALWAYS vf vf_through_f16(vf v) {
#if RV_LANES == 16
    return (vf)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif RV_LANES == 8
    return (vf)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int i = 0; i < RV_LANES; i++)
        v[i] = fabsf(v[i]) >= 65520.f ? copysignf(INFINITY, v[i]) : rv_f16_to_f32(rv_f32_to_f16(v[i]));
    return v;
#endif
}

ALWAYS vf vf_through_bf16(vf v) { return vf_from_bf16(vf_to_bf16(v)); }

/* ---- integer sums ---- */

/* sums[r * FEW_OUTPUTS + o] of R rows and O outputs. */
ALWAYS void tile8(const int8_t *const *x, const int8_t *const *w, int64_t cols, int R, int O, int32_t *sums) {
    for (int r = 0; r < R; r++)
        for (int o = 0; o < O; o++) {
            int32_t sum = 0;
            for (int64_t k = 0; k < cols; k++) sum += x[r][k] * w[o][k];
            sums[r * FEW_OUTPUTS + o] = sum;
        }
}

/* ---- what becomes of them ---- */

/* Sum over a row's outliers of x times a weight row's value there, rounded to the operands' type. */
static float outlier_sum(const int32_t *column, const float *value, int32_t n, const int8_t *w, float scb, rv_dtype act) {
    vf sum = vf_set(0);
    for (int32_t i = 0; i < n; i += RV_LANES) {
        float code[RV_LANES] = { 0 }, x[RV_LANES] = { 0 };
        int32_t some = n - i < RV_LANES ? n - i : RV_LANES;
        for (int32_t k = 0; k < some; k++) code[k] = w[column[i + k]], x[k] = value[i + k];
        vf v = vf_load(code) * scb;
        v = v * RV_INT8_ONE;
        if (act == RV_BF16) v = vf_through_bf16(v);
        sum += vf_load(x) * v;
    }
    return vf_sum(sum);
}

static void finish8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, const int8_t *const *w, const float *scb, int32_t r, int32_t from,
                    int32_t n, const int32_t *sums) {
    float out[FEW_OUTPUTS + RV_LANES];
    int64_t at = (int64_t)r * p->x.cols;
    for (int32_t i = 0; i < FEW_OUTPUTS; i += RV_LANES) {
        float sum[RV_LANES] = { 0 }, by[RV_LANES] = { 0 };
        for (int32_t k = 0; k < RV_LANES && i + k < n; k++) sum[k] = (float)sums[i + k], by[k] = scb[i + k];
        vf v = vf_load(sum) * q->sca[r];
        v = v * vf_load(by);
        v = vf_through_f16(v * RV_INT8_BOTH);
        vf_store(out + i, p->x.type == RV_BF16 ? vf_through_bf16(v) : v);
    }
    if (q->outliers[r])
        for (int32_t i = 0; i < n; i++) {
            out[i] += outlier_sum(q->column + at, q->value + at, q->outliers[r], w[i], scb[i], p->x.type);
            if (p->x.type == RV_BF16) out[i] = rv_bf16_to_f32(rv_f32_to_bf16(out[i]));
        }
    finish_row(p, r, from, n, out);
}

static void rows8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, const int8_t *const *w, const float *scb, int32_t from, int32_t n) {
    int64_t cols = p->x.cols;
    for (int32_t r = 0; r < p->x.rows;) {
        int32_t sums[FEW_TILE_ROWS * FEW_OUTPUTS], take = p->x.rows - r >= 4 ? 4 : p->x.rows - r >= 2 ? 2 : 1;
        const int8_t *x[FEW_TILE_ROWS];
        for (int32_t i = 0; i < take; i++) x[i] = q->codes + (r + i) * cols;
        if (take == 4) {
            tile8(x, w, cols, 4, 4, sums);
            if (n > 4) tile8(x, w + 4, cols, 4, 4, sums + 4);
        } else if (take == 2) {
            tile8(x, w, cols, 2, 4, sums);
            if (n > 4) tile8(x, w + 4, cols, 2, 4, sums + 4);
        } else {
            tile8(x, w, cols, 1, 8, sums);
        }
        for (int32_t i = 0; i < take; i++) finish8(p, q, w, scb, r + i, from, n, sums + i * FEW_OUTPUTS);
        r += take;
    }
}

static void product8(const rv_cpu_product *p, const rv_cpu_int8_rows *q, int32_t from, int32_t to) {
    while (from < to) {
        const int8_t *w[FEW_OUTPUTS];
        float scb[FEW_OUTPUTS];
        int32_t o = from, part = rv_cpu_part_of(p->w, &o), n = p->w->part[part].rows - o;
        const rv_codes *c = &p->w->codes[part];
        if (n > FEW_OUTPUTS) n = FEW_OUTPUTS;
        if (n > to - from) n = to - from;
        for (int32_t i = 0; i < FEW_OUTPUTS; i++) w[i] = (const int8_t *)c->codes + (int64_t)(o + (i < n ? i : 0)) * p->x.cols;
        memcpy(scb, (const char *)c->scale + (size_t)o * sizeof *scb, (size_t)n * sizeof *scb);
        rows8(p, q, w, scb, from, n);
        from += n;
    }
}
