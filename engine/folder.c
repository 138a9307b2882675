/* folder.c - see folder.h. */
#include "engine/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/file.h"

enum { MOST_LIST = 1 << 24, TRIES = 100, NAME_BYTES = NAME_MAX + sizeof ".partial" };
#define PARTIAL ".partial"
#define LIST "rvengine" PARTIAL          /* MAGIC, then names with a NUL behind each, then a NUL */
#define MAGIC "files of a run of rvengine that has not ended\n"

/* ---- the signal of a limit on file sizes ---- */

static void too_large(sigset_t *set) {
    sigemptyset(set);
    sigaddset(set, SIGXFSZ);
}

static void hold_signal(rv_folder *f) {
    sigset_t set, now;
    too_large(&set);
    f->was_pending = sigpending(&now) == 0 && sigismember(&now, SIGXFSZ) == 1;
    f->was_blocked = pthread_sigmask(SIG_BLOCK, &set, &now) == 0 && sigismember(&now, SIGXFSZ) == 1;
}

/* What this thread's own writes have raised meanwhile is forgotten. */
static void release_signal(const rv_folder *f) {
    static const struct timespec at_once = { 0 };
    sigset_t set;
    too_large(&set);
    if (!f->was_pending)
        while (sigtimedwait(&set, NULL, &at_once) < 0 && errno == EINTR) {}
    if (!f->was_blocked) pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

/* ---- taking ---- */

static bool is_still_there(int fd, const char *dir) {
    struct stat mine, there;
    return fstat(fd, &mine) == 0 && stat(dir, &there) == 0 && mine.st_dev == there.st_dev && mine.st_ino == there.st_ino;
}

static rv_status open_locked(rv_folder *f, rv_error *err) {
    for (int i = 0; i < TRIES; i++) {
        const bool made = mkdir(f->dir, 0777) == 0;
        if (!made && errno != EEXIST) return rv_fail(err, RV_ERR_IO, "%s: cannot make the folder: %s", f->dir, strerror(errno));
        f->fd = open(f->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (f->fd < 0 && errno == ENOENT) continue;
        if (f->fd < 0) return rv_fail(err, RV_ERR_IO, "%s: cannot open the folder: %s", f->dir, strerror(errno));
        const rv_lock lock = rv_file_lock(f->fd);
        if (lock == RV_LOCK_HELD_ELSEWHERE) return rv_fail(err, RV_ERR_IO, "%s: another process is writing there: wait for it, or give another folder", f->dir);
        if (lock == RV_LOCK_NONE_HERE || is_still_there(f->fd, f->dir)) return f->made = made, RV_OK;
        close(f->fd);                                    /* whoever held it had made it, and removed it again */
        f->fd = -1;
    }
    return rv_fail(err, RV_ERR_IO, "%s: cannot open the folder: it comes and goes", f->dir);
}

/* Too long a name is cut, and then is too long for the system still. */
static const char *partial(const char *name, char out[NAME_BYTES]) {
    snprintf(out, NAME_BYTES, "%.*s" PARTIAL, NAME_MAX, name);
    return out;
}

static void delete_all(const rv_folder *f, const char *names, size_t bytes) {
    char file[NAME_BYTES];
    for (size_t at = 0; at < bytes; at += strlen(names + at) + 1) {
        if (!names[at] || strchr(names + at, '/')) continue;
        unlinkat(f->fd, names + at, 0);
        unlinkat(f->fd, partial(names + at, file), 0);
    }
}

/* The files of a list, unless its run had come to its end; then the list. One that is cut short is of a run that had made nothing else. */
static rv_status delete_listed(const rv_folder *f, rv_error *err) {
    const size_t head = sizeof MAGIC - 1;
    char *path = rv_path_join(f->dir, LIST), *text = NULL;
    size_t bytes = 0;
    rv_status st = RV_OK;
    struct stat info;
    if (!path) TRY(rv_fail_memory(err, f->dir));
    if (!rv_file_exists(path)) goto done;
    TRY(rv_file_read(path, MOST_LIST, &text, &bytes, err));
    if (memcmp(text, MAGIC, bytes < head ? bytes : head)) goto done;         /* somebody else's          */
    if (bytes > head + 1 && !text[bytes - 1] && !text[bytes - 2] && fstatat(f->fd, text + head, &info, AT_SYMLINK_NOFOLLOW))
        delete_all(f, text + head, bytes - head - 1);
    unlinkat(f->fd, LIST, 0);
done:
    free(path);
    free(text);
    return st;
}

/* Those of builds that kept no list. */
static bool is_shard_partial(const char *name) {
    static const char head[] = "model", tail[] = ".safetensors" PARTIAL;
    const size_t n = strlen(name), m = sizeof tail - 1;
    return n >= sizeof head - 1 + m && !strncmp(name, head, sizeof head - 1) && !strcmp(name + n - m, tail);
}

static rv_status empty(const rv_folder *f, rv_error *err) {
    rv_status st = RV_OK;
    for (int pass = 0; pass < 2 && st == RV_OK; pass++) {
        DIR *d = opendir(f->dir);
        if (!d) return rv_fail(err, RV_ERR_IO, "%s: cannot open the folder: %s", f->dir, strerror(errno));
        for (struct dirent *e; st == RV_OK && (e = readdir(d));) {
            if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, "..")) continue;
            if (!is_shard_partial(e->d_name) || (pass == 1 && unlinkat(f->fd, e->d_name, 0)))
                st = rv_fail(err, RV_ERR_IO, "%s: is not empty, it holds %s: give a new folder, or empty this one", f->dir, e->d_name);
        }
        closedir(d);
    }
    return st;
}

