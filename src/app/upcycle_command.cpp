#include "app/commands.hpp"
#include "app/derived_run.hpp"
#include "config/deck.hpp"
#include "model/compute_type.hpp"

namespace hearth {

namespace {

template <class T>
Status upcycle(const Config& dense, const Config& config, const Communicator& world) {
  return derive<T>(dense, 1, world, [&](Trainer<T>&, const Corpus&) {
    return Derivation{config, upcycled(make_tensor_table(dense), make_tensor_table(config))};
  });
}

}  // namespace

Status upcycle_command(const Config& dense, const Config& config, const DerivedRequest& request,
                       const Communicator& world) {
  const Config upcycled = derived_config(config, request.output);
  world.together([&] {
    const auto refuse = [&](const auto&... parts) { throw input_error("upcycle: ", parts...); };
    if (dense.has_experts()) {
      refuse(
          "the deck's model has experts already; expected moe.experts = 0 in the deck, and "
          "--moe.experts=... on the command line");
    }
    if (config.moe_layers() == 0) {
      refuse(
          "no layer would have experts; expected --moe.experts=..., and --moe.dense_layers "
          "below model.layers");
    }
    if (config.model.dense_ffn % config.moe.expert_ffn != 0) {
      refuse("moe.expert_ffn = ", config.moe.expert_ffn,
             " does not divide model.dense_ffn = ", config.model.dense_ffn,
             "; expected that width or a divisor");
    }
  });
  check_new_folder(world, request.output);
  return with_compute_type(
      config.model, [&](auto type) { return upcycle<decltype(type)>(dense, upcycled, world); });
}

}  // namespace hearth
