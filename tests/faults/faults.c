#define _GNU_SOURCE
#include "faults.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum { KILL = -1, SHORT = -2, END = -3, WAIT = -4 }; /* effects that are no errno */

/* What a call does to a file. */
enum kind { CHANGE, READ };

static const struct {
  const char* name;
  int effect;
  enum kind kind;
} effects[] = {{"EIO", EIO, CHANGE},        {"ENOSPC", ENOSPC, CHANGE},  {"EDQUOT", EDQUOT, CHANGE},
               {"EROFS", EROFS, CHANGE},    {"EINTR", EINTR, CHANGE},    {"KILL", KILL, CHANGE},
               {"WAIT", WAIT, CHANGE},      {"SHORT", SHORT, CHANGE},    {"READ_EIO", EIO, READ},
               {"READ_EINTR", EINTR, READ}, {"READ_SHORT", SHORT, READ}, {"READ_END", END, READ}};

static int armed = 0, effect = 0, at = 0, and_later = 0;
static enum kind counted = CHANGE;
static char part[4096] = "";
static const char* log_path = NULL;
static atomic_int calls = 0;

void fault_arm(const char* fault) {
  char name[16] = "", plus = ' ';
  armed = 0;
  calls = 0;
  if (fault == NULL) return;
  if (sscanf(fault, "%15s %d%c %4095s", name, &at, &plus, part) != 4) abort();
  and_later = plus == '+';
  effect = 0;
  for (size_t i = 0; i < sizeof effects / sizeof *effects; ++i) {
    if (strcmp(name, effects[i].name) != 0) continue;
    effect = effects[i].effect;
    counted = effects[i].kind;
  }
  if (effect == 0) abort();
  armed = 1;
}

int fault_calls(void) {
  return calls;
}

__attribute__((constructor)) static void arm_by_environment(void) {
  const char* const wanted = getenv("HEARTH_FAULT_RANK");
  const char* const rank = getenv("OMPI_COMM_WORLD_RANK");
  if (wanted != NULL && (rank == NULL || strcmp(wanted, rank) != 0)) return;
  log_path = getenv("HEARTH_FAULT_CALLS");
  fault_arm(getenv("HEARTH_FAULT"));
}

static void note(int call, const char* function, const char* path) {
  char line[4400];
  const int length = snprintf(line, sizeof line, "%d %s %s\n", call, function, path);
  const long file =
      syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0 || syscall(SYS_write, file, line, length) != length) abort();
  syscall(SYS_close, file);
}

/* What happens to this call: 0 nothing, an errno, SHORT or END. */
static int fate(enum kind kind, const char* function, const char* path) {
  if (!armed || kind != counted || path == NULL || strstr(path, part) == NULL) return 0;
  const int call = ++calls;
  if (log_path != NULL) note(call, function, path);
  if (call != at && !(and_later && call > at)) return 0;
  if (effect == KILL) raise(SIGKILL);
  if (effect == WAIT) sleep(6);
  return effect;
}

static int fate_of_file(enum kind kind, const char* function, int file) {
  if (!armed || kind != counted) return 0;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const ssize_t length = readlink(link, path, sizeof path - 1);
  if (length < 0) return 0;
  path[length] = '\0';
  return fate(kind, function, path);
}

#define SYSTEMS_OWN(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define RETURN_ERROR(error) \
  do {                      \
    errno = error;          \
    return -1;              \
  } while (0)
#define FAIL_IF(fate_of_call)                             \
  do {                                                    \
    const int error = fate_of_call;                       \
    if (error > 0 && error != EINTR) RETURN_ERROR(error); \
  } while (0)
#define FAIL_OR_SHORTEN(fate_of_call, count)            \
  do {                                                  \
    const int error = fate_of_call;                     \
    if (error > 0) RETURN_ERROR(error);                 \
    if (error == SHORT && count > 1) count = count / 2; \
    if (error == END) return 0;                         \
  } while (0)

ssize_t read(int file, void* bytes, size_t count) {
  FAIL_OR_SHORTEN(fate_of_file(READ, "read", file), count);
  return SYSTEMS_OWN(read)(file, bytes, count);
}

