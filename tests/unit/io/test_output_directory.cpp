#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "catch.hpp"
#include "io/output_directory.hpp"
#include "unit/io/checkpoint_fixture.hpp"

using namespace hearth;
using namespace hearth::fixture;

namespace {

// A process that waits to be ended.
class Child {
 public:
  Child() : pid_(::fork()) {
    if (pid_ == 0) {
      for (;;) ::pause();
    }
  }
  ~Child() { end(); }
  Child(const Child&) = delete;
  Child& operator=(const Child&) = delete;
  [[nodiscard]] pid_t pid() const { return pid_; }
  void end() {
    if (pid_ <= 0) return;
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
    pid_ = -1;
  }

 private:
  pid_t pid_;
};

// This process is part of a start of a Slurm job.
class SlurmJob {
 public:
  SlurmJob(const char* id, const char* restarts) {
    ::setenv("SLURM_JOB_ID", id, 1);
    ::setenv("SLURM_RESTART_COUNT", restarts, 1);
    ::setenv("SLURM_CLUSTER_NAME", "cluster", 1);
  }
  ~SlurmJob() {
    for (const char* name : {"SLURM_JOB_ID", "SLURM_RESTART_COUNT", "SLURM_CLUSTER_NAME"}) {
      ::unsetenv(name);
    }
  }
  SlurmJob(const SlurmJob&) = delete;
  SlurmJob& operator=(const SlurmJob&) = delete;
};

// Replaces what follows `key` on its line.
std::string with(std::string content, const std::string& key, const std::string& value) {
  const std::size_t begin = content.find(key) + key.size();
  return content.replace(begin, content.find('\n', begin) - begin, value);
}

std::string refusal(const std::string& path) {
  int status = 0;
  const std::string message = message_of([&] { const OutputDirectory output(path); }, &status);
  if (!message.empty()) CHECK(status == 2);
  return message;
}

}  // namespace

TEST_CASE("the output directory is made and named") {
  const TemporaryFolder folder;
  const std::string path = folder / "runs/one";
  {
    const OutputDirectory output(path);
    CHECK(std::filesystem::is_directory(path + "/checkpoints"));
    CHECK(output.file("training.h5") == path + "/training.h5");
    CHECK(output.checkpoints().file(42) == path + "/checkpoints/step_00000042.h5");
    CHECK(output.checkpoints().file(1234567890) == path + "/checkpoints/step_1234567890.h5");
    CHECK(std::filesystem::exists(path + "/lock"));
  }
  CHECK_FALSE(std::filesystem::exists(path + "/lock"));
  CHECK(std::filesystem::is_empty(path + "/checkpoints"));
}

TEST_CASE("a directory that cannot be written is refused") {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "");
  CHECK(refusal(folder / "file/run") ==
        (folder / "file/run") + ": cannot be written: Not a directory");
  CHECK(refusal("/proc").find("/proc: cannot be written: ") == 0);
  std::filesystem::create_directory(folder / "run");
  write_bytes(folder / "run/checkpoints", "");
  CHECK(refusal(folder / "run").find((folder / "run/checkpoints") + ": cannot be written: ") == 0);
  CHECK_FALSE(std::filesystem::exists(folder / "run/lock"));
}

TEST_CASE("a folder in the place of a file is refused before anything is done") {
  const TemporaryFolder folder;
  std::filesystem::create_directories(folder / "run/routing.h5");
  CHECK(refusal(folder / "run").find((folder / "run/routing.h5") + ": is a folder") == 0);
  CHECK_FALSE(std::filesystem::exists(folder / "run/lock"));
}

TEST_CASE("a lock that is a link to nothing is refused") {
  const TemporaryFolder folder;
  std::filesystem::create_directory(folder / "run");
  std::filesystem::create_symlink(folder / "nothing", folder / "run/lock");
  CHECK(refusal(folder / "run") == (folder / "run/lock") + ": is a link to nothing; remove it");
}

