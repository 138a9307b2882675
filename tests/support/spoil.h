/* spoil.h - a small synthetic model in which one number is another. */
#ifndef RV_TESTS_SPOIL_H
#define RV_TESTS_SPOIL_H
#include "tests/support/folder.h"

#include "engine/model.h"
#include "engine/synth.h"

/* Makes the model in this program's folder "spoilt", and writes `bf16` over element `element` of the tensor of that (canonical) name. */
static inline void model_spoil(char dir[1024], const char *name, size_t element, uint16_t bf16) {
    rv_error err;
    char path[1024] = "";
    uint64_t at = 0;
    rv_synth_options o = { .size = sizeof o, .shape = "tiny" };
    if (rv_synthesise(folder_new(dir, "spoilt"), &o, NULL, &err)) fail_msg("%s", err.message);
    rv_files f;
    if (rv_files_open(dir, false, &f, &err)) fail_msg("%s", err.message);
    const rv_tensor *t = rv_checkpoint_find(f.checkpoint, name);
    assert_non_null(t);
    rv_map map;
    snprintf(path, sizeof path, "%s", t->file);
    expect_ok(rv_map_open(path, &map, &err), &err);
    for (at = 0; memcmp(map.data + at, t->data, 64); at++) assert_true(at + 64 < map.bytes);
    rv_map_close(&map);
    rv_files_close(&f);
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)(at + element * 2), SEEK_SET), 0);
    assert_int_equal(fwrite(&bf16, 2, 1, file), 1);
    assert_int_equal(fclose(file), 0);
}
#endif
