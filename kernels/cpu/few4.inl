/* few4.inl - products with 4-bit weights: part of kernels.inl.
 *
 * The one idea: a block of 64 weights has 16 values, its table times its absmax, rounded once; decoding a weight is then
 * looking up 16 bits.  High and low nibbles are looked up apart, so the even elements of a block come first, then the odd
 * ones; x is put in that order once a call, and every sum takes it in that order.
 */

#if RV_LANES >= 8
/* Values in f16 saturate, NaN stays. */
ALWAYS vf within_f16(vf v) {
#if RV_LANES == 16
    return (vf)_mm512_max_ps(_mm512_set1_ps(-65504.f), _mm512_min_ps(_mm512_set1_ps(65504.f), (__m512)v));
#else
    return (vf)_mm256_max_ps(_mm256_set1_ps(-65504.f), _mm256_min_ps(_mm256_set1_ps(65504.f), (__m256)v));
#endif
}

/* To 16 bit, nearest even. */
ALWAYS vh vf_to_half(vf v, rv_dtype type) {
#ifdef RV_DOT_BF16
    if (type == RV_BF16) return (vh)_mm512_cvtneps_pbh((__m512)v);
#else
    if (type == RV_BF16) return vf_to_bf16(v);
#endif
#if RV_LANES == 16
    return (vh)_mm512_cvtps_ph((__m512)within_f16(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    return (vh)_mm256_cvtps_ph((__m256)within_f16(v), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#endif
}
#endif

#if RV_LANES == 16
/* The 16 values of a block, twice: an index may have anything in its fifth bit. */
ALWAYS __m512i values_of_block(vf map, float absmax, rv_dtype type) {
    return _mm512_broadcast_i64x4((__m256i)vf_to_half(map * absmax, type));
}

/* 32 bytes: the even elements' codes are their high halves, the odd ones' the low. */
ALWAYS void decode_block(__m512i *even, __m512i *odd, const uint8_t *codes, __m512i values) {
    __m512i pairs = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)codes));
    *even = _mm512_permutexvar_epi16(_mm512_srli_epi16(pairs, 4), values);
    *odd = _mm512_permutexvar_epi16(pairs, values);
}

ALWAYS void weight4_as(void *out, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks, rv_dtype type) {
    vf values = vf_load(map);
    for (int64_t b = 0; b < blocks; b++) {
        __m512i w[2];
        decode_block(&w[0], &w[1], codes + b * 32, values_of_block(values, absmax[b], type));
        memcpy((char *)out + b * 128, w, sizeof w);
    }
}
#elif RV_LANES == 8
/* Bytes are looked up apart, low and high ones of 16 values, then put side by side. */
ALWAYS void weight4_as(void *out, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks, rv_dtype type) {
    const __m256i low4 = _mm256_set1_epi8(15);
    const __m128i low8 = _mm_set1_epi16(255);
    vf first = vf_load(map), second = vf_load(map + 8);
    for (int64_t b = 0; b < blocks; b++) {
        __m128i v0 = (__m128i)vf_to_half(first * absmax[b], type), v1 = (__m128i)vf_to_half(second * absmax[b], type);
        __m256i low = _mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_and_si128(v0, low8), _mm_and_si128(v1, low8)));
        __m256i high = _mm256_broadcastsi128_si256(_mm_packus_epi16(_mm_srli_epi16(v0, 8), _mm_srli_epi16(v1, 8)));
        __m256i pairs = _mm256_loadu_si256((const __m256i *)(const void *)(codes + b * 32));
        __m256i code[2] = { _mm256_and_si256(_mm256_srli_epi16(pairs, 4), low4), _mm256_and_si256(pairs, low4) }, w[4];
        for (int i = 0; i < 2; i++) {
            __m256i l = _mm256_shuffle_epi8(low, code[i]), h = _mm256_shuffle_epi8(high, code[i]);
            __m256i a = _mm256_unpacklo_epi8(l, h), c = _mm256_unpackhi_epi8(l, h);
            w[2 * i] = _mm256_permute2x128_si256(a, c, 0x20);
            w[2 * i + 1] = _mm256_permute2x128_si256(a, c, 0x31);
        }
        memcpy((char *)out + b * 128, w, sizeof w);
    }
}
#else
ALWAYS void weight4_as(void *out, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks, rv_dtype type) {
    for (int64_t b = 0; b < blocks; b++, codes += 32) {
        uint16_t value[16], w[64];
        for (int i = 0; i < 16; i++) value[i] = type == RV_BF16 ? rv_f32_to_bf16(map[i] * absmax[b]) : rv_f32_to_f16(map[i] * absmax[b]);
        for (int i = 0; i < 32; i++) w[i] = value[codes[i] >> 4], w[32 + i] = value[codes[i] & 15];
        memcpy((char *)out + b * 128, w, sizeof w);
    }
}
#endif

static void weight4(void *out, rv_dtype type, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks) {
    if (type == RV_BF16) weight4_as(out, codes, absmax, map, blocks, RV_BF16);
    else weight4_as(out, codes, absmax, map, blocks, RV_F16);
}

static void order4(void *out, const void *x, rv_dtype type, int64_t blocks) {
    if (type == RV_F32) {
        for (int64_t b = 0; b < blocks; b++)
            for (int i = 0; i < 64; i++) memcpy((char *)out + (b * 64 + i % 2 * 32 + i / 2) * 4, (const char *)x + (b * 64 + i) * 4, 4);
    } else {
        for (int64_t b = 0; b < blocks; b++)
            for (int i = 0; i < 64; i++) memcpy((char *)out + (b * 64 + i % 2 * 32 + i / 2) * 2, (const char *)x + (b * 64 + i) * 2, 2);
    }
}

