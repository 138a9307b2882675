/* damage.c - see damage.h. */
#include "tests/failures/damage.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

const char *const damage_names[DAMAGE_KINDS] = { "bytes", "cut short", "too long", "sizes in a header", "JSON edited", "removed, renamed, replaced",
                                                 "another file's contents", "NaN, Inf in weights", "bytes of weights" };

static uint64_t seed_now;

static uint32_t draw(size_t below) {
    seed_now ^= seed_now >> 12;
    seed_now ^= seed_now << 25;
    seed_now ^= seed_now >> 27;
    return below ? (uint32_t)((seed_now * UINT64_C(2685821657736338717) >> 33) % below) : 0;
}

static bool is_weights(const damage_file *f) { return strstr(f->name, ".safetensors") && !strstr(f->name, ".json"); }

/* Length and header of a weights file. */
static size_t header_bytes(const damage_file *f) {
    uint64_t n = 0;
    memcpy(&n, f->data, sizeof n);
    return 8 + (size_t)n;
}

static const damage_file *pick(const damage_file *files, int n, bool weights, bool json) {
    for (;;) {
        const damage_file *f = &files[draw((size_t)n)];
        if (is_weights(f) ? weights : json) return f;
    }
}

static void path_of(char path[1024], const char *folder, const char *name) { snprintf(path, 1024, "%s/%s", folder, name); }

static void put(const char *folder, const char *name, const void *data, size_t bytes) {
    char path[1024];
    path_of(path, folder, name);
    FILE *f = fopen(path, "wb");
    if (!f || fwrite(data, 1, bytes, f) != bytes || fclose(f)) perror(path), abort();
}

void damage_mend(const char *folder, const damage_file *files, int n) {
    char path[1024];
    for (int i = 0; i < n; i++) {
        path_of(path, folder, files[i].name);
        if (remove(path) == 0 || access(path, F_OK)) put(folder, files[i].name, files[i].data, files[i].bytes);
        snprintf(path, sizeof path, "%s/%s.old", folder, files[i].name);
        remove(path);
    }
}

/* ---- the kinds: each changes a copy, `room` bytes longer than the file ---- */

enum { ROOM = 4096 };

static size_t some_bytes(char *data, size_t from, size_t end) {
    for (uint32_t k = 1 + draw(4); k; k--) {
        const size_t at = from + draw(end - from);
        const uint32_t to = draw(2) ? draw(256) : (uint8_t)data[at] ^ 1u << draw(8);
        data[at] = (char)(uint8_t)to;
    }
    return end;
}

static size_t edit_json(char *data, size_t n) {
    static const char *const values[] = { "null", "true", "-1", "0", "1e308", "\"\"", "[]", "{}", "2147483648", "9999999999999999999999", "0.5", "\"x\"", "1", "64" };
    const char *value = values[draw(sizeof values / sizeof *values)];
    size_t at = draw(n), length = strlen(value), old = 0;
    while (at > 0 && data[at] != ':') at--;              /* the value behind a colon                 */
    if (data[at] == ':') at++;
    while (at + old < n && !strchr(",}]\n", data[at + old])) old++;
    if (draw(5) == 0) length = 0;                        /* nothing there                            */
    if (draw(6) == 0) return memmove(data + at, data + at + 1, n - at - 1), n - 1;
    memmove(data + at + length, data + at + old, n - at - old);
    memcpy(data + at, value, length);
    return n - old + length;
}

/* A digit of the header, or a byte of its length. */
static void edit_length(char *data, size_t header) {
    size_t at = draw(8);
    if (draw(4)) {
        at = 8 + draw(header - 8);
        while (at < header && (data[at] < '0' || data[at] > '9')) at++;
        if (at < header) data[at] = (char)('0' + draw(10));
    } else data[at] = (char)draw(256);
}

/* bf16: NaN or infinity; `what` says which. */
static void edit_weights(char *data, size_t header, size_t n, char what[200]) {
    static const struct { uint16_t bits; const char *name; } values[] = { { 0x7fc0, "NaN" }, { 0xffc0, "-NaN" }, { 0x7f80, "Inf" }, { 0xff80, "-Inf" } };
    const uint32_t which = draw(4);
    const uint16_t value = values[which].bits;
    const size_t count = draw(2) ? 1 : 1 + draw(200);
    size_t at = header + draw((n - header) / 2) * 2;
    snprintf(what, 200, "%zu times %s from byte %zu on", count, values[which].name, at - header);
    for (size_t i = 0; i < count && at + 2 <= n; i++, at += 2) memcpy(data + at, &value, sizeof value);
}

static void replace(const char *folder, const damage_file *f, char what[200]) {
    char path[1024], other[1100];
    path_of(path, folder, f->name);
    snprintf(other, sizeof other, "%s.old", path);
    const uint32_t how = draw(5);
    static const char *const names[] = { "removed", "renamed", "empty", "a folder", "a link to nothing" };
    snprintf(what, 200, "%s %s", f->name, names[how]);
    if (how == 1) (void)!rename(path, other);
    else remove(path);
    if (how == 2) put(folder, f->name, "", 0);
    if (how == 3) mkdir(path, 0755);
    if (how == 4) (void)!symlink("nothing", path);
}

void damage_do(damage_kind kind, uint64_t seed, const char *folder, const damage_file *files, int n_files, char what[200]) {
    seed_now = seed * 2 + 1;
    for (int i = 0; i < 8; i++) draw(2);
    const bool only_json = kind == DAMAGE_JSON, only_weights = kind == DAMAGE_LENGTH || kind == DAMAGE_NAN || kind == DAMAGE_WEIGHTS;
    const damage_file *f = pick(files, n_files, !only_json, !only_weights);
    if (kind == DAMAGE_GONE) {
        replace(folder, f, what);
        return;
    }
    char *data = malloc(f->bytes + ROOM);
    size_t n = f->bytes;
    if (!data) abort();
    memcpy(data, f->data, n);
    const size_t header = is_weights(f) ? header_bytes(f) : n;
    if (kind == DAMAGE_BYTES) some_bytes(data, 0, header);
    else if (kind == DAMAGE_CUT) n = draw(2) ? draw(n) : draw(header);
    else if (kind == DAMAGE_LONGER) n += 1 + draw(ROOM - 1), memset(data + f->bytes, (int)draw(256), n - f->bytes);
    else if (kind == DAMAGE_LENGTH) edit_length(data, header);
    else if (kind == DAMAGE_JSON) n = edit_json(data, n);
    else if (kind == DAMAGE_NAN) edit_weights(data, header, n, what);
    else if (kind == DAMAGE_WEIGHTS) some_bytes(data, header, n);
    const damage_file *other = kind == DAMAGE_SWAPPED ? &files[draw((size_t)n_files)] : NULL;
    if (kind != DAMAGE_NAN) snprintf(what, 200, "%s: %s (%zu bytes, were %zu)", f->name, other ? other->name : damage_names[kind], other ? other->bytes : n, f->bytes);
    if (other) put(folder, f->name, other->data, other->bytes);
    else put(folder, f->name, data, n);
    free(data);
}
