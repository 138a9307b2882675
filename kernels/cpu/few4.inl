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

#ifdef RV_DOT_BF16
/* The values of two blocks side by side, and two blocks decoded with them: logic costs less here than moving lanes. */
ALWAYS __m512i values_of_two(vf map, float first, float second) { return (__m512i)_mm512_cvtne2ps_pbh((__m512)(map * second), (__m512)(map * first)); }

ALWAYS void decode_two(__m512i *w, const uint8_t *first, const uint8_t *second, __m512i values) {
    const __m512i low = _mm512_set1_epi16(15), upper = _mm512_set1_epi16(16);
    __m512i a = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)first));
    __m512i b = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i *)(const void *)second));
    w[0] = _mm512_permutexvar_epi16(_mm512_srli_epi16(a, 4), values);
    w[1] = _mm512_permutexvar_epi16(_mm512_and_si512(a, low), values);
    w[2] = _mm512_permutexvar_epi16(_mm512_or_si512(_mm512_srli_epi16(b, 4), upper), values);
    w[3] = _mm512_permutexvar_epi16(_mm512_or_si512(b, upper), values);
}
#endif

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
    for (int64_t b = 0; b < blocks && type == RV_F32; b++) {
        uint32_t in[64], to[64];
        memcpy(in, (const char *)x + b * 256, sizeof in);
        for (int i = 0; i < 32; i++) to[i] = in[2 * i];
        for (int i = 0; i < 32; i++) to[32 + i] = in[2 * i + 1];
        memcpy((char *)out + b * 256, to, sizeof to);
    }
    for (int64_t b = 0; b < blocks && type != RV_F32; b++) {
        uint16_t in[64], to[64];
        memcpy(in, (const char *)x + b * 128, sizeof in);
        for (int i = 0; i < 32; i++) to[i] = in[2 * i];
        for (int i = 0; i < 32; i++) to[32 + i] = in[2 * i + 1];
        memcpy((char *)out + b * 128, to, sizeof to);
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
/* One block of O outputs against R rows, in the order in which `tile` takes decoded rows: even elements, then odd ones. */
#ifdef RV_DOT_BF16
ALWAYS void block4_pairs(const void *const *x, const uint8_t *const *codes, const float *const *absmax, vf map, int64_t b, int R, int O, vf *acc) {
#pragma GCC unroll 4
    for (int o = 0; o < O; o += 2) {
        __m512i w[4];
        decode_two(w, codes[o] + b * 32, codes[o + 1] + b * 32, values_of_two(map, absmax[o][b], absmax[o + 1][b]));
#pragma GCC unroll 4
        for (int r = 0; r < R; r++)
#pragma GCC unroll 4
            for (int i = 0; i < 4; i++)
                acc[r * O + o + i / 2] = (vf)_mm512_dpbf16_ps((__m512)acc[r * O + o + i / 2], (__m512bh)pairs_load(x[r], b * 64 + i % 2 * 32, 32),
                    (__m512bh)w[i]);
    }
}
#endif

/* 16 values fill a register as f32: an index's higher bits are not looked at. */
ALWAYS void block4_floats(const void *const *x, const uint8_t *const *codes, const float *const *absmax, vf map, int64_t b, int R, int O, vf *acc) {
#pragma GCC unroll 4
    for (int o = 0; o < O; o++) {
        __m512 values = _mm512_cvtph_ps((__m256i)vf_to_half(map * absmax[o][b], RV_F16));
        vf w[4];
#pragma GCC unroll 2
        for (int i = 0; i < 2; i++) {
            __m512i pairs = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)(const void *)(codes[o] + b * 32 + i * 16)));
            w[i] = (vf)_mm512_permutexvar_ps(_mm512_srli_epi32(pairs, 4), values);
            w[2 + i] = (vf)_mm512_permutexvar_ps(pairs, values);
        }
#pragma GCC unroll 4
        for (int i = 0; i < 4; i++)
#pragma GCC unroll 4
            for (int r = 0; r < R; r++) acc[r * O + o] += vf_load_as(x[r], RV_F32, b * 64 + i * 16) * w[i];
    }
}

/* out[r * FEW_OUTPUTS + o] for R rows and O outputs straight from the codes: the sums of `tile` over decoded rows, to the
 * bit.  A row of codes is too short for the CPU to see a stream in it, so rows to come are asked for here;
 * into L2, which has more requests under way than L1 can. */
ALWAYS void tile4(const void *const *x, rv_dtype tx, const uint8_t *const *codes, const float *const *absmax, vf map, int64_t blocks, int R,
                  int O, float *out) {
    vf acc[FEW_OUTPUTS * FEW_TILE_ROWS];
    (void)tx;
#pragma GCC unroll 32
    for (int i = 0; i < R * O; i++) acc[i] = vf_set(0);
    for (int64_t b = 0; b < blocks; b++) {
#pragma GCC unroll 8
        for (int o = 0; o < O; o++) _mm_prefetch((const char *)codes[o] + (2 * O * blocks + b) * 32, _MM_HINT_T1);
#ifdef RV_DOT_BF16
        if (tx == RV_BF16) block4_pairs(x, codes, absmax, map, b, R, O, acc);
        else
#endif
        block4_floats(x, codes, absmax, map, b, R, O, acc);
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
