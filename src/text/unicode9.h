/* unicode9.h: what Unicode 9, which the models' own tokenizers normalise by, did not know yet. */
#ifndef TQ_TEXT_UNICODE9_H
#define TQ_TEXT_UNICODE9_H

#include <stdbool.h>
#include <stdint.h>

/* A character that a later version, through 15, reorders, composes or decomposes. */
bool tq_unicode9_lacks_form(uint32_t c);

/* A combining mark (categories Mn, Mc, Me) then. */
bool tq_unicode9_is_mark(uint32_t c);

#endif
