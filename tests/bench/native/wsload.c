// wsload: many WebSocket clients in one thread. They count updates and measure their ages.
//
//   ./wsload --port N [--path /ws] [--clients N] [--send TEXT]... [--tls] [--slow N] [--window N]
//            [--protocol NAME] [--end CODE] [--count KEY] [--raw] [--deflate] [--look N]
//
// Opens the connections and sends each TEXT on each, with the character CODE behind it. Prints one line of JSON when all are open. Then it answers every line of
// standard input with one line of JSON: the figures since the last line. The end of standard input ends it.
//
// An update carries its time of sending (ns since 1970) behind "qty": and its place behind the last "offset":. The place
// must grow by one per client. `skipped` counts the places where it does not, without a stream.gap before; `gaps` counts
// the stream.gap messages, `others` all other messages. The first --slow clients never read, have a small receive buffer,
// and do not count. With --count every message with KEY in it is an update, and nothing else is measured of it; with --raw
// the answer to the request is no WebSocket but a body, and every KEY in it is an update. With --deflate clients offer
// permessage-deflate. With --look N only every Nth client looks into its messages, and inflates those that are compressed;
// of the others only bytes count, and each update that a client sees counts N times. A message may be an array of updates,
// and an update an array of eight values (the format "compact"). Built with -DWITH_ZLIB (and -lz) it inflates. Built with -DWITH_TLS (and -lssl -lcrypto) it also speaks TLS; it does not check certificates.
#include "ws.h"
#include <getopt.h>
#ifdef WITH_TLS
#include <openssl/ssl.h>
#else
typedef void SSL;
#endif
#ifdef WITH_ZLIB
#include <zlib.h>
#else
typedef void z_stream;
#endif

enum { NEW, SHAKING, OPEN, DEAD };
typedef struct {
    int fd, state;
    SSL *ssl;
    uint8_t *rest; // the beginning of a frame, or of an answer to the handshake
    size_t n_rest, cap;
    uint64_t offset, updates;
    z_stream *inflater; // of a client that looks into compressed messages
} client_t;

static struct {
    uint64_t updates, others, bytes, reads, skipped, gaps, closes, compressed;
    latencies_t latencies;
} seen;

enum { TEXTS = 4 };
static const char *path = "/ws", *texts[TEXTS], *protocol, *key;
static int n_texts, end_code = -1, raw, port, n_clients = 100, window = 64, n_slow, tls, opened, dead, epoll, shaken[2];
static int deflate_offered, look = 1;
static client_t *clients;
static uint8_t *buffer;
static size_t capacity = 1 << 18;
static char sample[1024];

static void hang_up(client_t *c) {
    if (c->state == DEAD) return;
    c->state = DEAD, dead++;
    close(c->fd);
}

// -- plain or TLS ---------------------------------------------------------------------------------------

#ifdef WITH_TLS
static SSL *tls_over(int fd) { // with the socket still blocking
    static SSL_CTX *context;
    if (!context) {
        context = SSL_CTX_new(TLS_client_method());
        SSL_CTX_set_verify(context, SSL_VERIFY_NONE, NULL);
        SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    }
    SSL *ssl = SSL_new(context);
    SSL_set_fd(ssl, fd);
    return SSL_connect(ssl) == 1 ? ssl : NULL;
}
static ssize_t receive(client_t *c, void *to, size_t n) {
    if (!c->ssl) return recv(c->fd, to, n, 0);
    size_t got = 0;
    while (got < n) {
        int r = SSL_read(c->ssl, (uint8_t *)to + got, n - got > 1 << 30 ? 1 << 30 : n - got);
        if (r > 0) { got += r; continue; }
        int why = SSL_get_error(c->ssl, r);
        if (got) break;
        if (why == SSL_ERROR_WANT_READ || why == SSL_ERROR_WANT_WRITE) return errno = EAGAIN, -1;
        return 0;
    }
    return got;
}
static ssize_t transmit(client_t *c, const void *from, size_t n) {
    return c->ssl ? SSL_write(c->ssl, from, n) : send(c->fd, from, n, MSG_NOSIGNAL);
}
#else
static SSL *tls_over(int fd) { return (void)fd, NULL; }
static ssize_t receive(client_t *c, void *to, size_t n) { return recv(c->fd, to, n, 0); }
static ssize_t transmit(client_t *c, const void *from, size_t n) { return send(c->fd, from, n, MSG_NOSIGNAL); }
#endif

