/* form.c - what values of each kind may look like, and a schema's fields as keys. */
#include "engine/form.h"

#include <stdlib.h>

/* ---- days; which month has how many, as check digits, is the checks' business: a form that knew would have four times the states ---- */

#define MONTH \
    "(?:J[Aa][Nn](?:[Uu][Aa][Rr][Yy])?|F[Ee][Bb](?:[Rr][Uu][Aa][Rr][Yy])?|M[Aa][Rr](?:[Cc][Hh])?|A[Pp][Rr](?:[Ii][Ll])?" \
    "|M[Aa][Yy]|J[Uu][Nn][Ee]?|J[Uu][Ll][Yy]?|A[Uu][Gg](?:[Uu][Ss][Tt])?" \
    "|S[Ee][Pp](?:[Tt](?:[Ee][Mm][Bb][Ee][Rr])?)?|O[Cc][Tt](?:[Oo][Bb][Ee][Rr])?|N[Oo][Vv](?:[Ee][Mm][Bb][Ee][Rr])?" \
    "|D[Ee][Cc](?:[Ee][Mm][Bb][Ee][Rr])?)"
#define WEEKDAY "(?:(?:Mon|Fri|Sun)(?:day)?|Tue(?:sday)?|Wed(?:nesday)?|Thu(?:rsday)?|Sat(?:urday)?|MON|TUE|WED|THU|FRI|SAT|SUN)"

#define DAY "(?:0?[1-9]|[12][0-9]|3[01])"
#define DAY2 "(?:0[1-9]|[12][0-9]|3[01])"
#define MONTH1 "(?:0?[1-9]|1[0-2])"
#define MONTH2 "(?:0[1-9]|1[0-2])"
#define YEAR4 "(?:19|20)[0-9]{2}"
#define YEAR "(?:" YEAR4 "|[0-9]{2})"

/* 05/03/2024, 5.3.24, 05-03-2024, 05 03 2024, 5/3; 2024-03-05; 20240305, 05032024. */
#define NUMBERED DAY "[/.\\- ]" MONTH1 "[/.\\- ]" YEAR
#define YEAR_FIRST YEAR4 "[/.\\-]" MONTH2 "[/.\\-]" DAY2
#define EIGHT "(?:" YEAR4 MONTH2 DAY2 "|" DAY2 MONTH2 YEAR4 ")"
/* 5 March 2024, 5th of March, 2024, 5-Mar-24, 05MAR24, 5 Mar '24, 5 March; March 5, 2024. */
#define TH "(?:[Ss][Tt]|[NnRr][Dd]|[Tt][Hh])?"
#define NAMED DAY "(?:" TH "(?: of |[ /\\-])|)" MONTH
#define BEHIND "(?:, ?|[ /\\-]'?|)" YEAR
#define NAME_FIRST MONTH " " DAY TH ",? " YEAR4

#define DATE "(?:" NUMBERED "|" DAY "/" MONTH1 "|(?:" WEEKDAY ",? )?(?:" NAMED "(?:" BEHIND ")?|" NAME_FIRST ")|" YEAR_FIRST "|" EIGHT ")"
/* The end has a year, and the begin that one if it has none; "1 - 28 February 2024". */
#define PERIOD "(?:" NUMBERED "|" NAMED "(?:" BEHIND ")?|" DAY ")(?: to | through | - | ?\xe2\x80\x93 ?)(?:" NUMBERED "|" NAMED BEHIND ")"

/* ---- amounts and numbers ---- */

#define CURRENCY "(?:(?:AU?)?\\$|AUD ?)?"
#define WHOLE "(?:[1-9][0-9]{0,2}(?:(?:,[0-9]{3}){1,2}|(?: [0-9]{3}){1,2})|[0-9]{1,7})"
#define AMOUNT "(?:" WHOLE "(?:\\.[0-9]{1,3})?|\\.[0-9]{2})"
#define MONEY "(?:(?:-?" CURRENCY "|" CURRENCY "-)" AMOUNT "(?: ?(?:CR|DR)|-)?|\\(" CURRENCY AMOUNT "\\))"
#define DECIMAL "-?(?:[1-9][0-9]{0,2}(?:,[0-9]{3}){1,2}|[0-9]{1,9})(?:\\.[0-9]{1,3})?"
#define TIME "(?:(?:[01]?[0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9])?|(?:0?[1-9]|1[0-2])(?::[0-5][0-9](?::[0-5][0-9])?)? ?[AaPp][Mm])"

const char *rv_form_pattern(rv_value_kind kind) {
    switch (kind) {
    case RV_KIND_BOOL: return "true|false";
    case RV_KIND_MONEY: return MONEY;
    case RV_KIND_QUANTITY: return DECIMAL;
    case RV_KIND_PERCENT: return DECIMAL " ?%?";
    case RV_KIND_DATE: return DATE;
    case RV_KIND_DATE_RANGE: return PERIOD;
    case RV_KIND_TIME: return TIME;
    case RV_KIND_ABN: return "[1-9][0-9] ?[0-9]{3} ?[0-9]{3} ?[0-9]{3}";
    case RV_KIND_ACN: return "[0-9]{3} ?[0-9]{3} ?[0-9]{3}";
    case RV_KIND_BSB: return "[0-9]{3}[ \\-]?[0-9]{3}";
    case RV_KIND_EMAIL: return "[A-Za-z0-9_.+\\-]+@(?:[A-Za-z0-9\\-]+\\.)+[A-Za-z]{2,}";
    default: return NULL;                                  /* of phone numbers too: paper groups them in more ways than a form should know */
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
