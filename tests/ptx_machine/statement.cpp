// Splits PTX into statements: the little grammar that nvcc and Triton write.
#include "statement.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>

namespace ptx_machine {

std::string trimmed(const std::string& text) {
  const size_t first = text.find_first_not_of(" \t\r\n"), last = text.find_last_not_of(" \t\r\n");
  return first == std::string::npos ? "" : text.substr(first, last - first + 1);
}

std::vector<std::string> parts(const std::string& text, char separator) {
  std::vector<std::string> found(1);
  int depth = 0;  // of braces and brackets, whose separators belong to an operand
  for (const char c : text) {
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c == separator && depth == 0)
      found.emplace_back();
    else
      found.back() += c;
  }
  for (std::string& part : found) part = trimmed(part);
  return found;
}

namespace {

bool is_name(char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%'; }

struct Splitter {
  const std::string& ptx;
  Source source;
  size_t at = 0;
  uint32_t line = 1, file = 0, row = 0;

  void skip_blank() {
    while (at < ptx.size()) {
      if (ptx.compare(at, 2, "//") == 0)
        at = std::min(ptx.find('\n', at), ptx.size());
      else if (std::isspace(static_cast<unsigned char>(ptx[at])))
        line += ptx[at++] == '\n';
      else
        return;
    }
  }

  std::string take_line() {
    const size_t end = std::min(ptx.find('\n', at), ptx.size());
    std::string text = ptx.substr(at, end - at);
    at = end;
    return text;
  }

  void add(Statement::Kind kind, const std::string& text) {
    source.statements.push_back({kind, text, line, file, row});
  }

  // Up to one of `ends`, which stays.
  std::string take_until(const char* ends) {
    std::string text;
    int depth = 0;
    for (; at < ptx.size(); ++at) {
      if (ptx.compare(at, 2, "//") == 0) at = ptx.find('\n', at);
      const char c = ptx[at];
      if (depth == 0 && std::string(ends).find(c) != std::string::npos) break;
      depth += (c == '{') - (c == '}');
      line += c == '\n';
      text += c;
    }
    return trimmed(text);
  }

  void note_place(const std::string& text) {
    char* rest;
    file = std::strtoul(text.c_str() + 4, &rest, 10);
    row = std::strtoul(rest, nullptr, 10);
  }

  void note_file(const std::string& text) {
    char* rest;
    const uint32_t number = std::strtoul(text.c_str() + 5, &rest, 10);
    const std::string path = rest;
    const size_t quote = path.find('"'), end = path.rfind('"');
    if (quote != std::string::npos) source.files[number] = path.substr(quote + 1, end - quote - 1);
  }

  void skip_section() {
    const size_t end = std::min(ptx.find('}', at), ptx.size() - 1);
    line += std::count(ptx.begin() + at, ptx.begin() + end, '\n');
    at = end + 1;
  }

  void take_statement() {
    const auto begins = [&](const char* word) {
      return ptx.compare(at, std::char_traits<char>::length(word), word) == 0;
    };
    if (begins(".loc") && !begins(".local")) return note_place(take_line());
    if (begins(".file")) return note_file(take_line());
    if (begins(".section")) return skip_section();
    if (begins(".version") || begins(".target") || begins(".address_size") || begins(".maxntid") ||
        begins(".reqntid") || begins(".minnctapersm"))
      return add(Statement::kDirective, trimmed(take_line()));
    if (ptx[at] == '{') return ++at, add(Statement::kOpen, "");
    if (ptx[at] == '}') return ++at, add(Statement::kClose, "");
    if (begins(".visible .entry") || begins(".entry")) {
      add(Statement::kDirective, take_until("{"));
      source.statements.back().text += " ";
      return;
    }
    size_t end = at;
    while (end < ptx.size() && is_name(ptx[end])) ++end;
    if (end < ptx.size() && ptx[end] == ':' && end > at) {
      add(Statement::kLabel, ptx.substr(at, end - at));
      at = end + 1;
      return;
    }
    const uint32_t first_line = line;
    const bool directive = ptx[at] == '.';
    const std::string text = take_until(";");
    ++at;
    add(directive ? Statement::kDirective : Statement::kInstruction, text);
    source.statements.back().line = first_line;
  }
};

}  // namespace

Source split(const std::string& ptx) {
  Splitter splitter{ptx, {}};
  for (splitter.skip_blank(); splitter.at < ptx.size(); splitter.skip_blank()) splitter.take_statement();
  return std::move(splitter.source);
}

}  // namespace ptx_machine
