/* doctor_checks.h - what `rvengine doctor` says about settings, libraries and the GPUs' profiles. */
#ifndef RV_TOOLS_DOCTOR_CHECKS_H
#define RV_TOOLS_DOCTOR_CHECKS_H
#include <stdbool.h>

/* Takes a finding: its name, what it is, and a line of text.  A note: something is missing that nothing here needs. */
typedef enum { FINDING_WRONG, FINDING_OK, FINDING_NOTE } finding;
typedef void (*finding_fn)(void *user, const char *name, finding is, const char *text);

/* Every RV_ variable, and line of the --env-file that was read: unknown names and malformed values.  Returns how many are wrong. */
int  doctor_settings(finding_fn add, void *user);
/* Shared libraries that are loaded when they are wanted: the driver's, and NVML for power. */
void doctor_libraries(finding_fn add, void *user);
/* For every GPU its profile, which package is made for it, and what of its memory is used where it runs. */
void doctor_profiles(finding_fn add, void *user);
#endif
