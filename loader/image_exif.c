/* image_exif.c - the one EXIF tag that matters here: which way is up.
 *
 * The one idea: a few bounded reads of the first directory are all it takes; whatever is odd there
 * means "no orientation", as in Pillow, for a damaged tag is no reason to refuse a photo.
 */
#include "loader/image_formats.h"

#include <string.h>

enum { TAG_ORIENTATION = 0x0112, TYPE_SHORT = 3, TYPE_LONG = 4, ENTRY_BYTES = 12 };

typedef uint32_t (*read_fn)(const uint8_t *p);

uint32_t rv_exif_orientation(const uint8_t *tiff, size_t bytes) {
    if (bytes < 8) return 1;
    bool little = memcmp(tiff, "II*\0", 4) == 0;
    if (!little && memcmp(tiff, "MM\0*", 4) != 0) return 1;
    read_fn get16 = little ? rv_le16 : rv_be16, get32 = little ? rv_le32 : rv_be32;
    uint32_t directory = get32(tiff + 4);
    if (directory > bytes - 2 || directory < 8) return 1;
    uint32_t entries = get16(tiff + directory);
    size_t   room = (bytes - directory - 2) / ENTRY_BYTES;
    for (uint32_t i = 0; i < entries && i < room; i++) {
        const uint8_t *entry = tiff + directory + 2 + (size_t)i * ENTRY_BYTES;
        if (get16(entry) != TAG_ORIENTATION) continue;
        uint32_t type = get16(entry + 2), value = 0;
        if (get32(entry + 4) != 1) return 1;
        if (type == TYPE_SHORT) value = get16(entry + 8);
        if (type == TYPE_LONG) value = get32(entry + 8);
        return value >= 1 && value <= 8 ? value : 1;
    }
    return 1;
}
