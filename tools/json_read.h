/* json_read.h - JSON that the program itself reads: conversations, journals, lists, lines.
 *
 * The one idea: jansson's parser (2.14) ignores that the buffer of a long token could not grow, and then calls good text bad, or writes
 * past a block.  A journal that is "damaged" would be cut there, and documents lost.  The library has its own reader, which the program does
 * not see; the program ends instead, with the exit code for memory, when memory runs out inside the parser.
 */
#ifndef RV_TOOLS_JSON_READ_H
#define RV_TOOLS_JSON_READ_H
#include <jansson.h>

/* As json_loadb; NULL is always the text's fault. */
json_t *json_read(const char *text, size_t bytes, size_t flags, json_error_t *why);
#endif
