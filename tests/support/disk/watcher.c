/* Watches what a process does to the files of one directory, and keeps what a crash would leave there.
 *
 * Preloaded into the process (see mod.rs). `WATCHED` is the directory. Before and after each change of a file in it, and
 * in the middle of a write, `IMAGES/<number>-<lines>-<how>` becomes what is left in the directory if the process
 * ends at this moment: `process` if the operating system goes on, and all that was written is there; `power` if it
 * does not, and only what was synced is there, of files and of the directory. `<lines>` is how many lines the process
 * had printed by then. One thread at a time changes the directory. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define NEXT(result, name, ...) ((result(*)(__VA_ARGS__))dlsym(RTLD_NEXT, #name))
#define FILES 64

static int lines, images;

/* What is safe from a loss of power: the content of files as last synced, and the names as last synced. */
static struct { ino_t file; char *bytes; size_t length; } contents[FILES];
static struct { char name[NAME_MAX + 1]; ino_t file; } names[FILES];
static int content_count, name_count;

static void give_up(const char *what) {
    perror(what);
    abort();
}

static char *read_whole(int fd, size_t *length) {
    struct stat stat;
    if (fstat(fd, &stat)) give_up("fstat");
    char *bytes = malloc(stat.st_size + 1);
    if (!bytes || pread(fd, bytes, stat.st_size, 0) != stat.st_size) give_up("pread");
    *length = stat.st_size;
    return bytes;
}

static void write_whole(const char *directory, const char *name, const char *bytes, size_t length) {
    char path[2 * PATH_MAX];
    snprintf(path, sizeof path, "%s/%s", directory, name);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    while (fd >= 0 && length > 0) {
        ssize_t written = NEXT(ssize_t, write, int, const void *, size_t)(fd, bytes, length);
        if (written <= 0) give_up(path);
        bytes += written;
        length -= written;
    }
    if (fd < 0 || close(fd)) give_up(path);
}

static void begin_image(char *directory, size_t size, const char *how) {
    snprintf(directory, size, "%s/%05d-%d-%s", getenv("IMAGES"), images, lines, how);
    if (mkdir(directory, 0700)) give_up(directory);
}

/* Calls `with` for each file of the directory. */
static void each_file(const char *watched, void (*with)(const char *, const char *, int, const char *), const char *to) {
    DIR *open_directory = opendir(watched);
    if (!open_directory) give_up(watched);
    for (struct dirent *entry; (entry = readdir(open_directory));) {
        if (entry->d_type != DT_REG) continue;
        char path[2 * PATH_MAX];
        snprintf(path, sizeof path, "%s/%s", watched, entry->d_name);
        int fd = open(path, O_RDONLY);
        if (fd < 0) give_up(path);
        with(watched, entry->d_name, fd, to);
        close(fd);
    }
    closedir(open_directory);
}

static void copy_file(const char *watched, const char *name, int fd, const char *to) {
    (void)watched;
    size_t length;
    char *bytes = read_whole(fd, &length);
    write_whole(to, name, bytes, length);
    free(bytes);
}

static void image(void) {
    const char *watched = getenv("WATCHED");
    char directory[PATH_MAX];
    begin_image(directory, sizeof directory, "process");
    each_file(watched, copy_file, directory);
    begin_image(directory, sizeof directory, "power");
    for (int n = 0; n < name_count; n++) {
        int at = 0;
        while (at < content_count && contents[at].file != names[n].file) at++;
        int is_synced = at < content_count;
        write_whole(directory, names[n].name, is_synced ? contents[at].bytes : "", is_synced ? contents[at].length : 0);
    }
    images++;
}

static int is_watched_path(const char *path) {
    const char *watched = getenv("WATCHED");
    size_t length = watched ? strlen(watched) : 0;
    return length > 0 && !strncmp(path, watched, length) && (path[length] == '/' || path[length] == 0);
}

static int is_watched(int fd, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length <= 0) return 0;
    path[length] = 0;
    return is_watched_path(path);
}

