/* schema_file.c - a schema file as a whole: its own keywords, then its properties in order. */
#define PCRE2_CODE_UNIT_WIDTH 8
#include <ctype.h>
#include <pcre2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "extract/check.h"
#include "extract/expr.h"
#include "extract/schema_load.h"

enum { MOST_FIELDS = 200, MOST_NAME = 64 };

#define AT(member) offsetof(rv_schema, member)

static rv_status take_evidence(const rv_loader *l, const rv_node *node, void *to) {
    static const rv_keyword words[] = {
        { "rank", rv_take_count, offsetof(rv_evidence, rank) },
        { "columns", rv_take_texts, offsetof(rv_evidence, columns) },
        { "min-columns", rv_take_count, offsetof(rv_evidence, min_columns) },
        { "paid", rv_take_tristate, offsetof(rv_evidence, paid) },
        { "travel", rv_take_tristate, offsetof(rv_evidence, travel) },
        { "otherwise", rv_take_flag, offsetof(rv_evidence, otherwise) },
    };
    rv_evidence *evidence = to;
    evidence->min_columns = 1;
    rv_status st = rv_take_object(l, node, words, sizeof words / sizeof *words, to);
    if (st) return st;
    if (!evidence->rank) return rv_node_fail(l->tree, node, l->err, "rank is missing: the order in which types are tried");
    if (!evidence->columns.count && !evidence->paid && !evidence->travel && !evidence->otherwise)
        return rv_node_fail(l->tree, node, l->err, "says nothing: columns, paid, travel or otherwise is missing");
    return RV_OK;
}

static rv_status take_rule_sets(const rv_loader *l, const rv_node *node, void *to) {
    rv_status st = rv_take_texts(l, node, to);
    const rv_node *child = st ? NULL : node->first;
    for (; child; child = child->next) {
        char name[MOST_NAME + 16];
        if (child->bytes > MOST_NAME) return rv_node_fail(l->tree, child, l->err, "a name of more than %d bytes", MOST_NAME);
        snprintf(name, sizeof name, "rules/%s.json", child->text);
        if (rv_data_find(name)) continue;
        const char *names[64];
        size_t n = 0;
        char stems[64][MOST_NAME];
        for (size_t i = 0; i < rv_data_files_count && n < 64; i++) {
            if (strncmp(rv_data_files[i].name, "rules/", 6)) continue;
            snprintf(stems[n], sizeof *stems, "%.*s", (int)strcspn(rv_data_files[i].name + 6, "."), rv_data_files[i].name + 6);
            names[n] = stems[n];
            n++;
        }
        return rv_take_unknown(l, child, child->text, "rule set that is built in", names, n);
    }
    return st;
}

/* ---- fields ---------------------------------------------------------------------------------- */

static bool is_key(const char *text) {
    if (*text < 'A' || *text > 'Z' || strlen(text) > MOST_NAME) return false;
    for (; *text; text++)
        if (!(*text >= 'A' && *text <= 'Z') && !(*text >= '0' && *text <= '9') && *text != '_') return false;
    return true;
}

static rv_status take_properties(const rv_loader *l, const rv_node *node) {
    rv_schema *schema = l->schema;
    if (node->type != RV_JSON_OBJECT) return rv_take_wrong(l, node, "an object");
    if (node->n == 0 || node->n > MOST_FIELDS)
        return rv_node_fail(l->tree, node, l->err, "must have 1 to %d fields, has %u", MOST_FIELDS, node->n);
    schema->fields = rv_pool_take(&schema->pool, node->n * sizeof *schema->fields);
    if (!schema->fields) return rv_fail_memory(l->err, l->tree->file);
    for (const rv_node *child = node->first; child; child = child->next) {
        rv_field *field = &schema->fields[schema->n_fields++];
        if (!is_key(child->key))
            return rv_node_fail(l->tree, child, l->err, "\"%.80s\" is no key: capitals, digits and _ (at most %d), a letter first",
                                child->key, MOST_NAME);
        field->key = rv_pool_text(&schema->pool, child->key, strlen(child->key));
        if (!field->key) return rv_fail_memory(l->err, l->tree->file);
        rv_status st = rv_take_field(l, child, field);
        if (st == RV_OK) st = rv_finish_field(l, child, field);
        if (st) return st;
    }
    return RV_OK;
}

