// How a library of ours shares a kernel's work among threads, linked into it in place of the pool of TVM's runtime.
//
// That one yields its core whenever it waits, so that any other load on the machine takes the core for a whole time slice at
// each kernel, and it hands over in some 3 us. Here a thread that waits spins, for a millisecond at most, then sleeps.
//
// The generated code calls through the pointer __TVMBackendParallelLaunch, which TVM's runtime sets where it finds it. Hidden,
// it keeps the value that it has here.

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

typedef struct {
  void *unused;
  int32_t tasks;
} Environment;

typedef int (*Kernel)(int task, Environment *environment, void *data);

enum { MOST = 256, TASK_BITS = 16, SPINS_A_LOOK = 64, IDLE_NS = 1000000, WAIT_NS = 100000 };

// What is to be done. Only workers that take part in a turn read it, and a turn ends when they are done.
static Kernel kernel;
static void *data;
// Counts turns, with the number of tasks of the present one in its lowest bits. What all threads look at has lines of its own.
static _Alignas(128) atomic_ullong turn;
static _Alignas(128) atomic_int pending;
static _Alignas(128) atomic_int sleeping;
static atomic_int caller_sleeps;
static atomic_int failed = -1;  // a task that failed
static atomic_int stopping;
static atomic_int wanted = 1;  // threads, the caller's own among them
static atomic_flag busy = ATOMIC_FLAG_INIT;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wake = PTHREAD_COND_INITIALIZER;
static pthread_cond_t done = PTHREAD_COND_INITIALIZER;
static pthread_t workers[MOST];
static unsigned long long seen_first[MOST];
static int started;

static inline void spin(void) {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("yield");
#endif
}

static int64_t now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
}

// The next turn after `seen`.
static unsigned long long next_turn(unsigned long long seen) {
  const int64_t until = now() + IDLE_NS;
  do {
    for (int i = 0; i < SPINS_A_LOOK; ++i, spin()) {
      const unsigned long long found = atomic_load_explicit(&turn, memory_order_acquire);
      if (found != seen) return found;
    }
  } while (now() < until);
  pthread_mutex_lock(&mutex);
  atomic_fetch_add(&sleeping, 1);
  while (atomic_load(&turn) == seen) pthread_cond_wait(&wake, &mutex);
  atomic_fetch_sub(&sleeping, 1);
  pthread_mutex_unlock(&mutex);
  return atomic_load(&turn);
}

// Two threads on one core would wait for each other at every kernel, and never both look busy to the scheduler, which leaves
// them there. So a worker that finds itself where the caller is goes elsewhere, and is free again once it is there.
static atomic_int caller_core = -1;

static void leave_core_of_caller(void) {
  const int core = sched_getcpu();
  if (core < 0 || core >= CPU_SETSIZE || core != atomic_load_explicit(&caller_core, memory_order_relaxed)) return;
  cpu_set_t allowed, others;
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  others = allowed;
  CPU_CLR(core, &others);
  if (CPU_COUNT(&others) > 0 && sched_setaffinity(0, sizeof others, &others) == 0)
    sched_setaffinity(0, sizeof allowed, &allowed);
}

static int run(int task, int tasks) {
  Environment environment = {0, tasks};
  return kernel(task, &environment, data);
}

static void *work(void *argument) {
  const int task = (int)(intptr_t)argument;
  for (unsigned long long seen = seen_first[task];;) {
    seen = next_turn(seen);
    if (atomic_load(&stopping)) return 0;
    const int tasks = (int)(seen & ((1u << TASK_BITS) - 1));
    if (task >= tasks) continue;
    leave_core_of_caller();
    if (run(task, tasks) != 0) atomic_store(&failed, task);
    if (atomic_fetch_sub(&pending, 1) > 1 || atomic_load(&caller_sleeps) == 0) continue;
    pthread_mutex_lock(&mutex);
    pthread_cond_signal(&done);
    pthread_mutex_unlock(&mutex);
  }
}

