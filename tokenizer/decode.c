/* decode.c - ids to text, whole characters only.
 *
 * The one idea: a token is bytes, not characters, so a character may begin in one token and end in
 * another.  At most three bytes are held back until the next token decides.  What can be no UTF-8
 * becomes U+FFFD by the "maximal subpart" rule (Unicode 3.9), as in Python's errors="replace".
 */
#include <string.h>

#include "tokenizer/parts.h"

static const char REPLACEMENT[] = "\xef\xbf\xbd";

int32_t rv_tokenizer_control(const rv_tokenizer *t, const char *content) {
    size_t bytes = strlen(content);
    for (uint32_t i = 0; i < t->n_added; i++)
        if (t->added[i].bytes == bytes && !memcmp(t->pool + t->added[i].at, content, bytes))
            return (int32_t)t->added[i].id;
    return -1;
}

int32_t rv_tokenizer_bos(const rv_tokenizer *t) { return t->bos; }

bool rv_tokenizer_adds_bos(const rv_tokenizer *t) { return t->adds_bos; }

uint32_t rv_tokenizer_size(const rv_tokenizer *t) { return t->size; }

static bool known(const rv_tokenizer *t, int32_t id) {
    return id >= 0 && (uint32_t)id < t->size && t->tokens[id].bytes > 0;
}

bool rv_tokenizer_is_control(const rv_tokenizer *t, int32_t id) {
    return known(t, id) && (t->tokens[id].flags & RV_TOKEN_CONTROL);
}

const char *rv_tokenizer_bytes(const rv_tokenizer *t, int32_t id, size_t *bytes) {
    if (!known(t, id)) return *bytes = 0, NULL;
    *bytes = t->tokens[id].bytes;
    return t->pool + t->tokens[id].at;
}

/* Whether `byte` can be byte number n (from 1) of a character that begins with held[0]. */
static bool continues(const rv_text_stream *s, uint8_t byte) {
    uint8_t lead = (uint8_t)s->held[0], low = 0x80, high = 0xbf;
    if (s->n_held == 1) {
        if (lead == 0xe0) low = 0xa0;           /* overlong        */
        else if (lead == 0xed) high = 0x9f;     /* surrogates      */
        else if (lead == 0xf0) low = 0x90;      /* overlong        */
        else if (lead == 0xf4) high = 0x8f;     /* beyond U+10FFFF */
    }
    return byte >= low && byte <= high;
}

static uint8_t width_of(uint8_t lead) { return lead < 0xe0 ? 2 : lead < 0xf0 ? 3 : 4; }

static void push_byte(rv_text_stream *s, uint8_t byte, rv_string *out) {
    if (s->n_held > 0) {
        if (continues(s, byte)) {
            s->held[s->n_held++] = (char)byte;
            if (s->n_held == width_of((uint8_t)s->held[0])) {
                rv_string_add(out, s->held, s->n_held);
                s->n_held = 0;
            }
            return;
        }
        rv_string_add(out, REPLACEMENT, 3);
        s->n_held = 0;
    }
    if (byte < 0x80) rv_string_add(out, &(char){ (char)byte }, 1);
    else if (byte >= 0xc2 && byte <= 0xf4) s->held[s->n_held++] = (char)byte;
    else rv_string_add(out, REPLACEMENT, 3);
}

void rv_text_stream_push(rv_text_stream *s, const rv_tokenizer *t, int32_t id, bool skip_control,
                         rv_string *out) {
    size_t bytes, at = 0;
    const char *text = rv_tokenizer_bytes(t, id, &bytes);
    if (skip_control && rv_tokenizer_is_control(t, id)) return;
    while (at < bytes) {
        if (s->n_held == 0) {
            size_t good = rv_utf8_check(text + at, bytes - at);
            rv_string_add(out, text + at, good);
            at += good;
            if (at == bytes) break;
        }
        push_byte(s, (uint8_t)text[at++], out);
    }
}

void rv_text_stream_end(rv_text_stream *s, rv_string *out) {
    if (s->n_held > 0) rv_string_add(out, REPLACEMENT, 3);
    s->n_held = 0;
}

rv_status rv_tokenizer_decode(const rv_tokenizer *t, const int32_t *ids, size_t count, int32_t skip_control,
                              char *text, size_t capacity, size_t *bytes, rv_error *err) {
    if (!t || (!ids && count) || (!text && capacity) || !bytes)
        return rv_fail(err, RV_ERR_ARGUMENT, "rv_tokenizer_decode: a tokenizer, the ids and bytes must not be NULL");
    rv_status st = RV_OK;
    rv_text_stream stream = { 0 };
    rv_string out = { 0 };
    for (size_t i = 0; i < count; i++) {
        if (!known(t, ids[i])) {
            st = rv_fail(err, RV_ERR_ARGUMENT, "decoding: %d is no token's id (number %zu in the list; ids end at %u)",
                         ids[i], i, t->size - 1);
            goto done;
        }
        rv_text_stream_push(&stream, t, ids[i], skip_control != 0, &out);
    }
    rv_text_stream_end(&stream, &out);
    if (out.failed) { st = rv_fail_memory(err, "decoding"); goto done; }
    size_t n = out.bytes < capacity ? out.bytes : capacity;
    if (n) memcpy(text, out.data, n);
    *bytes = out.bytes;
done:
    rv_string_free(&out);
    return st;
}
