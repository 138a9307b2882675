/* documents.c - CSV, JSON Lines, JSON and KEY: VALUE files to records: see documents.h. */
#include "extract/documents.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json_tree.h"
#include "engine/base/text.h"
#include "extract/csv.h"

static const char *const id_keys[] = { "image_file", "filename", "image_name", "image", "file", "id" };
enum { ID_KEYS = sizeof id_keys / sizeof *id_keys };

/* Columns and keys of result files that hold no field. */
static const char *const meta_keys[] = {
    "schema", "score", "tax_invoice_valid", "needs_review", "findings", "document", "tables", "compliance", "run", "status", "error", "prompt", "prompt_ids", "answer_ids", "first_logits", "grid", "font", "processing_time", "field_count",
    "found_fields", "field_coverage", "prompt_used", "timestamp", "overall_accuracy", "fields_extracted", "fields_matched",
    "total_fields", "inference_only", "fields", "truth", "answer", "text", "ms", "tokens",
};

static bool is_one_of(const char *text, const char *const *words, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (strcasecmp(words[i], text) == 0) return true;
    return false;
}

static bool is_meta(const char *key) {
    return is_one_of(key, id_keys, ID_KEYS) || is_one_of(key, meta_keys, sizeof meta_keys / sizeof *meta_keys);
}

/* The field of a column or key, -1: none.  A word of result files is the field's that has it for its key, else nobody's. */
static int32_t field_of(const rv_schema *schema, const char *name) {
    const int32_t field = rv_schema_find(schema, name, strlen(name));
    return field >= 0 && is_meta(name) && !rv_schema_same_key(schema->fields[field].key, name, strlen(name)) ? -1 : field;
}

const char *rv_base_name(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash ? slash + 1 : path;
}

/* A document's name goes into every report: tidied, and numbers in it are masked.  The same name is always masked alike, so that
 * results and truth still meet. */
static const char *keep_name(rv_record *r, const char *text) {
    const char *tidy = text && *text ? rv_tidy(&r->pool, text, strlen(text)) : "";
    char *safe = tidy && *tidy ? rv_mask(tidy, strlen(tidy), RV_SENSITIVE_FILE, NULL) : NULL;
    const char *copy = safe ? rv_pool_text(&r->pool, safe, strlen(safe)) : "";
    r->pool.failed = r->pool.failed || (tidy && *tidy && !safe);
    free(safe);
    return copy ? copy : "";
}

rv_status rv_record_make(const rv_schema *schema, const rv_record_setup *setup, rv_record **out, rv_error *err) {
    rv_record *r = rv_record_blank(schema);
    if (!r) return rv_fail_memory(err, "record");
    r->file = keep_name(r, setup->file);
    if (setup->page_text) r->text = rv_pool_text(&r->pool, setup->page_text, strlen(setup->page_text));
    r->page_width = setup->page_width;
    r->page_height = setup->page_height;
    r->today = setup->today;
    r->allow_tfn = setup->allow_tfn;
    r->allow_account = setup->allow_account;
    if (r->pool.failed) {
        rv_record_free(r);
        return rv_fail_memory(err, "record");
    }
    *out = r;
    return RV_OK;
}

static rv_status start(const rv_document_reader *d, const char *name, rv_record **out, rv_error *err) {
    rv_record_setup setup = *d->setup;
    if (name && *name) setup.file = name;
    return rv_record_make(d->schema, &setup, out, err);
}

static void report_unknown(const rv_document_reader *d, const char *key, uint32_t line) {
    if (d->unknown && !is_meta(key)) d->unknown(d->user, key, line);
}

/* ---- CSV ---------------------------------------------------------------------------------------------- */

typedef struct header { int32_t field[RV_CSV_CELLS]; uint32_t n, id; } header;      /* id: the column of names; n: none */

static rv_status read_header(const rv_document_reader *d, const rv_csv *csv, header *h, rv_error *err) {
    h->n = h->id = csv->n;
    for (int k = 0; k < ID_KEYS && h->id == h->n; k++)
        for (uint32_t i = 0; i < csv->n && h->id == h->n; i++)
            if (strcasecmp(rv_string_text(&csv->cells[i]), id_keys[k]) == 0) h->id = i;
    uint32_t known = 0;
    for (uint32_t i = 0; i < csv->n; i++) {
        const char *name = rv_string_text(&csv->cells[i]);
        h->field[i] = field_of(d->schema, name);
        if (h->field[i] >= 0) known++;
        else report_unknown(d, name, csv->line);
        for (uint32_t j = 0; j < i && h->field[i] >= 0; j++) {
            if (h->field[j] != h->field[i]) continue;
            if (!is_meta(rv_string_text(&csv->cells[j])))
                return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: columns %u and %u are both %s", d->file, csv->line, j + 1, i + 1,
                               d->schema->fields[h->field[i]].key);
            h->field[j] = -1;                              /* "score,SCORE": this library's own columns come first */
        }
    }
    if (known == 0) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: no column is a field of schema %s", d->file, csv->line, d->schema->name);
    return RV_OK;
}

