/* synth_files.c - the safetensors files of a synthetic checkpoint, written by every core.
 *
 * The one idea: the numbers are cut into pieces of two million; a thread takes the next piece, computes it and writes
 * it where it belongs.  Pieces are dealt out over several files in turn, because the kernel lets only one thread
 * write into a file at a time.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/synth.h"

enum { PIECE = 1 << 21, FILES_AT_ONCE = 8, MOST_THREADS = 64, MOST_SHARDS = 99999 };
#define INDEX_NAME "model.safetensors.index.json"
#define PARTIAL ".partial"

/* ---- the plan ---- */

static uint64_t bytes_of(const rv_synth_set *set, size_t i) {
    return (uint64_t)set->want[i].elements * rv_dtype_size(set->spec.type);
}

static rv_status want_add(void *user, const rv_tensor_want *want, rv_error *err) {
    rv_synth_set *set = user;
    if (set->n == set->room) {
        size_t more = set->room ? set->room * 2 : 256;
        rv_tensor_want *at = realloc(set->want, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "tensor list");
        set->want = at;
        set->room = more;
    }
    uint64_t bytes = (uint64_t)want->elements * rv_dtype_size(set->spec.type);
    if (bytes > INT64_MAX / 4 || set->bytes > INT64_MAX / 4)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "tensor %s: a checkpoint of this shape is too large for any disk", want->name);
    set->parameters += (uint64_t)want->elements;
    set->bytes += bytes;
    set->want[set->n++] = *want;
    return RV_OK;
}

/* As Hugging Face cuts: a tensor that does not fit any more begins the next file. */
static bool begins_shard(const rv_synth_set *set, size_t i, uint64_t bytes_before, size_t shards_before) {
    if (i == 0) return true;
    if (!set->spec.shards) return bytes_before + bytes_of(set, i) > set->spec.shard_bytes;
    return shards_before < set->spec.shards && i >= set->n * shards_before / set->spec.shards;
}

static rv_status cut(rv_synth_set *set, rv_error *err) {
    uint64_t bytes = 0;
    set->at = malloc(set->n * sizeof *set->at);
    set->shards = calloc(set->n, sizeof *set->shards);
    if (!set->at || !set->shards) return rv_fail_memory(err, "shard list");
    for (size_t i = 0; i < set->n; i++) {
        if (begins_shard(set, i, bytes, set->n_shards)) {
            if (set->n_shards == MOST_SHARDS)
                return rv_fail(err, RV_ERR_ARGUMENT, "shards of %" PRIu64 " bytes: that makes more than %d files; take larger ones",
                               set->spec.shard_bytes, MOST_SHARDS);
            set->shards[set->n_shards++].first = i;
            bytes = 0;
        }
        rv_synth_shard *s = &set->shards[set->n_shards - 1];
        set->at[i] = bytes;
        bytes += bytes_of(set, i);
        s->bytes = bytes;
        s->end = i + 1;
    }
    return RV_OK;
}

static void add_file_name(rv_string *s, rv_layout layout, const rv_tensor_want *want) {
    static const char *const prefix[2][RV_PARTS] = {
        { [RV_IN_TEXT] = "language_model.model", [RV_IN_HEAD] = "language_model.lm_head",
          [RV_IN_VISION] = "vision_model", [RV_IN_PROJECTOR] = "multi_modal_projector" },
        { [RV_IN_TEXT] = "model.language_model", [RV_IN_HEAD] = "lm_head",
          [RV_IN_VISION] = "model.vision_model", [RV_IN_PROJECTOR] = "model.multi_modal_projector" } };
    rv_string_addf(s, "%s%s", prefix[layout == RV_LAYOUT_NEW][want->row->part], strchr(want->name, '.'));
}

