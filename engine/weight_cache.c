/* weight_cache.c - see weight_cache.h. */
#include "engine/weight_cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/text.h"
#include "engine/modules.h"

enum { FILE_VERSION = 1, PAGE = 4096, MOST_CONFIG = 1 << 24, MOST_TEMPORARIES = 1000 };
#define MAGIC "rvcache\n"
#define TEMPORARY ".tmp-"

typedef struct rv_cache_head {
    char     magic[8];
    uint32_t version, pads_are_equal;
    rv_hash  setup, checkpoint;          /* what was asked of what; which model                 */
    uint64_t memory_bytes, data_at, pieces, piece_bytes;
    uint64_t sum;                        /* of all above with sum 0, and of the pieces' sums     */
} rv_cache_head;

struct rv_weight_cache {
    rv_model     *m;
    char         *path;
    rv_cache_head head;                  /* as it must be; sum: of the file in hand              */
    uint64_t     *sums;                  /* a piece                                              */
    int           fd;                    /* being read; -1: none                                 */
    _Atomic uint64_t damaged;            /* the first bad piece + 1; 0: none                     */
    pthread_t     writer;
    bool          writing;
    char          outcome[400];          /* of the writer; "" where all went well                */
};

static uint64_t piece_length(const rv_cache_head *h, uint64_t i) {
    const uint64_t left = h->memory_bytes - i * RV_FILL_PIECE;
    return left < RV_FILL_PIECE ? left : RV_FILL_PIECE;
}

/* ---- keys ---- */

static rv_status config_hash(const char *model_dir, uint64_t *out, rv_error *err) {
    char *path = rv_path_join(model_dir, "config.json"), *text = NULL;
    size_t bytes = 0;
    rv_status st = RV_OK;
    if (!path) TRY(rv_fail_memory(err, "weights cache"));
    TRY(rv_file_read(path, MOST_CONFIG, &text, &bytes, err));
    *out = rv_hash64(text, bytes);
done:
    free(path);
    free(text);
    return st;
}

static rv_status checkpoint_key(const rv_model *m, const char *model_dir, rv_hash *out, rv_error *err) {
    struct { rv_hash files; uint64_t config; } key = { 0 };
    rv_status st = RV_OK;
    TRY(rv_checkpoint_key(m->files.checkpoint, &key.files, err));
    TRY(config_hash(model_dir, &key.config, err));
    *out = rv_hash128(&key, sizeof key);
done:
    return st;
}

static const char *text_of(const char *list) { return list ? list : ""; }

/* All that decides what the memory holds, besides the checkpoint: as asked, and as this build lays it out. */
static void add_asked(rv_string *s, const rv_model *m, const rv_placing *how) {
    rv_string_addf(s, "%d %d %d %d %d %d%s", m->be->act, how->format, how->as_stored, how->nested, how->modules ? how->modules->preset : 0, m->table_bytes > 0,
                   how->head_int8 ? " head int8" : "");
    if (how->modules) rv_string_addf(s, "\n%s\n%s", text_of(how->modules->skip), text_of(how->modules->keep));
}

/* "NAME-int8-0123456789abcdef.rvcache" in the cache's folder. */
static char *file_path(const rv_model *m, const char *model_dir, const rv_placing *how) {
    rv_string id = { 0 }, name = { 0 };
    char *full = realpath(model_dir, NULL), *path = NULL;
    static const char *const formats[] = { "auto", "16bit", "int8", "nf4", "fp4" };
    if (full) {
        rv_string_addf(&id, "%s\n%s\n", full, m->be->ops->name);
        add_asked(&id, m, how);
        const char *last = strrchr(full, '/');
        rv_string_addf(&name, "%.80s-%s-%016llx.rvcache", last && last[1] ? last + 1 : "model",
                       formats[m->options.weights], (unsigned long long)(id.failed ? 0 : rv_hash64(id.data, id.bytes)));
        if (!name.failed && !id.failed) path = rv_path_join(m->options.cache_dir, name.data);
    }
    free(full);
    rv_string_free(&id);
    rv_string_free(&name);
    return path;
}