static rv_status csv_row(const rv_document_reader *d, const rv_csv *csv, const header *h, rv_error *err) {
    rv_record *record;
    if (csv->n != h->n) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: %u cells, the header has %u", d->file, csv->line, csv->n, h->n);
    rv_status st = start(d, h->id < h->n ? rv_csv_unguarded(rv_string_text(&csv->cells[h->id])) : NULL, &record, err);
    if (st) return st;
    for (uint32_t i = 0; i < csv->n && st == RV_OK; i++) {
        if (h->field[i] < 0) continue;
        const char *text = rv_csv_unguarded(rv_string_text(&csv->cells[i]));
        st = rv_record_set(record, (uint32_t)h->field[i], text, strlen(text), "given", err);
    }
    if (st) rv_record_free(record);
    return st ? st : d->each(d->user, record, csv->line, err);
}

static rv_status read_csv(const rv_document_reader *d, const char *text, size_t bytes, rv_error *err) {
    rv_csv *csv = calloc(1, sizeof *csv);
    header *h = calloc(1, sizeof *h);
    bool more = false;
    rv_status st = csv && h ? RV_OK : rv_fail_memory(err, d->file);
    if (st == RV_OK) {
        csv->text = text;
        csv->bytes = bytes;
        st = rv_csv_next(csv, d->file, &more, err);
    }
    if (st == RV_OK) st = read_header(d, csv, h, err);
    uint32_t rows = 0;
    for (; st == RV_OK && (st = rv_csv_next(csv, d->file, &more, err)) == RV_OK && more; rows++) st = csv_row(d, csv, h, err);
    if (st == RV_OK && rows == 0) st = rv_fail(err, RV_ERR_FORMAT, "%s: no documents: only a line of names", d->file);
    if (csv) rv_csv_free(csv);
    free(csv);
    free(h);
    return st;
}

/* ---- JSON ------------------------------------------------------------------------------------------------ */

static void add_scalar(rv_string *out, const json_t *v) {
    if (json_is_string(v)) rv_string_add(out, json_string_value(v), json_string_length(v));
    else if (json_is_integer(v)) rv_string_addf(out, "%lld", (long long)json_integer_value(v));
    else if (json_is_real(v)) rv_string_addf(out, "%.15g", json_real_value(v));      /* with an exponent: others are texts */
    else if (json_is_boolean(v)) rv_string_addz(out, json_is_true(v) ? "true" : "false");
    else rv_string_addz(out, RV_NOT_FOUND);
}

/* A scalar, a list of scalars, or an object with "value" (this library's own form). */
static rv_status set_json(const rv_document_reader *d, rv_record *record, uint32_t field, const json_t *v, uint32_t line, rv_error *err) {
    rv_string text = { 0 };
    const json_t *own = json_is_object(v) ? json_object_get(v, "value") : v;
    bool good = own && !json_is_object(own);
    for (size_t i = 0; good && i < json_array_size(own); i++) good = !json_is_object(json_array_get(own, i)) && !json_is_array(json_array_get(own, i));
    if (!good)
        return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: %s: must be a text, a number, a list of them, or an object with \"value\"", d->file, line,
                       d->schema->fields[field].key);
    const bool assumed = json_is_object(v) && json_is_true(json_object_get(v, "currency_assumed"));
    v = own;
    if (json_is_array(v)) {
        for (size_t i = 0; i < json_array_size(v); i++) {
            if (i) rv_string_addz(&text, " | ");
            add_scalar(&text, json_array_get(v, i));
        }
    } else add_scalar(&text, v);
    rv_status st = text.failed ? rv_fail_memory(err, d->file)
                 : json_is_array(v) ? rv_record_set_cells(record, field, rv_string_text(&text), text.bytes, "given", err)
                                    : rv_record_set(record, field, rv_string_text(&text), text.bytes, "given", err);
    rv_string_free(&text);
    for (uint32_t i = 0; assumed && st == RV_OK && i < record->slots[field].n_items; i++)
        record->slots[field].items[i].currency_assumed = true;   /* the dollar in "value" was not on the page */
    return st;
}

