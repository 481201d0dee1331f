/* prefix_tree.c: see prefix_tree.h. */
#include "engine/prefix_tree.h"

#include <stdlib.h>
#include <string.h>

#include "base/checksum.h"

enum { REMEMBERED = 1024 }; /* fingerprints of evicted checkpoints */

typedef struct node {
    struct node *parent, *child, *sibling;
    struct node *before, *after; /* in the list of nodes with a checkpoint */
    tq_checkpoint *checkpoint;   /* or NULL */
    uint64_t used;               /* the tree's tick when the checkpoint was used last */
    uint64_t fingerprint;        /* of the codec and all tokens up to here */
    int n_tokens;                /* up to here */
    int n_kept;                  /* checkpoints here and below */
    int32_t *ids;                /* (chunk), behind the node; NULL at the top */
} node;

typedef struct root {
    struct root *next;
    char kv[64];
    node top; /* no tokens */
} root;

struct tq_prefix_tree {
    tq_page_budget *budget;
    int chunk;
    root *roots;
    node *kept; /* list */
    uint64_t tick;
    uint64_t evicted[REMEMBERED]; /* ring */
    tq_prefix_tree_stats stats;
};

static size_t node_bytes(const tq_prefix_tree *t) { return sizeof(node) + (size_t)t->chunk * sizeof(int32_t); }

tq_status tq_prefix_tree_new(tq_page_budget *budget, int chunk, tq_prefix_tree **out, tq_error *err) {
    tq_prefix_tree *t = calloc(1, sizeof *t);
    if (!t) return tq_fail_memory(err, sizeof *t, "the tree of prompts");
    t->budget = budget;
    t->chunk = chunk;
    *out = t;
    return TQ_OK;
}

/* ---- nodes --------------------------------------------------------------------------------------------------------- */

static node *find_child(const tq_prefix_tree *t, const node *parent, const int32_t *ids) {
    for (node *c = parent->child; c; c = c->sibling)
        if (memcmp(c->ids, ids, (size_t)t->chunk * sizeof *ids) == 0) return c;
    return NULL;
}

static uint64_t fingerprint_of(const tq_prefix_tree *t, uint64_t parent, const int32_t *ids) {
    return tq_checksum(parent, ids, (size_t)t->chunk * sizeof *ids);
}

static node *add_child(tq_prefix_tree *t, node *parent, const int32_t *ids, tq_error *err) {
    size_t bytes = node_bytes(t);
    if (!tq_page_budget_charge(t->budget, bytes, TQ_HELD_KEPT)) {
        tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room for a chunk of tokens", t->budget->limit);
        return NULL;
    }
    node *c = calloc(1, bytes);
    if (!c) {
        tq_page_budget_discharge(t->budget, bytes, TQ_HELD_KEPT);
        tq_fail_memory(err, bytes, "a chunk of tokens");
        return NULL;
    }
    c->ids = (int32_t *)(c + 1);
    memcpy(c->ids, ids, (size_t)t->chunk * sizeof *ids);
    c->fingerprint = fingerprint_of(t, parent->fingerprint, ids);
    c->n_tokens = parent->n_tokens + t->chunk;
    c->parent = parent;
    c->sibling = parent->child;
    parent->child = c;
    t->stats.bytes += bytes;
    return c;
}

/* Nodes from n up that keep nothing go. */
static void prune(tq_prefix_tree *t, node *n) {
    while (n->parent && n->n_kept == 0 && !n->child) {
        node *parent = n->parent, **at = &parent->child;
        while (*at != n) at = &(*at)->sibling;
        *at = n->sibling;
        free(n);
        tq_page_budget_discharge(t->budget, node_bytes(t), TQ_HELD_KEPT);
        t->stats.bytes -= node_bytes(t);
        n = parent;
    }
}

/* One checkpoint more or less at n. */
static void count_kept(tq_prefix_tree *t, node *n, int by) {
    for (; n->parent; n = n->parent) {
        bool had = n->n_kept > 0;
        n->n_kept += by;
        t->stats.tokens += t->chunk * ((n->n_kept > 0) - had);
    }
}

static void attach(tq_prefix_tree *t, node *n, tq_checkpoint *checkpoint) {
    n->checkpoint = checkpoint;
    n->used = t->tick;
    n->before = NULL;
    n->after = t->kept;
    if (t->kept) t->kept->before = n;
    t->kept = n;
    count_kept(t, n, 1);
    t->stats.checkpoints++;
    t->stats.bytes += tq_checkpoint_own_bytes(checkpoint);
}

