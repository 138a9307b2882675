/* load.c - weights from mapped files to the device, as fast as the slower of disk and bus.
 *
 * The one idea: several threads each take a piece of the next tensor, touch its pages (which reads them
 * from disk), copy it into their own pinned buffer, and send it off on their own stream; the two buffers of a thread take
 * turns.  What the device keeps in another type or layout than the file's lands in a buffer there first, as it is, and is
 * made into that behind the copy, and looked through for NaN; no thread waits for it.  A file that already has the device's layout goes the same way.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "engine/base/quant.h"
#include "kernels/cuda/open.h"

enum { READERS_LEAST = 8,                /* that many reads a disk has in flight                 */
       READERS_MOST = 16,                /* that many cores read and check a file faster than the bus */
       READERS_MAPPED = 13,              /* and copy from mapped files: more get in one another's way */
       STREAMS = 4,                      /* readers share them: making one takes 2 ms            */
       BUFFERS = 2,
       ASK_BYTES = 128 << 10,            /* of one hint: a system may cut it to its usual read-ahead */
       NAME_BYTES = 128 };               /* of an item, for messages                              */
#define PIECE_BYTES (UINT64_C(8) << 20)

typedef struct reader {
    rv_loader   *loader;
    pthread_t    thread;
    cudaStream_t stream;                 /* one of the loader's                                  */
    cudaEvent_t  free[BUFFERS];
    char        *pinned;                 /* its buffers, one behind the other                    */
    int          turn;
    bool         started;
    rv_load_parts parts;
} reader;

typedef struct item_name { char text[NAME_BYTES]; } item_name;

struct rv_loader {
    rv_cuda        *cuda;
    pthread_mutex_t lock;
    pthread_cond_t  work, idle;
    rv_load_item   *items;
    int32_t        *to_land;             /* per item: rows whose work is not yet queued           */
    item_name      *names;               /* per item                                              */
    int32_t        *bad;                 /* device: the first item with NaN or infinity, or NONE  */
    size_t          n_items, room, at;   /* `at`: the item pieces are cut from                    */
    int32_t         row;                 /* its next row                                          */
    rv_fill         fill;                /* a file, before all items; bytes 0: none               */
    char           *fill_to;
    uint64_t        fill_at;             /* how far pieces of it are cut                          */
    char           *staging;             /* device, a buffer for each pinned one; taken when first needed */
    cudaStream_t    streams[STREAMS], after;     /* after: what needs whole items                 */
    cudaEvent_t     landed;              /* for it to wait for, under `lock`                      */
    int32_t         bad_on_host;         /* the same of what stays on the host                    */
    int             busy;
    bool            closing;
    cudaError_t     error;
    bool            unpinned;            /* it is that of a reader without memory                 */
    int32_t         n_readers;
    reader          readers[READERS_MOST];
};

typedef struct piece { rv_load_item item; size_t index; int32_t from, rows; bool of_file; uint64_t at, bytes; } piece;

static bool work_left(const rv_loader *l) { return l->fill_at < l->fill.bytes || l->at < l->n_items; }

/* Cuts the next piece: whole rows (whole blocks, where rows go in blocks), at most a buffer full. */
static bool next_piece(rv_loader *l, piece *p) {
    if (l->fill_at < l->fill.bytes) {
        const uint64_t left = l->fill.bytes - l->fill_at;
        *p = (piece){ .of_file = true, .at = l->fill_at, .bytes = left < RV_FILL_PIECE ? left : RV_FILL_PIECE };
        l->fill_at += p->bytes;
        return true;
    }
    if (l->at == l->n_items) return false;
    rv_load_item *item = &l->items[l->at];
    uint64_t row = (uint64_t)item->cols * rv_dtype_size(item->type_from);
    int32_t rows = (int32_t)(PIECE_BYTES / row);
    if (rows < 1) rows = 1;
    if (item->block && rows > item->block) rows -= rows % item->block;
    if (rows > item->rows - l->row) rows = item->rows - l->row;
    *p = (piece){ .item = *item, .index = l->at, .from = l->row, .rows = rows };
    l->row += rows;
    if (l->row == item->rows) l->at++, l->row = 0;
    return true;
}

