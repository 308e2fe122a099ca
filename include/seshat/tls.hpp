// seshat/tls.hpp - TLS 1.2 and 1.3 between bytes and bytes: no socket, no waiting.
//
//   socket ── sealed ──> Session::open() ──> plain ──> who reads
//   socket <── sealed ── Session::seal() <── plain <── who writes
//          <── output() ──┘ the handshake's own bytes
//
// A Context is what all connections of a port share: certificate, key, whom to believe. A Session is
// one connection's state. Whoever has the socket reads and writes it as it would without TLS, and has
// what came or goes pass through here.
//
// Keeps:    TLS 1.2 at least; no compression, no renegotiation, no session resumption: each
//           connection proves itself. What is not TLS, or breaks it, ends the session with a reason
//           in words. Never more than a partial record is kept of what came.
// Threads:  a Context is read only once it was loaded, and any thread may make sessions of it; a
//           Session belongs to one thread at a time.
// Needs:    result.hpp; OpenSSL 1.1.1 or newer, with SESHAT_WITH_TLS defined. Without that it
//           compiles all the same: load() then says that this program has no TLS.
#ifndef SESHAT_TLS_HPP
#define SESHAT_TLS_HPP

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#ifdef SESHAT_WITH_TLS
#include <openssl/bio.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#endif

namespace seshat::tls {

#ifdef SESHAT_WITH_TLS
inline constexpr bool kIsAvailable = true;
#else
inline constexpr bool kIsAvailable = false;
#endif

inline constexpr std::string_view kNotAvailable =
    "this seshat was built without TLS: build it where OpenSSL is (pkg-config openssl)";

// A PEM file, and the key of the configuration that names it, for messages. No path: none.
struct File {
  std::string key;
  std::string path;
};

struct Files {
  File certificate;  // with those between it and the authority, if there are any, behind it
  File private_key;
  File authority;  // of whom the other side's certificate has to be
};

// What is wrong with one of them.
struct Fault {
  std::string key;
  std::string path;
  std::string what;
};

// Whether the other side has to show a certificate that the authority has signed.
enum class Verify : std::uint8_t { kNo, kOptional, kYes };

enum class Role : std::uint8_t { kServer, kClient };

#ifdef SESHAT_WITH_TLS
using NativeContext = SSL_CTX;
using NativeSession = SSL;
#else
struct NativeContext {};
struct NativeSession {};
#endif

class Context {
 public:
  // Reads the files, and checks that they are in order: there, PEM, the certificate's own key, valid
  // at present. A fault: this is of no use. A client may do without a certificate.
  [[nodiscard]] std::optional<Fault> load(const Files& files, Role role, Verify verify);
  // A warning: what will be wrong within kSoonDays.
  [[nodiscard]] std::optional<Fault> soon() const { return soon_; }
  // Whether who believes the authority alone would believe our own certificate: why not, if so.
  [[nodiscard]] std::optional<std::string> why_not_signed_by_authority() const;
  [[nodiscard]] NativeContext* native() const { return native_.get(); }
  [[nodiscard]] Role role() const { return role_; }

  static constexpr int kSoonDays = 14;

 private:
  [[nodiscard]] std::optional<Fault> use_certificate(const Files& files);
  [[nodiscard]] std::optional<Fault> use_authority(const File& file, Verify verify);

  std::shared_ptr<NativeContext> native_;
  Role role_ = Role::kServer;
  std::optional<Fault> soon_;
};

class Session {
 public:
  // `host`, of a client: what the server's certificate has to name; empty: that is not checked.
  explicit Session(const Context& context, const std::string& host = {});
  ~Session();
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  enum class Status : std::uint8_t {
    kOpen,
    kClosed,  // the other side has said that it is done
    kFailed,  // problem() says why
  };

