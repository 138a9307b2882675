/* rvextract.h - fields of documents: schemas, typed and checked values, reports, evaluation.  No model is needed for any of it.
 *
 *     rv_schema *schema;  rv_record *record;  char *json;
 *     if (rv_schema_open("receipt", &schema, &err))                              return report(&err);
 *     if (rv_record_new(schema, NULL, &record, &err))                            return report(&err);
 *     if (rv_record_parse(record, answer, answer_bytes, "free", NULL, &err))     return report(&err);
 *     if (rv_record_check(record, &err))                                         return report(&err);
 *     if (rv_record_write(record, RV_FORM_JSON, NULL, &json, NULL, &err))        return report(&err);
 *     puts(json);
 *     rv_text_free(json);  rv_record_free(record);  rv_schema_free(schema);
 *
 * Conventions as in rvengine.h.  Values are never changed or repaired: text that does not fit its kind is kept and marked.
 * Card and tax file numbers, and what stands in a field of x-sensitivity, are masked before a record keeps
 * them, in a document's name too.  What is said about law is not tax advice.
 */
#ifndef RVEXTRACT_H
#define RVEXTRACT_H
#include "rvengine.h"

#ifdef __cplusplus
extern "C" {
#endif

typedef struct rv_schema rv_schema;       /* a document type and its fields; never changes after opening: [any] */
typedef struct rv_record rv_record;       /* one document's values; holds its schema, which may be freed before it.  Not while another
                                             thread is inside a function for it: those answer RV_ERR_BUSY, rv_record_free cannot */

RV_API void rv_text_free(char *text);     /* [any] texts that functions below give to the caller; NULL is fine  */

/* ---- schemas ------------------------------------------------------------------------------ */

/* Those that are built in, in alphabetical order. */
RV_API uint32_t    rv_schema_count(void);                                                /* [any] */
RV_API const char *rv_schema_name(uint32_t i);       /* [any] NULL: there is no such one           */

/* A built-in name ("receipt"), or the path of a JSON file (it contains '/' or ends in ".json").  Errors say where: "my.json: line
 * 12: /properties/TOTAL/x-kind: \"mony\" is no kind of value: did you mean money?" (RV_ERR_FORMAT). */
RV_API rv_status rv_schema_open(const char *name_or_path, rv_schema **out, rv_error *err);    /* [any] */
RV_API void      rv_schema_free(rv_schema *schema);                                       /* [any] */

typedef struct rv_schema_info {
    size_t      size;
    const char *name, *title, *version, *description;
    const char *doctype;              /* "RECEIPT"                                             */
    uint32_t    fields, required, lists, parts;    /* parts: prompts into which it can be cut  */
    const char *strategy;             /* the default                                           */
    uint64_t    hash;                 /* of the file                                           */
} rv_schema_info;
RV_API rv_status rv_schema_get_info(const rv_schema *schema, rv_schema_info *out, rv_error *err);      /* [any] */

typedef struct rv_field_info {
    size_t      size;
    const char *key, *title, *prompt;
    const char *kind;                 /* "money", "abn", "date", ..                            */
    const char *group;                /* the table of which it is a column; "" if none         */
    int32_t     list, required, critical;
    uint32_t    aliases, choices;
} rv_field_info;
RV_API rv_status rv_schema_get_field(const rv_schema *schema, uint32_t i, rv_field_info *out, rv_error *err);    /* [any] */

/* The question that the schema asks.  part < 0: all fields; else one of its parts.  Free with rv_text_free. */
RV_API rv_status rv_schema_question(const rv_schema *schema, int32_t part, char **out, rv_error *err);           /* [any] */
/* The JSON text of a built-in schema; NULL: no such name. */
RV_API const char *rv_schema_source(const char *name, size_t *bytes);                    /* [any] */

/* ---- records ------------------------------------------------------------------------------ */

/* A column or key of a file that neither the schema nor this library knows; `line` is where. */
typedef void (*rv_unknown_fn)(void *user, const char *key, uint32_t line);

typedef struct rv_record_options {
    size_t      size;
    const char *file;                 /* the document's name, for reports; copied              */
    const char *page_text;            /* all text of the page, from OCR or the like: checks look words up in it; copied */
    uint32_t    page_width, page_height;           /* of the upright image                     */
    const char *today;                /* "2026-07-26": for checks against the calendar and two-digit years; NULL: neither */
    int32_t     allow_tfn;            /* tax file numbers are kept where the schema says x-sensitivity tfn: only for purposes of
                                         tax law (Privacy (Tax File Number) Rule 2015)         */
    rv_unknown_fn unknown;            /* for rv_records_read; NULL: passed over                */
    void       *unknown_user;
    int32_t     allow_account;        /* account numbers are kept where the schema says x-sensitivity account; else their last three digits */
} rv_record_options;

RV_API rv_status rv_record_new(const rv_schema *schema, const rv_record_options *options,
                               rv_record **out, rv_error *err);                           /* [any] */
RV_API void      rv_record_free(rv_record *record);                                       /* [any] */

/* `text` may be NULL where `bytes` is 0, here and below.
 * One field's value (lists in one line, " | " between items); replaces what was there.  `source` says who served it ("given"). */
RV_API rv_status rv_record_put(rv_record *record, const char *key, const char *text, size_t bytes,
                               const char *source, rv_error *err);                        /* [one] */
/* Values out of a model's free answer: KEY: VALUE lines, JSON (fenced, damaged), bullets, older key names, sentences.  Keys that the
 * schema does not know are left alone; slots that have a value keep it, and those filled before an error.  *found (may be NULL): slots filled. */
RV_API rv_status rv_record_parse(rv_record *record, const char *text, size_t bytes,
                                 const char *source, uint32_t *found, rv_error *err);     /* [one] */
/* Checks format, consistency and law; replaces earlier findings. */
RV_API rv_status rv_record_check(rv_record *record, rv_error *err);                       /* [one] */

typedef struct rv_result {            /* one field of a record                                 */
    size_t      size;
    const char *key, *kind;
    const char *text;                 /* normal form; items of a list with " | " between; "NOT_FOUND" */
    const char *raw;                  /* as it was read                                        */
    uint32_t    items;                /* 0: absent                                             */
    int32_t     valid;                /* every item that is there fits its kind                */
    float       presence, confidence, grounding;   /* 0..1; negative: not known                */
    const char *source;
} rv_result;
RV_API rv_status rv_record_get(rv_record *record, uint32_t field, rv_result *out, rv_error *err);       /* [one] */

typedef struct rv_summary {           /* of a checked record                                   */
    size_t      size;
    double      score;                /* 0..100; negative: nothing applied                     */
    uint32_t    findings, warnings, errors;        /* all of them, and of these               */
    int32_t     tax_invoice_valid, gst_credit_claimable, deduction_evidence;    /* 1, 0; -1: does not apply or cannot be known */
    int32_t     needs_review;
    const char *gst;                  /* "fully_taxable", "mixed", "gst_free", "not_shown", "impossible", "unknown" */
    uint32_t    masked;               /* card, tax file and account numbers that were masked    */
    uint32_t    found, fields;
} rv_summary;
RV_API rv_status rv_record_get_summary(const rv_record *record, rv_summary *out, rv_error *err);        /* [one] */

/* ---- reports ------------------------------------------------------------------------------ */

typedef int32_t rv_form;
enum { RV_FORM_KV = 0,                /* KEY: value lines, every key, in order                 */
       RV_FORM_JSON = 1,              /* one object, indented                                  */
       RV_FORM_JSONL = 2,             /* the same on one line                                  */
       RV_FORM_CSV = 3,               /* RFC 4180; what a spreadsheet would take for a formula begins with ' */
       RV_FORM_MARKDOWN = 4,
       RV_FORM_HTML = 5 };            /* one file for review, without scripts and network      */

typedef uint32_t rv_write_parts;      /* CSV and HTML of several records: what is written now  */
enum { RV_WRITE_HEAD = 1, RV_WRITE_RECORD = 2, RV_WRITE_TAIL = 4 };

typedef struct rv_write_options {
    size_t         size;
    rv_write_parts parts;             /* default: all, one record                              */
    const void    *image;             /* HTML: the page's file (JPEG, PNG, GIF, WebP, BMP), which becomes part of the page */
    size_t         image_bytes;
    const char    *image_link;        /* instead: where it is                                  */
} rv_write_options;

/* Free *text with rv_text_free; a NUL stands behind its *bytes (may be NULL). */
RV_API rv_status rv_record_write(const rv_record *record, rv_form form, const rv_write_options *options,
                                 char **text, size_t *bytes, rv_error *err);              /* [one] */

/* ---- fields that are there already -------------------------------------------------------- */

/* Called for every document of a file; the record lives until it returns.  Non-zero stops (RV_ERR_CANCELLED). */
typedef int32_t (*rv_record_fn)(void *user, rv_record *record);

/* Reads documents' fields: CSV with a header, JSON Lines, one JSON object or array, or KEY: VALUE text of one document; which one is
 * seen from the text.  Documents are named by the first of image_file, filename, image_name, image, file, id.  Objects may hold their values in
 * "fields", as this library writes them, or as KEY: VALUE text in "truth", "answer" or "text".  `file` is for messages, and may be NULL. */
RV_API rv_status rv_records_read(const rv_schema *schema, const rv_record_options *options, const char *file,
                                 const char *text, size_t bytes, rv_record_fn each, void *user, rv_error *err);   /* [any] */

/* ---- evaluation --------------------------------------------------------------------------- */

typedef struct rv_run {               /* one set of answers, or the truth: a file as rv_records_read takes it */
    const char *name;                 /* for tables and messages; may be NULL                  */
    const char *text;
    size_t      bytes;
} rv_run;

typedef int32_t rv_report_form;
enum { RV_REPORT_TEXT = 0, RV_REPORT_JSON = 1, RV_REPORT_CSV = 2, RV_REPORT_MARKDOWN = 3 };

typedef struct rv_eval_options {
    size_t         size;
    rv_report_form form;
    uint32_t       resamples;         /* bootstrap; default 2000                               */
    uint64_t       seed;
    int32_t        substitutions;     /* non-zero: a wrong item is a miss and an invention too; default: a miss only */
    int32_t        ignore_missing;    /* non-zero: documents without an answer are left out; default: they count as empty */
    uint32_t       list_wrong;        /* how many wrong fields are listed with truth and answer (text, Markdown, JSON) */
} rv_eval_options;

/* Answers against truth, field by field: exact (case and blanks forgiven), by meaning (dates as dates, amounts as cents), order-aware F1,
 * ANLS, hallucination rate; per field and per document type, with 95 % bootstrap intervals over documents.  With a second run: the
 * paired difference, its interval, and how many documents got better and worse.  Documents are matched by the longest common end of their paths;
 * where that leaves a choice, RV_ERR_FORMAT.  *report: free with rv_text_free. */
RV_API rv_status rv_evaluate(const rv_schema *schema, const rv_run *truth, const rv_run *run, const rv_run *other,
                             const rv_eval_options *options, char **report, rv_error *err);             /* [any] */

/* What is wrong with a truth file: unknown columns, documents twice, values that do not fit their column, lists of unequal length, sums.
 * *problems: how many.  In Markdown as in text. */
RV_API rv_status rv_lint(const rv_schema *schema, const rv_run *truth, rv_report_form form,
                         char **report, uint32_t *problems, rv_error *err);               /* [any] */

#ifdef __cplusplus
}
#endif
#endif
