/* resize.c - bilinear with antialias in the reference's fixed point.
 *
 * The one idea: Pillow and torchvision agree on geometry and weights (computed in doubles) and differ only
 * in how weights become integers.  Both go across first, to 8 bit, then down.  Rows are made when the
 * result needs them and kept in a ring, so that a 65500-pixel image needs no large buffer between the passes.
 * Pillow 13 goes down first where height shrinks much more than width: some samples of tall pages differ by one level.
 * Source: spec mllama.md 3.4 and 3.5; Pillow Resample.c, torch UpSampleKernelAVXAntialias.h.
 */
#include "engine/resize.h"

#include <stdlib.h>
#include <string.h>

#include "engine/image.h"

enum { PIL_SHIFT = 22, TV_MAX_SHIFT = 22, TV_LIMIT = 1 << 15 };

static void weights_free(rv_weights *w) {
    free(w->first);
    free(w->count);
    free(w->k);
    free(w->k16);
    *w = (rv_weights){ 0 };              /* who failed to make them and who closes both free     */
}

static double triangle(double t) {
    if (t < 0) t = -t;
    return t < 1.0 ? 1.0 - t : 0.0;
}

/* Window and normalised weights of result i; returns the largest weight. `weights` holds max_count. */
static double window_of(rv_weights *w, uint32_t i, double *weights) {
    double scale = (double)w->in / w->out, support = scale < 1.0 ? 1.0 : scale, inverse = 1.0 / support;
    double center = (i + 0.5) * scale, sum = 0.0, largest = 0.0;
    int64_t first = (int64_t)(center - support + 0.5), end = (int64_t)(center + support + 0.5);
    if (first < 0) first = 0;
    if (end > w->in) end = w->in;
    uint32_t count = (uint32_t)(end - first);
    for (uint32_t j = 0; j < count; j++) {
        weights[j] = triangle(((double)(j + first) - center + 0.5) * inverse);
        sum += weights[j];
    }
    for (uint32_t j = 0; j < count; j++) {
        if (sum != 0.0) weights[j] /= sum;
        if (weights[j] > largest) largest = weights[j];
    }
    w->first[i] = (uint32_t)first;
    w->count[i] = count;
    return largest;
}

/* torchvision: as many bits as keep the largest weight of the pass below 2^15. */
static int tv_shift(double largest) {
    int shift = 0;
    while (shift < TV_MAX_SHIFT && (int)(0.5 + largest * (1 << (shift + 1))) < TV_LIMIT) shift++;
    return shift;
}

/* The kernels multiply 16-bit words: k = low + (high << 15).  A group of 4 taps lies as they read it: (k0, k1)
 * four times, (k2, k3) four times for the low parts, then the same for the high parts. */
static void split_words(rv_weights *w) {
    uint32_t groups = w->stride / RV_GROUP_TAPS;
    for (uint32_t g = 0; g < w->out * groups; g++) {
        const int32_t *k = w->k + (size_t)g * RV_GROUP_TAPS;
        int16_t *to = w->k16 + (size_t)g * RV_GROUP_WORDS;
        for (uint32_t i = 0; i < 16; i++) {
            int32_t tap = k[(i / 8) * 2 + i % 2];
            to[i] = (int16_t)(tap & 0x7fff);
            to[16 + i] = (int16_t)(tap >> 15);
        }
    }
}

static rv_status weights_make(uint32_t in, uint32_t out, rv_resize how, rv_weights *w, rv_error *err) {
    double scale = (double)in / out, support = scale < 1.0 ? 1.0 : scale, largest = 0.0;
    rv_status st = RV_OK;
    *w = (rv_weights){ .in = in, .out = out };
    w->max_count = (uint32_t)support * 2 + 3;                    /* a window is at most 2 * support + 1 */
    w->stride = (w->max_count + RV_GROUP_TAPS - 1) / RV_GROUP_TAPS * RV_GROUP_TAPS;
    double *weights = malloc(w->max_count * sizeof *weights);
    w->first = calloc(out, sizeof *w->first);
    w->count = calloc(out, sizeof *w->count);
    if (!weights || !w->first || !w->count) { st = rv_fail_memory(err, "resize"); goto done; }
    w->max_count = 0;
    for (uint32_t i = 0; i < out; i++) {
        double l = window_of(w, i, weights);
        if (l > largest) largest = l;
        if (w->count[i] > w->max_count) w->max_count = w->count[i];
    }
    w->stride = (w->max_count + RV_GROUP_TAPS - 1) / RV_GROUP_TAPS * RV_GROUP_TAPS;
    w->shift = how == RV_RESIZE_TV ? tv_shift(largest) : PIL_SHIFT;
    w->k = calloc((size_t)out * w->stride, sizeof *w->k);
    w->k16 = malloc((size_t)out * w->stride / RV_GROUP_TAPS * RV_GROUP_WORDS * sizeof *w->k16);
    if (!w->k || !w->k16) { st = rv_fail_memory(err, "resize"); goto done; }
    for (uint32_t i = 0; i < out; i++) {
        window_of(w, i, weights);
        for (uint32_t j = 0; j < w->count[i]; j++)
            w->k[(size_t)i * w->stride + j] = (int32_t)(weights[j] * (1 << w->shift) + 0.5);
    }
    split_words(w);
done:
    free(weights);
    if (st) weights_free(w);
    return st;
}

