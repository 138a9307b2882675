/* value.h - what the text of one field means: money in cents, dates day first, numbers with check digits.
 *
 * The one idea: a value keeps three things apart - the raw text, which is never changed; the normal form, which is
 * what is written and compared; and the typed content, integers only.  Text that does not fit its kind is still there,
 * marked RV_VALUE_INVALID with a reason; nothing is dropped or repaired.
 *
 * Rules and sources: Australian Business Register (ABN, ACN check digits), GST Act s 9-90 (roundings); the formats are
 * those of Australian receipts, invoices and statements.  Everything here is a pure function: any thread.
 */
#ifndef RV_EXTRACT_VALUE_H
#define RV_EXTRACT_VALUE_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extract/pool.h"

#define RV_NOT_FOUND "NOT_FOUND"          /* what stands for an absent value in KEY: VALUE text, and for a missing cell of a list */

typedef enum rv_value_kind {
    RV_KIND_TEXT, RV_KIND_NAME, RV_KIND_ADDRESS, RV_KIND_ID, RV_KIND_ENUM, RV_KIND_BOOL,
    RV_KIND_MONEY, RV_KIND_QUANTITY, RV_KIND_PERCENT,
    RV_KIND_DATE, RV_KIND_DATE_RANGE, RV_KIND_TIME,
    RV_KIND_ABN, RV_KIND_ACN, RV_KIND_TFN, RV_KIND_BSB, RV_KIND_ACCOUNT, RV_KIND_CARD,
    RV_KIND_PHONE, RV_KIND_EMAIL, RV_KIND_URL,
    RV_KINDS
} rv_value_kind;

const char *rv_kind_name(rv_value_kind kind);                     /* "money", "date_range": as in schema files */
bool        rv_kind_find(const char *name, rv_value_kind *out);

/* A day of the proleptic Gregorian calendar; year 0: the text had none; all zero: no date. */
typedef struct rv_date { int16_t year; int8_t month, day; } rv_date;

bool    rv_date_exists(rv_date date);                       /* year 0 counts as a leap year             */
int32_t rv_date_days(rv_date date);                         /* since 1970-01-01; year must not be 0     */
rv_date rv_date_of_days(int32_t days);
bool    rv_date_parse_iso(const char *text, rv_date *out);  /* "2026-07-26" and nothing else            */
int     rv_date_compare(rv_date a, rv_date b);              /* < 0, 0, > 0; both with a year            */
int     rv_month_of(const char *word, size_t n);            /* 1..12 of its English name or what is usual for it, in any case; 0: none */

/* What settled which part of a date is the day. */
typedef enum rv_date_by { RV_DATE_BY_LOCALE, RV_DATE_BY_MONTH_NAME, RV_DATE_BY_ISO, RV_DATE_BY_ONLY_VALID, RV_DATE_BY_DOCUMENT } rv_date_by;

/* Where a sign comes from: "-5.00" or "5.00-", "(5.00)", "5.00 CR" (positive), "5.00 DR" (negative). */
typedef enum rv_sign_by { RV_SIGN_NONE, RV_SIGN_MINUS, RV_SIGN_BRACKETS, RV_SIGN_CR, RV_SIGN_DR } rv_sign_by;

typedef enum rv_value_state { RV_VALUE_ABSENT, RV_VALUE_VALID, RV_VALUE_INVALID } rv_value_state;

