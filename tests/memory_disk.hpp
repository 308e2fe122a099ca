// tests/memory_disk.hpp - a disk in memory that forgets, at a power cut, what was not synced.
//
//   MemoryDisk disk;
//   disk.cut_power_at(17, seed);           at the 17th operation that changes something
//   ... use disk.env() until disk.is_off(): what happens after it happens to nobody ...
//   MemoryDisk after = disk.after_cut();   what a machine finds when the power is back
//
// A file keeps what its last sync covered. Of what was written since, nothing, all, a prefix that
// ends in the middle of a write, or any subset with zeros in its holes is there (the seed decides
// which). Names (making, renaming and deleting files) are kept by a sync of their directory; of
// those since, a prefix in order, as journalled file systems keep them.
//
// A process sees no errors when the power goes, so this disk gives none: it goes on for those who
// use it, and what they do changes nothing of what is found later. Errors come from a hook.
#ifndef SESHAT_TESTS_MEMORY_DISK_HPP
#define SESHAT_TESTS_MEMORY_DISK_HPP

#include <rocksdb/env.h>
#include <rocksdb/file_system.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <random>
#include <set>
#include <string>
#include <utility>
#include <vector>

namespace seshat::tests {

enum class DiskOperation { kWrite, kSync, kName, kSyncNames };

class MemoryDisk final : public rocksdb::FileSystem {
 public:
  // May wait (a slow disk) or answer an error (a broken one); called without a lock.
  using Hook = std::function<rocksdb::IOStatus(DiskOperation, const std::string& path)>;

  MemoryDisk() : state_(std::make_shared<State>()) {}

  // What is found after the power cut, which happens now unless it has happened.
  [[nodiscard]] MemoryDisk after_cut(std::uint64_t seed = 0) {
    const std::lock_guard lock(state_->mutex);
    if (!state_->off) state_->cut(seed);
    return MemoryDisk(state_->after_cut);
  }
  // What is found after a kill of the process: all it wrote, synced or not.
  [[nodiscard]] MemoryDisk after_kill() {
    const auto copy = std::make_shared<State>();
    const std::lock_guard lock(state_->mutex);
    state_->survive_whole(*copy);
    return MemoryDisk(copy);
  }

  // An Env over this disk; the disk must outlive it.
  [[nodiscard]] std::unique_ptr<rocksdb::Env> env() {
    return rocksdb::NewCompositeEnv(
        std::shared_ptr<rocksdb::FileSystem>(this, [](rocksdb::FileSystem*) {}));
  }

  void set_hook(Hook hook) {
    const std::lock_guard lock(state_->mutex);
    state_->hook = std::make_shared<const Hook>(std::move(hook));
  }
  void set_free_space(std::uint64_t bytes) { state_->free_bytes = bytes; }
  void cut_power_at(std::uint64_t operation, std::uint64_t seed) {
    state_->cut_at = operation;
    state_->cut_seed = seed;
  }
  [[nodiscard]] bool is_off() const { return state_->off; }
  [[nodiscard]] std::uint64_t operations() const { return state_->operations; }

  // ---- for tests that damage files
  [[nodiscard]] std::vector<std::string> files() const {
    const std::lock_guard lock(state_->mutex);
    std::vector<std::string> names;
    for (const auto& [name, file] : state_->names.files) names.push_back(name);
    return names;
  }
  [[nodiscard]] std::string content(const std::string& path) const {
    const std::lock_guard lock(state_->mutex);
    return state_->names.files.at(path)->data;
  }
  void set_content(const std::string& path, const std::string& content) {
    const std::lock_guard lock(state_->mutex);
    auto file = std::make_shared<File>();
    file->data = file->durable = content;
    state_->names.files[path] = state_->durable_names.files[path] = file;
  }
  void remove(const std::string& path) {
    const std::lock_guard lock(state_->mutex);
    state_->names.files.erase(path);
    state_->durable_names.files.erase(path);
  }

  // ---- rocksdb::FileSystem
  using Options = rocksdb::IOOptions;
  using Debug = rocksdb::IODebugContext;
  using Status = rocksdb::IOStatus;

  const char* Name() const override { return "MemoryDisk"; }

