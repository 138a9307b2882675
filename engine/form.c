/* form.c - what values of each kind may look like, and a schema's fields as keys. */
#include "engine/form.h"

#include <stdlib.h>

#define MONTH "(?:Jan(?:uary)?|Feb(?:ruary)?|Mar(?:ch)?|Apr(?:il)?|May|June?|July?|Aug(?:ust)?|Sep(?:t(?:ember)?)?|Oct(?:ober)?|Nov(?:ember)?|Dec(?:ember)?)"
#define DAY "(?:[0-2]?[0-9]|3[01])"
#define YEAR "(?:[0-9]{2}|[12][0-9]{3})"
/* Day first, year first, or with the month's name; the shapes that Australian paper shows. */
#define DATE "(?:" DAY "[/.\\-][01]?[0-9][/.\\-]" YEAR "|[12][0-9]{3}-[01][0-9]-[0-3][0-9]|" DAY "(?:st|nd|rd|th)?[ \\-]" MONTH "(?:,?[ \\-]" YEAR ")?|" \
             DAY "/[01]?[0-9]|" MONTH " " DAY ", " YEAR ")"
#define MONEY "-?(?:A?\\$|AUD )?(?:[0-9]{1,3}(?:,[0-9]{3}){1,3}|[0-9]{1,9})(?:\\.[0-9]{2})?(?: ?(?:CR|DR))?"
#define DECIMAL "-?[0-9]{1,9}(?:\\.[0-9]{1,4})?"
#define TIME "[0-2]?[0-9]:[0-5][0-9](?::[0-5][0-9])?(?: ?[AaPp][Mm])?"

const char *rv_form_pattern(rv_value_kind kind) {
    switch (kind) {
    case RV_KIND_BOOL: return "true|false";
    case RV_KIND_MONEY: return MONEY;
    case RV_KIND_QUANTITY: return DECIMAL;
    case RV_KIND_PERCENT: return DECIMAL " ?%?";
    case RV_KIND_DATE: return DATE;
    case RV_KIND_DATE_RANGE: return DATE "(?: (?:to|-) " DATE ")?";
    case RV_KIND_TIME: return TIME;
    case RV_KIND_ABN: return "[0-9]{2} ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}";
    case RV_KIND_ACN: return "[0-9]{3} ?[0-9]{3} ?[0-9]{3}";
    case RV_KIND_BSB: return "[0-9]{3}[ \\-]?[0-9]{3}";
    case RV_KIND_PHONE: return "(?:\\+|\\()?[0-9](?:[0-9]|[ )\\-][0-9(]?){5,14}[0-9]";
    case RV_KIND_EMAIL: return "[A-Za-z0-9_.+\\-]{1,64}@[A-Za-z0-9.\\-]{1,100}";
    default: return NULL;
    }
}

rv_key rv_form_key(const rv_schema *schema, uint32_t field, bool strict) {
    const rv_field *f = &schema->fields[field];
    rv_key key = { .size = sizeof key, .key = f->key, .list = f->list, .group = (uint32_t)(f->group + 1), .max_items = f->max_items,
                   .max_tokens = f->max_tokens };
    if (f->kind == RV_KIND_ENUM) {
        key.choices = f->choices.items;
        key.n_choices = f->choices.count;
    } else if (strict || f->grammar == RV_GRAMMAR_STRICT) key.pattern = rv_form_pattern(f->kind);
    return key;
}

rv_status rv_form_new(const rv_tokenizer *t, const rv_schema *schema, int32_t part, bool strict, rv_constraint **out, rv_error *err) {
    const rv_prompt_part *p = part < 0 ? NULL : &schema->parts[part];
    uint32_t n = p ? p->n_fields : schema->n_fields;
    rv_key *keys = calloc(n ? n : 1, sizeof *keys);
    if (!keys) return rv_fail_memory(err, "constraint");
    for (uint32_t i = 0; i < n; i++) keys[i] = rv_form_key(schema, p ? p->fields[i] : i, strict);
    rv_status st = rv_constraint_keys(t, keys, n, out, err);
    free(keys);
    return st;
}
