/* Attention of sequences that write one token each, over keys and values in blocks; stores those of all.
 *
 * keys    [blocks][num_kv_heads][block_size][key_size], values alike with value_size
 * tables  [num_spans][num_columns] int32: block of tokens b * block_size and on in column b
 * meta    [num_spans][3] int64: row, count, start of each span; those with count 1 attend
 * slots   [num_rows] int64: block * block_size + offset of each new token
 * query, new_keys, new_values: heads and rows at any strides (in elements), elements side by side
 * out     [num_rows][num_heads][value_size] in the query's type
 * Numbers are float, or bfloat16 where is_wide is 0.
 *
 * A sequence is cut into parts of PART tokens, whose results are merged in order: what comes out depends on
 * nothing but the sequence itself, neither on its company nor on the number of threads.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define LANES 16
#define TILE 64
/* Of a tile, at most, but for LANES rows: two of them and the sums share the first cache. */
#define TILE_BYTES 8192
#define PART 512
#define LOG2_E 1.44269504088896341f

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
typedef uint16_t half_vec __attribute__((vector_size(2 * LANES)));
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    void *keys, *values, *out;
    const void *query, *new_keys, *new_values;
    const int64_t *meta, *slots;
    const int32_t *tables;
    const float *sinks;
    int64_t query_head, query_row, key_head, key_row, value_head, value_row;
    int64_t num_spans, num_columns, num_rows, num_heads, num_kv_heads;
    int64_t key_size, value_size, block_shift, window, chunk, is_wide, num_threads;
    float scale, softcap;
} Call;

/* ---- numbers ---- */

