/* value_date.c - days, periods and times of day, as Australians write them: the day first. */
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "extract/value_read.h"

enum { FIXED_PIVOT = 2030, FIRST_YEAR = 1900, LAST_YEAR = 2199 };

/* ---- the calendar ------------------------------------------------------------------------------ */

static bool is_leap(int year) { return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0); }

bool rv_date_exists(rv_date d) {
    static const int8_t days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
    if (d.month < 1 || d.month > 12 || d.day < 1 || d.day > days[d.month - 1] || d.year < 0) return false;
    return !(d.month == 2 && d.day == 29 && d.year && !is_leap(d.year));
}

/* Years that begin in March: leap days are at the end (as in H. Hinnant's civil calendar algorithms). */
int32_t rv_date_days(rv_date d) {
    int32_t year = d.year - (d.month <= 2), era = (year >= 0 ? year : year - 399) / 400, of_era = year - era * 400;
    int32_t of_year = (153 * (d.month + (d.month > 2 ? -3 : 9)) + 2) / 5 + d.day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

rv_date rv_date_of_days(int32_t days) {
    int32_t z = days + 719468, era = (z >= 0 ? z : z - 146096) / 146097, of_era = z - era * 146097;
    int32_t year = (of_era - of_era / 1460 + of_era / 36524 - of_era / 146096) / 365;
    int32_t of_year = of_era - (365 * year + year / 4 - year / 100), m = (5 * of_year + 2) / 153;
    int32_t month = m < 10 ? m + 3 : m - 9;
    return (rv_date){ (int16_t)(year + era * 400 + (month <= 2)), (int8_t)month, (int8_t)(of_year - (153 * m + 2) / 5 + 1) };
}

bool rv_date_parse_iso(const char *text, rv_date *out) {
    int y, m, d, n = 0;
    if (strspn(text, "0123456789-") != 10 || sscanf(text, "%4d-%2d-%2d%n", &y, &m, &d, &n) != 3 || n != 10 || text[10]) return false;
    *out = (rv_date){ (int16_t)y, (int8_t)m, (int8_t)d };
    return y > 0 && rv_date_exists(*out);
}

int rv_date_compare(rv_date a, rv_date b) {
    if (a.year != b.year) return a.year < b.year ? -1 : 1;
    if (a.month != b.month) return a.month < b.month ? -1 : 1;
    return (a.day > b.day) - (a.day < b.day);
}

/* ---- pieces of text: numbers and month names ------------------------------------------------- */

typedef struct piece {
    int  number;                       /* of digits; -1: a month name                                   */
    int  digits;                       /* how many there were                                           */
    int  month;                        /* of a name: 1..12                                              */
    char behind;                       /* what separates it from the next: '/', '-', '.', ' ', ',', 0   */
} piece;

enum { MOST_PIECES = 3 };

int rv_month_of(const char *word, size_t n) {
    static const char *const names[] = { "january", "february", "march",     "april",   "may",      "june",
                                         "july",    "august",   "september", "october", "november", "december" };
    if (n == 4 && strncasecmp(word, "sept", 4) == 0) return 9;
    for (int i = 0; n >= 3 && i < 12; i++)
        if ((n == 3 || n == strlen(names[i])) && strncasecmp(word, names[i], n) == 0) return i + 1;
    return 0;
}

static bool is_weekday(const char *word, size_t n) {
    static const char *const names[] = { "monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday" };
    if ((n == 4 && strncasecmp(word, "tues", 4) == 0) || (n == 5 && strncasecmp(word, "thurs", 5) == 0) ||
        (n == 4 && strncasecmp(word, "thur", 4) == 0))
        return true;
    for (int i = 0; n >= 3 && i < 7; i++)
        if ((n == 3 || n == strlen(names[i])) && strncasecmp(word, names[i], n) == 0) return true;
    return false;
}

static bool is_ordinal(const char *word, size_t n) {
    return n == 2 && (!strncasecmp(word, "st", 2) || !strncasecmp(word, "nd", 2) || !strncasecmp(word, "rd", 2) || !strncasecmp(word, "th", 2));
}

/* Blanks and separators; the strongest of them is kept. */
static char skip_between(const char **at) {
    char found = 0;
    for (; **at && strchr(" ,/.-'", **at); ++*at)
        if (!found || found == ' ' || (found == ',' && **at != ' ')) found = **at;
    return found;
}

/* "14:05", "2:05:33 PM", "T14:05:00Z", "at 2:05pm", "14:05 AEST", "14:05+10:00" behind a date. */
static bool is_time(const char *at) {
    static const char *const zones[] = { "aest", "aedt", "acst", "acdt", "awst", "utc", "gmt" };
    if (!rv_skip_word(&at, "at") && (*at == 'T' || *at == 't')) at++;
    size_t n = strspn(at, "0123456789");
    if (n < 1 || n > 2 || at[n] != ':' || !isdigit((uint8_t)at[n + 1])) return false;
    at += strspn(at, "0123456789:. ");
    bool zone = false;
    if (strspn(at, "aApP") == 1 && (!isalpha((uint8_t)at[1]) || strchr("mM", at[1]))) {                /* "p", "PM", "p.m." */
        at++;
        at += *at == '.';
        at += *at == 'm' || *at == 'M';
        at += strspn(at, ". ");
    }
    for (size_t i = 0; i < sizeof zones / sizeof *zones && !zone; i++) zone = rv_skip_word(&at, zones[i]);
    return strspn(at, "0123456789:.zZ+- ") == strlen(at);
}

static bool take_digits(const char **at, piece *p) {
    size_t n = strspn(*at, "0123456789");
    if (n > 8) return false;
    *p = (piece){ .number = atoi(*at), .digits = (int)n };
    *at += n;
    size_t letters = 0;
    while (isalpha((uint8_t)(*at)[letters])) letters++;
    if (is_ordinal(*at, letters)) *at += letters;
    return true;
}

/* Words in front that only announce a date: "Date:", "Issued on". */
static void skip_label(const char **at) {
    static const char *const words[] = { "invoice", "statement", "due", "issue", "issued", "tax", "date",
                                         "dated",   "on",        "of",  "the",   "as",     "at" };
    for (bool again = true; again;) {
        again = false;
        for (size_t i = 0; i < sizeof words / sizeof *words && !again; i++) again = rv_skip_word(at, words[i]);
        *at += strspn(*at, ": ");
    }
}

/* How many pieces; -1: something else is in the text. */
static int take_pieces(const char *text, piece *pieces) {
    int n = 0;
    const char *at = text;
    skip_label(&at);
    while (*at) {
        size_t letters = 0;
        if (n && is_time(at)) return n;
        while (isalpha((uint8_t)at[letters])) letters++;
        if (letters && (is_weekday(at, letters) || (letters == 2 && strncasecmp(at, "of", 2) == 0))) {
            at += letters;
            at += strspn(at, ".");
            skip_between(&at);
            continue;
        }
        if (n == MOST_PIECES) return -1;
        int month = letters ? rv_month_of(at, letters) : 0;
        if (letters && !month) return -1;
        if (letters) {
            pieces[n] = (piece){ .number = -1, .month = month };
            at += letters;
        } else if (!isdigit((uint8_t)*at) || !take_digits(&at, &pieces[n])) return -1;
        pieces[n++].behind = skip_between(&at);
        if (*at == '(' || *at == ')') return -1;
    }
    return n;
}

/* ---- one date ----------------------------------------------------------------------------------- */

static bool set_year(const piece *p, const rv_value_context *context, rv_date *d) {
    if (p->digits == 4 && p->number >= FIRST_YEAR && p->number <= LAST_YEAR) {
        d->year = (int16_t)p->number;
        return true;
    }
    if (p->digits != 2) return false;
    int pivot = context->today.year ? context->today.year + 1 : FIXED_PIVOT, century = pivot / 100 * 100;
    d->year = (int16_t)(century + p->number <= pivot ? century + p->number : century - 100 + p->number);
    return true;
}

static bool small(const piece *p) { return p->number >= 0 && p->digits <= 2; }

/* Two numbers, day and month in some order, the year known or 0. */
static const char *set_day_month(int first, int second, rv_date *d, rv_value *out) {
    rv_date day_first = { d->year, (int8_t)second, (int8_t)first }, month_first = { d->year, (int8_t)first, (int8_t)second };
    bool a = rv_date_exists(day_first), b = rv_date_exists(month_first);
    if (!a && !b) return "no such day in the calendar";
    *d = a ? day_first : month_first;
    out->date_by = a && b ? RV_DATE_BY_LOCALE : RV_DATE_BY_ONLY_VALID;
    out->ambiguous = a && b && first != second;
    out->month_first = !a;
    return NULL;
}

static const char *set_named(const piece *day, const piece *month, const piece *year, const rv_value_context *context, rv_date *d,
                             rv_value *out) {
    if (!small(day) || (year && !set_year(year, context, d))) return "not a date";
    d->month = (int8_t)month->month;
    d->day = (int8_t)day->number;
    out->date_by = RV_DATE_BY_MONTH_NAME;
    return rv_date_exists(*d) ? NULL : "no such day in the calendar";
}

/* "20240305", "05032024". */
static const char *set_eight(const piece *p, rv_date *d, rv_value *out) {
    rv_date iso = { (int16_t)(p->number / 10000), (int8_t)(p->number / 100 % 100), (int8_t)(p->number % 100) };
    if ((iso.year / 100 == 19 || iso.year / 100 == 20) && rv_date_exists(iso)) {
        *d = iso;
        out->date_by = RV_DATE_BY_ISO;
        return NULL;
    }
    int year = p->number % 10000;
    if (year < FIRST_YEAR || year > LAST_YEAR) return "not a date";
    d->year = (int16_t)year;
    return set_day_month(p->number / 1000000, p->number / 10000 % 100, d, out);
}

static const char *set_numbers(const piece *p, int n, const rv_value_context *context, rv_date *d, rv_value *out) {
    if (n == 1) return p[0].digits == 8 ? set_eight(p, d, out) : "not a date";
    if (n == 3 && p[0].digits == 4) {
        if (!small(&p[1]) || !small(&p[2]) || !set_year(&p[0], context, d)) return "not a date";
        d->month = (int8_t)p[1].number;
        d->day = (int8_t)p[2].number;
        out->date_by = RV_DATE_BY_ISO;
        return rv_date_exists(*d) ? NULL : "no such day in the calendar";
    }
    if (!small(&p[0]) || !small(&p[1]) || (n == 2 && p[0].behind == '.') || (n == 3 && !set_year(&p[2], context, d))) return "not a date";
    return set_day_month(p[0].number, p[1].number, d, out);
}

static const char *read_date(const char *text, const rv_value_context *context, rv_date *d, rv_value *out) {
    piece p[MOST_PIECES] = { { 0 } };
    int n = take_pieces(text, p);
    *d = (rv_date){ 0 };
    if (n < 1) return "not a date";
    int named = -1;
    for (int i = 0; i < n; i++) {
        if (p[i].number >= 0) continue;
        if (named >= 0) return "not a date";
        named = i;
    }
    if (named < 0) return set_numbers(p, n, context, d, out);
    if (n == 1) return "a month without a day";
    if (named == 2) return "not a date";
    if (named == 1 && n == 3 && p[0].digits == 4) return set_named(&p[2], &p[1], &p[0], context, d, out);     /* 2024-Mar-05 */
    return set_named(&p[named ? 0 : 1], &p[named], n == 3 ? &p[2] : NULL, context, d, out);
}

static int date_text(rv_date d, char *out, size_t capacity) {
    return d.year ? snprintf(out, capacity, "%02d/%02d/%04d", d.day, d.month, d.year) : snprintf(out, capacity, "%02d/%02d", d.day, d.month);
}

void rv_read_date(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    char form[16];
    out->why = read_date(text, context, &out->first, out);
    if (out->why) {
        out->first = (rv_date){ 0 };
        return;
    }
    const char *copy = rv_pool_text(pool, form, (size_t)date_text(out->first, form, sizeof form));
    if (copy) out->text = copy;
}

/* ---- periods ------------------------------------------------------------------------------------- */

static bool later_in_year(rv_date a, rv_date b) { return a.month != b.month ? a.month > b.month : a.day > b.day; }

/* "1 - 28 February 2024": month and year of the end. */
static bool read_begin(const char *text, const rv_value_context *context, rv_date end, rv_date *begin, rv_value *out) {
    piece p[MOST_PIECES] = { { 0 } };
    int n = take_pieces(text, p);
    if (n != 1 || !small(&p[0])) return !read_date(text, context, begin, out);
    *begin = (rv_date){ end.year, end.month, (int8_t)p[0].number };
    return rv_date_exists(*begin) && (end.year || begin->day <= end.day);
}

/* "15 Dec - 14 Jan 2024", "1 Dec 2023 - 5 Jan": an end without a year has that of the other, or the year beside it over New Year. */
static void share_year(rv_date *begin, rv_date *end) {
    const int step = later_in_year(*begin, *end);
    if (!begin->year && end->year) begin->year = (int16_t)(end->year - step);
    else if (begin->year && !end->year) end->year = (int16_t)(begin->year + step);
}

static bool read_ends(rv_pool *pool, const char *text, size_t left, const char *right, const rv_value_context *context, rv_value *out) {
    rv_value a = { 0 }, b = { 0 };
    char *begin = rv_pool_text(pool, text, left);
    if (!begin || read_date(right, context, &out->last, &b) || !read_begin(begin, context, out->last, &out->first, &a)) return false;
    share_year(&out->first, &out->last);
    if (!rv_date_exists(out->first) || !rv_date_exists(out->last)) return false;
    out->date_by = a.date_by > b.date_by ? a.date_by : b.date_by;
    out->ambiguous = a.ambiguous && b.ambiguous;          /* one end that is clear clears the other */
    return true;
}

/* "5-3-24" is a day, not the 5th to the 24th of March. */
static bool is_one_date(const char *text, const rv_value_context *context) {
    rv_value v = { 0 };
    rv_date d;
    return !read_date(text, context, &d, &v);
}

void rv_read_date_range(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    static const char *const marks[] = { " to ", " through ", " until ", " till ", "\xe2\x80\x93", "\xe2\x80\x94", " - ", "-" };
    const char *start = text;
    size_t tries = 0;
    while (rv_skip_word(&start, "from") || rv_skip_word(&start, "period") || rv_skip_word(&start, "statement")) start += strspn(start, ": ");
    out->why = "not a period: two dates were expected";
    for (size_t i = 0; i < sizeof marks / sizeof *marks && out->why; i++) {
        size_t n = strlen(marks[i]);
        if (strcmp(marks[i], "-") == 0 && is_one_date(start, context)) break;
        for (const char *at = start; (at = strcasestr(at, marks[i])) && out->why && tries < 32; at += n, tries++)
            if (at != start && read_ends(pool, start, (size_t)(at - start), at + n, context, out)) out->why = NULL;
    }
    if (out->why) {
        out->first = out->last = (rv_date){ 0 };
        return;
    }
    char form[40];
    int n = date_text(out->first, form, sizeof form);
    n += snprintf(form + n, sizeof form - (size_t)n, " - ");
    n += date_text(out->last, form + n, sizeof form - (size_t)n);
    const char *copy = rv_pool_text(pool, form, (size_t)n);
    if (copy) out->text = copy;
    if (out->first.year && rv_date_compare(out->first, out->last) > 0) out->why = "the period ends before it begins";
}

/* ---- time of day ---------------------------------------------------------------------------------- */

void rv_read_time(rv_pool *pool, const char *text, const rv_value_context *context, rv_value *out) {
    const char *at = text;
    int part[3] = { 0 }, n = 0;
    (void)context;
    out->why = "not a time of day";
    while (n < 3 && isdigit((uint8_t)*at)) {
        size_t digits = strspn(at, "0123456789");
        if (digits > 2) return;
        part[n++] = atoi(at);
        at += digits;
        if (n < 3 && (*at == ':' || *at == '.') && isdigit((uint8_t)at[1])) at++;
        else break;
    }
    rv_skip_blanks(&at);
    bool pm = rv_skip_word(&at, "pm") || rv_skip_word(&at, "p.m."), am = !pm && (rv_skip_word(&at, "am") || rv_skip_word(&at, "a.m."));
    if (*at || n == 0 || (n == 1 && !am && !pm) || part[1] > 59 || part[2] > 59) return;
    if ((am || pm) && (part[0] < 1 || part[0] > 12)) {
        if (!(pm && part[0] > 12 && part[0] < 24)) return;     /* "14:05 PM" says one thing twice */
        pm = false;
    }
    int hour = am || pm ? part[0] % 12 + (pm ? 12 : 0) : part[0];
    if (hour > 23) return;
    char form[32];
    int n_form = snprintf(form, sizeof form, "%02d:%02d", hour, part[1]);
    out->number = hour * 60 + part[1];
    out->why = NULL;
    const char *copy = rv_pool_text(pool, form, (size_t)n_form);
    if (copy) out->text = copy;
}
