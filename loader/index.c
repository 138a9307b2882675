/* index.c - the shard index, read with the pull reader: the file is untrusted and has one shape. */
#include "loader/index.h"

#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"

enum { INDEX_MAX_BYTES = 100000000 };

typedef struct row { const char *name, *file; } row;

typedef struct reader {
    rv_json     j;
    const char *path;
    rv_error   *err;
    char       *pool;                /* decoded names; as large as the file                     */
    size_t      pool_used;
    row        *rows;
    uint32_t    count, capacity;
} reader;

static rv_status bad(const reader *r, const char *what, const char *why) {
    return rv_fail(r->err, RV_ERR_FORMAT, "shard index: %.160s: %s (%s)", what, why, r->path);
}

/* The latest key or string, decoded into the pool. */
static rv_status keep(reader *r, const char **out) {
    char *text = r->pool + r->pool_used;
    size_t length = rv_json_string(&r->j, text);
    text[length] = '\0';
    r->pool_used += length + 1;
    if (memchr(text, '\0', length)) return bad(r, text, "the name holds a NUL character");
    *out = text;
    return RV_OK;
}

static bool ends_with(const char *text, const char *tail) {
    size_t n = strlen(text), m = strlen(tail);
    return n >= m && strcmp(text + n - m, tail) == 0;
}

static rv_status check_file_name(const reader *r, const char *tensor, const char *file) {
    if (strpbrk(file, "/\\") || strstr(file, ".."))
        return rv_fail(r->err, RV_ERR_FORMAT, "shard index: %.120s: file name \"%.120s\" leads out of the model's "
                       "folder (%s)", tensor, file, r->path);
    if (!ends_with(file, ".safetensors"))
        return rv_fail(r->err, RV_ERR_UNSUPPORTED, "shard index: %.120s: \"%.120s\" is not a .safetensors file: save "
                       "the model as safetensors (%s)", tensor, file, r->path);
    return RV_OK;
}

static rv_status read_map(reader *r) {
    rv_json_token token;
    rv_status st;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_json_fail(&r->j, r->path, "weight_map as an object", r->err);
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY) {
        if (r->count == r->capacity) {
            uint32_t capacity = r->capacity ? r->capacity * 2 : 1024;
            row *grown = realloc(r->rows, capacity * sizeof *grown);
            if (!grown) return rv_fail_memory(r->err, "shard index");
            r->rows = grown;
            r->capacity = capacity;
        }
        row *next = &r->rows[r->count++];
        if ((st = keep(r, &next->name)) != RV_OK) return st;
        if (rv_json_next(&r->j) != RV_JSON_STRING)
            return rv_json_fail(&r->j, r->path, "a file name in weight_map", r->err);
        if ((st = keep(r, &next->file)) != RV_OK) return st;
        if ((st = check_file_name(r, next->name, next->file)) != RV_OK) return st;
    }
    return token == RV_JSON_OBJECT_END ? RV_OK : rv_json_fail(&r->j, r->path, "a tensor's name", r->err);
}

static rv_status read_metadata(reader *r) {
    rv_json_token token;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_json_fail(&r->j, r->path, "metadata as an object", r->err);
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY) {
        bool total = rv_json_is(&r->j, "total_size");
        token = rv_json_next(&r->j);
        if (total && token != RV_JSON_NUMBER) return rv_json_fail(&r->j, r->path, "total_size as a number", r->err);
        if (!rv_json_finish(&r->j, token)) return rv_json_fail(&r->j, r->path, "a value", r->err);
    }
    return token == RV_JSON_OBJECT_END ? RV_OK : rv_json_fail(&r->j, r->path, "a key", r->err);
}

static rv_status read_top(reader *r) {
    bool map = false, metadata = false;
    rv_json_token token;
    rv_status st = RV_OK;
    if (rv_json_next(&r->j) != RV_JSON_OBJECT) return rv_json_fail(&r->j, r->path, "an object", r->err);
    while ((token = rv_json_next(&r->j)) == RV_JSON_KEY) {
        bool is_map = rv_json_is(&r->j, "weight_map"), is_metadata = rv_json_is(&r->j, "metadata");
        if (is_map && map) return bad(r, "weight_map", "is given twice");
        if (is_metadata && metadata) return bad(r, "metadata", "is given twice");
        map |= is_map;
        metadata |= is_metadata;
        if (is_map) st = read_map(r);
        else if (is_metadata) st = read_metadata(r);
        else if (!rv_json_skip(&r->j)) st = rv_json_fail(&r->j, r->path, "a value", r->err);
        if (st) return st;
    }
    if (token != RV_JSON_OBJECT_END || rv_json_next(&r->j) != RV_JSON_END)
        return rv_json_fail(&r->j, r->path, "the end", r->err);
    if (!map) return bad(r, "weight_map", "is missing");
    return r->count ? RV_OK : bad(r, "weight_map", "is empty");
}

static int by_file(const void *a, const void *b) { return strcmp(((const row *)a)->file, ((const row *)b)->file); }

static int by_name(const void *a, const void *b) {
    return strcmp(((const rv_index_entry *)a)->name, ((const rv_index_entry *)b)->name);
}

/* Numbers the files and sorts the entries by name. */
static rv_status build(reader *r, rv_index *out) {
    out->entries = calloc(r->count, sizeof *out->entries);
    out->files = calloc(r->count, sizeof *out->files);
    if (!out->entries || !out->files) return rv_fail_memory(r->err, "shard index");
    qsort(r->rows, r->count, sizeof *r->rows, by_file);
    for (uint32_t i = 0; i < r->count; i++) {
        if (i == 0 || strcmp(r->rows[i - 1].file, r->rows[i].file)) out->files[out->n_files++] = r->rows[i].file;
        out->entries[i] = (rv_index_entry){ r->rows[i].name, out->n_files - 1 };
    }
    out->count = r->count;
    qsort(out->entries, out->count, sizeof *out->entries, by_name);
    for (uint32_t i = 1; i < out->count; i++)
        if (by_name(&out->entries[i - 1], &out->entries[i]) == 0)
            return bad(r, out->entries[i].name, "is in weight_map twice");
    return RV_OK;
}

rv_status rv_index_read(const char *path, rv_index *out, rv_error *err) {
    rv_status st;
    char *text = NULL;
    size_t bytes;
    rv_index found = { 0 };
    reader r = { .path = path, .err = err };
    TRY(rv_file_read(path, INDEX_MAX_BYTES, &text, &bytes, err));
    r.pool = found.text = malloc(bytes + 1);
    if (!r.pool) TRY(rv_fail_memory(err, "shard index"));
    r.j = rv_json_open(text, bytes);
    TRY(read_top(&r));
    TRY(build(&r, &found));
    *out = found;
    found = (rv_index){ 0 };
done:
    rv_index_free(&found);
    free(r.rows);
    free(text);
    return st;
}

void rv_index_free(rv_index *index) {
    if (!index) return;
    free(index->entries);
    free((void *)index->files);
    free(index->text);
    *index = (rv_index){ 0 };
}

const rv_index_entry *rv_index_find(const rv_index *index, const char *name) {
    rv_index_entry key = { name, 0 };
    return index->count ? bsearch(&key, index->entries, index->count, sizeof key, by_name) : NULL;
}
