/* test_sample.c - the quick ways to a token against the plain ones: a sum in double, a sort by comparing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <math.h>
#include <cmocka.h>

#include "engine/sample.h"

enum { MOST = 5000, CLASSES = 7 };

static uint64_t state = 17;
static uint32_t below(uint32_t n) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((state >> 33) % n);
}

/* ---- the plain way ---- */

static int by_score(const void *a, const void *b) {
    const rv_candidate *x = a, *y = b;
    if (x->score != y->score) return x->score > y->score ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static double plain_sum(const float *logits, int32_t n) {
    double top = -INFINITY, sum = 0;
    for (int32_t i = 0; i < n; i++)
        if ((double)logits[i] > top) top = (double)logits[i];
    for (int32_t i = 0; i < n; i++) sum += exp((double)logits[i] - top);
    return top + log(sum);
}

/* As HF: penalty, temperature, the k best with their ties, the least of them whose sum stays within 1 - p dropped, one drawn. */
static int32_t plain_choice(const rv_sampling *s, const float *logits, int32_t vocab, const uint8_t *seen, uint32_t index) {
    static rv_candidate c[MOST];
    int32_t n = vocab;
    double total = 0, dropped = 0, at = 0;
    for (int32_t i = 0; i < vocab; i++) {
        c[i] = (rv_candidate){ logits[i], i };
        if (s->repetition_penalty != 1.0f && seen[i]) c[i].score = logits[i] < 0 ? logits[i] * s->repetition_penalty : logits[i] / s->repetition_penalty;
        if (s->temperature > 0) c[i].score /= s->temperature;
    }
    qsort(c, (size_t)vocab, sizeof *c, by_score);
    if (s->temperature <= 0) return c[0].id;
    if (s->top_k && s->top_k < (uint32_t)n)
        for (n = (int32_t)s->top_k; n < vocab && c[n].score == c[s->top_k - 1].score;) n++;
    for (int32_t i = 0; i < n; i++) total += exp((double)c[i].score - (double)c[0].score);
    while (n > 1 && s->top_p < 1 && (dropped += exp((double)c[n - 1].score - (double)c[0].score) / total) <= 1.0 - (double)s->top_p) n--;
    total = 0;
    for (int32_t i = 0; i < n; i++) total += exp((double)c[i].score - (double)c[0].score);
    for (int32_t i = 0; i < n; i++)
        if ((double)rv_random(s->seed, index) * total < (at += exp((double)c[i].score - (double)c[0].score))) return c[i].id;
    return c[n - 1].id;
}

/* ---- rows ---- */

/* Scores with many ties, both zeros, and now and then one far above or below the rest. */
static void fill(float *logits, int32_t n) {
    const uint32_t form = below(4);
    for (int32_t i = 0; i < n; i++) {
        logits[i] = ((float)below(form == 0 ? 9 : 100000) - (form == 0 ? 4.0f : 50000.0f)) / (form == 0 ? 2.0f : 4000.0f);
        if (form == 1 && below(50) == 0) logits[i] = below(2) ? 0.0f : -0.0f;
        if (form == 2) logits[i] *= 40;
    }
    if (form == 3) logits[below((uint32_t)n)] = 300;
}

static const rv_sampling WAYS[] = {
    { 0, 0, 1, 1, 0 },           { 0, 0, 1, 1.3f, 0 },           { 1, UINT32_MAX, 1, 1, 3 },        { 0.7f, 50, 0.9f, 1, 5 },  { 1.5f, 1, 1, 1, 9 },
    { 1, UINT32_MAX, 0.5f, 1, 4 }, { 2, 7, 1, 1.2f, 8 },          { 0.01f, UINT32_MAX, 0.99f, 1, 6 }, { 0.7f, 0, 0.9f, 1, 7 },
};
enum { N_WAYS = sizeof WAYS / sizeof *WAYS };

static void a_token_is_chosen_as_by_sorting_and_summing_in_double(void **unused) {
    static float logits[MOST], copy[MOST];
    static uint8_t seen[MOST];
    static uint16_t classes[MOST], next[3 * CLASSES];
    static rv_candidate room[2 * MOST];
    (void)unused;
    for (uint32_t round = 0; round < 4000; round++) {
        const int32_t vocab = round % 8 ? 1 + (int32_t)below(300) : 1 + (int32_t)below(MOST - 1);
        const rv_sampling *way = &WAYS[round % N_WAYS];
        rv_guide_row guide = { { classes, next, vocab, 3, CLASSES }, 2, 0, 0, 1, 1, (int32_t)below((uint32_t)vocab) };
        rv_best best;
        rv_error err;
        fill(logits, vocab);
        for (int32_t i = 0; i < vocab; i++) seen[i] = below(3) == 0, classes[i] = (uint16_t)below(CLASSES);
        for (int32_t c = 0; c < CLASSES; c++) next[2 * CLASSES + c] = below(2) ? 2 : 0;
        next[2 * CLASSES + classes[below((uint32_t)vocab)]] = 2;
        const bool guided = round % 3 == 0;
        const double norm = plain_sum(logits, vocab);
        memcpy(copy, logits, (size_t)vocab * sizeof *copy);
        assert_int_equal(rv_sample(way, guided ? &guide : NULL, copy, vocab, seen, round, room, &best, &err), RV_OK);
        if (guided) {
            const float watched = logits[guide.watched];
            for (int32_t i = 0; i < vocab; i++)
                if (!next[2 * CLASSES + classes[i]]) logits[i] = -INFINITY;
            const double allowed = plain_sum(logits, vocab) - norm;
            if (fabs((double)best.allowed - allowed) > 1e-6 * (1 + fabs(norm))) fail_msg("round %u: allowed %.9g, not %.9g", round, (double)best.allowed, allowed);
            if (fabs((double)best.watched - ((double)watched - norm)) > 1e-6 * (1 + fabs(norm))) fail_msg("round %u: watched %.9g", round, (double)best.watched);
        }
        const int32_t want = plain_choice(way, logits, vocab, seen, round);
        if (best.id != want) fail_msg("round %u: way %u of %d: %d, not %d", round, round % N_WAYS, vocab, best.id, want);
        if (fabs((double)best.logprob - ((double)logits[want] - norm)) > 1e-6 * (1 + fabs(norm))) fail_msg("round %u: logprob %.9g, not %.9g", round, (double)best.logprob, (double)logits[want] - norm);
    }
}

static void what_is_no_number_is_an_error_wherever_it_stands(void **unused) {
    static const float odd[] = { NAN, INFINITY };
    float logits[37];
    rv_candidate room[2 * 37];
    rv_best best;
    rv_error err;
    (void)unused;
    for (int32_t vocab = 1; vocab <= 37; vocab++)
        for (int32_t at = 0; at < vocab; at++)
            for (int k = 0; k < 2; k++) {
                for (int32_t i = 0; i < vocab; i++) logits[i] = (float)i;
                logits[at] = odd[k];
                assert_int_equal(rv_sample(&WAYS[0], NULL, logits, vocab, NULL, 0, room, &best, &err), RV_ERR_FORMAT);
            }
    for (int32_t i = 0; i < 37; i++) logits[i] = -INFINITY;
    assert_int_equal(rv_sample(&WAYS[0], NULL, logits, 37, NULL, 0, room, &best, &err), RV_ERR_FORMAT);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_token_is_chosen_as_by_sorting_and_summing_in_double),
        cmocka_unit_test(what_is_no_number_is_an_error_wherever_it_stands),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