  Status NewSequentialFile(const std::string& path, const rocksdb::FileOptions&,
                           std::unique_ptr<rocksdb::FSSequentialFile>* result, Debug*) override {
    return open<SequentialFile>(path, result);
  }
  Status NewRandomAccessFile(const std::string& path, const rocksdb::FileOptions&,
                             std::unique_ptr<rocksdb::FSRandomAccessFile>* result,
                             Debug*) override {
    return open<RandomFile>(path, result);
  }
  Status NewRandomRWFile(const std::string& path, const rocksdb::FileOptions&,
                         std::unique_ptr<rocksdb::FSRandomRWFile>* result, Debug*) override {
    return open<RandomWritableFile>(path, result);
  }
  Status NewWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                         std::unique_ptr<rocksdb::FSWritableFile>* result, Debug*) override {
    auto file = std::make_shared<File>();
    const std::string name = clean(path);
    const Status status = state_->change(DiskOperation::kName, name, [&] {
      if (!state_->names.directories.contains(parent(name))) return not_found(name);
      state_->rename_or_make({}, name, file);
      return Status::OK();
    });
    if (status.ok()) *result = std::make_unique<WritableFile>(state_, name, file, options);
    return status;
  }
  Status NewDirectory(const std::string& path, const Options&,
                      std::unique_ptr<rocksdb::FSDirectory>* result, Debug*) override {
    const std::lock_guard lock(state_->mutex);
    if (!state_->names.directories.contains(clean(path))) return not_found(path);
    *result = std::make_unique<Directory>(state_, clean(path));
    return Status::OK();
  }
  Status FileExists(const std::string& path, const Options&, Debug*) override {
    const std::lock_guard lock(state_->mutex);
    const std::string name = clean(path);
    const bool exists =
        state_->names.files.contains(name) || state_->names.directories.contains(name);
    return exists ? Status::OK() : not_found(path);
  }
  Status GetChildren(const std::string& path, const Options&, std::vector<std::string>* result,
                     Debug*) override {
    const std::lock_guard lock(state_->mutex);
    if (!state_->names.directories.contains(clean(path))) return not_found(path);
    result->clear();
    const auto add = [&](const std::string& name) {
      if (name != "/" && parent(name) == clean(path)) {
        result->push_back(name.substr(name.rfind('/') + 1));
      }
    };
    for (const auto& [name, file] : state_->names.files) add(name);
    for (const std::string& name : state_->names.directories) add(name);
    return Status::OK();
  }
  Status DeleteFile(const std::string& path, const Options&, Debug*) override {
    return state_->change(DiskOperation::kName, clean(path), [&] {
      if (!state_->names.files.contains(clean(path))) return not_found(path);
      state_->rename_or_make(clean(path), {}, nullptr);
      return Status::OK();
    });
  }
  // Of a file, or of a directory with all that is in it.
  Status RenameFile(const std::string& from, const std::string& to, const Options&,
                    Debug*) override {
    return state_->change(DiskOperation::kName, clean(to), [&] {
      if (state_->names.directories.contains(clean(from))) {
        state_->rename_directory(clean(from), clean(to));
        return Status::OK();
      }
      const auto found = state_->names.files.find(clean(from));
      if (found == state_->names.files.end()) return not_found(from);
      state_->rename_or_make(clean(from), clean(to), found->second);
      return Status::OK();
    });
  }
  Status LinkFile(const std::string& from, const std::string& to, const Options&, Debug*) override {
    return state_->change(DiskOperation::kName, clean(to), [&] {
      const auto found = state_->names.files.find(clean(from));
      if (found == state_->names.files.end()) return not_found(from);
      state_->rename_or_make({}, clean(to), found->second);
      return Status::OK();
    });
  }
  Status ReopenWritableFile(const std::string& path, const rocksdb::FileOptions& options,
                            std::unique_ptr<rocksdb::FSWritableFile>* result, Debug*) override {
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->names.files.find(clean(path));
    if (found == state_->names.files.end()) return not_found(path);
    *result = std::make_unique<WritableFile>(state_, clean(path), found->second, options);
    return Status::OK();
  }
  Status CreateDir(const std::string& path, const Options&, Debug*) override {
    return state_->change(DiskOperation::kName, clean(path), [&] {
      if (state_->names.directories.contains(clean(path))) {
        return Status::IOError("while mkdir " + path, "File exists");
      }
      if (!state_->names.directories.contains(parent(clean(path)))) return not_found(path);
      state_->rename_or_make({}, clean(path), nullptr);
      return Status::OK();
    });
  }
  Status CreateDirIfMissing(const std::string& path, const Options& options,
                            Debug* debug) override {
    if (FileExists(path, options, debug).ok()) return Status::OK();
    return CreateDir(path, options, debug);
  }
  Status DeleteDir(const std::string& path, const Options&, Debug*) override {
    return state_->change(DiskOperation::kName, clean(path), [&] {
      if (!state_->names.directories.contains(clean(path))) return not_found(path);
      if (!state_->names.is_empty(clean(path))) {
        return Status::IOError("while rmdir " + path, "Directory not empty");
      }
      state_->rename_or_make(clean(path), {}, nullptr);
      return Status::OK();
    });
  }
  Status GetFileSize(const std::string& path, const Options&, std::uint64_t* size,
                     Debug*) override {
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->names.files.find(clean(path));
    if (found == state_->names.files.end()) return not_found(path);
    *size = found->second->data.size();
    return Status::OK();
  }
  Status GetFileModificationTime(const std::string&, const Options&, std::uint64_t* time,
                                 Debug*) override {
    *time = 0;
    return Status::OK();
  }
  Status LockFile(const std::string& path, const Options&, rocksdb::FileLock** lock,
                  Debug*) override {
    const std::lock_guard guard(state_->mutex);
    if (!state_->locked.insert(clean(path)).second) {
      return Status::IOError("While lock file: " + path, "Resource temporarily unavailable");
    }
    *lock = new Lock(clean(path));
    return Status::OK();
  }
  Status UnlockFile(rocksdb::FileLock* lock, const Options&, Debug*) override {
    const std::unique_ptr<Lock> held(static_cast<Lock*>(lock));
    const std::lock_guard guard(state_->mutex);
    state_->locked.erase(held->path);
    return Status::OK();
  }
  Status GetTestDirectory(const Options&, std::string* path, Debug*) override {
    *path = "/";
    return Status::OK();
  }
  Status GetAbsolutePath(const std::string& path, const Options&, std::string* result,
                         Debug*) override {
    *result = path;
    return Status::OK();
  }
  Status IsDirectory(const std::string& path, const Options&, bool* result, Debug*) override {
    const std::lock_guard lock(state_->mutex);
    *result = state_->names.directories.contains(clean(path));
    return Status::OK();
  }
  Status GetFreeSpace(const std::string&, const Options&, std::uint64_t* bytes, Debug*) override {
    *bytes = state_->free_bytes;
    return Status::OK();
  }

