// Elementwise sweeps over features in bfloat16, sixteen at a time, for processors with AVX512-BF16 (see fused.py).
#include <immintrin.h>

#include <cstdint>
#include <cstring>

typedef uint16_t half;

static inline __m512 load(const half* p) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)p)), 16));
}
static inline void store(half* p, __m512 v) { _mm256_storeu_si256((__m256i*)p, (__m256i)_mm512_cvtneps_pbh(v)); }
static inline __m512 clamp(__m512 v, __m512 t) {
  return _mm512_max_ps(_mm512_min_ps(v, t), _mm512_sub_ps(_mm512_setzero_ps(), t));
}
static inline float wide(half x) {
  uint32_t bits = (uint32_t)x << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline half narrow(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  return (half)((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

// Rows of `rows` pixels of `features` features for each of `batch` images; scales (batch, features); bends (S, features).
template <int S, class F>
static void sweep(const float* scales, const float* bends, const float* knots, int batch, long rows, int features, F f) {
  for (int b = 0; b < batch; b++)
    for (int g = 0; g < features; g += 16) {
      __m512 a[S], t[S], s = _mm512_loadu_ps(scales + (long)b * features + g);
      for (int j = 0; j < S; j++) a[j] = _mm512_loadu_ps(bends + (long)j * features + g), t[j] = _mm512_set1_ps(knots[j]);
      f(b, g, (long)b * rows * features + g, s, _mm512_div_ps(_mm512_set1_ps(1), s), a, t);
    }
}

// s phi(u / s), in place.
template <int S>
static void gradient_(half* u, const float* scales, const float* bends, const float* knots, int batch, long rows, int n) {
  sweep<S>(scales, bends, knots, batch, rows, n, [=](int, int, long at, __m512 s, __m512 inverse, __m512* a, __m512* t) {
    for (long k = 0; k < rows; k++, at += n) {
      __m512 v = _mm512_mul_ps(load(u + at), inverse), sum = _mm512_setzero_ps();
      for (int j = 0; j < S; j++) sum = _mm512_fmadd_ps(a[j], clamp(v, t[j]), sum);
      store(u + at, _mm512_mul_ps(sum, s));
    }
  });
}

// phi'(u / s), from the left where phi bends.
template <int S>
static void slope_(const half* u, half* out, const float* scales, const float* bends, const float* knots, int batch, long rows,
                   int n) {
  sweep<S>(scales, bends, knots, batch, rows, n, [=](int, int, long at, __m512, __m512 inverse, __m512* a, __m512* t) {
    for (long k = 0; k < rows; k++, at += n) {
      __m512 v = _mm512_abs_ps(_mm512_mul_ps(load(u + at), inverse)), sum = _mm512_setzero_ps();
      for (int j = 0; j < S; j++) sum = _mm512_mask_add_ps(sum, _mm512_cmp_ps_mask(v, t[j], _CMP_LE_OQ), sum, a[j]);
      store(out + at, sum);
    }
  });
}

// For the pairing sum w s phi(u / s): its derivatives in u and w, of the features, and in bends and scales.
template <int S>
static void pairing_(const half* u, const half* w, half* of_u, half* of_w, const float* scales, const float* bends,
                     const float* knots, float* of_bends, float* of_scales, int batch, long rows, int n) {
  memset(of_bends, 0, sizeof(float) * S * n);
  sweep<S>(scales, bends, knots, batch, rows, n, [=](int b, int g, long at, __m512 s, __m512 inverse, __m512* a, __m512* t) {
    __m512 sums[S], scale = _mm512_setzero_ps();
    for (int j = 0; j < S; j++) sums[j] = _mm512_setzero_ps();
    for (long k = 0; k < rows; k++, at += n) {
      __m512 v = _mm512_mul_ps(load(u + at), inverse), y = load(w + at), m = _mm512_abs_ps(v);
      __m512 phi = _mm512_setzero_ps(), slope = phi;
      for (int j = 0; j < S; j++) {
        __m512 c = clamp(v, t[j]);
        phi = _mm512_fmadd_ps(a[j], c, phi);
        slope = _mm512_mask_add_ps(slope, _mm512_cmp_ps_mask(m, t[j], _CMP_LE_OQ), slope, a[j]);
        sums[j] = _mm512_fmadd_ps(y, c, sums[j]);
      }
      store(of_u + at, _mm512_mul_ps(y, slope));
      store(of_w + at, _mm512_mul_ps(phi, s));
      scale = _mm512_fmadd_ps(y, _mm512_fnmadd_ps(v, slope, phi), scale);
    }
    _mm512_storeu_ps(of_scales + (long)b * n + g, scale);
    for (int j = 0; j < S; j++) {
      float* out = of_bends + (long)j * n + g;
      _mm512_storeu_ps(out, _mm512_fmadd_ps(sums[j], s, _mm512_loadu_ps(out)));
    }
  });
}

#define EACH_SEGMENTS(call) \
  switch (segments) { \
    case 4: call(4); break; \
    case 5: call(5); break; \
    case 6: call(6); break; \
    case 7: call(7); break; \
    case 8: call(8); break; \
    default: return 1; \
  } \
  return 0;

extern "C" {

// What the kernels at each cell see, less the brightness of the cell in the middle: (cells, q q channels). channels = 4 inputs.
int gather(const float* cells, half* out, long batch, long rows, long columns, long q, long channels) {
  int across = columns + q - 1, down = rows + q - 1, row = q * channels;
  float mean[1024];
  for (int b = 0; b < batch; b++)
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++) {
        const float* middle = cells + (((long)b * down + r + q / 2) * across + c + q / 2) * channels;
        for (int k = 0; k < channels; k += 4) {
          float m = .25f * (middle[k] + middle[k + 1] + middle[k + 2] + middle[k + 3]);
          for (int t = 0; t < q; t++)
            for (int j = 0; j < 4; j++) mean[t * channels + k + j] = m;
        }
        for (int i = 0; i < q; i++, out += row) {
          const float* seen = cells + (((long)b * down + r + i) * across + c) * channels;
          for (int t = 0; t < row; t++) out[t] = narrow(seen[t] - mean[t]);
        }
      }
  return 0;
}

// The transpose of seeing.
int fold(const half* parts, float* cells, long batch, long rows, long columns, long q, long channels) {
  int across = columns + q - 1, down = rows + q - 1, row = q * channels;
  memset(cells, 0, sizeof(float) * (long)batch * down * across * channels);
  for (int b = 0; b < batch; b++)
    for (int r = 0; r < rows; r++)
      for (int c = 0; c < columns; c++)
        for (int i = 0; i < q; i++, parts += row) {
          float* seen = cells + (((long)b * down + r + i) * across + c) * channels;
          for (int t = 0; t < row; t++) seen[t] += wide(parts[t]);
        }
  return 0;
}

int times(half* u, const half* weights, long count) {
  for (long k = 0; k < count; k += 16) store(u + k, _mm512_mul_ps(load(u + k), load(weights + k)));
  return 0;
}

int gradient(half* u, const float* s, const float* a, const float* t, long batch, long rows, long n, long segments) {
#define CALL(S) gradient_<S>(u, s, a, t, batch, rows, n)
  EACH_SEGMENTS(CALL)
#undef CALL
}

int slope(const half* u, half* out, const float* s, const float* a, const float* t, long batch, long rows, long n, long segments) {
#define CALL(S) slope_<S>(u, out, s, a, t, batch, rows, n)
  EACH_SEGMENTS(CALL)
#undef CALL
}

int pairing(const half* u, const half* w, half* gu, half* gw, const float* s, const float* a, const float* t, float* ga,
            float* gs, long batch, long rows, long n, long segments) {
#define CALL(S) pairing_<S>(u, w, gu, gw, s, a, t, ga, gs, batch, rows, n)
  EACH_SEGMENTS(CALL)
#undef CALL
}
}
