// seshat/resp.hpp - the Redis protocol, RESP2 and RESP3: incremental parsers and a writer.
//
//   a server   bytes read ──> RequestParser ──> args()      bytes to send <── Writer
//   a client   bytes read ──> ReplyParser ──> Value         bytes to send <── append_command()
//
// A request on the wire is an array of bulk strings, or a line that someone typed:
//
//   *2\r\n  $3\r\nGET\r\n  $1\r\nk\r\n          GET k\r\n
//
// Keeps:    a request or reply parses the same however it was cut on its way; a declared length
//           is checked against Limits and never allocated: memory follows the bytes received.
// Fails:    with a status and a text. Nothing here throws, but for memory that can't be had.
// Threads:  none inside; one owner a parser. No clock, no I/O.
// Alone:    copy this file; it needs only the standard library (floating point in <charconv>).
//
// A server's loop over what it has read into `unconsumed`, answering PING and nothing else:
//
//   seshat::resp::RequestParser parser;                      // one a connection
//   seshat::resp::Writer reply(output, seshat::resp::Protocol::kResp2);
//   for (;;) {
//     const auto status = parser.parse(unconsumed);          // may be in the middle of a request
//     unconsumed.remove_prefix(parser.consumed());           // always, whatever the status
//     if (status == seshat::resp::Status::kIncomplete) break;        // read more, come back
//     if (status == seshat::resp::Status::kError) return reply.error(parser.error());  // close
//     if (parser.args()[0] == "PING") reply.simple_string("PONG");
//     else reply.error("ERR unknown command");
//   }
//
// From the RESP specification (redis.io/docs/reference/protocol-spec) and, where that is silent,
// Redis 7.0: the texts of protocol errors, the quoting of inline commands.

#ifndef SESHAT_RESP_HPP
#define SESHAT_RESP_HPP

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

namespace seshat::resp {

enum class Protocol : std::uint8_t { kResp2 = 2, kResp3 = 3 };

enum class [[nodiscard]] Status : std::uint8_t{kComplete, kIncomplete, kError};

// What a peer may make us hold. All are checked before the memory is taken.
struct Limits {
  // The sum of the lengths of all arguments of a request, or of all strings of a reply. What they
  // take on the wire is more by their headers, at most 24 bytes each.
  std::size_t max_request_size_bytes = 8U << 20U;
  // Arguments of a request; elements of a reply, all levels together.
  std::size_t max_arguments = 1'048'576;
  // A line: an inline command, a header, a simple string (PROTO_INLINE_MAX_SIZE of Redis).
  std::size_t max_inline_size_bytes = 65'536;
  // Aggregates inside one another, in a reply. Requests do not nest.
  std::size_t max_nesting = 32;

  // For what this program wrote itself.
  [[nodiscard]] static constexpr Limits none() {
    constexpr std::size_t kAny = static_cast<std::size_t>(-1) / 2;
    return {kAny, kAny, kAny, 32};
  }
};

// Parses requests, multibulk and inline, without copying arguments out of the read buffer.
//
// The caller passes all bytes that it holds and has not dropped yet, at whatever address they are
// by now, and after EVERY call drops consumed() bytes from their front. What was already looked
// at is not looked at again: byte by byte, n bytes cost O(n).
class RequestParser {
 public:
  explicit RequestParser(Limits limits = {}) : limits_(limits) {}

  // kComplete: args() is one request of at least one argument; call again for the next.
  // kIncomplete: read more. kError: answer with error(), then close; it stays so.
  // Empty requests (*0, *-1, a blank line) are skipped in silence, as in Redis.
  Status parse(std::string_view unconsumed);

  // A client that has still to say its password may send requests of few and short arguments: so
  // much as that takes, and no more (processMultibulkBuffer of Redis). From the next request on.
  void set_trusted(bool trusted) { trusted_ = trusted; }

  // After any call: how many bytes to drop from the front. Not 0 on kIncomplete after empty
  // requests, so that a stream of nothing else does not fill the buffer.
  [[nodiscard]] std::size_t consumed() const { return consumed_; }

  // After kComplete, until the next call or until the bytes of the buffer move. The views are
  // into the buffer, but for inline arguments with quotes, which the parser holds.
  [[nodiscard]] std::span<const std::string_view> args() const { return args_; }

  // After kError: the whole error text, without the leading '-'.
  [[nodiscard]] std::string_view error() const { return error_; }