 private:
  struct Patch {
    std::size_t offset;
    std::string bytes;
    bool cuts = false;  // what lies behind
  };
  struct File {
    std::string data;     // as everybody sees it
    std::string durable;  // as of its last sync
    std::vector<Patch> unsynced;
  };
  using FilePtr = std::shared_ptr<File>;

  struct Names {
    std::map<std::string, FilePtr> files;
    std::set<std::string> directories{"/"};

    void move(const std::string& from, const std::string& to) {
      std::map<std::string, FilePtr> next_files;
      for (auto& [name, file] : files) next_files[moved(name, from, to)] = file;
      std::set<std::string> next_directories;
      for (const std::string& name : directories) next_directories.insert(moved(name, from, to));
      files = std::move(next_files);
      directories = std::move(next_directories);
    }

    [[nodiscard]] bool is_empty(const std::string& directory) const {
      const auto here = [&](const std::string& name) { return parent(name) == directory; };
      return std::none_of(directories.begin(), directories.end(), here) &&
             std::none_of(files.begin(), files.end(),
                          [&](const auto& file) { return here(file.first); });
    }
    // `from` empty: made; `to` empty: deleted; no file: a directory.
    void apply(const std::string& from, const std::string& to, const FilePtr& file) {
      if (!from.empty() && !to.empty() && file == nullptr) return move(from, to);
      if (!from.empty()) files.erase(from);
      if (!from.empty()) directories.erase(from);
      if (to.empty()) return;
      if (file == nullptr) {
        directories.insert(to);
      } else {
        files[to] = file;
      }
    }
  };
  // What `name` is called once the directory `from` is called `to`.
  static std::string moved(const std::string& name, const std::string& from,
                           const std::string& to) {
    const bool inside = name == from || name.starts_with(from + "/");
    return inside ? to + name.substr(from.size()) : name;
  }
  struct NameChange {
    std::string from;
    std::string to;
    FilePtr file;
    [[nodiscard]] std::string directory() const { return parent(to.empty() ? from : to); }
  };

