/* test_plan.c: what there is room for.  Guards against a plan that differs from what a session takes, against limits of
 * control groups that are not seen, and against sessions that begin what cannot end. */
#include "testing.h"

#include <stdlib.h>
#include <sys/stat.h>
#include <turboquant/tq_bench.h>
#include <turboquant/tq_plan.h>

#include "base/memory.h"

/* ---- memory of a machine, from files ------------------------------------------------------------------------------- */

static char root[256];

static void write_file(const char *name, const char *text) {
    char path[512];
    snprintf(path, sizeof path, "%s%s", root, name);
    for (char *c = path + 1; *c; c++)
        if (*c == '/') *c = 0, mkdir(path, 0755), *c = '/';
    FILE *file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
}

static int remove_root(void **state) {
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", root);
    return system(command) == 0 ? 0 : -1;
}

static void new_root(void) {
    snprintf(root, sizeof root, "%s/plan-XXXXXX", TQ_BINARY_DIR);
    assert_non_null(mkdtemp(root));
    write_file("/proc/meminfo", "MemTotal:       16000 kB\nMemFree:   1 kB\nMemAvailable:    8000 kB\n");
}

static void memory_is_what_the_machine_has_available(void **state) {
    (void)state;
    tq_memory_room room;
    new_root();
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 8000 * 1024);
    assert_int_equal(room.total, 16000 * 1024);
    assert_string_equal(room.limit, "this machine's memory");
    tq_memory_room_read("/nowhere", &room);
    assert_true(room.bytes == INT64_MAX && room.total == INT64_MAX);
}

static void memory_is_bounded_by_the_tightest_group_above(void **state) {
    (void)state;
    tq_memory_room room;
    new_root();
    write_file("/proc/self/cgroup", "0::/a/b\n");
    write_file("/sys/fs/cgroup/a/b/memory.max", "max\n");
    write_file("/sys/fs/cgroup/a/b/memory.current", "1000000\n");
    write_file("/sys/fs/cgroup/a/memory.max", "5000000\n");
    write_file("/sys/fs/cgroup/a/memory.current", "4000000\n");
    write_file("/sys/fs/cgroup/a/memory.stat", "anon 1\ninactive_file 500000\nactive_file 700000\nfile 9\n");
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 5000000 - 4000000 + 500000 + 700000); /* cached files are given back first */
    assert_int_equal(room.total, 5000000);
    assert_string_equal(room.limit, "the memory limit of cgroup /a");
    write_file("/sys/fs/cgroup/a/b/memory.high", "1500000\n");
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 500000);
    assert_string_equal(room.limit, "the memory limit of cgroup /a/b");
}

static void memory_of_version_1_groups_and_of_containers(void **state) {
    (void)state;
    tq_memory_room room;
    new_root();
    write_file("/proc/self/cgroup", "3:cpuset:/\n2:cpu,memory:/docker/x\n0::/\n");
    write_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "2000000\n"); /* in a container: the path is that outside */
    write_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", "2500000\n");
    write_file("/sys/fs/cgroup/memory/memory.stat", "total_inactive_file 100000\ntotal_active_file 0\n");
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 0);
    write_file("/sys/fs/cgroup/memory/memory.usage_in_bytes", "1500000\n");
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 600000);
    write_file("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"); /* no limit */
    tq_memory_room_read(root, &room);
    assert_int_equal(room.bytes, 8000 * 1024);
}

/* ---- plans ----------------------------------------------------------------------------------------------------------- */

static tq_model *open_model(const char *name, int64_t limit) {
    tq_error err = {0};
    tq_model *model = NULL;
    tq_model_params params = {.n_threads = 1, .memory_limit = limit};
    if (tq_model_open(name, &params, &model, &err) != TQ_OK) fail_msg("%s", err.text);
    return model;
}

/* A cache that holds ctx tokens takes what its plan says, up to `spare` pages a layer: the window may be a batch longer than
 * it must, and a sliding layer does not always need a page at both ends. */
static void check_plan(tq_model *model, const char *kv, int ctx, int spare) {
    tq_error err = {0};
    tq_session_params params = tq_session_params_default();
    tq_session *session;
    tq_plan plan;
    tq_cache_stats stats;
    params.cache.kv = kv;
    params.ctx = ctx;
    assert_int_equal(tq_plan_session(model, &params, ctx, &plan, &err), TQ_OK);
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_OK);
    assert_int_equal(tq_bench_fill(session, ctx, &err), TQ_OK);
    tq_session_get_cache_stats(session, &stats);
    assert_int_equal(stats.tokens, ctx);
    const tq_model_info *info = tq_model_get_info(model);
    double page = stats.bits_per_value / 8 * 2 * info->n_kv_heads * info->head_dim * TQ_PAGE_TOKENS * info->n_layers;
    int64_t slack = (int64_t)(spare * page);
    if ((int64_t)stats.bytes > plan.cache_bytes + plan.work_bytes || (int64_t)stats.bytes < plan.cache_bytes - slack)
        fail_msg("%s, %d tokens: planned %lld bytes, took %zu", kv, ctx, (long long)plan.cache_bytes, stats.bytes);
    assert_true(plan.total_bytes == plan.mapped_bytes + plan.copied_bytes + plan.cache_bytes + plan.state_bytes + plan.work_bytes);
    tq_session_free(session);
}

