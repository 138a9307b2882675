/* damage.h - ways in which files of a model folder go bad: one change a seed. */
#ifndef RV_TESTS_DAMAGE_H
#define RV_TESTS_DAMAGE_H
#include <stddef.h>
#include <stdint.h>

typedef enum {
    DAMAGE_BYTES,        /* some bytes of a file that is not weights, or of a weights file's header  */
    DAMAGE_CUT,          /* a file ends early                                                   */
    DAMAGE_LONGER,       /* bytes behind its end                                                */
    DAMAGE_LENGTH,       /* the header's length, or a number in the header                      */
    DAMAGE_JSON,         /* a value, a key, a bracket of a JSON file                            */
    DAMAGE_GONE,         /* a file is removed, renamed, empty, a folder, a link to nothing      */
    DAMAGE_SWAPPED,      /* a file holds what another one should                                */
    DAMAGE_NAN,          /* weights that are NaN or infinite                                    */
    DAMAGE_WEIGHTS,      /* some bytes of weights: another model, which no reader can tell      */
    DAMAGE_KINDS
} damage_kind;

extern const char *const damage_names[DAMAGE_KINDS];

/* A file of the folder as it should be. */
typedef struct damage_file { char name[64]; char *data; size_t bytes; } damage_file;

/* Does one thing of that kind to the folder, whose files are right; `what` says what. */
void damage_do(damage_kind kind, uint64_t seed, const char *folder, const damage_file *files, int n, char what[200]);
/* Makes every file right again. */
void damage_mend(const char *folder, const damage_file *files, int n);
#endif
