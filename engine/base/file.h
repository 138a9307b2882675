/* file.h - whole files in, whole files out. */
#ifndef RV_BASE_FILE_H
#define RV_BASE_FILE_H
#include <stdbool.h>

#include "engine/base/status.h"

/* A file mapped read-only.  data is NULL for an empty file. */
typedef struct rv_map { const uint8_t *data; uint64_t bytes; } rv_map;

/* Errors (RV_ERR_IO) name the path and the system's reason; a folder is an error. */
rv_status rv_file_open(const char *path, int *fd, uint64_t *bytes, rv_error *err);     /* to read, by the caller, who closes it */
rv_status rv_map_open(const char *path, rv_map *out, rv_error *err);
void      rv_map_close(rv_map *map);                                  /* NULL or empty is fine */

/* Reads all of a file into memory the caller frees; a NUL stands after the last byte.  `path`
 * "-" is not special.  More than `limit` bytes is RV_ERR_FORMAT. */
rv_status rv_file_read(const char *path, uint64_t limit, char **out, size_t *bytes, rv_error *err);

/* Writes the file whole or not at all (temporary file in the same folder, fsync, rename). */
rv_status rv_file_write(const char *path, const void *data, size_t bytes, rv_error *err);

/* Takes an open file or folder for this opening of it alone, until it is closed or the process ends, however it ends: against all who
 * ask the same way, in whatever process or container. Does not wait. */
typedef enum { RV_LOCK_TAKEN, RV_LOCK_HELD_ELSEWHERE, RV_LOCK_NONE_HERE } rv_lock;      /* the last: the file system has no locks */
rv_lock rv_file_lock(int fd);
/* Whether `name` in the open folder `at` (AT_FDCWD: a path) is the very file that is open as fd. */
bool    rv_file_is(int fd, int at, const char *name);

int   rv_file_exists(const char *path);              /* 1 for a readable regular file           */
/* "dir/name" in memory the caller frees; NULL when there is none. */
char *rv_path_join(const char *dir, const char *name);
#endif
