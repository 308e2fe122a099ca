// A dying disk: from the moment that the file named by SESHAT_FSYNC_FAILS_IF exists, nothing becomes
// durable any more, and every call that should make it so fails with EIO.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void) {
  const char* file = getenv("SESHAT_FSYNC_FAILS_IF");
  const int saved = errno;
  const int failing = file != NULL && access(file, F_OK) == 0;
  errno = failing ? EIO : saved;
  return failing;
}

int fsync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  return fails() ? -1 : real(fd);
}

int fdatasync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  return fails() ? -1 : real(fd);
}

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned int flags) {
  int (*real)(int, off64_t, off64_t, unsigned int) =
      (int (*)(int, off64_t, off64_t, unsigned int))dlsym(RTLD_NEXT, "sync_file_range");
  return fails() ? -1 : real(fd, offset, size, flags);
}
