/* embed.c - one image, one question, one answer: the whole life of an embedded engine.
 *
 *     cc -I. tools/examples/embed.c build/cpu/librvengine.so -o embed && ./embed MODEL_DIR IMAGE [PROMPT]
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/rvengine.h"

static char *read_file(const char *path, size_t *bytes) {
    FILE *file = fopen(path, "rb");
    char *data = NULL;
    long end = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (end > 0 && fseek(file, 0, SEEK_SET) == 0 && (data = malloc((size_t)end)))
        *bytes = fread(data, 1, (size_t)end, file);
    if (file) fclose(file);
    return data;
}

int main(int argc, char **argv) {
    rv_error err = { RV_OK, "cannot read the image" };
    rv_model *model = NULL;
    rv_session *session = NULL;
    rv_job *job = NULL;
    rv_status st = RV_ERR_IO;
    rv_load_options load = { .size = sizeof load };            /* zero means default, everywhere */
    rv_session_options room = { .size = sizeof room, .slots = 1 };
    if (argc < 3) return fputs("usage: embed MODEL_DIR IMAGE [PROMPT]\n", stderr), 2;

    rv_image page = { .size = sizeof page };
    page.data = read_file(argv[2], &page.bytes);
    rv_request request = { .size = sizeof request, .images = &page, .n_images = 1,
                           .prompt = argc > 3 ? argv[3] : "Extract the receipt as KEY: VALUE lines." };

    if (page.data) st = rv_model_load(argv[1], &load, &model, &err);
    if (st == RV_OK) st = rv_session_new(model, &room, &session, &err);
    if (st == RV_OK) st = rv_generate(session, &request, &job, &err);
    if (st == RV_OK) puts(rv_job_text(job, NULL));
    else fprintf(stderr, "embed: %s\n", err.message);

    rv_job_free(job);
    rv_session_free(session);
    rv_model_free(model);
    free((void *)page.data);
    return st == RV_OK ? 0 : 1;
}
