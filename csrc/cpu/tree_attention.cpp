// tree_attention on the CPU: split over blocks of 128 keys, all query heads of a kv head together.
//
// Blocks are counted along each row's own sequence (committed prefix, then its ancestors), every block's softmax is
// computed by itself, and blocks are merged in order. So a row's bits are the same before and after its ancestors
// moved into the prefix, and for any number of rows, requests and threads. The prefix part of a block is shared by all
// rows and computed in tiles; ancestors are picked per row. A window takes the keys before it out of a row's blocks,
// and whole blocks out of a request's.
#include "common/tree_attention.h"

#include <algorithm>
#include <atomic>
#include <bit>
#include <memory>
#include <vector>

#include "common/tree.h"
#include "cpu/attention_tile.h"
#include "cpu/softmax.h"

namespace eagle::cpu {
namespace {

constexpr int64_t kBlock = 128;          // keys
constexpr int64_t kPad = 32;             // dimensions: whole tiles on every instruction set
constexpr int64_t kWave = 16;            // blocks whose partial results are held at once
constexpr int64_t kGrainWork = 1 << 18;  // multiply-adds worth a thread
constexpr float kLog2E = 1.44269504f;    // scores are in units of log 2: 2^x is cheaper than e^x
static_assert(kMaxNodes <= kBlock, "tree keys are staged as one block");

int64_t round_up(int64_t a, int64_t b) { return (a + b - 1) / b * b; }

struct Aligned {
  void operator()(float* p) const { ::operator delete[](p, std::align_val_t{64}); }
};
using Buffer = std::unique_ptr<float[], Aligned>;
Buffer allocate(int64_t floats) { return Buffer(new (std::align_val_t{64}) float[floats]); }

int64_t context_of(const TreeAttentionParams& p, int64_t b) {
  return std::clamp<int64_t>(p.context_len[b], 0, p.length);
}

// The rows behind each request's context that the cache has, as words of an ancestor mask.
std::vector<uint64_t> tree_rows(const TreeAttentionParams& p) {
  std::vector<uint64_t> words(p.batch * kMaxMaskWords);
  for (int64_t b = 0; b < p.batch; ++b)
    for (int64_t w = 0; w < p.mask_words; ++w) {
      const int64_t first = context_of(p, b) + w * kMaskWordBits;
      uint64_t& word = words[b * kMaxMaskWords + w];
      word = low_bits(p.length - first);
      for (int64_t i = 0; p.pages.ids && i < kMaskWordBits; ++i)
        if (!locate(p.pages, b, first + i).there) word &= ~(uint64_t{1} << i);
    }
  return words;
}

// The problem as the blocks see it. A row is (query row, head within the group) of one kv head.
struct Problem {
  const TreeAttentionParams& p;
  std::vector<uint64_t> inside = tree_rows(p);
  int64_t group = p.num_heads / p.num_kv_heads;
  int64_t rows = p.num_rows * group;
  int64_t dims = round_up(p.head_dim, kPad);
  int64_t partial_stride = dims + kLanes;  // weighted values, then maximum and sum

  int64_t padded_floats() const { return dims == p.head_dim ? 0 : 2 * kBlock * dims; }
  int64_t context(int64_t b) const { return context_of(p, b); }

  // The first key that any row of a request may see, and its block.
  int64_t first_key(int64_t b) const { return std::max<int64_t>(0, context(b) - p.window); }
  int64_t first_block(int64_t b) const { return first_key(b) / kBlock; }

  // Word w of a row's ancestors that lie inside the cache.
  uint64_t ancestors(int64_t b, int64_t row, int64_t w) const {
    if (w >= p.mask_words) return 0;
    return static_cast<uint64_t>(p.ancestor_mask[(b * p.num_rows + row) * p.mask_words + w]) &
           inside[b * kMaxMaskWords + w];
  }

  int64_t num_blocks(int64_t b, int64_t row) const {
    const int64_t keys = context(b) + std::popcount(ancestors(b, row, 0)) + std::popcount(ancestors(b, row, 1));
    return round_up(keys, kBlock) / kBlock;
  }

