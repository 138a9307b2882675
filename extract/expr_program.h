/* expr_program.h - a compiled expression: steps in postfix order. */
#ifndef RV_EXTRACT_EXPR_PROGRAM_H
#define RV_EXTRACT_EXPR_PROGRAM_H
#include "extract/expr.h"

enum { RV_PROGRAM_STEPS = 128 };

typedef enum rv_op {
    RV_OP_NONE, RV_OP_NUMBER, RV_OP_FIELD,
    RV_OP_PRESENT, RV_OP_ABSENT, RV_OP_VALID, RV_OP_COUNT, RV_OP_FILLED, RV_OP_SUM, RV_OP_SUM_FILLED, RV_OP_OR_ZERO, RV_OP_SUM_PRODUCT,
    RV_OP_FIRST, RV_OP_LAST, RV_OP_EARLIEST, RV_OP_LATEST,
    RV_OP_AMBIGUOUS, RV_OP_IS, RV_OP_CONTAINS, RV_OP_DIGITS_END, RV_OP_POSTCODE_STATE,        /* of fields */
    RV_OP_WORDS, RV_OP_TEXT_KNOWN, RV_OP_BALANCE_BREAKS, RV_OP_BALANCE_ROWS, RV_OP_TODAY, RV_OP_LINES,          /* of the record */
    RV_OP_NEGATE, RV_OP_NOT, RV_OP_ABS, RV_OP_GST_OF,                                         /* of one operand */
    RV_OP_ADD, RV_OP_SUBTRACT, RV_OP_MULTIPLY, RV_OP_DIVIDE, RV_OP_MIN, RV_OP_MAX,            /* of two */
    RV_OP_LESS, RV_OP_LESS_EQUAL, RV_OP_GREATER, RV_OP_GREATER_EQUAL, RV_OP_EQUAL, RV_OP_NOT_EQUAL, RV_OP_AND, RV_OP_OR
} rv_op;

typedef struct rv_expr_step {
    rv_op       op;
    int32_t     field[2];              /* -1: the schema has no such key                                */
    int64_t     value;
    const char *text;                  /* into the source                                               */
    size_t      bytes;
} rv_expr_step;

typedef struct rv_program { uint32_t n; rv_expr_step steps[RV_PROGRAM_STEPS]; } rv_program;

static inline bool rv_op_has_field(rv_op op, int which) {
    if (which) return op == RV_OP_SUM_PRODUCT || op == RV_OP_DIGITS_END;
    return op >= RV_OP_FIELD && op <= RV_OP_POSTCODE_STATE;
}

rv_status rv_expr_compile(const rv_schema *schema, const char *text, bool strict, rv_program *out, rv_unit *unit, rv_error *err);
#endif
