// storm: many clients that connect at once, subscribe, and come back with `since` after a disconnect.
//
//   ./storm --port N --clients N --symbol BTC-USDT [--snapshot 50] [--window N]
//
// All clients connect at once, with at most --window handshakes under way, and subscribe. When all have their answers,
// one line of JSON gives the time that this took. Then every line of standard input is answered by one line of JSON:
//   arm      from now on a disconnected client comes back with its position; answered at once
//   await    answered when all clients have gone, come back, and have their answers; or after 90 s
//   tell     the figures so far
// The end of standard input ends it. The figures: `lost`: places in the stream that did not come and are not in a
// reported gap; `gaps`: reported gaps; `unrecovered`: answers to `since` without "recovered":true; `wait`: from the first
// byte of a handshake to the answer; `silence`: the longest time in a wait without any sign for the client (a handshake, a
// notification, an answer).
#include "ws.h"
#include <getopt.h>

enum { AWAY, CONNECTING, SHAKING, WAITING, SERVED };
typedef struct {
    int fd, state, resumes, sent_away;
    uint64_t begun, sign, retry_at; // ns
    uint64_t epoch, offset;         // its last place
    uint8_t *rest;
    size_t n_rest, cap;
} client_t;

static client_t *clients;
static const char *symbol = "BTC-USDT";
static int port, n_clients = 1000, n_snapshot = 50, window = 1024, epoll, armed;
static int shaking, served, came_back;
static uint64_t lost, gaps, unrecovered, errors, refused, others, updates, longest_silence, began;
static double *waits; // seconds, of this phase
static int n_waits;
static uint8_t buffer[1 << 20];

static void hang_up(client_t *c) {
    if (c->fd >= 0) close(c->fd);
    if (c->state == CONNECTING || c->state == SHAKING) shaking--;
    if (c->state == SERVED) served--;
    c->fd = -1, c->state = AWAY, c->n_rest = 0;
    if (armed) c->resumes = c->offset != 0, c->sent_away = 1;
    c->retry_at = monotonic_ns() + 50000000 + rand() % 50000000; // clients do not come back all at one moment
}

static void say(client_t *c, int op, const void *payload, size_t n) {
    uint8_t out[1024];
    if (n > 1000 || send(c->fd, out, masked_frame(out, op, payload, n), MSG_NOSIGNAL) <= 0) hang_up(c);
}

static void begin(client_t *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0)) < 0) die("socket");
    set_nodelay(c->fd);
    if (!c->begun) c->begun = c->sign = monotonic_ns();
    c->state = CONNECTING, shaking++;
    if (connect(c->fd, (void *)&a, sizeof a) && errno != EINPROGRESS) { hang_up(c); return; }
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN | EPOLLOUT | EPOLLET, .data.ptr = c});
}

static void request(client_t *c) { // when it is connected
    char text[256];
    c->state = SHAKING;
    int n = snprintf(text, sizeof text,
                     "GET /ws HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                     "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
                     port);
    if (send(c->fd, text, n, MSG_NOSIGNAL) != n) hang_up(c);
}

static void subscribe(client_t *c) {
    char text[256];
    int n = c->resumes
                ? snprintf(text, sizeof text,
                           "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\",\"params\":{\"symbol\":\"%s\",\"since\":"
                           "{\"epoch\":%llu,\"offset\":%llu}}}",
                           symbol, (unsigned long long)c->epoch, (unsigned long long)c->offset)
                : snprintf(text, sizeof text,
                           "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"subscribe\",\"params\":{\"symbol\":\"%s\",\"snapshot\":%d}}",
                           symbol, n_snapshot);
    c->state = WAITING, shaking--;
    say(c, OP_TEXT, text, n);
}

static void sign_of_life(client_t *c) {
    uint64_t now = monotonic_ns();
    if (c->state != SERVED && now - c->sign > longest_silence) longest_silence = now - c->sign;
    c->sign = now;
}

static uint64_t number(const char *p, const char *end) {
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9') v = v * 10 + (*p++ - '0');
    return v;
}

