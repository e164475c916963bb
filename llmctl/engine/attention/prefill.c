/* Attention of sequences that write several tokens each, over keys and values in blocks that hold them.
 *
 * Arguments as in decode.c; here spans with a count above 1 attend.
 *
 * The rows of a span under one key head, position by position and there head by head, are cut in tasks. A
 * task takes tiles of keys one after another, brings each in the order of `multiply`, and goes with it over
 * its rows, a few at a time: scores, weights under the largest score so far, weighted values. Tiles begin at
 * multiples of their size, and no row sees another: what comes out depends neither on company, nor on the
 * number of threads, nor on how a prompt was cut into steps.
 */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef __AVX512F__
#include <immintrin.h>
#endif

/* ROWS by COLUMNS vectors of sums, a row of columns and one number more fill the registers. */
#define ROWS 6
#if defined(__AVX512F__)
#define LANES 16
#define COLUMNS 4
#elif defined(__AVX__)
#define LANES 8
#define COLUMNS 2
#elif defined(__aarch64__)
#define LANES 4
#define COLUMNS 4
#else
#define LANES 4
#define COLUMNS 2
#endif
#if defined(__AVX512F__) && defined(__AVX512BF16__)
#define HAS_PAIRS 1
#else
#define HAS_PAIRS 0
#endif
#define TILE 64
/* Of a task: they pay for bringing a tile in order, and what is kept of them has room in the second cache. */
#define FEWEST_ROWS 96
#define MOST_ROWS 240
#define ROW_NUMBERS 32768
#define TASKS_A_THREAD 4
#define ALIGNMENT 64
#define LOG2_E 1.44269504088896341f
/* Below every score, and yet a number. */
#define LOWEST -3e38f

typedef float vec __attribute__((vector_size(4 * LANES)));
typedef int32_t ivec __attribute__((vector_size(4 * LANES)));
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
    const uint32_t wide = (uint32_t)bits << 16;
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

INLINE vec splat(float number) { return number - (vec){0}; }

INLINE vec load(const float *numbers) {
    vec x;
    memcpy(&x, numbers, sizeof x);
    return x;
}

INLINE void store(float *numbers, vec x) { memcpy(numbers, &x, sizeof x); }

INLINE vec chosen(ivec which, vec yes, vec no) { return (vec)((which & (ivec)yes) | (~which & (ivec)no)); }

/* The second where one is no number. */
INLINE vec larger(vec a, vec b) {
#ifdef __AVX512F__
    return (vec)_mm512_max_ps((__m512)a, (__m512)b);
#else
    return chosen(a > b, a, b);
#endif
}

INLINE ivec numbered(void) {
    ivec lanes;
#pragma GCC unroll 16
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    return lanes;
}

/* Lanes of a and b, which `places` counts through. */
INLINE vec shuffled(vec a, vec b, ivec places) {
#ifdef __clang__
    vec out;
#pragma unroll
    for (int i = 0; i < LANES; i++) out[i] = places[i] < LANES ? a[places[i]] : b[places[i] - LANES];
    return out;
#else
    return __builtin_shuffle(a, b, places);
#endif
}

INLINE float largest_of(vec x) {
    const ivec lanes = numbered();
#pragma GCC unroll 4
    for (int half = LANES / 2; half > 0; half /= 2) x = larger(x, shuffled(x, x, lanes ^ half));
    return x[0];
}

INLINE float sum_of(vec x) {
    float total = 0;
    for (int i = 0; i < LANES; i++) total += x[i];
    return total;
}

