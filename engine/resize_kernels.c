/* resize_kernels.c - the inner loops of the resize, plain and for AVX2.
 *
 * The one idea: sums are 32-bit integers, so order does not matter and every version gives the same bytes.
 * AVX2 multiplies 16-bit words and adds neighbours (pmaddwd): weights of up to 23 bits come as low 15 bits and
 * the rest, summed apart and joined at the end; wrapping in between is harmless because the true sum fits.
 */
#include "engine/resize.h"

#include <stdbool.h>
#include <string.h>

static uint8_t clip(int32_t v) { return (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v); }

/* Result pixels [from, out) of one row. */
static void across_from(const rv_weights *w, const uint8_t *row, uint32_t from, uint8_t *out) {
    for (uint32_t i = from; i < w->out; i++) {
        const int32_t *k = w->k + (size_t)i * w->stride;
        const uint8_t *p = row + (size_t)w->first[i] * 3;
        int32_t r = 1 << (w->shift - 1), g = r, b = r;
        for (uint32_t j = 0; j < w->count[i]; j++, p += 3) {
            r += p[0] * k[j];
            g += p[1] * k[j];
            b += p[2] * k[j];
        }
        out[(size_t)i * 3] = clip(r >> w->shift);
        out[(size_t)i * 3 + 1] = clip(g >> w->shift);
        out[(size_t)i * 3 + 2] = clip(b >> w->shift);
    }
}

static void across_plain(const rv_weights *w, const uint8_t *row, size_t readable, uint8_t *out) {
    (void)readable;
    across_from(w, row, 0, out);
}

static void down_from(const rv_weights *w, uint32_t i, const uint8_t *const *rows, size_t from, size_t bytes, uint8_t *out) {
    const int32_t *k = w->k + (size_t)i * w->stride;
    enum { BLOCK = 64 };
    for (size_t x = from; x < bytes; x += BLOCK) {
        int32_t sum[BLOCK];
        size_t n = bytes - x < BLOCK ? bytes - x : BLOCK;
        for (size_t b = 0; b < n; b++) sum[b] = 1 << (w->shift - 1);
        for (uint32_t j = 0; j < w->count[i]; j++)
            for (size_t b = 0; b < n; b++) sum[b] += rows[j][x + b] * k[j];
        for (size_t b = 0; b < n; b++) out[x + b] = clip(sum[b] >> w->shift);
    }
}

static void down_plain(const rv_weights *w, uint32_t i, const uint8_t *const *rows, size_t bytes, uint8_t *out) {
    down_from(w, i, rows, 0, bytes, out);
}

const rv_resize_kernels rv_resize_plain = { across_plain, down_plain };

#if defined(__x86_64__) && defined(__GNUC__)
#include <immintrin.h>

__attribute__((target("avx2")))
static void across_avx2(const rv_weights *w, const uint8_t *row, size_t readable, uint8_t *out) {
    const uint32_t groups = w->stride / RV_GROUP_TAPS;
    /* A group reads 16 bytes for its 12; the last pixels of the last row would read past the image. */
    uint32_t safe = w->out;
    while (safe > 0 && (size_t)w->first[safe - 1] * 3 + (size_t)(groups - 1) * 12 + 16 > readable) safe--;
    const char z = -1;
    const __m256i pairs = _mm256_setr_epi8(0, z, 3, z, 1, z, 4, z, 2, z, 5, z, z, z, z, z,
                                           6, z, 9, z, 7, z, 10, z, 8, z, 11, z, z, z, z, z);
    const __m128i round = _mm_set1_epi32(1 << (w->shift - 1)), shift = _mm_cvtsi32_si128(w->shift);
    const int16_t *k = w->k16;
    for (uint32_t i = 0; i < safe; i++) {
        const uint8_t *p = row + (size_t)w->first[i] * 3;
        __m256i low = _mm256_setzero_si256(), high = low;
        for (uint32_t g = 0; g < groups; g++, p += 12, k += RV_GROUP_WORDS) {
            __m256i v = _mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)(const void *)p));
            v = _mm256_shuffle_epi8(v, pairs);
            low = _mm256_add_epi32(low, _mm256_madd_epi16(v, _mm256_loadu_si256((const __m256i *)(const void *)k)));
            high = _mm256_add_epi32(high, _mm256_madd_epi16(v, _mm256_loadu_si256((const __m256i *)(const void *)(k + 16))));
        }
        __m256i both = _mm256_add_epi32(low, _mm256_slli_epi32(high, 15));
        __m128i sum = _mm_add_epi32(_mm256_castsi256_si128(both), _mm256_extracti128_si256(both, 1));
        sum = _mm_sra_epi32(_mm_add_epi32(sum, round), shift);
        sum = _mm_packus_epi16(_mm_packs_epi32(sum, sum), sum);
        int32_t pixel = _mm_cvtsi128_si32(sum);
        memcpy(out + (size_t)i * 3, &pixel, 4);      /* the fourth byte is the next pixel's, or padding */
    }
    across_from(w, row, safe, out);
}

