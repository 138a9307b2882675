/* Which linear layers are quantised: presets, Hugging Face's skip lists, exceptions, and what is said about them. */
#include "tests/support/folder.h"

#include "engine/modules.h"
#include "engine/synth.h"

static rv_synth_model published;         /* the 11B model's config                               */

static int set_up(void **state) {
    rv_error err;
    rv_dtype type = RV_DTYPE_COUNT;
    (void)state;
    if (rv_synth_model_open("11b", &type, &published, &err)) fail_msg("%s", err.message);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    rv_synth_model_close(&published);
    return 0;
}

#define P RV_FORMAT_PLAIN
#define I RV_FORMAT_INT8
#define N RV_FORMAT_NF4

static void expect_format(const rv_modules *m, const char *name, rv_format asked, rv_format wanted) {
    rv_format is = rv_modules_format(m, name, asked);
    if (is != wanted) fail_msg("%s (skip %s, keep %s): %s, expected %s", name, m->skip ? m->skip : "-", m->keep ? m->keep : "-",
                               rv_format_name(is), rv_format_name(wanted));
}

/* ---- presets ---- */

static void presets_choose_the_modules_of_the_specification(void **state) {
    (void)state;
    static const struct { const char *name; rv_format intended, literal; } rows[] = {
        { "text.layers.0.self_attn.q_proj.weight", N, N }, { "text.layers.39.mlp.down_proj.weight", N, N },
        { "text.layers.3.cross_attn.k_proj.weight", N, N }, { "text.layers.38.cross_attn.o_proj.weight", N, N },
        { "lm_head.weight", P, N }, { "projector.weight", P, P }, { "projector.bias", P, P },
        { "vision.transformer.layers.0.self_attn.v_proj.weight", P, N }, { "vision.transformer.layers.0.mlp.fc1.weight", P, N },
        { "vision.transformer.layers.0.mlp.fc1.bias", P, P }, { "vision.global_transformer.layers.7.mlp.fc2.weight", P, N },
        { "text.embed_tokens.weight", P, P }, { "text.norm.weight", P, P }, { "text.layers.3.cross_attn.q_norm.weight", P, P },
        { "text.layers.0.input_layernorm.weight", P, P }, { "text.layers.3.cross_attn_attn_gate", P, P },
        { "vision.patch_embedding.weight", P, P }, { "vision.gated_positional_embedding.tile_embedding.weight", P, P },
        { "vision.class_embedding", P, P }, { "something.else", P, P }, { "weight", P, P }, { "", P, P },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        expect_format(&(rv_modules){ 0 }, rows[i].name, N, rows[i].intended);
        expect_format(&(rv_modules){ .preset = RV_MODULES_HF_LITERAL }, rows[i].name, N, rows[i].literal);
        expect_format(&(rv_modules){ 0 }, rows[i].name, P, P);
    }
}

typedef struct total { const rv_modules *m; uint32_t linear, quantised; } total;

static rv_status total_one(void *user, const rv_tensor_want *want, rv_error *err) {
    total *t = user;
    (void)err;
    t->linear += rv_modules_linear(want->name);
    t->quantised += rv_modules_format(t->m, want->name, I) != P;
    return RV_OK;
}

static void the_published_model_has_the_specification_s_number_of_linear_layers(void **state) {
    (void)state;
    const struct { rv_modules m; uint32_t quantised; } rows[] = {
        { { 0 }, 280 }, { { .preset = RV_MODULES_HF_LITERAL }, 280 + 240 + 1 }, { { .skip = "vision_tower,multi_modal_projector" }, 521 },
        { { .skip = "vision_model, multi_modal_projector ,lm_head" }, 280 }, { { .skip = "lm_head" }, 521 }, { { .skip = "nothing" }, 522 },
        { { .keep = "lm_head=int8" }, 281 }, { { .keep = "cross_attn=16bit" }, 280 - 32 } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        total t = { &rows[i].m, 0, 0 };
        assert_int_equal(rv_weights_each(&published.config, total_one, &t, NULL), RV_OK);
        assert_int_equal(t.linear, 522);
        assert_int_equal(t.quantised, rows[i].quantised);
    }
}

/* ---- lists ---- */

