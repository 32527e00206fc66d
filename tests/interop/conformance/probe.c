/* What a process meets, as lines of KIND, KEY and VALUE with tabs between them. It changes nothing outside of
   its own children. Static, so that it runs in an image that holds nothing else. */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static const char *error_name(int number) {
    switch (number) {
    case 0: return "reached";
    case EPERM: return "EPERM";
    case ENOSYS: return "ENOSYS";
    case EAFNOSUPPORT: return "EAFNOSUPPORT";
    default: return "reached";
    }
}

/* The mount table: point, file system, the mount's own flags and the file system's. */
static void mounts(void) {
    FILE *table = fopen("/proc/self/mountinfo", "r");
    char line[8192];
    while (table && fgets(line, sizeof line, table)) {
        char point[4096], flags[4096], kind[256], super[4096];
        char *rest = strstr(line, " - ");
        if (!rest || sscanf(line, "%*s %*s %*s %*s %4095s %4095s", point, flags) != 2) continue;
        if (sscanf(rest, " - %255s %*s %4095s", kind, super) != 2) continue;
        printf("mount\t%s\t%s %s\n", point, kind, flags);
    }
    if (table) fclose(table);
}

static void status(void) {
    FILE *table = fopen("/proc/self/status", "r");
    char line[4096], key[64], value[4000];
    while (table && fgets(line, sizeof line, table))
        if (sscanf(line, "%63[^:]:\t%3999[^\n]", key, value) == 2 &&
            (!strncmp(key, "Cap", 3) || !strncmp(key, "Seccomp", 7) || !strcmp(key, "NoNewPrivs") ||
             !strcmp(key, "Groups") || !strcmp(key, "Uid") || !strcmp(key, "Gid")))
            printf("status\t%s\t%s\n", key, value);
    if (table) fclose(table);
}

static void devices(const char *folder) {
    DIR *open = opendir(folder);
    struct dirent *each;
    while (open && (each = readdir(open))) {
        char path[4096]; struct stat info;
        if (!strcmp(each->d_name, ".") || !strcmp(each->d_name, "..")) continue;
        snprintf(path, sizeof path, "%s/%s", folder, each->d_name);
        if (lstat(path, &info)) continue;
        if (S_ISDIR(info.st_mode)) { printf("dev\t%s\tdirectory %04o\n", path, info.st_mode & 07777); devices(path); }
        else if (S_ISLNK(info.st_mode)) printf("dev\t%s\tlink\n", path);
        else if (S_ISCHR(info.st_mode) || S_ISBLK(info.st_mode))
            printf("dev\t%s\t%s %u:%u %04o\n", path, S_ISCHR(info.st_mode) ? "c" : "b", major(info.st_rdev),
                   minor(info.st_rdev), info.st_mode & 07777);
        else printf("dev\t%s\tfile %04o\n", path, info.st_mode & 07777);
    }
    if (open) closedir(open);
}

/* Whether a path can be read (gives anything) and opened for writing. Nothing is written. */
static void path(const char *name) {
    struct stat info;
    if (lstat(name, &info)) { printf("path\t%s\tabsent -\n", name); return; }
    const char *reads = "closed", *writes = "closed";
    if (S_ISDIR(info.st_mode)) {
        DIR *folder = opendir(name); struct dirent *each; int count = 0;
        while (folder && (each = readdir(folder))) count += strcmp(each->d_name, ".") && strcmp(each->d_name, "..");
        if (folder) { reads = count ? "readable" : "empty"; closedir(folder); }
        char inside[4096]; snprintf(inside, sizeof inside, "%s/.probe", name);
        if (!mkdir(inside, 0700)) { rmdir(inside); writes = "writable"; }
        else if (errno == EROFS) writes = "read-only";
    } else {
        int fd = open(name, O_RDONLY | O_NONBLOCK);
        if (fd >= 0) {
            char byte; ssize_t got = read(fd, &byte, 1);
            reads = got > 0 ? "readable" : got == 0 ? "empty" : "closed";
            close(fd);
        }
        fd = open(name, O_WRONLY | O_NONBLOCK);
        if (fd >= 0) { writes = "writable"; close(fd); }
        else if (errno == EROFS) writes = "read-only";
    }
    printf("path\t%s\t%s %s\n", name, reads, writes);
}

static void paths(const char *folder) {
    DIR *open = opendir(folder); struct dirent *each;
    while (open && (each = readdir(open))) {
        char name[4096];
        if (*each->d_name == '.' || (*each->d_name >= '0' && *each->d_name <= '9')) continue;
        if (!strcmp(each->d_name, "self") || !strcmp(each->d_name, "thread-self")) continue;
        if (!strcmp(each->d_name, "kmsg")) continue; /* may block */
        snprintf(name, sizeof name, "%s/%s", folder, each->d_name);
        path(name);
    }
    if (open) closedir(open);
}

