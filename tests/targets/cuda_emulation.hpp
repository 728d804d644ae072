// Runs CUDA C++ on a CPU, for tests: blocks one after the other, the threads of a block as fibres that switch at barriers.
//
// It stands in for cuda.h and mma.h. Tensor cores are emulated by the first thread of each warp, whose fragments hold whole
// matrices. A thread runs until its next barrier before another starts, so a barrier that is missing shows: data that others
// were to write is not there yet. Addresses must be aligned as the instructions want them, or the program ends.
#pragma once

#include <csetjmp>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <tvm/ffi/c_api.h>
#include <ucontext.h>
#include <vector>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __shared__ static
#define __align__(bytes) alignas(bytes)
#define __CUDACC_VER_MAJOR__ 13
#define __CUDACC_VER_MINOR__ 0
#define __CUDA_ARCH__ 800

struct Index { unsigned x = 0, y = 0, z = 0; };
inline Index threadIdx, blockIdx, blockDim, gridDim;

template <typename T> struct alignas(2 * sizeof(T)) Two { T x, y; };
template <typename T> struct alignas(4 * sizeof(T)) Four { T x, y, z, w; };
#define EMULATED_VECTOR(type, name)                                      \
  using name##2 = Two<type>;                                             \
  using name##4 = Four<type>;                                            \
  inline name##2 make_##name##2(type x, type y) { return {x, y}; }       \
  inline name##4 make_##name##4(type x, type y, type z, type w) { return {x, y, z, w}; }
EMULATED_VECTOR(signed char, char)
EMULATED_VECTOR(unsigned char, uchar)
EMULATED_VECTOR(short, short)
EMULATED_VECTOR(unsigned short, ushort)
EMULATED_VECTOR(int, int)
EMULATED_VECTOR(unsigned, uint)
EMULATED_VECTOR(float, float)
EMULATED_VECTOR(long long, longlong)
EMULATED_VECTOR(unsigned long long, ulonglong)
EMULATED_VECTOR(double, double)

// float16: rounded to the nearest on the way in, half to even; what is too small for its normal numbers keeps fewer bits.
struct half {
  uint16_t bits = 0;
  half() = default;
  half(float x) {
    uint32_t word;
    std::memcpy(&word, &x, 4);
    const uint32_t sign = word >> 16 & 0x8000;
    const float size = std::fabs(x);
    if (std::isnan(x)) bits = sign | 0x7e00;
    else if (size >= 65520.0f) bits = sign | 0x7c00;
    else if (size < 6.103515625e-05f) bits = sign | static_cast<uint32_t>(std::nearbyint(size * 16777216.0f));
    else bits = sign | ((word & 0x7fffffff) + 0xfff + (word >> 13 & 1) - 0x38000000) >> 13;
  }
  operator float() const {
    const float sign = bits & 0x8000 ? -1 : 1;
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    if (exponent == 31) return fraction ? NAN : sign * INFINITY;
    return sign * std::ldexp(exponent ? 1024 + fraction : fraction, (exponent ? exponent : 1) - 25);
  }
};

using __half = half;
struct __half2 { half x, y; };
inline bool __hgt(half a, half b) { return float(a) > float(b); }
inline bool __hlt(half a, half b) { return float(a) < float(b); }
inline float __half2float(half x) { return x; }
inline half __float2half(float x) { return x; }
inline half __float2half_rn(float x) { return x; }

template <typename A, typename B> std::common_type_t<A, B> min(A a, B b) { return b < a ? b : a; }
template <typename A, typename B> std::common_type_t<A, B> max(A a, B b) { return a < b ? b : a; }
inline int __float2int_rn(float x) { return static_cast<int>(std::nearbyint(x)); }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
inline int __dp4a(int a, int b, int c) {
  for (int i = 0; i < 4; ++i) c += static_cast<int8_t>(a >> 8 * i) * static_cast<int8_t>(b >> 8 * i);
  return c;
}

