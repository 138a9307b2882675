/* vocabulary.c - model.vocab, model.merges and added_tokens into the tables of parts.h.
 *
 * The one idea: the file writes bytes in an alphabet of 256 visible characters (a space is U+0120);
 * everything is turned back into bytes while reading, and from then on there are only bytes.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tokenizer/load.h"

enum { AHEAD = 16 };                   /* how early a table's slot is asked for */

/* GPT-2's byte alphabet: visible Latin-1 stands for itself, the other 68 bytes in rising order are
 * U+0100, U+0101, ..  In place or not (out <= text); returns the bytes, or SIZE_MAX when a
 * character is none of the alphabet. */
static size_t bytes_of_letters(const char *text, size_t n, char *out) {
    size_t used = 0;
    for (size_t i = 0; i < n; used++) {
        if (text[i] > 0x20 && text[i] < 0x7f) {
            out[used] = text[i++];
            continue;
        }
        uint8_t a = (uint8_t)text[i], b = i + 1 < n ? (uint8_t)text[i + 1] : 0;
        uint32_t code = a < 0x80 ? a : (uint32_t)(a & 0x1f) << 6 | (b & 0x3fu);
        i += a < 0x80 ? 1 : 2;
        if (a >= 0xe0) return SIZE_MAX;
        if (code >= 0x100 && code < 0x144) {
            uint32_t nth = code - 0x100;
            out[used] = (char)(nth < 33 ? nth : nth < 67 ? 0x7f + nth - 33 : 0xad);
        } else if (code >= 0xa1 && code <= 0xff && code != 0xad) {
            out[used] = (char)code;
        } else {
            return SIZE_MAX;
        }
    }
    return used;
}

/* The latest key or string as bytes behind what the pool holds; not yet part of it. */
static rv_status read_token(const rv_load *l, const char *where, size_t offset, size_t *bytes) {
    char *out = l->t->pool + l->pool_used + offset;
    if (l->j.escaped) *bytes = bytes_of_letters(out, rv_json_string(&l->j, out), out);
    else *bytes = bytes_of_letters(l->j.slice, l->j.slice_bytes, out);
    if (*bytes != SIZE_MAX && *bytes > 0 && *bytes <= RV_MAX_TOKEN_BYTES) return RV_OK;
    char name[48];
    rv_load_name(l, name, sizeof name);
    return rv_fail(l->err, RV_ERR_FORMAT, "%s: %s: \"%s\" %s (byte %zu)", l->path, where, name,
                   *bytes == SIZE_MAX ? "has a character outside of the byte alphabet"
                                      : *bytes ? "is too long for a token" : "is no token: it is empty", l->j.start);
}

static rv_status add_entry(rv_load *l, rv_load_entries *list, rv_load_entry entry) {
    if (list->count >= RV_MAX_IDS)
        return rv_fail(l->err, RV_ERR_FORMAT, "%s: more than %d tokens", l->path, RV_MAX_IDS);
    if (list->count == list->capacity) {
        size_t capacity = list->capacity ? list->capacity * 2 : 1024;
        rv_load_entry *data = realloc(list->data, capacity * sizeof *data);
        if (!data) return rv_fail_memory(l->err, "opening the tokenizer");
        list->data = data;
        list->capacity = capacity;
    }
    list->data[list->count++] = entry;
    return RV_OK;
}

