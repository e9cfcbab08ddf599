// Language-model head and cross-entropy together: the logits of a block of tokens live in cache and nowhere else.
#include "gemm.h"

namespace engram {

// hidden [n, d], weight [v, d], targets [n] -> losses [n]; with grad_hidden [n, d] and grad_weight [v, d] also the gradients of their sum.
//
// With e = exp(logits - top) and their sum s, the gradient of the logits is e / s, less 1 at the target. It is kept as e, less s at the
// target: then one pass over the logits is enough. The factor 1 / s goes to grad_hidden and to the hidden states that the weight's gradient is made of.
template <typename T>
void head_loss(
    const float* hidden, const float* weight, const int64_t* targets, float* losses, float* grad_hidden, float* grad_weight, Index n, Index d,
    Index v) {
  const Index panels = (v + PANEL - 1) / PANEL, wide = panels * PANEL;
  const Index ld = wide + 16;  // rows that are a power of two apart would share few places of the cache
  const bool back = grad_weight != nullptr;
  Scratch<T> weight_t(panels * d * PANEL);    // panels of [d, PANEL]
  Scratch<T> weight_b(back ? wide * d : 0);   // [v, d]
  Scratch<T> a(ROWS * d), grad(back ? ROWS * ld : 0);
  Scratch<T> hidden_t(d * ROWS), grad_b(back ? ROWS * wide : 0);  // [d, rows]; panels of [ROWS, PANEL]
  Scratch<float> logits(ROWS * ld), tops(ROWS * 16), factors(ROWS), sums(back ? panels * d * PANEL : 0), out(ROWS * d), scaled(ROWS * d), tail(PANEL * d);

  for (Index p = 0; p < panels; ++p) {
    const Index columns = std::min(PANEL, v - p * PANEL);
    const float* rows = weight + p * PANEL * d;
    if (columns < PANEL) {
      std::memset(tail, 0, PANEL * d * sizeof(float));
      std::memcpy(tail, rows, columns * d * sizeof(float));
      rows = tail;
    }
    pack_transposed<T>(weight_t + p * d * PANEL, PANEL, rows, d, PANEL, d);
    if (back) pack<T>(weight_b + p * PANEL * d, rows, PANEL, d, d);
  }
  for (Index start = 0; start < n; start += ROWS) {
    const Index m = std::min(ROWS, n - start), rows = padded(m);
    convert_rows<T>(a, hidden + start * d, m, rows, d, d);
    std::fill(tops + 0, tops + m * 16, -INFINITY);
    for (Index p = 0; p < panels; ++p) {
      gemm<T>(rows, PANEL, d, a, d, weight_t + p * d * PANEL, PANEL, logits + p * PANEL, ld, false);
      for (Index i = 0; i < m; ++i) {
        __m512 top = _mm512_load_ps(tops + i * 16);
        for (Index j = 0; j < PANEL; j += 16) {
          const __mmask16 lanes = first_lanes(v - p * PANEL - j);
          top = _mm512_mask_max_ps(top, lanes, top, _mm512_load_ps(logits + i * ld + p * PANEL + j));
        }
        _mm512_store_ps(tops + i * 16, top);
      }
    }
    for (Index i = 0; i < rows; i += 2) {
      alignas(64) float e[2][PANEL];
      float top[2], sum[2];
      __m512 shifts[2], partial[2] = {_mm512_setzero_ps(), _mm512_setzero_ps()};
      for (Index r = 0; r < 2; ++r) {
        top[r] = i + r < m ? _mm512_reduce_max_ps(_mm512_load_ps(tops + (i + r) * 16)) : 0;
        shifts[r] = _mm512_set1_ps(top[r]);
      }
      for (Index p = 0; p < panels; ++p) {
        for (Index r = 0; r < 2; ++r)
          for (Index j = 0; j < PANEL; j += 16) {
            const __mmask16 lanes = i + r < m ? first_lanes(v - p * PANEL - j) : 0;
            const __m512 logit = _mm512_load_ps(logits + (i + r) * ld + p * PANEL + j);
            const __m512 exps = _mm512_maskz_mov_ps(lanes, fast_exp(_mm512_sub_ps(logit, shifts[r])));
            partial[r] = _mm512_add_ps(partial[r], exps);
            _mm512_store_ps(e[r] + j, exps);
          }
        if (!back) continue;
        convert<T>(grad + i * ld + p * PANEL, e[0], PANEL);
        convert<T>(grad + (i + 1) * ld + p * PANEL, e[1], PANEL);
        pack_pair<T>(grad_b + (p * ROWS + i) * PANEL, PANEL, e[0], e[1], PANEL);
      }
      for (Index r = 0; r < 2; ++r) sum[r] = _mm512_reduce_add_ps(partial[r]);
      for (Index r = 0; r < 2 && i + r < m; ++r) {
        const Index target = targets[start + i + r], panel = target / PANEL, column = target % PANEL;
        const float logit = logits[(i + r) * ld + target];
        losses[start + i + r] = std::log(sum[r]) + top[r] - logit;
        if (!back) continue;
        const float wanted = fast_exp(logit - top[r]) - sum[r];
        store(grad + (i + r) * ld + target, wanted);
        T* pairs = grad_b + (panel * ROWS + i) * PANEL;
        store(std::is_same_v<T, float> ? pairs + r * PANEL + column : pairs + 2 * column + r, wanted);
        for (Index j = 0; j < d; ++j) scaled[(i + r) * d + j] = hidden[(start + i + r) * d + j] / sum[r];
        factors[i + r] = 1 / sum[r];
      }
    }
    if (!back) continue;
    gemm<T>(rows, d, wide, grad, ld, weight_b, d, out, d, false);
    for (Index i = 0; i < m; ++i) {
      const float factor = factors[i];
      const float* __restrict from = out + i * d;
      float* __restrict to = grad_hidden + (start + i) * d;
      for (Index j = 0; j < d; ++j) to[j] = factor * from[j];
    }
    transpose<T>(hidden_t, rows, [&](Index i) { return scaled + i * d; }, m, rows, d);
    for (Index p = 0; p < panels; ++p)
      gemm<T>(d, PANEL, rows, hidden_t, rows, grad_b + p * ROWS * PANEL, PANEL, sums + p * d * PANEL, PANEL, start > 0);
  }
  finish_gemm();
  if (!back) return;
  for (Index p = 0; p < panels; ++p) {
    const float* columns = sums + p * d * PANEL;
    transpose<float>(grad_weight + p * PANEL * d, d, [&](Index i) { return columns + i * PANEL; }, d, d, std::min(PANEL, v - p * PANEL));
  }
}

}  // namespace engram

extern "C" void engram_head_loss(
    const float* hidden, const float* weight, const int64_t* targets, float* losses, float* grad_hidden, float* grad_weight, int64_t n, int64_t d,
    int64_t v, bool use_bf16) {
  (use_bf16 ? engram::head_loss<engram::bf16> : engram::head_loss<float>)(hidden, weight, targets, losses, grad_hidden, grad_weight, n, d, v);
}
