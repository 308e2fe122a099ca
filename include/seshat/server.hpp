// seshat/server.hpp - the RESP listener: clients, the loop, and what INFO tells of both.
//
//   accept ──> Client { ClientSocket, Connection }
//                 read ──> consume ──> ... end of turn: Node::end_turn(), then one write a client
//
// One turn of the loop: wait for something to happen, run what is ready (up to a bound), then let
// the node hand out what gathered, then write each client's replies. So a turn makes one Raft write
// for all clients and one send for each of them.
//
//   the loop's thread    ─ waits for sockets, signals, its timer ─> turn ─┐
//   storage, the peers   ─ a sync has ended, a message has come ──> turn ─┴─ one at a time
//
// What the disk or a peer brings would have to wake the loop, which often costs more than the turn
// itself. So who brings it does the turn, if nobody has one (turns.hpp); meanwhile no other message and
// no other sync is seen to, so that turns had better be short (longest_loop_turn_us in INFO).
//
// With node.threads = N this loop is the heart of N: it executes the requests of all clients, and
// N - 1 others beside it (client_io.hpp) do the socket work of those that they were given: of half of
// them with N = 2, of all with more. A turn takes in what they have read, and ends with handing over
// what they shall write.
//
// Clients come in by two ports, plain and TLS, of which either may be there alone; from then on there is
// no difference but in client_io.hpp. Who does not finish its handshake in time has to go.
//
// Keeps:    client n+1 is told "max number of clients reached", and who may not come in why
//           (door.hpp); no client's bytes wait in memory beyond its bounds (connection.hpp); who is
//           idle for longer than client.timeout is disconnected; the longest turn is measured.
// Threads:  run() makes the calling thread the loop. Everything here is its turn's, but for what is
//           marked: each handler begins with begin_turn().
// Needs:    connection, client_io, node, live_settings, credentials; asio (standalone).
#ifndef SESHAT_SERVER_HPP
#define SESHAT_SERVER_HPP

#include <algorithm>
#include <asio/buffer.hpp>
#include <asio/io_context.hpp>
#include <asio/ip/tcp.hpp>
#include <asio/post.hpp>
#include <asio/signal_set.hpp>
#include <asio/steady_timer.hpp>
#include <atomic>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif

#include "seshat/client_io.hpp"
#include "seshat/config.hpp"
#include "seshat/connection.hpp"
#include "seshat/connection_commands.hpp"
#include "seshat/cpu_shortage.hpp"
#include "seshat/credentials.hpp"
#include "seshat/door.hpp"
#include "seshat/entrance.hpp"
#include "seshat/file_limit.hpp"
#include "seshat/kv.hpp"
#include "seshat/live_settings.hpp"
#include "seshat/log.hpp"
#include "seshat/mailbox.hpp"
#include "seshat/node.hpp"
#include "seshat/node_info.hpp"
#include "seshat/process_info.hpp"
#include "seshat/result.hpp"
#include "seshat/server_stats.hpp"
#include "seshat/tls.hpp"
#include "seshat/turns.hpp"
#include "seshat/version.hpp"

namespace seshat {

class Server final : private ConnectionHost, private Site {
 public:
  // Opens the data directory, the peer port and the client port. An error: nothing runs.
  // `credentials`: of this configuration.
  [[nodiscard]] static Result<std::unique_ptr<Server>> start(const Config& config,
                                                             const Credentials& credentials,
                                                             const Logger& logger);
  ~Server() override;
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  // Serves until SIGTERM or SIGINT, then stops in good order: no new clients, leadership handed
  // over, what is under way finished, within kShutdownTimeoutMs. An error: this node could not keep
  // its promises any more (storage failed) and stopped at once.
  [[nodiscard]] Result<void> run();

 private:
  using Tcp = asio::ip::tcp;

  // Held by the handlers of its socket too, so that they never outlive it.
  struct Client final : ClientSocket {
    Client(Tcp::socket accepted, IoLoop* io_loop, Server& owner, const resp::Limits& limits,
           Session session)
        : ClientSocket(std::move(accepted)),
          server(owner),
          home(io_loop),
          connection(owner, limits, std::move(session)) {}

    void enter() override {
      if (home == nullptr) server.begin_turn();
    }

    Server& server;
    IoLoop* home;  // has the socket; null: this loop has it
    Connection connection;
    std::uint64_t last_io_ms = 0;       // when bytes came, or were seen to have been taken, last
    std::uint64_t seen_sent_bytes = 0;  // ... up to here
    bool reading = false;
    bool writing = false;
    bool wants_attention = false;
    bool closed = false;
    bool turned_away = false;  // hears why in place of its first reply
  };
  using ClientPtr = std::shared_ptr<Client>;

  Server(const Config& config, const Credentials& credentials, const Logger& logger);
  [[nodiscard]] Result<void> listen();
  void start_io_loops();

