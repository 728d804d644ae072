// What a bundle says about itself (bundle.txt), checked before anything of it is loaded: architecture, CPU, hashes.
#pragma once

#include <sys/auxv.h>

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <stdexcept>
#include <string>
#include <vector>

#include "sha256.hpp"

namespace deburr {

// Something that the user of a bundle can mend. `code` is the one that the command `deburr` uses.
struct Error : std::runtime_error {
  Error(const std::string& code, const std::string& text) : std::runtime_error("error[" + code + "]: " + text), code(code) {}
  std::string code;
};

// An input or output. `type` is numpy's ("float32", "uint8"); the number of samples decides a size of -1.
struct TensorType {
  std::string name, type;
  std::vector<int64_t> shape;
};

struct Description {
  std::string architecture;
  int threads = 1;
  std::map<int64_t, std::string> programs;  // samples of one call -> name of the function
  bool divisible = false;  // whether samples may be run in parts
  std::vector<std::string> features;  // as the kernel's HWCAP calls them
  std::vector<TensorType> inputs, outputs;
  std::map<std::string, std::string> files;  // name -> SHA-256
};

// This machine's architecture, as Linux calls it.
inline const char* architecture() {
#if defined(__aarch64__)
  return "aarch64";
#elif defined(__x86_64__)
  return "x86_64";
#else
  return "unknown";
#endif
}

// The CPU's features under the names of /proc/cpuinfo: on aarch64 as the kernel hands them to every process (getauxval), which
// emulators do as well, on x86 out of that file.
inline std::set<std::string> cpu_features() {
  std::set<std::string> found;
#if defined(__x86_64__)
  std::ifstream file("/proc/cpuinfo");
  std::string line;
  while (std::getline(file, line))
    if (line.rfind("flags", 0) == 0) {
      std::istringstream words(line.substr(line.find(':') + 1));
      std::string word;
      while (words >> word) {
        word.erase(std::remove(word.begin(), word.end(), '_'), word.end());
        found.insert(word);
      }
      break;
    }
#elif defined(__aarch64__)
  static const std::map<std::string, int> first = {
      {"fp", 0}, {"asimd", 1}, {"aes", 3}, {"pmull", 4}, {"sha1", 5}, {"sha2", 6}, {"crc32", 7}, {"atomics", 8}, {"fphp", 9},
      {"asimdhp", 10}, {"asimdrdm", 12}, {"jscvt", 13}, {"fcma", 14}, {"lrcpc", 15}, {"dcpop", 16}, {"sha3", 17}, {"sm3", 18},
      {"sm4", 19}, {"asimddp", 20}, {"sha512", 21}, {"sve", 22}, {"asimdfhm", 23}, {"dit", 24}, {"uscat", 25}, {"ilrcpc", 26},
      {"flagm", 27}};
  static const std::map<std::string, int> second = {{"sve2", 1}, {"frint", 8}, {"i8mm", 13}, {"bf16", 14}};
  for (const auto& [name, bit] : first)
    if (getauxval(AT_HWCAP) >> bit & 1) found.insert(name);
  for (const auto& [name, bit] : second)
    if (getauxval(AT_HWCAP2) >> bit & 1) found.insert(name);
#endif
  return found;
}

inline Description read_description(const std::string& folder) {
  std::ifstream file(folder + "/bundle.txt");
  if (!file) throw Error("E501", "not a bundle, " + folder + ": it holds no bundle.txt");
  Description found;
  std::string line;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string kind, word;
    words >> kind;
    if (kind == "architecture") words >> found.architecture;
    if (kind == "threads") words >> found.threads;
    if (kind == "divisible") words >> found.divisible;
    if (kind == "program") {
      int64_t batch = 0;
      words >> batch >> word;
      found.programs[batch] = word;
    }
    if (kind == "features")
      while (words >> word) found.features.push_back(word);
    if (kind == "file") {
      std::string digest;
      words >> digest >> word;
      found.files[word] = digest;
    }
    if (kind == "input" || kind == "output") {
      TensorType tensor;
      int64_t size = 0;
      int rank = 0;
      words >> tensor.type >> rank;
      for (int i = 0; i < rank && words >> size; ++i) tensor.shape.push_back(size);
      std::getline(words >> std::ws, tensor.name);
      (kind == "input" ? found.inputs : found.outputs).push_back(tensor);
    }
  }
  return found;
}

// Throws where the bundle is for another machine (E503), or a file is missing or changed (E502).
inline void verify(const std::string& folder, const Description& bundle) {
  if (bundle.architecture != architecture())
    throw Error("E503", "the bundle is for another machine, " + folder + ": it is for " + bundle.architecture +
                            ", this machine is " + architecture());
  const std::set<std::string> have = cpu_features();
  std::string missing;
  for (const std::string& feature : bundle.features)
    if (have.count(feature) == 0) missing += (missing.empty() ? "" : ", ") + feature;
  if (!missing.empty())
    throw Error("E503", "the bundle is for another machine, " + folder + ": this CPU lacks " + missing);
  for (const auto& [name, digest] : bundle.files)
    if (sha256_of_file(folder + "/" + name) != digest)
      throw Error("E502", "a file of the bundle is damaged, " + folder + "/" + name + ": its contents are not what bundle.txt says");
}

}  // namespace deburr
