/* statement.h - the rows of a bank statement, from columns as they were read to the fields of a record. */
#ifndef RV_EXTRACT_STATEMENT_H
#define RV_EXTRACT_STATEMENT_H
#include "extract/record.h"

/* A column of the page's own table: what it holds ("date", "description", "debit", "credit", "balance", "amount") and its cells, " | "
 * between them. */
typedef struct rv_statement_column { const char *role, *text; size_t bytes; } rv_statement_column;

/* The field of a schema that takes a column of that role, or -1. */
int32_t rv_statement_field(const rv_schema *schema, const char *role);

/* Fills the record's columns.  A row without a date has that of the row before; rows that only carry a balance (opening, closing,
 * brought and carried forward, without an amount of their own) are left out; of a single amount column what rv_value_read calls
 * negative (a minus of any kind, parentheses, DR) was paid, the rest was received; signs are dropped then.  A period that nobody has read is that of all rows.  Columns of unequal length are cut
 * to the shortest, which a check will say. */
rv_status rv_statement_fill(rv_record *record, const rv_statement_column *columns, uint32_t n, const char *source, rv_error *err);
#endif
