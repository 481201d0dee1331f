/* list_kernels.c: the names of the kernel tables that run on this processor, one a line, best first. */
#include <stdio.h>

#include "backend/cpu/kernels.h"

int main(void) {
    for (const tq_kernels *const *k = tq_kernels_all; *k; k++)
        if ((*k)->runs_here()) puts((*k)->name);
    return 0;
}
