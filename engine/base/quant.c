/* quant.c - see quant.h. */
#include "engine/base/quant.h"

#include <math.h>

const float rv_nf4_map[16] = {
    -1.f, -0.6961928f, -0.52507305f, -0.3949175f, -0.28444138f, -0.18477343f, -0.091050036f, 0.f,
    0.0795803f, 0.1609302f, 0.2461123f, 0.33791524f, 0.44070983f, 0.562617f, 0.72295684f, 1.f
};

/* As bitsandbytes 0.50.2 compares: four are a unit in the last place from the middle between two codes. */
const float rv_nf4_threshold[15] = {
    -0.84809643f, -0.6106329f, -0.45999527f, -0.33967942f, -0.2346074f, -0.13791174f, -0.045525018f, 0.03979015f,
    0.120255254f, 0.20352125f, 0.29201376f, 0.38931254f, 0.5016634f, 0.6427869f, 0.8614784f
};

const float rv_nested_map[256] = {
    -0.99296874f, -0.9789063f, -0.96484375f, -0.9507812f, -0.93671876f, -0.92265624f, -0.9085938f, -0.89453125f,
    -0.8804687f, -0.86640626f, -0.85234374f, -0.8382813f, -0.82421875f, -0.8101562f, -0.79609376f, -0.78203124f,
    -0.7679688f, -0.75390625f, -0.7398437f, -0.72578126f, -0.7117188f, -0.6976563f, -0.68359375f, -0.6695312f,
    -0.65546876f, -0.6414063f, -0.6273438f, -0.61328125f, -0.5992187f, -0.58515626f, -0.5710938f, -0.5570313f,
    -0.54296875f, -0.5289062f, -0.5148437f, -0.50078124f, -0.4867187f, -0.47265625f, -0.45859373f, -0.44453126f,
    -0.43046874f, -0.41640624f, -0.40234375f, -0.38828123f, -0.37421876f, -0.36015624f, -0.34609374f, -0.33203125f,
    -0.31796873f, -0.30390626f, -0.28984374f, -0.27578127f, -0.26171875f, -0.24765624f, -0.23359375f, -0.21953125f,
    -0.20546874f, -0.19140625f, -0.17734376f, -0.16328125f, -0.14921875f, -0.13515624f, -0.12109375f, -0.107031256f,
    -0.09859375f, -0.09578126f, -0.092968754f, -0.09015625f, -0.08734375f, -0.08453125f, -0.08171876f, -0.07890625f,
    -0.07609375f, -0.07328125f, -0.070468746f, -0.067656256f, -0.06484375f, -0.06203125f, -0.059218753f, -0.05640625f,
    -0.05359375f, -0.05078125f, -0.04796875f, -0.04515625f, -0.042343747f, -0.03953125f, -0.036718752f, -0.03390625f,
    -0.03109375f, -0.028281251f, -0.02546875f, -0.02265625f, -0.019843752f, -0.01703125f, -0.01421875f, -0.01140625f,
    -0.00971875f, -0.009156249f, -0.00859375f, -0.00803125f, -0.00746875f, -0.00690625f, -0.00634375f, -0.00578125f,
    -0.0052187503f, -0.0046562497f, -0.00409375f, -0.0035312497f, -0.00296875f, -0.00240625f, -0.00184375f, -0.0012812499f,
    -0.0009437501f, -0.00083125f, -0.00071875006f, -0.0006062501f, -0.00049375003f, -0.00038125002f, -0.00026875004f, -0.00015625001f,
    -8.875e-05f, -6.625e-05f, -4.375e-05f, -2.1249998e-05f, -7.75e-06f, -3.2500002e-06f, -5.5000004e-07f, 0.f,
    5.5000004e-07f, 3.2500002e-06f, 7.75e-06f, 2.1249998e-05f, 4.375e-05f, 6.625e-05f, 8.875e-05f, 0.00015625001f,
    0.00026875004f, 0.00038125002f, 0.00049375003f, 0.0006062501f, 0.00071875006f, 0.00083125f, 0.0009437501f, 0.0012812499f,
    0.00184375f, 0.00240625f, 0.00296875f, 0.0035312497f, 0.00409375f, 0.0046562497f, 0.0052187503f, 0.00578125f,
    0.00634375f, 0.00690625f, 0.00746875f, 0.00803125f, 0.00859375f, 0.009156249f, 0.00971875f, 0.01140625f,
    0.01421875f, 0.01703125f, 0.019843752f, 0.02265625f, 0.02546875f, 0.028281251f, 0.03109375f, 0.03390625f,
    0.036718752f, 0.03953125f, 0.042343747f, 0.04515625f, 0.04796875f, 0.05078125f, 0.05359375f, 0.05640625f,
    0.059218753f, 0.06203125f, 0.06484375f, 0.067656256f, 0.070468746f, 0.07328125f, 0.07609375f, 0.07890625f,
    0.08171876f, 0.08453125f, 0.08734375f, 0.09015625f, 0.092968754f, 0.09578126f, 0.09859375f, 0.107031256f,
    0.12109375f, 0.13515624f, 0.14921875f, 0.16328125f, 0.17734376f, 0.19140625f, 0.20546874f, 0.21953125f,
    0.23359375f, 0.24765624f, 0.26171875f, 0.27578127f, 0.28984374f, 0.30390626f, 0.31796873f, 0.33203125f,
    0.34609374f, 0.36015624f, 0.37421876f, 0.38828123f, 0.40234375f, 0.41640624f, 0.43046874f, 0.44453126f,
    0.45859373f, 0.47265625f, 0.4867187f, 0.50078124f, 0.5148437f, 0.5289062f, 0.54296875f, 0.5570313f,
    0.5710938f, 0.58515626f, 0.5992187f, 0.61328125f, 0.6273438f, 0.6414063f, 0.65546876f, 0.6695312f,
    0.68359375f, 0.6976563f, 0.7117188f, 0.72578126f, 0.7398437f, 0.75390625f, 0.7679688f, 0.78203124f,
    0.79609376f, 0.8101562f, 0.82421875f, 0.8382813f, 0.85234374f, 0.86640626f, 0.8804687f, 0.89453125f,
    0.9085938f, 0.92265624f, 0.93671876f, 0.9507812f, 0.96484375f, 0.9789063f, 0.99296874f, 1.f
};