/* 2 to the power of x for x <= 127, up to 2 parts in 10^7, exactly for whole x; far below -126 it is 0. */
INLINE vec power_of_two(vec x) {
#ifdef __AVX512F__
    x = larger(splat(-160.0f), x);
    const vec whole = (vec)_mm512_roundscale_ps((__m512)x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#else
    x = chosen(x < -127.0f, splat(-127.0f), x);
    /* Adding it leaves the whole number nearest to what was there in the lowest bits. */
    const vec magic = splat(12582912.0f), shifted = x + magic, whole = shifted - magic;
#endif
    const vec rest = x - whole;
    vec power = splat(0.0013264726f);
    power = power * rest + 0.009671513f;
    power = power * rest + 0.055507336f;
    power = power * rest + 0.24022242f;
    power = power * rest + 0.693147f;
    power = power * rest + 1.0f;
#ifdef __AVX512F__
    return (vec)_mm512_scalef_ps((__m512)power, (__m512)whole);
#else
    return power * (vec)(((ivec)shifted - (ivec)magic + 127) << 23);
#endif
}

INLINE vec hyperbolic_tangent(vec x) {
    const vec size = (vec)((ivec)x & 0x7fffffff);
    const vec bounded = chosen(size > 20.0f, splat(20.0f), size);
    const vec far = 1.0f - 2.0f / (power_of_two(bounded * (2 * LOG2_E)) + 1.0f);
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

/* ---- products ---- */

/* How numbers lie for products, in units of 32 bits: floats, which come from floats or from bfloat16, or
 * pairs of bfloat16 that follow each other in the depth. */
typedef enum { FLOATS, WIDENED, PAIRS } Form;

INLINE int64_t depth_of(int64_t size, Form form) { return form == PAIRS ? (size + 1) / 2 : size; }

INLINE vec multiplied(vec sum, vec a, vec b, Form form) {
#if HAS_PAIRS
    if (form == PAIRS) return (vec)_mm512_dpbf16_ps((__m512)sum, (__m512bh)a, (__m512bh)b);
#endif
    (void)form;
    return sum + a * b;
}

/* sum += a b, for units a [ROWS][depth] with rows `a_width` apart and b [depth][columns * LANES], `b_width`
 * apart; `columns` is known to the compiler. */
INLINE void multiply(vec sum[ROWS][COLUMNS], const float *a, int64_t a_width, const float *b, int64_t b_width,
                     int64_t depth, int columns, Form form) {
    for (int64_t i = 0; i < depth; i++) {
        vec right[COLUMNS];
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) right[c] = load(b + i * b_width + c * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++) {
            int32_t unit;
            memcpy(&unit, a + r * a_width + i, sizeof unit);
            const vec left = (vec)((ivec){0} + unit);
#pragma GCC unroll 4
            for (int c = 0; c < columns; c++) sum[r][c] = multiplied(sum[r][c], left, right[c], form);
        }
    }
}

/* LANES rows of LANES units, turned. */
INLINE void turn(vec rows[LANES]) {
    const ivec lanes = numbered();
#pragma GCC unroll 4
    for (int step = 1; step < LANES; step *= 2) {
        /* Of two rows `step` apart: the blocks of `step` units that are even in both, then the odd ones. */
        const ivec is_odd = (lanes & step) != 0;
        const ivec even = lanes + (is_odd & (LANES - step)), odd = even + step;
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++) {
            if (i & step) continue;
            const vec a = rows[i], b = rows[i + step];
            rows[i] = shuffled(a, b, even);
            rows[i + step] = shuffled(a, b, odd);
        }
    }
}

/* ---- bringing in order ---- */

/* Rows of a span under a key head. */
typedef struct {
    int64_t span, head, first, count;
} Task;

/* What a thread works with, for as many rows as a task has, up to a multiple of ROWS. */
typedef struct {
    float *query;   /* [rows][depth of keys] units */
    float *sum;     /* [rows][width of values], before it is divided by the total */
    float *total;   /* [rows][LANES] */
    float *largest; /* [rows], times LOG2_E as all scores are */
    float *keys;    /* [depth of keys][TILE] units */
    float *values;  /* [depth of TILE][width of values] units */
    float *weights; /* [ROWS][TILE] */
    float *nothing; /* zeros in the place of a key or a value */
} Scratch;

INLINE int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }
INLINE int64_t up_to(int64_t size, int64_t unit) { return (size + unit - 1) / unit * unit; }
INLINE int64_t width_of(const Call *call) { return up_to(call->value_size, LANES); }
INLINE int64_t group_of(const Call *call) { return call->num_heads / call->num_kv_heads; }

