// The memory's own work: distinct rows of a batch, gathering them, the context-aware gate, the short convolution.
#include <vector>

#include "gemm.h"

namespace engram {

constexpr Index AHEAD = 16;  // rows that are fetched before they are needed: a large table lies in main memory

inline void fetch(const float* row, Index r) {
  for (Index j = 0; j < r; j += 16) __builtin_prefetch(row + j);
}

inline float inverse_root_mean_square(const float* __restrict x, Index d, float eps) {
  float squares = 0;
#pragma omp simd reduction(+ : squares)
  for (Index j = 0; j < d; ++j) squares += x[j] * x[j];
  return 1 / std::sqrt(squares / d + eps);
}

}  // namespace engram

using namespace engram;

extern "C" {

// ids [n], all at least 0 -> the distinct ones in order [returned number], and for each id its place among them, inverse [n].
int64_t engram_distinct(const int64_t* ids, int64_t* distinct, int64_t* inverse, int64_t n) {
  constexpr int BITS = 11;
  constexpr Index BUCKETS = 1 << BITS;
  int64_t top = 0;
  for (Index i = 0; i < n; ++i) top = std::max(top, ids[i]);
  struct Entry {
    int64_t id, place;
  };
  std::vector<Entry> from(n), to(n);
  for (Index i = 0; i < n; ++i) from[i] = {ids[i], i};
  for (int shift = 0; (top >> shift) > 0; shift += BITS) {
    Index counts[BUCKETS + 1] = {};
    for (const Entry& e : from) ++counts[(e.id >> shift) % BUCKETS + 1];
    for (Index b = 0; b < BUCKETS; ++b) counts[b + 1] += counts[b];
    for (const Entry& e : from) to[counts[(e.id >> shift) % BUCKETS]++] = e;
    from.swap(to);
  }
  Index found = 0;
  for (Index i = 0; i < n; ++i) {
    if (i == 0 || from[i].id != from[i - 1].id) distinct[found++] = from[i].id;
    inverse[from[i].place] = found - 1;
  }
  return found;
}

// table [.., r], rows [n] -> out [n, r]
void engram_gather(const float* table, const int64_t* rows, float* out, int64_t n, int64_t r) {
  for (Index i = 0; i < n; ++i) {
    if (i + AHEAD < n) fetch(table + rows[i + AHEAD] * r, r);
    const float* __restrict from = table + rows[i] * r;
    float* __restrict to = out + i * r;
    for (Index j = 0; j < r; ++j) to[j] = from[j];
  }
}

// grad [n, r], places [n] -> out [count, r], the sums of the gradients with the same place
void engram_scatter_add(const float* grad, const int64_t* places, float* out, int64_t n, int64_t count, int64_t r) {
  std::memset(out, 0, count * r * sizeof(float));
  for (Index i = 0; i < n; ++i) {
    float* __restrict to = out + places[i] * r;
    const float* __restrict from = grad + i * r;
    for (Index j = 0; j < r; ++j) to[j] += from[j];
  }
}

// Adam on `n` distinct rows of a table [.., r] and its moments; grad [n, r].
void engram_row_adam(
    float* table, float* first, float* second, const int64_t* rows, const float* grad, float beta1, float beta2, float correction1,
    float correction2, float eps, float rate, int64_t n, int64_t r) {
  for (Index i = 0; i < n; ++i) {
    if (i + AHEAD < n)
      for (const float* part : {table, first, second}) fetch(part + rows[i + AHEAD] * r, r);
    float *__restrict w = table + rows[i] * r, *__restrict m = first + rows[i] * r, *__restrict v = second + rows[i] * r;
    const float* __restrict g = grad + i * r;
    for (Index j = 0; j < r; ++j) {
      m[j] += (g[j] - m[j]) * (1 - beta1);
      v[j] = v[j] * beta2 + g[j] * g[j] * (1 - beta2);
      w[j] -= rate * (m[j] / correction1) / (std::sqrt(v[j] / correction2) + eps);
    }
  }
}

// hidden and keys [n, M, d], values [n, d], norm weights [M, d] -> update [n, M, d] = alpha * value, alpha [n, M] (paper, eq. 4)
void engram_gate_forward(
    const float* hidden, const float* keys, const float* values, const float* query_norm, const float* key_norm, float eps, bool signed_sqrt,
    float* update, float* alpha, int64_t n, int64_t branches, int64_t d) {
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  for (Index i = 0; i < n * branches; ++i) {
    const float *__restrict h = hidden + i * d, *__restrict k = keys + i * d, *__restrict v = values + i / branches * d;
    const float *__restrict wq = query_norm + i % branches * d, *__restrict wk = key_norm + i % branches * d;
    float dot = 0;
#pragma omp simd reduction(+ : dot)
    for (Index j = 0; j < d; ++j) dot += h[j] * k[j] * wq[j] * wk[j];
    float score = scale * inverse_root_mean_square(h, d, eps) * inverse_root_mean_square(k, d, eps) * dot;
    if (signed_sqrt) score = std::copysign(std::sqrt(std::max(std::abs(score), 1e-6f)), score) * (score != 0);
    const float a = alpha[i] = sigmoid(score);
    float* __restrict to = update + i * d;
    for (Index j = 0; j < d; ++j) to[j] = a * v[j];
  }
}

void engram_gate_backward(
    const float* grad, const float* hidden, const float* keys, const float* values, const float* query_norm, const float* key_norm, float eps,
    bool signed_sqrt, const float* alpha, float* grad_hidden, float* grad_keys, float* grad_values, float* grad_query_norm, float* grad_key_norm,
    int64_t n, int64_t branches, int64_t d) {
  const float scale = 1 / std::sqrt(static_cast<float>(d));
  std::memset(grad_query_norm, 0, branches * d * sizeof(float));
  std::memset(grad_key_norm, 0, branches * d * sizeof(float));
  std::memset(grad_values, 0, n * d * sizeof(float));
  for (Index i = 0; i < n * branches; ++i) {
    const float *__restrict h = hidden + i * d, *__restrict k = keys + i * d, *__restrict v = values + i / branches * d, *__restrict g = grad + i * d;
    const float *__restrict wq = query_norm + i % branches * d, *__restrict wk = key_norm + i % branches * d;
    float *__restrict gh = grad_hidden + i * d, *__restrict gk = grad_keys + i * d, *__restrict gv = grad_values + i / branches * d;
    float *__restrict gq_norm = grad_query_norm + i % branches * d, *__restrict gk_norm = grad_key_norm + i % branches * d;
    const float rh = inverse_root_mean_square(h, d, eps), rk = inverse_root_mean_square(k, d, eps), a = alpha[i];
    float dot = 0, along = 0;
#pragma omp simd reduction(+ : dot, along)
    for (Index j = 0; j < d; ++j) {
      dot += h[j] * k[j] * wq[j] * wk[j];
      along += g[j] * v[j];
    }
    float back = along * a * (1 - a);
    if (signed_sqrt) {
      const float size = std::abs(scale * rh * rk * dot);
      back = size > 1e-6f ? back * 0.5f / std::sqrt(size) : 0.0f;
    }
    const float both = back * scale * rh * rk, own_h = both * dot * rh * rh / d, own_k = both * dot * rk * rk / d;
    for (Index j = 0; j < d; ++j) {
      const float w = wq[j] * wk[j];
      gh[j] = both * k[j] * w - own_h * h[j];
      gk[j] = both * h[j] * w - own_k * k[j];
      gv[j] += a * g[j];
      gq_norm[j] += both * h[j] * k[j] * wk[j];
      gk_norm[j] += both * h[j] * k[j] * wq[j];
    }
  }
}

// x [B, T, M, d], norm [M, d], taps [kernel, M, d] -> y = SiLU(conv(norm(x))) + x; tap k looks (kernel - 1 - k) * dilation tokens back.
// Kept for the way back: what goes into the activation, z [B, T, M, d].
void engram_conv_forward(
    const float* x, const float* norm, const float* taps, float eps, float* y, float* z, int64_t batch, int64_t length, int64_t branches,
    int64_t d, int64_t kernel, int64_t dilation) {
  const Index c = branches * d;
  Scratch<float> normed(length * c);
  for (Index b = 0; b < batch; ++b) {
    const float* from = x + b * length * c;
    for (Index i = 0; i < length * branches; ++i) {
      const float factor = inverse_root_mean_square(from + i * d, d, eps);
      const float *__restrict in = from + i * d, *__restrict w = norm + i % branches * d;
      float* __restrict to = normed + i * d;
      for (Index j = 0; j < d; ++j) to[j] = in[j] * factor * w[j];
    }
    for (Index t = 0; t < length; ++t) {
      const float* __restrict in = from + t * c;
      float *__restrict sum = z + (b * length + t) * c, *__restrict to = y + (b * length + t) * c;
      std::memset(sum, 0, c * sizeof(float));
      for (Index k = 0; k < kernel; ++k) {
        const Index back = (kernel - 1 - k) * dilation;
        if (back > t) continue;
        const float *__restrict seen = normed + (t - back) * c, *__restrict w = taps + k * c;
        for (Index j = 0; j < c; ++j) sum[j] += seen[j] * w[j];
      }
      for (Index j = 0; j < c; ++j) to[j] = sum[j] * sigmoid(sum[j]) + in[j];
    }
  }
}

void engram_conv_backward(
    const float* grad, const float* x, const float* norm, const float* taps, float eps, const float* z, float* grad_x, float* grad_norm,
    float* grad_taps, int64_t batch, int64_t length, int64_t branches, int64_t d, int64_t kernel, int64_t dilation) {
  const Index c = branches * d;
  Scratch<float> normed(length * c), dz(length * c), dn(c);
  std::memset(grad_norm, 0, c * sizeof(float));
  std::memset(grad_taps, 0, kernel * c * sizeof(float));
  for (Index b = 0; b < batch; ++b) {
    const float *from = x + b * length * c, *g = grad + b * length * c, *before = z + b * length * c;
    for (Index i = 0; i < length * branches; ++i) {
      const float factor = inverse_root_mean_square(from + i * d, d, eps);
      const float *__restrict in = from + i * d, *__restrict w = norm + i % branches * d;
      float* __restrict to = normed + i * d;
      for (Index j = 0; j < d; ++j) to[j] = in[j] * factor * w[j];
    }
    float* __restrict slopes = dz;
    for (Index j = 0; j < length * c; ++j) {
      const float s = sigmoid(before[j]);
      slopes[j] = g[j] * (s + before[j] * s * (1 - s));
    }
    for (Index t = 0; t < length; ++t) {
      float* __restrict sum = dn;
      std::memset(sum, 0, c * sizeof(float));
      for (Index k = 0; k < kernel; ++k) {
        const Index back = (kernel - 1 - k) * dilation;
        if (t + back >= length) continue;
        const float *__restrict later = dz + (t + back) * c, *__restrict w = taps + k * c, *__restrict own = normed + t * c;
        float* __restrict tap = grad_taps + k * c;
        for (Index j = 0; j < c; ++j) {
          sum[j] += later[j] * w[j];
          tap[j] += later[j] * own[j];
        }
      }
      for (Index m = 0; m < branches; ++m) {
        const float *__restrict in = from + t * c + m * d, *__restrict w = norm + m * d, *__restrict gn = dn + m * d, *__restrict skip = g + t * c + m * d;
        float *__restrict to = grad_x + (b * length + t) * c + m * d, *__restrict gw = grad_norm + m * d;
        const float factor = inverse_root_mean_square(in, d, eps);
        float along = 0;
#pragma omp simd reduction(+ : along)
        for (Index j = 0; j < d; ++j) along += gn[j] * w[j] * in[j];
        const float own = along * factor * factor / d;
        for (Index j = 0; j < d; ++j) {
          gw[j] += gn[j] * in[j] * factor;
          to[j] = factor * (gn[j] * w[j] - in[j] * own) + skip[j];
        }
      }
    }
  }
}
}
