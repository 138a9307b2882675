/* test_cli_profiles.c - GPUs that are not there, settings that come from elsewhere, and workers that are killed. */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "engine/rvprofile.h"
#include "tests/cli/program.h"

/* ---- plan --gpu-profile ---- */

static void a_v100_is_planned_without_one_and_without_a_model(void **state) {
    (void)state;
    prints("profile +v100: .*kernels +sm70.*memory +16.0 GB, 12.8 GB usable: 80 % of it, which leaves 3.2 GB free .*legacy class: min\\(4 GB, 25 %\\).*precision +int8: 12\\.[0-9] GB.*16 bit would take 22\\.[0-9] GB", "plan", "--gpu-profile",
           "v100");
    prints("memory +141.0 GB, 13[34]\\.[0-9] GB usable: 95 % of it, which leaves 7\\.[01] GB free", "plan", "--gpu-profile", "h200");
    prints("memory +24.0 GB, 19.2 GB usable: the mid-range datacenter class leaves 4.8 GB free, min\\(6 GB, 20 %\\)\n", "plan", "--gpu-profile", "a10g");
    outcome o = run_with(NULL, ARGS("plan", "--gpu-profile", "v100", "--memory-limit", "3G", "--on-oom", "fail", "--weights", "nf4"));
    assert_true(matches(o.out, "nf4: 8\\.[0-9]+ GB do not fit in the available 3\\.22 GB"));
    outcome_free(&o);
    prints("against this GPU's targets.*int8 +nf4.*memory +< 16 GB +1[0-9.]+ GB +ok +[0-9.]+ GB +ok.*load +< 30 s.*inference, an image +< 2 s.*headroom +> 4 GB +[0-9.]+ GB +FAIL +[0-9.]+ GB +ok"
           ".*projection", "plan", "--gpu-profile", "v100");
}

/* 8.66 GB of int8 layers at the profile's 12 GB/s, in every step. */
static void a_v100_waits_for_layers_that_stream(void **state) {
    (void)state;
    prints("inference, an image +< 2 s +7[0-9]\\.[0-9]+ s +FAIL.*, 72[0-9]\\.[0-9] and [0-9.]+ ms a token \\(host bus, host bus\\)", "plan", "-m", scratch("sparse11"), "--gpu-profile", "v100", "--gpu-layers",
           "0", "--host-memory", "40G");
}

static void two_a10g_are_told_what_a_split_would_allow(void **state) {
    (void)state;
    prints("precision +int8: ", "plan", "-m", scratch("sparse11"), "--gpu-profile", "a10g");
    prints("precision +2 x NVIDIA A10G: 16 bit \\(1[0-9.]+ GB on each\\) when the layers are split.*keeps a whole model on one GPU, and there it is int8", "plan", "-m", scratch("sparse11"),
           "--gpu-profile", "a10g", "--devices", "2");
    refuses(2, "--devices goes with --gpu-profile", "plan", "-m", MODEL, "--devices", "2");
}

static void an_h200_keeps_sixteen_bits_in_95_percent(void **state) {
    (void)state;
    prints("precision +16 bit: .*13[34]\\.[0-9] GB of its 141 GB are usable.*16bit weights, bf16 products, on cuda \\(sm90 kernels\\); 48 sequences", "plan", "-m", scratch("sparse11"),
           "--gpu-profile", "h200");
}

/* The plan and the explanation are of one mind, for every GPU; and no GPU hears of another. */
static void every_profile_explains_what_its_plan_does(void **state) {
    (void)state;
    static const char *const formats[][2] = { { "16 bit: ", "16bit weights" }, { "int8: ", "int8 weights" }, { "NF4: ", "nf4 weights" } };
    for (uint32_t i = 0; i < rv_profile_count(); i++) {
        rv_profile p = { .size = sizeof p };
        assert_int_equal(rv_profile_at(i, &p, NULL), RV_OK);
        outcome o = run_with(NULL, ARGS("plan", "-m", scratch("sparse11"), "--gpu-profile", p.name));
        char reason[40];
        int same = 0;
        assert_int_equal(o.code, 0);
        for (size_t f = 0; f < 3; f++) {
            snprintf(reason, sizeof reason, "precision  %s", formats[f][0]);
            same += strstr(o.out, reason) && strstr(o.out, formats[f][1]);
        }
        if (same != 1) fail_msg("%s: %s", p.name, o.out);
        if (strcmp(p.name, "v100")) assert_null(strstr(o.out, "this GPU's targets"));
        assert_int_equal(strstr(o.out, "V100") != NULL, strcmp(p.name, "v100") == 0);
        assert_int_equal(strstr(o.out, "H200") != NULL, strcmp(p.name, "h200") == 0);
        outcome_free(&o);
    }
}