  // The first key of a row's window: ancestors count whether or not the cache has them.
  int64_t window_start(int64_t b, int64_t row) const {
    int64_t start = context(b) - p.window;
    for (int64_t w = 0; w < p.mask_words; ++w)
      start += std::popcount(static_cast<uint64_t>(p.ancestor_mask[(b * p.num_rows + row) * p.mask_words + w]));
    return start;
  }
};

// A thread's buffers.
struct Scratch {
  explicit Scratch(const Problem& s)
      : query(allocate(s.rows * s.dims)),
        padded{allocate(s.padded_floats()), allocate(s.padded_floats())},
        keys(allocate(kPad * s.dims)),
        scores(allocate(s.rows * kBlock)),
        tree_scores(allocate(s.rows * kBlock)) {}
  Buffer query;        // [rows][dims], as the kernel wants it
  Buffer padded[2];    // keys and values [prefix block, tree][dims] whose width is not that of whole tiles
  Buffer keys;         // [dims][tile columns]
  Buffer scores;       // [rows][block]
  Buffer tree_scores;  // [rows][tree]
};

struct Block {
  const Problem& problem;
  int64_t b, kv_head, index;
  float* partial;  // [rows][partial_stride]
  int64_t prefix = std::clamp<int64_t>(problem.context(b) - index * kBlock, 0, kBlock);
};

template <class T>
EAGLE_INLINE const T* row_of(HeadsView view, CacheRow at, int64_t head) {
  return static_cast<const T*>(view.data) + at.page * view.batch_stride + head * view.head_stride +
         at.row * view.row_stride;
}

template <class Step>
EAGLE_INLINE void load_query(const Block& block, float* to) {
  using T = typename Step::Element;
  const Problem& s = block.problem;
  for (int64_t r = 0; r < s.rows; ++r, to += s.dims / Step::kElements) {
    const CacheRow at{block.b, r / s.group, true};
    const T* row = row_of<T>(s.p.query, at, block.kv_head * s.group + r % s.group);
    Step::load_query(row, s.p.head_dim, s.dims, to);
  }
}

// Where a block's keys or values lie: rows of the prefix, and at kBlock + j the rows of the tree that any query sees
// (tree_rows holds those that exist). All others, those before every row's window, and those that a paged cache does
// not have, are zeros.
template <class T>
struct Rows {
  const T* at[2 * kBlock];

  static EAGLE_INLINE const T* zeros() {
    alignas(64) static constexpr T kRow[kMaxHeadDim] = {};
    return kRow;
  }

  EAGLE_INLINE Rows(const Block& block, HeadsView view, const uint64_t* tree, float* padded) {
    std::fill_n(at, 2 * kBlock, zeros());
    const PageTable pages = block.problem.p.pages;
    const int64_t b = block.b, head = block.kv_head, first = block.index * kBlock, prefix = block.prefix;
    for (int64_t j = std::max<int64_t>(0, block.problem.first_key(b) - first); j < prefix; ++j)
      if (const CacheRow row = locate(pages, b, first + j); row.there) at[j] = row_of<T>(view, row, head);
    const int64_t context = block.problem.context(b);
    for (int64_t w = 0; w < kMaxMaskWords; ++w)
      for (uint64_t bits = tree[w]; bits != 0; bits &= bits - 1) {
        const int64_t j = w * kMaskWordBits + std::countr_zero(bits);
        at[kBlock + j] = row_of<T>(view, locate(pages, b, context + j), head);
      }
    if (block.problem.padded_floats() > 0) copy_padded(block.problem, reinterpret_cast<T*>(padded));
  }

  // Rows whose width is not that of whole tiles, with zeros behind them.
  EAGLE_INLINE void copy_padded(const Problem& s, T* copy) {
    for (int64_t j = 0; j < 2 * kBlock; ++j, copy += s.dims) {
      if (at[j] == zeros()) continue;
      std::memcpy(copy, at[j], s.p.head_dim * sizeof(T));
      std::memset(static_cast<void*>(copy + s.p.head_dim), 0, (s.dims - s.p.head_dim) * sizeof(T));
      at[j] = copy;
    }
  }

