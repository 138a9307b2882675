/* plan_profile.h - `rvengine plan --gpu-profile`: why a GPU gets the format it gets, and what it can promise. */
#ifndef RV_TOOLS_PLAN_PROFILE_H
#define RV_TOOLS_PLAN_PROFILE_H
#include "tools/load.h"
#include "tools/projection.h"

typedef struct profile_story {
    rv_profile   profile;
    rv_precision precision;
    rv_sizes     sizes;
    uint32_t     devices;
    bool         with_targets;       /* a GPU that somebody has set targets for                 */
    struct target_row {
        rv_weight_format weights;
        rv_memory        memory;     /* of one sequence                                         */
        projected        speed;
        uint64_t         peak;       /* with the CUDA context                                    */
    } rows[2];
} profile_story;

/* What a page is taken to be where a time is projected: 4 tiles, a prompt of 200 tokens, an answer of 100. */
extern const page_work story_page;

/* `plan`: what rv_memory_plan made of the same options.  Of one GPU that is what the story tells; of several, what a split would allow. */
rv_status story_tell(const load_choice *load, const rv_session_options *room, uint32_t devices, const rv_memory *plan, profile_story *out, rv_error *err);
void      story_print(const profile_story *s);
json_t   *story_json(const profile_story *s);
/* The table of all profiles, for `rvengine help profiles`. */
void      profiles_print(void);
#endif
