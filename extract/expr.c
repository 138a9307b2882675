/* expr.c - rules' expressions to a postfix program: see expr.h, and expr_run.c for what its steps do. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "extract/expr_program.h"
#include "extract/similar.h"

enum { MOST_DEPTH = 32 };

typedef struct parser {
    const rv_schema *schema;
    const char      *text, *at;
    bool             strict;
    int              depth;
    rv_program      *program;
    rv_unit          unit;             /* of what was compiled last                                      */
    rv_error        *err;
} parser;

static rv_status wrong(parser *p, const char *what) {
    return rv_fail(p->err, RV_ERR_FORMAT, "not an expression: %s (character %zu)", what, (size_t)(p->at - p->text) + 1);
}

static void blanks(parser *p) { while (*p->at == ' ') p->at++; }

static bool take(parser *p, const char *symbol) {
    size_t n = strlen(symbol);
    blanks(p);
    if (strncmp(p->at, symbol, n) != 0) return false;
    if (isalpha((uint8_t)symbol[0]) && (isalnum((uint8_t)p->at[n]) || p->at[n] == '_')) return false;
    p->at += n;
    return true;
}

static rv_status emit(parser *p, rv_expr_step step) {
    if (p->program->n == RV_PROGRAM_STEPS) return wrong(p, "too long");
    p->program->steps[p->program->n++] = step;
    return RV_OK;
}

static rv_status parse_or(parser *p);

/* ---- operands -------------------------------------------------------------------------------- */

/* A whole number of anything, or cents: "3", "2c", "$82.50". */
static rv_status parse_number(parser *p) {
    bool dollars = *p->at == '$';
    int64_t value = 0;
    size_t n = 0;
    if (dollars) p->at++;
    for (; isdigit((uint8_t)*p->at); p->at++) {
        if (++n > 12) return wrong(p, "a number with too many digits");
        value = value * 10 + (*p->at - '0');
    }
    if (n == 0) return wrong(p, "digits were expected");
    p->unit = RV_UNIT_NUMBER;
    if (dollars) {
        value *= 100;
        if (*p->at == '.') {
            if (!isdigit((uint8_t)p->at[1]) || !isdigit((uint8_t)p->at[2])) return wrong(p, "two decimals were expected");
            value += (p->at[1] - '0') * 10 + (p->at[2] - '0');
            p->at += 3;
        }
        p->unit = RV_UNIT_CENTS;
    } else if (*p->at == 'c' && !isalnum((uint8_t)p->at[1])) {
        p->at++;
        p->unit = RV_UNIT_CENTS;
    }
    return emit(p, (rv_expr_step){ .op = RV_OP_NUMBER, .value = value });
}

static rv_status parse_key(parser *p, int32_t *field) {
    char key[80];
    size_t n = 0;
    blanks(p);
    const char *start = p->at;
    while (isupper((uint8_t)*p->at) || isdigit((uint8_t)*p->at) || *p->at == '_') {
        if (n == sizeof key - 1) return wrong(p, "a key that is too long");
        key[n++] = *p->at++;
    }
    key[n] = '\0';
    if (n == 0 || isdigit((uint8_t)key[0])) return wrong(p, "the key of a field was expected");
    *field = p->schema ? rv_schema_field(p->schema, key) : -1;
    if (*field < 0 && p->schema && !p->strict) *field = rv_schema_find(p->schema, key, n);
    if (*field < 0 && p->strict) {
        const char *names[256];
        uint32_t many = p->schema->n_fields < 256 ? p->schema->n_fields : 256;
        for (uint32_t i = 0; i < many; i++) names[i] = p->schema->fields[i].key;
        const char *near = rv_nearest(key, names, many);
        return rv_fail(p->err, RV_ERR_FORMAT, "\"%s\" is no field of this schema%s%s%s (character %zu)", key, near ? ": did you mean " : "",
                       near ? near : "", near ? "?" : "", (size_t)(start - p->text) + 1);
    }
    return RV_OK;
}