INLINE const void *element(const void *base, int64_t i, Form form) {
    return (const char *)base + i * (form == FLOATS ? 4 : 2);
}

/* LANES units of a row of `size` numbers from unit `first` on; zeros behind the end. */
INLINE vec units_at(const void *row, int64_t first, int64_t size, Form form) {
    const int64_t step = form == PAIRS ? 2 : 1;
    const int64_t place = first * step, left = smaller_of(size - place, LANES * step);
    float units[LANES] = {0};
    if (form == WIDENED) {
        if (left == LANES)
            for (int64_t i = 0; i < LANES; i++) units[i] = widened(((const uint16_t *)row)[place + i]);
        else
            for (int64_t i = 0; i < left; i++) units[i] = widened(((const uint16_t *)row)[place + i]);
    } else {
        if (left == LANES * step) return load(element(row, place, form));
        memcpy(units, element(row, place, form), left * (form == FLOATS ? 4 : 2));
    }
    return load(units);
}

INLINE void read_query(const Call *call, const Scratch *scratch, const Task *task, Form form) {
    const int64_t group = group_of(call), depth = depth_of(call->key_size, form);
    const int64_t row = call->meta[3 * task->span];
    for (int64_t r = 0; r < task->count; r++) {
        const int64_t i = task->first + r, head = task->head * group + i % group;
        const void *source =
            element(call->query, head * call->query_head + (row + i / group) * call->query_row, form);
        for (int64_t d = 0; d < depth; d += LANES) {
            const vec units = units_at(source, d, call->key_size, form);
            memcpy(scratch->query + r * depth + d, &units, 4 * smaller_of(LANES, depth - d));
        }
    }
    memset(scratch->query + task->count * depth, 0, 4 * depth * (up_to(task->count, ROWS) - task->count));
}

/* Where the keys and values of a tile lie. */
typedef struct {
    const void *keys[TILE], *values[TILE];
} Places;

/* Of positions `first` to `stop` in the tile that begins at `base`. What lies at others may be no number. */
INLINE void find(const Call *call, const Scratch *scratch, const Task *task, Places *places, int64_t base,
                 int64_t first, int64_t stop, Form form) {
    const int64_t block_size = (int64_t)1 << call->block_shift;
    const int32_t *table = call->tables + task->span * call->num_columns;
    for (int64_t t = 0; t < TILE; t++) {
        const int64_t position = base + t;
        places->keys[t] = places->values[t] = scratch->nothing;
        if (position < first || position >= stop) continue;
        const int64_t block = table[position >> call->block_shift], offset = position & (block_size - 1);
        const int64_t place = (block * call->num_kv_heads + task->head) * block_size + offset;
        places->keys[t] = element(call->keys, place * call->key_size, form);
        places->values[t] = element(call->values, place * call->value_size, form);
    }
}

INLINE void read_keys(const Call *call, const Scratch *scratch, const Places *places, Form form) {
    const int64_t depth = depth_of(call->key_size, form);
    for (int64_t d = 0; d < depth; d += LANES) {
        for (int64_t t = 0; t < TILE; t += LANES) {
            vec rows[LANES];
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++) rows[i] = units_at(places->keys[t + i], d, call->key_size, form);
            turn(rows);
#pragma GCC unroll 16
            for (int i = 0; i < LANES; i++)
                if (d + i < depth) store(scratch->keys + (d + i) * TILE + t, rows[i]);
        }
    }
}

INLINE void read_values(const Call *call, const Scratch *scratch, const Places *places, Form form) {
    const int64_t width = width_of(call), size = call->value_size;
    if (form != PAIRS) {
        for (int64_t t = 0; t < TILE; t++)
            for (int64_t d = 0; d < width; d += LANES)
                store(scratch->values + t * width + d, units_at(places->values[t], d, size, form));
        return;
    }
    for (int64_t t = 0; t < TILE; t += 2) {
        const uint16_t *low = places->values[t], *high = places->values[t + 1];
        uint32_t *pairs = (uint32_t *)(scratch->values + t / 2 * width);
        for (int64_t d = 0; d < size; d++) pairs[d] = low[d] | (uint32_t)high[d] << 16;
        for (int64_t d = size; d < width; d++) pairs[d] = 0;
    }
}

