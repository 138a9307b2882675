/* test_weight_cache.c - weights kept in a file: read when they are this model's, made again with a message when anything is wrong. */
#include "tests/support/folder.h"

#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/resource.h>

#include "engine/model.h"

static char model_dir[1024], cache_dir[1024];
static char said[4096];                  /* what loading and freeing said                       */

static void hear(void *user, rv_log_level level, const char *line) {
    (void)user, (void)level;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static void expect_said(const char *part) {
    if (!strstr(said, part)) fail_msg("said \"%s\", expected \"%s\"", said, part);
}

static void expect_not_said(const char *part) {
    if (strstr(said, part)) fail_msg("said \"%s\", which has \"%s\"", said, part);
}

/* A model of our own to spoil: a copy of the demo's. */
static int set_up(void **state) {
    (void)state;
    DIR *d = opendir(RV_TEST_DEMO "/model");
    assert_non_null(d);
    folder_new(model_dir, "model");
    for (struct dirent *e; (e = readdir(d));) {
        char path[2048], *data;
        size_t bytes;
        rv_error err;
        snprintf(path, sizeof path, RV_TEST_DEMO "/model/%s", e->d_name);
        if (!rv_file_exists(path)) continue;
        expect_ok(rv_file_read(path, 1 << 28, &data, &bytes, &err), &err);
        folder_write(model_dir, e->d_name, data, bytes);
        free(data);
    }
    closedir(d);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    folder_new(model_dir, "model");
    return rmdir(model_dir);
}

static int fresh(void **state) {
    (void)state;
    folder_new(cache_dir, "cache");
    return 0;
}

static rv_load_options options(void) {
    return (rv_load_options){ .size = sizeof(rv_load_options), .backend = RV_BACKEND_CPU, .weights = RV_WEIGHTS_INT8, .cache_dir = cache_dir, .log = hear };
}

/* Loads and frees; the weights' memory as it was (the caller frees it). */
static char *memory_of(rv_load_options o, uint64_t *bytes) {
    rv_error err;
    rv_model *m;
    said[0] = '\0';
    if (rv_model_load(model_dir, &o, &m, &err)) fail_msg("%s", err.message);
    char *copy = malloc(m->memory_bytes);
    assert_non_null(copy);
    memcpy(copy, m->memory, m->memory_bytes);
    *bytes = m->memory_bytes;
    rv_model_free(m);
    return copy;
}

static void expect_weights(rv_load_options o, const char *wanted, uint64_t bytes) {
    uint64_t n;
    char *is = memory_of(o, &n);
    assert_int_equal(n, bytes);
    assert_memory_equal(is, wanted, bytes);
    free(is);
}

static void only_file(char path[2048]) {
    char name[256];
    assert_int_equal(folder_count(cache_dir, name), 1);
    snprintf(path, 2048, "%s/%s", cache_dir, name);
}

/* ---- reading what was written ---- */

static void a_second_load_reads_the_same_memory(void **state) {
    (void)state;
    static const rv_weight_format formats[] = { RV_WEIGHTS_INT8, RV_WEIGHTS_NF4 };
    for (size_t i = 0; i < 2; i++) {
        uint64_t bytes;
        rv_load_options o = options(), without = o;
        o.weights = without.weights = formats[i];
        without.cache_dir = NULL;
        char *plain = memory_of(without, &bytes);
        expect_not_said("cache");
        expect_weights(o, plain, bytes);
        expect_said("weights written to the cache");
        expect_weights(o, plain, bytes);
        expect_said("weights read from the cache");
        expect_not_said("written");
        free(plain);
    }
}

static void what_is_planned_and_whether_padding_is_alike_do_not_depend_on_the_cache(void **state) {
    (void)state;
    rv_error err;
    rv_load_options o = options();
    for (int i = 0; i < 2; i++) {
        rv_model *m;
        rv_memory plan = { .size = sizeof plan }, is = { .size = sizeof is };
        said[0] = '\0';
        expect_ok(rv_memory_plan(model_dir, &o, NULL, &plan, &err), &err);
        expect_ok(rv_model_load(model_dir, &o, &m, &err), &err);
        expect_ok(rv_model_memory(m, &is, &err), &err);
        assert_int_equal(plan.weights, is.weights);
        assert_int_equal(plan.mapped, is.mapped);
        expect_said("padding tiles computed in full");
        rv_model_free(m);
    }
    expect_said("read from the cache");
}

static void folders_on_the_way_are_made(void **state) {
    (void)state;
    char deep[2048], name[256];
    uint64_t bytes;
    rv_load_options o = options();
    snprintf(deep, sizeof deep, "%s/a/b", cache_dir);
    o.cache_dir = deep;
    free(memory_of(o, &bytes));
    expect_said("written to the cache");
    assert_int_equal(folder_count(deep, name), 1);
    char path[4096];
    snprintf(path, sizeof path, "%s/%s", deep, name);
    unlink(path);
    rmdir(deep);
    snprintf(deep, sizeof deep, "%s/a", cache_dir);
    rmdir(deep);
}

static void other_formats_and_modules_have_files_of_their_own(void **state) {
    (void)state;
    char name[256];
    uint64_t bytes;
    rv_load_options all[5];
    for (int i = 0; i < 5; i++) all[i] = options();
    all[1].weights = RV_WEIGHTS_NF4;
    all[2].weights = RV_WEIGHTS_NF4, all[2].nf4_single = 1;
    all[3].keep = "cross_attn=16bit";
    all[4].modules = RV_MODULES_HF_LITERAL;
    for (int i = 0; i < 5; i++) {
        free(memory_of(all[i], &bytes));
        expect_said("written");
        assert_int_equal(folder_count(cache_dir, name), i + 1);
    }
    for (int i = 0; i < 5; i++) {
        free(memory_of(all[i], &bytes));
        expect_said("read from the cache");
    }
}

static void sixteen_bit_weights_are_not_kept(void **state) {
    (void)state;
    char name[256];
    uint64_t bytes;
    rv_load_options o = options();
    o.weights = RV_WEIGHTS_16BIT;
    free(memory_of(o, &bytes));
    expect_not_said("cache");
    assert_int_equal(folder_count(cache_dir, name), 0);
}

/* ---- files that are not right ---- */

static void spoil(const char *path, uint64_t at) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    int c = fgetc(f);
    assert_true(c != EOF);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    fputc(c ^ 0x10, f);
    assert_int_equal(fclose(f), 0);
}