/* The index of the field that a string node names. */
static rv_status take_name(const rv_loader *l, const rv_node *node, uint32_t *out) {
    const char *names[MOST_FIELDS];
    if (node->type != RV_JSON_STRING) return rv_take_wrong(l, node, "the key of a field");
    int32_t i = rv_schema_field(l->schema, node->text);
    if (i >= 0) {
        *out = (uint32_t)i;
        return RV_OK;
    }
    for (uint32_t j = 0; j < l->schema->n_fields; j++) names[j] = l->schema->fields[j].key;
    return rv_take_unknown(l, node, node->text, "field of this schema", names, l->schema->n_fields);
}

static rv_status take_required(const rv_loader *l, const rv_node *node) {
    if (node->type != RV_JSON_ARRAY) return rv_take_wrong(l, node, "an array of keys");
    for (const rv_node *child = node->first; child; child = child->next) {
        uint32_t i = 0;
        rv_status st = take_name(l, child, &i);
        if (st) return st;
        l->schema->fields[i].required = true;
    }
    return RV_OK;
}

/* The fields of a part: given in any order, kept in the schema's. */
static rv_status take_part_fields(const rv_loader *l, const rv_node *node, void *to) {
    rv_prompt_part *part = to;
    bool in[MOST_FIELDS] = { false };
    if (node->type != RV_JSON_ARRAY || node->n == 0) return rv_take_wrong(l, node, "an array of keys, at least one");
    for (const rv_node *child = node->first; child; child = child->next) {
        uint32_t i = 0;
        rv_status st = take_name(l, child, &i);
        if (st) return st;
        if (in[i]) return rv_node_fail(l->tree, child, l->err, "\"%s\" is there twice", child->text);
        in[i] = true;
    }
    uint32_t *fields = rv_pool_take(&l->schema->pool, node->n * sizeof *fields);
    if (!fields) return rv_fail_memory(l->err, l->tree->file);
    for (uint32_t i = 0; i < l->schema->n_fields; i++)
        if (in[i]) fields[part->n_fields++] = i;
    part->fields = fields;
    return RV_OK;
}

static rv_status take_parts(const rv_loader *l, const rv_node *node) {
    static const rv_keyword words[] = {
        { "name", rv_take_text, offsetof(rv_prompt_part, name) },
        { "prompt", rv_take_lines, offsetof(rv_prompt_part, prompt) },
        { "fields", take_part_fields, 0 },
        { "max-tokens", rv_take_count, offsetof(rv_prompt_part, max_tokens) },
    };
    rv_schema *schema = l->schema;
    if (node->type != RV_JSON_ARRAY || node->n == 0) return rv_take_wrong(l, node, "an array of parts, at least one");
    schema->parts = rv_pool_take(&schema->pool, node->n * sizeof *schema->parts);
    if (!schema->parts) return rv_fail_memory(l->err, l->tree->file);
    for (const rv_node *child = node->first; child; child = child->next) {
        rv_prompt_part *part = &schema->parts[schema->n_parts++];
        rv_status st = rv_take_object(l, child, words, sizeof words / sizeof *words, part);
        if (st) return st;
        if (!part->name || !part->fields) return rv_node_fail(l->tree, child, l->err, "a part needs a name and fields");
    }
    return RV_OK;
}

static bool has_name(const rv_field *field, const char *name) {
    for (uint32_t i = 0; i < field->aliases.count; i++)
        if (rv_schema_same_key(field->aliases.items[i], name, strlen(name))) return true;
    return false;
}

