// TVM's RPC server for a machine without Python: sessions over TCP, one at a time, offered to a tracker if there is one.
//
// Whoever reaches the port runs code of their own here. So it listens on this machine's loopback unless another address is given:
// let others in through a tunnel (ssh -L).
#pragma once

#include <arpa/inet.h>
#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <utility>

#include "session.hpp"

namespace deburr {

struct Address {
  std::string host;
  int port = 0;

  // Of HOST:PORT, or PORT alone.
  static Address parse(const std::string& text) {
    const size_t colon = text.rfind(':');
    Address found{colon == std::string::npos ? "127.0.0.1" : text.substr(0, colon), 0};
    const std::string digits = colon == std::string::npos ? text : text.substr(colon + 1);
    if (!digits.empty() && digits.size() < 6 && digits.find_first_not_of("0123456789") == std::string::npos)
      found.port = std::stoi(digits);
    if (found.host.empty() || digits.empty() || found.port > 65535 || (found.port == 0 && digits != "0"))
      throw Error("E901", "no address '" + text + "': it is not HOST:PORT");
    return found;
  }
  std::string text() const { return host + ":" + std::to_string(port); }
};

// A TCP connection, closed with the object.
class Connection {
 public:
  explicit Connection(int descriptor) : descriptor_(descriptor) {}
  ~Connection() {
    if (descriptor_ >= 0) ::close(descriptor_);
  }
  Connection(Connection&& other) noexcept : descriptor_(other.descriptor_) { other.descriptor_ = -1; }
  Connection& operator=(Connection&& other) noexcept {
    std::swap(descriptor_, other.descriptor_);
    return *this;
  }

  // Listening at an address, or connected to it.
  static Connection open(const Address& address, bool listening) {
    addrinfo wanted{}, *found = nullptr;
    wanted.ai_socktype = SOCK_STREAM;
    wanted.ai_flags = listening ? AI_PASSIVE : 0;
    const int status = getaddrinfo(address.host.c_str(), std::to_string(address.port).c_str(), &wanted, &found);
    if (status != 0) throw Error("E505", "no address " + address.text() + ": " + gai_strerror(status));
    Connection made(::socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0));
    const int yes = 1;
    if (listening) setsockopt(made.descriptor_, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof yes);
    const bool good = listening ? bind(made.descriptor_, found->ai_addr, found->ai_addrlen) == 0 && listen(made.descriptor_, 8) == 0
                                : connect(made.descriptor_, found->ai_addr, found->ai_addrlen) == 0;
    const std::string why = std::strerror(errno);
    freeaddrinfo(found);
    if (!good) throw Error("E505", (listening ? "cannot listen at " : "cannot reach ") + address.text() + ": " + why);
    return made;
  }

  int descriptor() const { return descriptor_; }
  int port() const {
    sockaddr_in6 own{};
    socklen_t size = sizeof own;
    getsockname(descriptor_, reinterpret_cast<sockaddr*>(&own), &size);
    return ntohs(own.sin6_port);  // at the same place in an IPv4 address
  }

  void send(const std::string& content) const {
    for (size_t sent = 0; sent < content.size();) {
      const ssize_t count = ::send(descriptor_, content.data() + sent, content.size() - sent, MSG_NOSIGNAL);
      if (count <= 0) throw Error("E505", "a connection broke");
      sent += static_cast<size_t>(count);
    }
  }
  void send(int32_t number) const { send(std::string(reinterpret_cast<const char*>(&number), sizeof number)); }

  std::string receive(size_t size) const {
    std::string content(size, '\0');
    if (size != 0 && recv(descriptor_, content.data(), size, MSG_WAITALL) != static_cast<ssize_t>(size))
      throw Error("E505", "a connection broke");
    return content;
  }
  int32_t number() const {
    int32_t found = 0;
    std::memcpy(&found, receive(sizeof found).data(), sizeof found);
    return found;
  }
  // A text with its size in front, as clients and trackers send it.
  std::string message() const {
    const int32_t size = number();
    if (size < 0 || size > 1 << 20) throw Error("E505", "a message of a strange size");
    return receive(static_cast<size_t>(size));
  }
  bool readable(int milliseconds) const {
    pollfd one{descriptor_, POLLIN, 0};
    return poll(&one, 1, milliseconds) > 0;
  }

 private:
  int descriptor_;
};