static void plans_are_what_caches_take(void **state) {
    (void)state;
    static const char *const codecs[] = {"f16", "f32", "q8", "tq3", "tq2", "paper-mse:3", "mlx-k3v2", "tq3,first=1,last=1:q8", "window:128"};
    tq_model *model = open_model("synthetic:tiny", 0);
    for (size_t k = 0; k < sizeof codecs / sizeof *codecs; k++)
        for (int ctx = 1; ctx <= 5000; ctx = ctx * 9 + 1) check_plan(model, codecs[k], ctx, 1);
    tq_model_free(model);
    model = open_model(TQ_SOURCE_DIR "/tests/goldens/gemma3", 0); /* sliding layers */
    for (int ctx = 100; ctx <= 4000; ctx *= 3) check_plan(model, "tq3", ctx, 3);
    tq_model_free(model);
}

static void the_largest_context_fits_and_one_more_does_not(void **state) {
    (void)state;
    static const char *const codecs[] = {"f16", "tq3"};
    tq_model *model = open_model("synthetic:tiny", 0);
    tq_error err = {0};
    tq_session_params params = tq_session_params_default();
    for (int64_t bytes = 16 << 20; bytes <= 64 << 20; bytes *= 2)
        for (int k = 0; k < 2; k++) {
            tq_plan plan;
            int ctx;
            params.cache.kv = codecs[k];
            assert_int_equal(tq_plan_fit(model, &params, bytes, &ctx, &err), TQ_OK);
            assert_true(ctx > 0 && ctx < tq_model_get_info(model)->max_context);
            assert_int_equal(tq_plan_session(model, &params, ctx, &plan, &err), TQ_OK);
            assert_true(plan.total_bytes <= bytes);
            assert_int_equal(tq_plan_session(model, &params, ctx + 1, &plan, &err), TQ_OK);
            assert_true(plan.total_bytes > bytes);
        }
    int none;
    assert_int_equal(tq_plan_fit(model, &params, 1000, &none, &err), TQ_OK);
    assert_int_equal(none, 0);
    tq_plan plan;
    assert_int_equal(tq_plan_session(model, &params, tq_model_get_info(model)->max_context + 1, &plan, &err), TQ_INVALID);
    tq_model_free(model);
}

static void sessions_refuse_what_does_not_fit(void **state) {
    (void)state;
    tq_error err = {0};
    tq_session *session = NULL;
    tq_session_params params = tq_session_params_default();
    tq_model *model = open_model("synthetic:tiny", 20 << 20);
    params.ctx = 200000;
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_NO_MEMORY);
    assert_null(session);
    assert_non_null(strstr(err.text, "200000 tokens of context as tq3 want "));
    const char *fits = strstr(err.text, "a context of ");
    assert_non_null(fits);
    int most = atoi(fits + strlen("a context of "));
    params.ctx = most;
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_OK);
    tq_session_free(session);
    params.ctx++;
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_NO_MEMORY);
    params.ctx = 0; /* as many as fit */
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_OK);
    assert_int_equal(tq_session_ctx(session), most);
    tq_session_free(session);
    tq_model_free(model);
    model = open_model("synthetic:tiny", -1);
    params.ctx = 200000;
    assert_int_equal(tq_session_new(model, &params, &session, &err), TQ_OK);
    tq_session_free(session);
    tq_model_free(model);
    assert_int_equal(tq_model_open("synthetic:tiny", &(tq_model_params){.n_threads = 1, .memory_limit = 1000}, &model, &err), TQ_NO_MEMORY);
    assert_non_null(strstr(err.text, "synthetic:tiny"));
}

/* ---- what a model is made of --------------------------------------------------------------------------------------------- */

static void weights_by_type_add_up(void **state) {
    (void)state;
    static const char *const dirs[] = {"bookworm", "mlx_qwen3_5_moe_4bit", "gpt_oss_mxfp4", "gemma3"};
    for (size_t i = 0; i < sizeof dirs / sizeof *dirs; i++) {
        char path[512];
        snprintf(path, sizeof path, TQ_SOURCE_DIR "/%s/%s", i ? "tests/goldens" : "models", dirs[i]);
        tq_model *model = open_model(path, 0);
        const tq_model_info *info = tq_model_get_info(model);
        tq_weight_type types[16];
        size_t n = tq_model_weight_types(model, types, 16);
        int64_t bytes = 0, parameters = 0;
        for (size_t t = 0; t < n; t++) {
            bytes += types[t].bytes;
            parameters += types[t].parameters;
            assert_true(t == 0 || types[t].bytes <= types[t - 1].bytes);
        }
        assert_int_equal(bytes, info->weight_bytes);
        assert_int_equal(parameters, info->n_parameters);
        int delta = 0, experts = 0;
        for (int l = 0; l < info->n_layers; l++) {
            tq_layer_info layer;
            assert_int_equal(tq_model_get_layer(model, l, &layer, NULL), TQ_OK);
            delta += strcmp(layer.mixer, "delta") == 0;
            experts += layer.experts;
        }
        assert_int_equal(delta, i == 1 ? 3 : 0);
        assert_int_equal(experts > 0, i == 1 || i == 2);
        bool mxfp4 = false;
        for (size_t t = 0; t < n && t < 16; t++) mxfp4 |= strcmp(types[t].type, "mxfp4") == 0;
        assert_int_equal(mxfp4, i == 2);
        tq_model_free(model);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(memory_is_what_the_machine_has_available, remove_root),
        cmocka_unit_test_teardown(memory_is_bounded_by_the_tightest_group_above, remove_root),
        cmocka_unit_test_teardown(memory_of_version_1_groups_and_of_containers, remove_root),
        cmocka_unit_test(plans_are_what_caches_take),
        cmocka_unit_test(the_largest_context_fits_and_one_more_does_not),
        cmocka_unit_test(sessions_refuse_what_does_not_fit),
        cmocka_unit_test(weights_by_type_add_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