static const char *after(const char *p, const char *end, const char *key) {
    const char *found = p < end ? memmem(p, end - p, key, strlen(key)) : NULL;
    return found ? found + strlen(key) : NULL;
}

static void check_resumed(client_t *c, const char *p, const char *end, uint64_t position) {
    if (!after(p, end, "\"recovered\":true")) { unrecovered++; return; }
    int told = after(p, end, "\"gaps\":[{") != NULL;
    gaps += told;
    uint64_t expected = c->offset + 1, place;
    for (const char *q = after(p, end, "\"trades\":"); q && (q = after(q, end, "\"offset\":")); expected = place + 1) {
        place = number(q, end);
        if (place != expected && !told) lost++;
    }
    if (expected != position + 1 && !told) lost++;
}

static void on_answer(client_t *c, const char *p, const char *end) {
    const char *epoch = after(p, end, "\"epoch\":"), *offset = after(p, end, "\"offset\":");
    if (!epoch || !offset) { errors++; return; }
    uint64_t position = number(offset, end);
    if (c->resumes) check_resumed(c, p, end, position), came_back += c->sent_away;
    c->epoch = number(epoch, end), c->offset = position;
    if (c->state == WAITING) waits[n_waits++ % n_clients] = (monotonic_ns() - c->begun) / 1e9;
    c->state = SERVED, c->sent_away = 0, c->begun = 0, served++;
}

static void on_update(client_t *c, const char *p, const char *end) {
    const char *offset = after(p, end, "\"offset\":");
    uint64_t place = offset ? number(offset, end) : 0;
    if (c->state != SERVED || place != c->offset + 1) lost++;
    c->offset = place, updates++;
}

static void on_gap(client_t *c, const char *p, const char *end) { // {"from":N,"to":N or null}
    const char *from = after(p, end, "\"from\":"), *to = after(p, end, "\"to\":");
    uint64_t first = from ? number(from, end) : 0, last = to ? number(to, end) : 0;
    if (first != c->offset + 1) lost++;
    c->offset = last ? last : first, gaps++;
}

static void on_message(client_t *c, const char *p, size_t n) {
    const char *end = p + n, *head = n > 60 ? p + 60 : end;
    sign_of_life(c);
    if (after(p, head, "\"method\":\"trades.update\"")) on_update(c, p, end);
    else if (after(p, head, "\"method\":\"stream.gap\"")) on_gap(c, p, end);
    else if (after(p, head, "\"method\":")) others++; // connection.waiting, .draining, .refused ...
    else if (after(p, head, "\"result\":")) on_answer(c, p, end);
    else errors++;
}

static void on_close(client_t *c, frame_t *f) {
    int code = f->length < 2 ? 1005 : f->payload[0] << 8 | f->payload[1];
    refused += code == 1013;
    say(c, OP_CLOSE, f->payload, f->length > 2 ? 2 : f->length);
    hang_up(c);
    if (code == 1013) c->retry_at = monotonic_ns() + 1000000000; // earlier than retryAfter says, to save time
}

static void on_frame(client_t *c, frame_t *f) {
    if (f->op == OP_TEXT) on_message(c, (char *)f->payload, f->length);
    else if (f->op == OP_PING) say(c, OP_PONG, f->payload, f->length);
    else if (f->op == OP_CLOSE) on_close(c, f);
}

static size_t on_handshake(client_t *c, uint8_t *p, size_t n) {
    uint8_t *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(p, "HTTP/1.1 101", 12)) {
        refused++;
        hang_up(c), c->retry_at = monotonic_ns() + 500000000;
        return n;
    }
    sign_of_life(c);
    subscribe(c);
    return end + 4 - p;
}