TEST_CASE("the lock keeps a second run out") {
  const TemporaryFolder folder;
  const std::string path = folder / "run", lock = path + "/lock";
  std::string mine;
  {
    const OutputDirectory output(path);
    CHECK(refusal(path).find(
              text(path, ": is in use by process ", ::getpid(), " on this host, ")) == 0);
    mine = read_bytes(lock);
  }
  SECTION("alive, of unknown birth") {
    const Child child;
    write_bytes(lock, with(with(mine, "process ", text(child.pid())), "birth ", ""));
    CHECK(refusal(path).find(text(path, ": is in use by process ", child.pid())) == 0);
  }
  SECTION("dead") {
    Child child;
    const std::string theirs = with(with(mine, "process ", text(child.pid())), "birth ", "");
    child.end();
    write_bytes(lock, theirs);
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("a later process of the same number") {
    const Child child;
    write_bytes(lock, with(mine, "process ", text(child.pid())));  // with this process's birth
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("a longer content is replaced whole") {
    write_bytes(lock, with(with(mine, "process ", "999999999"), "birth ", std::string(500, 'x')));
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("another host") {
    write_bytes(lock, with(mine, "host ", "elsewhere"));
    CHECK(refusal(path) == text(path, ": is in use by process ", ::getpid(),
                                " on host elsewhere; if that run is gone, remove ", lock));
    CHECK(std::filesystem::exists(lock));
  }
  SECTION("unreadable") {
    write_bytes(lock, "what is this");
    CHECK(refusal(path) ==
          text(lock, ": does not name who holds it; remove it if no run writes ", path));
  }
  SECTION("of a run that was killed before it wrote its name") {
    write_bytes(lock, "");
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("taken from us by hand") {
    {
      const OutputDirectory output(path);
      write_bytes(lock, with(mine, "host ", "elsewhere"));
    }
    CHECK(std::filesystem::exists(lock));
  }
}

TEST_CASE("a Slurm job takes over the lock of its own earlier start only") {
  const TemporaryFolder folder;
  const std::string path = folder / "run", lock = path + "/lock";
  const SlurmJob job("12", "1");
  std::string mine;
  {
    const OutputDirectory output(path);
    mine = read_bytes(lock);
  }
  REQUIRE(mine.ends_with("\njob 12@cluster 1\n"));
  const std::string elsewhere = with(mine, "host ", "elsewhere");
  SECTION("an earlier start, on another host") {
    write_bytes(lock, with(elsewhere, "job ", "12@cluster 0"));
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("an earlier start of unknown birth, on this host") {
    const Child child;
    write_bytes(lock, with(with(with(mine, "process ", text(child.pid())), "birth ", ""), "job ",
                           "12@cluster 0"));
    const OutputDirectory output(path);
    CHECK(read_bytes(lock) == mine);
  }
  SECTION("this start, another job, another cluster, no job") {
    for (const char* other : {"12@cluster 1", "11@cluster 0", "12@clusters 0"}) {
      write_bytes(lock, with(elsewhere, "job ", other));
      CHECK(refusal(path).find(" on host elsewhere; if that run is gone") != std::string::npos);
    }
    write_bytes(lock, elsewhere.substr(0, elsewhere.find("job ")));
    CHECK(refusal(path).find(" on host elsewhere; if that run is gone") != std::string::npos);
  }
}

TEST_CASE("of many runs that find a dead holder one takes over") {
  const TemporaryFolder folder;
  const std::string path = folder / "run", lock = path + "/lock";
  { const OutputDirectory output(path); }
  write_bytes(lock, text(
                        "host ",
                        [] {
                          char name[256] = {};
                          ::gethostname(name, sizeof name - 1);
                          return std::string(name);
                        }(),
                        "\nprocess 999999999\nbirth x\n"));
  constexpr int runs = 8;
  std::vector<pid_t> children;
  for (int run = 0; run < runs; ++run) {
    const pid_t pid = ::fork();
    if (pid == 0) {
      bool won = false;
      try {
        const OutputDirectory output(path);
        won = true;
        ::usleep(1000000);  // longer than the others need to be refused
      } catch (const Error&) {
      }
      ::_exit(won ? 1 : 0);
    }
    children.push_back(pid);
  }
  int winners = 0;
  for (const pid_t child : children) {
    int status = 0;
    ::waitpid(child, &status, 0);
    winners += WEXITSTATUS(status);
  }
  CHECK(winners == 1);
  CHECK_FALSE(std::filesystem::exists(lock));
}

TEST_CASE("checkpoints are listed newest first, pruned, and stale files removed") {
  const TemporaryFolder folder;
  const std::string path = folder / "run";
  { const OutputDirectory output(path); }
  const std::string stale = path + "/checkpoints/step_00000009.h5.tmp";
  write_bytes(stale, "");
  write_bytes(path + "/training.h5.tmp", "");
  write_bytes(path + "/notes.tmp", "");
  const OutputDirectory output(path);
  CHECK_FALSE(std::filesystem::exists(stale));
  CHECK_FALSE(std::filesystem::exists(path + "/training.h5.tmp"));
  CHECK(std::filesystem::exists(path + "/notes.tmp"));

  CHECK(output.checkpoints().list().empty());
  for (const std::int64_t step : {7, 100, 123456789, 99})
    write_bytes(output.checkpoints().file(step), "");
  write_bytes(path + "/checkpoints/step_12.h5", "");
  write_bytes(path + "/checkpoints/step_00000012.h5.old", "");
  const auto steps = [&] {
    std::vector<std::int64_t> list;
    for (const auto& checkpoint : output.checkpoints().list()) list.push_back(checkpoint.step);
    return list;
  };
  CHECK(steps() == std::vector<std::int64_t>{123456789, 100, 99, 7});
  output.prune(0);
  output.prune(4);
  CHECK(steps() == std::vector<std::int64_t>{123456789, 100, 99, 7});
  output.prune(3);
  CHECK(steps() == std::vector<std::int64_t>{123456789, 100, 99});

  const auto file = [&](std::int64_t step) { return output.checkpoints().file(step); };
  CHECK(output.set_aside_beyond(123456789).empty());
  CHECK(output.set_aside_beyond(99) ==
        std::vector<std::string>{file(123456789) + ".aside", file(100) + ".aside"});
  CHECK(std::filesystem::exists(file(100) + ".aside"));
  CHECK(steps() == std::vector<std::int64_t>{99});
}

TEST_CASE("checkpoints are listed without touching anything") {
  const TemporaryFolder folder;
  const CheckpointFolder checkpoints(folder / "run");
  CHECK(checkpoints.list().empty());
  CHECK_FALSE(std::filesystem::exists(folder / "run"));
  const OutputDirectory output(folder / "run");
  write_bytes(checkpoints.file(3), "");
  write_bytes(checkpoints.file(4) + ".tmp", "");
  REQUIRE(checkpoints.list().size() == 1);
  CHECK(checkpoints.list()[0].path == checkpoints.file(3));
  CHECK(std::filesystem::exists(checkpoints.file(4) + ".tmp"));
}
