// A slow disk: what makes data durable takes SESHAT_FSYNC_DELAY_MS milliseconds longer. With
// SESHAT_FSYNC_DELAY_WHILE=FILE only as long as FILE exists.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

static void delay(void) {
  const char* ms = getenv("SESHAT_FSYNC_DELAY_MS");
  const char* file = getenv("SESHAT_FSYNC_DELAY_WHILE");
  if (ms == NULL || (file != NULL && access(file, F_OK) != 0)) return;
  const long delay_ms = strtol(ms, NULL, 10);
  struct timespec left = {delay_ms / 1000, delay_ms % 1000 * 1000000};
  while (nanosleep(&left, &left) != 0 && errno == EINTR) {
  }
}

int fsync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fsync");
  delay();
  return real(fd);
}

int fdatasync(int fd) {
  int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
  delay();
  return real(fd);
}

int sync_file_range(int fd, off64_t offset, off64_t size, unsigned int flags) {
  int (*real)(int, off64_t, off64_t, unsigned int) =
      (int (*)(int, off64_t, off64_t, unsigned int))dlsym(RTLD_NEXT, "sync_file_range");
  delay();
  return real(fd, offset, size, flags);
}
