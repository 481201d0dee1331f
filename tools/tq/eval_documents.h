/* eval_documents.h: measurements on documents: `tq eval recall` and `tq eval kld`. */
#ifndef TQ_TOOL_EVAL_DOCUMENTS_H
#define TQ_TOOL_EVAL_DOCUMENTS_H

#include "eval_common.h"

int eval_recall(int argc, char **argv);
int eval_kld(int argc, char **argv);

/* One cache on several documents. */
typedef struct divergence_row {
    const char *kv;
    int documents, right, total, same_top, n; /* n: positions */
    double bits_per_value, packed_sum, nll, reference_nll, seconds;
    float *kld; /* (n) */
} divergence_row;

typedef struct divergence_summary {
    double mean, median, p99;
} divergence_summary;

/* Measure every cache of e->codecs on the documents for which wanted[] is not 0, each document against one run of the
 * reference.  rows: one a cache, zero; details (may be NULL): a row a cache and document is added.  On failure the
 * reason has been printed. */
int divergence_measure(const eval_options *e, tq_model *m, const tq_recall_data *data, const bool *wanted,
                       eval_watch *w, divergence_row *rows, table *details);
double divergence_work(const eval_options *e, const tq_recall_data *data, const bool *wanted);
divergence_summary divergence_summarize(divergence_row *row); /* sorts row->kld */
void divergence_free(divergence_row *rows, int n);

#endif