static void say(client_t *c, int op, const void *payload, size_t n) { // small, to a socket that is not full
    uint8_t out[4096 + 14];
    if (n > 4096 || transmit(c, out, masked_frame(out, op, payload, n)) <= 0) hang_up(c);
}

// -- received data -----------------------------------------------------------------------------------

static uint64_t number_at(const uint8_t *p, const uint8_t *end) {
    uint64_t v = 0;
    while (p < end && *p >= '0' && *p <= '9') v = v * 10 + (*p++ - '0');
    return v;
}

static const uint8_t *behind(const uint8_t *p, size_t n, const char *key, size_t k) { // the last place is tried first
    static size_t last;
    if (last + k <= n && !memcmp(p + last, key, k)) return p + last + k;
    const uint8_t *found = memmem(p, n, key, k);
    if (!found) return NULL;
    last = found - p;
    return found + k;
}

static uint64_t last_offset(const uint8_t *p, size_t n) { // the update ends with "offset":N}}
    static const char key[] = "\"offset\":";
    const uint8_t *q = p + n;
    while (q > p && q[-1] == '}') q--;
    const uint8_t *end = q;
    while (q > p && q[-1] >= '0' && q[-1] <= '9') q--;
    return q - p < 9 || memcmp(q - 9, key, 9) ? 0 : number_at(q, end);
}

static int on_gap(client_t *c, const uint8_t *p, size_t n) { // {"from":N,"to":N or null}; whether it was a gap
    size_t head = n < 60 ? n : 60;
    if (!memmem(p, head, "\"stream.gap\"", 12)) return 0;
    const uint8_t *to = memmem(p, n, "\"to\":", 5), *from = memmem(p, n, "\"from\":", 7);
    uint64_t last = to ? number_at(to + 5, p + n) : 0;
    c->offset = last ? last : from ? number_at(from + 7, p + n) : 0;
    return 1;
}

static void on_update(client_t *c, uint64_t sent, uint64_t offset, uint64_t now) {
    if (c->offset && offset != c->offset + 1) seen.skipped++;
    c->offset = offset, c->updates += look, seen.updates += look;
    latency_add(&seen.latencies, (int64_t)(now - sent));
}

static void on_compact(client_t *c, const uint8_t *p, const uint8_t *end, uint64_t now) { // [topic,offset,us,side,price,qty,...
    uint64_t offset = 0;
    int commas = 0;
    for (; p < end && commas < 5; p++)
        if (*p == ',' && ++commas == 1) offset = number_at(p + 1, end);
    on_update(c, number_at(p, end), offset, now);
}

static void on_array(client_t *c, const uint8_t *p, size_t n, uint64_t now) {
    const uint8_t *end = p + n, *q = p + 1;
    if (*q != '[' && *q != '{') return on_compact(c, p, end, now);
    while (q && q < end && *q == '[') { // arrays of eight values
        on_compact(c, q, end, now);
        if ((q = memchr(q, ']', end - q))) q += 2;
    }
    if (!q) return;
    for (const uint8_t *gap; (q = memmem(p, end - p, "\"qty\":", 6)); p = q) { // notifications
        while ((gap = memmem(p, q - p, "\"stream.gap\"", 12))) on_gap(c, gap, q - gap), seen.gaps++, p = gap + 12;
        uint64_t sent = number_at(q + 6, end);
        const uint8_t *place = memmem(q, end - q, "\"offset\":", 9);
        if (!place) break;
        on_update(c, sent, number_at(place + 9, end), now);
        q = place;
    }
}