static void limits(void) {
    static const char *const names[] = {"cpu", "fsize", "data", "stack", "core", "rss", "nproc", "nofile",
        "memlock", "as", "locks", "sigpending", "msgqueue", "nice", "rtprio", "rttime"};
    for (int number = 0; number < 16; number++) {
        struct rlimit limit;
        if (!getrlimit(number, &limit)) printf("limit\t%s\t%ld %ld\n", names[number], (long)limit.rlim_cur,
                                               (long)limit.rlim_max);
    }
}

/* One call in a child of its own, which an alarm ends if it waits. Killed by a signal means that it was reached. */
static void call(const char *kind, const char *key, long number, long a, long b, long c, long d, long e) {
    int tube[2]; char answer = 0;
    if (pipe(tube)) return;
    fflush(stdout);
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        alarm(1);
        int code = 0;
        long result = syscall(number, a, b, c, d, e, 0L);
        if (result < 0) code = errno;
        char byte = (char)code;
        if (syscall(SYS_write, tube[1], &byte, 1L) < 0) _exit(1);
        _exit(0);
    }
    close(tube[1]);
    int code = read(tube[0], &answer, 1) == 1 ? (unsigned char)answer : 0;
    close(tube[0]);
    kill(child, SIGKILL);
    waitpid(child, 0, 0);
    printf("%s\t%s\t%s\n", kind, key, error_name(code));
}

static void calls(void) {
    char key[32];
    for (long number = 0; number <= 480; number++) {
        if (number == SYS_fork || number == SYS_vfork) continue; /* they are how this program works */
        snprintf(key, sizeof key, "%ld", number);
        long first = number == SYS_clone ? 0x01000000 /* an unused flag, no child of it */ : -1;
        if (number == SYS_clone) { call("call", key, number, SIGCHLD, 0, 0, 0, 0); continue; }
        call("call", key, number, first, -1, -1, -1, -1);
    }
    static const int flags[] = {CLONE_NEWNS, CLONE_NEWUTS, CLONE_NEWIPC, CLONE_NEWUSER, CLONE_NEWPID,
                                CLONE_NEWNET, CLONE_NEWCGROUP};
    for (unsigned at = 0; at < sizeof flags / sizeof *flags; at++) {
        snprintf(key, sizeof key, "clone %#x", flags[at]);
        call("argument", key, SYS_clone, flags[at] | SIGCHLD, 0, 0, 0, 0);
        snprintf(key, sizeof key, "unshare %#x", flags[at]);
        call("argument", key, SYS_unshare, flags[at], 0, 0, 0, 0);
    }
    for (int family = 0; family < 48; family++) {
        snprintf(key, sizeof key, "socket %d", family);
        call("argument", key, SYS_socket, family, SOCK_DGRAM, 0, 0, 0);
    }
    static const long kinds[] = {0, 8, 0x20000, 0x20008, 0xffffffff, 0x40000, 0x400000, 0x0002};
    for (unsigned at = 0; at < sizeof kinds / sizeof *kinds; at++) {
        snprintf(key, sizeof key, "personality %#lx", kinds[at]);
        call("argument", key, SYS_personality, kinds[at], 0, 0, 0, 0);
    }
    call("argument", "x32 getpid", 0x40000000 | 39, 0, 0, 0, 0, 0);
}

int main(void) {
    static const char *const more[] = {"/proc/asound", "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys",
        "/proc/sys/kernel/core_pattern", "/proc/sys/kernel/hostname", "/proc/sys/vm/drop_caches",
        "/proc/sysrq-trigger", "/proc/1/oom_score_adj", "/sys/devices/virtual/powercap", "/sys/firmware",
        "/sys/fs/selinux", "/sys/fs/cgroup", "/sys/kernel/uevent_helper", "/sys/kernel/debug",
        "/sys/devices/system/cpu/cpu0/thermal_throttle", "/sys/devices/system/cpu/cpu1/thermal_throttle",
        "/sys/fs/cgroup/cgroup.procs", "/sys/fs/cgroup/memory/memory.limit_in_bytes", "/dev/kmsg", "/dev/mem",
        "/dev/fuse", "/dev/net/tun", "/etc/resolv.conf", "/etc/hosts", "/etc/hostname"};
    signal(SIGPIPE, SIG_IGN);
    mounts(); status(); devices("/dev");
    paths("/proc"); paths("/sys");
    for (unsigned at = 0; at < sizeof more / sizeof *more; at++) path(more[at]);
    limits(); calls();
    return 0;
}
