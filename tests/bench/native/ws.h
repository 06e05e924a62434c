// The common part of the C programs: WebSocket frames, handshakes, latencies, clocks.
// Limited to their needs: no extensions, no outgoing fragments, IPv4 on loopback.
#pragma once
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { OP_TEXT = 1, OP_CLOSE = 8, OP_PING = 9, OP_PONG = 10 };

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return (uint64_t)t.tv_sec * 1000000000ull + t.tv_nsec;
}

static inline uint64_t monotonic_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t realtime_ns(void) { return clock_ns(CLOCK_REALTIME); }

static inline double cpu_seconds(void) {
    struct rusage r;
    getrusage(RUSAGE_SELF, &r);
    return r.ru_utime.tv_sec + r.ru_stime.tv_sec + (r.ru_utime.tv_usec + r.ru_stime.tv_usec) / 1e6;
}

static inline void die(const char *what) {
    perror(what);
    exit(2);
}

// Every process of the bench ends with its parent. The alarm ends it after an hour in any case.
static inline void bounded_life(void) {
    signal(SIGPIPE, SIG_IGN);
    alarm(3600);
}

static inline void set_nonblocking(int fd) { fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK); }

static inline void set_nodelay(int fd) {
    int one = 1;
    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
}

static inline int listen_on(int port) { // port 0: any free one
    int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    if (bind(fd, (void *)&a, sizeof a) || listen(fd, 4096)) die("listen");
    set_nonblocking(fd);
    return fd;
}

static inline int port_of(int fd) {
    struct sockaddr_in a;
    socklen_t n = sizeof a;
    getsockname(fd, (void *)&a, &n);
    return ntohs(a.sin_port);
}

// Give each whole line of standard input to `obey`; its end ends the program.
static inline void read_commands(void (*obey)(char *line)) {
    static char line[256];
    static size_t n;
    ssize_t got = read(0, line + n, sizeof line - n - 1);
    if (got <= 0) exit(0);
    line[n += got] = 0;
    for (char *end; (end = strchr(line, '\n'));) {
        *end = 0, obey(line);
        n -= end + 1 - line;
        memmove(line, end + 1, n + 1);
    }
}

// -- frames -------------------------------------------------------------------------------------------

// Write the head of an unmasked frame. Returns its length (at most 10).
static inline size_t frame_head(uint8_t *to, int op, size_t n) {
    to[0] = 0x80 | op;
    if (n < 126) return to[1] = n, 2;
    if (n < 65536) return to[1] = 126, to[2] = n >> 8, to[3] = n, 4;
    to[1] = 127;
    for (int i = 0; i < 8; i++) to[2 + i] = n >> (56 - 8 * i);
    return 10;
}

// Write a whole masked frame, as a client must. Returns its length. `to` needs n + 14 bytes.
static inline size_t masked_frame(uint8_t *to, int op, const void *payload, size_t n) {
    size_t head = frame_head(to, op, n);
    to[1] |= 0x80;
    uint32_t mask = (uint32_t)rand();
    memcpy(to + head, &mask, 4);
    uint8_t *key = to + head;
    for (size_t i = 0; i < n; i++) to[head + 4 + i] = ((const uint8_t *)payload)[i] ^ key[i & 3];
    return head + 4 + n;
}

typedef struct {
    int op, fin, rsv;
    uint8_t *payload;
    size_t length, whole; // of the payload; of the frame with its head
} frame_t;

// Cut a frame from the `n` bytes at `p` and unmask it in place. Returns 0 when it is not complete.
static inline int next_frame(uint8_t *p, size_t n, frame_t *f) {
    if (n < 2) return 0;
    uint64_t length = p[1] & 127;
    size_t head = 2, masked = p[1] >> 7;
    if (length == 126) {
        if (n < 4) return 0;
        length = (uint64_t)p[2] << 8 | p[3], head = 4;
    } else if (length == 127) {
        if (n < 10) return 0;
        length = 0, head = 10;
        for (int i = 0; i < 8; i++) length = length << 8 | p[2 + i];
    }
    head += 4 * masked;
    f->whole = head + length;
    if (n < f->whole) return 0;
    f->op = p[0] & 15, f->fin = p[0] >> 7, f->rsv = p[0] & 0x70, f->payload = p + head, f->length = length;
    if (masked)
        for (size_t i = 0; i < length; i++) f->payload[i] ^= p[head - 4 + (i & 3)];
    return 1;
}

