/* Weights that bitsandbytes has quantised: what is read, and everything about their companions that can be wrong. */
#include "tests/support/safetensors_file.h"

#include <math.h>

#include "loader/bnb.h"

enum { ROWS = 4, COLS = 8192, N = ROWS * COLS, BLOCKS = N / RV_BLOCK4, RUNS = (BLOCKS + RV_NESTED_BLOCK - 1) / RV_NESTED_BLOCK, MOST = 16 };
#define W "language_model.model.layers.0.mlp.up_proj.weight"
#define CANONICAL "text.layers.0.mlp.up_proj.weight"
#define STATE W ".quant_state.bitsandbytes__nf4"
#define NESTED_JSON "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [4, 8192], \"nested_blocksize\": 256, " \
                    "\"nested_dtype\": \"float32\", \"nested_offset\": 0.032750003039836884}"
#define PLAIN_JSON "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [4, 8192]}"

static uint8_t codes[N], nested[BLOCKS], row_order[1];
static float   absmax[BLOCKS], nested_absmax[RUNS], scb[ROWS], quant_map[16], nested_map[256];

static int set_up(void **state) {
    (void)state;
    for (int i = 0; i < N; i++) codes[i] = (uint8_t)(i * 37 + (i >> 8));
    for (int i = 0; i < BLOCKS; i++) nested[i] = (uint8_t)(i * 11), absmax[i] = 0.01f * (float)(i + 1);
    for (int i = 0; i < RUNS; i++) nested_absmax[i] = 0.25f * (float)(i + 1);
    for (int i = 0; i < ROWS; i++) scb[i] = 0.5f * (float)i;
    for (int i = 0; i < 16; i++) quant_map[i] = rv_nf4_map[i] * 0.5f;        /* not the usual table: the stored one counts */
    for (int i = 0; i < 256; i++) nested_map[i] = rv_nested_map[i] * 0.5f;
    return 0;
}

#define AS(array) (array), sizeof(array)
#define TEXT(text) (text), sizeof(text) - 1

/* A file's tensors: those of a right one, and what a test changes. */
typedef struct list { stored t[MOST]; size_t n; } list;

static list nested_file(void) {
    return (list){ { { W, "U8", "16384,1", codes, N / 2 }, { W ".absmax", "U8", "512", AS(nested) }, { W ".quant_map", "F32", "16", AS(quant_map) },
                     { W ".nested_absmax", "F32", "2", AS(nested_absmax) }, { W ".nested_quant_map", "F32", "256", AS(nested_map) },
                     { STATE, "U8", "", TEXT(NESTED_JSON) } }, 6 };
}

static list plain_file(void) {
    return (list){ { { W, "U8", "16384,1", codes, N / 2 }, { W ".absmax", "F32", "512", AS(absmax) }, { W ".quant_map", "F32", "16", AS(quant_map) },
                     { STATE, "U8", "", TEXT(PLAIN_JSON) } }, 4 };
}

#define M "language_model.model.layers.0.mlp.up_proj"
static list int8_file(void) {
    return (list){ { { W, "I8", "4,8192", codes, N }, { M ".SCB", "F32", "4", AS(scb) }, { M ".weight_format", "U8", "", AS(row_order) } }, 3 };
}

/* Replaces the tensor of that name, or adds it. */
static void put(list *l, stored t) {
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->t[i].name, t.name)) {
            l->t[i] = t;
            return;
        }
    assert_true(l->n < MOST);
    l->t[l->n++] = t;
}

static void drop(list *l, const char *name) {
    for (size_t i = 0; i < l->n; i++)
        if (!strcmp(l->t[i].name, name)) {
            l->t[i] = l->t[--l->n];
            return;
        }
    fail_msg("no %s", name);
}

