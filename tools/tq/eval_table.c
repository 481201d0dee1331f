/* eval_table.c: see eval_table.h. */
#include "eval_table.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void table_column(table *t, const char *key, const char *title, table_kind kind, int decimals) {
    if (t->n_columns == TABLE_COLUMNS_CAP) {
        t->failed = true;
        return;
    }
    t->columns[t->n_columns].key = key;
    t->columns[t->n_columns].title = title;
    t->columns[t->n_columns].kind = kind;
    t->columns[t->n_columns++].decimals = decimals;
}

static void add(table *t, table_cell cell) {
    if (t->n_cells == t->cap) {
        size_t cap = t->cap ? 2 * t->cap : 64;
        table_cell *cells = realloc(t->cells, cap * sizeof *cells);
        if (!cells) {
            t->failed = true;
            free(cell.text);
            return;
        }
        t->cells = cells;
        t->cap = cap;
    }
    t->cells[t->n_cells++] = cell;
}

void table_text(table *t, const char *text) {
    char *copy = strdup(text);
    if (!copy) t->failed = true;
    else add(t, (table_cell){.text = copy});
}

void table_number(table *t, double value) { add(t, (table_cell){.number = value}); }

int table_rows(const table *t) { return t->n_columns ? (int)(t->n_cells / (size_t)t->n_columns) : 0; }

void table_free(table *t) {
    for (size_t i = 0; i < t->n_cells; i++) free(t->cells[i].text);
    free(t->cells);
    *t = (table){0};
}

static const table_cell *cell_at(const table *t, int row, int column) {
    return &t->cells[(size_t)row * (size_t)t->n_columns + (size_t)column];
}

/* ---- for people -------------------------------------------------------------------------------------------------- */

static void show(const table *t, int row, int column, char out[64]) {
    const table_cell *c = cell_at(t, row, column);
    int decimals = t->columns[column].decimals;
    if (t->columns[column].kind == TABLE_TEXT) snprintf(out, 64, "%s", c->text);
    else if (!isfinite(c->number)) strcpy(out, "-");
    else if (t->columns[column].kind == TABLE_INT) snprintf(out, 64, "%.0f", c->number);
    else if (t->columns[column].kind == TABLE_SHARE) snprintf(out, 64, "%.*f%%", decimals, 100 * c->number);
    else snprintf(out, 64, "%.*f", decimals, c->number);
}

void table_print(const table *t, FILE *to) {
    if (t->failed) return;
    size_t width[TABLE_COLUMNS_CAP] = {0};
    char text[64];
    int rows = table_rows(t);
    for (int c = 0; c < t->n_columns; c++) {
        width[c] = t->columns[c].title ? strlen(t->columns[c].title) : 0;
        for (int r = 0; r < rows; r++) {
            show(t, r, c, text);
            if (strlen(text) > width[c]) width[c] = strlen(text);
        }
    }
    for (int r = -1; r < rows; r++) {
        bool first = true;
        for (int c = 0; c < t->n_columns; c++) {
            if (!t->columns[c].title) continue;
            if (r < 0) snprintf(text, sizeof text, "%s", t->columns[c].title);
            else show(t, r, c, text);
            if (!first) fputs("  ", to);
            first = false;
            fprintf(to, t->columns[c].kind == TABLE_TEXT ? "%-*s" : "%*s", (int)width[c], text);
        }
        fputc('\n', to);
    }
}

/* ---- for programs ------------------------------------------------------------------------------------------------ */

static void csv_text(const char *text, FILE *to) {
    if (!text[strcspn(text, ",\"\r\n")]) {
        fputs(text, to);
        return;
    }
    fputc('"', to);
    for (; *text; text++) {
        if (*text == '"') fputc('"', to);
        fputc(*text, to);
    }
    fputc('"', to);
}

void table_csv(const table *t, FILE *to) {
    for (int c = 0; c < t->n_columns; c++) fprintf(to, c ? ",%s" : "%s", t->columns[c].key);
    fputs("\r\n", to);
    for (int r = 0; r < table_rows(t); r++) {
        for (int c = 0; c < t->n_columns; c++) {
            const table_cell *cell = cell_at(t, r, c);
            if (c) fputc(',', to);
            if (t->columns[c].kind == TABLE_TEXT) csv_text(cell->text, to);
            else if (isfinite(cell->number)) fprintf(to, t->columns[c].kind == TABLE_INT ? "%.0f" : "%.9g", cell->number);
        }
        fputs("\r\n", to);
    }
}

void table_json(const table *t, jout *j) {
    jout_array(j);
    for (int r = 0; r < table_rows(t); r++) {
        jout_object(j);
        for (int c = 0; c < t->n_columns; c++) {
            const table_cell *cell = cell_at(t, r, c);
            if (t->columns[c].kind == TABLE_TEXT) jout_put_string(j, t->columns[c].key, cell->text);
            else if (t->columns[c].kind == TABLE_INT && isfinite(cell->number))
                jout_put_int(j, t->columns[c].key, (int64_t)cell->number);
            else jout_put_number(j, t->columns[c].key, cell->number);
        }
        jout_end(j);
    }
    jout_end(j);
}
