// What hearth-bench can time; sizes are the deck's, the tokens those of one cell.
#pragma once

#include "bench/measure.hpp"
#include "config/config.hpp"
#include "parallel/communicator.hpp"

namespace hearth::bench {

// The largest product of matrices that the library gives: what all else is a fraction of.
template <class T>
void ceiling(const Measure& measure);

// Every kernel of a layer alone, forward and backward.
template <class T>
void kernels(const Config& config, const Measure& measure);

// One layer with experts, forward and backward with all its gradients: with the routing of random
// weights, and with every expert getting as many tokens as the next.
template <class T>
void moe_layer(const Config& config, const Communicator& world, const Measure& measure);

// The collectives on arrays between all ranks, by size: what a network's latency and bandwidth are
// fitted to.
template <class T>
void exchange(const Config& config, const Communicator& world, const Measure& measure);

// Writing and reading a checkpoint in the deck's run.output, in turns with HDF5 alone, which writes
// and reads one dataset of as many bytes on the first rank; and the copy of a checkpoint that is
// written in the background. All forced to the disk, and read from it.
template <class T>
void checkpoint(const Config& config, const Communicator& world, const Measure& measure);

}  // namespace hearth::bench
