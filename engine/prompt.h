/* prompt.h - messages to token ids: the Llama 3.2 chat template, natively.
 *
 * The one idea: only the template's own markers become control tokens; what users wrote is
 * tokenised as text (unless RV_REQUEST_CONTROL_TOKENS), so no document can forge a turn.
 * Source: spec mllama.md sections 1.5 and 1.6.
 */
#ifndef RV_ENGINE_PROMPT_H
#define RV_ENGINE_PROMPT_H
#include "engine/config.h"
#include "tokenizer/tokenizer.h"

typedef enum { RV_FORM_PLAIN, RV_FORM_CHAT } rv_prompt_form;

/* Which form a model folder asks for, its template's revision, and why. */
typedef struct rv_prompt_style {
    rv_prompt_form form;
    rv_template    revision;     /* A or B; B where there is none to recognise                  */
    char           reason[160];  /* "chat_template.json holds a template", ..                   */
} rv_prompt_style;
rv_status rv_prompt_style_load(const char *model_dir, const rv_tokenizer *t, rv_prompt_style *out, rv_error *err);

/* The request's text as HF would render it (tests compare this), for messages only. */
rv_status rv_prompt_render(const rv_prompt_style *style, const rv_request *request, rv_string *out, rv_error *err);

/* The request as ids, exactly one BOS (two with RV_REQUEST_DOUBLE_BOS), one image_token per image.
 * Checks the request: one of prompt/messages/raw; roles; parts; as many images as <|image|>. */
rv_status rv_prompt_ids(const rv_prompt_style *style, const rv_tokenizer *t, const rv_config *config,
                        const rv_request *request, rv_ids *out, rv_error *err);
#endif
