/* target.c - the list of targets, and what they share. */
#include "tests/fuzz/target.h"

#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

const fuzz_target fuzz_targets[] = {
    { "safetensors", fuzz_safetensors, 400 }, { "index", fuzz_index, 300 },       { "config", fuzz_config, 300 },
    { "tokenizer", fuzz_tokenizer, 100 },     { "image", fuzz_image, 200 },       { "messages", fuzz_messages, 300 },
    { "json", fuzz_json, 400 },
    { "template", fuzz_template, 200 },       { "quant_state", fuzz_quant_state, 300 }, { "cache", fuzz_cache, 10 },
    { "answer", fuzz_answer, 200 },           { "fields", fuzz_fields, 100 },       { "schema", fuzz_schema, 100 },
    { "form", fuzz_form, 20 },                { "value", fuzz_value, 400 },         { "page", fuzz_page, 200 },
    { "rows", fuzz_rows, 200 },
    { NULL, NULL, 0 },
};

const fuzz_target *fuzz_find(const char *name) {
    for (const fuzz_target *t = fuzz_targets; t->name; t++)
        if (!strcmp(t->name, name)) return t;
    return NULL;
}

void fuzz_broken(const char *what, const char *detail) {
    fprintf(stderr, "fuzz: %s: does not hold: %s\n", what, detail);
    abort();
}

void fuzz_error(rv_status st, const rv_error *err) {
    FUZZ_HOLDS(st < 0 && err->code == st);
    const size_t n = strnlen(err->message, sizeof err->message);
    FUZZ_HOLDS(n >= 10 && n < sizeof err->message);
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)err->message[i] < 0x20) fuzz_broken("a message holds a control character", err->message);
    if (st == RV_ERR_INTERNAL || st == RV_ERR_ARGUMENT || st == RV_ERR_ABI || st == RV_ERR_DEVICE) fuzz_broken("the file is at fault, not", err->message);
}

/* ---- files ---- */

enum { SLOTS = 4 };
static int slots[SLOTS] = { -1, -1, -1, -1 };

static int slot_fd(int slot) {
    FUZZ_HOLDS(slot >= 0 && slot < SLOTS);
    if (slots[slot] < 0) slots[slot] = memfd_create("fuzz", 0);
    FUZZ_HOLDS(slots[slot] >= 0);
    return slots[slot];
}

static void slot_path(int slot, char path[64]) { snprintf(path, 64, "/proc/%d/fd/%d", (int)getpid(), slot_fd(slot)); }

const char *fuzz_file(int slot, const void *data, size_t bytes) {
    static char paths[SLOTS][64];
    const int fd = slot_fd(slot);
    FUZZ_HOLDS(ftruncate(fd, 0) == 0);
    FUZZ_HOLDS(bytes == 0 || pwrite(fd, data, bytes, 0) == (ssize_t)bytes);
    slot_path(slot, paths[slot]);
    return paths[slot];
}

static char folder[64];
static char linked[SLOTS][96];

static void remove_folder(void) {
    for (int i = 0; i < SLOTS; i++)
        if (linked[i][0]) unlink(linked[i]);
    rmdir(folder);
}

const char *fuzz_folder(const char *const *names, int n) {
    if (folder[0]) return folder;
    const char *const base = access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
    snprintf(folder, sizeof folder, "%s/rv_fuzz.XXXXXX", base);
    FUZZ_HOLDS(n <= SLOTS && mkdtemp(folder) != NULL);
    atexit(remove_folder);
    for (int i = 0; i < n; i++) {
        char path[64];
        slot_path(i, path);
        snprintf(linked[i], sizeof linked[i], "%s/%s", folder, names[i]);
        FUZZ_HOLDS(symlink(path, linked[i]) == 0);
    }
    return folder;
}

fuzz_piece fuzz_piece_at(const uint8_t *data, size_t bytes, int i) {
    const uint8_t *const end = data + bytes;
    for (; i > 0 && data < end; i--) {
        const uint8_t *nul = memchr(data, 0, (size_t)(end - data));
        data = nul ? nul + 1 : end;
    }
    const uint8_t *nul = data < end ? memchr(data, 0, (size_t)(end - data)) : NULL;
    return (fuzz_piece){ data, (size_t)((nul ? nul : end) - data) };
}

uint8_t *fuzz_exact(const void *data, size_t bytes) {
    uint8_t *copy = malloc(bytes ? bytes : 1);
    FUZZ_HOLDS(copy != NULL);
    if (bytes) memcpy(copy, data, bytes);
    return copy;
}
