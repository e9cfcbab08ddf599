// A pool of threads, each with one transfer at a time.
#include "transfers.h"

#include <atomic>
#include <cerrno>
#include <mutex>
#include <thread>
#include <unistd.h>
#include <vector>

namespace {

constexpr unsigned kMostThreads = 16;

class Threads final : public Queue {
  public:
    Threads(unsigned depth, uint32_t buffer_bytes) : Queue(depth < kMostThreads ? depth : kMostThreads, buffer_bytes) {}
    bool is_ring() const override { return false; }

    int run(int fd, bool write, int64_t n, Batch& batch) override {
        std::atomic<int64_t> next{0};
        std::atomic<int> status{0};
        std::mutex mutex;  // a batch is not made for several threads
        auto work = [&](unsigned mine) {
            while (!status) {
                const int64_t i = next++;
                if (i >= n) return;
                Transfer transfer;
                {
                    const std::lock_guard<std::mutex> lock(mutex);
                    transfer = batch.begin(i, buffer(mine));
                }
                int found = move(fd, write, transfer);
                if (!found) {
                    const std::lock_guard<std::mutex> lock(mutex);
                    found = batch.end(i, buffer(mine));
                }
                if (found) status = found;
            }
        };
        const unsigned wanted = n < depth_ ? static_cast<unsigned>(n) : depth_;
        std::vector<std::thread> others;
        for (unsigned i = 1; i < wanted; ++i) others.emplace_back(work, i);
        if (wanted) work(0);
        for (auto& one : others) one.join();
        return status;
    }

  private:
    static int move(int fd, bool write, const Transfer& transfer) {
        uint32_t done = 0;
        while (done < transfer.length) {
            const auto offset = static_cast<off_t>(transfer.offset + done);
            const ssize_t moved = write ? pwrite(fd, transfer.data + done, transfer.length - done, offset)
                                        : pread(fd, transfer.data + done, transfer.length - done, offset);
            if (moved < 0 && errno == EINTR) continue;
            if (moved < 0) return -errno;
            if (moved == 0) return -EIO;  // past the end of the file
            done += static_cast<uint32_t>(moved);
        }
        return 0;
    }
};

}  // namespace

Queue* thread_queue(unsigned depth, uint32_t buffer_bytes) { return new Threads(depth, buffer_bytes); }
