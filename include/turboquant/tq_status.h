/* tq_status.h: how every function of turboquant reports failure.
 *
 * A function that can fail returns tq_status (0 is success) and, when given a tq_error, writes a text that says what
 * was wanted and what was found.  The library never prints, never exits and keeps no global state. */
#ifndef TQ_STATUS_H
#define TQ_STATUS_H

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define TQ_API __attribute__((visibility("default")))
#else
#define TQ_API
#endif

typedef enum tq_status {
    TQ_OK = 0,
    TQ_INVALID,     /* an argument or option is wrong */
    TQ_NOT_FOUND,   /* a file, tensor or name does not exist */
    TQ_IO,          /* reading or writing failed */
    TQ_FORMAT,      /* a file is damaged or lies about itself */
    TQ_UNSUPPORTED, /* a valid input that this version does not handle; the text names it */
    TQ_NO_MEMORY,
    TQ_FULL,      /* the context or the cache has no room; nothing was changed */
    TQ_CANCELLED, /* the caller asked to stop */
    TQ_BUSY,      /* no place now: try again later */
} tq_status;

/* Filled only on failure.  text is NUL-terminated, one line, without a trailing newline. */
typedef struct tq_error {
    tq_status code;
    char text[512];
} tq_error;

/* "ok", "invalid argument", ...: static storage. */
TQ_API const char *tq_status_name(tq_status status);

/* "0.1.0" */
TQ_API const char *tq_version(void);

#ifdef __cplusplus
}
#endif
#endif
