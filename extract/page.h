/* page.h - the words on a page and where they stand: what a value is compared with, and what rules read when there is nothing else. */
#ifndef RV_EXTRACT_PAGE_H
#define RV_EXTRACT_PAGE_H
#include "extract/record.h"

typedef struct rv_word {
    const char *text;                    /* UTF-8, without blanks                               */
    float       confidence;              /* 0..1, of the recogniser                             */
    rv_box      box;
    int32_t     line;                    /* words of a line stand side by side; lines from the top */
} rv_word;

typedef struct rv_page {
    rv_word *words;                      /* in reading order                                    */
    uint32_t n_words, capacity;
    uint32_t width, height;
    rv_pool  pool;
} rv_page;

void      rv_page_free(rv_page *page);
rv_status rv_page_add(rv_page *page, const char *text, rv_box box, float confidence, int32_t line, rv_error *err);

/* Gives the record the page's text and size, and every value its place: the run of words most like it, and how alike (grounding). */
rv_status rv_page_ground(const rv_page *page, rv_record *record, rv_error *err);

/* Fills absent slots from labels and forms: a date is what reads as one, the total is the amount beside that word, the seller stands
 * at the top.  source "ocr". *filled (may be NULL): how many. */
rv_status rv_page_rules(const rv_page *page, rv_record *record, uint32_t *filled, rv_error *err);
/* The same for the field that holds what is to be paid, where one line may say it and others deny it: see page_total.c.  *proofs (may be
 * NULL): in how many ways the page's other amounts come to it, and one more where it stands on another line too. */
rv_status rv_page_total(const rv_page *page, rv_record *record, uint32_t field, bool *found, int *proofs, rv_error *err);
/* How sure rules are of a value whose least sure word the recogniser is `sure` of; below RV_SURE it is wrong twice to eight times as often
 * (bench/LOG.md). */
#define RV_SURE 0.5f
float     rv_rules_confidence(float sure);
/* How much the rules find there, to choose between two readings of one page: critical fields, days of a likely year, proofs of the total.
 * *full: nothing is missing. */
rv_status rv_page_worth(const rv_page *page, const rv_schema *schema, int *worth, bool *full, rv_error *err);
/* Where a value begins in a word that recognisers and printers have glued something to: "Date:27/04/18", ":27/04/18", "'45.20". */
const char *rv_unglued(const char *word);
/* The length of a text without what is glued to its end: "45.20|", of dates "27/04/18)" too. */
size_t      rv_unglued_end(rv_value_kind kind, const char *text, size_t bytes);
/* How long the longest label of the field is that stands in the text; 0: none. */
size_t rv_label_length(const rv_field *field, const char *text);
/* Where `label` stands in `text` as whole words, case forgiven: behind it; 0: nowhere. */
size_t    rv_behind_label(const char *text, const char *label);
#endif
