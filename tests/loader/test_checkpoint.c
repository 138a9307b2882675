/* Model folders: shards, index, the naming layouts, and everything about them that can be wrong. */
#include "tests/support/folder.h"
#include "tests/support/golden.h"
#include "loader/checkpoint.h"

enum { MAX_NAMES = 8 };
static const char INDEX[] = "model.safetensors.index.json";

/* A .safetensors file with these tensors (up to a NULL), each U8 [4] holding its own number. */
static void write_shard(const char *folder, const char *file, const char *const names[MAX_NAMES]) {
    char bytes[8192] = { 0 };
    size_t n = 8, count = 0;
    bytes[n++] = '{';
    for (; count < MAX_NAMES && names[count]; count++)
        n += (size_t)snprintf(bytes + n, sizeof bytes - n,
            "%s\"%s\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[%zu,%zu]}",
                              count ? "," : "", names[count], count * 4, count * 4 + 4);
    bytes[n++] = '}';
    bytes[0] = (char)((n - 8) & 0xff);
    bytes[1] = (char)((n - 8) >> 8);
    for (size_t i = 0; i < count; i++, n += 4) memset(bytes + n, (int)i + 1, 4);
    folder_write(folder, file, bytes, n);
}
#define SHARD(folder, file, ...) write_shard(folder, file, (const char *const[MAX_NAMES]){ __VA_ARGS__ })

static void open_fails(const char *path, rv_status code, const char *part) {
    rv_error err = { 0 };
    rv_checkpoint *c = NULL;
    rv_status st = rv_checkpoint_open(path, &c, &err);
    if (st == RV_OK) rv_checkpoint_close(c);
    expect_error(st, &err, code, part);
    assert_null(st ? c : NULL);
}

static rv_checkpoint *open_ok(const char *path) {
    rv_error err = { 0 };
    rv_checkpoint *c = NULL;
    expect_ok(rv_checkpoint_open(path, &c, &err), &err);
    return c;
}

/* A folder whose two shards hold a and b, with this index. */
static void index_fails(const char *index, rv_status code, const char *part) {
    char path[1024];
    folder_new(path, "index");
    SHARD(path, "1.safetensors", "a");
    SHARD(path, "2.safetensors", "b");
    folder_write_text(path, INDEX, index);
    open_fails(path, code, part);
}

#define INDEX_FAILS(sentence, index, code, part) \
    static void sentence(void **state) { (void)state; index_fails(index, code, part); }
#define MAP(entries) "{\"metadata\":{\"total_size\":8},\"weight_map\":{" entries "}}"

INDEX_FAILS(an_index_that_names_a_missing_shard_is_an_error, MAP("\"a\":\"1.safetensors\",\"b\":\"3.safetensors\""),
        RV_ERR_IO,
            "shard 2 of 2: ")
INDEX_FAILS(a_tensor_that_no_shard_has_is_an_error,
        MAP("\"a\":\"1.safetensors\",\"b\":\"2.safetensors\",\"c\":\"2.safetensors\""),
            RV_ERR_FORMAT, "tensor \"c\": the index places it in a file that does not have it")
INDEX_FAILS(a_tensor_in_another_shard_is_an_error, MAP("\"a\":\"2.safetensors\",\"b\":\"1.safetensors\""),
        RV_ERR_FORMAT,
            "tensor \"a\": the index places it in 2.safetensors, but it is in")
INDEX_FAILS(an_index_with_a_path_is_an_error, MAP("\"a\":\"sub/1.safetensors\""), RV_ERR_FORMAT,
        "leads out of the model's folder")
INDEX_FAILS(an_index_with_an_absolute_path_is_an_error, MAP("\"a\":\"/etc/passwd\""), RV_ERR_FORMAT,
        "leads out of the model's folder")