static void on_message(client_t *c, const uint8_t *p, size_t n, uint64_t now) {
    if (!key && n > 1 && *p == '[') {
        if (!*sample && n < sizeof sample) memcpy(sample, p, n);
        return on_array(c, p, n, now);
    }
    if (key) {
        size_t length = strlen(key), found = 0;
        for (const uint8_t *q = p; (q = memmem(q, p + n - q, key, length)); q += length) found++;
        if (!found) { seen.others++; return; }
        if (!*sample && n < sizeof sample) memcpy(sample, p, n);
        c->updates += found, seen.updates += found;
        return;
    }
    const uint8_t *stamp = behind(p, n, "\"qty\":", 6);
    uint64_t sent = stamp ? number_at(stamp, p + n) : 0;
    if (!sent || memmem(p, n < 40 ? n : 40, "\"result\"", 8)) {
        if (on_gap(c, p, n)) seen.gaps++;
        else seen.others++;
        return;
    }
    if (!*sample && n < sizeof sample) memcpy(sample, p, n);
    on_update(c, sent, last_offset(p, n), now);
}

// -- compressed messages ------------------------------------------------------------------------------------

static uint8_t *inflated(client_t *c, uint8_t *p, size_t n, size_t *made) { // of the message with this payload
#ifdef WITH_ZLIB
    static uint8_t *out;
    static size_t room;
    static uint8_t tail[] = {0, 0, 0xff, 0xff};
    if (!out) out = malloc(room = 1 << 20);
    if (!c->inflater) inflateInit2(c->inflater = calloc(1, sizeof(z_stream)), -15);
    z_stream *z = c->inflater;
    z->next_out = out, z->avail_out = room;
    for (int part = 0; part < 2; part++) {
        z->next_in = part ? tail : p, z->avail_in = part ? sizeof tail : n;
        int r = inflate(z, Z_SYNC_FLUSH);
        if ((r != Z_OK && r != Z_BUF_ERROR) || z->avail_in) fprintf(stderr, "wsload: corrupt compressed data\n"), exit(1);
    }
    *made = room - z->avail_out;
    return out;
#else
    (void)c, (void)p, (void)n, (void)made;
    fprintf(stderr, "wsload: built without zlib\n"), exit(1);
#endif
}

static void on_data(client_t *c, frame_t *f, uint64_t now) {
    seen.compressed += f->rsv != 0;
    if ((c - clients) % look) return;
    size_t n = f->length;
    uint8_t *p = f->rsv ? inflated(c, f->payload, n, &n) : f->payload;
    if (f->fin && f->op) on_message(c, p, n, now); // the pieces of a long answer hold no live update
}

static void on_open(client_t *c) {
    c->state = OPEN, opened++;
    for (int i = 0; i < n_texts; i++) {
        char whole[4096];
        size_t n = strlen(texts[i]);
        memcpy(whole, texts[i], n);
        if (end_code >= 0) whole[n++] = end_code;
        say(c, OP_TEXT, whole, n);
    }
    if (c - clients < n_slow) epoll_ctl(epoll, EPOLL_CTL_DEL, c->fd, NULL);
}

static size_t on_handshake(client_t *c, uint8_t *p, size_t n) {
    uint8_t *end = memmem(p, n, "\r\n\r\n", 4);
    if (!end) return 0;
    if (memcmp(p, raw ? "HTTP/1.1 200" : "HTTP/1.1 101", 12)) {
        if (!shaken[1]++) fprintf(stderr, "wsload: refused: %.60s\n", p);
        return hang_up(c), n;
    }
    on_open(c);
    return end + 4 - p;
}

