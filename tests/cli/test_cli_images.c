/* test_cli_images.c - damaged, hostile and extreme images, and texts that do not fit their images. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/cli/program.h"

static void both_refuse(int line, int code, const char *regex, const char *image) {
    check_refuses(line, code, regex, NULL, ARGS("run", "-m", MODEL, "-i", image));
    check_refuses(line, code, regex, NULL, ARGS("inspect", image));
}

/* ---- files ---------------------------------------------------------------------------------- */

static void missing_image_is_an_error(void **state) {
    (void)state;
    both_refuse(__LINE__, 3, "/no/such\\.png: cannot open: No such file", "/no/such.png");
}

static void unreadable_image_is_an_error(void **state) {
    (void)state;
    check_refuses(__LINE__, 3, "receipts: cannot (open|read): Is a directory", NULL,
                  ARGS("run", "-m", MODEL, "-i", RV_TEST_DEMO "/receipts"));
    both_refuse(__LINE__, 3, "/proc/self/mem: cannot read: Input/output error", "/proc/self/mem");
    if (geteuid() == 0) return;                        /* root reads everything */
    const char *path = file_write("locked.png", "x", 1);
    assert_int_equal(chmod(path, 0), 0);
    both_refuse(__LINE__, 3, "locked\\.png: cannot open: Permission denied", path);
}

static void file_without_end_is_an_error(void **state) {
    (void)state;
    both_refuse(__LINE__, 4, "/dev/zero: too large: more than 512 MiB", "/dev/zero");
}

static void image_of_0_bytes_is_an_error(void **state) {
    (void)state;
    both_refuse(__LINE__, 4, "empty\\.png: .*empty", file_write("empty.png", "", 0));
    both_refuse(__LINE__, 4, "/dev/null: .*empty", "/dev/null");
    both_refuse(__LINE__, 4, "stdin: .*empty", "-");
}

static void text_file_is_no_image(void **state) {
    (void)state;
    both_refuse(__LINE__, 5, "notes\\.txt: ", file_write("notes.txt", "milk, bread, butter\n", 20));
    both_refuse(__LINE__, 5, "page\\.pdf: .*PDF", file_write("page.pdf", "%PDF-1.7\n%....\n1 0 obj\n", 23));
}

static void truncated_image_is_an_error(void **state) {
    (void)state;
    size_t bytes;
    char *png = file_read(RECEIPT, &bytes);
    const char *path = file_write("cut.png", png, bytes / 2);
    refuses(4, "cut\\.png: PNG: truncated", "run", "-m", MODEL, "-i", path);
    refuses(4, "cut\\.png: PNG: truncated", "extract", "-m", MODEL, "-s", "sroie", path);
    path = file_write("cut.png", png, 20);
    both_refuse(__LINE__, 4, "cut\\.png: .*PNG", path);
    png[bytes / 2] = (char)(png[bytes / 2] ^ 0x55);
    path = file_write("flipped.png", png, bytes);
    refuses(4, "flipped\\.png: PNG.*damaged", "run", "-m", MODEL, "-i", path);
    free(png);
}

/* ---- extreme sizes -------------------------------------------------------------------------- */

static void put_u32(unsigned char *at, uint32_t v) {
    for (int i = 0; i < 4; i++) at[i] = (unsigned char)(v >> (24 - 8 * i));
}

static uint32_t crc32(const unsigned char *data, size_t n) {
    uint32_t crc = 0xffffffffu;
    for (size_t i = 0; i < n; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++) crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
    }
    return ~crc;
}

/* A chunk at `at`; returns its length. */
static size_t chunk(unsigned char *at, const char *type, const unsigned char *data, uint32_t n) {
    put_u32(at, n);
    memcpy(at + 4, type, 4);
    if (n) memcpy(at + 8, data, n);
    put_u32(at + 8 + n, crc32(at + 4, n + 4));
    return n + 12;
}

