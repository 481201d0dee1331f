/* http_checks.h: what a request's headers say, judged: who may ask, from where.  Pure functions of (pointer, length). */
#ifndef TQ_SERVER_HTTP_CHECKS_H
#define TQ_SERVER_HTTP_CHECKS_H

#include <stdbool.h>
#include <stddef.h>

/* A list of words, each at most WORD_CAP - 1 bytes. */
enum { WORD_CAP = 256, WORDS_CAP = 64 };
typedef struct word_list {
    char words[WORDS_CAP][WORD_CAP];
    int n;
} word_list;

/* Add the words of a text, separated by any of `separators`, without white space around them; of a line, what follows
 * '#' is left out if `comments`.  False if a word or the list is too long. */
bool word_list_add(word_list *list, const char *text, size_t n, const char *separators, bool comments);
bool word_list_has(const word_list *list, const char *word, size_t n, bool ignore_case);

/* Is one of the keys what was given?  Takes as long for a near miss as for any other key: every key is compared, every byte
 * of the longest. */
bool keys_match(const word_list *keys, const char *given, size_t n);

/* The key in "Bearer KEY"; false if the header is something else. */
bool find_bearer(const char *header, size_t n, const char **key, size_t *key_n);

/* The name in a Host header, without the port and without the brackets of IPv6; false if it is not host[:port]. */
bool find_host(const char *header, size_t n, const char **host, size_t *host_n);

/* Loopback's own names: localhost, *.localhost, 127.x.x.x, ::1. */
bool is_loopback_name(const char *host, size_t n);

/* An address in numbers, of either kind: no name that somebody could point elsewhere. */
bool is_numeric_host(const char *host, size_t n);

/* Is an Origin header the same as "http(s)://HOST", HOST as the Host header has it? */
bool origin_is_host(const char *origin, size_t n, const char *host_header, size_t host_n);

/* The name in "scheme://name[:port]"; false if it is none ("null", for example). */
bool find_origin_host(const char *origin, size_t n, const char **host, size_t *host_n);

#endif
