// Random numbers by Philox4x64-10 (Salmon et al., "Parallel Random Numbers: As Easy as 1, 2, 3", 2011), in the order
// and with the bits of NumPy's; `_random.py` says which number stands where.

typedef unsigned long long Word;

// The four words that come after `count`, which NumPy adds 1 to before it draws.
__device__ inline void philox(Word count, Word key0, Word key1, Word *words) {
    Word a = count + 1, b = 0, c = 0, d = 0;
    for (int i = 0; i < 10; i++) {
        const Word low = 0xD2E7470EE14C6C93ULL * a, high = __umul64hi(0xD2E7470EE14C6C93ULL, a);
        const Word low2 = 0xCA5A826395121157ULL * c, high2 = __umul64hi(0xCA5A826395121157ULL, c);
        a = high2 ^ b ^ key0, b = low2, c = high ^ d ^ key1, d = low;
        key0 += 0x9E3779B97F4A7C15ULL, key1 += 0xBB67AE8584CAA73BULL;
    }
    words[0] = a, words[1] = b, words[2] = c, words[3] = d;
}

// The numbers of one stream, for entries of R rows with `panels` panels of `width` keys each.
struct Stream {
    Word key0, key1;
    long long R, panels;
    int width;

    // For rows of T keys, as `panel` of `_random.py` cuts them.
    __device__ static Stream of(long long key0, long long key1, long long R, int T) {
        const int width = T < 64 ? (T + 7) / 8 * 8 : 64;
        return {(Word)key0, (Word)key1, R, (T + width - 1) / width, width};
    }
    // The eight numbers of keys t ... t + 7 of a row, t a multiple of eight.
    __device__ void draw(long long entry, long long row, long long t, float *numbers) const {
        Word words[4];
        philox((((entry * panels + t / width) * R + row) * width + t % width) / 8, key0, key1, words);
        for (int i = 0; i < 8; i++)
            numbers[i] = ((unsigned int)(words[i / 2] >> 32 * (i % 2)) >> 8) * (1.0f / 16777216);
    }
};
