/* kernels_layers.h: kernels of single kinds of layers: soft caps, gated activations, the gated delta rule.
 * Part of kernels_body.h, which says what is defined here. */

/* 1 / (1 + exp(-x)) */
INLINE vf sigmoid_vf(vf x) { return 1.0f / (1.0f + exp_vf(-x)); }

/* The n < VL values behind the last whole register. */
INLINE vf load_tail(const float *p, int n) {
    vf v = {0};
    for (int l = 0; l < n; l++) v[l] = p[l];
    return v;
}
INLINE void store_tail(float *p, vf v, int n) {
    for (int l = 0; l < n; l++) p[l] = v[l];
}

/* cap * tanh(x / cap); tanh(u) = 2 sigmoid(2u) - 1, within 1e-7 of the cap. */
INLINE vf soft_cap_vf(vf x, float cap) { return (2.0f * sigmoid_vf(x * (2.0f / cap)) - 1.0f) * cap; }

static void soft_cap(float *x, int n, float cap) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(x + i, soft_cap_vf(load(x + i), cap));
    store_tail(x + i, soft_cap_vf(load_tail(x + i, n - i), cap), n - i);
}

/* gelu(x) by tanh: 0.5 x (1 + tanh(u)) = x sigmoid(2u), u = sqrt(2/pi) (x + 0.044715 x^3) */
INLINE vf gelu_vf(vf x) { return x * sigmoid_vf(1.59576912f * (x + 0.044715f * x * x * x)); }

static void gelu_mul(float *gate, const float *up, int n) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(gate + i, gelu_vf(load(gate + i)) * load(up + i));
    store_tail(gate + i, gelu_vf(load_tail(gate + i, n - i)) * load_tail(up + i, n - i), n - i);
}

/* g sigmoid(alpha g) (u + 1), with g = min(gate, limit) and u = up within +-limit */
INLINE vf clamped_vf(vf gate, vf up, float alpha, float limit) {
    vf g = choose(gate > spread(limit), spread(limit), gate);
    vf u = choose(up > spread(limit), spread(limit), up);
    u = choose(u < spread(-limit), spread(-limit), u);
    return g * sigmoid_vf(g * alpha) * (u + 1.0f);
}

static void clamped_swiglu(float *gate, const float *up, int n, float alpha, float limit) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(gate + i, clamped_vf(load(gate + i), load(up + i), alpha, limit));
    store_tail(gate + i, clamped_vf(load_tail(gate + i, n - i), load_tail(up + i, n - i), alpha, limit), n - i);
}

static void sigmoid_mul(float *x, const float *gate, int n) {
    int i = 0;
    for (; i + VL <= n; i += VL) store(x + i, load(x + i) * sigmoid_vf(load(gate + i)));
    store_tail(x + i, load_tail(x + i, n - i) * sigmoid_vf(load_tail(gate + i, n - i)), n - i);
}

/* Two passes over a row of the state: what it says of k, then its change and what it says of q. */
static void delta_step(float *state, const float *q, const float *k, const float *v, float decay, float beta, int dk,
                       int dv, float *y) {
    for (int r = 0; r < dv; r++, state += dk) {
        vf held = {0}, read = {0};
        float held_tail = 0, read_tail = 0;
        int i = 0;
        for (; i + VL <= dk; i += VL) held += load(state + i) * load(k + i);
        for (; i < dk; i++) held_tail += state[i] * k[i];
        float change = beta * (v[r] - decay * (sum_lanes(held) + held_tail));
        for (i = 0; i + VL <= dk; i += VL) {
            vf s = load(state + i) * decay + load(k + i) * change;
            store(state + i, s);
            read += s * load(q + i);
        }
        for (; i < dk; i++) {
            state[i] = state[i] * decay + k[i] * change;
            read_tail += state[i] * q[i];
        }
        y[r] = sum_lanes(read) + read_tail;
    }
}
