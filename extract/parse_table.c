/* parse_table.c - Markdown tables whose first line names columns.
 *
 * The one idea: only the line of dashes below makes a line of bars a table's header, and only two names that the schema knows
 * make it ours; any other row of bars is "| KEY | value |", which parse.c reads.
 */
#include <ctype.h>
#include <string.h>

#include "engine/base/text.h"
#include "extract/parse.h"

enum { MOST_COLUMNS = 32, KEY_BYTES = 80 };

typedef struct cell { const char *text; size_t bytes; } cell;
typedef struct row { cell cells[MOST_COLUMNS]; size_t n; } row;
typedef struct column { int32_t field; rv_string text; } column;

static cell trimmed(cell c) {
    while (c.bytes && isspace((uint8_t)*c.text)) c.text++, c.bytes--;
    while (c.bytes && isspace((uint8_t)c.text[c.bytes - 1])) c.bytes--;
    return c;
}

/* The line at text[*at], which goes behind it; false at the end. */
static bool next_line(const char *text, size_t bytes, size_t *at, cell *line) {
    if (*at >= bytes) return false;
    const char *end = memchr(text + *at, '\n', bytes - *at);
    const size_t n = end ? (size_t)(end - text) - *at : bytes - *at;
    *line = trimmed((cell){ text + *at, n });
    *at += n + 1;
    return true;
}

static bool is_divider(cell line) {
    for (size_t i = 0; i < line.bytes; i++)
        if (!strchr("|-: \t", line.text[i]) || !line.text[i]) return false;
    return line.bytes && memchr(line.text, '-', line.bytes) && memchr(line.text, '|', line.bytes);
}

/* Cells between bars, marks of formatting around them dropped. */
static void split(cell line, row *out) {
    if (line.bytes && *line.text == '|') line.text++, line.bytes--;
    if (line.bytes && line.text[line.bytes - 1] == '|') line.bytes--;
    const char *end = line.text + line.bytes;
    out->n = 0;
    for (const char *at = line.text, *bar; out->n < MOST_COLUMNS; at = bar + 1) {
        bar = at < end ? memchr(at, '|', (size_t)(end - at)) : NULL;
        cell c = trimmed((cell){ at, (size_t)((bar ? bar : end) - at) });
        while (c.bytes > 2 && strchr("*`", *c.text) && c.text[c.bytes - 1] == *c.text && c.text[1] != ' ') c.text++, c.bytes -= 2;
        out->cells[out->n++] = c;
        if (!bar) break;
    }
}

/* How many of the header's names are fields, each once: fields of the document where all of them are ("| Store | Total |"), else lists. */
static size_t find_columns(const rv_schema *schema, const row *header, column *columns) {
    bool lists = false;
    size_t known = 0;
    for (size_t i = 0; i < header->n; i++) {
        const cell name = header->cells[i];
        columns[i] = (column){ .field = name.bytes && name.bytes <= KEY_BYTES ? rv_schema_find(schema, name.text, name.bytes) : -1 };
        lists = lists || (columns[i].field >= 0 && schema->fields[columns[i].field].list);
    }
    for (size_t i = 0; i < header->n; i++) {
        const cell name = header->cells[i];
        if (lists) columns[i].field = name.bytes && name.bytes <= KEY_BYTES ? rv_parse_column(schema, name.text, name.bytes) : -1;
        for (size_t k = 0; k < i; k++)
            if (columns[k].field == columns[i].field) columns[i].field = -1;
        known += columns[i].field >= 0;
    }
    return known;
}

/* "| Total | | $5.00 |" below the items: a field of its own, its value in the last cell that has one. */
static int32_t sum_row(const rv_schema *schema, const row *r, cell *value) {
    const cell name = r->cells[0];
    const int32_t field = name.bytes && name.bytes <= KEY_BYTES ? rv_schema_find(schema, name.text, name.bytes) : -1;
    if (field < 0 || schema->fields[field].list || schema->fields[field].kind != RV_KIND_MONEY) return -1;
    for (size_t i = r->n; i > 1; i--) {
        *value = r->cells[i - 1];
        if (value->bytes) return field;
    }
    return -1;
}

static rv_status take_row(rv_parse *p, const row *r, column *columns, size_t n) {
    const rv_schema *schema = p->record->schema;
    cell value;
    const int32_t sum = columns[0].field < 0 || schema->fields[columns[0].field].list ? sum_row(schema, r, &value) : -1;
    if (sum >= 0) return rv_parse_offer(p, (uint32_t)sum, value.text, value.bytes);
    for (size_t i = 0; i < n; i++) {
        const cell c = i < r->n ? r->cells[i] : (cell){ "", 0 };
        if (columns[i].field < 0) continue;
        if (!schema->fields[columns[i].field].list) {
            rv_status st = rv_parse_offer(p, (uint32_t)columns[i].field, c.text, c.bytes);
            if (st) return st;
            continue;
        }
        rv_string_addz(&columns[i].text, columns[i].text.bytes ? " | " : "");
        if (c.bytes) rv_string_add(&columns[i].text, c.text, c.bytes);
        else rv_string_addz(&columns[i].text, RV_NOT_FOUND);
    }
    return RV_OK;
}

rv_status rv_parse_table(rv_parse *p, const char *text, size_t bytes, size_t *at) {
    column columns[MOST_COLUMNS];
    row header, r;
    cell line;
    size_t next = *at;
    rv_status st = RV_OK;
    if (!next_line(text, bytes, &next, &line) || !memchr(line.text, '|', line.bytes)) return RV_OK;
    split(line, &header);
    if (!next_line(text, bytes, &next, &line) || !is_divider(line) || find_columns(p->record->schema, &header, columns) < 2) return RV_OK;
    *at = next;
    while (st == RV_OK && next_line(text, bytes, &next, &line) && memchr(line.text, '|', line.bytes)) {
        *at = next;
        split(line, &r);
        if (!is_divider(line)) st = take_row(p, &r, columns, header.n);
    }
    for (size_t i = 0; i < header.n; i++) {
        if (columns[i].text.failed) st = rv_fail_memory(p->err, "answer");
        if (st == RV_OK && columns[i].text.bytes)
            st = rv_parse_offer_cells(p, (uint32_t)columns[i].field, columns[i].text.data, columns[i].text.bytes);
        rv_string_free(&columns[i].text);
    }
    return st;
}
