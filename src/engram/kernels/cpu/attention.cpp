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

// Turns pairs of channels, i and half + i, by their angles; `sign` -1 turns back.
inline void turn(__m512& first, __m512& second, __m512 cos, __m512 sin, float sign) {
  sin = _mm512_mul_ps(sin, _mm512_set1_ps(sign));
  const __m512 turned = _mm512_fmsub_ps(first, cos, _mm512_mul_ps(second, sin));
  second = _mm512_fmadd_ps(second, cos, _mm512_mul_ps(first, sin));
  first = turned;
}

// Rotated queries of one head, times `scale`: to [wide, c]
void rotated_queries(const Shape& s, const float* from, const float* cos, const float* sin, float scale, float* to) {
  const Index half = s.half();
  const __m512 factor = _mm512_set1_ps(scale);
  for (Index t = 0; t < s.length; ++t) {
    const float* x = from + t * s.row();
    float* y = to + t * s.channels;
    by_lanes(half, [&](Index i, __mmask16 lanes) {
      __m512 first = _mm512_mul_ps(factor, load(x + i, lanes)), second = _mm512_mul_ps(factor, load(x + half + i, lanes));
      turn(first, second, load(cos + t * half + i, lanes), load(sin + t * half + i, lanes), 1);
      store(y + i, lanes, first);
      store(y + half + i, lanes, second);
    });
  }
  std::memset(to + s.length * s.channels, 0, (s.wide() - s.length) * s.channels * sizeof(float));
}

// Shifted and rotated keys of one head: to [wide, c]
void rotated_keys(const Shape& s, const float* from, const float* cos, const float* sin, float* to) {
  const Index half = s.half(), kept = s.kept();
  for (Index t = 0; t < s.length; ++t) {
    const float *now = from + t * s.row(), *before = now - s.row();
    float* y = to + t * s.channels;
    by_lanes(half, [&](Index i, __mmask16 lanes) {
      const __mmask16 own = first_lanes(kept - i) & lanes, moved = t ? lanes & ~own : 0;
      __m512 first = _mm512_mask_loadu_ps(load(before + i, moved), own, now + i);
      __m512 second = _mm512_mask_loadu_ps(load(before + half + i, moved), own, now + half + i);
      turn(first, second, load(cos + t * half + i, lanes), load(sin + t * half + i, lanes), 1);
      store(y + i, lanes, first);
      store(y + half + i, lanes, second);
    });
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
          __m512 tops = _mm512_set1_ps(-INFINITY), sums = _mm512_setzero_ps();
          by_lanes(seen, [&](Index j, __mmask16 lanes) { tops = _mm512_mask_max_ps(tops, lanes, tops, _mm512_loadu_ps(row + j)); });
          const float top = _mm512_reduce_max_ps(tops);
          by_lanes(n, [&](Index j, __mmask16) {  // up to n, with zeros from `seen` on
            const __m512 e = fast_exp(_mm512_sub_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(top)));
            const __m512 counted = _mm512_maskz_mov_ps(first_lanes(seen - j), e);
            sums = _mm512_add_ps(sums, counted);
            _mm512_storeu_ps(row + j, counted);
          });
          const float sum = _mm512_reduce_add_ps(sums), inverse = 1 / sum;
          for (Index j = 0; j < n; ++j) row[j] *= inverse;
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
          float shift = 0, along = 0;
          if (seen) {
            shift = log_sums[(b * s.heads + h) * s.length + start + i];
            const float *out = mixed + ((b * s.length + start + i) * s.heads + h) * c, *g_row = g_rows + (start + i) * c;
            __m512 sums = _mm512_setzero_ps();
            by_lanes(c, [&](Index j, __mmask16 lanes) { sums = _mm512_fmadd_ps(load(out + j, lanes), load(g_row + j, lanes), sums); });
            along = _mm512_reduce_add_ps(sums);
          }
          by_lanes(n, [&](Index j, __mmask16) {  // up to n, with zeros from `seen` on
            const __mmask16 lanes = first_lanes(seen - j);
            const __m512 weight = _mm512_maskz_mov_ps(lanes, fast_exp(_mm512_sub_ps(_mm512_loadu_ps(row + j), _mm512_set1_ps(shift))));
            const __m512 slope = _mm512_sub_ps(_mm512_loadu_ps(grad + j), _mm512_set1_ps(along));
            _mm512_storeu_ps(row + j, weight);
            _mm512_storeu_ps(grad + j, _mm512_maskz_mul_ps(lanes, weight, slope));
          });
          convert<T>(ds + i * ld, grad, n);
        }
        gemm<T>(padded_m, c, n, ds, ld, k_b, c, dq, c, false);
        for (Index i = 0; i < m; ++i) {
          const float* x = dq + i * c;
          float* y = grad_qkv + s.offset(b, 0, h) + (start + i) * s.row();
          by_lanes(half, [&](Index j, __mmask16 lanes) {
            const __m512 factor = _mm512_set1_ps(scale);
            __m512 first = _mm512_mul_ps(factor, load(x + j, lanes)), second = _mm512_mul_ps(factor, load(x + half + j, lanes));
            turn(first, second, load(cos + (start + i) * half + j, lanes), load(sin + (start + i) * half + j, lanes), -1);
            store(y + j, lanes, first);
            store(y + half + j, lanes, second);
          });
        }
        transpose<T>(ds_t, padded_m, [&](Index i) { return dp + i * ld; }, padded_m, padded_m, n);  // [n, padded_m]
        gemm<T>(n, c, padded_m, ds_t, padded_m, q_b + start * c, c, dk, c, true);
        transpose<T>(p_t, padded_m, [&](Index i) { return scores + i * ld; }, padded_m, padded_m, n);
        gemm<T>(n, c, padded_m, p_t, padded_m, g_b + start * c, c, dv, c, true);
      }
      float *grad_k = grad_qkv + s.offset(b, 1, h), *grad_v = grad_qkv + s.offset(b, 2, h);
      for (Index t = 0; t < s.length; ++t) {
        const float* x = dk + t * c;
        float *now = grad_k + t * s.row(), *before = now - s.row();
        by_lanes(half, [&](Index j, __mmask16 lanes) {
          __m512 first = load(x + j, lanes), second = load(x + half + j, lanes);
          turn(first, second, load(cos + t * half + j, lanes), load(sin + t * half + j, lanes), -1);
          const __mmask16 own = first_lanes(kept - j) & lanes, moved = lanes & ~own;  // the moved ones came from the position before
          store(now + j, lanes, _mm512_maskz_mov_ps(own, first));
          store(now + half + j, lanes, _mm512_maskz_mov_ps(own, second));
          if (t) {
            store(before + j, moved, first);
            store(before + half + j, moved, second);
          }
        });
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
