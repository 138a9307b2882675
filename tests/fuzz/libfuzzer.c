/* libfuzzer.c - the entry that clang's libFuzzer calls; RV_FUZZ_TARGET is a target's name. */
#include "tests/fuzz/target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t bytes) {
    static const fuzz_target *target;
    if (!target) target = fuzz_find(RV_FUZZ_TARGET);
    target->run(data, bytes);
    return 0;
}
