/* json.h - a strict pull reader for JSON that is too big, or too untrusted, for a tree.
 *
 * The one idea: the caller asks for the next token and keeps its own place; nothing is allocated,
 * copied or recursed into.  Strings come as raw slices of the text; only those with escapes need
 * decoding, and decoding never makes a string longer.
 *
 *     rv_json j = rv_json_open(text, bytes);
 *     if (rv_json_next(&j) != RV_JSON_OBJECT) return rv_json_fail(&j, "x.json", "an object", err);
 *     while ((t = rv_json_next(&j)) == RV_JSON_KEY) {
 *         if (rv_json_is(&j, "vocab")) { .. read its value with rv_json_next .. }
 *         else rv_json_skip(&j);                     // a failure shows at the next rv_json_next
 *     }
 *     if (t != RV_JSON_OBJECT_END || rv_json_next(&j) != RV_JSON_END) return rv_json_fail(..);
 *
 * RFC 8259 to the letter: UTF-8 without a byte order mark, no comments, no trailing commas, no NaN,
 * no lone surrogates, nothing after the value.  Duplicate keys are the caller's matter.  After
 * RV_JSON_ERROR or RV_JSON_END every further call returns the same again.
 */
#ifndef RV_BASE_JSON_H
#define RV_BASE_JSON_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "engine/base/status.h"
#include "engine/base/text.h"

enum { RV_JSON_MAX_DEPTH = 64 };

typedef enum {
    RV_JSON_ERROR = -1,          /* j->error says what, j->at where                            */
    RV_JSON_END,                 /* the text is over, and was well formed                      */
    RV_JSON_OBJECT, RV_JSON_OBJECT_END, RV_JSON_ARRAY, RV_JSON_ARRAY_END,
    RV_JSON_KEY,                 /* j->slice: the name; its value is the next token            */
    RV_JSON_STRING,              /* j->slice                                                   */
    RV_JSON_NUMBER,              /* j->slice: as written                                       */
    RV_JSON_TRUE, RV_JSON_FALSE, RV_JSON_NULL
} rv_json_token;

typedef struct rv_json {
    const char *text;
    size_t      bytes, at;       /* at: the next byte; after an error the offending one        */
    size_t      start;           /* where the latest token begins                              */
    const char *slice;           /* of the latest key, string (without quotes) or number       */
    size_t      slice_bytes;
    bool        escaped;         /* the slice has escapes: decode before use                   */
    uint8_t     state;           /* internal: what may come next                               */
    uint32_t    depth;           /* containers open now                                        */
    uint64_t    objects;         /* internal: bit i: the container at depth i+1 is an object   */
    const char *error;           /* NULL, or what is wrong                                     */
} rv_json;

enum { RV_JSON_S_VALUE, RV_JSON_S_FIRST_VALUE, RV_JSON_S_FIRST_KEY, RV_JSON_S_KEY, RV_JSON_S_COMMA,
       RV_JSON_S_DONE, RV_JSON_S_FAILED };

static inline rv_json rv_json_open(const char *text, size_t bytes) {
    return (rv_json){ .text = text, .bytes = bytes, .state = RV_JSON_S_VALUE };
}

static inline rv_json_token rv_json_bad(rv_json *j, size_t at, const char *what) {
    j->at = at;
    j->error = what;
    j->state = RV_JSON_S_FAILED;
    return RV_JSON_ERROR;
}

static inline void rv_json_space(rv_json *j) {
    while (j->at < j->bytes) {
        char c = j->text[j->at];
        if (c != ' ' && c != '\n' && c != '\t' && c != '\r') break;
        j->at++;
    }
}

static inline int32_t rv_json_hex4(const char *s, size_t bytes) {
    int32_t value = 0;
    if (bytes < 4) return -1;
    for (int i = 0; i < 4; i++) {
        char c = s[i];
        int32_t digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10
                      : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
        if (digit < 0) return -1;
        value = value << 4 | digit;
    }
    return value;
}

