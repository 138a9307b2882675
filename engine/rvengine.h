/* rvengine.h - read documents with Llama-3.2-11B-Vision from a C program.
 *
 * One request, start to end:
 *
 *     rv_error err;
 *     rv_model *model;  rv_session *session;  rv_job *job;
 *
 *     rv_load_options    load = { .size = sizeof load };       // zero means default, everywhere
 *     rv_session_options opts = { .size = sizeof opts, .slots = 1 };
 *     if (rv_model_load("/models/mllama", &load, &model, &err))    return report(&err);
 *     if (rv_session_new(model, &opts, &session, &err))            return report(&err);
 *
 *     rv_image   page = { .size = sizeof page, .data = jpeg, .bytes = jpeg_len };
 *     rv_request req  = { .size = sizeof req, .images = &page, .n_images = 1,
 *                         .prompt = "Read this invoice." };
 *     if (rv_generate(session, &req, &job, &err))                  return report(&err);
 *     puts(rv_job_text(job, NULL));
 *
 *     rv_job_free(job);  rv_session_free(session);  rv_model_free(model);
 *
 * Ownership.  A function that returns a handle through a ** gives it to the caller, who
 *   frees it with the matching _free; NULL is fine there.  Input pointers are borrowed for
 *   the length of the call and copied if needed later.  A pointer returned by a getter
 *   belongs to the handle and lives as long as it does.  A session holds its model, and a
 *   job or picture holds its session, so they may be freed in any order.
 *
 * Threads.  [any] safe from any thread at any time; [one] one thread at a time for this
 *   handle, else RV_ERR_BUSY; [done] safe from any thread once the job has ended.
 *   Callbacks run on the thread inside rv_step or rv_generate and may call [any] functions: submit, cancel, free
 *   jobs (their own too, but not one that rv_generate is to return), free their session.  The library starts no threads, except a pool inside a CPU-backend model, and
 *   those of rv_model_load, rv_synthesise and rv_quantise while they run; with a cache_dir, one more until
 *   its file is written.  A model on any GPU may be used from any thread: which CUDA device or context is current on a
 *   thread does not matter to the library, and is the same after a call as before.
 *
 * Errors.  Every function that can fail returns an rv_status (0 = RV_OK) and, when `err` is
 *   not NULL, writes what went wrong there.  An output argument is set only on RV_OK (but `active` of rv_step).  The
 *   library never exits, never prints, reads no environment variable and has no global state.
 *
 * ABI.  RV_ABI grows only when programs built with an older header would break.  Structs
 *   start with `size` and grow at the end: an older caller's missing fields count as zero.
 *   In an array of such structs every element is as long as the first one's `size` says.
 */
#ifndef RVENGINE_H
#define RVENGINE_H

#include <stddef.h>
#include <stdint.h>

#define RV_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define RV_ABI 1

typedef struct rv_model     rv_model;     /* weights on a device; never changes after loading */
typedef struct rv_session   rv_session;   /* cache memory for a few sequences, and their queue */
typedef struct rv_job       rv_job;       /* one request: queued, running or ended             */
typedef struct rv_picture   rv_picture;   /* one image's work, shared by several requests      */
typedef struct rv_tokenizer rv_tokenizer; /* text to ids and back                              */
typedef struct rv_constraint rv_constraint; /* a form that answers take: rvconstraint.h         */

/* ---- errors ---------------------------------------------------------------------------- */

/* Numbers are part of the ABI: never reused, never renumbered. */
typedef int32_t rv_status;
enum {
    RV_OK                =   0,
    RV_ERR_ARGUMENT      =  -1,   /* a NULL, a bad size, an option out of range               */
    RV_ERR_ABI           =  -2,   /* a struct is larger than this library knows, and not zero */
    RV_ERR_IO            =  -3,   /* a file is missing or cannot be read                      */
    RV_ERR_FORMAT        =  -4,   /* a model, image or messages file is damaged               */
    RV_ERR_UNSUPPORTED   =  -5,   /* well formed, but not something this build can run        */
    RV_ERR_MEMORY        =  -6,   /* the host is out of memory                                */
    RV_ERR_DEVICE_MEMORY =  -7,   /* it does not fit on the device or in memory_limit         */
    RV_ERR_DEVICE        =  -8,   /* the GPU failed; CUDA works again only in a new process    */
    RV_ERR_TOO_LONG      =  -9,   /* prompt or images exceed what the session holds           */
    RV_ERR_FULL          = -10,   /* the queue is full; step, then submit again               */
    RV_ERR_BUSY          = -11,   /* another thread is inside a [one] function                */
    RV_ERR_CANCELLED     = -12,   /* rv_cancel was called, or a callback said stop            */
    RV_ERR_INTERNAL      = -13    /* a bug in rvengine                                        */
};

typedef struct rv_error {
    rv_status code;
    char      message[508];       /* one line of UTF-8, always terminated: "what: why (where)" */
} rv_error;

