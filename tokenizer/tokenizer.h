/* tokenizer.h - the Llama 3 tokenizer: tokenizer.json in, text to ids and back.
 *
 * rv_tokenizer_open, _encode, _decode and _free are public (engine/rvengine.h); here is what the
 * engine needs besides.  A tokenizer never changes after opening: any thread.
 */
#ifndef RV_TOKENIZER_TOKENIZER_H
#define RV_TOKENIZER_TOKENIZER_H
#include <stdbool.h>
#include "engine/base/status.h"
#include "engine/base/text.h"

/* A list of ids that grows; zero-initialise. */
typedef struct rv_ids { int32_t *data; size_t count, capacity; } rv_ids;
rv_status rv_ids_push(rv_ids *ids, int32_t id, rv_error *err);
void      rv_ids_free(rv_ids *ids);

/* Appends the ids of UTF-8 text; invalid UTF-8 is RV_ERR_FORMAT with the byte's offset. */
rv_status rv_tokenizer_append(const rv_tokenizer *t, const char *text, size_t bytes,
                              rv_encode_flags flags, rv_ids *out, rv_error *err);

/* The added token with exactly this text ("<|eot_id|>"), or -1. */
int32_t  rv_tokenizer_control(const rv_tokenizer *t, const char *content);
int32_t  rv_tokenizer_bos(const rv_tokenizer *t);         /* "<|begin_of_text|>", or -1         */
/* Whether the file's post-processor puts BOS before every text (HF's add_special_tokens). */
bool     rv_tokenizer_adds_bos(const rv_tokenizer *t);
bool     rv_tokenizer_is_control(const rv_tokenizer *t, int32_t id);
uint32_t rv_tokenizer_size(const rv_tokenizer *t);        /* largest id + 1                     */
/* Bytes of one token (UTF-8 of a control token's text); NULL for an id nobody has. */
const char *rv_tokenizer_bytes(const rv_tokenizer *t, int32_t id, size_t *bytes);

/* Streaming decoder: hands out whole characters only.  Zero-initialise. */
typedef struct rv_text_stream { char held[4]; uint8_t n_held; } rv_text_stream;
/* Adds to `out` what token `id` completes; bytes that can be no UTF-8 become U+FFFD. */
void rv_text_stream_push(rv_text_stream *s, const rv_tokenizer *t, int32_t id, bool skip_control,
                         rv_string *out);
void rv_text_stream_end(rv_text_stream *s, rv_string *out);   /* an unfinished character: U+FFFD */
#endif
