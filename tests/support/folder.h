/* folder.h - scratch folders and files for a test, and what it checks about an error. */
#ifndef RV_TESTS_FOLDER_H
#define RV_TESTS_FOLDER_H
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"

/* The folder of that name of this test program: programs may run at the same time. */
static inline const char *folder_path(char path[1024], const char *name) {
    snprintf(path, 1024, "%s/%s.%s", RV_TEST_TMP, program_invocation_short_name, name);
    return path;
}

/* Makes a folder, or removes whatever files an earlier run left in it. */
static inline void folder_empty(const char *path) {
    mkdir(path, 0755);
    DIR *d = opendir(path);
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        char file[4096];
        snprintf(file, sizeof file, "%s/%s", path, e->d_name);
        unlink(file);
    }
    closedir(d);
}

/* folder_path, made and empty. */
static inline const char *folder_new(char path[1024], const char *name) {
    folder_empty(folder_path(path, name));
    return path;
}

/* How many files and folders are in it, and the name of one of them (`last` may be NULL); -1: there is no such folder. */
static inline int folder_count(const char *path, char last[256]) {
    int n = 0;
    DIR *d = opendir(path);
    if (!d) return -1;
    for (struct dirent *e; (e = readdir(d)) != NULL;) {
        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0) continue;
        n++;
        if (last) snprintf(last, 256, "%s", e->d_name);
    }
    closedir(d);
    return n;
}

static inline void folder_write(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, bytes, f), bytes);
    assert_int_equal(fclose(f), 0);
}

static inline void folder_write_text(const char *folder, const char *name, const char *text) {
    folder_write(folder, name, text, strlen(text));
}

static inline void folder_remove(const char *folder, const char *name) {
    char path[2048];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    assert_int_equal(unlink(path), 0);
}

/* A call failed as it should: this code, and `part` somewhere in the message. */
static inline void expect_error(rv_status st, const rv_error *err, rv_status code, const char *part) {
    if (st == RV_OK) fail_msg("no error; expected %s with \"%s\"", rv_status_name(code), part);
    if (st != code || err->code != code || !strstr(err->message, part))
        fail_msg("expected %s with \"%s\", got %s (%s): %s", rv_status_name(code), part, rv_status_name(st),
                 rv_status_name(err->code), err->message);
}

static inline void expect_ok(rv_status st, const rv_error *err) {
    if (st) fail_msg("%s: %s", rv_status_name(st), err->message);
}
#endif
