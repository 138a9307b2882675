/* config_json.c - see config_json.h; over jansson. */
#include "engine/config_json.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/file.h"
#include "engine/base/json_tree.h"

enum { JSON_FILE_MAX_BYTES = 16 << 20 };

static void parse(rv_json_file *f, const char *path) {
    char *text = NULL;
    size_t bytes;
    json_error_t why;
    bool no_memory;
    f->st = rv_file_read(path, JSON_FILE_MAX_BYTES, &text, &bytes, f->err);
    if (f->st) return;
    f->root = rv_json_load(text, bytes, JSON_REJECT_DUPLICATES, &why, &no_memory);
    free(text);
    if (!f->root && no_memory) f->st = rv_fail_memory(f->err, f->name);
    else if (!f->root)
        f->st = rv_fail(f->err, RV_ERR_FORMAT, "%s: not valid JSON: %s at line %d, column %d (%s)", f->name, why.text,
                        why.line, why.column, f->folder);
    else if (!json_is_object(f->root))
        f->st = rv_fail(f->err, RV_ERR_FORMAT, "%s: must hold an object (%s)", f->name, f->folder);
}

void rv_json_file_open(rv_json_file *f, const char *folder, const char *name, bool required) {
    f->folder = folder;
    f->name = name;
    f->root = NULL;
    if (f->st) return;
    char *path = rv_path_join(folder, name);
    struct stat info;
    if (!path) f->st = rv_fail_memory(f->err, name);
    else if (lstat(path, &info) == 0 || errno != ENOENT) parse(f, path);      /* there, even if not readable */
    else if (required)
        f->st = rv_fail(f->err, RV_ERR_IO, "%s: is missing: is this a Hugging Face model folder? (%s)", name, folder);
    free(path);
}

void rv_json_file_close(rv_json_file *f) {
    json_decref(f->root);
    f->root = NULL;
}

static void fail(const rv_section *s, rv_status code, const char *key, const char *why, va_list args) {
    char text[400];
    rv_json_file *f = s->file;
    if (f->st) return;
    vsnprintf(text, sizeof text, why, args);
    f->st = rv_fail(f->err, code, "%s: %s%s: %s (%s)", f->name, s->prefix, key, text, f->folder);
}

void rv_section_bad(const rv_section *s, const char *key, const char *why, ...) {
    va_list args;
    va_start(args, why);
    fail(s, RV_ERR_FORMAT, key, why, args);
    va_end(args);
}

void rv_section_no(const rv_section *s, const char *key, const char *why, ...) {
    va_list args;
    va_start(args, why);
    fail(s, RV_ERR_UNSUPPORTED, key, why, args);
    va_end(args);
}

const char *rv_json_show(const json_t *value, char out[48]) {
    enum { ROOM = 48 };
    if (json_is_string(value)) snprintf(out, ROOM, "\"%.40s\"", json_string_value(value));
    else if (json_is_integer(value)) snprintf(out, ROOM, "%lld", (long long)json_integer_value(value));
    else if (json_is_real(value)) snprintf(out, ROOM, "%.12g", json_real_value(value));
    else if (json_is_array(value)) snprintf(out, ROOM, "a list of %zu", json_array_size(value));
    else if (json_is_object(value)) snprintf(out, ROOM, "an object");
    else snprintf(out, ROOM, "%s", json_is_true(value) ? "true" : json_is_false(value) ? "false" : "null");
    return out;
}

static const json_t *get(const rv_section *s, const char *key) {
    return s->file->st || !s->object ? NULL : json_object_get(s->object, key);
}

bool rv_section_has(const rv_section *s, const char *key) { return get(s, key) != NULL; }

const json_t *rv_section_value(const rv_section *s, const char *key) {
    const json_t *value = get(s, key);
    return json_is_null(value) ? NULL : value;
}

static bool whole_in_range(const json_t *value, int32_t low, int32_t high) {
    return json_is_integer(value) && json_integer_value(value) >= low && json_integer_value(value) <= high;
}

int32_t rv_section_whole(const rv_section *s, const char *key, int32_t low, int32_t high, int32_t fallback) {
    char shown[48];
    const json_t *value = get(s, key);
    if (!value) return fallback;
    if (whole_in_range(value, low, high)) return (int32_t)json_integer_value(value);
    rv_section_bad(s, key, "must be a whole number from %d to %d, is %s", low, high,
                    rv_json_show(value, shown));
    return fallback;
}

double rv_section_real(const rv_section *s, const char *key, double low, double high, double fallback) {
    char shown[48];
    const json_t *value = get(s, key);
    if (!value) return fallback;
    double x = json_number_value(value);
    if (json_is_number(value) && x >= low && x <= high) return x;
    rv_section_bad(s, key, "must be a number from %g to %g, is %s", low, high, rv_json_show(value, shown));
    return fallback;
}

bool rv_section_bool(const rv_section *s, const char *key, bool fallback) {
    char shown[48];
    const json_t *value = rv_section_value(s, key);
    if (!value) return fallback;
    if (json_is_boolean(value)) return json_is_true(value);
    rv_section_bad(s, key, "must be true or false, is %s", rv_json_show(value, shown));
    return fallback;
}

const char *rv_section_text(const rv_section *s, const char *key, const char *fallback) {
    char shown[48];
    const json_t *value = rv_section_value(s, key);
    if (!value) return fallback;
    if (json_is_string(value)) return json_string_value(value);
    rv_section_bad(s, key, "must be a string, is %s", rv_json_show(value, shown));
    return fallback;
}

rv_section rv_section_open(const rv_section *s, const char *key, const char *prefix) {
    char shown[48];
    rv_section inner = { .file = s->file, .prefix = prefix };
    const json_t *value = rv_section_value(s, key);
    if (json_is_object(value)) inner.object = value;
    else if (value) rv_section_bad(s, key, "must be an object, is %s", rv_json_show(value, shown));
    return inner;
}

int32_t rv_section_wholes(const rv_section *s, const char *key, int32_t low, int32_t high, int32_t min, int32_t max,
                          int32_t *out) {
    char shown[48];
    const json_t *list = rv_section_value(s, key);
    if (!list) return 0;
    if (!json_is_array(list) || json_array_size(list) < (size_t)min || json_array_size(list) > (size_t)max) {
        rv_section_bad(s, key, "must be a list of %d to %d whole numbers, is %s", min, max,
                        rv_json_show(list, shown));
        return 0;
    }
    int32_t count = (int32_t)json_array_size(list);
    for (int32_t i = 0; i < count; i++) {
        const json_t *value = json_array_get(list, (size_t)i);
        if (!whole_in_range(value, low, high)) {
            rv_section_bad(s, key, "item %d must be a whole number from %d to %d, is %s", i + 1, low, high,
                            rv_json_show(value, shown));
            return 0;
        }
        out[i] = (int32_t)json_integer_value(value);
    }
    return count;
}
