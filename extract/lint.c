/* lint.c - what is wrong with a truth file: see rv_lint in engine/rvextract.h.
 *
 * The one idea: truth is made by hand, and its mistakes look like the model's.  Amounts under RECEIPT_NUMBER, a column too many, a list
 * one item short: all of it shows when values are read as what their column says.
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/json_tree.h"
#include "engine/base/text.h"
#include "extract/check.h"
#include "extract/documents.h"
#include "extract/evaluate.h"
#include "extract/write.h"

typedef struct named { const char *name; uint32_t line; } named;
typedef struct problem { uint32_t line; const char *document, *field, *message, *value; } problem;

typedef struct linter {
    const rv_schema *schema;
    const char      *file;
    rv_pool          pool;
    problem         *problems;
    size_t           n, capacity;
    named           *names;            /* of documents                                                   */
    uint32_t         n_names, names_capacity, documents;
    uint32_t        *answered, *found; /* by field                                                       */
} linter;

enum { MOST_PROBLEMS = 10000 };

/* Tidied: names of columns are as the file has them, and this goes to a terminal or into JSON. */
static const char *keep(linter *l, const char *text) {
    const char *copy = text ? rv_tidy(&l->pool, text, strlen(text)) : "";
    return copy ? copy : "";
}

static void add(linter *l, uint32_t line, const char *document, const char *field, const char *message, const char *value) {
    if (l->n == MOST_PROBLEMS) return;
    if (l->n == l->capacity) {
        size_t capacity = l->capacity ? 2 * l->capacity : 64;
        problem *larger = rv_pool_take(&l->pool, capacity * sizeof *larger);
        if (!larger) return;
        if (l->n) memcpy(larger, l->problems, l->n * sizeof *larger);
        l->problems = larger;
        l->capacity = capacity;
    }
    l->problems[l->n++] = (problem){ line, keep(l, document), keep(l, field), keep(l, message), keep(l, value) };
}

static void unknown(void *user, const char *key, uint32_t line) { add(user, line, "", key, "no field of the schema has this name", ""); }

/* An identifier that reads as an amount: a shifted column. */
static bool looks_like_money(const rv_value *v) {
    rv_pool scratch = { 0 };
    rv_value money;
    const char *text = v->text;
    bool marked = strchr(text, '$') != NULL || (strlen(text) > 3 && text[strlen(text) - 3] == '.');
    rv_value_read(&scratch, RV_KIND_MONEY, text, strlen(text), NULL, &money);
    bool valid = money.state == RV_VALUE_VALID;
    rv_pool_free(&scratch);
    return marked && valid;
}

static void check_values(linter *l, const rv_record *r, uint32_t line) {
    for (uint32_t i = 0; i < r->schema->n_fields; i++) {
        const rv_slot *slot = &r->slots[i];
        const rv_field *f = &r->schema->fields[i];
        l->answered[i] += slot->answered;
        l->found[i] += slot->n_items > 0;
        for (uint32_t k = 0; k < slot->n_items; k++) {
            const rv_value *v = &slot->items[k];
            bool text = f->kind == RV_KIND_ID || f->kind == RV_KIND_NAME || f->kind == RV_KIND_ADDRESS || f->kind == RV_KIND_TEXT;
            if (text && v->state == RV_VALUE_VALID && looks_like_money(v))
                add(l, line, r->file, f->key, "an amount in a column that holds none: is the row shifted?", v->text);
        }
    }
}

static void check_findings(linter *l, const rv_record *r, uint32_t line) {
    for (uint32_t i = 0; i < r->n_findings; i++) {
        const rv_finding *f = &r->findings[i];
        bool told = f->layer == RV_LAYER_FORMAT
                        ? strcmp(f->id, "required") != 0
                        : strcmp(f->id, "list.aligned") == 0 || f->severity == RV_SEVERITY_ERROR || strstr(f->id, "sum") != NULL;
        if (f->layer == RV_LAYER_LEGAL || !told) continue;
        add(l, line, r->file, f->n_fields ? r->schema->fields[f->fields[0]].key : "", f->message, f->actual);
    }
}

static rv_status each(void *user, rv_record *r, uint32_t line, rv_error *err) {
    linter *l = user;
    const char *name = r->file;
    rv_status st = RV_OK;
    l->documents++;
    if (!*name) add(l, line, "", "", "the document has no name", "");
    if (l->n_names == l->names_capacity) {
        uint32_t capacity = l->names_capacity ? 2 * l->names_capacity : 256;
        named *larger = realloc(l->names, capacity * sizeof *larger);
        if (!larger) st = rv_fail_memory(err, l->file);
        else l->names = larger, l->names_capacity = capacity;
    }
    if (st == RV_OK) {
        l->names[l->n_names++] = (named){ keep(l, name), line };
        check_values(l, r, line);
        st = rv_record_check(r, err);
    }
    if (st == RV_OK) check_findings(l, r, line);
    rv_record_free(r);
    return st ? st : l->pool.failed ? rv_fail_memory(err, l->file) : RV_OK;
}

