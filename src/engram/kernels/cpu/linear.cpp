// Dense projections: y = x W^T without copies of whole tensors between float and bf16.
#include "gemm.h"

namespace engram {

// x [n, in], weight [out, in] -> y [n, out]
template <typename T>
void linear_forward(const float* x, const float* weight, float* y, Index n, Index in, Index out) {
  Scratch<T> b(in * out), a(ROWS * in);
  Scratch<float> last(ROWS * out);
  pack_transposed<T>(b, out, weight, in, out, in);  // [in, out]
  for (Index start = 0; start < n; start += ROWS) {
    Index m = std::min(ROWS, n - start), rows = padded(m);
    convert_rows<T>(a, x + start * in, m, rows, in, in);
    float* c = rows == m ? y + start * out : static_cast<float*>(last);
    gemm<T>(rows, out, in, a, in, b, out, c, out, false);
    if (rows != m) std::memcpy(y + start * out, c, m * out * sizeof(float));
  }
  finish_gemm();
}

// grad_y [n, out] -> grad_x [n, in] (null: not wanted), grad_weight [out, in]
template <typename T>
void linear_backward(const float* grad_y, const float* x, const float* weight, float* grad_x, float* grad_weight, Index n, Index in, Index out) {
  const Index k = round_up(out, 2);  // with a zero where `out` is odd
  Scratch<T> b(k * in), a(ROWS * k), a_t(out * ROWS), xb(ROWS * in);
  Scratch<float> last(ROWS * std::max(in, out)), zero(in);
  std::memset(zero, 0, in * sizeof(float));
  for (Index i = 0; i < k; i += 2)  // [k, in]
    pack_pair<T>(b + i * in, in, weight + i * in, i + 1 < out ? weight + (i + 1) * in : static_cast<float*>(zero), in);
  for (Index start = 0; start < n; start += ROWS) {
    Index m = std::min(ROWS, n - start), rows = padded(m);
    const float* g = grad_y + start * out;
    if (grad_x) {
      std::memset(static_cast<void*>(a + 0), 0, rows * k * sizeof(T));
      for (Index i = 0; i < m; ++i) convert<T>(a + i * k, g + i * out, out);
      float* c = rows == m ? grad_x + start * in : static_cast<float*>(last);
      gemm<T>(rows, in, k, a, k, b, in, c, in, false);
      if (rows != m) std::memcpy(grad_x + start * in, c, m * in * sizeof(float));
    }
    transpose<T>(a_t, rows, [&](Index i) { return g + i * out; }, m, rows, out);  // [out, rows]
    for (Index i = 0; i < rows; i += 2) {
      const float* first = i < m ? x + (start + i) * in : static_cast<float*>(zero);
      const float* second = i + 1 < m ? x + (start + i + 1) * in : static_cast<float*>(zero);
      pack_pair<T>(xb + i * in, in, first, second, in);
    }
    gemm<T>(out, in, rows, a_t, rows, xb, in, grad_weight, in, start > 0);
  }
  finish_gemm();
}

}  // namespace engram

extern "C" {

void engram_linear_forward(const float* x, const float* weight, float* y, int64_t n, int64_t in, int64_t out, bool use_bf16) {
  (use_bf16 ? engram::linear_forward<engram::bf16> : engram::linear_forward<float>)(x, weight, y, n, in, out);
}

void engram_linear_backward(
    const float* grad_y, const float* x, const float* weight, float* grad_x, float* grad_weight, int64_t n, int64_t in, int64_t out,
    bool use_bf16) {
  (use_bf16 ? engram::linear_backward<engram::bf16> : engram::linear_backward<float>)(grad_y, x, weight, grad_x, grad_weight, n, in, out);
}
}
