// Rows in RAM by their id: bounded, least wanted out first.
#pragma once

#include <cstdint>
#include <vector>

class RowCache {
  public:
    static constexpr uint32_t kNone = UINT32_MAX;
    // Bytes that a slot takes beside its row: id, marks, and two buckets of the index.
    static constexpr uint64_t kSlotOverhead = sizeof(int64_t) + sizeof(uint32_t) * 2 + 2 + 2 * sizeof(uint32_t) * 2;

    RowCache(uint32_t slots, uint32_t payload) : payload_(payload), rows_(slots, -1), steps_(slots), calls_(slots), wanted_(slots), dirty_(slots) {
        uint64_t buckets = 16;
        while (buckets < 2ull * slots) buckets *= 2;
        index_.assign(buckets, kNone);
        mask_ = buckets - 1;
        data_.resize(static_cast<size_t>(slots) * payload);
    }

    uint32_t slots() const { return static_cast<uint32_t>(rows_.size()); }
    uint32_t used() const { return used_; }
    uint8_t* data(uint32_t slot) { return data_.data() + static_cast<size_t>(slot) * payload_; }
    int64_t row(uint32_t slot) const { return rows_[slot]; }
    bool dirty(uint32_t slot) const { return dirty_[slot]; }
    // Step that last changed the row.
    uint32_t step(uint32_t slot) const { return steps_[slot]; }

    uint32_t find(int64_t row) const {
        for (uint64_t i = bucket(row);; i = (i + 1) & mask_) {
            const uint32_t slot = index_[i];
            if (slot == kNone || rows_[slot] == row) return slot;
        }
    }

    // The row was asked for by call `call`; it stays until that call is over.
    void touch(uint32_t slot, uint32_t call) {
        calls_[slot] = call;
        if (wanted_[slot] < kMostWanted) ++wanted_[slot];
    }

    // A slot to fill: an empty one, or the next that nobody has wanted lately and that `call` does not use. kNone: there is none.
    uint32_t victim(uint32_t call) {
        if (used_ < slots()) {
            calls_[used_] = call;
            return used_++;
        }
        for (uint64_t tried = 0; tried < static_cast<uint64_t>(slots()) * (kMostWanted + 1); ++tried) {
            const uint32_t slot = hand_;
            hand_ = hand_ + 1 == slots() ? 0 : hand_ + 1;
            if (calls_[slot] == call) continue;
            if (!wanted_[slot]) {
                calls_[slot] = call;  // not a second time by the same call
                return slot;
            }
            --wanted_[slot];
        }
        return kNone;
    }

    void put(uint32_t slot, int64_t row) {
        if (rows_[slot] >= 0) erase(rows_[slot]);
        rows_[slot] = row;
        wanted_[slot] = 0;  // wanted once is wanted by nobody: most rows of a text are never read again
        dirty_[slot] = false;
        uint64_t i = bucket(row);
        while (index_[i] != kNone) i = (i + 1) & mask_;
        index_[i] = slot;
    }

    // Empties a slot whose row could not be read: it must not be found.
    void drop(uint32_t slot) {
        if (rows_[slot] >= 0) erase(rows_[slot]);
        rows_[slot] = -1;
        dirty_[slot] = false;
        wanted_[slot] = 0;
        calls_[slot] = 0;
    }

    void mark(uint32_t slot, uint32_t step, bool dirty) {
        steps_[slot] = step;
        dirty_[slot] = dirty;
    }

  private:
    static constexpr uint8_t kMostWanted = 3;

    uint64_t bucket(int64_t row) const { return (static_cast<uint64_t>(row) * 0x9E3779B97F4A7C15ull >> 20) & mask_; }

    void erase(int64_t row) {
        uint64_t i = bucket(row);
        while (rows_[index_[i]] != row) i = (i + 1) & mask_;
        uint64_t hole = i;
        for (uint64_t j = (i + 1) & mask_; index_[j] != kNone; j = (j + 1) & mask_) {
            const uint64_t home = bucket(rows_[index_[j]]);
            // An entry may move back to the hole if its home does not lie between the two.
            if (((j - home) & mask_) >= ((j - hole) & mask_)) {
                index_[hole] = index_[j];
                hole = j;
            }
        }
        index_[hole] = kNone;
    }

    const uint32_t payload_;
    uint32_t used_ = 0, hand_ = 0;
    uint64_t mask_ = 0;
    std::vector<int64_t> rows_;
    std::vector<uint32_t> steps_, calls_;
    std::vector<uint8_t> wanted_;
    std::vector<uint8_t> dirty_;
    std::vector<uint32_t> index_;
    std::vector<uint8_t> data_;
};