 private:
  enum class Step : std::uint8_t { kType, kInline, kCount, kBulkHeader, kBulkBody };
  struct Extent {
    std::size_t offset;
    std::size_t size;
  };

  Status parse_request(std::string_view request);
  Status parse_inline(std::string_view request);
  Status parse_count(std::string_view request);
  Status parse_bulk_header(std::string_view request);
  Status parse_bulk_body(std::string_view request);
  bool split_inline(std::string_view line);
  bool append_token(std::string_view line, std::size_t& at);
  void append_quoted(std::string_view line, std::size_t& at, char quote);
  void finish_multibulk(std::string_view request);
  void begin_request();
  void release_excess();
  Status fail(std::string error);

  static constexpr std::int64_t kMaxUntrustedArguments = 10;
  static constexpr std::int64_t kMaxUntrustedSizeBytes = 16'384;

  Limits limits_;
  bool trusted_ = true;
  // The request under way. Offsets count from its first byte, which is the first byte that parse()
  // gets: they survive when the buffer moves.
  Step step_ = Step::kType;
  std::size_t position_ = 0;  // what comes next to be parsed
  std::size_t scanned_ = 0;   // no line end between position_ and here
  std::size_t missing_args_ = 0;
  std::size_t bulk_size_ = 0;
  std::size_t total_size_ = 0;
  std::vector<Extent> extents_;
  // What the last call found.
  std::size_t consumed_ = 0;
  std::vector<std::string_view> args_;
  std::string unquoted_;
  std::string error_;
};

// Appends replies to `out`, the output buffer of a connection. Types that RESP2 lacks are written
// as Redis writes them to a RESP2 client; each function says how.
class Writer {
 public:
  Writer(std::string& out, Protocol protocol) : out_(out), protocol_(protocol) {}

  [[nodiscard]] Protocol protocol() const { return protocol_; }
  // What is written in this protocol already.
  void raw(std::string_view bytes) { out_ += bytes; }
  // Of what was written to; cut_back() takes back what came behind such a place.
  [[nodiscard]] std::size_t size() const { return out_.size(); }
  void cut_back(std::size_t size) { out_.resize(size); }

  // One line. CR and LF in the text become spaces: no text can forge a second reply.
  void simple_string(std::string_view text) { line('+', text); }
  // `text` starts with its code, as in "ERR syntax error".
  void error(std::string_view text) { line('-', text); }
  void integer(std::int64_t number) { header(':', number); }
  void bulk(std::string_view bytes) { bulk_string('$', bytes); }

  void null() { out_ += resp3() ? "_\r\n" : "$-1\r\n"; }
  void null_array() { out_ += resp3() ? "_\r\n" : "*-1\r\n"; }

  // Aggregates: the caller writes the elements next. map(n) takes n keys, each before its value.
  void array(std::size_t count) { aggregate('*', count); }
  void map(std::size_t count) { resp3() ? aggregate('%', count) : aggregate('*', 2 * count); }
  void set(std::size_t count) { aggregate(resp3() ? '~' : '*', count); }
  void push(std::size_t count) { aggregate(resp3() ? '>' : '*', count); }
  // True: write `count` keys and values now, and then the reply they belong to. False: RESP2 has
  // no attributes; nothing was written, go on with the reply itself.
  [[nodiscard]] bool attribute(std::size_t count);

  void boolean(bool value);                   // RESP2: integer 1 or 0
  void double_number(double number);          // shortest that reads back the same; RESP2: bulk
  void big_number(std::string_view decimal);  // RESP2: bulk
  // `format` is three bytes, "txt" or "mkd"; anything else is written as "txt". RESP2: bulk.
  void verbatim(std::string_view format, std::string_view text);
  void bulk_error(std::string_view text);  // RESP2: error

 private:
  [[nodiscard]] bool resp3() const { return protocol_ == Protocol::kResp3; }
  void line(char type, std::string_view text);
  void header(char type, std::int64_t number);
  void aggregate(char type, std::size_t count) { header(type, static_cast<std::int64_t>(count)); }
  void bulk_string(char type, std::string_view bytes);

