/* files.h - whole files in, whole files out, for the program.
 *
 * The one idea: an input is read completely before anything is computed, and an output file is
 * either all there or not there at all.
 */
#ifndef RV_TOOLS_FILES_H
#define RV_TOOLS_FILES_H
#include <stdbool.h>

#include "engine/rvengine.h"

enum { INPUT_LIMIT_MIB = 512 };      /* of one input file: a photo has 10, /dev/zero has no end */

typedef struct input { char *data; size_t bytes; const char *name; } input;   /* NUL after the last byte */

/* Reads a file, pipe or device; "-" is stdin. Errors: RV_ERR_IO with the system's reason,
 * RV_ERR_FORMAT past the limit, RV_ERR_CANCELLED after a Ctrl-C. Free with input_free. */
rv_status input_read(const char *path, input *out, rv_error *err);
void      input_free(input *in);
/* The same for text: one newline at the end is dropped; a NUL byte is RV_ERR_FORMAT. */
rv_status input_read_text(const char *path, input *out, rv_error *err);

/* RV_OK when `path` can probably be written: asked before hours of work, not after. */
rv_status output_check(const char *path, rv_error *err);
/* Writes a file whole or not at all (beside it, fsync, rename); pipes and devices directly. */
rv_status output_write(const char *path, const char *data, size_t bytes, rv_error *err);

bool is_folder(const char *path);
/* "-", /dev/stdout and its other names: an answer goes where print_text goes, and nothing is made beside it. */
bool is_stdout(const char *path);
/* Is there and no regular file: a pipe or a device, which is written to as it comes. */
bool is_special(const char *path);

/* An error of the program's own, in the library's form. */
rv_status fail(rv_error *err, rv_status code, const char *format, ...) __attribute__((format(printf, 3, 4)));

/* Ctrl-C and SIGTERM set a flag (the second one kills); SIGPIPE and SIGXFSZ (`ulimit -f`) become write errors. */
void signals_prepare(void);
/* In a worker process: SIGUSR1 instead, which the process that the user sees sends on. */
void signals_worker(void);
bool interrupted(void);
#endif
