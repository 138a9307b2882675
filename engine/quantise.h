/* quantise.h - what the two files behind rv_quantise share: quantise.c makes the tensors, quantise_files.c all the rest of the folder. */
#ifndef RV_ENGINE_QUANTISE_H
#define RV_ENGINE_QUANTISE_H
#include "engine/base/text.h"
#include "engine/model.h"
#include "engine/modules.h"
#include "engine/shards.h"

/* Copies every file of the model's folder that is neither weights nor config.json. `copied`: their names, each with a NUL behind. */
rv_status rv_quantise_copy_files(const char *model_dir, const char *out_dir, rv_string *copied, rv_error *err);
/* config.json with a quantization_config under which transformers makes those very modules quantised. */
rv_status rv_quantise_write_config(const char *model_dir, const char *out_dir, const rv_config *config, const rv_modules *modules, rv_format format,
                                   bool nested, rv_string *copied, rv_error *err);
void      rv_quantise_remove_files(const char *out_dir, const rv_string *copied);
#endif