static uint64_t size_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return (uint64_t)st.st_size;
}

/* The file says `why`, the weights are what they should be, and the next load finds a good file. */
static void expect_made_again(const char *why, const char *memory, uint64_t bytes) {
    expect_weights(options(), memory, bytes);
    expect_said(why);
    expect_said("the weights are made again");
    expect_said("written to the cache");
    expect_weights(options(), memory, bytes);
    expect_said("read from the cache");
}

static void damaged_files_are_said_and_replaced(void **state) {
    (void)state;
    uint64_t bytes;
    char path[2048];
    char *memory = memory_of(options(), &bytes);
    only_file(path);
    const uint64_t size = size_of(path);
    assert_true(bytes > RV_FILL_PIECE);                  /* more than one piece                  */
    const unsigned long long pieces = (bytes + RV_FILL_PIECE - 1) / RV_FILL_PIECE;
    char first[64], last[64];
    snprintf(first, sizeof first, "is damaged (piece 1 of %llu)", pieces);
    snprintf(last, sizeof last, "is damaged (piece %llu of %llu)", pieces, pieces);
    const struct { uint64_t at; const char *why; } places[] = {
        { 0, "holds something else" }, { 8, "is of another version" }, { 12, "is damaged" }, { 16, "is of another version, or was made for another device" },
        { 40, "is of another checkpoint, or the model has changed since" }, { 48, "is damaged" }, { 56, "is damaged" }, { 64, "is damaged" }, { 72, "is damaged" },
        { 80, "is damaged" }, { 88, "is damaged" }, { 96, "is damaged" }, { size - bytes, first }, { size - bytes + 100000, first },
        { size - 1, last } };
    for (size_t i = 0; i < sizeof places / sizeof *places; i++) {
        spoil(path, places[i].at);
        expect_made_again(places[i].why, memory, bytes);
    }
    free(memory);
}

