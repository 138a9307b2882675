/* test_memory.c - what a model and a session take: as planned, little, and given back; and the pass made in advance.
 *
 * On a GPU the driver's own count is compared; a first round of everything comes before, so that kernels and whatever
 * the driver keeps for itself are there already.
 */
#include "tests/support/folder.h"

#include "engine/rvprofile.h"
#include "engine/session.h"
#include "engine/synth.h"
#include "kernels/absent.h"

#ifdef RV_TEST_GPU
enum { BACKEND = RV_BACKEND_CUDA };
#else
enum { BACKEND = RV_BACKEND_CPU };
#endif

static char model_dir[1024];             /* a small synthetic model                             */

static int set_up(void **state) {
    (void)state;
    rv_error err;
    rv_synth_options o = { .size = sizeof o, .shape = "tiny" };
    if (rv_synthesise(folder_new(model_dir, "model"), &o, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(model_dir, "model");
    return rmdir(model_dir);
}

/* Everything besides weights and cached keys, of one sequence at the published shape. */
static uint64_t scratch_of_11b(rv_backend *be) {
    rv_synth_model published;
    rv_error err = { 0 };
    rv_dtype type = RV_DTYPE_COUNT;
    rv_arena cache = { 0 }, scratch = { 0 };
    rv_session *s = calloc(1, sizeof *s);
    assert_non_null(s);
    if (rv_synth_model_open("11b", &type, &published, &err)) fail_msg("%s", err.message);
    if (rv_session_resolve(&published.config, &s->options, &err)) fail_msg("%s", err.message);
    rv_session_place(s, &published.config, be, &cache, &scratch);
    rv_synth_model_close(&published);
    free(s);
    return scratch.used + be->own_bytes;
}

static rv_model *load_where(uint64_t limit, rv_embedding embedding) {
    rv_error err;
    rv_model *model;
    rv_load_options o = { .size = sizeof o, .backend = BACKEND, .memory_limit = limit, .embedding = embedding,
                          .on_oom = RV_OOM_FAIL };       /* the limit is for the weights alone          */
    if (rv_model_load(model_dir, &o, &model, &err)) fail_msg("%s", err.message);
    return model;
}

static rv_model *load(uint64_t limit) { return load_where(limit, RV_EMBEDDING_AUTO); }

/* The parts come one after the other and leave little out; readers are a GPU's. */
static void loading_says_where_its_time_went(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_model *model = load(0);
    rv_load_times t = { .size = sizeof t };
    if (rv_model_load_times(model, &t, &err)) fail_msg("%s", err.message);
    const float sum = t.files + t.device + t.plan + t.place + t.warm + t.wait;
    assert_true(t.files > 0 && t.device > 0 && t.place > 0);
    assert_true(sum <= t.total * 1.01f && sum >= t.total * 0.5f);
    const bool has_readers = model->options.backend == RV_BACKEND_CUDA;
    assert_true((t.pin > 0) == has_readers && (t.read > 0) == has_readers);
    assert_int_equal(rv_model_load_times(model, NULL, &err), RV_ERR_ARGUMENT);
    assert_int_equal(rv_model_load_times(NULL, &t, &err), RV_ERR_ARGUMENT);
    rv_model_free(model);
}

/* A picture of noise-like pixels and a question: any answer will do. */
static rv_job *answered(rv_session *s) {
    enum { EDGE = 600 };
    rv_error err;
    rv_job *job;
    uint8_t *pixels = malloc(EDGE * EDGE * 3);
    assert_non_null(pixels);
    for (int i = 0; i < EDGE * EDGE * 3; i++) pixels[i] = (uint8_t)(i * 7 + i / 97);
    rv_image image = { .size = sizeof image, .data = pixels, .bytes = EDGE * EDGE * 3, .width = EDGE, .height = EDGE };
    rv_request r = { .size = sizeof r, .images = &image, .n_images = 1, .prompt = "What is it?", .max_tokens = 8, .flags = RV_REQUEST_IGNORE_STOP };
    if (rv_generate(s, &r, &job, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_job_tokens(job, NULL, NULL), 8);
    free(pixels);
    return job;
}

static void answer(rv_session *s) { rv_job_free(answered(s)); }

/* As planned for a GPU, which need not be there. */
static void scratch_of_the_11b_shape_is_at_most_350_megabytes(void **state) {
    (void)state;
    rv_backend *be;
    rv_error err;
#ifdef RV_TEST_GPU
    if (rv_cuda_open(&(rv_cuda_options){ .act = RV_BF16 }, &be, &err)) fail_msg("%s", err.message);
#else
    if (rv_absent_open(RV_BF16, &be, &err)) fail_msg("%s", err.message);
#endif
    printf("  scratch, the backend's own %.0f MB included: %.1f MB\n", (double)be->own_bytes / 1e6, (double)scratch_of_11b(be) / 1e6);
    assert_true(scratch_of_11b(be) <= 350000000);
    rv_backend_close(be);
}

#ifdef RV_TEST_GPU
static uint64_t free_bytes(void) {
    rv_device d = { .size = sizeof d };
    rv_error err;
    if (rv_device_get(RV_BACKEND_CUDA, 0, &d, &err)) fail_msg("%s", err.message);
    return d.memory_free;
}

/* The driver hands out memory in pieces of 2 MB, and may keep some for recorded steps. */
static void what_was_planned_is_taken_and_every_byte_given_back(void **state) {
    (void)state;
    enum { ALLOCATIONS = 6, PIECE = 2 << 20 };
    rv_error err = { 0 };
    rv_memory plan = { .size = sizeof plan }, of_model = { .size = sizeof of_model }, of_session = { .size = sizeof of_session };
    rv_load_options options = { .size = sizeof options, .backend = BACKEND };
    rv_session_options session = { .size = sizeof session, .slots = 2, .context = 4096, .images = 8 };
    if (rv_memory_plan(model_dir, &options, &session, &plan, &err)) fail_msg("%s", err.message);
    for (int round = 0; round < 3; round++) {
        rv_session *s;
        uint64_t before = free_bytes();
        rv_model *model = load(0);
        if (rv_session_new(model, &session, &s, &err)) fail_msg("%s", err.message);
        uint64_t taken = before - free_bytes();
        assert_int_equal(rv_model_memory(model, &of_model, &err), RV_OK);
        assert_int_equal(rv_session_memory(s, &of_session, &err), RV_OK);
        assert_int_equal(of_model.total + of_session.total, plan.total);
        answer(s);
        uint64_t used = before - free_bytes();
        rv_session_free(s);
        rv_model_free(model);
        uint64_t after = free_bytes();
        printf("  round %d: planned %.2f MB, taken %.2f MB, after an answer %.2f MB, not given back %.2f MB\n", round, (double)plan.total / 1e6,
               (double)taken / 1e6, (double)used / 1e6, ((double)before - (double)after) / 1e6);
        if (round == 0) continue;
        assert_true(taken + PIECE >= plan.total);
        assert_true(taken <= plan.total + ALLOCATIONS * PIECE);
        assert_int_equal(used, taken);
        assert_int_equal(after, before);
    }
}
static rv_session *opened(rv_model *model) {
    rv_error err;
    rv_session *s;
    if (rv_session_new(model, &(rv_session_options){ .size = sizeof(rv_session_options), .context = 256 }, &s, &err)) fail_msg("%s", err.message);
    return s;
}

static rv_memory memory_of(const rv_model *model) {
    rv_error err;
    rv_memory m = { .size = sizeof m };
    if (rv_model_memory(model, &m, &err)) fail_msg("%s", err.message);
    return m;
}

static void tables_in_host_memory_leave_every_bit_as_it_is(void **state) {
    (void)state;
    enum { ROUNDING = 2 * RV_ARENA_ALIGN };
    rv_error err;
    rv_model *near = load_where(0, RV_EMBEDDING_DEVICE), *far = load_where(0, RV_EMBEDDING_HOST);
    rv_session *s[2] = { opened(near), opened(far) };
    rv_job *job[2] = { answered(s[0]), answered(s[1]) };
    const int32_t *ids[2];
    const float *logprobs[2];
    uint32_t n[2];
    for (int i = 0; i < 2; i++) n[i] = rv_job_tokens(job[i], &ids[i], &logprobs[i]);
    assert_int_equal(n[0], n[1]);
    assert_memory_equal(ids[0], ids[1], n[0] * sizeof *ids[0]);
    assert_memory_equal(logprobs[0], logprobs[1], n[0] * sizeof *logprobs[0]);
    rv_memory a = memory_of(near), b = memory_of(far), plan = { .size = sizeof plan };
    rv_load_options o = { .size = sizeof o, .backend = BACKEND, .embedding = RV_EMBEDDING_HOST };
    if (rv_memory_plan(model_dir, &o, NULL, &plan, &err)) fail_msg("%s", err.message);
    assert_int_equal(plan.weights, b.weights);
    assert_int_equal(plan.host_weights, b.host_weights);
    assert_int_equal(a.host_weights, 0);
    assert_true(b.host_weights > 0 && b.embedding == RV_EMBEDDING_HOST && a.embedding == RV_EMBEDDING_DEVICE);
    assert_in_range(a.weights - b.weights, b.host_weights - ROUNDING, b.host_weights + ROUNDING);
    for (int i = 0; i < 2; i++) rv_job_free(job[i]), rv_session_free(s[i]);
    rv_model_free(near);
    rv_model_free(far);
}

static void streamed_layers_leave_every_bit_as_it_is(void **state) {
    (void)state;
    rv_error err;
    for (rv_weight_format w = RV_WEIGHTS_16BIT; w <= RV_WEIGHTS_NF4; w++) {
        rv_model *m[2];
        rv_session *s[2];
        for (int i = 0; i < 2; i++) {
            rv_load_options o = { .size = sizeof o, .backend = BACKEND, .weights = w, .gpu_layers = i ? 1 : 0 };
            if (rv_model_load(model_dir, &o, &m[i], &err)) fail_msg("%s", err.message);
            s[i] = opened(m[i]);
        }
        assert_true(memory_of(m[1]).streamed > 0 && memory_of(m[1]).weights < memory_of(m[0]).weights + memory_of(m[1]).streamed);
        for (int round = 0; round < 3; round++) {
            rv_job *job[2] = { answered(s[0]), answered(s[1]) };
            const int32_t *ids[2];
            for (int i = 0; i < 2; i++) assert_int_equal(rv_job_tokens(job[i], &ids[i], NULL), 8);
            assert_memory_equal(ids[0], ids[1], 8 * sizeof *ids[0]);
            for (int i = 0; i < 2; i++) rv_job_free(job[i]);
        }
        for (int i = 0; i < 2; i++) rv_session_free(s[i]), rv_model_free(m[i]);
    }
}

static void a_model_that_fits_without_its_tables_keeps_them_in_host_memory(void **state) {
    (void)state;
    rv_model *whole = load(0);
    rv_memory m = memory_of(whole);
    rv_model_free(whole);
    rv_model *model = load(m.total - 1);
    assert_true(memory_of(model).host_weights > 0);
    rv_model_free(model);
    model = load(m.total);
    assert_int_equal(memory_of(model).host_weights, 0);
    rv_model_free(model);
}
#else
static uint64_t two_bytes(rv_backend *be, const rv_weight_spec *s) {
    (void)be;
    return (uint64_t)s->rows * (uint64_t)s->cols * 2;
}
static void *no_memory(rv_backend *be, uint64_t bytes) {
    (void)be, (void)bytes;
    return NULL;
}

/* What a format takes with one sequence of the usual length. */
static uint64_t needed(rv_weight_format weights) {
    rv_error err;
    rv_memory plan = { .size = sizeof plan };
    const rv_load_options o = { .size = sizeof o, .backend = BACKEND, .weights = weights };
    const rv_session_options usual = { .size = sizeof usual };
    if (rv_memory_plan(model_dir, &o, &usual, &plan, &err)) fail_msg("%s", err.message);
    return plan.total;
}

/* `session`: one of the usual length is made too. */
static rv_weight_format chosen(uint64_t limit, bool session) {
    rv_error err;
    rv_model *m;
    rv_session *s = NULL;
    rv_memory is = { .size = sizeof is }, plan = { .size = sizeof plan };
    const rv_load_options o = { .size = sizeof o, .backend = BACKEND, .memory_limit = limit };
    const rv_session_options usual = { .size = sizeof usual };
    if (rv_model_load(model_dir, &o, &m, &err)) fail_msg("%s", err.message);
    assert_int_equal(rv_model_memory(m, &is, &err), RV_OK);
    if (session && rv_session_new(m, &usual, &s, &err)) fail_msg("%s", err.message);
    if (rv_memory_plan(model_dir, &o, &usual, &plan, &err)) fail_msg("%s", err.message);
    assert_int_equal(plan.weights_format, is.weights_format);
    assert_int_equal(plan.fits, session);
    rv_session_free(s);
    rv_model_free(m);
    return is.weights_format;
}

static void the_format_that_fits_leaves_room_for_a_session(void **state) {
    (void)state;
    const uint64_t plain = needed(RV_WEIGHTS_16BIT), int8 = needed(RV_WEIGHTS_INT8), nf4 = needed(RV_WEIGHTS_NF4);
    assert_true(plain > int8 && int8 > nf4);
    assert_int_equal(chosen(plain, true), RV_WEIGHTS_16BIT);
    assert_int_equal(chosen(plain - 1, true), RV_WEIGHTS_INT8);
    assert_int_equal(chosen(int8, true), RV_WEIGHTS_INT8);
    assert_int_equal(chosen(int8 - 1, true), RV_WEIGHTS_NF4);
}

/* A shorter one may. */
static void where_no_format_leaves_room_for_a_session_the_first_that_fits_alone_is_taken(void **state) {
    (void)state;
    assert_int_equal(chosen(needed(RV_WEIGHTS_NF4) - 1, false), RV_WEIGHTS_16BIT);
}

static void sizes_below_a_gigabyte_are_told_in_megabytes(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_model *m;
    rv_session *s;
    rv_load_options o = { .size = sizeof o, .backend = BACKEND, .weights = RV_WEIGHTS_16BIT, .memory_limit = 1500000 };
    expect_error(rv_model_load(model_dir, &o, &m, &err), &err, RV_ERR_DEVICE_MEMORY, " MB and memory_limit is 1.5 MB: raise");
    o.memory_limit = needed(RV_WEIGHTS_16BIT) - 1;
    if (rv_model_load(model_dir, &o, &m, &err)) fail_msg("%s", err.message);
    const rv_session_options usual = { .size = sizeof usual };
    expect_error(rv_session_new(m, &usual, &s, &err), &err, RV_ERR_DEVICE_MEMORY, " MB are left: ask for fewer slots");
    rv_model_free(m);
}

/* As a GPU plans it. */
static void tables_go_to_host_memory_when_asked_or_when_the_weights_would_not_fit(void **state) {
    (void)state;
    enum { ROUNDING = 2 * RV_ARENA_ALIGN };
    static const rv_embedding asked[] = { RV_EMBEDDING_DEVICE, RV_EMBEDDING_HOST, RV_EMBEDDING_AUTO, RV_EMBEDDING_AUTO, RV_EMBEDDING_DEVICE };
    static const rv_embedding wanted[] = { RV_EMBEDDING_DEVICE, RV_EMBEDDING_HOST, RV_EMBEDDING_DEVICE, RV_EMBEDDING_HOST, RV_EMBEDDING_DEVICE };
    const rv_backend_ops ops = { .name = "a GPU's memory", .weight_bytes = two_bytes, .host_alloc = no_memory };
    rv_backend be = { .ops = &ops, .act = RV_BF16 };
    rv_files files;
    rv_error err;
    uint64_t device[5], host[5], mapped;
    if (rv_files_open(model_dir, false, &files, &err)) fail_msg("%s", err.message);
    for (int i = 0; i < 5; i++) {
        rv_load_options o = { .size = sizeof o, .embedding = asked[i] };
        uint64_t available = i < 2 ? 0 : i == 2 ? device[0] : device[0] - 1;
        if (rv_load_measure(&files, &be, &o, available, &device[i], &host[i], &mapped, &err)) fail_msg("%s", err.message);
        assert_int_equal(o.embedding, wanted[i]);
        assert_int_equal(mapped, 0);
        assert_int_equal(device[i], wanted[i] == RV_EMBEDDING_HOST ? device[1] : device[0]);
        assert_int_equal(host[i], wanted[i] == RV_EMBEDDING_HOST ? host[1] : 0);
    }
    const rv_text_config *t = &files.config.text;
    const rv_vision_config *v = &files.config.vision;
    uint64_t tables = 2 * ((uint64_t)(t->vocab + 8) * (uint64_t)t->hidden +
                           (uint64_t)(v->n_ratios + 1) * (uint64_t)v->max_tiles * (uint64_t)v->tokens * (uint64_t)v->hidden);
    assert_in_range(host[1], tables, tables + ROUNDING);
    assert_in_range(device[0] - device[1], tables - ROUNDING, tables + ROUNDING);
    rv_files_close(&files);
}

#endif

/* As a backend wants it whose code loads late; the CPU's does not, and is told here that it does. */
static void a_pass_in_advance_leaves_no_trace(void **state) {
    (void)state;
    rv_error err;
    rv_session *s;
    rv_model *model = load(0);
    model->be->loads_late = true;
    void *memory = rv_model_warm(model);
    assert_non_null(memory);
    assert_int_equal(rv_finish(model->be, &err), RV_OK);
    rv_device_release(model->be, memory);
    if (rv_session_new(model, &(rv_session_options){ .size = sizeof(rv_session_options), .context = 256 }, &s, &err)) fail_msg("%s", err.message);
    answer(s);
    rv_session_free(s);
    rv_model_free(model);
}

static void a_pass_in_advance_is_left_out_where_memory_is_short(void **state) {
    (void)state;
    rv_error err;
    rv_memory is = { .size = sizeof is };
    rv_model *model = load(0);
    assert_int_equal(rv_model_memory(model, &is, &err), RV_OK);
    rv_model_free(model);
    model = load(is.total + 1000);
    model->be->loads_late = true;
    assert_null(rv_model_warm(model));
    assert_int_equal(rv_finish(model->be, &err), RV_OK);
    rv_model_free(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scratch_of_the_11b_shape_is_at_most_350_megabytes),
#ifdef RV_TEST_GPU
        cmocka_unit_test(what_was_planned_is_taken_and_every_byte_given_back),
        cmocka_unit_test(tables_in_host_memory_leave_every_bit_as_it_is),
        cmocka_unit_test(a_model_that_fits_without_its_tables_keeps_them_in_host_memory),
        cmocka_unit_test(streamed_layers_leave_every_bit_as_it_is),
#else
        cmocka_unit_test(the_format_that_fits_leaves_room_for_a_session),
        cmocka_unit_test(where_no_format_leaves_room_for_a_session_the_first_that_fits_alone_is_taken),
        cmocka_unit_test(sizes_below_a_gigabyte_are_told_in_megabytes),
        cmocka_unit_test(tables_go_to_host_memory_when_asked_or_when_the_weights_would_not_fit),
#endif
        cmocka_unit_test(loading_says_where_its_time_went),
        cmocka_unit_test(a_pass_in_advance_leaves_no_trace),
        cmocka_unit_test(a_pass_in_advance_is_left_out_where_memory_is_short),
    };
#ifdef RV_TEST_GPU
    if (rv_device_count(RV_BACKEND_CUDA) == 0) return puts("skipped: no GPU"), 77;
#endif
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
