// A wrong time of day: SESHAT_CLOCK_FILE names a file of 8 bytes, a signed count of seconds that
// is added to it. The file may change at any time: the clock jumps. Clocks that only measure how time
// passes (monotonic, boot time) are left alone, as on a machine whose date someone sets.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static const volatile int64_t* skew_s = NULL;

__attribute__((constructor)) static void map_file(void) {
  const char* file = getenv("SESHAT_CLOCK_FILE");
  const int fd = file != NULL ? open(file, O_RDONLY | O_CLOEXEC) : -1;
  if (fd < 0) return;
  void* mapped = mmap(NULL, sizeof *skew_s, PROT_READ, MAP_SHARED, fd, 0);
  if (mapped != MAP_FAILED) skew_s = mapped;
  close(fd);
}

int clock_gettime(clockid_t clock, struct timespec* now) {
  static int (*real)(clockid_t, struct timespec*) = NULL;
  if (real == NULL) real = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  const int result = real(clock, now);
  const int of_day = clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE;
  if (result == 0 && of_day && skew_s != NULL) now->tv_sec += *skew_s;
  return result;
}

// glibc's own do not come through clock_gettime above.
int gettimeofday(struct timeval* restrict now, void* restrict zone) {
  (void)zone;
  struct timespec precise;
  const int result = clock_gettime(CLOCK_REALTIME, &precise);
  now->tv_sec = precise.tv_sec;
  now->tv_usec = precise.tv_nsec / 1000;
  return result;
}

time_t time(time_t* out) {
  struct timespec precise = {0, 0};
  (void)clock_gettime(CLOCK_REALTIME, &precise);
  if (out != NULL) *out = precise.tv_sec;
  return precise.tv_sec;
}
