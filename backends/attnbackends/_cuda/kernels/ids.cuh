// An id, or 0 for one that is none or that does not count. One that is none is written into the host's memory at
// `report`, below the number of the check that found it; `ids.py` reads it.
#define REPORTED_BITS 40

__device__ inline long long within(long long id, long long size, bool skips, long long ignore, long long check,
                                   unsigned long long report) {
    if (skips && id == ignore) return 0;
    if (id >= 0 && id < size) return id;
    const long long most = (1LL << (REPORTED_BITS - 1)) - 1;
    *(volatile long long *)report = check * (1LL << REPORTED_BITS) + (id < -most ? -most : id > most ? most : id);
    return 0;
}
