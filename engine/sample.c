/* sample.c - greedy and random choice of the next token. */
#include "engine/sample.h"

#include <math.h>
#include <stdlib.h>

float rv_random(uint64_t seed, uint32_t index) {
    uint32_t c[4] = { index, 0, 0, 0 }, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
        uint64_t a = (uint64_t)0xd2511f53u * c[0], b = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a };
        for (int i = 0; i < 4; i++) c[i] = next[i];
    }
    return (float)(c[0] >> 8) * 0x1p-24f;
}

static int32_t best_of(const float *logits, int32_t vocab) {
    int32_t best = 0;
    for (int32_t i = 1; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* log(sum(exp(logits))); NaN when a logit is NaN or +inf, or all are -inf. */
static double log_sum(const float *logits, int32_t vocab) {
    float top = -INFINITY, sum_check = 0;
    for (int32_t i = 0; i < vocab; i++) {
        if (logits[i] > top) top = logits[i];
        sum_check += logits[i] - logits[i];              /* NaN for NaN and both infinities */
    }
    if (!isfinite(top)) return NAN;
    if (isnan(sum_check))
        for (int32_t i = 0; i < vocab; i++)
            if (isnan(logits[i])) return NAN;
    double sum = 0;
    for (int32_t i = 0; i < vocab; i++) sum += (double)expf(logits[i] - top);
    return (double)top + log(sum);
}

/* Makes -inf of what the guide does not allow; the logarithm of the allowed ones' probability, NaN where all of them are -inf. */
static float keep_allowed(const rv_guide_row *g, float *logits, int32_t vocab, double norm) {
    const uint32_t denied = rv_guide_denied(g);
    for (int32_t i = 0; i < vocab; i++)
        if (!rv_guide_allows(g, denied, i)) logits[i] = -INFINITY;
    return (float)(log_sum(logits, vocab) - norm);
}

/* Best first; of equal scores the smaller id. */
static int by_score(const void *a, const void *b) {
    const rv_candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* HF keeps every score that is not below the k-th largest: ties may make it more than k. */
static int32_t cut_top_k(const rv_candidate *c, int32_t n, uint32_t k) {
    if (k >= (uint32_t)n) return n;
    int32_t kept = (int32_t)k;
    while (kept < n && c[kept].score == c[k - 1].score) kept++;
    return kept;
}

/* HF drops from the smallest up while the sum of what is dropped is at most 1 - p; the best stays. */
static int32_t cut_top_p(const rv_candidate *c, int32_t n, float p) {
    if (p >= 1) return n;
    double total = 0, dropped = 0;
    for (int32_t i = 0; i < n; i++) total += exp((double)c[i].score - (double)c[0].score);
    while (n > 1) {
        dropped += exp((double)c[n - 1].score - (double)c[0].score) / total;
        if (dropped > 1.0 - (double)p) break;
        n--;
    }
    return n;
}

static int32_t draw(const rv_candidate *c, int32_t n, float u) {
    double total = 0, at = 0;
    for (int32_t i = 0; i < n; i++) total += exp((double)c[i].score - (double)c[0].score);
    for (int32_t i = 0; i < n; i++) {
        at += exp((double)c[i].score - (double)c[0].score);
        if ((double)u * total < at) return c[i].id;
    }
    return c[n - 1].id;
}

rv_status rv_sample_fail(rv_error *err) {
    return rv_fail(err, RV_ERR_FORMAT, "the model computed NaN or infinite logits: its weights hold such values, or "
                   "overflow in this number format (rvengine inspect --check finds them)");
}

/* Among logits of which some are -inf. */
static int32_t choose(const rv_sampling *s, const float *logits, int32_t vocab, const uint8_t *seen, uint32_t index, rv_candidate *room) {
    if (s->temperature <= 0 && s->repetition_penalty == 1.0f) return best_of(logits, vocab);
    for (int32_t i = 0; i < vocab; i++) {
        room[i] = (rv_candidate){ logits[i], i };
        if (s->repetition_penalty != 1.0f && seen[i])
            room[i].score = logits[i] < 0 ? logits[i] * s->repetition_penalty : logits[i] / s->repetition_penalty;
        if (s->temperature > 0) room[i].score /= s->temperature;
    }
    int32_t chosen = 0;
    if (s->temperature <= 0) {
        for (int32_t i = 1; i < vocab; i++)
            if (room[i].score > room[chosen].score) chosen = i;
    } else {
        qsort(room, (size_t)vocab, sizeof *room, by_score);
        int32_t n = cut_top_k(room, vocab, s->top_k);
        n = cut_top_p(room, n, s->top_p);
        chosen = draw(room, n, rv_random(s->seed, index));
    }
    return chosen;
}

rv_status rv_sample(const rv_sampling *s, const rv_guide_row *guide, float *logits, int32_t vocab, const uint8_t *seen, uint32_t index,
                    rv_candidate *room, rv_best *out, rv_error *err) {
    double norm = log_sum(logits, vocab);
    *out = (rv_best){ 0 };
    if (isnan(norm)) return rv_sample_fail(err);
    if (guide && rv_guide_on(guide)) {
        if (guide->watched >= 0 && guide->watched < vocab) out->watched = (float)((double)logits[guide->watched] - norm);
        out->allowed = keep_allowed(guide, logits, vocab, norm);
        if (!isfinite(out->allowed)) return rv_fail(err, RV_ERR_FORMAT, "the model gave no probability to any token that the constraint allows");
    }
    out->id = choose(s, logits, vocab, seen, index, room);
    out->logprob = (float)((double)logits[out->id] - norm);
    return RV_OK;
}
