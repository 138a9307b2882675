/* csv.c - RFC 4180: see csv.h. */
#include "extract/csv.h"

#include <string.h>

#include "engine/base/text.h"

static void choose_separator(rv_csv *csv) {
    size_t commas = 0, semicolons = 0, tabs = 0;
    for (size_t i = csv->at; i < csv->bytes && csv->text[i] != '\n'; i++) {
        commas += csv->text[i] == ',';
        semicolons += csv->text[i] == ';';
        tabs += csv->text[i] == '\t';
    }
    csv->separator = tabs > commas && tabs > semicolons ? '\t' : semicolons > commas ? ';' : ',';
}

static void clear(rv_string *cell) {
    cell->bytes = 0;
    if (cell->data) cell->data[0] = '\0';
}

/* The rest of a quoted cell, behind its opening quote. */
static rv_status read_quoted(rv_csv *csv, rv_string *cell, const char *file, rv_error *err) {
    for (;; csv->at++) {
        if (csv->at >= csv->bytes) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: a quoted cell that never ends", file, csv->line);
        char c = csv->text[csv->at];
        if (c == '"') {
            if (csv->at + 1 >= csv->bytes || csv->text[csv->at + 1] != '"') break;
            csv->at++;
        }
        csv->next_line += c == '\n';
        rv_string_add(cell, &c, 1);
    }
    csv->at++;
    char c = csv->at < csv->bytes ? csv->text[csv->at] : '\n';
    if (c == csv->separator || c == '\n' || c == '\r') return RV_OK;
    return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: text behind a closing quote", file, csv->next_line);
}

static rv_status read_cell(rv_csv *csv, const char *file, rv_error *err) {
    if (csv->n == RV_CSV_CELLS) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: more than %d cells", file, csv->line, RV_CSV_CELLS);
    rv_string *cell = &csv->cells[csv->n++];
    rv_status st = RV_OK;
    clear(cell);
    if (csv->at < csv->bytes && csv->text[csv->at] == '"') {
        csv->at++;
        st = read_quoted(csv, cell, file, err);
    } else {
        size_t start = csv->at;
        while (csv->at < csv->bytes && csv->text[csv->at] != csv->separator && csv->text[csv->at] != '\n' && csv->text[csv->at] != '\r')
            csv->at++;
        rv_string_add(cell, csv->text + start, csv->at - start);
    }
    if (st == RV_OK && cell->failed) st = rv_fail_memory(err, file);
    if (st == RV_OK && cell->bytes && rv_utf8_check(cell->data, cell->bytes) < cell->bytes)
        st = rv_fail(err, RV_ERR_FORMAT, "%s: line %u: not UTF-8 (byte 0x%02x): save the file as UTF-8", file, csv->line,
                     (uint8_t)cell->data[rv_utf8_check(cell->data, cell->bytes)]);
    if (st == RV_OK && cell->bytes && memchr(cell->data, '\0', cell->bytes))
        st = rv_fail(err, RV_ERR_FORMAT, "%s: line %u: a NUL character", file, csv->line);
    return st;
}

rv_status rv_csv_next(rv_csv *csv, const char *file, bool *more, rv_error *err) {
    if (csv->next_line == 0) {
        csv->next_line = 1;
        if (csv->bytes >= 3 && memcmp(csv->text, "\xef\xbb\xbf", 3) == 0) csv->at = 3;
        choose_separator(csv);
    }
    *more = false;
    while (csv->at < csv->bytes && (csv->text[csv->at] == '\n' || csv->text[csv->at] == '\r')) csv->next_line += csv->text[csv->at++] == '\n';
    if (csv->at >= csv->bytes) return RV_OK;
    csv->line = csv->next_line;
    csv->n = 0;
    for (;;) {
        rv_status st = read_cell(csv, file, err);
        if (st) return st;
        if (csv->at >= csv->bytes || csv->text[csv->at] != csv->separator) break;
        csv->at++;
    }
    if (csv->at < csv->bytes && csv->text[csv->at] == '\r') csv->at++;
    if (csv->at < csv->bytes && csv->text[csv->at] == '\n') csv->at++, csv->next_line++;
    *more = true;
    return RV_OK;
}

void rv_csv_free(rv_csv *csv) {
    for (uint32_t i = 0; i < RV_CSV_CELLS; i++) rv_string_free(&csv->cells[i]);
}

/* ---- formulas ---------------------------------------------------------------------------------------- */

/* Full-width and small forms, and the minus sign. */
static bool begins_as_formula(const char *text) {
    static const char *const others[] = { "\xef\xbc\x9d", "\xef\xbc\x8b", "\xef\xbc\x8d", "\xef\xbc\xa0", "\xef\xb9\xa6", "\xef\xb9\xa2",
                                          "\xef\xb9\xa3", "\xef\xb9\xab", "\xe2\x88\x92" };
    for (size_t i = 0; i < sizeof others / sizeof *others; i++)
        if (strncmp(text, others[i], 3) == 0) return true;
    return *text && strchr("=+-@\t\r\n", *text);
}

/* A negative amount is a number to a spreadsheet and may stay. */
bool rv_csv_needs_guard(const char *cell) {
    const char *text = cell + strspn(cell, "'");
    if (!begins_as_formula(text)) return false;
    return text != cell || *text != '-' || !text[1] || text[1 + strspn(text + 1, "$0123456789.,")];
}

const char *rv_csv_unguarded(const char *cell) {
    return *cell == '\'' && begins_as_formula(cell + strspn(cell, "'")) ? cell + 1 : cell;
}
