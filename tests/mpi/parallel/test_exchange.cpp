// Collectives on device arrays, with the message limit lowered so that every message is cut.
#include "base/error.hpp"
#include "catch.hpp"
#include "parallel/device_exchange.hpp"

using namespace hearth;

namespace {

Communicator small_messages(Index bytes) {
  Communicator world = Communicator::world();
  world.set_message_limit_bytes(bytes);
  return world;
}

}  // namespace

TEST_CASE("rows reach the rank that they are for") {
  const Communicator world = small_messages(40);
  const int ranks = world.size(), me = world.rank();
  const DeviceExchange exchange(world);
  // Rank s sends (s + 2 r) % 4 rows to rank r; each element tells where it comes from.
  const auto rows_between = [](int from, int to) { return Index{(from + 2 * to) % 4}; };
  std::vector<Index> sent, received;
  Index all_sent = 0, all_received = 0;
  for (int r = 0; r < ranks; ++r) {
    all_sent += sent.emplace_back(rows_between(me, r));
    all_received += received.emplace_back(rows_between(r, me));
  }
  constexpr Index width = 3;
  const HostArray2<double> out("out", all_sent, width), in("in", all_received, width);
  Index row = 0;
  for (int r = 0; r < ranks; ++r) {
    for (Index i = 0; i < rows_between(me, r); ++i, ++row) {
      for (Index c = 0; c < width; ++c) out(row, c) = 1000 * me + 100 * r + 10.0 * i + c;
    }
  }
  const auto send = Kokkos::create_mirror_view_and_copy(Memory(), out);
  const Array2<double> receive("receive", all_received, width);
  exchange.all_to_all<double>(send, sent, receive, received);
  Kokkos::deep_copy(in, receive);
  row = 0;
  for (int r = 0; r < ranks; ++r) {
    for (Index i = 0; i < rows_between(r, me); ++i, ++row) {
      for (Index c = 0; c < width; ++c) CHECK(in(row, c) == 1000 * r + 100 * me + 10.0 * i + c);
    }
  }
}

TEST_CASE("sums are shared out and shares are gathered") {
  for (const Index limit : {8, 24, 1 << 20}) {
    const Communicator world = small_messages(limit);
    const int ranks = world.size(), me = world.rank();
    const DeviceExchange exchange(world);
    std::vector<Index> counts;
    Index total = 0, first = 0;
    for (int r = 0; r < ranks; ++r) {
      if (r == me) first = total;
      total += counts.emplace_back(r == 1 ? 0 : 5 + r);
    }
    const Index mine = counts[static_cast<std::size_t>(me)];
    const Array1<std::int64_t> values("values", total);
    const auto host = Kokkos::create_mirror_view(values);
    for (Index i = 0; i < total; ++i) host(i) = (me + 1) * i;
    Kokkos::deep_copy(values, host);
    exchange.reduce_scatter<std::int64_t>(values, counts);
    const auto part = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(),
                                                          run_of(values, first, first + mine));
    for (Index i = 0; i < mine; ++i) CHECK(part(i) == (first + i) * ranks * (ranks + 1) / 2);

    // In floating point the same, of numbers that it adds exactly.
    const Array1<double> plain("plain", total);
    const auto plain_host = Kokkos::create_mirror_view(plain);
    for (Index i = 0; i < total; ++i) plain_host(i) = 0.5 * static_cast<double>((me + 1) * i);
    Kokkos::deep_copy(plain, plain_host);
    exchange.reduce_scatter<double>(plain, counts);
    const auto plain_part = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(),
                                                                run_of(plain, first, first + mine));
    for (Index i = 0; i < mine; ++i) CHECK(2 * plain_part(i) == static_cast<double>(part(i)));

    const Array1<float> gathered("gathered", total);
    Kokkos::deep_copy(run_of(gathered, first, first + mine), static_cast<float>(me));
    exchange.all_gather<float>(gathered, counts);
    const auto all = Kokkos::create_mirror_view_and_copy(Kokkos::HostSpace(), gathered);
    Index at = 0;
    for (int r = 0; r < ranks; ++r) {
      for (Index i = 0; i < counts[static_cast<std::size_t>(r)]; ++i) CHECK(all(at++) == float(r));
    }
  }
}

TEST_CASE("an error on one rank is every rank's error") {
  const Communicator world = Communicator::world();
  const int last = world.size() - 1;
  try {
    world.together([&] {
      if (world.rank() == last) throw input_error("a file is bad");
    });
    FAIL("nothing was thrown");
  } catch (const CollectiveError& error) {
    CHECK(error.status() == 2);
    CHECK(std::string(error.what()) == "a file is bad");
  }
  CHECK_NOTHROW(world.together([] {}));
  CHECK(world.broadcast(world.is_first() ? "first" : "") == "first");
  CHECK(small_messages(2).broadcast(world.is_first() ? "longer" : "") == "longer");
  CHECK(world.sum(1) == world.size());
}

TEST_CASE("rows that do not come as announced are an error") {
  const Communicator world = Communicator::world();
  // NCCL would wait for the rest of them.
  if (world.size() == 1 || !is_host_array<Array1<double>>) return;
  const DeviceExchange exchange(world);
  const int ranks = world.size(), next = (world.rank() + 1) % ranks;
  std::vector<Index> sent(static_cast<std::size_t>(ranks), 1), received = sent;
  received[static_cast<std::size_t>(next)] = 2;  // it sends one
  const Array2<double> send("send", ranks, 3), receive("receive", ranks + 1, 3);
  auto transfer = exchange.start_all_to_all<double>(send, sent, receive, received);
  CHECK_THROWS_WITH(transfer.finish(), "rows from rank " + std::to_string(next) +
                                           " of the exchange: 24 bytes came, 48 were announced");
}

TEST_CASE("ranks count the same collective operations") {
  const Communicator world = Communicator::world();
  const Communicator half = world.split(world.rank() % 2);
  const std::int64_t before = world.pulse()->read().collectives;
  half.barrier();
  const DeviceExchange exchange(half);
  const std::vector<Index> none(static_cast<std::size_t>(half.size()), 0);
  const Array2<double> send("send", 0, 3), receive("receive", 0, 3);
  exchange.start_all_to_all<double>(send, none, receive, none).finish();
  exchange.reduce_scatter(Array1<std::int64_t>(), none);
  const Pulse::Reading after = world.pulse()->read();
  CHECK(after.collectives >= before + 2);
  CHECK_FALSE(after.waiting);
  CHECK(world.max(after.collectives) == world.min(after.collectives));
}
