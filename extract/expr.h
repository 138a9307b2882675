/* expr.h - the small language in which rules are written.
 *
 *     present(GST_AMOUNT) and abs(SUBTOTAL_AMOUNT + GST_AMOUNT - TOTAL_AMOUNT) <= 2c
 *
 * The one idea: an expression is compiled once to a postfix program over integers and run on a record; there are no loops,
 * no names to assign and no floating point, so it always ends, in time linear in its length and the record's.
 *
 * Values: amounts in cents (`2c`, `$82.50`), dates in days, quantities in thousandths, counts, true and false.  A field stands
 * for its value; one that is absent or invalid, an amount that is not in AUD, or a sum over nothing, is unknown.  Unknown spreads as in SQL: `and` and `or`
 * settle what they can, everything else becomes unknown; a rule whose test is unknown does not apply.
 *
 * Functions (F: a key of the schema; one that the schema does not have is unknown, absent and of count 0):
 *     present(F) absent(F) valid(F)        of the field as a whole; valid: every item that is there fits its kind; absent is
 *                                          also true of a key that the schema does not have
 *     count(F) filled(F)                   items of a list; those that are not NOT_FOUND
 *     sum(F) sum_product(F, G)             over the rows; unknown if any cell is; sum_product: quantity x price
 *     sum_filled(F)                        NOT_FOUND cells count 0; unknown if nobody looked
 *     or_zero(F)                           the amount, 0 when it is absent
 *     abs(x) min(x, y) max(x, y)
 *     first(F) last(F)                     the ends of a period
 *     earliest(F) latest(F)                of a list of dates; those without a year get the statement period's
 *     ambiguous(F)                         a date whose day and month could be exchanged
 *     is(F, "TEXT")                        the value's normal form, case aside
 *     contains(F, "text")                  in the raw text, case aside
 *     words("tax invoice")                 on the page, where its text is known; else unknown
 *     text_known()
 *     digits_end(F, G)                     F's digits end with G's (an ABN with the company's ACN)
 *     gst_of(x)                            x / 11, rounded half up to the cent (GST Act s 9-90)
 *     balance_breaks() balance_rows()      rows of the statement whose balance does not follow (balance.h); rows that could be checked
 *     today() lines()                      the day given to the check, else unknown; rows of the first table
 *     postcode_state(F)                    false: postcode and state of an address contradict each other
 */
#ifndef RV_EXTRACT_EXPR_H
#define RV_EXTRACT_EXPR_H
#include "extract/record.h"

typedef struct rv_answer { bool known; int64_t value; } rv_answer;

/* Whether `text` compiles; with `strict` a key that the schema does not have is an error too ("did you mean").  `schema` may be
 * NULL when not strict. RV_ERR_FORMAT "character 14: .. ". */
rv_status rv_expr_check(const rv_schema *schema, const char *text, bool strict, rv_error *err);

/* Compiles and runs.  Errors as rv_expr_check, not strict. */
rv_status rv_expr_run(const rv_record *record, const char *text, rv_answer *out, rv_error *err);

/* The keys that an expression names, as indices into the schema's fields, each once; at most `capacity`. Returns how many. */
uint32_t rv_expr_fields(const rv_schema *schema, const char *text, uint32_t *fields, uint32_t capacity);

/* Whether it is an amount, a date or a plain number: how to show its value. */
typedef enum rv_unit { RV_UNIT_NUMBER, RV_UNIT_CENTS, RV_UNIT_DAYS, RV_UNIT_TRUTH } rv_unit;
rv_unit rv_expr_unit(const rv_schema *schema, const char *text);
#endif