INLINE float widened(uint16_t bits) {
    uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

INLINE uint16_t rounded(float number) {
    uint32_t bits;
    memcpy(&bits, &number, sizeof bits);
    if (number != number) return (uint16_t)(bits >> 16 | 0x40);
    return (uint16_t)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

/* What the compiler makes a version of the code for. */
typedef struct {
    int is_wide, is_even;
} Kind;

static const Kind FLOATS = {1, 1}, FLOATS_TO_END = {1, 0};

INLINE float number_at(const void *row, int64_t i, int is_wide) {
    return is_wide ? ((const float *)row)[i] : widened(((const uint16_t *)row)[i]);
}

INLINE const void *element(const void *base, int64_t i, int is_wide) {
    return (const char *)base + i * (is_wide ? 4 : 2);
}

/* LANES numbers from element i on; what lies at size and behind counts as 0 and is not read. With is_even,
 * size is a multiple of 2 LANES. */
INLINE vec load(const void *row, int64_t i, int64_t size, Kind kind) {
    if (!kind.is_even && i + LANES > size) {
        vec part = {0};
        for (int64_t j = i; j < size; j++) part[j - i] = number_at(row, j, kind.is_wide);
        return part;
    }
    if (kind.is_wide) {
        vec all;
        memcpy(&all, (const float *)row + i, sizeof all);
        return all;
    }
#ifdef __AVX512F__
    /* The compiler would make halves of the vector. */
    const __m256i bits = _mm256_loadu_si256((const __m256i *)((const uint16_t *)row + i));
    return (vec)_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16);
#else
    half_vec bits;
    memcpy(&bits, (const uint16_t *)row + i, sizeof bits);
    return (vec)(__builtin_convertvector(bits, ivec) << 16);
#endif
}

INLINE vec splat(float number) { return number - (vec){0}; }

INLINE vec chosen(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }

/* e to the power of x for x <= 88; below -87, where a float ends, as at -87. */
INLINE vec exponential(vec x) {
    x = chosen(x < -87.0f, splat(-87.0f), x);
    /* Adding it leaves the whole number nearest to what was there in the lowest bits. */
    const vec magic = splat(12582912.0f);
    const vec shifted = x * LOG2_E + magic;
    const vec whole = shifted - magic;
    /* The logarithm of 2 in two parts, of which the first is short enough to multiply exactly. */
    const vec rest = (x - whole * 0.693359375f) - whole * -2.12194440e-4f;
    vec power = splat(1.0f / 5040);
    power = power * rest + 1.0f / 720;
    power = power * rest + 1.0f / 120;
    power = power * rest + 1.0f / 24;
    power = power * rest + 1.0f / 6;
    power = power * rest + 0.5f;
    power = power * rest + 1.0f;
    power = power * rest + 1.0f;
    return (vec)((ivec)power + (((ivec)shifted - (ivec)magic) << 23));
}

INLINE vec hyperbolic_tangent(vec x) {
    const vec size = (vec)((ivec)x & 0x7fffffff);
    const vec bounded = chosen(size > 20.0f, splat(20.0f), size);
    const vec far = 1.0f - 2.0f / (exponential(2.0f * bounded) + 1.0f);
    /* Near nought the difference would leave few digits. */
    const vec square = bounded * bounded;
    vec near = splat(-0.0057049789f);
    near = near * square + 0.020639079f;
    near = near * square - 0.053739712f;
    near = near * square + 0.13331442f;
    near = near * square - 0.33333281f;
    near = bounded + bounded * square * near;
    const vec tangent = chosen(size < 0.625f, near, far);
    return (vec)((ivec)tangent | ((ivec)x & (ivec)splat(-0.0f)));
}

/* The sum of each of 16 vectors, as one vector, in the order of REVERSED: each fold halves their number. */
INLINE vec sums(vec *each) {
#define FOLD(COUNT, LOW, HIGH)                                                \
    _Pragma("GCC unroll 8") for (int i = 0; i < COUNT; i++) {                                         \
        const vec a = each[i], b = each[i + COUNT];                           \
        each[i] = __builtin_shufflevector LOW + __builtin_shufflevector HIGH; \
    }
    FOLD(8, (a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23),
         (a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31))
    FOLD(4, (a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27),
         (a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31))
    FOLD(2, (a, b, 0, 1, 4, 5, 8, 9, 12, 13, 16, 17, 20, 21, 24, 25, 28, 29),
         (a, b, 2, 3, 6, 7, 10, 11, 14, 15, 18, 19, 22, 23, 26, 27, 30, 31))
    FOLD(1, (a, b, 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30),
         (a, b, 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31))
#undef FOLD
    return each[0];
}

INLINE float sum_of(vec x) {
    x += __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    x += __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    x += __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    x += __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return x[0];
}

INLINE vec larger(vec a, vec b) {
#ifdef __AVX512F__
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return chosen(a > b, a, b);
#endif
}

INLINE float largest_of(vec x) {
    x = larger(x, __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7));
    x = larger(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11));
    x = larger(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13));
    x = larger(x, __builtin_shufflevector(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14));
    return x[0];
}

static const int REVERSED[LANES] = {0, 8, 4, 12, 2, 10, 6, 14, 1, 9, 5, 13, 3, 11, 7, 15};

/* ---- one query group over one part of a sequence ---- */

/* What a thread works with, for `group` query heads that share a key head. */
typedef struct {
    float *query;      /* [group][padded key_size] */
    uint16_t *halves;  /* the same in bfloat16 */
    float *scores;     /* [group][TILE], later weights */
    float *factors;    /* [group]: what the sums of earlier tiles shrink by */
} Scratch;

/* The result over some keys, before it is divided by `total`. */
typedef struct {
    float *sum;     /* [group][padded value_size] */
    float *largest; /* [group] */
    float *total;   /* [group] */
} Result;

INLINE int64_t padded(int64_t size) { return (size + 2 * LANES - 1) / (2 * LANES) * (2 * LANES); }

INLINE void read_query(const Call *call, Scratch *scratch, int64_t row, int64_t head, int64_t group,
                       Kind kind) {
    const int64_t width = padded(call->key_size);
    for (int64_t r = 0; r < group; r++) {
        const int64_t from = (head * group + r) * call->query_head + row * call->query_row;
        const void *source = element(call->query, from, kind.is_wide);
        for (int64_t d = 0; d < width; d += LANES) {
            const vec part = load(source, d, call->key_size, kind);
            memcpy(scratch->query + r * width + d, &part, sizeof part);
        }
        if (!kind.is_wide) {
            memset(scratch->halves + r * width, 0, 2 * width);
            memcpy(scratch->halves + r * width, source, 2 * call->key_size);
        }
    }
}

