/* server_absent.c: tq serve of a program built without libmicrohttpd (TQ_SERVER=OFF): it says so. */
#include <stdio.h>
#include <stdlib.h>

#include "server.h"

server_config server_config_default(void) { return (server_config){.host = "127.0.0.1", .cache = tq_cache_config_default()}; }

int server_run(const server_config *config) {
    (void)config;
    fprintf(stderr, "tq serve: this program was built without libmicrohttpd (TQ_SERVER=OFF)\n");
    return EXIT_FAILURE;
}