// -- the server's side of the handshake -----------------------------------------------------------------

static inline uint32_t rotate_left(uint32_t x, int n) { return x << n | x >> (32 - n); }

static inline void sha1_block(uint32_t *h, const uint8_t *block) {
    uint32_t w[80], a = h[0], b = h[1], c = h[2], d = h[3], e = h[4];
    for (int i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | block[4 * i + 1] << 16 | block[4 * i + 2] << 8 | block[4 * i + 3];
    for (int i = 16; i < 80; i++) w[i] = rotate_left(w[i - 3] ^ w[i - 8] ^ w[i - 14] ^ w[i - 16], 1);
    for (int i = 0; i < 80; i++) {
        uint32_t f = i < 20 ? (b & c) | (~b & d) : i < 40 ? b ^ c ^ d : i < 60 ? (b & c) | (b & d) | (c & d) : b ^ c ^ d;
        uint32_t k = i < 20 ? 0x5A827999 : i < 40 ? 0x6ED9EBA1 : i < 60 ? 0x8F1BBCDC : 0xCA62C1D6;
        uint32_t t = rotate_left(a, 5) + f + e + k + w[i];
        e = d, d = c, c = rotate_left(b, 30), b = a, a = t;
    }
    h[0] += a, h[1] += b, h[2] += c, h[3] += d, h[4] += e;
}

// The value of Sec-WebSocket-Accept for a key of 24 characters.
static inline void accept_value(const char *key, char out[29]) {
    uint8_t text[128] = {0}, digest[21] = {0};
    uint32_t h[5] = {0x67452301, 0xEFCDAB89, 0x98BADCFE, 0x10325476, 0xC3D2E1F0};
    size_t n = (size_t)snprintf((char *)text, 64, "%.24s258EAFA5-E914-47DA-95CA-C5AB0DC85B11", key);
    text[n] = 0x80;
    text[126] = n * 8 >> 8, text[127] = n * 8;
    sha1_block(h, text), sha1_block(h, text + 64);
    for (int i = 0; i < 20; i++) digest[i] = h[i / 4] >> (24 - 8 * (i % 4));
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (int i = 0, o = 0; i < 21; i += 3) {
        uint32_t v = digest[i] << 16 | digest[i + 1] << 8 | digest[i + 2];
        for (int k = 0; k < 4; k++) out[o++] = letters[v >> (18 - 6 * k) & 63];
    }
    out[27] = '=', out[28] = 0;
}

// Write the 101 for `request` (zero-terminated). Returns its length; 0 when there is no key.
static inline size_t handshake_answer(const char *request, char out[256]) {
    const char *key = strcasestr(request, "sec-websocket-key:");
    if (!key) return 0;
    for (key += 18; *key == ' '; key++) {}
    char value[29];
    accept_value(key, value);
    return snprintf(out, 256,
                    "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                    "Sec-WebSocket-Accept: %s\r\n\r\n",
                    value);
}

// -- latencies: 64 bins per power of two, about 1.5 % wide ----------------------------------------------------

typedef struct {
    uint64_t bins[64 * 64], count, max;
    double sum;
} latencies_t;

static inline void latency_add(latencies_t *l, int64_t ns) {
    uint64_t u = ns < 0 ? 0 : (uint64_t)ns;
    int e = u < 64 ? 0 : 63 - __builtin_clzll(u) - 5;
    l->bins[e * 64 + (u >> e)]++, l->count++, l->sum += u;
    if (u > l->max) l->max = u;
}

static inline double latency_ms(const latencies_t *l, double share) {
    uint64_t want = (uint64_t)(share * l->count), seen = 0;
    for (int i = 0; i < 64 * 64; i++) {
        seen += l->bins[i];
        if (l->bins[i] && seen >= want) return (double)((uint64_t)(i % 64) << (i / 64)) / 1e6;
    }
    return 0;
}
