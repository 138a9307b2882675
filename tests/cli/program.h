/* program.h - runs the rvengine program as a user does and looks at what it left: exit code, stdout,
 * stderr.  Also makes damaged copies of the demo model and tiny images.
 *
 * The one idea: a refusal has three parts, checked together by `refuses`: the exit code, a message
 * that says what is wrong, and nothing at all on stdout.
 */
#ifndef RV_TESTS_CLI_PROGRAM_H
#define RV_TESTS_CLI_PROGRAM_H
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#define MODEL RV_TEST_DEMO "/model"
#define RECEIPT RV_TEST_DEMO "/receipts/r7000.png"

/* Where the program's stdout goes. */
typedef enum { OUT_FILE, OUT_CLOSED, OUT_FULL, OUT_BROKEN_PIPE } out_kind;

typedef struct outcome {
    int    code;              /* exit code; 128 + N after signal N, except that INT is the program's own 130 */
    int    signal;            /* that ended it; 0: it exited                                  */
    char  *out, *err;         /* NUL after the last byte                                      */
    size_t out_bytes;
} outcome;

/* How to run it; zero-initialise. */
typedef struct setting {
    const char *input;        /* stdin's content; NULL: empty                                 */
    size_t      input_bytes;  /* 0: input ends at its NUL                                     */
    out_kind    out;
    int         interrupt;    /* send SIGINT once stdout has something                        */
    const char *watch;        /* or this file has more than .. bytes                          */
    long        watch_bytes;
    int         stop_signal;  /* sent once there is a file or folder `stop_at`; 0: none          */
    const char *stop_at;
    long        file_limit;   /* bytes a file that it writes may have; 0: any                 */
} setting;

/* args ends with NULL; args[0] is the subcommand. A program that runs for minutes is killed and fails
 * the test. Free with outcome_free. */
outcome run_with(const setting *how, const char *const *args);
void    outcome_free(outcome *o);
int     matches(const char *text, const char *regex);          /* extended, case matters */

void check_refuses(int line, int code, const char *regex, const setting *how, const char *const *args);
void check_prints(int line, const char *regex, const setting *how, const char *const *args);

#define ARGS(...) ((const char *const[]){ __VA_ARGS__, NULL })
#define refuses(code, regex, ...) check_refuses(__LINE__, code, regex, NULL, ARGS(__VA_ARGS__))
#define prints(regex, ...) check_prints(__LINE__, regex, NULL, ARGS(__VA_ARGS__))

/* ---- files: all in the build folder, names are this test program's own ---------------------- */

/* A folder like the demo model in which `file` is a copy that may be changed and all else is linked.
 * The result is a static buffer, good until the next call. */
const char *model_copy(const char *name, const char *file);
/* Path of a file in the scratch folder (static, four at a time). */
const char *scratch(const char *name);
const char *fresh(const char *name);                                        /* a folder of that path, empty */
const char *file_write(const char *name, const void *data, size_t bytes);    /* in the scratch folder */
void        file_put(const char *path, long offset, const void *data, size_t bytes);   /* offset < 0: from the end */
void        file_cut(const char *path, long bytes);             /* negative: that many off the end */
char       *file_read(const char *path, size_t *bytes);         /* free it */
/* A schema of one field: the demo model answers it in a few steps. */
const char *quick_schema(void);
/* A PDF of n empty pages; `extra` goes into the trailer. */
const char *pdf_file(const char *name, int n, const char *extra);
int         has_pdftoppm(void);
/* Replaces the first `from` in a text file, which must be there. */
void        file_replace(const char *path, const char *from, const char *to);
#endif
