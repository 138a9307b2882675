/* pattern.h - regular expressions over bytes, as deterministic automata.
 *
 * The one idea: a pattern is matched against what may still come, not against what is there, so it has to be an automaton
 * with a state to stand on after every byte.  The language is the common subset of PCRE and ECMA-262: literals,
 * `.`, classes, groups, `|`, `* + ? {m} {m,n} {m,}`, escapes \d \w \s \D \W \S \t \n \xHH; the whole text must match, and ^ and $
 * may stand at the ends.  Text is UTF-8: `.`, negated classes and classes with characters beyond ASCII stand for whole characters; control
 * characters are never matched unless written out.  Look-around, back references and lazy or possessive
 * repetition are refused: no automaton has them, or they mean nothing here.
 */
#ifndef RV_EXTRACT_PATTERN_H
#define RV_EXTRACT_PATTERN_H
#include "engine/base/status.h"

enum { RV_DFA_MOST_STATES = 8000 };

/* State 0 is dead, state 1 is the start. */
typedef struct rv_dfa {
    int32_t    states;
    uint16_t (*next)[256];
    uint8_t   *accept;           /* per state: the text so far matches                          */
} rv_dfa;

/* RV_ERR_FORMAT for a pattern that cannot be read, RV_ERR_UNSUPPORTED for one that no automaton of RV_DFA_MOST_STATES
 * states has.  Free with rv_dfa_free. */
rv_status rv_dfa_pattern(const char *pattern, rv_dfa *out, rv_error *err);
void      rv_dfa_free(rv_dfa *d);

/* The same language without texts in which one byte of `bytes` stands more than `most` times in a row.  *d is replaced. */
rv_status rv_dfa_limit_runs(rv_dfa *d, const char *bytes, int32_t most, rv_error *err);

/* The state after `text`, from the start. */
int32_t   rv_dfa_walk(const rv_dfa *d, const char *text, size_t bytes);

/* Makes a state of its own of the one after `text`, which only the state before it leads to; the language stays the same. */
rv_status rv_dfa_single_out(rv_dfa *d, const char *text, size_t bytes, rv_error *err);
#endif
