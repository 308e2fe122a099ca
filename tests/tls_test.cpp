// TLS without a network: two sessions whose bytes are handed to and fro.
#include "seshat/tls.hpp"

#include <unistd.h>

#include <cstddef>
#include <filesystem>
#include <fstream>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "catch.hpp"

#ifdef SESHAT_WITH_TLS

namespace {

using namespace seshat::tls;

// Of "localhost", and of "other"; each its own authority, from 2020 to 2120. Nothing trusts them.
constexpr std::string_view kCertificate = R"(-----BEGIN CERTIFICATE-----
MIIBXzCCAQSgAwIBAgIBATAKBggqhkjOPQQDAjAUMRIwEAYDVQQDDAlsb2NhbGhv
c3QwIBcNMjAwMTAxMDAwMDAwWhgPMjEyMDAxMDEwMDAwMDBaMBQxEjAQBgNVBAMM
CWxvY2FsaG9zdDBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABCQJ+xl/DWA7s8Qz
dffc7YBXyu3Jk9LtgpW9+oi4m9m4Mq+J7oTlCBaA6pO9IR5jacXm777KmnbPHMAH
JpL1uzqjRTBDMAwGA1UdEwQFMAMBAf8wFAYDVR0RBA0wC4IJbG9jYWxob3N0MB0G
A1UdDgQWBBTyL57IVho7jIBKOl1LLW4zpZIZ5jAKBggqhkjOPQQDAgNJADBGAiEA
2XSOgJLu1yol47FDp5+2+3G1JTW8RWsuWAIx1123bAECIQD3HKnMeW+vTaP/R2DX
wlKQ3hr9ptoQw2KFpvTYHvql4w==
-----END CERTIFICATE-----
)";
constexpr std::string_view kKey = R"(-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQgFYUzdxo83OygFoz5
IneM6HPLDbFx3Rb+9293mFm9VR6hRANCAAQkCfsZfw1gO7PEM3X33O2AV8rtyZPS
7YKVvfqIuJvZuDKvie6E5QgWgOqTvSEeY2nF5u++ypp2zxzAByaS9bs6
-----END PRIVATE KEY-----
)";
constexpr std::string_view kOtherCertificate = R"(-----BEGIN CERTIFICATE-----
MIIBUjCB+KADAgECAgEBMAoGCCqGSM49BAMCMBAxDjAMBgNVBAMMBW90aGVyMCAX
DTIwMDEwMTAwMDAwMFoYDzIxMjAwMTAxMDAwMDAwWjAQMQ4wDAYDVQQDDAVvdGhl
cjBZMBMGByqGSM49AgEGCCqGSM49AwEHA0IABJwPgx2AM4qfxmb+cdDRTj7db7Uz
iz5xPmwe/k4z9Lg30l3etAgUMHyvt+0fxgr25K8IA0rJq1dxdOapvg/low+jQTA/
MAwGA1UdEwQFMAMBAf8wEAYDVR0RBAkwB4IFb3RoZXIwHQYDVR0OBBYEFHM962zy
zLSnCy2Bpwz27lH0FwDQMAoGCCqGSM49BAMCA0kAMEYCIQCiB/6HQBGYZWaVXOiR
WHcX/oZ5XGZuXwgsCCkkHZgIQgIhAMvb+S4189Bif5vHURKnTCYjCpJOJIUVnd/G
jruEO2z4
-----END CERTIFICATE-----
)";
constexpr std::string_view kOtherKey = R"(-----BEGIN PRIVATE KEY-----
MIGHAgEAMBMGByqGSM49AgEGCCqGSM49AwEHBG0wawIBAQQg07n9MV0s12ZOOlyl
k159n0L0cm5UfhwitQcLWFEHoDShRANCAAScD4MdgDOKn8Zm/nHQ0U4+3W+1M4s+
cT5sHv5OM/S4N9Jd3rQIFDB8r7ftH8YK9uSvCANKyatXcXTmqb4P5aMP
-----END PRIVATE KEY-----
)";

