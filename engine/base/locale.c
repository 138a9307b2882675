/* locale.c - see locale.h. */
#include "engine/base/locale.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

rv_locale rv_locale_enter(void) {
    rv_locale l = { newlocale(LC_ALL_MASK, "C", (locale_t)0), (locale_t)0 };
    if (l.c) l.was = uselocale(l.c);
    return l;
}

void rv_locale_leave(rv_locale l) {
    if (!l.c) return;
    uselocale(l.was);
    freelocale(l.c);
}

double rv_number(const char *text, char **end) {
    const rv_locale l = rv_locale_enter();
    const double number = strtod(text, end);
    rv_locale_leave(l);
    return number;
}

int rv_print(char *out, size_t bytes, const char *format, ...) {
    const rv_locale l = rv_locale_enter();
    va_list args;
    va_start(args, format);
    const int n = vsnprintf(out, bytes, format, args);
    va_end(args);
    rv_locale_leave(l);
    return n;
}
