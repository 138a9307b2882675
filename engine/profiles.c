/* profiles.c - the table of GPUs, and what follows from it.
 *
 * The one idea: rows hold what datasheets and price lists say (spec performance.md, section 3); buffers, usable bytes
 * and most_slots are computed from them by one rule each.
 */
#include "engine/rvprofile.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "engine/abi.h"

#define GB UINT64_C(1000000000)
#define KIB UINT32_C(1024)
#define MIB (UINT64_C(1) << 20)

typedef struct gpu_row {
    const char  *name, *title;
    const char  *match;                  /* in the driver's name for it, as a whole word         */
    int32_t      capability;
    rv_gpu_class memory_class;
    int32_t      share;                  /* percent that may be used; 0: all but the class's buffer */
    int32_t      memory_gb;
    double       read_gb_s, tflop16, top8, tflop32;
    int32_t      multiprocessors;
    double       clock_ghz;
    int32_t      l2_mib;
    double       host_gb_s, watts, dollars_hour;
} gpu_row;

/* Bandwidth GB/s, 16-bit tensor, int8, f32 TFLOP/s; multiprocessors, GHz; L2 MiB; PCIe GB/s, W, $ an hour. */
static const gpu_row rows[] = {
    { "v100", "Tesla V100 SXM2 16 GB", "V100", 70, RV_GPU_LEGACY, 80, 16, 900, 125, 62.8, 15.7, 80, 1.53, 6, 12, 300, 3.06 },
    { "a10g", "NVIDIA A10G", "A10G", 86, RV_GPU_MID, 0, 24, 600, 70, 140, 31.5, 80, 1.71, 6, 25, 300, 1.006 },
    { "a10", "NVIDIA A10", "A10", 86, RV_GPU_MID, 0, 24, 600, 125, 250, 31.2, 72, 1.695, 6, 25, 150, 0 },
    { "a30", "NVIDIA A30", "A30", 80, RV_GPU_MID, 0, 24, 933, 165, 330, 10.3, 56, 1.44, 24, 25, 165, 0 },
    { "l40s", "NVIDIA L40S", "L40S", 89, RV_GPU_WORKSTATION, 0, 48, 864, 362, 733, 91.6, 142, 2.52, 96, 25, 350, 1.861 },
    { "l40", "NVIDIA L40", "L40", 89, RV_GPU_WORKSTATION, 0, 48, 864, 181, 362, 90.5, 142, 2.49, 96, 25, 300, 0 },
    { "a6000", "NVIDIA RTX A6000", "A6000", 86, RV_GPU_WORKSTATION, 0, 48, 768, 155, 310, 38.7, 84, 1.8, 6, 25, 300, 0 },
    { "a100", "NVIDIA A100 SXM 80 GB", "A100", 80, RV_GPU_HIGH_MEMORY, 0, 80, 2039, 312, 624, 19.5, 108, 1.41, 40, 25, 400, 1.84 },
    { "h100", "NVIDIA H100 SXM 80 GB", "H100", 90, RV_GPU_HIGH_MEMORY, 0, 80, 3350, 989, 1979, 67, 132, 1.98, 50, 50, 700, 4.92 },
    { "h200", "NVIDIA H200 SXM 141 GB", "H200", 90, RV_GPU_HIGH_MEMORY, 95, 141, 4800, 989, 1979, 67, 132, 1.98, 50, 50, 700, 5.41 },
    { "rtx3090", "GeForce RTX 3090", "RTX 3090", 86, RV_GPU_CONSUMER, 0, 24, 936, 71, 284, 35.6, 82, 1.695, 6, 25, 350, 0 },
    { "rtx4090", "GeForce RTX 4090", "RTX 4090", 89, RV_GPU_CONSUMER, 0, 24, 1008, 165, 660, 82.6, 128, 2.52, 72, 25, 450, 0 },
    { "rtx5090", "GeForce RTX 5090", "RTX 5090", 120, RV_GPU_CONSUMER, 0, 32, 1792, 209, 838, 104.8, 170, 2.41, 96, 50, 575, 0 },
    { "t4", "NVIDIA T4", "T4", 75, RV_GPU_OTHER, 0, 16, 320, 65, 130, 8.1, 40, 1.59, 4, 12, 70, 0.526 },
};
enum { ROWS = sizeof rows / sizeof *rows, LEAST_SLOTS = 16, MOST_SLOTS = 64, LARGE_CONSUMER_GB = 16 };

