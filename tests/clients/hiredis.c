/* hiredis, the C client, through its blocking interface: one connection to the leader.
 *
 * Prints `ok <claim>` or `not ok <claim>: reason`, as check.py does. Built by `run`. */
#define _POSIX_C_SOURCE 200809L

#include <hiredis.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

static char host[64];
static int leader_port;
static redisContext* client;

/* ---- Claims ------------------------------------------------------------------------------------ */

static bool failed;

static void fail(const char* claim, int line, const char* expected, const char* found) {
  if (!failed) printf("not ok %s: line %d: expected %s, found %s\n", claim, line, expected, found);
  failed = true;
}

static void end(const char* claim) {
  if (!failed) printf("ok %s\n", claim);
  failed = false;
  fflush(stdout);
}

/* A reply as one line of text: OK, 2, (nil), [a b], ERR ... */
static size_t append_text(char* text, size_t at, size_t size, const redisReply* reply) {
  if (at >= size) return at;
  if (reply == NULL)
    return at + (size_t)snprintf(text + at, size - at, "(broken: %s)", client->errstr);
  switch (reply->type) {
    case REDIS_REPLY_INTEGER:
      return at + (size_t)snprintf(text + at, size - at, "%lld", reply->integer);
    case REDIS_REPLY_NIL:
      return at + (size_t)snprintf(text + at, size - at, "(nil)");
    case REDIS_REPLY_ARRAY:
      at += (size_t)snprintf(text + at, size - at, "[");
      for (size_t i = 0; i < reply->elements && at < size; ++i) {
        if (i > 0) at += (size_t)snprintf(text + at, size - at, " ");
        at = append_text(text, at, size, reply->element[i]);
      }
      return at < size ? at + (size_t)snprintf(text + at, size - at, "]") : at;
    default:
      return at + (size_t)snprintf(text + at, size - at, "%s", reply->str);
  }
}

/* Of the last command; good until the next. */
static char text[4096];

static const char* text_of(redisReply* reply) {
  append_text(text, 0, sizeof text, reply);
  if (reply != NULL) freeReplyObject(reply);
  return text;
}

static const char* ask(const char* command) { return text_of(redisCommand(client, command)); }

#define EXPECT(claim, found, expected)                                                  \
  do {                                                                                  \
    const char* found_text = (found);                                                   \
    if (strcmp(found_text, expected) != 0) fail(claim, __LINE__, expected, found_text); \
  } while (0)

#define EXPECT_START(claim, found, expected)                  \
  do {                                                        \
    const char* found_text = (found);                         \
    if (strncmp(found_text, expected, strlen(expected)) != 0) \
      fail(claim, __LINE__, expected, found_text);            \
  } while (0)

