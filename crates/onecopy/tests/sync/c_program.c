/* Shares a mutex, a condition variable, a read-write lock and a barrier with the test that compiled it, by their offsets.
 * usage: c_program SHARED-MEMORY create|join|die */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { SEMAPHORE = 1, FUTEX, MUTEX, CONDVAR, BARRIER, RWLOCK };
enum { MUTEX_AT = 0, CONDVAR_AT = 512, RWLOCK_AT = 1024, BARRIER_AT = 1536, LEN = 4096, ROUNDS = 300, OURS = 1 };

struct onecopy_object {              /* at a multiple of 64 bytes */
    char     magic[8];               /*   0  "1copysyn" */
    uint32_t version;                /*   8  1 */
    uint32_t kind;                   /*  12  1 semaphore, 2 futex, 3 mutex, 4 condvar, 5 barrier, 6 rwlock */
    _Atomic uint64_t state;          /*  16  0 nothing yet, 1 << 63 ready, else whoever creates it */
    uint64_t total_bytes;            /*  24  192 + payload_bytes */
    uint32_t object_offset;          /*  32  128 */
    uint32_t object_bytes;           /*  36  sizeof(pthread_mutex_t) and so on; a futex word has 4 */
    uint32_t payload_offset;         /*  40  192 */
    uint32_t payload_align;          /*  44  1 without a payload */
    uint64_t payload_bytes;          /*  48  0 without a payload */
    char     c_library[8];           /*  56  "glibc" or "musl" */
    uint64_t pid_namespace;          /*  64  st_ino of /proc/self/ns/pid */
    char     boot_id[36];            /*  72  /proc/sys/kernel/random/boot_id */
    uint32_t detail;                 /* 108  parties of a barrier; 1 for a mutex with priority inheritance; else 0 */
    char     reserved[16];           /* 112  zeros */
    union {                          /* 128  all PTHREAD_PROCESS_SHARED */
        sem_t              semaphore;
        uint32_t           futex;
        pthread_mutex_t    mutex;    /*      PTHREAD_MUTEX_ROBUST, PTHREAD_MUTEX_ERRORCHECK */
        pthread_cond_t     condvar;  /*      CLOCK_MONOTONIC */
        pthread_barrier_t  barrier;
        pthread_rwlock_t   rwlock;   /*      glibc: PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP */
        char               room[64];
    };
    char payload[];                  /* 192 */
};

#define READY (UINT64_C(1) << 63)
#define MUST(call) do { int code_ = (call); if (code_) fail(#call, code_); } while (0)

static void fail(const char *call, int code) {
    fprintf(stderr, "%s: %s\n", call, strerror(code));
    exit(1);
}

static struct onecopy_object *at(char *memory, int offset) {
    return (struct onecopy_object *)(memory + offset);
}

static void check(struct onecopy_object *object, uint32_t kind) {
    if (memcmp(object->magic, "1copysyn", 8) || object->version != 1 || object->kind != kind
        || atomic_load(&object->state) != READY || object->object_offset != 128 || object->payload_offset != 192)
        fail("the header", EPROTO);
}

static void publish(struct onecopy_object *object, uint32_t kind, uint32_t bytes, uint32_t payload, uint32_t align, uint32_t detail) {
    struct stat namespace;
    int id = open("/proc/sys/kernel/random/boot_id", O_RDONLY);
    if (id < 0 || read(id, object->boot_id, 36) != 36 || stat("/proc/self/ns/pid", &namespace)) fail("/proc", errno);
    close(id);
    memcpy(object->magic, "1copysyn", 8);
    object->version = 1;
    object->kind = kind;
    object->total_bytes = 192 + payload;
    object->object_offset = 128;
    object->object_bytes = bytes;
    object->payload_offset = 192;
    object->payload_align = align;
    object->payload_bytes = payload;
#ifdef __GLIBC__
    memcpy(object->c_library, "glibc", 5);
#else
    memcpy(object->c_library, "musl", 4);
#endif
    object->pid_namespace = namespace.st_ino;
    object->detail = detail;
    atomic_store(&object->state, READY);
}