static void files_of_the_wrong_length_are_said_and_replaced(void **state) {
    (void)state;
    uint64_t bytes;
    char path[2048];
    char *memory = memory_of(options(), &bytes);
    only_file(path);
    const uint64_t size = size_of(path);
    const struct { uint64_t length; const char *why; } lengths[] = { { 0, "is cut short" }, { 50, "is cut short" }, { 4096, "is cut short" }, { size - 1, "is cut short" },
                                                                      { size + 1, "is too long" } };
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        assert_int_equal(truncate(path, (off_t)lengths[i].length), 0);
        expect_made_again(lengths[i].why, memory, bytes);
    }
    free(memory);
}

static void what_is_no_file_is_said_and_loading_goes_on(void **state) {
    (void)state;
    uint64_t bytes;
    char path[2048];
    char *memory = memory_of(options(), &bytes);
    only_file(path);
    unlink(path);
    assert_int_equal(mkdir(path, 0755), 0);
    expect_weights(options(), memory, bytes);
    expect_said("cannot be read");
    expect_said("not written: cannot be renamed");
    rmdir(path);
    assert_int_equal(mkfifo(path, 0644), 0);             /* nobody will ever write to it         */
    expect_made_again("cannot be read", memory, bytes);
    free(memory);
}

/* ---- a model that changed ---- */

static void shard_of(char path[2048]) { snprintf(path, 2048, "%s/model-00002-of-00003.safetensors", model_dir); }

static void a_model_that_changed_is_not_taken_for_the_old_one(void **state) {
    (void)state;
    uint64_t bytes;
    char shard[2048], path[2048];
    struct stat before;
    shard_of(shard);
    free(memory_of(options(), &bytes));
    only_file(path);
    assert_int_equal(stat(shard, &before), 0);
    const struct timespec later[] = { before.st_atim, { before.st_mtim.tv_sec + 5, 0 } }, same[] = { before.st_atim, before.st_mtim };
    assert_int_equal(utimensat(AT_FDCWD, shard, later, 0), 0);               /* only its time            */
    free(memory_of(options(), &bytes));
    expect_said("is of another checkpoint, or the model has changed since: the weights are made again");
    spoil(shard, (uint64_t)before.st_size - 1);                                        /* only its content         */
    assert_int_equal(utimensat(AT_FDCWD, shard, later, 0), 0);
    free(memory_of(options(), &bytes));
    expect_said("is of another checkpoint");
    spoil(shard, (uint64_t)before.st_size - 1);
    assert_int_equal(utimensat(AT_FDCWD, shard, same, 0), 0);
    free(memory_of(options(), &bytes));
    free(memory_of(options(), &bytes));
    expect_said("read from the cache");
    char config[2048], *text;
    size_t n;
    rv_error err;
    snprintf(config, sizeof config, "%s/config.json", model_dir);
    expect_ok(rv_file_read(config, 1 << 20, &text, &n, &err), &err);
    text[n] = ' ';
    folder_write(model_dir, "config.json", text, n + 1);                     /* only a blank             */
    free(memory_of(options(), &bytes));
    expect_said("is of another checkpoint");
    folder_write(model_dir, "config.json", text, n);
    free(text);
}

/* ---- places that cannot be written ---- */

static void a_folder_that_cannot_be_made_is_a_warning(void **state) {
    (void)state;
    uint64_t bytes;
    char file[2048];
    rv_load_options o = options();
    folder_write_text(cache_dir, "file", "no folder");
    snprintf(file, sizeof file, "%s/file/cache", cache_dir);
    o.cache_dir = file;
    free(memory_of(o, &bytes));
    expect_said("not written: cannot be made: Not a directory");
}

