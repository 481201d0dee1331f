/* eval_text.h: measurements on a text: `tq eval ppl` and `tq eval match`. */
#ifndef TQ_TOOL_EVAL_TEXT_H
#define TQ_TOOL_EVAL_TEXT_H

int eval_ppl(int argc, char **argv);
int eval_match(int argc, char **argv);

#endif