static void begin_turn(int tasks) {
  const unsigned long long count = (atomic_load(&turn) >> TASK_BITS) + 1;
  atomic_store(&turn, count << TASK_BITS | (unsigned)tasks);
  if (atomic_load(&sleeping) == 0) return;
  pthread_mutex_lock(&mutex);
  pthread_cond_broadcast(&wake);
  pthread_mutex_unlock(&mutex);
}

// Spins first: the others need about as long as this thread did. Then sleeps, because one of them may need this core.
static void wait_for_others(void) {
  const int64_t until = now() + WAIT_NS;
  do {
    for (int i = 0; i < SPINS_A_LOOK; ++i, spin())
      if (atomic_load_explicit(&pending, memory_order_acquire) == 0) return;
  } while (now() < until);
  pthread_mutex_lock(&mutex);
  atomic_store(&caller_sleeps, 1);
  while (atomic_load(&pending) != 0) pthread_cond_wait(&done, &mutex);
  atomic_store(&caller_sleeps, 0);
  pthread_mutex_unlock(&mutex);
}

// How many threads there are for so many tasks.
static int threads_for(int tasks) {
  while (started + 1 < tasks && started + 1 < MOST) {
    const int task = started + 1;
    seen_first[task] = atomic_load(&turn);
    if (pthread_create(&workers[task], 0, work, (void *)(intptr_t)task) != 0) break;
    started = task;
  }
  return tasks < started + 1 ? tasks : started + 1;
}

static int launch(Kernel given, void *given_data, int asked) {
  int tasks = atomic_load(&wanted);
  if (asked > 0 && asked < tasks) tasks = asked;
  // A kernel that another thread has called, or that is called by one, works alone.
  if (tasks > 1 && !atomic_flag_test_and_set_explicit(&busy, memory_order_acquire)) {
    tasks = threads_for(tasks);
    kernel = given, data = given_data;
    atomic_store_explicit(&caller_core, sched_getcpu(), memory_order_relaxed);
    atomic_store(&pending, tasks - 1);
    if (tasks > 1) begin_turn(tasks);
    int status = run(0, tasks);
    wait_for_others();
    // What went wrong is known to the thread that it went wrong in: once more in this one, which is asked.
    const int task = atomic_exchange(&failed, -1);
    if (task > 0 && status == 0) status = run(task, tasks);
    atomic_flag_clear_explicit(&busy, memory_order_release);
    return status;
  }
  Environment alone = {0, 1};
  return given(0, &alone, given_data);
}

__attribute__((visibility("hidden"))) void *__TVMBackendParallelLaunch = (void *)launch;

// A value as TVM's interface passes it (TVMFFIAny).
typedef struct {
  int32_t type;
  uint32_t padding;
  int64_t integer;
} Value;

// A function of the module, "deburr_set_threads": from the next kernel on; the caller's own thread counts.
__attribute__((visibility("default"))) int __tvm_ffi_deburr_set_threads(void *self, const Value *arguments, int32_t count,
                                                                         Value *result) {
  (void)self, (void)count, (void)result;
  const int64_t threads = arguments[0].integer;
  atomic_store(&wanted, threads < 1 ? 1 : threads > MOST ? MOST : (int)threads);
  return 0;
}

// A child of fork has none of the workers.
static void forget_workers(void) {
  started = 0;
  atomic_store(&pending, 0);
  atomic_store(&sleeping, 0);
  atomic_store(&failed, -1);
  atomic_flag_clear(&busy);
  pthread_mutex_init(&mutex, 0);
  pthread_cond_init(&wake, 0);
  pthread_cond_init(&done, 0);
  atomic_store(&caller_sleeps, 0);
}

__attribute__((constructor)) static void begin(void) { pthread_atfork(0, 0, forget_workers); }

// Before the library goes, nobody may run in it.
__attribute__((destructor)) static void end(void) {
  atomic_store(&stopping, 1);
  begin_turn(0);
  for (int task = 1; task <= started; ++task) pthread_join(workers[task], 0);
  started = 0;
}