static void detach(tq_prefix_tree *t, node *n) {
    *(n->before ? &n->before->after : &t->kept) = n->after;
    if (n->after) n->after->before = n->before;
    count_kept(t, n, -1);
    t->stats.checkpoints--;
    t->stats.bytes -= tq_checkpoint_own_bytes(n->checkpoint);
    tq_checkpoint_free(n->checkpoint);
    n->checkpoint = NULL;
    prune(t, n);
}

static root *find_root(tq_prefix_tree *t, const char *kv) {
    for (root *r = t->roots; r; r = r->next)
        if (strcmp(r->kv, kv) == 0) return r;
    return NULL;
}

static root *make_root(tq_prefix_tree *t, const char *kv, tq_error *err) {
    root *r = find_root(t, kv);
    if (r) return r;
    if (strlen(kv) >= sizeof r->kv) {
        tq_fail(err, TQ_INVALID, "codec '%s': the name is too long", kv);
        return NULL;
    }
    r = calloc(1, sizeof *r);
    if (!r) {
        tq_fail_memory(err, sizeof *r, "a tree of prompts");
        return NULL;
    }
    memcpy(r->kv, kv, strlen(kv) + 1);
    r->top.fingerprint = tq_checksum(TQ_CHECKSUM_START, kv, strlen(kv));
    r->next = t->roots;
    t->roots = r;
    return r;
}

void tq_prefix_tree_free(tq_prefix_tree *t) {
    if (!t) return;
    while (t->kept) detach(t, t->kept);
    for (root *r = t->roots, *next; r; r = next) {
        next = r->next;
        free(r);
    }
    free(t);
}

/* ---- finding ------------------------------------------------------------------------------------------------------- */

/* Tokens that ids (n) has in common with the child of `parent` that has the most. */
static int common_with_children(const tq_prefix_tree *t, const node *parent, const int32_t *ids, int n) {
    int most = 0, limit = n < t->chunk ? n : t->chunk;
    for (const node *c = parent->child; c; c = c->sibling) {
        int common = 0;
        while (common < limit && c->ids[common] == ids[common]) common++;
        if (common > most) most = common;
    }
    return most;
}

static bool was_evicted(const tq_prefix_tree *t, uint64_t fingerprint) {
    for (int i = 0; i < REMEMBERED; i++)
        if (t->evicted[i] == fingerprint) return true;
    return false;
}

/* The longest boundary above `above` whose checkpoint the budget took, or 0. */
static int find_evicted(const tq_prefix_tree *t, const char *kv, const int32_t *ids, int usable, int above) {
    uint64_t fingerprint = tq_checksum(TQ_CHECKSUM_START, kv, strlen(kv));
    int longest = 0;
    for (int at = 0; at < usable; at += t->chunk) {
        fingerprint = fingerprint_of(t, fingerprint, ids + at);
        if (at + t->chunk > above && was_evicted(t, fingerprint)) longest = at + t->chunk;
    }
    return longest;
}

tq_prefix_match tq_prefix_tree_find(tq_prefix_tree *t, const char *kv, const int32_t *ids, int n) {
    tq_prefix_match m = {0};
    int usable = (n - 1) / t->chunk * t->chunk;
    root *r = find_root(t, kv);
    node *at = r ? &r->top : NULL, *best = NULL;
    t->tick++;
    while (at) {
        node *next = n - at->n_tokens >= t->chunk ? find_child(t, at, ids + at->n_tokens) : NULL;
        if (!next) m.known = at->n_tokens + common_with_children(t, at, ids + at->n_tokens, n - at->n_tokens);
        else if (next->checkpoint && next->n_tokens <= usable) best = next;
        at = next;
    }
    if (best) {
        best->used = t->tick;
        m.checkpoint = best->checkpoint;
        m.length = best->n_tokens;
    }
    if (m.length < usable && t->stats.evicted > 0) m.evicted = find_evicted(t, kv, ids, usable, m.length);
    m.result = usable == 0         ? TQ_PREFIX_SHORT
               : m.length == usable ? TQ_PREFIX_HIT
               : m.length > 0       ? TQ_PREFIX_PARTIAL
               : m.evicted > 0      ? TQ_PREFIX_EVICTED
                                    : TQ_PREFIX_NEW;
    return m;
}

