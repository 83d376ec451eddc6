// SPDX-License-Identifier: Apache-2.0
#include "kamerton/federation/low_rank.h"

#include <cmath>

#include <Eigen/Dense>

#include "kamerton/core/error.h"

namespace kamerton::federation {
namespace {

using Matrix = Eigen::MatrixXd;
using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

constexpr char kA[] = ".lora_A.weight";
constexpr char kB[] = ".lora_B.weight";

Matrix matrix(const std::vector<float>& values, int64_t rows, int64_t columns) {
  return Eigen::Map<const RowMajor>(values.data(), rows, columns).cast<double>();
}

void store(const Matrix& values, std::span<float> out) {
  Eigen::Map<RowMajor>(out.data(), values.rows(), values.cols()) = values.cast<float>();
}

/// Q and R of a tall or wide matrix, thin.
struct Factorised {
  Matrix q;
  Matrix r;
};

Factorised thin_qr(const Matrix& m) {
  const Eigen::HouseholderQR<Matrix> qr(m);
  const Eigen::Index k = std::min(m.rows(), m.cols());
  Factorised result;
  result.q = qr.householderQ() * Matrix::Identity(m.rows(), k);
  result.r = qr.matrixQR().topRows(k).triangularView<Eigen::Upper>();
  return result;
}

/// [B_1 ... B_K] and [p_1 A_1; ...; p_K A_K]: their product is the sum.
struct Stacked {
  Matrix b;
  Matrix a;
};

Stacked stack(const FactorPair& pair, const SiteFactors& sites) {
  const auto count = static_cast<int64_t>(sites.shares.size());
  Stacked result{Matrix(pair.out, count * pair.rank), Matrix(count * pair.rank, pair.in)};
  for (int64_t k = 0; k < count; ++k) {
    const auto at = static_cast<size_t>(k);
    result.b.middleCols(k * pair.rank, pair.rank) = matrix(sites.b[at], pair.out, pair.rank);
    result.a.middleRows(k * pair.rank, pair.rank) =
        sites.shares[at] * matrix(sites.a[at], pair.rank, pair.in);
  }
  return result;
}

}  // namespace

std::vector<FactorPair> factor_pairs(const Layout& layout) {
  std::vector<FactorPair> pairs;
  for (const TensorSpec& tensor : layout.tensors()) {
    if (!tensor.name.ends_with(kA)) {
      continue;
    }
    const std::string module = tensor.name.substr(0, tensor.name.size() - std::string(kA).size());
    const TensorSpec* other = nullptr;
    for (const TensorSpec& candidate : layout.tensors()) {
      other = candidate.name == module + kB ? &candidate : other;
    }
    if (other == nullptr || tensor.shape.size() != 2 || other->shape.size() != 2 ||
        other->shape[1] != tensor.shape[0]) {
      throw core::Error(core::ErrorKind::Data,
                        {.where = "federation.low_rank",
                         .what = "an adapter's A has no fitting B",
                         .got = tensor.name});
    }
    pairs.push_back({module,
                     layout.offset(tensor.name),
                     layout.offset(other->name),
                     tensor.shape[0],
                     tensor.shape[1],
                     other->shape[0]});
  }
  return pairs;
}

std::pair<double, double> redistribute(const FactorPair& pair,
                                       const SiteFactors& sites,
                                       std::span<float> a,
                                       std::span<float> b) {
  const Stacked stacked = stack(pair, sites);
  const Factorised left = thin_qr(stacked.b);
  const Factorised right = thin_qr(stacked.a.transpose());
  const Eigen::JacobiSVD<Matrix> svd(left.r * right.r.transpose(),
                                     Eigen::ComputeThinU | Eigen::ComputeThinV);
  const Eigen::VectorXd values = svd.singularValues();
  const Eigen::Index keep = std::min<Eigen::Index>(pair.rank, values.size());
  const Eigen::VectorXd roots = values.head(keep).cwiseSqrt();
  Matrix new_b = Matrix::Zero(pair.out, pair.rank);
  Matrix new_a = Matrix::Zero(pair.rank, pair.in);
  new_b.leftCols(keep) = left.q * svd.matrixU().leftCols(keep) * roots.asDiagonal();
  new_a.topRows(keep) =
      roots.asDiagonal() * svd.matrixV().leftCols(keep).transpose() * right.q.transpose();
  store(new_a, a);
  store(new_b, b);
  const double all = values.squaredNorm();
  return {all - values.head(keep).squaredNorm(), all};
}

std::pair<double, double> average_factors(const FactorPair& pair,
                                          const SiteFactors& sites,
                                          std::span<float> a,
                                          std::span<float> b) {
  const Stacked stacked = stack(pair, sites);
  Matrix mean_a = Matrix::Zero(pair.rank, pair.in);
  Matrix mean_b = Matrix::Zero(pair.out, pair.rank);
  for (size_t k = 0; k < sites.shares.size(); ++k) {
    mean_a += sites.shares[k] * matrix(sites.a[k], pair.rank, pair.in);
    mean_b += sites.shares[k] * matrix(sites.b[k], pair.out, pair.rank);
  }
  store(mean_a, a);
  store(mean_b, b);
  // |B A - b a| as the norm of the cores of [B b] and [A; -a].
  Matrix tall(pair.out, stacked.b.cols() + pair.rank);
  tall << stacked.b, mean_b;
  Matrix wide(stacked.a.rows() + pair.rank, pair.in);
  wide << stacked.a, -mean_a;
  const double gap = (thin_qr(tall).r * thin_qr(wide.transpose()).r.transpose()).squaredNorm();
  const double all =
      (thin_qr(stacked.b).r * thin_qr(stacked.a.transpose()).r.transpose()).squaredNorm();
  return {gap, all};
}

}  // namespace kamerton::federation
