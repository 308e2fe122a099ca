// seshat/row_table.hpp - rows of a key and a value in memory, found by one hash.
//
//   slots  [ . | tag 3 | . | tag 1 | tag 2 | . ]      open addressing, at most half full
//                │              │
//   rows   [ 1 | 2 | 3 ]  each one string: its key, then its value
//
// A table of few and small rows that is cleared keeps their memory: filled again and again, it asks for
// none.
//
// Threads: none inside; several may read while nobody changes it.
// Bounds:  4,294,967,294 rows, and keys of less than 4 GB.
// Limits:  the hash has no secret: whoever chooses the keys can make some that collide.
// Needs:   nothing but the standard library.
#ifndef SESHAT_ROW_TABLE_HPP
#define SESHAT_ROW_TABLE_HPP

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace seshat {

class RowTable {
 public:
  class Row {
   public:
    [[nodiscard]] std::string_view key() const { return {bytes_.data(), key_size_}; }
    [[nodiscard]] std::string_view value() const {
      return std::string_view(bytes_).substr(key_size_);
    }
    // The row says that there is no such key.
    [[nodiscard]] bool erased() const { return erased_; }
    [[nodiscard]] std::size_t size_bytes() const { return bytes_.size(); }
    void set(std::string_view value) {
      bytes_.resize(key_size_);
      bytes_.append(value);
      erased_ = false;
    }
    void erase() {
      bytes_.resize(key_size_);
      erased_ = true;
    }

   private:
    friend class RowTable;
    std::string bytes_;
    std::uint32_t key_size_ = 0;
    bool erased_ = true;
  };

  [[nodiscard]] std::size_t size() const { return size_; }
  [[nodiscard]] bool empty() const { return size_ == 0; }
  [[nodiscard]] const Row* begin() const { return rows_.data(); }
  [[nodiscard]] const Row* end() const { return rows_.data() + size_; }

  [[nodiscard]] static std::uint64_t hash_of(std::string_view key) {
    return std::hash<std::string_view>{}(key);
  }
  // Null: there is no row of this key. Until the table changes.
  [[nodiscard]] const Row* find(std::string_view key) const { return find(hash_of(key), key); }
  [[nodiscard]] const Row* find(std::uint64_t hash, std::string_view key) const;
  // What the row of this key says: nullopt: there is none; true: `value` is its value; false: there
  // is no such key.
  [[nodiscard]] std::optional<bool> get(std::uint64_t hash, std::string_view key,
                                        std::string& value) const;
  // In memory, beyond its bytes: roughly.
  static constexpr std::size_t kRowOverheadBytes = 96;
  // The row of this key, which is made, erased, if there is none. `made`, if not null, says which.
  [[nodiscard]] Row& at(std::string_view key, bool* made = nullptr) {
    return at(hash_of(key), key, made);
  }
  [[nodiscard]] Row& at(std::uint64_t hash, std::string_view key, bool* made = nullptr);
  // The row of the same key becomes what `row` is; `row` is left as something that has a value.
  Row& replace(Row& row, bool* made = nullptr);
  [[nodiscard]] Row* begin() { return rows_.data(); }
  [[nodiscard]] Row* end() { return rows_.data() + size_; }
  void clear();

  friend void swap(RowTable& left, RowTable& right) noexcept {
    std::swap(left.rows_, right.rows_);
    std::swap(left.slots_, right.slots_);
    std::swap(left.size_, right.size_);
  }

 private:
  static constexpr std::size_t kMinSlots = 16;
  // What a cleared table keeps: so many rows, of so many bytes each.
  static constexpr std::size_t kKeptRows = 512;
  static constexpr std::size_t kKeptRowBytes = 1024;
  static constexpr std::uint64_t kRowMask = 0xffff'ffff;

  // Where the row of `key` is, or would be. There is at least one empty slot.
  [[nodiscard]] std::size_t slot_of(std::uint64_t hash, std::string_view key) const;
  void grow();

  std::vector<Row> rows_;             // those behind size_ are only memory
  std::vector<std::uint64_t> slots_;  // a power of two: half of the hash, then the row + 1; 0: none
  std::size_t size_ = 0;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline std::size_t RowTable::slot_of(std::uint64_t hash, std::string_view key) const {
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = hash & mask;; at = (at + 1) & mask) {
    const std::uint64_t slot = slots_[at];
    if (slot == 0) return at;
    if ((slot & ~kRowMask) != (hash & ~kRowMask)) continue;
    if (rows_[(slot & kRowMask) - 1].key() == key) return at;
  }
}

inline const RowTable::Row* RowTable::find(std::uint64_t hash, std::string_view key) const {
  if (size_ == 0) return nullptr;
  const std::uint64_t slot = slots_[slot_of(hash, key)];
  return slot == 0 ? nullptr : &rows_[(slot & kRowMask) - 1];
}

inline std::optional<bool> RowTable::get(std::uint64_t hash, std::string_view key,
                                         std::string& value) const {
  const Row* row = find(hash, key);
  if (row == nullptr) return std::nullopt;
  if (!row->erased()) value.assign(row->value());
  return !row->erased();
}

inline RowTable::Row& RowTable::at(std::uint64_t hash, std::string_view key, bool* made) {
  if (2 * (size_ + 1) > slots_.size()) grow();
  std::uint64_t& slot = slots_[slot_of(hash, key)];
  if (made != nullptr) *made = slot == 0;
  if (slot != 0) return rows_[(slot & kRowMask) - 1];
  if (size_ == rows_.size()) rows_.emplace_back();
  Row& row = rows_[size_];
  ++size_;
  slot = (hash & ~kRowMask) | size_;
  row.bytes_.assign(key);
  row.key_size_ = static_cast<std::uint32_t>(key.size());
  row.erased_ = true;
  return row;
}

// By swapping their memory: nothing is copied, and the old memory serves the next row.
inline RowTable::Row& RowTable::replace(Row& row, bool* made) {
  Row& mine = at(row.key(), made);
  std::swap(mine.bytes_, row.bytes_);
  std::swap(mine.erased_, row.erased_);
  return mine;
}

inline void RowTable::grow() {
  slots_.assign(std::max(kMinSlots, 2 * slots_.size()), 0);
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t row = 0; row < size_; ++row) {
    const std::uint64_t hash = hash_of(rows_[row].key());
    std::size_t at = hash & mask;
    while (slots_[at] != 0) at = (at + 1) & mask;
    slots_[at] = (hash & ~kRowMask) | (row + 1);
  }
}

inline void RowTable::clear() {
  if (size_ == 0) return;
  if (rows_.size() > kKeptRows) {
    std::vector<Row>().swap(rows_);  // an assignment would keep the memory
    std::vector<std::uint64_t>().swap(slots_);
    size_ = 0;
  }
  for (Row& row : *this) {
    if (row.bytes_.capacity() > kKeptRowBytes) std::string().swap(row.bytes_);
  }
  std::fill(slots_.begin(), slots_.end(), 0);
  size_ = 0;
}

}  // namespace seshat

#endif  // SESHAT_ROW_TABLE_HPP