  // Takes in what came, which may lie in `plain`. What it says is put behind the first `end` bytes of
  // `plain`, which grows where it has to (by one record at most beyond what came), and `end` moves on.
  // To begin with, a client calls it with nothing.
  [[nodiscard]] Status open(std::string_view sealed, std::string& plain, std::size_t& end);
  // Makes of `bytes` what is to be sent for them, with what output() still has before it. Only once
  // is_established(). False: it failed.
  [[nodiscard]] bool seal(std::string& bytes);
  // What has to be sent though nobody asked for it: of the handshake, or how it failed. The caller
  // takes it; while it is not established nothing goes on otherwise.
  [[nodiscard]] std::string& output() { return output_; }
  // Puts into output() that nothing follows.
  void close();

  // Any thread.
  [[nodiscard]] bool is_established() const { return established_; }
  // Nothing more comes of what it is fed.
  [[nodiscard]] bool has_ended() const { return closed_ || failed_; }
  // Empty: it has not failed.
  [[nodiscard]] std::string problem() const {
    return failed_.load(std::memory_order_acquire) ? problem_ : std::string();
  }

 private:
  [[nodiscard]] bool shake_hands();
  void note_problem();
  void fail(std::string problem);

  std::unique_ptr<NativeSession, void (*)(NativeSession*)> native_;
  std::string fed_;  // came, and was not taken
  [[maybe_unused]] std::size_t fed_begin_ = 0;
  std::string output_;
  std::atomic<bool> established_{false};
  std::atomic<bool> closed_{false};
  std::atomic<bool> failed_{false};
  std::string problem_;  // written once, before failed_

