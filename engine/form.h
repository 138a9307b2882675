/* form.h - a schema's fields as a constraint. */
#ifndef RV_ENGINE_FORM_H
#define RV_ENGINE_FORM_H
#include "engine/rvconstraint.h"
#include "extract/schema.h"

/* What a value of that kind may look like under RV_GRAMMAR_STRICT: a pattern as rv_key has it; NULL: any text. */
const char *rv_form_pattern(rv_value_kind kind);

/* The key of a field. `strict`: every kind in its own form, whatever the field says. */
rv_key rv_form_key(const rv_schema *schema, uint32_t field, bool strict);

/* The constraint of all fields (part < 0), or of schema->parts[part]. */
rv_status rv_form_new(const rv_tokenizer *t, const rv_schema *schema, int32_t part, bool strict, rv_constraint **out, rv_error *err);
#endif
