/* Dense CRF's mean field over permutohedral lattices, one thread.

   A lattice has a row of floats for each of its points, which are numbered from 1 in the order in which pixels meet them. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define MOST_AXES 5
#define MOST_LABELS 129

typedef struct {
    int axes; /* of the features: 2 or 5 */
    int64_t pixels;
    int32_t points;
    int32_t *corners; /* [pixels, axes + 1]: the row of a pixel's corner */
    float *weights;   /* [pixels, axes + 1] */
    int32_t *chains;  /* rows that are neighbours along an axis, one after the other; the last of a chain is negative */
    int64_t ends[MOST_AXES + 2]; /* where the chains of each axis begin and end */
    float *norm;      /* [pixels]: 1 / sqrt(K 1) */
    float *ones;      /* [pixels]: the symmetrically normalised K 1 */
    float compat;
    float *rows, *next; /* [points + 1, width]: blurred values of this step; those of the next one being summed */
} Lattice;

typedef struct {
    int64_t pixels;
    int stacks, labels, width; /* width: floats of a row, at least stacks * (labels - 1) */
    int kernels;
    Lattice kernel[2];
} Field;

/* The coordinates of a point in one number: 12 bits each of five, 16 of two. */
static inline uint64_t packed(const int *c, int axes) {
    uint64_t key = 0;
    for (int i = 0; i < axes; i++) key = key << 12 | ((uint64_t)(c[i] + 2048) & 4095);
    return key;
}

static inline uint64_t mixed(uint64_t key) {
    key *= 0x9E3779B97F4A7C15u;
    return key ^ (key >> 29);
}

typedef struct { uint64_t key; int32_t row; } Place;
typedef struct { Place *table; int64_t places; uint64_t *keys; int32_t count, room; } Points;

static inline uint64_t place_of(const Points *p, uint64_t key) {
    uint64_t at = mixed(key) & (uint64_t)(p->places - 1);
    while (p->table[at].row && p->table[at].key != key) at = (at + 1) & (uint64_t)(p->places - 1);
    return at;
}

static int grow(Points *p) {
    Points larger = {calloc((size_t)p->places * 2, sizeof(Place)), p->places * 2, p->keys, p->count, p->room * 2};
    uint64_t *keys = realloc(p->keys, sizeof *keys * (size_t)larger.room);
    if (keys) p->keys = larger.keys = keys;
    if (!keys || !larger.table) { free(larger.table); return -1; }
    for (int32_t n = 0; n < p->count; n++) larger.table[place_of(&larger, keys[n])] = (Place){keys[n], n + 1};
    free(p->table);
    *p = larger;
    return 0;
}

/* The row of a point, 1 being the first, new where it is not there yet; -1: no memory. */
static inline int32_t row_of(Points *p, uint64_t key) {
    uint64_t at = place_of(p, key);
    if (p->table[at].row) return p->table[at].row;
    if (p->count == p->room) {
        if (grow(p)) return -1;
        at = place_of(p, key);
    }
    p->keys[p->count++] = key;
    p->table[at] = (Place){key, p->count};
    return p->count;
}

/* Corners and weights of the simplex around each pixel's features, [pixels, axes]. 0, or -1: no memory or features
   too far apart. */
