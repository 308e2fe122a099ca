// tests/cluster/process.hpp - a program that runs beside a test, and a directory for what it writes.
//
// Needs POSIX. No process outlives its Process, nor, on Linux, the test program itself.
#ifndef SESHAT_TESTS_CLUSTER_PROCESS_HPP
#define SESHAT_TESTS_CLUSTER_PROCESS_HPP

#include <fcntl.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>
#ifdef __linux__
#include <sys/prctl.h>
#endif

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <ostream>
#include <sstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <utility>
#include <vector>

extern char** environ;

namespace seshat::tests {

using namespace std::chrono_literals;
using Milliseconds = std::chrono::milliseconds;
using SteadyClock = std::chrono::steady_clock;

inline constexpr Milliseconds kPollInterval = 5ms;

// Waits until `condition` holds, `bound` at most. False: it never did.
template <class Condition>
[[nodiscard]] bool eventually(Milliseconds bound, Condition condition) {
  const auto deadline = SteadyClock::now() + bound;
  while (!condition()) {
    if (SteadyClock::now() >= deadline) return false;
    std::this_thread::sleep_for(kPollInterval);
  }
  return true;
}

[[nodiscard]] inline Milliseconds since(SteadyClock::time_point start) {
  return std::chrono::duration_cast<Milliseconds>(SteadyClock::now() - start);
}

// Of the test program's own environment; what `make cluster-test` sets must be there.
[[nodiscard]] inline std::string required_variable(const char* name) {
  const char* value = std::getenv(name);
  if (value == nullptr || *value == '\0') {
    throw std::runtime_error(std::string(name) + " is not set: run `make cluster-test`");
  }
  return value;
}
// A number that whoever runs the tests may set.
[[nodiscard]] inline std::uint64_t variable_or(const char* name, std::uint64_t otherwise) {
  const char* value = std::getenv(name);
  return value == nullptr || *value == '\0' ? otherwise : std::stoull(value);
}

[[nodiscard]] inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  std::ostringstream text;
  text << in.rdbuf();
  return text.str();
}

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::ofstream out(file, std::ios::binary | std::ios::trunc);
  out << text;
  out.flush();
  if (!out) throw std::runtime_error("can't write " + file.string());
}

// A directory of its own, gone with this object.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "seshat-test-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("can't make " + name);
    path_ = name;
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  [[nodiscard]] const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

// How a process ended: its exit code, or the signal that killed it.
struct ExitStatus {
  int code = -1;
  int signal = 0;

  friend bool operator==(const ExitStatus&, const ExitStatus&) = default;
  friend std::ostream& operator<<(std::ostream& out, const ExitStatus& status) {
    if (status.signal != 0) return out << "killed by signal " << status.signal;
    return out << "exit code " << status.code;
  }
};

class Process {
 public:
  using Variables = std::map<std::string, std::string>;

  // Starts `command`; stdout and stderr are appended to `log`. Call it on a thread that lives as
  // long as the process shall: on Linux the process dies with it.
  Process(const std::vector<std::string>& command, const std::filesystem::path& log,
          const Variables& variables = {});
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;
  ~Process() { kill_now(); }

  // SIGKILL, and gone when this returns.
  void kill_now() {
    if (status_) return;
    send(SIGKILL);
    reap(0);
  }
  void terminate() { send(SIGTERM); }
  // SIGSTOP, and standing still when this returns.
  void stop() {
    send(SIGSTOP);
    if (!status_) reap(WUNTRACED);
  }
  void go_on() { send(SIGCONT); }

  [[nodiscard]] bool running() {
    if (!status_) reap(WNOHANG);
    return !status_;
  }
  // nullopt: it still runs after `bound`.
  [[nodiscard]] std::optional<ExitStatus> wait(Milliseconds bound) {
    (void)eventually(bound, [this] { return !running(); });
    return status_;
  }
  [[nodiscard]] pid_t pid() const { return pid_; }
  // For when it hangs: what each of its threads does, and where in the kernel it waits (Linux, root).
  [[nodiscard]] std::string whereabouts() const;

 private:
  void send(int signal) {
    if (running()) (void)::kill(pid_, signal);
  }
  void reap(int options);
  static void close_all_but_standard();
  [[noreturn]] static void become(char* const* arguments, char* const* variables, int log);

  pid_t pid_ = -1;
  std::optional<ExitStatus> status_;
};

// Runs a command to its end.
struct Finished {
  ExitStatus status;
  std::string output;  // stdout and stderr

