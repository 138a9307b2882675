/* open.h - one opened GPU, as the C files of this folder share it. */
#ifndef RV_KERNELS_CUDA_OPEN_H
#define RV_KERNELS_CUDA_OPEN_H
#include <cublasLt.h>
#include <cuda.h>                        /* CUcontext; nothing of libcuda is linked             */
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/four.h"

#ifdef __cplusplus
extern "C" {
#endif

enum { RV_GEMM_CACHE = 256 };
#define RV_CUDA_WORKSPACE_BYTES (UINT64_C(32) << 20)
#define RV_CUDA_SUMS_BYTES      (UINT64_C(16) << 20)

typedef struct rv_gemm_key { int32_t m, n, k; int64_t ldx, ldd; rv_dtype out; int32_t add, bias; } rv_gemm_key;
typedef struct rv_gemm_plan { rv_gemm_key key; cublasLtMatmulAlgo_t algo; bool used; } rv_gemm_plan;

struct rv_weight {
    rv_weight_head head;
    rv_mat         w;                    /* act [rows x cols] on the device                      */
    int8_t        *codes;                /* int8: [rows x pitch] instead, and its rows' absmax   */
    float         *scale;
    int32_t        pitch;
    void          *landing;              /* int8.c: what the loader's callbacks need             */
    struct rv_four_weight *four;         /* nf4.c: of 4 bits, or made of codes of 4 bits; or NULL */
};

typedef struct rv_loader rv_loader;      /* load.c: readers, pinned ring, copies                 */

/* context.c: a GPU's context, which kernels, streams and memory belong to, and how a thread comes to use it and to leave it.  All NULL: none, and
 * pushing and popping do nothing. */
typedef struct rv_cuda_context { CUcontext is; CUresult (*push)(CUcontext), (*pop)(CUcontext *); } rv_cuda_context;
/* The GPUs have been counted: that readies the driver. */
cudaError_t rv_cuda_context_of(int32_t device, rv_cuda_context *out);
/* Between the two `device` is the calling thread's GPU, whatever else the thread or its process does with CUDA; in pairs, which may be nested. */
void rv_cuda_push(const rv_cuda_context *c);
void rv_cuda_pop(const rv_cuda_context *c);

typedef struct rv_cuda {
    rv_backend       be;
    rv_cuda_context  context;
    int32_t          device, arch, capability;       /* arch: the kernel set, 70, 80 or 90   */
    bool             overlap;            /* programmatic dependent launch                        */
    bool             plain_attention;
    rv_int8_rules    int8;
    bool             recording;
    uint32_t         turn;               /* number of the next product of few rows               */
    int32_t          multiprocessors;
    cudaStream_t     stream;
    cudaEvent_t      marks[RV_MARKS];
    cudaStream_t     side;               /* f16: reads counters past what `stream` is doing     */
    uint64_t         clamped_before;     /* f16: by this process before it was opened           */
    cublasLtHandle_t lt;
    void            *workspace;          /* cuBLASLt's                                           */
    void            *partial;            /* decode attention's: its counters must stay           */
    void            *sums;               /* f32 results of large products that are added by row  */
    rv_loader       *loader;
    struct rv_four_rooms *four_rooms;    /* nf4.c: while loading                                 */
    rv_gemm_plan     plans[RV_GEMM_CACHE];
    uint32_t         next_plan;
    struct rv_lanes *lanes;              /* bring.c; NULL until weights are streamed             */
} rv_cuda;

/* Records the first failure as the backend's sticky error. */
void rv_cuda_failed(rv_cuda *c, cudaError_t e, const char *doing);

/* driver.c.  Whether what cudaGetDeviceCount returned (e, count) with a driver for CUDA `driver` (0: none) serves a
 * build for `runtime` (13000: 13.0): RV_OK, or RV_ERR_UNSUPPORTED with advice. */
rv_status rv_cuda_verdict(cudaError_t e, int32_t count, int32_t driver, int32_t runtime, rv_error *err);
/* What a build was compiled for: the oldest GPU's capability, and whether the sm90 set is there. */
typedef struct rv_cuda_built { int32_t oldest; bool sm90; } rv_cuda_built;
extern const rv_cuda_built rv_cuda_this_build;
/* *set: the kernel set (70, 80, 90) of a GPU with such a build, `wanted` or (0) the newest that it runs; else 0, and
 * RV_ERR_UNSUPPORTED says why not, and which package has it. */
rv_status rv_cuda_choose_set(int32_t capability, int32_t wanted, rv_cuda_built built, int32_t *set, rv_error *err);

/* memory.c.  Zeroed device memory; NULL: the sticky error says how much was wanted and what is free. */
void *rv_cuda_take(rv_cuda *c, uint64_t bytes, const char *what);
void  rv_cuda_give_back(rv_cuda *c, void *p);                        /* NULL is fine; waits       */
void  rv_cuda_no_memory(rv_cuda *c, uint64_t bytes, const char *what);   /* the error itself      */
/* Pinned host memory at one address for host and device. */
void *rv_cuda_take_host(rv_cuda *c, uint64_t bytes);
void  rv_cuda_give_back_host(rv_cuda *c, void *p);                   /* NULL is fine; waits       */
/* The same for a thread without a backend's errors. */
cudaError_t rv_cuda_pin(uint64_t bytes, char **out);
void  rv_cuda_unpin(char *p, uint64_t bytes);                        /* NULL is fine; nothing uses it any more */

/* ops.c: the operations' table and what follows from the act type. */
void rv_cuda_fill(rv_backend *be, rv_dtype act);
/* layers.c: the table's `decoder_blocks`. */
bool rv_cuda_layers(rv_backend *be, const rv_decoder_block *b, int32_t n);
/* open.c: the table's `close`. */
void rv_cuda_close(rv_backend *be);

/* tape.c */
void     rv_cuda_record(rv_backend *be);
rv_tape *rv_cuda_recorded(rv_backend *be);
void     rv_cuda_play(rv_backend *be, rv_tape *tape);
void     rv_cuda_erase(rv_backend *be, rv_tape *tape);
rv_tray    *rv_cuda_tray_new(rv_backend *be, uint64_t bytes);
void        rv_cuda_tray_free(rv_backend *be, rv_tray *tray);
void        rv_cuda_fetch(rv_backend *be, rv_tray *tray, const void *src, uint64_t bytes);
const void *rv_cuda_fetched(rv_backend *be, rv_tray *tray);
/* bring.c: host memory to the device beside `stream`; the table's entries, and what is left at the end. */
void rv_cuda_bring(rv_backend *be, int32_t lane, void *dst, const void *host, uint64_t bytes);
void rv_cuda_brought(rv_backend *be, int32_t lane);
void rv_cuda_spent(rv_backend *be, int32_t lane);
void rv_cuda_lanes_close(rv_cuda *c);
/* gemm.c: D [m x n] = alpha * x [m x k] w^T + (add ? D : 0) + bias; D act or f32; bias: f32, with an f32 D only; NULL: none. */
void rv_cuda_gemm(rv_cuda *c, rv_mat out, rv_mat x, const rv_weight *w, float alpha, bool add, const float *bias);

/* int8.c: weights kept as, or made from, int8 codes.  Bytes of an INT8 spec. */
uint64_t rv_cuda_int8_bytes(const rv_weight_spec *s);
/* Lays an INT8 spec's memory out in w. */
void     rv_cuda_int8_place(rv_weight *w, void *memory);
/* Queues the loading of part i, whose rows begin at `first`; false: it has nothing to do with int8. */
bool     rv_cuda_int8_part(rv_cuda *c, rv_weight *w, const rv_weight_spec *s, int32_t i, int32_t first);
/* Up to RV_FEW_ROWS rows, by the kernel that this GPU has for them. */
cudaError_t rv_cuda_int8_few(rv_cuda *c, const rv_int8 *q);
/* The product that p describes, of any number of rows; p->w and p->turn are set here. */
cudaError_t rv_cuda_int8_product(rv_cuda *c, const rv_few *p, const rv_weight *w);
/* The same of many rows with a norm, or SWIGLU; false: there is no such kernel, or it does not pay. */
bool     rv_cuda_int8_normed(rv_cuda *c, const rv_few *p, const rv_weight *w, cudaError_t *e);
/* nf4.c: weights of 4 bits. */
uint64_t   rv_cuda_four_bytes(rv_backend *be, const rv_weight_spec *s);
rv_weight *rv_cuda_four_new(rv_backend *be, const rv_weight_spec *s, void *memory);
/* Queues the loading of part i to 16 bit; false: it has no codes of 4 bits. */
bool       rv_cuda_four_part(rv_cuda *c, rv_weight *w, const rv_weight_spec *s, int32_t i);
void       rv_cuda_four_loaded(rv_cuda *c);  /* the loader has finished                          */
void       rv_cuda_four_drop(rv_cuda *c, rv_weight *w);
/* Products with any number of rows, by way of 16 bit. */
void *rv_cuda_four_room(const rv_cuda *c);   /* nobody else uses it while a product runs      */
cudaError_t rv_cuda_four_few(rv_cuda *c, const rv_few *p, const rv_four *q);      /* 1 to 64 rows, in one kernel */
/* Whether a layer's rows go from one product to the next in the order in which few4_90.cu reads them; its products with a norm, and `down`, then. */
bool        rv_cuda_four_layer(const rv_cuda *c, const rv_decoder_block *b);
cudaError_t rv_cuda_four_in_layer(rv_cuda *c, const rv_few *p, const rv_weight *w);
bool rv_cuda_four_many(rv_cuda *c, const rv_few *p, const rv_weight *w);    /* all of it in one kernel; false: it does not take this */
void rv_cuda_four_linear(rv_cuda *c, rv_mat out, rv_mat x, const rv_weight *w, const float *bias, rv_act act);
void rv_cuda_four_linear_add(rv_cuda *c, rv_mat x, rv_mat h, const rv_weight *w, const float *bias, float scale, const float *row_scale);

/* load.c: copies host tensors to the device in the background, converting to the act type; or, where they are made into
 * something else there, as they are and in pieces. */
typedef struct rv_load_item rv_load_item;
/* A piece has come: rows [from, from + rows) lie in `staging` (device, item->type_from, until `stream` has passed here).
 * Queues on `stream` whatever makes the final layout of them. On one of several threads at a time. */
typedef cudaError_t (*rv_land_fn)(const rv_load_item *item, const void *staging, int32_t from, int32_t rows, cudaStream_t stream);
/* Queues on `stream`, which has waited for the work on all pieces of the item, what needs them all. Once, on one of the threads. */
typedef cudaError_t (*rv_landed_fn)(const rv_load_item *item, cudaStream_t stream);
struct rv_load_item {
    const void *from;                    /* host, `type_from`, rows x cols, row-major            */
    rv_dtype    type_from;
    void       *to;                      /* device; NULL where `land` is                         */
    int32_t     rows, cols;
    int32_t     block, stride;           /* rows go in blocks of `block`, one every `stride` rows; 0: all together.
                                            With `land`: pieces are multiples of `block` rows, but for the last */
    rv_land_fn   land;
    rv_landed_fn landed;                 /* or NULL                                              */
    bool        on_host;                 /* `to` is host memory                                  */
    bool        in_f16;                  /* f16 must hold it, else no code is right              */
    const char *name;                    /* for messages; copied                                 */
    void        *user;                   /* theirs; lives until the loader has finished          */
};
uint64_t   rv_loader_bytes(void);            /* pinned memory of an open one, at most            */
/* fills: it is rv_loader_fill that comes.  NULL: the backend's error says why. */
rv_loader *rv_loader_open(rv_cuda *c, bool fills);
void       rv_loader_add(rv_loader *l, const rv_load_item *item);
/* rv_fill_memory: before any items that were added since the last finish. */
void       rv_loader_fill(rv_loader *l, void *to, const rv_fill *from);
bool       rv_loader_busy(rv_loader *l);     /* something has not been read yet                  */
/* Waits until all has arrived.  NaN or infinity in an item of numbers is an error of the backend that names it. */
void       rv_loader_finish(rv_loader *l);
void       rv_loader_close(rv_loader *l);

#ifdef __cplusplus
}
#endif
#endif
