/* rvdocument.h - documents read by a model: of which type they are, what their fields say, and how sure that is.
 *
 *     rv_reader *reader;  rv_record *record;  rv_schema *schema;
 *     if (rv_schema_open("receipt", &schema, &err))                      return report(&err);
 *     if (rv_reader_new(session, &reader, &err))                         return report(&err);
 *     rv_read_options how = { .size = sizeof how, .schema = schema };    // schema NULL: the type is found first
 *     if (rv_read(reader, &page, &how, &record, NULL, &err))             return report(&err);
 *     .. rv_record_get, rv_record_write of rvextract.h ..
 *     rv_record_free(record);  rv_reader_free(reader);
 *
 * What a field's `source` says, from the first tier to the last: "constrained" (an answer of the schema's form), "repeated" (a second
 * question about that field alone), "free" (an answer in whatever form, parsed), "ocr" (words on the page and rules).
 *
 * Confidence, until it has been calibrated on your own documents: the odds of sqrt(mean token probability x least token
 * probability), raised where checks of the value pass and its text stands on the page, lowered where they fail; of an absent field, the probability that it is
 * absent.  How well that fits one small model: bench/LOG.md.  Conventions as in rvengine.h.
 */
#ifndef RVDOCUMENT_H
#define RVDOCUMENT_H
#include "rvextract.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rv_reader rv_reader;   /* a session, and what was made to ask it: schemas, constraints */

/* `session` NULL: no model, pages are read by OCR and rules alone (RV_ERR_UNSUPPORTED where Tesseract is not installed).  The reader
 * needs the session until it is freed, and steps it: other jobs of the session run on meanwhile. */
RV_API rv_status rv_reader_new(rv_session *session, rv_reader **out, rv_error *err);      /* [any] */
RV_API void      rv_reader_free(rv_reader *reader);           /* [any], but not while rv_read or rv_classify is inside */

/* How a schema's fields are asked for. */
typedef int32_t rv_strategy;
enum { RV_STRATEGY_AUTO = 0,          /* the schema's own first one                            */
       RV_STRATEGY_SINGLE = 1,        /* all fields in one answer                              */
       RV_STRATEGY_PARTS = 2,         /* the schema's parts, each in a prompt of its own, side by side over one image */
       RV_STRATEGY_TWO_PASS = 3,      /* then a question of its own for each critical field that is absent, invalid or unsure */
       RV_STRATEGY_BANK_TURNS = 4 };  /* statements: the table's column headings first, then its rows by those names */

typedef int32_t rv_answer_form;
enum { RV_ANSWER_BY_SCHEMA = 0,       /* keys and lists fixed; values in the form of their kind where the schema says so */
       RV_ANSWER_STRICT = 1,          /* every value in the form of its kind                   */
       RV_ANSWER_FREE = 2 };          /* no constraint: the answer is parsed                   */

typedef int32_t rv_classify_by;
enum { RV_CLASSIFY_EVIDENCE = 0,      /* questions that can be seen on the page (columns, paid, travel), then rules */
       RV_CLASSIFY_DIRECT = 1 };      /* which of the types is it                              */

typedef int32_t rv_ocr_use;
enum { RV_OCR_AUTO = 0,               /* where Tesseract is installed: places on the page, checks, the last tier */
       RV_OCR_OFF = 1,
       RV_OCR_ONLY = 2 };             /* no question to the model                              */

typedef struct rv_read_options {
    size_t           size;
    const rv_schema *schema;          /* NULL: classify, then that type's built-in schema      */
    rv_strategy      strategy;
    rv_answer_form   form;
    rv_classify_by   classify;
    rv_ocr_use       ocr;
    float            presence;        /* values whose presence is less likely become NOT_FOUND (kept as alternatives); default 0: none */
    uint32_t         max_tokens;      /* of an answer; 0: what the context holds               */
    const char      *question;        /* instead of the schema's own (strategy SINGLE)         */
    const rv_record_options *record;
    int32_t        (*stop)(void *user);       /* asked between steps; non-zero: RV_ERR_CANCELLED */
    void            *user;
} rv_read_options;

typedef struct rv_reading {           /* what it took                                          */
    size_t      size;
    const char *schema, *doctype;     /* names                                                 */
    float       doctype_confidence;   /* negative: nobody asked                                */
    const char *strategy;             /* "single", ..                                          */
    const char *tier;                 /* the last one that was needed: "constrained", "repeated", "free", "ocr" */
    uint32_t    prompts;
    uint32_t    prompt_tokens, chosen_tokens, forced_tokens, steps;
    uint32_t    cut;                  /* answers that reached max_tokens or the context        */
    uint32_t    looped;               /* values in which the model repeated itself             */
    float       vision_ms, ocr_ms, total_ms;
} rv_reading;

/* Reads one page.  The record is checked.  `reading` may be NULL.  RV_ERR_BUSY, too, where another thread steps the session meanwhile.  The record holds its schema, not the reader. */
RV_API rv_status rv_read(rv_reader *reader, const rv_image *page, const rv_read_options *options,
                         rv_record **out, rv_reading *reading, rv_error *err);            /* [one] */

typedef struct rv_class {
    size_t      size;
    const char *doctype, *schema;     /* "RECEIPT", "receipt"                                  */
    float       confidence;
    const char *rule;                 /* why: "evidence: paid", "direct", "ocr"                */
    char        evidence[512];        /* the answers, as they came                             */
} rv_class;

RV_API rv_status rv_classify(rv_reader *reader, const rv_image *page, const rv_read_options *options,
                             rv_class *out, rv_error *err);                               /* [one] */

/* "5.3.0", or NULL: Tesseract cannot be loaded here. */
RV_API const char *rv_ocr_version(void);                                                  /* [any] */

#ifdef __cplusplus
}
#endif
#endif
