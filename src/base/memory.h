/* memory.h: how much memory can be taken now without somebody being killed for it. */
#ifndef TQ_BASE_MEMORY_H
#define TQ_BASE_MEMORY_H

#include <stdint.h>

typedef struct tq_memory_room {
    int64_t bytes; /* that can be had now: free, or given back by the system at once (files that are cached) */
    int64_t total; /* that there would be if nobody else took any; both INT64_MAX where the system does not say */
    char limit[96]; /* what sets the bound: "this machine's memory", "the memory limit of cgroup /x" */
} tq_memory_room;

/* MemAvailable of the machine, or what is left of the limit of a control group (v1 or v2) that this process is in or that
 * is above it, whichever is less.  root stands before /proc and /sys: "" but in tests. */
void tq_memory_room_read(const char *root, tq_memory_room *out);

#endif
