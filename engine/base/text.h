/* text.h - UTF-8, and a string that grows. */
#ifndef RV_BASE_TEXT_H
#define RV_BASE_TEXT_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Reads one code point at text[0..bytes), bytes > 0.  Returns its length 1..4 and sets *code;
 * 0 when the bytes there are no UTF-8 (overlong, surrogate, beyond U+10FFFF, cut short). */
size_t rv_utf8_read(const char *text, size_t bytes, uint32_t *code);
/* Writes 1..4 bytes; code must be a scalar value. */
size_t rv_utf8_write(uint32_t code, char out[4]);
/* Offset of the first byte that is no UTF-8, or `bytes` when all of it is. */
size_t rv_utf8_check(const char *text, size_t bytes);

/* A byte string that grows.  Zero-initialise; data is NUL-terminated once anything was added
 * (rv_string_text never returns NULL).  An allocation that fails sets `failed`, and from then on
 * adding does nothing: check once at the end.  Numbers are written as in C, whatever the program's locale. */
typedef struct rv_string { char *data; size_t bytes, capacity; bool failed; } rv_string;
void        rv_string_add(rv_string *s, const char *data, size_t bytes);
void        rv_string_addz(rv_string *s, const char *text);
void        rv_string_addf(rv_string *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
const char *rv_string_text(const rv_string *s);
void        rv_string_free(rv_string *s);

/* A size for people: "21.34 GB", below one "37.0 MB". */
typedef struct rv_size_words { char text[32]; } rv_size_words;
rv_size_words rv_size_in_words(uint64_t bytes);
#endif
