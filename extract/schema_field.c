/* schema_field.c - one property of a schema file: see schema_load.h. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>
#include <string.h>

#include "extract/schema_load.h"

enum { MOST_REFS = 8, MOST_PATTERN = 500 };

/* What a kind needs, where the file says nothing.  Tokens are those of the Llama 3 vocabulary, with room to spare. */
static const struct limits { uint16_t tokens, bytes; } limits[RV_KINDS] = {
    [RV_KIND_TEXT] = { 96, 400 },    [RV_KIND_NAME] = { 48, 160 },      [RV_KIND_ADDRESS] = { 80, 300 },
    [RV_KIND_ID] = { 32, 64 },       [RV_KIND_ENUM] = { 16, 64 },       [RV_KIND_BOOL] = { 8, 16 },
    [RV_KIND_MONEY] = { 24, 32 },    [RV_KIND_QUANTITY] = { 16, 24 },   [RV_KIND_PERCENT] = { 12, 16 },
    [RV_KIND_DATE] = { 24, 40 },     [RV_KIND_DATE_RANGE] = { 48, 80 }, [RV_KIND_TIME] = { 12, 16 },
    [RV_KIND_ABN] = { 24, 32 },      [RV_KIND_ACN] = { 20, 32 },        [RV_KIND_TFN] = { 20, 32 },
    [RV_KIND_BSB] = { 16, 16 },      [RV_KIND_ACCOUNT] = { 24, 40 },    [RV_KIND_CARD] = { 24, 40 },
    [RV_KIND_PHONE] = { 24, 40 },    [RV_KIND_EMAIL] = { 40, 120 },     [RV_KIND_URL] = { 40, 160 },
};

static rv_status take_kind(const rv_loader *l, const rv_node *node, void *to) {
    const char *text, *names[RV_KINDS];
    rv_status st = rv_take_text(l, node, &text);
    if (st || rv_kind_find(text, to)) return st;
    for (int i = 0; i < RV_KINDS; i++) names[i] = rv_kind_name((rv_value_kind)i);
    return rv_take_unknown(l, node, text, "kind of value", names, RV_KINDS);
}

static rv_status take_choice(const rv_loader *l, const rv_node *node, const char *what, const char *const *words, size_t n, size_t *out) {
    const char *text;
    rv_status st = rv_take_text(l, node, &text);
    if (st) return st;
    for (*out = 0; *out < n; ++*out)
        if (strcmp(words[*out], text) == 0) return RV_OK;
    return rv_take_unknown(l, node, text, what, words, n);
}

static rv_status take_sensitivity(const rv_loader *l, const rv_node *node, void *to) {
    static const char *const words[] = { "none", "tfn", "card", "account" };
    size_t i;
    rv_status st = take_choice(l, node, "sensitivity (none, tfn, card, account)", words, 4, &i);
    if (st == RV_OK) *(rv_sensitivity *)to = (rv_sensitivity)i;
    return st;
}

static rv_status take_grammar(const rv_loader *l, const rv_node *node, void *to) {
    static const char *const words[] = { "soft", "strict" };
    size_t i;
    rv_status st = take_choice(l, node, "grammar (soft, strict)", words, 2, &i);
    if (st == RV_OK) *(rv_grammar *)to = i ? RV_GRAMMAR_STRICT : RV_GRAMMAR_SOFT;
    return st;
}

static rv_status take_type(const rv_loader *l, const rv_node *node, void *to) {
    static const char *const words[] = { "string", "boolean", "array" };
    rv_field *field = to;
    size_t i;
    rv_status st = take_choice(l, node, "type of a field (string, boolean, array; numbers are strings with an x-kind)", words, 3, &i);
    if (st) return st;
    field->list = i == 2;
    if (i == 1) field->kind = RV_KIND_BOOL;
    return RV_OK;
}