/* A number is NaN or Inf when all bits of its exponent are set: then, and only then, adding the lowest of them carries into the sign's place,
 * which the mask has cleared.  So two or four numbers are looked at as one word. */
bool rv_all_finite(const void *data, rv_dtype type, int64_t n) {
    const uint64_t ones = rv_dtype_size(type) == 2 ? UINT64_C(0x0001000100010001) : UINT64_C(0x0000000100000001);
    const uint64_t exponent = (type == RV_F16 ? 0x7c00u : type == RV_BF16 ? 0x7f80u : 0x7f800000u) * ones;
    const uint64_t lowest = (type == RV_F16 ? 0x0400u : type == RV_BF16 ? 0x0080u : 0x00800000u) * ones;
    const uint64_t sign = (rv_dtype_size(type) == 2 ? 0x8000u : 0x80000000u) * ones;
    const size_t bytes = (size_t)n * rv_dtype_size(type);
    uint64_t bad = 0, word;
    size_t at = 0;
    for (; bytes - at >= sizeof word; at += sizeof word) {
        memcpy(&word, (const char *)data + at, sizeof word);
        bad |= (word & exponent) + lowest;
    }
    word = 0;
    memcpy(&word, (const char *)data + at, bytes - at);
    bad |= (word & exponent) + lowest;
    return !(bad & sign);
}

const char *rv_format_name(rv_format format) {
    static const char *const names[RV_FORMATS] = { "16bit", "int8", "nf4", "fp4" };
    return (unsigned)format < RV_FORMATS ? names[format] : "?";
}

uint64_t rv_codes_bytes(rv_format format, bool nested, int64_t rows, int64_t cols) {
    uint64_t n = (uint64_t)rows * (uint64_t)cols, blocks = n / RV_BLOCK4;
    if (format == RV_FORMAT_PLAIN) return n * 2;
    if (format == RV_FORMAT_INT8) return n + (uint64_t)rows * sizeof(float);
    return n / 2 + (nested ? blocks + (blocks + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK * sizeof(float) + sizeof(float) : blocks * sizeof(float));
}

static float read_one(const void *from, rv_dtype type, int64_t i) {
    if (type == RV_F32) {
        float f;
        memcpy(&f, (const char *)from + i * 4, sizeof f);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)from + i * 2, sizeof h);
    return type == RV_BF16 ? rv_bf16_to_f32(h) : rv_f16_to_f32(h);
}

/* ---- int8 ---- */

/* To f16 and back as torch casts: beyond 65504 it is infinite. */
static float through_f16(float f) {
    if (fabsf(f) >= 65520.f) return copysignf(INFINITY, f);
    return rv_f16_to_f32(rv_f32_to_f16(f));
}

/* NaN becomes 0, as a GPU converts it. */
static int8_t code_of(float f) { return isnan(f) ? 0 : (int8_t)rintf(f); }

float rv_int8_weights(int8_t *codes, const void *row, rv_dtype type, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(through_f16(read_one(row, type, i))));
    const float scale = 127.f / most;
    for (int64_t i = 0; i < n; i++) codes[i] = code_of(through_f16(read_one(row, type, i)) * scale);
    return most;
}