/* Dot products of one query with 16 keys. */
INLINE vec dots(const Call *call, const Scratch *scratch, const void *const *keys, int64_t r, Kind kind) {
    const int64_t size = call->key_size, width = padded(size);
    vec each[LANES] = {0};
#if defined(__AVX512F__) && defined(__AVX512BF16__)
    if (!kind.is_wide && kind.is_even) {
        const uint16_t *query = scratch->halves + r * width;
        for (int64_t d = 0; d < size; d += 2 * LANES) {
            const __m512bh left = (__m512bh)_mm512_loadu_si512(query + d);
#pragma GCC unroll 16
            for (int j = 0; j < LANES; j++) {
                const __m512bh right = (__m512bh)_mm512_loadu_si512((const uint16_t *)keys[j] + d);
                each[REVERSED[j]] = (vec)_mm512_dpbf16_ps((__m512)each[REVERSED[j]], left, right);
            }
        }
        return sums(each);
    }
#endif
    const float *query = scratch->query + r * width;
    for (int64_t d = 0; d < size; d += LANES) {
        const vec left = load(query, d, width, FLOATS);
#pragma GCC unroll 16
        for (int j = 0; j < LANES; j++) each[REVERSED[j]] += left * load(keys[j], d, size, kind);
    }
    return sums(each);
}

INLINE vec scores_at(const Call *call, const Scratch *scratch, const void *const *keys, int64_t r,
                     Kind kind) {
    const vec scores = dots(call, scratch, keys, r, kind) * call->scale;
    return call->softcap > 0 ? hyperbolic_tangent(scores / call->softcap) * call->softcap : scores;
}

/* Turns the scores of a tile into weights under the largest so far. One thing for all queries after another:
 * what waits for a sum or an exponential of one query works on the next. */
INLINE void weigh(const Scratch *scratch, Result *result, int64_t group, int64_t count) {
    const ivec lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int64_t r = 0; r < group; r++) {
        float *scores = scratch->scores + r * TILE;
        vec largest = splat(result->largest[r]);
        for (int64_t t = 0; t < count; t += LANES) {
            vec part = load(scores, t, TILE, FLOATS);
            part = chosen(lanes < (int32_t)(count - t), part, splat(-INFINITY));
            largest = larger(part, largest);
            memcpy(scores + t, &part, sizeof part);
        }
        const float now = largest_of(largest);
        scratch->factors[r] = result->largest[r] - now;
        result->largest[r] = now;
    }
    for (int64_t r = 0; r < group; r += LANES) {
        const vec factors = exponential(load(scratch->factors, r, group, FLOATS_TO_END));
        for (int64_t i = r; i < group && i < r + LANES; i++) scratch->factors[i] = factors[i - r];
    }
    for (int64_t r = 0; r < group; r++) {
        float *scores = scratch->scores + r * TILE;
        vec total = {0};
        for (int64_t t = 0; t < count; t += LANES) {
            vec part = exponential(load(scores, t, TILE, FLOATS) - result->largest[r]);
            part = chosen(lanes < (int32_t)(count - t), part, (vec){0});
            total += part;
            memcpy(scores + t, &part, sizeof part);
        }
        result->total[r] = result->total[r] * scratch->factors[r] + sum_of(total);
    }
}

/* Adds the weighted values of a tile for `num` queries from r on; `num` is known to the compiler. */
INLINE void add_values(const Call *call, const Scratch *scratch, Result *result, const void *const *values,
                       int64_t r, int64_t count, int num, Kind kind) {
    const int64_t size = call->value_size, width = padded(size);
    const float *weights = scratch->scores + r * TILE;
    for (int64_t d = 0; d < size; d += 2 * LANES) {
        vec sum[4][2];
        for (int i = 0; i < num; i++) {
            const float *before = result->sum + (r + i) * width;
            sum[i][0] = load(before, d, width, FLOATS) * scratch->factors[r + i];
            sum[i][1] = load(before, d + LANES, width, FLOATS) * scratch->factors[r + i];
        }
        for (int64_t t = 0; t < count; t++) {
            const vec low = load(values[t], d, size, kind), high = load(values[t], d + LANES, size, kind);
            for (int i = 0; i < num; i++) {
                sum[i][0] += weights[i * TILE + t] * low;
                sum[i][1] += weights[i * TILE + t] * high;
            }
        }
        for (int i = 0; i < num; i++) memcpy(result->sum + (r + i) * width + d, sum[i], sizeof sum[i]);
    }
}

