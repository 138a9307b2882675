/* parse_json.c - objects that a model wrote: fenced, cut off, with commas missing or too many.
 *
 * The one idea: a reader that never gives up.  It takes what it can see as keys and values and skips what it cannot; the
 * schema decides what counts.  Nested objects name their keys together ("supplier": {"name": ..}); an array of
 * objects is a table, its keys are columns.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/json.h"
#include "extract/parse.h"

enum { MOST_DEPTH = 32, KEY_BYTES = 96, NEAR = 200 /* bytes that are looked at around a place, so that no text takes long */ };

typedef struct reader {
    rv_parse   *parse;
    const char *text;
    size_t      bytes, at;
    int         depth;
    bool        any;
} reader;

static void skip_blanks(reader *r) {
    while (r->at < r->bytes && (isspace((uint8_t)r->text[r->at]) || r->text[r->at] == ',' || r->text[r->at] == ';')) r->at++;
}

static size_t after_blanks(const reader *r, size_t at) {
    while (at < r->bytes && (r->text[at] == ' ' || r->text[at] == '\t')) at++;
    return at;
}

/* "key": stands at `at`. */
static bool is_key(const reader *r, size_t at) {
    size_t end = at + 1;
    while (end < r->bytes && end - at <= KEY_BYTES && r->text[end] != r->text[at] && r->text[end] != '\n') end++;
    if (end >= r->bytes || r->text[end] != r->text[at]) return false;
    end = after_blanks(r, end + 1);
    return end < r->bytes && r->text[end] == ':';
}

/* Whether the quote at `at` ends a string: what follows is what may follow one, or the next key, a comma forgotten. */
static bool ends_string(const reader *r, size_t at) {
    size_t next = after_blanks(r, at + 1);
    if (next >= r->bytes || strchr(",:}]\r\n", r->text[next])) return true;
    return r->text[next] == r->text[at] && is_key(r, next);
}

/* Whether a line that ends inside a string ended the string too, its quote forgotten: the next line begins a key or closes. */
static bool line_ends_string(const reader *r) {
    size_t next = r->at;
    while (next < r->bytes && isspace((uint8_t)r->text[next])) next++;
    return next < r->bytes && (r->text[next] == '"' || r->text[next] == '}' || r->text[next] == ']');
}

/* A string, its end missing or not: decoded into `out`. */
static void read_string(reader *r, rv_string *out) {
    char quote = r->text[r->at++];
    while (r->at < r->bytes) {
        char c = r->text[r->at];
        if (c == quote && ends_string(r, r->at)) {
            r->at++;
            return;
        }
        if (c == '\n' && line_ends_string(r)) {
            while (out->bytes && strchr(", \t\r", out->data[out->bytes - 1])) out->data[--out->bytes] = '\0';
            return;
        }
        uint32_t code;
        size_t n = c == '\\' ? rv_json_escape(r->text + r->at, r->bytes - r->at, &code) : 0;
        if (n) {
            char piece[4];
            rv_string_add(out, piece, rv_utf8_write(code, piece));
            r->at += n;
        } else rv_string_add(out, &r->text[r->at++], 1);
    }
}

static bool digits_at(const reader *r, size_t at, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (at + i >= r->bytes || !isdigit((uint8_t)r->text[at + i])) return false;
    return at + n >= r->bytes || !isdigit((uint8_t)r->text[at + n]);
}

/* Whether the items of the array at `at` have a blank behind their commas: a comma without one is inside a number then. */
static bool commas_have_blanks(const reader *r, size_t at) {
    const size_t end = at + NEAR < r->bytes ? at + NEAR : r->bytes;
    for (; at + 1 < end && !strchr("]}{[\n\"", r->text[at]); at++)
        if (r->text[at] == ',' && r->text[at + 1] == ' ') return true;
    return false;
}

/* Whether the comma at r->at is inside "1,234.50", which begins at `start` and forgot its quotes.  In an array it may as well part two
 * numbers: there a dollar in front, or blanks behind the other commas, must say so. */
static bool continues_number(const reader *r, size_t start, bool in_array) {
    size_t first = r->at;
    if (r->text[r->at] != ',' || !digits_at(r, r->at + 1, 3)) return false;
    while (first > start && isdigit((uint8_t)r->text[first - 1])) first--;
    const size_t group = r->at - first;
    const bool inside = first > start && r->text[first - 1] == ',';
    if (group == 0 || group > 3 || (inside ? group != 3 : r->text[first] == '0')) return false;
    return !in_array || memchr(r->text + start, '$', r->at - start) || commas_have_blanks(r, start);
}

/* A number, true, null or a word without quotes, as it is written. */
static void read_bare(reader *r, rv_string *out, bool in_array) {
    size_t start = r->at;
    while (r->at < r->bytes && (!strchr(",}]{[\n\r\"", r->text[r->at]) || continues_number(r, start, in_array))) r->at++;
    size_t n = r->at - start;
    while (n && isspace((uint8_t)r->text[start + n - 1])) n--;
    rv_string_add(out, r->text + start, n);
    if (r->at == start) r->at++;                           /* something that cannot begin a value */
}

