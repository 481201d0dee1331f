/* template_text.h: operations on strings that both filters and methods offer.  Origins follow the bytes. */
#ifndef TQ_TEXT_TEMPLATE_TEXT_H
#define TQ_TEXT_TEMPLATE_TEXT_H

#include "text/template_value.h"

typedef enum tq_text_case {
    TQ_CASE_LOWER,
    TQ_CASE_UPPER,
    TQ_CASE_CAPITALIZE, /* the first character up, the rest down */
    TQ_CASE_TITLE,      /* as str.title(): words are runs of letters */
    TQ_CASE_WORDS       /* as Jinja's title: words are what white space and opening brackets leave */
} tq_text_case;

enum { TQ_STRIP_LEFT = 1, TQ_STRIP_RIGHT = 2 };

/* chars NULL: white space. */
tq_status tq_text_strip(tq_render *r, const tq_tv_str *s, const tq_tv_str *chars, int sides, tq_tv *out);
/* Offset of part in s from byte `from` on, or SIZE_MAX. */
size_t tq_text_find(const tq_tv_str *s, const tq_tv_str *part, size_t from);
size_t tq_text_find_last(const tq_tv_str *s, const tq_tv_str *part);
/* most < 0: all. */
tq_status tq_text_replace(tq_render *r, const tq_tv_str *s, const tq_tv_str *old, const tq_tv_str *with, int64_t most,
                          tq_tv *out);
/* separator NULL: runs of white space. */
tq_status tq_text_split(tq_render *r, const tq_tv_str *s, const tq_tv_str *separator, int64_t most, bool from_right,
                        tq_tv *out);
tq_status tq_text_lines(tq_render *r, const tq_tv_str *s, bool keep_ends, tq_tv_list **out);
tq_status tq_text_change_case(tq_render *r, const tq_tv_str *s, tq_text_case wanted, tq_tv *out);
/* str(item) of each, with separator between. */
tq_status tq_text_join(tq_render *r, const tq_tv_str *separator, const tq_tv_list *items, bool only_strings,
                       tq_tv *out);
/* Python's int(text) and float(text): false if it is none. */
bool tq_text_to_int(const tq_tv_str *s, int64_t *out);
bool tq_text_to_float(const tq_tv_str *s, double *out);

#endif
