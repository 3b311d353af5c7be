/* What the C library's malloc answers to a list of calls, in a process that asks it for nothing else.

   On stdin: triples of int64 (what, number, bytes): 0 malloc, 1 calloc, 2 memalign 64, 3 realloc, 4 free the block of that number.
   A block of 24 bytes is asked for first. On stdout: for each call the address handed out less the heap's start (0 for a release), then
   where the data segment ends.
   Compile: cc -O1 -fno-builtin replay.c -o replay -lpthread; with an argument all calls come from a second thread, whose heap's start
   is what addresses are less of. */
#define _GNU_SOURCE
#include <malloc.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MOST = 1 << 19 };
static int64_t calls[MOST][3], answers[MOST + 1];
static void *blocks[MOST];
static int64_t count;

static void *work(void *start) {
    void *first = malloc(24);
    if (!start) start = (void *)((uintptr_t)first & ~(uintptr_t)((64 << 20) - 1));
    for (int64_t i = 0; i < count; i++) {
        int64_t number = calls[i][1], bytes = calls[i][2];
        switch (calls[i][0]) {
            case 0: blocks[number] = malloc(bytes); break;
            case 1: blocks[number] = calloc(1, bytes); break;
            case 2: if (posix_memalign(&blocks[number], 64, bytes)) _exit(1); break;
            case 3: blocks[number] = realloc(blocks[number], bytes); break;
            default: free(blocks[number]); blocks[number] = NULL;
        }
        answers[i] = blocks[number] ? (char *)blocks[number] - (char *)start : 0;
    }
    answers[count] = (char *)sbrk(0) - (char *)start;
    return NULL;
}

int main(int argc, char **argv) {
    (void)argv;
    ssize_t got, all = 0;
    while ((got = read(0, (char *)calls + all, sizeof calls - all)) > 0) all += got;
    count = all / (ssize_t)sizeof calls[0];
    if (argc > 1) {
        pthread_t thread;
        pthread_create(&thread, NULL, work, NULL);
        pthread_join(thread, NULL);
    } else {
        work(sbrk(0));
    }
    all = 0;
    while (all < (count + 1) * 8 && (got = write(1, (char *)answers + all, (count + 1) * 8 - all)) > 0) all += got;
    return 0;
}
