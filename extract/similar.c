/* similar.c - edit distance: see similar.h. */
#include "extract/similar.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

static size_t decode(const char *text, size_t bytes, uint32_t *out) {
    size_t n = 0;
    for (size_t at = 0; at < bytes; n++) {
        size_t width = rv_utf8_read(text + at, bytes - at, &out[n]);
        if (width == 0) out[n] = 0x110000u + (uint8_t)text[at], width = 1;
        at += width;
    }
    return n;
}

/* One row of the table, kept in place: row[j] is the distance of a's first i points from b's first j. */
static size_t distance(const uint32_t *a, size_t n, const uint32_t *b, size_t m, uint32_t *row) {
    for (size_t j = 0; j <= m; j++) row[j] = (uint32_t)j;
    for (size_t i = 1; i <= n; i++) {
        uint32_t diagonal = row[0];
        row[0] = (uint32_t)i;
        for (size_t j = 1; j <= m; j++) {
            uint32_t best = diagonal + (a[i - 1] != b[j - 1]);
            if (row[j] + 1 < best) best = row[j] + 1;
            if (row[j - 1] + 1 < best) best = row[j - 1] + 1;
            diagonal = row[j];
            row[j] = best;
        }
    }
    return row[m];
}

size_t rv_edit_distance(const char *a, size_t a_bytes, const char *b, size_t b_bytes) {
    uint32_t *memory = malloc((a_bytes + 2 * b_bytes + 1) * sizeof *memory);
    if (!memory) return SIZE_MAX;
    uint32_t *b_points = memory + a_bytes, *row = b_points + b_bytes;
    size_t n = decode(a, a_bytes, memory), m = decode(b, b_bytes, b_points);
    size_t result = distance(memory, n, b_points, m, row);
    free(memory);
    return result;
}

static size_t points(const char *text) {
    size_t n = 0;
    uint32_t code;
    for (size_t bytes = strlen(text); bytes; n++) {
        size_t width = rv_utf8_read(text, bytes, &code);
        text += width ? width : 1;
        bytes -= width ? width : 1;
    }
    return n;
}

double rv_similarity(const char *a, const char *b) {
    size_t n = points(a), m = points(b), longest = n > m ? n : m;
    if (longest == 0) return 1;
    size_t d = rv_edit_distance(a, strlen(a), b, strlen(b));
    return d == SIZE_MAX ? -1 : 1 - (double)d / (double)longest;
}

const char *rv_nearest(const char *text, const char *const *words, size_t n) {
    size_t length = strlen(text), least = length / 3 + 1;      /* further off is no likely slip */
    const char *best = NULL;
    if (length == 0 || length > 64) return NULL;
    for (size_t i = 0; i < n; i++) {
        size_t d = rv_edit_distance(text, length, words[i], strlen(words[i]));
        if (d <= least && (!best || d < least)) least = d, best = words[i];
    }
    return best;
}
