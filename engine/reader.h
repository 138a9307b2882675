/* reader.h - who asks a model about pages, from the inside.
 *
 * The one idea: a page's image is computed once; whatever is asked about it - its type, its fields at once or in parts, one field
 * again - is a question with a form, and questions that do not wait for each other run side by side.
 */
#ifndef RV_ENGINE_READER_H
#define RV_ENGINE_READER_H
#include <stdatomic.h>
#include "engine/base/text.h"
#include "engine/rvconstraint.h"
#include "engine/rvdocument.h"
#include "extract/page.h"
#include "extract/record.h"

typedef struct rv_made_form { rv_schema *schema; int32_t part; bool strict; rv_constraint *form; } rv_made_form;

struct rv_reader {
    atomic_bool        reading;          /* a thread is inside rv_read or rv_classify           */
    rv_session        *session;          /* NULL: no model                                      */
    const rv_tokenizer *tokenizer;
    rv_schema        **schemas;          /* built-in ones that were needed                      */
    uint32_t           n_schemas;
    rv_made_form      *forms;
    uint32_t           n_forms;
    struct rv_ocr     *ocr;              /* made when first needed                              */
};

/* One page that is being read. */
typedef struct rv_read_work {
    rv_reader       *reader;
    rv_read_options  options;
    rv_picture      *picture;            /* NULL: no model                                      */
    rv_page          page;               /* words; none without OCR                             */
    const rv_image  *image;              /* the caller's                                        */
    bool             has_words;
    rv_reading       reading;
} rv_read_work;

typedef struct rv_ask {
    const char    *question;
    rv_constraint *form;                 /* NULL: any answer                                    */
    uint32_t       max_tokens;
    rv_job        *job;                  /* out; NULL: it failed with                           */
    rv_error       error;
} rv_ask;

/* engine/reader.c */
/* Asks all of them about the page; each has its own outcome.  Fails only for the device, memory and stop. */
rv_status rv_ask_all(rv_read_work *w, rv_ask *asks, uint32_t n, rv_error *err);
void      rv_asks_free(rv_ask *asks, uint32_t n);
/* The form of a schema's fields, made once; the reader's. */
rv_status rv_reader_form(rv_reader *r, const rv_schema *schema, int32_t part, bool strict, rv_constraint **out, rv_error *err);
/* A built-in schema by the type that it is for, "RECEIPT"; by name where two are for one type the first.  NULL: none. */
rv_status rv_reader_schema(rv_reader *r, const char *doctype, const rv_schema **out, rv_error *err);

/* engine/read_class.c: which type the page is of. */
rv_status rv_read_class(rv_read_work *w, rv_class *out, rv_error *err);
/* What a column of that heading holds: "date", "debit", "credit", "balance", ..; "": nothing known. */
const char *rv_column_role(const char *heading, size_t bytes);

/* engine/read_bank.c: the strategy "bank-turns". */
rv_status rv_read_bank(rv_read_work *w, const rv_schema *schema, rv_record *record, rv_error *err);

/* engine/read_merge.c */
/* Puts the values of a constrained answer into absent slots, or weighs them against those that are there. */
rv_status rv_merge_answer(rv_read_work *w, rv_record *record, const rv_job *job, const char *source, rv_error *err);
/* After the checks: what they and the words on the page say about each value goes into its confidence. */
void      rv_weigh(rv_record *record);

/* engine/ocr.c: the words on a page, made grey, its paper white, its letters of one size; cells with dates and amounts are read until two readings
 * agree.  *out is freed with rv_page_free.  RV_ERR_UNSUPPORTED without Tesseract. */
rv_status rv_ocr_page(rv_reader *r, const rv_image *image, rv_page *out, rv_error *err);
/* Where rules miss some of the schema or nothing proves the total, the page is read once more with larger letters, and the reading in which
 * they find more is kept. */
rv_status rv_ocr_again(rv_reader *r, const rv_image *image, const rv_schema *schema, rv_page *page, rv_error *err);
void      rv_ocr_free(struct rv_ocr *ocr);
#ifdef RV_STATIC
#define RV_OCR_MISSING "a static build cannot load it: use one that was built without RV_STATIC"
#else
#define RV_OCR_MISSING "it cannot be loaded: install libtesseract5, liblept5 and tesseract-ocr-eng"
#endif
#endif