  std::string& out_;
  Protocol protocol_;
};

// The type of a value, named by its byte on the wire. A null array has none of its own in RESP3,
// where every null is `_`.
enum class Kind : char {
  kSimpleString = '+',
  kError = '-',
  kInteger = ':',
  kBulkString = '$',
  kArray = '*',
  kNull = '_',
  kNullArray = 0,
  kBoolean = '#',
  kDouble = ',',
  kBigNumber = '(',
  kBulkError = '!',
  kVerbatim = '=',
  kMap = '%',
  kSet = '~',
  kPush = '>',
};

// A reply as a tree that owns its strings; for clients, tools and tests.
struct Value {
  Kind kind = Kind::kNull;
  std::array<char, 3> format = {'t', 'x', 't'};  // kVerbatim
  std::int64_t integer = 0;                      // kInteger; kBoolean as 0 or 1
  double number = 0;                             // kDouble
  std::string text = {};                         // strings, errors, kBigNumber
  std::vector<Value> elements = {};              // aggregates; kMap: key, value, key, value, ...
  std::vector<Value> attributes = {};            // key, value, ... that came before this value

  bool operator==(const Value&) const = default;
};

// Parses replies of RESP2 and RESP3, one Value a time, pushes among them. The rules for buffer,
// consumed() and cost are those of RequestParser. Streamed types are refused: Redis sends none.
class ReplyParser {
 public:
  explicit ReplyParser(Limits limits = {}) : limits_(limits) {}

  Status parse(std::string_view unconsumed);
  [[nodiscard]] std::size_t consumed() const { return consumed_; }
  // After kComplete, until the next call. take() leaves an empty value behind.
  [[nodiscard]] const Value& value() const { return value_; }
  [[nodiscard]] Value take() { return std::exchange(value_, Value{}); }
  // After kError: what the peer did wrong. The connection is of no more use.
  [[nodiscard]] std::string_view error() const { return error_; }

 private:
  // An aggregate whose elements are still coming.
  struct Open {
    Value value = {};
    std::size_t missing = 0;
    bool is_attribute = false;
    std::vector<Value> attributes = {};  // for the element that comes next
  };

  Status parse_element(std::string_view rest);
  Status parse_line(char type, std::string_view text);
  Status parse_text(Kind kind, std::string_view text);
  Status parse_integer_reply(std::string_view text);
  Status parse_double(std::string_view text);
  Status parse_big_number(std::string_view text);
  Status open_bulk(char type, std::string_view text);
  Status open_aggregate(char type, std::string_view text);
  Status parse_bulk_body(std::string_view rest);
  Status add(Value value);
  void close_finished();
  [[nodiscard]] bool fits(std::size_t size_bytes);
  Status fail(std::string_view reason);

