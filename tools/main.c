/* main.c - rvengine: its subcommands. */
#include "tools/commands.h"
#include "tools/plan_profile.h"
#include "tools/program.h"

static const command commands[] = {
    { "run", "read images, or answer a prompt", cmd_run },
    { "inspect", "what a model folder or an image is, without running it", cmd_inspect },
    { "plan", "how much memory a model takes, without loading it", cmd_plan },
    { "doctor", "what this build and this machine can do", cmd_doctor },
    { "tokenize", "text to token ids and back", cmd_tokenize },
    { "synth", "write a model with random weights, for benchmarks", cmd_synth },
    { "quantise", "write a model with int8 or NF4 weights, as bitsandbytes does", cmd_quantise },
    { "extract", "read a document's fields, checked", cmd_extract },
    { "classify", "say which type of document a page is", cmd_classify },
    { "batch", "extract from many documents, resumable", cmd_batch },
    { "schema", "document types and their fields: list, show, check", cmd_schema },
    { "validate", "check fields that are there already, without a model", cmd_validate },
    { "eval", "compare answers with the truth; check a truth file", cmd_eval },
};

static const program rvengine = {
    .name = "rvengine",
    .about = "rvengine reads documents with Llama-3.2-Vision models (HF \"Mllama\" folders).",
    .commands = commands,
    .n_commands = sizeof commands / sizeof *commands,
    .topic = "profiles",
    .print_topic = profiles_print,
    .examples = "  rvengine run --model /models/Llama-3.2-11B-Vision-Instruct --image receipt.jpg\n"
                "  rvengine plan --model /models/Llama-3.2-11B-Vision-Instruct --weights int8",
};

int main(int argc, char **argv) { return program_main(&rvengine, argc, argv); }