/* ---- one task ---- */

INLINE int64_t first_seen(const Call *call, int64_t position) {
    if (call->window > 0) return larger_of(0, position - call->window + 1);
    return call->chunk > 0 ? position / call->chunk * call->chunk : 0;
}

INLINE int64_t position_of(const Call *call, const Task *task, int64_t row) {
    return call->meta[3 * task->span + 2] + (task->first + row) / group_of(call);
}

/* Raw products of ROWS rows from `row` on with the first `num_vectors` vectors of keys, to the weights. */
INLINE void score(const Scratch *scratch, int64_t row, int64_t depth, int64_t num_vectors, Form form) {
    const float *query = scratch->query + row * depth;
    for (int64_t v = 0; v < num_vectors; v += COLUMNS) {
        vec sum[ROWS][COLUMNS] = {0};
        const float *keys = scratch->keys + v * LANES;
#define CASE(COUNT) \
    case COUNT: multiply(sum, query, depth, keys, TILE, depth, COUNT, form); break;
        switch (smaller_of(COLUMNS, num_vectors - v)) {
            CASE(1)
#if COLUMNS > 2
            CASE(2)
            CASE(3)
#endif
            default: multiply(sum, query, depth, keys, TILE, depth, COLUMNS, form);
        }
#undef CASE
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++)
                if (v + c < num_vectors) store(scratch->weights + r * TILE + (v + c) * LANES, sum[r][c]);
    }
}

/* Turns products into weights under the largest score so far, in units; earlier sums shrink by `shrink`. */
INLINE void weigh(const Call *call, const Scratch *scratch, const Task *task, int64_t row, int64_t base,
                  int64_t num_vectors, int is_masked, float *shrink, Form form) {
    const float factor = (call->softcap > 0 ? call->softcap : call->scale) * LOG2_E;
    const float inner = call->softcap > 0 ? call->scale / call->softcap : 0;
    const ivec lanes = numbered();
    for (int r = 0; r < ROWS; r++) {
        float *scores = scratch->weights + r * TILE;
        const float before = scratch->largest[row + r];
        vec largest = splat(before);
        int32_t low = 0, high = TILE;
        if (is_masked) {
            const int64_t position = position_of(call, task, smaller_of(row + r, task->count - 1));
            low = (int32_t)larger_of(first_seen(call, position) - base, 0);
            high = (int32_t)smaller_of(position - base, TILE);
        }
        for (int64_t v = 0; v < num_vectors; v++) {
            vec x = load(scores + v * LANES);
            if (call->softcap > 0) x = hyperbolic_tangent(x * inner);
            x *= factor;
            if (is_masked) {
                const ivec places = lanes + (int32_t)(v * LANES);
                x = chosen((places >= low) & (places <= high), x, splat(-INFINITY));
            }
            largest = larger(x, largest);
            store(scores + v * LANES, x);
        }
        scratch->largest[row + r] = largest_of(largest);
        shrink[r] = before - scratch->largest[row + r];
    }
    for (int r = 0; r < ROWS; r += LANES) store(shrink + r, power_of_two(load(shrink + r)));
    for (int r = 0; r < ROWS; r++) {
        float *scores = scratch->weights + r * TILE, *kept = scratch->total + (row + r) * LANES;
        vec total = load(kept) * shrink[r];
        for (int64_t v = 0; v < num_vectors; v++) {
            const vec weight = power_of_two(load(scores + v * LANES) - scratch->largest[row + r]);
            total += weight;
#if HAS_PAIRS
            if (form == PAIRS) {
                const __m256bh halves = _mm512_cvtneps_pbh((__m512)weight);
                memcpy((uint16_t *)scores + v * LANES, &halves, sizeof halves);
                continue;
            }
#endif
            store(scores + v * LANES, weight);
        }
        store(kept, total);
    }
}

