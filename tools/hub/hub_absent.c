/* hub_absent.c: in place of hub_pull.c and its helpers, in a build without libcurl and libcrypto (TQ_HUB=OFF). */
#include "hub_error.h"
#include "hub_pull.h"

static tq_status refuse(const hub_name *name, tq_error *err) {
    return hub_fail(err, TQ_UNSUPPORTED, "%s: this tq was built without downloads (TQ_HUB=OFF)", name->repo);
}

tq_status hub_pull(const hub_settings *settings, const hub_name *name, const char *revision, const hub_watch *watch, char *path, tq_error *err) {
    (void)settings, (void)revision, (void)watch, (void)path;
    return refuse(name, err);
}

tq_status hub_list(const hub_settings *settings, const hub_name *name, const char *revision, hub_listing *listing, tq_error *err) {
    (void)settings, (void)revision;
    *listing = (hub_listing){0};
    return refuse(name, err);
}
