/* parse.c - KEY: VALUE lines, and the order in which an answer is tried: see parse.h. */
#include "extract/parse.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

typedef struct span { const char *text; size_t bytes; } span;

static span trim(span s) {
    while (s.bytes && isspace((uint8_t)*s.text)) s.text++, s.bytes--;
    while (s.bytes && isspace((uint8_t)s.text[s.bytes - 1])) s.bytes--;
    return s;
}

/* Marks of formatting around a value: **bold**, `code`, "quotes"; always on both sides ("**** 1111" is a masked card). */
static span unwrap(span s) {
    for (bool again = true; again;) {
        s = trim(s);
        again = false;
        for (size_t n = 2; n >= 1 && !again; n--) {
            if (s.bytes <= 2 * n || !strchr(n == 2 ? "*" : "*`\"'", *s.text)) continue;
            const char *end = s.text + s.bytes - n;
            if (memcmp(s.text, end, n) || s.text[0] != s.text[n - 1] || s.text[n] == ' ') continue;
            s = (span){ s.text + n, s.bytes - 2 * n };
            again = true;
        }
    }
    return s;
}

/* The same around a key, where one side may have been cut off with the colon. */
static span unwrap_key(span s) {
    s = trim(s);
    while (s.bytes && strchr("*`\"'|", *s.text)) s = trim((span){ s.text + 1, s.bytes - 1 });
    while (s.bytes && strchr("*`\"'|", s.text[s.bytes - 1])) s = trim((span){ s.text, s.bytes - 1 });
    return s;
}

static rv_status offer(rv_parse *p, uint32_t field, const char *text, size_t bytes, bool cells) {
    span value = p->record->schema->fields[field].list ? trim((span){ text, bytes }) : unwrap((span){ text, bytes });
    if (rv_slot_found(p->record, field)) return RV_OK;
    rv_status st = (cells ? rv_record_set_cells : rv_record_set)(p->record, field, value.text, value.bytes, p->source, p->err);
    if (st == RV_OK && rv_slot_found(p->record, field)) p->found++;
    return st;
}

rv_status rv_parse_offer(rv_parse *p, uint32_t field, const char *text, size_t bytes) { return offer(p, field, text, bytes, false); }
rv_status rv_parse_offer_cells(rv_parse *p, uint32_t field, const char *text, size_t bytes) { return offer(p, field, text, bytes, true); }

/* ---- lines ---------------------------------------------------------------------------------- */

static bool next_line(const char *text, size_t bytes, size_t *at, span *line) {
    if (*at >= bytes) return false;
    const char *end = memchr(text + *at, '\n', bytes - *at);
    size_t n = end ? (size_t)(end - text) - *at : bytes - *at;
    *line = trim((span){ text + *at, n });
    *at += n + 1;
    return true;
}

/* "- ", "* ", "• ", "3. ", "# ", "> " in front. */
static span drop_bullet(span s) {
    for (bool again = true; again;) {
        size_t digits = 0, n = 0;
        while (digits < s.bytes && isdigit((uint8_t)s.text[digits])) digits++;
        if (s.bytes > 1 && strchr("-*+>", *s.text) && s.text[1] == ' ') n = 2;
        else if (s.bytes > 0 && *s.text == '#') n = 1;
        else if (s.bytes >= 3 && strncmp(s.text, "\xe2\x80\xa2", 3) == 0) n = 3;
        else if (digits && digits <= 3 && s.bytes > digits + 1 && strchr(".)", s.text[digits]) && s.text[digits + 1] == ' ') n = digits + 2;
        s.text += n, s.bytes -= n;
        s = trim(s);
        again = n > 0;
    }
    return s;
}

static bool has_bullet(span s) { return drop_bullet(s).text != s.text; }

/* "Total - $5.00", with a hyphen or a dash. */
static int32_t read_dashed(const rv_schema *schema, span s, span *value) {
    static const char *const dashes[] = { " - ", " \xe2\x80\x93 ", " \xe2\x80\x94 " };
    const char *first = NULL;
    size_t width = 0;
    for (int i = 0; i < 3; i++) {
        const char *at = memmem(s.text, s.bytes, dashes[i], strlen(dashes[i]));
        if (!at || (first && at > first)) continue;
        first = at;
        width = strlen(dashes[i]);
    }
    if (!first) return -1;
    span key = unwrap_key((span){ s.text, (size_t)(first - s.text) });
    *value = trim((span){ first + width, (size_t)(s.text + s.bytes - first) - width });
    return key.bytes && key.bytes <= 80 ? rv_schema_find(schema, key.text, key.bytes) : -1;
}