static rv_unit unit_of(const parser *p, int32_t field) {
    if (field < 0) return RV_UNIT_NUMBER;
    switch (p->schema->fields[field].kind) {
    case RV_KIND_MONEY: return RV_UNIT_CENTS;
    case RV_KIND_DATE: case RV_KIND_DATE_RANGE: return RV_UNIT_DAYS;
    case RV_KIND_BOOL: return RV_UNIT_TRUTH;
    default: return RV_UNIT_NUMBER;
    }
}

static rv_status parse_quoted(parser *p, rv_expr_step *step) {
    blanks(p);
    if (*p->at != '"') return wrong(p, "a text in quotes was expected");
    const char *start = ++p->at, *end = strchr(start, '"');
    if (!end) return wrong(p, "a text that never ends");
    if (end == start || end - start > 200) return wrong(p, "a text of 1 to 200 bytes was expected");
    step->text = start;
    step->bytes = (size_t)(end - start);
    p->at = end + 1;
    return RV_OK;
}

/* ARGS: k a key, t a text, x an expression. */
static const struct function { const char *name, *args; rv_op op; rv_unit unit; } functions[] = {
    { "present", "k", RV_OP_PRESENT, RV_UNIT_TRUTH },        { "absent", "k", RV_OP_ABSENT, RV_UNIT_TRUTH },
    { "valid", "k", RV_OP_VALID, RV_UNIT_TRUTH },            { "count", "k", RV_OP_COUNT, RV_UNIT_NUMBER },
    { "filled", "k", RV_OP_FILLED, RV_UNIT_NUMBER },         { "sum", "k", RV_OP_SUM, RV_UNIT_CENTS },
    { "sum_filled", "k", RV_OP_SUM_FILLED, RV_UNIT_CENTS },  { "or_zero", "k", RV_OP_OR_ZERO, RV_UNIT_CENTS },
    { "earliest", "k", RV_OP_EARLIEST, RV_UNIT_DAYS },       { "latest", "k", RV_OP_LATEST, RV_UNIT_DAYS },
    { "sum_product", "kk", RV_OP_SUM_PRODUCT, RV_UNIT_CENTS }, { "abs", "x", RV_OP_ABS, RV_UNIT_NUMBER },
    { "min", "xx", RV_OP_MIN, RV_UNIT_NUMBER },              { "max", "xx", RV_OP_MAX, RV_UNIT_NUMBER },
    { "first", "k", RV_OP_FIRST, RV_UNIT_DAYS },             { "last", "k", RV_OP_LAST, RV_UNIT_DAYS },
    { "ambiguous", "k", RV_OP_AMBIGUOUS, RV_UNIT_TRUTH },    { "is", "kt", RV_OP_IS, RV_UNIT_TRUTH },
    { "contains", "kt", RV_OP_CONTAINS, RV_UNIT_TRUTH },     { "words", "t", RV_OP_WORDS, RV_UNIT_TRUTH },
    { "digits_end", "kk", RV_OP_DIGITS_END, RV_UNIT_TRUTH }, { "gst_of", "x", RV_OP_GST_OF, RV_UNIT_CENTS },
    { "balance_breaks", "", RV_OP_BALANCE_BREAKS, RV_UNIT_NUMBER }, { "balance_rows", "", RV_OP_BALANCE_ROWS, RV_UNIT_NUMBER },
    { "text_known", "", RV_OP_TEXT_KNOWN, RV_UNIT_TRUTH },
    { "today", "", RV_OP_TODAY, RV_UNIT_DAYS },              { "lines", "", RV_OP_LINES, RV_UNIT_NUMBER },
    { "postcode_state", "k", RV_OP_POSTCODE_STATE, RV_UNIT_TRUTH },
};
enum { FUNCTIONS = sizeof functions / sizeof *functions };

