/* schema.h - a document type as data: its fields, what they are called, how to ask for them, what must hold.
 *
 * The one idea: everything that knows a document reads it from here - prompts, constrained decoding, parsing, checks,
 * writers, evaluation.  A schema is a JSON Schema file (2020-12, a subset, with x- keys: extract/README.md has all
 * of them); those in extract/data are built in.  What is not understood is refused with line and path.
 *
 * A schema never changes after loading, but for the count of those who hold it: any thread.  rv_schema_open and rv_schema_free are in engine/rvextract.h.
 */
#ifndef RV_EXTRACT_SCHEMA_H
#define RV_EXTRACT_SCHEMA_H
#include <stdatomic.h>

#include "engine/base/status.h"
#include "engine/rvextract.h"
#include "extract/value.h"

/* How strictly a constrained decoder holds a value to its kind: SOFT: structure only; STRICT: the kind's own form. */
typedef enum rv_grammar { RV_GRAMMAR_BY_KIND /* only while loading */, RV_GRAMMAR_SOFT, RV_GRAMMAR_STRICT } rv_grammar;

/* One KEY of the KEY: VALUE form.  Fields of one group are columns of one table: lists of equal length. */
typedef struct rv_field {
    const char    *key;             /* "BUSINESS_ABN": [A-Z][A-Z0-9_]*, unique                          */
    const char    *title;           /* "ABN", for people; never NULL                                    */
    const char    *description;     /* "" if none                                                       */
    const char    *prompt;          /* what to write there, one line: "the seller's ABN, 11 digits"; never ""  */
    rv_value_kind        kind;            /* of the value, or of each item of a list                          */
    bool           list;            /* items in one line, " | " between them                            */
    int32_t        group;           /* index into rv_schema.groups; -1: none (lists without a group stand alone) */
    rv_texts       aliases;         /* other keys that answers use for it                               */
    rv_texts       labels;          /* words that stand beside it on paper: "Tax Invoice No"            */
    rv_texts       choices;         /* enum: allowed values                                             */
    rv_texts      *choice_aliases;  /* enum: other words for each of them; NULL: none for any           */
    const char    *pattern;         /* PCRE2 for the whole normal form, or NULL                         */
    void          *pattern_code;    /* pcre2_code *                                                     */
    bool           required;        /* the document type is incomplete without it                       */
    bool           critical;        /* a wrong value does harm: reviewed first, gated in evaluation     */
    bool           scored;          /* evaluation counts it (x-scored, default true)                    */
    double         weight;          /* in scores; default 1, critical fields 2                          */
    double         min_confidence;  /* below: needs review; default 0.5                                 */
    rv_sensitivity sensitivity;
    rv_grammar     grammar;         /* default: STRICT for bool and enum, else SOFT                     */
    uint32_t       max_tokens;      /* of the value, list items together; default by kind               */
    uint32_t       max_bytes;       /* of one item; default by kind                                     */
    uint32_t       max_items;       /* of a list; default 100                                           */
} rv_field;

/* A part of the document asked in a prompt of its own (several prompts over one image, computed once). */
typedef struct rv_prompt_part {
    const char     *name;           /* "supplier", "lines", "money"                                     */
    const char     *prompt;         /* its lead; NULL: the schema's                                     */
    const uint32_t *fields;         /* indices, ascending                                               */
    uint32_t        n_fields;
    uint32_t        max_tokens;     /* 0: the sum of the fields'                                        */
} rv_prompt_part;

/* Three-valued answers of evidence questions. */
typedef enum rv_tristate { RV_UNKNOWN, RV_NO, RV_YES } rv_tristate;

/* When a page is of this type: rules of all schemas in ascending `rank`; the first that holds decides. */
typedef struct rv_evidence {
    uint32_t    rank;               /* 0: this schema takes no part                                     */
    rv_texts    columns;            /* any of these column roles is there: "debit", "balance", ..       */
    uint32_t    min_columns;        /* how many of them; default 1                                      */
    rv_tristate paid, travel;       /* RV_UNKNOWN: does not matter                                      */
    bool        otherwise;          /* the default when nothing else held                               */
} rv_evidence;

/* A cross-field rule of the schema itself; those of the rule files (extract/data/rules) are named in `rule_sets`. */
typedef struct rv_rule_text {
    const char *id, *when, *test, *message, *severity, *suggestion;     /* when, suggestion: may be NULL */
    rv_texts    fields;
} rv_rule_text;

struct rv_schema {
    atomic_int      refs;           /* the caller's, and one for each record and reader that needs it       */
    const char     *name;           /* "receipt": file name without .json                               */
    const char     *title, *version, *description;
    const char     *doctype;        /* "RECEIPT"                                                        */
    rv_texts        doctype_aliases;/* "docket", "till receipt": other words for the type, lower case   */
    const char     *prompt;         /* lead of the question; the field list follows it (rv_schema_prompt) */
    bool            prompt_alone;   /* it is the whole question: for models trained on that very sentence */
    const char     *type_prompt;    /* the type in words, for classification: "a till receipt or docket" */
    rv_texts        strategies;     /* "single", "parts", "bank-turns", ..; first is the default; never empty */
    rv_field       *fields;         /* in the order in which they are asked and written                 */
    uint32_t        n_fields;
    const char    **groups;         /* "lines", "transactions"                                          */
    uint32_t        n_groups;
    rv_prompt_part *parts;
    uint32_t        n_parts;
    rv_evidence     evidence;
    rv_texts        rule_sets;      /* "au-gst", "au-tax-invoice"                                       */
    rv_rule_text   *rules;
    uint32_t        n_rules;
    uint64_t        hash;           /* XXH3 of the file's bytes: written into every record              */
    rv_pool         pool;           /* owns all of it                                                   */
};

/* One more that needs it; rv_schema_free gives it back. */
rv_schema *rv_schema_retain(const rv_schema *schema);

/* Reads a schema from memory.  `file` is for messages and gives the name.  Errors (RV_ERR_FORMAT): "receipt.json: line 12:
 * /properties/TOTAL/x-kind: \"mony\" is no kind: did you mean money?" */
rv_status rv_schema_parse(const char *file, const char *json, size_t bytes, rv_schema **out, rv_error *err);

/* Index of the field with that key or alias (case, blanks, '-' and '_' do not matter), or -1. */
int32_t rv_schema_find(const rv_schema *schema, const char *key, size_t bytes);
/* Whether a key or alias is the same as `text` by that rule. */
bool rv_schema_same_key(const char *name, const char *text, size_t bytes);
/* Index of the field with exactly that key, or -1. */
int32_t rv_schema_field(const rv_schema *schema, const char *key);

/* The whole question in plain text: lead, one line a field, closing rules.  part < 0: all fields; else of schema->parts[part].
 * The caller frees it; NULL: out of memory. */
char *rv_schema_prompt(const rv_schema *schema, int32_t part);

/* ---- what is built in --------------------------------------------------------------------------------------- */

typedef struct rv_data_file {
    const char *name, *stem;        /* "schemas/receipt.json", "receipt"                                */
    const char *data;
    size_t      bytes;
} rv_data_file;
extern const rv_data_file rv_data_files[];
extern const size_t       rv_data_files_count;
const rv_data_file *rv_data_find(const char *name);         /* NULL: none                                */
#endif
