/* messages.c - a JSON conversation as the library's messages: see messages.h. */
#include "tools/messages.h"

#include <stdlib.h>
#include <string.h>

#include "tools/json_read.h"

/* Where in the file we are, for messages, and what is still to be handed out. */
typedef struct reader {
    const char         *path;
    const text_list    *given;           /* --image                                            */
    size_t              given_used, message, part;
    const image_choice *how;
    conversation       *c;
    rv_error           *err;
} reader;

static rv_status wrong(const reader *r, const char *why) {
    if (r->part == 0) return fail(r->err, RV_ERR_FORMAT, "%s: message %zu: %s", r->path, r->message, why);
    return fail(r->err, RV_ERR_FORMAT, "%s: message %zu, part %zu: %s", r->path, r->message, r->part, why);
}

static rv_status wrong_key(const reader *r, const char *key, const char *known) {
    char why[200];
    snprintf(why, sizeof why, "unknown key \"%.60s\": known are %s", key, known);
    return wrong(r, why);
}

/* ---- images ------------------------------------------------------------------------------- */

/* Takes ownership of the file; c->images and c->files have room. */
static void add_image(conversation *c, const image_choice *how, input file) {
    c->files[c->n_images] = file;
    c->images[c->n_images++] = (rv_image){ .size = sizeof(rv_image), .data = file.data, .bytes = file.bytes,
                                           .max_tiles = how->max_tiles, .ignore_exif = how->ignore_exif };
}

static rv_status make_room(conversation *c, size_t images, rv_error *err) {
    if (images == 0) return RV_OK;
    c->images = calloc(images, sizeof *c->images);
    c->files = calloc(images, sizeof *c->files);
    return c->images && c->files ? RV_OK : fail(err, RV_ERR_MEMORY, "images: out of memory");
}

rv_status conversation_images(const text_list *files, const image_choice *how, conversation *out, rv_error *err) {
    rv_status st = make_room(out, files->count, err);
    for (size_t i = 0; i < files->count && st == RV_OK; i++) {
        input file;
        st = input_read(files->items[i], &file, err);
        if (st == RV_OK) add_image(out, how, file);
    }
    return st;
}

static int base64_digit(char c) {
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

/* RFC 4648 section 4, strict: padded, no other characters. `out` has room for bytes / 4 * 3. */
static bool base64_decode(const char *text, size_t bytes, char *out, size_t *n_out) {
    if (bytes % 4) return false;
    size_t pad = bytes && text[bytes - 1] == '=' ? (text[bytes - 2] == '=' ? 2 : 1) : 0, n = 0;
    uint32_t word = 0;
    for (size_t i = 0; i < bytes - pad; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) return false;
        word = word << 6 | (uint32_t)digit;
        if (i % 4 != 3) continue;
        for (int shift = 16; shift >= 0; shift -= 8) out[n++] = (char)(word >> shift & 0xff);
        word = 0;
    }
    if (pad == 1) out[n++] = (char)(word >> 10 & 0xff), out[n++] = (char)(word >> 2 & 0xff);
    if (pad == 2) out[n++] = (char)(word >> 4 & 0xff);
    *n_out = n;
    return true;
}

static rv_status add_data_url(reader *r, const char *url, size_t bytes) {
    static const char mark[] = ";base64,";
    const char *at = strstr(url, mark);
    if (!at || at != strchr(url, ';')) return wrong(r, "image_url: a data: URL must be data:image/TYPE;base64,..");
    at += strlen(mark);
    size_t left = bytes - (size_t)(at - url);
    input file = { .data = malloc(left / 4 * 3 + 1), .name = "data: URL" };
    if (!file.data) return fail(r->err, RV_ERR_MEMORY, "%s: out of memory", r->path);
    if (!base64_decode(at, left, file.data, &file.bytes)) {
        input_free(&file);
        return wrong(r, "image_url: the data: URL is not valid base64");
    }
    add_image(r->c, r->how, file);
    return RV_OK;
}

static rv_status add_file(reader *r, const char *path) {
    input file;
    rv_status st = input_read(path, &file, r->err);
    if (st == RV_OK) add_image(r->c, r->how, file);
    return st;
}

