// Small matrix products and the layouts that they want. T is float or bf16; sums are always float.
#pragma once

#include <ATen/native/CPUBlas.h>

#include <immintrin.h>  // `engram.kernels.load` asks for AVX-512 before it compiles this

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>
#include <type_traits>

namespace engram {

using bf16 = at::BFloat16;
using Index = int64_t;

constexpr Index ROWS = 64;   // rows of a block
constexpr Index PANEL = 64;  // columns of a panel

inline Index round_up(Index n, Index unit) { return (n + unit - 1) / unit * unit; }

// Rows of a block as they are multiplied: few different sizes, because each has a kernel of its own.
inline Index padded(Index rows) { return round_up(rows, 16); }

// Aligned memory for the length of a call. Allocation is cheap: the heap keeps its pages.
template <typename T>
class Scratch {
 public:
  explicit Scratch(Index n) : data_(static_cast<T*>(std::aligned_alloc(64, round_up(std::max<Index>(n, 1) * sizeof(T), 64)))) {
    if (!data_) throw std::bad_alloc();
  }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() { std::free(data_); }
  operator T*() { return data_; }

 private:
  T* data_;
};

// Rounding to nearest even, as plain integer work that the compiler vectorises.
inline uint32_t rounded(float x) {
  uint32_t bits = std::bit_cast<uint32_t>(x);
  return bits + 0x7fff + ((bits >> 16) & 1);
}
inline uint32_t pair(float first, float second) { return (rounded(first) >> 16) | (rounded(second) & 0xffff0000u); }

#ifdef __AVX512BF16__
// 32 bf16 in the order of memory: first, then second.
inline __m512i joined(__m512 first, __m512 second) { return (__m512i)_mm512_cvtne2ps_pbh(second, first); }

// 16 pairs (first[j], second[j]).
inline __m512i pair(__m512 first, __m512 second) {
  alignas(64) static constexpr uint16_t ORDER[32] = {0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23,
                                                     8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
  return _mm512_permutexvar_epi16(_mm512_load_si512(ORDER), joined(first, second));
}

#endif

inline __mmask16 first_lanes(Index n) { return n >= 16 ? 0xffff : n <= 0 ? 0 : static_cast<__mmask16>((1u << n) - 1); }

// Rows of a matrix of 16 x 16 numbers of 32 bits become its columns.
inline void transpose_16x16(__m512i* r) {
  __m512i t[16];
  for (int i = 0; i < 16; i += 2) {
    t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
    t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
  }
  for (int i = 0; i < 16; i += 4)
    for (int j = 0; j < 2; ++j) {
      r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
      r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
    }
  for (int i = 0; i < 16; i += 8)
    for (int j = 0; j < 4; ++j) {
      t[i + j] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0x88);
      t[i + j + 4] = _mm512_shuffle_i32x4(r[i + j], r[i + j + 4], 0xdd);
    }
  for (int j = 0; j < 8; ++j) {
    r[j] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0x88);
    r[j + 8] = _mm512_shuffle_i32x4(t[j], t[j + 8], 0xdd);
  }
}
inline void store(float* to, float x) { *to = x; }
inline void store(bf16* to, float x) { to->x = static_cast<uint16_t>(rounded(x) >> 16); }
inline float load(const float* from) { return *from; }
inline float load(const bf16* from) { return std::bit_cast<float>(static_cast<uint32_t>(from->x) << 16); }

// C [m, n] (+)= A [m, k] B [k, n]; bf16 wants B in pairs of rows, [k / 2, n, 2] (see `pack`), so k must be even.
template <typename T>
inline void gemm(Index m, Index n, Index k, const T* a, Index lda, const T* b, Index ldb, float* c, Index ldc, bool add) {
  at::native::cpublas::brgemm(m, n, k, lda, ldb, ldc, add, a, b, c, !std::is_same_v<T, float>);
}

inline void finish_gemm() { at::native::cpublas::brgemm_release(true); }  // gives AMX tiles back

