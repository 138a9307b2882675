/* constraint_json.c - a JSON Schema as a regular expression over the texts that fit it.
 *
 * The one idea: without recursion, JSON of a given schema is a regular language: objects are their properties in the order
 * of the schema, arrays repetitions, strings a class of characters.  So one kind of automaton serves all constraints.
 */
#include <stdlib.h>
#include <string.h>

#include "engine/base/json_tree.h"
#include "engine/constraint.h"
#include "extract/pattern.h"

enum { MOST_DEPTH = 32, MOST_PATTERN = 1 << 20, ANY_DEPTH = 4 };     /* ANY_DEPTH: as rvconstraint.h, README.md and --help say */

#define BLANK "(?:\\n {0,12}| ?)"
#define HEX "[0-9a-fA-F]"
/* Half of a surrogate pair is no character, and NUL none of a text; many readers refuse both: what lies beyond \\uffff is written as it is. */
#define UNIT "u(?:(?:0[1-9a-fA-F]|[1-9a-cA-CefEF]" HEX "|[dD][0-7])" HEX HEX "|00(?:0[1-9a-fA-F]|[1-9a-fA-F]" HEX "))"
#define CHARACTER "(?:[^\"\\\\]|\\\\(?:[\"\\\\/bfnrt]|" UNIT "))"
#define INTEGER "-?(?:0|[1-9][0-9]{0,17})"
#define NUMBER INTEGER "(?:\\.[0-9]{1,17})?(?:[eE][+\\-]?[0-9]{1,2})?"

typedef struct reader {
    const json_t *root;
    rv_string     out;
    char          place[512];            /* "/properties/total"                                 */
    int           depth;
    rv_error     *err;
} reader;

static rv_status value(reader *r, const json_t *schema);

static rv_status refuse(reader *r, rv_status code, const char *what, const char *name) {
    return rv_fail(r->err, code, "JSON Schema: %s: %s%s%s", r->place[0] ? r->place : "/", what, name ? " " : "", name ? name : "");
}

static size_t enter(reader *r, const char *name) {
    size_t n = strlen(r->place);
    snprintf(r->place + n, sizeof r->place - n, "/%.100s", name);
    return n;
}

/* ---- keywords ---- */

static rv_status check_keywords(reader *r, const json_t *schema) {
    static const char *const known[] = {
        "type", "properties", "required", "items", "minItems", "maxItems", "enum", "const", "minLength", "maxLength", "pattern", "anyOf", "oneOf",
        "$ref", "$defs", "definitions", "additionalProperties", "title", "description", "default", "examples", "$schema", "$id", "$comment", "format",
    };
    const char *key;
    json_t *unused;
    json_object_foreach((json_t *)(uintptr_t)schema, key, unused) {
        bool found = strncmp(key, "x-", 2) == 0;
        (void)unused;
        for (size_t i = 0; i < sizeof known / sizeof *known; i++) found |= !strcmp(key, known[i]);
        if (!found) return refuse(r, RV_ERR_UNSUPPORTED, "this keyword is not supported:", key);
    }
    if (json_is_object(json_object_get(schema, "additionalProperties")) || json_is_true(json_object_get(schema, "additionalProperties")))
        return refuse(r, RV_ERR_UNSUPPORTED, "additionalProperties may only be false: an answer has the properties that are named", NULL);
    return RV_OK;
}

/* A whole number of the schema from `least` on, or `otherwise`. */
static rv_status whole(reader *r, const json_t *schema, const char *key, int otherwise, int *out) {
    const json_t *is = json_object_get(schema, key);
    *out = otherwise;
    if (!is) return RV_OK;
    if (!json_is_integer(is) || json_integer_value(is) < 0 || json_integer_value(is) > 1000) return refuse(r, RV_ERR_UNSUPPORTED, "must be a whole number from 0 to 1000:", key);
    *out = (int)json_integer_value(is);
    return RV_OK;
}

/* Numbers with as few digits from 15 on as say them: 0.1, not 0.10000000000000001, nor 1e2 for 100.0. */
static char *shortest_dump(const json_t *is) {
    for (size_t digits = 15; digits < 17; digits++) {
        char *text = rv_json_dump(is, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(digits));
        json_error_t why;
        bool no_memory;
        json_t *again = text ? rv_json_load(text, strlen(text), JSON_DECODE_ANY, &why, &no_memory) : NULL;
        bool same = again && json_equal((json_t *)(uintptr_t)is, again);
        json_decref(again);
        if (same) return text;
        free(text);
    }
    return rv_json_dump(is, JSON_ENCODE_ANY | JSON_COMPACT);
}

