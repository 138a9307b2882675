/* sample.c - greedy and random choice of the next token. */
#include "engine/sample.h"

#include <math.h>
#include <string.h>

#include "kernels/cpu/simd.h"

float rv_random(uint64_t seed, uint32_t index) {
    uint32_t c[4] = { index, 0, 0, 0 }, k0 = (uint32_t)seed, k1 = (uint32_t)(seed >> 32);
    for (int round = 0; round < 10; round++, k0 += 0x9e3779b9u, k1 += 0xbb67ae85u) {
        uint64_t a = (uint64_t)0xd2511f53u * c[0], b = (uint64_t)0xcd9e8d57u * c[2];
        uint32_t next[4] = { (uint32_t)(b >> 32) ^ c[1] ^ k0, (uint32_t)b, (uint32_t)(a >> 32) ^ c[3] ^ k1, (uint32_t)a };
        for (int i = 0; i < 4; i++) c[i] = next[i];
    }
    return (float)(c[0] >> 8) * 0x1p-24f;
}

/* ---- vectors of logits: a vocabulary is 128,256 of them, and expf alone takes a millisecond ---- */

static bool any_of(vi mask) {
    int32_t any = 0;
    for (int k = 0; k < RV_LANES; k++) any |= mask[k];
    return any;
}

static int32_t best_of(const float *logits, int32_t vocab) {
    enum { TOGETHER = 16 };                                  /* few sixteens hold a better one       */
    int32_t best = 0, i = 0;
    for (; i + TOGETHER <= vocab; i += TOGETHER) {
        vi better = { 0 };
        for (int k = 0; k < TOGETHER; k += RV_LANES) better |= vf_load(logits + i + k) > logits[best];
        if (any_of(better))
            for (int32_t k = i; k < i + TOGETHER; k++)
                if (logits[k] > logits[best]) best = k;
    }
    for (; i < vocab; i++)
        if (logits[i] > logits[best]) best = i;
    return best;
}

/* The largest logit; NaN when a logit is NaN or +inf, or all are -inf. */
static float top_of(const float *logits, int32_t vocab) {
    vf top = vf_set(-INFINITY);
    vi odd = { 0 };
    int32_t i = 0;
    for (; i + RV_LANES <= vocab; i += RV_LANES) {
        const vf x = vf_load(logits + i);
        top = vf_max(x, top);
        odd |= x != x;
    }
    if (any_of(odd)) return NAN;
    float last = vf_largest(top);
    for (; i < vocab; i++) {
        if (isnan(logits[i])) return NAN;
        if (logits[i] > last) last = logits[i];
    }
    return isfinite(last) ? last : NAN;
}

/* log(sum(exp(logits))); NaN where top_of is. */
static double log_sum(const float *logits, int32_t vocab) {
    enum { TOGETHER = 64 };                                  /* summed in f32: each at most 1        */
    const float top = top_of(logits, vocab);
    const vf least = vf_set(-87);                            /* below it exponentials are no normal numbers, which take long, and nothing here */
    double sum = 0;
    int32_t i = 0;
    if (isnan(top)) return NAN;
    for (; i + TOGETHER <= vocab; i += TOGETHER) {
        vf some = vf_set(0);
        for (int k = 0; k < TOGETHER; k += RV_LANES) some += vf_exp_normal(vf_max(vf_load(logits + i + k) - top, least));
        sum += (double)vf_sum(some);
    }
    for (; i < vocab; i++) sum += (double)expf(logits[i] - top);
    return (double)top + log(sum);
}

/* Makes -inf of what the guide does not allow; the logarithm of the allowed ones' probability, NaN where all of them are -inf. */
static float keep_allowed(const rv_guide_row *g, float *logits, int32_t vocab, double norm) {
    const uint32_t denied = rv_guide_denied(g);
    for (int32_t i = 0; i < vocab; i++)
        if (!rv_guide_allows(g, denied, i)) logits[i] = -INFINITY;
    return (float)(log_sum(logits, vocab) - norm);
}

/* ---- drawing ---- */

enum { DIGIT_BITS = 11, DIGITS = 3, DIGIT_VALUES = 1 << DIGIT_BITS };

/* Greater scores have smaller keys; the two zeros have the same. */
static inline uint32_t key_of(float score) {
    uint32_t bits;
    score += 0.0f;
    memcpy(&bits, &score, sizeof bits);
    return bits & 0x80000000u ? bits : ~bits & 0x7fffffffu;
}

static inline uint32_t digit_of(uint32_t key, int digit) { return key >> (digit * DIGIT_BITS) & (DIGIT_VALUES - 1); }

/* Best first; of equal scores the smaller id, as they come. By counting digits: a twentieth of what comparing takes. Returns c or spare. */
static rv_candidate *sort_best_first(rv_candidate *c, rv_candidate *spare, int32_t n) {
    int32_t begin[DIGITS][DIGIT_VALUES] = { { 0 } };
    for (int32_t i = 0; i < n; i++)
        for (int d = 0; d < DIGITS; d++) begin[d][digit_of(key_of(c[i].score), d)]++;
    for (int d = 0; d < DIGITS; d++) {
        int32_t at = 0;
        for (int v = 0; v < DIGIT_VALUES; v++) {
            int32_t count = begin[d][v];
            begin[d][v] = at;
            at += count;
        }
        for (int32_t i = 0; i < n; i++) spare[begin[d][digit_of(key_of(c[i].score), d)]++] = c[i];
        rv_candidate *sorted = spare;
        spare = c;
        c = sorted;
    }
    return c;
}

/* HF keeps every score that is not below the k-th largest: ties may make it more than k. */
static int32_t cut_top_k(const rv_candidate *c, int32_t n, uint32_t k) {
    if (k == 0 || k >= (uint32_t)n) return n;
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

/* Among logits of which some are -inf: those have no probability, and are not sorted. */
static int32_t choose(const rv_sampling *s, const float *logits, int32_t vocab, const uint8_t *seen, uint32_t index, rv_candidate *room) {
    int32_t n = 0, chosen = 0;
    if (s->temperature <= 0 && s->repetition_penalty == 1.0f) return best_of(logits, vocab);
    for (int32_t i = 0; i < vocab; i++) {
        float score = logits[i];
        if (score == -INFINITY) continue;
        if (s->repetition_penalty != 1.0f && seen[i]) score = score < 0 ? score * s->repetition_penalty : score / s->repetition_penalty;
        room[n++] = (rv_candidate){ s->temperature > 0 ? score / s->temperature : score, i };
    }
    if (s->temperature <= 0) {
        for (int32_t i = 1; i < n; i++)
            if (room[i].score > room[chosen].score) chosen = i;
        return room[chosen].id;
    }
    const rv_candidate *best = sort_best_first(room, room + vocab, n);
    n = cut_top_k(best, n, s->top_k);
    n = cut_top_p(best, n, s->top_p);
    return draw(best, n, rv_random(s->seed, index));
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
