// What the machine runs: a kernel's PTX, its operands resolved to places in a warp's frame of registers.
#pragma once
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

namespace ptx_machine {

constexpr int kLanes = 32;

struct Warp;
struct Instruction;
using Mask = uint32_t;  // a bit for each lane
using Handler = void (*)(Warp&, const Instruction&, Mask);

// What an instruction does to the warp's way through the program, besides its handler.
enum class Flow : uint8_t {
  kNext,
  kBranch,
  kExit,
  kTogether,  // for lanes that its mask of members names, or all that have not ended: `.sync`, `.aligned`
  kBlock,     // likewise, and the warp waits for its block
  kCluster,   // likewise, for all blocks of its cluster
};

enum class Space : uint8_t { kGeneric, kGlobal, kShared, kLocal, kParam };

struct Instruction {
  Handler run = nullptr;
  Flow flow = Flow::kNext;
  bool guarded = false, guard_negated = false;
  Space space = Space::kGeneric;
  uint8_t bytes = 0, count = 1;  // of an access: an element's, and how many elements
  bool is_signed = false;        // whether a loaded element is
  bool joins_products = false;   // may touch registers of products that are under way
  uint32_t guard = 0;            // offset of a predicate in the frame
  uint32_t members = 0;          // offset of the mask of lanes that must come together; 0: all that have not ended
  uint32_t target = 0;           // of a branch
  int64_t number = 0;            // offset of an address, or what the handler takes it for
  std::vector<uint32_t> at;      // offsets of the operands in the frame, vectors element by element
  std::vector<uint8_t> widths;   // of a lane there: 0 for a predicate, 4 or 8 bytes
  uint32_t line = 0, file = 0, row = 0;  // in the PTX; in the source
};

struct Parameter {
  uint32_t offset, bytes;
};

struct Kernel {
  std::string name;
  std::vector<Instruction> code;
  std::vector<Parameter> parameters;
  uint32_t parameter_bytes = 0, shared_bytes = 0, dynamic_offset = 0, local_bytes = 0, max_threads = 0;
  uint32_t frame_bytes = 0;
  std::vector<char> constants;                                   // the beginning of every frame
  std::map<std::pair<uint64_t, uint8_t>, uint32_t> constant_at;  // of a value and a lane's width
  std::map<std::string, uint32_t> special;                       // offsets of special registers that it reads
  std::vector<uint32_t> product_registers;                       // of wgmma
  uint32_t version = 0;                                          // compute capability times 10
  const std::map<uint32_t, std::string>* files = nullptr;
};

struct Source;

// A PTX text. Raises std::runtime_error with the line of what it does not know.
class Module {
 public:
  explicit Module(const std::string& ptx);
  ~Module();
  const Kernel& kernel(const std::string& name);  // parsed when it is first asked for

  uint32_t version = 0;  // compute capability times 10

 private:
  std::unique_ptr<Source> source_;
  std::map<std::string, std::pair<size_t, size_t>> bodies_;  // header and end among the statements
  std::map<std::string, std::unique_ptr<Kernel>> kernels_;
  std::vector<std::string> shared_;  // declarations for all kernels
  std::string dynamic_;              // the name of dynamic shared memory
};

}  // namespace ptx_machine