static const char *id_of(const json_t *object, char number[24]) {
    for (int i = 0; i < ID_KEYS; i++) {
        const json_t *is = json_object_get(object, id_keys[i]);
        if (json_is_string(is)) return json_string_value(is);
        if (!json_is_integer(is)) continue;
        snprintf(number, 24, "%lld", (long long)json_integer_value(is));
        return number;
    }
    return json_string_value(json_object_get(json_object_get(object, "document"), "file"));
}

static rv_status set_fields(const rv_document_reader *d, rv_record *record, json_t *fields, uint32_t line, rv_error *err) {
    const char *key;
    json_t *value;
    rv_status st = RV_OK;
    json_object_foreach(fields, key, value) {
        int32_t field = field_of(d->schema, key);
        if (field >= 0 && st == RV_OK && record->slots[field].answered)
            st = rv_fail(err, RV_ERR_FORMAT, "%s: line %u: %s is there twice, once as %s", d->file, line, d->schema->fields[field].key, key);
        else if (field >= 0 && st == RV_OK) st = set_json(d, record, (uint32_t)field, value, line, err);
        else if (field < 0) report_unknown(d, key, line);
    }
    return st;
}

static rv_status read_object(const rv_document_reader *d, json_t *object, uint32_t line, rv_error *err) {
    static const char *const texts[] = { "truth", "answer", "text" };
    rv_record *record;
    char number[24];
    if (!json_is_object(object)) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: a document must be a JSON object", d->file, line);
    json_t *fields = json_object_get(object, "fields");
    if (fields && !json_is_object(fields)) return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: \"fields\" must be an object", d->file, line);
    rv_status st = start(d, id_of(object, number), &record, err);
    if (st) return st;
    const json_t *text = NULL;
    for (int i = 0; i < 3 && !text; i++)
        if (json_is_string(json_object_get(object, texts[i])) && field_of(d->schema, texts[i]) < 0) text = json_object_get(object, texts[i]);
    if (json_is_object(fields)) st = set_fields(d, record, fields, line, err);
    else if (text) st = rv_record_parse(record, json_string_value(text), json_string_length(text), "given", NULL, err);
    else st = set_fields(d, record, object, line, err);
    if (st) rv_record_free(record);
    return st ? st : d->each(d->user, record, line, err);
}

/* Where the elements of a list stand; the text is a list, and good JSON. */
typedef struct elements { const char *text; size_t bytes, at; uint32_t line; } elements;

/* The line on which the next one begins; goes behind it. */
static uint32_t next_element(elements *e) {
    int depth = 0;
    bool quoted = false;
    while (e->at < e->bytes && (isspace((uint8_t)e->text[e->at]) || (e->at == 0 && e->text[0] == '['))) e->line += e->text[e->at++] == '\n';
    const uint32_t line = e->line;
    for (bool end = false; e->at < e->bytes && !end; e->at++) {
        const char c = e->text[e->at];
        e->line += c == '\n';
        if (quoted) {
            if (c == '\\') e->at++;
            else quoted = c != '"';
        } else {
            quoted = c == '"';
            depth += (c == '{' || c == '[') - (c == '}' || c == ']');
            end = c == ',' && depth == 0;
        }
    }
    return line;
}

static rv_status read_list_of_objects(const rv_document_reader *d, const json_t *list, elements e, rv_error *err) {
    rv_status st = RV_OK;
    if (json_array_size(list) == 0) return rv_fail(err, RV_ERR_FORMAT, "%s: no documents: an empty list", d->file);
    for (size_t i = 0; i < json_array_size(list) && st == RV_OK; i++) st = read_object(d, json_array_get(list, i), next_element(&e), err);
    return st;
}

static rv_status read_json_text(const rv_document_reader *d, const char *text, size_t bytes, uint32_t line, rv_error *err) {
    json_error_t why;
    bool no_memory;
    json_t *root = rv_json_load(text, bytes, JSON_REJECT_DUPLICATES | RV_JSON_DECIMALS_AS_TEXT, &why, &no_memory);
    if (!root && no_memory) return rv_fail_memory(err, d->file);
    if (!root) {
        char *near = strstr(why.text, " near '");          /* what stands there may be a number that no log should have */
        if (near) *near = '\0';
        uint32_t at = line + (uint32_t)(why.line > 0 ? why.line - 1 : 0);
        return rv_fail(err, RV_ERR_FORMAT, "%s: line %u: not valid JSON: %s", d->file, at, why.text);
    }
    rv_status st = RV_OK;
    size_t blank = 0;
    while (blank < bytes && isspace((uint8_t)text[blank])) line += text[blank++] == '\n';
    if (json_is_array(root)) st = read_list_of_objects(d, root, (elements){ text + blank, bytes - blank, 0, line }, err);
    else st = read_object(d, root, line, err);
    json_decref(root);
    return st;
}