/* ---- rules ---- */

static uint64_t least(uint64_t a, uint64_t b) { return a < b ? a : b; }

static uint64_t buffer_of(rv_gpu_class c, uint64_t memory) {
    static const struct { uint64_t gb, percent; } rules[] = {
        [RV_GPU_OTHER] = { 8, 20 }, [RV_GPU_HIGH_MEMORY] = { 20, 15 }, [RV_GPU_MID] = { 6, 20 },
        [RV_GPU_WORKSTATION] = { 12, 20 }, [RV_GPU_CONSUMER] = { 12, 20 }, [RV_GPU_LEGACY] = { 4, 25 },
    };
    return least(rules[c].gb * GB, memory / 100 * rules[c].percent);
}

static int32_t kernels_of(int32_t capability) {
    if (capability < 70) return 0;
    if (capability < 80) return 70;
    return capability == 90 ? 90 : 80;                   /* Hopper's own instructions run on 9.0 alone */
}

/* A product with int8 weights and n rows does 2 n operations a byte; at half the tensor rate it outlasts its reading from here on. */
static uint32_t most_slots(double flop16, double read) {
    double n = read > 0 ? flop16 / read / 4 : MOST_SLOTS;
    uint32_t eights = n >= MOST_SLOTS ? MOST_SLOTS : (uint32_t)n / 8 * 8;
    return eights < LEAST_SLOTS ? LEAST_SLOTS : eights;
}

static uint32_t shared_of(int32_t capability, bool block) {
    if (capability == 70) return 96 * KIB;
    if (capability == 75) return 64 * KIB;
    if (capability == 80) return (block ? 163 : 164) * KIB;
    if (capability == 90 || capability == 100) return (block ? 227 : 228) * KIB;
    return (block ? 99 : 100) * KIB;
}

static const char *attention_of(int32_t kernels) {
    return kernels == 90 ? "wgmma (vision, prefill), mma m16n8k16 (the rest)" : kernels == 80 ? "mma m16n8k16, cp.async" : kernels == 70 ? "mma m8n8k4" : "";
}

/* What follows from class, memory and capability. */
static void complete(rv_profile *p, int32_t share) {
    p->size = sizeof *p;
    p->kernels = kernels_of(p->capability);
    p->buffer = buffer_of(p->memory_class, p->memory);
    p->usable = share ? p->memory / 100 * (uint64_t)share : p->memory - p->buffer;
    p->shared_bytes = shared_of(p->capability, false);
    p->shared_block_bytes = shared_of(p->capability, true);
    p->has_bf16 = p->capability >= 80;
    p->most_slots = most_slots(p->flop16_s, p->read_bytes_s);
    snprintf(p->attention, sizeof p->attention, "%s", attention_of(p->kernels));
}

static rv_profile profile_of(const gpu_row *r) {
    rv_profile p = { .capability = r->capability, .memory_class = r->memory_class, .memory = (uint64_t)r->memory_gb * GB, .read_bytes_s = r->read_gb_s * 1e9,
                     .flop16_s = r->tflop16 * 1e12, .op8_s = r->top8 * 1e12, .flop32_s = r->tflop32 * 1e12, .multiprocessors = r->multiprocessors,
                     .clock_hz = r->clock_ghz * 1e9, .l2_bytes = (uint64_t)r->l2_mib * MIB, .host_bytes_s = r->host_gb_s * 1e9, .watts = r->watts,
                     .dollars_hour = r->dollars_hour };
    snprintf(p.name, sizeof p.name, "%s", r->name);
    snprintf(p.title, sizeof p.title, "%s", r->title);
    complete(&p, r->share);
    return p;
}

