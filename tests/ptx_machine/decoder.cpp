// Resolves the operands of one instruction.
#include "decoder.h"

#include <algorithm>
#include <cctype>
#include <cstring>

namespace ptx_machine {
namespace {

bool is_number(const std::string& text) {
  return !text.empty() && (std::isdigit(static_cast<unsigned char>(text[0])) || text[0] == '-');
}

// 12, -3, 0x1f, 0f3f800000 and 0d3ff0000000000000, the last two by their bits.
uint64_t number(const std::string& text) {
  if (text.size() > 2 && text[0] == '0' && std::strchr("fFdD", text[1]) != nullptr)
    return std::stoull(text.substr(2), nullptr, 16);
  if (text[0] == '-') return static_cast<uint64_t>(std::stoll(text, nullptr, 0));
  return std::stoull(text, nullptr, 0);
}

}  // namespace

uint8_t type_bytes(const std::string& type) {
  if (type == "pred") return 0;
  if (type == "bf16") return 2;
  if (type == "f16x2" || type == "bf16x2") return 4;
  const std::string digits = type.substr(type.find_first_of("0123456789"));
  return static_cast<uint8_t>(std::stoi(digits) / 8);
}

Decoder::Decoder(Kernel& kernel, const std::vector<std::map<std::string, Register>>& scopes,
                 const std::map<std::string, uint64_t>& symbols, const std::string& opcode, const std::string& operands)
    : opcode(opcode),
      part(parts(opcode, '.')),
      operands(operands.empty() ? std::vector<std::string>{} : parts(operands, ',')),
      kernel_(kernel),
      scopes_(scopes),
      symbols_(symbols) {}

bool Decoder::has(const std::string& name) const { return std::find(part.begin(), part.end(), name) != part.end(); }

const Register* Decoder::find(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
    if (const auto found = scope->find(name); found != scope->end()) return &found->second;
  return nullptr;
}

// Lanes that begin as 0 and are nobody's constant.
uint32_t Decoder::scratch() {
  const uint32_t at = static_cast<uint32_t>(kernel_.constants.size());
  kernel_.constants.resize(at + kLanes * 8);
  return at;
}

uint32_t Decoder::constant(uint64_t value, uint8_t width) {
  const auto [known, is_new] = kernel_.constant_at.try_emplace({value, width}, kernel_.constants.size());
  const uint32_t at = known->second;
  if (!is_new) return at;
  kernel_.constants.resize(at + kLanes * width);
  for (int lane = 0; lane < kLanes; ++lane) std::memcpy(&kernel_.constants[at + lane * width], &value, width);
  return at;
}

void Decoder::take_one(const std::string& text, uint8_t width) {
  if (text == "_") {  // a result that nobody wants
    result.at.push_back(scratch());
    result.widths.push_back(width);
  } else if (const Register* found = find(text)) {
    result.at.push_back(found->at);
    result.widths.push_back(found->width);
  } else if (const auto symbol = symbols_.find(text); symbol != symbols_.end()) {
    result.at.push_back(constant(symbol->second, width));
    result.widths.push_back(width);
  } else if (text[0] == '%') {
    const auto [special, is_new] = kernel_.special.try_emplace(text, 0);
    if (is_new) special->second = scratch();
    result.at.push_back(special->second);
    result.widths.push_back(4);
  } else if (is_number(text)) {
    const uint64_t value = number(text);
    result.at.push_back(width == 0 ? constant(value == 0 ? 0 : ~uint64_t{0}, 4) : constant(value, width));
    result.widths.push_back(width);
  } else {
    throw std::runtime_error("unknown operand " + text);
  }
}

void Decoder::take_text(const std::string& text, uint8_t width) {
  if (text[0] != '{') return take_one(text, width);
  for (const std::string& element : parts(text.substr(1, text.size() - 2), ',')) take_one(element, width);
}

void Decoder::take_address(size_t n) {
  const std::string& text = operands.at(n);
  if (text[0] != '[') throw std::runtime_error("no address: " + text);
  const std::string inside = text.substr(1, text.size() - 2);
  const size_t plus = inside.find('+');
  take_one(trimmed(inside.substr(0, plus)), 8);
  result.number = plus == std::string::npos ? 0 : std::stoll(inside.substr(plus + 1));
}

uint8_t Decoder::width(size_t n) const {
  const Register* found = find(operands.at(n));
  if (found == nullptr) throw std::runtime_error("not a register: " + operands[n]);
  return found->width;
}

int64_t Decoder::literal(size_t n) const {
  if (!is_number(operands.at(n))) throw std::runtime_error("not a number: " + operands[n]);
  return static_cast<int64_t>(number(operands[n]));
}

}  // namespace ptx_machine
