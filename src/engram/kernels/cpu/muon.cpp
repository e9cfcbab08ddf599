// Muon on many small matrices: each stays in cache from its gradient to its new weights.
#include "gemm.h"

namespace engram {

// Newton-Schulz iterations on matrices [a, b] with a <= b, both even: X <- linear X + (cubic G + quintic G^2) X with G = X X^T.
template <typename T>
class NewtonSchulz {
 public:
  NewtonSchulz(Index a, Index b, Index iterations, float linear, float cubic, float quintic, float eps)
      : a_(a), b_(b), iterations_(iterations), linear_(linear), cubic_(cubic), quintic_(quintic), eps_(eps), rows_(a * b), columns_(b * a),
        packed_(a * b), gram_rows_(a * a), gram_packed_(a * a), gram_(a * a), poly_(a * a), next_(a * b) {}

  // In place, after scaling to norm 1.
  void run(float* __restrict x) {
    const Index a = a_, b = b_;
    float squares = 0;
#pragma omp simd reduction(+ : squares)
    for (Index j = 0; j < a * b; ++j) squares += x[j] * x[j];
    const float factor = 1 / std::max(std::sqrt(squares), eps_);
    for (Index j = 0; j < a * b; ++j) x[j] *= factor;
    for (Index step = 0; step < iterations_; ++step) {
      convert<T>(rows_, x, a * b);
      pack_transposed<T>(columns_, a, x, b, a, b);
      gemm<T>(a, a, b, rows_, b, columns_, a, gram_, a, false);
      convert<T>(gram_rows_, gram_, a * a);
      pack<T>(gram_packed_, gram_, a, a, a);
      gemm<T>(a, a, a, gram_rows_, a, gram_packed_, a, poly_, a, false);
      float *__restrict p = poly_, *__restrict g = gram_, *__restrict n = next_;
      for (Index j = 0; j < a * a; ++j) p[j] = cubic_ * g[j] + quintic_ * p[j];
      convert<T>(gram_rows_, poly_, a * a);
      pack<T>(packed_, x, a, b, b);
      gemm<T>(a, b, a, gram_rows_, a, packed_, b, next_, b, false);
      for (Index j = 0; j < a * b; ++j) x[j] = linear_ * x[j] + n[j];
    }
  }

 private:
  const Index a_, b_, iterations_;
  const float linear_, cubic_, quintic_, eps_;
  Scratch<T> rows_, columns_, packed_, gram_rows_, gram_packed_;
  Scratch<float> gram_, poly_, next_;
};

// One step on outer x inner matrices of `rows` rows of `columns` consecutive numbers, of weights, momenta and gradients alike.
template <typename T>
void muon_step(
    float* weight, float* momenta, const float* grad, Index outer, Index outer_stride, Index inner, Index inner_stride, Index rows, Index columns,
    Index row_stride, float momentum, float keep, float rate, Index iterations, float linear, float cubic, float quintic, float eps) {
  const bool tall = rows > columns;
  const Index r = round_up(rows, 2), c = round_up(columns, 2);  // with a row or column of zeros, which stays zero
  Scratch<float> x(r * c), turned(r * c);
  NewtonSchulz<T> orthogonalise(std::min(r, c), std::max(r, c), iterations, linear, cubic, quintic, eps);
  for (Index matrix = 0; matrix < outer * inner; ++matrix) {
    const Index base = matrix / inner * outer_stride + matrix % inner * inner_stride;
    std::memset(x, 0, r * c * sizeof(float));
    for (Index i = 0; i < rows; ++i) {
      const float* __restrict g = grad + base + i * row_stride;
      float *__restrict m = momenta + base + i * row_stride, *__restrict to = x + i * c;
      for (Index j = 0; j < columns; ++j) {
        m[j] += (g[j] - m[j]) * (1 - momentum);
        to[j] = g[j] + (m[j] - g[j]) * momentum;  // Nesterov
      }
    }
    if (tall) {  // the Gram matrix is the small one
      transpose<float>(turned, r, [&](Index i) { return x + i * c; }, r, r, c);
      orthogonalise.run(turned);
      transpose<float>(x, c, [&](Index i) { return turned + i * r; }, c, c, r);
    } else {
      orthogonalise.run(x);
    }
    for (Index i = 0; i < rows; ++i) {
      float* __restrict w = weight + base + i * row_stride;
      const float* __restrict from = x + i * c;
      for (Index j = 0; j < columns; ++j) w[j] = w[j] * keep - rate * from[j];
    }
  }
  finish_gemm();
}

}  // namespace engram

extern "C" void engram_muon_step(
    float* weight, float* momenta, const float* grad, int64_t outer, int64_t outer_stride, int64_t inner, int64_t inner_stride, int64_t rows,
    int64_t columns, int64_t row_stride, float momentum, float keep, float rate, int64_t iterations, float linear, float cubic, float quintic,
    float eps, bool use_bf16) {
  using namespace engram;
  (use_bf16 ? muon_step<bf16> : muon_step<float>)(
      weight, momenta, grad, outer, outer_stride, inner, inner_stride, rows, columns, row_stride, momentum, keep, rate, iterations, linear, cubic,
      quintic, eps);
}