  struct State {
    mutable std::mutex mutex;
    Names names;
    Names durable_names;
    std::vector<NameChange> unsynced_names;
    std::set<std::string> locked;
    std::shared_ptr<const Hook> hook;
    std::atomic<std::uint64_t> free_bytes{1ull << 40};
    std::atomic<std::uint64_t> operations{0};
    std::uint64_t cut_at = 0;
    std::uint64_t cut_seed = 0;
    std::atomic<bool> off{false};
    std::shared_ptr<State> after_cut;

    // Every change passes here.
    template <class Change>
    Status change(DiskOperation operation, const std::string& path, Change change) {
      std::unique_lock lock(mutex);
      if (const std::shared_ptr<const Hook> ask = hook) {
        lock.unlock();
        if (Status status = (*ask)(operation, path); !status.ok()) return status;
        lock.lock();
      }
      if (++operations != cut_at) return change();
      // Of the last operation, a write or a name may have reached the disk; a sync did not end.
      const bool before = operation == DiskOperation::kWrite || operation == DiskOperation::kName;
      Status status;
      if (before) status = change();
      cut(cut_seed);
      return before ? status : change();
    }

    void cut(std::uint64_t seed) {
      after_cut = std::make_shared<State>();
      survive(*after_cut, seed);
      off = true;
    }

    void rename_or_make(const std::string& from, const std::string& to, FilePtr file) {
      names.apply(from, to, file);
      unsynced_names.push_back({from, to, std::move(file)});
    }

    // What was made in it and is not synced belongs to it under its new name. (Of a power cut that
    // takes the new name, this takes that as well, although a sync of it would come too late: so
    // nothing is kept that a disk could lose.)
    void rename_directory(const std::string& from, const std::string& to) {
      for (NameChange& change : unsynced_names) {
        if (parent(change.to.empty() ? change.from : change.to) == parent(from)) continue;
        change.from = moved(change.from, from, to);
        change.to = moved(change.to, from, to);
      }
      rename_or_make(from, to, nullptr);
    }

    void sync_names(const std::string& directory) {
      const auto here = [&](const NameChange& change) { return change.directory() == directory; };
      for (const NameChange& change : unsynced_names) {
        if (here(change)) durable_names.apply(change.from, change.to, change.file);
      }
      std::erase_if(unsynced_names, here);
    }

    void survive(State& after, std::uint64_t seed) const {
      std::mt19937_64 random(seed);
      Names kept = durable_names;
      const std::uint64_t mode = random() % 4;
      const std::size_t names_kept = mode == 0   ? 0
                                     : mode == 1 ? unsynced_names.size()
                                                 : random() % (unsynced_names.size() + 1);
      for (std::size_t i = 0; i < names_kept; ++i) {
        kept.apply(unsynced_names[i].from, unsynced_names[i].to, unsynced_names[i].file);
      }
      // In the order of their names, those above come first: what is lost takes along what is in it.
      for (auto name = std::next(kept.directories.begin()); name != kept.directories.end();) {
        const bool lost = !kept.directories.contains(parent(*name));
        name = lost ? kept.directories.erase(name) : std::next(name);
      }
      after.names.directories = kept.directories;
      std::map<FilePtr, FilePtr> copies;
      for (const auto& [name, file] : kept.files) {
        if (!kept.directories.contains(parent(name))) continue;  // lost with its directory
        FilePtr& copy = copies[file];
        if (copy == nullptr) copy = left_of(*file, random);
        after.names.files[name] = copy;
      }
      after.durable_names = after.names;
    }

