// io_uring through its system calls: no library to install.
#include "transfers.h"

#include <cerrno>
#include <cstring>
#include <vector>

#if defined(__linux__) && __has_include(<linux/io_uring.h>)
#include <linux/io_uring.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

namespace {

class Ring final : public Queue {
  public:
    Ring(unsigned depth, uint32_t buffer_bytes) : Queue(depth, buffer_bytes) {
        io_uring_params params{};
        fd_ = static_cast<int>(syscall(SYS_io_uring_setup, depth, &params));
        if (fd_ < 0) return;
        sq_bytes_ = params.sq_off.array + params.sq_entries * sizeof(unsigned);
        cq_bytes_ = params.cq_off.cqes + params.cq_entries * sizeof(io_uring_cqe);
        sqe_bytes_ = params.sq_entries * sizeof(io_uring_sqe);
        sq_ = map(sq_bytes_, IORING_OFF_SQ_RING);
        cq_ = map(cq_bytes_, IORING_OFF_CQ_RING);
        sqe_memory_ = map(sqe_bytes_, IORING_OFF_SQES);
        if (!sq_ || !cq_ || !sqe_memory_) return;
        sq_head_ = at(sq_, params.sq_off.head);
        sq_tail_ = at(sq_, params.sq_off.tail);
        sq_mask_ = *at(sq_, params.sq_off.ring_mask);
        sq_array_ = at(sq_, params.sq_off.array);
        cq_head_ = at(cq_, params.cq_off.head);
        cq_tail_ = at(cq_, params.cq_off.tail);
        cq_mask_ = *at(cq_, params.cq_off.ring_mask);
        cqes_ = reinterpret_cast<io_uring_cqe*>(cq_ + params.cq_off.cqes);
        sqes_ = reinterpret_cast<io_uring_sqe*>(sqe_memory_);
        usable_ = true;
    }

    ~Ring() override {
        if (sqe_memory_) munmap(sqe_memory_, sqe_bytes_);
        if (cq_) munmap(cq_, cq_bytes_);
        if (sq_) munmap(sq_, sq_bytes_);
        if (fd_ >= 0) close(fd_);
    }

    bool usable() const { return usable_; }
    bool is_ring() const override { return true; }

    int run(int fd, bool write, int64_t n, Batch& batch) override {
        std::vector<unsigned> idle(depth_);
        std::vector<int64_t> number(depth_);
        std::vector<Transfer> flying(depth_);
        for (unsigned i = 0; i < depth_; ++i) idle[i] = depth_ - 1 - i;
        int64_t begun = 0;
        unsigned in_flight = 0;
        int status = 0;
        while (in_flight || (!status && begun < n)) {
            while (!status && begun < n && !idle.empty()) {
                const unsigned slot = idle.back();
                idle.pop_back();
                number[slot] = begun;
                flying[slot] = batch.begin(begun++, buffer(slot));
                submit(fd, write, slot, flying[slot]);
                ++in_flight;
            }
            // Half a queue at a time: fewer system calls, while the other half keeps the device busy.
            const unsigned wanted = begun < n && !status ? (in_flight + 1) / 2 : in_flight;
            const int entered = enter(wanted);
            if (entered < 0) return entered;
            unsigned head = *cq_head_;
            while (head != __atomic_load_n(cq_tail_, __ATOMIC_ACQUIRE)) {
                const io_uring_cqe& done = cqes_[head & cq_mask_];
                const unsigned slot = static_cast<unsigned>(done.user_data);
                const int result = done.res;
                ++head;
                --in_flight;
                idle.push_back(slot);
                if (status) continue;
                if (result < 0) status = result;
                else if (static_cast<uint32_t>(result) != flying[slot].length) status = -EIO;  // past the end of the file
                else status = batch.end(number[slot], buffer(slot));
            }
            __atomic_store_n(cq_head_, head, __ATOMIC_RELEASE);
        }
        return status;
    }

  private:
    uint8_t* map(size_t bytes, off_t what) const {
        void* found = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd_, what);
        return found == MAP_FAILED ? nullptr : static_cast<uint8_t*>(found);
    }
    static unsigned* at(uint8_t* ring, unsigned offset) { return reinterpret_cast<unsigned*>(ring + offset); }

    void submit(int fd, bool write, unsigned slot, const Transfer& transfer) {
        const unsigned tail = *sq_tail_;
        const unsigned place = tail & sq_mask_;
        io_uring_sqe& entry = sqes_[place];
        std::memset(&entry, 0, sizeof entry);
        entry.opcode = write ? IORING_OP_WRITE : IORING_OP_READ;
        entry.fd = fd;
        entry.addr = reinterpret_cast<uint64_t>(transfer.data);
        entry.len = transfer.length;
        entry.off = transfer.offset;
        entry.user_data = slot;
        sq_array_[place] = place;
        __atomic_store_n(sq_tail_, tail + 1, __ATOMIC_RELEASE);
    }

    // Hands over what the kernel has not taken yet and waits for `wanted` transfers, or for fewer where a signal comes between.
    int enter(unsigned wanted) const {
        while (true) {
            const unsigned left = *sq_tail_ - __atomic_load_n(sq_head_, __ATOMIC_ACQUIRE);
            const long taken = syscall(SYS_io_uring_enter, fd_, left, wanted, IORING_ENTER_GETEVENTS, nullptr, 0);
            if (taken >= 0) return 0;
            if (errno != EINTR && errno != EAGAIN && errno != EBUSY) return -errno;
        }
    }

    int fd_ = -1;
    bool usable_ = false;
    uint8_t *sq_ = nullptr, *cq_ = nullptr, *sqe_memory_ = nullptr;
    size_t sq_bytes_ = 0, cq_bytes_ = 0, sqe_bytes_ = 0;
    unsigned *sq_head_ = nullptr, *sq_tail_ = nullptr, *sq_array_ = nullptr, *cq_head_ = nullptr, *cq_tail_ = nullptr;
    unsigned sq_mask_ = 0, cq_mask_ = 0;
    io_uring_cqe* cqes_ = nullptr;
    io_uring_sqe* sqes_ = nullptr;
};

}  // namespace

Queue* ring_queue(unsigned depth, uint32_t buffer_bytes) {
    Ring* ring = new Ring(depth, buffer_bytes);
    if (ring->usable()) return ring;
    delete ring;
    return nullptr;
}

#else

Queue* ring_queue(unsigned, uint32_t) { return nullptr; }

#endif