// The files, gone with the object.
class Directory {
 public:
  Directory() {
    std::string name = (std::filesystem::temp_directory_path() / "seshat-tls-XXXXXX").string();
    REQUIRE(::mkdtemp(name.data()) != nullptr);
    path_ = name;
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  ~Directory() { std::filesystem::remove_all(path_); }

  [[nodiscard]] std::string file(const std::string& name, std::string_view text) const {
    std::ofstream(path_ / name, std::ios::binary) << text;
    return (path_ / name).string();
  }
  [[nodiscard]] Files files() const {
    return {{"cert", file("a.crt", kCertificate)},
            {"key", file("a.key", kKey)},
            {"ca", file("a.crt", kCertificate)}};
  }
  [[nodiscard]] Files other_files() const {
    return {{"cert", file("b.crt", kOtherCertificate)},
            {"key", file("b.key", kOtherKey)},
            {"ca", file("a.crt", kCertificate)}};
  }

 private:
  std::filesystem::path path_;
};

Context context(const Files& files, Role role, Verify verify) {
  Context loaded;
  const auto fault = loaded.load(files, role, verify);
  REQUIRE(!fault);
  return loaded;
}

// One side: what it has read, and how it is.
struct Side {
  explicit Side(const Context& of, const std::string& host = {}) : session(of, host) {}

  Session::Status take(std::string_view sealed) {
    std::size_t end = read.size();
    status = session.open(sealed, read, end);
    read.resize(end);
    return status;
  }
  [[nodiscard]] std::string sealed(std::string bytes) {
    REQUIRE(session.seal(bytes));
    return bytes;
  }