/* Adds the weighted values of `columns` vectors from `place` on; `columns` is known to the compiler. */
INLINE void add_columns(const Scratch *scratch, int64_t row, int64_t width, int64_t place, int64_t depth,
                        const float *shrink, int columns, Form form) {
    vec sum[ROWS][COLUMNS];
    float *kept = scratch->sum + row * width + place;
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) sum[r][c] = load(kept + r * width + c * LANES) * shrink[r];
    multiply(sum, scratch->weights, TILE, scratch->values + place, width, depth, columns, form);
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; r++)
#pragma GCC unroll 4
        for (int c = 0; c < columns; c++) store(kept + r * width + c * LANES, sum[r][c]);
}

INLINE void add_values(const Scratch *scratch, int64_t row, int64_t width, int64_t count, const float *shrink,
                       Form form) {
    const int64_t depth = depth_of(count, form);
    int64_t place = 0;
    for (; place + COLUMNS * LANES <= width; place += COLUMNS * LANES)
        add_columns(scratch, row, width, place, depth, shrink, COLUMNS, form);
#if COLUMNS > 2
    if (width - place >= 2 * LANES) {
        add_columns(scratch, row, width, place, depth, shrink, 2, form);
        place += 2 * LANES;
    }
#endif
    if (place < width) add_columns(scratch, row, width, place, depth, shrink, 1, form);
}

INLINE void finish(const Call *call, const Scratch *scratch, const Task *task) {
    const int64_t group = group_of(call), width = width_of(call);
    for (int64_t r = 0; r < task->count; r++) {
        const int64_t i = task->first + r, head = task->head * group + i % group;
        const float sink = call->sinks ? call->sinks[head] * LOG2_E : LOWEST;
        const float largest = fmaxf(sink, scratch->largest[r]);
        const float factor = exp2f(scratch->largest[r] - largest);
        const float total = sum_of(load(scratch->total + r * LANES)) * factor;
        const float share = factor / (call->sinks ? total + exp2f(sink - largest) : total);
        const float *sum = scratch->sum + r * width;
        const int64_t row = call->meta[3 * task->span] + i / group;
        const int64_t place = (row * call->num_heads + head) * call->value_size;
        if (call->is_wide) {
            float *restrict out = (float *)call->out + place;
            for (int64_t d = 0; d < call->value_size; d++) out[d] = sum[d] * share;
        } else {
            uint16_t *restrict out = (uint16_t *)call->out + place;
            for (int64_t d = 0; d < call->value_size; d++) out[d] = rounded(sum[d] * share);
        }
    }
}

INLINE void attend(const Call *call, const Scratch *scratch, const Task *task, Form form) {
    const int64_t width = width_of(call), depth = depth_of(call->key_size, form);
    const int64_t num_rows = up_to(task->count, ROWS);
    read_query(call, scratch, task, form);
    memset(scratch->sum, 0, 4 * num_rows * width);
    memset(scratch->total, 0, 4 * num_rows * LANES);
    for (int64_t r = 0; r < num_rows; r++) scratch->largest[r] = LOWEST;
    const int64_t first = first_seen(call, position_of(call, task, 0));
    const int64_t stop = position_of(call, task, task->count - 1) + 1;
    for (int64_t base = first / TILE * TILE; base < stop; base += TILE) {
        Places places;
        find(call, scratch, task, &places, base, first, stop, form);
        read_keys(call, scratch, &places, form);
        read_values(call, scratch, &places, form);
        for (int64_t row = 0; row < task->count; row += ROWS) {
            const int64_t near = position_of(call, task, row);
            const int64_t far = position_of(call, task, smaller_of(row + ROWS, task->count) - 1);
            if (base > far || base + TILE <= first_seen(call, near)) continue;
            const int64_t count = smaller_of(TILE, far + 1 - base), num_vectors = up_to(count, LANES) / LANES;
            const int is_masked = base + TILE > near + 1 || base < first_seen(call, far);
            float shrink[ROWS + LANES] = {0};
            score(scratch, row, depth, num_vectors, form);
            weigh(call, scratch, task, row, base, num_vectors, is_masked, shrink, form);
            add_values(scratch, row, width, count, shrink, form);
        }
    }
    finish(call, scratch, task);
}

