#include "io/output_directory.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <thread>

#include "base/error.hpp"
#include "io/replace_file.hpp"

namespace hearth {

namespace fs = std::filesystem;

namespace {

constexpr int empty_lock_attempts = 20;
constexpr std::chrono::milliseconds empty_lock_wait(50);

// Who holds a lock. The birth tells a process from a later one of the same number.
struct Holder {
  std::string host;
  long pid = 0;
  std::string birth;  // boot and start time; empty where the system does not tell
  std::string job;    // Slurm's number of it and name of the cluster; empty outside of a job
  long restarts = 0;  // of the job, before this start of it
};

std::string host_name() {
  std::array<char, 256> name{};
  ::gethostname(name.data(), name.size() - 1);
  return name.data();
}

// Empty when no such process runs.
std::optional<std::string> birth_of(long pid) {
  std::ifstream file(text("/proc/", pid, "/stat"));
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The command's name, in parentheses, may hold anything; after it come the state, field 3, and
  // the start time, field 22, in clock ticks since the boot.
  std::istringstream fields(line.substr(std::min(line.size(), line.rfind(')') + 1)));
  std::string state, field;
  fields >> state;
  for (int number = 4; number <= 22; ++number) fields >> field;
  if (state == "Z" || state == "X") return std::nullopt;  // dead, not yet buried
  std::string boot;
  std::getline(std::ifstream("/proc/sys/kernel/random/boot_id"), boot);
  return boot + " " + field;
}

std::string variable(const char* name) {
  const char* const value = std::getenv(name);
  return value == nullptr ? "" : value;
}

// This process, as a holder.
Holder this_holder() {
  const std::string job = variable("SLURM_JOB_ID");
  return {host_name(), static_cast<long>(::getpid()), birth_of(::getpid()).value_or(""),
          job.empty() ? "" : text(job, "@", variable("SLURM_CLUSTER_NAME")),
          std::atol(variable("SLURM_RESTART_COUNT").c_str())};
}

// Slurm starts a job again when it has ended the earlier start, or has given up the node of it.
bool is_earlier_start(const Holder& holder, const Holder& self) {
  return !holder.job.empty() && holder.job == self.job && holder.restarts < self.restarts;
}

bool is_alive(const Holder& holder) {
  if (!fs::exists("/proc/self/stat")) {
    return ::kill(static_cast<pid_t>(holder.pid), 0) == 0 || errno == EPERM;
  }
  const std::optional<std::string> birth = birth_of(holder.pid);
  return birth && (holder.birth.empty() || *birth == holder.birth);
}

std::string lock_content(const Holder& holder) {
  const std::string job =
      holder.job.empty() ? "" : text("job ", holder.job, " ", holder.restarts, "\n");
  return text("host ", holder.host, "\nprocess ", holder.pid, "\nbirth ", holder.birth, "\n", job);
}

std::optional<Holder> parse_lock(const std::string& content) {
  Holder holder;
  std::istringstream lines(content);
  std::string key;
  if (!(lines >> key >> holder.host) || key != "host") return std::nullopt;
  if (!(lines >> key >> holder.pid) || key != "process") return std::nullopt;
  if (!(lines >> key) || key != "birth") return std::nullopt;
  lines.ignore(1);
  std::getline(lines, holder.birth);
  if (!(lines >> key >> holder.job >> holder.restarts) || key != "job") holder.job.clear();
  return holder;
}

std::string read_all(int file) {
  std::string content(4096, '\0');
  const ssize_t bytes = ::pread(file, content.data(), content.size(), 0);
  content.resize(static_cast<std::size_t>(std::max<ssize_t>(bytes, 0)));
  return content;
}

// Replaces the content; false, with errno, when it cannot be put on the disk.
bool write_all(int file, const std::string& content) {
  return ::pwrite(file, content.data(), content.size(), 0) ==
             static_cast<ssize_t>(content.size()) &&
         ::ftruncate(file, static_cast<off_t>(content.size())) == 0 && ::fsync(file) == 0;
}

void make_folder(const std::string& path) {
  std::error_code error;
  fs::create_directories(path, error);
  if (error) throw cannot_be_written(path, error.value());
}

}  // namespace

OutputDirectory::OutputDirectory(const std::string& path)
    : path_(path), lock_(file("lock")), checkpoints_(path) {
  make_folder(path_);
  take_lock();
  try {
    const std::string& folder = checkpoints_.path();
    make_folder(folder);
    for (const char* name : {"training.h5", "routing.h5", "traces.h5", "metrics.jsonl"}) {
      if (fs::is_directory(file(name))) {
        throw input_error(file(name), ": is a folder, where a run writes a file; remove it");
      }
    }
    const std::string probe = temporary_name(folder + "/probe.h5");
    const Descriptor made(::open(probe.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0666));
    if (made.number() < 0) throw cannot_be_written(folder, errno);
    remove_temporary_files();
  } catch (...) {
    discard(lock_);
    throw;
  }
}

OutputDirectory::~OutputDirectory() {
  const Descriptor lock(::open(lock_.c_str(), O_RDONLY | O_CLOEXEC));
  // Someone may have removed the lock by hand and another run taken it.
  if (lock.number() >= 0 && read_all(lock.number()) == content_) discard(lock_);
}

void OutputDirectory::take_lock() {
  const Holder self = this_holder();
  content_ = lock_content(self);
  for (int attempt = 0;; ++attempt) {
    const Descriptor made(::open(lock_.c_str(), O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0666));
    const bool is_maker = made.number() >= 0;
    if (!is_maker && errno != EEXIST) throw cannot_be_written(path_, errno);
    const Descriptor opened(is_maker ? -1 : ::open(lock_.c_str(), O_RDWR | O_CLOEXEC));
    const Descriptor& found = is_maker ? made : opened;
    if (found.number() < 0 && errno == ENOENT) {
      if (fs::is_symlink(fs::symlink_status(lock_))) {
        throw input_error(lock_, ": is a link to nothing; remove it");
      }
      continue;  // released meanwhile
    }
    if (found.number() < 0) throw cannot_be_written(lock_, errno);
    // Only one of several runs that find the holder dead, or no name yet, may take over. They are
    // on one host, so the kernel's lock decides among them; the later ones read the winner's name.
    ::flock(found.number(), LOCK_EX);
    struct stat status {};
    if (::fstat(found.number(), &status) == 0 && status.st_nlink == 0) continue;
    const std::string content = read_all(found.number());
    if (content.empty() && !is_maker && attempt < empty_lock_attempts) {
      std::this_thread::sleep_for(empty_lock_wait);  // its maker is about to write it
      continue;
    }
    if (content.empty()) {  // this run's own, or its maker died before it wrote its name
      if (write_all(found.number(), content_)) return;
      const int error = errno;
      discard(lock_);
      throw cannot_be_written(path_, error);
    }
    const std::optional<Holder> holder = parse_lock(content);
    if (!holder) {
      throw input_error(lock_, ": does not name who holds it; remove it if no run writes ", path_);
    }
    const bool gone = is_earlier_start(*holder, self);
    if (!gone && holder->host != self.host) {
      throw input_error(path_, ": is in use by process ", holder->pid, " on host ", holder->host,
                        "; if that run is gone, remove ", lock_);
    }
    if (!gone && is_alive(*holder)) {
      throw input_error(path_, ": is in use by process ", holder->pid, " on this host, ",
                        holder->host);
    }
    if (!write_all(found.number(), content_)) throw cannot_be_written(lock_, errno);
    return;
  }
}

void OutputDirectory::remove_temporary_files() const {
  for (const std::string& folder : {path_, checkpoints_.path()}) {
    for (const fs::directory_entry& entry : fs::directory_iterator(folder)) {
      const std::string name = entry.path().filename().string();
      const std::string ending = text(".h5", temporary_suffix);
      if (name.size() > ending.size() && name.ends_with(ending)) discard(entry.path().string());
    }
  }
}

std::string OutputDirectory::file(const std::string& name) const {
  return (fs::path(path_) / name).string();
}

void OutputDirectory::prune(std::int64_t keep) const {
  if (keep <= 0) return;
  const std::vector<CheckpointFolder::Entry> found = checkpoints_.list();
  for (std::size_t i = static_cast<std::size_t>(keep); i < found.size(); ++i) {
    discard(found[i].path);
  }
}

std::vector<std::string> OutputDirectory::set_aside_beyond(std::int64_t step) const {
  std::vector<std::string> renamed;
  for (const CheckpointFolder::Entry& checkpoint : checkpoints_.list()) {
    if (checkpoint.step <= step) break;  // the newest comes first
    publish(checkpoint.path, renamed.emplace_back(checkpoint.path + ".aside"));
  }
  return renamed;
}

}  // namespace hearth
