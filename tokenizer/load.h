/* load.h - reading tokenizer.json, in three files: load (the file), vocabulary (model.vocab, merges
 * and the added tokens) and pipeline (what surrounds the model, checked to be Llama 3's). */
#ifndef RV_TOKENIZER_LOAD_H
#define RV_TOKENIZER_LOAD_H
#include "engine/base/json.h"
#include "tokenizer/parts.h"

#define RV_BOS_TEXT "<|begin_of_text|>"

/* An entry of model.vocab or of added_tokens, as the file has it. */
typedef struct rv_load_entry { uint64_t id; uint32_t at; uint16_t bytes, flags; } rv_load_entry;
typedef struct rv_load_entries { rv_load_entry *data; size_t count, capacity; } rv_load_entries;

typedef struct rv_load {
    rv_json         j;
    const char     *path;
    rv_tokenizer   *t;
    rv_error       *err;
    size_t          pool_used;                    /* t->pool has room for every string of the file */
    rv_load_entries vocab, added;
    int64_t         template_bos;                 /* id that the post-processor states; -1: none   */
} rv_load;

/* "FILE: WHERE: .." with RV_ERR_FORMAT: the JSON is broken at the latest token, or no `wanted`. */
rv_status rv_load_wrong(const rv_load *l, const char *where, const char *wanted);
/* Reads the value of the latest key as true or false. */
rv_status rv_load_bool(rv_load *l, const char *where, bool *out);
/* The latest key or string as a C string for a message or a comparison, cut to fit. */
void      rv_load_name(const rv_load *l, char *out, size_t capacity);

/* Each reads one value with l->j.  `_model` expects it to be an object. */
rv_status rv_load_model(rv_load *l);
rv_status rv_load_added(rv_load *l);
rv_status rv_load_pre_tokenizer(rv_load *l);
rv_status rv_load_post_processor(rv_load *l);
rv_status rv_load_decoder(rv_load *l);

/* After all of the file is read: added tokens into the tokenizer. */
rv_status rv_load_place_added(rv_load *l);
#endif
