/* balance.h - whether the balances of a statement follow from its rows. */
#ifndef RV_EXTRACT_BALANCE_H
#define RV_EXTRACT_BALANCE_H
#include "extract/record.h"

/* How far the balance chain reaches: rows whose balance, the one before it and amount are known; those that do not follow.  Statements
 * run either way: the direction with fewer breaks counts. */
typedef struct rv_chain { uint32_t checked, breaks; bool newest_first; } rv_chain;

rv_chain rv_balance_chain(const rv_record *record);
/* Whether row `row` can be checked in that direction; then *expected is what its balance should be, in cents. */
bool rv_balance_row(const rv_record *record, uint32_t row, bool newest_first, int64_t *expected, int64_t *actual);
#endif
