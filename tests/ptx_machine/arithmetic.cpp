// Arithmetic, logic, comparison and selection, lane by lane. Source of what each opcode does: PTX ISA.
#include <algorithm>
#include <bit>
#include <cfenv>
#include <cmath>
#include <cstdint>

#include "floats.h"
#include "lanes.h"

namespace ptx_machine {
namespace {

using Table = std::map<std::string, LaneOp>;
using u16 = uint16_t;
using u32 = uint32_t;
using u64 = uint64_t;
using s16 = int16_t;
using s32 = int32_t;
using s64 = int64_t;
using f32 = float;
using f64 = double;

template <class T>
void add_integer(Table& t, const std::string& type) {
  using U = std::make_unsigned_t<T>;
  t["add." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(U(a) + U(b)); });
  t["sub." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(U(a) - U(b)); });
  t["mul.lo." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(u64(a) * u64(b)); });
  t["mad.lo." + type] = by_lane<T, T, T, T>([](T a, T b, T c) { return static_cast<T>(u64(a) * u64(b) + u64(c)); });
  t["min." + type] = by_lane<T, T, T>([](T a, T b) { return std::min(a, b); });
  t["max." + type] = by_lane<T, T, T>([](T a, T b) { return std::max(a, b); });
  // What the GPU gives for a division by 0 is not promised.
  t["div." + type] = by_lane<T, T, T>([](T a, T b) { return b == 0 ? static_cast<T>(-1) : static_cast<T>(a / b); });
  t["rem." + type] = by_lane<T, T, T>([](T a, T b) { return b == 0 ? static_cast<T>(-1) : static_cast<T>(a % b); });
  if constexpr (std::is_signed_v<T>) {
    t["neg." + type] = by_lane<T, T>([](T a) { return static_cast<T>(U(0) - U(a)); });
    t["abs." + type] = by_lane<T, T>([](T a) { return a < 0 ? static_cast<T>(U(0) - U(a)) : a; });
  }
  // Shifts by more than all bits leave none, or the sign.
  t["shr." + type] = by_lane<T, T, u32>([](T a, u32 n) {
    constexpr u32 kBits = 8 * sizeof(T);
    return static_cast<T>(n < kBits ? a >> n : a < 0 ? -1 : 0);
  });
}

template <class T>
void add_wide(Table& t, const std::string& type) {
  using Wide = std::conditional_t<std::is_signed_v<T>, s64, u64>;
  t["mul.wide." + type] = by_lane<Wide, T, T>([](T a, T b) { return static_cast<Wide>(a) * static_cast<Wide>(b); });
  t["mad.wide." + type] =
      by_lane<Wide, T, T, Wide>([](T a, T b, Wide c) { return static_cast<Wide>(u64(Wide(a) * Wide(b)) + u64(c)); });
  t["mul.hi." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>((Wide(a) * Wide(b)) >> 32); });
}

template <class T>
void add_bits(Table& t, const std::string& type) {
  t["and." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(a & b); });
  t["or." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(a | b); });
  t["xor." + type] = by_lane<T, T, T>([](T a, T b) { return static_cast<T>(a ^ b); });
  t["not." + type] = by_lane<T, T>([](T a) { return static_cast<T>(~a); });
  t["shl." + type] = by_lane<T, T, u32>([](T a, u32 n) { return static_cast<T>(n < 8 * sizeof(T) ? a << n : 0); });
  t["shr." + type] = by_lane<T, T, u32>([](T a, u32 n) { return static_cast<T>(n < 8 * sizeof(T) ? a >> n : 0); });
}

template <class T>
void add_wide_bits(Table& t, const std::string& type) {
  t["popc." + type] = by_lane<u32, T>([](T a) { return static_cast<u32>(std::popcount(a)); });
  t["clz." + type] = by_lane<u32, T>([](T a) { return static_cast<u32>(std::countl_zero(a)); });
  t["brev." + type] = by_lane<T, T>([](T a) {
    T reversed = 0;
    for (size_t i = 0; i < 8 * sizeof(T); ++i) reversed |= (a >> i & 1) << (8 * sizeof(T) - 1 - i);
    return reversed;
  });
  t["bfi." + type] = by_lane<T, T, T, u32, u32>([](T a, T b, u32 start, u32 length) {
    start &= 0xff, length &= 0xff;
    for (u32 i = 0; i < length && start + i < 8 * sizeof(T); ++i)
      b = (b & ~(T{1} << (start + i))) | ((a >> i & 1) << (start + i));
    return b;
  });
}

