/* A model folder with one thing wrong, of nine kinds: an error that says what, or an answer, the same each time and without NaN; where
 * nothing but the file's form was touched, the answer of the good folder.
 *
 * Files have no checksums, so a changed number may make another model that is as good as the first. That is counted, and allowed
 * only where the damage lies in what a file says: weights, and the values, texts and names of JSON files.
 *
 * RV_TEST_DAMAGE=N in the environment damages N times (a run: a few hundred; the label long: 10,000), =KIND:SEED once. */
#include <math.h>

#include "tests/failures/damage.h"
#include "tests/failures/trial.h"
#include "tests/fuzz/small_model.h"

#ifdef __SANITIZE_ADDRESS__
enum { TIMES = 180 };
#else
enum { TIMES = 540 };
#endif
enum { MOST_FILES = 16, TOKENS = 8 };

typedef struct tally { int cases, errors, same, others; } tally;

static damage_file files[MOST_FILES];
static int n_files;
static tally tallies[DAMAGE_KINDS];
static rv_image picture;

static void read_files(void) {
    DIR *d = opendir(small_model());
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        char path[1024];
        rv_error err;
        damage_file *f = &files[n_files];
        if (e->d_name[0] == '.') continue;
        assert_true(n_files < MOST_FILES);
        snprintf(f->name, sizeof f->name, "%.60s", e->d_name);
        snprintf(path, sizeof path, "%s/%s", small_model(), e->d_name);
        expect_ok(rv_file_read(path, 1 << 24, &f->data, &f->bytes, &err), &err);
        n_files++;
    }
    closedir(d);
}

static const rv_weight_format formats[] = { RV_WEIGHTS_AUTO, RV_WEIGHTS_AUTO, RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };

/* Loading as the seed says, and a question about a picture. */
static result ask(uint64_t seed) {
    rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .threads = 1, .compute = RV_COMPUTE_F32, .weights = formats[seed % 4] };
    rv_session_options so = { .size = sizeof so, .context = 128, .images = 1 };
    rv_request r = { .size = sizeof r, .prompt = "What is the total?", .images = &picture, .n_images = 1, .max_tokens = TOKENS, .date = "26 Jul 2024" };
    rv_model *m = NULL;
    rv_session *s = NULL;
    rv_job *job = NULL;
    result out = { 0 };
    out.st = rv_model_load(small_model(), &o, &m, &out.err);
    if (!out.st) out.st = rv_session_new(m, &so, &s, &out.err);
    if (!out.st) out.st = rv_generate(s, &r, &job, &out.err);
    if (!out.st) take_answer(job, &out);
    rv_job_free(job);
    rv_session_free(s);
    rv_model_free(m);
    return out;
}

/* The same tokens with hardly other probabilities: NaN in a slot of a table that no picture uses has padding tiles computed in full, and
 * -Inf in a row of lm_head takes one token out of the choice. */
static bool near(const result *a, const result *b) {
    if (a->n != b->n || memcmp(a->ids, b->ids, sizeof a->ids) || strcmp(a->text, b->text)) return false;
    for (uint32_t i = 0; i < a->n; i++)
        if (!(fabsf(a->logprobs[i] - b->logprobs[i]) < 0.02f)) return false;
    return true;
}

/* What a changed file may say instead. A length or an offset that changes makes no good file. */
static bool may_say_another(damage_kind kind) {
    return kind == DAMAGE_WEIGHTS || kind == DAMAGE_JSON || kind == DAMAGE_BYTES || kind == DAMAGE_GONE || kind == DAMAGE_SWAPPED;
}

static void judge(damage_kind kind, uint64_t seed, const result *is, const result *must) {
    tally *t = &tallies[kind];
    t->cases++;
    if (is->st) {
        t->errors++;
        if (is->err.code != is->st || strlen(is->err.message) < 10) finding("an error without a message", is->err.message);
        if (is->st == RV_ERR_INTERNAL || is->st == RV_ERR_DEVICE || is->st == RV_ERR_ABI) finding("an error that is not the folder's", is->err.message);
        return;
    }
    for (uint32_t i = 0; i < is->n; i++)
        if (!isfinite(is->logprobs[i])) finding("an answer out of NaN", is->text);
    if (same(is, must) || (kind == DAMAGE_NAN && near(is, must))) {
        t->same++;
        return;
    }
    t->others++;
    if (getenv("RV_TEST_VERBOSE")) print_message("another answer: %s\n", now);
    const result again = ask(seed);
    if (!same(is, &again)) finding("two answers of one folder", is->text);
    if (!may_say_another(kind)) finding("another answer", is->text);
}

static void run_case(damage_kind kind, uint64_t seed, const result must[4]) {
    char what[200];
    damage_do(kind, seed, small_model(), files, n_files, what);
    snprintf(now, sizeof now, "RV_TEST_DAMAGE=%d:%llu: %s", (int)kind, (unsigned long long)seed, what);
    const held before = trial_begin();
    const result is = ask(seed);
    trial_end(before);
    judge(kind, seed, &is, &must[seed % 4]);
    damage_mend(small_model(), files, n_files);
}

static void print_table(void) {
    print_message("%-28s %8s %8s %8s %8s\n", "damage", "folders", "errors", "same", "another");
    for (int k = 0; k < DAMAGE_KINDS; k++)
        print_message("%-28s %8d %8d %8d %8d\n", damage_names[k], tallies[k].cases, tallies[k].errors, tallies[k].same, tallies[k].others);
}

static void a_damaged_folder_is_an_error_or_answers_as_before(void **state) {
    const char *which = getenv("RV_TEST_DAMAGE"), *colon = which ? strchr(which, ':') : NULL;
    const uint64_t times = which && !colon ? strtoull(which, NULL, 10) : TIMES;
    result must[4];
    char *data;
    rv_error err;
    (void)state;
    read_files();
    expect_ok(rv_file_read(RV_TEST_DATA "/images/rgb_420.jpg", 1 << 20, &data, &picture.bytes, &err), &err);
    picture.size = sizeof picture;
    picture.data = data;
    for (uint64_t i = 0; i < 4; i++) {
        must[i] = ask(i);
        if (must[i].st) fail_msg("%s", must[i].err.message);
    }
    trials_watch();
    if (colon) run_case((damage_kind)atoi(which), strtoull(colon + 1, NULL, 10), must);
    for (uint64_t i = 0; i < times && !colon && findings < 100; i++) run_case((damage_kind)(i % DAMAGE_KINDS), i / DAMAGE_KINDS + 1, must);
    const result last = ask(0);
    if (!same(&last, &must[0])) finding("the good folder", "does not answer as it did");
    print_table();
    for (int i = 0; i < n_files; i++) free(files[i].data);
    free(data);
    assert_int_equal(findings, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(a_damaged_folder_is_an_error_or_answers_as_before) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
