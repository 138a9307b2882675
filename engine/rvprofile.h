/* rvprofile.h - GPUs by name: what they are, how much of one to use, and in which format a model belongs on it.
 *
 * The one idea: everything rvengine knows about a GPU that is not in front of it stands in one table
 * (engine/profiles.c); what a plan decides is a pure function of that table and of sizes, so that the decision for a
 * V100 can be explained, and tested, on any machine.
 *
 * Units: bytes, bytes a second, operations a second, watts, dollars; 1 GB = 1e9 bytes.  All functions: [any] thread.
 */
#ifndef RVPROFILE_H
#define RVPROFILE_H
#include "rvengine.h"

#ifdef __cplusplus
extern "C" {
#endif

/* rv_load_options.on_oom: what may be done when memory is short, in the order of rv_steps; each step is logged as a warning and told in
 * rv_memory and rv_stats.  AUTO: what was left open (embedding, weights, slots 0, gpu_layers 0, backend) is settled so that it
 * fits; what was asked for by name stays.  FAIL: 16 bit, int8 or nf4 and the tables' place are chosen by size as ever; what then
 * cannot be had is an error.  DEGRADE: as AUTO, and what was asked for by name may be reduced too. */
typedef int32_t rv_on_oom;
enum { RV_OOM_AUTO = 0, RV_OOM_FAIL = 1, RV_OOM_DEGRADE = 2 };
typedef uint32_t rv_steps;        /* a set of                                                  */
enum { RV_STEP_TABLES = 1,        /* embedding and tile positions in host memory               */
       RV_STEP_HEAD = 2,          /* lm_head in int8                                           */
       RV_STEP_SLOTS = 4,         /* fewer slots                                               */
       RV_STEP_INT8 = 8, RV_STEP_NF4 = 16,
       RV_STEP_STREAM = 32,       /* text layers in host memory, streamed over PCIe            */
       RV_STEP_CPU = 64 };        /* on the CPU after all                                      */
/* "lm_head in int8" for RV_STEP_HEAD; NULL for what is no single step. */
RV_API const char *rv_step_name(rv_steps step);

/* How much of its memory is left to others. */
typedef int32_t rv_gpu_class;
enum { RV_GPU_OTHER = 0,          /* min(8 GB, 20 %)                                          */
       RV_GPU_HIGH_MEMORY = 1,    /* H200, H100, A100: min(20 GB, 15 %)                       */
       RV_GPU_MID = 2,            /* A10G, A10, A30: min(6 GB, 20 %)                          */
       RV_GPU_WORKSTATION = 3,    /* L40S, L40, RTX A6000: min(12 GB, 20 %)                   */
       RV_GPU_CONSUMER = 4,       /* large ones, from 16 GB on: min(12 GB, 20 %)              */
       RV_GPU_LEGACY = 5 };       /* V100: min(4 GB, 25 %)                                    */

typedef struct rv_profile {
    size_t       size;
    char         name[16];        /* "v100": what --gpu-profile takes; "generic" for a GPU that is in no row */
    char         title[64];       /* "Tesla V100 SXM2 16 GB"                                  */
    int32_t      capability;      /* 70 is 7.0                                                */
    int32_t      kernels;         /* the kernel set made for it: 70, 80, 90; 0: none runs     */
    rv_gpu_class memory_class;
    uint64_t     memory;          /* nominal; of a GPU that is there: as its driver says      */
    uint64_t     buffer;          /* left free, by its class                                  */
    uint64_t     usable;          /* for weights, caches and scratch: memory less the buffer, or the
                                     GPU's own rule (V100 80 %, H200 95 %)                    */
    double       read_bytes_s;    /* datasheet; 0 here and below: not known                   */
    double       flop16_s, op8_s, flop32_s;  /* dense: 16-bit tensor with f32 sums; int8 tensor, dp4a where there is none; f32 */
    int32_t      multiprocessors;
    double       clock_hz;        /* boost                                                    */
    uint32_t     shared_bytes, shared_block_bytes;   /* a multiprocessor; a block at most     */
    uint64_t     l2_bytes;
    double       host_bytes_s;    /* pinned copies over its PCIe, attainable                  */
    double       watts;           /* board power limit                                        */
    double       dollars_hour;    /* 0: no price is known                                     */
    int32_t      has_bf16;        /* else 16 bit is f16                                       */
    uint32_t     most_slots;      /* more sequences at once gain nothing: arithmetic, not memory, is what they wait for */
    char         attention[64];   /* its attention kernels                                    */
} rv_profile;

RV_API uint32_t  rv_profile_count(void);
RV_API rv_status rv_profile_at(uint32_t i, rv_profile *out, rv_error *err);
/* RV_ERR_ARGUMENT for a name that is in no row; the message lists them. */
RV_API rv_status rv_profile_find(const char *name, rv_profile *out, rv_error *err);
/* Of a GPU as its driver describes it: the row with its name, else "generic" by capability; memory is the driver's. */
RV_API rv_status rv_profile_of(const rv_device *device, rv_profile *out, rv_error *err);

/* Which build of rvengine a GPU wants: "CUDA 11.8 or 12.x (sm70 + sm80 kernels)", ..; NULL with *why (static; `why` may be NULL) for a
 * GPU that none supports. */
RV_API const char *rv_package_for(int32_t capability, const char **why);

/* What a model takes in each format, and what of a GPU there is for it. */
typedef struct rv_sizes {
    size_t   size;
    uint64_t weights[4];          /* by rv_weight_format: 16BIT, INT8, NF4 (AUTO unused); tables of rows included */
    uint64_t tables;              /* of them: what --embedding host moves away                */
    uint64_t rest;                /* cache and scratch of one sequence, and the backend's own */
} rv_sizes;

typedef struct rv_precision {
    size_t           size;
    rv_weight_format weights;     /* the largest that fits in usable bytes; NF4 if none does  */
    rv_embedding     embedding;   /* HOST where only that makes it fit                        */
    int32_t          fits;        /* 0: not even that                                         */
    int32_t          split;       /* non-zero: fits only when spread over the devices         */
    uint64_t         needed;      /* bytes a GPU                                              */
    char             reason[400]; /* one line                                                 */
} rv_precision;

/* Decides for `devices` equal GPUs (0: one); `available` bytes are free on each (0: what the profile calls usable). */
RV_API rv_status rv_profile_decide(const rv_profile *profile, uint32_t devices, uint64_t available, const rv_sizes *sizes,
                                   rv_precision *out, rv_error *err);

#ifdef __cplusplus
}
#endif
#endif
