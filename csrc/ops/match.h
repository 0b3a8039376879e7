// Declarative checks: shapes with named sizes, element types, one device. Each failure is one sentence.
#pragma once
#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "common/weight.h"
#include "ops/torch.h"

namespace eagle::ops {

enum class Kind { kFloating, kFloat32, kFp8, kInt32, kInt64 };

// Match m("verify_tree");
// m.tensor("draft_tokens", draft_tokens, "B N", Kind::kInt32);
// m.tensor("parent", parent, "B N", Kind::kInt32);      // must agree with the B and N above
// const int64_t batch = m["B"];
class Match {
 public:
  explicit Match(const char* op) : op_(op) {}

  // Binds the names in `shape` (words; a number is a fixed size, a leading ... any dimensions) and checks `t` against
  // what is bound. By default the tensor must be contiguous; pass strided = true where the kernel takes strides.
  void tensor(const char* name, const Tensor& t, const char* shape, Kind kind, bool strided = false) {
    check_shape(name, t, shape);
    check_kind(name, t, kind);
    EAGLE_CHECK(strided || t.is_contiguous(), op_, ": ", name, " must be contiguous; call .contiguous() on it");
    check_device(name, t);
  }

  // Floating tensors of one call share their element type.
  void same_dtype(const char* name, const Tensor& t, const char* other, const Tensor& like) {
    EAGLE_CHECK(t.scalar_type() == like.scalar_type(), op_, ": ", name, " must have the dtype of ", other);
  }

  // A weight with the dtype of `like`, or fp8 with a scale per output.
  Weight weight(const char* name, const Tensor& t, const char* shape, const char* scale_name,
                const std::optional<Tensor>& scale, const char* scale_shape, const char* other, const Tensor& like) {
    const bool is_fp8 = t.scalar_type() == ScalarType::Float8_e4m3fn;
    EAGLE_CHECK(!is_fp8 || scale, op_, ": ", name, " is float8_e4m3fn and ", scale_name,
                " is missing; eagle_kernels.quantize_fp8 makes both");
    EAGLE_CHECK(is_fp8 || !scale, op_, ": ", scale_name, " belongs to a float8_e4m3fn ", name, "; leave it out");
    tensor(name, t, shape, is_fp8 ? Kind::kFp8 : Kind::kFloating);
    if (!is_fp8) {
      same_dtype(name, t, other, like);
      return {t.const_data_ptr(), nullptr};
    }
    tensor(scale_name, *scale, scale_shape, Kind::kFloat32);
    return {t.const_data_ptr(), scale->const_data_ptr<float>()};
  }

  // A tensor that may be left out, with the dtype of `like`: its elements, or null.
  const void* optional(const char* name, const std::optional<Tensor>& t, const char* shape, const char* other,
                       const Tensor& like) {
    if (!t) return nullptr;
    tensor(name, *t, shape, Kind::kFloating);
    same_dtype(name, *t, other, like);
    return t->const_data_ptr();
  }

  void same_shape(const char* name, const Tensor& t, const char* other, const Tensor& like) {
    bool same = t.dim() == like.dim();
    for (int64_t d = 0; same && d < t.dim(); ++d) same = t.size(d) == like.size(d);
    EAGLE_CHECK(same, op_, ": ", name, " must have the shape of ", other, ", ", actual(like), ", got ", actual(t));
  }

  int64_t operator[](const char* symbol) const { return *find(symbol); }

 private:
  struct Symbol {
    std::string_view name;  // shapes are literals
    int64_t size;
  };

  // Words between single spaces.
  class Words {
   public:
    explicit Words(std::string_view text) : rest_(text) {}
    bool next(std::string_view& word) {
      if (rest_.empty()) return false;
      word = rest_.substr(0, rest_.find(' '));
      rest_.remove_prefix(std::min(rest_.size(), word.size() + 1));
      return true;
    }
    int64_t count_rest() const { return rest_.empty() ? 0 : 1 + std::count(rest_.begin(), rest_.end(), ' '); }

   private:
    std::string_view rest_;
  };

  void check_shape(const char* name, const Tensor& t, const char* shape) {
    Words words(shape);
    std::string_view word;
    int64_t dim = 0;
    bool fits = true;
    while (fits && words.next(word)) {
      if (word == "...") {
        dim = t.dim() - words.count_rest();
        fits = dim >= 0;
      } else {
        fits = dim < t.dim() && bind(word, t.size(dim));
        ++dim;
      }
    }
    EAGLE_CHECK(fits && dim == t.dim(), op_, ": ", name, " must be ", expected(shape), ", got ", actual(t));
  }

  // Whether `size` is the size that the word stands for; a new symbol takes it.
  bool bind(std::string_view word, int64_t size) {
    if (std::isdigit(word[0])) return size == std::atoll(word.data());
    if (const int64_t* bound = find(word)) return size == *bound;
    symbols_.push_back({word, size});
    return true;
  }

  const int64_t* find(std::string_view symbol) const {
    for (const Symbol& s : symbols_)
      if (s.name == symbol) return &s.size;
    return nullptr;
  }

  void check_kind(const char* name, const Tensor& t, Kind kind) {
    const ScalarType type = t.scalar_type();
    const bool half = type == ScalarType::Half || type == ScalarType::BFloat16;
    switch (kind) {
      case Kind::kFloating:
        EAGLE_CHECK(half || type == ScalarType::Float, op_, ": ", name, " must be float32, bfloat16 or float16");
        break;
      case Kind::kFloat32:
        EAGLE_CHECK(type == ScalarType::Float, op_, ": ", name, " must be float32");
        break;
      case Kind::kFp8:
        EAGLE_CHECK(type == ScalarType::Float8_e4m3fn, op_, ": ", name, " must be float8_e4m3fn");
        break;
      case Kind::kInt32:
        EAGLE_CHECK(type == ScalarType::Int, op_, ": ", name, " must be int32");
        break;
      case Kind::kInt64:
        EAGLE_CHECK(type == ScalarType::Long, op_, ": ", name, " must be int64");
        break;
    }
  }

  void check_device(const char* name, const Tensor& t) {
    if (device_type_ < 0) {
      device_type_ = static_cast<int>(t.is_cuda());
      device_index_ = t.get_device_index();
    }
    EAGLE_CHECK(device_type_ == static_cast<int>(t.is_cuda()) && device_index_ == t.get_device_index(), op_, ": ", name,
                " must be on the same device as the other tensors");
  }

  // "[B, N] with B = 2, N = 8"
  std::string expected(const char* shape) const {
    Words words(shape);
    std::string_view word;
    std::string dims, bound;
    while (words.next(word)) {
      dims += (dims.empty() ? "" : ", ") + std::string(word);
      if (const int64_t* size = find(word))
        bound += (bound.empty() ? " with " : ", ") + std::string(word) + " = " + std::to_string(*size);
    }
    return "[" + dims + "]" + bound;
  }

  static std::string actual(const Tensor& t) {
    std::string dims;
    for (int64_t d = 0; d < t.dim(); ++d) dims += (d ? ", " : "") + std::to_string(t.size(d));
    return "[" + dims + "]";
  }

  const char* op_;
  std::vector<Symbol> symbols_;
  int device_type_ = -1;
  int device_index_ = 0;
};

}  // namespace eagle::ops
