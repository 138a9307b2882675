/* value_money.c - amounts, quantities and percentages, in integers. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "extract/value_read.h"

enum { MOST_DIGITS = 15 };             /* 10^15 dollars in cents is far inside int64_t */

typedef struct digits {
    int64_t whole;
    char    decimals[16];              /* as printed                                                    */
    size_t  n_decimals;
} digits;

/* Thousands: "1,234,567" or "1 234 567"; one kind of separator, groups of three.  None behind a leading 0: "0,500" is half of something. */
static const char *read_whole(const char **at, digits *d, char *separator) {
    size_t n = 0, group = 0;
    *separator = '\0';
    for (;; ++*at) {
        char c = **at;
        if (isdigit((uint8_t)c)) {
            if (++n > MOST_DIGITS) return "too many digits";
            d->whole = d->whole * 10 + (c - '0');
            group++;
        } else if ((c == ',' || c == ' ') && isdigit((uint8_t)(*at)[1]) && isdigit((uint8_t)(*at)[2]) && isdigit((uint8_t)(*at)[3]) &&
                   !isdigit((uint8_t)(*at)[4]) && n && group <= 3 && (n > 1 || d->whole) && (!*separator || (*separator == c && group == 3))) {
            *separator = c;
            group = 0;
        } else break;
    }
    if (*separator && group != 3) return "digits are not in groups of three";
    return NULL;
}

static const char *read_digits(const char **at, digits *d) {
    char separator;
    const char *start = *at, *why = read_whole(at, d, &separator);
    bool any = *at != start;
    if (why) return why;
    bool point = **at == '.' && isdigit((uint8_t)(*at)[1]);
    /* "12,00": with no point and no thousands, two digits behind a comma are decimals. */
    bool comma = any && !separator && **at == ',' && isdigit((uint8_t)(*at)[1]) && isdigit((uint8_t)(*at)[2]) && !isdigit((uint8_t)(*at)[3]);
    if (!any && !point) return "no amount in it";
    if (point || comma) {
        for (++*at; isdigit((uint8_t)**at); ++*at) {
            if (d->n_decimals == sizeof d->decimals - 1) return "too many decimals";
            d->decimals[d->n_decimals++] = **at;
        }
    } else if (**at == '.') ++*at;                        /* "12." */
    return NULL;
}

/* The first `places` decimals as an integer, the rest rounded half up; *exact: the rest was zeros. */
static int64_t scale(const digits *d, size_t places, bool *exact) {
    int64_t value = d->whole;
    for (size_t i = 0; i < places; i++) value = value * 10 + (i < d->n_decimals ? d->decimals[i] - '0' : 0);
    *exact = true;
    for (size_t i = places; i < d->n_decimals; i++) *exact = *exact && d->decimals[i] == '0';
    if (d->n_decimals > places && d->decimals[places] >= '5') value++;
    return value;
}

/* ---- money ----------------------------------------------------------------------------------- */

static const struct { const char *mark, *currency; } marks[] = {
    { "AU$", "AUD" }, { "A$", "AUD" }, { "AUD", "AUD" }, { "US$", "USD" }, { "USD", "USD" }, { "NZ$", "NZD" }, { "NZD", "NZD" },
    { "\xe2\x82\xac", "EUR" }, { "EUR", "EUR" }, { "\xc2\xa3", "GBP" }, { "GBP", "GBP" }, { "\xc2\xa5", "JPY" }, { "JPY", "JPY" },
    { "MYR", "MYR" }, { "RM", "MYR" }, { "SGD", "SGD" }, { "S$", "SGD" }, { "CAD", "CAD" }, { "HKD", "HKD" }, { "CNY", "CNY" },
    { "INR", "INR" }, { "CHF", "CHF" },
};

static void skip_currency(const char **at, rv_value *out) {
    for (bool again = true; again;) {
        again = false;
        rv_skip_blanks(at);
        for (size_t i = 0; i < sizeof marks / sizeof *marks && !again; i++) {
            size_t n = strlen(marks[i].mark);
            if (strncasecmp(*at, marks[i].mark, n) || (isalpha((uint8_t)marks[i].mark[n - 1]) && isalpha((uint8_t)(*at)[n]))) continue;
            memcpy(out->currency, marks[i].currency, 4);
            out->currency_assumed = false;
            *at += n;
            again = true;
        }
        if (!again && **at == '$') {
            out->currency_assumed = false;
            ++*at;
            again = true;
        }
    }
}

