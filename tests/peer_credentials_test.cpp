// By what nodes know each other: the secret of a call, and gRPC's words made into ours.
#include "seshat/peer_credentials.hpp"

#include <string>

#include "catch.hpp"

namespace {

using namespace seshat::peer_detail;
using seshat::PeerSecurity;

PeerSecurity with_secret(const std::string& secret) {
  PeerSecurity security;
  security.secret = secret;
  return security;
}

// What a call that says `secret` hears.
std::string refusal(const std::string& secret, const PeerSecurity& of) {
  const Metadata metadata = {{"user-agent", "grpc"}, {kSecretName, secret}};
  return why_not_let_in(metadata, of).value_or("");
}

TEST_CASE("a call is let in with the same secret as the node's, or without where there is none",
          "[peer]") {
  const std::string secret("a \0secret of any bytes", 22);
  const Metadata none = {{"user-agent", "grpc"}};
  CHECK(!why_not_let_in(none, with_secret("")));
  CHECK(refusal(secret, with_secret(secret)).empty());
  CHECK_THAT(*why_not_let_in(none, with_secret(secret)), ContainsSubstring("says no secret"));
  CHECK_THAT(refusal(secret, with_secret("")),
             ContainsSubstring("the node that is called has none"));
  CHECK_THAT(refusal("", with_secret("")), ContainsSubstring("the node that is called has none"));
  for (const std::string& wrong :
       {secret + "x", secret.substr(1), std::string(), std::string("x")}) {
    const std::string said = refusal(wrong, with_secret(secret));
    CHECK_THAT(said, ContainsSubstring("another secret"));
    CHECK(said.find(secret) == std::string::npos);
  }
}

TEST_CASE("why nodes do not come together is said in words that somebody can act upon", "[peer]") {
  PeerSecurity tls;
  tls.certificate = "PEM";
  const auto starts = [](const std::string& words) { return StartsWith(words); };
  CHECK_THAT(
      explained("Ssl handshake failed: error:0A000086:SSL routines::certificate verify failed",
                tls),
      starts("the other node's certificate is not accepted: "));
  CHECK_THAT(
      explained("SSL_ERROR_SSL: error:1000007d:OPENSSL_internal:CERTIFICATE_VERIFY_FAILED", tls),
      starts("the other node's certificate is not accepted: "));
  CHECK_THAT(explained("Peer name 10.0.0.1 is not in peer certificate", tls),
             starts("the other node's certificate does not name the host that was dialed"));
  CHECK_THAT(explained("SSL routines::wrong version number", tls),
             starts("the other node does not speak TLS"));
  CHECK_THAT(explained("Socket closed", tls), EndsWith("its log says so then"));
  CHECK_THAT(explained("Socket closed", {}), EndsWith("then this node needs peer_tls too"));
  CHECK(explained("no answer within 5000 ms", tls) == "no answer within 5000 ms");
}

TEST_CASE("what gRPC logs of a handshake says who it was, and the same each time", "[peer]") {
  const auto line = [](const std::string& time, const std::string& port) {
    return "Handshaking failed: UNKNOWN:Handshake read failed {created_time:\"" + time +
           "\", children:[INTERNAL:Socket closed {target_address:\"ipv4:10.0.0.1:" + port + "\"}]}";
  };
  const GrpcWord first = word_of_handshake(line("1", "1000"));
  const GrpcWord second = word_of_handshake(line("2", "2000"));
  CHECK(first.text == second.text);
  CHECK(first.from == "ipv4:10.0.0.1:1000");
  const GrpcWord other =
      word_of_handshake("Handshaking failed: UNKNOWN:something new {created_time:3}");
  CHECK(other.text ==
        "turned a node away: the TLS handshake failed: Handshaking failed: "
        "UNKNOWN:something new");
  CHECK(other.from.empty());
}

}  // namespace
