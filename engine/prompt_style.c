/* prompt_style.c - recognises a model folder's chat template.
 *
 * The one idea: we have no Jinja, we have three renderers (revision A, revision B, and the bare one
 * without a system block).  A template that is none of the three must not be rendered as if it were.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine/base/file.h"
#include "engine/base/json.h"
#include "engine/prompt.h"

enum { MAX_TEMPLATE_FILE = 1 << 24 };

/* The bare template as canonical() leaves it: BOS before the messages or with the first one, as transformers' converter writes it. */
#define BOS_BEFORE "{{bos_token}}{%formessageinmessages%}"
#define BOS_INSIDE "{%formessageinmessages%}{%ifloop.index0==0%}{{bos_token}}{%endif%}"
#define MESSAGES(part)                                                                                                                              \
    "{{'<|start_header_id|>'+message['role']+'<|end_header_id|>\n\n'}}"                                                                             \
    "{%ifmessage['content']isstring%}{{message['content']}}"                                                                                        \
    "{%else%}{%for" part "inmessage['content']%}"                                                                                                   \
    "{%if" part "['type']=='image'%}{{'<|image|>'}}{%elif" part "['type']=='text'%}{{" part "['text']}}{%endif%}{%endfor%}{%endif%}"                \
    "{{'<|eot_id|>'}}{%endfor%}"                                                                                                                    \
    "{%ifadd_generation_prompt%}{{'<|start_header_id|>assistant<|end_header_id|>\n\n'}}{%endif%}"
static const char *const BARE[] = { BOS_BEFORE MESSAGES("part"), BOS_BEFORE MESSAGES("content"), BOS_INSIDE MESSAGES("part"), BOS_INSIDE MESSAGES("content") };

/* A Jinja template without what does not change its output: spaces inside tags, the minus signs
 * that strip the text between tags and that text, the kind of quotes. */
static void canonical(const char *s, size_t n, rv_string *out) {
    bool inside = false, strip = false;
    char quote = 0;
    for (size_t i = 0; i < n; i++) {
        char c = s[i], next = i + 1 < n ? s[i + 1] : '\0';
        if (quote) {
            if (c == '\\' && next == 'n') rv_string_add(out, "\n", 1), i++;
            else if (c == quote) rv_string_add(out, "'", 1), quote = 0;
            else rv_string_add(out, &c, 1);
        } else if (inside && (c == '\'' || c == '"')) {
            rv_string_add(out, "'", 1);
            quote = c;
        } else if (inside && (c == ' ' || c == '\n' || c == '\t')) {
            continue;
        } else if (inside && c == '-' && (next == '}' || next == '%')) {
            strip = true;
        } else if (c == '{' && (next == '{' || next == '%')) {
            rv_string_add(out, s + i++, 2);
            inside = true;
            strip = false;
            if (i + 1 < n && s[i + 1] == '-') {
                i++;
                while (out->bytes > 2 && strchr(" \n\t", out->data[out->bytes - 3])) {
                    memmove(out->data + out->bytes - 3, out->data + out->bytes - 2, 2);
                    out->bytes--;
                }
            }
        } else if (inside && (c == '}' || c == '%') && next == '}') {
            rv_string_add(out, s + i++, 2);
            inside = false;
        } else if (!inside && strip && (c == ' ' || c == '\n' || c == '\t')) {
            continue;
        } else {
            rv_string_add(out, &c, 1);
        }
    }
    while (out->bytes && out->data[out->bytes - 1] == '\n') out->bytes--;
}

static bool is_bare(const char *text, size_t bytes) {
    rv_string plain = { 0 };
    canonical(text, bytes, &plain);
    bool same = false;
    for (size_t i = 0; i < sizeof BARE / sizeof *BARE && !plain.failed; i++) same |= plain.bytes == strlen(BARE[i]) && !memcmp(plain.data, BARE[i], plain.bytes);
    rv_string_free(&plain);
    return same;
}

static bool holds(const char *text, size_t bytes, const char *what) {
    return memmem(text, bytes, what, strlen(what)) != NULL;
}

/* What both published revisions contain. */
static const char *const PUBLISHED[] = {
    "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>", "add_generation_prompt",
    "Cutting Knowledge Date: December 2023", "Today Date: " };

static void recognise(const char *file, const char *text, size_t bytes, rv_prompt_style *out) {
    *out = (rv_prompt_style){ .form = RV_FORM_CHAT, .revision = RV_TEMPLATE_B };
    if (is_bare(text, bytes)) {
        snprintf(out->reason, sizeof out->reason, "%s: a template without system block", file);
        return;
    }
    for (size_t i = 0; i < sizeof PUBLISHED / sizeof *PUBLISHED; i++) {
        if (holds(text, bytes, PUBLISHED[i])) continue;
        out->form = RV_FORM_UNKNOWN;
        snprintf(out->reason, sizeof out->reason, "%s: its chat template is not Llama 3.2's: \"%s\" is not in it",
                 file, PUBLISHED[i]);
        return;
    }
    out->system_block = true;
    if (holds(text, bytes, "incompatible with system messages") && !holds(text, bytes, "user_supplied_system_message"))
        out->revision = RV_TEMPLATE_A;
    snprintf(out->reason, sizeof out->reason, "%s: Llama 3.2's template, revision %s", file,
             out->revision == RV_TEMPLATE_A ? "A" : "B");
}

