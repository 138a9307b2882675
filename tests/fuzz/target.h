/* target.h - what is fuzzed: one function a reader of files that others wrote.
 *
 * The one idea: a target takes any bytes and judges what the reader made of them (an error with a message, or a result that
 * keeps its promises); it aborts where neither is so.  clang's libFuzzer looks for such bytes (libfuzzer.c); where there is no
 * clang, and in every test run, replay.c gives it those that are kept in corpus/, and mutations of them.
 */
#ifndef RV_TESTS_FUZZ_TARGET_H
#define RV_TESTS_FUZZ_TARGET_H
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "engine/base/status.h"

typedef struct fuzz_target {
    const char *name;                    /* also the folder in corpus/                          */
    void      (*run)(const uint8_t *data, size_t bytes);
    uint32_t    rounds;                  /* mutations of one file that take replay some tenths of a second in all */
} fuzz_target;

extern const fuzz_target fuzz_targets[];     /* ends with a name of NULL                        */
const fuzz_target *fuzz_find(const char *name);      /* NULL: no such target                    */

void fuzz_safetensors(const uint8_t *data, size_t bytes);
void fuzz_index(const uint8_t *data, size_t bytes);
void fuzz_config(const uint8_t *data, size_t bytes);
void fuzz_tokenizer(const uint8_t *data, size_t bytes);
void fuzz_image(const uint8_t *data, size_t bytes);
void fuzz_messages(const uint8_t *data, size_t bytes);
void fuzz_template(const uint8_t *data, size_t bytes);
void fuzz_quant_state(const uint8_t *data, size_t bytes);
void fuzz_json(const uint8_t *data, size_t bytes);
void fuzz_cache(const uint8_t *data, size_t bytes);
void fuzz_answer(const uint8_t *data, size_t bytes);
void fuzz_fields(const uint8_t *data, size_t bytes);
void fuzz_schema(const uint8_t *data, size_t bytes);
void fuzz_form(const uint8_t *data, size_t bytes);
void fuzz_value(const uint8_t *data, size_t bytes);
void fuzz_page(const uint8_t *data, size_t bytes);
void fuzz_rows(const uint8_t *data, size_t bytes);

/* ---- judging ---- */

/* Says what promise was broken, and aborts. */
_Noreturn void fuzz_broken(const char *what, const char *detail);
#define FUZZ_HOLDS(fact) do { if (!(fact)) fuzz_broken(__func__, #fact); } while (0)

/* A failed call: the code is in the error too, the message is a line of text, and it is not called a bug of ours. */
void fuzz_error(rv_status st, const rv_error *err);

/* ---- files ---- */

/* A path that holds these bytes, until the next call with this slot (0 to 3): a file in memory. */
const char *fuzz_file(int slot, const void *data, size_t bytes);
/* A folder of this process in memory, made once. Each of `names` is one of the files above; so a target writes without
 * touching a disk. */
const char *fuzz_folder(const char *const *names, int n);
/* Pieces of an input that stands for several files, parted by NUL bytes: piece i, empty where there is none. */
typedef struct fuzz_piece { const uint8_t *data; size_t bytes; } fuzz_piece;
fuzz_piece fuzz_piece_at(const uint8_t *data, size_t bytes, int i);
/* A copy in a block of exactly its size, so that the sanitizer sees a read past the end. The caller frees. */
uint8_t *fuzz_exact(const void *data, size_t bytes);
#endif