static void make_header(const rv_synth_set *set, rv_synth_shard *shard) {
    static const char *const types[] = { [RV_F32] = "F32", [RV_F16] = "F16", [RV_BF16] = "BF16" };
    rv_string *s = &shard->header;
    rv_string_add(s, "\0\0\0\0\0\0\0\0", 8);
    rv_string_addz(s, "{\"__metadata__\":{\"format\":\"pt\"}");            /* transformers insists on it */
    for (size_t i = shard->first; i < shard->end; i++) {
        const rv_tensor_want *w = &set->want[i];
        rv_string_addz(s, ",\"");
        add_file_name(s, set->spec.layout, w);
        rv_string_addf(s, "\":{\"dtype\":\"%s\",\"shape\":[", types[set->spec.type]);
        for (int32_t d = 0; d < w->n_dims; d++) rv_string_addf(s, "%s%" PRId64, d ? "," : "", w->shape[d]);
        rv_string_addf(s, "],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", set->at[i], set->at[i] + bytes_of(set, i));
    }
    rv_string_addz(s, "}");
    while (s->bytes % 8 && !s->failed) rv_string_addz(s, " ");
    for (size_t i = 0; i < 8 && !s->failed; i++) s->data[i] = (char)((uint64_t)(s->bytes - 8) >> 8 * i & 0xff);
}

rv_status rv_synth_set_plan(const rv_config *config, const rv_synth_spec *spec, rv_synth_set *out, rv_error *err) {
    rv_status st = RV_OK;
    *out = (rv_synth_set){ .config = config, .spec = *spec };
    TRY(rv_weights_each(config, want_add, out, err));
    TRY(cut(out, err));
    for (size_t k = 0; k < out->n_shards; k++) {
        rv_synth_shard *s = &out->shards[k];
        if (out->n_shards == 1) snprintf(s->name, sizeof s->name, "model.safetensors");
        else snprintf(s->name, sizeof s->name, "model-%05zu-of-%05zu.safetensors", k + 1, out->n_shards);
        make_header(out, s);
        if (s->header.failed) TRY(rv_fail_memory(err, "shard header"));
        out->file_bytes += s->header.bytes + s->bytes;
    }
done:
    return st;
}

void rv_synth_set_free(rv_synth_set *set) {
    for (size_t k = 0; set->shards && k < set->n_shards; k++) rv_string_free(&set->shards[k].header);
    free(set->want);
    free(set->at);
    free(set->shards);
    *set = (rv_synth_set){ 0 };
}

/* ---- writing ---- */

typedef struct piece { uint32_t shard, tensor; uint64_t from; } piece;

typedef struct writing {
    const rv_synth_set *set;
    const char         *dir;
    int                 fd[FILES_AT_ONCE];
    size_t              first_shard;       /* fd[k] is that of first_shard + k                  */
    piece              *pieces;
    size_t              n_pieces, room;
    atomic_size_t       next;
    atomic_bool         stop;
    _Atomic uint64_t    done;
    rv_progress_fn      progress;
    void               *user;
    pthread_mutex_t     lock;              /* of st and err                                     */
    rv_status           st;
    rv_error            err;
} writing;

static void give_up(writing *w, rv_status code, const char *file, const char *why) {
    pthread_mutex_lock(&w->lock);
    if (!w->st) w->st = file ? rv_fail(&w->err, code, "%s/%s: cannot write: %s", w->dir, file, why) : rv_fail(&w->err, code, "%s", why);
    pthread_mutex_unlock(&w->lock);
    atomic_store(&w->stop, true);
}

static bool write_at(int fd, const char *data, size_t bytes, uint64_t at) {
    while (bytes) {
        ssize_t n = pwrite(fd, data, bytes, (off_t)at);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return errno = n ? errno : ENOSPC, false;
        data += n;
        bytes -= (size_t)n;
        at += (uint64_t)n;
    }
    return true;
}