INDEX_FAILS(an_index_with_dot_dot_is_an_error, MAP("\"a\":\"..\""), RV_ERR_FORMAT, "leads out of the model's folder")
INDEX_FAILS(an_index_with_an_escaped_slash_is_an_error, MAP("\"a\":\"..\\u002f1.safetensors\""), RV_ERR_FORMAT,
        "leads out")
INDEX_FAILS(an_index_with_a_backslash_is_an_error, MAP("\"a\":\"x\\\\1.safetensors\""), RV_ERR_FORMAT, "leads out")
INDEX_FAILS(an_index_of_bin_files_is_unsupported, MAP("\"a\":\"pytorch_model-1.bin\""), RV_ERR_UNSUPPORTED,
            "\"pytorch_model-1.bin\" is not a .safetensors file")
INDEX_FAILS(an_index_with_an_empty_file_name_is_unsupported, MAP("\"a\":\"\""), RV_ERR_UNSUPPORTED,
        "\"\" is not a .safetensors file")
INDEX_FAILS(an_index_with_a_nul_in_a_file_name_is_an_error, MAP("\"a\":\"1.safetensors\\u0000x\""), RV_ERR_FORMAT,
        "NUL character")
INDEX_FAILS(an_index_that_lists_a_tensor_twice_is_an_error, MAP("\"a\":\"1.safetensors\",\"a\":\"1.safetensors\""),
        RV_ERR_FORMAT,
            "a: is in weight_map twice")
INDEX_FAILS(an_index_entry_that_is_a_number_is_an_error, MAP("\"a\":1"), RV_ERR_FORMAT,
        "a file name in weight_map was expected")
INDEX_FAILS(an_index_entry_that_is_null_is_an_error, MAP("\"a\":null"), RV_ERR_FORMAT,
        "a file name in weight_map was expected")
INDEX_FAILS(an_index_entry_that_is_a_list_is_an_error, MAP("\"a\":[]"), RV_ERR_FORMAT,
        "a file name in weight_map was expected")
INDEX_FAILS(an_index_without_weight_map_is_an_error, "{\"metadata\":{}}", RV_ERR_FORMAT, "weight_map: is missing")
INDEX_FAILS(an_index_with_two_weight_maps_is_an_error, "{\"weight_map\":{\"a\":\"1.safetensors\"},\"weight_map\":{}}",
        RV_ERR_FORMAT,
            "weight_map: is given twice")
INDEX_FAILS(a_missing_shard_is_named_with_the_reason, MAP("\"b\":\"3.safetensors\""), RV_ERR_IO,
        "3.safetensors: cannot open: No such file")
INDEX_FAILS(metadata_given_twice_is_an_error,
        "{\"metadata\":{},\"metadata\":{},\"weight_map\":{\"a\":\"1.safetensors\"}}",
        RV_ERR_FORMAT, "metadata: is given twice")
INDEX_FAILS(an_empty_weight_map_is_an_error, "{\"weight_map\":{}}", RV_ERR_FORMAT, "weight_map: is empty")
INDEX_FAILS(a_weight_map_that_is_a_list_is_an_error, "{\"weight_map\":[]}", RV_ERR_FORMAT,
        "weight_map as an object was expected")
INDEX_FAILS(a_total_size_that_is_a_string_is_an_error, "{\"metadata\":{\"total_size\":\"8\"},\"weight_map\":{}}",
        RV_ERR_FORMAT,
            "total_size as a number was expected")
INDEX_FAILS(metadata_that_is_a_number_is_an_error, "{\"metadata\":8,\"weight_map\":{}}", RV_ERR_FORMAT,
        "metadata as an object")
INDEX_FAILS(an_index_that_is_a_list_is_an_error, "[]", RV_ERR_FORMAT, "an object was expected")
INDEX_FAILS(an_index_that_is_cut_short_is_an_error, "{\"weight_map\":{\"a\":\"1.safe", RV_ERR_FORMAT,
            "not valid JSON: a string that never ends")
