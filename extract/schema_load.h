/* schema_load.h - reading a schema file by tables of keywords.
 *
 * The one idea: every object of a schema file is read by one table "keyword, how, where to", so that what is not in a table
 * is refused by name, and no keyword is accepted and then ignored without a row that says so.
 */
#ifndef RV_EXTRACT_SCHEMA_LOAD_H
#define RV_EXTRACT_SCHEMA_LOAD_H
#include "extract/schema.h"
#include "extract/tree.h"

typedef struct rv_loader {
    const rv_tree *tree;            /* the file being read                                              */
    const rv_tree *common;          /* fields.json, for "$ref": "rvengine:fields#/$defs/NAME"           */
    rv_schema     *schema;          /* being filled; its pool takes everything                          */
    rv_error      *err;
} rv_loader;

typedef rv_status (*rv_take_fn)(const rv_loader *l, const rv_node *node, void *to);
typedef struct rv_keyword {
    const char *name;
    rv_take_fn  take;               /* NULL: read elsewhere, or a note for people                       */
    size_t      offset;             /* of `to` in the struct                                            */
} rv_keyword;

/* Reads all keys of `object` into the struct at `to`. */
rv_status rv_take_object(const rv_loader *l, const rv_node *object, const rv_keyword *words, size_t n, void *to);

rv_status rv_take_text(const rv_loader *l, const rv_node *node, void *to);       /* const char *: not empty, one line */
rv_status rv_take_lines(const rv_loader *l, const rv_node *node, void *to);      /* const char *: not empty           */
rv_status rv_take_texts(const rv_loader *l, const rv_node *node, void *to);      /* rv_texts: not empty, each once    */
rv_status rv_take_flag(const rv_loader *l, const rv_node *node, void *to);       /* bool                              */
rv_status rv_take_count(const rv_loader *l, const rv_node *node, void *to);      /* uint32_t: 1..100000               */
rv_status rv_take_real(const rv_loader *l, const rv_node *node, void *to);       /* double: 0..1000                   */
rv_status rv_take_tristate(const rv_loader *l, const rv_node *node, void *to);   /* rv_tristate                       */

/* "must be .., is .." at the node. */
rv_status rv_take_wrong(const rv_loader *l, const rv_node *node, const char *must);
/* "\"mony\" is no kind: did you mean money?" at the node. */
rv_status rv_take_unknown(const rv_loader *l, const rv_node *node, const char *text, const char *what, const char *const *words, size_t n);

/* One property of the schema: everything but its key.  Follows "$ref". */
rv_status rv_take_field(const rv_loader *l, const rv_node *node, rv_field *field);
/* Defaults that depend on the kind, and what must fit together. */
rv_status rv_finish_field(const rv_loader *l, const rv_node *node, rv_field *field);
#endif