static rv_status add_next_given(reader *r) {
    if (r->given_used == r->given->count)
        return wrong(r, "an image without \"path\", and no --image is left for it: give one --image more");
    return add_file(r, r->given->items[r->given_used++]);
}

/* A path or data: URL, as HF's "path"/"url" and OpenAI's "image_url" have it. */
static rv_status add_location(reader *r, const json_t *value) {
    const char *text = json_string_value(value);
    if (!text || strlen(text) != json_string_length(value) || !*text)
        return wrong(r, "where the image is must be a string: a path or a data: URL");
    if (strncmp(text, "data:", 5) == 0) return add_data_url(r, text, json_string_length(value));
    if (strstr(text, "://"))
        return wrong(r, "image URLs other than data: are not fetched: download the file and give its path");
    return add_file(r, text);
}

/* ---- parts -------------------------------------------------------------------------------- */

static rv_status read_image_part(reader *r, json_t *object) {
    const char *key;
    json_t *value;
    json_t *where = NULL;
    json_object_foreach(object, key, value) {
        if (strcmp(key, "path") == 0 || strcmp(key, "url") == 0 || strcmp(key, "image") == 0) {
            if (where) return wrong(r, "says twice where the image is");
            where = value;
        } else if (strcmp(key, "type") != 0) return wrong_key(r, key, "\"type\", \"path\", \"url\", \"image\"");
    }
    return where ? add_location(r, where) : add_next_given(r);
}

static rv_status read_image_url_part(reader *r, json_t *object) {
    const char *key;
    json_t *value, *url = json_object_get(object, "image_url");
    json_object_foreach(object, key, value)
        if (strcmp(key, "type") != 0 && strcmp(key, "image_url") != 0) return wrong_key(r, key, "\"type\", \"image_url\"");
    if (json_is_object(url)) {
        json_object_foreach(url, key, value)      /* "detail" is a hint about cost: nothing is lost without it */
            if (strcmp(key, "url") != 0 && strcmp(key, "detail") != 0) return wrong_key(r, key, "\"url\", \"detail\"");
        url = json_object_get(url, "url");
    }
    return url ? add_location(r, url) : wrong(r, "\"image_url\": {\"url\": ..} is missing");
}

static rv_status read_text_part(reader *r, json_t *object, rv_part *part) {
    const char *key;
    json_t *value, *text = json_object_get(object, "text");
    json_object_foreach(object, key, value)
        if (strcmp(key, "type") != 0 && strcmp(key, "text") != 0) return wrong_key(r, key, "\"type\", \"text\"");
    if (!json_is_string(text)) return wrong(r, "\"text\" must be a string");
    part->text = json_string_value(text);
    part->text_bytes = json_string_length(text);
    return RV_OK;
}

static rv_status read_part(reader *r, json_t *object, rv_part *part) {
    const char *type = json_string_value(json_object_get(object, "type"));
    rv_status st;
    part->size = sizeof *part;
    if (!json_is_object(object)) return wrong(r, "must be an object with \"type\"");
    if (!type) return wrong(r, "\"type\" must be \"text\", \"image\" or \"image_url\"");
    if (strcmp(type, "text") == 0) return read_text_part(r, object, part);
    if (strcmp(type, "image") == 0) st = read_image_part(r, object);
    else if (strcmp(type, "image_url") == 0) st = read_image_url_part(r, object);
    else return wrong(r, "\"type\" must be \"text\", \"image\" or \"image_url\"");
    if (st == RV_OK) part->image = &r->c->images[r->c->n_images - 1];
    return st;
}

/* ---- messages ----------------------------------------------------------------------------- */

static rv_status check_role(const reader *r, const char *role) {
    static const char *const roles[] = { "system", "user", "assistant", "tool", "ipython" };
    char why[200];
    if (strcmp(role, "system") == 0 && r->message > 1) return wrong(r, "only the first message can have the role \"system\"");
    for (size_t i = 0; i < sizeof roles / sizeof *roles; i++)
        if (strcmp(role, roles[i]) == 0) return RV_OK;
    snprintf(why, sizeof why, "\"role\" must be system, user, assistant or tool, is \"%.60s\"", role);
    return wrong(r, why);
}

