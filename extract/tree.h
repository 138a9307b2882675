/* tree.h - a small JSON file as a tree in which every value knows its line.
 *
 * The one idea: schema and rule files are written by people, so what is wrong in one is said with line and path; a parser
 * that only keeps values cannot do that.  Reads through engine/base/json.h.
 */
#ifndef RV_EXTRACT_TREE_H
#define RV_EXTRACT_TREE_H
#include "engine/base/json.h"
#include "extract/pool.h"

enum { RV_TREE_BYTES = 1 << 20, RV_TREE_KEYS = 1000 };     /* of a file; of one object */

typedef struct rv_node {
    rv_json_token         type;       /* OBJECT, ARRAY, STRING, NUMBER, TRUE, FALSE or NULL             */
    const char           *key;        /* in its object; else NULL                                       */
    const char           *text;       /* STRING: decoded; NUMBER: as written; else NULL.  No NUL inside */
    size_t                bytes;
    uint32_t              line;       /* from 1                                                         */
    uint32_t              n;          /* children                                                       */
    const struct rv_node *parent;
    struct rv_node       *first, *last, *next;
} rv_node;

typedef struct rv_tree { const char *file; rv_node *root; rv_pool pool; } rv_tree;

/* Errors (RV_ERR_FORMAT): "x.json: line 3: not valid JSON: a comma or } was expected"; a key twice, too large. */
rv_status rv_tree_parse(const char *file, const char *text, size_t bytes, rv_tree *out, rv_error *err);
void      rv_tree_free(rv_tree *tree);

const rv_node *rv_node_get(const rv_node *object, const char *key);     /* NULL: no object, no such key */
/* RV_ERR_FORMAT "x.json: line 12: /properties/TOTAL/x-kind: ..". */
rv_status rv_node_fail(const rv_tree *tree, const rv_node *node, rv_error *err, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
const char *rv_node_type(const rv_node *node);                          /* "an object", "a string", ..  */
#endif