  // The loop
  void announce();
  void accept_next(Entrance& entrance);
  void accepted(Tcp::socket socket, IoLoop* home, bool by_tls);
  [[nodiscard]] IoLoop* next_home() const;
  void schedule_tick();
  void tick_sooner();
  void tick();
  [[nodiscard]] bool is_calm() const { return tick_interval_ms_ > kTickIntervalMs; }
  void await_signals();
  void begin_turn();
  void finish_turn();
  void note_begin();
  void note_end();
  void end_turn();
  void wait_for_more(Gathering::Clock::time_point until);
  void wake();  // any thread
  void help();  // any thread that holds no lock
  void help_out();
  void begin_shutdown();
  [[nodiscard]] bool shutdown_is_done() const;
  void use_settings();
  void schedule_idle_check();
  void close_idle_clients();
  void schedule_pause_end();

  // The loops beside it
  void drain_io_events();
  void handle(SocketEvent& event);
  void take_sockets_back();

  // A client
  void read_next(const ClientPtr& client);
  void was_read(const ClientPtr& client, const asio::error_code& error, std::size_t size);
  void consume(const ClientPtr& client);
  void attend(const ClientPtr& client);
  void write_output(const ClientPtr& client);
  void was_written(const ClientPtr& client, const asio::error_code& error);
  void lose(const ClientPtr& client);
  void close(const ClientPtr& client);

  // TLS
  void await_handshake(const ClientPtr& client);
  void schedule_handshake_check();
  void note_tls_problem(const Client& client, std::string_view what);

  // ConnectionHost
  [[nodiscard]] Database& database() override { return *node_; }
  [[nodiscard]] Site& site() override { return *this; }
  [[nodiscard]] const kv::Limits& limits() const override { return limits_; }
  void wants_attention(std::uint64_t connection_id) override;
  void count_command() override { ++stats_.commands_processed; }

  // Site
  [[nodiscard]] Topology topology() const override { return node_->topology(); }
  [[nodiscard]] ClusterStatus cluster_status() const override { return node_->cluster_status(); }
  void append_info(std::string_view section, std::string& out) const override;
  [[nodiscard]] std::vector<std::pair<std::string, std::string>> settings() const override {
    return all_settings(config_, live_);
  }
  void for_each_session(const std::function<void(const Session&)>& visit) const override;
  [[nodiscard]] std::uint64_t now_ms() const override { return turn_ms_; }
  [[nodiscard]] std::uint64_t now_us() const override;
  [[nodiscard]] std::uint64_t wall_us() const override;
  [[nodiscard]] std::optional<std::size_t> replicas_with_all() const override {
    return node_->replicas_with_all();
  }
  [[nodiscard]] Door& door() override { return door_; }
  [[nodiscard]] std::optional<std::string> change_settings(
      std::span<const std::string_view> names_and_values) override;
  std::size_t kill_sessions(const std::function<bool(const Session&)>& matches,
                            Session& self) override;
  void pause_changed() override;
  void reset_statistics() override;
  void shut_down() override { begin_shutdown(); }
  [[nodiscard]] bool is_shutting_down() const override { return shutting_down_; }

  // The sections of INFO that are this class' own
  void append_server_info(std::string& out) const;
  void append_clients_info(std::string& out) const;

  const Config& config_;  // as it was at the start
  Config live_;           // ... with what was changed since
  Logger logger_;
  kv::Limits limits_;
  resp::Limits resp_limits_;

  asio::io_context io_{1};
  const std::shared_ptr<const tls::Context> tls_;  // null: no TLS
  Entrance plain_entrance_{io_};
  Entrance tls_entrance_{io_};
  std::uint64_t tick_interval_ms_ = 0;  // as the timer was set
  std::chrono::steady_clock::time_point ticked_at_ = std::chrono::steady_clock::now();
  asio::steady_timer timer_{io_};
  asio::signal_set signals_{io_};
  std::unique_ptr<Node> node_;

  std::vector<std::unique_ptr<IoLoop>> io_loops_;  // none with node.threads = 1
  Mailbox<SocketEvent> io_mailbox_;
  std::vector<SocketEvent> io_events_;  // taken from it
  std::size_t next_io_event_ = 0;       // of those, not handled yet
  int io_events_allowed_;               // in this turn

  std::unordered_map<std::uint64_t, ClientPtr> clients_;
  std::vector<ClientPtr> attention_;
  std::vector<ClientPtr> attending_;  // attention_'s other half, kept for its memory
  std::uint64_t next_client_id_ = 1;
  std::size_t max_clients_ = 0;
  Door door_;
  asio::steady_timer pause_timer_{io_};
  asio::steady_timer idle_timer_{io_};
  asio::steady_timer gather_timer_{io_};
  bool gather_timer_is_set_ = false;

  // In the order of their time.
  std::deque<std::pair<std::uint64_t, std::uint64_t>> handshakes_;  // when due, whose
  asio::steady_timer handshake_timer_{io_};
  std::uint64_t complained_ms_ = 0;  // of TLS
  std::uint64_t complaints_withheld_ = 0;

