// Which rank owns which expert, read from a text file (docs/file_formats.md, "Placements").
#pragma once

#include <string>
#include <vector>

#include "parallel/decomposition.hpp"

namespace hearth {

// Of a data source's token copies: how many of a million go to experts of each rank.
struct SourceCopies {
  std::string source;
  std::vector<std::int64_t> per_million;  // (expert_ranks)
};

struct PlacementFile {
  int expert_ranks = 1;
  std::vector<ExpertPlacement> placements;  // (moe layers)
  std::vector<SourceCopies> sources;        // may be empty
};

// Reads the text of a placement of layers with those many experts (moe layers), the first of which
// is the block `first_block`. `name`: the file's, for messages. Throws input_error that names file
// and line.
[[nodiscard]] PlacementFile parse_placement(const std::string& content, const std::string& name,
                                            const std::vector<Index>& experts, Index first_block);

// The same of a file.
[[nodiscard]] PlacementFile read_placement(const std::string& file,
                                           const std::vector<Index>& experts, Index first_block);

}  // namespace hearth