/* The latest string as text. */
static rv_status take_string(const rv_json *j, rv_string *out, rv_error *err) {
    char *text = malloc(j->slice_bytes + 1);
    if (!text) return rv_fail_memory(err, "reading the chat template");
    out->bytes = 0;
    rv_string_add(out, text, rv_json_string(j, text));
    free(text);
    return out->failed ? rv_fail_memory(err, "reading the chat template") : RV_OK;
}

/* [{"name": "default", "template": ".."}, ..]: the one called default. */
static rv_status take_from_list(rv_json *j, const char *file, rv_string *out, bool *found, rv_error *err) {
    rv_status st = RV_OK;
    rv_json_token token;
    rv_string candidate = { 0 };
    while ((token = rv_json_next(j)) == RV_JSON_OBJECT) {
        bool is_default = false, have = false;
        while ((token = rv_json_next(j)) == RV_JSON_KEY) {
            bool name = rv_json_is(j, "name"), text = rv_json_is(j, "template");
            if (!name && !text) { rv_json_skip(j); continue; }
            if (rv_json_next(j) != RV_JSON_STRING) { st = rv_json_fail(j, file, "a string", err); goto done; }
            if (name) is_default = rv_json_is(j, "default");
            if (text) { have = true; TRY(take_string(j, &candidate, err)); }
        }
        if (token != RV_JSON_OBJECT_END) { st = rv_json_fail(j, file, "a chat template", err); goto done; }
        if (!is_default || !have) continue;
        *found = true;
        out->bytes = 0;
        rv_string_add(out, rv_string_text(&candidate), candidate.bytes);
    }
    if (token != RV_JSON_ARRAY_END) st = rv_json_fail(j, file, "a list of chat templates", err);
done:
    rv_string_free(&candidate);
    return st;
}

/* The key "chat_template" of a JSON file. */
static rv_status template_of_json(const char *text, size_t bytes, const char *file, rv_string *out, bool *found,
                                  rv_error *err) {
    rv_status st = RV_OK;
    rv_json j = rv_json_open(text, bytes);
    rv_json_token token;
    if (rv_json_next(&j) != RV_JSON_OBJECT) return rv_json_fail(&j, file, "an object", err);
    while ((token = rv_json_next(&j)) == RV_JSON_KEY) {
        if (!rv_json_is(&j, "chat_template")) { rv_json_skip(&j); continue; }
        token = rv_json_next(&j);
        if (token == RV_JSON_STRING) { *found = true; TRY(take_string(&j, out, err)); }
        else if (token == RV_JSON_ARRAY) TRY(take_from_list(&j, file, out, found, err));
        else if (token != RV_JSON_NULL) return rv_json_fail(&j, file, "chat_template, a string", err);
    }
    if (token != RV_JSON_OBJECT_END || rv_json_next(&j) != RV_JSON_END) st = rv_json_fail(&j, file, "a key", err);
done:
    return st;
}

static rv_status look_into(const char *model_dir, const char *file, rv_string *out, bool *found, rv_error *err) {
    rv_status st = RV_OK;
    char *text = NULL, *path = rv_path_join(model_dir, file);
    size_t bytes;
    if (!path) return rv_fail_memory(err, "reading the chat template");
    if (!rv_file_exists(path)) goto done;
    TRY(rv_file_read(path, MAX_TEMPLATE_FILE, &text, &bytes, err));
    if (strcmp(file, "chat_template.jinja")) TRY(template_of_json(text, bytes, path, out, found, err));
    else *found = true, rv_string_add(out, text, bytes);
    if (out->failed) st = rv_fail_memory(err, "reading the chat template");
done:
    free(text);
    free(path);
    return st;
}

static rv_status check_markers(const rv_prompt_style *style, const rv_tokenizer *t, rv_error *err) {
    static const char *const markers[] = {
        "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>" };
    for (size_t i = 0; i < sizeof markers / sizeof *markers; i++)
        if (rv_tokenizer_control(t, markers[i]) < 0)
            return rv_fail(err, RV_ERR_FORMAT, "wrong tokenizer: it has no %s, which the chat template needs (%s)",
                           markers[i], style->reason);
    return RV_OK;
}

rv_status rv_prompt_style_load(const char *model_dir, const rv_tokenizer *t, rv_prompt_style *out, rv_error *err) {
    static const char *const files[] = { "chat_template.json", "chat_template.jinja", "tokenizer_config.json" };
    rv_status st = RV_OK;
    rv_string text = { 0 };
    bool found = false;
    *out = (rv_prompt_style){ .form = RV_FORM_PLAIN, .revision = RV_TEMPLATE_B };
    snprintf(out->reason, sizeof out->reason, "the model folder has no chat template");
    for (size_t i = 0; i < sizeof files / sizeof *files && !found; i++) {
        TRY(look_into(model_dir, files[i], &text, &found, err));
        if (found) recognise(files[i], rv_string_text(&text), text.bytes, out);
    }
    if (t && out->form == RV_FORM_CHAT) TRY(check_markers(out, t, err));
done:
    rv_string_free(&text);
    return st;
}