/* Files the entries by id, which must be 0 to count-1, each once. */
static rv_status place_vocab(rv_load *l) {
    rv_tokenizer *t = l->t;
    const uint32_t n = (uint32_t)l->vocab.count;
    t->tokens = calloc((size_t)n + 1, sizeof *t->tokens);
    t->pieces = rv_pieces_new(n, &t->piece_mask);
    if (!t->tokens || !t->pieces) return rv_fail_memory(l->err, "opening the tokenizer");
    for (uint32_t i = 0; i < n; i++) {
        const rv_load_entry *e = &l->vocab.data[i];
        if (e->id >= n)
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: model.vocab: an id is %llu, but %u tokens need the ids 0 to %u, "
                           "each once", l->path, (unsigned long long)e->id, n, n - 1);
        rv_token_entry *token = &t->tokens[e->id];
        if (token->bytes)
            return rv_fail(l->err, RV_ERR_FORMAT,
                           "%s: model.vocab: two tokens have the id %u", l->path, (unsigned)e->id);
        *token = (rv_token_entry){ e->at, e->bytes, 0 };
    }
    for (uint32_t id = 0; id < n; id++) {
        const rv_token_entry *token = &t->tokens[id], *ahead = token + AHEAD;
        if (id + AHEAD < n) rv_piece_hint(t, t->pool + ahead->at, ahead->bytes);
        rv_piece *slot = rv_piece_slot(t, t->pool + token->at, token->bytes);
        if (slot->bytes)
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: model.vocab: the ids %u and %u have the same text",
                           l->path, slot->id, id);
        *slot = (rv_piece){ rv_piece_key(t->pool + token->at, token->bytes), id, token->bytes };
        if (token->bytes > t->longest) t->longest = token->bytes;
    }
    t->n_vocab = t->size = n;
    return RV_OK;
}

static rv_status find_byte_ids(rv_load *l) {
    rv_tokenizer *t = l->t;
    for (uint32_t byte = 0; byte < 256; byte++) {
        const char text = (char)byte;
        const rv_piece *slot = rv_piece_slot(t, &text, 1);
        if (!slot->bytes)
            return rv_fail(l->err, RV_ERR_FORMAT, "%s: model.vocab: there is no token for the byte 0x%02x; all 256 are "
                           "needed", l->path, byte);
        t->byte_id[byte] = slot->id;
    }
    return RV_OK;
}

static rv_status load_vocab(rv_load *l) {
    rv_status st = RV_OK;
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, "model.vocab", "an object");
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) {
        size_t bytes;
        rv_load_entry e = { .at = (uint32_t)l->pool_used };
        TRY(read_token(l, "model.vocab", 0, &bytes));
        e.bytes = (uint16_t)bytes;
        l->pool_used += bytes;
        if (rv_json_next(&l->j) != RV_JSON_NUMBER || !rv_json_uint64(&l->j, &e.id))
            return rv_load_wrong(l, "model.vocab", "an id (a whole number from 0)");
        TRY(add_entry(l, &l->vocab, e));
    }
    if (token != RV_JSON_OBJECT_END) return rv_load_wrong(l, "model.vocab", "a token in quotes");
    TRY(place_vocab(l));
    TRY(find_byte_ids(l));
done:
    return st;
}

/* ---- merges ------------------------------------------------------------------------------ */

/* A merge as read: its two tokens' bytes lie one behind the other in the pool. */
typedef struct waiting { size_t at, left, right, byte; } waiting;

typedef struct merge_list {
    rv_pair *data;
    size_t   count, capacity;
    waiting  batch[AHEAD];             /* read and asked for, not yet looked up */
    size_t   n_waiting, used;          /* used: bytes of the pool that they take */
} merge_list;

/* Merges mostly come in the order of what they make: then it is the token of the merge before, or
 * the next, which lies where we just looked.  RV_NO_TOKEN: neither. */
static uint32_t guess_result(const rv_tokenizer *t, const char *text, size_t bytes, uint32_t before) {
    for (uint32_t id = before; id < t->n_vocab && id <= before + 1; id++)
        if (t->tokens[id].bytes == bytes && !memcmp(t->pool + t->tokens[id].at, text, bytes)) return id;
    return RV_NO_TOKEN;
}

static rv_status find_pair(const rv_load *l, const waiting *w, size_t nth, uint32_t before, rv_pair *out) {
    const rv_tokenizer *t = l->t;
    static const char *const what[] = { "left part", "right part", "result" };
    const size_t from[] = { 0, w->left, 0 }, bytes[] = { w->left, w->right, w->left + w->right };
    uint32_t ids[3];
    ids[2] = guess_result(t, t->pool + w->at, bytes[2], before);
    for (int i = 0; i < (ids[2] == RV_NO_TOKEN ? 3 : 2); i++) {
        const rv_piece *slot = rv_piece_slot(t, t->pool + w->at + from[i], bytes[i]);
        if (!slot->bytes)
            return rv_fail(l->err, RV_ERR_FORMAT,
                           "%s: model.merges: the %s of merge %zu is not in model.vocab (byte %zu)",
                           l->path, what[i], nth, w->byte);
        ids[i] = slot->id;
    }
    *out = (rv_pair){ ids[0], ids[1], (uint32_t)nth + 1, ids[2] };
    return RV_OK;
}

