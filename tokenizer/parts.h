/* parts.h - what a tokenizer is made of; for the files of this folder and its tests.
 *
 * The one idea: two hash tables do all the work.  `pieces` maps bytes to a token (a whole piece of
 * text is looked up before anything is merged), `pairs` maps two neighbouring tokens to the rank
 * of their merge and what it makes.  Both are filled once, at open.
 */
#ifndef RV_TOKENIZER_PARTS_H
#define RV_TOKENIZER_PARTS_H
#include "tokenizer/split.h"
#include "tokenizer/tokenizer.h"

#define RV_NO_TOKEN UINT32_MAX
enum { RV_MAX_IDS = 1 << 22, RV_MAX_TOKEN_BYTES = UINT16_MAX };

/* Flags of an added token.  Control ("special" in the file): text becomes it only on request. */
enum { RV_TOKEN_CONTROL = 1, RV_TOKEN_NORMALIZED = 2 };

typedef struct rv_token_entry { uint32_t at; uint16_t bytes, flags; } rv_token_entry;  /* bytes 0: nobody */

/* Up to 8 bytes `key` holds the token's text itself, beyond that a hash of it. */
typedef struct rv_piece { uint64_t key; uint32_t id, bytes; } rv_piece;        /* bytes 0: free */
typedef struct rv_pair { uint32_t left, right, rank, merged; } rv_pair;        /* rank from 1; 0: free */

typedef struct rv_added { uint32_t at, id; uint16_t bytes, flags; } rv_added;

struct rv_tokenizer {
    char           *pool;               /* the bytes of all tokens                            */
    rv_token_entry *tokens;             /* by id                                              */
    rv_piece       *pieces;
    rv_pair        *pairs;
    rv_added       *added;              /* by text, in the order of memcmp                    */
    uint32_t        size, n_vocab, n_added, n_merges, longest;
    uint32_t        piece_mask, pair_mask;
    uint32_t        byte_id[256];
    int32_t         bos;
    bool            adds_bos, ignore_merges;
    uint32_t        n_plain, n_normalized;  /* added tokens that are no control tokens, or match last */
    bool            added_first[256];   /* bytes with which an added token begins             */
    rv_classes      classes;
};

/* Tables of `count` entries, at most two thirds full and zeroed; NULL without memory. */
rv_piece *rv_pieces_new(uint32_t count, uint32_t *mask);
rv_pair  *rv_pairs_new(uint32_t count, uint32_t *mask);

/* bytes > 0; up to 8 bytes, different texts of one length have different keys. */
uint64_t  rv_piece_key(const char *text, size_t bytes);
/* The slot of these bytes, or the free one where they belong; bytes > 0. */
rv_piece *rv_piece_slot(const rv_tokenizer *t, const char *text, size_t bytes);
/* The slot of this pair, or the free one where it belongs. */
rv_pair  *rv_pair_slot(const rv_tokenizer *t, uint32_t left, uint32_t right);

/* Fetches what _slot will look at.  Reading a file is a million lookups in tables larger than the
 * cache; asked for some steps ahead they take a third of the time. */
void      rv_piece_hint(const rv_tokenizer *t, const char *text, size_t bytes);
void      rv_pair_hint(const rv_tokenizer *t, uint32_t left, uint32_t right);

/* Appends the ids of one piece (bytes > 0). */
rv_status rv_bpe_append(const rv_tokenizer *t, const char *piece, size_t bytes, rv_ids *out, rv_error *err);
#endif