  std::uint64_t turn_ms_ = 0;  // the node's clock at the beginning of this turn
  std::uint64_t started_ms_ = 0;
  bool announced_ = false;
  bool shutting_down_ = false;
  std::uint64_t shutdown_deadline_ms_ = 0;

  ServerStats stats_;
  std::chrono::steady_clock::time_point turn_start_;
  std::optional<CpuShortage> cpu_shortage_;  // of the loop's thread, made there
  bool short_of_cpu_ = false;                // as it was seen last

  Turns<> turns_;
  bool in_turn_ = false;     // the loop's thread is; only that sets it, in its turn
  bool takes_help_ = false;  // run() is under way
};

// =================================================================================================
// Bodies
// =================================================================================================

namespace server_detail {

inline constexpr std::uint64_t kShutdownTimeoutMs = 5000;
// From the connection to the end of the TLS handshake.
inline constexpr std::uint64_t kHandshakeTimeoutMs = 10'000;
inline constexpr std::size_t kMaxHandshakesOfRefused = 64;
// A loop that always finds something ready still comes to the end of its turn.
inline constexpr int kMaxHandlersPerTurn = 256;
// Where cores are short, threads of this node wait on one core while another is free: the scheduler
// puts that right at its tick, each 4 ms mostly, or when a core has nothing to do any more. So the loop,
// which the turns of others leave little to do, gives some core the occasion sooner.
inline constexpr std::chrono::milliseconds kLookUpInterval{2};

inline std::uint64_t since_us(std::chrono::steady_clock::time_point start) {
  const auto elapsed = std::chrono::steady_clock::now() - start;
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(elapsed).count());
}

}  // namespace server_detail

// ---- Start and stop --------------------------------------------------------------------------------

inline Result<std::unique_ptr<Server>> Server::start(const Config& config,
                                                     const Credentials& credentials,
                                                     const Logger& logger) {
  std::unique_ptr<Server> server(new Server(config, credentials, logger));
  if (Result<void> listening = server->listen(); !listening) return listening.error();
  Server* self = server.get();
  Result<std::unique_ptr<Node>> node =
      Node::start(config, credentials.peers, logger,
                  {.wake = [self] { self->wake(); }, .help = [self] { self->help(); }});
  if (!node) return node.error();
  server->node_ = std::move(*node);
  server->started_ms_ = server->turn_ms_ = server->node_->clock().now_ms();
  server->start_io_loops();
  return server;
}

inline Server::Server(const Config& config, const Credentials& credentials, const Logger& logger)
    : config_(config),
      live_(config),
      logger_(logger.with({{"node", config.node.id}})),
      tls_(credentials.clients),
      io_mailbox_([this] { asio::post(io_, [this] { drain_io_events(); }); }, 0),
      io_events_allowed_(server_detail::kMaxHandlersPerTurn) {
  limits_.max_key_size_bytes = config.limits.max_key_size_bytes;
  limits_.max_value_size_bytes = config.limits.max_value_size_bytes;
  limits_.max_request_size_bytes = config.limits.max_request_size_bytes;
  resp_limits_.max_request_size_bytes = config.limits.max_request_size_bytes;
  const std::size_t wanted = config.limits.max_concurrent_client_connections;
  max_clients_ = raise_file_limit(wanted);
  if (max_clients_ < wanted) {
    logger_.warn("the limit of open files is too low for max_concurrent_client_connections",
                 {{"clients", std::uint64_t{max_clients_}}});
  }
  live_.limits.max_concurrent_client_connections = max_clients_;
  use_settings();
}

// The node first: when it is gone, nobody holds a Waiter of a connection any more.
inline Server::~Server() {
  node_.reset();
  for (const auto& loop : io_loops_) loop->stop();
  for (auto& [id, client] : clients_) {
    asio::error_code ignored;
    client->socket.close(ignored);
  }
}

inline Result<void> Server::listen() {
  const std::optional<HostPort> address = split_address(config_.node.client_addr);
  if (!address) return Error{"node.client_addr " + config_.node.client_addr + " is not an address"};
  if (!config_.client.tls_only) {
    Result<void> done = plain_entrance_.listen(address->host, address->port, "node.client_addr");
    if (!done) return done;
  }
  if (!tls_) return {};
  return tls_entrance_.listen(address->host, config_.client.tls_port, "client.tls_port");
}

inline void Server::start_io_loops() {
  for (std::uint64_t number = 1; number < config_.node.threads; ++number) {
    io_loops_.push_back(
        std::make_unique<IoLoop>("seshat-io-" + std::to_string(number), io_mailbox_));
  }
}