RV_API const char *rv_status_name(rv_status code);   /* [any] "RV_ERR_IO"; never NULL         */
RV_API const char *rv_version(void);                 /* [any] "0.1.0"                         */
RV_API const char *rv_build_info(void);  /* [any] one "name: value" a line: compiler, backends, libraries */
RV_API uint32_t    rv_abi(void);         /* [any] the RV_ABI that the library was built with  */

/* ---- devices and memory, before anything is loaded ------------------------------------- */

typedef int32_t rv_backend_id;
enum { RV_BACKEND_AUTO = 0, RV_BACKEND_CPU = 1, RV_BACKEND_CUDA = 2 };

typedef int32_t rv_weight_format;
enum { RV_WEIGHTS_AUTO = 0, RV_WEIGHTS_16BIT = 1, RV_WEIGHTS_INT8 = 2, RV_WEIGHTS_NF4 = 3,
       RV_WEIGHTS_FP4 = 4 /* never asked for: what a ready-made 4-bit checkpoint may hold */ };

/* Which Linears are quantised where int8 or nf4 is asked for.  INTENDED: those of the decoder; lm_head, vision tower
 * and projector stay 16 bit.  HF_LITERAL: what transformers does with llm_int8_skip_modules = ["vision_tower",
 * "multi_modal_projector"]: the tower (its name is vision_model) and lm_head are quantised as well. */
typedef int32_t rv_module_preset;
enum { RV_MODULES_INTENDED = 0, RV_MODULES_HF_LITERAL = 1 };

/* Which columns of a product's input count as outliers (int8): row by row, so that neither batch nor chunk changes an
 * answer; or, as bitsandbytes does, in every row of a call where they are one in any.  The same for a single row. */
typedef int32_t rv_int8_parity;
enum { RV_INT8_BY_ROW = 0, RV_INT8_BY_CALL = 1 };

/* What matrix operands are rounded to.  Residual stream, norms, softmax and accumulators
 * are f32 in every mode.  AUTO: f32 for an f32 checkpoint, else the checkpoint's 16-bit type
 * where this device multiplies it natively, else f32 (CPU) or f16 (GPU).  With int8 and 4-bit weights a GPU
 * computes in f16 unless asked otherwise, as bitsandbytes does. */
typedef int32_t rv_compute;
enum { RV_COMPUTE_AUTO = 0, RV_COMPUTE_F32 = 1, RV_COMPUTE_BF16 = 2, RV_COMPUTE_F16 = 3 };

/* Three places where "the reference" is not one thing (HF transformers 4.45 is the default). */
typedef int32_t rv_taps;          /* vision states entering the tapped layers, or leaving them (HF >= 4.56) */
enum { RV_TAPS_ENTERING = 0, RV_TAPS_LEAVING = 1 };
typedef int32_t rv_reference;     /* rows before the image: as HF computes them, or as Meta's training code */
enum { RV_REFERENCE_HF = 0, RV_REFERENCE_META = 1 };
typedef int32_t rv_resize;        /* image resize arithmetic: Pillow's up to 12, or torchvision's (HF >= 5 default) in integers, as on CPUs */
enum { RV_RESIZE_PIL = 0, RV_RESIZE_TV = 1 };

/* Attention kernels of a GPU: fast ones, or plain loops to compare with and to fall back on (many times slower).  The
 * CPU backend has one kind, and refuses RV_ATTENTION_PLAIN. */
typedef int32_t rv_attention_kind;
enum { RV_ATTENTION_FLASH = 0, RV_ATTENTION_PLAIN = 1 };

/* Where a GPU's model keeps the two large tables of which a request reads few rows: the text embedding and the vision
 * tower's tile positions.  HOST: in pinned host memory that the GPU reads over the bus, to the same bits; device memory
 * is smaller by them.  AUTO: on the device, unless the weights would not fit there.  The CPU backend reads them where they
 * lie in the files, and refuses RV_EMBEDDING_HOST. */
typedef int32_t rv_embedding;
enum { RV_EMBEDDING_AUTO = 0, RV_EMBEDDING_DEVICE = 1, RV_EMBEDDING_HOST = 2 };

typedef int32_t rv_log_level;
enum { RV_LOG_ERROR = 0, RV_LOG_WARNING = 1, RV_LOG_INFO = 2, RV_LOG_DEBUG = 3 };
typedef void    (*rv_log_fn)(void *user, rv_log_level level, const char *line);
typedef int32_t (*rv_progress_fn)(void *user, float done);       /* 0..1; non-zero stops loading */

typedef struct rv_device {
    size_t        size;           /* set before the call                                      */
    rv_backend_id backend;
    int32_t       index;          /* what rv_load_options.device takes                        */
    int32_t       arch;           /* 70, 80, 90: the kernel set that will run; 0 for the CPU  */
    int32_t       cores;          /* CPU: cores this process may use; GPU: multiprocessors    */
    char          name[64];
    char          features[128];  /* CPU: "avx2 avx512 avx512_bf16 amx_bf16 ..."; GPU: "compute_90 driver_13.0"; may be "" */
    uint64_t      memory_total, memory_free;
    char          problem[256];   /* why no kernels of this build run on it, and which package's do; "": they do */
} rv_device;

