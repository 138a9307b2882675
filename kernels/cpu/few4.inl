/* few4.inl - products with 4-bit weights: part of kernels.inl.
 *
 * The one idea: a block of 64 weights has 16 values, its table times its absmax, rounded once; decoding a weight is then
 * looking up 16 bits.  High and low nibbles are looked up apart, so the even elements of a block come first, then the odd
 * ones; x is put in that order once a call, and every sum takes it in that order.
 */

/* The 16 values of a block. */
ALWAYS void values_of_block(uint16_t *out, rv_dtype type, const float *map, float absmax) {
    for (int i = 0; i < 16; i++) {
        float v = map[i] * absmax;
        out[i] = type == RV_BF16 ? rv_f32_to_bf16(v) : rv_f32_to_f16(v);
    }
}

ALWAYS void weight4_as(void *out, const uint8_t *codes, const float *absmax, const float *map, int64_t blocks, rv_dtype type) {
    for (int64_t b = 0; b < blocks; b++, codes += 32) {
        uint16_t value[16], w[64];
        values_of_block(value, type, map, absmax[b]);
        for (int i = 0; i < 32; i++) w[i] = value[codes[i] >> 4], w[32 + i] = value[codes[i] & 15];
        memcpy((char *)out + b * 128, w, sizeof w);
    }
}

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

static void product4(const rv_cpu_product *p, int32_t from, int32_t to, void *room) {
    while (from < to) {
        const void *w[FEW_OUTPUTS];
        int32_t o = from, part = rv_cpu_part_of(p->w, &o), n = p->w->part[part].rows - o;
        if (n > FEW_OUTPUTS) n = FEW_OUTPUTS;
        if (n > to - from) n = to - from;
        decode_rows(&p->w->codes[part], o, n, p->x.cols, rv_cpu_decoded(p->x.type), room, w);
        if (p->x.type == RV_F32) few_f32_f16(p, w, from, n);
        else few_bf16_bf16(p, w, from, n);
        from += n;
    }
}
