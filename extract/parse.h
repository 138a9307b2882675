/* parse.h - free text of a model to slots, in tiers: JSON, KEY: VALUE lines beside it; without JSON keys on lines of their own, JSON inside
 * a line, sentences.
 *
 * The one idea: only keys and aliases of the schema are taken, and the first value that is there stays; text around them is
 * chatter.  Every tier works on the record through rv_parse_offer, which keeps both promises.
 */
#ifndef RV_EXTRACT_PARSE_H
#define RV_EXTRACT_PARSE_H
#include "extract/record.h"

typedef struct rv_parse {
    rv_record  *record;
    const char *source;
    uint32_t    found;                /* slots filled                                                    */
    rv_error   *err;
} rv_parse;

enum { RV_PARSE_BYTES = 1 << 20 };    /* a longer answer is an error                                     */

/* Gives `text` to field `field` unless it has a value; blanks, quotes, ** and ` around it are dropped. */
rv_status rv_parse_offer(rv_parse *p, uint32_t field, const char *text, size_t bytes);
/* The same for items that are known to have " | " between them and nothing else. */
rv_status rv_parse_offer_cells(rv_parse *p, uint32_t field, const char *text, size_t bytes);

/* JSON objects in the text, however damaged: at the start of a line, in a fence or a list; `anywhere`: wherever a brace is.  *any: there was
 * one with a known key; those are blanks afterwards. */
rv_status rv_parse_json(rv_parse *p, char *text, size_t bytes, bool anywhere, bool *any);
/* The list that a column of a table fills: "price" is LINE_ITEM_PRICES; -1: none. */
int32_t rv_parse_column(const rv_schema *schema, const char *key, size_t bytes);
/* A Markdown table that begins at text[*at]: a line of two or more names of columns, one of dashes, rows.  *at is behind it then, else as it was. */
rv_status rv_parse_table(rv_parse *p, const char *text, size_t bytes, size_t *at);
/* "the total was $45.20", "dated 5 March 2024": typed fields behind the words that name them. */
rv_status rv_parse_sentences(rv_parse *p, const char *text, size_t bytes);

static inline bool rv_slot_found(const rv_record *r, uint32_t field) { return r->slots[field].n_items > 0; }
#endif
