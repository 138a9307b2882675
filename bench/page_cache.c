/* page_cache.c - the files of a model and the system's page cache: see page_cache.h. */
#include "bench/page_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench/series.h"
#include "tools/files.h"

enum { READ_BYTES = 16 << 20 };

static rv_status fail_path(rv_error *err, const char *path, const char *doing) {
    int code = errno;
    return fail(err, code == ENOMEM ? RV_ERR_MEMORY : RV_ERR_IO, "%s: cannot %s: %s", path, doing, strerror(code));
}

static int by_name(const void *a, const void *b) {
    const char *const *x = a, *const *y = b;
    return strcmp(*x, *y);
}

static rv_status add_file(weight_files *files, const char *folder, const char *name, rv_error *err) {
    size_t n = strlen(folder) + strlen(name) + 2;
    char **grown = realloc(files->path, (files->n + 1) * sizeof *grown), *path = malloc(n);
    if (grown) files->path = grown;
    if (!grown || !path) {
        free(path);
        return fail(err, RV_ERR_MEMORY, "%s: out of memory", folder);
    }
    snprintf(path, n, "%s/%s", folder, name);
    struct stat st;
    files->path[files->n++] = path;
    if (stat(path, &st) != 0) return fail_path(err, path, "read");
    files->bytes += (uint64_t)st.st_size;
    return RV_OK;
}

rv_status weight_files_find(const char *folder, weight_files *out, rv_error *err) {
    weight_files files = { 0 };
    rv_status st = RV_OK;
    DIR *dir = opendir(folder);
    if (!dir) return fail_path(err, folder, "open");
    for (struct dirent *entry; st == RV_OK && (entry = readdir(dir));) {
        const char *dot = strrchr(entry->d_name, '.');
        if (dot && strcmp(dot, ".safetensors") == 0) st = add_file(&files, folder, entry->d_name, err);
    }
    closedir(dir);
    if (st == RV_OK && files.n) qsort(files.path, files.n, sizeof *files.path, by_name);
    if (st) weight_files_free(&files);
    else *out = files;
    return st;
}

void weight_files_free(weight_files *files) {
    for (size_t i = 0; i < files->n; i++) free(files->path[i]);
    free(files->path);
    *files = (weight_files){ 0 };
}

/* Calls `each` with every file, open for reading, and its size. */
typedef rv_status (*file_fn)(int fd, const char *path, size_t bytes, void *user, rv_error *err);

static rv_status each_file(const weight_files *files, file_fn each, void *user, rv_error *err) {
    rv_status st = RV_OK;
    for (size_t i = 0; st == RV_OK && i < files->n; i++) {
        struct stat info;
        int fd = open(files->path[i], O_RDONLY | O_CLOEXEC);
        if (fd < 0) return fail_path(err, files->path[i], "open");
        st = fstat(fd, &info) ? fail_path(err, files->path[i], "read") : each(fd, files->path[i], (size_t)info.st_size, user, err);
        close(fd);
    }
    return st;
}

typedef struct pages { uint64_t all, cached; } pages;

static rv_status count_pages(int fd, const char *path, size_t bytes, void *user, rv_error *err) {
    pages *p = user;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), n = (bytes + page - 1) / page;
    if (bytes == 0) return RV_OK;
    void *map = mmap(NULL, bytes, PROT_READ, MAP_SHARED, fd, 0);
    unsigned char *in = malloc(n);
    rv_status st = RV_OK;
    if (map == MAP_FAILED || !in) st = fail_path(err, path, "map");
    else if (mincore(map, bytes, in)) st = fail_path(err, path, "ask the page cache about");
    else {
        p->all += n;
        for (size_t i = 0; i < n; i++) p->cached += in[i] & 1;
    }
    free(in);
    if (map != MAP_FAILED) munmap(map, bytes);
    return st;
}

rv_status cache_share(const weight_files *files, double *share, rv_error *err) {
    pages p = { 0 };
    rv_status st = each_file(files, count_pages, &p, err);
    *share = p.all ? (double)p.cached / (double)p.all : 0;
    return st;
}

static rv_status drop(int fd, const char *path, size_t bytes, void *user, rv_error *err) {
    (void)bytes, (void)user;
    if (fdatasync(fd) != 0) return fail_path(err, path, "write back");      /* dirty pages cannot be dropped */
    int code = posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
    if (code == 0) return RV_OK;
    errno = code;
    return fail_path(err, path, "drop from the page cache");
}

rv_status cache_drop(const weight_files *files, rv_error *err) { return each_file(files, drop, NULL, err); }

static rv_status read_file(int fd, const char *path, size_t bytes, void *user, rv_error *err) {
    (void)bytes;
    posix_fadvise(fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    for (ssize_t n = 1; n > 0;) {
        if (interrupted()) return fail(err, RV_ERR_CANCELLED, "interrupted");
        n = read(fd, user, READ_BYTES);
        if (n < 0 && errno != EINTR) return fail_path(err, path, "read");
        if (n < 0) n = 1;
    }
    return RV_OK;
}

rv_status read_in_order(const weight_files *files, double *ms, rv_error *err) {
    void *room = malloc(READ_BYTES);
    if (!room) return fail(err, RV_ERR_MEMORY, "reading the files: out of memory");
    double start = now_ms();
    rv_status st = each_file(files, read_file, room, err);
    *ms = now_ms() - start;
    free(room);
    return st;
}