INDEX_FAILS(an_empty_index_is_an_error, "", RV_ERR_FORMAT, "the text ends too early")

static void a_good_index_opens_both_shards(void **state) {
    (void)state;
    char path[1024];
    rv_error err = { 0 };
    folder_new(path, "good");
    SHARD(path, "1.safetensors", "a");
    SHARD(path, "2.safetensors", "b", "unlisted");
    folder_write_text(path, INDEX,
                      "{\"other\":[1],\"metadata\":{\"total_size\":9.5,\"x\":{}},"
                      "\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}");
    rv_checkpoint *c = open_ok(path);
    assert_int_equal(rv_checkpoint_count(c), 3);          /* like HF: what a shard has, the model has */
    assert_int_equal(rv_checkpoint_files(c), 2);
    const rv_tensor *b = rv_checkpoint_find(c, "b");
    assert_non_null(b);
    assert_true(strstr(b->file, "2.safetensors") != NULL);
    assert_int_equal(((const uint8_t *)b->data)[0], 1);
    assert_int_equal(rv_checkpoint_find(c, "unlisted")->bytes, 4);
    assert_null(rv_checkpoint_find(c, "c"));
    assert_null(rv_checkpoint_at(c, 3));
    expect_ok(rv_checkpoint_recheck(c, &err), &err);
    rv_checkpoint_close(c);
}

static void the_index_wins_over_a_single_file(void **state) {
    (void)state;
    char path[1024];
    folder_new(path, "both");
    SHARD(path, "1.safetensors", "from the index");
    SHARD(path, "model.safetensors", "from the single file");
    folder_write_text(path, INDEX, "{\"weight_map\":{\"from the index\":\"1.safetensors\"}}");
    rv_checkpoint *c = open_ok(path);
    assert_int_equal(rv_checkpoint_count(c), 1);
    assert_non_null(rv_checkpoint_find(c, "from the index"));
    rv_checkpoint_close(c);
}

static void a_single_file_opens_by_folder_or_by_name(void **state) {
    (void)state;
    char path[1024], file[1100];
    folder_new(path, "single");
    SHARD(path, "model.safetensors", "a");
    rv_checkpoint *c = open_ok(path);
    assert_non_null(rv_checkpoint_find(c, "a"));
    rv_checkpoint_close(c);
    SHARD(path, "other.safetensors", "x");
    snprintf(file, sizeof file, "%s/other.safetensors", path);
    c = open_ok(file);
    assert_non_null(rv_checkpoint_find(c, "x"));
    assert_int_equal(rv_checkpoint_file_bytes(c),
        8 + strlen("{\"x\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]}}") + 4);
    rv_checkpoint_close(c);
}

static void a_folder_without_weights_says_what_is_there_instead(void **state) {
    (void)state;
    static const struct { const char *file, *part; } cases[] = {
        { "adapter_model.safetensors", "holds a LoRA adapter" }, { "pytorch_model.bin.index.json",
            "PyTorch .bin files" },
        { "pytorch_model.bin", "a PyTorch .bin file" }, { "consolidated.00.pth", "Meta's original .pth" },
        { "consolidated.pth", "Meta's original .pth" } };
    char path[1024];
    folder_new(path, "empty");
    open_fails(path, RV_ERR_IO, "has neither model.safetensors.index.json nor model.safetensors");
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        folder_new(path, "empty");
        folder_write_text(path, cases[i].file, "x");
        open_fails(path, RV_ERR_UNSUPPORTED, cases[i].part);
    }
}

static void a_path_that_does_not_exist_is_an_error(void **state) {
    (void)state;
    open_fails(RV_TEST_TMP "/no such folder", RV_ERR_IO, "No such file");
    open_fails("", RV_ERR_IO, "cannot open");
}

