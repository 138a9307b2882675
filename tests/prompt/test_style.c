/* Which template a model folder has, and what is no template that we render. */
#include "tests/prompt/talk.h"

/* What the published templates have in common, as far as they are told apart by it. */
#define PUBLISHED "{{- bos_token }}{#- .. #}{{- '<|start_header_id|>system<|end_header_id|>' }}<|eot_id|><|image|>" \
                  "Cutting Knowledge Date: December 2023 Today Date: {%- if add_generation_prompt %}"
#define ONLY_A "Prompting with images is incompatible with system messages."
#define ONLY_B "{%- set user_supplied_system_message = true %}"

static rv_prompt_style load(const char *file, const char *text) {
    char folder[1024];
    rv_prompt_style style;
    rv_error err = { 0 };
    folder_new(folder, "style");
    if (file) folder_write_text(folder, file, text);
    expect_ok(rv_prompt_style_load(folder, NULL, &style, &err), &err);
    return style;
}

static void expect_style(rv_prompt_style style, rv_prompt_form form, rv_template revision, bool block,
                         const char *reason) {
    if (style.form != form || style.revision != revision || style.system_block != block || !strstr(style.reason,
                                                                                                   reason))
        fail_msg("form %d revision %d block %d: %s", (int)style.form, (int)style.revision, style.system_block,
                 style.reason);
}

static void a_folder_without_template_is_plain(void **state) {
    (void)state;
    expect_style(load(NULL, NULL), RV_FORM_PLAIN, RV_TEMPLATE_B, false, "no chat template");
    expect_style(load("tokenizer_config.json", "{\"bos_token\": \"x\"}"), RV_FORM_PLAIN, RV_TEMPLATE_B, false,
                 "no chat template");
    expect_style(load("tokenizer_config.json", "{\"chat_template\": null}"), RV_FORM_PLAIN, RV_TEMPLATE_B, false,
                 "no chat");
}

static void the_published_revisions_are_told_apart(void **state) {
    (void)state;
    expect_style(load("chat_template.json", "{\"chat_template\": \"" PUBLISHED ONLY_A "\"}"), RV_FORM_CHAT,
                 RV_TEMPLATE_A, true,
                 "chat_template.json: Llama 3.2's template, revision A");
    expect_style(load("chat_template.json", "{\"chat_template\": \"" PUBLISHED ONLY_B "\"}"), RV_FORM_CHAT,
                 RV_TEMPLATE_B, true,
                 "revision B");
    expect_style(load("chat_template.jinja", PUBLISHED ONLY_A), RV_FORM_CHAT, RV_TEMPLATE_A, true,
                 "chat_template.jinja");
    expect_style(load("chat_template.jinja", PUBLISHED ONLY_A ONLY_B), RV_FORM_CHAT, RV_TEMPLATE_B, true, "revision B");
    expect_style(load("chat_template.jinja", PUBLISHED), RV_FORM_CHAT, RV_TEMPLATE_B, true, "revision B");
    expect_style(load("tokenizer_config.json", "{\"chat_template\": \"" PUBLISHED "\"}"), RV_FORM_CHAT, RV_TEMPLATE_B,
                 true,
                 "tokenizer_config.json");
    expect_style(load("tokenizer_config.json", "{\"chat_template\": [{\"name\": \"old\", \"template\": \"x\"}, "
                 "{\"template\": \"" PUBLISHED ONLY_A "\", \"name\": \"default\"}, "
                 "{\"name\": \"rag\", \"template\": \"y\"}]}"),
                 RV_FORM_CHAT, RV_TEMPLATE_A, true, "A");
}

static void the_processors_template_wins(void **state) {
    (void)state;
    char folder[1024];
    rv_prompt_style style;
    rv_error err = { 0 };
    folder_new(folder, "both");
    folder_write_text(folder, "tokenizer_config.json", "{\"chat_template\": \"" PUBLISHED ONLY_A "\"}");
    folder_write_text(folder, "chat_template.jinja", PUBLISHED ONLY_B);
    expect_ok(rv_prompt_style_load(folder, NULL, &style, &err), &err);
    expect_style(style, RV_FORM_CHAT, RV_TEMPLATE_B, true, "chat_template.jinja");
    folder_write_text(folder, "chat_template.json", "{\"chat_template\": \"" PUBLISHED ONLY_A "\"}");
    expect_ok(rv_prompt_style_load(folder, NULL, &style, &err), &err);
    expect_style(style, RV_FORM_CHAT, RV_TEMPLATE_A, true, "chat_template.json");
}

/* The demo model's template, spaced and quoted otherwise. */
#define LOOSE \
    "{{ bos_token }}\n{%- for message in messages -%}\n" \
    "  {{- \"<|start_header_id|>\" + message[\"role\"] + '<|end_header_id|>\\n\\n' -}}\n" \
    "{%- if message['content'] is string -%}{{ message['content'] }}\n{%- else %}\n" \
    "{%- for part in message['content'] %}" \
    "{%- if part['type'] == 'image' %}{{- '<|image|>' }}{%- elif part['type'] == 'text' %}{{- part['text'] }}" \
    "{%- endif %}{%- endfor %}{%- endif %}{{- '<|eot_id|>' }}{%- endfor %}{%- if add_generation_prompt %}" \
    "{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{%- endif %}\n"

