/* text_buf.c: see text_buf.h. */
#include "text/text_buf.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

tq_status tq_array_reserve(void *array_pointer, size_t n, size_t n_more, size_t *cap, size_t size, const char *what,
                           tq_error *err) {
    if (n_more <= *cap - n) return TQ_OK;
    if (n_more > SIZE_MAX / 4 / size - n) return tq_fail_memory(err, SIZE_MAX, what);
    size_t wanted = *cap < 16 ? 16 : *cap + *cap / 2;
    if (wanted < n + n_more) wanted = n + n_more;
    void *array;
    memcpy(&array, array_pointer, sizeof array);
    array = realloc(array, wanted * size);
    if (!array) return tq_fail_memory(err, wanted * size, what);
    memcpy(array_pointer, &array, sizeof array);
    *cap = wanted;
    return TQ_OK;
}

tq_status tq_text_buf_add(tq_text_buf *buf, const char *bytes, size_t n, tq_error *err) {
    if (buf->limit && n > buf->limit - buf->n) {
        return tq_fail(err, TQ_INVALID, "a text grows to more than %zu bytes while it is normalised", buf->limit);
    }
    TQ_TRY(tq_array_reserve(&buf->data, buf->n, n, &buf->cap, 1, "text", err));
    if (n) memcpy(buf->data + buf->n, bytes, n);
    buf->n += n;
    return TQ_OK;
}

void tq_text_buf_free(tq_text_buf *buf) {
    free(buf->data);
    *buf = (tq_text_buf){0};
}
