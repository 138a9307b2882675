/* json_read.h - JSON that the program itself reads: conversations, journals, lists, lines.
 *
 * The one idea: jansson's parser (2.14) ignores that the buffer of a long token could not grow, and then calls good text bad, or writes
 * past a block.  A journal that is "damaged" would be cut there, and documents lost.  The library has its own reader, which the program does
 * not see; the program ends instead, with the exit code for memory, when memory runs out inside the parser.
 */
#ifndef RV_TOOLS_JSON_READ_H
#define RV_TOOLS_JSON_READ_H
#include <jansson.h>

#include "engine/rvengine.h"

/* As json_loadb; NULL is always the text's fault. */
json_t *json_read(const char *text, size_t bytes, size_t flags, json_error_t *why);
/* A number of `object` that measures something: 0 where there is none or it is null.  RV_ERR_FORMAT with file and key for what is no number,
 * and for one that is neither 0 nor from `least` to `most`. */
rv_status json_amount(const json_t *object, const char *key, double least, double most, const char *file, double *out, rv_error *err);
#endif