static rv_status find_batch(const rv_load *l, merge_list *list) {
    rv_status st = RV_OK;
    if (list->capacity - list->count < AHEAD) {
        size_t capacity = list->capacity ? list->capacity * 2 : 4096;
        rv_pair *data = realloc(list->data, capacity * sizeof *data);
        if (!data) return rv_fail_memory(l->err, "opening the tokenizer");
        list->data = data;
        list->capacity = capacity;
    }
    for (size_t i = 0; i < list->n_waiting; i++, list->count++)
        {
        uint32_t before = list->count ? list->data[list->count - 1].merged : 255;
        TRY(find_pair(l, &list->batch[i], list->count, before, &list->data[list->count]));
    }
    list->n_waiting = list->used = 0;
done:
    return st;
}

/* "left right" */
static rv_status read_joined(rv_load *l, size_t offset, size_t *left, size_t *right) {
    rv_status st = RV_OK;
    rv_json whole = l->j;
    const char *space = memchr(whole.slice, ' ', whole.slice_bytes);
    if (!space) return rv_load_wrong(l, "model.merges", "two tokens with a space between");
    l->j.slice_bytes = (size_t)(space - whole.slice);
    TRY(read_token(l, "model.merges", offset, left));
    l->j.slice = space + 1;
    l->j.slice_bytes = whole.slice_bytes - l->j.slice_bytes - 1;
    TRY(read_token(l, "model.merges", offset + *left, right));
done:
    l->j = whole;
    return st;
}

/* ["left", "right"], after the bracket */
static rv_status read_separate(rv_load *l, size_t offset, size_t *left, size_t *right) {
    rv_status st = RV_OK;
    if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, "model.merges", "a pair of tokens");
    TRY(read_token(l, "model.merges", offset, left));
    if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, "model.merges", "a pair of tokens");
    TRY(read_token(l, "model.merges", offset + *left, right));
    if (rv_json_next(&l->j) != RV_JSON_ARRAY_END) return rv_load_wrong(l, "model.merges", "a pair of tokens");
done:
    return st;
}

static rv_status read_merges(rv_load *l, merge_list *list) {
    rv_status st = RV_OK;
    rv_json_token token;
    if (rv_json_next(&l->j) != RV_JSON_ARRAY) return rv_load_wrong(l, "model.merges", "a list");
    while ((token = rv_json_next(&l->j)) != RV_JSON_ARRAY_END) {
        waiting w = { .at = l->pool_used + list->used, .byte = l->j.start };
        if (token == RV_JSON_STRING) TRY(read_joined(l, list->used, &w.left, &w.right));
        else if (token == RV_JSON_ARRAY) TRY(read_separate(l, list->used, &w.left, &w.right));
        else return rv_load_wrong(l, "model.merges", "\"left right\" or [\"left\", \"right\"]");
        rv_piece_hint(l->t, l->t->pool + w.at, w.left);
        rv_piece_hint(l->t, l->t->pool + w.at + w.left, w.right);
        list->used += w.left + w.right;
        list->batch[list->n_waiting++] = w;
        if (list->n_waiting == AHEAD) TRY(find_batch(l, list));
    }
    TRY(find_batch(l, list));
done:
    return st;
}

static rv_status load_merges(rv_load *l) {
    rv_status st = RV_OK;
    rv_tokenizer *t = l->t;
    merge_list list = { 0 };
    TRY(read_merges(l, &list));
    t->n_merges = (uint32_t)list.count;
    t->pairs = rv_pairs_new(t->n_merges, &t->pair_mask);
    if (!t->pairs) { st = rv_fail_memory(l->err, "opening the tokenizer"); goto done; }
    for (size_t i = 0; i < list.count; i++) {
        if (i + AHEAD < list.count) rv_pair_hint(t, list.data[i + AHEAD].left, list.data[i + AHEAD].right);
        rv_pair *slot = rv_pair_slot(t, list.data[i].left, list.data[i].right);
        if (slot->rank) {
            st = rv_fail(l->err, RV_ERR_FORMAT, "%s: model.merges: merges %u and %zu are the same",
                         l->path, slot->rank - 1, i);
            goto done;
        }
        *slot = list.data[i];
    }
done:
    free(list.data);
    return st;
}