namespace emulation {

constexpr int kWarp = 32;
constexpr size_t kStack = 128 * 1024;

[[noreturn]] inline void fail(const char *what) {
  std::fprintf(stderr, "emulated kernel: %s\n", what);
  std::abort();
}

// A thread of the block. It is made once, and runs the body of one block after the other.
struct Fibre {
  Index at;
  bool done = true, started = false;
  int barriers = 0, exchanges = 0;  // that it has reached: the block's, and its warp's
  jmp_buf here;
  ucontext_t context;
  std::unique_ptr<char[]> stack;
  uint64_t sent = 0;  // what it shows to the others of its warp
};

inline std::vector<std::unique_ptr<Fibre>> fibres;
inline int current = 0, threads = 0;
inline jmp_buf scheduler;
inline std::function<void()> body;

inline int lane() { return current % kWarp; }

inline void let_others_run() {
  if (!_setjmp(fibres[current]->here)) _longjmp(scheduler, 1);
}

// Until all threads from `first` to before `last` have come as far.
inline void meet(int Fibre::*count, int first, int last) {
  const int own = ++(fibres[current].get()->*count);
  for (bool waits = true; waits;) {
    waits = false;
    for (int i = first; i < last; ++i) waits |= fibres[i].get()->*count < own && !fibres[i]->done;
    if (waits) let_others_run();
  }
}

inline void loop() {
  for (;;) {
    body();
    fibres[current]->done = true;
    let_others_run();
  }
}

inline void resume(int index) {
  Fibre &fibre = *fibres[index];
  current = index;
  threadIdx = fibre.at;
  if (_setjmp(scheduler)) return;
  if (fibre.started) _longjmp(fibre.here, 1);
  fibre.started = true;
  getcontext(&fibre.context);
  fibre.stack.reset(new char[kStack]);
  fibre.context.uc_stack.ss_sp = fibre.stack.get();
  fibre.context.uc_stack.ss_size = kStack;
  makecontext(&fibre.context, loop, 0);
  setcontext(&fibre.context);
}

// The threads in turns, each from barrier to barrier, until all are done; all have to meet the same barriers.
inline void run_block() {
  for (int i = 0; i < threads; ++i) fibres[i]->done = false, fibres[i]->barriers = fibres[i]->exchanges = 0;
  for (long left = threads, before = -1, steps = 0; left > 0; before = steps) {
    left = steps = 0;
    for (int i = 0; i < threads; ++i) {
      if (!fibres[i]->done) resume(i);
      left += !fibres[i]->done;
      steps += fibres[i]->barriers + fibres[i]->exchanges + fibres[i]->done;
    }
    if (left && steps == before) fail("threads that wait for each other for ever");
  }
  for (int i = 0; i < threads; ++i)
    if (fibres[i]->barriers != fibres[0]->barriers) fail("a barrier that not all threads of the block reach");
}

inline void launch(Index grid, Index block, std::function<void()> kernel) {
  threads = block.x * block.y * block.z;
  while (static_cast<int>(fibres.size()) < threads) fibres.emplace_back(new Fibre);
  for (int i = 0; i < threads; ++i) fibres[i]->at = {i % block.x, i / block.x % block.y, i / (block.x * block.y)};
  body = std::move(kernel);
  gridDim = grid, blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = {x, y, z};
        run_block();
      }
}

// A thread's value as another thread of its warp sees it; its own where there is no such thread.
template <typename T> T exchange(T value, int from) {
  static_assert(sizeof(T) <= sizeof(uint64_t), "a word at a time");
  const int first = current - lane(), last = first + kWarp < threads ? first + kWarp : threads;
  std::memcpy(&fibres[current]->sent, &value, sizeof(T));
  meet(&Fibre::exchanges, first, last);
  if (first + from < last) std::memcpy(&value, &fibres[first + from]->sent, sizeof(T));
  meet(&Fibre::exchanges, first, last);
  return value;
}

}  // namespace emulation

