/* split.c - Llama 3's pattern by hand: see split.h for the pattern and the idea. */
#include "tokenizer/split.h"

#include <stdbool.h>
#include <utf8proc.h>

rv_class rv_class_of(uint32_t code) {
    if (code == '\n' || code == '\r') return RV_CLASS_NEWLINE;
    switch (code) {                                   /* Unicode White_Space, all of it */
    case 0x09: case 0x0b: case 0x0c: case 0x20: case 0x85: case 0xa0: case 0x1680:
    case 0x2028: case 0x2029: case 0x202f: case 0x205f: case 0x3000: return RV_CLASS_SPACE;
    default: break;
    }
    if (code >= 0x2000 && code <= 0x200a) return RV_CLASS_SPACE;
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU: case UTF8PROC_CATEGORY_LL: case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM: case UTF8PROC_CATEGORY_LO: return RV_CLASS_LETTER;
    case UTF8PROC_CATEGORY_ND: case UTF8PROC_CATEGORY_NL: case UTF8PROC_CATEGORY_NO: return RV_CLASS_NUMBER;
    default: return RV_CLASS_OTHER;
    }
}

void rv_classes_fill(rv_classes *classes) {
    for (uint32_t code = 0; code < RV_CLASSES_LOW; code++) classes->low[code] = (uint8_t)rv_class_of(code);
}

typedef struct cursor {
    const rv_classes *classes;
    const uint8_t    *text;
    size_t            bytes;
} cursor;

/* The class of the character at `at` and where the next one begins. */
static inline rv_class class_at(const cursor *c, size_t at, size_t *next) {
    if (at >= c->bytes) return *next = at, RV_CLASS_END;
    const uint8_t *s = c->text + at;
    if (s[0] < 0x80) return *next = at + 1, (rv_class)c->classes->low[s[0]];
    if (s[0] < 0xe0) return *next = at + 2, (rv_class)c->classes->low[(s[0] & 0x1f) << 6 | (s[1] & 0x3f)];
    if (s[0] < 0xf0) {
        *next = at + 3;
        return rv_class_of((uint32_t)(s[0] & 0x0f) << 12 | (uint32_t)(s[1] & 0x3f) << 6 | (s[2] & 0x3fu));
    }
    *next = at + 4;
    return rv_class_of((uint32_t)(s[0] & 0x07) << 18 | (uint32_t)(s[1] & 0x3f) << 12 |
                       (uint32_t)(s[2] & 0x3f) << 6 | (s[3] & 0x3fu));
}

/* The end of the run of one class that begins at `at`. */
static inline size_t run_end(const cursor *c, size_t at, rv_class class) {
    size_t next;
    while (class_at(c, at, &next) == class) at = next;
    return at;
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d) at an apostrophe: its length, or 0.  U+017F folds to s. */
static size_t contraction(const uint8_t *s, size_t bytes) {
    if (bytes < 2) return 0;
    uint8_t a = s[1] | 0x20, b = bytes > 2 ? s[2] | 0x20 : 0;
    if (s[1] < 0x80 && (a == 's' || a == 't' || a == 'm' || a == 'd')) return 2;
    if (bytes < 3) return 0;
    if (s[1] == 0xc5 && s[2] == 0xbf) return 3;
    if (s[1] >= 0x80 || s[2] >= 0x80) return 0;
    return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s*[\r\n]+ | \s+(?!\S) | \s+ at a whitespace character. */
static size_t whitespace_end(const cursor *c, size_t at) {
    size_t end = at, last = at, newline_end = 0, next;
    for (;;) {
        rv_class class = class_at(c, end, &next);
        if (class == RV_CLASS_NEWLINE) newline_end = next;
        else if (class != RV_CLASS_SPACE) break;
        last = end;
        end = next;
    }
    if (newline_end) return newline_end;
    return end == c->bytes || last == at ? end : last;     /* leave one for the word that follows */
}

size_t rv_split_next(const rv_classes *classes, const char *text, size_t bytes, size_t at) {
    const cursor c = { classes, (const uint8_t *)text, bytes };
    size_t next, after;
    rv_class class = class_at(&c, at, &next);

    if (text[at] == '\'') {
        size_t n = contraction(c.text + at, bytes - at);
        if (n) return at + n;
    }
    if (class == RV_CLASS_LETTER) return run_end(&c, next, RV_CLASS_LETTER);
    if (class == RV_CLASS_NUMBER) {
        if (class_at(&c, next, &after) == RV_CLASS_NUMBER) {
            next = after;
            if (class_at(&c, next, &after) == RV_CLASS_NUMBER) next = after;
        }
        return next;
    }
    rv_class second = class_at(&c, next, &after);
    if (class != RV_CLASS_NEWLINE && second == RV_CLASS_LETTER) return run_end(&c, after, RV_CLASS_LETTER);
    if (class == RV_CLASS_OTHER || (text[at] == ' ' && second == RV_CLASS_OTHER))
        return run_end(&c, run_end(&c, next, RV_CLASS_OTHER), RV_CLASS_NEWLINE);
    return whitespace_end(&c, at);
}