// Runs `body`, which gets a folder for a session's files, in a process of its own: it loads TVM's runtime, and a library that
// crashes takes the session with it and no more. What the process ended with.
template <typename Body>
int apart(const Body& body) {
  const WorkFolder work;
  const pid_t child = fork();
  if (child == 0) {
    int status = 1;
    try {
      body(work.path());
      status = 0;
    } catch (const std::exception& error) {
      std::fprintf(stderr, "%s\n", error.what());
    }
    std::fflush(nullptr);
    std::_Exit(status);
  }
  int status = -1;
  if (child < 0 || waitpid(child, &status, 0) != child) return 1;
  return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

class Server {
 public:
  // folder: of the runtime. tracker: "" for none, then `key` is what clients have to name ("" for TVM's default).
  Server(std::string folder, const Address& address, std::string tracker, std::string key)
      : folder_(std::move(folder)), tracker_(std::move(tracker)), key_(std::move(key)), door_(Connection::open(address, true)),
        match_(key_) {
    std::signal(SIGPIPE, SIG_IGN);
    std::printf("listening at %s:%d\n", address.host.c_str(), door_.port());
    std::fflush(stdout);
  }

  [[noreturn]] void run() {
    for (;;) {
      try {
        offer();
        if (!wait()) continue;
      } catch (const Error& error) {  // the tracker is gone: it may come back
        std::fprintf(stderr, "%s\n", error.what());
        link_ = Connection(-1);
        sleep(2);
        continue;
      }
      const Connection peer(accept4(door_.descriptor(), nullptr, nullptr, SOCK_CLOEXEC));
      if (peer.descriptor() < 0) continue;
      apart([&](const std::string& work) {
        if (greet(peer)) Session(folder_, work).serve(peer.descriptor());
      });
      offered_ = false;
    }
  }

 private:
  static constexpr int32_t magic = 0xFF271, mismatch = magic + 2, tracker_magic = 0x2F271;
  static constexpr int period_ms = 2000, patience = 3;  // periods that a client has to come after the tracker sent it here
  enum { put = 3, update = 5, pending = 7 };

  // Tell the tracker that this machine is free, under a name that only its next client learns.
  void offer() {
    if (tracker_.empty() || offered_) return;
    if (link_.descriptor() < 0) {
      link_ = Connection::open(Address::parse(tracker_), false);
      link_.send(tracker_magic);
      if (link_.number() != tracker_magic) throw Error("E505", tracker_ + " is no tracker");
      ask("[" + std::to_string(update) + ", {\"key\": \"server:" + key_ + "\", \"addr\": [null, " + port() + "]}]");
    }
    std::random_device random;
    match_ = key_ + ":" + std::to_string(random()) + std::to_string(random());
    ask("[" + std::to_string(put) + ", \"" + key_ + "\", [" + port() + ", \"" + match_ + "\"], null]");
    offered_ = true;
    absent_ = 0;
  }

  // Whether somebody is at the door. The tracker hears from time to time that we are here.
  bool wait() {
    if (tracker_.empty()) return door_.readable(-1);
    if (door_.readable(period_ms)) return true;
    const bool taken = ask("[" + std::to_string(pending) + "]").find('"' + match_ + '"') == std::string::npos;
    absent_ = taken ? absent_ + 1 : 0;
    offered_ = absent_ <= patience;
    return false;
  }

  std::string ask(const std::string& question) const {
    link_.send(static_cast<int32_t>(question.size()));
    link_.send(question);
    return link_.message();
  }
  std::string port() const { return std::to_string(door_.port()); }

  // TVM's handshake: a magic number and what the client asks for, "client:KEY -timeout=SECONDS".
  bool greet(const Connection& peer) const {
    timeval patience_s{10, 0};  // for a handshake, not for a session
    setsockopt(peer.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience_s, sizeof patience_s);
    if (peer.number() != magic) return false;
    std::istringstream words(peer.message());
    std::string name, option;
    words >> name;
    if (name != "client:" + match_) {
      peer.send(mismatch);
      return false;
    }
    while (words >> option)
      if (option.rfind("-timeout=", 0) == 0) alarm(static_cast<unsigned>(std::max(1.0, std::atof(option.c_str() + 9))));
    const std::string own = "server:" + key_;
    peer.send(magic);
    peer.send(static_cast<int32_t>(own.size()));
    peer.send(own);
    patience_s = {0, 0};
    setsockopt(peer.descriptor(), SOL_SOCKET, SO_RCVTIMEO, &patience_s, sizeof patience_s);
    const int yes = 1;  // a client that vanished without a word ends its session some day
    setsockopt(peer.descriptor(), SOL_SOCKET, SO_KEEPALIVE, &yes, sizeof yes);
    return true;
  }

  std::string folder_, tracker_, key_;
  Connection door_, link_{-1};
  std::string match_;  // what the next client has to name
  bool offered_ = false;
  int absent_ = 0;
};

}  // namespace deburr
