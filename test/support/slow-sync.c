/*
 * Makes every sync take 100 ms, as on a slow disk: for LD_PRELOAD.
 * SQLite calls one of the two, by its build.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>

static int wait_and_call(const char *name, int fd)
{
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    struct timespec delay = {0, 100 * 1000 * 1000};

    nanosleep(&delay, NULL);
    return real(fd);
}

int fsync(int fd)
{
    return wait_and_call("fsync", fd);
}

int fdatasync(int fd)
{
    return wait_and_call("fdatasync", fd);
}
