/* K-means with OpenMP, compiled where it runs. Sums are taken over fixed pieces, so threads don't change the result. */
#include <math.h>
#include <omp.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { POINTS = 60000, FEATURES = 8, CLUSTERS = 12, PIECES = 64 };

static double points[POINTS][FEATURES], centers[CLUSTERS][FEATURES];
static double sums[PIECES][CLUSTERS][FEATURES], distances[PIECES];
static int counts[PIECES][CLUSTERS];

static double normal(void) {
    double u = (random() + 1.0) / (RAND_MAX + 2.0), v = (random() + 1.0) / (RAND_MAX + 2.0);
    return sqrt(-2 * log(u)) * cos(2 * M_PI * v);
}

static void assign(int piece) {
    for (int c = 0; c < CLUSTERS; c++) {
        counts[piece][c] = 0;
        for (int f = 0; f < FEATURES; f++)
            sums[piece][c][f] = 0;
    }
    distances[piece] = 0;
    for (int p = piece * POINTS / PIECES; p < (piece + 1) * POINTS / PIECES; p++) {
        int best = 0;
        double least = INFINITY;
        for (int c = 0; c < CLUSTERS; c++) {
            double distance = 0;
            for (int f = 0; f < FEATURES; f++)
                distance += (points[p][f] - centers[c][f]) * (points[p][f] - centers[c][f]);
            if (distance < least)
                least = distance, best = c;
        }
        distances[piece] += least;
        counts[piece][best]++;
        for (int f = 0; f < FEATURES; f++)
            sums[piece][best][f] += points[p][f];
    }
}

int main(int argc, char **argv) {
    int steps = atoi(argv[1]);
    const char *rest = getenv("ZOO_REST");
    omp_set_num_threads(3);
    srandom(7);
    for (int p = 0; p < POINTS; p++)
        for (int f = 0; f < FEATURES; f++)
            points[p][f] = normal() + 2.5 * ((p * 2654435761u >> (f + 3)) & 1);
    for (int c = 0; c < CLUSTERS; c++)
        for (int f = 0; f < FEATURES; f++)
            centers[c][f] = points[c * 997][f];

    FILE *metrics = fopen("metrics.jsonl", "w");
    for (int step = 0; step < steps; step++) {
        double loss = 0;
#pragma omp parallel for schedule(dynamic)
        for (int piece = 0; piece < PIECES; piece++)
            assign(piece);
        for (int piece = 0; piece < PIECES; piece++)
            loss += distances[piece];
        for (int c = 0; c < CLUSTERS; c++) {
            int count = 0;
            for (int piece = 0; piece < PIECES; piece++)
                count += counts[piece][c];
            for (int f = 0; f < FEATURES && count; f++) {
                double sum = 0;
                for (int piece = 0; piece < PIECES; piece++)
                    sum += sums[piece][c][f];
                centers[c][f] = sum / count;
            }
        }
        fprintf(metrics, "{\"step\": %d, \"loss\": %.17g}\n", step, loss / POINTS);
        fflush(metrics);
        printf("iteration %d: %.6f\n", step, loss / POINTS);
        if (rest && access("../hurry", F_OK))
            usleep((useconds_t)(1e6 * atof(rest)));
    }
    fclose(metrics);
    FILE *out = fopen("centers.bin", "wb");
    fwrite(centers, sizeof centers, 1, out);
    return fclose(out);
}
