/* settings.h - settings that come from RV_ variables or from a file, where the command line does not give them.
 *
 * The one idea: a setting is an option of the command line that is marked as one; RV_MEMORY_LIMIT is --memory-limit, with
 * the same values and checks.  Flags win over variables, variables over the file.  An empty value says nothing: of a
 * variable the file counts, of an option its default.  Only programs read them, never the library.
 *
 * A file has lines NAME=VALUE: blanks around both do not count, nor does "export " before them; '#' begins a comment line; a value may
 * stand in single or double quotes.  Names that do not begin with RV_ are somebody else's.
 */
#ifndef RV_TOOLS_SETTINGS_H
#define RV_TOOLS_SETTINGS_H
#include "engine/rvengine.h"
#include "tools/options.h"

/* Reads the file; its texts live as long as the program.  NULL: no file. */
rv_status settings_read(const char *path, rv_error *err);

/* What the environment, else the file, says for an option, or NULL; *from: "environment" or the file's path. */
const char *setting_of(const option *o, const char **from);

/* Whether a text value is what a setting says, and not the command line; *from as above. */
bool setting_gave(const char *option_name, const char *value, const char **from);

/* RV_MEMORY_LIMIT for memory-limit. */
typedef struct setting_name { char text[64]; } setting_name;
setting_name setting_name_of(const char *option_name);

/* Every RV_ variable of environment and file, variables first; names given by both once for each. */
typedef void (*setting_fn)(void *user, const char *name, const char *value, const char *from);
void settings_each(setting_fn each, void *user);
#endif