/* ---- looking up ---- */

uint32_t rv_profile_count(void) { return ROWS; }

rv_status rv_profile_at(uint32_t i, rv_profile *out, rv_error *err) {
    if (i >= ROWS) return rv_fail(err, RV_ERR_ARGUMENT, "GPU profile %u: there are %d", i, ROWS);
    rv_profile p = profile_of(&rows[i]);
    return rv_abi_write(out, &p, sizeof p, "rv_profile", err);
}

rv_status rv_profile_find(const char *name, rv_profile *out, rv_error *err) {
    char names[256] = "";
    for (uint32_t i = 0, at = 0; i < ROWS; i++) {
        if (name && strcasecmp(name, rows[i].name) == 0) return rv_profile_at(i, out, err);
        at += (uint32_t)snprintf(names + at, sizeof names - at, "%s%s", i ? ", " : "", rows[i].name);
    }
    return rv_fail(err, RV_ERR_ARGUMENT, "GPU profile \"%.40s\": must be one of %s", name ? name : "", names);
}

/* `word` in `text`, with no letter or digit beside it: A10 is not in "A10G", V100 is in "Tesla V100-SXM2". */
static bool has_word(const char *text, const char *word) {
    size_t n = strlen(word);
    for (const char *at = text; (at = strstr(at, word)); at++)
        if ((at == text || !isalnum((unsigned char)at[-1])) && !isalnum((unsigned char)at[n])) return true;
    return false;
}

static int32_t capability_in(const char *features) {
    int32_t capability = 0;
    return sscanf(features, "compute_%d", &capability) == 1 ? capability : 0;
}

rv_status rv_profile_of(const rv_device *device, rv_profile *out, rv_error *err) {
    rv_device d;
    if (!device) return rv_fail(err, RV_ERR_ARGUMENT, "rv_profile_of: device is NULL");
    rv_status st = rv_abi_read(&d, sizeof d, device, "rv_device", err);
    if (st) return st;
    if (d.backend != RV_BACKEND_CUDA) return rv_fail(err, RV_ERR_ARGUMENT, "GPU profile of %s: it is no GPU", d.name);
    int32_t capability = capability_in(d.features);
    rv_profile p = { .name = "generic", .capability = capability, .multiprocessors = d.cores };
    int32_t share = 0;
    bool known = false;
    for (int i = 0; i < ROWS && !known; i++) {
        /* Laptop parts and those with a "Ti" share a name, not the silicon. */
        known = capability == rows[i].capability && has_word(d.name, rows[i].match) && !strstr(d.name, "Laptop") && !strstr(d.name, " Ti");
        if (known) p = profile_of(&rows[i]), share = rows[i].share;
    }
    if (!known && strstr(d.name, "GeForce") && d.memory_total >= LARGE_CONSUMER_GB * GB) p.memory_class = RV_GPU_CONSUMER;
    snprintf(p.title, sizeof p.title, "%s", d.name);
    p.memory = d.memory_total;
    complete(&p, share);
    return rv_abi_write(out, &p, sizeof p, "rv_profile", err);
}

const char *rv_package_for(int32_t capability, const char **why) {
    const char *unused;
    if (!why) why = &unused;
    *why = NULL;
    if (capability < 70)
        return *why = "compute capability below 7.0 has no tensor cores, and Pascal's f16 sums are 16 bit: the kernels need 7.0 or newer", NULL;
    if (capability < 75) return "the CUDA 11.8 or 12.x package (sm70 + sm80 kernels): CUDA 13 no longer targets 7.0";
    if (capability < 80) return "the CUDA 11.8 or 12.x package (sm70 + sm80 kernels)";
    return capability == 90 ? "the CUDA 13 package (sm80 + sm90 kernels)" : "the CUDA 13 package (sm80 + sm90 kernels), or the one of CUDA 12.x";
}

