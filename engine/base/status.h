/* status.h - how functions inside rvengine fail.
 *
 * The one idea: a failing call fills the caller's rv_error once, at the place that knows why,
 * and everything above only passes the code on (`TRY`, then one `done:` label that cleans up).
 */
#ifndef RV_BASE_STATUS_H
#define RV_BASE_STATUS_H
#include "engine/rvengine.h"

/* Records the error (err may be NULL) and returns its code:
 * `return rv_fail(err, RV_ERR_IO, "%s: %s", path, why);`  One line; too long is cut at a whole
 * character; control characters and bytes that are no UTF-8 (names from files) become '?'. */
rv_status rv_fail(rv_error *err, rv_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix: " before the message that is there: for a caller who knows the place. */
rv_status rv_fail_in(rv_error *err, rv_status code, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static inline rv_status rv_fail_memory(rv_error *err, const char *what) {
    return rv_fail(err, RV_ERR_MEMORY, "%s: out of memory", what);
}

/* In a function with a `done:` label and `rv_status st`: run, and leave on failure. */
#define TRY(call) do { if ((st = (call)) != RV_OK) goto done; } while (0)
#endif
