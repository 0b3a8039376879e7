// PTX as text, taken apart into statements.
#pragma once
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ptx_machine {

struct Statement {
  enum Kind { kInstruction, kLabel, kDirective, kOpen, kClose } kind;
  std::string text;                  // without comments and the semicolon
  uint32_t line, file = 0, row = 0;  // in the PTX; in the source, by .loc
};

struct Source {
  std::vector<Statement> statements;
  std::map<uint32_t, std::string> files;  // by the number that .loc gives them
};

Source split(const std::string& ptx);

// "add.rn.f32" as its parts.
std::vector<std::string> parts(const std::string& text, char separator);
std::string trimmed(const std::string& text);

}  // namespace ptx_machine
