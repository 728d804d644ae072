// Runs a compiled bundle in an application of yours, without Python. C++17, this header and what it includes; link with -ldl.
//
//   deburr::Program program("model.bundle");
//   std::vector<deburr::Array> outputs = program.run({deburr::Array("float32", {1, 3, 224, 224}, pixels)});
//
// A bundle is checked before it is loaded; what is wrong with it is a deburr::Error. One call at a time for each Program.
#pragma once

#include <dlfcn.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "bundle.hpp"
#include "tvm/ffi/c_api.h"

namespace deburr {

// Numbers in a row, as numpy lays them out, aligned for the vectors of generated code.
struct Array {
  static constexpr size_t alignment = 64;

  Array(std::string type, std::vector<int64_t> shape, const void* content = nullptr)
      : type(std::move(type)), shape(std::move(shape)) {
    const size_t size = (bytes() + alignment - 1) / alignment * alignment;
    memory_.reset(static_cast<uint8_t*>(std::aligned_alloc(alignment, size ? size : alignment)), std::free);
    if (content != nullptr) std::memcpy(data(), content, bytes());
  }

  DLDataType dtype() const {
    const size_t digits = type.find_first_of("0123456789");
    const std::string kind = type.substr(0, digits);
    const int bits = digits == std::string::npos ? 8 : std::atoi(type.c_str() + digits);
    const int code = kind == "float" ? kDLFloat : kind == "uint" ? kDLUInt : kind == "int" ? kDLInt : kDLBool;
    return {static_cast<uint8_t>(code), static_cast<uint8_t>(bits), 1};
  }
  int64_t count() const {
    int64_t product = 1;
    for (int64_t size : shape) product *= size;
    return product;
  }
  size_t bytes() const { return static_cast<size_t>(count()) * dtype().bits / 8; }
  uint8_t* data() const { return memory_.get(); }

  std::string type;  // numpy's name
  std::vector<int64_t> shape;

 private:
  std::shared_ptr<uint8_t> memory_;
};

// The few functions of TVM's C interface, out of the libraries that lie in the bundle.
class Runtime {
 public:
  explicit Runtime(const std::string& folder) {
    ffi_ = open(folder + "/libtvm_ffi.so");
    open(folder + "/libtvm_runtime.so");
    get_global_ = symbol<decltype(get_global_)>("TVMFFIFunctionGetGlobal");
    call_ = symbol<decltype(call_)>("TVMFFIFunctionCall");
    raised_ = symbol<decltype(raised_)>("TVMFFIErrorMoveFromRaised");
    release_ = symbol<decltype(release_)>("TVMFFIObjectDecRef");
    from_dlpack_ = symbol<decltype(from_dlpack_)>("TVMFFITensorFromDLPack");
  }

  // A function of the C interface.
  template <typename Function>
  Function symbol(const char* name) const {
    void* found = dlsym(ffi_, name);
    if (found == nullptr) throw Error("E501", std::string("the runtime lacks ") + name);
    return reinterpret_cast<Function>(found);
  }

  TVMFFIObjectHandle global(const std::string& name) const {
    const TVMFFIByteArray bytes{name.data(), name.size()};
    TVMFFIObjectHandle function = nullptr;
    check(get_global_(&bytes, &function));
    if (function == nullptr) throw Error("E501", "the runtime has no function " + name);
    return function;
  }

  TVMFFIAny call(TVMFFIObjectHandle function, std::vector<TVMFFIAny> arguments) const {
    TVMFFIAny result = none();
    check(call_(function, arguments.data(), static_cast<int32_t>(arguments.size()), &result));
    return result;
  }

  TVMFFIObjectHandle tensor(const Array& array, std::vector<int64_t>& shape) const {
    // The tensor borrows: memory and shape outlive it.
    auto* managed = new DLManagedTensor{};
    managed->dl_tensor.data = array.data();
    managed->dl_tensor.device = {kDLCPU, 0};
    managed->dl_tensor.ndim = static_cast<int32_t>(shape.size());
    managed->dl_tensor.dtype = array.dtype();
    managed->dl_tensor.shape = shape.data();
    managed->deleter = [](DLManagedTensor* self) { delete self; };
    TVMFFIObjectHandle made = nullptr;
    check(from_dlpack_(managed, Array::alignment, 1, &made));
    return made;
  }

  void release(const TVMFFIAny& value) const {
    if (value.type_index >= kTVMFFIStaticObjectBegin) release_(value.v_obj);
  }

