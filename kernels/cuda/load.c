/* load.c - weights from mapped files to the device, as fast as the slower of disk and bus.
 *
 * The one idea: several threads each take a piece of the next tensor, touch its pages (which reads them
 * from disk), copy or convert it into their own pinned buffer, and send it off on their own stream; the
 * two buffers of a thread take turns.  What the device keeps in another layout than the file's lands in a buffer there
 * first, as it is, and is made into that layout behind the copy.  A file that already has the device's layout goes the same way.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kernels/cuda/open.h"

enum { READERS = 8, BUFFERS = 2,
       ASK_BYTES = 128 << 10 };          /* of one hint: a system may cut it to its usual read-ahead */
#define PIECE_BYTES (UINT64_C(8) << 20)

typedef struct reader {
    rv_loader   *loader;
    pthread_t    thread;
    cudaStream_t stream;
    cudaEvent_t  free[BUFFERS];
    void        *buffer[BUFFERS];
    void        *staging[BUFFERS];       /* device; taken when first needed                      */
    int          turn;
    bool         started;
} reader;

struct rv_loader {
    rv_cuda        *cuda;
    pthread_mutex_t lock;
    pthread_cond_t  work, idle;
    rv_load_item   *items;
    int32_t        *to_land;             /* per item: rows that have not yet landed              */
    size_t          n_items, room, at;   /* `at`: the item pieces are cut from                    */
    int32_t         row;                 /* its next row                                          */
    rv_fill         fill;                /* a file, before all items; bytes 0: none               */
    char           *fill_to;
    uint64_t        fill_at;             /* how far pieces of it are cut                          */
    int             busy;
    bool            closing;
    cudaError_t     error;
    reader          readers[READERS];
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
    uint64_t row = (uint64_t)item->cols * rv_dtype_size(item->land ? item->type_from : l->cuda->be.act);
    int32_t rows = (int32_t)(PIECE_BYTES / row);
    if (rows < 1) rows = 1;
    if (item->block && rows > item->block) rows -= rows % item->block;
    if (rows > item->rows - l->row) rows = item->rows - l->row;
    *p = (piece){ .item = *item, .index = l->at, .from = l->row, .rows = rows };
    l->row += rows;
    if (l->row == item->rows) l->at++, l->row = 0;
    return true;
}

static float read_one(const void *from, rv_dtype type, uint64_t i) {
    if (type == RV_F32) {
        float f;
        memcpy(&f, (const char *)from + i * 4, 4);
        return f;
    }
    uint16_t h;
    memcpy(&h, (const char *)from + i * 2, 2);
    return type == RV_BF16 ? rv_bf16_to_f32(h) : rv_f16_to_f32(h);
}

