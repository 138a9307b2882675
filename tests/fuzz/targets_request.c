/* targets_request.c - what comes with a request, and the weights' cache: image files, conversations, cache files. */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "engine/base/file.h"
#include "engine/base/hash.h"
#include "engine/image.h"
#include "engine/model.h"
#include "engine/prompt.h"
#include "tests/fuzz/small_model.h"
#include "tests/fuzz/target.h"
#include "tools/messages.h"

/* ---- images ---- */

enum { MOST_PIXELS = 1 << 21 };          /* larger ones are right or wrong in the same way, only slower */

static void judge_pixels(const rv_pixels *p) {
    rv_config config;
    rv_error err = { 0 };
    FUZZ_HOLDS(p->rgb && p->width > 0 && p->height > 0 && p->width <= RV_IMAGE_MAX_EDGE && p->height <= RV_IMAGE_MAX_EDGE);
    rv_config_published(&config);
    config.vision.tile = 56;             /* the same code, a hundredth of the work               */
    const rv_canvas canvas = rv_canvas_choose(p->width, p->height, &config.vision, 4);
    uint8_t *tiles = malloc((size_t)(canvas.rows * canvas.cols) * 3 * 56 * 56);
    FUZZ_HOLDS(tiles != NULL);
    rv_status st = rv_image_cut(p, &canvas, 56, RV_RESIZE_PIL, tiles, &err);
    if (st) fuzz_broken("a picture that was read cannot be cut", err.message);
    free(tiles);
}

void fuzz_image(const uint8_t *data, size_t bytes) {
    rv_pixels header = { 0 }, full = { 0 };
    rv_error err = { 0 };
    uint8_t *exact = fuzz_exact(data, bytes);
    rv_status probed = rv_image_probe(exact, bytes, false, &header, &err);
    if (probed) fuzz_error(probed, &err);
    if (probed || (uint64_t)header.width * header.height <= MOST_PIXELS) {
        rv_status st = rv_image_decode(exact, bytes, false, &full, &err);
        if (st) fuzz_error(st, &err);
        else {
            FUZZ_HOLDS(!probed && header.width == full.width && header.height == full.height && header.orientation == full.orientation);
            judge_pixels(&full);
        }
        FUZZ_HOLDS(!st || !full.rgb);
    }
    rv_pixels_free(&header);
    rv_pixels_free(&full);
    free(exact);
}

/* ---- conversations: the program's reader, then the library's prompt in each form ---- */

static void judge_conversation(const conversation *talk) {
    static rv_tokenizer *tokenizer;
    const rv_config config = { .text.vocab = 1016, .image_token = 1016, .bos = 1000 };
    rv_error err = { 0 };
    if (!tokenizer && rv_tokenizer_open(RV_TEST_DEMO "/model", &tokenizer, &err)) fuzz_broken("demo model", err.message);
    for (int form = 0; form < 4; form++) {
        const rv_prompt_style style = { .form = form < 3 ? RV_FORM_CHAT : RV_FORM_PLAIN, .revision = form == 0 ? RV_TEMPLATE_A : RV_TEMPLATE_B,
                                        .system_block = form < 2, .reason = "fuzz" };
        const rv_request request = { .size = sizeof request, .messages = talk->messages, .n_messages = talk->n_messages, .date = "26 Jul 2024",
                                     .flags = form == 1 ? RV_REQUEST_CONTROL_TOKENS : 0 };
        rv_ids ids = { 0 };
        uint32_t images = 0, begins = 0;
        rv_status st = rv_prompt_ids(&style, tokenizer, &config, &request, &ids, &err);
        if (st) FUZZ_HOLDS(err.code == st && strlen(err.message) > 10 && st != RV_ERR_INTERNAL);     /* the caller is at fault: any code */
        for (size_t i = 0; !st && i < ids.count; i++) {
            FUZZ_HOLDS(ids.data[i] >= 0 && ids.data[i] < 1024);
            images += ids.data[i] == config.image_token;
            begins += ids.data[i] == config.bos;
        }
        if (!st) FUZZ_HOLDS(images == talk->n_images && (form == 1 || begins == 1));
        rv_ids_free(&ids);
    }
}