/* Where options decide, and on the lowest rungs, too; and so does its JSON. */
static void the_explanation_is_of_the_plan_below_it(void **state) {
    (void)state;
    prints("precision +int8 and lm_head in int8: 1[0-9.]+ GB with one sequence, its large tables in host memory; 12\\.5 GB of its 48 GB are allowed; 16 bit would take.*: int8 weights.*lm_head in int8",
           "plan", "--gpu-profile", "l40s", "--slots", "1", "--memory-limit", "11.6G");
    prints("precision +NF4: [0-9.]+ GB with one sequence; 12\\.8 GB of its 16 GB are usable\n.*: nf4 weights", "plan", "--gpu-profile", "v100", "--weights", "nf4");
    prints("precision +NF4 and lm_head in int8: 6\\.[0-9] GB with one sequence, its large tables and some layers in host memory; 6\\.4 GB.*It fits", "plan", "--gpu-profile", "l40s",
           "--memory-limit", "6G");
    prints("\"weights_format\": \"nf4\",.*\"profile\": \\{.*\"weights_format\": \"nf4\",.*\"reason\": \"NF4 and.*\"fits\": true", "plan", "--gpu-profile", "l40s", "--memory-limit", "6G", "--json");
    outcome o = run_with(NULL, ARGS("plan", "--gpu-profile", "l40s", "--memory-limit", "3G"));
    assert_int_equal(o.code, 7);
    assert_true(matches(o.out, "precision +NF4 and lm_head in int8: does not fit: it takes 4\\.[0-9] GB"));
    outcome_free(&o);
}

static void less_memory_goes_down_to_layers_on_the_host(void **state) {
    (void)state;
    prints("nf4 weights.*to make it fit: large tables in host memory, lm_head in int8, NF4 weights", "plan", "-m", scratch("sparse11"), "--gpu-profile", "a10g", "--memory-limit", "7500M");
    prints("host layers .*weights of all text layers but [0-9]+, pinned; they stream.*layers streamed from host memory", "plan", "-m", scratch("sparse11"), "--gpu-profile", "a10g",
           "--memory-limit", "6G", "--host-memory", "40G");
    prints("weights of all text layers but 20, pinned", "plan", "-m", scratch("sparse11"), "--gpu-profile", "h100", "--gpu-layers", "20", "--host-memory", "40G");
    outcome o = run_with(NULL, ARGS("plan", "-m", MODEL, "--gpu-profile", "a10g", "--memory-limit", "100M"));
    assert_int_equal(o.code, 7);
    assert_true(matches(o.out, "\nIt does not fit: "));
    outcome_free(&o);
    refuses(2, "\"v1000\": must be one of v100, a10g", "plan", "--gpu-profile", "v1000", "-m", MODEL);
    refuses(5, "a Tesla V100 SXM2 16 GB has no bf16", "plan", "--gpu-profile", "v100", "-m", MODEL, "--compute", "bf16");
    refuses(5, "kernels sm90: a Tesla V100 SXM2 16 GB is of compute capability 7\\.0; leave it out for sm70", "plan", "--gpu-profile", "v100", "--kernels", "sm90");
    refuses(5, "kernels sm90: .*12\\.0; leave it out for sm80", "plan", "--gpu-profile", "rtx5090", "--kernels", "sm90");     /* newer, but they run on 9.0 alone */
    prints("\\(sm70 kernels\\)", "plan", "--gpu-profile", "h100", "--kernels", "sm70");
    refuses(5, "GPU profile v100: the CPU backend has none", "plan", "--gpu-profile", "v100", "-m", MODEL, "--backend", "cpu");
    refuses(5, "gpu_layers: the CPU backend", "plan", "-m", MODEL, "--backend", "cpu", "--gpu-layers", "2");
    prints("v100 +Tesla V100.*h200 +NVIDIA H200", "help", "profiles");
}

