/* inspect.h - what the files of `rvengine inspect` share. */
#ifndef RV_TOOLS_INSPECT_H
#define RV_TOOLS_INSPECT_H
#include <jansson.h>

#include "tools/load.h"

typedef struct inspect_options {
    load_choice load;
    text_list   images, plain;
    const char *prompt;
    uint64_t    max_tokens;
    bool        check, json, no_exif, outliers;
    int32_t     max_tiles;           /* place in 1, 2, 4                                       */
} inspect_options;

static inline uint32_t inspect_tiles(const inspect_options *o) { return 1u << o->max_tiles; }

/* inspect_outliers.c: runs one request about all images; prints a table, or adds "outliers" to root. Returns the exit code. */
int inspect_outliers(const inspect_options *o, const char *const *images, size_t n, json_t *root);
#endif
