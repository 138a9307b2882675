/* prompt.h - messages to token ids: the Llama 3.2 chat template, natively.
 *
 * The one idea: only the template's own markers become control tokens; what users wrote is
 * tokenised as text (unless RV_REQUEST_CONTROL_TOKENS), so no document can forge a turn.
 * Source: spec mllama.md sections 1.5 and 1.6, and the templates that were published.
 *
 * Equal to HF's apply_chat_template with string contents and add_generation_prompt, but for two
 * things.  A system message of several parts is their text (HF prints a Python list there).  A
 * tool message is its text as a JSON string, as HF renders a string, however many parts it has.
 */
#ifndef RV_ENGINE_PROMPT_H
#define RV_ENGINE_PROMPT_H
#include "engine/config.h"
#include "tokenizer/tokenizer.h"

/* UNKNOWN: there is a template, but none that this code renders: raw text only, unless the request
 * names a revision itself. */
typedef enum { RV_FORM_PLAIN, RV_FORM_CHAT, RV_FORM_UNKNOWN } rv_prompt_form;

/* Which form a model folder asks for, its template's revision, and why. */
typedef struct rv_prompt_style {
    rv_prompt_form form;
    rv_template    revision;     /* A or B; B where there is none to recognise                  */
    bool           system_block; /* the template has the block with the dates; without it every
                                    message is header, content, <|eot_id|>, roles as they stand */
    char           reason[160];  /* "chat_template.json: Llama 3.2's template, revision B", ..  */
} rv_prompt_style;

/* Looks at chat_template.json, chat_template.jinja and tokenizer_config.json, in this order.  A
 * tokenizer (may be NULL) without the markers that the template needs is RV_ERR_FORMAT. */
rv_status rv_prompt_style_load(const char *model_dir, const rv_tokenizer *t, rv_prompt_style *out, rv_error *err);

/* RV_ERR_FORMAT "wrong tokenizer" unless this tokenizer can belong to this model: its ids fit the
 * embedding (vocab + 8 rows), <|image|> and <|begin_of_text|> are the ids that config.json says. */
rv_status rv_prompt_check_tokenizer(const rv_tokenizer *t, const rv_config *config, rv_error *err);

/* The request's text as HF would render it (tests compare this); not for raw. */
rv_status rv_prompt_render(const rv_prompt_style *style, const rv_request *request, rv_string *out, rv_error *err);

/* Appends the request as ids: exactly one BOS, one image_token per image.  With
 * RV_REQUEST_DOUBLE_BOS a second BOS stands in front, where the tokenizer's post-processor would
 * put it (rv_tokenizer_adds_bos), and raw text gets its own where HF's processor inserts it.
 * Checks the request: one of prompt/messages/raw; roles; parts; as many images as <|image|>.  The
 * request is whole (its size is sizeof); messages and parts are read by their own first size. */
rv_status rv_prompt_ids(const rv_prompt_style *style, const rv_tokenizer *t, const rv_config *config,
                        const rv_request *request, rv_ids *out, rv_error *err);
#endif