static rv_status read_json_lines(const rv_document_reader *d, const char *text, size_t bytes, rv_error *err) {
    rv_status st = RV_OK;
    uint32_t line = 1;
    for (size_t at = 0; at < bytes && st == RV_OK; line++) {
        const char *end = memchr(text + at, '\n', bytes - at);
        size_t n = end ? (size_t)(end - text) - at : bytes - at, blank = 0;
        while (blank < n && isspace((uint8_t)text[at + blank])) blank++;
        if (blank < n) st = read_json_text(d, text + at, n, line, err);
        at += n + 1;
    }
    return st;
}

/* One object over several lines is JSON; objects line by line are JSON Lines. */
static bool is_json_lines(const char *text, size_t bytes) {
    const char *end = memchr(text, '\n', bytes);
    if (*text != '{' || !end) return false;
    json_error_t why;
    bool no_memory;                                          /* the whole text's reader will say so            */
    json_t *first = rv_json_load(text, (size_t)(end - text), RV_JSON_DECIMALS_AS_TEXT, &why, &no_memory);
    json_decref(first);
    return first != NULL;
}

/* ---- any ---------------------------------------------------------------------------------------------------- */

/* A line with a separator in it, and no colon in front of the first one. */
static bool has_cells(const char *line, size_t bytes) {
    size_t name = 0;                                         /* no NUL need stand behind the text */
    while (name < bytes && !(line[name] && strchr(",;\t\":", line[name]))) name++;
    return name < bytes && line[name] != ':';
}

/* Whether a name of a field or of the document is among the cells of a first line. */
static bool names_column(const rv_document_reader *d, const char *line, size_t bytes) {
    for (size_t at = 0, n; at <= bytes; at += n + 1) {
        n = 0;
        while (at + n < bytes && !(line[at + n] && strchr(",;\t", line[at + n]))) n++;
        size_t from = at, to = at + n;
        while (from < to && (isspace((uint8_t)line[from]) || line[from] == '"')) from++;
        while (to > from && (isspace((uint8_t)line[to - 1]) || line[to - 1] == '"')) to--;
        if (from < to && rv_schema_find(d->schema, line + from, to - from) >= 0) return true;
        for (int k = 0; k < ID_KEYS; k++)
            if (to - from == strlen(id_keys[k]) && !strncasecmp(line + from, id_keys[k], to - from)) return true;
    }
    return false;
}

/* One document as a model answered it.  Where that has no field but the first line has cells, it is CSV of another schema: its reader says so. */
static rv_status read_answer(const rv_document_reader *d, const char *text, size_t bytes, bool cells, rv_error *err) {
    rv_record *record;
    uint32_t found = 0;
    rv_status st = start(d, NULL, &record, err);
    if (st) return st;
    st = rv_record_parse(record, text, bytes, "given", &found, err);
    if (st || (cells && found == 0)) rv_record_free(record);
    if (st == RV_OK && cells && found == 0) return read_csv(d, text, bytes, err);
    return st ? st : d->each(d->user, record, 1, err);
}

rv_status rv_documents_read(const rv_document_reader *d, const char *text, size_t bytes, rv_error *err) {
    if (bytes >= 3 && memcmp(text, "\xef\xbb\xbf", 3) == 0) text += 3, bytes -= 3;
    while (bytes && isspace((uint8_t)*text) && *text != '\n') text++, bytes--;
    size_t blank = 0;
    while (blank < bytes && isspace((uint8_t)text[blank])) blank++;
    if (blank == bytes) return rv_fail(err, RV_ERR_FORMAT, "%s: is empty", d->file);
    if (text[blank] == '{' || text[blank] == '[')
        return is_json_lines(text + blank, bytes - blank) ? read_json_lines(d, text, bytes, err) : read_json_text(d, text, bytes, 1, err);
    const char *first = text + blank;
    size_t n = 0;
    while (blank + n < bytes && first[n] != '\r' && first[n] != '\n') n++;
    const bool cells = has_cells(first, n), column = !cells && rv_schema_find(d->schema, first, n) >= 0;
    if (column || (cells && names_column(d, first, n))) return read_csv(d, text, bytes, err);
    return read_answer(d, text, bytes, cells, err);
}