/* Where the keys and values of a tile lie; behind its end the last one again. */
typedef struct {
    const void *keys[TILE], *values[TILE];
} Rows;

INLINE void find_rows(const Call *call, Rows *rows, int64_t span, int64_t head, int64_t first, int64_t stop,
                      Kind kind) {
    const int64_t block_size = (int64_t)1 << call->block_shift;
    const int32_t *table = call->tables + span * call->num_columns;
    int64_t t = 0;
    while (t < TILE && first + t < stop) {
        const int64_t position = first + t, offset = position & (block_size - 1);
        const int64_t left = block_size - offset, room = TILE - t;
        const int64_t rest = stop - position < room ? stop - position : room;
        const int64_t block = table[position >> call->block_shift];
        const int64_t place = (block * call->num_kv_heads + head) * block_size + offset;
        for (int64_t i = 0; i < left && i < rest; i++, t++) {
            rows->keys[t] = element(call->keys, (place + i) * call->key_size, kind.is_wide);
            rows->values[t] = element(call->values, (place + i) * call->value_size, kind.is_wide);
        }
    }
    for (; t < TILE; t++) {
        rows->keys[t] = rows->keys[t - 1];
        rows->values[t] = rows->values[t - 1];
    }
}

/* Asks for rows ahead of their use: they lie in too many places for the CPU to guess. */
INLINE void fetch(const Call *call, const Rows *rows, int64_t first, int64_t stop, Kind kind) {
    const int64_t unit = kind.is_wide ? 4 : 2;
    for (int64_t t = first; t < stop; t++) {
        for (int64_t i = 0; i < call->key_size * unit; i += 64)
            __builtin_prefetch((const char *)rows->keys[t] + i);
        for (int64_t i = 0; i < call->value_size * unit; i += 64)
            __builtin_prefetch((const char *)rows->values[t] + i);
    }
}

/* Attends with query group `head` of span `span` over positions first to stop. */
INLINE void attend(const Call *call, Scratch *scratch, Result *result, int64_t span, int64_t head,
                   int64_t first, int64_t stop, Kind kind) {
    const int64_t group = call->num_heads / call->num_kv_heads;
    read_query(call, scratch, call->meta[3 * span], head, group, kind);
    memset(result->sum, 0, sizeof(float) * group * padded(call->value_size));
    for (int64_t r = 0; r < group; r++) {
        result->largest[r] = -INFINITY;
        result->total[r] = 0;
    }
    const int64_t row_bytes = (call->key_size + call->value_size) * (kind.is_wide ? 4 : 2);
    const int64_t fitting = TILE_BYTES / row_bytes / LANES * LANES;
    const int64_t tile = fitting < LANES ? LANES : fitting > TILE ? TILE : fitting;
    Rows rows[2];
    find_rows(call, &rows[0], span, head, first, stop, kind);
    fetch(call, &rows[0], 0, tile, kind);
    for (int64_t from = first, turn = 0; from < stop; from += tile, turn ^= 1) {
        const int64_t count = stop - from < tile ? stop - from : tile;
        const void *const *keys = rows[turn].keys, *const *values = rows[turn].values;
        const int has_next = from + tile < stop;
        if (has_next) find_rows(call, &rows[turn ^ 1], span, head, from + tile, stop, kind);
        for (int64_t r = 0; r < group; r++) {
            if (has_next) fetch(call, &rows[turn ^ 1], tile * r / group, tile * (r + 1) / group, kind);
            for (int64_t t = 0; t < count; t += LANES) {
                const vec scores = scores_at(call, scratch, keys + t, r, kind);
                memcpy(scratch->scores + r * TILE + t, &scores, sizeof scores);
            }
        }
        weigh(scratch, result, group, count);
        int64_t r = 0;
        for (; r + 4 <= group; r += 4) add_values(call, scratch, result, values, r, count, 4, kind);
        if (group - r == 3) add_values(call, scratch, result, values, r, count, 3, kind);
        if (group - r == 2) add_values(call, scratch, result, values, r, count, 2, kind);
        if (group - r == 1) add_values(call, scratch, result, values, r, count, 1, kind);
    }
}

