// Table rows in a file, with the hot ones in RAM: read and written by id, many at a time.
//
// A record is [checksum u32, step u32, payload]. The step is that of the last change; the checksum covers step, payload and row
// number, so that a record at a wrong place is not taken for another. Blocks are multiples of the sector and hold one record each
// where rows are written (so no write has to read first), or as many as fit into a sector where they are only read.
//
// One thread at a time may use a table. The rows of a call are distinct.
#include <algorithm>
#include <cerrno>
#include <cstring>
#include <memory>
#include <unistd.h>

#include "cache.h"
#include "checksum.h"
#include "transfers.h"

namespace {

enum Status { kDamaged = 1, kNewer = 2, kNoRoom = 3 };

constexpr uint32_t kRecordHead = 8;
constexpr uint64_t kStreamBytes = 1 << 20;  // of a transfer where rows are read or written in their order

struct Layout {
    uint64_t start;    // of the first block in the file
    uint32_t payload;  // bytes of a row
    uint32_t sector;
    uint32_t group;  // rows in a block
    uint32_t block;  // bytes
    uint32_t salt;   // of the checksums: another table's records are foreign

    uint32_t record() const { return kRecordHead + payload; }
    uint64_t place(int64_t row) const { return start + static_cast<uint64_t>(row) / group * block; }
    uint32_t inside(int64_t row) const { return static_cast<uint32_t>(static_cast<uint64_t>(row) % group) * record(); }

    uint32_t checksum(int64_t row, uint32_t step, const uint8_t* data) const {
        uint8_t head[12];
        std::memcpy(head, &row, 8);
        std::memcpy(head + 8, &step, 4);
        return crc32c(crc32c(salt, head, sizeof head), data, payload);
    }
    void pack(int64_t row, uint32_t step, const uint8_t* data, uint8_t* record) const {
        const uint32_t sum = checksum(row, step, data);
        std::memcpy(record, &sum, 4);
        std::memcpy(record + 4, &step, 4);
        std::memcpy(record + kRecordHead, data, payload);
    }
    // Whether the record is the row's as it was written; takes its step.
    bool whole(int64_t row, const uint8_t* record, uint32_t* step) const {
        uint32_t sum;
        std::memcpy(&sum, record, 4);
        std::memcpy(step, record + 4, 4);
        return sum == checksum(row, *step, record + kRecordHead);
    }
};

class Table {
  public:
    Table(int fd, int64_t rows, const Layout& layout, uint32_t slots, unsigned depth, bool ring)
        : fd_(fd), rows_(rows), layout_(layout), cache_(slots, layout.payload) {
        if (ring) queue_.reset(ring_queue(depth, layout.block));
        if (!queue_) queue_.reset(thread_queue(depth, layout.block));
    }

    bool is_ring() const { return queue_->is_ring(); }
    int64_t at_fault() const { return at_fault_; }
    // Rows asked for, read from the file, written to it.
    void statistics(int64_t* out) const {
        const int64_t values[] = {asked_, read_, written_};
        std::copy(std::begin(values), std::end(values), out);
    }

    // From here on, a row that was last changed at `base` or before is kept in the journal before it changes.
    void journal(int fd, uint32_t base) {
        journal_fd_ = fd;
        base_ = latest_ = base;
        journal_synced_ = true;
    }

    // Brings rows into RAM: as many as half of the cache holds.
    int prefetch(const int64_t* rows, int64_t n) {
        return admit(rows, std::min<int64_t>(n, most_at_once()), false);
    }

    // Bytes [from, from + length) of each row's payload.
    int fetch(const int64_t* rows, int64_t n, uint32_t from, uint32_t length, bool counted, uint8_t* out) {
        for (int64_t first = 0; first < n; first += most_at_once()) {
            const int64_t count = std::min(n - first, most_at_once());
            if (const int status = admit(rows + first, count, counted)) return status;
            for (int64_t i = first; i < first + count; ++i)
                std::memcpy(out + static_cast<uint64_t>(i) * length, cache_.data(cache_.find(rows[i])) + from, length);
        }
        return 0;
    }

    // New payloads of rows, changed by `step`. They are in RAM then, and in the file when their place is needed or at `flush`.
    int store(const int64_t* rows, int64_t n, const uint8_t* payloads, uint32_t step) {
        for (int64_t first = 0; first < n; first += most_at_once()) {
            const int64_t count = std::min(n - first, most_at_once());
            if (const int status = admit(rows + first, count, false)) return status;
            if (const int status = keep_old(rows + first, count)) return status;
            for (int64_t i = first; i < first + count; ++i) {
                const uint32_t slot = cache_.find(rows[i]);
                std::memcpy(cache_.data(slot), payloads + static_cast<uint64_t>(i) * layout_.payload, layout_.payload);
                cache_.mark(slot, step, true);
            }
        }
        latest_ = std::max(latest_, step);
        return 0;
    }

