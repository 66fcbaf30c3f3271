// What the commands that make one model of another share: the folder that they write, and the
// comparison of the two models.
#pragma once

#include "app/commands.hpp"
#include "app/run_state.hpp"
#include "io/derived_checkpoint.hpp"
#include "model/derived_tensors.hpp"

namespace hearth {

// Refuses a folder that is there. Collective.
void check_new_folder(const Communicator& world, const std::string& output);

// Refuses what cannot be calibrated, or has fewer experts than wanted.
void check_fewer_experts(const char* command, const Config& config, const DerivedRequest& request);

// The corpus' training split, long enough for the batches.
[[nodiscard]] Corpus calibration_corpus(const Config& config, std::int64_t batches);

// The deck of the run that a derived model starts: `config` with its output there.
[[nodiscard]] Config derived_config(const Config& config, const std::string& output);

// How good and how expensive a model is.
struct ModelMeasure {
  double loss = 0;          // of the validation split, nats per token
  std::int64_t tokens = 0;  // of it; 0: it has no whole sequence, or the deck has no such split
  double tokens_per_s = 0;  // of validation on these ranks, after a first batch
  std::vector<double> experts = {};  // (moe layers): of a token of the first training batch
};

// Of the weights that the trainer has; corpus is the training split. Collective.
template <class T>
[[nodiscard]] ModelMeasure measure(Trainer<T>& trainer, const Config& config, const Corpus& corpus,
                                   const Communicator& world);

// Makes the model, whose tensors come from `checkpoint` of `older`, writes it as the checkpoint of
// step 0 of a run in config.run.output, with run.deck beside, and prints both models' measures.
// Moments are zero, so that training starts with its warm-up. Collective.
template <class T>
void write_derived(const Config& older, const Config& config, const Communicator& world,
                   const std::string& checkpoint, const TensorSources& sources,
                   const Corpus& corpus, const ModelMeasure& before);

// The weights of the checkpoint that the deck's run would resume from; where it is. Collective;
// throws CollectiveError where there is none.
template <class T>
[[nodiscard]] std::string read_weights(const Config& config, const Communicator& world,
                                       Trainer<T>& trainer);

// What a command has made of a trained model: the new one's deck, and what its tensors come from.
struct Derivation {
  Config config;
  TensorSources sources;
};

// The course of such a command: reads the model of `config`, has `learn(trainer, corpus)` make a
// Derivation of it, with `batches` of the corpus to look at, and writes that. Collective.
template <class T, class Learn>
Status derive(const Config& config, std::int64_t batches, const Communicator& world,
              const Learn& learn) {
  std::optional<Corpus> corpus;
  world.together([&] { corpus = calibration_corpus(config, batches); });
  std::string checkpoint;
  std::optional<Derivation> derived;
  ModelMeasure before;
  {
    const Mesh mesh(world, config);
    Trainer<T> trainer(config, mesh, corpus->sources());
    checkpoint = read_weights(config, world, trainer);
    derived = learn(trainer, *corpus);
    before = measure(trainer, config, *corpus, world);
  }
  write_derived<T>(config, derived->config, world, checkpoint, derived->sources, *corpus, before);
  return Status::done;
}

// On the first rank: what has been calibrated on.
void print_calibration(const Communicator& world, std::int64_t batches);

}  // namespace hearth
