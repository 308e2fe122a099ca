// seshat/peer_credentials.hpp - tells gRPC by what nodes know each other, and people what came of it.
//
//   dialer    open_channel() ── TLS, if there is ──> server_credentials()    listener
//             say_secret()   ── with every call ──> why_not_let_in()
//
// TLS is mutual: both sides show a certificate that the authority of peer_tls.ca_file has signed. The
// secret goes as metadata of each call, compared in constant time. It is not hidden from who reads the
// network where there is no TLS, nor from who listens at an address that a node dials.
//
// Threads: as peer.hpp says. Needs: peer_security.hpp, door.hpp (same_secret); libgrpc++.
#ifndef SESHAT_PEER_CREDENTIALS_HPP
#define SESHAT_PEER_CREDENTIALS_HPP

#include <grpcpp/channel.h>
#include <grpcpp/client_context.h>
#include <grpcpp/create_channel.h>
#include <grpcpp/security/credentials.h>
#include <grpcpp/security/server_credentials.h>
#include <grpcpp/support/channel_arguments.h>
#include <grpcpp/support/string_ref.h>
#include <grpcpp/version_info.h>

// What gRPC says goes elsewhere in newer versions, and is left where it goes.
#if GRPC_CPP_VERSION_MAJOR == 1 && GRPC_CPP_VERSION_MINOR < 65
#define SESHAT_GRPC_HAS_LOG_FUNCTION
#include <grpc/support/log.h>
#endif

#include <array>
#include <compare>
#include <cstddef>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "seshat/door.hpp"
#include "seshat/peer_security.hpp"

namespace seshat::peer_detail {

// "-bin": any bytes.
inline constexpr const char* kSecretName = "seshat-secret-bin";

// A channel to `addr`: TLS or not, as this node has it.
[[nodiscard]] std::shared_ptr<grpc::Channel> open_channel(const std::string& addr,
                                                          const PeerSecurity& security,
                                                          grpc::ChannelArguments arguments);
[[nodiscard]] std::shared_ptr<grpc::ServerCredentials> server_credentials(
    const PeerSecurity& security);

// Before the call begins.
void say_secret(grpc::ClientContext& context, const PeerSecurity& security);

using Metadata = std::multimap<grpc::string_ref, grpc::string_ref>;
// What is wrong with the secret that a call brings, in words for who made it.
[[nodiscard]] std::optional<std::string> why_not_let_in(const Metadata& metadata,
                                                        const PeerSecurity& security);

// gRPC's words for why a connection to another node did not come about, with ours where these say more.
[[nodiscard]] std::string explained(const std::string& reason, const PeerSecurity& security);

// A listener hears of handshakes that fail through gRPC's log alone. From here on this is read instead of
// written to stderr, a line for each of them; errors are kept as well. With GRPC_VERBOSITY in the
// environment somebody wants to see it all, and nothing changes.
void keep_grpc_words(const PeerSecurity& security);

struct GrpcWord {
  std::string text;  // for people
  std::string from;  // "ipv4:10.0.0.1:34567"; empty: not known

  friend auto operator<=>(const GrpcWord&, const GrpcWord&) = default;
};
// What was kept since the last call: each once, and not more than a few.
[[nodiscard]] std::vector<GrpcWord> take_grpc_words();

// =================================================================================================
// Bodies
// =================================================================================================

inline std::shared_ptr<grpc::Channel> open_channel(const std::string& addr,
                                                   const PeerSecurity& security,
                                                   grpc::ChannelArguments arguments) {
  if (!security.has_tls()) {
    return grpc::CreateCustomChannel(addr, grpc::InsecureChannelCredentials(), arguments);
  }
  grpc::SslCredentialsOptions options;
  options.pem_root_certs = security.authority;
  options.pem_private_key = security.private_key;
  options.pem_cert_chain = security.certificate;
  if (!security.server_name.empty()) arguments.SetSslTargetNameOverride(security.server_name);
  return grpc::CreateCustomChannel(addr, grpc::SslCredentials(options), arguments);
}

inline std::shared_ptr<grpc::ServerCredentials> server_credentials(const PeerSecurity& security) {
  if (!security.has_tls()) return grpc::InsecureServerCredentials();
  grpc::SslServerCredentialsOptions options(
      GRPC_SSL_REQUEST_AND_REQUIRE_CLIENT_CERTIFICATE_AND_VERIFY);
  options.pem_root_certs = security.authority;
  options.pem_key_cert_pairs.push_back({security.private_key, security.certificate});
  return grpc::SslServerCredentials(options);
}

inline void say_secret(grpc::ClientContext& context, const PeerSecurity& security) {
  if (!security.secret.empty()) context.AddMetadata(kSecretName, security.secret);
}

inline std::optional<std::string> why_not_let_in(const Metadata& metadata,
                                                 const PeerSecurity& security) {
  const auto said = metadata.find(kSecretName);
  if (said == metadata.end()) {
    if (security.secret.empty()) return std::nullopt;
    return "the node that calls says no secret, and this cluster has one: set cluster.secret or "
           "cluster.secret_file there";
  }
  if (security.secret.empty()) {
    return "the node that calls says a secret, and the node that is called has none: set "
           "cluster.secret or cluster.secret_file on every node";
  }
  const std::string_view given(said->second.data(), said->second.size());
  if (same_secret(given, security.secret)) return std::nullopt;
  return "the node that calls says another secret than the node that is called: cluster.secret or "
         "cluster.secret_file has to be the same on every node";
}

// ---- In words ------------------------------------------------------------------------------------

struct Explanation {
  std::string_view sign;  // in gRPC's text, in lower case
  std::string_view words;
};

inline constexpr auto kExplanations = std::to_array<Explanation>({
    {"is not in peer certificate",
     "the other node's certificate does not name the host that was dialed: make certificates that "
     "do, or name in peer_tls.server_name what all of them have"},
    {"certificate verify failed",
     "the other node's certificate is not accepted: it has to be signed by an authority in "
     "peer_tls.ca_file, and valid at present"},
    {"wrong version number",
     "the other node does not speak TLS: every node of a cluster needs peer_tls, or none"},
    {"peer did not return a certificate",
     "the other node showed no certificate: every node of a cluster needs peer_tls"},
    {"alert", "the other node does not accept the certificate of this one: its log says why"},
});

// Other libraries have the same words in capitals, with underscores.
inline std::string normalised(std::string_view text) {
  std::string out(text);
  for (char& c : out) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '_') c = ' ';
  }
  return out;
}

