/* report.h - what the program says: errors, exit codes, numbers for people, JSON for programs.
 *
 * The one idea: stdout carries the answer alone, and a program that could not deliver all of it
 * says so and exits non-zero; everything else goes to stderr as whole lines "rvengine CMD: ..".
 * Shared by the programs of tools/ and bench/.
 */
#ifndef RV_TOOLS_REPORT_H
#define RV_TOOLS_REPORT_H
#include <jansson.h>
#include <stdbool.h>

#include "engine/rvprofile.h"

/* Stable. From 3 up they are the library's error numbers without their sign, see exit_code. */
enum {
    EXIT_OK = 0, EXIT_FOUND = 1, EXIT_USAGE = 2, EXIT_IO = 3, EXIT_FORMAT = 4, EXIT_UNSUPPORTED = 5, EXIT_MEMORY = 6, EXIT_DOES_NOT_FIT = 7,
    EXIT_DEVICE = 8, EXIT_TOO_LONG = 9, EXIT_FULL = 10, EXIT_BUSY = 11, EXIT_INTERNAL = 13, EXIT_INTERRUPTED = 130
};

int         exit_code(rv_status status);
const char *exit_codes_text(void);             /* the list, as help and README show it         */

extern const char *program_name;               /* "rvengine", until program_main says otherwise */

/* One line on stderr behind the program's name; control characters become '?'. */
void say_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* The same without the prefix: notes and tables. */
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));
/* Prints the error for this command and returns its exit code. */
int  report(const char *command, const rv_error *err);

/* Makes sure that descriptors 0 to 2 are taken, so that no file of ours becomes stdout. */
void stdout_prepare(void);
/* 0, or EXIT_IO after saying that nobody could read an answer: stdout is closed. */
int  stdout_check(const char *command);
/* Flushes; false: what was printed did not arrive, and stdout_finish will say why. */
bool stdout_flush(void);
/* Flushes; returns 0, or EXIT_IO after saying why what was printed did not arrive. */
int  stdout_finish(const char *command);
/* Model text: on a terminal, control characters other than newline and tab are shown as U+FFFD, so
 * that a document cannot steer it. Elsewhere bytes pass untouched. */
void print_text(const char *text, size_t bytes);

/* "1.5 GiB" and "15.9 M" in a static-free buffer of the caller. */
typedef struct short_text { char text[32]; } short_text;
short_text bytes_text(uint64_t bytes);
short_text count_text(uint64_t count);

/* rv_steps as text: "lm_head in int8, fewer slots"; "" for none. */
typedef struct steps_words { char text[240]; } steps_words;
steps_words steps_text(uint32_t steps);

const char *backend_name(rv_backend_id id);
const char *weights_name(rv_weight_format format);
const char *embedding_name(rv_embedding embedding);
const char *compute_name(rv_compute compute);

/* A JSON string of any bytes: those that are no UTF-8 become U+FFFD. NULL: out of memory. */
json_t *json_text(const char *text, size_t bytes);
json_t *json_textz(const char *text);
json_t *json_ms(double ms);                    /* rounded to a microsecond                    */
json_t *json_build(void);                      /* rv_build_info as an object                  */
json_t *json_device(const rv_device *device);
/* Writes `root` and a newline to stdout (with `compact`, on one line) and drops it. NULL (some
 * value could not be made) is EXIT_MEMORY. */
int     json_print(const char *command, json_t *root, int compact);
/* The same to a file, whole or not at all. */
int     json_write(const char *command, const char *path, json_t *root);
#endif