static void keep_content(int fd) {
    struct stat stat;
    if (fstat(fd, &stat)) give_up("fstat");
    int at = 0;
    while (at < content_count && contents[at].file != stat.st_ino) at++;
    if (at == FILES) abort();
    if (at == content_count) content_count++;
    else free(contents[at].bytes);
    contents[at].file = stat.st_ino;
    contents[at].bytes = read_whole(fd, &contents[at].length);
}

/* Its inode number may be that of a removed file. */
static void forget_content(int fd) {
    struct stat stat;
    if (fstat(fd, &stat)) give_up("fstat");
    for (int at = 0; at < content_count; at++) {
        if (contents[at].file != stat.st_ino) continue;
        free(contents[at].bytes);
        contents[at] = contents[--content_count];
    }
}

static void keep_name(const char *watched, const char *name, int fd, const char *to) {
    (void)watched, (void)to;
    struct stat stat;
    if (fstat(fd, &stat) || name_count == FILES) give_up("fstat");
    snprintf(names[name_count].name, sizeof names[name_count].name, "%s", name);
    names[name_count++].file = stat.st_ino;
}

static void keep_names(const char *watched) {
    name_count = 0;
    each_file(watched, keep_name, NULL);
}

static void keep_all(const char *watched, const char *name, int fd, const char *to) {
    (void)watched, (void)name, (void)to;
    keep_content(fd);
}

/* What is there at the start counts as synced. */
__attribute__((constructor)) static void begin(void) {
    const char *watched = getenv("WATCHED");
    if (!watched) return;
    each_file(watched, keep_all, NULL);
    keep_names(watched);
}

ssize_t write(int fd, const void *bytes, size_t length) {
    char path[PATH_MAX];
    if (!is_watched(fd, path)) {
        for (size_t n = 0; fd == 1 && n < length; n++) lines += ((const char *)bytes)[n] == '\n';
        return NEXT(ssize_t, write, int, const void *, size_t)(fd, bytes, length);
    }
    static int rest_of = -1;
    static size_t rest;
    int is_rest = fd == rest_of && length == rest;
    rest_of = -1;
    if (!is_rest) image();
    if (!is_rest && length > 1) {
        /* It is not one step: the process may end in the middle. */
        ssize_t half = NEXT(ssize_t, write, int, const void *, size_t)(fd, bytes, length / 2);
        image();
        rest_of = fd;
        rest = length - half;
        return half;
    }
    return NEXT(ssize_t, write, int, const void *, size_t)(fd, bytes, length);
}

static int synced(int fd, int result) {
    char path[PATH_MAX];
    if (result || !is_watched(fd, path)) return result;
    if (!strcmp(path, getenv("WATCHED"))) keep_names(path);
    else keep_content(fd);
    image();
    return result;
}

int fsync(int fd) { return synced(fd, NEXT(int, fsync, int)(fd)); }

int fdatasync(int fd) { return synced(fd, NEXT(int, fdatasync, int)(fd)); }

int ftruncate64(int fd, off64_t length) {
    char path[PATH_MAX];
    if (is_watched(fd, path)) image();
    return NEXT(int, ftruncate64, int, off64_t)(fd, length);
}

int rename(const char *from, const char *to) {
    if (is_watched_path(from)) image();
    int result = NEXT(int, rename, const char *, const char *)(from, to);
    if (is_watched_path(to)) image();
    return result;
}

int unlink(const char *path) {
    if (is_watched_path(path)) image();
    int result = NEXT(int, unlink, const char *)(path);
    if (is_watched_path(path)) image();
    return result;
}

int open64(const char *path, int flags, ...) {
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list rest;
        va_start(rest, flags);
        mode = va_arg(rest, mode_t);
        va_end(rest);
    }
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_watched_path(path)) {
        return NEXT(int, open64, const char *, int, mode_t)(path, flags, mode);
    }
    int is_new = access(path, F_OK) != 0;
    image();
    int fd = NEXT(int, open64, const char *, int, mode_t)(path, flags, mode);
    if (fd >= 0 && is_new) forget_content(fd);
    image();
    return fd;
}