  // Throws where a function of the C interface gave a status other than 0.
  void check(int status) const {
    if (status == 0) return;
    TVMFFIObjectHandle error = nullptr;
    raised_(&error);
    std::string why = "no reason given";
    if (error != nullptr) {
      const TVMFFIByteArray message = TVMFFIErrorGetCellPtr(error)->message;
      why.assign(message.data, message.size);
      release_(error);
    }
    throw Error("E504", "the program failed: " + why);
  }

  static TVMFFIAny none() {
    TVMFFIAny value;
    std::memset(&value, 0, sizeof value);
    value.type_index = kTVMFFINone;
    return value;
  }
  static TVMFFIAny integer(int64_t number) {
    TVMFFIAny value = none();
    value.type_index = kTVMFFIInt;
    value.v_int64 = number;
    return value;
  }
  static TVMFFIAny boolean(bool truth) {
    TVMFFIAny value = integer(truth);
    value.type_index = kTVMFFIBool;
    return value;
  }
  static TVMFFIAny text(const char* characters) {
    TVMFFIAny value = none();
    value.type_index = kTVMFFIRawStr;
    value.v_c_str = characters;
    return value;
  }
  static TVMFFIAny object(TVMFFIObjectHandle handle, int32_t type) {
    TVMFFIAny value = none();
    value.type_index = type;
    value.v_obj = static_cast<TVMFFIObject*>(handle);
    return value;
  }

 private:
  static void* open(const std::string& path) {
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_GLOBAL);
    if (library == nullptr) throw Error("E501", std::string("a library does not load: ") + dlerror());
    return library;
  }

  void* ffi_;
  decltype(&TVMFFIFunctionGetGlobal) get_global_;
  decltype(&TVMFFIFunctionCall) call_;
  decltype(&TVMFFIErrorMoveFromRaised) raised_;
  decltype(&TVMFFIObjectDecRef) release_;
  decltype(&TVMFFITensorFromDLPack) from_dlpack_;
};

// A bundle that is ready to run.
class Program {
 public:
  // threads: 0 for the number that the bundle was compiled for.
  explicit Program(const std::string& folder, int threads = 0) : bundle_(checked(folder)), runtime_(folder) {
    const std::string library = folder + "/model.so";
    const TVMFFIAny module = runtime_.call(runtime_.global("ffi.ModuleLoadFromFile"), {Runtime::text(library.c_str())});
    const TVMFFIAny machine = runtime_.call(function(module, "vm_load_executable"), {});
    runtime_.call(function(machine, "vm_initialization"), {Runtime::integer(kDLCPU), Runtime::integer(0), Runtime::integer(2)});
    for (const auto& [batch, name] : bundle_.programs) functions_[batch] = function(machine, name.c_str());
    if (functions_.empty()) throw Error("E502", "the bundle is damaged, " + folder + ": bundle.txt names no program");
    size_ = runtime_.global("ffi.ArraySize");
    item_ = runtime_.global("ffi.ArrayGetItem");
    const int count = threads > 0 ? threads : bundle_.threads;
    runtime_.call(function(module, "deburr_set_threads", true), {Runtime::integer(count)});
  }

  const Description& bundle() const { return bundle_; }

  // The outputs for any number of samples: where the bundle has no program for that number, in parts, the largest first.
  std::vector<Array> run(const std::vector<Array>& inputs) const {
    if (inputs.size() != bundle_.inputs.size()) throw Error("E302", "the bundle takes another number of inputs");
    const int64_t count = samples(inputs);
    const auto found = functions_.find(count);
    if (found != functions_.end()) return call(count, found->second, inputs);
    if (!bundle_.divisible) throw indivisible(count);
    std::vector<Array> whole;
    for (int64_t first = 0; first < count;) {
      const auto next = functions_.upper_bound(count - first);  // the first size that is too large
      const auto& [size, entry] = next == functions_.begin() ? *next : *std::prev(next);
      std::vector<Array> given;
      for (const Array& input : inputs) given.push_back(part(input, first, size));
      const std::vector<Array> outputs = call(size, entry, given);
      for (size_t i = 0; i < outputs.size(); ++i) {
        std::vector<int64_t> shape = outputs[i].shape;
        shape[0] = count;
        if (first == 0) whole.emplace_back(outputs[i].type, shape);
        const size_t sample = outputs[i].bytes() / static_cast<size_t>(size);
        const size_t wanted = sample * static_cast<size_t>(std::min(size, count - first));
        std::memcpy(whole[i].data() + static_cast<size_t>(first) * sample, outputs[i].data(), wanted);
      }
      first += size;
    }
    return whole;
  }