typedef struct rv_value {
    rv_value_kind        kind;
    rv_value_state state;
    const char    *raw;           /* as it was read, UTF-8; "" when absent                              */
    const char    *text;          /* normal form: "$1,234.56", "05/03/2024", "51 824 753 556", "true"; of an invalid value
                                     that form if its shape allows it, else the raw text, tidied; RV_NOT_FOUND when absent */
    const char    *why;           /* RV_VALUE_INVALID: what is wrong with it, static; else NULL         */
    int64_t        number;        /* money: cents; quantity and percent: thousandths; enum: index into its choices;
                                     bool: 0 or 1; time: minutes since midnight                         */
    rv_date        first, last;   /* date: `first`; date_range: both                                    */
    char           currency[4];   /* money: "AUD"                                                       */
    bool           currency_assumed;   /* money: no mark in the text                                    */
    bool           inexact;       /* money: more decimals than cents ("$1.899" a litre); `number` is rounded, half up */
    rv_sign_by     sign_by;       /* money                                                              */
    bool           ambiguous;     /* date: day and month could be exchanged (both <= 12 and different)  */
    bool           month_first;   /* date: "12/25/2023", which no other reading fits                    */
    rv_date_by     date_by;
} rv_value;

/* Texts of a list, owned by whoever made it. */
typedef struct rv_texts { const char *const *items; uint32_t count; } rv_texts;

/* What reading a value may depend on; NULL means all zero. */
typedef struct rv_value_context {
    rv_texts           choices;   /* enum                                                               */
    const rv_texts    *choice_aliases;   /* enum: other words for each of the choices; may be NULL      */
    rv_date            today;     /* for two-digit years; zero: the pivot is 2030, a fixed year, so that results do not
                                     change with the calendar                                           */
} rv_value_context;

/* Reads `bytes` bytes of `text` as `kind`.  Always fills *out (texts are the pool's); an empty text and the usual ways to
 * say "nothing there" (NOT_FOUND, N/A, none, null, not visible, ..) are RV_VALUE_ABSENT, but for one that is a choice of an enum, and "nil"
 * of an amount, which is 0. */
void rv_value_read(rv_pool *pool, rv_value_kind kind, const char *text, size_t bytes, const rv_value_context *context, rv_value *out);

/* The same value, by meaning: cents, day, digits; texts by their normal form.  Two absent values are the same. */
bool rv_value_same(const rv_value *a, const rv_value *b);

/* ---- the parts, for checks and for constrained decoding ---------------------------------------------------- */

/* `digits` must be 11, 9, 8 or 9 decimal digits; other bytes or lengths are false. */
bool rv_abn_valid(const char *digits, size_t n);
bool rv_acn_valid(const char *digits, size_t n);
bool rv_tfn_valid(const char *digits, size_t n);
bool rv_luhn_valid(const char *digits, size_t n);

/* "$1,234.56", "-$5.00": AUD has no prefix besides the dollar, others are written "USD 5.00". */
void rv_money_text(int64_t cents, const char *currency, char out[40]);

/* A copy in NFC: control characters and runs of blanks are one blank, none at the ends; bytes that are no UTF-8 are U+FFFD;
 * characters that reorder text (U+202A.., U+2066..) are dropped.  NULL: out of memory. */
char *rv_tidy(rv_pool *pool, const char *text, size_t bytes);

/* Whether `text` stands for "nothing there". */
bool rv_says_absent(const char *text, size_t bytes);

/* ---- privacy ----------------------------------------------------------------------------------------------- */

/* What a field holds; of a FILE's name only that it is one. */
typedef enum rv_sensitivity { RV_SENSITIVE_NOT, RV_SENSITIVE_TFN, RV_SENSITIVE_CARD, RV_SENSITIVE_ACCOUNT, RV_SENSITIVE_FILE } rv_sensitivity;

/* A copy of `text`, as long as it, in which every card number (13 to 19 digits that pass Luhn, however they are grouped) keeps its last
 * four digits and every tax file number (8 or 9 digits that pass its check, near the words) its last three: "**** **** ****
 * 2707", "*** *** 782".  Where `what` says that the field holds a number, all digits but the last three (of a card: four) are masked,
 * whatever they look like.  In the name of a file, numbers that no scheme's cards begin with stay (cameras name by the clock).
 * The caller frees it; NULL: out of memory.  *n_masked (may be NULL): how many. */
char *rv_mask(const char *text, size_t bytes, rv_sensitivity what, uint32_t *n_masked);
#endif
