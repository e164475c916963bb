/* Dequantises columns of a 4-bit weight in the layout of torch's int4 kernel for CPUs.
 *
 * packed  [num_rows / block][num_columns][block / 2] bytes: in each block of rows the low half of byte j is
 *         row j, the high half row j + block / 2
 * scales  [num_columns / group][num_rows][2] bfloat16, of which the first counts
 * zeros   [num_columns / group][num_rows] int8, or null for 8 everywhere
 * dense   [num_columns][stop - start] bfloat16: columns start to stop of the transposed weight
 */

#include <stdint.h>
#include <string.h>

#define MAX_BLOCK 64
#define STRIP 16

static inline float widened(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

static inline uint16_t rounded(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

void llmctl_int4_dense(const uint8_t *packed, const uint16_t *scales, const int8_t *zeros, uint16_t *dense,
                       int64_t num_rows, int64_t num_columns, int64_t group, int64_t block, int64_t start,
                       int64_t stop) {
    const int64_t half = block / 2, width = stop - start;
    /* A strip of a few columns at a time: reads are long enough, and writes run on in as many streams as
     * the CPU follows. Every group size is a multiple of STRIP. */
#pragma omp parallel for schedule(static)
    for (int64_t strip = 0; strip < num_columns; strip += STRIP) {
        const int64_t g = strip / group;
        for (int64_t first = start; first < stop; first += block) {
            float scale[MAX_BLOCK], zero[MAX_BLOCK];
            for (int64_t j = 0; j < block; j++) {
                scale[j] = widened(scales[2 * (g * num_rows + first + j)]);
                zero[j] = zeros ? (float)zeros[g * num_rows + first + j] : 8.0f;
            }
            for (int64_t k = strip; k < strip + STRIP; k++) {
                const uint8_t *restrict bytes = packed + (first / block * num_columns + k) * half;
                uint16_t *restrict out = dense + k * width + (first - start);
                for (int64_t j = 0; j < half; j++) {
                    out[j] = rounded(((float)(bytes[j] & 15) - zero[j]) * scale[j]);
                    out[j + half] = rounded(((float)(bytes[j] >> 4) - zero[j + half]) * scale[j + half]);
                }
            }
        }
    }
}
