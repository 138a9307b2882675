/* prompt.c - a request as text or as token ids.
 *
 * The one idea: one walk over the messages writes markers and text to a sink.  The text sink gives
 * what HF renders; the id sink turns a marker into its id and all text between two markers into
 * tokens at once, because HF splits them as one piece of text.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "engine/abi.h"
#include "engine/prompt.h"

typedef enum { MARK_BOS, MARK_START, MARK_END, MARK_EOT, MARK_IMAGE, MARKS } mark;
static const char *const MARK_TEXT[MARKS] = {
    "<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|image|>" };

typedef struct sink {
    rv_string           *text;         /* all of it, or what stands since the latest marker     */
    rv_ids              *ids;          /* NULL: render text only                                */
    const rv_tokenizer  *t;
    int32_t              mark_ids[MARKS];
    rv_encode_flags      flags;
    rv_error            *err;
} sink;

static rv_status flush(sink *s) {
    if (s->text->failed) return rv_fail_memory(s->err, "building the prompt");
    if (!s->ids || s->text->bytes == 0) return RV_OK;
    rv_status st = rv_tokenizer_append(s->t, rv_string_text(s->text), s->text->bytes, s->flags, s->ids, s->err);
    s->text->bytes = 0;
    return st;
}

static rv_status put_mark(sink *s, mark m) {
    if (!s->ids) {
        rv_string_addz(s->text, MARK_TEXT[m]);
        return RV_OK;
    }
    rv_status st = flush(s);
    return st ? st : rv_ids_push(s->ids, s->mark_ids[m], s->err);
}

static rv_status put_header(sink *s, const char *role) {
    rv_status st = RV_OK;
    TRY(put_mark(s, MARK_START));
    rv_string_addz(s->text, role);
    TRY(put_mark(s, MARK_END));
    rv_string_addz(s->text, "\n\n");
done:
    return st;
}

/* ---- the request as a conversation ------------------------------------------------------ */

/* prompt, system and images look like one or two messages from here on. */
typedef struct chat {
    const rv_request *request;
    uint32_t          count;
    rv_error         *err;
} chat;

typedef struct turn {
    const char *role;
    rv_message  message;          /* where the request has messages                            */
    uint32_t    n_parts, index;
    bool        system;           /* shorthand: this is request->system, else images and prompt */
} turn;

typedef struct part { const char *text; size_t bytes; bool image; } part;

static rv_status read_element(void *out, size_t known, const void *first, uint32_t i, const char *what, rv_error *err) {
    const void *element = rv_abi_at(first, i);
    if (*(const size_t *)element != *(const size_t *)first)
        return rv_fail(err, RV_ERR_ARGUMENT, "%s %u: size is %zu, but number 1 of the array has %zu: all must be equal",
                       what, i + 1, *(const size_t *)element, *(const size_t *)first);
    return rv_abi_read(out, known, element, what, err);
}

/* Places are counted from 1, as people do: "message 1, part 2". */
static rv_status check_role(const chat *c, const char *role, uint32_t i) {
    static const char *const roles[] = { "system", "user", "assistant", "tool", "ipython" };
    if (!role) return rv_fail(c->err, RV_ERR_ARGUMENT, "message %u: its role is missing", i + 1);
    if (!strcmp(role, "system") && i > 0)
        return rv_fail(c->err, RV_ERR_ARGUMENT, "message %u: only the first message can have the role \"system\"", i + 1);
    for (size_t r = 0; r < sizeof roles / sizeof *roles; r++)
        if (!strcmp(role, roles[r])) return RV_OK;
    return rv_fail(c->err, RV_ERR_ARGUMENT,
                   "message %u: its role must be \"system\", \"user\", \"assistant\" or \"tool\", "
                   "is \"%.40s\"", i + 1, role);
}

static rv_status turn_at(const chat *c, uint32_t i, turn *out) {
    const rv_request *r = c->request;
    rv_status st = RV_OK;
    *out = (turn){ .index = i };
    if (!r->messages) {
        out->system = r->system && i == 0;
        out->role = out->system ? "system" : "user";
        out->n_parts = out->system ? 1 : r->n_images + 1;
        return RV_OK;
    }
    TRY(read_element(&out->message, sizeof out->message, r->messages, i, "rv_message", c->err));
    out->role = out->message.role;
    out->n_parts = out->message.n_parts;
    if (out->n_parts && !out->message.parts)
        return rv_fail(c->err, RV_ERR_ARGUMENT, "message %u: parts is NULL, but n_parts is %u", i + 1, out->n_parts);
    TRY(check_role(c, out->role, i));
done:
    return st;
}

