#include "config/options.hpp"

#include <charconv>
#include <iterator>
#include <limits>
#include <utility>

#include "base/error.hpp"

namespace hearth {

namespace {

constexpr double least = std::numeric_limits<double>::denorm_min();  // "above zero"
constexpr double most_experts = 65536;

struct RouterName {
  const char *name, *help;
};
constexpr RouterName routers[] = {
#define HEARTH_ROUTER(name, text) {#name, text},
#include "config/routers.def"
#undef HEARTH_ROUTER
};

std::vector<std::string> router_names() {
  std::vector<std::string> names;
  for (const RouterName& router : routers) names.emplace_back(router.name);
  return names;
}

std::string router_help() {
  std::string help;
  for (const RouterName& router : routers) {
    help += text(help.empty() ? "" : "; ", router.name, ": ", router.help);
  }
  return help;
}

void append(std::vector<Option>& table, std::vector<Option> options) {
  std::move(options.begin(), options.end(), std::back_inserter(table));
}

std::vector<Option> gate_options(const std::string& section, GateConfig& gate) {
  using enum Change;
  return {{section + ".score",
           &gate.score,
           "",
           "of an expert: softmax over all; sigmoid of its logit; softmax_chosen: over the chosen "
           "ones, which is softmax renormalised",
           identity,
           0,
           0,
           {"softmax", "sigmoid", "softmax_chosen"}},
          {section + ".renormalise", &gate.renormalise, "",
           "a token's gates are divided by their sum", identity},
          {section + ".scale", &gate.scale, "", "gates are multiplied by it", identity, least}};
}

std::vector<Option> group_options(const std::string& section, GroupConfig& group) {
  using enum Change;
  return {
      {section + ".groups", &group.groups, "", "groups of experts, equally large", identity, 1, 64},
      {section + ".groups_chosen", &group.groups_chosen, "groups",
       "groups whose experts a token may use: those whose two best scores have the largest sum",
       identity, 1, 64}};
}

// A section for every router that has keys of its own.
std::vector<Option> router_options(Config& c) {
  using enum Change;
  std::vector<Option> table = gate_options("top_k", c.top_k.gate);
  append(table, group_options("top_k", c.top_k.group));
  append(table, {{"top_k.skip_below", &c.top_k.skip_below, "",
                  "a token's lower choices whose score is less than this part of its largest are "
                  "skipped, or of each layer; hearth calibrate-skip finds it; 0: none",
                  schedule, 0, 1}});

  append(table,
         {{"capacity.factor", &c.capacity.factor, "",
           "of the copies that an expert would get of a cell with all equally loaded: so many it "
           "takes",
           identity, least},
          {"capacity.drop",
           &c.capacity.drop,
           "",
           "copies that it keeps: those of the largest score; of the earliest tokens; rank: of the "
           "tokens to which it is the first choice, then the second, each in their order",
           identity,
           0,
           0,
           {"probability", "position", "rank"}},
          {"capacity.padded", &c.capacity.padded, "",
           "multiply as many rows for every expert, zeros where it got fewer copies; changes no "
           "result",
           free}});
  append(table, gate_options("capacity", c.capacity.gate));

  append(table, {{"expert_choice.factor", &c.expert_choice.factor, "experts a token",
                  "on average, from which follows how many tokens an expert takes; 0: moe.top_k",
                  identity}});

  append(table,
         {{"top_p.threshold", &c.top_p.threshold, "",
           "probability that a token's experts reach together", identity, 0, 1},
          {"top_p.most_experts", &c.top_p.most_experts, "experts", "of a token; 0: all", identity},
          {"top_p.entropy_loss", &c.top_p.entropy_loss, "",
           "coefficient of the probabilities' entropy, a mean over tokens", schedule}});

  append(table, {{"relu.initial_lambda", &c.relu.initial_lambda, "",
                  "coefficient of the penalty on gates at the first step", identity, least},
                 {"relu.lambda_factor", &c.relu.lambda_factor, "",
                  "by which it grows after a step with more than top_k experts a token, and "
                  "shrinks otherwise",
                  identity, 1}});

  append(table, {{"bias_balanced.update", &c.bias_balanced.update, "",
                  "by which an expert's bias moves after each step", identity}});
  append(table, gate_options("bias_balanced", c.bias_balanced.gate));
  append(table, group_options("bias_balanced", c.bias_balanced.group));
  return table;
}

}  // namespace

std::vector<Option> option_table(Config& c) {
  using enum Change;
  std::vector<Option> table = {
      {"run.output", &c.run.output, "folder",
       "where checkpoints and statistics go; one run at a time", free},
      {"run.steps", &c.run.steps, "steps", "length of the schedule", schedule, 1},
      {"run.stop_step", &c.run.stop_step, "steps",
       "stop there with a checkpoint and exit status 75; 0: run to the end", free},
      {"run.seed", &c.run.seed, "", "of the initial weights and the order of the data", identity, 0,
       4294967295.0},
      {"run.reproducible", &c.run.reproducible, "",
       "bitwise the same results on any number of ranks and threads; false: gradients are summed "
       "in "
       "floating point, in half the memory",
       schedule},
      {"run.walltime_s", &c.run.walltime_s, "s",
       "stop with a checkpoint and exit status 75 when this time has passed; 0: no limit", free},
      {"run.walltime_margin_s", &c.run.walltime_margin_s, "s",
       "in a Slurm job, stop as with walltime_s so long before its end, and a step's time more: "
       "what a checkpoint takes",
       free, 0},
      {"run.log_every", &c.run.log_every, "steps",
       "steps between two progress lines where standard error is not a terminal", free, 1},
      {"run.hang_timeout_s", &c.run.hang_timeout_s, "s",
       "a run in which nothing moves for this time ends with status 1 and names the rank that the "
       "others wait for; 0: wait for ever",
       free},

      {"model.layers", &c.model.layers, "", "transformer blocks", identity, 1, 10000},
      {"model.hidden", &c.model.hidden, "", "width of the residual stream", identity, 1},
      {"model.heads", &c.model.heads, "", "attention heads", identity, 1},
      {"model.kv_heads", &c.model.kv_heads, "", "key-value heads; 0: as many as heads", identity},
      {"model.head_dim", &c.model.head_dim, "", "width of a head, even; 0: hidden / heads",
       identity},
      {"model.dense_ffn", &c.model.dense_ffn, "",
       "inner width of the SwiGLU in layers without experts", identity, 1},
      {"model.vocabulary", &c.model.vocabulary, "tokens",
       "rows of the embedding and of the head; above every token id in the data", identity, 1},
      {"model.sequence_length", &c.model.sequence_length, "tokens", "length of a sequence",
       identity, 1},
      {"model.rotary_base", &c.model.rotary_base, "", "base of the rotary embedding's angles",
       identity, 1},
      {"model.norm_epsilon", &c.model.norm_epsilon, "", "added to the mean square in RMSNorm",
       identity, least},
      {"model.init_std", &c.model.init_std, "",
       "standard deviation of initial weights; output projections get init_std / sqrt(2 layers)",
       identity, 0},
      {"model.tie_embeddings", &c.model.tie_embeddings, "", "the head is the embedding", identity},
      {"model.qk_norm", &c.model.qk_norm, "",
       "RMSNorm of every head of queries and keys before the rotary embedding", identity},
      {"model.document_mask", &c.model.document_mask, "",
       "tokens attend within their document only; positions and targets stay as without", identity},
      {"model.compute_type",
       &c.model.compute_type,
       "",
       "type of activations and products; sums, router and master weights are fp32 with bf16; "
       "fp64 is meant for tests",
       identity,
       0,
       0,
       {"fp32", "bf16", "fp64"}},
      {"model.recompute",
       &c.model.recompute,
       "",
       "block: keep only each block's input and run the block again in backward; changes no result",
       free,
       0,
       0,
       {"none", "block"}},

      {"moe.experts", &c.moe.experts, "",
       "routed experts of an MoE layer, or of each, as in 8,8,16; 0: a dense model", identity, 0,
       most_experts},
      {"moe.top_k", &c.moe.top_k, "experts",
       "experts that a token is sent to; routers with a variable number aim at it", identity, 1},
      {"moe.expert_ffn", &c.moe.expert_ffn, "", "inner width of a routed expert", identity, 1},
      {"moe.shared_ffn", &c.moe.shared_ffn, "",
       "inner width of the shared expert that every token visits; 0: none", identity},
      {"moe.dense_layers", &c.moe.dense_layers, "layers", "leading layers without experts",
       identity},
      {"moe.router", &c.moe.router, "", router_help(), identity, 0, 0, router_names()},
      {"moe.balance_loss", &c.moe.balance_loss, "",
       "coefficient of the load-balance loss; not used by relu, hash and random", schedule},
      {"moe.balance_scope",
       &c.moe.balance_scope,
       "",
       "the load that it looks at: of the cell; of each sequence; of all cells of the step before",
       schedule,
       0,
       0,
       {"cell", "sequence", "global"}},
      {"moe.z_loss", &c.moe.z_loss, "", "coefficient of the router's z loss", schedule},
      {"moe.copy_experts", &c.moe.copy_experts, "",
       "further destinations of the router that give back what they get", identity, 0,
       most_experts},
      {"moe.constant_experts", &c.moe.constant_experts, "",
       "further destinations that mix what they get with a learned vector", identity, 0,
       most_experts},
      {"moe.zero_experts", &c.moe.zero_experts, "", "further destinations that give nothing",
       identity, 0, most_experts},
      {"moe.null_experts", &c.moe.null_experts, "",
       "the same, but the balance loss sees each with the mean of their loads", identity, 0,
       most_experts},
      {"moe.light_balance", &c.moe.light_balance, "",
       "weight in the balance loss of experts without matrices", schedule},
  };
  append(table, router_options(c));
  append(
      table,
      {
          {"batch.global_batch", &c.batch.global_batch, "sequences",
           "sequences of an optimizer step", identity, 1},
          {"batch.cell_sequences", &c.batch.cell_sequences, "sequences",
           "sequences of a cell, the unit of decomposition, over which the balance loss is taken",
           identity, 1},

          {"optimizer.learning_rate", &c.optimizer.learning_rate, "", "after the warm-up",
           schedule},
          {"optimizer.min_learning_rate", &c.optimizer.min_learning_rate, "", "at the end",
           schedule},
          {"optimizer.warmup_fraction", &c.optimizer.warmup_fraction, "of steps",
           "linear warm-up from 0", schedule, 0, 1},
          {"optimizer.decay_fraction", &c.optimizer.decay_fraction, "of steps",
           "exponential decay at the end (warm-up, stable, decay)", schedule, 0, 1},
          {"optimizer.beta1", &c.optimizer.beta1, "", "decay of AdamW's first moment", schedule, 0,
           1},
          {"optimizer.beta2", &c.optimizer.beta2, "", "decay of AdamW's second moment", schedule, 0,
           1},
          {"optimizer.epsilon", &c.optimizer.epsilon, "", "added to the root of the second moment",
           schedule, least},
          {"optimizer.weight_decay", &c.optimizer.weight_decay, "",
           "decoupled; not for norm weights", schedule},
          {"optimizer.clip_norm", &c.optimizer.clip_norm, "",
           "largest norm of the gradient; 0: no clipping", schedule},
          {"optimizer.on_non_finite",
           &c.optimizer.on_non_finite,
           "",
           "a step whose loss or gradient is not finite or too large ends the run, or changes no "
           "weight "
           "and is left out of the statistics",
           schedule,
           0,
           0,
           {"stop", "skip"}},
          {"optimizer.skip_limit", &c.optimizer.skip_limit, "steps",
           "so many such steps in a row end a run that skips them", schedule, 1},

          {"data.sources", &c.data.sources, "name:prefix[:weight]",
           "token files prefix.bin and prefix.idx; one line per source", identity},
          {"data.split", &c.data.split, "train,validation,test",
           "shares of the documents, in the order of the file", identity},
          {"data.order",
           &c.data.order,
           "",
           "shuffled: Megatron's; sequential: each source in the order of its file, again and "
           "again, "
           "sources blended alike",
           identity,
           0,
           0,
           {"shuffled", "sequential"}},

          {"parallel.expert_ranks", &c.parallel.expert_ranks, "ranks",
           "ranks that share out the experts of a layer; divides the number of ranks; 0: chosen",
           free},
          {"parallel.placement", &c.parallel.placement, "file",
           "which of them owns which expert, as postprocess/place_experts.py writes it; empty: "
           "contiguous ranges; changes no result",
           free},
          {"parallel.cells",
           &c.parallel.cells,
           "",
           "which rank works on which cells of a step: contiguous ranges; source: those whose data "
           "sources' copies mostly stay on it, by the placement's lines on sources; changes no "
           "result",
           free,
           0,
           0,
           {"order", "source"}},

          {"checkpoint.every_steps", &c.checkpoint.every_steps, "steps",
           "steps between checkpoints; the last step always has one", free, 1},
          {"checkpoint.keep", &c.checkpoint.keep, "files", "newest checkpoints to keep; 0: all",
           free},
          {"checkpoint.resume", &c.checkpoint.resume, "auto, none or a file",
           "auto: from the newest good checkpoint of run.output; none: refuse if there is one",
           free},
          {"checkpoint.background", &c.checkpoint.background, "",
           "write checkpoints while training goes on, from a copy in host memory", free},

          {"statistics.every_steps", &c.statistics.every_steps, "steps",
           "interval over which routing statistics are summed", schedule, 1},
          {"statistics.probe_tokens", &c.statistics.probe_tokens, "tokens",
           "validation tokens whose routing is recorded at every checkpoint; 0: none", identity},
          {"statistics.token_counts", &c.statistics.token_counts, "",
           "count (token id, expert) pairs: layers * vocabulary * experts * 8 bytes a rank",
           identity},
          {"statistics.token_halves", &c.statistics.token_halves, "",
           "keep these counts apart for two halves of the data, to score on one what was chosen on "
           "the other; twice the memory",
           identity},
          {"statistics.drift", &c.statistics.drift, "",
           "record how far experts and routers moved between checkpoints and since the start; a "
           "rank keeps its part of the weights of the last row",
           identity},
          {"statistics.trace_every", &c.statistics.trace_every, "steps",
           "steps between two whose routing of single tokens goes to traces.h5; 0: none", schedule},
          {"statistics.trace_tokens", &c.statistics.trace_tokens, "tokens",
           "of each traced step, a random sample; 0: all", identity},
          {"statistics.trace_layers", &c.statistics.trace_layers, "all or blocks",
           "layers with experts that are traced, by the numbers of their blocks from 0, as in "
           "1,4,8",
           identity},

          {"evaluate.every_steps", &c.evaluate.every_steps, "steps",
           "steps between validation losses; 0: only at the end", schedule},
          {"evaluate.batches", &c.evaluate.batches, "global batches",
           "validation sequences per source, in global batches; 0: all there are", schedule},
      });
  return table;
}

namespace {

// The shortest text that reads back as the same number.
std::string shortest(double value) {
  char buffer[32];
  const auto general = std::chars_format::general;
  return {buffer, std::to_chars(buffer, buffer + sizeof buffer, value, general).ptr};
}

struct TextOf {
  std::vector<std::string> operator()(const bool* v) const { return {*v ? "true" : "false"}; }
  std::vector<std::string> operator()(const std::int64_t* v) const { return {std::to_string(*v)}; }
  std::vector<std::string> operator()(const double* v) const { return {shortest(*v)}; }
  std::vector<std::string> operator()(const std::string* v) const { return {*v}; }
  std::vector<std::string> operator()(const std::vector<std::string>* v) const { return *v; }
  template <class T>
  std::vector<std::string> operator()(const ByLayer<T>* v) const {
    std::string all;
    for (const T& value : v->values) {
      all += (all.empty() ? "" : ",") + (*this)(&value).front();
    }
    return {all};
  }
};

const char* change_text(Change change) {
  switch (change) {
    case Change::identity:
      return "no";
    case Change::schedule:
      return "yes, logged";
    case Change::free:
      return "yes";
  }
  return "";
}

}  // namespace

std::vector<std::string> value_texts(const Option& option) {
  return std::visit(TextOf{}, option.field);
}

std::string type_name(const Option& option) {
  constexpr const char* names[] = {
      "true or false",         "integer", "number", "text", "list", "integer or one by layer",
      "number or one by layer"};
  return names[option.field.index()];
}

std::string deck_manual() {
  Config defaults;
  std::string manual =
      "# The deck\n\n"
      "<!-- Made by `hearth keys`; change src/config/options.cpp instead. -->\n\n"
      "A deck is `[section]` headings with `key = value` lines and `#` comments. Any key can be\n"
      "overridden on the command line: `--section.key=value`. Unknown keys are errors. Paths are\n"
      "relative to the working directory. *Resume* says whether a run that continues from a\n"
      "checkpoint may change the value.\n";
  std::string section;
  for (const Option& option : option_table(defaults)) {
    const auto dot = option.key.find('.');
    if (option.key.substr(0, dot) != section) {
      section = option.key.substr(0, dot);
      manual += text("\n## [", section,
                     "]\n\n| key | type | unit | default | resume | meaning |\n"
                     "|---|---|---|---|---|---|\n");
    }
    const auto values = value_texts(option);
    const std::string value = values.empty() || values[0].empty() ? "" : "`" + values[0] + "`";
    std::string meaning = option.help;
    if (!option.choices.empty()) {
      meaning += " (one of:";
      for (const auto& choice : option.choices) meaning += " `" + choice + "`";
      meaning += ")";
    }
    manual += text("| `", option.key.substr(dot + 1), "` | ", type_name(option), " | ", option.unit,
                   " | ", value, " | ", change_text(option.change), " | ", meaning, " |\n");
  }
  return manual;
}

}  // namespace hearth
