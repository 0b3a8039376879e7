// Declarative checks: shapes with named sizes, element types, one device. Each failure is one sentence.
#pragma once
#include <map>
#include <sstream>
#include <string>

#include "ops/torch.h"

namespace eagle::ops {

enum class Kind { kFloating, kFloat32, kInt32, kInt64 };

// Match m("verify_tree");
// m.tensor("draft_tokens", draft_tokens, "B N", Kind::kInt32);
// m.tensor("parent", parent, "B N", Kind::kInt32);      // must agree with the B and N above
// const int64_t batch = m["B"];
class Match {
 public:
  explicit Match(const char* op) : op_(op) {}

  // Binds the names in `shape` (words; a number is a fixed size) and checks `t` against what is bound.
  // By default the tensor must be contiguous; pass strided = true where the kernel takes strides.
  void tensor(const char* name, const Tensor& t, const char* shape, Kind kind, bool strided = false) {
    check_shape(name, t, shape);
    check_kind(name, t, kind);
    STD_TORCH_CHECK(strided || t.is_contiguous(), op_, ": ", name, " must be contiguous; call .contiguous() on it");
    check_device(name, t);
  }

  // Floating tensors of one call share their element type.
  void same_dtype(const char* name, const Tensor& t, const char* other, const Tensor& like) {
    STD_TORCH_CHECK(t.scalar_type() == like.scalar_type(), op_, ": ", name, " must have the dtype of ", other);
  }

  int64_t operator[](const char* symbol) const { return sizes_.at(symbol); }

 private:
  void check_shape(const char* name, const Tensor& t, const char* shape) {
    std::istringstream words(shape);
    std::string word;
    int64_t dim = 0;
    bool fits = true;
    while (words >> word) {
      if (dim >= t.dim()) {
        fits = false;
        break;
      }
      const int64_t size = t.size(dim++);
      if (std::isdigit(word[0])) {
        fits = fits && size == std::stoll(word);
      } else {
        fits = fits && sizes_.emplace(word, size).first->second == size;
      }
    }
    STD_TORCH_CHECK(fits && dim == t.dim(), op_, ": ", name, " must be ", expected(shape), ", got ", actual(t));
  }

  void check_kind(const char* name, const Tensor& t, Kind kind) {
    const ScalarType type = t.scalar_type();
    const bool half = type == ScalarType::Half || type == ScalarType::BFloat16;
    switch (kind) {
      case Kind::kFloating:
        STD_TORCH_CHECK(half || type == ScalarType::Float, op_, ": ", name, " must be float32, bfloat16 or float16");
        break;
      case Kind::kFloat32:
        STD_TORCH_CHECK(type == ScalarType::Float, op_, ": ", name, " must be float32");
        break;
      case Kind::kInt32:
        STD_TORCH_CHECK(type == ScalarType::Int, op_, ": ", name, " must be int32");
        break;
      case Kind::kInt64:
        STD_TORCH_CHECK(type == ScalarType::Long, op_, ": ", name, " must be int64");
        break;
    }
  }

  void check_device(const char* name, const Tensor& t) {
    if (device_type_ < 0) {
      device_type_ = static_cast<int>(t.is_cuda());
      device_index_ = t.get_device_index();
    }
    STD_TORCH_CHECK(device_type_ == static_cast<int>(t.is_cuda()) && device_index_ == t.get_device_index(), op_, ": ",
                    name, " must be on the same device as the other tensors");
  }

  // "[B, N] with B = 2, N = 8"
  std::string expected(const char* shape) const {
    std::istringstream words(shape);
    std::string word, dims, bound;
    while (words >> word) {
      dims += (dims.empty() ? "" : ", ") + word;
      const auto found = sizes_.find(word);
      if (found != sizes_.end())
        bound += (bound.empty() ? " with " : ", ") + word + " = " + std::to_string(found->second);
    }
    return "[" + dims + "]" + bound;
  }

  static std::string actual(const Tensor& t) {
    std::string dims;
    for (int64_t d = 0; d < t.dim(); ++d) dims += (d ? ", " : "") + std::to_string(t.size(d));
    return "[" + dims + "]";
  }

  const char* op_;
  std::map<std::string, int64_t> sizes_;
  int device_type_ = -1;
  int device_index_ = 0;
};

}  // namespace eagle::ops
