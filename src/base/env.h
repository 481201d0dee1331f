/* env.h: every environment variable that the library reads.  docs/debugging.md lists them. */
#ifndef TQ_BASE_ENV_H
#define TQ_BASE_ENV_H

/* TQ_KERNELS: the instruction set to use where the caller names none; NULL if unset or empty. */
const char *tq_env_kernels(void);

#endif