static rv_status parse_call(parser *p) {
    char name[32];
    size_t n = 0;
    const char *start = p->at;
    while ((islower((uint8_t)*p->at) || *p->at == '_') && n < sizeof name - 1) name[n++] = *p->at++;
    name[n] = '\0';
    const struct function *f = NULL;
    for (int i = 0; i < FUNCTIONS && !f; i++)
        if (strcmp(functions[i].name, name) == 0) f = &functions[i];
    if (!f) {
        const char *names[FUNCTIONS];
        for (int i = 0; i < FUNCTIONS; i++) names[i] = functions[i].name;
        const char *near = rv_nearest(name, names, FUNCTIONS);
        return rv_fail(p->err, RV_ERR_FORMAT, "\"%s\" is no function%s%s%s (character %zu)", name, near ? ": did you mean " : "",
                       near ? near : "", near ? "?" : "", (size_t)(start - p->text) + 1);
    }
    if (!take(p, "(")) return wrong(p, "( was expected");
    rv_expr_step step = { .op = f->op, .field = { -1, -1 } };
    rv_unit unit = f->unit;
    for (int i = 0, keys = 0; f->args[i]; i++) {
        rv_status st = RV_OK;
        if (i && !take(p, ",")) return wrong(p, "a comma was expected");
        if (f->args[i] == 'k') st = parse_key(p, &step.field[keys++]);
        else if (f->args[i] == 't') st = parse_quoted(p, &step);
        else if ((st = parse_or(p)) == RV_OK && unit == RV_UNIT_NUMBER) unit = p->unit;
        if (st) return st;
    }
    if (!take(p, ")")) return wrong(p, ") was expected");
    p->unit = unit;
    return emit(p, step);
}

static rv_status parse_operand(parser *p) {
    rv_status st;
    blanks(p);
    char c = *p->at;
    if (c == '(') {
        p->at++;
        if ((st = parse_or(p))) return st;
        return take(p, ")") ? RV_OK : wrong(p, ") was expected");
    }
    if (c == '-') {
        p->at++;
        if (++p->depth > MOST_DEPTH) return wrong(p, "nested too deeply");
        st = parse_operand(p);
        p->depth--;
        return st ? st : emit(p, (rv_expr_step){ .op = RV_OP_NEGATE });
    }
    if (isdigit((uint8_t)c) || c == '$') return parse_number(p);
    if (take(p, "true") || take(p, "false")) {
        p->unit = RV_UNIT_TRUTH;
        return emit(p, (rv_expr_step){ .op = RV_OP_NUMBER, .value = p->at[-2] == 'u' });
    }
    if (islower((uint8_t)c)) return parse_call(p);
    if (!isupper((uint8_t)c)) return wrong(p, c ? "a value was expected" : "it ends too early");
    rv_expr_step step = { .op = RV_OP_FIELD };
    if ((st = parse_key(p, &step.field[0]))) return st;
    p->unit = unit_of(p, step.field[0]);
    return emit(p, step);
}

/* ---- operators, from the tightest to the loosest ---------------------------------------------- */

static rv_status parse_product(parser *p) {
    rv_status st = parse_operand(p);
    while (st == RV_OK) {
        rv_op op = take(p, "*") ? RV_OP_MULTIPLY : take(p, "/") ? RV_OP_DIVIDE : RV_OP_NONE;
        if (!op) return RV_OK;
        rv_unit left = p->unit;
        if ((st = parse_operand(p)) == RV_OK) st = emit(p, (rv_expr_step){ .op = op });
        if (left != RV_UNIT_NUMBER) p->unit = left;
    }
    return st;
}

static rv_status parse_sum(parser *p) {
    rv_status st = parse_product(p);
    while (st == RV_OK) {
        rv_op op = take(p, "+") ? RV_OP_ADD : take(p, "-") ? RV_OP_SUBTRACT : RV_OP_NONE;
        if (!op) return RV_OK;
        rv_unit left = p->unit;
        if ((st = parse_product(p)) == RV_OK) st = emit(p, (rv_expr_step){ .op = op });
        if (left != RV_UNIT_NUMBER) p->unit = left;
    }
    return st;
}

