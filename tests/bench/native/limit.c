// limit: the least work that a server can do for an update: send() to each client, and nothing else.
//
//   ./limit --clients N --update TEXT                            one update a send, made by a timer of its own
//   ./limit --clients N --update TEXT --feed PORT [--joined N]   updates of a feed, joined while a pass lasts
//
// It is a peer like the others (see ../peer_programs/orders.py): it prints {"port": N} and takes commands on standard
// input. The report gives the figures of other servers as a share of these.
//
// With --feed the updates come from feed.c through a socket, and the commands go to the feed. The daemon gets its
// updates in the same way, so both ages contain the same wait in a socket, and a source that shares a core with the
// load client. A timer in here would leave both out. Little is parsed: the frames are cut, and each stamp goes into
// the prepared text. Each pass over the clients takes all updates that came during the last pass, at most --joined.
#include "ws.h"

enum {
    MOST_DUE = 1 << 16, // updates that came and are not yet sent; beyond, the feed has to wait
    RECEIVED = 1 << 16, // bytes in one receive
    SHORTEST = 64,      // bytes; no trade of the feed is shorter
    STREAM = 1 << 24,   // bytes that are kept for clients that do not take everything at once
    LONGEST = 2048,     // bytes of an update
};
typedef struct {
    int fd;
    uint64_t sent; // its position in `stream`
} client_t;

static client_t *clients;
static int n_clients, expected, feed = -1, joined = 256;
static double rate; // updates a second; 0 none, < 0 as many as possible
static uint64_t sequence, due_ns, busy_until;
static const char *update;

static void open_client(int fd, uint64_t position) { // the load client speaks first, and waits for the answer
    char request[4096], answer[256];
    ssize_t n = recv(fd, request, sizeof request - 1, 0);
    request[n > 0 ? n : 0] = 0;
    size_t length = handshake_answer(request, answer);
    if (!length || send(fd, answer, length, MSG_NOSIGNAL) < 0) { close(fd); return; }
    set_nonblocking(fd), set_nodelay(fd);
    clients[n_clients++] = (client_t){fd, position};
}

static size_t put_number(char *to, uint64_t value) { return sprintf(to, "%llu", (unsigned long long)value); }

static size_t put_update(uint8_t *frame, uint64_t stamp) { // @N is the sequence number, @S the stamp
    char text[LONGEST];
    size_t n = 0;
    for (const char *p = update; *p;) {
        if (*p != '@') { text[n++] = *p++; continue; }
        n += put_number(text + n, p[1] == 'S' ? stamp : sequence);
        p += 2;
    }
    size_t head = frame_head(frame, OP_TEXT, n);
    memcpy(frame + head, text, n);
    return head + n;
}

// -- one update a send -----------------------------------------------------------------------------------

static void broadcast(uint64_t stamp) {
    uint8_t frame[LONGEST + 16];
    sequence++;
    size_t n = put_update(frame, stamp);
    for (int i = 0; i < n_clients; i++) {
        size_t sent = 0;
        while (sent < n) { // a client that is full is waited for
            ssize_t r = send(clients[i].fd, frame + sent, n - sent, MSG_NOSIGNAL);
            if (r > 0) { sent += r; continue; }
            if (errno != EAGAIN) break;
            poll(&(struct pollfd){clients[i].fd, POLLOUT, 0}, 1, 100);
        }
    }
}

static void broadcast_due(void) {
    for (int i = 0; i < 16; i++) { // then a look at the commands
        uint64_t now = monotonic_ns();
        if (now < due_ns) return;
        broadcast(realtime_ns() - (due_ns < busy_until ? now - due_ns : 0));
        busy_until = monotonic_ns();
        due_ns += (uint64_t)(1e9 / rate);
    }
}

// -- updates of a feed, joined ---------------------------------------------------------------------------

// All clients read one stream of bytes, each from its own position. A client that does not take everything at once
// gets the rest in the next pass: to wait for it here would let one full socket delay all other clients.
static uint8_t stream[STREAM];
static uint64_t written, due[MOST_DUE], n_due, first_due; // `due`: stamps of updates that came, a ring

static void connect_feed(int port) {
    struct sockaddr_in a = {.sin_family = AF_INET, .sin_port = htons(port)};
    a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    feed = socket(AF_INET, SOCK_STREAM, 0);
    if (feed < 0 || connect(feed, (void *)&a, sizeof a)) die("connect to the feed");
    char request[] = "GET /stream?streams=btcusdt@trade HTTP/1.1\r\nHost: feed\r\nUpgrade: websocket\r\n"
                     "Connection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
    if (send(feed, request, sizeof request - 1, MSG_NOSIGNAL) < 0) die("send to the feed");
    char last[4] = "";
    while (memcmp(last, "\r\n\r\n", 4)) { // the end of the answer
        memmove(last, last + 1, 3);
        if (recv(feed, last + 3, 1, 0) <= 0) die("handshake with the feed");
    }
    set_nonblocking(feed), set_nodelay(feed);
}