RV_API uint32_t  rv_device_count(rv_backend_id backend);       /* [any] AUTO counts them all; 0 of a backend that there is not */
/* Where there is no such GPU, the error says why: no driver, one that is too old, a build without CUDA .. */
RV_API rv_status rv_device_get(rv_backend_id backend, uint32_t i, rv_device *out, rv_error *err);   /* [any] */

typedef struct rv_load_options {
    size_t           size;
    rv_backend_id    backend;     /* default: CUDA where this build has kernels for the GPU, else CPU */
    int32_t          device;
    rv_weight_format weights;     /* default: as a quantised checkpoint has it; else 16 bit where it fits, else int8, else nf4 */
    rv_compute       compute;
    int32_t          threads;     /* CPU backend: default one a core                          */
    uint64_t         memory_limit;/* device bytes for the model and all its sessions; default: what is free now, less 5 %.  Above
                                     a GPU's memory, or what `profile` calls usable: that much */
    rv_taps          taps;
    rv_reference     reference;
    rv_resize        resize;
    rv_log_fn        log;         void *log_user;
    rv_progress_fn   progress;    void *progress_user;
    rv_attention_kind attention;  /* GPU backends                                             */
    float            int8_threshold;  /* |activation| from which it is an outlier: 0: 6.0; negative: none is */
    rv_int8_parity   int8_parity;
    rv_module_preset modules;
    const char      *skip;        /* instead of `modules`, separated by commas: names of modules that stay 16 bit (and the
                                     only ones), matched as transformers matches llm_int8_skip_modules: a whole name, its
                                     last part, or followed by a dot anywhere inside          */
    const char      *keep;        /* exceptions, separated by commas, "MODULE=16bit|int8|nf4": "cross_attn=int8",
                                     "lm_head=int8", "layers.3.mlp=16bit"; the last that matches counts */
    int32_t          nf4_single;  /* non-zero: NF4 without double quantisation (4.5 instead of 4.13 bits a weight) */
    const char      *cache_dir;   /* a folder (made if missing) where quantised weights are kept, as they lie on the device, so that the
                                     next load reads them; NULL: nowhere.  A file that is missing, damaged or of another model is
                                     made again by a thread that rv_model_free waits for; nothing about it fails a load.  What became
                                     of it is logged, on the threads inside rv_model_load and the last rv_model_free */
    rv_embedding     embedding;   /* GPU backends                                             */
    const char      *profile;     /* a row of engine/rvprofile.h: its kernels, formats and usable memory, also of a GPU that is not there
                                     (rv_memory_plan); NULL: the GPU's own                    */
    int32_t          on_oom;      /* rv_on_oom of engine/rvprofile.h: what may be done when memory is short */
    int32_t          kernels;     /* kernel set 70 (V100, T4; f16), 80, 90; 0: the newest that the GPU runs; older ones: to try what they do */
    int32_t          gpu_layers;  /* so many text layers stay on the GPU, the rest streams from host memory; 0: all, unless they must; negative: none */
    uint64_t         host_memory; /* pinned host bytes for that; default: half of what is available, in the plan of a `profile` whose GPU is not here: any */
    /* What sessions will be asked for, so that the format chosen leaves room for one of them: as in rv_session_options, 0: its default */
    uint32_t         context, slots, images, constraints;
    uint64_t         constraint_bytes;
} rv_load_options;

typedef struct rv_session_options {
    size_t   size;
    uint32_t slots;               /* sequences computed together, at most 64; 0: as many as fit and gain (CPU: 1)  */
    uint32_t queue;               /* requests that may wait; default 4 per slot               */
    uint32_t context;             /* tokens per sequence, prompt and answer; default 4096, or the model's own limit where that is smaller */
    uint32_t images;              /* images held at once, running and shared; default 2 per slot */
    uint32_t constraints;         /* GPU backends: different ones in use at once, the queue not counted; default 2 */
    uint64_t constraint_bytes;    /* the largest of them, see rv_constraint_info; default 3.75 MiB, enough for every schema that is built in */
} rv_session_options;