inline Result<void> Server::run() {
  begin_turn();
  schedule_tick();
  await_signals();
  cpu_shortage_.emplace();
  takes_help_ = true;
  while (!shutdown_is_done() && !node_->failure()) {
    const bool looks_up = short_of_cpu_ && !is_calm();
    finish_turn();
    looks_up ? io_.run_one_for(server_detail::kLookUpInterval) : io_.run_one();
    for (int i = 1; i < server_detail::kMaxHandlersPerTurn && io_.poll_one() != 0; ++i) {
    }
    begin_turn();
    if (node_->was_removed()) begin_shutdown();
    end_turn();
  }
  takes_help_ = false;
  if (node_->failure()) {
    // Clients still hear how their writes ended; those that the other loops wrote for are free again.
    end_turn();
    take_sockets_back();
    end_turn();
  }
  finish_turn();
  if (node_->failure()) return Error{*node_->failure()};
  node_.reset();  // everything is on disk when it is gone
  logger_.info("stopped");
  return {};
}

inline void Server::await_signals() {
  asio::error_code ignored;
  signals_.add(SIGINT, ignored);
  signals_.add(SIGTERM, ignored);
  signals_.async_wait([this](const asio::error_code& error, int) {
    if (error) return;
    begin_turn();
    begin_shutdown();
  });
}

inline void Server::schedule_tick() {
  tick_interval_ms_ = node_->tick_interval_ms();
  timer_.expires_at(ticked_at_ + std::chrono::milliseconds(tick_interval_ms_));
  timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    begin_turn();
    // Somebody who helped may have ticked meanwhile.
    const auto due = ticked_at_ + std::chrono::milliseconds(tick_interval_ms_);
    due <= std::chrono::steady_clock::now() ? tick() : schedule_tick();
  });
}

// The timer is the loop's thread's: it may be waiting in it.
inline void Server::tick_sooner() {
  if (in_turn_) return schedule_tick();
  tick_interval_ms_ = node_->tick_interval_ms();
  asio::post(io_, [this] {
    begin_turn();
    schedule_tick();
  });
}

inline void Server::tick() {
  ticked_at_ = std::chrono::steady_clock::now();
  short_of_cpu_ = cpu_shortage_ && cpu_shortage_->is_short(ticked_at_);
  node_->set_short_of_cpu(short_of_cpu_);
  node_->tick();
  stats_.sample(turn_ms_);
  // A cluster of one opens its door when it can serve, a few milliseconds after the start.
  const bool alone = !config_.joins() && config_.cluster.initial_members.size() <= 1;
  const bool waited = turn_ms_ - started_ms_ > config_.raft.election_timeout_max_ms;
  if (!announced_ && (!alone || waited || node_->has_leader())) {
    announce();
  }
  for (Entrance* entrance : {&plain_entrance_, &tls_entrance_}) {
    if (!announced_ || entrance->is_accepting || !entrance->acceptor.is_open()) continue;
    accept_next(*entrance);
  }
  if (in_turn_) schedule_tick();
}

inline void Server::announce() {
  announced_ = true;
  const bool plain = plain_entrance_.acceptor.is_open();
  logger_.info("ready for clients", {{"address", plain ? config_.node.client_addr : "none"},
                                     {"tls_port", config_.client.tls_port},
                                     {"data", config_.node.data_dir}});
}

inline void Server::begin_shutdown() {
  if (shutting_down_) return;
  logger_.info("stopping");
  shutting_down_ = true;
  shutdown_deadline_ms_ = node_->clock().now_ms() + server_detail::kShutdownTimeoutMs;
  asio::error_code ignored;
  plain_entrance_.acceptor.close(ignored);
  tls_entrance_.acceptor.close(ignored);
  idle_timer_.cancel();
  node_->begin_shutdown();
}

inline bool Server::shutdown_is_done() const {
  if (!shutting_down_) return false;
  if (node_->clock().now_ms() >= shutdown_deadline_ms_) return true;
  const bool all_sent = std::all_of(clients_.begin(), clients_.end(), [](const auto& entry) {
    const Client& client = *entry.second;
    return client.connection.idle() && client.connection.output().empty() && !client.writing;
  });
  return all_sent && node_->may_stop();
}

// ---- Turns -------------------------------------------------------------------------------------------

// Of the loop's thread.
inline void Server::begin_turn() {
  if (in_turn_) return;
  turns_.take();
  in_turn_ = true;
  note_begin();
}

inline void Server::finish_turn() {
  note_end();
  in_turn_ = false;
  if (turns_.let_go()) wake();
}

inline void Server::note_begin() {
  turn_start_ = std::chrono::steady_clock::now();
  turn_ms_ = node_->clock().now_ms();
}

inline void Server::note_end() {
  const std::uint64_t took_us = server_detail::since_us(turn_start_);
  stats_.longest_turn_us = std::max(stats_.longest_turn_us, took_us);
  if (door_.latency.wants(took_us)) {
    door_.latency.add("loop-turn", wall_us() / 1'000'000, took_us);
  }
}

