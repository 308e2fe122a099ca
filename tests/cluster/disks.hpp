// tests/cluster/disks.hpp - file systems of our own, for disks that fill up, freeze or lose power.
//
//   LoopDisk disk;                          ext4 in a file, mounted in a directory of its own
//   disk.give_to(cluster, node);            before the node's first start
//   disk.cut_power();                       what was not synced is gone, nothing can be written
//   cluster.kill(node); disk.restore_power();
//   { const LoopDisk::Frozen frozen = disk.freeze(); ... }   writes hang until its end
//   disk.fill(64); disk.free_space();       64 KB left; SmallTmpfs has these, too
//
// A node's data directory is a link to its disk, so that disks can be declared before the cluster and
// outlive its processes: what is in use can't be unmounted.
//
// No mount and no loop device is left behind, even by kill -9: mounts are made in a namespace of this process alone, and
// end with it; the kernel then frees the loop device; a child waits to thaw what was frozen, since a
// process that waits for a frozen disk can't even be killed.
//
// Linux, root, mkfs.ext4 (e2fsprogs); no_disks_because() says what is missing.
// Threads: the one that runs the tests, and starts the nodes, makes the disks: namespaces are a
// thread's own, and its children's.
#ifndef SESHAT_TESTS_CLUSTER_DISKS_HPP
#define SESHAT_TESTS_CLUSTER_DISKS_HPP

#include <linux/fs.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/statvfs.h>

#include <array>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "client.hpp"
#include "cluster.hpp"
#include "process.hpp"

namespace seshat::tests {

// Why this machine gives us no disks; nullopt: it does. Tries it once.
[[nodiscard]] const std::optional<std::string>& no_disks_because();

class Disk {
 public:
  Disk(const Disk&) = delete;
  Disk& operator=(const Disk&) = delete;

  // Where a node may keep its data; what fills the disk is beside it.
  [[nodiscard]] std::filesystem::path data() const { return mount_point() / "data"; }
  void give_to(const Cluster& cluster, int node) const {
    std::filesystem::create_directory_symlink(data(), cluster.data_dir(node));
  }

  // A file takes all but `leave_kb`; or all but that and what others take meanwhile.
  void fill(std::uint64_t leave_kb);
  void free_space();
  [[nodiscard]] std::uint64_t free_kb() const;

 protected:
  Disk();
  ~Disk();
  // With a command that ends where the mount point is to be named.
  void mount(std::vector<std::string> command);
  void unmount();
  [[nodiscard]] std::filesystem::path mount_point() const { return dir_.path() / "mounted"; }
  [[nodiscard]] std::filesystem::path beside(const char* name) const { return dir_.path() / name; }
  // Of the root of the mounted file system, for ioctl.
  [[nodiscard]] Socket open_root() const;

 private:
  [[nodiscard]] std::filesystem::path filler() const { return mount_point() / "filler"; }

  TempDir dir_;
};

class LoopDisk : public Disk {
 public:
  // Large enough by default for RocksDB to do all that it does on a large disk; the image is sparse.
  explicit LoopDisk(int size_mb = 1024);

  // Ends the freeze; so does the end of this process, whatever ends it.
  class Frozen {
   public:
    explicit Frozen(Socket root);
    Frozen(const Frozen&) = delete;
    Frozen& operator=(const Frozen&) = delete;
    ~Frozen() { thaw(); }
    void thaw();

   private:
    [[noreturn]] void wait_and_thaw(int end_of_parent) const;

    Socket root_;
    Socket lifeline_;
    pid_t child_ = -1;
  };
  // Everything that was written before is on disk; whoever writes later waits.
  [[nodiscard]] Frozen freeze() const { return Frozen(open_root()); }

