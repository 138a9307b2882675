/* talk.h - short ways to say a conversation, and what the prompt tests open. */
#ifndef RV_TESTS_TALK_H
#define RV_TESTS_TALK_H
#include "engine/prompt.h"
#include "tests/support/folder.h"

#define DEMO_MODEL RV_TEST_DEMO "/model"
#define DATE "26 Jul 2024"

static const rv_image AN_IMAGE = { .size = sizeof(rv_image) };

#define TEXT(s) { .size = sizeof(rv_part), .text = (s) }
#define IMAGE { .size = sizeof(rv_part), .image = &AN_IMAGE }
#define MESSAGE(who, ...) { .size = sizeof(rv_message), .role = (who), .parts = (const rv_part[]){ __VA_ARGS__ }, \
                            .n_parts = sizeof((const rv_part[]){ __VA_ARGS__ }) / sizeof(rv_part) }
#define TALK(...) .size = sizeof(rv_request), .messages = (const rv_message[]){ __VA_ARGS__ }, \
                  .n_messages = sizeof((const rv_message[]){ __VA_ARGS__ }) / sizeof(rv_message)

static inline rv_tokenizer *open_demo_tokenizer(void) {
    rv_tokenizer *t = NULL;
    rv_error err = { 0 };
    expect_ok(rv_tokenizer_open(DEMO_MODEL, &t, &err), &err);
    return t;
}

static inline rv_config demo_config(void) {
    return (rv_config){ .text.vocab = 1016, .image_token = 1016, .bos = 1000 };
}

static inline rv_prompt_style chat_style(rv_template revision) {
    return (rv_prompt_style){ .form = RV_FORM_CHAT, .revision = revision, .system_block = true, .reason = "test" };
}

static inline void expect_render(const rv_prompt_style *style, const rv_request *request, const char *want) {
    rv_string got = { 0 };
    rv_error err = { 0 };
    expect_ok(rv_prompt_render(style, request, &got, &err), &err);
    if (strcmp(rv_string_text(&got), want)) fail_msg("rendered \"%s\"\n wanted \"%s\"", rv_string_text(&got), want);
    rv_string_free(&got);
}

/* The request's ids as text again, control tokens shown. */
static inline void expect_ids(const rv_prompt_style *style, const rv_tokenizer *t, const rv_request *request,
                              const char *want) {
    const rv_config config = demo_config();
    rv_ids ids = { 0 };
    rv_error err = { 0 };
    char text[4096];
    size_t bytes;
    expect_ok(rv_prompt_ids(style, t, &config, request, &ids, &err), &err);
    expect_ok(rv_tokenizer_decode(t, ids.data, ids.count, 0, text, sizeof text - 1, &bytes, &err), &err);
    text[bytes] = '\0';
    if (strcmp(text, want)) fail_msg("got \"%s\"\n wanted \"%s\"", text, want);
    rv_ids_free(&ids);
}

static inline size_t count_id(const rv_ids *ids, int32_t id) {
    size_t n = 0;
    for (size_t i = 0; i < ids->count; i++) n += ids->data[i] == id;
    return n;
}
#endif
