/* value_read.h - the readers of single kinds: each gets tidied text and fills what it understands.
 *
 * A reader sets `text` (normal form) and the typed members and leaves `why` NULL, or sets `why`; `text` is then the
 * tidied text already, and may be made better where the shape allows it.
 */
#ifndef RV_EXTRACT_VALUE_READ_H
#define RV_EXTRACT_VALUE_READ_H
#include "extract/value.h"

typedef void (*rv_reader)(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);

void rv_read_money(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_quantity(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_percent(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_date(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_date_range(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_time(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_abn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_acn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_tfn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_bsb(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_account(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_card(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);
void rv_read_phone(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out);

/* Skips `word` (lower case) and blanks behind it at *at, when it stands there as a whole word. */
bool rv_skip_word(const char **at, const char *word);
static inline void rv_skip_blanks(const char **at) { while (**at == ' ') ++*at; }
#endif