static rv_status read_message(reader *r, json_t *object, rv_message *message, rv_part *parts) {
    const char *key;
    json_t *value, *role = json_object_get(object, "role"), *content = json_object_get(object, "content");
    r->part = 0;
    if (!json_is_object(object)) return wrong(r, "must be an object with \"role\" and \"content\"");
    json_object_foreach(object, key, value)
        if (strcmp(key, "role") != 0 && strcmp(key, "content") != 0) return wrong_key(r, key, "\"role\", \"content\"");
    if (!json_is_string(role) || strlen(json_string_value(role)) != json_string_length(role))
        return wrong(r, "\"role\" must be a string: system, user, assistant or tool");
    rv_status st = check_role(r, json_string_value(role));
    if (st) return st;
    *message = (rv_message){ .size = sizeof *message, .role = json_string_value(role), .parts = parts };
    if (json_is_string(content)) {
        parts[0] = (rv_part){ .size = sizeof *parts, .text = json_string_value(content),
                              .text_bytes = json_string_length(content) };
        message->n_parts = 1;
        return RV_OK;
    }
    if (!json_is_array(content)) return wrong(r, "\"content\" must be a string or a list of parts");
    for (size_t i = 0; i < json_array_size(content) && st == RV_OK; i++) {
        r->part = i + 1;
        st = read_part(r, json_array_get(content, i), &parts[message->n_parts++]);
    }
    return st;
}

static size_t count_parts(json_t *root) {
    size_t n = 0, i;
    json_t *message;
    json_array_foreach(root, i, message) {
        json_t *content = json_object_get(message, "content");
        n += json_is_array(content) ? json_array_size(content) : 1;
    }
    return n;
}

static rv_status read_messages(reader *r) {
    conversation *c = r->c;
    size_t n = json_array_size(c->json), n_parts = count_parts(c->json), at = 0;
    if (!json_is_array(c->json) || n == 0)
        return fail(r->err, RV_ERR_FORMAT, "%s: must be a list of messages: [{\"role\": .., \"content\": ..}, ..]", r->path);
    if (n > UINT32_MAX || n_parts > UINT32_MAX) return fail(r->err, RV_ERR_TOO_LONG, "%s: too many messages", r->path);
    c->messages = calloc(n, sizeof *c->messages);
    c->parts = calloc(n_parts + 1, sizeof *c->parts);
    if (!c->messages || !c->parts) return fail(r->err, RV_ERR_MEMORY, "%s: out of memory", r->path);
    rv_status st = make_room(c, n_parts, r->err);
    for (size_t i = 0; i < n && st == RV_OK; i++) {
        r->message = i + 1;
        st = read_message(r, json_array_get(c->json, i), &c->messages[i], c->parts + at);
        at += c->messages[i].n_parts;
        c->n_messages++;
    }
    if (st == RV_OK && r->given_used < r->given->count)
        st = fail(r->err, RV_ERR_ARGUMENT, "%s: has places for %zu of the %zu --image files: add {\"type\": \"image\"} parts",
                  r->path, r->given_used, r->given->count);
    return st;
}

rv_status conversation_read(const char *path, const text_list *files, const image_choice *how, conversation *out,
                            rv_error *err) {
    input text;
    json_error_t why;
    rv_status st = input_read(path, &text, err);
    if (st) return st;
    out->json = json_read(text.data, text.bytes, JSON_REJECT_DUPLICATES | JSON_ALLOW_NUL | JSON_DECODE_ANY, &why);
    if (!out->json)
        st = fail(err, RV_ERR_FORMAT, "%s: not JSON: line %d, column %d: %s", text.name, why.line, why.column, why.text);
    out->name = text.name;
    reader r = { .path = text.name, .given = files, .how = how, .c = out, .err = err };
    input_free(&text);
    return st ? st : read_messages(&r);
}

void conversation_free(conversation *c) {
    for (uint32_t i = 0; i < c->n_images; i++) input_free(&c->files[i]);
    free(c->messages);
    free(c->parts);
    free(c->images);
    free(c->files);
    json_decref(c->json);
    *c = (conversation){ 0 };
}