/* ---- the two passes -------------------------------------------------------------------- */

typedef struct resizer {
    const rv_resize_kernels *kernels;
    const uint8_t *rgb;
    size_t         stride, new_stride, bytes;    /* a source row, a result row, the whole source */
    bool           across, down;                 /* passes that change something                 */
    rv_weights     x, y;
    uint32_t       ready, slots;                 /* source rows below `ready` have been made      */
    size_t         slot_bytes;
    uint8_t       *ring, *row;
    const uint8_t **window;
} resizer;

/* Source row r after the pass across. */
static const uint8_t *row_across(resizer *s, uint32_t r) {
    if (!s->across) return s->rgb + r * s->stride;
    return s->ring + r % s->slots * s->slot_bytes;
}

static void make_rows(resizer *s, uint32_t first, uint32_t end) {
    if (!s->across) return;
    for (uint32_t r = s->ready > first ? s->ready : first; r < end; r++) {
        size_t at = r * s->stride;
        s->kernels->across(&s->x, s->rgb + at, s->bytes - at, s->ring + r % s->slots * s->slot_bytes);
    }
    if (end > s->ready) s->ready = end;
}

static rv_status resizer_open(resizer *s, uint32_t width, uint32_t height, uint32_t new_width, uint32_t new_height,
                              rv_resize how, rv_error *err) {
    rv_status st = RV_OK;
    s->stride = (size_t)width * 3;
    s->new_stride = (size_t)new_width * 3;
    s->bytes = s->stride * height;
    s->across = width != new_width;
    s->down = height != new_height;
    s->slots = 1;
    if (s->across) TRY(weights_make(width, new_width, how, &s->x, err));
    if (s->down) {
        TRY(weights_make(height, new_height, how, &s->y, err));
        s->slots = s->y.max_count;
    }
    s->slot_bytes = s->new_stride + RV_ROW_PADDING;
    s->ring = malloc(s->across ? s->slot_bytes * s->slots : 1);
    s->row = malloc(s->slot_bytes);
    s->window = calloc(s->slots, sizeof *s->window);
    if (!s->ring || !s->row || !s->window) st = rv_fail_memory(err, "resize");
done:
    return st;
}

static void resizer_close(resizer *s) {
    weights_free(&s->x);
    weights_free(&s->y);
    free(s->ring);
    free(s->row);
    free(s->window);
}

static bool edge_ok(uint32_t edge) { return edge >= 1 && edge <= RV_IMAGE_MAX_EDGE; }

rv_status rv_resize_rows_with(const rv_resize_kernels *kernels, const uint8_t *rgb, uint32_t width, uint32_t height,
                              uint32_t new_width, uint32_t new_height, rv_resize how, rv_row_fn *row, void *user,
                              rv_error *err) {
    if (!rgb || !edge_ok(width) || !edge_ok(height) || !edge_ok(new_width) || !edge_ok(new_height))
        return rv_fail(err, RV_ERR_ARGUMENT, "resize: %ux%u to %ux%u: edges must be 1 to %d pixels", width, height,
                       new_width, new_height, RV_IMAGE_MAX_EDGE);
    if (how != RV_RESIZE_PIL && how != RV_RESIZE_TV)
        return rv_fail(err, RV_ERR_ARGUMENT, "resize: unknown arithmetic %d: use RV_RESIZE_PIL or RV_RESIZE_TV", how);
    resizer s = { .kernels = kernels, .rgb = rgb };
    rv_status st = resizer_open(&s, width, height, new_width, new_height, how, err);
    for (uint32_t y = 0; !st && y < new_height; y++) {
        uint32_t first = s.down ? s.y.first[y] : y, count = s.down ? s.y.count[y] : 1;
        make_rows(&s, first, first + count);
        const uint8_t *out = row_across(&s, first);
        if (s.down) {
            for (uint32_t j = 0; j < count; j++) s.window[j] = row_across(&s, first + j);
            kernels->down(&s.y, y, s.window, s.new_stride, s.row);
            out = s.row;
        }
        row(user, y, out);
    }
    resizer_close(&s);
    return st;
}

rv_status rv_resize_rows(const uint8_t *rgb, uint32_t width, uint32_t height, uint32_t new_width, uint32_t new_height,
                         rv_resize how, rv_row_fn *row, void *user, rv_error *err) {
    return rv_resize_rows_with(rv_resize_fastest(), rgb, width, height, new_width, new_height, how, row, user, err);
}

typedef struct copy { uint8_t *out; size_t bytes; } copy;

static void copy_row(void *user, uint32_t y, const uint8_t *row) {
    copy *c = user;
    memcpy(c->out + y * c->bytes, row, c->bytes);
}

rv_status rv_resize_rgb(const uint8_t *rgb, uint32_t width, uint32_t height, uint8_t *out, uint32_t new_width,
                        uint32_t new_height, rv_resize how, rv_error *err) {
    copy c = { out, (size_t)new_width * 3 };
    if (!out) return rv_fail(err, RV_ERR_ARGUMENT, "resize: no room for the result: out is NULL");
    return rv_resize_rows(rgb, width, height, new_width, new_height, how, copy_row, &c, err);
}