  friend struct Wires;
};

// =================================================================================================
// Bodies
// =================================================================================================

#ifdef SESHAT_WITH_TLS

// One record's worth of bytes.
inline constexpr std::size_t kRecordSizeBytes = 16'384;
// What is kept of a buffer that once was large.
inline constexpr std::size_t kKeptSizeBytes = 4096;

// ---- Files ---------------------------------------------------------------------------------------

namespace detail {

// The last thing that OpenSSL said, in its words.
inline std::string last_words() {
  const unsigned long error = ERR_peek_last_error();
  const char* reason = ERR_reason_error_string(error);
  return reason != nullptr ? reason : "no reason given";
}

// Why it can't be read, if so.
inline std::optional<Fault> why_not_readable(const File& file) {
  errno = 0;
  std::ifstream stream(file.path, std::ios::binary);
  if (stream && stream.peek() != std::ifstream::traits_type::eof()) return std::nullopt;
  const int error = errno;
  const std::string why = error == 0 ? "it is empty" : std::strerror(error);
  return Fault{file.key, file.path, "can't be read: " + why};
}

// "2027-01-31 12:00:00 UTC"
inline std::string text_of(const ASN1_TIME* time) {
  std::tm parts{};
  if (ASN1_TIME_to_tm(time, &parts) != 1) return "a time that can't be read";
  char text[32] = {};
  std::strftime(text, sizeof text, "%Y-%m-%d %H:%M:%S UTC", &parts);
  return text;
}

inline std::optional<std::string> why_not_valid(const X509* certificate) {
  const ASN1_TIME* from = X509_get0_notBefore(certificate);
  const ASN1_TIME* until = X509_get0_notAfter(certificate);
  if (X509_cmp_current_time(until) < 0) {
    return "the certificate has expired, on " + text_of(until) + ": make a new one";
  }
  if (X509_cmp_current_time(from) > 0) {
    return "the certificate is not valid before " + text_of(from) +
           ": is the clock of this machine right?";
  }
  return std::nullopt;
}

// A key with a passphrase is refused, and nobody is asked for it.
inline int no_passphrase(char*, int, int, void*) { return 0; }

}  // namespace detail

inline std::optional<Fault> Context::load(const Files& files, Role role, Verify verify) {
  role_ = role;
  native_.reset(SSL_CTX_new(role == Role::kServer ? TLS_server_method() : TLS_client_method()),
                SSL_CTX_free);
  SSL_CTX* context = native_.get();
  if (context == nullptr) {
    return Fault{files.certificate.key, files.certificate.path,
                 "OpenSSL can't begin: " + detail::last_words()};
  }
  SSL_CTX_set_min_proto_version(context, TLS1_2_VERSION);
  SSL_CTX_set_options(context, SSL_OP_NO_COMPRESSION | SSL_OP_NO_RENEGOTIATION | SSL_OP_NO_TICKET |
                                   SSL_OP_CIPHER_SERVER_PREFERENCE);
  SSL_CTX_set_session_cache_mode(context, SSL_SESS_CACHE_OFF);
  SSL_CTX_set_num_tickets(context, 0);
  SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
  SSL_CTX_set_default_passwd_cb(context, &detail::no_passphrase);
  // Of TLS 1.2 what keeps past connections secret and is authenticated; 1.3 has nothing else.
  SSL_CTX_set_cipher_list(context, "ECDHE+AESGCM:ECDHE+CHACHA20");
  const bool shows_one = !files.certificate.path.empty() && !files.private_key.path.empty();
  if (role == Role::kServer || shows_one) {
    if (auto fault = use_certificate(files)) return fault;
  }
  return use_authority(files.authority, verify);
}

inline std::optional<Fault> Context::use_certificate(const Files& files) {
  const auto& [certificate, private_key, authority] = files;
  SSL_CTX* context = native_.get();
  if (auto fault = detail::why_not_readable(certificate)) return fault;
  if (auto fault = detail::why_not_readable(private_key)) return fault;
  ERR_clear_error();
  if (SSL_CTX_use_certificate_chain_file(context, certificate.path.c_str()) != 1) {
    return Fault{certificate.key, certificate.path,
                 "must be a certificate in PEM form (" + detail::last_words() + ")"};
  }
  const X509* own = SSL_CTX_get0_certificate(context);
  if (auto why = detail::why_not_valid(own)) {
    return Fault{certificate.key, certificate.path, *why};
  }
  std::time_t soon = std::time(nullptr) + std::time_t{kSoonDays} * 86'400;
  if (X509_cmp_time(X509_get0_notAfter(own), &soon) < 0) {
    soon_ = Fault{certificate.key, certificate.path,
                  "the certificate expires on " + detail::text_of(X509_get0_notAfter(own)) +
                      ": put a new one in its place and start this node again"};
  }
  ERR_clear_error();
  if (SSL_CTX_use_PrivateKey_file(context, private_key.path.c_str(), SSL_FILETYPE_PEM) == 1) {
    return std::nullopt;
  }
  if (ERR_GET_REASON(ERR_peek_last_error()) == X509_R_KEY_VALUES_MISMATCH) {
    return Fault{private_key.key, private_key.path,
                 "is not the key of the certificate in " + certificate.path};
  }
  return Fault{
      private_key.key, private_key.path,
      "must be a private key in PEM form, without a passphrase (" + detail::last_words() + ")"};
}

inline std::optional<Fault> Context::use_authority(const File& file, Verify verify) {
  SSL_CTX* context = native_.get();
  if (!file.path.empty()) {
    if (auto fault = detail::why_not_readable(file)) return fault;
    ERR_clear_error();
    if (SSL_CTX_load_verify_locations(context, file.path.c_str(), nullptr) != 1) {
      return Fault{
          file.key, file.path,
          "must be certificates of authorities in PEM form (" + detail::last_words() + ")"};
    }
    // What a server tells its clients, so that those with several certificates know which.
    if (role_ == Role::kServer && verify != Verify::kNo) {
      SSL_CTX_set_client_CA_list(context, SSL_load_client_CA_file(file.path.c_str()));
    }
  }
  int mode = SSL_VERIFY_NONE;
  if (verify != Verify::kNo) mode = SSL_VERIFY_PEER;
  if (verify == Verify::kYes) mode |= SSL_VERIFY_FAIL_IF_NO_PEER_CERT;
  SSL_CTX_set_verify(context, mode, nullptr);
  // A client may be told to believe one certificate, whoever has signed that.
  if (role_ == Role::kClient) {
    X509_VERIFY_PARAM_set_flags(SSL_CTX_get0_param(context), X509_V_FLAG_PARTIAL_CHAIN);
    if (file.path.empty()) SSL_CTX_set_default_verify_paths(context);
  }
  return std::nullopt;
}

inline std::optional<std::string> Context::why_not_signed_by_authority() const {
  STACK_OF(X509)* between = nullptr;
  SSL_CTX_get0_chain_certs(native_.get(), &between);
  const std::unique_ptr<X509_STORE_CTX, void (*)(X509_STORE_CTX*)> check(X509_STORE_CTX_new(),
                                                                         X509_STORE_CTX_free);
  X509_STORE_CTX_init(check.get(), SSL_CTX_get_cert_store(native_.get()),
                      SSL_CTX_get0_certificate(native_.get()), between);
  if (X509_verify_cert(check.get()) == 1) return std::nullopt;
  return X509_verify_cert_error_string(X509_STORE_CTX_get_error(check.get()));
}

// ---- A session -----------------------------------------------------------------------------------

// What OpenSSL takes for its network: reads what was fed, writes into output_.
struct Wires {
  static Session& session(BIO* bio) { return *static_cast<Session*>(BIO_get_data(bio)); }

