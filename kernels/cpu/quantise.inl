/* quantise.inl - the rules of engine/base/quant.h in vectors, to the same bits: part of kernels.inl.
 *
 * The one idea: every step that rounds (to f16, times the reciprocal, to an integer) stays one operation of its own;
 * nothing here adds to a product, so no fused operation can skip a rounding.
 */

/* As torch casts to f16 and back: beyond 65504 it is infinite. */
ALWAYS vf vf_through_f16(vf v) {
#if RV_LANES == 16
    return (vf)_mm512_cvtph_ps(_mm512_cvtps_ph((__m512)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif RV_LANES == 8
    return (vf)_mm256_cvtph_ps(_mm256_cvtps_ph((__m256)v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#else
    for (int i = 0; i < RV_LANES; i++) v[i] = rv_cpu_through_f16(v[i]);
    return v;
#endif
}

ALWAYS vf vf_through_bf16(vf v) { return vf_from_bf16(vf_to_bf16(v)); }
ALWAYS vf vf_abs(vf v) { return (vf)((vi)v & INT32_MAX); }

#if RV_LANES >= 8
typedef int8_t  vb __attribute__((vector_size(RV_LANES)));

/* To the nearest integer, ties to even; 0 where `keep` is not set. */
ALWAYS vb vf_codes(vf v, vi keep) {
#if RV_LANES == 16
    vi i = (vi)_mm512_cvtps_epi32((__m512)v);
#else
    vi i = (vi)_mm256_cvtps_epi32((__m256)v);
#endif
    return __builtin_convertvector(i & keep, vb);
}

ALWAYS bool vi_any(vi mask) {
#if RV_LANES == 16
    return _mm512_movepi32_mask((__m512i)mask) != 0;
#else
    return _mm256_movemask_epi8((__m256i)mask) != 0;
#endif
}

ALWAYS vf load_up_to(const void *p, rv_dtype type, int64_t i, int64_t n) {
    return n - i >= RV_LANES ? vf_load_as(p, type, i) : vf_load_part(p, type, i, n - i);
}

ALWAYS void store_codes(int8_t *codes, int64_t i, int64_t n, vb v) { memcpy(codes + i, &v, n - i >= RV_LANES ? RV_LANES : (size_t)(n - i)); }

ALWAYS float int8_weights_as(int8_t *codes, const void *row, int64_t n, rv_dtype type) {
    vf most = vf_set(0);
    for (int64_t i = 0; i < n; i += RV_LANES) most = vf_max(vf_abs(vf_through_f16(load_up_to(row, type, i, n))), most);
    float scb = vf_largest(most);
    vf scale = vf_set(127.f / scb);
    for (int64_t i = 0; i < n; i += RV_LANES) {
        vf v = vf_through_f16(load_up_to(row, type, i, n)) * scale;
        store_codes(codes, i, n, vf_codes(v, v == v));
    }
    return scb;
}

static float int8_weights(int8_t *codes, const void *row, rv_dtype type, int64_t n) {
    if (type == RV_F32) return int8_weights_as(codes, row, n, RV_F32);
    return type == RV_BF16 ? int8_weights_as(codes, row, n, RV_BF16) : int8_weights_as(codes, row, n, RV_F16);
}

ALWAYS int32_t int8_row_as(int8_t *codes, float *sca, int32_t *column, const void *x, int64_t n, float threshold, rv_dtype type) {
    vf most = vf_set(0), limit = vf_set(threshold > 0 ? threshold : INFINITY);
    vi all = vf_set(threshold) == vf_set(0);
    int32_t outliers = 0;
    for (int64_t i = 0; i < n; i += RV_LANES) {
        vf v = vf_abs(vf_through_f16(load_up_to(x, type, i, n)));
        vi out = (v >= limit) & ~all;
        most = vf_max(vf_select(out, vf_set(0), v), most);
        if (vi_any(out))
            for (int k = 0; k < RV_LANES; k++)
                if (out[k]) column[outliers++] = (int32_t)i + k;
    }
    *sca = vf_largest(most);
    vf scale = vf_set(127.f / *sca);
    for (int64_t i = 0; i < n; i += RV_LANES) {
        vf v = vf_through_f16(load_up_to(x, type, i, n)), scaled = v * scale;
        store_codes(codes, i, n, vf_codes(scaled, ((vf_abs(v) < limit) | all) & (scaled == scaled)));
    }
    return outliers;
}

static int32_t int8_row(int8_t *codes, float *sca, int32_t *column, const void *x, rv_dtype type, int64_t n, float threshold) {
    return type == RV_F32 ? int8_row_as(codes, sca, column, x, n, threshold, RV_F32) : int8_row_as(codes, sca, column, x, n, threshold, RV_BF16);
}

/* How many thresholds each lane exceeds; NaN: none. */
ALWAYS vi nf4_codes(vf x) {
#if RV_LANES == 16
    const __m512 bounds = _mm512_maskz_loadu_ps(0x7fff, rv_nf4_threshold);   /* bisection: the thresholds fit in one register */
    __m512i code = _mm512_maskz_set1_epi32(_mm512_cmp_ps_mask((__m512)x, _mm512_set1_ps(rv_nf4_threshold[7]), _CMP_GT_OQ), 8);
    for (int step = 4; step; step >>= 1) {
        __m512 bound = _mm512_permutexvar_ps(_mm512_add_epi32(code, _mm512_set1_epi32(step - 1)), bounds);
        code = _mm512_mask_add_epi32(code, _mm512_cmp_ps_mask((__m512)x, bound, _CMP_GT_OQ), code, _mm512_set1_epi32(step));
    }
    return (vi)code;
#else
    vi code = { 0 };
    for (int i = 0; i < 15; i++) code -= x > vf_set(rv_nf4_threshold[i]);
    return code;
#endif
}

ALWAYS void nf4_quantise_as(uint8_t *codes, float *absmax, const void *w, int64_t n, rv_dtype type) {
    for (int64_t b = 0; b < n / RV_BLOCK4; b++) {
        vf v[RV_BLOCK4 / RV_LANES], most = vf_set(0);
        uint8_t code[RV_BLOCK4];
        for (int i = 0; i < RV_BLOCK4 / RV_LANES; i++) {
            v[i] = vf_load_as(w, type, b * RV_BLOCK4 + i * RV_LANES);
            most = vf_max(vf_abs(v[i]), most);
        }
        absmax[b] = vf_largest(most);
        vf by = vf_set(1.f / absmax[b]);
        for (int i = 0; i < RV_BLOCK4 / RV_LANES; i++) {
            vb c = __builtin_convertvector(nf4_codes(v[i] * by), vb);
            memcpy(code + i * RV_LANES, &c, sizeof c);
        }
        for (int i = 0; i < RV_BLOCK4 / 2; i++) codes[b * (RV_BLOCK4 / 2) + i] = (uint8_t)(code[2 * i] << 4 | code[2 * i + 1]);
    }
}

static void nf4_quantise(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n) {
    if (type == RV_F32) nf4_quantise_as(codes, absmax, w, n, RV_F32);
    else if (type == RV_BF16) nf4_quantise_as(codes, absmax, w, n, RV_BF16);
    else nf4_quantise_as(codes, absmax, w, n, RV_F16);
}
#else
/* No vectors that round to f16: the rules' own loops. */
static float int8_weights(int8_t *codes, const void *row, rv_dtype type, int64_t n) { return rv_int8_weights(codes, row, type, n); }
static void nf4_quantise(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n) { rv_nf4_quantise(codes, absmax, w, type, n); }
static int32_t int8_row(int8_t *codes, float *sca, int32_t *column, const void *x, rv_dtype type, int64_t n, float threshold) {
    return rv_cpu_int8_row(codes, sca, column, x, type, n, threshold);
}
#endif
