// build: core/arena.cpp engine/layout.cpp engine/plan.cpp
// Layouts and plans: which layers share a stage, where parameters and batch matrices lie, that no two
// that live at the same time overlap, alignment, the columns of ones, the two buffers of inference,
// and sizes that no memory holds.

#include <algorithm>
#include <limits>
#include <new>
#include <string>
#include <utility>
#include <vector>

#include "check.h"
#include "engine/plan.h"
#include "kernels/kernel_table.h"

using namespace fastbp;

namespace {

#define FBP_NAME(A) A::name,
constexpr const char* kNames[] = {FBP_ACTIVATIONS(FBP_NAME)};
#undef FBP_NAME
#define FBP_SAVES(A) A::saves,
constexpr Saves kSaves[] = {FBP_ACTIVATIONS(FBP_SAVES)};
#undef FBP_SAVES

int index_of(const std::string& name) {
  for (int i = 0; i < kActivationCount; ++i)
    if (name == kNames[i]) return i;
  FBP_EXPECT(!"an activation of that name");
  return 0;
}

// The first activation that saves its input, and the first that saves its output.
int that_saves(Saves saves) {
  const auto* at = std::find(std::begin(kSaves), std::end(kSaves), saves);
  FBP_EXPECT(at != std::end(kSaves));
  return int(at - std::begin(kSaves));
}

LayerSpec dense(index_t units, bool bias = true) {
  LayerSpec layer;
  layer.units = units;
  layer.use_bias = bias;
  return layer;
}

LayerSpec activation(int index, double param = 0) {
  LayerSpec layer;
  layer.kind = LayerSpec::Kind::activation;
  layer.activation = index;
  layer.param = param;
  return layer;
}

void an_activation_joins_the_dense_layer_before_it() {
  const int relu = index_of("relu"), leaky = index_of("leaky_relu");
  const NetworkLayout net =
      make_layout({7, {dense(5), activation(leaky, 0.25), dense(3), activation(relu)}});
  FBP_EXPECT(net.stages.size() == 2);
  FBP_EXPECT(net.inputs == 7 && net.outputs == 3);
  const Stage &first = net.stages[0], &second = net.stages[1];
  FBP_EXPECT(first.dense() && first.inputs == 7 && first.outputs == 5 && first.bias);
  FBP_EXPECT(first.activation == leaky && first.param == 0.25 && first.saves == kSaves[leaky]);
  FBP_EXPECT(second.dense() && second.inputs == 5 && second.outputs == 3);
  FBP_EXPECT(second.activation == relu && second.saves == kSaves[relu]);
  FBP_EXPECT(net.multiply_adds_per_row == 7 * 5 + 5 * 3);
}

void others_stand_alone() {
  const int relu = index_of("relu"), tanh = index_of("tanh"), identity = index_of("identity");
  // First in the network; second after a dense layer; none behind the last one.
  const NetworkLayout net =
      make_layout({4, {activation(relu), dense(6), activation(tanh), activation(relu), dense(2)}});
  FBP_EXPECT(net.stages.size() == 4);
  FBP_EXPECT(!net.stages[0].dense() && net.stages[0].inputs == 4 && net.stages[0].outputs == 4);
  FBP_EXPECT(net.stages[1].dense() && net.stages[1].activation == tanh);
  FBP_EXPECT(!net.stages[2].dense() && net.stages[2].activation == relu &&
             net.stages[2].outputs == 6);
  FBP_EXPECT(net.stages[3].dense() && net.stages[3].activation == identity);
  FBP_EXPECT(net.stages[3].saves == Saves::None);
  // Only activations.
  const NetworkLayout bare = make_layout({3, {activation(relu), activation(tanh)}});
  FBP_EXPECT(bare.stages.size() == 2 && bare.outputs == 3);
  FBP_EXPECT(bare.parameter_count == 0 && bare.multiply_adds_per_row == 0);
  // A written identity leaves its dense layer free for the activation that follows.
  const NetworkLayout plain = make_layout({3, {dense(2), activation(identity), activation(tanh)}});
  FBP_EXPECT(plain.stages.back().activation == tanh && plain.outputs == 2);
}

void parameters_follow_each_other_in_blocks_of_16() {
  const std::vector<index_t> widths = {1, 2, 3, 15, 16, 17, 33};
  for (index_t inputs : widths) {
    for (index_t units : widths) {
      const NetworkLayout net =
          make_layout({inputs, {dense(units), dense(units, false), dense(1)}});
      index_t end = 0;
      for (const Stage& stage : net.stages) {
        FBP_EXPECT(stage.parameter_offset % 16 == 0);
        FBP_EXPECT(stage.parameter_offset >= end && stage.parameter_offset < end + 16);
        end = stage.parameter_offset + (stage.inputs + (stage.bias ? 1 : 0)) * stage.outputs;
      }
      FBP_EXPECT(net.parameter_count % 16 == 0);
      FBP_EXPECT(net.parameter_count >= end && net.parameter_count < end + 16);
    }
  }
}

// A piece of the arena and what it is.
struct Piece {
  std::string what;
  std::size_t begin, end;
};

void expect_apart(std::vector<Piece> pieces, std::size_t total) {
  std::sort(pieces.begin(), pieces.end(),
            [](const Piece& a, const Piece& b) { return a.begin < b.begin; });
  for (std::size_t i = 0; i < pieces.size(); ++i) {
    FBP_EXPECT(pieces[i].begin % kCacheLine == 0);
    FBP_EXPECT(pieces[i].end <= total);
    if (i > 0 && pieces[i].begin < pieces[i - 1].end) {
      std::printf("%s overlaps %s\n", pieces[i].what.c_str(), pieces[i - 1].what.c_str());
      FBP_EXPECT(!"apart");
    }
  }
}

// Rows begin at cache lines, except where `contiguous`; the matrix and its ones fit their rows.
Piece piece(const std::string& what, const BatchMatrix& m, index_t width, index_t rows,
            std::size_t item, bool contiguous) {
  FBP_EXPECT(m.width >= width);
  FBP_EXPECT(m.row >= m.width + (m.ones ? 1 : 0));
  if (contiguous)
    FBP_EXPECT(m.row == m.width && m.width == width);
  else
    FBP_EXPECT(std::size_t(m.row) * item % kCacheLine == 0);
  return {what, m.offset, m.offset + std::size_t(rows) * std::size_t(m.row) * item};
}

void check_training_plan(const NetworkLayout& net, const BatchShape& shape, std::size_t item) {
  const Plan plan = make_training_plan(net, shape, item);
  const std::size_t last = net.stages.size() - 1;
  const index_t rows = shape.window;
  FBP_EXPECT(shape.fits(plan));
  FBP_EXPECT(plan.capacity == rows);
  FBP_EXPECT(plan.blocks == (shape.rows + kLossBlockRows - 1) / kLossBlockRows);
  FBP_EXPECT(plan.y.size() == net.stages.size() && plan.z.size() == net.stages.size());
  FBP_EXPECT(plan.delta.size() == net.stages.size());

  std::vector<Piece> pieces = {piece("x", plan.x, net.inputs, rows, item, false),
                               piece("target", plan.target, net.outputs, rows, item, true)};
  FBP_EXPECT(!plan.target.ones);
  FBP_EXPECT(plan.x.ones == (net.stages[0].dense() && net.stages[0].bias));
  for (std::size_t s = 0; s <= last; ++s) {
    const Stage& stage = net.stages[s];
    pieces.push_back(piece("y", plan.y[s], stage.outputs, rows, item, s == last));
    pieces.push_back(piece("delta", plan.delta[s], stage.outputs, rows, item, s == last));
    // The ones serve the bias gradient of the stage above.
    FBP_EXPECT(plan.y[s].ones == (s < last && net.stages[s + 1].dense() && net.stages[s + 1].bias));
    FBP_EXPECT(!plan.delta[s].ones);
    const bool keeps_z = stage.dense() && stage.saves == Saves::Input;
    if (keeps_z)
      pieces.push_back(piece("z", plan.z[s], stage.outputs, rows, item, false));
    else
      FBP_EXPECT(plan.z[s].offset == plan.y[s].offset && plan.z[s].row == plan.y[s].row);
  }
  pieces.push_back(piece("weight", plan.weight, net.outputs, rows, item, true));
  pieces.push_back({"labels", plan.labels_offset, plan.labels_offset + std::size_t(rows) * 8});
  const std::size_t sums = std::size_t(plan.blocks) * (1 + kMaxMetrics) * sizeof(double);
  pieces.push_back({"sums", plan.block_sums_offset, plan.block_sums_offset + sums});
  std::size_t partials = std::size_t(shape.partials) * std::size_t(net.parameter_count);
  for (std::size_t s = 0; s <= last; ++s)
    if (plan.input_parts[s] > 1)
      partials = std::max(partials, std::size_t(plan.input_parts[s] * shape.rows * plan.z[s].row));
  pieces.push_back({"partials", plan.partials_offset, plan.partials_offset + partials * item});
  expect_apart(pieces, plan.arena.total());
}

// Inner outputs take turns in two buffers; the last has its own.
void check_inference_plan(const NetworkLayout& net, index_t rows, std::size_t item) {
  const Plan plan = make_inference_plan(net, rows, item);
  const std::size_t last = net.stages.size() - 1;
  index_t widest = 0;
  for (std::size_t s = 0; s < last; ++s) widest = std::max(widest, net.stages[s].outputs);
  for (std::size_t s = 0; s <= last; ++s) {
    std::vector<Piece> alive = {
        piece("y", plan.y[s], net.stages[s].outputs, rows, item, s == last),
        piece("last delta", plan.delta.back(), net.outputs, rows, item, true),
        piece("weight", plan.weight, net.outputs, rows, item, true)};
    if (s > 0)
      alive.push_back(
          piece("y before", plan.y[s - 1], net.stages[s - 1].outputs, rows, item, false));
    const std::size_t sums = std::size_t(plan.blocks) * (1 + kMaxMetrics) * sizeof(double);
    alive.push_back({"sums", plan.block_sums_offset, plan.block_sums_offset + sums});
    expect_apart(alive, plan.arena.total());
    if (s >= 2 && s < last) FBP_EXPECT(plan.y[s].offset == plan.y[s - 2].offset);
  }
  // Depth costs no memory beyond the two.
  const std::size_t line = kCacheLine;
  const auto bytes = [&](index_t width) {
    return (std::size_t(width) * item + line - 1) / line * line * std::size_t(rows);
  };
  const std::size_t sums = std::size_t(plan.blocks) * (1 + kMaxMetrics) * sizeof(double);
  FBP_EXPECT(plan.arena.total() <= 2 * bytes(widest) + 3 * bytes(net.outputs) + sums + 9 * line);
}

void pieces_never_overlap() {
  const LayerSpec keeps_z = activation(that_saves(Saves::Input));
  const LayerSpec keeps_y = activation(that_saves(Saves::Output));
  const std::vector<std::vector<LayerSpec>> nets = {
      {dense(1)},
      {dense(5, false)},
      {keeps_y},
      {keeps_z},
      {dense(3), keeps_z, dense(17), keeps_y, dense(2)},
      {keeps_z, keeps_y, dense(64), keeps_z, keeps_z, dense(1, false), keeps_y},
      {dense(33), dense(16, false), dense(15), dense(100), dense(8), keeps_z},
  };
  for (const auto& layers : nets) {
    for (index_t inputs : {1, 7, 16, 65}) {
      const NetworkLayout net = make_layout({inputs, layers});
      for (index_t rows : {1, 2, 31, 32, 33, 100, 1000}) {
        for (std::size_t item : {sizeof(float), sizeof(double)}) {
          for (int threads : {1, 2, 3})
            check_training_plan(net, batch_shape(net, rows, threads), item);
          check_inference_plan(net, rows, item);
        }
      }
    }
  }
}

// The chunks in which a batch's gradients are summed: whatever the threads, multiples of a loss block,
// no longer than a product's, and an even number of them for a light network.
void chunks_of_a_batch() {
  const NetworkLayout light = make_layout({8, {dense(64), dense(3)}});
  const NetworkLayout heavy = make_layout({784, {dense(512), dense(10)}});
  FBP_EXPECT(light.light && !heavy.light);
  for (index_t rows = 1; rows < 5000; ++rows) {
    const index_t chunk = light.row_chunk(rows);
    FBP_EXPECT(chunk >= 1 && chunk <= kMaxChunk);
    FBP_EXPECT(rows <= chunk || chunk % kLossBlockRows == 0);
    FBP_EXPECT(heavy.row_chunk(rows) == k_chunk(rows));
  }
  FBP_EXPECT(light.row_chunk(32) == 32 && light.row_chunk(64) == 32);
  FBP_EXPECT(light.row_chunk(512) == 256 && light.row_chunk(4096) == 256);
}

void threads_share_parts_that_are_even() {
  const NetworkLayout light = make_layout({8, {dense(64), dense(3)}});
  const NetworkLayout heavy = make_layout({784, {dense(512), dense(10)}});
  const BatchShape two = batch_shape(light, 4096, 2);
  FBP_EXPECT(two.in_parts() && two.window == 2 * kMaxChunk && two.partials == 4);
  FBP_EXPECT(batch_shape(light, 4096, 1).in_parts());
  FBP_EXPECT(!batch_shape(light, 32, 2).in_parts());  // one part
  FBP_EXPECT(!batch_shape(light, 48, 2).in_parts());  // 32 and 16
  FBP_EXPECT(!batch_shape(light, 64, 3).in_parts());  // two parts
  FBP_EXPECT(!batch_shape(light, 64, 1).in_parts());  // no use
  FBP_EXPECT(!batch_shape(heavy, 4096, 2).in_parts());
  FBP_EXPECT(batch_shape(heavy, 4096, 2).window == 4096);
  // A smaller batch fits the plan of a larger one.
  const Plan plan = make_training_plan(light, two, sizeof(float));
  FBP_EXPECT(batch_shape(light, 1000, 2).fits(plan) && !batch_shape(light, 4096, 4).fits(plan));
}

constexpr index_t kLargest = std::numeric_limits<index_t>::max();

void sizes_that_no_memory_holds_are_refused() {
  const std::pair<index_t, index_t> shapes[] = {{index_t{1} << 33, index_t{1} << 31},
                                                {(index_t{1} << 32) - 1, index_t{1} << 32},
                                                {index_t{1} << 62, 4},
                                                {kLargest, 2},
                                                {3, index_t{1} << 62},
                                                {kLargest, 1},
                                                {1, kLargest}};
  for (const auto& [inputs, units] : shapes) {
    for (bool bias : {false, true}) {
      const auto make = [&, inputs = inputs, units = units] {
        const NetworkLayout net = make_layout({inputs, {dense(units, bias)}});
        array_bytes<float>(net.parameter_count);
        make_training_plan(net, batch_shape(net, 1, 2), sizeof(float));
      };
      FBP_EXPECT_THROW(make(), std::bad_alloc);
    }
  }
  // Each layer fits, their sum does not.
  const index_t half = index_t{1} << 30;
  std::vector<LayerSpec> layers(12, dense(half));
  const auto make = [&] { array_bytes<double>(make_layout({half, layers}).parameter_count); };
  FBP_EXPECT_THROW(make(), std::bad_alloc);
}

void batches_that_no_memory_holds_are_refused() {
  const NetworkLayout net = make_layout({1000, {dense(1000), dense(10)}});
  const NetworkLayout small = make_layout({3, {dense(2)}});
  const auto train = [](const NetworkLayout& layout, index_t rows, int threads) {
    return make_training_plan(layout, batch_shape(layout, rows, threads), sizeof(double));
  };
  for (index_t rows : {index_t{1} << 52, index_t{1} << 61, kLargest - 31, kLargest}) {
    FBP_EXPECT_THROW(train(net, rows, 2), std::bad_alloc);
    FBP_EXPECT_THROW(make_inference_plan(net, rows, sizeof(double)), std::bad_alloc);
    // What a light network keeps does not grow with the batch, but for the loss's sums.
    if (rows >> 61) FBP_EXPECT_THROW(train(small, rows, 3), std::bad_alloc);
  }
  // Large but possible: a plan is numbers, and allocates nothing.
  FBP_EXPECT(train(net, index_t{1} << 40, 2).arena.total() > std::size_t{1} << 53);
  FBP_EXPECT(make_inference_plan(net, index_t{1} << 40, sizeof(double)).arena.total() >
             std::size_t{1} << 53);
}

void teams_share_long_products_of_few_sequences() {
  const auto lstm = [](index_t units) {
    LayerSpec scan;
    scan.kind = LayerSpec::Kind::scan;
    scan.cell = 2;
    scan.units = units;
    return make_layout({4, {dense(4 * units), scan, dense(1)}, 0, true});
  };
  const NetworkLayout wide = lstm(1024), narrow = lstm(16);
  FBP_EXPECT(std::string(cell_info(2).name) == "lstm");
  FBP_EXPECT(wide.shares_parts(4, 2) && wide.shares_parts(1, 8));
  FBP_EXPECT(!wide.shares_parts(4, 1));   // alone
  FBP_EXPECT(!wide.shares_parts(64, 2));  // a part each, or two
  FBP_EXPECT(wide.shares_parts(64, 16));  // more workers than parts
  FBP_EXPECT(!narrow.shares_parts(4, 2) && !narrow.shares_parts(64, 16));  // barriers take longer
  FBP_EXPECT(!make_layout({784, {dense(512), dense(10)}}).shares_parts(4, 2));
}

}  // namespace

int main() {
  an_activation_joins_the_dense_layer_before_it();
  others_stand_alone();
  parameters_follow_each_other_in_blocks_of_16();
  pieces_never_overlap();
  chunks_of_a_batch();
  threads_share_parts_that_are_even();
  teams_share_long_products_of_few_sequences();
  sizes_that_no_memory_holds_are_refused();
  batches_that_no_memory_holds_are_refused();
  return fbp_test_result();
}
