/* balance.h - whether the balances of a statement follow from its rows. */
#ifndef RV_EXTRACT_BALANCE_H
#define RV_EXTRACT_BALANCE_H
#include "extract/record.h"

/* How far the balance chain reaches: rows whose balance, the one before it and amount are known; those that do not follow.  Statements
 * run either way: the direction with fewer breaks counts.  What is owed on a credit card grows by what is paid with it: the chain with the
 * opposite sign counts where it fits every row of at least two; one that changes its sign on the way is broken. */
typedef struct rv_chain { uint32_t checked, breaks; bool newest_first, owed; } rv_chain;

rv_chain rv_balance_chain(const rv_record *record);
/* Whether row `row` can be checked in that direction; then *expected is what its balance should be, in cents, unless it is owed. */
bool rv_balance_row(const rv_record *record, uint32_t row, bool newest_first, int64_t *expected, int64_t *actual);
#endif