static int embed(Lattice *l, const float *features, Points *points) {
    const int d = l->axes;
    float scale[MOST_AXES];
    for (int i = 0; i < d; i++) scale[i] = 1.0f / sqrtf((float)(i + 2) * (i + 1)) * sqrtf(2.0f / 3.0f) * (d + 1);
    int last_zero[MOST_AXES + 1];
    int last_rank[MOST_AXES + 1];
    const int32_t *last = NULL;
    for (int64_t n = 0; n < l->pixels; n++) {
        const float *f = features + n * d;
        float y[MOST_AXES + 1], sum = 0.0f;
        for (int j = d; j > 0; j--) {
            float step = f[j - 1] * scale[j - 1];
            y[j] = sum - j * step;
            sum += step;
        }
        y[0] = sum;
        int zero[MOST_AXES + 1];
        int rank[MOST_AXES + 1] = {0}, excess = 0;
        float rest[MOST_AXES + 1];
        for (int i = 0; i <= d; i++) {
            float near = rintf(y[i] * (1.0f / (d + 1)));
            if (!(fabsf(near) * (d + 1) < 2000.0f)) return -1; /* and its corners within 12 bits */
            zero[i] = (int)near * (d + 1);
            excess += (int)near;
            rest[i] = y[i] - zero[i];
        }
        for (int i = 0; i < d; i++)
            for (int j = i + 1; j <= d; j++) {
                int below = rest[i] < rest[j];
                rank[i] += below;
                rank[j] += !below;
            }
        for (int i = 0; i <= d; i++) {
            rank[i] += excess;
            if (rank[i] < 0) rank[i] += d + 1, zero[i] += d + 1;
            else if (rank[i] > d) rank[i] -= d + 1, zero[i] -= d + 1;
        }
        float share[MOST_AXES + 2] = {0};
        for (int i = 0; i <= d; i++) {
            float v = (y[i] - zero[i]) * (1.0f / (d + 1));
            share[d - rank[i]] += v;
            share[d + 1 - rank[i]] -= v;
        }
        share[0] += 1.0f + share[d + 1];
        int32_t *corner = l->corners + n * (d + 1);
        memcpy(l->weights + n * (d + 1), share, sizeof(float) * (d + 1));
        if (last && !memcmp(last_zero, zero, sizeof(int) * (d + 1)) && !memcmp(last_rank, rank, sizeof(int) * (d + 1))) {
            memcpy(corner, last, sizeof(int32_t) * (d + 1));
        } else {
            for (int k = 0; k <= d; k++) {
                int c[MOST_AXES];
                for (int i = 0; i < d; i++) c[i] = zero[i] + (rank[i] <= d - k ? k : k - (d + 1));
                corner[k] = row_of(points, packed(c, d));
                if (corner[k] < 0) return -1;
            }
            memcpy(last_zero, zero, sizeof zero);
            memcpy(last_rank, rank, sizeof rank);
        }
        last = corner;
    }
    return 0;
}

/* Chains of two rows and more along each axis; what has no neighbour keeps its value. 0, or -1: no memory. */
static int find_chains(Lattice *l, const Points *points) {
    const int d = l->axes;
    int32_t *after = malloc(sizeof(int32_t) * ((size_t)l->points + 1));
    char *has_before = malloc((size_t)l->points + 1);
    l->chains = malloc(sizeof(int32_t) * (size_t)l->points * (d + 1));
    if (!after || !has_before || !l->chains) { free(after), free(has_before); return -1; }
    int64_t end = 0;
    for (int axis = 0; axis <= d; axis++) {
        l->ends[axis] = end;
        /* one step along the axis, as a number to add to a key: -1 to each coordinate, + axes to its own */
        uint64_t step = 0;
        for (int i = 0; i < d; i++) step = (step << 12) + (uint64_t)(int64_t)(i == axis ? d : -1);
        memset(has_before, 0, (size_t)l->points + 1);
        for (int32_t n = 1; n <= l->points; n++) {
            after[n] = points->table[place_of(points, points->keys[n - 1] + step)].row;
            has_before[after[n]] = 1;
        }
        for (int32_t n = 1; n <= l->points; n++) {
            if (has_before[n] || !after[n]) continue;
            int32_t at = n;
            for (; after[at]; at = after[at]) l->chains[end++] = at;
            l->chains[end++] = -at;
        }
    }
    l->ends[d + 1] = end;
    free(after), free(has_before);
    return 0;
}

/* What follows is compiled for each width and number of axes. */

#define INLINE static inline __attribute__((always_inline))
#define BLOCK 16 /* pixels that are looked at together */

typedef float Four __attribute__((vector_size(16), aligned(4), may_alias));
typedef float Eight __attribute__((vector_size(32), aligned(4), may_alias));

/* to += w * from */
INLINE void add_scaled(float *to, float w, const float *from, int width) {
    if (width % 8 == 0) for (int c = 0; c < width; c += 8) *(Eight *)(to + c) += w * *(const Eight *)(from + c);
    else if (width == 4) *(Four *)to += w * *(const Four *)from;
    else for (int c = 0; c < width; c++) to[c] += w * from[c];
}

