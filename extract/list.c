/* list.c - lists in one line: see list.h. */
#include "extract/list.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

void rv_list_free(rv_list *list) {
    free(list->items);
    *list = (rv_list){ 0 };
}

static rv_status add(rv_list *list, const char *text, size_t bytes, rv_error *err) {
    while (bytes && isspace((uint8_t)*text)) text++, bytes--;
    while (bytes && isspace((uint8_t)text[bytes - 1])) bytes--;
    if (list->count == RV_LIST_ITEMS) return rv_fail(err, RV_ERR_TOO_LONG, "a list of more than %d items", RV_LIST_ITEMS);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? 2 * list->capacity : 16;
        rv_list_item *items = realloc(list->items, capacity * sizeof *items);
        if (!items) return rv_fail_memory(err, "list");
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = (rv_list_item){ text, bytes };
    return RV_OK;
}

/* Length of the separator at text[at], or 0. */
typedef size_t (*separator_fn)(const char *text, size_t bytes, size_t at);

static size_t bar(const char *text, size_t bytes, size_t at) {
    (void)bytes;
    return text[at] == '|';
}

static size_t semicolon(const char *text, size_t bytes, size_t at) {
    (void)bytes;
    return text[at] == ';';
}

/* "$8,026.87" stays whole. */
static size_t comma(const char *text, size_t bytes, size_t at) {
    return text[at] == ',' && !(at + 1 < bytes && isdigit((uint8_t)text[at + 1]));
}

/* A comma behind cents parts two amounts: "1.00,2.00". */
static bool behind_cents(const char *text, size_t at) {
    size_t n = at;
    while (n && isdigit((uint8_t)text[n - 1])) n--;
    return n < at && n > 1 && text[n - 1] == '.' && isdigit((uint8_t)text[n - 2]);
}

static size_t comma_between_numbers(const char *text, size_t bytes, size_t at) {
    return comma(text, bytes, at) || (text[at] == ',' && behind_cents(text, at));
}

static size_t blanks(const char *text, size_t bytes, size_t at) {
    size_t n = 0;
    while (at + n < bytes && (text[at + n] == ' ' || text[at + n] == '\t')) n++;
    return n >= 2 ? n : 0;
}

/* The blank between "$1.00" and "$2.00". */
static size_t before_dollar(const char *text, size_t bytes, size_t at) {
    return text[at] == ' ' && at && isdigit((uint8_t)text[at - 1]) && at + 1 < bytes &&
           (text[at + 1] == '$' || (text[at + 1] == '-' && at + 2 < bytes && text[at + 2] == '$'));
}

static bool has(separator_fn separator, const char *text, size_t bytes) {
    for (size_t at = 0; at < bytes; at++)
        if (separator(text, bytes, at)) return true;
    return false;
}

static rv_status cut(separator_fn separator, const char *text, size_t bytes, rv_list *out, rv_error *err) {
    size_t start = 0, at = 0, n;
    rv_status st = RV_OK;
    for (; at < bytes && st == RV_OK; at += n ? n : 1) {
        if ((n = separator(text, bytes, at)) == 0) continue;
        st = add(out, text + start, at - start, err);
        start = at + n;
    }
    return st ? st : add(out, text + start, bytes - start, err);
}

/* One item a line; "- ", "* ", "• " and "1. " in front are dropped, empty lines too. */
static rv_status cut_lines(const char *text, size_t bytes, rv_list *out, rv_error *err) {
    rv_status st = RV_OK;
    for (size_t at = 0; at < bytes && st == RV_OK;) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t n = end ? (size_t)(end - text) - at : bytes - at, begin = at, digits = 0;
        at += n + 1;
        while (n && isspace((uint8_t)text[begin])) begin++, n--;
        while (digits < n && isdigit((uint8_t)text[begin + digits])) digits++;
        if (n > 1 && strchr("-*+", text[begin]) && text[begin + 1] == ' ') begin += 2, n -= 2;
        else if (n > 3 && strncmp(text + begin, "\xe2\x80\xa2", 3) == 0) begin += 3, n -= 3;
        else if (digits && digits < 3 && digits + 1 < n && strchr(".)", text[begin + digits]) && text[begin + digits + 1] == ' ')
            begin += digits + 2, n -= digits + 2;
        if (n) st = add(out, text + begin, n, err);
    }
    return st;
}

