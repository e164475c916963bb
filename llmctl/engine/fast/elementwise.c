/* What a decoder does between its products, in one pass over each row instead of one for each operation.
 *
 * Rows have `num_columns` numbers side by side: float, or bfloat16 where is_wide is 0. Rows of inputs lie any
 * number of elements apart, those of `out` side by side.
 */

#include <math.h>
#include <stdint.h>
#include <string.h>
#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

#define LANES 16
/* Fewer numbers than this are done before a second thread is awake. */
#define MANY 32768
/* A row is cut in pieces for threads, for one row may be all there is. */
#define PIECE 2048

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint32_t uvec __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
#define INLINE static inline __attribute__((always_inline))

/* ---- numbers ---- */

INLINE vec splat(float number) { return (vec){0} + number; }

INLINE vec widened(half_vec halves) { return (vec)(__builtin_convertvector(halves, uvec) << 16); }

INLINE half_vec rounded(vec x) {
#ifdef __AVX512BF16__
    return (half_vec)_mm512_cvtneps_pbh((__m512)x);
#else
    const uvec bits = (uvec)x, finite = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    const uvec is_nan = (uvec)(x != x);
    return __builtin_convertvector((finite & ~is_nan) | ((bits >> 16 | 0x40) & is_nan), half_vec);
#endif
}

INLINE vec chosen(ivec condition, vec yes, vec no) {
    return (vec)(((ivec)yes & condition) | ((ivec)no & ~condition));
}

INLINE float sum_of(vec x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* `count` numbers from `place` on, then zeros. */
INLINE vec load(const void *numbers, int64_t place, int64_t count, int is_wide) {
    if (is_wide) {
        vec x = {0};
        if (count >= LANES) memcpy(&x, (const float *)numbers + place, sizeof x);
        else memcpy(&x, (const float *)numbers + place, 4 * count);
        return x;
    }
    half_vec x = {0};
    if (count >= LANES) memcpy(&x, (const uint16_t *)numbers + place, sizeof x);
    else memcpy(&x, (const uint16_t *)numbers + place, 2 * count);
    return widened(x);
}

INLINE void store(void *numbers, int64_t place, int64_t count, vec x, int is_wide) {
    if (is_wide) {
        if (count >= LANES) memcpy((float *)numbers + place, &x, sizeof x);
        else memcpy((float *)numbers + place, &x, 4 * count);
        return;
    }
    const half_vec halves = rounded(x);
    if (count >= LANES) memcpy((uint16_t *)numbers + place, &halves, sizeof halves);
    else memcpy((uint16_t *)numbers + place, &halves, 2 * count);
}

INLINE vec as_stored(vec x, int is_wide) { return is_wide ? x : widened(rounded(x)); }

/* ---- norms ---- */

enum Form { SCALED_AFTER, SCALED_BEFORE, SCALED_BY_ONE_MORE };

/* x / sqrt(mean(x^2) + eps), times the weight: after it was rounded, before, or times one more than that. */
INLINE void norm_row(const void *x, const void *weight, void *out, int64_t from, int64_t to, int64_t size,
                     float eps, int form, int is_wide) {
    vec total = {0}, other = {0};
    for (int64_t i = 0; i < size; i += 2 * LANES) {
        const vec low = load(x, from + i, size - i, is_wide);
        const int64_t left = size - i - LANES;
        const vec high = left > 0 ? load(x, from + i + LANES, left, is_wide) : (vec){0};
        total += low * low;
        other += high * high;
    }
    const float factor = 1 / sqrtf(sum_of(total + other) / (float)size + eps);
    for (int64_t i = 0; i < size; i += LANES) {
        const vec normed = load(x, from + i, size - i, is_wide) * factor;
        const vec own = load(weight, i, size - i, is_wide);
        const vec scaled = form == SCALED_AFTER    ? as_stored(normed, is_wide) * own
                           : form == SCALED_BEFORE ? normed * own
                                                   : normed * (1 + own);
        store(out, to + i, size - i, scaled, is_wide);
    }
}

#define NORM(NAME, FORM, IS_WIDE)                                                                            \
    static void NAME(const void *x, const void *weight, void *out, int64_t from, int64_t to, int64_t size,   \
                     float eps) {                                                                            \
        norm_row(x, weight, out, from, to, size, eps, FORM, IS_WIDE);                                        \
    }
NORM(after_halves, SCALED_AFTER, 0)
NORM(after_floats, SCALED_AFTER, 1)
NORM(before_halves, SCALED_BEFORE, 0)
NORM(before_floats, SCALED_BEFORE, 1)
NORM(one_more_halves, SCALED_BY_ONE_MORE, 0)
NORM(one_more_floats, SCALED_BY_ONE_MORE, 1)

void llmctl_rms_norm(const void *x, const void *weight, void *out, int64_t num_rows, int64_t num_columns,
                     int64_t stride, float eps, int form, int is_wide, int num_threads) {
    void (*const forms[3][2])(const void *, const void *, void *, int64_t, int64_t, int64_t, float) = {
        {after_halves, after_floats}, {before_halves, before_floats}, {one_more_halves, one_more_floats}};
    void (*const row_of)(const void *, const void *, void *, int64_t, int64_t, int64_t, float) =
        forms[form][is_wide];
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_rows * num_columns >= MANY)
    for (int64_t row = 0; row < num_rows; row++)
        row_of(x, weight, out, row * stride, row * num_columns, num_columns, eps);
}

