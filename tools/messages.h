/* messages.h - a JSON conversation and image files as the library's messages and images.
 *
 * The format is that of Hugging Face's processors and of OpenAI's API:
 *   [ {"role": "user", "content": [ {"type": "image", "path": "a.png"}, {"type": "text", "text": ".."} ]}, .. ]
 * content may be one string; {"type": "image"} alone takes the next --image; {"type": "image_url",
 * "image_url": {"url": ..}} takes a data: URL or a path.  Nothing is ever fetched from a network.
 */
#ifndef RV_TOOLS_MESSAGES_H
#define RV_TOOLS_MESSAGES_H
#include <jansson.h>

#include "tools/files.h"
#include "tools/options.h"

typedef struct conversation {
    rv_message *messages;
    uint32_t    n_messages;
    rv_part    *parts;
    rv_image   *images;          /* in order; of a plain request too                           */
    input      *files;           /* as many: their bytes and names                             */
    uint32_t    n_images;
    json_t     *json;            /* texts point into it                                        */
    const char *name;            /* of the messages file, for errors; NULL: there is none      */
} conversation;

/* max_tiles and ignore_exif of every image. */
typedef struct image_choice { uint32_t max_tiles; bool ignore_exif; } image_choice;

/* Reads the files of --image, in order. */
rv_status conversation_images(const text_list *files, const image_choice *how, conversation *out, rv_error *err);
/* Reads a messages file and every image in it; `files` are those of --image, all of which it must use.
 * Errors name file, message and part. */
rv_status conversation_read(const char *path, const text_list *files, const image_choice *how, conversation *out,
                            rv_error *err);
void      conversation_free(conversation *c);
#endif
