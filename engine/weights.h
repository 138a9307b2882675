/* weights.h - the model's tensors: one table of names, shapes and destinations.
 *
 * The one idea: everything that must know the checkpoint's content (loading, planning, checking,
 * inspecting, writing synthetic checkpoints) walks RV_TENSOR_TABLE; a tensor exists nowhere else.
 * Source: spec mllama.md section 2.3.
 */
#ifndef RV_ENGINE_WEIGHTS_H
#define RV_ENGINE_WEIGHTS_H
#include "engine/base/arena.h"
#include "engine/config.h"
#include "engine/streamed.h"
#include "kernels/backend.h"
#include "loader/checkpoint.h"

/* ---- where tensors go ---- */

typedef struct rv_text_layer {           /* self and cross layers                              */
    rv_weight *qkv;                      /* self: [q; k; v]      cross: q alone                */
    rv_weight *kv;                       /* cross: [k; v], over the projected vision states    */
    rv_weight *o, *gate_up, *down;
    float *norm1, *norm2, *q_norm, *k_norm;
    float attn_gate, mlp_gate;           /* cross: tanh applied                                */
} rv_text_layer;

typedef struct rv_vision_layer {         /* local and global layers                            */
    rv_weight *qkv, *o, *fc1, *fc2;
    float *norm1, *norm1_bias, *norm2, *norm2_bias, *fc1_bias, *fc2_bias;
    float attn_gate, ffn_gate;           /* global: tanh applied; local: 1                     */
} rv_vision_layer;

typedef struct rv_weights {
    rv_weight *embed, *head;             /* [vocab + 8 x hidden], [vocab x hidden]             */
    float *norm;
    rv_text_layer text[RV_MAX_LAYERS];
    rv_weight *projector;                /* [hidden x output_dim]                              */
    float *projector_bias;
    rv_weight *patch, *class_row, *position, *tile_position, *pre_tile, *post_tile;
    float *norm_pre, *norm_pre_bias, *norm_post, *norm_post_bias;
    float position_gate, pre_gate, post_gate;        /* tanh applied                           */
    rv_vision_layer local[RV_MAX_LAYERS], global[RV_MAX_LAYERS];
    bool pads_are_equal;                 /* every unused slot of the tile tables is zero       */
    rv_codes *codes;                     /* [n_codes] of tensors that the checkpoint holds quantised; weights point to them */
    uint32_t  n_codes;
} rv_weights;

/* ---- the table ---- */

typedef enum { RV_IN_TEXT, RV_IN_HEAD, RV_IN_VISION, RV_IN_PROJECTOR, RV_PARTS } rv_part_id;
typedef enum { RV_EACH_ONCE, RV_EACH_TEXT_LAYER, RV_EACH_SELF, RV_EACH_CROSS, RV_EACH_LOCAL, RV_EACH_GLOBAL } rv_each;
typedef enum { RV_KIND_WEIGHT, RV_KIND_VECTOR, RV_KIND_GATE } rv_kind;
/* How several GPUs would share it: by output rows, by input columns, or each a whole copy. */
typedef enum { RV_SPLIT_NONE, RV_SPLIT_ROWS, RV_SPLIT_COLS } rv_split;
/* Sizes that come from the config. */
typedef enum {
    RV_0, RV_1, RV_HIDDEN, RV_Q, RV_KV, RV_FFN, RV_EMBED_ROWS, RV_VOCAB, RV_HEAD_DIM,
    RV_V_HIDDEN, RV_V_FFN, RV_V_OUT, RV_V_TOKENS, RV_PATCH, RV_COLOURS, RV_RATIO_ROWS,
    RV_TILES_HIDDEN, RV_TILES_TOKENS_HIDDEN, RV_SIZES
} rv_size;

/*  X(part, each, name, shape (up to 4), kind, use, order, destination, split)
 *  Tensors of one destination, one after the other, are stacked into one weight. */
