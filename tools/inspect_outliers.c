/* inspect_outliers.c - rvengine inspect --outliers: which layers are given values that int8 must treat apart. */
#include "tools/inspect.h"

#include <stdio.h>
#include <stdlib.h>

#include "tools/files.h"
#include "tools/messages.h"
#include "tools/report.h"

static const char NAME[] = "inspect";
static const char DEFAULT_PROMPT[] = "Extract the receipt as KEY: VALUE lines.";

typedef struct table { json_t *json; uint32_t modules, with; double threshold; } table;

static void print_one(void *user, const rv_outliers *m) {
    table *t = user;
    if (t->modules++ == 0)
        printf("\n  inputs of at least %g\n  %-58s %8s %8s %8s %8s %10s %9s\n", t->threshold, "linear layer", "columns", "rows", "outlier", "in a row", "values", "largest");
    if (!m->values) return;
    t->with++;
    printf("  %-58s %8u %8llu %8u %8u %10llu %9.4g\n", m->module, m->columns, (unsigned long long)m->rows, m->outlier_columns, m->most_in_a_row,
           (unsigned long long)m->values, (double)m->largest);
}

static void add_one(void *user, const rv_outliers *m) {
    table *t = user;
    json_array_append_new(t->json, json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:f}", "module", m->module, "columns", (json_int_t)m->columns, "rows",
                                             (json_int_t)m->rows, "outlier_columns", (json_int_t)m->outlier_columns, "most_in_a_row",
                                             (json_int_t)m->most_in_a_row, "values", (json_int_t)m->values, "largest", (double)m->largest));
}

int inspect_outliers(const inspect_options *o, const char *const *images, size_t n, json_t *root) {
    rv_error err;
    rv_model *model = NULL;
    conversation talk = { 0 };
    text_list files = { 0 };
    const image_choice how = { inspect_tiles(o), o->no_exif };
    table t = { .threshold = o->load.threshold_given && o->load.threshold > 0 ? o->load.threshold : 6 };
    files.items = (const char **)(uintptr_t)images;
    files.count = n;
    rv_status st = conversation_images(&files, &how, &talk, &err);
    rv_load_options load = load_options(&o->load);
    if (st == RV_OK) st = rv_model_load(o->load.model, &load, &model, &err);
    progress_end();
    rv_request ask = { .size = sizeof ask, .images = talk.images, .n_images = talk.n_images, .prompt = o->prompt ? o->prompt : DEFAULT_PROMPT,
                       .max_tokens = (uint32_t)o->max_tokens };
    if (o->json) t.json = json_array();
    if (st == RV_OK) st = rv_count_outliers(model, &ask, (float)t.threshold, o->json ? add_one : print_one, &t, &err);
    if (st) json_decref(t.json);                         /* none were counted: no list, which would say that there are none */
    else if (o->json) json_object_set_new(root, "outliers", json_pack("{s:f, s:o}", "threshold", t.threshold, "modules", t.json));
    else printf("  %u of %u inputs have any\n\n", t.with, t.modules);
    rv_model_free(model);
    conversation_free(&talk);
    return st ? report(NAME, &err) : EXIT_OK;
}
