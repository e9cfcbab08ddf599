// Newton-Schulz iterations of many small matrices, each staying in cache from the first product to the last.
#include "gemm.h"

namespace engram {

// x [count, a, b] with a <= b, both even -> in place: X <- linear X + (cubic G + quintic G^2) X with G = X X^T, after scaling to norm 1.
template <typename T>
void orthogonalise(float* x, Index count, Index a, Index b, Index iterations, float linear, float cubic, float quintic, float eps) {
  Scratch<T> rows(a * b), columns(b * a), packed(a * b), gram_rows(a * a), gram_packed(a * a);
  Scratch<float> gram(a * a), poly(a * a), next(a * b);
  for (Index i = 0; i < count; ++i) {
    float* __restrict matrix = x + i * a * b;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Index j = 0; j < a * b; ++j) squares += matrix[j] * matrix[j];
    const float factor = 1 / std::max(std::sqrt(squares), eps);
    for (Index j = 0; j < a * b; ++j) matrix[j] *= factor;
    for (Index step = 0; step < iterations; ++step) {
      convert<T>(rows, matrix, a * b);
      pack_transposed<T>(columns, a, matrix, b, a, b);
      gemm<T>(a, a, b, rows, b, columns, a, gram, a, false);
      convert<T>(gram_rows, gram, a * a);
      pack<T>(gram_packed, gram, a, a, a);
      gemm<T>(a, a, a, gram_rows, a, gram_packed, a, poly, a, false);
      float *__restrict p = poly, *__restrict g = gram;
      for (Index j = 0; j < a * a; ++j) p[j] = cubic * g[j] + quintic * p[j];
      convert<T>(gram_rows, poly, a * a);
      pack<T>(packed, matrix, a, b, b);
      gemm<T>(a, b, a, gram_rows, a, packed, b, next, b, false);
      float* __restrict n = next;
      for (Index j = 0; j < a * b; ++j) matrix[j] = linear * matrix[j] + n[j];
    }
  }
  finish_gemm();
}

}  // namespace engram

extern "C" void engram_orthogonalise(
    float* x, int64_t count, int64_t a, int64_t b, int64_t iterations, float linear, float cubic, float quintic, float eps, bool use_bf16) {
  using namespace engram;
  (use_bf16 ? orthogonalise<bf16> : orthogonalise<float>)(x, count, a, b, iterations, linear, cubic, quintic, eps);
}
