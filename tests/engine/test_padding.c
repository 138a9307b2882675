/* test_padding.c - whether padding tiles are all alike is seen in the tile tables, to the last number. */
#include "tests/support/folder.h"

#include "engine/rvengine.h"
#include "engine/weights.h"

static const char table[] = "vision.pre_tile_positional_embedding.embedding.weight";

typedef struct model { rv_config config; rv_checkpoint *checkpoint; char dir[1024]; } model;

static void reopen(model *m) {
    rv_error err;
    rv_checkpoint_close(m->checkpoint);
    if (rv_checkpoint_open(m->dir, &m->checkpoint, &err)) fail_msg("%s", err.message);
}

/* Writes a 16-bit number over one of the table's, in the model's only file. */
static void write_number(model *m, size_t element, uint16_t bits) {
    const rv_tensor *t = rv_checkpoint_find(m->checkpoint, table);
    const char *first = t->data;
    char path[2048];
    uint64_t header;
    for (uint32_t i = 0; i < rv_checkpoint_count(m->checkpoint); i++)
        if ((const char *)rv_checkpoint_at(m->checkpoint, i)->data < first) first = rv_checkpoint_at(m->checkpoint, i)->data;
    snprintf(path, sizeof path, "%s/model.safetensors", m->dir);
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    assert_int_equal(fread(&header, sizeof header, 1, f), 1);
    assert_int_equal(fseek(f, (long)(8 + header) + ((const char *)t->data - first) + (long)(2 * element), SEEK_SET), 0);
    assert_int_equal(fwrite(&bits, sizeof bits, 1, f), 1);
    fclose(f);
    reopen(m);
}

static void one_number_in_an_unused_slot_makes_them_differ(void **state) {
    (void)state;
    rv_error err;
    model m = { .checkpoint = NULL };
    rv_synth_options o = { .size = sizeof o, .shape = "tiny" };
    folder_new(m.dir, "model");
    if (rv_synthesise(m.dir, &o, NULL, &err) || rv_config_load(m.dir, &m.config, &err)) fail_msg("%s", err.message);
    reopen(&m);
    const size_t row = (size_t)m.config.vision.max_tiles * (size_t)m.config.vision.hidden, slot = (size_t)m.config.vision.hidden;
    /* Aspect ratio 1 is one tile: the rest of its row is unused, up to where the next row begins. */
    const size_t unused[] = { row + slot, row + slot + 1, row + slot + 6, 2 * row - 1 }, used[] = { row + slot - 1, 2 * row, 0 };
    assert_true(rv_weights_pads_equal(&m.config, m.checkpoint));
    for (size_t i = 0; i < sizeof unused / sizeof *unused; i++) {
        write_number(&m, unused[i], 0x0001);
        assert_false(rv_weights_pads_equal(&m.config, m.checkpoint));
        write_number(&m, unused[i], 0x8000);                             /* -0 is zero */
        assert_true(rv_weights_pads_equal(&m.config, m.checkpoint));
    }
    for (size_t i = 0; i < sizeof used / sizeof *used; i++) {
        write_number(&m, used[i], 0x3f80);
        assert_true(rv_weights_pads_equal(&m.config, m.checkpoint));
    }
    rv_checkpoint_close(m.checkpoint);
    folder_new(m.dir, "model");
    assert_int_equal(rmdir(m.dir), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = { cmocka_unit_test(one_number_in_an_unused_slot_makes_them_differ) };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
