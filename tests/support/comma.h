/* comma.h - locales in which numbers are not written as in C, made in the test's folder or found on this machine. */
#ifndef RV_TESTS_COMMA_H
#define RV_TESTS_COMMA_H
#include "tests/support/folder.h"

#include <locale.h>
#include <stdbool.h>

/* "de_DE" (a comma), "ps_AF" (two bytes): makes their UTF-8 locales where localedef does.  Before the first locale_set: what a process
 * has not found once it does not look for again. */
static inline void locale_make(const char *const *languages, size_t n) {
    char folder[1024], path[2048], command[4096];
    bool any = false;
    folder_new(folder, "locale");
    for (size_t i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s.UTF-8/LC_CTYPE", folder, languages[i]);
        snprintf(command, sizeof command, "localedef -i %s -f UTF-8 '%s/%s.UTF-8' >/dev/null 2>&1", languages[i], folder, languages[i]);
        if (access(path, R_OK) && system(command) < 0) return;     /* its exit code counts warnings too */
        any |= access(path, R_OK) == 0;
    }
    if (any) setenv("LOCPATH", folder, 1);
}

/* The program's from here on; false, and C's as before, where there is none of that name whose numbers are not written as in C. */
static inline bool locale_set(const char *language) {
    char name[64];
    snprintf(name, sizeof name, "%s.UTF-8", language);
    if (setlocale(LC_ALL, name) && strcmp(localeconv()->decimal_point, ".")) return true;
    setlocale(LC_ALL, "C");
    return false;
}
#endif