static void no_plan_takes_more_than_its_gpu_has(void **state) {
    (void)state;
    prints("int8 weights.*available +11\\.9 GiB +12800000000 bytes +what the profile calls usable; --memory-limit is more", "plan", "--gpu-profile", "v100", "--memory-limit", "100G");
    prints("available +[0-9.]+ GiB +12000000000 bytes +--memory-limit", "plan", "--gpu-profile", "v100", "--memory-limit", "12000000000", "--slots", "1", "--embedding", "host");
    prints("available +[0-9.]+ GiB +12800000000 bytes +what the profile calls usable\n", "plan", "--gpu-profile", "v100");
}

static void a_plan_for_a_gpu_elsewhere_knows_nothing_of_this_machine(void **state) {
    (void)state;
    static const char none[] = "host limit +none is assumed: what the machine of that GPU has is not known";
    prints(none, "plan", "--gpu-profile", "l40s", "--memory-limit", "6G");
    prints("\"host_limit\": null", "plan", "--gpu-profile", "l40s", "--memory-limit", "6G", "--json");
    prints("\"host_limit\": 42949672960", "plan", "--gpu-profile", "l40s", "--memory-limit", "6G", "--host-memory", "40G", "--json");
    outcome o = run_with(NULL, ARGS("plan", "--gpu-profile", "l40s", "--memory-limit", "6G", "--host-memory", "100M"));
    assert_int_equal(o.code, 7);                         /* neither tables nor layers have room there */
    assert_false(matches(o.out, none));
    outcome_free(&o);
    o = run_with(NULL, ARGS("plan", "--gpu-profile", "l40s"));
    assert_false(matches(o.out, none));                  /* nothing goes there                     */
    outcome_free(&o);
}

static void a_session_that_cannot_be_is_told_by_its_options(void **state) {
    (void)state;
    refuses(2, "plan: --context: must be at most 131072 \\(max_position_embeddings\\), is 131073", "plan", "--gpu-profile", "l40s", "--context", "131073");
    refuses(2, "plan: --context: must be at most", "plan", "-m", MODEL, "--backend", "cpu", "--context", "300000");
    refuses(2, "plan: --images: must be a whole number from 1 to 1024, is \"1025\"", "plan", "--gpu-profile", "l40s", "--images", "1025");
    prints(", 1024 images", "plan", "-m", MODEL, "--backend", "cpu", "--images", "1024");
}

/* ---- settings ---- */

static void set(const char *name, const char *value) { assert_int_equal(value ? setenv(name, value, 1) : unsetenv(name), 0); }

static void options_win_over_variables_and_these_over_the_file(void **state) {
    (void)state;
    const char *path = file_write("settings.env", "# a comment\n\n export RV_WEIGHTS = 'nf4'\nRV_CONTEXT=\"300\"\nOTHER=1\n", 0 + strlen("# a comment\n\n export RV_WEIGHTS = 'nf4'\nRV_CONTEXT=\"300\"\nOTHER=1\n"));
    prints("16bit weights.*of 2048 tokens", "plan", "-m", MODEL, "--backend", "cpu");
    prints("nf4 weights.*of 300 tokens", "plan", "-m", MODEL, "--backend", "cpu", "--env-file", path);
    set("RV_WEIGHTS", "int8");
    prints("int8 weights.*of 300 tokens", "plan", "-m", MODEL, "--backend", "cpu", "--env-file", path);
    prints("16bit weights.*of 99 tokens", "plan", "-m", MODEL, "--backend", "cpu", "--env-file", path, "--weights", "16bit", "--context", "99");
    set("RV_WEIGHTS", "");
    prints("nf4 weights", "plan", "-m", MODEL, "--backend", "cpu", "--env-file", path);
    set("RV_WEIGHTS", NULL);
    const char *other = file_write("other.env", "RV_WEIGHTS=int8\n", 16);
    prints("int8 weights.*of 2048 tokens", "plan", "-m", MODEL, "--backend", "cpu", "--env-file", path, "--env-file", other);      /* the last counts, as of every option */
}

