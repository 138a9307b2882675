/* ocr_cells.c - second opinions: cells of a page that may hold a date or an amount are cut out and read as lines of their own.
 *
 * Measured on receipts (bench/LOG.md): a cell that is cut out tightly and blurred a little is read better than within its page, and
 * readings of different sharpness seldom make the same mistake.
 */
#include <stdlib.h>

#include "engine/ocr.h"
#include "extract/vote.h"

enum { BORDER = 12, LEAST_EDGE = 4, WIDEST = 8000, MOST_CELLS = 200, UNLIKELY_DIGITS = 6 };     /* edges in pixels */
static const float DISPUTED = 0.4f, GAP = 1.2f, TALL = 2.5f;      /* of the height of a line's words: a gap between cells, a cell that is several lines */

/* How a cell is cut and scaled. */
typedef struct look { bool flat; float height, margin, blur; } look;
static const look LOOKS[] = { { false, 36, 0, 2.9f }, { false, 20, 0.05f, 1 }, { true, 30, 0.05f, 2.45f }, { true, 26, 0, 1 } };
enum { N_LOOKS = sizeof LOOKS / sizeof *LOOKS };
/* So many looks at a cell in which nothing was found yet: with few digits; with more of them; where it may be a date. */
enum { FEW_LOOKS = 2, LOOKS_AT_DIGITS = 3, LOOKS_AT_DATE = N_LOOKS };

typedef struct cell { const rv_page *page; uint32_t from, to; float x, y, width, height; } cell;

static cell cell_of(const rv_page *page, uint32_t from, uint32_t to) {
    float left = page->words[from].box.x, top = page->words[from].box.y, right = left, bottom = top;
    for (uint32_t i = from; i < to; i++) {
        const rv_box *b = &page->words[i].box;
        left = b->x < left ? b->x : left;
        top = b->y < top ? b->y : top;
        right = b->x + b->width > right ? b->x + b->width : right;
        bottom = b->y + b->height > bottom ? b->y + b->height : bottom;
    }
    return (cell){ page, from, to, left, top, right - left, bottom - top };
}

static rv_status look_at(struct rv_ocr *ocr, const rv_sheet *sheet, const cell *c, const look *how, rv_page *out, rv_error *err) {
    const rv_grey *from = how->flat ? &sheet->flat : &sheet->plain;
    const float margin = how->margin * c->height;
    const rv_grey_part part = { (c->x - margin) / sheet->shrink, (c->y - margin) / sheet->shrink, (c->width + 2 * margin) / sheet->shrink, (c->height + 2 * margin) / sheet->shrink };
    const float scale = how->height * sheet->shrink / c->height, on_page = scale / sheet->shrink;
    rv_grey picture = { 0 };
    rv_error unread;
    rv_status st = RV_OK;
    if (part.width < LEAST_EDGE || part.height < LEAST_EDGE || part.width * scale > WIDEST) return RV_OK;
    TRY(rv_grey_scaled(from, &part, scale, how->blur, BORDER, &picture, err));
    st = rv_ocr_words(ocr, &picture, RV_OCR_LINE, (rv_ocr_cut){ c->x - margin - BORDER / on_page, c->y - margin - BORDER / on_page, on_page }, out, &unread);
    if (st == RV_ERR_FORMAT) st = RV_OK;                         /* one look less */
    else if (st) st = rv_fail(err, st, "%s", unread.message);
done:
    rv_grey_free(&picture);
    return st;
}

static rv_status add_words(rv_page *out, const rv_opinion *v, float most, int32_t line, rv_error *err) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < v->n_words && st == RV_OK; i++) {
        const rv_word *w = &v->words[i];
        st = rv_page_add(out, w->text, w->box, w->confidence < most ? w->confidence : most, line, err);
    }
    return st;
}

/* Reads the cell until two readings agree, and adds what is believed; where they do not, nobody is sure of it. */
static rv_status settle(struct rv_ocr *ocr, const rv_sheet *sheet, const cell *c, bool again, rv_page *out, rv_error *err) {
    rv_page looks[N_LOOKS] = { 0 };
    rv_opinion opinions[1 + N_LOOKS] = { { c->page->words + c->from, c->to - c->from } };
    rv_verdict verdict = { 0 };
    rv_status st = RV_OK;
    const uint32_t most = rv_may_be_date(&opinions[0]) ? LOOKS_AT_DATE : rv_opinion_digits(&opinions[0]) >= UNLIKELY_DIGITS ? LOOKS_AT_DIGITS : FEW_LOOKS;
    for (uint32_t i = 0; again && verdict.agree < 2 && i < (verdict.agree ? N_LOOKS : most); i++) {
        TRY(look_at(ocr, sheet, c, &LOOKS[i], &looks[i], err));
        opinions[1 + i] = (rv_opinion){ looks[i].words, looks[i].n_words };
        TRY(rv_vote(opinions, 2 + i, &verdict, err));
    }
    TRY(add_words(out, &opinions[verdict.chosen], verdict.agree == 1 ? DISPUTED : 1, c->page->words[c->from].line, err));
done:
    for (uint32_t i = 0; i < N_LOOKS; i++) rv_page_free(&looks[i]);
    return st;
}

static int by_size(const void *a, const void *b) {
    const float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* Of the line's words; *to: behind its last one. */
static float line_height(const rv_page *page, uint32_t from, uint32_t *to) {
    float heights[64];
    uint32_t n = 0;
    for (*to = from; *to < page->n_words && page->words[*to].line == page->words[from].line; ++*to)
        if (n < 64) heights[n++] = page->words[*to].box.height;
    qsort(heights, n, sizeof *heights, by_size);
    return heights[n / 2];
}

rv_status rv_ocr_cells(struct rv_ocr *ocr, const rv_sheet *sheet, rv_page *page, rv_error *err) {
    rv_page out = { .width = page->width, .height = page->height };
    uint32_t read = 0;
    rv_status st = RV_OK;
    for (uint32_t line = 0, end; line < page->n_words; line = end) {
        const float height = line_height(page, line, &end);
        for (uint32_t from = line, to; from < end; from = to) {
            for (to = from + 1; to < end; to++) {
                const rv_box *a = &page->words[to - 1].box, *b = &page->words[to].box;
                if (b->x - a->x - a->width > GAP * height) break;
            }
            const cell c = cell_of(page, from, to);
            const rv_opinion v = { page->words + from, to - from };
            const bool again = read < MOST_CELLS && c.height > 0 && c.height < TALL * height && rv_may_say(&v);
            read += again;
            TRY(settle(ocr, sheet, &c, again, &out, err));
        }
    }
    rv_page_free(page);
    *page = out;
    return RV_OK;
done:
    rv_page_free(&out);
    return st;
}
