// seshat/entrance.hpp - a port where clients come in.
//
// Threads: none inside; whoever runs its io_context. Needs: config_keys.hpp (addresses), result.hpp; asio.
#ifndef SESHAT_ENTRANCE_HPP
#define SESHAT_ENTRANCE_HPP

#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <cstdint>
#include <string>

#if __has_include(<netinet/tcp.h>)
#include <netinet/tcp.h>
#endif

#include "seshat/config_keys.hpp"
#include "seshat/result.hpp"

namespace seshat {

struct Entrance {
  explicit Entrance(asio::io_context& io) : acceptor(io) {}

  // `key`: of the configuration, where the address stands. An error says what to do.
  [[nodiscard]] Result<void> listen(const std::string& host, std::uint64_t port,
                                    const std::string& key);

  asio::ip::tcp::acceptor acceptor;
  bool is_accepting = false;
};

// =================================================================================================
// Bodies
// =================================================================================================

inline Result<void> Entrance::listen(const std::string& host, std::uint64_t port,
                                     const std::string& key) {
  using Tcp = asio::ip::tcp;
  asio::error_code error;
  Tcp::resolver resolver(acceptor.get_executor());
  const auto found = resolver.resolve(host, std::to_string(port), Tcp::resolver::passive, error);
  if (!error && found.empty()) error = asio::error::host_not_found;
  const Tcp::endpoint endpoint = error ? Tcp::endpoint() : found.begin()->endpoint();
  if (!error) acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(Tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (!error) return {};
  return Error{"can't listen for clients on " + key + " " +
               join_address(host, static_cast<std::uint16_t>(port)) + ": " + error.message() +
               "; choose another address or stop the program that has it"};
}

[[nodiscard]] inline std::string address_of(const asio::ip::tcp::endpoint& endpoint) {
  return join_address(endpoint.address().to_string(), endpoint.port());
}

// A dead peer is noticed in the end, as in Redis: after so long without a byte it is asked for one.
inline void keep_alive(asio::ip::tcp::socket& socket) {
  asio::error_code ignored;
  socket.set_option(asio::socket_base::keep_alive(true), ignored);
#if __has_include(<netinet/tcp.h>) && defined(TCP_KEEPIDLE)
  constexpr int kIdleSecs = 300;
  socket.set_option(asio::detail::socket_option::integer<IPPROTO_TCP, TCP_KEEPIDLE>(kIdleSecs),
                    ignored);
#endif
}

}  // namespace seshat

#endif  // SESHAT_ENTRANCE_HPP
