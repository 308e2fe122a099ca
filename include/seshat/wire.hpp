// seshat/wire.hpp - protobuf's wire format by hand, for what is written and read with every command.
//
//   08 01        field 1, a varint: 1     a tag is the field's number << 3 | how it is written
//   18 ac 02     field 3, a varint: 300   7 bits a byte, the lowest first; its 80 says: more follow
//   2a 02 4f 4b  field 5, bytes:    "OK"  a length, then as many
//
//   wire::Writer out(text, size_bytes);          wire::Reader in(text);
//   out.number(1, version);                      while (in.next()) {
//   out.bytes(5, data);                            if (in.field() == 1) in.take(version);
//   out.flush();                                   if (in.field() == 5) in.take(data);
//                                                }
//                                                if (!in.whole()) return damaged;
//
// Size has the functions of Writer and counts: write a record once, as a template over either, and
// no length can differ from what is written.
//
// Keeps:    proto3's rule that 0 and empty bytes are left out. A Reader takes fields in any order
//           and skips those that nobody takes; it trusts no length, and what it can't read makes
//           it not whole(), for good.
// Refuses:  groups, which proto3 does not have; field 0; tags and numbers that do not fit, which
//           nobody writes.
// Threads:  none inside. Alone: copy this file; it needs only the standard library.
#ifndef SESHAT_WIRE_HPP
#define SESHAT_WIRE_HPP

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

namespace seshat::wire {

enum class Type : std::uint8_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

inline constexpr std::size_t kMaxVarintSizeBytes = 10;

[[nodiscard]] constexpr std::size_t varint_size_bytes(std::uint64_t value) {
  return (static_cast<std::size_t>(std::bit_width(value | 1)) + 6) / 7;
}

[[nodiscard]] constexpr std::uint32_t tag(std::uint32_t field, Type type) {
  return field << 3 | static_cast<std::uint32_t>(type);
}

// How many bytes a Writer would write.
class Size {
 public:
  void number(std::uint32_t field, std::uint64_t value);
  void number(std::uint32_t field, std::optional<std::uint64_t> value);
  void bytes(std::uint32_t field, std::string_view value);
  void element(std::uint32_t field, std::string_view value);
  void head(std::uint32_t field, std::size_t size_bytes);

  [[nodiscard]] std::size_t size_bytes() const { return size_bytes_; }

 private:
  std::size_t size_bytes_ = 0;
};

// Appends to a string, which must outlive it and has everything once the Writer is gone, or flush()
// was called.
class Writer {
 public:
  // Makes room for `size_bytes` once; more may be written, and costs another allocation.
  Writer(std::string& out, std::size_t size_bytes);
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  ~Writer() { flush(); }

  void number(std::uint32_t field, std::uint64_t value);                 // unless 0
  void number(std::uint32_t field, std::optional<std::uint64_t> value);  // also 0, unless absent
  void bytes(std::uint32_t field, std::string_view value);               // unless empty
  void element(std::uint32_t field, std::string_view value);             // also empty
  // Of bytes whose content the caller writes next.
  void head(std::uint32_t field, std::size_t size_bytes);
  void flush();

 private:
  void varints(std::uint32_t tag, std::uint64_t number);
  void varint(std::uint64_t number);

  // Numbers gather here, up to the next bytes: appending each by itself costs more than all the rest.
  static constexpr std::size_t kGatheredSizeBytes = 64;
  std::string& out_;
  std::array<char, kGatheredSizeBytes> gathered_;
  std::size_t gathered_size_bytes_ = 0;
};

// Reads fields one by one. Views that it hands out look into the bytes it was made of.
class Reader {
 public:
  explicit Reader(std::string_view bytes) : at_(bytes.data()), end_(bytes.data() + bytes.size()) {}

  // Goes to the next field. False: there is none, or it can't be read, or refuse() was called.
  [[nodiscard]] bool next();
  [[nodiscard]] std::uint32_t field() const { return field_; }

  // The value of the field that next() went to. One of another type, or too large, is refused.
  void take(std::uint64_t& value);
  void take(std::uint32_t& value);
  void take(bool& value);  // true: any number but 0, as large as it may be
  void take(std::string_view& value);
  // What was read makes no sense to the caller.
  void refuse() { whole_ = false; }

  // After the last next(): all bytes were read, and nothing was refused.
  [[nodiscard]] bool whole() const { return whole_; }

 private:
  [[nodiscard]] bool varint(std::uint64_t& value) {
    if (at_ == end_ || static_cast<unsigned char>(*at_) >= 0x80) return long_varint(value);
    value = static_cast<unsigned char>(*at_++);
    return true;
  }
  [[nodiscard]] bool long_varint(std::uint64_t& value);
  [[nodiscard]] bool content();
  [[nodiscard]] bool split(std::uint64_t size_bytes);

  [[nodiscard]] std::size_t rest_size_bytes() const { return static_cast<std::size_t>(end_ - at_); }

