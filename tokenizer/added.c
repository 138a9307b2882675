/* added.c - added_tokens: the control tokens, and what fine-tuning added.
 *
 * The one idea: they lie beside the vocabulary, never in it, so BPE cannot make one by accident.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/load.h"

/* lstrip, rstrip and single_word change what a match takes with it: not implemented. */
static rv_status load_flags(rv_load *l, rv_load_entry *e, const char *key) {
    bool on;
    rv_status st = rv_load_bool(l, "added_tokens", &on);
    if (st || !on) return st;
    if (!strcmp(key, "special")) e->flags |= RV_TOKEN_CONTROL;
    else if (!strcmp(key, "normalized")) e->flags |= RV_TOKEN_NORMALIZED;
    else return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: added_tokens: %s is true (byte %zu), which is not supported",
                        l->path, key, l->j.start);
    return RV_OK;
}

static rv_status load_content(rv_load *l, rv_load_entry *e) {
    rv_tokenizer *t = l->t;
    if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, "added_tokens", "content, a string");
    size_t bytes = rv_json_string(&l->j, t->pool + l->pool_used);
    if (bytes == 0 || bytes > RV_MAX_TOKEN_BYTES)
        return rv_load_wrong(l, "added_tokens", "content that is neither empty nor too long");
    e->at = (uint32_t)l->pool_used;
    e->bytes = (uint16_t)bytes;
    l->pool_used += bytes;
    return RV_OK;
}

static rv_status load_one(rv_load *l) {
    static const char *const flags[] = { "special", "normalized", "lstrip", "rstrip", "single_word" };
    rv_status st = RV_OK;
    rv_load_entry e = { 0 };
    bool have_id = false;
    rv_json_token token;
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) {
        const char *flag = NULL;
        for (size_t i = 0; i < sizeof flags / sizeof *flags; i++)
            if (rv_json_is(&l->j, flags[i])) flag = flags[i];
        if (flag) TRY(load_flags(l, &e, flag));
        else if (rv_json_is(&l->j, "content")) TRY(load_content(l, &e));
        else if (rv_json_is(&l->j, "id")) {
            if (rv_json_next(&l->j) != RV_JSON_NUMBER || !rv_json_uint64(&l->j, &e.id) || e.id >= RV_MAX_IDS)
                return rv_load_wrong(l, "added_tokens", "an id (a whole number from 0 to 4194303)");
            have_id = true;
        } else rv_json_skip(&l->j);
    }
    if (token != RV_JSON_OBJECT_END || !have_id || !e.bytes)
        return rv_load_wrong(l, "added_tokens", "an object with id and content");
    if (l->added.count == l->added.capacity) {
        size_t capacity = l->added.capacity ? l->added.capacity * 2 : 512;
        rv_load_entry *data = realloc(l->added.data, capacity * sizeof *data);
        if (!data) return rv_fail_memory(l->err, "opening the tokenizer");
        l->added.data = data;
        l->added.capacity = capacity;
    }
    l->added.data[l->added.count++] = e;
done:
    return st;
}

rv_status rv_load_added(rv_load *l) {
    rv_status st = RV_OK;
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_ARRAY) return rv_load_wrong(l, "added_tokens", "a list");
    while ((token = rv_json_next(&l->j)) == RV_JSON_OBJECT) TRY(load_one(l));
    if (token != RV_JSON_ARRAY_END) return rv_load_wrong(l, "added_tokens", "an object");
done:
    return st;
}

static int by_text(const void *a, const void *b, void *pool) {
    const rv_added *x = a, *y = b;
    size_t n = x->bytes < y->bytes ? x->bytes : y->bytes;
    int order = memcmp((const char *)pool + x->at, (const char *)pool + y->at, n);
    return order ? order : (x->bytes > y->bytes) - (x->bytes < y->bytes);
}

/* Room for the largest id, and each entry at its own. */
static rv_status place_by_id(rv_load *l) {
    rv_tokenizer *t = l->t;
    for (size_t i = 0; i < l->added.count; i++)
        if (l->added.data[i].id >= t->size) t->size = (uint32_t)l->added.data[i].id + 1;
    rv_token_entry *tokens = realloc(t->tokens, ((size_t)t->size + 1) * sizeof *tokens);
    if (!tokens) return rv_fail_memory(l->err, "opening the tokenizer");
    t->tokens = tokens;
    memset(tokens + t->n_vocab, 0, ((size_t)t->size + 1 - t->n_vocab) * sizeof *tokens);
    for (size_t i = 0; i < l->added.count; i++) {
        const rv_load_entry *e = &l->added.data[i];
        if (tokens[e->id].bytes)
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: added_tokens: the id %u of \"%.*s\" is taken already%s", l->path,
                           (unsigned)e->id, (int)e->bytes, t->pool + e->at,
                           e->id < t->n_vocab ? " by model.vocab" : "");
        tokens[e->id] = (rv_token_entry){ e->at, e->bytes, e->flags };
    }
    return RV_OK;
}

rv_status rv_load_place_added(rv_load *l) {
    rv_status st = RV_OK;
    rv_tokenizer *t = l->t;
    const uint32_t n = (uint32_t)l->added.count;
    TRY(place_by_id(l));
    t->added = calloc((size_t)n + 1, sizeof *t->added);
    if (!t->added) return rv_fail_memory(l->err, "opening the tokenizer");
    for (uint32_t i = 0; i < n; i++) {
        const rv_load_entry *e = &l->added.data[i];
        t->added[i] = (rv_added){ e->at, (uint32_t)e->id, e->bytes, e->flags };
        t->added_first[(uint8_t)t->pool[e->at]] = true;
        t->n_plain += !(e->flags & RV_TOKEN_CONTROL);
        t->n_normalized += (e->flags & RV_TOKEN_NORMALIZED) != 0;
    }
    qsort_r(t->added, n, sizeof *t->added, by_text, t->pool);
    t->n_added = n;
    for (uint32_t i = 1; i < n; i++)
        if (!by_text(&t->added[i - 1], &t->added[i], t->pool))
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: added_tokens: \"%.*s\" stands there twice", l->path,
                           (int)t->added[i].bytes, t->pool + t->added[i].at);
    t->bos = rv_tokenizer_control(t, RV_BOS_TEXT);
    if (t->adds_bos && (t->bos < 0 || l->template_bos != t->bos))
        return rv_fail(l->err, RV_ERR_FORMAT,
                       "%s: post_processor: puts " RV_BOS_TEXT " with id %lld before a text, but "
                       "added_tokens give it %d", l->path, (long long)l->template_bos, t->bos);
done:
    return st;
}
