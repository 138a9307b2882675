/* json_tree.h - JSON text as jansson's tree, also where memory is short.
 *
 * The one idea: jansson's own lexer ignores that its buffer could not grow (2.14: lex_save), and then loses characters of a
 * long token, calls good text bad, or runs into an assertion. Its trees do not. So the text is read with the pull reader, and
 * jansson's parser is asked only about what that does not take: its messages about bad text are good.
 *
 * Numbers are JSON's in every locale: jansson corrects a decimal comma by itself, but no decimal point of several bytes.
 *
 * Header-only, for those who link jansson: base itself links nothing.
 */
#ifndef RV_BASE_JSON_TREE_H
#define RV_BASE_JSON_TREE_H
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "engine/base/json.h"
#include "engine/base/locale.h"

/* A flag of rv_json_load beside jansson's: numbers with a decimal point, and whole ones that no int64_t holds, are strings as they are written. */
enum { RV_JSON_DECIMALS_AS_TEXT = 1 << 20 };

typedef struct rv_json_builder {
    rv_json j;
    char   *room;                        /* for one decoded string or key                       */
    size_t  flags;
    bool    no_memory;
} rv_json_builder;

static inline json_t *rv_json_keep(rv_json_builder *b, json_t *value) {
    if (!value) b->no_memory = true;
    return value;
}

/* NULL, without no_memory, for numbers that jansson refuses. */
static inline json_t *rv_json_number_tree(rv_json_builder *b) {
    char text[64], *end;
    const size_t n = b->j.slice_bytes;
    int64_t whole;
    const bool is_whole = !memchr(b->j.slice, '.', n), exponent = memchr(b->j.slice, 'e', n) || memchr(b->j.slice, 'E', n);
    if (is_whole && !exponent && rv_json_int64(&b->j, &whole)) return rv_json_keep(b, json_integer(whole));
    if ((b->flags & RV_JSON_DECIMALS_AS_TEXT) && !exponent) return rv_json_keep(b, json_stringn_nocheck(b->j.slice, n));
    if (is_whole && !exponent) return NULL;
    if (n >= sizeof text) return NULL;
    memcpy(text, b->j.slice, n);
    text[n] = '\0';
    const double x = rv_number(text, &end);
    return *end == '\0' && isfinite(x) ? rv_json_keep(b, json_real(x)) : NULL;
}

static inline json_t *rv_json_string_tree(rv_json_builder *b) {
    const size_t n = rv_json_string(&b->j, b->room);
    if (!(b->flags & JSON_ALLOW_NUL) && memchr(b->room, '\0', n)) return NULL;
    return rv_json_keep(b, json_stringn_nocheck(b->room, n));
}

static inline json_t *rv_json_value_tree(rv_json_builder *b, rv_json_token token);

static inline json_t *rv_json_object_tree(rv_json_builder *b) {
    json_t *object = rv_json_keep(b, json_object());
    rv_json_token token = RV_JSON_ERROR;
    while (object && (token = rv_json_next(&b->j)) == RV_JSON_KEY) {
        const size_t n = rv_json_string(&b->j, b->room);
        char *key = memchr(b->room, '\0', n) ? NULL : malloc(n + 1);
        if (!key) b->no_memory = !memchr(b->room, '\0', n);
        else memcpy(key, b->room, n), key[n] = '\0';
        json_t *value = key && !((b->flags & JSON_REJECT_DUPLICATES) && json_object_get(object, key)) ? rv_json_value_tree(b, rv_json_next(&b->j)) : NULL;
        const bool set = value && json_object_set_new_nocheck(object, key, value) == 0;       /* takes the value in any case */
        if (value && !set) b->no_memory = true;
        free(key);
        if (!set) break;
    }
    if (token == RV_JSON_OBJECT_END) return object;
    json_decref(object);
    return NULL;
}

static inline json_t *rv_json_array_tree(rv_json_builder *b) {
    json_t *array = rv_json_keep(b, json_array());
    rv_json_token token = RV_JSON_ERROR;
    while (array && (token = rv_json_next(&b->j)) != RV_JSON_ARRAY_END) {
        json_t *value = rv_json_value_tree(b, token);
        const bool added = value && json_array_append_new(array, value) == 0;
        if (value && !added) b->no_memory = true;
        if (!added) break;
    }
    if (token == RV_JSON_ARRAY_END) return array;
    json_decref(array);
    return NULL;
}

/* At most RV_JSON_MAX_DEPTH deep. */
static inline json_t *rv_json_value_tree(rv_json_builder *b, rv_json_token token) {
    switch (token) {
    case RV_JSON_OBJECT: return rv_json_object_tree(b);
    case RV_JSON_ARRAY: return rv_json_array_tree(b);
    case RV_JSON_STRING: return rv_json_string_tree(b);
    case RV_JSON_NUMBER: return rv_json_number_tree(b);
    case RV_JSON_TRUE: return json_true();
    case RV_JSON_FALSE: return json_false();
    case RV_JSON_NULL: return json_null();
    default: return NULL;
    }
}

/* As json_loadb, with its messages; *no_memory tells that from bad text. `flags`: JSON_REJECT_DUPLICATES, JSON_ALLOW_NUL,
 * JSON_DECODE_ANY and the one above. */
static inline json_t *rv_json_load(const char *text, size_t bytes, size_t flags, json_error_t *why, bool *no_memory) {
    rv_json_builder b = { .j = rv_json_open(text, bytes), .room = malloc(bytes + 1), .flags = flags };
    const rv_json_token first = rv_json_next(&b.j);
    json_t *root = NULL;
    memset(why, 0, sizeof *why);
    if (!b.room) b.no_memory = true;
    else if ((flags & JSON_DECODE_ANY) || first == RV_JSON_OBJECT || first == RV_JSON_ARRAY) root = rv_json_value_tree(&b, first);
    free(b.room);
    if (root && rv_json_next(&b.j) != RV_JSON_END) json_decref(root), root = NULL;
    *no_memory = b.no_memory;
    if (b.no_memory) snprintf(why->text, sizeof why->text, "out of memory");
    else if (!root) {
        const rv_locale l = rv_locale_enter();
        root = json_loadb(text, bytes, flags & ~(size_t)RV_JSON_DECIMALS_AS_TEXT, why);
        rv_locale_leave(l);
        *no_memory = !root && json_error_code(why) == json_error_out_of_memory;
    }
    return root;
}

/* json_dumps. */
static inline char *rv_json_dump(const json_t *root, size_t flags) {
    const rv_locale l = rv_locale_enter();
    char *text = json_dumps(root, flags);
    rv_locale_leave(l);
    return text;
}
#endif
