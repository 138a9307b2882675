/* value_number.c - Australian numbers with a shape: ABN, ACN, TFN, BSB, accounts, cards, phones.
 *
 * Check digits: ABN weights 10, 1, 3, .. 19 modulo 89 after 1 is taken from the first digit; ACN weights 8 .. 1, the last digit
 * completes to ten; TFN weights 1 4 3 7 5 8 6 9 10 modulo 11; cards Luhn.
 */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "extract/value_read.h"

static bool all_digits(const char *digits, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (!isdigit((uint8_t)digits[i])) return false;
    return true;
}

bool rv_abn_valid(const char *digits, size_t n) {
    static const int weights[] = { 10, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19 };
    if (n != 11 || !all_digits(digits, n) || digits[0] == '0') return false;
    int sum = -weights[0];
    for (int i = 0; i < 11; i++) sum += weights[i] * (digits[i] - '0');
    return sum % 89 == 0;
}

bool rv_acn_valid(const char *digits, size_t n) {
    if (n != 9 || !all_digits(digits, n)) return false;
    int sum = 0;
    for (int i = 0; i < 8; i++) sum += (8 - i) * (digits[i] - '0');
    return (10 - sum % 10) % 10 == digits[8] - '0';
}

bool rv_tfn_valid(const char *digits, size_t n) {
    static const int nine[] = { 1, 4, 3, 7, 5, 8, 6, 9, 10 }, eight[] = { 10, 7, 8, 4, 6, 3, 5, 1 };
    if ((n != 9 && n != 8) || !all_digits(digits, n)) return false;
    int sum = 0;
    for (size_t i = 0; i < n; i++) sum += (n == 9 ? nine : eight)[i] * (digits[i] - '0');
    return sum % 11 == 0;
}

bool rv_luhn_valid(const char *digits, size_t n) {
    if (n == 0 || !all_digits(digits, n)) return false;
    int sum = 0;
    for (size_t i = 0; i < n; i++) {
        int d = digits[n - 1 - i] - '0';
        if (i % 2) d = d * 2 > 9 ? d * 2 - 9 : d * 2;
        sum += d;
    }
    return sum % 10 == 0;
}

/* ---- reading ------------------------------------------------------------------------------------- */

enum { MOST_DIGITS = 24 };

/* Words in front: "ABN:", "A.B.N. No", .. */
static const char *skip_label(const char *text, const char *letters) {
    const char *at = text;
    for (const char *want = letters; *want; want++) {
        if (toupper((uint8_t)*at) != *want) return text;
        at++;
        if (*at == '.') at++;
    }
    if (isalpha((uint8_t)*at)) return text;
    at += strspn(at, " :.#-");
    if (strncasecmp(at, "no", 2) == 0 && !isalpha((uint8_t)at[2])) at += 2 + strspn(at + 2, " :.#");
    return at;
}

/* Digits between blanks, points and hyphens; the number of them, or -1 when something else is there. */
static int take_digits(const char *text, char out[MOST_DIGITS]) {
    int n = 0;
    for (const char *at = text; *at; at++) {
        if (isdigit((uint8_t)*at)) {
            if (n == MOST_DIGITS - 1) return -1;
            out[n++] = *at;
        } else if (!strchr(" -.", *at)) return -1;
    }
    out[n] = '\0';
    return n;
}

/* Digits in groups: "2333" is "NN NNN NNN NNN". */
static void grouped(rv_pool *pool, const char *digits, const char *groups, char between, rv_value *out) {
    char text[40];
    size_t n = 0;
    for (const char *g = groups; *g; g++) {
        if (n) text[n++] = between;
        for (int i = 0; i < *g - '0'; i++) text[n++] = *digits++;
    }
    const char *copy = rv_pool_text(pool, text, n);
    if (copy) out->text = copy;
}

void rv_read_abn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char digits[MOST_DIGITS];
    int n = take_digits(skip_label(text, "ABN"), digits);
    (void)context;
    if (n != 11) {
        out->why = n < 0 ? "an ABN has nothing but digits" : n < 11 ? "fewer than the 11 digits of an ABN" : "more than the 11 digits of an ABN";
        return;
    }
    grouped(pool, digits, "2333", ' ', out);
    if (!rv_abn_valid(digits, 11)) out->why = "the ABN's check digits do not fit";
}