static void read_scalar(reader *r, rv_string *out, bool in_array) {
    char c = r->text[r->at];
    if (c == '"' || c == '\'') read_string(r, out);
    else read_bare(r, out, in_array);
}

int32_t rv_parse_column(const rv_schema *schema, const char *key, size_t bytes) {
    static const char *const heads[] = { "LINE_ITEM_", "TRANSACTION_", "" };     /* "price" beside "total" is the price of one */
    char joined[KEY_BYTES + 16];
    for (int i = 0; i < 3; i++) {
        size_t n = (size_t)snprintf(joined, sizeof joined, "%s%.*s", heads[i], (int)(bytes < KEY_BYTES ? bytes : KEY_BYTES), key);
        int32_t field = rv_schema_find(schema, joined, n);
        if (field >= 0 && schema->fields[field].list) return field;
    }
    return -1;
}

/* The field for `key` inside the object that `parent` names ("" outermost). */
static int32_t find(const reader *r, const char *parent, const char *key) {
    const rv_schema *schema = r->parse->record->schema;
    char joined[2 * KEY_BYTES + 16];
    int32_t field;
    if (*parent) {
        size_t n = (size_t)snprintf(joined, sizeof joined, "%s_%s", parent, key);
        if ((field = rv_schema_find(schema, joined, n)) >= 0) return field;
    }
    return rv_schema_find(schema, key, strlen(key));
}

static rv_status read_value(reader *r, const char *key, int32_t field);

/* A word without quotes up to its colon; what has none is no key, and passed over. */
static bool read_bare_key(reader *r, rv_string *key) {
    size_t start = r->at;
    while (r->at < r->bytes && !strchr(":,}\"\n", r->text[r->at])) r->at++;
    if (r->at == start) r->at++;
    else if (r->at < r->bytes && r->text[r->at] == ':') rv_string_add(key, r->text + start, r->at - start);
    return key->bytes > 0;
}

/* Reads "key": into `out`; false at the object's end. */
static bool read_key(reader *r, char out[KEY_BYTES]) {
    rv_string key = { 0 };
    for (bool found = false; !found;) {
        skip_blanks(r);
        if (r->at >= r->bytes || r->text[r->at] == '}' || r->text[r->at] == ']') return false;
        found = r->text[r->at] == '"' || r->text[r->at] == '\'';
        if (found) read_string(r, &key);
        else found = read_bare_key(r, &key);
    }
    skip_blanks(r);
    if (r->at < r->bytes && r->text[r->at] == ':') r->at++;
    snprintf(out, KEY_BYTES, "%.*s", (int)(key.bytes < KEY_BYTES ? key.bytes : KEY_BYTES - 1), rv_string_text(&key));
    r->parse->record->pool.failed = r->parse->record->pool.failed || key.failed;
    rv_string_free(&key);
    return true;
}

static rv_status read_object(reader *r, const char *parent) {
    char key[KEY_BYTES];
    rv_status st = RV_OK;
    r->at++;                                               /* { */
    while (st == RV_OK && read_key(r, key)) {
        while (r->at < r->bytes && isspace((uint8_t)r->text[r->at])) r->at++;
        st = read_value(r, key, find(r, parent, key));
    }
    if (r->at < r->bytes && r->text[r->at] == '}') r->at++;
    return st;
}

/* ---- tables ------------------------------------------------------------------------------------ */

typedef struct column { int32_t field; rv_string text; size_t cells; } column;
typedef struct table { column columns[16]; size_t n, rows; } table;

static void add_cell(column *c, size_t row, const char *text, size_t bytes) {
    for (; c->cells <= row; c->cells++) {
        if (c->cells) rv_string_addz(&c->text, " | ");
        if (c->cells < row) rv_string_addz(&c->text, RV_NOT_FOUND);
    }
    for (size_t i = 0; i < bytes; i++) rv_string_add(&c->text, text[i] == '|' || text[i] == '\n' ? " " : text + i, 1);
    if (bytes == 0) rv_string_addz(&c->text, RV_NOT_FOUND);
}

/* What is deeper than a table is passed over. */
static void skip_nested(reader *r) {
    int open = 0;
    do {
        char c = r->text[r->at++];
        open += (c == '{' || c == '[') - (c == '}' || c == ']');
    } while (r->at < r->bytes && open > 0);
}

static void read_row(reader *r, table *t) {
    char key[KEY_BYTES];
    r->at++;
    while (read_key(r, key)) {
        rv_string text = { 0 };
        while (r->at < r->bytes && isspace((uint8_t)r->text[r->at])) r->at++;
        if (r->at < r->bytes && (r->text[r->at] == '{' || r->text[r->at] == '[')) skip_nested(r);
        else if (r->at < r->bytes) read_scalar(r, &text, false);
        int32_t field = rv_parse_column(r->parse->record->schema, key, strlen(key));
        size_t i = 0;
        while (i < t->n && t->columns[i].field != field) i++;
        if (field >= 0 && i == t->n && t->n < sizeof t->columns / sizeof *t->columns) t->columns[t->n++] = (column){ .field = field };
        if (field >= 0 && i < t->n && t->columns[i].cells <= t->rows) add_cell(&t->columns[i], t->rows, rv_string_text(&text), text.bytes);
        rv_string_free(&text);
    }
    if (r->at < r->bytes && r->text[r->at] == '}') r->at++;
    t->rows++;
}