static void on_trade(const frame_t *f) { // its quantity is the stamp; a quote follows, where strtoull ends
    const char key[] = "\"q\":\"";
    const char *found = memmem(f->payload, f->length, key, sizeof key - 1);
    if (found) due[(first_due + n_due++) % MOST_DUE] = strtoull(found + sizeof key - 1, NULL, 10);
}

static void read_feed(void) {
    static uint8_t in[2 * RECEIVED];
    static size_t n_in;
    ssize_t n = recv(feed, in + n_in, RECEIVED, 0);
    if (n < 0 && errno == EAGAIN) return;
    if (n <= 0) die("the feed has ended");
    n_in += n;
    size_t used = 0;
    frame_t f;
    while (next_frame(in + used, n_in - used, &f)) on_trade(&f), used += f.whole;
    memmove(in, in + used, n_in -= used);
}

static void append(const uint8_t *bytes, size_t n) {
    size_t at = written % STREAM, whole = n < STREAM - at ? n : STREAM - at;
    memcpy(stream + at, bytes, whole), memcpy(stream, bytes + whole, n - whole);
    written += n;
}

static int served(client_t *c) { // one send, or two at the end of the buffer; whether it took everything
    if (c->fd >= 0 && written - c->sent > STREAM) close(c->fd), c->fd = -1; // too far behind
    while (c->fd >= 0 && c->sent < written) {
        size_t at = c->sent % STREAM, n = written - c->sent;
        if (n > STREAM - at) n = STREAM - at;
        ssize_t r = send(c->fd, stream + at, n, MSG_NOSIGNAL);
        if (r < 0 && errno != EAGAIN) close(c->fd), c->fd = -1;
        else if (r > 0) c->sent += r;
        if (r != (ssize_t)n) return c->fd < 0;
    }
    return 1;
}

static int pass(void) { // how many clients are behind after it
    uint8_t frame[LONGEST + 16];
    int behind = 0;
    for (int k = 0; k < joined && n_due; k++, n_due--) {
        sequence++;
        append(frame, put_update(frame, due[first_due++ % MOST_DUE]));
    }
    for (int i = 0; i < n_clients; i++) behind += !served(&clients[i]);
    return behind;
}

// -- commands, and the loop ------------------------------------------------------------------------------

static void obey(char *line) {
    if (!strncmp(line, "rate ", 5)) rate = atof(line + 5), due_ns = monotonic_ns();
    else if (!strncmp(line, "flood", 5)) rate = -1;
    else if (!strncmp(line, "idle", 4)) rate = 0;
    printf("{\"sent\":%llu}\n", (unsigned long long)sequence);
    fflush(stdout);
}

static struct timespec until_due(int behind) {
    const int64_t longest = 100000000;
    int64_t ns = rate < 0 || n_due ? 0 : behind ? 1000000 : rate == 0 ? longest : (int64_t)(due_ns - monotonic_ns());
    ns = ns < 0 ? 0 : ns > longest ? longest : ns;
    return (struct timespec){ns / 1000000000, ns % 1000000000};
}

int main(int argc, char **argv) {
    int feed_port = 0, behind = 0;
    for (int i = 1; i + 1 < argc; i += 2) {
        if (!strcmp(argv[i], "--clients")) expected = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--update")) update = argv[i + 1];
        else if (!strcmp(argv[i], "--feed")) feed_port = atoi(argv[i + 1]);
        else if (!strcmp(argv[i], "--joined")) joined = atoi(argv[i + 1]);
    }
    if (expected < 1 || !update || joined < 1)
        return fprintf(stderr, "usage: limit --clients N --update TEXT [--feed PORT [--joined N]]\n"), 2;
    bounded_life();
    clients = calloc(expected, sizeof *clients);
    if (feed_port) connect_feed(feed_port);
    int listener = listen_on(0);
    printf("{\"port\":%d}\n", port_of(listener)), fflush(stdout);
    for (;;) {
        int room = n_due + 2 * RECEIVED / SHORTEST < MOST_DUE;
        struct pollfd p[3] = {
            {0, POLLIN, 0}, {listener, n_clients < expected ? POLLIN : 0, 0}, {room ? feed : -1, POLLIN, 0}};
        struct timespec t = until_due(behind);
        ppoll(p, 3, &t, NULL);
        if (p[0].revents) read_commands(obey);
        if (p[1].revents & POLLIN) {
            int fd = accept(listener, NULL, NULL);
            if (fd >= 0) open_client(fd, written);
        }
        if (p[2].revents) read_feed();
        if (n_due || behind) behind = pass();
        if (rate < 0) broadcast(realtime_ns());
        else if (rate > 0) broadcast_due();
    }
}
