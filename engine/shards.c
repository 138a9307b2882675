/* shards.c - see shards.h. */
#include "engine/shards.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST_THREADS = 64, MOST_SHARDS = 99999 };
#define INDEX_NAME "model.safetensors.index.json"

/* ---- the plan ---- */

rv_status rv_shards_add(rv_shards *s, const rv_shard_tensor *tensor, rv_error *err) {
    if (s->n == s->room) {
        size_t more = s->room ? s->room * 2 : 256;
        rv_shard_tensor *at = realloc(s->tensors, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "tensor list");
        s->tensors = at;
        s->room = more;
    }
    if (tensor->bytes > INT64_MAX / 4 || s->bytes > INT64_MAX / 4)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: a checkpoint of this shape is too large for any disk", tensor->name);
    char *name = strdup(tensor->name);
    if (!name) return rv_fail_memory(err, "tensor list");
    s->tensors[s->n] = *tensor;
    s->tensors[s->n].name = name;
    if (s->n == 0) s->tensors[0].joins = false;
    s->n++;
    s->bytes += tensor->bytes;
    return RV_OK;
}

static bool begins_shard(const rv_shards *s, size_t i, uint64_t most_bytes, uint32_t files, uint64_t bytes_before) {
    uint64_t bytes = s->tensors[i].bytes;
    if (i == 0) return true;
    if (s->tensors[i].joins) return false;
    for (size_t k = i + 1; k < s->n && s->tensors[k].joins; k++) bytes += s->tensors[k].bytes;
    if (!files) return bytes_before + bytes > most_bytes;
    return s->n_files < files && i >= s->n * s->n_files / files;
}

static int element_bytes(const char *type) {
    static const struct { const char *name; int bytes; } sizes[] = { { "F32", 4 }, { "BF16", 2 }, { "F16", 2 } };
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (!strcmp(type, sizes[i].name)) return sizes[i].bytes;
    return 1;
}

static void lay_out(rv_shards *s, rv_shard *file) {
    for (int size = 4; size > 0; size /= 2)
        for (size_t i = file->first; i < file->end; i++) {
            if (element_bytes(s->tensors[i].type) != size) continue;
            s->tensors[i].at = file->bytes;
            file->bytes += s->tensors[i].bytes;
        }
}