/* Where a line's head ends: the first ":", "=" or full-width colon, *width bytes of it; NULL: none. */
static const char *head_end(span s, size_t *width) {
    const char *colon = memchr(s.text, ':', s.bytes), *equals = memchr(s.text, '=', s.bytes), *wide = memmem(s.text, s.bytes, "\xef\xbc\x9a", 3);
    if (!colon || (equals && equals < colon)) colon = equals;
    *width = wide && (!colon || wide < colon) ? 3 : 1;
    return *width == 3 ? wide : colon;
}

/* The field that a line's head names, and what stands behind; -1: none.  "KEY: value", "**Key** - value", "| KEY | value |". */
static int32_t read_key_within(const rv_schema *schema, span line, span *value, int depth) {
    span s = drop_bullet(line);
    if (s.bytes && *s.text == '|') {                       /* a row of a Markdown table */
        const char *start = s.text + 1, *end = memchr(start, '|', s.bytes - 1);
        if (!end) return -1;
        span key = unwrap_key((span){ start, (size_t)(end - start) });
        *value = trim((span){ end + 1, (size_t)(s.text + s.bytes - end - 1) });
        if (value->bytes && value->text[value->bytes - 1] == '|') *value = trim((span){ value->text, value->bytes - 1 });
        return key.bytes && key.bytes <= 80 ? rv_schema_find(schema, key.text, key.bytes) : -1;
    }
    size_t width;
    const char *colon = head_end(s, &width);
    if (!colon) return read_dashed(schema, s, value);
    span key = unwrap_key((span){ s.text, (size_t)(colon - s.text) });
    bool open = s.bytes > 2 && strncmp(s.text, "**", 2) == 0 && !memmem(s.text + 2, (size_t)(colon - s.text) - 1, "**", 2);
    *value = trim((span){ colon + width, (size_t)(s.text + s.bytes - colon) - width });
    if (open && value->bytes >= 2 && strncmp(value->text, "**", 2) == 0) *value = trim((span){ value->text + 2, value->bytes - 2 });
    if (key.bytes == 0 || key.bytes > 80) return -1;
    if (depth == 0) return rv_schema_find(schema, key.text, key.bytes);
    if (key.bytes == 3 && strncasecmp(key.text, "key", 3) == 0 && value->bytes)
        return read_key_within(schema, *value, value, depth - 1); /* "KEY: TOTAL: .." */
    int32_t field = rv_schema_find(schema, key.text, key.bytes);
    span again;
    if (field >= 0 && memchr(value->text, ':', value->bytes) && read_key_within(schema, *value, &again, depth - 1) == field)
        *value = again; /* "TOTAL: TOTAL: .." */
    return field;
}

static int32_t read_key(const rv_schema *schema, span line, span *value) { return read_key_within(schema, line, value, 2); }

/* Whether a line looks like the start of another field, known here or not. */
static bool looks_like_key(const rv_schema *schema, span line) {
    span value;
    size_t n = 0;
    if (read_key(schema, line, &value) >= 0) return true;
    span s = unwrap_key(drop_bullet(line));
    while (n < s.bytes && (isupper((uint8_t)s.text[n]) || isdigit((uint8_t)s.text[n]) || s.text[n] == '_')) n++;
    return n >= 3 && n < s.bytes && s.text[n] == ':';
}

/* The lines from `at` on that belong to a value; *at: behind them. */
static span following(const rv_schema *schema, const char *text, size_t bytes, size_t *at, bool bullets_only) {
    span all = { text + *at, 0 }, line;
    for (size_t next = *at; next_line(text, bytes, &next, &line);) {
        if (line.bytes == 0 && all.bytes == 0) {           /* an empty line before the first */
            *at = next;
            all.text = text + (next < bytes ? next : bytes);
            continue;
        }
        if (line.bytes == 0 || looks_like_key(schema, line) || (bullets_only && !has_bullet(line))) break;
        size_t end = (size_t)(line.text + line.bytes - all.text);
        all.bytes = end;
        *at = next;
    }
    return all;
}