inline void __syncthreads() { emulation::meet(&emulation::Fibre::barriers, 0, emulation::threads); }
inline void __syncwarp() { emulation::exchange(0, 0); }
inline unsigned __activemask() { return 0xffffffffu; }
#define __shfl_sync(mask, value, from, width) emulation::exchange((value), (from))
#define __shfl_down_sync(mask, value, by, width) \
  emulation::exchange((value), emulation::lane() + (by) < 32 ? emulation::lane() + (by) : emulation::lane())
#define __shfl_xor_sync(mask, value, by, width) emulation::exchange((value), emulation::lane() ^ (by))

namespace nvcuda::wmma {

struct matrix_a {};
struct matrix_b {};
struct accumulator {};
struct row_major {};
struct col_major {};
enum layout_t { mem_row_major, mem_col_major };

// Elements that a thread sees: the first of a warp has them all.
template <int N> struct Count {
  operator int() const { return emulation::lane() == 0 ? N : 0; }
};

template <typename Use, int M, int N, int K, typename T, typename Layout = void> struct fragment {
  static constexpr int kRows = std::is_same_v<Use, matrix_b> ? K : M;
  static constexpr int kColumns = std::is_same_v<Use, matrix_a> ? K : N;
  static constexpr bool kInRows = !std::is_same_v<Layout, col_major>;
  T x[kRows * kColumns];  // as it lies in memory: row after row, or column after column
  Count<kRows * kColumns> num_elements;
  T at(int row, int column) const { return kInRows ? x[row * kColumns + column] : x[column * kRows + row]; }
};

inline void check(const void *address, size_t stride, size_t start, size_t line) {
  if (reinterpret_cast<uintptr_t>(address) % start || stride % line) emulation::fail("a matrix that is not aligned");
}

template <typename F, typename V> void fill_fragment(F &f, V value) {
  for (int i = 0; i < f.num_elements; ++i) f.x[i] = value;
}

// The start of each row (or column) is aligned with what a thread of the warp holds of the fragment. Of float16 each thread
// holds 32 bytes whatever the shape, and CUDA's own guide asks for that of the first row, and for 16 bytes of the others.
template <typename F, typename T> void load_matrix_sync(F &f, const T *from, unsigned stride) {
  const size_t held = F::kRows * F::kColumns * sizeof(T) / emulation::kWarp;
  const bool is_half = std::is_same_v<T, half>;
  check(from, stride * sizeof(T), is_half ? 32 : held, is_half ? 16 : held);
  const int lines = F::kInRows ? F::kRows : F::kColumns, length = F::kInRows ? F::kColumns : F::kRows;
  for (int i = 0; i < f.num_elements; ++i) f.x[i] = from[i / length % lines * stride + i % length];
}

template <typename D, typename A, typename B, typename C> void mma_sync(D &d, const A &a, const B &b, const C &c) {
  if (emulation::lane()) return;
  for (int m = 0; m < A::kRows; ++m)
    for (int n = 0; n < B::kColumns; ++n) {
      auto total = c.x[m * B::kColumns + n];
      for (int k = 0; k < A::kColumns; ++k)
        total += static_cast<decltype(total)>(a.at(m, k)) * static_cast<decltype(total)>(b.at(k, n));
      d.x[m * B::kColumns + n] = total;
    }
}

template <typename F, typename T> void store_matrix_sync(T *to, const F &f, unsigned stride, layout_t layout) {
  const size_t held = F::kRows * F::kColumns * sizeof(T) / emulation::kWarp;
  check(to, stride * sizeof(T), held, held);
  if (emulation::lane()) return;
  for (int m = 0; m < F::kRows; ++m)
    for (int n = 0; n < F::kColumns; ++n)
      to[layout == mem_row_major ? m * stride + n : n * stride + m] = f.x[m * F::kColumns + n];
}

}  // namespace nvcuda::wmma
