/* config_json.h - reading one JSON file's values with a check and a message for each.
 *
 * The one idea: errors are sticky.  A reader returns its fallback once something was wrong, and the
 * first error stays, so that a caller reads a whole section in a row and asks once.
 */
#ifndef RV_ENGINE_CONFIG_JSON_H
#define RV_ENGINE_CONFIG_JSON_H
#include <jansson.h>
#include <stdbool.h>

#include "engine/config.h"

typedef struct rv_json_file {
    const char *folder, *name;           /* "/models/x", "config.json"                         */
    json_t     *root;
    rv_error   *err;
    rv_status   st;                      /* the first error, or RV_OK                          */
} rv_json_file;

/* An object inside a file; `object` NULL reads as an empty one, i.e. every fallback. */
typedef struct rv_section {
    rv_json_file *file;
    const json_t *object;
    const char   *prefix;                /* "text_config.", for messages                       */
} rv_section;

/* Opens folder/name, whose top level must be an object; duplicate keys are errors.  The caller sets err
 * and st before and closes in any case.  A missing file leaves root NULL: an error if `required`. */
void rv_json_file_open(rv_json_file *f, const char *folder, const char *name, bool required);
void rv_json_file_close(rv_json_file *f);

/* config.json alone, as rv_config_load reads it, with the published preprocessing and HF's defaults for what stands
 * in other files.  Returns f->st. */
rv_status rv_config_of_json(rv_json_file *f, rv_config *out);

/* "config.json: text_config.hidden_size: WHY (/models/x)"; only the first error is kept. */
void rv_section_bad(const rv_section *s, const char *key, const char *why, ...)       /* RV_ERR_FORMAT      */
    __attribute__((format(printf, 3, 4)));
void rv_section_no(const rv_section *s, const char *key, const char *why, ...)        /* RV_ERR_UNSUPPORTED */
    __attribute__((format(printf, 3, 4)));
/* A value for a message: 12, "abc", a list.  Writes to out and returns it. */
const char *rv_json_show(const json_t *value, char out[48]);

/* The value at key; NULL when it is absent or null. */
const json_t *rv_section_value(const rv_section *s, const char *key);
bool rv_section_has(const rv_section *s, const char *key);           /* present, null or not   */

/* Each returns `fallback` when the key is absent; null is an error. */
int32_t     rv_section_whole(const rv_section *s, const char *key, int32_t low, int32_t high, int32_t fallback);
double      rv_section_real(const rv_section *s, const char *key, double low, double high, double fallback);
/* These take null for absent too. */
bool        rv_section_bool(const rv_section *s, const char *key, bool fallback);
const char *rv_section_text(const rv_section *s, const char *key, const char *fallback);
rv_section  rv_section_open(const rv_section *s, const char *key, const char *prefix);
/* A list of min..max whole numbers; returns how many, 0 when absent or wrong. */
int32_t     rv_section_wholes(const rv_section *s, const char *key, int32_t low, int32_t high, int32_t min, int32_t max,
                              int32_t *out);
#endif