static rv_status setup_key(const rv_model *m, const rv_placing *how, rv_hash *out, rv_error *err) {
    rv_string s = { 0 };
    rv_string_addf(&s, "%s\n%s\n%llu %zu\n", rv_version(), m->be->layout, (unsigned long long)m->memory_bytes, sizeof(rv_cache_head));
    add_asked(&s, m, how);
    rv_status st = s.failed ? rv_fail_memory(err, "weights cache") : RV_OK;
    if (!st) *out = rv_hash128(s.data, s.bytes);
    rv_string_free(&s);
    return st;
}

rv_weight_cache *rv_weight_cache_open(rv_model *m, const char *model_dir, const rv_placing *how) {
    rv_error err = { 0 };
    rv_status st = RV_OK;
    if (!m->options.cache_dir || !*m->options.cache_dir || m->options.weights == RV_WEIGHTS_16BIT || !rv_can_fill(m->be)) return NULL;
    rv_weight_cache *c = calloc(1, sizeof *c);
    if (!c) return NULL;
    const uint64_t pieces = (m->memory_bytes + RV_FILL_PIECE - 1) / RV_FILL_PIECE, head = sizeof c->head + pieces * sizeof *c->sums;
    c->m = m;
    c->fd = -1;
    c->head = (rv_cache_head){ .magic = MAGIC, .version = FILE_VERSION, .memory_bytes = m->memory_bytes, .data_at = (head + PAGE - 1) / PAGE * PAGE,
                               .pieces = pieces, .piece_bytes = RV_FILL_PIECE };
    c->sums = malloc((size_t)pieces * sizeof *c->sums + 1);
    c->path = file_path(m, model_dir, how);
    if (!c->sums || !c->path) TRY(rv_fail(&err, RV_ERR_MEMORY, "its file has no name (%s)", model_dir));
    TRY(setup_key(m, how, &c->head.setup, &err));
    TRY(checkpoint_key(m, model_dir, &c->head.checkpoint, &err));
    return c;
done:
    (void)st;
    rv_model_log(m, RV_LOG_WARNING, "weights cache: not used: %s", err.message);
    rv_weight_cache_close(c);
    return NULL;
}

/* ---- leftovers ---- */

/* What was left behind by whoever was killed while he wrote: NAME.tmp-* whose lock nobody holds. Where there are no locks it stays. */
static void remove_leftovers(const char *path) {
    const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
    const size_t n = strlen(name), m = sizeof TEMPORARY - 1;
    char *folder = slash ? strndup(path, (size_t)(slash - path)) : strdup(".");
    DIR *d = folder ? opendir(*folder ? folder : "/") : NULL;
    for (struct dirent *e; d && (e = readdir(d));) {
        if (strncmp(e->d_name, name, n) || strncmp(e->d_name + n, TEMPORARY, m)) continue;
        const int fd = openat(dirfd(d), e->d_name, O_WRONLY | O_NONBLOCK | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0) continue;
        /* The name is looked up again with the lock held: before, another could have removed this file and a third made a new one. */
        if (rv_file_lock(fd) == RV_LOCK_TAKEN && rv_file_is(fd, dirfd(d), e->d_name)) unlinkat(dirfd(d), e->d_name, 0);
        close(fd);
    }
    if (d) closedir(d);
    free(folder);
}

/* ---- reading ---- */