/* Up to FEW_OUTPUTS rows of one part, from its row o, decoded into `room`. */
static void decode_rows(const rv_codes *q, int32_t o, int32_t n, int64_t cols, rv_dtype type, char *room, const void **w) {
    int64_t blocks = cols / RV_BLOCK4;
    float *absmax = (float *)(void *)(room + FEW_OUTPUTS * cols * 2);
    rv_cpu_absmaxes(q, o * blocks, n * blocks, absmax);
    for (int32_t i = 0; i < n; i++) {
        w[i] = room + i * cols * 2;
        weight4(room + i * cols * 2, type, (const uint8_t *)q->codes + (o + i) * cols / 2, absmax + i * blocks, q->map, blocks);
    }
    for (int32_t i = n; i < FEW_OUTPUTS; i++) w[i] = w[0];
}

#if RV_LANES == 16
/* out[r * FEW_OUTPUTS + o] for R rows and O outputs straight from the codes: the sums of `tile` over decoded rows, to the
 * bit, as each lane adds up the same products in the same order. */
ALWAYS void tile4(const void *const *x, rv_dtype tx, const uint8_t *const *codes, const float *const *absmax, vf map, int64_t blocks, int R,
                  int O, float *out) {
    vf acc[FEW_OUTPUTS * FEW_TILE_ROWS];
#pragma GCC unroll 32
    for (int i = 0; i < R * O; i++) acc[i] = vf_set(0);
    for (int64_t b = 0; b < blocks; b++) {
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) {
            __m512i w[2];
            decode_block(&w[0], &w[1], codes[o] + b * 32, values_of_block(map, absmax[o][b], rv_cpu_decoded(tx)));
#pragma GCC unroll 4
            for (int r = 0; r < R; r++)
#ifdef RV_DOT_BF16
                if (tx == RV_BF16)
#pragma GCC unroll 2
                    for (int i = 0; i < 2; i++)
                        acc[r * O + o] = (vf)_mm512_dpbf16_ps((__m512)acc[r * O + o], (__m512bh)pairs_load(x[r], b * 64 + i * 32, 32), (__m512bh)w[i]);
                else
#endif
#pragma GCC unroll 4
                for (int i = 0; i < 4; i++) {
                    vf wv = (vf)_mm512_cvtph_ps(_mm512_extracti64x4_epi64(w[i / 2], i % 2));
                    acc[r * O + o] += vf_load_as(x[r], tx, b * 64 + i * 16) * wv;
                }
        }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; r++)
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) out[r * FEW_OUTPUTS + o] = vf_sum(acc[r * O + o]);
}

ALWAYS void few4_as(const rv_cpu_product *p, const rv_codes *q, int32_t o, int32_t from, int32_t n, rv_dtype tx, float *absmaxes) {
    int64_t blocks = p->x.cols / RV_BLOCK4;
    float out[FEW_TILE_ROWS * FEW_OUTPUTS + RV_LANES];
    const void *x[FEW_TILE_ROWS];
    const uint8_t *codes[FEW_OUTPUTS];
    const float *absmax[FEW_OUTPUTS];
    rv_cpu_absmaxes(q, o * blocks, n * blocks, absmaxes);
    for (int32_t i = 0; i < FEW_OUTPUTS; i++) {
        int32_t at = i < n ? i : 0;
        codes[i] = (const uint8_t *)q->codes + (o + at) * blocks * (RV_BLOCK4 / 2);
        absmax[i] = absmaxes + at * blocks;
    }
    for (int32_t r = 0; r < p->x.rows;) {
        int32_t take = p->x.rows - r >= 2 ? 2 : 1;
        for (int32_t i = 0; i < take; i++) x[i] = rv_cpu_row(p->x, r + i);
        for (int32_t i = 0; i < n; i += 4) {
            if (take == 2) tile4(x, tx, codes + i, absmax + i, vf_load(q->map), blocks, 2, 4, out + i);
            else tile4(x, tx, codes + i, absmax + i, vf_load(q->map), blocks, 1, 4, out + i);
        }
        for (int32_t i = 0; i < take; i++) finish_row(p, r + i, from, n, out + i * FEW_OUTPUTS);
        r += take;
    }
}

/* Whether rows are few enough that decoding again costs less than keeping; and then it is done. */
static bool few4(const rv_cpu_product *p, const rv_codes *q, int32_t o, int32_t from, int32_t n, float *absmaxes) {
    if (p->x.rows > 4) return false;
    if (p->x.type == RV_F32) {
        few4_as(p, q, o, from, n, RV_F32, absmaxes);
        return true;
    }
#ifdef RV_DOT_BF16
    few4_as(p, q, o, from, n, RV_BF16, absmaxes);
    return true;
#else
    return false;
#endif
}
#else
static bool few4(const rv_cpu_product *p, const rv_codes *q, int32_t o, int32_t from, int32_t n, float *absmaxes) {
    (void)p, (void)q, (void)o, (void)from, (void)n, (void)absmaxes;
    return false;
}
#endif

static void product4(const rv_cpu_product *p, int32_t from, int32_t to, void *room) {
    while (from < to) {
        const void *w[FEW_OUTPUTS];
        int32_t o = from, part = rv_cpu_part_of(p->w, &o), n = p->w->part[part].rows - o;
        if (n > FEW_OUTPUTS) n = FEW_OUTPUTS;
        if (n > to - from) n = to - from;
        if (!few4(p, &p->w->codes[part], o, from, n, room)) {
            decode_rows(&p->w->codes[part], o, n, p->x.cols, rv_cpu_decoded(p->x.type), room, w);
            if (p->x.type == RV_F32) few_f32_f16(p, w, from, n);
            else few_bf16_bf16(p, w, from, n);
        }
        from += n;
    }
}
