/* commands.h: the commands of tq.  argv[0] is the command's name; the result is the exit code. */
#ifndef TQ_TOOL_COMMANDS_H
#define TQ_TOOL_COMMANDS_H

int cmd_generate(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_quantize(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_quality(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_codecs(int argc, char **argv);
int cmd_pull(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_plan(int argc, char **argv);

#endif