  Limits limits_;
  // The reply under way. The first of open_ stands for the connection and waits for one value.
  std::vector<Open> open_;
  std::size_t scanned_ = 0;
  std::optional<std::size_t> bulk_size_;
  char bulk_type_ = 0;
  std::size_t total_size_ = 0;
  std::size_t total_elements_ = 0;
  // What the last call found.
  std::size_t consumed_ = 0;
  Value value_;
  std::string error_;
};

// Writes what a parser of the writer's protocol reads back as an equal value. (NaN equals nothing,
// and what a protocol has no type for comes back as what Writer writes instead.)
void write(Writer& writer, const Value& value);

// Appends a request: a client's side of RequestParser.
void append_command(std::string& out, std::span<const std::string_view> args);
void append_command(std::string& out, std::initializer_list<std::string_view> args);

// ---- Bodies: lines and numbers, shared by both parsers --------------------------------------

// A parser that held one large request gives the memory back before the next.
inline constexpr std::size_t kKeptArguments = 1024;
inline constexpr std::size_t kKeptInlineSizeBytes = 1024;
inline constexpr std::string_view kBlanks = " \t\r\n\v\f";
inline constexpr std::string_view kTokenEnds = " \t\r\n";

// A decimal number in its one canonical form: no plus, no leading zeros, no "-0", no blanks. So
// does string2ll of Redis read a length.
[[nodiscard]] inline std::optional<std::int64_t> parse_integer(std::string_view text) {
  const bool negative = text.starts_with('-');
  const std::string_view digits = text.substr(negative ? 1 : 0);
  if (digits.empty() || digits.size() > 19) return std::nullopt;
  if (digits[0] == '0' && text.size() > 1) return std::nullopt;
  std::uint64_t number = 0;  // any 19 digits fit
  for (const char c : digits) {
    if (c < '0' || c > '9') return std::nullopt;
    number = 10 * number + static_cast<std::uint64_t>(c - '0');
  }
  if (number > std::uint64_t{INT64_MAX} + (negative ? 1 : 0)) return std::nullopt;
  return static_cast<std::int64_t>(negative ? 0 - number : number);
}

enum class LineEnd : std::uint8_t { kFound, kNotYet, kTooLong, kNoLineFeed };

// Looks for the CR LF that ends the line at `start`, from where the last call left off; `scanned`
// is then the place of the CR. The verdict depends on the bytes, not on how many there are yet:
// a line over `max_size` is too long even when its end is already here.
[[nodiscard]] inline LineEnd find_crlf(std::string_view bytes, std::size_t start,
                                       std::size_t max_size, std::size_t& scanned) {
  const std::size_t end = bytes.size() - start <= max_size ? bytes.size() : start + max_size + 1;
  while (scanned < end && bytes[scanned] != '\r') ++scanned;
  if (scanned - start > max_size) return LineEnd::kTooLong;
  if (bytes.size() - scanned < 2) return LineEnd::kNotYet;
  return bytes[scanned + 1] == '\n' ? LineEnd::kFound : LineEnd::kNoLineFeed;
}

// As in "got 'x'". What a terminal or a log would not show is written as \xHH.
[[nodiscard]] inline std::string quoted_byte(char byte) {
  const auto code = static_cast<unsigned char>(byte);
  if (code >= 0x20 && code < 0x7F) return {'\'', byte, '\''};
  constexpr std::string_view hex = "0123456789abcdef";
  return {'\'', '\\', 'x', hex[code >> 4U], hex[code & 0xFU], '\''};
}

// ---- Bodies: RequestParser ------------------------------------------------------------------

inline Status RequestParser::parse(std::string_view unconsumed) {
  consumed_ = 0;
  if (!error_.empty()) return Status::kError;
  if (step_ == Step::kType) release_excess();
  for (;;) {
    const Status status = parse_request(unconsumed.substr(consumed_));
    if (status != Status::kComplete) return status;
    consumed_ += position_;
    begin_request();
    if (!args_.empty()) return Status::kComplete;
  }
}

inline Status RequestParser::parse_request(std::string_view request) {
  if (request.empty()) return Status::kIncomplete;
  if (step_ == Step::kType) step_ = request[0] == '*' ? Step::kCount : Step::kInline;
  if (step_ == Step::kInline) return parse_inline(request);
  if (step_ == Step::kCount) {
    const Status status = parse_count(request);
    if (status != Status::kComplete) return status;
  }
  while (missing_args_ > 0) {
    const bool in_header = step_ == Step::kBulkHeader;
    const Status status = in_header ? parse_bulk_header(request) : parse_bulk_body(request);
    if (status != Status::kComplete) return status;
  }
  finish_multibulk(request);
  return Status::kComplete;
}

inline Status RequestParser::parse_count(std::string_view request) {
  const LineEnd end = find_crlf(request, 0, limits_.max_inline_size_bytes, scanned_);
  if (end == LineEnd::kNotYet) return Status::kIncomplete;
  if (end == LineEnd::kTooLong) return fail("ERR Protocol error: too big mbulk count string");
  if (end == LineEnd::kNoLineFeed) return fail("ERR Protocol error: invalid multibulk length");
  const auto count = parse_integer(request.substr(1, scanned_ - 1));
  if (!count || (*count > 0 && static_cast<std::uint64_t>(*count) > limits_.max_arguments)) {
    return fail("ERR Protocol error: invalid multibulk length");
  }
  if (!trusted_ && *count > kMaxUntrustedArguments) {
    return fail("ERR Protocol error: unauthenticated multibulk length");
  }
  missing_args_ = *count > 0 ? static_cast<std::size_t>(*count) : 0;
  position_ = scanned_ += 2;
  step_ = Step::kBulkHeader;
  return Status::kComplete;
}

inline Status RequestParser::parse_bulk_header(std::string_view request) {
  if (position_ == request.size()) return Status::kIncomplete;
  if (request[position_] != '$') {
    return fail("ERR Protocol error: expected '$', got " + quoted_byte(request[position_]));
  }
  const LineEnd end = find_crlf(request, position_, limits_.max_inline_size_bytes, scanned_);
  if (end == LineEnd::kNotYet) return Status::kIncomplete;
  if (end == LineEnd::kTooLong) return fail("ERR Protocol error: too big bulk count string");
  if (end == LineEnd::kNoLineFeed) return fail("ERR Protocol error: invalid bulk length");
  const auto size = parse_integer(request.substr(position_ + 1, scanned_ - position_ - 1));
  if (!size || *size < 0) return fail("ERR Protocol error: invalid bulk length");
  if (!trusted_ && *size > kMaxUntrustedSizeBytes) {
    return fail("ERR Protocol error: unauthenticated bulk length");
  }
  if (static_cast<std::uint64_t>(*size) > limits_.max_request_size_bytes - total_size_) {
    return fail("ERR request too large");
  }
  bulk_size_ = static_cast<std::size_t>(*size);
  total_size_ += bulk_size_;
  position_ = scanned_ + 2;
  step_ = Step::kBulkBody;
  return Status::kComplete;
}

// Redis skips the two bytes after the string unseen. Here they must be CR LF: a length that is
// wrong shows at once, and not as another command somewhere inside a value.
inline Status RequestParser::parse_bulk_body(std::string_view request) {
  const std::size_t end = position_ + bulk_size_;
  const std::string_view line_end = request.substr(std::min(end, request.size()), 2);
  if (line_end.empty() || line_end == "\r") return Status::kIncomplete;
  if (line_end != "\r\n") return fail("ERR Protocol error: expected CRLF after bulk string");
  extents_.push_back({position_, bulk_size_});
  position_ = scanned_ = end + 2;
  --missing_args_;
  step_ = Step::kBulkHeader;
  return Status::kComplete;
}

inline void RequestParser::finish_multibulk(std::string_view request) {
  args_.resize(extents_.size());
  for (std::size_t i = 0; i < extents_.size(); ++i) {
    args_[i] = std::string_view(request.data() + extents_[i].offset, extents_[i].size);
  }
}

// An inline command ends at LF, with or without CR (processInlineBuffer of Redis).
inline Status RequestParser::parse_inline(std::string_view request) {
  const std::string_view line = request.substr(0, limits_.max_inline_size_bytes + 1);
  const std::size_t end = line.find('\n', scanned_);
  if (end == std::string_view::npos) {
    scanned_ = line.size();
    if (line.size() <= limits_.max_inline_size_bytes) return Status::kIncomplete;
    return fail("ERR Protocol error: too big inline request");
  }
  const bool has_cr = end > 0 && line[end - 1] == '\r';
  if (!split_inline(line.substr(0, has_cr ? end - 1 : end))) {
    return fail("ERR Protocol error: unbalanced quotes in request");
  }
  if (args_.size() > limits_.max_arguments) {
    return fail("ERR Protocol error: invalid multibulk length");
  }
  for (const std::string_view arg : args_) total_size_ += arg.size();
  if (total_size_ > limits_.max_request_size_bytes) return fail("ERR request too large");
  position_ = end + 1;
  return Status::kComplete;
}

// The rules of sdssplitargs of Redis, but that a NUL is a byte like any other. Unquoting never
// lengthens, so unquoted_ takes its room once and the views into it stay good.
inline bool RequestParser::split_inline(std::string_view line) {
  args_.clear();
  unquoted_.clear();
  const bool quoted = line.find_first_of("\"'") != std::string_view::npos;
  if (quoted) unquoted_.reserve(line.size());
  std::size_t at = line.find_first_not_of(kBlanks);
  while (at != std::string_view::npos) {
    if (quoted) {
      const std::size_t first = unquoted_.size();
      if (!append_token(line, at)) return false;
      args_.push_back(std::string_view(unquoted_).substr(first));
    } else {
      const std::size_t end = std::min(line.find_first_of(kTokenEnds, at), line.size());
      args_.push_back(line.substr(at, end - at));
      at = end;
    }
    at = line.find_first_not_of(kBlanks, at);
  }
  return true;
}

// One argument of a line with quotes, from `at` on. False if a quote stays open, or if the closing
// one is followed by more than a blank.
inline bool RequestParser::append_token(std::string_view line, std::size_t& at) {
  char quote = 0;
  for (; at < line.size(); ++at) {
    const char c = line[at];
    if (quote == 0 && kTokenEnds.find(c) != std::string_view::npos) return true;
    if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (quote == 0) {
      unquoted_ += c;
    } else if (c != quote) {
      append_quoted(line, at, quote);
    } else {
      ++at;
      return at == line.size() || kBlanks.find(line[at]) != std::string_view::npos;
    }
  }
  return quote == 0;
}

// One byte of a quoted argument; leaves `at` at the last byte it took. "...": \n \r \t \b \a \xHH,
// and a backslash before any other byte is that byte. '...': only \' is special.
inline void RequestParser::append_quoted(std::string_view line, std::size_t& at, char quote) {
  constexpr std::string_view names = "nrtba";
  constexpr std::string_view bytes = "\n\r\t\b\a";
  const bool escapes = line[at] == '\\' && at + 1 < line.size();
  if (!escapes || (quote == '\'' && line[at + 1] != '\'')) {
    unquoted_ += line[at];
    return;
  }
  const char name = line[++at];
  if (quote == '"' && name == 'x' && line.size() - at > 2) {
    unsigned code = 0;
    const char* const digits = line.data() + at + 1;
    if (std::from_chars(digits, digits + 2, code, 16).ptr == digits + 2) {
      unquoted_ += static_cast<char>(code);
      at += 2;
      return;
    }
  }
  const std::size_t known = quote == '"' ? names.find(name) : std::string_view::npos;
  unquoted_ += known == std::string_view::npos ? name : bytes[known];
}

inline void RequestParser::begin_request() {
  step_ = Step::kType;
  position_ = scanned_ = total_size_ = 0;
  extents_.clear();
}

inline void RequestParser::release_excess() {
  if (args_.capacity() > kKeptArguments) std::vector<std::string_view>().swap(args_);
  if (extents_.capacity() > kKeptArguments) std::vector<Extent>().swap(extents_);
  if (unquoted_.capacity() > kKeptInlineSizeBytes) std::string().swap(unquoted_);
}

inline Status RequestParser::fail(std::string error) {
  error_ = std::move(error);
  args_.clear();
  return Status::kError;
}

// ---- Bodies: Writer -------------------------------------------------------------------------

inline void Writer::line(char type, std::string_view text) {
  out_ += type;
  const std::size_t begin = out_.size();
  out_ += text;
  for (char& c : std::span(out_).subspan(begin)) c = c == '\r' || c == '\n' ? ' ' : c;
  out_ += "\r\n";
}

inline void Writer::header(char type, std::int64_t number) {
  std::array<char, 24> bytes;  // type, sign, 19 digits, CR LF
  bytes[0] = type;
  char* end = std::to_chars(bytes.data() + 1, bytes.data() + bytes.size(), number).ptr;
  *end++ = '\r';
  *end++ = '\n';
  out_.append(bytes.data(), end);
}

inline void Writer::bulk_string(char type, std::string_view bytes) {
  header(type, static_cast<std::int64_t>(bytes.size()));
  // Room for all at once: one that grew for the bytes alone would be moved again for the line end.
  const std::size_t size = out_.size() + bytes.size() + 2;
  if (size > out_.capacity()) out_.reserve(std::max(size, 2 * out_.capacity()));
  out_.append(bytes).append("\r\n", 2);
}

inline bool Writer::attribute(std::size_t count) {
  if (!resp3()) return false;
  aggregate('|', count);
  return true;
}

inline void Writer::boolean(bool value) {
  if (!resp3()) return integer(value ? 1 : 0);
  out_ += value ? "#t\r\n" : "#f\r\n";
}

inline void Writer::double_number(double number) {
  std::array<char, 32> bytes;
  const char* const end = std::to_chars(bytes.data(), bytes.data() + bytes.size(), number).ptr;
  // to_chars writes "inf" as the protocol does, but a NaN with its sign.
  const std::string_view text = std::isnan(number) ? "nan" : std::string_view(bytes.data(), end);
  resp3() ? line(',', text) : bulk(text);
}

inline void Writer::big_number(std::string_view decimal) {
  resp3() ? line('(', decimal) : bulk(decimal);
}

inline void Writer::verbatim(std::string_view format, std::string_view text) {
  if (!resp3()) return bulk(text);
  header('=', static_cast<std::int64_t>(text.size() + 4));
  out_ += format.size() == 3 ? format : "txt";
  out_ += ':';
  out_ += text;
  out_ += "\r\n";
}

inline void Writer::bulk_error(std::string_view text) {
  resp3() ? bulk_string('!', text) : error(text);
}

// All of a scalar; of an aggregate, its header.
inline void write_head(Writer& writer, const Value& value) {
  const std::size_t count = value.elements.size();
  switch (value.kind) {
    case Kind::kSimpleString:
      return writer.simple_string(value.text);
    case Kind::kError:
      return writer.error(value.text);
    case Kind::kInteger:
      return writer.integer(value.integer);
    case Kind::kBulkString:
      return writer.bulk(value.text);
    case Kind::kArray:
      return writer.array(count);
    case Kind::kNull:
      return writer.null();
    case Kind::kNullArray:
      return writer.null_array();
    case Kind::kBoolean:
      return writer.boolean(value.integer != 0);
    case Kind::kDouble:
      return writer.double_number(value.number);
    case Kind::kBigNumber:
      return writer.big_number(value.text);
    case Kind::kBulkError:
      return writer.bulk_error(value.text);
    case Kind::kVerbatim:
      return writer.verbatim({value.format.data(), value.format.size()}, value.text);
    case Kind::kMap:
      return writer.map(count / 2);
    case Kind::kSet:
      return writer.set(count);
    case Kind::kPush:
      return writer.push(count);
  }
}

inline void write(Writer& writer, const Value& value) {
  if (!value.attributes.empty() && writer.attribute(value.attributes.size() / 2)) {
    for (const Value& attribute : value.attributes) write(writer, attribute);
  }
  write_head(writer, value);
  for (const Value& element : value.elements) write(writer, element);
}

inline void append_command(std::string& out, std::span<const std::string_view> args) {
  Writer writer(out, Protocol::kResp2);
  writer.array(args.size());
  for (const std::string_view arg : args) writer.bulk(arg);
}

inline void append_command(std::string& out, std::initializer_list<std::string_view> args) {
  append_command(out, std::span<const std::string_view>(args.begin(), args.size()));
}

// ---- Bodies: ReplyParser --------------------------------------------------------------------

inline Status ReplyParser::parse(std::string_view unconsumed) {
  consumed_ = 0;
  if (!error_.empty()) return Status::kError;
  if (open_.empty()) open_.push_back({.missing = 1});
  while (open_.front().missing > 0) {
    const Status status = parse_element(unconsumed.substr(consumed_));
    if (status != Status::kComplete) return status;
  }
  value_ = std::move(open_.front().value.elements.front());
  open_.clear();
  total_size_ = total_elements_ = 0;
  return Status::kComplete;
}

// One line, or the bytes of one bulk string. Each is consumed as soon as it is whole.
inline Status ReplyParser::parse_element(std::string_view rest) {
  if (bulk_size_) return parse_bulk_body(rest);
  if (rest.empty()) return Status::kIncomplete;
  if (rest[0] == ';' || rest[0] == '.') return fail("streamed types are not supported");
  if (std::string_view("+-:$*_#,(!=%~>|").find(rest[0]) == std::string_view::npos) {
    return fail("unknown reply type " + quoted_byte(rest[0]));
  }
  const LineEnd end = find_crlf(rest, 0, limits_.max_inline_size_bytes, scanned_);
  if (end == LineEnd::kNotYet) return Status::kIncomplete;
  if (end == LineEnd::kTooLong) return fail("too big line");
  if (end == LineEnd::kNoLineFeed) return fail("expected LF after CR");
  const std::string_view text = rest.substr(1, scanned_ - 1);
  consumed_ += scanned_ + 2;
  scanned_ = 0;
  return parse_line(rest[0], text);
}

inline Status ReplyParser::parse_line(char type, std::string_view text) {
  if (type == '+' || type == '-') return parse_text(static_cast<Kind>(type), text);
  if (type == '$' || type == '!' || type == '=') return open_bulk(type, text);
  if (type == ':') return parse_integer_reply(text);
  if (type == '_') return text.empty() ? add({}) : fail("invalid null");
  if (type == '#' && text == "t") return add({.kind = Kind::kBoolean, .integer = 1});
  if (type == '#' && text == "f") return add({.kind = Kind::kBoolean, .integer = 0});
  if (type == '#') return fail("invalid boolean");
  if (type == ',') return parse_double(text);
  if (type == '(') return parse_big_number(text);
  return open_aggregate(type, text);
}

inline Status ReplyParser::parse_text(Kind kind, std::string_view text) {
  if (!fits(text.size())) return fail("reply too large");
  return add({.kind = kind, .text = std::string(text)});
}

// Numbers of replies may carry a plus sign (RESP specification, integers and doubles).
[[nodiscard]] inline std::string_view without_plus(std::string_view number) {
  return number.substr(number.starts_with('+') && !number.starts_with("+-") ? 1 : 0);
}

inline Status ReplyParser::parse_integer_reply(std::string_view text) {
  const auto number = parse_integer(without_plus(text));
  if (!number) return fail("invalid integer");
  return add({.kind = Kind::kInteger, .integer = *number});
}

inline Status ReplyParser::parse_double(std::string_view text) {
  const std::string_view digits = without_plus(text);
  double number = 0;
  const char* const end = digits.data() + digits.size();
  const auto [stop, code] = std::from_chars(digits.data(), end, number);
  if (code != std::errc{} || stop != end) return fail("invalid double");
  return add({.kind = Kind::kDouble, .number = number});
}

inline Status ReplyParser::parse_big_number(std::string_view text) {
  const bool sign = text.starts_with('-') || text.starts_with('+');
  const std::string_view digits = text.substr(sign ? 1 : 0);
  if (digits.empty() || digits.find_first_not_of("0123456789") != std::string_view::npos) {
    return fail("invalid big number");
  }
  return parse_text(Kind::kBigNumber, text);
}

inline Status ReplyParser::open_bulk(char type, std::string_view text) {
  if (text == "?") return fail("streamed types are not supported");
  const auto size = parse_integer(text);
  if (type == '$' && size == -1) return add({});
  if (!size || *size < (type == '=' ? 4 : 0)) return fail("invalid bulk length");
  if (!fits(static_cast<std::uint64_t>(*size))) return fail("reply too large");
  bulk_size_ = static_cast<std::size_t>(*size);
  bulk_type_ = type;
  return Status::kComplete;
}

inline Status ReplyParser::parse_bulk_body(std::string_view rest) {
  const std::string_view line_end = "\r\n";
  if (rest.size() > *bulk_size_ && !line_end.starts_with(rest.substr(*bulk_size_, 2))) {
    return fail("expected CRLF after bulk string");
  }
  if (rest.size() < *bulk_size_ + 2) return Status::kIncomplete;
  const std::string_view bytes = rest.substr(0, *bulk_size_);
  consumed_ += bytes.size() + 2;
  bulk_size_.reset();
  if (bulk_type_ != '=') {
    return add({.kind = static_cast<Kind>(bulk_type_), .text = std::string(bytes)});
  }
  if (bytes[3] != ':') return fail("invalid verbatim string");
  return add({.kind = Kind::kVerbatim,
              .format = {bytes[0], bytes[1], bytes[2]},
              .text = std::string(bytes.substr(4))});
}

inline Status ReplyParser::open_aggregate(char type, std::string_view text) {
  if (text == "?") return fail("streamed types are not supported");
  const auto count = parse_integer(text);
  if (type == '*' && count == -1) return add({.kind = Kind::kNullArray});
  if (!count || *count < 0) return fail("invalid aggregate length");
  const std::uint64_t each = type == '%' || type == '|' ? 2 : 1;
  const std::size_t room = limits_.max_arguments - total_elements_;
  if (static_cast<std::uint64_t>(*count) > room / each) return fail("too many elements");
  if (open_.size() > limits_.max_nesting) return fail("aggregates nested too deeply");
  Open open{.missing = static_cast<std::size_t>(*count) * each, .is_attribute = type == '|'};
  open.value.kind = static_cast<Kind>(type);
  total_elements_ += open.missing;
  open_.push_back(std::move(open));
  close_finished();
  return Status::kComplete;
}

inline Status ReplyParser::add(Value value) {
  Open& parent = open_.back();
  value.attributes = std::exchange(parent.attributes, {});
  parent.value.elements.push_back(std::move(value));
  --parent.missing;
  close_finished();
  return Status::kComplete;
}

// Hands each aggregate that has all its elements to the one around it, innermost first.
inline void ReplyParser::close_finished() {
  while (open_.size() > 1 && open_.back().missing == 0) {
    Open done = std::move(open_.back());
    open_.pop_back();
    Open& parent = open_.back();
    if (done.is_attribute) {
      std::move(done.value.elements.begin(), done.value.elements.end(),
                std::back_inserter(parent.attributes));
      continue;
    }
    done.value.attributes = std::exchange(parent.attributes, {});
    parent.value.elements.push_back(std::move(done.value));
    --parent.missing;
  }
}

inline bool ReplyParser::fits(std::size_t size_bytes) {
  if (size_bytes > limits_.max_request_size_bytes - total_size_) return false;
  total_size_ += size_bytes;
  return true;
}

inline Status ReplyParser::fail(std::string_view reason) {
  error_ = "Protocol error: ";
  error_ += reason;
  open_.clear();
  return Status::kError;
}

}  // namespace seshat::resp

#endif  // SESHAT_RESP_HPP