static void a_malformed_setting_is_an_error_that_names_it(void **state) {
    (void)state;
    set("RV_MEMORY_LIMIT", "12X");
    refuses(2, "RV_MEMORY_LIMIT: must be a size such as 12G.*is \"12X\" \\(environment\\)", "plan", "-m", MODEL);
    refuses(2, "RV_MEMORY_LIMIT: must be", "run", "-m", MODEL, "-p", "x");
    set("RV_MEMORY_LIMIT", NULL);
    set("RV_NF4_SINGLE", "perhaps");
    refuses(2, "RV_NF4_SINGLE: must be 1 or 0, yes or no", "plan", "-m", MODEL);
    set("RV_NF4_SINGLE", "no");
    prints("It fits", "plan", "-m", MODEL);
    set("RV_NF4_SINGLE", NULL);
    refuses(3, "--env-file: /no/such.env: cannot open", "plan", "-m", MODEL, "--env-file", "/no/such.env");
    refuses(2, "--env-file: .*line 2 is not NAME=VALUE: \"what\"", "plan", "-m", MODEL, "--env-file", file_write("bad.env", "RV_CONTEXT=9\nwhat\n", 18));
}

static void help_needs_no_setting(void **state) {
    (void)state;
    set("RV_THREADS", "x");
    prints("usage: rvengine run .*--threads", "run", "--help");
    prints("usage: rvengine plan ", "plan", "-m", MODEL, "-h");
    refuses(2, "RV_THREADS: must be a whole number", "plan", "-m", MODEL);
    prints("It fits", "plan", "-m", MODEL, "--backend", "cpu", "--threads", "2");     /* the option wins: the variable is not looked at */
    set("RV_THREADS", NULL);
    prints("usage: rvengine plan ", "plan", "--env-file", "/no/such.env", "--help");
}

static void sizes_are_powers_of_1024_and_at_least_a_byte(void **state) {
    (void)state;
    static const char *const good[] = { "12g", "12G", "12gb", "12GB", "12GiB", "12gib", "12288M", "12582912k", "0.01171875T" };
    static const char *const bad[] = { "0", "0.4", "0x10G", "0X10", "-1G", "12X", "12GX", "G", "1e400", "nan" };
    for (size_t i = 0; i < sizeof good / sizeof *good; i++) prints("available +12\\.0 GiB +12884901888 bytes +--memory-limit", "plan", "-m", MODEL, "--backend", "cpu", "--memory-limit", good[i]);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) refuses(2, "--memory-limit: must be a size such as 12G, 500M or 1.5G, at least 1 byte", "plan", "-m", MODEL, "--memory-limit", bad[i]);
    prints("K, M, G and T are powers of[ \n]+1024", "plan", "--help");
}

/* A variable's value is named where it is what is wrong, and the command line can take it back. */
static void a_setting_can_be_undone(void **state) {
    (void)state;
    set("RV_GPU_PROFILE", "v100");
    refuses(5, "GPU profile v100: the CPU backend has none.*\\(RV_GPU_PROFILE, environment; --gpu-profile \"\" undoes it\\)", "plan", "-m", MODEL, "--backend", "cpu");
    refuses(5, "\\(RV_GPU_PROFILE, environment", "run", "-m", MODEL, "-p", "x", "--backend", "cpu");
    prints(" on cpu;", "plan", "-m", MODEL, "--backend", "cpu", "--gpu-profile", "");
    prints(" on cpu;", "plan", "-m", MODEL, "--backend", "cpu", "--gpu-profile=");
    refuses(5, "GPU profile a10g: the CPU backend has none; leave it out, or use the cuda backend\n$", "plan", "-m", MODEL, "--backend", "cpu", "--gpu-profile", "a10g");
    set("RV_GPU_PROFILE", "");
    prints(" on cpu;", "plan", "-m", MODEL, "--backend", "cpu");
    set("RV_GPU_PROFILE", NULL);
    set("RV_WEIGHTS", "nf4");
    prints("16bit weights", "plan", "-m", MODEL, "--backend", "cpu", "--weights", "");
    set("RV_MEMORY_LIMIT", "100M");
    prints("available +[0-9.]+ GiB +[0-9]+ bytes\n", "plan", "-m", MODEL, "--backend", "cpu", "--memory-limit", "");
    set("RV_MEMORY_LIMIT", NULL);
    set("RV_NF4_SINGLE", "1");
    outcome single = run_with(NULL, ARGS("plan", "-m", MODEL, "--backend", "cpu", "--json")), nested = run_with(NULL, ARGS("plan", "-m", MODEL, "--backend", "cpu", "--json", "--nf4-single=no"));
    assert_int_equal(single.code, 0);
    assert_int_equal(nested.code, 0);
    assert_string_not_equal(single.out, nested.out);
    outcome_free(&single);
    outcome_free(&nested);
    refuses(2, "--nf4-single: must be 1 or 0, yes or no", "plan", "-m", MODEL, "--nf4-single=perhaps");
    refuses(2, "--json takes no value", "plan", "-m", MODEL, "--json=no");
    set("RV_NF4_SINGLE", NULL);
    set("RV_WEIGHTS", NULL);
}

