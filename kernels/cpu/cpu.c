/* cpu.c - the CPU backend: opening, memory, weights, and its table of operations.
 *
 * The one idea: operations run at once, on the caller and the pool; "device" memory is plain
 * memory, and weights are read where the file is mapped, except those that oneDNN wants packed.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>
#include "kernels/cpu/cpu.h"

enum { ALIGN = 256, MOST_THREADS = 1024, CHUNK_ROWS = 256, HUGE_PAGE = 2 << 20, LEAST_HUGE = 4 << 20 };

/* Pages of 2 MB: with small ones, looking up addresses costs large products a quarter of their speed, more on a virtual machine. */
void *rv_cpu_huge(uint64_t bytes, uint64_t *taken) {
    *taken = (bytes + 2 * HUGE_PAGE - 1) / HUGE_PAGE * HUGE_PAGE;
    char *whole = mmap(NULL, (size_t)*taken, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (whole == MAP_FAILED) return NULL;
    madvise(whole, (size_t)*taken, MADV_HUGEPAGE);           /* a wish: without it all is as before */
    return whole;
}

/* Before what is handed out: where the block begins, and its bytes if it came from rv_cpu_huge. */
typedef struct block_head { void *whole; uint64_t huge; } block_head;

static void *memory_new(rv_backend *be, uint64_t bytes) {
    (void)be;
    if (bytes > SIZE_MAX / 2) return NULL;
    block_head head = { 0 };
    if (bytes >= LEAST_HUGE) head.whole = rv_cpu_huge(bytes + 2 * ALIGN, &head.huge);
    else head.whole = calloc(1, (size_t)bytes + 2 * ALIGN);
    if (!head.whole) return NULL;
    char *at = (char *)(((uintptr_t)head.whole + 2 * ALIGN - 1) / ALIGN * ALIGN);
    memcpy(at - sizeof head, &head, sizeof head);
    return at;
}

static void memory_free(rv_backend *be, void *memory) {
    block_head head;
    (void)be;
    if (!memory) return;
    memcpy(&head, (char *)memory - sizeof head, sizeof head);
    if (head.huge) munmap(head.whole, (size_t)head.huge);
    else free(head.whole);
}

static void move(rv_backend *be, void *dst, const void *src, uint64_t bytes) {
    (void)be;
    if (bytes) memmove(dst, src, (size_t)bytes);
}

static void finish(rv_backend *be) { (void)be; }

typedef struct filling { const rv_fill *from; char *to; } filling;

static void fill_piece(void *context, int32_t item, int32_t thread) {
    const filling *f = context;
    const uint64_t at = (uint64_t)item * RV_FILL_PIECE, left = f->from->bytes - at, bytes = left < RV_FILL_PIECE ? left : RV_FILL_PIECE;
    uint64_t got = 0;
    (void)thread;
    while (got < bytes) {
        ssize_t n = pread(f->from->fd, f->to + at + got, (size_t)(bytes - got), (off_t)(f->from->at + at + got));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        got += (uint64_t)n;
    }
    f->from->seen(f->from->user, (uint64_t)item, got == bytes ? f->to + at : NULL, bytes);
}

static void mark(rv_backend *be, rv_mark which) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    ((rv_cpu *)be)->marks[which] = (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static double marked_ms(rv_backend *be, rv_mark from, rv_mark to) { return ((rv_cpu *)be)->marks[to] - ((rv_cpu *)be)->marks[from];
}

static void fill(rv_backend *be, void *dst, const rv_fill *from) {
    filling f = { from, dst };
    rv_pool_run(((rv_cpu *)be)->pool, (int32_t)((from->bytes + RV_FILL_PIECE - 1) / RV_FILL_PIECE), fill_piece, &f);
}

static bool has_codes(const rv_weight_spec *spec) {
    for (int32_t i = 0; i < spec->n_parts; i++)
        if (spec->part[i].codes) return true;
    return spec->format != RV_FORMAT_PLAIN;
}

static bool wants_packing(const rv_cpu *cpu, const rv_weight_spec *spec) {
    return (cpu->onednn || cpu->kernels->product_tiles) && cpu->be.act == RV_BF16 && spec->use == RV_USE_VISION && !has_codes(spec);
}

static uint64_t weight_bytes(rv_backend *be, const rv_weight_spec *spec) {
    rv_cpu *cpu = (rv_cpu *)be;
    if (has_codes(spec)) return rv_cpu_quant_bytes(cpu, spec);
    if (!wants_packing(cpu, spec)) return 0;
    if (cpu->kernels->product_tiles) return rv_cpu_tiles_bytes(spec->rows, spec->cols);
#ifdef RV_ONEDNN
    return rv_onednn_packed_bytes(cpu->onednn, spec->rows, spec->cols, &be->error);
#else
    return 0;
#endif
}

/* What of a weight does not lie in the file as it is used. */
static bool fill_memory(rv_cpu *cpu, const rv_weight_spec *spec, rv_weight *w, void *memory) {
    if (has_codes(spec)) return rv_cpu_quant_make(cpu, spec, w, memory);
    if (!wants_packing(cpu, spec)) return true;
    if (cpu->kernels->product_tiles && !spec->filled) rv_cpu_tiles_pack(cpu, w, memory);
#ifdef RV_ONEDNN
    if (!cpu->kernels->product_tiles && !spec->filled && rv_onednn_pack(cpu->onednn, w, memory, &cpu->be.error)) return false;
#endif
    w->packed = memory;
    return true;
}

static rv_weight *weight_new(rv_backend *be, const rv_weight_spec *spec, void *memory) {
    rv_weight *w = calloc(1, sizeof *w);
    if (!w) {
        rv_fail_memory(&be->error, spec->name);
        return NULL;
    }
    w->head = (rv_weight_head){ spec->rows, spec->cols, spec->use, spec->order, spec->format };
    w->n_parts = spec->n_parts;
    memcpy(w->part, spec->part, sizeof w->part);
    const bool check = spec->finite && !spec->filled && spec->format == RV_FORMAT_PLAIN;
    if ((check && !rv_cpu_quant_check((rv_cpu *)be, spec)) || !fill_memory((rv_cpu *)be, spec, w, memory)) {
        free(w);
        return NULL;
    }
    return w;
}

static void weight_free(rv_backend *be, rv_weight *w) {
    (void)be;
    free(w);
}

static void linear(rv_backend *be, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act) {
    rv_cpu_product p = { .out = out, .x = x, .w = w, .bias = bias, .act = act };
    rv_cpu_product_run((rv_cpu *)be, &p);
}

static void linear_add(rv_backend *be, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale,
                       const float *row_scale) {
    rv_cpu_product p = { .out = x, .x = h, .w = w, .bias = bias, .add = true, .scale = scale, .row_scale = row_scale };
    rv_cpu_product_run((rv_cpu *)be, &p);
}

static void cpu_close(rv_backend *be) {
    rv_cpu *cpu = (rv_cpu *)be;
    if (!cpu) return;
#ifdef RV_ONEDNN
    rv_onednn_close(cpu->onednn);
#endif
    rv_cpu_attend_close(cpu);
    rv_cpu_tiles_close(cpu);
    rv_cpu_quant_close(cpu);
    rv_pool_close(cpu->pool);
    free(cpu->product_scratch);
    free((void *)cpu->be.ops);
    free(cpu);
}

static rv_backend_ops *table_new(void) {
    rv_backend_ops *ops = calloc(1, sizeof *ops);
    if (!ops) return NULL;
    *ops = (rv_backend_ops){
        .name = "cpu", .alloc = memory_new, .release = memory_free, .upload = move, .download = move, .finish = finish,
        .weight_bytes = weight_bytes, .weight_new = weight_new, .weight_free = weight_free,
        .fill = fill, .linear = linear, .linear_add = linear_add, .attend = rv_cpu_attend, .mark = mark, .marked_ms = marked_ms, .close = cpu_close,
    };
    rv_cpu_rows_table(ops);
    return ops;
}

static const rv_cpu_kernels *kernels_of(rv_cpu_level level) {
    switch (level) {
    case CPU_BASE: return &rv_cpu_base;
#if defined(__x86_64__)
    case CPU_AVX2: return &rv_cpu_avx2;
    case CPU_AVX512: return &rv_cpu_avx512;
    case CPU_AVX512_BF16: return &rv_cpu_avx512_bf16;
    case CPU_AMX: return &rv_cpu_amx;
#endif
    default: return &rv_cpu_reference;
    }
}

static rv_cpu_level best_level(void) {
    rv_cpu_level level = CPU_LEVELS;
    do level--;
    while (!rv_cpu_has_level(level));
    return level;
}

rv_quantisers rv_cpu_quantisers(void) {
    const rv_cpu_kernels *k = kernels_of(best_level());
    return (rv_quantisers){ k->int8_weights, k->nf4_quantise };
}

rv_status rv_cpu_open_level(const rv_cpu_options *o, rv_cpu_level level, bool onednn, rv_backend **out, rv_error *err) {
    rv_status st = RV_OK;
    if (o->threads < 0 || o->threads > MOST_THREADS)
        return rv_fail(err, RV_ERR_ARGUMENT, "CPU backend: %d threads asked for; 0 (one a core) to %d are possible",
                       (int)o->threads, MOST_THREADS);
    if (o->act != RV_F32 && o->act != RV_BF16)
        return rv_fail(err, RV_ERR_UNSUPPORTED, "CPU backend: activations can be f32 or bf16 on a CPU");
    if (!rv_cpu_has_level(level))
        return rv_fail(err, RV_ERR_UNSUPPORTED, "CPU backend: this CPU lacks the instructions for %s kernels",
                       kernels_of(level)->name);
    rv_cpu *cpu = calloc(1, sizeof *cpu);
    if (!cpu) return rv_fail_memory(err, "CPU backend");
    cpu->level = level;
    cpu->kernels = kernels_of(level);
    cpu->threads = o->threads ? o->threads : rv_pool_cores();
    if (cpu->threads > MOST_THREADS) cpu->threads = MOST_THREADS;
    cpu->be.act = o->act;
    cpu->int8 = o->int8;
    cpu->be.chunk_rows = CHUNK_ROWS;
    /* The library packs by what it finds in the CPU. */
    snprintf(cpu->be.layout, sizeof cpu->be.layout, "cpu 1 %s %s", kernels_of(level)->name, onednn ? rv_cpu_library() : "none");
    if (!(cpu->be.ops = table_new()) ||
        !(cpu->product_scratch = calloc((size_t)cpu->threads * rv_cpu_product_floats(), sizeof(float)))) {
        st = rv_fail_memory(err, "CPU backend");
        goto done;
    }
    TRY(rv_pool_open(cpu->threads, &cpu->pool, err));
    TRY(rv_cpu_attend_open(cpu, err));
    if (cpu->kernels->attend_pairs && o->act == RV_BF16) TRY(rv_cpu_tiles_open(cpu, err));
#ifdef RV_ONEDNN
    if (onednn && level > CPU_BASE && o->act == RV_BF16) TRY(rv_onednn_open(cpu, &cpu->onednn, err));
#else
    (void)onednn;
#endif
done:
    if (st) cpu_close(&cpu->be);
    else *out = &cpu->be;
    return st;
}

rv_status rv_cpu_open(const rv_cpu_options *o, rv_backend **out, rv_error *err) {
    *out = NULL;
    if (o->reference) return rv_cpu_open_level(o, CPU_REFERENCE, false, out, err);
    if (o->act == RV_BF16 && !rv_cpu_has_level(CPU_AVX512_BF16))
        return rv_fail(err, RV_ERR_UNSUPPORTED,
                       "CPU backend: bf16 activations need a CPU with AVX512-BF16, which this one lacks (use f32)");
    return rv_cpu_open_level(o, best_level(), true, out, err);
}

const char *rv_cpu_library(void) {
#ifdef RV_ONEDNN
    return rv_onednn_version();
#else
    return "none";
#endif
}
