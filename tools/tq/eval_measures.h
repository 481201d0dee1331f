/* eval_measures.h: measurements of `tq eval` in files of their own. */
#ifndef TQ_TOOL_EVAL_MEASURES_H
#define TQ_TOOL_EVAL_MEASURES_H

int eval_ppl(int argc, char **argv);        /* eval_text.c */
int eval_match(int argc, char **argv);      /* eval_text.c */
int eval_niah(int argc, char **argv);       /* eval_niah.c */
int eval_distortion(int argc, char **argv); /* eval_rows.c */

#endif