static void on_frame(client_t *c, frame_t *f, uint64_t now) {
    if (f->op < 3) on_data(c, f, now);
    else if (f->op == OP_PING) say(c, OP_PONG, f->payload, f->length);
    else if (f->op == OP_CLOSE) seen.closes++, say(c, OP_CLOSE, f->payload, f->length > 2 ? 2 : f->length), hang_up(c);
}

static size_t on_body(client_t *c, const uint8_t *p, size_t n) { // what may be the beginning of a KEY is left
    size_t length = strlen(key), used = 0;
    for (const uint8_t *found; (found = memmem(p + used, n - used, key, length)); used = found + length - p)
        c->updates++, seen.updates++;
    return n - used < length ? used : n - length + 1 > used ? n - length + 1 : used;
}

static void on_readable(client_t *c) {
    if (c->n_rest) memcpy(buffer, c->rest, c->n_rest);
    ssize_t n = receive(c, buffer + c->n_rest, capacity - c->n_rest - 1);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return;
    if (n <= 0) return hang_up(c);
    seen.reads++, seen.bytes += n;
    uint64_t now = realtime_ns();
    size_t total = c->n_rest + n, used = 0;
    if (c->state == SHAKING) used = on_handshake(c, buffer, total);
    frame_t f;
    if (raw && c->state == OPEN) used += on_body(c, buffer + used, total - used);
    while (!raw && c->state == OPEN && next_frame(buffer + used, total - used, &f)) on_frame(c, &f, now), used += f.whole;
    size_t left = total - used;
    if (left > c->cap) c->rest = realloc(c->rest, c->cap = left < 512 ? 512 : left * 2);
    if (left) memcpy(c->rest, buffer + used, left);
    c->n_rest = left;
    if (left > capacity / 2) buffer = realloc(buffer, capacity *= 2);
}

static void start(client_t *c) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if ((c->fd = socket(AF_INET, SOCK_STREAM, 0)) < 0) die("socket");
    int small = 4096;
    if (c - clients < n_slow) setsockopt(c->fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small);
    c->state = SHAKING;
    if (connect(c->fd, (void *)&a, sizeof a)) return hang_up(c);
    set_nodelay(c->fd);
    if (tls && !(c->ssl = tls_over(c->fd))) return hang_up(c);
    char request[1024], offer[256] = "";
    if (protocol) snprintf(offer, sizeof offer, "Sec-WebSocket-Protocol: %s\r\n", protocol);
    if (deflate_offered) strcat(offer, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n");
    int n = raw ? snprintf(request, sizeof request, "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\n\r\n", path, port)
                : snprintf(request, sizeof request,
                           "GET %s HTTP/1.1\r\nHost: 127.0.0.1:%d\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                           "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n%s\r\n",
                           path, port, offer);
    if (transmit(c, request, n) != n) return hang_up(c);
    set_nonblocking(c->fd);
    epoll_ctl(epoll, EPOLL_CTL_ADD, c->fd, &(struct epoll_event){.events = EPOLLIN, .data.ptr = c});
}

// -- windows --------------------------------------------------------------------------------------------

static int turn(int ms) { // whether there is a command
    struct epoll_event events[512];
    int n = epoll_wait(epoll, events, 512, ms), told = 0;
    for (int i = 0; i < n; i++) {
        client_t *c = events[i].data.ptr;
        if (!c) told = 1;
        else if (c->state != DEAD) on_readable(c);
    }
    return told;
}

