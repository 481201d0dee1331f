/* eval_table.h: results as a table for people, as JSON and as CSV, from one description.
 *
 *     table t = {0};
 *     table_column(&t, "kv", "kv", TABLE_TEXT, 0);
 *     table_column(&t, "kld_mean", "mean", TABLE_NUMBER, 5);
 *     table_text(&t, "tq3");  table_number(&t, 0.0016);          // a row, column by column
 *     table_print(&t);  table_free(&t);
 *
 * A number that is NaN is absent: "-", null, or an empty field. */
#ifndef TQ_TOOL_EVAL_TABLE_H
#define TQ_TOOL_EVAL_TABLE_H

#include "json_out.h"

typedef enum table_kind {
    TABLE_TEXT,
    TABLE_INT,
    TABLE_NUMBER, /* shown with so many decimals */
    TABLE_SHARE,  /* 0..1; shown as per cent */
} table_kind;

enum { TABLE_COLUMNS_CAP = 16 };

typedef struct table_cell {
    char *text; /* of TABLE_TEXT, owned */
    double number;
} table_cell;

typedef struct table {
    struct {
        const char *key, *title; /* of JSON and CSV, and for people; title NULL: not for people */
        table_kind kind;
        int decimals;
    } columns[TABLE_COLUMNS_CAP];
    int n_columns;
    table_cell *cells;
    size_t n_cells, cap;
    bool failed; /* out of memory */
} table;

void table_column(table *t, const char *key, const char *title, table_kind kind, int decimals);
void table_text(table *t, const char *text);
void table_number(table *t, double value);
int table_rows(const table *t);
void table_print(const table *t, FILE *to);
void table_csv(const table *t, FILE *to); /* RFC 4180, the keys first */
void table_json(const table *t, jout *j); /* an array of objects */
void table_free(table *t);

#endif
