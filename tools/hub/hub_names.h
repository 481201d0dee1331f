/* hub_names.h: what a hub says, as text: names of models, lists of files, which of them a model needs.
 * Nothing here touches the network or a disk, and nothing a server sent is believed before it was checked here.
 * Owns: the lists.  Not here: asking (hub_http.h), keeping (hub_cache.h). */
#ifndef TQ_HUB_NAMES_H
#define TQ_HUB_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "turboquant/tq_status.h"

enum { HUB_NAME_CAP = 200, HUB_PATH_CAP = 1024, HUB_FILES_MAX = 20000, HUB_JSON_MAX = 32 << 20 };

/* "ORG/NAME", "ORG/NAME@REVISION", either with ":FILE". */
typedef struct hub_name {
    char repo[HUB_NAME_CAP];     /* "ORG/NAME" */
    char revision[HUB_NAME_CAP]; /* a branch, tag or commit: "main" if none was given */
    char file[HUB_PATH_CAP];     /* a path in it or a quantization's tag; "" if none was given */
} hub_name;

/* Does it look like one?  Both parts are 1 to 96 of A-Z a-z 0-9 . _ -, neither begins or ends with . or -, and there is
 * no .. or -- in them: the hub's own rule.  A revision and a file are paths that hub_path_is_safe. */
bool hub_name_parse(const char *text, hub_name *out);

/* Is it a path that stays within its folder: relative, without empty, "." or ".." parts, without control characters or
 * backslashes, no part longer than a file's name can be? */
bool hub_path_is_safe(const char *path);

typedef struct hub_file {
    char *path;
    int64_t size;
    char digest[65]; /* hexadecimal: SHA-256 of the content if lfs, else git's SHA-1 of a blob; "" if not known */
    bool lfs;
} hub_file;

typedef struct hub_listing {
    char commit[41]; /* 40 hexadecimal digits */
    hub_file *files; /* in the order of their paths, each once */
    size_t n;
} hub_listing;

/* The answer of /api/models/REPO/revision/REV?blobs=true.  TQ_FORMAT names what is wrong: no JSON, no commit, a path that
 * would leave its folder, a size or digest that cannot be, the same path twice. */
tq_status hub_listing_parse(const char *json, size_t n, hub_listing *out, tq_error *err);
/* A listing from elsewhere (a folder): add files, then sort.  TQ_NO_MEMORY, or TQ_FORMAT for too many. */
tq_status hub_listing_add(hub_listing *listing, const char *path, int64_t size, tq_error *err);
void hub_listing_sort(hub_listing *listing);
const hub_file *hub_listing_find(const hub_listing *listing, const char *path);
void hub_listing_free(hub_listing *listing);

/* What of a listing makes the model. */
typedef struct hub_choice {
    const hub_file **files; /* small ones first; borrowed from the listing */
    size_t n;
    const hub_file *gguf;  /* the (first) GGUF file, or NULL: the model is a directory */
    const hub_file *index; /* model.safetensors.index.json, whose shards are still to be added; or NULL */
} hub_choice;

/* `file` "": config.json, generation_config.json, tokenizer and template files and safetensors weights; or, of a repository
 * without them, its only GGUF model.  Else: the file of that path, or the GGUF file whose name has that quantization's tag
 * (Q4_K_M, case ignored).  Of a GGUF split all parts.  TQ_NOT_FOUND and TQ_INVALID (several) list what there is. */
tq_status hub_choose(const hub_listing *listing, const char *file, hub_choice *out, tq_error *err);
/* Add the shards that the index names: TQ_FORMAT for a name that is no plain file of the listing. */
tq_status hub_choose_shards(const hub_listing *listing, const char *json, size_t n, hub_choice *choice, tq_error *err);
void hub_choice_free(hub_choice *choice);

/* "bytes 100-199/1000" -> 100, 199, 1000; false for anything else, "*" too. */
bool hub_content_range(const char *text, int64_t *first, int64_t *last, int64_t *total);

/* An ETag without W/ and quotes; false if it does not fit or has other characters than a strong tag's. */
bool hub_etag(const char *text, char *out, size_t cap);

#endif
