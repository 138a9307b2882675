/* commands.h - the subcommands of rvbench. */
#ifndef RV_BENCH_COMMANDS_H
#define RV_BENCH_COMMANDS_H

int cmd_run(int argc, char **argv);
int cmd_ops(int argc, char **argv);
int cmd_report(int argc, char **argv);
#endif