/* Every key and alias leads to one field, as rv_schema_find looks them up: A_B and AB are one name.  A definition's alias gives way to a field of
 * that name; two aliases cannot be told apart. */
static rv_status check_names(const rv_loader *l, const rv_node *properties) {
    const rv_schema *schema = l->schema;
    const rv_node *node = properties->first;
    for (uint32_t i = 0; i < schema->n_fields; i++, node = node->next) {
        const rv_field *field = &schema->fields[i];
        for (uint32_t j = 0; j < schema->n_fields; j++) {
            const char *key = schema->fields[j].key;
            if (j < i && rv_schema_same_key(key, field->key, strlen(field->key)))
                return rv_node_fail(l->tree, node, l->err, "the key is the same as %s", key);
            for (uint32_t a = 0; a < field->aliases.count && j != i; a++) {
                const char *alias = field->aliases.items[a];
                if (!rv_schema_same_key(key, alias, strlen(alias)) && has_name(&schema->fields[j], alias))
                    return rv_node_fail(l->tree, node, l->err, "the alias \"%s\" is also one of %s", alias, key);
            }
        }
    }
    return RV_OK;
}

/* ---- rules ----------------------------------------------------------------------------------- */

static rv_status take_rule_fields(const rv_loader *l, const rv_node *node, void *to) {
    rv_status st = rv_take_texts(l, node, to);
    for (const rv_node *child = st ? NULL : node->first; child && st == RV_OK; child = child->next) {
        uint32_t i = 0;
        st = take_name(l, child, &i);
    }
    return st;
}

static rv_status take_expr(const rv_loader *l, const rv_node *node, void *to) {
    rv_error why;
    rv_status st = rv_take_text(l, node, to);
    if (st == RV_OK && rv_expr_check(l->schema, node->text, true, &why)) st = rv_node_fail(l->tree, node, l->err, "%s", why.message);
    return st;
}

static rv_status take_severity(const rv_loader *l, const rv_node *node, void *to) {
    const char *const words[] = { rv_severity_name(RV_SEVERITY_INFO), rv_severity_name(RV_SEVERITY_WARNING),
                                  rv_severity_name(RV_SEVERITY_ERROR) };
    rv_severity severity;
    rv_status st = rv_take_text(l, node, to);
    if (st || rv_severity_find(node->text, &severity)) return st;
    return rv_take_unknown(l, node, node->text, "severity (info, warning, error)", words, 3);
}

static rv_status take_rules(const rv_loader *l, const rv_node *node) {
    static const rv_keyword words[] = {
        { "id", rv_take_text, offsetof(rv_rule_text, id) },
        { "when", take_expr, offsetof(rv_rule_text, when) },
        { "test", take_expr, offsetof(rv_rule_text, test) },
        { "message", rv_take_text, offsetof(rv_rule_text, message) },
        { "severity", take_severity, offsetof(rv_rule_text, severity) },
        { "suggestion", rv_take_text, offsetof(rv_rule_text, suggestion) },
        { "fields", take_rule_fields, offsetof(rv_rule_text, fields) },
    };
    rv_schema *schema = l->schema;
    if (node->type != RV_JSON_ARRAY || node->n == 0) return rv_take_wrong(l, node, "an array of rules, at least one");
    schema->rules = rv_pool_take(&schema->pool, node->n * sizeof *schema->rules);
    if (!schema->rules) return rv_fail_memory(l->err, l->tree->file);
    for (const rv_node *child = node->first; child; child = child->next) {
        rv_rule_text *rule = &schema->rules[schema->n_rules++];
        rv_status st = rv_take_object(l, child, words, sizeof words / sizeof *words, rule);
        if (st) return st;
        if (!rule->id || !rule->test || !rule->message) return rv_node_fail(l->tree, child, l->err, "a rule needs id, test and message");
        if (!rule->severity) rule->severity = "warning";
    }
    return RV_OK;
}

