/* sample.h - from logits to a token, in the order of HF's generate.
 *
 * The one idea: a draw depends on (logits, seed, index of the token) alone, never on what else
 * runs: the random numbers are counted (Philox), not streamed.  Source: spec mllama.md section 6.
 */
#ifndef RV_ENGINE_SAMPLE_H
#define RV_ENGINE_SAMPLE_H
#include "kernels/backend.h"

typedef struct rv_sampling {
    float    temperature;                /* 0: greedy; then top_k and top_p do not count        */
    uint32_t top_k;                      /* 0 or UINT32_MAX: off                                */
    float    top_p;                      /* 1: off                                              */
    float    repetition_penalty;         /* 1: off                                              */
    uint64_t seed;
} rv_sampling;

/* Room for sorting one row of logits takes 2 * vocab of them; one per session. */
typedef struct rv_candidate { float score; int32_t id; } rv_candidate;

/* Chooses a token, among those that the guide allows (NULL: all; it is not moved).  logits f32[vocab] are changed.  seen[id] != 0:
 * the id stands in the prompt or the answer so far.  Probabilities are of the logits as they came.  NaN or +inf among them is
 * RV_ERR_FORMAT: weights that hold such values must not become an answer. */
rv_status rv_sample(const rv_sampling *s, const rv_guide_row *guide, float *logits, int32_t vocab, const uint8_t *seen, uint32_t index,
                    rv_candidate *room, rv_best *out, rv_error *err);

/* The error of a row whose logits hold NaN or +inf; returns its code. */
rv_status rv_sample_fail(rv_error *err);

/* Uniform in [0, 1), 24 bits, from Philox4x32-10 (Salmon et al., SC 2011). */
float rv_random(uint64_t seed, uint32_t index);
#endif