/* The one-dimensional shapes here are derived: the JSON text's length is its own. */
static rv_checkpoint *open_list(const list *l) {
    char folder[1024], path[2048], shapes[MOST][24];
    rv_error err = { 0 };
    rv_checkpoint *c = NULL;
    list full = *l;
    for (size_t i = 0; i < full.n; i++)
        if (!*full.t[i].shape && full.t[i].bytes != 1) {
            snprintf(shapes[i], sizeof shapes[i], "%zu", full.t[i].bytes);
            full.t[i].shape = shapes[i];
        }
    folder_new(folder, "bnb");
    safetensors_write(folder, "model.safetensors", full.t, full.n);
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    expect_ok(rv_checkpoint_open(path, &c, &err), &err);
    return c;
}

static const rv_tensor *weight_of(const rv_checkpoint *c) {
    const rv_tensor *t = rv_checkpoint_find(c, CANONICAL);
    assert_non_null(t);
    return t;
}

static void list_fails(const list *l, rv_status code, const char *part) {
    rv_error err = { 0 };
    rv_codes q;
    rv_checkpoint *c = open_list(l);
    expect_error(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err, code, part);
    rv_checkpoint_close(c);
}

/* ---- what is read ---- */

static void a_nested_weight_is_read_with_its_own_tables(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_codes q;
    float w[128];
    list l = nested_file();
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    expect_ok(rv_checkpoint_check_scales(weight_of(c), &q, ROWS, COLS, &err), &err);
    assert_int_equal(q.format, RV_FORMAT_NF4);
    assert_true(q.offset == 0.032750003f && q.scale == NULL);
    rv_codes_read(w, &q, COLS, 300 * RV_BLOCK4, 128);
    for (int i = 0; i < 128; i++) {
        int at = 300 * RV_BLOCK4 + i, block = at / RV_BLOCK4;
        float scale = nested_map[nested[block]] * nested_absmax[1];
        scale = scale + 0.032750003f;
        assert_true(w[i] == quant_map[at % 2 ? codes[at / 2] & 15 : codes[at / 2] >> 4] * scale);
    }
    rv_checkpoint_close(c);
}

static void a_weight_with_plain_scales_is_read(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_codes q;
    float w[2];
    list l = plain_file();
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    expect_ok(rv_checkpoint_check_scales(weight_of(c), &q, ROWS, COLS, &err), &err);
    assert_null(q.nested);
    rv_codes_read(w, &q, COLS, 64 * 511, 2);
    assert_true(w[0] == quant_map[codes[32 * 511] >> 4] * absmax[511] && w[1] == quant_map[codes[32 * 511] & 15] * absmax[511]);
    rv_checkpoint_close(c);
}

static void codes_may_be_stored_under_any_type(void **state) {
    (void)state;
    static const struct { const char *type, *shape; } types[] = { { "BF16", "8192,1" }, { "F32", "4096,1" }, { "F16", "8192,1" }, { "I8", "16384,1" } };
    for (size_t i = 0; i < sizeof types / sizeof *types; i++) {
        rv_error err = { 0 };
        rv_codes q;
        list l = nested_file();
        put(&l, (stored){ W, types[i].type, types[i].shape, codes, N / 2 });
        rv_checkpoint *c = open_list(&l);
        expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
        assert_int_equal(q.format, RV_FORMAT_NF4);
        assert_memory_equal(q.codes, codes, N / 2);
        assert_int_equal(rv_checkpoint_format(c, weight_of(c)), RV_FORMAT_NF4);
        rv_checkpoint_close(c);
    }
}

static void fp4_is_read_by_its_own_map(void **state) {
    (void)state;
    static const char json[] = "{\"quant_type\": \"fp4\", \"blocksize\": 64, \"dtype\": \"float32\", \"shape\": [4, 8192]}";
    rv_error err = { 0 };
    rv_codes q;
    list l = plain_file();
    drop(&l, STATE);
    put(&l, (stored){ W ".quant_state.bitsandbytes__fp4", "U8", "", TEXT(json) });
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    assert_int_equal(q.format, RV_FORMAT_FP4);
    rv_checkpoint_close(c);
}

