// Small matrix products and the layouts that they want. T is float or bf16; sums are always float.
#pragma once

#include <ATen/native/CPUBlas.h>

#ifdef __AVX512BF16__
#include <immintrin.h>
#endif

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
inline __m512i pair(__m512 first, __m512 second) {
  const __m256i low = (__m256i)_mm512_cvtneps_pbh(first), high = (__m256i)_mm512_cvtneps_pbh(second);
  return _mm512_or_si512(_mm512_cvtepu16_epi32(low), _mm512_slli_epi32(_mm512_cvtepu16_epi32(high), 16));
}
#endif

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

// Right-hand side from columns: from [n, k] -> B [k, n] with leading dimension ldb, k even.
template <typename T>
inline void pack_transposed(T* __restrict to, Index ldb, const float* __restrict from, Index k, Index n, Index ld) {
  for (Index i = 0; i < k; i += 2) {
    if constexpr (std::is_same_v<T, float>) {
      for (Index j = 0; j < n; ++j) to[i * ldb + j] = from[j * ld + i];
      for (Index j = 0; j < n; ++j) to[(i + 1) * ldb + j] = from[j * ld + i + 1];
    } else {
      auto* pairs = reinterpret_cast<uint32_t*>(to) + i / 2 * ldb;
      for (Index j = 0; j < n; ++j) pairs[j] = pair(from[j * ld + i], from[j * ld + i + 1]);
    }
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

// Left-hand side from columns: from [m, k] -> [k, ldt] with zeros from m up to ldt.
template <typename T>
inline void transpose(T* __restrict to, Index ldt, const float* __restrict from, Index m, Index k, Index ld) {
  for (Index j = 0; j < k; ++j) {
    T* row = to + j * ldt;
    for (Index i = 0; i < m; ++i) store(row + i, from[i * ld + j]);
    for (Index i = m; i < ldt; ++i) store(row + i, 0.0f);
  }
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

inline float sigmoid(float x) { return 1.0f / (1.0f + fast_exp(-x)); }

}  // namespace engram
