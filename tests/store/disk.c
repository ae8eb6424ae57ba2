/* A disk that fails on demand, for the ledger's file alone: LD_PRELOAD this into callgate.
 *
 * DISK_CONTROL names a file that holds one word, which is read at each operation:
 *   off         everything works
 *   eio-write   writes fail with EIO
 *   eio-sync    writes work; the first sync of a handle fails with EIO and drops what was written since the last one, the
 *               next one succeeds and does nothing, as a kernel does
 *   enospc      writes fail with ENOSPC
 *   hang        writes and syncs wait until the word changes
 *   kill N      the process is killed in the middle of the Nth write or before the Nth sync since the word changed. The
 *               file of the word is removed first, so that the test knows that it was reached
 * DISK_UNDO, if set, names a file into which the former bytes of each write go, until a sync empties it: undoing any of
 * them is what a power cut may do.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static ssize_t (*real_pwrite)(int, const void *, size_t, off64_t);
static int (*real_fdatasync)(int);
static int (*real_fsync)(int);
static pthread_once_t once = PTHREAD_ONCE_INIT;
static int undo = -1;

static void begin(void) {
    real_pwrite = dlsym(RTLD_NEXT, "pwrite64");
    real_fdatasync = dlsym(RTLD_NEXT, "fdatasync");
    real_fsync = dlsym(RTLD_NEXT, "fsync");
    const char *path = getenv("DISK_UNDO");
    if (path) undo = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);
}

/* Whether it is the ledger's file, in its place or in the making. */
static int is_ledger(int fd) {
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n <= 0) return 0;
    path[n] = 0;
    const char *name = strrchr(path, '/');
    return name && strncmp(name, "/ledger", 7) == 0;
}

static int says(const char *word) {
    char text[32] = "";
    const char *path = getenv("DISK_CONTROL");
    int fd = path ? open(path, O_RDONLY) : -1;
    if (fd < 0) return 0;
    ssize_t n = read(fd, text, sizeof text - 1);
    close(fd);
    return n > 0 && strncmp(text, word, strlen(word)) == 0;
}

/* Kills the process if this is the operation whose number the word names. */
static void count_to_the_kill(int fd, const void *bytes, size_t length, off64_t offset) {
    static int operations = 0;
    static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
    char text[32] = "";
    const char *path = getenv("DISK_CONTROL");
    int control = path ? open(path, O_RDONLY) : -1;
    if (control < 0) return;
    ssize_t n = read(control, text, sizeof text - 1);
    close(control);
    if (n < 6 || strncmp(text, "kill ", 5)) return;
    pthread_mutex_lock(&lock);
    if (++operations == atoi(text + 5)) {
        /* A part of the write has happened. */
        if (length && real_pwrite(fd, bytes, length / 2, offset) < 0) abort();
        if (unlink(path)) abort();
        kill(getpid(), SIGKILL);
        for (;;) pause();
    }
    pthread_mutex_unlock(&lock);
}

static void wait_while_it_hangs(void) {
    while (says("hang")) usleep(5000);
}

/* Of which file: they are told apart by their inodes. */
static int64_t inode(int fd) {
    struct stat about;
    if (fstat(fd, &about)) abort();
    return (int64_t)about.st_ino;
}

/* Inode, offset, length, former bytes; what is beyond the end was nothing. */
static void remember(int fd, size_t length, off64_t offset) {
    if (undo < 0) return;
    char *former = calloc(1, length);
    int64_t head[3] = {inode(fd), offset, (int64_t)length};
    if (!former) abort();
    if (pread(fd, former, length, offset) < 0) abort();
    if (write(undo, head, sizeof head) != sizeof head) abort();
    if (write(undo, former, length) != (ssize_t)length) abort();
    free(former);
}

static void forget(void) {
    if (undo >= 0 && (ftruncate(undo, 0) || lseek(undo, 0, SEEK_SET))) abort();
}

/* What was written since the last sync is gone, as of pages that could not be written and were dropped. */
static void drop(int fd) {
    if (undo < 0) return;
    off_t end = lseek(undo, 0, SEEK_END);
    char *all = malloc(end + 1);
    if (!all || pread(undo, all, end, 0) != end) abort();
    /* From the last one to the first. */
    size_t count = 0, at = 0, *starts = malloc((end / 24 + 1) * sizeof *starts);
    int64_t head[3], which = inode(fd);
    while (at < (size_t)end) {
        memcpy(head, all + at, 24);
        starts[count++] = at;
        at += 24 + head[2];
    }
    while (count--) {
        memcpy(head, all + starts[count], 24);
        if (head[0] == which && real_pwrite(fd, all + starts[count] + 24, head[2], head[1]) != head[2]) abort();
    }
    free(starts);
    free(all);
    forget();
}

ssize_t pwrite64(int fd, const void *bytes, size_t length, off64_t offset) {
    pthread_once(&once, begin);
    if (is_ledger(fd)) {
        wait_while_it_hangs();
        if (says("eio-write")) { errno = EIO; return -1; }
        if (says("enospc")) { errno = ENOSPC; return -1; }
        remember(fd, length, offset);
        count_to_the_kill(fd, bytes, length, offset);
    }
    return real_pwrite(fd, bytes, length, offset);
}

ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) {
    return pwrite64(fd, bytes, length, offset);
}

static int synchronize(int fd, int (*real)(int)) {
    static __thread int failed = -1;
    if (!is_ledger(fd)) return real(fd);
    wait_while_it_hangs();
    if (says("eio-sync")) {
        /* The next sync of the same handle succeeds, and nothing is on the disk. */
        if (failed == fd) return 0;
        failed = fd;
        drop(fd);
        errno = EIO;
        return -1;
    }
    count_to_the_kill(fd, NULL, 0, 0);
    failed = -1;
    int result = real(fd);
    if (result == 0) forget();
    return result;
}

int fdatasync(int fd) {
    pthread_once(&once, begin);
    return synchronize(fd, real_fdatasync);
}

int fsync(int fd) {
    pthread_once(&once, begin);
    return synchronize(fd, real_fsync);
}