static void a_truncated_shard_is_an_error(void **state) {
    (void)state;
    char path[1024], file[1100];
    folder_new(path, "cut");
    SHARD(path, "model.safetensors", "a", "b");
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    struct stat info;
    assert_int_equal(stat(file, &info), 0);
    for (off_t n = info.st_size - 1; n >= 0; n--) {
        assert_int_equal(truncate(file, n), 0);
        open_fails(path, RV_ERR_FORMAT, n > info.st_size - 9 ? "cut short? copy or download it again" : file);
    }
}

static void a_shard_that_shrinks_later_is_seen_by_recheck(void **state) {
    (void)state;
    char path[1024], file[1100];
    rv_error err = { 0 };
    folder_new(path, "shrink");
    SHARD(path, "model.safetensors", "a");
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    rv_checkpoint *c = open_ok(path);
    expect_ok(rv_checkpoint_recheck(c, &err), &err);
    assert_int_equal(truncate(file, 10), 0);
    expect_error(rv_checkpoint_recheck(c, &err), &err, RV_ERR_IO, "became shorter since it was opened");
    rv_checkpoint_close(c);
}

/* Replacing the file by another leaves the mapped one alone. */
static void a_shard_that_is_replaced_stays_readable(void **state) {
    (void)state;
    char path[1024], file[1100];
    rv_error err = { 0 };
    folder_new(path, "replace");
    SHARD(path, "model.safetensors", "a");
    snprintf(file, sizeof file, "%s/model.safetensors", path);
    rv_checkpoint *c = open_ok(path);
    assert_int_equal(unlink(file), 0);
    folder_write_text(path, "model.safetensors", "x");
    expect_ok(rv_checkpoint_recheck(c, &err), &err);
    assert_int_equal(((const uint8_t *)rv_checkpoint_find(c, "a")->data)[3], 1);
    rv_checkpoint_close(c);
}

/* Each file name must appear under its canonical name. */
static void names_fold(const char *const from[MAX_NAMES], const char *const to[MAX_NAMES], rv_layout layout) {
    char path[1024];
    folder_new(path, "layout");
    write_shard(path, "model.safetensors", from);
    rv_checkpoint *c = open_ok(path);
    assert_int_equal(rv_checkpoint_layout(c), layout);
    uint32_t kept = 0;
    for (size_t i = 0; i < MAX_NAMES && from[i]; i++) {
        if (!to[i]) continue;
        const rv_tensor *t = rv_checkpoint_find(c, to[i]);
        if (!t) fail_msg("%s is not there as %s", from[i], to[i]);
        assert_string_equal(t->file_name, from[i]);
        assert_int_equal(((const uint8_t *)t->data)[0], i + 1);
        kept++;
    }
    assert_int_equal(rv_checkpoint_count(c), kept);
    for (uint32_t i = 1; i < kept; i++)
        assert_true(strcmp(rv_checkpoint_at(c, i - 1)->name, rv_checkpoint_at(c, i)->name) < 0);
    rv_checkpoint_close(c);
}
#define NAMES(...) (const char *const[MAX_NAMES]){ __VA_ARGS__ }

static void the_old_layout_folds(void **state) {
    (void)state;
    names_fold(NAMES("language_model.model.layers.3.cross_attn.q_proj.weight", "language_model.lm_head.weight",
                     "vision_model.class_embedding", "multi_modal_projector.bias", "language_model.model.norm.weight"),
               NAMES("text.layers.3.cross_attn.q_proj.weight", "lm_head.weight", "vision.class_embedding",
                   "projector.bias",
                     "text.norm.weight"), RV_LAYOUT_OLD);
}

static void the_new_layout_folds(void **state) {
    (void)state;
    names_fold(NAMES("model.language_model.layers.3.cross_attn.q_proj.weight", "lm_head.weight",
                     "model.vision_model.class_embedding", "model.multi_modal_projector.bias"),
               NAMES("text.layers.3.cross_attn.q_proj.weight", "lm_head.weight", "vision.class_embedding",
                   "projector.bias"),
               RV_LAYOUT_NEW);
}