/* The escape at s[0] == '\\'.  Returns its length and sets *code; 0 for a bad one. */
static inline size_t rv_json_escape(const char *s, size_t bytes, uint32_t *code) {
    if (bytes < 2) return 0;
    switch (s[1]) {
    case '"': case '\\': case '/': *code = (uint8_t)s[1]; return 2;
    case 'b': *code = '\b'; return 2;
    case 'f': *code = '\f'; return 2;
    case 'n': *code = '\n'; return 2;
    case 'r': *code = '\r'; return 2;
    case 't': *code = '\t'; return 2;
    case 'u': break;
    default: return 0;
    }
    int32_t high = rv_json_hex4(s + 2, bytes - 2), low;
    if (high < 0 || (high >= 0xdc00 && high <= 0xdfff)) return 0;
    *code = (uint32_t)high;
    if (high < 0xd800 || high > 0xdbff) return 6;
    if (bytes < 12 || s[6] != '\\' || s[7] != 'u') return 0;
    low = rv_json_hex4(s + 8, bytes - 8);
    if (low < 0xdc00 || low > 0xdfff) return 0;
    *code = 0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
    return 12;
}

/* Bytes from s that are plain: ASCII, no quote, backslash or control character. */
static inline size_t rv_json_plain(const char *s, size_t bytes) {
    const uint64_t ones = UINT64_C(0x0101010101010101), tops = ones << 7;
    size_t n = 0;
    for (; bytes - n >= 8; n += 8) {
        uint64_t w;
        memcpy(&w, s + n, 8);
        uint64_t quote = w ^ ones * '"', slash = w ^ ones * '\\';
        uint64_t stop = ((w - ones * 0x20) | (quote - ones) | (slash - ones) | w) & tops;
        if (!stop) continue;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
        return n + (size_t)__builtin_ctzll(stop) / 8;     /* borrows only mark bytes behind a true stop */
#else
        break;
#endif
    }
    while (n < bytes && (uint8_t)s[n] >= 0x20 && (uint8_t)s[n] < 0x80 && s[n] != '"' && s[n] != '\\') n++;
    return n;
}

static inline bool rv_json_read_string(rv_json *j) {       /* at the opening quote */
    size_t at = j->at + 1, begin = at;
    uint32_t code;
    j->escaped = false;
    for (;;) {
        at += rv_json_plain(j->text + at, j->bytes - at);
        if (at >= j->bytes) return rv_json_bad(j, j->bytes, "a string that never ends"), false;
        char c = j->text[at];
        if (c == '"') break;
        if (c == '\\') {
            size_t n = rv_json_escape(j->text + at, j->bytes - at, &code);
            if (n == 0) return rv_json_bad(j, at, "a bad escape in a string"), false;
            j->escaped = true;
            at += n;
        } else if ((uint8_t)c < 0x20) {
            return rv_json_bad(j, at, "a control character in a string"), false;
        } else {
            size_t n = rv_utf8_read(j->text + at, j->bytes - at, &code);
            if (n == 0) return rv_json_bad(j, at, "bytes that are not UTF-8"), false;
            at += n;
        }
    }
    j->slice = j->text + begin;
    j->slice_bytes = at - begin;
    j->at = at + 1;
    return true;
}

static inline size_t rv_json_digits(const rv_json *j, size_t at) {
    while (at < j->bytes && j->text[at] >= '0' && j->text[at] <= '9') at++;
    return at;
}

static inline rv_json_token rv_json_read_number(rv_json *j) {
    size_t begin = j->at, at = begin, digits;
    if (j->text[at] == '-') at++;
    digits = at;
    at = rv_json_digits(j, at);
    if (at == digits) return rv_json_bad(j, at, "a number without digits");
    if (j->text[digits] == '0' && at > digits + 1) return rv_json_bad(j, digits, "a number with leading zeros");
    if (at < j->bytes && j->text[at] == '.') {
        digits = ++at;
        at = rv_json_digits(j, at);
        if (at == digits) return rv_json_bad(j, at, "a number that ends in a point");
    }
    if (at < j->bytes && (j->text[at] == 'e' || j->text[at] == 'E')) {
        at++;
        if (at < j->bytes && (j->text[at] == '+' || j->text[at] == '-')) at++;
        digits = at;
        at = rv_json_digits(j, at);
        if (at == digits) return rv_json_bad(j, at, "a number with an empty exponent");
    }
    j->slice = j->text + begin;
    j->slice_bytes = at - begin;
    j->escaped = false;
    j->at = at;
    return RV_JSON_NUMBER;
}