static rv_status parse_comparison(parser *p) {
    static const struct { const char *symbol; rv_op op; } signs[] = {
        { "<=", RV_OP_LESS_EQUAL }, { ">=", RV_OP_GREATER_EQUAL }, { "!=", RV_OP_NOT_EQUAL }, { "==", RV_OP_EQUAL },
        { "=", RV_OP_EQUAL }, { "<", RV_OP_LESS }, { ">", RV_OP_GREATER },
    };
    rv_status st = parse_sum(p);
    for (size_t i = 0; st == RV_OK && i < sizeof signs / sizeof *signs; i++) {
        if (!take(p, signs[i].symbol)) continue;
        if ((st = parse_sum(p)) == RV_OK) st = emit(p, (rv_expr_step){ .op = signs[i].op });
        p->unit = RV_UNIT_TRUTH;
        break;
    }
    return st;
}

static rv_status parse_not(parser *p) {
    if (!take(p, "not")) return parse_comparison(p);
    if (++p->depth > MOST_DEPTH) return wrong(p, "nested too deeply");
    rv_status st = parse_not(p);
    p->depth--;
    p->unit = RV_UNIT_TRUTH;
    return st ? st : emit(p, (rv_expr_step){ .op = RV_OP_NOT });
}

static rv_status parse_and(parser *p) {
    rv_status st = parse_not(p);
    while (st == RV_OK && take(p, "and"))
        if ((st = parse_not(p)) == RV_OK) st = emit(p, (rv_expr_step){ .op = RV_OP_AND });
    return st;
}

static rv_status parse_or(parser *p) {
    if (++p->depth > MOST_DEPTH) return wrong(p, "nested too deeply");
    rv_status st = parse_and(p);
    while (st == RV_OK && take(p, "or"))
        if ((st = parse_and(p)) == RV_OK) st = emit(p, (rv_expr_step){ .op = RV_OP_OR });
    p->depth--;
    return st;
}

rv_status rv_expr_compile(const rv_schema *schema, const char *text, bool strict, rv_program *out, rv_unit *unit, rv_error *err) {
    parser p = { .schema = schema, .text = text, .at = text, .strict = strict, .program = out, .err = err };
    out->n = 0;
    rv_status st = parse_or(&p);
    blanks(&p);
    if (st == RV_OK && *p.at) st = wrong(&p, "something follows its end");
    if (unit) *unit = p.unit;
    return st;
}

rv_status rv_expr_check(const rv_schema *schema, const char *text, bool strict, rv_error *err) {
    rv_program program;
    return rv_expr_compile(schema, text, strict, &program, NULL, err);
}

uint32_t rv_expr_fields(const rv_schema *schema, const char *text, uint32_t *fields, uint32_t capacity) {
    rv_program program;
    uint32_t n = 0;
    if (rv_expr_compile(schema, text, false, &program, NULL, NULL)) return 0;
    for (uint32_t i = 0; i < program.n; i++) {
        for (int j = 0; j < 2; j++) {
            int32_t field = program.steps[i].field[j];
            if (field < 0 || !rv_op_has_field(program.steps[i].op, j)) continue;
            bool seen = false;
            for (uint32_t k = 0; k < n; k++) seen = seen || fields[k] == (uint32_t)field;
            if (!seen && n < capacity) fields[n++] = (uint32_t)field;
        }
    }
    return n;
}

rv_unit rv_expr_unit(const rv_schema *schema, const char *text) {
    rv_program program;
    rv_unit unit = RV_UNIT_NUMBER;
    return rv_expr_compile(schema, text, false, &program, &unit, NULL) ? RV_UNIT_NUMBER : unit;
}
