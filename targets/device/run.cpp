// Runs a bundle on files:  run BUNDLE INPUTS OUTPUTS [--threads N] [--calls N]
//
// INPUTS holds input0.npy, input1.npy, ... in the order of the bundle, any number of samples where it leaves that open;
// output0.npy, ... go to OUTPUTS. With --calls the whole is run as often, and the milliseconds of each call go to stdout, one a
// line.
//
// Or serves TVM's RPC with the runtime that lies beside it, for tuning: serve.hpp says over what, and who must not reach it.
#include <cctype>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include "deburr.hpp"
#include "serve.hpp"

namespace {

using deburr::Array;
using deburr::Error;

struct Type {
  const char *numpy, *name;
};
constexpr Type types[] = {{"<f4", "float32"}, {"<f8", "float64"}, {"<f2", "float16"}, {"|u1", "uint8"},  {"|i1", "int8"},
                          {"<u2", "uint16"},  {"<i2", "int16"},   {"<u4", "uint32"},  {"<i4", "int32"},  {"<u8", "uint64"},
                          {"<i8", "int64"},   {"|b1", "bool"}};

// The array of an .npy file (format 1 to 3, little-endian, C order).
Array read(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
  if (text.size() < 12 || text.compare(1, 5, "NUMPY") != 0) throw Error("E301", "not an .npy file, " + path);
  const bool wide = text[6] > 1;
  size_t length = static_cast<uint8_t>(text[8]) | static_cast<size_t>(static_cast<uint8_t>(text[9])) << 8;
  if (wide) length |= static_cast<size_t>(static_cast<uint8_t>(text[10])) << 16 | static_cast<size_t>(static_cast<uint8_t>(text[11])) << 24;
  const size_t start = (wide ? 12 : 10) + length;
  const std::string header = text.substr(wide ? 12 : 10, length);
  std::string name;
  for (const Type& type : types)
    if (header.find(std::string("'") + type.numpy + "'") != std::string::npos) name = type.name;
  if (name.empty() || header.find("'fortran_order': False") == std::string::npos)
    throw Error("E303", "an .npy file of a type that no bundle takes, " + path);
  std::vector<int64_t> shape;
  const char* at = header.c_str() + header.find('(', header.find("'shape'")) + 1;
  while (*at != ')' && *at != 0) {
    char* end = nullptr;
    const int64_t size = std::strtoll(at, &end, 10);
    if (end != at) shape.push_back(size);
    at = end != at ? end : at + 1;
  }
  Array array(name, shape);
  if (start + array.bytes() > text.size()) throw Error("E301", "a truncated file, " + path);
  std::memcpy(array.data(), text.data() + start, array.bytes());
  return array;
}

void write(const std::string& path, const Array& array) {
  std::string header = "{'descr': '", sizes;
  for (const Type& type : types)
    if (array.type == type.name) header += type.numpy;
  for (int64_t size : array.shape) sizes += std::to_string(size) + ", ";
  header += "', 'fortran_order': False, 'shape': (" + sizes + "), }";
  while ((10 + header.size() + 1) % 64 != 0) header += ' ';
  header += '\n';
  std::ofstream file(path, std::ios::binary);
  file.write("\x93NUMPY\x01\x00", 8);
  file.put(static_cast<char>(header.size() & 255)).put(static_cast<char>(header.size() >> 8));
  file << header;
  file.write(reinterpret_cast<const char*>(array.data()), static_cast<std::streamsize>(array.bytes()));
  if (!file.flush()) throw Error("E109", "cannot write " + path);
}

constexpr const char* usage =
    "usage: run BUNDLE INPUTS OUTPUTS [--threads N] [--calls N]\n"
    "       run --serve [HOST:]PORT [--tracker HOST:PORT] [--key KEY]   TVM's RPC; HOST is 127.0.0.1 unless given\n"
    "       run --serve-stdio\n";

// What follows `name` among the words, else `otherwise`.
std::string option(const std::vector<std::string>& words, const std::string& name, const std::string& otherwise) {
  for (size_t i = 0; i + 1 < words.size(); ++i)
    if (words[i] == name) return words[i + 1];
  return otherwise;
}

int serve(const std::string& folder, const std::vector<std::string>& words) {
  const std::string tracker = option(words, "--tracker", ""), key = option(words, "--key", "");
  if (!tracker.empty() && key.empty()) throw Error("E901", "a tracker wants a key: --key KEY");
  for (const char letter : key)  // it stands in JSON, and among words
    if (std::isalnum(static_cast<unsigned char>(letter)) == 0 && std::string("-_.").find(letter) == std::string::npos)
      throw Error("E901", "a key is letters, digits, - _ and .: " + key);
  deburr::Server(folder, deburr::Address::parse(words[1]), tracker, key).run();
}

int serve_streams(const std::string& folder) {
  const int output = dup(STDOUT_FILENO);  // TVM's alone: whatever else is printed goes elsewhere
  dup2(STDERR_FILENO, STDOUT_FILENO);
  return deburr::apart([&](const std::string& work) { deburr::Session(folder, work).serve(STDIN_FILENO, output); });
}

int run(const std::vector<std::string>& words) {
  const int threads = std::stoi(option(words, "--threads", "0")), calls = std::stoi(option(words, "--calls", "1"));
  const deburr::Program program(words[0], threads);
  std::vector<Array> inputs;
  for (size_t i = 0; i < program.bundle().inputs.size(); ++i)
    inputs.push_back(read(words[1] + "/input" + std::to_string(i) + ".npy"));
  std::vector<Array> outputs;
  for (int i = 0; i < calls; ++i) {
    const auto start = std::chrono::steady_clock::now();
    outputs = program.run(inputs);
    const std::chrono::duration<double, std::milli> passed = std::chrono::steady_clock::now() - start;
    std::printf("%.6f\n", passed.count());
  }
  for (size_t i = 0; i < outputs.size(); ++i) write(words[2] + "/output" + std::to_string(i) + ".npy", outputs[i]);
  return 0;
}

}  // namespace

int main(int count, char** arguments) {
  const std::vector<std::string> words(arguments + 1, arguments + count);
  const std::string first = words.empty() ? "" : words[0], own = arguments[0];
  const size_t slash = own.rfind('/');
  const std::string folder = slash == std::string::npos ? "." : own.substr(0, slash);
  if (words.size() < (first == "--serve-stdio" ? 1 : first == "--serve" ? 2 : 3)) {
    std::fputs(usage, stderr);
    return 2;
  }
  int status = 1;
  try {
    status = first == "--serve" ? serve(folder, words) : first == "--serve-stdio" ? serve_streams(folder) : run(words);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
  }
  std::fflush(nullptr);
  std::_Exit(status);  // TVM's threads are not worth waiting for
}
