// A library that is put before the C library (LD_PRELOAD) and lets one of its calls fail, or its clock jump.
//
//     EINFIELD_FAULT=CALL:N:ERRNO    the Nth call from 1 fails, counted from the beginning of main()
//     EINFIELD_FAULT=CALL:N+:ERRNO   and every later one
//     EINFIELD_FAULT_REACHED=FILE    is made when a call has failed
//
// CALL: open write fsync rename unlink mkdir flock fork pipe pthread_create malloc; clock lets the calendar's time jump
// back and forth by years.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include <atomic>

extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
}

namespace {

std::atomic<bool> begun{false};
std::atomic<long> calls{0};

/// Whether this call of `name` is to fail; sets errno.
bool fails(const char* name) {
  if (!begun) return false;
  const char* fault = getenv("EINFIELD_FAULT");
  const size_t length = strlen(name);
  if (!fault || strncmp(fault, name, length) != 0 || fault[length] != ':') return false;
  char* end = nullptr;
  const long n = strtol(fault + length + 1, &end, 10), call = ++calls;
  const bool later_too = *end == '+';
  if (call != n && !(later_too && call > n)) return false;
  if (const char* file = getenv("EINFIELD_FAULT_REACHED")) {
    const long descriptor = syscall(SYS_openat, AT_FDCWD, file, O_CREAT | O_WRONLY, 0600);
    if (descriptor >= 0) syscall(SYS_close, descriptor);
  }
  errno = atoi(end + (later_too ? 2 : 1));
  return true;
}

template <class Function>
Function* next(const char* name) {
  return reinterpret_cast<Function*>(dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

/// What main() calls first.
sighandler_t signal(int number, sighandler_t handler) noexcept {
  begun = true;
  return next<sighandler_t(int, sighandler_t)>("signal")(number, handler);
}

int open(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  if (fails("open")) return -1;
  return static_cast<int>(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
int open64(const char* path, int flags, ...) {
  va_list arguments;
  va_start(arguments, flags);
  const mode_t mode = flags & O_CREAT ? va_arg(arguments, mode_t) : 0;
  va_end(arguments);
  return open(path, flags, mode);
}
ssize_t write(int descriptor, const void* bytes, size_t size) {
  if (descriptor > 2 && fails("write")) return -1;
  return syscall(SYS_write, descriptor, bytes, size);
}
int fsync(int descriptor) {
  if (fails("fsync")) return -1;
  return static_cast<int>(syscall(SYS_fsync, descriptor));
}
int rename(const char* from, const char* to) noexcept {
  if (fails("rename")) return -1;
  return static_cast<int>(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}
int unlink(const char* path) noexcept {
  if (fails("unlink")) return -1;
  return static_cast<int>(syscall(SYS_unlinkat, AT_FDCWD, path, 0));
}
int mkdir(const char* path, mode_t mode) noexcept {
  if (fails("mkdir")) return -1;
  return static_cast<int>(syscall(SYS_mkdirat, AT_FDCWD, path, mode));
}
int flock(int descriptor, int operation) noexcept {
  if (fails("flock")) return -1;
  return static_cast<int>(syscall(SYS_flock, descriptor, operation));
}
int pipe2(int ends[2], int flags) noexcept {
  if (fails("pipe")) return -1;
  return static_cast<int>(syscall(SYS_pipe2, ends, flags));
}
pid_t fork() noexcept {
  if (fails("fork")) return -1;
  return next<pid_t()>("fork")();
}
int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*start)(void*),
                   void* argument) noexcept {
  if (fails("pthread_create")) return errno;
  return next<int(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create")(thread, attributes,
                                                                                                 start, argument);
}

void* malloc(size_t size) noexcept {
  return fails("malloc") ? nullptr : __libc_malloc(size);
}
void* calloc(size_t count, size_t size) noexcept {
  return fails("malloc") ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* pointer, size_t size) noexcept {
  return fails("malloc") ? nullptr : __libc_realloc(pointer, size);
}

int clock_gettime(clockid_t clock, timespec* now) noexcept {
  const long result = syscall(SYS_clock_gettime, clock, now);
  static std::atomic<long> asked{0};
  const char* fault = getenv("EINFIELD_FAULT");
  if (clock == CLOCK_REALTIME && fault && strcmp(fault, "clock") == 0)
    now->tv_sec += (++asked % 2 ? 1 : -1) * 100'000'000L * (asked % 7);
  return static_cast<int>(result);
}
time_t time(time_t* where) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  if (where) *where = now.tv_sec;
  return now.tv_sec;
}
int gettimeofday(timeval* where, void*) noexcept {
  timespec now{};
  clock_gettime(CLOCK_REALTIME, &now);
  *where = {now.tv_sec, now.tv_nsec / 1000};
  return 0;
}

}  // extern "C"
