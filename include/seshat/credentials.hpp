// seshat/credentials.hpp - certificates, keys and the cluster's secret: from their files, checked.
//
//   CommandLine ── load_credentials() ──> Credentials { clients, peers }
//                                    └──> problems, as those of the configuration: exit code 2
//
// Reads every file that the configuration names, once, at the start: what is wrong with one of them is
// said before a port is opened. A certificate that is renewed counts from the next start on.
//
// Threads: none inside. Needs: config.hpp, peer_security.hpp, tls.hpp.
#ifndef SESHAT_CREDENTIALS_HPP
#define SESHAT_CREDENTIALS_HPP

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

#include "seshat/config.hpp"
#include "seshat/peer_security.hpp"
#include "seshat/tls.hpp"

namespace seshat {

struct Credentials {
  std::shared_ptr<const tls::Context> clients;  // null: no TLS for them
  PeerSecurity peers;
};

struct LoadedCredentials {
  Credentials credentials;
  std::vector<Problem> warnings;
  std::vector<Problem> problems;  // empty: the credentials are of use
};

[[nodiscard]] LoadedCredentials load_credentials(const CommandLine& line);

// =================================================================================================
// Bodies
// =================================================================================================

namespace credentials_detail {

class Loader {
 public:
  explicit Loader(const CommandLine& line) : line_(line), config_(line.config) {}

  [[nodiscard]] LoadedCredentials load() {
    if (config_.client.tls_port != 0) load_client_tls();
    if (config_.has_peer_tls()) load_peer_tls();
    load_secret();
    return std::move(loaded_);
  }

 private:
  void load_client_tls();
  void load_peer_tls();
  void load_secret();

  // With where the key was set.
  [[nodiscard]] Problem problem(const std::string& key, std::string value, std::string what) const {
    const auto place = line_.places.find(key);
    if (place == line_.places.end()) return {"", 0, key, std::move(value), std::move(what)};
    return {place->second.source, place->second.line, key, std::move(value), std::move(what)};
  }
  void refuse(const std::string& key, const std::string& path, std::string what) {
    loaded_.problems.push_back(problem(key, config::show(path), std::move(what)));
  }
  // False: it was refused.
  [[nodiscard]] bool take(tls::Context& context, const tls::Files& files, tls::Verify verify);
  // Whoever else has an account on this machine should not be able to read it.
  void warn_if_others_can_read(const std::string& key, const std::string& path);
  [[nodiscard]] std::string contents(const std::string& key, const std::string& path);

  const CommandLine& line_;
  const Config& config_;
  LoadedCredentials loaded_;
};

inline bool Loader::take(tls::Context& context, const tls::Files& files, tls::Verify verify) {
  if (const auto fault = context.load(files, tls::Role::kServer, verify)) {
    refuse(fault->key, fault->path, fault->what);
    return false;
  }
  if (const auto soon = context.soon()) {
    loaded_.warnings.push_back(problem(soon->key, config::show(soon->path), soon->what));
  }
  warn_if_others_can_read(files.private_key.key, files.private_key.path);
  return true;
}

inline void Loader::warn_if_others_can_read(const std::string& key, const std::string& path) {
  std::error_code error;
  const auto permissions = std::filesystem::status(path, error).permissions();
  if (error ||
      (permissions & std::filesystem::perms::others_read) == std::filesystem::perms::none) {
    return;
  }
  loaded_.warnings.push_back(
      problem(key, config::show(path), "can be read by every user of this machine: chmod 600 it"));
}

inline void Loader::load_client_tls() {
  const Config::Client& client = config_.client;
  if (!tls::kIsAvailable) {
    loaded_.problems.push_back(problem("client.tls_port", std::to_string(client.tls_port),
                                       std::string(tls::kNotAvailable)));
    return;
  }
  const tls::Files files = {{"client.tls_cert_file", client.tls_cert_file},
                            {"client.tls_key_file", client.tls_key_file},
                            {"client.tls_ca_file", client.tls_ca_file}};
  const auto context = std::make_shared<tls::Context>();
  const auto verify = static_cast<tls::Verify>(client.tls_auth_clients);
  if (take(*context, files, verify)) loaded_.credentials.clients = context;
}

// gRPC reads them itself, and says little about what is wrong: so they are checked here, where
// OpenSSL is.
inline void Loader::load_peer_tls() {
  const Config::PeerTls& tls = config_.peer_tls;
  if (tls::kIsAvailable) {
    tls::Context checked;
    const tls::Files files = {{"peer_tls.cert_file", tls.cert_file},
                              {"peer_tls.key_file", tls.key_file},
                              {"peer_tls.ca_file", tls.ca_file}};
    if (!take(checked, files, tls::Verify::kYes)) return;
    if (const auto why = checked.why_not_signed_by_authority()) {
      return refuse("peer_tls.cert_file", tls.cert_file,
                    "no other node would accept it, if they all have " + tls.ca_file + ": " + *why);
    }
  }
  PeerSecurity& peers = loaded_.credentials.peers;
  peers.certificate = contents("peer_tls.cert_file", tls.cert_file);
  peers.private_key = contents("peer_tls.key_file", tls.key_file);
  peers.authority = contents("peer_tls.ca_file", tls.ca_file);
  peers.server_name = tls.server_name;
}

inline std::string Loader::contents(const std::string& key, const std::string& path) {
  errno = 0;
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  if (!stream || text.str().empty()) {
    refuse(key, path,
           "can't be read: " + std::string(errno == 0 ? "it is empty" : std::strerror(errno)));
  }
  return text.str();
}

inline void Loader::load_secret() {
  std::string& secret = loaded_.credentials.peers.secret;
  secret = config_.cluster.secret;
  const std::string& path = config_.cluster.secret_file;
  if (path.empty()) return;
  const std::string key = "cluster.secret_file";
  const std::size_t problems = loaded_.problems.size();
  const std::string text = contents(key, path);
  if (loaded_.problems.size() > problems) return;
  secret = text.substr(0, text.find_first_of("\r\n"));
  if (const auto why = config::why_not_secret(secret))
    return refuse(key, path, "its first line " + *why);
  warn_if_others_can_read(key, path);
}

}  // namespace credentials_detail

inline LoadedCredentials load_credentials(const CommandLine& line) {
  return credentials_detail::Loader(line).load();
}

}  // namespace seshat

#endif  // SESHAT_CREDENTIALS_HPP
