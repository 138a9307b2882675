/* page_cache.h - the files of a model and the system's page cache: is a load warm or cold, and what is a raw read?
 *
 * The one idea: "cold" is made, checked and compared in the same run; a load that came from memory never passes
 * for one from the disk.
 */
#ifndef RV_BENCH_PAGE_CACHE_H
#define RV_BENCH_PAGE_CACHE_H
#include <stddef.h>
#include <stdint.h>

#include "engine/rvengine.h"

typedef struct weight_files { char **path; size_t n; uint64_t bytes; } weight_files;

/* The folder's *.safetensors, by name. Free with weight_files_free. */
rv_status weight_files_find(const char *folder, weight_files *out, rv_error *err);
void      weight_files_free(weight_files *files);

/* The share of their bytes that lies in the page cache, 0..1. */
rv_status cache_share(const weight_files *files, double *share, rv_error *err);
/* Writes back what is dirty and asks the system to forget the rest; it may not (cache_share tells). */
rv_status cache_drop(const weight_files *files, rv_error *err);
/* Reads all of them, one after the other from first to last byte, and forgets the bytes. */
rv_status read_in_order(const weight_files *files, double *ms, rv_error *err);
#endif