static void make_header(const rv_shards *s, rv_shard *file) {
    rv_string *h = &file->header;
    rv_string_add(h, "\0\0\0\0\0\0\0\0", 8);
    rv_string_addz(h, "{\"__metadata__\":{\"format\":\"pt\"}");            /* transformers insists on it */
    for (size_t i = file->first; i < file->end; i++) {
        const rv_shard_tensor *t = &s->tensors[i];
        rv_string_addf(h, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, t->type);
        for (int32_t d = 0; d < t->n_dims; d++) rv_string_addf(h, "%s%" PRId64, d ? "," : "", t->shape[d]);
        rv_string_addf(h, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", t->at, t->at + t->bytes);
    }
    rv_string_addz(h, "}");
    while (h->bytes % 8 && !h->failed) rv_string_addz(h, " ");
    for (size_t i = 0; i < 8 && !h->failed; i++) h->data[i] = (char)((uint64_t)(h->bytes - 8) >> 8 * i & 0xff);
}

rv_status rv_shards_cut(rv_shards *s, uint64_t most_bytes, uint32_t files, rv_error *err) {
    uint64_t bytes = 0;
    if (!(s->files = calloc(s->n ? s->n : 1, sizeof *s->files))) return rv_fail_memory(err, "shard list");
    for (size_t i = 0; i < s->n; i++) {
        if (begins_shard(s, i, most_bytes, files, bytes)) {
            if (s->n_files == MOST_SHARDS)
                return rv_fail(err, RV_ERR_ARGUMENT, "shards of %" PRIu64 " bytes: that makes more than %d files; take larger ones", most_bytes, MOST_SHARDS);
            s->files[s->n_files++].first = i;
            bytes = 0;
        }
        bytes += s->tensors[i].bytes;
        s->tensors[i].file = s->n_files - 1;
        s->files[s->n_files - 1].end = i + 1;
    }
    for (size_t k = 0; k < s->n_files; k++) {
        rv_shard *f = &s->files[k];
        if (s->n_files == 1) snprintf(f->name, sizeof f->name, "model.safetensors");
        else snprintf(f->name, sizeof f->name, "model-%05zu-of-%05zu.safetensors", k + 1, s->n_files);
        lay_out(s, f);
        make_header(s, f);
        if (f->header.failed) return rv_fail_memory(err, "shard header");
        s->file_bytes += f->header.bytes + f->bytes;
    }
    return RV_OK;
}

void rv_shards_free(rv_shards *s) {
    for (size_t k = 0; s->files && k < s->n_files; k++) rv_string_free(&s->files[k].header);
    for (size_t i = 0; i < s->n; i++) free(s->tensors[i].name);
    free(s->tensors);
    free(s->files);
    s->tensors = NULL;
    s->files = NULL;
    s->n = s->n_files = s->room = 0;
}

/* ---- writing ---- */

typedef struct unit { size_t tensor; uint32_t index; } unit;

typedef struct writing {
    rv_shards           *s;
    const rv_shard_work *work;
    unit                *units;
    size_t               n_units, room;
    atomic_size_t        next;
    atomic_bool          stop;
    pthread_mutex_t      lock;             /* of st and err                                       */
    rv_status            st;
    rv_error             err;
} writing;

static void give_up(writing *w, const rv_error *why) {
    pthread_mutex_lock(&w->lock);
    if (!w->st) w->st = why->code, w->err = *why;
    pthread_mutex_unlock(&w->lock);
    atomic_store(&w->stop, true);
}

static bool write_at(int fd, const char *data, uint64_t bytes, uint64_t at) {
    while (bytes) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return errno = n ? errno : ENOSPC, false;
        data += n;
        bytes -= (uint64_t)n;
        at += (uint64_t)n;
    }
    return true;
}

rv_status rv_shards_put(rv_shards *s, size_t i, uint64_t at, const void *data, uint64_t bytes, rv_error *err) {
    const rv_shard_tensor *t = &s->tensors[i];
    const rv_shard *f = &s->files[t->file];
    if (!write_at(s->fd[t->file - s->first_open], data, bytes, f->header.bytes + t->at + at)) return rv_folder_fail(s->folder, f->name, err);
    atomic_fetch_add(&s->done, bytes);
    return RV_OK;
}

/* Takes units until there are none; only the calling thread reports progress. */
static void work(writing *w, bool caller) {
    const rv_shard_work *job = w->work;
    rv_error why = { 0 };
    void *memory = malloc(job->memory_bytes ? job->memory_bytes : 1);
    if (!memory) rv_fail_memory(&why, "model files"), give_up(w, &why);
    for (size_t i; !atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->n_units;) {
        if (job->run(job->user, w->s, w->units[i].tensor, w->units[i].index, memory, &why)) {
            give_up(w, &why);
            break;
        }
        float done = (float)((double)atomic_load(&w->s->done) / (double)w->s->bytes);
        if (caller && job->progress && job->progress(job->progress_user, done)) {
            rv_fail(&why, RV_ERR_CANCELLED, "writing was stopped by the progress callback");
            give_up(w, &why);
        }
    }
    free(memory);
}

static void *helper(void *user) {
    work(user, false);
    return NULL;
}

static void run(writing *w) {
    cpu_set_t cores;
    pthread_t threads[MOST_THREADS];
    int wanted = w->work->threads, started = 0;
    if (wanted <= 0) wanted = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    if (wanted > MOST_THREADS) wanted = MOST_THREADS;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, helper, w) == 0) started++;
    work(w, true);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

static rv_status unit_add(writing *w, unit u, rv_error *err) {
    if (w->n_units == w->room) {
        size_t more = w->room ? w->room * 2 : 4096;
        unit *at = realloc(w->units, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "model files");
        w->units = at;
        w->room = more;
    }
    w->units[w->n_units++] = u;
    return RV_OK;
}

