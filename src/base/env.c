/* env.c: see env.h. */
#include "base/env.h"

#include <stdlib.h>

const char *tq_env_kernels(void) {
    const char *value = getenv("TQ_KERNELS");
    return value && *value ? value : NULL;
}
