/* checkpoint.h - a model folder's tensors under one set of names, wherever they are stored.
 *
 * The one idea: both of HF's naming layouts and PEFT's prefix are folded into canonical names
 *   text.* (text.embed_tokens.weight, text.layers.3.cross_attn.q_proj.weight, ..)
 *   lm_head.weight   vision.*   projector.weight, projector.bias
 * so that nobody else knows about layouts.  Nothing is copied: tensors point into the mapped files.
 */
#ifndef RV_LOADER_CHECKPOINT_H
#define RV_LOADER_CHECKPOINT_H
#include "engine/base/dtype.h"
#include "engine/base/hash.h"
#include "engine/base/status.h"

enum { RV_MAX_DIMS = 8 };

typedef struct rv_tensor {
    const char *name;            /* canonical                                                  */
    const char *file_name;       /* as the file has it                                         */
    const char *file;            /* path, for messages                                         */
    rv_dtype    type;            /* RV_DTYPE_COUNT: a safetensors type the engine does not use (its name: type_name) */
    const char *type_name;       /* "BF16"                                                     */
    int32_t     n_dims;
    int64_t     shape[RV_MAX_DIMS];
    const void *data;            /* in the mapping; any alignment                              */
    uint64_t    bytes;
} rv_tensor;

typedef enum { RV_LAYOUT_OLD, RV_LAYOUT_NEW, RV_LAYOUT_TEXT_ONLY } rv_layout;
typedef struct rv_checkpoint rv_checkpoint;

/* `path`: a folder with model.safetensors.index.json or model.safetensors (the index wins), or
 * one .safetensors file.  Checks every header; a shard that is missing, a tensor the index places
 * elsewhere or that no shard has, and two tensors with one canonical name are errors.  Stray
 * tensors (rotary_emb.inv_freq, rope_freqs) are left out.  Names of no known layout keep
 * their file name.  Owned by the caller; immutable, any thread. */
rv_status rv_checkpoint_open(const char *path, rv_checkpoint **out, rv_error *err);
void      rv_checkpoint_close(rv_checkpoint *c);

const rv_tensor *rv_checkpoint_find(const rv_checkpoint *c, const char *canonical_name);  /* or NULL */
uint32_t         rv_checkpoint_count(const rv_checkpoint *c);
const rv_tensor *rv_checkpoint_at(const rv_checkpoint *c, uint32_t i);   /* sorted by canonical name */
rv_layout        rv_checkpoint_layout(const rv_checkpoint *c);
uint32_t         rv_checkpoint_files(const rv_checkpoint *c);
uint64_t         rv_checkpoint_file_bytes(const rv_checkpoint *c);
/* RV_ERR_IO when a mapped file is shorter now than at open (reading on would be a bus error).  For
 * use right before a load touches the pages. */
rv_status        rv_checkpoint_recheck(const rv_checkpoint *c, rv_error *err);
/* Bytes of a tensor's data are not wanted any more: their pages leave this process' memory; whoever looks again reads them again.
 * Bytes that are none of the checkpoint's are left alone. */
void             rv_checkpoint_forget(const rv_checkpoint *c, const void *data, uint64_t bytes);
/* What tells this checkpoint from another one, and from itself after a change: of every file its name, length, time of last
 * change and header; of every tensor 4 KiB at its beginning, middle and end. Reads some 10 MB of a large model. */
rv_status        rv_checkpoint_key(const rv_checkpoint *c, rv_hash *out, rv_error *err);
#endif