/* ---- gates ---- */

/* e^x within two units of the last place; what would overflow or vanish stays at the edge. */
INLINE vec exponential(vec x) {
    x = chosen(x < -87.0f, splat(-87.0f), x);
    x = chosen(x > 88.0f, splat(88.0f), x);
    /* Adding and subtracting 1.5 * 2^23 rounds to a whole number. */
    const vec whole = (x * 1.44269504088896341f + 12582912.0f) - 12582912.0f;
    const vec rest = (x - whole * 0.693145751953125f) - whole * 1.42860682030941723212e-6f;
    vec power = splat(1.0f / 5040);
    power = power * rest + 1.0f / 720;
    power = power * rest + 1.0f / 120;
    power = power * rest + 1.0f / 24;
    power = power * rest + 1.0f / 6;
    power = power * rest + 0.5f;
    power = power * rest + 1.0f;
    power = power * rest + 1.0f;
    return power * (vec)((__builtin_convertvector(whole, ivec) + 127) << 23);
}

enum Activation { SILU, GELU_TANH };

INLINE vec activated(vec x, int activation) {
    const vec inner = activation == SILU ? x : 1.5957691216057308f * (x + 0.044715f * x * x * x);
    return x / (1 + exponential(-inner));
}

INLINE void gate_row(const void *gate, const void *up, void *out, int64_t gate_from, int64_t up_from,
                     int64_t to, int64_t size, int activation, int is_wide) {
    for (int64_t i = 0; i < size; i += LANES) {
        const vec open = activated(load(gate, gate_from + i, size - i, is_wide), activation);
        const vec through = as_stored(open, is_wide) * load(up, up_from + i, size - i, is_wide);
        store(out, to + i, size - i, through, is_wide);
    }
}

#define GATE(NAME, ACTIVATION, IS_WIDE)                                                                      \
    static void NAME(const void *gate, const void *up, void *out, int64_t gate_from, int64_t up_from,        \
                     int64_t to, int64_t size) {                                                             \
        gate_row(gate, up, out, gate_from, up_from, to, size, ACTIVATION, IS_WIDE);                          \
    }
GATE(silu_halves, SILU, 0)
GATE(silu_floats, SILU, 1)
GATE(gelu_halves, GELU_TANH, 0)
GATE(gelu_floats, GELU_TANH, 1)

/* activation(gate) * up. */
void llmctl_gated(const void *gate, const void *up, void *out, int64_t num_rows, int64_t num_columns,
                  int64_t gate_stride, int64_t up_stride, int activation, int is_wide, int num_threads) {
    void (*const kinds[2][2])(const void *, const void *, void *, int64_t, int64_t, int64_t, int64_t) = {
        {silu_halves, silu_floats}, {gelu_halves, gelu_floats}};
    void (*const piece_of)(const void *, const void *, void *, int64_t, int64_t, int64_t, int64_t) =
        kinds[activation][is_wide];
    const int64_t num_pieces = (num_columns + PIECE - 1) / PIECE;
#pragma omp parallel for schedule(static) num_threads(num_threads) if (num_rows * num_columns >= MANY)
    for (int64_t task = 0; task < num_rows * num_pieces; task++) {
        const int64_t row = task / num_pieces, first = task % num_pieces * PIECE;
        const int64_t count = num_columns - first < PIECE ? num_columns - first : PIECE;
        piece_of(gate, up, out, row * gate_stride + first, row * up_stride + first, row * num_columns + first,
                 count);
    }
}
