/* hub_fetch.c: see hub_fetch.h.
 * A file is named by its content's digest, so what lies in DIGEST.incomplete is a beginning of the right content, or the
 * digest at the end says that it is not, and then it is fetched from the start, once. */
#include "hub_fetch.h"

#include <errno.h>
#include <fcntl.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#include "hub_error.h"

enum { TRIES = 5, ATTEMPTS_MAX = 1000, PAUSE_MS = 250, MANY_MS = 60000 };

typedef struct transfer {
    const hub_file *file;
    int fd;
    EVP_MD_CTX *digest;
    int64_t done;           /* bytes in the file, and in the digest */
    int64_t asked;          /* the first byte of this request */
    char etag[256];         /* of the body so far; "" if unknown or weak */
    bool begun, whole;      /* this answer's first bytes have come; ask for all of it: ranges are not to be trusted */
    bool stop;              /* the caller said so */
    char trouble[200];      /* why the body was refused */
    hub_bytes_fn progress;
    void *ctx;
} transfer;

static void pause_ms(int ms) {
    struct timespec t = {ms / 1000, (long)(ms % 1000) * 1000000};
    nanosleep(&t, NULL);
}

/* ---- the digest ----------------------------------------------------------------------------------------------------- */

static bool start_digest(transfer *t) {
    char head[64];
    bool good = EVP_DigestInit_ex(t->digest, t->file->lfs ? EVP_sha256() : EVP_sha1(), NULL) == 1;
    if (!t->file->lfs) { /* git's object: a head, a NUL, the content */
        int n = snprintf(head, sizeof head, "blob %lld", (long long)t->file->size);
        good = good && EVP_DigestUpdate(t->digest, head, (size_t)n + 1) == 1;
    }
    return good;
}

static void finish_digest(transfer *t, char text[65]) {
    unsigned char bytes[EVP_MAX_MD_SIZE];
    unsigned n = 0;
    if (EVP_DigestFinal_ex(t->digest, bytes, &n) != 1 || n > 32) n = 0;
    for (unsigned i = 0; i < n; i++) snprintf(text + 2 * i, 3, "%02x", bytes[i]);
    text[2 * n] = 0;
}

static bool restart(transfer *t) {
    t->done = 0;
    t->etag[0] = 0;
    return ftruncate(t->fd, 0) == 0 && start_digest(t);
}

/* What an earlier download left goes into the digest. */
static tq_status take_up(transfer *t, const char *path, tq_error *err) {
    static const size_t piece = 1 << 20;
    struct stat st;
    if (fstat(t->fd, &st) != 0) return hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
    if (st.st_size > t->file->size || !start_digest(t)) return restart(t) ? TQ_OK : hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno));
    char *data = malloc(piece);
    if (!data) return hub_fail(err, TQ_NO_MEMORY, "out of memory: %zu bytes", piece);
    ssize_t n;
    while ((n = pread(t->fd, data, piece, t->done)) > 0) {
        EVP_DigestUpdate(t->digest, data, (size_t)n);
        t->done += n;
    }
    free(data);
    return n < 0 ? hub_fail(err, TQ_IO, "%.300s: %s", path, strerror(errno)) : TQ_OK;
}

/* ---- the body ------------------------------------------------------------------------------------------------------- */

static bool refuse(transfer *t, const char *why) {
    snprintf(t->trouble, sizeof t->trouble, "%s", why);
    return false;
}

/* Before the first byte: is it what was asked for? */
static bool begin(transfer *t, const hub_answer *a) {
    int64_t first, last, total;
    char etag[256];
    t->begun = true;
    if (*a->linked_etag && strcmp(a->linked_etag, t->file->digest) != 0) return refuse(t, "the file has changed: its digest is another one");
    if (a->linked_size >= 0 && a->linked_size != t->file->size) return refuse(t, "the file has changed: its size is another one");
    if (a->status == 206) {
        if (t->asked == 0) return refuse(t, "a part of the file was sent though all of it was asked for");
        t->whole = true; /* until the range has proved right */
        if (!hub_content_range(a->content_range, &first, &last, &total)) return refuse(t, "a part of the file came without a valid Content-Range");
        if (first != t->asked || total != t->file->size || last != total - 1) return refuse(t, "another part of the file came than was asked for");
        if (*t->etag && *a->etag && strcmp(t->etag, a->etag) != 0) return refuse(t, "the file changed while it was fetched");
        t->whole = false;
    } else if (t->done > 0 && !restart(t)) { /* the server knows no ranges, or the file is not the same as before */
        return refuse(t, strerror(errno));
    }
    bool strong = *a->etag && strncmp(a->etag, "W/", 2) != 0 && hub_etag(a->etag, etag, sizeof etag);
    snprintf(t->etag, sizeof t->etag, "%s", strong ? a->etag : "");
    return true;
}

