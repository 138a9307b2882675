/* json_read.c - see json_read.h. */
#include "tools/json_read.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "tools/files.h"
#include "tools/report.h"

static _Thread_local bool reading;

/* Of all of jansson, also the library's: but for this thread's parser it is malloc. */
static void *take(size_t bytes) {
    void *memory = malloc(bytes);
    if (memory || !reading) return memory;
    say_error("JSON: out of memory");
    fflush(stdout);
    _exit(EXIT_MEMORY);
}

static void prepare(void) { json_set_alloc_funcs(take, free); }

json_t *json_read(const char *text, size_t bytes, size_t flags, json_error_t *why) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, prepare);
    reading = true;
    json_t *root = json_loadb(text, bytes, flags, why);
    reading = false;
    return root;
}

rv_status json_amount(const json_t *object, const char *key, double least, double most, const char *file, double *out, rv_error *err) {
    const json_t *value = json_object_get(object, key);
    const double v = json_number_value(value);
    *out = 0;
    if (!value || json_is_null(value)) return RV_OK;
    if (!json_is_number(value)) return fail(err, RV_ERR_FORMAT, "%s: \"%s\": must be a number", file, key);
    if ((v < 0 || v > 0) && !(v >= least && v <= most)) return fail(err, RV_ERR_FORMAT, "%s: \"%s\": must be 0 or from %g to %g, is %g", file, key, least, most, v);
    *out = v;
    return RV_OK;
}
