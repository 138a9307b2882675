/* quantise.h - what the two files behind rv_quantise share: quantise.c makes the tensors, quantise_files.c all the rest of the folder. */
#ifndef RV_ENGINE_QUANTISE_H
#define RV_ENGINE_QUANTISE_H
#include "engine/base/text.h"
#include "engine/model.h"
#include "engine/modules.h"
#include "engine/shards.h"

/* The files of the model's folder that stay as they are: those that are neither weights nor config.json. `names`: a NUL behind each; their
 * bytes are added to *bytes. One that cannot be read is an error; folders are left out. */
rv_status rv_quantise_list_files(const char *model_dir, rv_string *names, uint64_t *bytes, rv_error *err);
rv_status rv_quantise_copy_files(const char *model_dir, const rv_folder *out, const rv_string *names, rv_error *err);
/* config.json with a quantization_config under which transformers makes those very modules quantised. */
rv_status rv_quantise_write_config(const char *model_dir, const rv_folder *out, const rv_config *config, const rv_modules *modules, rv_format format,
                                   bool nested, rv_error *err);
#endif
