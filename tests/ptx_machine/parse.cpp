// PTX to kernels: variables and registers get their places, instructions their handlers.
#include <algorithm>
#include <regex>

#include "decoder.h"

namespace ptx_machine {
namespace {

// Dynamic shared memory begins at an odd multiple of its alignment: kernels that need more have to see to it.
constexpr uint32_t kDynamicAlignment = 128;

uint32_t round_up(uint32_t value, uint32_t multiple) { return (value + multiple - 1) / multiple * multiple; }

struct Variable {
  std::string name;
  uint32_t alignment = 1, bytes = 0;
};

// ".shared .align 4 .b8 name[128]", also one of the parameters in the header of an entry.
Variable variable(const std::string& declaration) {
  static const std::regex form(R"(\.(\w+)\s+([\w$]+)\s*(\[(\d*)\])?\s*$)"), align(R"(\.align\s+(\d+))");
  std::smatch found;
  if (!std::regex_search(declaration, found, form)) throw std::runtime_error("unknown declaration " + declaration);
  const uint32_t size = type_bytes(found[1]);
  const uint32_t count = !found[3].matched ? 1 : found[4].length() == 0 ? 0 : std::stoi(found[4]);
  Variable result{found[2], size, size * count};
  if (std::regex_search(declaration, found, align)) result.alignment = std::stoul(found[1]);
  return result;
}

bool begins(const std::string& text, const std::string& word) { return text.compare(0, word.size(), word) == 0; }

class KernelParser {
 public:
  KernelParser(Kernel& kernel, std::map<std::string, uint64_t> symbols)
      : kernel_(kernel), symbols_(std::move(symbols)) {
    kernel_.constants.resize(2 * kLanes * 4);  // so that no operand lies at 0
  }

  void header(const std::string& text) {
    static const std::regex threads(R"(\.(max|req)ntid\s+(\d+)\s*(,\s*(\d+))?\s*(,\s*(\d+))?)");
    const size_t open = text.find('('), close = text.rfind(')');
    for (const std::string& declaration : parts(text.substr(open + 1, close - open - 1), ',')) {
      if (declaration.empty()) continue;
      const Variable parameter = variable(declaration);
      const uint32_t at = round_up(kernel_.parameter_bytes, parameter.alignment);
      symbols_[parameter.name] = at;
      kernel_.parameters.push_back({at, parameter.bytes});
      kernel_.parameter_bytes = at + parameter.bytes;
    }
    std::smatch found;
    if (std::regex_search(text, found, threads)) {
      kernel_.max_threads = std::stoul(found[2]);
      for (const int extent : {4, 6})
        if (found[extent].matched) kernel_.max_threads *= std::stoul(found[extent]);
    }
  }

  void declare(const std::string& text) {
    if (begins(text, ".reg")) return declare_registers(text);
    if (begins(text, ".pragma")) return;
    const Variable v = variable(text);
    uint32_t* bytes = begins(text, ".shared")  ? &kernel_.shared_bytes
                      : begins(text, ".local") ? &kernel_.local_bytes
                                               : throw std::runtime_error("unknown directive " + text);
    symbols_[v.name] = *bytes = round_up(*bytes, v.alignment);
    *bytes += v.bytes;
  }

  // Once all static variables have their places.
  void place_dynamic(const std::string& name) {
    kernel_.local_bytes = round_up(kernel_.local_bytes, 16);
    kernel_.dynamic_offset = round_up(kernel_.shared_bytes, kDynamicAlignment);
    if (name.empty()) return;
    if (kernel_.dynamic_offset / kDynamicAlignment % 2 == 0) kernel_.dynamic_offset += kDynamicAlignment;
    symbols_[name] = kernel_.dynamic_offset;
  }

  void open() { scopes_.emplace_back(); }
  void close() { scopes_.pop_back(); }

  void decode(const Statement& statement) {
    const std::string& text = statement.text;
    const size_t begin = text[0] == '@' ? text.find_first_not_of(" \t", text.find_first_of(" \t")) : 0;
    const size_t end = std::min(text.find_first_of(" \t\n", begin), text.size());
    Decoder decoder(kernel_, scopes_, symbols_, text.substr(begin, end - begin), trimmed(text.substr(end)));
    if (decoder.is("bra")) {
      decoder.result.flow = Flow::kBranch;
      branches_.emplace_back(kernel_.code.size(), decoder.operands.at(0));
    } else if (decoder.is("ret") || decoder.is("exit")) {
      decoder.result.flow = Flow::kExit;
    } else if (!decode_arithmetic(decoder) && !decode_conversion(decoder) && !decode_memory(decoder) &&
               !decode_collective(decoder) && !decode_copy(decoder) && !decode_matrix(decoder) &&
               !decode_warpgroup(decoder)) {
      throw std::runtime_error("unknown opcode");
    }
    Instruction& result = decoder.result;
    if (begin != 0) {
      result.guarded = true;
      result.guard_negated = text[1] == '!';
      const size_t name = result.guard_negated ? 2 : 1;
      Decoder guard(kernel_, scopes_, symbols_, "guard", text.substr(name, text.find_first_of(" \t") - name));
      guard.take(0, 0);
      result.guard = guard.result.at[0];
    }
    result.line = statement.line;
    result.file = statement.file;
    result.row = statement.row;
    kernel_.code.push_back(std::move(result));
  }