    // Writes every changed row and waits for the device.
    int flush() {
        std::vector<uint32_t> slots;
        for (uint32_t slot = 0; slot < cache_.used(); ++slot)
            if (cache_.dirty(slot)) slots.push_back(slot);
        if (const int status = write(slots)) return status;
        return fdatasync(fd_) ? -errno : 0;
    }

    // Rows [first, first + n) in their order, past the cache: the start of a table. `first` begins a block.
    int fill(int64_t first, int64_t n, const uint8_t* payloads, uint32_t step) {
        return stream(first, n, true, [&](int64_t row, uint8_t* record) {
            layout_.pack(row, step, payloads + static_cast<uint64_t>(row - first) * layout_.payload, record);
            return 0;
        });
    }

    // The payloads of rows [first, first + n) as they are in the file, past the cache: flush before. `first` begins a block.
    int load(int64_t first, int64_t n, uint8_t* payloads) {
        return stream(first, n, false, [&](int64_t row, uint8_t* record) {
            if (const int status = check(row, record)) return status;
            std::memcpy(payloads + static_cast<uint64_t>(row - first) * layout_.payload, record + kRecordHead, layout_.payload);
            return 0;
        });
    }

    // Puts back every row that the journal at `fd` kept, from `offset` on; an entry that is cut off ends it: its row was not
    // written yet. Returns how many, or -errno.
    int64_t undo(int fd, uint64_t offset) {
        const uint64_t bytes = entry_bytes();
        std::vector<uint8_t> entries(std::max<uint64_t>(1, kStreamBytes / bytes) * bytes);
        int64_t undone = 0;
        while (true) {
            uint64_t there = 0;
            while (there < entries.size()) {
                const ssize_t got = pread(fd, entries.data() + there, entries.size() - there, static_cast<off_t>(offset + there));
                if (got < 0 && errno == EINTR) continue;
                if (got < 0) return -errno;
                if (got == 0) break;
                there += static_cast<uint64_t>(got);
            }
            int64_t whole = 0;
            while ((static_cast<uint64_t>(whole) + 1) * bytes <= there && entry_whole(&entries[whole * bytes])) ++whole;
            if (const int status = put_back(entries.data(), whole)) return status;
            undone += whole;
            offset += static_cast<uint64_t>(whole) * bytes;
            if (static_cast<uint64_t>(whole) * bytes < entries.size()) break;
        }
        return fdatasync(fd_) ? -errno : undone;
    }

  private:
    int64_t most_at_once() const { return std::max<int64_t>(1, cache_.slots() / 2); }
    uint64_t entry_bytes() const { return 8 + layout_.record(); }

    struct Reads final : Batch {
        Reads(Table& table, const std::vector<std::pair<int64_t, uint32_t>>& wanted) : table(table), wanted(wanted) {}
        Transfer begin(int64_t i, uint8_t* buffer) override {
            return {table.layout_.place(wanted[i].first), table.layout_.block, buffer};
        }
        int end(int64_t i, const uint8_t* buffer) override {
            const auto [row, slot] = wanted[i];
            const uint8_t* record = buffer + table.layout_.inside(row);
            if (const int status = table.check(row, record)) return status;
            std::memcpy(table.cache_.data(slot), record + kRecordHead, table.layout_.payload);
            uint32_t step;
            std::memcpy(&step, record + 4, 4);
            table.cache_.mark(slot, step, false);
            return 0;
        }
        Table& table;
        const std::vector<std::pair<int64_t, uint32_t>>& wanted;
    };

    struct Writes final : Batch {
        Writes(Table& table, const std::vector<uint32_t>& slots) : table(table), slots(slots) {}
        Transfer begin(int64_t i, uint8_t* buffer) override {
            const uint32_t slot = slots[i];
            const int64_t row = table.cache_.row(slot);
            table.layout_.pack(row, table.cache_.step(slot), table.cache_.data(slot), buffer);
            std::memset(buffer + table.layout_.record(), 0, table.layout_.block - table.layout_.record());
            return {table.layout_.place(row), table.layout_.block, buffer};
        }
        int end(int64_t i, const uint8_t*) override {
            table.cache_.mark(slots[i], table.cache_.step(slots[i]), false);
            return 0;
        }
        Table& table;
        const std::vector<uint32_t>& slots;
    };

