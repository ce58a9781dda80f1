/* Stands before the C library's getaddrinfo, in the process under test alone: one name has the
 * addresses that a file lists, a line each, at that moment. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <netdb.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int look_up(const char *, const char *, const struct addrinfo *, struct addrinfo **);

int getaddrinfo(const char *name, const char *service, const struct addrinfo *hints,
                struct addrinfo **found) {
    look_up *real = (look_up *)dlsym(RTLD_NEXT, "getaddrinfo");
    const char *path = getenv("TEST_NAMES");
    if (!path || !name || strcmp(name, "upstream.test") != 0)
        return real(name, service, hints, found);
    FILE *file = fopen(path, "re");
    if (!file) return EAI_AGAIN;
    struct addrinfo **end = found;
    *found = NULL;
    char line[64];
    while (fgets(line, sizeof line, file)) {
        line[strcspn(line, "\n")] = '\0';
        if (real(line, service, hints, end) != 0) continue;
        while (*end) end = &(*end)->ai_next;
    }
    fclose(file);
    return *found ? 0 : EAI_NONAME;
}
