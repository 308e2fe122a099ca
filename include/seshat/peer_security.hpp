// seshat/peer_security.hpp - by what nodes know each other on the peer channel.
//
// TLS in both directions, a secret that all nodes know, both, or neither: the same on every node of a
// cluster. Files were read before this is filled (credentials.hpp); gRPC is told by
// peer_credentials.hpp.
//
// Threads: none inside; a value. Alone: needs the standard library.
#ifndef SESHAT_PEER_SECURITY_HPP
#define SESHAT_PEER_SECURITY_HPP

#include <string>

namespace seshat {

struct PeerSecurity {
  // PEM; all three, or none.
  std::string certificate;
  std::string private_key;
  std::string authority;  // has to have signed the other node's certificate
  // What the certificate of a node that is dialed has to name; empty: the host that is dialed.
  std::string server_name;
  // Said with every call; empty: none. Who does not say the same is turned away.
  std::string secret;

  [[nodiscard]] bool has_tls() const { return !certificate.empty(); }
};

}  // namespace seshat

#endif  // SESHAT_PEER_SECURITY_HPP