    struct PutBack final : Batch {
        PutBack(Table& table, const uint8_t* entries) : table(table), entries(entries) {}
        Transfer begin(int64_t i, uint8_t* buffer) override {
            const uint8_t* entry = entries + static_cast<uint64_t>(i) * table.entry_bytes();
            int64_t row;
            std::memcpy(&row, entry, 8);
            std::memcpy(buffer, entry + 8, table.layout_.record());
            std::memset(buffer + table.layout_.record(), 0, table.layout_.block - table.layout_.record());
            return {table.layout_.place(row), table.layout_.block, buffer};
        }
        int end(int64_t, const uint8_t*) override { return 0; }
        Table& table;
        const uint8_t* entries;
    };

    int put_back(const uint8_t* entries, int64_t n) {
        PutBack batch(*this, entries);
        return queue_->run(fd_, true, n, batch);
    }

    bool entry_whole(const uint8_t* entry) const {
        int64_t row;
        uint32_t step;
        std::memcpy(&row, entry, 8);
        return row >= 0 && row < rows_ && layout_.whole(row, entry + 8, &step);
    }

    int check(int64_t row, const uint8_t* record) {
        uint32_t step;
        at_fault_ = row;
        if (!layout_.whole(row, record, &step)) return kDamaged;
        return step > latest_ ? kNewer : 0;
    }

    int admit(const int64_t* rows, int64_t n, bool counted) {
        ++call_;
        missing_.clear();
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t slot = cache_.find(rows[i]);
            if (slot == RowCache::kNone) missing_.emplace_back(rows[i], 0);
            else cache_.touch(slot, call_);
        }
        if (counted) asked_ += n;
        if (missing_.empty()) return 0;
        changed_.clear();
        for (auto& one : missing_) {
            one.second = cache_.victim(call_);
            if (one.second == RowCache::kNone) return kNoRoom;
            if (cache_.dirty(one.second)) changed_.push_back(one.second);
        }
        if (const int status = write(changed_)) return status;
        for (const auto& [row, slot] : missing_) cache_.put(slot, row);
        Reads batch(*this, missing_);
        const int status = queue_->run(fd_, false, static_cast<int64_t>(missing_.size()), batch);
        if (status)
            for (const auto& [row, slot] : missing_) cache_.drop(slot);
        else read_ += static_cast<int64_t>(missing_.size());
        return status;
    }

    int write(const std::vector<uint32_t>& slots) {
        if (slots.empty()) return 0;
        if (!journal_synced_) {  // what is overwritten must be on the device elsewhere
            if (fdatasync(journal_fd_)) return -errno;
            journal_synced_ = true;
        }
        Writes batch(*this, slots);
        if (const int status = queue_->run(fd_, true, static_cast<int64_t>(slots.size()), batch)) return status;
        written_ += static_cast<int64_t>(slots.size());
        return 0;
    }

    // Appends the rows that change for the first time since `base_` to the journal.
    int keep_old(const int64_t* rows, int64_t n) {
        if (journal_fd_ < 0) return 0;
        entries_.clear();
        for (int64_t i = 0; i < n; ++i) {
            const uint32_t slot = cache_.find(rows[i]);
            if (cache_.step(slot) > base_) continue;
            const size_t at = entries_.size();
            entries_.resize(at + entry_bytes());
            std::memcpy(&entries_[at], &rows[i], 8);
            layout_.pack(rows[i], cache_.step(slot), cache_.data(slot), &entries_[at + 8]);
        }
        size_t done = 0;
        while (done < entries_.size()) {
            const ssize_t wrote = ::write(journal_fd_, &entries_[done], entries_.size() - done);
            if (wrote < 0 && errno == EINTR) continue;
            if (wrote < 0) return -errno;
            done += static_cast<size_t>(wrote);
        }
        if (done) journal_synced_ = false;
        return 0;
    }

    template <class Each>
    int stream(int64_t first, int64_t n, bool writing, Each each) {
        const uint64_t blocks_at_once = std::max<uint64_t>(1, kStreamBytes / layout_.block);
        const uint64_t bytes = blocks_at_once * layout_.block;
        std::unique_ptr<uint8_t, void (*)(void*)> buffer(static_cast<uint8_t*>(std::aligned_alloc(4096, (bytes + 4095) / 4096 * 4096)), std::free);
        if (!buffer) return -ENOMEM;
        const int64_t rows_at_once = static_cast<int64_t>(blocks_at_once * layout_.group);
        for (int64_t from = first; from < first + n; from += rows_at_once) {
            const int64_t count = std::min(rows_at_once, first + n - from);
            const uint64_t length = (static_cast<uint64_t>(count) + layout_.group - 1) / layout_.group * layout_.block;
            if (writing) std::memset(buffer.get(), 0, length);
            else if (const int status = whole_transfer(false, buffer.get(), length, layout_.place(from))) return status;
            for (int64_t row = from; row < from + count; ++row) {
                const uint64_t block = static_cast<uint64_t>(row - from) / layout_.group * layout_.block;
                if (const int status = each(row, buffer.get() + block + layout_.inside(row))) return status;
            }
            if (writing)
                if (const int status = whole_transfer(true, buffer.get(), length, layout_.place(from))) return status;
        }
        return 0;
    }

