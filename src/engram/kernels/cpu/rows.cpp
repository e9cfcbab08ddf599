// Work row by row that PyTorch would do in many passes over whole tensors: norm, activation and routing.
#include "gemm.h"

using namespace engram;

extern "C" {

// x [n, d], weight [d] -> y [n, d]: x / sqrt(mean(x^2) + eps) * weight
void engram_rms_norm_forward(const float* x, const float* weight, float eps, float* y, int64_t n, int64_t d) {
  for (Index i = 0; i < n; ++i) {
    const float* __restrict from = x + i * d;
    float* __restrict to = y + i * d;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Index j = 0; j < d; ++j) squares += from[j] * from[j];
    const float factor = 1 / std::sqrt(squares / d + eps);
    for (Index j = 0; j < d; ++j) to[j] = from[j] * factor * weight[j];
  }
}

// grad_y [n, d] -> grad_x [n, d], grad_weight [d]
void engram_rms_norm_backward(
    const float* grad_y, const float* x, const float* weight, float eps, float* grad_x, float* __restrict grad_weight, int64_t n, int64_t d) {
  std::memset(grad_weight, 0, d * sizeof(float));
  for (Index i = 0; i < n; ++i) {
    const float *__restrict from = x + i * d, *__restrict grad = grad_y + i * d;
    float* __restrict to = grad_x + i * d;
    float squares = 0, along = 0;
#pragma omp simd reduction(+ : squares, along)
    for (Index j = 0; j < d; ++j) {
      squares += from[j] * from[j];
      along += grad[j] * weight[j] * from[j];
    }
    const float factor = 1 / std::sqrt(squares / d + eps), back = along * factor * factor / d;
    for (Index j = 0; j < d; ++j) {
      grad_weight[j] += grad[j] * from[j] * factor;
      to[j] = factor * (grad[j] * weight[j] - from[j] * back);
    }
  }
}

// gate_up [n, 2 w], gate first -> out [n, w]: silu(gate) * up
void engram_swiglu_forward(const float* gate_up, float* out, int64_t n, int64_t w) {
  for (Index i = 0; i < n; ++i) swiglu(gate_up + i * 2 * w, out + i * w, w);
}

void engram_swiglu_backward(const float* grad_out, const float* gate_up, float* grad_gate_up, int64_t n, int64_t w) {
  for (Index i = 0; i < n; ++i) {
    const float *gates = gate_up + i * 2 * w, *ups = gates + w, *grads = grad_out + i * w;
    float *to_gate = grad_gate_up + i * 2 * w, *to_up = to_gate + w;
    const __m512 one = _mm512_set1_ps(1.0f);
    by_lanes(w, [&](Index j, __mmask16 lanes) {
      const __m512 gate = load(gates + j, lanes), up = load(ups + j, lanes), grad = load(grads + j, lanes);
      const __m512 s = sigmoid(gate), silu = _mm512_mul_ps(gate, s);
      store(to_gate + j, lanes, _mm512_mul_ps(_mm512_mul_ps(grad, up), _mm512_fmadd_ps(silu, _mm512_sub_ps(one, s), s)));
      store(to_up + j, lanes, _mm512_mul_ps(grad, silu));
    });
  }
}

// scores [n, E] hold logits and become sigmoid scores; the k largest by score plus bias -> chosen [n, k] and weights [n, k] summing to `scale`.
void engram_route_forward(float* scores, const float* bias, float scale, float* weights, int64_t* chosen, int64_t n, int64_t experts, int64_t k) {
  const Index wide = round_up(experts, 16);
  Scratch<float> biased(wide);
  std::fill(biased + experts, biased + wide, -INFINITY);
  for (Index i = 0; i < n; ++i) {
    float* row = scores + i * experts;
    by_lanes(experts, [&](Index e, __mmask16 lanes) {
      const __m512 score = sigmoid(load(row + e, lanes));
      store(row + e, lanes, score);
      store(biased + e, lanes, _mm512_add_ps(score, load(bias + e, lanes)));
    });
    float sum = 0;
    for (Index j = 0; j < k; ++j) {
      __m512 top = _mm512_load_ps(biased);
      for (Index e = 16; e < wide; e += 16) top = _mm512_max_ps(top, _mm512_load_ps(biased + e));
      const __m512 best = _mm512_set1_ps(_mm512_reduce_max_ps(top));
      Index found = 0;
      for (Index e = 0; e < wide; e += 16)
        if (const __mmask16 equal = _mm512_cmp_ps_mask(_mm512_load_ps(biased + e), best, _CMP_EQ_OQ)) {
          found = e + std::countr_zero(static_cast<unsigned>(equal));
          break;
        }
      biased[found] = -INFINITY;
      chosen[i * k + j] = found;
      sum += row[found];
    }
    for (Index j = 0; j < k; ++j) weights[i * k + j] = scale * row[chosen[i * k + j]] / (sum + 1e-20f);
  }
}

// grad_weights [n, k] -> grad_logits [n, E]
void engram_route_backward(
    const float* grad_weights, const float* scores, const int64_t* chosen, float scale, float* grad_logits, int64_t n, int64_t experts, int64_t k) {
  std::memset(grad_logits, 0, n * experts * sizeof(float));
  for (Index i = 0; i < n; ++i) {
    const float *row = scores + i * experts, *grad = grad_weights + i * k;
    const int64_t* to = chosen + i * k;
    float sum = 1e-20f, along = 0;
    for (Index j = 0; j < k; ++j) {
      sum += row[to[j]];
      along += grad[j] * row[to[j]];
    }
    for (Index j = 0; j < k; ++j) {
      const float score = row[to[j]];
      grad_logits[i * experts + to[j]] = scale * (grad[j] - along / sum) / sum * score * (1 - score);
    }
  }
}
}
