// feed: a simulated exchange. Commands set how many trades it sends, and how fast.
//
//   ./feed [--port N] [--speak binance|blockchain]
//
// Prints {"port": N}. Readers connect by WebSocket. A reader that subscribes (Binance: by message, or by a URL with
// ?streams=) gets trades of BTC-USDT (Binance) or BTC-USD (Blockchain.com). Commands come on standard input. Each is
// answered by one line of JSON with the numbers of trades and of connections since the start:
//
//   rate R    R trades a second, one a send                       flood   as many as the reader takes, 64 KiB a send
//   idle      none                                                count   only the answer
//
// The quantity of a trade is its time of sending, in ns since 1970: the other end computes the age from it. When the
// reader does not read, trades have to wait. Such a trade carries the time when it was due.
// The end of standard input ends the process.
#include "ws.h"

enum { MOST = 64, CHUNK = 65536 };
typedef struct {
    int fd, open, ready, aggregate, n_in;
    uint64_t seqnum;
    uint8_t in[8192];
    uint8_t out[CHUNK + 1024];
    size_t n_out, sent;
} reader_t;

static reader_t readers[MOST];
static int n_readers, blockchain;
static double rate; // trades a second; 0 none, < 0 flood
static uint64_t trades, accepted, next_id = 1000000, due_ns;

static void queue_frame(reader_t *r, int op, const void *payload, size_t n) {
    if (r->n_out + n + 10 > sizeof r->out) return;
    r->n_out += frame_head(r->out + r->n_out, op, n);
    memcpy(r->out + r->n_out, payload, n);
    r->n_out += n;
}

static void queue_text(reader_t *r, const char *format, ...) {
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    int n = vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    queue_frame(r, OP_TEXT, text, n);
}

static void queue_binance(reader_t *r, uint64_t id, uint64_t stamp) {
    unsigned long long ms = stamp / 1000000, i = id, s = stamp;
    if (r->aggregate)
        queue_text(r, "{\"stream\":\"btcusdt@aggTrade\",\"data\":{\"e\":\"aggTrade\",\"E\":%llu,\"s\":\"BTCUSDT\",\"a\":%llu,"
                      "\"p\":\"61837.63000000\",\"q\":\"%llu\",\"f\":%llu,\"l\":%llu,\"T\":%llu,\"m\":true,\"M\":true}}",
                   ms, i, s, i, i, ms);
    else
        queue_text(r, "{\"stream\":\"btcusdt@trade\",\"data\":{\"e\":\"trade\",\"E\":%llu,\"s\":\"BTCUSDT\",\"t\":%llu,"
                      "\"p\":\"61837.63000000\",\"q\":\"%llu\",\"T\":%llu,\"m\":true,\"M\":true}}",
                   ms, i, s, ms);
}

static void queue_blockchain(reader_t *r, uint64_t id, uint64_t stamp) {
    static time_t second; // the date is written once a second
    static char date[32];
    time_t now = stamp / 1000000000;
    if (now != second) {
        struct tm utc;
        gmtime_r(&now, &utc);
        strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%S", &utc);
        second = now;
    }
    queue_text(r, "{\"seqnum\":%llu,\"event\":\"updated\",\"channel\":\"trades\",\"symbol\":\"BTC-USD\",\"timestamp\":"
                  "\"%s.%06uZ\",\"side\":\"buy\",\"qty\":%llu,\"price\":61837.63,\"trade_id\":\"%llu\"}",
               (unsigned long long)r->seqnum++, date, (unsigned)(stamp / 1000 % 1000000), (unsigned long long)stamp,
               (unsigned long long)id);
}

static void queue_trade(reader_t *r, uint64_t id, uint64_t stamp) { (blockchain ? queue_blockchain : queue_binance)(r, id, stamp); }

static void hang_up(reader_t *r) {
    if (r->fd >= 0) close(r->fd);
    r->fd = -1, r->open = r->ready = 0;
}

static void flush_reader(reader_t *r) {
    while (r->sent < r->n_out) {
        ssize_t n = send(r->fd, r->out + r->sent, r->n_out - r->sent, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) return hang_up(r);
        r->sent += n;
    }
    r->n_out = r->sent = 0;
}

static long number_after(const char *text, const char *key) {
    const char *found = strstr(text, key);
    return found ? atol(found + strlen(key)) : -1;
}

static void hear_binance(reader_t *r, const char *text) {
    if (strstr(text, "\"SUBSCRIBE\"")) r->ready = 1, r->aggregate = strstr(text, "@aggTrade") != NULL;
    queue_text(r, "{\"result\":null,\"id\":%ld}", number_after(text, "\"id\":"));
}

static void hear_blockchain(reader_t *r, const char *text) {
    int trades_wanted = strstr(text, "\"trades\"") != NULL;
    if (strstr(text, "\"subscribe\"") && trades_wanted) r->ready = 1;
    queue_text(r, "{\"seqnum\":%llu,\"event\":\"subscribed\",\"channel\":\"%s\"%s}", (unsigned long long)r->seqnum++,
               trades_wanted ? "trades" : "heartbeat", trades_wanted ? ",\"symbol\":\"BTC-USD\"" : "");
}

static void hear(reader_t *r, frame_t *f) {
    char text[4096];
    snprintf(text, sizeof text, "%.*s", (int)f->length, (char *)f->payload);
    if (f->op == OP_TEXT) (blockchain ? hear_blockchain : hear_binance)(r, text);
    else if (f->op == OP_PING) queue_frame(r, OP_PONG, f->payload, f->length);
    else if (f->op == OP_CLOSE) queue_frame(r, OP_CLOSE, f->payload, f->length > 2 ? 2 : f->length);
}

