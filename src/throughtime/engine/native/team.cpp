#include "team.hpp"

#include <dlfcn.h>
#include <link.h>
#include <pthread.h>
#include <sched.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <climits>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <new>
#include <thread>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace throughtime {
namespace {

void pause() {
#if defined(__x86_64__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

// A thread that yields instead of sleeping keeps its processor from the one it waits for, by whole slices of time.
#if defined(__linux__)
void sleep_while(int* value, int seen) { syscall(SYS_futex, value, FUTEX_WAIT_PRIVATE, seen, nullptr, nullptr, 0); }
void wake_all(int* value) { syscall(SYS_futex, value, FUTEX_WAKE_PRIVATE, INT_MAX, nullptr, nullptr, 0); }
#else
void sleep_while(int*, int) { sched_yield(); }
void wake_all(int*) {}
#endif

// Numbers below 1.2e-38 take a hundred times as long and change nothing that matters: they count as 0.
class FlushDenormals {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();

 public:
    FlushDenormals() { _mm_setcsr(before | 0x8040); }
    ~FlushDenormals() { _mm_setcsr(before); }
#elif defined(__aarch64__)
    unsigned long before;

 public:
    FlushDenormals() {
        asm volatile("mrs %0, fpcr" : "=r"(before));
        asm volatile("msr fpcr, %0" ::"r"(before | (1ul << 24)));
    }
    ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(before)); }
#endif
};

struct Job {
    void (*work)(void*, int, int);
    void* data;
    int processor = -1;  // where the one who gave it runs
};

#if defined(__linux__)
int this_processor() { return sched_getcpu(); }

// A thread that is woken may find itself on the processor of the one who woke it, who spins and waits for it there. It
// leaves for the others that it may use.
void leave(int processor) {
    cpu_set_t allowed;
    if (processor < 0 || sched_getcpu() != processor) return;
    if (sched_getaffinity(getpid(), sizeof allowed, &allowed) != 0) return;  // the first thread's: what the process has
    CPU_CLR(processor, &allowed);
    if (CPU_COUNT(&allowed) > 0) sched_setaffinity(0, sizeof allowed, &allowed);
}
#else
int this_processor() { return -1; }
void leave(int) {}
#endif

void run_share(const Job& job, int thread, int threads) {
    FlushDenormals flush;
    job.work(job.data, thread, threads);
}

// Whether this process came from a fork, which leaves it the pools' memory but none of their threads.
bool forked = false;

// PyTorch brings an OpenMP library of its own, whose threads spin for milliseconds after each use. A second pool beside
// it would share its cores with them, so the engine borrows that library's threads where it is loaded.
struct OpenMP {
    void (*parallel)(void (*)(void*), void*, unsigned, unsigned) = nullptr;
    int (*thread)() = nullptr;
    int (*threads)() = nullptr;

    // Libraries can be loaded at any time: the search is made again when there are new ones.
    static OpenMP get() {
        if (forked) return {};  // it would wait for threads that stayed in the parent
        struct Search {
            OpenMP found;
            unsigned long long loaded = 0;
        };
        static Search last;
        static std::mutex mutex;
        std::lock_guard lock(mutex);
        if (last.found.usable()) return last.found;
        dl_iterate_phdr(
            [](dl_phdr_info* info, size_t, void* out) {
                Search& search = *static_cast<Search*>(out);
                if (search.loaded == info->dlpi_adds) return 1;
                const char* name = strrchr(info->dlpi_name, '/');
                if (!name || strncmp(name, "/libgomp", 8) != 0) return 0;
                void* library = dlopen(info->dlpi_name, RTLD_LAZY | RTLD_NOLOAD);
                if (!library) return 0;
                OpenMP& gomp = search.found;
                gomp.parallel = reinterpret_cast<decltype(gomp.parallel)>(dlsym(library, "GOMP_parallel"));
                gomp.thread = reinterpret_cast<decltype(gomp.thread)>(dlsym(library, "omp_get_thread_num"));
                gomp.threads = reinterpret_cast<decltype(gomp.threads)>(dlsym(library, "omp_get_num_threads"));
                return gomp.usable() ? 1 : 0;
            },
            &last);
        dl_iterate_phdr(
            [](dl_phdr_info* info, size_t, void* out) {
                static_cast<Search*>(out)->loaded = info->dlpi_adds;
                return 1;
            },
            &last);
        return last.found;
    }

    bool usable() const { return parallel && thread && threads; }
};

