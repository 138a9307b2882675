/* synth_shape.c - see synth_shape.h. */
#include "tools/synth_shape.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tools/files.h"

void shape_drop(const char *folder) {
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..")) unlinkat(dirfd(d), e->d_name, 0);
    if (d) closedir(d);
    rmdir(folder);
}

rv_status shape_make(const char *shape, char *folder, size_t bytes, rv_error *err) {
    const char *temporary = getenv("TMPDIR");
    rv_synth_options o = { .size = sizeof o, .shape = shape, .sparse = 1 };
    int n = snprintf(folder, bytes, "%s/rvengine-%s-XXXXXX", temporary && *temporary ? temporary : access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp", shape);
    if (n < 0 || (size_t)n >= bytes) return fail(err, RV_ERR_IO, "TMPDIR: its path is too long");
    if (!mkdtemp(folder)) return fail(err, RV_ERR_IO, "%s: cannot make the folder: %s (is TMPDIR right?)", folder, strerror(errno));
    rv_status st = rv_synthesise(folder, &o, NULL, err);
    if (st) shape_drop(folder);
    return st;
}
