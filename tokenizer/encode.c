/* encode.c - text to ids: added tokens first, then pieces, then BPE.
 *
 * The one idea: what is a control token is decided here and nowhere else.  Their text is looked for
 * only under RV_ENCODE_CONTROL; without it "<|eot_id|>" is ten ordinary characters.
 */
#include <stdlib.h>
#include <string.h>

#include "tokenizer/parts.h"

rv_status rv_ids_push(rv_ids *ids, int32_t id, rv_error *err) {
    if (ids->count == ids->capacity) {
        size_t capacity = ids->capacity ? ids->capacity * 2 : 256;
        if (capacity > SIZE_MAX / sizeof *ids->data / 2) return rv_fail_memory(err, "a list of token ids");
        int32_t *data = realloc(ids->data, capacity * sizeof *data);
        if (!data) return rv_fail_memory(err, "a list of token ids");
        ids->data = data;
        ids->capacity = capacity;
    }
    ids->data[ids->count++] = id;
    return RV_OK;
}

void rv_ids_free(rv_ids *ids) {
    if (!ids) return;
    free(ids->data);
    *ids = (rv_ids){ 0 };
}

/* Which added tokens a search may find. */
typedef struct search { const rv_tokenizer *t; bool control, normalized; } search;

static bool wanted(const search *s, const rv_added *a) {
    return (s->control || !(a->flags & RV_TOKEN_CONTROL)) && !(a->flags & RV_TOKEN_NORMALIZED) == !s->normalized;
}

/* The first of added[low..high), all alike in their first `depth` bytes and longer than that,
 * whose next byte is at least `byte`. */
static uint32_t lower_bound(const rv_tokenizer *t, uint32_t low, uint32_t high, uint32_t depth, uint32_t byte) {
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if ((uint8_t)t->pool[t->added[middle].at + depth] < byte) low = middle + 1;
        else high = middle;
    }
    return low;
}

/* The longest wanted added token that text begins with; NULL when there is none. */
static const rv_added *added_at(const search *s, const char *text, size_t bytes) {
    const rv_tokenizer *t = s->t;
    const rv_added *best = NULL;
    uint32_t low = 0, high = t->n_added;
    for (uint32_t depth = 0; low < high; depth++) {
        if (t->added[low].bytes == depth) {               /* sorted: the shorter one stands first */
            if (wanted(s, &t->added[low])) best = &t->added[low];
            low++;
        }
        if (depth == bytes) break;
        uint8_t byte = (uint8_t)text[depth];
        low = lower_bound(t, low, high, depth, byte);
        high = lower_bound(t, low, high, depth, byte + 1u);
    }
    return best;
}

/* The leftmost wanted added token in text[from..bytes) and where it stands. */
static const rv_added *added_next(const search *s, const char *text, size_t bytes, size_t from, size_t *at) {
    for (size_t i = from; i < bytes; i++) {
        if (!s->t->added_first[(uint8_t)text[i]]) continue;
        const rv_added *found = added_at(s, text + i, bytes - i);
        if (found) return *at = i, found;
    }
    return *at = bytes, NULL;
}

static rv_status append_pieces(const rv_tokenizer *t, const char *text, size_t bytes, rv_ids *out, rv_error *err) {
    for (size_t at = 0; at < bytes;) {
        size_t end = rv_split_next(&t->classes, text, bytes, at);
        rv_status st = rv_bpe_append(t, text + at, end - at, out, err);
        if (st) return st;
        at = end;
    }
    return RV_OK;
}

/* HF looks for the added tokens that are not "normalized" in all of the text, then for the others in
 * what is left between them. */
static rv_status append_text(const search *s, const char *text, size_t bytes, rv_ids *out, rv_error *err) {
    const rv_tokenizer *t = s->t;
    const bool last = s->normalized || t->n_normalized == 0;
    if (s->normalized || s->control || t->n_plain) {
        search inner = { t, s->control, true };
        for (size_t from = 0, at; from < bytes;) {
            rv_status st;
            const rv_added *a = added_next(s, text, bytes, from, &at);
            if (last) st = append_pieces(t, text + from, at - from, out, err);
            else st = append_text(&inner, text + from, at - from, out, err);
            if (!st && a) st = rv_ids_push(out, (int32_t)a->id, err);
            if (st) return st;
            from = a ? at + a->bytes : bytes;
        }
        return RV_OK;
    }
    return append_pieces(t, text, bytes, out, err);
}

rv_status rv_tokenizer_append(const rv_tokenizer *t, const char *text, size_t bytes,
                              rv_encode_flags flags, rv_ids *out, rv_error *err) {
    rv_status st = RV_OK;
    const size_t before = out->count;
    if (bytes > INT32_MAX)
        return rv_fail(err, RV_ERR_TOO_LONG, "text to tokenize: %zu bytes, at most %d are possible", bytes, INT32_MAX);
    if (flags & ~(rv_encode_flags)(RV_ENCODE_BOS | RV_ENCODE_CONTROL))
        return rv_fail(err, RV_ERR_ARGUMENT, "tokenizing: unknown flags 0x%x", flags);
    size_t good = bytes ? rv_utf8_check(text, bytes) : 0;
    if (good != bytes)
        return rv_fail(err, RV_ERR_FORMAT,
                       "text to tokenize: not UTF-8: byte 0x%02x at offset %zu (convert it to UTF-8 first)",
                       (unsigned)(uint8_t)text[good], good);
    if (flags & RV_ENCODE_BOS) {
        if (t->bos < 0)
            return rv_fail(err, RV_ERR_UNSUPPORTED,
                           "tokenizing: this tokenizer has no <|begin_of_text|> to begin with");
        TRY(rv_ids_push(out, t->bos, err));
    }
    TRY(append_text(&(search){ t, (flags & RV_ENCODE_CONTROL) != 0, false }, text, bytes, out, err));
done:
    if (st) out->count = before;
    return st;
}

rv_status rv_tokenizer_encode(const rv_tokenizer *t, const char *text, size_t bytes, rv_encode_flags flags,
                              int32_t *ids, size_t capacity, size_t *count, rv_error *err) {
    if (!t || (!text && bytes) || (!ids && capacity) || !count)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_tokenizer_encode: a tokenizer, the text and count must not be NULL");
    rv_ids all = { 0 };
    rv_status st = rv_tokenizer_append(t, text, bytes, flags, &all, err);
    if (!st) {
        size_t n = all.count < capacity ? all.count : capacity;
        if (n) memcpy(ids, all.data, n * sizeof *ids);
        *count = all.count;
    }
    rv_ids_free(&all);
    return st;
}
