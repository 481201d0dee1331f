/* kernels_pages.h: the float half of attention over a page of TQ_PAGE_TOKENS keys and values, for up to TQ_PAGE_QUERIES
 * queries at a time.  Included by kernels_body.h; the integer half, page_dots, is each instruction set's own.
 *
 * Scores leave page_scores in the query's own unit, softmax weights leave page_weights relative to the page's largest:
 * so neither a step nor a running maximum is multiplied into 128 places, and the integers always use their 15 bits. */

enum { PAGE = 128 }; /* TQ_PAGE_TOKENS */

/* 2^y for y <= 0 (or a rounding above): 2^n p(r), |r| <= 1/2, degree 5: relative error below 3e-7.  Below -100: 2^-100, so
 * that products with scales are no subnormals, which are slow; NaN stays NaN. */
INLINE vf exp2_below(vf y) {
    const float magic = 12582912.0f + 127; /* the integer part lands in the low bits, and 127 with it */
    y = max_vf(spread(-100.0f), y);
    vf shifted = y + magic, r = y - (shifted - magic);
    vf p = r * 0.00133813025f + 0.00966636852f;
    p = p * r + 0.0555038101f;
    p = p * r + 0.24022349f;
    p = p * r + 0.693147181f;
    p = p * r + 1.0f;
    return p * (vf)((vi)shifted << 23); /* what else stands in shifted leaves at the top */
}

static void page_offsets(const uint16_t *centre, int dim, const float *q, int q_stride, const float *unit, int n_q,
                         float *offsets) {
    for (int i = 0; i < n_q; i++, q += q_stride) {
        vf sum = {0};
        for (int j = 0; j < dim; j += VL) sum += load(q + j) * load_f16(centre + j);
        offsets[i] = sum_lanes(sum) / unit[i];
    }
}

static void page_scores(const int32_t *dots, const uint16_t *scales, const float *offsets, int n_q, int n_tiles,
                        float *scores) {
    for (int t = 0; t < n_tiles; t++, dots += TQ_PAGE_QUERIES * 16)
        for (int l = 0; l < 16; l += VL) {
            vf scale_of = load_f16(scales + 16 * t + l);
            for (int i = 0; i < n_q; i++)
                store(scores + i * PAGE + 16 * t + l,
                      to_float(*(const vi_unaligned *)(dots + 16 * i + l)) * scale_of + offsets[i]);
        }
}

static float page_factors(const uint16_t *scales, int n, float *factors) {
    vf poison = {0};
    for (int r = 0; r < PAGE; r += VL) store(factors + r, load_f16(scales + r));
    for (int r = n; r < PAGE; r++) factors[r] = 0; /* whatever was there */
    for (int r = 0; r < PAGE; r += VL) poison += load(factors + r) * 0.0f;
    return sum_lanes(poison);
}

/* A row's scores, against `top` in their unit and plus `more` powers of two, -> their exponentials, and with factors the
 * products of both.  Returns the exponentials' sum; *most is the largest product. */
INLINE float soften_row(float *scores, float top, float unit, float more, const float *factors, float *most) {
    vf sum = {0}, log2_unit = spread(unit * 1.44269504f), offset = more - top * log2_unit, tops = {0};
    for (int j = 0; j < PAGE; j += VL) {
        vf e = exp2_below(load(scores + j) * log2_unit + offset);
        sum += e;
        if (factors) {
            e *= load(factors + j);
            tops = max_magnitude(e, tops);
        }
        store(scores + j, e);
    }
    if (factors) *most = max_lanes(tops);
    return sum_lanes(sum);
}

/* Added to a small number, puts it into the low 16 bits, 128 too large: so the bits above the lowest eight are rounded. */
#define WEIGHT_SHIFT (12582912.0f + 128)

/* Products of one row -> integers of 15 bits and a sign, against the largest of them. */
INLINE void round_row(const float *products, float most, const tq_int_vectors *w, int row) {
    float inverse = most > 1e-33f ? 32512.0f / most : 0.0f; /* as to_int */
    vu integers = {0}; /* wraps where a value is not finite; the softmax's sum is NaN then, or the factors' poison */
    for (int j = 0; j < PAGE; j += VL) {
        vi shifted = (vi)(load(products + j) * inverse + WEIGHT_SHIFT);
        store_weights(w, row, j, shifted);
        integers += (vu)shifted;
    }
    integers -= (vu)(vi)spread(WEIGHT_SHIFT) * (PAGE / VL);
    w->step[row] = most / 32512.0f;
    w->sum[row] = sum_integers((vi)integers);
}

static void page_weights(float *scores, const float *unit, const tq_key_range *seen, int n_q, const float *factors,
                         tq_int_vectors *w, tq_page_softmax *s) {
    float tops[TQ_PAGE_QUERIES], keep[16], bring[16];
    for (int i = 0; i < 16; i++) keep[i] = bring[i] = -INFINITY;
    for (int i = 0; i < n_q; i++) {
        float *x = scores + i * PAGE;
        tops[i] = -INFINITY;
        if (seen[i].to <= seen[i].from) continue;
        for (int r = 0; r < seen[i].from; r++) x[r] = -INFINITY;
        for (int r = seen[i].to; r < PAGE; r++) x[r] = -INFINITY;
        vf top = spread(-INFINITY);
        for (int j = 0; j < PAGE; j += VL) top = max_vf(load(x + j), top);
        tops[i] = max_lanes(top);
    }
    float more[TQ_PAGE_QUERIES];
    for (int i = 0; i < n_q; i++) {
        float top = tops[i] == -INFINITY ? tops[i] : tops[i] * unit[i], whole = top > s->max[i] ? top : s->max[i];
        keep[i] = s->max[i] == -INFINITY ? -INFINITY : s->max[i] - whole;
        bring[i] = tops[i] == -INFINITY ? -INFINITY : top - whole;
        more[i] = factors ? 0 : bring[i] * 1.44269504f;
        s->max[i] = whole;
    }
    for (int i = 0; i < n_q; i += VL) {
        store(keep + i, exp_vf(load(keep + i)));
        store(bring + i, exp_vf(load(bring + i)));
    }
    float most[TQ_PAGE_QUERIES] = {0}; /* rows are rounded when all are known: nothing waits for a row's largest */
    for (int i = 0; i < n_q; i++) {
        s->keep[i] = keep[i];
        s->bring[i] = bring[i];
        float *x = scores + i * PAGE, sum = 0;
        if (seen[i].to <= seen[i].from) memset(x, 0, PAGE * sizeof *x);
        else if (factors) sum = bring[i] * soften_row(x, tops[i], unit[i], 0, factors, most + i);
        else sum = soften_row(x, tops[i], unit[i], more[i], NULL, NULL);
        s->sum[i] = s->sum[i] * keep[i] + sum;
    }
    for (int i = 0; factors && i < n_q; i++) round_row(scores + i * PAGE, most[i], w, i);
}

static void page_values(const int32_t *dots, const float *step, const tq_page_softmax *s, int n_q, int n_tiles, float *acc,
                        int acc_stride) {
    for (int i = 0; i < n_q; i++) {
        float bring = s->bring[i] * step[i] * (1.0f / 127), *to = acc + (size_t)i * (size_t)acc_stride;
        const int32_t *from = dots + 16 * i;
        for (int t = 0; t < n_tiles; t++, from += TQ_PAGE_QUERIES * 16, to += 16)
            for (int l = 0; l < 16; l += VL)
                store(to + l, load(to + l) * s->keep[i] + to_float(*(const vi_unaligned *)(from + l)) * bring);
    }
}