/* Two rows at a time: their bytes side by side as 16-bit pairs. */
__attribute__((target("avx2")))
static void down_avx2(const rv_weights *w, uint32_t i, const uint8_t *const *rows, size_t bytes, uint8_t *out) {
    const int32_t *k = w->k + (size_t)i * w->stride;
    const uint32_t count = w->count[i];
    const __m256i round = _mm256_set1_epi32(1 << (w->shift - 1));
    const __m128i shift = _mm_cvtsi32_si128(w->shift);
    size_t x = 0;
    for (; x + 16 <= bytes; x += 16) {
        __m256i low0 = round, low1 = round, high0 = _mm256_setzero_si256(), high1 = high0;
        for (uint32_t j = 0; j < count; j += 2) {
            bool pair = j + 1 < count;
            int32_t k0 = k[j], k1 = pair ? k[j + 1] : 0;
            __m256i kl = _mm256_set1_epi32((k0 & 0x7fff) | (k1 & 0x7fff) << 16), kh = _mm256_set1_epi32(k0 >> 15 | k1 >> 15 << 16);
            __m128i a = _mm_loadu_si128((const __m128i *)(const void *)(rows[j] + x));
            __m128i b = pair ? _mm_loadu_si128((const __m128i *)(const void *)(rows[j + 1] + x)) : a;
            __m256i first = _mm256_cvtepu8_epi16(_mm_unpacklo_epi8(a, b)), second = _mm256_cvtepu8_epi16(_mm_unpackhi_epi8(a, b));
            low0 = _mm256_add_epi32(low0, _mm256_madd_epi16(first, kl));
            low1 = _mm256_add_epi32(low1, _mm256_madd_epi16(second, kl));
            high0 = _mm256_add_epi32(high0, _mm256_madd_epi16(first, kh));
            high1 = _mm256_add_epi32(high1, _mm256_madd_epi16(second, kh));
        }
        __m256i s0 = _mm256_sra_epi32(_mm256_add_epi32(low0, _mm256_slli_epi32(high0, 15)), shift);
        __m256i s1 = _mm256_sra_epi32(_mm256_add_epi32(low1, _mm256_slli_epi32(high1, 15)), shift);
        /* packs works within 128-bit halves: 0..3 8..11 | 4..7 12..15, put back in order */
        __m256i words = _mm256_permute4x64_epi64(_mm256_packs_epi32(s0, s1), _MM_SHUFFLE(3, 1, 2, 0));
        __m128i result = _mm_packus_epi16(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
        _mm_storeu_si128((__m128i *)(void *)(out + x), result);
    }
    down_from(w, i, rows, x, bytes, out);
}

static const rv_resize_kernels avx2 = { across_avx2, down_avx2 };

const rv_resize_kernels *rv_resize_fastest(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") ? &avx2 : &rv_resize_plain;
}
#else
const rv_resize_kernels *rv_resize_fastest(void) { return &rv_resize_plain; }
#endif