#define BLUR(Type, count)                                                                      \
    while (chain < end) {                                                                      \
        Type before[count], here[count], after, *row = (Type *)(rows + (int64_t)*chain++ * width); \
        for (int c = 0; c < count; c++) before[c] = (Type){0}, here[c] = row[c];               \
        for (int32_t to = 0; to >= 0;) {                                                       \
            to = *chain++;                                                                     \
            Type *next = (Type *)(rows + (int64_t)(to < 0 ? -to : to) * width);                \
            for (int c = 0; c < count; c++) {                                                  \
                after = next[c];                                                               \
                row[c] = here[c] + 0.5f * (before[c] + after);                                 \
                before[c] = here[c], here[c] = after;                                          \
            }                                                                                  \
            row = next;                                                                        \
        }                                                                                      \
        for (int c = 0; c < count; c++) row[c] = here[c] + 0.5f * before[c];                   \
    }

/* In place: new = old + (old one before + old one after) / 2, along one axis after the other. */
INLINE void blur_as(const Lattice *l, float *rows, int width) {
    for (int axis = 0; axis <= l->axes; axis++) {
        const int32_t *chain = l->chains + l->ends[axis], *end = l->chains + l->ends[axis + 1];
        if (width % 8 == 0) BLUR(Eight, width / 8)
        else if (width == 4) BLUR(Four, 1)
        else BLUR(float, width)
    }
}

INLINE void splat_as(const Lattice *l, int64_t n, float *rows, const float *values, int width, int d) {
    const int32_t *corner = l->corners + n * (d + 1);
    const float *weight = l->weights + n * (d + 1), norm = l->norm[n];
    for (int k = 0; k <= d; k++) {
        add_scaled(rows + (int64_t)corner[k] * width, weight[k] * norm, values, width);
    }
}

INLINE void slice_as(const Lattice *l, int64_t n, const float *rows, float *out, float factor, int width, int d) {
    const int32_t *corner = l->corners + n * (d + 1);
    const float *weight = l->weights + n * (d + 1);
    const float w = factor * l->norm[n] / (1.0f + 1.0f / (float)(1 << d));
    if (width % 8 == 0) {
        Eight sum[width / 8 + 1];
        for (int c = 0; c < width / 8; c++) sum[c] = (Eight){0};
        for (int k = 0; k <= d; k++) {
            const Eight *row = (const Eight *)(rows + (int64_t)corner[k] * width);
            for (int c = 0; c < width / 8; c++) sum[c] += weight[k] * row[c];
        }
        for (int c = 0; c < width / 8; c++) ((Eight *)out)[c] += w * sum[c];
    } else if (width == 4) {
        Four sum = {0};
        for (int k = 0; k <= d; k++) sum += weight[k] * *(const Four *)(rows + (int64_t)corner[k] * 4);
        *(Four *)out += w * sum;
    } else {
        for (int c = 0; c < width; c++) {
            float sum = 0.0f;
            for (int k = 0; k <= d; k++) sum += weight[k] * rows[(int64_t)corner[k] * width + c];
            out[c] += w * sum;
        }
    }
}

/* What one pixel's corners do, by kernel. */
INLINE void splat_both(const Field *f, int64_t n, const float *values, int width) {
    for (int k = 0; k < f->kernels; k++) {
        const Lattice *l = &f->kernel[k];
        if (l->axes == 2) splat_as(l, n, l->next, values, width, 2);
        else splat_as(l, n, l->next, values, width, 5);
    }
}

INLINE void slice_both(const Field *f, int64_t n, float *out, int width) {
    for (int c = 0; c < width; c++) out[c] = 0.0f;
    for (int k = 0; k < f->kernels; k++) {
        const Lattice *l = &f->kernel[k];
        if (l->axes == 2) slice_as(l, n, l->rows, out, l->compat, width, 2);
        else slice_as(l, n, l->rows, out, l->compat, width, 5);
    }
}