  static int read(BIO* bio, char* into, std::size_t size, std::size_t* taken) {
    Session& of = session(bio);
    BIO_clear_retry_flags(bio);
    *taken = std::min(size, of.fed_.size() - of.fed_begin_);
    if (*taken == 0) {
      BIO_set_retry_read(bio);
      return 0;
    }
    std::memcpy(into, of.fed_.data() + of.fed_begin_, *taken);
    of.fed_begin_ += *taken;
    return 1;
  }

  static int write(BIO* bio, const char* from, std::size_t size, std::size_t* taken) {
    BIO_clear_retry_flags(bio);
    session(bio).output_.append(from, size);
    *taken = size;
    return 1;
  }

  static long control(BIO*, int what, long, void*) { return what == BIO_CTRL_FLUSH ? 1 : 0; }

  static const BIO_METHOD* method() {
    static const std::unique_ptr<BIO_METHOD, void (*)(BIO_METHOD*)> made = [] {
      BIO_METHOD* method = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "seshat");
      BIO_meth_set_read_ex(method, &read);
      BIO_meth_set_write_ex(method, &write);
      BIO_meth_set_ctrl(method, &control);
      return std::unique_ptr<BIO_METHOD, void (*)(BIO_METHOD*)>(method, BIO_meth_free);
    }();
    return made.get();
  }
};

inline Session::Session(const Context& context, const std::string& host)
    : native_(SSL_new(context.native()), SSL_free) {
  SSL* ssl = native_.get();
  BIO* bio = ssl == nullptr ? nullptr : BIO_new(Wires::method());
  if (bio == nullptr) {
    fail("OpenSSL has no memory for it");
    return;
  }
  BIO_set_data(bio, this);
  BIO_set_init(bio, 1);
  SSL_set_bio(ssl, bio, bio);  // takes it over
  if (context.role() == Role::kServer) {
    SSL_set_accept_state(ssl);
    return;
  }
  SSL_set_connect_state(ssl);
  if (host.empty()) return;
  // An address is no name, and stands elsewhere in a certificate.
  if (X509_VERIFY_PARAM_set1_ip_asc(SSL_get0_param(ssl), host.c_str()) == 1) return;
  if (SSL_set1_host(ssl, host.c_str()) != 1) fail("the name " + host + " can't be checked");
  SSL_set_tlsext_host_name(ssl, host.c_str());
}

inline Session::~Session() = default;

inline Session::Status Session::open(std::string_view sealed, std::string& plain,
                                     std::size_t& end) {
  if (failed_) return Status::kFailed;
  fed_.assign(sealed);
  fed_begin_ = 0;
  const bool was_established = is_established();
  bool goes_on = was_established || shake_hands();
  while (goes_on && is_established()) {
    if (end == plain.size()) plain.resize(end + kRecordSizeBytes);
    std::size_t size = 0;
    ERR_clear_error();
    const int done = SSL_read_ex(native_.get(), plain.data() + end, plain.size() - end, &size);
    if (done == 1) {
      end += size;
      continue;
    }
    const int why = SSL_get_error(native_.get(), done);
    closed_ = why == SSL_ERROR_ZERO_RETURN;
    goes_on = closed_ || why == SSL_ERROR_WANT_READ;
    if (!goes_on) note_problem();
    break;
  }
  // OpenSSL has a partial record in a buffer of its own: nothing is left here.
  if (fed_.capacity() > kKeptSizeBytes) std::string().swap(fed_);
  // What OpenSSL answers by itself goes with what is sent next. Much of it nobody needs.
  if (goes_on && was_established && output_.size() > kKeptSizeBytes) {
    fail("it asks again and again for another handshake, or for new keys");
    goes_on = false;
  }
  if (!goes_on) return Status::kFailed;
  return closed_ ? Status::kClosed : Status::kOpen;
}

