#include <cstdio>
#include <filesystem>

#include "catch.hpp"
#include "io/heartbeat_file.hpp"

using namespace hearth;

TEST_CASE("heartbeats of ranks stand beside each other") {
  const std::string path =
      (std::filesystem::temp_directory_path() / "hearth_test_heartbeat").string();
  const HeartbeatFile file(path, 3);
  std::vector<Heartbeat> all;
  CHECK_FALSE(file.read(all));  // none yet
  CHECK_FALSE(file.write(0, {}));
  file.create();
  REQUIRE(file.read(all));
  REQUIRE(all.size() == 3);
  CHECK(all[2].ticks == 0);

  Heartbeat second;
  second.ticks = 5;
  second.step = 812;
  std::snprintf(second.phase, sizeof second.phase, "dispatch");
  REQUIRE(file.write(1, second));
  REQUIRE(file.read(all));
  CHECK(all[0].ticks == 0);
  CHECK(all[1].ticks == 5);
  CHECK(all[1].step == 812);
  CHECK(std::string(all[1].phase) == "dispatch");
  CHECK(all[2].ticks == 0);

  file.create();  // over what an earlier run has left
  REQUIRE(file.read(all));
  CHECK(all[1].ticks == 0);
  file.remove();
  CHECK_FALSE(std::filesystem::exists(path));
  CHECK_FALSE(file.write(1, second));  // nothing comes back
  CHECK_FALSE(std::filesystem::exists(path));
}