 private:
  // How many samples the inputs hold; the size of the first program where the model fixes it.
  int64_t samples(const std::vector<Array>& inputs) const {
    int64_t count = 0;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::vector<int64_t>&wanted = bundle_.inputs[i].shape, &given = inputs[i].shape;
      if (wanted.empty() || wanted[0] >= 0) continue;
      if (given.empty() || given[0] < 1) throw Error("E303", "no samples, input " + bundle_.inputs[i].name);
      if (count != 0 && given[0] != count) throw Error("E303", "the inputs hold different numbers of samples");
      count = given[0];
    }
    return count != 0 ? count : functions_.begin()->first;
  }

  Error indivisible(int64_t count) const {
    std::string sizes;
    for (const auto& [size, entry] : functions_) sizes += (sizes.empty() ? "" : " or ") + std::to_string(size);
    return Error("E303", "the samples cannot be run in parts, " + std::to_string(count) +
                             " samples: not every input and output has them on its first axis, and the bundle takes " + sizes +
                             " at once");
  }

  // `size` samples from `first` on; where the array ends before, its last sample is repeated.
  static Array part(const Array& array, int64_t first, int64_t size) {
    std::vector<int64_t> shape = array.shape;
    const size_t sample = array.bytes() / static_cast<size_t>(shape[0]);
    const int64_t last = shape[0] - 1;
    shape[0] = size;
    Array made(array.type, shape);
    for (int64_t i = 0; i < size; ++i) {
      const size_t place = static_cast<size_t>(i) * sample, source = static_cast<size_t>(std::min(first + i, last)) * sample;
      std::memcpy(made.data() + place, array.data() + source, sample);
    }
    return made;
  }

  std::vector<Array> call(int64_t batch, TVMFFIObjectHandle function, const std::vector<Array>& inputs) const {
    std::vector<std::vector<int64_t>> shapes;
    for (const Array& input : inputs) shapes.push_back(input.shape);
    std::vector<TVMFFIAny> arguments;
    for (size_t i = 0; i < inputs.size(); ++i) {
      expect(bundle_.inputs[i], inputs[i], batch);
      arguments.push_back(Runtime::object(runtime_.tensor(inputs[i], shapes[i]), kTVMFFITensor));
    }
    const TVMFFIAny result = runtime_.call(function, arguments);
    std::vector<Array> outputs;
    const int64_t count = result.type_index == kTVMFFITensor ? 1 : runtime_.call(size_, {result}).v_int64;
    for (int64_t i = 0; i < count; ++i) {
      const bool alone = result.type_index == kTVMFFITensor;
      const TVMFFIAny item = alone ? result : runtime_.call(item_, {result, Runtime::integer(i)});
      outputs.push_back(copy(*TVMFFITensorGetDLTensorPtr(item.v_obj), bundle_.outputs[i].type));
      if (!alone) runtime_.release(item);
    }
    runtime_.release(result);
    for (const TVMFFIAny& argument : arguments) runtime_.release(argument);
    return outputs;
  }

  static Description checked(const std::string& folder) {
    Description bundle = read_description(folder);
    verify(folder, bundle);
    return bundle;
  }

  // imported: also of the modules that it holds.
  TVMFFIObjectHandle function(const TVMFFIAny& module, const char* name, bool imported = false) const {
    const TVMFFIAny found =
        runtime_.call(runtime_.global("ffi.ModuleGetFunction"), {module, Runtime::text(name), Runtime::boolean(imported)});
    if (found.type_index != kTVMFFIFunction) throw Error("E501", std::string("the library has no function ") + name);
    return found.v_obj;
  }

  static void expect(const TensorType& wanted, const Array& given, int64_t batch) {
    bool fits = wanted.type == given.type && wanted.shape.size() == given.shape.size();
    for (size_t i = 0; fits && i < wanted.shape.size(); ++i)
      fits = given.shape[i] == (wanted.shape[i] < 0 ? batch : wanted.shape[i]);
    if (!fits) throw Error("E303", "wrong shape or type, input " + wanted.name);
  }

  static Array copy(const DLTensor& tensor, const std::string& type) {
    const std::vector<int64_t> shape(tensor.shape, tensor.shape + tensor.ndim);
    if (Array(type, {0}).dtype().bits != tensor.dtype.bits) throw Error("E502", "an output is not what bundle.txt says");
    return Array(type, shape, static_cast<const uint8_t*>(tensor.data) + tensor.byte_offset);
  }

  Description bundle_;
  Runtime runtime_;
  std::map<int64_t, TVMFFIObjectHandle> functions_;  // by the samples of one call
  TVMFFIObjectHandle size_ = nullptr, item_ = nullptr;
};

}  // namespace deburr