#define VERSION(NAME, IS_WIDE, IS_EVEN)                                                                      \
    static void NAME(const Call *call, Scratch *scratch, Result *result, int64_t span, int64_t head,         \
                     int64_t first, int64_t stop) {                                                          \
        attend(call, scratch, result, span, head, first, stop, (Kind){IS_WIDE, IS_EVEN});                    \
    }
VERSION(attend_floats, 1, 0)
VERSION(attend_even_floats, 1, 1)
VERSION(attend_halves, 0, 0)
VERSION(attend_even_halves, 0, 1)

/* Writes what `num_parts` results say together; they lie `stride` floats apart. */
static void finish(const Call *call, const Result *parts, int64_t num_parts, int64_t stride, int64_t row,
                   int64_t head) {
    const int64_t group = call->num_heads / call->num_kv_heads, width = padded(call->value_size);
    for (int64_t r = 0; r < group; r++) {
        const int64_t query = head * group + r;
        float largest = call->sinks ? call->sinks[query] : -INFINITY;
        for (int64_t p = 0; p < num_parts; p++) {
            const float other = parts->largest[p * stride + r];
            largest = other > largest ? other : largest;
        }
        float total = call->sinks ? expf(call->sinks[query] - largest) : 0;
        float *sum = parts->sum + r * width;
        for (int64_t p = 0; p < num_parts; p++) {
            const float factor = expf(parts->largest[p * stride + r] - largest);
            total += parts->total[p * stride + r] * factor;
            /* Alone it is its own largest. */
            for (int64_t d = 0; d < width && (num_parts > 1 || factor != 1); d += LANES) {
                const vec before = p ? load(sum, d, width, FLOATS) : (vec){0};
                const vec now = before + load(sum + p * stride, d, width, FLOATS) * factor;
                memcpy(sum + d, &now, sizeof now);
            }
        }
        const int64_t place = (row * call->num_heads + query) * call->value_size;
        if (call->is_wide) {
            float *restrict out = (float *)call->out + place;
            for (int64_t d = 0; d < call->value_size; d++) out[d] = sum[d] / total;
        } else {
            uint16_t *restrict out = (uint16_t *)call->out + place;
            for (int64_t d = 0; d < call->value_size; d++) out[d] = rounded(sum[d] / total);
        }
    }
}

/* ---- the step ---- */

INLINE void store_row(const Call *call, int64_t row) {
    const int64_t block_size = (int64_t)1 << call->block_shift, unit = call->is_wide ? 4 : 2;
    const int64_t block = call->slots[row] >> call->block_shift, offset = call->slots[row] & (block_size - 1);
    for (int64_t head = 0; head < call->num_kv_heads; head++) {
        const int64_t place = (block * call->num_kv_heads + head) * block_size + offset;
        memcpy((char *)call->keys + place * call->key_size * unit,
               (const char *)call->new_keys + (head * call->key_head + row * call->key_row) * unit,
               call->key_size * unit);
        memcpy((char *)call->values + place * call->value_size * unit,
               (const char *)call->new_values + (head * call->value_head + row * call->value_row) * unit,
               call->value_size * unit);
    }
}

INLINE int64_t first_seen(const Call *call, int64_t start) {
    if (call->window > 0) return start < call->window ? 0 : start - call->window + 1;
    return call->chunk > 0 ? start / call->chunk * call->chunk : 0;
}

INLINE int64_t count_parts(const Call *call, int64_t span) {
    const int64_t start = call->meta[3 * span + 2];
    return (start - first_seen(call, start)) / PART + 1;
}

