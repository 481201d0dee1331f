/* template_filters.h: the tables of filters. */
#ifndef TQ_TEXT_TEMPLATE_FILTERS_H
#define TQ_TEXT_TEMPLATE_FILTERS_H

#include "text/template_ast.h"

typedef struct tq_filter {
    const char *name;
    const char *params[tq_max_params]; /* NULL-terminated */
    tq_status (*apply)(tq_render *r, tq_tv value, const tq_tv *slots, tq_tv *out);
    tq_status (*apply_args)(tq_render *r, tq_tv value, const tq_args *args, tq_tv *out); /* instead: any arguments */
} tq_filter;

extern const tq_filter tq_value_filters[], tq_sequence_filters[]; /* a NULL name ends each */

/* An integer argument; fallback if it is missing or none. */
tq_status tq_slot_int(tq_render *r, tq_tv slot, int64_t fallback, int64_t *out);

#endif
