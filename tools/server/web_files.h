/* web_files.h: the files of the page and the API's description, built into the program (cmake/embed_files.cmake). */
#ifndef TQ_SERVER_WEB_FILES_H
#define TQ_SERVER_WEB_FILES_H

#include <stddef.h>

typedef struct web_file {
    const char *path; /* "/app.js" */
    const char *type; /* "text/javascript; charset=utf-8" */
    const char *etag; /* with its quotation marks */
    const unsigned char *data;
    size_t n;
} web_file;

extern const web_file web_files[]; /* (web_n_files) */
extern const int web_n_files;
extern const web_file web_openapi;

#endif