ssize_t pread(int file, void* bytes, size_t count, off_t offset) {
  FAIL_OR_SHORTEN(fate_of_file(READ, "pread", file), count);
  return SYSTEMS_OWN(pread)(file, bytes, count, offset);
}

ssize_t pread64(int file, void* bytes, size_t count, off64_t offset) {
  FAIL_OR_SHORTEN(fate_of_file(READ, "pread", file), count);
  return SYSTEMS_OWN(pread64)(file, bytes, count, offset);
}

ssize_t write(int file, const void* bytes, size_t count) {
  FAIL_OR_SHORTEN(fate_of_file(CHANGE, "write", file), count);
  return SYSTEMS_OWN(write)(file, bytes, count);
}

ssize_t pwrite(int file, const void* bytes, size_t count, off_t offset) {
  FAIL_OR_SHORTEN(fate_of_file(CHANGE, "pwrite", file), count);
  return SYSTEMS_OWN(pwrite)(file, bytes, count, offset);
}

ssize_t pwrite64(int file, const void* bytes, size_t count, off64_t offset) {
  FAIL_OR_SHORTEN(fate_of_file(CHANGE, "pwrite", file), count);
  return SYSTEMS_OWN(pwrite64)(file, bytes, count, offset);
}

ssize_t writev(int file, const struct iovec* pieces, int count) {
  FAIL_OR_SHORTEN(fate_of_file(CHANGE, "writev", file), count);
  return SYSTEMS_OWN(writev)(file, pieces, count);
}

ssize_t pwritev(int file, const struct iovec* pieces, int count, off_t offset) {
  FAIL_OR_SHORTEN(fate_of_file(CHANGE, "pwritev", file), count);
  return SYSTEMS_OWN(pwritev)(file, pieces, count, offset);
}

int fsync(int file) {
  FAIL_IF(fate_of_file(CHANGE, "fsync", file));
  return SYSTEMS_OWN(fsync)(file);
}

int fdatasync(int file) {
  FAIL_IF(fate_of_file(CHANGE, "fdatasync", file));
  return SYSTEMS_OWN(fdatasync)(file);
}

int ftruncate(int file, off_t bytes) {
  FAIL_IF(fate_of_file(CHANGE, "ftruncate", file));
  return SYSTEMS_OWN(ftruncate)(file, bytes);
}

int ftruncate64(int file, off64_t bytes) {
  FAIL_IF(fate_of_file(CHANGE, "ftruncate", file));
  return SYSTEMS_OWN(ftruncate64)(file, bytes);
}

int fallocate(int file, int mode, off_t offset, off_t bytes) {
  FAIL_IF(fate_of_file(CHANGE, "fallocate", file));
  return SYSTEMS_OWN(fallocate)(file, mode, offset, bytes);
}

int fallocate64(int file, int mode, off64_t offset, off64_t bytes) {
  FAIL_IF(fate_of_file(CHANGE, "fallocate", file));
  return SYSTEMS_OWN(fallocate64)(file, mode, offset, bytes);
}

int rename(const char* from, const char* to) {
  FAIL_IF(fate(CHANGE, "rename", from));
  return SYSTEMS_OWN(rename)(from, to);
}

int unlink(const char* path) {
  (void)(effect == KILL ? fate(CHANGE, "unlink", path) : 0);
  return SYSTEMS_OWN(unlink)(path);
}

int mkdir(const char* path, mode_t mode) {
  FAIL_IF(fate(CHANGE, "mkdir", path));
  return SYSTEMS_OWN(mkdir)(path, mode);
}

static enum kind kind_of(int flags) {
  return (flags & O_ACCMODE) != O_RDONLY || (flags & O_CREAT) != 0 ? CHANGE : READ;
}

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = va_arg(list, mode_t);
  va_end(list);
  FAIL_IF(fate(kind_of(flags), "open", path));
  return SYSTEMS_OWN(open)(path, flags, mode);
}

int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = va_arg(list, mode_t);
  va_end(list);
  FAIL_IF(fate(kind_of(flags), "open", path));
  return SYSTEMS_OWN(open64)(path, flags, mode);
}