typedef int32_t EightInts __attribute__((vector_size(32)));

INLINE Eight greater(Eight a, Eight b) {
    EightInts mask = a > b;
    return (Eight)(((EightInts)a & mask) | ((EightInts)b & ~mask));
}

/* exp to 3e-7, relative, of x <= 0; below -87 as of -87. */
INLINE Eight exponential(Eight x) {
    const float whole = 12582912.0f; /* 1.5 * 2^23: a sum with it has no fraction */
    x = greater(x, (Eight){0} - 87.0f);
    Eight n = (x * 1.44269504f + whole) - whole;
    Eight r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
    Eight p = 1.0f + r * (1.0f + r * (0.5f + r * (1.0f / 6 + r * (1.0f / 24 + r * (1.0f / 120 + r * (1.0f / 720))))));
    return p * (Eight)((__builtin_convertvector(n, EightInts) + 127) << 23);
}

/* Q of a step for all pixels, to the lattices' next rows, or to q, [stacks, labels, pixels], where that is not NULL.
   unary: likewise; sums: whether there are messages. The last label's message is what is left of K 1, as Q sums to 1. */
INLINE void update_as(Field *f, const float *unary, float *q, int sums, int width) {
    const int labels = f->labels, first = labels - 1;
    for (int64_t begin = 0; begin < f->pixels; begin += BLOCK) {
        const int count = f->pixels - begin < BLOCK ? (int)(f->pixels - begin) : BLOCK;
        float message[BLOCK][width], e[MOST_LABELS][BLOCK], all[BLOCK] = {0};
        if (sums) {
            for (int b = 0; b < count; b++) slice_both(f, begin + b, message[b], width);
            for (int k = 0; k < f->kernels; k++)
                for (int b = 0; b < count; b++) all[b] += f->kernel[k].compat * f->kernel[k].ones[begin + b];
        } else memset(message, 0, sizeof message);
        for (int s = 0; s < f->stacks; s++) {
            float rest[BLOCK], *const m = &message[0][s * first];
            const float *u = unary + (int64_t)s * labels * f->pixels + begin;
            memcpy(rest, all, sizeof rest);
            for (int c = 0; c < labels; c++, u += f->pixels)
                for (int b = 0; b < BLOCK; b++) {
                    float heard = c < first ? m[b * width + c] : rest[b];
                    e[c][b] = (b < count ? -u[b] : 0.0f) + heard;
                    rest[b] -= heard;
                }
            for (int half = 0; half < BLOCK; half += 8) {
                Eight top = *(Eight *)(e[0] + half), total = {0};
                for (int c = 1; c < labels; c++) {
                    top = greater(*(Eight *)(e[c] + half), top);
                }
                for (int c = 0; c < labels; c++) {
                    Eight v = exponential(*(Eight *)(e[c] + half) - top);
                    *(Eight *)(e[c] + half) = v;
                    total += v;
                }
                for (int c = 0; c < labels; c++) *(Eight *)(e[c] + half) /= total;
            }
            if (q)
                for (int c = 0; c < labels; c++)
                    memcpy(q + ((int64_t)s * labels + c) * f->pixels + begin, e[c], sizeof(float) * (size_t)count);
            else
                for (int c = 0; c < first; c++)
                    for (int b = 0; b < count; b++) m[b * width + c] = e[c][b];
        }
        if (!q) {
            for (int b = 0; b < count; b++) {
                for (int c = f->stacks * first; c < width; c++) message[b][c] = 0.0f;
                splat_both(f, begin + b, message[b], width);
            }
        }
    }
}

#define WIDTHS(DO) DO(1) DO(2) DO(4) DO(8) DO(16) DO(24) DO(32) DO(64) DO(128)

static void blur(const Lattice *l, float *rows, int width) {
    switch (width) {
#define DO(w) case w: blur_as(l, rows, w); return;
        WIDTHS(DO)
#undef DO
    }
}

static void update(Field *f, const float *unary, float *q, int sums) {
    switch (f->width) {
#define DO(w) case w: update_as(f, unary, q, sums, w); return;
        WIDTHS(DO)
#undef DO
    }
}

