/* similar.h - how alike two texts are. */
#ifndef RV_EXTRACT_SIMILAR_H
#define RV_EXTRACT_SIMILAR_H
#include <stddef.h>
#include <stdint.h>

/* Levenshtein's distance in code points (bytes that are no UTF-8 count as one each).  SIZE_MAX: out of memory. */
size_t rv_edit_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes);

/* 1 - distance / length of the longer text; two empty texts: 1.  Negative: out of memory. */
double rv_similarity(const char *a, const char *b);

/* The one of `words` that `text` most likely meant, or NULL: what "did you mean" offers. */
const char *rv_nearest(const char *text, const char *const *words, size_t n);
#endif