static void create(char *memory) {
    pthread_mutexattr_t mutex;
    MUST(pthread_mutexattr_init(&mutex));
    MUST(pthread_mutexattr_setpshared(&mutex, PTHREAD_PROCESS_SHARED));
    MUST(pthread_mutexattr_setrobust(&mutex, PTHREAD_MUTEX_ROBUST));
    MUST(pthread_mutexattr_settype(&mutex, PTHREAD_MUTEX_ERRORCHECK));
    MUST(pthread_mutex_init(&at(memory, MUTEX_AT)->mutex, &mutex));
    pthread_condattr_t condvar;
    MUST(pthread_condattr_init(&condvar));
    MUST(pthread_condattr_setpshared(&condvar, PTHREAD_PROCESS_SHARED));
    MUST(pthread_condattr_setclock(&condvar, CLOCK_MONOTONIC));
    MUST(pthread_cond_init(&at(memory, CONDVAR_AT)->condvar, &condvar));
    pthread_rwlockattr_t rwlock;
    MUST(pthread_rwlockattr_init(&rwlock));
    MUST(pthread_rwlockattr_setpshared(&rwlock, PTHREAD_PROCESS_SHARED));
    MUST(pthread_rwlock_init(&at(memory, RWLOCK_AT)->rwlock, &rwlock));
    pthread_barrierattr_t barrier;
    MUST(pthread_barrierattr_init(&barrier));
    MUST(pthread_barrierattr_setpshared(&barrier, PTHREAD_PROCESS_SHARED));
    MUST(pthread_barrier_init(&at(memory, BARRIER_AT)->barrier, &barrier, 2));
    publish(at(memory, MUTEX_AT), MUTEX, sizeof(pthread_mutex_t), 24, 8, 0);
    publish(at(memory, CONDVAR_AT), CONDVAR, sizeof(pthread_cond_t), 0, 1, 0);
    publish(at(memory, RWLOCK_AT), RWLOCK, sizeof(pthread_rwlock_t), 16, 8, 0);
    publish(at(memory, BARRIER_AT), BARRIER, sizeof(pthread_barrier_t), 0, 1, 2);
}

/* What the Rust side does as number 0: turns by the condition variable, additions by the other two. */
static void work(char *memory) {
    pthread_mutex_t *mutex = &at(memory, MUTEX_AT)->mutex;
    pthread_cond_t *condvar = &at(memory, CONDVAR_AT)->condvar;
    pthread_rwlock_t *rwlock = &at(memory, RWLOCK_AT)->rwlock;
    pthread_barrier_t *barrier = &at(memory, BARRIER_AT)->barrier;
    volatile uint64_t *turns = (uint64_t *)at(memory, MUTEX_AT)->payload;
    volatile uint64_t *pair = (uint64_t *)at(memory, RWLOCK_AT)->payload;
    for (int round = 0; round < ROUNDS; round++) {
        MUST(pthread_mutex_lock(mutex));
        while (turns[0] != OURS) MUST(pthread_cond_wait(condvar, mutex));
        turns[0] = 1 - OURS;
        turns[1 + OURS]++;
        MUST(pthread_cond_signal(condvar));
        MUST(pthread_mutex_unlock(mutex));
        MUST(pthread_rwlock_rdlock(rwlock));
        if (pair[0] != pair[1]) fail("a pair that differs", EPROTO);
        MUST(pthread_rwlock_unlock(rwlock));
        MUST(pthread_rwlock_wrlock(rwlock));
        pair[0]++;
        pair[1]++;
        MUST(pthread_rwlock_unlock(rwlock));
        int met = pthread_barrier_wait(barrier);
        if (met && met != PTHREAD_BARRIER_SERIAL_THREAD) fail("pthread_barrier_wait", met);
    }
}

int main(int count, char **arguments) {
    if (count != 3) return 2;
    alarm(60);
    int fd = shm_open(arguments[1], O_RDWR, 0);
    if (fd < 0) fail("shm_open", errno);
    char *memory = mmap(NULL, LEN, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (memory == MAP_FAILED) fail("mmap", errno);
    if (!strcmp(arguments[2], "create")) create(memory);
    check(at(memory, MUTEX_AT), MUTEX);
    check(at(memory, CONDVAR_AT), CONDVAR);
    check(at(memory, RWLOCK_AT), RWLOCK);
    check(at(memory, BARRIER_AT), BARRIER);
    if (strcmp(arguments[2], "die")) {
        work(memory);
        return 0;
    }
    MUST(pthread_mutex_lock(&at(memory, MUTEX_AT)->mutex));
    _exit(0);
}