// False: it failed.
inline bool Session::shake_hands() {
  ERR_clear_error();
  const int done = SSL_do_handshake(native_.get());
  if (done == 1) {
    established_ = true;
    return true;
  }
  if (SSL_get_error(native_.get(), done) == SSL_ERROR_WANT_READ) return true;
  note_problem();
  return false;
}

inline bool Session::seal(std::string& bytes) {
  if (failed_) return false;
  // A record has up to 22 bytes more than what it carries.
  output_.reserve(output_.size() + bytes.size() + (bytes.size() / kRecordSizeBytes + 1) * 32);
  std::size_t written = 0;
  ERR_clear_error();
  const bool done =
      bytes.empty() || SSL_write_ex(native_.get(), bytes.data(), bytes.size(), &written) == 1;
  if (!done) note_problem();
  bytes.clear();
  std::swap(bytes, output_);
  return done;
}

inline void Session::close() {
  if (!is_established() || failed_) return;
  ERR_clear_error();
  (void)SSL_shutdown(native_.get());
}

namespace detail {

// What people can act upon; for the rest, OpenSSL's words.
inline std::string explain(int reason, long verdict) {
  switch (reason) {
    case SSL_R_HTTP_REQUEST:
    case SSL_R_HTTPS_PROXY_REQUEST:
    case SSL_R_WRONG_VERSION_NUMBER:
      return "what came is not TLS";
    case SSL_R_UNSUPPORTED_PROTOCOL:
    case SSL_R_VERSION_TOO_LOW:
    case SSL_R_TLSV1_ALERT_PROTOCOL_VERSION:
      return "no version of TLS in common: 1.2 and 1.3 are spoken here";
    case SSL_R_NO_SHARED_CIPHER:
      return "no cipher in common";
    case SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE:
      return "it showed no certificate, and has to";
    case SSL_R_CERTIFICATE_VERIFY_FAILED:
      return std::string("its certificate is not accepted: ") +
             X509_verify_cert_error_string(verdict);
    case SSL_R_TLSV1_ALERT_UNKNOWN_CA:
      return "it does not accept the certificate that it was shown: another authority has signed "
             "that than those it knows";
    case SSL_R_SSLV3_ALERT_BAD_CERTIFICATE:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED:
    case SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN:
      return "it does not accept the certificate that it was shown";
#ifdef SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED
    case SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED:
      return "it wants to be shown a certificate";
#endif
    default:
      return last_words();
  }
}

}  // namespace detail

inline void Session::note_problem() {
  const int reason = ERR_GET_REASON(ERR_peek_last_error());
  fail(detail::explain(reason, SSL_get_verify_result(native_.get())));
}

inline void Session::fail(std::string problem) {
  if (failed_) return;
  problem_ = std::move(problem);
  failed_.store(true, std::memory_order_release);
}

#else  // without OpenSSL: nothing can be loaded, and so there is no session

inline std::optional<Fault> Context::load(const Files& files, Role, Verify) {
  return Fault{files.certificate.key, files.certificate.path, std::string(kNotAvailable)};
}

inline std::optional<std::string> Context::why_not_signed_by_authority() const {
  return std::string(kNotAvailable);
}

inline Session::Session(const Context&, const std::string&)
    : native_(nullptr, [](NativeSession*) {}) {}
inline Session::~Session() = default;
inline Session::Status Session::open(std::string_view, std::string&, std::size_t&) {
  return Status::kFailed;
}
inline bool Session::seal(std::string&) { return false; }
inline void Session::close() {}

#endif

}  // namespace seshat::tls

#endif  // SESHAT_TLS_HPP
