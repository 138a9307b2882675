/* inputs.c - a drawn page, and prompts of an exact number of tokens: see inputs.h. */
#include "bench/inputs.h"

#include <stdio.h>
#include <jpeglib.h>                    /* needs stdio.h before it */
#include <png.h>
#include <stdlib.h>
#include <string.h>

#include "tools/files.h"

/* ---- the page -------------------------------------------------------------------------------- */

enum { LINE = 24, LETTERS = 14, LETTER = 9, MARGIN = 40, QUALITY = 90 };

static uint32_t mix(uint32_t x) {
    x ^= x >> 16, x *= 0x7feb352du;
    x ^= x >> 15, x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* Whether (x, y) lies in the ink of a letter: three strokes of a small grid, other ones for every letter. */
static int ink(uint32_t x, uint32_t y, uint32_t width, uint32_t height) {
    if (x < MARGIN || y < MARGIN || x + MARGIN >= width || y + MARGIN >= height) return 0;
    uint32_t line = y / LINE, dy = y % LINE, letter = x / LETTER, dx = x % LETTER, shape = mix(line * 7919u + letter);
    if (dy >= LETTERS || dx >= LETTER - 2 || shape % 6 == 0) return 0;                    /* between lines, letters, words */
    return dx == shape / 8 % 7 || dx == shape / 64 % 7 || dy / 2 == shape / 512 % 7;
}

rv_status page_draw(uint32_t width, uint32_t height, page *out, rv_error *err) {
    page p = { .width = width, .height = height, .rgb = malloc((size_t)width * height * 3) };
    if (!p.rgb) return fail(err, RV_ERR_MEMORY, "test image: out of memory");
    for (uint32_t y = 0; y < height; y++)
        for (uint32_t x = 0; x < width; x++) {
            uint8_t *to = p.rgb + ((size_t)y * width + x) * 3;
            uint32_t grain = mix(y * width + x), base = ink(x, y, width, height) ? 40 : 236;
            for (uint32_t c = 0; c < 3; c++) to[c] = (uint8_t)(base + (grain >> 8 * c) % 12);
        }
    *out = p;
    return RV_OK;
}

static rv_status encode_png(page *p, rv_error *err) {
    png_image image = { .version = PNG_IMAGE_VERSION, .width = p->width, .height = p->height, .format = PNG_FORMAT_RGB };
    png_alloc_size_t bytes = 0;
    if (!png_image_write_to_memory(&image, NULL, &bytes, 0, p->rgb, 0, NULL))
        return fail(err, RV_ERR_INTERNAL, "test image: libpng: %s", image.message);
    if (!(p->png = malloc(bytes))) return fail(err, RV_ERR_MEMORY, "test image: out of memory");
    if (!png_image_write_to_memory(&image, p->png, &bytes, 0, p->rgb, 0, NULL))
        return fail(err, RV_ERR_INTERNAL, "test image: libpng: %s", image.message);
    p->png_bytes = bytes;
    return RV_OK;
}

/* libjpeg's own way out of an error is to end the program: what we hand it cannot be wrong. */
void page_encode_jpeg(page *p) {
    struct jpeg_error_mgr errors;
    struct jpeg_compress_struct jpeg = { .err = jpeg_std_error(&errors) };
    unsigned long bytes = 0;
    jpeg_create_compress(&jpeg);
    jpeg_mem_dest(&jpeg, &p->jpeg, &bytes);
    jpeg.image_width = p->width;
    jpeg.image_height = p->height;
    jpeg.input_components = 3;
    jpeg.in_color_space = JCS_RGB;
    jpeg_set_defaults(&jpeg);
    jpeg_set_quality(&jpeg, QUALITY, TRUE);
    jpeg_start_compress(&jpeg, TRUE);
    while (jpeg.next_scanline < p->height) {
        JSAMPROW row = p->rgb + (size_t)jpeg.next_scanline * p->width * 3;
        jpeg_write_scanlines(&jpeg, &row, 1);
    }
    jpeg_finish_compress(&jpeg);
    jpeg_destroy_compress(&jpeg);
    p->jpeg_bytes = bytes;
}

rv_status page_encode(page *p, rv_error *err) {
    rv_status st = encode_png(p, err);
    if (st == RV_OK) page_encode_jpeg(p);
    return st;
}

void page_free(page *p) {
    free(p->rgb);
    free(p->png);
    free(p->jpeg);
    *p = (page){ 0 };
}

rv_image page_image(const page *p) {
    return (rv_image){ .size = sizeof(rv_image), .data = p->rgb, .bytes = (size_t)p->width * p->height * 3, .width = p->width,
                       .height = p->height };
}

/* ---- the prompt ------------------------------------------------------------------------------ */

void question_of(question *q, rv_picture *picture, const char *text, uint32_t max_tokens) {
    uint32_t n = 0;
    *q = (question){ 0 };
    if (picture) q->part[n++] = (rv_part){ .size = sizeof(rv_part), .picture = picture };
    q->part[n++] = (rv_part){ .size = sizeof(rv_part), .text = text };
    q->message = (rv_message){ .size = sizeof q->message, .role = "user", .parts = q->part, .n_parts = n };
    q->request = (rv_request){ .size = sizeof q->request, .messages = &q->message, .n_messages = 1, .flags = RV_REQUEST_IGNORE_STOP,
                               .date = "26 Jul 2024", .max_tokens = max_tokens };
}

static void fill(char *text, const char *piece, uint32_t n) {
    size_t bytes = strlen(piece);
    for (uint32_t i = 0; i < n; i++) memcpy(text + i * bytes, piece, bytes);
    text[n * bytes] = '\0';
}

/* Prompt tokens of a message of `n` copies of `piece`, UINT32_MAX when the context cannot hold them: the library is
 * asked, and the job dropped before it begins. */
static rv_status count(rv_session *s, rv_picture *picture, const char *piece, uint32_t n, char *text, uint32_t *tokens, rv_error *err) {
    question q;
    rv_job *job;
    fill(text, piece, n);
    question_of(&q, picture, text, 1);
    rv_status st = rv_submit(s, &q.request, &job, err);
    if (st == RV_ERR_TOO_LONG) return *tokens = UINT32_MAX, RV_OK;
    if (st) return st;
    *tokens = rv_job_prompt(job, NULL);
    rv_job_free(job);
    for (uint32_t active = 1; st == RV_OK && active;) st = rv_step(s, &active, err);
    return st;
}

typedef struct choice { const char *piece; uint32_t copies, tokens; } choice;

/* How often `piece` has to stand there; tokens 0: several copies make one token, so there is no telling. */
static rv_status try_piece(rv_session *s, rv_picture *picture, uint32_t want, char *text, choice *c, rv_error *err) {
    uint32_t one = 0, nine = 0;
    rv_status st = count(s, picture, c->piece, 1, text, &one, err);
    if (st) return st;
    if (one > want) return fail(err, RV_ERR_ARGUMENT, "a prompt of %u tokens: this model's template alone takes more", want);
    c->copies = 1;
    c->tokens = one;
    if (one + 8 <= want) {
        if ((st = count(s, picture, c->piece, 9, text, &nine, err))) return st;
        if (nine < one + 8) return c->tokens = 0, RV_OK;
        c->copies = 1 + (uint32_t)((uint64_t)(want - one) * 8 / (nine - one));
    } else c->copies += want - one;
    return count(s, picture, c->piece, c->copies, text, &c->tokens, err);
}

rv_status prompt_of(rv_session *s, rv_picture *picture, uint32_t want, char **text, uint32_t *got, rv_error *err) {
    static const char *const pieces[] = { " word", " the", " a", "1 ", "x", "?" };
    choice best = { 0 };
    rv_status st = RV_OK;
    char *room = malloc((size_t)want * 8 + 256);
    if (!room) return fail(err, RV_ERR_MEMORY, "prompt: out of memory");
    for (size_t i = 0; st == RV_OK && best.tokens != want && i < sizeof pieces / sizeof *pieces; i++) {
        choice c = { .piece = pieces[i] };
        st = try_piece(s, picture, want, room, &c, err);
        if (c.tokens <= want && c.tokens > best.tokens) best = c;
    }
    if (st == RV_OK && !best.tokens) st = fail(err, RV_ERR_UNSUPPORTED, "a prompt of %u tokens: this tokenizer joins every word that was tried", want);
    if (st == RV_OK) fill(room, best.piece, best.copies);
    *got = best.tokens;
    *text = st ? NULL : room;
    if (st) free(room);
    return st;
}
