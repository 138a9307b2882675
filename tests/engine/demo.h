/* demo.h - the demo model and its receipts, for tests of the public interface. */
#ifndef RV_TESTS_ENGINE_DEMO_H
#define RV_TESTS_ENGINE_DEMO_H
#include "engine/rvengine.h"

enum { DEMO_RECEIPTS = 8, DEMO_TOKENS = 256 };

typedef struct demo_receipt {
    char    image[64], prompt[128], answer[1024];
    void   *file;                        /* the PNG                                             */
    size_t  bytes;
    int32_t prompt_ids[DEMO_TOKENS], answer_ids[DEMO_TOKENS];
    int32_t n_prompt, n_answer;
    float   first_logits[32];
} demo_receipt;

/* Reads all of tools/demo/receipts; fails the running test when something is missing. */
void demo_read(demo_receipt out[DEMO_RECEIPTS]);
void demo_free(demo_receipt receipts[DEMO_RECEIPTS]);
/* The demo model, in f32 unless `compute` says else. */
rv_model *demo_model(rv_compute compute);
#endif
