// One session of TVM's RPC: whoever is at the other end uploads libraries, loads them and calls what is in them. So only for ends
// that are trusted: the program that started this one, or whoever reaches the port that `serve.hpp` opened.
#pragma once

#include <stdlib.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>

#include "deburr.hpp"

namespace deburr {

// What a client asks before it sends anything: as bundle.txt has it, a fact a line.
inline std::string machine() {
  std::string text = std::string("architecture ") + architecture() + "\nfeatures";
  for (const std::string& feature : cpu_features()) text += " " + feature;
  return text + "\n";
}

// A folder for the files of one session. Whoever waits for the session's process has it, and takes it away after a crash too.
class WorkFolder {
 public:
  WorkFolder() {
    const char* base = getenv("TMPDIR");
    path_ = std::string(base != nullptr && *base != 0 ? base : "/tmp") + "/deburr-session-XXXXXX";
    if (mkdtemp(path_.data()) == nullptr) throw Error("E109", "cannot write " + path_);
  }
  ~WorkFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  WorkFolder(const WorkFolder&) = delete;
  WorkFolder& operator=(const WorkFolder&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// The functions that TVM's session asks for. Once in a process.
class Session {
 public:
  // folder: where libtvm_runtime.so lies.  work: where the client's files go.
  Session(const std::string& folder, std::string work) : runtime_(folder), work_(std::move(work)) {
    current() = this;
    publish("tvm.rpc.server.workpath", [](void*, const TVMFFIAny* given, int32_t, TVMFFIAny* result) {
      return guarded([&] { current()->give(current()->path(text(given[0])), result); });
    });
    publish("tvm.rpc.server.upload", [](void*, const TVMFFIAny* given, int32_t, TVMFFIAny* result) {
      *result = Runtime::none();
      return guarded([&] { current()->write_file(text(given[0]), content(given[1])); });
    });
    publish("tvm.rpc.server.load_module", [](void*, const TVMFFIAny* given, int32_t, TVMFFIAny* result) {
      return guarded([&] {
        const Runtime& runtime = current()->runtime_;
        const std::string library = current()->path(text(given[0]));
        *result = runtime.call(runtime.global("ffi.ModuleLoadFromFile"), {Runtime::text(library.c_str())});
      });
    });
    publish("deburr.rpc.machine", [](void*, const TVMFFIAny*, int32_t, TVMFFIAny* result) {
      return guarded([&] { current()->give(machine(), result); });
    });
  }
  Session(const Session&) = delete;
  Session& operator=(const Session&) = delete;

  // Until the other end closes. A socket:
  void serve(int socket) const { runtime_.call(runtime_.global("rpc.ServerLoop"), {Runtime::integer(socket)}); }

  // Two streams:
  void serve(int input, int output) {
    input_ = input;
    output_ = output;
    runtime_.call(runtime_.global("rpc.ServerLoop"), {
        function([](void*, const TVMFFIAny* given, int32_t, TVMFFIAny* result) {
          return guarded([&] { *result = Runtime::integer(current()->send(given[0])); });
        }),
        function([](void*, const TVMFFIAny* given, int32_t, TVMFFIAny* result) {
          return guarded([&] { current()->receive(static_cast<size_t>(given[0].v_int64), result); });
        })});
  }

 private:
  static Session*& current() {  // TVM's functions are the process's, and so is the session
    static Session* session = nullptr;
    return session;
  }

  // TVM's way of raising: a message that is set aside, and a status.
  template <typename Body>
  static int guarded(const Body& body) {
    try {
      body();
      return 0;
    } catch (const std::exception& error) {
      current()->runtime_.symbol<decltype(&TVMFFIErrorSetRaisedFromCStr)>("TVMFFIErrorSetRaisedFromCStr")("RuntimeError", error.what());
      return -1;
    }
  }

  static std::string text(const TVMFFIAny& value) {
    if (value.type_index == kTVMFFIRawStr) return value.v_c_str;
    if (value.type_index == kTVMFFISmallStr) return std::string(value.v_bytes, value.small_str_len);
    if (value.type_index != kTVMFFIStr) throw Error("E504", "a name was expected");
    const TVMFFIByteArray* bytes = TVMFFIBytesGetByteArrayPtr(value.v_obj);
    return std::string(bytes->data, bytes->size);
  }

  static TVMFFIByteArray content(const TVMFFIAny& value) {
    if (value.type_index == kTVMFFIByteArrayPtr) return *static_cast<const TVMFFIByteArray*>(value.v_ptr);
    if (value.type_index == kTVMFFISmallBytes) return TVMFFISmallBytesGetContentByteArray(&value);
    if (value.type_index != kTVMFFIBytes) throw Error("E504", "bytes were expected");
    return *TVMFFIBytesGetByteArrayPtr(value.v_obj);
  }

  // TVM's own does not look whether the disk took it all: what is then loaded ends in a bus error.
  void write_file(const std::string& name, const TVMFFIByteArray& bytes) const {
    std::ofstream file(path(name), std::ios::binary);
    file.write(bytes.data, static_cast<std::streamsize>(bytes.size));
    file.close();
    if (!file) throw Error("E109", "the device cannot write " + path(name) + ": " + std::strerror(errno));
  }

  std::string path(const std::string& name) const {
    if (name.find('/') != std::string::npos || name == "..") throw Error("E504", "the client sends files without folders");
    return work_ + "/" + name;
  }

  void give(const std::string& characters, TVMFFIAny* result) const {
    const TVMFFIByteArray bytes{characters.data(), characters.size()};
    runtime_.check(runtime_.symbol<decltype(&TVMFFIStringFromByteArray)>("TVMFFIStringFromByteArray")(&bytes, result));
  }

  int64_t send(const TVMFFIAny& given) const {
    const auto* bytes = static_cast<const TVMFFIByteArray*>(given.v_ptr);
    for (size_t sent = 0; sent < bytes->size;) {
      const ssize_t count = write(output_, bytes->data + sent, bytes->size - sent);
      if (count < 0 && errno == EINTR) continue;
      if (count <= 0) throw Error("E505", "the client is gone");
      sent += static_cast<size_t>(count);
    }
    return static_cast<int64_t>(bytes->size);
  }

  void receive(size_t limit, TVMFFIAny* result) const {
    std::string content(limit, '\0');
    ssize_t count = -1;
    do count = read(input_, content.data(), limit);
    while (count < 0 && errno == EINTR);
    const TVMFFIByteArray bytes{content.data(), count > 0 ? static_cast<size_t>(count) : 0};
    runtime_.check(runtime_.symbol<decltype(&TVMFFIBytesFromByteArray)>("TVMFFIBytesFromByteArray")(&bytes, result));
  }

  TVMFFIAny function(TVMFFISafeCallType body) const {
    TVMFFIObjectHandle made = nullptr;
    runtime_.check(runtime_.symbol<decltype(&TVMFFIFunctionCreate)>("TVMFFIFunctionCreate")(nullptr, body, nullptr, &made));
    return Runtime::object(made, kTVMFFIFunction);
  }

  void publish(const std::string& name, TVMFFISafeCallType body) const {
    const TVMFFIByteArray bytes{name.data(), name.size()};
    const auto set = runtime_.symbol<decltype(&TVMFFIFunctionSetGlobal)>("TVMFFIFunctionSetGlobal");
    runtime_.check(set(&bytes, function(body).v_obj, 1));
  }

  Runtime runtime_;
  std::string work_;
  int input_ = -1, output_ = -1;
};

}  // namespace deburr
