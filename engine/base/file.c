/* file.c - whole files in, whole files out. */
#include "engine/base/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static rv_status fail_system(rv_error *err, const char *path, const char *doing) {
    char why[128];
    int code = errno;
    const char *text = strerror_r(code, why, sizeof why);    /* the GNU form: may not use `why` */
    return rv_fail(err, code == ENOMEM ? RV_ERR_MEMORY : RV_ERR_IO, "%s: cannot %s: %s", path, doing, text);
}

/* O_NONBLOCK: a FIFO must not hang us. */
rv_status rv_file_open(const char *path, int *fd, uint64_t *bytes, rv_error *err) {
    struct stat st;
    *fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (*fd < 0) return fail_system(err, path, "open");
    if (fstat(*fd, &st) != 0) {
        rv_status status = fail_system(err, path, "stat");
        close(*fd);
        return status;
    }
    if (!S_ISREG(st.st_mode)) {
        close(*fd);
        return rv_fail(err, RV_ERR_IO, "%s: %s, not a file", path, S_ISDIR(st.st_mode) ? "is a folder" : "is a device or pipe");
    }
    *bytes = (uint64_t)st.st_size;
    return RV_OK;
}

rv_status rv_map_open(const char *path, rv_map *out, rv_error *err) {
    int fd;
    uint64_t bytes = 0;
    rv_status st = rv_file_open(path, &fd, &bytes, err);
    if (st) return st;
    void *data = NULL;
    if (bytes) {
        data = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE, fd, 0);
        if (data == MAP_FAILED) st = fail_system(err, path, "map");
    }
    close(fd);
    if (st == RV_OK) *out = (rv_map){ data, bytes };
    return st;
}

void rv_map_close(rv_map *map) {
    if (!map || !map->data) return;
    munmap((void *)(uintptr_t)map->data, map->bytes);
    *map = (rv_map){ 0 };
}

rv_status rv_file_read(const char *path, uint64_t limit, char **out, size_t *bytes, rv_error *err) {
    int fd;
    uint64_t size;
    rv_status st = rv_file_open(path, &fd, &size, err);
    if (st) return st;
    if (size > limit) {
        close(fd);
        return rv_fail(err, RV_ERR_FORMAT, "%s: too large: %llu bytes, at most %llu are read", path,
                       (unsigned long long)size, (unsigned long long)limit);
    }
    char *data = malloc(size + 1);
    size_t at = 0;
    if (!data) st = rv_fail_memory(err, path);
    while (st == RV_OK && at < size) {
        ssize_t n = read(fd, data + at, size - at);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) st = fail_system(err, path, "read");
        else if (n == 0) st = rv_fail(err, RV_ERR_IO, "%s: became shorter while it was read", path);
        else at += (size_t)n;
    }
    close(fd);
    if (st) {
        free(data);
        return st;
    }
    data[at] = '\0';
    *out = data;
    *bytes = at;
    return RV_OK;
}

static rv_status write_all(int fd, const char *path, const char *data, size_t bytes, rv_error *err) {
    while (bytes > 0) {
        ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return fail_system(err, path, "write");
        data += n;
        bytes -= (size_t)n;
    }
    return fsync(fd) == 0 ? RV_OK : fail_system(err, path, "write");
}

/* A new file beside `path`, for this process and thread alone. mkstemp would make it unreadable for
 * others, and asking for the umask is not safe with threads; open() applies it. */
static int open_beside(const char *path, char *temporary, size_t n) {
    for (unsigned i = 0; i < 1000; i++) {
        snprintf(temporary, n, "%s.tmp-%ld-%u", path, (long)gettid(), i);
        int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
        if (fd >= 0 || errno != EEXIST) return fd;
    }
    return -1;
}

rv_status rv_file_write(const char *path, const void *data, size_t bytes, rv_error *err) {
    size_t n = strlen(path) + 48;
    char *temporary = malloc(n);
    if (!temporary) return rv_fail_memory(err, path);
    int fd = open_beside(path, temporary, n);
    rv_status st = RV_OK;
    if (fd < 0) st = fail_system(err, path, "create a temporary file beside");
    else {
        st = write_all(fd, path, data, bytes, err);
        if (close(fd) != 0 && st == RV_OK) st = fail_system(err, path, "write");
        if (st == RV_OK && rename(temporary, path) != 0) st = fail_system(err, path, "replace");
        if (st) unlink(temporary);
    }
    free(temporary);
    return st;
}

rv_lock rv_file_lock(int fd) {
    if (flock(fd, LOCK_EX | LOCK_NB) == 0) return RV_LOCK_TAKEN;
    return errno == EWOULDBLOCK ? RV_LOCK_HELD_ELSEWHERE : RV_LOCK_NONE_HERE;
}

bool rv_file_is(int fd, int at, const char *name) {
    struct stat mine, there;
    return fstat(fd, &mine) == 0 && fstatat(at, name, &there, AT_SYMLINK_NOFOLLOW) == 0 && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

int rv_file_exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 && S_ISREG(st.st_mode) && access(path, R_OK) == 0;
}

char *rv_path_join(const char *dir, const char *name) {
    size_t n = strlen(dir), bytes = n + strlen(name) + 2;
    char *path = malloc(bytes);
    if (path) snprintf(path, bytes, "%s%s%s", dir, n && dir[n - 1] == '/' ? "" : "/", name);
    return path;
}