  [[nodiscard]] bool done() const { return status == ExitStatus{0, 0}; }
  friend std::ostream& operator<<(std::ostream& out, const Finished& finished) {
    return out << finished.status << ": " << finished.output;
  }
};
[[nodiscard]] Finished run(const std::vector<std::string>& command, Milliseconds bound,
                           const Process::Variables& variables = {});

// =================================================================================================
// Bodies
// =================================================================================================

namespace process_detail {

inline std::vector<char*> pointers(std::vector<std::string>& texts) {
  std::vector<char*> result;
  for (std::string& text : texts) result.push_back(text.data());
  result.push_back(nullptr);
  return result;
}

// The test program's own environment, with `variables` over it.
inline std::vector<std::string> environment_with(const Process::Variables& variables) {
  std::vector<std::string> result;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string text = *entry;
    if (!variables.contains(text.substr(0, text.find('=')))) result.push_back(text);
  }
  for (const auto& [name, value] : variables) result.push_back(name + "=" + value);
  return result;
}

}  // namespace process_detail

inline Process::Process(const std::vector<std::string>& command, const std::filesystem::path& log,
                        const Variables& variables) {
  // All that takes memory comes before the child: other threads may hold malloc's locks.
  std::vector<std::string> arguments = command;
  std::vector<std::string> environment = process_detail::environment_with(variables);
  const std::vector<char*> argv = process_detail::pointers(arguments);
  const std::vector<char*> envp = process_detail::pointers(environment);
  const int fd = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (fd < 0) throw std::runtime_error("can't write " + log.string());
#ifdef __linux__
  // A forked child of many threads was seen to wait for ever for a lock that one of the others held.
  // This one shares our memory, and we wait, until it has become the other program.
  pid_ = ::vfork();
#else
  pid_ = ::fork();
#endif
  if (pid_ == 0) become(argv.data(), envp.data(), fd);
  ::close(fd);
  if (pid_ < 0) throw std::runtime_error("can't fork for " + command.at(0));
}

inline void Process::close_all_but_standard() {
  constexpr int kFirst = STDERR_FILENO + 1;
#ifdef __linux__
  (void)::close_range(kFirst, ~0U, 0);
#else
  for (int fd = kFirst; fd < ::sysconf(_SC_OPEN_MAX); ++fd) (void)::close(fd);
#endif
}

// In the child.
inline void Process::become(char* const* arguments, char* const* variables, int log) {
#ifdef __linux__
  (void)::prctl(PR_SET_PDEATHSIG, SIGKILL);
#endif
  const int null = ::open("/dev/null", O_RDONLY);
  (void)::dup2(null, STDIN_FILENO);
  (void)::dup2(log, STDOUT_FILENO);
  (void)::dup2(log, STDERR_FILENO);
  // A socket of ours that lived on in here would look open to its other end after we closed it.
  close_all_but_standard();
#ifdef __linux__
  (void)::execvpe(arguments[0], arguments, variables);
#else
  environ = const_cast<char**>(variables);
  (void)::execvp(arguments[0], arguments);
#endif
  constexpr char kText[] = "could not be started\n";
  (void)!::write(STDERR_FILENO, kText, sizeof kText - 1);
  ::_exit(127);
}

inline void Process::reap(int options) {
  int status = 0;
  pid_t reaped = 0;
  do {
    reaped = ::waitpid(pid_, &status, options);
  } while (reaped < 0 && errno == EINTR);
  if (reaped != pid_ || WIFSTOPPED(status)) return;
  if (WIFEXITED(status)) status_ = ExitStatus{WEXITSTATUS(status), 0};
  if (WIFSIGNALED(status)) status_ = ExitStatus{-1, WTERMSIG(status)};
}

inline std::string Process::whereabouts() const {
  const std::filesystem::path tasks = "/proc/" + std::to_string(pid_) + "/task";
  std::string text;
  std::error_code gone;
  for (const auto& task : std::filesystem::directory_iterator(tasks, gone)) {
    text += read_text(task.path() / "stat").substr(0, 40) + "\n";
    text += read_text(task.path() / "stack");
  }
  return text;
}

inline Finished run(const std::vector<std::string>& command, Milliseconds bound,
                    const Process::Variables& variables) {
  const TempDir dir;
  const std::filesystem::path log = dir.path() / "output";
  Process process(command, log, variables);
  const std::optional<ExitStatus> status = process.wait(bound);
  process.kill_now();
  const std::string output = read_text(log);
  if (status) return {*status, output};
  throw std::runtime_error(command.at(0) + " did not end within " + std::to_string(bound.count()) +
                           " ms; it had printed: " + output);
}

}  // namespace seshat::tests

#endif  // SESHAT_TESTS_CLUSTER_PROCESS_HPP