static void a_text_only_model_folds(void **state) {
    (void)state;
    names_fold(NAMES("model.layers.0.mlp.up_proj.weight", "model.norm.weight", "lm_head.weight"),
               NAMES("text.layers.0.mlp.up_proj.weight", "text.norm.weight", "lm_head.weight"), RV_LAYOUT_TEXT_ONLY);
}

static void a_peft_merge_folds_in_both_layouts(void **state) {
    (void)state;
    names_fold(NAMES("base_model.model.model.language_model.norm.weight", "base_model.model.lm_head.weight",
                     "base_model.model.model.vision_model.class_embedding"),
               NAMES("text.norm.weight", "lm_head.weight", "vision.class_embedding"), RV_LAYOUT_NEW);
    names_fold(NAMES("base_model.model.language_model.model.norm.weight",
        "base_model.model.language_model.lm_head.weight",
                     "base_model.model.vision_model.class_embedding", "base_model.model.multi_modal_projector.weight"),
               NAMES("text.norm.weight", "lm_head.weight", "vision.class_embedding", "projector.weight"),
                   RV_LAYOUT_OLD);
}

static void rotary_tables_are_left_out(void **state) {
    (void)state;
    names_fold(NAMES("language_model.model.layers.0.self_attn.rotary_emb.inv_freq",
        "language_model.model.rotary_emb.inv_freq",
                     "rope_freqs", "rope_freqs.weight", "language_model.model.norm.weight", "x_rope_freqs"),
               NAMES(NULL, NULL, NULL, NULL, "text.norm.weight", "x_rope_freqs"), RV_LAYOUT_OLD);
}

static void unknown_names_stay_as_they_are(void **state) {
    (void)state;
    names_fold(NAMES("a_ids", "model.extra", "language_model.model.norm.weight", "base_model.model.odd"),
               NAMES("a_ids", "model.extra", "text.norm.weight", "base_model.model.odd"), RV_LAYOUT_OLD);
}

static void two_tensors_with_one_canonical_name_are_an_error(void **state) {
    (void)state;
    char path[1024];
    folder_new(path, "twice");
    SHARD(path, "model.safetensors", "language_model.lm_head.weight", "lm_head.weight");
    open_fails(path, RV_ERR_FORMAT, "tensor \"lm_head.weight\": is there twice");
    SHARD(path, "1.safetensors", "a");
    SHARD(path, "2.safetensors", "b", "a");
    folder_write_text(path, INDEX, "{\"weight_map\":{\"b\":\"2.safetensors\",\"c\":\"1.safetensors\"}}");
    open_fails(path, RV_ERR_FORMAT, "tensor \"c\"");
    folder_write_text(path, INDEX, "{\"weight_map\":{\"b\":\"2.safetensors\",\"a\":\"1.safetensors\"}}");
    open_fails(path, RV_ERR_FORMAT, "tensor \"a\": the index places it in 1.safetensors, but it is in");
}

static void an_adapter_that_is_not_merged_is_unsupported(void **state) {
    (void)state;
    char path[1024];
    folder_new(path, "lora");
    SHARD(path, "model.safetensors", "base_model.model.model.language_model.layers.0.self_attn.q_proj.lora_A.weight");
    open_fails(path, RV_ERR_UNSUPPORTED, "a LoRA adapter that is not merged");
}