static void an_int8_weight_is_read_with_and_without_weight_format(void **state) {
    (void)state;
    for (int with = 0; with < 2; with++) {
        rv_error err = { 0 };
        rv_codes q;
        float w;
        list l = int8_file();
        if (!with) drop(&l, M ".weight_format");
        rv_checkpoint *c = open_list(&l);
        expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
        expect_ok(rv_checkpoint_check_scales(weight_of(c), &q, ROWS, COLS, &err), &err);
        assert_int_equal(q.format, RV_FORMAT_INT8);
        assert_int_equal(rv_checkpoint_format(c, weight_of(c)), RV_FORMAT_INT8);
        rv_codes_read(&w, &q, COLS, 3 * COLS + 5, 1);
        float scaled = (float)(int8_t)codes[3 * COLS + 5] * 1.5f;
        assert_true(w == scaled * RV_INT8_ONE);
        rv_checkpoint_close(c);
    }
}

static void a_weight_without_companions_is_plain(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_codes q;
    list l = { { { W, "BF16", "4,2048", codes, N / 2 } }, 1 };
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, 2048, &q, &err), &err);
    assert_int_equal(q.format, RV_FORMAT_PLAIN);
    assert_int_equal(rv_checkpoint_format(c, weight_of(c)), RV_FORMAT_PLAIN);
    rv_checkpoint_close(c);
}

/* ---- the JSON ---- */

static void quant_state_json_that_is_damaged_or_not_ours_is_an_error(void **state) {
    (void)state;
#define HEAD "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [4, 8192]"
#define NEST(size, dtype, offset) HEAD ", \"nested_blocksize\": " size ", \"nested_dtype\": " dtype ", \"nested_offset\": " offset "}"
    static const struct { const char *json; rv_status code; const char *part; } rows[] = {
        { "", RV_ERR_FORMAT, "quant_state.bitsandbytes__nf4: JSON: not valid" }, { HEAD, RV_ERR_FORMAT, "JSON: not valid" },
        { "{\"quant_type\": \"nf4\" \"blocksize\": 64}", RV_ERR_FORMAT, "JSON: not valid" }, { PLAIN_JSON "x", RV_ERR_FORMAT, "JSON: not valid" },
        { "\xff\xfe", RV_ERR_FORMAT, "JSON: not valid" }, { "[1]", RV_ERR_FORMAT, "JSON: must be an object" },
        { "{\"quant_type\": \"nf4\", \"quant_type\": \"nf4\"}", RV_ERR_FORMAT, "JSON: not valid: duplicate" },
        { "{}", RV_ERR_FORMAT, "quant_type: must be a text" }, { "{\"quant_type\": \"fp4\"}", RV_ERR_UNSUPPORTED, "quant_type: \"fp4\" is not read; \"nf4\" is" },
        { "{\"quant_type\": \"nf4\"}", RV_ERR_FORMAT, "blocksize: must be a whole number" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": \"64\"}", RV_ERR_FORMAT, "blocksize: must be a whole number" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 128}", RV_ERR_UNSUPPORTED, "blocksize: is 128; only 64 is read" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64}", RV_ERR_FORMAT, "dtype: must be a text" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"int32\"}", RV_ERR_UNSUPPORTED, "dtype: \"int32\" is not read" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\"}", RV_ERR_FORMAT, "shape: must be a list of two" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [4, 8192, 1]}", RV_ERR_FORMAT, "shape: must be a list of two" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [4, 8192.0]}", RV_ERR_FORMAT, "shape: must be a list of two" },
        { "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [8192, 4]}", RV_ERR_FORMAT,
          "shape: is [8192, 4], config.json asks for [4, 8192]" },
        { NEST("128", "\"float32\"", "0.5"), RV_ERR_UNSUPPORTED, "nested_blocksize: is 128; only 256 is read" },
        { NEST("256", "\"float16\"", "0.5"), RV_ERR_UNSUPPORTED, "nested_dtype: \"float16\" is not read; \"float32\" is" },
        { NEST("256", "\"float32\"", "\"0.5\""), RV_ERR_FORMAT, "nested_offset: must be a number" },
        { NEST("256", "\"float32\"", "1e300"), RV_ERR_FORMAT, "nested_offset: is not a finite f32" },
        { NEST("256", "\"float32\"", "NaN"), RV_ERR_FORMAT, "JSON: not valid" },
        { HEAD ", \"nested_blocksize\": 256, \"nested_dtype\": \"float32\"}", RV_ERR_FORMAT, "nested_offset: must be a number" },
        { HEAD ", \"nested_offset\": 0.5}", RV_ERR_FORMAT, "nested_blocksize: must be a whole number" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        list l = nested_file();
        put(&l, (stored){ STATE, "U8", strlen(rows[i].json) == 0 ? "0" : "", rows[i].json, strlen(rows[i].json) });
        list_fails(&l, rows[i].code, rows[i].part);
    }
}