/* ---- model ------------------------------------------------------------------------------- */

static bool is_zero(const rv_json *j) {
    for (size_t i = 0; i < j->slice_bytes; i++)
        if (j->slice[i] != '0' && j->slice[i] != '.') return false;
    return true;
}

/* Settings of other byte-pair tokenizers: here they must be off. */
static rv_status load_setting_off(rv_load *l, const char *key) {
    rv_json_token token = rv_json_next(&l->j);
    if (token == RV_JSON_ERROR) return rv_load_wrong(l, "model", "a value");
    bool off = token == RV_JSON_NULL || token == RV_JSON_FALSE || (token == RV_JSON_STRING && rv_json_is(&l->j, "")) ||
               (token == RV_JSON_NUMBER && is_zero(&l->j));
    if (off) return RV_OK;
    return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: model.%s: is set, which no Llama 3 tokenizer has (byte %zu)",
                   l->path, key, l->j.start);
}

static rv_status load_type(rv_load *l) {
    if (rv_json_next(&l->j) != RV_JSON_STRING) return rv_load_wrong(l, "model.type", "a string");
    if (rv_json_is(&l->j, "BPE")) return RV_OK;
    char name[32];
    rv_load_name(l, name, sizeof name);
    return rv_fail(l->err, RV_ERR_UNSUPPORTED, "%s: model.type: is \"%s\", only \"BPE\" is supported", l->path, name);
}

rv_status rv_load_model(rv_load *l) {
    static const char *const off[] = { "dropout", "unk_token", "continuing_subword_prefix",
                                       "end_of_word_suffix", "byte_fallback" };
    rv_status st = RV_OK;
    rv_json_token token;
    rv_json merges = { 0 };                     /* where they begin: they may stand before the vocabulary */
    bool have_vocab = false, have_merges = false;
    if (rv_json_next(&l->j) != RV_JSON_OBJECT) return rv_load_wrong(l, "model", "an object");
    while ((token = rv_json_next(&l->j)) == RV_JSON_KEY) {
        bool vocab_key = rv_json_is(&l->j, "vocab"), merges_key = rv_json_is(&l->j, "merges"), done_here = false;
        if ((vocab_key && have_vocab) || (merges_key && have_merges))
            return rv_fail(l->err, RV_ERR_FORMAT,
                           "%s: model: a key stands there twice (byte %zu)", l->path, l->j.start);
        for (size_t i = 0; i < sizeof off / sizeof *off && !done_here; i++) {
            if (!rv_json_is(&l->j, off[i])) continue;
            TRY(load_setting_off(l, off[i]));
            done_here = true;
        }
        if (done_here) continue;
        if (rv_json_is(&l->j, "type")) TRY(load_type(l));
        else if (rv_json_is(&l->j, "ignore_merges")) TRY(rv_load_bool(l, "model.ignore_merges", &l->t->ignore_merges));
        else if (vocab_key) { have_vocab = true; TRY(load_vocab(l)); }
        else if (merges_key && have_vocab) { have_merges = true; TRY(load_merges(l)); }
        else if (merges_key) { have_merges = true; merges = l->j; rv_json_skip(&l->j); }
        else rv_json_skip(&l->j);
    }
    if (token != RV_JSON_OBJECT_END) return rv_load_wrong(l, "model", "a key");
    if (!have_vocab || !have_merges)
        return rv_fail(l->err, RV_ERR_FORMAT, "%s: model.%s: missing", l->path, have_vocab ? "merges" : "vocab");
    if (merges.text) {
        rv_json after = l->j;
        l->j = merges;
        TRY(load_merges(l));
        l->j = after;
    }
done:
    return st;
}