static void the_golden_checkpoints_open_in_their_layouts(void **state) {
    (void)state;
    static const struct { const char *path; rv_layout layout; } goldens[] = {
        { "golden/hf4.48", RV_LAYOUT_OLD }, { "golden/hf5.17", RV_LAYOUT_NEW } };
    rv_checkpoint *c[2];
    for (int i = 0; i < 2; i++) {
        c[i] = golden_open(goldens[i].path);
        assert_int_equal(rv_checkpoint_layout(c[i]), goldens[i].layout);
        assert_int_equal(rv_checkpoint_count(c[i]), 171);
    }
    for (uint32_t i = 0; i < 171; i++) {                    /* one set of names, whatever the layout */
        const rv_tensor *a = rv_checkpoint_at(c[0], i), *b = rv_checkpoint_at(c[1], i);
        assert_string_equal(a->name, b->name);
        assert_string_not_equal(a->file_name, b->file_name);
        assert_int_equal(a->type, RV_F32);
        assert_int_equal(a->n_dims, b->n_dims);
        assert_memory_equal(a->shape, b->shape, sizeof a->shape);
    }
    const rv_tensor *embed = rv_checkpoint_find(c[0], "text.embed_tokens.weight");
    assert_int_equal(embed->shape[0], 128);
    assert_int_equal(embed->shape[1], 64);
    rv_checkpoint_close(c[0]);
    rv_checkpoint_close(c[1]);
}

static void golden_values_read_through_the_checkpoint(void **state) {
    (void)state;
    rv_checkpoint *c = golden_open("golden/hf4.48/golden.safetensors");
    int64_t n_ids, n_generated, n_logits;
    const void *ids = golden_get(c, "a_ids", RV_I64, &n_ids), *generated = golden_get(c, "a_gen", RV_I64, &n_generated);
    const void *logits = golden_get(c, "a_logits", RV_F32, &n_logits);
    assert_int_equal(n_generated, n_ids + 6);
    assert_int_equal(n_logits, n_ids * 120);
    for (int64_t i = 0; i < n_ids; i++) assert_int_equal(golden_i64(ids, i), golden_i64(generated, i));
    int64_t best = 0;                                       /* the next token is the largest of the last logits */
    for (int64_t i = 1; i < 120; i++)
        if (golden_f32(logits, (n_ids - 1) * 120 + i) > golden_f32(logits, (n_ids - 1) * 120 + best)) best = i;
    assert_int_equal(golden_i64(generated, n_ids), best);
    rv_checkpoint_close(c);
}

static void the_demo_model_opens_from_three_shards(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_checkpoint *c = open_ok(RV_TEST_DEMO "/model");
    assert_int_equal(rv_checkpoint_files(c), 3);
    assert_int_equal(rv_checkpoint_count(c), 206);
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++) {
        assert_int_equal(rv_checkpoint_at(c, i)->type, RV_BF16);
        bytes += rv_checkpoint_at(c, i)->bytes;
    }
    assert_int_equal(bytes, 31859742);                     /* metadata.total_size of its index */
    expect_ok(rv_checkpoint_recheck(c, &err), &err);
    rv_checkpoint_close(c);
}

/* Pages of files in this process' memory. */
static long file_pages(void) {
    long all, resident, shared = -1;
    FILE *f = fopen("/proc/self/statm", "r");
    assert_non_null(f);
    assert_int_equal(fscanf(f, "%ld %ld %ld", &all, &resident, &shared), 3);
    fclose(f);
    return shared;
}

static uint32_t sum_of(const rv_tensor *t) {
    uint32_t sum = 0;
    for (uint64_t i = 0; i < t->bytes; i++) sum += ((const uint8_t *)t->data)[i];
    return sum;
}

/* Pages by which the count may be off: code that is run for the first time, and the kernel counts in lots for each core. */
enum { LOOSE = 256 };

static void data_that_is_forgotten_leaves_memory_and_reads_the_same(void **state) {
    (void)state;
    rv_checkpoint *c = open_ok(RV_TEST_DEMO "/model");
    const rv_tensor *t = rv_checkpoint_at(c, 0);
    uint8_t own[8192] = { 1 };
    for (uint32_t i = 0; i < rv_checkpoint_count(c); i++)
        if (rv_checkpoint_at(c, i)->bytes > t->bytes) t = rv_checkpoint_at(c, i);
    const uint32_t sum = sum_of(t);
    const long touched = file_pages(), whole = (long)(t->bytes / (uint64_t)sysconf(_SC_PAGESIZE)) - 1;
    rv_checkpoint_forget(c, t->data, t->bytes);
    assert_true(whole > 4 * LOOSE);
    assert_true(file_pages() <= touched - whole + LOOSE);
    assert_int_equal(sum_of(t), sum);
    rv_checkpoint_forget(c, own, sizeof own);              /* nobody's, and beyond the end: left alone */
    rv_checkpoint_forget(c, t->data, UINT64_MAX / 2);
    assert_int_equal(own[0], 1);
    rv_checkpoint_close(c);
}

