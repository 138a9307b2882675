/* index.h - model.safetensors.index.json: which shard holds which tensor. */
#ifndef RV_LOADER_INDEX_H
#define RV_LOADER_INDEX_H
#include "engine/base/status.h"

typedef struct rv_index_entry {
    const char *name;            /* as the files have it                                      */
    uint32_t    file;            /* into rv_index.files                                       */
} rv_index_entry;

typedef struct rv_index {
    rv_index_entry *entries;     /* sorted by name                                            */
    uint32_t        count;
    const char    **files;       /* file names without folder, sorted, each once              */
    uint32_t        n_files;
    char           *text;        /* owns all names                                            */
} rv_index;

/* Reads and checks the index at `path`.  File names are plain ("model-00001-of-00005.safetensors"): one
 * with a path in it is an error, since an index must not reach outside its folder.
 * metadata.total_size must be a number but is not compared: HF does not either, and writers get it
 * wrong.  Free with rv_index_free. */
rv_status rv_index_read(const char *path, rv_index *out, rv_error *err);
void      rv_index_free(rv_index *index);
/* NULL when the index has no such tensor. */
const rv_index_entry *rv_index_find(const rv_index *index, const char *name);
#endif