typedef struct rv_memory {
    size_t   size;
    uint64_t weights, cache, scratch;   /* device bytes; exactly what loading will allocate   */
    uint64_t total;                     /* their sum                                          */
    uint64_t mapped;                    /* of `weights`: read in place from the model's files */
    uint64_t available;                 /* memory_limit as far as there is that much, or what is free now */
    uint64_t host;                      /* GPU backends: peak pinned host bytes while loading, `host_weights` with it */
    int32_t  fits;                      /* total <= available                                 */
    rv_weight_format weights_format;    /* what RV_WEIGHTS_AUTO resolved to                   */
    rv_compute       compute;           /* what RV_COMPUTE_AUTO resolved to                   */
    rv_backend_id    backend;           /* what RV_BACKEND_AUTO resolved to                   */
    uint64_t cache_per_token;           /* self-attention K/V bytes a token of context        */
    uint64_t cache_per_tile;            /* cross-attention K/V bytes a tile of an image       */
    uint64_t host_weights;              /* GPU backends: tables in pinned host memory; not in `weights` */
    rv_embedding embedding;             /* what RV_EMBEDDING_AUTO resolved to                 */
    uint32_t slots, context, images;    /* of the session, as resolved                        */
    uint32_t steps;                     /* rv_steps of engine/rvprofile.h: what was done so that it fits */
    int32_t  gpu_layers;                /* text layers whose weights stay on the device       */
    uint64_t streamed;                  /* of `host_weights`: bytes of the others             */
    int32_t  kernels;                   /* GPU backends: the kernel set                       */
    uint64_t host_limit;                /* rv_memory_plan, GPU backends: what `host_weights` may take; UINT64_MAX: any */
} rv_memory;

/* Reads config.json and the tensor headers only.  On a GPU it asks the driver what is free (which makes a CUDA context) and takes nothing.
 * The weights are as rv_model_load has them with the same `load`; `session`: what one takes beside them, NULL: the model alone. */
RV_API rv_status rv_memory_plan(const char *model_dir, const rv_load_options *load, const rv_session_options *session,
                                rv_memory *out, rv_error *err);                         /* [any] */

/* What the device itself can do, measured now on random data: what a speed is to be compared with. */
typedef struct rv_ceilings {
    size_t        size;
    rv_backend_id backend;              /* what RV_BACKEND_AUTO and RV_COMPUTE_AUTO resolved to */
    rv_compute    compute;
    double        read_bytes_s;         /* reading device memory                               */
    double        copy_bytes_s;         /* copying it: bytes read and bytes written            */
    double        flop_s;               /* square matrix products of `compute`, f32 sums       */
    uint64_t      buffer_bytes;         /* how much was read a time: more than any cache       */
    uint32_t      product_side;         /* rows and columns of those matrices                  */
    double        host_bytes_s;         /* GPU backends: copying pinned host memory to the device */
} rv_ceilings;

/* Of `load` only backend, device, compute, threads and memory_limit count; NULL: the defaults.  Takes up to 2 GiB
 * of device memory (half of what is free or of memory_limit, if that is less) and some tenths of a second, and
 * gives all back.  Nothing else should use the device meanwhile. */
RV_API rv_status rv_measure_ceilings(const rv_load_options *load, rv_ceilings *out, rv_error *err);   /* [any] */

/* ---- looking at a model or an image without running it ----------------------------------- */

typedef struct rv_part_info {     /* one part of a checkpoint                                  */
    size_t      size;             /* stride of the array                                       */
    const char *name;             /* "text", "lm_head", "vision", "projector"                  */
    uint32_t    tensors;
    uint64_t    parameters;
    uint64_t    file_bytes;       /* as stored                                                 */
    uint64_t    bytes_16bit, bytes_int8, bytes_nf4;   /* in device memory, per weight format   */
} rv_part_info;

typedef struct rv_model_info rv_model_info;

/* Opens config.json, the other JSON files and the tensor headers, and checks all of them the
 * way loading does. */
RV_API rv_status rv_inspect(const char *model_dir, rv_model_info **out, rv_error *err); /* [any] */
RV_API void      rv_model_info_free(rv_model_info *info);                               /* [any] */
RV_API uint32_t  rv_model_info_parts(const rv_model_info *info, const rv_part_info **out);/*[any]*/
/* One fact, as text: "architecture", "layout" (old|new), "dtype", "files", "quantised", "layers",
 * "cross_layers", "hidden", "heads", "kv_heads", "head_dim", "vocab", "context", "vision_layers",
 * "vision_hidden", "vision_heads", "tile", "patch", "taps", "prompt_form" (chat|plain),
 * "prompt_form_reason", "template" (the chat template's revision, A|B|none), "padding_tiles" (once|full).  NULL for an unknown key.   [any] */
RV_API const char *rv_model_info_get(const rv_model_info *info, const char *key);
RV_API const char *rv_model_info_key(const rv_model_info *info, uint32_t i);  /* NULL past the end */

/* Reads every weight and counts NaN and Inf.  `bad` is called once per tensor that has any;
 * non-zero stops.  RV_ERR_FORMAT when there was one, or a quantised weight has scales that loading
 * refuses: negative ones, and such as make weights that are not finite. */
typedef int32_t (*rv_bad_tensor_fn)(void *user, const char *tensor, const char *file,
                                    uint64_t nans, uint64_t infs);
RV_API rv_status rv_check_weights(const char *model_dir, rv_bad_tensor_fn bad, void *user, rv_error *err);   /* [any] */

