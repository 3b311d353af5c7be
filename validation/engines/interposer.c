/* What a process asks the C library's allocator for, in order: preloaded (LD_PRELOAD), switched on and off from Python by ctypes.

   heap_start() forgets and begins to record (at once where MEMEST_HEAP is set), heap_stop() ends it, heap_count() says how many records there are and heap_records() where
   they are; heap_in_use() is what malloc has handed out and not taken back since the process began, by the sizes that were asked for.
   Compile: cc -O2 -shared -fPIC interposer.c -o interposer.so -ldl -lpthread */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

typedef struct {
    int64_t size;     /* bytes asked for; -1: given back; -2: given back to realloc, whose answer is the next record of its thread */
    uint64_t address;
    int32_t aligned;  /* the alignment asked of posix_memalign, memalign or aligned_alloc; 0: of none of them */
    int16_t thread;
    int16_t kind;     /* 0: malloc and the like; 1: calloc; 2: asked for from inside heap_callers' range */
} Record;

enum { MOST = 1 << 22, BOOT = 1 << 16 };
static Record *records;
static int64_t count, in_use, most_in_use;
static volatile int recording;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static __thread int16_t me;
static int16_t threads;
static uint64_t callers_begin, callers_end;
static char boot[BOOT];
static size_t booted;

static void *(*real_malloc)(size_t);
static void *(*real_calloc)(size_t, size_t);
static void *(*real_realloc)(void *, size_t);
static void (*real_free)(void *);
static int (*real_posix_memalign)(void **, size_t, size_t);
static void *(*real_memalign)(size_t, size_t);
static void *(*real_aligned_alloc)(size_t, size_t);

static void resolve(void) {
    real_calloc = dlsym(RTLD_NEXT, "calloc");
    real_malloc = dlsym(RTLD_NEXT, "malloc");
    real_realloc = dlsym(RTLD_NEXT, "realloc");
    real_free = dlsym(RTLD_NEXT, "free");
    real_posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
    real_memalign = dlsym(RTLD_NEXT, "memalign");
    real_aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
}

static void note(void *p, int64_t size, int aligned, int kind) {
    if (p == NULL) return;
    int64_t usable = (int64_t)malloc_usable_size(p);
    pthread_mutex_lock(&lock);
    in_use += size < 0 ? -usable : usable;
    if (in_use > most_in_use) most_in_use = in_use;
    if (recording && count < MOST) {
        if (me == 0) me = ++threads;
        records[count++] = (Record){size, (uint64_t)p, aligned, me, kind};
    }
    pthread_mutex_unlock(&lock);
}

#define CALLED() ((uint64_t)__builtin_return_address(0) - callers_begin < callers_end - callers_begin ? 2 : 0)

void *malloc(size_t n) {
    if (!real_malloc) resolve();
    void *p = real_malloc(n);
    note(p, (int64_t)n, 0, 0);
    return p;
}

void *calloc(size_t k, size_t n) {
    if (!real_calloc) {  /* dlsym itself asks for memory */
        void *p = boot + booted;
        booted += (k * n + 15) & ~(size_t)15;
        return booted <= BOOT ? p : NULL;
    }
    void *p = real_calloc(k, n);
    note(p, (int64_t)(k * n), 0, 1);
    return p;
}

void free(void *p) {
    if (p == NULL || ((char *)p >= boot && (char *)p < boot + BOOT)) return;
    if (!real_free) resolve();
    note(p, -1, 0, 0);
    real_free(p);
}

void *realloc(void *old, size_t n) {
    if (!real_realloc) resolve();
    if ((char *)old >= boot && (char *)old < boot + BOOT) {
        void *p = malloc(n);
        if (p) memcpy(p, old, n);
        return p;
    }
    if (old) note(old, -2, 0, 0);
    void *p = real_realloc(old, n);
    note(p, (int64_t)n, 0, 0);
    return p;
}

int posix_memalign(void **out, size_t alignment, size_t n) {
    if (!real_posix_memalign) resolve();
    int rc = real_posix_memalign(out, alignment, n);
    if (rc == 0) note(*out, (int64_t)n, (int)alignment, CALLED());
    return rc;
}

void *memalign(size_t alignment, size_t n) {
    if (!real_memalign) resolve();
    void *p = real_memalign(alignment, n);
    note(p, (int64_t)n, (int)alignment, CALLED());
    return p;
}

void *aligned_alloc(size_t alignment, size_t n) {
    if (!real_aligned_alloc) resolve();
    void *p = real_aligned_alloc(alignment, n);
    note(p, (int64_t)n, (int)alignment, CALLED());
    return p;
}

void heap_start(void) {
    if (!records) records = mmap(NULL, sizeof(Record) * MOST, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    pthread_mutex_lock(&lock);
    count = 0;
    most_in_use = in_use;
    recording = 1;
    pthread_mutex_unlock(&lock);
}

__attribute__((constructor)) static void begin(void) { if (getenv("MEMEST_HEAP")) heap_start(); }
void heap_callers(uint64_t begin, uint64_t end) { callers_begin = begin; callers_end = end; }
void heap_stop(void) { recording = 0; }
int64_t heap_count(void) { return count; }
const Record *heap_records(void) { return records; }
int64_t heap_in_use(void) { return in_use; }
int64_t heap_most(void) { return most_in_use; }
