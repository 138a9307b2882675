/* schema_take.c - single values of a schema file: see schema_load.h. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/locale.h"
#include "extract/schema_load.h"
#include "extract/similar.h"

rv_status rv_take_wrong(const rv_loader *l, const rv_node *node, const char *must) {
    return rv_node_fail(l->tree, node, l->err, "must be %s, is %s", must, rv_node_type(node));
}

rv_status rv_take_unknown(const rv_loader *l, const rv_node *node, const char *text, const char *what, const char *const *words,
                          size_t n) {
    const char *near = rv_nearest(text, words, n);
    return rv_node_fail(l->tree, node, l->err, "\"%.80s\" is no %s%s%s%s", text, what, near ? ": did you mean " : "",
                        near ? near : "", near ? "?" : "");
}

rv_status rv_take_object(const rv_loader *l, const rv_node *object, const rv_keyword *words, size_t n, void *to) {
    if (object->type != RV_JSON_OBJECT) return rv_take_wrong(l, object, "an object");
    for (const rv_node *child = object->first; child; child = child->next) {
        const rv_keyword *word = NULL;
        for (size_t i = 0; i < n && !word; i++)
            if (strcmp(words[i].name, child->key) == 0) word = &words[i];
        if (!word) {
            const char *names[64];
            for (size_t i = 0; i < n && i < 64; i++) names[i] = words[i].name;
            return rv_take_unknown(l, child, child->key, "keyword that is known here", names, n);
        }
        rv_status st = word->take ? word->take(l, child, (char *)to + word->offset) : RV_OK;
        if (st) return st;
    }
    return RV_OK;
}

static rv_status take_string(const rv_loader *l, const rv_node *node, bool lines, void *to) {
    if (node->type != RV_JSON_STRING) return rv_take_wrong(l, node, "a string");
    if (node->bytes == 0) return rv_node_fail(l->tree, node, l->err, "must not be empty");
    for (size_t i = 0; i < node->bytes; i++)
        if (((uint8_t)node->text[i] < 0x20 && !(lines && node->text[i] == '\n')) || node->text[i] == 0x7f)
            return rv_node_fail(l->tree, node, l->err, "must be %s without control characters", lines ? "text" : "one line");
    const char *copy = rv_pool_text(&l->schema->pool, node->text, node->bytes);
    if (!copy) return rv_fail_memory(l->err, l->tree->file);
    *(const char **)to = copy;
    return RV_OK;
}

rv_status rv_take_lines(const rv_loader *l, const rv_node *node, void *to) { return take_string(l, node, true, to); }
rv_status rv_take_text(const rv_loader *l, const rv_node *node, void *to) { return take_string(l, node, false, to); }

rv_status rv_take_texts(const rv_loader *l, const rv_node *node, void *to) {
    rv_texts *texts = to;
    if (node->type != RV_JSON_ARRAY) return rv_take_wrong(l, node, "an array of strings");
    if (node->n == 0) return rv_node_fail(l->tree, node, l->err, "must not be empty");
    const char **items = rv_pool_take(&l->schema->pool, node->n * sizeof *items);
    if (!items) return rv_fail_memory(l->err, l->tree->file);
    uint32_t n = 0;
    for (const rv_node *child = node->first; child; child = child->next, n++) {
        rv_status st = rv_take_text(l, child, &items[n]);
        if (st) return st;
        for (uint32_t i = 0; i < n; i++)
            if (strcmp(items[i], items[n]) == 0) return rv_node_fail(l->tree, child, l->err, "\"%.80s\" is there twice", items[n]);
    }
    *texts = (rv_texts){ items, n };
    return RV_OK;
}

rv_status rv_take_flag(const rv_loader *l, const rv_node *node, void *to) {
    if (node->type != RV_JSON_TRUE && node->type != RV_JSON_FALSE) return rv_take_wrong(l, node, "true or false");
    *(bool *)to = node->type == RV_JSON_TRUE;
    return RV_OK;
}

rv_status rv_take_tristate(const rv_loader *l, const rv_node *node, void *to) {
    bool flag = false;
    rv_status st = rv_take_flag(l, node, &flag);
    if (st == RV_OK) *(rv_tristate *)to = flag ? RV_YES : RV_NO;
    return st;
}

static rv_status number(const rv_loader *l, const rv_node *node, const char *must, double *out) {
    if (node->type != RV_JSON_NUMBER) return rv_take_wrong(l, node, must);
    *out = rv_number(node->text, NULL);
    return RV_OK;
}

rv_status rv_take_count(const rv_loader *l, const rv_node *node, void *to) {
    static const char must[] = "a whole number from 1 to 100000";
    double value = 0;
    rv_status st = number(l, node, must, &value);
    if (st) return st;
    if (!(value >= 1 && value <= 100000) || value != floor(value))
        return rv_node_fail(l->tree, node, l->err, "must be %s, is %.40s", must, node->text);
    *(uint32_t *)to = (uint32_t)value;
    return RV_OK;
}

rv_status rv_take_real(const rv_loader *l, const rv_node *node, void *to) {
    static const char must[] = "a number from 0 to 1000";
    double value = 0;
    rv_status st = number(l, node, must, &value);
    if (st) return st;
    if (!(value >= 0 && value <= 1000)) return rv_node_fail(l->tree, node, l->err, "must be %s, is %.40s", must, node->text);
    *(double *)to = value;
    return RV_OK;
}
