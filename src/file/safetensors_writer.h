/* safetensors_writer.h: one safetensors file whose tensors are written in any order. */
#ifndef TQ_FILE_SAFETENSORS_WRITER_H
#define TQ_FILE_SAFETENSORS_WRITER_H

#include "base/status.h"
#include "base/tensor.h"

/* Write the header for n tensors (name, dtype and shape; data is not looked at) with metadata {"format": format},
 * make the file as long as it will be, and set bytes and offsets[i], where tensor i's data goes.  Larger elements come
 * first, then names in order: every tensor is aligned to its element size, and no byte lies between two. */
tq_status tq_safetensors_write_header(int fd, const char *label, const char *format, tq_tensor *tensors, int n,
                                      int64_t *offsets, tq_error *err);

/* All of data[0..bytes) at `offset` of the file. */
tq_status tq_safetensors_write_data(int fd, const char *label, const void *data, size_t bytes, int64_t offset,
                                    tq_error *err);

#endif
