/* Every allocation, read, mapping and thread start of loading and of a run fails in turn: an error that says so, or the answer as
 * if nothing had been; no crash, no hang, nothing kept.
 *
 * A run takes some of the calls of a kind, at even distances; RV_TEST_INJECT=all in the environment all of them, =KIND:N (a
 * number of inject.h's list, and which call) a single one. */
#include "engine/rvconstraint.h"
#include "tests/failures/inject.h"
#include "tests/failures/trial.h"
#include "tests/fuzz/small_model.h"

enum { TOKENS = 8, PICTURES = 4 };
#ifdef __SANITIZE_ADDRESS__
enum { SOME = 3 };
#else
enum { SOME = 24 };
#endif

typedef void (*scenario_fn)(result *out);

static char cache_file[1024];
static rv_image pictures[PICTURES];      /* a JPEG, a PNG, a GIF and a BMP                      */

/* ---- the scenarios ---- */

/* `form` may be NULL. */
static void ask(rv_model *m, uint32_t n_pictures, rv_constraint *form, result *out) {
    rv_session_options so = { .size = sizeof so, .context = 256, .images = 4 };
    rv_session *s = NULL;
    rv_job *job = NULL;
    rv_request r = { .size = sizeof r, .prompt = "What is it?", .images = pictures, .n_images = n_pictures, .max_tokens = form ? 100 : TOKENS,
                     .constraint = form, .date = "26 Jul 2024" };
    out->st = rv_session_new(m, &so, &s, &out->err);
    if (!out->st) out->st = rv_generate(s, &r, &job, &out->err);
    if (!out->st) take_answer(job, out);
    rv_job_free(job);
    rv_session_free(s);
}

static rv_model *load(rv_weight_format weights, rv_compute compute, const char *cache, result *out) {
    rv_model *m = NULL;
    rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .threads = 2, .weights = weights, .compute = compute, .cache_dir = cache };
    out->st = rv_model_load(small_model(), &o, &m, &out->err);
    return m;
}

static void load_and_ask(rv_weight_format weights, rv_compute compute, const char *cache, result *out) {
    rv_model *m = load(weights, compute, cache, out);
    if (!out->st) ask(m, 0, NULL, out);
    rv_model_free(m);
}

static void plain(result *out) { load_and_ask(RV_WEIGHTS_16BIT, RV_COMPUTE_AUTO, NULL, out); }
static void f32(result *out) { load_and_ask(RV_WEIGHTS_16BIT, RV_COMPUTE_F32, NULL, out); }
static void nf4(result *out) { load_and_ask(RV_WEIGHTS_NF4, RV_COMPUTE_AUTO, NULL, out); }

static void cache_written(result *out) {
    unlink(cache_file);
    load_and_ask(RV_WEIGHTS_INT8, RV_COMPUTE_AUTO, small_cache(), out);
}

static void cache_read(result *out) { load_and_ask(RV_WEIGHTS_INT8, RV_COMPUTE_AUTO, small_cache(), out); }

static void images(result *out) {
    rv_model *m = load(RV_WEIGHTS_16BIT, RV_COMPUTE_F32, NULL, out);
    if (!out->st) ask(m, PICTURES, NULL, out);
    rv_model_free(m);
}

static void constraint(result *out) {
    static const char schema[] = "{\"type\":\"object\",\"properties\":{\"total\":{\"type\":\"integer\"},\"kind\":{\"enum\":[\"a\",\"b\"]}},\"required\":[\"total\",\"kind\"]}";
    rv_constraint *form = NULL;
    rv_model *m = load(RV_WEIGHTS_16BIT, RV_COMPUTE_F32, NULL, out);
    if (!out->st) out->st = rv_constraint_json(rv_model_tokenizer(m), schema, sizeof schema - 1, &form, &out->err);
    if (!out->st) ask(m, 0, form, out);
    rv_constraint_free(form);
    rv_model_free(m);
}

static void looking(result *out) {
    rv_model_info *info = NULL;
    rv_memory plan = { .size = sizeof plan };
    rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .threads = 2, .memory_limit = 1 << 30 };
    out->st = rv_inspect(small_model(), &info, &out->err);
    if (!out->st) out->st = rv_memory_plan(small_model(), &o, NULL, &plan, &out->err);
    if (!out->st) out->st = rv_check_weights(small_model(), NULL, NULL, &out->err);
    if (!out->st) snprintf(out->text, sizeof out->text, "%s %s %llu", rv_model_info_get(info, "layers"), rv_model_info_get(info, "template"), (unsigned long long)plan.total);
    rv_model_info_free(info);
}