void fuzz_messages(const uint8_t *data, size_t bytes) {
    static int quiet = -1;
    const text_list none = { 0 };
    const image_choice how = { 0 };
    conversation talk = { 0 };
    rv_error err = { 0 };
    if (quiet < 0 && (quiet = open("/dev/null", O_RDONLY)) >= 0) dup2(quiet, STDIN_FILENO);      /* a path may be "-" */
    if (memmem(data, bytes, "\"/", 2)) return;            /* nor one of the machine's devices     */
    rv_status st = conversation_read(fuzz_file(0, data, bytes), &none, &how, &talk, &err);
    if (st) FUZZ_HOLDS(err.code == st && strlen(err.message) > 5 && st != RV_ERR_INTERNAL);
    else judge_conversation(&talk);
    conversation_free(&talk);
}

/* ---- the cache ----
 * The input is laid over the file that a load wrote: its first two bytes are where (of the header and its sums, else in the
 * memory), the third says how long the file stays, the rest is what lies there. Where the third is odd the header's own
 * checksum is made right again, so that the checks behind it are reached. */

static char   cache_path[1024];
static uint8_t *good_file, *good_memory;
static size_t good_bytes;
static uint64_t memory_bytes;

static void load(bool first) {
    rv_load_options o = { .size = sizeof o, .backend = RV_BACKEND_CPU, .threads = 1, .weights = RV_WEIGHTS_INT8, .cache_dir = small_cache() };
    rv_model *m;
    rv_error err = { 0 };
    if (rv_model_load(small_model(), &o, &m, &err)) fuzz_broken("a cache made loading fail", err.message);
    if (first) {
        memory_bytes = m->memory_bytes;
        good_memory = fuzz_exact(m->memory, (size_t)memory_bytes);
    } else FUZZ_HOLDS(m->memory_bytes == memory_bytes && !memcmp(m->memory, good_memory, (size_t)memory_bytes));
    rv_model_free(m);
}

static void read_good(void) {
    rv_error err = { 0 };
    load(true);
    small_cache_file(cache_path);
    if (rv_file_read(cache_path, 1 << 26, (char **)&good_file, &good_bytes, &err)) fuzz_broken("cache", err.message);
}

/* head.sum stands behind the head's other 80 bytes; the pieces' sums follow. */
static void mend(uint8_t *file, size_t bytes) {
    enum { SUM = 80, HEAD = 88 };
    uint64_t pieces, parts[2], zero = 0;
    if (bytes < HEAD) return;
    memcpy(&pieces, file + 64, sizeof pieces);
    if (pieces > (bytes - HEAD) / 8) return;
    memcpy(file + SUM, &zero, sizeof zero);
    parts[0] = rv_hash64(file, HEAD);
    parts[1] = rv_hash64(file + HEAD, (size_t)pieces * 8);
    parts[0] = rv_hash64(parts, sizeof parts);
    memcpy(file + SUM, parts, 8);
}

void fuzz_cache(const uint8_t *data, size_t bytes) {
    if (!good_file) read_good();
    if (bytes < 4) return;
    const size_t at = data[0] % 2 ? data[1] : ((size_t)data[0] | (size_t)data[1] << 8) * 9 % good_bytes;
    size_t length = data[2] & 2 ? good_bytes : good_bytes * data[2] / 256;
    if (data[2] & 4) length = good_bytes + 1;
    uint8_t *file = calloc(1, good_bytes + 1);
    FUZZ_HOLDS(file != NULL);
    memcpy(file, good_file, good_bytes);
    for (size_t i = 3; i < bytes && at + i - 3 < good_bytes; i++) file[at + i - 3] ^= data[i];
    if (data[2] & 1) {
        memcpy(file + 12, good_file + 12, 4);            /* with a right sum, pads_are_equal is what the writer said */
        mend(file, length);
    }
    FILE *f = fopen(cache_path, "wb");
    FUZZ_HOLDS(f && fwrite(file, 1, length, f) == length && fclose(f) == 0);
    free(file);
    load(false);
}
