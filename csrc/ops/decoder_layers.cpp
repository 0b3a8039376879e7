// decoder_layers for torch tensors: checks, allocation and device dispatch.
#include "common/decoder_layers.h"

#include <algorithm>

#include "common/tree.h"
#include "ops/match.h"
#include "ops/ops.h"
#include "ops/page_table.h"
#include "ops/range.h"
#include "ops/rows.h"

namespace eagle::ops {
namespace {

using Layers = std::vector<DecoderLayer>;
using Tensors = std::vector<Tensor>;

// Gives each layer its weights of one kind.
void match_weights(Match& m, Layers& layers, const void* DecoderLayer::* weight, const char* name,
                   const Tensors& tensors, const char* shape, const Tensor& like) {
  EAGLE_CHECK(tensors.size() == layers.size(), "decoder_layers: ", name, " has ", tensors.size(),
              " tensors, expected one for each of the ", layers.size(), " layers of caches");
  for (size_t i = 0; i < layers.size(); ++i) {
    m.tensor(name, tensors[i], shape, Kind::kFloating);
    m.same_dtype(name, tensors[i], "hidden_states", like);
    layers[i].*weight = tensors[i].const_data_ptr();
  }
}

void check_sizes(const Match& m, int64_t num_heads) {
  EAGLE_CHECK(m["d"] <= kMaxHeadDim && m["d"] == 2 * m["d/2"], "decoder_layers: head_dim is ", m["d"],
              ", expected at most ", kMaxHeadDim, " and twice the ", m["d/2"], " columns of rope_cos");
  EAGLE_CHECK(num_heads > 0 && m["Hkv"] > 0 && num_heads % m["Hkv"] == 0, "decoder_layers: num_heads is ", num_heads,
              ", which is not a multiple of the ", m["Hkv"], " heads of caches");
  EAGLE_CHECK(m["O"] == (num_heads + 2 * m["Hkv"]) * m["d"] && m["A"] == num_heads * m["d"],
              "decoder_layers: qkv_weight has ", m["O"], " rows and o_weight ", m["A"],
              " columns, expected (num_heads + 2 * num_kv_heads) * head_dim and num_heads * head_dim with num_heads = ",
              num_heads, ", num_kv_heads = ", m["Hkv"], ", head_dim = ", m["d"]);
  EAGLE_CHECK(m["G"] == 2 * m["I"], "decoder_layers: gate_up_weight has ", m["G"],
              " rows but down_weight has I = ", m["I"], " columns: 2 * I rows are needed, gate rows first");
  EAGLE_CHECK(m["W"] >= 1 && m["W"] <= kMaxMaskWords, "decoder_layers: ancestor_mask must have 1 or ", kMaxMaskWords,
              " words a row, got ", m["W"]);
}

// Layers may lie anywhere, as in a part of the requests of a larger tensor; each one's cache is in one piece.
void place_caches(Layers& layers, const Tensor& caches) {
  int64_t stride = 1;
  for (int64_t d = 5; d > 1; stride *= caches.size(d--))
    EAGLE_CHECK(caches.stride(d) == stride || caches.size(d) == 1,
                "decoder_layers: the caches of a layer must be contiguous; call .contiguous() on caches");
  char* keys = static_cast<char*>(caches.mutable_data_ptr());
  char* values = keys + caches.stride(0) * caches.element_size();
  for (DecoderLayer& layer : layers) {
    layer.key_cache = keys;
    layer.value_cache = values;
    keys += caches.stride(1) * caches.element_size();
    values += caches.stride(1) * caches.element_size();
  }
}

// The residual stream that leaves a layer goes to `states` where a boundary lies behind the layer, else to `hidden`,
// which the next layer overwrites once it has read it.
void place_streams(Layers& layers, const std::vector<int64_t>& boundaries, const Tensor& hidden, const Tensor& states) {
  for (DecoderLayer& layer : layers) layer.hidden = hidden.mutable_data_ptr();
  char* state = static_cast<char*>(states.mutable_data_ptr());
  int64_t before = 0;
  for (const int64_t boundary : boundaries) {
    EAGLE_CHECK(boundary > before && boundary < static_cast<int64_t>(layers.size()),
                "decoder_layers: boundaries must ascend and be between 1 and ", layers.size() - 1,
                ", the layers that another one precedes, got ", boundary);
    layers[boundary - 1].hidden = state;
    state += hidden.numel() * hidden.element_size();
    before = boundary;
  }
}

void set_windows(Layers& layers, const std::vector<int64_t>& windows, int64_t smallest) {
  EAGLE_CHECK(windows.empty() || windows.size() == layers.size(), "decoder_layers: windows has ", windows.size(),
              " numbers, expected one for each of the ", layers.size(), " layers, or none");
  for (DecoderLayer& layer : layers) layer.window = kNoWindow;
  for (size_t i = 0; i < windows.size(); ++i) {
    if (windows[i] == 0) continue;
    EAGLE_CHECK(windows[i] >= smallest, "decoder_layers: windows must be 0 or at least ", smallest,
                ", as many rows as a mask has bits, got ", windows[i]);
    layers[i].window = static_cast<int>(std::min<int64_t>(windows[i], kNoWindow));
  }
}

}  // namespace

std::tuple<Tensor, Tensor> decoder_layers(const Tensor& hidden_states, Tensors norm_weight, Tensors qkv_weight,
                                          Tensors o_weight, Tensors mlp_norm_weight, Tensors gate_up_weight,
                                          Tensors down_weight, const Tensor& caches, const Tensor& cache_rows,
                                          const Tensor& rope_cos, const Tensor& rope_sin, const Tensor& position_ids,
                                          const Tensor& context_len, const Tensor& ancestor_mask, int64_t num_heads,
                                          double scale, double eps, Tensors qkv_bias, Tensors q_norm_weight,
                                          Tensors k_norm_weight, std::vector<int64_t> windows,
                                          std::vector<int64_t> boundaries, const std::optional<Tensor>& page_table) {
  Match m("decoder_layers");
  m.tensor("hidden_states", hidden_states, "B Q H", Kind::kFloating, /*strided=*/true);
  m.tensor("caches", caches, page_table ? "2 layers N Hkv S d" : "2 layers B Hkv L d", Kind::kFloating,
           /*strided=*/true);
  m.same_dtype("caches", caches, "hidden_states", hidden_states);
  m.tensor("cache_rows", cache_rows, "B Q", Kind::kInt32);
  m.tensor("rope_cos", rope_cos, "P d/2", Kind::kFloat32);
  m.tensor("rope_sin", rope_sin, "P d/2", Kind::kFloat32);
  m.tensor("position_ids", position_ids, "B Q", Kind::kInt32);
  m.tensor("context_len", context_len, "B", Kind::kInt32);
  m.tensor("ancestor_mask", ancestor_mask, "B Q W", Kind::kInt64);
  const PageTable pages = match_page_table(m, page_table);
  EAGLE_CHECK(m["layers"] > 0, "decoder_layers: caches has no layers, at least one is needed");
  Layers layers(m["layers"]);
  const auto weights = [&](const void* DecoderLayer::* weight, const char* name, const Tensors& all,
                           const char* shape) { match_weights(m, layers, weight, name, all, shape, hidden_states); };
  weights(&DecoderLayer::norm_weight, "norm_weight", norm_weight, "H");
  weights(&DecoderLayer::qkv_weight, "qkv_weight", qkv_weight, "O H");
  weights(&DecoderLayer::o_weight, "o_weight", o_weight, "H A");
  weights(&DecoderLayer::mlp_norm_weight, "mlp_norm_weight", mlp_norm_weight, "H");
  weights(&DecoderLayer::gate_up_weight, "gate_up_weight", gate_up_weight, "G H");
  weights(&DecoderLayer::down_weight, "down_weight", down_weight, "H I");
  if (!qkv_bias.empty()) weights(&DecoderLayer::qkv_bias, "qkv_bias", qkv_bias, "O");
  if (!q_norm_weight.empty() || !k_norm_weight.empty()) {
    weights(&DecoderLayer::q_norm_weight, "q_norm_weight", q_norm_weight, "d");
    weights(&DecoderLayer::k_norm_weight, "k_norm_weight", k_norm_weight, "d");
  }
  check_sizes(m, num_heads);
  check_range("decoder_layers", "position_ids", position_ids, 0, m["P"]);
  check_range("decoder_layers", "cache_rows", cache_rows, -1, pages.length());
  set_windows(layers, windows, m["W"] * kMaskWordBits);
  place_caches(layers, caches);
  Tensor hidden = empty_with_last(hidden_states, m["H"]);
  Tensor states = empty_like_device(hidden_states, {static_cast<int64_t>(boundaries.size()), m["B"], m["Q"], m["H"]},
                                    hidden_states.scalar_type());
  place_streams(layers, boundaries, hidden, states);
  const DecoderLayersParams p{
      .dtype = float_dtype(hidden_states),
      .hidden_states = rows_of("decoder_layers", "hidden_states", hidden_states),
      .layers = layers.data(),
      .num_layers = m["layers"],
      .rope_cos = rope_cos.const_data_ptr<float>(),
      .rope_sin = rope_sin.const_data_ptr<float>(),
      .position_ids = position_ids.const_data_ptr<int32_t>(),
      .cache_rows = cache_rows.const_data_ptr<int32_t>(),
      .context_len = context_len.const_data_ptr<int32_t>(),
      .ancestor_mask = ancestor_mask.const_data_ptr<int64_t>(),
      .pages = pages,
      .batch = m["B"],
      .rows = m["Q"],
      .size = m["H"],
      .intermediate = m["I"],
      .num_heads = num_heads,
      .num_kv_heads = m["Hkv"],
      .head_dim = m["d"],
      .positions = m["P"],
      .mask_words = m["W"],
      .scale = static_cast<float>(scale),
      .eps = static_cast<float>(eps),
  };
#ifdef EAGLE_WITH_CUDA
  if (hidden_states.is_cuda()) {
    const DeviceGuard guard(hidden_states.get_device_index());
    const Tensor scratch = workspace(hidden_states, cuda::decoder_layers_workspace(p));
    cuda::decoder_layers(p, scratch.mutable_data_ptr(), current_stream(hidden_states));
    return {hidden, states};
  }
#endif
  cpu::decoder_layers(p, torch_parallel_for());
  return {hidden, states};
}

}  // namespace eagle::ops
