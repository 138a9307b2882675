/* shards.h - new safetensors files of a model folder: cut, written by every core, and named when all is there.
 *
 * The one idea: all headers are known before the first number is, so any thread may compute any piece and write it where
 * it belongs.  Work is dealt out over several files in turn, because the kernel lets only one thread write into a file
 * at a time.
 */
#ifndef RV_ENGINE_SHARDS_H
#define RV_ENGINE_SHARDS_H
#include <stdatomic.h>

#include "engine/folder.h"

enum { RV_SHARD_DIMS = 4, RV_SHARDS_AT_ONCE = 8 };

typedef struct rv_shard_tensor {
    char       *name;                    /* as the file will have it                            */
    const char *type;                    /* "BF16"; static                                      */
    int32_t     n_dims;                  /* 0: a scalar                                         */
    int64_t     shape[RV_SHARD_DIMS];
    uint64_t    bytes;
    bool        joins;                   /* is written by the work of the one before, and stays in its file */
    size_t      file;                    /* set by rv_shards_cut                                */
    uint64_t    at;                      /* in the file's data                                  */
} rv_shard_tensor;

typedef struct rv_shard {
    char      name[64];
    size_t    first, end;                /* of rv_shards.tensors                                */
    uint64_t  bytes;                     /* of tensors                                          */
    rv_string header;                    /* with its length in front                            */
} rv_shard;

/* Zero-initialise; free in any case. */
typedef struct rv_shards {
    rv_shard_tensor *tensors;
    size_t           n, room;
    rv_shard        *files;
    size_t           n_files;
    uint64_t         bytes, file_bytes;  /* bytes: of all tensors                               */
    int32_t          sparse;             /* non-zero: files get their length, not their bytes   */
    const rv_folder *folder;             /* while writing                                       */
    int              fd[RV_SHARDS_AT_ONCE];
    size_t           first_open;         /* fd[k] is that of file first_open + k                */
    _Atomic uint64_t done;
} rv_shards;

/* Appends a tensor; the name is copied. */
rv_status rv_shards_add(rv_shards *s, const rv_shard_tensor *tensor, rv_error *err);
/* Cuts as Hugging Face does: a tensor (with those that join it) that does not fit any more begins the next file; or, with
 * `files`, into that many runs. Within a file numbers of four bytes come first, then of two, of one: all are aligned. */
rv_status rv_shards_cut(rv_shards *s, uint64_t most_bytes, uint32_t files, rv_error *err);

/* How tensors come to be. `units`: pieces of work of tensor i and those that join it, done in any order by any thread; `run` does one,
 * with `memory` of memory_bytes of the thread's own, and writes with rv_shards_put. */
typedef struct rv_shard_work {
    uint32_t  (*units)(void *user, size_t i);
    rv_status (*run)(void *user, rv_shards *s, size_t i, uint32_t unit, void *memory, rv_error *err);
    void       *user;
    size_t      memory_bytes;
    int32_t     threads;                 /* 0: one a core                                       */
    rv_progress_fn progress;  void *progress_user;     /* on the calling thread                 */
} rv_shard_work;

/* Tells the folder its files: the index or, without one, the only file first: it makes the folder a model. */
void      rv_shards_name(const rv_shards *s, rv_folder *folder);
/* Makes them, with NAME.partial for a name. */
rv_status rv_shards_write(rv_shards *s, const rv_folder *folder, const rv_shard_work *work, rv_error *err);
rv_status rv_shards_put(rv_shards *s, size_t i, uint64_t at, const void *data, uint64_t bytes, rv_error *err);
void      rv_shards_free(rv_shards *s);
#endif