  // As if the power was cut: what was not synced is gone, and every call fails with EIO.
  void cut_power() const;
  // No process may use the disk any more.
  void restore_power();
};

class SmallTmpfs : public Disk {
 public:
  explicit SmallTmpfs(int size_mb = 24) {
    mount({"mount", "-t", "tmpfs", "-o", "size=" + std::to_string(size_mb) + "m", "tmpfs"});
  }
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace disks_detail {

[[noreturn]] inline void fail(const std::string& doing) {
  throw std::runtime_error(doing + ": " + std::strerror(errno));
}

inline void run_or_throw(const std::vector<std::string>& command) {
  const Finished finished = run(command, 20s);
  if (finished.status == ExitStatus{0, 0}) return;
  throw std::runtime_error(command.at(0) + " failed: " + finished.output);
}

// From linux/fs/ext4: no header for programs has it on all systems.
inline constexpr unsigned long kExt4Shutdown = _IOR('X', 125, std::uint32_t);
inline constexpr std::uint32_t kNoLogFlush = 2;

// Once: mounts made from here on are seen by this thread and its children only.
inline void have_own_mounts() {
  static const bool done = [] {
    if (::unshare(CLONE_NEWNS) != 0) fail("no mounts of our own (they need root)");
    if (::mount("none", "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0) fail("private mounts");
    return true;
  }();
  (void)done;
}

}  // namespace disks_detail

inline Disk::Disk() {
  disks_detail::have_own_mounts();
  std::filesystem::create_directory(mount_point());
}

inline Disk::~Disk() {
  // A process that still uses it keeps it, unseen, until that has ended.
  if (::umount2(mount_point().c_str(), 0) != 0) (void)::umount2(mount_point().c_str(), MNT_DETACH);
}

inline void Disk::mount(std::vector<std::string> command) {
  command.push_back(mount_point());
  disks_detail::run_or_throw(command);
  std::filesystem::create_directory(data());
  if (::syncfs(open_root().fd()) != 0) disks_detail::fail("can't sync " + data().string());
}

inline void Disk::unmount() {
  const bool done = eventually(
      5s, [this] { return ::umount2(mount_point().c_str(), 0) == 0 || errno == EINVAL; });
  if (!done) disks_detail::fail("can't unmount " + mount_point().string());
}

inline Socket Disk::open_root() const {
  Socket root(::open(mount_point().c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (root.fd() < 0) disks_detail::fail("can't open " + mount_point().string());
  return root;
}

inline std::uint64_t Disk::free_kb() const {
  struct statvfs state {};
  if (::statvfs(mount_point().c_str(), &state) != 0) disks_detail::fail("can't measure a disk");
  return state.f_bavail * state.f_frsize / 1024;
}

inline void Disk::fill(std::uint64_t leave_kb) {
  free_space();
  const Socket file(::open(filler().c_str(), O_WRONLY | O_CREAT | O_CLOEXEC, 0644));
  if (file.fd() < 0) disks_detail::fail("can't make " + filler().string());
  // Nodes write meanwhile, and the file system takes a little for itself.
  for (int attempt = 0; attempt < 100; ++attempt) {
    const std::uint64_t free = free_kb();
    if (free <= leave_kb) return;
    const auto size = static_cast<off_t>((free - leave_kb) * 1024);
    const off_t had = ::lseek(file.fd(), 0, SEEK_END);
    errno = ::posix_fallocate(file.fd(), had, size);
    if (errno != 0 && errno != ENOSPC) disks_detail::fail("can't fill " + filler().string());
  }
}

// On disk when it returns: a power cut must not bring back what took the space.
inline void Disk::free_space() {
  std::filesystem::remove(filler());
  if (::syncfs(open_root().fd()) != 0) disks_detail::fail("can't sync " + filler().string());
}

inline LoopDisk::LoopDisk(int size_mb) {
  const std::filesystem::path image = beside("image");
  write_text(image, "");
  std::filesystem::resize_file(image, static_cast<std::uintmax_t>(size_mb) << 20);
  disks_detail::run_or_throw({"mkfs.ext4", "-q", "-F", "-m", "0", image.string()});
  restore_power();
}

inline void LoopDisk::cut_power() const {
  std::uint32_t how = disks_detail::kNoLogFlush;
  if (::ioctl(open_root().fd(), disks_detail::kExt4Shutdown, &how) != 0) {
    disks_detail::fail("can't shut ext4 down");
  }
}

// The journal is replayed by mounting.
inline void LoopDisk::restore_power() {
  unmount();
  mount({"mount", "-o", "loop", beside("image").string()});
}

inline LoopDisk::Frozen::Frozen(Socket root) : root_(std::move(root)) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) disks_detail::fail("no pipe");
  const Socket end_of_parent(ends[0]);
  lifeline_ = Socket(ends[1]);
  child_ = ::fork();
  if (child_ == 0) wait_and_thaw(end_of_parent.fd());
  if (child_ < 0) disks_detail::fail("can't fork");
  if (::ioctl(root_.fd(), FIFREEZE, 0) != 0) {
    const int error = errno;
    thaw();  // which ends the child
    errno = error;
    disks_detail::fail("can't freeze");
  }
}

// In the child: nothing comes out of the pipe but its end.
inline void LoopDisk::Frozen::wait_and_thaw(int end_of_parent) const {
  // What else it got from its parent must not live on in here, least of all the lifeline.
  ::dup2(root_.fd(), STDIN_FILENO);
  ::dup2(end_of_parent, STDOUT_FILENO);
  (void)::close_range(STDERR_FILENO, ~0U, 0);
  char nothing = 0;
  while (::read(STDOUT_FILENO, &nothing, 1) < 0 && errno == EINTR) {
  }
  (void)::ioctl(STDIN_FILENO, FITHAW, 0);
  ::_exit(0);
}

inline void LoopDisk::Frozen::thaw() {
  if (child_ < 0) return;
  (void)::ioctl(root_.fd(), FITHAW, 0);
  (void)::kill(child_, SIGKILL);
  while (::waitpid(child_, nullptr, 0) < 0 && errno == EINTR) {
  }
  child_ = -1;
}

inline const std::optional<std::string>& no_disks_because() {
  static const std::optional<std::string> why = []() -> std::optional<std::string> {
    try {
      LoopDisk(32).cut_power();
      return std::nullopt;
    } catch (const std::exception& error) {
      return std::string("no disks of our own here: ") + error.what();
    }
  }();
  return why;
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_DISKS_HPP