    // Also what was synced and what was not: the power may go later.
    void survive_whole(State& after) const {
      std::map<FilePtr, FilePtr> copies;
      const auto copy = [&copies](const FilePtr& file) {
        if (file == nullptr) return FilePtr();
        FilePtr& made = copies[file];
        if (made == nullptr) made = std::make_shared<File>(*file);
        return made;
      };
      after.names = names;
      after.durable_names = durable_names;
      after.unsynced_names = unsynced_names;
      for (auto& [name, file] : after.names.files) file = copy(file);
      for (auto& [name, file] : after.durable_names.files) file = copy(file);
      for (NameChange& change : after.unsynced_names) change.file = copy(change.file);
    }

    static FilePtr left_of(const File& file, std::mt19937_64& random) {
      auto kept = std::make_shared<File>();
      kept->durable = file.durable;
      const std::uint64_t mode = random() % 4;  // none, all, a torn prefix, any
      const std::size_t prefix = random() % (file.unsynced.size() + 1);
      for (std::size_t i = 0; i < file.unsynced.size() && mode != 0; ++i) {
        Patch patch = file.unsynced[i];
        if (mode == 2 && i > prefix) break;
        if (mode == 2 && i == prefix) patch.bytes.resize(random() % (patch.bytes.size() + 1));
        if (mode == 3 && random() % 3 == 0) continue;
        put(kept->durable, patch);
      }
      kept->data = kept->durable;
      return kept;
    }
  };
  using StatePtr = std::shared_ptr<State>;

  explicit MemoryDisk(StatePtr state) : state_(std::move(state)) {}

  struct Lock final : rocksdb::FileLock {
    explicit Lock(std::string of) : path(std::move(of)) {}
    std::string path;
  };

  // What all open files share.
  struct Handle {
    StatePtr state;
    std::string path;
    FilePtr file;

    Status read(std::uint64_t offset, std::size_t n, rocksdb::Slice* result, char* scratch) const {
      const std::lock_guard lock(state->mutex);
      const std::string& data = file->data;
      const std::size_t from = std::min<std::size_t>(offset, data.size());
      const std::size_t size = std::min(n, data.size() - from);
      std::copy_n(data.data() + from, size, scratch);
      *result = rocksdb::Slice(scratch, size);
      return Status::OK();
    }
    Status write(std::uint64_t offset, const rocksdb::Slice& bytes) const {
      return state->change(DiskOperation::kWrite, path, [&] {
        const Patch patch{offset, bytes.ToString()};
        put(file->data, patch);
        file->unsynced.push_back(patch);
        return Status::OK();
      });
    }
    Status truncate(std::uint64_t size) const {
      return state->change(DiskOperation::kWrite, path, [&] {
        file->data.resize(size);
        // Its sync covers what was written before; until then the old end may come back.
        file->unsynced.push_back({size, "", true});
        return Status::OK();
      });
    }
    // As it was when the sync began: what is written meanwhile is not part of it.
    Status sync() const {
      std::size_t count = 0;
      {
        const std::lock_guard lock(state->mutex);
        count = file->unsynced.size();
      }
      return state->change(DiskOperation::kSync, path, [&] {
        count = std::min(count, file->unsynced.size());
        for (std::size_t i = 0; i < count; ++i) put(file->durable, file->unsynced[i]);
        file->unsynced.erase(file->unsynced.begin(),
                             file->unsynced.begin() + static_cast<std::ptrdiff_t>(count));
        return Status::OK();
      });
    }
  };

  class SequentialFile final : public rocksdb::FSSequentialFile {
   public:
    explicit SequentialFile(Handle handle) : handle_(std::move(handle)) {}
    Status Read(std::size_t n, const Options&, rocksdb::Slice* result, char* scratch,
                Debug*) override {
      const Status status = handle_.read(offset_, n, result, scratch);
      if (status.ok()) offset_ += result->size();
      return status;
    }
    Status Skip(std::uint64_t n) override {
      offset_ += n;
      return Status::OK();
    }

   private:
    Handle handle_;
    std::uint64_t offset_ = 0;
  };

