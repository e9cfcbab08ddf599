// Language-model head and cross-entropy together: the logits of a block of tokens live in cache and nowhere else.
#include "gemm.h"

namespace engram {

// hidden [n, d], weight [v, d], targets [n] -> losses [n]; with grad_hidden [n, d] and grad_weight [v, d] also the gradients of their sum.
template <typename T>
void head_loss(
    const float* hidden, const float* weight, const int64_t* targets, float* losses, float* grad_hidden, float* grad_weight, Index n, Index d,
    Index v) {
  const Index panels = (v + PANEL - 1) / PANEL, wide = panels * PANEL;
  const Index ld = wide + 16;  // rows that are a power of two apart would share few places of the cache
  Scratch<T> weight_t(panels * d * PANEL);  // panels of [d, PANEL]
  Scratch<T> weight_b(grad_weight ? wide * d : 0);  // [v, d]
  Scratch<T> a(ROWS * d), a_t(d * ROWS), grad(ROWS * ld), grad_b(ROWS * wide);
  Scratch<float> logits(ROWS * ld), sums(grad_weight ? panels * d * PANEL : 0), out(ROWS * d), scales(ROWS);
  Scratch<float> tail(PANEL * d);

  for (Index p = 0; p < panels; ++p) {
    const Index columns = std::min(PANEL, v - p * PANEL);
    const float* rows = weight + p * PANEL * d;
    if (columns < PANEL) {
      std::memset(tail, 0, PANEL * d * sizeof(float));
      std::memcpy(tail, rows, columns * d * sizeof(float));
      rows = tail;
    }
    pack_transposed<T>(weight_t + p * d * PANEL, PANEL, rows, d, PANEL, d);
    if (grad_weight) pack<T>(weight_b + p * PANEL * d, rows, PANEL, d, d);
  }
  for (Index start = 0; start < n; start += ROWS) {
    const Index m = std::min(ROWS, n - start), rows = padded(m);
    convert_rows<T>(a, hidden + start * d, m, rows, d, d);
    for (Index p = 0; p < panels; ++p)
      gemm<T>(rows, PANEL, d, a, d, weight_t + p * d * PANEL, PANEL, logits + p * PANEL, ld, false);
    for (Index i = 0; i < rows; ++i) {
      float* __restrict row = logits + i * ld;
      if (i >= m) {
        std::memset(row, 0, wide * sizeof(float));
        scales[i] = 0;
        continue;
      }
      float top = row[0], sum = 0;
#pragma omp simd reduction(max : top)
      for (Index j = 0; j < v; ++j) top = row[j] > top ? row[j] : top;
      const float wanted = row[targets[start + i]];
#pragma omp simd reduction(+ : sum)
      for (Index j = 0; j < v; ++j) {
        row[j] = fast_exp(row[j] - top);
        sum += row[j];
      }
      losses[start + i] = std::log(sum) + top - wanted;
      if (!grad_weight) continue;
      for (Index j = v; j < wide; ++j) row[j] = 0;
      row[targets[start + i]] -= sum;
      scales[i] = 1 / sum;
    }
    if (!grad_weight) continue;
    for (Index i = 0; i < rows; i += 2)
      for (Index p = 0; p < panels; ++p) {
        float *__restrict first = logits + i * ld + p * PANEL, *__restrict second = first + ld;
        const float scale = scales[i], next_scale = scales[i + 1];
        for (Index j = 0; j < PANEL; ++j) {
          first[j] *= scale;
          second[j] *= next_scale;
        }
        convert<T>(grad + i * ld + p * PANEL, first, PANEL);
        convert<T>(grad + (i + 1) * ld + p * PANEL, second, PANEL);
        pack_pair<T>(grad_b + p * ROWS * PANEL + i * PANEL, PANEL, first, second, PANEL);
      }
    float* c = rows == m ? grad_hidden + start * d : static_cast<float*>(out);
    gemm<T>(rows, d, wide, grad, ld, weight_b, d, c, d, false);
    if (rows != m) std::memcpy(grad_hidden + start * d, c, m * d * sizeof(float));
    transpose<T>(a_t, rows, hidden + start * d, m, d, d);  // [d, rows]
    for (Index p = 0; p < panels; ++p)
      gemm<T>(d, PANEL, rows, a_t, rows, grad_b + p * ROWS * PANEL, PANEL, sums + p * d * PANEL, PANEL, start > 0);
  }
  finish_gemm();
  if (!grad_weight) return;
  for (Index p = 0; p < panels; ++p)
    for (Index j = 0; j < std::min(PANEL, v - p * PANEL); ++j) {
      const float* column = sums + p * d * PANEL + j;
      float* __restrict row = grad_weight + (p * PANEL + j) * d;
      for (Index i = 0; i < d; ++i) row[i] = column[i * PANEL];
    }
}

}  // namespace engram

extern "C" void engram_head_loss(
    const float* hidden, const float* weight, const int64_t* targets, float* losses, float* grad_hidden, float* grad_weight, int64_t n, int64_t d,
    int64_t v, bool use_bf16) {
  (use_bf16 ? engram::head_loss<engram::bf16> : engram::head_loss<float>)(hidden, weight, targets, losses, grad_hidden, grad_weight, n, d, v);
}