static size_t shake_hands(reader_t *r) {
    r->in[r->n_in] = 0;
    char *request = (char *)r->in, *end = strstr(request, "\r\n\r\n"), answer[256];
    if (!end) return 0;
    size_t n = handshake_answer(request, answer);
    if (!n || send(r->fd, answer, n, MSG_NOSIGNAL) != (ssize_t)n) return hang_up(r), 0;
    r->open = 1, accepted++;
    char *streams = strstr(request, "streams=");
    if (streams && streams < strstr(request, "\r\n")) r->ready = 1, r->aggregate = strstr(request, "@aggTrade") != NULL;
    return end + 4 - request;
}

static void read_from(reader_t *r) {
    ssize_t n = recv(r->fd, r->in + r->n_in, sizeof r->in - r->n_in - 1, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) return hang_up(r);
    r->n_in += n;
    size_t used = r->open ? 0 : shake_hands(r);
    frame_t f;
    while (r->fd >= 0 && r->open && next_frame(r->in + used, r->n_in - used, &f)) hear(r, &f), used += f.whole;
    memmove(r->in, r->in + used, r->n_in -= used);
    if (r->fd >= 0 && r->n_out) flush_reader(r);
}

static void welcome(int listener) {
    int fd = accept(listener, NULL, NULL), slot = 0;
    if (fd < 0) return;
    while (slot < n_readers && readers[slot].fd >= 0) slot++;
    if (slot == MOST) { close(fd); return; }
    if (slot == n_readers) n_readers++;
    memset(&readers[slot], 0, sizeof *readers);
    readers[slot].fd = fd;
    set_nonblocking(fd), set_nodelay(fd);
}

static int blocked(void) {
    for (int i = 0; i < n_readers; i++)
        if (readers[i].ready && readers[i].n_out) return 1;
    return 0;
}

static int listened_to(void) {
    for (int i = 0; i < n_readers; i++)
        if (readers[i].ready) return 1;
    return 0;
}

static void send_one(uint64_t stamp) {
    for (int i = 0; i < n_readers; i++)
        if (readers[i].ready) queue_trade(&readers[i], next_id, stamp), flush_reader(&readers[i]);
    next_id++, trades++;
}

static void send_due(void) { // after a wait for the reader, the trades that became due meanwhile follow one by one
    static uint64_t blocked_until;
    uint64_t now;
    while (rate > 0 && (now = monotonic_ns()) >= due_ns) {
        if (blocked()) { blocked_until = now; return; }
        uint64_t late = due_ns < blocked_until ? now - due_ns : 0;
        send_one(realtime_ns() - late);
        due_ns += (uint64_t)(1e9 / rate);
    }
}

static void flood(void) {
    for (int i = 0; i < n_readers; i++) {
        reader_t *r = &readers[i];
        if (!r->ready || r->n_out) continue;
        uint64_t stamp = realtime_ns();
        while (r->n_out < CHUNK) queue_trade(r, next_id++, stamp), trades++;
        flush_reader(r);
    }
}

static void report(void) {
    printf("{\"sent\":%llu,\"accepted\":%llu,\"cpu\":%.3f,\"at\":%.6f,\"readers\":%d}\n", (unsigned long long)trades,
           (unsigned long long)accepted, cpu_seconds(), monotonic_ns() / 1e9, listened_to());
    fflush(stdout);
}

static void obey(char *line) {
    if (!strncmp(line, "rate ", 5)) rate = atof(line + 5), due_ns = monotonic_ns();
    else if (!strncmp(line, "flood", 5)) rate = -1;
    else if (!strncmp(line, "idle", 4)) rate = 0;
    report();
}

static int64_t wait_ns(void) {
    if (rate == 0 || blocked() || !listened_to()) return 100000000;
    if (rate < 0) return 0;
    int64_t left = (int64_t)(due_ns - monotonic_ns());
    return left < 0 ? 0 : left > 100000000 ? 100000000 : left;
}

int main(int argc, char **argv) {
    int port = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--port")) port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--speak")) blockchain = !strcmp(argv[i + 1], "blockchain");
        else return fprintf(stderr, "usage: feed [--port N] [--speak binance|blockchain]\n"), 2;
    }
    bounded_life();
    int listener = listen_on(port);
    printf("{\"port\":%d}\n", port_of(listener)), fflush(stdout);
    for (;;) {
        struct pollfd p[MOST + 2] = {{0, POLLIN, 0}, {listener, POLLIN, 0}};
        for (int i = 0; i < n_readers; i++)
            p[i + 2] = (struct pollfd){readers[i].fd, POLLIN | (readers[i].n_out ? POLLOUT : 0), 0};
        int watched = n_readers;
        int64_t ns = wait_ns();
        struct timespec t = {ns / 1000000000, ns % 1000000000};
        ppoll(p, watched + 2, &t, NULL);
        if (p[0].revents) read_commands(obey);
        if (p[1].revents) welcome(listener);
        for (int i = 0; i < watched; i++) {
            if (readers[i].fd >= 0 && p[i + 2].revents & POLLOUT) flush_reader(&readers[i]);
            if (readers[i].fd >= 0 && p[i + 2].revents & (POLLIN | POLLHUP | POLLERR)) read_from(&readers[i]);
        }
        if (rate > 0 && listened_to()) send_due();
        else if (rate < 0) flood();
        else due_ns = monotonic_ns();
    }
}
