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

// out (B, r, K): rows first_row ... of R, keys first_key ... in `panels` panels of `width` keys, of entries first_entry
// ...; a thread makes the numbers of eight keys of a row.
extern "C" __global__ void uniform(REAL *out, long long key0, long long key1, int B, int r, int K, int first_entry,
                                   int first_row, long long first_key, int R, long long panels, int width) {
    const long long first = first_key / 8, each = (first_key + K + 7) / 8 - first;
    const long long at = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (at >= B * (r * each)) return;
    const long long row = at / each, t = (first + at % each) * 8;
    const long long number = ((first_entry + row / r) * panels + t / width) * R + first_row + row % r;
    Word words[4];
    philox((number * width + t % width) / 8, key0, key1, words);
    for (int i = 0; i < 8; i++) {
        const unsigned int bits = (unsigned int)(words[i / 2] >> 32 * (i % 2));
        if (t + i >= first_key && t + i < first_key + K) out[row * K + t + i - first_key] = (bits >> 8) * (REAL(1) / 16777216);
    }
}
