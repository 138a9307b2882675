/* status.c - error messages: one clean line of UTF-8, whatever went into them. */
#include "engine/base/status.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "engine/base/text.h"

/* File names and JSON strings come from outside: control characters and broken UTF-8 in them must
 * not reach a terminal or a log. Copies what fits, whole characters only. */
static void clean(char *out, size_t capacity, const char *text) {
    size_t at = 0, left = strlen(text);
    while (left > 0) {
        uint32_t code;
        size_t n = rv_utf8_read(text, left, &code);
        bool bad = n == 0 || code < 0x20 || (code >= 0x7f && code < 0xa0);
        size_t width = bad ? 1 : n;
        if (at + width >= capacity) break;
        if (bad) out[at] = '?';
        else memcpy(out + at, text, n);
        at += width;
        text += n ? n : 1;
        left -= n ? n : 1;
    }
    out[at] = '\0';
}

rv_status rv_fail(rv_error *err, rv_status code, const char *format, ...) {
    if (!err) return code;
    char raw[1024];
    va_list args;
    va_start(args, format);
    vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    err->code = code;
    clean(err->message, sizeof err->message, raw);
    return code;
}

rv_status rv_fail_in(rv_error *err, rv_status code, const char *format, ...) {
    if (!err) return code;
    char raw[1024], old[sizeof err->message];
    memcpy(old, err->message, sizeof old);
    va_list args;
    va_start(args, format);
    int n = vsnprintf(raw, sizeof raw, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof raw) snprintf(raw + n, sizeof raw - (size_t)n, ": %s", old);
    err->code = code;
    clean(err->message, sizeof err->message, raw);
    return code;
}

const char *rv_status_name(rv_status code) {
    static const char *const names[] = {
        "RV_OK",           "RV_ERR_ARGUMENT",      "RV_ERR_ABI",    "RV_ERR_IO",       "RV_ERR_FORMAT",
        "RV_ERR_UNSUPPORTED", "RV_ERR_MEMORY",     "RV_ERR_DEVICE_MEMORY", "RV_ERR_DEVICE", "RV_ERR_TOO_LONG",
        "RV_ERR_FULL",     "RV_ERR_BUSY",          "RV_ERR_CANCELLED", "RV_ERR_INTERNAL",
    };
    int32_t i = code <= 0 ? -code : -1;
    return i >= 0 && i < (int32_t)(sizeof names / sizeof *names) ? names[i] : "RV_ERR_UNKNOWN";
}
