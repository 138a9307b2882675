/* constraint.h - a constraint from the inside: a guide, and the lines that it is cut into. */
#ifndef RV_ENGINE_CONSTRAINT_H
#define RV_ENGINE_CONSTRAINT_H
#include <stdatomic.h>
#include "engine/base/guide.h"
#include "engine/rvconstraint.h"
#include "tokenizer/tokenizer.h"

#define RV_ABSENT "NOT_FOUND"            /* the value of a key that the document does not have   */

typedef struct rv_line {                 /* of KEY: VALUE text; JSON is one line without a key   */
    char    *key;
    rv_ids   forced;                     /* of "KEY:", which never merges with what stands before or behind it */
    int32_t  state;                      /* in which its value begins                           */
    bool     list, required;
    uint32_t group;
    int32_t  max_items, max_tokens;
} rv_line;

struct rv_constraint {
    atomic_int refs;
    rv_guide   guide;                    /* in host memory                                      */
    rv_line   *lines;
    int32_t    n_lines;
    bool       json;
    char     **sure;                     /* per state: the only text that can follow, where it may be appended (rv_sure_text); else NULL */
    bool      *waits;                    /* per state: after the next token there may be something to append */
    int32_t    newline;                  /* the id                                              */
    int32_t    absent;                   /* the first id of " NOT_FOUND"                        */
    rv_ids     cell;                     /* of " | NOT_FOUND"                                   */
    uint32_t   tokenizer_size;
};

void rv_constraint_retain(rv_constraint *c);
/* RV_ERR_ARGUMENT when it was made for another tokenizer. */
rv_status rv_constraint_check(const rv_constraint *c, const rv_tokenizer *t, rv_error *err);

/* engine/constraint_json.c: a JSON Schema as a pattern; the caller frees *out. */
rv_status rv_json_pattern(const char *schema, size_t bytes, char **out, rv_error *err);
char     *rv_any_json_pattern(void);     /* NULL: out of memory                                 */
#endif