/* The units of `files` files from first_open on, one of each in turn. */
static rv_status deal(writing *w, size_t files, rv_error *err) {
    const rv_shards *s = w->s;
    unit at[RV_SHARDS_AT_ONCE];
    rv_status st = RV_OK;
    w->n_units = 0;
    for (size_t k = 0; k < files; k++) at[k] = (unit){ s->files[s->first_open + k].first, 0 };
    for (size_t left = files; left;) {
        left = 0;
        for (size_t k = 0; k < files; k++) {
            const size_t end = s->files[s->first_open + k].end;
            while (at[k].tensor < end && (s->tensors[at[k].tensor].joins || at[k].index == w->work->units(w->work->user, at[k].tensor)))
                at[k] = (unit){ at[k].tensor + 1, 0 };
            if (at[k].tensor == end) continue;
            TRY(unit_add(w, at[k], err));
            at[k].index++;
            left++;
        }
    }
done:
    return st;
}

/* Opens a file, takes its room on the disk and writes its header; -1 and an error when that failed. */
static int shard_open(const rv_shards *s, const rv_shard *file, rv_error *err) {
    int fd = rv_folder_open(s->folder, file->name, err);
    if (fd < 0) return fd;
    bool good = true;
    /* Some file systems have no fallocate: then writing finds out whether there is room. */
    const off_t bytes = (off_t)(file->header.bytes + file->bytes);
    if ((s->sparse ? ftruncate(fd, bytes) : fallocate(fd, 0, 0, bytes)) && (s->sparse || errno == ENOSPC || errno == EFBIG)) good = false;
    if (good) good = write_at(fd, file->header.data, file->header.bytes, 0);
    if (!good) rv_folder_fail(s->folder, file->name, err), close(fd), fd = -1;
    return fd;
}

static rv_status write_some(writing *w, size_t files, rv_error *err) {
    rv_shards *s = w->s;
    size_t opened = 0;
    rv_error why = { 0 };
    rv_status st = deal(w, files, err);
    if (st) return st;
    atomic_store(&w->next, 0);
    for (; opened < files; opened++)
        if ((s->fd[opened] = shard_open(s, &s->files[s->first_open + opened], &why)) < 0) {
            give_up(w, &why);
            break;
        }
    if (opened == files) run(w);
    for (size_t k = 0; k < opened; k++)
        if (close(s->fd[k])) rv_folder_fail(s->folder, s->files[s->first_open + k].name, &why), give_up(w, &why);
    if (w->st && err) *err = w->err;
    return w->st;
}

static rv_status write_index(const rv_shards *s, rv_error *err) {
    rv_string index = { 0 };
    rv_string_addf(&index, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {", s->bytes);
    for (size_t i = 0; i < s->n; i++)
        rv_string_addf(&index, "%s\n    \"%s\": \"%s\"", i ? "," : "", s->tensors[i].name, s->files[s->tensors[i].file].name);
    rv_string_addz(&index, "\n  }\n}\n");
    rv_status st = index.failed ? rv_fail_memory(err, "shard index") : rv_folder_write(s->folder, INDEX_NAME, index.data, index.bytes, err);
    rv_string_free(&index);
    return st;
}

void rv_shards_name(const rv_shards *s, rv_folder *folder) {
    if (s->n_files != 1) rv_folder_add(folder, INDEX_NAME);
    for (size_t k = 0; k < s->n_files; k++) rv_folder_add(folder, s->files[k].name);
}

rv_status rv_shards_write(rv_shards *s, const rv_folder *folder, const rv_shard_work *job, rv_error *err) {
    writing w = { .s = s, .work = job };
    rv_status st = RV_OK;
    s->folder = folder;
    atomic_store(&s->done, 0);
    pthread_mutex_init(&w.lock, NULL);
    for (s->first_open = 0; s->first_open < s->n_files; s->first_open += RV_SHARDS_AT_ONCE) {
        size_t left = s->n_files - s->first_open;
        TRY(write_some(&w, left < RV_SHARDS_AT_ONCE ? left : RV_SHARDS_AT_ONCE, err));
    }
    if (s->n_files != 1) TRY(write_index(s, err));
done:
    pthread_mutex_destroy(&w.lock);
    free(w.units);
    return st;
}