static int by_name(const void *a, const void *b) {
    const named *x = a, *y = b;
    const int order = strcmp(x->name, y->name);
    return order ? order : (x->line > y->line) - (x->line < y->line);
}

static void check_whole(linter *l) {
    if (l->n_names) qsort(l->names, l->n_names, sizeof *l->names, by_name);
    for (uint32_t i = 1; i < l->n_names; i++)
        if (*l->names[i].name && strcmp(l->names[i - 1].name, l->names[i].name) == 0) add(l, l->names[i].line, l->names[i].name, "", "the document is there twice", "");
    for (uint32_t i = 0; i < l->schema->n_fields; i++) {
        if (l->answered[i] == 0) add(l, 0, "", l->schema->fields[i].key, "no document has this field: it will not be scored", "");
        else if (l->found[i] == 0) add(l, 0, "", l->schema->fields[i].key, "NOT_FOUND in every document", "");
    }
}

/* ---- report ------------------------------------------------------------------------------------------------- */

static void write_text(const linter *l, rv_string *s) {
    for (size_t i = 0; i < l->n; i++) {
        const problem *p = &l->problems[i];
        rv_string_addf(s, "%s:", l->file);
        if (p->line) rv_string_addf(s, "%u:", p->line);
        rv_string_addf(s, " %s%s%s%s%s", p->document, *p->document ? ": " : "", p->field, *p->field ? ": " : "", p->message);
        const size_t bytes = strlen(p->value), shown = rv_utf8_check(p->value, bytes < 200 ? bytes : 200);
        if (bytes) rv_string_addf(s, " (\"%.*s\")", (int)shown, p->value);
        rv_string_addz(s, "\n");
    }
    rv_string_addf(s, "%u documents, %zu problems%s\n", l->documents, l->n, l->n == MOST_PROBLEMS ? " or more" : "");
}

static void write_csv(const linter *l, rv_string *s) {
    rv_string_addz(s, "line,document,field,problem,value\r\n");
    for (size_t i = 0; i < l->n; i++) {
        const problem *p = &l->problems[i];
        const char *const cells[] = { p->document, p->field, p->message, p->value };
        rv_string_addf(s, "%u", p->line);
        for (int c = 0; c < 4; c++) {
            rv_string_addz(s, ",");
            rv_csv_cell(s, cells[c]);
        }
        rv_string_addz(s, "\r\n");
    }
}

static void write_json(const linter *l, rv_string *s) {
    json_t *list = json_array();
    for (size_t i = 0; i < l->n; i++) {
        const problem *p = &l->problems[i];
        json_array_append_new(list, json_pack("{s:i,s:s,s:s,s:s,s:s}", "line", (int)p->line, "document", p->document, "field", p->field,
                                              "problem", p->message, "value", p->value));
    }
    json_t *to = json_pack("{s:s,s:i,s:o}", "file", l->file, "documents", (int)l->documents, "problems", list);
    char *text = to ? rv_json_dump(to, JSON_INDENT(2)) : NULL;
    json_decref(to);
    s->failed = s->failed || !text;
    if (text) rv_string_addf(s, "%s\n", text);
    free(text);
}

rv_status rv_lint_run(const rv_schema *schema, const rv_run *truth, rv_report_form form, char **report, uint32_t *problems, rv_error *err) {
    rv_record_setup setup = { 0 };
    linter l = { .schema = schema, .file = truth->name };
    rv_string s = { 0 };
    rv_status st = RV_OK;
    l.answered = rv_pool_take(&l.pool, schema->n_fields * sizeof *l.answered);
    l.found = rv_pool_take(&l.pool, schema->n_fields * sizeof *l.found);
    if (!l.answered || !l.found) st = rv_fail_memory(err, truth->name);
    if (st == RV_OK)
        st = rv_documents_read(
            &(rv_document_reader){ .schema = schema, .setup = &setup, .file = truth->name, .each = each, .unknown = unknown, .user = &l },
            truth->text, truth->bytes, err);
    if (st == RV_OK) {
        check_whole(&l);
        if (form == RV_REPORT_JSON) write_json(&l, &s);
        else if (form == RV_REPORT_CSV) write_csv(&l, &s);
        else write_text(&l, &s);
        if (s.failed) st = rv_fail_memory(err, "report");
    }
    if (st == RV_OK) {
        *report = s.data;
        *problems = (uint32_t)l.n;
    } else rv_string_free(&s);
    free(l.names);
    rv_pool_free(&l.pool);
    return st;
}