typedef struct rv_image {
    size_t      size;
    const void *data;             /* a JPEG, PNG, BMP, GIF .. file, or 8-bit RGB pixels        */
    size_t      bytes;
    uint32_t    width, height;    /* both 0: data is a file.  Else pixels, top row first      */
    size_t      stride;           /* bytes from row to row; 0: width * 3                      */
    uint32_t    max_tiles;        /* 1, 2 or 4: fewer tiles are faster and coarser; default 4 */
    int32_t     ignore_exif;      /* non-zero: do not turn the image as its EXIF tag asks     */
} rv_image;

typedef struct rv_image_info {
    size_t   size;
    char     format[16];          /* "jpeg", "png", ..; "pixels"                              */
    uint32_t width, height;       /* upright: after EXIF orientation                          */
    uint32_t orientation;         /* EXIF 1..8                                                */
    uint32_t rows, cols;          /* tiles of the canvas                                      */
    uint32_t tile;                /* edge of a tile in pixels                                 */
    uint32_t aspect_ratio_id;
    uint32_t resized_width, resized_height;   /* of the image inside the canvas               */
} rv_image_info;

/* `model_dir` NULL: the published model's geometry (560-pixel tiles, at most 4). */
RV_API rv_status rv_inspect_image(const rv_image *image, const char *model_dir, rv_image_info *out, rv_error *err);   /* [any] */

/* ---- synthetic models -------------------------------------------------------------------- */

typedef int32_t rv_stored;        /* the type of weights in files                              */
enum { RV_STORED_AUTO = 0, RV_STORED_BF16 = 1, RV_STORED_F16 = 2, RV_STORED_F32 = 3 };
typedef int32_t rv_layout_names;  /* tensor names as transformers saved them up to 4.51, or keeps them since */
enum { RV_NAMES_OLD = 0, RV_NAMES_NEW = 1 };

typedef struct rv_synth_options {
    size_t          size;
    const char     *shape;        /* "11b" (default), "11b-base", "90b", "tiny", or the path of a config.json */
    uint64_t        seed;         /* same seed, same bits; default 0                           */
    rv_stored       type;         /* default: as the config says                               */
    rv_layout_names names;
    uint64_t        shard_bytes;  /* at most, a file; default 5 GB, as Hugging Face cuts       */
    int32_t         outliers;     /* channels in which activations exceed 6.0 (LLM.int8's threshold); default hidden_size / 512, at least 1; -1: none */
    int32_t         padding_nonzero;   /* non-zero: fill the unused slots of the tile tables too, so that padding tiles have to be computed in full */
    int32_t         threads;      /* default one a core                                        */
    rv_progress_fn  progress;     void *progress_user;     /* on the calling thread            */
    int32_t         sparse;       /* non-zero: headers and lengths alone, weights are holes and read as zero: for plans */
} rv_synth_options;

typedef struct rv_synth_info {
    size_t   size;
    uint32_t tensors, files;
    uint64_t parameters;
    uint64_t bytes;               /* of all tensors: total_size of the index                   */
    uint64_t file_bytes;          /* of all safetensors files                                  */
} rv_synth_info;

/* Writes a model folder with random weights: real names, shapes and sizes, values under which
 * activations stay sane in every 16-bit type, a tokenizer of random words.  For benchmarks and tests
 * without the published weights; what such a model answers means nothing.
 * out_dir: made if missing, and must be empty; what an interrupted run left there (rvengine.partial
 * lists it) is deleted; RV_ERR_IO while another process writes there.  NULL: nothing is written, *out is
 * filled.  The folder is whole or, after an error, empty.  Files are not synced to the disk.  A limit on
 * their size (RLIMIT_FSIZE) is RV_ERR_IO: the calling thread holds SIGXFSZ back meanwhile.  Memory: 4 MiB a thread (8 for f32), and for the
 * tokenizer some 150 bytes a token.  Starts threads, which end before it returns.
 * RV_ERR_CANCELLED when progress said stop.  */
RV_API rv_status rv_synthesise(const char *out_dir, const rv_synth_options *options,
                               rv_synth_info *out, rv_error *err);      /* [any] `out` may be NULL */

/* ---- quantised model folders --------------------------------------------------------------- */

typedef struct rv_quantise_options {
    size_t           size;
    rv_weight_format weights;     /* RV_WEIGHTS_INT8 or RV_WEIGHTS_NF4                         */
    int32_t          nf4_single;  /* NF4, non-zero: scales stay f32 (no double quantisation)   */
    rv_module_preset modules;     /* which linear layers                                       */
    const char      *skip;        /* instead: all but these, as Hugging Face's llm_int8_skip_modules, separated by commas */
    const char      *keep;        /* exceptions among text layers and lm_head: "NAME=16bit", separated by commas */
    uint64_t         shard_bytes; /* at most, a file; default 5 GB                             */
    int32_t          threads;     /* default one a core                                        */
    rv_log_fn        log;         void *log_user;      /* names in a list that match nothing   */
    rv_progress_fn   progress;    void *progress_user; /* on the calling thread                */
} rv_quantise_options;