  // Asks for the rows of a tile, to be read soon.
  EAGLE_INLINE void fetch(int64_t first, int64_t count, int64_t dims) const {
    for (int64_t j = first; j < std::min(first + count, 2 * kBlock); ++j)
      for (int64_t c = 0; c < dims; c += 64 / sizeof(T)) __builtin_prefetch(at[j] + c);
  }
};

// scores [rows][kBlock] of keys first..last, whole tiles. Meanwhile the next keys and these keys' values are fetched.
template <class Step, class T = typename Step::Element>
EAGLE_INLINE void score_keys(const Problem& s, Scratch& scratch, const Rows<T>& keys, const Rows<T>& values,
                             int64_t first, int64_t last, float* scores) {
  constexpr int64_t kColumns = kTileColumns<Step::kLanes>;
  const int64_t depth = s.dims / Step::kElements;
  for (int64_t j = first; j < last; j += kColumns) {
    keys.fetch(j + kColumns, kColumns, s.dims);
    values.fetch(j, kColumns, s.dims);
    transpose_keys<Step>(keys.at + j, depth, scratch.keys.get());
    score_rows<Step>(scratch.query.get(), s.rows, depth, scratch.keys.get(), s.p.scale * kLog2E, scores + j % kBlock,
                     kBlock);
  }
}

// A prefix row that a paged cache does not have weighs nothing.
EAGLE_INLINE void hide_missing(const Block& block, float* scores) {
  const Problem& s = block.problem;
  if (!s.p.pages.ids) return;
  for (int64_t j = 0; j < block.prefix; ++j)
    if (!locate(s.p.pages, block.b, block.index * kBlock + j).there)
      for (int64_t r = 0; r < s.rows; ++r) scores[r * kBlock + j] = -INFINITY;
}

// Nor does one before the row's window.
EAGLE_INLINE void hide_before_window(const Block& block, float* scores) {
  const Problem& s = block.problem;
  const int64_t first = block.index * kBlock;
  if (s.context(block.b) + kMaxNodes <= s.p.window + first) return;  // all windows begin before the block
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t hidden = s.window_start(block.b, r / s.group) - first;
    std::fill_n(scores + r * kBlock, std::clamp<int64_t>(hidden, 0, block.prefix), -INFINITY);
  }
}

// The ancestors of a query row that fall into a block, as tree columns; returns how many.
EAGLE_INLINE int64_t pick_ancestors(const Block& block, int64_t row, int32_t* columns) {
  const Problem& s = block.problem;
  int64_t skip = std::max<int64_t>(0, block.index * kBlock - s.context(block.b));  // those of earlier blocks
  int64_t count = 0;
  for (int64_t w = 0; w < kMaxMaskWords; ++w)
    for (uint64_t bits = s.ancestors(block.b, row, w); bits != 0 && count < kBlock - block.prefix; bits &= bits - 1)
      if (skip-- <= 0) columns[count++] = static_cast<int32_t>(w * kMaskWordBits + std::countr_zero(bits));
  return count;
}

// output += sum of weights[i] * values[columns[i]], continuing the chains that value_tile began, rounded as there.
template <int L, class T>
EAGLE_INLINE void add_ancestors(const float* weights, const int32_t* columns, int64_t count, const T* const* values,
                                int64_t dims, float* output) {
  for (int64_t c = 0; c < dims; c += kLanes) {
    Floats<L> acc = load<L>(output + c);
    for (int64_t i = 0; i < count; ++i) acc = multiply_add(acc, splat<L>(weights[i]), load<L>(values[columns[i]] + c));
    store(output + c, acc);
  }
}

// One block of every row's sequence, for the query heads of one kv head: scores, softmax, weighted values.
template <class Step>
EAGLE_INLINE void attend(const Block& block, Scratch& scratch) {
  using T = typename Step::Element;
  const Problem& s = block.problem;
  uint64_t tree[kMaxMaskWords] = {};
  if (block.prefix < kBlock)
    for (int64_t row = 0; row < s.p.num_rows; ++row)
      for (int64_t w = 0; w < kMaxMaskWords; ++w) tree[w] |= s.ancestors(block.b, row, w);
  const int64_t tree_end =
      tree[1] ? 2 * kMaskWordBits - std::countl_zero(tree[1]) : kMaskWordBits - std::countl_zero(tree[0]);

  load_query<Step>(block, scratch.query.get());
  const Rows<T> keys(block, s.p.key, tree, scratch.padded[0].get());
  keys.fetch(0, kTileColumns<Step::kLanes>, s.dims);
  const Rows<T> values(block, s.p.value, tree, scratch.padded[1].get());
  score_keys<Step>(s, scratch, keys, values, 0, block.prefix, scratch.scores.get());
  hide_missing(block, scratch.scores.get());
  hide_before_window(block, scratch.scores.get());
  score_keys<Step>(s, scratch, keys, values, kBlock, kBlock + tree_end, scratch.tree_scores.get());

  int32_t columns[kBlock];
  for (int64_t r = 0; r < s.rows; ++r) {
    float* scores = scratch.scores.get() + r * kBlock;
    const int64_t picked = pick_ancestors(block, r / s.group, columns);
    for (int64_t i = 0; i < picked; ++i) scores[block.prefix + i] = scratch.tree_scores[r * kBlock + columns[i]];
    float* state = block.partial + r * s.partial_stride + s.dims;
    state[1] = softmax_block<Step::kLanes>(scores, block.prefix + picked, state);
  }

  value_rows<Step::kLanes>(scratch.scores.get(), kBlock, s.rows, values.at, s.dims, block.prefix, block.partial,
                           s.partial_stride);
  if (tree_end == 0) return;
  for (int64_t r = 0; r < s.rows; ++r) {
    const int64_t picked = pick_ancestors(block, r / s.group, columns);
    add_ancestors<Step::kLanes>(scratch.scores.get() + r * kBlock + block.prefix, columns, picked, values.at + kBlock,
                                s.dims, block.partial + r * s.partial_stride);
  }
}

// BFloat16Scores: how bfloat16 keys are multiplied; all others go by fused multiply-adds.
template <class BFloat16Scores>
EAGLE_INLINE void attend_any(const Block& block, Scratch& scratch) {
  switch (block.problem.p.dtype) {
    case DType::kFloat32:
      return attend<FusedScores<BFloat16Scores::kLanes, float>>(block, scratch);
    case DType::kBFloat16:
      return attend<BFloat16Scores>(block, scratch);
    case DType::kFloat16:
      return attend<FusedScores<BFloat16Scores::kLanes, float16>>(block, scratch);
  }
}

using Attend = void (*)(const Block& block, Scratch& scratch);

#define EAGLE_ATTEND(name, BFloat16Scores, ...) \
  __VA_ARGS__ void name(const Block& block, Scratch& scratch) { attend_any<BFloat16Scores>(block, scratch); }

using Baseline = FusedScores<4, bfloat16>;
using Avx2 = FusedScores<8, bfloat16>;
using Avx512 = FusedScores<16, bfloat16>;
EAGLE_ATTEND(attend_baseline, Baseline, )
#ifdef EAGLE_X86_LEVELS
EAGLE_ATTEND(attend_avx2, Avx2, __attribute__((target("arch=x86-64-v3"))))
EAGLE_ATTEND(attend_avx512, Avx512, __attribute__((target("arch=x86-64-v4"))))
EAGLE_ATTEND(attend_avx512_bf16, DotScores, __attribute__((target("arch=x86-64-v4,avx512bf16"))))

Attend attend_block() {
  static const Attend best = at_level(attend_baseline, attend_avx2, attend_avx512, attend_avx512_bf16);
  return best;
}
#else
Attend attend_block() { return attend_baseline; }
#endif

// A row that has seen nothing yet.
void clear_row(float* row, int64_t dims) {
  std::fill_n(row, dims + 2, 0.0f);
  row[dims] = -FLT_MAX;
}

// Merges the next block of a row into what came before: both are rescaled to the common maximum.
template <int L>
EAGLE_INLINE void merge_block_at(const float* next, float* sofar, int64_t dims) {
  const float maximum = std::max(sofar[dims], next[dims]);
  const Floats<L> keep = exp2(splat<L>(sofar[dims] - maximum)), add = exp2(splat<L>(next[dims] - maximum));
  for (int64_t c = 0; c < dims; c += kLanes) store(sofar + c, load<L>(sofar + c) * keep + load<L>(next + c) * add);
  sofar[dims] = maximum;
  sofar[dims + 1] = sofar[dims + 1] * keep.part[0][0] + next[dims + 1] * add.part[0][0];
}
EAGLE_AT_EACH_LEVEL(merge_block, (const float* next, float* sofar, int64_t dims), (next, sofar, dims))

// output = weighted values / sum of weights, that of the head's sink among them; zeros for a row that saw nothing.
// at: the row in the output [batch, num_rows, num_heads]
template <class T>
EAGLE_INLINE void write_row(const Problem& s, const float* row, int64_t at) {
  float total = row[s.dims + 1];
  if (s.p.sinks && total != 0) {
    const float sink = to_float(static_cast<const T*>(s.p.sinks)[at % s.p.num_heads]) * kLog2E;
    total += exp2f(sink - row[s.dims]);
  }
  const float factor = total == 0 ? 0 : 1 / total;
  T* to = static_cast<T*>(s.p.output) + at * s.p.head_dim;
  for (int64_t c = 0; c < s.p.head_dim; ++c) to[c] = from_float<T>(row[c] * factor);
}

EAGLE_MULTIVERSION void finish_row(const Problem& s, const float* row, int64_t at) {
  switch (s.p.dtype) {
    case DType::kFloat32:
      return write_row<float>(s, row, at);
    case DType::kBFloat16:
      return write_row<bfloat16>(s, row, at);
    case DType::kFloat16:
      return write_row<float16>(s, row, at);
  }
}

}  // namespace

