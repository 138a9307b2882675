/* text.h - the decoder: rows of any mix of sequences, one pass.
 *
 * The one idea: prefill and decode are the same pass; they differ in which rows they carry.  A
 * row knows its sequence, its position and which image keys it sees; nothing else is special.
 * Source: spec mllama.md sections 4 and 6.
 */
#ifndef RV_ENGINE_TEXT_H
#define RV_ENGINE_TEXT_H
#include "engine/cache.h"
#include "engine/weights.h"

enum { RV_ROW_ARRAYS = 6 };              /* ids, pos, slot, image_first, image_last, row_on      */

/* The rows of a pass, as host arrays; uploaded together. */
typedef struct rv_text_rows {
    int32_t  n, capacity;
    int32_t *device;                     /* where they go, capacity * RV_ROW_ARRAYS numbers; NULL: scratch->rows */
    int32_t *ids, *pos, *slot;
    int32_t *image_first, *image_last;   /* visible keys in the slot's image key list; last < first: none */
    float   *row_on;                     /* 1, or 0 for a row that sees no image (its cross MLP counts 0) */
    int32_t  longest_self, longest_image;/* no row sees keys at or beyond these                 */
    bool     images;                     /* some row's sequence has images: cross layers run    */
    bool     apart;                      /* every row is of another sequence (decode)           */
} rv_text_rows;

typedef struct rv_text_scratch {
    rv_mat   x, h, qkv, heads, gate_up, ff, logits;
    int32_t *rows;                       /* device: ids | pos | slot | first | last | row_on     */
    rv_best *best;                       /* device, per row of logits                            */
    float   *cos_sin;                    /* device [context x head_dim]                          */
} rv_text_scratch;

typedef void (*rv_watch_fn)(void *user, int32_t layer, rv_mat x);

typedef struct rv_text {
    const rv_config  *config;
    const rv_weights *weights;
    rv_backend       *be;
    rv_text_scratch  *scratch;
    rv_cache         *cache;
    rv_reference      reference;
    rv_watch_fn       watch;             /* NULL, or sees x before layer 0, after each layer but the
                                            last, and the final norm's output (as HF's hidden_states) */
    void             *watch_user;
    rv_streamed      *streamed;          /* NULL: every layer's weights stay on the device       */
} rv_text;

void rv_text_place(rv_text_scratch *s, const rv_config *config, rv_dtype act, int32_t rows, int32_t logit_rows,
                   int32_t context, rv_arena *arena);
/* What is as long as there are rows only: the rest of *s stays as it is. */
void rv_text_place_rows(rv_text_scratch *s, const rv_config *config, rv_dtype act, int32_t rows, rv_arena *arena);
/* Rotary tables for positions 0..context-1: out [context x head_dim], cosines then sines. */
void rv_text_rotary(const rv_text_config *t, int32_t context, float *out);

/* Runs the rows; keys and values of all of them are stored.  Logits (f32, scratch->logits row 0..)
 * are made for rows [from, from + n). Host arrays in `rows` are those of rv_text_rows_new. */
void rv_text_run(const rv_text *t, const rv_text_rows *rows, int32_t logits_from, int32_t logits_n);

/* The same in two halves: the rows' arrays, and the operations (which may be recorded). rows->n,
 * longest_* and images must be the same in both. */
void rv_text_upload(const rv_text *t, const rv_text_rows *rows);
void rv_text_queue(const rv_text *t, const rv_text_rows *rows, int32_t logits_from, int32_t logits_n);
/* Sets ids, pos and slot of `out` to the device arrays of the rows from `from` on. */
void rv_text_answering(const rv_text *t, const rv_text_rows *rows, int32_t from, rv_answering *out);

rv_status rv_text_rows_new(rv_text_rows *rows, int32_t capacity, rv_error *err);
void      rv_text_rows_free(rv_text_rows *rows);

/* Which images each prompt token sees.  Visible images are first..last (by order in the prompt);
 * last < first: none.  `n_images` out: how many image tokens there are. */
typedef struct rv_sight { int32_t first, last; } rv_sight;
int32_t rv_text_sight(const int32_t *ids, int32_t n, int32_t image_token, rv_sight *out);
#endif