// One is under way at most: the mailbox sees to that.
inline void Server::wake() {
  asio::post(io_, [this] {
    if (!node_) return;
    begin_turn();
    node_->drain();
  });
}

// One turn and no more, or the disk or a peer would wait for who helps.
inline void Server::help() {
  if (turns_.take_or_leave([this] { help_out(); })) wake();
}

// Not before run() is under way, nor when it ends.
inline void Server::help_out() {
  if (!takes_help_) return wake();
  note_begin();
  node_->drain();
  end_turn();
  note_end();
  const bool is_ending = shutting_down_ || node_->failure() || node_->was_removed();
  if (is_ending) asio::post(io_, [] {});  // run() looks after each turn of its own
}

// ---- The loop ----------------------------------------------------------------------------------------

inline void Server::end_turn() {
  // In a calm, what wakes this thread ticks as well, where it can: the timer then seldom has to. Each
  // heartbeat that comes to a follower may: it comes more than twice while the timer waits.
  if (is_calm() && turn_start_ - ticked_at_ >= std::chrono::milliseconds(tick_interval_ms_) / 4) {
    tick();
  }
  node_->end_turn();
  std::swap(attention_, attending_);
  for (const ClientPtr& client : attending_) attend(client);
  attending_.clear();
  for (const auto& loop : io_loops_) loop->hand_over();
  // Replies that were sent let in what waited behind them: that leaves with this turn as well.
  node_->end_turn();
  if (const auto until = node_->gathers_until()) wait_for_more(*until);
  if (is_calm() && node_->tick_interval_ms() < tick_interval_ms_) tick_sooner();  // no more
  // Who still has something to consume comes next turn, after everybody else's sockets.
  if (!attention_.empty()) asio::post(io_, [] {});
  if (io_events_allowed_ == 0) asio::post(io_, [this] { drain_io_events(); });
  io_events_allowed_ = server_detail::kMaxHandlersPerTurn;
}

// Mostly the turn that takes in the last of them comes sooner. The timer stays: what waits next finds
// it set.
inline void Server::wait_for_more(Gathering::Clock::time_point until) {
  if (std::exchange(gather_timer_is_set_, true)) return;
  gather_timer_.expires_at(until);
  gather_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    begin_turn();
    gather_timer_is_set_ = false;
  });
}

inline void Server::wants_attention(std::uint64_t connection_id) {
  const auto found = clients_.find(connection_id);
  if (found == clients_.end() || found->second->wants_attention) return;
  found->second->wants_attention = true;
  attention_.push_back(found->second);
}

inline void Server::accept_next(Entrance& entrance) {
  entrance.is_accepting = true;
  IoLoop* home = next_home();
  asio::io_context& context = home != nullptr ? home->context() : io_;
  entrance.acceptor.async_accept(
      context, [this, home, &entrance](const asio::error_code& error, Tcp::socket socket) {
        begin_turn();
        if (!entrance.acceptor.is_open()) return;
        if (error) {
          // Most likely out of file descriptors: the next tick is soon enough to try again.
          logger_.warn("could not accept a client", {{"reason", error.message()}});
          entrance.is_accepting = false;
          return;
        }
        accepted(std::move(socket), home, &entrance == &tls_entrance_);
        accept_next(entrance);
      });
}

// The loop beside this one that has the fewest clients. Of two loops this one takes its half, or each
// would wait for the other most of the time; of more it has enough to do with executing.
inline IoLoop* Server::next_home() const {
  const auto fewest =
      std::min_element(io_loops_.begin(), io_loops_.end(),
                       [](const auto& a, const auto& b) { return a->clients() < b->clients(); });
  if (fewest == io_loops_.end()) return nullptr;
  const std::size_t theirs = (*fewest)->clients();
  if (io_loops_.size() == 1 && clients_.size() - theirs <= theirs) return nullptr;
  return fewest->get();
}

// What can't be said by TLS yet is not said: a client that is one too many just goes, as with Redis.
inline void Server::accepted(Tcp::socket socket, IoLoop* home, bool by_tls) {
  asio::error_code error;
  ++stats_.connections_received;
  socket.non_blocking(true, error);
  if (clients_.size() >= max_clients_) {
    ++stats_.connections_rejected;
    static constexpr std::string_view kText = "-ERR max number of clients reached\r\n";
    if (!by_tls) (void)socket.write_some(asio::buffer(kText), error);
    return;  // closes
  }
  socket.set_option(Tcp::no_delay(true), error);
  keep_alive(socket);
  Session session;
  session.id = next_client_id_++;
  session.address = address_of(socket.remote_endpoint(error));
  session.local_address = address_of(socket.local_endpoint(error));
  session.connected_at_ms = session.last_active_ms = turn_ms_;
  if (error) return;  // gone already
  const bool refused = door_.refuses(session.address, session.local_address);
  if (refused) ++stats_.connections_rejected;
  if (refused && !by_tls) {
    const std::string text = "-" + std::string(kDeniedText) + "\r\n";
    (void)socket.write_some(asio::buffer(text), error);
    return;
  }
  // Who is to hear of it by TLS takes the place of a client meanwhile: few may.
  if (refused && handshakes_.size() >= server_detail::kMaxHandshakesOfRefused) return;
  session.authenticated = !door_.needs_password();
  session.by_tls = by_tls;
  const std::uint64_t id = session.id;
  auto client =
      std::make_shared<Client>(std::move(socket), home, *this, resp_limits_, std::move(session));
  client->last_io_ms = turn_ms_;
  client->turned_away = refused;
  clients_.emplace(id, client);
  if (home != nullptr) home->count_in();
  if (by_tls) await_handshake(client);
  read_next(client);
}