static rv_status add_literal(reader *r, const json_t *is) {
    char *text = shortest_dump(is);
    if (!text) return rv_fail_memory(r->err, "JSON Schema");
    for (const char *c = text; *c; c++) {
        bool word = (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'z') || (*c >= 'A' && *c <= 'Z') || (unsigned char)*c >= 128;
        if (!word) rv_string_add(&r->out, "\\", 1);
        rv_string_add(&r->out, c, 1);
    }
    free(text);
    return RV_OK;
}

/* ---- types ---- */

/* The states after one more character than those of `now`; false: none. */
static bool next_character(const rv_dfa *d, const uint8_t *now, uint8_t *then) {
    bool any = false;
    memset(then, 0, (size_t)d->states);
    for (int32_t s = 1; s < d->states; s++)
        for (int byte = 0; now[s] && byte < 256; byte++)
            if ((byte & 0xc0) != 0x80 && d->next[s][byte]) then[d->next[s][byte]] = any = true;
    for (int more = 0; more < 3; more++)                     /* the rest of its bytes */
        for (int32_t s = 1; s < d->states; s++)
            for (int byte = 0x80; then[s] && byte < 0xc0; byte++)
                if (d->next[s][byte]) then[d->next[s][byte]] = true;
    return any;
}

/* Whether every text of the automaton has `least` to `most` characters (most < 0: any number).  False too without memory. */
static bool has_lengths(const rv_dfa *d, int least, int most) {
    const size_t n = (size_t)d->states;
    uint8_t *now = calloc(n, 1), *then = calloc(n, 1);
    bool fits = now && then, any = fits;
    if (fits) now[1] = true;
    for (int length = 0; fits && any && (length < least || most >= 0); length++) {
        for (size_t s = 1; s < n; s++) fits = fits && !(now[s] && d->accept[s] && length < least);
        fits = fits && (most < 0 || length <= most);         /* no state but the dead one is without a way to an end */
        any = next_character(d, now, then);
        memcpy(now, then, n);
    }
    free(now);
    free(then);
    return fits;
}

static rv_status pattern_of_string(reader *r, const char *pattern, int least, int most) {
    size_t n = strlen(pattern);
    bool whole_text = n >= 2 && pattern[0] == '^' && pattern[n - 1] == '$' && pattern[n - 2] != '\\', plain = true;
    if (!whole_text) return refuse(r, RV_ERR_UNSUPPORTED, "pattern must begin with ^ and end with $", NULL);
    char *inner = strndup(pattern + 1, n - 2);
    if (!inner) return rv_fail_memory(r->err, "JSON Schema");
    rv_dfa d;
    rv_error why;
    rv_status st = rv_dfa_pattern(inner, &d, &why);
    if (st) st = refuse(r, st, "pattern:", why.message);
    else {
        for (int32_t s = 1; s < d.states; s++)
            for (int byte = 0; byte < 128; byte++) plain = plain && !(d.next[s][byte] && (byte < 0x20 || byte == '"' || byte == '\\'));
        if (!plain) st = refuse(r, RV_ERR_UNSUPPORTED, "pattern may only match characters that need no escape in JSON: no '\"', backslash, tab or newline, so no '.' and no \\s", NULL);
        else if (!has_lengths(&d, least, most)) st = refuse(r, RV_ERR_UNSUPPORTED, "minLength and maxLength beside a pattern must be said in the pattern, as {m,n}", NULL);
        else rv_string_addf(&r->out, "\"(?:%s)\"", inner);
        rv_dfa_free(&d);
    }
    free(inner);
    return st;
}