static rv_status take_items_type(const rv_loader *l, const rv_node *node, void *to) {
    rv_field *field = to;
    bool list = field->list;
    rv_status st = take_type(l, node, to);
    if (st == RV_OK && field->list) st = rv_node_fail(l->tree, node, l->err, "lists of lists are not supported");
    field->list = list;
    return st;
}

static rv_status take_pattern(const rv_loader *l, const rv_node *node, void *to) {
    rv_field *field = to;
    rv_status st = rv_take_text(l, node, &field->pattern);
    if (st) return st;
    if (node->bytes > MOST_PATTERN) return rv_node_fail(l->tree, node, l->err, "a pattern of more than %d bytes", MOST_PATTERN);
    int code;
    PCRE2_SIZE at;
    pcre2_code *compiled = pcre2_compile((PCRE2_SPTR)node->text, node->bytes, PCRE2_UTF | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
    if (!compiled) {
        PCRE2_UCHAR why[120] = "";
        pcre2_get_error_message(code, why, sizeof why);
        return rv_node_fail(l->tree, node, l->err, "not a regular expression: %s (character %zu)", (const char *)why, (size_t)at + 1);
    }
    pcre2_code_free(field->pattern_code);
    field->pattern_code = compiled;
    return RV_OK;
}

static rv_status take_enum(const rv_loader *l, const rv_node *node, void *to) {
    rv_field *field = to;
    field->kind = RV_KIND_ENUM;
    field->choice_aliases = NULL;
    return rv_take_texts(l, node, &field->choices);
}

/* { "INVOICE": ["bill", "tax invoice"] }: after enum, whose values are its keys. */
static rv_status take_choice_aliases(const rv_loader *l, const rv_node *node, void *to) {
    rv_field *field = to;
    if (node->type != RV_JSON_OBJECT) return rv_take_wrong(l, node, "an object");
    field->choice_aliases = rv_pool_take(&l->schema->pool, (field->choices.count + 1) * sizeof *field->choice_aliases);
    if (!field->choice_aliases) return rv_fail_memory(l->err, l->tree->file);
    for (const rv_node *child = node->first; child; child = child->next) {
        uint32_t i = 0;
        while (i < field->choices.count && strcmp(field->choices.items[i], child->key)) i++;
        if (i == field->choices.count)
            return rv_take_unknown(l, child, child->key, "value of the enum before it", field->choices.items, field->choices.count);
        rv_status st = rv_take_texts(l, child, &field->choice_aliases[i]);
        if (st) return st;
    }
    return RV_OK;
}

static rv_status take_group(const rv_loader *l, const rv_node *node, void *to) {
    rv_schema *schema = l->schema;
    const char *name;
    rv_status st = rv_take_text(l, node, &name);
    if (st) return st;
    uint32_t i = 0;
    while (i < schema->n_groups && strcmp(schema->groups[i], name)) i++;
    if (i == schema->n_groups) {
        const char **groups = rv_pool_take(&schema->pool, (i + 1) * sizeof *groups);
        if (!groups) return rv_fail_memory(l->err, l->tree->file);
        for (uint32_t j = 0; j < i; j++) groups[j] = schema->groups[j];
        groups[i] = name;
        schema->groups = groups;
        schema->n_groups++;
    }
    *(int32_t *)to = (int32_t)i;
    return RV_OK;
}

static rv_status take_items(const rv_loader *l, const rv_node *node, void *to) {
    static const rv_keyword words[] = {
        { "type", take_items_type, 0 },
        { "x-kind", take_kind, offsetof(rv_field, kind) },
        { "enum", take_enum, 0 },
        { "pattern", take_pattern, 0 },
        { "maxLength", rv_take_count, offsetof(rv_field, max_bytes) },
        { "$comment", NULL, 0 },
    };
    return rv_take_object(l, node, words, sizeof words / sizeof *words, to);
}

/* "#/$defs/NAME" of this file, or "rvengine:fields#/$defs/NAME" of what is built in. */
static rv_status follow(const rv_loader *l, const rv_node *ref, const rv_tree **tree, const rv_node **out) {
    static const char here[] = "#/$defs/", built_in[] = "rvengine:fields#/$defs/";
    if (ref->type != RV_JSON_STRING) return rv_take_wrong(l, ref, "a string");
    const char *name = NULL;
    *tree = l->tree;
    if (strncmp(ref->text, here, sizeof here - 1) == 0) name = ref->text + sizeof here - 1;
    else if (strncmp(ref->text, built_in, sizeof built_in - 1) == 0 && l->common) {
        name = ref->text + sizeof built_in - 1;
        *tree = l->common;
    }
    if (!name) return rv_node_fail(l->tree, ref, l->err, "must begin with %s or %s", here, built_in);
    const rv_node *defs = rv_node_get((*tree)->root, "$defs");
    *out = rv_node_get(defs, name);
    if (*out) return RV_OK;
    const char *names[RV_TREE_KEYS];
    size_t n = 0;
    for (const rv_node *child = defs && defs->type == RV_JSON_OBJECT ? defs->first : NULL; child; child = child->next) names[n++] = child->key;
    return rv_take_unknown(l, ref, name, "definition", names, n);
}

static rv_status take_field(const rv_loader *l, const rv_node *node, rv_field *field, int depth) {
    static const rv_keyword words[] = {
        { "$ref", NULL, 0 }, { "$comment", NULL, 0 },
        { "title", rv_take_text, offsetof(rv_field, title) },
        { "description", rv_take_lines, offsetof(rv_field, description) },
        { "type", take_type, 0 },
        { "enum", take_enum, 0 },
        { "x-choice-aliases", take_choice_aliases, 0 },
        { "pattern", take_pattern, 0 },
        { "items", take_items, 0 },
        { "maxLength", rv_take_count, offsetof(rv_field, max_bytes) },
        { "maxItems", rv_take_count, offsetof(rv_field, max_items) },
        { "x-kind", take_kind, offsetof(rv_field, kind) },
        { "x-group", take_group, offsetof(rv_field, group) },
        { "x-prompt", rv_take_text, offsetof(rv_field, prompt) },
        { "x-aliases", rv_take_texts, offsetof(rv_field, aliases) },
        { "x-labels", rv_take_texts, offsetof(rv_field, labels) },
        { "x-critical", rv_take_flag, offsetof(rv_field, critical) },
        { "x-scored", rv_take_flag, offsetof(rv_field, scored) },
        { "x-weight", rv_take_real, offsetof(rv_field, weight) },
        { "x-min-confidence", rv_take_real, offsetof(rv_field, min_confidence) },
        { "x-sensitivity", take_sensitivity, offsetof(rv_field, sensitivity) },
        { "x-grammar", take_grammar, offsetof(rv_field, grammar) },
        { "x-max-tokens", rv_take_count, offsetof(rv_field, max_tokens) },
    };
    const rv_node *ref = rv_node_get(node, "$ref");
    if (ref) {
        rv_loader there = *l;
        const rv_node *target;
        if (depth == MOST_REFS) return rv_node_fail(l->tree, ref, l->err, "a chain of more than %d references: is it a circle?", MOST_REFS);
        rv_status st = follow(l, ref, &there.tree, &target);
        if (st == RV_OK) st = take_field(&there, target, field, depth + 1);
        if (st) return st;
    }
    return rv_take_object(l, node, words, sizeof words / sizeof *words, field);
}

rv_status rv_take_field(const rv_loader *l, const rv_node *node, rv_field *field) {
    field->group = -1;
    field->scored = true;
    field->weight = -1;
    field->min_confidence = 0.5;
    return take_field(l, node, field, 0);
}

/* A choice or alias of one that an answer cannot hold, or that is another choice too. */
static rv_status check_choice(const rv_loader *l, const rv_node *node, const rv_field *field, uint32_t of, const char *text) {
    if (strchr(text, '|')) return rv_node_fail(l->tree, node, l->err, "the choice \"%.60s\" has a |, which parts the items of lists", text);
    if (strcasecmp(text, RV_NOT_FOUND) == 0) return rv_node_fail(l->tree, node, l->err, "the choice " RV_NOT_FOUND " is what stands for an absent value");
    for (uint32_t i = 0; i < field->choices.count; i++) {
        if (i != of && strcasecmp(field->choices.items[i], text) == 0)
            return rv_node_fail(l->tree, node, l->err, "\"%.60s\" is the choice \"%.60s\" too: case does not tell them apart", text, field->choices.items[i]);
        for (uint32_t k = 0; field->choice_aliases && i != of && k < field->choice_aliases[i].count; k++)
            if (strcasecmp(field->choice_aliases[i].items[k], text) == 0)
                return rv_node_fail(l->tree, node, l->err, "\"%.60s\" is an alias of the choice \"%.60s\" too", text, field->choices.items[i]);
    }
    return RV_OK;
}

static rv_status check_choices(const rv_loader *l, const rv_node *node, const rv_field *field) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < field->choices.count && st == RV_OK; i++) {
        st = check_choice(l, node, field, i, field->choices.items[i]);
        for (uint32_t k = 0; field->choice_aliases && st == RV_OK && k < field->choice_aliases[i].count; k++)
            st = check_choice(l, node, field, i, field->choice_aliases[i].items[k]);
    }
    return st;
}

