// Routed SwiGLU experts over tokens sorted by expert: gather, both products, activation and sum in one pass over blocks of tokens.
#include "gemm.h"

namespace engram {

// Assignments (token * k + place) by expert, in the order of tokens: order [n k], starts [experts + 1].
static void sort_by_expert(const int64_t* chosen, Index count, Index experts, int32_t* order, int64_t* starts) {
  std::fill(starts, starts + experts + 1, 0);
  for (Index i = 0; i < count; ++i) ++starts[chosen[i] + 1];
  for (Index e = 0; e < experts; ++e) starts[e + 1] += starts[e];
  Scratch<int64_t> next(experts);
  std::copy(starts, starts + experts, static_cast<int64_t*>(next));
  for (Index i = 0; i < count; ++i) order[next[chosen[i]]++] = static_cast<int32_t>(i);
}

// x [n, d], gate_up [E, d, 2 w], out [E, w, d], weights and chosen [n, k] -> y [n, d].
// Kept for the way back: order, starts, and what goes into the activation, hidden [n k, 2 w] by expert.
template <typename T>
void experts_forward(
    const float* x, const float* gate_up, const float* out, const float* weights, const int64_t* chosen, float* y, int32_t* order,
    int64_t* starts, T* hidden, Index n, Index k, Index d, Index w, Index experts) {
  Scratch<T> b_up(d * 2 * w), b_out(w * d), a(ROWS * d), act(ROWS * w);
  Scratch<float> h(ROWS * 2 * w), act_rows(ROWS * w), r(ROWS * d);
  sort_by_expert(chosen, n * k, experts, order, starts);
  std::memset(y, 0, n * d * sizeof(float));
  for (Index e = 0; e < experts; ++e) {
    if (starts[e] == starts[e + 1]) continue;
    pack<T>(b_up, gate_up + e * d * 2 * w, d, 2 * w, 2 * w);
    pack<T>(b_out, out + e * w * d, w, d, d);
    for (Index start = starts[e]; start < starts[e + 1]; start += ROWS) {
      const Index m = std::min(ROWS, starts[e + 1] - start), rows = padded(m);
      for (Index i = 0; i < m; ++i) convert<T>(a + i * d, x + order[start + i] / k * d, d);
      std::memset(static_cast<void*>(a + m * d), 0, (rows - m) * d * sizeof(T));
      gemm<T>(rows, 2 * w, d, a, d, b_up, 2 * w, h, 2 * w, false);
      for (Index i = 0; i < rows; ++i) swiglu(h + i * 2 * w, act_rows + i * w, w);
      convert<T>(act, act_rows, rows * w);
      if (hidden) convert<T>(hidden + start * 2 * w, h, m * 2 * w);
      gemm<T>(rows, d, w, act, w, b_out, d, r, d, false);
      for (Index i = 0; i < m; ++i) {
        const float weight = weights[order[start + i]];
        const float* __restrict from = r + i * d;
        float* __restrict to = y + order[start + i] / k * d;
        for (Index j = 0; j < d; ++j) to[j] += weight * from[j];
      }
    }
  }
  finish_gemm();
}

// grad_y [n, d] and what the forward pass kept -> grad_x [n, d], grad_gate_up [E, d, 2 w], grad_out [E, w, d], grad_weights [n, k].
template <typename T>
void experts_backward(
    const float* grad_y, const float* x, const float* gate_up, const float* out, const float* weights, const int32_t* order,
    const int64_t* starts, const T* hidden, float* grad_x, float* grad_gate_up, float* grad_out, float* grad_weights, Index n, Index k, Index d,
    Index w, Index experts) {
  Scratch<T> b_out(d * w), b_up(2 * w * d);
  Scratch<T> g(ROWS * d), g_b(ROWS * d), x_t(d * ROWS), act_t(w * ROWS), dh(ROWS * 2 * w), dh_b(ROWS * 2 * w);
  Scratch<Index> tokens(ROWS);
  Scratch<float> zero(d), da(ROWS * w), act(ROWS * w), dh_rows(ROWS * 2 * w), h(ROWS * 2 * w), dx(ROWS * d);
  std::memset(grad_x, 0, n * d * sizeof(float));
  std::memset(zero, 0, d * sizeof(float));
  for (Index e = 0; e < experts; ++e) {
    float *e_gate_up = grad_gate_up + e * d * 2 * w, *e_out = grad_out + e * w * d;
    if (starts[e] == starts[e + 1]) {
      std::memset(e_gate_up, 0, d * 2 * w * sizeof(float));
      std::memset(e_out, 0, w * d * sizeof(float));
      continue;
    }
    pack_transposed<T>(b_out, w, out + e * w * d, d, w, d);                     // [d, w]
    pack_transposed<T>(b_up, d, gate_up + e * d * 2 * w, 2 * w, d, 2 * w);      // [2 w, d]
    for (Index start = starts[e]; start < starts[e + 1]; start += ROWS) {
      const Index m = std::min(ROWS, starts[e + 1] - start), rows = padded(m);
      const bool add = start > starts[e];
      for (Index i = 0; i < m; ++i) tokens[i] = order[start + i] / k;
      const auto grad_of = [&](Index i) { return i < m ? grad_y + tokens[i] * d : static_cast<const float*>(zero); };
      for (Index i = 0; i < rows; ++i) convert<T>(g + i * d, grad_of(i), d);
      for (Index i = 0; i < rows; i += 2) pack_pair<T>(g_b + i * d, d, grad_of(i), grad_of(i + 1), d);
      transpose<T>(x_t, rows, [&](Index i) { return x + tokens[i] * d; }, m, rows, d);
      gemm<T>(rows, w, d, g, d, b_out, w, da, w, false);
      widen<T>(h, hidden + start * 2 * w, m * 2 * w);
      for (Index i = 0; i < m; ++i) {
        const float *gates = h + i * 2 * w, *ups = gates + w, *grads = da + i * w;
        float *to_gate = dh_rows + i * 2 * w, *to_up = to_gate + w, *kept = act + i * w;
        const __m512 weight = _mm512_set1_ps(weights[order[start + i]]), one = _mm512_set1_ps(1.0f);
        __m512 along = _mm512_setzero_ps();
        by_lanes(w, [&](Index j, __mmask16 lanes) {
          const __m512 gate = load(gates + j, lanes), up = load(ups + j, lanes), grad = load(grads + j, lanes);
          const __m512 s = sigmoid(gate), silu = _mm512_mul_ps(gate, s), out = _mm512_mul_ps(silu, up);
          along = _mm512_fmadd_ps(grad, out, along);
          store(kept + j, lanes, _mm512_mul_ps(weight, out));
          const __m512 weighted = _mm512_mul_ps(weight, grad), slope = _mm512_fmadd_ps(silu, _mm512_sub_ps(one, s), s);
          store(to_gate + j, lanes, _mm512_mul_ps(_mm512_mul_ps(weighted, up), slope));
          store(to_up + j, lanes, _mm512_mul_ps(weighted, silu));
        });
        grad_weights[order[start + i]] = _mm512_reduce_add_ps(along);
      }
      std::memset(dh_rows + m * 2 * w, 0, (rows - m) * 2 * w * sizeof(float));
      convert<T>(dh, dh_rows, rows * 2 * w);
      pack<T>(dh_b, dh_rows, rows, 2 * w, 2 * w);
      transpose<T>(act_t, rows, [&](Index i) { return act + i * w; }, m, rows, w);
      gemm<T>(rows, d, 2 * w, dh, 2 * w, b_up, d, dx, d, false);
      for (Index i = 0; i < m; ++i) {
        const float* __restrict from = dx + i * d;
        float* __restrict to = grad_x + tokens[i] * d;
        for (Index j = 0; j < d; ++j) to[j] += from[j];
      }
      gemm<T>(w, d, rows, act_t, rows, g_b, d, e_out, d, add);
      gemm<T>(d, 2 * w, rows, x_t, rows, dh_b, 2 * w, e_gate_up, 2 * w, add);
    }
  }
  finish_gemm();
}

}  // namespace engram