void rv_read_acn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char digits[MOST_DIGITS];
    const char *at = skip_label(text, "ACN");
    int n = take_digits(at == text ? skip_label(text, "ARBN") : at, digits);
    (void)context;
    if (n != 9) {
        out->why = n < 0 ? "an ACN has nothing but digits" : "an ACN has 9 digits";
        return;
    }
    grouped(pool, digits, "333", ' ', out);
    if (!rv_acn_valid(digits, 9)) out->why = "the ACN's check digit does not fit";
}

void rv_read_tfn(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char digits[MOST_DIGITS];
    const char *at = skip_label(text, "TFN");
    if (strspn(at, "* ") && strlen(at) <= 16) return;      /* masked already: as good as it gets */
    int n = take_digits(at, digits);
    (void)context;
    if (n != 8 && n != 9) {
        out->why = "a tax file number has 8 or 9 digits";
        return;
    }
    grouped(pool, digits, n == 9 ? "333" : "233", ' ', out);
    if (!rv_tfn_valid(digits, (size_t)n)) out->why = "the tax file number's check digits do not fit";
}

void rv_read_bsb(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char digits[MOST_DIGITS];
    int n = take_digits(skip_label(text, "BSB"), digits);
    (void)context;
    if (n != 6) out->why = "a BSB has 6 digits";
    else grouped(pool, digits, "33", '-', out);
}

/* Kept as printed, leading zeros and masks too; between the parts one blank. */
void rv_read_account(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    size_t digits = 0, masks = 0, n = strlen(text);
    (void)pool, (void)context;
    for (size_t i = 0; i < n; i++) {
        if (isdigit((uint8_t)text[i])) digits++;
        else if (strchr("xX*", text[i])) masks++;
        else if (!strchr(" -", text[i])) {
            out->why = "an account number has nothing but digits";
            return;
        }
    }
    if (digits + masks < 4 || digits + masks > 20 || digits < 3) out->why = "an account number has 4 to 20 digits";
}

/* "XXXX-XXXX-XXXX-2707", "....1234", "Card xx5678", "2707": the last four digits are all that is kept. */
void rv_read_card(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    size_t n = strlen(text), digits = 0;
    char form[] = "**** 0000";
    (void)context;
    while (n && (text[n - 1] == ' ' || text[n - 1] == ')')) n--;
    while (digits < n && digits < 4 && isdigit((uint8_t)text[n - 1 - digits])) digits++;
    if (digits < 4) {
        out->why = "does not end in four digits";
        return;
    }
    memcpy(form + 5, text + n - 4, 4);
    const char *copy = rv_pool_text(pool, form, sizeof form - 1);
    if (copy) out->text = copy;
}

/* 02/03/04/07/08 and eight digits, 13 NN NN, 1300/1800 NNN NNN, eight digits without an area code, +61. */
void rv_read_phone(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    static const char *const labels[] = { "phone", "telephone", "tel", "ph", "mobile", "mob", "p", "t", "m", "fax" };
    char digits[MOST_DIGITS];
    int n = 0;
    const char *at = text;
    (void)context;
    for (size_t i = 0; i < sizeof labels / sizeof *labels; i++)
        if (rv_skip_word(&at, labels[i])) break;
    at += strspn(at, ".:# ");
    if (strncmp(at, "+61", 3) == 0) {
        at += 3;
        at += strspn(at, " ");
        if (strncmp(at, "(0)", 3) == 0) at += 3;
        digits[n++] = '0';
    }
    for (; *at; at++) {
        if (isdigit((uint8_t)*at) && n < MOST_DIGITS - 1) digits[n++] = *at;
        else if (!strchr(" -.()/", *at)) break;
    }
    digits[n] = '\0';
    if (*at) out->why = "a phone number has nothing but digits";
    else if (n == 10 && (strncmp(digits, "1300", 4) == 0 || strncmp(digits, "1800", 4) == 0)) grouped(pool, digits, "433", ' ', out);
    else if (n == 10 && strncmp(digits, "04", 2) == 0) grouped(pool, digits, "433", ' ', out);
    else if (n == 10 && digits[0] == '0' && strchr("2378", digits[1])) grouped(pool, digits, "244", ' ', out);
    else if (n == 6 && strncmp(digits, "13", 2) == 0) grouped(pool, digits, "222", ' ', out);
    else if (n == 8 && strchr("23456789", digits[0])) grouped(pool, digits, "44", ' ', out);
    else out->why = "not the form of an Australian phone number";
}
