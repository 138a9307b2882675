/* test_batch_journal.c - whose results may stand in one file: the journal by itself, as no command line can make a model load otherwise than planned. */
#include "tools/batch.h"             /* first: cmocka has a macro called fail */
#include "tests/support/folder.h"

static char output[1100];

static void begin_anew(void) {
    char dir[1024];
    folder_new(dir, "journal");
    snprintf(output, sizeof output, "%s/out.jsonl", dir);
}

static json_t *settings(rv_weight_format weights, rv_steps steps, rv_backend_id backend) {
    const read_choice c = { .schema = "receipt", READ_DEFAULTS };
    const rv_memory model = { .weights_format = weights, .steps = steps, .backend = backend, .compute = RV_COMPUTE_F16 };
    json_t *out = NULL;
    rv_error err;
    expect_ok(batch_settings(&c, &model, 0, &out, &err), &err);
    return out;
}

/* Opens, settles, and closes again; `id`: notes that document. */
static rv_status one_run(const json_t *planned, const json_t *loaded, const char *id, rv_error *err) {
    journal j;
    rv_status st = journal_open(output, planned, false, &j, err);
    if (st) return st;
    st = journal_settle(&j, planned, loaded, err);
    if (st == RV_OK && id) st = journal_add(&j, &(done){ .id = (char *)(uintptr_t)id, .ours = true }, "{}\n", 3, err);
    journal_close(&j);
    return st;
}

static void what_was_loaded_is_noted_where_it_is_not_what_was_planned(void **state) {
    (void)state;
    rv_error err;
    json_t *wide = settings(RV_WEIGHTS_16BIT, 0, RV_BACKEND_CUDA), *narrow = settings(RV_WEIGHTS_NF4, 0, RV_BACKEND_CUDA);
    begin_anew();
    expect_ok(one_run(wide, narrow, "a", &err), &err);           /* the driver refused memory in spite of the plan */
    expect_error(one_run(wide, wide, "b", &err), &err, RV_ERR_ARGUMENT, "other settings of --weights (nf4): use those");
    expect_ok(one_run(narrow, narrow, "b", &err), &err);
    expect_error(one_run(narrow, wide, "c", &err), &err, RV_ERR_ARGUMENT, "other settings of --weights (nf4): use those");
    expect_ok(one_run(narrow, narrow, "c", &err), &err);
    json_decref(wide);
    json_decref(narrow);
}

static void what_the_machine_decides_is_named_with_what_it_was(void **state) {
    (void)state;
    rv_error err;
    json_t *begun = settings(RV_WEIGHTS_16BIT, RV_STEP_HEAD | RV_STEP_TABLES, RV_BACKEND_CUDA);
    json_t *head = settings(RV_WEIGHTS_16BIT, RV_STEP_TABLES, RV_BACKEND_CUDA), *cpu = settings(RV_WEIGHTS_16BIT, RV_STEP_HEAD, RV_BACKEND_CPU);
    json_t *tables = settings(RV_WEIGHTS_16BIT, RV_STEP_HEAD, RV_BACKEND_CUDA);
    begin_anew();
    expect_ok(one_run(begun, begun, "a", &err), &err);
    expect_error(one_run(head, head, NULL, &err), &err, RV_ERR_ARGUMENT, "other settings of --weights (16bit, lm_head int8): use those");
    expect_error(one_run(cpu, cpu, NULL, &err), &err, RV_ERR_ARGUMENT, "other settings of --backend (cuda): use those");
    expect_ok(one_run(tables, tables, "b", &err), &err);         /* where tables lie changes no result */
    json_decref(begun);
    json_decref(head);
    json_decref(cpu);
    json_decref(tables);
}

static void a_journal_without_documents_takes_what_is_loaded(void **state) {
    (void)state;
    rv_error err;
    journal j;
    json_t *wide = settings(RV_WEIGHTS_16BIT, 0, RV_BACKEND_CPU), *narrow = settings(RV_WEIGHTS_INT8, 0, RV_BACKEND_CPU);
    begin_anew();
    expect_ok(journal_open(output, wide, false, &j, &err), &err);
    j.new_output = j.new_log = false;                            /* as after a power cut: the files stay */
    expect_ok(journal_settle(&j, wide, narrow, &err), &err);
    journal_close(&j);
    expect_ok(one_run(wide, narrow, "a", &err), &err);
    expect_ok(one_run(narrow, narrow, "b", &err), &err);
    expect_error(one_run(wide, wide, NULL, &err), &err, RV_ERR_ARGUMENT, "--weights (int8)");
    json_decref(wide);
    json_decref(narrow);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_loaded_is_noted_where_it_is_not_what_was_planned),
        cmocka_unit_test(what_the_machine_decides_is_named_with_what_it_was),
        cmocka_unit_test(a_journal_without_documents_takes_what_is_loaded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
