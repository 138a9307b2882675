/* rvconstraint.h - answers of a given form: KEY: VALUE lines, or JSON of a schema.
 *
 * A constraint says which tokens may come next; the model chooses among those alone, by the probabilities it gives them.
 * What can only be written in one way (the keys, and whatever follows " NOT" where nothing but NOT_FOUND may) is not asked for
 * but appended, several tokens in one pass over the weights.
 *
 *     rv_key keys[] = { { .size = sizeof keys[0], .key = "SUPPLIER" }, { .size = sizeof keys[0], .key = "TOTAL", .pattern = "\\$[0-9]+\\.[0-9]{2}" } };
 *     rv_constraint *form;
 *     if (rv_constraint_keys(rv_model_tokenizer(model), keys, 2, &form, &err)) return report(&err);
 *     rv_request req = { .size = sizeof req, .images = &page, .n_images = 1, .prompt = question, .constraint = form };
 *     .. rv_generate(session, &req, &job, &err), then rv_job_values(job, &values) ..
 *     rv_constraint_free(form);                              // jobs hold it as long as they need it
 *
 * Conventions as in rvengine.h.
 */
#ifndef RVCONSTRAINT_H
#define RVCONSTRAINT_H
#include "rvengine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* One line of the answer: "KEY: value".  A value is what `pattern` or `choices` say, or NOT_FOUND. */
typedef struct rv_key {
    size_t             size;       /* stride of the array                                       */
    const char        *key;        /* [A-Za-z][A-Za-z0-9_]*, at most 64 bytes                   */
    const char        *pattern;    /* a regular expression for the whole value (of a list: an item); the common subset of PCRE and
                                      ECMA-262, without look-around.  NULL: any line of text in which no filler (a dot, a dash,
                                      a blank ..) stands more than three times in a row          */
    const char *const *choices;    /* instead: one of these                                     */
    uint32_t           n_choices;
    int32_t            list;       /* non-zero: items in one line, " | " between them; never more than one absent one alone */
    uint32_t           group;      /* lists of one group (not 0) are columns of a table: as many items as the first of them had */
    uint32_t           max_items;  /* default 100                                               */
    uint32_t           max_tokens; /* of the value, after which its line is ended; default 96, lists 512 */
    int32_t            required;   /* non-zero: NOT_FOUND may not be the answer                 */
} rv_key;

/* `tokenizer` must be that of the models that the constraint is used with, and is not needed afterwards. */
RV_API rv_status rv_constraint_keys(const rv_tokenizer *tokenizer, const rv_key *keys, uint32_t n_keys,
                                    rv_constraint **out, rv_error *err);                /* [any] */

/* JSON that fits a JSON Schema.  Supported: type (object, array, string, integer, number, boolean, null, or a list of them), properties
 * (in the order of the schema), required, items, minItems, maxItems, enum, const, minLength, maxLength, pattern (of characters that JSON
 * needs no escape for; lengths beside it only where it keeps them by itself), anyOf, oneOf, $ref to
 * $defs without recursion, and what does not restrict (title, description, default, examples, $schema, $id, format);
 * additionalProperties may be false.  All else is RV_ERR_UNSUPPORTED, with its place.  Blanks as usual between tokens. */
RV_API rv_status rv_constraint_json(const rv_tokenizer *tokenizer, const char *schema, size_t bytes,
                                    rv_constraint **out, rv_error *err);                /* [any] */
/* Any JSON object ("json_object"): objects and arrays nested at most four deep, the outermost one counted. */
RV_API rv_status rv_constraint_any_json(const rv_tokenizer *tokenizer, rv_constraint **out, rv_error *err);   /* [any] */
RV_API void      rv_constraint_free(rv_constraint *constraint);                         /* [any] */

typedef struct rv_constraint_info {
    size_t   size;
    uint32_t keys;                /* 0: JSON                                                   */
    uint32_t states, classes;     /* of the automaton                                          */
    uint64_t bytes;               /* of its tables, on the device too                          */
} rv_constraint_info;
RV_API rv_status rv_constraint_get_info(const rv_constraint *constraint, rv_constraint_info *out, rv_error *err);   /* [any] */

typedef uint32_t rv_value_flags;
enum { RV_VALUE_LOOPED = 1,       /* the model repeated itself; the line was ended             */
       RV_VALUE_CUT    = 2,       /* max_tokens was reached; the line was ended                */
       RV_VALUE_FILLED = 4 };     /* missing cells of a column became NOT_FOUND                */

/* One key's value, and how sure the model was.  Probabilities are of the model's own distribution, before the constraint. */
typedef struct rv_key_value {
    size_t         size;          /* stride of the array                                       */
    const char    *key;
    const char    *value;         /* without the blank before it; not terminated               */
    size_t         bytes;
    float          presence;      /* 1 - the probability that the value begins as NOT_FOUND does; 1 where that may not be */
    float          logprob;       /* mean over the chosen tokens, natural logarithm; 0: none was chosen */
    float          lowest;        /* of the least sure token                                   */
    float          lost;          /* the largest -log(probability of all allowed tokens): high where the model wanted another form */
    uint32_t       tokens, forced;/* of the value; chosen, and appended                        */
    rv_value_flags flags;
} rv_key_value;

/* The keys whose values are there, in order: all of them when the job is complete.  0 without a constraint of keys. */
RV_API uint32_t rv_job_values(const rv_job *job, const rv_key_value **out);             /* [done] */

#ifdef __cplusplus
}
#endif
#endif
