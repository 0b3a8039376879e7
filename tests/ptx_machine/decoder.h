// Turns one instruction's text into an Instruction: what the families of opcodes ask for while they decode.
#pragma once
#include <map>
#include <stdexcept>
#include <string>
#include <vector>

#include "program.h"
#include "statement.h"

namespace ptx_machine {

struct Register {
  uint32_t at;
  uint8_t width;  // of a lane: 0 for a predicate, 4 or 8 bytes
};

class Decoder {
 public:
  Decoder(Kernel& kernel, const std::vector<std::map<std::string, Register>>& scopes,
          const std::map<std::string, uint64_t>& symbols, const std::string& opcode, const std::string& operands);

  const std::string opcode;                 // "mad.lo.s32"
  const std::vector<std::string> part;      // "mad", "lo", "s32"
  const std::vector<std::string> operands;  // as text, vectors in braces
  Instruction result;

  bool has(const std::string& name) const;
  bool is(const std::string& name) const { return part[0] == name; }

  // Resolves operand n, or each element of it where it is a vector, and appends it to result.at. Numbers become lanes
  // of `width` bytes.
  void take(size_t n, uint8_t width) { take_text(operands.at(n), width); }
  void take_text(const std::string& text, uint8_t width);
  // An address in brackets: its register or number is appended, its offset becomes result.number.
  void take_address(size_t n);
  // Of operand n, a register.
  uint8_t width(size_t n) const;
  // A number that is known when the program is read.
  int64_t literal(size_t n) const;

  Kernel& kernel() { return kernel_; }
  // Where a constant lies in the frame.
  uint32_t constant(uint64_t value, uint8_t width);

 private:
  uint32_t scratch();
  void take_one(const std::string& text, uint8_t width);
  const Register* find(const std::string& name) const;

  Kernel& kernel_;
  const std::vector<std::map<std::string, Register>>& scopes_;
  const std::map<std::string, uint64_t>& symbols_;
};

// Bytes of a type: "s32" has 4, "pred" none.
uint8_t type_bytes(const std::string& type);
// Bytes that a lane of a register of the type takes.
constexpr uint8_t lane_width(uint8_t bytes) { return bytes == 0 ? 0 : bytes == 8 ? 8 : 4; }

// Each decodes its family and says whether the opcode belongs to it.
bool decode_arithmetic(Decoder& d);
bool decode_conversion(Decoder& d);
bool decode_memory(Decoder& d);
bool decode_collective(Decoder& d);
bool decode_copy(Decoder& d);
bool decode_matrix(Decoder& d);
bool decode_warpgroup(Decoder& d);

}  // namespace ptx_machine
