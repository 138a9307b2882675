/* split.h - cuts text into the pieces that BPE works on, as Llama 3's pattern does.
 *
 *   (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
 *
 * The one idea: every character is one of five classes, and with those in hand each alternative of
 * the pattern needs at most two characters of lookahead, so there is nothing to backtrack into.
 * Source: spec mllama.md section 7.2.
 */
#ifndef RV_TOKENIZER_SPLIT_H
#define RV_TOKENIZER_SPLIT_H
#include <stddef.h>
#include <stdint.h>

#define RV_SPLIT_PATTERN "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}|" \
                         " ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

typedef enum { RV_CLASS_OTHER, RV_CLASS_LETTER, RV_CLASS_NUMBER, RV_CLASS_SPACE, RV_CLASS_NEWLINE,
               RV_CLASS_END } rv_class;

enum { RV_CLASSES_LOW = 0x800 };              /* what two bytes of UTF-8 can say is looked up here */
typedef struct rv_classes { uint8_t low[RV_CLASSES_LOW]; } rv_classes;
void rv_classes_fill(rv_classes *classes);

/* The class of any code point: \p{L}, \p{N}, CR or LF, other White_Space, or none of them. */
rv_class rv_class_of(uint32_t code);

/* Where the piece that begins at `at` < bytes ends: at < result <= bytes.  `text` is valid UTF-8
 * and `at` stands on a character.  Any thread. */
size_t rv_split_next(const rv_classes *classes, const char *text, size_t bytes, size_t at);
#endif
