/* http_watch.h: connections that are to have said or taken something by a certain time, and what happens if not: they are
 * shut down, so that nobody holds a place by sending a byte a minute. */
#ifndef TQ_SERVER_HTTP_WATCH_H
#define TQ_SERVER_HTTP_WATCH_H

typedef struct http_watch http_watch;

http_watch *http_watch_new(void); /* with a thread; NULL: neither memory nor a thread to be had */
void http_watch_free(http_watch *watch);

/* connection: any pointer that is unique while the connection lasts.  fd stays open until http_watch_remove returns. */
void http_watch_add(http_watch *watch, const void *connection, int fd, double seconds);
void http_watch_remove(http_watch *watch, const void *connection);
/* Something must have happened within so many seconds; 0: no limit. */
void http_watch_expect(http_watch *watch, const void *connection, double seconds);
/* Shut down all that are waited for; those without a limit go on. */
void http_watch_close_idle(http_watch *watch);

#endif