/* ---- the file -------------------------------------------------------------------------------- */

static rv_status take_object_type(const rv_loader *l, const rv_node *node, void *to) {
    (void)to;
    if (node->type == RV_JSON_STRING && strcmp(node->text, "object") == 0) return RV_OK;
    return rv_node_fail(l->tree, node, l->err, "a schema describes an object: \"type\" must be \"object\"");
}

static rv_status take_dialect(const rv_loader *l, const rv_node *node, void *to) {
    (void)to;
    if (node->type == RV_JSON_STRING && strcmp(node->text, "https://json-schema.org/draft/2020-12/schema") == 0) return RV_OK;
    return rv_node_fail(l->tree, node, l->err, "only https://json-schema.org/draft/2020-12/schema is understood");
}

static rv_status take_closed(const rv_loader *l, const rv_node *node, void *to) {
    (void)to;
    if (node->type == RV_JSON_FALSE) return RV_OK;
    return rv_node_fail(l->tree, node, l->err, "must be false: a record has the schema's fields and no others");
}

static rv_status take_strategies(const rv_loader *l, const rv_node *node, void *to) {
    static const char *const words[] = { "single", "parts", "bank-turns" };
    rv_status st = rv_take_texts(l, node, to);
    for (const rv_node *child = st ? NULL : node->first; child; child = child->next) {
        bool known = false;
        for (int i = 0; i < 3; i++) known = known || strcmp(words[i], child->text) == 0;
        if (!known) return rv_take_unknown(l, child, child->text, "strategy (single, parts, bank-turns)", words, 3);
    }
    return st;
}

static rv_status take_root(const rv_loader *l) {
    static const rv_keyword words[] = {
        { "$schema", take_dialect, 0 }, { "$id", NULL, 0 }, { "$comment", NULL, 0 }, { "$defs", NULL, 0 },
        { "type", take_object_type, 0 }, { "additionalProperties", take_closed, 0 },
        { "properties", NULL, 0 }, { "required", NULL, 0 }, { "x-parts", NULL, 0 }, { "x-rules", NULL, 0 },
        { "title", rv_take_text, AT(title) },
        { "version", rv_take_text, AT(version) },
        { "description", rv_take_lines, AT(description) },
        { "x-doctype", rv_take_text, AT(doctype) },
        { "x-aliases", rv_take_texts, AT(doctype_aliases) },
        { "x-prompt", rv_take_lines, AT(prompt) },
        { "x-prompt-alone", rv_take_flag, AT(prompt_alone) },
        { "x-type-prompt", rv_take_text, AT(type_prompt) },
        { "x-strategies", take_strategies, AT(strategies) },
        { "x-evidence", take_evidence, AT(evidence) },
        { "x-rule-sets", take_rule_sets, AT(rule_sets) },
    };
    return rv_take_object(l, l->tree->root, words, sizeof words / sizeof *words, l->schema);
}

static rv_status finish(const rv_loader *l) {
    static const char *const single[] = { "single" };
    rv_schema *schema = l->schema;
    const rv_node *root = l->tree->root;
    if (!schema->doctype) return rv_node_fail(l->tree, root, l->err, "x-doctype is missing: the type of document, as \"RECEIPT\"");
    if (!is_key(schema->doctype))
        return rv_node_fail(l->tree, rv_node_get(root, "x-doctype"), l->err, "must be capitals, digits and _, a letter first");
    if (!schema->prompt) return rv_node_fail(l->tree, root, l->err, "x-prompt is missing: the sentence that opens the question");
    if (!schema->title) schema->title = schema->name;
    if (!schema->version) schema->version = "0";
    if (!schema->description) schema->description = "";
    if (!schema->type_prompt) schema->type_prompt = schema->title;
    if (!schema->strategies.count) schema->strategies = (rv_texts){ single, 1 };
    return RV_OK;
}

