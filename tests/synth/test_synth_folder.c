/* test_synth_folder.c - the folder of a synthetic checkpoint: whole, or not at all. */
#include <signal.h>
#include <sys/resource.h>

#include "tests/support/folder.h"

static rv_synth_options tiny(void) { return (rv_synth_options){ .size = sizeof(rv_synth_options), .shape = "tiny" }; }

static void assert_refused(const char *dir, const rv_synth_options *o, rv_status code, const char *why) {
    rv_error err = { 0 };
    rv_synth_info info = { .size = sizeof info, .tensors = 77 };
    assert_int_equal(rv_synthesise(dir, o, &info, &err), code);
    if (!strstr(err.message, why)) fail_msg("\"%s\" does not say \"%s\"", err.message, why);
    assert_int_equal(info.tensors, 77);
}

static void options_out_of_range_name_the_option(void **state) {
    rv_synth_options o;
    (void)state;
    o = tiny(), o.type = 4, assert_refused(NULL, &o, RV_ERR_ARGUMENT, "rv_synth_options.type");
    o = tiny(), o.names = -1, assert_refused(NULL, &o, RV_ERR_ARGUMENT, "rv_synth_options.names");
    o = tiny(), o.outliers = 65, assert_refused(NULL, &o, RV_ERR_ARGUMENT, "rv_synth_options.outliers");
    o = tiny(), o.threads = -1, assert_refused(NULL, &o, RV_ERR_ARGUMENT, "rv_synth_options.threads");
    o = tiny(), o.size = 0, assert_refused(NULL, &o, RV_ERR_ARGUMENT, "size");
}

static void what_cannot_be_told_is_refused_before_anything_is_written(void **state) {
    char dir[1024];
    rv_error err = { 0 };
    rv_synth_info info = { .size = 3 };
    rv_synth_options o = tiny();
    (void)state;
    folder_new(dir, "untold");
    assert_int_equal(rv_synthesise(dir, &o, &info, &err), RV_ERR_ARGUMENT);
    assert_non_null(strstr(err.message, "rv_synth_info.size"));
    assert_int_equal(folder_count(dir, NULL), 0);
}

static void shapes_nobody_knows_are_refused(void **state) {
    char dir[1024], path[2048];
    rv_synth_options o = tiny();
    (void)state;
    o.shape = "12b", assert_refused(NULL, &o, RV_ERR_IO, "\"12b\": is neither 11b, 11b-base, 90b, tiny");
    o.shape = "", assert_refused(NULL, &o, RV_ERR_IO, "is neither");
    o.shape = "/", assert_refused(NULL, &o, RV_ERR_IO, "is neither");
    folder_new(dir, "shapes");
    snprintf(path, sizeof path, "%s/other.json", dir);
    o.shape = path;
    folder_write(dir, "other.json", "{\"model_type\": \"llava\"}", 23);
    assert_refused(NULL, &o, RV_ERR_UNSUPPORTED, "other.json: model_type");
    folder_write(dir, "other.json", "{", 1);
    assert_refused(NULL, &o, RV_ERR_FORMAT, "other.json: not valid JSON");
}

static void config_without_room_for_a_tokenizer_is_refused(void **state) {
    rv_synth_options o = tiny();
    (void)state;
    o.shape = RV_TEST_DATA "/golden/g560/config.json";
    assert_refused(NULL, &o, RV_ERR_UNSUPPORTED, "bos_token_id 1:");
}

static void tensors_larger_than_a_shard_get_files_of_their_own(void **state) {
    rv_synth_info info = { .size = sizeof info };
    rv_synth_options o = tiny();
    (void)state;
    o.shard_bytes = 1;                                                  /* a tensor is never cut: one file each */
    assert_int_equal(rv_synthesise(NULL, &o, &info, NULL), RV_OK);
    assert_int_equal(info.files, info.tensors);
}

static void shards_hold_what_they_may(void **state) {
    char dir[1024], path[2048];
    rv_synth_options o = tiny();
    rv_synth_info info = { .size = sizeof info };
    rv_model_info *facts;
    rv_error err;
    struct stat st;
    (void)state;
    o.shard_bytes = 3000000;
    if (rv_synthesise(folder_new(dir, "shards"), &o, &info, &err)) fail_msg("%s", err.message);
    assert_true(info.files > 5 && info.files < 10);
    uint64_t sum = 0;
    for (uint32_t i = 1; i <= info.files; i++) {
        snprintf(path, sizeof path, "%s/model-%05u-of-%05u.safetensors", dir, i, info.files);
        assert_int_equal(stat(path, &st), 0);
        assert_true(st.st_size < 3000000 + 20000);
        sum += (uint64_t)st.st_size;
    }
    assert_int_equal(sum, info.file_bytes);
    if (rv_inspect(dir, &facts, &err)) fail_msg("%s", err.message);
    assert_int_equal(atoi(rv_model_info_get(facts, "files")), info.files);
    rv_model_info_free(facts);
    assert_int_equal(folder_count(dir, NULL), info.files + 7);       /* 6 JSON files and the index: no *.partial is left */
}

