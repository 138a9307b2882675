/* guide.h - automata over bytes become a guide over tokens.
 *
 * The one idea: a token may come where all of its bytes may, so each token is walked once through every state of every
 * automaton, tokens in the order of their bytes, so that common beginnings are walked once; those with equal outcomes
 * become a class.
 */
#ifndef RV_EXTRACT_GUIDE_H
#define RV_EXTRACT_GUIDE_H
#include "engine/base/guide.h"
#include "extract/pattern.h"
#include "tokenizer/tokenizer.h"

/* What one value may be. */
typedef struct rv_automaton {
    rv_dfa dfa;                          /* over the value's bytes, the space before it included; a list's cells have " | " between them */
    bool   list;                         /* '|' separates cells                                 */
    bool   absent;                       /* of a list: its only cell may be NOT_FOUND, which is an alternative of its own in the pattern */
    bool   line;                         /* ends with a newline; else when nothing more may come, or by a stop token */
    int32_t start;                       /* out: its first state in the guide                   */
} rv_automaton;

/* Makes the tables of n automata; on success out->classes and out->next are the caller's to free (rv_guide_free).
 * Stop tokens may end a value wherever it is complete; other control tokens never come.  `vocab`: ids beyond the tokenizer's
 * are never allowed.  RV_ERR_UNSUPPORTED: more states than a guide can have. */
rv_status rv_guide_new(const rv_tokenizer *t, int32_t vocab, const int32_t *stops, int32_t n_stops, rv_automaton *automata, int32_t n,
                       rv_guide *out, rv_error *err);
void      rv_guide_free(rv_guide *guide);
/* Bytes of both tables together. */
uint64_t  rv_guide_bytes(const rv_guide *guide);
#endif
