// A cell from the host to the execution space's memory.
#pragma once

#include "data/batch.hpp"
#include "model/device_cell.hpp"

namespace hearth {

// Attention gets a segment for each run of tokens between the begins of sequences and documents.
[[nodiscard]] DeviceCell upload(const Cell& cell);

}  // namespace hearth
