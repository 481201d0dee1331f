/* test_config.c: config.json in its old and new forms, within wrappers, and what is refused; frequencies of rotary
 * encodings against their formulas, written once more. */
#include "testing.h"

#include "base/tensor.h"
#include "model/transformer.h"

static json_t *parse(const char *text) {
    json_error_t at;
    json_t *json = json_loads(text, 0, &at);
    if (!json) fail_msg("%s: %s", at.text, text);
    return json;
}

static tq_status read_text(const char *text, tq_config *out, tq_error *err) {
    json_t *json = parse(text);
    tq_status status = tq_config_read(json, "config.json", out, err);
    json_decref(json);
    return status;
}

#define SIZES                                                                                                          \
    "\"hidden_size\": 64, \"num_hidden_layers\": 4, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "          \
    "\"head_dim\": 16, \"intermediate_size\": 96, \"vocab_size\": 384, \"max_position_embeddings\": 4096"
#define MODEL(type, rest) "{\"model_type\": \"" type "\", " SIZES rest "}"

static tq_config a, b; /* large */

static void expect_equal(const char *one, const char *other) {
    OK(read_text(one, &a, &e));
    OK(read_text(other, &b, &e));
    if (memcmp(&a, &b, sizeof a) != 0) fail_msg("not the same: %s and %s", one, other);
}

static void old_and_new_forms_say_the_same(void **state) {
    (void)state;
    expect_equal(MODEL("llama", ", \"rope_theta\": 5e5"),
                 MODEL("llama", ", \"rope_parameters\": {\"rope_type\": \"default\", \"rope_theta\": 5e5}"));
    assert_true(a.ropes[0].theta == 5e5 && a.ropes[0].n_dims == 16 && a.n_ropes == 1);
    expect_equal(MODEL("llama", ", \"rope_theta\": 5e5, \"rope_scaling\": {\"type\": \"linear\", \"factor\": 4}"),
                 MODEL("llama", ", \"rope_parameters\": {\"rope_type\": \"linear\", \"rope_theta\": 5e5, \"factor\": 4.0}"));
    assert_true(a.ropes[0].kind == TQ_ROPE_LINEAR && a.ropes[0].factor == 4);
    expect_equal(MODEL("gemma3_text", ", \"rope_theta\": 1e6, \"rope_local_base_freq\": 2e4, \"sliding_window\": 24, "
                                      "\"sliding_window_pattern\": 2, \"rope_scaling\": {\"rope_type\": \"linear\", "
                                      "\"factor\": 8}"),
                 MODEL("gemma3_text",
                       ", \"sliding_window\": 24, \"layer_types\": [\"sliding_attention\", \"full_attention\", "
                       "\"sliding_attention\", \"full_attention\"], \"rope_parameters\": {\"full_attention\": {\"rope_type\": "
                       "\"linear\", \"factor\": 8, \"rope_theta\": 1e6}, \"sliding_attention\": {\"rope_type\": "
                       "\"default\", \"rope_theta\": 2e4}}"));
    assert_true(a.n_ropes == 2 && a.layers[0].rope == 1 && a.layers[0].window == 24 && a.layers[1].rope == 0 &&
                a.layers[1].window == 0);
    expect_equal(MODEL("qwen3", ", \"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 3"),
                 MODEL("qwen3", ", \"sliding_window\": 8, \"layer_types\": [\"full_attention\", \"full_attention\", "
                                "\"full_attention\", \"sliding_attention\"]"));
    assert_true(a.layers[2].window == 0 && a.layers[3].window == 8);
    expect_equal(MODEL("smollm3", ", \"no_rope_layer_interval\": 4"), MODEL("smollm3", ", \"no_rope_layers\": [1, 1, 1, 0]"));
    assert_true(a.layers[3].rope == TQ_NO_ROPE && a.layers[2].rope == 0);
    expect_equal(MODEL("mistral", ", \"sliding_window\": 7"),
                 "{\"model_type\": \"mistral3\", \"vision_config\": {}, \"text_config\": " MODEL("mistral", ", \"sliding_window\": 7") "}");
    assert_int_equal(a.layers[3].window, 7);
}