static bool take_body(void *ctx, const hub_answer *answer, const char *data, size_t n) {
    transfer *t = ctx;
    if (!t->begun && !begin(t, answer)) return false;
    if ((int64_t)n > t->file->size - t->done) return refuse(t, "more bytes came than the file has");
    for (size_t at = 0; at < n;) {
        ssize_t written = pwrite(t->fd, data + at, n - at, t->done + (int64_t)at);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return refuse(t, strerror(written < 0 ? errno : EIO));
        at += (size_t)written;
    }
    EVP_DigestUpdate(t->digest, data, n);
    t->done += (int64_t)n;
    if (!t->progress || t->progress(t->ctx, t->done)) return true;
    t->stop = true;
    return false;
}

/* ---- attempts ------------------------------------------------------------------------------------------------------- */

typedef enum outcome { DONE, AGAIN, OVER } outcome;

/* One request; err is filled unless DONE. */
static outcome attempt(hub_client *client, const hub_settings *settings, const char *repo, const char *path, transfer *t, int *wait_ms, tq_error *err) {
    hub_answer a;
    t->begun = false;
    t->trouble[0] = 0;
    if (t->whole && t->done > 0 && !restart(t)) {
        hub_fail(err, TQ_IO, "%s", strerror(errno));
        return OVER;
    }
    t->asked = t->done;
    bool had_range_trouble = t->whole;
    tq_status status = hub_get(client, path, t->asked, t->etag, take_body, t, &a, err);
    *wait_ms = a.retry_after >= 0 ? 1000 * a.retry_after : 0;
    if (t->stop) {
        hub_fail(err, TQ_CANCELLED, "cancelled");
        return OVER;
    }
    if (*t->trouble) {
        hub_fail(err, TQ_FORMAT, "%s: %.200s: %s", repo, t->file->path, t->trouble);
        return t->whole && !had_range_trouble ? AGAIN : OVER; /* without a range once */
    }
    if (status == TQ_OK && a.status == 416) { /* our part is longer than what the server has */
        hub_fail(err, TQ_FORMAT, "%s: %.200s: the server has less than %lld bytes", repo, t->file->path, (long long)t->asked);
        bool again = !t->whole;
        t->whole = true;
        return again ? AGAIN : OVER;
    }
    if (status == TQ_OK && a.status != 200 && a.status != 206) {
        hub_explain(settings, &a, repo, t->file->path, err);
        return a.transient ? AGAIN : OVER;
    }
    if (status == TQ_OK && t->done == t->file->size) return DONE;
    if (status == TQ_OK) hub_fail(err, TQ_IO, "%s: %.200s: %lld of %lld bytes came", repo, t->file->path, (long long)t->done, (long long)t->file->size);
    return status == TQ_OK || a.transient ? AGAIN : OVER;
}

/* Until all bytes are there.  A try that brought something does not count as a failed one. */
static tq_status fetch_all(hub_client *client, const hub_settings *settings, const char *repo, const char *path, transfer *t, tq_error *err) {
    int failures = 0;
    for (int i = 0; i < ATTEMPTS_MAX; i++) {
        int wait_ms;
        int64_t before = t->done;
        if (t->done == t->file->size && t->file->size > 0) return TQ_OK;
        switch (attempt(client, settings, repo, path, t, &wait_ms, err)) {
        case DONE: return TQ_OK;
        case OVER: return err->code;
        case AGAIN: break;
        }
        failures = t->done > before ? 0 : failures + 1;
        if (failures >= TRIES) return err->code;
        int usual = PAUSE_MS << failures >> 1;
        pause_ms(wait_ms > usual ? (wait_ms < MANY_MS ? wait_ms : MANY_MS) : usual);
    }
    return err->code;
}

static tq_status check_room(const transfer *t, const char *path, tq_error *err) {
    struct statvfs disk;
    if (fstatvfs(t->fd, &disk) != 0) return TQ_OK; /* writing will tell */
    int64_t room = (int64_t)disk.f_bavail * (int64_t)disk.f_frsize, need = t->file->size - t->done;
    if (need <= room) return TQ_OK;
    return hub_fail(err, TQ_IO, "%.200s: %lld bytes are still to come, the disk has room for %lld", path, (long long)need, (long long)room);
}