static bool is_cached(uintptr_t page) {
    unsigned char there = 0;
    return mincore((void *)page, 1, &there) == 0 && there & 1;
}

/* Asks for all of the pages before waiting for the first, then maps them in one go instead of fault by fault. Without the
 * first call a reader waits for one small read after the other; where the pages are there, it costs a tenth of the copy.
 * Hints alone: failure does not matter. */
static void populate(const void *from, uint64_t bytes) {
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE), start = (uintptr_t)from & ~(page - 1), end = (uintptr_t)from + bytes;
    if (!is_cached(start) || !is_cached((end - 1) & ~(page - 1)))
        for (uintptr_t at = start; at < end; at += ASK_BYTES)
            madvise((void *)at, end - at < ASK_BYTES ? end - at : ASK_BYTES, MADV_WILLNEED);
#ifdef MADV_POPULATE_READ
    madvise((void *)start, end - start, MADV_POPULATE_READ);
#endif
}

/* ---- a piece ---- */

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static uint64_t row_bytes(const rv_load_item *item) { return (uint64_t)item->cols * rv_dtype_size(item->type_from); }
static char *buffer_of(const reader *r, int i) { return r->pinned + (uint64_t)i * PIECE_BYTES; }

/* The device's buffer beside this pinned one; NULL: *e says why. */
static char *staging_of(const reader *r, int i, cudaError_t *e) {
    rv_loader *l = r->loader;
    pthread_mutex_lock(&l->lock);
    void *taken = l->staging;
    if (!taken && !(*e = cudaMalloc(&taken, (size_t)l->n_readers * BUFFERS * PIECE_BYTES))) l->staging = taken;
    pthread_mutex_unlock(&l->lock);
    return *e ? NULL : (char *)taken + ((uint64_t)(r - l->readers) * BUFFERS + (uint64_t)i) * PIECE_BYTES;
}

/* Behind what brought the piece: NaN among its numbers would be no code, or a wrong one, and nobody would see it in an answer. */
static cudaError_t look(const reader *r, const piece *p, const void *data, int64_t runs, int64_t pitch) {
    const rv_load_item *item = &p->item;
    return rv_cuda_find_bad(data, item->type_from, runs, (int64_t)p->rows * item->cols / runs, pitch, item->in_f16, (int32_t)p->index, r->loader->bad, r->stream);
}

static void look_on_host(rv_loader *l, const piece *p, const void *data) {
    if (rv_all_finite(data, p->item.type_from, (int64_t)p->rows * p->item.cols)) return;
    pthread_mutex_lock(&l->lock);
    if ((int32_t)p->index < l->bad_on_host) l->bad_on_host = (int32_t)p->index;
    pthread_mutex_unlock(&l->lock);
}

/* All work on the item is queued: behind it, on a stream of its own, what needs all of it. */
static cudaError_t finish_item(rv_loader *l, const rv_load_item *item) {
    cudaError_t e = cudaSuccess;
    for (int i = 0; !e && i < STREAMS; i++) {
        e = cudaEventRecord(l->landed, l->streams[i]);
        if (!e) e = cudaStreamWaitEvent(l->after, l->landed, 0);
    }
    return e ? e : item->landed(item, l->after);
}

/* The piece lies in the buffer: to the device as it is, and behind it what is to be made of it. */
static cudaError_t land(reader *r, const piece *p, int i) {
    rv_loader *l = r->loader;
    const rv_load_item *item = &p->item;
    cudaError_t e = cudaSuccess;
    char *staging = staging_of(r, i, &e);
    if (!e) e = cudaMemcpyAsync(staging, buffer_of(r, i), (uint64_t)p->rows * row_bytes(item), cudaMemcpyHostToDevice, r->stream);
    if (!e && rv_dtype_is_float(item->type_from)) e = look(r, p, staging, 1, 0);
    if (!e && item->land) e = item->land(item, staging, p->from, p->rows, r->stream);
    else if (!e) e = rv_cuda_convert(item->to, l->cuda->be.act, item->block, item->stride, staging, item->type_from, p->from, p->rows, item->cols, r->stream);
    if (!e) e = cudaEventRecord(r->free[i], r->stream);
    if (e || !item->landed) return e;
    pthread_mutex_lock(&l->lock);
    if ((l->to_land[p->index] -= p->rows) == 0) e = finish_item(l, item);
    pthread_mutex_unlock(&l->lock);
    return e;
}