/* gemma3's wrapper leaves out what its class has by itself. */
static void a_wrapper_may_leave_things_out(void **state) {
    (void)state;
    OK(read_text("{\"model_type\": \"gemma3\", \"text_config\": {\"model_type\": \"gemma3_text\", \"hidden_size\": 2560, "
                 "\"intermediate_size\": 10240, \"num_hidden_layers\": 34, \"sliding_window\": 1024, \"rope_scaling\": "
                 "{\"factor\": 8.0, \"rope_type\": \"linear\"}}}",
                 &a, &e));
    assert_true(a.n_heads == 8 && a.n_kv_heads == 4 && a.head_dim == 256 && a.vocab == 262208 && a.tie_embeddings);
    assert_true(a.ropes[0].theta == 1e6 && a.ropes[0].factor == 8 && a.ropes[1].theta == 1e4);
    assert_true(a.layers[4].window == 1024 && a.layers[5].window == 0 && a.n_attention_layers == 34);
    assert_true(a.attention_scale == 1.0f / 16 && a.norm_offset == 1);
    OK(read_text("{\"model_type\": \"qwen3_5\", \"tie_word_embeddings\": true, \"text_config\": {\"model_type\": "
                 "\"qwen3_5_text\", " SIZES ", \"linear_num_key_heads\": 2, \"linear_num_value_heads\": 4, "
                 "\"linear_key_head_dim\": 8, \"linear_value_head_dim\": 8, \"rope_parameters\": {\"rope_type\": \"default\", "
                 "\"mrope_section\": [1, 1, 0], \"mrope_interleaved\": true, \"rope_theta\": 1e7, "
                 "\"partial_rotary_factor\": 0.25}}}",
                 &a, &e));
    assert_true(a.tie_embeddings && a.n_delta_layers == 3 && a.layers[3].mixer == TQ_MIXER_ATTENTION);
    assert_true(a.ropes[0].n_dims == 4 && a.ropes[0].theta == 1e7 && a.delta.kernel == 4);
}

static void what_is_not_supported_is_named(void **state) {
    (void)state;
    static const struct {
        const char *text, *part;
        tq_status status;
    } cases[] = {
        {MODEL("llama4", ""), "model_type \"llama4\" is not supported: want llama, mistral", TQ_UNSUPPORTED},
        {"{" SIZES "}", "\"model_type\" is missing", TQ_FORMAT},
        {MODEL("llama", ", \"attn_logit_softcapping\": 30"), "\"attn_logit_softcapping\" is not supported in family llama",
         TQ_UNSUPPORTED},
        {MODEL("llama", ", \"residual_multiplier\": 0.5"), "\"residual_multiplier\"", TQ_UNSUPPORTED},
        {MODEL("qwen2", ", \"num_experts\": 8"), "\"num_experts\" is not supported in family qwen2", TQ_UNSUPPORTED},
        {MODEL("qwen3", ", \"clip_qkv\": 8.0"), "\"clip_qkv\"", TQ_UNSUPPORTED},
        {MODEL("llama", ", \"kv_lora_rank\": 512"), "\"kv_lora_rank\"", TQ_UNSUPPORTED},
        {MODEL("llama", ", \"hidden_act\": \"relu\""), "the file has \"relu\"", TQ_UNSUPPORTED},
        {MODEL("llama", ", \"rope_scaling\": {\"type\": \"xpos\", \"factor\": 2}"), "rope type \"xpos\"", TQ_UNSUPPORTED},
        {MODEL("llama", ", \"rope_scaling\": {\"type\": \"linear\", \"factor\": 2, \"twist\": 1}"),
         "rope: the setting \"twist\"", TQ_UNSUPPORTED},
        {MODEL("llama", ", \"rope_scaling\": {\"type\": \"linear\"}"), "\"factor\" is missing", TQ_FORMAT},
        {MODEL("phi3", ", \"rope_scaling\": {\"type\": \"longrope\", \"short_factor\": [1, 2]}"),
         "\"short_factor\": want a list of 8 numbers", TQ_FORMAT},
        {MODEL("llama", ", \"layer_types\": [\"full_attention\"]"), "\"layer_types\": want a list of 4", TQ_FORMAT},
        {MODEL("qwen3", ", \"layer_types\": [\"full_attention\", \"full_attention\", \"full_attention\", "
                        "\"linear_attention\"]"),
         "layer type \"linear_attention\" is not supported in family qwen3", TQ_UNSUPPORTED},
        {MODEL("gemma2", ", \"sliding_window\": null, \"layer_types\": [\"sliding_attention\", \"full_attention\", "
                         "\"sliding_attention\", \"full_attention\"]"),
         "layer 0 slides, but \"sliding_window\" is missing", TQ_FORMAT},
        {MODEL("smollm3", ", \"use_sliding_window\": true"), "sliding windows are not supported in family smollm3",
         TQ_UNSUPPORTED},
        {MODEL("mixtral", ", \"num_local_experts\": 4, \"num_experts_per_tok\": 5"), "5 experts a token, but there are 4",
         TQ_FORMAT},
        {MODEL("llama", ", \"partial_rotary_factor\": 0.19"), "not a whole number of pairs", TQ_FORMAT},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) FAILS(read_text(cases[i].text, &a, &e), cases[i].status, cases[i].part);
    /* Saying that nothing happens is no reason to refuse. */
    OK(read_text(MODEL("llama", ", \"attn_logit_softcapping\": null, \"residual_multiplier\": 1.0, \"clip_qkv\": null, "
                                "\"num_experts\": 0, \"use_qk_norm\": false, \"qk_layernorm\": false"),
                 &a, &e));
}

