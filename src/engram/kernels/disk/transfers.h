// Many positional reads or writes of one file at queue depth: by io_uring, or by a pool of threads where the kernel has none to give.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <new>

// One transfer: where, how many bytes, from or into `data`. Offsets, lengths and addresses are multiples of the sector.
struct Transfer {
    uint64_t offset;
    uint32_t length;
    uint8_t* data;
};

// What a batch of transfers is made of and what becomes of it. Buffers belong to the queue, one for each transfer in flight.
class Batch {
  public:
    virtual ~Batch() = default;
    // Says what transfer `i` is; a batch of writes fills the buffer.
    virtual Transfer begin(int64_t i, uint8_t* buffer) = 0;
    // Transfer `i` is done; a batch of reads takes the bytes from the buffer. Returns 0 or a status that ends the batch.
    virtual int end(int64_t i, const uint8_t* buffer) = 0;
};

class Queue {
  public:
    Queue(unsigned depth, uint32_t buffer_bytes) : depth_(depth), buffer_bytes_(buffer_bytes) {
        const size_t bytes = (static_cast<size_t>(depth) * buffer_bytes + 4095) / 4096 * 4096;
        buffers_ = static_cast<uint8_t*>(std::aligned_alloc(4096, bytes));
        if (!buffers_) throw std::bad_alloc();
    }
    virtual ~Queue() { std::free(buffers_); }
    Queue(const Queue&) = delete;
    Queue& operator=(const Queue&) = delete;

    // Runs `n` transfers of `fd`; returns 0, -errno of the first that failed, or the status that `batch` ended with.
    virtual int run(int fd, bool write, int64_t n, Batch& batch) = 0;
    virtual bool is_ring() const = 0;

  protected:
    uint8_t* buffer(unsigned i) const { return buffers_ + static_cast<size_t>(i) * buffer_bytes_; }
    const unsigned depth_;

  private:
    const uint32_t buffer_bytes_;
    uint8_t* buffers_;
};

// A queue by io_uring; null where the kernel refuses one.
Queue* ring_queue(unsigned depth, uint32_t buffer_bytes);
// A queue of threads, which is there everywhere.
Queue* thread_queue(unsigned depth, uint32_t buffer_bytes);