/* Takes pieces until there are none; only the calling thread reports progress. */
static void work(writing *w, bool caller) {
    const rv_synth_set *set = w->set;
    const size_t size = rv_dtype_size(set->spec.type);
    char *memory = malloc((size_t)PIECE * size);
    if (!memory) give_up(w, RV_ERR_MEMORY, NULL, "synthetic checkpoint: out of memory");
    for (size_t i; !atomic_load(&w->stop) && (i = atomic_fetch_add(&w->next, 1)) < w->n_pieces;) {
        const piece *p = &w->pieces[i];
        const rv_tensor_want *want = &set->want[p->tensor];
        const rv_synth_shard *shard = &set->shards[p->shard];
        uint64_t n = (uint64_t)want->elements - p->from;
        if (n > PIECE) n = PIECE;
        rv_synth_tensor(&set->spec, set->config, want, p->from, n, memory);
        if (!write_at(w->fd[p->shard - w->first_shard], memory, (size_t)n * size,
                      shard->header.bytes + set->at[p->tensor] + p->from * size))
            give_up(w, RV_ERR_IO, shard->name, strerror(errno));
        uint64_t done = atomic_fetch_add(&w->done, n * size) + n * size;
        if (caller && w->progress && w->progress(w->user, (float)((double)done / (double)set->bytes)))
            give_up(w, RV_ERR_CANCELLED, NULL, "writing was stopped by the progress callback");
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
    int wanted = w->set->spec.threads, started = 0;
    if (wanted <= 0) wanted = sched_getaffinity(0, sizeof cores, &cores) == 0 ? CPU_COUNT(&cores) : 1;
    if (wanted > MOST_THREADS) wanted = MOST_THREADS;
    while (started + 1 < wanted && pthread_create(&threads[started], NULL, helper, w) == 0) started++;
    work(w, true);
    for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
}

static rv_status piece_add(writing *w, piece p, rv_error *err) {
    if (w->n_pieces == w->room) {
        size_t more = w->room ? w->room * 2 : 4096;
        piece *at = realloc(w->pieces, more * sizeof *at);
        if (!at) return rv_fail_memory(err, "synthetic checkpoint");
        w->pieces = at;
        w->room = more;
    }
    w->pieces[w->n_pieces++] = p;
    return RV_OK;
}

/* The pieces of `files` shards from first_shard on, one of each in turn. */
static rv_status deal(writing *w, size_t files, rv_error *err) {
    const rv_synth_set *set = w->set;
    struct { size_t tensor; uint64_t from; } at[FILES_AT_ONCE];
    rv_status st = RV_OK;
    w->n_pieces = 0;
    for (size_t k = 0; k < files; k++) at[k].tensor = set->shards[w->first_shard + k].first, at[k].from = 0;
    for (size_t left = files; left;) {
        left = 0;
        for (size_t k = 0; k < files; k++) {
            if (at[k].tensor == set->shards[w->first_shard + k].end) continue;
            TRY(piece_add(w, (piece){ (uint32_t)(w->first_shard + k), (uint32_t)at[k].tensor, at[k].from }, err));
            at[k].from += PIECE;
            if (at[k].from >= (uint64_t)set->want[at[k].tensor].elements) at[k].tensor++, at[k].from = 0;
            left++;
        }
    }
done:
    return st;
}

static char *path_of(const char *dir, const char *name, const char *end) {
    rv_string s = { 0 };
    rv_string_addf(&s, "%s/%s%s", dir, name, end);
    if (!s.failed) return s.data;
    rv_string_free(&s);
    return NULL;
}

/* Opens a shard, takes its room on the disk and writes its header; -1 after reporting what failed. */
static int shard_open(writing *w, const rv_synth_shard *shard) {
    char *path = path_of(w->dir, shard->name, PARTIAL);
    if (!path) return give_up(w, RV_ERR_MEMORY, NULL, "synthetic checkpoint: out of memory"), -1;
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    free(path);
    bool good = fd >= 0;
    /* Some file systems have no fallocate: then writing finds out whether there is room. */
    if (good && fallocate(fd, 0, 0, (off_t)(shard->header.bytes + shard->bytes)) && (errno == ENOSPC || errno == EFBIG)) good = false;
    if (good) good = write_at(fd, shard->header.data, shard->header.bytes, 0);
    if (!good) give_up(w, RV_ERR_IO, shard->name, strerror(errno));
    if (!good && fd >= 0) close(fd), fd = -1;
    return fd;
}

static rv_status write_some(writing *w, size_t files, rv_error *err) {
    size_t opened = 0;
    rv_status st = deal(w, files, err);
    if (st) return st;
    atomic_store(&w->next, 0);
    for (; opened < files; opened++)
        if ((w->fd[opened] = shard_open(w, &w->set->shards[w->first_shard + opened])) < 0) break;
    if (opened == files) run(w);
    for (size_t k = 0; k < opened; k++)
        if (close(w->fd[k])) give_up(w, RV_ERR_IO, w->set->shards[w->first_shard + k].name, strerror(errno));
    if (w->st && err) *err = w->err;
    return w->st;
}

rv_status rv_synth_set_write(const rv_synth_set *set, const char *dir, rv_progress_fn progress, void *user, rv_error *err) {
    writing w = { .set = set, .dir = dir, .progress = progress, .user = user };
    rv_status st = RV_OK;
    pthread_mutex_init(&w.lock, NULL);
    for (; w.first_shard < set->n_shards; w.first_shard += FILES_AT_ONCE) {
        size_t left = set->n_shards - w.first_shard;
        TRY(write_some(&w, left < FILES_AT_ONCE ? left : FILES_AT_ONCE, err));
    }
done:
    pthread_mutex_destroy(&w.lock);
    free(w.pieces);
    if (st) rv_synth_set_remove(set, dir);
    return st;
}

/* ---- names ---- */

static rv_status shard_rename(const char *dir, const char *name, rv_error *err) {
    char *from = path_of(dir, name, PARTIAL), *to = path_of(dir, name, "");
    rv_status st = RV_OK;
    if (!from || !to) TRY(rv_fail_memory(err, "synthetic checkpoint"));
    if (rename(from, to)) TRY(rv_fail(err, RV_ERR_IO, "%s: cannot rename: %s", from, strerror(errno)));
done:
    free(from);
    free(to);
    return st;
}

rv_status rv_synth_set_publish(const rv_synth_set *set, const char *dir, rv_error *err) {
    rv_string index = { 0 };
    char *path = path_of(dir, INDEX_NAME, "");
    rv_status st = RV_OK;
    if (!path) TRY(rv_fail_memory(err, "shard index"));
    for (size_t k = 0; k < set->n_shards; k++) TRY(shard_rename(dir, set->shards[k].name, err));
    if (set->n_shards == 1) goto done;
    rv_string_addf(&index, "{\n  \"metadata\": {\"total_size\": %" PRIu64 "},\n  \"weight_map\": {", set->bytes);
    for (size_t k = 0, i = 0; k < set->n_shards; k++)
        for (; i < set->shards[k].end; i++) {
            rv_string_addz(&index, i ? ",\n    \"" : "\n    \"");
            add_file_name(&index, set->spec.layout, &set->want[i]);
            rv_string_addf(&index, "\": \"%s\"", set->shards[k].name);
        }
    rv_string_addz(&index, "\n  }\n}\n");
    if (index.failed) TRY(rv_fail_memory(err, "shard index"));
    TRY(rv_file_write(path, index.data, index.bytes, err));
done:
    if (st) rv_synth_set_remove(set, dir);
    rv_string_free(&index);
    free(path);
    return st;
}

void rv_synth_set_remove(const rv_synth_set *set, const char *dir) {
    static const char *const ends[] = { PARTIAL, "" };
    for (size_t k = 0; k < set->n_shards; k++)
        for (size_t e = 0; e < 2; e++) {
            char *path = path_of(dir, set->shards[k].name, ends[e]);
            if (path) unlink(path);
            free(path);
        }
}