static rv_status check_text(const chat *c, const turn *t, uint32_t i, const part *p) {
    size_t good = p->bytes ? rv_utf8_check(p->text, p->bytes) : 0;
    if (good == p->bytes) return RV_OK;
    char where[64];
    if (!c->request->messages) snprintf(where, sizeof where, "%s", t->system ? "system" : "prompt");
    else snprintf(where, sizeof where, "message %u, part %u", t->index + 1, i + 1);
    return rv_fail(c->err, RV_ERR_FORMAT, "%s: not UTF-8: byte 0x%02x at offset %zu (convert it to UTF-8 first)", where,
                   (unsigned)(uint8_t)p->text[good], good);
}

static rv_status part_at(const chat *c, const turn *t, uint32_t i, part *out) {
    const rv_request *r = c->request;
    rv_status st = RV_OK;
    *out = (part){ 0 };
    if (r->messages) {
        rv_part p;
        TRY(read_element(&p, sizeof p, t->message.parts, i, "rv_part", c->err));
        if ((p.text != NULL) + (p.image != NULL) + (p.picture != NULL) != 1)
            return rv_fail(c->err, RV_ERR_ARGUMENT, "message %u, part %u: must have exactly one of text, image and "
                           "picture", t->index + 1, i + 1);
        *out = (part){ p.text, !p.text ? 0 : p.text_bytes ? p.text_bytes : strlen(p.text), !p.text };
    } else if (t->system) {
        *out = (part){ r->system, strlen(r->system), false };
    } else if (i < r->n_images) {
        out->image = true;
    } else {
        *out = (part){ r->prompt, strlen(r->prompt), false };
    }
    TRY(check_text(c, t, i, out));
done:
    return st;
}

/* All parts as one text, for messages that cannot hold images. */
static rv_status text_of(const chat *c, const turn *t, rv_string *out) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < t->n_parts; i++) {
        part p;
        TRY(part_at(c, t, i, &p));
        if (p.image)
            return rv_fail(c->err, RV_ERR_ARGUMENT, "message %u, part %u: a %s message cannot hold an image (put it "
                           "into a user message)", t->index + 1, i + 1, t->role);
        rv_string_add(out, p.text, p.bytes);
    }
    if (out->failed) st = rv_fail_memory(c->err, "building the prompt");
done:
    return st;
}

static rv_status put_parts(sink *s, const chat *c, const turn *t, uint32_t *images) {
    rv_status st = RV_OK;
    for (uint32_t i = 0; i < t->n_parts; i++) {
        part p;
        TRY(part_at(c, t, i, &p));
        if (!p.image) rv_string_add(s->text, p.text, p.bytes);
        else { ++*images; TRY(put_mark(s, MARK_IMAGE)); }
    }
done:
    return st;
}

static rv_status count_images(const chat *c, uint32_t *out) {
    rv_status st = RV_OK;
    *out = 0;
    for (uint32_t m = 0; m < c->count; m++) {
        turn t;
        TRY(turn_at(c, m, &t));
        for (uint32_t i = 0; i < t.n_parts; i++) {
            part p;
            TRY(part_at(c, &t, i, &p));
            *out += p.image;
        }
    }
done:
    return st;
}

/* ---- the template ------------------------------------------------------------------------ */

/* Jinja's trim is Python's str.strip: White_Space and the four separators U+001C to U+001F. */
static bool python_space(uint32_t c) {
    return (c >= 0x09 && c <= 0x0d) || (c >= 0x1c && c <= 0x20) || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f || c == 0x205f || c == 0x3000;
}

static void add_trimmed(rv_string *out, const char *text, size_t bytes) {
    size_t begin = bytes, end = 0;
    for (size_t at = 0, n; at < bytes; at += n) {
        uint32_t code = 0;
        n = rv_utf8_read(text + at, bytes - at, &code);
        if (n == 0) n = 1;                                  /* cannot be: checked before */
        if (python_space(code)) continue;
        if (begin == bytes) begin = at;
        end = at + n;
    }
    if (begin < end) rv_string_add(out, text + begin, end - begin);
}

/* As Python's json.dumps(text, ensure_ascii=False). */
static void add_json(rv_string *out, const char *text, size_t bytes) {
    rv_string_addz(out, "\"");
    for (size_t i = 0; i < bytes; i++) {
        const char *const from = "\"\\\n\r\t\f\b", *const to = "\"\\nrtfb", *at;
        const char c = text[i];
        if (c && (at = strchr(from, c))) rv_string_addf(out, "\\%c", to[at - from]);
        else if ((uint8_t)c < 0x20) rv_string_addf(out, "\\u%04x", (unsigned)(uint8_t)c);
        else rv_string_add(out, &c, 1);
    }
    rv_string_addz(out, "\"");
}