static void doctor_names_settings_that_are_wrong(void **state) {
    (void)state;
    prints("ok +settings +none", "doctor");
    set("RV_CONTEX", "9");
    set("RV_WEIGHTS", "int9");
    outcome o = run_with(NULL, ARGS("doctor", "--env-file", file_write("doctor.env", "RV_SLOTS=4\nRV_DEVICE=0\n", 23)));
    assert_int_equal(o.code, 2);
    assert_true(matches(o.out, "WRONG setting +RV_CONTEX \\(environment\\): no such setting: did you mean RV_CONTEXT\\?"));
    assert_true(matches(o.out, "WRONG setting +RV_WEIGHTS \\(environment\\): must be one of auto.16bit.int8.nf4, is \"int9\""));
    assert_true(matches(o.out, "WRONG setting +RV_SLOTS \\([^)]*doctor.env\\): no such setting"));
    assert_true(matches(o.out, "ok +setting +RV_DEVICE=0 \\([^)]*doctor.env\\)"));
    outcome_free(&o);
    set("RV_CONTEX", NULL);
    set("RV_WEIGHTS", NULL);
}

/* What plan and run refuse is not ok, of texts too. */
static void doctor_checks_profiles_and_lists(void **state) {
    (void)state;
    static const struct { const char *name, *value, *wrong; } all[] = {
        { "RV_GPU_PROFILE", "nope", "must be a name of rvengine help profiles, is \"nope\"" }, { "RV_GPU_PROFILE", "V100", NULL },
        { "RV_KEEP", "garbage", "must be a list of MODULE=16bit, MODULE=int8 or MODULE=nf4, is \"garbage\"" }, { "RV_KEEP", "lm_head=int8,,cross_attn=int8", "must be a list" },
        { "RV_KEEP", "=int8", "must be a list" }, { "RV_KEEP", "lm_head=int9", "must be a list" }, { "RV_KEEP", "cross_attn=int8,layers.3.mlp=16bit", NULL }, { "RV_KEEP", " cross_attn=int8 , lm_head=int8,", NULL },
        { "RV_SKIP", "lm_head,,fc1", "must be a list of names without empty ones, is \"lm_head,,fc1\"" }, { "RV_SKIP", "lm_head, fc1,", NULL },
        { "RV_A_NAME_THAT_IS_LONGER_THAN_ANY_OPTION_AND_THAN_SIXTY_FOUR_CHARACTERS", "1", "no such setting" },
    };
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        set(all[i].name, all[i].value);
        outcome o = run_with(NULL, ARGS("doctor"));
        assert_int_equal(o.code, all[i].wrong ? 2 : 0);
        assert_true(matches(o.out, all[i].wrong ? "WRONG setting" : "ok +setting"));
        if (all[i].wrong && !strstr(o.out, all[i].wrong)) fail_msg("%s", o.out);
        outcome_free(&o);
        set(all[i].name, NULL);
    }
}

/* ---- workers ---- */

#define REQUEST "run", "-m", MODEL, "-i", RECEIPT, "--backend", "cpu", "-n", "300", "--ignore-stop"

static void a_worker_answers_as_the_program_itself(void **state) {
    (void)state;
    outcome plain = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--backend", "cpu")), apart = run_with(NULL, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--backend", "cpu", "--worker", "on"));
    assert_int_equal(apart.code, 0);
    assert_string_equal(plain.out, apart.out);
    outcome_free(&plain);
    outcome_free(&apart);
    refuses(3, "/no/such.png: cannot open", "run", "-m", MODEL, "-i", "/no/such.png", "--worker", "on");
    setting full = { .out = OUT_FULL }, stop = { .interrupt = 1 };
    check_refuses(__LINE__, 3, "stdout: cannot write", &full, ARGS("run", "-m", MODEL, "-i", RECEIPT, "--backend", "cpu", "-n", "4", "--worker", "on"));
    outcome o = run_with(&stop, ARGS(REQUEST, "--stream", "--worker", "on"));
    assert_int_equal(o.code, 130);
    outcome_free(&o);
}

static long size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (long)st.st_size : 0;
}