static inline rv_json_token rv_json_read_word(rv_json *j, const char *word, size_t n, rv_json_token token) {
    if (j->bytes - j->at < n || memcmp(j->text + j->at, word, n)) return rv_json_bad(j, j->at, "not a JSON value");
    j->at += n;
    return token;
}

static inline void rv_json_after_value(rv_json *j) {
    j->state = j->depth ? RV_JSON_S_COMMA : RV_JSON_S_DONE;
}

static inline rv_json_token rv_json_enter(rv_json *j, bool object) {
    if (j->depth == RV_JSON_MAX_DEPTH) return rv_json_bad(j, j->at, "nested too deeply");
    uint64_t bit = UINT64_C(1) << j->depth++;
    j->objects = object ? j->objects | bit : j->objects & ~bit;
    j->state = object ? RV_JSON_S_FIRST_KEY : RV_JSON_S_FIRST_VALUE;
    j->at++;
    return object ? RV_JSON_OBJECT : RV_JSON_ARRAY;
}

static inline rv_json_token rv_json_leave(rv_json *j, bool object) {
    j->depth--;
    j->at++;
    rv_json_after_value(j);
    return object ? RV_JSON_OBJECT_END : RV_JSON_ARRAY_END;
}

static inline rv_json_token rv_json_read_key(rv_json *j) {
    if (j->text[j->at] != '"') return rv_json_bad(j, j->at, "a key in quotes was expected");
    if (!rv_json_read_string(j)) return RV_JSON_ERROR;
    rv_json_space(j);
    if (j->at >= j->bytes || j->text[j->at] != ':') return rv_json_bad(j, j->at, "a colon was expected after a key");
    j->at++;
    j->state = RV_JSON_S_VALUE;
    return RV_JSON_KEY;
}

static inline rv_json_token rv_json_read_value(rv_json *j) {
    rv_json_token token;
    switch (j->text[j->at]) {
    case '{': return rv_json_enter(j, true);
    case '[': return rv_json_enter(j, false);
    case '"': token = rv_json_read_string(j) ? RV_JSON_STRING : RV_JSON_ERROR; break;
    case 't': token = rv_json_read_word(j, "true", 4, RV_JSON_TRUE); break;
    case 'f': token = rv_json_read_word(j, "false", 5, RV_JSON_FALSE); break;
    case 'n': token = rv_json_read_word(j, "null", 4, RV_JSON_NULL); break;
    case '-': case '0': case '1': case '2': case '3': case '4':
    case '5': case '6': case '7': case '8': case '9': token = rv_json_read_number(j); break;
    default: token = rv_json_bad(j, j->at, "not a JSON value"); break;
    }
    if (token != RV_JSON_ERROR) rv_json_after_value(j);
    return token;
}

static inline rv_json_token rv_json_next(rv_json *j) {
    if (j->state == RV_JSON_S_FAILED) return RV_JSON_ERROR;
    rv_json_space(j);
    j->start = j->at;
    if (j->at >= j->bytes)
        return j->state == RV_JSON_S_DONE ? RV_JSON_END : rv_json_bad(j, j->bytes, "the text ends too early");
    if (j->state == RV_JSON_S_DONE) return rv_json_bad(j, j->at, "something follows the end of the value");

    bool object = j->depth && (j->objects >> (j->depth - 1) & 1);
    char c = j->text[j->at];
    if (j->state == RV_JSON_S_COMMA) {
        if (c == (object ? '}' : ']')) return rv_json_leave(j, object);
        if (c != ',') return rv_json_bad(j, j->at, object ? "a comma or } was expected" : "a comma or ] was expected");
        j->at++;
        rv_json_space(j);
        j->start = j->at;
        if (j->at >= j->bytes) return rv_json_bad(j, j->bytes, "the text ends too early");
        j->state = object ? RV_JSON_S_KEY : RV_JSON_S_VALUE;
    } else if (j->state == RV_JSON_S_FIRST_KEY) {
        if (c == '}') return rv_json_leave(j, true);
        j->state = RV_JSON_S_KEY;
    } else if (j->state == RV_JSON_S_FIRST_VALUE) {
        if (c == ']') return rv_json_leave(j, false);
        j->state = RV_JSON_S_VALUE;
    }
    return j->state == RV_JSON_S_KEY ? rv_json_read_key(j) : rv_json_read_value(j);
}

