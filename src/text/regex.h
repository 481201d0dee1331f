/* regex.h: the regular expressions of a tokenizer.json, which are written for Oniguruma, on PCRE2. */
#ifndef TQ_TEXT_REGEX_H
#define TQ_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "base/status.h"

typedef struct tq_regex tq_regex;

/* A construct that the two engines read differently is rewritten or, where that cannot be, refused by name
 * (TQ_UNSUPPORTED).  literal: the pattern is plain text. */
tq_status tq_regex_new(const char *pattern, size_t length, bool literal, tq_regex **out, tq_error *err);
void tq_regex_free(tq_regex *regex);

/* Working memory of one caller: make one per thread. */
typedef struct tq_regex_scratch tq_regex_scratch;
tq_status tq_regex_scratch_new(tq_regex_scratch **out, tq_error *err);
void tq_regex_scratch_free(tq_regex_scratch *scratch);

/* The first match at or after `from` in subject, which is valid UTF-8: *found, *start, *end. */
tq_status tq_regex_find(const tq_regex *regex, tq_regex_scratch *scratch, const char *subject, size_t length,
                        size_t from, bool *found, size_t *start, size_t *end, tq_error *err);

#endif
