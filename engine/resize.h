/* resize.h - the resize that image.c builds on: one finished row at a time. */
#ifndef RV_ENGINE_RESIZE_H
#define RV_ENGINE_RESIZE_H
#include "engine/base/status.h"

/* Receives rows 0, 1, 2 .. of the result: width * 3 bytes, valid during the call. */
typedef void rv_row_fn(void *user, uint32_t y, const uint8_t *row);

/* Memory is a few rows, whatever the sizes; all edges must be 1 to RV_IMAGE_MAX_EDGE. */
rv_status rv_resize_rows(const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t new_width, uint32_t new_height,
                         rv_resize how, rv_row_fn *row, void *user, rv_error *err);

/* The weights of one pass.  Result i is
 *     clip8((round + sum over j < count[i] of sample[first[i] + j] * k[i * stride + j]) >> shift)
 * with round = 1 << (shift - 1); k is zero from count[i] on.  stride is a multiple of 4. */
typedef struct rv_weights {
    uint32_t  in, out, stride, max_count;
    int       shift;
    uint32_t *first, *count;
    int32_t  *k;
    int16_t  *k16;           /* k as the SIMD kernels read it: see resize_kernels.c */
} rv_weights;

/* resize_kernels.c.  Any implementation gives the same bytes. */
enum { RV_ROW_PADDING = 32 };        /* bytes that may be written behind a row made by `across` */
typedef struct rv_resize_kernels {
    /* One row of RGB: `readable` bytes may be read from `row` on (at least in * 3). */
    void (*across)(const rv_weights *w, const uint8_t *row, size_t readable, uint8_t *out);
    /* Result row i from count[i] rows of `bytes` bytes. */
    void (*down)(const rv_weights *w, uint32_t i, const uint8_t *const *rows, size_t bytes, uint8_t *out);
} rv_resize_kernels;
/* rv_resize_rows with kernels of one's choice, for tests and benches. */
rv_status rv_resize_rows_with(const rv_resize_kernels *kernels, const uint8_t *rgb, uint32_t width, uint32_t height,
                              uint32_t new_width, uint32_t new_height, rv_resize how, rv_row_fn *row, void *user,
                              rv_error *err);
extern const rv_resize_kernels rv_resize_plain;
const rv_resize_kernels *rv_resize_fastest(void);   /* what this CPU runs */
enum { RV_GROUP_TAPS = 4, RV_GROUP_WORDS = 32 };    /* k16: a group of 4 taps is 32 words */
#endif
