/* write.h - a record as text: KEY: VALUE, JSON, CSV, Markdown, and a page for review.
 *
 * The one idea: what stands in a document is data everywhere.  Each writer escapes for its own reader - a spreadsheet, a browser,
 * a Markdown renderer - and none trusts another's escaping.
 */
#ifndef RV_EXTRACT_WRITE_H
#define RV_EXTRACT_WRITE_H
#include <jansson.h>

#include "engine/base/text.h"
#include "extract/record.h"

/* The normal form of a field: items with " | " between them, RV_NOT_FOUND for what is absent. */
void rv_slot_text(const rv_record *record, uint32_t field, rv_string *out);

void    rv_write_kv(const rv_record *record, rv_string *out);
json_t *rv_record_json(const rv_record *record);            /* new reference; NULL: out of memory */
void    rv_write_csv_head(const rv_schema *schema, rv_string *out);
void    rv_write_csv_row(const rv_record *record, rv_string *out);
void    rv_write_markdown(const rv_record *record, rv_string *out);

/* One CSV cell: quoted where it must be, and nothing a spreadsheet takes for a formula. */
void rv_csv_cell(rv_string *out, const char *text);

typedef struct rv_page_image { const void *data; size_t bytes; const char *link; } rv_page_image;
void rv_write_html_head(rv_string *out);
/* RV_ERR_UNSUPPORTED: the image is none that browsers show; RV_ERR_ARGUMENT: the link is no path. */
rv_status rv_write_html(const rv_record *record, const rv_page_image *image, rv_string *out, rv_error *err);
void rv_write_html_tail(rv_string *out);

/* "1", "0" and "" for what is not known. */
const char *rv_tristate_name(rv_tristate t);                /* "true", "false", "unknown"         */
#endif
