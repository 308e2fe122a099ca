// seshat/data_dir.hpp - the directory that holds all of a node: made, checked, locked.
//
//   DIR/LOCK            held by the process that uses DIR, and empty
//   DIR/durable-mark    durable_mark.hpp
//   DIR/rocksdb/        the database; a LOCK of its own in it
//   DIR/snapshots/      store_snapshot.hpp; made with the first of them
//
// A directory that holds anything else and no node is refused: a mistyped data_dir must not put a
// database among somebody's files. Nothing is made before that is clear.
//
// Threads: one owner. Needs: result.hpp; RocksDB's Env.
#ifndef SESHAT_DATA_DIR_HPP
#define SESHAT_DATA_DIR_HPP

#include <rocksdb/env.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/result.hpp"

namespace seshat {

class DataDir {
 public:
  // Makes `path` if it is absent (and durable in its parent), and locks it for this object's life.
  [[nodiscard]] static Result<DataDir> open(rocksdb::Env& env, const std::string& path);

  DataDir(DataDir&& other) noexcept
      : env_(other.env_),
        path_(std::move(other.path_)),
        lock_(std::exchange(other.lock_, nullptr)) {}
  DataDir& operator=(DataDir&&) = delete;
  ~DataDir() {
    if (lock_ != nullptr) env_->UnlockFile(lock_).PermitUncheckedError();
  }

  [[nodiscard]] const std::string& path() const { return path_; }
  [[nodiscard]] std::string database() const { return path_ + "/rocksdb"; }
  [[nodiscard]] std::string durable_mark() const { return path_ + "/durable-mark"; }
  [[nodiscard]] std::string snapshots() const { return path_ + "/snapshots"; }
  // Whether a database was made here, perhaps not to its end.
  [[nodiscard]] bool has_database() const { return env_->FileExists(database() + "/CURRENT").ok(); }

 private:
  static constexpr std::array<std::string_view, 6> kOurs{
      "LOCK", "durable-mark", "durable-mark.new", "rocksdb", "snapshots", "lost+found"};

  DataDir(rocksdb::Env& env, std::string path) : env_(&env), path_(std::move(path)) {}

  [[nodiscard]] Result<void> make();
  [[nodiscard]] Result<void> make_one(const std::string& directory);
  [[nodiscard]] Result<void> check();
  [[nodiscard]] Result<void> lock();
  [[nodiscard]] Result<void> make_database();

  rocksdb::Env* env_;
  std::string path_;
  rocksdb::FileLock* lock_ = nullptr;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Result<DataDir> DataDir::open(rocksdb::Env& env, const std::string& path) {
  if (path.empty()) return Error{"no data directory is given: set node.data_dir"};
  // An absolute path without a '/' at its end: what is logged says where, and parents have names.
  std::filesystem::path absolute = std::filesystem::absolute(path).lexically_normal();
  if (!absolute.has_filename()) absolute = absolute.parent_path();
  DataDir dir(env, absolute.string());
  for (const auto step :
       {&DataDir::make, &DataDir::check, &DataDir::lock, &DataDir::make_database}) {
    if (Result<void> done = (dir.*step)(); !done) return done.error();
  }
  return dir;
}

inline Result<void> DataDir::make() {
  std::vector<std::string> missing;
  std::filesystem::path path = path_;
  while (path.has_relative_path() && env_->FileExists(path.string()).IsNotFound()) {
    missing.push_back(path.string());
    path = path.parent_path();
  }
  for (; !missing.empty(); missing.pop_back()) {
    if (Result<void> made = make_one(missing.back()); !made) return made;
  }
  return {};
}

// With its name durable in its parent: a power cut must not take the directory with all that was
// synced in it.
inline Result<void> DataDir::make_one(const std::string& directory) {
  rocksdb::Status status = env_->CreateDirIfMissing(directory);
  std::unique_ptr<rocksdb::Directory> parent;
  const std::string parent_path = std::filesystem::path(directory).parent_path().string();
  if (status.ok()) status = env_->NewDirectory(parent_path, &parent);
  if (status.ok()) status = parent->Fsync();
  if (status.ok()) return {};
  return Error{"the data directory " + path_ + " can't be made: " + status.ToString()};
}

inline Result<void> DataDir::check() {
  bool is_directory = false;
  if (env_->IsDirectory(path_, &is_directory).ok() && !is_directory) {
    return Error{"the data directory " + path_ + " is not a directory"};
  }
  std::vector<std::string> names;
  const rocksdb::Status status = env_->GetChildren(path_, &names);
  if (!status.ok()) {
    return Error{"the data directory " + path_ + " can't be read: " + status.ToString()};
  }
  const auto has = [&names](std::string_view name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  if (has("rocksdb") || has("durable-mark")) return {};
  for (const std::string& name : names) {
    if (name == "." || name == "..") continue;
    if (std::find(kOurs.begin(), kOurs.end(), name) != kOurs.end()) continue;
    return Error{path_ + " holds '" + name +
                 "' and no seshat data: give a data directory of its own, one that is empty or "
                 "does not exist yet"};
  }
  return {};
}

// RocksDB would make it, but not sync its name: the first power cut could take all of it.
inline Result<void> DataDir::make_database() {
  if (env_->FileExists(database()).ok()) return {};
  return make_one(database());
}

inline Result<void> DataDir::lock() {
  const std::string file = path_ + "/LOCK";
  const rocksdb::Status status = env_->LockFile(file, &lock_);
  if (status.ok()) return {};
  lock_ = nullptr;
  // RocksDB has one kind of status for both; only its text tells.
  const bool held = status.ToString().find("ock file") != std::string::npos ||
                    status.ToString().find("lock hold") != std::string::npos;
  if (!held) {
    return Error{"the data directory " + path_ + " can't be written: " + status.ToString()};
  }
  return Error{"another seshat uses " + path_ +
               ": stop it first, or give each node a data directory of its own (`fuser " + file +
               "` shows the process; " + status.ToString() + ")"};
}

}  // namespace seshat

#endif  // SESHAT_DATA_DIR_HPP