/* ---- rotary encodings -------------------------------------------------------------------------------------------------- */

static void check_frequencies(const char *rope, int context, const double *want, int n) {
    char text[1024];
    snprintf(text, sizeof text, "%s", rope);
    OK(read_text(text, &a, &e));
    float got[TQ_MAX_ROPE_PAIRS];
    assert_int_equal(a.ropes[0].n_dims / 2, n);
    tq_rope_frequencies(&a.ropes[0], context, got);
    for (int i = 0; i < n; i++)
        if (fabs(got[i] - want[i]) > 2e-7 * want[i]) fail_msg("%s: pair %d is %g, want %g", rope, i, (double)got[i], want[i]);
}

static void frequencies_follow_their_formulas(void **state) {
    (void)state;
    double want[8];
    for (int i = 0; i < 8; i++) want[i] = pow(1e4, -i / 8.0);
    const char *dynamic = MODEL("llama", ", \"rope_scaling\": {\"type\": \"dynamic\", \"factor\": 2.0}");
    check_frequencies(dynamic, 4096, want, 8);
    assert_int_equal(a.max_context, 8192);
    double theta = 1e4 * pow(2.0 * 8192 / 4096 - 1, 16.0 / 14);
    for (int i = 0; i < 8; i++) want[i] = pow(theta, -i / 8.0);
    check_frequencies(dynamic, 8192, want, 8);
    const char *longrope = MODEL("phi3", ", \"original_max_position_embeddings\": 1024, \"rope_scaling\": {\"type\": "
                                         "\"longrope\", \"short_factor\": [1, 1, 1, 1.5, 1, 1, 1, 2], \"long_factor\": [1, 2, "
                                         "3, 4, 5, 6, 7, 8]}");
    static const double shorts[] = {1, 1, 1, 1.5, 1, 1, 1, 2};
    for (int i = 0; i < 8; i++) want[i] = pow(1e4, -i / 8.0) / shorts[i];
    check_frequencies(longrope, 1024, want, 8);
    for (int i = 0; i < 8; i++) want[i] = pow(1e4, -i / 8.0) / (i + 1);
    check_frequencies(longrope, 1025, want, 8);
    assert_true(fabs(a.ropes[0].attention_factor - sqrt(1 + log(4) / log(1024))) < 1e-12);
    /* Half of the dims: frequencies are spread over those that rotate. */
    for (int i = 0; i < 4; i++) want[i] = pow(1e4, -i / 4.0);
    check_frequencies(MODEL("glm4", ", \"partial_rotary_factor\": 0.5"), 4096, want, 4);
    assert_true(a.ropes[0].adjacent_pairs);
    /* yarn between its ends: pairs that turn more than beta_fast times stay, fewer than beta_slow are stretched. */
    OK(read_text(MODEL("llama", ", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4.0, "
                                "\"original_max_position_embeddings\": 1024}"),
                 &a, &e));
    float got[8];
    tq_rope_frequencies(&a.ropes[0], 4096, got);
    assert_true(got[0] == 1 && fabs(got[7] * 4 / pow(1e4, -7 / 8.0) - 1) < 1e-6);
    assert_true(fabs(a.ropes[0].attention_factor - (0.1 * log(4) + 1)) < 1e-12);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(old_and_new_forms_say_the_same),
        cmocka_unit_test(a_wrapper_may_leave_things_out),
        cmocka_unit_test(what_is_not_supported_is_named),
        cmocka_unit_test(frequencies_follow_their_formulas),
    };
    return cmocka_run_group_tests_name("config", tests, NULL, NULL);
}