static void close_folder(rv_folder *f) {
    if (f->fd >= 0) close(f->fd);
    f->fd = -1;
    release_signal(f);
    rv_string_free(&f->names);
}

rv_status rv_folder_take(const char *dir, rv_folder *out, rv_error *err) {
    rv_folder f = { .dir = dir, .fd = -1 };
    rv_status st = RV_OK;
    hold_signal(&f);
    TRY(open_locked(&f, err));
    TRY(delete_listed(&f, err));
    TRY(empty(&f, err));
done:
    if (st && f.made) rmdir(dir);
    if (st) close_folder(&f);
    else *out = f;
    return st;
}

rv_status rv_folder_check_room(const char *dir, uint64_t bytes, rv_error *err) {
    struct statvfs fs;
    if (statvfs(dir, &fs) || fs.f_frsize == 0 || bytes / fs.f_frsize < fs.f_bavail) return RV_OK;
    return rv_fail(err, RV_ERR_IO, "%s: the model needs %s, the disk has %s free", dir, rv_size_in_words(bytes).text,
                   rv_size_in_words((uint64_t)fs.f_bavail * fs.f_frsize).text);
}

/* ---- files ---- */

rv_status rv_folder_fail(const rv_folder *f, const char *name, rv_error *err) {
    return rv_fail(err, RV_ERR_IO, "%s/%s: cannot write: %s", f->dir, name, strerror(errno));
}

void rv_folder_add(rv_folder *f, const char *name) { rv_string_add(&f->names, name, strlen(name) + 1); }

static int open_new(const rv_folder *f, const char *file, const char *name, rv_error *err) {
    const int fd = openat(f->fd, file, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, 0666);
    if (fd < 0) rv_folder_fail(f, name, err);
    return fd;
}

rv_status rv_folder_put(const rv_folder *f, int fd, const char *name, const char *data, size_t bytes, rv_error *err) {
    while (bytes) {
        const ssize_t n = write(fd, data, bytes);
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return rv_folder_fail(f, name, err);
        data += n;
        bytes -= (size_t)n;
    }
    return RV_OK;
}

static rv_status write_and_close(const rv_folder *f, int fd, const char *name, const char *data, size_t bytes, rv_error *err) {
    rv_status st = rv_folder_put(f, fd, name, data, bytes, err);
    if (close(fd) && !st) st = rv_folder_fail(f, name, err);
    return st;
}

rv_status rv_folder_begin(rv_folder *f, rv_error *err) {
    rv_string text = { 0 };
    rv_status st = RV_OK;
    rv_string_addz(&text, MAGIC);
    if (f->names.data) rv_string_add(&text, f->names.data, f->names.bytes);
    rv_string_add(&text, "", 1);
    if (text.failed || f->names.failed) TRY(rv_fail_memory(err, f->dir));
    const int fd = open_new(f, LIST, LIST, err);
    TRY(fd < 0 ? RV_ERR_IO : RV_OK);
    f->begun = true;
    TRY(write_and_close(f, fd, LIST, text.data, text.bytes, err));
done:
    rv_string_free(&text);
    return st;
}

int rv_folder_open(const rv_folder *f, const char *name, rv_error *err) {
    char file[NAME_BYTES];
    return open_new(f, partial(name, file), name, err);
}

rv_status rv_folder_write(const rv_folder *f, const char *name, const void *data, size_t bytes, rv_error *err) {
    const int fd = rv_folder_open(f, name, err);
    return fd < 0 ? RV_ERR_IO : write_and_close(f, fd, name, data, bytes, err);
}

/* ---- the end ---- */

static rv_status give_name(const rv_folder *f, const char *name, rv_error *err) {
    char file[NAME_BYTES];
    if (renameat(f->fd, partial(name, file), f->fd, name) == 0) return RV_OK;
    return rv_fail(err, RV_ERR_IO, "%s/%s: cannot rename: %s", f->dir, file, strerror(errno));
}

rv_status rv_folder_publish(const rv_folder *f, rv_error *err) {
    const char *first = f->names.data;
    rv_status st = RV_OK;
    for (size_t at = strlen(first) + 1; at < f->names.bytes; at += strlen(first + at) + 1) TRY(give_name(f, first + at, err));
    TRY(give_name(f, first, err));
done:
    return st;
}

void rv_folder_leave(rv_folder *f, rv_status st) {
    if (f->begun && st && f->names.data) delete_all(f, f->names.data, f->names.bytes);
    if (f->begun) unlinkat(f->fd, LIST, 0);
    if (st && f->made) rmdir(f->dir);
    close_folder(f);
}