// ---- The loops beside it -------------------------------------------------------------------------

// So many a turn and no more, as with handlers; end_turn() sees to the rest.
inline void Server::drain_io_events() {
  begin_turn();
  for (; io_events_allowed_ > 0; --io_events_allowed_) {
    if (next_io_event_ == io_events_.size()) {
      io_mailbox_.take(io_events_);
      next_io_event_ = 0;
      if (io_events_.empty()) return;
    }
    handle(io_events_[next_io_event_++]);
  }
}

// The socket of a closed client has come back with its last event.
inline void Server::handle(SocketEvent& event) {
  const ClientPtr client = std::static_pointer_cast<Client>(std::move(event.client));
  switch (event.what) {
    case SocketEvent::What::kRead:
      return was_read(client, event.error, event.size_bytes);
    case SocketEvent::What::kWritten:
      return was_written(client, event.error);
    case SocketEvent::What::kClosed:
      return;
  }
}

// The loops beside this one do what they were given and end; this loop has all sockets then.
inline void Server::take_sockets_back() {
  for (const auto& loop : io_loops_) loop->stop();
  do {
    io_events_allowed_ = server_detail::kMaxHandlersPerTurn;
    drain_io_events();
  } while (io_events_allowed_ == 0);
  for (auto& [id, client] : clients_) client->home = nullptr;
}

// ---- A client ----------------------------------------------------------------------------------------

// Not while it has enough under way, or does not read its replies: TCP then slows it down.
inline void Server::read_next(const ClientPtr& client) {
  if (client->reading || client->closed || !client->connection.may_consume()) return;
  make_room(*client);
  client->reading = true;
  if (client->home != nullptr) return client->home->read(client);
  read_some(client, [this](const ClientPtr& of, const asio::error_code& error, std::size_t size) {
    was_read(of, error, size);
  });
}

inline void Server::was_read(const ClientPtr& client, const asio::error_code& error,
                             std::size_t size) {
  begin_turn();
  client->reading = false;
  if (error) return lose(client);
  client->input_end += size;
  client->last_io_ms = turn_ms_;
  stats_.bytes_read += size;
  client->turned_away ? client->connection.turn_away(kDeniedText) : consume(client);
  wants_attention(client->connection.session().id);
}

inline void Server::consume(const ClientPtr& client) {
  client->input_begin += client->connection.consume(client->unconsumed());
}

// The end of a turn for one client: what it may consume, then one write of all its replies.
inline void Server::attend(const ClientPtr& client) {
  client->wants_attention = false;
  if (client->closed) {
    if (client->connection.idle()) clients_.erase(client->connection.session().id);
    return;
  }
  if (!client->connection.needs_input()) consume(client);
  write_output(client);
  if (client->closed) return;
  const bool all_sent = !client->writing && client->connection.output().empty();
  if (client->connection.closing() && client->connection.idle() && all_sent) {
    return close(client);
  }
  const bool has_more = !client->writing && !client->connection.output().empty();
  if (has_more) wants_attention(client->connection.session().id);
  if (client->connection.needs_input()) return read_next(client);
  if (client->connection.may_consume()) wants_attention(client->connection.session().id);
}

inline void Server::write_output(const ClientPtr& client) {
  if (client->writing || client->connection.output().empty()) return;
  client->connection.take_output(client->sending);
  client->writing = true;
  stats_.bytes_written += client->sending.size();
  if (client->home != nullptr) return client->home->write(client);
  asio::error_code error;
  const bool all_sent = send_now(*client, error);
  if (error) return lose(client);
  client->writing = !all_sent;
  if (all_sent) return;
  send_rest(client, [this](const ClientPtr& of, const asio::error_code& failure) {
    was_written(of, failure);
  });
}

// A write that had to wait for the client, or was another loop's.
inline void Server::was_written(const ClientPtr& client, const asio::error_code& error) {
  begin_turn();
  client->writing = false;
  if (error) return lose(client);
  wants_attention(client->connection.session().id);
}

// It broke; perhaps by breaking the rules of TLS.
inline void Server::lose(const ClientPtr& client) {
  const std::string problem = client->tls ? client->tls->problem() : std::string();
  if (!client->closed && !problem.empty()) note_tls_problem(*client, problem);
  close(client);
}

