/* csv.h - RFC 4180, read row by row: quoted cells with newlines, doubled quotes, CRLF or LF, a byte order mark. */
#ifndef RV_EXTRACT_CSV_H
#define RV_EXTRACT_CSV_H
#include "engine/base/status.h"
#include "engine/base/text.h"

enum { RV_CSV_CELLS = 1000 };

/* Zero-initialise, then set text and bytes. */
typedef struct rv_csv {
    const char *text;
    size_t      bytes, at;
    uint32_t    line;                 /* on which the latest row begins, from 1                          */
    uint32_t    next_line;
    char        separator;            /* ',' or ';' or a tab: the one that the first line has most of    */
    uint32_t    n;                    /* cells of the latest row                                         */
    rv_string   cells[RV_CSV_CELLS];
} rv_csv;

/* Reads the next row that is not empty.  *more: there was one.  Errors: RV_ERR_FORMAT "truth.csv: line 7: ..". */
rv_status rv_csv_next(rv_csv *csv, const char *file, bool *more, rv_error *err);
void      rv_csv_free(rv_csv *csv);

/* Spreadsheets evaluate cells that begin with = + - @ (or with a tab or return before them), and forms of those that other widths have.
 * Writers put a ' in front of such a cell, and of one that begins with a ' before such a thing; readers take one off again. */
bool        rv_csv_needs_guard(const char *cell);
const char *rv_csv_unguarded(const char *cell);
#endif
