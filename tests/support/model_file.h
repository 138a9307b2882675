/* model_file.h - the one weights file of a small model folder: read, changed, and written again. */
#ifndef RV_TESTS_MODEL_FILE_H
#define RV_TESTS_MODEL_FILE_H
#include "tests/support/safetensors_file.h"

#include "loader/checkpoint.h"

enum { MODEL_FILE_MOST = 600 };

typedef struct model_file {
    char           dir[1024], shapes[MODEL_FILE_MOST][64];
    rv_checkpoint *c;                    /* what t points into                                  */
    stored         t[MODEL_FILE_MOST];
    size_t         n;
} model_file;

static inline model_file *model_file_open(const char *dir) {
    model_file *f = calloc(1, sizeof *f);
    rv_error err = { 0 };
    assert_non_null(f);
    snprintf(f->dir, sizeof f->dir, "%s", dir);
    expect_ok(rv_checkpoint_open(dir, &f->c, &err), &err);
    assert_true(rv_checkpoint_count(f->c) < MODEL_FILE_MOST);
    for (; f->n < rv_checkpoint_count(f->c); f->n++) {
        const rv_tensor *t = rv_checkpoint_at(f->c, (uint32_t)f->n);
        char *shape = f->shapes[f->n];
        for (int32_t d = 0, at = 0; d < t->n_dims; d++) at += snprintf(shape + at, 64 - (size_t)at, "%s%" PRId64, d ? "," : "", t->shape[d]);
        f->t[f->n] = (stored){ t->file_name, t->type_name, shape, t->data, t->bytes };
    }
    return f;
}

/* The tensor whose name in the file ends so; NULL where there is none. */
static inline stored *model_file_find(model_file *f, const char *tail) {
    const size_t n = strlen(tail);
    for (size_t i = 0; i < f->n; i++) {
        const size_t m = strlen(f->t[i].name);
        if (m >= n && !strcmp(f->t[i].name + m - n, tail)) return &f->t[i];
    }
    return NULL;
}

static inline stored *model_file_get(model_file *f, const char *tail) {
    stored *t = model_file_find(f, tail);
    if (!t) fail_msg("no %s", tail);
    return t;
}

static inline void model_file_add(model_file *f, stored t) {
    assert_true(f->n < MODEL_FILE_MOST);
    f->t[f->n++] = t;
}

static inline void model_file_drop(model_file *f, const char *tail) { *model_file_get(f, tail) = f->t[--f->n]; }

/* Writes and frees it. Numbers of 4 bytes come first, those of one last, so that each is aligned. */
static inline void model_file_save(model_file *f) {
    stored sorted[MODEL_FILE_MOST];
    size_t n = 0;
    for (int size = 8; size; size /= 2)
        for (size_t i = 0; i < f->n; i++) {
            const char *type = f->t[i].type;
            const int is = strstr(type, "64") ? 8 : strstr(type, "32") ? 4 : strstr(type, "16") ? 2 : 1;
            if (is == size) sorted[n++] = f->t[i];
        }
    safetensors_write(f->dir, "model.safetensors", sorted, n);
    rv_checkpoint_close(f->c);
    free(f);
}
#endif
