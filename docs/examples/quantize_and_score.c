/* quantize_and_score.c: pack vectors at 3 bits a value, then find the best match of a query in the packed rows.
 *
 *     cc quantize_and_score.c $(pkg-config --cflags --libs turboquant) -lm -o quantize_and_score */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <turboquant/tq_codec.h>

enum { N = 1000, DIM = 128 };

static float x[N][DIM], back[N][DIM], query[DIM], scores[N];

/* Close to normal: the sum of four uniform numbers.  Any vectors will do; the codec rotates them first. */
static float noise(void) {
    float sum = -2;
    for (int i = 0; i < 4; i++) sum += (float)rand() / (float)RAND_MAX;
    return sum;
}

int main(void) {
    tq_codec *codec;
    tq_error err;
    if (tq_codec_new("tq3", DIM, 0, &codec, &err) != TQ_OK) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    for (int i = 0; i < N; i++)
        for (int j = 0; j < DIM; j++) x[i][j] = noise();
    for (int j = 0; j < DIM; j++) query[j] = x[42][j] + 0.3f * noise(); /* a blurred copy of vector 42 */

    size_t row_bytes = tq_codec_row_bytes(codec); /* everything that is stored, scales too */
    unsigned char *rows = malloc(N * row_bytes);
    float *prepared = malloc((size_t)tq_codec_query_width(codec) * sizeof *prepared);
    if (!rows || !prepared) return 1;
    tq_codec_encode(codec, x[0], N, rows);
    tq_codec_query(codec, query, prepared);             /* once a query: rotate it */
    tq_codec_score(codec, prepared, rows, N, scores);   /* then score the rows as they are */
    tq_codec_decode(codec, rows, N, back[0]);

    int best = 0;
    double error = 0, energy = 0, worst = 0;
    for (int i = 0; i < N; i++) {
        double exact = 0;
        for (int j = 0; j < DIM; j++) {
            exact += (double)query[j] * x[i][j];
            energy += (double)x[i][j] * x[i][j];
            error += ((double)x[i][j] - back[i][j]) * ((double)x[i][j] - back[i][j]);
        }
        if (scores[i] > scores[best]) best = i;
        if (fabs(scores[i] - exact) > worst) worst = fabs(scores[i] - exact);
    }
    printf("%d floats in %zu bytes (%.2f bits a value)\n", DIM, row_bytes, 8.0 * (double)row_bytes / DIM);
    printf("distortion %.4f, in theory %.4f\n", error / energy, tq_codec_expected_distortion(codec));
    printf("best match: vector %d, score %.2f; largest error of a score %.2f\n", best, scores[best], worst);
    free(prepared);
    free(rows);
    tq_codec_free(codec);
    return best == 42 ? 0 : 1;
}