static void a_quant_state_of_absurd_length_or_type_is_an_error(void **state) {
    (void)state;
    list l = nested_file();
    put(&l, (stored){ STATE, "U8", "8192", codes, 8192 });
    list_fails(&l, RV_ERR_FORMAT, "JSON: is longer than any quant_state");
    l = nested_file();
    put(&l, (stored){ STATE, "I8", "", TEXT(NESTED_JSON) });
    list_fails(&l, RV_ERR_FORMAT, "type: must be U8");
}

/* ---- companions ---- */

static void missing_companions_are_named(void **state) {
    (void)state;
    static const char *const needed[] = { ".absmax", ".quant_map", ".nested_absmax", ".nested_quant_map" };
    for (size_t i = 0; i < sizeof needed / sizeof *needed; i++) {
        char name[256];
        list l = nested_file();
        snprintf(name, sizeof name, W "%s", needed[i]);
        drop(&l, name);
        list_fails(&l, RV_ERR_FORMAT, needed[i]);
        list_fails(&l, RV_ERR_FORMAT, "missing: the weight is quantised and cannot be read without it");
    }
    list l = nested_file();
    drop(&l, STATE);
    list_fails(&l, RV_ERR_FORMAT, STATE ": missing: the weight is quantised");
    put(&l, (stored){ W, "BF16", "8192,1", codes, N / 2 });
    list_fails(&l, RV_ERR_FORMAT, STATE ": missing: the weight is quantised");
    l = int8_file();
    drop(&l, M ".SCB");
    list_fails(&l, RV_ERR_FORMAT, "is I8 but has no SCB");
}

static void companions_of_the_wrong_length_or_type_are_errors(void **state) {
    (void)state;
    const struct { list file; stored t; const char *part; } rows[] = {
        { nested_file(), { W ".absmax", "U8", "511", nested, 511 }, ".absmax: has 511 elements, its weight needs 512" },
        { nested_file(), { W ".absmax", "F32", "512", AS(absmax) }, ".absmax: is F32, must be U8 (the quant_state has a nested_blocksize)" },
        { plain_file(), { W ".absmax", "U8", "512", AS(nested) }, ".absmax: is U8, must be F32 (the quant_state has no nested_blocksize)" },
        { plain_file(), { W ".absmax", "F32", "128", absmax, 512 }, ".absmax: has 128 elements, its weight needs 512" },
        { nested_file(), { W ".nested_absmax", "F32", "1", nested_absmax, 4 }, ".nested_absmax: has 1 elements, its weight needs 2" },
        { nested_file(), { W ".nested_absmax", "F16", "2", nested_absmax, 4 }, ".nested_absmax: is F16, must be F32" },
        { nested_file(), { W ".nested_quant_map", "F32", "16", quant_map, 64 }, ".nested_quant_map: has 16 elements" },
        { nested_file(), { W ".quant_map", "F32", "256", AS(nested_map) }, ".quant_map: has 256 elements, its weight needs 16" },
        { nested_file(), { W, "U8", "16383,1", codes, N / 2 - 1 }, "has 16383 bytes of codes, [4, 8192] needs 16384" },
        { int8_file(), { M ".SCB", "F32", "3", scb, 12 }, ".SCB: has 3 elements, its weight needs 4" },
        { int8_file(), { M ".SCB", "F16", "4", scb, 8 }, ".SCB: is F16, must be F32" },
        { int8_file(), { M ".weight_format", "U8", "2", codes, 2 }, ".weight_format: has 2 elements" },
        { int8_file(), { M ".weight_format", "I64", "1", codes, 8 }, ".weight_format: is I64, must be U8" },
        { int8_file(), { W, "I8", "8192,4", codes, N }, "int8 codes of 2 dimensions, 32768 in all; config.json asks for [4, 8192]" },
        { int8_file(), { W, "I8", "32768,1", codes, N }, "config.json asks for [4, 8192]" },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        list l = rows[i].file;
        put(&l, rows[i].t);
        list_fails(&l, RV_ERR_FORMAT, rows[i].part);
    }
}

