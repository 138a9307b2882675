/* demo.h - the demo model and its receipts, for tests of the public interface. */
#ifndef RV_TESTS_ENGINE_DEMO_H
#define RV_TESTS_ENGINE_DEMO_H
#include "engine/rvengine.h"

/* The device and number format under test: the CPU in f32, or with RV_TEST_GPU a GPU in bf16, or with RV_TEST_SM70 too one with
 * V100's kernels, in f16. */
#ifdef RV_TEST_SM70
enum { DEMO_BACKEND = RV_BACKEND_CUDA, DEMO_COMPUTE = RV_COMPUTE_F16, DEMO_OTHER_COMPUTE = RV_COMPUTE_AUTO, DEMO_KERNELS = 70 };
#elif defined RV_TEST_GPU
enum { DEMO_BACKEND = RV_BACKEND_CUDA, DEMO_COMPUTE = RV_COMPUTE_BF16, DEMO_OTHER_COMPUTE = RV_COMPUTE_F16, DEMO_KERNELS = 0 };
#else
enum { DEMO_BACKEND = RV_BACKEND_CPU, DEMO_COMPUTE = RV_COMPUTE_F32, DEMO_OTHER_COMPUTE = RV_COMPUTE_BF16, DEMO_KERNELS = 0 };
#endif

enum { DEMO_RECEIPTS = 8, DEMO_TOKENS = 256 };

/* How many of them are asked about at once; under a sanitizer, which makes arithmetic five times as slow, fewer show it all. */
#if defined __SANITIZE_ADDRESS__ || defined __SANITIZE_THREAD__
enum { DEMO_ASKED = 4 };
#else
enum { DEMO_ASKED = DEMO_RECEIPTS };
#endif

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
/* The demo model; compute 0: DEMO_COMPUTE. */
rv_model *demo_model(rv_compute compute);
#endif
