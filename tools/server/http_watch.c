/* http_watch.c: one thread, one list, looked through twice a second. */
#include "http_watch.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "http.h"

typedef struct watched {
    struct watched *next;
    const void *connection;
    int fd;
    double deadline; /* 0: none */
} watched;

struct http_watch {
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t wake;
    watched *list;
    bool stop;
};

static void close_late(http_watch *w, double now) {
    for (watched *c = w->list; c; c = c->next) {
        if (c->deadline == 0 || c->deadline > now) continue;
        shutdown(c->fd, SHUT_RDWR); /* its thread sees the end and cleans up */
        c->deadline = 0;
    }
}

static void *watch(void *cls) {
    http_watch *w = cls;
    pthread_mutex_lock(&w->lock);
    while (!w->stop) {
        close_late(w, clock_seconds());
        struct timespec until;
        clock_gettime(CLOCK_REALTIME, &until);
        until.tv_nsec += 500000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_nsec -= 1000000000;
            until.tv_sec++;
        }
        pthread_cond_timedwait(&w->wake, &w->lock, &until);
    }
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

http_watch *http_watch_new(void) {
    http_watch *w = calloc(1, sizeof *w);
    if (!w) return NULL;
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wake, NULL);
    if (pthread_create(&w->thread, NULL, watch, w) == 0) return w;
    free(w);
    return NULL;
}

void http_watch_free(http_watch *w) {
    if (!w) return;
    pthread_mutex_lock(&w->lock);
    w->stop = true;
    pthread_cond_signal(&w->wake);
    pthread_mutex_unlock(&w->lock);
    pthread_join(w->thread, NULL);
    while (w->list) {
        watched *next = w->list->next;
        free(w->list);
        w->list = next;
    }
    pthread_cond_destroy(&w->wake);
    pthread_mutex_destroy(&w->lock);
    free(w);
}

void http_watch_add(http_watch *w, const void *connection, int fd, double seconds) {
    watched *c = malloc(sizeof *c);
    if (!c) {
        shutdown(fd, SHUT_RDWR); /* nobody would watch it */
        return;
    }
    pthread_mutex_lock(&w->lock);
    *c = (watched){.next = w->list, .connection = connection, .fd = fd, .deadline = clock_seconds() + seconds};
    w->list = c;
    pthread_mutex_unlock(&w->lock);
}

void http_watch_remove(http_watch *w, const void *connection) {
    pthread_mutex_lock(&w->lock);
    for (watched **at = &w->list; *at; at = &(*at)->next) {
        if ((*at)->connection != connection) continue;
        watched *gone = *at;
        *at = gone->next;
        free(gone);
        break;
    }
    pthread_mutex_unlock(&w->lock);
}

void http_watch_expect(http_watch *w, const void *connection, double seconds) {
    pthread_mutex_lock(&w->lock);
    for (watched *c = w->list; c; c = c->next)
        if (c->connection == connection) c->deadline = seconds > 0 ? clock_seconds() + seconds : 0;
    pthread_mutex_unlock(&w->lock);
}

void http_watch_close_idle(http_watch *w) {
    pthread_mutex_lock(&w->lock);
    close_late(w, 1e300);
    pthread_mutex_unlock(&w->lock);
}