typedef struct rv_quantise_info {
    size_t   size;
    uint32_t tensors, files;      /* as written                                                */
    uint32_t quantised;           /* linear layers                                             */
    uint64_t bytes, file_bytes;   /* of all tensors; of all safetensors files                  */
} rv_quantise_info;

/* Writes the model again with its linear layers' weights as bitsandbytes' int8 or NF4: a Hugging Face folder that
 * transformers with bitsandbytes loads, and rvengine.  Tensor names, other weights and other files are the source's
 * (subfolders and weights in other forms, as *.bin, *.h5, *.msgpack, *.onnx, are left out; one that cannot be read is an error before anything is written).  out_dir: made if missing, and must be empty; what an
 * interrupted run left there (rvengine.partial lists it) is deleted; RV_ERR_IO while another process writes there.  NULL: nothing
 * is written, *out is filled.  The folder is whole or, after an error, empty.  Files are not synced to the disk.  A limit on their
 * size (RLIMIT_FSIZE) is RV_ERR_IO: the calling thread holds SIGXFSZ back meanwhile.  Memory: 1 MiB a thread and some MB of scales a weight being worked on.  Starts threads, which end before
 * it returns.  RV_ERR_CANCELLED when progress said stop. */
RV_API rv_status rv_quantise(const char *model_dir, const char *out_dir, const rv_quantise_options *options,
                             rv_quantise_info *out, rv_error *err);      /* [any] `out` may be NULL */

/* ---- tokenizer -------------------------------------------------------------------------- */

/* `path`: a model folder or a tokenizer.json. */
RV_API rv_status rv_tokenizer_open(const char *path, rv_tokenizer **out, rv_error *err); /* [any] */
RV_API void      rv_tokenizer_free(rv_tokenizer *t);                                     /* [any] */

typedef uint32_t rv_encode_flags;
enum { RV_ENCODE_BOS = 1,         /* the tokenizer's begin-of-text token first                 */
       RV_ENCODE_CONTROL = 2 };   /* "<|eot_id|>" and the like become control tokens           */

/* `text` is UTF-8 of `bytes` bytes.  Writes up to `capacity` ids and sets *count to all there
 * are; *count > capacity means: call again with more room (not an error). */
RV_API rv_status rv_tokenizer_encode(const rv_tokenizer *t, const char *text, size_t bytes, rv_encode_flags flags,
                                     int32_t *ids, size_t capacity, size_t *count, rv_error *err);   /* [any] */
/* Writes at most `capacity` bytes, without a terminator; *bytes is what all of it needs.
 * `skip_control`: control tokens are left out.  Bytes that are no UTF-8 become U+FFFD. */
RV_API rv_status rv_tokenizer_decode(const rv_tokenizer *t, const int32_t *ids, size_t count, int32_t skip_control,
                                     char *text, size_t capacity, size_t *bytes, rv_error *err);     /* [any] */

/* ---- model and session ------------------------------------------------------------------ */

RV_API rv_status rv_model_load(const char *model_dir, const rv_load_options *options, rv_model **out, rv_error *err);   /* [any] */
RV_API void      rv_model_free(rv_model *model);                                        /* [any] */
/* What the model holds now: `weights` (and `mapped`), as rv_memory_plan said. */
RV_API rv_status rv_model_memory(const rv_model *model, rv_memory *out, rv_error *err); /* [any] */
/* Where rv_model_load spent its time, in ms: one after the other, and what a GPU's readers did meanwhile, a mean over them. */
typedef struct rv_load_times {
    size_t size;
    float  total;
    float  files, device;               /* headers and config; opening the device, the tokenizer beside it */
    float  plan, place;                 /* measuring and taking memory; handing tensors to the readers     */
    float  warm, wait;                  /* queueing a first pass (GPU); until all has arrived and it has run */
    float  pin, read, check, queue, bus;/* readers: their memory; copying from files; a cache's checksums; asking the GPU; waiting for the bus */
} rv_load_times;
RV_API rv_status rv_model_load_times(const rv_model *model, rv_load_times *out, rv_error *err); /* [any] */
/* What a request has to compute and read at least, for benchmarks: one image of `tiles` tiles (0: none) and a
 * prompt of `tokens` tokens.  FLOP count a multiplication and an addition; bytes are those of
 * device memory: weights, each once a stage, and keys and values. */
typedef struct rv_cost {
    size_t   size;
    double   vision_flop, prefill_flop, decode_flop;       /* decode: one token behind that prompt */
    uint64_t vision_bytes, prefill_bytes, decode_bytes;
    uint64_t decode_weight_bytes;       /* of decode_bytes: once for all sequences of a step    */
    double   tower_flop;                /* of vision_flop and vision_bytes: the tower alone     */
    uint64_t tower_bytes;
} rv_cost;
RV_API rv_status rv_model_cost(const rv_model *model, uint32_t tiles, uint32_t tokens, rv_cost *out, rv_error *err);   /* [any] */
/* The model's own tokenizer; lives as long as the model. */
RV_API const rv_tokenizer *rv_model_tokenizer(const rv_model *model);                   /* [any] */