// Two rows of a right-hand side: rows k and k + 1 of [k, n], in the layout that `gemm` wants.
template <typename T>
inline void pack_pair(T* __restrict to, Index ldb, const float* __restrict first, const float* __restrict second, Index n) {
  if constexpr (std::is_same_v<T, float>) {
    for (Index j = 0; j < n; ++j) to[j] = first[j];
    for (Index j = 0; j < n; ++j) to[ldb + j] = second[j];
  } else {
    auto* pairs = reinterpret_cast<uint32_t*>(to);
    Index j = 0;
#ifdef __AVX512BF16__
    for (; j + 16 <= n; j += 16) _mm512_storeu_si512(pairs + j, pair(_mm512_loadu_ps(first + j), _mm512_loadu_ps(second + j)));
#endif
    for (; j < n; ++j) pairs[j] = pair(first[j], second[j]);
  }
}

// Right-hand side from rows: [k, n] with k even.
template <typename T>
inline void pack(T* to, const float* from, Index k, Index n, Index ld) {
  for (Index i = 0; i < k; i += 2) pack_pair(to + i * n, n, from + i * ld, from + (i + 1) * ld, n);
}

// Left-hand side from columns: m rows of k numbers, row(i) each -> [k, extent] with leading dimension ldt, zeros from m on; extent even.
template <typename T, typename Row>
inline void transpose(T* __restrict to, Index ldt, Row row, Index m, Index extent, Index k) {
  constexpr bool single = std::is_same_v<T, float>;
#ifndef __AVX512BF16__
  if constexpr (!single) {
    for (Index j = 0; j < k; ++j)
      for (Index i = 0; i < extent; ++i) store(to + j * ldt + i, i < m ? row(i)[j] : 0.0f);
    return;
  }
#endif
  constexpr Index UNIT = single ? 1 : 2;  // numbers in 32 bits
  for (Index i = 0; i < extent; i += 16 * UNIT)
    for (Index j = 0; j < k; j += 16) {
      const Index columns = std::min<Index>(16, k - j);
      const __mmask16 lanes = first_lanes(columns), wide = first_lanes((extent - i) / UNIT);
      auto at = [&](Index r) { return r < m ? _mm512_maskz_loadu_ps(lanes, row(r) + j) : _mm512_setzero_ps(); };
      __m512i block[16];
      for (Index r = 0; r < 16; ++r) {
        if constexpr (single) block[r] = _mm512_castps_si512(at(i + r));
#ifdef __AVX512BF16__
        else block[r] = pair(at(i + 2 * r), at(i + 2 * r + 1));
#endif
      }
      transpose_16x16(block);
      for (Index c = 0; c < columns; ++c) _mm512_mask_storeu_epi32(to + (j + c) * ldt + i, wide, block[c]);
    }
}

// Right-hand side from columns: from [n, k] -> B [k, n] with leading dimension ldb, k even.
template <typename T>
inline void pack_transposed(T* __restrict to, Index ldb, const float* __restrict from, Index k, Index n, Index ld) {
  if constexpr (std::is_same_v<T, float>) {
    transpose<float>(to, ldb, [&](Index j) { return from + j * ld; }, n, n, k);
  } else {
    auto* pairs = reinterpret_cast<uint32_t*>(to);
#ifdef __AVX512BF16__
    for (Index j = 0; j < n; j += 16)
      for (Index i = 0; i < k / 2; i += 16) {
        const Index rows = std::min<Index>(16, n - j), columns = std::min<Index>(16, k / 2 - i);
        const __mmask16 low = first_lanes(2 * columns), high = first_lanes(2 * columns - 16);
        __m512i block[16];
        for (Index r = 0; r < 16; ++r) {
          const float* row = from + (j + r) * ld + 2 * i;
          block[r] = r < rows ? joined(_mm512_maskz_loadu_ps(low, row), _mm512_maskz_loadu_ps(high, row + 16)) : _mm512_setzero_si512();
        }
        transpose_16x16(block);
        for (Index c = 0; c < columns; ++c) _mm512_mask_storeu_epi32(pairs + (i + c) * ldb + j, first_lanes(rows), block[c]);
      }
#else
    for (Index i = 0; i < k; i += 2)
      for (Index j = 0; j < n; ++j) pairs[i / 2 * ldb + j] = pair(from[j * ld + i], from[j * ld + i + 1]);
#endif
  }
}

