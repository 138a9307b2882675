/* target_json.c - JSON trees: our reader takes what jansson takes, as the same tree, and words what jansson does not. */
#include <string.h>

#include "engine/base/json_tree.h"
#include "tests/fuzz/target.h"

static void compare(const char *text, size_t bytes, size_t flags) {
    json_error_t why, theirs;
    bool no_memory = true;
    json_t *ours = rv_json_load(text, bytes, flags, &why, &no_memory), *plain = json_loadb(text, bytes, flags, &theirs);
    FUZZ_HOLDS(!no_memory);
    /* What only we would take is a finding as well: jansson has the last word about every text that we do not take. */
    if (!plain != !ours) fuzz_broken("one of the two takes it", plain ? "jansson" : theirs.text);
    if (plain && !json_equal(ours, plain)) fuzz_broken("the two trees are not equal", "json_equal");
    if (!plain) FUZZ_HOLDS(!strcmp(why.text, theirs.text) && why.line == theirs.line);
    json_decref(ours);
    json_decref(plain);
}

void fuzz_json(const uint8_t *data, size_t bytes) {
    char *exact = (char *)fuzz_exact(data, bytes);
    compare(exact, bytes, JSON_REJECT_DUPLICATES);
    compare(exact, bytes, JSON_ALLOW_NUL | JSON_DECODE_ANY);
    free(exact);
}
