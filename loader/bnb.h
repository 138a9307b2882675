/* bnb.h - weights that a checkpoint holds quantised, as bitsandbytes' users save them.
 *
 * The one idea: whether a weight is quantised, and how, is decided by what stands beside it in the files, tensor by
 * tensor, never by a list in config.json: checkpoints mix formats.  A weight X.weight is
 *   int8    where it is I8: X.SCB, and X.weight_format where newer versions wrote it
 *   4 bit   where X.weight.quant_state.bitsandbytes__nf4 (or __fp4) is there: its JSON has the shape; X.weight is packed
 *           codes under whatever type; .absmax, .quant_map, and where the absmaxes are quantised .nested_absmax and
 *           .nested_quant_map
 * and plain in every other case.  Source: spec quantisation.md, sections 1.7 and 2.6.
 */
#ifndef RV_LOADER_BNB_H
#define RV_LOADER_BNB_H
#include <stdbool.h>

#include "engine/base/quant.h"
#include "loader/checkpoint.h"

/* The codes of `weight`, which is to be [rows x cols]; out->format is PLAIN where it is not quantised (and the rest not set).
 * Pointers lead into the mapped files.  Companions are checked for type, length and JSON, the two maps for their values;
 * scales are not read.  Errors name the tensor at fault. */
rv_status rv_checkpoint_codes(const rv_checkpoint *c, const rv_tensor *weight, int64_t rows, int64_t cols, rv_codes *out, rv_error *err);

/* What `t` is stored as, without looking at its companions: where not PLAIN, the above gives this format or an error. */
rv_format rv_checkpoint_format(const rv_checkpoint *c, const rv_tensor *t);

/* Reads all scales of such codes: RV_ERR_FORMAT for one that is not a number from 0 up, or so large that weights would not be finite
 * where they are multiplied (SCB: beyond f16, in which bitsandbytes takes it; 4 bit: the largest code's product beyond bf16 and f32). */
rv_status rv_checkpoint_check_scales(const rv_tensor *weight, const rv_codes *codes, int64_t rows, int64_t cols, rv_error *err);

/* Whether `t` only says how another tensor is to be read.  Then *weight is that tensor, NULL when there is none that is
 * quantised in the way that asks for it. */
bool rv_checkpoint_companion(const rv_checkpoint *c, const rv_tensor *t, const rv_tensor **weight);
#endif