static bool read_at(int fd, void *to, uint64_t bytes, uint64_t at) {
    for (char *p = to; bytes;) {
        ssize_t n = pread(fd, p, (size_t)bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return false;
        p += n;
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return true;
}

static uint64_t head_sum(const rv_weight_cache *c, rv_cache_head head) {
    head.sum = 0;
    const uint64_t parts[] = { rv_hash64(&head, sizeof head), rv_hash64(c->sums, (size_t)head.pieces * sizeof *c->sums) };
    return rv_hash64(parts, sizeof parts);
}

/* NULL, or what is wrong with the file in hand. */
static const char *judge(rv_weight_cache *c, bool *pads_are_equal) {
    rv_cache_head is;
    struct stat info;
    const rv_cache_head *must = &c->head;
    if (fstat(c->fd, &info) || !S_ISREG(info.st_mode)) return "cannot be read";
    if (!read_at(c->fd, &is, sizeof is, 0)) return "is cut short";
    if (memcmp(is.magic, must->magic, sizeof is.magic)) return "holds something else";
    if (is.version != must->version || memcmp(&is.setup, &must->setup, sizeof is.setup))
        return "is of another version, or was made for another device or choice of formats";
    if (memcmp(&is.checkpoint, &must->checkpoint, sizeof is.checkpoint)) return "is of another checkpoint, or the model has changed since";
    if (is.memory_bytes != must->memory_bytes || is.data_at != must->data_at || is.pieces != must->pieces || is.piece_bytes != must->piece_bytes)
        return "is damaged";
    const uint64_t bytes = is.data_at + is.memory_bytes, there = (uint64_t)info.st_size;
    if (there != bytes) return there < bytes ? "is cut short" : "is too long";
    if (!read_at(c->fd, c->sums, is.pieces * sizeof *c->sums, sizeof is) || head_sum(c, is) != is.sum) return "is damaged";
    *pads_are_equal = is.pads_are_equal != 0;
    return NULL;
}

static void close_file(rv_weight_cache *c) {
    if (c->fd >= 0) close(c->fd);
    c->fd = -1;
}

/* On a thread of the backend's. */
static void seen(void *user, uint64_t piece, const void *data, uint64_t bytes) {
    rv_weight_cache *c = user;
    if (!data || rv_hash64(data, (size_t)bytes) != c->sums[piece]) {
        uint64_t none = 0;
        atomic_compare_exchange_strong(&c->damaged, &none, piece + 1);
    }
}

bool rv_weight_cache_read(rv_weight_cache *c, bool *pads_are_equal) {
    c->fd = open(c->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);                /* a FIFO must not hang us   */
    if (c->fd < 0) {
        if (errno != ENOENT)
            rv_model_log(c->m, RV_LOG_WARNING, "weights cache %s: cannot be read: %s: the weights are made again", c->path, strerror(errno));
        return false;
    }
    const char *why = judge(c, pads_are_equal);
    if (why) {
        rv_model_log(c->m, RV_LOG_WARNING, "weights cache %s: %s: the weights are made again", c->path, why);
        close_file(c);
        return false;
    }
    atomic_store(&c->damaged, 0);
    const rv_fill from = { .fd = c->fd, .at = c->head.data_at, .bytes = c->head.memory_bytes, .seen = seen, .user = c };
    rv_fill_memory(c->m->be, c->m->memory, &from);
    remove_leftovers(c->path);                           /* nobody will write here, and they are as large as the file */
    return true;
}

bool rv_weight_cache_arrived(rv_weight_cache *c) {
    const uint64_t damaged = atomic_load(&c->damaged);
    close_file(c);
    if (damaged)
        rv_model_log(c->m, RV_LOG_WARNING, "weights cache %s: is damaged (piece %llu of %llu): the weights are made again", c->path,
                     (unsigned long long)damaged, (unsigned long long)c->head.pieces);
    else rv_model_log(c->m, RV_LOG_INFO, "weights read from the cache %s", c->path);
    return !damaged;
}

/* ---- writing ---- */

static bool write_at(int fd, const void *from, uint64_t bytes, uint64_t at) {
    for (const char *p = from; bytes;) {
        ssize_t n = pwrite(fd, p, (size_t)bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return errno = n ? errno : ENOSPC, false;
        p += n;
        at += (uint64_t)n;
        bytes -= (uint64_t)n;
    }
    return true;
}

/* Every folder on the way to the file. */
static bool make_folders(const char *path) {
    char *copy = strdup(path);
    bool good = copy != NULL;
    for (char *at = copy; good && (at = strchr(at + 1, '/'));) {
        *at = '\0';
        good = mkdir(copy, 0777) == 0 || errno == EEXIST;
        *at = '/';
    }
    free(copy);
    return good;
}

/* A piece of the device's memory, between two steps of whoever computes. */
static bool fetch_piece(rv_weight_cache *c, void *to, uint64_t i, uint64_t bytes) {
    rv_model *m = c->m;
    rv_model_lock(m);
    rv_download(m->be, to, (const char *)m->memory + i * RV_FILL_PIECE, bytes);
    const bool good = m->be->error.code == RV_OK;
    rv_model_unlock(m);
    return good;
}

/* NULL, or what failed (errno, where it is the system's). */
static const char *write_file(rv_weight_cache *c, int fd) {
    struct statvfs fs;
    const uint64_t all = c->head.data_at + c->head.memory_bytes;
    errno = 0;
    if (fstatvfs(fd, &fs) == 0 && fs.f_frsize && all / fs.f_frsize >= fs.f_bavail) return "the disk has too little room";
    if (fallocate(fd, 0, 0, (off_t)all) && (errno == ENOSPC || errno == EFBIG)) return "cannot be written";
    char *buffer = malloc(RV_FILL_PIECE);
    const char *why = buffer ? NULL : "out of memory";
    for (uint64_t i = 0; !why && i < c->head.pieces; i++) {
        const uint64_t bytes = piece_length(&c->head, i);
        errno = 0;
        if (!fetch_piece(c, buffer, i, bytes)) why = "the device failed";
        else if (!write_at(fd, buffer, bytes, c->head.data_at + i * RV_FILL_PIECE)) why = "cannot be written";
        else c->sums[i] = rv_hash64(buffer, (size_t)bytes);
    }
    free(buffer);
    if (why) return why;
    c->head.sum = head_sum(c, c->head);
    errno = 0;
    const bool good = write_at(fd, c->sums, c->head.pieces * sizeof *c->sums, sizeof c->head) && write_at(fd, &c->head, sizeof c->head, 0);
    return good && fsync(fd) == 0 ? NULL : "cannot be written";
}

/* A new file beside `path` of this writer's own, locked so that nobody takes it for a leftover: closed when it has its name. The number is
 * for people: processes of two containers may have the same, and one process may write several models. -1: errno. */
static int open_temporary(const char *path, rv_string *name) {
    for (unsigned i = 0; i < MOST_TEMPORARIES; i++) {
        name->bytes = 0;
        rv_string_addf(name, "%s" TEMPORARY "%ld-%u", path, (long)getpid(), i);
        if (name->failed) return errno = ENOMEM, -1;
        const int fd = open(name->data, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);
        if (fd < 0 && errno != EEXIST) return -1;
        if (fd < 0) continue;
        const rv_lock lock = rv_file_lock(fd);
        if (lock == RV_LOCK_NONE_HERE || (lock == RV_LOCK_TAKEN && rv_file_is(fd, AT_FDCWD, name->data))) return fd;
        close(fd);                                       /* somebody came between and removes it as a leftover */
    }
    return errno = EEXIST, -1;
}

static void *run_writer(void *user) {
    rv_weight_cache *c = user;
    sigset_t too_large;                                  /* a limit on file sizes is EFBIG, not the program's end */
    sigemptyset(&too_large);
    sigaddset(&too_large, SIGXFSZ);
    pthread_sigmask(SIG_BLOCK, &too_large, NULL);
    rv_string temporary = { 0 };
    const char *why = NULL;
    remove_leftovers(c->path);
    errno = 0;
    int fd = make_folders(c->path) ? open_temporary(c->path, &temporary) : -1;
    if (fd < 0) why = "cannot be made";
    else {
        why = write_file(c, fd);
        if (!why && rename(temporary.data, c->path)) why = "cannot be renamed";
        const int reason = errno;
        if (why) unlink(temporary.data);
        close(fd);                                       /* the lock too; its bytes were synced      */
        errno = reason;
    }
    if (why) snprintf(c->outcome, sizeof c->outcome, "%s%s%s", why, errno ? ": " : "", errno ? strerror(errno) : "");
    rv_string_free(&temporary);
    return NULL;
}

void rv_weight_cache_write(rv_weight_cache *c) {
    c->head.pads_are_equal = c->m->weights.pads_are_equal;
    c->writing = pthread_create(&c->writer, NULL, run_writer, c) == 0;
    if (!c->writing) rv_model_log(c->m, RV_LOG_WARNING, "weights cache %s: not written: no thread for it", c->path);
}

void rv_weight_cache_close(rv_weight_cache *c) {
    if (!c) return;
    if (c->writing) {
        pthread_join(c->writer, NULL);
        if (c->outcome[0]) rv_model_log(c->m, RV_LOG_WARNING, "weights cache %s: not written: %s", c->path, c->outcome);
        else rv_model_log(c->m, RV_LOG_INFO, "weights written to the cache %s", c->path);
    }
    close_file(c);
    free(c->path);
    free(c->sums);
    free(c);
}
