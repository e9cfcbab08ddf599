// Causal multi-head attention on fused projections: key shift, rotary positions, softmax and both products, one head at a time.
#include "gemm.h"

namespace engram {

constexpr Index BLOCK = 32;  // queries at a time: fewer leave less of the causal triangle unused, more make larger products

namespace {

// Sizes of a call; qkv is [B, T, 3, heads, c].
struct Shape {
  Index batch, length, heads, channels;
  bool shift;

  Index wide() const { return round_up(length, 16); }
  Index ld() const { return wide() + 16; }  // rows that are a power of two apart would share few places of the cache
  Index half() const { return channels / 2; }
  Index kept() const { return shift ? half() - half() / 2 : half(); }  // channels of each half that stay at their position
  Index row() const { return 3 * heads * channels; }
  Index offset(Index b, Index part, Index h) const { return b * length * row() + (part * heads + h) * channels; }
};

// Rotated queries of one head, times `scale`: to [wide, c]
void rotated_queries(const Shape& s, const float* from, const float* cos, const float* sin, float scale, float* to) {
  const Index half = s.half();
  for (Index t = 0; t < s.length; ++t) {
    const float *__restrict x = from + t * s.row(), *__restrict co = cos + t * half, *__restrict si = sin + t * half;
    float* __restrict y = to + t * s.channels;
#pragma omp simd
    for (Index i = 0; i < half; ++i) {
      y[i] = scale * (x[i] * co[i] - x[half + i] * si[i]);
      y[half + i] = scale * (x[half + i] * co[i] + x[i] * si[i]);
    }
  }
  std::memset(to + s.length * s.channels, 0, (s.wide() - s.length) * s.channels * sizeof(float));
}

// Shifted and rotated keys of one head: to [wide, c]
void rotated_keys(const Shape& s, const float* from, const float* cos, const float* sin, float* to) {
  const Index half = s.half(), kept = s.kept();
  Scratch<float> x(s.channels), zero(s.channels);
  std::memset(zero, 0, s.channels * sizeof(float));
  for (Index t = 0; t < s.length; ++t) {
    const float *now = from + t * s.row(), *before = t ? now - s.row() : static_cast<const float*>(zero);
    for (Index part = 0; part < s.channels; part += half) {
      for (Index i = 0; i < kept; ++i) x[part + i] = now[part + i];
      for (Index i = kept; i < half; ++i) x[part + i] = before[part + i];
    }
    const float *__restrict co = cos + t * half, *__restrict si = sin + t * half;
    float* __restrict y = to + t * s.channels;
    const float* __restrict in = x;
#pragma omp simd
    for (Index i = 0; i < half; ++i) {
      y[i] = in[i] * co[i] - in[half + i] * si[i];
      y[half + i] = in[half + i] * co[i] + in[i] * si[i];
    }
  }
  std::memset(to + s.length * s.channels, 0, (s.wide() - s.length) * s.channels * sizeof(float));
}

// A loop: calls of memcpy for so few numbers cost more than the copies.
inline void copy(const float* __restrict from, float* __restrict to, Index n) {
  for (Index i = 0; i < n; ++i) to[i] = from[i];
}

void plain_rows(const Shape& s, const float* from, Index stride, float* to) {
  for (Index t = 0; t < s.length; ++t) copy(from + t * stride, to + t * s.channels, s.channels);
  std::memset(to + s.length * s.channels, 0, (s.wide() - s.length) * s.channels * sizeof(float));
}

}  // namespace

// qkv [B, T, 3, h, c], cos and sin [T, c / 2] -> mixed [B, T, h, c], log_sums [B, h, T]
template <typename T>
void attention_forward(const Shape& s, const float* qkv, const float* cos, const float* sin, float scale, float* mixed, float* log_sums) {
  const Index c = s.channels, wide = s.wide(), ld = s.ld();
  Scratch<float> rows(wide * c), scores(BLOCK * ld), out(BLOCK * c);
  Scratch<T> q(wide * c), k_t(c * ld), v(wide * c), p(BLOCK * ld);
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h) {
      rotated_queries(s, qkv + s.offset(b, 0, h), cos, sin, scale, rows);
      convert<T>(q, rows, wide * c);
      rotated_keys(s, qkv + s.offset(b, 1, h), cos, sin, rows);
      pack_transposed<T>(k_t, ld, rows, c, wide, c);
      plain_rows(s, qkv + s.offset(b, 2, h), s.row(), rows);
      pack<T>(v, rows, wide, c, c);
      for (Index start = 0; start < s.length; start += BLOCK) {
        const Index m = std::min(BLOCK, s.length - start), padded_m = padded(m), n = start + padded_m;
        gemm<T>(padded_m, n, c, q + start * c, c, k_t, ld, scores, ld, false);
        for (Index i = 0; i < padded_m; ++i) {
          float* __restrict row = scores + i * ld;
          const Index seen = std::min(start + i + 1, s.length);
          float top = row[0], sum = 0;
#pragma omp simd reduction(max : top)
          for (Index j = 0; j < seen; ++j) top = row[j] > top ? row[j] : top;
#pragma omp simd reduction(+ : sum)
          for (Index j = 0; j < seen; ++j) {
            row[j] = fast_exp(row[j] - top);
            sum += row[j];
          }
          const float inverse = 1 / sum;
          for (Index j = 0; j < seen; ++j) row[j] *= inverse;
          for (Index j = seen; j < n; ++j) row[j] = 0;
          convert<T>(p + i * ld, row, n);
          if (i < m) log_sums[(b * s.heads + h) * s.length + start + i] = top + std::log(sum);
        }
        gemm<T>(padded_m, c, n, p, ld, v, c, out, c, false);
        for (Index i = 0; i < m; ++i)
          copy(out + i * c, mixed + ((b * s.length + start + i) * s.heads + h) * c, c);
      }
    }
  finish_gemm();
}