static void the_reason_is_said_whatever_the_length_of_the_path(void **state) {
    (void)state;
    uint64_t bytes;
    char path[2048];
    rv_load_options o = options();
    folder_write_text(cache_dir, "file", "no folder");
    snprintf(path, sizeof path, "%s/file", cache_dir);
    for (int i = 0; i < 6; i++) snprintf(path + strlen(path), sizeof path - strlen(path), "/%0200d", i);
    o.cache_dir = path;
    free(memory_of(o, &bytes));
    expect_said("not written: cannot be made: Not a directory");
}

static void a_full_disk_is_a_warning_and_leaves_nothing(void **state) {
    (void)state;
    char name[256];
    uint64_t bytes;
    struct rlimit old, low;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    low = (struct rlimit){ 1 << 20, old.rlim_max };
    signal(SIGXFSZ, SIG_DFL);                            /* the library's thread must not let it end the program */
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &low), 0);
    free(memory_of(options(), &bytes));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    expect_said("not written: cannot be written: File too large");
    assert_int_equal(folder_count(cache_dir, name), 0);
}

/* The only file's name with another tail; which stays. */
static void name_beside(char name[256], char path[2048], const char *tail) {
    only_file(path);
    snprintf(name, 256, "%s%s", strrchr(path, '/') + 1, tail);
}

static void what_a_killed_process_left_is_removed(void **state) {
    (void)state;
    char path[2048], dead[256], own[256];
    uint64_t bytes;
    free(memory_of(options(), &bytes));
    name_beside(dead, path, ".tmp-999999999-0");         /* no process has this number           */
    name_beside(own, path, ".tmp-1-0");                  /* this one lives, but nobody writes    */
    folder_write_text(cache_dir, dead, "half");
    folder_write_text(cache_dir, own, "half");
    free(memory_of(options(), &bytes));
    expect_said("read from the cache");
    only_file(path);
    folder_write_text(cache_dir, dead, "half");
    folder_write_text(cache_dir, own, "half");
    unlink(path);
    free(memory_of(options(), &bytes));
    expect_said("written to the cache");
    only_file(path);
}

/* A process of another container may have this one's number. */
static void what_another_writes_is_left_alone_and_links_are_not_followed(void **state) {
    (void)state;
    char path[2048], victim[4096], name[256], tails[3][32];
    uint64_t bytes;
    int fd[2];
    free(memory_of(options(), &bytes));
    only_file(path);
    snprintf(name, sizeof name, "%s", strrchr(path, '/') + 1);
    for (int i = 0; i < 3; i++) snprintf(tails[i], sizeof tails[i], i ? ".tmp-%ld-%d" : ".tmp-%ld", (long)getpid(), i - 1);
    for (int i = 0; i < 2; i++) {
        char other[4096];
        snprintf(other, sizeof other, "%s%s", path, tails[i]);
        fd[i] = open(other, O_RDWR | O_CREAT | O_EXCL, 0666);
        assert_true(fd[i] >= 0 && write(fd[i], "half", 4) == 4 && flock(fd[i], LOCK_EX | LOCK_NB) == 0);
    }
    folder_write_text(cache_dir, "victim", "dear");
    snprintf(victim, sizeof victim, "%s%s", path, tails[2]);
    assert_int_equal(symlink("victim", victim), 0);
    assert_int_equal(unlink(path), 0);
    free(memory_of(options(), &bytes));
    expect_said("written to the cache");
    assert_int_equal(folder_count(cache_dir, name), 5);
    for (int i = 0; i < 2; i++) {
        struct stat is;
        assert_true(fstat(fd[i], &is) == 0 && is.st_size == 4 && is.st_nlink == 1);
        close(fd[i]);
    }
    snprintf(victim, sizeof victim, "%s/victim", cache_dir);
    assert_int_equal(size_of(victim), 4);
    free(memory_of(options(), &bytes));
    expect_said("read from the cache");
}