#define EXPECT_THAT(claim, condition)                                         \
  do {                                                                        \
    if (!(condition)) fail(claim, __LINE__, #condition, "that it is not so"); \
  } while (0)

/* ---- Connections ------------------------------------------------------------------------------- */

static redisContext* connect_to(int port) {
  const struct timeval timeout = {10, 0};
  redisContext* context = redisConnectWithTimeout(host, port, timeout);
  if (context != NULL && context->err == 0) redisSetTimeout(context, timeout);
  return context;
}

static int port_of(const char* address) { return atoi(strrchr(address, ':') + 1); }

static double seconds_now(void) {
  struct timespec now;
  clock_gettime(CLOCK_MONOTONIC, &now);
  return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void sleep_ms(long ms) {
  const struct timespec pause = {ms / 1000, ms % 1000 * 1000000};
  nanosleep(&pause, NULL);
}

/* The pid of the node at a port, from SESHAT_PIDS: host:port=pid host:port=pid ... */
static int pid_at(int port) {
  char wanted[16];
  snprintf(wanted, sizeof wanted, ":%d=", port);
  const char* found = strstr(getenv("SESHAT_PIDS"), wanted);
  return found == NULL ? 0 : atoi(found + strlen(wanted));
}

/* Asks any node, follows its MOVED, and tries again until somebody serves it. */
static const char* ask_cluster(const int* ports, int count, const char* command) {
  const double deadline = seconds_now() + 20;
  for (int at = 0; seconds_now() < deadline; ++at) {
    redisFree(client);
    client = connect_to(ports[at % count]);
    for (int moves = 0; client->err == 0 && moves < 3; ++moves) {
      const char* reply = ask(command);
      if (client->err != 0) break;
      if (strncmp(reply, "MOVED ", 6) != 0) {
        if (strncmp(reply, "CLUSTERDOWN", 11) != 0 && strncmp(reply, "NOQUORUM", 8) != 0)
          return reply;
        break;
      }
      const int port = port_of(reply);
      redisFree(client);
      client = connect_to(port);
    }
    sleep_ms(20);
  }
  return "(nobody serves it)";
}

/* ---- What is claimed --------------------------------------------------------------------------- */

static void strings(void) {
  const char* claim = "strings: SET with its options, counters, ranges, several keys";
  EXPECT(claim, ask("SET hi:a 1"), "OK");
  EXPECT(claim, ask("GET hi:a"), "1");
  EXPECT(claim, ask("SET hi:a 2 NX"), "(nil)");
  EXPECT(claim, ask("SET hi:a 2 XX GET KEEPTTL"), "1");
  EXPECT(claim, ask("INCRBY hi:a 40"), "42");
  EXPECT(claim, ask("INCRBYFLOAT hi:a 0.5"), "42.5");
  EXPECT(claim, ask("APPEND hi:a x"), "5");
  EXPECT(claim, ask("INCR hi:a"), "ERR value is not an integer or out of range");
  EXPECT(claim, ask("GETRANGE hi:a 0 1"), "42");
  EXPECT(claim, ask("MSET hi:b 1 hi:c 2"), "OK");
  EXPECT(claim, ask("MGET hi:b hi:c hi:none"), "[1 2 (nil)]");
  EXPECT(claim, ask("GETDEL hi:c"), "2");
  EXPECT(claim, ask("DEL hi:a hi:b hi:none"), "2");
  end(claim);
}

static void binary(void) {
  const char* claim = "any bytes as a value, and the largest value";
  char bytes[256];
  for (int i = 0; i < 256; ++i) bytes[i] = (char)i;
  EXPECT(claim, text_of(redisCommand(client, "SET hi:bytes %b", bytes, sizeof bytes)), "OK");
  redisReply* reply = redisCommand(client, "GET hi:bytes");
  EXPECT_THAT(claim, reply != NULL && reply->len == sizeof bytes);
  EXPECT_THAT(claim, reply != NULL && memcmp(reply->str, bytes, sizeof bytes) == 0);
  freeReplyObject(reply);
  char* large = malloc(65537);
  memset(large, 'v', 65537);
  EXPECT(claim, text_of(redisCommand(client, "SET hi:large %b", large, (size_t)65536)), "OK");
  EXPECT(claim, ask("STRLEN hi:large"), "65536");
  EXPECT_START(claim, text_of(redisCommand(client, "SET hi:large %b", large, (size_t)65537)),
               "ERR value too large");
  free(large);
  end(claim);
}

static void keys(void) {
  const char* claim = "keys: names, times to live, and looking for them";
  ask("DEL hi:k hi:l");
  EXPECT(claim, ask("SET hi:k v EX 100"), "OK");
  EXPECT(claim, ask("EXPIRE hi:k 200 NX"), "0");
  EXPECT(claim, ask("EXPIREAT hi:k 4102444800 GT"), "1");
  EXPECT(claim, ask("EXPIRETIME hi:k"), "4102444800");
  EXPECT(claim, ask("PERSIST hi:k"), "1");
  EXPECT(claim, ask("TTL hi:k"), "-1");
  EXPECT(claim, ask("RENAME hi:k hi:l"), "OK");
  EXPECT(claim, ask("COPY hi:l hi:k"), "1");
  EXPECT(claim, ask("TYPE hi:k"), "string");
  EXPECT(claim, ask("EXISTS hi:k hi:l hi:none"), "2");
  EXPECT(claim, ask("KEYS hi:[l]"), "[hi:l]");
  EXPECT(claim, ask("UNLINK hi:k hi:l"), "2");
  EXPECT(claim, ask("PSETEX hi:short 50 v"), "OK");
  sleep_ms(100);
  EXPECT(claim, ask("GET hi:short"), "(nil)");
  long long cursor = 0;
  int seen = 0;
  for (int i = 0; i < 100; ++i) freeReplyObject(redisCommand(client, "SET hi:scan:%d %d", i, i));
  do {
    redisReply* reply = redisCommand(client, "SCAN %lld MATCH hi:scan:* COUNT 9", cursor);
    EXPECT_THAT(claim, reply != NULL && reply->elements == 2);
    if (failed) break;
    cursor = atoll(reply->element[0]->str);
    seen += (int)reply->element[1]->elements;
    freeReplyObject(reply);
  } while (cursor != 0);
  EXPECT_THAT(claim, seen == 100);
  end(claim);
}

static void pipeline(void) {
  const char* claim = "a pipeline of 1,000 commands keeps the order";
  char expected[16];
  for (int i = 0; i < 500; ++i) {
    redisAppendCommand(client, "SET hi:p %d", i);
    redisAppendCommand(client, "GET hi:p");
  }
  for (int i = 0; i < 1000; ++i) {
    redisReply* reply = NULL;
    EXPECT_THAT(claim, redisGetReply(client, (void**)&reply) == REDIS_OK);
    snprintf(expected, sizeof expected, "%d", i / 2);
    EXPECT(claim, text_of(reply), i % 2 == 0 ? "OK" : expected);
  }
  end(claim);
}

static void transactions(void) {
  const char* claim = "MULTI, EXEC, WATCH: all or nothing";
  redisContext* other = connect_to(leader_port);
  EXPECT(claim, ask("SET hi:m 1"), "OK");
  EXPECT(claim, ask("WATCH hi:m"), "OK");
  EXPECT(claim, ask("MULTI"), "OK");
  EXPECT(claim, ask("INCR hi:m"), "QUEUED");
  EXPECT(claim, ask("GET hi:m"), "QUEUED");
  EXPECT(claim, ask("EXEC"), "[2 2]");
  EXPECT(claim, ask("WATCH hi:m"), "OK");
  freeReplyObject(redisCommand(other, "SET hi:m 10"));
  EXPECT(claim, ask("MULTI"), "OK");
  EXPECT(claim, ask("SET hi:m 3"), "QUEUED");
  EXPECT(claim, ask("EXEC"), "(nil)");
  EXPECT(claim, ask("GET hi:m"), "10");
  EXPECT(claim, ask("MULTI"), "OK");
  EXPECT_START(claim, ask("NOPE"), "ERR unknown command");
  EXPECT_START(claim, ask("EXEC"), "EXECABORT");
  redisFree(other);
  end(claim);
}

static void server(void) {
  const char* claim = "CLIENT, COMMAND, INFO, CLUSTER, errors: what hiredis makes of them";
  EXPECT(claim, ask("CLIENT SETNAME hi-test"), "OK");
  EXPECT(claim, ask("CLIENT GETNAME"), "hi-test");
  EXPECT(claim, ask("COMMAND GETKEYS DEL a b"), "[a b]");
  EXPECT_START(claim, ask("INFO server"), "# Server");
  EXPECT(claim, ask("CLUSTER KEYSLOT foo"), "12182");
  EXPECT_START(claim, ask("GET"), "ERR wrong number of arguments for 'get' command");
  EXPECT(claim, ask("PING"), "PONG");
  end(claim);
}

static void followers(int follower_port) {
  const char* claim = "a follower says MOVED with the leader's address, and reads after READONLY";
  char expected[96];
  snprintf(expected, sizeof expected, "MOVED 12182 %s:%d", host, leader_port);
  EXPECT(claim, ask("SET foo bar"), "OK");
  redisContext* leader = client;
  client = connect_to(follower_port);
  EXPECT(claim, ask("GET foo"), expected);
  EXPECT(claim, ask("READONLY"), "OK");
  EXPECT(claim, ask("GET foo"), "bar");
  redisFree(client);
  client = leader;
  end(claim);
}

static void password(void) {
  const char* claim = "a password: nothing without it, everything with it";
  redisContext* leader = client;
  client = connect_to(port_of(getenv("SESHAT_GUARDED")));
  EXPECT(claim, ask("GET guarded"), "NOAUTH Authentication required.");
  EXPECT_START(claim, ask("AUTH wrong"), "WRONGPASS");
  EXPECT(claim, text_of(redisCommand(client, "AUTH %s", getenv("SESHAT_PASSWORD"))), "OK");
  EXPECT(claim, ask("GET guarded"), "yes");
  redisFree(client);
  client = leader;
  end(claim);
}

static void leader_dies(const int* ports, int count) {
  const char* claim =
      "after kill -9 of the leader redisReconnect fails, and the next leader has it all";
  EXPECT(claim, ask("SET hi:kept 1"), "OK");
  kill((pid_t)pid_at(leader_port), SIGKILL);
  EXPECT_START(claim, ask("GET hi:kept"), "(broken");
  EXPECT_THAT(claim, client->err != 0);
  /* Its connections are gone a moment before it stops to listen. */
  const double deadline = seconds_now() + 5;
  while (redisReconnect(client) == REDIS_OK && seconds_now() < deadline) sleep_ms(5);
  EXPECT_THAT(claim, client->err != 0);
  EXPECT(claim, ask_cluster(ports, count, "GET hi:kept"), "1");
  EXPECT(claim, ask_cluster(ports, count, "SET hi:kept 2"), "OK");
  EXPECT(claim, ask("GET hi:kept"), "2");
  EXPECT_THAT(claim, redisReconnect(client) == REDIS_OK);
  EXPECT(claim, ask("GET hi:kept"), "2");
  end(claim);
}

int main(void) {
  const char* leader = getenv("SESHAT_LEADER");
  const char* list = getenv("SESHAT_FOLLOWERS");
  if (leader == NULL || list == NULL || getenv("SESHAT_PIDS") == NULL ||
      getenv("SESHAT_GUARDED") == NULL || getenv("SESHAT_PASSWORD") == NULL) {
    fprintf(stderr, "what cluster.sh exports is not in the environment\n");
    return 2;
  }
  snprintf(host, sizeof host, "%.*s", (int)(strrchr(leader, ':') - leader), leader);
  leader_port = port_of(leader);
  int ports[16];
  int count = 0;
  char* followers_list = strdup(list);
  for (char* one = strtok(followers_list, " "); one != NULL && count < 16;
       one = strtok(NULL, " ")) {
    ports[count++] = port_of(one);
  }
  free(followers_list);
  client = connect_to(leader_port);
  if (client == NULL || client->err != 0) {
    fprintf(stderr, "no connection to %s\n", leader);
    return 1;
  }
  strings();
  binary();
  keys();
  pipeline();
  transactions();
  server();
  followers(ports[0]);
  password();
  leader_dies(ports, count);
  redisFree(client);
  return 0;
}