static int width_of(int channels) {
#define DO(w) if (channels <= w) return w;
    WIDTHS(DO)
#undef DO
    return 0;
}

/* The sums of a plain filter of ones: out [pixels]. */
static void filter_ones(const Lattice *l, float *rows, float *out) {
    const int d = l->axes;
    const float one = 1.0f;
    memset(rows, 0, sizeof(float) * ((size_t)l->points + 1));
    for (int64_t n = 0; n < l->pixels; n++) splat_as(l, n, rows, &one, 1, d);
    blur(l, rows, 1);
    for (int64_t n = 0; n < l->pixels; n++) {
        out[n] = 0.0f;
        slice_as(l, n, rows, out + n, 1.0f, 1, d);
    }
}

static int lattice_build(Lattice *l, const float *features, int width) {
    const size_t n = (size_t)l->pixels, corners = n * (size_t)(l->axes + 1);
    Points p = {calloc(1 << 15, sizeof(Place)), 1 << 15, malloc(sizeof(uint64_t) << 14), 0, 1 << 14};
    l->corners = malloc(sizeof(int32_t) * corners), l->weights = malloc(sizeof(float) * corners);
    l->norm = malloc(sizeof(float) * n), l->ones = malloc(sizeof(float) * n);
    int failed = !p.keys || !p.table || !l->corners || !l->weights || !l->norm || !l->ones || embed(l, features, &p);
    l->points = p.count;
    failed = failed || find_chains(l, &p);
    free(p.keys), free(p.table);
    if (failed) return -1;
    size_t size = (sizeof(float) * ((size_t)l->points + 1) * (size_t)width + 63) / 64 * 64;
    l->rows = aligned_alloc(64, size), l->next = aligned_alloc(64, size);
    if (!l->rows || !l->next) return -1;
    for (size_t i = 0; i < n; i++) l->norm[i] = 1.0f;
    filter_ones(l, l->rows, l->ones);
    for (size_t i = 0; i < n; i++) l->norm[i] = 1.0f / sqrtf(l->ones[i] + 1e-20f);
    filter_ones(l, l->rows, l->ones);
    return 0;
}

void field_free(Field *f) {
    if (!f) return;
    for (int k = 0; k < f->kernels; k++) {
        Lattice *l = &f->kernel[k];
        free(l->corners), free(l->weights), free(l->chains), free(l->norm), free(l->ones), free(l->rows), free(l->next);
    }
    free(f);
}

/* features[k]: float [pixels, axes[k]], in standard deviations. NULL: no memory, too many labels, or features too far
   apart. */
Field *field_new(int64_t pixels, int stacks, int labels, int kernels, const int *axes, const float *const *features,
                 const float *compat) {
    Field *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    f->pixels = pixels, f->stacks = stacks, f->labels = labels, f->width = width_of(stacks * (labels - 1));
    int failed = labels > MOST_LABELS || !f->width;
    for (int k = 0; k < kernels && !failed; k++) {
        f->kernels = k + 1;
        f->kernel[k].axes = axes[k], f->kernel[k].pixels = pixels, f->kernel[k].compat = compat[k];
        failed = lattice_build(&f->kernel[k], features[k], f->width);
    }
    if (failed) field_free(f);
    return failed ? NULL : f;
}

static void empty(Field *f) {
    for (int k = 0; k < f->kernels; k++)
        memset(f->kernel[k].next, 0, sizeof(float) * ((size_t)f->kernel[k].points + 1) * (size_t)f->width);
}

/* Q = softmax(-unary), of which the first step's messages are summed. */
void field_begin(Field *f, const float *unary) {
    empty(f);
    update(f, unary, NULL, 0);
}

/* A step; of the last one Q is written. */
void field_step(Field *f, const float *unary, float *q) {
    for (int k = 0; k < f->kernels; k++) {
        Lattice *l = &f->kernel[k];
        blur(l, l->next, f->width);
        float *swap = l->rows;
        l->rows = l->next, l->next = swap;
    }
    if (!q) empty(f);
    update(f, unary, q, 1);
}

