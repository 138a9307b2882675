/* quant.h - bitsandbytes' two weight formats, exactly: row-wise int8 (LLM.int8) and 4 bit in blocks of 64.
 *
 * The one idea: quantised numbers are a contract with somebody else's library, so their rules stand here once, as
 * plain loops; every backend's kernels, the checkpoint reader and the checkpoint writer are tested against them.
 * Source: spec quantisation.md, sections 1.1 to 1.5 and 2.1 to 2.5.
 *
 * Where bitsandbytes divides approximately (its CUDA build's reciprocals are a unit in the last place off) this divides
 * exactly, so that every device makes the same codes: an int8 code may differ by one where weight * 127 / absmax lies
 * within 2^-22 of a half, a 4-bit code where weight / absmax lies as near to a threshold.
 *
 * Threads: any; nothing here keeps state.
 */
#ifndef RV_BASE_QUANT_H
#define RV_BASE_QUANT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "engine/base/dtype.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef enum { RV_FORMAT_PLAIN /* 16 bit or f32 */, RV_FORMAT_INT8, RV_FORMAT_NF4, RV_FORMAT_FP4, RV_FORMATS } rv_format;

enum { RV_BLOCK4 = 64,           /* weights that share an absmax (4 bit)                       */
       RV_NESTED_BLOCK = 256 };  /* absmaxes that share theirs                                 */

/* A matrix [rows x cols] as a checkpoint holds it quantised. Pointers belong to who filled it in; alignment: none promised.
 *   INT8   codes int8 [rows x cols]; scale f32 [rows]: the row's absmax (SCB), w = code * scale / 127
 *   4 bit  codes u8 [rows * cols / 2], the even element in the high nibble; blocks of RV_BLOCK4 along the whole matrix;
 *          w = map[code] * absmax, and absmax is either scale f32 [blocks] or, nested,
 *          nested_map[nested[block]] * nested_scale[block / RV_NESTED_BLOCK] + offset, rounded after each step. */
typedef struct rv_codes {
    rv_format      format;       /* never PLAIN                                                */
    const void    *codes;
    const void    *scale;        /* f32; NULL where nested                                     */
    const uint8_t *nested;       /* [blocks], or NULL                                          */
    const void    *nested_scale; /* f32 [blocks / RV_NESTED_BLOCK, rounded up]                 */
    float          offset;
    float          map[16];      /* 4 bit                                                      */
    float          nested_map[256];
} rv_codes;

extern const float rv_nf4_map[16];
extern const float rv_nf4_threshold[15];     /* code = how many of them a value exceeds            */
extern const float rv_nested_map[256];       /* the signed dynamic code                            */

/* Whether n weights hold neither NaN nor infinity, which have no code in any format. */
bool rv_all_finite(const void *w, rv_dtype type, int64_t n);
const char *rv_format_name(rv_format format);            /* "int8"; PLAIN: "16bit"                 */
/* Bytes of codes and of all scales; rows * cols is a multiple of RV_BLOCK4 where 4 bit. */
uint64_t rv_codes_bytes(rv_format format, bool nested, int64_t rows, int64_t cols);

/* ---- int8 ---- */

/* The constant that y8 is multiplied with (f32 nearest to 1/127^2), and that of a weight alone (1/127). */
#define RV_INT8_BOTH 6.2000123e-05f      /* bits 0x38820610 */
#define RV_INT8_ONE  7.8740157e-03f      /* bits 0x3c010204 */

/* One row of n weights, rounded to f16 first (beyond +-65504: infinite, as the cast does). Returns SCB. A zero row: codes 0. */
float rv_int8_weights(int8_t *codes, const void *row, rv_dtype type, int64_t n);
/* One row of activations, already rounded to f16 (as f32 values): returns SCA, the largest |x| below `threshold` (0: of all).
 * Codes of elements at or beyond it are 0, as are those of NaN. */
float rv_int8_activations(int8_t *codes, const float *x, int64_t n, float threshold);
/* y8 before its rounding to f16. */
float rv_int8_scaled(int32_t sum, float sca, float scb);

/* ---- 4 bit ---- */

/* n weights (a multiple of RV_BLOCK4) to NF4: codes [n / 2], absmax f32 [n / RV_BLOCK4]. */
void rv_nf4_quantise(uint8_t *codes, float *absmax, const void *w, rv_dtype type, int64_t n);
/* The absmaxes of a whole tensor: nested [n], nested_scale f32 [n / RV_NESTED_BLOCK, rounded up]. Returns the offset: the mean,
 * added up in f64, runs of RV_NESTED_BLOCK first, then those in order. */
float rv_nested_quantise(uint8_t *nested, float *nested_scale, const float *absmax, int64_t n);
float rv_codes_absmax(const rv_codes *q, int64_t block);
/* Weights [from, from + n) of the matrix [.. x cols], not yet rounded to a 16-bit type; any format. */
void rv_codes_read(float *out, const rv_codes *q, int64_t cols, int64_t from, int64_t n);

#ifdef __cplusplus
}
#endif
#endif