/* ---- what is worth keeping ------------------------------------------------------------------------------------------- */

/* Tokens that would have to be evaluated again without this checkpoint, those far into a sequence counted more because
 * each attends to what is before it; by its age and by how likely somebody goes on from here: a state in the middle of
 * what others continue is wanted only when a prompt parts from them there. */
static double worth(const tq_prefix_tree *t, const node *n) {
    const node *up = n->parent;
    while (up && !up->checkpoint) up = up->parent;
    double tokens = n->n_tokens - (up ? up->n_tokens : 0), age = (double)(t->tick - n->used);
    int branches = 0;
    for (const node *c = n->child; c; c = c->sibling) branches++;
    double likely = n->n_kept > 1 && branches < 2 ? 1. / 64 : 1;
    size_t bytes = tq_checkpoint_unshared_bytes(n->checkpoint);
    return likely * tokens * (1 + n->n_tokens / 16384.0) / ((1 + age) * (double)bytes);
}

static node *least_worth(const tq_prefix_tree *t) {
    node *least = NULL;
    double lowest = 0;
    for (node *n = t->kept; n; n = n->after) {
        double w = worth(t, n);
        if (least && w >= lowest) continue;
        least = n;
        lowest = w;
    }
    return least;
}

bool tq_prefix_tree_evict(tq_prefix_tree *t) {
    node *n = least_worth(t);
    if (!n) return false;
    t->evicted[t->stats.evicted++ % REMEMBERED] = n->fingerprint;
    detach(t, n);
    return true;
}

/* ---- keeping ------------------------------------------------------------------------------------------------------- */

static bool has_room(const tq_prefix_tree *t, size_t bytes) {
    return t->budget->used <= t->budget->limit && bytes <= t->budget->limit - t->budget->used;
}

/* The node of ids (n), made where it is missing.  On failure what was made is gone. */
static node *make_path(tq_prefix_tree *t, root *r, const int32_t *ids, int n, tq_error *err) {
    node *at = &r->top;
    while (at->n_tokens < n) {
        node *next = find_child(t, at, ids + at->n_tokens);
        if (!next) next = add_child(t, at, ids + at->n_tokens, err);
        if (!next) {
            prune(t, at);
            return NULL;
        }
        at = next;
    }
    return at;
}

static node *find_kept(tq_prefix_tree *t, const char *kv, const int32_t *ids, int n) {
    root *r = find_root(t, kv);
    node *at = r ? &r->top : NULL;
    while (at && at->n_tokens < n) at = find_child(t, at, ids + at->n_tokens);
    return at && at->checkpoint ? at : NULL;
}

tq_status tq_prefix_tree_keep(tq_prefix_tree *t, const tq_cache *cache, const tq_recurrent_state *state,
                              const int32_t *ids, int n, bool evict, tq_error *err) {
    if (n < t->chunk || n % t->chunk || tq_cache_length(cache) != n)
        return tq_fail(err, TQ_INVALID, "tree of prompts: want whole chunks of %d tokens, got %d in a cache of %d", t->chunk,
                       n, tq_cache_length(cache));
    node *kept = find_kept(t, cache->kv, ids, n);
    if (kept) {
        kept->used = t->tick;
        return TQ_OK;
    }
    size_t bytes = tq_checkpoint_bytes_of(cache, state) + (size_t)(n / t->chunk) * node_bytes(t);
    while (!has_room(t, bytes))
        if (!evict || !tq_prefix_tree_evict(t))
            return tq_fail(err, TQ_FULL, "the cache budget of %zu bytes has no room to keep %d tokens", t->budget->limit, n);
    root *r = make_root(t, cache->kv, err);
    if (!r) return err ? err->code : TQ_NO_MEMORY;
    node *at = make_path(t, r, ids, n, err);
    if (!at) return err ? err->code : TQ_NO_MEMORY;
    tq_checkpoint *checkpoint;
    tq_status status = tq_checkpoint_new(cache, state, &checkpoint, err);
    if (status != TQ_OK) {
        prune(t, at);
        return status;
    }
    attach(t, at, checkpoint);
    t->stats.taken++;
    return TQ_OK;
}

void tq_prefix_tree_get_stats(const tq_prefix_tree *t, tq_prefix_tree_stats *stats) { *stats = t->stats; }
