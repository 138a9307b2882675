/* load.c - opens a tokenizer.json.
 *
 * The one idea: a tokenizer that is not quite Llama 3's would give ids that look right and are
 * wrong, so whatever this code does not implement is an error that names it.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "engine/base/file.h"
#include "tokenizer/load.h"

enum { MAX_FILE_BYTES = 1 << 28 };

rv_status rv_load_wrong(const rv_load *l, const char *where, const char *wanted) {
    if (l->j.error)
        return rv_fail(l->err, RV_ERR_FORMAT, "%s: not valid JSON: %s (byte %zu, in %s; is the download complete?)",
                       l->path, l->j.error, l->j.at, where);
    return rv_fail(l->err, RV_ERR_FORMAT, "%s: %s: %s was expected (byte %zu)", l->path, where, wanted, l->j.start);
}

rv_status rv_load_bool(rv_load *l, const char *where, bool *out) {
    rv_json_token token = rv_json_next(&l->j);
    if (token != RV_JSON_TRUE && token != RV_JSON_FALSE) return rv_load_wrong(l, where, "true or false");
    *out = token == RV_JSON_TRUE;
    return RV_OK;
}

void rv_load_name(const rv_load *l, char *out, size_t capacity) {
    rv_json part = l->j;
    char *all = NULL;
    size_t n = part.slice_bytes;
    if (part.escaped && (all = malloc(n + 1))) n = rv_json_string(&part, all);
    const char *text = all ? all : part.slice;
    if (n >= capacity) {
        n = capacity - 1;
        while (n > 0 && ((uint8_t)text[n] & 0xc0) == 0x80) n--;      /* whole characters */
    }
    memcpy(out, text, n);
    out[n] = '\0';
    free(all);
}

/* normalizer: Llama 3 has none. */
static rv_status load_normalizer(rv_load *l) {
    rv_json_token token = rv_json_next(&l->j);
    if (token == RV_JSON_NULL) return RV_OK;
    if (token == RV_JSON_ERROR) return rv_load_wrong(l, "normalizer", "null");
    return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: normalizer: this is no Llama 3 tokenizer: its text is changed "
                   "before it is split, which rvengine does not do", l->path);
}

enum { PART_MODEL = 1, PART_ADDED = 2, PART_PRE = 4, PART_POST = 8, PART_DECODER = 16, PART_NORMALIZER = 32 };

/* truncation and padding are left over from training: HF overrides both at every call. */
static rv_status load_part(rv_load *l, uint32_t *seen) {
    static const struct { const char *name; uint32_t bit; rv_status (*read)(rv_load *l); } parts[] = {
        { "model", PART_MODEL, rv_load_model },
        { "added_tokens", PART_ADDED, rv_load_added },
        { "normalizer", PART_NORMALIZER, load_normalizer },
        { "pre_tokenizer", PART_PRE, rv_load_pre_tokenizer },
        { "post_processor", PART_POST, rv_load_post_processor },
        { "decoder", PART_DECODER, rv_load_decoder },
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (!rv_json_is(&l->j, parts[i].name)) continue;
        if (*seen & parts[i].bit)
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: %s: stands there twice (byte %zu)",
                           l->path, parts[i].name, l->j.start);
        *seen |= parts[i].bit;
        return parts[i].read(l);
    }
    rv_json_skip(&l->j);                                   /* an error shows at the next token */
    return RV_OK;
}

static rv_status load_file(rv_load *l) {
    rv_status st = RV_OK;
    uint32_t seen = 0;
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, "the file", "an object");
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) TRY(load_part(l, &seen));
    if (token != RV_JSON_OBJECT_END || rv_json_next(&l->j) != RV_JSON_END)
        return rv_load_wrong(l, "the file", "its end");
    static const struct { const char *name; uint32_t bit; } needed[] = {
        { "model", PART_MODEL }, { "pre_tokenizer", PART_PRE }, { "decoder", PART_DECODER } };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++)
        if (!(seen & needed[i].bit))
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: %s: missing (this is not a whole tokenizer.json)",
                           l->path, needed[i].name);
    TRY(rv_load_place_added(l));
done:
    return st;
}

/* The tokens' bytes are a small part of the file: give back the rest of the pool. */
static void shrink_pool(rv_load *l) {
    char *pool = realloc(l->t->pool, l->pool_used + 1);
    if (pool) l->t->pool = pool;
}

static rv_status open_file(const char *path, rv_tokenizer **out, rv_error *err) {
    rv_status st = RV_OK;
    rv_map map = { 0 };
    rv_load l = { .path = path, .err = err, .template_bos = -1 };
    TRY(rv_map_open(path, &map, err));
    if (map.bytes == 0 || map.bytes > MAX_FILE_BYTES) {
        st = rv_fail(err, RV_ERR_FORMAT, "%s: %s", path, map.bytes ? "larger than any tokenizer (256 MiB)"
                                                                  : "the file is empty");
        goto done;
    }
    l.t = calloc(1, sizeof *l.t);
    if (l.t) l.t->pool = malloc((size_t)map.bytes + 1);
    if (!l.t || !l.t->pool) { st = rv_fail_memory(err, "opening the tokenizer"); goto done; }
    l.t->bos = -1;
    l.j = rv_json_open((const char *)map.data, (size_t)map.bytes);
    rv_classes_fill(&l.t->classes);
    TRY(load_file(&l));
    shrink_pool(&l);
    *out = l.t;
    l.t = NULL;
done:
    free(l.vocab.data);
    free(l.added.data);
    rv_tokenizer_free(l.t);
    rv_map_close(&map);
    return st;
}

rv_status rv_tokenizer_open(const char *path, rv_tokenizer **out, rv_error *err) {
    struct stat info;
    if (!path || !out) return rv_fail(err, RV_ERR_ARGUMENT, "rv_tokenizer_open: path and out must not be NULL");
    if (stat(path, &info) || !S_ISDIR(info.st_mode)) return open_file(path, out, err);
    char *file = rv_path_join(path, "tokenizer.json");
    if (!file) return rv_fail_memory(err, "opening the tokenizer");
    rv_status st = open_file(file, out, err);
    free(file);
    return st;
}

void rv_tokenizer_free(rv_tokenizer *t) {
    if (!t) return;
    free(t->pool);
    free(t->tokens);
    free(t->pieces);
    free(t->pairs);
    free(t->added);
    free(t);
}
