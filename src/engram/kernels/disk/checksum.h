// CRC-32C (Castagnoli), by the processor's instruction where it has one.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>

#ifdef __SSE4_2__
#include <nmmintrin.h>
#endif

inline uint32_t crc32c(uint32_t crc, const uint8_t* data, size_t bytes) {
    crc = ~crc;
#ifdef __SSE4_2__
    uint64_t wide = crc;
    for (; bytes >= 8; bytes -= 8, data += 8) {
        uint64_t word;
        std::memcpy(&word, data, 8);
        wide = _mm_crc32_u64(wide, word);
    }
    crc = static_cast<uint32_t>(wide);
    for (; bytes; --bytes) crc = _mm_crc32_u8(crc, *data++);
#else
    static const auto table = [] {
        std::array<uint32_t, 256> made{};
        for (uint32_t i = 0; i < 256; ++i) {
            uint32_t value = i;
            for (int bit = 0; bit < 8; ++bit) value = value & 1 ? value >> 1 ^ 0x82F63B78u : value >> 1;
            made[i] = value;
        }
        return made;
    }();
    for (; bytes; --bytes) crc = table[(crc ^ *data++) & 255] ^ crc >> 8;
#endif
    return ~crc;
}