rv_status rv_finish_field(const rv_loader *l, const rv_node *node, rv_field *field) {
    const rv_node *type = rv_node_get(node, "type");
    if (type && type->type == RV_JSON_STRING && strcmp(type->text, "boolean") == 0 && field->kind != RV_KIND_BOOL)
        return rv_node_fail(l->tree, node, l->err, "x-kind %s with \"type\": \"boolean\"", rv_kind_name(field->kind));
    rv_status st = check_choices(l, node, field);
    if (st) return st;
    if (field->group >= 0 && !field->list)
        return rv_node_fail(l->tree, node, l->err, "x-group without \"type\": \"array\": only lists are columns");
    if (field->kind == RV_KIND_ENUM && field->choices.count == 0)
        return rv_node_fail(l->tree, node, l->err, "x-kind enum without an enum of its values");
    if (field->kind != RV_KIND_ENUM && field->choices.count)
        return rv_node_fail(l->tree, node, l->err, "enum with x-kind %s", rv_kind_name(field->kind));
    if (field->kind == RV_KIND_TFN && field->sensitivity != RV_SENSITIVE_TFN)
        return rv_node_fail(l->tree, node, l->err, "a tax file number needs \"x-sensitivity\": \"tfn\"");
    if (field->min_confidence > 1) return rv_node_fail(l->tree, node, l->err, "x-min-confidence must be from 0 to 1");
    if (!field->title) field->title = field->key;
    if (!field->description) field->description = "";
    if (!field->prompt) field->prompt = *field->description ? field->description : field->title;
    if (field->weight < 0) field->weight = field->critical ? 2 : 1;
    if (field->grammar == RV_GRAMMAR_BY_KIND)
        field->grammar = field->kind == RV_KIND_ENUM || field->kind == RV_KIND_BOOL ? RV_GRAMMAR_STRICT : RV_GRAMMAR_SOFT;
    if (!field->max_items) field->max_items = 100;
    if (!field->max_bytes) field->max_bytes = limits[field->kind].bytes;
    if (!field->max_tokens) {
        uint32_t all = field->list ? limits[field->kind].tokens * field->max_items : limits[field->kind].tokens;
        field->max_tokens = all < 1024 ? all : 1024;
    }
    if (strchr(field->prompt, '\n')) return rv_node_fail(l->tree, node, l->err, "a description of several lines needs an x-prompt of one line");
    return RV_OK;
}
