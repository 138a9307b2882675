/* inputs.h - what is measured on: a drawn page, and prompts of an exact number of tokens. */
#ifndef RV_BENCH_INPUTS_H
#define RV_BENCH_INPUTS_H
#include "engine/rvengine.h"

/* A page of grey lines of "text" on paper with some grain, RGB; always the same for a size. */
typedef struct page {
    uint32_t width, height;
    uint8_t *rgb, *png, *jpeg;
    size_t   png_bytes, jpeg_bytes;
} page;

rv_status page_draw(uint32_t width, uint32_t height, page *out, rv_error *err);
/* Fills in png and jpeg (quality 90). */
rv_status page_encode(page *p, rv_error *err);
void      page_encode_jpeg(page *p);                 /* that alone                               */
void      page_free(page *p);
rv_image  page_image(const page *p);                 /* the pixels, as an image                  */

/* A user message's text such that the whole prompt, template and picture included, has `want` tokens, or as
 * near as this tokenizer comes: *got says. Free *text. The session must be idle. */
rv_status prompt_of(rv_session *session, rv_picture *picture, uint32_t want, char **text, uint32_t *got, rv_error *err);

/* The request that this message is; the parts and the message are the caller's and must outlive it. */
typedef struct question { rv_part part[2]; rv_message message; rv_request request; } question;
void question_of(question *q, rv_picture *picture, const char *text, uint32_t max_tokens);
#endif
