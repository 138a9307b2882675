/* golden.h - opens a .safetensors file of reference values (below tests/data/golden). */
#ifndef RV_TESTS_GOLDEN_H
#define RV_TESTS_GOLDEN_H
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>

#include "loader/checkpoint.h"

/* `path` below RV_TEST_DATA; close with rv_checkpoint_close. Fails the test when it cannot. */
static inline rv_checkpoint *golden_open(const char *path) {
    char full[1024];
    rv_error err = { 0 };
    rv_checkpoint *c = NULL;
    snprintf(full, sizeof full, "%s/%s", RV_TEST_DATA, path);
    if (rv_checkpoint_open(full, &c, &err)) fail_msg("%s", err.message);
    return c;
}

/* The tensor, whose type must be `type`; *elements (may be NULL) is how many numbers it has. */
static inline const void *golden_get(const rv_checkpoint *c, const char *name, rv_dtype type, int64_t *elements) {
    const rv_tensor *t = rv_checkpoint_find(c, name);
    if (!t) fail_msg("no tensor %s among the goldens", name);
    if (t->type != type) fail_msg("golden %s is %s", name, t->type_name);
    if (elements) *elements = (int64_t)(t->bytes / rv_dtype_size(type));
    return t->data;
}

/* Golden data has no alignment promise: one number at a time, or memcpy. */
static inline float golden_f32(const void *data, int64_t i) {
    float value;
    memcpy(&value, (const char *)data + i * 4, sizeof value);
    return value;
}

static inline int64_t golden_i64(const void *data, int64_t i) {
    int64_t value;
    memcpy(&value, (const char *)data + i * 8, sizeof value);
    return value;
}
#endif