  class RandomFile final : public rocksdb::FSRandomAccessFile {
   public:
    explicit RandomFile(Handle handle) : handle_(std::move(handle)) {}
    Status Read(std::uint64_t offset, std::size_t n, const Options&, rocksdb::Slice* result,
                char* scratch, Debug*) const override {
      return handle_.read(offset, n, result, scratch);
    }

   private:
    Handle handle_;
  };

  class RandomWritableFile final : public rocksdb::FSRandomRWFile {
   public:
    explicit RandomWritableFile(Handle handle) : handle_(std::move(handle)) {}
    Status Write(std::uint64_t offset, const rocksdb::Slice& bytes, const Options&,
                 Debug*) override {
      return handle_.write(offset, bytes);
    }
    Status Read(std::uint64_t offset, std::size_t n, const Options&, rocksdb::Slice* result,
                char* scratch, Debug*) const override {
      return handle_.read(offset, n, result, scratch);
    }
    Status Flush(const Options&, Debug*) override { return Status::OK(); }
    Status Sync(const Options&, Debug*) override { return handle_.sync(); }
    Status Close(const Options&, Debug*) override { return Status::OK(); }

   private:
    Handle handle_;
  };

  class WritableFile final : public rocksdb::FSWritableFile {
   public:
    WritableFile(StatePtr state, std::string path, FilePtr file,
                 const rocksdb::FileOptions& options)
        : rocksdb::FSWritableFile(options),
          handle_{std::move(state), std::move(path), std::move(file)},
          offset_(handle_.file->data.size()) {}
    using rocksdb::FSWritableFile::Append;
    Status Append(const rocksdb::Slice& bytes, const Options&, Debug*) override {
      const Status status = handle_.write(offset_, bytes);
      if (status.ok()) offset_ += bytes.size();
      return status;
    }
    Status Truncate(std::uint64_t size, const Options&, Debug*) override {
      return handle_.truncate(size);
    }
    Status Close(const Options&, Debug*) override { return Status::OK(); }
    Status Flush(const Options&, Debug*) override { return Status::OK(); }
    Status Sync(const Options&, Debug*) override { return handle_.sync(); }
    bool IsSyncThreadSafe() const override { return true; }
    std::uint64_t GetFileSize(const Options&, Debug*) override { return offset_; }

   private:
    Handle handle_;
    std::uint64_t offset_;  // where the next append goes, as with a file of the system
  };

  class Directory final : public rocksdb::FSDirectory {
   public:
    Directory(StatePtr state, std::string path)
        : state_(std::move(state)), path_(std::move(path)) {}
    Status Fsync(const Options&, Debug*) override {
      return state_->change(DiskOperation::kSyncNames, path_, [&] {
        state_->sync_names(path_);
        return Status::OK();
      });
    }
    Status Close(const Options&, Debug*) override { return Status::OK(); }

   private:
    StatePtr state_;
    std::string path_;
  };

  template <class Opened, class Base>
  Status open(const std::string& path, std::unique_ptr<Base>* result) {
    const std::lock_guard lock(state_->mutex);
    const auto found = state_->names.files.find(clean(path));
    if (found == state_->names.files.end()) return not_found(path);
    *result = std::make_unique<Opened>(Handle{state_, clean(path), found->second});
    return Status::OK();
  }

  static void put(std::string& content, const Patch& patch) {
    const std::size_t end = patch.offset + patch.bytes.size();
    content.resize(patch.cuts ? end : std::max(content.size(), end));
    content.replace(patch.offset, patch.bytes.size(), patch.bytes);
  }
  static std::string clean(const std::string& path) {
    std::string result;
    for (const char c : path) {
      if (c != '/' || result.empty() || result.back() != '/') result.push_back(c);
    }
    if (result.size() > 1 && result.back() == '/') result.pop_back();
    return result;
  }
  static std::string parent(const std::string& path) {
    const std::size_t slash = path.rfind('/');
    return slash == 0 ? "/" : path.substr(0, slash);
  }
  static Status not_found(const std::string& path) {
    return Status::NotFound(path, "no such file");
  }

  StatePtr state_;
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_MEMORY_DISK_HPP
