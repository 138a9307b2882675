/* picture.h - pages as browsers show them. */
#ifndef RV_TOOLS_PICTURE_H
#define RV_TOOLS_PICTURE_H
#include "tools/files.h"

/* A PNG file of a binary PNM one, which pdftoppm and scanners write and browsers do not show; samples become 8 bit.  *out stays empty where the
 * file is no PNM and so serves as it is.  Free with input_free.  RV_ERR_FORMAT, RV_ERR_MEMORY. */
rv_status picture_png(const input *file, input *out, rv_error *err);
#endif