#define VERSION(NAME, FORM)                                                               \
    static void NAME(const Call *call, const Scratch *scratch, const Task *task) {        \
        attend(call, scratch, task, FORM);                                                \
    }
VERSION(attend_floats, FLOATS)
#if HAS_PAIRS
VERSION(attend_halves, PAIRS)
#else
VERSION(attend_halves, WIDENED)
#endif

/* ---- the step ---- */

INLINE int64_t rows_under_a_head(const Call *call, int64_t span) {
    const int64_t count = call->meta[3 * span + 1];
    return count > 1 ? count * group_of(call) : 0;
}

/* Enough tasks for all threads, if they have rows enough. */
INLINE int64_t rows_of_a_task(const Call *call) {
    int64_t num_rows = 0;
    for (int64_t i = 0; i < call->num_spans; i++) num_rows += rows_under_a_head(call, i) * call->num_kv_heads;
    const int64_t fair = num_rows / (TASKS_A_THREAD * call->num_threads);
    const int64_t fitting = ROW_NUMBERS / (call->key_size + call->value_size);
    const int64_t rows = smaller_of(MOST_ROWS, smaller_of(fair, fitting));
    return up_to(larger_of(FEWEST_ROWS, rows), ROWS);
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

/* Memory of a thread, to be freed by its first part; 1 where there is none. */
static int make_scratch(const Call *call, Scratch *scratch, int64_t num_rows) {
    const int64_t width = width_of(call), unit = ALIGNMENT / 4;
    const int64_t sizes[] = {num_rows * call->key_size, num_rows * width, num_rows * LANES, num_rows,
                             TILE * call->key_size,     TILE * width,     TILE * ROWS,
                             larger_of(call->key_size, call->value_size)};
    float **const parts[] = {&scratch->query, &scratch->sum,    &scratch->total,   &scratch->largest,
                             &scratch->keys,  &scratch->values, &scratch->weights, &scratch->nothing};
    int64_t total = 0;
    for (int i = 0; i < 8; i++) total += up_to(sizes[i], unit);
    float *room = aligned_alloc(ALIGNMENT, 4 * total);
    if (!room) return 1;
    for (int i = 0; i < 8; i++) {
        *parts[i] = room;
        room += up_to(sizes[i], unit);
    }
    memset(scratch->nothing, 0, 4 * sizes[7]);
    return 0;
}

/* Fills the rows of `out` that belong to spans of several tokens. Returns 0, or 1 where memory ran out. */
int llmctl_prefill(const Call *call) {
    const int64_t heads = call->num_kv_heads, rows_each = rows_of_a_task(call);
    int64_t *first_task = malloc(sizeof(int64_t) * (call->num_spans + 1));
    if (!first_task) return 1;
    first_task[0] = 0;
    for (int64_t i = 0; i < call->num_spans; i++)
        first_task[i + 1] = first_task[i] + up_to(rows_under_a_head(call, i), rows_each) / rows_each * heads;
    const int64_t num_tasks = first_task[call->num_spans];
    int failed = 0;
#pragma omp parallel num_threads((int)smaller_of(call->num_threads, larger_of(num_tasks, 1)))
    {
        Scratch scratch = {0};
        const int is_hopeless = make_scratch(call, &scratch, rows_each);
        if (is_hopeless) {
#pragma omp atomic write
            failed = 1;
        }
        /* The last rows of a prompt see most: they come first. */
#pragma omp for schedule(dynamic)
        for (int64_t number = num_tasks - 1; number >= 0; number--) {
            if (is_hopeless) continue;
            const int64_t span = span_of(first_task, call->num_spans, number);
            const int64_t part = number - first_task[span], first = part / heads * rows_each;
            const Task task = {.span = span,
                               .head = part % heads,
                               .first = first,
                               .count = smaller_of(rows_each, rows_under_a_head(call, span) - first)};
            if (call->is_wide) attend_floats(call, &scratch, &task);
            else attend_halves(call, &scratch, &task);
        }
        free(scratch.query);
    }
    free(first_task);
    return failed;
}