static const struct { const char *name; scenario_fn run; } scenarios[] = {
    { "16 bit", plain }, { "f32", f32 }, { "nf4", nf4 }, { "int8, cache written", cache_written }, { "int8, cache read", cache_read },
    { "four images", images }, { "constraint", constraint }, { "inspect, plan, check", looking },
};
enum { SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* ---- judging ---- */

typedef struct tally { uint64_t calls, cases, errors, same; } tally;

static tally tallies[INJECT_KINDS];
static int within_onednn;

static bool right_code(inject_kind kind, rv_status st) {
    const bool memory = st == RV_ERR_MEMORY || st == RV_ERR_DEVICE_MEMORY;
    if (kind <= INJECT_MMAP) return memory;
    if (kind == INJECT_SHORT || kind == INJECT_INTERRUPTED) return false;
    return st == RV_ERR_IO || (kind == INJECT_THREAD && (memory || st == RV_ERR_DEVICE || st == RV_ERR_UNSUPPORTED));
}

static void judge(inject_kind kind, const result *is, const result *must) {
    tally *t = &tallies[kind];
    t->cases++;
    if (is->st) {
        char text[600];
        t->errors++;
        snprintf(text, sizeof text, "%s: %s", rv_status_name(is->st), is->err.message);
        if (is->err.code != is->st || strlen(is->err.message) < 10) finding("an error without a message", text);
        else if (!right_code(kind, is->st)) finding("an error of another kind", text);
        return;
    }
    t->same++;
    if (!same(is, must)) finding("another answer", is->text);
}

/* One scenario with the n-th call failing (`again`: only to see whether it keeps memory each time); returns how many calls of the kind there were. */
static uint64_t run_case(int scenario, inject_kind kind, uint64_t n, const result *must, bool again) {
    result is = { 0 };
    int failed;
    snprintf(now, sizeof now, "%s, %s %llu (RV_TEST_INJECT=%d:%llu)", scenarios[scenario].name, inject_names[kind], (unsigned long long)n, (int)kind,
             (unsigned long long)n);
    const held before_it = trial_begin();
    const int64_t blocks = inject_blocks();
    inject_begin(kind, n);
    scenarios[scenario].run(&is);
    const uint64_t calls = inject_end(&failed);
    if (failed && !again) judge(kind, &is, must);
    if (failed == INJECT_HIT_ONEDNN) within_onednn++;
    trial_end(before_it);
#ifndef __SANITIZE_ADDRESS__
    if (inject_blocks() > blocks && failed == INJECT_HIT && !again) {
        int64_t before = inject_blocks();                /* what oneDNN has cached is not kept twice */
        run_case(scenario, kind, n, must, true);
        if (inject_blocks() > before) finding("memory is kept", "");
    }
#else
    (void)blocks, (void)again;
#endif
    if (failed == INJECT_HIT_ONEDNN) scenarios[scenario].run(&(result){ 0 });      /* it keeps what it makes, for good */
    return calls;
}

/* ---- */

static void read_pictures(void) {
    static const char *const names[PICTURES] = { "rgb_420.jpg", "palette4_trns.png", "palette.gif", "rle8.bmp" };
    for (int i = 0; i < PICTURES; i++) {
        char path[1024], *data;
        rv_error err;
        pictures[i].size = sizeof pictures[i];
        snprintf(path, sizeof path, "%s/images/%s", RV_TEST_DATA, names[i]);
        expect_ok(rv_file_read(path, 1 << 20, &data, &pictures[i].bytes, &err), &err);
        pictures[i].data = data;
    }
}

static void print_table(void) {
    print_message("%-26s %8s %8s %8s %8s\n", "failing call", "calls", "failed", "errors", "same");
    for (int k = 0; k < INJECT_KINDS; k++)
        print_message("%-26s %8llu %8llu %8llu %8llu\n", inject_names[k], (unsigned long long)tallies[k].calls, (unsigned long long)tallies[k].cases,
                      (unsigned long long)tallies[k].errors, (unsigned long long)tallies[k].same);
}

/* The answers without failures; twice, so that what libraries keep for good is taken. */
static void rehearse(result must[SCENARIOS]) {
    for (int twice = 0; twice < 2; twice++)
        for (int s = 0; s < SCENARIOS; s++) {
            must[s] = (result){ 0 };
            scenarios[s].run(&must[s]);
            if (must[s].st) fail_msg("%s: %s", scenarios[s].name, must[s].err.message);
            if (scenarios[s].run == plain) small_cache();
            if (scenarios[s].run == cache_written) small_cache_file(cache_file);
        }
}

static void whatever_call_fails_there_is_an_error_or_the_same_answer(void **state) {
    static result must[SCENARIOS];
    const char *which = getenv("RV_TEST_INJECT");
    int one_kind = -1;
    unsigned long long one = 0;
    (void)state;
    if (which && strcmp(which, "all") && sscanf(which, "%d:%llu", &one_kind, &one) != 2) fail_msg("RV_TEST_INJECT: \"all\" or KIND:N");
    read_pictures();
    rehearse(must);
    trials_watch();
    for (int s = 0; s < SCENARIOS; s++)
        for (int k = 0; k < INJECT_KINDS; k++) {
            if (one_kind >= 0 && k != one_kind) continue;
            const uint64_t calls = run_case(s, (inject_kind)k, 0, &must[s], false), step = which || calls < SOME ? 1 : calls / SOME;
            tallies[k].calls += calls;
            for (uint64_t n = one ? one : 1 + (uint64_t)s % step; n <= calls && findings < 200; n += one ? calls : step) run_case(s, (inject_kind)k, n, &must[s], false);
        }
    print_table();
    print_message("%d of them within oneDNN, whose own losses are not judged\n", within_onednn);
    for (int i = 0; i < PICTURES; i++) free((void *)(uintptr_t)pictures[i].data);
    assert_int_equal(findings, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(whatever_call_fails_there_is_an_error_or_the_same_answer) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