/* The only child of a process, or 0. */
static pid_t child_of(pid_t pid) {
    char path[80];
    int child = 0;
    snprintf(path, sizeof path, "/proc/%d/task/%d/children", (int)pid, (int)pid);
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    if (fscanf(f, "%d", &child) != 1) child = 0;
    fclose(f);
    return child;
}

static void pause_ms(int ms) { nanosleep(&(struct timespec){ .tv_nsec = ms * 1000000L }, NULL); }

/* Runs the request streaming, and kills its worker `times` times after its first words; the exit code. */
static int run_and_kill(int times, const char *out, const char *err) {
    pid_t pid = fork(), last = 0;
    int status = 0;
    if (pid == 0) {
        const char *argv[] = { RV_TEST_PROGRAM, REQUEST, "--stream", "--worker", "on", NULL };
        dup2(open(out, O_WRONLY | O_CREAT | O_TRUNC, 0666), STDOUT_FILENO);
        dup2(open(err, O_WRONLY | O_CREAT | O_TRUNC, 0666), STDERR_FILENO);
        execv(RV_TEST_PROGRAM, (char *const *)(uintptr_t)argv);
        _exit(126);
    }
    for (int i = 0; i < 30000 && waitpid(pid, &status, WNOHANG) != pid; i++) {
        pid_t child = child_of(pid);
        if (times > 0 && child && child != last && size_of(out) > 0) {
            last = child;
            times--;
            kill(child, SIGKILL);
        }
        pause_ms(2);
    }
    assert_int_equal(times, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void a_killed_worker_is_started_again_and_nothing_is_printed_twice(void **state) {
    (void)state;
    char out[1300], err[1300];
    size_t bytes;
    snprintf(out, sizeof out, "%s", scratch("killed.out"));
    snprintf(err, sizeof err, "%s", scratch("killed.err"));
    assert_int_equal(run_and_kill(1, out, err), 0);
    char *answer = file_read(out, &bytes), *said = file_read(err, &bytes);
    outcome plain = run_with(NULL, ARGS(REQUEST));
    assert_string_equal(answer, plain.out);
    assert_true(matches(said, "run: the worker process was killed: it is started again, and the request tried once more"));
    free(answer);
    free(said);
    outcome_free(&plain);
    assert_int_equal(run_and_kill(2, out, err), 8);
    said = file_read(err, &bytes);
    assert_true(matches(said, "the worker process was killed a second time"));
    free(said);
}

/* ---- */

static int set_up(void **state) {
    (void)state;
    rv_error err;
    rv_synth_options o = { .size = sizeof o, .shape = "11b", .sparse = 1 };
    char command[1400];
    snprintf(command, sizeof command, "rm -rf '%s'", scratch("sparse11"));
    assert_int_equal(system(command), 0);
    if (rv_synthesise(scratch("sparse11"), &o, NULL, &err)) fail_msg("%s", err.message);
    return 0;
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_v100_is_planned_without_one_and_without_a_model),
        cmocka_unit_test(a_v100_waits_for_layers_that_stream),
        cmocka_unit_test(two_a10g_are_told_what_a_split_would_allow),
        cmocka_unit_test(an_h200_keeps_sixteen_bits_in_95_percent),
        cmocka_unit_test(every_profile_explains_what_its_plan_does),
        cmocka_unit_test(the_explanation_is_of_the_plan_below_it),
        cmocka_unit_test(less_memory_goes_down_to_layers_on_the_host),
        cmocka_unit_test(no_plan_takes_more_than_its_gpu_has),
        cmocka_unit_test(a_plan_for_a_gpu_elsewhere_knows_nothing_of_this_machine),
        cmocka_unit_test(a_session_that_cannot_be_is_told_by_its_options),
        cmocka_unit_test(options_win_over_variables_and_these_over_the_file),
        cmocka_unit_test(a_malformed_setting_is_an_error_that_names_it),
        cmocka_unit_test(help_needs_no_setting),
        cmocka_unit_test(sizes_are_powers_of_1024_and_at_least_a_byte),
        cmocka_unit_test(a_setting_can_be_undone),
        cmocka_unit_test(doctor_names_settings_that_are_wrong),
        cmocka_unit_test(doctor_checks_profiles_and_lists),
        cmocka_unit_test(a_worker_answers_as_the_program_itself),
        cmocka_unit_test(a_killed_worker_is_started_again_and_nothing_is_printed_twice),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
