/* small_model.c - see small_model.h. */
#include "tests/fuzz/small_model.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/rvengine.h"

static char root[64], model[80], cache[80];
static pid_t owner;

static void empty(const char *folder) {
    char path[512];
    DIR *d = opendir(folder);
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.' && snprintf(path, sizeof path, "%s/%s", folder, e->d_name) < (int)sizeof path) unlink(path);
    if (d) closedir(d);
    rmdir(folder);
}

static void remove_all(void) {
    if (getpid() != owner) return;       /* a child's end is not ours                            */
    empty(model);
    empty(cache);
    rmdir(root);
}

static void make(void) {
    rv_error err = { 0 };
    snprintf(root, sizeof root, "%s/rv_small.XXXXXX", access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    if (!mkdtemp(root)) perror(root), abort();
    snprintf(model, sizeof model, "%s/model", root);
    snprintf(cache, sizeof cache, "%s/cache", root);
    owner = getpid();
    atexit(remove_all);
    rv_synth_options o = { .size = sizeof o, .shape = RV_TEST_FUZZ_DATA "/small.json", .threads = 1 };
    if (mkdir(cache, 0755) || rv_synthesise(model, &o, NULL, &err)) fprintf(stderr, "%s: %s\n", model, err.message), abort();
}

const char *small_model(void) {
    if (!root[0]) make();
    return model;
}

const char *small_cache(void) {
    if (!root[0]) make();
    return cache;
}

void small_cache_file(char path[1024]) {
    DIR *d = opendir(small_cache());
    path[0] = '\0';
    for (struct dirent *e; d && (e = readdir(d));)
        if (e->d_name[0] != '.') snprintf(path, 1024, "%s/%s", cache, e->d_name);
    if (d) closedir(d);
    if (!path[0]) fprintf(stderr, "%s: holds no file\n", cache), abort();
}