extern "C" {

void engram_experts_forward(
    const float* x, const float* gate_up, const float* out, const float* weights, const int64_t* chosen, float* y, int32_t* order,
    int64_t* starts, void* hidden, int64_t n, int64_t k, int64_t d, int64_t w, int64_t experts, bool use_bf16) {
  using namespace engram;
  if (use_bf16)
    experts_forward<bf16>(x, gate_up, out, weights, chosen, y, order, starts, static_cast<bf16*>(hidden), n, k, d, w, experts);
  else
    experts_forward<float>(x, gate_up, out, weights, chosen, y, order, starts, static_cast<float*>(hidden), n, k, d, w, experts);
}

void engram_experts_backward(
    const float* grad_y, const float* x, const float* gate_up, const float* out, const float* weights, const int32_t* order,
    const int64_t* starts, const void* hidden, float* grad_x, float* grad_gate_up, float* grad_out, float* grad_weights, int64_t n, int64_t k,
    int64_t d, int64_t w, int64_t experts, bool use_bf16) {
  using namespace engram;
  if (use_bf16)
    experts_backward<bf16>(
        grad_y, x, gate_up, out, weights, order, starts, static_cast<const bf16*>(hidden), grad_x, grad_gate_up, grad_out, grad_weights, n, k, d,
        w, experts);
  else
    experts_backward<float>(
        grad_y, x, gate_up, out, weights, order, starts, static_cast<const float*>(hidden), grad_x, grad_gate_up, grad_out, grad_weights, n, k,
        d, w, experts);
}
}
