/* script.h - a model that says what a script has it say: the demo model, whose probabilities are replaced. */
#ifndef RV_TESTS_ENGINE_SCRIPT_H
#define RV_TESTS_ENGINE_SCRIPT_H
#include "engine/session.h"

/* The whole answer to a prompt (its text, control tokens too); NULL: "no script for .." fails the test. */
typedef const char *(*script_fn)(void *user, const char *prompt);

/* From now on the session's answers are the script's, with probability `sure` a token.  The session samples on the host (the CPU backend). */
void script_play(rv_session *session, script_fn script, void *user, double sure);
void script_end(void);
#endif
