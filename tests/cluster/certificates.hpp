// tests/cluster/certificates.hpp - authorities and certificates for tests, made by the openssl tool.
//
//   const Certificates made(dir);
//   made.authority("ca");                    dir/ca.crt, dir/ca.key
//   made.certificate("node", {.by = "ca"});  dir/node.crt, dir/node.key; names localhost, 127.0.0.1
//
// Why a test that needs them can't run here, if so: Certificates::why_not().
#ifndef SESHAT_TESTS_CLUSTER_CERTIFICATES_HPP
#define SESHAT_TESTS_CLUSTER_CERTIFICATES_HPP

#include <cstdlib>
#include <filesystem>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "process.hpp"
#include "seshat/tls.hpp"

namespace seshat::tests {

class Certificates {
 public:
  struct Options {
    std::string by = "ca";
    std::string names = "DNS:localhost,DNS:seshat-node,IP:127.0.0.1";
    int days = 30;  // negative: it has expired
  };

  explicit Certificates(std::filesystem::path dir) : dir_(std::move(dir)) {}

  [[nodiscard]] static std::optional<std::string> why_not() {
    if (!tls::kIsAvailable) return "built without OpenSSL";
    if (std::system("command -v openssl >/dev/null") != 0) return "there is no openssl tool";
    if (std::system("redis-cli --help 2>&1 | grep -q -- --cacert") != 0) {
      return "there is no redis-cli that speaks TLS";
    }
    return std::nullopt;
  }

  void authority(const std::string& name) const {
    openssl({"req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", key(name), "-out", certificate(name), "-subj", "/CN=" + name, "-days",
             "30"});
  }

  void certificate(const std::string& name, const Options& options) const {
    const std::string request = path(name + ".csr");
    const std::string extensions = path(name + ".ext");
    write_text(extensions, "subjectAltName=" + options.names + "\n");
    openssl({"req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
             "-keyout", key(name), "-out", request, "-subj", "/CN=" + name});
    openssl({"x509", "-req", "-in", request, "-CA", certificate(options.by), "-CAkey",
             key(options.by), "-CAcreateserial", "-out", certificate(name), "-days",
             std::to_string(options.days), "-extfile", extensions});
  }

  [[nodiscard]] std::string certificate(const std::string& name) const {
    return path(name + ".crt");
  }
  [[nodiscard]] std::string key(const std::string& name) const { return path(name + ".key"); }
  [[nodiscard]] std::string path(const std::string& file) const { return (dir_ / file).string(); }

 private:
  static void openssl(std::vector<std::string> arguments) {
    arguments.insert(arguments.begin(), "openssl");
    const Finished finished = run(arguments, 30s);
    if (!finished.done()) throw std::runtime_error("openssl failed: " + finished.output);
  }

  std::filesystem::path dir_;
};

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_CERTIFICATES_HPP