template <typename T>
inline void convert(T* __restrict to, const float* __restrict from, Index n) {
  Index j = 0;
#ifdef __AVX512BF16__
  if constexpr (!std::is_same_v<T, float>)
    for (; j + 16 <= n; j += 16) _mm256_storeu_si256((__m256i*)(to + j), (__m256i)_mm512_cvtneps_pbh(_mm512_loadu_ps(from + j)));
#endif
  for (; j < n; ++j) store(to + j, from[j]);
}

template <typename T>
inline void widen(float* __restrict to, const T* __restrict from, Index n) {
  for (Index j = 0; j < n; ++j) to[j] = load(from + j);
}

// Left-hand side from rows: [m, k], zeros below up to `rows`.
template <typename T>
inline void convert_rows(T* to, const float* from, Index m, Index rows, Index k, Index ld) {
  for (Index i = 0; i < m; ++i) convert(to + i * k, from + i * ld, k);
  std::memset(static_cast<void*>(to + m * k), 0, (rows - m) * k * sizeof(T));
}

// e^x to about one unit in the last place; vectorises, as the library's does not.
inline float fast_exp(float x) {
  x = std::min(std::max(x, -87.0f), 88.0f);
  float n = std::rint(x * 1.44269504f);
  float r = x - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.9875691500e-4f;
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  return p * std::bit_cast<float>((static_cast<int32_t>(n) + 127) << 23);
}

// The same for 16 numbers.
inline __m512 fast_exp(__m512 x) {
  x = _mm512_min_ps(_mm512_max_ps(x, _mm512_set1_ps(-87.0f)), _mm512_set1_ps(88.0f));
  const __m512 n = _mm512_roundscale_ps(_mm512_mul_ps(x, _mm512_set1_ps(1.44269504f)), _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
  const __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), _mm512_fnmadd_ps(n, _mm512_set1_ps(0.693359375f), x));
  __m512 p = _mm512_set1_ps(1.9875691500e-4f);
  for (const float c : {1.3981999507e-3f, 8.3334519073e-3f, 4.1665795894e-2f, 1.6666665459e-1f, 5.0000001201e-1f})
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(c));
  p = _mm512_add_ps(_mm512_fmadd_ps(p, _mm512_mul_ps(r, r), r), _mm512_set1_ps(1.0f));
  return _mm512_scalef_ps(p, n);
}

inline __m512 sigmoid(__m512 x) {
  const __m512 one = _mm512_set1_ps(1.0f);
  return _mm512_div_ps(one, _mm512_add_ps(one, fast_exp(_mm512_sub_ps(_mm512_setzero_ps(), x))));
}

// f(j, lanes) for j = 0, 16, 32, ... below n: the last lanes are masked, where a compiler would go on number by number.
template <typename F>
inline void by_lanes(Index n, F f) {
  for (Index j = 0; j < n; j += 16) f(j, first_lanes(n - j));
}
inline __m512 load(const float* from, __mmask16 lanes) { return _mm512_maskz_loadu_ps(lanes, from); }
inline void store(float* to, __mmask16 lanes, __m512 x) { _mm512_mask_storeu_ps(to, lanes, x); }

inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

// gate_up [2 w], gate first -> to [w]: silu(gate) * up
inline void swiglu(const float* gate_up, float* to, Index w) {
  by_lanes(w, [&](Index j, __mmask16 lanes) {
    const __m512 gate = load(gate_up + j, lanes);
    store(to + j, lanes, _mm512_mul_ps(_mm512_mul_ps(gate, sigmoid(gate)), load(gate_up + w + j, lanes)));
  });
}

}  // namespace engram
