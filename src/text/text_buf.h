/* text_buf.h: a growing run of bytes. */
#ifndef TQ_TEXT_TEXT_BUF_H
#define TQ_TEXT_TEXT_BUF_H

#include <stddef.h>

#include "base/status.h"

/* Zero-initialised is empty.  data may hold any bytes and is not NUL-terminated. */
typedef struct tq_text_buf {
    char *data;
    size_t n, cap;
    size_t limit; /* bytes that it may hold; 0: any number */
} tq_text_buf;

/* bytes may not lie in the buffer itself.  TQ_INVALID beyond the limit. */
tq_status tq_text_buf_add(tq_text_buf *buf, const char *bytes, size_t n, tq_error *err);
void tq_text_buf_free(tq_text_buf *buf);

/* Make room for n_more elements of `size` bytes after n in an array of *cap.  The array may move. */
tq_status tq_array_reserve(void *array_pointer, size_t n, size_t n_more, size_t *cap, size_t size, const char *what,
                           tq_error *err);

#endif
