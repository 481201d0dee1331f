/* http_checks.c: keys, Host and Origin. */
#include "http_checks.h"

#include <ctype.h>
#include <string.h>
#include <strings.h>

bool word_list_add(word_list *list, const char *text, size_t n, const char *separators, bool comments) {
    for (size_t i = 0; i < n;) {
        size_t end = i;
        while (end < n && !strchr(separators, text[end])) end++; /* a NUL byte separates, too */
        size_t from = i, to = end;
        if (comments) {
            const char *hash = memchr(text + from, '#', to - from);
            if (hash) to = (size_t)(hash - text);
        }
        while (from < to && isspace((unsigned char)text[from])) from++;
        while (to > from && isspace((unsigned char)text[to - 1])) to--;
        if (to > from) {
            if (to - from >= WORD_CAP || list->n == WORDS_CAP) return false;
            memcpy(list->words[list->n], text + from, to - from);
            list->words[list->n++][to - from] = 0;
        }
        i = end + 1;
    }
    return true;
}

bool word_list_has(const word_list *list, const char *word, size_t n, bool ignore_case) {
    for (int i = 0; i < list->n; i++) {
        if (strlen(list->words[i]) != n) continue;
        if (ignore_case ? strncasecmp(list->words[i], word, n) == 0 : memcmp(list->words[i], word, n) == 0) return true;
    }
    return false;
}

bool keys_match(const word_list *keys, const char *given, size_t n) {
    unsigned char padded[WORD_CAP] = {0};
    bool fits = n < WORD_CAP;
    if (fits) memcpy(padded, given, n);
    unsigned found = 0;
    for (int i = 0; i < keys->n; i++) {
        unsigned char key[WORD_CAP] = {0}; /* words are followed by what was in the list's memory */
        size_t length = strlen(keys->words[i]);
        memcpy(key, keys->words[i], length);
        unsigned differs = length != n || !fits;
        for (size_t b = 0; b < WORD_CAP; b++) differs |= (unsigned)(key[b] ^ padded[b]);
        found |= differs == 0;
    }
    return found != 0;
}

bool find_bearer(const char *header, size_t n, const char **key, size_t *key_n) {
    static const char scheme[] = "Bearer";
    size_t i = sizeof scheme - 1;
    if (n <= i || strncasecmp(header, scheme, i) != 0 || header[i] != ' ') return false;
    while (i < n && header[i] == ' ') i++;
    while (n > i && isspace((unsigned char)header[n - 1])) n--;
    *key = header + i;
    *key_n = n - i;
    return n > i;
}

bool find_host(const char *header, size_t n, const char **host, size_t *host_n) {
    size_t end;
    if (n && header[0] == '[') {
        const char *close = memchr(header, ']', n);
        if (!close) return false;
        *host = header + 1;
        *host_n = (size_t)(close - header) - 1;
        end = (size_t)(close - header) + 1;
    } else {
        const char *colon = n ? memchr(header, ':', n) : NULL;
        *host = header;
        *host_n = end = colon ? (size_t)(colon - header) : n;
    }
    if (*host_n == 0) return false;
    for (size_t i = 0; i < *host_n; i++) {
        unsigned char c = (unsigned char)(*host)[i];
        if (!isalnum(c) && c != '.' && c != '-' && c != '_' && c != ':') return false;
    }
    if (end == n) return true;
    if (header[end] != ':') return false;
    for (size_t i = end + 1; i < n; i++)
        if (!isdigit((unsigned char)header[i])) return false;
    return n - end <= 6; /* ":65535" */
}

static bool ends_with(const char *text, size_t n, const char *end) {
    size_t length = strlen(end);
    return n >= length && strncasecmp(text + n - length, end, length) == 0;
}

bool is_loopback_name(const char *host, size_t n) {
    if (n == 9 && strncasecmp(host, "localhost", 9) == 0) return true;
    if (ends_with(host, n, ".localhost") || (n == 3 && memcmp(host, "::1", 3) == 0)) return true;
    if (n < 7 || n > 15 || memcmp(host, "127.", 4) != 0) return false;
    int dots = 0;
    for (size_t i = 0; i < n; i++) {
        if (host[i] == '.') dots++;
        else if (!isdigit((unsigned char)host[i])) return false;
    }
    return dots == 3; /* a name that ends in a number is an address to every resolver */
}

bool is_numeric_host(const char *host, size_t n) {
    if (n == 0) return false;
    if (memchr(host, ':', n)) return true; /* of IPv6: find_host lets a colon stand between brackets only */
    for (size_t i = 0; i < n; i++)
        if (!isdigit((unsigned char)host[i]) && host[i] != '.') return false;
    return true;
}

static size_t skip_scheme(const char *origin, size_t n) {
    if (n > 7 && strncasecmp(origin, "http://", 7) == 0) return 7;
    if (n > 8 && strncasecmp(origin, "https://", 8) == 0) return 8;
    return 0;
}

bool origin_is_host(const char *origin, size_t n, const char *host_header, size_t host_n) {
    size_t scheme = skip_scheme(origin, n);
    return scheme && host_n && n - scheme == host_n && strncasecmp(origin + scheme, host_header, host_n) == 0;
}

bool find_origin_host(const char *origin, size_t n, const char **host, size_t *host_n) {
    size_t scheme = skip_scheme(origin, n);
    return scheme && find_host(origin + scheme, n - scheme, host, host_n);
}