/* Read rather than mapped: a file that is cut short meanwhile is no bus error, and no page is mapped for one use. */
static cudaError_t send_file(reader *r, const piece *p, int i) {
    const rv_loader *l = r->loader;
    char *buffer = buffer_of(r, i);
    const double start = now_ms();
    uint64_t got = 0;
    while (got < p->bytes) {
        ssize_t n = pread(l->fill.fd, buffer + got, p->bytes - got, (off_t)(l->fill.at + p->at + got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (uint64_t)n;
    }
    const double read = now_ms();
    r->parts.read_ms += read - start;
    l->fill.seen(l->fill.user, p->at / RV_FILL_PIECE, got == p->bytes ? buffer : NULL, p->bytes);
    r->parts.check_ms += now_ms() - read;
    if (got < p->bytes) return cudaSuccess;
    cudaError_t e = cudaMemcpyAsync(l->fill_to + p->at, buffer, p->bytes, cudaMemcpyHostToDevice, r->stream);
    return e ? e : cudaEventRecord(r->free[i], r->stream);
}

static void read_piece(reader *r, const piece *p, char *to) {
    const uint64_t row = row_bytes(&p->item), bytes = (uint64_t)p->rows * row;
    const char *from = (const char *)p->item.from + (uint64_t)p->from * row;
    const double start = now_ms();
    populate(from, bytes);
    memcpy(to, from, bytes);
    r->parts.read_ms += now_ms() - start;
}

/* The buffer straight to where it stays. */
static cudaError_t place(reader *r, const piece *p, int i) {
    const rv_load_item *item = &p->item;
    const uint64_t row = row_bytes(item), block = (uint64_t)item->block * row, stride = (uint64_t)item->stride * row;
    char *to = item->to;
    cudaError_t e;
    if (!item->block) {
        to += (uint64_t)p->from * row;
        e = cudaMemcpyAsync(to, buffer_of(r, i), (uint64_t)p->rows * row, cudaMemcpyHostToDevice, r->stream);
        if (!e) e = look(r, p, to, 1, 0);
    } else {
        const size_t blocks = (size_t)(p->rows / item->block);
        to += (uint64_t)(p->from / item->block) * stride;
        e = cudaMemcpy2DAsync(to, stride, buffer_of(r, i), block, block, blocks, cudaMemcpyHostToDevice, r->stream);
        if (!e) e = look(r, p, to, (int64_t)blocks, (int64_t)item->stride * item->cols);
    }
    return e ? e : cudaEventRecord(r->free[i], r->stream);
}

static cudaError_t send(reader *r, const piece *p) {
    const rv_load_item *item = &p->item;
    const bool as_it_is = !p->of_file && !item->land && item->type_from == r->loader->cuda->be.act;
    if (as_it_is && item->on_host) {
        char *to = (char *)item->to + (uint64_t)p->from * row_bytes(item);
        read_piece(r, p, to);
        look_on_host(r->loader, p, to);
        return cudaSuccess;
    }
    const int i = r->turn++ % BUFFERS;
    double start = now_ms();
    cudaError_t e = cudaEventSynchronize(r->free[i]);
    r->parts.bus_ms += now_ms() - start;
    if (e) return e;
    if (p->of_file) return send_file(r, p, i);
    read_piece(r, p, buffer_of(r, i));
    start = now_ms();
    e = as_it_is ? place(r, p, i) : land(r, p, i);
    r->parts.queue_ms += now_ms() - start;
    return e;
}

/* ---- readers ---- */

static void *run(void *user) {
    reader *r = user;
    rv_loader *l = r->loader;
    piece p;
    const double start = now_ms();
    cudaError_t pinned = cudaSetDevice(l->cuda->device);
    if (!pinned) pinned = rv_cuda_pin(BUFFERS * PIECE_BYTES, &r->pinned);
    pthread_mutex_lock(&l->lock);
    r->parts.start_ms = now_ms() - start;
    if (pinned && !l->error) l->error = pinned, l->unpinned = pinned == cudaErrorMemoryAllocation;
    for (;;) {
        while (!l->closing && !work_left(l)) pthread_cond_wait(&l->work, &l->lock);
        if (!next_piece(l, &p)) break;
        const bool goes_on = r->pinned && !l->error;         /* what nobody will use is not read     */
        l->busy++;
        pthread_mutex_unlock(&l->lock);
        const cudaError_t e = goes_on ? send(r, &p) : cudaSuccess;
        pthread_mutex_lock(&l->lock);
        if (e && !l->error) l->error = e;
        if (--l->busy == 0 && !work_left(l)) pthread_cond_broadcast(&l->idle);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static cudaError_t open_reader(reader *r, rv_loader *l) {
    r->loader = l;
    r->stream = l->streams[(r - l->readers) % STREAMS];
    cudaError_t e = cudaSuccess;
    for (int i = 0; !e && i < BUFFERS; i++) e = cudaEventCreateWithFlags(&r->free[i], cudaEventDisableTiming);
    return e;
}

static int32_t count_readers(int32_t most) {
    const long cores = sysconf(_SC_NPROCESSORS_ONLN);
    return cores < READERS_LEAST ? READERS_LEAST : cores > most ? most : (int32_t)cores;
}

uint64_t rv_loader_bytes(void) { return (uint64_t)count_readers(READERS_MOST) * BUFFERS * PIECE_BYTES; }

static cudaError_t forget_bad(rv_loader *l) {
    static const int32_t none = INT32_MAX;
    l->bad_on_host = none;
    return cudaMemcpy(l->bad, &none, sizeof none, cudaMemcpyHostToDevice);
}

static void no_pinned_memory(const rv_loader *l, cudaError_t e) {
    rv_fail(&l->cuda->be.error, RV_ERR_MEMORY, "GPU %d: a reader of weights gets no %d MB of pinned memory (%s): free memory of the host", l->cuda->device,
            (int)(BUFFERS * (PIECE_BYTES >> 20)), cudaGetErrorString(e));
}

rv_loader *rv_loader_open(rv_cuda *c, bool fills) {
    rv_loader *l = calloc(1, sizeof *l);
    if (!l) return rv_fail_memory(&c->be.error, "loader"), NULL;
    l->cuda = c;
    l->n_readers = count_readers(fills ? READERS_MOST : READERS_MAPPED);
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->idle, NULL);
    cudaError_t e = cudaStreamCreateWithFlags(&l->after, cudaStreamNonBlocking);
    if (!e) e = cudaEventCreateWithFlags(&l->landed, cudaEventDisableTiming);
    if (!e) e = cudaMalloc((void **)&l->bad, sizeof *l->bad);
    if (!e) e = forget_bad(l);
    for (int i = 0; !e && i < STREAMS; i++) e = cudaStreamCreateWithFlags(&l->streams[i], cudaStreamNonBlocking);
    for (int i = 0; !e && i < l->n_readers; i++) e = open_reader(&l->readers[i], l);
    int started = 0;                     /* fewer are slower, and no worse                       */
    for (int i = 0; !e && i < l->n_readers; i++) started += l->readers[i].started = pthread_create(&l->readers[i].thread, NULL, run, &l->readers[i]) == 0;
    if (started) return l;
    if (e) rv_cuda_failed(c, e, "starting to load");
    else rv_fail(&c->be.error, RV_ERR_MEMORY, "GPU %d: no thread to read weights: allow this process more threads, or free memory of the host", c->device);
    rv_loader_close(l);
    return NULL;
}

void rv_loader_add(rv_loader *l, const rv_load_item *item) {
    if ((uint64_t)item->cols * 4 * (uint64_t)(item->land && item->block ? item->block : 1) > PIECE_BYTES || item->rows < 1) {
        rv_fail(&l->cuda->be.error, RV_ERR_INTERNAL, "loader: row of %d columns", item->cols);
        return;
    }
    pthread_mutex_lock(&l->lock);
    if (l->n_items == l->room) {
        size_t room = l->room ? 2 * l->room : 256;
        rv_load_item *items = realloc(l->items, room * sizeof *items);
        if (items) l->items = items;
        int32_t *to_land = realloc(l->to_land, room * sizeof *to_land);
        if (to_land) l->to_land = to_land;
        item_name *names = realloc(l->names, room * sizeof *names);
        if (names) l->names = names;
        if (items && to_land && names) l->room = room;
        else l->error = cudaErrorMemoryAllocation;
    }
    if (l->n_items < l->room) {
        l->to_land[l->n_items] = item->rows;
        snprintf(l->names[l->n_items].text, NAME_BYTES, "%s", item->name ? item->name : "a weight");
        l->items[l->n_items++] = *item;
        pthread_cond_broadcast(&l->work);
    }
    pthread_mutex_unlock(&l->lock);
}

void rv_loader_fill(rv_loader *l, void *to, const rv_fill *from) {
    pthread_mutex_lock(&l->lock);
    l->fill = *from;
    l->fill_to = to;
    l->fill_at = 0;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
}

/* A mean over the readers: they work side by side. */
static rv_load_parts sum_parts(const rv_loader *l) {
    rv_load_parts sum = { 0 };
    for (int i = 0; i < l->n_readers; i++) {
        const rv_load_parts *p = &l->readers[i].parts;
        sum.start_ms += p->start_ms / l->n_readers;
        sum.read_ms += p->read_ms / l->n_readers;
        sum.check_ms += p->check_ms / l->n_readers;
        sum.queue_ms += p->queue_ms / l->n_readers;
        sum.bus_ms += p->bus_ms / l->n_readers;
    }
    return sum;
}

/* All streams have been waited for. */
static cudaError_t tell_bad(rv_loader *l) {
    int32_t first = INT32_MAX;
    cudaError_t e = cudaMemcpy(&first, l->bad, sizeof first, cudaMemcpyDeviceToHost);
    if (l->bad_on_host < first) first = l->bad_on_host;
    if (e || first == INT32_MAX) return e;
    rv_error *error = &l->cuda->be.error;
    const rv_load_item *item = &l->items[first];
    const char *what = item->in_f16 ? "NaN, Inf, or numbers beyond 65504: it cannot be quantised" : item->land ? "NaN, Inf: it cannot be quantised" : "NaN or Inf";
    if (!error->code) rv_fail(error, RV_ERR_FORMAT, "%s: holds %s (rvengine inspect --check finds them)", l->names[first].text, what);
    return forget_bad(l);
}

void rv_loader_finish(rv_loader *l) {
    pthread_mutex_lock(&l->lock);
    while (l->busy || work_left(l)) pthread_cond_wait(&l->idle, &l->lock);
    cudaError_t e = l->error;
    l->n_items = l->at = 0;
    l->fill.bytes = l->fill_at = 0;
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; !e && i < STREAMS; i++) e = cudaStreamSynchronize(l->streams[i]);
    if (!e) e = cudaStreamSynchronize(l->after);
    if (!e) e = tell_bad(l);
    if (e && l->unpinned && !l->cuda->be.error.code) no_pinned_memory(l, e);
    else if (e) rv_cuda_failed(l->cuda, e, "copying weights to the device");
    l->cuda->be.load_parts = sum_parts(l);
}

bool rv_loader_busy(rv_loader *l) {
    pthread_mutex_lock(&l->lock);
    const bool busy = l->busy || work_left(l);
    pthread_mutex_unlock(&l->lock);
    return busy;
}

static void end_stream(cudaStream_t stream) {
    if (!stream) return;
    cudaStreamSynchronize(stream);
    cudaStreamDestroy(stream);
}

void rv_loader_close(rv_loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    l->n_items = l->at;
    l->fill_at = l->fill.bytes;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < l->n_readers; i++)
        if (l->readers[i].started) pthread_join(l->readers[i].thread, NULL);
    for (int i = 0; i < STREAMS; i++) end_stream(l->streams[i]);
    end_stream(l->after);
    for (int i = 0; i < l->n_readers; i++) {
        for (int b = 0; b < BUFFERS; b++)
            if (l->readers[i].free[b]) cudaEventDestroy(l->readers[i].free[b]);
        rv_cuda_unpin(l->readers[i].pinned, BUFFERS * PIECE_BYTES);
    }
    if (l->landed) cudaEventDestroy(l->landed);
    cudaFree(l->staging);
    cudaFree(l->bad);
    pthread_cond_destroy(&l->idle);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l->to_land);
    free(l->names);
    free(l->items);
    free(l);
}
