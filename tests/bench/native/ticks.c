// ticks: a producer that pushes ticks by TCP. Commands set how many, and how fast.
//
//   ./ticks --to PORT [--symbol AAPL]
//
// Connects to a source that listens, and prints {"open": 1}. Commands come on standard input. Each is answered by one line
// of JSON with the number of ticks since the start:
//
//   rate R    R ticks a second, one a send       flood   as many as the source takes, 64 KiB a send
//   idle      none                               count   only the answer
//
// The volume of a tick is its time of sending, in ns since 1970: the other end computes the age from it. A tick that had to
// wait for the source carries the time when it was due. The end of standard input ends the process.
#include "ws.h"

enum { CHUNK = 65536 };
static uint8_t out[CHUNK + 128];
static size_t n_out, sent;
static const char *symbol = "AAPL";
static double rate; // ticks a second; 0 none, < 0 flood
static uint64_t ticks, due_ns, blocked_until;
static int source;

static uint8_t *varint(uint8_t *p, uint64_t v) {
    for (; v > 127; v >>= 7) *p++ = v | 128;
    *p++ = v;
    return p;
}

static void queue_tick(uint64_t stamp) { // symbol 1, price 2, volume 3, exchange_timestamp 4
    double price = 61837.63;
    size_t n = strlen(symbol);
    uint8_t *head = out + n_out, *p = head + 4;
    *p++ = 1 << 3 | 2, *p++ = n, memcpy(p, symbol, n), p += n;
    *p++ = 2 << 3 | 1, memcpy(p, &price, 8), p += 8;
    *p++ = 3 << 3, p = varint(p, stamp);
    *p++ = 4 << 3, p = varint(p, stamp);
    uint32_t length = htonl(p - head - 4);
    memcpy(head, &length, 4);
    n_out = p - out, ticks++;
}

static void flush_out(void) {
    while (sent < n_out) {
        ssize_t n = send(source, out + sent, n_out - sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) die("send");
        sent += n;
    }
    n_out = sent = 0;
}

static void send_due(void) {
    uint64_t now;
    while (rate > 0 && (now = monotonic_ns()) >= due_ns) {
        if (n_out) { blocked_until = now; return; }
        uint64_t late = due_ns < blocked_until ? now - due_ns : 0;
        queue_tick(realtime_ns() - late), flush_out();
        due_ns += (uint64_t)(1e9 / rate);
    }
}

static void flood(void) {
    if (n_out) return;
    uint64_t stamp = realtime_ns();
    while (n_out < CHUNK) queue_tick(stamp);
    flush_out();
}

static void report(void) {
    printf("{\"sent\":%llu,\"cpu\":%.3f,\"at\":%.6f}\n", (unsigned long long)ticks, cpu_seconds(), monotonic_ns() / 1e9);
    fflush(stdout);
}

static void obey(char *line) {
    if (!strncmp(line, "rate ", 5)) rate = atof(line + 5), due_ns = monotonic_ns();
    else if (!strncmp(line, "flood", 5)) rate = -1;
    else if (!strncmp(line, "idle", 4)) rate = 0;
    report();
}

int main(int argc, char **argv) {
    struct sockaddr_in a = {.sin_family = AF_INET};
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--to")) a.sin_port = htons(atoi(argv[i + 1]));
        else if (!strcmp(argv[i], "--symbol")) symbol = argv[i + 1];
        else return fprintf(stderr, "usage: ticks --to PORT [--symbol AAPL]\n"), 2;
    }
    bounded_life();
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((source = socket(AF_INET, SOCK_STREAM, 0)) < 0 || connect(source, (void *)&a, sizeof a)) die("connect");
    set_nodelay(source), set_nonblocking(source);
    printf("{\"open\":1}\n"), fflush(stdout);
    for (;;) {
        struct pollfd p[] = {{0, POLLIN, 0}, {source, n_out ? POLLOUT : 0, 0}};
        int64_t left = rate == 0 || n_out ? 100000000 : rate < 0 ? 0 : (int64_t)(due_ns - monotonic_ns());
        if (left < 0) left = 0;
        struct timespec t = {left / 1000000000, left % 1000000000};
        ppoll(p, 2, &t, NULL);
        if (p[0].revents) read_commands(obey);
        if (p[1].revents) flush_out();
        if (rate > 0) send_due();
        else if (rate < 0) flood();
        else due_ns = monotonic_ns();
    }
}