// Empty: nothing is known that says more.
inline std::string_view words_for(std::string_view text) {
  const std::string normal = normalised(text);
  for (const Explanation& each : kExplanations) {
    if (normal.find(each.sign) != std::string::npos) return each.words;
  }
  return {};
}

inline std::string explained(const std::string& reason, const PeerSecurity& security) {
  if (const std::string_view words = words_for(reason); !words.empty()) {
    return std::string(words) + " (" + reason + ")";
  }
  // A node that turns a certificate away, or wants TLS, often just hangs up.
  const bool hung_up = reason.find("Socket closed") != std::string::npos ||
                       reason.find("Connection reset") != std::string::npos;
  if (!hung_up) return reason;
  return reason + (security.has_tls()
                       ? "; perhaps it does not accept this node's certificate: its "
                         "log says so then"
                       : "; perhaps it speaks TLS: then this node needs peer_tls too");
}

struct GrpcWords {
  static constexpr std::size_t kMax = 16;
  std::mutex mutex;
  std::set<GrpcWord> words;
};

// Stays for ever: gRPC's threads may have something to say until the process is gone.
inline GrpcWords& grpc_words() {
  static GrpcWords& words = *new GrpcWords;
  return words;
}

// What stands between the quotes behind `name`, if anything.
inline std::string quoted_behind(std::string_view text, std::string_view name) {
  const std::size_t found = text.find(name);
  if (found == std::string_view::npos) return {};
  const std::string_view rest = text.substr(found + name.size());
  return std::string(rest.substr(0, rest.find('"')));
}

// Of a listener: "Handshaking failed: UNKNOWN:why {created_time:..., target_address:"who"}"
inline GrpcWord word_of_handshake(std::string_view text) {
  std::string why(words_for(text));
  if (why.empty() && text.find("Socket closed") != std::string_view::npos) {
    why = "it hung up; perhaps it does not accept this node's certificate: its log says so then";
  }
  if (why.empty()) why = text.substr(0, text.find(" {"));
  return {"turned a node away: the TLS handshake failed: " + why,
          quoted_behind(text, "target_address:\"")};
}

#ifdef SESHAT_GRPC_HAS_LOG_FUNCTION

inline void keep_grpc_line(gpr_log_func_args* said) {
  const std::string_view file = said->file;
  const std::string_view text = said->message;
  const bool is_listeners = file.ends_with("chttp2_server.cc");
  const bool is_handshake = is_listeners && text.starts_with("Handshaking failed");
  // Of a handshake that TLS ends, the listener's own line follows, or the dialer's call fails.
  const bool is_doubled = file.ends_with("ssl_transport_security.cc");
  if (!is_handshake && (said->severity != GPR_LOG_SEVERITY_ERROR || is_doubled)) return;
  GrpcWord word =
      is_handshake ? word_of_handshake(text) : GrpcWord{"gRPC says: " + std::string(text), ""};
  GrpcWords& kept = grpc_words();
  const std::lock_guard lock(kept.mutex);
  if (kept.words.size() < GrpcWords::kMax) kept.words.insert(std::move(word));
}

inline void keep_grpc_words(const PeerSecurity& security) {
  if (std::getenv("GRPC_VERBOSITY") != nullptr) return;
  gpr_set_log_function(&keep_grpc_line);
  if (security.has_tls()) gpr_set_log_verbosity(GPR_LOG_SEVERITY_DEBUG);
}

#else

inline void keep_grpc_words(const PeerSecurity&) {}

#endif
#undef SESHAT_GRPC_HAS_LOG_FUNCTION

inline std::vector<GrpcWord> take_grpc_words() {
  GrpcWords& kept = grpc_words();
  const std::lock_guard lock(kept.mutex);
  std::vector<GrpcWord> words(kept.words.begin(), kept.words.end());
  kept.words.clear();
  return words;
}

}  // namespace seshat::peer_detail

#endif  // SESHAT_PEER_CREDENTIALS_HPP