// The engine's own threads, for a process without OpenMP. They sleep between jobs after a short spin.
class Pool {
    std::mutex entry;  // one job at a time; a second caller works alone
    std::mutex mutex;
    std::condition_variable wake;
    std::vector<std::thread> workers;
    Job job{};
    int team = 0;
    long issued = 0;
    int running = 0;
    bool stopping = false;

    void serve(int thread) {
        long seen = 0;
        for (;;) {
            Job mine;
            int threads;
            for (int spin = 0; spin < 2000 && __atomic_load_n(&issued, __ATOMIC_ACQUIRE) == seen; spin++) pause();
            {
                std::unique_lock lock(mutex);
                wake.wait(lock, [&] { return stopping || issued != seen; });
                if (stopping) return;
                seen = issued;
                mine = job;
                threads = team;
            }
            if (thread < threads) {
                leave(mine.processor);
                run_share(mine, thread, threads);
                __atomic_fetch_sub(&running, 1, __ATOMIC_RELEASE);
            }
        }
    }

 public:
    bool run(const Job& next, int threads) {
        std::unique_lock guard(entry, std::try_to_lock);
        if (!guard.owns_lock() || stopping) return false;
        {
            std::lock_guard lock(mutex);
            while ((int)workers.size() < threads - 1) {
                const int thread = (int)workers.size() + 1;
                workers.emplace_back([this, thread] { serve(thread); });
            }
            job = next;
            team = threads;
            running = threads - 1;
            __atomic_store_n(&issued, issued + 1, __ATOMIC_RELEASE);
        }
        wake.notify_all();
        run_share(next, 0, threads);
        for (int spin = 0; __atomic_load_n(&running, __ATOMIC_ACQUIRE); spin++)
            spin < 2000 ? pause() : (void)sched_yield();
        return true;
    }

    // Ends the threads, unless somebody else works with them: then the process ends them.
    void stop() {
        std::unique_lock guard(entry, std::try_to_lock);
        if (!guard.owns_lock()) return;
        {
            std::lock_guard lock(mutex);
            stopping = true;
        }
        wake.notify_all();
        for (auto& worker : workers) worker.join();
        workers.clear();
    }
};

// Never destroyed: other threads may still be at work when the process ends.
Pool& pool = *new Pool;
const struct AtExit {
    ~AtExit() { pool.stop(); }
} at_exit;

// In the child of a fork a new pool takes the old one's place: nobody could join its threads, or unlock its mutexes.
const int watched = pthread_atfork(nullptr, nullptr, [] {
    forked = true;
    new (&pool) Pool;
});

}  // namespace

const char* thread_source() { return OpenMP::get().usable() ? "openmp" : "own"; }

void in_parallel(int threads, void (*work)(void*, int, int), void* data) {
    const Job job{work, data, this_processor()};
    if (threads > 1) {
        struct Shared {
            Job job;
            OpenMP gomp;
        } shared{job, OpenMP::get()};
        if (shared.gomp.usable()) {
            shared.gomp.parallel(
                [](void* data) {
                    const Shared& shared = *static_cast<const Shared*>(data);
                    run_share(shared.job, shared.gomp.thread(), shared.gomp.threads());
                },
                &shared, (unsigned)threads, 0);
            return;
        }
        if (pool.run(job, threads)) return;
    }
    run_share(job, 0, 1);
}

void wait(Barrier& barrier, int members) {
    if (members < 2) return;
    const int round = __atomic_load_n(&barrier.round, __ATOMIC_RELAXED);
    if (__atomic_add_fetch(&barrier.arrived, 1, __ATOMIC_ACQ_REL) == members) {
        __atomic_store_n(&barrier.arrived, 0, __ATOMIC_RELAXED);
        __atomic_store_n(&barrier.round, round + 1, __ATOMIC_SEQ_CST);
        if (__atomic_load_n(&barrier.sleepers, __ATOMIC_SEQ_CST)) wake_all(&barrier.round);
        return;
    }
    const auto over = [&] { return __atomic_load_n(&barrier.round, __ATOMIC_ACQUIRE) != round; };
    for (int spin = 0; spin < 4000; spin++, pause())
        if (over()) return;
    __atomic_fetch_add(&barrier.sleepers, 1, __ATOMIC_SEQ_CST);
    while (!over()) sleep_while(&barrier.round, round);
    __atomic_fetch_sub(&barrier.sleepers, 1, __ATOMIC_RELAXED);
}

}  // namespace throughtime