static void convert(uint16_t *to, rv_dtype to_type, const void *from, rv_dtype type, uint64_t n) {
    if (to_type == type) memcpy(to, from, n * 2);
    else
        for (uint64_t i = 0; i < n; i++) {
            float f = read_one(from, type, i);
            to[i] = to_type == RV_BF16 ? rv_f32_to_bf16(f) : rv_f32_to_f16(f);
        }
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

/* The piece as it is, and behind it what is to be made of it. */
static cudaError_t land(reader *r, const piece *p, int i) {
    uint64_t row = (uint64_t)p->item.cols * rv_dtype_size(p->item.type_from), bytes = (uint64_t)p->rows * row;
    const char *from = (const char *)p->item.from + (uint64_t)p->from * row;
    cudaError_t e = r->staging[i] ? cudaSuccess : cudaMalloc(&r->staging[i], PIECE_BYTES);
    populate(from, bytes);
    memcpy(r->buffer[i], from, bytes);
    if (!e) e = cudaMemcpyAsync(r->staging[i], r->buffer[i], bytes, cudaMemcpyHostToDevice, r->stream);
    if (!e) e = p->item.land(&p->item, r->staging[i], p->from, p->rows, r->stream);
    if (!e) e = cudaEventRecord(r->free[i], r->stream);
    if (e || !p->item.landed) return e;
    if ((e = cudaStreamSynchronize(r->stream))) return e;
    pthread_mutex_lock(&r->loader->lock);
    bool last = (r->loader->to_land[p->index] -= p->rows) == 0;
    pthread_mutex_unlock(&r->loader->lock);
    return last ? p->item.landed(&p->item, r->stream) : cudaSuccess;
}

/* Read rather than mapped: a file that is cut short meanwhile is no bus error, and no page is mapped for one use. */
static cudaError_t send_file(reader *r, const piece *p, int i) {
    const rv_loader *l = r->loader;
    uint64_t got = 0;
    while (got < p->bytes) {
        ssize_t n = pread(l->fill.fd, (char *)r->buffer[i] + got, p->bytes - got, (off_t)(l->fill.at + p->at + got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (uint64_t)n;
    }
    l->fill.seen(l->fill.user, p->at / RV_FILL_PIECE, got == p->bytes ? r->buffer[i] : NULL, p->bytes);
    if (got < p->bytes) return cudaSuccess;
    cudaError_t e = cudaMemcpyAsync(l->fill_to + p->at, r->buffer[i], p->bytes, cudaMemcpyHostToDevice, r->stream);
    return e ? e : cudaEventRecord(r->free[i], r->stream);
}

/* Straight to where it stays. */
static cudaError_t keep(const piece *p, rv_dtype act) {
    uint64_t cols = (uint64_t)p->item.cols, n = (uint64_t)p->rows * cols, at = (uint64_t)p->from * cols;
    const char *from = (const char *)p->item.from + at * rv_dtype_size(p->item.type_from);
    populate(from, n * rv_dtype_size(p->item.type_from));
    convert((uint16_t *)p->item.to + at, act, from, p->item.type_from, n);
    return cudaSuccess;
}

static cudaError_t send(reader *r, const piece *p) {
    if (p->of_file) {
        int turn = r->turn++ % BUFFERS;
        cudaError_t e = cudaEventSynchronize(r->free[turn]);
        return e ? e : send_file(r, p, turn);
    }
    rv_dtype act = r->loader->cuda->be.act;
    if (p->item.on_host) return keep(p, act);
    uint64_t cols = (uint64_t)p->item.cols, row = cols * rv_dtype_size(act), size = rv_dtype_size(p->item.type_from);
    const char *from = (const char *)p->item.from + (uint64_t)p->from * cols * size;
    int i = r->turn++ % BUFFERS;
    cudaError_t e = cudaEventSynchronize(r->free[i]);
    if (e) return e;
    if (p->item.land) return land(r, p, i);
    populate(from, (uint64_t)p->rows * cols * size);
    convert(r->buffer[i], act, from, p->item.type_from, (uint64_t)p->rows * cols);
    if (!p->item.block)
        e = cudaMemcpyAsync((char *)p->item.to + (uint64_t)p->from * row, r->buffer[i], (uint64_t)p->rows * row, cudaMemcpyHostToDevice, r->stream);
    else {
        uint64_t block = (uint64_t)p->item.block * row, stride = (uint64_t)p->item.stride * row;
        e = cudaMemcpy2DAsync((char *)p->item.to + (uint64_t)(p->from / p->item.block) * stride, stride, r->buffer[i], block, block,
                              (size_t)(p->rows / p->item.block), cudaMemcpyHostToDevice, r->stream);
    }
    return e ? e : cudaEventRecord(r->free[i], r->stream);
}

static void *run(void *user) {
    reader *r = user;
    rv_loader *l = r->loader;
    piece p;
    cudaSetDevice(l->cuda->device);
    pthread_mutex_lock(&l->lock);
    for (;;) {
        while (!l->closing && !work_left(l)) pthread_cond_wait(&l->work, &l->lock);
        if (!next_piece(l, &p)) break;
        l->busy++;
        pthread_mutex_unlock(&l->lock);
        cudaError_t e = send(r, &p);
        pthread_mutex_lock(&l->lock);
        if (e && !l->error) l->error = e;
        if (--l->busy == 0 && !work_left(l)) pthread_cond_broadcast(&l->idle);
    }
    pthread_mutex_unlock(&l->lock);
    return NULL;
}

static cudaError_t open_reader(reader *r, rv_loader *l) {
    r->loader = l;
    cudaError_t e = cudaStreamCreateWithFlags(&r->stream, cudaStreamNonBlocking);
    for (int i = 0; !e && i < BUFFERS; i++) {
        e = cudaHostAlloc(&r->buffer[i], PIECE_BYTES, cudaHostAllocDefault);
        if (!e) e = cudaEventCreateWithFlags(&r->free[i], cudaEventDisableTiming);
    }
    return e;
}

uint64_t rv_loader_bytes(void) { return READERS * BUFFERS * PIECE_BYTES; }

rv_loader *rv_loader_open(rv_cuda *c, rv_error *err) {
    rv_loader *l = calloc(1, sizeof *l);
    if (!l) return rv_fail_memory(err, "loader"), NULL;
    l->cuda = c;
    pthread_mutex_init(&l->lock, NULL);
    pthread_cond_init(&l->work, NULL);
    pthread_cond_init(&l->idle, NULL);
    for (int i = 0; i < READERS; i++) {
        cudaError_t e = open_reader(&l->readers[i], l);
        if (!e && pthread_create(&l->readers[i].thread, NULL, run, &l->readers[i])) e = cudaErrorMemoryAllocation;
        if (e) {
            rv_fail(err, RV_ERR_MEMORY, "loader: cannot start a reader with %d MB of pinned memory: %s", (int)(BUFFERS * (PIECE_BYTES >> 20)), cudaGetErrorString(e));
            rv_loader_close(l);
            return NULL;
        }
        l->readers[i].started = true;
    }
    return l;
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
        if (items && to_land) l->room = room;
        else l->error = cudaErrorMemoryAllocation;
    }
    if (l->n_items < l->room) {
        l->to_land[l->n_items] = item->rows;
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

void rv_loader_finish(rv_loader *l) {
    pthread_mutex_lock(&l->lock);
    while (l->busy || work_left(l)) pthread_cond_wait(&l->idle, &l->lock);
    cudaError_t e = l->error;
    l->n_items = l->at = 0;
    l->fill.bytes = l->fill_at = 0;
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; !e && i < READERS; i++) e = cudaStreamSynchronize(l->readers[i].stream);
    if (e) rv_cuda_failed(l->cuda, e, "copying weights to the device");
}

void rv_loader_close(rv_loader *l) {
    if (!l) return;
    pthread_mutex_lock(&l->lock);
    l->closing = true;
    l->n_items = l->at;
    l->fill_at = l->fill.bytes;
    pthread_cond_broadcast(&l->work);
    pthread_mutex_unlock(&l->lock);
    for (int i = 0; i < READERS; i++) {
        reader *r = &l->readers[i];
        if (r->started) pthread_join(r->thread, NULL);
        if (r->stream) cudaStreamSynchronize(r->stream);
        for (int b = 0; b < BUFFERS; b++) {
            if (r->free[b]) cudaEventDestroy(r->free[b]);
            if (r->buffer[b]) cudaFreeHost(r->buffer[b]);
            if (r->staging[b]) cudaFree(r->staging[b]);
        }
        if (r->stream) cudaStreamDestroy(r->stream);
    }
    pthread_cond_destroy(&l->idle);
    pthread_cond_destroy(&l->work);
    pthread_mutex_destroy(&l->lock);
    free(l->to_land);
    free(l->items);
    free(l);
}