float rv_int8_activations(int8_t *codes, const float *x, int64_t n, float threshold) {
    float most = 0;
    for (int64_t i = 0; i < n; i++)
        if (threshold == 0 || fabsf(x[i]) < threshold) most = fmaxf(most, fabsf(x[i]));
    const float scale = 127.f / most;
    for (int64_t i = 0; i < n; i++) codes[i] = threshold == 0 || fabsf(x[i]) < threshold ? code_of(x[i] * scale) : 0;
    return most;
}

float rv_int8_scaled(int32_t sum, float sca, float scb) {
    float scaled = (float)sum * sca;
    scaled *= scb;
    return scaled * RV_INT8_BOTH;
}

/* ---- 4 bit ---- */

static uint8_t nf4_code(float x) {
    uint8_t code = 0;
    for (int i = 0; i < 15; i++) code = (uint8_t)(code + (x > rv_nf4_threshold[i]));      /* NaN: 0 */
    return code;
}

void rv_nf4_quantise(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n) {
    for (int64_t b = 0; b < n / RV_BLOCK4; b++) {
        float most = 0;
        for (int64_t i = 0; i < RV_BLOCK4; i++) most = fmaxf(most, fabsf(read_one(w, type, b * RV_BLOCK4 + i)));
        const float by = 1.f / most;
        for (int64_t i = 0; i < RV_BLOCK4; i += 2) {
            uint8_t high = nf4_code(read_one(w, type, b * RV_BLOCK4 + i) * by), low = nf4_code(read_one(w, type, b * RV_BLOCK4 + i + 1) * by);
            codes[(b * RV_BLOCK4 + i) / 2] = (uint8_t)(high << 4 | low);
        }
        absmax[b] = most;
    }
}

/* The index of the nearest of the dynamic codes, by bitsandbytes' own search: its outcome halfway between two depends on its path. */
static uint8_t nearest_nested(float x) {
    int pivot = 127, low = 0, high = 255;
    float value = rv_nested_map[pivot], below = -1.f, above = 1.f;
    for (int step = 64; step > 0; step >>= 1) {
        if (x > value) low = pivot, below = value, pivot += step;
        else high = pivot, above = value, pivot -= step;
        value = rv_nested_map[pivot];
    }
    if (high == 255) above = rv_nested_map[255];
    if (low == 0) below = rv_nested_map[0];
    if (x > value) return (uint8_t)(x > (above + value) * 0.5f ? high : pivot);
    return (uint8_t)(x < (below + value) * 0.5f ? low : pivot);
}

/* The scale of a run, and its codes. */
static float nested_run(uint8_t *nested, const float *absmax, float offset, int64_t n) {
    float most = 0;
    for (int64_t i = 0; i < n; i++) most = fmaxf(most, fabsf(absmax[i] - offset));
    const float by = 1.f / most;
    for (int64_t i = 0; i < n; i++) nested[i] = most > 0 ? nearest_nested((absmax[i] - offset) * by) : 127;
    return most;
}

float rv_nested_quantise(uint8_t *nested, float *nested_scale, const float *absmax, int64_t n) {
    double sum = 0;
    for (int64_t from = 0; from < n; from += RV_NESTED_BLOCK) {
        double run = 0;
        for (int64_t i = from; i < n && i < from + RV_NESTED_BLOCK; i++) run += (double)absmax[i];
        sum += run;
    }
    const float offset = (float)(sum / (double)n);
    for (int64_t from = 0; from < n; from += RV_NESTED_BLOCK)
        nested_scale[from / RV_NESTED_BLOCK] = nested_run(nested + from, absmax + from, offset, n - from < RV_NESTED_BLOCK ? n - from : RV_NESTED_BLOCK);
    return offset;
}

float rv_codes_absmax(const rv_codes *q, int64_t block) {
    if (!q->nested) return read_one(q->scale, RV_F32, block);
    float scaled = q->nested_map[q->nested[block]] * read_one(q->nested_scale, RV_F32, block / RV_NESTED_BLOCK);
    return scaled + q->offset;
}

void rv_codes_read(float *out, const rv_codes *q, int64_t cols, int64_t from, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        const int64_t at = from + i;
        if (q->format == RV_FORMAT_INT8) {
            float scaled = (float)((const int8_t *)q->codes)[at] * read_one(q->scale, RV_F32, at / cols);
            out[i] = scaled * RV_INT8_ONE;
        } else {
            uint8_t pair = ((const uint8_t *)q->codes)[at / 2];
            out[i] = q->map[at % 2 ? pair & 15 : pair >> 4] * rv_codes_absmax(q, at / RV_BLOCK4);
        }
    }
}