static tq_status fetch_into(hub_client *client, const hub_settings *settings, const char *repo, const char *path, transfer *t,
                            const char *incomplete, const char *blob, tq_error *err) {
    char digest[65];
    HUB_TRY(take_up(t, incomplete, err));
    bool resumed = t->done > 0;
    for (;;) {
        HUB_TRY(check_room(t, incomplete, err));
        HUB_TRY(fetch_all(client, settings, repo, path, t, err));
        finish_digest(t, digest);
        if (strcmp(digest, t->file->digest) == 0) break;
        hub_fail(err, TQ_FORMAT, "%s: %.200s: the content is not what was announced: want %s %s, got %s", repo, t->file->path,
                 t->file->lfs ? "SHA-256" : "git SHA-1", t->file->digest, digest);
        if (!resumed || !restart(t)) {
            unlink(incomplete);
            return TQ_FORMAT;
        }
        resumed = false; /* what was left from before may have been damaged: once more, from the start */
    }
    if (fchmod(t->fd, 0644) != 0 || fsync(t->fd) != 0 || rename(incomplete, blob) != 0)
        return hub_fail(err, TQ_IO, "%.300s: %s", blob, strerror(errno));
    hub_sync_folder_of(blob);
    return TQ_OK;
}

tq_status hub_fetch(hub_client *client, const hub_settings *settings, const hub_folder *folder, const char *repo, const char *commit,
                    const hub_file *file, hub_bytes_fn progress, void *ctx, tq_error *err) {
    char blob[HUB_DISK_PATH_CAP], incomplete[HUB_DISK_PATH_CAP + 16], path[4 * HUB_PATH_CAP];
    HUB_TRY(hub_folder_blob(folder, file->digest, true, blob, err));
    snprintf(incomplete, sizeof incomplete, "%s.incomplete", blob);
    char *encoded = hub_encode(file->path, "/");
    if (!encoded) return hub_fail(err, TQ_NO_MEMORY, "out of memory for an address");
    snprintf(path, sizeof path, "/%s/resolve/%s/%s", repo, commit, encoded);
    free(encoded);
    int lock;
    HUB_TRY(hub_folder_lock(folder, file->digest, &lock, err));
    tq_status status = TQ_OK;
    if (access(blob, R_OK) != 0) {
        transfer t = {.file = file, .progress = progress, .ctx = ctx, .digest = EVP_MD_CTX_new()};
        t.fd = open(incomplete, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0644);
        if (!t.digest) status = hub_fail(err, TQ_NO_MEMORY, "out of memory for a digest");
        else if (t.fd < 0) status = hub_fail(err, TQ_IO, "%.300s: %s", incomplete, strerror(errno));
        else status = fetch_into(client, settings, repo, path, &t, incomplete, blob, err);
        if (t.fd >= 0) close(t.fd);
        EVP_MD_CTX_free(t.digest);
    }
    hub_folder_unlock(lock);
    return status;
}

/* ---- text ------------------------------------------------------------------------------------------------------------ */

typedef struct text_body {
    char *data;
    size_t n, cap, limit;
    bool failed;
} text_body;

static bool take_text(void *ctx, const hub_answer *answer, const char *data, size_t n) {
    text_body *t = ctx;
    (void)answer;
    if (n > t->limit - t->n) return false;
    while (t->n + n + 1 > t->cap) {
        char *grown = realloc(t->data, t->cap ? 2 * t->cap : 1 << 16);
        if (!grown) return !(t->failed = true);
        t->data = grown;
        t->cap = t->cap ? 2 * t->cap : 1 << 16;
    }
    memcpy(t->data + t->n, data, n);
    t->n += n;
    return true;
}

tq_status hub_fetch_text(hub_client *client, const hub_settings *settings, const char *repo, const char *what, const char *path,
                         size_t cap, char **text, size_t *n, tq_error *err) {
    for (int failures = 0;; failures++) {
        hub_answer a;
        text_body t = {.limit = cap};
        tq_status status = hub_get(client, path, 0, "", take_text, &t, &a, err);
        if (status == TQ_OK && a.status == 200 && t.data) {
            t.data[t.n] = 0;
            *text = t.data;
            *n = t.n;
            return TQ_OK;
        }
        free(t.data);
        if (t.failed) return hub_fail(err, TQ_NO_MEMORY, "out of memory for %s", what);
        if (status == TQ_CANCELLED) return hub_fail(err, TQ_FORMAT, "%s: %s: more than %zu bytes", repo, what, cap);
        if (status == TQ_OK) status = a.status == 200 ? hub_fail(err, TQ_FORMAT, "%s: %s: an empty answer", repo, what)
                                                      : hub_explain(settings, &a, repo, what, err);
        if (!a.transient || failures + 1 >= TRIES) return status;
        int usual = PAUSE_MS << failures, wait = 1000 * (a.retry_after > 0 ? a.retry_after : 0);
        pause_ms(wait > usual ? (wait < MANY_MS ? wait : MANY_MS) : usual);
    }
}
