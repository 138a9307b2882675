/* documents.h - files that hold the fields of documents: CSV, JSON Lines, JSON, KEY: VALUE text. */
#ifndef RV_EXTRACT_DOCUMENTS_H
#define RV_EXTRACT_DOCUMENTS_H
#include "extract/record.h"

/* What every record of a file gets. */
typedef struct rv_record_setup {
    const char *file, *page_text;      /* may be NULL                                                    */
    uint32_t    page_width, page_height;
    rv_date     today;
    bool        allow_tfn, allow_account;
} rv_record_setup;

rv_status rv_record_make(const rv_schema *schema, const rv_record_setup *setup, rv_record **out, rv_error *err);

/* Calls `each` for every document, in order, with the line on which it begins; it owns the record then, and may refuse (any status
 * but RV_OK ends the reading).  *unknown (may be NULL): called for every column or key that neither the schema nor this library knows. */
typedef struct rv_document_reader {
    const rv_schema       *schema;
    const rv_record_setup *setup;
    const char            *file;       /* for messages                                                   */
    rv_status (*each)(void *user, rv_record *record, uint32_t line, rv_error *err);
    void (*unknown)(void *user, const char *key, uint32_t line);
    void                  *user;
} rv_document_reader;

rv_status rv_documents_read(const rv_document_reader *reader, const char *text, size_t bytes, rv_error *err);

/* "some/folder/r7000.png": "r7000.png". */
const char *rv_base_name(const char *path);
#endif
