/* grey.c - grey pages: paper and print block by block, the height of letters, scaling. */
#include "engine/grey.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TRY_NEW(p, n) TRY(((p) = calloc((n) + 1, sizeof *(p))) ? RV_OK : rv_fail_memory(err, "grey page"))

void rv_grey_free(rv_grey *g) {
    free(g->at);
    *g = (rv_grey){ 0 };
}

static rv_status make(rv_grey *g, uint32_t width, uint32_t height, rv_error *err) {
    *g = (rv_grey){ malloc((size_t)width * height), width, height };
    return g->at ? RV_OK : rv_fail_memory(err, "grey page");
}

rv_status rv_grey_of(const rv_pixels *p, uint32_t shrink, rv_grey *out, rv_error *err) {
    const uint32_t width = p->width / shrink ? p->width / shrink : 1, height = p->height / shrink ? p->height / shrink : 1;
    rv_status st = make(out, width, height, err);
    if (st) return st;
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++) {
            uint32_t sum = 0, n = 0;
            for (uint32_t j = y * shrink; j < (y + 1) * shrink && j < p->height; j++)
                for (uint32_t i = x * shrink; i < (x + 1) * shrink && i < p->width; i++, n++) {
                    const uint8_t *c = p->rgb + ((size_t)j * p->width + i) * 3;
                    sum += 299u * c[0] + 587u * c[1] + 114u * c[2];
                }
            out->at[(size_t)y * width + x] = (uint8_t)((sum + 500 * n) / (1000 * n));
        }
    return RV_OK;
}

/* ---- paper and print ---- */

enum { BLOCKS = 40, LEAST_BLOCK = 8, LEAST_CONTRAST = 40, PAPER_AROUND = 2, PRINT_AROUND = 3, UNKNOWN = -1 };

/* One value a block: how light its paper is, and by how much its print is darker. */
typedef struct blocks { uint32_t edge, across, down; float *paper, *contrast, *spare; } blocks;

static float at_share(const uint32_t counts[256], uint32_t n, float share) {
    uint32_t below = 0, wanted = (uint32_t)((float)(n - 1) * share);
    for (int v = 0; v < 256; v++)
        if ((below += counts[v]) > wanted) return (float)v;
    return 255;
}

/* Paper is what nine of ten pixels do not exceed; print the darkest fiftieth. */
static void measure(const rv_grey *g, blocks *b) {
    for (uint32_t by = 0; by < b->down; by++)
        for (uint32_t bx = 0; bx < b->across; bx++) {
            uint32_t counts[256] = { 0 }, n = 0;
            for (uint32_t y = by * b->edge; y < (by + 1) * b->edge && y < g->height; y++)
                for (uint32_t x = bx * b->edge; x < (bx + 1) * b->edge && x < g->width; x++, n++) counts[g->at[(size_t)y * g->width + x]]++;
            b->paper[by * b->across + bx] = at_share(counts, n, 0.9f);
            b->contrast[by * b->across + bx] = b->paper[by * b->across + bx] - at_share(counts, n, 0.02f);
        }
}

