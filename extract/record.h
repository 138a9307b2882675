/* record.h - one document's fields, typed, with where each came from and how sure it is.
 *
 * The one idea: a record has a slot for every field of its schema, whoever fills it - a constrained answer, a parser, OCR
 * rules, a person - and checks, writers and evaluation read nothing else.
 *
 * A record is one thread's at a time; it holds its schema.
 */
#ifndef RV_EXTRACT_RECORD_H
#define RV_EXTRACT_RECORD_H
#include <stdatomic.h>
#include "extract/schema.h"

/* A rectangle on the page, in pixels of the upright image. */
typedef struct rv_box { float x, y, width, height; } rv_box;

typedef struct rv_slot {
    const char *raw;              /* the whole value as served; "" if nothing was                       */
    rv_value   *items;            /* one value; of a list one an item, absent cells included            */
    uint32_t    n_items;          /* 0: absent                                                          */
    bool        answered;         /* the answer named this key at all                                   */
    float       presence;         /* probability that the document has it; negative: not known          */
    float       confidence;       /* probability that the value is right; negative: not known           */
    float       grounding;        /* best similarity to words on the page, 0..1; negative: no OCR       */
    const char *source;           /* tier that served it: "constrained", "free", "ocr", "given"; "" none */
    rv_box     *boxes;            /* where it stands on the page                                        */
    uint32_t    n_boxes;
    const char **alternatives;    /* values that other prompts or tiers gave                            */
    uint32_t    n_alternatives;
} rv_slot;

typedef enum rv_severity { RV_SEVERITY_INFO, RV_SEVERITY_WARNING, RV_SEVERITY_ERROR } rv_severity;
typedef enum rv_layer { RV_LAYER_FORMAT, RV_LAYER_CONSISTENCY, RV_LAYER_LEGAL } rv_layer;

/* What a check has to say.  Texts are the record's. */
typedef struct rv_finding {
    const char *id;               /* "gst.range", stable                                                */
    rv_severity severity;
    rv_layer    layer;
    const uint32_t *fields;       /* indices of the fields it is about                                  */
    uint32_t    n_fields;
    int32_t     row;              /* of a list, from 0; -1: not about one row                           */
    const char *message;          /* one sentence                                                       */
    const char *expected, *actual;/* "" where that makes no sense                                       */
    const char *suggestion;       /* "" or what to do; never done by itself                             */
    const char *source;           /* the law or convention; ""                                          */
} rv_finding;

typedef enum rv_gst_class { RV_GST_UNKNOWN, RV_GST_FULLY_TAXABLE, RV_GST_MIXED, RV_GST_FREE, RV_GST_NOT_SHOWN, RV_GST_IMPOSSIBLE } rv_gst_class;

typedef struct rv_compliance {
    bool         checked;         /* rv_record_check ran                                                */
    double       score;           /* 0..100, over the rules that apply; negative: none did              */
    rv_gst_class gst_class;
    rv_tristate  tax_invoice_valid, gst_credit_claimable, deduction_evidence;    /* RV_UNKNOWN: does not apply */
    bool         needs_review;
    const char **recommendations;
    uint32_t     n_recommendations;
    const char  *rules;           /* rule sets used, with their dates: "au-gst@2000-07-01 .."           */
} rv_compliance;

struct rv_record {
    atomic_bool  entered;         /* a public function is inside                                        */
    const rv_schema *schema;
    rv_slot     *slots;           /* schema->n_fields of them                                           */
    const char  *file;            /* the document's name; ""                                            */
    const char  *doctype;         /* as found; "" when nobody asked                                     */
    float        doctype_confidence;          /* negative: not known                                    */
    const char  *text;            /* all text of the page, if OCR or a transcript is there; else NULL   */
    uint32_t     page_width, page_height;     /* of the upright image; 0: not known                     */
    rv_finding  *findings;
    uint32_t     n_findings, findings_capacity;
    rv_compliance compliance;
    bool         allow_tfn, allow_account;    /* such numbers are kept in fields that say so (x-sensitivity tfn, account) */
    uint32_t     masked;          /* numbers masked while values were stored                            */
    rv_date      today;           /* for checks against the calendar; zero: those are left out          */
    rv_pool      pool;            /* owns every text and array above                                    */
};

/* Every slot absent; NULL: out of memory.  rv_record_new and the other public functions are in engine/rvextract.h. */
rv_record *rv_record_blank(const rv_schema *schema);

/* Reads `text` as field `field` (lists are split) and puts it into its slot, replacing what was there.  Card, tax file
 * and account numbers are masked before anything is stored, as the field says. RV_ERR_MEMORY. */
rv_status rv_record_set(rv_record *record, uint32_t field, const char *text, size_t bytes, const char *source, rv_error *err);
/* The same for a list whose items are known to have " | " between them and nothing else: a comma belongs to the only one. */
rv_status rv_record_set_cells(rv_record *record, uint32_t field, const char *text, size_t bytes, const char *source, rv_error *err);

/* Public functions that read or change a record enter it first: RV_ERR_BUSY while another thread is inside.  Records are this
 * library's own, so one that a caller sees as const is not. */
rv_status rv_record_enter(const rv_record *record, const char *what, rv_error *err);
void      rv_record_leave(const rv_record *record);

/* Rows of a table: items of its longest column. */
uint32_t rv_record_rows(const rv_record *record, int32_t group);

/* The first item of a field when it is there and valid, else NULL. */
const rv_value *rv_record_value(const rv_record *record, const char *key);

#endif
