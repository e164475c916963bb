/* Multiplies rows of bfloat16 by a 4-bit weight, which is dequantised to bfloat16 a piece at a time.
 *
 * rows     [num_rows][num_columns] bfloat16, `row_step` apart
 * bias     [num_outputs] bfloat16, or null
 * out      [num_rows][num_outputs] bfloat16
 * packed, scales, zeros  as in int4.c, of num_padded rows: num_outputs up to a multiple of WIDTH
 *
 * A task is WIDTH outputs of some rows. It goes over the columns DEPTH at a time: the weights of a piece lie
 * in the first cache, while all rows of the task pass by. What comes out for a row depends on that row alone.
 */

#include <stdint.h>

/* Whether there is more than this: only CPUs that multiply bfloat16 are faster so than torch's kernel. */
#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512BF16__)
const int llmctl_int4_is_fast = 1;
#else
const int llmctl_int4_is_fast = 0;
#endif
/* Whether oneDNN multiplies many rows faster than this file can, because the CPU has units for matrices. */
#ifdef __AMX_BF16__
const int llmctl_int4_has_matrices = 1;
#else
const int llmctl_int4_has_matrices = 0;
#endif

#if defined(__AVX512F__) && defined(__AVX512BW__) && defined(__AVX512BF16__)
#include <immintrin.h>
#include <stdlib.h>
#include <string.h>

#define LANES 16
#define WIDTH 64
/* ROWS by COLUMNS vectors of sums, a row of columns and one number more fill the registers. */
#define COLUMNS (WIDTH / LANES)
#define ROWS 6
/* A multiple of every group size. */
#define DEPTH 256
/* Of a task: few enough to keep their sums at hand. */
#define MOST_ROWS 512
#define FEWEST_ROWS 48
#define TASKS_A_THREAD 4
#define ALIGNMENT 64
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const uint8_t *packed;
    const uint16_t *scales;
    const int8_t *zeros;
    const uint16_t *rows, *bias;
    uint16_t *out;
    int64_t num_rows, row_step, num_outputs, num_padded, num_columns, group, block, num_threads;
} Call;

INLINE float widened(uint16_t bits) {
    const uint32_t wide = (uint32_t)bits << 16;
    float number;
    memcpy(&number, &wide, sizeof number);
    return number;
}

INLINE int64_t smaller_of(int64_t a, int64_t b) { return a < b ? a : b; }
INLINE int64_t larger_of(int64_t a, int64_t b) { return a > b ? a : b; }

/* ---- the weight ---- */

/* What sixteen outputs are dequantised with, in one group of columns. */
typedef struct {
    __m512 scale, zero;
} Factors;

INLINE Factors factors_at(const Call *call, int64_t output, int64_t k) {
    const int64_t place = k / call->group * call->num_padded + output;
    float scale[LANES], zero[LANES];
    for (int i = 0; i < LANES; i++) {
        scale[i] = widened(call->scales[2 * (place + i)]);
        zero[i] = call->zeros ? (float)call->zeros[place + i] : 8.0f;
    }
    return (Factors){_mm512_loadu_ps(scale), _mm512_loadu_ps(zero)};
}

INLINE __m512i codes_at(const uint8_t *bytes) {
    return _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)bytes));
}

/* Pairs of sixteen outputs from codes of two columns, in the lowest 4 bits of each number. */
INLINE __m512i paired(__m512i first, __m512i second, const Factors *factors) {
    const __m512 whole = _mm512_set_ps(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i both = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8, 23, 7,
                                          22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    /* It looks at 4 bits of each number. */
    __m512 low = _mm512_permutexvar_ps(first, whole), high = _mm512_permutexvar_ps(second, whole);
    low = _mm512_mul_ps(_mm512_sub_ps(low, factors->zero), factors->scale);
    high = _mm512_mul_ps(_mm512_sub_ps(high, factors->zero), factors->scale);
    return _mm512_permutexvar_epi16(both, (__m512i)_mm512_cvtne2ps_pbh(high, low));
}

/* Pairs [count / 2][WIDTH] of columns k to k + count, all of one group, and of outputs from `first` on. */
INLINE void dequantise(const Call *call, uint32_t *pairs, int64_t first, int64_t k, int64_t count) {
    const int64_t half = call->block / 2;
    for (int64_t n = 0; n < WIDTH; n += n % call->block + LANES == half ? half + LANES : LANES) {
        const uint8_t *bytes =
            call->packed + ((first + n) / call->block * call->num_columns + k) * half + n % call->block;
        const Factors low = factors_at(call, first + n, k), high = factors_at(call, first + n + half, k);
        for (int64_t i = 0; i < count; i += 2) {
            /* The next piece, which is on its way while this one is multiplied. */
            __builtin_prefetch(bytes + (i + DEPTH) * half);
            uint32_t *to = pairs + i / 2 * WIDTH + n;
            const __m512i a = codes_at(bytes + i * half), b = codes_at(bytes + (i + 1) * half);
            _mm512_storeu_si512(to, paired(a, b, &low));
            _mm512_storeu_si512(to + half, paired(_mm512_srli_epi32(a, 4), _mm512_srli_epi32(b, 4), &high));
        }
    }
}

/* ---- products ---- */

/* sums [num][WIDTH] += `num` rows of pairs times [depth][WIDTH] of those at b; the compiler knows `num`. */
INLINE void multiply_some(float *sums, const uint16_t *const *rows, const uint32_t *b, int64_t depth,
                          int num) {
    __m512 sum[ROWS][COLUMNS];
#pragma GCC unroll 6
    for (int r = 0; r < num; r++)
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++) sum[r][c] = _mm512_loadu_ps(sums + r * WIDTH + c * LANES);
    for (int64_t i = 0; i < depth; i++) {
        __m512bh right[COLUMNS];
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++) right[c] = (__m512bh)_mm512_loadu_si512(b + i * WIDTH + c * LANES);
#pragma GCC unroll 6
        for (int r = 0; r < num; r++) {
            int32_t pair;
            memcpy(&pair, rows[r] + 2 * i, sizeof pair);
            const __m512bh left = (__m512bh)_mm512_set1_epi32(pair);
#pragma GCC unroll 4
            for (int c = 0; c < COLUMNS; c++) sum[r][c] = _mm512_dpbf16_ps(sum[r][c], left, right[c]);
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < num; r++)
#pragma GCC unroll 4
        for (int c = 0; c < COLUMNS; c++) _mm512_storeu_ps(sums + r * WIDTH + c * LANES, sum[r][c]);
}