static rv_status finish_table(reader *r, table *t) {
    rv_status st = RV_OK;
    for (size_t i = 0; i < t->n; i++) {
        column *c = &t->columns[i];
        if (t->rows && c->cells < t->rows) add_cell(c, t->rows - 1, "", 0);
        if (c->text.failed) st = rv_fail_memory(r->parse->err, "answer");
        if (st == RV_OK) st = rv_parse_offer_cells(r->parse, (uint32_t)c->field, rv_string_text(&c->text), c->text.bytes);
        rv_string_free(&c->text);
        r->any = true;
    }
    return st;
}

/* ---- arrays and values --------------------------------------------------------------------------- */

/* Scalars become a list in one line; objects a table. */
static rv_status read_array(reader *r, const char *key, int32_t field) {
    rv_string items = { 0 };
    table t = { 0 };
    column list = { .field = field };
    rv_status st = RV_OK;
    r->at++;
    for (size_t row = 0; st == RV_OK; row++) {
        skip_blanks(r);
        if (r->at >= r->bytes || r->text[r->at] == ']' || r->text[r->at] == '}') break;
        if (r->text[r->at] == '{') read_row(r, &t);
        else if (r->text[r->at] == '[') st = read_value(r, key, -1);
        else {
            items = (rv_string){ 0 };
            read_scalar(r, &items, true);
            add_cell(&list, row, rv_string_text(&items), items.bytes);
            rv_string_free(&items);
        }
    }
    if (r->at < r->bytes && r->text[r->at] == ']') r->at++;
    rv_status last = finish_table(r, &t);
    if (st == RV_OK) st = last;
    if (st == RV_OK && field >= 0 && list.cells) {
        r->any = true;
        st = rv_parse_offer_cells(r->parse, (uint32_t)field, rv_string_text(&list.text), list.text.bytes);
    }
    rv_string_free(&list.text);
    return st;
}

static rv_status read_value(reader *r, const char *key, int32_t field) {
    rv_string text = { 0 };
    rv_status st = RV_OK;
    if (r->at >= r->bytes || r->text[r->at] == '}' || r->text[r->at] == ',') return RV_OK;
    if (r->text[r->at] == '{' || r->text[r->at] == '[') {
        if (++r->depth > MOST_DEPTH) {
            r->at = r->bytes;
            return RV_OK;
        }
        char parent[KEY_BYTES];
        snprintf(parent, sizeof parent, "%s", key);
        st = r->text[r->at] == '{' ? read_object(r, parent) : read_array(r, parent, field);
        r->depth--;
        return st;
    }
    read_scalar(r, &text, false);
    if (text.failed) st = rv_fail_memory(r->parse->err, "answer");
    else if (field >= 0) {
        r->any = true;
        st = rv_parse_offer(r->parse, (uint32_t)field, rv_string_text(&text), text.bytes);
    }
    rv_string_free(&text);
    return st;
}

/* Whether an object may begin at text[at]: first on its line, in a fence, in a list, or behind a key in quotes.  `after`: where the one before ended. */
static bool begins_line(const char *text, size_t after, size_t at) {
    size_t first = at;
    while (first > after && at - first <= NEAR && text[first - 1] != '\n') first--;
    if (at - first > NEAR) return false;
    while (first < at && (isspace((uint8_t)text[first]) || text[first] == '[' || (after && text[first] == ','))) first++;
    while (at > first && isspace((uint8_t)text[at - 1])) at--;
    const size_t n = at - first;
    return n == 0 || (n >= 3 && !memcmp(text + first, "```", 3)) || (n == 4 && !strncasecmp(text + first, "json", 4)) ||
           (n > 2 && text[first] == '"' && text[at - 1] == ':');
}

/* What was taken as JSON is no line any more. */
static void blank(char *text, size_t from, size_t to) {
    for (size_t i = from; i < to; i++)
        if (text[i] != '\n') text[i] = ' ';
}

rv_status rv_parse_json(rv_parse *p, char *text, size_t bytes, bool anywhere, bool *any) {
    reader r = { .parse = p, .text = text, .bytes = bytes };
    rv_status st = RV_OK;
    size_t after = 0;
    *any = false;
    while (st == RV_OK && r.at < bytes) {
        const char *open = memchr(text + r.at, '{', bytes - r.at);
        if (!open) break;
        const size_t from = (size_t)(open - text);
        size_t next = from + 1;
        r.at = from;
        while (next < bytes && isspace((uint8_t)text[next])) next++;
        r.any = false;
        if ((anywhere || begins_line(text, after, from)) && next < bytes && (text[next] == '"' || text[next] == '\'' || isalpha((uint8_t)text[next]))) {
            st = read_object(&r, "");
            after = r.at;
        } else r.at = next;
        if (r.any) blank(text, from, r.at);
        *any = *any || r.any;
    }
    return st;
}
