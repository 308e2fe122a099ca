// The daemon: reads its configuration, starts a server, and runs it until it is told to stop. With a
// subcommand (cli.hpp): asks a running node, and ends; `join` is the daemon itself.
//
// Exit codes of the daemon: 0 stopped in good order; 1 could not start, or could not keep its promises
// any more; 2 the configuration or a flag is wrong.
// Of a subcommand (cli::ExitCode): 0 done; 1 refused by the cluster, or not ready in time; 2 bad usage,
// nothing was asked; 3 not reachable, or no answer.
#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <optional>
#include <string>
#include <vector>

#include "seshat/cli.hpp"
#include "seshat/config.hpp"
#include "seshat/credentials.hpp"
#include "seshat/log.hpp"
#include "seshat/server.hpp"

#if __has_include(<unistd.h>)
#include <unistd.h>
#endif
#ifndef _WIN32
extern char** environ;  // NOLINT(readability-redundant-declaration): glibc alone declares it
#endif

namespace {

int refuse(const std::vector<seshat::Problem>& problems) {
  for (const seshat::Problem& problem : problems) {
    std::fprintf(stderr, "seshat: %s\n", problem.text().c_str());
  }
  std::fprintf(stderr, "seshat: see --help, or seshat.toml.example for all settings\n");
  return 2;
}

int say_that_it_is_valid(const seshat::CommandLine& line) {
  for (const seshat::Problem& warning : line.warnings) {
    std::fprintf(stderr, "seshat: warning: %s\n", warning.text().c_str());
  }
  std::puts("the configuration is valid");
  return 0;
}

int serve(const seshat::CommandLine& line, const seshat::Credentials& credentials) {
  const seshat::Logger logger(line.config.log.level, line.config.log.format);
  for (const seshat::Problem& warning : line.warnings) logger.warn(warning.text());
  auto server = seshat::Server::start(line.config, credentials, logger);
  if (!server) {
    logger.error("could not start", {{"reason", server.error().text}});
    return 1;
  }
  if ((*server)->run()) return 0;
  // Storage has failed, which is logged. Nothing is flushed to it any more, nothing waited for.
  std::fflush(nullptr);
  std::_Exit(1);
}

}  // namespace

int main(int argc, char** argv) {
  const seshat::Environment environment = seshat::environment_of(environ);
  seshat::Arguments arguments(argv + (argc > 0 ? 1 : 0), argv + argc);
  if (const std::optional<int> exit_code =
          seshat::cli::run(arguments, environment, std::cout, std::cerr)) {
    return *exit_code;
  }
  seshat::CommandLine line = seshat::parse_command_line(arguments, environment);
  switch (line.action) {
    case seshat::CommandLine::Action::kShowHelp:
      std::fputs((seshat::help_text(argv[0], seshat::cli::kSubcommandUsage) +
                  seshat::cli::subcommands_text())
                     .c_str(),
                 stdout);
      return 0;
    case seshat::CommandLine::Action::kShowVersion:
      std::printf("seshat %s\n", std::string(seshat::kVersion).c_str());
      return 0;
    case seshat::CommandLine::Action::kRefuse:
      return refuse(line.problems);
    case seshat::CommandLine::Action::kCheckConfig:
    case seshat::CommandLine::Action::kRun:
      break;
  }
  const seshat::LoadedCredentials loaded = seshat::load_credentials(line);
  if (!loaded.problems.empty()) return refuse(loaded.problems);
  line.warnings.insert(line.warnings.end(), loaded.warnings.begin(), loaded.warnings.end());
  const bool only_check = line.action == seshat::CommandLine::Action::kCheckConfig;
  return only_check ? say_that_it_is_valid(line) : serve(line, loaded.credentials);
}
