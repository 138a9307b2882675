/* safetensors_file.h - writes a small .safetensors file from a list of tensors, right or wrong as a test wants them. */
#ifndef RV_TESTS_SAFETENSORS_FILE_H
#define RV_TESTS_SAFETENSORS_FILE_H
#include <inttypes.h>

#include "engine/base/text.h"
#include "tests/support/folder.h"

/* shape: "4,8", "" for a scalar. */
typedef struct stored { const char *name, *type, *shape; const void *data; size_t bytes; } stored;

static inline void safetensors_write(const char *folder, const char *file, const stored *tensors, size_t n) {
    rv_string s = { 0 };
    uint64_t at = 0;
    rv_string_add(&s, "\0\0\0\0\0\0\0\0{", 9);
    for (size_t i = 0; i < n; i++, at += tensors[i - 1].bytes)
        rv_string_addf(&s, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%" PRIu64 ",%" PRIu64 "]}", i ? "," : "", tensors[i].name,
                       tensors[i].type, tensors[i].shape, at, at + tensors[i].bytes);
    rv_string_addz(&s, "}");
    while (s.bytes % 8) rv_string_addz(&s, " ");         /* numbers are aligned, as Hugging Face's are */
    assert_false(s.failed);
    for (size_t i = 0; i < 8; i++) s.data[i] = (char)((uint64_t)(s.bytes - 8) >> 8 * i & 0xff);
    for (size_t i = 0; i < n; i++) rv_string_add(&s, tensors[i].data, tensors[i].bytes);
    assert_false(s.failed);
    folder_write(folder, file, s.data, s.bytes);
    rv_string_free(&s);
}
#endif