    int whole_transfer(bool writing, uint8_t* data, uint64_t length, uint64_t offset) const {
        for (uint64_t done = 0; done < length;) {
            const auto at = static_cast<off_t>(offset + done);
            const ssize_t moved = writing ? pwrite(fd_, data + done, length - done, at) : pread(fd_, data + done, length - done, at);
            if (moved < 0 && errno == EINTR) continue;
            if (moved < 0) return -errno;
            if (moved == 0) return -EIO;
            done += static_cast<uint64_t>(moved);
        }
        return 0;
    }

    const int fd_;
    const int64_t rows_;
    const Layout layout_;
    RowCache cache_;
    std::unique_ptr<Queue> queue_;
    int journal_fd_ = -1;
    bool journal_synced_ = true;
    uint32_t base_ = 0, latest_ = 0, call_ = 0;
    int64_t at_fault_ = -1, asked_ = 0, read_ = 0, written_ = 0;
    std::vector<std::pair<int64_t, uint32_t>> missing_;
    std::vector<uint32_t> changed_;
    std::vector<uint8_t> entries_;
};

Table* table(int64_t handle) { return reinterpret_cast<Table*>(handle); }

}  // namespace

extern "C" {

int64_t engram_rows_slot_overhead() { return RowCache::kSlotOverhead; }

// 0: there is no memory for the cache.
int64_t engram_rows_open(int64_t fd, int64_t rows, int64_t start, int64_t payload, int64_t sector, int64_t group, int64_t block,
                         int64_t salt, int64_t slots, int64_t depth, bool ring) {
    const Layout layout{static_cast<uint64_t>(start),  static_cast<uint32_t>(payload), static_cast<uint32_t>(sector),
                        static_cast<uint32_t>(group), static_cast<uint32_t>(block),   static_cast<uint32_t>(salt)};
    try {
        return reinterpret_cast<int64_t>(
            new Table(static_cast<int>(fd), rows, layout, static_cast<uint32_t>(slots), static_cast<unsigned>(depth), ring));
    } catch (const std::bad_alloc&) {
        return 0;
    }
}
void engram_rows_close(int64_t handle) { delete table(handle); }
int64_t engram_rows_is_ring(int64_t handle) { return table(handle)->is_ring(); }
int64_t engram_rows_at_fault(int64_t handle) { return table(handle)->at_fault(); }
void engram_rows_statistics(int64_t handle, int64_t* out) { table(handle)->statistics(out); }
void engram_rows_journal(int64_t handle, int64_t fd, int64_t base) {
    table(handle)->journal(static_cast<int>(fd), static_cast<uint32_t>(base));
}
int64_t engram_rows_prefetch(int64_t handle, const int64_t* rows, int64_t n) { return table(handle)->prefetch(rows, n); }
int64_t engram_rows_fetch(int64_t handle, const int64_t* rows, int64_t n, int64_t from, int64_t length, bool counted,
                          uint8_t* out) {
    return table(handle)->fetch(rows, n, static_cast<uint32_t>(from), static_cast<uint32_t>(length), counted, out);
}
int64_t engram_rows_store(int64_t handle, const int64_t* rows, int64_t n, const uint8_t* payloads, int64_t step) {
    return table(handle)->store(rows, n, payloads, static_cast<uint32_t>(step));
}
int64_t engram_rows_flush(int64_t handle) { return table(handle)->flush(); }
int64_t engram_rows_fill(int64_t handle, int64_t first, int64_t n, const uint8_t* payloads, int64_t step) {
    return table(handle)->fill(first, n, payloads, static_cast<uint32_t>(step));
}
int64_t engram_rows_load(int64_t handle, int64_t first, int64_t n, uint8_t* payloads) { return table(handle)->load(first, n, payloads); }
int64_t engram_rows_undo(int64_t handle, int64_t fd, int64_t offset) { return table(handle)->undo(static_cast<int>(fd), static_cast<uint64_t>(offset)); }
}