  Session session;
  std::string read;
  Session::Status status = Session::Status::kOpen;
};

// Hands bytes over until neither has more to say, `step` at a time.
void talk(Side& client, Side& server, std::size_t step = 100'000) {
  (void)client.take({});
  for (int round = 0; round < 10; ++round) {
    for (auto [from, to] : {std::pair(&client, &server), std::pair(&server, &client)}) {
      const std::string bytes = std::exchange(from->session.output(), {});
      for (std::size_t at = 0; at < bytes.size(); at += step)
        (void)to->take(bytes.substr(at, step));
    }
  }
}

TEST_CASE("two sides agree, whatever the pieces are that their bytes come in", "[tls]") {
  const Directory dir;
  const Context of_server = context(dir.files(), Role::kServer, Verify::kYes);
  const Context of_client = context(dir.files(), Role::kClient, Verify::kYes);
  const std::size_t step = GENERATE(1, 7, 100'000);
  Side server(of_server);
  Side client(of_client, "localhost");
  talk(client, server, step);
  REQUIRE(server.session.is_established());
  REQUIRE(client.session.is_established());
  std::string large(1'000'000, ' ');
  for (std::size_t i = 0; i < large.size(); ++i) large[i] = static_cast<char>(i * 31 % 251);
  std::string bytes = client.sealed("hello, ");
  bytes += client.sealed(large);
  CHECK(bytes.find("hello") == std::string::npos);
  const std::size_t piece = step == 1 ? 1013 : 100'000;
  for (std::size_t at = 0; at < bytes.size(); at += piece) {
    REQUIRE(server.take(std::string_view(bytes).substr(at, piece)) == Session::Status::kOpen);
  }
  CHECK(server.read == "hello, " + large);
  client.session.close();
  CHECK(server.take(client.session.output()) == Session::Status::kClosed);
}

TEST_CASE("what came may lie where what it says is put", "[tls]") {
  const Directory dir;
  const Context of_server = context(dir.files(), Role::kServer, Verify::kNo);
  const Context of_client = context(dir.files(), Role::kClient, Verify::kYes);
  Side server(of_server);
  Side client(of_client);
  talk(client, server);
  const std::string said(40'000, 'x');
  std::string bytes = client.sealed(said);
  const std::string rest = bytes.substr(30'000);
  // The beginning, then the rest in the same place: more comes out than goes in.
  std::string input = "before" + bytes.substr(0, 30'000);
  std::size_t end = 6;
  REQUIRE(server.session.open(std::string_view(input).substr(6), input, end) ==
          Session::Status::kOpen);
  input.resize(end);
  input += rest;
  REQUIRE(server.session.open(std::string_view(input).substr(end), input, end) ==
          Session::Status::kOpen);
  input.resize(end);
  CHECK(input == "before" + said);
}

TEST_CASE("what breaks TLS ends it, with a reason for people", "[tls]") {
  const Directory dir;
  const Context of_server = context(dir.files(), Role::kServer, Verify::kYes);
  Side server(of_server);
  SECTION("bytes as they are") {
    CHECK(server.take("*1\r\n$4\r\nPING\r\n") == Session::Status::kFailed);
    CHECK(server.session.problem() == "what came is not TLS");
  }
  SECTION("HTTP") {
    CHECK(server.take("GET / HTTP/1.1\r\n\r\n") == Session::Status::kFailed);
    CHECK(server.session.problem() == "what came is not TLS");
  }
  SECTION("no certificate") {
    Files none = dir.files();
    none.certificate.path = none.private_key.path = "";
    const Context of_client = context(none, Role::kClient, Verify::kYes);
    Side client(of_client);
    talk(client, server);
    CHECK(server.status == Session::Status::kFailed);
    CHECK(server.session.problem() == "it showed no certificate, and has to");
    CHECK(client.status == Session::Status::kFailed);
  }
  SECTION("a certificate of somebody else") {
    const Context of_client = context(dir.other_files(), Role::kClient, Verify::kYes);
    Side client(of_client);
    talk(client, server);
    CHECK_THAT(server.session.problem(), StartsWith("its certificate is not accepted: self"));
  }
  SECTION("another host") {
    const Context of_client = context(dir.files(), Role::kClient, Verify::kYes);
    Side client(of_client, GENERATE(as<std::string>(), "elsewhere", "127.0.0.1"));
    talk(client, server);
    CHECK(client.status == Session::Status::kFailed);
    CHECK_THAT(client.session.problem(), ContainsSubstring("mismatch"));
    CHECK(!server.session.is_established());
  }
  SECTION("a changed byte") {
    const Context of_client = context(dir.files(), Role::kClient, Verify::kYes);
    Side client(of_client);
    talk(client, server);
    std::string bytes = client.sealed("hello");
    bytes.back() ^= 1;
    CHECK(server.take(bytes) == Session::Status::kFailed);
    CHECK(server.read.empty());
    CHECK(!server.session.problem().empty());
  }
  std::string more = "more";
  CHECK(!server.session.seal(more));
  CHECK(server.take("more") == Session::Status::kFailed);
}

TEST_CASE("files that are of no use are named, with what is wrong", "[tls]") {
  const Directory dir;
  const auto fault = [](const Files& files) {
    Context loaded;
    return loaded.load(files, Role::kServer, Verify::kYes).value_or(Fault{});
  };
  Files files = dir.files();
  CHECK(fault(files).key.empty());
  files.private_key.path = dir.file("b.key", kOtherKey);
  CHECK(fault(files).key == "key");
  CHECK(fault(files).what == "is not the key of the certificate in " + files.certificate.path);
  files.private_key.path = dir.file("empty", "");
  CHECK(fault(files).what == "can't be read: it is empty");
  files = dir.files();
  files.authority.path = dir.file("text", "text");
  CHECK(fault(files).key == "ca");
  CHECK_THAT(fault(files).what, StartsWith("must be certificates of authorities in PEM form"));
  files.authority.path = "/nowhere";
  CHECK(fault(files).what == "can't be read: No such file or directory");
}

TEST_CASE("a certificate that its authority has not signed is known before others see it",
          "[tls]") {
  const Directory dir;
  CHECK(!context(dir.files(), Role::kServer, Verify::kYes).why_not_signed_by_authority());
  CHECK(context(dir.other_files(), Role::kServer, Verify::kYes).why_not_signed_by_authority());
}

}  // namespace

#else

TEST_CASE("without OpenSSL nothing is loaded, and that is said", "[tls]") {
  seshat::tls::Context context;
  const auto fault = context.load({}, seshat::tls::Role::kServer, seshat::tls::Verify::kNo);
  REQUIRE(fault);
  CHECK_THAT(fault->what, StartsWith("this seshat was built without TLS"));
}

#endif
