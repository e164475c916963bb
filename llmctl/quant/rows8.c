/* What is done to rows before and behind a product of 8-bit integers, in one pass over each.
 *
 * Rows have `size` numbers side by side: float, or bfloat16 where is_wide is 0, as scales have.
 */

#include <stdint.h>
#include <string.h>

/* Fewer numbers than this are done before a second thread is awake. */
#define MANY 32768
#define INLINE static inline __attribute__((always_inline))

INLINE float widened(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

/* Of a NaN it may make another one. */
INLINE uint16_t rounded(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    const uint32_t near = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(number != number ? bits >> 16 | 0x40 : near);
}

/* ---- before ---- */

/* A number over the scale, moved so that cutting off rounds it. What is none becomes one, of no meaning. */
INLINE uint8_t quantised(float number, float inverse, float middle) {
    const float moved = number * inverse + middle;
    const float bounded = moved < 255.0f ? moved : 255.0f;
    return (uint8_t)(int32_t)(bounded > 0.0f ? bounded : 0.0f);
}

INLINE void quantise_halves(const uint16_t *row, uint8_t *numbers, uint16_t *scale, int64_t size,
                            float largest) {
    /* Without their sign, floats are in the order of their bits. */
    uint16_t most = 0;
    for (int64_t i = 0; i < size; i++) {
        const uint16_t bits = row[i] & 0x7fff;
        most = bits > most ? bits : most;
    }
    *scale = rounded(widened(most) * (1.0f / largest));
    const float inverse = 1.0f / widened(*scale), middle = largest + 1.5f;
    for (int64_t i = 0; i < size; i++) numbers[i] = quantised(widened(row[i]), inverse, middle);
}

INLINE void quantise_floats(const float *row, uint8_t *numbers, float *scale, int64_t size, float largest) {
    uint32_t most = 0;
    for (int64_t i = 0; i < size; i++) {
        uint32_t bits;
        memcpy(&bits, row + i, sizeof bits);
        bits &= 0x7fffffff;
        most = bits > most ? bits : most;
    }
    memcpy(scale, &most, sizeof most);
    *scale *= 1.0f / largest;
    const float inverse = 1.0f / *scale, middle = largest + 1.5f;
    for (int64_t i = 0; i < size; i++) numbers[i] = quantised(row[i], inverse, middle);
}

/* Rows that lie `stride` apart, as numbers from 1 to 2 * largest + 1 with largest + 1 for nought, and a scale
 * of each. */
void llmctl_quantise_rows(const void *rows, uint8_t *numbers, void *scales, int64_t num_rows, int64_t size,
                          int64_t stride, float largest, int is_wide, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_rows * size >= MANY)
    for (int64_t r = 0; r < num_rows; r++) {
        uint8_t *to = numbers + r * size;
        if (is_wide)
            quantise_floats((const float *)rows + r * stride, to, (float *)scales + r, size, largest);
        else
            quantise_halves((const uint16_t *)rows + r * stride, to, (uint16_t *)scales + r, size, largest);
    }
}

/* ---- behind ---- */

INLINE void scale_halves(uint16_t *row, float scale, const uint16_t *bias, int64_t size) {
    if (bias)
        for (int64_t i = 0; i < size; i++) row[i] = rounded(widened(row[i]) * scale + widened(bias[i]));
    else
        for (int64_t i = 0; i < size; i++) row[i] = rounded(widened(row[i]) * scale);
}

INLINE void scale_floats(float *row, float scale, const float *bias, int64_t size) {
    if (bias)
        for (int64_t i = 0; i < size; i++) row[i] = row[i] * scale + bias[i];
    else
        for (int64_t i = 0; i < size; i++) row[i] *= scale;
}

/* Multiplies each row by its scale, in place, and adds the bias where there is one. */
void llmctl_scale_rows(void *rows, const void *scales, const void *bias, int64_t num_rows, int64_t size,
                       int is_wide, int num_threads) {
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_rows * size >= MANY)
    for (int64_t r = 0; r < num_rows; r++) {
        if (is_wide) scale_floats((float *)rows + r * size, ((const float *)scales)[r], bias, size);
        else scale_halves((uint16_t *)rows + r * size, widened(((const uint16_t *)scales)[r]), bias, size);
    }
}