template <class T>
T smaller(T a, T b) {
  return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? a : b) : a < b ? a : b;
}
template <class T>
T larger(T a, T b) {
  return std::isnan(a) ? b : std::isnan(b) ? a : a == b ? (std::signbit(a) ? b : a) : a > b ? a : b;
}

template <class T>
void add_float(Table& t, const std::string& type) {
  for (const std::string rounding : {"", "rn."}) {
    t["add." + rounding + type] = by_lane<T, T, T>([](T a, T b) { return a + b; });
    t["sub." + rounding + type] = by_lane<T, T, T>([](T a, T b) { return a - b; });
    t["mul." + rounding + type] = by_lane<T, T, T>([](T a, T b) { return a * b; });
  }
  t["fma.rn." + type] = by_lane<T, T, T, T>([](T a, T b, T c) { return std::fma(a, b, c); });
  t["div.rn." + type] = by_lane<T, T, T>([](T a, T b) { return a / b; });
  t["rcp.rn." + type] = by_lane<T, T>([](T a) { return 1 / a; });
  t["sqrt.rn." + type] = by_lane<T, T>([](T a) { return std::sqrt(a); });
  t["neg." + type] = by_lane<T, T>([](T a) { return -a; });
  t["abs." + type] = by_lane<T, T>([](T a) { return std::fabs(a); });
  t["min." + type] = by_lane<T, T, T>([](T a, T b) { return smaller(a, b); });
  t["max." + type] = by_lane<T, T, T>([](T a, T b) { return larger(a, b); });
}

float fma_down(float a, float b, float c) {
  std::fesetround(FE_DOWNWARD);
  volatile float x = a, y = b, z = c;
  volatile float sum = std::fma(x, y, z);
  std::fesetround(FE_TONEAREST);
  return sum;
}

void add_special(Table& t) {
  t["fma.rm.f32"] = by_lane<f32, f32, f32, f32>([](f32 a, f32 b, f32 c) { return fma_down(a, b, c); });
  const LaneOp quiet_max = by_lane<f32, f32, f32>(
      [](f32 a, f32 b) { return std::isnan(a) || std::isnan(b) ? std::bit_cast<float>(0x7fffffffu) : larger(a, b); });
  t["max.NaN.f32"] = quiet_max;
  t["ex2.approx.f32"] = by_lane<f32, f32>([](f32 a) { return std::exp2(a); });
  t["ex2.approx.ftz.f32"] = by_lane<f32, f32>([](f32 a) { return flushed(std::exp2(flushed(a))); });
  t["lg2.approx.f32"] = by_lane<f32, f32>([](f32 a) { return std::log2(a); });
  t["rsqrt.approx.f32"] = by_lane<f32, f32>([](f32 a) { return 1 / std::sqrt(a); });
  t["rcp.approx.f32"] = by_lane<f32, f32>([](f32 a) { return 1 / a; });
  t["div.full.f32"] = by_lane<f32, f32, f32>([](f32 a, f32 b) { return a / b; });
  t["rcp.approx.ftz.f64"] = by_lane<f64, f64>(  // the upper half of a double's bits
      [](f64 a) { return std::bit_cast<f64>(std::bit_cast<u64>(1 / a) & 0xffffffff00000000u); });
  t["bfind.shiftamt.u32"] = by_lane<u32, u32>([](u32 a) { return a == 0 ? ~u32{0} : u32(std::countl_zero(a)); });
  t["prmt.b32"] = by_lane<u32, u32, u32, u32>([](u32 a, u32 b, u32 choice) {
    const u64 from = u64{b} << 32 | a;
    u32 to = 0;
    for (int i = 0; i < 4; ++i) {
      const u32 nibble = choice >> (4 * i) & 15, byte = from >> (8 * (nibble & 7)) & 255;
      to |= (nibble & 8 ? (byte & 128 ? 255 : 0) : byte) << (8 * i);
    }
    return to;
  });
  t["mul.f16x2"] = by_lane<u32, u32, u32>([](u32 a, u32 b) {
    return from_float16(to_float16(u16(a)) * to_float16(u16(b))) |
           u32{from_float16(to_float16(a >> 16) * to_float16(b >> 16))} << 16;
  });
  t["mul.bf16x2"] = by_lane<u32, u32, u32>([](u32 a, u32 b) {
    return from_bfloat16(to_bfloat16(u16(a)) * to_bfloat16(u16(b))) |
           u32{from_bfloat16(to_bfloat16(a >> 16) * to_bfloat16(b >> 16))} << 16;
  });
}

