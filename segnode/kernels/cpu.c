/* SPDX-License-Identifier: Apache-2.0
 * Copyright 2026 The segnode authors
 *
 * The steps around the network on a CPU: resize, RoIAlign, paste. segnode/kernels/cpu.py calls
 * them and documents what they compute; each has a twin in Python that runs where this is not
 * built. Callers guarantee shapes, contiguous memory and tables within bounds; numbers in
 * features, boxes and masks may be anything, also not finite.
 *
 * Letters: H, W of an image or map, C channels, R RoIs, S side of pooled features, T taps,
 * D instances, M side of a mask.
 */
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "written for little-endian machines"
#endif

/* Raised with every change of a signature below; cpu.py refuses another one. */
#define INTERFACE 2

/* One body, compiled for several instruction sets; the dynamic linker picks the best. */
#if defined(__x86_64__) && defined(__GLIBC__) && defined(__has_attribute)
#if __has_attribute(target_clones)
#define FOR_EVERY_CPU __attribute__((target_clones("avx512f", "avx2", "default")))
#endif
#endif
#ifndef FOR_EVERY_CPU
#define FOR_EVERY_CPU
#endif
#define INLINE static inline __attribute__((always_inline))

int segnode_interface(void) { return INTERFACE; }

/* PyTorch uses OpenMP as well. With its runtime (both name libgomp.so.1, which is loaded once) and
 * its number of threads, its idle threads do the work here and none is in another's way. */
#define PARALLEL_FOR _Pragma("omp parallel for schedule(dynamic) num_threads(threads)")

/* Resize, reorder, normalise and pad. What comes first is of both resizes. */

#define ROWS_A_TASK 16
#define LANES 64

typedef uint8_t Bytes __attribute__((vector_size(16)));
typedef int32_t Pixel __attribute__((vector_size(16)));

#ifdef __clang__
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (Bytes){__VA_ARGS__})
#endif

/* A pixel and one byte of its neighbour. */
INLINE Pixel load_pixel(const uint8_t *pixel)
{
    Bytes bytes = {0}, none = {0};
    memcpy(&bytes, pixel, 4);
    return (Pixel)SHUFFLE(bytes, none, 0, 16, 16, 16, 1, 16, 16, 16, 2, 16, 16, 16, 3, 16, 16, 16);
}

/* Where resized pixels go. */
typedef struct {
    long height, width;
    const float *values; /* (3, 256), of each channel of the source */
    int swap;            /* planes in the reverse order of the channels */
    long padded_height, padded_width;
    float *planes; /* (3, padded_height, padded_width) */
} Output;

/* Pad a row; false where it is nothing else. */
INLINE int pad_row(const Output *o, long y)
{
    long plane = o->padded_height * o->padded_width, width = y < o->height ? o->width : 0;
    for (int k = 0; k < 3; k++)
        memset(o->planes + k * plane + y * o->padded_width + width, 0,
               (size_t)(o->padded_width - width) * sizeof(float));
    return width > 0;
}

INLINE void write_pixels(const Output *o, const uint8_t *bytes, long y, long x, long pixels)
{
    long plane = o->padded_height * o->padded_width;
    float *row = o->planes + y * o->padded_width + x;
    for (int k = 0; k < 3; k++) {
        float *to = row + (o->swap ? 2 - k : k) * plane;
        const float *values = o->values + 256 * k;
        const uint8_t *from = bytes + k;
        if (pixels == LANES) /* the usual number unrolled */
            for (long i = 0; i < LANES; i++)
                to[i] = values[from[3 * i]];
        else
            for (long i = 0; i < pixels; i++)
                to[i] = values[from[3 * i]];
    }
}

/* The last block of a row that is short starts earlier and does some pixels again. */
INLINE long block_start(long x, long width)
{
    return x + LANES <= width ? x : width > LANES ? width - LANES : 0;
}

/* Pillow's resize: two passes of 22-bit integers. */

#define PRECISION_BITS 22
#define HALF (1 << (PRECISION_BITS - 1))

typedef struct {
    const uint8_t *source; /* rows of 3-byte pixels */
    long source_stride, source_width;
    const int32_t *first, *weights; /* (width,) and (width, T) */
    long taps, width, rows;
    uint8_t *target; /* (rows, width, 3) */
} Columns;