/* A PNG of a few bytes whose header promises width x height grey pixels. */
static const char *promise(const char *name, uint32_t width, uint32_t height) {
    static const unsigned char signature[8] = { 0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n' };
    static const unsigned char zeros[] = { 0x78, 0x9c, 0x63, 0x00, 0x00, 0x00, 0x01, 0x00, 0x01 };
    unsigned char png[128], header[13] = { 0 };
    size_t n = sizeof signature;
    memcpy(png, signature, n);
    put_u32(header, width);
    put_u32(header + 4, height);
    header[8] = 8;
    n += chunk(png + n, "IHDR", header, sizeof header);
    n += chunk(png + n, "IDAT", zeros, sizeof zeros);
    n += chunk(png + n, "IEND", NULL, 0);
    return file_write(name, png, n);
}

static void decompression_bomb_is_an_error(void **state) {
    (void)state;
    both_refuse(__LINE__, 9, "bomb\\.png: .*60000x60000 pixels", promise("bomb.png", 60000, 60000));
    both_refuse(__LINE__, 9, "wide\\.png: .*2147483647x1 pixels", promise("wide.png", 0x7fffffff, 1));
    refuses(4, "short\\.png: .*PNG", "run", "-m", MODEL, "-i", promise("short.png", 10000, 10000));
    both_refuse(__LINE__, 4, "zero\\.png: .*PNG", promise("zero.png", 0, 10));
}

/* A grey PGM of one shade. */
static const char *shade(const char *name, int width, int height) {
    char header[64];
    int n = snprintf(header, sizeof header, "P5\n%d %d\n255\n", width, height);
    size_t bytes = (size_t)n + (size_t)width * (size_t)height;
    char *file = malloc(bytes);
    assert_non_null(file);
    memcpy(file, header, (size_t)n);
    memset(file + n, 0xee, bytes - (size_t)n);
    const char *path = file_write(name, file, bytes);
    free(file);
    return path;
}

static void smallest_image_works(void **state) {
    (void)state;
    const char *path = shade("one.pgm", 1, 1);
    prints("1 x 1 pixels", "inspect", path);
    prints(".", "run", "-m", MODEL, "-i", path, "-n", "5");
}

static void very_long_image_works(void **state) {
    (void)state;
    const char *path = shade("long.pgm", 30000, 100);
    prints("30000 x 100 pixels", "inspect", path);
    prints(".", "run", "-m", MODEL, "-i", path, "-n", "5");
}

static void thinner_than_a_pixel_is_no_crash(void **state) {
    (void)state;                            /* resized to the canvas, its height is less than one pixel */
    const char *path = shade("thread.pgm", 60000, 1);
    outcome o = run_with(NULL, ARGS("run", "-m", MODEL, "-i", path, "-n", "5"));
    if (o.code == 0) assert_true(o.out_bytes > 0);
    else assert_true(o.code >= 3 && o.code <= 9 && o.out_bytes == 0 && matches(o.err, "thread\\.pgm: "));
    outcome_free(&o);
}

/* ---- images and texts ------------------------------------------------------------------------ */

static void raw_text_and_images_must_agree(void **state) {
    (void)state;
    refuses(2, "1 image.*0|0 .*1 image|<\\|image\\|>", "run", "-m", MODEL, "-i", RECEIPT, "--raw", "no mark");
    refuses(2, "<\\|image\\|>", "run", "-m", MODEL, "--raw", "<|image|>What is the total?");
    refuses(2, "<\\|image\\|>", "run", "-m", MODEL, "-i", RECEIPT, "--raw", "<|image|><|image|>x");
    refuses(2, "<\\|image\\|>", "run", "-m", MODEL, "-i", RECEIPT, "--control-tokens", "-p", "<|image|>x");
}

static void invalid_utf8_is_an_error(void **state) {
    (void)state;
    refuses(4, "UTF-8", "run", "-m", MODEL, "-p", "caf\xe9");
    refuses(4, "UTF-8", "run", "-m", MODEL, "-i", RECEIPT, "-p", "\xc0\x80");
    refuses(4, "UTF-8", "run", "-m", MODEL, "--raw", "\xed\xa0\x80");
    refuses(4, "UTF-8", "run", "-m", MODEL, "-p", "x", "--system", "\xff");
    refuses(4, "UTF-8", "run", "-m", MODEL, "-p", "x", "--stop", "\xff");
    refuses(4, "prompt\\.txt: not a text file: a NUL byte at offset 1", "run", "-m", MODEL, "--prompt-file",
            file_write("prompt.txt", "a\0b", 3));
}

static void prompt_longer_than_the_context_is_an_error(void **state) {
    (void)state;
    refuses(9, "context|tokens", "run", "-m", MODEL, "-i", RECEIPT, "--context", "10");
    char *text = malloc(20001);
    assert_non_null(text);
    memset(text, 'q', 20000);
    text[20000] = '\0';
    refuses(9, "context|tokens", "run", "-m", MODEL, "-p", text);
    free(text);
}

static void damaged_messages_name_the_place(void **state) {
    static const char *const cases[][2] = {
        { "", "not JSON: line 1" },
        { "{}", "must be a list of messages" },
        { "[]", "must be a list of messages" },
        { "[5]", "message 1: must be an object" },
        { "[{\"role\": \"wizard\", \"content\": \"x\"}]", "talk.json: message 1: \"role\" must be system, user, assistant or tool, is \"wizard\"" },
        { "[{\"role\": \"user\", \"content\": \"x\"}, {\"role\": \"system\", \"content\": \"x\"}]", "talk.json: message 2: only the first message can have the role" },
        { "[{\"role\": 5, \"content\": \"x\"}]", "message 1: \"role\" must be a string" },
        { "[{\"role\": \"user\"}]", "message 1: \"content\" must be" },
        { "[{\"role\": \"user\", \"content\": \"x\", \"name\": \"y\"}]", "message 1: unknown key \"name\"" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"audio\"}]}]", "message 1, part 1: \"type\" must be" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"text\"}]}]", "message 1, part 1: \"text\" must be a string" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image\"}]}]", "message 1, part 1: .*no --image is left" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"https://e.org/a.png\"}}]}]",
          "message 1, part 1: image URLs other than data: are not fetched" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:image/png;base64,abc\"}}]}]",
          "message 1, part 1: .*not valid base64" },
        { "[{\"role\": \"user\", \"content\": [{\"type\": \"image_url\", \"image_url\": {\"url\": \"data:text\"}}]}]",
          "message 1, part 1: .*must be data:image/TYPE;base64" },
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const char *path = file_write("talk.json", cases[i][0], strlen(cases[i][0]));
        refuses(4, cases[i][1], "run", "-m", MODEL, "--messages", path);
    }
    const char *text = "[{\"role\": \"user\", \"content\": \"x\"}]";
    refuses(2, "has places for 0 of the 1 --image", "run", "-m", MODEL, "-i", RECEIPT, "--messages",
            file_write("talk.json", text, strlen(text)));
    text = "[{\"role\": \"system\", \"content\": [{\"type\": \"text\", \"text\": \"x\"}, {\"type\": \"image\", \"path\": \"" RECEIPT "\"}]},"
           " {\"role\": \"user\", \"content\": \"x\"}]";
    refuses(4, "talk.json: message 1, part 2: a system message cannot hold an image", "run", "-m", MODEL, "--template", "B", "--messages",
            file_write("talk.json", text, strlen(text)));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(missing_image_is_an_error),
        cmocka_unit_test(unreadable_image_is_an_error),
        cmocka_unit_test(file_without_end_is_an_error),
        cmocka_unit_test(image_of_0_bytes_is_an_error),
        cmocka_unit_test(text_file_is_no_image),
        cmocka_unit_test(truncated_image_is_an_error),
        cmocka_unit_test(decompression_bomb_is_an_error),
        cmocka_unit_test(smallest_image_works),
        cmocka_unit_test(very_long_image_works),
        cmocka_unit_test(thinner_than_a_pixel_is_no_crash),
        cmocka_unit_test(raw_text_and_images_must_agree),
        cmocka_unit_test(invalid_utf8_is_an_error),
        cmocka_unit_test(prompt_longer_than_the_context_is_an_error),
        cmocka_unit_test(damaged_messages_name_the_place),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
