/* locale.h - numbers in texts that are data, as in C: 1.5 in every locale that a program has set, never 1,5.
 *
 * The one idea: a thread takes C's own locale for as long as it writes or reads such a text; the program's, and its other
 * threads', stay as they are.  rv_string_addf does so by itself.
 */
#ifndef RV_BASE_LOCALE_H
#define RV_BASE_LOCALE_H
#include <locale.h>
#include <stddef.h>

typedef struct rv_locale { locale_t c, was; } rv_locale;

/* Pairs, on one thread.  Costs no memory with glibc and musl; where the locale cannot be made, nothing changes. */
rv_locale rv_locale_enter(void);
void      rv_locale_leave(rv_locale locale);

/* strtod and snprintf inside such a pair. */
double rv_number(const char *text, char **end);
int    rv_print(char *out, size_t bytes, const char *format, ...) __attribute__((format(printf, 3, 4)));
#endif