INLINE void resample_row(const Columns *c, const uint8_t *source, uint8_t *target, long taps)
{
    long x = 0;
    /* A pixel with one byte of its neighbour in four lanes: read and written with it. */
    for (; x < c->width - 1 && c->first[x] + taps < c->source_width; x++) {
        const uint8_t *pixel = source + 3 * (long)c->first[x];
        const int32_t *weight = c->weights + x * taps;
        Pixel sum = {HALF, HALF, HALF, HALF};
        for (long t = 0; t < taps; t++)
            sum += load_pixel(pixel + 3 * t) * weight[t];
        Bytes packed = (Bytes)(sum >> PRECISION_BITS);
        packed = SHUFFLE(packed, packed, 0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        memcpy(target + 3 * x, &packed, 4);
    }
    for (; x < c->width; x++)
        for (int k = 0; k < 3; k++) {
            int32_t sum = HALF;
            for (long t = 0; t < taps; t++)
                sum += source[3 * (c->first[x] + t) + k] * c->weights[x * taps + t];
            target[3 * x + k] = (uint8_t)(sum >> PRECISION_BITS);
        }
}

FOR_EVERY_CPU static void resample_columns_task(const Columns *c, long index)
{
    for (long y = index * ROWS_A_TASK; y < c->rows && y < (index + 1) * ROWS_A_TASK; y++) {
        const uint8_t *source = c->source + y * c->source_stride;
        uint8_t *target = c->target + y * c->width * 3;
        switch (c->taps) { /* the usual numbers unrolled */
        case 2: resample_row(c, source, target, 2); break;
        case 3: resample_row(c, source, target, 3); break;
        case 4: resample_row(c, source, target, 4); break;
        case 5: resample_row(c, source, target, 5); break;
        case 6: resample_row(c, source, target, 6); break;
        default: resample_row(c, source, target, c->taps);
        }
    }
}

void segnode_resample_columns(const uint8_t *source, long source_stride, long source_width,
                              long rows, const int32_t *first, const int32_t *weights, long taps,
                              long width, uint8_t *target, int threads)
{
    Columns task = {source, source_stride, source_width, first, weights, taps,
                    width,  rows,          target};
    long tasks = (rows + ROWS_A_TASK - 1) / ROWS_A_TASK;
    PARALLEL_FOR
    for (long index = 0; index < tasks; index++)
        resample_columns_task(&task, index);
}

typedef struct {
    const uint8_t *source; /* rows of width 3-byte pixels */
    long source_stride;
    const int32_t *first, *weights; /* (height,) and (height, T) */
    long taps;
    Output output;
} Planes;

FOR_EVERY_CPU static void planes_task(const Planes *p, long index)
{
    uint8_t line[3 * LANES];
    const Output *o = &p->output;
    for (long y = index * ROWS_A_TASK; y < o->padded_height && y < (index + 1) * ROWS_A_TASK;
         y++) {
        if (!pad_row(o, y))
            continue;
        const uint8_t *source = p->source + p->first[y] * p->source_stride;
        const int32_t *weights = p->weights + y * p->taps;
        for (long next = 0; next < o->width; next += LANES) {
            long x = block_start(next, o->width);
            long pixels = o->width < LANES ? o->width : LANES;
            const uint8_t *bytes = source + 3 * x;
            if (p->taps > 1) {
                int32_t sum[3 * LANES];
                for (int i = 0; i < 3 * LANES; i++)
                    sum[i] = HALF;
                for (long t = 0; t < p->taps; t++) {
                    const uint8_t *tap = bytes + t * p->source_stride;
                    int32_t weight = weights[t];
                    if (pixels == LANES)
                        for (int i = 0; i < 3 * LANES; i++)
                            sum[i] += tap[i] * weight;
                    else
                        for (int i = 0; i < 3 * pixels; i++)
                            sum[i] += tap[i] * weight;
                }
                for (int i = 0; i < 3 * LANES; i++)
                    line[i] = (uint8_t)(sum[i] >> PRECISION_BITS);
                bytes = line;
            }
            write_pixels(o, bytes, y, x, pixels);
        }
    }
}

void segnode_planes(const uint8_t *source, long source_stride, const int32_t *first,
                    const int32_t *weights, long taps, long height, long width,
                    const float *values, int swap, long padded_height, long padded_width,
                    float *planes, int threads)
{
    Planes task = {source, source_stride, first, weights, taps,
                   {height, width, values, swap, padded_height, padded_width, planes}};
    long tasks = (padded_height + ROWS_A_TASK - 1) / ROWS_A_TASK;
    PARALLEL_FOR
    for (long index = 0; index < tasks; index++)
        planes_task(&task, index);
}

/* OpenCV's resize: two by two neighbours, blended by weights of 11 bits. */

#define COLUMN_SHIFT 4
#define ROW_SHIFT 16
#define SUM_SHIFT 2

typedef struct {
    const uint8_t *source; /* rows of 3-byte pixels */
    long source_stride, source_width;
    const int32_t *rows, *row_weights;       /* (2, height) */
    const int32_t *columns, *column_weights; /* (2, width) */
    Output output;
} Blend;

INLINE void blend_columns(const Blend *b, const uint8_t *row, long x, long pixels, int16_t *line)
{
    const int32_t *left = b->columns + x, *right = left + b->output.width;
    const int32_t *left_weight = b->column_weights + x;
    const int32_t *right_weight = left_weight + b->output.width;
    long i = 0;
    for (; i < pixels && right[i] < b->source_width - 1; i++) {
        Pixel sum = load_pixel(row + 3 * (long)left[i]) * left_weight[i] +
                    load_pixel(row + 3 * (long)right[i]) * right_weight[i];
        Bytes packed = (Bytes)(sum >> COLUMN_SHIFT);
        packed = SHUFFLE(packed, packed, 0, 1, 4, 5, 8, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
        memcpy(line + 3 * i, &packed, 8);
    }
    for (; i < pixels; i++)
        for (int k = 0; k < 3; k++)
            line[3 * i + k] = (int16_t)((row[3 * (long)left[i] + k] * left_weight[i] +
                                         row[3 * (long)right[i] + k] * right_weight[i]) >>
                                        COLUMN_SHIFT);
}

FOR_EVERY_CPU static void blend_task(const Blend *b, long index)
{
    const Output *o = &b->output;
    long top = index * ROWS_A_TASK, bottom = top;
    for (; bottom < o->padded_height && bottom < top + ROWS_A_TASK; bottom++)
        pad_row(o, bottom);
    bottom = bottom < o->height ? bottom : o->height;
    long pixels = o->width < LANES ? o->width : LANES;
    for (long next = 0; next < o->width; next += LANES) {
        long x = block_start(next, o->width);
        /* The rows blended last, even and odd: neighbours are never in each other's place. */
        int16_t lines[2][3 * LANES + 1] = {{0}};
        long held[2] = {-1, -1};
        for (long y = top; y < bottom; y++) {
            const int16_t *line[2];
            int16_t weight[2];
            for (int down = 0; down < 2; down++) {
                long row = b->rows[down * o->height + y];
                weight[down] = (int16_t)b->row_weights[down * o->height + y];
                line[down] = lines[row & 1];
                if (held[row & 1] != row)
                    blend_columns(b, b->source + row * b->source_stride, x, pixels,
                                  lines[row & 1]);
                held[row & 1] = row;
            }
            uint8_t bytes[3 * LANES];
            for (int i = 0; i < 3 * LANES; i++) {
                int upper = line[0][i] * weight[0] >> ROW_SHIFT;
                int lower = line[1][i] * weight[1] >> ROW_SHIFT;
                bytes[i] = (uint8_t)((upper + lower + (1 << (SUM_SHIFT - 1))) >> SUM_SHIFT);
            }
            write_pixels(o, bytes, y, x, pixels);
        }
    }
}

void segnode_blend(const uint8_t *source, long source_stride, long source_width,
                   const int32_t *rows, const int32_t *row_weights, const int32_t *columns,
                   const int32_t *column_weights, long height, long width, const float *values,
                   int swap, long padded_height, long padded_width, float *planes, int threads)
{
    Blend task = {source, source_stride, source_width, rows, row_weights, columns, column_weights,
                  {height, width, values, swap, padded_height, padded_width, planes}};
    long tasks = (padded_height + ROWS_A_TASK - 1) / ROWS_A_TASK;
    PARALLEL_FOR
    for (long index = 0; index < tasks; index++)
        blend_task(&task, index);
}

/* RoIAlign over the levels of a pyramid, channels_last.
 *
 * The samples of a bin are the products of its rows and columns, and so are their bilinear
 * weights: they are summed an axis into one weight a cell, and a bin reads every cell once. */

#define CHANNELS 64
#define ROIS_A_TASK 4

typedef float Floats __attribute__((vector_size(64)));
typedef uint16_t Halves __attribute__((vector_size(32)));
typedef uint32_t Words __attribute__((vector_size(64)));

typedef struct {
    const void *const *features; /* a level (N, H, W, C) */
    const int64_t *heights, *widths;
    const float *scales;
    long channels;
    int bfloat16; /* features and answer; else float32 */
    const float *boxes;
    const int64_t *images, *levels;
    long rois, side, sampling_ratio;
    int aligned;
    void *out; /* (R, S, S, C) */
} Pool;

typedef struct {
    long first, count;
    float *weights;
} Bin;

/* Fill the bins of one axis; weights has S * extent floats, extent the number of cells. */
static void fill_bins(float low, float high, const Pool *p, long extent, Bin *bins,
                      float *weights)
{
    float length = high - low;
    if (!p->aligned && !(length >= 1.0f))
        length = 1.0f;
    float size = length / (float)p->side;
    float samples = p->sampling_ratio > 0 ? (float)p->sampling_ratio : ceilf(size);
    /* A box that is no number has no samples; neither has one of a size that no image has. */
    long count = samples > 0 && samples < 1e6f ? (long)samples : 0;
    for (long b = 0; b < p->side; b++) {
        Bin *bin = &bins[b];
        *bin = (Bin){0, 0, weights + b * extent};
        for (long i = 0; i < count; i++) {
            /* From low to high also where the box is upside down. */
            long sample = size < 0 ? count - 1 - i : i;
            float at = low + (float)b * size + ((float)sample + 0.5f) * size / (float)count;
            if (!(at >= -1.0f && at <= (float)extent))
                continue;
            at = at > 0 ? at : 0;
            long lower = (long)at, upper = lower + 1;
            if (lower >= extent - 1) {
                lower = upper = extent - 1;
                at = (float)lower;
            }
            if (bin->count == 0)
                bin->first = lower;
            while (bin->first + bin->count <= upper)
                bin->weights[bin->count++] = 0;
            float share = at - (float)lower;
            bin->weights[lower - bin->first] += (1 - share) / (float)count;
            bin->weights[upper - bin->first] += share / (float)count;
        }
    }
}

INLINE Floats load_channels(const void *cell, long channel, int bfloat16)
{
    Floats values;
    if (bfloat16) {
        Halves halves;
        memcpy(&halves, (const uint16_t *)cell + channel, sizeof halves);
        Words words = __builtin_convertvector(halves, Words) << 16;
        memcpy(&values, &words, sizeof values);
    } else {
        memcpy(&values, (const float *)cell + channel, sizeof values);
    }
    return values;
}

INLINE void store_channels(void *cell, long channel, Floats values, int bfloat16)
{
    if (bfloat16) {
        Words words;
        memcpy(&words, &values, sizeof words);
        words = (words + 0x7fff + ((words >> 16) & 1)) >> 16; /* to nearest, ties to even */
        Halves halves = __builtin_convertvector(words, Halves);
        memcpy((uint16_t *)cell + channel, &halves, sizeof halves);
    } else {
        memcpy((float *)cell + channel, &values, sizeof values);
    }
}

INLINE float load_channel(const void *cell, long channel, int bfloat16)
{
    float value;
    if (bfloat16) {
        uint32_t word = (uint32_t)((const uint16_t *)cell)[channel] << 16;
        memcpy(&value, &word, sizeof value);
        return value;
    }
    return ((const float *)cell)[channel];
}

INLINE void store_channel(void *cell, long channel, float value, int bfloat16)
{
    if (bfloat16) {
        uint32_t word;
        memcpy(&word, &value, sizeof word);
        ((uint16_t *)cell)[channel] = (uint16_t)((word + 0x7fff + ((word >> 16) & 1)) >> 16);
    } else {
        ((float *)cell)[channel] = value;
    }
}

INLINE void pool_bin(const char *map, long width, long channels, const Bin *rows,
                     const Bin *columns, char *out, int bfloat16)
{
    long cell = channels * (bfloat16 ? 2 : 4);
    const char *corner = map + (rows->first * width + columns->first) * cell;
    long k = 0;
    for (; k + CHANNELS <= channels; k += CHANNELS) {
        Floats a = {0}, b = {0}, c = {0}, d = {0};
        for (long y = 0; y < rows->count; y++)
            for (long x = 0; x < columns->count; x++) {
                const char *at = corner + (y * width + x) * cell;
                float weight = rows->weights[y] * columns->weights[x];
                a += load_channels(at, k, bfloat16) * weight;
                b += load_channels(at, k + 16, bfloat16) * weight;
                c += load_channels(at, k + 32, bfloat16) * weight;
                d += load_channels(at, k + 48, bfloat16) * weight;
            }
        store_channels(out, k, a, bfloat16);
        store_channels(out, k + 16, b, bfloat16);
        store_channels(out, k + 32, c, bfloat16);
        store_channels(out, k + 48, d, bfloat16);
    }
    for (; k < channels; k++) {
        float sum = 0;
        for (long y = 0; y < rows->count; y++)
            for (long x = 0; x < columns->count; x++)
                sum += load_channel(corner + (y * width + x) * cell, k, bfloat16) *
                       (rows->weights[y] * columns->weights[x]);
        store_channel(out, k, sum, bfloat16);
    }
}

INLINE void pool_roi(const Pool *p, long roi, Bin *rows, Bin *columns, float *weights,
                     int bfloat16)
{
    long level = p->levels[roi], height = p->heights[level], width = p->widths[level];
    long cell = p->channels * (bfloat16 ? 2 : 4);
    const float *box = p->boxes + 4 * roi;
    float scale = p->scales[level], offset = p->aligned ? 0.5f : 0.0f;
    fill_bins(box[1] * scale - offset, box[3] * scale - offset, p, height, rows, weights);
    fill_bins(box[0] * scale - offset, box[2] * scale - offset, p, width, columns,
              weights + p->side * height);
    const char *map = (const char *)p->features[level] + p->images[roi] * height * width * cell;
    char *out = (char *)p->out + roi * p->side * p->side * cell;
    for (long y = 0; y < p->side; y++)
        for (long x = 0; x < p->side; x++)
            pool_bin(map, width, p->channels, &rows[y], &columns[x],
                     out + (y * p->side + x) * cell, bfloat16);
}

FOR_EVERY_CPU static int pool_task(const Pool *p, long index)
{
    for (long roi = index * ROIS_A_TASK; roi < p->rois && roi < (index + 1) * ROIS_A_TASK;
         roi++) {
        long level = p->levels[roi];
        size_t cells = (size_t)(p->side * (p->heights[level] + p->widths[level]));
        Bin *bins = malloc((size_t)(2 * p->side) * sizeof(Bin) + cells * sizeof(float));
        if (bins == NULL)
            return 1;
        float *weights = (float *)(bins + 2 * p->side);
        if (p->bfloat16)
            pool_roi(p, roi, bins, bins + p->side, weights, 1);
        else
            pool_roi(p, roi, bins, bins + p->side, weights, 0);
        free(bins);
    }
    return 0;
}

int segnode_roi_align(const void *const *features, const int64_t *heights, const int64_t *widths,
                      const float *scales, long channels, int bfloat16, const float *boxes,
                      const int64_t *images, const int64_t *levels, long rois, long side,
                      long sampling_ratio, int aligned, void *out, int threads)
{
    Pool task = {features, heights, widths, scales,         channels, bfloat16, boxes,  images,
                 levels,   rois,    side,   sampling_ratio, aligned,  out};
    long tasks = (rois + ROIS_A_TASK - 1) / ROIS_A_TASK, failed = 0;
#pragma omp parallel for schedule(dynamic) num_threads(threads) reduction(| : failed)
    for (long index = 0; index < tasks; index++)
        failed |= pool_task(&task, index);
    return failed ? -1 : 0;
}

/* Masks of M x M probabilities pasted into the image, and painted into one label image. */

enum { DETECTRON2, TORCHVISION };

typedef struct {
    const float *probabilities; /* (D, M, M) */
    const float *boxes;         /* (D, 4) */
    long count, cells, height, width;
    double threshold;
    int family;
    const int64_t *extents; /* (D, 4): left, top, width, height */
    uint8_t *const *pixels; /* a mask (height, width) */
    int64_t *areas;         /* (D,), -1 where memory ran out */
} Paste;

static long clamp_pixel(double at, long size)
{
    return at > 0 ? (at < (double)size ? (long)at : size) : 0; /* 0 where it is no number */
}

/* Write the first pixel and the number of pixels that one axis of a box can reach. */
static void paste_extent(float low, float high, const Paste *p, long size, int64_t *first,
                         int64_t *count)
{
    long from, to;
    if (!(high > low)) { /* an empty box, or one that is no number */
        *first = *count = 0;
        return;
    }
    if (p->family == DETECTRON2) {
        double length = (double)high - (double)low;
        double margin = p->threshold >= 0.5 ? 1.0 : 1.0 + length / (double)p->cells;
        from = clamp_pixel(floor((double)low - margin), size);
        to = clamp_pixel(ceil((double)high + margin), size);
    } else {
        float half = (high - low) * 0.5f * (float)((double)(p->cells + 2) / (double)p->cells);
        float center = (high + low) * 0.5f;
        from = clamp_pixel(trunc((double)(center - half)), size);
        to = clamp_pixel(trunc((double)(center + half)) + 1, size);
    }
    *first = from;
    *count = to > from ? to - from : 0;
}

/* Write, for each pixel of one axis, the cell before it (0 is the slack before the first cell)
 * and the weight of the cell behind it. */
static void paste_samples(float low, float high, const Paste *p, long first, long count,
                          int32_t *cell, float *weight)
{
    float cells = (float)p->cells, start = 0, scale = 0, length = high - low;
    if (p->family == TORCHVISION) {
        /* One border cell of zeros around the mask, and the box widened to match. */
        float half = (high - low) * 0.5f * (float)((double)(p->cells + 2) / (double)p->cells);
        float center = (high + low) * 0.5f;
        start = truncf(center - half);
        float extent = truncf(center + half) - start + 1;
        scale = (float)((double)(p->cells + 2) / (double)(extent > 1 ? extent : 1));
    }
    for (long i = 0; i < count; i++) {
        float pixel = (float)(first + i), at;
        if (p->family == DETECTRON2) {
            at = (pixel + 0.5f - low) / length * cells - 0.5f;
        } else {
            at = (pixel - start + 0.5f) * scale - 0.5f;
            at = (at > 0 ? (at < cells + 1 ? at : cells + 1) : 0) - 1;
        }
        at = at > -1 ? (at < cells ? at : cells) : -1;
        float lower = floorf(at);
        cell[i] = (int32_t)lower + 1;
        weight[i] = at - lower;
    }
}

FOR_EVERY_CPU static int64_t paste_mask(const Paste *p, long index, int32_t *column,
                                        float *column_weight, int32_t *row, float *row_weight,
                                        float *padded, float *lines)
{
    const float *box = p->boxes + 4 * index;
    const int64_t *extent = p->extents + 4 * index;
    long width = extent[2], height = extent[3], side = p->cells + 3;
    float threshold = (float)p->threshold;
    if (p->family == TORCHVISION) /* above it, where Detectron2 sets at it as well */
        threshold = nextafterf(threshold, INFINITY);
    paste_samples(box[0], box[2], p, extent[0], width, column, column_weight);
    paste_samples(box[1], box[3], p, extent[1], height, row, row_weight);
    /* The mask amid cells of slack that are zero; then each of its rows over the columns. */
    memset(padded, 0, (size_t)(side * side) * sizeof(float));
    for (long y = 0; y < p->cells; y++)
        memcpy(padded + (y + 1) * side + 1,
               p->probabilities + (index * p->cells + y) * p->cells,
               (size_t)p->cells * sizeof(float));
    for (long y = 0; y < side; y++)
        for (long x = 0; x < width; x++) {
            const float *pair = padded + y * side + column[x];
            lines[y * width + x] = pair[0] * (1 - column_weight[x]) + pair[1] * column_weight[x];
        }
    int64_t area = 0;
    for (long y = 0; y < height; y++) {
        const float *above = lines + row[y] * width, *below = above + width;
        uint8_t *pixels = p->pixels[index] + y * width;
        float upper = 1 - row_weight[y], lower = row_weight[y];
        int32_t set = 0;
        for (long x = 0; x < width; x++) {
            uint8_t in = above[x] * upper + below[x] * lower >= threshold;
            pixels[x] = in;
            set += in;
        }
        area += set;
    }
    return area;
}

static void paste_task(const Paste *p, long index)
{
    const int64_t *extent = p->extents + 4 * index;
    size_t width = (size_t)extent[2], height = (size_t)extent[3], side = (size_t)p->cells + 3;
    size_t floats = width + height + side * side + side * width;
    float *memory = malloc(floats * sizeof(float) + (width + height) * sizeof(int32_t));
    if (memory == NULL) {
        p->areas[index] = -1;
        return;
    }
    float *row_weight = memory + width, *padded = row_weight + height;
    float *lines = padded + side * side;
    int32_t *column = (int32_t *)(lines + side * width), *row = column + width;
    p->areas[index] =
        paste_mask(p, index, column, memory, row, row_weight, padded, lines);
    free(memory);
}

void segnode_paste_extents(const float *boxes, long count, long cells, long height, long width,
                           double threshold, int family, int64_t *extents)
{
    Paste p = {.cells = cells, .threshold = threshold, .family = family};
    for (long i = 0; i < count; i++, boxes += 4, extents += 4) {
        paste_extent(boxes[0], boxes[2], &p, width, &extents[0], &extents[2]);
        paste_extent(boxes[1], boxes[3], &p, height, &extents[1], &extents[3]);
    }
}

void segnode_paste_masks(const float *probabilities, const float *boxes, long count, long cells,
                         long height, long width, double threshold, int family,
                         const int64_t *extents, uint8_t *const *pixels, int64_t *areas,
                         int threads)
{
    Paste task = {probabilities, boxes,  count,   cells,  height, width,
                  threshold,     family, extents, pixels, areas};
    PARALLEL_FOR
    for (long index = 0; index < count; index++)
        paste_task(&task, index);
}

#define BAND 32

typedef struct {
    const int64_t *extents;
    const uint8_t *const *pixels;
    long count, height, width;
    uint16_t *labels;
} Paint;

FOR_EVERY_CPU static void paint_task(const Paint *p, long index)
{
    long top = index * BAND, bottom = top + BAND < p->height ? top + BAND : p->height;
    memset(p->labels + top * p->width, 0, (size_t)((bottom - top) * p->width) * sizeof(uint16_t));
    for (long k = p->count - 1; k >= 0; k--) {
        const int64_t *extent = p->extents + 4 * k;
        long from = extent[1] > top ? extent[1] : top;
        long to = extent[1] + extent[3] < bottom ? extent[1] + extent[3] : bottom;
        uint16_t label = (uint16_t)(k + 1);
        for (long y = from; y < to; y++) {
            const uint8_t *pixels = p->pixels[k] + (y - extent[1]) * extent[2];
            uint16_t *labels = p->labels + y * p->width + extent[0];
            for (long x = 0; x < extent[2]; x++)
                labels[x] = pixels[x] ? label : labels[x];
        }
    }
}

void segnode_paint_labels(const int64_t *extents, const uint8_t *const *pixels, long count,
                          long height, long width, uint16_t *labels, int threads)
{
    Paint task = {extents, pixels, count, height, width, labels};
    long tasks = (height + BAND - 1) / BAND;
    PARALLEL_FOR
    for (long index = 0; index < tasks; index++)
        paint_task(&task, index);
}