static void folder_that_holds_something_is_refused_and_left_alone(void **state) {
    char dir[1024];
    rv_synth_options o = tiny();
    (void)state;
    folder_new(dir, "taken");
    folder_write(dir, "letter.txt", "dear", 4);
    assert_refused(dir, &o, RV_ERR_IO, "is not empty, it holds letter.txt");
    assert_int_equal(folder_count(dir, NULL), 1);
    assert_refused("/no/such/place/model", &o, RV_ERR_IO, "/no/such/place/model: cannot make the folder");
    assert_refused(RV_TEST_DEMO "/receipts/r7000.png", &o, RV_ERR_IO, "cannot open the folder");
}

static void leftovers_of_an_interrupted_run_are_replaced(void **state) {
    char dir[1024];
    rv_synth_options o = tiny();
    rv_error err;
    (void)state;
    folder_new(dir, "leftover");
    folder_write(dir, "model.safetensors.partial", "junk", 4);
    if (rv_synthesise(dir, &o, NULL, &err)) fail_msg("%s", err.message);
    if (rv_check_weights(dir, NULL, NULL, &err)) fail_msg("%s", err.message);
    assert_int_equal(folder_count(dir, NULL), 7);
}

static int32_t stop(void *user, float done) {
    assert_true(done > 0 && done <= 1);
    return ++*(int *)user > 3;
}

static void stopping_leaves_no_folder(void **state) {
    char dir[1024];
    int calls = 0;
    rv_synth_options o = tiny();
    (void)state;
    rmdir(folder_new(dir, "stopped"));
    o.threads = 1;
    o.progress = stop;
    o.progress_user = &calls;
    assert_refused(dir, &o, RV_ERR_CANCELLED, "stopped by the progress callback");
    assert_int_equal(calls, 4);
    assert_int_equal(folder_count(dir, NULL), -1);
}

/* A limit on the size of files stands for a full disk: it fails with the same calls, in the same places. */
static void failing_to_write_leaves_nothing(void **state) {
    static const rlim_t limits[] = { 4000000, 1000 };
    char dir[1024];
    rv_synth_options o = tiny();
    struct rlimit before, small;
    (void)state;
    signal(SIGXFSZ, SIG_DFL);                            /* the library must not let it end the program */
    getrlimit(RLIMIT_FSIZE, &before);
    for (size_t i = 0; i < 2; i++) {
        folder_new(dir, "full");
        small = (struct rlimit){ limits[i], before.rlim_max };
        setrlimit(RLIMIT_FSIZE, &small);
        rv_error err = { 0 };
        rv_status st = rv_synthesise(dir, &o, NULL, &err);
        setrlimit(RLIMIT_FSIZE, &before);
        assert_int_equal(st, RV_ERR_IO);
        assert_non_null(strstr(err.message, "model.safetensors: cannot write: File too large"));
        assert_int_equal(folder_count(dir, NULL), 0);
    }
}

static void model_larger_than_the_disk_is_refused_before_writing(void **state) {
    char dir[1024];
    rv_synth_options o = tiny();
    (void)state;
    char config[4096];
    o.shape = RV_TEST_DATA "/config/instruct/config.json";
    rv_map text;
    assert_int_equal(rv_map_open(o.shape, &text, NULL), RV_OK);
    assert_true(text.bytes < sizeof config - 16);
    memcpy(config, text.data, text.bytes);
    config[text.bytes] = '\0';
    rv_map_close(&text);
    char *at = strstr(config, "\"intermediate_size\": 14336");
    assert_non_null(at);
    memmove(at + 28, at + 26, strlen(at + 26) + 1);
    memcpy(at, "\"intermediate_size\": 1000000", 28);
    char *hidden = strstr(config, "\"hidden_size\": 4096,");
    assert_non_null(hidden);
    memmove(hidden + 21, hidden + 20, strlen(hidden + 20) + 1);
    memcpy(hidden, "\"hidden_size\": 65536,", 21);
    char path[2048];
    folder_new(dir, "huge");
    folder_write(dir, "huge.json", config, strlen(config));
    snprintf(path, sizeof path, "%s/huge.json", dir);
    o.shape = path;
    rv_synth_info info = { .size = sizeof info };
    rv_error err = { 0 };
    if (rv_synthesise(NULL, &o, &info, &err)) fail_msg("%s", err.message);
    assert_true(info.bytes > UINT64_C(10000000000000));
    char out[1024];
    assert_refused(folder_new(out, "small"), &o, RV_ERR_IO, "GB free");
    assert_int_equal(folder_count(out, NULL), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(options_out_of_range_name_the_option),
        cmocka_unit_test(what_cannot_be_told_is_refused_before_anything_is_written),
        cmocka_unit_test(shapes_nobody_knows_are_refused),
        cmocka_unit_test(config_without_room_for_a_tokenizer_is_refused),
        cmocka_unit_test(tensors_larger_than_a_shard_get_files_of_their_own),
        cmocka_unit_test(shards_hold_what_they_may),
        cmocka_unit_test(folder_that_holds_something_is_refused_and_left_alone),
        cmocka_unit_test(leftovers_of_an_interrupted_run_are_replaced),
        cmocka_unit_test(stopping_leaves_no_folder),
        cmocka_unit_test(failing_to_write_leaves_nothing),
        cmocka_unit_test(model_larger_than_the_disk_is_refused_before_writing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