  void label(const std::string& name) { labels_[name] = static_cast<uint32_t>(kernel_.code.size()); }

  void finish() {
    for (const auto& [at, name] : branches_) {
      if (!labels_.count(name)) throw std::runtime_error("unknown label " + name);
      kernel_.code[at].target = labels_[name];
    }
    // Constants come first in the frame, registers behind them.
    const uint32_t base = round_up(static_cast<uint32_t>(kernel_.constants.size()), 128);
    const auto moved = [&](uint32_t& at) { at = at & kRegister ? (at & ~kRegister) + base : at; };
    for (Instruction& i : kernel_.code) {
      for (uint32_t& at : i.at) moved(at);
      moved(i.guard);
      moved(i.members);
    }
    std::vector<uint32_t>& of_products = kernel_.product_registers;
    for (uint32_t& at : of_products) moved(at);
    std::sort(of_products.begin(), of_products.end());
    of_products.erase(std::unique(of_products.begin(), of_products.end()), of_products.end());
    kernel_.frame_bytes = base + registers_;
  }

 private:
  static constexpr uint32_t kRegister = 1u << 31;

  void declare_registers(const std::string& text) {
    static const std::regex form(R"(\.reg\s+\.(\w+)\s+([^]*))"), many(R"(([%\w$]+)<(\d+)>)");
    std::smatch found;
    if (!std::regex_match(text, found, form)) throw std::runtime_error("unknown directive " + text);
    const uint8_t width = lane_width(type_bytes(found[1]));
    for (const std::string& name : parts(found[2], ',')) {
      std::smatch family;
      if (!std::regex_match(name, family, many)) {
        add_register(name, width);
        continue;
      }
      for (uint32_t i = 0; i < std::stoul(family[2]); ++i) add_register(family[1].str() + std::to_string(i), width);
    }
  }

  void add_register(const std::string& name, uint8_t width) {
    scopes_.back()[name] = {kRegister | registers_, width};
    registers_ += width == 8 ? 256 : 128;
  }

  Kernel& kernel_;
  std::map<std::string, uint64_t> symbols_;
  std::vector<std::map<std::string, Register>> scopes_;
  std::map<std::string, uint32_t> labels_;
  std::vector<std::pair<size_t, std::string>> branches_;
  uint32_t registers_ = 0;
};

// The statements of a kernel's body, and what the module declares for all its kernels.
void parse_kernel(Kernel& kernel, const std::vector<Statement>& statements, size_t header, size_t end,
                  const std::vector<std::string>& of_module, const std::string& dynamic) {
  KernelParser parser(kernel, {});
  parser.header(statements[header].text);
  for (const std::string& declaration : of_module) parser.declare(declaration);
  for (size_t n = header + 1; n < end; ++n)
    if (begins(statements[n].text, ".shared") || begins(statements[n].text, ".local"))
      parser.declare(statements[n].text);
  parser.place_dynamic(dynamic);
  for (size_t n = header + 1; n < end; ++n) {
    const Statement& s = statements[n];
    try {
      if (s.kind == Statement::kOpen) parser.open();
      if (s.kind == Statement::kClose) parser.close();
      if (s.kind == Statement::kLabel) parser.label(s.text);
      if (s.kind == Statement::kInstruction) parser.decode(s);
      if (s.kind == Statement::kDirective && !begins(s.text, ".shared") && !begins(s.text, ".local"))
        parser.declare(s.text);
    } catch (const std::exception& error) {
      throw std::runtime_error("line " + std::to_string(s.line) + " of the PTX: " + s.text + ": " + error.what());
    }
  }
  parser.finish();
}

}  // namespace

Module::Module(const std::string& ptx) : source_(std::make_unique<Source>(split(ptx))) {
  const std::vector<Statement>& statements = source_->statements;
  for (size_t n = 0; n < statements.size(); ++n) {
    const std::string& text = statements[n].text;
    if (begins(text, ".target")) version = std::stoul(text.substr(text.find("sm_") + 3));
    if (begins(text, ".shared")) shared_.push_back(text);
    if (begins(text, ".extern .shared")) dynamic_ = variable(text).name;
    if (begins(text, ".global") || begins(text, ".const") || begins(text, ".visible .global"))
      throw std::runtime_error("line " + std::to_string(statements[n].line) + " of the PTX: unknown: " + text);
    const size_t entry = text.find(".entry ");
    if (statements[n].kind != Statement::kDirective || entry == std::string::npos) continue;
    size_t end = n + 1, depth = 0;
    do {
      depth += statements[end].kind == Statement::kOpen;
      depth -= statements[end].kind == Statement::kClose;
    } while (++end < statements.size() && depth != 0);
    bodies_[trimmed(text.substr(entry + 7, text.find('(') - entry - 7))] = {n, end};
    n = end - 1;
  }
}

Module::~Module() = default;

const Kernel& Module::kernel(const std::string& name) {
  std::unique_ptr<Kernel>& kernel = kernels_[name];
  if (kernel) return *kernel;
  const auto body = bodies_.find(name);
  if (body == bodies_.end()) throw std::runtime_error("the PTX has no kernel " + name);
  auto parsed = std::make_unique<Kernel>();
  parsed->name = name;
  parsed->version = version;
  parsed->files = &source_->files;
  parse_kernel(*parsed, source_->statements, body->second.first, body->second.second, shared_, dynamic_);
  kernel = std::move(parsed);
  return *kernel;
}

}  // namespace ptx_machine