template <class T, class F>
LaneOp compare(F) {
  return by_lane<Predicate, T, T>([](T a, T b) { return Predicate{F{}(a, b)}; });
}

template <class T>
void add_comparisons(Table& t, const std::string& type) {
  t["setp.eq." + type] = compare<T>([](T a, T b) { return a == b; });
  t["setp.lt." + type] = compare<T>([](T a, T b) { return a < b; });
  t["setp.le." + type] = compare<T>([](T a, T b) { return a <= b; });
  t["setp.gt." + type] = compare<T>([](T a, T b) { return a > b; });
  t["setp.ge." + type] = compare<T>([](T a, T b) { return a >= b; });
  if constexpr (std::is_integral_v<T>) {
    t["setp.ne." + type] = compare<T>([](T a, T b) { return a != b; });
  } else {
    t["setp.ne." + type] = compare<T>([](T a, T b) { return a < b || a > b; });
    t["setp.num." + type] = compare<T>([](T a, T b) { return a == a && b == b; });
    t["setp.nan." + type] = compare<T>([](T a, T b) { return a != a || b != b; });
    t["setp.equ." + type] = compare<T>([](T a, T b) { return !(a < b || a > b); });
    t["setp.neu." + type] = compare<T>([](T a, T b) { return !(a == b); });
    t["setp.ltu." + type] = compare<T>([](T a, T b) { return !(a >= b); });
    t["setp.leu." + type] = compare<T>([](T a, T b) { return !(a > b); });
    t["setp.gtu." + type] = compare<T>([](T a, T b) { return !(a <= b); });
    t["setp.geu." + type] = compare<T>([](T a, T b) { return !(a < b); });
  }
}

template <class T>
void add_moves(Table& t, const std::string& type) {
  t["mov." + type] = by_lane<T, T>([](T a) { return a; });
  t["selp." + type] = by_lane<T, T, T, Predicate>([](T a, T b, Predicate p) { return p.value ? a : b; });
}

void add_predicates(Table& t) {
  using P = Predicate;
  t["and.pred"] = by_lane<P, P, P>([](P a, P b) { return P{a.value && b.value}; });
  t["or.pred"] = by_lane<P, P, P>([](P a, P b) { return P{a.value || b.value}; });
  t["xor.pred"] = by_lane<P, P, P>([](P a, P b) { return P{a.value != b.value}; });
  t["not.pred"] = by_lane<P, P>([](P a) { return P{!a.value}; });
  t["mov.pred"] = by_lane<P, P>([](P a) { return a; });
}

Table table() {
  Table t;
  add_integer<u16>(t, "u16"), add_integer<u32>(t, "u32"), add_integer<u64>(t, "u64");
  add_integer<s16>(t, "s16"), add_integer<s32>(t, "s32"), add_integer<s64>(t, "s64");
  add_wide<u32>(t, "u32"), add_wide<s32>(t, "s32");
  add_bits<u16>(t, "b16"), add_bits<u32>(t, "b32"), add_bits<u64>(t, "b64");
  add_wide_bits<u32>(t, "b32"), add_wide_bits<u64>(t, "b64");
  add_float<f32>(t, "f32"), add_float<f64>(t, "f64");
  add_special(t);
  for (const std::string kind : {"b", "u"}) {
    add_comparisons<u16>(t, kind + "16"), add_comparisons<u32>(t, kind + "32"), add_comparisons<u64>(t, kind + "64");
  }
  add_comparisons<s16>(t, "s16"), add_comparisons<s32>(t, "s32"), add_comparisons<s64>(t, "s64");
  add_comparisons<f32>(t, "f32"), add_comparisons<f64>(t, "f64");
  for (const std::string kind : {"b", "u", "s"})
    add_moves<u16>(t, kind + "16"), add_moves<u32>(t, kind + "32"), add_moves<u64>(t, kind + "64");
  add_moves<u32>(t, "f32"), add_moves<u64>(t, "f64");
  add_predicates(t);
  return t;
}

}  // namespace

bool decode_arithmetic(Decoder& d) {
  static const Table kTable = table();
  if (d.is("mov") && (d.operands.at(0)[0] == '{' || d.operands.at(1)[0] == '{')) return false;
  return decode_lane_op(kTable, d, d.opcode);
}

}  // namespace ptx_machine