#define RV_TENSOR_TABLE(X) \
    X(TEXT, ONCE, "embed_tokens.weight", (EMBED_ROWS, HIDDEN, 0, 0), WEIGHT, ROWS, STACKED, embed, NONE) \
    X(TEXT, TEXT_LAYER, "input_layernorm.weight", (HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, text[0].norm1, NONE) \
    X(TEXT, TEXT_LAYER, "post_attention_layernorm.weight", (HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, text[0].norm2, NONE) \
    X(TEXT, SELF, "self_attn.q_proj.weight", (Q, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].qkv, ROWS) \
    X(TEXT, SELF, "self_attn.k_proj.weight", (KV, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].qkv, ROWS) \
    X(TEXT, SELF, "self_attn.v_proj.weight", (KV, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].qkv, ROWS) \
    X(TEXT, SELF, "self_attn.o_proj.weight", (HIDDEN, Q, 0, 0), WEIGHT, TEXT, STACKED, text[0].o, COLS) \
    X(TEXT, CROSS, "cross_attn.q_proj.weight", (Q, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].qkv, ROWS) \
    X(TEXT, CROSS, "cross_attn.k_proj.weight", (KV, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].kv, ROWS) \
    X(TEXT, CROSS, "cross_attn.v_proj.weight", (KV, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, text[0].kv, ROWS) \
    X(TEXT, CROSS, "cross_attn.o_proj.weight", (HIDDEN, Q, 0, 0), WEIGHT, TEXT, STACKED, text[0].o, COLS) \
    X(TEXT, CROSS, "cross_attn.q_norm.weight", (HEAD_DIM, 0, 0, 0), VECTOR, ROWS, STACKED, text[0].q_norm, NONE) \
    X(TEXT, CROSS, "cross_attn.k_norm.weight", (HEAD_DIM, 0, 0, 0), VECTOR, ROWS, STACKED, text[0].k_norm, NONE) \
    X(TEXT, CROSS, "cross_attn_attn_gate", (1, 0, 0, 0), GATE, ROWS, STACKED, text[0].attn_gate, NONE) \
    X(TEXT, CROSS, "cross_attn_mlp_gate", (1, 0, 0, 0), GATE, ROWS, STACKED, text[0].mlp_gate, NONE) \
    X(TEXT, TEXT_LAYER, "mlp.gate_proj.weight", (FFN, HIDDEN, 0, 0), WEIGHT, TEXT, GATE_UP, text[0].gate_up, ROWS) \
    X(TEXT, TEXT_LAYER, "mlp.up_proj.weight", (FFN, HIDDEN, 0, 0), WEIGHT, TEXT, GATE_UP, text[0].gate_up, ROWS) \
    X(TEXT, TEXT_LAYER, "mlp.down_proj.weight", (HIDDEN, FFN, 0, 0), WEIGHT, TEXT, STACKED, text[0].down, COLS) \
    X(TEXT, ONCE, "norm.weight", (HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, norm, NONE) \
    X(HEAD, ONCE, "weight", (VOCAB, HIDDEN, 0, 0), WEIGHT, TEXT, STACKED, head, ROWS) \
    X(VISION, ONCE, "class_embedding", (V_HIDDEN, 0, 0, 0), WEIGHT, ROWS, STACKED, class_row, NONE) \
    X(VISION, ONCE, "patch_embedding.weight", (V_HIDDEN, COLOURS, PATCH, PATCH), WEIGHT, VISION, STACKED, patch, NONE) \
    X(VISION, ONCE, "gated_positional_embedding.gate", (1, 0, 0, 0), GATE, ROWS, STACKED, position_gate, NONE) \
    X(VISION, ONCE, "gated_positional_embedding.embedding", (V_TOKENS, V_HIDDEN, 0, 0), WEIGHT, ROWS, STACKED, position, NONE) \
    X(VISION, ONCE, "gated_positional_embedding.tile_embedding.weight", (RATIO_ROWS, TILES_TOKENS_HIDDEN, 0, 0), WEIGHT, ROWS, STACKED, tile_position, NONE) \
    X(VISION, ONCE, "pre_tile_positional_embedding.gate", (1, 0, 0, 0), GATE, ROWS, STACKED, pre_gate, NONE) \
    X(VISION, ONCE, "pre_tile_positional_embedding.embedding.weight", (RATIO_ROWS, TILES_HIDDEN, 0, 0), WEIGHT, ROWS, STACKED, pre_tile, NONE) \
    X(VISION, ONCE, "post_tile_positional_embedding.gate", (1, 0, 0, 0), GATE, ROWS, STACKED, post_gate, NONE) \
    X(VISION, ONCE, "post_tile_positional_embedding.embedding.weight", (RATIO_ROWS, TILES_HIDDEN, 0, 0), WEIGHT, ROWS, STACKED, post_tile, NONE) \
    X(VISION, ONCE, "layernorm_pre.weight", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, norm_pre, NONE) \
    X(VISION, ONCE, "layernorm_pre.bias", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, norm_pre_bias, NONE) \
    X(VISION, ONCE, "layernorm_post.weight", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, norm_post, NONE) \
    X(VISION, ONCE, "layernorm_post.bias", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, norm_post_bias, NONE) \
    RV_VISION_LAYER(X, LOCAL, local) \
    RV_VISION_LAYER(X, GLOBAL, global) \
    X(VISION, GLOBAL, "gate_attn", (1, 0, 0, 0), GATE, ROWS, STACKED, global[0].attn_gate, NONE) \
    X(VISION, GLOBAL, "gate_ffn", (1, 0, 0, 0), GATE, ROWS, STACKED, global[0].ffn_gate, NONE) \
    X(PROJECTOR, ONCE, "weight", (HIDDEN, V_OUT, 0, 0), WEIGHT, VISION, STACKED, projector, NONE) \
    X(PROJECTOR, ONCE, "bias", (HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, projector_bias, NONE)

#define RV_VISION_LAYER(X, each, to) \
    X(VISION, each, "input_layernorm.weight", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].norm1, NONE) \
    X(VISION, each, "input_layernorm.bias", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].norm1_bias, NONE) \
    X(VISION, each, "self_attn.q_proj.weight", (V_HIDDEN, V_HIDDEN, 0, 0), WEIGHT, VISION, STACKED, to[0].qkv, ROWS) \
    X(VISION, each, "self_attn.k_proj.weight", (V_HIDDEN, V_HIDDEN, 0, 0), WEIGHT, VISION, STACKED, to[0].qkv, ROWS) \
    X(VISION, each, "self_attn.v_proj.weight", (V_HIDDEN, V_HIDDEN, 0, 0), WEIGHT, VISION, STACKED, to[0].qkv, ROWS) \
    X(VISION, each, "self_attn.o_proj.weight", (V_HIDDEN, V_HIDDEN, 0, 0), WEIGHT, VISION, STACKED, to[0].o, COLS) \
    X(VISION, each, "post_attention_layernorm.weight", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].norm2, NONE) \
    X(VISION, each, "post_attention_layernorm.bias", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].norm2_bias, NONE) \
    X(VISION, each, "mlp.fc1.weight", (V_FFN, V_HIDDEN, 0, 0), WEIGHT, VISION, STACKED, to[0].fc1, ROWS) \
    X(VISION, each, "mlp.fc1.bias", (V_FFN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].fc1_bias, ROWS) \
    X(VISION, each, "mlp.fc2.weight", (V_HIDDEN, V_FFN, 0, 0), WEIGHT, VISION, STACKED, to[0].fc2, COLS) \
    X(VISION, each, "mlp.fc2.bias", (V_HIDDEN, 0, 0, 0), VECTOR, ROWS, STACKED, to[0].fc2_bias, NONE)

enum { RV_SHAPE_DIMS = 4, RV_NAME_BYTES = 128 };

typedef struct rv_tensor_row {           /* one line of the table                              */
    rv_part_id      part;
    rv_each         each;
    const char     *name;                /* within its layer                                   */
    uint8_t         shape[RV_SHAPE_DIMS];/* rv_size; 0 ends it                                 */
    rv_kind         kind;
    rv_weight_use   use;
    rv_weight_order order;
    size_t          destination;         /* offset in rv_weights, of layer 0                   */
    rv_split        split;
} rv_tensor_row;

/* One tensor that the config asks for. */
typedef struct rv_tensor_want {
    const rv_tensor_row *row;
    int32_t layer;                       /* -1 when there is one for the whole model           */
    char    name[RV_NAME_BYTES];         /* canonical (loader/checkpoint.h)                    */
    int32_t n_dims;
    int64_t shape[RV_SHAPE_DIMS];
    int64_t elements;
    size_t  destination;                 /* offset in rv_weights                               */
} rv_tensor_want;

/* Calls `each` for every tensor of the config, tensors of one weight next to each other, in
 * the order of use within a part.  Stops at the first status that is not RV_OK and returns it. */
typedef rv_status (*rv_want_fn)(void *user, const rv_tensor_want *want, rv_error *err);
rv_status rv_weights_each(const rv_config *config, rv_want_fn each, void *user, rv_error *err);

/* Checks that the checkpoint has every tensor, in its shape and a type we read, and none besides. A linear layer's weight may
 * be quantised (loader/bnb.h), and then has companions. */
rv_status rv_weights_check(const rv_config *config, const rv_checkpoint *c, rv_error *err);

/* What weights become.  A tensor that the checkpoint holds quantised stays as it is; the others are quantised where
 * `modules` says so.  A weight of several tensors has one format: 16 bit where theirs differ. */
typedef struct rv_weights_progress { rv_progress_fn call; void *user; } rv_weights_progress;
struct rv_modules;                       /* engine/modules.h                                    */
typedef struct rv_placing {
    rv_format           format;          /* of quantisable modules; PLAIN: none is quantised, codes are read as 16 bit */
    bool                as_stored;       /* whatever the checkpoint holds quantised keeps its format */
    bool                nested;          /* NF4: double quantisation                           */
    const struct rv_modules *modules;    /* which these are                                    */
    bool                filled;          /* the arena already holds what placing made of the same model once, or soon will;
                                            pads_are_equal is the caller's to fill in           */
    rv_arena           *host;            /* NULL, or where the large tables go instead that few rows are read of; its memory is
                                            rv_host_alloc's.  Never filled                     */
    rv_streamed        *streamed;        /* NULL, or the layers whose weights pass through its buffers */
    bool                head_int8;       /* lm_head in int8, whatever `format` is               */
    rv_weights_progress progress;
} rv_placing;

/* Places all weights: with an arena that only measures, nothing is read and *out gets no
 * pointers; else tensors are converted and uploaded.  *mapped: bytes that are read in place.
 * The checkpoint must stay open as long as the weights (mapped) and have passed the check. */
rv_status rv_weights_place(const rv_config *config, const rv_checkpoint *c, rv_backend *be, rv_arena *arena,
                           const rv_placing *how, rv_weights *out, uint64_t *mapped, rv_error *err);
void      rv_weights_free(const rv_config *config, rv_backend *be, rv_weights *w);

/* Whether the row is one of the tables that rv_weights_place can put elsewhere. */
bool rv_weights_large_table(const rv_tensor_row *row);

/* Whether every unused tile slot is zero in all three tables, so that padding tiles of an image are all alike. */
bool rv_weights_pads_equal(const rv_config *config, const rv_checkpoint *c);
#endif