static void closing_gives_every_file_back(void **state) {
    (void)state;
    int before = dup(0), after;
    close(before);
    rv_checkpoint_close(open_ok(RV_TEST_DEMO "/model"));
    open_fails(RV_TEST_DEMO "/receipts", RV_ERR_IO, "has neither");
    open_fails(RV_TEST_DEMO "/README.md", RV_ERR_FORMAT, "not a safetensors file");
    after = dup(0);
    close(after);
    assert_int_equal(after, before);
}

static void closing_nothing_is_fine(void **state) {
    (void)state;
    rv_checkpoint_close(NULL);
}

int main(void) {
#define S(sentence) cmocka_unit_test(sentence)
    const struct CMUnitTest tests[] = {
        S(an_index_that_names_a_missing_shard_is_an_error), S(a_tensor_that_no_shard_has_is_an_error),
        S(a_tensor_in_another_shard_is_an_error), S(an_index_with_a_path_is_an_error),
        S(an_index_with_an_absolute_path_is_an_error), S(an_index_with_dot_dot_is_an_error),
        S(an_index_with_an_escaped_slash_is_an_error), S(an_index_with_a_backslash_is_an_error),
        S(an_index_of_bin_files_is_unsupported), S(an_index_with_an_empty_file_name_is_unsupported),
        S(an_index_with_a_nul_in_a_file_name_is_an_error), S(an_index_that_lists_a_tensor_twice_is_an_error),
        S(an_index_entry_that_is_a_number_is_an_error), S(an_index_entry_that_is_null_is_an_error),
        S(an_index_entry_that_is_a_list_is_an_error), S(an_index_without_weight_map_is_an_error),
        S(an_index_with_two_weight_maps_is_an_error), S(an_empty_weight_map_is_an_error),
        S(a_missing_shard_is_named_with_the_reason), S(metadata_given_twice_is_an_error),
        S(a_weight_map_that_is_a_list_is_an_error), S(a_total_size_that_is_a_string_is_an_error),
        S(metadata_that_is_a_number_is_an_error), S(an_index_that_is_a_list_is_an_error),
        S(an_index_that_is_cut_short_is_an_error), S(an_empty_index_is_an_error), S(a_good_index_opens_both_shards),
        S(the_index_wins_over_a_single_file), S(a_single_file_opens_by_folder_or_by_name),
        S(a_folder_without_weights_says_what_is_there_instead), S(a_path_that_does_not_exist_is_an_error),
        S(a_truncated_shard_is_an_error), S(a_shard_that_shrinks_later_is_seen_by_recheck),
        S(a_shard_that_is_replaced_stays_readable), S(the_old_layout_folds), S(the_new_layout_folds),
        S(a_text_only_model_folds), S(a_peft_merge_folds_in_both_layouts), S(rotary_tables_are_left_out),
        S(unknown_names_stay_as_they_are), S(two_tensors_with_one_canonical_name_are_an_error),
        S(an_adapter_that_is_not_merged_is_unsupported), S(the_golden_checkpoints_open_in_their_layouts),
        S(golden_values_read_through_the_checkpoint), S(the_demo_model_opens_from_three_shards),
        S(data_that_is_forgotten_leaves_memory_and_reads_the_same), S(closing_gives_every_file_back), S(closing_nothing_is_fine),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