/* strftime's "%d %b %Y" of the local day, in English whatever the locale. */
static void add_today(rv_string *out) {
    static const char *const months[] = { "Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                          "Jul", "Aug", "Sep", "Oct", "Nov", "Dec" };
    time_t now = time(NULL);
    struct tm day = { .tm_mday = 26, .tm_mon = 6, .tm_year = 124 };     /* the template's own fallback */
    localtime_r(&now, &day);
    rv_string_addf(out, "%02d %s %d", day.tm_mday, months[day.tm_mon], day.tm_year + 1900);
}

static rv_status put_system_block(sink *s, const chat *c, const rv_string *text) {
    rv_status st = RV_OK;
    const char *date = c->request->date;
    if (date && rv_utf8_check(date, strlen(date)) != strlen(date))
        return rv_fail(c->err, RV_ERR_FORMAT, "date: not UTF-8");
    TRY(put_header(s, "system"));
    rv_string_addz(s->text, "Cutting Knowledge Date: December 2023\nToday Date: ");
    if (date) rv_string_addz(s->text, date);
    else add_today(s->text);
    rv_string_addz(s->text, "\n\n");
    rv_string_add(s->text, rv_string_text(text), text->bytes);
    TRY(put_mark(s, MARK_EOT));
done:
    return st;
}

/* The first message, where it is the system's, and the block that stands for it. */
static rv_status put_system(sink *s, const rv_prompt_style *style, const chat *c, bool has_images, uint32_t *begun) {
    rv_status st = RV_OK;
    rv_string raw = { 0 }, text = { 0 };
    turn first;
    TRY(turn_at(c, 0, &first));
    const bool given = !strcmp(first.role, "system");
    if (given) {
        TRY(text_of(c, &first, &raw));
        add_trimmed(&text, rv_string_text(&raw), raw.bytes);
        if (text.failed) { st = rv_fail_memory(c->err, "building the prompt"); goto done; }
    }
    if (style->revision == RV_TEMPLATE_A && has_images && text.bytes > 0) {
        st = rv_fail(c->err, RV_ERR_ARGUMENT, "messages: with revision A of the chat template prompting with images is "
                     "incompatible with system messages (put its text before the question, or choose revision B)");
        goto done;
    }
    if (!has_images || (given && style->revision != RV_TEMPLATE_A)) TRY(put_system_block(s, c, &text));
    *begun = given ? 1 : 0;
done:
    rv_string_free(&raw);
    rv_string_free(&text);
    return st;
}

static rv_status put_tool(sink *s, const chat *c, const turn *t) {
    rv_status st = RV_OK;
    rv_string text = { 0 };
    TRY(put_header(s, "ipython"));
    TRY(text_of(c, t, &text));
    add_json(s->text, rv_string_text(&text), text.bytes);
    TRY(put_mark(s, MARK_EOT));
done:
    rv_string_free(&text);
    return st;
}

static rv_status put_chat(sink *s, const rv_prompt_style *style, const chat *c, uint32_t *images) {
    rv_status st = RV_OK;
    uint32_t total, i = 0;
    TRY(count_images(c, &total));
    TRY(put_mark(s, MARK_BOS));
    if (style->system_block) TRY(put_system(s, style, c, total > 0, &i));
    for (; i < c->count; i++) {
        turn t;
        TRY(turn_at(c, i, &t));
        if (style->system_block && (!strcmp(t.role, "tool") || !strcmp(t.role, "ipython"))) {
            TRY(put_tool(s, c, &t));
            continue;
        }
        TRY(put_header(s, t.role));
        TRY(put_parts(s, c, &t, images));
        TRY(put_mark(s, MARK_EOT));
    }
    TRY(put_header(s, "assistant"));
done:
    return st;
}

static rv_status put_plain(sink *s, const rv_prompt_style *style, const chat *c, uint32_t *images) {
    rv_status st = RV_OK;
    turn t;
    TRY(turn_at(c, 0, &t));
    if (c->count != 1 || strcmp(t.role, "user"))
        return rv_fail(c->err, RV_ERR_UNSUPPORTED,
                       "messages: %s, so it takes a single user message and nothing else (or "
                       "raw text, or a chat template named in the request)", style->reason);
    TRY(put_mark(s, MARK_BOS));
    TRY(put_parts(s, c, &t, images));
done:
    return st;
}

/* ---- requests ----------------------------------------------------------------------------- */

/* The style that this request gets: its own choice of a revision wins. */
static rv_status choose_style(const rv_prompt_style *style, const rv_request *r, rv_prompt_style *out, rv_error *err) {
    *out = *style;
    if (r->chat_template == RV_TEMPLATE_A || r->chat_template == RV_TEMPLATE_B) {
        out->form = RV_FORM_CHAT;
        out->revision = r->chat_template;
        out->system_block = true;
    } else if (r->chat_template != RV_TEMPLATE_AUTO) {
        return rv_fail(err, RV_ERR_ARGUMENT,
                       "chat_template: must be RV_TEMPLATE_AUTO, _A or _B, is %d", r->chat_template);
    }
    if (out->form == RV_FORM_UNKNOWN && !r->raw)
        return rv_fail(err, RV_ERR_UNSUPPORTED,
                       "the model's chat template cannot be rendered: %s (use raw text, or name a "
                       "revision, A or B, in the request)", style->reason);
    return RV_OK;
}

static rv_status check_request(const rv_request *r, rv_error *err) {
    const rv_request_flags known = RV_REQUEST_CONTROL_TOKENS | RV_REQUEST_DOUBLE_BOS | RV_REQUEST_IGNORE_STOP;
    int ways = (r->prompt != NULL) + (r->messages != NULL) + (r->raw != NULL);
    if (ways != 1)
        return rv_fail(err, RV_ERR_ARGUMENT, "the request has %s of prompt, messages and raw: it needs exactly one",
                       ways ? "more than one" : "none");
    if (r->messages && r->n_messages == 0)
        return rv_fail(err, RV_ERR_ARGUMENT, "messages: there are none (n_messages is 0)");
    if (!r->messages && r->n_messages)
        return rv_fail(err, RV_ERR_ARGUMENT, "messages: is NULL, but n_messages is %u", r->n_messages);
    if (r->messages && r->n_images)
        return rv_fail(err, RV_ERR_ARGUMENT, "images: with messages they belong into the messages' parts");
    if (!r->images && r->n_images)
        return rv_fail(err, RV_ERR_ARGUMENT, "images: is NULL, but n_images is %u", r->n_images);
    if (r->system && !r->prompt)
        return rv_fail(err, RV_ERR_ARGUMENT, "system: goes with prompt only (%s)",
                       r->raw ? "raw text has its own" : "messages have their own role for it");
    if (r->n_images == UINT32_MAX) return rv_fail(err, RV_ERR_ARGUMENT, "n_images: is %u", r->n_images);
    if (r->flags & ~known) return rv_fail(err, RV_ERR_ARGUMENT, "flags: unknown bits 0x%x", r->flags & ~known);
    return RV_OK;
}

static rv_status put_messages(sink *s, const rv_prompt_style *style, const rv_request *r, uint32_t *images) {
    const chat c = { r, r->messages ? r->n_messages : r->system ? 2 : 1, s->err };
    return style->form == RV_FORM_PLAIN ? put_plain(s, style, &c, images) : put_chat(s, style, &c, images);
}

rv_status rv_prompt_render(const rv_prompt_style *style, const rv_request *request, rv_string *out, rv_error *err) {
    rv_status st = RV_OK;
    rv_prompt_style chosen;
    sink s = { .text = out, .err = err };
    uint32_t images = 0;
    TRY(check_request(request, err));
    TRY(choose_style(style, request, &chosen, err));
    if (request->raw) return rv_fail(err, RV_ERR_ARGUMENT, "raw text is not rendered");
    TRY(put_messages(&s, &chosen, request, &images));
    if (out->failed) st = rv_fail_memory(err, "building the prompt");
done:
    return st;
}

static rv_status find_marks(sink *s, const rv_prompt_style *style, const rv_config *config) {
    for (int m = 0; m < MARKS; m++) {
        s->mark_ids[m] = m == MARK_IMAGE ? config->image_token : rv_tokenizer_control(s->t, MARK_TEXT[m]);
        const bool needed = m == MARK_BOS || style->form == RV_FORM_CHAT;
        if (s->mark_ids[m] < 0 && needed)
            return rv_fail(s->err, RV_ERR_FORMAT,
                           "wrong tokenizer: it has no %s, which the prompt needs (%s)", MARK_TEXT[m],
                           style->reason);
    }
    return RV_OK;
}

/* Raw text through HF's MllamaProcessor: where it says begin-of-text nowhere, one goes in front, and
 * for a doubled one behind the leading images, as build_string_from_input puts it. */
static rv_status put_raw(sink *s, const rv_request *r) {
    rv_status st = RV_OK;
    const char *text = r->raw;
    const size_t image_bytes = strlen(MARK_TEXT[MARK_IMAGE]);
    size_t bytes = strlen(text), good = rv_utf8_check(text, bytes);
    if (good != bytes)
        return rv_fail(s->err, RV_ERR_FORMAT, "raw: not UTF-8: byte 0x%02x at offset %zu (convert it to UTF-8 first)",
                       (unsigned)(uint8_t)text[good], good);
    s->flags = RV_ENCODE_CONTROL;
    if (!strstr(text, MARK_TEXT[MARK_BOS])) {
        while ((r->flags & RV_REQUEST_DOUBLE_BOS) && !strncmp(text, MARK_TEXT[MARK_IMAGE], image_bytes)) {
            TRY(put_mark(s, MARK_IMAGE));
            text += image_bytes;
        }
        TRY(put_mark(s, MARK_BOS));
    }
    rv_string_addz(s->text, text);
done:
    return st;
}

static rv_status check_ids(const sink *s, const rv_config *config, size_t from, uint32_t images) {
    const int64_t rows = (int64_t)config->text.vocab + 8;
    uint32_t tags = 0;
    for (size_t i = from; i < s->ids->count; i++) {
        int32_t id = s->ids->data[i];
        tags += id == config->image_token;
        if (id < 0 || id >= rows)
            return rv_fail(s->err, RV_ERR_FORMAT,
                           "wrong tokenizer: the prompt has the id %d, but the model's embedding has "
                           "%lld rows", id, (long long)rows);
    }
    if (tags == images) return RV_OK;
    return rv_fail(s->err, RV_ERR_ARGUMENT,
                   "the prompt has %u <|image|>, but %u image%s given: write one <|image|> where "
                   "each image belongs, and nowhere else", tags, images, images == 1 ? " was" : "s were");
}

rv_status rv_prompt_ids(const rv_prompt_style *style, const rv_tokenizer *t, const rv_config *config,
                        const rv_request *request, rv_ids *out, rv_error *err) {
    rv_status st = RV_OK;
    const size_t before = out->count;
    rv_string text = { 0 };
    rv_prompt_style chosen;
    uint32_t images = 0;
    sink s = { .text = &text, .ids = out, .t = t, .err = err };
    TRY(check_request(request, err));
    TRY(choose_style(style, request, &chosen, err));
    if (request->raw) chosen.form = RV_FORM_PLAIN;
    if (request->flags & RV_REQUEST_CONTROL_TOKENS) s.flags = RV_ENCODE_CONTROL;
    TRY(find_marks(&s, &chosen, config));
    if ((request->flags & RV_REQUEST_DOUBLE_BOS) && rv_tokenizer_adds_bos(t)) TRY(put_mark(&s, MARK_BOS));
    if (request->raw) images = request->n_images, st = put_raw(&s, request);
    else st = put_messages(&s, &chosen, request, &images);
    if (st) goto done;
    TRY(flush(&s));
    TRY(check_ids(&s, config, before, images));
done:
    if (st) out->count = before;
    rv_string_free(&text);
    return st;
}

rv_status rv_prompt_check_tokenizer(const rv_tokenizer *t, const rv_config *config, rv_error *err) {
    const int64_t rows = (int64_t)config->text.vocab + 8;
    const int32_t image = rv_tokenizer_control(t, MARK_TEXT[MARK_IMAGE]), bos = rv_tokenizer_bos(t);
    if (rv_tokenizer_size(t) > rows)
        return rv_fail(err, RV_ERR_FORMAT,
                       "wrong tokenizer: its ids go up to %u, but the model's embedding has %lld rows "
                       "(vocab_size %d and 8 more)", rv_tokenizer_size(t) - 1, (long long)rows, config->text.vocab);
    if (image >= 0 && image != config->image_token)
        return rv_fail(err, RV_ERR_FORMAT,
                       "wrong tokenizer: its <|image|> is %d, but config.json says image_token_index %d",
                       image, config->image_token);
    if (bos >= 0 && config->bos >= 0 && bos != config->bos)
        return rv_fail(err, RV_ERR_FORMAT,
                       "wrong tokenizer: its <|begin_of_text|> is %d, but config.json says bos_token_id "
                       "%d", bos, config->bos);
    return RV_OK;
}
