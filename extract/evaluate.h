/* evaluate.h - answers against truth.
 *
 * The one idea: every field of every document is compared once, into a tally of plain counts; tallies add up to fields, types
 * and runs, and a bootstrap draws documents, whose fields belong together.
 *
 * Conventions: absent and absent is right; a value where the truth has none is an invention.  Items of lists are compared place by place;
 * a wrong item is a miss, and with `substitutions` an invention too.
 */
#ifndef RV_EXTRACT_EVALUATE_H
#define RV_EXTRACT_EVALUATE_H
#include "engine/base/text.h"
#include "extract/record.h"

typedef struct rv_tallied {
    double cells;                      /* fields compared                                                */
    double exact, same, anls;          /* of them: right as printed (case and blanks forgiven), right by meaning; sum of ANLS */
    double hits, inventions, misses;   /* items: true positives, false positives, false negatives        */
    double absent, invented;           /* fields that the truth does not have; answered all the same     */
    double present, missed;            /* fields that it has; not answered                               */
} rv_tallied;

void   rv_tally_add(rv_tallied *to, const rv_tallied *what);
/* Rates in 0..1; negative where there is nothing to count. */
double rv_precision(const rv_tallied *t);
double rv_recall(const rv_tallied *t);
double rv_f1(const rv_tallied *t);

/* Compares one field; nothing is counted where the truth does not name it. */
void rv_compare_field(const rv_record *truth, const rv_record *run, uint32_t field, bool substitutions, rv_tallied *out);
/* Two values, by meaning: as rv_value_same; texts (and values of which neither can be read) without case and
 * punctuation, transactions by words (`loose`). */
bool   rv_same_meaning(const rv_value *a, const rv_value *b, bool loose);
/* Average normalised Levenshtein similarity of one pair: 0 below one half (Biten et al., 2019). */
double rv_anls(const char *a, const char *b);

/* Documents of a file, in the order of their base names. */
typedef struct rv_documents {
    const char *name;
    rv_record **records;
    uint32_t    n, capacity;
    char        unknown[120];                      /* names of columns that are no field's, as many as fit           */
} rv_documents;
rv_status  rv_documents_load(const rv_schema *schema, const rv_run *run, rv_documents *out, rv_error *err);
void       rv_documents_free(rv_documents *d);
/* What a document is called in reports: its base name, or the whole path where another one has the same. */
const char *rv_documents_label(const rv_documents *d, uint32_t i);

/* One run against the truth. */
typedef struct rv_scores {
    const char *name;
    const rv_documents *answers;
    uint32_t    documents, missing, extra;         /* scored; without an answer; answers without truth   */
    uint32_t    perfect;                           /* every field right by meaning                       */
    rv_tallied *fields;                            /* schema->n_fields                                   */
    rv_tallied *by_document;                       /* truth's documents                                  */
    rv_record **matches;                           /* their answers, or NULL; of `answers`               */
    rv_tallied  all;
    const char *types[32];                         /* document types of the truth                        */
    rv_tallied  by_type[32];
    uint32_t    type_documents[32];
    uint32_t    n_types;
} rv_scores;

/* [low, high]: 95 % of the resamples. */
typedef struct rv_interval { double low, high; } rv_interval;
typedef double (*rv_rate_fn)(const rv_tallied *t);
double rv_rate_exact(const rv_tallied *t);
double rv_rate_same(const rv_tallied *t);
double rv_rate_anls(const rv_tallied *t);
double rv_rate_invented(const rv_tallied *t);
double rv_rate_missed(const rv_tallied *t);
/* Of one run, or (b not NULL) of b - a on the same documents; those of which nothing was compared are not drawn. -1 and -1: there is
 * nothing to count. RV_ERR_MEMORY. */
rv_status rv_bootstrap(const rv_tallied *a, const rv_tallied *b, uint32_t n, rv_rate_fn rate, uint32_t resamples, uint64_t seed,
                       rv_interval *out, rv_error *err);
/* Two-sided exact sign test: the chance of a split at least this uneven if both were equally likely. */
double rv_sign_test(uint32_t better, uint32_t worse);

typedef struct rv_paired { uint32_t better, worse, equal; double p; rv_interval same, exact; } rv_paired;    /* documents */

typedef struct rv_evaluation {
    const rv_schema *schema;
    const rv_documents *truth;
    rv_scores        a, b;
    bool             has_b;
    rv_interval      exact[2], same[2], f1[2], anls[2];
    rv_paired        paired;
    rv_eval_options  options;
} rv_evaluation;

rv_status rv_eval_report(const rv_evaluation *e, char **report, rv_error *err);
rv_status rv_eval_run(const rv_schema *schema, const rv_run *truth, const rv_run *run, const rv_run *other,
                      const rv_eval_options *options, char **report, rv_error *err);
rv_status rv_lint_run(const rv_schema *schema, const rv_run *truth, rv_report_form form, char **report, uint32_t *problems, rv_error *err);
#endif