static void skip_lists_match_as_in_hugging_face(void **state) {
    (void)state;
    static const struct { const char *skip, *name; bool left_out; } rows[] = {
        { "lm_head", "lm_head.weight", true }, { "language_model.lm_head", "lm_head.weight", true }, { "head", "lm_head.weight", false },
        { "down_proj", "text.layers.0.mlp.down_proj.weight", true }, { "proj", "text.layers.0.mlp.down_proj.weight", false },
        { "mlp", "text.layers.0.mlp.down_proj.weight", true }, { "mlp", "vision.transformer.layers.0.mlp.fc1.weight", true },
        { "mlp.down_proj", "text.layers.0.mlp.down_proj.weight", false },            /* neither a leaf, nor all of it, nor before a dot */
        { "attn", "text.layers.0.self_attn.o_proj.weight", true },                   /* "attn." is inside       */
        { "layers.3", "text.layers.3.mlp.down_proj.weight", true }, { "layers.3", "text.layers.13.mlp.down_proj.weight", false },
        { "3", "text.layers.13.mlp.down_proj.weight", true },
        { "language_model.model.layers.3.mlp", "text.layers.3.mlp.down_proj.weight", true },
        { "model.language_model.layers.3.mlp", "text.layers.3.mlp.down_proj.weight", true },
        { "language_model.model.layers.3.mlp.down_proj", "text.layers.3.mlp.down_proj.weight", true },
        { "model.language_model.layers.3.mlp.down_proj", "text.layers.3.mlp.down_proj.weight", true },
        { "vision_model", "vision.transformer.layers.0.mlp.fc1.weight", true }, { "model.vision_model", "vision.transformer.layers.0.mlp.fc1.weight", true },
        { "vision_tower", "vision.transformer.layers.0.mlp.fc1.weight", false }, { "multi_modal_projector", "projector.weight", true },
        { "model.multi_modal_projector", "projector.weight", true }, { "projector", "projector.weight", false },
        { "vision_tower,lm_head,down_proj", "text.layers.0.mlp.down_proj.weight", true },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        expect_format(&(rv_modules){ .skip = rows[i].skip }, rows[i].name, I, rows[i].left_out ? P : I);
}

static void keep_lists_match_runs_of_whole_parts(void **state) {
    (void)state;
    static const struct { const char *keep, *name; rv_format is; } rows[] = {
        { "cross_attn=int8", "text.layers.3.cross_attn.k_proj.weight", I }, { "cross_attn=int8", "text.layers.0.self_attn.k_proj.weight", N },
        { "self_attn=16bit", "text.layers.0.self_attn.k_proj.weight", P }, { "attn=16bit", "text.layers.0.self_attn.k_proj.weight", N },
        { "lm_head=int8", "lm_head.weight", I }, { "lm_head=nf4", "lm_head.weight", N }, { "mlp=int8", "lm_head.weight", P },
        { "mlp.down_proj=16bit", "text.layers.5.mlp.down_proj.weight", P }, { "mlp.down_proj=16bit", "text.layers.5.mlp.up_proj.weight", N },
        { "layers.3.cross_attn=16bit", "text.layers.3.cross_attn.k_proj.weight", P }, { "layers.3.cross_attn=16bit", "text.layers.13.cross_attn.k_proj.weight", N },
        { "layers.3=int8", "vision.transformer.layers.3.mlp.fc1.weight", P }, { "layers.3=int8", "text.layers.3.mlp.up_proj.weight", I },
        { "language_model.model.layers.3=int8", "text.layers.3.mlp.up_proj.weight", I }, { "model.language_model.layers.3=int8", "text.layers.3.mlp.up_proj.weight", I },
        { "language_model.lm_head=int8", "lm_head.weight", I },
        { "mlp=16bit,layers.4=int8", "text.layers.4.mlp.up_proj.weight", I }, { "layers.4=int8, mlp=16bit", "text.layers.4.mlp.up_proj.weight", P },
        { "norm=int8", "text.norm.weight", P }, { "embed_tokens=int8", "text.embed_tokens.weight", P },
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) expect_format(&(rv_modules){ .keep = rows[i].keep }, rows[i].name, N, rows[i].is);
}

static void modules_of_one_weight_have_one_format(void **state) {
    (void)state;
    const rv_modules skip = { .skip = "k_proj" }, keep = { .keep = "gate_proj=int8" }, all = { .keep = "q_proj=int8,k_proj=int8,v_proj=int8" };
    expect_format(&skip, "text.layers.0.self_attn.q_proj.weight", N, P);
    expect_format(&skip, "text.layers.0.self_attn.v_proj.weight", N, P);
    expect_format(&skip, "text.layers.0.self_attn.o_proj.weight", N, N);
    expect_format(&skip, "text.layers.3.cross_attn.q_proj.weight", N, N);
    expect_format(&skip, "text.layers.3.cross_attn.v_proj.weight", N, P);
    expect_format(&skip, "vision.transformer.layers.0.self_attn.q_proj.weight", N, P);
    expect_format(&keep, "text.layers.0.mlp.up_proj.weight", N, P);
    expect_format(&all, "text.layers.0.self_attn.v_proj.weight", N, I);
}

/* Neighbours in the table with one destination, and no others, must be left out together. */
typedef struct stacked { size_t destination; char name[RV_NAME_BYTES]; uint32_t pairs; } stacked;

static rv_status stacked_one(void *user, const rv_tensor_want *want, rv_error *err) {
    stacked *s = user;
    (void)err;
    if (!rv_modules_linear(want->name)) return RV_OK;
    if (s->name[0]) {
        char full[RV_MODULE_BYTES];
        rv_modules_name(s->name, false, full);
        bool together = rv_modules_format(&(rv_modules){ .skip = full }, want->name, I) == P;
        if (together != (want->destination == s->destination)) fail_msg("%s and %s", s->name, want->name);
        s->pairs += together;
    }
    s->destination = want->destination;
    memcpy(s->name, want->name, sizeof s->name);
    return RV_OK;
}

static void stacks_are_those_of_the_table(void **state) {
    (void)state;
    stacked s = { 0 };
    rv_weights_each(&published.config, stacked_one, &s, NULL);
    assert_int_equal(s.pairs, 32 * 2 + 8 * 1 + 40 * 1 + 40 * 2);
}

/* ---- what is said ---- */

static char said[2048];
static void hear(void *user, const char *line) {
    (void)user;
    snprintf(said + strlen(said), sizeof said - strlen(said), "%s\n", line);
}

static void expect_said(rv_modules m, const char *part) {
    rv_error err = { 0 };
    said[0] = '\0';
    expect_ok(rv_modules_check(&m, &published.config, N, hear, NULL, &err), &err);
    if (part ? !strstr(said, part) : said[0] != '\0') fail_msg("said \"%s\", expected \"%s\"", said, part ? part : "");
}

static void names_that_match_nothing_are_said(void **state) {
    (void)state;
    expect_said((rv_modules){ 0 }, NULL);
    expect_said((rv_modules){ .preset = RV_MODULES_HF_LITERAL }, NULL);
    expect_said((rv_modules){ .skip = "vision_model,lm_head" }, NULL);
    expect_said((rv_modules){ .skip = "vision_tower,lm_head" }, "skip list: \"vision_tower\" matches no linear layer of this model: the vision tower is called vision_model");
    expect_said((rv_modules){ .skip = "lm_head, merger" }, "skip list: \"merger\" matches no linear layer");
    expect_said((rv_modules){ .skip = "embed_tokens" }, "\"embed_tokens\" matches no linear layer");
    expect_said((rv_modules){ .keep = "cross_attn=int8,lm_head=int8" }, NULL);
    expect_said((rv_modules){ .keep = "crossattn=int8" }, "keep list: \"crossattn\" matches no text layer");
    expect_said((rv_modules){ .keep = "vision_model=int8" }, "keep list: \"vision_model\" matches no text layer");
    expect_said((rv_modules){ .keep = "layers.40=int8" }, "\"layers.40\" matches no text layer");
    expect_said((rv_modules){ .keep = "self_attn.k_proj=nf4" }, NULL);       /* the format of the rest       */
}

static void lists_that_split_a_weight_are_said(void **state) {
    (void)state;
    expect_said((rv_modules){ .keep = "self_attn.k_proj=int8" }, "language_model.model.layers.0.self_attn.q_proj and its neighbours, which are one weight here, "
                "different formats: they stay 16 bit together (in 32 layers)");
    expect_said((rv_modules){ .keep = "layers.3.cross_attn.k_proj=int8" }, "language_model.model.layers.3.cross_attn.k_proj and its neighbours");
    expect_said((rv_modules){ .keep = "layers.3.cross_attn.k_proj=int8" }, "(in 1 layer)");
    expect_said((rv_modules){ .skip = "layers.7.mlp.up_proj,lm_head,language_model.model.layers.7.mlp.up_proj" }, "layers.7.mlp.gate_proj and its neighbours");
}

static void malformed_lists_are_errors(void **state) {
    (void)state;
    const struct { rv_modules m; const char *part; } rows[] = {
        { { .keep = "cross_attn" }, "\"cross_attn\" is not NAME=16bit, NAME=int8 or NAME=nf4" }, { { .keep = "a=int8,b=fp4" }, "\"b=fp4\"" },
        { { .keep = "=int8" }, "\"=int8\"" }, { { .keep = "a=int8,,b=int8" }, "\"\" is not NAME" }, { { .keep = "a=int88" }, "\"a=int88\"" },
        { { .skip = "a,,b" }, "skip list \"a,,b\": has an empty name" }, { { .skip = "," }, "empty name" },
        { { .preset = RV_MODULES_HF_LITERAL, .skip = "lm_head" }, "modules hf-literal: is a skip list already" }, { { .preset = 2 }, "must be from 0 to 1, is 2" },
        { { .preset = -1 }, "is -1" } };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        rv_error err = { 0 };
        expect_error(rv_modules_check(&rows[i].m, &published.config, N, NULL, NULL, &err), &err, RV_ERR_ARGUMENT, rows[i].part);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(presets_choose_the_modules_of_the_specification),
        cmocka_unit_test(the_published_model_has_the_specification_s_number_of_linear_layers),
        cmocka_unit_test(skip_lists_match_as_in_hugging_face),
        cmocka_unit_test(keep_lists_match_runs_of_whole_parts),
        cmocka_unit_test(modules_of_one_weight_have_one_format),
        cmocka_unit_test(stacks_are_those_of_the_table),
        cmocka_unit_test(names_that_match_nothing_are_said),
        cmocka_unit_test(lists_that_split_a_weight_are_said),
        cmocka_unit_test(malformed_lists_are_errors),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