static void int8_codes_in_a_gpu_s_own_order_are_unsupported(void **state) {
    (void)state;
    static const uint8_t turing[] = { 2 };
    list l = int8_file();
    put(&l, (stored){ M ".weight_format", "U8", "", AS(turing) });
    list_fails(&l, RV_ERR_UNSUPPORTED, ".weight_format: is 2, codes in an order of older GPUs' own; only 0 (row by row)");
}

static void two_quant_states_are_an_error(void **state) {
    (void)state;
    list l = nested_file();
    put(&l, (stored){ W ".quant_state.bitsandbytes__fp4", "U8", "", TEXT(NESTED_JSON) });
    list_fails(&l, RV_ERR_FORMAT, "has two quant_states, nf4 and fp4");
}

static void a_size_that_is_no_multiple_of_the_block_is_unsupported(void **state) {
    (void)state;
    static const char json[] = "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"float16\", \"shape\": [3, 40]}";
    rv_error err = { 0 };
    rv_codes q;
    list l = plain_file();
    put(&l, (stored){ W, "U8", "60,1", codes, 60 });
    put(&l, (stored){ STATE, "U8", "", TEXT(json) });
    rv_checkpoint *c = open_list(&l);
    expect_error(rv_checkpoint_codes(c, weight_of(c), 3, 40, &q, &err), &err, RV_ERR_UNSUPPORTED, "120 weights are no multiple of the block of 64");
    rv_checkpoint_close(c);
}

/* ---- values ---- */

static void maps_that_are_not_finite_are_errors(void **state) {
    (void)state;
    float broken[16], broken256[256];
    memcpy(broken, quant_map, sizeof broken);
    memcpy(broken256, nested_map, sizeof broken256);
    broken[7] = NAN;
    broken256[255] = INFINITY;
    list l = nested_file();
    put(&l, (stored){ W ".quant_map", "F32", "16", AS(broken) });
    list_fails(&l, RV_ERR_FORMAT, ".quant_map: entry 7 is not a finite number");
    l = nested_file();
    put(&l, (stored){ W ".nested_quant_map", "F32", "256", AS(broken256) });
    list_fails(&l, RV_ERR_FORMAT, ".nested_quant_map: entry 255 is not a finite number");
}

static void scales_fail(list l, const char *part) {
    rv_error err = { 0 };
    rv_codes q;
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    expect_error(rv_checkpoint_check_scales(weight_of(c), &q, ROWS, COLS, &err), &err, RV_ERR_FORMAT, part);
    rv_checkpoint_close(c);
}

static void scales_that_are_not_finite_or_negative_are_errors(void **state) {
    (void)state;
    const float wrong[] = { NAN, INFINITY, -INFINITY, -0.5f };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        float s[ROWS], a[BLOCKS], n[RUNS];
        memcpy(s, scb, sizeof s);
        memcpy(a, absmax, sizeof a);
        memcpy(n, nested_absmax, sizeof n);
        s[3] = a[511] = n[1] = wrong[i];
        list l = int8_file();
        put(&l, (stored){ M ".SCB", "F32", "4", AS(s) });
        scales_fail(l, "scale 3 (SCB) is ");
        l = plain_file();
        put(&l, (stored){ W ".absmax", "F32", "512", AS(a) });
        scales_fail(l, "scale 511 (absmax) is ");
        l = nested_file();
        put(&l, (stored){ W ".nested_absmax", "F32", "2", AS(n) });
        scales_fail(l, "scale 1 (nested_absmax) is ");
    }
}

