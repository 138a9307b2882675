/* test_cli_synth.c - rvengine synth: models of random weights. */
#include <stdio.h>
#include <string.h>

#include "tests/cli/program.h"

static void dry_run_says_the_published_size(void **state) {
    (void)state;
    prints("^906 tensors, 10.7 G parameters, 21340441670 bytes \\(19.9 GiB\\) in 5 files\n$", "synth", "--dry-run");
    prints("^906 tensors, .* 21285882950 bytes", "synth", "--dry-run", "--shape", "11b-base");
    prints("\"tensors\": 1494,.*\"bytes\": 177186710646,", "synth", "--dry-run", "--shape", "90b", "--json");
}

static void written_model_is_a_model(void **state) {
    (void)state;
    const char *dir = fresh("model");
    prints("model: 147 tensors, .* in 1 file, written in ", "synth", dir, "--shape", "tiny", "--seed", "3");
    prints("layout +old\n  dtype +BF16\n.*padding_tiles +once.*every weight is a finite number", "inspect", dir, "--check");
    prints("\"prompt_tokens\": \\[", "run", "--backend", "cpu", "-m", dir, "-i", RECEIPT, "-p", "x", "-n", "3", "--json");
    refuses(3, "is not empty", "synth", dir, "--shape", "tiny");
}

static void options_reach_the_files(void **state) {
    (void)state;
    const char *dir = fresh("options");
    prints("\"files\": 7,.*\"seconds\"", "synth", dir, "--shape", "tiny", "--dtype", "f16", "--layout", "new", "--shard-size", "3M",
           "--nonzero-padding", "--outliers", "0", "--threads", "2", "--json");
    prints("layout +new\n  dtype +F16\n  files +7\n.*padding_tiles +full", "inspect", dir);
}

static void wrong_options_are_refused(void **state) {
    (void)state;
    refuses(2, "the folder to write is missing", "synth");
    refuses(2, "one folder at a time", "synth", "a", "b");
    refuses(2, "--outliers: must be a whole number from 0 to 64", "synth", "x", "--outliers", "65");
    refuses(2, "--dtype: must be one of auto", "synth", "x", "--dtype", "int8");
    refuses(2, "--shard-size: must be a size", "synth", "x", "--shard-size", "big");
    refuses(3, "shape \"12b\": is neither 11b, 11b-base, 90b, tiny nor a config.json", "synth", "--dry-run", "--shape", "12b");
    refuses(3, "cannot make the folder: No such file", "synth", "/no/such/place/x", "--shape", "tiny");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dry_run_says_the_published_size),
        cmocka_unit_test(written_model_is_a_model),
        cmocka_unit_test(options_reach_the_files),
        cmocka_unit_test(wrong_options_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