static void the_demo_models_template_has_no_system_block(void **state) {
    (void)state;
    rv_prompt_style style;
    rv_error err = { 0 };
    rv_tokenizer *t = open_demo_tokenizer();
    expect_ok(rv_prompt_style_load(DEMO_MODEL, t, &style, &err), &err);
    expect_style(style, RV_FORM_CHAT, RV_TEMPLATE_B, false, "tokenizer_config.json: a template without system block");
    rv_tokenizer_free(t);
    expect_style(load("chat_template.jinja", LOOSE), RV_FORM_CHAT, RV_TEMPLATE_B, false, "without system block");
}

/* What transformers' own converter leaves: BOS inside the loop, other names. */
static void the_converters_template_has_no_system_block(void **state) {
    (void)state;
    expect_style(load("chat_template.json", "{\"chat_template\": \"{% for message in messages %}{% if loop.index0 == 0 %}{{ bos_token }}{% endif %}"
                      "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}{% if message['content'] is string %}{{ message['content'] }}{% else %}"
                      "{% for content in message['content'] %}{% if content['type'] == 'image' %}{{ '<|image|>' }}{% elif content['type'] == 'text' %}{{ content['text'] }}"
                      "{% endif %}{% endfor %}{% endif %}{{ '<|eot_id|>' }}{% endfor %}{% if add_generation_prompt %}"
                      "{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}\"}"), RV_FORM_CHAT, RV_TEMPLATE_B, false, "without system block");
    expect_style(load("chat_template.jinja", "{% for message in messages %}{% if loop.index0 == 1 %}{{ bos_token }}{% endif %}"), RV_FORM_UNKNOWN, RV_TEMPLATE_B, false, "not Llama 3.2's");
}

/* Each of these renders something else than the template it resembles. */
static void another_template_is_not_taken_for_one_that_is_known(void **state) {
    (void)state;
    static const struct { const char *from, *to; } changes[] = {
        { "message['content'] }}", "message['content'] | trim }}" }, { "<|eot_id|>", "<|end|>" },
        { "{%- if add_gen", "\nHello{%- if add_gen" }, { "{{- '<|eot_id|>' }}", "" }, { "bos_token", "eos_token" },
        { "'<|image|>'", "'<|image|> '" }, { "-%}\n  {{-", "%}\n  {{" } };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        char text[2048];
        const char *at = strstr(LOOSE, changes[i].from);
        assert_non_null(at);
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - LOOSE), LOOSE, changes[i].to, at + strlen(changes[i].from));
        expect_style(load("chat_template.jinja", text), RV_FORM_UNKNOWN, RV_TEMPLATE_B, false, "not Llama 3.2's");
    }
    expect_style(load("chat_template.jinja", "{{ messages[0].content }}"), RV_FORM_UNKNOWN, RV_TEMPLATE_B, false,
                 "<|start_header_id|>");
    expect_style(load("chat_template.jinja", ""), RV_FORM_UNKNOWN, RV_TEMPLATE_B, false, "not Llama 3.2's");
}

static void a_damaged_file_is_an_error(void **state) {
    (void)state;
    static const char *const texts[] = { "", "[]", "{\"chat_template\": 3}", "{\"chat_template\": \"x\"",
                                         "{\"chat_template\": [3]}",
                                         "{\"chat_template\": [{\"name\": 1}]}", "{} x" };
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        char folder[1024];
        rv_prompt_style style;
        rv_error err = { 0 };
        folder_write_text(folder_new(folder, "style"), "chat_template.json", texts[i]);
        expect_error(rv_prompt_style_load(folder, NULL, &style, &err), &err, RV_ERR_FORMAT, "chat_template.json");
    }
}

static void a_tokenizer_without_the_markers_is_the_wrong_one(void **state) {
    (void)state;
    char folder[1024], *text;
    size_t bytes;
    rv_error err = { 0 };
    rv_tokenizer *t = NULL;
    rv_prompt_style style;
    expect_ok(rv_file_read(DEMO_MODEL "/tokenizer.json", 1 << 24, &text, &bytes, &err), &err);
    char *at = strstr(text, "<|start_header_id|>");
    assert_non_null(at);
    memcpy(at, "<|start_header_no|>", 19);
    folder_write(folder_new(folder, "markers"), "tokenizer.json", text, bytes);
    free(text);
    expect_ok(rv_tokenizer_open(folder, &t, &err), &err);
    folder_write_text(folder, "chat_template.jinja", PUBLISHED);
    expect_error(rv_prompt_style_load(folder, t, &style, &err), &err, RV_ERR_FORMAT,
                 "wrong tokenizer: it has no <|start_header_id|>");

    const rv_prompt_style chat = chat_style(RV_TEMPLATE_B);
    const rv_config config = demo_config();
    const rv_request r = { .size = sizeof r, .prompt = "Hi" };
    rv_ids ids = { 0 };
    expect_error(rv_prompt_ids(&chat, t, &config, &r, &ids, &err), &err, RV_ERR_FORMAT, "wrong tokenizer");
    rv_ids_free(&ids);
    rv_tokenizer_free(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_folder_without_template_is_plain),
        cmocka_unit_test(the_published_revisions_are_told_apart),
        cmocka_unit_test(the_processors_template_wins),
        cmocka_unit_test(the_demo_models_template_has_no_system_block),
        cmocka_unit_test(the_converters_template_has_no_system_block),
        cmocka_unit_test(another_template_is_not_taken_for_one_that_is_known),
        cmocka_unit_test(a_damaged_file_is_an_error),
        cmocka_unit_test(a_tokenizer_without_the_markers_is_the_wrong_one),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