static void scales_pass(list l) {
    rv_error err = { 0 };
    rv_codes q;
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    expect_ok(rv_checkpoint_check_scales(weight_of(c), &q, ROWS, COLS, &err), &err);
    rv_checkpoint_close(c);
}

/* bitsandbytes takes a row's absmax in f16. */
static void an_scb_beyond_f16_is_an_error(void **state) {
    (void)state;
    float s[ROWS] = { 0, -0.f, 65504.f, 1 };
    list l = int8_file();
    put(&l, (stored){ M ".SCB", "F32", "4", AS(s) });
    scales_pass(l);
    s[2] = 65505.f;
    scales_fail(l, "up_proj.weight: scale 2 (SCB) is 65505, must be a number from 0 to 65504");
    s[2] = 3e38f;
    scales_fail(l, "scale 2 (SCB) is 3e+38");
}

static void absmaxes_that_make_infinite_weights_are_errors(void **state) {
    (void)state;
    float a[BLOCKS], map[16];
    memcpy(a, absmax, sizeof a);
    memcpy(map, quant_map, sizeof map);
    list l = plain_file();
    put(&l, (stored){ W ".absmax", "F32", "512", AS(a) });
    put(&l, (stored){ W ".quant_map", "F32", "16", AS(map) });
    a[7] = 3.38e38f;                                     /* half of it: finite                   */
    scales_pass(l);
    a[7] = 3.4e38f;                                      /* itself infinite in bf16              */
    scales_fail(l, "scale 7 (absmax) is 3.4e+38, must be a number from 0 to 3.38953e+38: damaged? copy or download the model again");
    a[7] = 1e38f, map[0] = -3.f;
    scales_pass(l);
    map[0] = -4.f;
    scales_fail(l, "scale 7 (absmax) is 1e+38");
}

static void nested_absmaxes_that_make_infinite_weights_are_errors(void **state) {
    (void)state;
    static const char far[] = "{\"quant_type\": \"nf4\", \"blocksize\": 64, \"dtype\": \"bfloat16\", \"shape\": [4, 8192], \"nested_blocksize\": 256, "
                              "\"nested_dtype\": \"float32\", \"nested_offset\": -2e38}";
    float n[RUNS] = { 1, 3e38f }, map[256];
    memcpy(map, nested_map, sizeof map);
    list l = nested_file();
    put(&l, (stored){ W ".nested_absmax", "F32", "2", AS(n) });
    put(&l, (stored){ W ".nested_quant_map", "F32", "256", AS(map) });
    scales_pass(l);
    map[0] = -1.2f;
    scales_fail(l, "scale 1 (nested_absmax) is 3e+38");
    map[0] = nested_map[0];
    put(&l, (stored){ STATE, "U8", "", TEXT(far) });
    scales_fail(l, "scale 1 (nested_absmax) is 3e+38");
    n[1] = 2e38f;
    scales_pass(l);
    float wide[16];
    memcpy(wide, quant_map, sizeof wide);
    wide[15] = 2;
    put(&l, (stored){ W ".quant_map", "F32", "16", AS(wide) });
    scales_fail(l, "nested_offset is -2e+38, must be a number from -1.69");
}

/* Small absmaxes are rounded to one of few codes and may come out below 0: bitsandbytes' files have such. */
static void nested_absmaxes_a_little_below_zero_are_read(void **state) {
    (void)state;
    rv_error err = { 0 };
    rv_codes q;
    float n[RUNS] = { 0.25f, 0.25f };
    list l = nested_file();
    put(&l, (stored){ W ".nested_absmax", "F32", "2", AS(n) });
    scales_pass(l);
    rv_checkpoint *c = open_list(&l);
    expect_ok(rv_checkpoint_codes(c, weight_of(c), ROWS, COLS, &q, &err), &err);
    assert_true(rv_codes_absmax(&q, 0) < 0);
    rv_checkpoint_close(c);
}

