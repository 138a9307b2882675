/* main.c - rvbench: its subcommands. */
#include "bench/commands.h"
#include "tools/plan_profile.h"
#include "tools/program.h"

static const command commands[] = {
    { "run", "load a model and time every stage of a request", cmd_run },
    { "report", "one page with plots from what runs with --gpu-profile wrote", cmd_report },
    { "ops", "time single operations of the published shape, without a model", cmd_ops },
};

static const program rvbench = {
    .name = "rvbench",
    .about = "rvbench measures rvengine, and what the hardware allows, in the same run.",
    .commands = commands,
    .n_commands = sizeof commands / sizeof *commands,
    .topic = "profiles",
    .print_topic = profiles_print,
    .fallback = "run",
    .examples = "  rvengine synth /tmp/11b && rvbench run --model /tmp/11b\n"
                "  rvbench --gpu-profile v100 --json v100.json\n"
                "  rvbench report v100.json h100.json -o report.html\n"
                "  rvbench run --model /tmp/11b --batch 1,8,32 --json now.json --hf hf.json\n"
                "  rvbench ops --rows 1,8",
};

int main(int argc, char **argv) { return program_main(&rvbench, argc, argv); }
