/* tree.c - JSON with lines: see tree.h. */
#include "extract/tree.h"

#include <stdarg.h>
#include <stdio.h>

typedef struct builder {
    rv_tree    *tree;
    rv_json     json;
    size_t      counted;              /* bytes whose newlines are in `line`                             */
    uint32_t    line;
    rv_error   *err;
} builder;

static uint32_t line_at(builder *b, size_t at) {
    for (; b->counted < at; b->counted++) b->line += b->json.text[b->counted] == '\n';
    return b->line;
}

static rv_status syntax(builder *b) {
    return rv_fail(b->err, RV_ERR_FORMAT, "%s: line %u: not valid JSON: %s", b->tree->file, line_at(b, b->json.at), b->json.error);
}

static rv_status no_memory(builder *b) { return rv_fail_memory(b->err, b->tree->file); }

static rv_status take_text(builder *b, const char **out, size_t *bytes) {
    char *text = rv_pool_take(&b->tree->pool, b->json.slice_bytes + 1);
    if (!text) return no_memory(b);
    *bytes = rv_json_string(&b->json, text);
    text[*bytes] = '\0';
    if (memchr(text, '\0', *bytes))
        return rv_fail(b->err, RV_ERR_FORMAT, "%s: line %u: a NUL character in a text", b->tree->file, line_at(b, b->json.start));
    *out = text;
    return RV_OK;
}

static rv_status child_new(builder *b, rv_node *parent, rv_node **out) {
    rv_node *node = rv_pool_take(&b->tree->pool, sizeof *node);
    if (!node) return no_memory(b);
    node->parent = parent;
    if (parent) {
        if (parent->last) parent->last->next = node;
        else parent->first = node;
        parent->last = node;
        parent->n++;
    }
    *out = node;
    return RV_OK;
}

static rv_status value_start(builder *b, rv_node *node, rv_json_token token) {
    node->type = token;
    node->line = line_at(b, b->json.start);
    if (token == RV_JSON_STRING) return take_text(b, &node->text, &node->bytes);
    if (token != RV_JSON_NUMBER) return RV_OK;
    node->bytes = b->json.slice_bytes;
    node->text = rv_pool_text(&b->tree->pool, b->json.slice, b->json.slice_bytes);
    return node->text ? RV_OK : no_memory(b);
}

/* A new child for the key just read; its value is still to come. */
static rv_status key_start(builder *b, rv_node *object, rv_node **out) {
    const char *key;
    size_t bytes;
    rv_status st = take_text(b, &key, &bytes);
    if (st) return st;
    if (rv_node_get(object, key))
        return rv_fail(b->err, RV_ERR_FORMAT, "%s: line %u: \"%s\" is there twice", b->tree->file, line_at(b, b->json.start), key);
    if (object->n == RV_TREE_KEYS)
        return rv_fail(b->err, RV_ERR_FORMAT, "%s: line %u: an object with more than %d keys", b->tree->file,
                       line_at(b, b->json.start), RV_TREE_KEYS);
    if ((st = child_new(b, object, out))) return st;
    (*out)->key = key;
    return RV_OK;
}

/* Reads tokens until the tree is complete: `open` is the container being filled, `pending` the key whose value comes next. */
static rv_status build(builder *b) {
    rv_node *open = NULL, *pending = NULL, *node;
    rv_status st;
    for (;;) {
        rv_json_token token = rv_json_next(&b->json);
        if (token == RV_JSON_ERROR) return syntax(b);
        if (token == RV_JSON_END) return RV_OK;
        if (token == RV_JSON_OBJECT_END || token == RV_JSON_ARRAY_END) {
            open = (rv_node *)open->parent;
            continue;
        }
        if (token == RV_JSON_KEY) {
            if ((st = key_start(b, open, &pending))) return st;
            continue;
        }
        node = pending;
        pending = NULL;
        if (!node && (st = child_new(b, open, &node))) return st;
        if (!open) b->tree->root = node;
        if ((st = value_start(b, node, token))) return st;
        if (token == RV_JSON_OBJECT || token == RV_JSON_ARRAY) open = node;
    }
}

rv_status rv_tree_parse(const char *file, const char *text, size_t bytes, rv_tree *out, rv_error *err) {
    *out = (rv_tree){ 0 };
    if (bytes > RV_TREE_BYTES) return rv_fail(err, RV_ERR_FORMAT, "%s: larger than %d bytes", file, RV_TREE_BYTES);
    out->file = rv_pool_text(&out->pool, file, strlen(file));
    if (!out->file) return rv_fail_memory(err, file);
    builder b = { .tree = out, .json = rv_json_open(text, bytes), .line = 1, .err = err };
    rv_status st = build(&b);
    if (st) rv_tree_free(out);
    return st;
}

void rv_tree_free(rv_tree *tree) {
    rv_pool_free(&tree->pool);
    *tree = (rv_tree){ 0 };
}

const rv_node *rv_node_get(const rv_node *object, const char *key) {
    if (!object || object->type != RV_JSON_OBJECT) return NULL;
    for (const rv_node *child = object->first; child; child = child->next)
        if (strcmp(child->key, key) == 0) return child;
    return NULL;
}

static void add_path(rv_string *path, const rv_node *node) {
    if (!node->parent) return;
    add_path(path, node->parent);
    if (node->key) {
        rv_string_addf(path, "/%s", node->key);
        return;
    }
    unsigned index = 0;
    for (const rv_node *child = node->parent->first; child != node; child = child->next) index++;
    rv_string_addf(path, "/%u", index);
}

rv_status rv_node_fail(const rv_tree *tree, const rv_node *node, rv_error *err, const char *format, ...) {
    char message[400];
    rv_string path = { 0 };
    va_list args;
    va_start(args, format);
    vsnprintf(message, sizeof message, format, args);
    va_end(args);
    add_path(&path, node);
    rv_status st = rv_fail(err, RV_ERR_FORMAT, "%s: line %u: %s%s%s", tree->file, node->line, rv_string_text(&path),
                           path.bytes ? ": " : "", message);
    rv_string_free(&path);
    return st;
}

const char *rv_node_type(const rv_node *node) {
    switch (node->type) {
    case RV_JSON_OBJECT: return "an object";
    case RV_JSON_ARRAY: return "an array";
    case RV_JSON_STRING: return "a string";
    case RV_JSON_NUMBER: return "a number";
    case RV_JSON_TRUE: case RV_JSON_FALSE: return "a boolean";
    default: return "null";
    }
}