void tree_attention(const TreeAttentionParams& p, ParallelFor parallel_for) {
  const Problem s{p};
  const int64_t groups = p.batch * p.num_kv_heads, rows = groups * s.rows;
  if (rows == 0) return;
  std::vector<int64_t> blocks(p.batch);  // of each request's longest row
  int64_t start = INT64_MAX;             // the first block of any request
  for (int64_t b = 0; b < p.batch; ++b) {
    start = std::min(start, s.first_block(b));
    for (int64_t row = 0; row < p.num_rows; ++row) blocks[b] = std::max(blocks[b], s.num_blocks(b, row));
  }
  const int64_t most = *std::max_element(blocks.begin(), blocks.end());

  const int64_t wave = std::clamp<int64_t>(most - start, 1, kWave);  // rows that see nothing are written as well
  const Buffer partials = allocate(wave * rows * s.partial_stride);
  const Buffer merged = allocate(rows * s.partial_stride);
  const int64_t grain = std::max<int64_t>(1, kGrainWork / (2 * kBlock * s.rows * s.dims));
  for (int64_t first = start; first == start || first < most; first += wave) {
    const int64_t count = std::min(wave, most - first);
    std::atomic<int64_t> next = 0;  // threads take what is left: the last blocks of requests are shorter
    parallel_for(groups * count, grain, [&](int64_t, int64_t) {
      Scratch scratch(s);
      for (int64_t item; (item = next++) < groups * count;) {
        const int64_t i = item / groups, g = item % groups, b = g / p.num_kv_heads;
        if (first + i < s.first_block(b) || first + i >= blocks[b]) continue;
        float* partial = partials.get() + (i * rows + g * s.rows) * s.partial_stride;
        attend_block()({s, b, g % p.num_kv_heads, first + i, partial}, scratch);
      }
    });
    parallel_for(rows, 32, [&](int64_t begin, int64_t end) {
      for (int64_t r = begin; r < end; ++r) {
        const int64_t b = r / (p.num_kv_heads * s.rows), kv_head = r / s.rows % p.num_kv_heads;
        const int64_t row = r % s.rows / s.group, head = kv_head * s.group + r % s.group;
        float* sofar = merged.get() + r * s.partial_stride;
        if (first == start) clear_row(sofar, s.dims);
        const int64_t mine = std::min(count, s.num_blocks(b, row) - first);
        for (int64_t i = std::max<int64_t>(0, s.first_block(b) - first); i < mine; ++i)
          merge_block(partials.get() + (i * rows + r) * s.partial_stride, sofar, s.dims);
        if (first + count == most) finish_row(s, sofar, (b * p.num_rows + row) * p.num_heads + head);
      }
    });
  }
}

}  // namespace eagle::cpu
