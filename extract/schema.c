/* schema.c - looking fields up, and the question that a schema asks: see schema.h. */
#include "extract/schema.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/text.h"

int32_t rv_schema_field(const rv_schema *schema, const char *key) {
    for (uint32_t i = 0; i < schema->n_fields; i++)
        if (strcmp(schema->fields[i].key, key) == 0) return (int32_t)i;
    return -1;
}

/* "Supplier name", "supplier-name" and "SUPPLIER_NAME" are one key. */
bool rv_schema_same_key(const char *name, const char *text, size_t bytes) {
    size_t at = 0;
    for (; *name; name++) {
        if (*name == '_' || *name == ' ' || *name == '-') continue;
        while (at < bytes && (text[at] == '_' || text[at] == ' ' || text[at] == '-')) at++;
        if (at == bytes || toupper((uint8_t)text[at]) != toupper((uint8_t)*name)) return false;
        at++;
    }
    while (at < bytes && (text[at] == '_' || text[at] == ' ' || text[at] == '-')) at++;
    return at == bytes;
}

/* The same, a plural s at the end on one side forgiven. */
static bool same_key_loosely(const char *name, const char *text, size_t bytes) {
    size_t n = strlen(name);
    if (rv_schema_same_key(name, text, bytes)) return true;
    if (bytes > 3 && (text[bytes - 1] == 'S' || text[bytes - 1] == 's') && rv_schema_same_key(name, text, bytes - 1)) return true;
    char singular[80];
    if (n < 4 || n >= sizeof singular || toupper((uint8_t)name[n - 1]) != 'S') return false;
    memcpy(singular, name, n - 1);
    singular[n - 1] = '\0';
    return rv_schema_same_key(singular, text, bytes);
}

int32_t rv_schema_find(const rv_schema *schema, const char *key, size_t bytes) {
    for (uint32_t i = 0; i < schema->n_fields; i++)
        if (rv_schema_same_key(schema->fields[i].key, key, bytes)) return (int32_t)i;
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        const rv_field *field = &schema->fields[i];
        for (uint32_t a = 0; a < field->aliases.count; a++)
            if (rv_schema_same_key(field->aliases.items[a], key, bytes)) return (int32_t)i;
    }
    for (uint32_t i = 0; i < schema->n_fields; i++) {
        const rv_field *field = &schema->fields[i];
        if (same_key_loosely(field->key, key, bytes)) return (int32_t)i;
        for (uint32_t a = 0; a < field->aliases.count; a++)
            if (same_key_loosely(field->aliases.items[a], key, bytes)) return (int32_t)i;
    }
    return -1;
}

const rv_data_file *rv_data_find(const char *name) {
    for (size_t i = 0; i < rv_data_files_count; i++)
        if (strcmp(rv_data_files[i].name, name) == 0) return &rv_data_files[i];
    return NULL;
}

/* ---- the question ---------------------------------------------------------------------------- */

static void add_field(rv_string *s, const rv_field *field) {
    rv_string_addf(s, "%s: %s", field->key, field->prompt);
    for (uint32_t i = 0; i < field->choices.count; i++) rv_string_addf(s, "%s%s", i ? ", " : " (one of: ", field->choices.items[i]);
    rv_string_addz(s, field->choices.count ? ")\n" : "\n");
}

static void add_rules(rv_string *s, bool lists, bool tables, bool money, bool dates) {
    rv_string_addz(s, "\nCopy what is printed; work nothing out and guess nothing. Write " RV_NOT_FOUND " where the page does not show it.\n");
    if (money) rv_string_addz(s, "Amounts keep their dollar sign and cents.\n");
    if (dates) rv_string_addz(s, "Dates are DD/MM/YYYY: the day comes first.\n");
    if (lists) rv_string_addz(s, "A list stays on its line: its items from top to bottom, with \" | \" between them.\n");
    if (tables) rv_string_addz(s, "Lists of one table have an item for every row; " RV_NOT_FOUND " stands for an empty cell.\n");
    rv_string_addz(s, "Write nothing before the first line or after the last one, and no other formatting.");
}

char *rv_schema_prompt(const rv_schema *schema, int32_t part) {
    const rv_prompt_part *of = part >= 0 ? &schema->parts[part] : NULL;
    uint32_t n = of ? of->n_fields : schema->n_fields;
    bool lists = false, tables = false, money = false, dates = false;
    rv_string s = { 0 };
    rv_string_addz(&s, of && of->prompt ? of->prompt : schema->prompt);
    if (!schema->prompt_alone) {
        rv_string_addz(&s, "\n\nAnswer with these lines, in this order, each as KEY: value.\n");
        for (uint32_t i = 0; i < n; i++) {
            const rv_field *field = &schema->fields[of ? of->fields[i] : i];
            add_field(&s, field);
            lists = lists || field->list;
            tables = tables || field->group >= 0;
            money = money || field->kind == RV_KIND_MONEY;
            dates = dates || field->kind == RV_KIND_DATE || field->kind == RV_KIND_DATE_RANGE;
        }
        add_rules(&s, lists, tables, money, dates);
    }
    if (s.failed) {
        rv_string_free(&s);
        return NULL;
    }
    return s.data;
}