static void multiply(float *sums, const uint16_t *const *rows, const uint32_t *b, int64_t depth,
                     int64_t num) {
    switch (num) {
        case 1: multiply_some(sums, rows, b, depth, 1); break;
        case 2: multiply_some(sums, rows, b, depth, 2); break;
        case 3: multiply_some(sums, rows, b, depth, 3); break;
        case 4: multiply_some(sums, rows, b, depth, 4); break;
        case 5: multiply_some(sums, rows, b, depth, 5); break;
        default: multiply_some(sums, rows, b, depth, ROWS);
    }
}

/* ---- a task ---- */

/* Outputs from `output` on of rows `first` to `stop`. */
typedef struct {
    int64_t output, first, stop;
} Task;

/* What a thread works with. */
typedef struct {
    uint32_t *pairs; /* [DEPTH / 2][WIDTH] of the weight */
    float *sums;     /* [rows of a task][WIDTH] */
} Scratch;

INLINE void begin(const Call *call, const Scratch *scratch, const Task *task) {
    float start[WIDTH] = {0};
    const int64_t count = call->bias ? smaller_of(WIDTH, call->num_outputs - task->output) : 0;
    for (int64_t n = 0; n < count; n++) start[n] = widened(call->bias[task->output + n]);
    for (int64_t r = 0; r < task->stop - task->first; r++)
        memcpy(scratch->sums + r * WIDTH, start, sizeof start);
}

INLINE void finish(const Call *call, const Scratch *scratch, const Task *task) {
    const int64_t count = smaller_of(WIDTH, call->num_outputs - task->output);
    for (int64_t r = task->first; r < task->stop; r++) {
        const float *sums = scratch->sums + (r - task->first) * WIDTH;
        uint16_t halves[WIDTH];
        for (int64_t n = 0; n < WIDTH; n += LANES) {
            const __m256bh some = _mm512_cvtneps_pbh(_mm512_loadu_ps(sums + n));
            memcpy(halves + n, &some, sizeof some);
        }
        memcpy(call->out + r * call->num_outputs + task->output, halves, 2 * count);
    }
}

static void work(const Call *call, const Scratch *scratch, const Task *task) {
    begin(call, scratch, task);
    for (int64_t k = 0; k < call->num_columns; k += DEPTH) {
        const int64_t count = smaller_of(DEPTH, call->num_columns - k);
        for (int64_t i = 0; i < count; i += call->group)
            dequantise(call, scratch->pairs + i / 2 * WIDTH, task->output, k + i, call->group);
        for (int64_t r = task->first; r < task->stop; r += ROWS) {
            const int64_t num = smaller_of(ROWS, task->stop - r);
            const uint16_t *some[ROWS];
            for (int64_t i = 0; i < num; i++) some[i] = call->rows + (r + i) * call->row_step + k;
            multiply(scratch->sums + (r - task->first) * WIDTH, some, scratch->pairs, count / 2, num);
        }
    }
    finish(call, scratch, task);
}

INLINE int64_t rows_of_a_task(const Call *call) {
    const int64_t num_panels = call->num_padded / WIDTH;
    const int64_t parts = (TASKS_A_THREAD * call->num_threads + num_panels - 1) / num_panels;
    const int64_t fair = larger_of((call->num_rows + parts - 1) / parts, FEWEST_ROWS);
    return smaller_of(smaller_of(fair, MOST_ROWS), call->num_rows);
}

/* Returns 0, or 1 where memory ran out. */
int llmctl_int4_multiply(const Call *call) {
    const int64_t rows_each = rows_of_a_task(call), num_parts = (call->num_rows + rows_each - 1) / rows_each;
    const int64_t num_tasks = call->num_padded / WIDTH * num_parts;
    int failed = 0;
#pragma omp parallel num_threads((int)call->num_threads)
    {
        float *room = aligned_alloc(ALIGNMENT, sizeof(float) * WIDTH * (DEPTH / 2 + rows_each));
        if (!room) {
#pragma omp atomic write
            failed = 1;
        }
        const Scratch scratch = {.pairs = (uint32_t *)room, .sums = room + WIDTH * DEPTH / 2};
#pragma omp for schedule(dynamic)
        for (int64_t number = 0; number < num_tasks; number++) {
            const int64_t first = number % num_parts * rows_each;
            const Task task = {.output = number / num_parts * WIDTH,
                               .first = first,
                               .stop = smaller_of(first + rows_each, call->num_rows)};
            if (room) work(call, &scratch, &task);
        }
        free(room);
    }
    return failed;
}
#endif