static void hear_alone(void *user, rv_log_level level, const char *line) {
    char *heard = user;
    (void)level;
    snprintf(heard + strlen(heard), 1024 - strlen(heard), "%s\n", line);
}

static void *load_alone(void *heard) {
    rv_load_options o = options();
    rv_error err;
    rv_model *m;
    o.log = hear_alone, o.log_user = heard, o.threads = 1;
    if (rv_model_load(model_dir, &o, &m, &err)) snprintf(heard, 1024, "%s", err.message);
    else rv_model_free(m);
    return NULL;
}

static void models_of_one_folder_may_write_the_file_at_the_same_time(void **state) {
    (void)state;
    enum { MODELS = 4 };
    char heard[MODELS][1024] = { "" }, path[2048];
    pthread_t threads[MODELS];
    for (int i = 0; i < MODELS; i++) assert_int_equal(pthread_create(&threads[i], NULL, load_alone, heard[i]), 0);
    for (int i = 0; i < MODELS; i++) pthread_join(threads[i], NULL);
    for (int i = 0; i < MODELS; i++)
        if (!strstr(heard[i], "to the cache") && !strstr(heard[i], "from the cache")) fail_msg("%s", heard[i]);
    only_file(path);
    uint64_t bytes;
    free(memory_of(options(), &bytes));
    expect_said("read from the cache");
}

/* ---- while somebody computes ---- */

static void answers_come_while_the_file_is_written(void **state) {
    (void)state;
    rv_error err;
    char first[4096] = "";
    for (int i = 0; i < 2; i++) {
        rv_model *m;
        rv_session *s;
        rv_job *job;
        rv_load_options o = options();
        rv_session_options so = { .size = sizeof so };
        rv_request r = { .size = sizeof r, .raw = "GST and total", .max_tokens = 40, .flags = RV_REQUEST_IGNORE_STOP };
        said[0] = '\0';
        expect_ok(rv_model_load(model_dir, &o, &m, &err), &err);
        expect_ok(rv_session_new(m, &so, &s, &err), &err);
        expect_ok(rv_generate(s, &r, &job, &err), &err);
        if (i == 0) snprintf(first, sizeof first, "%s", rv_job_text(job, NULL));
        else assert_string_equal(rv_job_text(job, NULL), first);
        rv_job_free(job);
        rv_session_free(s);
        rv_model_free(m);
        expect_said(i ? "read from the cache" : "written to the cache");
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_second_load_reads_the_same_memory, fresh),
        cmocka_unit_test_setup(what_is_planned_and_whether_padding_is_alike_do_not_depend_on_the_cache, fresh),
        cmocka_unit_test_setup(folders_on_the_way_are_made, fresh),
        cmocka_unit_test_setup(other_formats_and_modules_have_files_of_their_own, fresh),
        cmocka_unit_test_setup(sixteen_bit_weights_are_not_kept, fresh),
        cmocka_unit_test_setup(damaged_files_are_said_and_replaced, fresh),
        cmocka_unit_test_setup(files_of_the_wrong_length_are_said_and_replaced, fresh),
        cmocka_unit_test_setup(what_is_no_file_is_said_and_loading_goes_on, fresh),
        cmocka_unit_test_setup(a_model_that_changed_is_not_taken_for_the_old_one, fresh),
        cmocka_unit_test_setup(a_folder_that_cannot_be_made_is_a_warning, fresh),
        cmocka_unit_test_setup(the_reason_is_said_whatever_the_length_of_the_path, fresh),
        cmocka_unit_test_setup(a_full_disk_is_a_warning_and_leaves_nothing, fresh),
        cmocka_unit_test_setup(what_a_killed_process_left_is_removed, fresh),
        cmocka_unit_test_setup(what_another_writes_is_left_alone_and_links_are_not_followed, fresh),
        cmocka_unit_test_setup(models_of_one_folder_may_write_the_file_at_the_same_time, fresh),
        cmocka_unit_test_setup(answers_come_while_the_file_is_written, fresh),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