static rv_status string(reader *r, const json_t *schema) {
    const char *pattern = json_string_value(json_object_get(schema, "pattern"));
    int least, most;
    rv_status st = whole(r, schema, "minLength", 0, &least);
    if (st == RV_OK) st = whole(r, schema, "maxLength", -1, &most);
    if (st) return st;
    if (most >= 0 && most < least) return refuse(r, RV_ERR_FORMAT, "nothing fits: maxLength is less than minLength", NULL);
    if (pattern) return pattern_of_string(r, pattern, least, most);
    if (most >= 0) rv_string_addf(&r->out, "\"%s{%d,%d}\"", CHARACTER, least, most);
    else rv_string_addf(&r->out, "\"%s{%d,}\"", CHARACTER, least);
    return RV_OK;
}

static rv_status array(reader *r, const json_t *schema) {
    const json_t *items = json_object_get(schema, "items");
    int least, most;
    rv_status st = whole(r, schema, "minItems", 0, &least);
    if (st == RV_OK) st = whole(r, schema, "maxItems", -1, &most);
    if (st) return st;
    if (!json_is_object(items)) return refuse(r, RV_ERR_UNSUPPORTED, "an array needs items, a schema", NULL);
    if (most >= 0 && most < least) return refuse(r, RV_ERR_FORMAT, "nothing fits: maxItems is less than minItems", NULL);
    if (most == 0) return rv_string_addz(&r->out, "\\[" BLANK "\\]"), RV_OK;
    size_t place = enter(r, "items"), from = r->out.bytes;
    rv_string_addz(&r->out, least ? "\\[" BLANK : "\\[" BLANK "(?:");
    size_t item = r->out.bytes;
    if ((st = value(r, items))) return st;
    r->place[place] = '\0';
    size_t n = r->out.bytes - item;
    char *one = r->out.failed ? NULL : strndup(r->out.data + item, n);
    if (!one) return rv_fail_memory(r->err, "JSON Schema");
    rv_string_addf(&r->out, "(?:," BLANK "%s)", one);
    free(one);
    if (most >= 0) rv_string_addf(&r->out, "{%d,%d}", least ? least - 1 : 0, most - 1);
    else rv_string_addf(&r->out, "{%d,}", least ? least - 1 : 0);
    rv_string_addz(&r->out, least ? BLANK "\\]" : ")?" BLANK "\\]");
    return r->out.bytes - from > MOST_PATTERN ? refuse(r, RV_ERR_UNSUPPORTED, "the schema is too large", NULL) : RV_OK;
}

static bool is_required(const json_t *schema, const char *name) {
    size_t i;
    json_t *one;
    json_array_foreach(json_object_get(schema, "required"), i, one)
        if (json_is_string(one) && !strcmp(json_string_value(one), name)) return true;
    return false;
}

/* The properties from `at` on, as "" or with the comma before them: an optional one is there or not, so the rest is written for both cases. */
static rv_status properties(reader *r, const json_t *schema, void *at, bool first) {
    json_t *all = json_object_get(schema, "properties");
    if (!at) return RV_OK;
    const char *name = json_object_iter_key(at);
    bool optional = !is_required(schema, name);
    if (r->out.bytes > MOST_PATTERN) return refuse(r, RV_ERR_UNSUPPORTED, "the schema is too large: make more properties required", NULL);
    if (optional) rv_string_addz(&r->out, "(?:");
    if (!first) rv_string_addz(&r->out, "," BLANK);
    json_t *key = json_string(name);
    rv_status st = key ? add_literal(r, key) : rv_fail_memory(r->err, "JSON Schema");
    json_decref(key);
    rv_string_addz(&r->out, ": ?");
    size_t place = enter(r, "properties"), before = enter(r, name);
    (void)before;
    if (st == RV_OK) st = value(r, json_object_iter_value(at));
    if (st) return st;
    r->place[place] = '\0';
    if (optional && !first) rv_string_addz(&r->out, ")?");
    if ((st = properties(r, schema, json_object_iter_next(all, at), false))) return st;
    if (!optional || !first) return RV_OK;
    rv_string_addz(&r->out, "|");
    if ((st = properties(r, schema, json_object_iter_next(all, at), true))) return st;
    rv_string_addz(&r->out, ")");
    return RV_OK;
}

