/* page.c - words, and values among them. */
#include "extract/page.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"
#include "extract/similar.h"

enum { LONGEST = 24 };                   /* words of a value                                    */

void rv_page_free(rv_page *page) {
    free(page->words);
    rv_pool_free(&page->pool);
    *page = (rv_page){ 0 };
}

rv_status rv_page_add(rv_page *page, const char *text, rv_box box, float confidence, int32_t line, rv_error *err) {
    if (page->n_words == page->capacity) {
        uint32_t capacity = page->capacity ? 2 * page->capacity : 256;
        rv_word *more = realloc(page->words, capacity * sizeof *more);
        if (!more) return rv_fail_memory(err, "words of a page");
        page->words = more;
        page->capacity = capacity;
    }
    char *copy = rv_pool_text(&page->pool, text, strlen(text));
    if (!copy) return rv_fail_memory(err, "words of a page");
    page->words[page->n_words++] = (rv_word){ copy, confidence, box, line };
    return RV_OK;
}

/* ---- grounding ---- */

/* What is compared: letters and digits in lower case; other bytes as they are, blanks and signs left out. */
static void add_plain(rv_string *out, const char *text) {
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        char low = (char)tolower(c);
        if (c >= 128 || isalnum(c)) rv_string_add(out, &low, 1);
    }
}

static rv_box joined(rv_box a, rv_box b) {
    float left = a.x < b.x ? a.x : b.x, top = a.y < b.y ? a.y : b.y;
    float right = a.x + a.width > b.x + b.width ? a.x + a.width : b.x + b.width;
    float bottom = a.y + a.height > b.y + b.height ? a.y + a.height : b.y + b.height;
    return (rv_box){ left, top, right - left, bottom - top };
}

/* after: the word behind it; rank: of places that are equally alike, which is likelier meant. */
typedef struct spot { double alike; rv_box box; uint32_t after; int rank; } spot;

/* Whether the word's line says what the field is called. */
static bool is_called(const rv_page *page, uint32_t word, const rv_field *f) {
    rv_string line = { 0 };
    uint32_t from = word;
    bool found = false;
    while (from > 0 && page->words[from - 1].line == page->words[word].line) from--;
    for (uint32_t i = from; i < page->n_words && page->words[i].line == page->words[word].line; i++) rv_string_addf(&line, "%s ", page->words[i].text);
    for (uint32_t i = 0; i < f->labels.count && !found; i++) found = rv_behind_label(rv_string_text(&line), f->labels.items[i]) != 0;
    found = found || rv_behind_label(rv_string_text(&line), f->title);
    rv_string_free(&line);
    return found;
}

/* The run of words most like `value`: runs are tried from every word, as long as they are not much longer than it.  The same amount stands
 * in more than one place: of a list its items come one behind the other, else the line that names the field is meant. */
static rv_status find(const rv_page *page, const char *value, const rv_field *f, uint32_t after, spot *best, rv_error *err) {
    rv_string wanted = { 0 }, run = { 0 };
    add_plain(&wanted, value);
    *best = (spot){ 0 };
    for (uint32_t from = 0; from < page->n_words && wanted.bytes; from++) {
        rv_box box = page->words[from].box;
        run.bytes = 0;
        for (uint32_t to = from; to < page->n_words && to < from + LONGEST; to++) {
            if (run.bytes > wanted.bytes + wanted.bytes / 4 + 2) break;
            add_plain(&run, page->words[to].text);
            box = joined(box, page->words[to].box);
            if (run.bytes == 0) break;                           /* signs alone begin nothing */
            if (run.bytes * 3 < wanted.bytes * 2) continue;
            double alike = rv_similarity(rv_string_text(&wanted), rv_string_text(&run));
            if (alike < best->alike || alike == 0) continue;
            int rank = f->list ? from >= after : is_called(page, from, f);
            if (alike > best->alike || rank > best->rank) *best = (spot){ alike, box, to + 1, rank };
        }
    }
    bool failed = wanted.failed || run.failed;
    rv_string_free(&wanted);
    rv_string_free(&run);
    return failed ? rv_fail_memory(err, "places of values") : RV_OK;
}

static rv_status ground_slot(const rv_page *page, rv_record *record, uint32_t field, rv_error *err) {
    rv_slot *slot = &record->slots[field];
    double least = 1;
    const rv_field *f = &record->schema->fields[field];
    uint32_t n = 0, after = 0;
    if (f->kind == RV_KIND_BOOL || f->kind == RV_KIND_ENUM) return RV_OK;    /* judgements, not words */
    rv_box *boxes = rv_pool_take(&record->pool, (slot->n_items ? slot->n_items : 1) * sizeof *boxes);
    if (!boxes) return rv_fail_memory(err, "places of values");
    for (uint32_t i = 0; i < slot->n_items; i++) {
        spot best;
        if (slot->items[i].state == RV_VALUE_ABSENT) continue;
        rv_status st = find(page, slot->items[i].raw, f, after, &best, err);
        if (st) return st;
        after = best.after;
        if (best.alike < least) least = best.alike;
        if (best.alike >= 0.6) boxes[n++] = best.box;
    }
    if (slot->n_items) slot->grounding = (float)least;
    slot->boxes = boxes;
    slot->n_boxes = n;
    return RV_OK;
}

static rv_status give_text(const rv_page *page, rv_record *record, rv_error *err) {
    rv_string text = { 0 };
    for (uint32_t i = 0; i < page->n_words; i++) {
        if (i) rv_string_addz(&text, page->words[i].line == page->words[i - 1].line ? " " : "\n");
        rv_string_addz(&text, page->words[i].text);
    }
    record->text = text.failed ? NULL : rv_pool_text(&record->pool, rv_string_text(&text), text.bytes);
    rv_string_free(&text);
    record->page_width = page->width;
    record->page_height = page->height;
    return record->text ? RV_OK : rv_fail_memory(err, "text of the page");
}

rv_status rv_page_ground(const rv_page *page, rv_record *record, rv_error *err) {
    rv_status st = give_text(page, record, err);
    for (uint32_t i = 0; i < record->schema->n_fields && st == RV_OK; i++)
        if (record->slots[i].n_items) st = ground_slot(page, record, i, err);
    return st;
}