// The connection stays until those who hold its Waiters have answered.
inline void Server::close(const ClientPtr& client) {
  if (client->closed) return;
  client->closed = true;
  client->connection.disconnected();
  if (client->home != nullptr) {
    client->home->close(client);
  } else {
    close_socket(*client);
  }
  if (client->connection.idle()) clients_.erase(client->connection.session().id);
}

// ---- TLS -------------------------------------------------------------------------------------------------

// The first read has the handshake in it. Who is turned away has as long to ask, and to hear so.
inline void Server::await_handshake(const ClientPtr& client) {
  client->tls = std::make_unique<tls::Session>(*tls_);
  handshakes_.emplace_back(turn_ms_ + server_detail::kHandshakeTimeoutMs,
                           client->connection.session().id);
  if (handshakes_.size() == 1) schedule_handshake_check();
}

inline void Server::schedule_handshake_check() {
  const std::uint64_t due_ms = handshakes_.front().first;
  handshake_timer_.expires_after(std::chrono::milliseconds(due_ms - std::min(due_ms, turn_ms_)));
  handshake_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    begin_turn();
    while (!handshakes_.empty()) {
      const auto [due_ms, id] = handshakes_.front();
      const auto found = clients_.find(id);
      const ClientPtr client = found == clients_.end() ? nullptr : found->second;
      const bool is_done =
          !client || client->closed || (client->tls->is_established() && !client->turned_away);
      if (!is_done && due_ms > turn_ms_) return schedule_handshake_check();
      if (!is_done && !client->turned_away) note_tls_problem(*client, "it was not done in time");
      if (!is_done) close(client);
      handshakes_.pop_front();
    }
  });
}

// One line a second at most: anybody can do this as often as he likes.
inline void Server::note_tls_problem(const Client& client, std::string_view what) {
  const bool in_handshake = !client.tls->is_established();
  if (in_handshake) ++stats_.tls_handshakes_failed;
  if (complained_ms_ != 0 && turn_ms_ < complained_ms_ + 1000) {
    ++complaints_withheld_;
    return;
  }
  complained_ms_ = turn_ms_;
  logger_.warn(
      in_handshake ? "a client's TLS handshake failed" : "a client broke its TLS connection",
      {{"from", client.connection.session().address},
       {"reason", what},
       {"withheld", std::exchange(complaints_withheld_, 0)}});
}

// ---- Site ------------------------------------------------------------------------------------------------

inline void Server::for_each_session(const std::function<void(const Session&)>& visit) const {
  std::vector<const Session*> sessions;
  for (const auto& [id, client] : clients_) {
    if (!client->closed) sessions.push_back(&client->connection.session());
  }
  std::sort(sessions.begin(), sessions.end(),
            [](const Session* a, const Session* b) { return a->id < b->id; });
  for (const Session* session : sessions) visit(*session);
}

inline std::uint64_t Server::now_us() const {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                        std::chrono::steady_clock::now().time_since_epoch())
                                        .count());
}

inline std::uint64_t Server::wall_us() const {
  return static_cast<std::uint64_t>(std::chrono::duration_cast<std::chrono::microseconds>(
                                        std::chrono::system_clock::now().time_since_epoch())
                                        .count());
}

// Closing may drop a client at once: nothing goes through clients_ meanwhile.
inline std::size_t Server::kill_sessions(const std::function<bool(const Session&)>& matches,
                                         Session& self) {
  std::vector<ClientPtr> found;
  for (const auto& [id, client] : clients_) {
    if (!client->closed && matches(client->connection.session())) found.push_back(client);
  }
  for (const ClientPtr& client : found) {
    if (client->connection.session().id == self.id) {
      self.close_after_reply = true;
    } else {
      close(client);
    }
  }
  return found.size();
}

inline void Server::reset_statistics() {
  door_.reset_statistics();
  stats_.reset();
}

// ---- Pauses and idle clients ---------------------------------------------------------------------------

inline void Server::pause_changed() {
  for (const auto& [id, client] : clients_) {
    if (!client->connection.is_paused()) continue;
    client->connection.pause_changed();
    wants_attention(id);
  }
  schedule_pause_end();
}

inline void Server::schedule_pause_end() {
  pause_timer_.cancel();
  if (!door_.is_paused()) return;
  const std::uint64_t until_ms = door_.paused_until_ms();
  const std::uint64_t now_ms = node_->clock().now_ms();
  pause_timer_.expires_after(std::chrono::milliseconds(until_ms > now_ms ? until_ms - now_ms : 0));
  pause_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    begin_turn();
    if (node_->clock().now_ms() >= door_.paused_until_ms()) door_.unpause();
    pause_changed();
  });
}