static rv_status object(reader *r, const json_t *schema) {
    json_t *all = json_object_get(schema, "properties"), *one;
    size_t i;
    json_array_foreach(json_object_get(schema, "required"), i, one)
        if (!json_is_string(one) || !json_object_get(all, json_string_value(one)))
            return refuse(r, RV_ERR_FORMAT, "required names no property:", json_is_string(one) ? json_string_value(one) : "(not a text)");
    rv_string_addz(&r->out, "\\{" BLANK);
    rv_status st = properties(r, schema, json_object_iter(all), true);
    rv_string_addz(&r->out, BLANK "\\}");
    return st;
}

static rv_status of_type(reader *r, const json_t *schema, const char *type) {
    if (!strcmp(type, "object")) return object(r, schema);
    if (!strcmp(type, "array")) return array(r, schema);
    if (!strcmp(type, "string")) return string(r, schema);
    if (!strcmp(type, "integer")) rv_string_addz(&r->out, INTEGER);
    else if (!strcmp(type, "number")) rv_string_addz(&r->out, NUMBER);
    else if (!strcmp(type, "boolean")) rv_string_addz(&r->out, "(?:true|false)");
    else if (!strcmp(type, "null")) rv_string_addz(&r->out, "null");
    else return refuse(r, RV_ERR_FORMAT, "is no JSON type:", type);
    return RV_OK;
}

/* ---- schemas ---- */

static rv_status any_of(reader *r, const json_t *list, const char *key) {
    size_t i;
    json_t *one;
    rv_status st = RV_OK;
    if (!json_is_array(list) || json_array_size(list) == 0) return refuse(r, RV_ERR_FORMAT, "must be a list of schemas:", key);
    size_t place = enter(r, key);
    rv_string_addz(&r->out, "(?:");
    json_array_foreach(list, i, one) {
        rv_string_addz(&r->out, i ? "|" : "");
        if ((st = value(r, one))) return st;
    }
    r->place[place] = '\0';
    rv_string_addz(&r->out, ")");
    return RV_OK;
}

/* Whether a value is of the schema's type, or of one of them; a schema without one takes all. */
static bool is_of_type(const json_t *schema, const json_t *is) {
    static const char *const names[] = { [JSON_OBJECT] = "object", [JSON_ARRAY] = "array", [JSON_STRING] = "string", [JSON_INTEGER] = "integer",
                                         [JSON_REAL] = "number", [JSON_TRUE] = "boolean", [JSON_FALSE] = "boolean", [JSON_NULL] = "null" };
    const json_t *type = json_object_get(schema, "type");
    const size_t n = json_is_array(type) ? json_array_size(type) : 1;
    for (size_t i = 0; type && i < n; i++) {
        const char *name = json_string_value(json_is_array(type) ? json_array_get(type, i) : type);
        if (name && (!strcmp(name, names[json_typeof(is)]) || (json_is_integer(is) && !strcmp(name, "number")))) return true;
    }
    return !type;
}

static rv_status one_of_values(reader *r, const json_t *schema, const json_t *list) {
    size_t i, n = 0;
    json_t *one;
    rv_status st = RV_OK;
    if (!json_is_array(list) || json_array_size(list) == 0) return refuse(r, RV_ERR_FORMAT, "enum must be a list of values", NULL);
    rv_string_addz(&r->out, "(?:");
    json_array_foreach(list, i, one) {
        if (!is_of_type(schema, one)) continue;
        rv_string_addz(&r->out, n++ ? "|" : "");
        if ((st = add_literal(r, one))) return st;
    }
    rv_string_addz(&r->out, ")");
    return n ? RV_OK : refuse(r, RV_ERR_FORMAT, "nothing fits: no value of enum is of the type", NULL);
}

static rv_status referred(reader *r, const char *ref) {
    const json_t *at = strncmp(ref, "#/", 2) ? NULL : r->root;
    char name[256];
    for (const char *p = ref + 1; at && *p == '/';) {
        size_t n = strcspn(++p, "/");
        if (n >= sizeof name) at = NULL;
        else {
            memcpy(name, p, n);
            name[n] = '\0';
            at = json_object_get(at, name);
        }
        p += n;
    }
    return at ? value(r, at) : refuse(r, RV_ERR_FORMAT, "$ref leads nowhere in this schema:", ref);
}