static void report(double seconds, double cpu) {
    uint64_t least = ~0ull, most = 0;
    for (int i = n_slow; i < n_clients; i++) {
        if (i % look) continue;
        uint64_t updates = clients[i].updates;
        least = updates < least ? updates : least, most = updates > most ? updates : most;
        clients[i].updates = 0;
    }
    latencies_t *l = &seen.latencies;
    printf("{\"seconds\":%.4f,\"updates\":%llu,\"others\":%llu,\"bytes\":%llu,\"reads\":%llu,\"skipped\":%llu,\"gaps\":%llu,"
           "\"closes\":%llu,\"compressed\":%llu,\"dead\":%d,\"least\":%llu,\"most\":%llu,\"p50_ms\":%.3f,\"p90_ms\":%.3f,\"p99_ms\":%.3f,"
           "\"max_ms\":%.3f,\"cpu\":%.3f}\n",
           seconds, (unsigned long long)seen.updates, (unsigned long long)seen.others, (unsigned long long)seen.bytes,
           (unsigned long long)seen.reads, (unsigned long long)seen.skipped, (unsigned long long)seen.gaps, (unsigned long long)seen.closes,
           (unsigned long long)seen.compressed, dead,
           (unsigned long long)least, (unsigned long long)most, latency_ms(l, .5), latency_ms(l, .9), latency_ms(l, .99),
           l->max / 1e6, cpu);
    fflush(stdout);
    memset(&seen, 0, sizeof seen);
}

static void open_all(void) {
    uint64_t begun = monotonic_ns();
    int started = 0;
    while (opened + dead < n_clients && monotonic_ns() - begun < 60000000000ull) {
        while (started < n_clients && started - opened - dead < window) start(&clients[started++]);
        turn(100);
    }
    printf("{\"open\":%d,\"dead\":%d,\"seconds\":%.3f}\n", opened, dead, (monotonic_ns() - begun) / 1e9);
    fflush(stdout);
}

static void print_sample(void) { // the first update, unchanged
    printf("%s\n", *sample ? sample : "{}");
    fflush(stdout);
}

int main(int argc, char **argv) {
    static struct option known[] = {{"port", 1, 0, 'p'}, {"path", 1, 0, 'P'}, {"clients", 1, 0, 'n'}, {"send", 1, 0, 's'},
                                    {"window", 1, 0, 'W'}, {"slow", 1, 0, 'L'}, {"tls", 0, 0, 'T'}, {"protocol", 1, 0, 'o'},
                                    {"end", 1, 0, 'e'}, {"count", 1, 0, 'k'}, {"raw", 0, 0, 'r'},
                                    {"deflate", 0, 0, 'd'}, {"look", 1, 0, 'l'}, {0, 0, 0, 0}};
    for (int o; (o = getopt_long(argc, argv, "", known, NULL)) != -1;) switch (o) {
        case 'p': port = atoi(optarg); break;
        case 'P': path = optarg; break;
        case 'n': n_clients = atoi(optarg); break;
        case 's':
            if (n_texts == TEXTS || strlen(optarg) > 4000) return fprintf(stderr, "too much to send\n"), 2;
            texts[n_texts++] = optarg;
            break;
        case 'o': protocol = optarg; break;
        case 'e': end_code = atoi(optarg); break;
        case 'k': key = optarg; break;
        case 'r': raw = 1; break;
        case 'd': deflate_offered = 1; break;
        case 'l': look = atoi(optarg) > 0 ? atoi(optarg) : 1; break;
        case 'W': window = atoi(optarg); break;
        case 'L': n_slow = atoi(optarg); break;
        case 'T': tls = 1; break;
        default: return fprintf(stderr, "usage: see the top of wsload.c\n"), 2;
        }
    bounded_life();
    epoll = epoll_create1(0), clients = calloc(n_clients, sizeof *clients), buffer = malloc(capacity);
    open_all();
    set_nonblocking(0);
    epoll_ctl(epoll, EPOLL_CTL_ADD, 0, &(struct epoll_event){.events = EPOLLIN, .data.ptr = NULL});
    uint64_t since = monotonic_ns();
    double cpu = cpu_seconds();
    for (;;) {
        if (!turn(1000)) continue;
        char line[256];
        ssize_t n = read(0, line, sizeof line - 1);
        if (n == 0) return 0;
        if (n < 0) continue;
        if (*line == 's') { print_sample(); continue; }
        uint64_t now = monotonic_ns();
        double used = cpu_seconds();
        report((now - since) / 1e9, used - cpu);
        since = now, cpu = used;
    }
}