/* All memory a session will ever use is taken here: a running job cannot run out of it. */
RV_API rv_status rv_session_new(rv_model *model, const rv_session_options *options, rv_session **out, rv_error *err);   /* [any] */
RV_API void      rv_session_free(rv_session *session);
/* [any], once.  Its jobs end as cancelled, what they submit then is refused (RV_ERR_CANCELLED), an rv_wait that sleeps returns 0.  In a
 * callback, or while another thread steps it, all that happens as that step ends; the handle is gone at once. */
RV_API rv_status rv_session_memory(const rv_session *session, rv_memory *out, rv_error *err); /* [any] */

/* ---- requests --------------------------------------------------------------------------- */

/* Several requests about one page: the vision tower and the cross-attention keys are computed
 * once, when the first of them runs, and kept until the picture is freed. */
RV_API rv_status rv_picture_new(rv_session *session, const rv_image *image, rv_picture **out, rv_error *err);   /* [any] */
RV_API void      rv_picture_free(rv_picture *picture);    /* [any] running requests keep its work */

/* Exactly one of text, image and picture. */
typedef struct rv_part {
    size_t          size;
    const char     *text;         /* UTF-8                                                    */
    size_t          text_bytes;   /* 0: text ends at its NUL                                  */
    const rv_image *image;
    rv_picture     *picture;
} rv_part;

typedef struct rv_message {
    size_t         size;
    const char    *role;          /* "system" (first only), "user", "assistant", "tool"       */
    const rv_part *parts;         /* in order; an image stands where it stands here           */
    uint32_t       n_parts;
} rv_message;

typedef struct rv_token {
    size_t      size;
    int32_t     id;
    uint32_t    index;            /* 0, 1, 2 .. within the answer                             */
    const char *text;             /* whole UTF-8 characters only; "" while one is unfinished  */
    size_t      bytes;
    float       logprob;          /* natural logarithm, of the distribution before sampling   */
    int32_t     forced;           /* non-zero: the constraint's own, nothing was chosen; logprob is 0 */
} rv_token;

/* Once per token; non-zero stops the job.  Then once at the end, where a job that came from
 * rv_submit may be freed. */
typedef int32_t (*rv_token_fn)(void *user, rv_job *job, const rv_token *token);
typedef void    (*rv_done_fn)(void *user, rv_job *job);

typedef int32_t rv_template;      /* published revisions of the Llama 3.2 chat template       */
enum { RV_TEMPLATE_AUTO = 0,      /* as the model folder's own template shows, else B         */
       RV_TEMPLATE_A = 1,         /* September 2024: an image forbids a system message        */
       RV_TEMPLATE_B = 2 };

typedef uint32_t rv_request_flags;
enum { RV_REQUEST_CONTROL_TOKENS = 1,  /* "<|eot_id|>" inside messages is a control token     */
       RV_REQUEST_DOUBLE_BOS     = 2,  /* as HF's processor(text=chat): begin-of-text twice   */
       RV_REQUEST_IGNORE_STOP    = 4 };/* do not end at the model's stop tokens (benchmarks)  */

/* What is asked is said in one of three ways:
 *   prompt (and images, system)   a single user message: the images, then the text
 *   messages                      a conversation
 *   raw (and images)              text taken as it is, control tokens recognised, one <|image|>
 *                                 for each image in order; begin-of-text is added if absent
 * A model without a chat template gets prompt and messages in the plain form
 * <|begin_of_text|><|image|>text. */
typedef struct rv_request {
    size_t            size;
    const rv_image   *images;      uint32_t n_images;
    const char       *system;
    const char       *prompt;
    const rv_message *messages;    uint32_t n_messages;
    const char       *raw;
    rv_request_flags  flags;
    rv_template       chat_template;
    const char       *date;        /* "26 Jul 2024" in the system block; NULL: today          */

    uint32_t          max_tokens;  /* 0: until the model ends or the context is full           */
    float             temperature; /* 0: greedy, the same answer every time                    */
    uint32_t          top_k;       /* sampling: 0 = the model's own (HF: 50); UINT32_MAX = off */
    float             top_p;       /* sampling: 0 = the model's own; 1 = off                   */
    float             repetition_penalty;   /* 0: the model's own (generation_config.json); 1: none */
    uint64_t          seed;
    const char *const *stop;       uint32_t n_stop;   /* text that ends the answer; not part of it */

    rv_token_fn       on_token;    rv_done_fn on_done;      void *user;
    rv_constraint    *constraint;  /* the form of the answer; NULL: any.  Tokens that it appends count for max_tokens, but not
                                      for repetition_penalty                                    */
} rv_request;

/* Decodes the images and tokenizes on the calling thread, then queues the request. */
RV_API rv_status rv_submit(rv_session *session, const rv_request *request, rv_job **out, rv_error *err);   /* [any] */

