/* small_model.h - a model folder in memory for whoever loads it thousands of times: 0.6 MB, three milliseconds a load. */
#ifndef RV_TESTS_FUZZ_SMALL_MODEL_H
#define RV_TESTS_FUZZ_SMALL_MODEL_H

/* Made of small.json when first asked for, with a cache folder beside it; both are removed when the process ends. Abort when
 * that fails. */
const char *small_model(void);
const char *small_cache(void);
/* The path of the only file in the cache folder. */
void small_cache_file(char path[1024]);
#endif
