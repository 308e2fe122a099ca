// seshat/cli_client.hpp - one conversation with a node, for the subcommands: ask and wait.
//
//   Client client;
//   if (auto reached = client.connect({"127.0.0.1", 6379}, deadline); !reached) ...
//   Result<resp::Value> reply = client.ask({"SESHAT.LEAVE", "3"}, deadline);
//
// Speaks RESP3, so that replies carry their types. What comes with authentication belongs into
// connect(): a client is ready to ask once that has succeeded.
//
// Fails:   connect(): nothing was asked. ask(): the request may have been carried out or not.
// Threads: blocks the one that calls. Needs: resp.hpp, config_keys.hpp (HostPort), result.hpp,
//          tls.hpp; asio (standalone).
#ifndef SESHAT_CLI_CLIENT_HPP
#define SESHAT_CLI_CLIENT_HPP

#include <array>
#include <asio/buffer.hpp>
#include <asio/connect.hpp>
#include <asio/error.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/write.hpp>
#include <chrono>
#include <cstddef>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "seshat/config_keys.hpp"
#include "seshat/resp.hpp"
#include "seshat/result.hpp"
#include "seshat/tls.hpp"

namespace seshat::cli {

class Client {
 public:
  using Deadline = std::chrono::steady_clock::time_point;

  // Before connect(): by TLS. `host`: what the node's certificate has to name; empty: that does not
  // matter. An error: the files are of no use.
  [[nodiscard]] Result<void> use_tls(const tls::Files& files, const std::string& host);
  // Looks the host up, tries its addresses in turn, and greets; with the password, unless it is
  // empty.
  [[nodiscard]] Result<void> connect(const HostPort& address, Deadline deadline,
                                     const std::string& password = {});
  // One request and its reply, an error reply among them.
  [[nodiscard]] Result<resp::Value> ask(const std::vector<std::string>& words, Deadline deadline);

 private:
  using Tcp = asio::ip::tcp;

  // Starts an operation with `start(handler)` and waits for its end. At the deadline the socket is
  // closed, which ends it.
  template <class Start>
  [[nodiscard]] asio::error_code finish(Deadline deadline, Start start);
  [[nodiscard]] Result<resp::Value> read_reply(Deadline deadline);
  [[nodiscard]] Result<void> shake_hands(Deadline deadline);
  [[nodiscard]] Result<void> send(std::string& bytes, Deadline deadline);
  // Appends what came to input_.
  [[nodiscard]] Result<void> read_more(Deadline deadline);

  asio::io_context io_{1};
  Tcp::socket socket_{io_};
  std::string input_;
  resp::ReplyParser parser_;
  tls::Context tls_context_;
  std::unique_ptr<tls::Session> tls_;  // null: plain
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace detail {

inline std::string reason_of(const asio::error_code& error) {
  if (error == asio::error::timed_out) return "no answer in time";
  if (error == asio::error::eof) return "the connection was closed";
  return error.message();
}

}  // namespace detail

template <class Start>
asio::error_code Client::finish(Deadline deadline, Start start) {
  std::optional<asio::error_code> result;
  start([&result](const asio::error_code& error, const auto&) { result = error; });
  io_.restart();
  io_.run_until(deadline);
  if (result) return *result;
  asio::error_code ignored;
  socket_.close(ignored);
  io_.restart();
  io_.run();
  return asio::error::timed_out;
}

inline Result<void> Client::connect(const HostPort& address, Deadline deadline,
                                    const std::string& password) {
  asio::error_code error;
  Tcp::resolver resolver(io_);
  const auto found = resolver.resolve(address.host, std::to_string(address.port), error);
  if (error) return Error{detail::reason_of(error)};
  error = finish(deadline, [&](auto handler) { asio::async_connect(socket_, found, handler); });
  if (error) return Error{detail::reason_of(error)};
  if (tls_) {
    if (Result<void> done = shake_hands(deadline); !done) return done;
  }
  std::vector<std::string> hello = {"HELLO", "3"};
  if (!password.empty()) hello.insert(hello.end(), {"AUTH", "default", password});
  const Result<resp::Value> greeting = ask(hello, deadline);
  if (!greeting) return greeting.error();
  if (greeting->kind != resp::Kind::kError) return {};
  const bool wants_password =
      greeting->text.starts_with("NOAUTH ") || greeting->text.starts_with("WRONGPASS ");
  if (!wants_password) return Error{greeting->text};
  return Error{std::string(password.empty() ? "it asks for a password" : "the password is wrong") +
               ": SESHAT_CLIENT_REQUIREPASS in the environment says it, or client.requirepass in "
               "the configuration that --config names"};
}

inline Result<resp::Value> Client::ask(const std::vector<std::string>& words, Deadline deadline) {
  const std::vector<std::string_view> args(words.begin(), words.end());
  std::string request;
  resp::append_command(request, args);
  if (tls_ && !tls_->seal(request)) return Error{tls_->problem()};
  if (Result<void> sent = send(request, deadline); !sent) return sent.error();
  return read_reply(deadline);
}

inline Result<void> Client::send(std::string& bytes, Deadline deadline) {
  const asio::error_code error = finish(
      deadline, [&](auto handler) { asio::async_write(socket_, asio::buffer(bytes), handler); });
  if (error) return Error{detail::reason_of(error)};
  bytes.clear();
  return {};
}

inline Result<void> Client::use_tls(const tls::Files& files, const std::string& host) {
  if (const auto fault = tls_context_.load(files, tls::Role::kClient, tls::Verify::kYes)) {
    return Error{fault->key + " " + fault->path + ": " + fault->what};
  }
  tls_ = std::make_unique<tls::Session>(tls_context_, host);
  return {};
}

inline Result<void> Client::shake_hands(Deadline deadline) {
  std::size_t end = 0;
  (void)tls_->open({}, input_, end);  // begins
  while (!tls_->is_established()) {
    if (Result<void> sent = send(tls_->output(), deadline); !sent) return sent;
    if (Result<void> read = read_more(deadline); !read) {
      return Error{"no TLS connection: " + read.error().text};
    }
  }
  return {};
}

inline Result<resp::Value> Client::read_reply(Deadline deadline) {
  for (;;) {
    const resp::Status status = parser_.parse(input_);
    input_.erase(0, parser_.consumed());
    if (status == resp::Status::kComplete) return parser_.take();
    if (status == resp::Status::kError) {
      return Error{"not the Redis protocol: " + std::string(parser_.error())};
    }
    if (Result<void> read = read_more(deadline); !read) return read.error();
  }
}

inline Result<void> Client::read_more(Deadline deadline) {
  std::array<char, 16'384> bytes{};
  std::size_t size = 0;
  const asio::error_code error = finish(deadline, [&](auto handler) {
    socket_.async_read_some(asio::buffer(bytes),
                            [&size, handler](const asio::error_code& ended, std::size_t read) {
                              size = read;
                              handler(ended, read);
                            });
  });
  if (error) return Error{detail::reason_of(error)};
  if (!tls_) {
    input_.append(bytes.data(), size);
    return {};
  }
  std::size_t end = input_.size();
  const tls::Session::Status status = tls_->open({bytes.data(), size}, input_, end);
  input_.resize(end);
  if (status == tls::Session::Status::kFailed) return Error{tls_->problem()};
  return {};
}

}  // namespace seshat::cli

#endif  // SESHAT_CLI_CLIENT_HPP
