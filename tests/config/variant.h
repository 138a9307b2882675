/* variant.h - the published model's config files with a few values changed, and what loading them gives. */
#ifndef RV_TESTS_VARIANT_H
#define RV_TESTS_VARIANT_H
#include "tests/support/folder.h"
#include "engine/config.h"

#include <jansson.h>

enum { CONFIG, GENERATION, PREPROCESSOR, N_FILES };
static const char *const file_names[N_FILES] = { "config.json", "generation_config.json", "preprocessor_config.json" };

static inline json_t *published(int file) {
    char path[1024];
    json_error_t why;
    snprintf(path, sizeof path, "%s/config/instruct/%s", RV_TEST_DATA, file_names[file]);
    json_t *root = json_load_file(path, 0, &why);
    if (!root) fail_msg("%s: %s", path, why.text);
    return root;
}

static inline json_t *value_of(const char *text) {
    json_error_t why;
    json_t *value = json_loads(text, JSON_DECODE_ANY, &why);
    if (!value) fail_msg("%s: %s", text, why.text);
    return value;
}

/* Sets "a.b.c" below root; text NULL removes it. */
static inline void set(json_t *root, const char *path, const char *text) {
    char part[64];
    const char *dot;
    for (; (dot = strchr(path, '.')) != NULL; path = dot + 1) {
        snprintf(part, sizeof part, "%.*s", (int)(dot - path), path);
        root = json_object_get(root, part);
        assert_true(json_is_object(root));
    }
    if (text) assert_int_equal(json_object_set_new(root, path, value_of(text)), 0);
    else json_object_del(root, path);
}

typedef struct change { int file; const char *path, *text; } change;

/* Loads the published files with these changes; path NULL removes the whole file, "" replaces its text. */
static inline rv_status load(const change *changes, size_t count, rv_config *out, rv_error *err) {
    char folder[1024];
    folder_new(folder, "config");
    for (int f = 0; f < N_FILES; f++) {
        json_t *root = published(f);
        const char *whole = NULL;
        bool there = true;
        for (size_t i = 0; i < count; i++) {
            if (changes[i].file != f) continue;
            if (!changes[i].path) there = false;
            else if (!*changes[i].path) whole = changes[i].text;
            else set(root, changes[i].path, changes[i].text);
        }
        char *text = json_dumps(root, JSON_INDENT(1));
        if (there) folder_write_text(folder, file_names[f], whole ? whole : text);
        free(text);
        json_decref(root);
    }
    return rv_config_load(folder, out, err);
}

#define CHANGES(...) (const change[]){ __VA_ARGS__ }, sizeof((const change[]){ __VA_ARGS__ }) / sizeof(change)
#define FAILS(code, part, ...) fails(code, part, CHANGES(__VA_ARGS__))
#define LOADS(c, ...) loads(c, CHANGES(__VA_ARGS__))

static inline void fails(rv_status code, const char *part, const change *changes, size_t count) {
    rv_error err = { 0 };
    rv_config c;
    memset(&c, 0x5a, sizeof c);
    expect_error(load(changes, count, &c, &err), &err, code, part);
    for (size_t i = 0; i < sizeof c; i++) assert_int_equal(((uint8_t *)&c)[i], 0x5a);     /* untouched on an error */
}

static inline void loads(rv_config *c, const change *changes, size_t count) {
    rv_error err = { 0 };
    expect_ok(load(changes, count, c, &err), &err);
}
#endif