static bool skip_minus(const char **at) {
    static const char *const signs[] = { "-", "\xe2\x88\x92", "\xe2\x80\x93", "\xe2\x80\x94" };    /* minus, en and em dash */
    for (size_t i = 0; i < sizeof signs / sizeof *signs; i++) {
        size_t n = strlen(signs[i]);
        if (strncmp(*at, signs[i], n)) continue;
        *at += n;
        rv_skip_blanks(at);
        return true;
    }
    return false;
}

/* "(AUD)", "(USD)" behind an amount. */
static bool skip_bracketed_currency(const char **at, rv_value *out) {
    rv_value inside = *out;
    const char *end = *at;
    if (*end++ != '(') return false;
    const char *start = end;
    skip_currency(&end, &inside);
    if (end == start || *end != ')') return false;
    *out = inside;
    *at = end + 1;
    return true;
}

/* What may stand behind an amount. */
static void skip_tail(const char **at, rv_value *out) {
    static const char *const words[] = { "each",       "ea",          "per unit", "per item",  "per kg",       "/ea",           "/kg",
                                         "/each",      "inc gst",     "incl gst", "incl. gst", "inc. gst",     "including gst", "(inc gst)",
                                         "(incl gst)", "(incl. gst)", "ex gst",   "excl gst",  "excluding gst", "gst" };
    for (bool again = true; again;) {
        skip_currency(at, out);
        again = **at == '*' || **at == '#';                        /* till marks of taxed items */
        if (again) ++*at;
        else again = skip_bracketed_currency(at, out);
        for (size_t i = 0; i < sizeof words / sizeof *words && !again; i++) again = rv_skip_word(at, words[i]);
    }
}

static rv_sign_by read_sign_after(const char **at) {
    if (skip_minus(at)) return RV_SIGN_MINUS;
    if (rv_skip_word(at, "cr")) return RV_SIGN_CR;
    if (rv_skip_word(at, "dr") || rv_skip_word(at, "db")) return RV_SIGN_DR;
    return RV_SIGN_NONE;
}

/* "-USD 1,234.56": AUD has no prefix besides the dollar. */
static void amount_text(bool minus, const char *currency, uint64_t whole, const char *decimals, char *out, size_t capacity) {
    char plain[24], grouped[40];
    int n = snprintf(plain, sizeof plain, "%llu", (unsigned long long)whole), at = 0;
    for (int i = 0; i < n; i++) {
        if (i && (n - i) % 3 == 0) grouped[at++] = ',';
        grouped[at++] = plain[i];
    }
    grouped[at] = '\0';
    bool dollars = !currency || !*currency || strcmp(currency, "AUD") == 0;
    snprintf(out, capacity, "%s%.3s%s%s.%s", minus ? "-" : "", dollars ? "" : currency, dollars ? "$" : " ", grouped, decimals);
}

void rv_money_text(int64_t cents, const char *currency, char out[40]) {
    uint64_t size = cents < 0 ? 0 - (uint64_t)cents : (uint64_t)cents;
    char decimals[4];
    snprintf(decimals, sizeof decimals, "%02d", (int)(size % 100));
    amount_text(cents < 0, currency, size / 100, decimals, out, 40);
}

static bool is_negative(rv_sign_by by) { return by == RV_SIGN_MINUS || by == RV_SIGN_BRACKETS || by == RV_SIGN_DR; }

static void set_text(rv_pool *pool, const digits *d, rv_value *out) {
    char text[64];
    if (out->inexact) amount_text(is_negative(out->sign_by), out->currency, (uint64_t)d->whole, d->decimals, text, sizeof text);
    else rv_money_text(out->number, out->currency, text);
    const char *copy = rv_pool_text(pool, text, strlen(text));
    if (copy) out->text = copy;
}