static rv_status read_all(const rv_loader *l) {
    const rv_node *root = l->tree->root, *node = rv_node_get(root, "properties");
    rv_status st = take_root(l);
    if (st) return st;
    if (!node) return rv_node_fail(l->tree, root, l->err, "properties is missing: the fields");
    TRY(take_properties(l, node));
    TRY(check_names(l, node));
    if ((node = rv_node_get(root, "required"))) TRY(take_required(l, node));
    if ((node = rv_node_get(root, "x-parts"))) TRY(take_parts(l, node));
    if ((node = rv_node_get(root, "x-rules"))) TRY(take_rules(l, node));
    TRY(finish(l));
done:
    return st;
}

/* "some/folder/receipt.json": receipt. */
static char *stem(rv_pool *pool, const char *file) {
    const char *slash = strrchr(file, '/'), *name = slash ? slash + 1 : file;
    size_t n = strlen(name);
    if (n > 5 && strcmp(name + n - 5, ".json") == 0) n -= 5;
    return rv_pool_text(pool, name, n);
}

rv_status rv_schema_parse(const char *file, const char *json, size_t bytes, rv_schema **out, rv_error *err) {
    rv_tree tree = { 0 }, common = { 0 };
    rv_schema *schema = calloc(1, sizeof *schema);
    const rv_data_file *fields = rv_data_find("fields.json");
    rv_status st = RV_OK;
    if (schema) atomic_init(&schema->refs, 1);
    if (!schema || !(schema->name = stem(&schema->pool, file))) {
        st = rv_fail_memory(err, file);
        goto done;
    }
    TRY(rv_tree_parse(file, json, bytes, &tree, err));
    if (fields) TRY(rv_tree_parse(fields->name, fields->data, fields->bytes, &common, err));
    schema->hash = rv_hash64(json, bytes);
    TRY(read_all(&(rv_loader){ &tree, fields ? &common : NULL, schema, err }));
    *out = schema;
    schema = NULL;
done:
    rv_schema_free(schema);
    rv_tree_free(&tree);
    rv_tree_free(&common);
    return st;
}

rv_status rv_schema_open(const char *name_or_path, rv_schema **out, rv_error *err) {
    if (!name_or_path || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_schema_open: %s is NULL", !name_or_path ? "name_or_path" : "out");
    size_t n = strlen(name_or_path);
    if (!strchr(name_or_path, '/') && !(n > 5 && strcmp(name_or_path + n - 5, ".json") == 0)) {
        char name[MOST_NAME + 16];
        const rv_data_file *file = NULL;
        if (n <= MOST_NAME) {
            snprintf(name, sizeof name, "schemas/%s.json", name_or_path);
            file = rv_data_find(name);
        }
        if (file) return rv_schema_parse(name, file->data, file->bytes, out, err);
        return rv_fail(err, RV_ERR_ARGUMENT, "\"%.80s\": no built-in schema of that name (a file's name has a / or ends in .json)", name_or_path);
    }
    char *json;
    size_t bytes;
    rv_status st = rv_file_read(name_or_path, RV_TREE_BYTES, &json, &bytes, err);
    if (st) return st;
    st = rv_schema_parse(name_or_path, json, bytes, out, err);
    free(json);
    return st;
}

rv_schema *rv_schema_retain(const rv_schema *schema) {
    rv_schema *counted = (rv_schema *)(uintptr_t)schema;       /* what it says does not change */
    atomic_fetch_add(&counted->refs, 1);
    return counted;
}

void rv_schema_free(rv_schema *schema) {
    if (!schema || atomic_fetch_sub(&schema->refs, 1) > 1) return;
    for (uint32_t i = 0; i < schema->n_fields; i++) pcre2_code_free(schema->fields[i].pattern_code);
    rv_pool_free(&schema->pool);
    free(schema);
}