  const char* at_;
  const char* end_;
  bool whole_ = true;
  Type type_ = Type::kVarint;
  std::uint32_t field_ = 0;
  std::uint64_t number_ = 0;  // of a varint
  std::string_view bytes_;    // of any other type
};

// =================================================================================================
// Bodies
// =================================================================================================

// ---- Size ---------------------------------------------------------------------------------------

inline void Size::number(std::uint32_t field, std::uint64_t value) {
  if (value == 0) return;
  size_bytes_ += varint_size_bytes(tag(field, Type::kVarint)) + varint_size_bytes(value);
}

inline void Size::number(std::uint32_t field, std::optional<std::uint64_t> value) {
  if (!value) return;
  size_bytes_ += varint_size_bytes(tag(field, Type::kVarint)) + varint_size_bytes(*value);
}

inline void Size::bytes(std::uint32_t field, std::string_view value) {
  if (!value.empty()) element(field, value);
}

inline void Size::element(std::uint32_t field, std::string_view value) {
  head(field, value.size());
  size_bytes_ += value.size();
}

inline void Size::head(std::uint32_t field, std::size_t size_bytes) {
  size_bytes_ += varint_size_bytes(tag(field, Type::kBytes)) + varint_size_bytes(size_bytes);
}

// ---- Writer -------------------------------------------------------------------------------------

// A string need not grow by more than it is told to: many small records would be copied each time.
inline Writer::Writer(std::string& out, std::size_t size_bytes) : out_(out) {
  const std::size_t needed = out.size() + size_bytes;
  if (needed > out.capacity()) out.reserve(std::max(needed, 2 * out.capacity()));
}

inline void Writer::flush() {
  out_.append(gathered_.data(), gathered_size_bytes_);
  gathered_size_bytes_ = 0;
}

inline void Writer::varint(std::uint64_t number) {
  char* at = gathered_.data() + gathered_size_bytes_;
  for (; number >= 0x80; number >>= 7) *at++ = static_cast<char>(number | 0x80);
  *at++ = static_cast<char>(number);
  gathered_size_bytes_ = static_cast<std::size_t>(at - gathered_.data());
}

inline void Writer::varints(std::uint32_t tag, std::uint64_t number) {
  if (gathered_size_bytes_ + 2 * kMaxVarintSizeBytes > kGatheredSizeBytes) flush();
  varint(tag);
  varint(number);
}

inline void Writer::number(std::uint32_t field, std::uint64_t value) {
  if (value != 0) varints(tag(field, Type::kVarint), value);
}

inline void Writer::number(std::uint32_t field, std::optional<std::uint64_t> value) {
  if (value) varints(tag(field, Type::kVarint), *value);
}

inline void Writer::bytes(std::uint32_t field, std::string_view value) {
  if (!value.empty()) element(field, value);
}

inline void Writer::element(std::uint32_t field, std::string_view value) {
  head(field, value.size());
  flush();
  out_.append(value);
}

inline void Writer::head(std::uint32_t field, std::size_t size_bytes) {
  varints(tag(field, Type::kBytes), size_bytes);
}

// ---- Reader -------------------------------------------------------------------------------------

// The tenth byte has room for one bit of the 64.
inline bool Reader::long_varint(std::uint64_t& value) {
  constexpr unsigned kLastShift = 7 * (kMaxVarintSizeBytes - 1);
  value = 0;
  const char* at = at_;
  for (unsigned shift = 0; shift <= kLastShift && at != end_; shift += 7) {
    const auto byte = static_cast<unsigned char>(*at++);
    value |= std::uint64_t{byte & 0x7FU} << shift;
    if (byte >= 0x80) continue;
    at_ = at;
    return shift < kLastShift || byte <= 1;
  }
  return false;
}

inline bool Reader::split(std::uint64_t size_bytes) {
  if (size_bytes > rest_size_bytes()) return false;
  bytes_ = {at_, static_cast<std::size_t>(size_bytes)};
  at_ += size_bytes;
  return true;
}

inline bool Reader::content() {
  switch (type_) {
    case Type::kVarint:
      return varint(number_);
    case Type::kBytes:
      return varint(number_) && split(number_);
    case Type::kFixed64:
      return split(8);
    case Type::kFixed32:
      return split(4);
  }
  return false;  // a group, or nothing
}

inline bool Reader::next() {
  if (!whole_ || at_ == end_) return false;
  std::uint64_t tag = 0;
  whole_ = varint(tag) && tag <= std::numeric_limits<std::uint32_t>::max() && tag >> 3 != 0;
  if (!whole_) return false;
  field_ = static_cast<std::uint32_t>(tag >> 3);
  type_ = static_cast<Type>(tag & 7);
  whole_ = content();
  return whole_;
}

inline void Reader::take(std::uint64_t& value) {
  if (type_ != Type::kVarint) return refuse();
  value = number_;
}

inline void Reader::take(std::uint32_t& value) {
  if (type_ != Type::kVarint || number_ > std::numeric_limits<std::uint32_t>::max()) {
    return refuse();
  }
  value = static_cast<std::uint32_t>(number_);
}

inline void Reader::take(bool& value) {
  if (type_ != Type::kVarint) return refuse();
  value = number_ != 0;
}

inline void Reader::take(std::string_view& value) {
  if (type_ != Type::kBytes) return refuse();
  value = bytes_;
}

}  // namespace seshat::wire

#endif  // SESHAT_WIRE_HPP