static void on_readable(client_t *c) {
    for (;;) {
        if (c->n_rest) memcpy(buffer, c->rest, c->n_rest);
        ssize_t n = recv(c->fd, buffer + c->n_rest, sizeof buffer - c->n_rest, 0);
        if (n < 0 && errno == EAGAIN) return;
        if (n <= 0) { hang_up(c); return; }
        size_t total = c->n_rest + n, used = 0;
        if (c->state == SHAKING) used = on_handshake(c, buffer, total);
        frame_t f;
        while (c->fd >= 0 && c->state > SHAKING && next_frame(buffer + used, total - used, &f)) on_frame(c, &f), used += f.whole;
        if (c->fd < 0) return;
        size_t left = total - used;
        if (left > c->cap) c->rest = realloc(c->rest, c->cap = left * 2);
        if (left) memmove(c->rest, buffer + used, left);
        c->n_rest = left;
    }
}

static void on_event(client_t *c, uint32_t events) {
    if (c->fd < 0) return;
    if (events & (EPOLLERR | EPOLLHUP) && c->state == CONNECTING) { hang_up(c); return; }
    if (events & EPOLLOUT && c->state == CONNECTING) request(c);
    if (c->fd < 0) return;
    if (events & EPOLLIN) on_readable(c);
}

static void start_due(void) {
    static int next;
    uint64_t now = monotonic_ns();
    for (int i = 0; i < n_clients && shaking < window; i++, next++) {
        client_t *c = &clients[next % n_clients];
        if (c->state == AWAY && c->retry_at <= now) begin(c);
    }
}

static int turn(void) { // whether there is a command
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, 10), told = 0;
    for (int i = 0; i < n; i++) {
        if (!events[i].data.ptr) told = 1;
        else on_event(events[i].data.ptr, events[i].events);
    }
    start_due();
    return told;
}

static int by_size(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static void report(double seconds) {
    int n = n_waits < n_clients ? n_waits : n_clients;
    qsort(waits, n, sizeof *waits, by_size);
    printf("{\"seconds\":%.3f,\"served\":%d,\"answers\":%d,\"wait_p50\":%.3f,\"wait_p99\":%.3f,\"wait_max\":%.3f,"
           "\"silence\":%.3f,\"lost\":%llu,\"gaps\":%llu,\"unrecovered\":%llu,\"errors\":%llu,\"refused\":%llu,"
           "\"notifications\":%llu,\"updates\":%llu,\"came_back\":%d,\"cpu\":%.3f}\n",
           seconds, served, n, n ? waits[n / 2] : 0, n ? waits[n * 99 / 100] : 0, n ? waits[n - 1] : 0, longest_silence / 1e9,
           (unsigned long long)lost, (unsigned long long)gaps, (unsigned long long)unrecovered, (unsigned long long)errors,
           (unsigned long long)refused, (unsigned long long)others, (unsigned long long)updates, came_back, cpu_seconds());
    fflush(stdout);
}

static void turn_until(int *count) { // all served, or 90 s
    while (*count < n_clients && monotonic_ns() - began < 90000000000ull) turn();
    report((monotonic_ns() - began) / 1e9);
}

static void obey(char *line) {
    if (!strncmp(line, "arm", 3)) {
        armed = 1, came_back = n_waits = 0, longest_silence = 0, began = monotonic_ns();
        report(0);
    } else if (!strncmp(line, "await", 5)) turn_until(&came_back);
    else report(0);
}

int main(int argc, char **argv) {
    static struct option known[] = {{"port", 1, 0, 'p'}, {"clients", 1, 0, 'n'}, {"symbol", 1, 0, 's'},
                                    {"snapshot", 1, 0, 'S'}, {"window", 1, 0, 'W'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'n': n_clients = atoi(optarg); break;
        case 's': symbol = optarg; break;
        case 'S': n_snapshot = atoi(optarg); break;
        case 'W': window = atoi(optarg); break;
        default: return fprintf(stderr, "usage: see the top of storm.c\n"), 2;
        }
    bounded_life();
    epoll = epoll_create1(0), clients = calloc(n_clients, sizeof *clients), waits = calloc(n_clients, sizeof *waits);
    for (int i = 0; i < n_clients; i++) clients[i].fd = -1;
    began = monotonic_ns();
    turn_until(&served);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    for (;;) {
        if (!turn()) continue;
        char line[64] = "";
        if (read(0, line, sizeof line - 1) <= 0) return 0;
        obey(line);
    }
}
