/* modules.h - which of a model's linear layers are quantised.
 *
 * The one idea: a choice is three short texts (a preset, Hugging Face's skip list, exceptions of our own) asked per
 * tensor; what loads and what writes quantised models asks here, so that both mean the same modules.
 *
 * Linear layers are the text layers' seven, the vision layers' six, multi_modal_projector and lm_head; nothing else is
 * ever quantised.  Their names are Hugging Face's, as saved up to transformers 4.51 (language_model.model.layers.3.mlp.up_proj,
 * language_model.lm_head, vision_model..) or since (model.language_model.layers.3.mlp.up_proj, lm_head, model.vision_model..):
 * a list may use either.  Source: spec quantisation.md, sections 1.8 and 1.9.
 */
#ifndef RV_ENGINE_MODULES_H
#define RV_ENGINE_MODULES_H
#include "engine/weights.h"

/* skip: as Hugging Face's llm_int8_skip_modules, names separated by commas.  As there it replaces what would be left out by
 *   itself: every linear layer is quantised but those where a name is the whole name, its last part, or followed by a dot
 *   anywhere inside ("vision_model", "lm_head", "layers.3.mlp"; "vision_tower" is nowhere).
 * Without it, the preset: INTENDED, the text layers; HF_LITERAL, what the skip list "vision_tower,multi_modal_projector" gives
 *   in Hugging Face: text layers, vision layers and lm_head.
 * keep: exceptions among text layers and lm_head, "name=16bit|int8|nf4", separated by commas: name is a run of whole parts of a
 *   module's name ("cross_attn", "mlp.down_proj", "layers.3.cross_attn", "lm_head").  The last one that matches counts.
 *
 * Modules that are one weight here (q, k and v; gate and up) have one format: where a list would split them, all stay 16 bit. */
typedef struct rv_modules {
    rv_module_preset preset;
    const char      *skip, *keep;        /* NULL or empty: none                                  */
} rv_modules;

typedef void (*rv_modules_warn)(void *user, const char *line);

/* RV_ERR_ARGUMENT: an entry that is malformed, or HF_LITERAL together with a skip list.  `warn` (may be NULL) is told of entries that
 * match no linear layer of this model, and of modules that a list would split when `asked` is asked of the rest. */
rv_status rv_modules_check(const rv_modules *modules, const rv_config *config, rv_format asked, rv_modules_warn warn, void *user, rv_error *err);

/* What the tensor of that canonical name is to be kept as, if quantised modules are `asked`; of checked modules. */
rv_format rv_modules_format(const rv_modules *modules, const char *canonical_name, rv_format asked);
/* The same, of a tensor whose shape is known: 4 bit only where blocks are whole in every row. */
rv_format rv_modules_format_of(const rv_modules *modules, const rv_tensor_want *want, rv_format asked);

/* Whether it is the weight of a linear layer. */
bool rv_modules_linear(const char *canonical_name);

/* The module's name in Hugging Face's files, of either generation; `canonical_name` is that of its weight. */
enum { RV_MODULE_BYTES = RV_NAME_BYTES + 32 };
void rv_modules_name(const char *canonical_name, bool since_452, char out[RV_MODULE_BYTES]);
#endif