static int by_value(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

typedef float window_fn(float *values, uint32_t n);
static float middle(float *values, uint32_t n) { return qsort(values, n, sizeof *values, by_value), values[n / 2]; }
static float most(float *values, uint32_t n) {
    float best = values[0];
    for (uint32_t i = 1; i < n; i++) best = values[i] > best ? values[i] : best;
    return best;
}
static float mean(float *values, uint32_t n) {
    float sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += values[i];
    return sum / (float)n;
}

/* Every block becomes `of` what is known of the blocks at most `around` away. */
static void over_windows(blocks *b, float *values, int around, window_fn *of) {
    float window[(2 * PRINT_AROUND + 1) * (2 * PRINT_AROUND + 1)];
    for (int y = 0; y < (int)b->down; y++)
        for (int x = 0; x < (int)b->across; x++) {
            uint32_t n = 0;
            for (int j = y - around; j <= y + around; j++)
                for (int i = x - around; i <= x + around; i++)
                    if (j >= 0 && i >= 0 && j < (int)b->down && i < (int)b->across && values[j * (int)b->across + i] >= 0) window[n++] = values[j * (int)b->across + i];
            b->spare[y * (int)b->across + x] = n ? of(window, n) : UNKNOWN;
        }
    memcpy(values, b->spare, (size_t)b->across * b->down * sizeof *values);
}

/* What is known, in order, at that many tenths; 0: nothing is. */
static float at_tenth(blocks *b, const float *values, size_t tenths) {
    size_t n = 0;
    for (size_t i = 0; i < (size_t)b->across * b->down; i++)
        if (values[i] >= 0) b->spare[n++] = values[i];
    qsort(b->spare, n, sizeof *b->spare, by_value);
    return n ? b->spare[(n - 1) * tenths / 10] : 0;
}

static void fill_unknown(blocks *b, float *values) {
    const float usual = at_tenth(b, values, 5);
    for (size_t i = 0; i < (size_t)b->across * b->down; i++)
        if (values[i] < 0) values[i] = usual;
}

/* What lies under a page that a scanner has seen whole says nothing about paper, nor do blocks at its edge about print. */
static void forget_floor(blocks *b) {
    const float dark = at_tenth(b, b->paper, 8) / 2;
    for (int y = 0; y < (int)b->down; y++)
        for (int x = 0; x < (int)b->across; x++)
            for (int j = y - 1; j <= y + 1; j++)
                for (int i = x - 1; i <= x + 1; i++)
                    if (j >= 0 && i >= 0 && j < (int)b->down && i < (int)b->across && b->paper[j * (int)b->across + i] < dark) b->contrast[y * (int)b->across + x] = UNKNOWN;
    for (size_t i = 0; i < (size_t)b->across * b->down; i++)
        if (b->paper[i] < dark) b->paper[i] = UNKNOWN;
}

/* Between the middles of blocks straight lines. */
typedef struct between { uint32_t low, high; float share; } between;

static between between_blocks(uint32_t pixel, uint32_t edge, uint32_t n) {
    float at = ((float)pixel + 0.5f) / (float)edge - 0.5f;
    at = at < 0 ? 0 : at > (float)(n - 1) ? (float)(n - 1) : at;
    const uint32_t low = (uint32_t)at;
    return (between){ low, low + 1 < n ? low + 1 : low, at - (float)low };
}

static void stretch(const rv_grey *in, const blocks *b, const between *columns, rv_grey *out) {
    for (uint32_t y = 0; y < in->height; y++) {
        const between row = between_blocks(y, b->edge, b->down);
        float *paper = b->spare, *contrast = b->spare + b->across;       /* of this row, block by block */
        for (uint32_t i = 0; i < b->across; i++) {
            const uint32_t low = row.low * b->across + i, high = row.high * b->across + i;
            paper[i] = b->paper[low] + (b->paper[high] - b->paper[low]) * row.share;
            contrast[i] = b->contrast[low] + (b->contrast[high] - b->contrast[low]) * row.share;
        }
        for (uint32_t x = 0; x < in->width; x++) {
            const between c = columns[x];
            const float white = paper[c.low] + (paper[c.high] - paper[c.low]) * c.share, range = contrast[c.low] + (contrast[c.high] - contrast[c.low]) * c.share;
            const float v = 255 - (white - (float)in->at[(size_t)y * in->width + x]) / (range > LEAST_CONTRAST ? range : LEAST_CONTRAST) * 255;
            out->at[(size_t)y * in->width + x] = (uint8_t)(v < 0 ? 0 : v > 255 ? 255 : v);
        }
    }
}

rv_status rv_grey_flatten(const rv_grey *in, rv_grey *out, rv_error *err) {
    const uint32_t shorter = in->width < in->height ? in->width : in->height, edge = shorter / BLOCKS > LEAST_BLOCK ? shorter / BLOCKS : LEAST_BLOCK;
    blocks b = { .edge = edge, .across = (in->width + edge - 1) / edge, .down = (in->height + edge - 1) / edge };
    const size_t n = (size_t)b.across * b.down;
    between *columns = NULL;
    rv_status st = make(out, in->width, in->height, err);
    if (st) return st;
    TRY_NEW(b.paper, n);
    TRY_NEW(b.contrast, n);
    TRY_NEW(b.spare, n > 2 * (size_t)b.across ? n : 2 * (size_t)b.across);
    TRY_NEW(columns, in->width);
    measure(in, &b);
    forget_floor(&b);
    over_windows(&b, b.paper, PAPER_AROUND, middle);
    fill_unknown(&b, b.paper);
    for (int i = 0; i < 3; i++) over_windows(&b, b.paper, 1, mean);
    over_windows(&b, b.contrast, PRINT_AROUND, most);
    fill_unknown(&b, b.contrast);
    for (int i = 0; i < 2; i++) over_windows(&b, b.contrast, PAPER_AROUND, mean);
    for (uint32_t x = 0; x < in->width; x++) columns[x] = between_blocks(x, edge, b.across);
    stretch(in, &b, columns, out);
done:
    free(b.paper);
    free(b.contrast);
    free(b.spare);
    free(columns);
    if (st) rv_grey_free(out);
    return st;
}

/* ---- letters ---- */

enum { INK = 128, TALLEST = 512, LEAST_LETTERS = 20, LEAST_HEIGHT = 5, LEAST_WIDTH = 2 };

/* A stretch of ink in a row, and the mark that it is part of. */
typedef struct run { uint32_t from, to, row, parent; } run;

static uint32_t root(run *runs, uint32_t i) {
    while (runs[i].parent != i) i = runs[i].parent = runs[runs[i].parent].parent;
    return i;
}

static uint32_t find_runs(const rv_grey *g, run *runs) {
    uint32_t n = 0;
    for (uint32_t y = 0; y < g->height; y++)
        for (uint32_t x = 0; x < g->width; x++) {
            const uint8_t *row = g->at + (size_t)y * g->width;
            if (row[x] >= INK) continue;
            const uint32_t from = x;
            while (x < g->width && row[x] < INK) x++;
            if (runs) runs[n] = (run){ from, x, y, n };
            n++;
        }
    return n;
}

/* Runs of neighbouring rows that touch belong to one mark. */
static void join(run *runs, uint32_t n) {
    uint32_t above = 0;
    for (uint32_t i = 0; i < n; i++) {
        while (above < i && (runs[above].row + 1 < runs[i].row || (runs[above].row + 1 == runs[i].row && runs[above].to <= runs[i].from))) above++;
        for (uint32_t k = above; k < i && runs[k].row + 1 == runs[i].row && runs[k].from < runs[i].to; k++) {
            uint32_t a = root(runs, k), b = root(runs, i);
            runs[a > b ? a : b].parent = a > b ? b : a;
        }
    }
}

rv_status rv_grey_letters(const rv_grey *flat, float *height, rv_error *err) {
    const uint32_t n = find_runs(flat, NULL), tallest = flat->height / 10 < TALLEST ? flat->height / 10 : TALLEST - 1;
    uint32_t counts[TALLEST] = { 0 }, letters = 0, below = 0;
    run *runs = NULL;
    rv_grey_part *marks = NULL;
    rv_status st = RV_OK;
    *height = 0;
    TRY_NEW(runs, n);
    TRY_NEW(marks, n);
    find_runs(flat, runs);
    join(runs, n);
    for (uint32_t i = 0; i < n; i++) {                           /* a mark's first run is its root: x, y, right and bottom edge */
        rv_grey_part *m = &marks[root(runs, i)];
        if (runs[i].parent == i) *m = (rv_grey_part){ (float)runs[i].from, (float)runs[i].row, (float)runs[i].to, (float)runs[i].row + 1 };
        m->x = (float)runs[i].from < m->x ? (float)runs[i].from : m->x;
        m->width = (float)runs[i].to > m->width ? (float)runs[i].to : m->width;
        m->height = (float)runs[i].row + 1;
    }
    for (uint32_t i = 0; i < n; i++) {
        if (runs[i].parent != i) continue;
        const float w = marks[i].width - marks[i].x, h = marks[i].height - marks[i].y;
        if (h < LEAST_HEIGHT || w < LEAST_WIDTH || w >= 4 * h || h >= (float)tallest) continue;
        counts[(uint32_t)h]++;
        letters++;
    }
    for (uint32_t h = 0; h < TALLEST && letters >= LEAST_LETTERS && *height == 0; h++)
        if ((below += counts[h]) * 4 >= letters * 3) *height = (float)h;
done:
    free(runs);
    free(marks);
    return st;
}

/* ---- scaling ---- */

/* The tent of one pixel of the result: weights of the samples from `first` on. */
typedef struct tent { int32_t first; uint32_t n; float *weights; } tent;

static rv_status make_tents(float from, uint32_t n, float scale, float blur, tent **out, float **weights, rv_error *err) {
    const float reach = blur / scale > 1 ? blur / scale : 1;
    const uint32_t most = (uint32_t)(2 * reach) + 3;
    rv_status st = RV_OK;
    TRY_NEW(*out, n);
    TRY_NEW(*weights, (size_t)n * most);
    for (uint32_t i = 0; i < n; i++) {
        const float centre = from + ((float)i + 0.5f) / scale;
        tent *t = &(*out)[i];
        float sum = 0;
        *t = (tent){ (int32_t)floorf(centre - reach), 0, *weights + (size_t)i * most };
        for (int32_t at = t->first; (float)at < centre + reach && t->n < most; at++) {
            const float far = fabsf((float)at + 0.5f - centre) / reach;
            sum += t->weights[t->n++] = far < 1 ? 1 - far : 0;
        }
        for (uint32_t k = 0; k < t->n; k++) t->weights[k] /= sum;
    }
done:
    return st;
}

static uint32_t inside(int32_t at, uint32_t n) { return at < 0 ? 0 : (uint32_t)at >= n ? n - 1 : (uint32_t)at; }

static void across(const rv_grey *in, int32_t row, const tent *columns, uint32_t width, float *out) {
    const uint8_t *from = in->at + (size_t)inside(row, in->height) * in->width;
    for (uint32_t x = 0; x < width; x++) {
        const tent *t = &columns[x];
        float sum = 0;
        if (t->first >= 0 && t->first + (int32_t)t->n <= (int32_t)in->width)
            for (uint32_t k = 0; k < t->n; k++) sum += t->weights[k] * (float)from[(uint32_t)t->first + k];
        else
            for (uint32_t k = 0; k < t->n; k++) sum += t->weights[k] * (float)from[inside(t->first + (int32_t)k, in->width)];
        out[x] = sum;
    }
}

static void add_border(rv_grey *g, uint32_t border) {
    uint32_t counts[256] = { 0 };
    for (uint32_t y = border; y < g->height - border; y++)
        for (uint32_t x = border; x < g->width - border; x++) counts[g->at[(size_t)y * g->width + x]]++;
    const uint8_t paper = (uint8_t)at_share(counts, (g->width - 2 * border) * (g->height - 2 * border), 0.9f);
    for (uint32_t y = 0; y < g->height; y++)
        for (uint32_t x = 0; x < g->width; x++)
            if (y < border || x < border || y >= g->height - border || x >= g->width - border) g->at[(size_t)y * g->width + x] = paper;
}

rv_status rv_grey_scaled(const rv_grey *in, const rv_grey_part *part, float scale, float blur, uint32_t border, rv_grey *out, rv_error *err) {
    const uint32_t width = part->width * scale < 1 ? 1 : (uint32_t)lroundf(part->width * scale), height = part->height * scale < 1 ? 1 : (uint32_t)lroundf(part->height * scale);
    tent *columns = NULL, *rows = NULL;
    float *column_weights = NULL, *row_weights = NULL, *made = NULL;
    uint32_t deepest = 1;
    int32_t next;
    rv_status st = make(out, width + 2 * border, height + 2 * border, err);
    if (st) return st;
    TRY(make_tents(part->x, width, scale, blur, &columns, &column_weights, err));
    TRY(make_tents(part->y, height, scale, blur, &rows, &row_weights, err));
    for (uint32_t y = 0; y < height; y++) deepest = rows[y].n > deepest ? rows[y].n : deepest;
    TRY_NEW(made, (size_t)width * deepest);                      /* a ring of rows that are scaled across */
    next = rows[0].first;
    for (uint32_t y = 0; y < height; y++) {
        const tent *t = &rows[y];
        uint8_t *to = out->at + (size_t)(y + border) * out->width + border;
        next = next < t->first ? t->first : next;
        for (; next < t->first + (int32_t)t->n; next++) across(in, next, columns, width, made + (size_t)((uint32_t)(next - rows[0].first) % deepest) * width);
        for (uint32_t x = 0; x < width; x++) {
            float sum = 0;
            for (uint32_t k = 0; k < t->n; k++) sum += t->weights[k] * made[(size_t)(((uint32_t)(t->first - rows[0].first) + k) % deepest) * width + x];
            to[x] = (uint8_t)(sum < 0 ? 0 : sum > 254.5f ? 255 : sum + 0.5f);
        }
    }
    if (border) add_border(out, border);
done:
    free(columns);
    free(rows);
    free(column_weights);
    free(row_weights);
    free(made);
    if (st) rv_grey_free(out);
    return st;
}
