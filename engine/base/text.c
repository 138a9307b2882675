/* text.c - UTF-8 by the Unicode standard's table 3-7, and a string that grows. */
#include "engine/base/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/locale.h"

size_t rv_utf8_read(const char *text, size_t bytes, uint32_t *code) {
    const uint8_t *s = (const uint8_t *)text;
    uint8_t lead = s[0], low = 0x80, high = 0xbf;
    size_t n;
    uint32_t value;
    if (lead < 0x80) return *code = lead, 1;
    if (lead >= 0xc2 && lead <= 0xdf) n = 2, value = lead & 0x1fu;
    else if (lead >= 0xe0 && lead <= 0xef) n = 3, value = lead & 0x0fu;
    else if (lead >= 0xf0 && lead <= 0xf4) n = 4, value = lead & 0x07u;
    else return 0;
    if (lead == 0xe0) low = 0xa0;           /* overlong        */
    else if (lead == 0xed) high = 0x9f;     /* surrogates      */
    else if (lead == 0xf0) low = 0x90;      /* overlong        */
    else if (lead == 0xf4) high = 0x8f;     /* beyond U+10FFFF */
    if (bytes < n) return 0;
    for (size_t i = 1; i < n; i++) {
        if (s[i] < low || s[i] > high) return 0;
        value = value << 6 | (s[i] & 0x3fu);
        low = 0x80, high = 0xbf;
    }
    *code = value;
    return n;
}

size_t rv_utf8_write(uint32_t code, char out[4]) {
    if (code < 0x80) return out[0] = (char)code, 1;
    size_t n = code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    static const uint8_t lead[] = { 0, 0, 0xc0, 0xe0, 0xf0 };
    for (size_t i = n; i-- > 1; code >>= 6) out[i] = (char)(0x80 | (code & 0x3f));
    out[0] = (char)(lead[n] | code);
    return n;
}

size_t rv_utf8_check(const char *text, size_t bytes) {
    size_t at = 0;
    while (at < bytes) {
        uint64_t word;
        while (bytes - at >= sizeof word) {              /* runs of ASCII, eight at a time */
            memcpy(&word, text + at, sizeof word);
            if (word & UINT64_C(0x8080808080808080)) break;
            at += sizeof word;
        }
        if (at == bytes) break;
        uint32_t code;
        size_t n = rv_utf8_read(text + at, bytes - at, &code);
        if (n == 0) return at;
        at += n;
    }
    return bytes;
}

static bool grow(rv_string *s, size_t more) {
    if (s->failed) return false;
    if (more >= SIZE_MAX / 2 - s->bytes) return !(s->failed = true);
    size_t need = s->bytes + more + 1;
    if (need <= s->capacity) return true;
    size_t capacity = s->capacity < 64 ? 64 : s->capacity;
    while (capacity < need) capacity += capacity / 2;
    char *data = realloc(s->data, capacity);
    if (!data) return !(s->failed = true);
    s->data = data;
    s->capacity = capacity;
    return true;
}

void rv_string_add(rv_string *s, const char *data, size_t bytes) {
    if (!grow(s, bytes)) return;
    if (bytes) memcpy(s->data + s->bytes, data, bytes);
    s->bytes += bytes;
    s->data[s->bytes] = '\0';
}

void rv_string_addz(rv_string *s, const char *text) { rv_string_add(s, text, strlen(text)); }

void rv_string_addf(rv_string *s, const char *format, ...) {
    const rv_locale l = rv_locale_enter();
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (n < 0) s->failed = true;
    else if (grow(s, (size_t)n)) {
        vsnprintf(s->data + s->bytes, (size_t)n + 1, format, again);
        s->bytes += (size_t)n;
    }
    va_end(again);
    rv_locale_leave(l);
}

const char *rv_string_text(const rv_string *s) { return s->data ? s->data : ""; }

void rv_string_free(rv_string *s) {
    free(s->data);
    *s = (rv_string){ 0 };
}

rv_size_words rv_size_in_words(uint64_t bytes) {
    rv_size_words w;
    if (bytes < 1000000000) snprintf(w.text, sizeof w.text, "%.1f MB", (double)bytes / 1e6);
    else snprintf(w.text, sizeof w.text, "%.2f GB", (double)bytes / 1e9);
    return w;
}
