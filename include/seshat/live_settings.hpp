// seshat/live_settings.hpp - what may change while a node runs: the table behind CONFIG SET.
//
//   CONFIG SET timeout 60 requirepass s3cret
//        ──> a row of kLiveSettings by either of its names ──> a Config with both, or none of them
//
// A setting has Redis' name and, as a key of the configuration, its own ("client.timeout"). Values
// are written as Redis writes them (yes, no). Error texts are those of Redis 7.0.
//
// Keeps:   all or nothing: a Config that changes in all that was asked, or not at all.
// Threads: none inside; pure functions of their arguments. Needs: config_keys.hpp, glob.hpp.
#ifndef SESHAT_LIVE_SETTINGS_HPP
#define SESHAT_LIVE_SETTINGS_HPP

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "seshat/config_keys.hpp"
#include "seshat/glob.hpp"
#include "seshat/resp.hpp"

namespace seshat {

struct LiveSetting {
  std::string_view name;  // Redis'
  std::string_view path;  // of the key
};

inline constexpr auto kLiveSettings = std::to_array<LiveSetting>({
    {"latency-monitor-threshold", "client.latency_monitor_threshold_ms"},
    {"maxclients", "limits.max_concurrent_client_connections"},
    {"protected-mode", "client.protected_mode"},
    {"requirepass", "client.requirepass"},
    {"slowlog-log-slower-than", "client.slowlog_slower_than_us"},
    {"slowlog-max-len", "client.slowlog_max_entries"},
    {"timeout", "client.timeout"},
});

// null: it can't be changed while the node runs, or does not exist.
[[nodiscard]] const LiveSetting* find_live_setting(std::string_view name);

// As Redis would show it: yes, no, a number, the text itself.
[[nodiscard]] std::string show_live(const LiveSetting& setting, const Config& config);

// Changes `config` in all of `names_and_values`; or gives an error text, and changes nothing.
[[nodiscard]] std::optional<std::string> change_live(
    Config& config, std::span<const std::string_view> names_and_values);

// What CONFIG GET tells of: `live` is `at_start` with what was changed since.
[[nodiscard]] std::vector<std::pair<std::string, std::string>> all_settings(const Config& at_start,
                                                                            const Config& live);

// "ERR CONFIG SET failed (possibly related to argument 'x') - why"
[[nodiscard]] std::string config_set_error(std::string_view name, std::string_view why);

// =================================================================================================
// Bodies
// =================================================================================================

inline const LiveSetting* find_live_setting(std::string_view name) {
  const auto found = std::ranges::find_if(kLiveSettings, [&](const LiveSetting& setting) {
    return equals_ignoring_case(setting.name, name) || equals_ignoring_case(setting.path, name);
  });
  return found == kLiveSettings.end() ? nullptr : &*found;
}

inline std::string show_live(const LiveSetting& setting, const Config& config) {
  const config::Value value = config::find_key(setting.path)->get(config);
  if (const auto* truth = std::get_if<bool>(&value)) return *truth ? "yes" : "no";
  if (const auto* text = std::get_if<std::string>(&value)) return *text;
  return std::to_string(std::get<std::int64_t>(value));
}

inline std::vector<std::pair<std::string, std::string>> all_settings(const Config& at_start,
                                                                     const Config& live) {
  const auto address = split_address(at_start.node.client_addr);
  std::vector<std::pair<std::string, std::string>> settings = {
      {"appendfsync", "always"},
      {"appendonly", "yes"},
      {"bind", address ? address->host : ""},
      {"cluster-enabled", "yes"},
      {"databases", "1"},
      {"dir", at_start.node.data_dir},
      {"maxmemory", "0"},
      {"maxmemory-policy", "noeviction"},
      {"port", address && !at_start.client.tls_only ? std::to_string(address->port) : "0"},
      {"proto-max-bulk-len", std::to_string(at_start.limits.max_request_size_bytes)},
      {"save", ""},
      {"tls-auth-clients",
       std::get<std::string>(config::find_key("client.tls_auth_clients")->get(at_start))},
      {"tls-ca-cert-file", at_start.client.tls_ca_file},
      {"tls-cert-file", at_start.client.tls_cert_file},
      {"tls-key-file", at_start.client.tls_key_file},
      {"tls-port", std::to_string(at_start.client.tls_port)},
      {"tls-protocols", "TLSv1.2 TLSv1.3"},
  };
  for (const LiveSetting& setting : kLiveSettings) {
    settings.emplace_back(std::string(setting.name), show_live(setting, live));
  }
  for (const config::Key& key : config::keys()) {
    if (!key.is_secret) settings.emplace_back(std::string(key.path), config::show(key.get(live)));
  }
  return settings;
}

inline std::string config_set_error(std::string_view name, std::string_view why) {
  return "ERR CONFIG SET failed (possibly related to argument '" +
         std::string(name.substr(0, 128)) + "') - " + std::string(why);
}

namespace live_settings_detail {

// The value as its key has it, or in `why` what is wrong with it.
inline std::optional<config::Value> parse(const config::Key& key, std::string_view text,
                                          std::string& why) {
  if (key.type == config::KeyType::kText) return std::string(text);
  if (key.type == config::KeyType::kBoolean) {
    const bool yes = equals_ignoring_case(text, "yes");
    if (yes || equals_ignoring_case(text, "no")) return yes;
    why = "argument must be 'yes' or 'no'";
    return std::nullopt;
  }
  const auto number = resp::parse_integer(text);
  if (!number) {
    why = "argument couldn't be parsed into an integer";
    return std::nullopt;
  }
  if (*number >= key.min && *number <= key.max) return *number;
  why = "argument must be between " + std::to_string(key.min) + " and " + std::to_string(key.max) +
        " inclusive";
  return std::nullopt;
}

// CONFIG GET tells of it, or would if it were no secret.
inline bool exists(std::string_view name, const Config& config) {
  if (config::find_key(name) != nullptr) return true;
  const auto settings = all_settings(config, config);
  return std::ranges::any_of(
      settings, [&](const auto& setting) { return equals_ignoring_case(setting.first, name); });
}

}  // namespace live_settings_detail

// Names first, then values, as in Redis: a name that does not exist is told before a bad value.
inline std::optional<std::string> change_live(Config& config,
                                              std::span<const std::string_view> names_and_values) {
  std::vector<const LiveSetting*> settings;
  for (std::size_t i = 0; i < names_and_values.size(); i += 2) {
    const std::string_view name = names_and_values[i];
    const LiveSetting* setting = find_live_setting(name);
    if (setting == nullptr && live_settings_detail::exists(name, config)) {
      return config_set_error(name, "can't set immutable config");
    }
    if (setting == nullptr) {
      return "ERR Unknown option or number of arguments for CONFIG SET - '" +
             std::string(name.substr(0, 128)) + "'";
    }
    if (std::ranges::find(settings, setting) != settings.end()) {
      return config_set_error(name, "duplicate parameter");
    }
    settings.push_back(setting);
  }
  Config changed = config;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const config::Key& key = *config::find_key(settings[i]->path);
    std::string why;
    const auto value = live_settings_detail::parse(key, names_and_values[2 * i + 1], why);
    if (!value) return config_set_error(names_and_values[2 * i], why);
    key.set(changed, *value);
  }
  config = std::move(changed);
  return std::nullopt;
}

}  // namespace seshat

#endif  // SESHAT_LIVE_SETTINGS_HPP