// grad_mixed [B, T, h, c] and what the forward pass saw and gave -> grad_qkv [B, T, 3, h, c]
template <typename T>
void attention_backward(
    const Shape& s, const float* grad_mixed, const float* qkv, const float* cos, const float* sin, float scale, const float* mixed,
    const float* log_sums, float* grad_qkv) {
  const Index c = s.channels, half = s.half(), kept = s.kept(), wide = s.wide(), ld = s.ld();
  Scratch<float> rows(wide * c), g_rows(wide * c), scores(BLOCK * ld), dp(BLOCK * ld), dq(BLOCK * c), dk(wide * c), dv(wide * c);
  // Left-hand sides q, g, ds and the transposed ones p_t, ds_t; right-hand sides q_b, k_b, g_b [wide, c] and k_t, v_t [c, wide].
  Scratch<T> q(wide * c), q_b(wide * c), k_t(c * ld), k_b(wide * c), v_t(c * ld), g(wide * c), g_b(wide * c), ds(BLOCK * ld), p_t(wide * BLOCK), ds_t(wide * BLOCK);
  for (Index b = 0; b < s.batch; ++b)
    for (Index h = 0; h < s.heads; ++h) {
      rotated_queries(s, qkv + s.offset(b, 0, h), cos, sin, scale, rows);
      convert<T>(q, rows, wide * c);
      pack<T>(q_b, rows, wide, c, c);
      rotated_keys(s, qkv + s.offset(b, 1, h), cos, sin, rows);
      pack_transposed<T>(k_t, ld, rows, c, wide, c);
      pack<T>(k_b, rows, wide, c, c);
      plain_rows(s, qkv + s.offset(b, 2, h), s.row(), rows);
      pack_transposed<T>(v_t, ld, rows, c, wide, c);
      plain_rows(s, grad_mixed + (b * s.length * s.heads + h) * c, s.heads * c, g_rows);
      convert<T>(g, g_rows, wide * c);
      pack<T>(g_b, g_rows, wide, c, c);
      std::memset(dk, 0, wide * c * sizeof(float));
      std::memset(dv, 0, wide * c * sizeof(float));
      for (Index start = 0; start < s.length; start += BLOCK) {
        const Index m = std::min(BLOCK, s.length - start), padded_m = padded(m), n = start + padded_m;
        gemm<T>(padded_m, n, c, q + start * c, c, k_t, ld, scores, ld, false);
        gemm<T>(padded_m, n, c, g + start * c, c, v_t, ld, dp, ld, false);
        for (Index i = 0; i < padded_m; ++i) {
          float *__restrict row = scores + i * ld, *__restrict grad = dp + i * ld;
          const Index seen = i < m ? start + i + 1 : 0;
          if (seen) {
            const float shift = log_sums[(b * s.heads + h) * s.length + start + i];
            const float *__restrict out = mixed + ((b * s.length + start + i) * s.heads + h) * c, *__restrict g_row = g_rows + (start + i) * c;
            float along = 0;
#pragma omp simd reduction(+ : along)
            for (Index j = 0; j < c; ++j) along += out[j] * g_row[j];
            for (Index j = 0; j < seen; ++j) {
              row[j] = fast_exp(row[j] - shift);
              grad[j] = row[j] * (grad[j] - along);
            }
          }
          for (Index j = seen; j < n; ++j) row[j] = grad[j] = 0;
          convert<T>(ds + i * ld, grad, n);
        }
        gemm<T>(padded_m, c, n, ds, ld, k_b, c, dq, c, false);
        for (Index i = 0; i < m; ++i) {
          const float *__restrict x = dq + i * c, *__restrict co = cos + (start + i) * half, *__restrict si = sin + (start + i) * half;
          float* __restrict y = grad_qkv + s.offset(b, 0, h) + (start + i) * s.row();
#pragma omp simd
          for (Index j = 0; j < half; ++j) {
            y[j] = scale * (x[j] * co[j] + x[half + j] * si[j]);
            y[half + j] = scale * (x[half + j] * co[j] - x[j] * si[j]);
          }
        }
        transpose<T>(ds_t, padded_m, [&](Index i) { return dp + i * ld; }, padded_m, padded_m, n);  // [n, padded_m]
        gemm<T>(n, c, padded_m, ds_t, padded_m, q_b + start * c, c, dk, c, true);
        transpose<T>(p_t, padded_m, [&](Index i) { return scores + i * ld; }, padded_m, padded_m, n);
        gemm<T>(n, c, padded_m, p_t, padded_m, g_b + start * c, c, dv, c, true);
      }
      float *grad_k = grad_qkv + s.offset(b, 1, h), *grad_v = grad_qkv + s.offset(b, 2, h);
      for (Index t = 0; t < s.length; ++t) {
        const float *__restrict x = dk + t * c, *__restrict co = cos + t * half, *__restrict si = sin + t * half;
        float *__restrict turned = rows;
#pragma omp simd
        for (Index j = 0; j < half; ++j) {
          turned[j] = x[j] * co[j] + x[half + j] * si[j];
          turned[half + j] = x[half + j] * co[j] - x[j] * si[j];
        }
        float *now = grad_k + t * s.row(), *before = now - s.row();
        for (Index part = 0; part < c; part += half) {
          for (Index j = 0; j < kept; ++j) now[part + j] = turned[part + j];
          for (Index j = kept; j < half; ++j) now[part + j] = 0;
          for (Index j = kept; t && j < half; ++j) before[part + j] = turned[part + j];  // these came from the position before
        }
        copy(dv + t * c, grad_v + t * s.row(), c);
      }
    }
  finish_gemm();
}

}  // namespace engram

extern "C" {

void engram_attention_forward(
    const float* qkv, const float* cos, const float* sin, float scale, float* mixed, float* log_sums, int64_t batch, int64_t length,
    int64_t heads, int64_t channels, bool shift, bool use_bf16) {
  using namespace engram;
  const Shape s{batch, length, heads, channels, shift};
  (use_bf16 ? attention_forward<bf16> : attention_forward<float>)(s, qkv, cos, sin, scale, mixed, log_sums);
}

void engram_attention_backward(
    const float* grad_mixed, const float* qkv, const float* cos, const float* sin, float scale, const float* mixed, const float* log_sums,
    float* grad_qkv, int64_t batch, int64_t length, int64_t heads, int64_t channels, bool shift, bool use_bf16) {
  using namespace engram;
  const Shape s{batch, length, heads, channels, shift};
  (use_bf16 ? attention_backward<bf16> : attention_backward<float>)(s, grad_mixed, qkv, cos, sin, scale, mixed, log_sums, grad_qkv);
}
}