/* ---- who belongs to whom ---- */

/* The companion's weight: "none" where it has none, NULL where it is no companion. */
static void expect_owner(const list *l, const char *canonical, const char *owner) {
    const rv_tensor *weight = NULL;
    rv_checkpoint *c = open_list(l);
    const rv_tensor *t = rv_checkpoint_find(c, canonical);
    assert_non_null(t);
    bool is = rv_checkpoint_companion(c, t, &weight);
    if (is != (owner != NULL)) fail_msg("%s: %d", canonical, is);
    if (owner && strcmp(weight ? weight->name : "none", owner)) fail_msg("%s: of %s", canonical, weight ? weight->name : "none");
    rv_checkpoint_close(c);
}

static void companions_know_their_weight_and_strays_have_none(void **state) {
    (void)state;
    list l = nested_file();
    expect_owner(&l, CANONICAL, NULL);
    expect_owner(&l, CANONICAL ".absmax", CANONICAL);
    expect_owner(&l, CANONICAL ".nested_absmax", CANONICAL);
    expect_owner(&l, CANONICAL ".nested_quant_map", CANONICAL);
    expect_owner(&l, CANONICAL ".quant_state.bitsandbytes__nf4", CANONICAL);
    put(&l, (stored){ M ".SCB", "F32", "4", AS(scb) });
    expect_owner(&l, "text.layers.0.mlp.up_proj.SCB", "none");               /* of a 4-bit weight        */
    l = int8_file();
    expect_owner(&l, "text.layers.0.mlp.up_proj.SCB", CANONICAL);
    expect_owner(&l, "text.layers.0.mlp.up_proj.weight_format", CANONICAL);
    put(&l, (stored){ W ".absmax", "U8", "512", AS(nested) });
    expect_owner(&l, CANONICAL ".absmax", "none");
    l = plain_file();
    put(&l, (stored){ W ".nested_absmax", "F32", "2", AS(nested_absmax) });
    expect_owner(&l, CANONICAL ".nested_absmax", "none");                    /* absmax is plain          */
    drop(&l, W);
    expect_owner(&l, CANONICAL ".quant_map", "none");
    expect_owner(&l, CANONICAL ".quant_state.bitsandbytes__nf4", "none");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_nested_weight_is_read_with_its_own_tables),
        cmocka_unit_test(a_weight_with_plain_scales_is_read),
        cmocka_unit_test(codes_may_be_stored_under_any_type),
        cmocka_unit_test(fp4_is_read_by_its_own_map),
        cmocka_unit_test(an_int8_weight_is_read_with_and_without_weight_format),
        cmocka_unit_test(a_weight_without_companions_is_plain),
        cmocka_unit_test(quant_state_json_that_is_damaged_or_not_ours_is_an_error),
        cmocka_unit_test(a_quant_state_of_absurd_length_or_type_is_an_error),
        cmocka_unit_test(missing_companions_are_named),
        cmocka_unit_test(companions_of_the_wrong_length_or_type_are_errors),
        cmocka_unit_test(int8_codes_in_a_gpu_s_own_order_are_unsupported),
        cmocka_unit_test(two_quant_states_are_an_error),
        cmocka_unit_test(a_size_that_is_no_multiple_of_the_block_is_unsupported),
        cmocka_unit_test(maps_that_are_not_finite_are_errors),
        cmocka_unit_test(scales_that_are_not_finite_or_negative_are_errors),
        cmocka_unit_test(an_scb_beyond_f16_is_an_error),
        cmocka_unit_test(absmaxes_that_make_infinite_weights_are_errors),
        cmocka_unit_test(nested_absmaxes_that_make_infinite_weights_are_errors),
        cmocka_unit_test(nested_absmaxes_a_little_below_zero_are_read),
        cmocka_unit_test(companions_know_their_weight_and_strays_have_none),
    };
    return cmocka_run_group_tests(tests, set_up, NULL);
}
