/* hub_http.h: one request to a hub, redirects followed: by libcurl, but hop by hop, so that the token goes to the hub's own
 * host and nowhere else, and the first answer's headers are seen.
 * Not here: what a body means, and trying again (hub_fetch.h, hub_pull.c). */
#ifndef TQ_HUB_HTTP_H
#define TQ_HUB_HTTP_H

#include "hub_cache.h"

typedef struct hub_client hub_client;

tq_status hub_client_new(const hub_settings *settings, hub_client **out, tq_error *err);
void hub_client_free(hub_client *client); /* NULL is fine */

/* What the last answer said of itself. */
typedef struct hub_answer {
    long status;                /* 0: no answer came */
    char linked_etag[128];      /* of the hub's own answer: the digest of the content */
    int64_t linked_size;        /* likewise, or -1 */
    char commit[64];            /* likewise: X-Repo-Commit */
    char etag[256];             /* of the answer that has the body, as sent: for If-Range */
    char content_range[128];
    char message[200];          /* X-Error-Message */
    char code[64];              /* X-Error-Code */
    int retry_after;            /* seconds, or -1 */
    char host[256];             /* that sent it */
    char trouble[256];          /* why there is no (whole) answer; "" if there is */
    bool transient;             /* trouble or status that may be gone the next time */
} hub_answer;

/* The body as it comes, of a final answer with status 200 or 206; false ends the transfer. */
typedef bool (*hub_body_fn)(void *ctx, const hub_answer *answer, const char *data, size_t n);

/* GET endpoint + path.  from > 0 asks for the bytes from there on; if_range (may be "") is an ETag.  TQ_OK: there was an
 * answer, of whatever status, and its body is complete.  TQ_IO: see answer->trouble.  TQ_CANCELLED: body said so. */
tq_status hub_get(hub_client *client, const char *path, int64_t from, const char *if_range, hub_body_fn body, void *ctx,
                  hub_answer *answer, tq_error *err);

/* What a status other than 200 and 206 means for `what`, as a sentence; the code to return. */
tq_status hub_explain(const hub_settings *settings, const hub_answer *answer, const char *repo, const char *what, tq_error *err);

/* Percent-encode all but letters, digits, "-._~" and the characters of `kept`; free().  NULL: out of memory. */
char *hub_encode(const char *text, const char *kept);

#endif