static rv_status types(reader *r, const json_t *schema, const json_t *type) {
    size_t i;
    json_t *one;
    rv_status st = RV_OK;
    if (json_is_string(type)) return of_type(r, schema, json_string_value(type));
    if (!json_is_array(type) || json_array_size(type) == 0)
        return json_object_get(schema, "properties") ? object(r, schema) : refuse(r, RV_ERR_UNSUPPORTED, "a type, enum, const, anyOf or $ref is needed", NULL);
    rv_string_addz(&r->out, "(?:");
    json_array_foreach(type, i, one) {
        rv_string_addz(&r->out, i ? "|" : "");
        if ((st = of_type(r, schema, json_is_string(one) ? json_string_value(one) : "(not a text)"))) return st;
    }
    rv_string_addz(&r->out, ")");
    return RV_OK;
}

static rv_status value(reader *r, const json_t *schema) {
    if (!json_is_object(schema)) return refuse(r, RV_ERR_UNSUPPORTED, "must be a schema object", NULL);
    if (r->depth == MOST_DEPTH) return refuse(r, RV_ERR_UNSUPPORTED, "schemas are nested more than 32 deep, or refer to themselves", NULL);
    if (r->out.bytes > MOST_PATTERN) return refuse(r, RV_ERR_UNSUPPORTED, "the schema is too large", NULL);
    rv_status st = check_keywords(r, schema);
    const json_t *ref = json_object_get(schema, "$ref"), *is = json_object_get(schema, "const");
    const char *list = json_object_get(schema, "anyOf") ? "anyOf" : json_object_get(schema, "oneOf") ? "oneOf" : NULL;
    r->depth++;
    if (st) return st;
    if (ref) st = referred(r, json_is_string(ref) ? json_string_value(ref) : "(not a text)");
    else if (is) st = is_of_type(schema, is) ? add_literal(r, is) : refuse(r, RV_ERR_FORMAT, "nothing fits: const is not of the type", NULL);
    else if (json_object_get(schema, "enum")) st = one_of_values(r, schema, json_object_get(schema, "enum"));
    else if (list) st = any_of(r, json_object_get(schema, list), list);
    else st = types(r, schema, json_object_get(schema, "type"));
    r->depth--;
    return st;
}

rv_status rv_json_pattern(const char *schema, size_t bytes, char **out, rv_error *err) {
    json_error_t why;
    bool no_memory;
    json_t *root = rv_json_load(schema, bytes, JSON_REJECT_DUPLICATES, &why, &no_memory);
    if (!root && no_memory) return rv_fail_memory(err, "JSON Schema");
    if (!root) return rv_fail(err, RV_ERR_FORMAT, "JSON Schema: %s (line %d, column %d)", why.text, why.line, why.column);
    reader r = { .root = root, .err = err };
    rv_status st = value(&r, root);
    json_decref(root);
    if (st == RV_OK && r.out.failed) st = rv_fail_memory(err, "JSON Schema");
    if (st) rv_string_free(&r.out);
    else *out = r.out.data;
    return st;
}

/* ---- any JSON ---- */

static void any_value(rv_string *out, int depth);

/* Items before a comma and the last item begin in the same way, and a container that lies in another one of them leaves both places
 * open: written as "(item,)*item" they share the automaton's states until the comma, "item(,item)*" would have them twice at every depth. */
static void any_container(rv_string *out, bool is_object, int depth) {
    rv_string item = { 0 };
    rv_string_addz(&item, is_object ? "\"" CHARACTER "*\": ?" : "");
    any_value(&item, depth - 1);
    const char *text = rv_string_text(&item);
    rv_string_addf(out, "%s" BLANK "(?:(?:%s," BLANK ")*%s" BLANK ")?%s", is_object ? "\\{" : "\\[", text, text, is_object ? "\\}" : "\\]");
    out->failed |= item.failed;
    rv_string_free(&item);
}

/* In which containers are nested at most `depth` deep. */
static void any_value(rv_string *out, int depth) {
    rv_string_addz(out, "(?:\"" CHARACTER "*\"|" NUMBER "|true|false|null");
    for (int kind = 0; kind < 2 && depth > 0; kind++) {
        rv_string_addz(out, "|");
        any_container(out, kind == 0, depth);
    }
    rv_string_addz(out, ")");
}

char *rv_any_json_pattern(void) {
    rv_string out = { 0 };
    any_container(&out, true, ANY_DEPTH);
    if (!out.failed) return out.data;
    rv_string_free(&out);
    return NULL;
}