/* The span that task `task` belongs to: the last whose first task is not behind it. */
INLINE int64_t span_of(const int64_t *first_task, int64_t num_spans, int64_t task) {
    int64_t low = 0, high = num_spans;
    while (high - low > 1) {
        const int64_t middle = (low + high) / 2;
        if (first_task[middle] <= task) low = middle;
        else high = middle;
    }
    return low;
}

INLINE Result result_at(float *base, int64_t group, int64_t width) {
    return (Result){.sum = base, .largest = base + group * width, .total = base + group * (width + 1)};
}

/* Returns 0, or 1 where memory ran out. */
int llmctl_attend(const Call *call) {
    const int64_t heads = call->num_kv_heads, group = call->num_heads / heads;
    const int64_t width = padded(call->value_size), stride = group * (width + 2);
    const int64_t key_width = padded(call->key_size);
    /* A task is a part of a sequence under one key head; those of a sequence lie together, head by head. */
    int64_t *first_task = malloc(sizeof(int64_t) * (call->num_spans + 1));
    if (!first_task) return 1;
    first_task[0] = 0;
    int is_parted = 0;
    for (int64_t i = 0; i < call->num_spans; i++) {
        const int64_t parts = call->meta[3 * i + 1] == 1 ? count_parts(call, i) : 0;
        is_parted |= parts > 1;
        first_task[i + 1] = first_task[i] + parts * heads;
    }
    const int is_even = call->key_size % (2 * LANES) == 0 && call->value_size % (2 * LANES) == 0;
    void (*const versions[2][2])(const Call *, Scratch *, Result *, int64_t, int64_t, int64_t, int64_t) = {
        {attend_halves, attend_even_halves}, {attend_floats, attend_even_floats}};
    void (*const version)(const Call *, Scratch *, Result *, int64_t, int64_t, int64_t, int64_t) =
        versions[call->is_wide != 0][is_even];
    const int64_t num_tasks = first_task[call->num_spans];
    float *results = is_parted ? malloc(sizeof(float) * stride * num_tasks) : NULL;
    int failed = is_parted && !results;
#pragma omp parallel num_threads((int)call->num_threads)
    {
        float *room = malloc(sizeof(float) * group * (2 * key_width + TILE + 1 + width + 2));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
        Scratch scratch = {.query = room,
                           .halves = (uint16_t *)(room + group * key_width),
                           .scores = room + 2 * group * key_width,
                           .factors = room + group * (2 * key_width + TILE)};
        Result own = result_at(room + group * (2 * key_width + TILE + 1), group, width);
        if (call->new_keys) {
#pragma omp for schedule(static)
            for (int64_t row = 0; row < call->num_rows; row++) store_row(call, row);
        } else {
#pragma omp barrier
        }
        int is_hopeless;
#pragma omp atomic read
        is_hopeless = failed;
        if (!is_hopeless) {
#pragma omp for schedule(dynamic)
            for (int64_t task = 0; task < num_tasks; task++) {
                const int64_t span = span_of(first_task, call->num_spans, task);
                const int64_t parts = (first_task[span + 1] - first_task[span]) / heads;
                const int64_t number = task - first_task[span], head = number / parts, part = number % parts;
                const int64_t row = call->meta[3 * span], start = call->meta[3 * span + 2];
                const int64_t first = first_seen(call, start) + part * PART;
                const int64_t stop = part + 1 < parts ? first + PART : start + 1;
                Result result = parts > 1 ? result_at(results + task * stride, group, width) : own;
                version(call, &scratch, &result, span, head, first, stop);
                if (parts == 1) finish(call, &result, 1, 0, row, head);
            }
            if (is_parted) {
#pragma omp for schedule(dynamic)
                for (int64_t task = 0; task < num_tasks; task++) {
                    const int64_t span = span_of(first_task, call->num_spans, task);
                    const int64_t parts = (first_task[span + 1] - first_task[span]) / heads;
                    const int64_t number = task - first_task[span];
                    if (parts == 1 || number % parts) continue;
                    const Result merged = result_at(results + task * stride, group, width);
                    finish(call, &merged, parts, stride, call->meta[3 * span], number / parts);
                }
            }
        }
        free(room);
    }
    free(results);
    free(first_task);
    return failed;
}
