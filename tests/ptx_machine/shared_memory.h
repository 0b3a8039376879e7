// A block's shared memory, and who touched each of its bytes when.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

namespace ptx_machine {

struct Warp;

class SharedMemory {
 public:
  // Generic addresses of shared memory: this, a block's rank in the cluster << 24, an offset.
  static constexpr uint64_t kWindow = uint64_t{1} << 60;

  void reset(uint32_t bytes);
  uint32_t size() const { return static_cast<uint32_t>(bytes_.size()); }

  // Bytes for a lane of `warp`, which may belong to another block of the cluster. Raises Fault where they lie outside,
  // are read before they were written, or touched by others with no barrier between.
  const char* read(const Warp& warp, int lane, uint32_t at, uint32_t bytes);
  char* write(const Warp& warp, int lane, uint32_t at, uint32_t bytes);
  char* change_atomically(const Warp& warp, int lane, uint32_t at, uint32_t bytes);

  // A copy that is under way writes when it lands; until then nobody may touch the bytes.
  void begin_copy(const Warp& warp, int lane, uint32_t at, uint32_t bytes);
  void land_copy(const Warp& warp, int lane, uint32_t at, uint32_t bytes, const char* data);

  // A product of warpgroups reads until it is waited for. Everything must have been shown to products by its writer.
  const char* begin_product(const Warp& warp, uint32_t at, uint32_t bytes);
  void end_product(const Warp& warp, uint32_t at, uint32_t bytes);

 private:
  struct Cell {
    uint64_t written = 0, read = 0;  // when
    uint32_t writer = 0, reader = 0;
    bool has_value = false, in_copy = false;
    uint16_t products = 0;  // that read it now
  };

  void check_range(int lane, uint32_t at, uint32_t bytes) const;
  void check_write(const Warp& warp, int lane, uint32_t at, const Cell& cell, bool atomic) const;

  std::vector<char> bytes_;
  std::vector<Cell> cells_;
};

}  // namespace ptx_machine
