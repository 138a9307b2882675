/* check.h - what is wrong with a record, and what follows from it.
 *
 * The one idea: checks read values and never change them (only whether a date is still ambiguous is settled).  Three layers:
 * format (each value by itself), consistency (values against each other) and legal (what a law asks for); the last two are
 * rules in data files, chosen by the document's date.
 */
#ifndef RV_EXTRACT_CHECK_H
#define RV_EXTRACT_CHECK_H
#include "extract/record.h"

/* Weights of rules that applied and of those that passed, and the recommendations that failing ones make. */
typedef struct rv_tally { double applied, passed; } rv_tally;

typedef enum rv_gate { RV_GATE_TAX_INVOICE, RV_GATE_GST_CREDIT, RV_GATE_DEDUCTION, RV_GATES } rv_gate;

typedef struct rv_check {
    rv_record  *record;
    rv_tally    tally;
    rv_tristate gates[RV_GATES];      /* RV_UNKNOWN until a rule of theirs applied                       */
    bool        gate_open[RV_GATES];  /* a rule of theirs could not be decided                           */
    rv_error   *err;
} rv_check;

/* Adds a finding; texts are copied.  `fields` may be NULL. */
rv_status rv_check_add(rv_check *c, const char *id, rv_severity severity, rv_layer layer, const uint32_t *fields, uint32_t n_fields, int32_t row,
                       const char *message, const char *expected, const char *actual, const char *suggestion, const char *source);
/* Counts a check that applied. */
static inline void rv_check_count(rv_check *c, double weight, bool pass) {
    c->tally.applied += weight;
    if (pass) c->tally.passed += weight;
}
/* Says what to do, once. */
rv_status rv_check_recommend(rv_check *c, const char *text);

rv_status rv_check_format(rv_check *c);      /* values, patterns, required fields, columns of equal length */
rv_status rv_check_dates(rv_check *c);       /* settles which dates are ambiguous by the document's others   */
rv_status rv_check_rows(rv_check *c);        /* quantity x price, and balances, row by row                 */
rv_status rv_check_rules(rv_check *c);       /* the rule sets that the schema names, and its own rules     */

/* Whether a rule file is well formed: "au-gst.json: line 9: /rules/0/test: not an expression: ..". */
rv_status rv_rules_check(const char *file, const char *json, size_t bytes, rv_error *err);

rv_gst_class rv_gst_classify(const rv_record *record);
const char  *rv_gst_class_name(rv_gst_class c);       /* "fully_taxable" .. "unknown"                      */
const char  *rv_severity_name(rv_severity s);         /* "info", "warning", "error"                     */
const char  *rv_layer_name(rv_layer l);               /* "format", "consistency", "legal"               */
bool         rv_severity_find(const char *name, rv_severity *out);     /* `name` may be NULL             */
bool         rv_layer_find(const char *name, rv_layer *out);
#endif