/* Advances every running job by one token (or one prefill chunk) and starts queued ones.
 * `active` (may be NULL) receives how many are left, also where the step itself has failed, but not with RV_ERR_BUSY or RV_ERR_ARGUMENT.  A job that fails ends alone; rv_step itself fails
 * only when the device is lost, and then every job, queued ones too, ends with that error. */
RV_API rv_status rv_step(rv_session *session, uint32_t *active, rv_error *err);         /* [one] */

/* Sleeps until the session has something to step, or until rv_wake; `timeout_ms` < 0: no limit.
 * Returns 1 when there is work, else 0. */
RV_API int32_t   rv_wait(rv_session *session, int32_t timeout_ms);                      /* [any] */
RV_API void      rv_wake(rv_session *session);              /* [any] ends every rv_wait now waiting */
/* Sleeps until the job has ended (another thread steps); returns 1 when it has, else 0. */
RV_API int32_t   rv_job_wait(rv_job *job, int32_t timeout_ms);                          /* [any] */

/* Submit, then step until this job has ended; returns the job's own status. */
RV_API rv_status rv_generate(rv_session *session, const rv_request *request, rv_job **out, rv_error *err);   /* [one] */

/* Takes effect before the next token, or the next prefill chunk. */
RV_API void      rv_cancel(rv_job *job);                                                /* [any] */
RV_API void      rv_job_free(rv_job *job);              /* [any] a running job is cancelled first */

/* What one linear layer of the decoder was given during a request, over all rows of all its calls. */
typedef struct rv_outliers {
    size_t      size;
    const char *module;           /* "language_model.model.layers.0.mlp.down_proj"; q, k and v share an input, as do gate
                                     and up: the first one's name                             */
    uint32_t    columns;          /* of its input                                             */
    uint64_t    rows;             /* that it was given                                        */
    uint32_t    outlier_columns;  /* that reached the threshold in any row                    */
    uint32_t    most_in_a_row;
    uint64_t    values;           /* that reached it                                          */
    float       largest;          /* |value| of all                                           */
} rv_outliers;
typedef void (*rv_outliers_fn)(void *user, const rv_outliers *of);

/* Runs a request with every product's input read back and searched for values of at least `threshold` (0: 6.0), which
 * is what LLM.int8 computes in 16 bit; then calls `each` for every linear layer of the decoder and lm_head, in their order.  Slow, and for
 * a model that no session holds (RV_ERR_BUSY). */
RV_API rv_status rv_count_outliers(rv_model *model, const rv_request *request, float threshold,
                                   rv_outliers_fn each, void *user, rv_error *err);     /* [one] */

/* ---- answers ---------------------------------------------------------------------------- */

typedef int32_t rv_job_state;
enum { RV_JOB_QUEUED = 0, RV_JOB_RUNNING = 1, RV_JOB_COMPLETE = 2, RV_JOB_CANCELLED = 3,
       RV_JOB_FAILED = 4, RV_JOB_CUT_SHORT = 5 /* max_tokens or the context was reached, or JSON in which the model repeated itself
                                                 was ended (rv_stats.looped): such JSON is not whole */ };

typedef struct rv_stats {
    size_t   size;
    uint32_t images, tiles, image_tokens; /* tiles: real ones; image_tokens: keys of cross-attention */
    uint32_t prompt_tokens, answer_tokens;
    float    image_ms;             /* reading and resizing the images, on the submitting thread */
    float    queue_ms, vision_ms, prefill_ms, decode_ms;   /* first token: queue + vision + prefill */
    float    total_ms;             /* submit to end                                            */
    uint64_t device_bytes;         /* what the session holds                                   */
    uint64_t saturated;            /* f16 compute: values clamped to +-65504 so far, by all f16 models on the GPU together */
    float    tower_ms;             /* of vision_ms: the tower alone, before projector and image keys */
    uint32_t forced_tokens;        /* of answer_tokens: appended by the constraint              */
    uint32_t steps;                /* passes behind the prompt that this answer took            */
    uint32_t reduced;              /* rv_steps: what model and session were reduced by         */
    uint32_t looped;               /* where a constraint ended what the model repeated: values; 1 of JSON, whose answer that cuts short */
} rv_stats;

RV_API rv_job_state rv_job_get_state(const rv_job *job);                                /* [any]  */
RV_API rv_status    rv_job_get_error(const rv_job *job, rv_error *err);                 /* [done] */
RV_API const char  *rv_job_text(const rv_job *job, size_t *bytes);    /* [done] never NULL        */
RV_API uint32_t     rv_job_tokens(const rv_job *job, const int32_t **ids, const float **logprobs);   /* [done] stop token included         */
RV_API uint32_t     rv_job_prompt(const rv_job *job, const int32_t **ids);              /* [any]  */
RV_API rv_status    rv_job_get_stats(const rv_job *job, rv_stats *out);                 /* [done] */

#ifdef __cplusplus
}
#endif
#endif