static rv_status parse_lines(rv_parse *p, const char *text, size_t bytes) {
    const rv_schema *schema = p->record->schema;
    span line, value;
    rv_status st = RV_OK;
    for (size_t at = 0; st == RV_OK;) {
        size_t before = at;
        st = rv_parse_table(p, text, bytes, &at);
        if (at != before) continue;
        if (!next_line(text, bytes, &at, &line)) break;
        int32_t field = read_key(schema, line, &value);
        if (field < 0) continue;
        if (schema->fields[field].list && unwrap(value).bytes == 0) value = following(schema, text, bytes, &at, true);
        st = rv_parse_offer(p, (uint32_t)field, value.text, value.bytes);
    }
    return st;
}

/* A key alone on its line, its value on the lines below. */
static rv_status parse_blocks(rv_parse *p, const char *text, size_t bytes) {
    const rv_schema *schema = p->record->schema;
    span line, value;
    rv_status st = RV_OK;
    for (size_t at = 0; st == RV_OK && next_line(text, bytes, &at, &line);) {
        span key = unwrap_key(drop_bullet(line));
        int32_t field = read_key(schema, line, &value);
        if (field >= 0 && unwrap(value).bytes) continue;                    /* pass one had it */
        if (field < 0 && key.bytes && key.bytes <= 80) field = rv_schema_find(schema, key.text, key.bytes);
        if (field < 0) continue;
        value = following(schema, text, bytes, &at, false);
        st = rv_parse_offer(p, (uint32_t)field, value.text, value.bytes);
    }
    return st;
}

/* ---- everything ------------------------------------------------------------------------------- */

/* "<|eot_id|>" and the like are the chat template's, not the document's. */
static char *drop_control(const char *text, size_t bytes, size_t *out_bytes) {
    char *out = malloc(bytes + 1);
    size_t n = 0;
    for (size_t at = 0; out && at < bytes;) {
        if (text[at] == '<' && at + 1 < bytes && text[at + 1] == '|') {
            size_t end = at + 2;
            while (end < bytes && end - at < 40 && (islower((uint8_t)text[end]) || isdigit((uint8_t)text[end]) || text[end] == '_')) end++;
            if (end + 1 < bytes && text[end] == '|' && text[end + 1] == '>') {
                at = end + 2;
                continue;
            }
        }
        out[n++] = text[at++];
    }
    if (out) out[n] = '\0';
    *out_bytes = n;
    return out;
}

static rv_status parse_text(rv_parse *p, const char *text, size_t bytes) {
    const uint32_t fields = p->record->schema->n_fields;
    bool json = false;
    size_t n;
    char *clean = drop_control(text, bytes, &n);
    if (!clean) return rv_fail_memory(p->err, "answer");
    rv_status st = rv_parse_json(p, clean, n, false, &json);
    json = json && p->found;                               /* an object that said nothing settles nothing */
    if (st == RV_OK) st = parse_lines(p, clean, n);
    if (st == RV_OK && !json && p->found * 2 < fields) st = parse_blocks(p, clean, n);
    if (st == RV_OK && p->found == 0) st = rv_parse_json(p, clean, n, true, &json);
    if (st == RV_OK && !json && p->found * 2 < fields) st = rv_parse_sentences(p, clean, n);
    free(clean);
    return st;
}

rv_status rv_record_parse(rv_record *record, const char *text, size_t bytes, const char *source, uint32_t *found, rv_error *err) {
    rv_parse p = { .record = record, .source = source, .err = err };
    bool no_text = !text && bytes > 0;
    if (!record || no_text) return rv_fail(err, RV_ERR_ARGUMENT, "rv_record_parse: %s is NULL", !record ? "record" : "text");
    if (bytes > RV_PARSE_BYTES) return rv_fail(err, RV_ERR_TOO_LONG, "an answer of more than %d bytes", RV_PARSE_BYTES);
    rv_status st = rv_record_enter(record, "rv_record_parse", err);
    if (st) return st;
    st = parse_text(&p, text ? text : "", bytes);
    rv_record_leave(record);
    if (st == RV_OK && found) *found = p.found;
    return st;
}