void rv_read_money(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    const char *at = text;
    digits d = { 0 };
    bool exact, minus, brackets;
    (void)context;
    out->currency_assumed = true;
    if (!strcasecmp(text, "nil")) at = "0.00";
    minus = skip_minus(&at);
    brackets = *at == '(';
    if (brackets) at++;
    skip_currency(&at, out);
    if (!minus) minus = skip_minus(&at);
    if (*at == '+') at++;
    skip_currency(&at, out);
    if ((out->why = read_digits(&at, &d))) return;
    rv_skip_blanks(&at);
    out->sign_by = read_sign_after(&at);
    if (brackets) {
        if (*at != ')') {
            out->why = "a bracket that never closes";
            return;
        }
        at++;
    }
    skip_tail(&at, out);
    if (out->sign_by == RV_SIGN_NONE) out->sign_by = read_sign_after(&at);
    rv_skip_blanks(&at);
    if (*at == '.' && !at[1]) at++;
    if (*at) {
        out->why = "more than one amount, or letters in it";
        return;
    }
    if (minus) out->sign_by = RV_SIGN_MINUS;
    else if (brackets) out->sign_by = RV_SIGN_BRACKETS;
    out->number = scale(&d, 2, &exact);
    out->inexact = !exact;
    if (is_negative(out->sign_by)) out->number = -out->number;
    set_text(pool, &d, out);
}

/* ---- quantities and percentages ---------------------------------------------------------------- */

static void thousandths_text(rv_pool *pool, int64_t number, const char *unit, rv_value *out) {
    char text[48];
    uint64_t size = number < 0 ? 0 - (uint64_t)number : (uint64_t)number;
    int n = snprintf(text, sizeof text, "%s%llu.%03d", number < 0 ? "-" : "", (unsigned long long)(size / 1000), (int)(size % 1000));
    while (n > 0 && text[n - 1] == '0') text[--n] = '\0';
    if (n > 0 && text[n - 1] == '.') text[--n] = '\0';
    snprintf(text + n, sizeof text - (size_t)n, "%s", unit);
    const char *copy = rv_pool_text(pool, text, strlen(text));
    if (copy) out->text = copy;
}

static void finish_thousandths(rv_pool *pool, const digits *d, bool minus, const char *unit, rv_value *out) {
    bool exact;
    out->number = scale(d, 3, &exact);
    if (minus) out->number = -out->number;
    if (!exact) out->why = "more than three decimals";
    else thousandths_text(pool, out->number, unit, out);
}

/* A digit anchors it: "3", "3x", "x3", "3 EACH", "1.25 kg", "Qty: 3". */
void rv_read_quantity(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    static const char *const units[] = { "x",  "each", "ea",   "pcs",   "pc",     "pce",   "units", "unit", "items",  "item",
                                         "kg", "g",    "l",    "ml",    "litres", "litre", "m",     "hrs",  "hours",  "hour",
                                         "hr", "pk",   "pack", "packs", "box",    "boxes", "days",  "day",  "nights", "night",
                                         "km", "kms" };
    const char *at = text;
    digits d = { 0 };
    (void)context;
    if (rv_skip_word(&at, "qty") || rv_skip_word(&at, "quantity")) at += strspn(at, ".: ");
    bool minus = skip_minus(&at);
    if ((*at == 'x' || *at == 'X') && (isdigit((uint8_t)at[1]) || (at[1] == ' ' && isdigit((uint8_t)at[2])))) at++;
    rv_skip_blanks(&at);
    if ((out->why = read_digits(&at, &d))) {
        out->why = "no number in it";
        return;
    }
    rv_skip_blanks(&at);
    if (strncmp(at, "\xc3\x97", 2) == 0) at += 2;           /* the multiplication sign */
    for (size_t i = 0; i < sizeof units / sizeof *units && *at; i++)
        if (rv_skip_word(&at, units[i])) break;
    if (*at == '.' || *at == '@') at++;
    rv_skip_blanks(&at);
    if (*at) out->why = "not a bare quantity";
    else finish_thousandths(pool, &d, minus, "", out);
}

void rv_read_percent(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    const char *at = text;
    digits d = { 0 };
    (void)context;
    bool minus = skip_minus(&at);
    if (read_digits(&at, &d)) {
        out->why = "no number in it";
        return;
    }
    rv_skip_blanks(&at);
    if (*at == '%') at++;
    else if (rv_skip_word(&at, "percent") || rv_skip_word(&at, "per cent")) rv_skip_blanks(&at);
    if (*at) out->why = "not a percentage";
    else finish_thousandths(pool, &d, minus, "%", out);
}