/* ["Milk, 2L", 'Bread']: commas outside quotes part, quotes go. */
static rv_status cut_brackets(const char *text, size_t bytes, rv_list *out, rv_error *err) {
    size_t start = 0;
    char quote = '\0';
    rv_status st = RV_OK;
    for (size_t at = 0; at <= bytes && st == RV_OK; at++) {
        char c = at < bytes ? text[at] : ',';
        if (quote && at < bytes) {
            if (c == quote) quote = '\0';
            continue;
        }
        if ((c == '"' || c == '\'') && strspn(text + start, " \"'") + start >= at) quote = c;
        if (c != ',' || (at + 1 < bytes && at && isdigit((uint8_t)text[at - 1]) && isdigit((uint8_t)text[at + 1]) && !behind_cents(text, at))) continue;
        st = add(out, text + start, at - start, err);
        if (st) break;
        rv_list_item *item = &out->items[out->count - 1];
        if (item->bytes > 1 && strchr("\"'", *item->text) && item->text[item->bytes - 1] == *item->text) item->text++, item->bytes -= 2;
        start = at + 1;
    }
    return st;
}

/* "| Milk | Bread |" is a row of a table: the bars around it part nothing. */
static void drop_outer_bars(const char **text, size_t *bytes) {
    if (*bytes < 2 || **text != '|' || (*text)[*bytes - 1] != '|') return;
    ++*text;
    *bytes -= 2;
}

rv_status rv_list_cells(const char *text, size_t bytes, rv_list *out, rv_error *err) {
    *out = (rv_list){ 0 };
    drop_outer_bars(&text, &bytes);
    const rv_status st = bytes ? cut(bar, text, bytes, out, err) : RV_OK;
    if (st) rv_list_free(out);
    return st;
}

rv_status rv_list_split(rv_value_kind kind, const char *text, size_t bytes, rv_list *out, rv_error *err) {
    rv_status st;
    while (bytes && isspace((uint8_t)*text)) text++, bytes--;
    while (bytes && isspace((uint8_t)text[bytes - 1])) bytes--;
    bool addresses = kind == RV_KIND_ADDRESS || kind == RV_KIND_DATE_RANGE;      /* commas belong to them */
    const bool numbers = kind == RV_KIND_MONEY || kind == RV_KIND_QUANTITY || kind == RV_KIND_PERCENT;
    const separator_fn commas = numbers ? comma_between_numbers : comma;
    *out = (rv_list){ 0 };
    if (bytes == 0) return RV_OK;
    if (bytes > 1 && *text == '|' && text[bytes - 1] == '|') return rv_list_cells(text, bytes, out, err);
    if (bytes > 2 && *text == '[' && text[bytes - 1] == ']') st = cut_brackets(text + 1, bytes - 2, out, err);
    else if (has(bar, text, bytes)) st = cut(bar, text, bytes, out, err);
    else if (memchr(text, '\n', bytes)) st = cut_lines(text, bytes, out, err);
    else if (has(semicolon, text, bytes)) st = cut(semicolon, text, bytes, out, err);
    else if (!addresses && has(commas, text, bytes)) st = cut(commas, text, bytes, out, err);
    else if (has(blanks, text, bytes)) st = cut(blanks, text, bytes, out, err);
    else if (kind == RV_KIND_MONEY) st = cut(before_dollar, text, bytes, out, err);
    else st = add(out, text, bytes, err);
    if (st) rv_list_free(out);
    return st;
}
