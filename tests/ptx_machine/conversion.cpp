// cvt between types, and mov that packs words or takes them apart.
#include <algorithm>
#include <cmath>
#include <cstdint>

#include "floats.h"
#include "lanes.h"

namespace ptx_machine {
namespace {

using Table = std::map<std::string, LaneOp>;

const std::string kOfWide = " of 64 bits";  // of which the lower half is converted

// The nearest integer of type T towards 0, the closest one where there is none, 0 for NaN.
template <class T, class F>
T rounded_to_zero(F value) {
  if (std::isnan(value)) return 0;
  if (value <= static_cast<F>(std::numeric_limits<T>::min())) return std::numeric_limits<T>::min();
  if (value >= std::ldexp(F{1}, std::numeric_limits<T>::digits)) return std::numeric_limits<T>::max();
  return static_cast<T>(value);
}

template <class To, class From>
void add_integers(Table& t, const std::string& to, const std::string& from) {
  t["cvt." + to + "." + from] = by_lane<To, From>([](From a) { return static_cast<To>(a); });
}

template <class T>
void add_of_integer(Table& t, const std::string& type) {
  add_integers<uint16_t, T>(t, "u16", type), add_integers<int16_t, T>(t, "s16", type);
  add_integers<uint32_t, T>(t, "u32", type), add_integers<int32_t, T>(t, "s32", type);
  add_integers<uint64_t, T>(t, "u64", type), add_integers<int64_t, T>(t, "s64", type);
  t["cvt.rn.f32." + type] = by_lane<float, T>([](T a) { return static_cast<float>(a); });
  t["cvt.rn.f64." + type] = by_lane<double, T>([](T a) { return static_cast<double>(a); });
  t["cvt.rzi." + type + ".f32"] = by_lane<T, float>([](float a) { return rounded_to_zero<T>(a); });
  t["cvt.rzi." + type + ".f64"] = by_lane<T, double>([](double a) { return rounded_to_zero<T>(a); });
}

Table table() {
  Table t;
  add_of_integer<uint16_t>(t, "u16"), add_of_integer<int16_t>(t, "s16");
  add_of_integer<uint32_t>(t, "u32"), add_of_integer<int32_t>(t, "s32");
  add_of_integer<uint64_t>(t, "u64"), add_of_integer<int64_t>(t, "s64");
  t["cvt.s64.s32" + kOfWide] = by_lane<int64_t, int64_t>([](int64_t a) { return int64_t{static_cast<int32_t>(a)}; });
  t["cvt.f64.f32"] = by_lane<double, float>([](float a) { return static_cast<double>(a); });
  t["cvt.rn.f32.f64"] = by_lane<float, double>([](double a) { return static_cast<float>(a); });
  t["cvt.sat.f32.f32"] = by_lane<float, float>([](float a) { return a > 0 ? std::min(a, 1.0f) : 0.0f; });
  t["cvt.rn.bf16.f32"] = by_lane<uint16_t, float>([](float a) { return from_bfloat16(a); });
  t["cvt.rn.f16.f32"] = by_lane<uint16_t, float>([](float a) { return from_float16(a); });
  t["cvt.f32.bf16"] = by_lane<float, uint16_t>([](uint16_t a) { return to_bfloat16(a); });
  t["cvt.f32.f16"] = by_lane<float, uint16_t>([](uint16_t a) { return to_float16(a); });
  t["cvt.rn.bf16x2.f32"] = by_lane<uint32_t, float, float>(
      [](float high, float low) { return uint32_t{from_bfloat16(high)} << 16 | from_bfloat16(low); });
  t["cvt.rn.f16x2.f32"] = by_lane<uint32_t, float, float>(
      [](float high, float low) { return uint32_t{from_float16(high)} << 16 | from_float16(low); });
  return t;
}

// A word and its elements, the lowest first: {result, elements...} or {results..., word}.
template <class Word, class Element>
struct Packed {
  static constexpr int kCount = sizeof(Word) / sizeof(Element), kBits = 8 * sizeof(Element);

  static void pack(Warp& warp, const Instruction& i, Mask lanes) {
    each_lane(lanes, [&](int lane) {
      Word word = 0;
      for (int n = 0; n < kCount; ++n) word |= static_cast<Word>(warp.get<Element>(i.at[n + 1], lane)) << (n * kBits);
      warp.put<Word>(i.at[0], lane, word);
    });
  }
  static void unpack(Warp& warp, const Instruction& i, Mask lanes) {
    each_lane(lanes, [&](int lane) {
      const Word word = warp.get<Word>(i.at[kCount], lane);
      for (int n = 0; n < kCount; ++n) warp.put<Element>(i.at[n], lane, static_cast<Element>(word >> (n * kBits)));
    });
  }
};

template <class Word, class Element>
void decode_packed(Decoder& d, bool packs) {
  d.take(0, lane_width(packs ? sizeof(Word) : sizeof(Element)));
  d.take(1, lane_width(packs ? sizeof(Element) : sizeof(Word)));
  d.result.run = packs ? &Packed<Word, Element>::pack : &Packed<Word, Element>::unpack;
}

}  // namespace

bool decode_conversion(Decoder& d) {
  static const Table kTable = table();
  if (d.is("cvt")) {
    const bool narrows = type_bytes(d.part.back()) == 4 && d.width(1) == 8;
    return decode_lane_op(kTable, d, narrows ? d.opcode + kOfWide : d.opcode);
  }
  if (!d.is("mov") || d.operands.size() != 2) return false;
  const bool packs = d.operands[1][0] == '{';
  const size_t count = parts(d.operands[packs].substr(1), ',').size();
  if (type_bytes(d.part[1]) == 4 && count == 2)
    decode_packed<uint32_t, uint16_t>(d, packs);
  else if (type_bytes(d.part[1]) == 8 && count == 2)
    decode_packed<uint64_t, uint32_t>(d, packs);
  else
    return false;
  return true;
}

}  // namespace ptx_machine