// Only where somebody asked for it: a node without timeout is not woken.
inline void Server::schedule_idle_check() {
  idle_timer_.cancel();
  if (live_.client.timeout == 0 || shutting_down_) return;
  idle_timer_.expires_after(std::chrono::seconds(1));
  idle_timer_.async_wait([this](const asio::error_code& error) {
    if (error) return;
    begin_turn();
    close_idle_clients();
    schedule_idle_check();
  });
}

// Who waits for the node is not idle; who does not take its replies is.
inline void Server::close_idle_clients() {
  if (live_.client.timeout == 0) return;  // the timer had expired when it was set so
  const std::uint64_t timeout_ms = live_.client.timeout * 1000;
  std::vector<ClientPtr> idle;
  for (const auto& [id, client] : clients_) {
    if (client->closed || client->connection.owes_answer()) continue;
    const std::uint64_t sent_bytes = client->total_sent_bytes.load(std::memory_order_relaxed);
    if (std::exchange(client->seen_sent_bytes, sent_bytes) != sent_bytes) {
      client->last_io_ms = turn_ms_;
    }
    if (turn_ms_ - std::min(client->last_io_ms, turn_ms_) > timeout_ms) idle.push_back(client);
  }
  for (const ClientPtr& client : idle) close(client);
}

// ---- Settings ------------------------------------------------------------------------------------------

// What live_ says is so from now on.
inline void Server::use_settings() {
  door_.password = live_.client.requirepass;
  door_.protected_mode = live_.client.protected_mode;
  door_.slow_log.slower_than_us = live_.client.slowlog_slower_than_us;
  door_.slow_log.set_max_entries(live_.client.slowlog_max_entries);
  door_.latency.threshold_ms = live_.client.latency_monitor_threshold_ms;
  max_clients_ = live_.limits.max_concurrent_client_connections;
  if (!door_.needs_password()) {
    for (const auto& [id, client] : clients_) client->connection.let_in();
  }
  schedule_idle_check();
}

inline std::optional<std::string> Server::change_settings(
    std::span<const std::string_view> names_and_values) {
  Config changed = live_;
  if (auto problem = change_live(changed, names_and_values)) return problem;
  const std::size_t clients = changed.limits.max_concurrent_client_connections;
  if (clients > max_clients_) {
    const std::size_t possible = raise_file_limit(clients);
    if (possible < clients) {
      return config_set_error("maxclients",
                              "The operating system is not able to handle the specified number of "
                              "clients, try with " +
                                  std::to_string(possible));
    }
  }
  live_ = std::move(changed);
  use_settings();
  return std::nullopt;
}

// ---- INFO ------------------------------------------------------------------------------------------------

inline void Server::append_info(std::string_view section, std::string& out) const {
  if (section == "server") return append_server_info(out);
  if (section == "clients") return append_clients_info(out);
  if (section == "memory") return process_info::append_memory(out, stats_.used_memory_peak_bytes);
  if (section == "stats") return stats_.append_info(door_, node_->keys_expired(), turn_ms_, out);
  if (section == "cpu") return process_info::append_cpu(out);
  if (section == "commandstats") return door_.append_command_stats(out);
  if (section == "errorstats") return door_.append_error_stats(out);
  if (section == "cluster") return node_info::line(out, "cluster_enabled", std::uint64_t{1});
  node_->append_info(section, out);
}

inline void Server::append_server_info(std::string& out) const {
  using node_info::line;
  line(out, "redis_version", connection_commands::kRedisVersion);
  line(out, "seshat_version", kVersion);
  line(out, "redis_mode", "cluster");
  line(out, "arch_bits", sizeof(void*) * 8);
  line(out, "multiplexing_api", "asio");
  line(out, "io_threads_active", std::uint64_t{io_loops_.empty() ? 0U : 1U});
#if __has_include(<unistd.h>)
  line(out, "process_id", static_cast<std::uint64_t>(getpid()));
#endif
  const bool by_tls = !plain_entrance_.acceptor.is_open();
  const Tcp::acceptor& acceptor = by_tls ? tls_entrance_.acceptor : plain_entrance_.acceptor;
  line(out, "tcp_port", acceptor.is_open() ? acceptor.local_endpoint().port() : 0U);
  line(out, "server_time_usec", wall_us());
  const std::uint64_t uptime_secs = (turn_ms_ - started_ms_) / 1000;
  line(out, "uptime_in_seconds", uptime_secs);
  line(out, "uptime_in_days", uptime_secs / 86'400);
}

inline void Server::append_clients_info(std::string& out) const {
  using node_info::line;
  const auto paused = std::count_if(clients_.begin(), clients_.end(), [](const auto& entry) {
    return entry.second->connection.is_paused();
  });
  line(out, "connected_clients", clients_.size());
  line(out, "maxclients", max_clients_);
  line(out, "blocked_clients", static_cast<std::uint64_t>(paused));
  line(out, "tracking_clients", std::uint64_t{0});
}

}  // namespace seshat

#endif  // SESHAT_SERVER_HPP
