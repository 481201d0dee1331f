/* gguf_types.h: the numbers that GGUF gives to tensor types. */
#ifndef TQ_FILE_GGUF_TYPES_H
#define TQ_FILE_GGUF_TYPES_H

#include <stdbool.h>
#include <stdint.h>

#include "base/tensor.h"

/* The type, or false: the number is of a type that is not read here, or of none. */
bool tq_gguf_dtype(uint32_t number, tq_dtype *out);

/* "iq2_xxs": of every number that was ever given out; NULL for the others, which only forks write. */
const char *tq_gguf_type_name(uint32_t number);

#endif