/* Finishes the value whose first token was `token`: reads to the end of an object or array, does
 * nothing for the rest.  False on an error. */
static inline bool rv_json_finish(rv_json *j, rv_json_token token) {
    if (token == RV_JSON_OBJECT || token == RV_JSON_ARRAY) {
        uint32_t outside = j->depth - 1;
        while (token != RV_JSON_ERROR && j->depth > outside) token = rv_json_next(j);
    }
    return token != RV_JSON_ERROR;
}

/* Skips one whole value: call it after a key. */
static inline bool rv_json_skip(rv_json *j) { return rv_json_finish(j, rv_json_next(j)); }

/* Decodes the latest key or string into `out`, which has room for j->slice_bytes bytes (not
 * terminated; may hold NUL bytes).  Returns the decoded length, never more than slice_bytes. */
static inline size_t rv_json_string(const rv_json *j, char *out) {
    if (!j->escaped) {
        if (j->slice_bytes) memcpy(out, j->slice, j->slice_bytes);
        return j->slice_bytes;
    }
    size_t at = 0, n = 0;
    while (at < j->slice_bytes) {
        uint32_t code = 0;
        if (j->slice[at] != '\\') {
            out[n++] = j->slice[at++];
            continue;
        }
        at += rv_json_escape(j->slice + at, j->slice_bytes - at, &code);
        n += rv_utf8_write(code, out + n);
    }
    return n;
}

/* Whether the latest key or string, decoded, is `text`. */
static inline bool rv_json_is(const rv_json *j, const char *text) {
    size_t length = strlen(text);
    if (!j->escaped) return length == j->slice_bytes && memcmp(j->slice, text, length) == 0;
    size_t at = 0, n = 0;
    while (at < j->slice_bytes) {
        char piece[4];
        size_t width = 1;
        if (j->slice[at] == '\\') {
            uint32_t code = 0;
            at += rv_json_escape(j->slice + at, j->slice_bytes - at, &code);
            width = rv_utf8_write(code, piece);
        } else piece[0] = j->slice[at++];
        if (length - n < width || memcmp(text + n, piece, width)) return false;
        n += width;
    }
    return n == length;
}

/* The latest number as an integer.  False when it is written with a point or exponent, or does
 * not fit; "-0" is 0. */
static inline bool rv_json_uint64(const rv_json *j, uint64_t *out) {
    uint64_t value = 0;
    size_t i = 0;
    bool minus = j->slice_bytes && j->slice[0] == '-';
    for (i = minus; i < j->slice_bytes; i++) {
        char c = j->slice[i];
        if (c < '0' || c > '9') return false;
        uint64_t digit = (uint64_t)(c - '0');
        if (value > (UINT64_MAX - digit) / 10) return false;
        value = value * 10 + digit;
    }
    if (i == minus || (minus && value)) return false;
    *out = value;
    return true;
}

static inline bool rv_json_int64(const rv_json *j, int64_t *out) {
    rv_json digits = *j;
    uint64_t value;
    bool minus = j->slice_bytes && j->slice[0] == '-';
    if (minus) digits.slice++, digits.slice_bytes--;
    if (!rv_json_uint64(&digits, &value) || value > (uint64_t)INT64_MAX + minus) return false;
    *out = !minus ? (int64_t)value : value ? -(int64_t)(value - 1) - 1 : 0;
    return true;
}

/* RV_ERR_FORMAT "file: byte 17: a bad escape in a string", or, when the JSON itself is well formed so
 * far, "file: byte 17: `wanted` was expected" at the latest token. */
static inline rv_status rv_json_fail(const rv_json *j, const char *file, const char *wanted, rv_error *err) {
    if (j->error) return rv_fail(err, RV_ERR_FORMAT, "%s: not valid JSON: %s (byte %zu)", file, j->error, j->at);
    return rv_fail(err, RV_ERR_FORMAT, "%s: %s was expected (byte %zu)", file, wanted, j->start);
}
#endif
