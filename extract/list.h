/* list.h - a list in one line of text, to its items. */
#ifndef RV_EXTRACT_LIST_H
#define RV_EXTRACT_LIST_H
#include "engine/base/status.h"
#include "extract/value.h"

typedef struct rv_list_item { const char *text; size_t bytes; } rv_list_item;      /* into the source */
typedef struct rv_list { rv_list_item *items; size_t count, capacity; } rv_list;

enum { RV_LIST_ITEMS = 2000 };            /* more are an error: no page has them */

/* Items by the first of these that is there: brackets around quoted items; "|"; a line each (bullets dropped); ";" ; a comma that no digit follows, or between numbers cents precede; two blanks
 * or more.  Amounts that are glued ("$1.00 $2.00") are parted.  One item otherwise.  Errors: RV_ERR_TOO_LONG, RV_ERR_MEMORY. */
rv_status rv_list_split(rv_value_kind kind, const char *text, size_t bytes, rv_list *out, rv_error *err);
/* The same where "|" is known to part the items, if anything does: "Milk, 2L" is one.  In both, bars around the whole, "| a | b |", part nothing. */
rv_status rv_list_cells(const char *text, size_t bytes, rv_list *out, rv_error *err);
void      rv_list_free(rv_list *list);
#endif