/* ---- the decision ---- */

static const char *const format_names[] = { "auto", "16 bit", "int8", "NF4" };

typedef struct choice { rv_weight_format weights; bool host, fits; uint64_t needed; } choice;

/* The largest format whose weights and one sequence fit in `room` bytes of each of `devices` GPUs. */
static choice largest(const rv_sizes *s, uint64_t room, uint32_t devices) {
    choice c = { RV_WEIGHTS_NF4, true, false, 0 };
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w <= RV_WEIGHTS_NF4; w++)
        for (int host = 0; host < 2; host++) {
            uint64_t weights = s->weights[w] - (host ? s->tables : 0), needed = (weights + devices - 1) / devices + s->rest;
            c = (choice){ w, host, needed <= room, needed };
            if (c.fits) return c;
        }
    return c;
}

static double gb(uint64_t bytes) { return (double)bytes / 1e9; }

static void explain(const rv_profile *p, uint32_t devices, uint64_t room, const rv_sizes *s, const choice *c, const choice *alone, rv_precision *out) {
    char larger[160] = "";
    if (c->weights > RV_WEIGHTS_16BIT)
        for (rv_weight_format w = RV_WEIGHTS_16BIT, at = 0; w < c->weights; w++)
            at += snprintf(larger + at, sizeof larger - (size_t)at, "%s%s would take %.1f GB", at ? ", " : "; ", format_names[w],
                           gb((s->weights[w] + devices - 1) / devices + s->rest));
    const char *tables = c->host ? ", its large tables in host memory" : "";
    if (!c->fits)
        snprintf(out->reason, sizeof out->reason, "not even NF4 fits: it takes %.1f GB%s, and %.1f GB of a %s's %.0f GB are usable", gb(c->needed), tables, gb(room),
                 p->title, gb(p->memory));
    else if (out->split)
        snprintf(out->reason, sizeof out->reason, "%u x %s: %s (%.1f GB on each) when the layers are split over them; %.1f GB of each are usable. "
                 "This version keeps a whole model on one GPU, and there it is %s", devices, p->title, format_names[c->weights], gb(c->needed), gb(room),
                 format_names[alone->weights]);
    else
        snprintf(out->reason, sizeof out->reason, "%s: %.1f GB with one sequence%s; %.1f GB of its %.0f GB are usable%s", format_names[c->weights], gb(c->needed),
                 tables, gb(room), gb(p->memory), larger);
}

rv_status rv_profile_decide(const rv_profile *profile, uint32_t devices, uint64_t available, const rv_sizes *sizes, rv_precision *out, rv_error *err) {
    rv_profile p;
    rv_sizes s;
    if (!profile || !sizes) return rv_fail(err, RV_ERR_ARGUMENT, "rv_profile_decide: %s is NULL", !profile ? "profile" : "sizes");
    rv_status st = rv_abi_read(&p, sizeof p, profile, "rv_profile", err);
    if (st == RV_OK) st = rv_abi_read(&s, sizeof s, sizes, "rv_sizes", err);
    if (st) return st;
    if (!devices) devices = 1;
    uint64_t room = available && available < p.usable ? available : p.usable;
    choice alone = largest(&s, room, 1), c = devices > 1 ? largest(&s, room, devices) : alone;
    rv_precision is = { .weights = c.weights, .embedding = c.host ? RV_EMBEDDING_HOST : RV_EMBEDDING_DEVICE, .fits = c.fits,
                        .split = devices > 1 && c.fits && (!alone.fits || c.weights != alone.weights), .needed = c.needed };
    explain(&p, devices, room, &s, &c, &alone, &is);
    return rv_abi_write(out, &is, sizeof is, "rv_precision", err);
}
